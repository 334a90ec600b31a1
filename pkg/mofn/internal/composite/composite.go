// SPDX-License-Identifier: Apache-2.0

// Package composite makes and checks composite ML-DSA signatures: two signatures over one message, both of which must verify.
//
//	M'        = "CompositeAlgorithmSignatures2025" || label || len(context) || context || SHA-512(message)
//	signature = ML-DSA.Sign(M', context = label) || classical.Sign(M')
//
// The construction is that of draft-ietf-lamps-pq-composite-sigs-19, sections "Composite ML-DSA Signatures" and
// "Serialization", and the two algorithms are two of its own. Package mofn gives them their names (H1 and H2), binds the
// context to a role and counts the people; it is the only importer, and the conformance tests of integration/conformance the
// only other, which need the halves alone.
package composite

import (
	"crypto/sha512"
	"fmt"
)

// prefix is the Prefix of the draft.
const prefix = "CompositeAlgorithmSignatures2025"

// maxContext is the longest context, whose length is one byte of M'.
const maxContext = 255

// Algorithm is one composite of the draft. It never changes.
type Algorithm struct {
	label     string
	mldsa     Half
	classical Half
}

// MLDSA65Ed25519 is id-MLDSA65-Ed25519-SHA512.
func MLDSA65Ed25519() *Algorithm {
	const label = "COMPSIG-MLDSA65-Ed25519-SHA512"
	return &Algorithm{label: label, mldsa: MLDSA65(label), classical: Ed25519()}
}

// MLDSA87P384 is id-MLDSA87-ECDSA-P384-SHA512. The SHA-512 of its name hashes the message; its ECDSA half hashes M' with SHA-384
// (ecdsa-with-SHA384 in the draft's "Algorithm Identifiers and Parameters").
func MLDSA87P384() *Algorithm {
	const label = "COMPSIG-MLDSA87-ECDSA-P384-SHA512"
	return &Algorithm{label: label, mldsa: MLDSA87(label), classical: P384()}
}

// SecretSize is the length of a private key, of the two halves one after the other, in bytes.
func (a *Algorithm) SecretSize() int { return a.mldsa.SecretSize + a.classical.SecretSize }

// RandomSize is the number of random bytes that Secret takes.
func (a *Algorithm) RandomSize() int { return a.mldsa.RandomSize + a.classical.RandomSize }

// Secret makes a private key (SerializePrivateKey of the draft) out of RandomSize uniformly random bytes, those of ML-DSA first.
func (a *Algorithm) Secret(random []byte) []byte {
	split := a.mldsa.RandomSize
	return append(a.mldsa.Secret(random[:split]), a.classical.Secret(random[split:])...)
}

// PublicKey is a checked public key. It never changes.
type PublicKey struct {
	algorithm        *Algorithm
	mldsa, classical []byte
	verifyMLDSA      Verifier
	verifyClassical  Verifier
}

// ParsePublic reads a public key, ML-DSA first (DeserializePublicKey of the draft), and keeps the bytes. It refuses another
// length and a half under which somebody without the private key can sign.
func (a *Algorithm) ParsePublic(b []byte) (*PublicKey, error) {
	if size := a.mldsa.PublicSize + a.classical.PublicSize; len(b) != size {
		return nil, fmt.Errorf("public key has %d bytes, not %d", len(b), size)
	}
	k := &PublicKey{algorithm: a, mldsa: b[:a.mldsa.PublicSize], classical: b[a.mldsa.PublicSize:]}
	var err error
	if k.verifyMLDSA, err = a.mldsa.Verifier(k.mldsa); err != nil {
		return nil, err
	}
	if k.verifyClassical, err = a.classical.Verifier(k.classical); err != nil {
		return nil, err
	}
	return k, nil
}

// NamedHalf is the public key of one half and the name of its algorithm.
type NamedHalf struct {
	Algorithm string
	Public    []byte
}

// Halves gives the two halves, ML-DSA first. The bytes are those that were parsed.
func (k *PublicKey) Halves() [2]NamedHalf {
	return [2]NamedHalf{{k.algorithm.mldsa.Name, k.mldsa}, {k.algorithm.classical.Name, k.classical}}
}

