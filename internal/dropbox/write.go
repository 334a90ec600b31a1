// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
)

// ErrExists says that a file of that name is there already. It is never written over.
var ErrExists = errors.New("drop-box: there already; it is never written over")

// Replace writes through a dot file and a rename, so that a reader of the share never sees half a file: what the bastion writes. A share
// or stick may refuse fsync of directories; what is lost there is written again.
func Replace(root *os.Root, name string, data []byte) error {
	tmp, err := temporary(root, name, data)
	if err != nil {
		return err
	}
	if err := root.Rename(tmp, name); err != nil {
		return errors.Join(explainWrite(err), root.Remove(tmp))
	}
	return nil
}

// create writes a file that must not exist, whole, and reads it back: what an officer's tool writes. data is what must be there then.
func create(root *os.Root, name string, data []byte) error {
	if _, err := root.Lstat(name); err == nil {
		return fmt.Errorf("%w: %s", ErrExists, name)
	}
	if err := root.MkdirAll(path.Dir(name), 0o775); err != nil {
		return explainWrite(err)
	}
	tmp, err := temporary(root, name, data)
	if err != nil {
		return err
	}
	if err := publish(root, tmp, name, data); err != nil {
		return errors.Join(err, removed(root, tmp))
	}
	return readBack(root, name, data)
}

// readBack holds the file against what was written: a stick that lies is found while its officer still stands there.
func readBack(root *os.Root, name string, data []byte) error {
	got, err := ReadFile(root, name, int64(len(data)))
	if err != nil {
		return fmt.Errorf("%s was written and does not read: %w", name, explain(err))
	}
	if !bytes.Equal(got, data) {
		return fmt.Errorf("drop-box: %s was written and reads differently; take another stick, and remove the file", name)
	}
	return nil
}

// temporary writes a dot file beside name, and brings it to the medium.
func temporary(root *os.Root, name string, data []byte) (tmp string, err error) {
	tmp = path.Join(path.Dir(name), "."+path.Base(name)+"."+rand.Text()[:12])
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o664)
	if err != nil {
		return "", explainWrite(err)
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", errors.Join(explainWrite(err), removed(root, tmp))
	}
	return tmp, nil
}

func removed(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return explainWrite(err)
	}
	return nil
}

// errNoWay says that a file system cannot do something in one way.
var errNoWay = errors.New("not on this file system")

// publish gives a dot file its name, and never over another file. What is there to do so differs: renameat2 without replacing (ext4, XFS,
// FAT, exFAT, CIFS), a second name (NFS), and, where there is neither, an exclusive file that a reader may see half for a moment.
func publish(root *os.Root, tmp, name string, data []byte) error {
	for _, way := range []func(*os.Root, string, string, []byte) error{renameNew, linkNew, writeExclusive} {
		err := way(root, tmp, name, data)
		switch {
		case errors.Is(err, errNoWay):
			continue
		case errors.Is(err, fs.ErrExist):
			return fmt.Errorf("%w: %s", ErrExists, name)
		}
		return explainWrite(err)
	}
	return fmt.Errorf("drop-box: %s: %w", name, errNoWay)
}

func linkNew(root *os.Root, tmp, name string, _ []byte) error {
	if err := root.Link(tmp, name); err != nil {
		if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return errors.Join(errNoWay, err)
	}
	return removed(root, tmp)
}

func writeExclusive(root *os.Root, tmp, name string, data []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o664)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, removed(root, name)) // half of our own file
	}
	return removed(root, tmp)
}
