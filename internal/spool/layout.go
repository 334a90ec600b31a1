// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"
	"sync"
	"sync/atomic"

	"sluice/internal/durable"
	"sluice/pkg/fec"
)

const (
	// maxOpenFiles bounds the descriptors of one object, whatever the number of its files.
	maxOpenFiles = 128
	// maxSyncFiles is how many files are synced one by one; beyond it one syncfs costs less: 100,000 small files
	// in one span would take as many seeks.
	maxSyncFiles = 64
	// pageSize is that of the page cache; where it is larger, a page is now and then written twice.
	pageSize = 4 << 10
	// statePrefix is kept for the names of the state files.
	statePrefix = "spool."
)

// layout is the object as bytes: files in order, without gaps, and the few of them that are open.
//
//	object   0            ends[0]      ends[1]=ends[2]          ends[3]
//	         |  file 0    |  file 1    |  file 3 ...            |
//
// (file 2 is empty.)
type layout struct {
	root  *os.Root
	dir   *os.File // the root directory, open from the start: syncfs on it tells of every failed write-back since then
	files []File
	ends  []int64 // ends[i] is the offset just behind file i

	direct atomic.Bool // writePast goes past the page cache
	lock   fileLock    // nil, or a test's

	mu      sync.Mutex
	open    map[int]*handle
	newest  *handle // ring in the order of use: newest.next is the oldest
	dirty   []bool  // files written since their last sync
	evicted bool    // files were written and closed: what went wrong with them, fdatasync on a new descriptor may not tell
}

// fileLock stands for the lock that the kernel has for each file, in tests: a write past the page cache shares it until the bytes are on
// the disk, one through the page cache has it alone (ext4, XFS).
type fileLock interface {
	Lock()
	Unlock()
	RLock()
	RUnlock()
}

// handle is an open file. refs counts who works with it.
type handle struct {
	file       *os.File
	direct     *os.File // the same, opened with O_DIRECT; nil: it was not needed yet
	index      int
	refs       int
	prev, next *handle
}

func newLayout(root *os.Root, files []File) (*layout, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	l := &layout{
		root: root, dir: dir, files: files, ends: make([]int64, len(files)),
		open: make(map[int]*handle, maxOpenFiles), dirty: make([]bool, len(files)),
	}
	var end int64
	for i, f := range files {
		end += f.Size
		l.ends[i] = end
	}
	l.direct.Store(durable.Direct != 0 && end >= directSize)
	return l, nil
}

// checkFiles wants files that make an object of that size, with names of their own.
func checkFiles(files []File, size int64) error {
	seen := make(map[string]bool, len(files))
	left := size
	for i, f := range files {
		switch {
		case !fs.ValidPath(f.Name) || f.Name == "." || strings.HasPrefix(f.Name, statePrefix):
			return fmt.Errorf("%w: file %d: the name %q cannot be used", ErrFiles, i, f.Name)
		case seen[f.Name]:
			return fmt.Errorf("%w: file %d: the name %q is there twice", ErrFiles, i, f.Name)
		case f.Size < 0 || f.Size > left:
			return fmt.Errorf("%w: file %d (%s) of %d bytes, %d bytes of the object are left", ErrFiles, i, f.Name, f.Size, left)
		}
		seen[f.Name] = true
		left -= f.Size
	}
	if left != 0 {
		return fmt.Errorf("%w: the object is %d bytes longer than its files", ErrFiles, left)
	}
	return nil
}

// identity is the digest of what must be the same to resume an object.
func identity(g fec.Geometry, files []File) (digest [32]byte) {
	h := sha256.New()
	number := func(n int64) { _ = binary.Write(h, binary.BigEndian, n) } // a hash does not fail
	_, _ = io.WriteString(h, "sluice-spool-v1\x00")
	number(g.ObjectSize)
	number(int64(g.SymbolSize))
	number(int64(g.Groups))
	number(int64(len(files)))
	for _, f := range files {
		number(int64(len(f.Name)))
		_, _ = io.WriteString(h, f.Name)
		number(f.Size)
	}
	h.Sum(digest[:0])
	return digest
}

func (l *layout) size() int64 {
	if len(l.ends) == 0 {
		return 0
	}
	return l.ends[len(l.ends)-1]
}

// find returns the file that holds the byte at offset, which is within the object. Empty files hold none.
func (l *layout) find(offset int64) int {
	return sort.Search(len(l.ends), func(i int) bool { return l.ends[i] > offset })
}

// clip shortens b, which is to lie at offset, to the end of the object: what is beyond is padding.
func (l *layout) clip(b []byte, offset int64) []byte {
	return b[:max(0, min(int64(len(b)), l.size()-offset))]
}

// writeAt writes b at an offset of the object, across files; padding is dropped.
func (l *layout) writeAt(b []byte, offset int64) error {
	return l.each(l.clip(b, offset), offset, func(h *handle, piece []byte, at int64) error {
		defer l.soil(h.index)
		return l.write(h, piece, at)
	})
}

