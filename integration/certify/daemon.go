// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sluice/integration/lab"
	"sluice/internal/link"
)

// daemonCalls are struck while the daemon receives: those of killCalls, and the one that takes datagrams.
func daemonCalls() map[string][]string {
	calls := map[string][]string{"recvmmsg": {"KILL"}}
	for _, call := range killCalls() {
		if call != "write" && !mapped(call) { // log and timers; the maps are made anew only by a restart
			calls[call] = []string{"KILL"}
		}
	}
	return calls
}

// daemonRate makes a pass of the small payload take a tenth of a second.
const daemonRate = "100Mbit"

func daemonRow() row {
	return row{
		name: "S4d", trials: 60, disks: true, play: playDaemon, judge: mostlyStruck,
		report: []column{
			{"struck", "daemons killed", total}, {"missed", "finished before their point came", total}, {"passes", "passes of the sender on average", mean},
		},
		promise: "the daemon killed while it receives over an inherited socket: the next one on the same socket goes on, at most one pass more brings the release, and no byte that was believed was not there",
	}
}

// post is a daemon's place, with the socket that outlives it.
type post struct {
	*bed
	site   lab.Site
	socket *os.File
	send   func(context.Context) (link.SendReport, error)
	passes float64
}

func (p *bed) post() (_ *post, err error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }() // the file is a duplicate
	t := &post{bed: p, site: lab.Site{Bin: p.Bin, Dir: p.dir, Fingerprint: p.Fingerprint}}
	if err := errors.Join(p.listen(conn.LocalAddr().String()), conn.SetReadBuffer(32<<20)); err != nil {
		return nil, err
	}
	if t.socket, err = conn.File(); err != nil {
		return nil, err
	}
	t.send, err = p.Unchecked(p.specimen.dir, conn.LocalAddr().String(), daemonRate)
	return t, err
}

func (t *post) start(ctx context.Context) (*lab.Daemon, error) {
	d, err := t.site.StartActivated("high.yaml", t.socket)
	if err != nil {
		return nil, err
	}
	return d, t.site.WaitUp(ctx, d, "high.sock")
}

func (t *post) pass(ctx context.Context) error {
	t.passes++
	_, err := t.send(ctx)
	return err
}

// attach attaches strace to every thread of a daemon, and returns when it is there.
func (t *post) attach(ctx context.Context, d *lab.Daemon, options ...string) (*running, error) {
	argv := append([]string{"strace", "-f", "-y", "-qq", "-o", t.log(), "-p", fmt.Sprint(d.PID())}, options...)
	r, err := program{argv: argv}.start()
	if err != nil {
		return nil, err
	}
	return r, lab.WaitFor(ctx, pathology, "strace", func() (bool, error) {
		status, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", d.PID()))
		for _, name := range status {
			b, err := os.ReadFile(name)
			if err != nil || strings.Contains(string(b), "TracerPid:\t0\n") {
				return false, nil //nolint:nilerr // a thread that ended meanwhile
			}
		}
		return len(status) > 0, err
	})
}

// done waits until the release is published, or the daemon is dead.
func (t *post) done(ctx context.Context, d *lab.Daemon, limit time.Duration) (published, dead bool) {
	err := lab.WaitFor(ctx, limit, "the end", func() (bool, error) {
		if dead = d.Died() != nil; dead {
			return true, nil
		}
		r, err := t.site.Release(ctx, t.id())
		published = err == nil && r != nil && r.State == "PUBLISHED"
		return published, nil
	})
	return err == nil && published, dead
}

// received ends with the release published by this daemon, in one pass if the socket kept it, else in one more.
func (t *post) received(ctx context.Context, d *lab.Daemon) error {
	const soon = 1500 * time.Millisecond // a daemon that has everything needs less; one that has not waits for ever
	for range 2 {
		if published, dead := t.done(ctx, d, soon); published || dead {
			return d.Died()
		}
		if err := t.pass(ctx); err != nil {
			return err
		}
	}
	return t.site.WaitState(ctx, d, t.id(), "PUBLISHED", pathology)
}

