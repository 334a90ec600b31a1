// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.uber.org/zap"

	"sluice/internal/spool"
	"sluice/pkg/fec"
)

const (
	// idleAfterEnd is how long the symbols of a release must be quiet after the
	// end of a pass before it is flushed: late ones are over by then.
	idleAfterEnd = 200 * time.Millisecond

	// quiet is how long they must be quiet when no end was heard: the sender
	// stopped, or the link is down.
	quiet = 2 * time.Second

	// assembleEvery is how often a stream of envelope symbols that does not pause
	// (the carousel) is looked at.
	assembleEvery = time.Second

	// retryFlush is the pause after a Flush that failed and may be tried again.
	retryFlush = 2 * time.Second

	// envelopeName is the file of the envelope object in its directory.
	envelopeName = "envelope.sluice"
)

// Errors of releases.
var (
	// ErrBroken says that storage can no longer be trusted (a failed fsync, a
	// lost device). A Payload wraps it; Run then ends with it.
	ErrBroken = errors.New("link: storage is broken")
	// ErrEnvelopeDigest says that an envelope object is whole but is not what the
	// session announced.
	ErrEnvelopeDigest = errors.New("link: envelope does not match its announced digest")
)

// Payload takes the payload symbols of one accepted release. Put is called from
// one goroutine; Flush from another, at most one at a time and concurrently with
// Put. An error that is ErrBroken ends the receiver; any other error of Put
// counts the symbol as malformed.
type Payload interface {
	// Put takes one encoding symbol of T bytes, which is valid until Put returns.
	// stored is false for a symbol that is held already or no longer needed.
	Put(sbn, esi uint32, symbol []byte) (stored bool, err error)
	// Flush repairs what can be repaired and puts it on stable storage. It is
	// called at the end of each pass, on a quiet link, and before Run returns.
	Flush(ctx context.Context) error
	// Complete reports whether every source symbol is there.
	Complete() bool
	// Refused reports whether the release was refused since it was accepted, so
	// that nothing more is kept of it: the next session asks the sink again. It is
	// called when a session begins.
	Refused() bool
}

// Holder is a Payload that can be held while symbols come at once, so that it need
// not lock itself for each. Between Hold and Release nothing else of it is called
// by the goroutine that holds it.
type Holder interface {
	Payload
	Hold() Held
}

// Redone is a Payload that may begin again: it was whole, something in it was
// found damaged, and that is received again. A session of which something was
// stored in one round stores nothing in a later one. What its sender read may
// have been damaged there, and then so are the repair symbols that are still on
// their way: they would damage what the next pass brings.
type Redone interface {
	Payload
	// Round counts how often it began again. It takes no lock.
	Round() int64
}

// Held is a Payload that is held, for as long as one message takes: at most
// MaxSegments symbols.
type Held interface {
	// Slot returns where a symbol belongs, T bytes with no more capacity, or nil. A
	// datagram is decrypted there before it is known to be authentic: what is in a
	// slot counts for nothing until Put is called with it.
	Slot(sbn, esi uint32) []byte
	Put(sbn, esi uint32, symbol []byte) (stored bool, err error)
	Release()
}

// Sink decides about releases.
type Sink interface {
	// Envelope is called in its own goroutine when the envelope object of a
	// release has arrived whole and matches its digest: once for each release,
	// envelope digest and geometry that the receiver holds a session of, and
	// again with a later session when the answer was an error. It verifies,
	// reserves space and returns where payload symbols go; an error means refused
	// or not now: the receiver then drops and counts the payload of the release.
	// envelope is valid until Envelope returns.
	Envelope(ctx context.Context, a Announcement, envelope io.ReaderAt, size int64) (Payload, error)
}

// ReleaseState is how far the release of a session is.
type ReleaseState string

// The states of a release, in order. An idle session has the empty state.
const (
	ReleaseAssembling ReleaseState = "assembling" // its envelope is incomplete
	ReleaseVerifying  ReleaseState = "verifying"  // the sink has its envelope
	ReleaseAccepted   ReleaseState = "accepted"   // payload symbols are stored
	ReleaseRefused    ReleaseState = "refused"    // payload symbols are dropped
)

// releaseKey is what makes symbols those of one pair of objects.
type releaseKey struct {
	release, digest           [32]byte
	envelopeSize, payloadSize int64
	profile                   Profile
	groups                    int
}

