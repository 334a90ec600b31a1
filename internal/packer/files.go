// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"fmt"
	"os"
	"path"

	"sluice/internal/durable"
)

// writeFile writes a small file below a directory of ours, durably.
func writeFile(dir, name string, data []byte) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return durable.WriteFile(root, name, data, 0o644)
}

// replaceFile writes through a dot file and a rename, so that a reader of the share never sees half a file. A share or stick may
// refuse fsync of directories; what is lost there is written again.
func replaceFile(root *os.Root, name string, data []byte) error {
	tmp := path.Join(path.Dir(name), fmt.Sprintf(".%s.%d", path.Base(name), os.Getpid()))
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o664)
	if err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		_ = f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return root.Rename(tmp, name)
}
