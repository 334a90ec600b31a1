// SPDX-License-Identifier: Apache-2.0

package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
	"unsafe"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// sendMode is how a batch is handed to the kernel, best first.
type sendMode uint8

const (
	sendGSO   sendMode = iota // one sendmsg with UDP_SEGMENT
	sendMMsg                  // one sendmmsg
	sendWrite                 // one write a datagram
)

func (m sendMode) String() string {
	return [...]string{"gso", "sendmmsg", "write"}[m]
}

// udpWriter is a connected UDP socket. Everything that a send needs is prepared
// once; a batch allocates nothing.
type udpWriter struct {
	file    *os.File // keeps fd open
	fd      int
	mode    sendMode
	log     *zap.Logger
	msg     unix.Msghdr
	iov     unix.Iovec
	control []byte // one UDP_SEGMENT message
	msgs    [MaxSegments]unix.Mmsghdr
	iovs    [MaxSegments]unix.Iovec
}

// DialUDP opens a connected UDP socket to options.Address. It never fragments: a
// datagram longer than the device's MTU is ErrTooLong when it is first sent.
//
// Batches leave by UDP_SEGMENT where options.GSO allows it and the kernel proves
// able: not one of the kernels that mangle equal-length batches, and a train
// over loopback comes out whole. When the device refuses at run time (EIO,
// EINVAL) the socket goes on with sendmmsg, and says so once. IP_RECVERR makes
// the kernel report what its queues dropped (ENOBUFS) instead of hiding it.
func DialUDP(ctx context.Context, options SocketOptions) (BatchWriter, error) {
	options = options.withDefaults(defaultSendBuffer)
	mode, err := chooseMode(ctx, options)
	if err != nil {
		return nil, err
	}
	return dialUDP(ctx, options, mode)
}

// chooseMode decides between GSO and sendmmsg.
func chooseMode(ctx context.Context, options SocketOptions) (sendMode, error) {
	if options.GSO == OffloadOff {
		return sendMMsg, nil
	}
	err := ProbeGSO(ctx)
	switch {
	case err == nil:
		return sendGSO, nil
	case options.GSO == OffloadOn:
		return sendMMsg, fmt.Errorf("%w: %w; set gso to auto or off", ErrOffload, err)
	}
	options.Logger.Warn("UDP segmentation offload not used", zap.Error(err))
	return sendMMsg, nil
}

// dialUDP opens the socket in a given mode.
func dialUDP(ctx context.Context, options SocketOptions, mode sendMode) (*udpWriter, error) {
	dialer := net.Dialer{}
	if options.Local != "" {
		local, err := net.ResolveUDPAddr("udp", options.Local)
		if err != nil {
			return nil, fmt.Errorf("local address: %w", err)
		}
		dialer.LocalAddr = local
	}
	conn, err := dialer.DialContext(ctx, "udp", options.Address)
	if err != nil {
		return nil, fmt.Errorf("open sending socket: %w", err)
	}
	file, err := detach(conn.(*net.UDPConn))
	if err != nil {
		return nil, fmt.Errorf("open sending socket: %w", err)
	}
	w := &udpWriter{file: file, fd: int(file.Fd()), mode: mode, log: options.Logger} // blocking, so that a full buffer waits
	w.control = newSegmentControl()
	setSendOptions(w.fd, options)
	return w, nil
}

// sendTimeout is how long a send may wait for room in the socket's buffer. A device
// that takes nothing any more, paused by its peer, is an error then and no call
// that never comes back.
const sendTimeout = time.Second

// setSendOptions sets what may fail without harm; each failure is a warning.
func setSendOptions(fd int, options SocketOptions) {
	timeout := unix.NsecToTimeval(sendTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &timeout); err != nil {
		options.Logger.Warn("a device that stalls will stall the sender", zap.Error(err))
	}
	setBuffer(fd, unix.SO_SNDBUF, unix.SO_SNDBUFFORCE, "net.core.wmem_max", options)
	v4 := errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_RECVERR, 1))
	v6 := errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE),
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVERR, 1))
	if v4 != nil && v6 != nil { // a socket of one family refuses the options of the other
		options.Logger.Warn("sending socket may fragment, and hides drops of its queue", zap.Error(errors.Join(v4, v6)))
	}
}

