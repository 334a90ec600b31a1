// SPDX-License-Identifier: Apache-2.0

package officer

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/internal/dropbox"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// ErrProposal says that a proposal of the next version of the trust object is not what it claims, or does not follow.
var ErrProposal = errors.New("officer: the proposal is refused")

// ErrSigned says that a key has signed a proposal before.
var ErrSigned = errors.New("officer: this key has signed the proposal already")

// Proposal is a proposed version that fits the chain: it parses, and is exactly the next one after the newest.
type Proposal struct {
	Version     int64
	Fingerprint string // 64 hexadecimal digits of its payload's SHA-256
	Payload     []byte
	Current     *mofn.Trust
	Next        *mofn.Trust
	Signatures  []envelope.Signature // that verified under the current or the proposed version, one a key, sorted by key
	Problems    []string             // signature files that count nothing
}

// Words are the fingerprint's, for reading aloud.
func (p *Proposal) Words() string {
	raw, err := hex.DecodeString(p.Fingerprint)
	if err != nil {
		return ""
	}
	return strings.Join(mofn.Words(raw), " ")
}

// Typed is what an officer types to sign it: the first two words.
func (p *Proposal) Typed() string {
	return strings.Join(strings.Fields(p.Words())[:2], " ")
}

// ReadProposals reads those proposals of the drop-box that follow the newest version; the others are problems.
func ReadProposals(box dropbox.Box, anchor *Anchor) (out []*Proposal, problems []string, err error) {
	found, problems, err := box.Proposals()
	if err != nil {
		return nil, nil, err
	}
	for _, f := range found {
		if f.Version <= anchor.Newest().Object.Version && f.Data != nil {
			continue // it was decided
		}
		p, err := OpenProposal(anchor.Newest(), f)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%06d/%.16s: %v", f.Version, f.Fingerprint, err))
			continue
		}
		out = append(out, p)
	}
	return out, problems, nil
}

// FindProposal gives the one proposal whose fingerprint begins as given; "" is the only one.
func FindProposal(box dropbox.Box, anchor *Anchor, begin string) (*Proposal, error) {
	all, problems, err := ReadProposals(box, anchor)
	if err != nil {
		return nil, err
	}
	var hits []*Proposal
	for _, p := range all {
		if begin == "" || len(begin) >= 8 && strings.HasPrefix(p.Fingerprint, begin) {
			hits = append(hits, p)
		}
	}
	if len(hits) != 1 {
		text := ""
		if len(problems) > 0 {
			text = "; not taken: " + strings.Join(problems, "; ")
		}
		return nil, fmt.Errorf("%w: %d proposals of version %d match %+.70q%s", ErrProposal, len(hits), anchor.Newest().Object.Version+1, begin, text)
	}
	return hits[0], nil
}

// OpenProposal holds a proposal against the names of its files and the newest version, and verifies each signature by itself: one that is
// bad must not hold up the others. Errors: ErrProposal.
func OpenProposal(newest *trust.Store, f dropbox.Proposal) (*Proposal, error) {
	if f.Data == nil {
		return nil, fmt.Errorf("%w: signatures without the proposal itself", ErrProposal)
	}
	d, err := openTrust(f.Data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProposal, err)
	}
	p, err := newProposal(newest, d.Payload)
	if err != nil {
		return nil, err
	}
	switch {
	case p.Version != f.Version:
		return nil, fmt.Errorf("%w: it lies among the versions %d and is version %d", ErrProposal, f.Version, p.Version)
	case p.Fingerprint != f.Fingerprint:
		return nil, fmt.Errorf("%w: its fingerprint is %s, not that of its name", ErrProposal, p.Fingerprint)
	case len(d.Signatures) > 0:
		return nil, fmt.Errorf("%w: it is signed; a proposal carries no signature", ErrProposal)
	}
	for _, s := range f.Signed {
		if err := p.take(s); err != nil {
			p.Problems = append(p.Problems, fmt.Sprintf("%s is not counted: %v", s.Name, err))
		}
	}
	return p, nil
}

func newProposal(current *trust.Store, payload []byte) (*Proposal, error) {
	next, err := mofn.ParseTrust(payload)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrProposal, err)
	}
	if next.Version != current.Object.Version+1 || next.Prev != hex.EncodeToString(current.Fingerprint[:]) {
		return nil, fmt.Errorf("%w: it is version %d after %.16s; the newest here is version %d, %.16x", ErrProposal, next.Version, next.Prev,
			current.Object.Version, current.Fingerprint)
	}
	return &Proposal{
		Version: next.Version, Fingerprint: fmt.Sprintf("%x", mofn.Fingerprint(payload)), Payload: payload, Current: current.Object, Next: next,
	}, nil
}

// take verifies one signature file.
func (p *Proposal) take(n envelope.Named) error {
	d, err := openTrust(n.Data)
	if err != nil {
		return err
	}
	if string(d.Payload) != string(p.Payload) {
		return errors.New("it signs another payload")
	}
	if len(d.Signatures) != 1 {
		return fmt.Errorf("it has %d signatures, exactly one is wanted", len(d.Signatures))
	}
	sig := d.Signatures[0]
	who, err := p.signerOf(sig)
	if err != nil {
		return err
	}
	if want := fmt.Sprintf("%s.%s.%.8s.json", p.Fingerprint, who, sig.KeyID); n.Name != want {
		return fmt.Errorf("it belongs into %s", want)
	}
	if slices.ContainsFunc(p.Signatures, func(have envelope.Signature) bool { return have.KeyID == sig.KeyID }) {
		return ErrSigned
	}
	p.Signatures = append(p.Signatures, sig)
	slices.SortFunc(p.Signatures, func(a, b envelope.Signature) int { return strings.Compare(a.KeyID, b.KeyID) })
	return nil
}

