// SPDX-License-Identifier: Apache-2.0

package token

import (
	"fmt"
	"io"
	"os"

	"sluice/internal/trust"
	"sluice/pkg/mofn"
)

// Signer is an open key that signs. Close logs out of the token and lets its module go; the signer of a sealed file has nothing to close.
type Signer interface {
	mofn.Signer
	io.Closer
}

// Secret says where the passphrase of a sealed file, or the PIN of a token, comes from: the pin-source of the token's URI, else File, else
// Ask. The bytes are wiped after use, as far as Go allows: the copy that the PKCS#11 library is given is not ours.
type Secret struct {
	File string                              // its first line; "" for none
	Ask  func(prompt string) ([]byte, error) // asks a person; nil where there is none. The caller of Ask owns the bytes
}

// of finds the secret. The caller wipes it.
func (s Secret) of(source, prompt string) ([]byte, error) {
	switch {
	case source != "":
		return trust.ReadPassphrase(source)
	case s.File != "":
		return trust.ReadPassphrase(s.File)
	case s.Ask != nil:
		return s.Ask(prompt)
	}
	return nil, fmt.Errorf("%w: name a file with its passphrase or PIN", ErrSecret)
}

func wipe(b []byte) { clear(b) }

// OpenSigner opens a key that signs statements: a sealed file or the file of a key in a token, told by its type (docs/spec/trust.md section
// 2). The caller closes it. Errors name the file.
func OpenSigner(path string, secret Secret) (Signer, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if !mofn.IsTokenKey(b) {
		return openSealed(path, secret)
	}
	file, err := mofn.ParseTokenKey(b)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", path, err)
	}
	s, err := Open(file, secret)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", path, err)
	}
	return s, nil
}

// sealed is a key in a file, which has nothing to close.
type sealed struct{ *mofn.PrivateKey }

func (sealed) Close() error { return nil }

func openSealed(path string, secret Secret) (Signer, error) {
	pass, err := secret.of("", fmt.Sprintf("Passphrase of key %s: ", path))
	if err != nil {
		return nil, err
	}
	defer wipe(pass)
	key, err := trust.OpenKey(path, pass)
	if err != nil {
		return nil, err
	}
	signer, err := key.SigningKey()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return sealed{signer}, nil
}

// Request asks for a new key in a token.
type Request struct {
	URI     URI // the token, and the module; Object is the label of the new keys
	Suite   mofn.Suite
	Comment string
	Secret  Secret
	// Keep stores the file. When it fails, what was made in the token is destroyed again.
	Keep func(*mofn.TokenKey) error
	// Note is told what a person should know. nil: nobody.
	Note func(string)
}

// Info is a slot with a token, for a person.
type Info struct {
	Slot                               uint
	Label, Manufacturer, Model, Serial string
	State                              []string          // what is odd about it, in words
	Lacks                              map[string]string // suite -> what it lacks, in words; "" for nothing
	URI                                string            // names this token; "" for one that is not initialized
}
