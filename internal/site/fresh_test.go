// SPDX-License-Identifier: Apache-2.0

package site_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/site"
	"sluice/internal/site/sitetest"
	"sluice/pkg/mofn"
)

func (l *lab) fresh(want site.State, words string) site.Freshness {
	l.t.Helper()
	f := l.site.Fresh(l.now)
	if f.State != want || !strings.Contains(f.Text, words) {
		l.t.Errorf("%s: %s; want %s, %q", f.State, f.Text, want, words)
	}
	return f
}

// onTime sets the clock to when the bulletin of a counter is made.
func (l *lab) onTime(counter int64) {
	l.now = wall(l.now, sitetest.Start().Add(time.Duration(counter)*time.Minute))
}

// TestUnwatched: without a heartbeat key nobody can tell.
func TestUnwatched(t *testing.T) {
	l := newLab(t, func(o *mofn.Trust) { o.Heartbeats = nil })
	l.fresh(site.Unwatched, "names no heartbeat key")
	l.later(30 * day)
	l.fresh(site.Unwatched, "names no heartbeat key")
	got := l.take(l.Bulletin(1, [][]byte{l.first}, nil))
	l.refused(got, "no heartbeat key", mofn.ErrSnapshot)
	l.fresh(site.Unwatched, "names no heartbeat key")
}

// TestUnheard: none came yet.
func TestUnheard(t *testing.T) {
	l := newLab(t, nil)
	l.later(90 * time.Minute)
	if f := l.fresh(site.Unheard, "listens for 1h30m0s"); f.Age != 90*time.Minute || f.Counter != 0 {
		t.Errorf("%+v", f)
	}
}

// TestStale: three intervals of the monotonic clock, to the second; the wall clock may say what it likes.
func TestStale(t *testing.T) {
	for name, shift := range map[string]time.Duration{"the wall clock goes right": 0, "it was set back": -400 * day, "it was set back an hour": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, nil)
			l.onTime(1)
			l.fine(l.Bulletin(1, [][]byte{l.first}, nil))
			l.fresh(site.Fresh, "snapshot 1, 0s ago")
			l.now = wall(l.now, l.now.Add(shift))
			l.later(3 * time.Minute)
			l.fresh(site.Fresh, "snapshot 1")
			l.later(time.Second)
			f := l.fresh(site.Stale, "no newer snapshot for 3m0s, one is due every 1m0s")
			if f.Age != 181*time.Second || f.Counter != 1 || f.Interval != time.Minute || len(f.Words) != 6 || !strings.Contains(f.Text, strings.Join(f.Words, " ")) {
				t.Errorf("%+v", f)
			}
			l.onTime(2)
			l.fine(l.Bulletin(2, [][]byte{l.first}, nil))
			l.fresh(site.Fresh, "snapshot 2")
		})
	}
}

// TestStaleForward: a wall clock that was set forward makes nothing stale by itself. It is said that the two are apart.
func TestStaleForward(t *testing.T) {
	l := newLab(t, nil)
	l.onTime(1)
	l.fine(l.Bulletin(1, [][]byte{l.first}, nil))
	l.now = wall(l.now, l.now.AddDate(1, 0, 0))
	if f := l.fresh(site.Late, "a clock is wrong"); f.Age != 0 || f.Behind < 365*day {
		t.Errorf("%+v", f)
	}
	l.later(4 * time.Minute)
	l.fresh(site.Stale, "")
}

// TestStaleOfReplays: what comes again says nothing new.
func TestStaleOfReplays(t *testing.T) {
	l := newLab(t, nil)
	l.onTime(1)
	b := l.Bulletin(1, [][]byte{l.first}, nil)
	l.fine(b)
	for range 4 {
		l.later(time.Minute)
		l.refused(l.take(b), "the last was 1", site.ErrReplay)
	}
	l.fresh(site.Stale, "")
}

// TestLate: newer ones come, of long ago. Two intervals are allowed.
func TestLate(t *testing.T) {
	l := newLab(t, nil)
	l.onTime(1)
	l.later(2 * time.Minute)
	l.fine(l.Bulletin(1, [][]byte{l.first}, nil))
	if f := l.fresh(site.Fresh, ""); f.Behind != 2*time.Minute {
		t.Errorf("%+v", f)
	}
	l.later(time.Minute)
	if f := l.fresh(site.Fresh, ""); f.Behind != 2*time.Minute { // it grows old here, and not on the way
		t.Errorf("%+v", f)
	}
	l.onTime(2)
	l.later(2*time.Minute + time.Second)
	l.fine(l.Bulletin(2, [][]byte{l.first}, nil))
	l.fresh(site.Late, "somebody delays the link, or a clock is wrong")
	l.onTime(3)
	l.fine(l.Bulletin(3, [][]byte{l.first}, nil))
	l.fresh(site.Fresh, "")
}

