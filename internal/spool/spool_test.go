// SPDX-License-Identifier: Apache-2.0

package spool_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"go.uber.org/goleak"

	"sluice/internal/spool"
	"sluice/pkg/fec"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimFolder); dir != "" {
		victim(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// layouts are the geometries and file lists that the tests of whole transfers run on.
var layouts = map[string]struct {
	symbolSize, groups int
	sizes              []int64
}{
	"one file, one span":           {64, 16, []int64{64 * 192 * 16}},
	"several spans, short last":    {64, 5, []int64{64*192*5*3 + 64*500 + 7}},
	"many groups, several slabs":   {16, 200, []int64{16 * 192 * 200}},
	"small object":                 {100, 992, []int64{4321}},
	"one byte":                     {1408, 992, []int64{1}},
	"empty files everywhere":       {64, 4, []int64{0, 0, 5000, 0, 1, 0, 64 * 192 * 4, 0, 0}},
	"files of one byte":            {32, 3, ones(3000)},
	"files end within a symbol":    {100, 7, []int64{150, 99, 1, 100, 350, 64001, 12345, 77}},
	"files on the symbol's border": {100, 7, []int64{100, 200, 100 * 192 * 7, 300}},
	"symbols of one byte":          {1, 3, []int64{700, 1000}},
}

func ones(n int) []int64 {
	sizes := make([]int64, n)
	for i := range sizes {
		sizes[i] = 1
	}
	return sizes
}

func eachLayout(t *testing.T, f func(t *testing.T, w *world)) {
	for name, l := range layouts {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 0, l.symbolSize, l.groups, l.sizes...)
			w.inMemory()
			f(t, w)
		})
	}
}

func TestCleanTransfer(t *testing.T) {
	eachLayout(t, func(t *testing.T, w *world) {
		o := w.open()
		if n := w.put(o, w.source...); n[spool.Stored] != len(w.source) {
			t.Fatalf("%v of %d symbols", n, len(w.source))
		}
		w.wait(o) // without Flush: the last symbol ends the window
		w.check()
		p := o.Progress()
		if p.Have != p.Symbols || p.SpansComplete != p.Spans || p.Recovered != 0 {
			t.Fatalf("%+v", p)
		}
		if n := w.put(o, w.source...); n[spool.Duplicate] != len(w.source) {
			t.Fatalf("the second time: %v of %d symbols", n, len(w.source))
		}
		if n := w.put(o, w.rows(0, 3)...); n[spool.Useless] != len(w.rows(0, 3)) {
			t.Fatalf("repair symbols for nothing: %v", n)
		}
	})
}

// TestLossDuplicatesReorder: 8 % of everything is lost, the rest comes twice and out of order, fresh rows follow until it is
// whole.
func TestLossDuplicatesReorder(t *testing.T) {
	eachLayout(t, func(t *testing.T, w *world) {
		o := w.open()
		w.put(o, w.shake(w.lose(append(w.source, w.rows(0, 10)...), 0.08), 50)...)
		w.flush(o)
		for row := 10; row < fec.MaxRows && !o.Complete(); row++ {
			w.put(o, w.lose(w.repair[row], 0.08)...)
			w.flush(o)
		}
		w.wait(o)
		w.check()
		if lost := o.Missing(); len(lost) > 0 {
			t.Fatalf("complete, and yet %+v", lost)
		}
	})
}

// TestAnyOrder: source and repair in one heap, shuffled.
func TestAnyOrder(t *testing.T) {
	eachLayout(t, func(t *testing.T, w *world) {
		o := w.open()
		all := append(w.rows(0, 20), w.source...)
		w.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		w.put(o, w.lose(all, 0.02)...)
		w.flush(o)
		w.wait(o)
		w.check()
	})
}

// TestRepairOnly: any k symbols of a group are enough; here all come from the last repair rows.
func TestRepairOnly(t *testing.T) {
	w := newWorld(t, 0, 64, 50, 64*40+5) // one group of 41 rows
	o := w.open()
	w.put(o, w.rows(64-w.g.Span(0).K, w.g.Span(0).K)...)
	w.flush(o)
	w.wait(o)
	w.check()
}

// TestBurst: m repair rows mend a burst of m*D symbols, wherever it begins, and not one symbol more.
func TestBurst(t *testing.T) {
	w := newWorld(t, 0, 32, 70, 32*192*70)
	s := w.g.Span(0)
	for _, m := range []int{1, 3, 10} {
		for _, more := range []int{0, 1} {
			first := w.random.IntN(s.N - m*s.D - 1)
			t.Run(fmt.Sprintf("m=%d, %d more, from %d", m, more, first), func(t *testing.T) {
				w.root = openRoot(t, t.TempDir())
				o := w.open()
				w.put(o, w.source[:first]...)
				w.put(o, w.source[first+m*s.D+more:]...)
				w.put(o, w.rows(0, m)...)
				w.flush(o)
				if more == 0 {
					w.wait(o)
					w.check()
					return
				}
				missing := o.Missing()
				if o.Complete() || len(missing) != 1 || missing[0] != (spool.SpanDeficit{SBN: 0, Lost: m + 1, Deficit: 1}) {
					t.Fatalf("one symbol too many: complete %v, missing %+v", o.Complete(), missing)
				}
				w.put(o, w.repair[m]...)
				w.flush(o)
				w.wait(o)
				w.check()
			})
		}
	}
}

