// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"sluice/pkg/mofn"
)

// modelVersion is a trust object as the model knows it: people, their keys, who stops, and how many of which of them go on.
type modelVersion struct {
	key      map[string]string // officer -> name of the key
	security []string
	quality  []string
	need     int  // of security
	both     bool // resume asks for one of quality too
}

func (v modelVersion) policy() string {
	var b strings.Builder
	for _, who := range append(slices.Clone(v.security), v.quality...) {
		fmt.Fprintf(&b, "officer %s key @%s\n", who, v.key[who])
	}
	fmt.Fprintf(&b, "group security %d %s\ngroup quality 1 %s\ngroup release all security quality\n", v.need, strings.Join(v.security, " "), strings.Join(v.quality, " "))
	resume := "security"
	if v.both {
		resume = "release"
	}
	fmt.Fprintf(&b, "packer @packer\nrule stream models/* quorum release\nstop security resume %s\n", resume)
	return b.String()
}

// goOn: are these people the resume quorum?
func (v modelVersion) goOn(people map[string]bool) bool {
	security, quality := 0, 0
	for who := range people {
		if slices.Contains(v.security, who) {
			security++
		}
		if slices.Contains(v.quality, who) {
			quality++
		}
	}
	return security >= v.need && (quality >= 1 || !v.both)
}

// enough: the quorum now, or as of a version under which one of the orders came, of those that had come by then.
func enough(versions []modelVersion, orders []mofn.SignedOrder) bool {
	asOf := []int{len(versions)}
	for _, o := range orders {
		asOf = append(asOf, int(o.Under))
	}
	for _, v := range asOf {
		people := map[string]bool{}
		for _, o := range orders {
			if int(o.Under) <= v {
				people[o.Officer] = true
			}
		}
		if versions[v-1].goOn(people) {
			return true
		}
	}
	return false
}

// model says of every order what the words of bulletin.md section 3 say: stands, lifted, revoked, void, or "" for a resume.
func (c *court) model(versions []modelVersion) map[string]string {
	about := func(o mofn.SignedOrder) string { return o.Kind + " " + o.Target }
	gone := map[string]bool{}
	for _, o := range c.orders {
		same := slices.DeleteFunc(slices.Clone(c.orders), func(p mofn.SignedOrder) bool { return p.Action != "revoke" || about(p) != about(o) })
		if o.Action == "revoke" && enough(versions, same) {
			gone[about(o)] = true
		}
	}
	void := func(o mofn.SignedOrder) bool {
		if o.Action == "revoke" && gone[about(o)] {
			return false
		}
		if gone["officer "+o.Officer] || gone["key "+o.Key.String()] {
			return true
		}
		for _, k := range c.ring {
			if k.Public().ID() == o.Key {
				halves := k.Public().HalfIDs()
				return gone["half "+halves[0].String()] || gone["half "+halves[1].String()]
			}
		}
		return false
	}
	out := map[string]string{}
	for _, o := range c.orders {
		lifting := slices.DeleteFunc(slices.Clone(c.orders), func(p mofn.SignedOrder) bool {
			return p.Action != "resume" || !slices.Contains(p.Lifts, o.ID) || void(p)
		})
		switch {
		case void(o):
			out[o.ID] = "void"
		case o.Action == "resume":
		case o.Action == "revoke" && gone[about(o)]:
			out[o.ID] = "revoked"
		case !slices.Contains(versions[o.Under-1].security, o.Officer):
			out[o.ID] = "void"
		case len(lifting) > 0 && enough(versions, lifting):
			out[o.ID] = "lifted"
		default:
			out[o.ID] = "stands"
		}
	}
	return out
}

