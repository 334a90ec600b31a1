// SPDX-License-Identifier: Apache-2.0

package receiver_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudflare/circl/kem/xwing"

	"sluice/internal/link"
	"sluice/internal/link/linktest"
	"sluice/internal/receiver"
)

// TestCalibration follows real ramps over links with a bottleneck, in virtual time and with a seed: where it began to drop, who
// dropped, and the advice.
func TestCalibration(t *testing.T) {
	line := func(rate int64, socket bool) linktest.Options {
		return linktest.Options{Seed: 5, Limit: linktest.Limit{Rate: rate, Queue: 20 * time.Millisecond, Overhead: 66, AtSocket: socket}}
	}
	for _, tt := range []struct {
		name    string
		profile link.Profile
		faults  linktest.Options
		steps   int
		advice  [2]float64 // Mbit, from and to
		want    []string
	}{
		{"the line, 1500", link.Profile1500, line(40e6, false), 9, [2]float64{35.5, 37}, []string{"It began to drop at about 40.", "before this host's socket", "90 % of that: link.rate: 36Mbit"}},
		{"the line, 9000", link.Profile9000, line(40e6, false), 9, [2]float64{35.5, 37}, []string{"It began to drop at about 40", "before this host's socket"}},
		{"the socket", link.Profile1500, line(60e6, true), 9, [2]float64{53, 55.5}, []string{"It began to drop at about 61.1 Mbit/s (step 7, 76.2 Mbit/s)", "dropped by this host's socket"}},
		{"nothing", link.Profile1500, linktest.Options{}, 9, [2]float64{90, 90}, []string{"Nothing was dropped up to 100 Mbit/s: the limit lies above, --until raises it", "link.rate: 90Mbit"}},
		{"below the first step", link.Profile1500, line(10e6, false), 9, [2]float64{0, 0}, []string{"It dropped at the slowest step, 20 Mbit/s, already", "begin lower with --from"}},
		{"a bad line", link.Profile1500, linktest.Options{Seed: 6, Drop: 0.01}, 9, [2]float64{0, 0}, []string{"already: lost ", "No rate is advised"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				c := ramp(t, dir, tt.profile, tt.faults)
				text := strings.Join(c.Words, "\n")
				if mbit := c.Advice / 1e6; len(c.Steps) != tt.steps || !c.Whole || mbit < tt.advice[0] || mbit > tt.advice[1] {
					t.Errorf("%d steps, whole %v, advice %.2f Mbit:\n%s", len(c.Steps), c.Whole, mbit, text)
				}
				for _, w := range tt.want {
					if !strings.Contains(text, w) {
						t.Errorf("%q is not in\n%s", w, text)
					}
				}
			})
		})
	}
}

// ramp calibrates from 20 to 100 Mbit/s and watches it.
func ramp(t *testing.T, dir string, profile link.Profile, faults linktest.Options) receiver.Calibration {
	t.Helper()
	root, err := os.OpenRoot(dir)
	must(t, err)
	defer root.Close()
	l, seed := linktest.New(faults), make([]byte, 32)
	_, public := xwing.DeriveKeyPairPacked(seed)
	key := ed25519.NewKeyFromSeed(seed)
	lr, err := link.NewReceiver(link.ReceiverConfig{Conns: []link.BatchReader{l.Reader()}, Opener: linktest.Opener(seed, key.Public().(ed25519.PublicKey)), Sink: nothing{}, Dir: root})
	must(t, err)
	s, err := link.NewSender(link.SenderConfig{Lanes: []link.Lane{{Conn: l.Writer()}}, Profile: profile, LinkKey: key, ReceiverKey: public})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	ended, sent := make(chan error, 1), make(chan error, 1)
	go func() { ended <- lr.Run(ctx) }()
	go func() {
		sent <- s.Calibrate(ctx, link.Calibration{From: 20e6, Until: 100e6, Step: time.Second}, func(link.SentStep) {})
	}()
	shown, waited := 0, 0
	c, err := receiver.Watch(ctx, func(context.Context) ([]link.SessionStatus, error) { return lr.Sessions(), nil }, receiver.WatchOptions{
		Wait: time.Minute, Step: func(receiver.CalibrationStep) { shown++ }, Waiting: func() { waited++ },
	})
	must(t, err)
	must(t, <-sent)
	cancel()
	must(t, <-ended)
	if shown != len(c.Steps) || waited != 1 {
		t.Errorf("%d of %d steps were shown, waited %d times", shown, len(c.Steps), waited)
	}
	return c
}

