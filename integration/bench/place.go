// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"sluice/integration/lab"
)

// place is where the two ends are: in two namespaces joined by a veth pair that carries one way only, or, without root, on loopback.
type place struct {
	name  string
	diode *lab.Diode // nil: loopback
}

// mostLanes is how many cables there are.
const mostLanes = 2

// newPlace makes namespaces if it may.
func newPlace(ctx context.Context) (place, error) {
	diode, err := lab.NewDiodeOf(ctx, mostLanes)
	if errors.Is(err, lab.ErrNoDiode) {
		fmt.Printf("loopback, and not a one-way veth pair: %v\n", err)
		return place{name: "loopback"}, nil
	}
	return place{name: "veth, one way", diode: diode}, err
}

func (p place) close(ctx context.Context) error {
	if p.diode == nil {
		return nil
	}
	return p.diode.Close(ctx)
}

// address is a free one of the high side.
func (p place) address() (string, error) {
	if p.diode == nil {
		return lab.FreeUDP()
	}
	return lab.DiodeHigh + ":4710", nil // nobody else is there
}

// addresses are free ones of the high side, one a lane, with commas between.
func (p place) addresses(lanes int) (string, error) {
	list := make([]string, 0, lanes)
	for i := range lanes {
		_, high := lab.DiodeLane(i)
		address := high + ":4710"
		if p.diode == nil {
			var err error
			if address, err = lab.FreeUDP(); err != nil {
				return "", err
			}
		}
		list = append(list, address)
	}
	return strings.Join(list, ","), nil
}

// lay makes the wire one of a row, until the returned function is called. No row is measured on a wire that cannot be made.
func (p place) lay(ctx context.Context, s setup) (undo func() error, err error) {
	if s.gso != split && s.gso != joined {
		return func() error { return nil }, nil
	}
	if p.diode == nil {
		return nil, fmt.Errorf("%w: loopback cannot be made to carry single datagrams", errNoWire)
	}
	if err := p.diode.Split(ctx, s.gso == joined); errors.Is(err, lab.ErrNoDiode) {
		return nil, fmt.Errorf("%w: %w", errNoWire, err)
	} else if err != nil {
		return nil, err
	}
	return func() error { return p.diode.Join(context.WithoutCancel(ctx)) }, nil
}

// errNoWire says that this machine has no wire for a row.
var errNoWire = errors.New("bench: no such wire here")

// low and high are the namespaces of the two ends; empty is that of this process.
func (p place) low() string {
	if p.diode == nil {
		return ""
	}
	return p.diode.Low
}

func (p place) high() string {
	if p.diode == nil {
		return ""
	}
	return p.diode.High
}

// command is a command line that runs in a namespace.
func command(namespace string, args ...string) (binary string, rest []string) {
	if namespace == "" {
		return args[0], args[1:]
	}
	return "ip", append([]string{"netns", "exec", namespace}, args...)
}

// within runs a function on a thread that is in a namespace: the sockets that it makes stay there.
func within(namespace string, do func() error) error {
	if namespace == "" {
		return do()
	}
	ns, err := os.Open("/run/netns/" + namespace)
	if err != nil {
		return err
	}
	defer ns.Close()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", namespace, err)
			return
		}
		done <- do()
	}()
	return <-done
}
