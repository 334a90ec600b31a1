// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"time"
)

// LaneStatus is what one socket of a receiver heard. A lane of the sender that
// arrives at a socket of its own is told from the others by it.
type LaneStatus struct {
	Address     string    // the socket is bound to; empty: not known
	Received    uint64    // datagrams
	Authentic   uint64    // of them authentic and new
	KernelDrops uint64    // see BatchReader.Drops
	LastHeard   time.Time // last authentic datagram; zero: none yet
}

// laneLedger is a LaneStatus in the making.
type laneLedger struct {
	address             string
	received, authentic uint64
	lastHeard           time.Time
}

// newLaneLedgers makes an empty one for each connection.
func newLaneLedgers(conns []BatchReader) []laneLedger {
	list := make([]laneLedger, len(conns))
	for i, conn := range conns {
		if bound, ok := conn.(interface{ LocalAddress() string }); ok {
			list[i].address = bound.LocalAddress()
		}
	}
	return list
}

// status returns the ledger of a lane as of now.
func (l *laneLedger) status(conn BatchReader) LaneStatus {
	return LaneStatus{Address: l.address, Received: l.received, Authentic: l.authentic, KernelDrops: conn.Drops(), LastHeard: l.lastHeard}
}

// SilentLanes returns the numbers, from 1, of the lanes over which nothing
// authentic was heard for SilentAfter while another lane was heard.
func (s Status) SilentLanes(now time.Time) (silent []int) {
	for i, l := range s.Lanes {
		if now.Sub(l.since(s.Started)) > SilentAfter && s.Up(now) {
			silent = append(silent, i+1)
		}
	}
	return silent
}

// since is when a lane was last heard, or when it was begun to be listened to.
func (l LaneStatus) since(started time.Time) time.Time {
	if l.LastHeard.IsZero() {
		return started
	}
	return l.LastHeard
}

// drops sums what the kernel dropped at all sockets.
func (r *Receiver) drops() (sum uint64) {
	for _, conn := range r.config.Conns {
		sum += conn.Drops()
	}
	return sum
}

// closeConns closes all sockets.
func (r *Receiver) closeConns() (err error) {
	for _, conn := range r.config.Conns {
		err = errors.Join(err, conn.Close())
	}
	return err
}
