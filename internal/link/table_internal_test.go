// SPDX-License-Identifier: Apache-2.0

package link

import (
	"testing"
	"time"
)

// TestBulletinsGiveWay: what has no payload gives way before a release that was not heard for longer.
func TestBulletinsGiveWay(t *testing.T) {
	var held table
	at := time.Unix(1_000_000, 0)
	add := func(id byte, payload int64, heard time.Time) (gone []byte) {
		s := &session{announcement: Announcement{Session: [8]byte{id}, Release: [32]byte{id}, PayloadSize: payload}, lastHeard: heard}
		for _, out := range held.add(s) {
			gone = append(gone, out.announcement.Session[0])
		}
		return gone
	}
	if gone := add(1, 1<<30, at); len(gone) > 0 { // a release that pauses for a day
		t.Fatal(gone)
	}
	for i := range byte(MaxReleases - 1) {
		if gone := add(10+i, 0, at.Add(time.Duration(i+1)*time.Minute)); len(gone) > 0 {
			t.Fatal(gone)
		}
	}
	for i := range byte(100) { // a bulletin a minute
		gone := add(50+i, 0, at.Add(time.Duration(100+int(i))*time.Minute))
		if len(gone) != 1 || gone[0] == 1 {
			t.Fatalf("bulletin %d pushed out %v", i, gone)
		}
	}
	if gone := add(2, 1<<30, at.Add(time.Hour*24)); len(gone) != 1 || gone[0] == 1 {
		t.Fatalf("another release pushed out %v", gone)
	}
}