// SignatureSizes are the lengths of the shortest and of the longest signature, in bytes.
func (k *PublicKey) SignatureSizes() (shortest, longest int) {
	a := k.algorithm
	return a.mldsa.MinSignature + a.classical.MinSignature, a.mldsa.MaxSignature + a.classical.MaxSignature
}

// Verify reports whether both halves of sig verify over message in context (Verify of the draft).
func (k *PublicKey) Verify(context, message, sig []byte) bool {
	shortest, longest := k.SignatureSizes()
	if len(sig) < shortest || len(sig) > longest || len(context) > maxContext {
		return false
	}
	m := k.algorithm.representative(context, message)
	split := k.algorithm.mldsa.MaxSignature // ML-DSA signatures have one length
	// Both are always computed, so that no timing tells which half failed.
	mldsa, classical := k.verifyMLDSA(m, sig[:split]), k.verifyClassical(m, sig[split:])
	return mldsa && classical
}

// Split takes a signature apart: M', which both halves sign, the context of the ML-DSA half, and the two signatures, ML-DSA first. It verifies
// nothing; ok is false when sig has a length that no signature has, or context is too long.
func (k *PublicKey) Split(context, message, sig []byte) (m []byte, label string, halves [2][]byte, ok bool) {
	shortest, longest := k.SignatureSizes()
	if len(sig) < shortest || len(sig) > longest || len(context) > maxContext {
		return nil, "", halves, false
	}
	split := k.algorithm.mldsa.MaxSignature
	return k.algorithm.representative(context, message), k.algorithm.label, [2][]byte{sig[:split], sig[split:]}, true
}

// representative is M' of the draft, what both halves sign.
func (a *Algorithm) representative(context, message []byte) []byte {
	digest := sha512.Sum512(message)
	m := append([]byte(prefix), a.label...)
	m = append(m, byte(len(context)))
	m = append(m, context...)
	return append(m, digest[:]...)
}

// PrivateKey signs with two halves, which need not be in one place.
type PrivateKey struct {
	algorithm        *Algorithm
	mldsa, classical Signer
}

// ParseSecret reads SecretSize bytes, ML-DSA first (DeserializePrivateKey of the draft).
func (a *Algorithm) ParseSecret(b []byte) (*PrivateKey, error) {
	if len(b) != a.SecretSize() {
		return nil, fmt.Errorf("private key has %d bytes, not %d", len(b), a.SecretSize())
	}
	classical, err := a.classical.Signer(b[a.mldsa.SecretSize:])
	if err != nil {
		return nil, err
	}
	return a.Join(b[:a.mldsa.SecretSize], classical)
}

// Join makes a private key of an ML-DSA seed and a classical half that signs elsewhere.
func (a *Algorithm) Join(seed []byte, classical Signer) (*PrivateKey, error) {
	if len(seed) != a.mldsa.SecretSize {
		return nil, fmt.Errorf("%s seed has %d bytes, not %d", a.mldsa.Name, len(seed), a.mldsa.SecretSize)
	}
	mldsa, err := a.mldsa.Signer(seed)
	if err != nil {
		return nil, err
	}
	return &PrivateKey{algorithm: a, mldsa: mldsa, classical: classical}, nil
}

// Public gives the public key, ML-DSA first.
func (k *PrivateKey) Public() []byte {
	mldsa := k.mldsa.Public()
	return append(mldsa[:len(mldsa):len(mldsa)], k.classical.Public()...)
}

// Sign signs message in context with both halves (Sign of the draft). It does not verify what it made.
func (k *PrivateKey) Sign(context, message []byte) ([]byte, error) {
	if len(context) > maxContext {
		return nil, fmt.Errorf("context has %d bytes, at most %d", len(context), maxContext)
	}
	m := k.algorithm.representative(context, message)
	mldsa, err := k.mldsa.Sign(m)
	if err != nil {
		return nil, fmt.Errorf("%s half: %w", k.algorithm.mldsa.Name, err)
	}
	classical, err := k.classical.Sign(m)
	if err != nil {
		return nil, fmt.Errorf("%s half: %w", k.algorithm.classical.Name, err)
	}
	return append(mldsa, classical...), nil
}
