// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/internal/link"
	"sluice/internal/link/linktest"
	"sluice/internal/packer"
	"sluice/pkg/fec"
)

const (
	// othersAmong bounds how many datagrams that are no payload symbols an outage at the bound may take besides: one envelope symbol in
	// 256, an announcement every 250 ms, a heartbeat a second. So many more datagrams than the bound must not be survived.
	othersAmong = 16

	// outageBar is the bar for the shortest outage that must be survived in one pass, wherever it falls (design: bars).
	outageBar = 20 * time.Millisecond

	// defaultSpan is one full span of the default geometry: 992 groups of 192 symbols.
	defaultGroups = 992
	defaultSpan   = defaultGroups * fec.K * 1408
)

func outageRows() []row {
	found := []column{
		{"bound", "= m x D, the bound", most},
		{"start", "datagrams survived at the start of the payload (least)", least},
		{"start fails", "fail there", most},
		{"middle", "survived in the middle (least)", least},
		{"middle fails", "fail there", most},
		{"end", "survived at the end (least)", least},
		{"end fails", "fail there", most},
		{"lead-in ms", "ms survived from the first datagram of the session on (least)", least},
	}
	return []row{
		{
			name: "N2b", trials: 10, play: longestOutage, report: found,
			promise: "the longest contiguous outage survived in one pass, searched for at three places: at least m x D symbols (10 % repair, 8 groups)",
		},
		{
			name: "N2c", trials: 1, play: defaultOutage, heavy: true,
			report: []column{
				{"survived", "datagrams survived at start, middle and end", least}, {"ms", "ms at 1 Gbit/s that is", least}, {"fails", "datagrams fail there", most},
			},
			promise: "the same with the default geometry (992 groups, a span of 256 MiB): 19,840 symbols survived, and not many more",
		},
		{
			name: "N3", trials: 100, play: blackout,
			promise: "one blackout inside a transfer costs at most one more pass, and the ledger names it to the datagram: up to 2 m x D symbols a heal pass, beyond it a full one",
			report:  []column{{"blackout", "datagrams lost (most)", most}, {"symbols", "source symbols named missing", total}, {"full", "trials needed a full pass", total}},
		},
	}
}

// tape is the order of one pass on the wire.
type tape struct {
	written         uint64 // so far
	first, last     uint64 // payload symbols
	sealed, symbols uint64 // of the datagrams in the outage: sealed, source symbols
	source          uint32 // ESIs below it are source symbols
}

// tap notes a datagram; it is in the outage if that says so.
func (p *tape) tap(o linktest.Outage) func(d []byte) {
	return func(d []byte) {
		number := p.written
		p.written++
		h, err := link.ParseHeader(d)
		if err != nil {
			return
		}
		if h.Type == link.TypePayload {
			if p.first == 0 {
				p.first = number
			}
			p.last = number
		}
		if number < o.From || number-o.From >= o.Count {
			return
		}
		if h.Type != link.TypeAnnouncement {
			p.sealed++
		}
		if h.Type == link.TypePayload && h.ESI < p.source {
			p.symbols++
		}
	}
}

// survives sends one pass through an outage and reports whether it was enough.
func survives(ctx context.Context, c *certifier, seed uint64, p plan, o linktest.Outage) (bool, error) {
	enough := false
	_, err := play(c, seed, p, linktest.Options{Outage: []linktest.Outage{o}}, func(w *world) (figures, error) {
		cargo := w.cargo(0)
		if _, err := w.send(ctx, cargo, 1); err != nil {
			return nil, err
		}
		if _, err := w.stop(); err != nil {
			return nil, err
		}
		missing, err := w.missing(cargo)
		enough = len(missing) == 0
		return nil, err
	})
	return enough, err
}

