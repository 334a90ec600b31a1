// SPDX-License-Identifier: Apache-2.0

package linktest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"go.uber.org/zap"

	"sluice/internal/link"
)

// RelayOptions configure a Relay.
type RelayOptions struct {
	Listen  string // host:port to receive on; port 0: chosen by the kernel
	Forward string // host:port to send to
	Faults  Options
	Logger  *zap.Logger // may be nil
}

// Relay is a one-way link between real sockets: it receives datagrams on one
// port and forwards them to another, except those that its faults take. Nothing
// goes the other way: it has no code for it. It uses the batched sockets of
// package link, so that it is faster than what it tests.
type Relay struct {
	in    link.BatchReader
	out   link.BatchWriter
	addr  string
	done  chan struct{}
	err   error // of run; read it after done
	batch []byte

	mu    sync.Mutex
	model *model
}

// relayBuffers x 64 KiB is what a Relay reads at a time.
const relayBuffers = 32

// StartRelay opens both sockets and relays in a goroutine until Close or the end
// of ctx.
func StartRelay(ctx context.Context, o RelayOptions) (*Relay, error) {
	in, addr, err := listen(ctx, o)
	if err != nil {
		return nil, err
	}
	out, err := link.DialUDP(ctx, link.SocketOptions{Address: o.Forward, Logger: o.Logger})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("relay: %w", err), in.Close())
	}
	r := &Relay{in: in, out: out, addr: addr, done: make(chan struct{}), model: newModel(o.Faults)}
	stop := context.AfterFunc(ctx, func() { in.Close() })
	go func() {
		defer close(r.done)
		defer stop()
		r.err = errors.Join(r.run(), r.in.Close(), r.out.Close())
	}()
	return r, nil
}

// listen binds the receiving socket and tells its address.
func listen(ctx context.Context, o RelayOptions) (link.BatchReader, string, error) {
	conn, err := (&net.ListenConfig{}).ListenPacket(ctx, "udp", o.Listen)
	if err != nil {
		return nil, "", fmt.Errorf("relay: %w", err)
	}
	defer conn.Close()
	file, err := conn.(*net.UDPConn).File()
	if err != nil {
		return nil, "", fmt.Errorf("relay: %w", err)
	}
	in, err := link.FromFile(file, link.SocketOptions{Logger: o.Logger})
	if err != nil {
		return nil, "", errors.Join(fmt.Errorf("relay: %w", err), file.Close())
	}
	return in, conn.LocalAddr().String(), nil
}

// Addr returns the host:port that the relay receives on.
func (r *Relay) Addr() string { return r.addr }

// Counters returns what went wrong so far; Overflowed is what the kernel dropped
// at the relay's own socket, and what it could not send.
func (r *Relay) Counters() Counters {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.model.count
	c.Overflowed += r.in.Drops()
	return c
}

// Close ends the relay and returns what it died of, if it did.
func (r *Relay) Close() error {
	err := r.in.Close()
	<-r.done
	return errors.Join(err, r.err)
}

// run relays until the receiving socket is closed.
func (r *Relay) run() error {
	bufs := make([]link.Buffer, relayBuffers)
	for i := range bufs {
		bufs[i].Data = make([]byte, link.BufferSize)
	}
	for {
		n, err := r.in.ReadBatch(bufs)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("relay: %w", err)
		}
		for i := range bufs[:n] {
			if err := r.relay(&bufs[i]); err != nil {
				return fmt.Errorf("relay: %w", err)
			}
		}
	}
}

// relay forwards what is left of one aggregate, as aggregates.
func (r *Relay) relay(b *link.Buffer) error {
	for data := b.Data[:b.N]; len(data) > 0; {
		d := data[:min(b.Segment, len(data))]
		data = data[len(d):]
		if len(d) != b.Segment {
			if err := r.flush(b.Segment); err != nil {
				return err
			}
		}
		if err := r.forward(d); err != nil {
			return err
		}
		if len(d) != b.Segment {
			return r.flush(len(d))
		}
	}
	return r.flush(b.Segment)
}

// forward puts one datagram, as its fate wants it, into the batch.
func (r *Relay) forward(d []byte) error {
	if tap := r.model.options.Tap; tap != nil {
		tap(d)
	}
	r.mu.Lock()
	f := r.model.next()
	limited := !f.drop && r.model.limited(len(d), time.Now())
	r.mu.Unlock()
	if f.drop || limited {
		return nil
	}
	if f.duplicate {
		if err := r.add(d); err != nil {
			return err
		}
	}
	if f.corrupt {
		r.model.corrupt(d)
	}
	return r.add(d)
}

// add appends a datagram to the batch, and sends it when it is full.
func (r *Relay) add(d []byte) error {
	r.batch = append(r.batch, d...)
	if count := len(r.batch) / len(d); count < link.MaxSegments && len(r.batch)+len(d) <= link.MaxBatch {
		return nil
	}
	return r.flush(len(d))
}

// flush sends the batch. What the kernel does not take is counted.
func (r *Relay) flush(segment int) error {
	if len(r.batch) == 0 {
		return nil
	}
	count, lost := uint64(len(r.batch)/segment), uint64(0)
	err := r.out.WriteBatch(r.batch, segment)
	r.batch = r.batch[:0]
	var failure *link.SendError
	if errors.As(err, &failure) {
		err, lost = nil, min(uint64(failure.Lost), count)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.model.count.Delivered += count - lost
	r.model.count.Overflowed += lost
	return err
}
