// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"sluice/internal/link/linktest"
)

// maxPasses is how many passes row N1c may take: the source once, and all the repair rows that are left.
const maxPasses = 3

// bursts is the Gilbert-Elliott model of row N2: one datagram in a hundred is lost, in bursts of 20 on average.
func bursts() linktest.Burst { return linktest.Burst{P: 0.0005, R: 0.05} }

func lossRows() []row {
	lost := []column{{"lost", "% lost (mean)", mean}, {"lost", "% lost (most)", most}, {"recovered", "symbols recovered by the code", total}}
	return []row{
		{
			name: "N1", trials: 1000, play: onePass(small(percent10), linktest.Options{Drop: 0.01}), report: lost,
			promise: "1 % uniform loss, 10 % repair: complete and byte-identical in one pass",
		},
		{
			name: "N1b", trials: 200, play: onePass(small(percent20), linktest.Options{Drop: 0.05}), report: lost,
			promise: "5 % uniform loss, 20 % repair: complete and byte-identical in one pass",
		},
		{
			name: "N1c", trials: 100, play: aboveDesign,
			promise: "13 % uniform loss, 10 % repair, which is above the design rate: incomplete after one pass, never wrong, and complete after at most two heal passes",
			report:  []column{{"lost", "% lost (mean)", mean}, {"missing", "symbols missing after pass 1 (mean)", mean}, {"passes", "passes (most)", most}},
		},
		{
			name: "N2", trials: 500, play: onePass(wide(percent10), linktest.Options{Burst: bursts()}), report: lost,
			promise: "Gilbert-Elliott bursts (p = 0.0005, r = 0.05), 10 % repair: complete and byte-identical in one pass",
		},
	}
}

// onePass sends one pass over a link that loses, and wants it to be enough.
func onePass(p plan, faults linktest.Options) trial {
	return func(ctx context.Context, c *certifier, seed uint64) (figures, error) {
		return play(c, seed, p, faults, func(w *world) (figures, error) {
			cargo := w.cargo(0)
			if _, err := w.send(ctx, cargo, 1); err != nil {
				return nil, err
			}
			_, err := w.stop()
			return w.losses(cargo), errors.Join(err, w.whole(cargo))
		})
	}
}

// losses are the figures of a link that loses.
func (w *world) losses(cargo linktest.Cargo) figures {
	n := w.link.Counters()
	f := figures{"lost": 100 * float64(n.Dropped) / float64(n.Written)}
	if h := w.shelf.get(cargo.Release); h != nil {
		f["recovered"] = float64(h.Progress().Recovered)
	}
	return f
}

// aboveDesign loses more than one pass can repair, and sends passes until it is enough. After each, nothing may be wrong.
func aboveDesign(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	return play(c, seed, small(percent10), linktest.Options{Drop: 0.13}, func(w *world) (figures, error) {
		cargo, first := w.cargo(0), 0
		for pass := 1; pass <= maxPasses; pass++ {
			if _, err := w.send(ctx, cargo, pass); err != nil {
				return nil, err
			}
			missing, err := w.missing(cargo)
			switch {
			case err != nil:
				return nil, fmt.Errorf("after pass %d: %w", pass, err)
			case pass == 1 && len(missing) == 0:
				return nil, errors.New("complete after pass 1: this trial proves nothing")
			case pass == 1:
				first = len(missing)
			case len(missing) == 0:
				_, err := w.stop()
				f := w.losses(cargo)
				f["missing"], f["passes"] = float64(first), float64(pass)
				return f, errors.Join(err, w.whole(cargo))
			}
		}
		return nil, fmt.Errorf("%w after %d passes", errIncomplete, maxPasses)
	})
}
