// SPDX-License-Identifier: Apache-2.0

// Package trust answers the one question both sides ask of an envelope: may this release pass?
//
// It joins the two pure packages that must not know one another: pkg/envelope knows the bytes, pkg/mofn knows
// keys, people and thresholds.
//
//	trust object (file) --fingerprint pinned in the configuration--> Store
//	envelope --> packer's signature -> approvals under the policy -> audience, expiry, succession --> mofn.Approval
//
// Nothing here touches the network. The trust object's format is docs/spec/trust.md; the order of the checks is
// that of docs/spec/trust.md section 3.
package trust

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// maxTrustFile bounds the file before it is read: a trust object of 1,000 keys is 3 MiB.
const maxTrustFile = 8 << 20

// PayloadType is the DSSE payload type of a trust object (docs/spec/trust.md section 4).
const PayloadType = "application/vnd.sluice.trust.v1+json"

var (
	// ErrFingerprint says that the trust object is not the one that the configuration pins.
	ErrFingerprint = errors.New("trust: the trust object has another fingerprint than the one configured")
	// ErrAudience says that the release is meant for other receivers.
	ErrAudience = errors.New("trust: the release is not addressed to this receiver")
	// ErrExpired says that the release's own time has run out.
	ErrExpired = errors.New("trust: the release has expired")
	// ErrRollback says that a release of the same stream with this or a later (epoch, seq) was taken before.
	ErrRollback = errors.New("trust: rollback: the stream has moved past this release")
	// ErrStopped says that an officer stopped the release, its stream, its packer's key or everything. It is held until the quorum resumes it.
	ErrStopped = errors.New("trust: stopped")
	// ErrRevoked says that a quorum revoked the release, for good.
	ErrRevoked = errors.New("trust: the release is revoked")
	// ErrFastForward says that a release lies further ahead of its stream than any honest one: it would use up the numbers.
	ErrFastForward = errors.New("trust: fast-forward: the release is too far ahead of its stream")
	// ErrVoteName says that an approval's section name does not match what it says of itself.
	ErrVoteName = errors.New("trust: an approval is filed under another name than it claims")
)

// Store is a loaded trust object. It is immutable and safe for concurrent use.
type Store struct {
	Object      *mofn.Trust
	Policy      *mofn.Policy
	Fingerprint [32]byte
}

// Load reads a trust object and refuses it unless its fingerprint is the given 64 hex digits, which a person
// confirmed when it was carried in.
func Load(path, fingerprint string) (*Store, error) {
	s, _, err := LoadData(path, fingerprint)
	return s, err
}

// LoadData is Load that also gives the DSSE envelope as it was read.
func LoadData(path, fingerprint string) (*Store, []byte, error) {
	b, err := readCapped(path, maxTrustFile)
	if err != nil {
		return nil, nil, fmt.Errorf("trust object: %w", err)
	}
	s, err := Parse(b)
	if err != nil {
		return nil, nil, fmt.Errorf("trust object %s: %w", path, err)
	}
	if got := hex.EncodeToString(s.Fingerprint[:]); got != strings.ToLower(fingerprint) {
		return nil, nil, fmt.Errorf("%w: %s has %s (%s), the configuration wants %q; compare with the paper record before changing either",
			ErrFingerprint, path, got, strings.Join(mofn.Words(s.Fingerprint[:]), " "), fingerprint)
	}
	return s, b, nil
}

// Parse decodes the DSSE envelope of a first trust object. Version 1 needs no signature: its fingerprint is what a
// person confirms. The caller compares it.
func Parse(b []byte) (*Store, error) {
	d, err := envelope.ParseDSSE(b, maxTrustFile)
	if err != nil {
		return nil, err
	}
	if d.PayloadType != PayloadType {
		return nil, fmt.Errorf("payload type %q is not %q: this is no trust object", d.PayloadType, PayloadType)
	}
	t, err := mofn.ParseTrust(d.Payload)
	if err != nil {
		return nil, err
	}
	p, err := mofn.ParsePolicy(t.Policy, t.Keys)
	if err != nil {
		return nil, err
	}
	return &Store{Object: t, Policy: p, Fingerprint: mofn.Fingerprint(d.Payload)}, nil
}

// Rules are the checks that depend on who asks and when. A zero field leaves its check out.
type Rules struct {
	Receiver string                                                     // audience check
	Now      time.Time                                                  // expiry check
	Mark     func(stream string) (epoch, seq int64, ok bool, err error) // succession check
	Standing *mofn.Standing                                             // stops and revocations
}

