// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.uber.org/zap"

	"sluice/internal/audit"
	"sluice/internal/checkpoint"
	"sluice/internal/journal"
	"sluice/internal/recv"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
	"sluice/pkg/registry"
)

// account is what the audit trail is told of a stage: in words, and the digest of what it left, if it left something.
type account struct{ detail, digest string }

// stage does one thing to one job and says which state the job reached.
type stage func(ctx context.Context, job journal.Job, sh *shelf, env *envelope.Envelope) (to string, mutate func(*journal.Job) error, said account, err error)

// stages maps the state a job is in to what is done with it.
func (r *Receiver) stages() map[string]stage {
	return map[string]stage{
		stateReceived:  r.verify,
		stateVerified:  r.inspect,
		stateInspected: r.hold,
		stateHeld:      r.publish,
	}
}

// maxDamage is how often a payload may turn out damaged after it arrived complete and authentic before the release is refused:
// once is a flipped bit on a disk, thrice is a sender that does not send what it sealed.
const maxDamage = 3

// verify reads every byte of the spooled payload against the statement. A damaged content block goes back to the assembler,
// to be repaired by the next pass.
func (r *Receiver) verify(ctx context.Context, job journal.Job, sh *shelf, env *envelope.Envelope) (string, func(*journal.Job) error, account, error) {
	if _, err := r.check(env); err != nil {
		return "", nil, account{}, err
	}
	to, again, said, err := r.verifyBytes(ctx, job, sh, env)
	if err != nil || to != "" {
		return to, again, said, err
	}
	return stateVerified, nil, account{detail: fmt.Sprintf("%d files, every byte", len(env.Statement.Subjects))}, nil
}

// verifyBytes compares every spooled byte with the statement. to is empty when all is well; a payload that can be repaired from the
// wire goes back to RECEIVING.
func (r *Receiver) verifyBytes(ctx context.Context, job journal.Job, sh *shelf, env *envelope.Envelope) (to string, mutate func(*journal.Job) error, said account, err error) {
	err = envelope.VerifyFiles(ctx, env.Statement, env.Index, sh.opener(env.Statement), r.progress("verify", job))
	var damage *envelope.PayloadError
	if !errors.As(err, &damage) {
		return "", nil, account{}, err
	}
	d, derr := dataOf(job)
	if derr != nil {
		return "", nil, account{}, derr
	}
	if d.Damaged+1 >= maxDamage || !r.fromLink(sh) {
		return "", nil, account{}, err
	}
	if err := r.forget(sh, env, damage); err != nil {
		return "", nil, account{}, err
	}
	again := func(j *journal.Job) error { return setData(j, func(d *jobData) { d.Damaged++ }) }
	return stateReceiving, again, account{detail: "damaged, waiting for the next pass: " + damage.Error()}, nil
}

// fromLink tells whether the payload has an assembler behind it, so that damage can be repaired from the wire.
func (r *Receiver) fromLink(sh *shelf) bool {
	_, err := sh.root.Stat(geometryFile)
	return err == nil
}

// forget clears the symbols of a damaged content block.
func (r *Receiver) forget(sh *shelf, env *envelope.Envelope, damage *envelope.PayloadError) error {
	g, err := readGeometry(sh)
	if err != nil {
		return err
	}
	obj, err := sh.object(env.Statement, g, r.log)
	if err != nil {
		return err
	}
	var before int64
	for _, s := range env.Statement.Subjects {
		if s.Name == damage.Path {
			break
		}
		before += s.Annotations.Size
	}
	return errors.Join(obj.Forget(before+damage.Offset, damage.Length), obj.Close())
}

// inspect looks at the checkpoint again with this side's own eyes: the bastion's report is evidence, not proof.
func (r *Receiver) inspect(ctx context.Context, _ journal.Job, sh *shelf, env *envelope.Envelope) (string, func(*journal.Job) error, account, error) {
	opt := checkpoint.Options{Kind: string(env.Statement.Predicate.Kind), Exceptions: r.cfg.Inspect.Exceptions}
	rep, err := checkpoint.Inspect(ctx, newView(sh, env.Statement), opt)
	if err != nil {
		return "", nil, account{}, err
	}
	if rep.Verdict != "pass" {
		return "", nil, account{}, fmt.Errorf("%w: %s", errInspection, firstFatal(rep))
	}
	return stateInspected, nil, account{detail: fmt.Sprintf("%d files of allowed kinds", len(rep.Files))}, nil
}

