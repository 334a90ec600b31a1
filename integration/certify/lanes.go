// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"sluice/internal/link"
	"sluice/internal/link/linktest"
)

// halfLost is how far from one half the share may be that one of two lanes takes with it, of any group, in percent: two symbols of 192, and
// four that were lost besides.
const halfLost = 4

func laneRows() []row {
	return []row{{
		name: "L1", trials: 200, play: deadLane,
		promise: "two lanes, one of them dead without the sender's knowledge, 1 % loss on the other: after the first pass half of each group is missing, after the second (full, the lanes' shares exchanged) nothing",
		report:  []column{{"missing", "% of the source missing after pass 1 (mean)", mean}, {"least", "% of a group missing (least)", least}, {"most", "% of a group missing (most)", most}},
	}}
}

// deadLane sends two passes over two lanes, of which one brings nothing.
func deadLane(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	p := small(percent10)
	p.lanes = 2
	return play(c, seed, p, linktest.Options{Drop: 0.01}, func(w *world) (figures, error) {
		cargo, conns := w.cargo(0), make([]link.BatchWriter, 0, p.lanes)
		for _, lane := range w.lanes {
			conns = append(conns, lane.Writer())
		}
		dead := int(seed % 2)
		conns[dead] = &gate{BatchWriter: conns[dead], shut: func([]byte) bool { return true }}
		if _, err := w.sendLanes(ctx, cargo, 1, conns...); err != nil {
			return nil, err
		}
		f, err := w.shares(cargo)
		if err != nil {
			return f, err
		}
		if _, err := w.sendLanes(ctx, cargo, 2, conns...); err != nil {
			return f, err
		}
		st, err := w.stop()
		err = errors.Join(err, w.whole(cargo), want("sessions heard", len(st.Sessions), 2), want("authentic over the dead lane", st.Lanes[dead].Authentic, 0))
		return f, err
	})
}

// shares says how much of the source is missing, of all and of each group.
func (w *world) shares(cargo linktest.Cargo) (figures, error) {
	missing, err := w.missing(cargo)
	if err != nil {
		return nil, err
	}
	h := w.shelf.get(cargo.Release)
	groups := map[[2]int]int{}
	for _, i := range missing {
		sbn := int(i) / h.geometry.Span(0).N
		groups[[2]int{sbn, int(i) % h.geometry.Span(0).N % h.geometry.Span(sbn).D}]++
	}
	f := figures{"missing": 100 * float64(len(missing)) / float64(h.geometry.Symbols()), "least": 100}
	for sbn := range h.geometry.Spans() {
		span := h.geometry.Span(sbn)
		for group := range span.D {
			share := 100 * float64(groups[[2]int{sbn, group}]) / float64(span.K)
			f["least"], f["most"] = min(f["least"], share), max(f["most"], share)
		}
	}
	if f["least"] < 50-halfLost || f["most"] > 50+halfLost {
		err = fmt.Errorf("of a group %.1f %% to %.1f %% are missing, half of each is wanted", f["least"], f["most"])
	}
	return f, err
}
