// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/pkg/mofn"
)

// The bugs of other systems in counting signatures, T1 to T12, and those in checking what was counted, C; each test is named after
// its advisory, or after the issue where there is none. C1, C4 and C8 are about rotation: TestRotation. C2 is in internal/receiver
// (TestAttackFastForward), C5 in internal/trust (TestAttackRollback), C3, C6 and C11 are paths and lengths (internal/trust, TestAttack*, and below).

// advisory runs one case as TestVerify does.
func advisory(t *testing.T, want error, words string, spoil func(*scenario)) {
	t.Helper()
	s := newScenario(t)
	spoil(s)
	a, err := s.run()
	checkOutcome(t, verifyCase{want: want, words: words, need: 2, have: 1}, a, err)
}

// T1, python-tuf: the signatures of one key id were counted repeatedly.
func TestThreshold_T1_GHSA_pwqf_9h7j_7mv8(t *testing.T) {
	advisory(t, mofn.ErrDuplicate, "key "+newRing(t).id("alice"), func(s *scenario) {
		s.votes = s.votes[:1]
		s.vote("alice", "security", nil)
	})
}

// T2, python-tuf 0.14: signatures of a new root by its own keys were counted repeatedly.
func TestThreshold_T2_GMS_2022_4197(t *testing.T) {
	r := newRing(t)
	current := firstTrust(t, r)
	for name, c := range map[string]struct {
		signers []string
		want    error
		words   string
	}{
		"one key twice":           {[]string{"alice", "alice", "dave"}, mofn.ErrDuplicate, "key"},
		"two keys of one officer": {[]string{"alice", "alice2", "dave"}, mofn.ErrThreshold, "1 more of security: bob or carol"},
		"two people":              {[]string{"alice", "alice2", "bob", "dave"}, nil, ""},
	} {
		rotate(t, rotation{name: name, signers: c.signers, want: c.want, words: c.words}, r, current, successor(t, r, current))
	}
}

// T3, python-tuf pull request 1091: one key under several key ids; the reviewer adds other encodings and schemes of it.
func TestThreshold_T3_python_tuf_1091(t *testing.T) {
	advisory(t, mofn.ErrPolicy, "not its own", func(s *scenario) {
		twin := trustKey(s.ring["alice"], "twin")
		twin.ID = sha256.Sum256([]byte("another id"))
		s.keys = append(s.keys, twin)
	})
	advisory(t, mofn.ErrPolicy, "share one half", func(s *scenario) { // the nearest to another encoding: one half of it is another's
		k := halfOf(s.ring["mallory"], s.ring["alice"])
		s.keys = append(s.keys, mofn.TrustKey{ID: mofn.NewKeyID(mofn.SuiteH1, k), Suite: mofn.SuiteH1, Public: k})
	})
}

// T4, AWS tough: signatures in one list were not unique.
func TestThreshold_T4_CVE_2020_15093(t *testing.T) {
	advisory(t, mofn.ErrTooMany, "", func(s *scenario) {
		s.votes = s.votes[:1]
		s.votes[0].Signatures = append(s.votes[0].Signatures, s.votes[0].Signatures[0])
	})
}

// T5, rust-tuf issue 283, tiup 235, php-tuf 154: the same.
func TestThreshold_T5_rust_tuf_283(t *testing.T) {
	advisory(t, mofn.ErrDuplicate, "", func(s *scenario) { s.votes[1] = s.votes[0]; s.votes[1].Name = "security.bob.json" })
}

// T6, go-tuf before 0.3.2: the key id in the metadata was believed, so one key could have two.
func TestThreshold_T6_GHSA_3633_5h82_39pq(t *testing.T) {
	advisory(t, mofn.ErrSignature, "officer bob", func(s *scenario) {
		s.votes[1] = s.votes[0]
		s.votes[1].Signatures = []mofn.Signature{{KeyID: s.ring.id("bob"), Sig: s.votes[0].Signatures[0].Sig}}
	})
}

