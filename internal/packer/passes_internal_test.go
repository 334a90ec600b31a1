// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"sluice/internal/strictyaml"
	"sluice/pkg/fec"
)

// TestPlanOfANumber: docs/spec/datagram.md section 5, over one lane. Rows of one cycle never repeat, and never pass the 64 that there are.
func TestPlanOfANumber(t *testing.T) {
	for _, c := range []struct {
		pass, rows int
		source     bool
		first      int
	}{
		{1, 20, true, 0},
		{2, 20, false, 20},
		{3, 20, false, 40},
		{4, 20, true, 0}, // a fourth would need rows 60 to 79
		{5, 20, false, 20},
		{1, 64, true, 0},
		{2, 64, true, 0},
		{1, 1, true, 0},
		{64, 1, false, 63},
		{65, 1, true, 0},
		{2, 33, true, 0},
		{2, 32, false, 32},
	} {
		p := Passes(nil).Plan(c.pass, c.rows, 1)
		if p.Pass != c.pass || p.Source != c.source || p.FirstRow != c.first || p.Rows != c.rows {
			t.Errorf("pass %d of %d rows is %+v, want %+v", c.pass, c.rows, p, c)
		}
	}
	for rows := 1; rows <= fec.MaxRows; rows++ {
		for pass := 1; pass <= 200; pass++ {
			if p := CountedPasses(2).Plan(pass, rows, 1); p.FirstRow < 0 || p.FirstRow+p.Rows > fec.MaxRows || p.Source != (p.FirstRow == 0) {
				t.Fatalf("pass %d of %d rows: %+v", pass, rows, p)
			}
		}
	}
}

// plans writes a schedule as "all 0+20 round 0, ...".
func plans(s Passes, n, lanes int) string {
	const rows = 20
	var list []string
	for pass := 1; pass <= n; pass++ {
		p := s.Plan(pass, rows, lanes)
		list = append(list, strings.Join([]string{p.words(), string(rune('0' + p.FirstRow/rows)), string(rune('0' + p.Round))}, " "))
	}
	return strings.Join(list, ", ")
}

// TestPlans: what each pass sends, with which third of the 64 rows, and in which round of the lanes.
func TestPlans(t *testing.T) {
	all, repair := PassStep{Send: SendAll}, PassStep{Send: SendRepair}
	for _, tt := range []struct {
		name   string
		passes Passes
		lanes  int
		want   string
	}{
		{"a number", CountedPasses(4), 1, "all 0 0, repair 1 1, repair 2 1, all 0 1"},
		{"a number, two lanes", CountedPasses(4), 2, "all 0 0, all 1 1, repair 2 2, all 0 2"},
		{"a list", Passes{all, repair, all, repair}, 1, "all 0 0, repair 1 1, all 2 1, all 0 2"}, // the last has no fresh rows left
		{"a list, two lanes: as it says", Passes{all, repair, repair, repair}, 2, "all 0 0, repair 1 1, repair 2 1, all 0 1"},
		{"beyond the list", Passes{all}, 2, "all 0 0, all 1 1, repair 2 2, all 0 2"},
	} {
		if got := plans(tt.passes, 4, tt.lanes); got != tt.want {
			t.Errorf("%s: %s; want %s", tt.name, got, tt.want)
		}
	}
}

// TestPassesRead: a number, and a list.
func TestPassesRead(t *testing.T) {
	for text, want := range map[string]Passes{
		"3": {{}, {}, {}},
		"[{send: all}, {send: repair, after: 10m}, {send: all, after: 1d}]": {
			{Send: SendAll}, {Send: SendRepair, After: strictyaml.Duration(10 * time.Minute)}, {Send: SendAll, After: strictyaml.Duration(24 * time.Hour)},
		},
	} {
		var got Passes
		if err := yaml.Unmarshal([]byte(text), &got); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
}
