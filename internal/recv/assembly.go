// SPDX-License-Identifier: Apache-2.0

package recv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"sluice/internal/link"
	"sluice/internal/spool"
	"sluice/internal/ticket"
	"sluice/pkg/fec"
)

// repairTime is how long a shortfall waits for what can be repaired with what is here. What is not done by then is asked for.
const repairTime = 10 * time.Second

// Assembler opens the assemblies of payloads: in this process ([Local]), or in the one that faces the link ([Process]).
type Assembler interface {
	// Assemble makes or resumes the payload of a release in dir, below the state directory; sizes are those of its files, in order. All
	// their space is reserved before it returns. Errors are those of [spool.Open].
	Assemble(ctx context.Context, dir string, release [32]byte, sizes []int64, cut Cut) (Assembly, error)
}

// Assembly is the payload of one release being assembled.
type Assembly interface {
	// Done returns a channel that is closed once every byte is on stable storage.
	Done() <-chan struct{}
	// Err returns why it is broken, or nil.
	Err() error
	Progress() spool.Progress
	// Shortfall repairs what can be repaired now, and says what is missing then. room is what a ticket has left, in bytes.
	Shortfall(ctx context.Context, room int) (Shortfall, error)
	// Close brings what is here to stable storage. After it nothing writes into dir any more.
	Close() error
}

// FileName is the name of file i of a payload, below its directory: a number, because no name that came from outside names anything
// in a spool.
func FileName(i int) string { return fmt.Sprintf("files/%06d", i) }

// OpenObject opens the assembler of a payload in its directory.
func OpenObject(root *os.Root, sizes []int64, cut Cut, opt spool.Options) (*spool.Object, error) {
	g, err := cut.of(sizes)
	if err != nil {
		return nil, err
	}
	files := make([]spool.File, len(sizes))
	for i, n := range sizes {
		files[i] = spool.File{Name: FileName(i), Size: n}
	}
	opt.SyncSpans = true
	return spool.Open(root, files, g, opt)
}

// of is the geometry of a payload of files of these sizes.
func (c Cut) of(sizes []int64) (fec.Geometry, error) {
	var total int64
	for _, n := range sizes {
		total += n
	}
	return fec.New(total, c.SymbolSize, c.Groups)
}

// Local assembles in this process.
type Local struct {
	state  *os.Root
	log    *zap.Logger
	bootID string

	mu       sync.Mutex
	payloads map[Place]*payload
}

// NewLocal assembles below state, which stays the caller's.
func NewLocal(state *os.Root, log *zap.Logger) *Local {
	return &Local{state: state, log: log, payloads: make(map[Place]*payload)}
}

// Assemble implements [Assembler].
func (l *Local) Assemble(_ context.Context, dir string, release [32]byte, sizes []int64, cut Cut) (Assembly, error) {
	a, err := l.open(dir, release, sizes, cut)
	if err != nil {
		return nil, err // not a typed nil
	}
	return a, nil
}

func (l *Local) open(dir string, release [32]byte, sizes []int64, cut Cut) (*assembly, error) {
	root, err := l.state.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	defer root.Close()
	g, err := cut.of(sizes)
	if err != nil {
		return nil, err
	}
	obj, err := OpenObject(root, sizes, cut, spool.Options{Logger: l.log, BootID: l.bootID})
	if err != nil {
		return nil, err
	}
	a := &assembly{Object: obj, payload: l.payload(Place{Release: release, Cut: cut}), geometry: g, gone: make(chan struct{})}
	a.payload.now.Store(a)
	return a, nil
}

// payload gives the one handle of a place.
func (l *Local) payload(p Place) *payload {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.payloads[p] == nil {
		l.payloads[p] = &payload{}
	}
	return l.payloads[p]
}

// Payload gives the link its end of a place. refused tells whether the release was refused since.
func (l *Local) Payload(p Place, refused func() bool) link.Payload {
	if p.Whole {
		return wholePayload{refused}
	}
	return linked{l.payload(p), refused}
}

