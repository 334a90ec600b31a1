// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/internal/audit"
	"sluice/internal/journal"
	"sluice/pkg/mofn"
)

var update = flag.Bool("update", false, "write testdata/vectors/audit anew; signatures are hedged, so every file changes")

const vectors = "../../testdata/vectors/audit"

// expected is an entry of expect.json: why an export is refused, or what is in it.
type expected struct {
	Refused string `json:"refused,omitempty"`
	Size    int64  `json:"size,omitempty"`
	Root    string `json:"root,omitempty"`
}

// makeVectors writes the exports.
func makeVectors(t *testing.T) {
	t.Helper()
	expect := map[string]expected{}
	keep := func(name, dir, since string, want string) {
		to := filepath.Join(vectors, name)
		must(t, os.CopyFS(to, os.DirFS(dir)))
		if since != "" {
			must(t, os.WriteFile(filepath.Join(to, "since"), []byte(since), 0o600))
		}
		e := expected{Refused: want}
		if want == "" {
			r, err := audit.Verify(to, audit.VerifyOptions{})
			must(t, err)
			e.Size, e.Root = r.Events, r.Root
		}
		expect[name] = e
	}
	entries, err := os.ReadDir(vectors)
	must(t, err)
	for _, e := range entries {
		if e.IsDir() {
			must(t, os.RemoveAll(filepath.Join(vectors, e.Name())))
		}
	}
	s := newSite(t, audit.High)
	s.publish(1)
	visit := string(s.checkpoint())
	s.create(2, "RECEIVING")
	s.move(2, "RECEIVING", "REJECTED", journal.Event{Detail: "<quote \" \\ \u2028 é 東京>"})
	good := s.export()
	keep("good-high", good, visit, "")
	low := newSite(t, audit.Low)
	secret, err := mofn.GenerateSecret(nil, mofn.SuiteH2, "test key, of suite H2")
	must(t, err)
	low.log.Key, err = audit.NewLogKey(secret)
	must(t, err)
	low.create(1, "NEW")
	low.vote(1, audit.ActionApprove, "o.tanaka")
	for _, m := range [][2]string{{"NEW", "MIRRORED"}, {"MIRRORED", "INSPECTED"}, {"INSPECTED", "GATED"}, {"GATED", "SEALED"}, {"SEALED", "APPROVED"}, {"APPROVED", "SENT"}} {
		low.move(1, m[0], m[1], journal.Event{})
	}
	keep("good-low", low.export(), "", "")
	b, err := os.ReadFile(filepath.Join("..", "journal", "testdata", "v1.db"))
	must(t, err)
	old := filepath.Join(t.TempDir(), "journal.db")
	must(t, os.WriteFile(old, b, 0o600))
	keep("good-before", siteAt(t, audit.High, old).export(), "", "")

	edited := func(name, want string, edit func([]string) []string) {
		dir := copyOf(t, good)
		writeLines(t, dir, edit(lines(t, dir)))
		keep(name, dir, "", want)
	}
	edited("bad-changed", "tampered", func(l []string) []string { l[3] = strings.Replace(l[3], "RECEIVED", "RECEIVEd", 1); return l })
	edited("bad-dropped", "tampered", func(l []string) []string { return slices.Delete(l, 4, 5) })
	edited("bad-swapped", "tampered", func(l []string) []string { l[4], l[5] = l[5], l[4]; return l })
	edited("bad-doubled", "tampered", func(l []string) []string { return slices.Insert(l, 4, l[4]) })
	edited("bad-cut", "tampered", func(l []string) []string { return l[:len(l)-1] })
	edited("bad-appended", "tampered", func(l []string) []string { return append(l, l[len(l)-1]) })
	edited("bad-last", "tampered", func(l []string) []string {
		l[len(l)-1] = strings.Replace(l[len(l)-1], "quote", "quota", 1)
		return l
	})
	edited("bad-blank", "tampered", func(l []string) []string { l[4] = strings.Replace(l[4], ",", ", ", 1); return l })
	other := newSite(t, audit.High)
	other.story()
	keep("bad-rewritten", good, string(other.checkpoint()), "tampered")
	dir := copyOf(t, good)
	must(t, os.WriteFile(filepath.Join(dir, "log.pub"), logKey(t, "mallory").Public.File, 0o600))
	keep("bad-key", dir, "", "signature")
	replace := func(name, want, file, was, now string) {
		dir := copyOf(t, good)
		file = filepath.Join(dir, file)
		b, err := os.ReadFile(file)
		must(t, err)
		must(t, os.WriteFile(file, bytes.Replace(b, []byte(was), []byte(now), 1), 0o600))
		keep(name, dir, "", want)
	}
	replace("bad-checkpoint-size", "signature", "checkpoint", "\n11\n", "\n10\n")
	replace("bad-checkpoint-form", "format", "checkpoint", "\n\n", "\n")
	replace("bad-proof-index", "tampered", "proofs/"+release(1)+".tlog-proof", "index 7\n", "index 6\n")
	for name, log := range map[string]func(site){
		"bad-move":    func(s site) { s.create(1, "RECEIVING"); s.move(1, "RECEIVING", "HELD", journal.Event{}) },
		"bad-unvoted": func(s site) { s.forge(journal.Event{Job: "a", To: "PUBLISHED"}) },
		"bad-no-votes": func(s site) {
			s.create(1, "NEW")
			s.forge(journal.Event{Action: "x", Job: release(1), From: "SEALED", To: "APPROVED"})
		},
	} {
		s := newSite(t, audit.High)
		log(s)
		keep(name, s.export(), "", "tampered")
	}
	text, err := json.MarshalIndent(expect, "", "  ")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(vectors, "expect.json"), append(text, '\n'), 0o644))
}

