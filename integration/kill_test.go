// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/integration/lab"
	"sluice/internal/receiver"
	"sluice/pkg/envelope"
)

// killRate makes a step of the sender small beside a payload.
const killRate = "100Mbit"

// Two downtimes of a pass at killRate, in which the sender goes on, lose more of 32 MiB than the 10 % that its repair symbols give back.
const downtime = 250 * time.Millisecond

// socketBuffer holds the whole payload of these tests, with what the kernel books for each datagram.
const socketBuffer = 64 << 20

func TestReceiverKilledInheritedSocket(t *testing.T) {
	s := newSite(t)
	socket, addr := heldSocket(t)
	must(t, s.HighConfig(addr, ""))
	start := func() *lab.Daemon {
		d, err := s.StartActivated("high.yaml", socket)
		return up(t, s, d, err)
	}
	dir, env := sealed(t, s, 1, 32*mib, 2)
	d := killTwice(t, s, start, startPass(t, s, s.SendArgs(dir, addr, killRate, 1)...), env)
	if r := received(t, s, env); r.State == "RECEIVING" {
		t.Fatalf("one pass was not enough although the socket was never closed: %+v", r)
	}
	published(t, s, d, env)
	checkKilled(t, s, d, dir, env)
}

func TestReceiverKilledOwnSocket(t *testing.T) {
	s := newSite(t)
	addr := listening(t, s)
	start := func() *lab.Daemon { return receive(t, s) }
	dir, env := sealed(t, s, 1, 32*mib, 2)
	d := killTwice(t, s, start, startPass(t, s, s.SendArgs(dir, addr, killRate, 1)...), env)
	if received(t, s, env).State != "RECEIVING" {
		t.Error("complete after one pass although nobody listened for a while: this test proved nothing")
	}
	enough := healPasses(received(t, s, env))
	for pass := 2; received(t, s, env).State == "RECEIVING"; pass++ {
		r := received(t, s, env)
		t.Logf("heal pass %d of at most %d: %d of %d symbols are there", pass-1, enough, r.Have, r.Symbols)
		if pass-1 > enough {
			t.Fatalf("not complete after %d heal passes", enough)
		}
		call(t, s, "bastion-packer", s.SendArgs(dir, addr, killRate, pass)...)
		settled(t, s, d, env)
	}
	published(t, s, d, env)
	checkKilled(t, s, d, dir, env)
}

// healPasses is how many heal passes must be enough: an outage costs each group of a span the same, give or take two for two outages,
// and a pass brings each group 20 fresh rows. After three of them the source comes again.
func healPasses(r receiver.ReleaseStatus) int {
	groups := (r.Symbols + 191) / 192
	rows := (r.Symbols-r.Have+groups-1)/groups + 2
	return int(min((rows+19)/20, 3))
}

// settled waits until the receiver has repaired what a pass allowed: the state moves on, or the pass is over and nothing changes.
func settled(t *testing.T, s *lab.Site, d *lab.Daemon, env *envelope.Envelope) {
	t.Helper()
	const still = 20 // looks, 50 ms apart
	last, same := int64(-1), 0
	must(t, lab.WaitFor(t.Context(), patience, "the end of the pass", func() (bool, error) {
		r, err := s.Release(t.Context(), env.ID.String())
		if err != nil || r == nil {
			return false, d.Died()
		}
		if same++; r.Have != last {
			last, same = r.Have, 0
		}
		return r.State != "RECEIVING" || same >= still, nil
	}))
}

// killTwice kills the receiver at about 30 % and 70 % of a pass and starts it again on the same state, after the sender went on for a while.
func killTwice(t *testing.T, s *lab.Site, start func() *lab.Daemon, p *pass, env *envelope.Envelope) *lab.Daemon {
	t.Helper()
	d := start()
	for _, share := range []float64{0.3, 0.7} {
		p.until(env, share)
		before := received(t, s, env)
		d.Kill()
		must(t, p.run(downtime))
		began := time.Now()
		d = start()
		t.Logf("killed at %d of %d symbols, up again after %s", before.Have, before.Symbols, time.Since(began).Round(time.Millisecond))
		if after := received(t, s, env); after.State == "RECEIVING" && after.Have < before.Have-window {
			t.Errorf("the kill took back %d symbols; the window holds %d", before.Have-after.Have, window)
		}
	}
	p.finish()
	settled(t, s, d, env)
	return d
}

// window is what a kill may take: a cell of symbols (internal/spool: 2 MiB, to the nearest whole number of pages), and one more.
const window = 1504 + 1

func checkKilled(t *testing.T, s *lab.Site, d *lab.Daemon, dir string, env *envelope.Envelope) {
	t.Helper()
	samePublished(t, s, dir, env)
	trail := actions(t, s, env)
	for _, once := range []string{"accepted", "received", "published"} {
		if n := countOf(trail, once); n != 1 {
			t.Errorf("%q stands %d times in the audit trail: %q", once, n, trail)
		}
	}
	if n := strings.Count(string(readAll(t, d.Log)), "reception resumed"); n != 2 {
		t.Errorf("the log shows %d resumptions, want 2", n)
	}
	stop(t, d)
	clean(t, s)
}

func countOf(list []string, what string) (n int) {
	for _, s := range list {
		if s == what {
			n++
		}
	}
	return n
}

// heldSocket binds the UDP socket as systemd does for a .socket unit, and keeps it. It needs a buffer that only root may set, or that
// net.core.rmem_max allows.
func heldSocket(t *testing.T) (*os.File, string) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	must(t, err)
	defer conn.Close()
	file, err := conn.File()
	must(t, err)
	t.Cleanup(func() { _ = file.Close() })
	raw, err := file.SyscallConn()
	must(t, err)
	var got int
	must(t, raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer) // what rmem_max allows
		}
		got, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
	}))
	must(t, err)
	if got < socketBuffer {
		t.Skipf("SKIPPED: the kernel gives a socket buffer of %d bytes, %d are needed: run as root, or raise net.core.rmem_max", got, socketBuffer)
	}
	return file, conn.LocalAddr().String()
}
