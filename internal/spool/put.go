// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"context"
	"fmt"

	"sluice/pkg/fec"
)

// Put takes one encoding symbol: T bytes, copied. It writes at most two windows to the page cache, and waits neither for a repair nor for the
// disk.
//
// [Stored]: it was new and is kept. [Duplicate]: it was here. [Useless]: a repair symbol of a group that is whole or has
// as many repair symbols as it lacks source symbols; it is dropped. An error that is [ErrESI] or [ErrSymbol] says that
// the symbol was nonsense: count it, the object is as before. Any other error is final for the object.
func (o *Object) Put(sbn, esi uint32, symbol []byte) (Outcome, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.put(sbn, esi, symbol)
}

// Held is an object that is locked for symbols that come at once, and shows where they belong: one that is decrypted there is not
// copied into memory that is far from the processor, which is a tenth of what a receiver does.
type Held struct{ object *Object }

// Hold locks the object until [Held.Release], for a moment: meanwhile all else waits, and of its methods only those that take no
// lock may be called by the goroutine that holds it.
func (o *Object) Hold() Held {
	o.mu.Lock()
	return Held{o}
}

// Slot returns the T bytes of a source symbol that is missing, if its place is in memory already, and else nil. Whatever is written
// there is of no account before Put is called with it.
func (h Held) Slot(sbn, esi uint32) []byte {
	o := h.object
	if o.usable() != nil || int64(sbn) >= int64(len(o.spans)) {
		return nil
	}
	s := o.turnTo(int(sbn))
	if int64(esi) >= int64(s.N) {
		return nil
	}
	return o.staging.slot(int(sbn), int(esi), s.SymbolSize)
}

// turnTo is the span at hand.
func (o *Object) turnTo(sbn int) fec.Span {
	if o.current.SBN != sbn || o.current.N == 0 {
		o.current = o.geometry.Span(sbn)
	}
	return o.current
}

// Put is [Object.Put]. symbol may be the Slot.
func (h Held) Put(sbn, esi uint32, symbol []byte) (Outcome, error) {
	return h.object.put(sbn, esi, symbol)
}

// Release unlocks the object.
func (h Held) Release() { h.object.mu.Unlock() }

// put is Put. The caller holds mu.
func (o *Object) put(sbn, esi uint32, symbol []byte) (Outcome, error) {
	if err := o.usable(); err != nil {
		return 0, err
	}
	if len(symbol) != o.geometry.SymbolSize {
		return 0, fmt.Errorf("%w: %d bytes, want %d", ErrSymbol, len(symbol), o.geometry.SymbolSize)
	}
	if int64(sbn) >= int64(len(o.spans)) {
		return 0, fmt.Errorf("%w: SBN %d, the object has %d spans", ErrESI, sbn, len(o.spans))
	}
	s := o.turnTo(int(sbn))
	position, err := s.Locate(esi)
	if err != nil {
		return 0, err
	}
	if position.Repair {
		return o.putRepair(s, position.Row, position.Group, symbol)
	}
	return o.putSource(s, int(esi), symbol)
}

// putRepair keeps a repair symbol in its place in the side file.
func (o *Object) putRepair(s fec.Span, row, group int, symbol []byte) (Outcome, error) {
	repair := o.bits.repairOf(s.SBN)
	if isSet(repair, row*s.D+group) {
		return Duplicate, nil
	}
	// What is staged counts as lost until it is written.
	if err := o.flushSpan(s.SBN); err != nil {
		return 0, err
	}
	if o.counts.enough(s.SBN, group, o.staging.flyingOf(s, group)) {
		return Useless, nil
	}
	if _, err := o.side.WriteAt(symbol, repairOffset(s, row, group)); err != nil {
		return 0, o.fail(fmt.Errorf("repair symbol: %w", err))
	}
	set(repair, row*s.D+group)
	o.counts.gain(s.SBN, group)
	o.bits.words[wordRepair] = uint64(o.repair.Add(1))
	o.offer(o.counts.slab(s.SBN, group))
	return Stored, nil
}

// repairOffset is the place of a repair symbol in the side file: span, row, group. Rows have the width of a full span,
// and so neighbouring groups lie together.
func repairOffset(s fec.Span, row, group int) int64 {
	return sideOffset(s) + int64(row*s.D+group)*int64(s.SymbolSize)
}

// sideOffset is where the repair symbols of a span begin.
func sideOffset(s fec.Span) int64 { return int64(s.SBN) * sideBytes(s) }

// sideBytes is the room of a span in the side file.
func sideBytes(s fec.Span) int64 { return int64(fec.MaxRows) * int64(s.Groups) * int64(s.SymbolSize) }

// offer gives a slab to the decoder if all its damaged groups can be repaired.
func (o *Object) offer(slab int) {
	if o.counts.damaged[slab] > 0 && o.counts.stuck[slab] == 0 {
		o.enqueue(slab)
	}
}

func (o *Object) enqueue(slab int) {
	if !o.queued[slab] {
		o.queued[slab] = true
		o.ready = append(o.ready, slab)
		o.changed.Broadcast()
	}
}

// Flush is for the end of a pass, or an idle link: it writes what is staged, repairs every group that can be repaired,
// and returns when that is done, when ctx ends (with its cause), or when the object breaks. It does not wait for the
// disk to sync; see [Object.Done].
func (o *Object) Flush(ctx context.Context) error {
	wake := context.AfterFunc(ctx, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.changed.Broadcast()
	})
	defer wake()
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.usable(); err != nil {
		return err
	}
	if err := o.flushStaged(ctx); err != nil {
		return err
	}
	o.enqueueRepairable()
	for len(o.ready) > 0 || o.decoding != none {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		o.changed.Wait()
		if err := o.usable(); err != nil {
			return err
		}
	}
	o.trim, o.staging.spare, o.staging.arena = true, nil, nil // a pass has ended: give the memory back
	o.changed.Broadcast()
	return nil
}

// enqueueRepairable gives every slab to the decoder in which at least one group can be repaired.
func (o *Object) enqueueRepairable() {
	for slab := range o.counts.damaged {
		if o.counts.damaged[slab] > o.counts.stuck[slab] {
			o.enqueue(slab)
		}
	}
}
