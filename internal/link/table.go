// SPDX-License-Identifier: Apache-2.0

package link

import (
	"slices"
	"time"
)

const (
	// MaxSessions is how many sessions a receiver holds (section 6). The one idle
	// longest gives way to a new one that is authenticated. A sender with MaxLanes
	// lanes has so many sessions for its heartbeats, for a pass, and for the
	// heartbeats after it; the ledger of the pass before is still there then.
	MaxSessions = 4 * MaxLanes

	// MaxReleases is of how many releases sessions are held, and so how many envelope
	// objects there are. The release unheard of longest gives way with its sessions.
	MaxReleases = 8
)

// maxHeld is how many releases are held in all: those of sessions, and as many
// that no session names any more and whose last job still runs. While a disk hangs
// under those, new sessions wait.
const maxHeld = 2 * MaxReleases

// session is one authenticated session.
type session struct {
	announcement Announcement
	tag          [TagSize]byte // mac1 of its announcement: tells a repeat from another
	cipher       *sessionCipher
	window       window
	ledger       ledger

	release       *release // nil: an idle session
	stored        bool     // something of it was, by this process
	round         int64    // the last one in which something was: see Redone
	heartbeat     Heartbeat
	lastHeartbeat time.Time
	lastHeard     time.Time // last authentic datagram, the first announcement included
	told          time.Time // lastHeard when Progress was told

	joined       time.Time // when the process first knew of the session
	announced    time.Time // when the session was first announced, perhaps to an earlier process
	late         bool      // it may have been under way before the process listened
	firstHeard   time.Time // of its datagrams; only of a late one
	missedBefore uint64    // what was missing of a late one when it was first heard
	meter        meter
	dropsBefore  uint64 // of the socket, when the session was joined
	drops        uint64 // since then, while the session was heard
	steps        []step // of a calibration
}

// table holds the sessions. Few, so that a search is a scan.
type table struct {
	sessions []*session
	last     *session // found last: datagrams come in runs
}

// find returns the session of an id, or nil.
func (t *table) find(id [8]byte) *session {
	if t.last != nil && t.last.announcement.Session == id {
		return t.last
	}
	for _, s := range t.sessions {
		if s.announcement.Session == id {
			t.last = s
			return s
		}
	}
	return nil
}

// add takes a session in and returns those that gave way.
func (t *table) add(s *session) (out []*session) {
	if !s.announcement.Idle() {
		out = t.makeRoom(keyOf(s.announcement))
	}
	if len(out) == 0 && len(t.sessions) >= MaxSessions {
		out = append(out, t.oldest())
	}
	t.sessions = slices.DeleteFunc(t.sessions, func(held *session) bool { return slices.Contains(out, held) })
	t.sessions, t.last = append(t.sessions, s), nil
	return out
}

// makeRoom returns the sessions of the release that gives way to one of another
// key, if one must. What has no payload gives way first: it is a bulletin, of which
// there is one a minute, and which was taken in as soon as it was whole.
func (t *table) makeRoom(key releaseKey) (out []*session) {
	heard := make(map[releaseKey]time.Time)
	for _, s := range t.sessions {
		if k := keyOf(s.announcement); !s.announcement.Idle() && !s.lastHeard.Before(heard[k]) {
			heard[k] = s.lastHeard
		}
	}
	if _, held := heard[key]; held || len(heard) < MaxReleases {
		return nil
	}
	var gone releaseKey
	first := true
	for k, at := range heard {
		sooner := (k.payloadSize == 0) != (gone.payloadSize == 0)
		if first || sooner && k.payloadSize == 0 || !sooner && at.Before(heard[gone]) {
			gone, first = k, false
		}
	}
	for _, s := range t.sessions {
		if !s.announcement.Idle() && keyOf(s.announcement) == gone {
			out = append(out, s)
		}
	}
	return out
}

// oldest returns the session idle longest.
func (t *table) oldest() (oldest *session) {
	for _, s := range t.sessions {
		if oldest == nil || s.lastHeard.Before(oldest.lastHeard) {
			oldest = s
		}
	}
	return oldest
}
