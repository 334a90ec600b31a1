// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"sync"
	"time"

	"sluice/pkg/fec"
)

// The cadence of section 5.
const (
	announceEvery  = 250 * time.Millisecond
	heartbeatEvery = time.Second
	carouselEvery  = 256 // payload symbols of a lane for one envelope symbol

	// repeats is how often what must not be missed is said at the beginning and
	// at the end, repeatGap apart: 8 over 120 ms outlive a short stall.
	repeats   = 8
	repeatGap = 15 * time.Millisecond
)

// pass is one Send under way: what of the payload is sent, in which order, and
// the lanes that carry it.
type pass struct {
	sender   *Sender
	transfer Transfer
	geometry fec.Geometry // of the payload object
	lanes    []*lane
	dealer   *dealer // nil: there is one lane, and nothing to deal
	started  time.Time

	mu    sync.Mutex
	shown []LaneReport // of each lane, as it told last

	telling sync.Mutex // held while Progress runs
}

// place says where a symbol of the payload object belongs.
type place struct {
	sbn, esi uint32
	repair   bool
	turn     int // what it is dealt by: row + group, repair rows counting on from 192, on from span to span
}

// sourcePlace is that of source symbol i of a span.
func sourcePlace(span fec.Span, i int) place {
	return place{sbn: uint32(span.SBN), esi: uint32(i), turn: turnOf(span, i/span.D, i%span.D)}
}

// repairPlace is that of a repair symbol of a span.
func repairPlace(span fec.Span, row, group int) place {
	return place{sbn: uint32(span.SBN), esi: span.RepairESI(row, group), repair: true, turn: turnOf(span, fec.K+row, group)}
}

// turnOf lets the rows of a group follow one another on the wheel.
func turnOf(span fec.Span, row, group int) int { return span.SBN%wheelSize*fec.K + row + group }

// blankPass returns a pass with nothing to send yet, each of its lanes with a
// session that looks like a.
func (s *Sender) blankPass(a Announcement) *pass {
	p := &pass{sender: s, started: time.Now(), shown: make([]LaneReport, len(s.config.Lanes))}
	for i := range s.config.Lanes {
		p.lanes = append(p.lanes, p.newLane(i, a))
	}
	return p
}

// begin makes the session of each lane.
func (p *pass) begin() error {
	for _, l := range p.lanes {
		if err := l.begin(); err != nil {
			return err
		}
		p.shown[l.index] = l.report()
	}
	return nil
}

// run sends the pass in the order of section 5. One lane is driven from here,
// without a hand-over; several have a goroutine each.
func (p *pass) run(ctx context.Context) error {
	if p.dealer != nil {
		return p.dealer.run(ctx, p.payload)
	}
	l := p.lanes[0]
	err := l.send(ctx, p.payload)
	p.show(l, nil)
	return err
}

// put sends one symbol of the payload, over the lane whose turn it is.
func (p *pass) put(ctx context.Context, s place, body []byte) error {
	if p.dealer != nil {
		return p.dealer.put(ctx, s, body)
	}
	return p.lanes[0].payloadSymbol(ctx, s, body)
}

// payload sends the source and the repair symbols of the payload object.
func (p *pass) payload(ctx context.Context) error {
	if p.transfer.Only != nil {
		return p.selection(ctx)
	}
	o := newObject(p.transfer.Payload, p.geometry.ObjectSize)
	if p.transfer.Rows == 0 {
		return p.spans(ctx, o, nil)
	}
	ctx, cancel := context.WithCancel(ctx)
	r, err := startRepairer(ctx, o, p.geometry, p.transfer.FirstRow, p.transfer.Rows)
	if err != nil {
		cancel()
		return err
	}
	defer r.stop()
	defer cancel()
	return p.spans(ctx, o, r)
}

// spans sends span after span. The repair symbols of a span are spread through
// the source of the next, so that one outage cannot take both; those of the last
// span follow it. Without source, the repair symbols of each span just follow.
func (p *pass) spans(ctx context.Context, o object, r *repairer) (err error) {
	source := newObjectReader(o, p.geometry.SymbolSize)
	defer source.guard(&err)()
	var owed *repairSymbols // of the span before
	for sbn := range p.geometry.Spans() {
		span := p.geometry.Span(sbn)
		if p.transfer.Source {
			if err := p.sourceSymbols(ctx, source, span, owed); err != nil {
				return err
			}
		}
		if err := p.settleDebt(ctx, r, owed); err != nil {
			return err
		}
		if r != nil {
			if owed, err = r.take(); err != nil {
				return err
			}
		}
		o.forget(span.Offset(span.N)) // it was sent, and encoded
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
		if err := p.put(ctx, sourcePlace(span, i), body); err != nil {
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
	s, body := owed.step()
	return p.put(ctx, s, body)
}

// show takes in how far a lane is, and why it was given up if it was.
func (p *pass) show(l *lane, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shown[l.index] = l.report()
	p.shown[l.index].Err = err
}

// report says what the pass sent, as far as its lanes told.
func (p *pass) report() SendReport {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := SendReport{Session: p.shown[0].Session, Elapsed: time.Since(p.started), Lanes: append([]LaneReport(nil), p.shown...)}
	for _, l := range r.Lanes {
		r.Sessions += l.Sessions
		r.Sealed += l.Sealed
		r.Source += l.Source
		r.Repair += l.Repair
		r.Envelope += l.Envelope
		r.Bytes += l.Bytes
		r.SendErrors += l.SendErrors
	}
	return r
}

// tell reports progress: of a lane, and so of the pass.
func (p *pass) tell(l *lane) {
	p.show(l, nil)
	if p.sender.config.Progress == nil {
		return
	}
	progress := SendProgress{SendReport: p.report(), State: l.state, Pass: l.announcement.Pass}
	if !l.announcement.Idle() {
		progress.SourceTotal, progress.RepairTotal = p.totals()
	}
	p.telling.Lock()
	defer p.telling.Unlock()
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
