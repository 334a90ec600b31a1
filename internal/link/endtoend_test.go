// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"sluice/internal/link"
	"sluice/internal/link/linktest"
)

// TestLossyLink sends a release over links that lose, damage, repeat and reorder,
// in virtual time. The payload must arrive whole in the stated number of passes,
// nothing altered may be accepted, and the ledger must agree with an independent
// count to the datagram.
func TestLossyLink(t *testing.T) {
	tests := []struct {
		name   string
		faults linktest.Options
		passes int // that it may take at most
	}{
		{"clean", linktest.Options{}, 1},
		{"loss 1 %", linktest.Options{Drop: 0.01}, 1},
		{"loss 5 %", linktest.Options{Drop: 0.05}, 2},
		{"bursts", linktest.Options{Burst: linktest.Burst{P: 0.0005, R: 0.05}}, 1},
		{"outage of 38 symbols", linktest.Options{Outage: []linktest.Outage{{From: 1200, Count: 38}}}, 1},
		{"outage of 120 symbols", linktest.Options{Outage: []linktest.Outage{{From: 1200, Count: 120}}}, 4},
		{"outage of a span", linktest.Options{Outage: []linktest.Outage{{From: 1200, Count: 384}}}, 5},
		{"duplicates", linktest.Options{Duplicate: 0.1}, 1},
		{"reordering", linktest.Options{Reorder: 0.1}, 1},
		{"corruption", linktest.Options{Corrupt: 0.02}, 1},
		{"all at once", linktest.Options{Drop: 0.01, Burst: linktest.Burst{P: 0.0002, R: 0.05}, Duplicate: 0.02, Reorder: 0.05, Corrupt: 0.005}, 3},
	}
	for _, tt := range tests {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("%s/seed %d", tt.name, seed), func(t *testing.T) {
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) {
					tt.faults.Seed = seed
					lossyLink(t, dir, tt.faults, tt.passes)
				})
			})
		}
	}
}

func lossyLink(t *testing.T, dir string, faults linktest.Options, passes int) {
	k, c, s, spy := newKeys(1), newCargo(faults.Seed, 50_000, 2_000_000), newSink(), linktest.NewSpy()
	faults.Tap = spy.Tap
	l := linktest.New(faults)
	h := receive(t, k, spy.Watch(l.Reader()), s, dir, nil)
	var reports []link.SendReport
	for pass := 1; pass <= passes; pass++ {
		reports = append(reports, send(t, k, l.Writer(), c.pass(pass), nil))
		wait(3 * time.Second)
		if m := s.payload(c.release); m != nil && m.Complete() {
			break
		}
	}
	l.Release()
	wait(time.Second)
	st := h.stop(t)
	wantArrived(t, s, c)
	if err := spy.Check(st); err != nil {
		t.Error(err)
	}
	n := l.Counters()
	equal(t, "received and delivered", st.Received, n.Delivered)
	equal(t, "delivered and written", n.Delivered, n.Written-n.Dropped+n.Duplicated)
	equal(t, "altered and corrupted", spy.Altered(), n.Corrupted)
	for _, report := range reports {
		// Only the closing heartbeats may be unheard of: 16, then nothing follows.
		if sent := session(t, st, report.Session).Sent; sent > report.Sealed || report.Sealed-sent > 15 {
			t.Errorf("session %x: the ledger knows of %d sent, the sender sealed %d", report.Session, sent, report.Sealed)
		}
		if n.Dropped+n.Corrupted == 0 {
			equal(t, "authentic and sealed", session(t, st, report.Session).Authentic, report.Sealed)
		}
	}
}

// pass returns the transfer of pass n: source and 20 rows, three heal passes with
// the other 44 rows, and then a full carousel.
func (c cargo) pass(n int) link.Transfer {
	tr := c.transfer()
	tr.Pass = n
	if n > 1 && n < 5 {
		tr.Source, tr.FirstRow, tr.Rows = false, 20*(n-1), min(20, 64-20*(n-1))
	}
	return tr
}

