// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"sluice/internal/link"
	"sluice/internal/link/linktest"
	"sluice/internal/packer"
)

const (
	// envelopeSize is that of a small statement with its content index and approvals.
	envelopeSize = 20_000

	// settleTime is longer than any pause after which the receiver looks, flushes or gives up. It costs nothing: time is virtual.
	settleTime = 3 * time.Second

	// certifiedRate is the configured rate of the trials, bits a second on the wire.
	certifiedRate = 1_000_000_000

	// wireOverhead is what Ethernet, IPv4 and UDP add to a datagram on the wire, gap included: the rate counts it.
	wireOverhead = 66

	// percent10 and percent20 are the repair rows of a pass with 10 % and 20 % repair, as the packer rounds them.
	percent10, percent20 = 20, 39
)

// plan is how a release is cut and sent. Sizes are chosen so that spans are full: 187 or more of the 192 rows of each group.
type plan struct {
	size, groups, rows int
	rate               int64 // of each lane; 0: certifiedRate
	lanes              int   // 0: one
}

// small is two spans of 8 groups, middling one of 16, wide one of 32: as few groups as let the longest bursts of row N2 pass.
func small(rows int) plan    { return plan{size: 4 << 20, groups: 8, rows: rows} }
func middling(rows int) plan { return plan{size: 4 << 20, groups: 16, rows: rows} }
func wide(rows int) plan     { return plan{size: 8 << 20, groups: 32, rows: rows} }

// outage is the bound of the code: so many symbols in a row cost no group more than it has repair rows.
func (p plan) outage() int { return p.rows * p.groups }

// world is one link with its two sides, in one bubble of virtual time.
type world struct {
	plan   plan
	seed   uint64
	random *rand.Rand
	keys   linktest.Keys
	spy    *linktest.Spy
	link   *linktest.Link
	lanes  []*linktest.Link // link, and those beside it
	dir    string
	shelf  *shelf
	roots  []*os.Root

	receiver *link.Receiver
	cancel   context.CancelFunc
	done     chan error
}

// newWorld starts a receiver over a link with faults. The caller closes it.
func newWorld(c *certifier, seed uint64, p plan, faults linktest.Options) (*world, error) {
	if p.rate == 0 {
		p.rate = certifiedRate
	}
	dir, err := os.MkdirTemp(c.scratch, "trial-")
	if err != nil {
		return nil, err
	}
	w := &world{
		plan: p, seed: seed, random: newRandom(seed), keys: linktest.NewKeys(1),
		spy: linktest.NewSpy(), dir: dir,
	}
	faults.Seed = seed
	tap := faults.Tap
	faults.Tap = func(d []byte) {
		w.spy.Tap(d)
		if tap != nil {
			tap(d)
		}
	}
	w.link = linktest.New(faults)
	w.lanes = []*linktest.Link{w.link}
	for len(w.lanes) < p.lanes {
		const stride = 1 << 33 // away from the seeds of trials, and of cargos
		faults.Seed += stride
		w.lanes = append(w.lanes, linktest.New(faults))
	}
	if err := w.start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return w, nil
}

