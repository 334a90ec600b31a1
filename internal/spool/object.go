// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"sluice/internal/durable"
	"sluice/pkg/fec"
)

var (
	// ErrBroken says that the disk failed under the object. It is sticky: every later call returns it. What was recorded
	// stays true: mend the cause (it is wrapped), then Open again and go on.
	ErrBroken = errors.New("spool: the object is broken, mend the cause and open it again")
	// ErrClosed says that the object was closed before the call.
	ErrClosed = errors.New("spool: the object is closed")
	// ErrMismatch says that the folder holds the beginnings of another object, or of this one cut in another way. Remove
	// the folder, or open the object as it was begun.
	ErrMismatch = errors.New("spool: the folder holds another object")
	// ErrBusy says that another process, or another Object, has the folder open.
	ErrBusy = errors.New("spool: the folder is in use")
	// ErrFiles says that the list of files does not make the object.
	ErrFiles = errors.New("spool: impossible list of files")
	// ErrSymbol says that the bytes cannot be the symbol: a wrong length, or padding that is not zero.
	ErrSymbol = errors.New("spool: malformed symbol")
	// ErrRange says that a range is not within the object.
	ErrRange = errors.New("spool: range outside of the object")
)

// ErrESI says that the object has no such symbol; it is the error of the code.
var ErrESI = fec.ErrESI

const (
	// maxSpans bounds the memory a span costs (6 bytes and a few words): 2^20 spans of the default 256 MiB are 256 TiB.
	maxSpans = 1 << 20
	// maxSlabGroups: the damage of a slab is one word a row.
	maxSlabGroups = 64
	// maxSlabBytes bounds the buffer of the decoder where the symbols are large: 14 groups of profile 2.
	maxSlabBytes = 24 << 20
)

// File is one file of an object. Files follow one another in the object without gaps.
type File struct {
	Name string // under the root; chosen by us (such as "files/000012"), never taken from outside
	Size int64  // bytes; 0 is a file that is just created
}

// Options change how an object is kept. The zero value is valid.
type Options struct {
	Logger     *zap.Logger // nil: silent
	SlabGroups int         // groups that are repaired together, 1 to 64; 0: 64, or fewer where a slab were over 24 MiB

	// SyncSpans makes every span durable and records it as soon as it is complete, so that a power cut costs only the
	// open spans. Without it only the complete object is synced, and a power cut costs everything.
	SyncSpans bool

	// BootID tells one boot of the machine from another; "" reads it from the kernel. For tests.
	BootID string
	// Reserve makes a new file that long; nil is durable.Allocate. For tests of sizes that no disk has.
	Reserve func(f *os.File, size int64) error
}

// Outcome is what became of a symbol.
type Outcome int

// What became of a symbol.
const (
	Stored    Outcome = iota // it is new, and kept
	Duplicate                // it is held already
	Useless                  // it is not needed: its group is complete, or has enough repair symbols
)

// String names the outcome, as a metric's label does.
func (o Outcome) String() string {
	switch o {
	case Stored:
		return "stored"
	case Duplicate:
		return "duplicate"
	case Useless:
		return "useless"
	default:
		return fmt.Sprintf("Outcome(%d)", int(o))
	}
}

// Object is an object being assembled. Open makes it, Close ends it. All methods are safe for concurrent use; Put and
// Flush are meant for one goroutine, so that symbols keep their order.
type Object struct {
	geometry fec.Geometry
	options  Options
	log      *zap.Logger
	root     *os.Root // our own, a duplicate of the caller's
	digest   [32]byte // of geometry and files
	files    *layout
	side     *os.File // spool.repair
	record   *record

	workers sync.WaitGroup

	mu       sync.Mutex // guards what follows, and the bits
	changed  *sync.Cond // something below changed
	bits     *bitmap
	counts   counts
	staging  staging
	current  fec.Span // the span of the last symbol
	spans    []spanState
	err      error // sticky
	closed   bool
	trim     bool  // the decoder may give its memory back
	quit     bool  // the workers are to end
	ready    []int // slabs waiting for the decoder, each once
	queued   []bool
	decoding int   // slab in the decoder's hands, or none
	finished []int // spans waiting for the finisher, each once
	busy     bool  // the finisher has spans in hand
	settled  int   // spans that are recorded

	work       *sync.Cond // the writers have something to do; of mu
	behind     stretch    // in the page cache, and the disk not told yet
	writebacks []stretch  // waiting for the writers

	done chan struct{}

	have, recovered, repair atomic.Int64
	complete                atomic.Int64 // spans without loss
}

