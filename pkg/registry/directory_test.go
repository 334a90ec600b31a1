// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sluice/pkg/registry"
	"sluice/pkg/registry/registrytest"
)

// directories is the directory target of the conformance suite.
type directories struct {
	root string
	opt  registry.Options
}

func (d *directories) path(name string) string { return filepath.Join(d.root, name) }

func (d *directories) Open(t *testing.T, name string) registry.Publisher {
	t.Helper()
	opt := d.opt
	opt.Receiver = "receiver-1"
	p, err := registry.NewDirectory(d.path(name), opt)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (d *directories) Plant(t *testing.T, name, key string, data []byte) {
	t.Helper()
	file := filepath.Join(d.path(name), key)
	d.Remove(t, name, key)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func (d *directories) Remove(t *testing.T, name, key string) {
	t.Helper()
	file := filepath.Join(d.path(name), key)
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for dir := filepath.Dir(file); dir != d.path(name) && os.Remove(dir) == nil; {
		dir = filepath.Dir(dir)
	}
}

func (d *directories) Keys(t *testing.T, name string) map[string]string {
	t.Helper()
	keys := make(map[string]string)
	root := d.path(name)
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == ".withdrawn" {
			return fs.SkipDir
		}
		if err != nil || entry.IsDir() {
			return err
		}
		key := filepath.ToSlash(strings.TrimPrefix(file, root+"/"))
		info, err := entry.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(file)
		inode := info.Sys().(*syscall.Stat_t).Ino
		keys[key] = registrytest.Shown(fmt.Sprint(info.Size(), " ", info.ModTime(), " ", inode), data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func (d *directories) Kept(t *testing.T, name, key string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(d.path(name), ".withdrawn", strings.TrimPrefix(key, "releases/")))
	if err != nil {
		t.Error(err)
	}
	return data
}

func TestDirectoryConformance(t *testing.T) {
	registrytest.Run(t, &directories{root: t.TempDir()})
}

func TestDirectoryConformanceCopying(t *testing.T) {
	registrytest.Run(t, &directories{root: t.TempDir(), opt: registry.Options{NoLink: true, Workers: 1}})
}

// stat returns the system's view of a file.
func stat(t *testing.T, file string) *syscall.Stat_t {
	t.Helper()
	info, err := os.Lstat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t)
}

// published is the path of a file of a release below the registry directory.
func published(s *registrytest.Spool, path string) string {
	return filepath.Join("releases", s.Name, "sha256-"+registrytest.Hex(s), path)
}

// TestDirectoryLinksOrCopies: with links the inode is the spool's (or a clone),
// without it is another; both are read-only, and outlive the spool.
func TestDirectoryLinksOrCopies(t *testing.T) {
	for _, noLink := range []bool{false, true} {
		dir := t.TempDir()
		p, err := registry.NewDirectory(filepath.Join(dir, "registry"), registry.Options{NoLink: noLink})
		if err != nil {
			t.Fatal(err)
		}
		s := registrytest.Make(t, filepath.Join(dir, "spool"), "llama", 1, 1, map[string]int64{"w": 10_000})
		if _, err := p.Publish(t.Context(), s.Release, s, nil); err != nil {
			t.Fatal(err)
		}
		spool, done := stat(t, s.File(0)), stat(t, filepath.Join(dir, "registry", published(s, "w")))
		if noLink && spool.Ino == done.Ino {
			t.Error("NoLink: the inode is shared with the spool")
		}
		if done.Mode&0o777 != 0o444 {
			t.Errorf("NoLink %v: mode %o", noLink, done.Mode&0o777)
		}
		if err := os.Remove(s.File(0)); err != nil {
			t.Fatal(err)
		}
		registrytest.Clean(t, p)
		p.Close()
	}
}

// TestDirectoryCopiesAcrossFileSystems publishes from another file system.
func TestDirectoryCopiesAcrossFileSystems(t *testing.T) {
	spool, err := os.MkdirTemp("/dev/shm", "registry") //nolint:usetesting // another file system is wanted
	if err != nil {
		t.Skip("no second file system:", err)
	}
	t.Cleanup(func() { os.RemoveAll(spool) })
	p := open(t, t.TempDir())
	s := registrytest.Make(t, spool, "llama", 1, 1, map[string]int64{"w": 40 << 20, "empty": 0})
	if _, err := p.Publish(t.Context(), s.Release, s, nil); err != nil {
		t.Fatal(err)
	}
	registrytest.Complete(t, p, s)
	registrytest.Clean(t, p)
}

// TestDirectoryRefusesLinks: a symbolic link below a release prefix is no file
// of the release, wherever it points.
func TestDirectoryRefusesLinks(t *testing.T) {
	for _, target := range []string{"/etc/passwd", "../../../../outside", "config.json"} {
		dir := t.TempDir()
		p := open(t, dir)
		s := registrytest.Make(t, t.TempDir(), "llama", 1, 1, registrytest.Small())
		link := filepath.Join(dir, "registry", published(s, "a.txt"))
		if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Publish(t.Context(), s.Release, s, nil); !errors.Is(err, registry.ErrConflict) {
			t.Errorf("link to %s: %v", target, err)
		}
		if err := os.Remove(link); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Publish(t.Context(), s.Release, s, nil); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Remove(link), os.Symlink(target, link)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := p.Open(t.Context(), s.Name, s.ID, "a.txt"); !errors.Is(err, registry.ErrCorrupt) {
			t.Errorf("open link to %s: %v", target, err)
		}
		if found := registrytest.Fsck(t, p, false); len(found) != 1 || found[0].Kind != registry.ProblemExtra {
			t.Errorf("fsck of link to %s: %v", target, found)
		}
	}
}

// TestDirectoryEscape: a directory of the registry replaced by a link that
// leads outside must not be written through.
func TestDirectoryEscape(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	p := open(t, dir)
	if err := os.Symlink(outside, filepath.Join(dir, "registry", "releases")); err != nil {
		t.Fatal(err)
	}
	s := registrytest.Make(t, t.TempDir(), "llama", 1, 1, registrytest.Small())
	if _, err := p.Publish(t.Context(), s.Release, s, nil); err == nil {
		t.Error("published through a link that leads outside")
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("outside holds %v, %v", left, err)
	}
}

// TestDirectoryStopsAfterFailedSync: an fsync that failed is never retried.
func TestDirectoryStopsAfterFailedSync(t *testing.T) {
	p := open(t, t.TempDir())
	registry.Poison(p)
	s := registrytest.Make(t, t.TempDir(), "llama", 1, 1, registrytest.Small())
	if _, err := p.Publish(t.Context(), s.Release, s, nil); err != nil && !errors.Is(err, registry.ErrStopped) || err == nil {
		t.Errorf("publish after a failed fsync: %v", err)
	}
}

// TestDirectorySeek: the reader of Open seeks, as a server of ranges needs it,
// and still checks a whole read after a seek to the start.
func TestDirectorySeek(t *testing.T) {
	p := open(t, t.TempDir())
	s := registrytest.Make(t, t.TempDir(), "llama", 1, 1, map[string]int64{"w": 10_000})
	if _, err := p.Publish(t.Context(), s.Release, s, nil); err != nil {
		t.Fatal(err)
	}
	rc, size, err := p.Open(t.Context(), s.Name, s.ID, "w")
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	seeker, ok := rc.(io.Seeker)
	if !ok {
		t.Fatalf("%T does not seek", rc)
	}
	for _, at := range []int64{9_000, 1, 0, size} {
		if pos, err := seeker.Seek(at, io.SeekStart); err != nil || pos != at {
			t.Fatalf("seek to %d: %d, %v", at, pos, err)
		}
		if data, err := io.ReadAll(rc); err != nil || int64(len(data)) != size-at {
			t.Errorf("from %d: %d bytes, %v", at, len(data), err)
		}
	}
}

// TestVerify is the second look some time after Publish.
func TestVerify(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir)
	s := registrytest.Make(t, t.TempDir(), "llama", 1, 1, registrytest.Small())
	if err := p.Verify(t.Context(), s.Name, s.ID); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("before: %v", err)
	}
	if _, err := p.Publish(t.Context(), s.Release, s, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Verify(t.Context(), s.Name, s.ID); err != nil {
		t.Errorf("after: %v", err)
	}
	registrytest.Flip(t, filepath.Join(dir, "registry", published(s, "weights/model.safetensors")), 77)
	err := p.Verify(t.Context(), s.Name, s.ID)
	if !errors.Is(err, registry.ErrCorrupt) || !strings.Contains(err.Error(), "model.safetensors") {
		t.Errorf("flipped bit: %v", err)
	}
}
