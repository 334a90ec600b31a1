// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"sluice/pkg/mofn"
)

// model is a second evaluator, as naive as can be: a bitmap of people, no maps of keys, no errors.
type model struct {
	text    string
	names   []string // names of the leaf groups, by officer
	leaves  [][]int  // officers of each leaf group
	need    []int    // of each leaf group
	top     int      // leaf groups that must be met
	require int      // approving officers who must have checked the bytes
	checked int      // bitmap of officers who did
}

// met decides for a bitmap of approving officers.
func (m *model) met(approving int) bool {
	groups, checks := 0, 0
	for g, people := range m.leaves {
		n := 0
		for _, o := range people {
			if approving>>o&1 == 1 {
				n++
				checks += m.checked >> o & 1
			}
		}
		if n >= m.need[g] {
			groups++
		}
	}
	return groups >= m.top && checks >= m.require
}

// crew are the six officers of the property test.
func crew() []string { return []string{"alice", "bob", "carol", "dave", "erin", "frank"} }

// randomModel deals up to six officers into one to three leaf groups below a top group; officers may also stand apart.
func randomModel(rng *rand.Rand) *model {
	m := &model{names: make([]string, 6), checked: rng.IntN(64)}
	m.leaves = make([][]int, 1+rng.IntN(3))
	for o := range crew() {
		if g := rng.IntN(len(m.leaves) + 1); g < len(m.leaves) || o < len(m.leaves) {
			g = min(g, len(m.leaves)-1)
			if o < len(m.leaves) {
				g = o // no leaf is empty
			}
			m.leaves[g] = append(m.leaves[g], o)
			m.names[o] = fmt.Sprintf("leaf%d", g)
		}
	}
	total := 0
	for _, people := range m.leaves {
		m.need = append(m.need, 1+rng.IntN(len(people)))
		total += len(people)
	}
	m.top = 1 + rng.IntN(len(m.leaves))
	m.require = rng.IntN(min(total, 2) + 1)
	m.write(rng)
	return m
}

// write gives the same as a policy, with the words any and all now and then.
func (m *model) write(rng *rand.Rand) {
	var b strings.Builder
	for _, name := range crew() {
		fmt.Fprintf(&b, "officer %s key @%s\n", name, name)
	}
	var leaves []string
	for g, people := range m.leaves {
		var members []string
		for _, o := range people {
			members = append(members, crew()[o])
		}
		leaves = append(leaves, fmt.Sprintf("leaf%d", g))
		fmt.Fprintf(&b, "group leaf%d %s %s\n", g, spell(rng, m.need[g], len(people)), strings.Join(members, " "))
	}
	fmt.Fprintf(&b, "group top %s %s\npacker @packer\nrule stream models/* quorum top", spell(rng, m.top, len(leaves)), strings.Join(leaves, " "))
	if m.require > 0 {
		fmt.Fprintf(&b, " require checked=bytes:%d", m.require)
	}
	m.text = b.String() + "\n"
}

func spell(rng *rand.Rand, need, of int) string {
	switch {
	case need == 1 && rng.IntN(2) == 0:
		return "any"
	case need == of && rng.IntN(2) == 0:
		return "all"
	}
	return fmt.Sprint(need)
}

// TestEverySubset: for random policies, which subsets of officers pass is the same for the evaluator and for the model.
func TestEverySubset(t *testing.T) {
	const policies = 15
	r := newRing(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range policies {
		m := randomModel(rng)
		s := bareScenario(t, r)
		s.policy = r.fill(m.text)
		cast := m.votes(s)
		p := mustPolicy(t, s.policy, s.keys)
		for subset := range 64 {
			checkSubset(t, s, p, m, cast, subset)
		}
		if t.Failed() {
			t.Fatalf("seed %d, policy:\n%s", seed, m.text)
		}
	}
}

// votes signs one approval for each officer who is in a group.
func (m *model) votes(s *scenario) map[int]mofn.Vote {
	cast := map[int]mofn.Vote{}
	for o, name := range crew() {
		if m.names[o] == "" {
			continue
		}
		s.vote(name, m.names[o], func(c *mofn.Claim) {
			c.Checked = nil
			if m.checked>>o&1 == 1 {
				c.Checked = []string{"bytes"}
			}
		})
		cast[o] = s.votes[len(s.votes)-1]
	}
	return cast
}

func checkSubset(t *testing.T, s *scenario, p *mofn.Policy, m *model, cast map[int]mofn.Vote, subset int) {
	t.Helper()
	var votes []mofn.Vote
	for o, v := range cast {
		if subset>>o&1 == 1 {
			votes = append(votes, v)
		}
	}
	a, err := p.Verify(s.rel, s.packer.message, s.packer.sigs, votes, s.open)
	want := m.met(subset)
	if (err == nil) != want || a.Valid() != want {
		t.Errorf("officers %06b: error %v, the model says %v", subset, err, want)
	}
	if err != nil && !errors.Is(err, mofn.ErrThreshold) {
		t.Errorf("officers %06b: %v", subset, err)
	}
	progress, err := p.Progress(s.rel, votes, s.open)
	if err != nil || progress.Met != want || (len(progress.Missing) == 0) != want {
		t.Errorf("officers %06b: progress %+v, %v", subset, progress, err)
	}
}
