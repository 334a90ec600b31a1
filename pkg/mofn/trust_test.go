// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/mofn"
)

// update writes trust-1.json, trust-1.expect.json and trust-2.dsse.json anew. Signing is hedged, so the last one changes.
var update = flag.Bool("update", false, "write the trust vectors anew")

func secretOf(t testing.TB, suite mofn.Suite, name string) *mofn.SecretKey {
	t.Helper()
	seed := sha256.Sum256([]byte("sluice test key " + name))
	s, err := mofn.GenerateSecret(bytes.NewReader(seed[:]), suite, name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// firstTrust is version 1 of the tests; release (two of security and one of quality) is the root.
func firstTrust(t testing.TB, r ring) *mofn.Trust {
	link, hpke := secretOf(t, mofn.SuiteLink, "link"), secretOf(t, mofn.SuiteXWing, "site-a")
	return &mofn.Trust{
		Version: 1, Root: "release", Policy: r.fill(basePolicy), Keys: r.enrolled(),
		Links:     []mofn.LinkKey{{ID: link.ID(), Public: link.Public, Comment: "bastion"}},
		Receivers: []mofn.Receiver{{Name: "site-a", HPKE: hpke.Public, Comment: "enclave"}},
		Epochs:    []mofn.Epoch{{Stream: "models/llm", MinEpoch: 1, MinSeq: 3}, {Stream: "models/raw", MinEpoch: 0, MinSeq: 1}},
		Created:   "2026-11-22T01:40:00Z",
	}
}

func marshal(t testing.TB, trust *mofn.Trust) []byte {
	t.Helper()
	b, err := trust.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// successor is version 2 with the same content.
func successor(t testing.TB, r ring, first *mofn.Trust) *mofn.Trust {
	next := firstTrust(t, r)
	digest := mofn.Fingerprint(marshal(t, first))
	next.Version, next.Prev, next.Created = 2, hex.EncodeToString(digest[:]), "2026-12-01T00:00:00Z"
	return next
}

func rootSigs(t testing.TB, r ring, message []byte, names ...string) []mofn.Signature {
	var out []mofn.Signature
	for _, n := range names {
		out = append(out, signature(t, r[n], mofn.RoleRoot, message))
	}
	return out
}

type rotation struct {
	name    string
	spoil   func(next *mofn.Trust, r ring)
	signers []string
	late    func(payload, message *[]byte, sigs *[]mofn.Signature, r ring) // after signing
	want    error
	words   string
}

func TestRotation(t *testing.T) {
	all := append(rotationCases(), lateCases()...)
	if len(all) < 24 {
		t.Fatalf("only %d cases", len(all))
	}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRing(t)
			current := firstTrust(t, r)
			next := successor(t, r, current)
			if c.spoil != nil {
				c.spoil(next, r)
			}
			if c.signers == nil {
				c.signers = []string{"alice", "bob", "dave"}
			}
			rotate(t, c, r, current, next)
		})
	}
}

func rotate(t *testing.T, c rotation, r ring, current, next *mofn.Trust) {
	payload := rawPayload(t, next)
	message := mofn.PAE(mofn.TrustPayloadType, payload)
	sigs := rootSigs(t, r, message, c.signers...)
	if c.late != nil {
		c.late(&payload, &message, &sigs, r)
	}
	got, err := mofn.VerifyTrust(current, payload, sigs, message)
	if c.want == nil {
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(marshal(t, got), payload) {
			t.Error("the result is not what was signed")
		}
		return
	}
	if !errors.Is(err, c.want) || !errors.Is(err, mofn.ErrTrust) || got != nil {
		t.Fatalf("%v, error %v, want %v", got, err, c.want)
	}
	if !strings.Contains(err.Error(), c.words) {
		t.Errorf("error %q does not say %q", err, c.words)
	}
}

