// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"sluice/internal/durable"
	"sluice/internal/journal"
	"sluice/internal/link"
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
	// Lost means that the wire gave too little. Keep what came, wait for the next pass.
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
	errDamaged      = errors.New("receiver: the payload was damaged after it arrived")
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
		{context.Canceled, Transient},
		{context.DeadlineExceeded, Transient},
		{registry.ErrUnavailable, Transient},
		{errBusy, Transient},
		{durable.ErrNoSpace, Transient},
		{registry.ErrNoSpace, Transient},
		{errDamaged, Lost},
		{mofn.ErrSignature, Refused},
		{mofn.ErrUnknownPacker, Refused},
		{mofn.ErrRejected, Refused},
		{mofn.ErrTooLarge, Refused},
		{mofn.ErrNoRule, Refused},
		{trust.ErrAudience, Refused},
		{trust.ErrExpired, Refused},
		{trust.ErrRollback, Refused},
		{trust.ErrVoteName, Refused},
		{envelope.ErrFormat, Refused},
		{envelope.ErrVersion, Refused},
		{envelope.ErrDigest, Refused},
		{envelope.ErrConflict, Refused},
		{registry.ErrConflict, Refused},
		{registry.ErrRollback, Refused},
		{journal.ErrRollback, Refused},
		{errTooLarge, Refused},
		{errInspection, Refused},
		{errBadEnvelope, Refused},
		{errNotPublished, Broken},
		{spool.ErrBroken, Broken},
		{durable.ErrSync, Broken},
	}
}

// Classify decides the disposition of an error. What it does not know is transient: a release is never refused for a
// reason that nobody named, and never published either, because the stage did not finish.
func Classify(err error) Disposition {
	var threshold *mofn.ThresholdError
	var damage *envelope.PayloadError
	switch {
	case errors.As(err, &threshold), errors.As(err, &damage):
		return Refused
	}
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

// settle refuses the release when the error says so, and hands the error on in any case.
func (r *Receiver) settle(ctx context.Context, env *envelope.Envelope, err error) error {
	if Classify(err) == Refused {
		return r.refuse(ctx, env, err)
	}
	return err
}

// refuse quarantines an envelope with the verdict, rejects its job and frees the spool. A published release stays what it
// is: a replay of it is refused without touching it.
func (r *Receiver) refuse(_ context.Context, env *envelope.Envelope, reason error) error {
	id := env.ID.String()
	p := env.Statement.Predicate
	dir := "quarantine/" + id
	if err := r.quarantine(dir, verdict{Release: id, Stream: p.Stream, Epoch: p.Epoch, Seq: p.Seq, Reason: reason.Error()}, env); err != nil {
		return errors.Join(reason, err)
	}
	err := r.rejectJob(env, reason)
	r.metrics.refused.Inc()
	r.log.Warn("refused", zap.String("release", id), zap.String("stream", p.Stream), zap.Int64("seq", p.Seq), zap.Error(reason))
	return errors.Join(&RefusedError{Release: id, Evidence: r.cfg.State + "/" + dir, Reason: reason}, err)
}

func (r *Receiver) rejectJob(env *envelope.Envelope, reason error) error {
	id := env.ID.String()
	job, err := r.journal.Get(id)
	note := func(j *journal.Job) error { j.LastError = reason.Error(); return nil }
	switch {
	case errors.Is(err, journal.ErrNotFound):
		j := jobOf(env, stateRejected)
		j.LastError = reason.Error()
		return errors.Join(r.journal.Create(j), r.event("refused", id, reason.Error()), r.removeSpool(id))
	case err != nil:
		return err
	case job.State == statePublished:
		return r.event("refused replay", id, reason.Error())
	case job.State == stateRejected:
		_, err = r.journal.Touch(id, note)
		return errors.Join(err, r.event("refused", id, reason.Error()))
	}
	_, err = r.journal.Advance(id, job.State, stateRejected, note, r.newEvent("refused", id, reason.Error()))
	return errors.Join(err, r.removeSpool(id))
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
	v.Type, v.At = "sluice-verdict-v1", r.now().UTC().Format(time.RFC3339)
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
	sh := shelf{root: root, id: env.ID}
	if _, err := sh.putEnvelope(env); err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	return durable.WriteFile(root, "verdict.json", append(b, '\n'), 0o600)
}