// setBuffer sets a socket buffer: by force, else as far as the kernel allows
// with a warning that names the sysctl.
func setBuffer(fd, option, force int, sysctl string, options SocketOptions) {
	got, err := askBuffer(fd, option, force, options.Buffer)
	if err == nil && got >= options.Buffer {
		return
	}
	options.Logger.Warn("socket buffer smaller than wanted: bursts may be lost in this host",
		zap.Int("wanted_bytes", options.Buffer), zap.Int("got_bytes", got),
		zap.String("fix", fmt.Sprintf("sysctl -w %s=%d", sysctl, options.Buffer)),
		zap.Error(err))
}

// askBuffer asks for a socket buffer, by force where that is allowed, and returns
// what the kernel gave.
func askBuffer(fd, option, force, want int) (int, error) {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, want)
	if err != nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, want)
	}
	doubled, getErr := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
	return doubled / 2, errors.Join(err, getErr) // the kernel doubles for its overhead
}

// TryReceiveBuffer returns the receive buffer that a socket of this process gets
// when it asks for want bytes, as ListenUDP asks. No address is bound.
func TryReceiveBuffer(want int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open a socket to try the receive buffer: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // it held nothing
	got, err := askBuffer(fd, unix.SO_RCVBUF, unix.SO_RCVBUFFORCE, want)
	if err != nil {
		return 0, fmt.Errorf("try the receive buffer: %w", err)
	}
	return got, nil
}

// newSegmentControl returns the control message UDP_SEGMENT with room for the
// two bytes of the size.
func newSegmentControl() []byte {
	b := make([]byte, unix.CmsgSpace(2))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	return b
}

// WriteBatch implements BatchWriter.
func (w *udpWriter) WriteBatch(b []byte, segment int) error {
	count, err := checkBatch(b, segment)
	if err != nil {
		return err
	}
	for {
		lost, err := w.writeOnce(b, segment, count)
		if err == nil {
			return nil
		}
		if lost == 0 && w.fallBack(err, count) {
			continue
		}
		return classify(lost, count, segment, err)
	}
}

// writeOnce sends the batch in the current mode. It returns how many datagrams
// were lost to errors after which the rest could still be sent, and the last
// error.
func (w *udpWriter) writeOnce(b []byte, segment, count int) (int, error) {
	switch w.mode {
	case sendGSO:
		if count > 1 {
			return w.writeGSO(b, segment, count)
		}
		return w.writeEach(b, segment)
	case sendMMsg:
		return w.writeMMsg(b, segment, count)
	case sendWrite:
	}
	return w.writeEach(b, segment)
}

// fallBack steps down one mode when the error says that this mode does not work
// here, and reports whether the batch is to be sent again.
func (w *udpWriter) fallBack(err error, count int) bool {
	unusable := w.mode == sendGSO && count > 1 && (errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP)) ||
		w.mode == sendMMsg && errors.Is(err, unix.ENOSYS)
	if !unusable {
		return false
	}
	w.log.Warn("socket mode given up", zap.Stringer("mode", w.mode), zap.Stringer("next", w.mode+1), zap.Error(err))
	w.mode++
	return true
}

// classify turns an errno into a *SendError when a later send may do better.
func classify(lost, count, segment int, err error) error {
	switch {
	case errors.Is(err, unix.EMSGSIZE):
		return fmt.Errorf("%w: %d bytes of UDP payload: raise the MTU of the whole link or use profile 1500: %w", ErrTooLong, segment, err)
	case transient(err):
		return &SendError{Lost: max(lost, 1), Err: err}
	}
	return fmt.Errorf("send batch of %d datagrams: %w", count, err)
}

