// SPDX-License-Identifier: Apache-2.0

// Package largepage allocates buffers through which much passes, on large pages where the system has them.
//
// A buffer of a MiB on pages of 4 KiB is 256 entries of page tables, which the processor looks up again and again (twice as far in a
// virtual machine), and which the kernel pins one by one when the buffer is written past the page cache.
package largepage

import "unsafe"

const (
	// size is a large page of amd64, and of arm64 with pages of 4 KiB.
	size = 2 << 20

	// page is the smallest page of any system: what is written with O_DIRECT begins at one.
	page = 4096
)

// Bytes returns n zero bytes, which the garbage collector frees like others. They begin at a page, and at a large page if they are
// that many. Each large page is in memory once a byte of it was touched. Where the system refuses, the pages are of the usual size.
func Bytes(n int) []byte {
	align := page
	if n >= size {
		align = size
	}
	b := make([]byte, n+align)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & uintptr(align-1)) // it stays: the heap of Go is not moved
	b = b[skip:][:n:n]
	if whole := n &^ (size - 1); whole > 0 {
		advise(b[:whole])
	}
	return b
}