// TestRepairWithoutFlush: a slab is repaired as soon as all its damaged groups can be; Done comes by itself.
func TestRepairWithoutFlush(t *testing.T) {
	w := newWorld(t, 0, 32, 130, 32*192*130*2)
	o := w.open()
	perSpan := w.g.Span(0).N
	w.put(o, w.source[:50]...)
	w.put(o, w.source[350:perSpan-1]...) // the last symbol of the span is among the lost: no symbol fills the window
	w.put(o, w.repair[0][:130]...)
	w.put(o, w.repair[1][:130]...)
	w.put(o, w.repair[2][:130]...)
	w.put(o, w.source[perSpan:]...)
	<-o.Done()
	w.check()
}

// TestRepairOfStagedSpan: the last span ends in a full stop, not in a full window; its repair symbols write what is staged.
func TestRepairOfStagedSpan(t *testing.T) {
	w := newWorld(t, 0, 32, 10, 32*192*10)
	o := w.open()
	w.put(o, w.source[:len(w.source)-1]...)
	w.put(o, w.repair[0]...)
	<-o.Done()
	w.check()
}

// TestLateSymbolsDuringRepair: the lost symbols arrive while the decoder works on them, and complete the span under it. Its
// repair symbols must not be dropped while they are read.
func TestLateSymbolsDuringRepair(t *testing.T) {
	w := newWorld(t, 0, 1408, 64, 1408*192*64+1)
	w.inMemory()
	w.opt.SyncSpans = false // the finisher drops the repair symbols of span 0 at once
	o := w.open()
	w.put(o, w.source[64:192*64]...)
	for range 30 {
		w.put(o, w.repair[0][:64]...) // the last of them wakes the decoder
		o.AwaitDecoder()
		w.put(o, w.source[:64]...)
		w.flush(o)
		if p := o.Progress(); p.SpansComplete != 1 {
			t.Fatalf("%+v", p)
		}
		checkStart(t, w, 64*1408)
		if err := o.Forget(0, 64*1408); err != nil {
			t.Fatal(err)
		}
	}
	w.put(o, w.source...)
	w.wait(o)
	w.check()
}

// checkStart compares the first n bytes of the first file.
func checkStart(t *testing.T, w *world, n int) {
	t.Helper()
	f, err := w.root.Open(w.files[0].Name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, n)
	if _, err := f.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, w.object[:n]) {
		t.Fatalf("wrong bytes from %d on", firstDifference(got, w.object[:n]))
	}
}

// TestDuplicateWhileStaged: a symbol that waits in the window is held, too.
func TestDuplicateWhileStaged(t *testing.T) {
	w := newWorld(t, 0, 100, 4, 100*192*4)
	o := w.open()
	for i, want := range []spool.Outcome{spool.Stored, spool.Duplicate, spool.Duplicate} {
		if got, err := o.Put(0, 5, w.source[5].data); got != want || err != nil {
			t.Errorf("time %d: %v (%v), want %v", i+1, got, err, want)
		}
	}
}

func TestEmptyObject(t *testing.T) {
	for _, sizes := range [][]int64{nil, {0}, {0, 0, 0}} {
		w := newWorld(t, 0, 1408, 992, sizes...)
		o := w.open()
		w.wait(o)
		w.check()
		if _, err := o.Put(0, 0, make([]byte, 1408)); !errors.Is(err, spool.ErrESI) {
			t.Fatalf("a symbol of an empty object: %v", err)
		}
	}
}

func TestNonsense(t *testing.T) {
	w := newWorld(t, 0, 100, 4, 100*192*4+150)
	o := w.open()
	bad := make([]byte, 100)
	bad[99] = 1
	for name, c := range map[string]struct {
		sbn, esi uint32
		data     []byte
		want     error
	}{
		"SBN past the end":     {2, 0, make([]byte, 100), spool.ErrESI},
		"huge SBN":             {1<<32 - 1, 0, make([]byte, 100), spool.ErrESI},
		"ESI between":          {1, 2, make([]byte, 100), spool.ErrESI},
		"ESI past the end":     {0, 192*4 + 64*4, make([]byte, 100), spool.ErrESI},
		"huge ESI":             {0, 1<<32 - 1, make([]byte, 100), spool.ErrESI},
		"short":                {0, 0, make([]byte, 99), spool.ErrSymbol},
		"long":                 {0, 0, make([]byte, 101), spool.ErrSymbol},
		"padding that is not0": {1, 1, bad, spool.ErrSymbol},
	} {
		if _, err := o.Put(c.sbn, c.esi, c.data); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", name, err, c.want)
		}
	}
	if p := o.Progress(); p.Have != 0 || o.Err() != nil {
		t.Fatalf("nonsense left traces: %+v, %v", p, o.Err())
	}
	w.put(o, w.source...)
	w.wait(o)
	w.check()
}

