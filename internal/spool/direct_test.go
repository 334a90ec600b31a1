// SPDX-License-Identifier: Apache-2.0

package spool_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/spool"
)

// direct opens an object that writes past the page cache, on a file system that can.
func direct(t *testing.T, w *world) *spool.Object {
	t.Helper()
	w.seed |= 1 // leave it to us
	probe, err := w.root.OpenFile("probe", os.O_CREATE|os.O_RDWR|unix.O_DIRECT, 0o600)
	if err != nil {
		t.Skipf("this file system has no O_DIRECT: %v", err)
	}
	probe.Close()
	o := w.open()
	o.UseDirect()
	return o
}

// TestDirect: whole windows go past the page cache, wherever in a page their file has them, and files and bytes are right.
func TestDirect(t *testing.T) {
	for name, sizes := range map[string][]int64{
		"one file":        {1408 * 192 * 16 * 2},
		"an odd end":      {1408*192*16*2 - 777},
		"borders":         {5_000_001, 13, 0, 3_000_000, 4095, 1408*192*16*2 - 8_004_200},
		"many small ones": append(many(500, 7001), 1408*192*16),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 0, 1408, 16, sizes...)
			o := direct(t, w)
			var mu sync.Mutex
			writes := 0
			o.Gate(func() { mu.Lock(); writes++; mu.Unlock() })
			w.put(o, w.source...)
			w.flush(o)
			w.wait(o)
			w.check()
			if !o.Direct() {
				t.Error("it was given up")
			}
			if writes < 5 { // of 6 windows, some of which lie in small files for the most part
				t.Errorf("%d windows went past the page cache", writes)
			}
		})
	}
}

func many(n int, size int64) []int64 {
	list := make([]int64, n)
	for i := range list {
		list[i] = size
	}
	return list
}

// TestDirectAmongLosses: symbols that are lost, late and doubled, and repair symbols between them, over several lives.
func TestDirectAmongLosses(t *testing.T) {
	w := newWorld(t, 0, 1408, 16, 4_000_001, 3, 1408*192*16*3-4_000_004)
	o := direct(t, w)
	kept := w.lose(w.source, 0.002)
	for i := range kept { // late by up to 300
		if j := i + w.random.IntN(300); w.random.IntN(10) == 0 && j < len(kept) {
			kept[i], kept[j] = kept[j], kept[i]
		}
	}
	repair := w.rows(0, 12)
	for len(kept) > 0 {
		n := min(len(kept), 1+w.random.IntN(2500))
		w.put(o, kept[:n]...)
		if m := min(len(repair), w.random.IntN(150)); w.random.IntN(2) == 0 {
			w.put(o, repair[:m]...)
			repair = repair[m:]
		}
		if kept = kept[n:]; w.random.IntN(6) == 0 {
			if err := o.Abandon(); err != nil {
				t.Fatal(err)
			}
			o = direct(t, w)
		}
	}
	w.put(o, repair...)
	w.flush(o)
	if !o.Complete() { // what the kills took is more than a code word has repair rows
		w.put(o, w.source...)
		w.flush(o)
	}
	w.wait(o)
	w.check()
}

// gated is an object whose writes past the page cache wait until open is called.
func gated(t *testing.T, w *world) (o *spool.Object, open func()) {
	t.Helper()
	o = direct(t, w)
	gate := make(chan struct{})
	o.Gate(func() { <-gate })
	open = sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open)
	return o, open
}

// TestRepairDuringFlight: a repair symbol waits for no disk. It is useless where what its group lacks is on its way, and else it is kept.
func TestRepairDuringFlight(t *testing.T) {
	w := newWorld(t, 0, 1408, 16, 1408*192*16)
	o, open := gated(t, w)
	w.put(o, w.source[:2999]...) // of three windows the first and the last are whole; 2999 is of group 7
	w.put(o, w.source[3000:]...)
	for group := range 16 {
		want := spool.Useless
		if group == 2999%16 {
			want = spool.Stored
		}
		outcome, err := o.Put(0, w.repair[2][group].esi, w.repair[2][group].data)
		if err != nil || outcome != want {
			t.Errorf("group %d: %v, %v, want %v", group, outcome, err, want)
		}
	}
	if outcome, err := o.Put(0, w.repair[3][7].esi, w.repair[3][7].data); err != nil || outcome != spool.Useless {
		t.Errorf("a second one of the group that lacks one symbol: %v, %v", outcome, err)
	}
	if o.Has(0, 0) {
		t.Error("what is on its way is said to be here")
	}
	open()
	o.AwaitFlight()
	w.flush(o)
	w.wait(o)
	w.check()
	if p := o.Progress(); p.Recovered != 1 {
		t.Errorf("%d symbols repaired, want 1", p.Recovered)
	}
}

// TestDecoderWaitsForFlight: nothing of a span is decoded while windows of it are on their way, also of groups that have no symbol in
// them: it would be read through the page cache, which has their pages as they were.
func TestDecoderWaitsForFlight(t *testing.T) {
	const groups = 4096 // two windows a row
	w := newWorld(t, 0, 64, groups, 64*192*groups)
	o := direct(t, w)
	var closed atomic.Bool
	gate := make(chan struct{})
	open := sync.OnceFunc(func() { close(gate) })
	t.Cleanup(open)
	o.GateUnlocked(func() {
		if closed.Load() {
			<-gate
		}
	})
	last := len(w.source) - groups/2
	w.put(o, w.source[:5]...)
	for part := range slices.Chunk(w.source[6:last], 4*2048) { // no more at once than the disk is given, or the next go through the page cache
		w.put(o, part...)
		o.AwaitFlight()
	}
	closed.Store(true)
	w.put(o, w.source[last:]...)
	if outcome, err := o.Put(0, w.repair[0][5].esi, w.repair[0][5].data); err != nil || outcome != spool.Stored {
		t.Fatalf("%v, %v", outcome, err)
	}
	<-time.After(50 * time.Millisecond) // long enough for one that does not wait
	if o.Has(0, 5) {
		t.Error("a symbol was repaired while a window was on its way")
	}
	open()
	w.flush(o)
	w.wait(o)
	w.check()
}

