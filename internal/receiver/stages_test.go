// SPDX-License-Identifier: Apache-2.0

package receiver_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/receiver"
	"sluice/internal/trust/trusttest"
	"sluice/pkg/envelope"
	"sluice/pkg/registry"
)

// failing is a registry that answers Publish with an error.
type failing struct {
	receiver.Target
	err   error
	calls *int
}

func (f failing) Publish(context.Context, registry.Release, registry.Source, func(done, total int64)) (*registry.Receipt, error) {
	if f.calls != nil {
		*f.calls++
	}
	return nil, f.err
}

func (failing) Close() error { return nil }

// TestCrashBetweenStates opens a new process after every stage; a stage that a crash undid is done again.
func TestCrashBetweenStates(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	p, err := b.announce(r)
	must(t, err)
	source, _ := r.symbols(t, groups, 0)
	put(t, p, source[:len(source)/2])
	b.restart()
	b.want(r, "RECEIVING")
	if b.r.OpenReceptions() != 1 {
		t.Fatal("the reception was not resumed")
	}
	p, err = b.announce(r)
	must(t, err)
	if n := put(t, p, source); n > len(source)/2+1 {
		t.Errorf("%d symbols had to be received again", n)
	}
	must(t, p.Flush(t.Context()))
	b.await(r, "RECEIVED")
	for range 4 {
		b.restart()
		ctx, cancel := context.WithCancel(t.Context())
		b.r.SetTarget(func(t receiver.Target) receiver.Target { return stopAfter{t, cancel} })
		must(t, b.r.Step(ctx))
		cancel()
	}
	b.step()
	b.published(r)
	b.restart()
	b.step()
	b.published(r)
}

// stopAfter cancels in the middle of the stage.
type stopAfter struct {
	receiver.Target
	cancel context.CancelFunc
}

func (s stopAfter) Publish(ctx context.Context, rel registry.Release, src registry.Source, progress func(done, total int64)) (*registry.Receipt, error) {
	s.cancel()
	return s.Target.Publish(ctx, rel, src, progress)
}

// TestDrain: a stage that runs when the process is told to stop is finished and recorded.
func TestDrain(t *testing.T) {
	b := newBench(t)
	r, next := b.approved("models/llm", 1), b.approved("models/z", 1)
	b.receive(r)
	ctx, cancel := context.WithCancel(t.Context())
	b.r.SetTarget(func(t receiver.Target) receiver.Target { return stopAfter{t, cancel} })
	must(t, b.r.Step(ctx))
	b.published(r)
	b.receive(next)
	must(t, b.r.Step(ctx))
	b.want(next, "RECEIVED")
}

// TestPublishedButNotRecorded: a crash between the registry's COMMIT and the journal publishes again, to the same effect.
func TestPublishedButNotRecorded(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	b.receive(r)
	b.r.SetTarget(func(t receiver.Target) receiver.Target { return forgetful{t} })
	b.step()
	b.want(r, "HELD")
	b.clock.add(time.Hour)
	b.restart()
	b.step()
	b.published(r)
}

type forgetful struct{ receiver.Target }

func (f forgetful) Publish(ctx context.Context, rel registry.Release, src registry.Source, progress func(done, total int64)) (*registry.Receipt, error) {
	_, err := f.Target.Publish(ctx, rel, src, progress)
	return nil, errors.Join(err, registry.ErrUnavailable)
}

// TestDamageIsReceivedAgain: rotten bytes go back to the assembler, through the handle that the link already holds; the third time is
// a refusal.
func TestDamageIsReceivedAgain(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	p, err := b.announce(r)
	must(t, err)
	b.fill(r, p)
	source, _ := r.symbols(t, groups, 0)
	for n := 1; n < receiver.MaxDamage; n++ {
		b.spoil(r, 1, 5000)
		b.step()
		b.want(r, "RECEIVING")
		b.notPublished(r)
		if stored := put(t, p, source); stored == 0 || stored > len(source)-100 {
			t.Fatalf("%d of %d symbols received again", stored, len(source))
		}
		must(t, p.Flush(t.Context()))
		b.await(r, "RECEIVED")
	}
	b.spoil(r, 1, 5000)
	b.step()
	b.want(r, "REJECTED")
	b.evidence(r, "data.safetensors")
	b.notPublished(r)
	if b.spooled(r) {
		t.Error("the spool keeps a refused release")
	}
}

