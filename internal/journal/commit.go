// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	bolt "go.etcd.io/bbolt"
)

// ErrSync says that the kernel could not bring a transaction to stable storage. It is sticky: every later write returns it, because a
// second fdatasync would succeed without the data being there. Stop, check the disk, and start again.
var ErrSync = errors.New("journal: a transaction did not reach stable storage; do not retry, check the disk and start again")

// update runs fn in a transaction and commits it.
func (j *Journal) update(fn func(*bolt.Tx) error) error {
	if j.broken.Load() {
		return fmt.Errorf("%w: an earlier one, to %s", ErrSync, j.path)
	}
	committing := false
	err := j.db.Update(func(tx *bolt.Tx) error {
		err := fn(tx)
		committing = err == nil
		return err
	})
	if err == nil || !committing {
		return err
	}
	return j.failed(err)
}

// failed tells an error of commit by its place: bbolt hands on the bare number of a failed fdatasync, while a write that
// failed is an fs.PathError and harmless: nothing was promised, and the pages may be written again.
func (j *Journal) failed(err error) error {
	var number syscall.Errno
	var write *fs.PathError
	if errors.As(err, &number) && !errors.As(err, &write) {
		j.broken.Store(true)
		return fmt.Errorf("%w: fdatasync %s: %w", ErrSync, j.path, err)
	}
	return fmt.Errorf("commit to journal %s: %w", j.path, err)
}