// TestLateByTheFloor: a clock that was set back hides no delay, if a quorum vouched for a later time.
func TestLateByTheFloor(t *testing.T) {
	l := newLab(t, nil)
	must(t, l.site.Heard(sitetest.Start().Add(10*day)))
	l.now = wall(l.now, sitetest.Start().Add(-100*day))
	l.fine(l.Bulletin(5, [][]byte{l.first}, nil))
	l.fresh(site.Late, "")
	if got := l.site.Clock(l.now); !got.Equal(sitetest.Start().Add(10 * day)) {
		t.Errorf("clock %v", got)
	}
}

// TestAfterRestart: nobody said yet that what was known is still so. A restart cannot keep a frozen link fresh.
func TestAfterRestart(t *testing.T) {
	l := newLab(t, nil)
	l.onTime(7)
	l.fine(l.Bulletin(7, [][]byte{l.first}, nil))
	words := l.fresh(site.Fresh, "").Words
	for range 5 {
		l.later(2 * time.Minute)
		l.reopen()
		f := l.fresh(site.Unheard, "the last one was 7")
		if f.Counter != 7 || strings.Join(f.Words, " ") != strings.Join(words, " ") || l.site.Snapshot() == nil {
			t.Errorf("what was known: %+v", f)
		}
		l.refused(l.take(l.Bulletin(7, [][]byte{l.first}, nil)), "", site.ErrReplay)
		l.fresh(site.Unheard, "")
	}
	l.later(3*time.Minute + time.Second)
	l.fresh(site.Stale, "")
	l.onTime(8)
	l.fine(l.Bulletin(8, [][]byte{l.first}, nil))
	l.fresh(site.Fresh, "")
}

// TestFreshInABubble runs the carousel by the real clock of the package time.
func TestFreshInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, nil)
		for i := int64(1); i <= 10; i++ {
			time.Sleep(time.Minute) //nolint:forbidigo // the clock of the bubble
			l.now = time.Now()
			s := l.Says(i, [][]byte{l.first}, nil)
			s.At = l.now.UTC().Format(time.RFC3339)
			b := l.Bulletin(i, [][]byte{l.first}, nil)
			b.Snapshot = l.Snapshot(s)
			l.fine(b)
			if f := l.site.Fresh(time.Now()); f.Age != 0 {
				t.Errorf("%+v", f)
			}
		}
		time.Sleep(3 * time.Minute) //nolint:forbidigo // the clock of the bubble
		if f := l.site.Fresh(time.Now()); f.Age != 3*time.Minute || f.State == site.Stale {
			t.Errorf("%+v", f)
		}
		time.Sleep(time.Nanosecond) //nolint:forbidigo // the clock of the bubble
		if f := l.site.Fresh(time.Now()); f.State != site.Stale {
			t.Errorf("%+v", f)
		}
	})
}

// TestFloor: it follows what a quorum vouches for, never sinks, and one officer does not move it.
func TestFloor(t *testing.T) {
	l := newLab(t, nil)
	at := func(want time.Time) {
		t.Helper()
		for range 2 {
			if got := l.site.Floor(); !got.Equal(want) {
				t.Errorf("floor %v, want %v", got, want)
			}
			l.reopen()
		}
	}
	at(sitetest.Start())
	l.order(l.Order(l.first, "alice", func(o *mofn.Order) { o.At = "9999-12-31T23:59:59Z" }))
	at(sitetest.Start())
	l.add(l.Next(l.first, created("2026-06-01T00:00:00Z")))
	june := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	at(june)
	must(t, l.site.Heard(june.Add(-time.Hour)))
	at(june)
	must(t, l.site.Heard(june.Add(time.Hour)))
	at(june.Add(time.Hour))
	if got := l.site.Clock(june); !got.Equal(june.Add(time.Hour)) {
		t.Errorf("clock %v", got)
	}
	if got := l.site.Clock(june.Add(2 * time.Hour)); !got.Equal(june.Add(2 * time.Hour)) {
		t.Errorf("clock %v", got)
	}
}

// TestFloorFarAhead: a date that JSON cannot hold does not keep the state from being written.
func TestFloorFarAhead(t *testing.T) {
	l := newLab(t, nil)
	l.add(l.Next(l.first, created("9999-12-31T23:59:59-23:59")))
	l.order(l.Order(l.first, "alice", nil))
	l.reopen()
	l.standsAt(1, 2)
}
