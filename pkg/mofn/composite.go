// SPDX-License-Identifier: Apache-2.0

package mofn

import (
	"bytes"
	"crypto/rand"
	"crypto/sha512"
	"fmt"
	"io"

	"github.com/cloudflare/circl/sign/ed25519"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
)

// The construction of draft-ietf-lamps-pq-composite-sigs-19, id-MLDSA65-Ed25519-SHA512, frozen as suite H1.
const (
	compositePrefix = "CompositeAlgorithmSignatures2025"
	compositeLabel  = "COMPSIG-MLDSA65-Ed25519-SHA512"
	contextPrefix   = "sluice/v1/"

	// PublicKeySize, SecretSize and SignatureSize are those of suite H1, in bytes.
	PublicKeySize = mldsa65.PublicKeySize + ed25519.PublicKeySize
	SecretSize    = mldsa65.SeedSize + ed25519.SeedSize
	SignatureSize = mldsa65.SignatureSize + ed25519.SignatureSize

	// rhoSize is the length of the matrix seed at the head of an ML-DSA public key; the vector t1 follows.
	rhoSize = 32
)

// The roles that are not groups of the policy (trust.md section 1).
const (
	RolePacker = "packer" // release statements
	RoleRoot   = "root"   // trust objects
)

// PublicKey is a key of suite H1. It never changes; both halves are always used together.
type PublicKey struct {
	raw []byte
	ml  mldsa65.PublicKey
	ed  ed25519.PublicKey
}

// ParsePublicKey reads the 1984 bytes of an H1 public key and copies them. It refuses (ErrKey) any other suite or length,
// and keys under which somebody without the private key can sign: low-order and non-canonical Ed25519 points, and an ML-DSA
// key whose vector t1 is zero.
func ParsePublicKey(suite Suite, b []byte) (*PublicKey, error) {
	if suite != SuiteH1 {
		return nil, fmt.Errorf("%w: suite %q does not sign statements, only H1 does", ErrKey, shorten(string(suite)))
	}
	if len(b) != PublicKeySize {
		return nil, fmt.Errorf("%w: H1 public key has %d bytes, not %d", ErrKey, len(b), PublicKeySize)
	}
	k := &PublicKey{raw: bytes.Clone(b)}
	ml, ed := k.raw[:mldsa65.PublicKeySize], k.raw[mldsa65.PublicKeySize:]
	if err := checkPoint(ed); err != nil {
		return nil, err
	}
	if len(bytes.Trim(ml[rhoSize:], "\x00")) == 0 {
		return nil, fmt.Errorf("%w: ML-DSA-65 key is zero, anybody can sign under it", ErrKey)
	}
	if err := k.ml.UnmarshalBinary(ml); err != nil {
		return nil, fmt.Errorf("%w: ML-DSA-65 half: %w", ErrKey, err)
	}
	k.ed = ed25519.PublicKey(ed)
	return k, nil
}

// Bytes gives a copy of the 1984 bytes: ML-DSA-65 first, then Ed25519.
func (k *PublicKey) Bytes() []byte { return bytes.Clone(k.raw) }

// ID is the key id (trust.md section 1).
func (k *PublicKey) ID() KeyID { return NewKeyID(SuiteH1, k.raw) }

// HalfIDs are the half ids of the ML-DSA-65 and of the Ed25519 half, in this order. No two enrolled keys may share one.
func (k *PublicKey) HalfIDs() [2]KeyID {
	return [2]KeyID{halfID("ML-DSA-65", k.raw[:mldsa65.PublicKeySize]), halfID("Ed25519", k.ed)}
}

// Verify checks sig over message in role: both halves, each over all of the message, bound to the role. It returns nil or an
// error that is ErrSignature (ErrRole when role is not a name). Signature bytes are no identifier: other bytes may verify too.
func (k *PublicKey) Verify(role string, message, sig []byte) error {
	if !validName(role) {
		return fmt.Errorf("%w: %q", ErrRole, shorten(role))
	}
	if len(sig) != SignatureSize {
		return fmt.Errorf("%w: %d bytes, an H1 signature has %d", ErrSignature, len(sig), SignatureSize)
	}
	return k.verifyContext([]byte(contextPrefix+role), message, sig)
}

