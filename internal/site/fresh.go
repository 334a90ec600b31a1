// SPDX-License-Identifier: Apache-2.0

package site

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/internal/bulletin"
	"sluice/internal/durable"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// staleAfter is how many intervals without a newer counter make a receiver stale, and lateAfter how many the sender's clock may be
// behind (docs/spec/bulletin.md section 4).
const (
	staleAfter = 3
	lateAfter  = 2
)

// Taken is what a bulletin brought.
type Taken struct {
	Trust    []*trust.Store     // versions that are new here
	Effect   []*trust.Store     // versions that took effect
	Orders   []mofn.SignedOrder // orders that were accepted
	Strange  int                // orders that are new here and whose keys are not enrolled
	Snapshot *mofn.Snapshot     // nil: refused
	Problems []error            // what was refused of it; the rest was right to take
}

// Take takes a bulletin in, in the order of docs/spec/bulletin.md section 4. What is wrong with one part does not hold up another: a stop
// counts although the heartbeat key is a thief's. An error is of this side, its disk; the bulletin's own are in Problems.
func (s *Site) Take(b *bulletin.Bulletin, now time.Time) (t Taken, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.effect
	t.Trust, err = s.addChain(b.Trust, now)
	if err := s.sort(&t, err); err != nil {
		return t, err
	}
	for _, o := range b.Orders {
		signed, news, err := s.addOrder(o)
		if err := s.sort(&t, err); err != nil {
			return t, err
		}
		switch {
		case !news:
		case signed.ID == "":
			t.Strange++
		default:
			t.Orders = append(t.Orders, signed)
		}
	}
	if _, err := s.activate(now); err != nil {
		return t, err
	}
	for i := before + 1; i <= s.effect; i++ {
		t.Effect = append(t.Effect, s.chain[i].store)
	}
	snap, err := s.takeSnapshot(b, now)
	if err := s.sort(&t, err); err != nil {
		return t, err
	}
	t.Snapshot = snap
	return t, nil
}

// sort puts a refusal into Problems, and gives any other error back.
func (s *Site) sort(t *Taken, err error) error {
	for _, refusal := range []error{ErrChain, ErrGap, ErrFork, ErrReplay, ErrFull, mofn.ErrOrder, mofn.ErrSnapshot, bulletin.ErrFormat, envelope.ErrFormat} {
		if errors.Is(err, refusal) {
			t.Problems = append(t.Problems, err)
			return nil
		}
	}
	return err
}

func (s *Site) takeSnapshot(b *bulletin.Bulletin, now time.Time) (*mofn.Snapshot, error) {
	snap, err := s.verifySnapshot(b.Snapshot)
	if err != nil {
		return nil, err
	}
	if err := b.Matches(snap); err != nil {
		return nil, err
	}
	if have := s.chain[min(int(snap.Trust.Version), len(s.chain))-1]; int(snap.Trust.Version) <= len(s.chain) && have.fingerprint() != snap.Trust.Fingerprint {
		return nil, fmt.Errorf("%w: the snapshot names version %d of the trust object as %s, here it is %s", ErrFork, snap.Trust.Version, snap.Trust.Fingerprint, have.fingerprint())
	}
	if snap.Counter <= s.state.Counter {
		return nil, fmt.Errorf("%w: counter %d, the last was %d", ErrReplay, snap.Counter, s.state.Counter)
	}
	if err := durable.WriteFile(s.dir, snapshotFile, b.Snapshot, 0o600); err != nil {
		return nil, err
	}
	s.state.Counter = snap.Counter
	if err := s.save(); err != nil {
		return nil, err
	}
	s.snapshot, s.advanced = snap, now
	return snap, nil
}

