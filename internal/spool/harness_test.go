// SPDX-License-Identifier: Apache-2.0

package spool_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"sluice/internal/spool"
	"sluice/pkg/fec"
)

// symbol is one encoding symbol as it would come out of a datagram.
type symbol struct {
	sbn, esi uint32
	data     []byte
}

// world is an object at the sender, and the folder of the receiver.
type world struct {
	t      testing.TB
	seed   uint64
	random *rand.Rand
	g      fec.Geometry
	files  []spool.File
	object []byte
	root   *os.Root
	opt    spool.Options
	source []symbol   // in order
	repair [][]symbol // by row
}

// newWorld makes an object of random bytes. seed 0 takes one from the clock; a failing test prints it.
func newWorld(t testing.TB, seed uint64, symbolSize, groups int, sizes ...int64) *world {
	t.Helper()
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Cleanup(func() { // an even seed writes past the page cache
		if t.Failed() {
			t.Logf("seed %d, symbols of %d bytes, %d groups, files %v", seed, symbolSize, groups, sizes)
		}
	})
	w := &world{t: t, seed: seed, random: rand.New(rand.NewPCG(seed, 7)), opt: spool.Options{SyncSpans: true}}
	var size int64
	for i, s := range sizes {
		w.files = append(w.files, spool.File{Name: fmt.Sprintf("files/%06d", i), Size: s})
		size += s
	}
	g, err := fec.New(size, symbolSize, groups)
	if err != nil {
		t.Fatal(err)
	}
	w.g, w.object = g, make([]byte, size)
	for i := range w.object {
		w.object[i] = byte(w.random.Uint32())
	}
	w.encode()
	w.root = openRoot(t, t.TempDir())
	return w
}

// inMemory moves the folder to a memory file system, where syncing costs nothing: for tests that are not about the disk
// and share it with others.
func (w *world) inMemory() {
	dir, err := os.MkdirTemp("/dev/shm", "spool-test-")
	if err != nil {
		return // none here: the disk will do
	}
	w.t.Cleanup(func() { os.RemoveAll(dir) })
	w.root = openRoot(w.t, dir)
}

