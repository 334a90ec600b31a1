// SPDX-License-Identifier: Apache-2.0

package link

import (
	"math"
	"slices"
	"time"
)

const (
	// SilentAfter is how long nothing authentic may be heard before the link is
	// called down. A heartbeat is due every second: at 5 % loss five in a row are
	// lost once in 37 days.
	SilentAfter = 5 * time.Second

	// joinGrace is how long after its start a receiver may meet sessions that
	// began before it, and how long what such a session misses is not held against
	// the link: eight announcements are due in it.
	joinGrace = 2 * time.Second

	// meterEvery is the shortest stretch that a rate is measured over: the beat of
	// the heartbeats.
	meterEvery = time.Second

	// dropsLinger is how long after its last datagram the kernel's drops still
	// count for a session: a socket that overflows may drop all of them.
	dropsLinger = time.Second

	// maxAnnounced is how many announced releases are remembered beyond the
	// sessions that announced them: a few KiB, and weeks of releases.
	maxAnnounced = 64
)

// AnnouncedRelease is a release that was announced, whether its session is still
// held or gave way. Times before the start of this process are those of the kept
// announcement's file.
type AnnouncedRelease struct {
	Release      [32]byte
	EnvelopeSize int64
	PayloadSize  int64
	Profile      Profile
	Pass         int       // the last that was announced
	First        time.Time // first announced
	LastHeard    time.Time // last authentic datagram of a session of it; zero: none since the start
	Held         bool      // a session of it is held
	State        ReleaseState
	Reason       string // why it was refused, or is not taken now

	EnvelopeHave    int64 // symbols of its envelope that are here
	EnvelopeSymbols int64 // and how many there are
}

// hearing is what is known of the link's past beside the ledgers.
type hearing struct {
	started  time.Time // since when this process listens
	heard    time.Time // totals.lastHeard when last looked at
	upSince  time.Time // since when the link is heard without a pause of SilentAfter
	outages  uint64
	outage   [2]time.Time // the last: from, to
	released map[[32]byte]*AnnouncedRelease

	sentGone, lostGone, failedGone uint64 // of sessions that gave way
}

// listen takes in when something was last heard. Called twenty times a second,
// it sees every pause that is long enough to matter, and costs nothing a datagram.
func (h *hearing) listen(lastHeard time.Time) {
	if lastHeard.Equal(h.heard) {
		return
	}
	switch {
	case h.heard.IsZero():
		h.upSince = lastHeard
	case lastHeard.Sub(h.heard) > SilentAfter:
		h.outages++
		h.outage = [2]time.Time{h.heard, lastHeard}
		h.upSince = lastHeard
	}
	h.heard = lastHeard
}

// remember notes the release of a session, or what became of it since.
func (h *hearing) remember(s *session) {
	a := s.announcement
	e := h.released[a.Release]
	if e == nil {
		h.makeRoom()
		e = &AnnouncedRelease{Release: a.Release, First: s.announced}
		h.released[a.Release] = e
	}
	e.Held = true
	if s.lastHeard.Before(e.LastHeard) {
		return // another session of the release spoke since
	}
	e.LastHeard, e.Pass, e.Profile = s.lastHeard, max(e.Pass, a.Pass), a.Profile
	e.EnvelopeSize, e.PayloadSize = a.EnvelopeSize, a.PayloadSize
	if s.announced.Before(e.First) {
		e.First = s.announced
	}
	s.release.describe(e)
}

// describe fills in how far the release is.
func (rel *release) describe(e *AnnouncedRelease) {
	e.State, e.Reason, e.EnvelopeHave, e.EnvelopeSymbols = rel.state, "", 0, 0
	if rel.reason != nil {
		e.Reason = rel.reason.Error()
	}
	if rel.object != nil {
		p := rel.object.Progress()
		e.EnvelopeHave, e.EnvelopeSymbols = p.Have, p.Symbols
	}
}

// makeRoom forgets a release when the book is full: one that was accepted, which
// the sink knows, before one that was not; the one unheard of longest.
func (h *hearing) makeRoom() {
	if len(h.released) < maxAnnounced {
		return
	}
	var out *AnnouncedRelease
	for _, e := range h.released {
		if out == nil || forgettable(e, out) {
			out = e
		}
	}
	delete(h.released, out.Release)
}

// forgettable reports whether a is to be forgotten before b.
func forgettable(a, b *AnnouncedRelease) bool {
	if known := a.State == ReleaseAccepted; known != (b.State == ReleaseAccepted) {
		return known
	}
	return a.LastHeard.Before(b.LastHeard)
}

// list returns the releases in the order of their first announcement.
func (h *hearing) list() []AnnouncedRelease {
	out := make([]AnnouncedRelease, 0, len(h.released))
	for _, e := range h.released {
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b AnnouncedRelease) int {
		if c := a.First.Compare(b.First); c != 0 {
			return c
		}
		return slices.Compare(a.Release[:], b.Release[:])
	})
	return out
}

