// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"go.uber.org/zap"

	"sluice/internal/console"
	"sluice/internal/link"
	"sluice/internal/recv"
)

const (
	// dropShare is the share of lost datagrams from which on a step counts as one that drops, in percent: a cable that is worse than
	// that is no cable, and a timer that wakes late loses less.
	dropShare = 0.1

	// lagShare is by how much of its length a step may arrive slower than it was sent. Beyond it the receiver falls behind, and only
	// the socket's buffer hides it: it would be full before a long transfer is over.
	lagShare = 0.05

	// lagFloor is the least that counts as falling behind: a timer or a scheduler that was late is no bottleneck.
	lagFloor = 50 * time.Millisecond

	// advised is how much of the rate at which it begins to drop is advised: what is left carries bursts and other work of the host.
	advised = 0.9

	// calibratePoll is how often the counters are looked at: as soon as a person would, and too seldom to disturb what is measured.
	calibratePoll = 250 * time.Millisecond
)

// ErrNoCalibration says that no sender calibrated within the time to wait.
var ErrNoCalibration = errors.New("receiver: no calibration was heard")

// CalibrationStep is one step of a calibration, judged. Rates are in bits a second on the wire.
type CalibrationStep struct {
	Number   int     `json:"number"`
	Said     float64 `json:"said_bits"` // by the sender: the rate that it set out to hold
	Sent     float64 `json:"sent_bits"` // by its clock; 0: not known
	Arrived  float64 `json:"arrived_bits"`
	Loss     Loss    `json:"loss"`
	Behind   bool    `json:"behind"`   // it arrived slower than it was sent: the buffer of the socket filled
	NotSaid  bool    `json:"not_said"` // the sender did not reach the rate that it said
	Dropping bool    `json:"dropping"` // lost more than 0.1 %, or fell behind
}

// Calibration is what a ramp of rates came to.
type Calibration struct {
	Steps  []CalibrationStep `json:"steps"`
	Whole  bool              `json:"whole"`       // the sender said that it is over
	Limit  float64           `json:"limit_bits"`  // where it began to drop; 0: not found
	Advice float64           `json:"advice_bits"` // for link.rate; 0: none
	Words  []string          `json:"words"`
}

// JudgeStep says what came of a step.
func JudgeStep(s link.Step, p link.Profile) CalibrationStep {
	rate := func(n uint64, d time.Duration) float64 {
		if n < 2 || d <= 0 {
			return 0
		}
		return float64(n-1) * float64(p.WireBits()) / d.Seconds()
	}
	lost := s.Sent - min(s.Sent, s.Authentic)
	c := CalibrationStep{Number: s.Number, Said: float64(s.Rate), Loss: splitLoss(s.Sent, lost, s.SendFailures, s.KernelDrops)}
	c.Arrived = rate(s.Authentic, s.Heard)
	if s.Authentic > 0 { // what was heard of the step spans nearly all of it
		c.Sent = rate(s.Authentic, s.Spoken) * float64(s.Sent) / float64(s.Authentic)
	}
	c.Behind = s.Heard-s.Spoken > time.Duration(lagShare*float64(s.Spoken)) && s.Heard-s.Spoken > lagFloor
	c.NotSaid = c.Sent > 0 && c.Sent < advised*c.Said
	c.Dropping = c.Loss.Percent > dropShare || c.Behind
	return c
}

// JudgeCalibration finds where it began to drop.
func JudgeCalibration(steps []CalibrationStep, whole bool) Calibration {
	c := Calibration{Steps: steps, Whole: whole}
	clean := 0.0 // the fastest step before the first that drops
	for _, s := range steps {
		if !s.Dropping {
			clean = max(clean, min(s.Said, orElse(s.Sent, s.Said)))
			continue
		}
		if clean > 0 {
			c.Limit = max(clean, s.Arrived)
		}
		c.Words = c.dropWords(s)
		return c
	}
	if clean > 0 {
		c.Advice = advised * clean
	}
	c.Words = c.cleanWords(clean)
	return c
}

