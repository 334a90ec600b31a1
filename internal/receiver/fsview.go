// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"io"
	"io/fs"
	"path"
	"sort"
	"strings"
	"time"

	"sluice/pkg/envelope"
)

// view shows the numbered files of a spooled release under their own names, read-only, as an fs.FS: what the inspection
// looks at. The names were checked by pkg/envelope, and none of them reaches the disk.
type view struct {
	shelf *shelf
	dirs  map[string][]fs.DirEntry
	files map[string]entry
}

type entry struct {
	name  string
	index int // -1: a directory
	size  int64
}

func newView(s *shelf, st *envelope.Statement) *view {
	v := &view{shelf: s, dirs: map[string][]fs.DirEntry{".": nil}, files: make(map[string]entry, len(st.Subjects))}
	for i, f := range st.Subjects {
		e := entry{name: path.Base(f.Name), index: i, size: f.Annotations.Size}
		v.files[f.Name] = e
		v.link(f.Name, e)
	}
	for _, list := range v.dirs {
		sort.Slice(list, func(i, j int) bool { return list[i].Name() < list[j].Name() })
	}
	return v
}

// link enters e into its directory, and that directory into its own, up to the first that is known.
func (v *view) link(name string, e entry) {
	dir := path.Dir(name)
	_, known := v.dirs[dir]
	v.dirs[dir] = append(v.dirs[dir], e)
	if !known && dir != "." {
		v.link(dir, entry{name: path.Base(dir), index: -1})
	}
}

// Open implements fs.FS.
func (v *view) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	if e, ok := v.files[name]; ok {
		f, err := v.shelf.open(e.index)
		if err != nil {
			return nil, err
		}
		return &viewFile{File: f, entry: e}, nil
	}
	if list, ok := v.dirs[name]; ok {
		return &viewDir{entry: entry{name: path.Base(name), index: -1}, list: list}, nil
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// ReadDir implements fs.ReadDirFS.
func (v *view) ReadDir(name string) ([]fs.DirEntry, error) {
	list, ok := v.dirs[strings.TrimSuffix(name, "/")]
	if !ok {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrNotExist}
	}
	return list, nil
}

// entry is its own fs.DirEntry and fs.FileInfo.
func (e entry) Name() string               { return e.name }
func (e entry) IsDir() bool                { return e.index < 0 }
func (e entry) Size() int64                { return e.size }
func (e entry) ModTime() time.Time         { return time.Time{} }
func (e entry) Sys() any                   { return nil }
func (e entry) Type() fs.FileMode          { return e.Mode().Type() }
func (e entry) Info() (fs.FileInfo, error) { return e, nil }

func (e entry) Mode() fs.FileMode {
	if e.IsDir() {
		return fs.ModeDir | 0o500
	}
	return 0o400
}

type spooledFile interface {
	io.ReadCloser
	io.ReaderAt
	io.Seeker
}

// viewFile is a spooled file under its own name.
type viewFile struct {
	File  spooledFile
	entry entry
}

func (f *viewFile) Stat() (fs.FileInfo, error)                { return f.entry, nil }
func (f *viewFile) Read(p []byte) (int, error)                { return f.File.Read(p) }
func (f *viewFile) ReadAt(p []byte, off int64) (int, error)   { return f.File.ReadAt(p, off) }
func (f *viewFile) Seek(off int64, whence int) (int64, error) { return f.File.Seek(off, whence) }
func (f *viewFile) Close() error                              { return f.File.Close() }

type viewDir struct {
	entry entry
	list  []fs.DirEntry
}

func (d *viewDir) Stat() (fs.FileInfo, error) { return d.entry, nil }
func (d *viewDir) Close() error               { return nil }
func (d *viewDir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.entry.name, Err: fs.ErrInvalid}
}

// ReadDir implements fs.ReadDirFile.
func (d *viewDir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		out := d.list
		d.list = nil
		return out, nil
	}
	if len(d.list) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.list))
	out := d.list[:n]
	d.list = d.list[n:]
	return out, nil
}
