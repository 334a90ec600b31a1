// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// batchTime is how long a batch may occupy the link: at a low rate a full
	// batch would be a burst of half a second.
	batchTime = time.Millisecond

	// patience is how long a sender goes on when every datagram fails. Shorter
	// is a link that flaps; longer is one that a person has to look at.
	patience = 10 * time.Second
)

// errPatience says that everything failed for longer than patience.
var errPatience = errors.New("check the interface, its route and its neighbour entry")

// batcher gathers datagrams of one size, paces the batches and hands them to the
// socket. Its counters are read by the heartbeats.
type batcher struct {
	conn    BatchWriter
	pace    pacer
	segment int
	buf     []byte // whole datagrams; len is what is filled, cap is one batch
	limit   int    // bytes of a full batch

	bytes     int64     // handed to the kernel
	failed    uint64    // datagrams that were not
	failingAt time.Time // since when every batch failed; zero: the last one went
}

// newBatcher sizes the batch to the profile and the rate.
func newBatcher(conn BatchWriter, segment int, rate int64) *batcher {
	count := batchDatagrams(segment)
	if rate > 0 {
		perBatch := float64(rate) * batchTime.Seconds() / 8
		count = max(1, min(count, int(perBatch)/(segment+wireOverhead)))
	}
	return &batcher{
		conn: conn, pace: pacer{rate: rate, next: time.Now()}, segment: segment,
		buf: make([]byte, 0, count*segment), limit: count * segment,
	}
}

// next returns the place of the next datagram, to be filled wholly. The batch
// has room: push sends it when it is full.
func (b *batcher) next() []byte {
	start := len(b.buf)
	b.buf = b.buf[:start+b.segment]
	return b.buf[start:]
}

// push sends the batch if it is full.
func (b *batcher) push(ctx context.Context) error {
	if len(b.buf) < b.limit {
		return nil
	}
	return b.flush(ctx)
}

// flush sends what is gathered, as soon as the rate allows it.
func (b *batcher) flush(ctx context.Context) error {
	if len(b.buf) == 0 {
		return nil
	}
	count := len(b.buf) / b.segment
	if err := b.pace.wait(ctx, len(b.buf), count); err != nil {
		return err
	}
	err := b.conn.WriteBatch(b.buf, b.segment)
	b.buf = b.buf[:0]
	return b.account(count, err)
}

// account counts what became of a batch. Failures of the kernel's queues are
// counted and told in the heartbeats; when nothing went for a while it is an error.
func (b *batcher) account(count int, err error) error {
	lost := 0
	var failure *SendError
	switch {
	case err == nil:
	case errors.As(err, &failure):
		lost = min(failure.Lost, count)
	default:
		return err
	}
	b.failed += uint64(lost)
	b.bytes += int64(count-lost) * int64(b.segment)
	if lost < count {
		b.failingAt = time.Time{}
		return nil
	}
	if b.failingAt.IsZero() {
		b.failingAt = time.Now()
	}
	if d := time.Since(b.failingAt); d > patience {
		return fmt.Errorf("no datagram left this host for %v: %w: %w", d.Round(time.Second), errPatience, err)
	}
	return nil
}
