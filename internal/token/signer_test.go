// SPDX-License-Identifier: Apache-2.0

package token

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sluice/pkg/mofn"
)

// TestOpenSealed: the one door opens sealed files too, with a passphrase from a file or from a person, which is wiped.
func TestOpenSealed(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, suite mofn.Suite) string {
		k, err := mofn.GenerateSecret(rand.Reader, suite, name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := k.Seal(rand.Reader, []byte("pass"), mofn.ScryptParams{N: 16, R: 8, P: 1})
		if err != nil {
			t.Fatal(err)
		}
		return file(t, dir, name, string(b))
	}
	path := write("a.roy", mofn.SuiteH1)
	pass := []byte("pass")
	for name, secret := range map[string]Secret{
		"file": {File: file(t, dir, "passphrase", "pass\n")},
		"asked": {Ask: func(prompt string) ([]byte, error) {
			if !strings.Contains(prompt, path) {
				t.Errorf("asked %q", prompt)
			}
			return pass, nil
		}},
	} {
		s, err := OpenSigner(path, secret)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if sig, err := s.Sign("packer", nil); err != nil || len(sig) == 0 {
			t.Errorf("%s: %v", name, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if !bytes.Equal(pass, make([]byte, 4)) {
		t.Errorf("the passphrase was not wiped: %q", pass)
	}
	no := errors.New("nobody there")
	for name, c := range map[string]struct {
		path   string
		secret Secret
		want   error
	}{
		"no secret":   {path, Secret{}, ErrSecret},
		"nobody":      {path, Secret{Ask: func(string) ([]byte, error) { return nil, no }}, no},
		"wrong":       {path, Secret{File: file(t, dir, "wrong", "word\n")}, mofn.ErrPassphrase},
		"no file":     {filepath.Join(dir, "absent"), Secret{}, os.ErrNotExist},
		"a link key":  {write("link", mofn.SuiteLink), Secret{File: filepath.Join(dir, "passphrase")}, mofn.ErrKey},
		"token, bad":  {file(t, dir, "bad", `{"type":"sluice-token-key-v1","suite":"H1"}`), Secret{}, mofn.ErrKeyFile},
		"no key file": {file(t, dir, "text", "hello"), Secret{File: filepath.Join(dir, "passphrase")}, mofn.ErrKeyFile},
	} {
		if s, err := OpenSigner(c.path, c.secret); !errors.Is(err, c.want) || s != nil {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// TestErrorsPage: docs/errors.md tells a user what to do about each error of this package.
func TestErrorsPage(t *testing.T) {
	source, err := os.ReadFile("errors.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/errors.md")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`(?m)^\tErr\w+`).FindAllString(string(source), -1)
	if len(names) < 15 {
		t.Fatal(names)
	}
	for _, name := range names {
		if row := "| `token." + strings.TrimSpace(name) + "` |"; !strings.Contains(string(page), row) {
			t.Errorf("docs/errors.md has no %s", row)
		}
	}
}

func file(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
