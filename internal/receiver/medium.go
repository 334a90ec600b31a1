// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"sluice/internal/bulletin"
	"sluice/internal/journal"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// Import takes a release in from a directory (docs/spec/envelope.md section 8) on the same path as the link: envelope first,
// then the bytes, then the stages. It returns the job as far as it came: PUBLISHED, or HELD when the policy holds it and wait is false.
func (r *Receiver) Import(ctx context.Context, dir string, wait bool) (journal.Job, error) {
	if err := r.importBulletinOf(ctx, dir); err != nil {
		return journal.Job{}, err
	}
	medium, env, err := openMedium(dir)
	if err != nil {
		return journal.Job{}, err
	}
	defer medium.Close()
	id := env.ID.String()
	if done, err := r.alreadyHere(env); err != nil || done {
		return r.importAgain(ctx, env, wait, err)
	}
	approval, err := r.check(env)
	if err != nil {
		return journal.Job{}, r.settle(env, err)
	}
	if err := r.takeIn(ctx, medium, env, approval); err != nil {
		return journal.Job{}, r.failedImport(env, err)
	}
	if _, err := r.journal.Advance(id, stateReceiving, stateReceived, clearError, r.newEvent("imported", id, dir)); err != nil {
		return journal.Job{}, err
	}
	return r.finish(ctx, id, wait)
}

// ImportBulletin takes a bulletin in from a file.
func (r *Receiver) ImportBulletin(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("medium: %w", err)
	}
	defer f.Close()
	b, err := bulletin.Read(f)
	if err != nil {
		return fmt.Errorf("refused: %s: %w", path, err)
	}
	if err := r.TakeBulletin(b); err != nil {
		return err
	}
	return r.tick(ctx)
}

// importBulletinOf takes in the bulletin beside a release, if there is one: the release may wait for it.
func (r *Receiver) importBulletinOf(ctx context.Context, dir string) error {
	path := filepath.Join(dir, bulletinFile)
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("medium: %w", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("refused: %w: %s is no regular file but %s", bulletin.ErrFormat, path, info.Mode().Type())
	}
	return r.ImportBulletin(ctx, path)
}

// bulletinFile is the bulletin beside an envelope on a medium (docs/spec/bulletin.md section 4).
const bulletinFile = "bulletin.sluice"

// importAgain answers for a release that is here already: a published one is refused as the replay that it is when its
// stream moved on, and is simply done otherwise.
func (r *Receiver) importAgain(ctx context.Context, env *envelope.Envelope, wait bool, err error) (journal.Job, error) {
	if err != nil {
		return journal.Job{}, err
	}
	job, err := r.journal.Get(env.ID.String())
	if err != nil {
		return job, err
	}
	m, ok, err := r.journal.HighWater(job.Stream)
	if err != nil {
		return job, err
	}
	if ok && job.State == statePublished && m.Release != job.Release {
		_, err := r.check(env)
		return job, r.settle(env, err)
	}
	return r.finish(ctx, job.ID, wait)
}

func openMedium(dir string) (*os.Root, *envelope.Envelope, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("medium: %w", err)
	}
	info, err := root.Lstat(envelopeFile)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("medium: %w; point at a sealed release", err), root.Close())
	}
	if !info.Mode().IsRegular() {
		return nil, nil, errors.Join(fmt.Errorf("refused: %w: %s is no regular file but %s", envelope.ErrFormat, filepath.Join(dir, envelopeFile), info.Mode().Type()), root.Close())
	}
	f, err := root.Open(envelopeFile)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("medium: %w", err), root.Close())
	}
	defer f.Close()
	env, err := envelope.Read(f)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("refused: %s: %w", filepath.Join(dir, envelopeFile), err), root.Close())
	}
	return root, env, nil
}

// failedImport refuses the release that a damaged medium brought, and otherwise gives the space back that its copy took.
func (r *Receiver) failedImport(env *envelope.Envelope, err error) error {
	if Classify(err) == Refused {
		r.stage.Lock()
		defer r.stage.Unlock()
		return r.refuse(env, err)
	}
	if Classify(err) == Broken {
		return err
	}
	return errors.Join(err, r.giveBack(env.ID.String(), err), r.dropPayload(env.ID.String()))
}

// dropPayload removes what is here of a payload and keeps the envelope.
func (r *Receiver) dropPayload(id string) error {
	if err := r.spool.RemoveAll(id + "/" + payloadDir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("spool: %w", err)
	}
	return nil
}

// takeIn reserves the space by copying the payload in.
func (r *Receiver) takeIn(ctx context.Context, medium *os.Root, env *envelope.Envelope, approval mofn.Approval) error {
	files, err := openPayload(medium)
	if err != nil {
		return err
	}
	defer files.Close()
	if err := noExtras(files, env.Statement); err != nil {
		return err
	}
	r.mu.Lock()
	r.drop(env.ID) // the medium brings all of it
	r.mu.Unlock()
	sh, err := openShelf(r.spool, env.ID)
	if err != nil {
		return err
	}
	defer sh.Close()
	sum, err := sh.putEnvelope(env)
	if err != nil {
		return err
	}
	if err := sh.root.Remove(geometryFile); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := r.startJob(env, sum, approval); err != nil {
		return err
	}
	job := journal.Job{Release: env.ID.String()}
	return sh.copyFrom(ctx, files, env.Statement, r.progress("import", job))
}

