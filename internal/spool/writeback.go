// SPDX-License-Identifier: Apache-2.0

package spool

const (
	// writebackBytes is how much is written before the disk is told to begin: so that it works while the link does, and little is
	// left to wait for when a span is complete.
	writebackBytes = 8 << 20

	// maxWritebacks is how many ranges wait for a disk that is behind. What comes then is left to the sync of the span.
	maxWritebacks = 4
)

// stretch is a range of the object.
type stretch struct{ start, end int64 }

// wrote notes that the bytes from start to end were written, and hands them to the writer once there are enough. Only what
// follows one another counts: the rest is left to the sync of the span, which misses nothing. The caller holds mu.
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
		o.changed.Broadcast()
	}
	o.behind.start = end
}

// writer is the goroutine that tells the disk to begin with what was written, so that Put never waits for room in its queue.
// It promises nothing: that is the finisher's.
func (o *Object) writer() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		for !o.quit && len(o.writebacks) == 0 {
			o.changed.Wait()
		}
		if o.quit {
			return
		}
		list := o.writebacks
		o.writebacks = nil
		o.mu.Unlock()
		for _, s := range list {
			o.files.startWriteback(s.start, s.end)
		}
		o.mu.Lock()
	}
}
