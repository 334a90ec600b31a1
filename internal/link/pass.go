// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"crypto/rand"
	"io"
	"time"

	"sluice/pkg/fec"
)

// The cadence of section 5.
const (
	announceEvery  = 250 * time.Millisecond
	heartbeatEvery = time.Second
	carouselEvery  = 256 // payload symbols for one envelope symbol

	// repeats is how often what must not be missed is said at the beginning and
	// at the end, repeatGap apart: 8 over 120 ms outlive a short stall.
	repeats   = 8
	repeatGap = 15 * time.Millisecond

	// readAhead is how much of the payload is read at a time.
	readAhead = 1 << 20
)

// pass is one Send under way: the session that it seals under, the batch that it
// fills, and how far it is.
type pass struct {
	sender       *Sender
	transfer     Transfer
	announcement Announcement
	geometry     fec.Geometry // of the payload object
	carousel     *carousel    // nil in an idle session

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
	started       time.Time
	nextAnnounce  time.Time
	nextHeartbeat time.Time
}

// counts are datagrams sealed, by kind.
type counts struct{ sealed, source, repair, envelope uint64 }

// blankPass returns a pass with nothing to send yet.
func (s *Sender) blankPass(a Announcement) *pass {
	return &pass{
		sender: s, announcement: a, started: time.Now(), rate: s.config.Rate, number: a.Pass,
		batch: newBatcher(s.config.Conn, s.config.Profile.DatagramSize(), s.config.Rate),
		body:  make([]byte, 0, s.config.Profile.SymbolSize()),
	}
}

// begin makes a new session: a fresh id and key, counter 0.
func (p *pass) begin() error {
	rand.Read(p.announcement.Session[:])
	c := &p.sender.config
	datagram, key, err := SealAnnouncement(rand.Reader, p.announcement, c.LinkKey, c.ReceiverKey)
	if err != nil {
		return err
	}
	if p.cipher, err = newSessionCipher(key); err != nil {
		return err
	}
	p.datagram, p.counter, p.before = datagram, 0, p.inPass
	p.sessions++
	return nil
}

// run sends the pass in the order of section 5.
func (p *pass) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{p.leadIn, p.payload, p.end} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return p.batch.flush(ctx)
}

// leadIn announces, sends the envelope object once, and lets the receiver settle.
func (p *pass) leadIn(ctx context.Context) error {
	p.state = StateLeadIn
	for range repeats {
		if err := p.announce(ctx); err != nil {
			return err
		}
		if err := p.linger(ctx, repeatGap); err != nil {
			return err
		}
	}
	if err := p.envelopeTurn(ctx); err != nil {
		return err
	}
	return p.linger(ctx, p.sender.settle(p.transfer))
}

// payload sends the source and the repair symbols of the payload object.
func (p *pass) payload(ctx context.Context) error {
	p.state = StateSending
	if p.transfer.Only != nil {
		return p.selection(ctx)
	}
	if p.transfer.Rows == 0 {
		return p.spans(ctx, nil)
	}
	ctx, cancel := context.WithCancel(ctx)
	r, err := startRepairer(ctx, p.transfer.Payload, p.geometry, p.transfer.FirstRow, p.transfer.Rows)
	if err != nil {
		cancel()
		return err
	}
	defer r.stop()
	defer cancel()
	return p.spans(ctx, r)
}

// spans sends span after span. The repair symbols of a span are spread through
// the source of the next, so that one outage cannot take both; those of the last
// span follow it. Without source, the repair symbols of each span just follow.
func (p *pass) spans(ctx context.Context, r *repairer) error {
	source := newObjectReader(p.transfer.Payload, p.geometry)
	var owed *repairSymbols // of the span before
	for sbn := range p.geometry.Spans() {
		if p.transfer.Source {
			if err := p.sourceSymbols(ctx, source, p.geometry.Span(sbn), owed); err != nil {
				return err
			}
		}
		if err := p.settleDebt(ctx, r, owed); err != nil {
			return err
		}
		if r == nil {
			continue
		}
		var err error
		if owed, err = r.take(); err != nil {
			return err
		}
	}
	return p.settleDebt(ctx, r, owed)
}

// settleDebt sends the repair symbols that are left, and gives their memory back.
func (p *pass) settleDebt(ctx context.Context, r *repairer, owed *repairSymbols) error {
	if owed == nil {
		return nil
	}
	for owed.sent < owed.total() {
		if err := p.repairSymbol(ctx, owed); err != nil {
			return err
		}
	}
	r.release(owed)
	return nil
}

