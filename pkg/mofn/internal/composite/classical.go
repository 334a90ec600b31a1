// SPDX-License-Identifier: Apache-2.0

package composite

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/sign/ed25519"
)

// Ed25519 is Ed25519 (RFC 8032). Private keys are seeds of 32 bytes. The library is circl's, which refuses points in a form that is
// not canonical by itself; behind the check of keys the standard one accepts the same of all cases of integration/conformance.
func Ed25519() Half {
	return Half{
		Name: "Ed25519", PublicSize: ed25519.PublicKeySize, SecretSize: ed25519.SeedSize, RandomSize: ed25519.SeedSize,
		MinSignature: ed25519.SignatureSize, MaxSignature: ed25519.SignatureSize,
		Verifier: func(public []byte) (Verifier, error) {
			if err := CheckEd25519(public); err != nil {
				return nil, err
			}
			return func(message, sig []byte) bool { return ed25519.Verify(public, message, sig) }, nil
		},
		Signer: func(seed []byte) (Signer, error) {
			key := ed25519.NewKeyFromSeed(seed)
			return signer{key[ed25519.SeedSize:], func(message []byte) ([]byte, error) { return ed25519.Sign(key, message), nil }}, nil
		},
		Secret: bytes.Clone,
	}
}

// Sizes of P-384: of a scalar, of an uncompressed point (SEC 1 section 2.3.3), and of an Ecdsa-Sig-Value (RFC 3279 section 2.2.3): a
// sequence of two integers of 1 to 49 bytes, of which a leading zero may be one.
const (
	scalarSize   = 48
	pointSize    = 1 + 2*scalarSize
	minECDSASize = 2 + 2*(2+1)
	maxECDSASize = 2 + 2*(2+1+scalarSize)
)

// The ECPrivateKey of RFC 5915 with the named curve secp384r1 and without the public key, which the draft wants, has one DER
// encoding: these bytes around the scalar.
const (
	scalarHead = "\x30\x3e\x02\x01\x01\x04\x30"
	scalarTail = "\xa0\x07\x06\x05\x2b\x81\x04\x00\x22"
)

// P384 is ECDSA over P-384 with SHA-384 (FIPS 186-5), of the standard library, which is constant in time and hedges the nonce.
// Public keys are uncompressed points, signatures DER; of (r, s) and (r, n - s) both verify. Private keys are ECPrivateKey.
func P384() Half {
	return Half{
		Name: "ECDSA-P384", PublicSize: pointSize, SecretSize: len(scalarHead) + scalarSize + len(scalarTail), RandomSize: scalarSize,
		MinSignature: minECDSASize, MaxSignature: maxECDSASize,
		Verifier: func(public []byte) (Verifier, error) {
			key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P384(), public)
			if err != nil {
				return nil, fmt.Errorf("ECDSA P-384 key is not an uncompressed point of the curve: %w", err)
			}
			return func(message, sig []byte) bool {
				digest := sha512.Sum384(message)
				return ecdsa.VerifyASN1(key, digest[:], sig)
			}, nil
		},
		Signer: signerP384,
		Secret: func(random []byte) []byte { return []byte(scalarHead + string(random) + scalarTail) },
	}
}

// signerP384 refuses every other form of ECPrivateKey, so that a key has one file, and a scalar that is 0 or not below the order.
func signerP384(secret []byte) (Signer, error) {
	scalar, head := bytes.CutPrefix(secret, []byte(scalarHead))
	scalar, tail := bytes.CutSuffix(scalar, []byte(scalarTail))
	if !head || !tail {
		return nil, errors.New("ECDSA P-384 private key is not an ECPrivateKey of secp384r1 without public key")
	}
	key, err := ecdsa.ParseRawPrivateKey(elliptic.P384(), scalar)
	if err != nil {
		return nil, fmt.Errorf("ECDSA P-384 private key: %w", err)
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		return nil, fmt.Errorf("ECDSA P-384 private key: %w", err)
	}
	return signer{public, func(message []byte) ([]byte, error) {
		digest := sha512.Sum384(message)
		return ecdsa.SignASN1(rand.Reader, key, digest[:])
	}}, nil
}
