// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/internal/console"
)

// Report is what an audit came to: one page.
type Report struct {
	Directory string         `json:"directory"`
	Origin    string         `json:"origin"`
	KeyID     string         `json:"key"`
	KeyGiven  bool           `json:"key_given"` // the auditor brought the key; else it came with the export
	Events    int64          `json:"events"`
	Root      string         `json:"root"`
	Since     int64          `json:"since,omitempty"`  // events at the earlier visit that it continues
	Before    int64          `json:"before,omitempty"` // events of a time before there was a tree
	First     time.Time      `json:"first,omitzero"`
	Last      time.Time      `json:"last,omitzero"`
	Releases  int            `json:"releases"`
	States    map[string]int `json:"states"`
	Actions   map[string]int `json:"actions"`
	Proofs    int            `json:"proofs"`
	Trust     string         `json:"trust,omitempty"` // fingerprint of the trust object in the export
	Crashes   int            `json:"crashes"`
	Odd       []string       `json:"odd"` // worth a question, and no verdict
	OddMore   int            `json:"odd_more,omitempty"`
	Problem   string         `json:"problem,omitempty"` // what is wrong, first place first; "" : nothing

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
	if !r.KeyGiven {
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
	if r.Trust != "" {
		line("TRUST", "%s", r.Trust)
	}
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
