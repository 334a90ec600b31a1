// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"sluice/integration/lab"
)

const (
	// listenTime is how long a peer's receiver is given to listen: none says when it does.
	listenTime = time.Second

	// linger is how long a file may take to be complete after its sender has ended.
	linger = 20 * time.Second
)

// flow is one transfer by a peer's programs.
type flow struct {
	*bench
	ctx     context.Context //nolint:containedctx // of this transfer alone
	in      string          // the file
	dir     string          // of the high side, empty at first
	out     string          // where the file arrives
	all     []*other
	elapsed time.Duration // from the start of the sender until the file was complete
}

// other is a process of a peer.
type other struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
	said bytes.Buffer
}

// start starts a program in a namespace.
func (f *flow) start(namespace string, stdin, stdout *os.File, line ...string) (*other, error) {
	binary, args := command(namespace, line...)
	o := &other{cmd: exec.CommandContext(f.ctx, binary, args...), done: make(chan struct{})}
	o.cmd.Stderr = &o.said
	if stdin != nil {
		o.cmd.Stdin = stdin
	}
	if o.cmd.Stdout = &o.said; stdout != nil {
		o.cmd.Stdout = stdout
	}
	o.cmd.Dir = f.dir
	if err := o.cmd.Start(); err != nil {
		return nil, err
	}
	f.all = append(f.all, o)
	go func() { o.err = o.cmd.Wait(); close(o.done) }()
	return o, nil
}

// wait waits for the end of a program, and gives its last words where that was no good one.
func (o *other) wait(limit time.Duration) error {
	name := filepath.Base(o.cmd.Args[0])
	if name == "ip" {
		name = filepath.Base(o.cmd.Args[4]) // ip netns exec NAME program
	}
	select {
	case <-o.done:
		if o.err != nil {
			return fmt.Errorf("%s: %w: %s", name, o.err, lab.LastLines(strings.ReplaceAll(o.said.String(), "\r", "\n"), 2))
		}
		return nil
	case <-time.After(limit):
		return fmt.Errorf("%s does not end: %s", name, lab.LastLines(strings.ReplaceAll(o.said.String(), "\r", "\n"), 2))
	}
}

// end ends what still runs, and adds up what all of it used.
func (f *flow) end() (cpu time.Duration) {
	for _, o := range f.all {
		_ = o.cmd.Process.Signal(syscall.SIGKILL)
		<-o.done
		cpu += o.cmd.ProcessState.UserTime() + o.cmd.ProcessState.SystemTime()
	}
	return cpu
}

// elapsedErr says that a driver forgot to measure.
func (f *flow) elapsedErr() error {
	if f.elapsed == 0 {
		return errors.New("bench: internal error: the transfer was not timed")
	}
	return nil
}

// run runs the sender, and then waits for whoever shows that the file is complete.
func (f *flow) run(sender func() (*other, error), complete func() error) error {
	<-time.After(listenTime)
	began := time.Now()
	low, err := sender()
	if err != nil {
		return err
	}
	if err := low.wait(3 * time.Minute); err != nil {
		return err
	}
	err = complete()
	f.elapsed = time.Since(began)
	return err
}

func (f *flow) ip(words ...string) error {
	if msg, err := exec.CommandContext(f.ctx, "ip", words...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w: %s", err, msg)
	}
	return nil
}

