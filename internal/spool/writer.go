// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"slices"
	"time"
)

const (
	// directSize is the smallest object of which anything is written past the page cache: one of a whole window.
	directSize = windowBytes

	// writers is how many goroutines write: while the disk has one write it is given the next.
	writers = 2

	// maxFlight is how many windows may wait for the disk. One more says that the disk is behind: then cachedCells go through the
	// page cache, which takes more than we may, before the next is tried.
	maxFlight   = 8
	cachedCells = 32

	// slowWrite is how long a write past the page cache takes before nothing waits for it: several times what one takes that has the
	// disk for itself, and a tenth of what a socket holds.
	slowWrite = 10 * time.Millisecond
	slowFor   = time.Second

	// writebackBytes is how much goes through the page cache before the disk is told to begin: so that it works while the link does,
	// and little is left to wait for when a span is complete.
	writebackBytes = 8 << 20

	// maxWritebacks is how many such ranges wait. What comes then is left to the sync of the span.
	maxWritebacks = 4
)

// goesPast tells whether a window that is whole is written past the page cache: O_DIRECT, which costs a fifth of the processor's
// time of a write that is copied, written back and given back later. Not
//
//   - while the disk is behind: nothing but the page cache holds more than a moment of the link;
//   - in a span of which repair symbols are here. The decoder may write into the same pages through the cache, and the two must
//     never meet in one page (open(2), NOTES on O_DIRECT). Without repair symbols it writes nothing, and with the first of them it
//     waits until what is on its way is written (repairable).
//
// What has gaps goes through the cache, too: what fills them comes later, in pieces of pages.
func (o *Object) goesPast(w *window) bool {
	g := &o.staging
	switch {
	case !o.files.direct.Load():
		return false
	case g.cached > 0:
		g.cached--
		return false
	case len(g.flight) == maxFlight:
		g.cached = cachedCells
		return false
	}
	return countSet(o.bits.repairOf(w.sbn)) == 0
}

// stretch is a range of the object.
type stretch struct{ start, end int64 }

// wrote notes that the bytes from start to end went to the page cache, and hands them to the writers once there are enough. Only
// what follows one another counts: the rest is left to the sync of the span, which misses nothing. The caller holds mu.
func (o *Object) wrote(start, end int64) {
	if start != o.behind.end {
		o.behind.start = start
	}
	o.behind.end = end
	if end-o.behind.start < writebackBytes {
		return
	}
	if len(o.writebacks) < maxWritebacks {
		o.writebacks = append(o.writebacks, o.behind)
		o.work.Signal()
	}
	o.behind.start = end
}

// writer is a goroutine that writes windows past the page cache, and tells the disk to begin with what is in it, so that Put waits
// for neither. It makes nothing durable: that is the finisher's.
func (o *Object) writer() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		for !o.quit && len(o.staging.queue) == 0 && len(o.writebacks) == 0 {
			o.work.Wait()
		}
		switch {
		case o.quit:
			return
		case len(o.staging.queue) > 0:
			w := o.staging.queue[0]
			o.staging.queue = slices.Delete(o.staging.queue, 0, 1)
			if o.writePast(w) != nil {
				return
			}
		default:
			s := o.writebacks[0]
			o.writebacks = slices.Delete(o.writebacks, 0, 1)
			o.mu.Unlock()
			o.files.startWriteback(s.start, s.end)
			o.mu.Lock()
		}
	}
}

// writePast writes a whole window and sets the bits of its symbols. The caller holds mu, which is given up meanwhile: the window
// is in flight, nobody else touches it.
func (o *Object) writePast(w *window) error {
	s := o.geometry.Span(w.sbn)
	w.since = time.Now()
	o.mu.Unlock()
	err := o.files.writePast(w.buf, s.Offset(w.first), w.phase)
	o.mu.Lock()
	o.staging.timed(w, time.Now())
	o.staging.flight = slices.DeleteFunc(o.staging.flight, func(f *window) bool { return f == w })
	if err != nil {
		return o.fail(err)
	}
	o.mark(s, w.first, w.n)
	o.staging.give(w)
	o.changed.Broadcast()
	return nil
}
