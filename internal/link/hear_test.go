// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"context"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sluice/internal/link"
	"sluice/internal/link/linktest"
)

// idle sends heartbeats for a while.
func idle(t *testing.T, k keys, l *linktest.Link, d time.Duration, change func(*link.SenderConfig)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := newSender(t, k, l.Writer(), change).Idle(ctx); err != nil {
		t.Error(err)
	}
}

// TestUpAndDown goes through all that a link can do, in virtual time: nothing yet, up, a pause that is no outage, down, up again.
func TestUpAndDown(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k, registry := newKeys(60), prometheus.NewRegistry()
		l := linktest.New(linktest.Options{})
		h := receive(t, k, l.Reader(), newSink(), dir, func(c *link.ReceiverConfig) { c.Registerer = registry })
		began := time.Now()
		wait(time.Second)
		if metric(t, registry, "sluice_link_up") != 0 {
			t.Error("up, and nothing was heard")
		}
		wait(19 * time.Second)
		st := h.Status()
		if st.Up(time.Now()) || !st.UpSince.IsZero() || st.Silence(time.Now()) != 20*time.Second || !st.Started.Equal(began) {
			t.Errorf("nothing heard yet: %+v", st)
		}
		first := time.Now()
		idle(t, k, l, 10500*time.Millisecond, nil)
		wait(4300 * time.Millisecond) // silent for a little less than SilentAfter
		if st = h.Status(); !st.Up(time.Now()) || st.UpSince.Before(first) || st.UpSince.Sub(first) > 100*time.Millisecond || st.Outages != 0 {
			t.Errorf("up: %v, since %v, %d outages", st.Up(time.Now()), st.UpSince.Sub(first), st.Outages)
		}
		wait(25 * time.Second)
		lost := h.Status().LastHeard
		if st = h.Status(); st.Up(time.Now()) || st.Outages != 0 || !st.UpSince.Equal(h.Status().UpSince) {
			t.Errorf("down, and the outage is not over: %+v", st)
		}
		back := time.Now()
		idle(t, k, l, 3*time.Second, nil)
		st = h.Status()
		if !st.Up(time.Now()) || st.Outages != 1 || !st.OutageFrom.Equal(lost) || st.OutageTo.Sub(back) > time.Millisecond || !st.UpSince.Equal(st.OutageTo) {
			t.Errorf("up again: %d outages, from %v to %v, up since %v; it was silent from %v to %v", st.Outages, st.OutageFrom, st.OutageTo, st.UpSince, lost, back)
		}
		for name, want := range map[string]float64{"sluice_link_up": 1, "sluice_link_outages_total": 1, "sluice_link_configured_bytes_per_second": 25e6, "sluice_link_lost_datagrams": 0} {
			if got := metric(t, registry, name); got != want {
				t.Errorf("%s is %v, want %v", name, got, want)
			}
		}
		wait(6 * time.Second)
		if up, silence := metric(t, registry, "sluice_link_up"), metric(t, registry, "sluice_link_silence_seconds"); up != 0 || silence < 6 || silence > 7.1 {
			t.Errorf("down: up %v, silence %v", up, silence)
		}
		h.stop(t)
	})
}

// metric reads a metric that has no labels.
func metric(t *testing.T, g prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric is called %s", name)
	return 0
}

// TestLossSinceWhen: what is lost while the receiver listens counts, what was sent before does not, over a restart and for a session
// that began in the middle.
func TestLossSinceWhen(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k, c := newKeys(61), newCargo(1, 5_000, 12_000_000)
		l := linktest.New(linktest.Options{QueueLen: 200, Outage: []linktest.Outage{{From: 9000, Count: 30}}})
		slow := func(c *link.SenderConfig) { c.Lanes[0].Rate = 15e6 } // 7.5 s of payload
		sent := make(chan link.SendReport)
		go func() { sent <- send(t, k, l.Writer(), c.transfer(), slow) }()
		wait(1500 * time.Millisecond) // nobody listens: the queue overflows
		h := receive(t, k, l.Reader(), newSink(), dir, nil)
		wait(2100 * time.Millisecond)
		report := session(t, h.Status(), h.Sessions()[0].Session)
		if report.Missing == 0 || report.Lost() != 0 || report.MissedBefore != report.Missing || report.HeardSent() != report.Authentic {
			t.Errorf("late joiner: first %d, missing %d, lost %d", report.First, report.Missing, report.Lost())
		}
		if rate := report.ArrivalRate; rate < 14e6 || rate > 16e6 || report.SendRate < rate {
			t.Errorf("arriving at %.1f Mbit/s, sent at %.1f, set to 15", rate/1e6, report.SendRate/1e6)
		}
		before := h.stop(t)
		h = receive(t, k, l.Reader(), newSink(), dir, nil)
		if st := h.Status(); st.Sessions[0].Lost() != 0 || !st.LastHeard.IsZero() || st.HeardSent != 0 {
			t.Errorf("restarted, nothing heard: %+v", st)
		}
		<-sent
		wait(time.Second)
		after := h.stop(t)
		if s := after.Sessions[0]; s.Lost() != 30 || s.Missing < before.Sessions[0].Authentic || after.HeardSent != s.Authentic+s.Lost() {
			t.Errorf("after the restart: lost %d of %d, missing %d", s.Lost(), s.HeardSent(), s.Missing)
		}
	})
}

