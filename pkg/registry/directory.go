// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Directory is the registry in a directory. Every name below it is opened
// through an os.Root, so no key and no link can lead outside.
//
// A file of the spool is cloned (reflink) where the file system can; else, when
// it belongs to this process's user, lies on the same file system and
// Options.NoLink is off, it is hard-linked; else it is copied. A hard link
// shares the inode with the spool: its mode becomes 0444 there too, nobody may
// hold it open for writing, and the receiver removes the spool's name later.
// Either way the bytes are read back from the published name before COMMIT.
type Directory struct {
	*engine
}

var _ Publisher = (*Directory)(nil)

// NewDirectory opens the registry in the directory path, which it creates if
// its parent exists. Several processes may have it open.
func NewDirectory(path string, opt Options) (*Directory, error) {
	if err := os.Mkdir(path, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("create registry: %w", err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open registry: %w", err)
	}
	if err := root.Mkdir(stagingDir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		root.Close()
		return nil, fmt.Errorf("create staging of registry %s: %w", path, err)
	}
	return &Directory{newEngine(&dirStore{root: root, link: !opt.NoLink}, opt)}, nil
}

const (
	stagingDir  = ".staging"
	hiddenDir   = ".withdrawn"
	channelLock = stagingDir + "/channels.lock"
	channelTemp = stagingDir + "/channels.tmp"
	lockSuffix  = ".lock"
	tempSuffix  = ".tmp"

	dirMode  = 0o755
	fileMode = 0o444 // published files are never written again
	hideMode = 0o700 // what was revoked is not for consumers

	maxHidden = 100 // how often the files of one revoked release are taken away again
)

// dirStore is the store over a directory.
type dirStore struct {
	root   *os.Root
	link   bool
	count  atomic.Int64 // names within a staging directory
	failed atomic.Bool  // an fsync failed, see sync
}

func (d *dirStore) check(string) error { return nil }

func (d *dirStore) close() error { return d.root.Close() }

// begin takes the lock of release id and empties its staging directory, which
// only a crashed process can have left. The staging directory goes at the end.
func (d *dirStore) begin(ctx context.Context, id string) (func() error, error) {
	if d.failed.Load() {
		return nil, ErrStopped
	}
	stage := stagingDir + "/" + id
	unlock, err := lockFile(ctx, d.root, stage+lockSuffix)
	if err != nil {
		return nil, err
	}
	end := func() error { return errors.Join(d.root.RemoveAll(stage), unlock()) }
	if err := d.root.RemoveAll(stage); err != nil {
		return nil, errors.Join(dirError("clear staging", err), unlock())
	}
	if err := d.root.Mkdir(stage, 0o700); err != nil {
		return nil, errors.Join(dirError("create staging", err), unlock())
	}
	return end, nil
}

// put stages the bytes, makes them durable, reads them back from the medium,
// and only then links them to their key, which fails if the key exists. A link
// is the same inode, so what was read back is what is published.
func (d *dirStore) put(ctx context.Context, key string, b body) (written, error) {
	if _, err := d.root.Lstat(key); err == nil {
		return written{}, errExists
	}
	staged := path.Join(stagingDir, b.stage, strconv.FormatInt(d.count.Add(1), 10))
	if err := d.fill(ctx, staged, b); err != nil {
		return written{}, dirError("stage "+key, err)
	}
	if err := d.root.MkdirAll(path.Dir(key), dirMode); err != nil {
		return written{}, dirError("create directory of "+key, err)
	}
	err := d.root.Link(staged, key)
	if errors.Is(err, fs.ErrExist) {
		err = errExists
	}
	if err := errors.Join(err, d.root.Remove(staged)); err != nil {
		return written{}, dirError("publish "+key, err)
	}
	if b.final {
		err = d.settle(ctx, path.Dir(key))
	}
	return written{readBack: true}, err
}

// fill makes the staged file: complete, read-only, on stable storage, checked.
// On an error nothing is left.
func (d *dirStore) fill(ctx context.Context, staged string, b body) error {
	if err := d.stage(ctx, staged, b); err != nil {
		return errors.Join(err, ignoreNotExist(d.root.Remove(staged)))
	}
	if err := d.seal(ctx, staged, b); err != nil {
		return errors.Join(err, d.root.Remove(staged))
	}
	return nil
}

// stage links or copies the body to its staged name.
func (d *dirStore) stage(ctx context.Context, staged string, b body) error {
	src, err := b.open()
	if err != nil {
		return err
	}
	defer src.Close()
	var linked error
	if file, ok := src.(*os.File); ok && b.link && d.link {
		if linked = d.linkFile(file, staged); linked == nil {
			b.add(b.size)
			return nil
		}
	}
	err = d.copyFile(ctx, src, staged, b)
	if errors.Is(err, fs.ErrExist) { // what the link left, and could not take back: that error is the cause
		return errors.Join(err, linked)
	}
	return err
}

// seal makes a staged file durable and hashes what the medium then holds.
func (d *dirStore) seal(ctx context.Context, staged string, b body) error {
	f, err := d.root.Open(staged)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := d.sync(f); err != nil {
		return err
	}
	dropCache(f)
	sum, n, err := hashAll(ctx, f, b.size, b.add)
	if err == nil && (n != b.size || sum != b.sha256) {
		err = corruptf("staged %d bytes, SHA-256 %x; want %d bytes, %x", n, sum, b.size, b.sha256)
	}
	return err
}

// dropCache makes the next read come from the medium. Best effort: where it is
// not supported, as on tmpfs, there is nothing else to read from.
func dropCache(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }

// sync is fsync. After a failure the kernel may have dropped the dirty pages
// and call them clean, so a second fsync that succeeds proves nothing: the
// store stops for good.
func (d *dirStore) sync(f *os.File) error {
	err := f.Sync()
	if err != nil {
		d.failed.Store(true)
		return fmt.Errorf("%w: fsync: %w", ErrStopped, err)
	}
	return nil
}

// get opens a regular file. With fresh the page cache is told to forget it
// first, so that what is read comes from the medium.
func (d *dirStore) get(_ context.Context, key string, fresh bool) (io.ReadSeekCloser, object, error) {
	o, err := d.describe(key)
	if err != nil {
		return nil, object{}, err
	}
	if o.odd != "" {
		return nil, object{}, fmt.Errorf("open %s: %w", key, corruptf("it is %s", o.odd))
	}
	f, err := d.root.OpenFile(key, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, object{}, lookError("open", err)
	}
	info, err := f.Stat() // of what was opened: a channel may have been replaced since it was looked at
	if err == nil {
		o = describe(key, info)
	}
	if fresh {
		dropCache(f)
	}
	if err == nil && mutable(key) {
		o.tag, err = hashTag(f)
	}
	if err != nil {
		f.Close()
		return nil, object{}, dirError("read", err)
	}
	return f, o, nil
}

// hashTag is what swap compares: the digest of the object's bytes.
func hashTag(f *os.File) (string, error) {
	data, err := io.ReadAll(io.LimitReader(f, maxSmallJSON))
	if err != nil {
		return "", err
	}
	_, err = f.Seek(0, io.SeekStart)
	return hexID(sha256.Sum256(data)), err
}

func (d *dirStore) stat(_ context.Context, key string) (object, error) { return d.describe(key) }

// describe looks at the name itself, not at what a link points to.
func (d *dirStore) describe(key string) (object, error) {
	info, err := d.root.Lstat(key)
	if err != nil {
		return object{}, lookError("stat", err)
	}
	return describe(key, info), nil
}

func describe(key string, info fs.FileInfo) object {
	o := object{key: key, size: info.Size()}
	switch mode := info.Mode(); {
	case mode.IsDir():
		o.odd = oddDirectory
	case !mode.IsRegular():
		o.odd = "no regular file (" + mode.Type().String() + ")"
	}
	return o
}

func (d *dirStore) list(ctx context.Context, prefix string, each func(object) error) error {
	prefix = strings.TrimSuffix(prefix, "/")
	info, err := d.root.Lstat(prefix)
	if err != nil {
		return dirError("list", ignoreAbsent(err))
	}
	if !info.IsDir() {
		return nil // nothing is below it; it is its parent's finding
	}
	err = fs.WalkDir(d.root.FS(), prefix, func(key string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return errors.Join(err, ctx.Err())
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		return each(describe(key, info))
	})
	return dirError("list "+prefix, err)
}

// ignoreAbsent drops the errors that say that nothing can be below a name.
func ignoreAbsent(err error) error {
	if errors.Is(err, syscall.ENOTDIR) {
		return nil
	}
	return ignoreNotExist(err)
}

func (d *dirStore) children(_ context.Context, prefix string) ([]string, error) {
	entries, err := fs.ReadDir(d.root.FS(), strings.TrimSuffix(prefix, "/"))
	if err = ignoreAbsent(err); err != nil {
		return nil, dirError("list "+prefix, err)
	}
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.Name()
	}
	return names, nil
}

