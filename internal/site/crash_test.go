// SPDX-License-Identifier: Apache-2.0

package site_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/bulletin"
	"sluice/internal/site"
	"sluice/internal/site/sitetest"
	"sluice/pkg/mofn"
)

var errDisk = errors.New("the disk failed")

// fault is what happens at the nth write and at all after it.
type fault struct {
	at    int
	how   string // "nothing" was written, "half" of it in a temporary file, or "all" of it
	count int
}

func (f *fault) write(dir *os.Root, name string, data []byte, perm fs.FileMode) error {
	f.count++
	switch {
	case f.at == 0 || f.count < f.at:
		return dir.WriteFile(name, data, perm) // how a file is made durable is not what is tested here
	case f.count > f.at || f.how == "nothing":
		return errDisk
	case f.how == "half":
		tmp := path.Join(path.Dir(name), "."+path.Base(name)+".tmp-CRASH")
		return errors.Join(dir.WriteFile(tmp, data[:len(data)/2], perm), errDisk)
	}
	return errors.Join(dir.WriteFile(name, data, perm), errDisk)
}

// picture is what a site knows, as far as somebody outside can see it.
type picture struct {
	Effect, Newest int64
	Orders         []string // accepted, in words
	Strangers      int
	Counter        int64
	Releases       int
	Stopped        bool
	Waiting        int
}

func (l *lab) picture(s *site.Site) picture {
	p := picture{
		Effect: s.Trust().Object.Version, Newest: s.Newest().Object.Version, Strangers: s.Strangers(), Counter: s.Numbers().Counter, Waiting: len(s.Waiting()),
	}
	st := s.Standing()
	for _, o := range slices.Concat(st.Stops, st.Lifted, st.Void) {
		p.Orders = append(p.Orders, fmt.Sprintf("%s %s %.8s under %d", o.Officer, o.Action, o.ID, o.Under))
	}
	slices.Sort(p.Orders)
	_, p.Stopped = st.Everything()
	if snap := s.Snapshot(); snap != nil {
		p.Releases = int(snap.Counter)
	}
	return p
}

// step is one thing that changes the state; a lab is prepared for it.
type step struct {
	name    string
	prepare func(l *lab)
	do      func(l *lab, s *site.Site) error
}

func steps(l *lab) []step {
	two := l.Next(l.first, nil)
	three := l.Next(two, nil)
	stop := l.Order(l.first, "alice", nil)
	later := l.OrderAs(l.first, "carol9", "carol", "security", sitetest.Stop(mofn.KindStream, "models/*"))
	enrols := l.Next(l.first, func(o *mofn.Trust) {
		l.SetPolicy(o, strings.Replace(policy(), "officer carol key @carol", "officer carol key @carol9", 1))
	})
	nothing := func(*lab) {}
	return []step{
		{"AddTrust", nothing, func(l *lab, s *site.Site) error { _, err := s.AddTrust(two, l.now); return err }},
		{"AddOrder", nothing, func(_ *lab, s *site.Site) error { _, _, err := s.AddOrder(stop); return err }},
		{"AddOrder of a stranger", nothing, func(_ *lab, s *site.Site) error { _, _, err := s.AddOrder(later); return err }},
		{"AddOrder over a stranger's", func(l *lab) {
			_, _, err := l.site.AddOrder(l.DSSE(mofn.OrderPayloadType, l.Payload(stop), "security", "mallory"))
			must(l.t, err)
		}, func(_ *lab, s *site.Site) error { _, _, err := s.AddOrder(stop); return err }},
		{"Tick", func(l *lab) {
			l.add(enrols)
			_, _, err := l.site.AddOrder(later)
			must(l.t, err)
			l.later(4 * day)
		}, func(l *lab, s *site.Site) error { _, err := s.Tick(l.now); return err }},
		{"Confirm", func(l *lab) { l.add(two) }, func(l *lab, s *site.Site) error { _, err := s.Confirm(l.Root(two), l.now); return err }},
		{"Heard", nothing, func(l *lab, s *site.Site) error { return s.Heard(l.now) }},
		{"Make", nothing, func(l *lab, s *site.Site) error { _, _, err := s.Make(l.next(1)); return err }},
		{"Take", func(l *lab) { l.add(two); l.later(4 * day) }, func(l *lab, s *site.Site) error {
			_, err := s.Take(l.Bulletin(3, [][]byte{l.first, two, three}, [][]byte{l.Order(l.first, "bob", sitetest.Stop(mofn.KindStream, "a")), l.Order(l.first, "bob", sitetest.Stop(mofn.KindStream, "b")), later}), l.now)
			return err
		}},
	}
}