// TestKernelDropsOfASession: a session is charged with the drops of its time, not with those before it or after it.
func TestKernelDropsOfASession(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := newKeys(62)
		l := linktest.New(linktest.Options{})
		conn := &counting{BatchReader: l.Reader()}
		conn.drops.Store(1000)
		h := receive(t, k, conn, newSink(), dir, nil)
		wait(5 * time.Second)
		conn.drops.Add(50) // before the session
		wait(time.Second)
		done := make(chan struct{})
		go func() { idle(t, k, l, 4500*time.Millisecond, nil); close(done) }()
		wait(2500 * time.Millisecond)
		conn.drops.Add(7)
		<-done
		wait(3 * time.Second)
		conn.drops.Add(900) // after it
		wait(time.Second)
		st := h.Status()
		if got := st.Sessions[0].KernelDrops; got != 7 || st.DropsAtStart != 1000 || st.KernelDrops != 1957 {
			t.Errorf("%d drops of the session, want 7; %d at the start, %d in all", got, st.DropsAtStart, st.KernelDrops)
		}
		h.stop(t)
	})
}

// counting is a reader with a drop counter that the test turns.
type counting struct {
	link.BatchReader
	drops atomic.Uint64
}

func (c *counting) Drops() uint64 { return c.drops.Load() }

// TestAnnouncedAndNotArrived: a release whose envelope never came whole is remembered after its session gave way to eight others, and
// the totals do not fall.
func TestAnnouncedAndNotArrived(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k, c := newKeys(63), newCargo(1, 5_000, 100_000)
		l := linktest.New(linktest.Options{})
		h := receive(t, k, envelopeless{l.Reader()}, newSink(), dir, nil)
		wait(3 * time.Second)
		began := time.Now()
		report := send(t, k, l.Writer(), c.transfer(), nil)
		wait(time.Second)
		st := h.Status()
		if len(st.Releases) != 1 {
			t.Fatalf("%d releases announced", len(st.Releases))
		}
		a := st.Releases[0]
		if a.Release != c.release || a.State != link.ReleaseAssembling || !a.Held || a.EnvelopeHave != 0 || a.EnvelopeSymbols != 4 || a.First.Sub(began) > 100*time.Millisecond || a.PayloadSize != 100_000 {
			t.Errorf("%+v", a)
		}
		lost, sent := st.Lost, st.HeardSent
		if lost != report.Envelope {
			t.Errorf("%d lost, %d envelope symbols were swallowed", lost, report.Envelope)
		}
		for range link.MaxSessions {
			idle(t, k, l, 1500*time.Millisecond, nil)
		}
		wait(time.Second)
		st = h.Status()
		if len(st.Releases) != 1 || st.Releases[0].Held || st.Releases[0].First != a.First {
			t.Errorf("after its session gave way: %+v", st.Releases)
		}
		if st.Lost != lost || st.HeardSent != sent+2*link.MaxSessions {
			t.Errorf("lost %d of %d, before it gave way %d of %d", st.Lost, st.HeardSent, lost, sent)
		}
		h.stop(t)
	})
}

// envelopeless swallows envelope symbols.
type envelopeless struct{ link.BatchReader }

func (e envelopeless) ReadBatch(bufs []link.Buffer) (int, error) {
	n, err := e.BatchReader.ReadBatch(bufs)
	for i := range bufs[:n] {
		b, kept := &bufs[i], 0
		for at := 0; at < b.N; at += b.Segment {
			if b.Data[at+1] != byte(link.TypeEnvelope) {
				kept += copy(b.Data[kept:], b.Data[at:at+b.Segment])
			}
		}
		b.N = kept
	}
	return compact(bufs[:n]), err
}

