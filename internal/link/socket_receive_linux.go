// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// maxReadBatch is the most messages of one recvmmsg.
const maxReadBatch = 64

// controlSize holds the two control messages that are asked for: UDP_GRO (an
// int) and SO_RXQ_OVFL (a uint32), each padded to 8 bytes behind its header.
const controlSize = 64

// udpReader is a bound UDP socket, read outside the runtime's poller: its reader
// sits on a thread of its own and sleeps in the kernel, so that nothing stands
// between a datagram's arrival and the next recvmmsg.
type udpReader struct {
	file    *os.File // keeps fd open
	fd      int
	wake    int // eventfd: written by Close
	address string
	drops   atomic.Uint64
	closing atomic.Bool
	// mu is held for reading while fd is in use, and for writing to close it.
	mu      sync.RWMutex
	msgs    [maxReadBatch]unix.Mmsghdr
	iovs    [maxReadBatch]unix.Iovec
	control [maxReadBatch][controlSize]byte
	poll    [2]unix.PollFd
}

// BindUDP binds a UDP socket to host:port, for FromFile here or in another
// process. The file is the caller's.
func BindUDP(ctx context.Context, address string) (*os.File, error) {
	conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", address)
	if err != nil {
		return nil, fmt.Errorf("open receiving socket: %w", err)
	}
	file, err := detach(conn.(*net.UDPConn))
	if err != nil {
		return nil, fmt.Errorf("open receiving socket: %w", err)
	}
	return file, nil
}

// detach makes a file of a socket that the runtime's poller knows nothing of, and closes the connection. net.UDPConn.File gives
// one that is registered there: each datagram woke the poller of every process that held such a file, which took a twentieth
// of a transfer's time.
func detach(conn *net.UDPConn) (*os.File, error) {
	fd := -1
	raw, err := conn.SyscallConn()
	if err == nil {
		var inner error
		err = raw.Control(func(n uintptr) { fd, inner = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0) })
		err = errors.Join(err, inner)
	}
	err = errors.Join(err, conn.Close())
	if err == nil {
		err = unix.SetNonblock(fd, false) // after the poller has let go: a file that does not block is registered again
	}
	if err != nil {
		if fd >= 0 {
			_ = unix.Close(fd) // nothing is lost with it
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), "udp"), nil
}

// ListenUDP binds a UDP socket to options.Address and prepares it as FromFile
// does.
func ListenUDP(ctx context.Context, options SocketOptions) (BatchReader, error) {
	file, err := BindUDP(ctx, options.Address)
	if err != nil {
		return nil, err
	}
	r, err := FromFile(file, options)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return r, nil
}

// FromFile takes over a UDP socket that was bound elsewhere: by systemd, so that
// datagrams queue in the kernel while the receiver restarts and none is lost, or
// by a test's parent. On success the reader owns file. It asks for UDP_GRO
// (unless options.GRO is off), for the kernel's drop counts, and for a receive
// buffer of options.Buffer bytes: by SO_RCVBUFFORCE, else as much as
// net.core.rmem_max allows with a warning that names the exact sysctl.
func FromFile(file *os.File, options SocketOptions) (BatchReader, error) {
	options = options.withDefaults(defaultReceiveBuffer)
	fd, err := descriptor(file)
	if err != nil {
		return nil, err
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
	if err != nil || kind != unix.IPPROTO_UDP {
		return nil, fmt.Errorf("%w: %s: protocol %d: %w", ErrSocket, file.Name(), kind, errors.Join(err))
	}
	if err := setReceiveOptions(fd, options); err != nil {
		return nil, err
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("create wake-up descriptor: %w", err)
	}
	r := &udpReader{file: file, fd: fd, wake: wake, address: localAddress(fd)}
	r.poll = [2]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
	return r, nil
}

// descriptor returns the number of an open file without changing its flags,
// which the process that passed it may share.
func descriptor(file *os.File) (int, error) {
	raw, err := file.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrSocket, err)
	}
	fd := -1
	if err := raw.Control(func(n uintptr) { fd = int(n) }); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrSocket, err)
	}
	return fd, nil
}

// setReceiveOptions sets the buffer, GRO and the drop counter.
func setReceiveOptions(fd int, options SocketOptions) error {
	setBuffer(fd, unix.SO_RCVBUF, unix.SO_RCVBUFFORCE, "net.core.rmem_max", options)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1); err != nil {
		options.Logger.Warn("kernel drops not counted with each datagram", zap.Error(err))
	}
	gro := 1
	if options.GRO == OffloadOff {
		gro = 0
	}
	err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, gro)
	if err != nil && options.GRO == OffloadOn {
		return fmt.Errorf("%w: UDP_GRO: %w; set gro to auto or off", ErrOffload, err)
	}
	if err != nil {
		options.Logger.Warn("UDP receive offload not used", zap.Error(err))
	}
	return nil
}

