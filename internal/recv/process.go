// SPDX-License-Identifier: Apache-2.0

package recv

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"sluice/internal/link"
	"sluice/internal/spool"
)

// waits are the times that a front is given.
type waits struct {
	setUp    time.Duration // to start
	assemble time.Duration // for what takes the disk's time: to open or to close an assembly; then it hangs, and is killed
	stop     time.Duration // to bring to stable storage what it holds, once it was told to end; then it is killed
	status   time.Duration // to say how it is; what it said last is shown meanwhile
	unheard  time.Duration // before the daemon says that it is not well
}

func defaultWaits() waits {
	return waits{setUp: 30 * time.Second, assemble: 5 * time.Minute, stop: 45 * time.Second, status: 2 * time.Second, unheard: 30 * time.Second}
}

const (
	// statusAge is how old an answer may be that is given again.
	statusAge = 100 * time.Millisecond

	// restartMin and restartMax bound the pause before a front that died is started again. What the link brings meanwhile waits in the
	// sockets, which the daemon holds.
	restartMin = 100 * time.Millisecond
	restartMax = 5 * time.Second
	// steady is how long a front has to live for its death to count as the first.
	steady = time.Minute

	// maxAnnounced is how many opened announcements are remembered: more than the sessions that a front holds.
	maxAnnounced = 8 * link.MaxSessions
)

// SocketsFlag tells a front how many sockets it inherited.
const SocketsFlag = "sockets"

// errNotOpen says that a release is not being assembled.
var errNotOpen = fmt.Errorf("%w: the release is not being assembled", spool.ErrClosed)

// Daemon is what a front may ask.
type Daemon interface {
	// Judge decides about an envelope that has arrived whole, and makes the place for its payload. a was opened here; stream is what
	// the front wrote, and anything may be in it.
	Judge(ctx context.Context, a link.Announcement, stream io.ReaderAt, size int64) (Place, error)
	// Refused tells whether a release was refused.
	Refused(release [32]byte) bool
}

// Options configure a Process.
type Options struct {
	Command    []string // the arguments that make the program at /proc/self/exe a front; --sockets N is added
	Sockets    []*os.File
	Buffer     int // SO_RCVBUF in bytes
	PrivateKey []byte
	LinkKeys   []ed25519.PublicKey
	State      *os.Root // state directory
	StatePath  string   // its path
	Lock       *os.File // held by whoever may write below Incoming; a front inherits it
	BestEffort bool     // accept a kernel without landlock
	Daemon     Daemon
	Logger     *zap.Logger
	Registerer prometheus.Registerer // may be nil

	waits waits // zero: defaultWaits
}

// Process is the front as the daemon sees it: a child process that is started again when it dies.
type Process struct {
	o      Options
	log    *zap.Logger
	public []byte
	bootID string

	opening sync.Mutex // guards opener, and the two below
	opener  *link.AnnouncementOpener
	known   map[[8]byte]link.Announcement
	order   [][8]byte

	lending sync.Mutex // held while directories change hands, and while a front starts; taken before mu

	mu           sync.Mutex
	front        *child // nil: none now
	open         map[[32]byte]*remote
	receiving    bool
	failed       error  // of a front's own storage: ends Run
	restarts     uint64 // deaths
	failedStarts uint64
	trouble      string // why the last front died; empty: none has
	confined     Confinement
	last         link.Status
	heard        time.Time // when the front answered last
	asked        time.Time // when it was asked last
}

// Start starts the first front and has it confined. Run comes next.
func Start(ctx context.Context, o Options) (*Process, error) {
	if o.waits == (waits{}) {
		o.waits = defaultWaits()
	}
	opener, err := link.NewAnnouncementOpener(o.PrivateKey, o.LinkKeys)
	if err != nil {
		return nil, err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("identity of this boot: %w", err)
	}
	p := &Process{
		o: o, log: o.Logger, opener: opener, public: opener.PublicKey(), bootID: strings.TrimSpace(string(boot)),
		known: make(map[[8]byte]link.Announcement), open: make(map[[32]byte]*remote), last: link.Status{Started: time.Now()}, heard: time.Now(),
	}
	if err := link.RegisterMetrics(o.Registerer, p.Status); err != nil {
		return nil, err
	}
	if err := p.register(o.Registerer); err != nil {
		return nil, err
	}
	p.lending.Lock()
	defer p.lending.Unlock()
	return p, p.start(ctx)
}

