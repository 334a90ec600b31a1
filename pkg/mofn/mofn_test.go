// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/pkg/mofn"
)

// halfOf makes a key with the ML-DSA half of one and the Ed25519 half of another, as a thief of one half would.
func halfOf(ml, ed *mofn.PrivateKey) []byte {
	const split = 1952
	return append(ml.Public().Bytes()[:split], ed.Public().Bytes()[split:]...)
}

// spliced takes the ML-DSA half of one signature and the Ed25519 half of another.
func spliced(ml, ed []byte) []byte {
	const split = 3309
	return append(slices.Clone(ml[:split]), ed[split:]...)
}

type verifyCase struct {
	name  string
	spoil func(*scenario)
	want  error // nil: the release passes
	words string
	need  int // of the ThresholdError, when want is ErrThreshold
	have  int
}

// TestVerify is the table of E6: each case begins with a release that passes and changes one thing. The threshold-counting bugs
// of other systems are in advisories_test.go.
func TestVerify(t *testing.T) {
	var all []verifyCase
	all = append(all, countingCases()...)
	all = append(all, signatureCases()...)
	all = append(all, claimCases()...)
	all = append(all, statementCases()...)
	if len(all) < 70 {
		t.Fatalf("only %d cases", len(all))
	}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newScenario(t)
			c.spoil(s)
			a, err := s.run()
			checkOutcome(t, c, a, err)
		})
	}
}

func checkOutcome(t *testing.T, c verifyCase, a mofn.Approval, err error) {
	t.Helper()
	if a.Valid() != (err == nil) {
		t.Errorf("Valid() is %v with error %v", a.Valid(), err)
	}
	if !errors.Is(err, c.want) {
		t.Fatalf("error %v, want %v", err, c.want)
	}
	if err != nil && !strings.Contains(err.Error(), c.words) {
		t.Errorf("error %q does not say %q", err, c.words)
	}
	var short *mofn.ThresholdError
	if errors.As(err, &short) && (short.Need != c.need || short.Have != c.have) {
		t.Errorf("%d of %d, want %d of %d", short.Have, short.Need, c.have, c.need)
	}
}

