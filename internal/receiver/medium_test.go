// SPDX-License-Identifier: Apache-2.0

package receiver_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/receiver"
	"sluice/internal/trust"
	"sluice/internal/trust/trusttest"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
	"sluice/pkg/registry"
)

func TestImport(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	job, err := b.r.Import(t.Context(), b.medium(r), false)
	must(t, err)
	if job.State != "PUBLISHED" {
		t.Errorf("state %s", job.State)
	}
	b.published(r)
	b.clock.add(time.Minute)
	b.step()
	b.clean()
}

// TestImportAfterFailure: a stage that failed waits for its turn in the daemon's loop; a person who calls the verb again does not wait.
func TestImportAfterFailure(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	b.r.SetTarget(func(to receiver.Target) receiver.Target {
		return failing{Target: to, err: registry.ErrUnavailable}
	})
	if _, err := b.r.Import(t.Context(), b.medium(r), false); err == nil {
		t.Fatal("published by a registry that fails")
	}
	b.restart()
	job, err := b.r.Import(t.Context(), b.medium(r), false)
	must(t, err)
	if job.State != "PUBLISHED" {
		t.Errorf("state %s: the second import waited for the first one's back-off, and said nothing", job.State)
	}
}

// TestImportDamagedMedium: each is refused with evidence, nothing of it stays in the spool, and the whole medium is taken afterwards.
func TestImportDamagedMedium(t *testing.T) {
	file := filepath.Join("payload", "deep", "er", "x.safetensors")
	for name, spoil := range map[string]func(t *testing.T, dir string){
		"an extra file": func(t *testing.T, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "payload", "more"), nil, 0o600))
		},
		"an extra link": func(t *testing.T, dir string) {
			must(t, os.Symlink("README.md", filepath.Join(dir, "payload", "more")))
		},
		"a missing file": func(t *testing.T, dir string) { must(t, os.Remove(filepath.Join(dir, file))) },
		"a cut file":     func(t *testing.T, dir string) { must(t, os.Truncate(filepath.Join(dir, file), 10)) },
		"a longer file":  func(t *testing.T, dir string) { must(t, os.Truncate(filepath.Join(dir, file), 1<<20)) },
		"no payload":     func(t *testing.T, dir string) { must(t, os.RemoveAll(filepath.Join(dir, "payload"))) },
		"a link for the payload": func(t *testing.T, dir string) {
			swap(t, dir, "payload", func(p string) error { return os.Symlink(t.TempDir(), p) })
		},
		"a directory for a file": func(t *testing.T, dir string) { swap(t, dir, file, func(p string) error { return os.Mkdir(p, 0o700) }) },
		"a link for a file": func(t *testing.T, dir string) {
			swap(t, dir, file, func(p string) error { return os.Symlink("/etc/hostname", p) })
		},
		"a flipped bit": func(t *testing.T, dir string) {
			b, err := os.ReadFile(filepath.Join(dir, file))
			must(t, err)
			b[60_000] ^= 1
			must(t, os.WriteFile(filepath.Join(dir, file), b, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			r := b.approved("models/llm", 1)
			dir := b.medium(r)
			spoil(t, dir)
			_, err := b.r.Import(t.Context(), dir, false)
			var refused *receiver.RefusedError
			if !errors.As(err, &refused) {
				t.Fatalf("error %v, want a refusal", err)
			}
			b.want(r, "REJECTED")
			b.evidence(r, "")
			b.notPublished(r)
			if b.spooled(r) {
				t.Error("the spool keeps a refused release")
			}
			_, err = b.r.Import(t.Context(), b.medium(r), false)
			must(t, err)
			b.published(r)
		})
	}
}

func swap(t *testing.T, dir, file string, put func(string) error) {
	t.Helper()
	must(t, os.RemoveAll(filepath.Join(dir, file)))
	must(t, put(filepath.Join(dir, file)))
}

// TestImportLinkOutside: a directory of the payload that leads out of the medium is not followed.
func TestImportLinkOutside(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	dir, outside := b.medium(r), t.TempDir()
	must(t, os.Rename(filepath.Join(dir, "payload", "deep"), filepath.Join(outside, "deep")))
	must(t, os.Symlink(filepath.Join(outside, "deep"), filepath.Join(dir, "payload", "deep")))
	if _, err := b.r.Import(t.Context(), dir, false); err == nil {
		t.Fatal("the medium led outside, and was accepted")
	}
	b.notPublished(r)
}

// TestImportLinkForFile: a link is refused for what it is, also when its own size is right.
func TestImportLinkForFile(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	dir := b.medium(r)
	file := filepath.Join("payload", "deep", "er", "x.safetensors")
	swap(t, dir, file, func(p string) error { return os.Symlink("../../README.md", p) })
	if _, err := b.r.Import(t.Context(), dir, false); !errors.Is(err, envelope.ErrFormat) || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("error %v", err)
	}
	b.notPublished(r)
}

