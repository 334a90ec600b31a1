// SPDX-License-Identifier: Apache-2.0

package mofn

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"

	"sluice/pkg/mofn/internal/composite"
)

// contextPrefix and the role are the context of a composite signature (trust.md section 1).
const contextPrefix = "sluice/v1/"

// The roles that are not groups of the policy (trust.md section 1).
const (
	RolePacker = "packer" // release statements
	RoleRoot   = "root"   // trust objects
)

// algorithm is what a suite is made of. Only H1 and H2 sign statements; ErrKey for all others.
func (s Suite) algorithm() (*composite.Algorithm, error) {
	switch s {
	case SuiteH1:
		return composite.MLDSA65Ed25519(), nil
	case SuiteH2:
		return composite.MLDSA87P384(), nil
	default:
		return nil, fmt.Errorf("%w: suite %q does not sign statements, only H1 and H2 do", ErrKey, shorten(string(s)))
	}
}

// Signs reports whether keys of the suite sign statements: release statements, approvals and trust objects.
func (s Suite) Signs() bool { return s == SuiteH1 || s == SuiteH2 }

// PublicKey is a key of a suite that signs. It never changes; both halves are always used together.
type PublicKey struct {
	suite Suite
	raw   []byte
	key   *composite.PublicKey
}

// ParsePublicKey reads the 1984 bytes of an H1 or the 2689 of an H2 public key and copies them. It refuses (ErrKey) any other suite
// or length, and keys under which somebody without the private key can sign: low-order and non-canonical Ed25519 points, what
// is not a point of P-384, and an ML-DSA key whose vector t1 is zero.
func ParsePublicKey(suite Suite, b []byte) (*PublicKey, error) {
	algorithm, err := suite.algorithm()
	if err != nil {
		return nil, err
	}
	raw := bytes.Clone(b)
	key, err := algorithm.ParsePublic(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKey, suite, err)
	}
	return &PublicKey{suite: suite, raw: raw, key: key}, nil
}

// Suite is the suite of the key, H1 or H2.
func (k *PublicKey) Suite() Suite { return k.suite }

// Bytes gives a copy of the key, the ML-DSA half first (trust.md section 1).
func (k *PublicKey) Bytes() []byte { return bytes.Clone(k.raw) }

// ID is the key id (trust.md section 1).
func (k *PublicKey) ID() KeyID { return NewKeyID(k.suite, k.raw) }

// HalfIDs are the half ids of the ML-DSA and of the classical half, in this order. No two enrolled keys may share one.
func (k *PublicKey) HalfIDs() (ids [2]KeyID) {
	for i, half := range k.key.Halves() {
		ids[i] = halfID(half.Algorithm, half.Public)
	}
	return ids
}

// Classical is a copy of the classical half, the 32 bytes of an Ed25519 key for H1 and the 97 of a point of P-384 for H2.
func (k *PublicKey) Classical() []byte { return bytes.Clone(k.key.Halves()[1].Public) }

// Verify checks sig over message in role: both halves, each over all of the message, bound to the role. It returns nil or an
// error that is ErrSignature (ErrRole when role is not a name). Signature bytes are no identifier: other bytes may verify too.
func (k *PublicKey) Verify(role string, message, sig []byte) error {
	if !validName(role) {
		return fmt.Errorf("%w: %q", ErrRole, shorten(role))
	}
	if shortest, longest := k.key.SignatureSizes(); len(sig) < shortest || len(sig) > longest {
		return fmt.Errorf("%w: %d bytes, a signature of suite %s has %s", ErrSignature, len(sig), k.suite, span(shortest, longest))
	}
	if !k.key.Verify([]byte(contextPrefix+role), message, sig) {
		return fmt.Errorf("%w: key %v", ErrSignature, k.ID())
	}
	return nil
}

func span(low, high int) string {
	if low == high {
		return fmt.Sprint(low)
	}
	return fmt.Sprintf("%d to %d", low, high)
}