func countingCases() []verifyCase {
	drop := func(names ...string) func(*scenario) {
		return func(s *scenario) {
			s.votes = slices.DeleteFunc(s.votes, func(v mofn.Vote) bool {
				return slices.ContainsFunc(names, func(n string) bool { return strings.Contains(v.Name, n) })
			})
		}
	}
	return []verifyCase{
		{name: "everything is there", spoil: func(*scenario) {}},
		{name: "one more than needed", spoil: func(s *scenario) { s.vote("carol", "security", nil) }},
		{name: "the second key of an officer will do", spoil: func(s *scenario) { s.votes = s.votes[1:]; s.vote("alice2", "security", nil) }},
		{name: "order does not matter", spoil: func(s *scenario) { slices.Reverse(s.votes) }},
		{name: "no approvals", want: mofn.ErrThreshold, need: 2, spoil: func(s *scenario) { s.votes = nil }},
		{name: "all: one group is not met", want: mofn.ErrThreshold, need: 2, have: 1, words: "1 more of security: alice or carol", spoil: drop("alice")},
		{name: "all: the other group is not met", want: mofn.ErrThreshold, need: 2, have: 1, words: "1 more of quality: dave or erin", spoil: drop("dave")},
		{
			name: "many of one group do not make up for the other", want: mofn.ErrThreshold, need: 2, have: 1,
			spoil: func(s *scenario) { drop("dave")(s); s.vote("carol", "security", nil) },
		},
		{name: "any: one group of two is enough", spoil: func(s *scenario) { s.replace("release  all", "release any"); drop("dave")(s) }},
		{
			name: "any: none is not enough", want: mofn.ErrThreshold, need: 1, words: "1 more of the groups of release",
			spoil: func(s *scenario) { s.replace("release  all", "release any"); drop("dave", "bob")(s) },
		},
		{name: "k of groups: two of three", spoil: func(s *scenario) { s.replace("release  all security", "release 2 extra security"); s.nest() }},
		{
			name: "k of groups: three of three are not there", want: mofn.ErrThreshold, need: 3, have: 2,
			spoil: func(s *scenario) { s.replace("release  all security", "release 3 extra security"); s.nest() },
		},
		{name: "groups three deep", spoil: func(s *scenario) {
			s.add("group top all release")
			s.replace("models/*   quorum release", "models/* quorum top")
		}},
		{name: "groups three deep, one officer short", want: mofn.ErrThreshold, need: 1, have: 0, spoil: func(s *scenario) {
			s.add("group top all release")
			s.replace("models/*   quorum release", "models/* quorum top")
			drop("bob")(s)
		}},
		{
			name: "an officer of another group does not count", want: mofn.ErrThreshold, need: 2, have: 1,
			spoil: func(s *scenario) { drop("bob")(s); s.vote("frank", "audit", nil) },
		},
		{name: "an officer of another group does no harm", spoil: func(s *scenario) { s.vote("frank", "audit", nil) }},
		{
			name: "unknown key does not count and is not tried", want: mofn.ErrThreshold, need: 2, have: 1, words: "1 by keys that are not enrolled",
			spoil: func(s *scenario) { drop("bob")(s); s.voteAs("mallory", "bob", "security", "security", nil) },
		},
		{name: "unknown key does no harm", spoil: func(s *scenario) { s.voteAs("mallory", "bob", "security", "security", nil) }},
		{name: "unknown key with a broken signature does no harm", spoil: func(s *scenario) {
			s.voteAs("mallory", "bob", "security", "security", nil)
			s.votes[3].Signatures[0].Sig = nil
		}},
		{name: "unknown key twice", want: mofn.ErrDuplicate, spoil: func(s *scenario) {
			s.voteAs("mallory", "bob", "security", "security", nil)
			s.voteAs("mallory", "carol", "security", "security", nil)
		}},
		{name: "revoked: the key left the policy", want: mofn.ErrThreshold, need: 2, have: 1, spoil: func(s *scenario) {
			s.replace("officer bob   key "+s.ring.id("bob"), "officer bob key @mallory")
			s.keys = append(s.keys, trustKey(s.ring["mallory"], "new key of bob"))
		}},
		{name: "require: nobody checked the bytes", want: mofn.ErrThreshold, need: 1, have: 0, words: "who checked bytes", spoil: func(s *scenario) { s.checkedBy("", "bytes") }},
		{name: "require: one did", spoil: func(s *scenario) { s.checkedBy("bob", "bytes") }},
		{name: "require: two of two", spoil: func(s *scenario) { s.replace("checked=bytes:1", "checked=bytes:2") }},
		{name: "require: two, one did", want: mofn.ErrThreshold, need: 2, have: 1, spoil: func(s *scenario) {
			s.replace("checked=bytes:1", "checked=bytes:2")
			s.checkedBy("bob", "bytes")
		}},
		{name: "require: an outsider's check does not count", want: mofn.ErrThreshold, need: 1, have: 0, spoil: func(s *scenario) {
			s.checkedBy("", "bytes")
			s.vote("frank", "audit", nil)
		}},
		{name: "require: two words, one is missing", want: mofn.ErrThreshold, need: 1, have: 0, words: "checked=gate", spoil: func(s *scenario) {
			s.replace("checked=bytes:1", "checked=bytes:1 require checked=gate:1")
		}},
	}
}

// nest adds the group extra, of officer zoe who never approves, above the group release.
func (s *scenario) nest() {
	s.ring["zoe"] = newKey(s.t, "zoe")
	s.keys = append(s.keys, trustKey(s.ring["zoe"], "zoe"))
	s.replace("group release", "officer zoe key @zoe\ngroup extra 1 zoe\ngroup release")
}

// checkedBy signs the three votes again so that only the named officer checked word.
func (s *scenario) checkedBy(only, word string) {
	s.votes = nil
	for officer, role := range map[string]string{"alice": "security", "bob": "security", "dave": "quality"} {
		s.vote(officer, role, func(c *mofn.Claim) {
			c.Checked = []string{"manifest"}
			if officer == only {
				c.Checked = []string{word, "manifest"}
			}
		})
	}
}