func openRoot(t testing.TB, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// encode makes every encoding symbol.
func (w *world) encode() {
	encoder, err := fec.NewEncoder(0, fec.MaxRows)
	if err != nil {
		w.t.Fatal(err)
	}
	w.repair = make([][]symbol, fec.MaxRows)
	for sbn := range w.g.Spans() {
		s := w.g.Span(sbn)
		t := s.SymbolSize
		flat := make([]byte, s.K*s.D*t)
		copy(flat[:min(len(flat), s.N*t)], w.object[s.Offset(0):min(s.Offset(s.N), int64(len(w.object)))])
		rows, extra := cut(flat, s.D*t), cut(make([]byte, fec.MaxRows*s.D*t), s.D*t)
		if err := encoder.Encode(rows, extra); err != nil {
			w.t.Fatal(err)
		}
		for i := range s.N {
			w.source = append(w.source, symbol{uint32(sbn), uint32(i), flat[i*t : (i+1)*t]})
		}
		for row := range extra {
			for group := range s.D {
				w.repair[row] = append(w.repair[row], symbol{uint32(sbn), s.RepairESI(row, group), extra[row][group*t : (group+1)*t]})
			}
		}
	}
}

func cut(b []byte, width int) (rows [][]byte) {
	for ; len(b) > 0; b = b[width:] {
		rows = append(rows, b[:width:width])
	}
	return rows
}

func (w *world) open() *spool.Object {
	w.t.Helper()
	o, err := spool.Open(w.root, w.files, w.g, w.opt)
	if err != nil {
		w.t.Fatalf("Open: %v", err)
	}
	if w.seed%2 == 0 {
		o.UseDirect()
	}
	w.t.Cleanup(func() {
		if err := o.Close(); err != nil && !w.t.Failed() && !errors.Is(err, spool.ErrBroken) {
			w.t.Errorf("Close: %v", err)
		}
	})
	return o
}

// put gives symbols to the object and returns how many became what. Some seeds do as the link does.
func (w *world) put(o *spool.Object, symbols ...symbol) map[spool.Outcome]int {
	w.t.Helper()
	put := o.Put
	if w.seed%3 == 0 {
		put = func(sbn, esi uint32, data []byte) (spool.Outcome, error) { return w.hold(o, sbn, esi, data) }
	}
	n := make(map[spool.Outcome]int)
	for _, s := range symbols {
		outcome, err := put(s.sbn, s.esi, s.data)
		if err != nil {
			w.t.Fatalf("Put(%d, %d): %v", s.sbn, s.esi, err)
		}
		n[outcome]++
	}
	return n
}

// hold puts a symbol by its slot, if it has one, now and then after something that turned out not to be it.
func (w *world) hold(o *spool.Object, sbn, esi uint32, data []byte) (spool.Outcome, error) {
	h := o.Hold()
	defer h.Release()
	slot := h.Slot(sbn, esi)
	if slot == nil {
		return h.Put(sbn, esi, data)
	}
	if len(slot) != w.g.SymbolSize || cap(slot) != w.g.SymbolSize {
		w.t.Fatalf("a slot of %d bytes and room for %d", len(slot), cap(slot))
	}
	if w.random.IntN(8) == 0 {
		for i := range slot {
			slot[i] = 0xA5
		}
		if w.random.IntN(2) == 0 {
			return h.Put(sbn, esi, data)
		}
	}
	copy(slot, data)
	return h.Put(sbn, esi, slot)
}

func (w *world) flush(o *spool.Object) {
	w.t.Helper()
	if err := o.Flush(w.t.Context()); err != nil {
		w.t.Fatalf("Flush: %v", err)
	}
}

// wait waits until the object is durable; without that the test's own time limit ends it.
func (w *world) wait(o *spool.Object) {
	w.t.Helper()
	o.AwaitFlight()
	if !o.Complete() {
		w.t.Fatalf("not complete: %+v missing %+v", o.Progress(), o.Missing())
	}
	<-o.Done()
	if err := o.Err(); err != nil {
		w.t.Fatal(err)
	}
}

// check compares the files with the object, byte for byte.
func (w *world) check() {
	w.t.Helper()
	var at int64
	for _, f := range w.files {
		got, err := fs.ReadFile(w.root.FS(), f.Name)
		if err != nil {
			w.t.Fatal(err)
		}
		if want := w.object[at : at+f.Size]; !bytes.Equal(got, want) {
			w.t.Fatalf("%s differs: %d bytes, want %d; first difference at %d", f.Name, len(got), len(want), firstDifference(got, want))
		}
		at += f.Size
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// lose returns the symbols that a link losing a share of them lets through.
func (w *world) lose(symbols []symbol, share float64) (kept []symbol) {
	for _, s := range symbols {
		if w.random.Float64() >= share {
			kept = append(kept, s)
		}
	}
	return kept
}

// shake duplicates some symbols and moves some by up to depth places.
func (w *world) shake(symbols []symbol, depth int) []symbol {
	out := make([]symbol, 0, len(symbols)*11/10)
	for _, s := range symbols {
		out = append(out, s)
		if w.random.IntN(20) == 0 {
			out = append(out, s)
		}
	}
	for i := range out {
		if w.random.IntN(10) == 0 {
			j := min(len(out)-1, i+w.random.IntN(depth+1))
			out[i], out[j] = out[j], out[i]
		}
	}
	return out
}

// rows returns the symbols of repair rows first to first+n-1.
func (w *world) rows(first, n int) (symbols []symbol) {
	for _, row := range w.repair[first : first+n] {
		symbols = append(symbols, row...)
	}
	return symbols
}

// span returns the source symbols of a span and its first rows repair rows.
func (w *world) span(sbn, rows int) (symbols []symbol) {
	for _, s := range append(w.rows(0, rows), w.source...) {
		if s.sbn == uint32(sbn) {
			symbols = append(symbols, s)
		}
	}
	return symbols
}
