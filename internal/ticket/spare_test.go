// SPDX-License-Identifier: Apache-2.0

package ticket_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/ticket"
	"sluice/pkg/fec"
)

// TestSpare: what a sender adds (docs/spec/ticket.md section 5).
func TestSpare(t *testing.T) {
	run := func(group, groups, rows int) fec.RepairRun {
		return fec.RepairRun{Group: group, Groups: groups, Row: 20, Rows: rows}
	}
	for _, c := range []struct {
		name    string
		percent float64
		need    fec.Portion
		want    []fec.RepairRun
	}{
		{"rows", 10, fec.Portion{Repair: []fec.RepairRun{run(0, 4, 3), run(4, 1, 20)}}, []fec.RepairRun{run(0, 4, 4), run(4, 1, 22)}},
		{"no more than there are", 10, fec.Portion{Repair: []fec.RepairRun{run(0, 4, 43)}}, []fec.RepairRun{run(0, 4, 44)}},
		{"more percent", 50, fec.Portion{Repair: []fec.RepairRun{run(0, 4, 3)}}, []fec.RepairRun{run(0, 4, 5)}},
		{"source of all groups", 10, fec.Portion{Source: []fec.Extent{{First: 992, Count: 20 * 992}}}, []fec.RepairRun{run(0, 992, 2)}},
		{"source of some groups", 10, fec.Portion{Source: []fec.Extent{{First: 990, Count: 3}}}, []fec.RepairRun{run(0, 1, 1), run(990, 2, 1)}},
		{"both", 10, fec.Portion{Source: []fec.Extent{{First: 0, Count: 992 * 8}}, Repair: []fec.RepairRun{run(7, 1, 3)}}, []fec.RepairRun{run(0, 7, 1), run(7, 1, 5), run(8, 984, 1)}},
		{"none", 0, fec.Portion{Source: []fec.Extent{{Count: 1}}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.need.Spans = 1
			tk := with(func(tk *ticket.Ticket) { tk.Need = fec.Selection{c.need} })
			got, err := tk.Selection(c.percent)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(fec.Selection{{Spans: 1, Source: c.need.Source, Repair: c.want}}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	last := with(func(tk *ticket.Ticket) { tk.Fresh = 64 })
	if got, err := last.Selection(10); err != nil || len(got[0].Repair) != 0 {
		t.Errorf("no row is left, and %v is sent: %v", got, err)
	}
}

// TestMerge: of two tickets each gets what it needs; an order does not matter.
func TestMerge(t *testing.T) {
	a := signed(t, sample())
	b := signed(t, with(func(tk *ticket.Ticket) {
		tk.Fresh = 30
		tk.Need = fec.Selection{{SBN: 17, Spans: 1, Source: []fec.Extent{{First: 91_000, Count: 10}}}, {SBN: 18, Spans: 2, Repair: []fec.RepairRun{{Groups: 992, Row: 30, Rows: 10}}}}
	}))
	one, err := ticket.Merge([]*ticket.Signed{a, b}, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := fec.Selection{{SBN: 17, Spans: 1, Source: []fec.Extent{{First: 91_000, Count: 82_702}}}, b.Need[1]}
	if diff := cmp.Diff(want, one); diff != "" {
		t.Error(diff)
	}
	other, err := ticket.Merge([]*ticket.Signed{b, a, b}, 0)
	if err != nil || cmp.Diff(one, other) != "" {
		t.Errorf("another order: %v, %v", other, err)
	}
}

func TestCost(t *testing.T) {
	tk := manyForms()
	g, err := tk.Geometry()
	if err != nil {
		t.Fatal(err)
	}
	got := ticket.CostOf(tk.Need, g)
	source, repair := int64(3*190_464+201+1), int64(3*992+45)
	if want := (ticket.Cost{Source: source, Repair: repair, Bytes: (source + repair) * 1452, Wire: (source + repair) * 1518 * 8}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestWords(t *testing.T) {
	tk := manyForms()
	const want = `span 0: groups 0 to 991 need 3 rows from row 20
spans 1 to 3, each: source symbols 0 to 190463
span 300: source symbols 5 to 5; source symbols 6 to 205; groups 3 to 3 need 44 rows from row 20; groups 991 to 991 need 1 rows from row 20
span 1491: source symbols 0 to 0
`
	if diff := cmp.Diff(want, ticket.Words(tk.Need)); diff != "" {
		t.Error(diff)
	}
	many := longest()
	if words := ticket.Words(many.Need); strings.Count(words, "\n") != 13 || !strings.HasSuffix(words, "and 227 more\n") {
		t.Errorf("%s", words)
	}
}
