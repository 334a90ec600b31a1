// SPDX-License-Identifier: Apache-2.0

// Package site is what one side knows of trust over time: the chain of trust objects and which of them is in effect, the orders of
// officers and what stands of them, and what the last snapshot said (docs/spec/bulletin.md, docs/spec/trust.md section 4).
//
//	first trust object (by hand) ─► chain ── quarantine over ─► in effect ─► Trust: policy, keys
//	bulletin, drop-box, medium ───► orders ── accepted under the version in effect ─► Standing: stops, revocations
//	                          └───► snapshot ─► Fresh: fresh, stale, late; what is current
//
// Both sides hold one. The bastion's takes trust objects and orders from its drop-box and makes bulletins of them; a receiver's takes
// bulletins. Everything that came is judged before it is put on stable storage, and judged again when it is read from there:
//
//	trust/chain/000002.json     DSSE of a trust object that verified against its predecessor; version 1 is the configuration's
//	trust/orders/<id>.json      DSSE of an order that verified, or whose key is not enrolled yet
//	trust/snapshot.json         DSSE of the last snapshot that verified
//	trust/site.json             when each version arrived, under which version an order was accepted, counter, clock floor
//
// It has no clock of its own, opens no socket, and never logs: what happened is returned, for the caller's audit log.
package site

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/internal/bulletin"
	"sluice/internal/durable"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// Reasons of refusal. Errors say in words what was wrong and what to do next.
var (
	// ErrChain: a trust object that does not continue the chain, or a chain that another one contradicts.
	ErrChain = errors.New("site: trust object refused")
	// ErrGap: a trust object whose predecessor is not here. Nothing is skipped.
	ErrGap = errors.New("site: a trust object is missing before this one")
	// ErrFork: there are two trust objects of one version. One of them was made by somebody who should not have been able to.
	ErrFork = errors.New("site: two trust objects have one version: call a person")
	// ErrReplay: a snapshot with a counter that was there before.
	ErrReplay = errors.New("site: the snapshot is not newer than the last one")
	// ErrRollback: a newer snapshot that takes back what one before it said: an older trust object, an order less.
	ErrRollback = errors.New("site: the snapshot takes back what the last one said")
	// ErrState: the files below trust/ are damaged or were changed.
	ErrState = errors.New("site: the state of trust is damaged")
	// ErrFull: there is no room for another trust object or order.
	ErrFull = errors.New("site: no room for more")
)

const (
	chainDir     = "chain"
	ordersDir    = "orders"
	snapshotFile = "snapshot.json"
	stateFile    = "site.json"
	maxFile      = 8 << 20

	// maxChain is the cap on all versions together, in bytes: what 1,024 orders, a snapshot and the proofs leave of a bulletin.
	maxChain = 32 << 20
)

// Options are what Open takes.
type Options struct {
	Dir        *os.Root     // of the files above; Close closes it
	First      *trust.Store // version 1, whose fingerprint a person confirmed
	FirstData  []byte       // its DSSE envelope
	Quarantine time.Duration
	Now        time.Time // with a reading of the monotonic clock

	write writer // nil: durable.WriteFile
}

// writer is durable.WriteFile, or one that fails, in tests.
type writer func(dir *os.Root, name string, data []byte, perm fs.FileMode) error

// Site is safe for concurrent use.
type Site struct {
	dir        *os.Root
	write      writer
	quarantine time.Duration
	root       string    // fingerprint of version 1
	started    time.Time // monotonic

	mu  sync.Mutex
	gap int64 // a version that was seen and cannot be taken yet; 0: none
	memory
}

// memory is what there is on stable storage, and what follows from it.
type memory struct {
	chain    []version // version 1, 2, 3, ...
	effect   int       // index of the one in effect
	orders   map[string]order
	standing *mofn.Standing
	state    state
	snapshot *signedSnapshot // the last that verified, and whose key is still one; nil: none
	advanced time.Time       // when the counter grew last, monotonic; zero: not in this process
}

