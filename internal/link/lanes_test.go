// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/link"
	"sluice/internal/link/linktest"
)

// laneRate is that of each lane of these tests, bits a second.
const laneRate = 100e6

// lanes is a sender and a receiver joined by several links, each with a socket of
// its own.
type lanes struct {
	*testing.T
	keys  keys
	spy   *linktest.Spy
	links []*linktest.Link
	sink  *sink
	dir   string
	high  *high

	rate    int64 // of each lane
	refused bool  // not everything that was sealed was written: the spy cannot know
}

// newLanes makes the links, one for each set of faults, and starts the receiver.
func newLanes(t *testing.T, dir string, faults ...linktest.Options) *lanes {
	l := &lanes{T: t, keys: newKeys(70), spy: linktest.NewSpy(), sink: newSink(), dir: dir, rate: laneRate}
	for _, f := range faults {
		f.Tap = l.spy.Tap
		l.links = append(l.links, linktest.New(f))
	}
	l.start()
	return l
}

// start starts a receiver, perhaps after another.
func (l *lanes) start() {
	l.high = receive(l.T, l.keys, nil, l.sink, l.dir, func(c *link.ReceiverConfig) {
		c.Conns = nil
		for _, one := range l.links {
			c.Conns = append(c.Conns, l.spy.Watch(one.Reader()))
		}
	})
}

// over makes the lanes of a sender; wrap may put something between.
func (l *lanes) over(wrap func(i int, w link.BatchWriter) link.BatchWriter) func(*link.SenderConfig) {
	return func(c *link.SenderConfig) {
		c.Lanes = nil
		for i, one := range l.links {
			w := one.Writer()
			if wrap != nil {
				w = wrap(i, w)
			}
			c.Lanes = append(c.Lanes, link.Lane{Name: fmt.Sprintf("test %d", i+1), Conn: w, Rate: l.rate})
		}
	}
}

// full sends source and repair rows, as the pass of a round.
func (l *lanes) full(c cargo, round int) link.SendReport {
	l.Helper()
	tr := c.transfer()
	tr.Pass, tr.Round = round+1, round
	report := send(l.T, l.keys, nil, tr, l.over(nil))
	wait(3 * time.Second)
	return report
}

// missing is how many source symbols are not there.
func (l *lanes) missing(c cargo) int64 {
	l.Helper()
	m := l.sink.payload(c.release)
	if m == nil {
		l.Fatal("the release was not accepted")
	}
	return m.Missing()
}

// stop ends the receiver and checks its ledger.
func (l *lanes) stop() link.Status {
	l.Helper()
	for _, one := range l.links {
		one.Release()
	}
	wait(time.Second)
	st := l.high.stop(l.T)
	if err := l.spy.Check(st); err != nil && !l.refused {
		l.Error(err)
	}
	return st
}

// dead is a link that takes everything and brings nothing.
var dead = linktest.Options{Drop: 1}

// TestLanesAddUp: two lanes carry a release in half of the time, one session each;
// the ledger of each is exact, and the receiver hears each at its own socket.
func TestLanesAddUp(t *testing.T) {
	payloadTime := func(t *testing.T, n int) time.Duration {
		var took time.Duration
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			l := newLanes(t, dir, make([]linktest.Options, n)...)
			c := newCargo(1, 10_000, 4_000_000)
			report := l.full(c, 0)
			st := l.stop()
			wantArrived(t, l.sink, c)
			equal(t, "lanes of the report", len(report.Lanes), n)
			equal(t, "sessions", len(st.Sessions), n)
			equal(t, "sockets", len(st.Lanes), n)
			var source, repair uint64
			for i, lane := range report.Lanes {
				one := session(t, st, lane.Session)
				equal(t, "authentic and sealed of a lane", one.Authentic, lane.Sealed)
				equal(t, "authentic at its socket", st.Lanes[i].Authentic, lane.Sealed)
				if share := float64(lane.Source) / float64(report.Source); share < 0.99/float64(n) || share > 1.01/float64(n) {
					t.Errorf("lane %d of %d carried %.3f of the source", i+1, n, share)
				}
				source, repair = source+lane.Source, repair+lane.Repair
			}
			equal(t, "source, dealt once", source, report.Source)
			equal(t, "repair, dealt once", repair, report.Repair)
			equal(t, "all of the source", report.Source, uint64(2841))                    // of 1408 bytes; 7 spans and a short one
			equal(t, "all of the repair rows", report.Repair, uint64(7*20*testGroups+20)) // the short one has one group
			took = report.Elapsed - 2*time.Second                                         // pauses and settling
		})
		return took
	}
	one, two, four := payloadTime(t, 1), payloadTime(t, 2), payloadTime(t, 4)
	if two > one*6/10 || four > one*35/100 {
		t.Errorf("one lane %v, two %v, four %v", one, two, four)
	}
}

