// SPDX-License-Identifier: Apache-2.0

package link

// These tests are inside the package: they look at single steps (the window, the
// token clock, one datagram) that the outside sees only together.

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	mrand "math/rand/v2"
	"net"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudflare/circl/kem/xwing"
	"github.com/google/go-cmp/cmp"

	"sluice/pkg/fec"
)

// TestWindowAgainstSet compares the window with a set, over a walk of counters
// that goes forward, back, repeats and leaps.
func TestWindowAgainstSet(t *testing.T) {
	for seed := range uint64(20) {
		random := mrand.New(mrand.NewPCG(seed, 1))
		var w window
		set := make(map[uint64]bool)
		var top uint64
		for step := range 20_000 {
			counter := walk(random, top)
			want := fresh
			switch {
			case set[counter] && top-counter < windowReach:
				want = seen
			case len(set) > 0 && counter < top && top-counter >= windowReach:
				want = stale
			}
			if got := w.mark(counter); got != want {
				t.Fatalf("seed %d, step %d: counter %d under %d: verdict %d, want %d", seed, step, counter, top, got, want)
			}
			if want != stale {
				set[counter], top = true, max(top, counter)
			}
		}
	}
}

// walk draws the next counter.
func walk(random *mrand.Rand, top uint64) uint64 {
	switch random.IntN(10) {
	case 0:
		return top // the newest again
	case 1:
		return top - min(top, random.Uint64N(2*windowBits)) // far back
	case 2:
		return top + random.Uint64N(3*windowBits) // a leap
	case 3, 4:
		return top - min(top, random.Uint64N(300)) // reordering
	}
	return top + 1
}

func TestWindowEdges(t *testing.T) {
	var w window
	for _, tt := range []struct {
		counter uint64
		want    verdict
	}{
		{5, fresh},
		{5, seen},
		{0, fresh},
		{0, seen},
		{63, fresh},
		{64, fresh},
		{63, seen},
		{windowReach, fresh},
		{0, stale},
		{1, fresh},
		{windowReach + 1, fresh},
		{1, stale},
		{2, fresh},
		{10 * windowBits, fresh},
		{9*windowBits + wordBits + 1, fresh},
		{9*windowBits + wordBits, stale},
		{windowReach + 1, stale},
		{MaxSealed - 1, fresh},
		{MaxSealed - 1, seen},
		{MaxSealed - 2, fresh},
	} {
		if got := w.mark(tt.counter); got != tt.want {
			t.Errorf("counter %d: verdict %d, want %d", tt.counter, got, tt.want)
		}
	}
}

// TestPacer: over ten virtual seconds the stream has exactly the rate, whatever
// the batches are; and a sender that was stopped makes up 5 ms, not more.
func TestPacer(t *testing.T) {
	for _, rate := range []int64{1e6, 64e6, 1e9} {
		synctest.Test(t, func(t *testing.T) {
			p := pacer{rate: rate, next: time.Now()}
			start, sent := time.Now(), int64(0)
			for i := 0; time.Since(start) < 10*time.Second; i++ {
				count := 1 + i%44
				if err := p.wait(t.Context(), count*1452, count); err != nil {
					t.Fatal(err)
				}
				sent += int64(count) * (1452 + wireOverhead) * 8
			}
			// The batch under way at the end, and the one that waited for it, are over.
			over := float64(sent) - 10*float64(rate)
			if slack := 2*44*(1452+wireOverhead)*8 + float64(rate)*catchUp.Seconds(); over < 0 || over > slack {
				t.Errorf("rate %d: %.0f bits over in ten seconds, at most %.0f", rate, over, slack)
			}
		})
	}
}

func TestPacerCatchesUpALittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pacer{rate: 100e6, next: time.Now()}
		time.Sleep(time.Minute) //nolint:forbidigo // synctest's clock: the sender's disk hung
		start, burst := time.Now(), int64(0)
		for time.Since(start) == 0 {
			if err := p.wait(t.Context(), 1452, 1); err != nil {
				t.Fatal(err)
			}
			burst += (1452 + wireOverhead) * 8
		}
		if most := int64(100e6 * (catchUp.Seconds() + 0.001)); burst > most {
			t.Errorf("a burst of %d bits after a pause, at most %d", burst, most)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.wait(ctx, 1452, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("wait after the end: %v", err)
		}
	})
}

