// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"go.uber.org/zap"

	"sluice/internal/audit"
	"sluice/internal/bulletin"
	"sluice/internal/journal"
	"sluice/internal/link"
	"sluice/internal/recv"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// Envelope implements link.Sink for a link in this process.
func (r *Receiver) Envelope(ctx context.Context, a link.Announcement, stream io.ReaderAt, size int64) (link.Payload, error) {
	place, err := r.Judge(ctx, a, stream, size)
	if err != nil && Classify(err) == Broken && !errors.Is(err, link.ErrBroken) {
		err = fmt.Errorf("%w: %w", link.ErrBroken, err)
	}
	if err != nil {
		return nil, err
	}
	return r.local.Payload(place, func() bool { return r.Refused(place.Release) }), nil
}

// Judge implements recv.Daemon: header first. It runs once an envelope object has arrived whole, decides whether the
// release may be received at all, reserves the space, and only then is there a place where payload bytes could go.
func (r *Receiver) Judge(ctx context.Context, a link.Announcement, stream io.ReaderAt, size int64) (recv.Place, error) {
	place, err := r.judge(ctx, a, stream, size)
	if err != nil && Classify(err) == Broken {
		r.fail(err)
	}
	return place, err
}

func (r *Receiver) judge(ctx context.Context, a link.Announcement, stream io.ReaderAt, size int64) (place recv.Place, err error) {
	start := make([]byte, 8)
	if n, err := stream.ReadAt(start, 0); n == len(start) && (err == nil || errors.Is(err, io.EOF)) && bulletin.IsBulletin(start) {
		return r.judgeBulletin(a, io.NewSectionReader(stream, 0, size))
	}
	env, err := envelope.Read(io.NewSectionReader(stream, 0, size))
	if err != nil {
		return place, r.refuseUnread(a, err)
	}
	if env.ID != envelope.Digest(a.Release) {
		return place, r.refuseUnread(a, fmt.Errorf("%w: announced as %x, the envelope is of release %s", envelope.ErrDigest, a.Release, env.ID))
	}
	if env.Statement.Predicate.TotalSize != a.PayloadSize {
		return place, r.settle(env, fmt.Errorf("%w: announced with %d payload bytes, the statement says %d", envelope.ErrFormat, a.PayloadSize, env.Statement.Predicate.TotalSize))
	}
	place = recv.Place{Release: a.Release, Cut: recv.Cut{SymbolSize: a.Profile.SymbolSize(), Groups: a.Groups}}
	if place.Whole, err = r.alreadyHere(env); err != nil {
		return place, err
	}
	approval, err := r.check(env)
	switch {
	case place.Whole && errors.Is(err, mofn.ErrRejected): // an officer's stop order overtakes a release that waits
		return place, r.settle(env, err)
	case place.Whole:
		return place, nil
	case err != nil:
		return place, r.settle(env, err)
	}
	place.Whole, err = r.receive(ctx, place.Cut, env, approval)
	return place, err
}

