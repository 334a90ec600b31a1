// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/internal/audit"
	"sluice/internal/journal"
)

// copyOf copies an export, for one manipulation.
func copyOf(tb testing.TB, dir string) string {
	tb.Helper()
	to := filepath.Join(tb.TempDir(), "copy")
	must(tb, os.CopyFS(to, os.DirFS(dir)))
	return to
}

// refused wants a verdict that says the words.
func refused(tb testing.TB, err error, words string) {
	tb.Helper()
	if !audit.Verdict(err) || !strings.Contains(fmt.Sprint(err), words) {
		tb.Errorf("%v\nis no verdict that says %q", err, words)
	}
}

func TestVerifyAccepts(t *testing.T) {
	s := newSite(t, audit.High)
	s.story()
	dir := s.export()
	earlier := s.checkpoint()
	r, err := audit.Verify(dir, audit.VerifyOptions{Key: s.log.Key.Public, Since: earlier})
	must(t, err)
	if r.Events != 23 || r.Releases != 3 || r.States["PUBLISHED"] != 2 || r.States["REJECTED"] != 1 || r.Proofs != 3 || len(r.Odd) != 0 || r.Since != 23 {
		t.Errorf("%+v", r)
	}
	page := r.Page()
	for _, words := range []string{"VERDICT    whole", "sluice/high/site-a", "2 PUBLISHED, 1 REJECTED; 3 proofs", "4 approvals, 0 rejections", "continues it", "ODD        nothing"} {
		if !strings.Contains(page, words) {
			t.Errorf("the page does not say %q:\n%s", words, page)
		}
	}
	if n := strings.Count(page, "\n"); n > 40 {
		t.Errorf("the page has %d lines", n)
	}
}

// TestEveryByte changes bytes of every event, three a line and every one of one line, without repairing anything. Each is found, and the place that is
// named is that event or the one after it, whose chain shows it.
func TestEveryByte(t *testing.T) {
	s := newSite(t, audit.High)
	s.story()
	dir := s.export()
	whole := lines(t, dir)
	for i, line := range whole {
		step := max(1, len(line)/3)
		if i == 8 {
			step = 1
		}
		for at := i % step; at < len(line); at += step {
			bad := []byte(line)
			bad[at] ^= 1
			if bad[at] == '\n' {
				bad[at] = 'x'
			}
			changed := slices.Clone(whole)
			changed[i] = string(bad)
			writeLines(t, dir, changed)
			_, err := audit.Verify(dir, audit.VerifyOptions{})
			if !audit.Verdict(err) || !strings.Contains(err.Error(), fmt.Sprintf("event %d", i+1)) && !strings.Contains(err.Error(), fmt.Sprintf("event %d", i+2)) {
				t.Fatalf("event %d, byte %d: %v", i+1, at, err)
			}
		}
	}
}

