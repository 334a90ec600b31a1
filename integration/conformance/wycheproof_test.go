// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"slices"
	"testing"

	"filippo.io/mldsa"
	"github.com/c2sp/wycheproof"

	"sluice/pkg/mofn/internal/composite"
)

// hexBytes are bytes in hexadecimal.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// publicKey is a text for ML-DSA, and an object for the other two.
type publicKey struct{ bytes hexBytes }

func (k *publicKey) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		var v struct {
			PK           hexBytes `json:"pk"`           // Ed25519
			Uncompressed hexBytes `json:"uncompressed"` // ECDSA
		}
		err := json.Unmarshal(b, &v)
		k.bytes = slices.Concat(v.PK, v.Uncompressed)
		return err
	}
	return json.Unmarshal(b, &k.bytes)
}

// wycheproofFile is what the five files that are used have in common.
type wycheproofFile struct {
	NumberOfTests int `json:"numberOfTests"`
	TestGroups    []struct {
		PublicKey   publicKey        `json:"publicKey"`
		PrivateSeed hexBytes         `json:"privateSeed"`
		Tests       []wycheproofCase `json:"tests"`
	} `json:"testGroups"`
}

type wycheproofCase struct {
	ID      int      `json:"tcId"`
	Comment string   `json:"comment"`
	Flags   []string `json:"flags"`
	Msg     hexBytes `json:"msg"`
	Ctx     hexBytes `json:"ctx"`
	Sig     hexBytes `json:"sig"`
	Result  string   `json:"result"`
}

func (c wycheproofCase) has(flag string) bool { return slices.Contains(c.Flags, flag) }

// valid: none of the files used has a third verdict.
func (c wycheproofCase) valid(t *testing.T) bool {
	t.Helper()
	if c.Result != "valid" && c.Result != "invalid" {
		t.Fatalf("%d: result %q", c.ID, c.Result)
	}
	return c.Result == "valid"
}

// eachWycheproof visits every case of a file.
func eachWycheproof(t *testing.T, name string, visit func(public, seed []byte, c wycheproofCase)) {
	t.Helper()
	b, err := fs.ReadFile(wycheproof.TestVectors, name)
	if err != nil {
		t.Fatal(err)
	}
	var f wycheproofFile
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, g := range f.TestGroups {
		for _, c := range g.Tests {
			n++
			visit(g.PublicKey.bytes, g.PrivateSeed, c)
		}
	}
	if n == 0 || n != f.NumberOfTests {
		t.Errorf("%s: %d cases, it says %d", name, n, f.NumberOfTests)
	}
	t.Logf("%s: %d cases", name, n)
}

// TestWycheproofClassical: what the classical halves accept is what Wycheproof calls valid, of 151 and 504 cases.
func TestWycheproofClassical(t *testing.T) {
	for name, half := range map[string]composite.Half{"ed25519_test.json": composite.Ed25519(), "ecdsa_secp384r1_sha384_test.json": composite.P384()} {
		t.Run(half.Name, func(t *testing.T) {
			accepted := 0
			eachWycheproof(t, name, func(public, _ []byte, c wycheproofCase) {
				got := verifies(half, public, c.Msg, c.Sig)
				if got != c.valid(t) {
					t.Errorf("%d %s %v: %v, want %s", c.ID, c.Comment, c.Flags, got, c.Result)
				}
				// The lengths between which a composite signature is split lose nothing valid.
				if got && (len(c.Sig) < half.MinSignature || len(c.Sig) > half.MaxSignature) {
					t.Errorf("%d: a valid signature of %d bytes", c.ID, len(c.Sig))
				}
				if got {
					accepted++
				}
			})
			count(t, "accepted", accepted, map[string]int{"Ed25519": 88, "ECDSA-P384": 194}[half.Name])
		})
	}
}

