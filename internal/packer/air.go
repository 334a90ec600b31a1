// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"sluice/internal/journal"
)

// air is the one link: either a release is on it, or heartbeats are. A release that wants it stops the heartbeats first.
type air struct {
	link sync.Mutex // held by whoever sends

	mu      sync.Mutex
	waiting int                // releases that want the link
	stop    context.CancelFunc // of the heartbeats that hold it
}

// take stops the heartbeats and gives the link to a release until the returned function is called.
func (a *air) take() (release func()) {
	a.mu.Lock()
	a.waiting++
	if a.stop != nil {
		a.stop()
	}
	a.mu.Unlock()
	a.link.Lock()
	return func() {
		a.link.Unlock()
		a.mu.Lock()
		a.waiting--
		a.mu.Unlock()
	}
}

// rest runs fn with the link while no release wants it. It reports whether fn ran.
func (a *air) rest(ctx context.Context, fn func(context.Context)) bool {
	a.mu.Lock()
	if a.waiting > 0 {
		a.mu.Unlock()
		return false
	}
	quiet, stop := context.WithCancel(ctx)
	defer stop()
	a.stop = stop
	a.mu.Unlock()
	a.link.Lock()
	defer a.link.Unlock()
	fn(quiet)
	return true
}

func (p *Packer) takeAir() (release func()) { return p.air.take() }

// heartbeatRetry is the wait between attempts to take up the heartbeats again after a release or an error.
const heartbeatRetry = 200 * time.Millisecond

// heartbeats keeps the link alive while there is nothing to send, so that the receiver can tell a silent link from an idle sender.
func (p *Packer) heartbeats(ctx context.Context) error {
	tick := time.NewTicker(heartbeatRetry)
	defer tick.Stop()
	for {
		p.air.rest(ctx, func(ctx context.Context) {
			p.onAir.begin(journal.Job{}, 1)
			s, err := p.sender(func(int64, int64) {})
			if err == nil {
				err = s.Idle(ctx)
			}
			if err != nil && ctx.Err() == nil {
				p.onAir.broke(err)
				p.log.Warn("heartbeat", zap.Error(err))
			}
		})
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