// writeBeside is writeAt while other bytes of the same files are on their way past the page cache: it does not wait for those.
func (l *layout) writeBeside(b []byte, offset int64) error {
	return l.each(l.clip(b, offset), offset, func(h *handle, piece []byte, at int64) error {
		defer l.soil(h.index)
		return durable.WriteMapped(h.file, piece, at)
	})
}

// write writes to one file.
func (l *layout) write(h *handle, b []byte, at int64) error {
	if len(b) == 0 {
		return nil
	}
	if l.lock != nil {
		l.lock.Lock()
		defer l.lock.Unlock()
	}
	_, err := h.file.WriteAt(b, at)
	return err
}

// phase is how far into a page bytes of the object lie in the file that has most of them: where that file holds the middle one.
func (l *layout) phase(start, length int64) int {
	i := l.find(min(start+length/2, l.size()-1))
	return int((start - (l.ends[i] - l.files[i].Size)) & (pageSize - 1))
}

// writePast is writeAt past the page cache, of bytes that begin phase bytes into a page of memory: those pages of a file that b has
// wholly, where they are pages of memory as well. The rest goes through it, and so does everything where the file system cannot.
func (l *layout) writePast(b []byte, offset int64, phase int) error {
	return l.each(l.clip(b, offset), offset, func(h *handle, piece []byte, at int64) error {
		defer l.soil(h.index)
		head := int(-at & (pageSize - 1))
		body := (len(piece) - head) &^ (pageSize - 1)
		before := int(l.ends[h.index] - l.files[h.index].Size + at - offset) // the piece
		if body < pageSize || (phase+before+head)%pageSize != 0 || !l.writeDirect(h, piece[head:head+body], at+int64(head)) {
			return l.write(h, piece, at)
		}
		err := l.write(h, piece[:head], at)
		if err == nil {
			err = l.write(h, piece[head+body:], at+int64(head+body))
		}
		return err
	})
}

// writeDirect writes whole pages with O_DIRECT. It is false where that cannot be: then it is not tried again, and the caller, who
// writes them through the page cache, will see the error if it is one of the disk.
func (l *layout) writeDirect(h *handle, b []byte, at int64) bool {
	if l.lock != nil {
		l.lock.RLock()
		defer l.lock.RUnlock()
	}
	f, err := l.openDirect(h)
	if err == nil {
		_, err = f.WriteAt(b, at)
	}
	if err != nil {
		l.direct.Store(false)
	}
	return err == nil
}

// openDirect opens the file of a handle that is in use once more.
func (l *layout) openDirect(h *handle) (*os.File, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.direct == nil {
		f, err := l.root.OpenFile(l.files[h.index].Name, os.O_RDWR|durable.Direct, 0)
		if err != nil {
			return nil, err
		}
		h.direct = f
	}
	return h.direct, nil
}

// close closes the descriptors of a file.
func (h *handle) close() error {
	err := h.file.Close()
	if h.direct != nil {
		err = errors.Join(err, h.direct.Close())
	}
	return err
}

// readAt fills b from an offset of the object, across files; behind the end it reads zeros, the padding.
func (l *layout) readAt(b []byte, offset int64) error {
	inside := l.clip(b, offset)
	clear(b[len(inside):])
	return l.each(inside, offset, func(h *handle, piece []byte, at int64) error {
		_, err := h.file.ReadAt(piece, at)
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("%s is shorter than it was made: %w", h.file.Name(), io.ErrUnexpectedEOF)
		}
		return err
	})
}

// each calls do for every piece of b that lies in one file.
func (l *layout) each(b []byte, offset int64, do func(h *handle, piece []byte, at int64) error) error {
	for len(b) > 0 {
		i := l.find(offset)
		n := min(int64(len(b)), l.ends[i]-offset)
		h, err := l.acquire(i)
		if err != nil {
			return err
		}
		err = do(h, b[:n], offset-(l.ends[i]-l.files[i].Size))
		l.giveBack(h)
		if err != nil {
			return err
		}
		b, offset = b[n:], offset+n
	}
	return nil
}

// acquire opens file i, or finds it open.
func (l *layout) acquire(i int) (*handle, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.open[i]; h != nil {
		h.refs++
		if h != l.newest {
			l.unlink(h)
			l.link(h)
		}
		return h, nil
	}
	if err := l.evict(); err != nil {
		return nil, err
	}
	f, err := l.root.OpenFile(l.files[i].Name, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open file of the object: %w", err)
	}
	h := &handle{file: f, index: i, refs: 1}
	l.open[i] = h
	l.link(h)
	return h, nil
}

func (l *layout) giveBack(h *handle) {
	l.mu.Lock()
	h.refs--
	l.mu.Unlock()
}

// soil notes that file i has been written. After the write, not before: a sync in between then covers it or leaves the
// note.
func (l *layout) soil(i int) {
	l.mu.Lock()
	l.dirty[i] = true
	l.mu.Unlock()
}