// TestCrash strikes every write of every step: nothing, half or all of it reaches the disk, and then the process ends, or goes on.
// What is opened afterwards is what was, what is, or something between that a crash in the same place of a Take leaves; all of it
// verified; and doing the step again gets to the same end.
func TestCrash(t *testing.T) {
	slow(t)
	points := 0
	for i, name := range stepNames(t) {
		for _, how := range []string{"nothing", "half", "all"} {
			t.Run(name+"/"+how, func(t *testing.T) {
				at := 1
				for ; crashAt(t, i, at, how); at++ {
					points++
				}
				if at == 1 {
					t.Fatal("nothing was written: this proves nothing")
				}
			})
		}
	}
	if points < 50 {
		t.Errorf("only %d points", points)
	}
	t.Logf("%d points", points)
}

func stepNames(t *testing.T) (names []string) {
	for _, s := range steps(newLab(t, nil)) {
		names = append(names, s.name)
	}
	return names
}

// crashAt gives false when the step has fewer writes.
func crashAt(t *testing.T, i, at int, how string) (struck bool) {
	t.Helper()
	l := newLab(t, nil)
	s := steps(l)[i]
	s.prepare(l)
	// Another lab, where nothing fails, says what the end is.
	whole := &lab{World: l.World, t: t, dir: t.TempDir(), quarantine: l.quarantine, store: l.store, first: l.first, now: l.now}
	must(t, os.CopyFS(whole.dir, os.DirFS(l.dir)))
	whole.reopen()
	before := l.picture(whole.site)
	must(t, s.do(whole, whole.site))
	after := l.picture(whole.site)

	f := &fault{}
	l.write = f.write
	l.reopen()
	f.count, f.at, f.how = 0, at, how
	err := s.do(l, l.site)
	if f.count < at {
		must(t, err)
		return false
	}
	where := fmt.Sprintf("write %d, %s", at, how)
	if !errors.Is(err, errDisk) {
		t.Fatalf("%s: %v", where, err)
	}
	inMemory := l.picture(l.site)
	f.at = 0
	dead, err := l.open() // the process ended there
	if err != nil {
		t.Fatalf("%s: it does not open: %v", where, err)
	}
	onDisk := l.picture(dead)
	within(t, where+", after the crash", before, onDisk, after)
	within(t, where+", in memory", before, inMemory, after)
	if s.name != "Take" && !cmp.Equal(inMemory, before) {
		t.Errorf("%s: what failed counts in memory: %s", where, cmp.Diff(before, inMemory))
	}
	again := l.site // the process went on, and the disk is well
	if at%2 == 1 {
		again = dead
	}
	err = s.do(l, again)
	if s.name == "Confirm" && errors.Is(err, site.ErrChain) && l.picture(again).Effect == after.Effect {
		err = nil // it reached the disk
	}
	if s.name == "Make" {
		after.Counter, after.Releases = l.picture(again).Counter, l.picture(again).Releases // a counter may be skipped, never used twice
	}
	must(t, err)
	if got := l.picture(again); !cmp.Equal(got, after) {
		t.Errorf("%s: again: %s", where, cmp.Diff(after, got))
	}
	l.reopen()
	if got := l.picture(l.site); !cmp.Equal(got, after) {
		t.Errorf("%s: again, and opened: %s", where, cmp.Diff(after, got))
	}
	names, err := filepath.Glob(filepath.Join(l.dir, "*", ".*"))
	if err != nil || len(names) > 0 {
		t.Errorf("%s: left behind: %v", where, names)
	}
	return true
}

// within: nothing of before is lost, and nothing is there that is not in after.
func within(t *testing.T, where string, before, got, after picture) {
	t.Helper()
	for _, o := range before.Orders {
		if !slices.Contains(got.Orders, o) {
			t.Errorf("%s: the order %s is lost", where, o)
		}
	}
	for _, o := range got.Orders {
		if !slices.Contains(after.Orders, o) && !slices.Contains(before.Orders, o) {
			t.Errorf("%s: the order %s came from nowhere", where, o)
		}
	}
	for _, n := range [][3]int64{{before.Effect, got.Effect, after.Effect}, {before.Newest, got.Newest, after.Newest}, {before.Counter, got.Counter, after.Counter}, {int64(before.Releases), int64(got.Releases), int64(after.Releases)}} {
		if n[1] < n[0] || n[1] > n[2] {
			t.Errorf("%s: %d is not from %d to %d", where, n[1], n[0], n[2])
		}
	}
}