// change does what f does, or nothing: when the disk fails, what was not written does not count here either, and comes again.
func (s *Site) change(f func() error) error {
	before := s.memory
	before.orders = maps.Clone(s.orders)
	before.state.Arrived, before.state.Under = maps.Clone(s.state.Arrived), maps.Clone(s.state.Under)
	if err := f(); err != nil {
		s.memory = before
		return err
	}
	return nil
}

type version struct {
	store *trust.Store
	data  []byte
}

type order struct {
	data   []byte
	signed mofn.SignedOrder // zero while its key is not enrolled
}

func (o order) accepted() bool { return o.signed.ID != "" }

// signedSnapshot is a snapshot and the key that made it.
type signedSnapshot struct {
	*mofn.Snapshot

	key        mofn.KeyID
	generation int64 // the version in which the key became a heartbeat key
}

// state is site.json. The files that it speaks of are there before it speaks of them.
type state struct {
	Type       string               `json:"type"`
	Effect     int64                `json:"effect"`     // the version in effect: a clock that is set back takes none back
	Arrived    map[string]time.Time `json:"arrived"`    // fingerprint of a version after the first -> when it verified
	Under      map[string]int64     `json:"under"`      // order id -> version under which it was accepted
	Generation int64                `json:"generation"` // of the key of the last snapshot
	Counter    int64                `json:"counter"`    // of the last snapshot that was taken, or made
	Floor      time.Time            `json:"floor,omitzero"`
	Sizes      []int64              `json:"sizes,omitempty"`   // of the audit log in the last bulletins that were made, growing: what proofs begin at
	Anchors    []int64              `json:"anchors,omitempty"` // the same of every 32nd bulletin
}

const stateType = "sluice-site-v1"

// Open reads what there is below Dir and judges all of it again. Errors: ErrState, ErrChain, and those of the disk.
func Open(opt Options) (*Site, error) {
	s, err := blank(opt)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{chainDir, ordersDir} {
		if err := s.dir.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("trust: %w", err)
		}
	}
	if err := durable.SyncDir(s.dir, "."); err != nil {
		return nil, err
	}
	for _, step := range []func() error{s.sweep, s.loadState, s.loadChain, s.loadOrders, s.loadSnapshot, s.complete} {
		if err := step(); err != nil {
			return nil, err
		}
	}
	// A crash between an order's file and site.json left one that looks like a stranger's.
	s.retry()
	if err := s.judge(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	s.forget()
	if err := s.save(); err != nil {
		return nil, err
	}
	return s, nil
}

func blank(opt Options) (*Site, error) {
	first := version{opt.First, opt.FirstData}
	if v := opt.First.Object.Version; v != 1 {
		return nil, fmt.Errorf("%w: the configuration names version %d as the first trust object; give it version 1, the later ones come by themselves", ErrChain, v)
	}
	s := &Site{dir: opt.Dir, write: opt.write, quarantine: opt.Quarantine, started: opt.Now, root: first.fingerprint()}
	if s.write == nil {
		s.write = durable.WriteFile
	}
	s.chain, s.orders = []version{first}, map[string]order{}
	s.floor(first.created())
	return s, nil
}

// Close closes the directory.
func (s *Site) Close() error { return s.dir.Close() }

// sweep removes what a crash left of files that were being written.
func (s *Site) sweep() error {
	for _, dir := range []string{".", chainDir, ordersDir} {
		names, err := fs.ReadDir(s.dir.FS(), dir)
		if err != nil {
			return fmt.Errorf("trust: %w", err)
		}
		for _, n := range names {
			if strings.HasPrefix(n.Name(), ".") && strings.Contains(n.Name(), ".tmp-") {
				if err := s.dir.Remove(path.Join(dir, n.Name())); err != nil {
					return fmt.Errorf("trust: %w", err)
				}
			}
		}
	}
	return nil
}

