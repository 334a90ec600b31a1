// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testScale makes of each row a handful of trials.
const testScale = 0.005

// TestCertify runs every row that needs no socket, scaled down, and reads the reports.
func TestCertify(t *testing.T) {
	dir := t.TempDir()
	o := options{seed: 1, scale: testScale, markdown: filepath.Join(dir, "link.md"), json: filepath.Join(dir, "link.json"), commit: "test"}
	var out strings.Builder
	if err := certify(t.Context(), t, o, &out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	b, err := os.ReadFile(o.json)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(o.markdown)
	if err != nil {
		t.Fatal(err)
	}
	for i, row := range append(table(), row{name: "I4"}) {
		got := r.Rows[i]
		wanted := pass
		if row.sockets || row.heavy {
			wanted = skip
		}
		if got.Name != row.name || got.Status != wanted || got.Passed != got.Trials || (got.Trials == 0) != (wanted == skip) {
			t.Errorf("row %s: %+v, want %s", row.name, got, wanted)
		}
		if !strings.Contains(string(text), "| "+row.name+" | "+got.Promise+" |") {
			t.Errorf("the report for people has no row %s", row.name)
		}
	}
}

// crashScale makes of each row of the other table a few trials: each is a real process, or several.
const crashScale = 0.002

// TestCertifyCrash runs every row of the table of crashes, scaled down. A row that this machine does not allow is skipped, and says so.
func TestCertifyCrash(t *testing.T) {
	dir := t.TempDir()
	o := options{
		table: "crash", seed: 1, scale: crashScale, markdown: filepath.Join(dir, "crash.md"), json: filepath.Join(dir, "crash.json"), commit: "test",
	}
	o.bin, o.victim = binaries(t)
	var out strings.Builder
	if err := certify(t.Context(), t, o, &out); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	b, err := os.ReadFile(o.json)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != len(crashRows()) {
		t.Errorf("%d rows of %d", len(r.Rows), len(crashRows()))
	}
	for _, row := range r.Rows {
		if row.Status == skip {
			t.Logf("row %s was NOT tried: %s", row.Name, row.Reason)
		}
	}
}

// binaries are those that make built, or built here, and this command as the victim: with the race detector each would take seconds.
func binaries(t *testing.T) (dir, victim string) {
	t.Helper()
	built, packages := t.TempDir(), []string{"."}
	if dir = os.Getenv("SLUICE_BIN"); dir == "" {
		dir, packages = built, append(packages, "sluice/cmd/...")
	}
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"build", "-trimpath", "-buildvcs=false", "-o", built + "/"}, packages...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir, filepath.Join(built, "certify")
}

// TestSeedRepeats: one seed, one trial; another seed, another.
func TestSeedRepeats(t *testing.T) {
	for _, name := range []string{"N3", "P2"} {
		run := func(seed uint64) figures {
			o := options{rows: name, seed: seed, trials: 1, scale: 1}
			rows, err := chosen(o)
			if err != nil {
				t.Fatal(err)
			}
			c := &certifier{options: o, t: t, scratch: t.TempDir()}
			p := c.trial(t.Context(), rows[0], 1)
			if p[0].err != nil {
				t.Errorf("row %s, seed %d: %v", name, seed, p[0].err)
			}
			return p[0].figures
		}
		first, again, other := run(5), run(5), run(6)
		if diff := cmp.Diff(first, again); diff != "" {
			t.Errorf("row %s: one seed, two trials:\n%s", name, diff)
		}
		if cmp.Equal(first, other) {
			t.Errorf("row %s: two seeds, one trial", name)
		}
	}
}

// TestFailuresAreTold: a trial that fails, hangs or panics fails its row, and the line says which seed repeats it.
func TestFailuresAreTold(t *testing.T) {
	broken := errors.New("broken")
	for name, play := range map[string]trial{
		"fails": func(_ context.Context, _ *certifier, seed uint64) (figures, error) {
			if seed == 8 {
				return figures{"n": 1}, broken
			}
			return figures{"n": 2}, nil
		},
		"hangs": func(_ context.Context, _ *certifier, seed uint64) (figures, error) {
			if seed == 8 {
				<-make(chan int)
			}
			return nil, nil //nolint:nilnil // nothing is measured
		},
		"panics": func(_ context.Context, _ *certifier, seed uint64) (figures, error) {
			if seed == 8 {
				panic("planted")
			}
			return nil, nil //nolint:nilnil // nothing is measured
		},
	} {
		c := &certifier{options: options{seed: 7, scale: 1}, t: t, out: io.Discard}
		var count ledgers
		res := c.row(t.Context(), row{name: "X", trials: 3, play: play, report: []column{{"n", "things", total}}}, &count)
		line := res.line()
		if res.Status != fail || res.Passed != 2 || !strings.Contains(line, "-row X -seed 8 -trials 1") {
			t.Errorf("%s: %s", name, line)
		}
		if err := (&report{Rows: []result{res}}).verdict(); !errors.Is(err, errFailed) {
			t.Errorf("%s: verdict %v", name, err)
		}
	}
}

func TestChosen(t *testing.T) {
	rows, err := chosen(options{rows: "S1,N1"})
	if err != nil || len(rows) != 2 || rows[0].name != "N1" {
		t.Errorf("%v, %v", rows, err)
	}
	if _, err := chosen(options{rows: "N99"}); !errors.Is(err, errRow) {
		t.Errorf("an unknown row: %v", err)
	}
}

// TestJudgePositions: chance passes, a position that is worse than others does not.
func TestJudgePositions(t *testing.T) {
	even := places(nil, 1000)
	for i := range positions {
		even[piece(i)] = 1000 + float64(i%3)
	}
	even["missing"], even["first"], even["last"], even["middle"] = 20*1001, 880, 860, 870
	worse := func(name string, n float64) figures {
		f := figures{}
		for k, v := range even {
			f[k] = v
		}
		f[name] = n
		return f
	}
	for _, c := range []struct {
		name string
		f    figures
		ok   bool
	}{
		{"even", even, true},
		{"a piece", worse(piece(7), 1300), false},
		{"the first batch", worse("first", 1200), false},
		{"the last batch", worse("last", 600), false},
		{"nothing lost", places(nil, 1000), false},
	} {
		if err := judgePositions([]figures{c.f}); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestSearch(t *testing.T) {
	for _, c := range []struct{ low, high, at uint64 }{{0, 2, 0}, {0, 100, 37}, {320, 1280, 642}} {
		got, err := search(c.low, c.high, func(n uint64) (bool, error) { return n <= c.at, nil })
		if err != nil || got != c.at {
			t.Errorf("%+v: %d, %v", c, got, err)
		}
	}
	if _, err := search(5, 10, func(uint64) (bool, error) { return true, nil }); err == nil {
		t.Error("what never fails has no longest")
	}
}

func TestPermutation(t *testing.T) {
	seen := map[string]bool{}
	for n := range 24 {
		seen[fmt.Sprint(permutation(n))] = true
	}
	if len(seen) != 24 {
		t.Errorf("%d orders of 24", len(seen))
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", 0.984: "0.98"} {
		if got := number(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}
