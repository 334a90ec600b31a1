// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/internal/audit"
	"sluice/internal/journal"
	"sluice/pkg/mofn"
)

func TestProve(t *testing.T) {
	s := newSite(t, audit.High)
	s.story()
	key := s.log.Key.Public
	text, err := audit.Prove(context.Background(), s.log, release(3)[:8], 0)
	must(t, err)
	p, err := audit.VerifyProof(text, key)
	must(t, err)
	if p.Event.Release != release(3) || p.Event.To != "PUBLISHED" || p.Checkpoint.Size != 23 {
		t.Errorf("%+v", p)
	}
	if text, err = audit.Prove(context.Background(), s.log, "", 1); err != nil {
		t.Fatal(err)
	}
	if p, err = audit.VerifyProof(text, key); err != nil || p.Event.Action != audit.ActionStart {
		t.Errorf("%+v, %v", p, err)
	}
	for _, c := range []struct {
		release string
		event   int64
	}{{release(9), 0}, {"010", 0}, {"", 24}, {"", -1}} {
		if _, err := audit.Prove(context.Background(), s.log, c.release, c.event); !errors.Is(err, audit.ErrNotFound) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if _, err := audit.VerifyProof(text, logKey(t, "mallory").Public); !errors.Is(err, audit.ErrSignature) {
		t.Errorf("by another key: %v", err)
	}
	for i := range text { // no byte of a proof may change, but those of signatures of strangers, of which it has none
		bad := []byte(string(text))
		bad[i] ^= 1
		if _, err := audit.VerifyProof(bad, key); err == nil {
			t.Fatalf("byte %d of %q changed, and it verifies", i, text[max(0, i-20):i+1])
		}
		if i > 1200 { // from here on it is all signature, and each byte costs a verification
			break
		}
	}
}

// TestSuites: a log key of either suite that signs statements will do, and no other.
func TestSuites(t *testing.T) {
	c := audit.Checkpoint{Origin: audit.Origin(audit.Low, "site-a"), Size: 1}
	for _, suite := range []mofn.Suite{mofn.SuiteH1, mofn.SuiteH2} {
		secret, err := mofn.GenerateSecret(nil, suite, "")
		must(t, err)
		key, err := audit.NewLogKey(secret)
		must(t, err)
		text, err := key.Sign(c)
		must(t, err)
		if got, err := audit.OpenCheckpoint(text, key.Public); err != nil || got != c {
			t.Errorf("%s: %+v, %v", suite, got, err)
		}
	}
	secret, err := mofn.GenerateSecret(nil, mofn.SuiteTicket, "")
	must(t, err)
	if _, err := audit.NewLogKey(secret); err == nil {
		t.Error("a ticket key signs checkpoints")
	}
}

// grow appends n events.
func (s site) grow(n int) {
	for range n {
		s.note(journal.Event{Action: "x"})
	}
}

// beat is what a heartbeat carries.
func (s site) beat(old int64) []byte {
	s.Helper()
	c, err := s.log.Continue(context.Background(), old)
	must(s, err)
	return c.Format()
}

func TestWitness(t *testing.T) {
	s := newSite(t, audit.Low)
	key := s.log.Key.Public
	origin := audit.Origin(audit.Low, "site-a")
	s.grow(3)
	first := s.beat(0)
	s.grow(4)
	second := s.beat(3)
	s.grow(1)
	third, late := s.beat(7), s.beat(3)

	w, err := audit.NewWitness(origin, key, nil)
	must(t, err)
	step := func(name string, text []byte, news bool, want error) {
		t.Helper()
		before := w.Last()
		got, err := w.Update(text)
		if got != news || !errors.Is(err, want) || (want != nil && w.Last() != before) {
			t.Errorf("%s: %v, %v; want %v, %v", name, got, err, news, want)
		}
	}
	step("first", first, true, nil)
	step("again", first, false, nil)
	step("a gap", third, false, audit.ErrGap)
	step("no proof", s.beat(0), false, audit.ErrGap)
	step("second", second, true, nil)
	step("late", first, false, audit.ErrBehind)
	step("from an older size", late, false, audit.ErrGap)

	// The state outlives the process.
	w, err = audit.NewWitness(origin, key, w.Note())
	must(t, err)
	step("third", third, true, nil)

	forked := newSite(t, audit.Low)
	forked.grow(7)
	forked.note(journal.Event{Action: "y"})
	step("a fork of the same size", forked.beat(7), false, audit.ErrFork)
	forked.grow(2)
	step("a fork that is longer", forked.beat(8), false, audit.ErrFork)

	other := newSite(t, audit.High)
	other.log.Key = s.log.Key
	other.grow(9)
	step("another log", other.beat(8), false, audit.ErrSignature)
	s.grow(1)
	s.log.Key = logKey(t, "mallory")
	step("another key", s.beat(8), false, audit.ErrSignature)
	step("garbage", []byte("x"), false, audit.ErrFormat)
	step("hashes from size 0", []byte(strings.Replace(string(third), "old 7", "old 0", 1)), false, audit.ErrFormat)

	if _, err := audit.NewWitness(audit.Origin(audit.Low, "site-b"), key, w.Note()); !errors.Is(err, audit.ErrTampered) {
		t.Errorf("the state of another witness: %v", err)
	}
	if _, err := audit.NewWitness(origin, key, []byte("x")); !errors.Is(err, audit.ErrFormat) {
		t.Errorf("a damaged state: %v", err)
	}
}

// TestContinueRefuses: everything is consistent with nothing.
func TestContinueRefuses(t *testing.T) {
	s := newSite(t, audit.Low)
	if _, err := audit.SignCheckpoint(audit.Checkpoint{Origin: s.log.Origin}, s.log.Key.Public, nil); !errors.Is(err, audit.ErrFormat) {
		t.Errorf("an empty log was signed: %v", err)
	}
	s.grow(3)
	for _, old := range []int64{4, 1 << 40} {
		if _, err := s.log.Continue(context.Background(), old); !errors.Is(err, journal.ErrInvalid) {
			t.Errorf("from %d: %v", old, err)
		}
	}
	s.log.Key = nil
	if _, err := s.log.Continue(context.Background(), 1); !errors.Is(err, audit.ErrNoKey) {
		t.Errorf("without a key: %v", err)
	}
}

func TestParseCheckpoint(t *testing.T) {
	const root = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	if _, err := audit.ParseCheckpoint("sluice/low/a\n1\n" + root + "\n"); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{
		"", "sluice/low/a\n1\n" + root, "sluice/low/a\n0\n" + root + "\n", "sluice/low/a\n01\n" + root + "\n", "sluice/low/a\n+1\n" + root + "\n",
		"sluice/low/a\n-1\n" + root + "\n", "sluice/low/a\n16777217\n" + root + "\n", "sluice/mid/a\n1\n" + root + "\n", "sluice/low/\n1\n" + root + "\n",
		"sluice/low/A\n1\n" + root + "\n", "sluice/low/a/b\n1\n" + root + "\n", "x\n1\n" + root + "\n", "sluice/low/a\n1\n" + root[1:] + "\n",
		"sluice/low/a\n1\n" + strings.Replace(root, "U=", "V=", 1) + "\n", "sluice/low/a\n1\n" + root + "\nextension\n", "sluice/low/a\r\n1\n" + root + "\n",
	} {
		if _, err := audit.ParseCheckpoint(bad); !errors.Is(err, audit.ErrFormat) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestNoNetwork verifies an export in a network namespace that has nothing, not even a loopback that is up. The program is this test.
func TestNoNetwork(t *testing.T) {
	if dir := os.Getenv("SLUICE_AUDIT_EXPORT"); dir != "" {
		_, err := audit.Verify(dir, audit.VerifyOptions{})
		must(t, err)
		return
	}
	s := newSite(t, audit.High)
	s.story()
	cmd := exec.CommandContext(t.Context(), "unshare", "--net", os.Args[0], "-test.run", "^TestNoNetwork$")
	cmd.Env = append(os.Environ(), "SLUICE_AUDIT_EXPORT="+s.export())
	out, err := cmd.CombinedOutput()
	if err != nil && os.Geteuid() != 0 || errors.Is(err, exec.ErrNotFound) {
		t.Skipf("needs root and unshare: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// writeLarge makes an export of n events without a journal, which would sync each to the disk.
func writeLarge(tb testing.TB, n int) string {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "export")
	src := &memory{key: logKey(tb, "high")}
	for i := range n {
		src.add(tb, journal.Event{Actor: "diode-receiver site-a", Action: "ticket", Release: release(i % 200), Detail: fmt.Sprintf("%d bytes: 12 source and 13 repair symbols asked for", i)})
	}
	_, err := audit.Export(context.Background(), src, audit.Files{First: trustFile(tb)}, dir)
	must(tb, err)
	return dir
}

// BenchmarkVerify is the number of the plan: 100,000 events in less than 5 s.
func BenchmarkVerify(b *testing.B) {
	dir := writeLarge(b, 100_000)
	info, err := os.Stat(filepath.Join(dir, "events.jsonl"))
	must(b, err)
	b.SetBytes(info.Size())
	for b.Loop() {
		if _, err := audit.Verify(dir, audit.VerifyOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzCheckpoint(f *testing.F) {
	s := newSite(f, audit.High)
	s.grow(3)
	f.Add(s.checkpoint())
	f.Add([]byte("sluice/low/a\n1\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n— sluice/low/a AAAA\n"))
	good := s.checkpoint()
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := audit.OpenCheckpoint(text, s.log.Key.Public)
		if err != nil {
			if !audit.Verdict(err) {
				t.Fatalf("no verdict: %v", err)
			}
			return
		}
		if want, err := audit.OpenCheckpoint(good, s.log.Key.Public); err != nil || c != want {
			t.Fatalf("a checkpoint that nobody signed: %+v", c)
		}
	})
}

func FuzzProof(f *testing.F) {
	s := newSite(f, audit.High)
	s.story()
	text, err := audit.Prove(context.Background(), s.log, release(1), 0)
	must(f, err)
	f.Add(text)
	f.Add(s.beat(5))
	f.Fuzz(func(t *testing.T, text []byte) {
		if p, err := audit.ParseProof(text); err == nil && len(p.Raw) > journal.MaxEvent {
			t.Fatal("an event over its cap")
		}
		if c, err := audit.ParseConsistency(text); err == nil {
			if again, err := audit.ParseConsistency(c.Format()); err != nil || again.Old != c.Old {
				t.Fatalf("%v: what was read does not read again", err)
			}
		}
		if _, err := audit.VerifyProof(text, s.log.Key.Public); err != nil && !audit.Verdict(err) {
			t.Fatalf("no verdict: %v", err)
		}
	})
}

// FuzzEvents verifies exports whose events are anything.
func FuzzEvents(f *testing.F) {
	s := newSite(f, audit.High)
	s.story()
	dir := s.export()
	good, err := os.ReadFile(filepath.Join(dir, "events.jsonl"))
	must(f, err)
	f.Add(good)
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, events []byte) {
		must(t, os.WriteFile(filepath.Join(dir, "events.jsonl"), events, 0o600))
		if _, err := audit.Verify(dir, audit.VerifyOptions{}); (err == nil) != (string(events) == string(good)) || err != nil && !audit.Verdict(err) {
			t.Fatalf("%v", err)
		}
	})
}
