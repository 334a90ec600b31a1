// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"
)

// Direct opens a file past the page cache (open(2), O_DIRECT): offsets, lengths and memory are then of whole pages.
const Direct = unix.O_DIRECT

// Datasync is fdatasync(2): the data and what is needed to read it back (the size, the extents), but no times. An error
// is [ErrSync].
func Datasync(f *os.File) error {
	if err := control(f, unix.Fdatasync); err != nil {
		return fmt.Errorf("%w: fdatasync %s: %w", ErrSync, f.Name(), err)
	}
	return nil
}

// SyncFilesystem is syncfs(2) on the file system of f: everything in it. Since Linux 5.8 it reports every failure to
// write back any file of the file system since f was opened, even of files that are closed by now. An error is
// [ErrSync].
func SyncFilesystem(f *os.File) error {
	if err := control(f, unix.Syncfs); err != nil {
		return fmt.Errorf("%w: syncfs %s: %w", ErrSync, f.Name(), err)
	}
	return nil
}

// StartWriteback tells the kernel to begin writing a range to the disk, and waits for nothing but room in the queue of the device
// (sync_file_range(2), SYNC_FILE_RANGE_WRITE). It is advice, and no promise of anything: what fails, the next Datasync says.
func StartWriteback(f *os.File, offset, length int64) {
	_ = control(f, func(fd int) error { return unix.SyncFileRange(fd, offset, length, unix.SYNC_FILE_RANGE_WRITE) })
}

// DropCache gives the clean pages of a range back to the kernel. It is advice: what cannot be given back stays.
func DropCache(f *os.File, offset, length int64) {
	_ = control(f, func(fd int) error { return unix.Fadvise(fd, offset, length, unix.FADV_DONTNEED) })
}

// WriteMapped writes b at an offset of a file, which reaches at least as far and is open for reading too, through the page cache, by a
// mapping. What it is for: it does not wait for a write of others to the same file that has not reached the disk yet, as pwrite does,
// which wants the lock of the file that such a write holds (ext4, XFS). It costs four times as much, for the faults, and where it cannot be done (no
// mapping, no room for a page that was not reserved) it is a pwrite, which tells why.
func WriteMapped(f *os.File, b []byte, offset int64) error {
	if len(b) == 0 || copyMapped(f, b, offset) {
		return nil
	}
	_, err := f.WriteAt(b, offset)
	return err
}

// copyMapped copies b into a mapping of f, and tells whether that worked.
func copyMapped(f *os.File, b []byte, offset int64) (copied bool) {
	head := int(offset & int64(os.Getpagesize()-1))
	var m []byte
	err := control(f, func(fd int) (err error) {
		m, err = unix.Mmap(fd, offset-int64(head), head+len(b), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		return err
	})
	if err != nil {
		return false
	}
	defer func() {
		_ = unix.Munmap(m) // it was mapped just now
	}()
	_ = unix.Madvise(m, unix.MADV_RANDOM)         // pages around it are others', and may be on their way to the disk
	_ = unix.Madvise(m, unix.MADV_POPULATE_WRITE) // all faults at once; a kernel before 5.14 has them one by one
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if reason := recover(); reason != nil {
			if _, fault := reason.(interface{ Addr() uintptr }); !fault { // debug.SetPanicOnFault
				panic(reason)
			}
		}
	}()
	copy(m[head:], b)
	return true
}

// PunchHole gives the blocks of a range back to the file system; it reads as zeros then. A file system that cannot
// (EOPNOTSUPP) is no error: the space comes back when the file is removed.
func PunchHole(f *os.File, offset, length int64) error {
	err := control(f, func(fd int) error {
		return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, length)
	})
	if err == nil || errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return fmt.Errorf("punch hole in %s: %w", f.Name(), err)
}

// allocate is fallocate(2). A file system without it gets the zeros written.
func allocate(f *os.File, size int64) error {
	err := control(f, func(fd int) error { return unix.Fallocate(fd, 0, 0, size) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		return writeZeros(f, size)
	}
	return err
}

// free is what a write by this process can still use.
func free(f *os.File) (int64, error) {
	var s unix.Statfs_t
	if err := control(f, func(fd int) error { return unix.Fstatfs(fd, &s) }); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Frsize, nil
}

// allocated is how many bytes of a file have blocks.
func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512 // st_blocks counts 512 bytes, whatever the file system's block is
	}
	return 0
}

// control calls fn with the descriptor of f, again while a signal interrupts it.
func control(f *os.File, fn func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := conn.Control(func(fd uintptr) {
		for inner = fn(int(fd)); errors.Is(inner, unix.EINTR); {
			inner = fn(int(fd))
		}
	}); err != nil {
		return err
	}
	return inner
}