// TestWycheproofOtherForms: signatures that are right in another form (r and s without DER, another hash) are none here.
func TestWycheproofOtherForms(t *testing.T) {
	for _, name := range []string{"ecdsa_secp384r1_sha384_p1363_test.json", "ecdsa_secp384r1_sha512_test.json", "ecdsa_secp384r1_sha3_384_test.json"} {
		eachWycheproof(t, name, func(public, _ []byte, c wycheproofCase) {
			if verifies(composite.P384(), public, c.Msg, c.Sig) {
				t.Errorf("%s %d %s: accepted", name, c.ID, c.Comment)
			}
		})
	}
}

// TestWycheproofVerify: the ML-DSA halves accept what is valid, except under a key that is zero, which they refuse at load. What is
// below them is asked about those too.
func TestWycheproofVerify(t *testing.T) {
	forEachSet(t, func(t *testing.T, p parameterSet) {
		zero := 0
		eachWycheproof(t, "mldsa_"+p.name+"_verify_test.json", func(public, _ []byte, c wycheproofCase) {
			want := c.valid(t)
			if got := p.verify(public, c.Msg, c.Ctx, c.Sig); got != want {
				t.Errorf("circl %d %s %v: %v, want %s", c.ID, c.Comment, c.Flags, got, c.Result)
			}
			if c.has("ZeroPublicKey") {
				zero++
				want = false
			}
			if got := verifies(p.half(string(c.Ctx)), public, c.Msg, c.Sig); got != want {
				t.Errorf("half %d %s %v: %v, want %v", c.ID, c.Comment, c.Flags, got, want)
			}
		})
		count(t, "keys that are zero", zero, map[string]int{"65": 51, "87": 67}[p.name])
	})
}

// TestWycheproofSign: the seed gives the public key, the signature of the vector verifies, the same is made again without the hedge, and
// ours, with it, is accepted by the second implementation.
func TestWycheproofSign(t *testing.T) {
	forEachSet(t, func(t *testing.T, p parameterSet) {
		made := 0
		eachWycheproof(t, "mldsa_"+p.name+"_sign_seed_test.json", func(public, seed []byte, c wycheproofCase) {
			switch {
			case c.has("Internal"): // mu and no message: no public function takes it
			case c.has("IncorrectPrivateKeyLength"):
				if _, err := composite.MLDSA87P384().Join(seed, nil); err == nil {
					t.Errorf("%d: a seed of %d bytes was taken", c.ID, len(seed))
				}
			default:
				made += signSeed(t, p, public, seed, c)
			}
		})
		// Without 17 Internal, 3 of another length, 1 Randomized and 1 of a context that is too long.
		count(t, "signatures made again", made, map[string]int{"65": 83, "87": 74}[p.name])
	})
}

func signSeed(t *testing.T, p parameterSet, public, seed []byte, c wycheproofCase) (made int) {
	half := p.half(string(c.Ctx))
	private, err := half.Signer(seed)
	if err != nil || !bytes.Equal(private.Public(), public) {
		t.Fatalf("%d: another public key, %v", c.ID, err)
	}
	own, err := private.Sign(c.Msg)
	if !c.valid(t) {
		if err == nil {
			t.Errorf("%d %s: signed", c.ID, c.Comment)
		}
		return 0
	}
	if err != nil || !verifies(half, public, c.Msg, own) || !verifies(half, public, c.Msg, c.Sig) {
		t.Errorf("%d %s: own signature or the vector's does not verify: %v", c.ID, c.Comment, err)
	}
	second, err := mldsa.NewPublicKey(p.second, public)
	if err != nil || mldsa.Verify(second, c.Msg, own, &mldsa.Options{Context: string(c.Ctx)}) != nil {
		t.Errorf("%d %s: the second implementation refuses our signature", c.ID, c.Comment)
	}
	if c.has("Randomized") {
		return 0
	}
	again, err := p.signDeterministic(seed, c.Msg, c.Ctx)
	if err != nil || !bytes.Equal(again, c.Sig) {
		t.Errorf("%d %s: another signature, %v", c.ID, c.Comment, err)
	}
	return 1
}
