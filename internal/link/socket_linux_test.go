// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"golang.org/x/sys/unix"

	"sluice/internal/link"
	"sluice/internal/link/linktest"
)

// bound returns a UDP socket on loopback as an inherited one comes: an open file
// and its address.
func bound(t testing.TB) (*os.File, string) {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	file, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	return file, conn.LocalAddr().String()
}

func dial(t testing.TB, address string, gso link.Offload) link.BatchWriter {
	t.Helper()
	w, err := link.DialUDP(t.Context(), link.SocketOptions{Address: address, GSO: gso})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func inherit(t testing.TB, file *os.File, o link.SocketOptions) link.BatchReader {
	t.Helper()
	r, err := link.FromFile(file, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// numbered returns count datagrams of size bytes, each with its number.
func numbered(first, count, size int) []byte {
	b := make([]byte, count*size)
	for i := range count {
		binary.BigEndian.PutUint64(b[i*size:], uint64(first+i))
	}
	return b
}

// readAll reads until want datagrams are there, and returns their numbers.
func readAll(t testing.TB, r link.BatchReader, want, size int) []int {
	t.Helper()
	timer := time.AfterFunc(10*time.Second, func() { r.Close() })
	defer timer.Stop()
	bufs := make([]link.Buffer, 8)
	for i := range bufs {
		bufs[i].Data = make([]byte, link.BufferSize)
	}
	var numbers []int
	for len(numbers) < want {
		n, err := r.ReadBatch(bufs)
		if err != nil {
			t.Fatalf("%d of %d datagrams: %v", len(numbers), want, err)
		}
		for _, b := range bufs[:n] {
			for at := 0; at < b.N; at += b.Segment {
				if min(b.Segment, b.N-at) != size {
					t.Fatalf("a datagram of %d bytes, want %d", min(b.Segment, b.N-at), size)
				}
				numbers = append(numbers, int(binary.BigEndian.Uint64(b.Data[at:])))
			}
		}
	}
	return numbers
}

// TestSockets sends through real sockets in every combination of offloads, with
// both profiles, full and partial batches: what comes out is what went in.
func TestSockets(t *testing.T) {
	for _, gso := range []link.Offload{link.OffloadAuto, link.OffloadOn, link.OffloadOff} {
		for _, gro := range []link.Offload{link.OffloadAuto, link.OffloadOn, link.OffloadOff} {
			for _, size := range []int{1452, 8940} {
				t.Run(fmt.Sprintf("gso %d, gro %d, %d bytes", gso, gro, size), func(t *testing.T) {
					file, address := bound(t)
					r := inherit(t, file, link.SocketOptions{GRO: gro})
					w := dial(t, address, gso)
					full := link.MaxBatch / size
					var want []int
					for first, count := 0, 1; count <= full; first, count = first+count, count+3 {
						if err := w.WriteBatch(numbered(first, count, size), size); err != nil {
							t.Fatal(err)
						}
						for i := range count {
							want = append(want, first+i)
						}
					}
					equal(t, "numbers", readAll(t, r, len(want), size), want)
				})
			}
		}
	}
}

func TestWriteBatchRules(t *testing.T) {
	file, address := bound(t)
	defer file.Close()
	w := dial(t, address, link.OffloadAuto)
	for _, tt := range []struct{ size, segment int }{{0, 1452}, {1453, 1452}, {1452, 0}, {1452, -1}, {45 * 1452, 1452}, {65 * 100, 100}} {
		if err := w.WriteBatch(make([]byte, tt.size), tt.segment); !errors.Is(err, link.ErrBatch) {
			t.Errorf("%d bytes in datagrams of %d: %v, want ErrBatch", tt.size, tt.segment, err)
		}
	}
}

// TestRefusedDatagrams: a port where nobody listens answers on loopback; that is
// never the end of a sender.
func TestRefusedDatagrams(t *testing.T) {
	for _, gso := range []link.Offload{link.OffloadAuto, link.OffloadOff} {
		file, address := bound(t)
		file.Close()
		w := dial(t, address, gso)
		for range 20 {
			err := w.WriteBatch(numbered(0, 3, 1452), 1452)
			var failure *link.SendError
			if err != nil && !errors.As(err, &failure) {
				t.Errorf("%v, want nil or a SendError", err)
			}
		}
	}
}

// TestReceiveBufferWarning: a buffer that the kernel does not grant is a warning with the exact sysctl.
func TestReceiveBufferWarning(t *testing.T) {
	withoutNetAdmin(t)
	core, logs := observer.New(zap.WarnLevel)
	file, _ := bound(t)
	r := inherit(t, file, link.SocketOptions{Buffer: 1 << 30, Logger: zap.New(core)})
	defer r.Close()
	for _, e := range logs.All() {
		if e.ContextMap()["fix"] == "sysctl -w net.core.rmem_max=1073741824" {
			return
		}
	}
	t.Errorf("no warning names the sysctl: %v", logs.All())
}

// withoutNetAdmin takes from the test the right to any buffer (SO_RCVBUFFORCE wants CAP_NET_ADMIN), which root has.
func withoutNetAdmin(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // capabilities are those of a thread
	t.Cleanup(runtime.UnlockOSThread)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var had [2]unix.CapUserData
	if err := unix.Capget(&header, &had[0]); err != nil {
		t.Fatal(err)
	}
	less := had
	less[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	if err := unix.Capset(&header, &less[0]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Capset(&header, &had[0]); err != nil {
			t.Error(err)
		}
	})
}

// TestTryReceiveBuffer: a small buffer is granted to anybody, and the answer is not the kernel's doubled figure.
func TestTryReceiveBuffer(t *testing.T) {
	for _, want := range []int{64 << 10, 128 << 10} {
		got, err := link.TryReceiveBuffer(want)
		if err != nil || got != want {
			t.Errorf("asked for %d: %d, %v", want, got, err)
		}
	}
}

func TestFromFileRefuses(t *testing.T) {
	plain, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	tcp, err := listener.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	for _, f := range []*os.File{plain, tcp} {
		if _, err := link.FromFile(f, link.SocketOptions{}); !errors.Is(err, link.ErrSocket) {
			t.Errorf("%s: %v, want ErrSocket", f.Name(), err)
		}
	}
}

// TestCloseWakesReader: Close ends a read that waits, and later reads.
func TestCloseWakesReader(t *testing.T) {
	file, _ := bound(t)
	r := inherit(t, file, link.SocketOptions{})
	done := make(chan error)
	go func() {
		_, err := r.ReadBatch([]link.Buffer{{Data: make([]byte, link.BufferSize)}})
		done <- err
	}()
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v, want net.ErrClosed", err)
	}
	if _, err := r.ReadBatch(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

// TestKernelDrops overruns a small buffer: the count equals what is missing and
// what /proc/net/udp says, also when nothing more arrives that SO_RXQ_OVFL could
// ride on.
func TestKernelDrops(t *testing.T) {
	file, address := bound(t)
	inode := inodeOf(t, file)
	r := inherit(t, file, link.SocketOptions{Buffer: 64 << 10, GRO: link.OffloadOff})
	w := dial(t, address, link.OffloadOff)
	const total = 1000
	for i := range total {
		if err := w.WriteBatch(numbered(i, 1, 1452), 1452); err != nil {
			t.Fatal(err)
		}
	}
	drops := r.Drops()
	if drops == 0 || drops >= total {
		t.Fatalf("%d of %d dropped", drops, total)
	}
	equal(t, "/proc/net/udp", procDrops(t, inode), drops)
	readAll(t, r, total-int(drops), 1452)
	if err := w.WriteBatch(numbered(0, 1, 1452), 1452); err != nil {
		t.Fatal(err)
	}
	readAll(t, r, 1, 1452)
	equal(t, "drops after one more", r.Drops(), drops)
}

func inodeOf(t *testing.T, file *os.File) uint64 {
	t.Helper()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Ino
}

// procDrops reads the last column of /proc/net/udp for a socket.
func procDrops(t *testing.T, inode uint64) uint64 {
	t.Helper()
	f, err := os.Open("/proc/thread-self/net/udp") // another test may have moved the first thread
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 13 || fields[9] != fmt.Sprint(inode) {
			continue
		}
		var n uint64
		if _, err := fmt.Sscan(fields[12], &n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	t.Fatalf("socket %d is not in /proc/thread-self/net/udp", inode)
	return 0
}

// TestRealSockets sends a release through real sockets, paced, in each mode.
func TestRealSockets(t *testing.T) {
	for _, gso := range []link.Offload{link.OffloadAuto, link.OffloadOn, link.OffloadOff} {
		t.Run(fmt.Sprint("gso ", gso), func(t *testing.T) {
			k, c, s := newKeys(30), newCargo(1, 100_000, 8_000_000), newSink()
			file, address := bound(t)
			h := receive(t, k, inherit(t, file, link.SocketOptions{}), s, t.TempDir(), nil)
			report := send(t, k, dial(t, address, gso), c.transfer(), quick)
			st := settled(t, h, report)
			wantArrived(t, s, c)
			ss := session(t, st, report.Session)
			equal(t, "authentic", ss.Authentic, report.Sealed)
			equal(t, "missing", ss.Missing, uint64(0))
			equal(t, "send errors", report.SendErrors, uint64(0))
		})
	}
}

// quick settles in a second: the sink of these tests answers at once, but the
// machine may be busy.
func quick(c *link.SenderConfig) { c.Settle, c.Lanes[0].Rate = time.Second, 400e6 }

// settled waits until the receiver has heard the last datagram of a pass, and
// stops it.
func settled(t *testing.T, h *high, report link.SendReport) link.Status {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		for _, s := range h.Sessions() {
			if s.Session == report.Session && s.Sent == report.Sealed {
				return h.stop(t)
			}
		}
		select {
		case <-deadline:
			t.Fatalf("the end of the pass was not heard: %+v", h.stop(t))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// TestInheritedSocketLosesNothing stops and starts the receiver again and again
// while datagrams arrive: the socket is held open by the parent, as by systemd,
// so every datagram is received by one of the processes.
func TestInheritedSocketLosesNothing(t *testing.T) {
	k, c, s := newKeys(31), newCargo(1, 50_000, 24_000_000), newSink()
	parent, address := bound(t)
	defer parent.Close()
	dir := t.TempDir()
	sent := make(chan link.SendReport)
	go func() {
		sent <- send(t, k, dial(t, address, link.OffloadAuto), c.transfer(), func(c *link.SenderConfig) { quick(c); c.Lanes[0].Rate = 150e6 })
	}()
	var authentic, heard uint64
	take := func(st link.Status) {
		for _, ss := range st.Sessions {
			authentic += ss.Authentic
			heard = max(heard, ss.Sent)
		}
		equal(t, "kernel drops", st.KernelDrops, uint64(0))
	}
	var report link.SendReport
	for report.Sealed == 0 {
		h := receive(t, k, inherit(t, duplicate(t, parent), link.SocketOptions{}), s, dir, nil)
		select {
		case report = <-sent:
			if heard == report.Sealed { // the process before heard the last datagram
				take(h.stop(t))
			} else {
				take(settled(t, h, report))
			}
		case <-time.After(150 * time.Millisecond):
			take(h.stop(t))
		}
	}
	wantArrived(t, s, c)
	equal(t, "authentic in all processes", authentic, report.Sealed)
}

// duplicate returns another file of the same socket.
func duplicate(t *testing.T, f *os.File) *os.File {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if err := raw.Control(func(n uintptr) { fd, err = unix.Dup(int(n)) }); err != nil || fd < 0 {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), "inherited")
}

// TestRelay sends a release through the relay that loses 1 %: it arrives in one
// pass, and relay and receiver agree to the datagram.
func TestRelay(t *testing.T) {
	k, c, s := newKeys(32), newCargo(1, 50_000, 8_000_000), newSink()
	file, address := bound(t)
	h := receive(t, k, inherit(t, file, link.SocketOptions{}), s, t.TempDir(), nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	relay, err := linktest.StartRelay(ctx, linktest.RelayOptions{
		Listen: "127.0.0.1:0", Forward: address,
		Faults: linktest.Options{Seed: 1, Drop: 0.01, Duplicate: 0.01, Corrupt: 0.001},
	})
	if err != nil {
		t.Fatal(err)
	}
	report := send(t, k, dial(t, relay.Addr(), link.OffloadAuto), c.transfer(), quick)
	wait(300 * time.Millisecond)
	st := h.stop(t)
	n := relay.Counters()
	if err := relay.Close(); err != nil {
		t.Error(err)
	}
	wantArrived(t, s, c)
	equal(t, "received and delivered", st.Received+st.KernelDrops, n.Delivered)
	equal(t, "delivered", n.Delivered, n.Written-n.Dropped+n.Duplicated)
	var rejected uint64
	for _, r := range st.Rejected {
		rejected += r
	}
	equal(t, "rejected and corrupted", rejected, n.Corrupted)
	if lost := session(t, st, report.Session).Missing; lost == 0 || n.Dropped == 0 {
		t.Errorf("missing %d, dropped %d", lost, n.Dropped)
	}
}

func TestParseOffload(t *testing.T) {
	for s, want := range map[string]link.Offload{"auto": link.OffloadAuto, "on": link.OffloadOn, "off": link.OffloadOff} {
		got, err := link.ParseOffload(s)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	if _, err := link.ParseOffload("maybe"); err == nil {
		t.Error("maybe was accepted")
	}
}

// discard is a sink that stores nothing: for the benchmark of the link alone.
type discard struct{}

func (discard) Put(uint32, uint32, []byte) (bool, error) { return true, nil }
func (discard) Flush(context.Context) error              { return nil }
func (discard) Complete() bool                           { return false }
func (discard) Refused() bool                            { return false }

// BenchmarkLoopback sends 256 MiB over loopback at MTU 1500 with 10 repair rows,
// sealed and authenticated, and discards the payload: directly, and through a
// relay that loses 1 %. It reports the CPU time of everything together, what was
// lost, and the rate of the payload without the pauses of lead-in and end.
func BenchmarkLoopback(b *testing.B) {
	b.Run("direct", func(b *testing.B) {
		benchmarkLoopback(b, func(address string) (string, func()) { return address, func() {} })
	})
	b.Run("relay", func(b *testing.B) {
		benchmarkLoopback(b, func(address string) (string, func()) {
			relay, err := linktest.StartRelay(b.Context(), linktest.RelayOptions{Listen: "127.0.0.1:0", Forward: address, Faults: linktest.Options{Drop: 0.01}})
			if err != nil {
				b.Fatal(err)
			}
			return relay.Addr(), func() { relay.Close() }
		})
	})
}

func benchmarkLoopback(b *testing.B, through func(address string) (string, func())) {
	const (
		size   = 256 << 20
		settle = 100 * time.Millisecond
		pauses = settle + 3*8*15*time.Millisecond // lead-in, end of pass, end of session
	)
	k, c, rate := newKeys(33), newCargo(1, 10_000, size), benchmarkRate(b)
	b.SetBytes(size)
	var cpu, elapsed time.Duration
	var sent, lost uint64
	for b.Loop() {
		b.StopTimer()
		s := newSink()
		s.wrap = func(link.Payload) link.Payload { return discard{} }
		file, address := bound(b)
		h := receive(b, k, inherit(b, file, link.SocketOptions{}), s, b.TempDir(), nil)
		address, done := through(address)
		sender, err := link.NewSender(link.SenderConfig{
			Lanes: []link.Lane{{Conn: dial(b, address, link.OffloadAuto), Rate: rate}}, Profile: link.Profile1500, Repair: 10,
			Settle: settle, LinkKey: k.link, ReceiverKey: k.receiver,
		})
		if err != nil {
			b.Fatal(err)
		}
		before := cpuTime(b)
		b.StartTimer()
		report, err := sender.Send(b.Context(), c.transfer())
		b.StopTimer()
		if err != nil {
			b.Fatal(err)
		}
		h.cancel()
		<-h.done
		cpu += cpuTime(b) - before
		elapsed += report.Elapsed - pauses
		sent, lost = sent+report.Sealed, lost+report.Sealed-h.Sessions()[0].Authentic
		done()
		b.StartTimer()
	}
	total := float64(size) * float64(b.N)
	b.ReportMetric(cpu.Seconds()*(1<<30)/total, "CPU-s/GiB")
	b.ReportMetric(100*float64(lost)/float64(sent), "%lost")
	b.ReportMetric(total*8/1e9/elapsed.Seconds(), "Gbit/s")
}

// benchmarkRate is the rate in SLUICE_BENCH_RATE, bits a second; 0 unless set.
func benchmarkRate(b *testing.B) int64 {
	var rate int64
	if s := os.Getenv("SLUICE_BENCH_RATE"); s != "" {
		if _, err := fmt.Sscan(s, &rate); err != nil {
			b.Fatal(err)
		}
	}
	return rate
}

func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestSocketsAreNotPolled: no socket of the link is in the runtime's poller, which would be woken by each datagram.
func TestSocketsAreNotPolled(t *testing.T) {
	file, err := link.BindUDP(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	reader := inherit(t, duplicate(t, file), link.SocketOptions{})
	dial(t, reader.(interface{ LocalAddress() string }).LocalAddress(), link.OffloadOff)
	r, w, err := os.Pipe() // something that is polled
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	watched := map[string]bool{}
	infos, err := filepath.Glob("/proc/self/fdinfo/*")
	if err != nil || len(infos) == 0 {
		t.Fatalf("no /proc: %v", err)
	}
	polled := 0
	for _, name := range infos {
		info, err := os.ReadFile(name)
		if err != nil {
			continue // the one that read the folder
		}
		for line := range strings.Lines(string(info)) {
			if fd, ok := strings.CutPrefix(line, "tfd:"); ok { // proc(5): a descriptor that an epoll instance watches
				polled++
				watched[strings.Fields(fd)[0]] = true
			}
		}
	}
	if polled == 0 {
		t.Fatal("nothing is polled, not even a pipe: this proves nothing")
	}
	for fd := range watched {
		n, err := strconv.Atoi(fd)
		if err != nil {
			t.Fatal(err)
		}
		if kind, err := unix.GetsockoptInt(n, unix.SOL_SOCKET, unix.SO_PROTOCOL); err == nil && kind == unix.IPPROTO_UDP {
			t.Errorf("descriptor %d, a UDP socket, is in the poller", n)
		}
	}
}
