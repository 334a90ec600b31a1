// SPDX-License-Identifier: Apache-2.0

package ticket

import (
	"math"

	"sluice/pkg/fec"
)

// entriesSize is how many bytes a selection takes.
func entriesSize(need fec.Selection) int { return len(appendEntries(nil, need)) }

// squeeze coarsens a selection until it fits: neighbours become one, with the maximum of both. That only costs bandwidth. What costs
// least goes first, in rounds of twice the price, from the given one on; the last one would make one entry of everything, so that it
// ends. It returns the price of the last round too.
func squeeze(g fec.Geometry, need fec.Selection, room int, price int64) (fec.Selection, int64) {
	excess := entriesSize(need) - room
	for price = max(price, 1); excess > 0 && price < math.MaxInt64/4; price *= 2 {
		need = coarser(g, need, price, excess)
		excess = entriesSize(need) - room
	}
	return need, price
}

// coarser merges what costs at most price symbols, until excess bytes are saved.
func coarser(g fec.Geometry, need fec.Selection, price int64, excess int) (out fec.Selection) {
	for _, p := range need {
		if excess <= 0 {
			out = append(out, p)
			continue
		}
		before := len(appendEntry(nil, p, p.SBN))
		p = blunt(p, price)
		excess -= before - len(appendEntry(nil, p, p.SBN))
		if n := len(out); n > 0 {
			if both, saved, ok := join(g, out[n-1], p, price); ok {
				out[n-1], excess = both, excess-saved
				continue
			}
		}
		out = append(out, p)
	}
	return out
}

// blunt merges neighbouring extents and runs of one portion.
func blunt(p fec.Portion, price int64) fec.Portion {
	return fec.Portion{SBN: p.SBN, Spans: p.Spans, Source: bluntExtents(p.Source, price/int64(p.Spans)), Repair: bluntRuns(p.Repair, price/int64(p.Spans))}
}

// bluntExtents closes gaps of at most price symbols.
func bluntExtents(list []fec.Extent, price int64) (out []fec.Extent) {
	for _, e := range list {
		if n := len(out); n > 0 && int64(e.First-out[n-1].First-out[n-1].Count) <= price {
			out[n-1].Count = e.First + e.Count - out[n-1].First
			continue
		}
		out = append(out, e)
	}
	return out
}

// bluntRuns merges runs where the maximum, and the groups between, add at most price symbols.
func bluntRuns(list []fec.RepairRun, price int64) (out []fec.RepairRun) {
	for _, r := range list {
		if n := len(out); n > 0 {
			last := out[n-1]
			both := fec.RepairRun{Group: last.Group, Groups: r.Group + r.Groups - last.Group, Row: r.Row, Rows: max(last.Rows, r.Rows)}
			if area(both)-area(last)-area(r) <= price {
				out[n-1] = both
				continue
			}
		}
		out = append(out, r)
	}
	return out
}

func area(r fec.RepairRun) int64 { return int64(r.Groups) * int64(r.Rows) }

// join makes one entry of two, if that saves bytes and costs at most price symbols: what either asks for is asked of the spans of both,
// and of those between.
func join(g fec.Geometry, p, q fec.Portion, price int64) (both fec.Portion, saved int, ok bool) {
	if !alike(g, p, q) {
		return both, 0, false
	}
	one := func(p fec.Portion) fec.Selection {
		return fec.Selection{{Spans: 1, Source: p.Source, Repair: p.Repair}}
	}
	both = fec.Union(one(p), one(q))[0]
	both.SBN, both.Spans = p.SBN, q.SBN+q.Spans-p.SBN
	both = blunt(both, price)
	saved = entriesSize(fec.Selection{p, q}) - entriesSize(fec.Selection{both})
	return both, saved, saved > 0 && total(both)-total(p)-total(q) <= price
}
