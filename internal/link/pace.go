// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"time"
)

const (
	// wireOverhead is what a datagram costs on the wire besides its bytes:
	// preamble 8, Ethernet header 14, check sequence 4, gap 12, IPv4 20, UDP 8.
	wireOverhead = 66

	// catchUp is the most time that a late sender makes up for. It absorbs a
	// sleep that took too long, and keeps a stopped sender from a burst that the
	// receiver's socket could not hold.
	catchUp = 5 * time.Millisecond

	// shortSleep is the slack of a timer, the most that is ever spun.
	shortSleep = 100 * time.Microsecond

	// spinRate is the rate above which a batch lasts less than a timer's slack,
	// so that sleeping would turn the stream into bursts: then the last part of
	// a wait is spun.
	spinRate = 2_000_000_000
)

// pacer is a token clock: it says when the next batch may leave.
type pacer struct {
	rate  int64 // bits a second on the wire; 0: unlimited
	next  time.Time
	timer *time.Timer // reused: a batch allocates nothing
}

// wait blocks until a batch may leave that takes the given bytes of datagrams,
// count of them, and charges for it.
func (p *pacer) wait(ctx context.Context, size, count int) error {
	if p.rate == 0 {
		return ctx.Err()
	}
	now := time.Now()
	if oldest := now.Add(-catchUp); p.next.Before(oldest) {
		p.next = oldest
	}
	if err := p.sleepUntil(ctx, now); err != nil {
		return err
	}
	p.next = p.next.Add(p.cost(size, count))
	return nil
}

// cost returns how long the link is busy with a batch.
func (p *pacer) cost(size, count int) time.Duration {
	bits := int64(size+count*wireOverhead) * 8
	return time.Duration(float64(bits) / float64(p.rate) * float64(time.Second))
}

// sleepUntil sleeps until p.next; the last 100 us are spun when the rate is high.
func (p *pacer) sleepUntil(ctx context.Context, now time.Time) error {
	d := p.next.Sub(now)
	spin := p.rate >= spinRate
	if spin {
		d -= shortSleep
	}
	if d > 0 {
		if err := p.sleep(ctx, d); err != nil {
			return err
		}
	}
	for spin && time.Now().Before(p.next) {
		continue
	}
	return ctx.Err()
}

// sleep waits for d or for the end of ctx.
func (p *pacer) sleep(ctx context.Context, d time.Duration) error {
	if p.timer == nil {
		p.timer = time.NewTimer(d)
	} else {
		p.timer.Reset(d)
	}
	select {
	case <-ctx.Done():
		p.timer.Stop()
		return ctx.Err()
	case <-p.timer.C:
		return nil
	}
}
