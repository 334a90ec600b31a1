// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

const (
	// tickEvery is how often pauses are looked for and the ledger is shown.
	tickEvery = 50 * time.Millisecond

	// tellEvery is how often Progress is called.
	tellEvery = 250 * time.Millisecond

	// lastFlush is what a stopping receiver gives each of its payloads.
	lastFlush = 30 * time.Second

	// reviveWait is how long a restarted receiver leaves datagrams in the socket
	// while its sink looks at the envelopes that are whole already. The socket
	// holds half a second of 1 Gbit/s.
	reviveWait = 500 * time.Millisecond

	// eventRoom lets every job report without waiting: at most one a release.
	eventRoom = maxHeld
)

// ReceiverConfig configures a Receiver.
type ReceiverConfig struct {
	Conns  []BatchReader // one to MaxLanes sockets, one a lane; Run closes them
	Opener Opener
	Sink   Sink

	// Dir holds the envelope objects while they are assembled, and the
	// announcements as received (sealed to our key), so that a restarted receiver
	// resumes its sessions at once. It belongs to the receiver alone: what it does
	// not know there it removes.
	Dir *os.Root
	// BootID is that of spool.Options: it reads it from the kernel when this is
	// empty, which a process that may open nothing but Dir cannot.
	BootID string

	Logger     *zap.Logger           // may be nil
	Registerer prometheus.Registerer // may be nil
	Progress   func(ReceiveProgress) // may be nil; called from Run, four times a second for each session heard
}

// ErrNotNow is an Opener's: it cannot say now whether an announcement is good.
var ErrNotNow = errors.New("link: announcement not opened now")

// Opener opens announcements: an [AnnouncementOpener], or something that asks the
// process which holds the key. It is called from one goroutine, and until Open
// returns no datagram is handled.
type Opener interface {
	// CheckMAC1 is asked of every announcement, before anything else.
	CheckMAC1(datagram []byte) bool
	// Open is asked of a new session's, at most 64 times a second. An error that is
	// ErrSignature is counted as such; one that is ErrNotNow says nothing about the
	// announcement, which comes again.
	Open(datagram []byte) (Announcement, [32]byte, error)
}

// Receiver receives releases. Everything but the snapshot belongs to the
// goroutine that handles datagrams.
type Receiver struct {
	config   ReceiverConfig
	log      *zap.Logger
	opener   Opener
	table    table
	releases map[releaseKey]*release
	limit    limiter
	scratch  []byte       // the body of the datagram at hand
	lanes    []laneLedger // of each of Conns
	lane     int          // that brought the datagram at hand
	holds    *release     // whose payload is held for the message at hand; nil: none
	held     Held
	total    totals
	hearing  hearing
	broken   error // ends Run

	jobs       sync.WaitGroup
	jobContext context.Context //nolint:containedctx // of Run: cancels what Run started
	events     chan event

	told         time.Time
	dropsAtStart uint64
	snapshot     atomic.Pointer[Status]
}

// totals is the ledger of the link, all sessions that ever were included.
type totals struct {
	received, announcements, authentic, duplicates uint64
	rejected                                       rejections
	lastHeard                                      time.Time
}

// NewReceiver checks the configuration and resumes the sessions kept in Dir.
func NewReceiver(config ReceiverConfig) (*Receiver, error) {
	n := len(config.Conns)
	if n < 1 || n > MaxLanes || slices.Contains(config.Conns, nil) || config.Opener == nil || config.Sink == nil || config.Dir == nil {
		return nil, fmt.Errorf("%w: a receiver needs one to %d connections, an opener, a sink and a directory", ErrConfig, MaxLanes)
	}
	if config.Logger == nil {
		config.Logger = zap.NewNop()
	}
	r := &Receiver{
		config: config, log: config.Logger, opener: config.Opener, releases: make(map[releaseKey]*release),
		scratch: make([]byte, MaxDatagram), events: make(chan event, eventRoom),
		hearing: hearing{started: time.Now(), released: make(map[[32]byte]*AnnouncedRelease)},
		lanes:   newLaneLedgers(config.Conns),
	}
	r.dropsAtStart = r.drops()
	r.publish()
	if err := r.resume(); err != nil {
		return nil, errors.Join(err, r.close())
	}
	r.publish()
	return r, RegisterMetrics(config.Registerer, r.Status)
}

// Run receives until ctx ends or something breaks. When ctx ends it closes the
// connections, handles what it has read, flushes every payload and returns nil. A
// failure of a connection, or an error of storage that is ErrBroken, ends it
// with that error. A Receiver runs once.
func (r *Receiver) Run(ctx context.Context) error {
	jobContext, cancel := context.WithCancel(ctx)
	defer cancel()
	r.jobContext = jobContext
	stop := context.AfterFunc(ctx, func() { _ = r.closeConns() }) // Run closes them again, and looks
	defer stop()

	r.revive()
	g := newRing(len(r.config.Conns))
	g.start(r.config.Conns)
	r.serve(g)

	drops := r.drops()
	err := errors.Join(r.broken, g.err, r.closeConns())
	cancel()
	err = errors.Join(err, r.drain(context.WithoutCancel(ctx)), r.close())
	r.publish()
	final := *r.snapshot.Load()
	final.KernelDrops = max(final.KernelDrops, drops)
	r.snapshot.Store(&final)
	return err
}