// nothing is a sink that takes nothing.
type nothing struct{ link.Sink }

// TestJudgeStep: what was lost where, and a receiver that falls behind although nothing is lost yet.
func TestJudgeStep(t *testing.T) {
	step := func(change func(*link.Step)) link.Step {
		s := link.Step{Number: 3, Rate: 100e6, Sent: 8234, Authentic: 8234, Heard: time.Second, Spoken: time.Second, Over: true}
		change(&s)
		return s
	}
	for _, tt := range []struct {
		name              string
		step              link.Step
		dropping, behind  bool
		notSaid           bool
		lost, host, above uint64 // above: lost before the host, at least
	}{
		{"clean", step(func(*link.Step) {}), false, false, false, 0, 0, 0},
		{"a few", step(func(s *link.Step) { s.Authentic -= 8 }), false, false, false, 8, 0, 8},
		{"more than a few", step(func(s *link.Step) { s.Authentic -= 9 }), true, false, false, 9, 0, 9},
		{"in the host", step(func(s *link.Step) { s.Authentic -= 100; s.KernelDrops = 100 }), true, false, false, 100, 100, 0},
		{"at the sender", step(func(s *link.Step) { s.Authentic -= 100; s.SendFailures = 100 }), true, false, false, 100, 0, 0},
		{"behind", step(func(s *link.Step) { s.Heard += 60 * time.Millisecond }), true, true, false, 0, 0, 0},
		{"a little behind", step(func(s *link.Step) { s.Heard += 49 * time.Millisecond }), false, false, false, 0, 0, 0},
		{"a short step, behind by a stall", step(func(s *link.Step) { s.Spoken, s.Heard = 200*time.Millisecond, 240*time.Millisecond }), false, false, false, 0, 0, 0},
		{"a slow sender", step(func(s *link.Step) { s.Spoken, s.Heard = 1200*time.Millisecond, 1200*time.Millisecond }), false, false, true, 0, 0, 0},
		{"nothing came", step(func(s *link.Step) { s.Authentic, s.Heard, s.Spoken = 0, 0, 0 }), true, false, false, 8234, 0, 8234},
		{"one came", step(func(s *link.Step) { s.Authentic, s.Heard, s.Spoken = 1, 0, 0 }), true, false, false, 8233, 0, 8233},
		{"impossible", step(func(s *link.Step) { s.Authentic = 9000 }), false, false, false, 0, 0, 0},
	} {
		c := receiver.JudgeStep(tt.step, link.Profile1500)
		if c.Dropping != tt.dropping || c.Behind != tt.behind || c.NotSaid != tt.notSaid || c.Loss.Lost != tt.lost || c.Loss.HostAtLeast != tt.host || c.Loss.BeforeHost != tt.above {
			t.Errorf("%s: %+v", tt.name, c)
		}
	}
	if c := receiver.JudgeStep(step(func(*link.Step) {}), link.Profile1500); c.Sent < 99.9e6 || c.Sent > 100.1e6 || c.Arrived != c.Sent {
		t.Errorf("sent at %v, arrived at %v", c.Sent, c.Arrived)
	}
}

