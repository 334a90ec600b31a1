// SPDX-License-Identifier: Apache-2.0

package receiver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/internal/durable"
	"sluice/internal/receiver"
	"sluice/internal/trust/trusttest"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

func TestHappyPath(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	b.receive(r)
	b.step()
	b.published(r)
	if got, want := strings.Join(b.events(r), ", "), "accepted, approve, approve, received, verified, inspected, held, publishing, published"; got != want {
		t.Errorf("audit trail %q, want %q", got, want)
	}
	m, ok, err := b.r.Journal().HighWater("models/llm")
	if err != nil || !ok || m.Epoch != 1 || m.Seq != 1 || m.Release != r.id() {
		t.Errorf("high-water mark %+v %t %v", m, ok, err)
	}
}

// TestLossIsRepaired loses a twentieth of the source symbols in any order; repair symbols make up for them.
func TestLossIsRepaired(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	p, err := b.announce(r)
	must(t, err)
	seed := uint64(7)
	random := rand.New(rand.NewPCG(seed, 0))
	source, repair := r.symbols(t, groups, 30)
	kept := slices.DeleteFunc(slices.Concat(source, repair), func(symbol) bool { return random.IntN(20) == 0 })
	random.Shuffle(len(kept), func(i, j int) { kept[i], kept[j] = kept[j], kept[i] })
	put(t, p, kept)
	must(t, p.Flush(t.Context()))
	b.await(r, "RECEIVED")
	b.step()
	b.published(r)
}

// TestEnvelopeRefusals: each leaves the evidence, a rejected job, and nothing in the spool.
func TestEnvelopeRefusals(t *testing.T) {
	b := newBench(t)
	far := trusttest.Predicate("models/far", 1, 1)
	far.Audience = []string{"enclave-b"}
	old := trusttest.Predicate("models/old", 1, 1)
	old.Expires = envelope.FormatTime(trusttest.Sealed().Add(time.Minute))
	for _, tt := range []struct {
		name string
		r    release
		want string
	}{
		{"too few approvals", b.seal("models/few", 1, "s.ito"), "not enough approvals"},
		{"wrong audience", b.sealP(far, "s.ito", "a.roy"), "not addressed"},
		{"expired", b.sealP(old, "s.ito", "a.roy"), "expired"},
		{"larger than the policy allows", b.approved("models/small", 1), "larger"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := b.announce(tt.r)
			var refused *receiver.RefusedError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want a refusal: %s", err, tt.want)
			}
			b.want(tt.r, "REJECTED")
			b.evidence(tt.r, tt.want)
			if b.spooled(tt.r) {
				t.Error("the spool holds something of it")
			}
		})
	}
}

func TestLargerThanTheSiteTakes(t *testing.T) {
	b := newBench(t)
	b.cfg.Limits.MaxRelease = 1 << 20
	b.restart()
	r := b.approved("models/llm", 1)
	if _, err := b.announce(r); receiver.Classify(err) != receiver.Refused || !strings.Contains(err.Error(), "limits.max_release") {
		t.Errorf("error %v", err)
	}
	b.want(r, "REJECTED")
}

// evidence looks for envelope and verdict in the quarantine.
func (b *bench) evidence(r release, want string) {
	b.Helper()
	got, err := os.ReadFile(b.path("quarantine", r.id(), "envelope.sluice"))
	if err != nil || !bytes.Equal(got, r.stream(b.T)) {
		b.Errorf("quarantined envelope differs: %v", err)
	}
	var v struct{ Type, Release, Reason, At string }
	raw, err := os.ReadFile(b.path("quarantine", r.id(), "verdict.json"))
	must(b.T, err)
	must(b.T, json.Unmarshal(raw, &v))
	if v.Type != "sluice-verdict-v1" || v.Release != r.id() || !strings.Contains(v.Reason, want) || !strings.HasSuffix(v.At, "Z") {
		b.Errorf("verdict %s", raw)
	}
}

