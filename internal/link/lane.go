// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"crypto/rand"
	"time"
)

// MaxLanes is how many lanes a sender has at most (section 6: a receiver holds
// that many sessions of a pass, and of what went before it).
const MaxLanes = 8

// Lane is one way to the receiver: a port, an interface, a diode.
type Lane struct {
	Name string // for messages and reports: its address
	Conn BatchWriter
	Rate int64 // bits a second on the wire, Ethernet and IP headers included; 0: unlimited
}

// LaneReport says what one lane of a pass carried. Counts are of datagrams.
type LaneReport struct {
	Name       string
	Rate       int64   // it was paced at, bits a second; 0: unlimited
	Session    [8]byte // the last, when the pass took more than one
	Sessions   int     // 1, unless the lane carried more than 2^32 datagrams
	Sealed     uint64
	Source     uint64 // payload source symbols
	Repair     uint64 // payload repair symbols
	Envelope   uint64 // envelope symbols
	Bytes      int64  // UDP payload handed to the kernel, announcements included
	SendErrors uint64 // datagrams that the kernel did not take
	Err        error  // why the lane was given up while others went on; nil: it was not
}

// lane is one lane of a pass under way: the session that it seals under and the
// batch that it fills. It belongs to one goroutine.
type lane struct {
	Lane
	pass         *pass
	index        int
	announcement Announcement
	carousel     *carousel // nil in an idle session

	cipher   *sessionCipher
	datagram []byte // the announcement, as sent
	counter  uint64 // of the next sealed datagram
	inPass   counts // since the pass began
	before   counts // inPass when this session began

	batch         *batcher
	body          []byte // scratch of a heartbeat
	state         State
	rate          int64 // what heartbeats say of the rate
	number        int   // and of the pass, or of the step of a calibration
	sinceEnvelope int
	sessions      int
	nextAnnounce  time.Time
	nextHeartbeat time.Time
}

// counts are datagrams sealed, by kind.
type counts struct{ sealed, source, repair, envelope uint64 }

// newLane returns lane i of a pass, with nothing to send yet.
func (p *pass) newLane(i int, a Announcement) *lane {
	c := p.sender.config
	l := &lane{
		Lane: c.Lanes[i], pass: p, index: i, announcement: a, number: a.Pass, rate: c.Lanes[i].Rate,
		body: make([]byte, 0, c.Profile.SymbolSize()),
	}
	l.batch = newBatcher(l.Conn, c.Profile.DatagramSize(), l.Rate)
	return l
}

// send sends one lane's part of a pass in the order of section 5; payload sends
// its share of the payload.
func (l *lane) send(ctx context.Context, payload func(context.Context) error) error {
	if err := l.leadIn(ctx); err != nil {
		return err
	}
	l.state = StateSending
	if err := payload(ctx); err != nil {
		return err
	}
	if err := l.end(ctx); err != nil {
		return err
	}
	return l.batch.flush(ctx)
}

// idle keeps the cadence until ctx ends, and returns nil then.
func (l *lane) idle(ctx context.Context) error {
	for {
		err := l.linger(ctx, announceEvery)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it was told to end
		}
		if err != nil {
			return err
		}
	}
}

// payloadSymbol sends one symbol of the payload object, and one of the envelope
// in every 256.
func (l *lane) payloadSymbol(ctx context.Context, s place, body []byte) error {
	if s.repair {
		l.inPass.repair++
	} else {
		l.inPass.source++
	}
	if err := l.emit(ctx, TypePayload, s.sbn, s.esi, body); err != nil {
		return err
	}
	l.sinceEnvelope++
	if l.sinceEnvelope < carouselEvery {
		return nil
	}
	l.sinceEnvelope = 0
	return l.envelopeSymbol(ctx)
}

// report says what the lane carried so far.
func (l *lane) report() LaneReport {
	return LaneReport{
		Name: l.Name, Rate: l.Rate, Session: l.announcement.Session, Sessions: l.sessions, Sealed: l.inPass.sealed,
		Source: l.inPass.source, Repair: l.inPass.repair, Envelope: l.inPass.envelope,
		Bytes: l.batch.bytes, SendErrors: l.batch.failed,
	}
}

// begin makes a new session: a fresh id and key, counter 0.
func (l *lane) begin() error {
	rand.Read(l.announcement.Session[:])
	c := &l.pass.sender.config
	datagram, key, err := SealAnnouncement(rand.Reader, l.announcement, c.LinkKey, c.ReceiverKey)
	if err != nil {
		return err
	}
	if l.cipher, err = newSessionCipher(key); err != nil {
		return err
	}
	l.datagram, l.counter, l.before = datagram, 0, l.inPass
	l.sessions++
	return nil
}

// leadIn announces, sends the envelope object once, and lets the receiver settle.
func (l *lane) leadIn(ctx context.Context) error {
	l.state = StateLeadIn
	for range repeats {
		if err := l.announce(ctx); err != nil {
			return err
		}
		if err := l.linger(ctx, repeatGap); err != nil {
			return err
		}
	}
	if err := l.envelopeTurn(ctx); err != nil {
		return err
	}
	return l.linger(ctx, l.pass.sender.settle(l.pass.transfer))
}

