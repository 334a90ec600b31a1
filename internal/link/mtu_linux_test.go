// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"errors"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/internal/link"
)

// inNamespace runs f on a thread with a network of its own, whose loopback has
// the given MTU. It needs the right to make one.
func inNamespace(t *testing.T, mtu int, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		var err error
		defer func() { done <- err }() // also when f ends its goroutine
		runtime.LockOSThread()         // and never unlocked: the thread dies with its namespace
		err = unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = raiseLoopback(mtu)
		}
		if err == nil {
			f()
		}
	}()
	if err := <-done; errors.Is(err, unix.EPERM) {
		t.Skip("no right to make a network namespace")
	} else if err != nil {
		t.Fatal(err)
	}
}

// raiseLoopback brings lo up with an MTU.
func raiseLoopback(mtu int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, set := range []struct {
		request uint
		value   uint32
	}{{unix.SIOCSIFMTU, uint32(mtu)}, {unix.SIOCSIFFLAGS, unix.IFF_UP | unix.IFF_RUNNING}} {
		r, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		if set.request == unix.SIOCSIFFLAGS {
			r.SetUint16(uint16(set.value))
		} else {
			r.SetUint32(set.value)
		}
		if err := unix.IoctlIfreq(fd, set.request, r); err != nil {
			return err
		}
	}
	return nil
}

// TestTooLong: on a link whose MTU is too small a writer names the MTU, in every
// mode. It never fragments.
func TestTooLong(t *testing.T) {
	inNamespace(t, 1280, func() {
		file, address := bound(t)
		defer file.Close()
		w := dial(t, address, link.OffloadOff)
		for _, w := range []link.BatchWriter{w, dial(t, address, link.OffloadOn)} {
			if err := w.WriteBatch(numbered(0, 5, 1452), 1452); !errors.Is(err, link.ErrTooLong) {
				t.Errorf("%v, want ErrTooLong", err)
			}
		}
		if err := w.WriteBatch(numbered(0, 5, 1200), 1200); err != nil {
			t.Errorf("datagrams that fit: %v", err)
		}
		equal(t, "numbers", readAll(t, inherit(t, file, link.SocketOptions{}), 5, 1200), []int{0, 1, 2, 3, 4})
	})
}

// TestFullQueue sends faster than a shaped device takes: the kernel's ENOBUFS,
// which a plain UDP socket never sees, is counted to the datagram.
func TestFullQueue(t *testing.T) {
	tc, err := exec.LookPath("tc")
	if err != nil {
		t.Skip("no tc to shape the device with")
	}
	inNamespace(t, 1500, func() {
		shape := exec.Command(tc, "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "8mbit", "burst", "5kb", "limit", "20kb")
		if out, err := shape.CombinedOutput(); err != nil {
			t.Errorf("tc: %v: %s", err, out)
			return
		}
		file, address := bound(t)
		w := dial(t, address, link.OffloadOff)
		const batches, each = 20, 10
		lost := 0
		for i := range batches {
			err := w.WriteBatch(numbered(i*each, each, 1452), 1452)
			var failure *link.SendError
			switch {
			case errors.As(err, &failure) && errors.Is(err, unix.ENOBUFS):
				lost += failure.Lost
			case err != nil:
				t.Errorf("batch %d: %v", i, err)
			}
		}
		if lost == 0 || lost >= batches*each {
			t.Errorf("%d of %d lost", lost, batches*each)
		}
		readAll(t, inherit(t, file, link.SocketOptions{}), batches*each-lost, 1452)
	})
}