// TestNoDirectBesideRepair: in a span of which repair symbols are here nothing goes past the page cache.
func TestNoDirectBesideRepair(t *testing.T) {
	w := newWorld(t, 0, 1408, 16, 1408*192*16)
	o := direct(t, w)
	o.Gate(func() { t.Error("a write past the page cache") })
	w.put(o, w.repair[3][7])
	w.put(o, w.source...)
	w.wait(o)
	w.check()
}

// TestDiskBehind: a disk that does not move, and holds the lock of the file, does not stop Put. What it cannot take goes through the page cache.
func TestDiskBehind(t *testing.T) {
	w := newWorld(t, 0, 1408, 64, 1408*192*64)
	o, open := gated(t, w)
	cell := o.Cell()
	w.put(o, w.source[:2*cell]...) // two windows, one a writer
	<-time.After(2 * spool.SlowWrite)
	w.put(o, w.source[2*cell:]...)
	missing := 0
	for i := range w.source {
		if !o.Has(0, i) {
			missing++
		}
	}
	if most := spool.MaxFlight * cell; missing == 0 || missing > most {
		t.Errorf("%d symbols wait for the disk, want at least one and at most %d", missing, most)
	}
	open()
	w.wait(o)
	w.check()
	if !o.Direct() {
		t.Error("it does not go past the page cache any more")
	}
}

// TestNoDirectHere: where a file cannot be opened that way, everything goes through the page cache.
func TestNoDirectHere(t *testing.T) {
	w := newWorld(t, 0, 1408, 16, 1408*192*16)
	o := direct(t, w)
	w.put(o, w.source[:2]...) // the file is open
	w.flush(o)
	if err := w.root.Rename(w.files[0].Name, "away"); err != nil {
		t.Fatal(err)
	}
	w.put(o, w.source...)
	w.wait(o)
	if o.Direct() {
		t.Error("it goes on past the page cache")
	}
	if err := w.root.Rename("away", w.files[0].Name); err != nil {
		t.Fatal(err)
	}
	w.check()
}

// TestFlushEndsWithItsContext: also while a disk that does not move has windows in hand.
func TestFlushEndsWithItsContext(t *testing.T) {
	w := newWorld(t, 0, 1408, 16, 1408*192*16)
	o, open := gated(t, w)
	w.put(o, w.source...)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("enough")
	time.AfterFunc(20*time.Millisecond, func() { cancel(why) })
	if err := o.Flush(ctx); !errors.Is(err, why) {
		t.Errorf("%v, want why it was to end", err)
	}
	open()
	w.flush(o)
	w.wait(o)
	w.check()
}

// TestCloseWaitsForFlight: a clean close has everything.
func TestCloseWaitsForFlight(t *testing.T) {
	w := newWorld(t, 0, 1408, 16, 1408*192*16+5)
	o, open := gated(t, w)
	w.put(o, w.source[:len(w.source)-1]...)
	time.AfterFunc(20*time.Millisecond, open)
	if err := o.Close(); err != nil && !errors.Is(err, spool.ErrClosed) {
		t.Fatal(err)
	}
	o = w.open()
	if p := o.Progress(); p.Have != p.Symbols-1 {
		t.Errorf("%+v, want all but one", p)
	}
	w.put(o, w.source[len(w.source)-1])
	w.wait(o)
	w.check()
}

// TestSlot: there is one for a source symbol that is missing, in a window that is being filled, and for nothing else.
func TestSlot(t *testing.T) {
	w := newWorld(t, 1, 1408, 16, 1408*192*16*2)
	o := w.open()
	slot := func(sbn, esi uint32) bool {
		h := o.Hold()
		defer h.Release()
		return h.Slot(sbn, esi) != nil
	}
	cell := uint32(o.Cell())
	if slot(0, 0) {
		t.Error("before the first symbol of the cell")
	}
	w.put(o, w.source[0])
	for _, c := range []struct {
		sbn, esi uint32
		want     bool
		what     string
	}{
		{0, 0, false, "a symbol that is here"},
		{0, 1, true, "a missing one beside it"},
		{0, cell - 1, true, "the last of the cell"},
		{0, cell, false, "the first of the next cell"},
		{1, 1, false, "another span"},
		{2, 1, false, "no such span"},
		{1 << 31, 1, false, "no such span by far"},
		{0, w.repair[0][0].esi, false, "a repair symbol"},
		{0, 1<<32 - 1, false, "no symbol"},
	} {
		if got := slot(c.sbn, c.esi); got != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
	w.put(o, w.source[cell]) // the first cell has gaps, and is late
	if !slot(0, 1) || !slot(0, cell+1) || slot(0, 0) {
		t.Error("the two windows that are being filled are not the two last cells")
	}
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	if slot(0, 1) {
		t.Error("of an object that is closed")
	}
}
