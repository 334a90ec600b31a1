// SPDX-License-Identifier: Apache-2.0

package link

import (
	"maps"
	"slices"
	"time"
)

// reason says why a datagram was rejected. The order is that of the checks.
type reason uint8

const (
	reasonLength       reason = iota // not the length of its profile
	reasonMagic                      // not ours
	reasonType                       // unknown type
	reasonProfile                    // unknown profile, or not the session's
	reasonReserved                   // reserved byte is not zero
	reasonMAC1                       // announcement by somebody who does not know our public key
	reasonLimit                      // announcement beyond 64 signature checks a second, or while 16 releases are held
	reasonSignature                  // announcement not signed by a link key
	reasonAnnouncement               // signed, but unreadable or out of range
	reasonSession                    // sealed for a session that is not held
	reasonCounter                    // send counter of 2^32 or more
	reasonTag                        // forged or damaged
	reasonStale                      // authentic, but further back than the window remembers
	reasons
)

// reasonNames are the words in status and metrics.
func reasonNames() [reasons]string {
	return [reasons]string{
		"length", "magic", "type", "profile", "reserved", "mac1", "limit", "signature",
		"announcement", "session", "counter", "tag", "stale",
	}
}

// rejections counts rejected datagrams by reason.
type rejections [reasons]uint64

// byName returns those that are not zero.
func (r *rejections) byName() map[string]uint64 {
	m := make(map[string]uint64)
	for i, name := range reasonNames() {
		if r[i] > 0 {
			m[name] = r[i]
		}
	}
	return m
}

// ledger is what one session received. sealed datagrams only, unless said.
type ledger struct {
	authentic, duplicates, announcements                          uint64
	envelope, stored, held, early, refused, heartbeats, malformed uint64
	rejected                                                      rejections
	first                                                         uint64 // smallest counter seen
}

// SessionStatus is the ledger of one session (section 6). It is exact to the
// datagram:
//
//	Sent      = Authentic + Missing
//	Received  = Authentic + Duplicates + the sum of Rejected
//	Authentic = Envelope + Stored + Held + Early + Refused + Heartbeats + Malformed
//
// It counts what this process received: after a restart, or for a late joiner,
// the datagrams before First are among the missing.
type SessionStatus struct {
	Announcement `json:"Announcement"` // by its name: two of its fields would be hidden in JSON by those below

	Sent       uint64 // largest counter + 1: sealed datagrams that the sender is known to have sent
	Authentic  uint64 // distinct counters received and authenticated
	Missing    uint64
	First      uint64 // smallest counter received; of Missing, at least so many were sent before we listened
	Duplicates uint64 // authenticated, of a counter seen before; not looked at again
	Received   uint64 // every sealed datagram that named this session
	Rejected   map[string]uint64

	Announcements uint64 // received again after the first

	Envelope   uint64 // envelope symbols
	Stored     uint64 // payload symbols that were new
	Held       uint64 // payload symbols that were held already, or are no longer needed
	Early      uint64 // payload symbols before the envelope was accepted; dropped
	Refused    uint64 // payload symbols of a release that was refused; dropped
	Heartbeats uint64
	Malformed  uint64 // authentic, yet impossible: an ESI that does not exist, a body out of range

	State         State // of the last heartbeat; 0: none yet
	LastHeard     time.Time
	LastHeartbeat time.Time // by our clock; zero: none yet
	Heartbeat     Heartbeat // the last
	Release       ReleaseState
	Reason        string // why the release was refused

	Joined       time.Time // when this process first knew of the session
	Announced    time.Time // when the session was first announced, perhaps to an earlier process
	MissedBefore uint64    // of Missing, what was sent before this process listened: no loss of the link
	SendRate     float64   // bits a second on the wire that the sender sent over the last second, by its counters
	ArrivalRate  float64   // and that arrived of it
	KernelDrops  uint64    // messages that the kernel dropped at the socket, of whatever session, while this one was heard
	Steps        []Step    `json:",omitempty"` // of a calibration
}