// TestDeadLane: with any lane dead, unknown to the sender, two full rounds bring
// the release, and one round costs every group the same. Without the rotation, a
// second round brings nothing: that is tried too.
func TestDeadLane(t *testing.T) {
	for _, n := range []int{2, 3, 5} {
		for bad := range n {
			t.Run(fmt.Sprintf("lane %d of %d", bad+1, n), func(t *testing.T) {
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) {
					faults := make([]linktest.Options, n)
					faults[bad] = dead
					l := newLanes(t, dir, faults...)
					c := newCargo(uint64(n), 20_000, 1_000_000)
					l.full(c, 0)
					first := l.missing(c)
					if first == 0 {
						t.Fatal("nothing is missing after one round: this proves nothing")
					}
					l.full(c, 0)
					equal(t, "missing when nothing moves on", l.missing(c), first)
					l.full(c, 1)
					st := l.stop()
					wantArrived(t, l.sink, c)
					if sil := st.SilentLanes(time.Now().Add(-3 * time.Second)); len(sil) != 1 || sil[0] != bad+1 {
						t.Errorf("lanes %v are called silent", sil)
					}
				})
			})
		}
	}
}

// TestOneLaneLeft: one living lane of several brings the release in as many rounds
// as there are lanes.
func TestOneLaneLeft(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := newLanes(t, dir, dead, linktest.Options{}, dead)
		c := newCargo(9, 20_000, 2_000_000)
		for round := range 3 {
			l.full(c, round)
		}
		l.stop()
		wantArrived(t, l.sink, c)
	})
}

// refusing is a writer whose kernel takes nothing while it is shut.
type refusing struct {
	link.BatchWriter
	shut func() bool
	slow time.Duration // it says so after a while
	err  error         // nil: ENETDOWN, which may pass
}

func (w refusing) WriteBatch(b []byte, segment int) error {
	if !w.shut() {
		return w.BatchWriter.WriteBatch(b, segment)
	}
	wait(w.slow)
	if w.err != nil {
		return w.err
	}
	return &link.SendError{Lost: len(b) / segment, Err: syscall.ENETDOWN}
}

// second makes a fault of the second lane.
func second(bad refusing) func(int, link.BatchWriter) link.BatchWriter {
	return func(i int, w link.BatchWriter) link.BatchWriter {
		if i != 1 {
			return w
		}
		bad.BatchWriter = w
		return bad
	}
}

func always() bool { return true }

// TestLaneGivenUp: a lane of which this host knows that it carries nothing is held
// back or given up, by name, and the others carry its share. It costs what was under
// way over it, and never holds the others for long.
func TestLaneGivenUp(t *testing.T) {
	later := 1500 * time.Millisecond // in the payload
	for _, tt := range []struct {
		name    string
		bad     refusing
		lost    int64         // symbols of the source, at most
		longest time.Duration // beyond what one lane takes
	}{
		{"refused", refusing{shut: always}, 0, 0},
		{"stalled", refusing{shut: always, slow: time.Second}, 0, 12 * time.Second}, // in its lead-in
		{"broken", refusing{shut: always, err: errDevice}, 0, 0},
		{"refused later", refusing{shut: after(later)}, 60, 2 * time.Second},
		{"stalled later", refusing{shut: after(later), slow: time.Second}, 60, 4 * time.Second},
		{"broken later", refusing{shut: after(later), err: errDevice}, 60, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				began = time.Now()
				l := newLanes(t, dir, linktest.Options{}, linktest.Options{})
				l.refused, l.rate = true, slowLanes
				c := newCargo(3, 10_000, slowCargo)
				report, err := newSender(t, l.keys, nil, l.over(second(tt.bad))).Send(t.Context(), c.transfer())
				if err != nil {
					t.Fatal(err)
				}
				wait(3 * time.Second)
				if report.Lanes[0].Err != nil || report.Lanes[1].Err == nil {
					t.Errorf("lanes: %+v", report.Lanes)
				}
				if report.Elapsed > 8*time.Second+tt.longest {
					t.Errorf("it took %v", report.Elapsed)
				}
				if n := l.missing(c); n > tt.lost {
					t.Errorf("%d symbols missing, at most %d were under way", n, tt.lost)
				}
				if tt.bad.err == nil {
					equal(t, "failures told", report.Lanes[1].SendErrors > 0, true)
				}
				l.full(c, 1)
				l.stop()
				wantArrived(t, l.sink, c)
			})
		})
	}
}