// rawPayload encodes without the checks of Marshal, which would refuse what the test wants to send.
func rawPayload(t *testing.T, next *mofn.Trust) []byte {
	t.Helper()
	b, err := mofn.EncodeTrust(next)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// swap replaces the officers' keys or people in the next policy.
func swap(old, text string) func(*mofn.Trust, ring) {
	return func(next *mofn.Trust, r ring) {
		next.Policy = r.fill(strings.Replace(next.Policy, r.fill(old), r.fill(text), 1))
		next.Keys = append(next.Keys, trustKey(r["mallory"], "new"))
		slices.SortFunc(next.Keys, func(a, b mofn.TrustKey) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	}
}

// rotationCases: in the ring, mallory's key is enrolled only by version 2 (swap).
func rotationCases() []rotation {
	return []rotation{
		{name: "next version, quorum of both"},
		{name: "more signers than needed", signers: []string{"alice", "bob", "carol", "dave", "erin"}},
		{name: "signed by a key of neither, beside the quorum", signers: []string{"alice", "bob", "dave", "mallory"}},
		{name: "new key of bob: old and new sign", spoil: swap("officer bob   key @bob", "officer bob key @mallory"), signers: []string{"alice", "bob", "mallory", "dave"}},
		{name: "C1 tough CVE-2025-2885: version skipped", spoil: func(n *mofn.Trust, _ ring) { n.Version = 3 }, want: mofn.ErrTrust, words: "version 3 does not follow"},
		{name: "same version again", spoil: func(n *mofn.Trust, _ ring) { n.Version, n.Prev = 1, "" }, want: mofn.ErrTrust, words: "version 1 does not follow"},
		{name: "version zero", spoil: func(n *mofn.Trust, _ ring) { n.Version = 0 }, want: mofn.ErrTrust, words: "version 0"},
		{name: "version above 2^53", spoil: func(n *mofn.Trust, _ ring) { n.Version = 1 << 53 }, want: mofn.ErrTrust, words: "2^53"},
		{name: "prev of another object", spoil: func(n *mofn.Trust, _ ring) { n.Prev = strings.Repeat("ab", 32) }, want: mofn.ErrTrust, words: "prev is"},
		{name: "no prev", spoil: func(n *mofn.Trust, _ ring) { n.Prev = "" }, want: mofn.ErrTrust, words: "prev"},
		{name: "prev in capitals", spoil: func(n *mofn.Trust, _ ring) { n.Prev = strings.ToUpper(n.Prev) }, want: mofn.ErrTrust, words: "prev"},
		{name: "nobody signs", signers: []string{}, want: mofn.ErrThreshold, words: "current version 1"},
		{name: "too few sign", signers: []string{"alice", "dave"}, want: mofn.ErrThreshold, words: "current version 1"},
		{name: "T10: one officer with two keys counts once", signers: []string{"alice", "alice2", "dave"}, want: mofn.ErrThreshold, words: "current version 1"},
		{name: "officers outside the root group do not count", signers: []string{"alice", "frank", "gina", "dave"}, want: mofn.ErrThreshold, words: "current version 1"},
		{name: "packers do not count", signers: []string{"alice", "packer", "packer2", "dave"}, want: mofn.ErrThreshold, words: "current version 1"},
		{name: "not signed by the old quorum: only the new key of bob", spoil: swap("officer bob   key @bob", "officer bob key @mallory"), signers: []string{"alice", "mallory", "dave"}, want: mofn.ErrThreshold, words: "current version 1"},
		{name: "not signed by the new quorum: only the old key of bob", spoil: swap("officer bob   key @bob", "officer bob key @mallory"), signers: []string{"alice", "bob", "dave"}, want: mofn.ErrThreshold, words: "new version 2"},
		{name: "new root asks for more", spoil: func(n *mofn.Trust, _ ring) { n.Policy = strings.Replace(n.Policy, "security 2", "security 3", 1) }, want: mofn.ErrThreshold, words: "new version 2"},
		{name: "new root asks for less, the old one still rules", spoil: func(n *mofn.Trust, _ ring) { n.Root = "audit" }, signers: []string{"frank"}, want: mofn.ErrThreshold, words: "current version 1"},
		{name: "new root is another group, both sign", spoil: func(n *mofn.Trust, _ ring) { n.Root = "audit" }, signers: []string{"alice", "bob", "dave", "frank"}},
		{name: "new root is no group", spoil: func(n *mofn.Trust, _ ring) { n.Root = "alice" }, want: mofn.ErrTrust, words: "not a group"},
		{name: "new policy does not load", spoil: func(n *mofn.Trust, _ ring) { n.Policy = strings.Replace(n.Policy, "security 2", "security 0", 1) }, want: mofn.ErrPolicy, words: "line 9"},
	}
}

func lateCases() []rotation {
	return []rotation{
		{
			name: "T1, T2 GMS-2022-4197: one root signature twice", want: mofn.ErrDuplicate,
			late: func(_, _ *[]byte, sigs *[]mofn.Signature, _ ring) { *sigs = append((*sigs)[:2:2], (*sigs)[0]) },
		},
		{name: "signed in the role of a group", want: mofn.ErrSignature, late: func(_, m *[]byte, sigs *[]mofn.Signature, r ring) {
			(*sigs)[0].Sig, _ = r["alice"].Sign("security", *m)
		}},
		{name: "signed in the role of a packer", want: mofn.ErrSignature, late: func(_, m *[]byte, sigs *[]mofn.Signature, r ring) {
			(*sigs)[0].Sig, _ = r["alice"].Sign(mofn.RolePacker, *m)
		}},
		{name: "one bad signature beside a full quorum", want: mofn.ErrSignature, late: func(_, m *[]byte, sigs *[]mofn.Signature, r ring) {
			*sigs = append(*sigs, mofn.Signature{KeyID: r.id("carol"), Sig: (*sigs)[0].Sig})
		}},
		{name: "payload changed after signing", want: mofn.ErrSignature, late: func(p, m *[]byte, _ *[]mofn.Signature, _ ring) {
			*p = bytes.Replace(*p, []byte("2026-12-01"), []byte("2026-12-02"), 1)
			*m = mofn.PAE(mofn.TrustPayloadType, *p)
		}},
		{name: "message of another payload", want: mofn.ErrSignature, words: "not this payload", late: func(p, _ *[]byte, _ *[]mofn.Signature, _ ring) {
			*p = bytes.Replace(*p, []byte("2026-12-01"), []byte("2026-12-02"), 1)
		}},
		{name: "message of another payload type", want: mofn.ErrSignature, words: "not this payload", late: func(p, m *[]byte, sigs *[]mofn.Signature, r ring) {
			*m = mofn.PAE(statementType, *p)
			for i, n := range []string{"alice", "bob", "dave"} {
				(*sigs)[i].Sig, _ = r[n].Sign(mofn.RoleRoot, *m)
			}
		}},
		{name: "more signatures than the cap", want: mofn.ErrTooMany, late: func(_, _ *[]byte, sigs *[]mofn.Signature, _ ring) {
			for range 30 {
				*sigs = append(*sigs, mofn.Signature{})
			}
		}},
	}
}

func TestVerifyTrustNeedsCurrent(t *testing.T) {
	r := newRing(t)
	payload := marshal(t, firstTrust(t, r))
	message := mofn.PAE(mofn.TrustPayloadType, payload)
	if _, err := mofn.VerifyTrust(nil, payload, rootSigs(t, r, message, "alice", "bob", "dave"), message); !errors.Is(err, mofn.ErrTrust) {
		t.Errorf("no current object: %v", err)
	}
	if _, err := mofn.VerifyTrust(&mofn.Trust{}, payload, nil, message); !errors.Is(err, mofn.ErrTrust) {
		t.Errorf("empty current object: %v", err)
	}
}

// TestChain walks three rotations, the root group changing hands on the way.
func TestChain(t *testing.T) {
	r := newRing(t)
	current := firstTrust(t, r)
	for version := int64(2); version <= 4; version++ {
		next := successor(t, r, current)
		next.Version = version
		signers := []string{"alice", "bob", "dave", "frank"}
		if version >= 3 {
			next.Root = "audit"
		}
		if version >= 4 {
			signers = []string{"frank"}
		}
		payload := marshal(t, next)
		message := mofn.PAE(mofn.TrustPayloadType, payload)
		got, err := mofn.VerifyTrust(current, payload, rootSigs(t, r, message, signers...), message)
		if err != nil {
			t.Fatalf("version %d: %v", version, err)
		}
		current = got
	}
}

func TestTrustRoundTrip(t *testing.T) {
	trust := firstTrust(t, newRing(t))
	got, err := mofn.ParseTrust(marshal(t, trust))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(trust, got); diff != "" {
		t.Error(diff)
	}
	if p, err := got.LoadPolicy(); err != nil || len(p.Rules()) != 2 {
		t.Errorf("policy: %v", err)
	}
	trust.Links, trust.Receivers, trust.Epochs = nil, nil, nil
	if !bytes.Contains(marshal(t, trust), []byte(`"links":[],"receivers":[],"epochs":[]`)) {
		t.Error("an empty list is not []")
	}
}

func TestParseTrustRefuses(t *testing.T) {
	r := newRing(t)
	good := marshal(t, firstTrust(t, r))
	for name, c := range map[string]struct{ old, text string }{
		"other type":          {`sluice-trust-v1`, `sluice-trust-v2`},
		"unknown field":       {`"version":1`, `"version":1,"quorum":0`},
		"duplicate field":     {`"version":1`, `"version":1,"version":1`},
		"field in capitals":   {`"version":1`, `"Version":1`},
		"float":               {`"version":1`, `"version":1.0`},
		"exponent":            {`"version":1`, `"version":1e0`},
		"text for a number":   {`"version":1`, `"version":"1"`},
		"null number":         {`"version":1`, `"version":null`},
		"white space":         {`"version":1`, `"version": 1`},
		"escape":              {`"root":"release"`, `"root":"\u0072elease"`},
		"null list":           {`"epochs":[`, `"epochs":null,"x":[`},
		"prev of the first":   {`"prev":""`, `"prev":"` + strings.Repeat("ab", 32) + `"`},
		"created is no time":  {`2026-11-22T01:40:00Z`, `yesterday`},
		"null in a list":      {`"links":[`, `"links":[null,`},
		"epochs out of order": {`"stream":"models/llm"`, `"stream":"models/zzz"`},
		"negative epoch":      {`"min_epoch":1`, `"min_epoch":-1`},
		"stream is no name":   {`"stream":"models/llm"`, `"stream":"Models"`},
		"receiver is no name": {`"name":"site-a"`, `"name":"Site A"`},
		"comment with escape": {`"comment":"enclave"`, `"comment":"a\nb"`},
		"trailing data":       {`Z"}`, `Z"}{}`},
		"trailing newline":    {`Z"}`, "Z\"}\n"},
		"base64 unpadded":     {`=`, ``},
	} {
		if !bytes.Contains(good, []byte(c.old)) {
			t.Fatalf("%s: no %q in the payload", name, c.old)
		}
		bad := bytes.Replace(good, []byte(c.old), []byte(c.text), 1)
		if got, err := mofn.ParseTrust(bad); !errors.Is(err, mofn.ErrTrust) || got != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, b := range map[string][]byte{"nothing": nil, "null": []byte("null"), "array": []byte("[]"), "too long": make([]byte, 4<<20+1)} {
		if _, err := mofn.ParseTrust(b); !errors.Is(err, mofn.ErrTrust) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNullLists: a nil list encodes to null again, so canonical form alone would accept it.
func TestNullLists(t *testing.T) {
	trust := firstTrust(t, newRing(t))
	trust.Links, trust.Receivers, trust.Epochs = nil, nil, nil
	good := marshal(t, trust)
	for _, list := range []string{"links", "receivers", "epochs"} {
		bad := bytes.Replace(good, []byte(`"`+list+`":[]`), []byte(`"`+list+`":null`), 1)
		if _, err := mofn.ParseTrust(bad); !errors.Is(err, mofn.ErrTrust) || !strings.Contains(err.Error(), "null") {
			t.Errorf("%s: %v", list, err)
		}
	}
}

func TestMarshalRefuses(t *testing.T) {
	r := newRing(t)
	aliceHalf := r["alice"].Public().Bytes()[1952:]
	for name, spoil := range map[string]func(*mofn.Trust){
		"keys out of order":     func(t *mofn.Trust) { slices.Reverse(t.Keys) },
		"key twice":             func(t *mofn.Trust) { t.Keys = append(t.Keys[:1:1], t.Keys...) },
		"link twice":            func(t *mofn.Trust) { t.Links = append(t.Links, t.Links[0]) },
		"link under another id": func(t *mofn.Trust) { t.Links[0].ID[0] ^= 1 },
		"low-order link":        func(t *mofn.Trust) { t.Links[0].Public = make([]byte, 32) },
		"link is half of a key": func(t *mofn.Trust) {
			t.Links[0] = mofn.LinkKey{ID: mofn.NewKeyID(mofn.SuiteLink, aliceHalf), Public: aliceHalf}
		},
		"link without key":        func(t *mofn.Trust) { t.Links[0].Public = nil },
		"receiver twice":          func(t *mofn.Trust) { t.Receivers = append(t.Receivers, t.Receivers[0]) },
		"receiver key too short":  func(t *mofn.Trust) { t.Receivers[0].HPKE = t.Receivers[0].HPKE[1:] },
		"receiver key no ML-KEM":  func(t *mofn.Trust) { t.Receivers[0].HPKE = bytes.Repeat([]byte{0xff}, 1216) },
		"stream twice":            func(t *mofn.Trust) { t.Epochs[1] = t.Epochs[0] },
		"floor above 2^53":        func(t *mofn.Trust) { t.Epochs[0].MinSeq = 1 << 53 },
		"too many links":          func(t *mofn.Trust) { t.Links = make([]mofn.LinkKey, 65) },
		"too many receivers":      func(t *mofn.Trust) { t.Receivers = make([]mofn.Receiver, 513) },
		"too many epochs":         func(t *mofn.Trust) { t.Epochs = make([]mofn.Epoch, 4097) },
		"too many keys":           func(t *mofn.Trust) { t.Keys = make([]mofn.TrustKey, 513) },
		"comment too long":        func(t *mofn.Trust) { t.Keys[0].Comment = strings.Repeat("x", 257) },
		"comment with a newline":  func(t *mofn.Trust) { t.Links[0].Comment = "a\nb" },
		"comment is not UTF-8":    func(t *mofn.Trust) { t.Receivers[0].Comment = "\xff" },
		"policy is not UTF-8":     func(t *mofn.Trust) { t.Policy += "# \xff" },
		"no root":                 func(t *mofn.Trust) { t.Root = "" },
		"no policy":               func(t *mofn.Trust) { t.Policy = "" },
		"no time":                 func(t *mofn.Trust) { t.Created = "" },
		"no keys for this policy": func(t *mofn.Trust) { t.Keys = nil },
	} {
		trust := firstTrust(t, r)
		spoil(trust)
		if _, err := trust.Marshal(); !errors.Is(err, mofn.ErrTrust) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type trustExpect struct {
	Fingerprint string   `json:"fingerprint"`
	Words       []string `json:"words"`
}

// dsse is as much of envelope.md section 2 as the vector needs.
type dsse struct {
	Payload     []byte `json:"payload"`
	PayloadType string `json:"payloadType"`
	Signatures  []struct {
		KeyID string `json:"keyid"`
		Sig   []byte `json:"sig"`
	} `json:"signatures"`
}

func TestTrustVectors(t *testing.T) {
	r := newRing(t)
	first := firstTrust(t, r)
	if *update {
		writeTrustVectors(t, r, first)
	}
	payload := readVector(t, "trust-1.json")
	if !bytes.Equal(payload, marshal(t, first)) {
		t.Error("trust-1.json is not what this code writes")
	}
	var want trustExpect
	if err := json.Unmarshal(readVector(t, "trust-1.expect.json"), &want); err != nil {
		t.Fatal(err)
	}
	digest := mofn.Fingerprint(payload)
	if diff := cmp.Diff(want, trustExpect{hex.EncodeToString(digest[:]), mofn.Words(digest[:])}); diff != "" {
		t.Error(diff)
	}
	var d dsse
	if err := json.Unmarshal(readVector(t, "trust-2.dsse.json"), &d); err != nil {
		t.Fatal(err)
	}
	var sigs []mofn.Signature
	for _, s := range d.Signatures {
		sigs = append(sigs, mofn.Signature{KeyID: s.KeyID, Sig: s.Sig})
	}
	next, err := mofn.VerifyTrust(first, d.Payload, sigs, mofn.PAE(d.PayloadType, d.Payload))
	if err != nil || next.Version != 2 {
		t.Errorf("trust-2.dsse.json: %v", err)
	}
}

func writeTrustVectors(t *testing.T, r ring, first *mofn.Trust) {
	payload := marshal(t, first)
	digest := mofn.Fingerprint(payload)
	expect, err := json.Marshal(trustExpect{hex.EncodeToString(digest[:]), mofn.Words(digest[:])})
	if err != nil {
		t.Fatal(err)
	}
	d := dsse{Payload: marshal(t, successor(t, r, first)), PayloadType: mofn.TrustPayloadType}
	for _, s := range rootSigs(t, r, mofn.PAE(d.PayloadType, d.Payload), "alice", "bob", "dave") {
		d.Signatures = append(d.Signatures, struct {
			KeyID string `json:"keyid"`
			Sig   []byte `json:"sig"`
		}{s.KeyID, s.Sig})
	}
	second, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"trust-1.json": payload, "trust-1.expect.json": append(expect, '\n'), "trust-2.dsse.json": second} {
		if err := os.WriteFile(filepath.Join(vectors, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWordList(t *testing.T) {
	// The well-known SHA-256 of the English list of BIP-39, one word a line.
	const want = "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda"
	if got := sha256.Sum256([]byte(mofn.WordList())); hex.EncodeToString(got[:]) != want {
		t.Errorf("word list has SHA-256 %x", got)
	}
}

func TestWords(t *testing.T) {
	repeat := func(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }
	for _, c := range []struct {
		digest []byte
		want   string
	}{
		{repeat(0), "abandon abandon abandon abandon abandon abandon abandon abandon"},
		{repeat(0xff), "zoo zoo zoo zoo zoo zoo zoo zoo"},
		// 0x7f7f...: the first eight words of the BIP-39 test vector of that entropy.
		{repeat(0x7f), "legal winner thank year wave sausage worth useful"},
		{repeat(0x80), "letter advice cage absurd amount doctor acoustic avoid"},
	} {
		if got := strings.Join(mofn.Words(c.digest), " "); got != c.want {
			t.Errorf("%x: %s", c.digest[:2], got)
		}
	}
	if mofn.Words(make([]byte, 10)) != nil || len(mofn.Words(make([]byte, 11))) != 8 {
		t.Error("short digest")
	}
}