// Status is the ledger of the link.
//
//	Received = Announcements + Authentic + Duplicates + the sum of Rejected
type Status struct {
	Sessions      []SessionStatus
	Received      uint64 // datagrams
	Announcements uint64 // genuine ones, repeats included
	Authentic     uint64
	Duplicates    uint64
	Rejected      map[string]uint64
	KernelDrops   uint64    // see BatchReader.Drops
	LastHeard     time.Time // last authentic datagram; zero: none yet

	Started    time.Time // since when this process listens
	UpSince    time.Time // since when there was no pause of SilentAfter; zero: nothing was heard yet
	Outages    uint64    // pauses of SilentAfter and more that ended
	OutageFrom time.Time // of the last of them
	OutageTo   time.Time

	// Totals over all sessions that this process ever held.
	HeardSent    uint64 // datagrams sent while it listened: Authentic + Lost
	Lost         uint64
	SendFailures uint64 // datagrams that the sender could not hand to its kernel, by its heartbeats

	Lanes        []LaneStatus       // of each socket, in the order of ReceiverConfig.Conns
	DropsAtStart uint64             // KernelDrops when this process began: an inherited socket keeps counting
	Releases     []AnnouncedRelease // the last 64, oldest first, also those whose sessions gave way
}

// ReceiveProgress is what Progress is told of a session that was heard since the
// last time.
type ReceiveProgress struct {
	SessionStatus
	KernelDrops uint64
}

// status returns the ledger of a session as of now.
func (s *session) status() SessionStatus {
	l := &s.ledger
	st := SessionStatus{
		Announcement: s.announcement, Authentic: l.authentic, Duplicates: l.duplicates, Rejected: l.rejected.byName(),
		Announcements: l.announcements, Envelope: l.envelope, Stored: l.stored, Held: l.held, Early: l.early,
		Refused: l.refused, Heartbeats: l.heartbeats, Malformed: l.malformed, First: l.first,
		State: s.heartbeat.State, LastHeard: s.lastHeard, LastHeartbeat: s.lastHeartbeat, Heartbeat: s.heartbeat,
		Joined: s.joined, Announced: s.announced, MissedBefore: s.missedBefore,
		SendRate: s.meter.rates[0], ArrivalRate: s.meter.rates[1], KernelDrops: s.drops, Steps: s.stepsHeard(),
	}
	if s.window.any {
		st.Sent = s.window.max + 1
	}
	st.Missing = st.Sent - st.Authentic
	st.Received = st.Authentic + st.Duplicates
	for n := range maps.Values(st.Rejected) {
		st.Received += n
	}
	if s.release != nil {
		st.Release = s.release.state
		if s.release.reason != nil {
			st.Reason = s.release.reason.Error()
		}
	}
	return st
}

// Rebase returns a copy in which f has moved every point in time that is set: for
// a reader in another process, whose monotonic clock reads differently.
func (s Status) Rebase(f func(time.Time) time.Time) Status {
	move := func(list ...*time.Time) {
		for _, t := range list {
			if !t.IsZero() {
				*t = f(*t)
			}
		}
	}
	move(&s.LastHeard, &s.Started, &s.UpSince, &s.OutageFrom, &s.OutageTo)
	s.Sessions, s.Releases, s.Lanes = slices.Clone(s.Sessions), slices.Clone(s.Releases), slices.Clone(s.Lanes)
	for i := range s.Lanes {
		move(&s.Lanes[i].LastHeard)
	}
	for i := range s.Sessions {
		one := &s.Sessions[i]
		move(&one.LastHeard, &one.LastHeartbeat, &one.Joined, &one.Announced)
	}
	for i := range s.Releases {
		one := &s.Releases[i]
		move(&one.First, &one.LastHeard)
	}
	return s
}
