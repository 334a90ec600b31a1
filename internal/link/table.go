// SPDX-License-Identifier: Apache-2.0

package link

import "time"

// MaxSessions is how many sessions a receiver holds (section 6). The one idle
// longest gives way to a new one that is authenticated.
const MaxSessions = 8

// session is one authenticated session.
type session struct {
	announcement Announcement
	tag          [TagSize]byte // mac1 of its announcement: tells a repeat from another
	cipher       *sessionCipher
	window       window
	ledger       ledger

	release       *release // nil: an idle session
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

// add takes a session in and returns the one that gave way, or nil.
func (t *table) add(s *session) *session {
	if len(t.sessions) < MaxSessions {
		t.sessions = append(t.sessions, s)
		return nil
	}
	oldest := 0
	for i, other := range t.sessions {
		if other.lastHeard.Before(t.sessions[oldest].lastHeard) {
			oldest = i
		}
	}
	out := t.sessions[oldest]
	t.sessions[oldest], t.last = s, nil
	return out
}