func signatureCases() []verifyCase {
	sig := func(s *scenario, i int) *[]byte { return &s.votes[i].Signatures[0].Sig }
	return []verifyCase{
		{name: "one bit of the ML-DSA half", want: mofn.ErrSignature, spoil: func(s *scenario) { (*sig(s, 1))[100] ^= 1 }},
		{name: "one bit of the Ed25519 half", want: mofn.ErrSignature, spoil: func(s *scenario) { (*sig(s, 1))[3309+10] ^= 1 }},
		{name: "Ed25519 half stripped", want: mofn.ErrSignature, spoil: func(s *scenario) { *sig(s, 1) = (*sig(s, 1))[:3309] }},
		{name: "ML-DSA half stripped", want: mofn.ErrSignature, spoil: func(s *scenario) { *sig(s, 1) = (*sig(s, 1))[3309:] }},
		{name: "ML-DSA half zeroed", want: mofn.ErrSignature, spoil: func(s *scenario) { clear((*sig(s, 1))[:3309]) }},
		{name: "Ed25519 half zeroed", want: mofn.ErrSignature, spoil: func(s *scenario) { clear((*sig(s, 1))[3309:]) }},
		{
			name: "halves in the wrong order", want: mofn.ErrSignature,
			spoil: func(s *scenario) { *sig(s, 1) = append(slices.Clone((*sig(s, 1))[3309:]), (*sig(s, 1))[:3309]...) },
		},
		{name: "Ed25519 half of another officer", want: mofn.ErrSignature, spoil: func(s *scenario) {
			other := sign(s.t, s.ring["carol"], "security", s.votes[1].Message)
			*sig(s, 1) = spliced(*sig(s, 1), other)
		}},
		{name: "ML-DSA half of another officer", want: mofn.ErrSignature, spoil: func(s *scenario) {
			other := sign(s.t, s.ring["carol"], "security", s.votes[1].Message)
			*sig(s, 1) = spliced(other, *sig(s, 1))
		}},
		{name: "halves swapped between two votes of one officer's two keys", want: mofn.ErrSignature, spoil: func(s *scenario) {
			other := sign(s.t, s.ring["alice2"], "security", s.votes[0].Message)
			*sig(s, 0) = spliced(*sig(s, 0), other)
		}},
		{name: "trailing byte", want: mofn.ErrSignature, spoil: func(s *scenario) { *sig(s, 1) = append(*sig(s, 1), 0) }},
		{name: "no signature bytes", want: mofn.ErrSignature, spoil: func(s *scenario) { *sig(s, 1) = nil }},
		{name: "no signature at all", want: mofn.ErrTooMany, spoil: func(s *scenario) { s.votes[1].Signatures = nil }},
		{
			name: "role confusion: quality signs as security", want: mofn.ErrSignature,
			spoil: func(s *scenario) { s.votes = s.votes[:1]; s.voteAs("dave", "dave", "security", "security", nil) },
		},
		{
			name: "role confusion: claim in another role than the signature", want: mofn.ErrClaim,
			spoil: func(s *scenario) { s.votes = s.votes[:1]; s.voteAs("bob", "bob", "quality", "security", nil) },
		},
		{
			name: "role confusion: signed as root", want: mofn.ErrSignature,
			spoil: func(s *scenario) { s.votes = s.votes[:1]; s.voteAs("bob", "bob", "security", mofn.RoleRoot, nil) },
		},
		{
			name: "role confusion: a packer approves", want: mofn.ErrSignature, words: "may not approve",
			spoil: func(s *scenario) { s.voteAs("packer2", "packer", "security", "security", nil) },
		},
		{
			name: "an officer of no group approves", want: mofn.ErrSignature, words: "may not approve",
			spoil: func(s *scenario) { s.voteAs("gina", "gina", "security", "security", nil) },
		},
		{
			name: "bad signature outside the quorum refuses too", want: mofn.ErrSignature, words: "frank",
			spoil: func(s *scenario) { s.vote("frank", "audit", nil); (*sig(s, 3))[0] ^= 1 },
		},
		{
			name: "key id in upper case", want: mofn.ErrSignature,
			spoil: func(s *scenario) { k := &s.votes[1].Signatures[0].KeyID; *k = strings.ToUpper(*k) },
		},
		{
			name: "payload swapped under a good signature", want: mofn.ErrSignature, words: "not what was signed",
			spoil: func(s *scenario) { s.votes[1].Payload = s.votes[0].Payload },
		},
		{name: "signed without the pre-authentication encoding", want: mofn.ErrSignature, words: "not what was signed", spoil: func(s *scenario) {
			v := &s.votes[1]
			v.Message = v.Payload
			v.Signatures[0].Sig = sign(s.t, s.ring["bob"], "security", v.Message)
		}},
		{name: "CVE-2020-6173: more approvals than the cap", want: mofn.ErrTooMany, spoil: func(s *scenario) {
			for i := range 30 {
				v := s.votes[0]
				v.Signatures = []mofn.Signature{{KeyID: fmt.Sprintf("%064x", i)}}
				s.votes = append(s.votes, v)
			}
		}},
		{name: "as many approvals as the cap", spoil: func(s *scenario) {
			for i := range 29 {
				v := s.votes[0]
				v.Signatures = []mofn.Signature{{KeyID: fmt.Sprintf("%064x", i)}}
				s.votes = append(s.votes, v)
			}
		}},
	}
}

