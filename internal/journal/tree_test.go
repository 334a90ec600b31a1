// SPDX-License-Identifier: Apache-2.0

package journal_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sluice/internal/journal"
	"sluice/internal/merkle"
)

// grown is a journal with n events.
func grown(tb testing.TB, n int) *journal.Journal {
	tb.Helper()
	j, err := journal.Open(filepath.Join(tb.TempDir(), "journal.db"), journal.Options{States: states(), Now: clock()})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = j.Close() })
	for i := range n {
		if err := j.Append(journal.Event{Actor: "test", Action: "event", Detail: fmt.Sprintf("%d <&> é", i)}); err != nil {
			tb.Fatal(err)
		}
	}
	return j
}

// TestTree grows a tree and holds root and proofs against a walk over the events themselves, at every size.
func TestTree(t *testing.T) {
	const n = 21
	j := grown(t, n)
	wantHealthy(t, j)
	var f merkle.Frontier
	roots := []tlog.Hash{f.Root()}
	must(t, j.RawEvents(1, n, func(raw []byte) error {
		f.Append(tlog.RecordHash(raw))
		roots = append(roots, f.Root())
		return nil
	}))
	size, root, err := j.Tree()
	if err != nil || size != n || root != roots[n] {
		t.Fatalf("%d %v %v, want %d %v", size, root, err, n, roots[n])
	}
	for at := int64(1); at <= n; at++ {
		for seq := int64(1); seq <= at; seq++ {
			raw, proof, err := j.ProveEvent(at, uint64(seq))
			must(t, err)
			must(t, tlog.CheckRecord(proof, at, roots[at], seq-1, tlog.RecordHash(raw)))
			consistent, err := j.ProveConsistency(seq, at)
			must(t, err)
			must(t, tlog.CheckTree(consistent, at, roots[at], seq, roots[seq]))
		}
	}
	for _, c := range [][2]int64{{0, 5}, {-1, 5}, {6, 5}, {5, n + 1}} {
		_, err := j.ProveConsistency(c[0], c[1])
		wantErr(t, err, journal.ErrInvalid)
	}
	for _, c := range [][2]int64{{5, 0}, {5, 6}, {0, 1}, {-1, 1}, {n + 1, n + 1}} {
		_, _, err := j.ProveEvent(c[0], uint64(c[1]))
		wantErr(t, err, journal.ErrNotFound)
	}
}

// TestEventsAreCanonical: what is stored is what ParseEvent accepts, whatever somebody put into the text.
func TestEventsAreCanonical(t *testing.T) {
	j := fresh(t)
	for _, text := range []string{"<&>", "a\xffb", "e\u0301", "\u2028", "\x00\x1f\"\\", "東京"} {
		must(t, j.Append(journal.Event{Action: "x", Detail: text, Time: time.Now()}))
	}
	must(t, j.RawEvents(1, 100, func(raw []byte) error {
		if _, err := journal.ParseEvent(raw, false); err != nil {
			t.Errorf("%s: %v", raw, err)
		}
		if strings.Contains(string(raw), "u003c") {
			t.Errorf("%s: escaped for HTML", raw)
		}
		return nil
	}))
	const good = `{"seq":1,"time":"2026-01-02T03:04:05Z","actor":"a","action":"b","prev":""}`
	if _, err := journal.ParseEvent([]byte(good), false); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"blank":           strings.Replace(good, ",", ", ", 1),
		"other order":     `{"time":"2026-01-02T03:04:05Z","seq":1,"actor":"a","action":"b","prev":""}`,
		"escape":          strings.Replace(good, `"a"`, `"\u0061"`, 1),
		"escape for HTML": strings.Replace(good, `"a"`, `"\u003c"`, 1),
		"unknown":         strings.Replace(good, `"prev"`, `"x":1,"prev"`, 1),
		"twice":           strings.Replace(good, `"prev"`, `"actor":"a","prev"`, 1),
		"empty optional":  strings.Replace(good, `"prev"`, `"job":"","prev"`, 1),
		"other zone":      strings.Replace(good, "Z", "+09:00", 1),
		"trailing":        good + "\n",
		"null":            strings.Replace(good, `"a"`, `null`, 1),
		"long":            strings.Replace(good, `"a"`, `"`+strings.Repeat("a", journal.MaxEvent)+`"`, 1),
		"no NFC":          strings.Replace(good, `"a"`, "\"e\u0301\"", 1),
	} {
		_, err := journal.ParseEvent([]byte(bad), false)
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestWitness(t *testing.T) {
	j := fresh(t)
	if note, err := j.Witness("sluice/low/x"); note != nil || err != nil {
		t.Fatalf("%q, %v", note, err)
	}
	must(t, j.SetWitness("sluice/low/x", []byte("one"), journal.Event{}))
	must(t, j.SetWitness("sluice/low/x", []byte("two"), journal.Event{Action: "witness"}))
	if note, err := j.Witness("sluice/low/x"); string(note) != "two" || err != nil {
		t.Fatalf("%q, %v", note, err)
	}
	if got := events(t, j); len(got) != 1 || got[0].Action != "witness" {
		t.Errorf("events %+v", got)
	}
	wantErr(t, j.SetWitness("", nil, journal.Event{}), journal.ErrInvalid)
	wantErr(t, j.SetWitness("x", make([]byte, 64<<10+1), journal.Event{}), journal.ErrInvalid)
}

// BenchmarkAppend says what an event costs on a log of 100,000, without the tree's share being visible: an fsync costs more.
func BenchmarkAppend(b *testing.B) {
	j := grown(b, 1000)
	for b.Loop() {
		if err := j.Append(journal.Event{Actor: "bench", Action: "event"}); err != nil {
			b.Fatal(err)
		}
	}
}
