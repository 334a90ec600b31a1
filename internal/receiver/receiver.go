// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"sluice/internal/audit"
	"sluice/internal/journal"
	"sluice/internal/link"
	"sluice/internal/recv"
	"sluice/internal/site"
	"sluice/pkg/envelope"
)

// Options are what Open takes beside the configuration.
type Options struct {
	Logger     *zap.Logger // nil: silent
	Registerer prometheus.Registerer
	Now        func() time.Time                               // nil: time.Now
	Progress   func(stage, release string, done, total int64) // nil: none
	// Version is the build of a daemon, whose start and stop are events of the log then; "" for a verb.
	Version string
	// AcceptRestored takes a state that is behind the second place; see `trust accept-restored`.
	AcceptRestored bool
}

// Receiver is the slow half of the high side: journal, spool, trust and registry. One process at a time may hold it.
type Receiver struct {
	cfg      Config
	log      *zap.Logger
	now      func() time.Time
	wall     func() time.Time                               // now with a reading of the monotonic clock
	report   func(stage, release string, done, total int64) // nil: nobody wants to know
	site     *site.Site
	journal  *journal.Journal
	registry Target
	state    *os.Root
	spool    *os.Root
	lock     *os.File // of the directory of what faces the link
	local    *recv.Local
	metrics  *metrics
	audit    *audit.Log // of a daemon
	started  bool       // the log says so

	wakeup   chan struct{}
	watchers sync.WaitGroup

	reorder   atomic.Bool // orders or the trust object in effect changed, and were not applied yet
	remembers bool        // the second place agreed, and is kept up
	second    second      // what it was told last

	stage sync.Mutex // held while a stage runs, and while a release is refused from outside; taken before mu

	// known is held while what is known of trust changes and until the log says so, and while something is decided by it and written
	// down: so the log shows each decision after all that it rests on, and before all that came too late for it. Taken last.
	known  sync.Mutex
	teller *audit.Teller

	ticketing sync.Mutex // held while a ticket is made; taken before mu

	mu        sync.Mutex // guards what follows, and a job's way into and out of RECEIVING
	open      map[envelope.Digest]*reception
	failed    error
	assembler recv.Assembler // local, or the front
	front     Front          // nil: nothing faces the link
}

// Front is what faces the link, seen from here.
type Front interface {
	recv.Assembler
	// Run receives until ctx ends, and then brings to stable storage what it holds.
	Run(ctx context.Context) error
	// Status is the ledger of the link.
	Status() link.Status
	// Problem says why nothing is received now; empty: all is well.
	Problem() string
	// SetLinkKeys says which keys may announce sessions from now on.
	SetLinkKeys(keys []ed25519.PublicKey) error
}

// Open loads the trust object, opens journal, spool and registry, and puts right what a crash left. The caller closes it.
func Open(ctx context.Context, cfg Config, opt Options) (_ *Receiver, err error) {
	r := &Receiver{
		cfg: cfg, log: opt.Logger, report: opt.Progress, wakeup: make(chan struct{}, 1),
		open: make(map[envelope.Digest]*reception),
	}
	if r.log == nil {
		r.log = zap.NewNop()
	}
	clock := opt.Now
	if clock == nil {
		clock = time.Now
	}
	r.now = func() time.Time { return clock().UTC() }
	r.wall = clock
	r.reorder.Store(true)
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if r.metrics, err = newMetrics(opt.Registerer); err != nil {
		return nil, err
	}
	if err := r.openState(ctx, opt.AcceptRestored); err != nil {
		return nil, err
	}
	if err := site.Register(opt.Registerer, func() site.Status { return r.site.Describe(r.wall()) }); err != nil {
		return nil, err
	}
	if err := registerAwaited(opt.Registerer, r.LinkReport); err != nil {
		return nil, err
	}
	if r.registry, err = OpenRegistry(cfg); err != nil {
		return nil, err
	}
	if err := r.registry.Reconcile(ctx); err != nil {
		return nil, err
	}
	if opt.Version == "" {
		return r, nil
	}
	if r.audit, err = openLog(cfg, r.journal); err != nil {
		return nil, err
	}
	r.started = true
	return r, r.journal.Append(r.startEvent(opt.Version))
}

func (r *Receiver) openState(ctx context.Context, restored bool) (err error) {
	if err := os.MkdirAll(r.cfg.State, 0o700); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if r.state, err = os.OpenRoot(r.cfg.State); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	if err := r.state.MkdirAll(spoolDir, 0o700); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	if r.spool, err = r.state.OpenRoot(spoolDir); err != nil {
		return fmt.Errorf("spool: %w", err)
	}
	r.local = recv.NewLocal(r.state, r.log)
	r.assembler = r.local
	if r.journal, err = journal.Open(r.cfg.State+"/journal.db", journal.Options{States: transitions(), Now: r.now}); err != nil {
		return err
	}
	if r.site, err = r.cfg.sitePlace().Open(r.wall()); err != nil {
		return err
	}
	look := r.checkSecondPlace
	if restored {
		look = r.acceptRestored
	}
	if err := look(); err != nil {
		return err
	}
	if r.teller, err = audit.NewTeller(r.journal, r.actor()); err != nil {
		return err
	}
	if err := r.tell(""); err != nil { // what a crash left untold
		return err
	}
	if r.lock, err = recv.Lock(ctx, r.state); err != nil {
		return err
	}
	return recv.BringAllHome(r.state, payloadHome, r.log)
}

// Close closes everything in the order opposite to Open. Receptions that are under way are kept for the next process.
func (r *Receiver) Close() error {
	errs := []error{r.closeReceptions()}
	if r.started {
		if err := r.journal.Append(journal.Event{Actor: r.actor(), Action: audit.ActionStop}); err != nil && !errors.Is(err, journal.ErrSync) {
			errs = append(errs, err)
		}
	}
	if r.registry != nil {
		errs = append(errs, r.registry.Close())
	}
	if r.journal != nil && r.site != nil && r.remembers {
		errs = append(errs, r.remember())
	}
	if r.site != nil {
		errs = append(errs, r.site.Close())
	}
	if r.journal != nil {
		errs = append(errs, r.journal.Close())
	}
	if r.lock != nil {
		errs = append(errs, r.lock.Close())
	}
	if r.spool != nil {
		errs = append(errs, r.spool.Close())
	}
	if r.state != nil {
		errs = append(errs, r.state.Close())
	}
	return errors.Join(errs...)
}

// wake makes the loop look at the journal now.
func (r *Receiver) wake() {
	select {
	case r.wakeup <- struct{}{}:
	default:
	}
}

func (r *Receiver) progress(stage string, job journal.Job) func(done, total int64) {
	return func(done, total int64) {
		if r.report != nil {
			r.report(stage, job.Release, done, total)
		}
	}
}

func (r *Receiver) actor() string { return "diode-receiver " + r.cfg.Receiver }

func (r *Receiver) newEvent(action, release, detail string) journal.Event {
	return journal.Event{Actor: r.actor(), Action: action, Job: release, Release: release, Detail: clip(detail)}
}

// maxReason caps the words of a refusal in the journal, whose events and jobs have caps of their own: an envelope that nobody
// signed may bring 4,096 names of receivers.
const maxReason = 4 << 10

// clip shortens a text to maxReason bytes of whole characters.
func clip(s string) string {
	if len(s) <= maxReason {
		return s
	}
	return strings.ToValidUTF8(s[:maxReason], "") + " ..."
}

func (r *Receiver) event(action, release, detail string) error {
	return r.journal.Append(r.newEvent(action, release, detail))
}