func (p *Process) register(reg prometheus.Registerer) error {
	if reg == nil {
		return nil
	}
	of := func(name, help string, read func() float64) prometheus.Collector {
		opts := prometheus.Opts{Namespace: "sluice", Subsystem: "recv", Name: name, Help: help}
		if strings.HasSuffix(name, "_total") {
			return prometheus.NewCounterFunc(prometheus.CounterOpts(opts), read)
		}
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts), read)
	}
	return errors.Join(
		reg.Register(of("restarts_total", "Times that the process that faces the link died and was started again.", func() float64 {
			p.mu.Lock()
			defer p.mu.Unlock()
			return float64(p.restarts)
		})),
		reg.Register(of("up", "1 when the process that faces the link runs.", func() float64 {
			if p.Problem() == "" {
				return 1
			}
			return 0
		})))
}

// SetLinkKeys says which keys may announce sessions from now on. Sessions that were opened before go on.
func (p *Process) SetLinkKeys(keys []ed25519.PublicKey) error {
	opener, err := link.NewAnnouncementOpener(p.o.PrivateKey, keys)
	if err != nil {
		return err
	}
	p.opening.Lock()
	defer p.opening.Unlock()
	p.opener = opener
	return nil
}

// Run lets the front receive, and starts it again whenever it dies, until ctx ends; then it has the front bring to stable storage what
// it holds. An error of the front's storage ends Run with it.
func (p *Process) Run(ctx context.Context) error {
	p.mu.Lock()
	p.receiving = true
	front := p.front
	p.mu.Unlock()
	if front == nil {
		return ErrDown
	}
	if err := front.peer.call(ctx, askReceive, nothing{}, nil); errors.Is(err, spool.ErrBroken) {
		return errors.Join(err, p.Close())
	} else if err != nil && ctx.Err() == nil {
		p.log.Error("the process that faces the link does not receive", zap.Error(err))
		front.kill()
	}
	pause := restartMin
	for {
		select {
		case <-ctx.Done():
			return p.Close()
		case <-front.gone:
		}
		if err := p.mourn(front); err != nil {
			return err
		}
		if time.Since(front.began) > steady {
			pause = restartMin
		}
		for front = nil; front == nil; pause = min(2*pause, restartMax) {
			select {
			case <-ctx.Done():
				return p.Close()
			case <-time.After(pause):
			}
			front = p.restart(ctx)
		}
	}
}

// mourn takes note of a front's death. It is an error when the front said before that its storage is broken.
func (p *Process) mourn(front *child) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.front == front {
		p.front = nil
	}
	if p.failed != nil {
		return p.failed
	}
	p.restarts++
	p.trouble = front.how
	p.log.Error("the process that faces the link died; it is started again, and what the link brings meanwhile waits in the socket", zap.String("how", front.how))
	return nil
}

