// SPDX-License-Identifier: Apache-2.0

package officer

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/internal/dropbox"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

var (
	// ErrConfirm says that the officer did not type what confirms.
	ErrConfirm = errors.New("officer: nothing signed: what was typed does not confirm it")
	// ErrDecided says that the officer has decided about this release before.
	ErrDecided = errors.New("officer: you have decided about this release already; a decision is never changed. To take an approval back: officer stop release ID")
	// ErrKeyID says that a key file names another key than it holds.
	ErrKeyID = errors.New("officer: the key file names another key than it holds; it was changed")
)

// Decision is one officer's decision about what a page showed.
type Decision struct {
	View     *View
	Page     Page // what was shown: View.Page()
	Decision string
	Typed    string // by the officer
	Note     string
	Tool     string
	Now      time.Time
	Signer   mofn.Signer
}

// Confirmation is what an officer types for a decision: the first two words of the release, or "reject".
func Confirmation(env *envelope.Envelope, decision string) string {
	if decision == envelope.DecisionReject {
		return envelope.DecisionReject
	}
	return Words(env)
}

// CheckTyped compares what was typed with what confirms, blanks apart.
func CheckTyped(typed, want string) error {
	if strings.Join(strings.Fields(typed), " ") != want {
		return fmt.Errorf("%w: %+.60q was typed", ErrConfirm, typed)
	}
	return nil
}

// CheckUndecided says that an officer has not decided about a release yet. Error: ErrDecided.
func CheckUndecided(box dropbox.Box, v *View) error {
	has, err := box.HasApproval(v.Env.ID, approvalName(v.You))
	if err == nil && has {
		return fmt.Errorf("%w (%s)", ErrDecided, approvalName(v.You))
	}
	return err
}

func approvalName(p Person) string { return p.Role + "." + p.Officer + ".json" }

// Decide signs a decision with the hash of exactly the page that was shown, verifies what it signed as the bastion will, and writes one
// new file. Errors: ErrConfirm, ErrKeyID, ErrDecided, and those of the drop-box.
func Decide(box dropbox.Box, anchor *Anchor, d Decision) (name string, err error) {
	v := d.View
	if err := CheckTyped(d.Typed, Confirmation(v.Env, d.Decision)); err != nil {
		return "", err
	}
	if d.Signer.KeyID() != v.You.Key {
		return "", fmt.Errorf("%w: %s named, %s held", ErrKeyID, v.You.Key, d.Signer.KeyID())
	}
	data, err := d.sign()
	if err != nil {
		return "", err
	}
	name = approvalName(v.You)
	if err := CheckApproval(anchor.Newest(), v.Env, envelope.Named{Name: name, Data: data}); err != nil {
		return "", fmt.Errorf("officer: internal error: the approval just signed is not accepted: %w", err)
	}
	err = box.AddApproval(v.Env.ID, name, data)
	if errors.Is(err, dropbox.ErrExists) {
		return "", fmt.Errorf("%w (%s)", ErrDecided, name)
	}
	return name, err
}

func (d *Decision) sign() ([]byte, error) {
	v, p := d.View, d.View.Env.Statement.Predicate
	a := envelope.Approval{
		ReleaseID: v.Env.ID, Stream: p.Stream, Epoch: p.Epoch, Seq: p.Seq, Role: v.You.Role, Officer: v.You.Officer, Decision: d.Decision,
		Checked: v.Checked(), Shown: d.Page.Hash(), Tool: d.Tool, At: envelope.FormatTime(d.Now), Note: d.Note,
	}
	payload, err := a.Marshal()
	if err != nil {
		return nil, err
	}
	signed, err := trust.Sign(d.Signer, v.You.Role, envelope.PayloadTypeInToto, payload)
	if err != nil {
		return nil, err
	}
	return signed.Marshal()
}

// CheckApproval holds one approval, alone, against the policy: signature, release, role and the name it is filed under. The officer's tool
// asks it of what it has just signed, the bastion of what it finds.
func CheckApproval(st *trust.Store, env *envelope.Envelope, n envelope.Named) error {
	alone := *env
	alone.Approvals = nil
	if err := alone.Merge([]envelope.Named{n}); err != nil {
		return err
	}
	votes, err := trust.Votes(&alone)
	if err != nil {
		return err
	}
	prog, err := st.Policy.Progress(trust.Release(&alone), votes, trust.Open)
	if err != nil {
		return err
	}
	if len(prog.Approved)+len(prog.Rejected)+len(prog.Outside) != 1 {
		return errors.New("its key belongs to no officer of the policy")
	}
	claim, err := trust.Open(votes[0].Payload)
	if err != nil {
		return err
	}
	if want := claim.Role + "." + claim.Officer + ".json"; n.Name != want {
		return fmt.Errorf("%w: it belongs into %s", trust.ErrVoteName, want)
	}
	return nil
}

// Sift keeps the approvals that the policy takes, each by itself, and says what is wrong with the others. Whoever can write into the
// drop-box can put anything there; it must neither hold up nor refuse a release, nor ride along to the receiver.
func Sift(st *trust.Store, env *envelope.Envelope, found []envelope.Named) (good []envelope.Named, problems []string) {
	for _, n := range found {
		if err := CheckApproval(st, env, n); err != nil {
			problems = append(problems, fmt.Sprintf("%s is not counted: %v", n.Name, err))
			continue
		}
		good = append(good, n)
	}
	return good, problems
}
