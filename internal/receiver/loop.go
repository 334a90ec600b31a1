// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"sluice/internal/journal"
	"sluice/pkg/envelope"
)

const (
	// pollEvery is how often the loop looks at the journal when nothing woke it: hold times and back-offs have this grain.
	pollEvery = time.Second
	// backOffMin and backOffMax bound the wait after a transient failure.
	backOffMin = time.Second
	backOffMax = 5 * time.Minute
	// showEvery is how often progress is reported.
	showEvery = 250 * time.Millisecond
)

// Run receives through what faces the link and moves releases on until ctx ends; then it drains: what arrived is kept, a stage that
// runs is finished. Without a front it runs the slow half alone. Resume comes first.
func (r *Receiver) Run(ctx context.Context) error {
	r.mu.Lock()
	front := r.front
	r.mu.Unlock()
	g, work := errgroup.WithContext(ctx)
	if front != nil {
		g.Go(func() error { return front.Run(work) })
		g.Go(func() error { return r.show(work) })
	}
	g.Go(func() error { return r.loop(work) })
	err := g.Wait()
	return errors.Join(err, r.closeReceptions())
}

// show reports how far the payloads have come, when somebody wants to know.
func (r *Receiver) show(ctx context.Context) error {
	if r.report == nil {
		return nil
	}
	tick := time.NewTicker(showEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			r.showProgress()
		}
	}
}

// sweep removes the spool directories that no job needs: a crash between two steps leaves them, with all the space they reserve.
func (r *Receiver) sweep() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	jobs, err := r.journal.List(nil)
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, j := range jobs {
		wanted[j.ID] = wantsSpool(j)
	}
	entries, err := fs.ReadDir(r.spool.FS(), ".")
	if err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	for _, e := range entries {
		if wanted[e.Name()] {
			continue
		}
		r.log.Warn("spool directory that no job needs is removed", zap.String("name", e.Name()))
		if err := r.removeSpool(e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// wantsSpool tells whether a job still needs its spool directory. One whose data cannot be read keeps it.
func wantsSpool(j journal.Job) bool {
	d, err := dataOf(j)
	return err != nil || j.State != stateRejected && (j.State != statePublished && j.State != stateWithdrawn || d.SpoolKept)
}

// Resume removes the spool directories that no job needs, and reopens the receptions that a crash or a stop interrupted, so that the
// symbols of running sessions go on landing in them. A daemon calls it before it says that it is ready: until then status would
// show a release that is half here as one of which nothing came.
func (r *Receiver) Resume(ctx context.Context) error {
	if err := r.sweep(); err != nil {
		return err
	}
	jobs, err := r.journal.List(func(j journal.Job) bool { return j.State == stateReceiving })
	if err != nil {
		return err
	}
	for _, job := range jobs {
		if err := r.resumeOne(ctx, job); err != nil {
			r.log.Warn("reception not resumed; it goes on when the release is announced again", zap.String("release", job.ID), zap.Error(err))
		}
	}
	return nil
}

// resumeOne opens the reception of one job again. One that is open already is left alone.
func (r *Receiver) resumeOne(ctx context.Context, job journal.Job) error {
	id := mustDigest(job.ID)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open[id] != nil {
		return nil
	}
	sh, err := findShelf(r.spool, id)
	if err != nil {
		return err
	}
	env, err := sh.envelope()
	if err != nil {
		return errors.Join(err, sh.Close())
	}
	g, err := readGeometry(sh)
	if err != nil {
		return errors.Join(err, sh.Close())
	}
	asm, err := sh.assemble(ctx, r.assembler, env.Statement, g)
	if err != nil {
		return errors.Join(err, sh.Close())
	}
	r.enter(newReception(asm, sh, env, g))
	prog := asm.Progress()
	r.log.Info("reception resumed", zap.String("release", job.ID), zap.Int64("symbols", prog.Have), zap.Int64("of", prog.Symbols))
	return nil
}

func (r *Receiver) loop(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if err := r.Step(ctx); err != nil {
			return err
		}
		if err := r.remember(); err != nil {
			r.log.Warn("second place", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-r.wakeup:
		}
	}
}

// Step moves every job that is due as far as it goes now. It returns an error only when the process cannot go on.
func (r *Receiver) Step(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := r.failure(); err != nil {
			return err
		}
		if err := r.tick(ctx); err != nil {
			return err
		}
		jobs, err := r.journal.Due(r.now(), stateReceived, stateVerified, stateInspected, stateHeld)
		if err != nil {
			return err
		}
		if len(jobs) == 0 {
			return r.tidy(ctx)
		}
		stuck, err := r.advanceAll(ctx, jobs)
		if err != nil || stuck {
			return err
		}
	}
	return nil
}

// advanceAll gives every job its turn. stuck says that a job could not even be put off: it is due still, and only the next tick
// looks at it again.
func (r *Receiver) advanceAll(ctx context.Context, jobs []journal.Job) (stuck bool, err error) {
	for _, job := range jobs {
		if ctx.Err() != nil {
			return false, nil //nolint:nilerr // told to stop; the rest goes on in the next process
		}
		failed := r.advance(context.WithoutCancel(ctx), job)
		var refused *RefusedError
		switch {
		case failed == nil || errors.As(failed, &refused):
		case Classify(failed) == Broken:
			return false, failed
		default:
			r.log.Error("nothing could be recorded", zap.String("release", job.ID), zap.String("state", job.State), zap.Error(failed))
			stuck = true
		}
	}
	return stuck, nil
}

// advance runs the stage of one job and commits what came of it. The job is read again under the lock: an officer's stop order
// may have come first.
func (r *Receiver) advance(ctx context.Context, job journal.Job) error {
	r.stage.Lock()
	defer r.stage.Unlock()
	now, err := r.journal.Get(job.ID)
	if err != nil || now.State != job.State {
		return err
	}
	sh, err := openShelf(r.spool, mustDigest(job.ID))
	if err != nil {
		return r.postpone(job, err)
	}
	defer sh.Close()
	env, err := sh.envelope()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, envelope.ErrFormat) || errors.Is(err, envelope.ErrDigest) || errors.Is(err, envelope.ErrVersion) {
		return r.lostSpool(job, err)
	}
	if err != nil {
		return r.postpone(job, err)
	}
	began := r.now()
	to, mutate, said, err := r.stages()[job.State](ctx, job, sh, env)
	switch {
	case err == nil:
		return r.commit(ctx, job, to, mutate, said, began)
	case Classify(err) == Refused:
		return r.refuse(env, err)
	default:
		return r.postpone(job, err)
	}
}