func keyOf(a Announcement) releaseKey {
	return releaseKey{a.Release, a.EnvelopeSHA256, a.EnvelopeSize, a.PayloadSize, a.Profile, a.Groups}
}

// directory returns the name of the directory of the envelope object.
func (k releaseKey) directory() string {
	b := append(append([]byte(nil), k.release[:]...), k.digest[:]...)
	for _, v := range []int64{k.envelopeSize, k.payloadSize, int64(k.profile), int64(k.groups)} {
		b = binary.BigEndian.AppendUint64(b, uint64(v))
	}
	sum := sha256.Sum256(b)
	return envelopePrefix + hex.EncodeToString(sum[:16])
}

// EnvelopePath returns where the envelope object of a session lies while it is
// held, below ReceiverConfig.Dir.
func EnvelopePath(a Announcement) string { return keyOf(a).directory() + "/" + envelopeName }

// release is the two objects of a release, shared by its sessions. All fields
// belong to the goroutine that handles datagrams; a job sees root, object and
// payload only, which do not change while it runs.
type release struct {
	key          releaseKey
	announcement Announcement // the last that named it
	sessions     int
	root         *os.Root
	object       *spool.Object // nil: could not be opened
	payload      Payload       // nil until accepted
	redone       Redone        // the same, if it may begin again; else nil
	state        ReleaseState
	reason       error

	busy         bool // a job runs: at most one
	pending      bool // envelope symbols came since the last look
	lastEnvelope time.Time
	lastLook     time.Time
	dirty        bool // payload symbols were stored since the last Flush
	ended        bool // the pass of the last session to join has ended
	lastSymbol   time.Time
	flushNotYet  time.Time
}

// event is what a job reports back.
type event struct {
	release *release
	flushed bool    // the job was a Flush; else an assembly
	whole   bool    // the envelope object was whole
	payload Payload // the sink's answer
	err     error
}

// join finds or makes the release of a session. A release that was refused is
// looked at again: the site's policy, or its free space, may have changed. So is
// one that was accepted, and refused when its bytes were looked at.
func (r *Receiver) join(a Announcement) *release {
	key := keyOf(a)
	rel := r.releases[key]
	if rel == nil {
		rel = &release{key: key}
		r.releases[key] = rel
	}
	rel.sessions++
	rel.announcement, rel.ended = a, false
	if rel.state == "" || rel.state == ReleaseRefused || rel.payload != nil && rel.payload.Refused() {
		rel.state, rel.reason, rel.pending = ReleaseAssembling, nil, true
		rel.payload, rel.redone, rel.dirty = nil, nil, false
	}
	if rel.object != nil {
		return rel
	}
	if err := r.openObject(rel); err != nil {
		r.refuse(rel, err)
	}
	return rel
}

// openObject opens the envelope object below Dir, with whatever of it an earlier
// process has received.
func (r *Receiver) openObject(rel *release) error {
	geometry, err := fec.New(rel.key.envelopeSize, rel.key.profile.SymbolSize(), rel.key.groups)
	if err != nil {
		return fmt.Errorf("envelope object: %w", err)
	}
	name := rel.key.directory()
	if err := r.config.Dir.Mkdir(name, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make envelope directory: %w", err)
	}
	if rel.root, err = r.config.Dir.OpenRoot(name); err != nil {
		return fmt.Errorf("open envelope directory: %w", err)
	}
	files := []spool.File{{Name: envelopeName, Size: rel.key.envelopeSize}}
	if rel.object, err = spool.Open(rel.root, files, geometry, spool.Options{Logger: r.log, BootID: r.config.BootID}); err != nil {
		rel.object = nil
		return errors.Join(fmt.Errorf("open envelope object: %w", err), rel.root.Close())
	}
	return nil
}

// refuse drops the payload of a release from now on.
func (r *Receiver) refuse(rel *release, err error) {
	rel.state, rel.reason = ReleaseRefused, err
	r.log.Warn("release refused", zap.Binary("release", rel.key.release[:]), zap.Error(err))
	if isBroken(err) {
		r.broken = err
	}
}

// isBroken reports whether an error must end the receiver.
func isBroken(err error) bool { return errors.Is(err, ErrBroken) || errors.Is(err, spool.ErrBroken) }

// forget takes a session's hand off its release, and its announcement from disk.
func (r *Receiver) forget(s *session) {
	r.unkeep(s.announcement.Session)
	rel := s.release
	if rel == nil {
		return
	}
	rel.sessions--
	if rel.sessions == 0 && !rel.busy {
		r.retire(rel)
	}
}

