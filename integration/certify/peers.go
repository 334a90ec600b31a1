// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"sluice/internal/link"
	"sluice/internal/link/linktest"
)

const (
	// slowRate makes the payload of a trial last a second, so that a receiver can be late by a part of it.
	slowRate = 40_000_000

	// lateQueue is the socket of a receiver that does not listen yet.
	lateQueue = 200

	// fullPass is the first pass after 1 that sends the source again, with 20 rows a pass.
	fullPass = 4

	// releases is how many releases row P4 sends, in each of the 24 orders.
	releases = 4
)

func peerRows() []row {
	return []row{
		{
			name: "P1", trials: 50, play: killedSender,
			promise: "1 % loss, the sender killed at a random datagram and started again: the pass that it begins anew completes the release; what was there is not written again",
			report:  []column{{"sent", "datagrams sent before the kills", total}, {"held", "symbols of the second pass were there already", total}},
		},
		{
			name: "P2", trials: 100, play: twoSenders,
			promise: "1 % loss, two senders at once: both releases complete in one pass, neither's ledger touched by the other",
			report:  []column{{"lost", "% lost (mean)", mean}},
		},
		{
			name: "P3", trials: 50, play: lateReceiver,
			promise: "a receiver that starts at a random moment of a pass: complete with the next full pass, and what it was too late for is counted",
			report:  []column{{"dropped", "datagrams dropped before it listened", total}, {"missing", "symbols missing after the first pass", total}},
		},
		{
			name: "P4", trials: 24, play: orders,
			promise: "1 % loss, four releases in each of their 24 orders: each complete in one pass, none changes another",
			report:  []column{{"lost", "% lost (mean)", mean}},
		},
	}
}

// killedSender sends until a random datagram, and then nothing more.
func killedSender(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	return play(c, seed, small(percent10), linktest.Options{Drop: 0.01}, func(w *world) (figures, error) {
		const fewest = 3300 // datagrams of a pass of this plan
		cargo := w.cargo(0)
		killed, kill := context.WithCancel(ctx)
		defer kill()
		left := 1 + w.random.IntN(fewest)
		f := figures{"sent": float64(left)}
		conn := &gate{BatchWriter: w.link.Writer(), shut: func([]byte) bool {
			if left--; left == 0 {
				kill()
			}
			return left < 0
		}}
		if _, err := w.sendOver(killed, conn, cargo, 1); !errors.Is(err, context.Canceled) {
			return nil, fmt.Errorf("the sender was not killed: %w", err)
		}
		report, err := w.send(ctx, cargo, 1)
		if err != nil {
			return nil, err
		}
		st, err := w.stop()
		s, err2 := session(st, report.Session)
		f["held"] = float64(s.Held)
		return f, errors.Join(err, err2, w.whole(cargo), want("new symbols and held ones", s.Stored+s.Held+s.Early, s.Authentic-s.Envelope-s.Heartbeats))
	})
}

// twoSenders sends two releases at once. Their rates differ, so that virtual time has them write in one order only.
func twoSenders(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	return play(c, seed, small(percent10), linktest.Options{Drop: 0.01}, func(w *world) (figures, error) {
		var wg sync.WaitGroup
		var reports [2]link.SendReport
		var errs [2]error
		for i := range reports {
			side := *w
			side.plan.rate -= int64(i) * w.plan.rate / 10
			wait(time.Duration(i) * 333 * time.Microsecond)
			wg.Go(func() { reports[i], errs[i] = side.send(ctx, w.cargo(i), 1) })
		}
		wg.Wait()
		st, err := w.stop()
		f := w.losses(w.cargo(0))
		err = errors.Join(err, errs[0], errs[1], want("sessions", len(st.Sessions), 2), w.whole(w.cargo(0)), w.whole(w.cargo(1)))
		for _, report := range reports {
			s, e := session(st, report.Session)
			err = errors.Join(err, e, want("of the other's", s.Malformed+s.Duplicates+s.Early+s.Refused, 0))
		}
		return f, err
	})
}

// lateReceiver starts the receiver in the middle of a pass.
func lateReceiver(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	p := small(percent10)
	p.rate = slowRate
	return play(c, seed, p, linktest.Options{QueueLen: lateQueue}, func(w *world) (figures, error) {
		cargo := w.cargo(0)
		if err := errors.Join(w.end(), w.shelf.close()); err != nil {
			return nil, err
		}
		sent := make(chan error)
		go func() {
			_, err := w.send(ctx, cargo, 1)
			sent <- err
		}()
		wait(time.Duration(w.random.Int64N(int64(2 * time.Second))))
		dropped := w.link.Counters().Overflowed
		if err := errors.Join(w.start(), <-sent); err != nil {
			return nil, err
		}
		missing, err := w.missing(cargo)
		if err != nil && !errors.Is(err, errAccepted) {
			return nil, err
		}
		if _, err := w.send(ctx, cargo, fullPass); err != nil {
			return nil, err
		}
		st, err := w.stop()
		f := figures{"dropped": float64(dropped), "missing": float64(len(missing))}
		return f, errors.Join(err, w.whole(cargo), want("dropped, as counted", st.KernelDrops, w.link.Counters().Overflowed), want("dropped while it listened", w.link.Counters().Overflowed, dropped))
	})
}

// orders sends four releases in the order that the seed numbers, and looks at all of them after each.
func orders(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	p := plan{size: 1 << 20, groups: 4, rows: percent10}
	return play(c, seed, p, linktest.Options{Drop: 0.01}, func(w *world) (figures, error) {
		order := permutation(int(seed % 24))
		for i, n := range order {
			if _, err := w.send(ctx, w.cargo(n), 1); err != nil {
				return nil, err
			}
			for _, earlier := range order[:i+1] {
				if err := w.whole(w.cargo(earlier)); err != nil {
					return nil, fmt.Errorf("order %v, release %d after %d: %w", order, earlier, n, err)
				}
			}
		}
		st, err := w.stop()
		return w.losses(w.cargo(0)), errors.Join(err, want("sessions", len(st.Sessions), releases))
	})
}

// permutation returns number n of the 24 orders.
func permutation(n int) (order []int) {
	rest := []int{0, 1, 2, 3}
	for size := releases; size > 0; size-- {
		i := n % size
		n /= size
		order = append(order, rest[i])
		rest = append(rest[:i:i], rest[i+1:]...)
	}
	return order
}
