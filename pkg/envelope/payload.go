// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// file is one regular file of a payload, as the walk saw it.
type file struct {
	path string
	size int64
}

// listFiles walks a payload and returns its files sorted bytewise by path. Whatever is neither a directory nor a
// regular file, a bad path, and more than MaxFiles files are refused while walking. Empty directories are not part of
// a release (section 4).
func listFiles(ctx context.Context, fsys fs.FS) ([]file, error) {
	var files []file
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || d.IsDir() {
			return err
		}
		f, err := inspectEntry(p, d)
		files = append(files, f)
		if err == nil && len(files) > MaxFiles {
			err = fmt.Errorf("%w: more than %d files (section 1): split the release", ErrFormat, MaxFiles)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list payload: %w", err)
	}
	slices.SortFunc(files, func(a, b file) int { return strings.Compare(a.path, b.path) })
	return files, nil
}

func inspectEntry(p string, d fs.DirEntry) (file, error) {
	if err := CheckPath(p); err != nil {
		return file{}, err
	}
	if !d.Type().IsRegular() {
		return file{}, badPath(p, "is not a regular file but %s", d.Type())
	}
	info, err := d.Info()
	if err != nil {
		return file{}, err
	}
	return file{p, info.Size()}, nil
}

// openFile opens a regular file; a name that became something else since the walk is refused.
func openFile(fsys fs.FS, path string) (io.ReadCloser, error) {
	f, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = badPath(path, "is not a regular file but %s", info.Mode())
	}
	if err != nil {
		_ = f.Close() // nothing was written; the first error says more
		return nil, err
	}
	return f, nil
}

// hasher reads files and hashes each byte for the file and for its block, block by block:
//
//	read block k+1  |  SHA-256 of block k  |  SHA-256 of the file so far, with block k
//
// run at the same time, so a file is hashed at the speed of one SHA-256 when two cores are free. It owns two blocks
// of memory, and is used by one goroutine.
type hasher struct {
	now, ahead []byte
}

func newHasher() *hasher {
	return &hasher{now: make([]byte, BlockSize), ahead: make([]byte, BlockSize)}
}

// hash reads r to its end and calls block with the number, the length and the digest of each content block, in order.
// It returns the digest and the length of the whole.
func (h *hasher) hash(ctx context.Context, r io.Reader, block func(i, n int64, d Digest) error) (Digest, int64, error) {
	whole := sha256.New()
	n, err := readBlock(r, h.now)
	var size int64
	for i := int64(0); err == nil && n > 0; i++ {
		if err := ctx.Err(); err != nil {
			return Digest{}, size, err
		}
		var (
			side  sync.WaitGroup
			d     Digest
			ahead int
		)
		if n == BlockSize {
			side.Go(func() { ahead, err = readBlock(r, h.ahead) })
		}
		if i > 0 {
			side.Go(func() { d = sha256.Sum256(h.now[:n]) })
		}
		whole.Write(h.now[:n]) // a hash never fails
		side.Wait()
		if i == 0 { // the file so far is the first block
			d = Digest(whole.Sum(nil))
		}
		size += int64(n)
		if err := block(i, int64(n), d); err != nil {
			return Digest{}, size, err
		}
		h.now, h.ahead, n = h.ahead, h.now, ahead
	}
	return Digest(whole.Sum(nil)), size, err
}

// readBlock fills p, or reads to the end of r. The end is no error: then n < len(p).
func readBlock(r io.Reader, p []byte) (int, error) {
	n, err := io.ReadFull(r, p)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	return n, err
}

// progress adds up bytes from several goroutines and reports them one at a time.
type progress struct {
	mu          sync.Mutex
	done, total int64
	report      func(done, total int64)
}

func (p *progress) add(n int64) {
	if p.report == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	p.report(p.done, p.total)
}

// eachFile calls work for 0 to n-1 from several goroutines, each with its own hasher, and returns the first error;
// the others are then cancelled. Memory: two blocks a worker.
func eachFile(ctx context.Context, n, workers int, work func(context.Context, *hasher, int) error) error {
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	group, ctx := errgroup.WithContext(ctx)
	next := make(chan int)
	group.Go(func() error {
		defer close(next)
		for i := range n {
			select {
			case next <- i:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range min(workers, n) {
		group.Go(func() error {
			h := newHasher()
			for i := range next {
				if err := work(ctx, h, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}
