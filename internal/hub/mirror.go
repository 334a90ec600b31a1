// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Request says what Mirror fetches and where it puts it.
type Request struct {
	Repo     Repo
	Commit   string // 40 hex, from Resolve
	Revision string // what Commit was resolved from; goes into the record only; "" = Commit
	Dir      string // target directory, made if need be; the mirror owns it: nothing else may lie in it

	// Allow and Ignore are patterns as Hub clients mean them (Python's fnmatchcase: '*' crosses '/'; a trailing '/' means
	// everything below). Empty Allow means all.
	Allow, Ignore []string

	// Progress, if set, is told after every chunk how many bytes of the whole are on disk, and which file grew. Calls are
	// not concurrent; done may go back when a file is begun again. It must be quick.
	Progress func(done, total int64, file string)
}

// Mirror brings the directory to exactly the selected files of the commit and returns the record of it. Files are fetched
// in parallel, continued where an earlier run (even a killed one) stopped, verified byte by byte against the tree, synced
// and renamed into place. Files that are there already are hashed again and kept if they are right. A file that fails
// verification is deleted and fetched once more; then Mirror fails with a *DigestError. A file that the snapshot does not
// have is an error (ErrStray), never deleted: the directory is what gets sealed.
//
// On an error the directory keeps what was verified and the .part files, and Mirror may be called again.
func (c *Client) Mirror(ctx context.Context, req Request) (*Record, error) {
	started := time.Now()
	entries, err := c.Tree(ctx, req.Repo, req.Commit)
	if err != nil {
		return nil, err
	}
	files, skipped := split(entries, req)
	if len(files) == 0 {
		return nil, fmt.Errorf("%w: the patterns leave none of the %d files of %s", ErrConfig, len(entries), req.Repo)
	}
	m, err := c.open(req, files)
	if err != nil {
		return nil, err
	}
	defer m.close()
	done, err := m.all(ctx, files)
	if err != nil {
		return nil, fmt.Errorf("mirror %s@%s: %w", req.Repo, req.Commit, err)
	}
	return c.record(req, started, done, skipped), nil
}

func split(entries []Entry, req Request) (files []Entry, skipped []string) {
	for _, e := range entries {
		if selected(e.Path, req.Allow, req.Ignore) {
			files = append(files, e)
		} else {
			skipped = append(skipped, e.Path)
		}
	}
	return files, skipped
}

func (c *Client) record(req Request, started time.Time, files []RecordFile, skipped []string) *Record {
	r := &Record{
		Endpoint: c.Endpoint(),
		Repo:     req.Repo,
		Revision: orDefault(req.Revision, req.Commit),
		Commit:   req.Commit,
		Allow:    req.Allow,
		Ignore:   req.Ignore,
		Started:  started.UTC().Truncate(time.Second),
		Finished: time.Now().UTC().Truncate(time.Second),
		Skipped:  skipped,
		Files:    files,
	}
	r.Repo.Type = orDefault(r.Repo.Type, "model")
	for _, f := range files {
		r.TotalSize += f.Size
	}
	return r
}

// mirror is one call of Mirror at work.
type mirror struct {
	c     *Client
	req   Request
	root  *os.Root
	lock  *os.File
	total int64

	mu   sync.Mutex
	done int64
}

func (c *Client) open(req Request, files []Entry) (*mirror, error) {
	if req.Dir == "" {
		return nil, fmt.Errorf("%w: no target directory", ErrConfig)
	}
	if err := os.MkdirAll(req.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make mirror directory: %w", err)
	}
	root, err := os.OpenRoot(req.Dir)
	if err != nil {
		return nil, fmt.Errorf("open mirror directory: %w", err)
	}
	m := &mirror{c: c, req: req, root: root}
	if err := errors.Join(m.flock(), m.checkStrays(files)); err != nil {
		m.close()
		return nil, err
	}
	for _, e := range files {
		m.total += e.Size
	}
	return m, nil
}

// flock keeps a second mirror out of the directory; the kernel drops the lock with the process.
func (m *mirror) flock() error {
	f, err := m.root.Open(".")
	if err != nil {
		return fmt.Errorf("open mirror directory: %w", err)
	}
	m.lock = f
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%w: directory %s is in use by another mirror: %w", ErrConfig, m.req.Dir, err)
	}
	return nil
}