// retire lets go of a release that no session names: what it stored is flushed,
// its envelope object is removed. The sink owns the payload.
func (r *Receiver) retire(rel *release) {
	if rel.payload != nil && rel.dirty {
		r.startFlush(rel)
		return
	}
	delete(r.releases, rel.key)
	r.discard(rel)
}

// discard removes the envelope object.
func (r *Receiver) discard(rel *release) {
	var err error
	if rel.object != nil {
		err = errors.Join(rel.object.Close(), rel.root.Close())
		rel.object, rel.root = nil, nil
	}
	if err = errors.Join(err, r.config.Dir.RemoveAll(rel.key.directory())); err != nil {
		r.log.Warn("envelope object not removed", zap.Error(err))
	}
}

// envelopeSymbol stores a symbol of the envelope object while it is assembled.
func (r *Receiver) envelopeSymbol(s *session, h Header, body []byte, now time.Time) {
	rel := s.release
	if rel.state != ReleaseAssembling || rel.object.Complete() {
		s.ledger.envelope++
		return
	}
	outcome, err := rel.object.Put(h.SBN, h.ESI, body)
	if err != nil {
		r.failedPut(s, err)
		return
	}
	s.ledger.envelope++
	if outcome == spool.Stored {
		rel.pending, rel.lastEnvelope = true, now
	}
}

// payloadSymbol stores a symbol of the payload object, once the envelope was
// accepted (section 6: not a byte before).
func (r *Receiver) payloadSymbol(s *session, h Header, body []byte, now time.Time) {
	rel := s.release
	switch rel.state {
	case ReleaseAccepted:
	case ReleaseRefused:
		s.ledger.refused++
		return
	default:
		s.ledger.early++
		return
	}
	rel.lastSymbol = now
	round := rel.round()
	if s.stored && s.round != round {
		s.ledger.held++
		return
	}
	stored, err := r.put(rel, h, body)
	switch {
	case err != nil:
		r.failedPut(s, err)
	case stored:
		s.ledger.stored++
		s.stored, s.round = true, round
		rel.dirty = true
	default:
		s.ledger.held++
	}
}

// round tells how often the payload began again.
func (rel *release) round() int64 {
	if rel.redone == nil {
		return 0
	}
	return rel.redone.Round()
}

// hold holds the payload of a release that was accepted, from the first symbol of a
// message on; nil: there is none, or it cannot be held.
func (r *Receiver) hold(rel *release) Held {
	if rel == nil || rel.state != ReleaseAccepted {
		return nil
	}
	if r.holds == rel {
		return r.held
	}
	holder, ok := rel.payload.(Holder)
	if !ok {
		return nil
	}
	r.letGo()
	r.holds, r.held = rel, holder.Hold()
	return r.held
}

// place is where the body of a datagram is decrypted to: where its symbol belongs, if
// that can be shown.
func (r *Receiver) place(s *session, h Header) []byte {
	if h.Type == TypePayload {
		if held := r.hold(s.release); held != nil {
			if slot := held.Slot(h.SBN, h.ESI); slot != nil {
				return slot
			}
		}
	}
	return r.scratch
}

// put gives a symbol to the payload.
func (r *Receiver) put(rel *release, h Header, body []byte) (stored bool, err error) {
	if held := r.hold(rel); held != nil {
		return held.Put(h.SBN, h.ESI, body)
	}
	return rel.payload.Put(h.SBN, h.ESI, body)
}

// letGo releases the payload that is held, if one is.
func (r *Receiver) letGo() {
	if r.holds != nil {
		r.held.Release()
		r.holds, r.held = nil, nil
	}
}

// failedPut counts a symbol that an object would not take.
func (r *Receiver) failedPut(s *session, err error) {
	s.ledger.malformed++
	if isBroken(err) {
		r.broken = fmt.Errorf("store symbol: %w", err)
	}
}

// look starts the jobs that are due.
func (r *Receiver) look(now time.Time) {
	for _, rel := range r.releases {
		switch {
		case rel.busy:
		case rel.state == ReleaseAssembling && rel.object != nil && rel.lookDue(now):
			r.startAssembly(rel, now)
		case rel.payload != nil && rel.flushDue(now):
			r.flush(rel, now)
		}
	}
}

