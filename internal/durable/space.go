// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// ErrNoSpace says that the file system has no room. The error is a [*NoSpaceError], which says how much is lacking.
var ErrNoSpace = errors.New("durable: no space left")

// NoSpaceError is the evidence of an [ErrNoSpace].
type NoSpaceError struct {
	Name    string // what was to be stored
	Want    int64  // bytes that had to be reserved
	Free    int64  // bytes free for us at that moment
	Lacking int64  // bytes to make free, at least
}

// Error says how much to free.
func (e *NoSpaceError) Error() string {
	return fmt.Sprintf("%v for %s: %d bytes wanted, %d free; free at least %d bytes more",
		ErrNoSpace, e.Name, e.Want, e.Free, e.Lacking)
}

// Unwrap lets errors.Is find [ErrNoSpace].
func (e *NoSpaceError) Unwrap() error { return ErrNoSpace }

// Create creates name (which must not exist), size bytes long, with every block reserved, and returns it open for
// reading and writing. On an error nothing is left: a partial file is unlinked. The caller syncs the directory, once
// for many files.
//
//	openat(O_RDWR|O_CREAT|O_EXCL) fallocate [on an error: unlinkat]
func Create(root *os.Root, name string, size int64, perm fs.FileMode) (*os.File, error) {
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	if err := Allocate(f, size); err != nil {
		return nil, errors.Join(err, f.Close(), root.Remove(name))
	}
	return f, nil
}

// Allocate makes f at least size bytes long with every block of them reserved, so that no later write into it
// can fail for lack of space. What is in f stays. On an error f has the length that it had before, and the blocks
// beyond are free again; lack of space is [ErrNoSpace].
//
//	fstat fallocate(mode 0) [on an error: fstatfs, ftruncate]
func Allocate(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("reserve space: %w", err)
	}
	if size <= 0 {
		return nil
	}
	err = allocate(f, size)
	if err == nil {
		return nil
	}
	undo := f.Truncate(info.Size())
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		err = noSpace(f, size-allocated(info))
	}
	return errors.Join(fmt.Errorf("reserve space: %w", err), undo)
}

// CheckSpace returns an [ErrNoSpace] if the file system of f has fewer than want bytes free: to refuse at once what
// many calls of [Allocate] would refuse late. name says for what.
func CheckSpace(f *os.File, name string, want int64) error {
	have, err := free(f)
	if err != nil {
		return fmt.Errorf("free space: %w", err)
	}
	if have >= want {
		return nil
	}
	return &NoSpaceError{Name: name, Want: want, Free: have, Lacking: want - have}
}

// noSpace measures, after the undo, what was lacking. A quota or a file size limit can refuse although the disk has
// room: then all that is wanted is lacking.
func noSpace(f *os.File, want int64) error {
	e := &NoSpaceError{Name: f.Name(), Want: want, Lacking: want}
	if have, err := free(f); err == nil {
		e.Free = have
		if have < want {
			e.Lacking = want - have
		}
	}
	return e
}
