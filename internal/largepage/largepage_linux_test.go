// SPDX-License-Identifier: Apache-2.0

package largepage

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestBytes: zero, of the length asked for, at a page, and their own.
func TestBytes(t *testing.T) {
	for _, n := range []int{0, 1, 4095, 4096, 4097, 1 << 20, size - 1, size, size + 1, 3*size + 5} {
		b := Bytes(n)
		if len(b) != n || cap(b) != n {
			t.Fatalf("%d bytes: length %d, capacity %d", n, len(b), cap(b))
		}
		align := uintptr(page)
		if n >= size {
			align = size
		}
		if at := uintptr(unsafe.Pointer(unsafe.SliceData(b))); n > 0 && at%align != 0 {
			t.Errorf("%d bytes begin at %#x", n, at)
		}
		for i := range b {
			if b[i] != 0 {
				t.Fatalf("%d bytes: byte %d is %d", n, i, b[i])
			}
			b[i] = 1
		}
	}
}

// TestLarge looks for the large pages in the kernel's own account, where this kernel makes any on request.
func TestLarge(t *testing.T) {
	probe, err := unix.Mmap(-1, 0, 2*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(probe)
	at := uintptr(unsafe.Pointer(unsafe.SliceData(probe)))
	one := probe[-at&(size-1):][:size]
	one[0] = 1 // of nothing it makes nothing
	if err := unix.Madvise(one, unix.MADV_COLLAPSE); err != nil {
		t.Skipf("SKIPPED: that buffers lie on large pages is NOT checked: this kernel makes no large pages on request: %v", err)
	}
	b := Bytes(2*size + 100)
	for i := range b {
		b[i] = 1
	}
	if got := hugeAt(t, uintptr(unsafe.Pointer(unsafe.SliceData(b)))); got < 2*size>>10 {
		t.Errorf("%d KiB of large pages where the bytes lie, want %d", got, 2*size>>10)
	}
	runtime.KeepAlive(b)
}

// hugeAt is how many KiB of the mapping that holds an address are large pages (proc_pid_smaps(5)).
func hugeAt(t *testing.T, at uintptr) (kib int) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	mine := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var from, to uintptr
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x ", &from, &to); n == 2 {
			mine = from <= at && at < to
		}
		if mine && strings.HasPrefix(lines.Text(), "AnonHugePages:") {
			fmt.Sscanf(lines.Text(), "AnonHugePages: %d kB", &kib)
			return kib
		}
	}
	t.Fatal("no mapping holds the bytes")
	return 0
}
