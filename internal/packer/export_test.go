// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"context"

	"sluice/internal/bulletin"
	"sluice/internal/journal"
	"sluice/internal/site"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
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

// Heed is one look at the drop-box.
func (p *Packer) Heed() error { return p.heed() }

// Site is what this bastion knows of trust.
func (p *Packer) Site() *site.Site { return p.site }

// Said is what of the drop-box was not taken.
func (p *Packer) Said() []string { return p.said }

// TakeOff puts a job on the air.
func (p *Packer) TakeOff(ctx context.Context, job journal.Job) (context.Context, func()) {
	id, _ := envelope.ParseDigest(job.Release)
	return p.takeOff(ctx, job, id)
}

// MakeBulletin makes the next one, and keeps a daemon's log for it.
func (p *Packer) MakeBulletin(ctx context.Context) (*bulletin.Bulletin, error) {
	if p.audit == nil {
		var err error
		if p.audit, err = openLog(p.cfg, p.journal); err != nil {
			return nil, err
		}
	}
	return p.makeBulletin(ctx)
}

// Newest is the newest trust object that verified here.
func (p *Packer) Newest() *trust.Store { return p.site.Newest() }
