// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"

	"sluice/internal/link"
	"sluice/internal/link/linktest"
)

const (
	// reorderDepth is the deepest reordering that was measured on a link with two queues (research: 1,472 datagrams).
	reorderDepth = 1472

	// positions is into how many pieces a release is cut to see where symbols stay lost.
	positions = 20

	// surprise is the chi-square of positions-1 = 19 degrees of freedom that chance exceeds once in a million runs.
	surprise = 63.0

	// edge is how many symbols at either end of a release are looked at more closely: one batch of a sender.
	edge = 44
)

func orderRows() []row {
	return []row{
		{
			name: "N4", trials: 200, play: reordered,
			promise: "5 % of datagrams overtaken by up to 1,472 others: complete in one pass, nothing missing but what overtook its announcement, nothing taken for a repetition",
			report:  []column{{"reordered", "datagrams overtaken", total}, {"early", "came before the announcement of their session", total}},
		},
		{
			name: "N5", trials: 200, play: duplicated,
			promise: "3 % of datagrams doubled, then the whole pass again: each symbol is written once",
			report:  []column{{"duplicates", "datagrams doubled", total}, {"held", "symbols of the second pass, not written", total}},
		},
		{
			name: "N6", trials: 200, play: corrupted,
			promise: "1 % of datagrams altered behind a right UDP checksum: none accepted, each rejected and counted, complete in one pass",
			report:  []column{{"altered", "datagrams altered", total}, {"rejected", "of them rejected", total}, {"accepted", "accepted", total}},
		},
		{
			name: "N9", trials: 200, play: unrepaired, judge: judgePositions,
			promise: "12 % loss, 10 % repair: no position of a release stays lost more often than another",
			report: []column{
				{"missing", "symbols stay lost", total},
				{"first", "of them among the first 44 of each release", total},
				{"last", "among the last 44", total},
				{"middle", "among 44 in the middle", total},
			},
		},
	}
}

func reordered(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	faults := linktest.Options{Reorder: 0.05, ReorderDepth: reorderDepth}
	return play(c, seed, small(percent10), faults, func(w *world) (figures, error) {
		cargo := w.cargo(0)
		report, err := w.send(ctx, cargo, 1)
		if err != nil {
			return nil, err
		}
		st, err := w.stop()
		if err != nil {
			return nil, err
		}
		s, err := session(st, report.Session)
		early := w.spy.Early() // a heartbeat that overtakes the announcement of its session cannot be opened
		f := figures{"reordered": float64(w.link.Counters().Reordered), "early": float64(early)}
		return f, errors.Join(err, w.whole(cargo),
			want("missing", s.Missing, early), want("duplicates", s.Duplicates, 0), want("rejected", rejected(st), early), want("sent", s.Sent, report.Sealed))
	})
}

// duplicated doubles datagrams, which the window of a session must see, and then sends everything again in a session of its own,
// which the spool must see.
func duplicated(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	return play(c, seed, small(percent10), linktest.Options{Duplicate: 0.03}, func(w *world) (figures, error) {
		cargo := w.cargo(0)
		one, err := w.send(ctx, cargo, 1)
		if err != nil {
			return nil, err
		}
		again, err := w.send(ctx, cargo, 1)
		if err != nil {
			return nil, err
		}
		st, err := w.stop()
		if err != nil {
			return nil, err
		}
		a, err1 := session(st, one.Session)
		b, err2 := session(st, again.Session)
		f := figures{"duplicates": float64(a.Duplicates + b.Duplicates), "held": float64(b.Held)}
		return f, errors.Join(err1, err2, w.whole(cargo), want("symbols written", a.Stored, one.Source),
			want("symbols written again", b.Stored, 0), want("symbols held", b.Held, again.Source+again.Repair))
	})
}

func corrupted(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	return play(c, seed, small(percent10), linktest.Options{Corrupt: 0.01}, func(w *world) (figures, error) {
		cargo := w.cargo(0)
		report, err := w.send(ctx, cargo, 1)
		if err != nil {
			return nil, err
		}
		st, err := w.stop() // the spy knows each datagram that was altered, and wants so many rejected
		s, err2 := session(st, report.Session)
		altered, refused := w.spy.Altered(), rejected(st)-w.spy.Early() // where the first announcement was altered, what follows it is early
		f := figures{"altered": float64(altered), "rejected": float64(refused), "accepted": float64(altered) - float64(refused)}
		return f, errors.Join(err, err2, w.whole(cargo), want("rejected, of the altered", refused, altered), want("malformed", s.Malformed, 0))
	})
}

// rejected is how many datagrams a receiver rejected, for any reason.
func rejected(st link.Status) (total uint64) {
	for _, n := range st.Rejected {
		total += n
	}
	return total
}

// unrepaired loses more than a pass can repair and notes where symbols stay lost.
func unrepaired(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	p := plan{size: 2 << 20, groups: 8, rows: percent10}
	return play(c, seed, p, linktest.Options{Drop: 0.12}, func(w *world) (figures, error) {
		cargo := w.cargo(0)
		if _, err := w.send(ctx, cargo, 1); err != nil {
			return nil, err
		}
		if _, err := w.stop(); err != nil {
			return nil, err
		}
		missing, err := w.missing(cargo)
		return places(missing, w.shelf.get(cargo.Release).geometry.Symbols()), err
	})
}

// places counts symbols by where they are: in each piece of the release, at its ends, and in its middle.
func places(symbols []int64, n int64) figures {
	f := figures{"missing": float64(len(symbols)), "first": 0, "last": 0, "middle": 0}
	for i := range positions {
		f[piece(i)] = 0
	}
	for _, s := range symbols {
		f[piece(int(s*positions/n))]++
		switch {
		case s < edge:
			f["first"]++
		case s >= n-edge:
			f["last"]++
		case s >= n/2 && s < n/2+edge:
			f["middle"]++
		}
	}
	return f
}

func piece(i int) string { return fmt.Sprintf("piece %d", i) }

// judgePositions asks whether chance alone would spread the symbols so unevenly.
func judgePositions(all []figures) error {
	sums := make(map[string]float64)
	for _, f := range all {
		for name, v := range f {
			sums[name] += v
		}
	}
	expected := sums["missing"] / positions
	if expected < 1 {
		return errors.New("nothing stayed lost: these trials prove nothing")
	}
	chi := 0.0
	for i := range positions {
		d := sums[piece(i)] - expected
		chi += d * d / expected
	}
	if chi > surprise {
		return fmt.Errorf("chi-square over %d positions is %.1f, which chance exceeds less than once in a million runs", positions, chi)
	}
	// The same at the ends, where a piece of 5 % would hide a batch: at most five standard deviations from the middle.
	for _, end := range []string{"first", "last"} {
		if d := sums[end] - sums["middle"]; d*d > 25*(sums[end]+sums["middle"]) {
			return fmt.Errorf("%.0f stay lost among the %s %d symbols, %.0f in the middle", sums[end], end, edge, sums["middle"])
		}
	}
	return nil
}
