// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"go.uber.org/zap"

	"sluice/internal/journal"
	"sluice/internal/link"
	"sluice/internal/spool"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// Envelope implements link.Sink: header first. It runs once an envelope object has arrived whole, decides whether the
// release may be received at all, reserves the space, and only then is there a place where payload bytes could go.
func (r *Receiver) Envelope(ctx context.Context, a link.Announcement, stream io.ReaderAt, size int64) (link.Payload, error) {
	env, err := envelope.Read(io.NewSectionReader(stream, 0, size))
	if err != nil {
		return nil, r.refuseUnread(a, err)
	}
	if env.ID != envelope.Digest(a.Release) {
		return nil, r.refuseUnread(a, fmt.Errorf("%w: announced as %x, the envelope is of release %s", envelope.ErrDigest, a.Release, env.ID))
	}
	if env.Statement.Predicate.TotalSize != a.PayloadSize {
		return nil, r.refuse(ctx, env, fmt.Errorf("%w: announced with %d payload bytes, the statement says %d", envelope.ErrFormat, a.PayloadSize, env.Statement.Predicate.TotalSize))
	}
	if done, err := r.alreadyHere(env); err != nil || done {
		return fullPayload{}, err
	}
	approval, err := r.check(env)
	if err != nil {
		return nil, r.settle(ctx, env, err)
	}
	return r.receive(ctx, a, env, approval)
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
	return r.trust.Check(env, trust.Rules{Receiver: r.cfg.Receiver, Now: r.now(), Mark: r.mark})
}

func (r *Receiver) mark(stream string) (epoch, seq int64, ok bool, err error) {
	m, ok, err := r.journal.HighWater(stream)
	return m.Epoch, m.Seq, ok, err
}

// receive reserves the space and opens the assembler.
func (r *Receiver) receive(ctx context.Context, a link.Announcement, env *envelope.Envelope, approval mofn.Approval) (link.Payload, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, open := r.open[env.ID]; open {
		return p, nil
	}
	if len(r.open) >= r.cfg.Limits.MaxReleases {
		return nil, fmt.Errorf("%w: %d releases are being received, limits.max_releases is %d; it will be taken in a later pass", errBusy, len(r.open), r.cfg.Limits.MaxReleases)
	}
	sh, err := openShelf(r.spool, env.ID)
	if err != nil {
		return nil, err
	}
	sum, err := sh.putEnvelope(env)
	if err != nil {
		return nil, errors.Join(err, sh.Close())
	}
	if err := writeGeometry(sh, geometry{SymbolSize: a.Profile.SymbolSize(), Groups: a.Groups}); err != nil {
		return nil, errors.Join(err, sh.Close())
	}
	obj, err := sh.assemble(env.Statement, a.Profile.SymbolSize(), a.Groups, r.log)
	if err != nil {
		return nil, errors.Join(err, sh.Close())
	}
	if err := r.startJob(env, sum, approval); err != nil {
		return nil, errors.Join(err, obj.Close(), sh.Close())
	}
	p := &payload{obj: obj, shelf: sh, id: env.ID, symbol: int64(a.Profile.SymbolSize())}
	r.open[env.ID] = p
	r.watch(ctx, p)
	return p, nil
}

// startJob makes the job, or takes up the one that an earlier pass or process began.
func (r *Receiver) startJob(env *envelope.Envelope, sum string, approval mofn.Approval) error {
	p := env.Statement.Predicate
	fill := func(j *journal.Job) error {
		j.LastError = ""
		return setData(j, func(d *jobData) {
			*d = jobData{
				Envelope: sum, Files: len(env.Statement.Subjects), Bytes: p.TotalSize, Version: p.Version,
				Repo: p.Source.Repo, Gate: p.Gate.Verdict, Officers: approval.Officers(), Damaged: d.Damaged,
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
		return errors.Join(r.journal.Create(job), r.event("accepted", env.ID.String(), fmt.Sprintf("%d files, %d bytes, approved by %v", len(env.Statement.Subjects), p.TotalSize, approval.Officers())))
	case err != nil:
		return err
	case job.State == stateRejected:
		_, err = r.journal.Advance(job.ID, stateRejected, stateReceiving, fill, r.newEvent("accepted again", job.ID, ""))
		return err
	default:
		_, err = r.journal.Touch(job.ID, fill)
		return err
	}
}

func jobOf(env *envelope.Envelope, state string) journal.Job {
	p := env.Statement.Predicate
	return journal.Job{
		ID: env.ID.String(), State: state, Kind: string(p.Kind), Stream: p.Stream, Name: p.Name,
		Release: env.ID.String(), Epoch: p.Epoch, Seq: p.Seq,
	}
}

// watch moves the job on when the payload is complete and durable.
func (r *Receiver) watch(ctx context.Context, p *payload) {
	r.watchers.Go(func() {
		select {
		case <-ctx.Done():
			r.log.Info("reception interrupted", zap.String("release", p.id.String()), zap.Error(p.close()))
		case <-p.obj.Done():
			if err := r.received(p); err != nil {
				r.log.Error("reception could not be recorded", zap.String("release", p.id.String()), zap.Error(err))
			}
		}
	})
}

// received closes the assembler and records that the bytes are here and on stable storage.
func (r *Receiver) received(p *payload) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	prog := p.obj.Progress()
	delete(r.open, p.id)
	if err := p.close(); err != nil {
		return err
	}
	_, err := r.journal.Advance(p.id.String(), stateReceiving, stateReceived, clearError,
		r.newEvent("received", p.id.String(), fmt.Sprintf("%d symbols, %d of them repaired", prog.Symbols, prog.Recovered)))
	r.wake()
	return err
}

func clearError(j *journal.Job) error { j.LastError, j.Attempts = "", 0; return nil }

// payload is the place where the link puts payload symbols.
type payload struct {
	obj    *spool.Object
	shelf  *shelf
	id     envelope.Digest
	symbol int64 // bytes of a symbol
	once   sync.Once
	mu     sync.Mutex
	gone   bool
}

// Put implements link.Payload.
func (p *payload) Put(sbn, esi uint32, symbol []byte) (bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return false, nil
	}
	out, err := p.obj.Put(sbn, esi, symbol)
	return out == spool.Stored, err
}

// Flush implements link.Payload.
func (p *payload) Flush(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone {
		return nil
	}
	return p.obj.Flush(ctx)
}

// Complete implements link.Payload.
func (p *payload) Complete() bool { return p.obj.Complete() }

func (p *payload) close() (err error) {
	p.once.Do(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.gone = true
		err = errors.Join(p.obj.Close(), p.shelf.Close())
	})
	return err
}

// fullPayload swallows the symbols of a release that is here already.
type fullPayload struct{}

func (fullPayload) Put(_, _ uint32, _ []byte) (bool, error) { return false, nil }
func (fullPayload) Flush(context.Context) error             { return nil }
func (fullPayload) Complete() bool                          { return true }

var (
	_ link.Sink    = (*Receiver)(nil)
	_ link.Payload = (*payload)(nil)
	_ link.Payload = fullPayload{}
)

// removeSpool frees the space of a release.
func (r *Receiver) removeSpool(id string) error {
	if err := r.spool.RemoveAll(id); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}
