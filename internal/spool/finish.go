// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"fmt"

	"go.uber.org/zap"

	"sluice/internal/durable"
	"sluice/pkg/fec"
)

// settleSpan hands a span that lost nothing more to the finisher. Not while the decoder works in it: that would read
// repair symbols out of the hole that the finisher punches, and write what comes of it. The decoder's commit asks again.
func (o *Object) settleSpan(sbn int) {
	if o.counts.spanLost[sbn] != 0 || o.spans[sbn] != spanOpen {
		return
	}
	if o.decoding != none && o.decoding/o.counts.slabs == sbn {
		return
	}
	o.spans[sbn] = spanQueued
	o.complete.Add(1)
	o.finished = append(o.finished, sbn)
	o.changed.Broadcast()
}

// finisher is the goroutine that makes complete spans durable, so that Put never waits for the disk. Spans that complete
// while it waits are taken together: one record, one sync.
func (o *Object) finisher() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		for !o.quit && len(o.finished) == 0 {
			o.changed.Wait()
		}
		if o.quit {
			return
		}
		batch := o.finished
		o.finished, o.busy = nil, true
		durably := o.toRecord(batch)
		o.mu.Unlock()
		err := o.makeDurable(durably)
		if err == nil {
			err = o.dropRepair(batch)
		}
		o.mu.Lock()
		o.busy = false
		if err != nil {
			_ = o.fail(err) // sticky: the next call returns it
			return
		}
		o.settle(batch, durably)
		o.changed.Broadcast()
	}
}

// toRecord returns the spans to record now: those of the batch, or with SyncSpans off none until the object is complete
// and then all.
func (o *Object) toRecord(batch []int) []int {
	if o.options.SyncSpans {
		return batch
	}
	if !o.Complete() {
		return nil
	}
	var all []int
	for sbn, state := range o.spans {
		if state != spanRecorded {
			all = append(all, sbn)
		}
	}
	return all
}

// makeDurable brings spans to stable storage and then, and only then, records that they are. No lock is held.
//
//	fdatasync(each file of the spans), or syncfs; pwrite(spool.record); fdatasync(spool.record)
func (o *Object) makeDurable(spans []int) error {
	if len(spans) == 0 {
		return nil
	}
	for _, sbn := range spans {
		s := o.geometry.Span(sbn)
		if err := o.files.sync(s.Offset(0), min(s.Offset(s.N), o.geometry.ObjectSize)); err != nil {
			return fmt.Errorf("span %d: %w", sbn, err)
		}
	}
	if err := o.record.append(kindComplete, spans); err != nil {
		return err
	}
	for _, sbn := range spans { // new pages for every span cost Put three times as much as these again
		s := o.geometry.Span(sbn)
		o.files.dropCache(s.Offset(0), s.Offset(s.N))
	}
	return nil
}

// dropRepair forgets the repair symbols of complete spans: first the bits, then the bytes. Nobody reads or writes them: the
// groups lack nothing, the decoder is not in the span, and Forget waits for the finisher.
func (o *Object) dropRepair(spans []int) error {
	for _, sbn := range spans {
		s := o.geometry.Span(sbn)
		if !o.clearRepair(s) {
			continue
		}
		if err := durable.PunchHole(o.side, sideOffset(s), sideBytes(s)); err != nil {
			return err
		}
	}
	return nil
}

// clearRepair clears the repair bits of a span and tells whether there were any.
func (o *Object) clearRepair(s fec.Span) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	repair := o.bits.repairOf(s.SBN)
	if countSet(repair) == 0 {
		return false
	}
	clear(repair)
	o.counts.drop(s)
	return true
}

// settle notes what the finisher did, and says so when it was the last of it.
func (o *Object) settle(batch, durably []int) {
	for _, sbn := range batch {
		o.spans[sbn] = spanSpare
	}
	for _, sbn := range durably {
		o.spans[sbn] = spanRecorded
	}
	o.settled += len(durably)
	if o.settled == len(o.spans) {
		o.log.Info("object complete and durable", zap.Int64("bytes", o.geometry.ObjectSize),
			zap.Int64("symbols", o.geometry.Symbols()), zap.Int64("recovered", o.recovered.Load()))
		close(o.done)
	}
}

// Forget takes back the source symbols that overlap length bytes from offset on: a content block was found damaged on
// the disk. They count as lost again: what repair symbols are here is used, the rest is received again. It waits for
// the background work, so that nothing is computed from the damaged bytes any more. A range outside of the object is
// [ErrRange].
//
// Symbols that were recovered with the help of a damaged one are damaged too; they lie in other blocks, which the content
// index shows as well.
func (o *Object) Forget(offset, length int64) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if offset < 0 || length < 0 || offset > o.geometry.ObjectSize || length > o.geometry.ObjectSize-offset {
		return fmt.Errorf("%w: %d bytes from %d, the object has %d", ErrRange, length, offset, o.geometry.ObjectSize)
	}
	if err := o.usable(); err != nil || length == 0 {
		return err
	}
	for o.decoding != none || o.busy || len(o.finished) > 0 || len(o.staging.flight) > 0 {
		o.changed.Wait()
		if err := o.usable(); err != nil {
			return err
		}
	}
	size := int64(o.geometry.SymbolSize)
	return o.takeBack(offset/size, (offset+length-1)/size)
}

// takeBack clears the bits of source symbols first to last, span by span. The record goes first.
func (o *Object) takeBack(first, last int64) error {
	perSpan := int64(fec.K) * int64(o.geometry.Groups)
	var recorded []int
	for sbn := int(first / perSpan); sbn <= int(last/perSpan); sbn++ {
		if o.spans[sbn] == spanRecorded {
			recorded = append(recorded, sbn)
		}
	}
	if len(recorded) > 0 {
		if err := o.record.append(kindReopened, recorded); err != nil {
			return o.fail(err)
		}
	}
	if o.settled == len(o.spans) && len(recorded) > 0 {
		o.done = make(chan struct{})
	}
	o.settled -= len(recorded)
	for sbn := int(first / perSpan); sbn <= int(last/perSpan); sbn++ {
		s := o.geometry.Span(sbn)
		o.reopen(s, int(max(0, first-s.First)), int(min(int64(s.N-1), last-s.First)))
	}
	return nil
}

// reopen clears source symbols first to last of a span.
func (o *Object) reopen(s fec.Span, first, last int) {
	source := o.bits.sourceOf(s.SBN)
	if o.spans[s.SBN] != spanOpen {
		o.spans[s.SBN] = spanOpen
		o.complete.Add(-1)
	}
	for i := first; i <= last; i++ {
		if isSet(source, i) {
			unset(source, i)
			o.counts.lose(s.SBN, i%s.D, 1)
			o.have.Add(-1)
		}
	}
	for slab := s.SBN * o.counts.slabs; slab < (s.SBN+1)*o.counts.slabs; slab++ {
		o.offer(slab)
	}
}