// TestStopOfACrash: an order whose file is there and whose line in site.json is not counts after the restart.
func TestStopOfACrash(t *testing.T) {
	l := newLab(t, nil)
	f := &fault{}
	l.write = f.write
	l.reopen()
	f.count, f.at, f.how = 0, 2, "nothing"
	stop := l.Order(l.first, "alice", nil)
	if _, _, err := l.site.AddOrder(stop); !errors.Is(err, errDisk) || l.stopped() {
		t.Fatal(err)
	}
	f.at = 0
	l.reopen()
	if !l.stopped() || l.site.Strangers() != 0 {
		t.Error("the stop does not count")
	}
}

// TestCVE2020_15163 (C4, python-tuf): a version that did not verify is not on the disk, and one that somebody put there is not taken.
func TestCVE2020_15163(t *testing.T) {
	l := newLab(t, nil)
	forged := l.Next(l.first, nil, "alice")
	if _, err := l.site.AddTrust(forged, l.now); !errors.Is(err, site.ErrChain) {
		t.Fatal(err)
	}
	l.refused(l.take(l.Bulletin(1, [][]byte{l.first, forged}, nil)), "", site.ErrChain)
	if names, err := os.ReadDir(filepath.Join(l.dir, "chain")); err != nil || len(names) != 0 {
		t.Errorf("kept: %v %v", names, err)
	}
	must(t, os.WriteFile(filepath.Join(l.dir, "chain", "000002.json"), forged, 0o600))
	if _, err := l.open(); !errors.Is(err, site.ErrState) || !strings.Contains(err.Error(), "chain/000002.json") {
		t.Errorf("a version that somebody put there: %v", err)
	}
}

// TestDamage: files that were changed, lost or put there are found, and the words say which and what to do.
func TestDamage(t *testing.T) {
	slow(t)
	prepared := func(t *testing.T) *lab {
		l := newLab(t, nil)
		two := l.Next(l.first, nil)
		l.fine(l.Bulletin(1, [][]byte{l.first, two}, [][]byte{l.Order(l.first, "alice", sitetest.Stop(mofn.KindStream, "a")), l.Order(l.first, "mallory", nil)}))
		l.later(4 * day)
		_, err := l.site.Tick(l.now)
		must(t, err)
		l.add(l.Next(two, nil))
		return l
	}
	accepted := func(l *lab) string {
		return "orders/" + l.site.Standing().Stops[0].ID + ".json"
	}
	edit := func(name, from, to string) func(*testing.T, *lab) {
		return func(t *testing.T, l *lab) {
			if name == "ORDER" {
				name = accepted(l)
			}
			file := filepath.Join(l.dir, name)
			b, err := os.ReadFile(file)
			must(t, err)
			out := strings.Replace(string(b), from, to, 1)
			if out == string(b) {
				t.Fatalf("%s has no %q", name, from)
			}
			must(t, os.WriteFile(file, []byte(out), 0o600))
		}
	}
	remove := func(name string) func(*testing.T, *lab) {
		return func(t *testing.T, l *lab) {
			if name == "ORDER" {
				name = accepted(l)
			}
			must(t, os.RemoveAll(filepath.Join(l.dir, name)))
		}
	}
	put := func(name, text string) func(*testing.T, *lab) {
		return func(t *testing.T, l *lab) { must(t, os.WriteFile(filepath.Join(l.dir, name), []byte(text), 0o600)) }
	}
	for _, c := range []struct {
		name  string
		spoil func(*testing.T, *lab)
		words string
	}{
		{"site.json gone", remove("site.json"), "site.json is gone"},
		{"site.json empty", put("site.json", ""), "never delete it"},
		{"site.json is null", put("site.json", "null"), "never delete it"},
		{"site.json of a later version", edit("site.json", "sluice-site-v1", "sluice-site-v2"), "never delete it"},
		{"site.json cut", edit("site.json", `"under"`, `"under`), "never delete it"},
		{"counter below 0", edit("site.json", `"counter":1`, `"counter":-1`), "never delete it"},
		{"no version in effect", edit("site.json", `"effect":2`, `"effect":0`), "never delete it"},
		{"a version in effect that is not here", edit("site.json", `"effect":2`, `"effect":4`), "version 4 of the trust object was in effect"},
		{"an order accepted too late", edit("site.json", `:1},"generation"`, `:3},"generation"`), "not in effect yet"},
		{"version 2 gone", remove("chain/000002.json"), "chain/000002.json is gone"},
		{"version 3 gone", remove("chain/000003.json"), "was here, and is not below chain"},
		{"all versions gone", remove("chain"), "is gone"},
		{"version 2 changed", edit("chain/000002.json", `"sig":"`, `"sig":"AAAA`), "chain/000002.json"},
		{"version 2 empty", put("chain/000002.json", ""), "chain/000002.json"},
		{"a version that nobody signed behind", func(t *testing.T, l *lab) { put("chain/000004.json", string(l.first))(t, l) }, "chain/000004.json"},
		{"an accepted order gone", remove("ORDER"), "was accepted, and is not below orders"},
		{"an accepted order changed", edit("ORDER", `"sig":"`, `"sig":"AAAA`), "signature"},
		{"an order under another name", put("orders/"+strings.Repeat("a", 64)+".json", "x"), "not the order of that name"},
		{"a file that is no order", put("orders/README", "x"), "not the order of that name"},
		{"the snapshot changed", edit("snapshot.json", `"sig":"`, `"sig":"AAAA`), "snapshot.json"},
		{"the snapshot empty", put("snapshot.json", ""), "snapshot.json"},
		{"a folder in the place of a version", func(t *testing.T, l *lab) { must(t, os.Mkdir(filepath.Join(l.dir, "chain/000004.json"), 0o700)) }, "no regular file"},
		{"a file that is too large", func(t *testing.T, l *lab) { must(t, os.Truncate(filepath.Join(l.dir, "snapshot.json"), 9<<20)) }, "at most 8388608"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := prepared(t)
			l.reopen()
			c.spoil(t, l)
			if s, err := l.open(); s != nil || !errors.Is(err, site.ErrState) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v; want %q", err, c.words)
			}
		})
	}
}

