// SPDX-License-Identifier: Apache-2.0

package mofn

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	// maxVotes and maxSignatures are the caps of envelope.md section 1; they bound the work of hostile input to about 10 ms
	// under keys of suite H1 and 40 ms under those of H2 (CVE-2020-6173 was thousands of bad signatures).
	maxVotes      = 32
	maxSignatures = 32
)

// Signature is one signature of a DSSE envelope.
type Signature struct {
	KeyID string // 64 hexadecimal digits, a hint from outside
	Sig   []byte
}

// Release is what the verified release statement says, as far as the policy needs it.
type Release struct {
	ID         [sha256.Size]byte // SHA-256 of the payload that the packer signed
	Stream     string
	Epoch, Seq int64
	Size       int64 // bytes of all files
}

// Claim is what one approval says (envelope.md section 7).
type Claim struct {
	ReleaseID  [sha256.Size]byte
	Stream     string
	Epoch, Seq int64
	Role       string   // the officer's group
	Officer    string   // who says so
	Decision   string   // DecisionApprove or DecisionReject
	Checked    []string // sorted words out of bytes, gate, inspection, manifest
}

// The two decisions of an officer.
const (
	DecisionApprove = "approve"
	DecisionReject  = "reject"
)

// Vote is one approval as it was received.
type Vote struct {
	Name       string // of its section, for messages
	Payload    []byte
	Message    []byte // the DSSE pre-authentication encoding of Payload, what was signed
	Signatures []Signature
}

// Opener parses the payload of an approval. It is called only with bytes whose signature verified.
type Opener func(payload []byte) (Claim, error)

// Approval is the proof that a release met the policy. Only Policy.Verify makes a valid one, so a function that takes an
// Approval cannot be called for a release that nobody answered for. The zero value is not valid.
type Approval struct {
	release  Release
	packer   KeyID
	officers []string
	rule     Rule
	valid    bool
}

// Valid reports whether Policy.Verify made this value.
func (a Approval) Valid() bool { return a.valid }

// Release is the release that was approved.
func (a Approval) Release() Release { return a.release }

// Packer is the key that signed the release statement.
func (a Approval) Packer() KeyID { return a.packer }

// Officers are the names of the approving officers of the quorum, sorted.
func (a Approval) Officers() []string { return slices.Clone(a.officers) }

// Hold is the time from verification to publication, at least.
func (a Approval) Hold() time.Duration { return a.rule.Hold }

// Chain reports whether the rule wants an unbroken succession: publish only when the release's prev is what was published last
// in its stream here.
func (a Approval) Chain() bool { return a.rule.Chain }

// Rule is the pattern of the rule that was met.
func (a Approval) Rule() string { return a.rule.Pattern }

// VerifyPacker checks the signatures of a release statement; message is its pre-authentication encoding. Exactly one packer key
// must have signed, in the role packer. A bad signature by an enrolled key, or one by an officer's key, refuses everything
// (ErrSignature); signatures by other keys are ignored and never tried.
func (p *Policy) VerifyPacker(message []byte, sigs []Signature) (KeyID, error) {
	known, unknown, err := p.sort(sigs)
	if err != nil {
		return KeyID{}, fmt.Errorf("release statement: %w", err)
	}
	for _, s := range known {
		if o, ok := p.owner[s.id]; ok {
			return KeyID{}, fmt.Errorf("release statement: %w: it is signed with a key of officer %s; only packers sign statements", ErrSignature, o.name)
		}
	}
	switch {
	case len(known) == 0:
		return KeyID{}, fmt.Errorf("%w (%d by keys that are not enrolled were not tried)", ErrUnknownPacker, unknown)
	case len(known) > 1:
		return KeyID{}, fmt.Errorf("release statement: %w: %d packers signed, exactly one must", ErrDuplicate, len(known))
	}
	only := known[0]
	if err := p.keys[only.id].Verify(RolePacker, message, only.sig); err != nil {
		return KeyID{}, fmt.Errorf("release statement, signature of the packer: %w", err)
	}
	return only.id, nil
}

// identified is a signature whose key is enrolled.
type identified struct {
	id  KeyID
	sig []byte
}

// sort separates signatures by enrolled keys from others. It looks at ids only: too many, a malformed id, or one id twice
// refuse the whole list.
func (p *Policy) sort(sigs []Signature) (known []identified, unknown int, err error) {
	if len(sigs) > maxSignatures {
		return nil, 0, fmt.Errorf("%w: %d, at most %d", ErrTooMany, len(sigs), maxSignatures)
	}
	seen := map[KeyID]bool{}
	for _, s := range sigs {
		id, err := ParseKeyID(s.KeyID)
		if err != nil {
			return nil, 0, fmt.Errorf("%w: %w", ErrSignature, err)
		}
		if seen[id] {
			return nil, 0, fmt.Errorf("%w: key %v", ErrDuplicate, id)
		}
		seen[id] = true
		if _, ok := p.keys[id]; !ok {
			unknown++
			continue
		}
		known = append(known, identified{id: id, sig: s.Sig})
	}
	return known, unknown, nil
}