// verifyContext is Verify of the draft for any context of at most 255 bytes; sig has SignatureSize bytes.
func (k *PublicKey) verifyContext(context, message, sig []byte) error {
	m := representative(context, message)
	// Both are always computed, so that no timing tells which half failed.
	ml := mldsa65.Verify(&k.ml, m, []byte(compositeLabel), sig[:mldsa65.SignatureSize])
	ed := ed25519.Verify(k.ed, m, sig[mldsa65.SignatureSize:])
	if !ml || !ed {
		return fmt.Errorf("%w: key %v", ErrSignature, k.ID())
	}
	return nil
}

// representative is M' of the draft, what both halves sign.
func representative(context, message []byte) []byte {
	digest := sha512.Sum512(message)
	m := append([]byte(compositePrefix), compositeLabel...)
	m = append(m, byte(len(context)))
	m = append(m, context...)
	return append(m, digest[:]...)
}

// PrivateKey is a key of suite H1 that can sign. It is held in memory in the clear; at rest it is a SecretKey, sealed.
type PrivateKey struct {
	ml  *mldsa65.PrivateKey
	ed  ed25519.PrivateKey
	pub *PublicKey
}

// GenerateKey makes a key out of 64 bytes of random (nil means crypto/rand).
func GenerateKey(random io.Reader) (*PrivateKey, error) {
	seed := make([]byte, SecretSize)
	if _, err := io.ReadFull(randomOr(random), seed); err != nil {
		return nil, fmt.Errorf("mofn: random bytes for a key: %w", err)
	}
	return newPrivateKey(seed)
}

// newPrivateKey expands two seeds, ML-DSA first.
func newPrivateKey(seed []byte) (*PrivateKey, error) {
	if len(seed) != SecretSize {
		return nil, fmt.Errorf("%w: H1 private key has %d bytes, not %d", ErrKey, len(seed), SecretSize)
	}
	mlPublic, ml := mldsa65.NewKeyFromSeed((*[mldsa65.SeedSize]byte)(seed))
	ed := ed25519.NewKeyFromSeed(seed[mldsa65.SeedSize:])
	raw := append(mlPublic.Bytes(), ed[ed25519.SeedSize:]...)
	pub, err := ParsePublicKey(SuiteH1, raw)
	if err != nil {
		return nil, err
	}
	return &PrivateKey{ml: ml, ed: ed, pub: pub}, nil
}

// Public gives the public key.
func (k *PrivateKey) Public() *PublicKey { return k.pub }

// Sign signs message in role: 3373 bytes. Signing is hedged (FIPS 204 section 3.4): the library draws the hedge from crypto/rand
// itself, so random is not read here; it is there for signers that need one. The signature was verified before it is
// returned: a fault while signing (a flipped bit) would otherwise give the key away.
func (k *PrivateKey) Sign(_ io.Reader, role string, message []byte) ([]byte, error) {
	if !validName(role) {
		return nil, fmt.Errorf("%w: %q", ErrRole, shorten(role))
	}
	sig, err := k.signContext([]byte(contextPrefix+role), message)
	if err != nil {
		return nil, err
	}
	if err := k.pub.Verify(role, message, sig); err != nil {
		return nil, fmt.Errorf("check of the new signature (do not use this machine to sign until its memory was tested): %w", err)
	}
	return sig, nil
}

// signContext is Sign of the draft. It calls SignTo and never the crypto.Signer method, which drops the context.
func (k *PrivateKey) signContext(context, message []byte) ([]byte, error) {
	m := representative(context, message)
	sig := make([]byte, mldsa65.SignatureSize, SignatureSize)
	if err := mldsa65.SignTo(k.ml, m, []byte(compositeLabel), true, sig); err != nil {
		return nil, fmt.Errorf("mofn: ML-DSA-65 half: %w", err)
	}
	return append(sig, ed25519.Sign(k.ed, m)...), nil
}

// Signer makes signatures in a role. A PrivateKey has one; a token (PKCS#11) can take its place.
type Signer interface {
	// KeyID is the id of the key that signs.
	KeyID() KeyID
	// Sign gives a signature of suite H1 that was verified already.
	Sign(role string, message []byte) ([]byte, error)
}

// Signer adapts the key.
func (k *PrivateKey) Signer() Signer { return fileSigner{k} }

type fileSigner struct{ key *PrivateKey }

func (s fileSigner) KeyID() KeyID { return s.key.pub.ID() }

func (s fileSigner) Sign(role string, message []byte) ([]byte, error) {
	return s.key.Sign(nil, role, message)
}

func randomOr(random io.Reader) io.Reader {
	if random == nil {
		return rand.Reader
	}
	return random
}