// TestAnnouncedIsBounded announces one release more than are remembered: the one goes that the sink accepted, though others are older.
func TestAnnouncedIsBounded(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := newKeys(64)
		l := linktest.New(linktest.Options{})
		h := receive(t, k, l.Reader(), newSink(), dir, nil)
		c := newCargo(1, 500, 1000)
		for i := range 64 {
			if i == 3 {
				send(t, k, l.Writer(), c.transfer(), nil)
				wait(time.Second)
			}
			a := announcement(byte(i))
			d, _, err := link.SealAnnouncement(fixedRandom(uint64(i)), a, k.link, k.receiver)
			if err != nil {
				t.Fatal(err)
			}
			l.Inject(d)
			wait(100 * time.Millisecond)
		}
		st := h.stop(t)
		if len(st.Releases) != 64 {
			t.Fatalf("%d releases", len(st.Releases))
		}
		for i, r := range st.Releases {
			if r.Release != announcement(byte(i)).Release {
				t.Errorf("release %d is %x", i, r.Release)
			}
		}
	})
}

// TestResumedAnnouncement: after a restart a release was announced when its kept announcement was written, not when the process began.
func TestResumedAnnouncement(t *testing.T) {
	dir := t.TempDir()
	k, a := newKeys(65), announcement(3)
	d, _, err := link.SealAnnouncement(fixedRandom(3), a, k.link, k.receiver)
	if err != nil {
		t.Fatal(err)
	}
	name := dir + "/session-03aa000000000000"
	long := time.Now().Add(-72 * time.Hour).Truncate(time.Second)
	if err := os.WriteFile(name, d, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(name, long, long); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	_, conn := linktest.Pair(linktest.Options{})
	r, err := link.NewReceiver(link.ReceiverConfig{Conns: []link.BatchReader{conn}, Opener: linktest.Opener(k.private, k.public()), Sink: newSink(), Dir: root})
	if err != nil {
		t.Fatal(err)
	}
	st := r.Status()
	if len(st.Releases) != 1 || !st.Releases[0].First.Equal(long) || !st.Releases[0].LastHeard.IsZero() {
		t.Errorf("%+v", st.Releases)
	}
}

// TestSpeaker: a session that is under way speaks before an idle one, until it was silent for long; one that is over does not.
func TestSpeaker(t *testing.T) {
	at := func(s float64, state link.State) link.SessionStatus {
		return link.SessionStatus{State: state, LastHeartbeat: time.Unix(1_800_000_000, int64(s*1e9))}
	}
	for _, tt := range []struct {
		name     string
		sessions []link.SessionStatus
		want     link.State
	}{
		{"none", nil, 0},
		{"idle", []link.SessionStatus{at(1, link.StateIdle)}, link.StateIdle},
		{"idle hides nothing", []link.SessionStatus{at(1, link.StateSending), at(2, link.StateIdle)}, link.StateSending},
		{"the newer of two", []link.SessionStatus{at(1, link.StateLeadIn), at(2, link.StateSending), at(3, link.StateIdle)}, link.StateSending},
		{"silent for long", []link.SessionStatus{at(1, link.StateSending), at(6.1, link.StateIdle)}, link.StateIdle},
		{"over", []link.SessionStatus{at(1, link.StateEndOfSession), at(2, link.StateIdle)}, link.StateIdle},
		{"announced only", []link.SessionStatus{{}, at(2, link.StateIdle)}, link.StateIdle},
	} {
		if got := (link.Status{Sessions: tt.sessions}).Speaker().State; got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestClockDifference: a sender's clock may say anything.
func TestClockDifference(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for clock, want := range map[uint64]time.Duration{
		uint64(now.UnixNano()): 0, uint64(now.Add(time.Minute).UnixNano()): time.Minute, 0: -1_800_000_000 * time.Second,
		1 << 63: time.Duration(1<<63 - 1 - now.UnixNano()), 1<<64 - 1: time.Duration(1<<63 - 1 - now.UnixNano()),
	} {
		s := link.SessionStatus{LastHeartbeat: now, Heartbeat: link.Heartbeat{Clock: clock}}
		if got, ok := s.ClockDifference(); got != want || !ok {
			t.Errorf("clock %d: %v, want %v", clock, got, want)
		}
	}
	if _, ok := (link.SessionStatus{}).ClockDifference(); ok {
		t.Error("a difference without a heartbeat")
	}
}

// TestLinkMetricsLint holds names and help texts to the rules of Prometheus.
func TestLinkMetricsLint(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := receive(t, newKeys(66), linktest.New(linktest.Options{}).Reader(), newSink(), t.TempDir(), func(c *link.ReceiverConfig) { c.Registerer = registry })
	problems, err := testutil.GatherAndLint(registry)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
	h.stop(t)
}
