// SPDX-License-Identifier: Apache-2.0

package mofn

import (
	"bytes"
	"fmt"
	"strings"
)

// The form of trust.md section 2, "Keys in a token".
const (
	tokenFileType = "sluice-token-key-v1"
	wrapName      = "AES-256-GCM"

	// SeedSize is the size of an ML-DSA seed in bytes, for every parameter set.
	SeedSize = 32
	// maxTokenURI is enough for every attribute of RFC 7512 at the longest that PKCS#11 has.
	maxTokenURI = 1024
	gcmTagSize  = 16
)

// TokenKey is a key whose classical half and whose wrapping key are in a PKCS#11 token (trust.md section 2). It holds no secret that
// is of use without that token. The fields belong to the caller.
type TokenKey struct {
	Suite   Suite  // H1 or H2
	Public  []byte // the composite public key
	Token   string // RFC 7512 URI: where the token's objects are. Not protected; not parsed here
	Nonce   []byte // 12 bytes
	Wrapped []byte // the ML-DSA seed under the token's AES key, 48 bytes
	Comment string // whose key it is; not protected
}

type tokenFile struct {
	Type    string `json:"type"`
	Suite   Suite  `json:"suite"`
	ID      KeyID  `json:"id"`
	Public  []byte `json:"public"`
	Token   string `json:"token"`
	Wrap    string `json:"wrap"`
	Nonce   []byte `json:"nonce"`
	Wrapped []byte `json:"wrapped"`
	Comment string `json:"comment"`
}

// ID is the key id (trust.md section 1).
func (k *TokenKey) ID() KeyID { return NewKeyID(k.Suite, k.Public) }

// AdditionalData binds suite and key id to the wrapped seed, so that a seed cannot be passed off as another key's.
func (k *TokenKey) AdditionalData() []byte {
	return []byte(tokenFileType + "\x00" + string(k.Suite) + "\x00" + k.ID().String())
}

// PublicKey gives the composite public key, checked.
func (k *TokenKey) PublicKey() (*PublicKey, error) { return ParsePublicKey(k.Suite, k.Public) }

// Marshal gives the contents of the token key file: one line of JSON and a newline.
func (k *TokenKey) Marshal() ([]byte, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	line, err := encodeCanonical(tokenFile{
		Type: tokenFileType, Suite: k.Suite, ID: k.ID(), Public: k.Public, Token: k.Token,
		Wrap: wrapName, Nonce: k.Nonce, Wrapped: k.Wrapped, Comment: k.Comment,
	})
	return append(line, '\n'), err
}

// MarshalPublic gives the contents of the .pub file.
func (k *TokenKey) MarshalPublic() ([]byte, error) {
	if err := k.check(); err != nil {
		return nil, err
	}
	line, err := encodeCanonical(publicFile{Type: publicFileType, Suite: k.Suite, ID: k.ID(), Public: k.Public, Comment: k.Comment})
	return append(line, '\n'), err
}

// IsTokenKey tells a token key file from the other key files by its first words: the form is canonical, so they are these.
func IsTokenKey(file []byte) bool {
	return bytes.HasPrefix(file, []byte(`{"type":"`+tokenFileType+`",`))
}

// ParseTokenKey reads a token key file. Errors are ErrKeyFile, and ErrKey too when the public key is at fault.
func ParseTokenKey(b []byte) (*TokenKey, error) {
	var f tokenFile
	if err := decodeFile(b, tokenFileType, &f, &f.Type); err != nil {
		return nil, err
	}
	if f.Wrap != wrapName {
		return nil, fmt.Errorf("%w: wrap is %q, not %s", ErrKeyFile, shorten(f.Wrap), wrapName)
	}
	k := &TokenKey{Suite: f.Suite, Public: f.Public, Token: f.Token, Nonce: f.Nonce, Wrapped: f.Wrapped, Comment: f.Comment}
	if err := k.check(); err != nil {
		return nil, err
	}
	if k.ID() != f.ID {
		return nil, fmt.Errorf("%w: key id is %v, the file says %v", ErrKeyFile, k.ID(), f.ID)
	}
	return k, nil
}

// check looks at everything that can be looked at without the token.
func (k *TokenKey) check() error {
	if _, err := k.PublicKey(); err != nil {
		return fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	const sealed = SeedSize + gcmTagSize
	switch {
	case len(k.Nonce) != nonceSize:
		return fmt.Errorf("%w: nonce of %d bytes, not %d", ErrKeyFile, len(k.Nonce), nonceSize)
	case len(k.Wrapped) != sealed:
		return fmt.Errorf("%w: wrapped seed of %d bytes, not %d", ErrKeyFile, len(k.Wrapped), sealed)
	case len(k.Token) > maxTokenURI || !strings.HasPrefix(k.Token, "pkcs11:") || strings.ContainsFunc(k.Token, notPrintable):
		return fmt.Errorf("%w: token is not a pkcs11: URI of at most %d printable ASCII characters", ErrKeyFile, maxTokenURI)
	}
	if err := checkText(k.Comment, "", maxComment); err != nil {
		return fmt.Errorf("%w: comment: %w", ErrKeyFile, err)
	}
	return nil
}

func notPrintable(r rune) bool { return r <= ' ' || r > '~' }
