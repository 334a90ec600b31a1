// SPDX-License-Identifier: Apache-2.0

package ticket

import (
	"math"

	"sluice/pkg/fec"
)

// Selection returns what to send for the ticket, with so many percent of spare as section 5 says: for the pass may lose some too. The
// ticket was checked.
func (t *Ticket) Selection(percent float64) (fec.Selection, error) {
	g, err := t.Geometry()
	if err != nil {
		return nil, err
	}
	out := make(fec.Selection, len(t.Need))
	for i, p := range t.Need {
		p.Repair = withSpare(p, g.Span(p.SBN).D, t.Fresh, percent)
		out[i] = p
	}
	return out, nil
}

// withSpare returns the repair runs of a portion with their spare, and with that of its source symbols.
func withSpare(p fec.Portion, groups, fresh int, percent float64) []fec.RepairRun {
	source := sourceOf(p.Source, groups)
	rows := make([]uint8, groups)
	for _, r := range p.Repair {
		for group := r.Group; group < r.Group+r.Groups; group++ {
			rows[group] = uint8(r.Rows)
		}
	}
	for group := range rows {
		want := int(rows[group]) + int(math.Ceil(percent/100*float64(int(rows[group])+source[group])))
		rows[group] = uint8(min(want, fec.MaxRows-fresh))
	}
	return runsOf(rows, fresh)
}

// sourceOf counts the source symbols of each group.
func sourceOf(list []fec.Extent, groups int) []int {
	n := make([]int, groups)
	for _, e := range list {
		for i := range n {
			n[i] += e.Count / groups
		}
		for i := range e.Count % groups {
			n[(e.First+i)%groups]++
		}
	}
	return n
}

// Cost is what a selection costs to send.
type Cost struct {
	Source, Repair int64 // symbols
	Bytes          int64 // of datagrams
	Wire           int64 // bits on the wire, as link.rate counts them
}

// The datagram of docs/spec/datagram.md section 1, and what surrounds it on the wire: preamble, Ethernet, IPv4, UDP.
const (
	datagramOverhead = 28 + 16
	wireOverhead     = 66
)

// CostOf returns what a selection of an object costs; the envelope, which every pass sends, comes on top.
func CostOf(s fec.Selection, g fec.Geometry) Cost {
	source, repair := s.Symbols()
	n, size := source+repair, int64(g.SymbolSize+datagramOverhead)
	return Cost{Source: source, Repair: repair, Bytes: n * size, Wire: n * (size + wireOverhead) * 8}
}

// Merge returns what to send for several tickets of one release and one cut: the source symbols of all, of each group the maximum of rows.
func Merge(tickets []*Signed, percent float64) (fec.Selection, error) {
	var all fec.Selection
	for _, t := range tickets {
		s, err := t.Selection(percent)
		if err != nil {
			return nil, err
		}
		all = fec.Union(all, s)
	}
	return all, nil
}
