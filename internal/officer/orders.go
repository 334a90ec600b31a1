// SPDX-License-Identifier: Apache-2.0

package officer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/internal/dropbox"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// ErrMayNot says that the policy does not let this officer give this order.
var ErrMayNot = errors.New("officer: the policy does not let you give this order")

const maxOrder = 64 << 10

// Orders is what a drop-box's orders come to, by the chain that an anchor has. The bastion judges each under the version in effect when it
// came; an officer's machine does not know when that was, and takes the newest version that knows the key.
type Orders struct {
	All      []mofn.SignedOrder // that verified, oldest first
	Standing *mofn.Standing
	Problems []string // files that are no order, or none that counts
}

// ReadOrders reads and judges the orders of a drop-box.
func ReadOrders(box dropbox.Box, anchor *Anchor) (*Orders, error) {
	found, problems, err := box.Orders()
	if err != nil {
		return nil, err
	}
	out := &Orders{Problems: problems}
	for _, n := range found {
		o, err := verifyOrder(anchor, n.Data)
		if err == nil && o.ID+".json" != n.Name {
			err = fmt.Errorf("it is the order %s", o.ID)
		}
		if err != nil {
			out.Problems = append(out.Problems, fmt.Sprintf("%s: %v", n.Name, err))
			continue
		}
		out.All = append(out.All, o)
	}
	slices.SortStableFunc(out.All, func(a, b mofn.SignedOrder) int { return a.Time().Compare(b.Time()) })
	rulers := anchor.rulers()
	out.Standing, err = mofn.Judge(rulers[len(rulers)-1], rulers[:len(rulers)-1], out.All)
	return out, err
}

// verifyOrder tries the newest version first.
func verifyOrder(anchor *Anchor, data []byte) (o mofn.SignedOrder, err error) {
	d, err := envelope.ParseDSSE(data, maxOrder)
	if err != nil {
		return o, err
	}
	for _, st := range slices.Backward(anchor.Chain) {
		o, err = st.Policy.VerifyOrder(anchor.Root(), d.Payload, trust.SignaturesOf(d), envelope.PAE(d.PayloadType, d.Payload))
		if err == nil {
			o.Under = st.Object.Version
			return o, nil
		}
		if !errors.Is(err, mofn.ErrUnknownSigner) {
			return o, err
		}
	}
	return o, err
}

// NewOrder is an order that an officer may give, and what it will do in words. Errors: ErrMayNot, and mofn.ErrOrder when it names nothing.
func NewOrder(anchor *Anchor, you Person, o mofn.Order, now time.Time) (mofn.Order, []string, error) {
	o.Root, o.Officer, o.Role, o.At = anchor.Root(), you.Officer, you.Role, envelope.FormatTime(now)
	slices.Sort(o.Lifts)
	o.Lifts = slices.Compact(o.Lifts)
	if _, err := o.Marshal(); err != nil {
		return o, nil, err
	}
	words, err := consequences(anchor, o)
	return o, words, err
}

// consequences say what an order does, in words.
func consequences(anchor *Anchor, o mofn.Order) ([]string, error) {
	p := anchor.Newest().Policy
	group := p.ResumeGroup()
	if group == "" {
		group = anchor.Newest().Object.Root
	}
	switch o.Action {
	case mofn.ActionStop:
		if !p.MayStop(o.Officer) {
			return nil, fmt.Errorf("%w: %s may not stop; see trust explain", ErrMayNot, o.Officer)
		}
		return append(effects(o.Kind, o.Target), "it counts as soon as the bastion and the receiver have it: you alone can stop",
			fmt.Sprintf("to go on, the quorum of %s must resume it: %s", group, quorum(p, group, nil))), nil
	case mofn.ActionRevoke:
		words := []string{fmt.Sprintf("%s is revoked FOR GOOD when the quorum of %s says so: %s", subject(o.Kind, o.Target), group, quorum(p, group, map[string]bool{o.Officer: true}))}
		if p.MayStop(o.Officer) {
			words = append(words, "until then it is a stop, which counts as soon as the bastion and the receiver have it:")
			words = append(words, effects(o.Kind, o.Target)...)
		}
		return append(words, "a revocation is never lifted"), nil
	}
	var words []string
	for _, id := range o.Lifts {
		words = append(words, "the stop "+id+" is lifted when the quorum says so")
	}
	return append(words, fmt.Sprintf("the quorum is that of %s: %s", group, quorum(p, group, map[string]bool{o.Officer: true}))), nil
}

