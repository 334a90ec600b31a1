// SPDX-License-Identifier: Apache-2.0

package linktest

import (
	"bytes"
	"net"
	"sync"
	"time"

	"sluice/internal/link"
)

// unboundedQueue is the length of a queue that never drops: the writer waits.
const unboundedQueue = 4096

// Link is a one-way link in process. Any number of writers feed one queue, as on
// a UDP port; one reader at a time empties it. What is queued outlives a reader,
// as in an inherited socket.
type Link struct {
	mu      sync.Mutex
	model   *model
	held    []held
	pending []byte // taken from the queue, did not fit the reader's last batch
	queue   chan []byte
}

// held is a datagram that others overtake.
type held struct {
	data []byte
	left int
}

// New makes a link.
func New(o Options) *Link {
	length := o.QueueLen
	if length == 0 {
		length = unboundedQueue
	}
	return &Link{model: newModel(o), queue: make(chan []byte, length)}
}

// Pair makes a link with one writer and one reader.
func Pair(o Options) (link.BatchWriter, link.BatchReader) {
	l := New(o)
	return l.Writer(), l.Reader()
}

// Writer returns a new writer. Closing it lets go of what is held back.
func (l *Link) Writer() link.BatchWriter { return &writer{link: l} }

// Reader returns a new reader, after the one before was closed.
func (l *Link) Reader() link.BatchReader {
	return &reader{link: l, closed: make(chan struct{})}
}

// Counters returns what went wrong so far.
func (l *Link) Counters() Counters {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.model.count
}

// Inject puts a datagram into the queue as it is: no fault, no count but
// Delivered.
func (l *Link) Inject(datagram []byte) { l.deliver([][]byte{bytes.Clone(datagram)}) }

// Release delivers what is held back.
func (l *Link) Release() {
	l.mu.Lock()
	var out [][]byte
	for _, h := range l.held {
		out = append(out, h.data)
	}
	l.held = nil
	l.mu.Unlock()
	l.deliver(out)
}

// write takes one datagram through the faults and delivers what comes out.
func (l *Link) write(datagram []byte) {
	if l.model.options.Tap != nil {
		l.model.options.Tap(datagram)
	}
	l.mu.Lock()
	out := l.overtake()
	f := l.model.next()
	if !f.drop && !l.model.limited(len(datagram), time.Now()) {
		data := bytes.Clone(datagram)
		if f.duplicate {
			out = append(out, bytes.Clone(data))
		}
		if f.corrupt {
			l.model.corrupt(data)
		}
		if f.hold > 0 {
			l.held = append(l.held, held{data, f.hold})
		} else {
			out = append(out, data)
		}
	}
	l.mu.Unlock()
	l.deliver(out)
}

// overtake counts one more datagram past those held back, and returns those whose
// time has come.
func (l *Link) overtake() [][]byte {
	var out [][]byte
	kept := l.held[:0]
	for _, h := range l.held {
		if h.left--; h.left <= 0 {
			out = append(out, h.data)
		} else {
			kept = append(kept, h)
		}
	}
	l.held = kept
	return out
}

// deliver puts datagrams into the queue. A bounded queue drops what does not fit.
func (l *Link) deliver(datagrams [][]byte) {
	for _, d := range datagrams {
		delivered := true
		if l.model.options.QueueLen == 0 {
			l.queue <- d
		} else {
			select {
			case l.queue <- d:
			default:
				delivered = false
			}
		}
		l.mu.Lock()
		l.model.count.Delivered += one(delivered)
		l.model.count.Overflowed += one(!delivered)
		l.mu.Unlock()
	}
}

type writer struct{ link *Link }

// WriteBatch implements link.BatchWriter.
func (w *writer) WriteBatch(b []byte, segment int) error {
	for ; len(b) > 0; b = b[segment:] {
		w.link.write(b[:segment])
	}
	return nil
}

// Close implements link.BatchWriter.
func (w *writer) Close() error {
	w.link.Release()
	return nil
}

type reader struct {
	link   *Link
	once   sync.Once
	closed chan struct{}
}

// ReadBatch implements link.BatchReader: datagrams of one length come as
// aggregates, as GRO makes them.
func (r *reader) ReadBatch(bufs []link.Buffer) (int, error) {
	d, err := r.first()
	if err != nil {
		return 0, err
	}
	for i := range bufs {
		if d = r.fill(&bufs[i], d); d == nil {
			return i + 1, nil
		}
	}
	r.link.pending = d
	return len(bufs), nil
}

// first waits for a datagram.
func (r *reader) first() ([]byte, error) {
	select {
	case <-r.closed:
		return nil, net.ErrClosed
	default:
	}
	if d := r.link.pending; d != nil {
		r.link.pending = nil
		return d, nil
	}
	select {
	case <-r.closed:
		return nil, net.ErrClosed
	case d := <-r.link.queue:
		return d, nil
	}
}

// fill makes an aggregate that begins with d and returns the datagram that did
// not fit, or nil when no more is queued.
func (r *reader) fill(b *link.Buffer, d []byte) []byte {
	b.Segment = len(d)
	b.N = copy(b.Data, d)
	for count := 1; ; count++ {
		select {
		case d = <-r.link.queue:
		default:
			return nil
		}
		if len(d) != b.Segment || len(d) == 0 || b.N+len(d) > link.MaxBatch || count == link.MaxSegments {
			return d
		}
		b.N += copy(b.Data[b.N:], d)
	}
}

// Drops implements link.BatchReader: what overflowed the queue.
func (r *reader) Drops() uint64 { return r.link.Counters().Overflowed }

// Close implements link.BatchReader. The queue stays.
func (r *reader) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}
