// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"sluice/internal/bulletin"
	"sluice/internal/checkpoint"
	"sluice/internal/durable"
	"sluice/internal/journal"
	"sluice/internal/link"
	"sluice/internal/site"
	"sluice/internal/spool"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
	"sluice/pkg/registry"
)

// Disposition says what an error means for a release: the one table of the architecture page.
type Disposition string

const (
	// Refused means that we looked, and the answer is no. Quarantine with evidence, never retry.
	Refused Disposition = "refused"
	// Lost means that the wire or the disk gave too little. Keep what came, wait for the next pass. No error of another package
	// says so by itself: it takes the count of repairs, and is decided where that is kept (verifyBytes).
	Lost Disposition = "lost"
	// Transient means that the world was busy. Back off, keep the state.
	Transient Disposition = "transient"
	// Broken means that the process cannot go on.
	Broken Disposition = "broken"
)

var (
	errTooLarge     = errors.New("receiver: the release is larger than this site takes")
	errBusy         = errors.New("receiver: too many releases at once")
	errInspection   = errors.New("receiver: the inspection refused the release")
	errBadEnvelope  = errors.New("receiver: the envelope is not well formed")
	errNotPublished = errors.New("receiver: published bytes differ from the statement")
)

// dispositions is read from the top; the first match decides.
func dispositions() []struct {
	err  error
	disp Disposition
} {
	type row = struct {
		err  error
		disp Disposition
	}
	return []row{
		{durable.ErrSync, Broken},
		{spool.ErrBroken, Broken},
		{link.ErrBroken, Broken},
		{registry.ErrStopped, Broken},
		{journal.ErrSync, Broken},
		{journal.ErrCorrupt, Broken},
		{journal.ErrTampered, Broken},
		{site.ErrState, Broken},
		{context.Canceled, Transient},
		{context.DeadlineExceeded, Transient},
		{registry.ErrUnavailable, Transient},
		{errBusy, Transient},
		{errUnlisted, Transient},
		{errPredecessor, Transient},
		{errUnconfirmed, Transient},
		{trust.ErrStopped, Transient},
		{durable.ErrNoSpace, Transient},
		{registry.ErrNoSpace, Transient},
		{mofn.ErrSignature, Refused},
		{mofn.ErrUnknownPacker, Refused},
		{mofn.ErrRejected, Refused},
		{mofn.ErrThreshold, Refused},
		{mofn.ErrTooLarge, Refused},
		{mofn.ErrNoRule, Refused},
		{trust.ErrAudience, Refused},
		{trust.ErrExpired, Refused},
		{trust.ErrRollback, Refused},
		{trust.ErrFastForward, Refused},
		{trust.ErrVoteName, Refused},
		{trust.ErrRevoked, Refused},
		{bulletin.ErrFormat, Refused},
		{site.ErrChain, Refused},
		{site.ErrGap, Refused},
		{site.ErrFork, Refused},
		{site.ErrReplay, Refused},
		{site.ErrRollback, Refused},
		{site.ErrFull, Refused},
		{mofn.ErrOrder, Refused},
		{mofn.ErrSnapshot, Refused},
		{registry.ErrWithdrawn, Refused},
		{envelope.ErrFormat, Refused},
		{envelope.ErrVersion, Refused},
		{envelope.ErrDigest, Refused},
		{envelope.ErrConflict, Refused},
		{registry.ErrConflict, Refused},
		{registry.ErrRollback, Refused},
		{registry.ErrWithdrawn, Refused},
		{journal.ErrRollback, Refused},
		{errTooLarge, Refused},
		{errInspection, Refused},
		{errBadEnvelope, Refused},
		{registry.ErrInvalid, Refused},
		{checkpoint.ErrTooMany, Refused},
		{checkpoint.ErrSafetensors, Refused},
		{errNotPublished, Transient},
	}
}

// Classify decides the disposition of an error. What it does not know is transient: a release is never refused for a
// reason that nobody named, and never published either, because the stage did not finish.
func Classify(err error) Disposition {
	for _, d := range dispositions() {
		if errors.Is(err, d.err) {
			return d.disp
		}
	}
	return Transient
}

// RefusedError is a refusal with the place where the evidence lies.
type RefusedError struct {
	Release  string
	Evidence string
	Reason   error
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("refused: release %.12s: %v (evidence: %s)", e.Release, e.Reason, e.Evidence)
}

func (e *RefusedError) Unwrap() error { return e.Reason }

// verdict is the quarantine's record of why.
type verdict struct {
	Type    string `json:"type"`
	Release string `json:"release"`
	Stream  string `json:"stream,omitempty"`
	Epoch   int64  `json:"epoch"`
	Seq     int64  `json:"seq"`
	Reason  string `json:"reason"`
	At      string `json:"at"`
}

