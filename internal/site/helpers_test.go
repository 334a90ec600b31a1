// SPDX-License-Identifier: Apache-2.0

package site_test

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"
	"unsafe" //nolint:depguard // a wall clock that is set back has no other form

	"sluice/internal/bulletin"
	"sluice/internal/site"
	"sluice/internal/site/sitetest"
	"sluice/internal/trust"
	"sluice/pkg/mofn"
)

const day = 24 * time.Hour

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lab is a site in a directory, and the world that it hears of.
type lab struct {
	*sitetest.World

	t          testing.TB
	dir        string
	quarantine time.Duration
	store      *trust.Store
	first      []byte // version 1
	now        time.Time
	site       *site.Site
	write      func(*os.Root, string, []byte, fs.FileMode) error
}

// newLab opens a new site with a quarantine of three days, on the day after the first trust object was made.
func newLab(t testing.TB, edit func(*mofn.Trust)) *lab {
	t.Helper()
	l := &lab{World: sitetest.New(t), t: t, dir: t.TempDir(), quarantine: 3 * day, now: wall(time.Now(), sitetest.Start().Add(day))}
	l.store, l.first = l.First(edit)
	l.reopen()
	return l
}

// quick opens it anew with files that are not synced: for many of them.
func (l *lab) quick() {
	l.t.Helper()
	l.write = func(dir *os.Root, name string, data []byte, perm fs.FileMode) error {
		return dir.WriteFile(name, data, perm)
	}
	l.reopen()
}

// wall gives a time with the monotonic reading of one and the wall clock of another.
func wall(mono, at time.Time) time.Time {
	// time.Time holds the wall clock and the monotonic one side by side; nothing in the package sets one alone.
	type clock struct {
		wall uint64
		ext  int64
		loc  *time.Location
	}
	out := mono.Add(0)
	c := (*clock)(unsafe.Pointer(&out))
	c.wall = uint64(int64(c.wall)+(at.Unix()-mono.Unix())<<30)&^(1<<30-1) | uint64(at.Nanosecond())
	return out
}

func (l *lab) options() site.Options {
	root, err := os.OpenRoot(l.dir)
	must(l.t, err)
	return site.Options{Dir: root, First: l.store, FirstData: l.first, Quarantine: l.quarantine, Now: l.now}
}

// open opens the directory anew, as after a restart.
func (l *lab) open() (*site.Site, error) {
	opt := l.options()
	s, err := site.OpenWriting(opt, l.write)
	if err != nil {
		opt.Dir.Close()
		return nil, err
	}
	l.t.Cleanup(func() { s.Close() })
	return s, nil
}

func (l *lab) reopen() {
	l.t.Helper()
	s, err := l.open()
	must(l.t, err)
	l.site = s
}

// later lets time pass, on both clocks.
func (l *lab) later(d time.Duration) { l.now = l.now.Add(d) }

func (l *lab) take(b *bulletin.Bulletin) site.Taken {
	l.t.Helper()
	t, err := l.site.Take(b, l.now)
	must(l.t, err)
	return t
}

// fine is a bulletin of which nothing is refused.
func (l *lab) fine(b *bulletin.Bulletin) site.Taken {
	l.t.Helper()
	t := l.take(b)
	if len(t.Problems) > 0 || t.Snapshot == nil {
		l.t.Fatalf("refused: %v", t.Problems)
	}
	return t
}

// refused wants exactly these refusals, with words of the first.
func (l *lab) refused(t site.Taken, words string, want ...error) {
	l.t.Helper()
	if len(t.Problems) != len(want) {
		l.t.Fatalf("problems %v, want %v", t.Problems, want)
	}
	for i, err := range want {
		if !errors.Is(t.Problems[i], err) {
			l.t.Errorf("%v, want %v", t.Problems[i], err)
		}
	}
	if len(want) > 0 && !strings.Contains(t.Problems[0].Error(), words) {
		l.t.Errorf("%v; want %q", t.Problems[0], words)
	}
}

// standsAt wants the versions in effect and newest.
func (l *lab) standsAt(effect, newest int64) {
	l.t.Helper()
	if e, n := l.site.Trust().Object.Version, l.site.Newest().Object.Version; e != effect || n != newest {
		l.t.Errorf("version %d in effect, %d the newest; want %d, %d", e, n, effect, newest)
	}
}

// chain is the chain that the site has.
func (l *lab) chain() [][]byte { return l.site.Chain() }

func (l *lab) add(data []byte) {
	l.t.Helper()
	news, err := l.site.AddTrust(data, l.now)
	must(l.t, err)
	if !news {
		l.t.Error("no news")
	}
}

func (l *lab) order(data []byte) mofn.SignedOrder {
	l.t.Helper()
	o, news, err := l.site.AddOrder(data)
	must(l.t, err)
	if !news || o.ID == "" {
		l.t.Errorf("news %t, accepted %q", news, o.ID)
	}
	return o
}

func (l *lab) stopped() bool {
	_, ok := l.site.Standing().Everything()
	return ok
}

// TestWall: the helper turns one clock and not the other.
func TestWall(t *testing.T) {
	mono := time.Now()
	got := wall(mono, mono.AddDate(-20, 0, 0))
	if got.Sub(mono) != 0 || got.Unix() != mono.AddDate(-20, 0, 0).Unix() || got.Add(time.Hour).Sub(mono) != time.Hour {
		t.Fatalf("%v and %v", mono, got)
	}
}