func TestImportNoMedium(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	linked := b.medium(r)
	real := filepath.Join(linked, "real")
	must(t, os.Rename(filepath.Join(linked, "envelope.sluice"), real))
	must(t, os.Symlink("real", filepath.Join(linked, "envelope.sluice")))
	nonsense := t.TempDir()
	must(t, os.WriteFile(filepath.Join(nonsense, "envelope.sluice"), []byte("nonsense"), 0o600))
	for _, dir := range []string{t.TempDir(), filepath.Join(t.TempDir(), "gone"), linked, nonsense} {
		if _, err := b.r.Import(t.Context(), dir, false); err == nil {
			t.Errorf("%s was accepted", dir)
		}
	}
	if b.state(r) != "" {
		t.Errorf("state %s", b.state(r))
	}
}

func TestImportRefusedByPolicy(t *testing.T) {
	b := newBench(t)
	r := b.seal("models/llm", 1, "s.ito")
	if _, err := b.r.Import(t.Context(), b.medium(r), false); !errors.Is(err, mofn.ErrThreshold) {
		t.Errorf("error %v", err)
	}
	b.want(r, "REJECTED")
	must(t, b.site.Approve(r.env, envelope.DecisionApprove, "a.roy"))
	_, err := b.r.Import(t.Context(), b.medium(r), false)
	must(t, err)
	b.published(r)
}

// TestImportAfterHalfReception: the medium brings all of it, and the link's symbols fall on nothing.
func TestImportAfterHalfReception(t *testing.T) {
	for _, restart := range []bool{false, true} {
		b := newBench(t)
		r := b.approved("models/llm", 1)
		p, err := b.announce(r)
		must(t, err)
		source, _ := r.symbols(t, groups, 0)
		put(t, p, source[:len(source)/2])
		if restart {
			b.restart()
		}
		_, err = b.r.Import(t.Context(), b.medium(r), false)
		must(t, err)
		if n := put(t, p, source); n != 0 {
			t.Errorf("%d symbols stored after the import", n)
		}
		b.published(r)
	}
}

// TestReceptionAfterBrokenImport: an import that was cut short leaves no assembler's state; the link begins anew.
func TestReceptionAfterBrokenImport(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.r.Import(ctx, b.medium(r), false); !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v", err)
	}
	b.want(r, "RECEIVING")
	b.restart()
	b.receive(r)
	b.step()
	b.published(r)
}

func TestImportHold(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/held/llm", 1)
	dir := b.medium(r)
	job, err := b.r.Import(t.Context(), dir, false)
	must(t, err)
	if job.State != "HELD" {
		t.Fatalf("state %s", job.State)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.r.Import(ctx, dir, true); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that was given up: %v", err)
	}
	b.clock.add(24*time.Hour - 5*time.Millisecond)
	done := make(chan error, 1)
	go func() { _, err := b.r.Import(context.WithoutCancel(t.Context()), dir, true); done <- err }()
	b.clock.add(10 * time.Millisecond)
	must(t, <-done)
	b.published(r)
}

func TestImportReplay(t *testing.T) {
	b := newBench(t)
	first, second := b.approved("models/llm", 1), b.approved("models/llm", 2)
	dir := b.medium(first)
	for _, d := range []string{dir, dir, b.medium(second)} {
		_, err := b.r.Import(t.Context(), d, false)
		must(t, err)
	}
	if _, err := b.r.Import(t.Context(), dir, false); !errors.Is(err, trust.ErrRollback) {
		t.Errorf("replay: %v", err)
	}
	b.published(first)
	b.published(second)
	if !slices.Contains(b.events(first), "refused replay") {
		t.Errorf("audit trail %v", b.events(first))
	}
}

func TestVerify(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	dir := b.medium(r)
	env, a, err := receiver.Verify(t.Context(), []*trust.Store{b.site.Store}, trusttest.Receiver, dir, nil)
	if err != nil || env.ID != r.env.ID || !a.Valid() {
		t.Fatalf("%v", err)
	}
	if _, _, err := receiver.Verify(t.Context(), []*trust.Store{b.site.Store}, "enclave-b", dir, nil); !errors.Is(err, trust.ErrAudience) {
		t.Errorf("audience: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "payload", "README.md"), []byte("x"), 0o600))
	if _, _, err := receiver.Verify(t.Context(), []*trust.Store{b.site.Store}, trusttest.Receiver, dir, nil); !errors.Is(err, envelope.ErrDigest) {
		t.Errorf("damage: %v", err)
	}
}

func TestVerifyPublished(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	_, err := b.r.Import(t.Context(), b.medium(r), false)
	must(t, err)
	reg, err := receiver.OpenRegistry(b.cfg)
	must(t, err)
	defer reg.Close()
	_, a, err := receiver.VerifyPublished(t.Context(), []*trust.Store{b.site.Store}, b.cfg, reg, "demo", r.env.ID)
	if err != nil || !a.Valid() {
		t.Fatal(err)
	}
	name := filepath.Join(b.publishedDir(r), "data.safetensors")
	data := bytes.Clone(r.files["data.safetensors"].Data)
	data[900_000] ^= 1
	must(t, os.Remove(name))
	must(t, os.WriteFile(name, data, 0o444))
	if _, _, err := receiver.VerifyPublished(t.Context(), []*trust.Store{b.site.Store}, b.cfg, reg, "demo", r.env.ID); err == nil || !strings.Contains(err.Error(), "data.safetensors") {
		t.Errorf("changed bytes: %v", err)
	}
}
