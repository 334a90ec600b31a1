// SPDX-License-Identifier: Apache-2.0

package recv

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"go.uber.org/zap"

	"sluice/internal/link"
)

const (
	// openWait bounds the answer to an announcement: until it is there no datagram is handled.
	openWait = 5 * time.Second
	// askWait bounds small questions to the daemon.
	askWait = 30 * time.Second
	// lookEvery is how often the front looks whether an assembly broke behind the link's back.
	lookEvery = time.Second
)

// linkDir is where the link keeps announcements and envelope objects, below the front's directory.
const linkDir = "link"

// Front is the process that faces the link. It holds the sockets, a directory, and a connection to the daemon, and the kernel lets it
// have nothing else.
type Front struct {
	log     *zap.Logger
	sockets []*os.File
	peer    *peer

	mu    sync.Mutex
	dir   *os.Root
	local *Local
	conns []link.BatchReader
	mac   *link.MAC1
	open  map[[32]byte]*assembly
	link  *link.Receiver
	begun chan *link.Receiver // has room for the one
}

// ServeFront is the whole life of that process: until the daemon closes control, or something breaks. The sockets are the front's from
// now on.
func ServeFront(ctx context.Context, control net.Conn, sockets []*os.File, log *zap.Logger) error {
	return newFront(control, sockets, log).serve(ctx)
}

func newFront(control net.Conn, sockets []*os.File, log *zap.Logger) *Front {
	f := &Front{log: log, sockets: sockets, open: make(map[[32]byte]*assembly), begun: make(chan *link.Receiver, 1)}
	f.peer = newPeer(control, maxFromDaemon, map[string]handler{
		askSetUp:     on(f.setUp),
		askReceive:   on(f.receive),
		askAssemble:  on(f.assemble),
		askRelease:   on(f.release),
		askShortfall: on(f.shortfall),
		askStatus:    on(f.status),
	})
	return f
}

func (f *Front) serve(ctx context.Context) error {
	work, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		ended <- f.peer.run(context.WithoutCancel(ctx))
		stop() // nobody is left to receive for
	}()
	err := f.watch(work)
	if err != nil {
		f.tell(err)
	}
	stop()
	err = errors.Join(err, f.close())
	if cerr := f.peer.conn.Close(); !errors.Is(cerr, net.ErrClosed) { // it may be closed already: by a write that failed
		err = errors.Join(err, cerr)
	}
	return errors.Join(err, <-ended)
}

// on adapts a method to a handler with its request decoded.
func on[In, Out any](method func(context.Context, In) (Out, error)) handler {
	return func(ctx context.Context, body json.RawMessage) (any, error) {
		var in In
		if err := json.Unmarshal(body, &in); err != nil {
			return nil, fmt.Errorf("%w: %w", errFrame, err)
		}
		return method(ctx, in)
	}
}

// nothing is an empty request or answer.
type nothing struct{}

// setUp prepares the sockets and gives everything else away.
func (f *Front) setUp(_ context.Context, in setUp) (c Confinement, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dir != nil {
		return c, fmt.Errorf("%w: set up twice", errFrame)
	}
	for _, s := range f.sockets {
		conn, err := link.FromFile(s, link.SocketOptions{Buffer: in.Buffer, Logger: f.log})
		if err != nil {
			return c, err
		}
		f.conns = append(f.conns, conn)
	}
	if f.dir, err = os.OpenRoot(in.Incoming); err != nil {
		return c, fmt.Errorf("spool: %w", err)
	}
	f.local = NewLocal(f.dir, f.log)
	f.local.bootID = in.BootID
	f.mac = link.NewMAC1(in.PublicKey)
	return Confine(in.Incoming, in.BestEffort)
}

// receive begins to read the sockets.
func (f *Front) receive(ctx context.Context, _ nothing) (out nothing, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dir == nil || f.link != nil {
		return out, fmt.Errorf("%w: receive before set up, or twice", errFrame)
	}
	dir, err := f.dir.OpenRoot(linkDir)
	if err != nil {
		return out, fmt.Errorf("spool: %w", err)
	}
	lr, err := link.NewReceiver(link.ReceiverConfig{Conns: f.conns, Opener: f, Sink: f, Dir: dir, BootID: f.local.bootID, Logger: f.log})
	if err != nil {
		return out, errors.Join(err, dir.Close())
	}
	f.link = lr
	f.begun <- lr
	return out, nil
}

// watch receives once the daemon said so, until ctx ends or something breaks.
func (f *Front) watch(ctx context.Context) error {
	var lr *link.Receiver
	select {
	case <-ctx.Done():
		return nil
	case lr = <-f.begun:
	}
	work, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- lr.Run(work) }()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			return err
		case <-tick.C:
		}
		if err := f.broken(); err != nil {
			stop()
			return errors.Join(err, <-ended)
		}
	}
}