// sourceSymbols sends the source symbols of a span, with the repair symbols of
// the span before spread evenly through them.
func (p *pass) sourceSymbols(ctx context.Context, source *objectReader, span fec.Span, owed *repairSymbols) error {
	debt := 0
	for i := range span.N {
		body, err := source.symbol(span.Offset(i))
		if err != nil {
			return err
		}
		p.inPass.source++
		if err := p.payloadSymbol(ctx, uint32(span.SBN), uint32(i), body); err != nil {
			return err
		}
		if owed == nil {
			continue
		}
		for debt += owed.total(); debt >= span.N; debt -= span.N {
			if err := p.repairSymbol(ctx, owed); err != nil {
				return err
			}
		}
	}
	return nil
}

// repairSymbol sends the next repair symbol.
func (p *pass) repairSymbol(ctx context.Context, owed *repairSymbols) error {
	sbn, esi, body := owed.step()
	p.inPass.repair++
	return p.payloadSymbol(ctx, sbn, esi, body)
}

// payloadSymbol sends one symbol, and one of the envelope in every 256.
func (p *pass) payloadSymbol(ctx context.Context, sbn, esi uint32, body []byte) error {
	if err := p.emit(ctx, TypePayload, sbn, esi, body); err != nil {
		return err
	}
	p.sinceEnvelope++
	if p.sinceEnvelope < carouselEvery {
		return nil
	}
	p.sinceEnvelope = 0
	return p.envelopeSymbol(ctx)
}

// envelopeTurn sends the whole envelope object, from its beginning.
func (p *pass) envelopeTurn(ctx context.Context) error {
	p.carousel.rewind()
	for range p.carousel.turn() {
		if err := p.envelopeSymbol(ctx); err != nil {
			return err
		}
	}
	return nil
}

// envelopeSymbol sends the next symbol of the carousel.
func (p *pass) envelopeSymbol(ctx context.Context) error {
	sbn, esi, body, err := p.carousel.step()
	if err != nil {
		return err
	}
	p.inPass.envelope++
	return p.emit(ctx, TypeEnvelope, sbn, esi, body)
}

// end sends the envelope object again, then says several times that the pass,
// and that the session is over.
func (p *pass) end(ctx context.Context) error {
	p.state = StateEndOfPass
	if err := p.envelopeTurn(ctx); err != nil {
		return err
	}
	for _, p.state = range []State{StateEndOfPass, StateEndOfSession} {
		if err := p.sayState(ctx); err != nil {
			return err
		}
	}
	return nil
}

// sayState sends heartbeats, with the announcement for whoever came late.
func (p *pass) sayState(ctx context.Context) error {
	for range repeats {
		if err := p.announce(ctx); err != nil {
			return err
		}
		if err := p.heartbeat(ctx); err != nil {
			return err
		}
		if err := p.linger(ctx, repeatGap); err != nil {
			return err
		}
	}
	return nil
}

// linger sends what is gathered and waits, keeping the cadence of announcements
// and heartbeats.
func (p *pass) linger(ctx context.Context, d time.Duration) error {
	for end := time.Now().Add(d); ; {
		if err := p.cadence(ctx); err != nil {
			return err
		}
		if err := p.batch.flush(ctx); err != nil {
			return err
		}
		now := time.Now()
		if !now.Before(end) {
			return ctx.Err()
		}
		if err := p.batch.pace.sleep(ctx, min(end.Sub(now), max(p.nextAnnounce.Sub(now), time.Millisecond))); err != nil {
			return err
		}
	}
}

// emit seals one datagram into the batch. Between batches it keeps the cadence.
func (p *pass) emit(ctx context.Context, kind Type, sbn, esi uint32, body []byte) error {
	if p.counter >= p.sender.sessionLimit {
		if err := p.renew(ctx); err != nil {
			return err
		}
	}
	p.seal(kind, sbn, esi, body)
	if err := p.batch.push(ctx); err != nil || len(p.batch.buf) > 0 {
		return err
	}
	return p.cadence(ctx)
}

// seal writes one sealed datagram into the batch and counts it.
func (p *pass) seal(kind Type, sbn, esi uint32, body []byte) {
	h := Header{Type: kind, Profile: p.announcement.Profile, Session: p.announcement.Session, Counter: p.counter, SBN: sbn, ESI: esi}
	p.cipher.seal(p.batch.next(), h, body)
	p.counter++
	p.inPass.sealed++
}