// T7, go-tuf before 2.3.1: thresholds of zero and below (GHSA-fphv-w9fq-2525).
func TestThreshold_T7_CVE_2026_23992(t *testing.T) {
	for _, k := range []string{"0", "-1", "-9223372036854775808"} {
		advisory(t, mofn.ErrPolicy, "threshold "+k+" is below 1", func(s *scenario) { s.replace("security 2 alice", "security "+k+" alice") })
		advisory(t, mofn.ErrPolicy, "threshold "+k+" is below 1", func(s *scenario) { s.replace("release  all", "release  "+k) })
	}
	for _, k := range []string{"-0", "00", "0x0", "9223372036854775808", "-9223372036854775809", "1e0", "none"} {
		advisory(t, mofn.ErrPolicy, "is not a number", func(s *scenario) { s.replace("security 2 alice", "security "+k+" alice") })
	}
	advisory(t, mofn.ErrPolicy, "is below 1", func(s *scenario) { s.replace("checked=bytes:1", "checked=bytes:0") })
	advisory(t, mofn.ErrPolicy, "is below 1", func(s *scenario) { s.replace("checked=bytes:1", "checked=bytes:-1") })
}

// T8, go-tuf before 2.4.2, pull request 733: one public key registered as two key types counted twice.
func TestThreshold_T8_go_tuf_733(t *testing.T) {
	advisory(t, mofn.ErrPolicy, "public key has 1984 bytes, not 2689", func(s *scenario) {
		k := s.ring["alice"].Public().Bytes()
		s.keys = append(s.keys, mofn.TrustKey{ID: mofn.NewKeyID("H2", k), Suite: "H2", Public: k})
	})
	advisory(t, mofn.ErrPolicy, "does not sign statements", func(s *scenario) { // an Ed25519 half as a key of its own
		k := s.ring["alice"].Public().Bytes()[1952:]
		s.keys = append(s.keys, mofn.TrustKey{ID: mofn.NewKeyID(mofn.SuiteLink, k), Suite: mofn.SuiteLink, Public: k})
	})
}

// T9, AWS tough before 0.22.0: a duplicate met the threshold of a delegated role.
func TestThreshold_T9_CVE_2026_6966(t *testing.T) {
	advisory(t, mofn.ErrDuplicate, "", func(s *scenario) { s.replace("quality  any", "quality  2"); s.vote("dave", "quality", nil) })
	advisory(t, mofn.ErrThreshold, "1 more of quality: erin", func(s *scenario) { s.replace("quality  any", "quality  2") })
}

// T10, sigstore-go issues 471 and 633, sigstore-js 1702: several timestamps of one authority counted as several.
func TestThreshold_T10_sigstore_go_471(t *testing.T) {
	advisory(t, mofn.ErrDuplicate, "officer alice approves twice", func(s *scenario) {
		s.votes = s.votes[:1]
		s.vote("alice2", "security", nil)
		s.vote("dave", "quality", nil)
	})
	advisory(t, mofn.ErrThreshold, "who checked bytes", func(s *scenario) { // one who checked is not two
		s.replace("checked=bytes:1", "checked=bytes:2")
		s.checkedBy("bob", "bytes")
	})
}

// T11, go-securesystemslib 0.11.1 dsse: one key under two key ids met a threshold of two; keys that ssh cannot encode shared the id "".
func TestThreshold_T11_go_securesystemslib_dsse(t *testing.T) {
	advisory(t, mofn.ErrThreshold, "1 by keys that are not enrolled", func(s *scenario) {
		s.votes[1] = s.votes[0]
		s.votes[1].Signatures = []mofn.Signature{{KeyID: strings.Repeat("ab", 32), Sig: s.votes[0].Signatures[0].Sig}}
	})
	advisory(t, mofn.ErrSignature, "0 characters", func(s *scenario) { s.votes[1].Signatures[0].KeyID = "" })
}

// T12, the DSSE reference implementation: recognised signers were a list and not a set, and there was no threshold.
func TestThreshold_T12_dsse_reference(t *testing.T) {
	advisory(t, mofn.ErrPolicy, "is used on line 2 already", func(s *scenario) { s.replace("officer bob   key "+s.ring.id("bob"), "officer bob key @alice") })
	advisory(t, mofn.ErrThreshold, "1 more of security", func(s *scenario) { s.votes = slices.Delete(s.votes, 0, 1) })
}

