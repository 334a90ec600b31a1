// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"net/netip"
	"time"

	"sluice/internal/console"
)

const (
	// stall is what a receiver's buffer bridges: a reader that waits for its processor or for the disk waits 1 to 500 ms, seldom more
	// than this (research on what diodes lose).
	stall = 100 * time.Millisecond
	// turn is one wait for a processor on a busy machine. A buffer that does not bridge it overflows all the time.
	turn = 10 * time.Millisecond
	// maxBuffer is the largest buffer that the kernel gives: it doubles the figure in 31 bits.
	maxBuffer = 1<<30 - 1
	// minBacklog is that of deploy/sysctl.d/90-sluice.conf, 36 ms of 10 Gbit/s at 1500 bytes.
	minBacklog = 30000
	// overhead is how much more than a datagram's bytes the kernel counts for it, at most: it doubles each buffer for that.
	overhead = 2
)

// neededBuffer is what the configuration asks for, or what the rate needs, whichever is more.
func neededBuffer(w Want) int64 {
	return min(max(w.Buffer, inFlight(w.Rate, stall)), maxBuffer)
}

// atLeastBuffer says what a buffer is measured by.
func atLeastBuffer(w Want) string {
	if need := inFlight(w.Rate, stall); need > w.Buffer {
		return fmt.Sprintf("at least %s (100 ms of %s)", size(min(need, maxBuffer)), console.BitRate(float64(w.Rate)))
	}
	return "at least " + size(w.Buffer) + " (link.receive_buffer)"
}

func checkReceiveMaximum(v *View, w Want) Finding {
	const name = "net.core.rmem_max"
	need := neededBuffer(w)
	f := Finding{
		ID: "rmem_max", Wanted: atLeastBuffer(w),
		Why: "a receiver without CAP_NET_ADMIN gets no larger buffer than this, and what overflows it is lost; a socket that systemd opens is not bound by it",
	}
	fix := sysctlFix(name, need)
	got, err := sysctl(v.Files, name)
	switch {
	case err != nil:
		return f.unknown(err, sysctlAsk(name))
	case got < need:
		return f.warn(size(got), fix)
	}
	return f.ok(size(got))
}

// checkReceiveBuffer looks at what the kernel really gives, to this user. It fails where the rate is known and one turn of the
// scheduler already overflows the buffer.
func checkReceiveBuffer(v *View, w Want) Finding {
	need := neededBuffer(w)
	f := Finding{
		ID: "receive_buffer", Wanted: atLeastBuffer(w),
		Why: "while the receiver waits for a processor or for the disk, the link goes on; what its socket cannot hold is lost",
	}
	got := v.ReceiveBuffer.Value
	switch {
	case v.ReceiveBuffer.Err != nil:
		return f.unknown(v.ReceiveBuffer.Err, "")
	case got < inFlight(w.Rate, turn):
		return f.fail(size(got), bufferFix(got, need, w))
	case got < need:
		return f.warn(size(got), bufferFix(got, need, w))
	}
	if most, err := sysctl(v.Files, "net.core.rmem_max"); err == nil && got > most {
		return f.ok(size(got) + ", beyond rmem_max by this user's CAP_NET_ADMIN")
	}
	return f.ok(size(got))
}

// bufferFix tells a host that gives too little from a configuration that asks for too little.
func bufferFix(got, need int64, w Want) string {
	if got < w.Buffer {
		return fmt.Sprintf("sysctl -w net.core.rmem_max=%d, or let diode-receiver.socket open the socket (ReceiveBuffer=%d)", need, need)
	}
	return fmt.Sprintf("link: {receive_buffer: %dMiB} in the configuration, and ReceiveBuffer=%d in diode-receiver.socket", (need+1<<20-1)>>20, need)
}

func checkSendMaximum(v *View, w Want) Finding {
	const name = "net.core.wmem_max"
	f := Finding{
		ID: "wmem_max", Wanted: "at least " + size(w.Buffer) + " (link.send_buffer)",
		Why: "a sender without CAP_NET_ADMIN gets no larger buffer than this; a small one makes it wait between batches, and the rate is not reached",
	}
	got, err := sysctl(v.Files, name)
	switch {
	case err != nil:
		return f.unknown(err, sysctlAsk(name))
	case got < w.Buffer:
		return f.warn(size(got), sysctlFix(name, w.Buffer))
	}
	return f.ok(size(got))
}

