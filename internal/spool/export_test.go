// SPDX-License-Identifier: Apache-2.0

package spool

import "runtime"

// Abandon is what a SIGKILL leaves: nothing is flushed, nothing synced, the descriptors and the mapping are gone. Work in
// hand ends first, because a goroutine cannot be killed between two instructions.
func (o *Object) Abandon() error {
	o.mu.Lock()
	o.stop()
	return o.release()
}

// OpenFiles returns how many descriptors of files are open.
func (o *Object) OpenFiles() int {
	o.files.mu.Lock()
	defer o.files.mu.Unlock()
	return len(o.files.open)
}

// MaxOpenFiles is the bound.
const MaxOpenFiles = maxOpenFiles

// WindowBytes is what a kill may lose.
const WindowBytes = windowBytes

// WaitRecorded waits until n spans are on stable storage and recorded, and returns them all.
func (o *Object) WaitRecorded(n int) (recorded []int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.settled < n && o.err == nil {
		o.changed.Wait()
	}
	for sbn, state := range o.spans {
		if state == spanRecorded {
			recorded = append(recorded, sbn)
		}
	}
	return recorded
}

// AwaitDecoder returns once the decoder has a slab in hands, or there is none to take.
func (o *Object) AwaitDecoder() {
	for {
		o.mu.Lock()
		begun := o.decoding != none || len(o.ready) == 0
		o.mu.Unlock()
		if begun {
			return
		}
		runtime.Gosched()
	}
}