// quorum says what a group lacks beside those who are there.
func quorum(p *mofn.Policy, group string, there map[string]bool) string {
	err := p.MeetsGroup(group, there)
	if err == nil {
		return "it is there"
	}
	var short *mofn.ThresholdError
	if errors.As(err, &short) {
		return "missing " + strings.Join(short.Missing, "; ")
	}
	return err.Error()
}

func subject(kind, target string) string { return strings.TrimSpace(kind + " " + target) }

// effects are those of docs/spec/bulletin.md section 3.
func effects(kind, target string) []string {
	switch kind {
	case mofn.KindEverything:
		return []string{"NOTHING is accepted, sealed, sent or published any more, in no stream; bulletins go on"}
	case mofn.KindStream:
		return []string{fmt.Sprintf("no release of the streams %s is accepted, sealed, sent or published", target)}
	case mofn.KindRelease:
		return []string{fmt.Sprintf("the release %s is not published; where it was published, it is withdrawn", target)}
	}
	return []string{fmt.Sprintf("what %s signed counts nothing for a release that is not published yet: statements and approvals; what was published stays", subject(kind, target))}
}

// SignOrder signs an order, verifies it as the bastion will, and writes one new file. It gives the order's id.
func SignOrder(box dropbox.Box, anchor *Anchor, o mofn.Order, signer mofn.Signer) (id string, err error) {
	payload, err := o.Marshal()
	if err != nil {
		return "", err
	}
	d, err := trust.Sign(signer, o.Role, mofn.OrderPayloadType, payload)
	if err != nil {
		return "", err
	}
	data, err := d.Marshal()
	if err != nil {
		return "", err
	}
	back, err := verifyOrder(anchor, data)
	if err != nil {
		return "", fmt.Errorf("officer: the order just signed is not accepted: %w", err)
	}
	return back.ID, box.AddOrder(back.ID, data)
}

// FindOrders resolves unique beginnings of order ids, of 8 digits at least, to stops that stand.
func (o *Orders) FindOrders(begins []string) ([]string, error) {
	var out []string
	for _, begin := range begins {
		var hits []string
		for _, s := range o.Standing.Stops {
			if len(begin) >= 8 && strings.HasPrefix(s.ID, begin) {
				hits = append(hits, s.ID)
			}
		}
		if len(hits) != 1 {
			return nil, fmt.Errorf("%w: %+.70q names %d stops that stand, one is wanted (8 digits at least; see officer orders)", mofn.ErrOrder, begin, len(hits))
		}
		out = append(out, hits[0])
	}
	return out, nil
}

// Lines say what stands, what waits for whom, and what counts nothing.
func (o *Orders) Lines() []string {
	var out []string
	for _, s := range o.Standing.Stops {
		out = append(out, fmt.Sprintf("STOPPED   %s   by %s (%s) %s: %s   order %s", subject(s.Kind, s.Target), s.Officer, s.Role, s.At, s.Reason, s.ID))
	}
	for _, r := range o.Standing.Revocations {
		out = append(out, fmt.Sprintf("REVOKED   %s   by %s: %s", subject(r.Kind, r.Target), strings.Join(r.Officers, ", "), r.Reason))
	}
	for _, p := range o.Standing.Pending {
		out = append(out, "pending   "+p)
	}
	for _, s := range o.Standing.Lifted {
		out = append(out, fmt.Sprintf("lifted    %s   stopped by %s %s: %s   order %.12s", subject(s.Kind, s.Target), s.Officer, s.At, s.Reason, s.ID))
	}
	for _, s := range o.Standing.Void {
		out = append(out, fmt.Sprintf("void      %s %s   by %s, who may not, or was revoked   order %.12s", s.Action, subject(s.Kind, s.Target), s.Officer, s.ID))
	}
	for _, p := range o.Problems {
		out = append(out, "ignored   "+p)
	}
	if len(out) == 0 {
		out = append(out, "no order: nothing is stopped, nothing is revoked")
	}
	return out
}
