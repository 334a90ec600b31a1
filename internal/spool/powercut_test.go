// SPDX-License-Identifier: Apache-2.0

package spool_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"sluice/internal/spool"
)

// diskOfItsOwn is an ext4 in a file in memory, whose power can be cut.
type diskOfItsOwn struct {
	t    *testing.T
	loop string // device
	dir  string // mount point
}

func newDisk(t *testing.T) *diskOfItsOwn {
	t.Helper()
	ownMounts(t)
	work, err := os.MkdirTemp("/dev/shm", "spool-disk-")
	if err != nil {
		t.Skipf("no memory file system (%v): power cuts on a real file system were NOT tested", err)
	}
	image := filepath.Join(work, "image")
	t.Cleanup(func() { os.RemoveAll(work) })
	out, err := exec.Command("sh", "-c", `truncate -s 64M "$1" && mkfs.ext4 -q "$1" && losetup -f --show "$1"`, "sh", image).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device with ext4 here (%v: %s): power cuts on a real file system were NOT tested", err, out)
	}
	d := &diskOfItsOwn{t: t, loop: strings.TrimSpace(string(out)), dir: t.TempDir()}
	t.Cleanup(func() {
		_ = unix.Unmount(d.dir, unix.MNT_DETACH)
		if out, err := exec.Command("losetup", "-d", d.loop).CombinedOutput(); err != nil {
			t.Errorf("losetup -d: %v %s", err, out)
		}
	})
	d.mount()
	return d
}

// ownMounts gives the test's thread mounts that no other process can copy: whoever makes a mount namespace meanwhile (ip netns exec
// does) would hold the file system, and after a cut the same dead one would be mounted again. The thread is never unlocked: it ends
// with the test, and its namespace with it.
func ownMounts(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		t.Skipf("no mount namespace here (%v): power cuts on a real file system were NOT tested", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatalf("make mounts private: %v", err)
	}
}

func (d *diskOfItsOwn) mount() {
	d.t.Helper()
	if err := unix.Mount(d.loop, d.dir, "ext4", 0, ""); err != nil {
		d.t.Fatalf("mount: %v", err)
	}
}

// cutPower is FS_IOC_SHUTDOWN without flushing the log: what is not on the device never gets there. Measured to leave the
// same as a block device that drops its writes.
func (d *diskOfItsOwn) cutPower() {
	d.t.Helper()
	const shutdown, noLogFlush = 0x8004587d, 2
	f, err := os.Open(d.dir)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	how := uint32(noLogFlush)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), shutdown, uintptr(unsafe.Pointer(&how))); errno != 0 {
		d.t.Fatalf("shutdown of the file system: %v", errno)
	}
}

// powerUp mounts again; whoever still had the file system open has closed it.
func (d *diskOfItsOwn) powerUp() {
	d.t.Helper()
	if err := unix.Unmount(d.dir, 0); err != nil {
		d.t.Fatalf("unmount: %v", err)
	}
	d.mount()
}

// TestPowerCutOnDisk cuts the power at random points of a transfer on a real ext4. After each cut every span that was
// recorded is there, every span that is believed has its bytes, and in the end the object is whole.
func TestPowerCutOnDisk(t *testing.T) {
	d := newDisk(t)
	w := newWorld(t, 0, 1000, 4, 0, 1000*192*4*6, 3, 1000*192*4*5+77)
	var recorded []int
	for boot := range 8 {
		recorded = d.oneBoot(w, boot, recorded)
	}
	d.oneBoot(w, -1, recorded)
}

// oneBoot resumes, checks what is believed, stores some symbols, and cuts the power while the finisher is anywhere; boot -1
// completes the object. It returns the spans that were recorded, for certain, before the cut.
func (d *diskOfItsOwn) oneBoot(w *world, boot int, before []int) (recorded []int) {
	t := d.t
	root, err := os.OpenRoot(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	w.root, w.opt.BootID = root, fmt.Sprint(boot)
	o, err := spool.Open(root, w.files, w.g, w.opt)
	if err != nil {
		t.Fatalf("boot %d: %v", boot, err)
	}
	now := o.WaitRecorded(0)
	for _, sbn := range before {
		if !slices.Contains(now, sbn) {
			t.Fatalf("boot %d: span %d was recorded before the power cut and is not any more", boot, sbn)
		}
	}
	checkBelieved(t, w, o)
	if boot < 0 {
		w.put(o, w.source...)
		w.wait(o)
		w.check()
	} else {
		for _, sbn := range w.random.Perm(w.g.Spans())[:2+w.random.IntN(3)] {
			w.put(o, w.lose(w.span(sbn, 8), 0.02)...)
		}
		w.flush(o)
		recorded = o.WaitRecorded(min(len(now)+w.random.IntN(3), o.Progress().SpansComplete))
		t.Logf("boot %d: resumed with %d spans, cut with %d recorded of %d complete", boot, len(now), len(recorded), o.Progress().SpansComplete)
	}
	d.cutPower()
	_ = o.Abandon() // its files are gone under it
	root.Close()
	d.powerUp()
	return recorded
}

// TestKillCloseCut: a process is killed, the next one in the same boot closes cleanly, then the power goes. What the first
// one wrote and nobody synced must be there, as the clean mark says so.
func TestKillCloseCut(t *testing.T) {
	d := newDisk(t)
	w := newWorld(t, 0, 1000, 4, 1000*192*4, 1000*192*4, 1000) // a file a span: the second process writes only its own
	root, err := os.OpenRoot(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	w.root, w.opt = root, spool.Options{BootID: "1"}
	for i, end := range []func(*spool.Object) error{(*spool.Object).Abandon, (*spool.Object).Close} {
		o := w.open()
		w.put(o, w.source[i*192*4:][:192*4]...)
		o.AwaitFlight() // what is on its way is not written
		if err := end(o); err != nil {
			t.Fatal(err)
		}
	}
	d.cutPower()
	root.Close()
	d.powerUp()
	if w.root, err = os.OpenRoot(d.dir); err != nil {
		t.Fatal(err)
	}
	defer w.root.Close()
	w.opt.BootID = "2"
	o := w.open()
	if p := o.Progress(); p.SpansComplete != 2 {
		t.Errorf("%+v, want two spans", p)
	}
	checkBelieved(t, w, o)
	if err := o.Close(); err != nil {
		t.Error(err)
	}
}

// checkBelieved compares the spans that the object says it has with the truth.
func checkBelieved(t *testing.T, w *world, o *spool.Object) {
	t.Helper()
	missing := make(map[int]bool)
	for _, m := range o.Missing() {
		missing[m.SBN] = true
	}
	var disk []byte
	for _, f := range w.files {
		b, err := w.root.ReadFile(f.Name)
		if err != nil {
			t.Fatal(err)
		}
		disk = append(disk, b...)
	}
	for sbn := range w.g.Spans() {
		s := w.g.Span(sbn)
		from, to := s.Offset(0), min(s.Offset(s.N), w.g.ObjectSize)
		if !missing[sbn] && !bytes.Equal(disk[from:to], w.object[from:to]) {
			t.Fatalf("span %d is believed and wrong", sbn)
		}
	}
}
