// SPDX-License-Identifier: Apache-2.0

package officer

import (
	"fmt"
	"slices"
	"strings"

	"sluice/pkg/mofn"
)

// Compare says how a version of the trust object differs from the one before, people and keys first, each line by fingerprint and never by
// a name alone: a key that keeps its name and changes its bytes is another key (tuf-on-ci did not notice). Nothing differs: an empty list.
func Compare(from, to *mofn.Trust) []string {
	var out []string
	before, after := ownersOf(from), ownersOf(to)
	out = append(out, compareOfficers(before, after)...)
	out = append(out, compareKeys("key", keysOf(from.Keys), keysOf(to.Keys))...)
	out = append(out, compareKeys("heartbeat key", keysOf(from.Heartbeats), keysOf(to.Heartbeats))...)
	out = append(out, compareKeys("log key", logsOf(from.Logs), logsOf(to.Logs))...)
	out = append(out, compareKeys("link key", linksOf(from.Links), linksOf(to.Links))...)
	out = append(out, compareKeys("receiver", receiversOf(from.Receivers), receiversOf(to.Receivers))...)
	if from.Root != to.Root {
		out = append(out, fmt.Sprintf("the group that signs the next version: %s, before %s", to.Root, from.Root))
	}
	out = append(out, compareLines(from.Policy, to.Policy)...)
	return append(out, compareFloors(from.Epochs, to.Epochs)...)
}

// ownersOf gives the keys of each officer, sorted.
func ownersOf(t *mofn.Trust) map[string][]string {
	out := map[string][]string{}
	p, err := t.LoadPolicy()
	if err != nil { // ParseTrust looked
		return out
	}
	for _, name := range p.Officers() {
		out[name] = nil
	}
	for _, k := range t.Keys {
		if name, _, ok := p.OfficerOf(k.ID); ok {
			out[name] = append(out[name], k.ID.String())
		}
	}
	return out
}

func compareOfficers(before, after map[string][]string) (out []string) {
	for _, name := range sortedKeys(after) {
		if _, was := before[name]; !was {
			out = append(out, fmt.Sprintf("NEW officer %s with the key %s", name, strings.Join(after[name], ", ")))
		}
	}
	for _, name := range sortedKeys(before) {
		now, is := after[name]
		switch {
		case !is:
			out = append(out, "officer "+name+" is REMOVED")
		case !slices.Equal(now, before[name]):
			out = append(out, fmt.Sprintf("officer %s has OTHER KEYS: %s, before %s", name, strings.Join(now, ", "), strings.Join(before[name], ", ")))
		}
	}
	return out
}

// entry is something with an identity and a name for people.
type entry struct{ id, name string }

func keysOf(keys []mofn.TrustKey) (out []entry) {
	for _, k := range keys {
		out = append(out, entry{string(k.Suite) + " " + k.ID.String(), k.Comment})
	}
	return out
}

func logsOf(logs []mofn.LogKey) (out []entry) {
	for _, k := range logs {
		out = append(out, entry{k.Origin + " " + k.ID.String(), k.Comment})
	}
	return out
}

func linksOf(links []mofn.LinkKey) (out []entry) {
	for _, k := range links {
		out = append(out, entry{k.ID.String(), k.Comment})
	}
	return out
}

// receiversOf names each by both of its keys: another key is another entry.
func receiversOf(receivers []mofn.Receiver) (out []entry) {
	for _, r := range receivers {
		id := r.Name + " hpke " + mofn.NewKeyID(mofn.SuiteXWing, r.HPKE).String()
		if r.Ticket != nil {
			id += " ticket " + mofn.NewKeyID(mofn.SuiteTicket, r.Ticket).String()
		}
		out = append(out, entry{id, r.Comment})
	}
	return out
}

func compareKeys(what string, from, to []entry) (out []string) {
	has := func(list []entry, id string) bool {
		return slices.ContainsFunc(list, func(e entry) bool { return e.id == id })
	}
	for _, e := range to {
		if !has(from, e.id) {
			out = append(out, fmt.Sprintf("+ %s %s (%s)", what, e.id, e.name))
		}
	}
	for _, e := range from {
		if !has(to, e.id) {
			out = append(out, fmt.Sprintf("- %s %s (%s)", what, e.id, e.name))
		}
	}
	return out
}

// compareLines shows the lines of the policy that came and went. Lines of officers are shown above, by their keys.
func compareLines(from, to string) (out []string) {
	lines := func(text string) []string {
		var all []string
		for line := range strings.Lines(text) {
			line, _, _ = strings.Cut(line, "#")
			if words := strings.Fields(line); len(words) > 0 && words[0] != "officer" {
				all = append(all, strings.Join(words, " "))
			}
		}
		return all
	}
	before, after := lines(from), lines(to)
	for _, line := range after {
		if !slices.Contains(before, line) {
			out = append(out, "+ policy: "+line)
		}
	}
	for _, line := range before {
		if !slices.Contains(after, line) {
			out = append(out, "- policy: "+line)
		}
	}
	return out
}

func compareFloors(from, to []mofn.Epoch) (out []string) {
	was := map[string]mofn.Epoch{}
	for _, e := range from {
		was[e.Stream] = e
	}
	for _, e := range to {
		old, known := was[e.Stream]
		delete(was, e.Stream)
		switch {
		case !known:
			out = append(out, fmt.Sprintf("floor of %s: nothing below epoch %d seq %d", e.Stream, e.MinEpoch, e.MinSeq))
		case old == e:
		case e.MinEpoch < old.MinEpoch || e.MinEpoch == old.MinEpoch && e.MinSeq < old.MinSeq:
			out = append(out, fmt.Sprintf("floor of %s is LOWERED to epoch %d seq %d, before %d/%d: old releases pass again", e.Stream, e.MinEpoch, e.MinSeq, old.MinEpoch, old.MinSeq))
		default:
			out = append(out, fmt.Sprintf("floor of %s is raised to epoch %d seq %d, before %d/%d", e.Stream, e.MinEpoch, e.MinSeq, old.MinEpoch, old.MinSeq))
		}
	}
	for _, stream := range sortedKeys(was) {
		out = append(out, fmt.Sprintf("floor of %s is REMOVED: old releases pass again", stream))
	}
	return out
}
