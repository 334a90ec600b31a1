// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"fmt"
	"os"

	"sluice/pkg/mofn"
)

// ReadPassphrase reads a passphrase file: its first line. The caller wipes it after use.
func ReadPassphrase(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("passphrase: %w", err)
	}
	defer clear(b)
	line, _, _ := bytes.Cut(b, []byte("\n"))
	if line = bytes.TrimRight(line, "\r"); len(line) == 0 {
		return nil, fmt.Errorf("passphrase: the first line of %s is empty", path)
	}
	return bytes.Clone(line), nil
}

// OpenKey opens a private key file (docs/spec/trust.md section 2). Errors name the file.
func OpenKey(path string, passphrase []byte) (*mofn.SecretKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if mofn.IsTokenKey(b) {
		return nil, fmt.Errorf("%w: %s is of a key in a token, which this place does not take: only keys of packers and officers may be in one", mofn.ErrKeyFile, path)
	}
	k, err := mofn.OpenSecret(b, passphrase)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", path, err)
	}
	return k, nil
}
