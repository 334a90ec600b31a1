// SPDX-License-Identifier: Apache-2.0

package recv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"sluice/internal/durable"
)

// Incoming is the front's directory below the state directory: link/, and the payload of each release that is being received.
const Incoming = "incoming"

// lockName is the lock of whoever may write there.
const lockName = "incoming.lock"

// lockWait is how long the front of a daemon that was killed may take to die.
const lockWait = 10 * time.Second

var (
	errWriter  = errors.New("recv: a process has the file open for writing")
	errNoLease = fmt.Errorf("%w, or may have: this file system does not say (no leases)", errWriter)
)

// Lock makes the front's directory and waits until nobody else has it: the front of a daemon that was killed dies a moment after it.
// Closing the file gives it up.
func Lock(ctx context.Context, state *os.Root) (*os.File, error) {
	if err := state.MkdirAll(Incoming+"/"+linkDir, 0o700); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	f, err := state.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	for end := time.Now().Add(lockWait); ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			return nil, errors.Join(fmt.Errorf("spool: %s: %w: another diode-receiver, or what is left of one, receives into this state directory", lockName, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// BringAllHome moves every directory that a front had lent back to where home says. The caller holds the lock, and no front runs.
func BringAllHome(state *os.Root, home func(release string) string, log *zap.Logger) error {
	entries, err := fs.ReadDir(state.FS(), Incoming)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	for _, e := range entries {
		if e.Name() == linkDir {
			continue
		}
		from := Incoming + "/" + e.Name()
		if err := bringHome(state, from, home(e.Name())); err == nil {
			continue
		} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
			return err
		}
		log.Warn("directory that no release needs is removed", zap.String("name", from))
		if err := state.RemoveAll(from); err != nil {
			return fmt.Errorf("spool: %w", err)
		}
	}
	return nil
}

// bringHome moves a directory back, durably. An empty one in its place goes.
func bringHome(state *os.Root, from, to string) error {
	if err := state.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("spool: %w", err)
	}
	if err := state.Rename(from, to); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	return errors.Join(durable.SyncDir(state, path.Dir(to)), durable.SyncDir(state, Incoming))
}

// nobodyWrites asks the kernel, file by file, whether any process has it open or mapped for writing: a read lease is given only on a
// file that nobody can write to (fcntl(2), F_SETLEASE). Errors are errWriter.
func nobodyWrites(state *os.Root, dir string) error {
	root, err := state.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if !e.Type().IsRegular() {
			return fmt.Errorf("spool: %s is no regular file but %s", name, e.Type())
		}
		f, err := root.Open(name)
		if err != nil {
			return fmt.Errorf("spool: %w", err)
		}
		defer f.Close()
		return unwritten(f)
	})
}

// unwritten takes a read lease and gives it up again.
func unwritten(f *os.File) error {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_RDLCK)
	switch {
	case err == nil:
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
		return err
	case errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("%w: %s", errWriter, f.Name())
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.EOPNOTSUPP):
		return errNoLease
	}
	return fmt.Errorf("spool: lease of %s: %w", f.Name(), err)
}