// none is no slab.
const none = -1

type spanState uint8

const (
	spanOpen     spanState = iota // symbols are missing
	spanQueued                    // complete, waits for the finisher or is in its hands
	spanSpare                     // complete, its repair symbols are gone, not yet recorded
	spanRecorded                  // complete and on stable storage
)

// Complete tells whether every source symbol is here. It may not be durable yet: see [Object.Done].
func (o *Object) Complete() bool { return int(o.complete.Load()) == o.geometry.Spans() }

// Done returns a channel that is closed once the object is complete and on stable storage: every file was synced and
// that was recorded. After a [Object.Forget] that took symbols back, ask for the channel anew.
func (o *Object) Done() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.done
}

// Err returns the sticky error, an [ErrBroken], or nil. The background work can fail between two calls of Put.
func (o *Object) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// usable returns the reason why nothing can be done any more. The caller holds mu.
func (o *Object) usable() error {
	if o.err != nil {
		return o.err
	}
	if o.closed {
		return ErrClosed
	}
	return nil
}

// fail makes err sticky, ends the workers and returns the error to give to callers. The caller holds mu.
func (o *Object) fail(err error) error {
	if o.err == nil {
		o.err = fmt.Errorf("%w: %w", ErrBroken, err)
		o.log.Error("spool broken", zap.Error(err))
	}
	o.quit = true
	o.changed.Broadcast()
	o.work.Broadcast()
	return o.err
}

// Close writes what is staged, brings everything to stable storage and marks the state clean, so that the next Open
// resumes with every symbol, even after a reboot. A second call does nothing. On an error the state is that of a kill.
func (o *Object) Close() error {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return nil
	}
	err := o.usable()
	if err == nil {
		err = o.flushStaged(context.Background())
	}
	o.stop()
	if err == nil {
		err = o.sealState()
	}
	return errors.Join(err, o.release())
}

// Remove closes the object and removes all of it from the disk, files and state. (Whoever keeps one object a folder may
// as well Close it and remove the folder.) The record goes first: a crash in between leaves files that no Open trusts.
func (o *Object) Remove() error {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return ErrClosed
	}
	o.stop()
	errs := []error{durable.Remove(o.root, recordName)}
	for _, name := range []string{mapName, repairName} {
		errs = append(errs, removeIfThere(o.root, name))
	}
	errs = append(errs, o.files.remove(o.root), o.release())
	return errors.Join(errs...)
}

// stop ends the workers. The caller holds mu, which is given up.
func (o *Object) stop() {
	o.closed, o.quit = true, true
	o.changed.Broadcast()
	o.work.Broadcast()
	o.mu.Unlock()
	o.workers.Wait()
}

// sealState makes all that is here durable and says so: files, repair symbols, bits, and only then the mark.
func (o *Object) sealState() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	if err := o.files.syncAll(); err != nil {
		return o.fail(err)
	}
	if err := durable.Datasync(o.side); err != nil {
		return o.fail(err)
	}
	if err := o.bits.seal(o.recovered.Load(), o.repair.Load()); err != nil {
		return o.fail(err)
	}
	return nil
}

// release gives the descriptors and the mapping back. The workers have ended.
func (o *Object) release() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return errors.Join(o.files.close(), o.side.Close(), o.record.close(), o.bits.close(), o.root.Close())
}
