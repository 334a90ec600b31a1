// SPDX-License-Identifier: Apache-2.0

package mofn

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Explain says in words who can release what, what waits, how large it may be, what must have been checked, who can stop, and how
// many of which people can be lost before nothing passes any more. Lines end in a newline and their order does not vary.
func (p *Policy) Explain() string {
	var b strings.Builder
	rules := p.Rules()
	slices.SortFunc(rules, func(a, z Rule) int { return cmp.Compare(a.Pattern, z.Pattern) })
	for _, r := range rules {
		p.explainRule(&b, &r)
	}
	p.explainStop(&b)
	for _, id := range p.packers {
		fmt.Fprintf(&b, "packer: key %v may sign release statements\n", id)
	}
	fmt.Fprintf(&b, "packers: lose %s and nothing new can be sealed\n", all(len(p.packers), "packer key"))
	for _, name := range p.Officers() {
		fmt.Fprintf(&b, "officer %s: %s\n", name, p.officers[name].explain())
	}
	return b.String()
}

func (p *Policy) explainRule(b *strings.Builder, r *Rule) {
	quorum := p.groups[r.Quorum]
	fmt.Fprintf(b, "stream %s: released by %s%s\n", r.Pattern, r.Quorum, r.limits())
	quorum.explain(b, "  ")
	for _, word := range slices.Sorted(maps.Keys(r.Require)) {
		fmt.Fprintf(b, "  and at least %d of the approving officers must have checked %s\n", r.Require[word], word)
	}
	fmt.Fprintf(b, "  a reject by any one of them holds it\n")
	if r.Chain {
		fmt.Fprintf(b, "  succession chain: published only when it follows what was published last\n")
	} else {
		fmt.Fprintf(b, "  succession latest: a later one is published although one before it did not arrive\n")
	}
	fmt.Fprintf(b, "  lose %s and nothing passes\n", quorum.losses())
	people := len(quorum.people())
	for _, word := range slices.Sorted(maps.Keys(r.Require)) {
		if n := r.Require[word]; n > quorum.fewest() { // else the group is not met either
			fmt.Fprintf(b, "  lose any %d of the %s and nothing passes: %d must have checked %s\n", people-n+1, count(people, "officer"), n, word)
		}
	}
	fmt.Fprintf(b, "  the fewest whose loss stops it: %s\n", count(r.fewestLost(quorum), "officer"))
}

// limits are words about time and size, each with a comma before it.
func (r *Rule) limits() string {
	s := ""
	if r.Hold > 0 {
		s += fmt.Sprintf(", published %s after verification at the earliest", hold(r.Hold))
	}
	if r.MaxSize > 0 {
		s += fmt.Sprintf(", at most %s", size(r.MaxSize))
	}
	return s
}

// hold writes a duration without the zeros at its end: 24h, not 24h0m0s.
func hold(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if cut, ok := strings.CutSuffix(s, zero); ok {
			s = cut + zero[:1]
		}
	}
	return s
}

// size writes bytes, and the largest binary unit that divides them beside.
func size(n int64) string {
	s := fmt.Sprintf("%d bytes", n)
	for i, unit := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if one := int64(1) << (40 - 10*i); n%one == 0 {
			return fmt.Sprintf("%s (%d %s)", s, n/one, unit)
		}
	}
	return s
}

func (g *group) explain(b *strings.Builder, indent string) {
	members := names(g.officers)
	for _, sub := range g.groups {
		members = append(members, sub.name)
	}
	fmt.Fprintf(b, "%s%s: %d of %s\n", indent, g.name, g.need, strings.Join(members, ", "))
	for _, sub := range g.groups {
		sub.explain(b, indent+"  ")
	}
}

// blocking is how many members must be gone so that the group cannot be met.
func (g *group) blocking() int { return len(g.officers) + len(g.groups) - g.need + 1 }

// losses says which losses keep the group from being met, as "2 of security", or "2 of security or 1 of quality".
func (g *group) losses() string {
	n := g.blocking()
	if len(g.officers) > 0 {
		return fmt.Sprintf("%d of %s", n, g.name)
	}
	each := make([]string, len(g.groups))
	for i, sub := range g.groups {
		each[i] = sub.losses()
		if len(sub.groups) > 1 && len(g.groups) > 1 {
			each[i] = "(" + each[i] + ")"
		}
	}
	switch n {
	case 1:
		return strings.Join(each, " or ")
	case len(each):
		return strings.Join(each, " and ")
	default:
		return fmt.Sprintf("any %d of: %s;", n, strings.Join(each, ", "))
	}
}

// fewestLost is the smallest number of people without whom nothing can pass.
func (r *Rule) fewestLost(quorum *group) int {
	n, people := quorum.fewestLost(), len(quorum.people())
	for _, need := range r.Require {
		n = min(n, people-need+1)
	}
	return n
}

// fewestLost counts people whose loss keeps the group from being met: no person is in two groups, so the cheapest members add up.
func (g *group) fewestLost() int {
	return g.cheapest(g.blocking(), (*group).fewestLost)
}

// fewest is the smallest number of people who meet the group.
func (g *group) fewest() int { return g.cheapest(g.need, (*group).fewest) }

// cheapest adds up the n cheapest members: an officer costs one.
func (g *group) cheapest(n int, cost func(*group) int) int {
	if len(g.officers) > 0 {
		return n
	}
	costs := make([]int, len(g.groups))
	for i, sub := range g.groups {
		costs[i] = cost(sub)
	}
	slices.Sort(costs)
	sum := 0
	for _, c := range costs[:max(0, min(n, len(costs)))] { // n is out of range only while a policy with mistakes is read
		sum += c
	}
	return sum
}

func (p *Policy) explainStop(b *strings.Builder) {
	if p.stop == nil {
		var can []string
		for _, name := range p.Officers() {
			if p.MayStop(name) {
				can = append(can, name)
			}
		}
		fmt.Fprintf(b, "stop: any one officer of any quorum (%s) can stop a stream, a key or a release\n", strings.Join(can, ", "))
		fmt.Fprintf(b, "resume: lifting a stop and revoking needs the root group of the trust object\n")
		return
	}
	can := names(p.stop.people())
	slices.Sort(can)
	fmt.Fprintf(b, "stop: any one officer of %s (%s) can stop a stream, a key or a release\n", p.stop.name, strings.Join(can, ", "))
	fmt.Fprintf(b, "resume: lifting a stop and revoking needs %s\n", p.resume.name)
	p.resume.explain(b, "  ")
	fmt.Fprintf(b, "  lose %s and no stop can be lifted\n", p.resume.losses())
}

func (o *officer) explain() string {
	role := "in no group, cannot approve"
	if o.group != nil {
		role = "approves as " + o.group.name
	}
	ids := make([]string, len(o.keys))
	for i, id := range o.keys {
		ids[i] = id.String()
	}
	return role + ", key " + strings.Join(ids, ", key ")
}

// count writes a number and its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// all is count with the words for the whole of it.
func all(n int, noun string) string {
	if n == 1 {
		return "the only " + noun
	}
	return "all " + count(n, noun)
}