// TestTampered manipulates an export as somebody might who has the directory and not the log key.
func TestTampered(t *testing.T) {
	s := newSite(t, audit.High)
	s.story()
	dir := s.export()
	good := lines(t, dir)
	events := func(edit func([]string) []string) func(*testing.T, string) {
		return func(t *testing.T, dir string) { writeLines(t, dir, edit(slices.Clone(good))) }
	}
	file := func(name string, edit func([]byte) []byte) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			name := filepath.Join(dir, name)
			b, err := os.ReadFile(name)
			must(t, err)
			must(t, os.WriteFile(name, edit(b), 0o600))
		}
	}
	replace := func(old, now string) func([]byte) []byte {
		return func(b []byte) []byte {
			if !bytes.Contains(b, []byte(old)) {
				t.Fatalf("no %q", old)
			}
			return bytes.Replace(b, []byte(old), []byte(now), 1)
		}
	}
	proof := filepath.Join("proofs", release(1)+".tlog-proof")
	for _, c := range []struct {
		name  string
		edit  func(*testing.T, string)
		words string
	}{
		{"dropped, first", events(func(l []string) []string { return l[1:] }), "event 1 says that it is event 2"},
		{"dropped, middle", events(func(l []string) []string { return slices.Delete(l, 6, 7) }), "event 7 says that it is event 8"},
		{"dropped, last", events(func(l []string) []string { return l[:len(l)-1] }), "ends before event 23 is whole"},
		{"doubled", events(func(l []string) []string { return slices.Insert(l, 6, l[5]) }), "event 7 says that it is event 6"},
		{"swapped", events(func(l []string) []string { l[4], l[5] = l[5], l[4]; return l }), "event 5 says that it is event 6"},
		{"swapped and renumbered", events(func(l []string) []string {
			l[4], l[5] = strings.Replace(l[5], `"seq":6`, `"seq":5`, 1), strings.Replace(l[4], `"seq":5`, `"seq":6`, 1)
			return l
		}), "event 4 is not what event 5 was chained to"},
		{"changed", events(func(l []string) []string { l[3] = strings.Replace(l[3], "m.lee", "m.bad", 1); return l }), "event 4 is not what event 5 was chained to"},
		{"last changed", events(func(l []string) []string { l[22] = strings.Replace(l[22], "stop", "stoq", 1); return l }), "event 23 was changed, or all were written anew"},
		{"cut in a line", file("events.jsonl", func(b []byte) []byte { return b[:len(b)-20] }), "ends before event 23 is whole"},
		{"no last line end", file("events.jsonl", func(b []byte) []byte { return b[:len(b)-1] }), "ends before event 23 is whole"},
		{"appended event", events(func(l []string) []string { return append(l, l[22]) }), "goes on after event 23"},
		{"appended byte", file("events.jsonl", func(b []byte) []byte { return append(b, ' ') }), "goes on after event 23"},
		{"an empty line", events(func(l []string) []string { return slices.Insert(l, 3, "") }), "event 4"},
		{"a carriage return", events(func(l []string) []string { l[3] += "\r"; return l }), "event 4"},
		{"an unknown field", events(func(l []string) []string { l[3] = strings.Replace(l[3], `{`, `{"x":1,`, 1); return l }), "unknown field"},
		{"a field twice", events(func(l []string) []string {
			l[3] = strings.Replace(l[3], `"actor"`, `"actor":"test","actor"`, 1)
			return l
		}), "event 4"},
		{"an endless line", events(func(l []string) []string { l[3] = strings.Repeat("x", 1<<20); return l }), "event 4 is longer"},
		{"checkpoint: size", file("checkpoint", replace("\n23\n", "\n22\n")), "does not verify"},
		{"checkpoint: origin", file("checkpoint", replace("sluice/high/site-a\n23", "sluice/high/site-b\n23")), "is not signed by log key"},
		{"checkpoint: no signature", file("checkpoint", func(b []byte) []byte { return b[:bytes.Index(b, []byte("\n\n"))+2] }), "malformed"},
		{"checkpoint: cut", file("checkpoint", func(b []byte) []byte { return b[:40] }), "malformed"},
		{"checkpoint: empty", file("checkpoint", func([]byte) []byte { return nil }), "a checkpoint begins with"},
		{"checkpoint: endless", file("checkpoint", func([]byte) []byte { return make([]byte, 1<<20) }), "longer than"},
		{"key: another", file("log.pub", func([]byte) []byte { return logKey(t, "mallory").Public.File }), "is not signed by log key"},
		{"key: garbage", file("log.pub", func([]byte) []byte { return []byte("{}") }), "log key"},
		{"proof: index", file(proof, replace("index 8\n", "index 7\n")), "is not event 8"},
		{"proof: event", file(proof, func(b []byte) []byte {
			return bytes.Replace(b, []byte("extra eyJzZXEiOjk"), []byte("extra eyJzZXEiOjg"), 1)
		}), "is not event 9"},
		{"proof: of another release", func(t *testing.T, dir string) {
			must(t, os.Rename(filepath.Join(dir, proof), filepath.Join(dir, "proofs", release(9)+".tlog-proof")))
		}, "proves an event of release"},
		{"proofs: gone", func(t *testing.T, dir string) { must(t, os.RemoveAll(filepath.Join(dir, "proofs"))) }, "proofs is missing"},
		{"a link", func(t *testing.T, dir string) {
			must(t, os.Rename(filepath.Join(dir, "events.jsonl"), filepath.Join(dir, "x")))
			must(t, os.Symlink("x", filepath.Join(dir, "events.jsonl")))
		}, "no regular file"},
		{"trust object: garbage", file("trust.json", func([]byte) []byte { return []byte("{}") }), "trust.json"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copyOf(t, dir)
			c.edit(t, dir)
			_, err := audit.Verify(dir, audit.VerifyOptions{})
			refused(t, err, c.words)
		})
	}
}