// lookDue reports whether the envelope object may have become whole.
func (rel *release) lookDue(now time.Time) bool {
	return rel.object.Complete() ||
		rel.pending && (now.Sub(rel.lastEnvelope) >= idleAfterEnd || now.Sub(rel.lastLook) >= assembleEvery)
}

// flushDue reports whether the payload's symbols have paused.
func (rel *release) flushDue(now time.Time) bool {
	pause := now.Sub(rel.lastSymbol)
	return pause >= quiet || rel.ended && pause >= idleAfterEnd
}

// flush starts a Flush, unless there is nothing to flush or one runs.
func (r *Receiver) flush(rel *release, now time.Time) {
	if rel.dirty && !rel.busy && !now.Before(rel.flushNotYet) {
		r.startFlush(rel)
	}
}

// startFlush runs Payload.Flush in a goroutine.
func (r *Receiver) startFlush(rel *release) {
	rel.dirty = false
	payload := rel.payload
	r.start(rel, func(ctx context.Context) event {
		return event{release: rel, flushed: true, err: payload.Flush(ctx)}
	})
}

// startAssembly repairs the envelope object in a goroutine and, when it is
// whole, asks the sink.
func (r *Receiver) startAssembly(rel *release, now time.Time) {
	rel.pending, rel.lastLook = false, now
	if rel.object.Complete() {
		rel.state = ReleaseVerifying
	}
	a := rel.announcement
	r.start(rel, func(ctx context.Context) event {
		e := event{release: rel}
		if e.err = rel.object.Flush(ctx); e.err != nil {
			e.err = fmt.Errorf("flush envelope object: %w", e.err)
			return e
		}
		if e.whole = rel.object.Complete(); e.whole {
			e.payload, e.err = r.ask(ctx, rel.root, a)
		}
		return e
	})
}

// start runs a job; its event comes back to the goroutine that handles datagrams.
func (r *Receiver) start(rel *release, job func(context.Context) event) {
	rel.busy = true
	r.jobs.Go(func() { r.events <- job(r.jobContext) })
}

// ask checks the digest of a whole envelope object and gives it to the sink.
func (r *Receiver) ask(ctx context.Context, root *os.Root, a Announcement) (Payload, error) {
	f, err := root.Open(envelopeName)
	if err != nil {
		return nil, fmt.Errorf("open envelope: %w", err)
	}
	defer f.Close()
	digest := sha256.New()
	if _, err := io.Copy(digest, io.NewSectionReader(f, 0, a.EnvelopeSize)); err != nil {
		return nil, fmt.Errorf("read envelope: %w", err)
	}
	if [32]byte(digest.Sum(nil)) != a.EnvelopeSHA256 {
		return nil, fmt.Errorf("%w: session %x", ErrEnvelopeDigest, a.Session)
	}
	payload, err := r.config.Sink.Envelope(ctx, a, f, a.EnvelopeSize)
	if err == nil && payload == nil {
		return nil, fmt.Errorf("%w: sink returned neither a payload nor an error", ErrConfig)
	}
	return payload, err
}

// finished takes in what a job reports.
func (r *Receiver) finished(e event, now time.Time) {
	rel := e.release
	rel.busy = false
	if e.flushed {
		r.flushed(rel, e.err, now)
	} else {
		r.assembled(rel, e, now)
	}
	if rel.sessions == 0 && !rel.busy {
		r.retire(rel)
	}
}

// flushed handles the end of a Flush.
func (r *Receiver) flushed(rel *release, err error, now time.Time) {
	if err == nil {
		return
	}
	if isBroken(err) {
		r.broken = fmt.Errorf("flush payload: %w", err)
		return
	}
	rel.dirty, rel.flushNotYet = rel.sessions > 0, now.Add(retryFlush)
	r.log.Warn("flush failed", zap.Binary("release", rel.key.release[:]), zap.Error(err))
}

// assembled handles the sink's answer. An envelope that is whole but wrong is
// thrown away, so that the next session begins it anew.
func (r *Receiver) assembled(rel *release, e event, now time.Time) {
	switch {
	case errors.Is(e.err, ErrEnvelopeDigest):
		r.discard(rel)
		r.refuse(rel, e.err)
	case e.err != nil:
		r.refuse(rel, e.err)
	case e.whole:
		rel.state, rel.payload = ReleaseAccepted, e.payload
		rel.redone, _ = e.payload.(Redone)
		rel.dirty, rel.lastSymbol = true, now // an earlier process may have left something to repair
		r.log.Info("release accepted", zap.Binary("release", rel.key.release[:]))
	}
}