// swap replaces a channel, or a record of a withdrawal, under the lock of all of them.
func (d *dirStore) swap(ctx context.Context, key, tag string, data []byte) error {
	unlock, err := lockFile(ctx, d.root, channelLock)
	if err != nil {
		return err
	}
	return errors.Join(d.replace(ctx, key, tag, data), unlock())
}

func (d *dirStore) replace(ctx context.Context, key, tag string, data []byte) error {
	now := ""
	f, o, err := d.get(ctx, key, false)
	if err == nil {
		now = o.tag
		err = f.Close()
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	if now != tag {
		return errExists
	}
	if err := d.root.RemoveAll(channelTemp); err != nil {
		return dirError("write "+key, err)
	}
	if err := d.fill(ctx, channelTemp, bytesBody(data, "", false)); err != nil {
		return dirError("write "+key, err)
	}
	if err := d.root.MkdirAll(path.Dir(key), dirMode); err != nil {
		return dirError("create directory of "+key, err)
	}
	if err := d.root.Rename(channelTemp, key); err != nil {
		return dirError("replace", err)
	}
	return d.settle(ctx, path.Dir(key))
}

// hide renames the directory prefix into hiddenDir. It fsyncs also when there is
// nothing to rename: a call before may have crashed between the two.
func (d *dirStore) hide(_ context.Context, prefix string) error {
	prefix = strings.TrimSuffix(prefix, "/")
	place := path.Join(hiddenDir, strings.TrimPrefix(path.Dir(prefix), releasesPrefix))
	for _, dir := range []string{hiddenDir, place} {
		if err := d.root.Mkdir(dir, hideMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return dirError("create "+dir, err)
		}
	}
	if err := d.moveAway(prefix, path.Join(place, path.Base(prefix))); err != nil {
		return dirError("take "+prefix+" away", err)
	}
	for _, dir := range []string{place, hiddenDir, ".", path.Dir(prefix)} {
		if err := ignoreNotExist(d.syncDir(dir)); err != nil {
			return dirError("make durable", err)
		}
	}
	return nil
}

// moveAway gives from the name to, or the first of to.1, to.2, ... that is free:
// somebody may have put the files of a revoked release back.
func (d *dirStore) moveAway(from, to string) error {
	free := to
	for n := 1; ; n++ {
		if _, err := d.root.Lstat(from); err != nil {
			return ignoreAbsent(err) // as a rule a call before has moved it
		}
		_, err := d.root.Lstat(free)
		if errors.Is(err, fs.ErrNotExist) {
			return ignoreNotExist(d.root.Rename(from, free))
		}
		if err != nil || n == maxHidden {
			return errors.Join(err, fmt.Errorf("%w: %s and %d more are there already", ErrConflict, to, n-1))
		}
		free = fmt.Sprintf("%s.%d", to, n)
	}
}

// settle fsyncs every directory below and above prefix: a name that was not
// fsynced with its directory is gone after a power cut. What a crashed run
// linked is covered too, since the whole tree is walked.
func (d *dirStore) settle(ctx context.Context, prefix string) error {
	prefix = strings.TrimSuffix(prefix, "/")
	err := fs.WalkDir(d.root.FS(), prefix, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return errors.Join(err, ctx.Err())
		}
		return d.syncDir(name)
	})
	if err != nil {
		return dirError("make durable", err)
	}
	for dir := prefix; dir != "."; {
		dir = path.Dir(dir)
		if err := d.syncDir(dir); err != nil {
			return dirError("make durable", err)
		}
	}
	return nil
}