// countingWriter takes everything, or fails as told.
type countingWriter struct {
	datagrams int
	fail      error
}

func (w *countingWriter) WriteBatch(b []byte, segment int) error {
	w.datagrams += len(b) / segment
	return w.fail
}
func (w *countingWriter) Close() error { return nil }

// TestBatcherCounts: what the kernel does not take is counted; when nothing goes
// for ten seconds it is an error, and an error that is final is one at once.
func TestBatcherCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errQueue := errors.New("queue full")
		w := &countingWriter{fail: &SendError{Lost: 1 << 20, Err: errQueue}}
		b := newBatcher(w, 1452, 0)
		fill := func() error { b.next(); return b.flush(t.Context()) }
		for range 9 {
			if err := fill(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second) //nolint:forbidigo // synctest's clock
		}
		if b.failed != 9 || b.bytes != 0 {
			t.Errorf("failed %d, bytes %d", b.failed, b.bytes)
		}
		time.Sleep(2 * time.Second) //nolint:forbidigo // synctest's clock
		if err := fill(); !errors.Is(err, errQueue) {
			t.Errorf("after 11 s without success: %v", err)
		}
		w.fail = nil
		if err := fill(); err != nil || b.bytes != 1452 {
			t.Errorf("after it went again: %v, %d bytes", err, b.bytes)
		}
		w.fail = ErrTooLong
		if err := fill(); !errors.Is(err, ErrTooLong) {
			t.Errorf("final error: %v", err)
		}
	})
}

// TestBatchOfLowRate: at a low rate a batch is not a burst.
func TestBatchOfLowRate(t *testing.T) {
	for _, tt := range []struct {
		rate int64
		want int
	}{{0, 44}, {1e6, 1}, {100e6, 8}, {1e9, 44}, {40e9, 44}} {
		if got := newBatcher(nil, 1452, tt.rate).limit / 1452; got != tt.want {
			t.Errorf("rate %d: %d datagrams a batch, want %d", tt.rate, got, tt.want)
		}
	}
	if got := newBatcher(nil, 8940, 0).limit / 8940; got != 7 {
		t.Errorf("profile 2: %d datagrams a batch, want 7", got)
	}
}

// TestSessionGivesWayToTheNext lowers the limit of datagrams a key: the pass goes
// on in new sessions, none of which seals as many as the limit and its reserve.
func TestSessionGivesWayToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		linkKey, private, public := testKeys()
		_ = private
		w := &headerWriter{counters: make(map[[8]byte]uint64)}
		s, err := NewSender(SenderConfig{Lanes: []Lane{{Conn: w, Rate: 1e9}}, Profile: Profile1500, Groups: 2, Repair: 4, LinkKey: linkKey, ReceiverKey: public})
		if err != nil {
			t.Fatal(err)
		}
		s.sessionLimit = 300
		report, err := s.Send(t.Context(), Transfer{Release: [32]byte{1}, Envelope: zeros{}, EnvelopeSize: 100, Payload: zeros{}, PayloadSize: 2000 * 1408, Pass: 1, Source: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(w.counters) != report.Sessions || report.Sessions < 7 {
			t.Errorf("%d sessions seen, %d reported", len(w.counters), report.Sessions)
		}
		var sum uint64
		for id, n := range w.counters {
			sum += n
			if n > 300+64 {
				t.Errorf("session %x sealed %d", id, n)
			}
		}
		if sum != report.Sealed {
			t.Errorf("sealed %d, reported %d", sum, report.Sealed)
		}
	})
}

type zeros struct{}

func (zeros) ReadAt(b []byte, _ int64) (int, error) { clear(b); return len(b), nil }

