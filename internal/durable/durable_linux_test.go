// SPDX-License-Identifier: Apache-2.0

package durable_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/internal/durable"
)

// TestReserved: a length alone is no promise, blocks are.
func TestReserved(t *testing.T) {
	f, err := durable.Create(folder(t), "x", 1<<20, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 < 1<<20 {
		t.Errorf("%d blocks are reserved for 1 MiB (%v)", st.Blocks, err)
	}
}

func TestSyncFilesystem(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := durable.SyncFilesystem(dir); err != nil {
		t.Error(err)
	}
	dir.Close()
	if err := durable.SyncFilesystem(dir); err == nil {
		t.Error("a closed folder was synced")
	}
}

func TestDropCache(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
		t.Skipf("the temporary directory is in memory (%v), where nothing can be given back", err)
	}
	data := bytes.Repeat([]byte("sluice"), 100_000)
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := durable.Datasync(f); err != nil {
		t.Fatal(err)
	}
	if !cached(t, f) {
		t.Skip("the pages were gone already: this proves nothing")
	}
	durable.DropCache(f, 0, int64(len(data)))
	if cached(t, f) {
		t.Error("the pages are still in memory")
	}
	got := make([]byte, len(data))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the bytes changed: %v", err)
	}
}

// cached tells whether the first bytes of a file can be read without waiting for the disk (RWF_NOWAIT in preadv2(2)).
func cached(t *testing.T, f *os.File) bool {
	t.Helper()
	n, err := unix.Preadv2(int(f.Fd()), [][]byte{make([]byte, 16)}, 0, unix.RWF_NOWAIT)
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		t.Skipf("the file system cannot tell (%v)", err)
	}
	return n > 0
}

func TestPunchHole(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
		t.Fatal(err)
	}
	if err := durable.PunchHole(f, 4096, 1<<19); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(f.Name())
	if err != nil || len(got) != 1<<20 || bytes.Count(got, []byte("x")) != 1<<19 {
		t.Errorf("%d bytes, %d left (%v)", len(got), bytes.Count(got, []byte("x")), err)
	}
}

// TestNoSpace runs on a memory file system of 1 MiB.
func TestNoSpace(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("a file system cannot be mounted here (%v): running out of space was NOT tested", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	_, err = durable.Create(root, "big", 3<<20, 0o600)
	wantLack(t, err, 2<<20)
	wantNames(t, root)

	f, err := durable.Create(root, "small", 256<<10, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	wantLack(t, durable.Allocate(f, 2<<20), 1<<20)
	if info, err := f.Stat(); err != nil || info.Size() != 256<<10 {
		t.Errorf("after the refusal: %v (%v)", info.Size(), err)
	}
	wantLack(t, durable.CheckSpace(f, "a release", 1<<20), 256<<10)
	if err := durable.CheckSpace(f, "a release", 512<<10); err != nil {
		t.Errorf("there is room: %v", err)
	}
	if err := durable.WriteFile(root, "data", make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("WriteFile on a full disk: %v", err)
	}
	wantNames(t, root, "small")
}

func wantLack(t *testing.T, err error, lacking int64) {
	t.Helper()
	var lack *durable.NoSpaceError
	if !errors.Is(err, durable.ErrNoSpace) || !errors.As(err, &lack) || lack.Lacking != lacking {
		t.Errorf("error %v, want ErrNoSpace that lacks %d bytes", err, lacking)
	}
}
