// SPDX-License-Identifier: Apache-2.0

package durable_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/internal/durable"
)

func folder(t *testing.T) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// names lists every file and folder below root.
func names(t *testing.T, root *os.Root) (list []string) {
	t.Helper()
	err := fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if path != "." {
			list = append(list, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func wantNames(t *testing.T, root *os.Root, want ...string) {
	t.Helper()
	if got := names(t, root); !slices.Equal(got, want) {
		t.Errorf("the folder holds %q, want %q", got, want)
	}
}

func TestWriteFile(t *testing.T) {
	root := folder(t)
	if err := root.Mkdir("sub", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"first", "", strings.Repeat("long ", 100000), "last"} {
		if err := durable.WriteFile(root, "sub/name", []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := root.ReadFile("sub/name")
		if err != nil || string(got) != content {
			t.Fatalf("%d bytes (%v), want %d", len(got), err, len(content))
		}
	}
	info, err := root.Stat("sub/name")
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v (%v), want 0640", info.Mode(), err)
	}
	wantNames(t, root, "sub", "sub/name")
}

// TestWriteFileFails: the old file stays as it was, and nothing is left beside it.
func TestWriteFileFails(t *testing.T) {
	root := folder(t)
	if err := root.MkdirAll("taken/by-a-folder", 0o700); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{"missing/name": fs.ErrNotExist, "../name": nil, "taken": nil} {
		err := durable.WriteFile(root, name, []byte("x"), 0o600)
		if err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	wantNames(t, root, "taken", "taken/by-a-folder")
}

func TestRename(t *testing.T) {
	root := folder(t)
	for _, dir := range []string{"a", "b"} {
		if err := root.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.WriteFile(root, "a/x", []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteFile(root, "b/y", []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := durable.Rename(root, "a/x", "b/y"); err != nil {
		t.Fatal(err)
	}
	if got, err := root.ReadFile("b/y"); err != nil || string(got) != "new" {
		t.Errorf("%q (%v)", got, err)
	}
	wantNames(t, root, "a", "b", "b/y")
	if err := durable.Rename(root, "a/x", "b/z"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestRemove(t *testing.T) {
	root := folder(t)
	if err := durable.WriteFile(root, "x", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is gone already
		if err := durable.Remove(root, "x"); err != nil {
			t.Error(err)
		}
	}
	wantNames(t, root)
}

func TestSyncOfAClosedFile(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := durable.Sync(f); !errors.Is(err, durable.ErrSync) || !errors.Is(err, os.ErrClosed) {
		t.Errorf("Sync: %v", err)
	}
}

// TestSyncErrors: what cannot be synced says so. A pipe is such a thing.
func TestSyncErrors(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if err := durable.Sync(w); !errors.Is(err, durable.ErrSync) {
		t.Errorf("Sync: %v", err)
	}
	if err := durable.Datasync(w); !errors.Is(err, durable.ErrSync) {
		t.Errorf("Datasync: %v", err)
	}
	if err := durable.SyncDir(folder(t), "missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("SyncDir: %v", err)
	}
}

func TestCreate(t *testing.T) {
	root := folder(t)
	f, err := durable.Create(root, "x", 1<<20, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() != 1<<20 {
		t.Errorf("%d bytes (%v)", info.Size(), err)
	}
	if _, err := durable.Create(root, "x", 1, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("created twice: %v", err)
	}
}

// TestAllocateKeepsContent: what is in the file stays, a longer file is not cut.
func TestAllocateKeepsContent(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := bytes.Repeat([]byte("content "), 1000)
	if _, err := f.Write(want); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int64{0, -5, 100, 8000, 20000} {
		if err := durable.Allocate(f, size); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(f.Name())
	if err != nil || len(got) != 20000 || !bytes.Equal(got[:8000], want) || len(bytes.Trim(got[8000:], "\x00")) > 0 {
		t.Errorf("%d bytes (%v)", len(got), err)
	}
}
