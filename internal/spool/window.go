// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"fmt"

	"sluice/pkg/fec"
)

const (
	// windowBytes: what one pwrite takes at most, and what a kill can lose.
	windowBytes = 1 << 20
	// windowSymbols bounds the bits of the window where symbols are tiny.
	windowSymbols = 1024
)

// window stages source symbols of one span that lie close together, so that they are written in few calls. Symbols may
// come in any order within it.
//
//	span   ..........[ x x x . x x . . ]..........     x staged, . not here
//	                   first     first+n
//
// Their bits are set when they are written, not before.
type window struct {
	buf   []byte
	size  int // symbols that buf takes
	sbn   int
	first int // symbol of the span
	n     int // symbols that the window covers; 0 at first
	held  int
	has   [windowSymbols / 64]uint64
}

func newWindow(g fec.Geometry) window {
	size := max(1, min(windowBytes/g.SymbolSize, windowSymbols))
	size = int(min(int64(size), max(1, g.Symbols()))) // a small object needs no more
	return window{buf: make([]byte, size*g.SymbolSize), size: size}
}

// covers tells whether symbol i of the span falls into the window.
func (w *window) covers(sbn, i int) bool {
	return sbn == w.sbn && i >= w.first && i < w.first+w.n
}

// behind tells whether symbol i is one that the window has just left: late, but no reason to go back.
func (w *window) behind(sbn, i int) bool {
	return w.n > 0 && sbn == w.sbn && i < w.first && i >= w.first-w.size
}

// move puts the empty window at symbol i, not beyond the end of the span.
func (w *window) move(s fec.Span, i int) {
	w.sbn, w.first, w.n = s.SBN, i, max(0, min(w.size, s.N-i))
}

// putSource keeps source symbol i of the span.
func (o *Object) putSource(s fec.Span, i int, symbol []byte) (Outcome, error) {
	w := &o.window
	if isSet(o.bits.sourceOf(s.SBN), i) || w.covers(s.SBN, i) && isSet(w.has[:], i-w.first) {
		return Duplicate, nil
	}
	if err := o.checkPadding(s, i, symbol); err != nil {
		return 0, err
	}
	if w.behind(s.SBN, i) {
		return Stored, o.store(s, i, symbol)
	}
	if !w.covers(s.SBN, i) {
		if err := o.flushWindow(); err != nil {
			return 0, err
		}
		w.move(s, i)
	}
	at := i - w.first
	copy(w.buf[at*s.SymbolSize:], symbol)
	set(w.has[:], at)
	w.held++
	if at == w.n-1 { // the last one: whatever is still to come of the window comes late
		return Stored, o.flushWindow()
	}
	return Stored, nil
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

// flushWindow writes what is staged, one pwrite a run (a file border splits it), and moves the window on.
func (o *Object) flushWindow() error {
	w := &o.window
	if w.held == 0 {
		return nil
	}
	s := o.geometry.Span(w.sbn)
	for at := 0; at < w.n; {
		if !isSet(w.has[:], at) {
			at++
			continue
		}
		start := at
		for at < w.n && isSet(w.has[:], at) {
			at++
		}
		if err := o.store(s, w.first+start, w.buf[start*s.SymbolSize:at*s.SymbolSize]); err != nil {
			return err
		}
	}
	o.wrote(s.Offset(w.first), s.Offset(w.first+w.n))
	clear(w.has[:])
	w.held = 0
	w.move(s, w.first+w.n)
	return nil
}

// store writes a run of source symbols from symbol i on, then sets their bits. In this order: a bit promises a byte.
func (o *Object) store(s fec.Span, i int, run []byte) error {
	if err := o.files.writeAt(run, s.Offset(i)); err != nil {
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