func firstFatal(rep *checkpoint.Report) string {
	for _, f := range rep.Findings {
		if f.Fatal && !f.Excepted {
			return fmt.Sprintf("%s: %s: %s", f.File, f.Rule, f.Detail)
		}
	}
	return rep.Verdict
}

// hold counts from here, where every byte was verified and inspected, and not from the first announcement. It sets the time before which the release is not published, so that a stop order can overtake it.
func (r *Receiver) hold(_ context.Context, _ journal.Job, _ *shelf, env *envelope.Envelope) (string, func(*journal.Job) error, account, error) {
	a, err := r.check(env)
	if err != nil {
		return "", nil, account{}, err
	}
	until := r.now().Add(a.Hold())
	set := func(j *journal.Job) error { j.NotBefore = until; return nil }
	return stateHeld, set, account{detail: fmt.Sprintf("for %s, until %s", a.Hold(), until.Format(time.RFC3339))}, nil
}

// publish makes the Approval anew from the spooled envelope and hands the release to the registry. Its state change and the
// stream's high-water mark are one transaction (commit does it), so a replay can never slip in between. What was held lay on a disk
// meanwhile, so it is read once more before: nothing damaged reaches the registry, where it could not be replaced.
func (r *Receiver) publish(ctx context.Context, job journal.Job, sh *shelf, env *envelope.Envelope) (string, func(*journal.Job) error, account, error) {
	approval, err := r.check(env)
	if err != nil {
		return "", nil, account{}, err
	}
	if err := errors.Join(r.checkListed(job), r.checkPredecessor(env, approval), r.checkConfirmed(job)); err != nil {
		return "", nil, account{}, err
	}
	if approval.Hold() > 0 {
		if to, again, said, err := r.verifyBytes(ctx, job, sh, env); err != nil || to != "" {
			return to, again, said, err
		}
	}
	if err := r.recordConfirmation(job); err != nil {
		return "", nil, account{}, err
	}
	if approval, err = r.beginPublication(job, env); err != nil {
		return "", nil, account{}, err
	}
	receipt, err := r.publishApproved(ctx, approval, job, sh, env)
	if err != nil {
		return "", nil, account{}, err
	}
	kept := func(j *journal.Job) error {
		j.NotBefore = r.now().Add(time.Duration(r.cfg.Retain))
		return setData(j, func(d *jobData) { d.SpoolKept = true })
	}
	digest, err := receipt.Digest()
	if err != nil {
		return "", nil, account{}, err
	}
	return statePublished, kept, account{fmt.Sprintf("%d files, receipt of %s", len(receipt.Files), receipt.Finished), digest}, nil
}

// beginPublication judges once more, and has the log say that the publication begins: what permits it stands in the log before, and an order
// that stands after came too late for it.
func (r *Receiver) beginPublication(job journal.Job, env *envelope.Envelope) (mofn.Approval, error) {
	r.known.Lock()
	defer r.known.Unlock()
	approval, err := r.check(env)
	if err != nil {
		return approval, err
	}
	return approval, errors.Join(r.record(env), r.event(audit.ActionPublishing, job.ID, ""))
}

// publishApproved is the only call of the registry's Publish. The Approval is its proof.
func (r *Receiver) publishApproved(ctx context.Context, a mofn.Approval, job journal.Job, sh *shelf, env *envelope.Envelope) (*registry.Receipt, error) {
	if !a.Valid() || a.Release().ID != [32]byte(env.ID) {
		return nil, fmt.Errorf("%w: the approval is for another release", mofn.ErrSignature)
	}
	rel, err := registryRelease(env, sh)
	if err != nil {
		return nil, err
	}
	if rel.ModelSignature, err = r.modelSignature(env, sh); err != nil {
		return nil, err
	}
	return r.registry.Publish(ctx, rel, shelfSource{sh}, r.progress("publish", job))
}

// shelfSource hands spooled files to the registry.
type shelfSource struct{ *shelf }

// Open implements registry.Source.
func (s shelfSource) Open(i int) (*os.File, error) { return s.open(i) }

