// SPDX-License-Identifier: Apache-2.0

package fec

import (
	"errors"
	"fmt"
	"slices"
)

// ErrSelection says that an object has no such part: symbols that do not exist, or parts out of order.
var ErrSelection = errors.New("fec: no such part of the object")

// Extent is a run of source symbols of a span.
type Extent struct{ First, Count int }

// end is the first symbol behind.
func (e Extent) end() int { return e.First + e.Count }

// RepairRun is a rectangle of repair symbols of a span: of Groups neighbouring groups, Rows neighbouring repair rows.
type RepairRun struct{ Group, Groups, Row, Rows int }

// end is the first group behind.
func (r RepairRun) end() int { return r.Group + r.Groups }

// symbols is how many repair symbols the rectangle has.
func (r RepairRun) symbols() int64 { return int64(r.Groups) * int64(r.Rows) }

// Portion is a part of each of Spans neighbouring spans, the same of each. Both lists are in order and without overlap.
type Portion struct {
	SBN, Spans int
	Source     []Extent
	Repair     []RepairRun
}

// end is the first span behind.
func (p Portion) end() int { return p.SBN + p.Spans }

// Selection is a part of the encoding symbols of an object, in order of spans. It is plain data: what a receiver lacks, and what a
// sender sends when it does not send everything.
type Selection []Portion

// Check tells whether an object has these symbols: every one exists, the spans of a portion are of one size, and nothing is out of
// order or named twice. Errors are [ErrSelection].
func (s Selection) Check(g Geometry) error {
	next := 0
	for i, p := range s {
		if p.SBN < next || p.Spans < 1 || int64(p.SBN)+int64(p.Spans) > g.spans() {
			return fmt.Errorf("%w: entry %d: %d spans from span %d on, want them from %d to %d", ErrSelection, i+1, p.Spans, p.SBN, next, g.spans()-1)
		}
		next = p.end()
		if err := p.check(g); err != nil {
			return fmt.Errorf("%w: entry %d, span %d: %w", ErrSelection, i+1, p.SBN, err)
		}
	}
	return nil
}

func (p Portion) check(g Geometry) error {
	span := g.Span(p.SBN)
	if last := g.Span(p.end() - 1); last.N != span.N {
		return fmt.Errorf("spans %d and %d of one entry have %d and %d symbols; the short last span stands alone", p.SBN, p.end()-1, span.N, last.N)
	}
	if len(p.Source) == 0 && len(p.Repair) == 0 {
		return errors.New("nothing of it is named")
	}
	if err := checkExtents(p.Source, span.N); err != nil {
		return err
	}
	return checkRuns(p.Repair, span.D)
}

func checkExtents(list []Extent, symbols int) error {
	next := 0
	for _, e := range list {
		if e.First < next || e.Count < 1 || e.Count > symbols-e.First {
			return fmt.Errorf("%d source symbols from %d on, want them from %d to %d", e.Count, e.First, next, symbols-1)
		}
		next = e.end()
	}
	return nil
}

func checkRuns(list []RepairRun, groups int) error {
	next := 0
	for _, r := range list {
		if r.Group < next || r.Groups < 1 || r.Groups > groups-r.Group {
			return fmt.Errorf("%d groups from %d on, want them from %d to %d", r.Groups, r.Group, next, groups-1)
		}
		if r.Row < 0 || r.Rows < 1 || r.Rows > MaxRows-r.Row {
			return fmt.Errorf("%d repair rows from %d on, the code has rows 0 to %d", r.Rows, r.Row, MaxRows-1)
		}
		next = r.end()
	}
	return nil
}

// Symbols counts the source and the repair symbols of the selection.
func (s Selection) Symbols() (source, repair int64) {
	for _, p := range s {
		a, b := p.Symbols()
		source, repair = source+a, repair+b
	}
	return source, repair
}

// Symbols counts the source and the repair symbols of the portion.
func (p Portion) Symbols() (source, repair int64) {
	for _, e := range p.Source {
		source += int64(e.Count)
	}
	for _, r := range p.Repair {
		repair += r.symbols()
	}
	return source * int64(p.Spans), repair * int64(p.Spans)
}