// headerWriter checks that the counters of a session are 0, 1, 2, ...
type headerWriter struct {
	counters map[[8]byte]uint64
}

func (w *headerWriter) WriteBatch(b []byte, segment int) error {
	for ; len(b) > 0; b = b[segment:] {
		h, err := ParseHeader(b[:segment])
		if err != nil {
			return err
		}
		if h.Type == TypeAnnouncement {
			continue
		}
		if h.Counter != w.counters[h.Session] {
			return errors.New("a counter was left out or used twice")
		}
		w.counters[h.Session]++
	}
	return nil
}
func (w *headerWriter) Close() error { return nil }

func testKeys() (linkKey ed25519.PrivateKey, private, public []byte) {
	seed := sha256.Sum256([]byte("internal"))
	_, public = xwing.DeriveKeyPairPacked(seed[:])
	return ed25519.NewKeyFromSeed(seed[:]), seed[:], public
}

// shortReader ends too early.
type shortReader struct{ size int64 }

func (r shortReader) ReadAt(b []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(b)), r.size-off)))
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// TestShortObject: a payload or an envelope that shrinks while it is sent is an
// error, never zeros on the link.
func TestShortObject(t *testing.T) {
	linkKey, _, public := testKeys()
	for _, tt := range []struct {
		name              string
		envelope, payload int64 // real sizes
		source            bool
	}{{"envelope", 99, 100_000, true}, {"payload", 100, 99_999, true}, {"payload of a heal pass", 100, 99_999, false}} {
		synctest.Test(t, func(t *testing.T) {
			s, err := NewSender(SenderConfig{Lanes: []Lane{{Conn: &countingWriter{}}}, Profile: Profile1500, Groups: 2, Repair: 4, LinkKey: linkKey, ReceiverKey: public})
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Send(t.Context(), Transfer{
				Release: [32]byte{1}, Envelope: shortReader{tt.envelope}, EnvelopeSize: 100,
				Payload: shortReader{tt.payload}, PayloadSize: 100_000, Pass: 1, Source: tt.source,
			})
			if !errors.Is(err, ErrShort) {
				t.Errorf("%s: %v, want ErrShort", tt.name, err)
			}
		})
	}
}

// TestCarousel: one turn holds every symbol of every span once, and the repair
// symbols are those of the code.
func TestCarousel(t *testing.T) {
	for _, size := range []int64{1, 1408, 1409, 300_000, 900_000} {
		g, err := fec.New(size, 1408, 2)
		if err != nil {
			t.Fatal(err)
		}
		c, err := newCarousel(t.Context(), zeros{}, g)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second turn equals the first
			got := make(map[[2]uint32]bool)
			for range c.turn() {
				sbn, esi, symbol, err := c.step()
				if err != nil || len(symbol) != 1408 {
					t.Fatal(len(symbol), err)
				}
				if _, err := g.Span(int(sbn)).Locate(esi); err != nil {
					t.Fatal(err)
				}
				got[[2]uint32{sbn, esi}] = true
			}
			if int64(len(got)) != c.turn() {
				t.Errorf("size %d: %d different symbols in a turn of %d", size, len(got), c.turn())
			}
		}
	}
}

// nothing is a connection for tests that call the receiver's steps themselves.
type nothing struct{}

func (nothing) ReadBatch([]Buffer) (int, error) { return 0, net.ErrClosed }
func (nothing) Drops() uint64                   { return 0 }
func (nothing) Close() error                    { return nil }

// holder stores nothing.
type holder struct{}

func (holder) Put(uint32, uint32, []byte) (bool, error) { return true, nil }
func (holder) Flush(context.Context) error              { return nil }
func (holder) Complete() bool                           { return false }
func (holder) Refused() bool                            { return false }

