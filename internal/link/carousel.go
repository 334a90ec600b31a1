// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"fmt"
	"io"

	"sluice/pkg/fec"
)

// carousel yields the encoding symbols of the envelope object round and round:
// span after span, source symbols and then all 64 repair rows. The repair rows
// are held in memory: at most 54 MiB for an envelope of 160 MiB.
type carousel struct {
	geometry fec.Geometry
	source   io.ReaderAt
	repair   [][][]byte // a span, a row: D symbols
	symbol   []byte     // scratch: one padded source symbol

	span fec.Span
	next int // position in the span: source symbols, then repair symbols row by row
}

// newCarousel encodes the repair rows of the envelope object.
func newCarousel(ctx context.Context, source io.ReaderAt, geometry fec.Geometry) (*carousel, error) {
	encoder, err := fec.NewEncoder(0, fec.MaxRows)
	if err != nil {
		return nil, fmt.Errorf("envelope object: %w", err)
	}
	c := &carousel{geometry: geometry, source: source, symbol: make([]byte, geometry.SymbolSize), span: geometry.Span(0)}
	slab := newSlab(geometry.SymbolSize)
	for sbn := range geometry.Spans() {
		span := geometry.Span(sbn)
		rows := newRows(fec.MaxRows, span.D*span.SymbolSize)
		if err := slab.encode(ctx, encoder, newObject(source, geometry.ObjectSize), span, 0, span.D, rows); err != nil {
			return nil, fmt.Errorf("envelope object: %w", err)
		}
		c.repair = append(c.repair, rows)
	}
	return c, nil
}

// share returns a carousel of its own over the same symbols, at the beginning: each
// lane goes round by itself.
func (c *carousel) share() *carousel {
	other := *c
	other.symbol = make([]byte, c.geometry.SymbolSize)
	other.rewind()
	return &other
}

// turn returns how many symbols one whole round has.
func (c *carousel) turn() int64 {
	total := c.geometry.Symbols()
	for sbn := range c.geometry.Spans() {
		total += int64(fec.MaxRows * c.geometry.Span(sbn).D)
	}
	return total
}

// step returns the next symbol and its place. The symbol is valid until the next
// call. The object is not empty.
func (c *carousel) step() (sbn, esi uint32, symbol []byte, err error) {
	s := c.span
	i := c.next
	c.advance()
	if i < s.N {
		if err := readObject(c.source, c.symbol, s.Offset(i), c.geometry.ObjectSize); err != nil {
			return 0, 0, nil, fmt.Errorf("envelope object: %w", err)
		}
		return uint32(s.SBN), uint32(i), c.symbol, nil
	}
	row, group := (i-s.N)/s.D, (i-s.N)%s.D
	return uint32(s.SBN), s.RepairESI(row, group), c.repair[s.SBN][row][group*s.SymbolSize:][:s.SymbolSize], nil
}

// advance moves to the next symbol, the next span, or the beginning.
func (c *carousel) advance() {
	c.next++
	if c.next < c.span.N+fec.MaxRows*c.span.D {
		return
	}
	c.span, c.next = c.geometry.Span((c.span.SBN+1)%c.geometry.Spans()), 0
}

// rewind begins again with the first symbol.
func (c *carousel) rewind() { c.span, c.next = c.geometry.Span(0), 0 }
