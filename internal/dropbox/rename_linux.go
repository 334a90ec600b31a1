// SPDX-License-Identifier: Apache-2.0

package dropbox

import (
	"errors"
	"os"
	"path"

	"golang.org/x/sys/unix"
)

// renameNew is renameat2(2) with RENAME_NOREPLACE. Both names are in one directory, which os.Root opened.
func renameNew(root *os.Root, tmp, name string, _ []byte) error {
	dir, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	raw, err := dir.SyscallConn()
	if err != nil {
		return err
	}
	var renamed error
	if err := raw.Control(func(fd uintptr) {
		renamed = unix.Renameat2(int(fd), path.Base(tmp), int(fd), path.Base(name), unix.RENAME_NOREPLACE)
	}); err != nil {
		return err
	}
	if errors.Is(renamed, unix.EINVAL) || errors.Is(renamed, unix.ENOSYS) || errors.Is(renamed, unix.EOPNOTSUPP) {
		return errors.Join(errNoWay, renamed)
	}
	return renamed
}