// Verify decides about a release: the packer's signature, then every approval, then the quorum (trust.md section 3,
// "Verification of a release"). packerMessage is the pre-authentication encoding of the statement whose SHA-256 is rel.ID.
// Errors: ErrSignature, ErrUnknownPacker, ErrDuplicate, ErrTooMany, ErrClaim, ErrNoRule, ErrTooLarge, ErrRejected, or a
// *ThresholdError, which alone can be cured by more approvals.
func (p *Policy) Verify(rel Release, packerMessage []byte, packerSigs []Signature, votes []Vote, open Opener) (Approval, error) {
	packer, err := p.VerifyPacker(packerMessage, packerSigs)
	if err != nil {
		return Approval{}, err
	}
	if err := rel.boundTo(packerMessage); err != nil {
		return Approval{}, err
	}
	rule, err := p.ruleFor(rel)
	if err != nil {
		return Approval{}, err
	}
	t, err := p.tally(rel, votes, open)
	if err != nil {
		return Approval{}, err
	}
	if err := p.decide(rule, t); err != nil {
		return Approval{}, err
	}
	return Approval{release: rel, packer: packer, officers: t.approving(p.groups[rule.Quorum]), rule: rule, valid: true}, nil
}

// boundTo makes sure that the statement the packer signed is the one whose id the caller uses (CVE-2026-22703 of cosign: a
// verified entry that spoke of another artifact).
func (r *Release) boundTo(packerMessage []byte) error {
	_, payload, ok := splitPAE(packerMessage)
	if !ok || sha256.Sum256(payload) != r.ID {
		return fmt.Errorf("%w: the signed statement is not the one with the id %x", ErrClaim, r.ID)
	}
	return nil
}

// ruleFor finds the rule and applies what it says about the release alone.
func (p *Policy) ruleFor(rel Release) (Rule, error) {
	rule, err := p.Rule(rel.Stream)
	if err != nil {
		return Rule{}, err
	}
	if rel.Size < 0 || rule.MaxSize > 0 && rel.Size > rule.MaxSize {
		return Rule{}, fmt.Errorf("%w: %d bytes in stream %s, the rule for %s allows %d", ErrTooLarge, rel.Size, rel.Stream, rule.Pattern, rule.MaxSize)
	}
	return rule, nil
}

// tally is the set of approvals that verified, a map by person.
type tally struct {
	claims  map[*officer]Claim
	unknown int
}

func (t *tally) approves(o *officer) bool { return t.claims[o].Decision == DecisionApprove }
func (t *tally) rejects(o *officer) bool  { return t.claims[o].Decision == DecisionReject }

// approving are the names of the officers of g who approve, sorted.
func (t *tally) approving(g *group) []string { return t.who(g, t.approves) }

func (t *tally) who(g *group, yes func(*officer) bool) []string {
	var out []string
	for o := range t.claims {
		if yes(o) && g.holds(o) {
			out = append(out, o.name)
		}
	}
	slices.Sort(out)
	return out
}

// checked counts approving officers of g who checked word.
func (t *tally) checked(g *group, word string) int {
	return len(t.who(g, func(o *officer) bool { return t.approves(o) && slices.Contains(t.claims[o].Checked, word) }))
}

// tally looks at every approval. Anything wrong with one by an enrolled key refuses all: what lies in an envelope next to a
// forgery is not to be trusted either.
func (p *Policy) tally(rel Release, votes []Vote, open Opener) (*tally, error) {
	if len(votes) > maxVotes {
		return nil, fmt.Errorf("%w: %d approvals, at most %d", ErrTooMany, len(votes), maxVotes)
	}
	t := &tally{claims: map[*officer]Claim{}}
	seen := map[KeyID]bool{}
	for _, v := range votes {
		id, err := v.signer()
		if err != nil {
			return nil, fmt.Errorf("approval %q: %w", shorten(v.Name), err)
		}
		if seen[id] {
			return nil, fmt.Errorf("approval %q: %w: key %v", shorten(v.Name), ErrDuplicate, id)
		}
		seen[id] = true
		key, ok := p.keys[id]
		if !ok {
			t.unknown++
			continue
		}
		if err := t.count(v, p.owner[id], key, rel, open); err != nil {
			return nil, fmt.Errorf("approval %q: %w", shorten(v.Name), err)
		}
	}
	return t, nil
}