// TestLateJoiner starts the receiver in the middle of pass 1: it takes what is
// left of it and completes in a full carousel.
func TestLateJoiner(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k, c, s, spy := newKeys(2), newCargo(1, 5_000, 12_000_000), newSink(), linktest.NewSpy()
		l := linktest.New(linktest.Options{QueueLen: 200, Tap: spy.Tap}) // nobody listens: the queue overflows
		sent := make(chan link.SendReport)
		slow := func(c *link.SenderConfig) { c.Lanes[0].Rate = 40e6 } // 2.8 s of payload
		go func() { sent <- send(t, k, l.Writer(), c.transfer(), slow) }()
		wait(1500 * time.Millisecond)
		overflowed := l.Counters().Overflowed
		if overflowed == 0 {
			t.Error("the receiver was not late")
		}
		h := receive(t, k, spy.Watch(l.Reader()), s, dir, nil)
		first := <-sent
		wait(3 * time.Second)
		if s.payload(c.release).Complete() {
			t.Error("complete without the symbols that were lost")
		}
		second := send(t, k, l.Writer(), c.pass(5), nil)
		wait(time.Second)
		st := h.stop(t)
		wantArrived(t, s, c)
		if err := spy.Check(st); err != nil {
			t.Error(err)
		}
		equal(t, "kernel drops", st.KernelDrops, l.Counters().Overflowed)
		equal(t, "second pass", session(t, st, second.Session).Missing, uint64(0))
		if ss := session(t, st, first.Session); ss.Missing == 0 || ss.Stored == 0 {
			t.Errorf("late joiner: %d missing, %d stored", ss.Missing, ss.Stored)
		}
	})
}

// TestReceiverRestart stops the receiver in the middle of a session and starts
// another over the same directory and socket. What queued meanwhile is received,
// and the session goes on although its announcement is not heard again: a
// reader that swallows announcements proves that the kept one is used.
func TestReceiverRestart(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k, c, s := newKeys(3), newCargo(1, 20_000, 4_000_000), newSink()
		l := linktest.New(linktest.Options{})
		h := receive(t, k, l.Reader(), s, dir, nil)
		sent := make(chan link.SendReport)
		go func() { sent <- send(t, k, l.Writer(), c.transfer(), nil) }()
		wait(1300 * time.Millisecond)
		before := h.stop(t)
		if len(before.Sessions) != 1 || before.Sessions[0].Stored == 0 {
			t.Errorf("not in mid-session: %+v", before)
		}
		wait(20 * time.Millisecond) // datagrams queue in the socket
		h = receive(t, k, deaf{l.Reader()}, s, dir, nil)
		report := <-sent
		wait(time.Second)
		after := h.stop(t)
		wantArrived(t, s, c)
		equal(t, "asked, once a process", s.timesAsked(), 2)
		a, b := session(t, before, report.Session), session(t, after, report.Session)
		equal(t, "sent", b.Sent, report.Sealed)
		equal(t, "early, although the envelope is verified anew", b.Early, uint64(0))
		equal(t, "authentic of both lives", a.Authentic+b.Authentic, report.Sealed)
		equal(t, "announcements heard by the second", after.Announcements, uint64(0))
		if b.First == 0 {
			t.Error("the second process counted from 0")
		}
	})
}

// deaf swallows announcements.
type deaf struct{ link.BatchReader }

func (d deaf) ReadBatch(bufs []link.Buffer) (int, error) {
	n, err := d.BatchReader.ReadBatch(bufs)
	for i := range bufs[:n] {
		b := &bufs[i]
		kept := 0
		for at := 0; at < b.N; at += b.Segment {
			if b.Data[at+1] != byte(link.TypeAnnouncement) {
				kept += copy(b.Data[kept:], b.Data[at:at+b.Segment])
			}
		}
		b.N = kept
	}
	return compact(bufs[:n]), err
}

