// SPDX-License-Identifier: Apache-2.0

package spool_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/spool"
	"sluice/pkg/fec"
)

// lacks collects what an object lacks.
func (w *world) lacks(o *spool.Object) (all []spool.Lack) {
	w.t.Helper()
	err := o.Lacking(func(l spool.Lack) error {
		l.Deficit, l.Missing = slices.Clone(l.Deficit), slices.Clone(l.Missing)
		all = append(all, l)
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// expected works out the same from the symbols that arrived, one by one.
func (w *world) expected(arrived []symbol) (all []spool.Lack, fresh int) {
	have := map[[2]uint32]bool{}
	for _, s := range arrived {
		have[[2]uint32{s.sbn, s.esi}] = true
	}
	for sbn := range w.g.Spans() {
		s := w.g.Span(sbn)
		lost, repair := make([]int, s.D), make([]int, s.D)
		l := spool.Lack{Span: s, Deficit: make([]uint8, s.D)}
		for i := range s.N {
			if have[[2]uint32{uint32(sbn), uint32(i)}] {
				continue
			}
			lost[i%s.D]++
			if n := len(l.Missing); n > 0 && l.Missing[n-1].First+l.Missing[n-1].Count == i {
				l.Missing[n-1].Count++
			} else {
				l.Missing = append(l.Missing, fec.Extent{First: i, Count: 1})
			}
		}
		if l.Missing == nil {
			continue
		}
		for i := range fec.MaxRows * s.D {
			if have[[2]uint32{uint32(sbn), s.RepairESI(i/s.D, i%s.D)}] {
				repair[i%s.D]++
				fresh = max(fresh, i/s.D+1)
			}
		}
		for g := range s.D {
			l.Deficit[g] = uint8(max(0, lost[g]-repair[g]))
		}
		all = append(all, l)
	}
	return all, fresh
}

// TestLacking: what is missing, against a count of its own, for losses that nothing repairs: every group lost more than it got.
func TestLacking(t *testing.T) {
	for _, sizes := range [][]int64{{200_000}, {123_457, 0, 77}, {64 * 16 * 192}} {
		w := newWorld(t, 0, 16, 7, sizes...)
		o := w.open()
		var source []symbol
		for i, s := range w.source {
			group := int(s.esi) % w.g.Span(int(s.sbn)).D
			lost := int(s.esi)/w.g.Span(int(s.sbn)).D%5 == 0 || w.random.IntN(3) == 0 || i == 0
			if s.sbn == 1 && group < 3 { // in span 1 a contiguous piece, alone
				lost = s.esi > 300 && s.esi < 900 || s.esi < 7*3
			}
			if !lost {
				source = append(source, s)
			}
		}
		w.put(o, w.shake(source, 30)...)
		if n := w.put(o, w.rows(5, 2)...); n[spool.Useless] > 0 {
			t.Fatalf("a group has enough: %v", n)
		}
		want, fresh := w.expected(slices.Concat(source, w.rows(5, 2)))
		got := w.lacks(o)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("sizes %v, seed %d: %s", sizes, w.seed, diff)
		}
		if row, err := o.FreshRow(); err != nil || row != fresh {
			t.Errorf("fresh row %d, %v; want %d", row, err, fresh)
		}
	}
}

// TestLackingHeals: after a flush the sums are those of Missing, and the rows asked for complete the object.
func TestLackingHeals(t *testing.T) {
	w := newWorld(t, 0, 16, 5, 100_000)
	o := w.open()
	w.put(o, w.lose(w.source, 0.1)...)
	w.put(o, w.lose(w.rows(0, 10), 0.1)...)
	w.flush(o)
	fresh, err := o.FreshRow()
	if err != nil || fresh != 10 {
		t.Fatalf("fresh row %d, %v", fresh, err)
	}
	missing := o.Missing()
	for i, l := range w.lacks(o) {
		lost := 0
		for _, e := range l.Missing {
			lost += e.Count
		}
		if m := missing[i]; m.SBN != l.Span.SBN || m.Lost != lost || m.Deficit != int(slices.Max(l.Deficit)) {
			t.Errorf("Missing says %+v, Lacking %d lost and deficits %v", m, lost, l.Deficit)
		}
		for group, n := range l.Deficit {
			for row := fresh; row < fresh+int(n); row++ {
				w.put(o, w.repair[row][w.repairIndex(l.Span.SBN)+group])
			}
		}
	}
	w.flush(o)
	w.wait(o)
	w.check()
	if len(w.lacks(o)) != 0 {
		t.Error("a complete object lacks something")
	}
}

// repairIndex is where the groups of a span begin in a row of world.repair.
func (w *world) repairIndex(sbn int) (n int) {
	for before := range sbn {
		n += w.g.Span(before).D
	}
	return n
}

func TestLackingEnds(t *testing.T) {
	w := newWorld(t, 0, 16, 5, 100_000)
	o := w.open()
	stop := errors.New("stop")
	n := 0
	if err := o.Lacking(func(spool.Lack) error { n++; return stop }); !errors.Is(err, stop) || n != 1 {
		t.Errorf("%v after %d spans", err, n)
	}
	if err := o.Lacking(func(spool.Lack) error { return o.Close() }); !errors.Is(err, spool.ErrClosed) {
		t.Errorf("closed in the middle: %v", err)
	}
	if _, err := o.FreshRow(); !errors.Is(err, spool.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
