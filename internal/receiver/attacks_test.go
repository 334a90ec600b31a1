// SPDX-License-Identifier: Apache-2.0

package receiver_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"sluice/internal/receiver"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// The attacks of the design that are about bytes on a disk, or about what the receiver remembers; the others are in internal/trust.

// TestAttackSymlink: a file of a medium is what it says only when it is a regular file there. Each link leads to the right bytes,
// so that nothing but its kind is wrong with it.
func TestAttackSymlink(t *testing.T) {
	b := newBench(t)
	file := filepath.Join("payload", "data.safetensors")
	outside := func(dir string) string {
		out := filepath.Join(t.TempDir(), "x")
		must(t, os.Rename(filepath.Join(dir, file), out))
		return out
	}
	for seq, c := range []struct {
		name  string
		spoil func(dir string)
	}{
		{"to a file outside", func(dir string) { must(t, os.Symlink(outside(dir), filepath.Join(dir, file))) }},
		{"to a file beside it", func(dir string) {
			must(t, os.Rename(filepath.Join(dir, file), filepath.Join(dir, "x")))
			must(t, os.Symlink("../x", filepath.Join(dir, file)))
		}},
		{"a directory outside", func(dir string) {
			out := filepath.Join(t.TempDir(), "payload")
			must(t, os.Rename(filepath.Join(dir, "payload"), out))
			must(t, os.Symlink(out, filepath.Join(dir, "payload")))
		}},
		{"a directory below", func(dir string) {
			must(t, os.Rename(filepath.Join(dir, "payload", "deep"), filepath.Join(dir, "deep")))
			must(t, os.Symlink("../deep", filepath.Join(dir, "payload", "deep")))
		}},
		{"a pipe, which would never end", func(dir string) {
			must(t, os.Remove(filepath.Join(dir, file)))
			must(t, syscall.Mkfifo(filepath.Join(dir, file), 0o600))
		}},
		{"the envelope", func(dir string) {
			must(t, os.Rename(filepath.Join(dir, "envelope.sluice"), filepath.Join(dir, "x")))
			must(t, os.Symlink("x", filepath.Join(dir, "envelope.sluice")))
		}},
		{"the envelope is a pipe", func(dir string) {
			must(t, os.Remove(filepath.Join(dir, "envelope.sluice")))
			must(t, syscall.Mkfifo(filepath.Join(dir, "envelope.sluice"), 0o600))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := b.approved("models/llm", int64(seq)+1)
			dir := b.medium(r)
			c.spoil(dir)
			if _, err := b.r.Import(t.Context(), dir, false); err == nil {
				t.Error("the medium was accepted")
			}
			b.notPublished(r)
			_, err := b.r.Import(t.Context(), b.medium(r), false)
			must(t, err) // the release itself was good, and a bad medium does not spoil it
			b.published(r)
		})
	}
}

// TestAttackEndlessData: what is announced is the end of what is read, and before the statement verified there is no place in
// the spool for one byte of the payload.
func TestAttackEndlessData(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	good := r.stream(t)
	more := append(bytes.Clone(good), make([]byte, 1<<20)...)
	for name, size := range map[string]int64{"a byte more": int64(len(good)) + 1, "a mebibyte more": int64(len(more)), "a byte less": int64(len(good)) - 1} {
		if _, err := b.r.Envelope(t.Context(), r.announcement(), bytes.NewReader(more), size); !errors.Is(err, envelope.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
		b.nothingWritten(name)
	}
	poor := b.seal("models/llm", 1, "s.ito")
	if _, err := b.announce(poor); !errors.Is(err, mofn.ErrThreshold) {
		t.Errorf("too few approvals: %v", err)
	}
	b.nothingWritten("too few approvals")
	huge := r.announcement()
	huge.PayloadSize = 1 << 50
	if _, err := b.announceAs(r, huge); err == nil {
		t.Error("an announcement of 2^50 bytes was accepted")
	}
	b.nothingWritten("an announcement of 2^50 bytes")
}

// nothingWritten looks for places of payloads.
func (b *bench) nothingWritten(name string) {
	b.Helper()
	entries, err := os.ReadDir(b.path("spool"))
	must(b.T, err)
	if len(entries) > 0 {
		b.Errorf("%s: the spool holds %v", name, entries)
	}
}

// TestAttackFastForward: a release too far ahead is refused and moves nothing, so the next one still passes (CVE-2025-2888 was a
// refused object that was remembered).
func TestAttackFastForward(t *testing.T) {
	b := newBench(t)
	first := b.approved("models/llm", 1)
	b.receive(first)
	b.step()
	b.published(first)
	far := b.approved("models/llm", 1+1<<20+1)
	for range 2 {
		if _, err := b.announce(far); !errors.Is(err, trust.ErrFastForward) || receiver.Classify(err) != receiver.Refused {
			t.Fatalf("too far: %v", err)
		}
		if _, err := b.r.Import(t.Context(), b.medium(far), false); !errors.Is(err, trust.ErrFastForward) {
			t.Errorf("too far, from a medium: %v", err)
		}
		b.restart()
	}
	b.want(far, "REJECTED")
	if b.spooled(far) || !strings.Contains(b.job(far).LastError, "raise the floor") {
		t.Errorf("spooled: %t, reason %q", b.spooled(far), b.job(far).LastError)
	}
	next := b.approved("models/llm", 2)
	b.receive(next)
	b.step()
	b.published(next)
}
