// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/link"
	"sluice/internal/link/linktest"
)

// wireOverhead is what a datagram takes on the wire besides its bytes (pace.go).
const wireOverhead = 66

// TestCalibrate ramps over links that drop above a rate, before the host or in its socket, in virtual time: each step is exact to the
// datagram against the sender's own count, the ledger stays exact, and the steps below the bottleneck lose nothing.
func TestCalibrate(t *testing.T) {
	for _, tt := range []struct {
		name    string
		profile link.Profile
		faults  linktest.Options
		from    int // the first step that loses; 0: none
	}{
		{"clean 1500", link.Profile1500, linktest.Options{}, 0},
		{"clean 9000", link.Profile9000, linktest.Options{}, 0},
		{"line 1500", link.Profile1500, linktest.Options{Limit: linktest.Limit{Rate: 35e6}}, 4},
		{"line 9000", link.Profile9000, linktest.Options{Limit: linktest.Limit{Rate: 35e6}}, 4},
		{"socket 1500", link.Profile1500, linktest.Options{Limit: linktest.Limit{Rate: 21e6, AtSocket: true}}, 2},
		{"reordered", link.Profile1500, linktest.Options{Reorder: 0.1, Limit: linktest.Limit{Rate: 35e6}}, 4},
		{"everything", link.Profile1500, linktest.Options{Drop: 0.02, Duplicate: 0.02, Corrupt: 0.01, Reorder: 0.05}, 1},
		{"nothing comes", link.Profile1500, linktest.Options{Outage: []linktest.Outage{{From: 4000, Count: 3000}}}, 3},
	} {
		for seed := range uint64(2) {
			t.Run(fmt.Sprintf("%s/seed %d", tt.name, seed), func(t *testing.T) {
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) {
					o := tt.faults
					o.Seed = seed
					o.Limit.Overhead, o.Limit.Queue = wireOverhead, 30*time.Millisecond
					if o.Limit.Rate == 0 {
						o.Limit = linktest.Limit{}
					}
					calibrated(t, dir, tt.profile, o, tt.from)
				})
			})
		}
	}
}

func calibrated(t *testing.T, dir string, profile link.Profile, faults linktest.Options, from int) {
	k, spy := newKeys(70), linktest.NewSpy()
	faults.Tap = spy.Tap
	l := linktest.New(faults)
	h := receive(t, k, spy.Watch(l.Reader()), newSink(), dir, nil)
	wait(3 * time.Second) // the session is no late one
	var sent []link.SentStep
	s := newSender(t, k, l.Writer(), func(c *link.SenderConfig) { c.Profile = profile })
	// 20, 25, 31.25, 39.06, 48.8, 50 Mbit/s
	must(t, s.Calibrate(t.Context(), link.Calibration{From: 20e6, Until: 50e6, Step: time.Second}, func(s link.SentStep) { sent = append(sent, s) }))
	l.Release()
	wait(2 * time.Second)
	st := h.stop(t)
	must(t, spy.Check(st))
	steps := st.Sessions[0].Steps
	if len(sent) != 6 || len(steps) != 6 {
		t.Fatalf("%d steps sent, %d heard", len(sent), len(steps))
	}
	lossy, host := 0, uint64(0)
	for i, step := range steps {
		equal(t, "number", step.Number, i+1)
		equal(t, "rate", int64(step.Rate), sent[i].Rate)
		if diff := int64(step.Sent) - int64(sent[i].Sent); diff != 0 && (len(faults.Outage) == 0 || diff > 1 || diff < -1) { // without its end a step is known but for a heartbeat
			t.Errorf("step %d: sent %d, the sender says %d", i+1, step.Sent, sent[i].Sent)
		}
		if !step.Over || step.Authentic > step.Sent || sent[i].Reached < 0.98*float64(sent[i].Rate) || sent[i].Reached > 1.02*float64(sent[i].Rate) {
			t.Errorf("step %d: %+v, of %+v", i+1, step, sent[i])
		}
		if span := step.Spoken; 2*step.Authentic > step.Sent && (span < 800*time.Millisecond || span > time.Second || (span-step.Heard).Abs() > 50*time.Millisecond) {
			t.Errorf("step %d: spoken in %v, heard in %v", i+1, span, step.Heard)
		}
		if step.Authentic < step.Sent && lossy == 0 {
			lossy = i + 1
		}
		host += step.KernelDrops
	}
	equal(t, "the first step that loses", lossy, from)
	if n := l.Counters(); host != n.Overflowed || st.KernelDrops != n.Overflowed {
		t.Errorf("%d drops charged to steps, %d counted by the socket, %d happened", host, st.KernelDrops, n.Overflowed)
	}
	if got := st.Sessions[0].Heartbeats; got != st.Sessions[0].Authentic {
		t.Errorf("%d heartbeats of %d authentic: a calibration is nothing else", got, st.Sessions[0].Authentic)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestCalibrateSenderLimit: a host that cannot send at the rate of a step ends the ramp there, and says so.
func TestCalibrateSenderLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sent []link.SentStep
		s := newSender(t, newKeys(71), sluggish{100 * time.Microsecond}, nil)
		must(t, s.Calibrate(t.Context(), link.Calibration{From: 10e6, Until: 100e9, Step: time.Second}, func(s link.SentStep) { sent = append(sent, s) }))
		last := sent[len(sent)-1]
		for i, s := range sent {
			if s.Short != (i == len(sent)-1) {
				t.Errorf("step %d: %+v", i+1, s)
			}
		}
		// 44 datagrams of 1518 bytes in 100 us
		if last.Reached < 5e9 || last.Reached > 5.5e9 || last.Rate > 8e9 {
			t.Errorf("%d steps, the last reached %.0f Mbit/s", len(sent), last.Reached/1e6)
		}
	})
}