// A pass of slowCargo takes 5 s over one of slowLanes: long, and not much to seal.
const (
	slowLanes = 10e6
	slowCargo = 6_000_000
)

// began is when the test at hand began, in its own time.
var began time.Time

func after(d time.Duration) func() bool { return func() bool { return time.Since(began) > d } }

// TestLaneComesBack: a lane that stalls for a while gets its share again.
func TestLaneComesBack(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		began = time.Now()
		l := newLanes(t, dir, linktest.Options{}, linktest.Options{})
		l.refused, l.rate = true, slowLanes
		c := newCargo(3, 10_000, slowCargo)
		later, over := after(1500*time.Millisecond), after(4*time.Second)
		bad := refusing{shut: func() bool { return later() && !over() }, slow: 700 * time.Millisecond}
		report, err := newSender(t, l.keys, nil, l.over(second(bad))).Send(t.Context(), c.transfer())
		if err != nil || report.Lanes[1].Err != nil {
			t.Fatalf("%v, lanes %+v", err, report.Lanes)
		}
		if a, b := report.Lanes[0].Source, report.Lanes[1].Source; b < a/4 || b >= a {
			t.Errorf("the lane that stalled carried %d symbols, the other %d", b, a)
		}
		l.full(c, 1)
		l.stop()
		wantArrived(t, l.sink, c)
	})
}

// pausing is a writer whose first call after a time takes long, and then succeeds.
type pausing struct {
	link.BatchWriter
	later func() bool
	pause time.Duration
	done  *bool
}

func (w pausing) WriteBatch(b []byte, segment int) error {
	if w.later() && !*w.done {
		*w.done = true
		wait(w.pause)
	}
	return w.BatchWriter.WriteBatch(b, segment)
}

// TestSlowLane: a lane that takes nothing for a while, and tells no error, holds the others for a second and no longer; nothing is lost.
func TestSlowLane(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		began = time.Now()
		l := newLanes(t, dir, linktest.Options{}, linktest.Options{})
		l.rate = slowLanes
		c, paused := newCargo(3, 10_000, slowCargo), false
		slow := func(i int, w link.BatchWriter) link.BatchWriter {
			if i != 1 {
				return w
			}
			return pausing{BatchWriter: w, later: after(1500 * time.Millisecond), pause: 20 * time.Second, done: &paused}
		}
		report, err := newSender(t, l.keys, nil, l.over(slow)).Send(t.Context(), c.transfer())
		if err != nil || report.Lanes[1].Err != nil {
			t.Fatalf("%v, lanes %+v", err, report.Lanes)
		}
		wait(3 * time.Second)
		equal(t, "missing", l.missing(c), int64(0))
		if report.Elapsed < 20*time.Second || report.Lanes[0].Source < 5*report.Lanes[1].Source {
			t.Errorf("after %v the lanes carried %d and %d", report.Elapsed, report.Lanes[0].Source, report.Lanes[1].Source)
		}
		l.stop()
		wantArrived(t, l.sink, c)
	})
}

// TestOneBrokenSocketEndsRun: an error of one socket of several is the error of Run, which never waits for the others.
func TestOneBrokenSocketEndsRun(t *testing.T) {
	_, one := linktest.Pair(linktest.Options{})
	_, two := linktest.Pair(linktest.Options{})
	h := receive(t, newKeys(73), nil, newSink(), t.TempDir(), func(c *link.ReceiverConfig) { c.Conns = []link.BatchReader{one, failingReader{two}} })
	if err := <-h.done; !errors.Is(err, errDevice) || !strings.Contains(err.Error(), "lane 2") {
		t.Errorf("Run: %v", err)
	}
	h.cancel()
}