func claimCases() []verifyCase {
	claim := func(change func(*mofn.Claim)) func(*scenario) {
		return func(s *scenario) {
			s.votes = s.votes[:1]
			s.vote("bob", "security", change)
			s.vote("dave", "quality", nil)
		}
	}
	return []verifyCase{
		{name: "CVE-2026-22703 cosign: for another release", want: mofn.ErrClaim, spoil: claim(func(c *mofn.Claim) { c.ReleaseID[0] ^= 1 })},
		{name: "for another stream", want: mofn.ErrClaim, spoil: claim(func(c *mofn.Claim) { c.Stream = "models/raw" })},
		{name: "for another epoch", want: mofn.ErrClaim, spoil: claim(func(c *mofn.Claim) { c.Epoch++ })},
		{name: "for another seq", want: mofn.ErrClaim, spoil: claim(func(c *mofn.Claim) { c.Seq-- })},
		{name: "names another officer", want: mofn.ErrClaim, words: "the key belongs to bob", spoil: claim(func(c *mofn.Claim) { c.Officer = "carol" })},
		{name: "names the parent group as role", want: mofn.ErrClaim, spoil: claim(func(c *mofn.Claim) { c.Role = "release" })},
		{name: "no decision", want: mofn.ErrClaim, spoil: claim(func(c *mofn.Claim) { c.Decision = "" })},
		{name: "a decision in capitals", want: mofn.ErrClaim, spoil: claim(func(c *mofn.Claim) { c.Decision = "Approve" })},
		{name: "unknown word in checked", want: mofn.ErrClaim, spoil: claim(func(c *mofn.Claim) { c.Checked = []string{"everything"} })},
		{name: "one word twice in checked", want: mofn.ErrClaim, spoil: claim(func(c *mofn.Claim) { c.Checked = []string{"bytes", "bytes"} })},
		{name: "reject by a member of the quorum", want: mofn.ErrRejected, words: "bob", spoil: claim(func(c *mofn.Claim) { c.Decision = mofn.DecisionReject })},
		{name: "one reject beats a quorum without it", want: mofn.ErrRejected, words: "erin", spoil: func(s *scenario) {
			s.vote("erin", "quality", func(c *mofn.Claim) { c.Decision = mofn.DecisionReject })
		}},
		{name: "reject by somebody outside the quorum", spoil: func(s *scenario) {
			s.vote("frank", "audit", func(c *mofn.Claim) { c.Decision = mofn.DecisionReject })
		}},
		{name: "approve and reject by one officer", want: mofn.ErrDuplicate, spoil: func(s *scenario) {
			s.vote("alice2", "security", func(c *mofn.Claim) { c.Decision = mofn.DecisionReject })
		}},
		{name: "CVE-2026-39395 cosign: payload does not parse", want: mofn.ErrClaim, spoil: func(s *scenario) {
			v := &s.votes[1]
			v.Payload = []byte("not JSON")
			v.Message = mofn.PAE(statementType, v.Payload)
			v.Signatures[0].Sig = sign(s.t, s.ring["bob"], "security", v.Message)
		}},
	}
}

