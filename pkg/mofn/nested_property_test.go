// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"strings"
	"testing"

	"sluice/pkg/mofn"
)

// node is a group of the second model: its officers as a bitmap, or groups below.
type node struct {
	name   string
	need   int
	people int // bitmap of its own officers
	below  []*node
}

func (n *node) met(approving int) bool {
	got := bits.OnesCount(uint(n.people & approving))
	for _, b := range n.below {
		if b.met(approving) {
			got++
		}
	}
	return got >= n.need
}

func (n *node) all() int {
	m := n.people
	for _, b := range n.below {
		m |= b.all()
	}
	return m
}

// forest is a policy with groups of groups, and of what each officer checked.
type forest struct {
	top     *node
	role    map[int]string
	require map[string]int
	checked map[string]int // word -> bitmap
	text    strings.Builder
}

// randomForest deals officers into leaves and puts groups upon groups until one is left.
func randomForest(rng *rand.Rand) *forest {
	f := &forest{role: map[int]string{}, require: map[string]int{}, checked: map[string]int{}}
	for _, name := range crew() {
		fmt.Fprintf(&f.text, "officer %s key @%s\n", name, name)
	}
	var open []*node
	for o := range crew() {
		if len(open) == 0 || rng.IntN(3) == 0 {
			open = append(open, &node{name: fmt.Sprintf("g%d", len(open))})
		}
		n := open[rng.IntN(len(open))]
		if rng.IntN(8) > 0 || n.people == 0 { // now and then somebody is in no group
			n.people |= 1 << o
			f.role[o] = n.name
		}
	}
	next := len(open)
	open = deleteEmpty(open)
	for _, n := range open {
		f.write(rng, n)
	}
	for len(open) > 1 || rng.IntN(3) == 0 && next < 12 {
		k := 1 + rng.IntN(min(3, len(open)))
		up := &node{name: fmt.Sprintf("g%d", next), below: open[:k]}
		next++
		f.write(rng, up)
		open = append(open[k:len(open):len(open)], up)
	}
	f.top = open[0]
	f.rule(rng)
	return f
}

func deleteEmpty(list []*node) (out []*node) {
	for _, n := range list {
		if n.people != 0 {
			out = append(out, n)
		}
	}
	return out
}

func (f *forest) write(rng *rand.Rand, n *node) {
	var members []string
	for o, name := range crew() {
		if n.people>>o&1 == 1 {
			members = append(members, name)
		}
	}
	for _, b := range n.below {
		members = append(members, b.name)
	}
	n.need = 1 + rng.IntN(len(members))
	fmt.Fprintf(&f.text, "group %s %s %s\n", n.name, spell(rng, n.need, len(members)), strings.Join(members, " "))
}

func (f *forest) rule(rng *rand.Rand) {
	fmt.Fprintf(&f.text, "packer @packer\nrule stream models/* quorum %s", f.top.name)
	people := bits.OnesCount(uint(f.top.all()))
	for _, word := range []string{"bytes", "gate"} {
		f.checked[word] = rng.IntN(64)
		if rng.IntN(2) == 0 {
			f.require[word] = 1 + rng.IntN(people)
			fmt.Fprintf(&f.text, " require checked=%s:%d", word, f.require[word])
		}
	}
	f.text.WriteString("\n")
}

// met decides for a bitmap of approving officers, and bitmaps of what they checked.
func (f *forest) met(approving int, checked map[string]int) bool {
	ok := f.top.met(approving)
	for word, n := range f.require {
		ok = ok && bits.OnesCount(uint(approving&f.top.all()&checked[word])) >= n
	}
	return ok
}

// fewestLost tries every set of people who are gone, the others doing all they can.
func (f *forest) fewestLost() int {
	best, everything := 64, map[string]int{"bytes": 63, "gate": 63}
	for lost := range 64 {
		if lost&^f.top.all() == 0 && !f.met(f.top.all()&^lost, everything) {
			best = min(best, bits.OnesCount(uint(lost)))
		}
	}
	return best
}

// TestEverySubsetOfNestedGroups: groups of groups and required words, by brute force; and what Explain says about losses.
func TestEverySubsetOfNestedGroups(t *testing.T) {
	const policies = 25
	r := newRing(t)
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	deep := 0
	for range policies {
		f := randomForest(rng)
		s := bareScenario(t, r)
		s.policy = r.fill(f.text.String())
		cast := f.votes(s)
		p := mustPolicy(t, s.policy, s.keys)
		for subset := range 64 {
			f.check(t, s, p, cast, subset)
		}
		line := fmt.Sprintf("the fewest whose loss stops it: %d officer", f.fewestLost())
		if !strings.Contains(p.Explain(), line) {
			t.Errorf("Explain does not say %q:\n%s", line, p.Explain())
		}
		if len(f.top.below) > 0 {
			deep++
		}
		if t.Failed() {
			t.Fatalf("seed %d, policy:\n%s", seed, f.text.String())
		}
	}
	if deep < policies/4 {
		t.Errorf("seed %d: only %d policies have groups of groups", seed, deep)
	}
}

func (f *forest) votes(s *scenario) map[int]mofn.Vote {
	cast := map[int]mofn.Vote{}
	for o, name := range crew() {
		if f.role[o] == "" {
			continue
		}
		s.vote(name, f.role[o], func(c *mofn.Claim) {
			c.Checked = nil
			for _, word := range []string{"bytes", "gate"} {
				if f.checked[word]>>o&1 == 1 {
					c.Checked = append(c.Checked, word)
				}
			}
		})
		cast[o] = s.votes[len(s.votes)-1]
	}
	return cast
}

func (f *forest) check(t *testing.T, s *scenario, p *mofn.Policy, cast map[int]mofn.Vote, subset int) {
	t.Helper()
	var votes []mofn.Vote
	signed := map[string]bool{}
	for o, v := range cast {
		if subset>>o&1 == 1 {
			votes = append(votes, v)
			signed[crew()[o]] = true
		}
	}
	want := f.met(subset, f.checked)
	a, err := p.Verify(s.rel, s.packer.message, s.packer.sigs, votes, s.open)
	if (err == nil) != want || a.Valid() != want || err != nil && !errors.Is(err, mofn.ErrThreshold) {
		t.Errorf("officers %06b: error %v, the model says %v", subset, err, want)
	}
	progress, err := p.Progress(s.rel, votes, s.open)
	if err != nil || progress.Met != want || (len(progress.Missing) == 0) != want {
		t.Errorf("officers %06b: progress %+v, %v; the model says %v", subset, progress, err, want)
	}
	if err := p.MeetsGroup(f.top.name, signed); (err == nil) != f.top.met(subset) {
		t.Errorf("officers %06b: MeetsGroup %v", subset, err)
	}
}
