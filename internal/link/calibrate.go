// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"fmt"
	"math"
	"time"
)

const (
	// rampFactor is how much faster each step of a calibration is than the one
	// before: nine tenths of a step is above the one before it.
	rampFactor = 1.25

	// MaxSteps is the most steps of a calibration (section 3): from 1 Mbit/s to
	// 400 Gbit/s they are 59.
	MaxSteps = 64

	// minStep and maxStep bound a step: shorter ones measure the timer, longer
	// ones would come near the limit of a session's counters.
	minStep = 200 * time.Millisecond
	maxStep = time.Minute

	// stepRest is the pause after a step: the receiver empties its socket, half a
	// second of 1 Gbit/s, so that no step pays for the one before.
	stepRest = 500 * time.Millisecond

	// reachedShare is how much of a step's rate the sender must reach to go on: a
	// faster step would only show the sender's own limit again.
	reachedShare = 0.9
)

// Calibration is a ramp of rates, in bits a second on the wire.
type Calibration struct {
	From, Until int64
	Step        time.Duration // how long each rate is held
}

// SentStep is one step as the sender sees it.
type SentStep struct {
	Number  int
	Rate    int64 // to be held
	Sent    uint64
	Failed  uint64 // of them not taken by this host's kernel
	Elapsed time.Duration
	Reached float64 // bits a second on the wire
	Short   bool    // the sender is not able to send at that rate; it is the last step
}

// Rates returns the rates of the steps: each a quarter faster than the one
// before, the last is Until.
func (c Calibration) Rates() ([]int64, error) {
	switch {
	case c.From < 1 || c.Until < c.From:
		return nil, fmt.Errorf("%w: calibration from %d to %d bits a second: the first must be above 0, and the last not below it", ErrConfig, c.From, c.Until)
	case c.Step < minStep || c.Step > maxStep:
		return nil, fmt.Errorf("%w: steps of %v: %v to %v are possible", ErrConfig, c.Step, minStep, maxStep)
	}
	var rates []int64
	for rate := float64(c.From); rate < float64(c.Until); rate *= rampFactor {
		rates = append(rates, int64(math.Round(rate)))
	}
	if rates = append(rates, c.Until); len(rates) > MaxSteps {
		return nil, fmt.Errorf("%w: %d steps from %d to %d bits a second, at most %d: begin faster", ErrConfig, len(rates), c.From, c.Until, MaxSteps)
	}
	return rates, nil
}

// Calibrate announces an idle session and fills the link with its heartbeats, at
// one rate after another (section 3), so that the receiver can tell at which rate
// it begins to drop. No release is sent. report is told of each step when it is
// over. It is ErrBusy while another Send or Idle of this Sender runs.
func (s *Sender) Calibrate(ctx context.Context, c Calibration, report func(SentStep)) error {
	rates, err := c.Rates()
	if err != nil {
		return err
	}
	if n := len(s.config.Lanes); n > 1 {
		return fmt.Errorf("%w: a calibration of %d lanes: calibrate one after the other", ErrConfig, n)
	}
	if !s.busy.TryLock() {
		return ErrBusy
	}
	defer s.busy.Unlock()
	p := s.blankPass(Announcement{Profile: s.config.Profile, Groups: s.config.Groups, Pass: 1, Start: time.Now()})
	l := p.lanes[0]
	l.state = StateLeadIn
	l.hold(rates[0])
	if err := p.begin(); err != nil {
		return err
	}
	if err := l.sayState(ctx); err != nil {
		return err
	}
	return l.ramp(ctx, c, rates, report)
}

// ramp holds each rate in turn, and says that it is over.
func (l *lane) ramp(ctx context.Context, c Calibration, rates []int64, report func(SentStep)) error {
	for i, rate := range rates {
		l.number = i + 1
		step, err := l.step(ctx, rate, c.Step)
		if err != nil {
			return err
		}
		report(step)
		if step.Short {
			break
		}
	}
	l.state = StateEndOfSession
	if err := l.sayState(ctx); err != nil {
		return err
	}
	return l.batch.flush(ctx)
}

// hold sets the rate. A new batch is sized to it.
func (l *lane) hold(rate int64) {
	failed, bytes := l.batch.failed, l.batch.bytes
	l.rate, l.batch = rate, newBatcher(l.Conn, l.pass.sender.config.Profile.DatagramSize(), rate)
	l.batch.failed, l.batch.bytes = failed, bytes
}

// step fills the link at a rate, then says several times how much that was, and
// rests.
func (l *lane) step(ctx context.Context, rate int64, d time.Duration) (SentStep, error) {
	l.hold(rate)
	l.state, l.before = StateSending, l.inPass // source counts the step's datagrams
	failed, began := l.batch.failed, time.Now()
	if err := l.fill(ctx, began.Add(d)); err != nil {
		return SentStep{}, err
	}
	elapsed := time.Since(began)
	sent := l.inPass.source - l.before.source
	s := SentStep{Number: l.number, Rate: rate, Sent: sent, Failed: l.batch.failed - failed, Elapsed: elapsed}
	s.Reached = float64(sent) * float64(l.announcement.Profile.WireBits()) / elapsed.Seconds()
	s.Short = s.Reached < reachedShare*float64(rate)
	l.state = StateEndOfPass
	if err := l.sayState(ctx); err != nil {
		return s, err
	}
	return s, l.linger(ctx, stepRest)
}

