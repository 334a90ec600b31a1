// SPDX-License-Identifier: Apache-2.0

package hubtest

import (
	"crypto/sha1" // git's object ids are SHA-1
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

type repo struct {
	name    string
	main    string
	commits map[string]*commit
}

type commit struct {
	id    string
	files []*file // sorted by path
	index map[string]*file
}

type file struct {
	path string // in the repository
	disk string
	size int64
	lfs  bool
	hashes
}

// etag is what the Hub puts into ETag or X-Linked-Etag.
func (f *file) etag() string {
	if f.lfs {
		return `"` + f.sha256 + `"`
	}
	return `"` + f.git + `"`
}

// oid is the git id of what git holds: the content, or the LFS pointer.
func (f *file) oid() string {
	if !f.lfs {
		return f.git
	}
	return gitBlob([]byte(pointer(f.sha256, f.size)))
}

func pointer(sha string, size int64) string {
	return fmt.Sprintf("version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize %d\n", sha, size)
}

func gitBlob(content []byte) string {
	h := sha1.New()
	fmt.Fprintf(h, "blob %d\x00", len(content))
	h.Write(content)
	return hex.EncodeToString(h.Sum(nil))
}

// hashes of a file's content; an LFS file has no git hash.
type hashes struct {
	sha256, git string
}

// fileKey is what a cached hash hangs on.
type fileKey struct {
	disk string
	size int64
	mod  time.Time
	lfs  bool
}

// snapshot reads a directory into a commit; files that were hashed before are not read again.
func (s *Server) snapshot(name, parent, dir string) (*commit, error) {
	files, err := s.list(dir)
	if err != nil {
		return nil, err
	}
	if err := s.hashAll(files); err != nil {
		return nil, err
	}
	c := &commit{files: files, index: make(map[string]*file, len(files))}
	id := sha1.New()
	fmt.Fprintf(id, "%s\n%s\n", name, parent)
	for _, f := range files {
		c.index[f.path] = f
		fmt.Fprintf(id, "%q %d %s\n", f.path, f.size, f.etag())
	}
	c.id = hex.EncodeToString(id.Sum(nil))
	return c, nil
}

func (s *Server) list(dir string) ([]*file, error) {
	var files []*file
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fmt.Errorf("%s is not a regular file", p)
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		lfs := info.Size() >= s.LFSSize || strings.HasSuffix(p, ".safetensors")
		files = append(files, &file{path: filepath.ToSlash(rel), disk: p, size: info.Size(), lfs: lfs})
		return nil
	})
	slices.SortFunc(files, func(a, b *file) int { return strings.Compare(a.path, b.path) })
	return files, err
}

func (s *Server) hashAll(files []*file) error {
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, f := range files {
		g.Go(func() error { return s.hash(f) })
	}
	return g.Wait()
}

func (s *Server) hash(f *file) error {
	src, err := os.Open(f.disk)
	if err != nil {
		return err
	}
	defer src.Close()
	info, err := src.Stat()
	if err != nil {
		return err
	}
	key := fileKey{disk: f.disk, size: info.Size(), mod: info.ModTime(), lfs: f.lfs}
	s.mu.Lock()
	cached, ok := s.hashes[key]
	s.mu.Unlock()
	if ok {
		f.hashes = cached
		return nil
	}
	if f.hashes, err = hashContent(src, f.size, f.lfs); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hashes[key] = f.hashes
	return nil
}

func hashContent(src io.Reader, size int64, lfs bool) (hashes, error) {
	sha, git := sha256.New(), sha1.New()
	fmt.Fprintf(git, "blob %d\x00", size)
	var to io.Writer = sha
	if !lfs {
		to = git
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{src}, make([]byte, 512<<10))
	if err == nil && n != size {
		err = fmt.Errorf("file changed from %d to %d bytes while it was read", size, n)
	}
	if lfs {
		return hashes{sha256: hex.EncodeToString(sha.Sum(nil))}, err
	}
	return hashes{git: hex.EncodeToString(git.Sum(nil))}, err
}