func TestAnnouncementDoesNotFit(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	other := r.announcement()
	other.Release[3] ^= 1
	if _, err := b.announceAs(r, other); !errors.Is(err, envelope.ErrDigest) {
		t.Errorf("another release id: %v", err)
	}
	if _, err := b.r.Envelope(t.Context(), r.announcement(), strings.NewReader("nonsense"), 8); !errors.Is(err, envelope.ErrFormat) {
		t.Errorf("nonsense: %v", err)
	}
	if b.state(r) != "" {
		t.Errorf("a stream that is no envelope made a job")
	}
	size := r.announcement()
	size.PayloadSize++
	if _, err := b.announceAs(r, size); receiver.Classify(err) != receiver.Refused || !strings.Contains(err.Error(), "payload bytes") {
		t.Errorf("payload size: %v", err)
	}
	b.want(r, "REJECTED")
}

// TestMoreApprovals: a refused release is taken when it comes back with the approvals that were missing.
func TestMoreApprovals(t *testing.T) {
	b := newBench(t)
	r := b.seal("models/llm", 1, "s.ito")
	if _, err := b.announce(r); !errors.Is(err, mofn.ErrThreshold) {
		t.Fatal(err)
	}
	b.want(r, "REJECTED")
	must(t, b.site.Approve(r.env, envelope.DecisionApprove, "m.lee"))
	b.receive(r)
	b.step()
	b.published(r)
}

// TestPoorerEnvelope: who can speak on the link can take nothing from a release that was accepted.
func TestPoorerEnvelope(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/held/llm", 1)
	poorer := b.seal("models/held/llm", 1)
	p, err := b.announce(r)
	must(t, err)
	for _, state := range []string{"RECEIVING", "HELD"} {
		b.want(r, state)
		if _, err := b.announce(poorer); state == "RECEIVING" && !errors.Is(err, mofn.ErrThreshold) {
			t.Errorf("poorer envelope: %v", err)
		}
		wrong := r.announcement()
		wrong.PayloadSize--
		if _, err := b.announceAs(r, wrong); !errors.Is(err, envelope.ErrFormat) {
			t.Errorf("wrong announcement: %v", err)
		}
		b.want(r, state)
		if state == "RECEIVING" {
			b.fill(r, p)
			b.step()
		}
	}
	b.clock.add(24 * time.Hour)
	b.step()
	b.published(r)
}

// TestStopOrder: an officer's reject overtakes a release wherever it is, and frees its place.
func TestStopOrder(t *testing.T) {
	for _, at := range []string{"RECEIVING", "RECEIVED", "HELD"} {
		t.Run(at, func(t *testing.T) {
			b := newBench(t)
			r := b.approved("models/held/llm", 1)
			p, err := b.announce(r)
			must(t, err)
			if at != "RECEIVING" {
				b.fill(r, p)
			}
			if at == "HELD" {
				b.step()
			}
			b.want(r, at)
			if p.Refused() {
				t.Error("refused before the stop")
			}
			must(t, b.site.Approve(r.env, envelope.DecisionReject, "m.lee"))
			if _, err := b.announce(r); !errors.Is(err, mofn.ErrRejected) {
				t.Fatalf("error %v, want ErrRejected", err)
			}
			b.want(r, "REJECTED")
			if b.spooled(r) || b.r.OpenReceptions() != 0 {
				t.Error("the release keeps its place")
			}
			if !p.Refused() {
				t.Error("the link is not told to ask again")
			}
			source, _ := r.symbols(t, groups, 0)
			if n := put(t, p, source[:10]); n != 0 {
				t.Errorf("%d symbols stored after the stop", n)
			}
			b.clock.add(48 * time.Hour)
			b.step()
			b.want(r, "REJECTED")
			b.notPublished(r)
		})
	}
}

