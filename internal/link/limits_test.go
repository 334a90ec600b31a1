// SPDX-License-Identifier: Apache-2.0

package link

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// TestReleasesHeld: a sender with a link key that begins release after release, while the jobs of the earlier ones hang, gets no more
// than maxHeld of them held; when the jobs end, the next announcement is taken.
func TestReleasesHeld(t *testing.T) {
	r, first, _ := stepReceiver(t)
	linkKey, _, public := testKeys()
	first.release.busy = true
	now := time.Now()
	announce := func(n int) {
		a := Announcement{Profile: Profile1500, EnvelopeSize: 1, PayloadSize: 1, Groups: 1, Pass: 1, Start: time.Unix(1, 0)}
		binary.BigEndian.PutUint64(a.Session[:], uint64(100+n))
		binary.BigEndian.PutUint64(a.Release[:], uint64(100+n))
		d, _, err := SealAnnouncement(rand.Reader, a, linkKey, public)
		if err != nil {
			t.Fatal(err)
		}
		r.datagram(d, now)
		if s := r.table.find(a.Session); s != nil {
			s.release.busy = true // its job hangs
		}
	}
	for n := range maxHeld + 5 {
		announce(n)
	}
	if n, limited := len(r.releases), r.total.rejected[reasonLimit]; n != maxHeld || limited != 6 {
		t.Fatalf("%d releases held, %d announcements limited; want %d and 6", n, limited, maxHeld)
	}
	for _, rel := range r.releases {
		if rel.sessions == 0 {
			r.finished(event{release: rel, err: errors.New("at last")}, now)
		}
	}
	announce(1000)
	if r.table.find([8]byte{6: 4, 7: 76}) == nil || len(r.releases) > maxHeld {
		t.Errorf("after the jobs ended: %d releases held, the new session is not among them", len(r.releases))
	}
}

// TestSilent: whatever a stranger sends, nothing of it is logged; and who has a link key gets a few lines for each of the 64
// announcements a second that are looked at.
func TestSilent(t *testing.T) {
	r, s, c := stepReceiver(t)
	core, logs := observer.New(zap.DebugLevel)
	r.log = zap.New(core)
	linkKey, _, public := testKeys()
	genuine, _, err := SealAnnouncement(rand.Reader, s.announcement, linkKey, public)
	if err != nil {
		t.Fatal(err)
	}
	sealed := make([]byte, Profile1500.DatagramSize())
	c.seal(sealed, Header{Type: TypePayload, Profile: Profile1500, Session: s.announcement.Session}, make([]byte, symbolSize1500))
	for i := range genuine { // one bit after the other: every check, of a stranger and of a damaged datagram
		for _, d := range [][]byte{genuine, sealed} {
			d[i] ^= 1
			r.datagram(d, time.Now())
			r.datagram(d[:i], time.Now())
			d[i] ^= 1
		}
	}
	if logs.Len() > 0 {
		t.Errorf("logged of what no key made: %v", logs.All()[0])
	}
	now := time.Now()
	for n := range 200 {
		a := Announcement{Session: [8]byte{9, byte(n)}, Release: [32]byte{9, byte(n)}, Profile: Profile1500, EnvelopeSize: 1, PayloadSize: 1, Groups: 1, Pass: 1, Start: time.Unix(1, 0)}
		d, _, err := SealAnnouncement(rand.Reader, a, linkKey, public)
		if err != nil {
			t.Fatal(err)
		}
		r.datagram(d, now)
	}
	if n := logs.Len(); n == 0 || n > 4*signaturesPerSecond {
		t.Errorf("%d lines for 200 announcements within a second, want 1 to %d", n, 4*signaturesPerSecond)
	}
}
