// SPDX-License-Identifier: Apache-2.0

package oms

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
)

// The PEM blocks of section 3.
const (
	privateBlock = "PRIVATE KEY"
	publicBlock  = "PUBLIC KEY"
)

// PublicKey is an ECDSA P-384 key that model signatures are verified with.
type PublicKey struct {
	key *ecdsa.PublicKey
	pem []byte
}

// Key is one that signs models.
type Key struct {
	private *ecdsa.PrivateKey
	public  *PublicKey
}

// GenerateKey makes a key pair in the forms of section 3.
func GenerateKey() (private, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	pub, err := newPublicKey(&key.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: privateBlock, Bytes: der}), pub.PEM(), nil
}

// ParseKey reads a private key. ErrKey says what it is instead.
func ParseKey(text []byte) (*Key, error) {
	der, err := only(privateBlock, text)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: a key of type %T, not ECDSA", ErrKey, parsed)
	}
	public, err := newPublicKey(&key.PublicKey)
	return &Key{key, public}, err
}

// ParsePublicKey reads a public key. ErrKey says what it is instead.
func ParsePublicKey(text []byte) (*PublicKey, error) {
	der, err := only(publicBlock, text)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	key, ok := parsed.(*ecdsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("%w: a key of type %T, not ECDSA", ErrKey, parsed)
	}
	return newPublicKey(key)
}

// only takes the one PEM block of a file.
func only(kind string, text []byte) ([]byte, error) {
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, fmt.Errorf("%w: no PEM text", ErrKey)
	case block.Type == "ENCRYPTED PRIVATE KEY" || len(block.Headers) > 0:
		return nil, fmt.Errorf("%w: it is encrypted; a daemon has nobody to ask for its passphrase: openssl pkcs8 -in KEY -out PLAIN, mode 0600", ErrKey)
	case block.Type == "EC PRIVATE KEY" || block.Type == "EC PARAMETERS":
		return nil, fmt.Errorf("%w: PEM block %s is not PKCS #8; convert it: openssl pkcs8 -topk8 -nocrypt -in KEY -out PKCS8", ErrKey, block.Type)
	case block.Type != kind:
		return nil, fmt.Errorf("%w: PEM block %q, not %s", ErrKey, block.Type, kind)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, fmt.Errorf("%w: more than one %s in the file", ErrKey, kind)
	}
	return block.Bytes, nil
}

func newPublicKey(key *ecdsa.PublicKey) (*PublicKey, error) {
	if key.Curve != elliptic.P384() {
		return nil, fmt.Errorf("%w: curve %s, not P-384", ErrKey, key.Curve.Params().Name)
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKey, err)
	}
	return &PublicKey{key, pem.EncodeToMemory(&pem.Block{Type: publicBlock, Bytes: der})}, nil
}

// Public is the public half.
func (k *Key) Public() *PublicKey { return k.public }

// PEM gives a copy of the public file (section 3).
func (p *PublicKey) PEM() []byte { return bytes.Clone(p.pem) }

// Hint is the name of the key in a bundle: SHA-256 of its PEM text, 64 hex digits.
func (p *PublicKey) Hint() string {
	sum := sha256.Sum256(p.pem)
	return hex.EncodeToString(sum[:])
}

// Sign makes the bundle of a statement that Statement gave. The nonce follows from key and statement (RFC 6979), so the same statement has
// one bundle. The signature was verified before it is returned: a fault while signing (a flipped bit) would otherwise give the key away.
func (k *Key) Sign(statement []byte) ([]byte, error) {
	digest := sha512.Sum384(pae(statement))
	sig, err := k.private.Sign(nil, digest[:], crypto.SHA384)
	if err != nil {
		return nil, fmt.Errorf("oms: sign: %w", err)
	}
	b := Bundle{k.public.Hint(), statement, sig}
	if err := b.Verify(k.public); err != nil {
		return nil, fmt.Errorf("check of the new signature (do not use this machine to sign until it was tested): %w", err)
	}
	return encode(bundle{
		MediaType: mediaType, Material: material{publicKey{b.Hint}, []struct{}{}},
		Envelope: dsse{Payload: statement, PayloadType: payloadType, Signatures: []signature{{Sig: sig}}},
	})
}

// Verify checks hint and signature; ErrSignature.
func (b *Bundle) Verify(key *PublicKey) error {
	if b.Hint != key.Hint() {
		return fmt.Errorf("%w: it names the key %s, the given one is %s", ErrSignature, b.Hint, key.Hint())
	}
	digest := sha512.Sum384(pae(b.Statement))
	if !ecdsa.VerifyASN1(key.key, digest[:], b.signature) {
		return fmt.Errorf("%w: key %s", ErrSignature, b.Hint)
	}
	return nil
}
