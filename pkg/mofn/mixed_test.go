// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/pkg/mofn"
)

// mixedRing is newRing where some have keys of suite H2: bob, dave, the second key of alice, and one of the packers.
func mixedRing(t testing.TB) ring {
	r := newRing(t)
	for _, name := range []string{"alice2", "bob", "dave", "packer"} {
		r[name] = newKeyOf(t, mofn.SuiteH2, name)
	}
	return r
}

// TestMixedSuites: a policy counts people whatever the suite of their keys.
func TestMixedSuites(t *testing.T) {
	s := bareScenario(t, mixedRing(t))
	s.vote("alice", "security", nil)
	s.vote("bob", "security", nil)
	_, err := s.run()
	var short *mofn.ThresholdError
	if !errors.As(err, &short) || short.Have != 1 {
		t.Errorf("without quality: %v", err)
	}
	s.vote("dave", "quality", nil)
	a, err := s.run()
	if err != nil || strings.Join(a.Officers(), " ") != "alice bob dave" {
		t.Fatalf("%v, %v", a.Officers(), err)
	}
	if p := mustPolicy(t, s.policy, s.keys); len(p.Packers()) != 2 || a.Packer() != s.ring["packer"].KeyID() {
		t.Errorf("packer %v", a.Packer())
	}
	// One person with a key of each suite is one person.
	s.vote("alice2", "security", nil)
	if _, err := s.run(); !errors.Is(err, mofn.ErrDuplicate) {
		t.Errorf("alice in both suites: %v", err)
	}
}

const suitesPolicy = `# officers of both suites
officer alice key @alice
officer bob   key @bob
officer dave  key @dave
group security 2 alice bob
group quality  1 dave
group release  all security quality
packer @packer
rule stream models/* quorum release
`

