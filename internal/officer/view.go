// SPDX-License-Identifier: Apache-2.0

package officer

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"sluice/internal/checkpoint"
	"sluice/internal/dropbox"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
	"sluice/pkg/quality"
)

// Check is one thing that this machine held against what was signed. What was not done is not passed.
type Check struct {
	What   string
	Passed bool
}

// View is everything that a page is made of. Nothing else goes into a page: no clock, no locale, no width of a terminal.
type View struct {
	Env    *envelope.Envelope
	Prev   *envelope.Envelope // the release that Env names as its predecessor; nil: none, or Lack says why not
	Lack   string
	Checks []Check

	Trust    TrustNote
	Policy   mofn.Progress
	Rule     string   // what is wrong with the release by the policy's rule; ""
	Problems []string // approvals that do not count
	Orders   []string // what officers ordered about this release

	Bytes    Bytes
	Texts    []Text // how small texts changed
	Evidence Evidence
	You      Person // zero: nobody signs here
}

// TrustNote says which trust object a view goes by.
type TrustNote struct {
	Version     int64
	Fingerprint string
	News        []string
}

// Evidence is what the reports say, as far as they read.
type Evidence struct {
	Gate       *quality.Report
	GateErr    string
	Inspection *checkpoint.Report
	InspectErr string
	Mirror     *mirrorRecord
	MirrorErr  string
	PrevMirror *mirrorRecord
}

// Names of reports, as the bastion binds them.
const (
	reportGate       = "gate.json"
	reportInspection = "inspection.json"
	reportMirror     = "mirror.json"
)

// LookOptions are what an officer's machine adds to a request.
type LookOptions struct {
	You Person
	// Payload reads the bytes; nil: they are not reachable here.
	Payload *Payload
}

// Look verifies a request and gathers what its page says. The packer's signature comes first: without it nothing is shown. Errors: those of
// trust.CheckPacker, of the payload (an envelope.ErrDigest is a refusal), and of the drop-box.
func Look(ctx context.Context, box dropbox.Box, anchor *Anchor, req *dropbox.Request, opt LookOptions) (*View, error) {
	st := anchor.Newest()
	v, err := gather(st, req)
	if err != nil {
		return nil, err
	}
	v.Trust.News, v.You = anchor.News, opt.You
	orders, err := ReadOrders(box, anchor)
	if err != nil {
		return nil, err
	}
	v.ordered(st, orders.Standing)
	if err := v.count(box, st, orders.Standing); err != nil {
		return nil, err
	}
	if opt.Payload != nil {
		if v.Bytes, err = opt.Payload.Verify(ctx, v.Env); err != nil {
			return nil, err
		}
		v.Texts = opt.Payload.texts(v.Env, v.Prev)
	}
	v.Checks = append(v.Checks, Check{"every byte of the files", v.Bytes.All})
	return v, nil
}

// Bastion is the view of a request as the bastion that makes it has it: no approvals, no bytes, nobody who signs.
func Bastion(st *trust.Store, env, prev *envelope.Envelope) (*View, error) {
	req := &dropbox.Request{Envelope: env, Previous: prev}
	if prev == nil && env.Statement.Predicate.Prev != "" {
		req.Lack = "the bastion does not have it any more"
	}
	v, err := gather(st, req)
	if err != nil {
		return nil, err
	}
	return v, v.progress(st, nil)
}

// gather is what the envelope alone says.
func gather(st *trust.Store, req *dropbox.Request) (*View, error) {
	env := req.Envelope
	if err := st.CheckPacker(env); err != nil {
		return nil, err
	}
	v := &View{
		Env: env, Prev: req.Previous, Lack: req.Lack,
		Trust: TrustNote{Version: st.Object.Version, Fingerprint: fmt.Sprintf("%x", st.Fingerprint)},
		Checks: []Check{
			{"the packer's signature", true},
			{"index and evidence are those that the statement binds", true}, // envelope.Read refused otherwise
		},
	}
	if env.Statement.Predicate.Prev != "" {
		v.checkPrevious(st)
	}
	v.readEvidence()
	return v, nil
}

// checkPrevious: its id binds the predecessor, so its content is what was released before. That its packer was one of ours is asked too.
func (v *View) checkPrevious(st *trust.Store) {
	if v.Prev != nil {
		if err := st.CheckPacker(v.Prev); err != nil {
			v.Lack = "its packer's signature does not hold: " + err.Error()
			v.Prev = nil
		}
	}
	v.Checks = append(v.Checks, Check{"the predecessor, by its id and its packer's signature", v.Prev != nil})
}

// count reads the approvals that there are, each by itself: one that is wrong, or whose officer is stopped, is named and must not hide the
// others.
func (v *View) count(box dropbox.Box, st *trust.Store, standing *mofn.Standing) error {
	found, problems, err := box.Approvals(v.Env.ID)
	if err != nil {
		return err
	}
	good, unfit := Sift(st, v.Env, found)
	v.Problems = append(problems, unfit...)
	good = slices.DeleteFunc(good, func(n envelope.Named) bool {
		vote, err := trust.Vote(n)
		if err != nil {
			return true // Sift looked
		}
		why, barred := barred(st, standing, vote.Signatures[0].KeyID)
		if barred {
			v.Problems = append(v.Problems, n.Name+" is not counted: "+why)
		}
		return barred
	})
	return v.progress(st, good)
}

func barred(st *trust.Store, standing *mofn.Standing, keyid string) (why string, yes bool) {
	id, err := mofn.ParseKeyID(keyid)
	if err != nil {
		return "", false
	}
	return standing.Barred(st.Policy, id)
}

func (v *View) progress(st *trust.Store, approvals []envelope.Named) error {
	counted := *v.Env
	counted.Approvals = nil
	if err := counted.Merge(approvals); err != nil {
		return err
	}
	prog, err := st.Progress(&counted)
	if err == nil {
		v.Policy = prog
	} else { // no rule for the stream, or larger than the rule allows: the approvals were sifted
		v.Rule = err.Error()
	}
	return nil
}

// ordered asks whether an officer stopped or revoked this release, its stream, its packer's key, or everything.
func (v *View) ordered(st *trust.Store, standing *mofn.Standing) {
	if err := trust.CheckOrders(v.Env.Statement.Predicate.Stream, v.Env.ID, standing); err != nil {
		v.Orders = append(v.Orders, "an officer's order stands: "+strings.TrimPrefix(err.Error(), "trust: "))
	}
	for _, g := range v.Env.DSSE.Signatures {
		if why, yes := barred(st, standing, g.KeyID); yes {
			v.Orders = append(v.Orders, "the packer's signature counts nothing: "+why)
		}
	}
}

// Checked is the `checked` of an approval: what was true of this machine (docs/spec/drop-box.md section 2).
func (v *View) Checked() []string {
	var out []string // sorted
	if v.Bytes.All {
		out = append(out, envelope.CheckedBytes)
	}
	if v.Evidence.Gate != nil {
		out = append(out, envelope.CheckedGate)
	}
	if v.Evidence.Inspection != nil {
		out = append(out, envelope.CheckedInspection)
	}
	return append(out, envelope.CheckedManifest)
}

func (v *View) passed() string {
	n := 0
	var not []string
	for _, c := range v.Checks {
		if c.Passed {
			n++
		} else {
			not = append(not, c.What)
		}
	}
	text := fmt.Sprintf("%d of %d checks passed here", n, len(v.Checks))
	if len(not) > 0 {
		text += "; not: " + strings.Join(not, "; ")
	}
	return text
}
