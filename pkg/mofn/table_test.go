// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"errors"
	"strings"
	"testing"

	"sluice/pkg/mofn"
)

// mOfN is one case of M of N: groups is what stands between the officers and the packer; votes is who says what, as "alice bob!"
// (bob rejects) "carol-" (carol checked the manifest only) "alice2" (with the second key).
type mOfN struct {
	name, groups, rule, votes string
	want                      error
	words                     string
}

// roles gives the group of each officer as written in a case.
func (c mOfN) roles() map[string]string {
	out := map[string]string{}
	for line := range strings.SplitSeq(c.groups, "\n") {
		if w := strings.Fields(line); len(w) > 2 {
			for _, member := range w[3:] {
				out[member] = w[1]
			}
		}
	}
	return out
}

const (
	oneGroup  = "group g # alice bob carol"
	twoGroups = "group a 2 alice bob carol\ngroup b 1 dave erin\ngroup g # a b"
	nested    = "group a 2 alice bob\ngroup b any carol dave\ngroup c all a b\ngroup d 1 erin frank\ngroup g # c d"
)

func of(groups, k string) string { return strings.Replace(groups, "#", k, 1) }

func mOfNCases() []mOfN {
	th, rej, dup := mofn.ErrThreshold, mofn.ErrRejected, mofn.ErrDuplicate
	return []mOfN{
		{"1 of 3: nobody", of(oneGroup, "1"), "", "", th, "1 more of g"},
		{"1 of 3: one", of(oneGroup, "1"), "", "alice", nil, ""},
		{"1 of 3: another", of(oneGroup, "1"), "", "carol", nil, ""},
		{"1 of 3: all", of(oneGroup, "1"), "", "alice bob carol", nil, ""},
		{"any of 3: nobody", of(oneGroup, "any"), "", "", th, "0 of 1"},
		{"any of 3: one", of(oneGroup, "any"), "", "bob", nil, ""},
		{"2 of 3: one", of(oneGroup, "2"), "", "alice", th, "1 more of g: bob or carol"},
		{"2 of 3: one with two keys", of(oneGroup, "2"), "", "alice alice2", dup, "alice approves twice"},
		{"2 of 3: one with the other key", of(oneGroup, "2"), "", "alice2", th, "1 more of g: bob or carol"},
		{"2 of 3: two", of(oneGroup, "2"), "", "alice carol", nil, ""},
		{"2 of 3: two, one of them with the other key", of(oneGroup, "2"), "", "alice2 carol", nil, ""},
		{"2 of 3: all", of(oneGroup, "2"), "", "alice bob carol", nil, ""},
		{"2 of 3: two, one rejects", of(oneGroup, "2"), "", "alice bob!", rej, "bob"},
		{"2 of 3: two and one rejects", of(oneGroup, "2"), "", "alice bob carol!", rej, "carol"},
		{"2 of 3: all reject", of(oneGroup, "2"), "", "alice! bob! carol!", rej, "alice, bob, carol"},
		{"2 of 3: one, and one of no group of the quorum", of(oneGroup, "2") + "\ngroup z 1 frank", "", "alice frank", th, "1 of 2"},
		{"2 of 3: two, and one of elsewhere rejects", of(oneGroup, "2") + "\ngroup z 1 frank", "", "alice bob frank!", nil, ""},
		{"3 of 3: two", of(oneGroup, "3"), "", "alice bob", th, "1 more of g: carol"},
		{"3 of 3: three", of(oneGroup, "3"), "", "alice bob carol", nil, ""},
		{"all of 3: two", of(oneGroup, "all"), "", "bob carol", th, "1 more of g: alice"},
		{"all of 3: three", of(oneGroup, "all"), "", "alice bob carol", nil, ""},
		{"1 of 1: nobody", "group g 1 alice", "", "", th, "1 more of g: alice"},
		{"1 of 1: that one", "group g all alice", "", "alice", nil, ""},
		{"2 of 3 and 1 of 2: enough", of(twoGroups, "all"), "", "alice bob dave", nil, ""},
		{"2 of 3 and 1 of 2: one group only", of(twoGroups, "all"), "", "alice bob carol", th, "1 more of b: dave or erin"},
		{"2 of 3 and 1 of 2: the other only", of(twoGroups, "all"), "", "dave erin", th, "2 more of a"},
		{"2 of 3 and 1 of 2: one short in one", of(twoGroups, "all"), "", "alice dave erin", th, "1 more of a: bob or carol"},
		{"2 of 3 and 1 of 2: written as 2", of(twoGroups, "2"), "", "bob carol erin", nil, ""},
		{"2 of 3 and 1 of 2: enough, one more rejects", of(twoGroups, "all"), "", "alice bob dave erin!", rej, "erin"},
		{"2 of 3 or 1 of 2: the one", of(twoGroups, "any"), "", "bob carol", nil, ""},
		{"2 of 3 or 1 of 2: the other", of(twoGroups, "1"), "", "erin", nil, ""},
		{"2 of 3 or 1 of 2: neither", of(twoGroups, "any"), "", "carol", th, "1 more of the groups of g"},
		{"2 of 3 or 1 of 2: a reject in the group that is not needed", of(twoGroups, "any"), "", "alice bob erin!", rej, "erin"},
		{"three deep, all: enough", of(nested, "all"), "", "alice bob carol frank", nil, ""},
		{"three deep, all: the top is short", of(nested, "all"), "", "alice bob carol", th, "1 more of d: erin or frank"},
		{"three deep, all: the bottom is short", of(nested, "all"), "", "alice carol dave erin", th, "1 more of a: bob"},
		{"three deep, any: the short way", of(nested, "any"), "", "erin", nil, ""},
		{"three deep, any: the long way", of(nested, "any"), "", "alice bob dave", nil, ""},
		{"three deep, any: half of the long way", of(nested, "any"), "", "alice bob", th, "1 more of b: carol or dave"},
		{"bytes by 1: none did", of(oneGroup, "2"), "require checked=bytes:1", "alice- bob-", th, "1 more approving officer(s) who checked bytes"},
		{"bytes by 1: one did", of(oneGroup, "2"), "require checked=bytes:1", "alice- bob", nil, ""},
		{"bytes by 2: one did", of(oneGroup, "2"), "require checked=bytes:2", "alice bob-", th, "checked=bytes has 1 of 2"},
		{"bytes by 2: two did", of(oneGroup, "2"), "require checked=bytes:2", "alice bob carol-", nil, ""},
		{"bytes by 3 of a quorum of 2: two did", of(oneGroup, "2"), "require checked=bytes:3", "alice bob", th, "checked=bytes has 2 of 3"},
		{"bytes by 3 of a quorum of 2: three did", of(oneGroup, "2"), "require checked=bytes:3", "alice bob carol", nil, ""},
		{"bytes: who rejects did not check for us", of(oneGroup, "2"), "require checked=bytes:1", "alice- bob- carol!", rej, "carol"},
		{"bytes: of another group does not count", of(oneGroup, "2") + "\ngroup z 1 frank", "require checked=bytes:1", "alice- bob- frank", th, "checked=bytes has 0 of 1"},
		{"bytes and manifest", of(oneGroup, "2"), "require checked=bytes:1 require checked=manifest:2", "alice bob-", nil, ""},
		{"bytes and gate: nobody checked the gate", of(oneGroup, "2"), "require checked=bytes:1 require checked=gate:1", "alice bob", th, "checked=gate has 0 of 1"},
		{"no group at all", "group z 1 frank", "", "frank", mofn.ErrPolicy, `quorum "g" is not a group`},
		{"4 of 3", of(oneGroup, "4"), "", "alice bob carol", mofn.ErrPolicy, "threshold 4 is above"},
		{"0 of 3", of(oneGroup, "0"), "", "", mofn.ErrPolicy, "threshold 0 is below 1"},
		{"one person in both groups", "group a 1 alice\ngroup b 1 alice\ngroup g all a b", "", "alice", mofn.ErrPolicy, "member of two groups"},
		{"one group twice", "group a 1 alice\ngroup g 2 a a", "", "alice", mofn.ErrPolicy, "twice of one"},
		{"officers and groups mixed", "group a 1 alice\ngroup g all a bob", "", "alice bob", mofn.ErrPolicy, "mixes"},
	}
}

