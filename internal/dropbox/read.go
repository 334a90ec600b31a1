// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
)

// maxNames is how many names of one directory are looked at: a site has some hundred requests, and a stick may have any number.
const maxNames = 8192

var (
	// ErrAway says that the folder is not there, or went away: a stick that was pulled out, a share that is not mounted.
	ErrAway = errors.New("drop-box: not there; put the stick in again or mount the share, and repeat the command")
	// ErrReadOnly says that the folder takes no file.
	ErrReadOnly = errors.New("drop-box: nothing can be written into it; mount it writable, or slide the stick's switch, and repeat the command")
	// ErrHostile says that something in the folder is not of the kind that belongs there: a link, a pipe, a file beyond its cap.
	ErrHostile = errors.New("drop-box: not a plain file of the size that belongs there")
)

// Open opens the folder. Unlike the bastion, an officer's tool never makes it: a folder that is not there is a stick that is not in.
func (b Box) Open() (*os.Root, error) {
	root, err := os.OpenRoot(b.Dir)
	if err != nil {
		return nil, explain(err)
	}
	return root, nil
}

// explain gives the errors of a stick or share a name and a way out.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	case errors.Is(err, ErrHostile), errors.Is(err, ErrExists), errors.Is(err, ErrAway), errors.Is(err, ErrReadOnly):
		return err
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EIO), errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO),
		errors.Is(err, syscall.ESTALE), errors.Is(err, syscall.ENOTCONN), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EHOSTDOWN):
		return fmt.Errorf("%w: %w", ErrAway, err)
	}
	return fmt.Errorf("drop-box: %w", err)
}

// explainWrite is explain where a file was to be written: no permission is as good as read-only.
func explainWrite(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: %w", ErrReadOnly, err)
	}
	return explain(err)
}

// names lists a directory, sorted, without the dot files that writers leave behind. One that is not there is empty.
func names(root *os.Root, dir string) ([]string, error) {
	looked, err := root.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, explain(err)
	}
	if !looked.IsDir() {
		return nil, fmt.Errorf("%w: %s is no directory", ErrHostile, dir)
	}
	f, err := root.Open(dir)
	if err != nil {
		return nil, explain(err)
	}
	defer f.Close()
	found, err := f.Readdirnames(maxNames + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, explain(err)
	}
	if len(found) > maxNames {
		return nil, fmt.Errorf("%w: more than %d names in %s; move old ones away", ErrHostile, maxNames, dir)
	}
	found = slices.DeleteFunc(found, func(name string) bool { return strings.HasPrefix(name, ".") })
	slices.Sort(found)
	return found, nil
}

// OpenFile opens a regular file, and only the one that it looked at: whoever swaps it in between gains nothing, and a pipe does not hold
// us up. A link at the end of the name is refused; os.Root keeps the others below the folder.
func OpenFile(root *os.Root, name string) (*os.File, error) {
	looked, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !looked.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is no regular file", ErrHostile, name)
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	opened, err := f.Stat()
	if err != nil || !os.SameFile(looked, opened) {
		return nil, errors.Join(fmt.Errorf("%w: %s changed while it was opened", ErrHostile, name), err, f.Close())
	}
	return f, nil
}

// ReadFile reads a regular file of at most limit bytes, once.
func ReadFile(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := OpenFile(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: %s is larger than %d bytes", ErrHostile, name, limit)
	}
	return b, nil
}
