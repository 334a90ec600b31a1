// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"fmt"

	"sluice/pkg/fec"
)

// selector sends what a Transfer selects, span after span: first the source symbols, then the repair symbols row by row, as in every
// pass, so that an outage takes few of each group. It encodes in the sender's goroutine: a selection is small, and what it waits for
// the disk the pace makes up. It reads and does not look: little of what a view brings into memory would be of use.
type selector struct {
	pass     *pass
	source   *objectReader
	slab     *slab
	encoders map[[2]int]*fec.Encoder // by first row and rows: at most a triangle of 64
	runs     []encodedRun            // scratch
}

// encodedRun is a run of repair symbols: of each row the groups of the run, side by side.
type encodedRun struct {
	fec.RepairRun
	rows [][]byte
}

// selection sends the selected symbols of the payload object.
func (p *pass) selection(ctx context.Context) error {
	s := &selector{
		pass: p, source: newObjectReader(object{source: p.transfer.Payload, size: p.geometry.ObjectSize}, p.geometry.SymbolSize), slab: newSlab(p.geometry.SymbolSize),
		encoders: make(map[[2]int]*fec.Encoder),
	}
	for _, portion := range p.transfer.Only {
		for i := range portion.Spans {
			if err := s.span(ctx, p.geometry.Span(portion.SBN+i), portion); err != nil {
				return err
			}
		}
	}
	return nil
}

// span sends the portion's symbols of one span.
func (s *selector) span(ctx context.Context, span fec.Span, portion fec.Portion) error {
	for _, e := range portion.Source {
		if err := s.extent(ctx, span, e); err != nil {
			return err
		}
	}
	if err := s.encode(ctx, span, portion.Repair); err != nil {
		return err
	}
	return s.repair(ctx, span)
}

// extent sends a run of source symbols.
func (s *selector) extent(ctx context.Context, span fec.Span, e fec.Extent) error {
	for i := e.First; i < e.First+e.Count; i++ {
		body, err := s.source.symbol(span.Offset(i))
		if err != nil {
			return err
		}
		if err := s.pass.put(ctx, sourcePlace(span, i), body); err != nil {
			return err
		}
	}
	return nil
}

// encode computes the runs of one span. Runs do not overlap, so that this is never more than the 64 rows of a span.
func (s *selector) encode(ctx context.Context, span fec.Span, runs []fec.RepairRun) error {
	s.runs = s.runs[:0]
	for _, r := range runs {
		encoder, err := s.encoder(r.Row, r.Rows)
		if err != nil {
			return err
		}
		run := encodedRun{RepairRun: r, rows: newRows(r.Rows, r.Groups*span.SymbolSize)}
		if err := s.slab.encode(ctx, encoder, s.source.object, span, r.Group, r.Groups, run.rows); err != nil {
			return err
		}
		s.runs = append(s.runs, run)
	}
	return nil
}

// encoder returns the encoder of a range of rows.
func (s *selector) encoder(row, rows int) (*fec.Encoder, error) {
	key := [2]int{row, rows}
	if e := s.encoders[key]; e != nil {
		return e, nil
	}
	e, err := fec.NewEncoder(row, rows)
	if err != nil {
		return nil, fmt.Errorf("repair rows: %w", err)
	}
	s.encoders[key] = e
	return e, nil
}

// repair sends the encoded runs of a span, row by row through all of them.
func (s *selector) repair(ctx context.Context, span fec.Span) error {
	for row := range fec.MaxRows {
		for i := range s.runs {
			if err := s.row(ctx, span, &s.runs[i], row); err != nil {
				return err
			}
		}
	}
	return nil
}

// row sends one row of a run, if the run has it.
func (s *selector) row(ctx context.Context, span fec.Span, run *encodedRun, row int) error {
	if row < run.Row || row >= run.Row+run.Rows {
		return nil
	}
	for g := range run.Groups {
		body := run.rows[row-run.Row][g*span.SymbolSize:][:span.SymbolSize]
		if err := s.pass.put(ctx, repairPlace(span, row, run.Group+g), body); err != nil {
			return err
		}
	}
	return nil
}
