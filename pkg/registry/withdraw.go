// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The marks of a catalogue entry.
const (
	markSuspended = "suspended"
	markRevoked   = "revoked"
)

// withdrawStage before a release id names the lock, and the staging area, that
// keeps the withdrawals of one release apart. It is not that of its publishers:
// one of those may be hashing for hours, and a stop waits for nobody.
const withdrawStage = "w-"

// newRecord joins what the caller says and what the registry adds.
func (e *engine) newRecord(name, id string, w Withdrawal, withdrawn bool) (*Withdrawal, error) {
	w.Type, w.Name, w.Release, w.Withdrawn = typeWithdrawal, name, id, withdrawn
	w.At, w.Receiver = e.now(), e.opt.Receiver
	w.Orders = slices.Compact(slices.Sorted(slices.Values(w.Orders)))
	if err := w.check(); err != nil {
		return nil, fmt.Errorf("%w: withdrawal: %w", ErrInvalid, err)
	}
	return &w, nil
}

// Withdraw implements Publisher: section "Withdrawal" of registry-layout.md.
func (e *engine) Withdraw(ctx context.Context, name string, id [32]byte, w Withdrawal) error {
	rec, err := e.newRecord(name, hexID(id), w, true)
	if err != nil {
		return err
	}
	if err := e.known(ctx, name, rec.Release); err != nil {
		return err
	}
	return e.staged(ctx, rec.Release, func(stage string) error {
		now, err := e.record(ctx, rec)
		if err != nil {
			return err
		}
		return e.complete(ctx, now, stage)
	})
}

// staged runs do under the lock of the release's withdrawals.
func (e *engine) staged(ctx context.Context, id string, do func(stage string) error) error {
	stage := withdrawStage + id
	end, err := e.st.begin(ctx, stage)
	if err != nil {
		return err
	}
	return errors.Join(do(stage), end())
}

// known returns ErrNotFound for a release that nobody published: it has no
// COMMIT, and no catalogue names it. What COMMIT says does not matter: a
// damaged release can be stopped like any other.
func (e *engine) known(ctx context.Context, name, id string) error {
	if !validName(name) {
		return fmt.Errorf("%w: name %q", ErrNotFound, name)
	}
	_, missing := e.st.stat(ctx, commitKey(name, id))
	if !errors.Is(missing, ErrNotFound) {
		return missing
	}
	h, err := e.head(ctx)
	if err != nil {
		return err
	}
	if h.find(name, id) >= 0 {
		return nil
	}
	return missing
}

// record writes the first step, unless what stands there says as much, and
// returns what stands there then.
func (e *engine) record(ctx context.Context, w *Withdrawal) (*Withdrawal, error) {
	for {
		now, tag, err := e.withdrawal(ctx, w.Name, w.Release)
		if err != nil {
			return nil, err
		}
		next, err := now.join(w)
		if err != nil || next == now {
			return now, err
		}
		err = e.swapRecord(ctx, next, tag)
		if err == nil {
			return next, nil
		}
		if !errors.Is(err, errExists) {
			return nil, err
		}
	}
}

// join is the record after w came to now: now itself when nothing is to be
// written. A second stop keeps the words of the first and adds its orders, so
// that who gives the release back meanwhile is refused.
func (w *Withdrawal) join(came *Withdrawal) (*Withdrawal, error) {
	switch {
	case w == nil || !w.Withdrawn:
		return came, nil
	case w.Final:
		return w, nil
	case came.Final:
		return came, nil
	}
	all := slices.Compact(slices.Sorted(slices.Values(slices.Concat(w.Orders, came.Orders))))
	if len(all) == len(w.Orders) {
		return w, nil
	}
	next := *w
	next.Orders = all
	if err := next.check(); err != nil {
		return nil, fmt.Errorf("%w: the release stays suspended by the orders before: %w", ErrInvalid, err)
	}
	return &next, nil
}

func (e *engine) swapRecord(ctx context.Context, w *Withdrawal, tag string) error {
	data, err := encode(w)
	if err != nil {
		return err
	}
	return e.st.swap(ctx, withdrawalKey(w.Name, w.Release), tag, data)
}

