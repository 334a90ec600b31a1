// SPDX-License-Identifier: Apache-2.0

package spool

import "sluice/pkg/fec"

// counts is what the bits add up to, kept so that Put decides in constant time: how much each group lacks and has, and
// with it which slabs can be repaired.
//
//	group  lost, repair              it is damaged if lost > 0, and stuck if lost > repair
//	slab   damaged, stuck groups     it can be repaired as a whole if some are damaged and none is stuck
//	span   lost
type counts struct {
	groups     int // G
	slabGroups int // groups in a slab
	slabs      int // slabs in a span

	lost, repair   []uint8 // a group; at most 192 and 64
	damaged, stuck []uint8 // a slab; at most 64
	spanLost       []int32
}

// newCounts returns the counts of an object of which nothing is there.
func newCounts(g fec.Geometry, slabGroups int) counts {
	slabs := (g.Groups + slabGroups - 1) / slabGroups
	c := counts{
		groups: g.Groups, slabGroups: slabGroups, slabs: slabs,
		lost: make([]uint8, g.Spans()*g.Groups), repair: make([]uint8, g.Spans()*g.Groups),
		damaged: make([]uint8, g.Spans()*slabs), stuck: make([]uint8, g.Spans()*slabs),
		spanLost: make([]int32, g.Spans()),
	}
	for sbn := range g.Spans() {
		s := g.Span(sbn)
		for group := range s.D {
			c.lose(sbn, group, (s.N-group+s.D-1)/s.D)
		}
	}
	return c
}

// slab returns the number of the slab of a group.
func (c *counts) slab(sbn, group int) int { return sbn*c.slabs + group/c.slabGroups }

// lose adds n lost symbols to a group; n below 0 takes them off.
func (c *counts) lose(sbn, group, n int) {
	i, slab := sbn*c.groups+group, c.slab(sbn, group)
	c.take(i, slab)
	c.lost[i] = uint8(int(c.lost[i]) + n)
	c.spanLost[sbn] += int32(n)
	c.give(i, slab)
}

// gain adds a repair symbol to a group.
func (c *counts) gain(sbn, group int) {
	i, slab := sbn*c.groups+group, c.slab(sbn, group)
	c.take(i, slab)
	c.repair[i]++
	c.give(i, slab)
}

// drop forgets the repair symbols of a span.
func (c *counts) drop(s fec.Span) {
	for group := range s.D {
		i, slab := s.SBN*c.groups+group, c.slab(s.SBN, group)
		c.take(i, slab)
		c.repair[i] = 0
		c.give(i, slab)
	}
}

// take and give take group i out of the sums of its slab and put it back in.
func (c *counts) take(i, slab int) {
	if c.lost[i] > 0 {
		c.damaged[slab]--
	}
	if c.lost[i] > c.repair[i] {
		c.stuck[slab]--
	}
}

func (c *counts) give(i, slab int) {
	if c.lost[i] > 0 {
		c.damaged[slab]++
	}
	if c.lost[i] > c.repair[i] {
		c.stuck[slab]++
	}
}

// enough tells whether a group, of which so many symbols are being written, needs no further repair symbol.
func (c *counts) enough(sbn, group, flying int) bool {
	i := sbn*c.groups + group
	return int(c.repair[i])+flying >= int(c.lost[i])
}

// deficit returns the largest number of repair symbols that a group of the span still needs.
func (c *counts) deficit(s fec.Span) (deficit int) {
	for i := s.SBN * c.groups; i < s.SBN*c.groups+s.D; i++ {
		deficit = max(deficit, int(c.lost[i])-int(c.repair[i]))
	}
	return deficit
}

// load counts the bits of a span of which nothing was counted yet.
func (c *counts) load(s fec.Span, source, repair []uint64) {
	for i, group := 0, 0; i < s.N; i++ {
		if isSet(source, i) {
			c.lose(s.SBN, group, -1)
		}
		if group++; group == s.D {
			group = 0
		}
	}
	if countSet(repair) == 0 {
		return
	}
	for i := range fec.MaxRows * s.D {
		if isSet(repair, i) {
			c.gain(s.SBN, i%s.D)
		}
	}
}