// TestJudgeCalibration: the advice never lies above 90 % of what was seen to arrive.
func TestJudgeCalibration(t *testing.T) {
	clean := func(rate float64) receiver.CalibrationStep {
		return receiver.CalibrationStep{Said: rate, Sent: rate, Arrived: rate, Loss: receiver.Loss{Sent: 1000}}
	}
	drop := func(rate, arrived float64) receiver.CalibrationStep {
		return receiver.CalibrationStep{Said: rate, Sent: rate, Arrived: arrived, Dropping: true, Loss: receiver.Loss{Sent: 1000, Lost: 100, Percent: 10}}
	}
	short := clean(80e6)
	short.Said, short.NotSaid = 100e6, true
	behind := receiver.CalibrationStep{Said: 100e6, Sent: 100e6, Arrived: 85e6, Dropping: true, Behind: true, Loss: receiver.Loss{Sent: 1000}}
	for _, tt := range []struct {
		name   string
		steps  []receiver.CalibrationStep
		advice float64
		want   string
	}{
		{"none", nil, 0, "No step of the calibration was heard"},
		{"between two steps", []receiver.CalibrationStep{clean(50e6), clean(80e6), drop(100e6, 90e6), clean(120e6)}, 81e6, "at about 90 Mbit/s (step 0, 100 Mbit/s)"},
		{"collapse", []receiver.CalibrationStep{clean(50e6), drop(100e6, 10e6)}, 45e6, "at about 50 Mbit/s"},
		{"a sender at its end", []receiver.CalibrationStep{clean(50e6), short}, 72e6, "which is all that the sender can send"},
		{"fell behind", []receiver.CalibrationStep{clean(50e6), behind}, 76.5e6, "fell behind, and only the socket's buffer"},
		{"too slow for a link", []receiver.CalibrationStep{clean(0.9e6), drop(1e6, 0.9e6)}, 0.81e6, "too slow for a link"},
	} {
		c := receiver.JudgeCalibration(tt.steps, true)
		if text := strings.Join(c.Words, "\n"); c.Advice != tt.advice || !strings.Contains(text, tt.want) {
			t.Errorf("%s: advice %v, want %v\n%s", tt.name, c.Advice, tt.advice, text)
		}
	}
}

// TestWatch: what is over already is not taken for the next calibration, a sender that is killed ends it, and nobody waits for ever.
func TestWatch(t *testing.T) {
	over := link.SessionStatus{
		Announcement: link.Announcement{Session: [8]byte{1}, Profile: link.Profile1500}, State: link.StateEndOfSession, Authentic: 10, LastHeard: heardAt(),
		Steps: []link.Step{{Number: 1, Rate: 1e6, Sent: 10, Authentic: 10, Over: true}},
	}
	cut := over
	cut.Session, cut.State, cut.Steps = [8]byte{2}, link.StateSending, []link.Step{{Number: 1, Rate: 1e6, Sent: 10, Authentic: 10, Over: true}, {Number: 2, Sent: 5, Authentic: 5}}
	for _, tt := range []struct {
		name     string
		sessions []link.SessionStatus
		last     bool
		steps    int
		whole    bool
		err      error
		took     time.Duration
	}{
		{"nothing", nil, false, 0, false, receiver.ErrNoCalibration, time.Minute},
		{"over before", []link.SessionStatus{over}, false, 0, false, receiver.ErrNoCalibration, time.Minute},
		{"the last", []link.SessionStatus{over}, true, 1, true, nil, 0},
		{"cut off", []link.SessionStatus{over, cut}, false, 2, false, nil, link.SilentAfter + 250*time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			began := time.Now()
			c, err := receiver.Watch(t.Context(), func(context.Context) ([]link.SessionStatus, error) { return tt.sessions, nil },
				receiver.WatchOptions{Last: tt.last, Wait: time.Minute, Step: func(receiver.CalibrationStep) {}, Waiting: func() {}})
			if took := time.Since(began); !errors.Is(err, tt.err) || len(c.Steps) != tt.steps || c.Whole != tt.whole || took != tt.took {
				t.Errorf("%s: %d steps, whole %v, %v, after %v", tt.name, len(c.Steps), c.Whole, err, took)
			}
		})
	}
}
