// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"context"
	"fmt"
	"slices"
	"time"

	"sluice/internal/largepage"
	"sluice/pkg/fec"
)

const (
	// windowBytes: what one write takes, about; up to half as much again where that makes it whole pages.
	windowBytes = 2 << 20
	// windowSymbols bounds the bits of a window where symbols are tiny.
	windowSymbols = 2048
	// arenaWindows lie side by side in memory, on large pages if they are large: a receiver that keeps up has no more.
	arenaWindows = 4
)

// window stages the source symbols of one cell of a span, so that they are written in few calls. Symbols may come in any order
// within it.
//
//	span   | cell 0            | cell 1            | cell 2      |
//	       | x x x x x x x x x | x x x . x x . . . |             |    x staged, . not here
//	                             first    first+n
//
// Their bits are set when they are written, not before.
type window struct {
	mem   []byte // of whole pages; room for a cell, wherever in a page its file has it
	phase int    // how far into a page the cell begins
	buf   []byte // the cell: mem from phase on
	sbn   int
	first int // symbol of the span
	n     int // symbols of the cell
	held  int
	lack  int       // of the cell when the window was taken; so many held, and nothing is left to wait for
	since time.Time // a writer has it
	has   [windowSymbols / 64]uint64
}

// covers tells whether symbol i of the span falls into the window.
func (w *window) covers(sbn, i int) bool {
	return w != nil && sbn == w.sbn && i >= w.first && i < w.first+w.n
}

// staging is the windows of an object: the one that is being filled, the one before it if that has gaps, for symbols that were
// overtaken, and those that are whole and on their way to the disk past the page cache (writer.go).
type staging struct {
	size      int // symbols of a full cell
	sbn       int // of the last cell that was begun
	first     int // and its first symbol; -1: none was
	now, late *window
	spare     []*window
	arena     []byte    // what of the last arena is no window yet
	flight    []*window // whole, and not written yet
	queue     []*window // of these, what no writer has in hand
	cached    int       // cells that go through the page cache before one goes past it again
	slowUntil time.Time // until then writes past the page cache are taken to be slow
}

