// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// wheelSize is divided by every number of lanes up to MaxLanes, so that lanes
	// of one rate have equal shares to the symbol.
	wheelSize = 65_520

	// wheelStep is wheelSize over the golden ratio, and has no divisor with it: any
	// run of turns falls evenly over the wheel, the shortest as well as it can.
	wheelStep = 40_493

	// parcels is how many hand-overs may wait for a lane, each as long as a batch:
	// 16 ms at least, more than a scheduler makes of a busy machine. 1 MiB a lane.
	parcels = 16

	// stallAfter is how long the others wait for a lane that takes nothing. Then it
	// is passed over until it takes something again.
	stallAfter = time.Second

	// holdAfter is for how long this host may refuse everything over a lane before
	// it is dealt nothing more: what is lost in 20 ms of 10 Gbit/s, the repair rows
	// of one pass make good.
	holdAfter = 20 * time.Millisecond
)

// ErrLanes says that every lane of a pass was given up.
var ErrLanes = errors.New("link: no lane is left")

// wheel shares turns out to lanes in proportion to their rates. Turns are row +
// group, so that a lane has its share of the symbols of each group, and of any
// stretch of time: a dead lane costs every group the same.
type wheel struct {
	ends   []int // of the lanes' shares; the last is wheelSize
	offset int
}

// newWheel shares by rate; round says how often the source was dealt before. From
// round to round every share moves on by the smallest of them, so that no lane
// carries for ever what it carried once: of lanes of one rate, none carries
// anything twice before another did.
func newWheel(lanes []Lane, round int) wheel {
	var total float64
	fastest, highest := 0, int64(0)
	for i, l := range lanes {
		total += float64(max(l.Rate, 1))
		if l.Rate > highest {
			fastest, highest = i, l.Rate
		}
	}
	shares, left := make([]int, len(lanes)), wheelSize
	for i, l := range lanes {
		shares[i] = max(1, int(float64(max(l.Rate, 1))/total*wheelSize+1e-6))
		left -= shares[i]
	}
	shares[fastest] += left
	w := wheel{ends: make([]int, len(lanes))}
	end, least := 0, wheelSize
	for i, share := range shares {
		end += share
		w.ends[i], least = end, min(least, share)
	}
	w.offset = round % wheelSize * least % wheelSize
	return w
}

// lane returns whose turn it is, and how far into that lane's share the turn
// falls, from 0 to below 1.
func (w *wheel) lane(turn int) (lane int, depth float64) {
	at, start := (turn*wheelStep+w.offset)%wheelSize, 0
	for w.ends[lane] <= at {
		start = w.ends[lane]
		lane++
	}
	return lane, float64(at-start) / float64(w.ends[lane]-start)
}

// parcel is what is handed to a lane at once.
type parcel struct {
	places []place
	data   []byte // their symbols, one behind the other
}

// hand is what waits for one lane.
type hand struct {
	lane  *lane
	size  int // symbols of a full parcel
	free  chan *parcel
	full  chan *parcel
	open  *parcel       // being filled by the dealer; nil: none
	ready chan struct{} // closed when the lead-in is over
	gone  chan struct{} // closed when the lane has ended
	err   error         // why; read it after gone
	slow  bool          // it took nothing for stallAfter; the dealer's
	held  atomic.Bool   // nothing leaves this host over it: it is tried by its announcements
}

// dealer deals the payload of a pass out to its lanes. Its methods belong to the
// goroutine of Send, but for serve and what it calls, which belong to the lane's.
type dealer struct {
	pass  *pass
	wheel wheel
	hands []*hand
	dealt chan struct{} // closed when nothing more is dealt
}

// newDealer prepares the hands of a pass.
func newDealer(p *pass, round int) *dealer {
	d := &dealer{pass: p, wheel: newWheel(p.sender.config.Lanes, round), dealt: make(chan struct{})}
	symbolSize := p.sender.config.Profile.SymbolSize()
	for _, l := range p.lanes {
		h := &hand{
			lane: l, size: l.batch.limit / l.batch.segment, free: make(chan *parcel, parcels), full: make(chan *parcel, parcels),
			ready: make(chan struct{}), gone: make(chan struct{}),
		}
		for range parcels {
			h.free <- &parcel{places: make([]place, 0, h.size), data: make([]byte, 0, h.size*symbolSize)}
		}
		d.hands = append(d.hands, h)
	}
	return d
}