// compact drops empty buffers, keeping each Data in the list.
func compact(bufs []link.Buffer) int {
	kept := 0
	for i := range bufs {
		if bufs[i].N > 0 {
			bufs[kept], bufs[i] = bufs[i], bufs[kept]
			kept++
		}
	}
	return kept
}

// TestTwoSessions sends two releases by two senders at once.
func TestTwoSessions(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k, s, spy := newKeys(4), newSink(), linktest.NewSpy()
		cargos := []cargo{newCargo(1, 30_000, 1_500_000), newCargo(2, 60_000, 1_000_000)}
		l := linktest.New(linktest.Options{Seed: 7, Drop: 0.01, Reorder: 0.01, Tap: spy.Tap})
		h := receive(t, k, spy.Watch(l.Reader()), s, dir, nil)
		var wg sync.WaitGroup
		for _, c := range cargos {
			wg.Go(func() { send(t, k, l.Writer(), c.transfer(), nil) })
		}
		wg.Wait()
		wait(time.Second)
		l.Release()
		wait(time.Second)
		st := h.stop(t)
		equal(t, "sessions", len(st.Sessions), 2)
		if err := spy.Check(st); err != nil {
			t.Error(err)
		}
		for _, c := range cargos {
			wantArrived(t, s, c)
		}
	})
}

// TestForgedFlood sends forgeries of every kind at ten times the genuine rate:
// no session is made, every one is counted under its reason, and the genuine
// transfer is unharmed.
func TestForgedFlood(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k, stranger, c, s := newKeys(5), newKeys(6), newCargo(1, 30_000, 1_000_000), newSink()
		l := linktest.New(linktest.Options{})
		h := receive(t, k, l.Reader(), s, dir, nil)
		sent := make(chan link.SendReport)
		go func() { sent <- send(t, k, l.Writer(), c.transfer(), nil) }()
		wait(120 * time.Millisecond)
		want := flood(t, l, k, stranger, h.Sessions()[0].Session)
		report := <-sent
		wait(time.Second)
		st := h.stop(t)
		wantArrived(t, s, c)
		equal(t, "sessions", len(st.Sessions), 1)
		equal(t, "rejected", st.Rejected, want)
		equal(t, "genuine datagrams", session(t, st, report.Session).Authentic, report.Sealed)
		equal(t, "missing", session(t, st, report.Session).Missing, uint64(0))
	})
}

// flood injects forged datagrams and returns how each must be counted.
func flood(t *testing.T, l *linktest.Link, k, stranger keys, genuine [8]byte) map[string]uint64 {
	const each = 1000
	noise := pseudo(99, link.MaxDatagram)
	forge := func(h link.Header) []byte {
		d := link.AppendHeader(nil, h)
		return append(d, noise[:h.Profile.DatagramSize()-len(d)]...)
	}
	other := [8]byte{1, 2, 3}
	for i := range uint64(each) {
		l.Inject(noise[:100+i])                                                                                                 // length
		l.Inject(forge(link.Header{Type: link.TypeAnnouncement, Profile: link.Profile1500, Session: [8]byte{byte(i), 1}}))      // mac1
		l.Inject(forge(link.Header{Type: link.TypePayload, Profile: link.Profile1500, Session: other, Counter: i}))             // session
		l.Inject(forge(link.Header{Type: link.TypePayload, Profile: link.Profile1500, Session: genuine, Counter: i}))           // tag
		l.Inject(forge(link.Header{Type: link.TypeHeartbeat, Profile: link.Profile1500, Session: genuine, Counter: 1<<32 - 1})) // tag
		l.Inject(forge(link.Header{Type: link.TypePayload, Profile: link.Profile1500, Session: genuine, Counter: 1 << 32}))     // counter
		l.Inject(forge(link.Header{Type: link.TypePayload, Profile: link.Profile9000, Session: genuine}))                       // profile
	}
	// Somebody who knows the receiver's public key, but has no link key.
	for i := range 200 {
		a := announcement(byte(i))
		d, _, err := link.SealAnnouncement(fixedRandom(uint64(i)), a, stranger.link, k.receiver)
		if err != nil {
			t.Error(err)
		}
		l.Inject(d)
	}
	noiseReason := "magic" // the noise does not begin with ours
	return map[string]uint64{
		noiseReason: each, "mac1": each, "session": each, "tag": 2 * each, "counter": each, "profile": each,
		"signature": 63, "limit": 137,
	} // one of the 64 checks of this second was the genuine session's
}