func (d *dirStore) syncDir(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.sync(f), f.Close())
}

// leftovers lists what lies in the staging area of releases nobody works on.
func (d *dirStore) leftovers(ctx context.Context) ([]string, error) {
	var found []string
	err := d.idle(ctx, func(id string) error {
		found = append(found, stagingDir+"/"+id)
		return nil
	})
	return found, err
}

// clean removes those.
func (d *dirStore) clean(ctx context.Context) error {
	return d.idle(ctx, func(id string) error {
		stage := stagingDir + "/" + id
		return errors.Join(d.root.RemoveAll(stage), d.root.RemoveAll(stage+tempSuffix))
	})
}

// idle calls each, under its lock, for every name in the staging area whose
// lock is free: release ids, and "channels".
func (d *dirStore) idle(ctx context.Context, each func(id string) error) error {
	entries, err := fs.ReadDir(d.root.FS(), stagingDir)
	if err != nil {
		return dirError("list staging", err)
	}
	ids := make(map[string]bool)
	for _, entry := range entries {
		id := strings.TrimSuffix(strings.TrimSuffix(entry.Name(), lockSuffix), tempSuffix)
		ids[id] = true
	}
	for _, id := range slices.Sorted(maps.Keys(ids)) {
		unlock, err := tryLock(d.root, stagingDir+"/"+id+lockSuffix)
		if errors.Is(err, errLocked) {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(each(id), unlock(), ctx.Err()); err != nil {
			return dirError("staging", err)
		}
	}
	return nil
}

// dirError adds the place and the sentinel that fits; nil stays nil.
func dirError(what string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errExists):
		return errExists
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %s: %w", ErrNoSpace, what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// lookError is dirError where the absence of the name is an answer.
func lookError(what string, err error) error {
	if ignoreAbsent(err) == nil {
		return fmt.Errorf("%w: %s: %w", ErrNotFound, what, err)
	}
	return dirError(what, err)
}