// signerOf verifies a signature under the current or the proposed version and says whose it is.
func (p *Proposal) signerOf(sig envelope.Signature) (officer string, err error) {
	id, err := mofn.ParseKeyID(sig.KeyID)
	if err != nil {
		return "", err
	}
	for _, t := range []*mofn.Trust{p.Current, p.Next} {
		policy, err := t.LoadPolicy()
		if err != nil {
			return "", err
		}
		who, _, ok := policy.OfficerOf(id)
		if !ok {
			continue
		}
		key, _ := policy.PublicKey(id)
		return who, key.Verify(mofn.RoleRoot, envelope.PAE(trust.PayloadType, p.Payload), sig.Sig)
	}
	return "", fmt.Errorf("%w: key %s, by version %d and by version %d", ErrNoOfficer, id, p.Current.Version, p.Next.Version)
}

// Missing says what the quorum of each version lacks; nothing: the proposal can be joined.
func (p *Proposal) Missing() []string {
	var out []string
	for _, side := range []struct {
		what string
		t    *mofn.Trust
	}{{"version in effect", p.Current}, {"proposal itself", p.Next}} {
		policy, err := side.t.LoadPolicy()
		if err != nil {
			return []string{err.Error()}
		}
		there := map[string]bool{}
		for _, s := range p.Signatures {
			if id, err := mofn.ParseKeyID(s.KeyID); err == nil {
				if who, _, ok := policy.OfficerOf(id); ok {
					there[who] = true
				}
			}
		}
		if policy.MeetsGroup(side.t.Root, there) != nil {
			out = append(out, fmt.Sprintf("quorum %s of version %d (%s): %s", side.t.Root, side.t.Version, side.what, quorum(policy, side.t.Root, there)))
		}
	}
	return out
}

// Signed names the officers who signed, sorted.
func (p *Proposal) Signed() []string {
	var out []string
	for _, s := range p.Signatures {
		if who, err := p.signerOf(s); err == nil {
			out = append(out, who)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Join gives the DSSE envelope of the next version with all signatures, if VerifyTrust takes it. Errors: mofn.ErrTrust with what is missing.
func (p *Proposal) Join() ([]byte, error) {
	d := envelope.DSSE{Payload: p.Payload, PayloadType: trust.PayloadType, Signatures: p.Signatures}
	if _, err := mofn.VerifyTrust(p.Current, p.Payload, trust.SignaturesOf(&d), envelope.PAE(d.PayloadType, d.Payload)); err != nil {
		return nil, err
	}
	return d.Marshal()
}

// Propose writes a next version into the drop-box, unsigned. next.Version and next.Prev are set here.
func Propose(box dropbox.Box, anchor *Anchor, next *mofn.Trust) (*Proposal, error) {
	current := anchor.Newest()
	next.Version, next.Prev = current.Object.Version+1, hex.EncodeToString(current.Fingerprint[:])
	payload, err := next.Marshal()
	if err != nil {
		return nil, err
	}
	p, err := newProposal(current, payload)
	if err != nil {
		return nil, err
	}
	if len(Compare(p.Current, p.Next)) == 0 {
		return nil, fmt.Errorf("%w: nothing differs from version %d", ErrProposal, p.Current.Version)
	}
	d := envelope.DSSE{Payload: payload, PayloadType: trust.PayloadType, Signatures: []envelope.Signature{}}
	data, err := d.Marshal()
	if err != nil {
		return nil, err
	}
	return p, box.AddProposal(p.Version, p.Fingerprint, data)
}

// RootPerson says whose key may sign a proposal: an officer below the root group of the current version or of the proposed one. Errors:
// ErrSigned, ErrNoOfficer.
func (p *Proposal) RootPerson(id mofn.KeyID) (officer string, err error) {
	if slices.ContainsFunc(p.Signatures, func(s envelope.Signature) bool { return s.KeyID == id.String() }) {
		return "", ErrSigned
	}
	for _, t := range []*mofn.Trust{p.Current, p.Next} {
		policy, err := t.LoadPolicy()
		if err != nil {
			return "", err
		}
		if who, _, ok := policy.OfficerOf(id); ok && policy.InGroup(t.Root, who) {
			return who, nil
		}
	}
	return "", fmt.Errorf("%w: key %s is that of nobody in the group %s of version %d or %s of version %d", ErrNoOfficer, id, p.Current.Root, p.Current.Version,
		p.Next.Root, p.Next.Version)
}

// SignProposal signs in the role root, verifies, and writes one new file. What is still missing is said of each quorum.
func SignProposal(box dropbox.Box, p *Proposal, signer mofn.Signer) (name string, missing []string, err error) {
	who, err := p.RootPerson(signer.KeyID())
	if err != nil {
		return "", nil, err
	}
	d, err := trust.Sign(signer, mofn.RoleRoot, trust.PayloadType, p.Payload)
	if err != nil {
		return "", nil, err
	}
	data, err := d.Marshal()
	if err != nil {
		return "", nil, err
	}
	key := signer.KeyID().String()
	name = fmt.Sprintf("%s.%s.%.8s.json", p.Fingerprint, who, key)
	if err := p.take(envelope.Named{Name: name, Data: data}); err != nil {
		return "", nil, fmt.Errorf("officer: the signature just made is not counted: %w", err)
	}
	if err := box.AddSignature(p.Version, p.Fingerprint, who, key, data); err != nil {
		return "", nil, err
	}
	if missing = p.Missing(); len(missing) == 0 {
		_, err = p.Join() // the two must not disagree
	}
	return name, missing, err
}