// stepReceiver returns a receiver with one session whose release is accepted, and
// the cipher of that session.
func stepReceiver(t testing.TB) (*Receiver, *session, *sessionCipher) {
	t.Helper()
	linkKey, private, public := testKeys()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	opener, err := NewAnnouncementOpener(private, []ed25519.PublicKey{linkKey.Public().(ed25519.PublicKey)})
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewReceiver(ReceiverConfig{Conns: []BatchReader{nothing{}}, Opener: opener, Sink: refuser{}, Dir: root})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.close(); root.Close() })
	a := Announcement{Session: [8]byte{7}, Profile: Profile1500, Release: [32]byte{1}, EnvelopeSize: 1, PayloadSize: 1 << 40, Groups: 992, Pass: 1, Start: time.Unix(1, 0)}
	d, key, err := SealAnnouncement(rand.Reader, a, linkKey, public)
	if err != nil {
		t.Fatal(err)
	}
	r.datagram(d, time.Now())
	s := r.table.find(a.Session)
	if s == nil {
		t.Fatal("no session")
	}
	s.release.state, s.release.payload = ReleaseAccepted, holder{}
	c, err := newSessionCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	return r, s, c
}

// shelf is a payload of eight symbols that can be held.
type shelf struct {
	holder
	data         [8][1408]byte
	put          [8][1408]byte // what Put was given first
	have         [8]bool
	inPlace      int // symbols that came in their slot
	holds, frees int
}

func (s *shelf) Hold() Held { s.holds++; return (*heldShelf)(s) }

type heldShelf shelf

func (s *heldShelf) Slot(_, esi uint32) []byte {
	if esi >= uint32(len(s.have)) || s.have[esi] {
		return nil
	}
	return s.data[esi][:]
}

func (s *heldShelf) Put(_, esi uint32, symbol []byte) (bool, error) {
	if esi >= uint32(len(s.have)) {
		return true, nil // another shelf's
	}
	if &symbol[0] == &s.data[esi][0] {
		s.inPlace++
	} else if !s.have[esi] {
		copy(s.data[esi][:], symbol)
	}
	fresh := !s.have[esi]
	if fresh {
		copy(s.put[esi][:], symbol)
	}
	s.have[esi] = true
	return fresh, nil
}

func (s *heldShelf) Release() { s.frees++ }