// alreadyHere tells whether the release needs no bytes any more.
func (r *Receiver) alreadyHere(env *envelope.Envelope) (bool, error) {
	job, err := r.journal.Get(env.ID.String())
	if errors.Is(err, journal.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return job.State != stateReceiving && job.State != stateRejected, nil
}

// check is the verdict on an envelope under this site's own policy, and on its place in its stream.
func (r *Receiver) check(env *envelope.Envelope) (mofn.Approval, error) {
	if size := env.Statement.Predicate.TotalSize; size > int64(r.cfg.Limits.MaxRelease) {
		return mofn.Approval{}, fmt.Errorf("%w: %d bytes, limits.max_release is %d", errTooLarge, size, int64(r.cfg.Limits.MaxRelease))
	}
	approval, err := r.store().Check(env, r.rules())
	if err != nil {
		return mofn.Approval{}, err
	}
	return approval, r.checkStopped(env.ID)
}

// checkStopped refuses a release that an officer rejected once: whoever carries its envelope could leave that word out.
func (r *Receiver) checkStopped(id envelope.Digest) error {
	job, err := r.journal.Get(id.String())
	if errors.Is(err, journal.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	d, err := dataOf(job)
	if err == nil && d.Stopped {
		err = fmt.Errorf("%w: an officer rejected this release earlier (%s), and an envelope without that word does not undo it: have the bastion seal it again with the next seq", mofn.ErrRejected, job.LastError)
	}
	return err
}

func (r *Receiver) rules() trust.Rules {
	return trust.Rules{Receiver: r.cfg.Receiver, Now: r.site.Clock(r.now()), Mark: r.mark, Standing: r.site.Standing()}
}

func (r *Receiver) mark(stream string) (epoch, seq int64, ok bool, err error) {
	m, ok, err := r.journal.HighWater(stream)
	return m.Epoch, m.Seq, ok, err
}

// receive reserves the space and has the payload assembled. The job is looked at once more under the lock: another session of the
// release may have completed it meanwhile, and then it is whole.
func (r *Receiver) receive(ctx context.Context, cut recv.Cut, env *envelope.Envelope, approval mofn.Approval) (whole bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if whole, err := r.alreadyHere(env); err != nil || whole {
		return whole, err
	}
	if rec, open := r.open[env.ID]; open {
		if rec.cut == cut {
			return false, nil
		}
		r.log.Warn("the sender cuts the release in another way now; its reception begins anew", zap.String("release", env.ID.String()))
		delete(r.open, env.ID)
		if err := rec.close(); err != nil {
			return false, err
		}
	}
	if len(r.open) >= r.cfg.Limits.MaxReleases {
		return false, fmt.Errorf("%w: %d releases are being received, limits.max_releases is %d; it will be taken in a later pass", errBusy, len(r.open), r.cfg.Limits.MaxReleases)
	}
	rec, err := r.begin(ctx, env, cut, approval)
	if err != nil {
		return false, errors.Join(err, r.giveBack(env.ID.String(), err))
	}
	r.enter(rec)
	return false, nil
}

// begin makes the place for the payload, and then the job: a job without a place would wait for nothing.
func (r *Receiver) begin(ctx context.Context, env *envelope.Envelope, cut recv.Cut, approval mofn.Approval) (*reception, error) {
	sh, err := openShelf(r.spool, env.ID)
	if err != nil {
		return nil, err
	}
	sum, err := sh.putEnvelope(env)
	if err != nil {
		return nil, errors.Join(err, sh.Close())
	}
	asm, err := sh.reserve(ctx, r.assembler, env.Statement, cut, r.log)
	if err != nil {
		return nil, errors.Join(err, sh.Close())
	}
	if err := r.startJob(env, sum, approval); err != nil {
		return nil, errors.Join(err, asm.Close(), sh.Close())
	}
	return newReception(asm, sh, env, cut), nil
}

// giveBack frees what a failed beginning took, unless a job still stands on it.
func (r *Receiver) giveBack(id string, cause error) error {
	if Classify(cause) == Broken {
		return nil
	}
	job, err := r.journal.Get(id)
	if errors.Is(err, journal.ErrNotFound) || err == nil && job.State == stateRejected {
		return r.removeSpool(id)
	}
	return err
}

// startJob makes the job, or takes up the one that an earlier pass or process began.
func (r *Receiver) startJob(env *envelope.Envelope, sum string, approval mofn.Approval) error {
	p := env.Statement.Predicate
	fill := func(j *journal.Job) error {
		j.LastError, j.Attempts, j.NotBefore = "", 0, time.Time{}
		return setData(j, func(d *jobData) {
			*d = jobData{
				Envelope: sum, Files: len(env.Statement.Subjects), Bytes: p.TotalSize, Version: p.Version,
				Repo: p.Source.Repo, Gate: p.Gate.Verdict, Officers: approval.Officers(), Damaged: d.Damaged, Decisions: d.Decisions,
			}
		})
	}
	job, err := r.journal.Get(env.ID.String())
	switch {
	case errors.Is(err, journal.ErrNotFound):
		job = jobOf(env, stateReceiving)
		if err := fill(&job); err != nil {
			return err
		}
		said := r.newEvent("accepted", env.ID.String(), fmt.Sprintf("%d files, %d bytes, approved by %v", len(env.Statement.Subjects), p.TotalSize, approval.Officers()))
		said.Digest, said.Key = sum, approval.Packer().String()
		return errors.Join(r.journal.Create(job, said), r.recordDecisions(env), r.raiseFloor(env, approval))
	case err != nil:
		return err
	case job.State == stateRejected:
		said := r.newEvent("accepted again", job.ID, "")
		said.Digest, said.Key = sum, approval.Packer().String()
		if _, err = r.journal.Advance(job.ID, stateRejected, stateReceiving, fill, said); err != nil {
			return err
		}
	default:
		if _, err = r.journal.Touch(job.ID, fill); err != nil {
			return err
		}
	}
	return errors.Join(r.recordDecisions(env), r.raiseFloor(env, approval))
}

// raiseFloor raises the clock floor to the time that all who approved agree has come: the earliest of theirs, so that one wrong clock
// does not make everything expire.
func (r *Receiver) raiseFloor(env *envelope.Envelope, approval mofn.Approval) error {
	var earliest time.Time
	for _, n := range env.Approvals {
		v, err := trust.Vote(n)
		if err != nil {
			return err
		}
		a, err := envelope.ParseApproval(v.Payload)
		if err != nil || !slices.Contains(approval.Officers(), a.Officer) {
			continue // by a key that is not enrolled: nobody looked at its signature
		}
		at, err := time.Parse(time.RFC3339, a.At)
		if err == nil && (earliest.IsZero() || at.Before(earliest)) {
			earliest = at
		}
	}
	if len(approval.Officers()) < 2 {
		return nil // nobody to agree with
	}
	return r.site.Heard(earliest)
}

// recordDecisions puts those words of officers into the log that it does not have yet. It is asked whenever an envelope came in, and once more
// before a publication, so that a crash in between leaves none out.
func (r *Receiver) recordDecisions(env *envelope.Envelope) error {
	r.known.Lock()
	defer r.known.Unlock()
	return r.record(env)
}

// record is recordDecisions for who holds known.
func (r *Receiver) record(env *envelope.Envelope) error {
	job, err := r.journal.Get(env.ID.String())
	if err != nil {
		return err
	}
	d, err := dataOf(job)
	if err != nil {
		return err
	}
	events, err := audit.Decisions(r.store(), env, d.Decisions)
	if err != nil || len(events) == 0 {
		return err
	}
	for i := range events {
		events[i].Actor = r.actor()
	}
	_, err = r.journal.Touch(job.ID, func(j *journal.Job) error {
		return setData(j, func(d *jobData) {
			for _, e := range events {
				d.Decisions = append(d.Decisions, e.Digest)
			}
			d.Decisions = d.Decisions[max(0, len(d.Decisions)-maxDecisions):]
		})
	}, events...)
	return err
}

// maxDecisions is how many words of officers a job remembers: the most that two envelopes bring.
const maxDecisions = 64

func jobOf(env *envelope.Envelope, state string) journal.Job {
	p := env.Statement.Predicate
	return journal.Job{
		ID: env.ID.String(), State: state, Kind: string(p.Kind), Stream: p.Stream, Name: p.Name,
		Release: env.ID.String(), Epoch: p.Epoch, Seq: p.Seq,
	}
}

// Refused implements recv.Daemon: whether a release was refused, however far it had come.
func (r *Receiver) Refused(release [32]byte) bool {
	job, err := r.journal.Get(envelope.Digest(release).String())
	return err == nil && job.State == stateRejected
}

var (
	_ link.Sink   = (*Receiver)(nil)
	_ recv.Daemon = (*Receiver)(nil)
)

// removeSpool frees the space of a release.
func (r *Receiver) removeSpool(id string) error {
	if err := r.spool.RemoveAll(id); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}