// registryRelease converts an envelope to what the registry publishes.
func registryRelease(env *envelope.Envelope, sh *shelf) (registry.Release, error) {
	p := env.Statement.Predicate
	rel := registry.Release{
		ID: [32]byte(env.ID), Name: p.Name, Version: p.Version, Stream: p.Stream, Kind: string(p.Kind), Epoch: p.Epoch, Seq: p.Seq,
		DirectoryDigest: [32]byte(p.DirectoryDigest), Statement: env.Release,
	}
	for _, s := range env.Statement.Subjects {
		rel.Files = append(rel.Files, registry.File{Path: s.Name, Size: s.Annotations.Size, SHA256: [32]byte(s.Digest.SHA256)})
	}
	for _, e := range env.Evidence {
		rel.Evidence = append(rel.Evidence, memoryBlob(e.Name, e.Data))
	}
	blob, err := fileBlob(sh.root, envelopeFile)
	rel.Envelope = blob
	return rel, err
}

// readBack hashes the published bytes once more, some time after the registry acknowledged them, and only then frees the spool:
// an object store may lose what it acknowledged (research/reliability.md, MinIO).
func (r *Receiver) readBack(ctx context.Context, job journal.Job) error {
	sh, err := openShelf(r.spool, mustDigest(job.ID))
	if err != nil {
		return err
	}
	defer sh.Close()
	env, err := sh.envelope()
	if err != nil { // the spool copy is lost: the registry has the same envelope, if it is whole
		if env, err = publishedEnvelope(ctx, r.registry, job.Name, mustDigest(job.ID)); err != nil {
			return err
		}
	}
	err = r.verifyPublished(ctx, env)
	if errors.Is(err, registry.ErrNotFound) || errors.Is(err, registry.ErrCorrupt) || errors.Is(err, errNotPublished) {
		return errors.Join(err, r.republish(ctx, job, sh, env))
	}
	if err != nil {
		return err
	}
	_, err = r.journal.Touch(job.ID, func(j *journal.Job) error {
		return errors.Join(clearError(j), setData(j, func(d *jobData) { d.SpoolKept, d.ReadBack = false, r.now().Format(time.RFC3339) }))
	}, r.newEvent(audit.ActionReadBack, job.ID, fmt.Sprintf("%d files, every byte", len(env.Statement.Subjects))))
	if err != nil { // the journal says still that the copy is here
		return err
	}
	return r.removeSpool(job.ID)
}

// republish repairs a registry that lost what it had acknowledged. The policy is asked again, without succession: the
// release was the newest of its stream when it was published.
func (r *Receiver) republish(ctx context.Context, job journal.Job, sh *shelf, env *envelope.Envelope) error {
	a, err := r.checkPublished(env)
	if err != nil {
		return err
	}
	r.log.Warn("published bytes were lost or changed; publishing again", zap.String("release", job.ID))
	if _, err = r.publishApproved(ctx, a, job, sh, env); err != nil {
		return fmt.Errorf("publish again: %w", err)
	}
	return r.event("published again", job.ID, "the registry had lost acknowledged bytes")
}

// verifyPublished hashes every published file against the statement.
func (r *Receiver) verifyPublished(ctx context.Context, env *envelope.Envelope) error {
	p := env.Statement.Predicate
	for _, s := range env.Statement.Subjects {
		if err := r.verifyObject(ctx, p.Name, env.ID, s); err != nil {
			return err
		}
	}
	return nil
}

func (r *Receiver) verifyObject(ctx context.Context, name string, id envelope.Digest, s envelope.Subject) error {
	f, size, err := r.registry.Open(ctx, name, [32]byte(id), s.Name)
	if err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return fmt.Errorf("%s: %w", s.Name, err)
	}
	if got := envelope.Digest(h.Sum(nil)); got != s.Digest.SHA256 || size != s.Annotations.Size {
		return fmt.Errorf("%w: %s is published with sha256 %s, the statement says %s", errNotPublished, s.Name, got, s.Digest.SHA256)
	}
	return nil
}

func mustDigest(id string) envelope.Digest {
	d, err := envelope.ParseDigest(id)
	if err != nil {
		panic("receiver: internal error: job id is no digest: " + id)
	}
	return d
}

// readGeometry reads how a payload is cut; it is kept beside it so that a later process can open it again.
func readGeometry(sh *shelf) (recv.Cut, error) {
	var g recv.Cut
	return g, readJSON(sh.root, geometryFile, &g)
}

const geometryFile = "geometry.json"

func writeGeometry(sh *shelf, g recv.Cut) error { return writeJSON(sh.root, geometryFile, g) }