// CheckMAC1 implements [link.Opener].
func (f *Front) CheckMAC1(datagram []byte) bool { return f.mac.Valid(datagram) }

// Open implements [link.Opener]: the key that opens announcements is the daemon's.
func (f *Front) Open(datagram []byte) (link.Announcement, [32]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), openWait)
	defer cancel()
	var out openAnswer
	err := f.peer.call(ctx, askOpen, openRequest{datagram}, &out)
	if errors.Is(err, ErrDown) || errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: %w", link.ErrNotNow, err)
	}
	return out.Announcement, out.Key, err
}

// Envelope implements [link.Sink]: the daemon judges.
func (f *Front) Envelope(ctx context.Context, a link.Announcement, _ io.ReaderAt, _ int64) (link.Payload, error) {
	var place Place
	if err := f.peer.call(ctx, askJudge, judgeRequest{a.Session}, &place); err != nil {
		return nil, err
	}
	return f.local.Payload(place, func() bool { return f.refused(place.Release) }), nil
}

func (f *Front) refused(release [32]byte) (yes bool) {
	ctx, cancel := context.WithTimeout(context.Background(), openWait)
	defer cancel()
	if err := f.peer.call(ctx, askRefused, releaseRequest{release}, &yes); err != nil {
		f.log.Warn("the daemon does not say whether a release was refused", zap.Error(err))
	}
	return yes
}

// assemble opens the assembly of a release in the directory that the daemon lent.
func (f *Front) assemble(ctx context.Context, in assembleRequest) (any, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.local == nil || f.open[in.Release] != nil {
		return nil, fmt.Errorf("%w: assemble before set up, or twice", errFrame)
	}
	a, err := f.local.open(hex.EncodeToString(in.Release[:]), in.Release, in.Sizes, in.Cut)
	if err != nil {
		return nil, err
	}
	f.open[in.Release] = a
	go f.await(context.WithoutCancel(ctx), a, Place{Release: in.Release, Cut: in.Cut})
	return a.Progress(), nil
}

// await tells the daemon once an assembly is whole. One that is closed before keeps its goroutine until then, and no longer.
func (f *Front) await(ctx context.Context, a *assembly, place Place) {
	select {
	case <-a.gone:
		return
	case <-a.Done():
	}
	ctx, cancel := context.WithTimeout(ctx, askWait)
	defer cancel()
	if err := f.peer.call(ctx, askDone, place, nil); err != nil {
		f.log.Warn("the daemon does not take note of a release that is whole", zap.Error(err))
	}
}

// release closes an assembly: its directory goes back to the daemon.
func (f *Front) release(_ context.Context, in releaseRequest) (out nothing, err error) {
	f.mu.Lock()
	a := f.open[in.Release]
	delete(f.open, in.Release)
	f.mu.Unlock()
	if a == nil {
		return out, nil
	}
	return out, a.Close()
}

func (f *Front) shortfall(ctx context.Context, in shortfallRequest) (Shortfall, error) {
	f.mu.Lock()
	a := f.open[in.Release]
	f.mu.Unlock()
	if a == nil {
		return Shortfall{}, errNotOpen
	}
	return a.Shortfall(ctx, in.Room)
}

func (f *Front) status(context.Context, nothing) (frontStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := frontStatus{Now: time.Now()}
	for id, a := range f.open {
		s.Assembly = append(s.Assembly, assemblyStatus{id, a.Progress()})
	}
	if f.link != nil {
		st := f.link.Status().Rebase(func(t time.Time) time.Time { return s.Now.Round(0).Add(-s.Now.Sub(t)) })
		s.Link = &st
	}
	return s, nil
}

// broken is the first assembly's error.
func (f *Front) broken() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.open {
		if err := a.Err(); err != nil {
			return err
		}
	}
	return nil
}

// tell says to the daemon why the front ends.
func (f *Front) tell(err error) {
	ctx, cancel := context.WithTimeout(context.Background(), askWait)
	defer cancel()
	if err := f.peer.call(ctx, askFailed, failedRequest{toWire(err)}, nil); err != nil {
		f.log.Warn("the daemon was not told", zap.Error(err))
	}
}

// close ends the assemblies; what is in them is brought to stable storage.
func (f *Front) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for id, a := range f.open {
		errs = append(errs, a.Close())
		delete(f.open, id)
	}
	for _, c := range f.conns {
		errs = append(errs, c.Close())
	}
	if f.dir != nil {
		errs = append(errs, f.dir.Close())
	}
	return errors.Join(errs...)
}