// transient reports whether the errno says nothing about the next datagram: full
// queues, a link or route that is down, an ICMP error of an earlier datagram, a
// packet filter.
func transient(err error) bool {
	for _, errno := range [...]unix.Errno{
		unix.ENOBUFS, unix.EAGAIN, unix.ENOMEM, unix.EINTR, unix.ECONNREFUSED, unix.ENETDOWN,
		unix.ENETUNREACH, unix.EHOSTDOWN, unix.EHOSTUNREACH, unix.EPERM,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// writeGSO hands the whole batch over as one message that the kernel or the
// device segments.
func (w *udpWriter) writeGSO(b []byte, segment, count int) (int, error) {
	binary.NativeEndian.PutUint16(w.control[unix.CmsgLen(0):], uint16(segment))
	w.iov.Base = &b[0]
	w.iov.SetLen(len(b))
	w.msg.Iov = &w.iov
	w.msg.SetIovlen(1)
	w.msg.Control = &w.control[0]
	w.msg.SetControllen(len(w.control))
	defer func() { w.iov.Base = nil }() // keep no reference to b
	err := w.sendmsg()
	if err != nil && transient(err) {
		err = w.sendmsg() // the first call only reported an earlier datagram's error
	}
	if err != nil && transient(err) {
		return count, err
	}
	return 0, err
}

// sendmsg sends w.msg.
func (w *udpWriter) sendmsg() error {
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(w.fd), uintptr(unsafe.Pointer(&w.msg)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// writeMMsg hands the batch over in as few sendmmsg as the kernel takes, and
// steps over a datagram that it refuses twice.
func (w *udpWriter) writeMMsg(b []byte, segment, count int) (lost int, last error) {
	w.prepare(b, segment, count)
	defer clear(w.iovs[:count]) // keep no reference to b
	retried := false
	for first := 0; first < count; {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(w.fd),
			uintptr(unsafe.Pointer(&w.msgs[first])), uintptr(count-first), 0, 0, 0)
		switch {
		case errno == 0:
			first += int(n)
			retried = false
		case !transient(errno):
			return lost, errno
		case !retried:
			retried = true // the first call only reported an earlier datagram's error
		default:
			lost, last, retried = lost+1, errno, false
			first++
		}
	}
	return lost, last
}

// prepare points the messages of sendmmsg at the datagrams of b.
func (w *udpWriter) prepare(b []byte, segment, count int) {
	for i := range count {
		w.iovs[i].Base = &b[i*segment]
		w.iovs[i].SetLen(segment)
		w.msgs[i].Hdr.Iov = &w.iovs[i]
		w.msgs[i].Hdr.SetIovlen(1)
	}
}

// writeEach is the last resort: one system call a datagram.
func (w *udpWriter) writeEach(b []byte, segment int) (lost int, last error) {
	for ; len(b) > 0; b = b[segment:] {
		_, err := unix.Write(w.fd, b[:segment])
		if err != nil && transient(err) {
			_, err = unix.Write(w.fd, b[:segment])
		}
		switch {
		case err == nil:
		case transient(err):
			lost, last = lost+1, err
		default:
			return lost, err
		}
	}
	return lost, last
}

// Close closes the socket. It is called after the last WriteBatch.
func (w *udpWriter) Close() error { return w.file.Close() }

const (
	probeSegment = 64
	probeCount   = 3
	probeTimeout = 500 * time.Millisecond
)

// ProbeGSO says why UDP_SEGMENT must not be used, or nil: the kernel's version,
// and a train over loopback that has to come out as it went in.
func ProbeGSO(ctx context.Context) error {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fmt.Errorf("read kernel version: %w", err)
	}
	release := unix.ByteSliceToString(name.Release[:])
	if broken, _ := GSOBroken(release); broken {
		return fmt.Errorf("kernel %s mangles batches of equal length (7.0 to 7.1.4): upgrade to 7.1.5", release)
	}
	listener, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("probe over loopback: %w", err)
	}
	defer listener.Close()
	options := SocketOptions{Address: listener.LocalAddr().String(), Buffer: probeSegment << 10, Logger: zap.NewNop()}
	w, err := dialUDP(ctx, options, sendGSO)
	if err != nil {
		return fmt.Errorf("probe over loopback: %w", err)
	}
	defer w.Close()
	return runProbe(w, listener)
}

// runProbe sends the train and reads it back.
func runProbe(w *udpWriter, listener net.PacketConn) error {
	train := make([]byte, probeCount*probeSegment)
	for i := range train {
		train[i] = byte(i)
	}
	if _, err := w.writeGSO(train, probeSegment, probeCount); err != nil {
		return fmt.Errorf("probe over loopback: %w", err)
	}
	got := make([]byte, len(train)+1)
	if err := listener.SetReadDeadline(time.Now().Add(probeTimeout)); err != nil {
		return fmt.Errorf("probe over loopback: %w", err)
	}
	for i := range probeCount {
		n, _, err := listener.ReadFrom(got)
		if err != nil {
			return fmt.Errorf("probe over loopback: %w", err)
		}
		if !bytes.Equal(got[:n], train[i*probeSegment:(i+1)*probeSegment]) {
			return fmt.Errorf("probe over loopback: segment %d came back altered", i)
		}
	}
	return nil
}
