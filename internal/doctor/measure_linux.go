// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// measureSize is the most that is written: enough to leave the caches of a disk's controller, and a second of a slow disk.
	measureSize = 64 << 20
	// measureTime ends the run on a disk that is slower.
	measureTime = 3 * time.Second
	// measureRoom is how many times measureSize must be free: a full disk is not made fuller.
	measureRoom = 4
	// measureBlock is one write.
	measureBlock = 1 << 20
	// minElapsed keeps a clock too coarse from an infinite speed.
	minElapsed = time.Microsecond
)

// readDisk looks where the state directory lies, and measures it.
func readDisk(ctx context.Context, v *View, state string) {
	v.Disk = reading(findDisk(state))
	switch {
	case v.Disk.Err != nil:
		v.Speed.Err = v.Disk.Err
	case v.Disk.Value.Free < measureRoom*measureSize:
		v.Speed.Err = fmt.Errorf("%w: less than %s free on the file system of %s", ErrNotRead, size(measureRoom*measureSize), state)
	default:
		v.Speed = reading(measure(ctx, state))
	}
}

// findDisk resolves the state directory, or the nearest one above it that exists, and asks its file system.
func findDisk(state string) (Disk, error) {
	dir, err := filepath.Abs(state)
	if err != nil {
		return Disk{}, fmt.Errorf("state directory: %w", err)
	}
	resolved, err := filepath.EvalSymlinks(dir)
	for errors.Is(err, fs.ErrNotExist) && dir != "/" {
		dir = filepath.Dir(dir)
		resolved, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return Disk{}, fmt.Errorf("state directory: %w", err)
	}
	var s unix.Statfs_t
	if err := unix.Statfs(resolved, &s); err != nil {
		return Disk{}, fmt.Errorf("file system of %s: %w", resolved, err)
	}
	block := int64(s.Bsize) //nolint:unconvert // it has 32 bits on some architectures
	return Disk{Path: resolved, Free: int64(s.Bavail) * block, Total: int64(s.Blocks) * block}, nil
}

// measure writes a file that has no name any more, syncs it, and reads it back from the disk.
func measure(ctx context.Context, state string) (s Speed, err error) {
	f, err := os.CreateTemp(state, ".doctor-*")
	if errors.Is(err, fs.ErrNotExist) {
		return s, fmt.Errorf("%w: %s is not there yet: the daemon makes it at its first start", ErrNotRead, state)
	}
	if err != nil {
		return s, fmt.Errorf("%w: measuring needs to write there: %w", ErrNotRead, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := os.Remove(f.Name()); err != nil { // a kill leaves nothing behind
		return s, fmt.Errorf("temporary file: %w", err)
	}
	written, elapsed, err := timed(func() (int64, error) { return fill(ctx, f) })
	if err != nil {
		return s, fmt.Errorf("write to %s: %w", state, err)
	}
	s.Write = float64(written) / elapsed.Seconds()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil { // else memory is measured
		return s, fmt.Errorf("read from %s: %w", state, err)
	}
	got, elapsed, err := timed(func() (int64, error) { return drain(ctx, f) })
	if err != nil || got != written {
		return s, fmt.Errorf("read from %s: %d of %d bytes: %w", state, got, written, err)
	}
	s.Read = float64(got) / elapsed.Seconds()
	return s, nil
}

func timed(work func() (int64, error)) (int64, time.Duration, error) {
	start := time.Now()
	n, err := work()
	return n, max(time.Since(start), minElapsed), err
}

// fill writes blocks that no file system can compress away, and syncs them.
func fill(ctx context.Context, f *os.File) (int64, error) {
	block := make([]byte, measureBlock)
	_, _ = rand.NewChaCha8([32]byte{}).Read(block) // it takes everything
	written, start := int64(0), time.Now()
	for written < measureSize && time.Since(start) < measureTime && ctx.Err() == nil {
		n, err := f.Write(block)
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
	return written, errors.Join(unix.Fdatasync(int(f.Fd())), ctx.Err())
}

// drain reads everything from the start.
func drain(ctx context.Context, f *os.File) (int64, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	block := make([]byte, measureBlock)
	total := int64(0)
	for ctx.Err() == nil {
		n, err := f.Read(block)
		total += int64(n)
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
	return total, ctx.Err()
}