// announcement returns a valid one.
func announcement(n byte) link.Announcement {
	return link.Announcement{
		Session: [8]byte{n, 0xAA}, Profile: link.Profile1500, Release: [32]byte{1, n}, EnvelopeSHA256: [32]byte{2, n},
		EnvelopeSize: 1000, PayloadSize: 1 << 20, Groups: 4, Pass: 1, Start: time.Unix(1_800_000_000, 0).UTC(),
	}
}

// TestTableIsCapped announces, genuinely, far more releases than are held, two
// sessions each: the envelope objects stay at 8, and with them the kept
// announcements. Idle sessions beside them stay at what is left of 32.
func TestTableIsCapped(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const lanes, releases = 2, 40
		k, s := newKeys(7), newSink()
		l := linktest.New(linktest.Options{})
		h := receive(t, k, l.Reader(), s, dir, nil)
		announce := func(a link.Announcement) {
			d, _, err := link.SealAnnouncement(fixedRandom(uint64(a.Session[2])<<8|uint64(a.Session[0])), a, k.link, k.receiver)
			if err != nil {
				t.Fatal(err)
			}
			l.Inject(d)
			wait(50 * time.Millisecond)
		}
		for i := range releases {
			for lane := range lanes {
				a := announcement(byte(i))
				a.Session[2] = byte(lane)
				announce(a)
			}
		}
		entries := func(what string, want int) {
			list, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			equal(t, what, len(list), want)
		}
		wait(time.Second)
		equal(t, "sessions", len(h.Sessions()), lanes*link.MaxReleases)
		for _, ss := range h.Sessions() {
			if ss.Session[0] < releases-link.MaxReleases {
				t.Errorf("session %d is held: the release unheard of longest did not give way", ss.Session[0])
			}
		}
		entries("files kept", (lanes+1)*link.MaxReleases)
		for i := range 2 * link.MaxSessions {
			announce(link.Announcement{Session: [8]byte{byte(i), 0xBB}, Profile: link.Profile1500, Groups: 4, Pass: 1, Start: time.Unix(1_800_000_000, 0).UTC()})
		}
		st := h.stop(t)
		equal(t, "sessions beside idle ones", len(st.Sessions), link.MaxSessions)
		entries("files kept beside idle ones", link.MaxSessions)
	})
}

var errRollback = errors.New("older than what is held")

// TestReplayedSession records the whole first session and replays it after a
// newer release was taken: it is authentic, so it is counted; the sink refuses
// it, and not a byte of it is stored.
func TestReplayedSession(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k, s := newKeys(8), newSink()
		older, newer := newCargo(1, 10_000, 500_000), newCargo(2, 10_000, 500_000)
		var tape [][]byte
		record := linktest.New(linktest.Options{Tap: func(d []byte) { tape = append(tape, append([]byte(nil), d...)) }})
		blind := receive(t, k, record.Reader(), newSink(), t.TempDir(), nil)
		send(t, k, record.Writer(), older.transfer(), nil)
		blind.stop(t)

		s.verify = func(a link.Announcement, _ []byte) error {
			if a.Release == older.release {
				return errRollback
			}
			return nil
		}
		l := linktest.New(linktest.Options{})
		h := receive(t, k, l.Reader(), s, dir, nil)
		send(t, k, l.Writer(), newer.transfer(), nil)
		for range 2 {
			for _, d := range tape {
				l.Inject(d)
			}
			wait(3 * time.Second)
		}
		st := h.stop(t)
		wantArrived(t, s, newer)
		equal(t, "sessions", len(st.Sessions), 2)
		for _, ss := range st.Sessions {
			if ss.Release != link.ReleaseRefused {
				continue
			}
			equal(t, "stored of the replay", ss.Stored, uint64(0))
			equal(t, "second replay", ss.Duplicates, ss.Authentic)
			if ss.Refused+ss.Early == 0 {
				t.Error("nothing of the replay was counted")
			}
		}
	})
}

