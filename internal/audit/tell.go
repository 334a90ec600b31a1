// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"cmp"
	"slices"
	"strings"

	"sluice/internal/journal"
	"sluice/internal/trust"
	"sluice/pkg/mofn"
)

// Known is what a side knows of trust, as far as its log has to say so.
type Known struct {
	Versions []*trust.Store     // of the trust object: 1, 2, 3, ..., those in quarantine too
	Effect   int                // the version in effect
	Orders   []mofn.SignedOrder // that were accepted
}

// Teller puts what a side knows of trust into its log, each thing once. The state is written before the log, so a crash in between leaves
// something untold; the next process tells it. It is not safe for concurrent use.
type Teller struct {
	j     *journal.Journal
	actor string
	told  map[string]bool
}

// NewTeller reads in the journal what was told. It reads all events, and parses those that speak of trust.
func NewTeller(j *journal.Journal, actor string) (*Teller, error) {
	t := &Teller{j: j, actor: actor, told: map[string]bool{}}
	words := [][]byte{[]byte(`"action":"` + ActionTrustArrived), []byte(`"action":"` + ActionTrustEffect), []byte(`"action":"` + ActionOrder + " "), []byte(`"action":"` + ActionRestored)}
	err := j.RawEvents(1, MaxEvents, func(raw []byte) error {
		if !slices.ContainsFunc(words, func(w []byte) bool { return bytes.Contains(raw, w) }) {
			return nil
		}
		e, err := journal.ParseEvent(raw, true)
		if err != nil {
			return err
		}
		if e.Action == ActionRestored { // what was told before may be of a state that is not this one
			clear(t.told)
			return nil
		}
		t.told[subject(e)] = true
		return nil
	})
	return t, err
}

// subject tells two things apart that a log speaks of.
func subject(e journal.Event) string { return e.Action + " " + e.Digest }

// Tell appends an event for each thing that was not told yet, in the order in which they came: an order stands before the version that took
// effect after it. note is added to what is said of versions that took effect. It gives what it appended.
func (t *Teller) Tell(k Known, note string) (news []journal.Event, err error) {
	for _, e := range t.events(k, note) {
		if t.told[subject(e)] {
			continue
		}
		if err := t.j.Append(e); err != nil {
			return news, err
		}
		t.told[subject(e)] = true
		news = append(news, e)
	}
	return news, nil
}

// events are those of all that is known.
func (t *Teller) events(k Known, note string) (all []journal.Event) {
	if len(k.Versions) == 0 {
		return nil
	}
	for _, st := range k.Versions[1:] {
		all = append(all, t.version(ActionTrustArrived, st, ""))
	}
	orders := slices.Clone(k.Orders)
	slices.SortFunc(orders, func(a, b mofn.SignedOrder) int {
		return cmp.Or(cmp.Compare(a.Under, b.Under), strings.Compare(a.ID, b.ID))
	})
	for i, st := range k.Versions[:k.Effect] {
		if i > 0 {
			all = append(all, t.version(ActionTrustEffect, st, note))
		}
		for _, o := range orders {
			if o.Under == int64(i+1) {
				all = append(all, t.order(o))
			}
		}
	}
	return all
}

func (t *Teller) version(action string, st *trust.Store, note string) journal.Event {
	e := TrustEvent(action, st)
	e.Actor, e.Detail = t.actor, e.Detail+note
	return e
}

func (t *Teller) order(o mofn.SignedOrder) journal.Event {
	e := OrderEvent(o)
	e.Actor = t.actor
	return e
}

// releaseOf is the release that an order names; "" when it names none.
func releaseOf(o mofn.Order) string {
	if o.Kind == mofn.KindRelease {
		return o.Target
	}
	return ""
}
