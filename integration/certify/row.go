// SPDX-License-Identifier: Apache-2.0

package main

import "context"

// trial plays one seeded trial. An error says which promise was broken; figures are what was measured, kept or not.
type trial func(ctx context.Context, c *certifier, seed uint64) (figures, error)

// figures are what a trial measured, by name.
type figures map[string]float64

// row is one promise of the link, and how it is tried.
type row struct {
	name    string
	promise string
	trials  int
	play    trial
	report  []column
	judge   func(all []figures) error // on all trials together; may be nil
	sockets bool                      // on real sockets, in real time
	disks   bool                      // real programs on real file systems, in real time, on every core
	heavy   bool                      // too large to be scaled: left out below scale 1 unless it is named
}

// column is a figure of the report: the figures of a name, folded over the trials of a row.
type column struct {
	name, unit string
	fold       func(all []float64) float64
}

// book is a table of rows and what its report says around them.
type book struct {
	name, title, target string
	rows                func() []row
	repeat              string // how a trial is played again
}

// books are the tables, by the name that -table gives.
func books() map[string]book {
	return map[string]book{
		"link": {
			name: "link", title: "What the link survives", target: "certify-link", rows: table,
			repeat: "To repeat a row: `bin/certify -row N1`. To repeat one trial of a row in virtual time exactly: `bin/certify -row N1 -seed S -trials 1`, " +
				"with any S of its seeds. Rows on sockets (their names end in r) take their losses from the kernel's own random numbers: the seed only names the trial.",
		},
		"crash": {
			name: "crash", title: "What a crash, a full disk and a rotten bit leave", target: "certify-crash", rows: crashRows,
			repeat: "To repeat a row: `bin/certify -table crash -row S4`. A failing trial of S4 or S5 names its point: `bin/certify -table crash -row S4 -at fsync:KILL:12` " +
				"strikes there again. Rows S7, D1 and D2 repeat by their seed; a power cut falls where the clock says, and its seed only draws the time.",
		},
	}
}

// table is every row of the link, in the order of the report. Names are those of the acceptance list (N: the link's faults, L: lanes, S: hostile
// senders, P: the two sides, I: invariants); a trailing r says that the row is on real sockets.
func table() []row {
	rows := append(lossRows(), outageRows()...)
	rows = append(rows, laneRows()...)
	rows = append(rows, orderRows()...)
	rows = append(rows, hostileRows()...)
	rows = append(rows, peerRows()...)
	return append(rows, socketRows()...)
}

func total(all []float64) (sum float64) {
	for _, v := range all {
		sum += v
	}
	return sum
}

func mean(all []float64) float64 { return total(all) / float64(len(all)) }

func least(all []float64) float64 {
	low := all[0]
	for _, v := range all {
		low = min(low, v)
	}
	return low
}

func most(all []float64) float64 {
	high := all[0]
	for _, v := range all {
		high = max(high, v)
	}
	return high
}