// C10, cosign before 2.6.2 and 3.0.4: what was verified was not bound to what was used.
func TestChecked_C10_CVE_2026_22703(t *testing.T) {
	advisory(t, mofn.ErrClaim, "not the one with the id", func(s *scenario) { s.rel.ID[0] ^= 1 })
	for words, change := range map[string]func(*mofn.Claim){
		"it is for release": func(c *mofn.Claim) { c.ReleaseID[31] ^= 1 },
		"it is for stream":  func(c *mofn.Claim) { c.Stream = "models/raw" },
		"it is for epoch":   func(c *mofn.Claim) { c.Seq-- },
	} {
		advisory(t, mofn.ErrClaim, words, func(s *scenario) { s.votes = s.votes[:1]; s.vote("bob", "security", change) })
	}
}

// C6, go-tuf 2.0.0 to 2.4.0: a name in the metadata was a path. No name of ours can be one.
func TestChecked_C6_CVE_2026_24686(t *testing.T) {
	for _, name := range []string{"..", "../x", "/x", "a/../b", `a\b`, ".", "-x", "a/", ""} {
		advisory(t, mofn.ErrNoRule, "", func(s *scenario) { s.rel.Stream = name })
	}
	for _, name := range []string{"..", "../x", "/x", `a\b`, ".hidden"} {
		advisory(t, mofn.ErrPolicy, "is not a name", func(s *scenario) { s.add("officer " + name + " key @mallory") })
		advisory(t, mofn.ErrPolicy, "is not a pattern", func(s *scenario) { s.add("rule stream " + name + "/* quorum release") })
	}
}

// C7, go-tuf of August 2026, commits 3288aeb and 33d359c: null in JSON and a short key ended the process.
func TestChecked_C7_go_tuf_null(t *testing.T) {
	for _, b := range []string{"null", "[]", "{}", `{"type":null}`, `{"keys":null}`, "0", `""`, ""} {
		if got, err := mofn.ParseTrust([]byte(b)); err == nil || got != nil {
			t.Errorf("trust object %s: %v", b, got)
		}
		if _, _, _, _, err := mofn.ParsePublicFile([]byte(b)); err == nil {
			t.Errorf("public key %s was read", b)
		}
		if got, err := mofn.OpenSecret([]byte(b), []byte("p")); err == nil || got != nil {
			t.Errorf("private key %s was opened", b)
		}
	}
	r := newRing(t)
	for _, suite := range []mofn.Suite{mofn.SuiteH1, mofn.SuiteH2, mofn.SuiteLink, "", "null"} {
		for _, n := range []int{0, 1, 31, 32, 33, 1952, 1983, 1985, 2592, 2688, 2690} {
			if k, err := mofn.ParsePublicKey(suite, make([]byte, n)); err == nil {
				t.Errorf("a key of %d zeros of suite %q: %v", n, suite, k.ID())
			}
		}
	}
	for n := range 65 {
		if err := r["alice"].Public().Verify("security", nil, make([]byte, n)); err == nil {
			t.Errorf("a signature of %d zeros verifies", n)
		}
	}
}

// C9, python-tuf: thousands of bad signatures were minutes of CPU. Here the first bad one by a known key is the last that is tried,
// unknown ones are never tried, and more than 32 are not looked at.
func TestChecked_C9_CVE_2020_6173(t *testing.T) {
	s := newScenario(t)
	for i := range 10_000 {
		v := s.votes[0]
		v.Signatures = []mofn.Signature{{KeyID: fmt.Sprintf("%064x", i), Sig: make([]byte, 3373)}}
		s.votes = append(s.votes, v)
	}
	if a, err := s.run(); err == nil || a.Valid() || s.opened != 0 {
		t.Errorf("10,000 approvals: %v, %d opened", err, s.opened)
	}
	s = newScenario(t)
	for i := range s.votes {
		s.votes[i].Signatures[0].Sig[0] ^= 1
	}
	if a, err := s.run(); err == nil || a.Valid() || s.opened != 0 {
		t.Errorf("bad ones: %v, %d opened", err, s.opened)
	}
}

// C11, model_signing 1.0.0 and cosign (CVE-2026-39395): what does not parse passed.
func TestChecked_C11_unparsed(t *testing.T) {
	for _, payload := range []string{"", "null", "{}", "not JSON", `{"Decision":"approve"}`} {
		advisory(t, mofn.ErrClaim, "", func(s *scenario) {
			v := &s.votes[1]
			v.Payload = []byte(payload)
			v.Message = mofn.PAE(statementType, v.Payload)
			v.Signatures[0].Sig = sign(s.t, s.ring["bob"], "security", v.Message)
		})
	}
}
