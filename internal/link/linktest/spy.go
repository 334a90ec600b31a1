// SPDX-License-Identifier: Apache-2.0

package linktest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"

	"sluice/internal/link"
)

// ErrLedger says that a receiver's ledger is not what happened.
var ErrLedger = errors.New("linktest: the ledger is wrong")

// Spy counts the datagrams of a link a second time, independently of the
// receiver: what was written (it is the link's Tap), and what the receiver read
// (it stands between). Its counts are what the ledger must say.
type Spy struct {
	mu      sync.Mutex
	seed    maphash.Seed
	written map[uint64]bool            // hashes of whole datagrams
	sealed  map[[8]byte]uint64         // session: datagrams written that are counted
	read    map[[8]byte]map[uint64]int // session, counter: genuine copies
	heard   map[[8]byte]bool           // sessions whose announcement was read
	altered uint64                     // datagrams read that were never written
	early   uint64                     // genuine ones read before their announcement: nobody can open them
	repeats uint64                     // genuine announcements read
}

// NewSpy makes a spy that has seen nothing.
func NewSpy() *Spy {
	return &Spy{
		seed: maphash.MakeSeed(), written: make(map[uint64]bool),
		sealed: make(map[[8]byte]uint64), read: make(map[[8]byte]map[uint64]int), heard: make(map[[8]byte]bool),
	}
}

// Tap remembers what was written: it is for Options.Tap.
func (s *Spy) Tap(d []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written[maphash.Bytes(s.seed, d)] = true
	if d[1] != byte(link.TypeAnnouncement) {
		s.sealed[sessionOf(d)]++
	}
}

// Watch returns a reader that counts what it passes on.
func (s *Spy) Watch(r link.BatchReader) link.BatchReader { return &watched{BatchReader: r, spy: s} }

type watched struct {
	link.BatchReader
	spy *Spy
}

// ReadBatch implements link.BatchReader.
func (w *watched) ReadBatch(bufs []link.Buffer) (int, error) {
	n, err := w.BatchReader.ReadBatch(bufs)
	w.spy.mu.Lock()
	defer w.spy.mu.Unlock()
	for _, b := range bufs[:n] {
		if b.N == 0 {
			w.spy.see(nil) // an empty datagram is one as well
		}
		for d := range slices.Chunk(b.Data[:b.N], max(1, b.Segment)) {
			w.spy.see(d)
		}
	}
	return n, err
}

// see counts one datagram that was read. The caller holds mu.
func (s *Spy) see(d []byte) {
	if !s.written[maphash.Bytes(s.seed, d)] {
		s.altered++
		return
	}
	id := sessionOf(d)
	if d[1] == byte(link.TypeAnnouncement) {
		s.repeats++
		s.heard[id] = true
		return
	}
	if !s.heard[id] {
		s.early++
		return
	}
	if s.read[id] == nil {
		s.read[id] = make(map[uint64]int)
	}
	s.read[id][binary.BigEndian.Uint64(d[12:20])]++
}

func sessionOf(d []byte) [8]byte { return [8]byte(d[4:12]) }

// Restart forgets what was read: another receiver, with a ledger of its own but
// with the announcements that the first one kept, reads on.
func (s *Spy) Restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.altered, s.early, s.repeats = 0, 0, 0
	clear(s.read)
}

// Altered returns how many datagrams were read that nobody wrote: damaged ones,
// and forged ones.
func (s *Spy) Altered() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.altered
}

// Early returns how many genuine datagrams were read before the announcement of
// their session.
func (s *Spy) Early() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.early
}

// Sealed returns how many datagrams of a session were written, announcements not
// counted.
func (s *Spy) Sealed(session [8]byte) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sealed[session]
}

// Check compares the ledger, and that of every session held, with its own counts
// and with the sums of docs/spec/datagram.md section 6. The error is ErrLedger and
// names each number that is wrong.
func (s *Spy) Check(st link.Status) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := errors.Join(CheckLedger(st), same("rejected", sum(st.Rejected), s.altered+s.early),
		same("announcements", st.Announcements, s.repeats))
	for _, ss := range st.Sessions {
		if e := s.checkSession(ss); e != nil {
			err = errors.Join(err, fmt.Errorf("session %x: %w", ss.Session, e))
		}
	}
	return err
}

// checkSession compares one session. The caller holds mu.
func (s *Spy) checkSession(ss link.SessionStatus) error {
	var copies, sent uint64
	first := ^uint64(0)
	for c, n := range s.read[ss.Session] {
		copies += uint64(n)
		sent, first = max(sent, c+1), min(first, c)
	}
	distinct := uint64(len(s.read[ss.Session]))
	if distinct == 0 {
		first = 0
	}
	err := errors.Join(same("authentic", ss.Authentic, distinct), same("duplicates", ss.Duplicates, copies-distinct),
		same("sent", ss.Sent, sent), same("missing", ss.Missing, sent-distinct), same("first", ss.First, first))
	if ss.Sent > s.sealed[ss.Session] {
		err = errors.Join(err, fmt.Errorf("%w: %d sent, %d were written", ErrLedger, ss.Sent, s.sealed[ss.Session]))
	}
	return err
}

// CheckLedger checks the sums of docs/spec/datagram.md section 6. The error is
// ErrLedger.
func CheckLedger(st link.Status) error {
	err := same("announcements + authentic + duplicates + rejected, received",
		st.Announcements+st.Authentic+st.Duplicates+sum(st.Rejected), st.Received)
	for _, s := range st.Sessions {
		e := errors.Join(same("authentic + duplicates + rejected, received", s.Authentic+s.Duplicates+sum(s.Rejected), s.Received),
			same("sent, authentic + missing", s.Sent, s.Authentic+s.Missing),
			same("dispatched, authentic", s.Envelope+s.Stored+s.Held+s.Early+s.Refused+s.Heartbeats+s.Malformed, s.Authentic))
		if e != nil {
			err = errors.Join(err, fmt.Errorf("session %x: %w", s.Session, e))
		}
	}
	return err
}

func same(what string, got, want uint64) error {
	if got == want {
		return nil
	}
	return fmt.Errorf("%w: %s: %d, want %d", ErrLedger, what, got, want)
}

func sum(m map[string]uint64) (total uint64) {
	for _, n := range m {
		total += n
	}
	return total
}
