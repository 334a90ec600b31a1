// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"fmt"

	"sluice/internal/largepage"
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

// newRows allocates rows of equal length in one piece.
func newRows(rows, length int) [][]byte {
	memory := largepage.Bytes(rows * length)
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

// encode computes repair rows of neighbouring groups of a span (each row as long as the groups are, one for each row of
// the encoder), slab after slab. It goes through the object again: the page cache holds it, since a span is sent at the
// same time.
func (s *slab) encode(ctx context.Context, encoder *fec.Encoder, o object, span fec.Span, group, groups int, rows [][]byte) error {
	for done := 0; done < groups; done += s.groups {
		if err := ctx.Err(); err != nil {
			return err
		}
		from, width := done*span.SymbolSize, min(s.groups, groups-done)*span.SymbolSize
		s.source, s.repair = s.source[:0], s.repair[:0]
		for j := range span.K {
			row, err := o.bytes(span.Offset(j*span.D+group+done), s.rows[j][:width])
			if err != nil {
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

// repairer encodes one span after another in a goroutine of its own: a span while
// its source is sent, and so looks at the memory that the sender looks at.
type repairer struct {
	free  chan [][]byte
	spare [][]byte // the second memory, until the first span was taken; nil: it is in use
	ready chan *repairSymbols
	err   error // set before ready is closed
}

// startRepairer begins to encode rows firstRow..firstRow+rows-1 of every span of
// the object. It ends, with ready closed, after the last span, at an error, or
// when ctx ends.
func startRepairer(ctx context.Context, o object, geometry fec.Geometry, firstRow, rows int) (*repairer, error) {
	encoder, err := fec.NewEncoder(firstRow, rows)
	if err != nil {
		return nil, fmt.Errorf("repair rows: %w", err)
	}
	r := &repairer{free: make(chan [][]byte, repairSpans), ready: make(chan *repairSymbols, repairSpans)}
	length := geometry.Span(0).D * geometry.SymbolSize
	r.free <- newRows(rows, length)
	if geometry.Spans() > 1 {
		r.spare = newRows(rows, length)
	}
	go func() {
		defer close(r.ready)
		r.err = r.run(ctx, encoder, o, geometry, firstRow)
	}()
	return r, nil
}

// run is the body of the goroutine.
func (r *repairer) run(ctx context.Context, encoder *fec.Encoder, o object, geometry fec.Geometry, firstRow int) error {
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
		if err := slab.encode(ctx, encoder, o, span, 0, span.D, rows); err != nil {
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
	if r.spare != nil {
		r.free <- r.spare
		r.spare = nil
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
