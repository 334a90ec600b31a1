// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"errors"
	"fmt"
	"sync"

	"go.uber.org/zap"

	"sluice/internal/recv"
	"sluice/pkg/envelope"
)

// reception is a payload that is being assembled, and the release it belongs to.
type reception struct {
	id        envelope.Digest
	asm       recv.Assembly
	shelf     *shelf
	cut       recv.Cut
	predicate envelope.Predicate

	once sync.Once
	gone chan struct{} // closed by close
}

func newReception(asm recv.Assembly, sh *shelf, env *envelope.Envelope, cut recv.Cut) *reception {
	return &reception{id: env.ID, asm: asm, shelf: sh, cut: cut, predicate: env.Statement.Predicate, gone: make(chan struct{})}
}

// close brings what is here to stable storage and ends the reception; the next one of the release resumes it.
func (c *reception) close() (err error) {
	c.once.Do(func() {
		close(c.gone)
		err = errors.Join(c.asm.Close(), c.shelf.Close())
	})
	return err
}

// enter makes a reception the one of its release, and watches it. The caller holds mu.
func (r *Receiver) enter(c *reception) {
	r.open[c.id] = c
	r.watchers.Go(func() {
		select {
		case <-c.gone:
		case <-c.asm.Done():
			if err := r.received(c); err != nil {
				r.fail(fmt.Errorf("record of the reception of release %s: %w", c.id, err))
			}
		}
	})
}

// received closes the assembler and records that the bytes are here and on stable storage.
func (r *Receiver) received(c *reception) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open[c.id] != c { // refused, begun anew or closed in this very moment
		return nil
	}
	prog := c.asm.Progress()
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
		cause := r.store().CheckPredicate(c.predicate, r.rules())
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
		if err := c.asm.Err(); err != nil {
			return err
		}
	}
	return r.failed
}
