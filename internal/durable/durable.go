// SPDX-License-Identifier: Apache-2.0

// Package durable writes files that are there after a power cut, or are not there at all.
//
// What a power cut leaves behind was measured on ext4 and XFS; each line of the protocol is there because leaving it
// out lost data:
//
//	openat(dir, ".name.tmp-<random>", O_CREAT|O_EXCL)
//	write(fd, data)
//	fsync(fd)                       without it: the new name holds 0 bytes
//	close(fd)
//	renameat(tmp, name)             readers see the old file or the new one
//	fsync(dir)                      without it: the old name is back
//
// Only then may a journal record that the file exists. All names are relative to an [os.Root], which no path leaves.
//
// An error from fsync or fdatasync is [ErrSync], and final: the kernel has dropped the dirty pages and marked them
// clean, so that a second fsync would succeed without the data being there. Whoever gets ErrSync stops, and starts
// again from what was durable before. Nothing here retries.
package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
)

// ErrSync says that the kernel could not bring data to stable storage. Never retry: stop, and start again from what is
// known to be durable.
var ErrSync = errors.New("durable: data did not reach stable storage; do not retry, check the disk and start again")

// WriteFile creates or replaces name with data, so that after any kill or power cut it holds the old content or the
// new one, whole. On success the new content is durable. The directory of name exists. On an error nothing is left but
// the old file (and, after a kill, a file ".<name>.tmp-<random>" that no one reads).
//
//	openat(O_CREAT|O_EXCL) write fsync close renameat fsync(dir)
func WriteFile(root *os.Root, name string, data []byte, perm fs.FileMode) error {
	tmp := path.Join(path.Dir(name), "."+path.Base(name)+".tmp-"+rand.Text())
	if err := writeSynced(root, tmp, data, perm); err != nil {
		_ = root.Remove(tmp) // the first error is the one to report
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := Rename(root, tmp, name); err != nil {
		_ = root.Remove(tmp)
		return err
	}
	return nil
}

// writeSynced creates name with data and syncs it.
func writeSynced(root *os.Root, name string, data []byte, perm fs.FileMode) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = Sync(f)
	}
	return errors.Join(err, f.Close())
}

// Rename renames oldName to newName (replacing it) and makes that durable. The file's content must have been synced
// before: otherwise a power cut leaves the new name with no bytes in it.
//
//	renameat fsync(dir of newName) [fsync(dir of oldName), if another]
//
// The new directory first: a power cut between the two leaves two names, never none.
func Rename(root *os.Root, oldName, newName string) error {
	if err := root.Rename(oldName, newName); err != nil {
		return fmt.Errorf("rename: %w", err)
	}
	if err := SyncDir(root, path.Dir(newName)); err != nil {
		return err
	}
	if path.Dir(oldName) == path.Dir(newName) {
		return nil
	}
	return SyncDir(root, path.Dir(oldName))
}

// Remove removes a file and makes that durable; a file that is not there is no error.
//
//	unlinkat fsync(dir)
func Remove(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove: %w", err)
	}
	return SyncDir(root, path.Dir(name))
}

// SyncDir makes the names in a directory durable: files created, renamed and removed in it. name is "." for the root.
//
//	openat(O_RDONLY) fsync close
func SyncDir(root *os.Root, name string) error {
	dir, err := root.Open(name)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	return errors.Join(Sync(dir), dir.Close())
}

// Sync is fsync(2): data, size and times. An error is [ErrSync].
func Sync(f *os.File) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("%w: %w", ErrSync, err)
	}
	return nil
}