// TestHoldDoesNotOutliveDamage: the waiting time of a release that has to be received again does not delay it then, and the hold counts from
// its verification.
func TestHoldDoesNotOutliveDamage(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/held/llm", 1)
	p, err := b.announce(r)
	must(t, err)
	b.fill(r, p)
	b.step()
	b.want(r, "HELD")
	b.spoil(r, 1, 1000)
	b.clock.add(25 * time.Hour)
	b.step()
	b.want(r, "RECEIVING")
	if nb := b.job(r).NotBefore; !nb.IsZero() {
		t.Errorf("not before %v is left from the hold", nb)
	}
	b.fill(r, p)
	b.step()
	b.want(r, "HELD")
	if nb, want := b.job(r).NotBefore, b.clock.Now().Add(24*time.Hour); !nb.Equal(want) || nb.Location() != time.UTC {
		t.Errorf("held until %v, want %v", nb, want.UTC())
	}
}

func TestBusyIsNoRefusal(t *testing.T) {
	b := newBench(t)
	b.cfg.Limits.MaxReleases = 1
	b.restart()
	first, second := b.approved("models/a", 1), b.approved("models/b", 1)
	p, err := b.announce(first)
	must(t, err)
	if _, err := b.announce(second); receiver.Classify(err) != receiver.Transient {
		t.Errorf("disposition of %v", err)
	}
	if b.state(second) != "" || b.spooled(second) {
		t.Error("the second has a place")
	}
	b.fill(first, p)
	b.receive(second)
}

// TestAbandonedReceptionGivesWay: one that can never be published must not keep its place for ever.
func TestAbandonedReceptionGivesWay(t *testing.T) {
	b := newBench(t)
	old, later := b.approved("models/llm", 1), b.approved("models/llm", 2)
	_, err := b.announce(old)
	must(t, err)
	b.receive(later)
	b.step()
	b.published(later)
	b.want(old, "REJECTED")
	if b.r.OpenReceptions() != 0 || b.spooled(old) {
		t.Error("the overtaken release keeps its place")
	}
}

// TestNoSpace: a file system that is too small for the release is no verdict on it, and what was taken is given back.
func TestNoSpace(t *testing.T) {
	b := newBench(t)
	dir := b.path("spool")
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=512k"); err != nil {
		t.Skip("a small file system cannot be mounted here: ", err)
	}
	defer func() { must(t, syscall.Unmount(dir, syscall.MNT_DETACH)) }()
	b.restart()
	r := b.approved("models/llm", 1)
	_, err := b.announce(r)
	if !errors.Is(err, durable.ErrNoSpace) || receiver.Classify(err) != receiver.Transient {
		t.Fatalf("%v is %s", err, receiver.Classify(err))
	}
	if b.state(r) != "" || b.spooled(r) {
		t.Error("something is left of it")
	}
	_, err = b.r.Import(t.Context(), b.medium(r), false)
	if !errors.Is(err, durable.ErrNoSpace) {
		t.Fatalf("import: %v", err)
	}
	entries, err := os.ReadDir(b.path("spool", r.id()))
	must(t, err)
	if slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == "payload" }) {
		t.Error("a failed import keeps the payload's space")
	}
	must(t, b.r.Close()) // the mount must go before the directory
	b.cfg.State = filepath.Join(t.TempDir(), "other")
	b.open()
}

// TestHeaderFirst: no payload byte has a place before the envelope was accepted.
func TestHeaderFirst(t *testing.T) {
	b := newBench(t)
	r := b.seal("models/llm", 1, "s.ito")
	_, err := b.announce(r)
	if err == nil || b.spooled(r) {
		t.Fatalf("spooled: %t, error %v", b.spooled(r), err)
	}
	entries, err := os.ReadDir(b.path("spool"))
	must(t, err)
	if len(entries) != 0 {
		t.Errorf("spool holds %v", entries)
	}
}

