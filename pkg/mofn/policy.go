// SPDX-License-Identifier: Apache-2.0

package mofn

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Policy says who can release what. ParsePolicy makes it; it never changes afterwards.
//
// Every name has at most one parent, so the groups are trees and no officer can be reached twice: counting is counting.
type Policy struct {
	officers map[string]*officer
	groups   map[string]*group
	rules    []Rule               // in the order of the text
	stop     *group               // who may stop; nil without a stop line
	resume   *group               // who may lift a stop and revoke; nil without a stop line
	packers  []KeyID              // in the order of the text
	keys     map[KeyID]*PublicKey // every key of an officer or packer
	owner    map[KeyID]*officer   // keys of officers only
}

// officer is a person: counts once, however many keys they have.
type officer struct {
	name  string
	keys  []KeyID
	group *group // nil: may not approve anything
}

// group is met by need of its members: all of them officers, or all of them groups.
type group struct {
	name     string
	need     int
	officers []*officer
	groups   []*group
	parent   *group
	depth    int // 1 for a group of officers
}

// have counts the members that are met: officers for whom yes holds, groups that are met.
func (g *group) have(yes func(*officer) bool) int {
	n := 0
	for _, o := range g.officers {
		if yes(o) {
			n++
		}
	}
	for _, sub := range g.groups {
		if sub.met(yes) {
			n++
		}
	}
	return n
}

func (g *group) met(yes func(*officer) bool) bool { return g.have(yes) >= g.need }

// each visits the group and every group below it, parents first.
func (g *group) each(visit func(*group)) {
	visit(g)
	for _, sub := range g.groups {
		sub.each(visit)
	}
}

// people are the officers of the group and of all groups below.
func (g *group) people() []*officer {
	var all []*officer
	g.each(func(sub *group) { all = append(all, sub.officers...) })
	return all
}

// holds reports whether o is in the group or below it: one walk up, because every name has one parent.
func (g *group) holds(o *officer) bool {
	for up := o.group; up != nil; up = up.parent {
		if up == g {
			return true
		}
	}
	return false
}

// Rule is what the policy asks of the releases of some streams.
type Rule struct {
	Pattern string         // an exact stream, or "prefix/*" for everything below prefix
	Quorum  string         // the group that must be met
	Hold    time.Duration  // from verification to publication, at least
	MaxSize int64          // bytes of all files together; 0 means no limit
	Chain   bool           // succession chain: published only when its prev is what was published last in the stream; false is latest
	Require map[string]int // word of an approval's checked list -> approving officers of the quorum who must have it
}

// matches reports whether the rule covers stream.
func (r *Rule) matches(stream string) bool {
	if prefix, below := strings.CutSuffix(r.Pattern, "*"); below {
		return strings.HasPrefix(stream, prefix) // and is longer: prefix ends in a slash, no stream does
	}
	return stream == r.Pattern
}

// weight orders rules that match one stream: the star does not count, so an exact pattern wins over any other.
func (r *Rule) weight() int { return len(strings.TrimSuffix(r.Pattern, "*")) }

func (r Rule) clone() Rule {
	r.Require = maps.Clone(r.Require)
	return r
}

// Rule gives the rule of a stream: of the matching patterns the longest. ErrNoRule when there is none, and for anything that is
// not the name of a stream. The map is a copy.
func (p *Policy) Rule(stream string) (Rule, error) {
	if !validStream(stream) {
		return Rule{}, fmt.Errorf("%w: %q is not the name of a stream", ErrNoRule, shorten(stream))
	}
	var best *Rule
	for i := range p.rules {
		if r := &p.rules[i]; r.matches(stream) && (best == nil || r.weight() > best.weight()) {
			best = r
		}
	}
	if best == nil {
		return Rule{}, fmt.Errorf("%w: %q; add a line \"rule stream %s quorum <group>\" to the policy of the next trust object", ErrNoRule, stream, stream)
	}
	return best.clone(), nil
}

// Rules gives all rules, in the order of the text.
func (p *Policy) Rules() []Rule {
	all := make([]Rule, len(p.rules))
	for i, r := range p.rules {
		all[i] = r.clone()
	}
	return all
}

// Packers gives the ids of the keys that may sign release statements, in the order of the text.
func (p *Policy) Packers() []KeyID { return slices.Clone(p.packers) }

// Officers gives the names of all officers, sorted.
func (p *Policy) Officers() []string { return slices.Sorted(maps.Keys(p.officers)) }

// OfficerOf says whose key it is and in which group, which is the role, that person approves. ok is false for packer keys and
// unknown keys; group is "" for an officer who is in no group.
func (p *Policy) OfficerOf(id KeyID) (officer, group string, ok bool) {
	o, ok := p.owner[id]
	if !ok {
		return "", "", false
	}
	return o.name, o.role(), true
}

func (o *officer) role() string {
	if o.group == nil {
		return ""
	}
	return o.group.name
}

// PublicKey gives an enrolled key of an officer or a packer; ok is false for any other.
func (p *Policy) PublicKey(id KeyID) (key *PublicKey, ok bool) {
	key, ok = p.keys[id]
	return key, ok
}

func names(people []*officer) []string {
	out := make([]string, len(people))
	for i, o := range people {
		out[i] = o.name
	}
	return out
}

// InGroup reports whether an officer is in a group or below it.
func (p *Policy) InGroup(group, officer string) bool {
	g, ok := p.groups[group]
	o, known := p.officers[officer]
	return ok && known && g.holds(o)
}
