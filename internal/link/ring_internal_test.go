// SPDX-License-Identifier: Apache-2.0

package link

import (
	"net"
	"slices"
	"testing"
)

// scripted is a socket that gives one message a call, as large as the script says, or none where the segment is negative, and notes how
// many it was asked for.
type scripted struct {
	script []Buffer
	asked  []int
}

func (s *scripted) ReadBatch(bufs []Buffer) (int, error) {
	s.asked = append(s.asked, len(bufs))
	if len(s.script) == 0 {
		return 0, net.ErrClosed
	}
	next := s.script[0]
	s.script = s.script[1:]
	if next.Segment < 0 {
		return 0, nil
	}
	bufs[0].N, bufs[0].Segment = next.N, next.Segment
	return 1, nil
}

func (s *scripted) Drops() uint64 { return 0 }
func (s *scripted) Close() error  { return nil }

// TestRingBatches: of aggregates few are taken at a time, of datagrams many, and an empty datagram is a datagram. A reader may come back
// with nothing.
func TestRingBatches(t *testing.T) {
	conn := &scripted{script: []Buffer{{N: 1472, Segment: 1472}, {N: 60_000, Segment: 1472}, {N: 60_000, Segment: 1472}, {}, {Segment: -1}, {N: 900, Segment: 1472}}}
	g := newRing(1)
	g.start([]BatchReader{conn})
	for b := range g.full {
		g.free <- b
	}
	if want := []int{32, 32, 8, 8, 32, 32, 32}; !slices.Equal(conn.asked, want) {
		t.Errorf("the socket was asked for %v messages, want %v", conn.asked, want)
	}
}