func checkBacklog(v *View, _ Want) Finding {
	const name = "net.core.netdev_max_backlog"
	f := Finding{
		ID: "netdev_max_backlog", Wanted: fmt.Sprintf("at least %d packets", minBacklog),
		Why: "datagrams wait here between interface and socket where packets are steered between processors, and on virtual interfaces; what does not fit is lost",
	}
	got, err := sysctl(v.Files, name)
	switch {
	case err != nil:
		return f.unknown(err, sysctlAsk(name))
	case got < minBacklog:
		return f.warn(fmt.Sprintf("%d packets", got), sysctlFix(name, minBacklog))
	}
	return f.ok(fmt.Sprintf("%d packets", got))
}

// checkUDPMemory looks at the bound of all UDP sockets together: a large buffer is a promise that this takes back.
func checkUDPMemory(v *View, w Want) Finding {
	const name, values = "net.ipv4.udp_mem", 3
	need := overhead * neededBuffer(w)
	f := Finding{
		ID: "udp_mem", Wanted: "a maximum of at least " + size(need) + " (twice the buffer)",
		Why: "above it the kernel drops datagrams although the socket's own buffer has room",
	}
	got, err := readInts(v.Files, "proc/sys/net/ipv4/udp_mem", values)
	switch {
	case err != nil:
		return f.unknown(err, sysctlAsk(name))
	case v.Page <= 0:
		return f.unknown(fmt.Errorf("size of a page of memory: %w", ErrNotRead), "")
	}
	page := int64(v.Page)
	if maximum := got[2] * page; maximum < need {
		pages := (need + page - 1) / page
		return f.warn(size(maximum), sysctlFix(name, fmt.Sprintf("%d %d %d", pages/2, pages*3/4, pages)))
	}
	return f.ok(size(got[2] * page))
}

// checkSocketDrops looks at the kernel's count for the socket that is open on the port now.
func checkSocketDrops(v *View, w Want) Finding {
	f := Finding{
		ID: "socket_drops", Wanted: "0 datagrams dropped at the socket",
		Why: "these reached this host and were lost in it, for want of buffer or of time to read",
	}
	all, err := udpSockets(v.Files)
	if err != nil {
		return f.unknown(err, "cat /proc/net/udp")
	}
	open, drops := false, uint64(0)
	for _, s := range all {
		if serves(s.local, w.Address) {
			open, drops = true, drops+s.drops
		}
	}
	switch {
	case !open:
		return f.unknown(fmt.Errorf("no socket is open on %s: diode-receiver and its socket unit are not running", w.Address), "systemctl start diode-receiver.socket, and ask again after a transfer")
	case drops > 0:
		return f.warn(count(drops)+" dropped", "raise net.core.rmem_max and link.receive_buffer, or lower the sender's link.rate")
	}
	return f.ok("0 dropped")
}

// serves says whether a socket gets what is sent to an address.
func serves(local, want netip.AddrPort) bool {
	return local.Port() == want.Port() &&
		(local.Addr() == want.Addr().Unmap() || local.Addr().IsUnspecified() || want.Addr().IsUnspecified())
}

func checkReceiveErrors(v *View, _ Want) Finding {
	f := Finding{
		ID: "rcvbuf_errors", Wanted: "0 since boot (all sockets)",
		Why: "UDP datagrams were dropped on this host because a socket's buffer was full",
	}
	n, err := udpCounter(v.Files, "RcvbufErrors")
	switch {
	case err != nil:
		return f.unknown(err, "nstat -az UdpRcvbufErrors")
	case n > 0:
		return f.warn(count(n), "nstat UdpRcvbufErrors before and after a transfer: if it grows, raise net.core.rmem_max and link.receive_buffer")
	}
	return f.ok("0")
}

func checkSendErrors(v *View, _ Want) Finding {
	f := Finding{
		ID: "sndbuf_errors", Wanted: "0 since boot (all sockets)",
		Why: "UDP datagrams never left this host, because a buffer or the device's queue was full",
	}
	n, err := udpCounter(v.Files, "SndbufErrors")
	switch {
	case err != nil:
		return f.unknown(err, "nstat -az UdpSndbufErrors")
	case n > 0:
		return f.warn(count(n), "nstat UdpSndbufErrors before and after a transfer: if it grows, lower link.rate, or use the qdisc fq")
	}
	return f.ok("0")
}