// envelopeTurn sends the whole envelope object, from its beginning.
func (l *lane) envelopeTurn(ctx context.Context) error {
	l.carousel.rewind()
	for range l.carousel.turn() {
		if err := l.envelopeSymbol(ctx); err != nil {
			return err
		}
	}
	return nil
}

// envelopeSymbol sends the next symbol of the carousel.
func (l *lane) envelopeSymbol(ctx context.Context) error {
	sbn, esi, body, err := l.carousel.step()
	if err != nil {
		return err
	}
	l.inPass.envelope++
	return l.emit(ctx, TypeEnvelope, sbn, esi, body)
}

// end sends the envelope object again, then says several times that the pass,
// and that the session is over.
func (l *lane) end(ctx context.Context) error {
	l.state = StateEndOfPass
	if err := l.envelopeTurn(ctx); err != nil {
		return err
	}
	for _, l.state = range []State{StateEndOfPass, StateEndOfSession} {
		if err := l.sayState(ctx); err != nil {
			return err
		}
	}
	return nil
}

// sayState sends heartbeats, with the announcement for whoever came late.
func (l *lane) sayState(ctx context.Context) error {
	for range repeats {
		if err := l.announce(ctx); err != nil {
			return err
		}
		if err := l.heartbeat(ctx); err != nil {
			return err
		}
		if err := l.linger(ctx, repeatGap); err != nil {
			return err
		}
	}
	return nil
}

// linger sends what is gathered and waits, keeping the cadence of announcements
// and heartbeats.
func (l *lane) linger(ctx context.Context, d time.Duration) error {
	for end := time.Now().Add(d); ; {
		if err := l.cadence(ctx); err != nil {
			return err
		}
		if err := l.batch.flush(ctx); err != nil {
			return err
		}
		now := time.Now()
		if !now.Before(end) {
			return ctx.Err()
		}
		if err := l.batch.pace.sleep(ctx, min(end.Sub(now), max(l.nextAnnounce.Sub(now), time.Millisecond))); err != nil {
			return err
		}
	}
}

// emit seals one datagram into the batch. Between batches it keeps the cadence.
func (l *lane) emit(ctx context.Context, kind Type, sbn, esi uint32, body []byte) error {
	if l.counter >= l.pass.sender.sessionLimit {
		if err := l.renew(ctx); err != nil {
			return err
		}
	}
	l.seal(kind, sbn, esi, body)
	if err := l.batch.push(ctx); err != nil || len(l.batch.buf) > 0 {
		return err
	}
	return l.cadence(ctx)
}

// seal writes one sealed datagram into the batch and counts it.
func (l *lane) seal(kind Type, sbn, esi uint32, body []byte) {
	h := Header{Type: kind, Profile: l.announcement.Profile, Session: l.announcement.Session, Counter: l.counter, SBN: sbn, ESI: esi}
	l.cipher.seal(l.batch.next(), h, body)
	l.counter++
	l.inPass.sealed++
}

// cadence sends the announcement and the heartbeat that are due.
func (l *lane) cadence(ctx context.Context) error {
	now := time.Now()
	if !now.Before(l.nextAnnounce) {
		if err := l.announce(ctx); err != nil {
			return err
		}
		l.pass.tell(l)
	}
	if now.Before(l.nextHeartbeat) {
		return nil
	}
	return l.heartbeat(ctx)
}

// announce sends the announcement, unchanged.
func (l *lane) announce(ctx context.Context) error {
	l.nextAnnounce = time.Now().Add(announceEvery)
	copy(l.batch.next(), l.datagram)
	return l.batch.push(ctx)
}

// heartbeat sends a heartbeat of the present state.
func (l *lane) heartbeat(ctx context.Context) error {
	now := time.Now()
	l.nextHeartbeat = now.Add(heartbeatEvery)
	l.beat(now)
	return l.batch.push(ctx)
}

// beat seals a heartbeat into the batch. The zeros behind its fields are those
// that the scratch was made with.
func (l *lane) beat(now time.Time) {
	fields := appendHeartbeatFields(l.body[:0], Heartbeat{
		Source: l.inPass.source - l.before.source,
		Repair: l.inPass.repair - l.before.repair,
		Rate:   uint64(l.rate),
		Clock:  uint64(now.UnixNano()),
		Failed: l.batch.failed,
		Pass:   uint16(l.number),
		State:  l.state,
	})
	l.seal(TypeHeartbeat, 0, 0, fields[:cap(l.body)])
}

// renew ends the session and begins the next within the same pass: one key seals
// at most 2^32 datagrams (section 1).
func (l *lane) renew(ctx context.Context) error {
	state := l.state
	l.state = StateEndOfSession
	for range repeats {
		if err := l.heartbeat(ctx); err != nil {
			return err
		}
	}
	l.state = state
	if err := l.begin(); err != nil {
		return err
	}
	for range repeats {
		if err := l.announce(ctx); err != nil {
			return err
		}
	}
	return nil
}
