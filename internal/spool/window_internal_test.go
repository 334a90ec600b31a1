// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"testing"
	"time"

	"sluice/pkg/fec"
)

// TestFlyingOf: against counting them one by one, wherever the windows begin and end.
func TestFlyingOf(t *testing.T) {
	for groups := 1; groups < 9; groups++ {
		g, err := fec.New(int64(192*groups*16), 16, groups)
		if err != nil {
			t.Fatal(err)
		}
		s := g.Span(0)
		for first := range 20 {
			for n := range 20 {
				flight := staging{flight: []*window{{sbn: 0, first: first, n: n}, {sbn: 1, first: 0, n: 7}, {sbn: 0, first: 40, n: 3}}}
				for group := range s.D {
					want := 0
					for _, w := range []*window{flight.flight[0], flight.flight[2]} {
						for i := w.first; i < w.first+w.n; i++ {
							if i%s.D == group {
								want++
							}
						}
					}
					if got := flight.flyingOf(s, group); got != want {
						t.Fatalf("%d groups, windows of %d from %d and 3 from 40: %d of group %d, want %d", s.D, n, first, got, group, want)
					}
				}
			}
		}
	}
}

// TestSlow: a write that takes long is slow while it lasts, and a moment after.
func TestSlow(t *testing.T) {
	var g staging
	w := new(window)
	g.flight = append(g.flight, w)
	if g.slow() {
		t.Error("of a window that no writer has yet")
	}
	if w.since = time.Now(); g.slow() {
		t.Error("of one that a writer has just taken")
	}
	if w.since = w.since.Add(-slowWrite); !g.slow() {
		t.Error("not of one that a writer has had for long")
	}
	g.flight = nil
	if !g.slow() {
		t.Error("not just after it was written")
	}
	if g.slowUntil = g.slowUntil.Add(-slowFor); g.slow() {
		t.Error("a long time after")
	}
}
