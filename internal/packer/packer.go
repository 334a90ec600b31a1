// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"sluice/internal/audit"
	"sluice/internal/dropbox"
	"sluice/internal/hub"
	"sluice/internal/journal"
	"sluice/internal/link"
	"sluice/internal/site"
	"sluice/internal/token"
	"sluice/internal/trust"
	"sluice/pkg/mofn"
)

// Options are what Open takes beside the configuration.
type Options struct {
	Logger     *zap.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time                           // nil: time.Now
	Progress   func(stage, job string, done, total int64) // nil: none
	// Version is the build of a daemon, whose start and stop are events of the log then; "" for a verb.
	Version string
}

// SenderOptions are what a sender takes beside the configuration.
type SenderOptions struct {
	Logger   *zap.Logger
	Progress func(link.SendProgress)
}

// Packer is the low side's state machine. One process at a time may hold it.
type Packer struct {
	cfg     Config
	log     *zap.Logger
	now     func() time.Time
	report  func(stage, job string, done, total int64)
	site    *site.Site
	signer  token.Signer
	beats   mofn.Signer // signs snapshots; nil: no bulletins are made
	linkKey *mofn.SecretKey
	journal *journal.Journal
	hub     *hub.Client
	box     dropbox.Box
	conns   Conns
	metrics *metrics
	audit   *audit.Log // of a daemon
	teller  *audit.Teller
	logged  bool // the log says that it started

	air     air
	onAir   onAir
	started time.Time
	wakeup  chan struct{}
	rewatch chan struct{}
	news    chan struct{}        // a bulletin is due now
	polled  map[string]time.Time // watch stream -> last look upstream

	mu      sync.Mutex
	running map[string]Running // job id -> the stage that runs
	flight  flight             // the release that is on the air
	said    []string           // what of the drop-box was not taken, in words, for status.txt
}

// Open loads keys and trust, opens the journal and the sockets. The caller closes it.
func Open(ctx context.Context, cfg Config, opt Options) (_ *Packer, err error) {
	p := &Packer{
		cfg: cfg, log: opt.Logger, now: opt.Now, report: opt.Progress, box: dropbox.Box{Dir: cfg.DropBox},
		started: time.Now(), wakeup: make(chan struct{}, 1), rewatch: make(chan struct{}, 1), news: make(chan struct{}, 1), polled: map[string]time.Time{},
	}
	if p.now == nil {
		p.now = time.Now
	}
	if p.report == nil {
		p.report = func(string, string, int64, int64) {}
	}
	p.running = make(map[string]Running)
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	if err := p.loadKeys(); err != nil {
		return nil, err
	}
	if p.metrics, err = newMetrics(opt.Registerer); err != nil {
		return nil, err
	}
	now := func() LinkStatus { return p.onAir.status(time.Now(), p.started, cfg.Link.TotalRate(), nil) }
	if err := registerLink(opt.Registerer, now, p.onAir.failures); err != nil {
		return nil, err
	}
	if p.hub, err = NewHub(cfg.Hub, opt.Logger); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(cfg.State, "work"), 0o700); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if p.journal, err = journal.Open(filepath.Join(cfg.State, "journal.db"), journal.Options{States: transitions(), Now: p.now}); err != nil {
		return nil, err
	}
	if p.site, err = cfg.sitePlace().Open(p.now()); err != nil {
		return nil, err
	}
	if p.teller, err = audit.NewTeller(p.journal, actor); err != nil {
		return nil, err
	}
	if err := p.tell(); err != nil { // what a crash left untold
		return nil, err
	}
	if err := site.Register(opt.Registerer, func() site.Status { return p.site.Describe(p.now()) }); err != nil {
		return nil, err
	}
	if p.conns, err = Dial(ctx, cfg.Link, opt.Logger); err != nil || opt.Version == "" {
		return p, err
	}
	if p.audit, err = openLog(cfg, p.journal); err != nil {
		return nil, err
	}
	p.logged = true
	return p, p.journal.Append(p.startEvent(opt.Version))
}

// loadKeys opens the keys. The packer's may be in a token: the file of the passphrase holds its PIN then, unless the token's URI names another.
func (p *Packer) loadKeys() (err error) {
	if p.signer, err = token.OpenSigner(p.cfg.Keys.Packer, token.Secret{File: p.cfg.Keys.PassphraseFile}); err != nil {
		return fmt.Errorf("keys.packer: %w", err)
	}
	pass, err := trust.ReadPassphrase(p.cfg.Keys.PassphraseFile)
	if err != nil {
		return err
	}
	if p.beats, err = heartbeatKey(p.cfg, pass); err != nil {
		return err
	}
	p.linkKey, err = trust.OpenKey(p.cfg.Keys.Link, pass)
	return err
}

// closeKeys logs out of a token.
func (p *Packer) closeKeys() error {
	if p.signer == nil {
		return nil
	}
	return p.signer.Close()
}

// Close closes the sockets, the journal and the packer's key.
func (p *Packer) Close() error {
	var errs []error
	errs = append(errs, p.conns.Close())
	if p.logged {
		if err := p.journal.Append(journal.Event{Actor: actor, Action: audit.ActionStop}); err != nil && !errors.Is(err, journal.ErrSync) {
			errs = append(errs, err)
		}
	}
	if p.journal != nil {
		errs = append(errs, p.journal.Close())
	}
	if p.site != nil {
		errs = append(errs, p.site.Close())
	}
	return errors.Join(append(errs, p.closeKeys())...)
}

// NewHub makes the upstream client of the configuration.
func NewHub(cfg Hub, log *zap.Logger) (*hub.Client, error) {
	token := ""
	if cfg.TokenFile != "" {
		b, err := os.ReadFile(cfg.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("hub.token_file: %w", err)
		}
		token = strings.TrimSpace(string(b))
	}
	return hub.New(hub.Config{Endpoint: cfg.Endpoint, Token: token, Workers: cfg.Workers, MaxWait: time.Duration(cfg.MaxWait), Logger: log})
}

func (l Link) settle() time.Duration { return time.Duration(l.Settle) }

func (p *Packer) workDir(job journal.Job) string { return filepath.Join(p.cfg.State, "work", job.ID) }

// progress keeps how far a stage has come for status, and hands it on.
func (p *Packer) progress(stage string, job journal.Job) Progress {
	return func(done, total int64) {
		p.mu.Lock()
		p.running[job.ID] = Running{Stage: stage, Done: done, Total: total}
		p.mu.Unlock()
		p.report(stage, job.ID, done, total)
	}
}

func (p *Packer) sender(progress Progress) (*link.Sender, error) {
	return NewSender(p.cfg.Link, p.store(), p.conns, p.linkKey, SenderOptions{
		Logger: p.log,
		Progress: func(s link.SendProgress) {
			p.onAir.tell(s)
			progress(int64(s.Source+s.Repair), int64(s.SourceTotal+s.RepairTotal))
		},
	})
}

// actor is what the low side calls itself in its log.
const actor = "bastion-packer"

// maxDetail caps the words of an event: a refusal may list a finding a file.
const maxDetail = 4 << 10

// clip shortens a text to maxDetail bytes of whole characters.
func clip(s string) string {
	if len(s) <= maxDetail {
		return s
	}
	return strings.ToValidUTF8(s[:maxDetail], "") + " ..."
}

func (p *Packer) newEvent(action string, job journal.Job, detail string) journal.Event {
	return journal.Event{Actor: actor, Action: action, Job: job.ID, Release: job.Release, Detail: clip(detail)}
}

// wake makes the loop look now.
func (p *Packer) wake() {
	for _, c := range []chan struct{}{p.wakeup, p.rewatch} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