// TestNoLaneLeft: the pass fails when no lane lives, and says why of each.
func TestNoLaneLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, _ := linktest.Pair(linktest.Options{})
		bad := refusing{BatchWriter: w, shut: always, err: errDevice}
		s := newSender(t, newKeys(71), nil, func(c *link.SenderConfig) {
			c.Lanes = []link.Lane{{Name: "a:1", Conn: bad, Rate: laneRate}, {Name: "b:2", Conn: bad, Rate: laneRate}}
		})
		_, err := s.Send(t.Context(), newCargo(1, 1000, 100_000).transfer())
		if !errors.Is(err, link.ErrLanes) || !errors.Is(err, errDevice) || !strings.Contains(err.Error(), "a:1") || !strings.Contains(err.Error(), "b:2") {
			t.Errorf("%v", err)
		}
		if err := s.Idle(t.Context()); !errors.Is(err, errDevice) {
			t.Errorf("idle: %v", err)
		}
		bad.err = nil
		s = newSender(t, newKeys(71), nil, func(c *link.SenderConfig) {
			c.Lanes = []link.Lane{{Name: "a:1", Conn: bad, Rate: laneRate}, {Name: "b:2", Conn: bad, Rate: laneRate}}
		})
		at := time.Now()
		if _, err = s.Send(t.Context(), newCargo(1, 1000, 100_000).transfer()); !errors.Is(err, link.ErrLanes) || !errors.Is(err, syscall.ENETDOWN) || time.Since(at) > 12*time.Second {
			t.Errorf("a host that refuses everything, after %v: %v", time.Since(at), err)
		}
	})
}

// TestLanesAreStopped: a context that ends is obeyed in mid-pass, and a payload that
// shrinks is an error, by all lanes.
func TestLanesAreStopped(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		l := newLanes(t, dir, linktest.Options{}, linktest.Options{})
		l.rate = slowLanes
		c := newCargo(1, 10_000, slowCargo)
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		report, err := newSender(t, l.keys, nil, l.over(nil)).Send(ctx, c.transfer())
		if !errors.Is(err, context.DeadlineExceeded) || report.Source == 0 {
			t.Errorf("%v after %d symbols", err, report.Source)
		}
		tr := c.transfer()
		tr.PayloadSize += 500_000
		if _, err := newSender(t, l.keys, nil, l.over(nil)).Send(t.Context(), tr); !errors.Is(err, link.ErrShort) {
			t.Errorf("a payload that shrank: %v", err)
		}
		l.stop()
	})
}

// TestLanesConfigured: what a sender does not take.
func TestLanesConfigured(t *testing.T) {
	k := newKeys(72)
	w, _ := linktest.Pair(linktest.Options{})
	one := link.Lane{Conn: w, Rate: 1e6}
	for name, list := range map[string][]link.Lane{
		"none": nil, "nine": {one, one, one, one, one, one, one, one, one}, "one unlimited": {one, {Conn: w}}, "no socket": {one, {Rate: 1e6}},
	} {
		_, err := link.NewSender(link.SenderConfig{Lanes: list, Profile: link.Profile1500, LinkKey: k.link, ReceiverKey: k.receiver})
		if !errors.Is(err, link.ErrConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := newSender(t, k, nil, func(c *link.SenderConfig) { c.Lanes = []link.Lane{one, one} })
	ramp := link.Calibration{From: 1e6, Until: 2e6, Step: time.Second}
	if err := s.Calibrate(t.Context(), ramp, func(link.SentStep) {}); !errors.Is(err, link.ErrConfig) {
		t.Errorf("calibrating two lanes: %v", err)
	}
	tr := newCargo(1, 100, 100).transfer()
	tr.Round = -1
	if _, err := s.Send(t.Context(), tr); !errors.Is(err, link.ErrConfig) {
		t.Errorf("round -1: %v", err)
	}
}

// TestRestartsBetweenRounds: the receiver, or the sender, or both restart between
// the rounds of a release with a dead lane.
func TestRestartsBetweenRounds(t *testing.T) {
	for _, receiver := range []bool{false, true} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			l := newLanes(t, dir, dead, linktest.Options{Drop: 0.01, Seed: 5})
			c := newCargo(4, 20_000, 3_000_000)
			l.full(c, 0) // each of them is a sender of its own
			if receiver {
				l.stop()
				l.spy.Restart()
				l.start()
			}
			l.full(c, 1)
			l.stop()
			wantArrived(t, l.sink, c)
		})
	}
}