// newStaging chooses a cell that is a whole number of pages where it can.
func newStaging(g fec.Geometry) staging {
	size := max(1, min(windowBytes/g.SymbolSize, windowSymbols))
	if pages := pageSize / gcd(pageSize, g.SymbolSize); size >= pages {
		near := (size + pages/2) / pages * pages
		if near > windowSymbols {
			near -= pages
		}
		size = near
	}
	size = int(min(int64(size), max(1, g.Symbols()))) // a small object needs no more
	return staging{size: size, first: -1}
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// find returns the window that symbol i falls into; nil: none does.
func (g *staging) find(sbn, i int) *window {
	if g.now.covers(sbn, i) {
		return g.now
	}
	if g.late.covers(sbn, i) {
		return g.late
	}
	for _, w := range g.flight {
		if w.covers(sbn, i) {
			return w
		}
	}
	return nil
}

// slot is the place of symbol i in a window that is being filled and has not got it; nil: there is none.
func (g *staging) slot(sbn, i, symbolSize int) []byte {
	w := g.now
	if !w.covers(sbn, i) {
		w = g.late
	}
	if !w.covers(sbn, i) || isSet(w.has[:], i-w.first) {
		return nil
	}
	return w.buf[(i-w.first)*symbolSize:][:symbolSize:symbolSize]
}

// passed tells whether symbol i is of the cells just behind: late, but no reason to go back.
func (g *staging) passed(sbn, i int) bool {
	return g.first >= 0 && sbn == g.sbn && i < g.first && i >= g.first-2*g.size
}

// take returns an empty window.
func (g *staging) take(symbolSize int) *window {
	if n := len(g.spare); n > 0 {
		w := g.spare[n-1]
		g.spare = g.spare[:n-1]
		return w
	}
	n := g.size*symbolSize + pageSize
	n += -n & (pageSize - 1)
	if len(g.arena) < n {
		g.arena = largepage.Bytes(n * arenaWindows)
	}
	w := &window{mem: g.arena[:n:n]}
	g.arena = g.arena[n:]
	return w
}

// give takes back a window that was written.
func (g *staging) give(w *window) {
	clear(w.has[:])
	w.held, w.n, w.since = 0, 0, time.Time{}
	g.spare = append(g.spare, w)
}

// putSource keeps source symbol i of the span.
func (o *Object) putSource(s fec.Span, i int, symbol []byte) (Outcome, error) {
	g := &o.staging
	w := g.find(s.SBN, i)
	if isSet(o.bits.sourceOf(s.SBN), i) || w != nil && isSet(w.has[:], i-w.first) {
		return Duplicate, nil
	}
	if err := o.checkPadding(s, i, symbol); err != nil {
		return 0, err
	}
	if w == nil {
		if g.passed(s.SBN, i) {
			return Stored, o.store(s, i, symbol, len(g.flight) > 0)
		}
		var err error
		if w, err = o.turn(s, i); err != nil {
			return 0, err
		}
	}
	at := i - w.first
	if slot := w.buf[at*s.SymbolSize:]; &slot[0] != &symbol[0] {
		copy(slot, symbol)
	}
	set(w.has[:], at)
	w.held++
	if w.held == w.lack {
		return Stored, o.whole(w)
	}
	return Stored, nil
}

// turn begins the cell of symbol i. The one before stays, if it has gaps, until the next turn.
func (o *Object) turn(s fec.Span, i int) (*window, error) {
	g := &o.staging
	if g.late != nil {
		if err := o.flushWindow(g.late); err != nil {
			return nil, err
		}
	}
	w := g.take(s.SymbolSize)
	w.sbn, w.first = s.SBN, i-i%g.size
	w.n = min(g.size, s.N-w.first)
	w.lack = w.n - countRange(o.bits.sourceOf(s.SBN), w.first, w.n)
	w.phase = o.files.phase(s.Offset(w.first), int64(w.n*s.SymbolSize))
	w.buf = w.mem[w.phase:][:w.n*s.SymbolSize]
	g.late, g.now, g.sbn, g.first = g.now, w, w.sbn, w.first
	return w, nil
}

// whole writes a window of a cell that lacks nothing more, or leaves it to the writers.
func (o *Object) whole(w *window) error {
	if w.held < w.n || !o.goesPast(w) {
		return o.flushWindow(w)
	}
	g := &o.staging
	g.release(w)
	g.flight, g.queue = append(g.flight, w), append(g.queue, w)
	o.work.Signal()
	return nil
}

// release takes a window out of the symbols' way.
func (g *staging) release(w *window) {
	switch w {
	case g.now:
		g.now = nil
	case g.late:
		g.late = nil
	}
}

// checkPadding wants zeros behind the end of the object: the code word has them there (specification section 4).
func (o *Object) checkPadding(s fec.Span, i int, symbol []byte) error {
	end := o.geometry.ObjectSize - s.Offset(i)
	if end >= int64(len(symbol)) {
		return nil
	}
	for _, b := range symbol[end:] {
		if b != 0 {
			return fmt.Errorf("%w: SBN %d, ESI %d: the padding of the last symbol is not zero", ErrSymbol, s.SBN, i)
		}
	}
	return nil
}

// flushWindow writes what is staged in a window to the page cache, a write a run (a file border splits it), and empties it.
//
// It is not to wait for what is on its way past the page cache to the same file (store), and what has gaps does not. A whole one is
// here because the disk was behind: where that takes no longer than usual, it waits rather than pay for a mapping.
func (o *Object) flushWindow(w *window) error {
	s := o.geometry.Span(w.sbn)
	beside := len(o.staging.flight) > 0 && (w.held < w.n || o.staging.slow())
	for at := 0; at < w.n; {
		if !isSet(w.has[:], at) {
			at++
			continue
		}
		start := at
		for at < w.n && isSet(w.has[:], at) {
			at++
		}
		if err := o.store(s, w.first+start, w.buf[start*s.SymbolSize:at*s.SymbolSize], beside); err != nil {
			return err
		}
	}
	o.wrote(s.Offset(w.first), s.Offset(w.first+w.n))
	o.staging.release(w)
	o.staging.give(w)
	return nil
}

// slow tells whether writes past the page cache take long, or did a moment ago: the next one begins when the last has ended, and takes as
// long.
func (g *staging) slow() bool {
	now := time.Now()
	for _, w := range g.flight {
		g.timed(w, now)
	}
	return now.Before(g.slowUntil)
}

// timed notes that a writer has had a window until now.
func (g *staging) timed(w *window, now time.Time) {
	if !w.since.IsZero() && now.Sub(w.since) > slowWrite {
		g.slowUntil = now.Add(slowFor)
	}
}

// flying tells whether symbols of a span are on their way past the page cache.
func (g *staging) flying(sbn int) bool {
	return slices.ContainsFunc(g.flight, func(w *window) bool { return w.sbn == sbn })
}

// flyingOf is how many symbols of a group are: lost, as long as they are not written, and not to be repaired.
func (g *staging) flyingOf(s fec.Span, group int) (n int) {
	for _, w := range g.flight {
		if w.sbn != s.SBN {
			continue
		}
		// Symbols of the group are group, group + D, ...: so many below the end, less those below the beginning.
		n += (w.first+w.n-group+s.D-1)/s.D - (w.first-group+s.D-1)/s.D
	}
	return n
}

// flushSpan writes what is staged of a span, but for what is on its way.
func (o *Object) flushSpan(sbn int) error {
	for _, w := range []*window{o.staging.late, o.staging.now} {
		if w != nil && w.sbn == sbn {
			if err := o.flushWindow(w); err != nil {
				return err
			}
		}
	}
	return nil
}

// flushStaged writes what is staged, and waits for what is on its way past the page cache, or until ctx ends, of which whoever ends
// it tells changed. It gives mu up while it waits.
func (o *Object) flushStaged(ctx context.Context) error {
	for _, w := range []*window{o.staging.late, o.staging.now} {
		if w != nil {
			if err := o.flushWindow(w); err != nil {
				return err
			}
		}
	}
	for len(o.staging.flight) > 0 {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		o.changed.Wait()
		if err := o.usable(); err != nil {
			return err
		}
	}
	return nil
}

// store writes a run of source symbols from symbol i on, then sets their bits. In this order: a bit promises a byte. Beside what is on
// its way past the page cache, it does not wait for that, which takes as long as the disk has something else to do.
func (o *Object) store(s fec.Span, i int, run []byte, beside bool) error {
	write := o.files.writeAt
	if beside {
		write = o.files.writeBeside
	}
	if err := write(run, s.Offset(i)); err != nil {
		return o.fail(err)
	}
	o.mark(s, i, len(run)/s.SymbolSize)
	return nil
}

// mark sets the bits of n source symbols from symbol i on, counts them, and hands on what that made possible. It returns
// how many were new.
func (o *Object) mark(s fec.Span, i, n int) int {
	source, fresh, group := o.bits.sourceOf(s.SBN), 0, i%s.D
	for j := i; j < i+n; j++ {
		if !isSet(source, j) {
			set(source, j)
			o.counts.lose(s.SBN, group, -1)
			fresh++
		}
		if group++; group == s.D {
			group = 0
		}
	}
	o.have.Add(int64(fresh))
	o.offerRun(s, i%s.D, min(n, s.D))
	o.settleSpan(s.SBN)
	return fresh
}

// offerRun offers every slab that n groups from group on touch; the groups go round at D.
func (o *Object) offerRun(s fec.Span, group, n int) {
	for n > 0 {
		o.offer(o.counts.slab(s.SBN, group))
		step := min(o.counts.slabGroups-group%o.counts.slabGroups, s.D-group)
		n -= step
		if group += step; group == s.D {
			group = 0
		}
	}
}
