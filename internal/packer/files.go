// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"os"

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