// ReadBatch implements BatchReader: recvmmsg without waiting, and a poll when
// nothing was there.
func (r *udpReader) ReadBatch(bufs []Buffer) (int, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	count := min(len(bufs), maxReadBatch)
	r.prepare(bufs[:count])
	defer clear(r.iovs[:count]) // keep no reference to the buffers
	for !r.closing.Load() {
		n, errno := r.receive(count)
		switch errno {
		case 0:
			r.take(bufs[:n])
			return n, nil
		case unix.EAGAIN:
			if _, err := unix.Poll(r.poll[:], -1); err != nil && !errors.Is(err, unix.EINTR) {
				return 0, fmt.Errorf("wait for datagrams: %w", err)
			}
		case unix.EINTR, unix.ECONNREFUSED, unix.ENOBUFS:
			continue
		default:
			return 0, fmt.Errorf("receive datagrams: %w", errno)
		}
	}
	return 0, net.ErrClosed
}

// receive runs one recvmmsg into the prepared messages.
func (r *udpReader) receive(count int) (int, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(r.fd),
		uintptr(unsafe.Pointer(&r.msgs[0])), uintptr(count), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// prepare points the messages at the buffers.
func (r *udpReader) prepare(bufs []Buffer) {
	for i := range bufs {
		r.iovs[i].Base = &bufs[i].Data[0]
		r.iovs[i].SetLen(len(bufs[i].Data))
		h := &r.msgs[i].Hdr
		h.Iov = &r.iovs[i]
		h.SetIovlen(1)
		h.Control = &r.control[i][0]
		h.SetControllen(controlSize)
	}
}

// take copies the lengths and control messages into the buffers.
func (r *udpReader) take(bufs []Buffer) {
	for i := range bufs {
		m := &r.msgs[i]
		bufs[i].N = int(m.Len)
		bufs[i].Segment = bufs[i].N
		length := uint64(m.Hdr.Controllen) //nolint:unconvert // it has 32 bits on some architectures
		c := parseControl(r.control[i][:min(length, controlSize)])
		if c.segment > 0 {
			bufs[i].Segment = c.segment
		}
		if c.hasDrops {
			r.sawDrops(c.drops)
		}
	}
}

// sawDrops takes in a reading of the kernel's counter.
func (r *udpReader) sawDrops(reading uint32) {
	for {
		old := r.drops.Load()
		if r.drops.CompareAndSwap(old, extendDrops(old, reading)) {
			return
		}
	}
}

// Drops implements BatchReader. SO_RXQ_OVFL rides on the next datagram and so is
// silent when none follows; SO_MEMINFO reads the same counter (the last column
// of /proc/net/udp) at once, without /proc.
func (r *udpReader) Drops() uint64 {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var info [unix.SK_MEMINFO_VARS]uint32
	size := uint32(unsafe.Sizeof(info))
	if r.closing.Load() {
		return r.drops.Load()
	}
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(r.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno == 0 && size == uint32(unsafe.Sizeof(info)) {
		r.sawDrops(info[unix.SK_MEMINFO_DROPS])
	}
	return r.drops.Load()
}

// LocalAddress says where the socket is bound, as address and port; empty: not known.
func (r *udpReader) LocalAddress() string { return r.address }

// localAddress asks where a socket is bound.
func localAddress(fd int) string {
	address, err := unix.Getsockname(fd)
	if err != nil {
		return ""
	}
	switch a := address.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)).String()
	}
	return ""
}

// Close wakes the reader and closes the descriptor. A socket that others hold
// too stays bound, and goes on queueing for them.
func (r *udpReader) Close() error {
	if r.closing.Swap(true) {
		return nil
	}
	one := binary.NativeEndian.AppendUint64(nil, 1)
	_, err := unix.Write(r.wake, one)
	r.mu.Lock() // the reader has left
	defer r.mu.Unlock()
	return errors.Join(err, r.file.Close(), unix.Close(r.wake))
}

// control is what the control messages of one received message say.
type control struct {
	segment  int // size of the datagrams of a GRO aggregate; 0: a single datagram
	drops    uint32
	hasDrops bool
}

// parseControl walks the control messages. It allocates nothing, and stops at
// the first that does not fit.
func parseControl(b []byte) control {
	var c control
	header := unix.CmsgLen(0)
	for len(b) >= header {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		length := uint64(h.Len) //nolint:unconvert // it has 32 bits on some architectures
		if length < uint64(header) || length > uint64(len(b)) {
			return c
		}
		data := b[header:length]
		switch {
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			c.segment = int(int32(binary.NativeEndian.Uint32(data)))
		case h.Level == unix.SOL_SOCKET && h.Type == unix.SO_RXQ_OVFL && len(data) >= 4:
			c.drops, c.hasDrops = binary.NativeEndian.Uint32(data), true
		}
		b = b[min(unix.CmsgSpace(len(data)), len(b)):]
	}
	return c
}
