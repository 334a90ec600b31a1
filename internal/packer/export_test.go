// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"context"

	"sluice/internal/journal"
	"sluice/internal/trust"
)

// Look asks upstream once.
func (p *Packer) Look(ctx context.Context) { p.look(ctx) }

// One runs one stage of the first job that is due: a test can crash after it.
func (p *Packer) One(ctx context.Context) (bool, error) {
	jobs, err := p.journal.Due(p.now(), stateNew, stateMirrored, stateInspected, stateGated, stateSealed, stateApproved)
	if err != nil || len(jobs) == 0 {
		return false, err
	}
	return p.advance(ctx, jobs[0])
}

// Jobs lists the journal.
func (p *Packer) Jobs() ([]journal.Job, error) { return p.journal.List(nil) }

// Journal is the packer's own.
func (p *Packer) Journal() *journal.Journal { return p.journal }

// Transitions gives the table of transitions.
func Transitions() map[string][]string { return transitions() }

// WriteStatus writes status.txt as the loop does.
func (p *Packer) WriteStatus() error { return p.status() }

// WorkDir is a job's directory.
func (p *Packer) WorkDir(job journal.Job) string { return p.workDir(job) }

// Heed takes orders and trust objects out of the drop-box, as the loop does.
func (p *Packer) Heed() error { return p.heed() }

// Newest is the newest trust object that verified here.
func (p *Packer) Newest() *trust.Store { return p.site.Newest() }