// randomVersion deals five people and eight keys anew.
func randomVersion(rng *rand.Rand) modelVersion {
	people := []string{"p0", "p1", "p2", "p3", "p4"}
	keys := []string{"alice", "alice2", "bob", "carol", "dave", "erin", "frank", "gina"}
	rng.Shuffle(len(people), func(i, j int) { people[i], people[j] = people[j], people[i] })
	if rng.IntN(2) == 0 { // most people keep their key: the others swap
		rng.Shuffle(3, func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	}
	v := modelVersion{key: map[string]string{}, both: rng.IntN(3) == 0}
	n := 2 + rng.IntN(2)
	v.security, v.quality, v.need = people[:n], people[n:n+1+rng.IntN(2)], 1+rng.IntN(n)
	for i, who := range []string{"p0", "p1", "p2", "p3", "p4"} {
		v.key[who] = keys[i]
	}
	return v
}

// randomOrder is given by somebody of the newest version.
func (c *court) randomOrder(rng *rand.Rand, v modelVersion, n int) {
	who := append(slices.Clone(v.security), v.quality...)
	line := fmt.Sprintf("o%d %s ", n, v.key[who[rng.IntN(len(who))]])
	pick := func(from ...string) string { return from[rng.IntN(len(from))] }
	what := pick("officer p0", "officer p1", "officer p2", "key @alice", "key @bob", "half /bob", "half /carol", "release llm-41")
	switch rng.IntN(5) {
	case 0:
		line += "stop " + pick("everything", "stream models/*", what)
	case 1, 2:
		line += "revoke " + what
	default:
		if len(c.ids) == 0 {
			line += "stop everything"
			break
		}
		line += "resume"
		for i := range n {
			if rng.IntN(2) == 0 {
				line += fmt.Sprintf(" o%d", i)
			}
		}
		if strings.HasSuffix(line, "resume") {
			line += " o0"
		}
	}
	c.give(line)
}

// TestJudgeAgainstModel holds Judge against a model that was written from the words of the specification and looks at everything
// every time.
func TestJudgeAgainstModel(t *testing.T) {
	r := newRing(t)
	seed, rounds := rand.Uint64(), 400
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	seen := map[string]int{}
	for round := range rounds {
		c := &court{t: t, ring: r, ids: map[string]string{}}
		var versions []modelVersion
		n := 0
		for range 1 + rng.IntN(3) {
			versions = append(versions, randomVersion(rng))
			c.version(versions[len(versions)-1].policy())
			for range rng.IntN(6) {
				c.randomOrder(rng, versions[len(versions)-1], n)
				n++
			}
		}
		want := c.model(versions)
		s := c.judge()
		got := map[string]string{}
		note := func(what string, orders []mofn.SignedOrder) {
			for _, o := range orders {
				got[o.ID] = what
			}
		}
		note("stands", s.Stops)
		note("lifted", s.Lifted)
		note("void", s.Void)
		for _, rev := range s.Revocations {
			for _, id := range rev.Orders {
				got[id] = "revoked"
			}
		}
		for name, id := range c.ids {
			seen[want[id]]++
			if got[id] != want[id] {
				t.Fatalf("seed %d round %d: %s is %q, the model says %q; orders %+v", seed, round, name, got[id], want[id], c.orders)
			}
		}
	}
	for _, verdict := range []string{"stands", "lifted", "revoked", "void"} {
		if seen[verdict] < rounds/50 {
			t.Errorf("%q came %d times only: the histories are too tame", verdict, seen[verdict])
		}
	}
	t.Log(seen)
}

// BenchmarkJudge is a bulletin full of orders: stops, half of them lifted by three officers, and revocations.
func BenchmarkJudge(b *testing.B) {
	for _, n := range []int{16, 256, 1024} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := newCourt(b, newRing(b))
			for i := 0; len(c.orders) < n; i++ {
				c.give(fmt.Sprintf("s%d alice stop release llm-%d", i, i))
				c.give(fmt.Sprintf("a%d bob resume s%d", i, i))
				c.give(fmt.Sprintf("b%d carol resume s%d", i, i))
				c.give(fmt.Sprintf("k%d bob revoke release llm-%d", i, i+5000))
			}
			b.ReportAllocs()
			for b.Loop() {
				c.judge()
			}
		})
	}
}
