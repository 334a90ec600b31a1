// SPDX-License-Identifier: Apache-2.0

package officer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"runtime"
	"sync"

	"github.com/dustin/go-humanize"
	"golang.org/x/sync/errgroup"

	"sluice/internal/dropbox"
	"sluice/pkg/envelope"
)

// Bytes is what this machine saw of a release's bytes. All is set by [Payload.Verify] alone, when each content block of each file was read
// and hashed here: now, or once before under the same digest. The zero value claims nothing.
type Bytes struct {
	All         bool
	Now, Before int64 // bytes read and hashed in this run, and in an earlier one
	Files       int   // whose whole SHA-256 was computed here, now or before
	OfFiles     int
}

// words are for the page.
func (b Bytes) words(total int64) string {
	size := humanize.IBytes(uint64(total))
	if !b.All {
		return fmt.Sprintf("manifest only: bytes NOT seen on this machine (%s)", size)
	}
	text := fmt.Sprintf("%s of %s match on THIS machine: %s read now, %s read here before", size, size, humanize.IBytes(uint64(b.Now)), humanize.IBytes(uint64(b.Before)))
	if b.Files < b.OfFiles {
		text += fmt.Sprintf("; %d of %d files by their content blocks only", b.OfFiles-b.Files, b.OfFiles)
	}
	return text
}

// Payload is the staging of a release, mounted read-only on the officer's machine.
type Payload struct {
	Root     *os.Root
	Previous *os.Root // that of the predecessor, for the differences of texts; nil: not reachable
	Seen     *Seen    // nil: nothing was seen before, and nothing is remembered
	Progress func(done, total int64)
}

// Verify holds every byte of a release against its content index. Files must be exactly those of the statement. A block that this machine
// hashed before counts as seen and is not read again; a file of which no block was seen is hashed as a whole too. Errors: an
// *envelope.PayloadError names file and offset of what differs; others are those of the disk.
func (p *Payload) Verify(ctx context.Context, env *envelope.Envelope) (Bytes, error) {
	index, err := envelope.ParseIndex(env.Index, env.Statement)
	if err != nil {
		return Bytes{}, err
	}
	subjects := env.Statement.Subjects
	if err := p.sameFiles(subjects); err != nil {
		return Bytes{}, err
	}
	r := &reading{p: p, total: env.Statement.Predicate.TotalSize}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	at := int64(0)
	for _, s := range subjects {
		n := envelope.Blocks(s.Annotations.Size)
		blocks := index.Digests[at : at+n]
		at += n
		group.Go(func() error { return r.file(ctx, s, blocks) })
	}
	if err := group.Wait(); err != nil {
		return Bytes{}, err
	}
	if r.now+r.before != r.total { // each block was counted where it was read or found, so this is the claim itself
		return Bytes{}, fmt.Errorf("officer: internal error: %d bytes of %d were seen", r.now+r.before, r.total)
	}
	return Bytes{All: true, Now: r.now, Before: r.before, Files: r.whole, OfFiles: len(subjects)}, nil
}

// sameFiles refuses a staging with other files than the statement's.
func (p *Payload) sameFiles(subjects []envelope.Subject) error {
	want := map[string]int64{}
	for _, s := range subjects {
		want[s.Name] = s.Annotations.Size
	}
	err := fs.WalkDir(p.Root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		size, known := want[name]
		if !known {
			return &envelope.PayloadError{Path: name, Block: -1, Problem: "is not in the release"}
		}
		delete(want, name)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case !info.Mode().IsRegular():
			return &envelope.PayloadError{Path: name, Block: -1, Length: size, Problem: "is no regular file"}
		case info.Size() != size:
			return &envelope.PayloadError{Path: name, Block: -1, Length: size, Problem: fmt.Sprintf("has %d bytes, the statement says %d", info.Size(), size)}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	for _, name := range sortedKeys(want) {
		return fmt.Errorf("payload: %w", &envelope.PayloadError{Path: name, Block: -1, Length: want[name], Problem: "is missing"})
	}
	return nil
}

// reading is one run over the files of a release.
type reading struct {
	p     *Payload
	total int64

	mu          sync.Mutex
	now, before int64
	whole       int
}

func (r *reading) count(now, before int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now, r.before = r.now+now, r.before+before
	if r.p.Progress != nil {
		r.p.Progress(r.now+r.before, r.total)
	}
}

// file reads the blocks of one file that were never seen here. When that is all of them, the file's own digest is computed as well; one
// that was computed before, over the same blocks, is not computed again.
func (r *reading) file(ctx context.Context, s envelope.Subject, blocks []envelope.Digest) error {
	known := r.p.Seen.have(blocks)
	if r.p.Seen.hasFile(s, blocks) {
		r.count(0, s.Annotations.Size)
		r.add(1)
		return nil
	}
	f, err := dropbox.OpenFile(r.p.Root, s.Name)
	if err != nil {
		return fmt.Errorf("payload: %w", err)
	}
	defer f.Close()
	var whole hash.Hash
	if known.none() {
		whole = sha256.New()
	}
	fresh, err := r.blocks(ctx, f, s, blocks, blockRun{known, whole})
	if err != nil {
		return err
	}
	if whole != nil {
		if got := envelope.Digest(whole.Sum(nil)); got != s.Digest.SHA256 {
			return fmt.Errorf("payload: %w", &envelope.PayloadError{Path: s.Name, Block: -1, Length: s.Annotations.Size, Want: s.Digest.SHA256, Got: got})
		}
		fresh = append(fresh, fileMark(s, blocks))
		r.add(1)
	}
	return r.p.Seen.add(fresh)
}

func (r *reading) add(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.whole += n
}

// blockRun is what file knows when it goes through the blocks.
type blockRun struct {
	known known
	whole hash.Hash // nil: some blocks are not read, so the whole cannot be hashed
}

// blocks reads what was not seen, and gives the digests that it computed.
func (r *reading) blocks(ctx context.Context, f io.ReaderAt, s envelope.Subject, blocks []envelope.Digest, run blockRun) (fresh []envelope.Digest, err error) {
	buf := make([]byte, min(envelope.BlockSize, max(s.Annotations.Size, 1)))
	for i, want := range blocks {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		offset := int64(i) * envelope.BlockSize
		length := min(envelope.BlockSize, s.Annotations.Size-offset)
		if run.known.has(i) {
			r.count(0, length)
			continue
		}
		wrong := &envelope.PayloadError{Path: s.Name, Block: int64(i), Offset: offset, Length: length, Want: want}
		n, err := f.ReadAt(buf[:length], offset)
		if int64(n) < length {
			if err == nil || errors.Is(err, io.EOF) {
				wrong.Problem = "became shorter while it was read"
				return nil, fmt.Errorf("payload: %w", wrong)
			}
			return nil, fmt.Errorf("payload: %s: %w", s.Name, err)
		}
		if wrong.Got = sha256.Sum256(buf[:length]); wrong.Got != want {
			return nil, fmt.Errorf("payload: %w", wrong)
		}
		if run.whole != nil {
			run.whole.Write(buf[:length])
		}
		fresh = append(fresh, want)
		r.count(length, 0)
	}
	return fresh, nil
}