// complete does what follows from a record: mark, channel, and, when it is for
// good, the files. A catalogue that is damaged does not keep the files there.
func (e *engine) complete(ctx context.Context, w *Withdrawal, stage string) error {
	err := e.follow(ctx, w.Name, w.Release, stage)
	if !w.Final {
		return err
	}
	return errors.Join(err, e.st.hide(ctx, releasePrefix(w.Name, w.Release)))
}

// follow enters the release or its mark, and moves the channel.
func (e *engine) follow(ctx context.Context, name, id, stage string) error {
	var fresh *Entry
	p, err := e.published(ctx, name, id)
	switch {
	case err == nil:
		entry := p.Receipt.entry()
		fresh = &entry
	case !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNotFound):
		return err // else there is nothing to enter; an entry that is there takes its mark all the same
	}
	if err := e.enter(ctx, name, id, stage, fresh); err != nil {
		return err
	}
	return e.point(ctx, name)
}

// Restore implements Publisher.
func (e *engine) Restore(ctx context.Context, name string, id, directory [32]byte, w Withdrawal) error {
	w.Final = false
	rec, err := e.newRecord(name, hexID(id), w, false)
	if err != nil {
		return err
	}
	tag, err := e.mayRestore(ctx, name, rec.Release)
	if err != nil {
		return err
	}
	if tag != "" {
		if err := e.whole(ctx, name, rec.Release, directory); err != nil {
			return fmt.Errorf("not given back: %w", err)
		}
	}
	return e.staged(ctx, rec.Release, func(stage string) error {
		if tag != "" {
			if err := e.swapRecord(ctx, rec, tag); errors.Is(err, errExists) {
				return fmt.Errorf("%w: another order came while the files were read; not given back: look at it, then decide again", ErrConflict)
			} else if err != nil {
				return err
			}
		}
		return e.follow(ctx, name, rec.Release, stage)
	})
}

// mayRestore returns the tag of the record that says that the release is
// suspended; "" when it is not withdrawn, so that only what follows from that
// is left to do.
func (e *engine) mayRestore(ctx context.Context, name, id string) (tag string, err error) {
	if err := e.known(ctx, name, id); err != nil {
		return "", err
	}
	h, err := e.head(ctx) // before the record: a mark follows its record, so that a mark seen here has one there
	if err != nil {
		return "", err
	}
	now, tag, err := e.withdrawal(ctx, name, id)
	if err != nil {
		return "", err
	}
	mark := ""
	if i := h.find(name, id); i >= 0 {
		mark = h.entries[i].Withdrawn
	}
	switch {
	case now != nil && now.Final:
		return "", fmt.Errorf("%w: %w", ErrFinal, now.refusal())
	case mark == markRevoked:
		return "", fmt.Errorf("%w: the catalogue says so, %s does not; find out who changed it", ErrFinal, withdrawalKey(name, id))
	case now == nil && mark != "":
		return "", fmt.Errorf("%s: %w", withdrawalKey(name, id), corruptf("the catalogue says %s and the record is gone; withdraw it again first", mark))
	case now == nil || !now.Withdrawn:
		return "", nil
	}
	return tag, nil
}

// whole reads every object of a release that nobody can open now, and holds
// it against the receipt, and the receipt's files against the statement's
// directory digest.
func (e *engine) whole(ctx context.Context, name, id string, directory [32]byte) error {
	c, err := e.readCommit(ctx, name, id)
	if err != nil {
		return err
	}
	p, err := e.load(ctx, name, id, c)
	if err != nil {
		return err
	}
	if p.DirectoryDigest != directory {
		return corruptf("%s: directory digest %x, the statement says %x", commitKey(name, id), p.DirectoryDigest, directory)
	}
	return e.judge(ctx, name, id)
}