// Check verifies the envelope: the packer's signature, the approvals under the policy, and the rules. Only a nil
// error comes with a valid Approval. The payload is not looked at.
func (s *Store) Check(env *envelope.Envelope, r Rules) (mofn.Approval, error) {
	votes, err := Votes(env)
	if err != nil {
		return mofn.Approval{}, err
	}
	if err := s.checkRules(env.Statement.Predicate, r); err != nil {
		return mofn.Approval{}, err
	}
	votes, why, err := s.checkStanding(env, votes, r.Standing)
	if err != nil {
		return mofn.Approval{}, err
	}
	d := env.DSSE
	a, err := s.Policy.Verify(Release(env), envelope.PAE(d.PayloadType, d.Payload), signatures(d.Signatures), votes, Open)
	if errors.Is(err, mofn.ErrThreshold) && len(why) > 0 {
		return mofn.Approval{}, fmt.Errorf("%w; not counted: %s", err, strings.Join(why, "; "))
	}
	if err != nil {
		return mofn.Approval{}, err
	}
	if err := checkVoteNames(votes); err != nil {
		return mofn.Approval{}, err
	}
	return a, nil
}

// checkStanding looks at orders: a stop holds the release, a revocation refuses it, and what a stopped or revoked key signed counts
// nothing. It gives the votes that count, and says why the others do not.
func (s *Store) checkStanding(env *envelope.Envelope, votes []mofn.Vote, st *mofn.Standing) (count []mofn.Vote, why []string, err error) {
	if err := CheckOrders(env.Statement.Predicate.Stream, env.ID, st); err != nil {
		return nil, nil, err
	}
	for _, g := range env.DSSE.Signatures {
		if text, barred := s.Barred(g.KeyID, st); barred {
			return nil, nil, fmt.Errorf("%w: the packer's signature counts nothing: %s", ErrStopped, text)
		}
	}
	for _, v := range votes {
		text, barred := "", false
		for _, g := range v.Signatures {
			if text, barred = s.Barred(g.KeyID, st); barred {
				break
			}
		}
		if barred {
			why = append(why, v.Name+": "+text)
			continue
		}
		count = append(count, v)
	}
	return count, why, nil
}

// Barred tells whether what a key signed counts nothing, and why.
func (s *Store) Barred(keyid string, st *mofn.Standing) (why string, barred bool) {
	id, err := mofn.ParseKeyID(keyid)
	if err != nil {
		return "", false // the policy refuses it in its own words
	}
	return st.Barred(s.Policy, id)
}

// CheckOrders looks at the orders about a release alone. ErrStopped while a stop of everything, of its stream or of itself stands,
// ErrRevoked for good.
func CheckOrders(stream string, id envelope.Digest, st *mofn.Standing) error {
	if r, ok := st.RevocationOf([32]byte(id)); ok {
		return fmt.Errorf("%w by %s: %s", ErrRevoked, strings.Join(r.Officers, ", "), r.Reason)
	}
	if o, ok := st.StopOf(stream, [32]byte(id)); ok {
		return fmt.Errorf("%w by %s (order %.12s, %s): %s; the quorum resumes it", ErrStopped, o.Officer, o.ID, strings.TrimSpace(o.Kind+" "+o.Target), o.Reason)
	}
	return nil
}

// CheckPredicate applies the rules alone: what may change about a release after it was accepted. No signature is looked at.
func (s *Store) CheckPredicate(p envelope.Predicate, r Rules) error { return s.checkRules(p, r) }

// Receiver returns what the trust object says of a receiver.
func (s *Store) Receiver(name string) (r mofn.Receiver, ok bool) {
	for _, r := range s.Object.Receivers {
		if r.Name == name {
			return r, true
		}
	}
	return r, false
}

// CheckPacker verifies the packer's signature alone: what an officer's tool does before anybody has approved.
func (s *Store) CheckPacker(env *envelope.Envelope) error {
	d := env.DSSE
	_, err := s.Policy.VerifyPacker(envelope.PAE(d.PayloadType, d.Payload), signatures(d.Signatures))
	return err
}

// Progress tells how far the approvals of an envelope have come.
func (s *Store) Progress(env *envelope.Envelope) (mofn.Progress, error) {
	votes, err := Votes(env)
	if err != nil {
		return mofn.Progress{}, err
	}
	return s.Policy.Progress(Release(env), votes, Open)
}

func (s *Store) checkRules(p envelope.Predicate, r Rules) error {
	if r.Receiver != "" && !slices.Contains(p.Audience, r.Receiver) {
		return fmt.Errorf("%w: it names %s, this is %q", ErrAudience, few(p.Audience), r.Receiver)
	}
	if err := s.checkExpiry(p, r.Now); err != nil {
		return err
	}
	return s.checkSuccession(p, r)
}

// shownNames is how many names of an audience a message shows: nobody has signed for the list yet, and it may have 4,096.
const shownNames = 8

func few(names []string) string {
	if len(names) <= shownNames {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:shownNames], ", "), len(names)-shownNames)
}

func (s *Store) checkExpiry(p envelope.Predicate, now time.Time) error {
	if now.IsZero() {
		return nil
	}
	expires, err := time.Parse(time.RFC3339, p.Expires)
	if err != nil {
		return fmt.Errorf("expires: %w", err)
	}
	if now.After(expires) {
		return fmt.Errorf("%w: on %s, now %s; have the bastion seal it anew", ErrExpired, p.Expires, now.UTC().Format(time.RFC3339))
	}
	return nil
}

