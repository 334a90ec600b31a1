// SPDX-License-Identifier: Apache-2.0

package spool_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/internal/durable"
	"sluice/internal/spool"
	"sluice/pkg/fec"
)

// TestMemory: an object of 64 GiB opens, and repairs a slab of full size, within the bound of the package comment.
func TestMemory(t *testing.T) {
	const size = 64 << 30
	g, err := fec.New(size, 1408, 992)
	if err != nil {
		t.Fatal(err)
	}
	root := openRoot(t, t.TempDir())
	opt := spool.Options{Reserve: func(f *os.File, size int64) error { return f.Truncate(size) }} // sparse: no disk has to have it
	before := heap()
	o, err := spool.Open(root, []spool.File{{Name: "a", Size: size / 2}, {Name: "b", Size: size / 2}}, g, opt)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if grown := heap() - before; grown > 2<<20 {
		t.Errorf("Open of 64 GiB took %d bytes of heap, the bound is 2 MiB", grown)
	}
	last := uint32(g.Spans() - 1)
	for i := range 3000 { // here and there
		for _, sbn := range []uint32{0, last / 2, last} {
			if _, err := o.Put(sbn, uint32(i), make([]byte, 1408)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := o.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if p := o.Progress(); p.Have != 9000 || p.Spans != g.Spans() {
		t.Errorf("%+v", p)
	}
	if grown := heap() - before; grown > 2<<20 {
		t.Errorf("64 GiB at rest take %d bytes of heap, the bound is 2 MiB", grown)
	}
	if got := len(o.Missing()); got != g.Spans() {
		t.Errorf("%d spans are missing something, want all %d", got, g.Spans())
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestRepairMemory: the worst repair of a slab of profile 1 allocates no more than the bound, 16.5 MiB and two thirds, all
// told; and nothing is kept after the Flush.
func TestRepairMemory(t *testing.T) {
	w := newWorld(t, 1, 1408, 64, 1408*192*64)
	w.inMemory()
	o := w.open()
	w.put(o, w.source[64*64:]...)
	before, total := heap(), allocated()
	w.put(o, w.rows(0, 64)...)
	w.flush(o)
	if n := allocated() - total; n > 30<<20 && !raceDetector { // under which pools forget on purpose
		t.Errorf("%d bytes were allocated to repair one slab", n)
	}
	w.wait(o)
	w.check()
	if p := o.Progress(); p.Recovered != 64*64 {
		t.Errorf("%+v, want 4096 symbols recovered", p)
	}
	w.flush(o)
	if grown := heap() - before; grown > 1<<20 {
		t.Errorf("%d bytes are kept after the repair", grown)
	}
}

// allocated is all that was ever allocated.
func allocated() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.TotalAlloc)
}

// tinyDisk mounts a memory file system of that many bytes.
func tinyDisk(t *testing.T, size int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("a file system cannot be mounted here (%v): running out of space was NOT tested", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// TestDiskTooSmall: reserving fails on a real file system; it says how much is lacking and leaves nothing, the second
// file's blocks neither.
func TestDiskTooSmall(t *testing.T) {
	root := openRoot(t, tinyDisk(t, 1<<20))
	g, err := fec.New(3<<20, 1408, 10)
	if err != nil {
		t.Fatal(err)
	}
	files := []spool.File{{Name: "files/0", Size: 512 << 10}, {Name: "files/1", Size: 3<<20 - 512<<10}}
	for name, opt := range map[string]spool.Options{
		"checked before": {},
		"found out":      {Reserve: durable.Allocate},
	} {
		_, err := spool.Open(root, files, g, opt)
		var lack *durable.NoSpaceError
		if !errors.As(err, &lack) || lack.Lacking < 1<<20 || lack.Lacking > 4<<20 {
			t.Errorf("%s: error %v", name, err)
		}
		checkEmpty(t, root, name)
		var s unix.Statfs_t
		if err := unix.Statfs(root.Name(), &s); err != nil || s.Bfree != s.Blocks {
			t.Errorf("%s: %d of %d blocks are free (%v)", name, s.Bfree, s.Blocks, err)
		}
	}
}

// TestDiskFullMidway: the side file is not reserved. When the disk fills up under it the object breaks; with more room it
// goes on where it was.
func TestDiskFullMidway(t *testing.T) {
	w := newWorld(t, 0, 1000, 8, 1000*192*8)
	dir := tinyDisk(t, 1000*192*8+64<<10)
	w.root = openRoot(t, dir)
	o := w.open()
	w.put(o, w.source[200:]...)
	o.AwaitFlight() // an object that breaks loses what is on its way
	var err error
	for _, s := range w.rows(0, 24) {
		if _, err = o.Put(s.sbn, s.esi, s.data); err != nil {
			break
		}
	}
	if !errors.Is(err, spool.ErrBroken) || !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("error %v, want ErrBroken for lack of space", err)
	}
	have := o.Progress().Have
	if err := o.Close(); !errors.Is(err, spool.ErrBroken) {
		t.Fatalf("Close of a broken object: %v", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=8m"); err != nil {
		t.Fatal(err)
	}
	o = w.open()
	if p := o.Progress(); p.Have != have || p.Repair == 0 {
		t.Fatalf("resumed with %+v, had %d", p, have)
	}
	w.put(o, w.rows(0, 25)...)
	w.flush(o)
	w.wait(o)
	w.check()
}
