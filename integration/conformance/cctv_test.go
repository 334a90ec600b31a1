// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"compress/gzip"
	"crypto/sha3"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"sluice/pkg/mofn/internal/composite"
)

// TestAccumulated is CCTV's ML-DSA/accumulated: a hash over the public keys and deterministic signatures of many seeds. Keys are made
// and signatures verified by our half. 10,000 iterations as CI should have, 100 with -short.
func TestAccumulated(t *testing.T) {
	want := map[string][2]string{ // 100 and 10,000 iterations
		"65": {"8358a1843220194417cadbc2651295cd8fc65125b5a5c1a239a16dc8b57ca199", "5ff5e196f0b830c3b10a9eb5358e7c98a3a20136cb677f3ae3b90175c3ace329"},
		"87": {"8c3ad714777622b8f21ce31bb35f71394f23bc0fcf3c78ace5d608990f3b061b", "80a8cf39317f7d0be0e24972c51ac152bd2a3e09bc0c32ce29dd82c4e7385e60"},
	}
	iterations, at := 10_000, 1
	if testing.Short() {
		iterations, at = 100, 0
	}
	forEachSet(t, func(t *testing.T, p parameterSet) {
		t.Parallel()
		if got := accumulate(t, p, iterations); got != want[p.name][at] {
			t.Errorf("%d iterations: %s, want %s", iterations, got, want[p.name][at])
		}
	})
}

func accumulate(t *testing.T, p parameterSet, iterations int) string {
	t.Helper()
	seeds, sum := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	half, seed := p.half(""), make([]byte, 32)
	for i := range iterations {
		_, _ = seeds.Read(seed)
		private, err := half.Signer(seed)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := p.signDeterministic(seed, nil, nil)
		if err != nil || !verifies(half, private.Public(), nil, sig) {
			t.Fatalf("iteration %d: %v", i, err)
		}
		_, _ = sum.Write(private.Public())
		_, _ = sum.Write(sig)
	}
	out := make([]byte, 32)
	_, _ = sum.Read(out)
	return hex.EncodeToString(out)
}

type edgeCase struct {
	Number int
	Key    string
	Sig    string
	Msg    string
	Flags  []string
}

// TestEd25519EdgeCases: of the 914 edge cases of CCTV exactly those are accepted that trust.md section 1 lets pass: a key that is no
// low-order point and has its canonical form, an R in its canonical form, and an equation that holds without the cofactor.
func TestEd25519EdgeCases(t *testing.T) {
	n, accepted, keys := 0, 0, map[string]bool{}
	for _, c := range readEdgeCases(t) {
		n++
		key, err := hex.DecodeString(c.Key)
		if err != nil {
			t.Fatal(err)
		}
		sig, err := hex.DecodeString(c.Sig)
		if err != nil {
			t.Fatal(err)
		}
		badKey := slices.Contains(c.Flags, "low_order_A") || slices.Contains(c.Flags, "non_canonical_A")
		if _, err := composite.Ed25519().Verifier(key); (err != nil) != badKey {
			t.Errorf("%d %v: key %s: %v", c.Number, c.Flags, c.Key, err)
		}
		if badKey {
			keys[c.Key] = true
		}
		want := !badKey && !slices.ContainsFunc([]string{"non_canonical_R", "low_order_residue", "reencoded_k"}, func(f string) bool { return slices.Contains(c.Flags, f) })
		got := verifies(composite.Ed25519(), key, []byte(c.Msg), sig)
		if got != want {
			t.Errorf("%d %v: %v, want %v", c.Number, c.Flags, got, want)
		}
		if got {
			accepted++
		}
	}
	count(t, "edge cases", n, 914)
	count(t, "accepted", accepted, 86)
	count(t, "keys refused, all encodings of low-order points", len(keys), 14)
}

func readEdgeCases(t *testing.T) (cases []edgeCase) {
	t.Helper()
	f, err := os.Open("testdata/ed25519vectors.json.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.NewDecoder(z).Decode(&cases); err != nil {
		t.Fatal(err)
	}
	return cases
}