func TestDamageOnceThenPublished(t *testing.T) {
	for name, spoil := range map[string]func(b *bench, r release){
		"a flipped bit": func(b *bench, r release) { b.spoil(r, 2, 4000) },
		"a lost file": func(b *bench, r release) {
			must(b.T, os.Remove(b.path("spool", r.id(), "payload", "files", "000001")))
		},
		"a cut file": func(b *bench, r release) {
			must(b.T, os.Truncate(b.path("spool", r.id(), "payload", "files", "000001"), 17))
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			r := b.approved("models/llm", 1)
			b.receive(r)
			spoil(b, r)
			b.step()
			b.want(r, "RECEIVING")
			b.receive(r)
			b.step()
			b.published(r)
		})
	}
}

// TestDamageWhileHeld: what rots while a release waits is found before it is published.
func TestDamageWhileHeld(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/held/llm", 1)
	b.receive(r)
	b.step()
	b.want(r, "HELD")
	b.spoil(r, 1, 700_000)
	b.clock.add(24 * time.Hour)
	b.step()
	b.want(r, "RECEIVING")
	if _, err := os.Stat(b.publishedDir(r)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was written below releases/: %v", err)
	}
	b.receive(r)
	b.step()
	b.clock.add(24 * time.Hour)
	b.step()
	b.published(r)
}

func TestLostEnvelope(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"gone":    os.Remove,
		"cut":     func(path string) error { return os.Truncate(path, 100) },
		"foreign": func(path string) error { return os.WriteFile(path, []byte("SLUICE\x01\nwhat"), 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			r := b.approved("models/llm", 1)
			b.receive(r)
			must(t, spoil(b.path("spool", r.id(), "envelope.sluice")))
			b.step()
			b.want(r, "REJECTED")
			b.receive(r)
			b.step()
			b.published(r)
		})
	}
}

func TestHold(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/held/llm", 1)
	b.receive(r)
	b.step()
	for _, wait := range []time.Duration{0, 23*time.Hour + 59*time.Minute} {
		b.clock.add(wait)
		b.restart()
		b.step()
		b.want(r, "HELD")
		b.notPublished(r)
	}
	b.clock.add(time.Minute)
	b.step()
	b.published(r)
}

// TestExpiresWhileHeld: the policy is asked again right before publication.
func TestExpiresWhileHeld(t *testing.T) {
	b := newBench(t)
	p := trusttest.Predicate("models/held/llm", 1, 1)
	p.Expires = envelope.FormatTime(trusttest.Sealed().Add(5 * time.Hour))
	r := b.sealP(p, "s.ito", "a.roy")
	b.receive(r)
	b.step()
	b.want(r, "HELD")
	b.clock.add(24 * time.Hour)
	b.step()
	b.want(r, "REJECTED")
	b.notPublished(r)
	b.evidence(r, "expired")
}

// TestOvertaken: the later release of a stream was published while the earlier waited.
func TestOvertaken(t *testing.T) {
	b := newBench(t)
	p := trusttest.Predicate("models/llm", 1, 1)
	earlier, later := b.sealP(p, "s.ito", "a.roy"), b.approved("models/llm", 2)
	b.receive(earlier)
	b.r.SetTarget(func(t receiver.Target) receiver.Target { return failing{Target: t, err: registry.ErrUnavailable} })
	b.step()
	b.want(earlier, "HELD")
	b.restart()
	b.receive(later)
	b.step() // the earlier one backs off
	b.published(later)
	b.clock.add(time.Hour)
	b.step()
	b.want(earlier, "REJECTED")
	b.evidence(earlier, "rollback")
	b.notPublished(earlier)
	if _, err := b.announce(earlier); err == nil {
		t.Error("the overtaken release was accepted again")
	}
}

// TestPublishTransient: a registry that is down is waited for, ever less often, and is never a reason to refuse.
func TestPublishTransient(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	b.receive(r)
	calls := 0
	for _, cause := range []error{registry.ErrUnavailable, registry.ErrNoSpace, registry.ErrDenied, registry.ErrUnsafe, errors.New("nobody named it")} {
		b.r.SetTarget(func(t receiver.Target) receiver.Target { return failing{Target: t, err: cause, calls: &calls} })
		for range 3 {
			before := calls
			b.step()
			b.step() // not due
			if calls != before+1 {
				t.Fatalf("%d tries at one time", calls-before)
			}
			j := b.job(r)
			wait := j.NotBefore.Sub(b.clock.Now())
			if j.State != "HELD" || !strings.Contains(j.LastError, cause.Error()) || wait <= 0 || wait > 5*time.Minute {
				t.Fatalf("state %s, wait %v, error %q", j.State, wait, j.LastError)
			}
			b.clock.add(5 * time.Minute)
		}
	}
	b.restart()
	b.step()
	b.published(r)
	if j := b.job(r); j.Attempts != 0 || j.LastError != "" {
		t.Errorf("attempts %d and error %q are left", j.Attempts, j.LastError)
	}
}

