// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"sluice/internal/audit"
	"sluice/internal/bulletin"
	"sluice/internal/journal"
	"sluice/internal/link"
	"sluice/internal/recv"
	"sluice/internal/site"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
	"sluice/pkg/registry"
)

var (
	// errUnlisted says that no snapshot names the release yet: it may be a part of something else that was played back.
	errUnlisted = errors.New("receiver: no snapshot of the bastion names this release yet; it is published as soon as one does")
	// errPredecessor says that the rule publishes in order and the predecessor is not here.
	errPredecessor = errors.New("receiver: the release before it is not published here; it waits for that one")
	// errRestored says that the state is older than what the second place remembers.
	errRestored = errors.New("receiver: the state is older than it was: a backup was restored, or somebody turned it back")
)

// sitePlace says where this side keeps what it knows of trust.
func (c Config) sitePlace() site.Place {
	return site.Place{Dir: c.State, Object: c.Trust.Object, Fingerprint: c.Trust.Fingerprint, Quarantine: time.Duration(c.Trust.Quarantine)}
}

// CurrentTrust gives the trust objects that have been in effect at this site, the newest first, for verbs that judge without the
// daemon. It changes nothing.
func CurrentTrust(cfg Config) ([]*trust.Store, error) { return cfg.sitePlace().Effective(time.Now()) }

// store is the trust object in effect.
func (r *Receiver) store() *trust.Store { return r.site.Trust() }

// judgeBulletin takes a bulletin in. It has no payload, so nothing more of it is wanted whatever it brought.
func (r *Receiver) judgeBulletin(a link.Announcement, stream io.Reader) (recv.Place, error) {
	place := recv.Place{Release: a.Release, Whole: true}
	if a.PayloadSize != 0 {
		return place, r.refuseUnread(a, fmt.Errorf("%w: announced with %d payload bytes: a bulletin has none", bulletin.ErrFormat, a.PayloadSize))
	}
	b, err := bulletin.Read(stream)
	if err != nil {
		return place, r.refuseUnread(a, err)
	}
	return place, r.TakeBulletin(b)
}

// TakeBulletin takes a bulletin from the link or a medium: what is right of it counts, what is wrong is said and logged.
func (r *Receiver) TakeBulletin(b *bulletin.Bulletin) error {
	t, err := r.take(b)
	if err != nil {
		return err
	}
	for _, p := range t.Problems {
		if errors.Is(p, site.ErrReplay) {
			continue // the carousel says everything several times
		}
		r.metrics.bulletinProblems.Inc()
		r.log.Warn("bulletin", zap.Error(p))
		if err := r.journal.Append(journal.Event{Actor: r.actor(), Action: audit.ActionRefusedBulletin, Detail: clip(p.Error())}); err != nil {
			return err
		}
	}
	if len(t.Orders) > 0 || len(t.Effect) > 0 {
		r.reorder.Store(true)
	}
	if len(t.Effect) > 0 {
		r.useLinkKeys()
	}
	if t.Snapshot == nil {
		return nil
	}
	if err := r.markListed(t.Snapshot); err != nil {
		return err
	}
	err = r.witness(b.Proofs, t.Snapshot)
	r.wake()
	return err
}

// take takes a bulletin in, and has the log say what came of it.
func (r *Receiver) take(b *bulletin.Bulletin) (site.Taken, error) {
	r.known.Lock()
	defer r.known.Unlock()
	t, err := r.site.Take(b, r.wall())
	// Also what an error of the disk left half done: it counts already.
	return t, errors.Join(err, r.tell(""))
}

// tell has the log say what it has not said of trust yet. The caller holds known, or nobody else is there.
func (r *Receiver) tell(note string) error {
	events, err := r.teller.Tell(audit.Known(r.site.Account()), note)
	for _, e := range events {
		r.log.Info(e.Action, zap.String("detail", e.Detail), zap.String("officer", e.Officer))
	}
	return err
}