// Withdrawn implements Publisher.
func (e *engine) Withdrawn(ctx context.Context, name string, id [32]byte) (Withdrawal, bool, error) {
	if err := e.known(ctx, name, hexID(id)); err != nil {
		return Withdrawal{}, false, err
	}
	w, _, err := e.withdrawal(ctx, name, hexID(id))
	if err != nil || w == nil {
		return Withdrawal{}, false, err
	}
	return *w, w.Withdrawn, nil
}

// withdrawal reads the record of a release and its tag; nil and "" when there is none.
func (e *engine) withdrawal(ctx context.Context, name, id string) (*Withdrawal, string, error) {
	key := withdrawalKey(name, id)
	data, obj, err := e.readSmall(ctx, key, maxSmallJSON)
	if errors.Is(err, ErrNotFound) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	w, err := parseWithdrawal(data)
	if err == nil && (w.Name != name || w.Release != id) {
		err = corruptf("it is for %s %s", w.Name, w.Release)
	}
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", key, err)
	}
	return w, obj.tag, nil
}

// refuseWithdrawn is a reader's look at the record.
func (e *engine) refuseWithdrawn(ctx context.Context, name, id string) error {
	w, _, err := e.withdrawal(ctx, name, id)
	if err != nil || w == nil || !w.Withdrawn {
		return err
	}
	return w.refusal()
}

// refusal says what a reader of a withdrawn release is told.
func (w *Withdrawal) refusal() error {
	// The reason is quoted: it may hold what turns a terminal's line around.
	return fmt.Errorf("%w: %s %s is %s since %s: %q (orders %s)", ErrWithdrawn, w.Name, w.Release, w.mark(), w.At, w.Reason, strings.Join(w.Orders, ", "))
}

// records calls each for every record of the registry, in order, with its
// content; with nil for one that cannot be read. other is told of keys that are
// no record; it may be nil.
func (e *engine) records(ctx context.Context, each func(name, id string, w *Withdrawal, why error) error, other func(key string)) error {
	found := make(map[string][2]string)
	err := e.st.list(ctx, withdrawalsPrefix, func(o object) error {
		if name, id, ok := parseWithdrawalKey(o.key); ok {
			found[o.key] = [2]string{name, id}
		} else if other != nil {
			other(o.key)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(found)) {
		name, id := found[key][0], found[key][1]
		w, _, err := e.withdrawal(ctx, name, id)
		if err != nil && !errors.Is(err, ErrCorrupt) {
			return err
		}
		if w == nil && err == nil {
			continue // taken away since
		}
		if err := each(name, id, w, err); err != nil {
			return err
		}
	}
	return nil
}

// split divides the newest catalogue into what readers see, and the rest with
// its reasons.
func (e *engine) split(ctx context.Context) (seen []Entry, gone []WithdrawnEntry, err error) {
	h, err := e.head(ctx)
	if err != nil {
		return nil, nil, err
	}
	records := make(map[string]*Withdrawal)
	err = e.records(ctx, func(name, id string, w *Withdrawal, _ error) error {
		records[name+"/"+id] = w
		return nil
	}, nil)
	if err != nil {
		return nil, nil, err
	}
	seen, gone = make([]Entry, 0, len(h.entries)), []WithdrawnEntry{}
	for _, en := range h.entries {
		w, there := records[en.Name+"/"+en.Release]
		switch {
		case w != nil && w.Withdrawn:
			gone = append(gone, WithdrawnEntry{en, *w})
		case en.Withdrawn != "" || there && w == nil: // no record, or one that cannot be read: Fsck says which
			gone = append(gone, WithdrawnEntry{en, Withdrawal{
				Type: typeWithdrawal, Name: en.Name, Release: en.Release, Withdrawn: true, Final: en.Withdrawn == markRevoked,
				Reason: "unknown: " + withdrawalKey(en.Name, en.Release) + " does not say; run fsck",
			}})
		default:
			seen = append(seen, en)
		}
	}
	return seen, gone, nil
}

// ListWithdrawn implements Publisher.
func (e *engine) ListWithdrawn(ctx context.Context) ([]WithdrawnEntry, error) {
	_, gone, err := e.split(ctx)
	return gone, err
}