func orElse(f, otherwise float64) float64 {
	if f > 0 {
		return f
	}
	return otherwise
}

// dropWords is for a ramp that found the rate, or that began above it. It sets the advice.
func (c *Calibration) dropWords(s CalibrationStep) []string {
	cause := s.Loss.words()
	if s.Loss.Percent <= dropShare {
		cause = "this host fell behind, and only the socket's buffer kept what it could not take yet"
	}
	if c.Limit == 0 {
		return []string{
			fmt.Sprintf("It dropped at the slowest step, %s, already: %s", console.BitRate(s.Said), cause),
			"No rate is advised: begin lower with --from, or mend what drops (doctor on both hosts)",
		}
	}
	c.Advice = advised * c.Limit
	return []string{
		fmt.Sprintf("It began to drop at about %s (step %d, %s): %s", console.BitRate(c.Limit), s.Number, console.BitRate(s.Said), cause),
		c.advice("90 % of that"),
	}
}

// cleanWords is for a ramp that lost nothing.
func (c *Calibration) cleanWords(clean float64) []string {
	if len(c.Steps) == 0 {
		return []string{"No step of the calibration was heard"}
	}
	words := []string{"Nothing was dropped up to " + console.BitRate(clean) + ": the limit lies above, --until raises it"}
	if c.Steps[len(c.Steps)-1].NotSaid {
		words[0] = "Nothing was dropped up to " + console.BitRate(clean) + ", which is all that the sender can send"
	}
	return append(words, c.advice("90 % of it"))
}

// advice is what to write into the bastion's configuration, rounded down to whole Mbit.
func (c *Calibration) advice(of string) string {
	mbit := math.Floor(c.Advice / 1e6)
	if mbit < 1 {
		return "That is too slow for a link: link.rate must be 1Mbit at least; mend what drops (doctor on both hosts)"
	}
	return fmt.Sprintf("Write into the bastion's configuration, %s: link.rate: %.0fMbit. It is the rate of the link and of this host's socket; how fast the disk is, doctor says", of, mbit)
}

// WatchOptions say what Watch waits for.
type WatchOptions struct {
	Last    bool          // take a calibration that is over already
	Wait    time.Duration // for the first step
	Step    func(CalibrationStep)
	Waiting func() // called once, when there is nothing to show yet
}

// Watch follows one calibration over snapshots of the sessions, which sessions gives it, until the sender says that it is over or is
// silent for link.SilentAfter, or ctx ends.
func Watch(ctx context.Context, sessions func(context.Context) ([]link.SessionStatus, error), o WatchOptions) (Calibration, error) {
	w := watcher{o: o, over: map[[8]byte]bool{}, began: time.Now()}
	tick := time.NewTicker(calibratePoll)
	defer tick.Stop()
	for first := true; ; first = false {
		list, err := sessions(ctx)
		if ctx.Err() != nil {
			return w.result(false), nil // a person saw enough: what came so far is the answer
		}
		if err != nil {
			return w.result(false), err
		}
		if first && !o.Last {
			w.skip(list)
		}
		if done, err := w.look(list, time.Now()); done || err != nil {
			return w.result(done && w.whole), err
		}
		select {
		case <-ctx.Done():
			return w.result(false), nil
		case <-tick.C:
		}
	}
}

// watcher is a Watch under way.
type watcher struct {
	o       WatchOptions
	over    map[[8]byte]bool // calibrations that were over before
	began   time.Time
	waiting bool
	session [8]byte
	steps   []CalibrationStep
	whole   bool
	heard   uint64    // datagrams of the session
	changed time.Time // when that number grew last
}

func (w *watcher) skip(list []link.SessionStatus) {
	for _, s := range list {
		w.over[s.Session] = len(s.Steps) > 0 && s.State == link.StateEndOfSession
	}
}

