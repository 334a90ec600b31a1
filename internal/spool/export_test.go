// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"runtime"
	"sync"
)

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

// Cell is how many symbols a full window has.
func (o *Object) Cell() int { return o.staging.size }

// What a kill may lose: Staged windows that are being filled, and MaxFlight that are on their way; of these so many as there are
// Writers may be in the file all the same.
const (
	WindowBytes = windowBytes
	Staged      = 2
	Writers     = writers
)

// UseDirect makes a small object write past the page cache, too.
func (o *Object) UseDirect() { o.files.direct.Store(true) }

// gatedLock is the kernel's lock of a file on a disk that gate holds up.
type gatedLock struct {
	sync.RWMutex
	gate func()
}

func (l *gatedLock) RLock() {
	l.RWMutex.RLock()
	l.gate()
}

// Gate is called before each write past the page cache, which has the lock of the file then. Set it before the first.
func (o *Object) Gate(gate func()) { o.files.lock = &gatedLock{gate: gate} }

// openLock is that of a file system which has none.
type openLock struct{ gate func() }

func (openLock) Lock()    {}
func (openLock) Unlock()  {}
func (l openLock) RLock() { l.gate() }
func (openLock) RUnlock() {}

// GateUnlocked is Gate on a file system where such a write holds no lock.
func (o *Object) GateUnlocked(gate func()) { o.files.lock = openLock{gate} }

// SlowWrite is how long a write takes that nothing waits for.
const SlowWrite = slowWrite

// MaxFlight is how many windows wait for the disk.
const MaxFlight = maxFlight

// Direct tells whether whole windows are written past the page cache.
func (o *Object) Direct() bool { return o.files.direct.Load() }

// AwaitFlight waits until nothing is on its way to the disk.
func (o *Object) AwaitFlight() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.staging.flight) > 0 && o.err == nil {
		o.changed.Wait()
	}
}

// Has tells whether the bit of source symbol i of a span is set.
func (o *Object) Has(sbn, i int) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return isSet(o.bits.sourceOf(sbn), i)
}

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