// loadState leaves the state without a type when there is none.
func (s *Site) loadState() error {
	b, err := s.read(stateFile)
	if errors.Is(err, fs.ErrNotExist) {
		s.state = state{Effect: 1, Arrived: map[string]time.Time{}, Under: map[string]int64{}, Floor: s.state.Floor}
		return nil
	}
	if err != nil {
		return err
	}
	floor := s.state.Floor
	err = json.Unmarshal(b, &s.state)
	if bad := s.state; err != nil || bad.Type != stateType || bad.Arrived == nil || bad.Under == nil || min(bad.Counter, bad.Generation) < 0 || bad.Effect < 1 {
		return errors.Join(fmt.Errorf("%w: %s does not read; restore it from the backup of the state directory, never delete it", ErrState, stateFile), err)
	}
	s.floor(floor)
	return nil
}

func (s *Site) loadChain() error {
	for {
		name := chainName(len(s.chain) + 1)
		b, err := s.read(name)
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return err
		}
		next, err := s.successor(b)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrState, name, err)
		}
		s.chain = append(s.chain, next)
		s.floor(next.created())
	}
	if s.state.Effect > int64(len(s.chain)) {
		return fmt.Errorf("%w: version %d of the trust object was in effect, and %s is gone; restore it from the backup of the state directory", ErrState, s.state.Effect, chainName(len(s.chain)+1))
	}
	s.effect = int(s.state.Effect) - 1
	return nil
}

func (s *Site) loadOrders() error {
	names, err := fs.ReadDir(s.dir.FS(), ordersDir)
	if err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	for _, n := range names {
		b, err := s.read(ordersDir + "/" + n.Name())
		if err != nil {
			return err
		}
		o, err := bulletin.NewOrder(b)
		if err != nil || o.ID+".json" != n.Name() {
			return errors.Join(fmt.Errorf("%w: %s/%s is not the order of that name", ErrState, ordersDir, n.Name()), err)
		}
		kept := order{data: b}
		if under, ok := s.state.Under[o.ID]; ok {
			if under < 1 || under > s.state.Effect {
				return fmt.Errorf("%w: order %s was accepted under version %d of the trust object, which was not in effect yet", ErrState, o.ID, under)
			}
			if kept.signed, err = s.verifyOrder(b, under); err != nil {
				return fmt.Errorf("%w: %s/%s: %w", ErrState, ordersDir, n.Name(), err)
			}
		}
		s.orders[o.ID] = kept
	}
	return nil
}

// loadSnapshot reads the last snapshot. It verified when it was written, so it verifies under some version.
func (s *Site) loadSnapshot() error {
	b, err := s.read(snapshotFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	snap, err := s.verifySnapshot(b, 0)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrState, snapshotFile, err)
	}
	s.snapshot = snap
	if s.newer(snap) { // a crash between the file and site.json
		s.state.Generation, s.state.Counter = snap.generation, snap.Counter
	}
	return nil
}

// complete looks for what site.json speaks of and is not there, and the other way round.
func (s *Site) complete() error {
	const restore = "restore it from the backup of the state directory"
	if s.state.Type == "" && (len(s.chain) > 1 || len(s.orders) > 0 || s.snapshot != nil) {
		return fmt.Errorf("%w: %s is gone, and what it spoke of is there; %s", ErrState, stateFile, restore)
	}
	s.state.Type = stateType
	missing := maps.Clone(s.state.Arrived)
	for _, v := range s.chain[1:] {
		if _, ok := s.state.Arrived[v.fingerprint()]; !ok {
			// A crash between the file and site.json. Its quarantine begins now, which is the safe side.
			s.state.Arrived[v.fingerprint()] = s.started.UTC().Round(0)
		}
		delete(missing, v.fingerprint())
	}
	for fp := range missing {
		return fmt.Errorf("%w: the trust object %s was here, and is not below %s; %s", ErrState, fp, chainDir, restore)
	}
	for id := range s.state.Under {
		if _, ok := s.orders[id]; !ok {
			return fmt.Errorf("%w: the order %s was accepted, and is not below %s; %s", ErrState, id, ordersDir, restore)
		}
	}
	return nil
}

