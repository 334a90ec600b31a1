// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"sluice/internal/hub"
	"sluice/internal/journal"
	"sluice/internal/ticket"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
	"sluice/pkg/quality"
)

// result is what a stage came to: a new state, or something to wait for.
type result struct {
	to     string
	detail string
	digest string    // of what the stage left, in hex
	key    string    // that signed it
	wait   string    // what the job waits for, in words; no state change
	until  time.Time // when it may go on; zero: it is looked at again soon
	note   string
	change func(*jobData)
	job    func(*journal.Job)
	mark   bool // the stream's high-water mark moves with the job
}

type stage func(ctx context.Context, job journal.Job, d jobData) (result, error)

func (p *Packer) stages() map[string]stage {
	return map[string]stage{
		stateNew:       p.mirror,
		stateMirrored:  p.inspect,
		stateInspected: p.gate,
		stateGated:     p.seal,
		stateSealed:    p.collect,
		stateApproved:  p.send,
	}
}

const (
	pollEvery  = time.Second
	waitEvery  = 2 * time.Second // how often a job that waits for people or evaluations is looked at without a wake-up
	backOffMin = time.Second
	backOffMax = 15 * time.Minute
)

// Run watches upstream and moves jobs on until ctx ends. A stage that runs is told to stop with ctx: mirroring and sending take up
// where they were.
func (p *Packer) Run(ctx context.Context) error {
	g, work := errgroup.WithContext(ctx)
	g.Go(func() error { return p.watchBox(work) })
	g.Go(func() error { return p.heartbeats(work) })
	g.Go(func() error { return p.bulletins(work) })
	g.Go(func() error { return p.loop(work) })
	return g.Wait()
}

func (p *Packer) loop(ctx context.Context) error {
	for ctx.Err() == nil {
		p.look(ctx)
		if err := p.heed(); err != nil {
			return err
		}
		if err := p.Step(ctx); err != nil {
			return err
		}
		if err := p.status(); err != nil {
			p.log.Warn("status.txt", zap.Error(err))
		}
		p.rest(ctx)
	}
	return nil
}

// rest waits for the next poll, or for something that woke the loop.
func (p *Packer) rest(ctx context.Context) {
	t := time.NewTimer(pollEvery)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-p.wakeup:
	}
}

// look asks upstream for new commits of the watched repositories.
func (p *Packer) look(ctx context.Context) {
	for _, w := range p.cfg.Watch {
		if p.now().Sub(p.polled[w.Stream]) < time.Duration(w.Every) {
			continue
		}
		p.polled[w.Stream] = p.now()
		if err := p.lookOne(ctx, w); err != nil && ctx.Err() == nil {
			p.log.Warn("upstream", zap.String("repo", w.Repo), zap.Error(err))
		}
	}
}

func (p *Packer) lookOne(ctx context.Context, w Watch) error {
	repo, err := hub.ParseRepo(w.Repo)
	if err != nil {
		return err
	}
	commit, err := p.hub.Resolve(ctx, repo, w.Revision)
	if err != nil {
		return err
	}
	data, err := json.Marshal(jobData{Watch: w, Commit: commit})
	if err != nil {
		return err
	}
	job := journal.Job{ID: jobID(w.Stream, commit), State: stateNew, Kind: string(w.Kind), Stream: w.Stream, Name: w.Name, Data: data}
	err = p.journal.Create(job, p.newEvent("new commit", job, w.Repo+"@"+commit))
	if errors.Is(err, journal.ErrExists) {
		return nil
	}
	if err == nil {
		p.log.Info("new commit", zap.String("repo", w.Repo), zap.String("commit", commit), zap.String("stream", w.Stream))
	}
	return err
}

// Step moves every job that is due as far as it goes now.
func (p *Packer) Step(ctx context.Context) error {
	for moved := true; moved && ctx.Err() == nil; {
		jobs, err := p.journal.Due(p.now(), stateNew, stateMirrored, stateInspected, stateGated, stateSealed, stateApproved)
		if err != nil {
			return err
		}
		moved = false
		for _, job := range jobs {
			m, err := p.advance(ctx, job)
			if err != nil {
				return err
			}
			moved = moved || m
		}
	}
	return nil
}

// ErrSuperseded says that a later release of the stream was sent already: the receiver would refuse this one as a rollback.
var ErrSuperseded = errors.New("packer: a later release of the stream was sent already")

// superseded looks for a later release of the job's stream that is on its way.
func (p *Packer) superseded(job journal.Job) error {
	later, err := p.journal.List(func(j journal.Job) bool {
		return j.Stream == job.Stream && j.State == stateSent && (j.Epoch > job.Epoch || j.Epoch == job.Epoch && j.Seq > job.Seq)
	})
	if err != nil || len(later) == 0 {
		return err
	}
	return fmt.Errorf("%w: seq %d of %s; this is seq %d", ErrSuperseded, later[0].Seq, job.Stream, job.Seq)
}