// markListed notes which releases a snapshot names: once named, a release may be published although a later one takes its place.
func (r *Receiver) markListed(s *mofn.Snapshot) error {
	for _, c := range s.Releases {
		job, err := r.journal.Get(c.Release)
		if errors.Is(err, journal.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		d, err := dataOf(job)
		if err != nil || d.Listed || job.Stream != c.Stream || job.Epoch != c.Epoch || job.Seq != c.Seq {
			continue
		}
		if _, err := r.journal.Touch(job.ID, func(j *journal.Job) error {
			return setData(j, func(d *jobData) { d.Listed = true })
		}); err != nil {
			return err
		}
	}
	return nil
}

// checkListed holds a release back that no snapshot names, where the trust object has somebody who makes snapshots.
func (r *Receiver) checkListed(job journal.Job) error {
	if len(r.store().Object.Heartbeats) == 0 {
		return nil
	}
	d, err := dataOf(job)
	if err != nil || d.Listed {
		return err
	}
	if s := r.site.Snapshot(); s != nil && s.Names(mofn.Current{Stream: job.Stream, Epoch: job.Epoch, Seq: job.Seq, Release: job.Release}) {
		return nil
	}
	return errUnlisted
}

// checkPredecessor holds a release back whose rule publishes a stream in order, until the release before it is published.
func (r *Receiver) checkPredecessor(env *envelope.Envelope, a mofn.Approval) error {
	p := env.Statement.Predicate
	if !a.Chain() || p.Prev == "" {
		return nil
	}
	m, ok, err := r.journal.HighWater(p.Stream)
	if err != nil {
		return err
	}
	if ok && m.Release == p.Prev {
		return nil
	}
	return fmt.Errorf("%w (%s of %s); a site that never had it raises the floor of the stream in the trust object, or imports it", errPredecessor, p.Prev, p.Stream)
}

// witness holds the bastion's audit log against its last checkpoint: a log that was rewritten is a fork, and an alarm.
func (r *Receiver) witness(proofs []bulletin.Proof, s *mofn.Snapshot) error {
	w, err := r.witnessOf(s.Log.Origin, "")
	if err != nil || w == nil {
		return err
	}
	from := w.Last().Size
	switch {
	case s.Log.Size < from: // the snapshot is newer than the one that named more events, so it is not late
		r.metrics.forks.Inc()
		said := fmt.Sprintf("%s has %d events, and had %d: it was cut, or turned back", s.Log.Origin, s.Log.Size, from)
		r.log.Error("the bastion's audit log", zap.String("detail", said))
		return r.journal.Append(journal.Event{Actor: r.actor(), Action: audit.ActionFork, Detail: said})
	case s.Log.Size == from:
		from = 0 // any of them holds the same tree
	}
	at := slices.IndexFunc(proofs, func(p bulletin.Proof) bool { return p.Old == from })
	if at < 0 {
		if w, at, err = r.anchor(proofs, s.Log.Origin, w.Last().Size); err != nil || at < 0 {
			return err
		}
	}
	news, err := w.Update(proofs[at].Text)
	switch {
	case errors.Is(err, audit.ErrBehind), errors.Is(err, audit.ErrGap):
		r.log.Info("the bastion's audit log", zap.Error(err))
		return nil
	case err != nil:
		r.metrics.forks.Inc()
		r.log.Error("the bastion's audit log", zap.Error(err))
		return r.journal.Append(journal.Event{Actor: r.actor(), Action: audit.ActionFork, Detail: clip(err.Error())})
	case !news:
		return nil
	}
	if err := r.journal.SetWitness(s.Log.Origin, w.Note(), journal.Event{}); err != nil || s.Counter%site.AnchorEvery != 0 {
		return err
	}
	return r.journal.SetWitness(s.Log.Origin+anchorMark, w.Note(), journal.Event{})
}

// anchorMark is what the anchor of a log is kept under in the journal, beside what was seen last: no origin has such an end.
const anchorMark = " anchor"

// anchor is for a receiver that missed so many bulletins that no proof begins where it stands: it goes on from the last anchor that it
// saw, and the log says that what came between is not proved to be continued. at is below 0 when there is no such proof either.
func (r *Receiver) anchor(proofs []bulletin.Proof, origin string, stood int64) (w *audit.Witness, at int, err error) {
	if w, err = r.witnessOf(origin, anchorMark); err != nil || w == nil {
		return nil, -1, err
	}
	at = slices.IndexFunc(proofs, func(p bulletin.Proof) bool { return p.Old == w.Last().Size })
	if at < 0 || w.Last().Size == 0 {
		r.log.Warn("the bastion's audit log: no proof begins where this side saw it last", zap.Int64("size", stood))
		return nil, -1, nil
	}
	said := fmt.Sprintf("%s: bulletins were missed; its events %d to %d, which were seen, are not proved to be in it still", origin, w.Last().Size+1, stood)
	r.log.Warn("the bastion's audit log", zap.String("detail", said))
	return w, at, r.journal.Append(journal.Event{Actor: r.actor(), Action: audit.ActionAnchor, Detail: said})
}

// witnessOf takes up what was seen last of a log; nil when the trust object in effect does not bind it. A log that got another key is
// witnessed anew: what the old key signed says nothing under the new one.
func (r *Receiver) witnessOf(origin, mark string) (*audit.Witness, error) {
	state, err := r.journal.Witness(origin + mark)
	if err != nil {
		return nil, err
	}
	for i, st := range r.site.Been() {
		at := slices.IndexFunc(st.Object.Logs, func(l mofn.LogKey) bool { return l.Origin == origin })
		if at < 0 {
			return nil, nil
		}
		key, err := audit.PublicKey(st.Object.Logs[at].Suite, st.Object.Logs[at].Public)
		if err != nil {
			return nil, err
		}
		w, err := audit.NewWitness(origin, key, state)
		if err == nil && i == 0 {
			return w, nil
		}
		if err == nil { // an earlier key's: the state is sound, and of no use any more
			return r.witnessAnew(origin)
		}
	}
	return nil, fmt.Errorf("%w: what was kept of the log %s opens under no key that it ever had", audit.ErrTampered, origin)
}

func (r *Receiver) witnessAnew(origin string) (*audit.Witness, error) {
	l := r.store().Object.Logs[slices.IndexFunc(r.store().Object.Logs, func(l mofn.LogKey) bool { return l.Origin == origin })]
	key, err := audit.PublicKey(l.Suite, l.Public)
	if err != nil {
		return nil, err
	}
	return audit.NewWitness(origin, key, nil)
}

// ConfirmTrust puts the next trust object into effect: a person at this console compared its fingerprint.
func (r *Receiver) ConfirmTrust(fingerprint string) error {
	r.known.Lock()
	defer r.known.Unlock()
	if _, err := r.site.Confirm(fingerprint, r.wall()); err != nil {
		return err
	}
	r.reorder.Store(true)
	return r.tell("; its quarantine was ended at this console")
}

// useLinkKeys gives the front the link keys of the trust object in effect.
func (r *Receiver) useLinkKeys() {
	r.mu.Lock()
	front := r.front
	r.mu.Unlock()
	if front == nil {
		return
	}
	if err := front.SetLinkKeys(linkKeys(r.store())); err != nil {
		r.log.Error("link keys of the trust object", zap.Error(err))
	}
}

// tick puts trust objects into effect whose quarantine is over, and has orders applied that came or changed.
func (r *Receiver) tick(ctx context.Context) error {
	taken, err := r.grow()
	if err != nil {
		return err
	}
	if len(taken) > 0 {
		r.reorder.Store(true)
		r.useLinkKeys()
	}
	if !r.reorder.Swap(false) {
		return nil
	}
	err = r.applyOrders(ctx)
	if err != nil {
		r.reorder.Store(true)
	}
	if err != nil && Classify(err) != Broken && ctx.Err() == nil {
		r.log.Warn("orders; tried again", zap.Error(err))
		return nil
	}
	return err
}

// grow puts trust objects into effect whose quarantine is over.
func (r *Receiver) grow() ([]*trust.Store, error) {
	r.known.Lock()
	defer r.known.Unlock()
	taken, err := r.site.Tick(r.wall())
	if err != nil {
		return nil, err
	}
	return taken, r.tell("")
}

// applyOrders withdraws what is published and stopped or revoked, gives back what is not stopped any more, and refuses for good what
// was revoked before it was published.
func (r *Receiver) applyOrders(ctx context.Context) error {
	jobs, err := r.journal.List(nil)
	if err != nil {
		return err
	}
	standing := r.site.Standing()
	var errs []error
	for _, job := range jobs {
		if _, err := envelope.ParseDigest(job.ID); err != nil {
			return err
		}
		w, stands := withdrawal(standing, job.ID)
		switch {
		case stands && (job.State == statePublished || job.State == stateWithdrawn):
			errs = append(errs, r.withdraw(ctx, job))
		case job.State == stateWithdrawn && !stands:
			errs = append(errs, r.restore(ctx, job))
		case w.Final && inFlight(job.State):
			errs = append(errs, r.refuseRevoked(job))
		}
	}
	return errors.Join(errs...)
}

// withdrawal is what the orders say of a release; stands is false when they say nothing.
func withdrawal(standing *mofn.Standing, release string) (w registry.Withdrawal, stands bool) {
	id := [32]byte(mustDigest(release))
	if rev, revoked := standing.RevocationOf(id); revoked {
		return registry.Withdrawal{Final: true, Reason: rev.Reason, Orders: rev.Orders}, true
	}
	stop, stopped := standing.StopOfRelease(id)
	if stopped {
		w.Reason, w.Orders = stop.Reason, []string{stop.ID}
	}
	return w, stopped
}

// withdraw takes a published release from every reader, if an order says so still. The registry first: a crash between the two is put right
// by the next pass.
func (r *Receiver) withdraw(ctx context.Context, job journal.Job) error {
	r.stage.Lock()
	defer r.stage.Unlock()
	w, stands := withdrawal(r.site.Standing(), job.ID)
	if !stands {
		return nil // whoever lifted it has this looked at once more
	}
	d, err := dataOf(job)
	if err != nil {
		return err
	}
	if job.State == stateWithdrawn && d.Revoked {
		return nil
	}
	// One that is withdrawn is withdrawn again: another order is added to its record, and a crash may have given it back to readers before
	// the journal knew.
	err = r.registry.Withdraw(ctx, job.Name, [32]byte(mustDigest(job.ID)), oneLine(w))
	if errors.Is(err, registry.ErrNoVersions) {
		r.log.Warn("withdrawn, but for its bytes", zap.String("release", job.ID), zap.Error(err))
		err = nil
	}
	if err != nil {
		return fmt.Errorf("withdraw %s: %w", job.ID, err)
	}
	if job.State == stateWithdrawn && !w.Final {
		return nil
	}
	note := func(j *journal.Job) error {
		j.LastError, j.Attempts, j.NotBefore = clip(w.Reason), 0, time.Time{}
		return setData(j, func(d *jobData) { d.Revoked = w.Final; d.SpoolKept = d.SpoolKept && !w.Final })
	}
	r.known.Lock() // the order stands in the log before
	defer r.known.Unlock()
	event := r.newEvent("withdrawn", job.ID, fmt.Sprintf("final %t, orders %s: %s", w.Final, strings.Join(w.Orders, " "), w.Reason))
	if job.State == stateWithdrawn {
		_, err = r.journal.Touch(job.ID, note, event)
	} else {
		_, err = r.journal.Advance(job.ID, job.State, stateWithdrawn, note, event)
	}
	if err != nil {
		return err
	}
	r.metrics.transitions.WithLabelValues(stateWithdrawn).Inc()
	r.log.Warn("withdrawn", zap.String("release", job.ID), zap.Bool("final", w.Final), zap.String("reason", w.Reason))
	if w.Final {
		return r.removeSpool(job.ID)
	}
	return nil
}

// oneLine makes the officer's words fit the registry's record.
func oneLine(w registry.Withdrawal) registry.Withdrawal {
	const most = 512
	reason := strings.Join(strings.Fields(w.Reason), " ")
	if len(reason) > most {
		reason = strings.ToValidUTF8(reason[:most], "")
	}
	w.Reason = reason
	const orders = 32
	w.Orders = w.Orders[:min(len(w.Orders), orders)]
	return w
}

// restore gives a release back whose stop the quorum lifted. The envelope is judged once more, without succession: it was the newest of its
// stream when it was published.
func (r *Receiver) restore(ctx context.Context, job journal.Job) error {
	r.stage.Lock()
	defer r.stage.Unlock()
	d, err := dataOf(job)
	if err != nil || d.Revoked {
		return err
	}
	env, err := publishedEnvelope(ctx, r.registry, job.Name, mustDigest(job.ID))
	if err != nil {
		return fmt.Errorf("give back %s: %w", job.ID, err)
	}
	if _, err := r.checkPublished(env); err != nil {
		return fmt.Errorf("give back %s: %w", job.ID, err)
	}
	if stands, err := r.beginReturn(job); err != nil || stands {
		return err
	}
	w := registry.Withdrawal{Reason: "the quorum resumed it", Orders: liftedBy(r.site.Standing(), job.ID)}
	if err := r.registry.Restore(ctx, job.Name, [32]byte(mustDigest(job.ID)), [32]byte(env.Statement.Predicate.DirectoryDigest), w); err != nil {
		return fmt.Errorf("give back %s: %w", job.ID, err)
	}
	if _, err := r.journal.Advance(job.ID, stateWithdrawn, statePublished, clearError, r.newEvent("given back", job.ID, "")); err != nil {
		return err
	}
	r.metrics.transitions.WithLabelValues(statePublished).Inc()
	r.log.Info("given back", zap.String("release", job.ID))
	return nil
}

// beginReturn has the log say that a release is about to be given back, if nothing of it stands: as beginPublication does.
func (r *Receiver) beginReturn(job journal.Job) (stands bool, err error) {
	r.known.Lock()
	defer r.known.Unlock()
	if _, stands = withdrawal(r.site.Standing(), job.ID); stands {
		return true, nil // the next order has this looked at once more
	}
	return false, r.event(audit.ActionPublishing, job.ID, "given back")
}

// liftedBy are the ids of the stops of a release that were lifted.
func liftedBy(s *mofn.Standing, release string) (ids []string) {
	for _, o := range s.Lifted {
		if o.Kind == mofn.KindRelease && o.Target == release {
			ids = append(ids, o.ID)
		}
	}
	return ids
}

// refuseRevoked refuses a release that was revoked on its way.
func (r *Receiver) refuseRevoked(job journal.Job) error {
	sh, err := findShelf(r.spool, mustDigest(job.ID))
	if err != nil {
		return err
	}
	defer sh.Close()
	env, err := sh.envelope()
	if err != nil {
		return err
	}
	cause := trust.CheckOrders(job.Stream, env.ID, r.site.Standing())
	if err := r.settle(env, cause); err != nil && Classify(err) != Refused {
		return err
	}
	return nil
}

// checkPublished judges a release that was published: under the trust object in effect, or under an earlier one that was in effect
// once. A revocation counts, succession and expiry do not.
func (r *Receiver) checkPublished(env *envelope.Envelope) (mofn.Approval, error) {
	a, err := checkUnderAny(r.site.Been(), env, r.cfg.Receiver)
	if err != nil {
		return a, err
	}
	return a, trust.CheckOrders(env.Statement.Predicate.Stream, env.ID, onlyRevocations(r.site.Standing()))
}

// onlyRevocations is a standing without its stops: a stopped stream keeps what it published.
func onlyRevocations(s *mofn.Standing) *mofn.Standing {
	if s == nil {
		return nil
	}
	return &mofn.Standing{Revocations: s.Revocations}
}