// look takes in a snapshot, and reports whether the calibration is over.
func (w *watcher) look(list []link.SessionStatus, now time.Time) (done bool, err error) {
	s := w.pick(list)
	if s == nil {
		if len(w.steps) > 0 { // its session gave way
			return true, nil
		}
		return false, w.idle(now)
	}
	if s.Session != w.session || s.Authentic != w.heard {
		w.session, w.heard, w.changed = s.Session, s.Authentic, now
	}
	w.whole = s.State == link.StateEndOfSession
	done = w.whole || now.Sub(w.changed) > link.SilentAfter
	for _, step := range s.Steps[min(len(w.steps), len(s.Steps)):] {
		if !step.Over && !done {
			break
		}
		w.steps = append(w.steps, JudgeStep(step, s.Profile))
		w.o.Step(w.steps[len(w.steps)-1])
	}
	return done, nil
}

// pick returns the calibration to follow: the one that was followed, or else the one heard last.
func (w *watcher) pick(list []link.SessionStatus) (best *link.SessionStatus) {
	for i := range list {
		s := &list[i]
		if len(w.steps) > 0 && s.Session != w.session || len(s.Steps) == 0 || w.over[s.Session] {
			continue
		}
		if best == nil || s.LastHeard.After(best.LastHeard) {
			best = s
		}
	}
	return best
}

// idle says once that it waits, and gives up when it took too long.
func (w *watcher) idle(now time.Time) error {
	if !w.waiting {
		w.waiting = true
		w.o.Waiting()
	}
	if now.Sub(w.began) < w.o.Wait {
		return nil
	}
	return fmt.Errorf("%w within %v: run bastion-packer calibrate on the low side, and see here whether the link is up: diode-receiver status", ErrNoCalibration, w.o.Wait)
}

func (w *watcher) result(whole bool) Calibration { return JudgeCalibration(w.steps, whole) }

// errMeasuring is why a process that only measures takes no release.
var errMeasuring = errors.New("this process only measures the link")

// measuring is a daemon that takes nothing.
type measuring struct{}

// Judge implements recv.Daemon.
func (measuring) Judge(context.Context, link.Announcement, io.ReaderAt, int64) (recv.Place, error) {
	return recv.Place{}, errMeasuring
}

// Refused implements recv.Daemon.
func (measuring) Refused([32]byte) bool { return true }

// Meter receives, counts and takes nothing.
type Meter struct {
	*recv.Process
	state *os.Root
	lock  *os.File
}

// Close ends it.
func (m *Meter) Close() error {
	return errors.Join(m.Process.Close(), m.lock.Close(), m.state.Close())
}

// NewMeter starts a process that faces the link, for calibrating while no daemon runs; command makes this program one. It keeps what it
// must in dir, which is the caller's to remove, and touches nothing of the daemon's. The sockets stay the caller's.
func NewMeter(ctx context.Context, cfg Config, sockets []*os.File, command []string, dir string, log *zap.Logger) (_ *Meter, err error) {
	been, err := CurrentTrust(cfg)
	if err != nil {
		return nil, err
	}
	st := been[0]
	key, err := loadKey(cfg, st)
	if err != nil {
		return nil, err
	}
	m := &Meter{}
	if m.state, err = os.OpenRoot(dir); err != nil {
		return nil, err
	}
	if m.lock, err = recv.Lock(ctx, m.state); err != nil {
		return nil, errors.Join(err, m.state.Close())
	}
	m.Process, err = recv.Start(ctx, recv.Options{
		Command: command, Sockets: sockets, Buffer: int(cfg.Link.ReceiveBuffer), PrivateKey: key.Secret, LinkKeys: linkKeys(st),
		State: m.state, StatePath: dir, Lock: m.lock, BestEffort: cfg.Link.Confine == ConfineBestEffort, Daemon: measuring{}, Logger: log,
	})
	if err != nil {
		return nil, errors.Join(err, m.lock.Close(), m.state.Close())
	}
	return m, nil
}
