// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"sluice/internal/link"
	"sluice/internal/spool"
	"sluice/pkg/envelope"
)

// reception is a payload that is being assembled: an open assembler and the release it belongs to.
type reception struct {
	id        envelope.Digest
	obj       *spool.Object
	shelf     *shelf
	geometry  geometry
	predicate envelope.Predicate
	payload   *payload // through which the link reaches it; set by enter

	once sync.Once
	gone chan struct{} // closed by close
}

func newReception(obj *spool.Object, sh *shelf, env *envelope.Envelope, g geometry) *reception {
	return &reception{id: env.ID, obj: obj, shelf: sh, geometry: g, predicate: env.Statement.Predicate, gone: make(chan struct{})}
}

// close brings what is here to stable storage and ends the reception; the next one of the release resumes it.
func (c *reception) close() (err error) {
	c.once.Do(func() {
		if c.payload != nil {
			c.payload.now.CompareAndSwap(c, nil)
		}
		close(c.gone)
		err = errors.Join(c.obj.Close(), c.shelf.Close())
	})
	return err
}

// payload is what the link holds of a release, cut in one way. The link asks once and keeps the answer as long as it knows a
// session of the release, so it outlives receptions: a release that was found damaged is received again through the same one.
type payload struct {
	now atomic.Pointer[reception]
	r   *Receiver
	id  envelope.Digest
}

// Put implements link.Payload. While nothing is being received the symbols are swallowed.
func (p *payload) Put(sbn, esi uint32, symbol []byte) (bool, error) {
	c := p.now.Load()
	if c == nil {
		return false, nil
	}
	out, err := c.obj.Put(sbn, esi, symbol)
	if errors.Is(err, spool.ErrClosed) {
		return false, nil
	}
	return out == spool.Stored, err
}

// Flush implements link.Payload. It holds no lock: Put goes on while damage is being repaired.
func (p *payload) Flush(ctx context.Context) error {
	c := p.now.Load()
	if c == nil {
		return nil
	}
	if err := c.obj.Flush(ctx); !errors.Is(err, spool.ErrClosed) {
		return err
	}
	return nil
}

// Complete implements link.Payload.
func (p *payload) Complete() bool {
	c := p.now.Load()
	return c == nil || c.obj.Complete()
}

// Refused implements link.Payload.
func (p *payload) Refused() bool { return p.now.Load() == nil && p.r.rejected(p.id) }

var _ link.Payload = (*payload)(nil)

// payloadKey is what makes symbols those of one payload.
type payloadKey struct {
	id       envelope.Digest
	geometry geometry
}

// payloadOf gives the link's handle of a reception. The caller holds mu.
func (r *Receiver) payloadOf(c *reception) *payload {
	key := payloadKey{c.id, c.geometry}
	p := r.payloads[key]
	if p == nil {
		p = &payload{r: r, id: c.id}
		r.payloads[key] = p
	}
	return p
}

// enter makes a reception the one of its release, and watches it. The caller holds mu.
func (r *Receiver) enter(c *reception) *payload {
	c.payload = r.payloadOf(c)
	c.payload.now.Store(c)
	r.open[c.id] = c
	r.watchers.Go(func() {
		select {
		case <-c.gone:
		case <-c.obj.Done():
			if err := r.received(c); err != nil {
				r.fail(fmt.Errorf("record of the reception of release %s: %w", c.id, err))
			}
		}
	})
	return c.payload
}

// received closes the assembler and records that the bytes are here and on stable storage.
func (r *Receiver) received(c *reception) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open[c.id] != c { // refused, begun anew or closed in this very moment
		return nil
	}
	prog := c.obj.Progress()
	delete(r.open, c.id)
	if err := c.close(); err != nil {
		return err
	}
	_, err := r.journal.Advance(c.id.String(), stateReceiving, stateReceived, clearError,
		r.newEvent("received", c.id.String(), fmt.Sprintf("%d symbols, %d of them repaired", prog.Symbols, prog.Recovered)))
	r.wake()
	return err
}

// closeReceptions ends all receptions, for the next process to resume, and waits for those that were being recorded.
func (r *Receiver) closeReceptions() error {
	var errs []error
	r.mu.Lock()
	for id, c := range r.open {
		r.log.Info("reception interrupted", zap.String("release", id.String()))
		errs = append(errs, c.close())
	}
	clear(r.open)
	r.mu.Unlock()
	r.watchers.Wait()
	return errors.Join(errs...)
}

// drop ends the reception of a release that was refused. The caller holds mu.
func (r *Receiver) drop(id envelope.Digest) {
	c := r.open[id]
	if c == nil {
		return
	}
	delete(r.open, id)
	if err := c.close(); err != nil { // its bytes are about to be removed
		r.log.Warn("reception of a refused release", zap.String("release", id.String()), zap.Error(err))
	}
}

// dropOvertaken refuses receptions that can never be published any more, so that they do not keep their space and their place
// for ever: the release expired, or its stream moved past it.
func (r *Receiver) dropOvertaken() error {
	r.mu.Lock()
	open := make([]*reception, 0, len(r.open))
	for _, c := range r.open {
		open = append(open, c)
	}
	r.mu.Unlock()
	for _, c := range open {
		cause := r.trust.CheckPredicate(c.predicate, r.rules())
		if cause == nil {
			continue
		}
		env, err := c.shelf.envelope()
		if err != nil {
			r.log.Warn("reception that was overtaken", zap.String("release", c.id.String()), zap.Error(errors.Join(cause, err)))
			continue
		}
		if err := r.settle(env, cause); Classify(err) == Broken {
			return err
		}
	}
	return nil
}

// fail ends the process at the loop's next step: what failed can only be put right by a restart.
func (r *Receiver) fail(err error) {
	r.log.Error("stopping", zap.Error(err))
	r.mu.Lock()
	r.failed = errors.Join(r.failed, err)
	r.mu.Unlock()
	r.wake()
}

// failure is what fail was told, or what broke an assembler behind the link's back.
func (r *Receiver) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.open {
		if err := c.obj.Err(); err != nil {
			return err
		}
	}
	return r.failed
}
