// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"fmt"
	"slices"
)

// Decisions of an officer, and what an officer can have checked (section 7).
const (
	DecisionApprove = "approve"
	DecisionReject  = "reject"

	CheckedBytes      = "bytes"
	CheckedGate       = "gate"
	CheckedInspection = "inspection"
	CheckedManifest   = "manifest"
)

// Approval is one officer's decision about one release. Its JSON is the in-toto statement of section 7, which goes
// into a DSSE envelope with exactly one signature.
type Approval struct {
	ReleaseID Digest // R
	Stream    string // equal to the release's, as are Epoch and Seq
	Epoch     int64
	Seq       int64
	Role      string   // a group of the policy
	Officer   string   // a name of the policy
	Decision  string   // approve or reject
	Checked   []string // sorted strictly: bytes, gate, inspection, manifest
	Shown     Digest   // SHA-256 of the exact text the officer was shown
	Tool      string
	At        string // RFC 3339, UTC, whole seconds
	Note      string // at most MaxNote bytes
}

// SectionName is the name of the approval's section: <group>.<officer>.json (section 1).
func (a *Approval) SectionName() string { return a.Role + "." + a.Officer + ".json" }

// Marshal checks the rules of section 7 and returns the canonical bytes, the caller's to keep. Error: ErrFormat.
func (a *Approval) Marshal() ([]byte, error) {
	if err := a.check(); err != nil {
		return nil, fmt.Errorf("write approval: %w", err)
	}
	b, err := encode(newApprovalForm(a).layout)
	if err != nil {
		return nil, fmt.Errorf("write approval: %w", err)
	}
	if len(b) > MaxApproval {
		return nil, fmt.Errorf("write approval: %w: %d bytes, at most %d (section 1)", ErrFormat, len(b), MaxApproval)
	}
	return b, nil
}

// ParseApproval takes the payload of an approval in its one canonical form. Nothing of b is kept. Whether it belongs
// to a given release is asked by Read and Merge. Errors: ErrFormat, ErrVersion.
func ParseApproval(b []byte) (*Approval, error) {
	if len(b) > MaxApproval {
		return nil, fmt.Errorf("approval: %w: %d bytes, at most %d (section 1)", ErrFormat, len(b), MaxApproval)
	}
	form := newApprovalForm(&Approval{})
	if err := decode(b, form.layout); err != nil {
		return nil, fmt.Errorf("approval: %w", err)
	}
	if form.statement != StatementType || form.predicate != PredicateTypeApproval {
		return nil, fmt.Errorf("approval: %w: _type %s, predicateType %s: this reader knows %q and %q (section 7)",
			ErrVersion, quote(form.statement), quote(form.predicate), StatementType, PredicateTypeApproval)
	}
	if form.Checked == nil {
		form.Checked = []string{}
	}
	if err := form.check(); err != nil {
		return nil, fmt.Errorf("approval: %w", err)
	}
	return form.Approval, nil
}

// approvalForm is the approval with the two types around it.
type approvalForm struct {
	*Approval
	statement, predicate string
}

func newApprovalForm(a *Approval) *approvalForm {
	return &approvalForm{Approval: a, statement: StatementType, predicate: PredicateTypeApproval}
}

func (f *approvalForm) layout(c codec) {
	c.lit(`{"_type":`)
	c.str(&f.statement)
	c.lit(`,"subject":[{"name":"release","digest":{"sha256":`)
	c.digest(&f.ReleaseID)
	c.lit(`}}],"predicateType":`)
	c.str(&f.predicate)
	c.lit(`,"predicate":{"stream":`)
	c.str(&f.Stream)
	c.lit(`,"epoch":`)
	c.num(&f.Epoch)
	c.lit(`,"seq":`)
	c.num(&f.Seq)
	c.lit(`,"role":`)
	c.str(&f.Role)
	c.lit(`,"officer":`)
	c.str(&f.Officer)
	c.lit(`,"decision":`)
	c.str(&f.Decision)
	c.lit(`,"checked":`)
	list(c, &f.Checked, len(checkable()), layoutString)
	c.lit(`,"shown":`)
	c.digest(&f.Shown)
	c.lit(`,"tool":`)
	c.str(&f.Tool)
	c.lit(`,"at":`)
	c.str(&f.At)
	c.lit(`,"note":`)
	c.str(&f.Note)
	c.lit(`}}`)
}

func checkable() []string {
	return []string{CheckedBytes, CheckedGate, CheckedInspection, CheckedManifest}
}

// check applies the rules of section 7 that need no release.
func (a *Approval) check() error {
	if err := checkStream(a.Stream); err != nil {
		return err
	}
	if err := checkPlace(a.Epoch, a.Seq); err != nil {
		return err
	}
	if !isName(a.Role, maxWord) || !isName(a.Officer, maxWord) {
		return badField("role, officer", "%s, %s: want [a-z0-9][a-z0-9._-]{0,63}", quote(a.Role), quote(a.Officer))
	}
	if a.Decision != DecisionApprove && a.Decision != DecisionReject {
		return badField("decision", "%s: want approve or reject", quote(a.Decision))
	}
	for i, word := range a.Checked {
		if !slices.Contains(checkable(), word) || i > 0 && a.Checked[i-1] >= word {
			return badField("checked", "%s: want a strictly sorted list out of %q", quote(word), checkable())
		}
	}
	if _, err := ParseTime(a.At); err != nil {
		return fmt.Errorf("at: %w", err)
	}
	if len(a.Note) > MaxNote {
		return badField("note", "%d bytes: at most %d", len(a.Note), MaxNote)
	}
	return checkTexts(a.Tool, a.Note)
}

// belongs asks whether the approval is about this release (section 7).
func (a *Approval) belongs(id Digest, p *Predicate) error {
	if a.ReleaseID != id {
		return fmt.Errorf("%w: it names release %s, this one is %s (section 7)", ErrDigest, a.ReleaseID, id)
	}
	if a.Stream != p.Stream || a.Epoch != p.Epoch || a.Seq != p.Seq {
		return badField("stream, epoch, seq", "%s %d.%d, the release has %s %d.%d (section 7)",
			a.Stream, a.Epoch, a.Seq, p.Stream, p.Epoch, p.Seq)
	}
	return nil
}