func TestVectors(t *testing.T) {
	if *update {
		makeVectors(t)
	}
	b, err := os.ReadFile(filepath.Join(vectors, "expect.json"))
	must(t, err)
	var expect map[string]expected
	must(t, json.Unmarshal(b, &expect))
	for _, name := range slices.Sorted(maps.Keys(expect)) {
		dir := filepath.Join(vectors, name)
		since, err := os.ReadFile(filepath.Join(dir, "since"))
		if err != nil {
			since = nil
		}
		r, err := audit.Verify(dir, audit.VerifyOptions{Since: since})
		got := expected{Size: r.Events, Root: r.Root}
		if err != nil {
			got = expected{Refused: kindOf(err)}
		}
		if got != expect[name] {
			t.Errorf("%s: %+v (%v), want %+v", name, got, err, expect[name])
		}
	}
}

func kindOf(err error) string {
	switch {
	case errors.Is(err, audit.ErrSignature):
		return "signature"
	case errors.Is(err, audit.ErrTampered), errors.Is(err, audit.ErrFork):
		return "tampered"
	case errors.Is(err, audit.ErrFormat):
		return "format"
	}
	return err.Error()
}

func runReader(t *testing.T, folder string) (string, error) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here: the second reader of the audit vectors did NOT run")
	}
	out, err := exec.CommandContext(t.Context(), python, "-B", filepath.Join(vectors, "check_audit.py"), folder).CombinedOutput()
	return string(out), err
}

// TestSecondReader: it comes to the same verdict on every export.
func TestSecondReader(t *testing.T) {
	out, err := runReader(t, vectors)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Log(out)
}

// TestSecondReaderCanFail spoils one export at a time: a reader that says yes to everything is worth nothing.
func TestSecondReaderCanFail(t *testing.T) {
	for _, c := range []struct{ name, file, old, new string }{
		{"a good one that is bad", "good-high/events.jsonl", "o.tanaka", "o.tanakb"},
		{"a bad one that is good", "bad-blank/events.jsonl", ", ", ","},
		{"another verdict", "expect.json", `"refused": "signature"`, `"refused": "format"`},
		{"another root", "expect.json", `"size": 11`, `"size": 12`},
		{"a signature", "good-low/checkpoint", "sluice/low/site-a\n8", "sluice/low/site-a\n7"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := copyOf(t, vectors)
			name := filepath.Join(dir, c.file)
			b, err := os.ReadFile(name)
			must(t, err)
			if !bytes.Contains(b, []byte(c.old)) {
				t.Fatalf("no %q", c.old)
			}
			must(t, os.WriteFile(name, bytes.Replace(b, []byte(c.old), []byte(c.new), 1), 0o600))
			if out, err := runReader(t, dir); err == nil {
				t.Errorf("accepted: %s", out)
			}
		})
	}
}