// fill sends heartbeats on end.
func (l *lane) fill(ctx context.Context, end time.Time) error {
	for now := time.Now(); now.Before(end); now = time.Now() {
		if l.counter >= l.pass.sender.sessionLimit {
			return fmt.Errorf("%w: the calibration takes more datagrams than a session may have: make its steps shorter", ErrConfig)
		}
		l.beat(now)
		l.inPass.source++
		l.nextHeartbeat = now.Add(heartbeatEvery)
		if err := l.batch.push(ctx); err != nil {
			return err
		}
		if len(l.batch.buf) > 0 {
			continue
		}
		if err := l.cadence(ctx); err != nil {
			return err
		}
	}
	return l.batch.flush(ctx)
}

// Step is one step of a calibration as the receiver heard it. Counts are of the
// step's own datagrams, exact once its end was heard.
type Step struct {
	Number       int
	Rate         uint64 // that the sender said it holds
	Sent         uint64
	Authentic    uint64
	KernelDrops  uint64        // messages that the kernel dropped at the socket meanwhile
	SendFailures uint64        // datagrams that the sender could not hand to its kernel
	Heard        time.Duration // between the first and the last, by this host's clock
	Spoken       time.Duration // between the same, by the sender's clock
	Over         bool          // its end, or a later step, was heard
}

// step is a Step under way.
type step struct {
	Step
	first                       time.Time
	firstClock                  uint64
	start                       uint64 // counter of its first datagram
	dropsBefore, failuresBefore uint64
}

// calibrating takes in a heartbeat of an idle session: whether it belongs to a
// step of a calibration, or ends one.
func (r *Receiver) calibrating(s *session, h Heartbeat, counter uint64, now time.Time) {
	filling, ending := h.State == StateSending, h.State == StateEndOfPass || h.State == StateEndOfSession
	number := int(h.Pass)
	if number > MaxSteps || !filling && (!ending || h.Source == 0) {
		return
	}
	t := s.findStep(number)
	if t == nil && (len(s.steps) == 0 || number > s.steps[len(s.steps)-1].Number) {
		t = r.beginStep(s, h, counter, now)
	}
	switch {
	case t == nil: // of a step that nothing else came of, overtaken by a later one
	case filling:
		t.heard(h, now)
	default:
		t.end(h)
	}
}

// findStep returns a step, or nil. It is the last but for what was overtaken.
func (s *session) findStep(number int) *step {
	for i := len(s.steps) - 1; i >= 0; i-- {
		if s.steps[i].Number == number {
			return &s.steps[i]
		}
	}
	return nil
}

// beginStep begins a step with what was first heard of it, and closes the one
// before.
func (r *Receiver) beginStep(s *session, h Heartbeat, counter uint64, now time.Time) *step {
	next := step{
		Step: Step{Number: int(h.Pass), Rate: h.Rate}, first: now, firstClock: h.Clock,
		start: counter - min(counter, h.Source), dropsBefore: r.drops(),
	}
	if n := len(s.steps); n > 0 {
		last := &s.steps[n-1]
		next.failuresBefore = last.failuresBefore + last.SendFailures
		if !last.Over { // its end was lost: the counters say how long it was
			last.Over, last.Sent = true, max(last.Sent, next.start-min(next.start, last.start+repeats))
		}
	}
	s.steps = append(s.steps, next)
	return &s.steps[len(s.steps)-1]
}

// end takes in what the sender says at the end of the step.
func (t *step) end(h Heartbeat) {
	t.Over, t.Sent, t.SendFailures = true, h.Source, h.Failed-min(h.Failed, t.failuresBefore)
}

// heard counts one datagram of the step.
func (t *step) heard(h Heartbeat, now time.Time) {
	t.Authentic++
	if t.Over {
		return // overtaken by the step's end, which said how many there are
	}
	t.Sent = max(t.Sent, h.Source+1)
	t.Heard = now.Sub(t.first)
	t.Spoken = time.Duration(h.Clock - min(h.Clock, t.firstClock))
}

// chargeStep charges the last step with the kernel's drops so far.
func (s *session) chargeStep(drops uint64) {
	if n := len(s.steps); n > 0 {
		last := &s.steps[n-1]
		last.KernelDrops = drops - min(drops, last.dropsBefore)
	}
}

// stepsHeard copies the steps for a snapshot.
func (s *session) stepsHeard() []Step {
	var list []Step
	for _, t := range s.steps {
		list = append(list, t.Step)
	}
	return list
}