// sluggish takes a while for every batch.
type sluggish struct{ d time.Duration }

func (s sluggish) WriteBatch([]byte, int) error { wait(s.d); return nil }
func (s sluggish) Close() error                 { return nil }

// TestCalibrateFailures: what the sender's kernel does not take is told of the step that it happened in.
func TestCalibrateFailures(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k, l := newKeys(72), linktest.New(linktest.Options{})
		h := receive(t, k, l.Reader(), newSink(), dir, nil)
		var sent []link.SentStep
		s := newSender(t, k, &failing{BatchWriter: l.Writer(), from: 2200 * time.Millisecond, began: time.Now()}, nil)
		must(t, s.Calibrate(t.Context(), link.Calibration{From: 10e6, Until: 15e6, Step: time.Second}, func(s link.SentStep) { sent = append(sent, s) }))
		wait(time.Second)
		st := h.stop(t).Sessions[0]
		equal(t, "failures of the whole session", st.Heartbeat.Failed, sent[1].Failed)
		for i, s := range st.Steps {
			// An announcement may be among what failed.
			if s.SendFailures != sent[i].Failed || s.Sent-s.Authentic+1 < sent[i].Failed || s.Sent-s.Authentic > sent[i].Failed || (s.SendFailures > 0) != (i == 1) {
				t.Errorf("step %d: %+v, sent %+v", i+1, s, sent[i])
			}
		}
	})
}

// failing does not take datagrams for 100 ms.
type failing struct {
	link.BatchWriter
	began time.Time
	from  time.Duration
}

func (f *failing) WriteBatch(b []byte, segment int) error {
	if d := time.Since(f.began); d > f.from && d < f.from+100*time.Millisecond {
		return &link.SendError{Lost: len(b) / segment, Err: errors.New("no buffer")}
	}
	return f.BatchWriter.WriteBatch(b, segment)
}

func TestCalibrationRefused(t *testing.T) {
	for _, c := range []link.Calibration{
		{From: 0, Until: 1e9, Step: time.Second},
		{From: 2e9, Until: 1e9, Step: time.Second},
		{From: 1e6, Until: 1e9, Step: 199 * time.Millisecond},
		{From: 1e6, Until: 1e9, Step: 61 * time.Second},
		{From: 1, Until: 1e9, Step: time.Second},
	} {
		if rates, err := c.Rates(); !errors.Is(err, link.ErrConfig) {
			t.Errorf("%+v: %d steps, %v", c, len(rates), err)
		}
	}
	rates, err := link.Calibration{From: 100e6, Until: 10e9, Step: time.Second}.Rates()
	if err != nil || len(rates) != 22 || rates[0] != 100e6 || rates[1] != 125e6 || rates[21] != 10e9 {
		t.Errorf("%d steps %v, %v", len(rates), rates, err)
	}
	if rates, err := (link.Calibration{From: 5, Until: 5, Step: time.Second}).Rates(); err != nil || len(rates) != 1 {
		t.Errorf("one rate: %v, %v", rates, err)
	}
	w, _ := linktest.Pair(linktest.Options{})
	s := newSender(t, newKeys(73), w, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Calibrate(ctx, link.Calibration{From: 1e6, Until: 1e6, Step: time.Second}, func(link.SentStep) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