// verifySnapshot checks the signature, by a heartbeat key of the trust object in effect or of a later one that verified, and that the
// snapshot is of this site.
func (s *Site) verifySnapshot(data []byte) (*mofn.Snapshot, error) {
	d, err := envelope.ParseDSSE(data, maxFile)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", mofn.ErrSnapshot, err)
	}
	var keys []*mofn.Trust
	for _, v := range s.chain[s.effect:] {
		keys = append(keys, v.store.Object)
	}
	snap, err := mofn.VerifySnapshot(keys, d.Payload, signaturesOf(d), envelope.PAE(d.PayloadType, d.Payload))
	if err != nil {
		return nil, err
	}
	if snap.Root != s.Root() {
		return nil, fmt.Errorf("%w: it is of another site (root %s)", mofn.ErrSnapshot, snap.Root)
	}
	return snap, nil
}

// Next is what the bastion puts into its next snapshot beside what this site knows.
type Next struct {
	Site     string
	Interval time.Duration
	Now      time.Time
	Releases []mofn.Current
	Log      mofn.LogRef // zero: there is no log to show
	// Prove gives the text that proves the log of Log to continue its first old events (docs/spec/audit.md section 5); nil without a log.
	Prove func(old int64) ([]byte, error)
	Sign  func(payload []byte) (dsse []byte, err error) // by a heartbeat key
}

// Make makes the next bulletin. The counter is on stable storage before anybody sees it.
func (s *Site) Make(n Next) (*bulletin.Bulletin, *mofn.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest := s.chain[len(s.chain)-1]
	snap := &mofn.Snapshot{
		Site: n.Site, Root: s.Root(), Counter: s.state.Counter + 1, Interval: int64(n.Interval / time.Second),
		At: envelope.FormatTime(n.Now), Trust: mofn.TrustRef{Version: newest.store.Object.Version, Fingerprint: newest.fingerprint()},
		Releases: n.Releases, Log: n.Log,
	}
	b := &bulletin.Bulletin{Orders: s.ordersLocked()}
	if err := s.prove(b, n); err != nil {
		return nil, nil, err
	}
	for _, o := range b.Orders {
		snap.Orders = append(snap.Orders, o.ID)
	}
	for _, v := range s.chain {
		b.Trust = append(b.Trust, v.data)
	}
	payload, err := snap.Marshal()
	if err != nil {
		return nil, nil, err
	}
	if b.Snapshot, err = n.Sign(payload); err != nil {
		return nil, nil, err
	}
	if _, err := s.verifySnapshot(b.Snapshot); err != nil { // receivers would refuse it
		return nil, nil, err
	}
	if err := durable.WriteFile(s.dir, snapshotFile, b.Snapshot, 0o600); err != nil {
		return nil, nil, err
	}
	s.state.Counter++
	if n.Log.Size > 0 {
		s.state.Sizes = remember(s.state.Sizes, n.Log.Size)
	}
	if err := s.save(); err != nil {
		return nil, nil, err
	}
	s.snapshot, s.advanced = snap, n.Now
	return b, snap, nil
}

// prove adds the proofs: from nothing, and from each size that a receiver may have seen last.
func (s *Site) prove(b *bulletin.Bulletin, n Next) error {
	if n.Log.Size == 0 {
		return nil
	}
	for _, old := range append([]int64{0}, s.state.Sizes...) {
		if old > n.Log.Size {
			return fmt.Errorf("%w: the audit log had %d events once and has %d now", ErrState, old, n.Log.Size)
		}
		text, err := n.Prove(old)
		if err != nil {
			return err
		}
		b.Proofs = append(b.Proofs, bulletin.Proof{Old: old, Text: text})
	}
	return nil
}

const (
	recentSizes = 24
	mostSizes   = bulletin.MaxProofs - 1
)

// remember adds a size, and keeps the latest 24 and of the older ones ever fewer: when there are too many, every second of them goes.
func remember(sizes []int64, size int64) []int64 {
	if len(sizes) > 0 && sizes[len(sizes)-1] == size {
		return sizes
	}
	sizes = append(slices.Clone(sizes), size)
	if len(sizes) <= mostSizes {
		return sizes
	}
	old, recent := sizes[:len(sizes)-recentSizes], sizes[len(sizes)-recentSizes:]
	var kept []int64
	for i, o := range old {
		if i%2 == 0 {
			kept = append(kept, o)
		}
	}
	return append(kept, recent...)
}