// suitesTrust is a trust object of four keys; extra keys may be enrolled that nobody uses, and bob's may be replaced.
func suitesTrust(r ring, bob *mofn.TrustKey, extra ...mofn.TrustKey) *mofn.Trust {
	keys := slices.Clone(extra)
	for _, name := range []string{"alice", "dave", "packer"} {
		keys = append(keys, trustKey(r[name], name))
	}
	if bob == nil {
		own := trustKey(r["bob"], "bob")
		bob = &own
	}
	keys = append(keys, *bob)
	slices.SortFunc(keys, func(a, b mofn.TrustKey) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	policy := r.fill(strings.Replace(suitesPolicy, "@bob", bob.ID.String(), 1))
	return &mofn.Trust{Version: 1, Root: "release", Policy: policy, Keys: keys, Created: "2026-11-22T01:40:00Z"}
}

// suitesCase is a vector suites-NAME.json; words is of the refusal, "" for a good one.
type suitesCase struct {
	name  string
	trust *mofn.Trust
	words string
}

func suitesCases(t testing.TB, r ring) []suitesCase {
	raw := func(suite mofn.Suite, public ...[]byte) *mofn.TrustKey {
		b := slices.Concat(public...)
		return &mofn.TrustKey{ID: mofn.NewKeyID(suite, b), Suite: suite, Public: b, Comment: "spoilt"}
	}
	bob, dave, alice := r["bob"].Public().Bytes(), r["dave"].Public().Bytes(), r["alice"].Public().Bytes()
	mallory := newKeyOf(t, mofn.SuiteH2, "mallory").Public().Bytes()
	offCurve, zero, hybrid := slices.Clone(bob), slices.Clone(bob), slices.Clone(bob)
	offCurve[2688] ^= 1
	clear(zero[32:2592])
	hybrid[2592] = 6 + hybrid[2688]&1
	h2 := newRing(t)
	for _, name := range []string{"alice", "bob", "dave", "packer"} {
		h2[name] = newKeyOf(t, mofn.SuiteH2, name)
	}
	return []suitesCase{
		{"mixed.good", suitesTrust(r, nil), ""},
		{"h2-only.good", suitesTrust(h2, nil), ""},
		{"shared-ecdsa.bad", suitesTrust(r, nil, *raw(mofn.SuiteH2, mallory[:2592], dave[2592:])), "share one half"},
		{"shared-ml-dsa-87.bad", suitesTrust(r, nil, *raw(mofn.SuiteH2, dave[:2592], mallory[2592:])), "share one half"},
		{"h2-as-h1.bad", suitesTrust(r, raw(mofn.SuiteH1, bob)), "has 2689 bytes, not 1984"},
		{"h1-as-h2.bad", suitesTrust(r, raw(mofn.SuiteH2, alice)), "has 1984 bytes, not 2689"},
		{"unknown.bad", suitesTrust(r, raw("H3", bob)), "does not sign statements"},
		{"off-curve.bad", suitesTrust(r, raw(mofn.SuiteH2, offCurve)), "not an uncompressed point"},
		{"hybrid-point.bad", suitesTrust(r, raw(mofn.SuiteH2, hybrid)), "not an uncompressed point"},
		{"compressed.bad", suitesTrust(r, raw(mofn.SuiteH2, bob[:2592], []byte{2 + bob[2688]&1}, bob[2593:2641])), "has 2641 bytes"},
		{"zero-t1.bad", suitesTrust(r, raw(mofn.SuiteH2, zero)), "anybody can sign"},
	}
}

func TestSuiteVectors(t *testing.T) {
	cases := suitesCases(t, mixedRing(t))
	names, err := filepath.Glob(filepath.Join(vectors, "suites-*.json"))
	if !*update && (err != nil || len(names) != len(cases)+1) {
		t.Errorf("%d files of vectors for %d cases and a successor, %v", len(names), len(cases), err)
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			payload, file := rawPayload(t, c.trust), "suites-"+c.name+".json"
			if *update {
				if err := os.WriteFile(filepath.Join(vectors, file), payload, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(readVector(t, file), payload) {
				t.Errorf("%s is not what this code writes", file)
			}
			_, err := mofn.ParseTrust(payload)
			if good := strings.HasSuffix(c.name, ".good"); good != (err == nil) || err != nil && (!errors.Is(err, mofn.ErrTrust) || !strings.Contains(err.Error(), c.words)) {
				t.Errorf("%v; want %q", err, c.words)
			}
		})
	}
}

// suitesNext is the envelope of a successor of suites-mixed.good.json, signed by alice with H1 and by bob and dave with H2.
const suitesNext = "suites-mixed.next.json"

type dsseFile struct {
	Payload     []byte     `json:"payload"`
	PayloadType string     `json:"payloadType"`
	Signatures  []dsseSign `json:"signatures"`
}

type dsseSign struct {
	KeyID string `json:"keyid"`
	Sig   []byte `json:"sig"`
}

func TestSuiteSuccessor(t *testing.T) {
	r := mixedRing(t)
	current := suitesTrust(r, nil)
	digest := mofn.Fingerprint(marshal(t, current))
	next := suitesTrust(r, nil)
	next.Version, next.Prev, next.Created = 2, hex.EncodeToString(digest[:]), "2026-12-01T00:00:00Z"
	payload := marshal(t, next)
	message := mofn.PAE(mofn.TrustPayloadType, payload)
	if *update {
		d := dsseFile{Payload: payload, PayloadType: mofn.TrustPayloadType}
		for _, s := range rootSigs(t, r, message, "alice", "bob", "dave") {
			d.Signatures = append(d.Signatures, dsseSign(s))
		}
		b, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(vectors, suitesNext), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var d dsseFile
	if err := json.Unmarshal(readVector(t, suitesNext), &d); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(d.Payload, payload) {
		t.Fatalf("%s is not what this code writes", suitesNext)
	}
	var sigs []mofn.Signature
	for _, s := range d.Signatures {
		sigs = append(sigs, mofn.Signature(s))
	}
	if _, err := mofn.VerifyTrust(current, d.Payload, sigs, message); err != nil {
		t.Error(err)
	}
	sigs[1].Sig[4640] ^= 1 // in the ECDSA half of bob
	if _, err := mofn.VerifyTrust(current, d.Payload, sigs, message); !errors.Is(err, mofn.ErrSignature) {
		t.Errorf("a bit of the ECDSA half of bob: %v", err)
	}
}