// restart starts a front with all that the last one had, or says why not.
func (p *Process) restart(ctx context.Context) *child {
	p.lending.Lock()
	defer p.lending.Unlock()
	err := p.start(ctx)
	if err == nil {
		err = p.relend(ctx)
	}
	p.mu.Lock()
	front := p.front
	p.mu.Unlock()
	if err == nil {
		err = front.peer.call(ctx, askReceive, nothing{}, nil)
	}
	if err == nil {
		return front
	}
	if front != nil {
		front.kill()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.front, p.trouble = nil, err.Error()
	p.failedStarts++
	p.log.Error("the process that faces the link was not started", zap.Error(err))
	return nil
}

// relend has a new front open what the last one had open.
func (p *Process) relend(ctx context.Context) error {
	p.mu.Lock()
	front, list := p.front, make([]*remote, 0, len(p.open))
	for _, r := range p.open {
		list = append(list, r)
	}
	p.mu.Unlock()
	for _, r := range list {
		if err := r.lend(ctx, front); err != nil {
			return fmt.Errorf("release %x: %w", r.request.Release, err)
		}
	}
	return nil
}

// start starts a front and confines it. The caller holds lending.
func (p *Process) start(ctx context.Context) error {
	command := append(slices.Clone(p.o.Command), "--"+SocketsFlag, strconv.Itoa(len(p.o.Sockets)))
	front, err := spawn(command, append([]*os.File{p.o.Lock}, p.o.Sockets...), map[string]handler{
		askOpen:    on(p.openAnnouncement),
		askJudge:   on(p.judge),
		askRefused: on(p.refused),
		askDone:    on(p.done),
		askFailed:  on(p.frontFailed),
	}, p.o.waits.stop)
	if err != nil {
		return fmt.Errorf("start of the process that faces the link: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, p.o.waits.setUp)
	defer cancel()
	var c Confinement
	err = front.peer.call(ctx, askSetUp, setUp{
		PublicKey: p.public, Incoming: filepath.Join(p.o.StatePath, Incoming), BootID: p.bootID, Buffer: p.o.Buffer, BestEffort: p.o.BestEffort,
	}, &c)
	if err != nil {
		front.kill()
		return fmt.Errorf("set-up of the process that faces the link: %w", err)
	}
	if front.behind != nil {
		p.log.Warn("the process that faces the link has no priority over others, and may lose datagrams while they work: allow it with LimitNICE=-10 and the system call setpriority in the unit", zap.Error(front.behind))
	}
	if c.Landlock == 0 {
		p.log.Warn("the process that faces the link is not confined to its directory: this kernel has no landlock, and link.confine is best-effort")
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.front, p.confined, p.heard = front, c, time.Now()
	p.log.Info("the process that faces the link runs confined", zap.Int("pid", front.pid), zap.Int("landlock_abi", c.Landlock), zap.Bool("seccomp", c.Seccomp))
	return nil
}

// Close has the front end, and waits for it.
func (p *Process) Close() error {
	p.mu.Lock()
	front := p.front
	p.front = nil
	p.mu.Unlock()
	if front == nil {
		return nil
	}
	front.peer.conn.Close()
	select {
	case <-front.gone:
	case <-time.After(p.o.waits.stop):
		front.kill()
		return fmt.Errorf("the process that faces the link did not end within %v and was killed; what it held is received again from its last record", p.o.waits.stop)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == nil && front.err != nil {
		return fmt.Errorf("the process that faces the link: %s", front.how)
	}
	return p.failed
}

// openAnnouncement opens an announcement for the front, which has no key, and remembers what it said.
func (p *Process) openAnnouncement(_ context.Context, in openRequest) (out openAnswer, err error) {
	if n := len(in.Datagram); n < link.HeaderSize+link.TagSize || n > link.MaxDatagram {
		return out, fmt.Errorf("%w: %d bytes are no announcement", errFrame, n)
	}
	p.opening.Lock()
	defer p.opening.Unlock()
	if out.Announcement, out.Key, err = p.opener.Open(in.Datagram); err != nil {
		return out, err
	}
	id := out.Announcement.Session
	if _, ok := p.known[id]; !ok {
		if len(p.order) == maxAnnounced {
			delete(p.known, p.order[0])
			p.order = p.order[1:]
		}
		p.order = append(p.order, id)
	}
	p.known[id] = out.Announcement
	return out, nil
}

// judge gives the envelope object of a session to the daemon. What was announced is what was opened here, whatever the front says.
func (p *Process) judge(ctx context.Context, in judgeRequest) (place Place, err error) {
	p.opening.Lock()
	a, ok := p.known[in.Session]
	p.opening.Unlock()
	if !ok || a.Idle() {
		return place, fmt.Errorf("%w: no session %x was announced", errFrame, in.Session)
	}
	name := Incoming + "/" + linkDir + "/" + link.EnvelopePath(a)
	info, err := p.o.State.Lstat(name)
	if err != nil {
		return place, fmt.Errorf("envelope object: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() != a.EnvelopeSize {
		return place, fmt.Errorf("%w: the envelope object is %s of %d bytes, announced were %d", errFrame, info.Mode().Type(), info.Size(), a.EnvelopeSize)
	}
	f, err := p.o.State.Open(name)
	if err != nil {
		return place, fmt.Errorf("envelope object: %w", err)
	}
	defer f.Close()
	return p.o.Daemon.Judge(ctx, a, f, a.EnvelopeSize)
}

func (p *Process) refused(_ context.Context, in releaseRequest) (bool, error) {
	return p.o.Daemon.Refused(in.Release), nil
}

// done is the front's word that a release is whole and on stable storage. That it is the right one, the verification finds.
func (p *Process) done(_ context.Context, in Place) (out nothing, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.open[in.Release]; r != nil && r.request.Cut == in.Cut {
		r.once.Do(func() { close(r.done) })
	}
	return out, nil
}

// frontFailed is the front's last word.
func (p *Process) frontFailed(_ context.Context, in failedRequest) (out nothing, err error) {
	if in.Error == nil {
		return out, errFrame
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = fmt.Errorf("the process that faces the link: %w", in.Error.err())
	return out, nil // it ends now
}

// current is the front, or nil.
func (p *Process) current() *child {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.front
}

// Problem says why nothing is received now; empty: all is well.
func (p *Process) Problem() string {
	p.look()
	p.mu.Lock()
	defer p.mu.Unlock()
	switch silent := time.Since(p.heard); {
	case p.front == nil && p.trouble != "":
		return "the process that faces the link is down: " + p.trouble
	case p.front == nil:
		return "the process that faces the link is down"
	case silent > p.o.waits.unheard:
		return fmt.Sprintf("the process that faces the link has not answered for %v", silent.Round(time.Second))
	}
	return ""
}

// Status is the ledger of the link as the front kept it within the last 100 ms, or as it was when the front answered last.
func (p *Process) Status() link.Status {
	p.look()
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.last
}

// look asks the front how it is, unless it was asked just now.
func (p *Process) look() {
	p.mu.Lock()
	front, fresh := p.front, time.Since(p.asked) < statusAge
	if front != nil && !fresh {
		p.asked = time.Now()
	}
	p.mu.Unlock()
	if front == nil || fresh {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), p.o.waits.status)
	defer cancel()
	var s frontStatus
	if err := front.peer.call(ctx, askStatus, nothing{}, &s); err != nil {
		p.log.Warn("the process that faces the link does not answer", zap.Error(err))
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.heard = now
	if s.Link != nil {
		p.last = s.Link.Rebase(func(t time.Time) time.Time { return now.Add(-s.Now.Sub(t)) })
	}
	for _, a := range s.Assembly {
		if r := p.open[a.Release]; r != nil {
			r.progress = a.Progress
		}
	}
}

// Assemble implements [Assembler]: the place is made here, and lent to the front. Until it is closed the front alone writes into it.
func (p *Process) Assemble(ctx context.Context, dir string, release [32]byte, sizes []int64, cut Cut) (Assembly, error) {
	root, err := p.o.State.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	defer root.Close()
	obj, err := OpenObject(root, sizes, cut, spool.Options{Logger: p.log, BootID: p.bootID})
	if err != nil {
		return nil, err
	}
	r := &remote{process: p, home: dir, request: assembleRequest{release, cut, sizes}, progress: obj.Progress(), done: make(chan struct{})}
	if err := obj.Close(); err != nil {
		return nil, err
	}
	p.lending.Lock()
	defer p.lending.Unlock()
	if err := p.o.State.Rename(dir, r.lent()); err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	p.mu.Lock()
	p.open[release] = r
	front := p.front
	p.mu.Unlock()
	if front == nil { // the next one gets it
		return r, nil
	}
	if err := r.lend(ctx, front); err != nil && !errors.Is(err, ErrDown) {
		return nil, errors.Join(err, r.takeBack())
	}
	return r, nil
}

// remote is an assembly in the front.
type remote struct {
	process *Process
	home    string // where its directory belongs
	request assembleRequest
	once    sync.Once
	done    chan struct{}

	progress spool.Progress // guarded by process.mu
}

var (
	_ Assembler = (*Process)(nil)
	_ Assembly  = (*remote)(nil)
)

// lent is where its directory is while the front has it.
func (r *remote) lent() string { return Incoming + "/" + hex.EncodeToString(r.request.Release[:]) }

// lend has a front open it. The caller holds lending.
func (r *remote) lend(ctx context.Context, front *child) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.process.o.waits.assemble)
	defer cancel()
	var progress spool.Progress
	if err := front.ask(ctx, askAssemble, r.request, &progress); err != nil {
		return err
	}
	r.process.mu.Lock()
	defer r.process.mu.Unlock()
	r.progress = progress
	return nil
}

// Done implements [Assembly].
func (r *remote) Done() <-chan struct{} { return r.done }

// Err implements [Assembly]. A front whose storage is broken ends, and Run with it.
func (r *remote) Err() error { return nil }

// Progress implements [Assembly].
func (r *remote) Progress() spool.Progress {
	r.process.look()
	r.process.mu.Lock()
	defer r.process.mu.Unlock()
	return r.progress
}

// Shortfall implements [Assembly]. What the front says is missing, is checked against the release before it is believed.
func (r *remote) Shortfall(ctx context.Context, room int) (out Shortfall, err error) {
	front := r.process.current()
	if front == nil {
		return out, ErrDown
	}
	ctx, cancel := context.WithTimeout(ctx, 2*repairTime)
	defer cancel()
	if err := front.peer.call(ctx, askShortfall, shortfallRequest{r.request.Release, room}, &out); err != nil {
		return out, err
	}
	g, err := r.request.Cut.of(r.request.Sizes)
	if err != nil {
		return out, err
	}
	if out.Lost < 0 || out.Damaged < 0 || out.Fresh < 0 {
		return out, fmt.Errorf("%w: a shortfall below zero", errFrame)
	}
	return out, out.Need.Check(g)
}

// Close implements [Assembly]: the directory comes home.
func (r *remote) Close() error {
	p := r.process
	p.lending.Lock()
	defer p.lending.Unlock()
	return r.takeBack()
}

// takeBack has the front close it, and brings it home. The caller holds lending.
func (r *remote) takeBack() error {
	p := r.process
	p.mu.Lock()
	mine := p.open[r.request.Release] == r
	if mine {
		delete(p.open, r.request.Release)
	}
	front := p.front
	p.mu.Unlock()
	if !mine {
		return nil
	}
	var err error
	if front != nil {
		ctx, cancel := context.WithTimeout(context.Background(), p.o.waits.assemble)
		defer cancel()
		if err = front.ask(ctx, askRelease, releaseRequest{r.request.Release}, nil); errors.Is(err, ErrDown) {
			err = nil // it closed nothing, and holds nothing
		}
	}
	return errors.Join(err, bringHome(p.o.State, r.lent(), r.home), p.alone(r.home))
}

// alone makes sure that nothing writes to the files of a directory that came home. A front that still could is killed: what was
// verified must stay what it is.
func (p *Process) alone(dir string) error {
	err := nobodyWrites(p.o.State, dir)
	if !errors.Is(err, errWriter) {
		return err
	}
	if front := p.current(); front != nil {
		p.log.Error("the process that faces the link still had files open that it gave back; it is killed", zap.Error(err))
		front.kill()
	}
	err = nobodyWrites(p.o.State, dir)
	if errors.Is(err, errNoLease) {
		return nil // the only process that could have, is gone
	}
	return err
}