// Union returns a selection that serves whoever asked for a and whoever asked for b: all source symbols of both, and of each group as
// many repair rows as the one that asked for more. The rows begin where the later of both begins, since rows from there on are fresh
// for both; where the code has not so many, the rows of both are taken. Both selections are checked before.
func Union(a, b Selection) Selection {
	var out Selection
	for _, cut := range cuts(a, b) {
		p, q := at(&a, cut.SBN), at(&b, cut.SBN)
		merged := Portion{SBN: cut.SBN, Spans: cut.Spans, Source: unionExtents(p.Source, q.Source), Repair: unionRuns(p.Repair, q.Repair)}
		if len(merged.Source)+len(merged.Repair) > 0 {
			out = append(out, merged)
		}
	}
	return out
}

// cuts returns the runs of spans between the edges of all portions.
func cuts(a, b Selection) (runs []Portion) {
	var edges []int
	for _, p := range slices.Concat(a, b) {
		edges = append(edges, p.SBN, p.end())
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)
	for i := 1; i < len(edges); i++ {
		runs = append(runs, Portion{SBN: edges[i-1], Spans: edges[i] - edges[i-1]})
	}
	return runs
}

// at returns the portion that holds a span, or an empty one, and drops those that lie before it.
func at(s *Selection, sbn int) Portion {
	for len(*s) > 0 && (*s)[0].end() <= sbn {
		*s = (*s)[1:]
	}
	if len(*s) == 0 || (*s)[0].SBN > sbn {
		return Portion{}
	}
	return (*s)[0]
}

func unionExtents(a, b []Extent) (out []Extent) {
	all := slices.Concat(a, b)
	slices.SortFunc(all, func(x, y Extent) int { return x.First - y.First })
	for _, e := range all {
		if n := len(out); n > 0 && e.First <= out[n-1].end() {
			out[n-1].Count = max(out[n-1].end(), e.end()) - out[n-1].First
			continue
		}
		out = append(out, e)
	}
	return out
}

// unionRuns goes over the groups of both once, from edge to edge.
func unionRuns(a, b []RepairRun) (out []RepairRun) {
	var edges []int
	for _, r := range slices.Concat(a, b) {
		edges = append(edges, r.Group, r.end())
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)
	for i := 1; i < len(edges); i++ {
		r := joinRows(runAt(&a, edges[i-1]), runAt(&b, edges[i-1]))
		r.Group, r.Groups = edges[i-1], edges[i]-edges[i-1]
		if r.Rows > 0 {
			out = AppendRun(out, r)
		}
	}
	return out
}

func runAt(list *[]RepairRun, group int) RepairRun {
	for len(*list) > 0 && (*list)[0].end() <= group {
		*list = (*list)[1:]
	}
	if len(*list) == 0 || (*list)[0].Group > group {
		return RepairRun{}
	}
	return (*list)[0]
}

// joinRows decides the rows of groups that two ask for.
func joinRows(a, b RepairRun) RepairRun {
	if a.Rows == 0 || b.Rows == 0 {
		a.Row, a.Rows = a.Row+b.Row, a.Rows+b.Rows // one of both is zero
		return a
	}
	row, rows := max(a.Row, b.Row), max(a.Rows, b.Rows)
	if row+rows > MaxRows { // the later beginning leaves too few: all that both asked for
		row = min(a.Row, b.Row)
		rows = max(a.Row+a.Rows, b.Row+b.Rows) - row
	}
	return RepairRun{Row: row, Rows: rows}
}

// AppendRun appends a run to a list, or lengthens the last one when they are neighbours with the same rows.
func AppendRun(list []RepairRun, r RepairRun) []RepairRun {
	if n := len(list); n > 0 && list[n-1].end() == r.Group && list[n-1].Row == r.Row && list[n-1].Rows == r.Rows {
		list[n-1].Groups += r.Groups
		return list
	}
	return append(list, r)
}
