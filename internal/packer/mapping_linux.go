// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// mapFile maps a file read-only and shared.
func mapFile(f *os.File, size int64) ([]byte, error) {
	if size > math.MaxInt {
		return nil, unix.EFBIG
	}
	b, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	if err == nil {
		_ = unix.Madvise(b, unix.MADV_HUGEPAGE) // what comes from the disk comes by large pages; may be refused
	}
	return b, err
}

// populate brings whole pages into memory (madvise(2), Linux 5.14; older ones refuse it).
func populate(b []byte) error { return unix.Madvise(b, unix.MADV_POPULATE_READ) }

// drop takes whole pages out of the mapping. That it fails costs memory that the kernel can take back itself.
func drop(b []byte) { _ = unix.Madvise(b, unix.MADV_DONTNEED) }

// unmap ends a mapping. It cannot fail of one that mapFile made.
func unmap(b []byte) { _ = unix.Munmap(b) }

// reaches reports whether a file has that many bytes.
func reaches(f *os.File, size int64) bool {
	var st unix.Stat_t
	return unix.Fstat(int(f.Fd()), &st) == nil && st.Size >= size
}