// settle refuses an envelope from outside when the error says so, and hands the error on in any case. A release that is on its
// way was accepted with another envelope, and only what holds for the release itself can stop it: a poorer envelope
// of it (without approvals, or with a forged one) is refused alone.
func (r *Receiver) settle(env *envelope.Envelope, err error) error {
	if Classify(err) != Refused {
		return err
	}
	r.stage.Lock()
	defer r.stage.Unlock()
	job, jerr := r.journal.Get(env.ID.String())
	if jerr != nil && !errors.Is(jerr, journal.ErrNotFound) {
		return errors.Join(err, jerr)
	}
	if jerr == nil && inFlight(job.State) && !stops(err) {
		r.metrics.refused.Inc()
		r.log.Warn("refused an envelope of a release that was accepted with another", zap.String("release", job.ID), zap.Error(err))
		return errors.Join(err, r.event("refused envelope", job.ID, err.Error()))
	}
	return r.refuse(env, err)
}

// inFlight tells the states of a release that was accepted and neither published nor refused.
func inFlight(state string) bool {
	return state != stateRejected && state != statePublished && state != stateWithdrawn
}

// stops tells the refusals that depend on the release id and on an officer's word, and not on the rest of an envelope.
func stops(err error) bool {
	for _, e := range []error{mofn.ErrRejected, trust.ErrRevoked, trust.ErrExpired, trust.ErrRollback, trust.ErrAudience} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// refuse quarantines an envelope with the verdict, rejects its job and frees the spool. A published release stays what it
// is: a replay of it is refused without touching it.
// The caller holds stage.
func (r *Receiver) refuse(env *envelope.Envelope, reason error) error {
	id := env.ID.String()
	p := env.Statement.Predicate
	dir := "quarantine/" + id
	if err := r.quarantine(dir, verdict{Release: id, Stream: p.Stream, Epoch: p.Epoch, Seq: p.Seq, Reason: clip(reason.Error())}, env); err != nil {
		return errors.Join(reason, err)
	}
	if err := r.rejectJob(env, reason); err != nil {
		return errors.Join(reason, err)
	}
	if errors.Is(reason, mofn.ErrRejected) {
		if err := r.recordDecisions(env); err != nil {
			return errors.Join(reason, err)
		}
	}
	r.metrics.refused.Inc()
	r.log.Warn("refused", zap.String("release", id), zap.String("stream", p.Stream), zap.Int64("seq", p.Seq), zap.Error(reason))
	return &RefusedError{Release: id, Evidence: r.cfg.State + "/" + dir, Reason: reason}
}

func (r *Receiver) rejectJob(env *envelope.Envelope, reason error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := env.ID.String()
	job, err := r.journal.Get(id)
	note := func(j *journal.Job) error {
		if d, err := dataOf(*j); err == nil && d.Stopped {
			return nil // the officer's reason stays
		}
		return errors.Join(clearError(j), setReason(j, reason))
	}
	switch {
	case errors.Is(err, journal.ErrNotFound):
		j := jobOf(env, stateRejected)
		if err := setReason(&j, reason); err != nil {
			return err
		}
		return errors.Join(r.journal.Create(j, r.newEvent("refused", id, reason.Error())), r.removeSpool(id))
	case err != nil:
		return err
	case job.State == statePublished || job.State == stateWithdrawn:
		return r.event("refused replay", id, reason.Error())
	case job.State == stateRejected:
		_, err = r.journal.Touch(id, note)
		return errors.Join(err, r.event("refused", id, reason.Error()))
	}
	if _, err = r.journal.Advance(id, job.State, stateRejected, note, r.newEvent("refused", id, reason.Error())); err != nil {
		return err
	}
	r.drop(env.ID)
	return r.removeSpool(id)
}

// setReason notes why a release was refused, and for good that an officer did.
func setReason(j *journal.Job, reason error) error {
	j.LastError = clip(reason.Error())
	if !errors.Is(reason, mofn.ErrRejected) {
		return nil
	}
	return setData(j, func(d *jobData) { d.Stopped = true })
}

// refuseUnread is for a stream that is no envelope: there is no job to reject, and the bytes are not worth keeping.
func (r *Receiver) refuseUnread(a link.Announcement, reason error) error {
	id := envelope.Digest(a.Release).String()
	r.metrics.refused.Inc()
	r.log.Warn("refused", zap.String("release", id), zap.Error(reason))
	err := fmt.Errorf("%w: %w", errBadEnvelope, reason)
	return errors.Join(err, r.event("refused", id, reason.Error()))
}

func (r *Receiver) quarantine(dir string, v verdict, env *envelope.Envelope) error {
	v.Type, v.At = "sluice-verdict-v1", r.now().Format(time.RFC3339)
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := r.state.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	root, err := r.state.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	defer root.Close()
	if err := errors.Join(durable.SyncDir(r.state, "quarantine"), durable.SyncDir(r.state, ".")); err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	sh := shelf{root: root, id: env.ID}
	if _, err := sh.putEnvelope(env); err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	return durable.WriteFile(root, "verdict.json", append(b, '\n'), 0o600)
}
