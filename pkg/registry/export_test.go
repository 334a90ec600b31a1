// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"io"
)

// Hook sees every operation of a store: before it (after=false), when an error
// keeps it from happening, and after it, when an error takes its result's place.
type Hook func(op, key string, after bool) error

// Intercept puts hook between the publication sequence and the store.
func Intercept(p Publisher, hook Hook) {
	switch p := p.(type) {
	case *Directory:
		p.st = &hooked{p.st, hook}
	case *S3:
		p.st = &hooked{p.st, hook}
	}
}

// Poison makes a directory target believe that an fsync failed.
func Poison(d *Directory) { d.st.(*dirStore).failed.Store(true) }

// Parsers of the package's own objects, for fuzzing: each returns the value it
// accepted, which must encode to the same bytes.
func Parsers() map[string]func([]byte) (any, error) {
	return map[string]func([]byte) (any, error){
		"commit":  func(b []byte) (any, error) { return parseCommit(b) },
		"channel": func(b []byte) (any, error) { return parseChannel(b) },
		"receipt": func(b []byte) (any, error) { return parseReceipt(b) },
		"catalog": func(b []byte) (any, error) { return parseCatalog(b, 1) },

		"withdrawal": func(b []byte) (any, error) { return parseWithdrawal(b) },
	}
}

// Encode is the canonical encoder.
func Encode(v any) ([]byte, error) { return encode(v) }

// Names for tests of the layout.
var (
	ParseSerialKey     = parseSerialKey
	SerialKey          = serialKey
	ParseWithdrawalKey = parseWithdrawalKey
	ValidName          = validName
	ValidStream        = validStream
	ValidPath          = validPath
)

type hooked struct {
	store
	hook Hook
}

func (h *hooked) around(op, key string, do func() error) error {
	if err := h.hook(op, key, false); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return h.hook(op, key, true)
}

func (h *hooked) begin(ctx context.Context, id string) (end func() error, err error) {
	err = h.around("begin", id, func() error {
		end, err = h.store.begin(ctx, id)
		return err
	})
	if err != nil && end != nil {
		_ = end()
	}
	return end, err
}

func (h *hooked) put(ctx context.Context, key string, b body) (w written, err error) {
	err = h.around("put", key, func() error {
		w, err = h.store.put(ctx, key, b)
		return err
	})
	return w, err
}

func (h *hooked) get(ctx context.Context, key string, fresh bool) (rc io.ReadSeekCloser, o object, err error) {
	err = h.around("get", key, func() error {
		rc, o, err = h.store.get(ctx, key, fresh)
		return err
	})
	if err != nil && rc != nil {
		rc.Close()
	}
	return rc, o, err
}

func (h *hooked) stat(ctx context.Context, key string) (o object, err error) {
	err = h.around("stat", key, func() error {
		o, err = h.store.stat(ctx, key)
		return err
	})
	return o, err
}

func (h *hooked) list(ctx context.Context, prefix string, each func(object) error) error {
	return h.around("list", prefix, func() error { return h.store.list(ctx, prefix, each) })
}

func (h *hooked) swap(ctx context.Context, key, tag string, data []byte) error {
	return h.around("swap", key, func() error { return h.store.swap(ctx, key, tag, data) })
}

func (h *hooked) hide(ctx context.Context, prefix string) error {
	return h.around("hide", prefix, func() error { return h.store.hide(ctx, prefix) })
}

func (h *hooked) settle(ctx context.Context, prefix string) error {
	return h.around("settle", prefix, func() error { return h.store.settle(ctx, prefix) })
}