// TestRefusedThenAccepted: a release is refused for want of space, and accepted
// when the next session brings it again.
func TestRefusedThenAccepted(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k, c, s := newKeys(9), newCargo(1, 10_000, 500_000), newSink()
		full := true
		s.verify = func(link.Announcement, []byte) error {
			if full {
				return errors.New("no space")
			}
			return nil
		}
		l := linktest.New(linktest.Options{})
		h := receive(t, k, l.Reader(), s, dir, nil)
		first := send(t, k, l.Writer(), c.transfer(), nil)
		wait(time.Second)
		ss := session(t, h.Status(), first.Session)
		equal(t, "state", ss.Release, link.ReleaseRefused)
		equal(t, "reason", ss.Reason, "no space")
		equal(t, "refused", ss.Refused, first.Source+first.Repair)
		full = false
		send(t, k, l.Writer(), c.pass(5), nil)
		wait(time.Second)
		h.stop(t)
		wantArrived(t, s, c)
		equal(t, "asked", s.timesAsked(), 2)
	})
}

// TestAcceptedThenRefused: a release that was accepted, and refused when its
// bytes were looked at, is asked about again by the next session, not by the one
// that goes on.
func TestAcceptedThenRefused(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k, c, s := newKeys(10), newCargo(1, 10_000, 500_000), newSink()
		var refused atomic.Bool
		s.wrap = func(p link.Payload) link.Payload { return &refusable{p, &refused} }
		l := linktest.New(linktest.Options{})
		h := receive(t, k, l.Reader(), s, dir, nil)
		send(t, k, l.Writer(), c.transfer(), nil)
		wait(3 * time.Second)
		equal(t, "asked", s.timesAsked(), 1)
		send(t, k, l.Writer(), c.pass(2), nil)
		wait(3 * time.Second)
		equal(t, "asked while accepted", s.timesAsked(), 1)
		refused.Store(true)
		wait(3 * time.Second)
		equal(t, "asked without a session", s.timesAsked(), 1)
		report := send(t, k, l.Writer(), c.pass(3), nil)
		wait(3 * time.Second)
		equal(t, "asked once refused", s.timesAsked(), 2)
		equal(t, "state", session(t, h.Status(), report.Session).Release, link.ReleaseAccepted)
		h.stop(t)
		wantArrived(t, s, c)
	})
}

// refusable is a payload whose release may be refused.
type refusable struct {
	link.Payload
	refused *atomic.Bool
}

func (p *refusable) Refused() bool { return p.refused.Load() }

// begunAgain is a payload that was whole after so many symbols, was found damaged
// then, and is received again.
type begunAgain struct {
	link.Payload
	mu     sync.Mutex
	whole  int // symbols
	taken  int
	after  int // of them, since it began again
	rounds int64
}

func (p *begunAgain) Round() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rounds
}

func (p *begunAgain) Put(sbn, esi uint32, symbol []byte) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken++; p.rounds > 0 {
		p.after++
	} else if p.taken == p.whole {
		p.rounds++
	}
	return true, nil
}

func (p *begunAgain) takenSince() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.after
}

// TestBegunAgain: what a session still sends when the release it brought was found
// damaged is not taken, for it may be made of what was damaged; the next session's
// is.
func TestBegunAgain(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k, c, s := newKeys(10), newCargo(1, 10_000, 500_000), newSink()
		again := &begunAgain{whole: 300} // of 356 source symbols, and the repair
		s.wrap = func(p link.Payload) link.Payload {
			again.Payload = p
			return again
		}
		l := linktest.New(linktest.Options{})
		h := receive(t, k, l.Reader(), s, dir, nil)
		first := send(t, k, l.Writer(), c.transfer(), nil)
		wait(3 * time.Second)
		equal(t, "taken of the session that was under way", again.takenSince(), 0)
		ss := session(t, h.Status(), first.Session)
		equal(t, "stored", ss.Stored, uint64(300))
		equal(t, "stored, and held already or not wanted", ss.Stored+ss.Held, first.Source+first.Repair)
		second := send(t, k, l.Writer(), c.pass(2), nil)
		wait(3 * time.Second)
		equal(t, "taken of the next", again.takenSince(), int(second.Source+second.Repair))
		h.stop(t)
	})
}

