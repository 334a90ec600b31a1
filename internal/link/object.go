// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
)

// readAhead is how much of the payload is read, or shown, at a time.
const readAhead = 1 << 20

// ErrShort says that an object gave fewer bytes than announced: it was changed
// while it was sent.
var ErrShort = errors.New("link: object shorter than announced")

// errFault says that what was shown of an object went away, and is there again when it is read.
var errFault = errors.New("link: object cannot be looked at")

// Viewer is what a Transfer.Payload may be beside an io.ReaderAt: one that shows its bytes where they lie, so that they
// are not copied before they are sealed and encoded. Several goroutines call at once.
type Viewer interface {
	// View shows n bytes, one or more, from off on, after it has seen that they can be looked at. It returns nil where
	// they cannot be shown: they are read then, which says what is wrong if something is. Nobody writes to them, and
	// nobody looks at them after they were forgotten.
	View(off int64, n int) []byte
	// Forget says that nothing before off will be looked at.
	Forget(off int64)
}

// object is what symbols are made of: shown where that can be, and else read.
type object struct {
	source io.ReaderAt
	viewer Viewer // nil: all of it is read
	size   int64
}

// newObject looks at source where it is a Viewer.
func newObject(source io.ReaderAt, size int64) object {
	viewer, _ := source.(Viewer)
	return object{source: source, viewer: viewer, size: size}
}

// bytes returns as many bytes from off on as scratch has: where they lie, or in scratch. Past the object's end they are
// zero.
func (o object) bytes(off int64, scratch []byte) ([]byte, error) {
	if o.viewer != nil && off+int64(len(scratch)) <= o.size {
		if b := o.viewer.View(off, len(scratch)); b != nil {
			return b, nil
		}
	}
	return scratch, readObject(o.source, scratch, off, o.size)
}

// forget gives back what was shown before off.
func (o object) forget(off int64) {
	if o.viewer != nil {
		o.viewer.Forget(off)
	}
}

// readObject fills b from the object at off; past the object's end it is zero
// (section 4: the last symbol is padded, and absent symbols are zero).
func readObject(source io.ReaderAt, b []byte, off, size int64) error {
	want := int(max(0, min(int64(len(b)), size-off)))
	clear(b[want:])
	if want == 0 {
		return nil
	}
	n, err := source.ReadAt(b[:want], off)
	switch {
	case n == want:
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("%w: %d of %d bytes at offset %d: %w", ErrShort, n, want, off, cmpErr(err, io.ErrUnexpectedEOF))
	}
	return fmt.Errorf("read object at offset %d: %w", off, err)
}

// objectReader goes through an object once, in order, in large pieces.
type objectReader struct {
	object
	symbolSize int
	scratch    []byte // about readAhead bytes, whole symbols
	piece      []byte // in scratch, or where it lies; empty: none yet
	from       int64  // offset of piece in the object
}

// newObjectReader allocates the scratch; what is never read into takes no memory.
func newObjectReader(o object, symbolSize int) *objectReader {
	return &objectReader{object: o, symbolSize: symbolSize, scratch: make([]byte, max(1, readAhead/symbolSize)*symbolSize)}
}

// symbol returns the symbol at an offset that is a multiple of T, padded with
// zeros past the object's end. It is valid until the next call.
func (r *objectReader) symbol(off int64) ([]byte, error) {
	if off < r.from || off+int64(r.symbolSize) > r.from+int64(len(r.piece)) {
		piece, err := r.bytes(off, r.scratch)
		if err != nil {
			return nil, err
		}
		r.piece, r.from = piece, off
	}
	return r.piece[off-r.from:][:r.symbolSize], nil
}

// guard makes an error of a fault of this goroutine, until the function it returns runs (deferred): at a low rate much
// time passes between the view of a piece and the sealing of its last symbol, in which a file may be cut short or a
// disk fail. Reading the piece says what is wrong. The datagram that was being sealed is never sent.
func (r *objectReader) guard(err *error) func() {
	before := debug.SetPanicOnFault(true)
	return func() {
		debug.SetPanicOnFault(before)
		what := recover()
		if what == nil {
			return
		}
		if _, fault := what.(interface{ Addr() uintptr }); !fault {
			panic(what)
		}
		*err = cmpErr(readObject(r.source, r.scratch, r.from, r.size), fmt.Errorf("%w: offset %d and after: %v", errFault, r.from, what))
	}
}
