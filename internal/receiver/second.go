// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"sluice/internal/audit"
	"sluice/internal/durable"
	"sluice/internal/journal"
	"sluice/internal/site"
)

// second is the second place (docs/spec/bulletin.md section 5): what only grows, kept once more, elsewhere.
type second struct {
	Type     string `json:"type"`
	Receiver string `json:"receiver"`
	site.Numbers

	Events int64  `json:"events"`
	Head   string `json:"head"`
}

const (
	secondType = "sluice-second-place-v1"
	maxSecond  = 4 << 10
)

// numbers are those of the state as it is now.
func (r *Receiver) numbers() (second, error) {
	head, err := r.journal.Head()
	return second{Type: secondType, Receiver: r.cfg.Receiver, Numbers: r.site.Numbers(), Events: int64(head.Seq), Head: head.SHA256}, err
}

// checkSecondPlace refuses a state that is behind what the second place remembers, or that is another one.
func (r *Receiver) checkSecondPlace() error {
	if r.cfg.Trust.SecondPlace == "" {
		return nil
	}
	was, err := readSecond(r.cfg.Trust.SecondPlace)
	if errors.Is(err, fs.ErrNotExist) {
		r.log.Warn("trust.second_place is not there yet: it begins now", zap.String("file", r.cfg.Trust.SecondPlace))
		r.remembers = true
		return r.remember()
	}
	if err != nil {
		return err
	}
	now, err := r.numbers()
	if err != nil {
		return err
	}
	if err := r.compareSecond(was, now); err != nil {
		return err
	}
	r.remembers, r.second = true, was
	return nil
}

func (r *Receiver) compareSecond(was, now second) error {
	what := ""
	switch {
	case was.Receiver != now.Receiver:
		what = fmt.Sprintf("it is of receiver %q, this is %q", was.Receiver, now.Receiver)
	case was.Trust > now.Trust:
		what = fmt.Sprintf("it knew %d versions of the trust object, the state has %d", was.Trust, now.Trust)
	case was.Generation > now.Generation, was.Generation == now.Generation && was.Counter > now.Counter:
		what = fmt.Sprintf("it knew snapshot %d by the heartbeat key of version %d, the state stands at %d of version %d", was.Counter, was.Generation, now.Counter, now.Generation)
	case was.Orders > now.Orders:
		what = fmt.Sprintf("it knew %d orders, the state has %d", was.Orders, now.Orders)
	case was.Events > now.Events:
		what = fmt.Sprintf("it knew %d events, the state has %d", was.Events, now.Events)
	default:
		same, err := r.sameEvent(was)
		if err != nil {
			return err
		}
		if !same {
			what = fmt.Sprintf("event %d of the state is not the one that it knew", was.Events)
		}
	}
	if what == "" {
		return nil
	}
	return fmt.Errorf("%w: %s says: %s; restore the newer state, or accept the loss with `diode-receiver trust accept-restored` after you found out why", errRestored, r.cfg.Trust.SecondPlace, what)
}

// sameEvent holds the event that the second place knew as the last one against the journal.
func (r *Receiver) sameEvent(was second) (same bool, err error) {
	if was.Events == 0 {
		return true, nil
	}
	n := uint64(was.Events)
	err = r.journal.RawEvents(n, n, func(raw []byte) error {
		same = fmt.Sprintf("%x", sha256.Sum256(raw)) == was.Head
		return nil
	})
	return same, err
}

// remember tells the second place how far this state is, if it does not know.
func (r *Receiver) remember() error {
	if !r.remembers {
		return nil
	}
	now, err := r.numbers()
	if err != nil || now == r.second {
		return err
	}
	b, err := json.Marshal(now)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(filepath.Dir(r.cfg.Trust.SecondPlace))
	if err != nil {
		return fmt.Errorf("trust.second_place: %w", err)
	}
	defer root.Close()
	if err := durable.WriteFile(root, filepath.Base(r.cfg.Trust.SecondPlace), b, 0o600); err != nil {
		return fmt.Errorf("trust.second_place: %w", err)
	}
	r.second = now
	return nil
}

func readSecond(path string) (second, error) {
	var s second
	f, err := os.Open(path)
	if err != nil {
		return s, fmt.Errorf("trust.second_place: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() > maxSecond {
		return s, errors.Join(fmt.Errorf("trust.second_place: %s is larger than %d bytes", path, maxSecond), err)
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return s, fmt.Errorf("trust.second_place: %w", err)
	}
	if err := json.Unmarshal(b, &s); err != nil || s.Type != secondType {
		return s, errors.Join(fmt.Errorf("trust.second_place: %s is not what was written there; find out who changed it", path), err)
	}
	return s, nil
}

// acceptRestored makes the second place believe the state as it is: a person answers for what is lost, and the log says so.
func (r *Receiver) acceptRestored() error {
	if r.cfg.Trust.SecondPlace == "" {
		return errors.New("trust.second_place: none is configured, so there is nothing to accept")
	}
	was, err := readSecond(r.cfg.Trust.SecondPlace)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now, err := r.numbers()
	if err != nil {
		return err
	}
	said := fmt.Sprintf("the second place knew %d versions of the trust object, snapshot %d, %d orders, %d events; the state has %d, %d, %d, %d",
		was.Trust, was.Counter, was.Orders, was.Events, now.Trust, now.Counter, now.Orders, now.Events)
	if err := r.journal.Append(journal.Event{Actor: r.actor(), Action: audit.ActionRestored, Detail: said}); err != nil {
		return err
	}
	r.remembers, r.second = true, second{}
	return r.remember()
}