// record sends one pass over a clean link and returns its order.
func record(ctx context.Context, c *certifier, seed uint64, p plan) (*tape, error) {
	var order tape
	_, err := play(c, seed, p, linktest.Options{Tap: order.tap(linktest.Outage{})}, func(w *world) (figures, error) {
		_, err := w.send(ctx, w.cargo(0), 1)
		return nil, err
	})
	return &order, err
}

// place says which datagrams an outage of a length takes.
type place func(length uint64) linktest.Outage

// at are the three places: from the first payload symbol on, around the middle, up to the last.
func (p *tape) at() map[string]place {
	return map[string]place{
		"start":  func(n uint64) linktest.Outage { return linktest.Outage{From: p.first, Count: n} },
		"middle": func(n uint64) linktest.Outage { return linktest.Outage{From: (p.first+p.last)/2 - n/2, Count: n} },
		"end":    func(n uint64) linktest.Outage { return linktest.Outage{From: p.last + 1 - n, Count: n} },
	}
}

// longestOutage searches, at each place, the longest outage that is survived; the next datagram is one too many.
func longestOutage(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	p := plan{size: 2 << 20, groups: 8, rows: percent10}
	order, err := record(ctx, c, seed, p)
	if err != nil {
		return nil, err
	}
	bound := uint64(p.outage())
	f := figures{"bound": float64(bound)}
	for name, where := range order.at() {
		longest, err := search(bound/2, 2*bound, func(n uint64) (bool, error) { return survives(ctx, c, seed, p, where(n)) })
		if err != nil {
			return f, fmt.Errorf("%s: %w", name, err)
		}
		f[name], f[name+" fails"] = float64(longest), float64(longest+1)
		if longest < bound || longest > bound+othersAmong {
			return f, fmt.Errorf("%s: %d datagrams are survived, the bound is %d", name, longest, bound)
		}
	}
	leadIn, err := search(0, 1000, func(ms uint64) (bool, error) { return startLost(ctx, c, seed, p, time.Duration(ms)*time.Millisecond) })
	f["lead-in ms"] = float64(leadIn)
	if err == nil && time.Duration(leadIn)*time.Millisecond < outageBar {
		err = fmt.Errorf("an outage of %d ms from the first datagram on is survived, the bar is %s", leadIn, outageBar)
	}
	return f, err
}

// search finds the largest n in low..high-1 for which f holds and for which it does not at n+1. f must hold at low and not at high.
func search(low, high uint64, f func(n uint64) (bool, error)) (uint64, error) {
	for _, end := range []struct {
		n    uint64
		want bool
	}{{low, true}, {high, false}} {
		got, err := f(end.n)
		if err == nil && got != end.want {
			err = fmt.Errorf("%d: survived is %v", end.n, got)
		}
		if err != nil {
			return 0, err
		}
	}
	for high-low > 1 {
		middle := (low + high) / 2
		ok, err := f(middle)
		if err != nil {
			return 0, err
		}
		if ok {
			low = middle
		} else {
			high = middle
		}
	}
	return low, nil
}

// onWire is how long datagrams take at the certified rate, in ms.
func onWire(datagrams uint64) float64 {
	bits := float64(datagrams) * float64(link.Profile1500.DatagramSize()+wireOverhead) * 8
	return bits / certifiedRate * 1000
}

// startLost loses everything in the first moments of a session, the pauses between its announcements included.
func startLost(ctx context.Context, c *certifier, seed uint64, p plan, d time.Duration) (enough bool, err error) {
	_, err = play(c, seed, p, linktest.Options{}, func(w *world) (figures, error) {
		cargo := w.cargo(0)
		until := time.Now().Add(d)
		conn := &gate{BatchWriter: w.link.Writer(), shut: func([]byte) bool { return time.Now().Before(until) }}
		if _, err := w.sendOver(ctx, conn, cargo, 1); err != nil {
			return nil, err
		}
		if w.shelf.get(cargo.Release) == nil {
			return nil, nil //nolint:nilnil // nothing is measured
		}
		missing, err := w.missing(cargo)
		enough = len(missing) == 0
		return nil, err
	})
	return enough, err
}

