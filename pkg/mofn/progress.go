// SPDX-License-Identifier: Apache-2.0

package mofn

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Progress says how far the approvals of a release are. All lists are sorted by name and may be empty.
type Progress struct {
	Rule     Rule
	Groups   []GroupProgress   // the quorum first, then the groups below it
	Requires []RequireProgress // sorted by word
	Approved []string          // officers of the quorum who approve
	Rejected []string          // officers of the quorum who reject: the release is held
	Outside  []string          // officers whose approval verified but who are not of this quorum
	Unknown  int               // approvals by keys that are not enrolled
	Missing  []string          // in words, as "1 more of security: m.lee or s.ito"; empty when nothing is
	Met      bool              // the quorum and every requirement are met and nobody rejects
}

// GroupProgress is one group of the quorum.
type GroupProgress struct {
	Name       string
	Need, Have int
	Met        bool
	Approved   []string // members (officers or groups) that are there
	Waiting    []string // members that are not, without those who rejected
}

// RequireProgress is one requirement "checked=<word>:<n>".
type RequireProgress struct {
	Word       string
	Need, Have int
}

// Progress counts the approvals without judging the packer's signature: it is what a person is shown while approvals come in, and
// never a permission to publish. A bad approval is an error, as in Verify. Too few, and rejections, are not: they are in
// the result. The opener sees only bytes whose signature verified.
func (p *Policy) Progress(rel Release, votes []Vote, open Opener) (Progress, error) {
	rule, err := p.ruleFor(rel)
	if err != nil {
		return Progress{}, err
	}
	t, err := p.tally(rel, votes, open)
	if err != nil {
		return Progress{}, err
	}
	quorum := p.groups[rule.Quorum]
	out := Progress{
		Rule: rule, Unknown: t.unknown,
		Approved: t.approving(quorum), Rejected: t.who(quorum, t.rejects), Outside: t.outside(quorum),
		Missing: quorum.missing(t.approves, t.rejects),
		Met:     p.decide(rule, t) == nil,
	}
	quorum.each(func(g *group) { out.Groups = append(out.Groups, g.progress(t)) })
	for _, word := range slices.Sorted(maps.Keys(rule.Require)) {
		r := RequireProgress{Word: word, Need: rule.Require[word], Have: t.checked(quorum, word)}
		out.Requires = append(out.Requires, r)
		if r.Have < r.Need {
			out.Missing = append(out.Missing, missingCheck(word, r.Need-r.Have))
		}
	}
	return out, nil
}

// outside are the officers who sent an approval or a rejection and are not of the quorum.
func (t *tally) outside(quorum *group) []string {
	var out []string
	for o := range t.claims {
		if !quorum.holds(o) {
			out = append(out, o.name)
		}
	}
	slices.Sort(out)
	return out
}

func (g *group) progress(t *tally) GroupProgress {
	out := GroupProgress{Name: g.name, Need: g.need, Have: g.have(t.approves), Met: g.met(t.approves)}
	for _, o := range g.officers {
		switch {
		case t.approves(o):
			out.Approved = append(out.Approved, o.name)
		case !t.rejects(o):
			out.Waiting = append(out.Waiting, o.name)
		}
	}
	for _, sub := range g.groups {
		if sub.met(t.approves) {
			out.Approved = append(out.Approved, sub.name)
		} else {
			out.Waiting = append(out.Waiting, sub.name)
		}
	}
	slices.Sort(out.Approved)
	slices.Sort(out.Waiting)
	return out
}

// missing says in words what a group still lacks. yes are those who are there, never those who will not come.
func (g *group) missing(yes, never func(*officer) bool) []string {
	lack := g.need - g.have(yes)
	if lack <= 0 {
		return nil
	}
	if len(g.officers) > 0 {
		return []string{g.missingOfficers(lack, yes, never)}
	}
	var open []string // what each unmet group below lacks
	for _, sub := range g.groups {
		if words := sub.missing(yes, never); len(words) > 0 {
			open = append(open, strings.Join(words, " and "))
		}
	}
	if len(open) == lack {
		return open
	}
	return []string{fmt.Sprintf("%d more of the groups of %s: (%s)", lack, g.name, strings.Join(open, ") or ("))}
}

func (g *group) missingOfficers(lack int, yes, never func(*officer) bool) string {
	var open []string
	for _, o := range g.officers {
		if !yes(o) && !never(o) {
			open = append(open, o.name)
		}
	}
	slices.Sort(open)
	conjunction := " or "
	switch {
	case len(open) < lack:
		return fmt.Sprintf("%d more of %s, which has only %d left", lack, g.name, len(open))
	case len(open) == lack:
		conjunction = " and "
	}
	return fmt.Sprintf("%d more of %s: %s", lack, g.name, strings.Join(open, conjunction))
}

func missingCheck(word string, lack int) string {
	return fmt.Sprintf("%d more approving officer(s) who checked %s", lack, word)
}

func nobody(*officer) bool { return false }