// PrivateKey is a key that can sign. What of it is in memory is there in the clear; at rest it is a SecretKey, sealed.
type PrivateKey struct {
	key *composite.PrivateKey
	pub *PublicKey
}

// GenerateKey makes a key of suite H1 or H2 out of random bytes (nil means crypto/rand): 64 for H1 and 80 for H2.
func GenerateKey(suite Suite, random io.Reader) (*PrivateKey, error) {
	s, err := GenerateSecret(random, suite, "")
	if err != nil {
		return nil, err
	}
	return s.SigningKey()
}

// newPrivateKey expands a secret of trust.md section 2.
func newPrivateKey(suite Suite, secret []byte) (*PrivateKey, error) {
	algorithm, err := suite.algorithm()
	if err != nil {
		return nil, err
	}
	key, err := algorithm.ParseSecret(secret)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKey, suite, err)
	}
	return withPublic(suite, key)
}

func withPublic(suite Suite, key *composite.PrivateKey) (*PrivateKey, error) {
	pub, err := ParsePublicKey(suite, key.Public())
	if err != nil {
		return nil, err
	}
	return &PrivateKey{key: key, pub: pub}, nil
}

// ClassicalHalf is the classical half of a key that signs elsewhere: a token (PKCS#11) that never lets its key out.
type ClassicalHalf interface {
	// Public gives the public key as it stands in the composite one (trust.md section 1): the 32 bytes of Ed25519 for H1, the 97 of
	// an uncompressed point of P-384 for H2.
	Public() []byte
	// Sign signs a message of some 200 bytes, all of it: with Ed25519 (RFC 8032, 64 bytes) for H1, with ECDSA over its SHA-384
	// (an Ecdsa-Sig-Value in DER, RFC 3279 section 2.2.3) for H2. A wrong signature is found before it is released.
	Sign(message []byte) ([]byte, error)
}

// NewPrivateKey joins an ML-DSA seed of 32 bytes and a classical half that signs elsewhere to a key of suite H1 or H2. ErrKey when
// they do not make one.
func NewPrivateKey(suite Suite, seed []byte, half ClassicalHalf) (*PrivateKey, error) {
	algorithm, err := suite.algorithm()
	if err != nil {
		return nil, err
	}
	key, err := algorithm.Join(seed, half)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrKey, suite, err)
	}
	return withPublic(suite, key)
}

// Public gives the public key.
func (k *PrivateKey) Public() *PublicKey { return k.pub }

// Sign signs message in role: 3373 bytes for H1, 4635 to 4731 for H2. Signing is hedged (FIPS 204 section 3.4): the libraries draw
// the hedge from crypto/rand themselves. The signature was verified before it is returned: a fault while signing (a flipped
// bit) would otherwise give the key away.
func (k *PrivateKey) Sign(role string, message []byte) ([]byte, error) {
	if !validName(role) {
		return nil, fmt.Errorf("%w: %q", ErrRole, shorten(role))
	}
	sig, err := k.key.Sign([]byte(contextPrefix+role), message)
	if err != nil {
		return nil, fmt.Errorf("mofn: sign with key %v: %w", k.pub.ID(), err)
	}
	if err := k.pub.Verify(role, message, sig); err != nil {
		return nil, fmt.Errorf("check of the new signature (do not use this machine or token to sign until it was tested): %w", err)
	}
	return sig, nil
}

// KeyID is the id of the public key.
func (k *PrivateKey) KeyID() KeyID { return k.pub.ID() }

// Signer makes signatures in a role. A *PrivateKey is one.
type Signer interface {
	// KeyID is the id of the key that signs.
	KeyID() KeyID
	// Sign gives a signature of the suite of the key that was verified already.
	Sign(role string, message []byte) ([]byte, error)
}

func randomOr(random io.Reader) io.Reader {
	if random == nil {
		return rand.Reader
	}
	return random
}