// revive asks the sink about the resumed releases whose envelopes are whole, and
// waits a little for the answers: what is read before would be dropped as early.
func (r *Receiver) revive() {
	waiting := 0
	for _, rel := range r.releases {
		if rel.state == ReleaseAssembling && rel.object.Complete() {
			r.startAssembly(rel, time.Now())
			waiting++
		}
	}
	timeout := time.NewTimer(reviveWait)
	defer timeout.Stop()
	for ; waiting > 0; waiting-- {
		select {
		case e := <-r.events:
			r.finished(e, time.Now())
		case <-timeout.C:
			return
		}
	}
}

// serve handles batches until the readers have ended.
func (r *Receiver) serve(g *ring) {
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for {
		select {
		case b, ok := <-g.full:
			if !ok {
				return
			}
			now := time.Now()
			r.lane = b.lane
			for i := range b.bufs[:b.n] {
				r.batch(&b.bufs[i], now)
			}
			g.free <- b
		case e := <-r.events:
			r.finished(e, time.Now())
		case now := <-ticker.C:
			r.tick(now)
		}
		if r.broken != nil {
			_ = r.closeConns() // ends the readers; the rest is dropped by batch
		}
	}
}

// tick does what depends on time.
func (r *Receiver) tick(now time.Time) {
	r.look(now)
	r.publish()
	if r.config.Progress == nil || now.Sub(r.told) < tellEvery {
		return
	}
	r.told = now
	drops := r.snapshot.Load().KernelDrops
	for _, s := range r.table.sessions {
		if s.lastHeard.After(s.told) {
			s.told = s.lastHeard
			r.config.Progress(ReceiveProgress{SessionStatus: s.status(), KernelDrops: drops})
		}
	}
}

// drain waits for the jobs, which were cancelled, and flushes what was stored.
func (r *Receiver) drain(ctx context.Context) error {
	go func() {
		r.jobs.Wait()
		close(r.events)
	}()
	for e := range r.events {
		e.release.busy = false
		if e.flushed && e.err != nil {
			e.release.dirty = true
		}
		if !e.flushed && e.err == nil && e.whole {
			e.release.payload, e.release.state = e.payload, ReleaseAccepted
		}
	}
	if r.broken != nil {
		return nil //nolint:nilerr // nothing more is asked of broken storage: Run returns what broke
	}
	var err error
	for _, rel := range r.releases {
		if rel.payload == nil || !rel.dirty {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, lastFlush)
		err = errors.Join(err, rel.payload.Flush(limited))
		cancel()
	}
	return err
}

// close closes the envelope objects; they stay on disk for the next process.
func (r *Receiver) close() error {
	var err error
	for _, rel := range r.releases {
		if rel.object != nil {
			err = errors.Join(err, rel.object.Close(), rel.root.Close())
			rel.object = nil
		}
	}
	return err
}

// publish shows the ledger to Status, Sessions and the metrics.
func (r *Receiver) publish() {
	h := &r.hearing
	drops := r.drops()
	r.observe(time.Now(), drops)
	st := &Status{
		Received: r.total.received, Announcements: r.total.announcements, Authentic: r.total.authentic,
		Duplicates: r.total.duplicates, Rejected: r.total.rejected.byName(), LastHeard: r.total.lastHeard,
		KernelDrops: drops, DropsAtStart: r.dropsAtStart, Started: h.started, UpSince: h.upSince, Outages: h.outages,
		OutageFrom: h.outage[0], OutageTo: h.outage[1], Releases: h.list(),
		HeardSent: h.sentGone, Lost: h.lostGone, SendFailures: h.failedGone,
	}
	for i := range r.lanes {
		st.Lanes = append(st.Lanes, r.lanes[i].status(r.config.Conns[i]))
	}
	for _, s := range r.table.sessions {
		one := s.status()
		st.Sessions = append(st.Sessions, one)
		st.HeardSent += one.HeardSent()
		st.Lost += one.Lost()
		st.SendFailures += one.Heartbeat.Failed
	}
	r.snapshot.Store(st)
}

// Status returns the ledger of the link as of at most 50 ms ago; after Run has
// returned it is final. It may be called from any goroutine; its slice and maps
// are shared and must not be changed.
func (r *Receiver) Status() Status { return *r.snapshot.Load() }

// Sessions returns the ledgers of the sessions held, as Status does.
func (r *Receiver) Sessions() []SessionStatus { return r.Status().Sessions }