// start starts a receiver on the directories that an earlier one left.
func (w *world) start() error {
	roots := make([]*os.Root, 2)
	for i, name := range []string{"link", "spool"} {
		path := filepath.Join(w.dir, name)
		if err := os.MkdirAll(path, 0o700); err != nil {
			return err
		}
		var err error
		if roots[i], err = os.OpenRoot(path); err != nil {
			return err
		}
		w.roots = append(w.roots, roots[i])
	}
	w.shelf = newShelf(roots[1])
	conns := make([]link.BatchReader, 0, len(w.lanes))
	for _, lane := range w.lanes {
		conns = append(conns, w.spy.Watch(lane.Reader()))
	}
	r, err := link.NewReceiver(link.ReceiverConfig{
		Conns: conns, Opener: linktest.Opener(w.keys.Private, w.keys.Public()),
		Sink: w.shelf, Dir: roots[0],
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.receiver, w.cancel, w.done = r, cancel, make(chan error, 1)
	go func() { w.done <- r.Run(ctx) }()
	return nil
}

// stop lets everything arrive, stops the receiver and holds its ledger against the spy's count.
func (w *world) stop() (link.Status, error) {
	for _, lane := range w.lanes {
		lane.Release()
	}
	wait(settleTime)
	err := w.end()
	st := w.receiver.Status()
	return st, errors.Join(err, w.spy.Check(st))
}

// end ends the receiver, once.
func (w *world) end() error {
	if w.cancel == nil {
		return nil
	}
	w.cancel()
	w.cancel = nil
	return <-w.done
}

// restart ends the receiver as a restart of its process does, and starts the next on the same directories and the same socket.
func (w *world) restart() error {
	if _, err := w.stop(); err != nil {
		return err
	}
	if err := w.shelf.close(); err != nil {
		return err
	}
	w.spy.Restart()
	return w.start()
}

// close ends what still runs and removes what was stored.
func (w *world) close() error {
	err := errors.Join(w.end(), w.shelf.close())
	for _, r := range w.roots {
		err = errors.Join(err, r.Close())
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}

// cargo makes release n of this world.
func (w *world) cargo(n int) linktest.Cargo {
	const stride = 1 << 32 // seeds of trials stay far below
	return linktest.NewCargo(w.seed+uint64(n)*stride, envelopeSize, w.plan.size)
}

// sender makes a sender of the plan over a writer, or over one a lane.
func (w *world) sender(conns ...link.BatchWriter) (*link.Sender, error) {
	lanes := make([]link.Lane, 0, len(conns))
	for _, conn := range conns {
		lanes = append(lanes, link.Lane{Conn: conn, Rate: w.plan.rate})
	}
	return link.NewSender(link.SenderConfig{
		Lanes: lanes, Profile: link.Profile1500, Groups: w.plan.groups, Repair: w.plan.rows,
		LinkKey: w.keys.Link, ReceiverKey: w.keys.Receiver,
	})
}

// send sends pass n of a release, as the packer would send it, and lets it settle.
func (w *world) send(ctx context.Context, cargo linktest.Cargo, n int) (link.SendReport, error) {
	return w.sendOver(ctx, w.link.Writer(), cargo, n)
}

// sendOver is send over a writer of the trial's own.
func (w *world) sendOver(ctx context.Context, conn link.BatchWriter, cargo linktest.Cargo, n int) (link.SendReport, error) {
	return w.sendLanes(ctx, cargo, n, conn)
}

// sendLanes is send over writers of the trial's own, one a lane.
func (w *world) sendLanes(ctx context.Context, cargo linktest.Cargo, n int, conns ...link.BatchWriter) (link.SendReport, error) {
	s, err := w.sender(conns...)
	if err != nil {
		return link.SendReport{}, err
	}
	t := cargo.Transfer()
	t.Pass = n
	p := packer.Passes(nil).Plan(n, w.plan.rows, len(conns))
	t.Source, t.FirstRow, t.Rows, t.Round = p.Source, p.FirstRow, p.Rows, p.Round
	report, err := s.Send(ctx, t)
	wait(settleTime)
	return report, err
}

// whole wants a release to be here, byte for byte.
func (w *world) whole(cargo linktest.Cargo) error {
	missing, err := w.missing(cargo)
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%w: %d symbols are missing, the first is %d", errIncomplete, len(missing), missing[0])
	}
	return err
}

// missing returns the symbols of a release that are not here; everything else must be what was sent.
func (w *world) missing(cargo linktest.Cargo) ([]int64, error) {
	h := w.shelf.get(cargo.Release)
	if h == nil {
		return nil, errAccepted
	}
	return h.inspect(cargo.Payload)
}

// session finds the ledger of a session.
func session(st link.Status, id [8]byte) (link.SessionStatus, error) {
	for _, s := range st.Sessions {
		if s.Session == id {
			return s, nil
		}
	}
	return link.SessionStatus{}, fmt.Errorf("session %x is not among the %d of the ledger", id, len(st.Sessions))
}

// play makes a world, plays in it, and takes it down.
func play(c *certifier, seed uint64, p plan, faults linktest.Options, f func(w *world) (figures, error)) (measured figures, err error) {
	w, err := newWorld(c, seed, p, faults)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.close()) }()
	return f(w)
}

// wait lets virtual time pass.
func wait(d time.Duration) { <-time.After(d) }

// want is an error unless two numbers are equal.
func want[T comparable](what string, got, expected T) error {
	if got == expected {
		return nil
	}
	return fmt.Errorf("%s: %v, want %v", what, got, expected)
}

// newRandom is a stream of choices that depend on a seed, and on nothing that the link draws.
func newRandom(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0xCE27)) }