// TestRejectSticks: whoever carries an envelope cannot undo an officer's word by leaving it out.
func TestRejectSticks(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	approvals := slices.Clone(r.env.Approvals)
	must(t, b.site.Approve(r.env, envelope.DecisionReject, "m.lee"))
	if _, err := b.announce(r); !errors.Is(err, mofn.ErrRejected) {
		t.Fatalf("with the rejection: %v", err)
	}
	why := b.job(r).LastError
	r.env.Approvals = approvals
	for range 2 {
		if _, err := b.announce(r); !errors.Is(err, mofn.ErrRejected) || !strings.Contains(err.Error(), "next seq") {
			t.Errorf("without it: %v", err)
		}
		if _, err := b.r.Import(t.Context(), b.medium(r), false); !errors.Is(err, mofn.ErrRejected) {
			t.Errorf("without it, from a medium: %v", err)
		}
		b.restart()
	}
	b.want(r, "REJECTED")
	if got := b.job(r).LastError; got != why {
		t.Errorf("the reason became %q, it was %q", got, why)
	}
	next := b.approved("models/llm", 2)
	b.receive(next)
	b.step()
	b.published(next)
}

func TestReplayIsSwallowed(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	b.receive(r)
	b.step()
	p, err := b.announce(r)
	must(t, err)
	source, _ := r.symbols(t, groups, 0)
	if n := put(t, p, source); n != 0 || !p.Complete() || p.Flush(t.Context()) != nil {
		t.Errorf("%d symbols stored, complete %t", n, p.Complete())
	}
	b.published(r)
}

// TestConcurrentAnnouncements: two sessions of one release get one place, also when it completes meanwhile.
func TestConcurrentAnnouncements(t *testing.T) {
	b := newBench(t)
	r := b.approved("models/llm", 1)
	source, _ := r.symbols(t, groups, 0)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			p, err := b.announce(r)
			if err != nil {
				t.Error(err)
				return
			}
			for _, s := range source {
				if _, err := p.Put(s.sbn, s.esi, s.data); err != nil {
					t.Error(err)
				}
			}
			if err := p.Flush(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	b.await(r, "RECEIVED")
	b.step()
	b.published(r)
	if n := len(b.events(r)); n != 9 {
		t.Errorf("audit trail %v", b.events(r))
	}
}

// TestOtherCut: a sender that was set to other groups begins anew; symbols of the two cuts never mix.
func TestOtherCut(t *testing.T) {
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
		a := r.announcement()
		a.Groups = 2
		again, err := b.announceAs(r, a)
		must(t, err)
		if n := put(t, p, source); n != 0 && !restart {
			t.Errorf("%d symbols of the old cut stored", n)
		}
		source, _ = r.symbols(t, 2, 0)
		put(t, again, source)
		must(t, again.Flush(t.Context()))
		b.await(r, "RECEIVED")
		b.step()
		b.published(r)
	}
}

// TestCloseRacesCompletion closes the receiver while the last symbols arrive; whatever was recorded, the next process goes on.
func TestCloseRacesCompletion(t *testing.T) {
	for range 8 {
		b := newBench(t)
		r := b.approved("models/llm", 1)
		p, err := b.announce(r)
		must(t, err)
		source, _ := r.symbols(t, groups, 0)
		put(t, p, source[:len(source)-1])
		var wg sync.WaitGroup
		wg.Go(func() { put(t, p, source[len(source)-1:]) })
		wg.Go(func() { _ = p.Flush(context.WithoutCancel(t.Context())) })
		wg.Go(func() { must(t, b.r.Close()) })
		wg.Wait()
		b.open()
		must(t, b.r.Resume(b.Context()))
		if b.state(r) == "RECEIVING" {
			b.receive(r)
		}
		b.step()
		b.published(r)
	}
}

// TestRunEndsWhenBroken: a failure that ends the loop must end Run too, although receptions are open.
func TestRunEndsWhenBroken(t *testing.T) {
	b := newBench(t)
	waiting := b.approved("models/other", 1)
	_, err := b.announce(waiting)
	must(t, err)
	b.restart()
	r := b.approved("models/llm", 1)
	b.receive(r)
	b.r.SetTarget(func(receiver.Target) receiver.Target { return failing{err: durable.ErrSync} })
	done := make(chan error, 1)
	go func() { done <- b.r.Run(context.WithoutCancel(t.Context())) }()
	select {
	case err := <-done:
		if !errors.Is(err, durable.ErrSync) {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("Run hangs")
	}
	b.want(r, "HELD")
}
