// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"fmt"
	"os"
	"strings"

	"sluice/pkg/mofn"
)

// ReadPassphrase reads a passphrase file: its first line.
func ReadPassphrase(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("passphrase: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if line = strings.TrimRight(line, "\r"); line == "" {
		return nil, fmt.Errorf("passphrase: the first line of %s is empty", path)
	}
	return []byte(line), nil
}

// OpenKey opens a private key file (docs/spec/trust.md section 2). Errors name the file.
func OpenKey(path string, passphrase []byte) (*mofn.SecretKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	k, err := mofn.OpenSecret(b, passphrase)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", path, err)
	}
	return k, nil
}
