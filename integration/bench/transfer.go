// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"sluice/integration/lab"
)

// measured is what one transfer cost. CPU times count from the moment the receiver has accepted the release: keys are unlocked and the
// payload is checked before it is sent, once, and neither is the link's.
type measured struct {
	rate    string
	goodput float64 // payload bits a second, from the last look that saw no payload symbol until the payload is complete and on stable storage

	sender   time.Duration // CPU: reading, encoding, sealing, sending
	receiver time.Duration // CPU: receiving, opening, storing, repairing, syncing
	publish  time.Duration // CPU: SHA-256 of every byte, twice (file and content block), and publication

	senderRSS, receiverRSS int64 // peak of the whole run, bytes

	seal float64 // GB/s that a core sealed just before and just after, on average
}

// scaled is the CPU time of both ends as it would be where the bars were set, if everything differed as sealing does: what a bar in
// seconds can be held against on another machine.
func (m measured) scaled() time.Duration { return time.Duration(float64(m.both()) * m.seal / barSeal) }

// both is the CPU time of both ends.
func (m measured) both() time.Duration { return m.sender + m.receiver }

// ends are the two processes of one transfer.
type ends struct {
	low, high *lab.Daemon
	id        string
}

// transfer sends a sealed release to a fresh receiver at one rate and measures both processes.
func (b *bench) transfer(ctx context.Context, s setup, rate string) (m measured, err error) {
	dir, id, err := b.release(ctx, s)
	if err != nil {
		return m, err
	}
	defer func() {
		err = errors.Join(err, os.RemoveAll(b.Path("high")), os.RemoveAll(b.Path("registry")))
	}()
	flush := func(context.Context, ends) error { return nil }
	if s.beside {
		if flush, err = b.others(); err != nil {
			return m, err
		}
	}
	before := b.sealer.sealing(runtime.NumCPU())
	e, err := b.start(ctx, s, dir, id, rate)
	if err != nil {
		return m, err
	}
	defer func() {
		e.low.Kill()
		err = errors.Join(err, e.high.Stop(time.Minute))
	}()
	m.rate = rate
	flushed := make(chan error, 1)
	fctx, end := context.WithCancel(ctx)
	defer end()
	go func() { flushed <- flush(fctx, e) }()
	err = b.measure(ctx, s, e, &m)
	end() // it has ended, or the transfer failed
	if ferr := <-flushed; err == nil {
		err = ferr
	}
	m.seal = (before + b.sealer.sealing(runtime.NumCPU())) / 2
	return m, err
}

// start starts the receiver, and the sender once that is up.
func (b *bench) start(ctx context.Context, s setup, dir, id, rate string) (e ends, err error) {
	listen, err := b.place.addresses(max(s.lanes, 1))
	if err != nil {
		return e, err
	}
	if err := b.HighConfig(listen, ""); err != nil {
		return e, err
	}
	binary, args := command(b.place.high(), filepath.Join(b.Bin, "diode-receiver"), "run", "--config", b.Path("high.yaml"))
	high, err := b.Start("diode-receiver", nil, nil, binary, args...)
	if err != nil {
		return e, err
	}
	if err := b.WaitUp(ctx, high, "high.sock"); err != nil {
		high.Kill()
		return e, err
	}
	e = ends{high: high, id: id}
	line := append([]string{filepath.Join(b.Bin, "bastion-packer")}, b.SendArgs(dir, listen, rate, 1)...)
	line = append(line, "--mtu", strconv.Itoa(s.mtu), "--gso", s.flag(), "--repair", strconv.Itoa(s.repair))
	binary, args = command(b.place.low(), line...)
	if e.low, err = b.Start("send", nil, nil, binary, args...); err != nil {
		high.Kill()
	}
	return e, err
}

// measure watches a transfer to its publication.
func (b *bench) measure(ctx context.Context, s setup, e ends, m *measured) error {
	err := lab.WaitFor(ctx, 10*time.Minute, "the acceptance", func() (bool, error) {
		r, err := b.Release(ctx, e.id)
		return r != nil, errors.Join(err, e.high.Died(), e.low.Died())
	})
	if err != nil {
		return err
	}
	lowBefore, err1 := cpuOf(e.low.Processes())
	highBefore, err2 := cpuOf(e.high.Processes())
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	high := newWatch(e.high)
	defer high.end() //nolint:errcheck // it was asked before, where it matters
	began, err := b.firstSymbol(ctx, e)
	if err != nil {
		return err
	}
	m.senderRSS = peakUntilEnd(e.low)
	if state := e.low.State(); !state.Success() {
		return fmt.Errorf("send: %s: %s", state, e.low.Tail(4))
	}
	m.sender = e.low.Usage().CPU - lowBefore
	if err := b.complete(ctx, e); err != nil {
		return err
	}
	if err := b.WaitState(ctx, e.high, e.id, "PUBLISHED", time.Hour); err != nil {
		return err
	}
	all, err := high.end()
	if err != nil {
		return err
	}
	received, err := b.receivedAt(ctx, e, began)
	if err != nil {
		return err
	}
	m.goodput = float64(s.size) * 8 / received.Sub(began).Seconds()
	m.receiver = high.at(received) - highBefore
	m.publish = all - highBefore - m.receiver
	m.receiverRSS, err = e.high.PeakRSS()
	return err
}

// peakUntilEnd watches the largest resident set of a process until it ends. What the kernel tells of a process that has ended
// (getrusage) is at least what its parent had in memory when it was started, which is this program.
func peakUntilEnd(d *lab.Daemon) (peak int64) {
	for d.Died() == nil {
		if now, err := d.PeakRSS(); err == nil { // it may end between the two
			peak = max(peak, now)
		}
		<-time.After(100 * time.Millisecond) // a look takes as long as 1 MiB of the link
	}
	return peak
}

// complete waits for the payload to be complete.
func (b *bench) complete(ctx context.Context, e ends) error {
	const patience = 10 * time.Second
	err := lab.WaitFor(ctx, patience, "complete after one pass", func() (bool, error) {
		r, err := b.Release(ctx, e.id)
		return r != nil && r.State != "RECEIVING", errors.Join(err, e.high.Died())
	})
	if err == nil {
		return nil
	}
	if st, serr := b.HighStatus(ctx); serr == nil && len(st.Releases) == 1 {
		r := st.Releases[0]
		err = fmt.Errorf("%w: %d of %d symbols, %d messages dropped by the kernel", err, r.Have, r.Symbols, st.KernelDrops)
	}
	return err
}

// firstSymbol returns when a look last saw nothing of the payload: a little before it began to come.
func (b *bench) firstSymbol(ctx context.Context, e ends) (before time.Time, err error) {
	for {
		now := time.Now()
		r, err := b.Release(ctx, e.id)
		if err = errors.Join(err, e.high.Died(), ctx.Err()); err != nil || r == nil || r.State != "RECEIVING" || r.Have > 0 {
			return before, err
		}
		before = now
		<-time.After(10 * time.Millisecond)
	}
}

// receivedAt takes the end of the reception from the audit trail.
func (b *bench) receivedAt(ctx context.Context, e ends, began time.Time) (time.Time, error) {
	st, err := b.HighStatus(ctx)
	if err != nil {
		return time.Time{}, err
	}
	for _, event := range st.Events {
		if event.Release == e.id && event.Action == "received" && event.Time.After(began) {
			return event.Time, nil
		}
	}
	return time.Time{}, errors.New("the audit trail does not show the reception")
}