func TestOpenRefuses(t *testing.T) {
	g, err := fec.New(100, 10, 1)
	if err != nil {
		t.Fatal(err)
	}
	many, err := fec.New(1<<40, 1408, 1)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		g     fec.Geometry
		files []spool.File
		opt   spool.Options
		want  error
	}{
		"too short":      {g, []spool.File{{"a", 99}}, spool.Options{}, spool.ErrFiles},
		"too long":       {g, []spool.File{{"a", 101}}, spool.Options{}, spool.ErrFiles},
		"negative":       {g, []spool.File{{"a", -1}, {"b", 101}}, spool.Options{}, spool.ErrFiles},
		"same name":      {g, []spool.File{{"a", 50}, {"a", 50}}, spool.Options{}, spool.ErrFiles},
		"escape":         {g, []spool.File{{"../a", 100}}, spool.Options{}, spool.ErrFiles},
		"absolute":       {g, []spool.File{{"/a", 100}}, spool.Options{}, spool.ErrFiles},
		"root":           {g, []spool.File{{".", 100}}, spool.Options{}, spool.ErrFiles},
		"state's name":   {g, []spool.File{{"spool.map", 100}}, spool.Options{}, spool.ErrFiles},
		"too many spans": {many, []spool.File{{"a", 1 << 40}}, spool.Options{}, fec.ErrGeometry},
	} {
		root := openRoot(t, t.TempDir())
		if _, err := spool.Open(root, c.files, c.g, c.opt); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", name, err, c.want)
		}
		checkEmpty(t, root, name)
	}
	if _, err := spool.Open(openRoot(t, t.TempDir()), []spool.File{{"a", 100}}, g, spool.Options{SlabGroups: 65}); err == nil {
		t.Error("slabs of 65 groups were accepted")
	}
}

// checkEmpty wants nothing in the folder.
func checkEmpty(t *testing.T, root *os.Root, name string) {
	t.Helper()
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil || len(entries) > 0 {
		t.Errorf("%s: left behind: %v (%v)", name, entries, err)
	}
}

func TestAfterClose(t *testing.T) {
	w := newWorld(t, 0, 100, 4, 50000)
	o := w.open()
	if err := o.Close(); err != nil {
		t.Fatal(err)
	}
	_, put := o.Put(0, 0, w.source[0].data)
	for name, err := range map[string]error{"Put": put, "Flush": o.Flush(t.Context()), "Forget": o.Forget(0, 10), "Remove": o.Remove()} {
		if !errors.Is(err, spool.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	if err := o.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestRemove(t *testing.T) {
	w := newWorld(t, 0, 100, 4, 5000, 0, 7)
	o := w.open()
	w.put(o, w.source[:20]...)
	if err := o.Remove(); err != nil {
		t.Fatal(err)
	}
	checkEmpty(t, w.root, "Remove")
}

func TestBusy(t *testing.T) {
	w := newWorld(t, 0, 100, 4, 5000)
	w.open()
	if _, err := spool.Open(w.root, w.files, w.g, w.opt); !errors.Is(err, spool.ErrBusy) {
		t.Fatalf("opened twice: %v", err)
	}
}

func TestFlushIsCancelled(t *testing.T) {
	w := newWorld(t, 0, 64, 300, 64*192*300)
	o := w.open()
	w.put(o, w.source[1000:]...)
	w.put(o, w.rows(0, 4)...)
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("shutting down")
	cancel(reason)
	if err := o.Flush(ctx); err != nil && !errors.Is(err, reason) { // nil if the decoder was faster
		t.Fatal(err)
	}
	w.flush(o)
	w.wait(o)
	w.check()
}

// TestDescriptors: the number of open files is bounded, and files closed in between are synced all the same.
func TestDescriptors(t *testing.T) {
	w := newWorld(t, 0, 50, 6, ones(3000)...)
	w.inMemory()
	o := w.open()
	for _, s := range w.source {
		w.put(o, s)
		if n := o.OpenFiles(); n > spool.MaxOpenFiles {
			t.Fatalf("%d files open, the bound is %d", n, spool.MaxOpenFiles)
		}
	}
	w.wait(o)
	w.check()
}

func TestOutcomeNames(t *testing.T) {
	got := fmt.Sprint(spool.Stored, spool.Duplicate, spool.Useless, spool.Outcome(9))
	if want := "stored duplicate useless Outcome(9)"; got != want {
		t.Fatalf("%q, want %q", got, want)
	}
}
