// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/internal/console"
	"sluice/pkg/mofn"
)

// Report is what an audit came to: one page.
type Report struct {
	Directory  string         `json:"directory"`
	Origin     string         `json:"origin"`
	KeyID      string         `json:"key"`
	KeyGiven   bool           `json:"key_given"` // the auditor brought the key; else it came with the export
	Events     int64          `json:"events"`
	Root       string         `json:"root"`
	Since      int64          `json:"since,omitempty"`  // events at the earlier visit that it continues
	Before     int64          `json:"before,omitempty"` // events of a time before there was a tree
	First      time.Time      `json:"first,omitzero"`
	Last       time.Time      `json:"last,omitzero"`
	Releases   int            `json:"releases"`
	States     map[string]int `json:"states"`
	Actions    map[string]int `json:"actions"`
	Proofs     int            `json:"proofs"`
	Trust      string         `json:"trust,omitempty"`     // fingerprint of the first trust object, which is in the export
	TrustGiven bool           `json:"trust_given"`         // the auditor brought it
	OverTime   *OverTime      `json:"over_time,omitempty"` // missing: the export is of before, and says nothing of it
	Crashes    int            `json:"crashes"`
	Odd        []string       `json:"odd"` // worth a question, and no verdict
	OddMore    int            `json:"odd_more,omitempty"`
	Problem    string         `json:"problem,omitempty"` // what is wrong, first place first; "" : nothing

	trustUsed string // by the last start
}

func (r *Report) odd(format string, args ...any) {
	if len(r.Odd) == maxOdd {
		r.OddMore++
		return
	}
	r.Odd = append(r.Odd, fmt.Sprintf(format, args...))
}

// Fail puts the verdict into the report.
func (r *Report) Fail(err error) { r.Problem = err.Error() }

// Page is the report for a person: at most 40 lines.
func (r *Report) Page() string {
	var b strings.Builder
	line := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "%-10s %s\n", key, console.Clean(fmt.Sprintf(format, args...)))
	}
	if r.Problem != "" {
		line("VERDICT", "NOT ACCEPTED: %s", r.Problem)
	} else {
		line("VERDICT", "whole: every event is in the signed tree, in its place, and follows from those before it")
	}
	line("LOG", "%s", r.Origin)
	line("KEY", "%s", r.KeyID)
	switch {
	case r.OverTime != nil && r.OverTime.LogBound && r.TrustGiven:
		line("", "bound by the trust object in effect, whose chain begins with the fingerprint that you brought")
	case r.OverTime != nil && r.OverTime.LogBound:
		line("", "bound by the trust object in effect")
	case !r.KeyGiven:
		line("", "it came with the export: compare the id, or give the key with --key")
	}
	line("EVENTS", "%d, from %s to %s", r.Events, stamp(r.First), stamp(r.Last))
	if r.Before > 0 {
		line("", "the first %d are from before there was a tree; their chain was checked when it began", r.Before)
	}
	line("ROOT", "%s", r.Root)
	if r.Since > 0 {
		line("SINCE", "the checkpoint that you brought, of %d events: this log continues it", r.Since)
	} else {
		line("SINCE", "no earlier checkpoint was given: keep this one for the next visit (--since)")
	}
	r.overTime(line)
	line("RELEASES", "%d; %s; %s", r.Releases, counts(r.States), console.Count(r.Proofs, "proof"))
	line("DECISIONS", "%d approvals, %d rejections", r.Actions[ActionApprove], r.Actions[ActionReject])
	line("STARTS", "%d, stops %d; %d fsck runs", r.Actions[ActionStart], r.Actions[ActionStop], r.Actions[ActionFsck])
	if len(r.Odd) == 0 {
		line("ODD", "nothing")
	}
	for i, o := range r.Odd {
		line([]string{"ODD", ""}[min(i, 1)], "%s", o)
	}
	if r.OddMore > 0 {
		line("", "and %d more", r.OddMore)
	}
	return b.String()
}

// maxLines is how many versions, and how many things that stand, a page names.
const maxLines = 3

// overTime are the lines about trust over time.
func (r *Report) overTime(line func(key, format string, args ...any)) {
	if r.Trust == "" {
		return
	}
	line("TRUST", "%s", r.Trust)
	if !r.TrustGiven {
		line("", "believed: compare it with the paper record, or give it with --fingerprint")
	}
	o := r.OverTime
	if o == nil {
		line("", "trust over time was not looked at: the export has no directory %s", dirTrust)
		return
	}
	few := func(list []string) {
		for i, text := range list {
			if i == maxLines {
				line("", "and %d more", len(list)-i)
				return
			}
			line("", "%s", text)
		}
	}
	var versions []string
	for _, v := range slices.Backward(o.Versions[min(1, len(o.Versions)):]) {
		text := fmt.Sprintf("version %d arrived %s, in effect since %s", v.Version, stamp(v.Arrived), stamp(v.Effect))
		if v.Effect.IsZero() {
			text = fmt.Sprintf("version %d arrived %s, in quarantine", v.Version, stamp(v.Arrived))
		}
		versions = append(versions, text)
	}
	line("", "%s of the trust object", console.Count(len(o.Versions), "version"))
	few(versions)
	line("ORDERS", "%s, %s, %s; by %s", console.Count(o.Orders[mofn.ActionStop], "stop"), console.Count(o.Orders[mofn.ActionResume], "resume"),
		console.Count(o.Orders[mofn.ActionRevoke], "revocation"), people(o.Officers))
	line("", "%s, %d given back", console.Count(o.Withdrawn, "withdrawal"), o.GivenBack)
	if len(o.Standing) == 0 {
		line("STANDS", "nothing is stopped or revoked at the end")
		return
	}
	line("STANDS", "%d at the end:", len(o.Standing))
	few(o.Standing)
}

// people says who gave how many.
func people(by map[string]int) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(by)) {
		out = append(out, fmt.Sprintf("%s %d", name, by[name]))
	}
	if len(out) == 0 {
		return "nobody"
	}
	return clip(strings.Join(out, ", "), 200)
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return "?"
	}
	return t.UTC().Format(time.RFC3339)
}

func counts(states map[string]int) string {
	if len(states) == 0 {
		return "none moved"
	}
	var out []string
	for _, s := range slices.Sorted(maps.Keys(states)) {
		out = append(out, fmt.Sprintf("%d %s", states[s], s))
	}
	return strings.Join(out, ", ")
}
