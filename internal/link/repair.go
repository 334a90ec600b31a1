// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"errors"
	"fmt"
	"io"

	"sluice/pkg/fec"
)

const (
	// slabRow is how many bytes of each of the 192 source rows are encoded at a
	// time: wide enough for the encoder's vector loops, and 192 of them (6 MiB)
	// stay near the cores.
	slabRow = 32 << 10

	// repairSpans is how many spans of repair rows exist at once: one is sent
	// while the next is encoded.
	repairSpans = 2
)

// ErrShort says that an object gave fewer bytes than announced: it was changed
// while it was sent.
var ErrShort = errors.New("link: object shorter than announced")

// readObject fills b from the object at off; past the object's end it is zero
// (section 4: the last symbol is padded, and absent symbols are zero).
func readObject(source io.ReaderAt, b []byte, off, size int64) error {
	want := int(max(0, min(int64(len(b)), size-off)))
	clear(b[want:])
	if want == 0 {
		return nil
	}
	n, err := source.ReadAt(b[:want], off)
	switch {
	case n == want:
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("%w: %d of %d bytes at offset %d", ErrShort, n, want, off)
	}
	return fmt.Errorf("read object at offset %d: %w", off, err)
}

// newRows allocates rows of equal length in one piece.
func newRows(rows, length int) [][]byte {
	memory := make([]byte, rows*length)
	list := make([][]byte, rows)
	for i := range list {
		list[i] = memory[i*length : (i+1)*length : (i+1)*length]
	}
	return list
}

// slab is the scratch of one encoding: a piece of each source row.
type slab struct {
	groups int // neighbouring groups a slab
	rows   [][]byte
	source [][]byte // rows cut to the width in use
	repair [][]byte
}

// newSlab sizes the scratch for symbols of the given size.
func newSlab(symbolSize int) *slab {
	groups := max(1, slabRow/symbolSize)
	return &slab{groups: groups, rows: newRows(fec.K, groups*symbolSize)}
}

// encode computes the repair rows of a span (each D symbols long, one for each
// row of the encoder), slab after slab of neighbouring groups. It reads the
// object again: the page cache holds it, since a span is sent at the same time.
func (s *slab) encode(ctx context.Context, encoder *fec.Encoder, source io.ReaderAt, size int64, span fec.Span, rows [][]byte) error {
	for first := 0; first < span.D; first += s.groups {
		if err := ctx.Err(); err != nil {
			return err
		}
		from := first * span.SymbolSize
		width := min(s.groups, span.D-first) * span.SymbolSize
		s.source, s.repair = s.source[:0], s.repair[:0]
		for j := range span.K {
			row := s.rows[j][:width]
			if err := readObject(source, row, span.Offset(j*span.D+first), size); err != nil {
				return err
			}
			s.source = append(s.source, row)
		}
		for _, row := range rows {
			s.repair = append(s.repair, row[from:from+width])
		}
		if err := encoder.Encode(s.source, s.repair); err != nil {
			return fmt.Errorf("encode span %d: %w", span.SBN, err)
		}
	}
	return nil
}

// repairSymbols are the repair rows of one span, sent row by row.
type repairSymbols struct {
	span     fec.Span
	firstRow int
	rows     [][]byte
	sent     int
}

// total returns how many symbols there are.
func (r *repairSymbols) total() int { return len(r.rows) * r.span.D }

// step returns the next symbol; there is one while sent < total.
func (r *repairSymbols) step() (at place, symbol []byte) {
	row, group := r.sent/r.span.D, r.sent%r.span.D
	r.sent++
	return repairPlace(r.span, r.firstRow+row, group), r.rows[row][group*r.span.SymbolSize:][:r.span.SymbolSize]
}

// repairer encodes one span after another in a goroutine of its own, ahead of
// the sender and never more than repairSpans spans.
type repairer struct {
	free  chan [][]byte
	ready chan *repairSymbols
	err   error // set before ready is closed
}

// startRepairer begins to encode rows firstRow..firstRow+rows-1 of every span of
// the object. It ends, with ready closed, after the last span, at an error, or
// when ctx ends.
func startRepairer(ctx context.Context, source io.ReaderAt, geometry fec.Geometry, firstRow, rows int) (*repairer, error) {
	encoder, err := fec.NewEncoder(firstRow, rows)
	if err != nil {
		return nil, fmt.Errorf("repair rows: %w", err)
	}
	r := &repairer{free: make(chan [][]byte, repairSpans), ready: make(chan *repairSymbols, repairSpans)}
	for range min(repairSpans, geometry.Spans()) {
		r.free <- newRows(rows, geometry.Span(0).D*geometry.SymbolSize)
	}
	go func() {
		defer close(r.ready)
		r.err = r.run(ctx, encoder, source, geometry, firstRow)
	}()
	return r, nil
}

// run is the body of the goroutine.
func (r *repairer) run(ctx context.Context, encoder *fec.Encoder, source io.ReaderAt, geometry fec.Geometry, firstRow int) error {
	slab := newSlab(geometry.SymbolSize)
	for sbn := range geometry.Spans() {
		var memory [][]byte
		select {
		case memory = <-r.free:
		case <-ctx.Done():
			return ctx.Err()
		}
		span := geometry.Span(sbn)
		rows := make([][]byte, len(memory))
		for i := range rows {
			rows[i] = memory[i][:span.D*span.SymbolSize]
		}
		if err := slab.encode(ctx, encoder, source, geometry.ObjectSize, span, rows); err != nil {
			return err
		}
		r.ready <- &repairSymbols{span: span, firstRow: firstRow, rows: rows} // never blocks: as many as free
	}
	return nil
}

// take waits for the repair symbols of the next span.
func (r *repairer) take() (*repairSymbols, error) {
	symbols, ok := <-r.ready
	if !ok {
		return nil, r.err
	}
	return symbols, nil
}

// stop waits for the goroutine; its context was ended before.
func (r *repairer) stop() {
	for range r.ready {
		continue
	}
}

// release gives the memory of sent symbols back.
func (r *repairer) release(symbols *repairSymbols) {
	for i := range symbols.rows {
		symbols.rows[i] = symbols.rows[i][:cap(symbols.rows[i])]
	}
	r.free <- symbols.rows
}
