// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"testing"
)

// TestRoomForReaders: one more for each socket, and what the site says where it says something.
func TestRoomForReaders(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(before)
	t.Setenv("GOMAXPROCS", "")
	roomForReaders(2)
	if got := runtime.GOMAXPROCS(0); got != before+2 {
		t.Errorf("%d at a time, want %d", got, before+2)
	}
	t.Setenv("GOMAXPROCS", "7")
	roomForReaders(2)
	if got := runtime.GOMAXPROCS(0); got != before+2 {
		t.Errorf("%d at a time although the site said how many", got)
	}
}
