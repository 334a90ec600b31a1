// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"sync"
	"testing"

	"sluice/internal/link"
)

// spy counts the datagrams of a link a second time, independently of the
// receiver: what was written (it is the link's Tap), and what the receiver read
// (it stands between). Its counts are what the ledger must say.
type spy struct {
	mu      sync.Mutex
	written map[[32]byte]bool
	read    map[[8]byte]map[uint64]int // session, counter: genuine copies
	altered uint64
	repeats uint64 // genuine announcements read
}

func newSpy() *spy {
	return &spy{written: make(map[[32]byte]bool), read: make(map[[8]byte]map[uint64]int)}
}

// tap remembers what was written.
func (s *spy) tap(d []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.written[sha256.Sum256(d)] = true
}

// watch returns a reader that counts what it passes on.
func (s *spy) watch(r link.BatchReader) link.BatchReader { return &watched{BatchReader: r, spy: s} }

type watched struct {
	link.BatchReader
	spy *spy
}

func (w *watched) ReadBatch(bufs []link.Buffer) (int, error) {
	n, err := w.BatchReader.ReadBatch(bufs)
	for _, b := range bufs[:n] {
		for d := range slices.Chunk(b.Data[:b.N], max(1, b.Segment)) {
			w.spy.see(d)
		}
	}
	return n, err
}

// see counts one datagram that was read.
func (s *spy) see(d []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.written[sha256.Sum256(d)] {
		s.altered++
		return
	}
	if d[1] == byte(link.TypeAnnouncement) {
		s.repeats++
		return
	}
	id := [8]byte(d[4:12])
	if s.read[id] == nil {
		s.read[id] = make(map[uint64]int)
	}
	s.read[id][binary.BigEndian.Uint64(d[12:20])]++
}

// check compares the ledger of every session held with the spy's counts.
func (s *spy) check(t *testing.T, st link.Status) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	var rejected uint64
	for _, n := range st.Rejected {
		rejected += n
	}
	equal(t, "rejected and altered", rejected, s.altered)
	equal(t, "announcements", st.Announcements, s.repeats)
	for _, ss := range st.Sessions {
		counters := s.read[ss.Session]
		var copies, sent uint64
		first := ^uint64(0)
		for _, n := range counters {
			copies += uint64(n)
		}
		for c := range maps.Keys(counters) {
			sent, first = max(sent, c+1), min(first, c)
		}
		distinct := uint64(len(counters))
		if distinct == 0 {
			first = 0
		}
		equal(t, "authentic", ss.Authentic, distinct)
		equal(t, "duplicates", ss.Duplicates, copies-distinct)
		equal(t, "sent", ss.Sent, sent)
		equal(t, "missing", ss.Missing, sent-distinct)
		equal(t, "first", ss.First, first)
	}
}
