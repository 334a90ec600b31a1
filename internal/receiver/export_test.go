// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"maps"
	"slices"

	"sluice/internal/journal"
)

// SetTarget puts another registry in the place of the one that the configuration names.
func (r *Receiver) SetTarget(change func(Target) Target) { r.registry = change(r.registry) }

// Job reads a job.
func (r *Receiver) Job(id string) (journal.Job, error) { return r.journal.Get(id) }

// Open says which releases are being received.
func (r *Receiver) OpenReceptions() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}

// States gives the table of transitions.
func States() map[string][]string { return maps.Clone(transitions()) }

// Named lists the errors of the table of dispositions, in its order.
func Named() []error {
	var out []error
	for _, d := range dispositions() {
		out = append(out, d.err)
	}
	return slices.Clip(out)
}

// MaxDamage is how often damage is repaired from the wire.
const MaxDamage = maxDamage