// TestForged replaces the whole export by one that holds together: only what the auditor brings tells.
func TestForged(t *testing.T) {
	genuine := newSite(t, audit.High)
	genuine.story()
	since, key := genuine.checkpoint(), genuine.log.Key.Public
	genuine.note(journal.Event{Action: "later"})

	// rewritten makes the log anew with another second release, as who has the log key could.
	rewritten := func(more int) site {
		s := newSite(t, audit.High)
		s.note(journal.Event{Action: audit.ActionStart, Detail: "version 1"})
		s.publish(1)
		s.create(2, "RECEIVING")
		s.move(2, "RECEIVING", "REJECTED", journal.Event{Detail: "another word"})
		s.publish(3)
		s.note(journal.Event{Action: audit.ActionFsck, Detail: "clean"})
		s.note(journal.Event{Action: audit.ActionStop})
		for range more {
			s.note(journal.Event{Action: "later"})
		}
		return s
	}
	short := newSite(t, audit.High)
	short.publish(1)
	low := newSite(t, audit.Low)
	low.note(journal.Event{Action: audit.ActionStart})
	low.log.Key = genuine.log.Key
	other := newSite(t, audit.High)
	other.story()
	other.log.Key = logKey(t, "mallory")
	for _, c := range []struct {
		name  string
		s     site
		opt   audit.VerifyOptions
		words string
	}{
		{"continued", genuine, audit.VerifyOptions{Key: key, Since: since}, ""},
		{"rewritten, longer", rewritten(1), audit.VerifyOptions{Key: key, Since: since}, "the first 23 events are not those of the checkpoint of the earlier visit"},
		{"forked, of the same size", rewritten(0), audit.VerifyOptions{Key: key, Since: since}, "the first 23 events are not those"},
		{"rewritten, and nobody has an old checkpoint", rewritten(1), audit.VerifyOptions{Key: key}, ""},
		{"rolled back", short, audit.VerifyOptions{Key: key, Since: since}, "--since has 23 events, the export only 9"},
		{"another side's log", low, audit.VerifyOptions{Key: key, Since: since}, "is a checkpoint of sluice/high/site-a"},
		{"by another key", other, audit.VerifyOptions{Key: key}, "the export is of log key"},
		{"by another key, unasked", other, audit.VerifyOptions{}, ""},
		{"by another key, since", other, audit.VerifyOptions{Since: since}, "--since: audit: signature"},
		{"since is no checkpoint", genuine, audit.VerifyOptions{Since: []byte("x")}, "--since: audit: malformed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := audit.Verify(c.s.export(), c.opt)
			if c.words != "" {
				refused(t, err, c.words)
				return
			}
			must(t, err)
			if !r.KeyGiven && !strings.Contains(r.Page(), "compare the id") {
				t.Errorf("nothing warns of a key that nobody brought:\n%s", r.Page())
			}
		})
	}
}

// TestReplay signs logs that contradict themselves.
func TestReplay(t *testing.T) {
	for _, c := range []struct {
		name  string
		side  string
		log   func(site)
		words string // of the verdict
		odd   string
	}{
		{"illegal move", audit.High, func(s site) { s.create(1, "RECEIVING"); s.move(1, "RECEIVING", "HELD", journal.Event{}) }, `event 2 moves 0101010101010101... from "RECEIVING" to "HELD"`, ""},
		{"born published", audit.High, func(s site) { s.create(1, "PUBLISHED") }, `from "" to "PUBLISHED"`, ""},
		{"a move of the other side", audit.Low, func(s site) { s.create(1, "RECEIVING") }, `from "" to "RECEIVING"`, ""},
		{"published without approval", audit.High, func(s site) {
			s.create(1, "RECEIVING")
			for _, m := range [][2]string{{"RECEIVING", "RECEIVED"}, {"RECEIVED", "VERIFIED"}, {"VERIFIED", "INSPECTED"}, {"INSPECTED", "HELD"}, {"HELD", "PUBLISHED"}} {
				s.move(1, m[0], m[1], journal.Event{Digest: release(9)})
			}
		}, "event 6: release 0101010101010101... becomes PUBLISHED, and no officer's approval", ""},
		{"published without receipt", audit.High, func(s site) {
			s.create(1, "RECEIVING")
			s.vote(1, audit.ActionApprove, "a")
			for _, m := range [][2]string{{"RECEIVING", "RECEIVED"}, {"RECEIVED", "VERIFIED"}, {"VERIFIED", "INSPECTED"}, {"INSPECTED", "HELD"}, {"HELD", "PUBLISHED"}} {
				s.move(1, m[0], m[1], journal.Event{})
			}
		}, "without the digest of a receipt", ""},
		{"published over a rejection", audit.High, func(s site) { s.vote(1, audit.ActionReject, "k.sato"); s.publish(1) }, "", "k.sato had rejected it"},
		{"an officer who changed their mind", audit.High, func(s site) { s.vote(1, audit.ActionReject, "m.lee"); s.publish(1) }, "", ""},
		{"approved by nobody", audit.Low, func(s site) {
			s.create(1, "NEW")
			for _, m := range [][2]string{{"NEW", "MIRRORED"}, {"MIRRORED", "INSPECTED"}, {"INSPECTED", "GATED"}, {"GATED", "SEALED"}, {"SEALED", "APPROVED"}} {
				s.move(1, m[0], m[1], journal.Event{})
			}
		}, "becomes APPROVED, and no officer's approval", ""},
		{"killed", audit.High, func(s site) {
			s.note(journal.Event{Action: audit.ActionStart})
			s.note(journal.Event{Action: audit.ActionStart})
		}, "", "1 start without a stop"},
		{"fsck", audit.High, func(s site) { s.note(journal.Event{Action: audit.ActionFsck, Detail: "2 problems"}) }, "", "fsck found: 2 problems"},
		{"log begins twice", audit.High, func(s site) {
			s.note(journal.Event{Action: journal.ActionLogBegins})
			s.note(journal.Event{Action: journal.ActionLogBegins})
		}, "event 2 begins the log, which had begun", ""},
		{"log begins late", audit.High, func(s site) { s.create(1, "RECEIVING"); s.note(journal.Event{Action: journal.ActionLogBegins}) }, "event 2 begins the log", ""},
		{"clock", audit.High, func(s site) {
			s.note(journal.Event{Action: "x"})
			s.note(journal.Event{Action: "x", Time: s.time(-10)})
		}, "", "event 2: the clock went back by 10m"},
		{"clock, a little", audit.High, func(s site) {
			s.note(journal.Event{Action: "x"})
			s.note(journal.Event{Action: "x", Time: s.time(-4)})
		}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, c.side)
			c.log(s)
			r, err := audit.Verify(s.export(), audit.VerifyOptions{})
			if c.words != "" {
				refused(t, err, c.words)
				return
			}
			must(t, err)
			if got := strings.Join(r.Odd, "\n"); c.odd == "" && got != "" || !strings.Contains(got, c.odd) {
				t.Errorf("odd: %q, want %q", got, c.odd)
			}
		})
	}
}