// brokenPayload fails as a disk does.
type brokenPayload struct{ link.Payload }

func (brokenPayload) Put(uint32, uint32, []byte) (bool, error) {
	return false, fmt.Errorf("%w: I/O error", link.ErrBroken)
}

// TestBrokenStorageEndsRun: a receiver never goes on over storage that fails.
func TestBrokenStorageEndsRun(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k, c, s := newKeys(10), newCargo(1, 10_000, 500_000), newSink()
		s.wrap = func(p link.Payload) link.Payload { return brokenPayload{p} }
		l := linktest.New(linktest.Options{QueueLen: 100_000})
		h := receive(t, k, l.Reader(), s, dir, nil)
		send(t, k, l.Writer(), c.transfer(), nil)
		if err := <-h.done; !errors.Is(err, link.ErrBroken) {
			t.Errorf("Run: %v, want ErrBroken", err)
		}
		h.cancel()
	})
}

// TestFlush: payloads are flushed at the end of each pass, and on a quiet link.
func TestFlush(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k, c, s := newKeys(11), newCargo(1, 10_000, 2_000_000), newSink()
		l := linktest.New(linktest.Options{})
		h := receive(t, k, l.Reader(), s, dir, nil)
		ctx, cancel := context.WithCancel(context.Background())
		failed := make(chan error)
		go func() {
			_, err := newSender(t, k, l.Writer(), nil).Send(ctx, c.transfer())
			failed <- err
		}()
		wait(1200 * time.Millisecond) // in the payload
		cancel()                      // the sender dies without a word
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("Send: %v", err)
		}
		wait(time.Second)
		if n := s.payload(c.release).Flushes(); n != 0 {
			t.Errorf("%d flushes on a link quiet for one second", n)
		}
		wait(1500 * time.Millisecond)
		equal(t, "flushes on a quiet link", s.payload(c.release).Flushes(), 1)
		send(t, k, l.Writer(), c.pass(5), nil)
		wait(time.Second)
		equal(t, "flushes after the pass", s.payload(c.release).Flushes(), 2)
		h.stop(t)
		wantArrived(t, s, c)
		equal(t, "flushes in the end", s.payload(c.release).Flushes(), 2)

		// The process before may have died between its last symbol and its Flush.
		h = receive(t, k, l.Reader(), s, dir, nil)
		wait(3 * time.Second)
		equal(t, "flushes of a restarted receiver", s.payload(c.release).Flushes(), 3)
		h.stop(t)
	})
}

// TestIdle: heartbeats of an idle session are heard and nothing else happens; the
// metrics say so.
func TestIdle(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k, s := newKeys(12), newSink()
		registry := prometheus.NewPedanticRegistry()
		var heard int
		l := linktest.New(linktest.Options{})
		h := receive(t, k, l.Reader(), s, dir, func(c *link.ReceiverConfig) {
			c.Registerer = registry
			c.Progress = func(link.ReceiveProgress) { heard++ }
		})
		ctx, cancel := context.WithCancel(context.Background())
		sender := newSender(t, k, l.Writer(), nil)
		ended := make(chan error)
		go func() { ended <- sender.Idle(ctx) }()
		wait(10*time.Second + 100*time.Millisecond)
		if err := sender.Idle(ctx); !errors.Is(err, link.ErrBusy) {
			t.Errorf("a second Idle: %v, want ErrBusy", err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Idle: %v", err)
		}
		wait(time.Second)
		st := h.stop(t)
		equal(t, "heartbeats", st.Sessions[0].Heartbeats, uint64(11))
		equal(t, "state", st.Sessions[0].State, link.StateIdle)
		equal(t, "release", st.Sessions[0].Release, link.ReleaseState(""))
		if heard < 10 {
			t.Errorf("Progress called %d times in 10 s of heartbeats", heard)
		}
		if n := testutil.CollectAndCount(registry); n != 16+5+13 {
			t.Errorf("%d metrics", n)
		}
	})
}