func (m *mirror) close() {
	if m.lock != nil {
		m.lock.Close()
	}
	m.root.Close()
}

// checkStrays refuses a directory that holds anything but files of this snapshot, finished or not.
func (m *mirror) checkStrays(files []Entry) error {
	known := make(map[string]bool, 2*len(files))
	for _, e := range files {
		known[e.Path], known[e.Path+partSuffix] = true, true
	}
	return fs.WalkDir(m.root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return fmt.Errorf("walk mirror directory: %w", err)
		case d.IsDir():
			return nil
		case !d.Type().IsRegular():
			return fmt.Errorf("%w: %s in %s is not a regular file; remove it", ErrStray, p, m.req.Dir)
		case !known[p]:
			return fmt.Errorf("%w: %s in %s is not in the snapshot; remove it, or mirror into a fresh directory", ErrStray, p, m.req.Dir)
		}
		return nil
	})
}

// all fetches every file, largest first so that none is left alone at the end, and returns the lines of the record in the
// order of the paths.
func (m *mirror) all(ctx context.Context, files []Entry) ([]RecordFile, error) {
	order := make([]int, len(files))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return int(min(1, max(-1, files[b].Size-files[a].Size))) })

	done := make([]RecordFile, len(files))
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(m.c.workers)
	for _, i := range order {
		g.Go(func() (err error) {
			if inner.Err() != nil {
				return context.Cause(inner)
			}
			done[i], err = m.fetch(inner, files[i])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return done, m.syncDirs(files)
}

// syncDirs makes the names durable: a rename survives a power cut only when its directory is synced.
func (m *mirror) syncDirs(files []Entry) error {
	dirs := map[string]bool{".": true}
	for _, e := range files {
		for d := path.Dir(e.Path); !dirs[d]; d = path.Dir(d) {
			dirs[d] = true
		}
	}
	for d := range dirs {
		f, err := m.root.Open(d)
		if err != nil {
			return fmt.Errorf("open directory: %w", err)
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("sync directory: %w", err)
		}
	}
	return nil
}

// advance counts n more bytes (less, when negative) of a file and reports.
func (m *mirror) advance(n int64, file string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done += n
	if m.req.Progress != nil {
		m.req.Progress(m.done, m.total, file)
	}
}

// fetch brings one file to its place, verified.
func (m *mirror) fetch(ctx context.Context, e Entry) (RecordFile, error) {
	if rf, ok, err := m.keep(ctx, e); ok || err != nil {
		return rf, err
	}
	rf, err := m.download(ctx, e)
	if errors.Is(err, ErrDigest) {
		m.c.log.Warn("content differs from the tree, fetching once more", zap.String("file", e.Path), zap.Error(err))
		rf, err = m.download(ctx, e)
	}
	return rf, err
}

// keep hashes a file that is there already. A wrong one is removed.
func (m *mirror) keep(ctx context.Context, e Entry) (rf RecordFile, ok bool, err error) {
	info, err := m.root.Lstat(e.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return rf, false, nil
	}
	if err != nil {
		return rf, false, fmt.Errorf("look for %s: %w", e.Path, err)
	}
	if info.Size() == e.Size && info.Mode().IsRegular() {
		if rf, err = m.rehash(ctx, e); err == nil {
			m.advance(e.Size, e.Path)
			return rf, true, nil
		}
		if !errors.Is(err, ErrDigest) {
			return rf, false, err
		}
	}
	m.c.log.Warn("file on disk differs from the tree, removing it", zap.String("file", e.Path))
	if err := m.root.Remove(e.Path); err != nil {
		return rf, false, fmt.Errorf("remove wrong file: %w", err)
	}
	return rf, false, nil
}

func (m *mirror) rehash(ctx context.Context, e Entry) (RecordFile, error) {
	f, err := m.root.Open(e.Path)
	if err != nil {
		return RecordFile{}, fmt.Errorf("open %s: %w", e.Path, err)
	}
	defer f.Close()
	d := newDigest(e)
	if err := hashPrefix(ctx, f, d, e.Size); err != nil {
		return RecordFile{}, err
	}
	return d.verify(e)
}

// makeParent makes the directories above a file.
func (m *mirror) makeParent(p string) error {
	dir := path.Dir(p)
	if dir == "." {
		return nil
	}
	if err := m.root.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory %s: %w", strings.TrimSuffix(dir, "/"), err)
	}
	return nil
}
