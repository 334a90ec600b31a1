// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"context"
	"math/rand/v2"
	"net"
	"regexp"
	"strconv"
	"testing"
	"time"

	"sluice/integration/lab"
	"sluice/internal/admin"
	"sluice/internal/link"
	"sluice/internal/link/linktest"
	"sluice/pkg/envelope"
)

// floodBurst datagrams go out every millisecond: some 30,000 a second, as many as the genuine transfer has.
const floodBurst = 30

// TestFloodAndForgery sends what an attacker on the low side could, who has no key: noise, and datagrams that look right.
func TestFloodAndForgery(t *testing.T) {
	s := newSite(t)
	addr := listening(t, s)
	d := receive(t, s)
	dir, env := sealed(t, s, 1, 16*mib, 2)
	seen := make(chan [8]byte, 1)
	tap := func(d []byte) {
		select {
		case seen <- [8]byte(d[4:12]):
		default:
		}
	}
	relay, err := linktest.StartRelay(t.Context(), linktest.RelayOptions{Listen: "127.0.0.1:0", Forward: addr, Faults: linktest.Options{Tap: tap}})
	must(t, err)
	t.Cleanup(func() { _ = relay.Close() })
	const seed = 11
	ctx, cancel := context.WithCancel(t.Context())
	flooded := make(chan uint64)
	go func() { flooded <- flood(ctx, addr, seed, seen) }()
	passes := sendThrough(t, s, d, dir, relay.Addr(), env)
	published(t, s, d, env)
	cancel()
	t.Logf("seed %d: %d hostile datagrams", seed, <-flooded)
	samePublished(t, s, dir, env)

	st, err := s.HighStatus(t.Context())
	must(t, err)
	if len(st.Sessions) != passes || len(st.Releases) != 1 {
		t.Errorf("%d sessions and %d releases; want the genuine ones alone: %d passes of one", len(st.Sessions), len(st.Releases), passes)
	}
	for _, got := range st.Sessions {
		if got.Sent != got.Authentic+got.Missing || got.Malformed != 0 {
			t.Errorf("the ledger of the genuine session suffered: %+v", got)
		}
	}
	for _, reason := range []string{"length", "magic", "type", "profile", "reserved", "mac1", "session", "tag"} {
		if rejected(t, s, reason) == 0 {
			t.Errorf("nothing was rejected for its %s: this test proved less than it says", reason)
		}
	}
	rss, err := d.PeakRSS()
	must(t, err)
	if t.Logf("peak RSS %d MiB", rss/mib); rss > maxMemory {
		t.Errorf("the receiver took %d MiB, at most %d are allowed", rss/mib, maxMemory/mib)
	}
	stop(t, d)
	clean(t, s)
}

// sendThrough sends passes until the release is here: one, unless this host dropped datagrams at the receiver's socket, which says so.
func sendThrough(t *testing.T, s *lab.Site, d *lab.Daemon, dir, to string, env *envelope.Envelope) (passes int) {
	t.Helper()
	for passes = 1; ; passes++ {
		call(t, s, "bastion-packer", s.SendArgs(dir, to, killRate, passes)...)
		settled(t, s, d, env)
		if received(t, s, env).State != "RECEIVING" {
			return passes
		}
		st, err := s.HighStatus(t.Context())
		must(t, err)
		if t.Logf("pass %d: the kernel dropped %d datagrams", passes, st.KernelDrops); st.KernelDrops == 0 || passes == 4 {
			t.Fatalf("not complete after pass %d: %+v", passes, received(t, s, env))
		}
	}
}

// maxMemory is the bar for the receiver's memory.
const maxMemory = 256 * mib

func rejected(t *testing.T, s *lab.Site, reason string) int {
	t.Helper()
	var page []byte
	must(t, admin.Fetch(t.Context(), "unix:"+s.Path("high.sock"), "/metrics", &page))
	m := regexp.MustCompile(`sluice_link_datagrams_total\{outcome="rejected_` + reason + `"\} (\S+)`).FindSubmatch(page)
	if m == nil {
		t.Fatalf("the metrics do not know the reason %q", reason)
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	must(t, err)
	return int(n)
}

// flood sends hostile datagrams until ctx ends: half of them noise, half of them in the right form, for the genuine session once
// that was seen on the wire.
func flood(ctx context.Context, addr string, seed uint64, seen <-chan [8]byte) (sent uint64) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", addr)
	if err != nil {
		return 0
	}
	defer conn.Close()
	random := rand.NewChaCha8([32]byte{byte(seed)})
	choose := rand.New(random)
	var session [8]byte
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return sent
		case session = <-seen:
		case <-tick.C:
		}
		for range floodBurst {
			d := make([]byte, link.Profile1500.DatagramSize())
			_, _ = random.Read(d) // never fails
			if _, err := conn.Write(disguise(d, choose, session)); err == nil {
				sent++
			}
		}
	}
}

// disguise makes noise look right up to one of the receiver's checks.
func disguise(d []byte, choose *rand.Rand, session [8]byte) []byte {
	h := link.Header{Type: link.Type(1 + choose.IntN(4)), Profile: link.Profile1500, Session: session, Counter: uint64(choose.IntN(30000)), SBN: 0, ESI: uint32(choose.IntN(20000))}
	if choose.IntN(2) == 0 {
		h.Session = [8]byte(d[4:12])
	}
	link.AppendHeader(d[:0], h)
	switch choose.IntN(10) {
	case 0:
		return d[:choose.IntN(len(d))]
	case 1:
		d[0] ^= 1
	case 2:
		d[1] = 0xEE
	case 3:
		d[2] = 0xEE
	case 4:
		d[3] = 1
	}
	return d
}