// cadence sends the announcement and the heartbeat that are due.
func (p *pass) cadence(ctx context.Context) error {
	now := time.Now()
	if !now.Before(p.nextAnnounce) {
		if err := p.announce(ctx); err != nil {
			return err
		}
		p.tell()
	}
	if now.Before(p.nextHeartbeat) {
		return nil
	}
	return p.heartbeat(ctx)
}

// announce sends the announcement, unchanged.
func (p *pass) announce(ctx context.Context) error {
	p.nextAnnounce = time.Now().Add(announceEvery)
	copy(p.batch.next(), p.datagram)
	return p.batch.push(ctx)
}

// heartbeat sends a heartbeat of the present state.
func (p *pass) heartbeat(ctx context.Context) error {
	now := time.Now()
	p.nextHeartbeat = now.Add(heartbeatEvery)
	p.beat(now)
	return p.batch.push(ctx)
}

// beat seals a heartbeat into the batch. The zeros behind its fields are those
// that the scratch was made with.
func (p *pass) beat(now time.Time) {
	fields := appendHeartbeatFields(p.body[:0], Heartbeat{
		Source: p.inPass.source - p.before.source,
		Repair: p.inPass.repair - p.before.repair,
		Rate:   uint64(p.rate),
		Clock:  uint64(now.UnixNano()),
		Failed: p.batch.failed,
		Pass:   uint16(p.number),
		State:  p.state,
	})
	p.seal(TypeHeartbeat, 0, 0, fields[:cap(p.body)])
}

// renew ends the session and begins the next within the same pass: one key seals
// at most 2^32 datagrams (section 1).
func (p *pass) renew(ctx context.Context) error {
	state := p.state
	p.state = StateEndOfSession
	for range repeats {
		if err := p.heartbeat(ctx); err != nil {
			return err
		}
	}
	p.state = state
	if err := p.begin(); err != nil {
		return err
	}
	for range repeats {
		if err := p.announce(ctx); err != nil {
			return err
		}
	}
	return nil
}

// report says what the pass sent so far.
func (p *pass) report() SendReport {
	return SendReport{
		Session: p.announcement.Session, Sessions: p.sessions, Sealed: p.inPass.sealed,
		Source: p.inPass.source, Repair: p.inPass.repair, Envelope: p.inPass.envelope,
		Bytes: p.batch.bytes, Elapsed: time.Since(p.started), SendErrors: p.batch.failed,
	}
}

// tell reports progress.
func (p *pass) tell() {
	if p.sender.config.Progress == nil {
		return
	}
	progress := SendProgress{SendReport: p.report(), State: p.state, Pass: p.announcement.Pass}
	if !p.announcement.Idle() {
		progress.SourceTotal, progress.RepairTotal = p.totals()
	}
	p.sender.config.Progress(progress)
}

// totals returns how many payload symbols the pass has.
func (p *pass) totals() (source, repair uint64) {
	if p.transfer.Only != nil {
		a, b := p.transfer.Only.Symbols()
		return uint64(a), uint64(b)
	}
	if p.transfer.Source {
		source = uint64(p.geometry.Symbols())
	}
	for sbn := range p.geometry.Spans() {
		repair += uint64(p.transfer.Rows * p.geometry.Span(sbn).D)
	}
	return source, repair
}

// objectReader reads an object once, in order, in large pieces.
type objectReader struct {
	source   io.ReaderAt
	geometry fec.Geometry
	buf      []byte
	from     int64 // offset of buf in the object
	filled   bool
}

// newObjectReader allocates the buffer of about readAhead bytes, whole symbols.
func newObjectReader(source io.ReaderAt, geometry fec.Geometry) *objectReader {
	symbols := max(1, readAhead/geometry.SymbolSize)
	return &objectReader{source: source, geometry: geometry, buf: make([]byte, symbols*geometry.SymbolSize)}
}

// symbol returns the symbol at an offset that is a multiple of T, padded with
// zeros past the object's end. It is valid until the next call.
func (r *objectReader) symbol(off int64) ([]byte, error) {
	size := int64(r.geometry.SymbolSize)
	if !r.filled || off < r.from || off+size > r.from+int64(len(r.buf)) {
		if err := readObject(r.source, r.buf, off, r.geometry.ObjectSize); err != nil {
			return nil, err
		}
		r.from, r.filled = off, true
	}
	return r.buf[off-r.from:][:size], nil
}
