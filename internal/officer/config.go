// SPDX-License-Identifier: Apache-2.0

package officer

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sluice/internal/strictyaml"
)

// Config is officer.yaml: what an officer would otherwise give with each verb. Every key may be left out; a flag goes before it.
type Config struct {
	DropBox        strictyaml.FilePath `yaml:"drop_box"`
	Trust          strictyaml.FilePath `yaml:"trust"`           // the officer's own copy of the first trust object
	Fingerprint    string              `yaml:"fingerprint"`     // 64 hexadecimal digits, from the paper record
	Key            strictyaml.FilePath `yaml:"key"`             // the officer's key file
	PassphraseFile strictyaml.FilePath `yaml:"passphrase_file"` // its first line opens the key; without it the terminal asks
	Cache          strictyaml.FilePath `yaml:"cache"`           // what this machine read before
	Pages          strictyaml.FilePath `yaml:"pages"`           // the pages that were signed, by their hash
}

// DefaultPath is where officer.yaml is when none is named: below the user's configuration directory.
func DefaultPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("officer.yaml: %w; name it with --config", err)
	}
	return filepath.Join(dir, "sluice", "officer.yaml"), nil
}

// LoadConfig reads a file; none is the empty configuration. Errors: strictyaml.ErrConfig.
func LoadConfig(path string) (Config, error) {
	var c Config
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	if err := strictyaml.Load(path, b, &c); err != nil {
		return c, err
	}
	if c.Fingerprint != "" && !isFingerprint(c.Fingerprint) {
		return c, fmt.Errorf("%w: %s: fingerprint %q is not 64 hexadecimal digits", strictyaml.ErrConfig, path, c.Fingerprint)
	}
	return c, nil
}

func isFingerprint(s string) bool {
	b, err := hex.DecodeString(s)
	return err == nil && len(b) == 32
}

// Marshal gives the file. Strings of JSON are strings of YAML.
func (c Config) Marshal() ([]byte, error) {
	var b strings.Builder
	b.WriteString("# What bastion-packer officer goes by on this machine. The fingerprint is the one of the paper record.\n")
	for _, line := range [][2]string{
		{"drop_box", string(c.DropBox)},
		{"trust", string(c.Trust)},
		{"fingerprint", c.Fingerprint},
		{"key", string(c.Key)},
		{"passphrase_file", string(c.PassphraseFile)},
		{"cache", string(c.Cache)},
		{"pages", string(c.Pages)},
	} {
		if line[1] == "" {
			continue
		}
		text, err := json.Marshal(line[1])
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%s: %s\n", line[0], text)
	}
	return []byte(b.String()), nil
}

// KeepPage keeps the text of a page that was signed, by its hash, in a directory of the officer's: what an auditor asks for when the
// drop-box has moved on. It gives the file. The same page again is no news.
func KeepPage(dir string, p Page) (string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return "", err
	}
	defer root.Close()
	name := p.Hash().String() + ".txt"
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return filepath.Join(dir, name), nil
	}
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(p.text)
	return filepath.Join(dir, name), errors.Join(err, f.Sync(), f.Close())
}