// gate is a writer that swallows the datagrams that it is shut for.
type gate struct {
	link.BatchWriter
	shut func(d []byte) bool
}

// WriteBatch implements link.BatchWriter.
func (g *gate) WriteBatch(b []byte, segment int) error {
	for ; len(b) > 0; b = b[segment:] {
		if g.shut(b[:segment]) {
			continue
		}
		if err := g.BatchWriter.WriteBatch(b[:segment], segment); err != nil {
			return err
		}
	}
	return nil
}

// defaultOutage tries the bound, and a little more than it, in a span of the default geometry.
func defaultOutage(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	p := plan{size: defaultSpan, groups: defaultGroups, rows: percent10}
	bound := uint64(p.outage())
	beyond := bound + bound/256 + othersAmong
	order, err := record(ctx, c, seed, p)
	if err != nil {
		return nil, err
	}
	f := figures{"survived": float64(bound), "ms": onWire(bound), "fails": float64(beyond)}
	for name, where := range order.at() {
		for _, n := range []uint64{bound, beyond} {
			enough, err := survives(ctx, c, seed, p, where(n))
			if err == nil && enough != (n == bound) {
				err = fmt.Errorf("%d datagrams: survived is %v", n, enough)
			}
			if err != nil {
				return f, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return f, nil
}

// blackout loses more than a pass can repair, at a place of the seed's choice. Every second trial stays below what a heal pass brings;
// the others take up to half of the release, which needs its source again.
func blackout(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	p := middling(percent10)
	order, err := record(ctx, c, seed, p)
	if err != nil {
		return nil, err
	}
	o, full := p.blackout(order, seed)
	hit := tape{source: uint32(fec.K * p.groups)}
	f := figures{"blackout": float64(o.Count)}
	return play(c, seed, p, linktest.Options{Outage: []linktest.Outage{o}, Tap: hit.tap(o)}, func(w *world) (figures, error) {
		cargo := w.cargo(0)
		first, err := w.send(ctx, cargo, 1)
		if err != nil {
			return nil, err
		}
		lost, symbols := hit.sealed, hit.symbols
		if err := w.named(cargo, symbols); err != nil {
			return nil, err
		}
		second := 2
		if full {
			second = 1 + fec.MaxRows/p.rows // the pass after the last with fresh rows begins anew
			f["full"] = 1
		}
		if source := packer.Passes(nil).Plan(second, p.rows, 1).Source; source != full {
			return nil, fmt.Errorf("pass %d sends source: %v", second, source)
		}
		if _, err := w.send(ctx, cargo, second); err != nil {
			return nil, err
		}
		st, err := w.stop()
		s, err2 := session(st, first.Session)
		f["symbols"] = float64(symbols)
		return f, errors.Join(err, err2, w.whole(cargo), want("missing, of the blackout", s.Missing, lost))
	})
}

// blackout draws an outage within the payload of a pass.
func (p plan) blackout(order *tape, seed uint64) (o linktest.Outage, full bool) {
	random := newRandom(seed)
	bound := uint64(p.outage())
	low, high := bound+bound/4, 2*bound-bound/4
	if full = seed%2 == 1; full {
		low, high = 2*bound+bound/4, (order.last-order.first)/2
	}
	o.Count = low + random.Uint64N(high-low)
	o.From = order.first + random.Uint64N(order.last-order.first-o.Count)
	return o, full
}

// named wants the spool to name exactly the symbols that a blackout took.
func (w *world) named(cargo linktest.Cargo, symbols uint64) error {
	missing, err := w.missing(cargo)
	if err != nil {
		return err
	}
	named := 0
	for _, d := range w.shelf.get(cargo.Release).Missing() {
		named += d.Lost
	}
	return errors.Join(want("symbols missing after pass 1", uint64(len(missing)), symbols), want("symbols named missing", uint64(named), symbols))
}