// TestMarksGrow plants a log whose stream goes back, which the journal itself would refuse.
func TestMarksGrow(t *testing.T) {
	s := newSite(t, audit.High)
	s.publish(3)
	dir := s.export()
	l := lines(t, dir)
	bad := strings.NewReplacer(release(3), release(2), `"number":3`, `"number":2`)
	for _, line := range l {
		e, err := journal.ParseEvent([]byte(bad.Replace(line)), false)
		must(t, err)
		s.forge(e)
	}
	_, err := audit.Verify(s.export(), audit.VerifyOptions{})
	refused(t, err, "stream models/a goes from epoch 1 seq 3 back to epoch 1 seq 2")
}

// TestMigrated: a log that began before there was a tree.
func TestMigrated(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "journal", "testdata", "v1.db"))
	must(t, err)
	path := filepath.Join(t.TempDir(), "journal.db")
	must(t, os.WriteFile(path, b, 0o600))
	s := siteAt(t, audit.High, path)
	r, err := audit.Verify(s.export(), audit.VerifyOptions{})
	must(t, err)
	if r.Before != 3 || r.Events != 4 || !strings.Contains(r.Page(), "the first 3 are from before there was a tree") {
		t.Errorf("%+v", r)
	}
	dir := s.export()
	l := lines(t, dir)
	writeLines(t, dir, append(l[:1], l[2:]...))
	_, err = audit.Verify(dir, audit.VerifyOptions{})
	refused(t, err, "event 2 says that it is event 3")
}

// TestUnreadable: what could not be read is no verdict.
func TestUnreadable(t *testing.T) {
	s := newSite(t, audit.High)
	s.story()
	for _, name := range []string{"", "checkpoint", "log.pub", "events.jsonl", "trust.json"} {
		dir := s.export()
		must(t, os.RemoveAll(filepath.Join(dir, name)))
		_, err := audit.Verify(dir, audit.VerifyOptions{})
		if !errors.Is(err, os.ErrNotExist) || audit.Verdict(err) {
			t.Errorf("without %q: %v", name, err)
		}
	}
}

func TestExportRefuses(t *testing.T) {
	s := newSite(t, audit.High)
	s.story()
	dir := s.export()
	if _, err := audit.Export(context.Background(), s.log, audit.Files{First: trustFile(t)}, dir); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("into a full directory: %v", err)
	}
	s.log.Key = nil
	if _, err := audit.Export(context.Background(), s.log, audit.Files{First: trustFile(t)}, filepath.Join(t.TempDir(), "x")); !errors.Is(err, audit.ErrNoKey) {
		t.Errorf("without a key: %v", err)
	}
}