// TestMOfN: who signs what under which policy, and whether that is enough.
func TestMOfN(t *testing.T) {
	cases := mOfNCases()
	if len(cases) < 40 {
		t.Fatalf("%d cases", len(cases))
	}
	r := newRing(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := bareScenario(t, r)
			s.policy = r.fill(basePolicy[:strings.Index(basePolicy, "group")] + c.groups + "\npacker @packer\nrule stream models/* quorum g " + c.rule + "\n")
			roles := c.roles()
			for word := range strings.FieldsSeq(c.votes) {
				key := strings.TrimRight(word, "!-")
				s.vote(key, roles[strings.TrimRight(key, "2")], func(claim *mofn.Claim) {
					if strings.HasSuffix(word, "!") {
						claim.Decision = mofn.DecisionReject
					}
					if strings.HasSuffix(word, "-") {
						claim.Checked = []string{"manifest"}
					}
				})
			}
			a, err := s.run()
			if !errors.Is(err, c.want) || a.Valid() != (c.want == nil) {
				t.Fatalf("error %v, approval valid: %t; want %v", err, a.Valid(), c.want)
			}
			if err != nil && !strings.Contains(err.Error(), c.words) {
				t.Errorf("error %q does not say %q", err, c.words)
			}
		})
	}
}