// openPayload opens the payload directory of a medium. That it is not there, or no directory, is a verdict; that it cannot be read now
// is none.
func openPayload(medium *os.Root) (*os.Root, error) {
	info, err := medium.Lstat("payload")
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: the medium has no payload directory: %w", envelope.ErrFormat, err)
	}
	if err != nil {
		return nil, fmt.Errorf("medium: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%w: the medium's payload is no directory but %s", envelope.ErrFormat, info.Mode().Type())
	}
	files, err := medium.OpenRoot("payload")
	if err != nil {
		return nil, fmt.Errorf("medium: %w", err)
	}
	return files, nil
}

// noExtras refuses a medium that holds a file which the statement does not name: it would be lost silently.
func noExtras(root *os.Root, st *envelope.Statement) error {
	known := make(map[string]bool, len(st.Subjects))
	for _, s := range st.Subjects {
		known[s.Name] = true
	}
	return fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || known[path] {
			return err
		}
		return fmt.Errorf("%w: the medium holds payload/%s, which the statement does not name", envelope.ErrFormat, path)
	})
}

// finish runs the stages of one job until it is published or refused; with wait it sits out the hold time, else it stops there.
func (r *Receiver) finish(ctx context.Context, id string, wait bool) (journal.Job, error) {
	for {
		job, err := r.journal.Get(id)
		if err != nil {
			return job, err
		}
		if r.stages()[job.State] == nil {
			return job, nil
		}
		// A stage that failed waits for its next turn in the daemon's loop; whoever calls a verb says that the turn is now. Only a hold
		// time, which no failure sets, is sat out.
		if left := job.NotBefore.Sub(r.now()); left > 0 && job.Attempts == 0 {
			if !wait {
				return job, nil
			}
			if err := sleep(ctx, left); err != nil {
				return job, err
			}
		}
		if err := r.advance(ctx, job); err != nil {
			return job, err
		}
		after, err := r.journal.Get(id)
		if err != nil {
			return after, err
		}
		if after.State == job.State && after.LastError != "" {
			return after, fmt.Errorf("%s of release %.12s: %s", job.State, id, after.LastError)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// checkUnderAny judges an envelope under the trust object in effect, or under one that was: who approved then may have left since. been has the
// newest first; the error is that of the newest.
func checkUnderAny(been []*trust.Store, env *envelope.Envelope, receiver string) (mofn.Approval, error) {
	var first error
	for _, st := range been {
		a, err := st.Check(env, trust.Rules{Receiver: receiver})
		if err == nil {
			return a, nil
		}
		if first == nil {
			first = err
		}
	}
	return mofn.Approval{}, first
}

// Verify judges a release where it lies, without journal, link or registry state: an envelope directory against the trust
// object, every byte. It says who approved.
func Verify(ctx context.Context, been []*trust.Store, receiver, dir string, progress func(done, total int64)) (*envelope.Envelope, mofn.Approval, error) {
	medium, env, err := openMedium(dir)
	if err != nil {
		return nil, mofn.Approval{}, err
	}
	defer medium.Close()
	approval, err := checkUnderAny(been, env, receiver)
	if err != nil {
		return env, approval, err
	}
	files, err := medium.OpenRoot("payload")
	if err != nil {
		return env, approval, fmt.Errorf("%w: no payload directory: %w", envelope.ErrFormat, err)
	}
	defer files.Close()
	return env, approval, envelope.VerifyPayload(ctx, files.FS(), env, progress)
}

// VerifyPublished judges a published release from the registry alone: its envelope against the trust object, every published
// byte against the statement.
func VerifyPublished(ctx context.Context, been []*trust.Store, cfg Config, reg Target, name string, id envelope.Digest) (*envelope.Envelope, mofn.Approval, error) {
	if _, err := reg.Get(ctx, name, [32]byte(id)); err != nil {
		return nil, mofn.Approval{}, err // withdrawn, too: whatever its bytes are, nobody may use them
	}
	env, err := publishedEnvelope(ctx, reg, name, id)
	if err != nil {
		return nil, mofn.Approval{}, err
	}
	approval, err := checkUnderAny(been, env, cfg.Receiver)
	if err != nil {
		return env, approval, err
	}
	r := &Receiver{cfg: cfg, registry: reg, log: zap.NewNop()}
	return env, approval, r.verifyPublished(ctx, env)
}

// publishedEnvelope reads the envelope that was published beside a release.
func publishedEnvelope(ctx context.Context, reg Target, name string, id envelope.Digest) (*envelope.Envelope, error) {
	stream, _, err := reg.OpenProvenance(ctx, name, [32]byte(id), envelopeFile)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	env, err := envelope.Read(stream)
	if err != nil {
		return nil, err
	}
	if env.ID != id {
		return nil, fmt.Errorf("%w: the published envelope is of release %s", envelope.ErrDigest, env.ID)
	}
	return env, nil
}
