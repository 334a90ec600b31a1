// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"sluice/internal/link"
	"sluice/internal/spool"
	"sluice/pkg/fec"
)

// Errors of what arrived.
var (
	errWrong      = errors.New("bytes arrived that were not sent")
	errIncomplete = errors.New("the release is incomplete")
	errAccepted   = errors.New("the release was never accepted")
)

// shelf is a link.Sink that accepts every release and assembles it in a real spool, as the receiver does.
type shelf struct {
	dir     *os.Root
	mu      sync.Mutex
	objects map[[32]byte]*held
}

// held is a release being assembled. It is the link.Payload of it.
type held struct {
	*spool.Object
	geometry fec.Geometry
	root     *os.Root
	files    []spool.File
}

func newShelf(dir *os.Root) *shelf { return &shelf{dir: dir, objects: make(map[[32]byte]*held)} }

// Envelope implements link.Sink.
func (s *shelf) Envelope(_ context.Context, a link.Announcement, _ io.ReaderAt, _ int64) (link.Payload, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.objects[a.Release]; h != nil {
		return h, nil
	}
	h, err := s.open(a)
	if err != nil {
		return nil, err
	}
	s.objects[a.Release] = h
	return h, nil
}

// open begins or resumes the object of a release, in two files that meet in the middle of a symbol.
func (s *shelf) open(a link.Announcement) (*held, error) {
	g, err := fec.New(a.PayloadSize, a.Profile.SymbolSize(), a.Groups)
	if err != nil {
		return nil, err
	}
	name := hex.EncodeToString(a.Release[:8])
	if err := s.dir.MkdirAll(name, 0o700); err != nil {
		return nil, err
	}
	root, err := s.dir.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	first := a.PayloadSize / 3
	files := []spool.File{{Name: "files/000000", Size: first}, {Name: "files/000001", Size: a.PayloadSize - first}}
	obj, err := spool.Open(root, files, g, spool.Options{SyncSpans: true})
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return &held{Object: obj, geometry: g, root: root, files: files}, nil
}

// Put implements link.Payload.
func (h *held) Put(sbn, esi uint32, symbol []byte) (bool, error) {
	out, err := h.Object.Put(sbn, esi, symbol)
	return out == spool.Stored, err
}

// Refused implements link.Payload: no release is refused here once it was accepted.
func (h *held) Refused() bool { return false }

// get returns the object of a release, or nil.
func (s *shelf) get(release [32]byte) *held {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[release]
}

// close closes every object. The files stay.
func (s *shelf) close() (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.objects {
		err = errors.Join(err, h.Close(), h.root.Close())
	}
	return err
}

// inspect holds what is on disk against what was sent, symbol by symbol. A symbol that is not here must be zeros. It returns the
// numbers of those, and errWrong for any other difference, or when the spool counts otherwise.
func (h *held) inspect(sent []byte) (missing []int64, err error) {
	var got []byte
	for _, f := range h.files {
		b, err := fs.ReadFile(h.root.FS(), f.Name)
		if err != nil {
			return nil, err
		}
		got = append(got, b...)
	}
	if len(got) != len(sent) {
		return nil, fmt.Errorf("%w: %d bytes, %d were sent", errWrong, len(got), len(sent))
	}
	size := h.geometry.SymbolSize
	zeros := make([]byte, size)
	for at := 0; at < len(got); at += size {
		end := min(at+size, len(got))
		switch {
		case bytes.Equal(got[at:end], sent[at:end]):
		case bytes.Equal(got[at:end], zeros[:end-at]):
			missing = append(missing, int64(at/size))
		default:
			return missing, fmt.Errorf("%w: symbol %d", errWrong, at/size)
		}
	}
	if p := h.Progress(); p.Symbols-p.Have != int64(len(missing)) || h.Complete() != (len(missing) == 0) {
		return missing, fmt.Errorf("%w: the spool holds %d of %d symbols, on disk %d are missing", errWrong, p.Have, p.Symbols, len(missing))
	}
	return missing, nil
}