// daemonPoints counts the calls of an undisturbed reception.
func (w *ward) daemonPoints(ctx context.Context) ([]point, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	const key = "daemon"
	if w.points[key] != nil {
		return w.points[key], nil
	}
	if _, err := exec.LookPath("strace"); err != nil {
		return nil, fmt.Errorf("%w: %w (apt-get install strace)", errSkip, err)
	}
	p, err := w.bed(w.plain, "")
	if err != nil {
		return nil, err
	}
	defer func() { _ = p.gone() }()
	most, err := p.watched(ctx)
	if err != nil {
		return nil, err
	}
	for call := range daemonCalls() {
		for n := range most[call] {
			w.points[key] = append(w.points[key], point{call, "KILL", n + 1})
		}
	}
	return w.points[key], nil
}

// watched receives once and counts.
func (p *bed) watched(ctx context.Context) (most map[string]int, err error) {
	t, err := p.post()
	if err != nil {
		return nil, err
	}
	defer t.socket.Close()
	d, err := t.start(ctx)
	if err != nil {
		return nil, err
	}
	defer d.Kill()
	tracer, err := t.attach(ctx, d)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(t.pass(ctx), t.received(ctx, d)); err != nil {
		return nil, err
	}
	d.Kill()
	if _, err := tracer.wait(); err != nil {
		return nil, err
	}
	most = make(map[string]int)
	return most, countCalls(p.log(), most)
}

func playDaemon(ctx context.Context, c *certifier, seed uint64) (f figures, err error) {
	w, err := c.ward(ctx)
	if err != nil {
		return nil, err
	}
	if err := w.cheapen(); err != nil {
		return nil, err
	}
	var at point
	if c.at != "" {
		at, err = parsePoint(c.at)
	} else {
		var all []point
		if all, err = w.daemonPoints(ctx); err == nil {
			at = pick(all, seed)
		}
	}
	if err != nil {
		return nil, err
	}
	p, err := w.bed(w.plain, "")
	if err != nil {
		return nil, err
	}
	t, err := p.post()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(atPoint(at, err), t.socket.Close(), p.gone()) }()
	return t.killedAt(ctx, at)
}

func (t *post) killedAt(ctx context.Context, at point) (f figures, err error) {
	d, err := t.start(ctx)
	if err != nil {
		return nil, err
	}
	tracer, err := t.attach(ctx, d, t.strikes(at)...)
	if err != nil {
		return nil, errors.Join(err, d.Stop(pathology))
	}
	if err := t.pass(ctx); err != nil {
		return nil, err
	}
	_, dead := t.done(ctx, d, pathology/4)
	d.Kill()
	if _, err := tracer.wait(); err != nil {
		return nil, err
	}
	f = figures{"struck": number01(dead), "missed": number01(!dead)}
	if s, ok := d.State().Sys().(syscall.WaitStatus); dead && (!ok || s.Signal() != syscall.SIGKILL) {
		return f, fmt.Errorf("the daemon ended by itself: %s", d.Tail(12))
	}
	if _, err := t.judge(); err != nil {
		return f, err
	}
	if d, err = t.start(ctx); err != nil {
		return f, err
	}
	err = t.received(ctx, d)
	f["passes"] = t.passes
	if err := errors.Join(err, d.Stop(pathology), t.whole()); err != nil {
		return f, err
	}
	return f, t.neverAgain()
}

// neverAgain wants that no payload was sent back to be received again: that would be bytes that were believed and not there.
func (p *bed) neverAgain() error {
	l, err := p.judge()
	if n := l.did("receiving again"); err == nil && n > 0 {
		err = fmt.Errorf("the spool believed what was not there: %q", l.trail)
	}
	return err
}