// run starts the lanes, deals what payload puts, and waits until all have ended. A
// lane that fails is given up; the error is that of the payload, or ErrLanes.
func (d *dealer) run(ctx context.Context, payload func(context.Context) error) error {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	var lanes sync.WaitGroup
	for _, h := range d.hands {
		lanes.Go(func() { d.drive(inner, h) })
	}
	err := d.deal(inner, payload)
	if err != nil {
		cancel()
	}
	close(d.dealt)
	for _, h := range d.hands {
		close(h.full)
	}
	lanes.Wait()
	if err == nil {
		err = d.verdict()
	}
	return err
}

// drive runs one lane to its end.
func (d *dealer) drive(ctx context.Context, h *hand) {
	defer close(h.gone)
	h.err = h.lane.send(ctx, func(ctx context.Context) error { return d.serve(ctx, h) })
	d.pass.show(h.lane, h.err)
	if h.err != nil && ctx.Err() == nil {
		d.pass.sender.log.Warn("lane given up in this pass", zap.String("lane", h.lane.Name), zap.Error(h.err))
	}
}

// deal deals everything, once the lead-ins are over.
func (d *dealer) deal(ctx context.Context, payload func(context.Context) error) error {
	for _, h := range d.hands {
		select {
		case <-h.ready:
		case <-h.gone:
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := payload(ctx); err != nil {
		return err
	}
	for _, h := range d.hands {
		h.handOver()
	}
	return nil
}

// verdict is an error unless a lane lives.
func (d *dealer) verdict() error {
	errs := []error{ErrLanes}
	for i, h := range d.hands {
		if h.err == nil {
			return nil
		}
		errs = append(errs, fmt.Errorf("lane %d, %s: %w", i+1, h.lane.Name, h.err))
	}
	return errors.Join(errs...)
}

// put deals one symbol.
func (d *dealer) put(ctx context.Context, s place, body []byte) error {
	h, err := d.turn(ctx, s.turn)
	if err != nil {
		return err
	}
	h.open.places = append(h.open.places, s)
	h.open.data = append(h.open.data, body...)
	if len(h.open.places) == h.size {
		h.handOver()
	}
	return nil
}

// turn returns the hand whose turn it is, with an open parcel: that of the wheel,
// or one that stands in for it.
func (d *dealer) turn(ctx context.Context, turn int) (*hand, error) {
	lane, depth := d.wheel.lane(turn)
	for h := d.hands[lane]; ; h = d.standIn(depth) {
		if h != nil && h.take(ctx) {
			return h, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if h == nil { // nobody takes anything
			if err := d.wait(ctx); err != nil {
				return nil, err
			}
		}
	}
}

// wait lets some time pass in which a lane may come back, or be given up; then each
// is waited for again. The error is the verdict once none is left.
func (d *dealer) wait(ctx context.Context) error {
	left := false
	for _, h := range d.hands {
		h.slow = false
		left = left || !h.ended()
	}
	if !left {
		return d.verdict()
	}
	return sleep(ctx, announceEvery/2)
}

// standIn spreads the share of a lane over those that are neither gone nor slow, in
// proportion to their rates; nil: there is none.
func (d *dealer) standIn(depth float64) *hand {
	var total float64
	for _, h := range d.hands {
		total += h.weight()
	}
	var found *hand
	at := depth * total
	for _, h := range d.hands {
		w := h.weight()
		if w == 0 {
			continue
		}
		found = h
		if at -= w; at < 0 {
			break
		}
	}
	return found
}

// weight is the rate of a lane that takes something, and 0 of any other.
func (h *hand) weight() float64 {
	if h.slow || h.held.Load() || h.ended() {
		return 0
	}
	return float64(max(h.lane.Rate, 1))
}

// ended reports whether the lane was given up.
func (h *hand) ended() bool {
	select {
	case <-h.gone:
		return true
	default:
		return false
	}
}

// take opens a parcel if none is open. It is false when the lane is gone or held, or
// takes nothing for a while; the next time it is not waited for.
func (h *hand) take(ctx context.Context) bool {
	if h.open != nil {
		return true
	}
	if h.held.Load() || h.ended() {
		return false
	}
	select {
	case h.open = <-h.free:
		h.slow = false
		return true
	default:
	}
	if h.slow {
		return false
	}
	patient := time.NewTimer(stallAfter)
	defer patient.Stop()
	select {
	case h.open = <-h.free:
		return true
	case <-patient.C:
		h.slow = true
	case <-h.gone:
	case <-ctx.Done():
	}
	return false
}

// handOver gives the open parcel to the lane. It never waits: there are no more
// parcels than the channel holds.
func (h *hand) handOver() {
	if h.open != nil {
		h.full <- h.open
		h.open = nil
	}
}

// serve sends what is handed to a lane until there is no more. Between, it keeps the
// cadence.
func (d *dealer) serve(ctx context.Context, h *hand) error {
	err := d.hold(ctx, h, func() { close(h.ready) })
	for err == nil {
		var q *parcel
		if q, err = h.next(ctx); q == nil {
			break
		}
		if err = h.carry(ctx, q); err == nil {
			err = d.hold(ctx, h, func() {})
		}
	}
	return err
}

// carry sends a parcel, and gives it back.
func (h *hand) carry(ctx context.Context, q *parcel) error {
	size := cap(q.data) / cap(q.places)
	for i, s := range q.places {
		if err := h.lane.payloadSymbol(ctx, s, q.data[i*size:(i+1)*size]); err != nil {
			return err
		}
	}
	q.places, q.data = q.places[:0], q.data[:0]
	h.free <- q
	return nil
}

// hold holds a lane back over which this host refuses everything, and goes on trying
// it with its announcements, as long as others carry its share. It calls decided
// once it is known whether the lane is held. The error says that it is given up.
func (d *dealer) hold(ctx context.Context, h *hand, decided func()) error {
	b := h.lane.batch
	held := !b.failingAt.IsZero() && time.Since(b.failingAt) >= holdAfter
	h.held.Store(held)
	decided()
	if !held {
		return nil
	}
	d.pass.sender.log.Warn("lane held back: this host's kernel refuses everything", zap.String("lane", h.lane.Name))
	for !b.failingAt.IsZero() {
		err := h.lane.linger(ctx, announceEvery)
		switch {
		case err != nil && (!errors.Is(err, errPatience) || !d.others(h)):
			return err
		case d.over() && !b.failingAt.IsZero():
			return fmt.Errorf("nothing left this host over it for %v, to the end of the pass: %w", time.Since(b.failingAt).Round(time.Millisecond), errPatience)
		}
	}
	h.held.Store(false)
	d.pass.sender.log.Info("lane carries again", zap.String("lane", h.lane.Name))
	return nil
}

// over reports whether nothing more is dealt.
func (d *dealer) over() bool {
	select {
	case <-d.dealt:
		return true
	default:
		return false
	}
}

// others reports whether another lane carries something.
func (d *dealer) others(h *hand) bool {
	return slices.ContainsFunc(d.hands, func(other *hand) bool { return other != h && !other.held.Load() && !other.ended() })
}

// next waits for a parcel; nil after the last, or with an error.
func (h *hand) next(ctx context.Context) (*parcel, error) {
	for {
		select {
		case q := <-h.full:
			return q, nil
		default:
		}
		due := time.NewTimer(time.Until(h.lane.nextAnnounce))
		select {
		case q := <-h.full:
			due.Stop()
			return q, nil
		case <-ctx.Done():
			due.Stop()
			return nil, ctx.Err()
		case <-due.C:
		}
		if err := h.lane.linger(ctx, 0); err != nil {
			return nil, err
		}
	}
}
