// SPDX-License-Identifier: Apache-2.0

package composite

import (
	"bytes"
	"fmt"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
)

// rhoSize is the length of the matrix seed at the head of an ML-DSA public key (FIPS 204 section 7.2); the vector t1 follows.
const rhoSize = 32

// Signing calls SignTo and never the crypto.Signer method of the keys, which drops the context and is not hedged.

// MLDSA65 is ML-DSA-65 (FIPS 204) with a fixed context. Private keys are seeds of 32 bytes.
func MLDSA65(context string) Half {
	const name = "ML-DSA-65"
	return Half{
		Name: name, PublicSize: mldsa65.PublicKeySize, SecretSize: mldsa65.SeedSize, RandomSize: mldsa65.SeedSize,
		MinSignature: mldsa65.SignatureSize, MaxSignature: mldsa65.SignatureSize,
		Verifier: func(public []byte) (Verifier, error) {
			var key mldsa65.PublicKey
			if err := unmarshalMLDSA(name, public, &key); err != nil {
				return nil, err
			}
			return func(message, sig []byte) bool { return mldsa65.Verify(&key, message, []byte(context), sig) }, nil
		},
		Signer: func(seed []byte) (Signer, error) {
			public, key := mldsa65.NewKeyFromSeed((*[mldsa65.SeedSize]byte)(seed))
			return signer{public.Bytes(), func(message []byte) ([]byte, error) {
				sig := make([]byte, mldsa65.SignatureSize)
				return sig, mldsa65.SignTo(key, message, []byte(context), true, sig)
			}}, nil
		},
		Secret: bytes.Clone,
	}
}

// MLDSA87 is ML-DSA-87 (FIPS 204) with a fixed context. Private keys are seeds of 32 bytes.
func MLDSA87(context string) Half {
	const name = "ML-DSA-87"
	return Half{
		Name: name, PublicSize: mldsa87.PublicKeySize, SecretSize: mldsa87.SeedSize, RandomSize: mldsa87.SeedSize,
		MinSignature: mldsa87.SignatureSize, MaxSignature: mldsa87.SignatureSize,
		Verifier: func(public []byte) (Verifier, error) {
			var key mldsa87.PublicKey
			if err := unmarshalMLDSA(name, public, &key); err != nil {
				return nil, err
			}
			return func(message, sig []byte) bool { return mldsa87.Verify(&key, message, []byte(context), sig) }, nil
		},
		Signer: func(seed []byte) (Signer, error) {
			public, key := mldsa87.NewKeyFromSeed((*[mldsa87.SeedSize]byte)(seed))
			return signer{public.Bytes(), func(message []byte) ([]byte, error) {
				sig := make([]byte, mldsa87.SignatureSize)
				return sig, mldsa87.SignTo(key, message, []byte(context), true, sig)
			}}, nil
		},
		Secret: bytes.Clone,
	}
}

// unmarshalMLDSA also refuses t1 = 0, under which a signature is made without any private key: A z is then all that is left of
// A z - c t1 2^d, and everybody can choose a short z.
func unmarshalMLDSA(name string, public []byte, key interface{ UnmarshalBinary([]byte) error }) error {
	if len(public) > rhoSize && len(bytes.Trim(public[rhoSize:], "\x00")) == 0 {
		return fmt.Errorf("%s key is zero, anybody can sign under it", name)
	}
	if err := key.UnmarshalBinary(public); err != nil {
		return fmt.Errorf("%s half: %w", name, err)
	}
	return nil
}
