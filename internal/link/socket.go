// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.uber.org/zap"
)

const (
	// MaxBatch is the most bytes of one WriteBatch: what one UDP_SEGMENT send
	// may carry below the 65,507 bytes of an IPv4 datagram.
	MaxBatch = 65000

	// MaxSegments is the most datagrams of one WriteBatch: UDP_MAX_SEGMENTS of
	// the kernels before 6.9.
	MaxSegments = 64

	// BufferSize is what one Buffer holds: the largest GRO aggregate.
	BufferSize = 1 << 16

	// defaultSendBuffer is SO_SNDBUF unless set: a few batches, so that ENOBUFS
	// means a congested device and not a small socket.
	defaultSendBuffer = 4 << 20

	// defaultReceiveBuffer is SO_RCVBUF unless set: half a second of 1 Gbit/s.
	// The loss of a real diode is this buffer's overflow (research: 1 to 500 ms).
	defaultReceiveBuffer = 64 << 20
)

// Errors of the sockets.
var (
	// ErrBatch says that a caller broke the rules of WriteBatch.
	ErrBatch = errors.New("link: malformed batch")
	// ErrTooLong says that a datagram does not fit the MTU of the route.
	ErrTooLong = errors.New("link: datagram longer than the MTU")
	// ErrOffload says that GSO was demanded where it cannot or must not be used.
	ErrOffload = errors.New("link: segmentation offload not usable")
	// ErrSocket says that an inherited file is not a UDP socket.
	ErrSocket = errors.New("link: not a UDP socket")
)

// BatchWriter takes datagrams for the link. One goroutine uses it at a time.
type BatchWriter interface {
	// WriteBatch sends b, a whole number of datagrams of segment bytes each: at
	// most MaxBatch bytes and MaxSegments datagrams. It keeps nothing of b. When
	// some datagrams could not be handed to the kernel but a later call may do
	// better it returns a *SendError; any other error is final.
	WriteBatch(b []byte, segment int) error
	Close() error
}

// BatchReader yields datagrams of the link. One goroutine reads at a time; Drops
// and Close may be called from others.
type BatchReader interface {
	// ReadBatch blocks until a datagram is there, fills the first n of bufs and
	// returns. After Close it returns an error that is net.ErrClosed.
	ReadBatch(bufs []Buffer) (n int, err error)
	// Drops returns how many times the kernel dropped at this socket so far. A
	// GRO aggregate dropped whole counts once, so it is a lower bound.
	Drops() uint64
	Close() error
}

// Buffer is one message received: a datagram, or a GRO aggregate of datagrams of
// Segment bytes of which the last may be shorter. Its owner provides Data, of
// BufferSize bytes; the reader sets N (bytes filled) and Segment.
type Buffer struct {
	Data    []byte
	N       int
	Segment int
}

// SendError says that datagrams were not handed to the kernel: a full device
// queue (ENOBUFS), a link that is down, a pending error of the socket.
type SendError struct {
	Lost int // datagrams
	Err  error
}

// Error names the count and the cause.
func (e *SendError) Error() string {
	return fmt.Sprintf("link: %d datagrams not handed to the kernel: %v", e.Lost, e.Err)
}

// Unwrap returns the cause, an errno.
func (e *SendError) Unwrap() error { return e.Err }

// Offload says whether a segmentation offload is used.
type Offload uint8

// Auto probes and falls back; On fails where the offload cannot be used.
const (
	OffloadAuto Offload = iota
	OffloadOn
	OffloadOff
)

// ParseOffload reads "auto", "on" or "off", the words of the configuration.
func ParseOffload(s string) (Offload, error) {
	switch s {
	case "auto":
		return OffloadAuto, nil
	case "on":
		return OffloadOn, nil
	case "off":
		return OffloadOff, nil
	}
	return OffloadOff, fmt.Errorf("offload %q, want auto, on or off", s)
}

// SocketOptions configures DialUDP, ListenUDP and FromFile.
type SocketOptions struct {
	// Address is host:port: of the receiver for DialUDP, to bind for ListenUDP.
	Address string
	// Local is the host:port to send from; empty: chosen by the kernel.
	Local string
	// Buffer is SO_SNDBUF or SO_RCVBUF in bytes; 0: 4 MiB and 64 MiB.
	Buffer int
	// GSO is UDP_SEGMENT, of DialUDP.
	GSO Offload
	// GRO is UDP_GRO, of ListenUDP and FromFile.
	GRO Offload
	// Logger may be nil.
	Logger *zap.Logger
}

// withDefaults fills what is not set.
func (o SocketOptions) withDefaults(buffer int) SocketOptions {
	if o.Buffer == 0 {
		o.Buffer = buffer
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	return o
}

// checkBatch applies the rules of WriteBatch and returns the number of datagrams.
func checkBatch(b []byte, segment int) (int, error) {
	if segment <= 0 || len(b) == 0 || len(b)%segment != 0 || len(b) > MaxBatch || len(b)/segment > MaxSegments {
		return 0, fmt.Errorf("%w: %d bytes in datagrams of %d; at most %d bytes and %d datagrams",
			ErrBatch, len(b), segment, MaxBatch, MaxSegments)
	}
	return len(b) / segment, nil
}

// batchDatagrams returns how many datagrams of the given size fit one batch.
func batchDatagrams(segment int) int { return min(MaxBatch/segment, MaxSegments) }

// GSOBroken reports whether the kernel release mangles the headers of GSO
// batches whose segments are all of one length, which is all that we send:
// v7.0-rc1 (b10b446) up to the stable releases before 7.1.5 (78effd8, 5f17ae0).
// The damage cannot be seen on the sending machine, so the version decides. Of a
// release that is no version nothing is known.
func GSOBroken(release string) (broken, known bool) {
	v, known := kernelVersion(release)
	return known && v >= kernelNumber(7, 0, 0) && v <= kernelNumber(7, 1, 4), known
}

func kernelNumber(major, minor, patch int) int { return major<<32 | minor<<16 | patch }

// kernelVersion reads the leading "7.1.4" of a release such as "7.1.4-2-amd64".
func kernelVersion(release string) (int, bool) {
	if end := strings.IndexFunc(release, func(r rune) bool { return r != '.' && (r < '0' || r > '9') }); end >= 0 {
		release = release[:end]
	}
	var part [3]int
	for i, s := range strings.SplitN(strings.TrimSuffix(release, "."), ".", len(part)+1) {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil {
			return 0, false
		}
		if i < len(part) {
			part[i] = int(n)
		}
	}
	return kernelNumber(part[0], part[1], part[2]), true
}

// extendDrops continues a 64-bit count with the kernel's 32-bit counter, which
// wraps and of which an older reading may arrive late.
func extendDrops(count uint64, reading uint32) uint64 {
	if ahead := int32(reading - uint32(count)); ahead > 0 {
		return count + uint64(ahead)
	}
	return count
}