// advance runs the stage of one job and commits what came of it.
func (p *Packer) advance(ctx context.Context, job journal.Job) (moved bool, err error) {
	d, err := dataOf(job)
	if err != nil {
		return false, err
	}
	began := p.now()
	res, err := p.runStage(ctx, job, d)
	switch {
	case err != nil && ctx.Err() != nil:
		return false, nil //nolint:nilerr // the stage was told to stop; it goes on where it was
	case err != nil && Refused(err):
		return true, p.refuse(job, err)
	case err != nil:
		return false, p.postpone(job, err)
	case res.to == "":
		return false, p.wait(job, res)
	default:
		return true, p.commit(job, res, began)
	}
}

func (p *Packer) runStage(ctx context.Context, job journal.Job, d jobData) (result, error) {
	if err := p.stopped(job); err != nil {
		return result{wait: err.Error()}, nil //nolint:nilerr // it waits for the quorum to resume it
	}
	if job.State == stateSealed || job.State == stateApproved {
		err := p.superseded(job)
		if errors.Is(err, ErrSuperseded) && d.Passes > 0 {
			return cutShort(d, err), nil
		}
		if err != nil {
			return result{}, err
		}
	}
	return p.stages()[job.State](ctx, job, d)
}

func (p *Packer) commit(job journal.Job, res result, began time.Time) error {
	mutate := func(j *journal.Job) error {
		j.LastError, j.Attempts = "", 0
		if res.job != nil {
			res.job(j)
		}
		return setData(j, func(d *jobData) {
			d.Waiting = ""
			if res.change != nil {
				res.change(d)
			}
		})
	}
	event := p.newEvent(res.to, job, res.detail)
	event.Digest, event.Key = res.digest, res.key
	var err error
	if res.mark {
		_, err = p.journal.AdvanceWithMark(job.ID, job.State, res.to, mutate, event)
	} else {
		_, err = p.journal.Advance(job.ID, job.State, res.to, mutate, event)
	}
	if err != nil {
		return fmt.Errorf("%s -> %s: %w", job.State, res.to, err)
	}
	p.metrics.transitions.WithLabelValues(res.to).Inc()
	if res.to == stateSealed || res.to == stateApproved {
		p.announce()
	}
	p.log.Info(res.to, zap.String("job", job.ID), zap.String("stream", job.Stream), zap.String("detail", res.detail), zap.Duration("took", p.now().Sub(began)))
	return nil
}

func (p *Packer) wait(job journal.Job, res result) error {
	_, err := p.journal.Touch(job.ID, func(j *journal.Job) error {
		if j.NotBefore = res.until; res.until.IsZero() {
			j.NotBefore = p.now().Add(waitEvery)
		}
		j.LastError = res.note
		return setData(j, func(d *jobData) { d.Waiting = res.wait })
	})
	return err
}

func (p *Packer) refuse(job journal.Job, cause error) error {
	p.metrics.refused.Inc()
	p.log.Warn("refused", zap.String("job", job.ID), zap.String("state", job.State), zap.Error(cause))
	note := func(j *journal.Job) error { j.LastError = cause.Error(); return nil }
	_, err := p.journal.Advance(job.ID, job.State, stateRefused, note, p.newEvent("refused", job, cause.Error()))
	return err
}

func (p *Packer) postpone(job journal.Job, cause error) error {
	p.log.Warn("postponed", zap.String("job", job.ID), zap.String("state", job.State), zap.Int("attempts", job.Attempts+1), zap.Error(cause))
	_, err := p.journal.Touch(job.ID, func(j *journal.Job) error {
		j.Attempts++
		j.LastError = cause.Error()
		j.NotBefore = p.now().Add(backOff(j.Attempts))
		return nil
	})
	return err
}

func backOff(attempts int) time.Duration {
	d := min(backOffMin<<min(attempts-1, 12), backOffMax)
	return d/2 + rand.N(d/2+1)
}

// Refused tells verdicts, which no retry changes, from a busy world: only a verdict ends a job, and only a verdict is exit code 3.
func Refused(err error) bool {
	var damage *envelope.PayloadError
	var gate *quality.RejectedError
	if errors.As(err, &damage) || errors.As(err, &gate) {
		return true
	}
	for _, verdict := range []error{
		ErrInspection, ErrGate, ErrSuperseded, quality.ErrMissingItems, quality.ErrPairing,
		envelope.ErrFormat, envelope.ErrDigest, envelope.ErrVersion, envelope.ErrConflict,
		mofn.ErrRejected, mofn.ErrThreshold, mofn.ErrSignature, mofn.ErrUnknownPacker, mofn.ErrTooLarge, mofn.ErrNoRule, trust.ErrRevoked,
		trust.ErrAudience, trust.ErrExpired, trust.ErrRollback, trust.ErrVoteName,
		hub.ErrRepoNotFound, hub.ErrRevisionNotFound, hub.ErrMasked, hub.ErrPath,
		ticket.ErrFormat, ticket.ErrTyping, ticket.ErrSignature, ticket.ErrReceiver, ticket.ErrOther,
	} {
		if errors.Is(err, verdict) {
			return true
		}
	}
	return false
}
