// SPDX-License-Identifier: Apache-2.0

// Package conformance_test runs the vectors of others against the signatures of pkg/mofn, and a second implementation of ML-DSA
// beside them. README.md says what each file is and where it comes from.
//
//	draft-ietf-lamps-pq-composite-sigs   lamps_test.go         the composites, their certificates, ML-DSA alone
//	Wycheproof                           wycheproof_test.go    each half
//	C2SP CCTV                            cctv_test.go          ML-DSA accumulated, edge cases of Ed25519
//	filippo.io/mldsa                     differential_test.go  valid and mutated signatures
//
// The halves are those of pkg/mofn/internal/composite, exactly as H1 and H2 call them.
package conformance_test

import (
	"testing"

	"filippo.io/mldsa"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"sluice/pkg/mofn/internal/composite"
)

// parameterSet is ML-DSA-65 or ML-DSA-87: our half, and what the half is compared with.
type parameterSet struct {
	name   string // as the vectors write it
	half   func(context string) composite.Half
	second mldsa.Parameters

	// The functions of circl that the half calls, without its checks of keys and with the hedge switched off: vectors have neither.
	signDeterministic func(seed, message, context []byte) ([]byte, error)
	verify            func(public, message, context, sig []byte) bool
}

func parameterSets() []parameterSet {
	return []parameterSet{
		{
			name: "65", half: composite.MLDSA65, second: mldsa.MLDSA65(),
			signDeterministic: func(seed, message, context []byte) ([]byte, error) {
				_, key := mldsa65.NewKeyFromSeed((*[32]byte)(seed))
				sig := make([]byte, mldsa65.SignatureSize)
				return sig, mldsa65.SignTo(key, message, context, false, sig)
			},
			verify: func(public, message, context, sig []byte) bool {
				var key mldsa65.PublicKey
				return key.UnmarshalBinary(public) == nil && mldsa65.Verify(&key, message, context, sig)
			},
		},
		{
			name: "87", half: composite.MLDSA87, second: mldsa.MLDSA87(),
			signDeterministic: func(seed, message, context []byte) ([]byte, error) {
				_, key := mldsa87.NewKeyFromSeed((*[32]byte)(seed))
				sig := make([]byte, mldsa87.SignatureSize)
				return sig, mldsa87.SignTo(key, message, context, false, sig)
			},
			verify: func(public, message, context, sig []byte) bool {
				var key mldsa87.PublicKey
				return key.UnmarshalBinary(public) == nil && mldsa87.Verify(&key, message, context, sig)
			},
		},
	}
}

// forEachSet runs a test for both parameter sets.
func forEachSet(t *testing.T, test func(t *testing.T, p parameterSet)) {
	for _, p := range parameterSets() {
		t.Run("ML-DSA-"+p.name, func(t *testing.T) { test(t, p) })
	}
}

// verifies asks a half; a key that it refuses verifies nothing.
func verifies(half composite.Half, public, message, sig []byte) bool {
	verify, err := half.Verifier(public)
	return err == nil && verify(message, sig)
}

// count compares how many vectors there were with how many there must be: a filter that takes nothing finds no mistake.
func count(t *testing.T, what string, got, want int) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %d vectors, want %d", what, got, want)
	}
}