// evict closes the idle file used longest ago, if the limit is reached. The caller holds mu.
func (l *layout) evict() error {
	if len(l.open) < maxOpenFiles {
		return nil
	}
	h := l.newest.next
	for range len(l.open) {
		if h.refs == 0 {
			break
		}
		h = h.next
	}
	if h.refs > 0 {
		return nil // cannot be: five goroutines use at most five files
	}
	l.unlink(h)
	delete(l.open, h.index)
	l.evicted = l.evicted || l.dirty[h.index]
	return h.close()
}

func (l *layout) link(h *handle) {
	if l.newest == nil {
		h.prev, h.next = h, h
	} else {
		h.prev, h.next = l.newest, l.newest.next
		h.prev.next, h.next.prev = h, h
	}
	l.newest = h
}

func (l *layout) unlink(h *handle) {
	h.prev.next, h.next.prev = h.next, h.prev
	if l.newest == h {
		l.newest = h.prev
	}
	if h.next == h {
		l.newest = nil
	}
}

// sync brings the bytes from start to end to stable storage.
func (l *layout) sync(start, end int64) error {
	first, last := l.find(start), l.find(end-1)
	files, whole := l.unsynced(first, last)
	if whole {
		return durable.SyncFilesystem(l.dir)
	}
	for _, i := range files {
		h, err := l.acquire(i)
		if err != nil {
			return err
		}
		err = durable.Datasync(h.file)
		l.giveBack(h)
		if err != nil {
			return err
		}
	}
	return nil
}

// startWriteback begins to write the bytes from start to end to the disk, of those files that are open. A page that is not
// full yet is left to the range behind.
func (l *layout) startWriteback(start, end int64) {
	l.eachOpen(start, end, func(h *handle, low, high int64) {
		low &^= pageSize - 1
		if high < l.files[h.index].Size {
			high &^= pageSize - 1
		}
		if low < high {
			durable.StartWriteback(h.file, low, high-low)
		}
	})
}

// dropCache gives back the pages of the bytes from start to end, which are on stable storage, of those files that are open:
// small files, of which there may be 100,000, are not opened for an advice.
func (l *layout) dropCache(start, end int64) {
	l.eachOpen(start, end, func(h *handle, low, high int64) { durable.DropCache(h.file, low, high-low) })
}

// eachOpen calls do for every open file that holds bytes from start to end, with their place in it.
func (l *layout) eachOpen(start, end int64, do func(h *handle, low, high int64)) {
	for _, i := range l.openIn(start, end) {
		h := l.hold(i)
		if h == nil {
			continue // closed meanwhile
		}
		from := l.ends[i] - l.files[i].Size
		do(h, max(start, from)-from, min(end, l.ends[i])-from)
		l.giveBack(h)
	}
}

// openIn lists the open files that hold bytes from start to end.
func (l *layout) openIn(start, end int64) (list []int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.open {
		if l.ends[i]-l.files[i].Size < end && l.ends[i] > start {
			list = append(list, i)
		}
	}
	return list
}

// hold acquires file i if it is open.
func (l *layout) hold(i int) *handle {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.open[i]
	if h != nil {
		h.refs++
	}
	return h
}

// unsynced takes the dirty files of first to last off the list, or all of them if the whole file system is to be synced.
func (l *layout) unsynced(first, last int) (files []int, whole bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := first; i <= last && len(files) <= maxSyncFiles; i++ {
		if l.dirty[i] {
			files = append(files, i)
		}
	}
	if len(files) > maxSyncFiles || l.evicted {
		clear(l.dirty)
		l.evicted = false
		return nil, true
	}
	for _, i := range files {
		l.dirty[i] = false
	}
	return files, false
}

func (l *layout) syncAll() error {
	if l.size() == 0 {
		return nil
	}
	return l.sync(0, l.size())
}

// close closes every descriptor.
func (l *layout) close() error {
	errs := []error{l.dir.Close()}
	for _, h := range l.open {
		errs = append(errs, h.close())
	}
	return errors.Join(errs...)
}

// folders returns the directories that the files are in, parents first.
func (l *layout) folders() []string {
	seen := map[string]bool{".": true}
	list := []string{"."}
	for _, f := range l.files {
		var missing []string
		for dir := path.Dir(f.Name); !seen[dir]; dir = path.Dir(dir) {
			seen[dir] = true
			missing = append(missing, dir)
		}
		for i := len(missing) - 1; i >= 0; i-- {
			list = append(list, missing[i])
		}
	}
	return list
}

// remove removes the files, and the folders that are empty then. What is not there is no error.
func (l *layout) remove(root *os.Root) error {
	var errs []error
	for _, f := range l.files {
		errs = append(errs, removeIfThere(root, f.Name))
	}
	folders := l.folders()
	for i := len(folders) - 1; i > 0; i-- {
		_ = root.Remove(folders[i]) // one that is not empty holds something that is not ours
	}
	return errors.Join(append(errs, durable.SyncDir(root, "."))...)
}

func syncFolders(root *os.Root, folders []string) error {
	for _, dir := range folders {
		if err := durable.SyncDir(root, dir); err != nil {
			return err
		}
	}
	return nil
}

func removeIfThere(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
