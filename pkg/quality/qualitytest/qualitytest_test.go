// SPDX-License-Identifier: Apache-2.0

package qualitytest_test

import (
	"bufio"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/quality/qualitytest"
)

func write(t *testing.T, spec qualitytest.Spec) string {
	t.Helper()
	dir := t.TempDir()
	if err := qualitytest.Write(dir, spec); err != nil {
		t.Fatal(err)
	}
	return dir
}

// read returns every file below dir by its relative path.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := make(map[string]string)
	for _, side := range []string{qualitytest.BaseDir, qualitytest.QuantizedDir} {
		names, err := filepath.Glob(filepath.Join(dir, side, "*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			out[side+"/"+filepath.Base(name)] = string(b)
		}
	}
	return out
}

func TestSizes(t *testing.T) {
	sum := 0
	for _, n := range qualitytest.MMLUSizes() {
		sum += n
	}
	if len(qualitytest.MMLUSizes()) != 57 || sum != 14042 {
		t.Errorf("%d subjects with %d items, want 57 with 14042", len(qualitytest.MMLUSizes()), sum)
	}
}

func TestWriteRepeats(t *testing.T) {
	spec := qualitytest.Spec{Seed: 7, MMLU: map[string]int{"anatomy": 40}, HumanEval: 12, Samples: 6, Worse: 0.1, Better: 0.1}
	first := read(t, write(t, spec))
	if diff := cmp.Diff(first, read(t, write(t, spec))); diff != "" {
		t.Errorf("the same Spec wrote other bytes: %s", diff)
	}
	spec.Seed++
	if cmp.Equal(first, read(t, write(t, spec))) {
		t.Error("another seed wrote the same bytes")
	}
	want := []string{
		"base/samples_humaneval_2026-01-16T15-23-47.285735.jsonl", "base/samples_mmlu_anatomy_2026-01-16T15-23-47.285735.jsonl",
		"quantized/samples_humaneval_2026-01-16T15-23-47.285735.jsonl", "quantized/samples_mmlu_anatomy_2026-01-16T15-23-47.285735.jsonl",
	}
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(first))); diff != "" {
		t.Error(diff)
	}
}

// Exactly the requested numbers of answers change, and lines have lm-eval's keys.
func TestWriteCounts(t *testing.T) {
	files := read(t, write(t, qualitytest.Spec{Seed: 7, MMLU: map[string]int{"anatomy": 60, "virology": 40}, HumanEval: 10, BaseAccuracy: 0.7, Worse: 0.11, Better: 0.07}))
	right, worse, better := 0, 0, 0
	for name, text := range files {
		if !strings.HasPrefix(name, "base/samples_mmlu") {
			continue
		}
		base, quantized := lines(t, text), lines(t, files["quantized/"+strings.TrimPrefix(name, "base/")])
		for i := range base {
			b, q := base[i]["acc"].(float64), quantized[i]["acc"].(float64)
			right += int(b)
			if b > q {
				worse++
			} else if q > b {
				better++
			}
			for _, key := range []string{"doc_id", "doc_hash", "prompt_hash", "target_hash", "target"} {
				if base[i][key] == nil || !cmp.Equal(base[i][key], quantized[i][key]) {
					t.Errorf("%s: %s is %v and %v", name, key, base[i][key], quantized[i][key])
				}
			}
		}
	}
	if right != 70 || worse != 11 || better != 7 {
		t.Errorf("%d right, %d worse, %d better, want 70, 11, 7", right, worse, better)
	}
	keys := slices.Sorted(maps.Keys(lines(t, files["base/samples_humaneval_2026-01-16T15-23-47.285735.jsonl"])[0]))
	want := []string{"arguments", "doc", "doc_hash", "doc_id", "filter", "filtered_resps", "metrics", "pass@1", "prompt_hash", "resps", "target", "target_hash"}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Error(diff)
	}
}

func lines(t *testing.T, text string) []map[string]any {
	t.Helper()
	var out []map[string]any
	for s := bufio.NewScanner(strings.NewReader(text)); s.Scan(); {
		var v map[string]any
		if err := json.Unmarshal(s.Bytes(), &v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

func TestWriteRefuses(t *testing.T) {
	for name, spec := range map[string]qualitytest.Spec{
		"more worse than right":  {BaseAccuracy: 0.1, Worse: 0.2},
		"more better than wrong": {BaseAccuracy: 0.9, Better: 0.2},
		"negative rate":          {Worse: -0.1},
		"negative tasks":         {HumanEval: -1},
	} {
		if err := qualitytest.Write(t.TempDir(), spec); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	dir := write(t, qualitytest.Spec{MMLU: map[string]int{"anatomy": 1}, HumanEval: 1})
	if err := qualitytest.Write(dir, qualitytest.Spec{MMLU: map[string]int{"anatomy": 1}, HumanEval: 1}); err == nil {
		t.Error("Write replaced existing files")
	}
}