// State says whether what is known is fresh, in one word.
type State string

// The states.
const (
	Unwatched State = "unwatched" // the trust object has no heartbeat key: nobody can tell
	Unheard   State = "unheard"   // no snapshot ever came
	Fresh     State = "fresh"
	Stale     State = "stale" // no newer snapshot for three intervals
	Late      State = "late"  // newer ones come, and speak of long ago
)

// Freshness says how old what is known is.
type Freshness struct {
	State    State         `json:"state"`
	Counter  int64         `json:"counter,omitempty"`
	Interval time.Duration `json:"interval_ns,omitempty"`
	Age      time.Duration `json:"age_ns"`       // since the counter grew, or since the start, by the monotonic clock
	Behind   time.Duration `json:"behind_ns"`    // how far the sender's clock is behind this one, or behind the floor
	At       string        `json:"at,omitempty"` // the sender's clock
	Words    []string      `json:"words,omitempty"`
	Text     string        `json:"text"` // for a person
}

// Fresh judges by the monotonic clock; the wall clock says nothing but how far apart the two are.
func (s *Site) Fresh(now time.Time) Freshness {
	s.mu.Lock()
	defer s.mu.Unlock()
	since := s.advanced
	if since.IsZero() {
		since = s.started
	}
	f := Freshness{Age: max(now.Sub(since), 0)}
	switch {
	case s.snapshot == nil && len(s.chain[s.effect].store.Object.Heartbeats) == 0:
		f.State, f.Text = Unwatched, "the trust object names no heartbeat key: whether news is held back cannot be told"
		return f
	case s.snapshot == nil:
		f.State = Unheard
		f.Text = fmt.Sprintf("no snapshot ever came; this process listens for %s", round(f.Age))
		return f
	}
	s.judgeFresh(&f, now)
	return f
}

func (s *Site) judgeFresh(f *Freshness, now time.Time) {
	snap := s.snapshot
	f.Counter, f.At, f.Interval = snap.Counter, snap.At, time.Duration(snap.Interval)*time.Second
	if words, err := snap.Words(); err == nil {
		f.Words = words
	}
	at, err := time.Parse(time.RFC3339, snap.At)
	if err == nil {
		clock := now
		if clock.Before(s.state.Floor) {
			clock = s.state.Floor
		}
		// By the time since it came, it is older; what counts is how old it was then.
		f.Behind = clock.Sub(at) - f.Age
	}
	words := strings.Join(f.Words, " ")
	switch {
	case f.Age > staleAfter*f.Interval:
		f.State = Stale
		f.Text = fmt.Sprintf("STALE: no newer snapshot for %s, one is due every %s; compare the words with the bastion's: %s", round(f.Age), f.Interval, words)
	case f.Behind > lateAfter*f.Interval && !s.advanced.IsZero():
		f.State = Late
		f.Text = fmt.Sprintf("LATE: snapshots come, and speak of %s ago: somebody delays the link, or a clock is wrong; words %s", round(f.Behind), words)
	default:
		f.State = Fresh
		f.Text = fmt.Sprintf("fresh: snapshot %d, %s ago; words %s", snap.Counter, round(f.Age), words)
	}
}

func round(d time.Duration) time.Duration {
	if d > time.Minute {
		return d.Round(time.Minute)
	}
	return d.Round(time.Second)
}

// Snapshot is the last that verified, or was made; nil: none.
func (s *Site) Snapshot() *mofn.Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.snapshot
}

// Numbers are what only grows here, for the second place.
type Numbers struct {
	Trust   int64 `json:"trust"`
	Counter int64 `json:"counter"`
	Orders  int64 `json:"orders"`
}

// Numbers gives them.
func (s *Site) Numbers() Numbers {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Numbers{Trust: int64(len(s.chain)), Counter: s.state.Counter, Orders: int64(len(s.state.Under))}
}