func TestPublishConflictIsRefused(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	b.receive(r)
	must(t, os.MkdirAll(b.publishedDir(r), 0o755))
	must(t, os.WriteFile(filepath.Join(b.publishedDir(r), "README.md"), []byte("planted"), 0o600))
	b.step()
	b.want(r, "REJECTED")
	b.notPublished(r)
	if _, ok, err := b.r.Journal().HighWater("models/llm"); ok || err != nil {
		t.Errorf("a release that was not published moved the mark: %t %v", ok, err)
	}
}

func TestReadBackFreesTheSpool(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	b.receive(r)
	b.step()
	b.clock.add(59 * time.Second)
	b.step()
	if !b.spooled(r) {
		t.Fatal("the spool copy went before its time")
	}
	b.clock.add(time.Second)
	b.step()
	if b.spooled(r) {
		t.Error("the spool copy is still there")
	}
	b.published(r)
	b.clean()
}

// TestReadBackRepairs: bytes that the registry lost are published again, and the spool copy is kept until they are back.
func TestReadBackRepairs(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	b.receive(r)
	b.step()
	must(t, os.Remove(filepath.Join(b.publishedDir(r), "data.safetensors")))
	b.clock.add(time.Minute)
	b.step()
	if !b.spooled(r) {
		t.Fatal("the spool copy of a lost file went")
	}
	b.published(r)
	if !slices.Contains(b.events(r), "published again") {
		t.Errorf("audit trail %v", b.events(r))
	}
	b.clock.add(10 * time.Minute)
	b.step()
	if b.spooled(r) {
		t.Error("the spool copy is still there")
	}
}

// TestReadBackChanged: changed bytes are never overwritten; the release keeps its spool copy and says so, and the daemon lives.
func TestReadBackChanged(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	b.receive(r)
	b.step()
	name := filepath.Join(b.publishedDir(r), "deep", "er", "x.safetensors")
	data := slices.Clone(r.files["deep/er/x.safetensors"].Data)
	data[len(data)-1] ^= 1
	must(t, os.Remove(name))
	must(t, os.WriteFile(name, data, 0o444))
	b.clock.add(time.Minute)
	b.step()
	b.want(r, "PUBLISHED")
	if j := b.job(r); !b.spooled(r) || j.LastError == "" || j.Attempts != 1 {
		t.Errorf("spooled %t, error %q", b.spooled(r), j.LastError)
	}
}

// TestReadBackWithoutSpool: the registry is whole and the spool copy is lost; there is nothing to wait for.
func TestReadBackWithoutSpool(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	b.receive(r)
	b.step()
	must(t, os.RemoveAll(b.path("spool", r.id())))
	b.clock.add(time.Minute)
	b.step()
	if j := b.job(r); j.LastError != "" || b.spooled(r) {
		t.Errorf("error %q", j.LastError)
	}
}

// TestSweep: what a crash left in the spool is removed when the daemon starts, and nothing else.
func TestSweep(t *testing.T) {
	b := newBench(t)
	waiting, r := b.approved("models/other", 1), b.approved("models/llm", 1)
	_, err := b.announce(waiting)
	must(t, err)
	b.receive(r)
	b.step()
	must(t, os.MkdirAll(b.path("spool", strings.Repeat("ab", 32), "payload"), 0o700))
	b.restart()
	if _, err := os.Stat(b.path("spool", strings.Repeat("ab", 32))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the leftover is there: %v", err)
	}
	if !b.spooled(waiting) || !b.spooled(r) {
		t.Error("the spool of a job was removed")
	}
}

// TestSpoolOutlivesJournal: a copy that the journal could not be told of is not freed.
func TestSpoolOutlivesJournal(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	b.receive(r)
	b.step()
	b.published(r)
	b.clock.add(time.Hour)
	b.r.SetTarget(func(to receiver.Target) receiver.Target { return closing{to, b.r} })
	if err := b.r.Step(t.Context()); err == nil {
		t.Error("the journal is closed, and nobody noticed")
	}
	if !b.spooled(r) {
		t.Error("the spool copy is gone, and the journal says that it is here")
	}
	b.restart()
	b.step()
	if b.spooled(r) {
		t.Error("the spool copy is here still")
	}
	b.clean()
}

// closing is a registry that takes the journal away while it is read.
type closing struct {
	receiver.Target
	r *receiver.Receiver
}

func (c closing) Open(ctx context.Context, name string, id [32]byte, path string) (io.ReadCloser, int64, error) {
	f, size, err := c.Target.Open(ctx, name, id, path)
	return f, size, errors.Join(err, c.r.Journal().Close())
}
