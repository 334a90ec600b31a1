// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"syscall"

	"golang.org/x/sys/unix"
)

// errNoLink: this file must be copied.
var errNoLink = errors.New("registry: file cannot be linked")

// linkFile gives the spool file the name staged: a reflink if the file system
// has them, else a hard link. On any error nothing is left and the caller copies.
func (d *dirStore) linkFile(src *os.File, staged string) error {
	cloned := d.reflink(src, staged)
	if cloned == nil {
		return nil
	}
	info, err := src.Stat()
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) != os.Geteuid() {
		return errNoLink // its owner could make it writable again
	}
	dir, err := d.root.Open(path.Dir(staged))
	if err != nil {
		return err
	}
	defer dir.Close()
	// The name of an open descriptor, not of a path: what is linked is what was opened.
	from := fmt.Sprintf("/proc/self/fd/%d", src.Fd())
	err = unix.Linkat(unix.AT_FDCWD, from, int(dir.Fd()), path.Base(staged), unix.AT_SYMLINK_FOLLOW)
	if errors.Is(err, unix.EEXIST) { // what the clone left, and could not take back: that error is the cause
		return errors.Join(err, cloned)
	}
	if err != nil {
		return err
	}
	if err := src.Chmod(fileMode); err != nil {
		return errors.Join(err, d.root.Remove(staged))
	}
	return nil
}

// reflink clones src into a new file: another inode that shares the blocks.
func (d *dirStore) reflink(src *os.File, staged string) error {
	dst, err := d.root.OpenFile(staged, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	err = errors.Join(unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())), dst.Chmod(fileMode), dst.Close())
	if err != nil {
		return errors.Join(err, d.root.Remove(staged))
	}
	return nil
}

// copyChunk is how much is copied between two looks at the context.
const copyChunk = 16 << 20

// copyFile writes the body into a new file. Between two files on one file
// system the kernel copies (copy_file_range), which io.Copy uses by itself.
func (d *dirStore) copyFile(ctx context.Context, src io.Reader, staged string, b body) error {
	dst, err := d.root.OpenFile(staged, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if err != nil {
		return err
	}
	err = copyAll(ctx, dst, src, b)
	return errors.Join(err, dst.Chmod(fileMode), dst.Close())
}

// copyAll copies exactly b.size bytes.
func copyAll(ctx context.Context, dst *os.File, src io.Reader, b body) error {
	var done int64
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.CopyN(dst, src, min(copyChunk, b.size-done+1))
		done += n
		b.add(n)
		if done > b.size || errors.Is(err, io.EOF) && done != b.size {
			return corruptf("source has %d bytes or more, want %d", done, b.size)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