// TestReorderedSessions: the sessions of two rounds over two lanes arrive one
// behind the other in any order, or all at once, each reordered in itself.
func TestReorderedSessions(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			dir, other := t.TempDir(), t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				random := rand.New(rand.NewPCG(seed, 70))
				c := newCargo(seed, 20_000, 1_000_000)
				tapes := record(t, other, c)
				random.Shuffle(len(tapes), func(i, j int) { tapes[i], tapes[j] = tapes[j], tapes[i] })
				l := linktest.New(linktest.Options{QueueLen: 100_000})
				s, k := newSink(), newKeys(70)
				h := receive(t, k, l.Reader(), s, dir, nil)
				replay(l, random, tapes, seed%2 == 0)
				wait(3 * time.Second)
				st := h.stop(t)
				equal(t, "sessions", len(st.Sessions), len(tapes))
				wantArrived(t, s, c)
			})
		})
	}
}

// record sends two rounds over two lanes and returns what each session put on the
// wire.
func record(t *testing.T, dir string, c cargo) (tapes [][][]byte) {
	t.Helper()
	l := newLanes(t, dir, linktest.Options{}, linktest.Options{})
	var mu sync.Mutex
	index := map[[8]byte]int{}
	tape := func(_ int, w link.BatchWriter) link.BatchWriter {
		return tapped{w, func(d []byte) {
			mu.Lock()
			defer mu.Unlock()
			id := [8]byte(d[4:12])
			if _, ok := index[id]; !ok {
				index[id] = len(tapes)
				tapes = append(tapes, nil)
			}
			tapes[index[id]] = append(tapes[index[id]], append([]byte(nil), d...))
		}}
	}
	for round := range 2 {
		tr := c.transfer()
		tr.Pass, tr.Round = round+1, round
		send(t, l.keys, nil, tr, l.over(tape))
	}
	l.high.stop(t)
	return tapes
}

// tapped shows each datagram before it is written.
type tapped struct {
	link.BatchWriter
	see func(d []byte)
}

func (w tapped) WriteBatch(b []byte, segment int) error {
	for at := 0; at < len(b); at += segment {
		w.see(b[at : at+segment])
	}
	return w.BatchWriter.WriteBatch(b, segment)
}

// replay brings the tapes, one after the other, or mixed. Each keeps its lead-in in
// front, and a pause behind it, as the sender does; the rest is shuffled in pieces.
func replay(l *linktest.Link, random *rand.Rand, tapes [][][]byte, mixed bool) {
	const leadIn, piece = 100, 500
	for _, tape := range tapes {
		for _, d := range tape[:leadIn] {
			l.Inject(d)
		}
		if !mixed {
			wait(time.Second)
			bring(l, random, tape[leadIn:], piece)
		}
	}
	wait(time.Second)
	for at := leadIn; mixed && at < len(tapes[0])+piece; at += piece {
		for _, tape := range tapes {
			bring(l, random, tape[min(at, len(tape)):min(at+piece, len(tape))], piece)
		}
	}
}

// bring injects datagrams, each piece of them in a random order.
func bring(l *linktest.Link, random *rand.Rand, tape [][]byte, piece int) {
	for at := 0; at < len(tape); at += piece {
		part := append([][]byte(nil), tape[at:min(at+piece, len(tape))]...)
		random.Shuffle(len(part), func(i, j int) { part[i], part[j] = part[j], part[i] })
		for _, d := range part {
			l.Inject(d)
		}
		wait(10 * time.Millisecond)
	}
}

// TestIdleLanes: heartbeats go over every lane, and a receiver that hears one lane
// and not the other says which. The lane is tried again and comes back.
func TestIdleLanes(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		began = time.Now()
		l := newLanes(t, dir, linktest.Options{}, linktest.Options{})
		l.refused = true
		later, over := after(20*time.Second), after(50*time.Second)
		bad := refusing{shut: func() bool { return later() && !over() }}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- newSender(t, l.keys, nil, l.over(second(bad))).Idle(ctx) }()
		silent := func(want ...int) {
			t.Helper()
			equal(t, "silent lanes", l.high.Status().SilentLanes(time.Now()), want)
		}
		wait(19 * time.Second)
		silent()
		wait(8 * time.Second)
		silent(2)
		wait(45 * time.Second)
		silent()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		l.stop()
	})
}
