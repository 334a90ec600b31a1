// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"errors"
)

// Reconcile implements Publisher. A release without COMMIT is left alone: its
// objects are whole, and publishing it again uses them.
func (e *engine) Reconcile(ctx context.Context) error {
	if err := e.st.clean(ctx); err != nil {
		return err
	}
	if err := e.finishWithdrawals(ctx); err != nil {
		return err
	}
	h, err := e.head(ctx)
	if err != nil {
		return err
	}
	names, err := e.names(ctx)
	if err != nil {
		return err
	}
	for _, name := range names {
		if !validName(name) {
			continue
		}
		if err := e.finishName(ctx, h, name); err != nil {
			return err
		}
	}
	return nil
}

// finishName announces what is committed under name and not announced.
func (e *engine) finishName(ctx context.Context, h *head, name string) error {
	children, err := e.st.children(ctx, provenancePrefix+name+"/")
	if err != nil {
		return err
	}
	for _, child := range children {
		id, ok := parseID(child)
		if !ok || h.has(Entry{Name: name, Release: id}) {
			continue
		}
		if err := e.finish(ctx, name, id); err != nil {
			return err
		}
	}
	return e.point(ctx, name)
}

// finishWithdrawals does what follows from every record. One that cannot be
// read, or that the catalogue contradicts, is Fsck's finding, and so are files
// of a revoked release that cannot be taken away: the others go on.
func (e *engine) finishWithdrawals(ctx context.Context) error {
	return e.records(ctx, func(_, id string, w *Withdrawal, _ error) error {
		if w == nil {
			return nil
		}
		err := e.staged(ctx, id, func(stage string) error { return e.complete(ctx, w, stage) })
		for _, found := range []error{ErrCorrupt, ErrConflict, ErrNoVersions, ErrDenied} {
			if errors.Is(err, found) {
				return nil
			}
		}
		return err
	}, nil)
}

// finish announces one release, if it is committed. A damaged one is Fsck's
// finding and must not keep the others from being finished.
func (e *engine) finish(ctx context.Context, name, id string) error {
	p, err := e.published(ctx, name, id)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrCorrupt) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, _, err := e.withdrawal(ctx, name, id); errors.Is(err, ErrCorrupt) {
		return nil
	}
	end, err := e.st.begin(ctx, id)
	if err != nil {
		return err
	}
	return errors.Join(e.announce(ctx, p.Receipt.entry()), end())
}
