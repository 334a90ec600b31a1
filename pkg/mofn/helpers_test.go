// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/pkg/mofn"
)

// vectors is the folder of trust.md section 5.
const vectors = "../../testdata/vectors/trust"

// cheap keeps the tests fast; the format does not depend on it.
func cheap() mofn.ScryptParams { return mofn.ScryptParams{N: 4, R: 1, P: 1} }

// newKey gives the same H1 key for the same name every time, so that files under testdata can be made again.
func newKey(t testing.TB, name string) *mofn.PrivateKey { return newKeyOf(t, mofn.SuiteH1, name) }

// newKeyOf is newKey of a suite.
func newKeyOf(t testing.TB, suite mofn.Suite, name string) *mofn.PrivateKey {
	t.Helper()
	k, err := mofn.GenerateKey(suite, bytes.NewReader(testRandom(suite, name)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// testRandom are the random bytes of a signing key (testdata/vectors/trust/README.md).
func testRandom(suite mofn.Suite, name string) []byte {
	if suite == mofn.SuiteH1 {
		seed := sha512.Sum512([]byte("sluice test key " + name))
		return seed[:]
	}
	mldsa := sha256.Sum256([]byte("sluice test key ML-DSA-87 " + name))
	p384 := sha512.Sum384([]byte("sluice test key ECDSA-P384 " + name))
	return append(mldsa[:], p384[:]...)
}

// ring is a set of test keys by name.
type ring map[string]*mofn.PrivateKey

// people: alice has two keys; frank is in a group outside the quorum; gina is in no group; mallory is nobody.
func newRing(t testing.TB) ring {
	r := ring{}
	for _, name := range []string{"alice", "alice2", "bob", "carol", "dave", "erin", "frank", "gina", "mallory", "packer", "packer2"} {
		r[name] = newKey(t, name)
	}
	return r
}

func (r ring) id(name string) string { return r[name].Public().ID().String() }

// enrolled is everybody but mallory, sorted by id.
func (r ring) enrolled() []mofn.TrustKey {
	var out []mofn.TrustKey
	for name, k := range r {
		if name != "mallory" {
			out = append(out, trustKey(k, name))
		}
	}
	slices.SortFunc(out, func(a, b mofn.TrustKey) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return out
}

func trustKey(k *mofn.PrivateKey, comment string) mofn.TrustKey {
	return mofn.TrustKey{ID: k.Public().ID(), Suite: k.Public().Suite(), Public: k.Public().Bytes(), Comment: comment}
}

// fill replaces @name by the key id of name.
func (r ring) fill(text string) string {
	all := make([]string, 0, len(r))
	for name := range r {
		all = append(all, name)
	}
	slices.SortFunc(all, func(a, b string) int { return len(b) - len(a) }) // alice2 before alice
	for _, name := range all {
		text = strings.ReplaceAll(text, "@"+name, r.id(name))
	}
	return text
}

const basePolicy = `# two of security and one of quality
officer alice key @alice key @alice2
officer bob   key @bob
officer carol key @carol
officer dave  key @dave
officer erin  key @erin
officer frank key @frank
officer gina  key @gina
group security 2 alice bob carol
group quality  any dave erin
group release  all security quality
group audit    1 frank
packer @packer
packer @packer2
rule stream models/*   quorum release hold 24h max-size 1GiB require checked=bytes:1
rule stream models/raw quorum security hold 72h
`

func sign(t testing.TB, k *mofn.PrivateKey, role string, message []byte) []byte {
	t.Helper()
	sig, err := k.Sign(role, message)
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func signature(t testing.TB, k *mofn.PrivateKey, role string, message []byte) mofn.Signature {
	return mofn.Signature{KeyID: k.Public().ID().String(), Sig: sign(t, k, role, message)}
}

// statementType is the payload type of releases and approvals (envelope.md section 2).
const statementType = "application/vnd.in-toto+json"

// openJSON is the opener of these tests: a claim as plain JSON.
func openJSON(payload []byte) (mofn.Claim, error) {
	var c mofn.Claim
	return c, json.Unmarshal(payload, &c)
}

// scenario is one release with its approvals, to be spoilt by a test.
type scenario struct {
	t      testing.TB
	ring   ring
	policy string
	keys   []mofn.TrustKey
	rel    mofn.Release
	packer struct {
		message []byte
		sigs    []mofn.Signature
	}
	votes  []mofn.Vote
	opened int // how often the opener was called
}

// newScenario is a release that passes: alice and bob for security, dave for quality, alice checked the bytes.
func newScenario(t testing.TB) *scenario {
	s := bareScenario(t, newRing(t))
	s.vote("alice", "security", nil)
	s.vote("bob", "security", nil)
	s.vote("dave", "quality", nil)
	return s
}

// bareScenario has no votes.
func bareScenario(t testing.TB, r ring) *scenario {
	s := &scenario{t: t, ring: r}
	s.policy, s.keys = s.ring.fill(basePolicy), s.ring.enrolled()
	statement := []byte(`{"a":"release statement"}`)
	s.rel = mofn.Release{ID: sha256.Sum256(statement), Stream: "models/llm", Epoch: 1, Seq: 41, Size: 1 << 20}
	s.packer.message = mofn.PAE(statementType, statement)
	s.packer.sigs = []mofn.Signature{signature(t, s.ring["packer"], mofn.RolePacker, s.packer.message)}
	return s
}

// claim is a correct approval.
func (s *scenario) claim(officer, role string) mofn.Claim {
	return mofn.Claim{
		ReleaseID: s.rel.ID, Stream: s.rel.Stream, Epoch: s.rel.Epoch, Seq: s.rel.Seq,
		Role: role, Officer: officer, Decision: mofn.DecisionApprove, Checked: []string{"bytes", "manifest"},
	}
}

// vote adds an approval signed with the key of the name; spoil may change the claim before it is signed.
func (s *scenario) vote(name, role string, spoil func(*mofn.Claim)) {
	s.voteAs(name, strings.TrimRight(name, "2"), role, role, spoil)
}

// voteAs signs with key in signRole a claim by officer in claimRole.
func (s *scenario) voteAs(key, officer, claimRole, signRole string, spoil func(*mofn.Claim)) {
	c := s.claim(officer, claimRole)
	if spoil != nil {
		spoil(&c)
	}
	payload, err := json.Marshal(c)
	if err != nil {
		s.t.Fatal(err)
	}
	message := mofn.PAE(statementType, payload)
	s.votes = append(s.votes, mofn.Vote{
		Name: claimRole + "." + officer + ".json", Payload: payload, Message: message,
		Signatures: []mofn.Signature{signature(s.t, s.ring[key], signRole, message)},
	})
}

func (s *scenario) open(payload []byte) (mofn.Claim, error) {
	s.opened++
	return openJSON(payload)
}

// run loads the policy and verifies.
func (s *scenario) run() (mofn.Approval, error) {
	p, err := mofn.ParsePolicy(s.policy, s.keys)
	if err != nil {
		return mofn.Approval{}, err
	}
	return p.Verify(s.rel, s.packer.message, s.packer.sigs, s.votes, s.open)
}

// replace changes one line of the policy.
func (s *scenario) replace(old, text string) {
	s.t.Helper()
	if !strings.Contains(s.policy, old) {
		s.t.Fatalf("the policy has no %q", old)
	}
	s.policy = s.ring.fill(strings.Replace(s.policy, old, text, 1))
}

func (s *scenario) add(line string) { s.policy += s.ring.fill(line) + "\n" }

func mustPolicy(t testing.TB, text string, keys []mofn.TrustKey) *mofn.Policy {
	t.Helper()
	p, err := mofn.ParsePolicy(text, keys)
	if err != nil {
		t.Fatalf("policy: %v\n%s", err, text)
	}
	return p
}

func readVector(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(vectors, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