// orderPayload writes down the order of symbols.
type orderPayload struct {
	link.Payload
	order *[]uint64
}

func (p orderPayload) Put(sbn, esi uint32, symbol []byte) (bool, error) {
	*p.order = append(*p.order, uint64(sbn)<<32|uint64(esi))
	return p.Payload.Put(sbn, esi, symbol)
}

// TestOrderOfSending checks section 5: source in order; the repair rows of span s
// spread evenly through span s+1, those of the last span behind it; one envelope
// symbol in 256.
func TestOrderOfSending(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k, c, s := newKeys(13), newCargo(1, 10_000, 3*384*1408-700), newSink()
		var order []uint64
		s.wrap = func(p link.Payload) link.Payload { return orderPayload{p, &order} }
		var types []link.Type
		l := linktest.New(linktest.Options{Tap: func(d []byte) { types = append(types, link.Type(d[1])) }})
		h := receive(t, k, l.Reader(), s, dir, nil)
		report := send(t, k, l.Writer(), c.transfer(), nil)
		wait(time.Second)
		st := h.stop(t)
		wantArrived(t, s, c)
		wantCarousel(t, types, report.Source+report.Repair)
		equal(t, "symbols", uint64(len(order)), report.Source+report.Repair)
		equal(t, "source", report.Source, uint64(3*384))
		equal(t, "repair", report.Repair, uint64(3*20*testGroups))
		envelope := uint64(8 + 64) // N and 64 rows of one group
		equal(t, "envelope", report.Envelope, 2*envelope+(report.Source+report.Repair)/256)
		equal(t, "envelope received", session(t, st, report.Session).Envelope, report.Envelope)
		equal(t, "order", order, wantOrder(3, 384, 20*testGroups))
	})
}

// wantCarousel checks that an envelope symbol follows every 256th payload symbol,
// and no other, until the last.
func wantCarousel(t *testing.T, types []link.Type, total uint64) {
	t.Helper()
	payload := uint64(0)
	for i, typ := range types {
		switch {
		case typ == link.TypePayload:
			payload++
			if payload%256 == 0 && types[i+1] != link.TypeEnvelope {
				t.Errorf("payload symbol %d is not followed by one of the envelope", payload)
			}
		case typ == link.TypeEnvelope && payload > 0 && payload < total && payload%256 != 0:
			t.Errorf("an envelope symbol after %d payload symbols", payload)
		}
	}
}

// wantOrder computes the order of section 5 in another way than the sender: the
// i-th repair symbol of a span follows source symbol ceil((i+1)*n/m)-1 of the next.
func wantOrder(spans, n, m int) []uint64 {
	var order []uint64
	repair := func(sbn, i int) uint64 { return uint64(sbn)<<32 | uint64(192*testGroups+i) }
	for sbn := range spans {
		next := 0
		for i := range n {
			order = append(order, uint64(sbn)<<32|uint64(i))
			for sbn > 0 && next < m && ((next+1)*n+m-1)/m-1 == i {
				order = append(order, repair(sbn-1, next))
				next++
			}
		}
	}
	for i := range m {
		order = append(order, repair(spans-1, i))
	}
	return order
}

// fixedRandom is a stream for reproducible encapsulations.
func fixedRandom(seed uint64) *fixed { return &fixed{seed: seed} }

type fixed struct{ seed, n uint64 }

func (f *fixed) Read(b []byte) (int, error) {
	for i := range b {
		f.n++
		b[i] = byte(f.seed + f.n*131)
	}
	return len(b), nil
}