// TestConcurrent: everything at once, for the race detector; and what only grows only grows.
func TestConcurrent(t *testing.T) {
	l := newLab(t, nil)
	l.quick()
	s := l.site
	two := l.Next(l.first, nil)
	var bulletins []*bulletin.Bulletin
	for i := range int64(12) {
		bulletins = append(bulletins, l.Bulletin(i+1, [][]byte{l.first, two}, nil))
	}
	var orders [][]byte
	for i := range 12 {
		orders = append(orders, l.Order(l.first, "alice", sitetest.Stop(mofn.KindStream, fmt.Sprintf("s%d", i))))
	}
	var group sync.WaitGroup
	failed := make(chan error, 100)
	run := func(f func(i int) error) {
		group.Go(func() {
			for i := range 12 {
				if err := f(i); err != nil {
					failed <- err
				}
			}
		})
	}
	run(func(i int) error { _, err := s.Take(bulletins[i], l.now); return err })
	run(func(i int) error { _, _, err := s.AddOrder(orders[i]); return err })
	run(func(int) error { _, err := s.AddTrust(two, l.now); return err })
	run(func(i int) error { _, err := s.Tick(l.now.Add(time.Duration(i) * day)); return err })
	run(func(i int) error { return s.Heard(l.now.Add(time.Duration(i) * time.Second)) })
	run(func(int) error {
		s.Describe(l.now)
		s.Root()
		s.Chain()
		s.Orders()
		s.Been()
		s.Clock(l.now)
		return nil
	})
	last := s.Numbers()
	run(func(int) error {
		n := s.Numbers()
		if n.Trust < last.Trust || n.Counter < last.Counter || n.Orders < last.Orders {
			return fmt.Errorf("%+v after %+v", n, last)
		}
		last = n
		return nil
	})
	group.Wait()
	close(failed)
	for err := range failed {
		t.Error(err)
	}
	if n := s.Numbers(); n != (site.Numbers{Trust: 2, Generation: 1, Counter: 12, Orders: 12}) {
		t.Errorf("%+v", n)
	}
	l.reopen()
	if n := l.site.Numbers(); n != (site.Numbers{Trust: 2, Generation: 1, Counter: 12, Orders: 12}) {
		t.Errorf("opened: %+v", n)
	}
}

// slow leaves a test out under the race detector.
func slow(t *testing.T) {
	t.Helper()
	if underRace {
		t.Skip("make test runs it without the race detector")
	}
}
