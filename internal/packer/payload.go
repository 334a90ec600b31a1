// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"sluice/pkg/envelope"
)

// payloadReader reads the files of a release as one object: the payload of the link. Files stay open, up to a limit, so that
// sequential and slab reads are cheap. Several goroutines may read at once: the link's sender and its encoder do. Large files
// it shows where they lie (link.Viewer).
type payloadReader struct {
	root   *os.Root
	files  []envelope.Subject
	starts []int64 // of each file, and the end of the last

	mu    sync.Mutex
	open  map[int]*payloadFile
	order []int            // the open files, oldest first
	shown map[int]*mapping // files that are looked at; nil: one that cannot be
}

// payloadFile is an open file and the number of reads that are under way in it.
type payloadFile struct {
	*os.File
	users int
}

// maxOpenPayload bounds the open files of a payload reader: encoding reads 192 rows, which may lie in as many files.
const maxOpenPayload = 256

func openPayload(dir string, st *envelope.Statement) (*payloadReader, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	r := &payloadReader{root: root, files: st.Subjects, starts: make([]int64, len(st.Subjects)+1), open: map[int]*payloadFile{}, shown: map[int]*mapping{}}
	for i, s := range st.Subjects {
		r.starts[i+1] = r.starts[i] + s.Annotations.Size
	}
	return r, nil
}

// ReadAt implements io.ReaderAt.
func (r *payloadReader) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	for i := r.find(off); n < len(b) && i < len(r.files); i++ {
		if r.files[i].Annotations.Size == 0 {
			continue
		}
		f, err := r.take(i)
		if err != nil {
			return n, err
		}
		want := min(int64(len(b)-n), r.starts[i+1]-off)
		m, err := f.ReadAt(b[n:n+int(want)], off-r.starts[i])
		r.giveBack(f)
		n += m
		off += int64(m)
		if int64(m) < want {
			return n, fmt.Errorf("%s changed while it was sent: %w", r.files[i].Name, errors.Join(err, io.ErrUnexpectedEOF))
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// View implements link.Viewer: bytes of one file that is mapped.
func (r *payloadReader) View(off int64, n int) []byte {
	i := r.find(off)
	if i == len(r.files) || off+int64(n) > r.starts[i+1] {
		return nil
	}
	m := r.mapping(i)
	if m == nil {
		return nil
	}
	return m.view(off-r.starts[i], n)
}

// mapping maps file i, or finds it mapped; nil: it is to be read.
func (r *payloadReader) mapping(i int) *mapping {
	r.mu.Lock()
	defer r.mu.Unlock()
	m, known := r.shown[i]
	size := r.files[i].Annotations.Size
	if known || size < mapFrom || len(r.shown) == maxOpenPayload {
		return m
	}
	if f, err := r.root.Open(filepath.FromSlash(r.files[i].Name)); err == nil {
		m = newMapping(f, size)
	}
	r.shown[i] = m
	return m
}

// Forget implements link.Viewer: it gives back the pages before off, and files that end before it.
func (r *payloadReader) Forget(off int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, m := range r.shown {
		if r.starts[i+1] <= off {
			m.close()
			delete(r.shown, i)
			continue
		}
		m.forget(off - r.starts[i])
	}
}

// find is the first file that ends after off.
func (r *payloadReader) find(off int64) int {
	lo, hi := 0, len(r.files)
	for lo < hi {
		mid := (lo + hi) / 2
		if r.starts[mid+1] <= off {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// take opens file i, or finds it open. The caller gives it back.
func (r *payloadReader) take(i int) (*payloadFile, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f, ok := r.open[i]; ok {
		f.users++
		return f, nil
	}
	if err := r.makeRoom(); err != nil {
		return nil, err
	}
	opened, err := r.root.Open(filepath.FromSlash(r.files[i].Name))
	if err != nil {
		return nil, err
	}
	f := &payloadFile{File: opened, users: 1}
	r.open[i] = f
	r.order = append(r.order, i)
	return f, nil
}

func (r *payloadReader) giveBack(f *payloadFile) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.users--
}

// makeRoom closes the oldest file that nobody reads, when the limit is reached. The caller holds mu.
func (r *payloadReader) makeRoom() error {
	if len(r.order) < maxOpenPayload {
		return nil
	}
	at := slices.IndexFunc(r.order, func(i int) bool { return r.open[i].users == 0 })
	if at < 0 {
		return nil // as many readers as files: more than the link has
	}
	oldest := r.order[at]
	f := r.open[oldest]
	r.order = slices.Delete(r.order, at, at+1)
	delete(r.open, oldest)
	return f.Close()
}

// Close closes the open files. What was shown is gone.
func (r *payloadReader) Close() error {
	r.Forget(math.MaxInt64)
	errs := []error{r.root.Close()}
	for _, f := range r.open {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
