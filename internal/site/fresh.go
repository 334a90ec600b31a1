// SPDX-License-Identifier: Apache-2.0

package site

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/internal/bulletin"
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
	t.Trust, err = s.addChain(b.Trust, now)
	if err := s.sort(&t, err); err != nil {
		return t, err
	}
	if err := s.takeOrders(b.Orders, &t); err != nil {
		return t, err
	}
	// Only now: a stop of everything that came along overtakes what its quarantine lets go.
	if t.Effect, err = s.activate(now); err != nil {
		return t, err
	}
	snap, err := s.takeSnapshot(b, now)
	if err := s.sort(&t, err); err != nil {
		return t, err
	}
	t.Snapshot = snap
	return t, nil
}

// takeOrders takes the orders of a bulletin, all at once.
func (s *Site) takeOrders(list []bulletin.Order, t *Taken) error {
	var accepted []mofn.SignedOrder
	strange := 0
	err := s.change(func() error {
		for _, o := range list {
			signed, news, err := s.addOrder(o)
			if err := s.sort(t, err); err != nil {
				return err
			}
			switch {
			case !news:
			case signed.ID == "":
				strange++
			default:
				accepted = append(accepted, signed)
			}
		}
		if len(accepted) == 0 {
			return nil
		}
		return s.settle()
	})
	if err == nil {
		t.Orders, t.Strange = accepted, strange
	}
	return err
}

// sort puts a refusal into Problems, and gives any other error back.
func (s *Site) sort(t *Taken, err error) error {
	for _, refusal := range []error{ErrChain, ErrGap, ErrFork, ErrReplay, ErrRollback, ErrFull, mofn.ErrOrder, mofn.ErrSnapshot, bulletin.ErrFormat, envelope.ErrFormat} {
		if errors.Is(err, refusal) {
			t.Problems = append(t.Problems, err)
			return nil
		}
	}
	return err
}

func (s *Site) takeSnapshot(b *bulletin.Bulletin, now time.Time) (*mofn.Snapshot, error) {
	snap, err := s.verifySnapshot(b.Snapshot, s.effect)
	if err != nil {
		return nil, err
	}
	if err := b.Matches(snap.Snapshot); err != nil {
		return nil, err
	}
	if v := snap.Trust.Version; v <= int64(len(s.chain)) && s.chain[v-1].fingerprint() != snap.Trust.Fingerprint {
		return nil, fmt.Errorf("%w: the snapshot names version %d of the trust object as %s, here it is %s", ErrFork, v, snap.Trust.Fingerprint, s.chain[v-1].fingerprint())
	}
	if !s.newer(snap) {
		return nil, fmt.Errorf("%w: counter %d by the heartbeat key of version %d, the last was %d of version %d", ErrReplay, snap.Counter, snap.generation, s.state.Counter, s.state.Generation)
	}
	if err := s.takesBack(snap); err != nil {
		return nil, err
	}
	if err := s.speaks(snap.key); err != nil {
		return nil, err
	}
	return snap.Snapshot, s.note(snap, b.Snapshot, now)
}

// note puts a snapshot on stable storage, and then takes it for the last.
func (s *Site) note(snap *signedSnapshot, data []byte, now time.Time) error {
	return s.change(func() error {
		if err := s.write(s.dir, snapshotFile, data, 0o600); err != nil {
			return err
		}
		s.state.Generation, s.state.Counter = snap.generation, snap.Counter
		s.snapshot, s.advanced = snap, now
		return s.save()
	})
}

// newer: a key that became a heartbeat key later begins anew, so that a thief who counted up to the end with the old one is got rid of
// with it; the old one says nothing any more once the new one has spoken.
func (s *Site) newer(snap *signedSnapshot) bool {
	if snap.generation != s.state.Generation {
		return snap.generation > s.state.Generation
	}
	return snap.Counter > s.state.Counter
}

// takesBack: trust objects and orders only become more.
func (s *Site) takesBack(snap *signedSnapshot) error {
	if s.snapshot == nil {
		return nil
	}
	if was, is := s.snapshot.Trust.Version, snap.Trust.Version; is < was {
		return fmt.Errorf("%w: it names version %d of the trust object, the last named %d; was the bastion restored from an old backup?", ErrRollback, is, was)
	}
	for _, id := range s.snapshot.Orders {
		if _, ok := slices.BinarySearch(snap.Orders, id); !ok {
			return fmt.Errorf("%w: it leaves out the order %s; was the bastion restored from an old backup?", ErrRollback, id)
		}
	}
	return nil
}

// forget drops the last snapshot when its key is no heartbeat key any more, or is stopped or revoked.
func (s *Site) forget() {
	if s.snapshot != nil && s.speaks(s.snapshot.key) != nil {
		s.snapshot = nil
	}
}

// speaks says why the snapshots of a key count nothing.
func (s *Site) speaks(id mofn.KeyID) error {
	for _, v := range s.chain[s.effect:] {
		key, ok := v.store.Object.Heartbeat(id)
		if !ok {
			continue
		}
		if why, barred := s.standing.BarredKey(key); barred {
			return fmt.Errorf("%w: %s", mofn.ErrSnapshot, why)
		}
		return nil
	}
	return fmt.Errorf("%w: %v is no heartbeat key any more", mofn.ErrSnapshot, id)
}