// TestDecryptedInPlace: a symbol is decrypted where it belongs, a forgery changes nothing that is there, and the payload is held once a
// message.
func TestDecryptedInPlace(t *testing.T) {
	r, s, c := stepReceiver(t)
	p := &shelf{}
	s.release.payload = p
	var counter uint32
	datagram := func(esi uint32, fill byte) []byte {
		d := make([]byte, 1452)
		h := Header{Type: TypePayload, Profile: Profile1500, Session: s.announcement.Session, Counter: uint64(counter), ESI: esi}
		c.seal(d, h, bytes.Repeat([]byte{fill}, 1408))
		counter++
		return d
	}
	forged := func(esi uint32) []byte {
		d := datagram(esi, 99)
		d[40] ^= 1
		return d
	}
	message := slices.Concat(datagram(2, 12), forged(2), forged(3), datagram(3, 13), datagram(2, 12), datagram(4, 14))
	r.batch(&Buffer{Data: message, N: len(message), Segment: 1452}, time.Now())
	for esi, fill := range map[int]byte{2: 12, 3: 13, 4: 14} {
		if !bytes.Equal(p.data[esi][:], bytes.Repeat([]byte{fill}, 1408)) {
			t.Errorf("symbol %d was changed: %d", esi, p.data[esi][0])
		}
	}
	if p.inPlace != 3 || p.holds != 1 || p.frees != 1 {
		t.Errorf("%d symbols in place, held %d times and released %d times; want 3, 1 and 1", p.inPlace, p.holds, p.frees)
	}
	if s.ledger.rejected[reasonTag] != 2 || s.ledger.stored != 3 || s.ledger.held != 1 {
		t.Errorf("%+v", s.ledger)
	}
	one := &Buffer{Data: datagram(5, 1), N: 1452, Segment: 1452}
	if n := testing.AllocsPerRun(100, func() { r.batch(one, time.Unix(1, 0)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

type refuser struct{}

func (refuser) Envelope(context.Context, Announcement, io.ReaderAt, int64) (Payload, error) {
	return nil, errors.New("refused")
}

// TestNoAllocationADatagram: neither sealing nor receiving, nor a forgery,
// allocates.
func TestNoAllocationADatagram(t *testing.T) {
	r, s, c := stepReceiver(t)
	body, d := make([]byte, 1408), make([]byte, 1452)
	h := Header{Type: TypePayload, Profile: Profile1500, Session: s.announcement.Session}
	now := time.Now()
	seal := testing.AllocsPerRun(1000, func() { c.seal(d, h, body); h.Counter++ })
	receive := testing.AllocsPerRun(1000, func() { c.seal(d, h, body); h.Counter++; r.datagram(d, now) })
	forged := append([]byte(nil), d...)
	forged[1451] ^= 1
	tag := testing.AllocsPerRun(1000, func() { r.datagram(forged, now) })
	copy(forged, AppendHeader(nil, Header{Type: TypeAnnouncement, Profile: Profile1500}))
	mac := testing.AllocsPerRun(1000, func() { r.datagram(forged, now) })
	if got := []float64{seal, receive, tag, mac}; !cmp.Equal(got, make([]float64, 4)) {
		t.Errorf("allocations of seal, receive, forged tag, forged mac1: %v", got)
	}
	if s.ledger.stored != 1001 || s.ledger.rejected[reasonTag] != 1001 || r.total.rejected[reasonMAC1] != 1001 {
		t.Errorf("the steps did not take the paths meant: %+v", s.ledger)
	}
}

// FuzzDatagram feeds the receiver whatever comes, also in aggregates, and what a sender with the session's key might send: it never
// panics, never makes a session, its ledger always adds up, and what was put into the payload stays what it was. Every execution begins with the same state: where coverage depends
// on what came before, the fuzzer takes old inputs for new ones and minimizes them for a minute each.
func FuzzDatagram(f *testing.F) {
	r, s, c := stepReceiver(f)
	shelf := &shelf{}
	s.release.payload = shelf
	release, start := *s.release, time.Unix(1, 0)
	d := make([]byte, 1452)
	c.seal(d, Header{Type: TypePayload, Profile: Profile1500, Session: s.announcement.Session}, bytes.Repeat([]byte{5}, 1408))
	beat := make([]byte, 1452)
	c.seal(beat, Header{Type: TypeHeartbeat, Profile: Profile1500, Session: s.announcement.Session, Counter: 1}, AppendHeartbeat(nil, Heartbeat{Pass: 1, State: StateIdle}, Profile1500))
	f.Add(d, 1452, false)
	f.Add(append(append([]byte(nil), d...), d...), 1452, false)
	forged := make([]byte, 1452)
	c.seal(forged, Header{Type: TypePayload, Profile: Profile1500, Session: s.announcement.Session, Counter: 9}, bytes.Repeat([]byte{9}, 1408))
	forged[1451] ^= 1
	f.Add(append(append([]byte(nil), d...), forged...), 1452, false)
	f.Add(append(append([]byte(nil), d...), beat...), 1452, false)
	f.Add(AppendHeader(nil, Header{Type: TypeHeartbeat, Profile: Profile9000}), 28, false)
	f.Add([]byte{}, 0, false)
	f.Add([]byte{magic}, -1, false)
	f.Add(AppendHeader(nil, Header{Type: TypePayload, Counter: 1<<32 - 1, SBN: 1, ESI: 1}), HeaderSize, true)
	f.Add(append(AppendHeader(nil, Header{Type: TypeHeartbeat}), appendHeartbeatFields(nil, Heartbeat{Pass: 1, State: StateIdle})...), HeaderSize+heartbeatSize, true)
	sealed := make([]byte, 0, BufferSize)
	f.Fuzz(func(t *testing.T, data []byte, segment int, genuine bool) {
		if len(data) > BufferSize {
			return
		}
		r.total, s.window, s.ledger, s.heartbeat, *s.release = totals{}, window{}, ledger{}, Heartbeat{}, release
		shelf.data, shelf.have, shelf.holds, shelf.frees = [8][1408]byte{}, [8]bool{}, 0, 0
		if genuine {
			data, segment = seals(sealed, s, c, data, segment), len(d)
		}
		r.batch(&Buffer{Data: data, N: len(data), Segment: segment}, start)
		r.jobs.Wait()
		for len(r.events) > 0 {
			r.finished(<-r.events, start)
		}
		if len(r.table.sessions) != 1 || r.broken != nil {
			t.Fatalf("%d sessions, broken: %v", len(r.table.sessions), r.broken)
		}
		for esi, have := range shelf.have {
			if have && shelf.data[esi] != shelf.put[esi] {
				t.Fatalf("symbol %d is no longer what was put", esi)
			}
		}
		if shelf.holds != shelf.frees {
			t.Fatalf("held %d times and released %d times", shelf.holds, shelf.frees)
		}
		sum := r.total.announcements + r.total.authentic + r.total.duplicates
		for _, n := range r.total.rejected {
			sum += n
		}
		if sum != r.total.received {
			t.Fatalf("received %d, accounted for %d", r.total.received, sum)
		}
		if l := s.ledger; l.authentic != l.envelope+l.stored+l.held+l.early+l.refused+l.heartbeats+l.malformed {
			t.Fatalf("authentic, and not all accounted for: %+v", l)
		}
		if genuine && r.total.rejected[reasonTag] > 0 {
			t.Fatal("what was sealed was not opened: the target tries nothing")
		}
	})
}

// seals makes sealed datagrams of the session out of pieces of data: each is a header, of which magic, profile and session are put
// right, and the beginning of a body.
func seals(into []byte, s *session, c *sessionCipher, data []byte, piece int) []byte {
	size := Profile1500.DatagramSize()
	body := make([]byte, Profile1500.SymbolSize())
	for ; len(data) > 0 && len(into)+size <= cap(into); data = data[min(len(data), max(piece, HeaderSize)):] {
		var h [HeaderSize]byte
		n := copy(h[:], data)
		clear(body)
		copy(body, data[n:min(len(data), max(piece, HeaderSize))])
		c.seal(into[len(into):len(into)+size], Header{
			Type: TypeEnvelope + Type(h[1]%3), Profile: Profile1500, Session: s.announcement.Session,
			Counter: binary.BigEndian.Uint64(h[12:20]), SBN: binary.BigEndian.Uint32(h[20:24]), ESI: binary.BigEndian.Uint32(h[24:28]),
		}, body)
		into = into[:len(into)+size]
	}
	return into
}

func TestKernelVersions(t *testing.T) {
	for _, tt := range []struct {
		release string
		broken  bool
	}{
		{"6.17.0-41-generic", false},
		{"6.18.44-fc-v595", false},
		{"7.0.0-rc1", true},
		{"7.0.0", true},
		{"7.0.12-amd64", true},
		{"7.1", true},
		{"7.1.4", true},
		{"7.1.4+", true},
		{"7.1.5", false},
		{"7.2.0", false},
		{"8.0", false},
		{"", false},
		{"unknown", false},
		{"7", true},
		{"7.0.", true},
		{"6.1.0.2.3", false},
		{"7.99999999999999999999", false},
	} {
		if got, _ := GSOBroken(tt.release); got != tt.broken {
			t.Errorf("%q: broken %v, want %v", tt.release, got, tt.broken)
		}
	}
}

func TestExtendDrops(t *testing.T) {
	var count uint64
	for _, tt := range []struct {
		reading uint32
		want    uint64
	}{{0, 0}, {7, 7}, {5, 7}, {1 << 31, 1 << 31}, {1<<32 - 1, 1<<32 - 1}, {3, 1<<32 + 3}, {1<<32 - 1, 1<<32 + 3}} {
		if count = extendDrops(count, tt.reading); count != tt.want {
			t.Errorf("reading %d: %d, want %d", tt.reading, count, tt.want)
		}
	}
}