// gone keeps the totals of a session that gives way, so that they never fall. What
// was received of its envelope goes with the last session of its release.
func (h *hearing) gone(s *session) {
	st := s.status()
	h.sentGone += st.HeardSent()
	h.lostGone += st.Lost()
	h.failedGone += st.Heartbeat.Failed
	if e := h.released[s.announcement.Release]; e != nil && s.release != nil && s.release.sessions == 1 {
		e.EnvelopeHave = 0
	}
}

// meter measures the rates of a session.
type meter struct {
	at            time.Time // of the last reading
	sent, arrived uint64    // datagrams by then
	rates         [2]float64
}

// read takes a reading when the last is old enough. Each datagram takes bits of
// the wire.
func (m *meter) read(now time.Time, sent, arrived uint64, bits int) {
	d := now.Sub(m.at)
	if d < meterEvery {
		return
	}
	rate := func(n, before uint64) float64 { return float64(n-min(n, before)) * float64(bits) / d.Seconds() }
	m.rates = [2]float64{rate(sent, m.sent), rate(arrived, m.arrived)}
	m.at, m.sent, m.arrived = now, sent, arrived
}

// WireBits is what one datagram of the profile takes of the wire: Ethernet and
// IPv4 headers, preamble and gap included, as the configured rate counts them.
func (p Profile) WireBits() int { return (p.DatagramSize() + wireOverhead) * 8 }

// observe brings up to date what depends on time: rates, drops, outages, the
// releases announced.
func (r *Receiver) observe(now time.Time, drops uint64) {
	r.hearing.listen(r.total.lastHeard)
	for _, e := range r.hearing.released {
		e.Held = false
	}
	for _, s := range r.table.sessions {
		if now.Sub(s.lastHeard) <= dropsLinger {
			s.drops = drops - min(drops, s.dropsBefore)
			s.chargeStep(drops)
		}
		s.notice(now)
		st := s.status()
		s.meter.read(now, st.HeardSent(), st.Authentic, s.announcement.Profile.WireBits())
		if s.release != nil {
			r.hearing.remember(s)
		}
	}
}

// notice keeps what was missing when the process began to hear a session that may
// have been under way before: it was sent to nobody, or to a socket that was full.
// It takes a moment: first comes what the socket kept, and then the gap.
func (s *session) notice(now time.Time) {
	if !s.late || s.ledger.authentic == 0 {
		return
	}
	if s.firstHeard.IsZero() {
		s.firstHeard = now
	}
	if now.Sub(s.firstHeard) < joinGrace {
		s.missedBefore = s.window.max + 1 - s.ledger.authentic
	}
}

// Lost is Missing without what was sent before this process listened: what the
// sender's kernel, the link and this host's kernel lost. A datagram that is merely
// overtaken counts until it arrives.
func (s SessionStatus) Lost() uint64 { return s.Missing - min(s.Missing, s.MissedBefore) }

// HeardSent is Sent without what was sent before this process listened.
func (s SessionStatus) HeardSent() uint64 { return s.Authentic + s.Lost() }

// ClockDifference is how far the sender's clock is ahead of ours, as of the last
// heartbeat; its way here counts as a delay of the sender's clock. ok is false
// before the first.
func (s SessionStatus) ClockDifference() (d time.Duration, ok bool) {
	if s.LastHeartbeat.IsZero() {
		return 0, false
	}
	return time.Duration(int64(min(s.Heartbeat.Clock, math.MaxInt64)) - s.LastHeartbeat.UnixNano()), true
}

// Silence is how long nothing authentic was heard: since the last datagram, or
// since the start when there was none. now must be of the monotonic clock.
func (s Status) Silence(now time.Time) time.Duration {
	since := s.LastHeard
	if since.IsZero() {
		since = s.Started
	}
	return max(now.Sub(since), 0)
}

// Up reports whether the link is: something authentic was heard, and not too
// long ago.
func (s Status) Up(now time.Time) bool {
	return !s.LastHeard.IsZero() && s.Silence(now) <= SilentAfter
}

// Speaker returns the session whose heartbeat came last: what the sender says of
// itself. A session that is under way speaks before one that is idle or over, so
// that the heartbeats of a second sender do not hide it. Before the first
// heartbeat it is the zero value.
func (s Status) Speaker() (last SessionStatus) {
	for _, one := range s.Sessions {
		if one.LastHeartbeat.After(last.LastHeartbeat) {
			last = one
		}
	}
	newest := last.LastHeartbeat
	for _, one := range s.Sessions {
		late := !last.UnderWay() || one.LastHeartbeat.After(last.LastHeartbeat)
		if one.UnderWay() && late && newest.Sub(one.LastHeartbeat) <= SilentAfter {
			last = one
		}
	}
	return last
}

// UnderWay reports whether the last heartbeat said that the session has more to
// send.
func (s SessionStatus) UnderWay() bool {
	return s.State == StateLeadIn || s.State == StateSending || s.State == StateEndOfPass
}