// verifySnapshot checks the signature, by a heartbeat key of the version of the given index or of a later one, and that the snapshot is
// of this site.
func (s *Site) verifySnapshot(data []byte, from int) (*signedSnapshot, error) {
	d, err := envelope.ParseDSSE(data, maxFile)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", mofn.ErrSnapshot, err)
	}
	var keys []*mofn.Trust
	for _, v := range s.chain[from:] {
		keys = append(keys, v.store.Object)
	}
	snap, err := mofn.VerifySnapshot(keys, d.Payload, signaturesOf(d), envelope.PAE(d.PayloadType, d.Payload))
	if err != nil {
		return nil, err
	}
	if snap.Root != s.root {
		return nil, fmt.Errorf("%w: it is of another site (root %s)", mofn.ErrSnapshot, snap.Root)
	}
	key, err := mofn.ParseKeyID(d.Signatures[0].KeyID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", mofn.ErrSnapshot, err)
	}
	return &signedSnapshot{Snapshot: snap, key: key, generation: s.generation(key)}, nil
}

// generation is the first version that has a heartbeat key.
func (s *Site) generation(key mofn.KeyID) int64 {
	for _, v := range s.chain {
		if _, ok := v.store.Object.Heartbeat(key); ok {
			return v.store.Object.Version
		}
	}
	return 0
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
	signed, err := s.verifySnapshot(b.Snapshot, s.effect)
	if err != nil { // receivers would refuse it
		return nil, nil, err
	}
	if !s.newer(signed) {
		return nil, nil, fmt.Errorf("%w: the heartbeat key %v of version %d was followed by one of version %d, and says nothing any more", ErrReplay, signed.key, signed.generation, s.state.Generation)
	}
	err = s.change(func() error {
		if n.Log.Size > 0 {
			s.state.remember(n.Log.Size, snap.Counter)
		}
		return s.note(signed, b.Snapshot, n.Now)
	})
	if err != nil {
		return nil, nil, err
	}
	return b, snap, nil
}

// prove adds the proofs: from nothing, and from each size that a receiver may have seen last.
func (s *Site) prove(b *bulletin.Bulletin, n Next) error {
	if n.Log.Size == 0 {
		return nil
	}
	sizes := slices.Concat([]int64{0}, s.state.Anchors, s.state.Sizes)
	slices.Sort(sizes)
	for _, old := range slices.Compact(sizes) {
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
	// AnchorEvery is after how many bulletins, by their counter, both sides remember how far the log was, so that one that missed the last ones
	// finds a proof that begins where it stood.
	AnchorEvery = 32

	recentSizes = 24
	mostAnchors = bulletin.MaxProofs - 1 - recentSizes
)

// remember adds the size of the log in the bulletin with a counter.
func (s *state) remember(size, counter int64) {
	s.Sizes = last(append(s.Sizes, size), recentSizes)
	if counter%AnchorEvery == 0 {
		s.Anchors = last(append(s.Anchors, size), mostAnchors)
	}
}

// last gives the last n different ones of a list that grows.
func last(sizes []int64, n int) []int64 {
	sizes = slices.Compact(slices.Clone(sizes))
	return sizes[max(0, len(sizes)-n):]
}

// State says whether what is known is fresh, in one word.
type State string

// The states.
const (
	Unwatched State = "unwatched" // the trust object has no heartbeat key: nobody can tell
	Unheard   State = "unheard"   // no snapshot came, or none since the start
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
		f.Text = fmt.Sprintf("no snapshot by a key that counts came; this process listens for %s", round(f.Age))
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
	case f.Age <= staleAfter*f.Interval && s.advanced.IsZero():
		// Whoever can hold the link back and have this process start again could otherwise keep it fresh for ever.
		f.State = Unheard
		f.Text = fmt.Sprintf("no newer snapshot came since the start %s ago, the last one was %d; words %s", round(f.Age), snap.Counter, words)
	case f.Age > staleAfter*f.Interval:
		f.State = Stale
		f.Text = fmt.Sprintf("STALE: no newer snapshot for %s, one is due every %s; compare the words with the bastion's: %s", round(f.Age), f.Interval, words)
	case f.Behind > lateAfter*f.Interval:
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
	if s.snapshot == nil {
		return nil
	}
	return s.snapshot.Snapshot
}

// Numbers are what only grows here, for the second place; of Generation and Counter the pair, in this order.
type Numbers struct {
	Trust      int64 `json:"trust"`
	Generation int64 `json:"generation"`
	Counter    int64 `json:"counter"`
	Orders     int64 `json:"orders"`
}

// Numbers gives them.
func (s *Site) Numbers() Numbers {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Numbers{Trust: int64(len(s.chain)), Generation: s.state.Generation, Counter: s.state.Counter, Orders: int64(len(s.state.Under))}
}