// assembly is an assembler and the handle through which the link reaches it.
type assembly struct {
	*spool.Object
	geometry fec.Geometry
	payload  *payload

	once sync.Once
	gone chan struct{} // closed by Close
}

// Close ends it; the next one of the release resumes it.
func (a *assembly) Close() error {
	a.once.Do(func() {
		if a.Complete() {
			a.payload.rounds.Add(1) // if it is opened again, then because something in it is damaged
		}
		a.payload.now.CompareAndSwap(a, nil)
		close(a.gone)
	})
	return a.Object.Close()
}

// Shortfall implements [Assembly].
func (a *assembly) Shortfall(ctx context.Context, room int) (out Shortfall, err error) {
	brief, cancel := context.WithTimeout(ctx, repairTime)
	defer cancel()
	if err := a.Flush(brief); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return out, err
	}
	if out.Fresh, err = a.FreshRow(); err != nil {
		return out, err
	}
	b := ticket.NewBuilder(a.geometry, out.Fresh, room)
	err = a.Lacking(func(l spool.Lack) error {
		b.Add(l.Span, l.Deficit, l.Missing)
		out.Damaged++
		return nil
	})
	out.Need, out.Lost = b.Need(), b.Lost()
	return out, err
}

// payload is what the link holds of a release, cut in one way. The link asks once and keeps the answer as long as it knows a
// session of the release, so it outlives assemblies: a release that was found damaged is received again through the same one.
type payload struct {
	now    atomic.Pointer[assembly]
	rounds atomic.Int64 // how often one was closed that was whole
}

// linked is a payload as the link sees it.
type linked struct {
	*payload
	refused func() bool
}

// Put implements link.Payload. While nothing is being received the symbols are swallowed.
func (p linked) Put(sbn, esi uint32, symbol []byte) (bool, error) {
	a := p.now.Load()
	if a == nil {
		return false, nil
	}
	return stored(a.Put(sbn, esi, symbol))
}

// stored is the link's word for what became of a symbol.
func stored(out spool.Outcome, err error) (bool, error) {
	if errors.Is(err, spool.ErrClosed) {
		return false, nil
	}
	return out == spool.Stored, err
}

// Hold implements link.Holder.
func (p linked) Hold() link.Held {
	a := p.now.Load()
	if a == nil {
		return nothingHeld{}
	}
	return held{a.Hold()}
}

// held is a payload that is held.
type held struct{ spool.Held }

func (h held) Put(sbn, esi uint32, symbol []byte) (bool, error) {
	return stored(h.Held.Put(sbn, esi, symbol))
}

// nothingHeld swallows symbols while nothing is being received.
type nothingHeld struct{}

func (nothingHeld) Slot(_, _ uint32) []byte { return nil }

func (nothingHeld) Put(_, _ uint32, _ []byte) (bool, error) { return false, nil }
func (nothingHeld) Release()                                {}

// Flush implements link.Payload. It holds no lock: Put goes on while damage is being repaired.
func (p linked) Flush(ctx context.Context) error {
	a := p.now.Load()
	if a == nil {
		return nil
	}
	if err := a.Flush(ctx); !errors.Is(err, spool.ErrClosed) {
		return err
	}
	return nil
}

// Complete implements link.Payload.
func (p linked) Complete() bool {
	a := p.now.Load()
	return a == nil || a.Complete()
}

// Round implements link.Redone.
func (p linked) Round() int64 { return p.rounds.Load() }

// Refused implements link.Payload.
func (p linked) Refused() bool { return p.now.Load() == nil && p.refused() }

// wholePayload swallows the symbols of a release that is here already.
type wholePayload struct{ refused func() bool }

func (wholePayload) Put(_, _ uint32, _ []byte) (bool, error) { return false, nil }
func (wholePayload) Flush(context.Context) error             { return nil }
func (wholePayload) Complete() bool                          { return true }
func (p wholePayload) Refused() bool                         { return p.refused() }

var (
	_ Assembly     = (*assembly)(nil)
	_ Assembler    = (*Local)(nil)
	_ link.Holder  = linked{}
	_ link.Redone  = linked{}
	_ link.Payload = wholePayload{}
)
