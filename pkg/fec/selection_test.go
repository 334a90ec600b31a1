// SPDX-License-Identifier: Apache-2.0

package fec_test

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/fec"
)

// threeSpans is an object of two full spans of 4 groups (768 symbols) and one of 100 symbols in one group.
func threeSpans(t *testing.T) fec.Geometry {
	t.Helper()
	g, err := fec.New(10*(2*768+100), 10, 4)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestSelectionCheck(t *testing.T) {
	g := threeSpans(t)
	source := func(first, count int) []fec.Extent { return []fec.Extent{{First: first, Count: count}} }
	for _, c := range []struct {
		name string
		s    fec.Selection
		want string
	}{
		{"nothing at all", nil, ""},
		{"all", fec.Selection{{Spans: 2, Source: source(0, 768)}, {SBN: 2, Spans: 1, Source: source(0, 100), Repair: []fec.RepairRun{{Groups: 1, Rows: 64}}}}, ""},
		{"last row", fec.Selection{{Spans: 1, Repair: []fec.RepairRun{{Group: 3, Groups: 1, Row: 63, Rows: 1}}}}, ""},
		{"SBN past the end", fec.Selection{{SBN: 3, Spans: 1, Source: source(0, 1)}}, "1 spans from span 3"},
		{"spans past the end", fec.Selection{{SBN: 1, Spans: 3, Source: source(0, 1)}}, "3 spans from span 1"},
		{"negative SBN", fec.Selection{{SBN: -1, Spans: 1, Source: source(0, 1)}}, "from span -1"},
		{"no span", fec.Selection{{Source: source(0, 1)}}, "0 spans"},
		{"spans twice", fec.Selection{{Spans: 2, Source: source(0, 1)}, {SBN: 1, Spans: 1, Source: source(5, 1)}}, "entry 2"},
		{"spans of two sizes", fec.Selection{{SBN: 1, Spans: 2, Source: source(0, 1)}}, "stands alone"},
		{"empty", fec.Selection{{Spans: 1}}, "nothing of it"},
		{"source past the end", fec.Selection{{SBN: 2, Spans: 1, Source: source(99, 2)}}, "2 source symbols from 99"},
		{"source count overflows", fec.Selection{{Spans: 1, Source: source(1, int(^uint(0)>>1))}}, "source symbols from 1"},
		{"no source", fec.Selection{{Spans: 1, Source: source(1, 0)}}, "0 source symbols"},
		{"source out of order", fec.Selection{{Spans: 1, Source: []fec.Extent{{First: 5, Count: 2}, {First: 6, Count: 1}}}}, "from 7 to"},
		{"group past the end", fec.Selection{{SBN: 2, Spans: 1, Repair: []fec.RepairRun{{Group: 1, Groups: 1, Rows: 1}}}}, "1 groups from 1"},
		{"no group", fec.Selection{{Spans: 1, Repair: []fec.RepairRun{{Rows: 1}}}}, "0 groups"},
		{"groups twice", fec.Selection{{Spans: 1, Repair: []fec.RepairRun{{Groups: 2, Rows: 1}, {Group: 1, Groups: 1, Rows: 2}}}}, "1 groups from 1"},
		{"row past the end", fec.Selection{{Spans: 1, Repair: []fec.RepairRun{{Groups: 1, Row: 63, Rows: 2}}}}, "2 repair rows from 63"},
		{"no row", fec.Selection{{Spans: 1, Repair: []fec.RepairRun{{Groups: 1, Row: 3}}}}, "0 repair rows"},
		{"negative row", fec.Selection{{Spans: 1, Repair: []fec.RepairRun{{Groups: 1, Row: -1, Rows: 1}}}}, "from -1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.s.Check(g)
			if (err == nil) != (c.want == "") || err != nil && (!errors.Is(err, fec.ErrSelection) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestSelectionSymbols(t *testing.T) {
	s := fec.Selection{
		{Spans: 2, Source: []fec.Extent{{First: 1, Count: 3}, {First: 9, Count: 4}}, Repair: []fec.RepairRun{{Groups: 4, Row: 20, Rows: 2}, {Group: 4, Groups: 1, Rows: 1}}},
		{SBN: 5, Spans: 1, Source: []fec.Extent{{Count: 10}}},
	}
	if source, repair := s.Symbols(); source != 2*7+10 || repair != 2*9 {
		t.Errorf("%d source, %d repair", source, repair)
	}
}

func TestUnion(t *testing.T) {
	run := func(group, groups, row, rows int) fec.RepairRun {
		return fec.RepairRun{Group: group, Groups: groups, Row: row, Rows: rows}
	}
	for _, c := range []struct {
		name       string
		a, b, want []fec.RepairRun
	}{
		{"one alone", []fec.RepairRun{run(0, 4, 20, 3)}, nil, []fec.RepairRun{run(0, 4, 20, 3)}},
		{"maximum", []fec.RepairRun{run(0, 4, 20, 3)}, []fec.RepairRun{run(2, 4, 20, 5)}, []fec.RepairRun{run(0, 2, 20, 3), run(2, 4, 20, 5)}},
		{"the same", []fec.RepairRun{run(0, 4, 20, 3)}, []fec.RepairRun{run(0, 4, 20, 3)}, []fec.RepairRun{run(0, 4, 20, 3)}},
		{"a hole", []fec.RepairRun{run(0, 2, 20, 3)}, []fec.RepairRun{run(3, 1, 20, 3)}, []fec.RepairRun{run(0, 2, 20, 3), run(3, 1, 20, 3)}},
		{"fresh for both", []fec.RepairRun{run(0, 1, 20, 3)}, []fec.RepairRun{run(0, 1, 40, 2)}, []fec.RepairRun{run(0, 1, 40, 3)}},
		{"too few left", []fec.RepairRun{run(0, 1, 20, 30)}, []fec.RepairRun{run(0, 1, 40, 2)}, []fec.RepairRun{run(0, 1, 20, 30)}},
		{"too few left, and more", []fec.RepairRun{run(0, 1, 20, 30)}, []fec.RepairRun{run(0, 1, 40, 20)}, []fec.RepairRun{run(0, 1, 20, 40)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := fec.Union(fec.Selection{{Spans: 1, Repair: c.a}}, fec.Selection{{Spans: 1, Repair: c.b}})
			if diff := cmp.Diff(fec.Selection{{Spans: 1, Repair: c.want}}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	a := fec.Selection{{SBN: 2, Spans: 6, Source: []fec.Extent{{First: 10, Count: 5}}}}
	b := fec.Selection{{SBN: 0, Spans: 1, Source: []fec.Extent{{Count: 1}}}, {SBN: 4, Spans: 2, Source: []fec.Extent{{First: 12, Count: 9}, {First: 30, Count: 1}}}}
	want := fec.Selection{
		b[0],
		{SBN: 2, Spans: 2, Source: a[0].Source},
		{SBN: 4, Spans: 2, Source: []fec.Extent{{First: 10, Count: 11}, {First: 30, Count: 1}}},
		{SBN: 6, Spans: 2, Source: a[0].Source},
	}
	if diff := cmp.Diff(want, fec.Union(a, b)); diff != "" {
		t.Error(diff)
	}
}

// TestUnionServesBoth: whoever asked for either finds in the union every source symbol and as many rows as asked for, none before their
// first.
func TestUnionServesBoth(t *testing.T) {
	g := threeSpans(t)
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 1))
		a, b := randomSelection(r, g), randomSelection(r, g)
		u := fec.Union(a, b)
		if err := u.Check(g); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		have := symbolsOf(g, u)
		for _, asked := range []fec.Selection{a, b} {
			for at, first := range symbolsOf(g, asked) {
				if !at.repair && have[at] == nil || at.repair && countFrom(have[at], first[0]) < len(first) {
					t.Fatalf("seed %d: %+v asked for %v, the union has %v", seed, at, first, have[at])
				}
			}
		}
	}
}

type place struct {
	sbn, at int
	repair  bool
}

// symbolsOf lists the rows of each group, and each source symbol.
func symbolsOf(g fec.Geometry, s fec.Selection) map[place][]int {
	out := map[place][]int{}
	for _, p := range s {
		for sbn := p.SBN; sbn < p.SBN+p.Spans; sbn++ {
			for _, e := range p.Source {
				for i := range e.Count {
					out[place{sbn, e.First + i, false}] = []int{0}
				}
			}
			for _, r := range p.Repair {
				for i := range r.Groups * r.Rows {
					at := place{sbn, r.Group + i/r.Rows, true}
					out[at] = append(out[at], r.Row+i%r.Rows)
				}
			}
		}
	}
	return out
}

func countFrom(rows []int, first int) (n int) {
	for _, r := range rows {
		if r >= first {
			n++
		}
	}
	return n
}

func randomSelection(r *rand.Rand, g fec.Geometry) (s fec.Selection) {
	for sbn := 0; sbn < g.Spans(); sbn++ {
		span := g.Span(sbn)
		p := fec.Portion{SBN: sbn, Spans: 1}
		if sbn == 0 && r.IntN(3) == 0 {
			p.Spans = 2
		}
		for at := r.IntN(span.N); at < span.N && r.IntN(4) > 0; {
			n := 1 + r.IntN(span.N-at)
			p.Source = append(p.Source, fec.Extent{First: at, Count: n})
			at += n + r.IntN(50)
		}
		for at := 0; at < span.D && r.IntN(4) > 0; at++ {
			row := r.IntN(64)
			p.Repair = append(p.Repair, fec.RepairRun{Group: at, Groups: 1, Row: row, Rows: 1 + r.IntN(64-row)})
		}
		if len(p.Source)+len(p.Repair) > 0 {
			s = append(s, p)
			sbn += p.Spans - 1
		}
	}
	return s
}