// lidi has no pace of its own; its manual shapes the device where the receiver is overrun.
func (f *flow) lidi(settings []string) (err error) {
	var mtu, batch []string
	for i := 0; i+1 < len(settings); i += 2 {
		switch key, value := settings[i], settings[i+1]; key {
		case "mtu":
			mtu = []string{value}
		case "batch":
			batch = []string{"--batch", value}
		case "tbf":
			if err := f.place.diode.Shape(f.ctx, value); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, f.place.diode.Unshape(context.WithoutCancel(f.ctx))) }()
		}
	}
	const to = lab.DiodeHigh + ":4720"
	low, high := filepath.Join(f.dir, "low.sock"), filepath.Join(f.dir, "high.sock")
	files, err := f.start(f.place.high(), nil, nil, "diode-receive-file", "--from-unix", high, "--max-files", "1", f.dir)
	if err != nil {
		return err
	}
	<-time.After(listenTime)
	for _, d := range [][]string{
		slices.Concat([]string{f.place.high(), "diode-receive", "--from", to, "--to-unix", high, "--from-mtu"}, mtu, batch),
		slices.Concat([]string{f.place.low(), "diode-send", "--to", to, "--from-unix", low, "--to-mtu"}, mtu, batch),
	} {
		if _, err := f.start(d[0], nil, nil, d[1:]...); err != nil {
			return err
		}
		<-time.After(listenTime / 2)
	}
	return f.run(func() (*other, error) {
		return f.start(f.place.low(), nil, nil, "diode-send-file", "--to-unix", low, f.in)
	},
		func() error { return files.wait(linger) })
}

// udpcast needs broadcast, with addresses and a resolution that the diode does without.
func (f *flow) udpcast(settings []string) error {
	for _, end := range [][3]string{{f.place.low(), "10.98.0.1", "low0"}, {f.place.high(), "10.98.0.2", "high0"}} {
		err := errors.Join(f.ip("-n", end[0], "link", "set", end[2], "arp", "on"),
			f.ip("-n", end[0], "addr", "add", end[1]+"/24", "brd", "+", "dev", end[2], "label", end[2]+":p"))
		if err != nil {
			return err
		}
	}
	high, err := f.start(f.place.high(), nil, nil, "udp-receiver", "--nokbd", "--nosync", "--file", f.out, "--interface", "high0:p", "--portbase", "9100", "--start-timeout", "20")
	if err != nil {
		return err
	}
	line := append([]string{"udp-sender", "--nokbd", "--async", "--file", f.in, "--interface", "low0:p", "--portbase", "9100", "--rexmit-hello-interval", "100", "--autostart", "5"}, settings...)
	return f.run(func() (*other, error) { return f.start(f.place.low(), nil, nil, line...) }, func() error { return high.wait(linger) })
}

// godiode sends a folder to a multicast group, for which the low side needs a route.
func (f *flow) godiode(settings []string) error {
	from := filepath.Dir(f.in)
	if err := errors.Join(f.ip("-n", f.place.low(), "route", "add", "239.0.0.0/8", "dev", "low0"), f.ip("-n", f.place.low(), "link", "set", "low0", "multicast", "on")); err != nil {
		return err
	}
	common := func(dev string) []string {
		return append([]string{"godiode", "-interface", dev}, settings...)
	}
	if _, err := f.start(f.place.high(), nil, nil, append(common("high0"), "receive", f.dir)...); err != nil {
		return err
	}
	return f.run(func() (*other, error) {
		return f.start(f.place.low(), nil, nil, append(common("low0"), "-baddr", lab.DiodeLow+":0", "send", from)...)
	}, func() error {
		// It goes on listening; a file is there under its name once its SHA-256 was right.
		return lab.WaitFor(f.ctx, linger, "the file", func() (bool, error) { _, err := os.Stat(f.out); return err == nil, nil })
	})
}

// pydiode reads and writes standard input and output.
func (f *flow) pydiode(settings []string) error {
	in, err := os.Open(f.in)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(f.out)
	if err != nil {
		return err
	}
	defer out.Close()
	high, err := f.start(f.place.high(), nil, out, "pydiode", "receive", lab.DiodeHigh)
	if err != nil {
		return err
	}
	line := append([]string{"pydiode", "send", lab.DiodeHigh, lab.DiodeLow}, settings...)
	return f.run(func() (*other, error) { return f.start(f.place.low(), in, nil, line...) }, func() error { return high.wait(linger) })
}
