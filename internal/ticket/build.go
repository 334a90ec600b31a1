// SPDX-License-Identifier: Apache-2.0

package ticket

import (
	"slices"

	"sluice/pkg/fec"
)

const (
	// Spare is the percentage that a sender adds to what a ticket asks for, unless it is told otherwise.
	Spare = 10

	// slack times the room is how far a Builder lets its entries grow before it coarsens them to half of that: memory is bounded, and the
	// last coarsening still sees more than fits.
	slack = 8

	// A ticket whose entries take at most comfortable bytes has less than 500 and 28 lines: it is coarsened to that while it asks for at
	// most a gentle-th more, for people type it.
	comfortable = 260
	gentle      = 4
)

// Builder makes the entries of a ticket from what each span lacks, in order of spans, in bounded memory. It decides what docs/spec/ticket.md
// section 2 leaves to the receiver.
type Builder struct {
	geometry fec.Geometry
	fresh    int
	room     int // bytes
	need     fec.Selection
	size     int   // bytes of need, or a little more
	price    int64 // at which the last coarsening ended
	lost     int64 // source symbols
}

// NewBuilder begins the entries of a ticket for an object: fresh is its first fresh row, room what [Room] says.
func NewBuilder(g fec.Geometry, fresh, room int) *Builder {
	return &Builder{geometry: g, fresh: fresh, room: room}
}

// Lost returns how many source symbols are missing of the spans that were added.
func (b *Builder) Lost() int64 { return b.lost }

// Add takes in what a span lacks: the deficit of each group, and the runs of missing source symbols. It keeps neither. Spans come in
// ascending order.
func (b *Builder) Add(span fec.Span, deficit []uint8, missing []fec.Extent) {
	for _, e := range missing {
		b.lost += int64(e.Count)
	}
	if slices.Max(deficit) == 0 {
		return // what is here repairs it
	}
	p := choose(span, b.fresh, deficit, missing)
	p.SBN, p.Spans = span.SBN, 1
	b.append(p)
	if b.size > slack*b.room {
		b.need, b.price = squeeze(b.geometry, b.need, slack*b.room/2, b.price/4)
		b.size = entriesSize(b.need)
	}
}

// append adds a portion, or lengthens the last when it is its neighbour and asks for the same.
func (b *Builder) append(p fec.Portion) {
	if n := len(b.need); n > 0 {
		last := &b.need[n-1]
		if last.SBN+last.Spans == p.SBN && alike(b.geometry, *last, p) && slices.Equal(last.Source, p.Source) && slices.Equal(last.Repair, p.Repair) {
			last.Spans += p.Spans
			return
		}
	}
	b.need = append(b.need, p)
	b.size += len(appendEntry(nil, p, p.SBN))
}

// alike tells whether the spans of two portions have one size: the last span of an object may be shorter.
func alike(g fec.Geometry, p, q fec.Portion) bool {
	return g.Span(p.SBN).N == g.Span(q.SBN+q.Spans-1).N
}

// Need returns the entries, coarsened to fit, and to what people like to type if that costs little. It is empty when nothing is needed.
func (b *Builder) Need() fec.Selection {
	need, _ := squeeze(b.geometry, b.need, b.room, 0)
	short, _ := squeeze(b.geometry, need, min(comfortable, b.room), 0)
	if most := totalOf(need); totalOf(short) <= most+most/gentle {
		return short
	}
	return need
}

func totalOf(s fec.Selection) int64 {
	source, repair := s.Symbols()
	return source + repair
}

// choose returns the cheaper of two ways to ask for a span: all its missing source symbols, or rows, with source symbols where rows do
// not suffice. At one price it is the shorter one, and source at a tie: it needs neither encoding nor decoding.
func choose(span fec.Span, fresh int, deficit []uint8, missing []fec.Extent) fec.Portion {
	all := fec.Portion{Spans: 1, Source: slices.Clone(missing)}
	rows := withRows(span, fresh, deficit, missing)
	if total(all) <= total(rows) && len(appendEntry(nil, all, 0)) <= len(appendEntry(nil, rows, 0)) {
		return all
	}
	return rows
}

// total is what a portion costs in symbols.
func total(p fec.Portion) int64 {
	source, repair := p.Symbols()
	return source + repair
}

// withRows asks for rows, as far as the fresh ones reach with their spare; before that for the longest runs of missing source symbols, until
// they do.
func withRows(span fec.Span, fresh int, deficit []uint8, missing []fec.Extent) (p fec.Portion) {
	left := (fec.MaxRows - fresh) * 100 / (100 + Spare)
	rest, over := slices.Clone(deficit), 0
	for _, n := range rest {
		if int(n) > left {
			over++
		}
	}
	longest := slices.SortedStableFunc(slices.Values(missing), func(x, y fec.Extent) int { return y.Count - x.Count })
	for ; over > 0 && len(longest) > 0; longest = longest[1:] {
		e := longest[0]
		for i := e.First; i < e.First+e.Count; i++ {
			group := i % span.D
			if int(rest[group]) == left+1 {
				over--
			}
			rest[group] -= min(rest[group], 1)
		}
		p.Source = append(p.Source, e)
	}
	slices.SortFunc(p.Source, func(x, y fec.Extent) int { return x.First - y.First })
	p.Spans = 1
	p.Repair = runsOf(rest, fresh)
	return p
}

// runsOf writes the rows that each group needs as runs.
func runsOf(rows []uint8, fresh int) (runs []fec.RepairRun) {
	for group, n := range rows {
		if n > 0 {
			runs = fec.AppendRun(runs, fec.RepairRun{Group: group, Groups: 1, Row: fresh, Rows: int(n)})
		}
	}
	return runs
}
