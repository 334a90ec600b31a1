// SPDX-License-Identifier: Apache-2.0

package quality_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/pkg/quality"
	"sluice/pkg/quality/qualitytest"
)

type runs = map[quality.Benchmark]*quality.Run

// imported writes spec and imports both sides.
func imported(t *testing.T, spec qualitytest.Spec) (base, quantized runs) {
	t.Helper()
	fsys := written(t, spec)
	return mustImport(t, fsys, qualitytest.BaseDir), mustImport(t, fsys, qualitytest.QuantizedDir)
}

func written(t *testing.T, spec qualitytest.Spec) string {
	t.Helper()
	dir := t.TempDir()
	if err := qualitytest.Write(dir, spec); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustImport(t *testing.T, root, dir string) runs {
	t.Helper()
	got, err := quality.ImportSamples(os.DirFS(root), dir)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func mustCompare(t *testing.T, base, quantized runs, m quality.Margins) *quality.Report {
	t.Helper()
	r, err := quality.Compare(base, quantized, m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// small is a Spec of two subjects and ten tasks.
func small() qualitytest.Spec {
	return qualitytest.Spec{Seed: 3, MMLU: map[string]int{"anatomy": 30, "virology": 20}, HumanEval: 10, BaseAccuracy: 0.8, Worse: 0.1, Better: 0.1}
}

// lenient are margins under which small runs can be judged.
func lenient() quality.Margins {
	m := quality.DefaultMargins()
	m.MMLU = quality.Margin{Absolute: 0.2}
	m.HumanEval = quality.Margin{Absolute: 0.45}
	return m
}

// hex64 is a digest that depends on n.
func hex64(n int) string { return fmt.Sprintf("%064x", n) }

// invented makes paired runs in memory: items MMLU items over three subjects
// and tasks HumanEval tasks.
func invented(rng *rand.Rand, items, tasks, samples int) (base, quantized runs) {
	subjects := []string{"mmlu_anatomy", "mmlu_virology", "mmlu_sociology"}
	make2 := func(b quality.Benchmark, n, samples int, name func(int) string) (x, y *quality.Run) {
		x = &quality.Run{Benchmark: b, Source: "test", Scoring: map[string]string{}}
		y = &quality.Run{Benchmark: b, Source: "test", Scoring: x.Scoring}
		for i := range n {
			it := quality.Item{Task: name(i), DocID: int64(i), DocHash: hex64(i), PromptHash: hex64(i + n), Samples: samples, Correct: rng.IntN(samples + 1)}
			x.Items = append(x.Items, it)
			if rng.IntN(10) == 0 {
				it.Correct = rng.IntN(samples + 1)
			}
			y.Items = append(y.Items, it)
		}
		return x, y
	}
	base, quantized = runs{}, runs{}
	base[quality.MMLU], quantized[quality.MMLU] = make2(quality.MMLU, items, 1, func(i int) string { return subjects[i%3] })
	base[quality.HumanEval], quantized[quality.HumanEval] = make2(quality.HumanEval, tasks, samples, func(int) string { return "humaneval" })
	return base, quantized
}

// edit rewrites one line (counted from 1) of one samples file of a side.
func edit(t *testing.T, root, side, task string, line int, change func(string) string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, side, "samples_"+task+"_*.jsonl"))
	if err != nil || len(names) != 1 {
		t.Fatalf("files of %s: %v %v", task, names, err)
	}
	text, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	before := lines[line-1]
	lines[line-1] = change(before)
	if lines[line-1] == before {
		t.Fatalf("the edit changes nothing in %s", before)
	}
	if err := os.WriteFile(names[0], []byte(strings.Join(lines, "")), 0o644); err != nil {
		t.Fatal(err)
	}
	return names[0]
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(5, 6)) }

// counted makes full-size runs in memory by the counts of spec, as qualitytest
// writes them to files: the first items of each benchmark got worse, the last better.
func counted(spec qualitytest.Spec) (base, quantized runs) {
	base, quantized = runs{}, runs{}
	var names []string
	for subject, n := range qualitytest.MMLUSizes() {
		for range n {
			names = append(names, "mmlu_"+subject)
		}
	}
	slices.Sort(names)
	base[quality.MMLU], quantized[quality.MMLU] = countedRuns(quality.MMLU, names, 1, spec)
	names = slices.Repeat([]string{"humaneval"}, quality.HumanEvalItems)
	base[quality.HumanEval], quantized[quality.HumanEval] = countedRuns(quality.HumanEval, names, max(spec.Samples, 1), spec)
	return base, quantized
}

func countedRuns(b quality.Benchmark, names []string, samples int, spec qualitytest.Spec) (x, y *quality.Run) {
	x = &quality.Run{Benchmark: b, Source: "test", Scoring: map[string]string{}}
	y = &quality.Run{Benchmark: b, Source: "test", Scoring: x.Scoring}
	n, step := float64(len(names)), max(samples/4, 1)
	accuracy := cmp.Or(spec.BaseAccuracy, 0.65)
	order := rand.New(rand.NewPCG(spec.Seed, 8)).Perm(len(names))
	for i, name := range names {
		it := quality.Item{Task: name, DocID: int64(i), DocHash: hex64(i), PromptHash: hex64(i), Samples: samples}
		rank := float64(order[i]) + 0.5
		if rank < accuracy*n {
			it.Correct = samples
		}
		x.Items = append(x.Items, it)
		switch {
		case rank < spec.Worse*n:
			it.Correct -= step
		case rank > n-spec.Better*n:
			it.Correct += step
		}
		y.Items = append(y.Items, it)
	}
	return x, y
}