// maxJump is how far above the mark of its stream the epoch and the seq of a release may lie (docs/spec/trust.md section 3): ten
// releases a day for 287 years, so that nobody who can release once can use up the numbers of a stream.
const maxJump = 1 << 20

// place is where a release, or a stream, stands.
type place struct{ epoch, seq int64 }

func (a place) before(b place) bool { return less(a.epoch, a.seq, b.epoch, b.seq) }

// checkSuccession refuses rollback (docs/spec/envelope.md section 4: epoch and seq strictly increase in a stream), whatever lies
// below the trust object's floor for the stream, and a jump. The floor raises the mark, so it is the way out of a stream
// whose numbers are used up.
func (s *Store) checkSuccession(p envelope.Predicate, r Rules) error {
	here, mark := place{p.Epoch, p.Seq}, place{}
	for _, e := range s.Object.Epochs {
		if e.Stream != p.Stream {
			continue
		}
		if mark = (place{e.MinEpoch, e.MinSeq}); here.before(mark) {
			return fmt.Errorf("%w: the trust object asks for at least epoch %d seq %d of %s, this is epoch %d seq %d",
				ErrRollback, e.MinEpoch, e.MinSeq, p.Stream, p.Epoch, p.Seq)
		}
	}
	if r.Mark == nil {
		return nil
	}
	epoch, seq, ok, err := r.Mark(p.Stream)
	if err != nil {
		return fmt.Errorf("succession of %s: %w", p.Stream, err)
	}
	taken := place{epoch, seq}
	if ok && !taken.before(here) {
		return fmt.Errorf("%w: %s stands at epoch %d seq %d, this is epoch %d seq %d; nothing to do if it is a replay, else have the bastion seal it with the next seq",
			ErrRollback, p.Stream, epoch, seq, p.Epoch, p.Seq)
	}
	if ok && mark.before(taken) {
		mark = taken
	}
	return checkJump(p.Stream, mark, here)
}

// checkJump: a stream of which nothing was taken yet stands at epoch 0 seq 0, or at the trust object's floor.
func checkJump(stream string, mark, here place) error {
	if here.epoch-mark.epoch <= maxJump && here.seq-mark.seq <= maxJump {
		return nil
	}
	return fmt.Errorf("%w: %s stands at epoch %d seq %d, this is epoch %d seq %d, and either may rise by %d at once; have the bastion seal it with the next seq, "+
		"or, if the numbers are meant, raise the floor of the stream (epochs) in the next trust object", ErrFastForward, stream, mark.epoch, mark.seq, here.epoch, here.seq, maxJump)
}

func less(e1, s1, e2, s2 int64) bool { return e1 < e2 || e1 == e2 && s1 < s2 }

// Release converts what the policy needs to know of an envelope.
func Release(env *envelope.Envelope) mofn.Release {
	p := env.Statement.Predicate
	return mofn.Release{ID: [32]byte(env.ID), Stream: p.Stream, Epoch: p.Epoch, Seq: p.Seq, Size: p.TotalSize}
}

// Votes unwraps the approvals of an envelope without trusting any of them.
func Votes(env *envelope.Envelope) ([]mofn.Vote, error) {
	votes := make([]mofn.Vote, 0, len(env.Approvals))
	for _, n := range env.Approvals {
		v, err := Vote(n)
		if err != nil {
			return nil, err
		}
		votes = append(votes, v)
	}
	return votes, nil
}

// Vote unwraps one approval without trusting it.
func Vote(n envelope.Named) (mofn.Vote, error) {
	d, err := envelope.ParseDSSE(n.Data, len(n.Data))
	if err != nil {
		return mofn.Vote{}, fmt.Errorf("approval %s: %w", n.Name, err)
	}
	return mofn.Vote{
		Name: n.Name, Payload: d.Payload,
		Message: envelope.PAE(d.PayloadType, d.Payload), Signatures: signatures(d.Signatures),
	}, nil
}

// Open is the mofn.Opener of approvals: it parses bytes whose signature has been verified.
func Open(payload []byte) (mofn.Claim, error) {
	a, err := envelope.ParseApproval(payload)
	if err != nil {
		return mofn.Claim{}, err
	}
	return mofn.Claim{
		ReleaseID: [32]byte(a.ReleaseID), Stream: a.Stream, Epoch: a.Epoch, Seq: a.Seq,
		Role: a.Role, Officer: a.Officer, Decision: a.Decision, Checked: a.Checked,
	}, nil
}

func checkVoteNames(votes []mofn.Vote) error {
	for _, v := range votes {
		c, err := Open(v.Payload)
		if err != nil {
			return fmt.Errorf("approval %s: %w", v.Name, err)
		}
		if want := c.Role + "." + c.Officer + ".json"; v.Name != want {
			return fmt.Errorf("%w: %s holds the approval that belongs into %s", ErrVoteName, v.Name, want)
		}
	}
	return nil
}

func signatures(in []envelope.Signature) []mofn.Signature {
	out := make([]mofn.Signature, len(in))
	for i, s := range in {
		out[i] = mofn.Signature(s)
	}
	return out
}

func readCapped(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return b, nil
}