// Effective gives the trust objects that have been in effect, the newest first. It is for who judges while another process holds the
// state: it changes nothing, and a state that is being written is read as it was or as it will be.
func Effective(opt Options) ([]*trust.Store, error) {
	s, err := blank(opt)
	if err != nil {
		return nil, err
	}
	for _, load := range []func() error{s.loadState, s.loadChain} {
		if err := load(); err != nil {
			return nil, err
		}
	}
	return s.Been(), nil
}

// Been gives the trust objects that have been in effect, the newest first.
func (s *Site) Been() []*trust.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*trust.Store, 0, s.effect+1)
	for i := s.effect; i >= 0; i-- {
		out = append(out, s.chain[i].store)
	}
	return out
}

// read reads a file of our own, under a cap.
func (s *Site) read(name string) ([]byte, error) {
	f, err := s.dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%w: %s is no regular file of at most %d bytes", ErrState, name, maxFile)
	}
	return fs.ReadFile(s.dir.FS(), name)
}

// save puts site.json on stable storage.
func (s *Site) save() error {
	s.state.Effect = int64(s.effect) + 1
	b, err := json.Marshal(s.state)
	if err != nil {
		return err
	}
	return s.write(s.dir, stateFile, b, 0o600)
}

// floor raises the clock floor. The caller saves.
func (s *Site) floor(at time.Time) {
	if at.After(s.state.Floor) {
		s.state.Floor = at
	}
}

// Trust is the trust object in effect.
func (s *Site) Trust() *trust.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.chain[s.effect].store
}

// Newest is the newest trust object that verified; it may be in quarantine still.
func (s *Site) Newest() *trust.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.chain[len(s.chain)-1].store
}

// Standing is what the orders come to.
func (s *Site) Standing() *mofn.Standing {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.standing
}

// Floor is the clock floor: no true clock shows less (docs/spec/bulletin.md section 4).
func (s *Site) Floor() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Floor
}

// Clock is the later of a clock and the floor.
func (s *Site) Clock(now time.Time) time.Time {
	if floor := s.Floor(); now.Before(floor) {
		return floor
	}
	return now
}

// Root is the fingerprint of the first trust object, in hexadecimal: what orders and snapshots are bound to.
func (s *Site) Root() string { return s.root }

// Chain gives the DSSE envelopes of all versions.
func (s *Site) Chain() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([][]byte, len(s.chain))
	for i, v := range s.chain {
		out[i] = v.data
	}
	return out
}

// Orders gives all orders, those that count nothing yet too, by id.
func (s *Site) Orders() []bulletin.Order {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ordersLocked()
}

func (s *Site) ordersLocked() []bulletin.Order {
	out := make([]bulletin.Order, 0, len(s.orders))
	for id, o := range s.orders {
		out = append(out, bulletin.Order{ID: id, Data: o.data})
	}
	slices.SortFunc(out, func(a, b bulletin.Order) int { return strings.Compare(a.ID, b.ID) })
	return out
}

func (v version) fingerprint() string { return hex.EncodeToString(v.store.Fingerprint[:]) }

func (v version) created() time.Time {
	at, err := time.Parse(time.RFC3339, v.store.Object.Created)
	if at = at.UTC(); err != nil || at.Year() > 9999 { // ParseTrust looked; a year above does not go into site.json
		return time.Time{}
	}
	return at
}

func chainName(v int) string { return fmt.Sprintf("%s/%06d.json", chainDir, v) }

// signaturesOf turns the signatures of a DSSE envelope into those of the policy.
func signaturesOf(d *envelope.DSSE) []mofn.Signature {
	out := make([]mofn.Signature, len(d.Signatures))
	for i, g := range d.Signatures {
		out[i] = mofn.Signature(g)
	}
	return out
}
