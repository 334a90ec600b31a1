// SPDX-License-Identifier: Apache-2.0

// Package linktest is a one-way link that goes wrong on purpose, with a seed.
//
//	BatchWriter ──► drop ─► corrupt ─► duplicate ─► reorder ──► queue ──► BatchReader
//	                loss, bursts, outages                       overflow = kernel drops
//
// [Pair] and [Link] run in one process and, inside testing/synctest, in virtual
// time: the same seed and the same datagrams give the same faults. [Relay] does
// the same between real sockets: the diode that loses 1 %.
package linktest

import (
	"math/rand/v2"
	"time"
)

// Burst is the Gilbert-Elliott model with a perfect good and a dead bad state.
// The mean burst is 1/R datagrams, the mean loss P/(P+R).
type Burst struct {
	P float64 // probability of going from good to bad, a datagram
	R float64 // probability of going back
}

// Outage loses a run of datagrams, counted from 0 in the order of writing.
type Outage struct {
	From, Count uint64
}

// Options say what goes wrong. Fractions are of datagrams, 0 to 1.
type Options struct {
	Seed uint64

	Drop      float64
	Burst     Burst
	Outage    []Outage
	Corrupt   float64 // one to four bytes are changed, anywhere
	Duplicate float64
	Reorder   float64 // held back by 1 to ReorderDepth later datagrams; not in a Relay

	// ReorderDepth is how far back a datagram may fall; 0: 64.
	ReorderDepth int

	// QueueLen is how many datagrams the receiving socket holds before it drops;
	// 0: it never drops, the writer waits. Not in a Relay, which has a real one.
	QueueLen int

	// Limit drops what comes faster than a rate.
	Limit Limit

	// Tap sees every datagram as it was written; it must not keep the slice. May
	// be nil.
	Tap func(datagram []byte)
}

// Limit is a bottleneck: what comes faster than Rate queues for Queue at most, and
// then is dropped. The clock is that of the caller, virtual or not.
type Limit struct {
	Rate     int64 // bits a second on the wire; 0: no limit
	Queue    time.Duration
	Overhead int  // bytes that each datagram takes besides its own
	AtSocket bool // counted as Overflowed, as by the receiver's kernel; else as Dropped
}

// defaultReorderDepth is deeper than a GRO aggregate, so that order is broken
// across batches too.
const defaultReorderDepth = 64

// Counters say what went wrong. Delivered = Written - Dropped - Overflowed +
// Duplicated, once nothing is held back.
type Counters struct {
	Written    uint64
	Dropped    uint64 // loss, bursts and outages
	Corrupted  uint64 // of those not dropped
	Duplicated uint64
	Reordered  uint64
	Overflowed uint64 // by the queue
	Delivered  uint64 // into the queue
}

// fate is what happens to one datagram.
type fate struct {
	drop, corrupt, duplicate bool
	hold                     int // later datagrams that overtake it
}

// model draws fates. It is not safe for concurrent use.
type model struct {
	options Options
	random  *rand.Rand
	backlog time.Duration // of the limit, when it was last looked at
	looked  time.Time
	bad     bool
	count   Counters
}

// newModel seeds the model.
func newModel(o Options) *model {
	if o.ReorderDepth == 0 {
		o.ReorderDepth = defaultReorderDepth
	}
	return &model{options: o, random: rand.New(rand.NewPCG(o.Seed, 0x51D10DE))}
}

// next draws the fate of the next datagram. Every datagram takes the same draws,
// so that one fault does not move the others.
func (m *model) next() fate {
	o, number := &m.options, m.count.Written
	m.count.Written++
	m.step()
	f := fate{
		drop:      m.random.Float64() < o.Drop || m.bad,
		corrupt:   m.random.Float64() < o.Corrupt,
		duplicate: m.random.Float64() < o.Duplicate,
	}
	if depth := 1 + m.random.IntN(o.ReorderDepth); m.random.Float64() < o.Reorder {
		f.hold = depth
	}
	for _, outage := range o.Outage {
		f.drop = f.drop || number >= outage.From && number-outage.From < outage.Count
	}
	m.tally(&f)
	return f
}

// step moves the Gilbert-Elliott state.
func (m *model) step() {
	draw := m.random.Float64()
	if m.bad {
		m.bad = draw >= m.options.Burst.R
	} else {
		m.bad = draw < m.options.Burst.P
	}
}

// limited reports whether a datagram finds the bottleneck's queue full, and counts
// it if so.
func (m *model) limited(size int, now time.Time) bool {
	l := m.options.Limit
	if l.Rate == 0 {
		return false
	}
	m.backlog, m.looked = max(m.backlog-now.Sub(m.looked), 0), now
	cost := time.Duration(float64((size+l.Overhead)*8) / float64(l.Rate) * float64(time.Second))
	if m.backlog+cost > l.Queue {
		m.count.Overflowed += one(l.AtSocket)
		m.count.Dropped += one(!l.AtSocket)
		return true
	}
	m.backlog += cost
	return false
}

// tally counts a fate; a dropped datagram suffers nothing else.
func (m *model) tally(f *fate) {
	if f.drop {
		*f = fate{drop: true}
		m.count.Dropped++
		return
	}
	m.count.Corrupted += one(f.corrupt)
	m.count.Duplicated += one(f.duplicate)
	m.count.Reordered += one(f.hold > 0)
}

func one(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// corrupt changes one to four bytes of b.
func (m *model) corrupt(b []byte) {
	for range 1 + m.random.IntN(4) {
		b[m.random.IntN(len(b))] ^= byte(1 + m.random.IntN(255))
	}
}
