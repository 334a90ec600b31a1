// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Waiting for a lock: flock has no cancellable wait, so it is polled. The
// holder may be hashing for hours; a tenth of a second more does not matter.
const (
	lockPollFirst = 5 * time.Millisecond
	lockPollMost  = 100 * time.Millisecond
)

// errLocked: somebody else holds the lock.
var errLocked = errors.New("registry: locked")

// lockFile takes an exclusive flock on name below root, waiting until ctx ends,
// and returns the function that gives it back and removes the file. The kernel
// gives it back when the process dies, so a crash never blocks anybody.
func lockFile(ctx context.Context, root *os.Root, name string) (unlock func() error, err error) {
	wait := lockPollFirst
	for {
		unlock, err := tryLock(root, name)
		if !errors.Is(err, errLocked) {
			return unlock, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-timer.C:
		}
		wait = min(2*wait, lockPollMost)
	}
}

// tryLock is lockFile without waiting: errLocked when it is held.
func tryLock(root *os.Root, name string) (unlock func() error, err error) {
	f, err := root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errLocked
	}
	if err == nil && !sameFile(root, name, f) {
		err = errLocked // the last holder removed the file while we opened it
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() error {
		return errors.Join(ignoreNotExist(root.Remove(name)), f.Close())
	}, nil
}

// sameFile says whether name still is the file that is open.
func sameFile(root *os.Root, name string, f *os.File) bool {
	there, err1 := root.Lstat(name)
	mine, err2 := f.Stat()
	return err1 == nil && err2 == nil && os.SameFile(there, mine)
}

func ignoreNotExist(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