// signer is the key id of the only signature.
func (v *Vote) signer() (KeyID, error) {
	if len(v.Signatures) != 1 {
		return KeyID{}, fmt.Errorf("%w: %d signatures, an approval has exactly one", ErrTooMany, len(v.Signatures))
	}
	id, err := ParseKeyID(v.Signatures[0].KeyID)
	if err != nil {
		return KeyID{}, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return id, nil
}

// count verifies one approval by an enrolled key, then opens it, then checks that it fits. who is nil for a packer's key.
func (t *tally) count(v Vote, who *officer, key *PublicKey, rel Release, open Opener) error {
	if who == nil || who.group == nil {
		return fmt.Errorf("%w: key %v may not approve: it belongs to a packer or to an officer of no group", ErrSignature, key.ID())
	}
	if err := key.Verify(who.group.name, v.Message, v.Signatures[0].Sig); err != nil {
		return fmt.Errorf("%w (officer %s, role %s)", err, who.name, who.group.name)
	}
	if _, payload, ok := splitPAE(v.Message); !ok || !bytes.Equal(payload, v.Payload) {
		return fmt.Errorf("%w: the payload is not what was signed", ErrSignature)
	}
	claim, err := open(v.Payload)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrClaim, err)
	}
	if err := claim.fits(who, rel); err != nil {
		return err
	}
	if _, twice := t.claims[who]; twice {
		return fmt.Errorf("%w: officer %s approves twice", ErrDuplicate, who.name)
	}
	t.claims[who] = claim
	return nil
}

// fits checks that the approval is by the person who signed it and about this release.
func (c *Claim) fits(who *officer, rel Release) error {
	switch {
	case c.Officer != who.name:
		return fmt.Errorf("%w: it names officer %q, the key belongs to %s", ErrClaim, shorten(c.Officer), who.name)
	case c.Role != who.group.name:
		return fmt.Errorf("%w: it is given in the role %q, %s acts as %s", ErrClaim, shorten(c.Role), who.name, who.group.name)
	case c.ReleaseID != rel.ID:
		return fmt.Errorf("%w: it is for release %x, not %x", ErrClaim, c.ReleaseID, rel.ID)
	case c.Stream != rel.Stream:
		return fmt.Errorf("%w: it is for stream %q, not %q", ErrClaim, shorten(c.Stream), shorten(rel.Stream))
	case c.Epoch != rel.Epoch || c.Seq != rel.Seq:
		return fmt.Errorf("%w: it is for epoch %d seq %d, not epoch %d seq %d", ErrClaim, c.Epoch, c.Seq, rel.Epoch, rel.Seq)
	case c.Decision != DecisionApprove && c.Decision != DecisionReject:
		return fmt.Errorf("%w: decision %q is neither approve nor reject", ErrClaim, shorten(c.Decision))
	}
	return checkChecked(c.Checked)
}

// checkChecked wants a strictly sorted list of known words: a word given twice must not look like two.
func checkChecked(list []string) error {
	for i, word := range list {
		if !slices.Contains(checkedWords(), word) {
			return fmt.Errorf("%w: unknown word %q in checked", ErrClaim, shorten(word))
		}
		if i > 0 && list[i-1] >= word {
			return fmt.Errorf("%w: checked is not strictly sorted at %q", ErrClaim, word)
		}
	}
	return nil
}

// decide applies the rule to the approvals that verified.
func (p *Policy) decide(rule Rule, t *tally) error {
	quorum := p.groups[rule.Quorum]
	if no := t.who(quorum, t.rejects); len(no) > 0 {
		return fmt.Errorf("%w: %s; the release is held, a corrected one needs a new seq", ErrRejected, strings.Join(no, ", "))
	}
	if err := quorum.shortfall(t.approves, t.unknown); err != nil {
		return err
	}
	for _, word := range slices.Sorted(maps.Keys(rule.Require)) {
		need, have := rule.Require[word], t.checked(quorum, word)
		if have < need {
			return &ThresholdError{
				Group: "checked=" + word, Need: need, Have: have, Unknown: t.unknown, Missing: []string{missingCheck(word, need-have)},
			}
		}
	}
	return nil
}

// shortfall is nil when the group is met, else a *ThresholdError.
func (g *group) shortfall(yes func(*officer) bool, unknown int) error {
	if g.met(yes) {
		return nil
	}
	return &ThresholdError{Group: g.name, Need: g.need, Have: g.have(yes), Unknown: unknown, Missing: g.missing(yes, nobody)}
}
