// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"time"

	"go.uber.org/zap"
)

const (
	// signaturesPerSecond is how many announcement signatures are checked a
	// second (section 6): about 20 ms of one core.
	signaturesPerSecond = 64
)

// limiter admits a number of events in each second.
type limiter struct {
	start time.Time
	used  int
}

// admit reports whether one more may pass.
func (l *limiter) admit(now time.Time) bool {
	if d := now.Sub(l.start); d >= time.Second || d < 0 {
		l.start, l.used = now, 0
	}
	l.used++
	return l.used <= signaturesPerSecond
}

// batch handles one received message: a datagram, or an aggregate of datagrams.
func (r *Receiver) batch(b *Buffer, now time.Time) {
	if b.N == 0 {
		r.datagram(nil, now) // an empty datagram is one as well
		return
	}
	step := b.Segment
	if step <= 0 {
		step = b.N
	}
	for data := b.Data[:b.N]; len(data) > 0 && r.broken == nil; {
		n := min(step, len(data))
		r.datagram(data[:n], now)
		data = data[n:]
	}
	r.letGo()
}

// datagram takes one datagram through the checks of section 1, cheapest first.
// It allocates nothing before the datagram is authenticated.
func (r *Receiver) datagram(d []byte, now time.Time) {
	r.total.received++
	r.lanes[r.lane].received++
	h, err := ParseHeader(d)
	if err != nil {
		r.reject(nil, headerReason(err))
		return
	}
	if h.Type == TypeAnnouncement {
		r.announced(h, d, now)
		return
	}
	s := r.table.find(h.Session)
	switch {
	case s == nil:
		r.reject(nil, reasonSession)
	case h.Profile != s.announcement.Profile:
		r.reject(s, reasonProfile)
	case h.Counter >= MaxSealed:
		r.reject(s, reasonCounter)
	default:
		r.sealed(s, h, d, now)
	}
}

// headerReason maps an error of ParseHeader.
func headerReason(err error) reason {
	switch {
	case errors.Is(err, ErrMagic):
		return reasonMagic
	case errors.Is(err, ErrType):
		return reasonType
	case errors.Is(err, ErrProfile):
		return reasonProfile
	case errors.Is(err, ErrReserved):
		return reasonReserved
	}
	return reasonLength
}

// reject counts a datagram that is dropped; s is the session that it named, if
// that is held.
func (r *Receiver) reject(s *session, why reason) {
	r.total.rejected[why]++
	if s != nil {
		s.ledger.rejected[why]++
	}
}

// announced handles an announcement in the order of section 2: mac1, known
// session, limit, signature and HPKE.
func (r *Receiver) announced(h Header, d []byte, now time.Time) {
	if !r.opener.CheckMAC1(d) {
		r.reject(nil, reasonMAC1)
		return
	}
	if s := r.table.find(h.Session); s != nil {
		if [TagSize]byte(d[len(d)-TagSize:]) != s.tag {
			r.reject(nil, reasonAnnouncement) // a session is never announced in two ways
			return
		}
		r.total.announcements++
		s.ledger.announcements++
		return
	}
	if len(r.releases) >= maxHeld || !r.limit.admit(now) {
		r.reject(nil, reasonLimit)
		return
	}
	r.letGo() // of the payload: a new session may ask about it
	s, err := r.open(d, now)
	if err != nil {
		r.reject(nil, announcementReason(err))
		return
	}
	r.total.announcements++
	r.total.lastHeard, r.lanes[r.lane].lastHeard = now, now
	r.keep(s, d)
	r.admit(s)
}

// announcementReason maps an error of AnnouncementOpener.Open.
func announcementReason(err error) reason {
	if errors.Is(err, ErrSignature) {
		return reasonSignature
	}
	return reasonAnnouncement
}

// open authenticates an announcement and makes its session.
func (r *Receiver) open(d []byte, now time.Time) (*session, error) {
	a, key, err := r.opener.Open(d)
	if err != nil {
		return nil, err
	}
	c, err := newSessionCipher(key)
	if err != nil {
		return nil, err
	}
	joined := time.Now()
	return &session{
		announcement: a, tag: [TagSize]byte(d[len(d)-TagSize:]), cipher: c, lastHeard: now, joined: joined, announced: joined,
		late: joined.Sub(r.hearing.started) < joinGrace, meter: meter{at: joined}, dropsBefore: r.drops(),
	}, nil
}

// admit puts a session into the table and gives it its release.
func (r *Receiver) admit(s *session) {
	for _, out := range r.table.add(s) {
		r.log.Info("session gives way", zap.Binary("session", out.announcement.Session[:]), zap.Time("last_heard", out.lastHeard))
		r.hearing.gone(out)
		r.forget(out)
	}
	r.log.Info("session announced", zap.Binary("session", s.announcement.Session[:]),
		zap.Binary("release", s.announcement.Release[:]), zap.Int("pass", s.announcement.Pass),
		zap.Int64("envelope_bytes", s.announcement.EnvelopeSize), zap.Int64("payload_bytes", s.announcement.PayloadSize))
	if !s.announcement.Idle() {
		s.release = r.join(s.announcement)
	}
}

// sealed authenticates a sealed datagram, counts it, and dispatches it.
func (r *Receiver) sealed(s *session, h Header, d []byte, now time.Time) {
	body, err := s.cipher.open(r.place(s, h), d, h.Counter)
	if err != nil {
		r.reject(s, reasonTag)
		return
	}
	switch s.window.mark(h.Counter) {
	case fresh:
	case seen:
		s.ledger.duplicates++
		r.total.duplicates++
		return
	case stale:
		r.reject(s, reasonStale)
		return
	}
	if s.ledger.authentic == 0 || h.Counter < s.ledger.first {
		s.ledger.first = h.Counter
	}
	s.ledger.authentic++
	r.total.authentic++
	s.lastHeard, r.total.lastHeard = now, now
	r.lanes[r.lane].authentic++
	r.lanes[r.lane].lastHeard = now
	r.dispatch(s, h, body, now)
}

// dispatch gives an authentic body to its object.
func (r *Receiver) dispatch(s *session, h Header, body []byte, now time.Time) {
	switch {
	case h.Type == TypeHeartbeat && h.SBN == 0 && h.ESI == 0:
		r.beat(s, h.Counter, body, now)
	case h.Type == TypeEnvelope && s.release != nil:
		r.envelopeSymbol(s, h, body, now)
	case h.Type == TypePayload && s.release != nil:
		r.payloadSymbol(s, h, body, now)
	default:
		s.ledger.malformed++
	}
}

// beat takes a heartbeat in. The end of a pass is a time to flush.
func (r *Receiver) beat(s *session, counter uint64, body []byte, now time.Time) {
	h, err := ParseHeartbeat(body)
	if err != nil {
		s.ledger.malformed++
		return
	}
	s.ledger.heartbeats++
	s.heartbeat, s.lastHeartbeat = h, now
	if s.announcement.Idle() {
		r.calibrating(s, h, counter, now)
		return
	}
	if h.State != StateEndOfPass && h.State != StateEndOfSession {
		return
	}
	s.release.ended = true
	if s.release.payload != nil {
		r.flush(s.release, now)
	}
}