// commit records the transition; publication moves the stream's high-water mark in the same transaction.
func (r *Receiver) commit(ctx context.Context, job journal.Job, to string, mutate func(*journal.Job) error, said account, began time.Time) error {
	change := func(j *journal.Job) error {
		if err := clearError(j); err != nil {
			return err
		}
		if mutate == nil {
			return nil
		}
		return mutate(j)
	}
	event := r.newEvent(eventName(to), job.ID, said.detail)
	event.Digest = said.digest
	var err error
	if to == statePublished {
		_, err = r.journal.AdvanceWithMark(job.ID, job.State, to, change, event)
	} else {
		_, err = r.journal.Advance(job.ID, job.State, to, change, event)
	}
	if err != nil {
		return fmt.Errorf("%s -> %s: %w", job.State, to, err)
	}
	r.metrics.transitions.WithLabelValues(to).Inc()
	r.log.Info(eventName(to), zap.String("release", job.ID), zap.String("name", job.Name), zap.String("stream", job.Stream),
		zap.Int64("seq", job.Seq), zap.String("detail", said.detail), zap.Duration("took", r.now().Sub(began)))
	switch to {
	case statePublished:
		r.metrics.published.Inc()
	case stateReceiving:
		if err := r.resumeOne(ctx, job); err != nil {
			r.log.Warn("reception not resumed; a restart tries again", zap.String("release", job.ID), zap.Error(err))
		}
	}
	return nil
}

func eventName(state string) string {
	switch state {
	case stateReceiving:
		return "receiving again"
	case stateVerified:
		return "verified"
	case stateInspected:
		return "inspected"
	case stateHeld:
		return "held"
	case statePublished:
		return "published"
	default:
		return state
	}
}

// postpone keeps the state and tries again later, ever less often, with jitter. A broken process gets its error back.
func (r *Receiver) postpone(job journal.Job, cause error) error {
	if Classify(cause) == Broken {
		return cause
	}
	r.log.Warn("postponed", zap.String("release", job.ID), zap.String("state", job.State), zap.Int("attempts", job.Attempts+1), zap.Error(cause))
	_, err := r.journal.Touch(job.ID, func(j *journal.Job) error {
		j.Attempts++
		j.LastError = clip(cause.Error())
		j.NotBefore = r.now().Add(backOff(j.Attempts))
		return nil
	})
	return err
}

func backOff(attempts int) time.Duration {
	d := backOffMin << min(attempts-1, 10)
	d = min(d, backOffMax)
	return d/2 + rand.N(d/2+1)
}

// lostSpool is for a job whose spooled envelope is gone or damaged: the bytes are not what the journal promised, so it is
// rejected and said aloud; the next pass brings the release again.
func (r *Receiver) lostSpool(job journal.Job, cause error) error {
	r.log.Error("the spool lost a release", zap.String("release", job.ID), zap.Error(cause))
	note := func(j *journal.Job) error { j.LastError, j.NotBefore = clip(cause.Error()), time.Time{}; return nil }
	if _, err := r.journal.Advance(job.ID, job.State, stateRejected, note, r.newEvent("spool lost", job.ID, cause.Error())); err != nil {
		return err
	}
	return r.removeSpool(job.ID)
}

// tidy drops receptions that were overtaken, reads published releases back and frees their spool copies when their time has come.
func (r *Receiver) tidy(ctx context.Context) error {
	if err := r.dropOvertaken(); err != nil {
		return err
	}
	jobs, err := r.journal.Due(r.now(), statePublished)
	if err != nil {
		return err
	}
	for _, job := range jobs {
		d, err := dataOf(job)
		if err != nil {
			return err
		}
		if !d.SpoolKept || ctx.Err() != nil {
			continue
		}
		if err := r.readBack(ctx, job); err != nil && ctx.Err() == nil {
			if err := r.postpone(job, err); err != nil {
				return err
			}
		}
	}
	return nil
}