func statementCases() []verifyCase {
	resign := func(s *scenario, key, role string) mofn.Signature {
		return signature(s.t, s.ring[key], role, s.packer.message)
	}
	return []verifyCase{
		{name: "packer: the other one", spoil: func(s *scenario) { s.packer.sigs = []mofn.Signature{resign(s, "packer2", "packer")} }},
		{name: "packer: both", want: mofn.ErrDuplicate, spoil: func(s *scenario) { s.packer.sigs = append(s.packer.sigs, resign(s, "packer2", "packer")) }},
		{name: "packer: one twice", want: mofn.ErrDuplicate, spoil: func(s *scenario) { s.packer.sigs = append(s.packer.sigs, s.packer.sigs[0]) }},
		{name: "packer: none", want: mofn.ErrUnknownPacker, spoil: func(s *scenario) { s.packer.sigs = nil }},
		{name: "packer: unknown key", want: mofn.ErrUnknownPacker, spoil: func(s *scenario) { s.packer.sigs = []mofn.Signature{resign(s, "mallory", "packer")} }},
		{name: "packer: unknown key beside it", spoil: func(s *scenario) { s.packer.sigs = append(s.packer.sigs, resign(s, "mallory", "packer")) }},
		{name: "packer: an officer's key", want: mofn.ErrSignature, words: "officer alice", spoil: func(s *scenario) { s.packer.sigs = []mofn.Signature{resign(s, "alice", "packer")} }},
		{name: "packer: in the role of a group", want: mofn.ErrSignature, spoil: func(s *scenario) { s.packer.sigs = []mofn.Signature{resign(s, "packer", "security")} }},
		{name: "packer: other statement", want: mofn.ErrSignature, spoil: func(s *scenario) { s.packer.message = mofn.PAE(statementType, []byte("{}")) }},
		{name: "packer: good signature, but of another release", want: mofn.ErrClaim, words: "not the one with the id", spoil: func(s *scenario) {
			s.packer.message = mofn.PAE(statementType, []byte("{}"))
			s.packer.sigs = []mofn.Signature{resign(s, "packer", "packer")}
		}},
		{name: "packer: payload type changed", want: mofn.ErrSignature, spoil: func(s *scenario) {
			s.packer.message = mofn.PAE("application/json", []byte(`{"a":"release statement"}`))
		}},
		{name: "packer: more signatures than the cap", want: mofn.ErrTooMany, spoil: func(s *scenario) {
			for i := range 32 {
				s.packer.sigs = append(s.packer.sigs, mofn.Signature{KeyID: fmt.Sprintf("%064x", i)})
			}
		}},
		{name: "size at the limit", spoil: func(s *scenario) { s.rel.Size = 1 << 30 }},
		{name: "size above the limit", want: mofn.ErrTooLarge, spoil: func(s *scenario) { s.rel.Size = 1<<30 + 1 }},
		{name: "size below zero", want: mofn.ErrTooLarge, spoil: func(s *scenario) { s.rel.Size = -1 }},
		{name: "no rule for the stream", want: mofn.ErrNoRule, spoil: func(s *scenario) { s.rel.Stream = "policy/site" }},
		{name: "the stream is the prefix of a rule", want: mofn.ErrNoRule, spoil: func(s *scenario) { s.rel.Stream = "models" }},
		{name: "the stream is no name", want: mofn.ErrNoRule, spoil: func(s *scenario) { s.rel.Stream = "models//x" }},
		{name: "the longest pattern wins", want: mofn.ErrClaim, words: "models/llm", spoil: func(s *scenario) { s.rel.Stream = "models/raw" }},
		{name: "half shared by two keys", want: mofn.ErrPolicy, words: "share one half", spoil: func(s *scenario) {
			k := halfOf(s.ring["mallory"], s.ring["alice"])
			s.keys = append(s.keys, mofn.TrustKey{ID: mofn.NewKeyID(mofn.SuiteH1, k), Suite: mofn.SuiteH1, Public: k})
		}},
		{name: "half of an officer in a packer's key", want: mofn.ErrPolicy, words: "share one half", spoil: func(s *scenario) {
			k := halfOf(s.ring["alice"], s.ring["mallory"])
			id := mofn.NewKeyID(mofn.SuiteH1, k)
			s.keys = append(s.keys, mofn.TrustKey{ID: id, Suite: mofn.SuiteH1, Public: k})
			s.add("packer " + id.String())
		}},
	}
}

// TestOpenerSeesOnlySignedBytes: nothing is parsed before its signature verified, whatever else is wrong.
func TestOpenerSeesOnlySignedBytes(t *testing.T) {
	s := newScenario(t)
	s.votes = s.votes[:1]
	s.votes[0].Signatures[0].Sig[0] ^= 1
	s.voteAs("mallory", "bob", "security", "security", nil)
	if _, err := s.run(); !errors.Is(err, mofn.ErrSignature) || s.opened != 0 {
		t.Errorf("opener called %d times, error %v", s.opened, err)
	}
	s.votes = s.votes[1:] // unknown key only
	if _, err := s.run(); !errors.Is(err, mofn.ErrThreshold) || s.opened != 0 {
		t.Errorf("unknown key: opener called %d times, error %v", s.opened, err)
	}
}

func TestApproval(t *testing.T) {
	s := newScenario(t)
	s.vote("frank", "audit", nil)
	a, err := s.run()
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(a.Officers(), []string{"alice", "bob", "dave"}) {
		t.Errorf("officers %v: frank is not of the quorum", a.Officers())
	}
	if a.Hold() != 24*time.Hour || a.Rule() != "models/*" || a.Release() != s.rel || a.Packer() != s.ring["packer"].Public().ID() {
		t.Errorf("approval %+v", a)
	}
	if (mofn.Approval{}).Valid() {
		t.Error("the zero value is valid")
	}
}

// TestRefusalsMatchErrSignature: a caller that knows only the sentinels of the brief never retries a forgery.
func TestRefusalsMatchErrSignature(t *testing.T) {
	for _, err := range []error{mofn.ErrDuplicate, mofn.ErrTooMany, mofn.ErrClaim} {
		if !errors.Is(err, mofn.ErrSignature) {
			t.Errorf("%v is not ErrSignature", err)
		}
	}
}
