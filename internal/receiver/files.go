// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"sluice/internal/durable"
	"sluice/pkg/registry"
)

// maxSmallFile bounds the small JSON files that this package keeps for itself.
const maxSmallFile = 1 << 20

func readJSON(root *os.Root, name string, into any) error {
	f, err := root.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSmallFile))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func writeJSON(root *os.Root, name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return durable.WriteFile(root, name, append(b, '\n'), 0o600)
}

// memoryBlob is a small document as the registry takes it.
func memoryBlob(name string, data []byte) registry.Blob {
	return registry.Blob{
		Name: name, Size: int64(len(data)), SHA256: sha256.Sum256(data),
		Open: func() (io.ReadSeekCloser, error) { return nopCloser{bytes.NewReader(data)}, nil },
	}
}

type nopCloser struct{ io.ReadSeeker }

func (nopCloser) Close() error { return nil }

// fileBlob is a file of the spool as the registry takes it, hashed here.
func fileBlob(root *os.Root, name string) (registry.Blob, error) {
	f, err := root.Open(name)
	if err != nil {
		return registry.Blob{}, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return registry.Blob{}, err
	}
	return registry.Blob{
		Name: name, Size: n, SHA256: [32]byte(h.Sum(nil)),
		Open: func() (io.ReadSeekCloser, error) { return root.Open(name) },
	}, nil
}
