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
	heavy   bool                      // too large to be scaled: left out below scale 1 unless it is named
}

// column is a figure of the report: the figures of a name, folded over the trials of a row.
type column struct {
	name, unit string
	fold       func(all []float64) float64
}

// table is every row, in the order of the report. Names are those of the acceptance list (N: the link's faults, S: hostile senders,
// P: the two sides, I: invariants); a trailing r says that the row is on real sockets.
func table() []row {
	rows := append(lossRows(), outageRows()...)
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
