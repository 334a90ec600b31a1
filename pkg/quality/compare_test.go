// SPDX-License-Identifier: Apache-2.0

package quality_test

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/quality"
	"sluice/pkg/quality/qualitytest"
)

// checkWhole: everything that the generator writes comes back, 57 subjects and all items.
func checkWhole(t *testing.T, side runs) {
	t.Helper()
	mmlu, code := side[quality.MMLU], side[quality.HumanEval]
	if len(mmlu.Items) != quality.MMLUItems || len(mmlu.Files) != 57 || len(code.Items) != quality.HumanEvalItems || len(code.Files) != 1 {
		t.Errorf("%d items in %d files, %d in %d", len(mmlu.Items), len(mmlu.Files), len(code.Items), len(code.Files))
	}
	if got := code.Items[0].Samples; got != 2 {
		t.Errorf("%d samples, want 2", got)
	}
}

// The worked example through the whole gate, from files: 450 worse, 380 better of 14,042 is
// significantly worse and yet within one point.
func TestCompareWorkedExample(t *testing.T) {
	base, quantized := imported(t, qualitytest.Spec{Seed: 9, Samples: 2, Worse: 450.0 / 14042, Better: 380.0 / 14042})
	for _, side := range []runs{base, quantized} {
		checkWhole(t, side)
	}
	r := mustCompare(t, base, quantized, quality.DefaultMargins())
	mmlu := r.Benchmarks[0]
	if r.Verdict != quality.VerdictPass || !mmlu.NonInferior || r.Err() != nil {
		t.Errorf("verdict %s, reasons %v", r.Verdict, r.Reasons)
	}
	if mmlu.Items != 14042 || mmlu.Worse != 450 || mmlu.Better != 380 || mmlu.Method != "tango" {
		t.Errorf("items %d, worse %d, better %d, method %s", mmlu.Items, mmlu.Worse, mmlu.Better, mmlu.Method)
	}
	if math.Abs(mmlu.LowerBound+0.0084) > 5e-5 || math.Abs(mmlu.McNemarP-0.0083) > 5e-5 {
		t.Errorf("bound %g, p %g", mmlu.LowerBound, mmlu.McNemarP)
	}
	for _, c := range mmlu.CrossChecks {
		if !c.NonInferior || math.Abs(c.Lower-mmlu.LowerBound) > 2e-3 {
			t.Errorf("cross-check %s: %+v", c.Method, c)
		}
	}
	var groups []string
	for _, g := range mmlu.Groups {
		groups = append(groups, fmt.Sprintf("%s %d/%d", g.Group, g.Subjects, g.Items))
	}
	want := []string{"stem 19/3153", "humanities 13/4705", "social sciences 12/3077", "other 13/3107"}
	if diff := cmp.Diff(want, groups); diff != "" {
		t.Error(diff)
	}
}

func TestCompareVerdicts(t *testing.T) {
	for _, tc := range []struct {
		name   string
		spec   qualitytest.Spec
		margin func(*quality.Margins)
		want   string
		reason string
	}{
		{"passing", qualitytest.Passing(1), nil, "pass", ""},
		{"passing, 20 samples", qualitytest.Spec{Seed: 2, Samples: 20, Worse: 0.05, Better: 0.047}, nil, "pass", ""},
		{"failing", qualitytest.Failing(1), nil, "fail", "mmlu: the lower bound"},
		{"all equal", qualitytest.Spec{Seed: 4}, nil, "pass", ""},
		{"all equal, margins 0", qualitytest.Spec{Seed: 4}, func(m *quality.Margins) { m.MMLU.Absolute, m.HumanEval.Absolute = 0, 0 }, "fail", "mmlu: the lower bound"},
		{"better, margins 0", qualitytest.Spec{Seed: 4, Better: 0.05}, func(m *quality.Margins) { m.MMLU.Absolute, m.HumanEval.Absolute = 0, 0 }, "pass", ""},
		{"HumanEval alone", qualitytest.Spec{Seed: 5, Worse: 0.02, Better: 0.02}, func(m *quality.Margins) { m.HumanEval.Absolute = 0.01 }, "fail", "humaneval: the lower bound"},
		{"recovery", qualitytest.Passing(1), func(m *quality.Margins) { m.MMLU.MinRecovery = 0.999 }, "fail", "mmlu: recovery"},
		{"third attempt", qualitytest.Spec{Seed: 9, Worse: 480.0 / 14042, Better: 400.0 / 14042}, func(m *quality.Margins) { m.Attempt = 3 }, "fail", "mmlu: the lower bound"},
		{"first attempt", qualitytest.Spec{Seed: 9, Worse: 480.0 / 14042, Better: 400.0 / 14042}, nil, "pass", ""},
		{"no better than chance", qualitytest.Spec{Seed: 6, BaseAccuracy: 0.31, Worse: 0.07}, func(m *quality.Margins) { m.MMLU.Absolute, m.HumanEval.Absolute = 0.5, 0.5 }, "fail", "mmlu: the quantized model answers no better than chance"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := quality.DefaultMargins()
			if tc.margin != nil {
				tc.margin(&m)
			}
			base, quantized := counted(tc.spec)
			r := mustCompare(t, base, quantized, m)
			if r.Verdict != tc.want || !strings.Contains(strings.Join(r.Reasons, "\n"), tc.reason) || (tc.reason == "") != (len(r.Reasons) == 0) {
				t.Errorf("verdict %s, want %s, reasons %q", r.Verdict, tc.want, r.Reasons)
			}
			var rejected *quality.RejectedError
			if errors.As(r.Err(), &rejected) != (tc.want == "fail") || (rejected != nil && rejected.Report != r) {
				t.Errorf("Err() = %v", r.Err())
			}
			if err := r.Recompute(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A subject that collapses while the average holds raises an alarm, which fails
// the gate only where the policy says so.
func TestCompareAlarm(t *testing.T) {
	base, quantized := counted(qualitytest.Passing(8))
	items, broken := quantized[quality.MMLU].Items, 0
	for i := range items {
		if items[i].Task == "mmlu_virology" && items[i].Correct == 1 && broken < 40 {
			items[i].Correct, broken = 0, broken+1
		}
	}
	m := quality.DefaultMargins()
	r := mustCompare(t, base, quantized, m)
	var alarms []string
	for _, s := range r.Benchmarks[0].Subjects {
		if s.Alarm {
			alarms = append(alarms, s.Task)
		}
	}
	if r.Verdict != "pass" || !slices.Equal(alarms, []string{"mmlu_virology"}) || !strings.Contains(r.Text(), "ALARM: 1 subjects collapsed") {
		t.Errorf("verdict %s, alarms %v", r.Verdict, alarms)
	}
	m.FailOnAlarm = true
	if r := mustCompare(t, base, quantized, m); r.Verdict != "fail" || !strings.Contains(r.Reasons[0], "virology") {
		t.Errorf("verdict %s, reasons %v", r.Verdict, r.Reasons)
	}
}

func TestCompareRefuses(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(base, quantized runs, m *quality.Margins)
		want   error
		text   string
	}{
		{"no MMLU", func(b, q runs, _ *quality.Margins) { delete(q, quality.MMLU) }, quality.ErrMissingItems, "quantized model has no mmlu"},
		{"no HumanEval", func(b, q runs, _ *quality.Margins) { delete(b, quality.HumanEval) }, quality.ErrMissingItems, "base model has no humaneval"},
		{"one item missing", func(b, q runs, _ *quality.Margins) { q[quality.MMLU].Items = q[quality.MMLU].Items[1:] }, quality.ErrMissingItems, "1: mmlu_anatomy doc_id 0 (not in quantized)"},
		{"one item too many", func(b, q runs, _ *quality.Margins) { b[quality.MMLU].Items = b[quality.MMLU].Items[:49] }, quality.ErrMissingItems, "mmlu_virology doc_id 19 (not in base)"},
		{"many missing", func(b, q runs, _ *quality.Margins) { q[quality.MMLU].Items = q[quality.MMLU].Items[:30] }, quality.ErrMissingItems, "and 10 more"},
		{"one duplicate", func(b, q runs, _ *quality.Margins) {
			q[quality.MMLU].Items = append(q[quality.MMLU].Items, q[quality.MMLU].Items[3])
		}, quality.ErrDuplicate, "mmlu_anatomy doc_id 3 occurs twice"},
		{"prompts swapped", func(b, q runs, _ *quality.Margins) {
			items := q[quality.MMLU].Items
			items[0].PromptHash, items[1].PromptHash = items[1].PromptHash, items[0].PromptHash
		}, quality.ErrPairing, "2: mmlu_anatomy doc_id 0 (prompt_hash differs), mmlu_anatomy doc_id 1"},
		{"documents differ", func(b, q runs, _ *quality.Margins) { q[quality.HumanEval].Items[9].DocHash = hex64(1) }, quality.ErrPairing, "humaneval doc_id 9 (doc_hash differs)"},
		{"samples differ", func(b, q runs, _ *quality.Margins) { q[quality.HumanEval].Items[2].Samples = 5 }, quality.ErrPairing, "doc_id 2 (1 and 5 samples"},
		{"scoring differs", func(b, q runs, _ *quality.Margins) { q[quality.MMLU].Scoring["mmlu_virology"] = "acc/other" }, quality.ErrPairing, "scored as"},
		{"evaluators differ", func(b, q runs, _ *quality.Margins) { q[quality.MMLU].Source = "native" }, quality.ErrPairing, "native"},
		{"benchmarks swapped", func(b, q runs, _ *quality.Margins) {
			q[quality.MMLU], q[quality.HumanEval] = q[quality.HumanEval], q[quality.MMLU]
		}, quality.ErrPairing, "stand under"},
		{"same files", func(b, q runs, _ *quality.Margins) { q[quality.MMLU] = b[quality.MMLU] }, quality.ErrSameRun, "same bytes"},
		{"n = 0", func(b, q runs, _ *quality.Margins) {
			b[quality.MMLU].Items, q[quality.MMLU].Items = nil, nil
		}, quality.ErrTooFewItems, "0, the margin demands 1"},
		{"a subset", func(b, q runs, m *quality.Margins) { m.MMLU.MinItems = 51 }, quality.ErrTooFewItems, "50, the margin demands 51"},
		{"base below its band", func(b, q runs, m *quality.Margins) { m.MMLU.Base = quality.Band{Low: 0.81, High: 0.9} }, quality.ErrBaseBand, "base scores 80.00 %"},
		{"base above its band", func(b, q runs, m *quality.Margins) { m.HumanEval.Base = quality.Band{Low: 0.1, High: 0.7} }, quality.ErrBaseBand, "compare humaneval"},
		{"alpha NaN", func(b, q runs, m *quality.Margins) { m.Alpha = math.NaN() }, quality.ErrMargins, "alpha"},
		{"margin in points", func(b, q runs, m *quality.Margins) { m.MMLU.Absolute = 1 }, quality.ErrMargins, "percentage point"},
		{"recovery above one", func(b, q runs, m *quality.Margins) { m.MMLU.MinRecovery = 1.01 }, quality.ErrMargins, "recovery"},
		{"band upside down", func(b, q runs, m *quality.Margins) { m.MMLU.Base = quality.Band{Low: 0.9, High: 0.1} }, quality.ErrMargins, "band"},
		{"attempt negative", func(b, q runs, m *quality.Margins) { m.Attempt = -1 }, quality.ErrMargins, "attempt"},
		{"more right than samples", func(b, q runs, _ *quality.Margins) { q[quality.MMLU].Items[0].Correct = 2 }, quality.ErrMalformed, "2 right of 1"},
		{"unknown subject", func(b, q runs, _ *quality.Margins) { q[quality.MMLU].Items[0].Task = "mmlu_astrology" }, quality.ErrUnknownTask, "astrology"},
		{"terminal codes in a path", func(b, q runs, _ *quality.Margins) { q[quality.MMLU].Files[0].Path = "a\x1b[2J" }, quality.ErrMalformed, `a\x1b`},
		{"too many tasks", func(b, q runs, _ *quality.Margins) {
			b[quality.HumanEval].Items = make([]quality.Item, quality.MaxTasks+1)
		}, quality.ErrTooLarge, "HumanEval tasks"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			base, quantized := imported(t, small())
			m := lenient()
			tc.change(base, quantized, &m)
			r, err := quality.Compare(base, quantized, m)
			if r != nil || !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("report %v, error %v, want %v with %q", r != nil, err, tc.want, tc.text)
			}
		})
	}
}

// The same refusals from files: what lm-eval left is edited, then imported.
func TestCompareEditedFiles(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(string) string
		want   error
	}{
		{"line removed", func(string) string { return "" }, quality.ErrMissingItems},
		{"line doubled", func(s string) string { return s + s }, quality.ErrDuplicate},
		{"item errored", func(s string) string { return strings.Replace(s, `"acc":`, `"error":"HTTP 500","acc":`, 1) }, quality.ErrErrored},
		{"prompt changed", func(s string) string {
			return strings.Replace(s, `"prompt_hash":"`, `"prompt_hash":"`+strings.Repeat("0", 64)+`","x":"`, 1)
		}, quality.ErrPairing},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := written(t, small())
			edit(t, root, qualitytest.QuantizedDir, "mmlu_virology", 4, tc.change)
			base := mustImport(t, root, qualitytest.BaseDir)
			quantized, err := quality.ImportSamples(os.DirFS(root), qualitytest.QuantizedDir)
			if err == nil {
				_, err = quality.Compare(base, quantized, lenient())
			}
			if !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
}

// One more wrong answer never lifts a bound and never turns a fail into a pass,
// with every part of the policy switched on.
func TestCompareMonotone(t *testing.T) {
	for seed := range uint64(30) {
		rng := rand.New(rand.NewPCG(seed, 1))
		base, quantized := invented(rng, 200, 30, 1+4*int(seed%2))
		m := lenient()
		m.FailOnAlarm, m.MMLU.MinRecovery, m.MMLU.Absolute = true, 0.8, 0.02+0.1*rng.Float64()
		before := mustCompare(t, base, quantized, m)
		for range 6 {
			run := quantized[[]quality.Benchmark{quality.MMLU, quality.HumanEval}[rng.IntN(2)]]
			at := rng.IntN(len(run.Items))
			run.Items[at].Correct = max(run.Items[at].Correct-1, 0)
			after := mustCompare(t, base, quantized, m)
			for i := range after.Benchmarks {
				if after.Benchmarks[i].LowerBound > before.Benchmarks[i].LowerBound {
					t.Fatalf("seed %d: the bound of %s rose from %g to %g", seed, after.Benchmarks[i].Benchmark, before.Benchmarks[i].LowerBound, after.Benchmarks[i].LowerBound)
				}
			}
			if before.Verdict == "fail" && after.Verdict == "pass" {
				t.Fatalf("seed %d: a worse answer turned fail into pass", seed)
			}
			before = after
		}
	}
}

// The order of items and a second call change nothing, and inputs stay as they are.
func TestCompareDeterministic(t *testing.T) {
	base, quantized := imported(t, small())
	first, err := mustCompare(t, base, quantized, lenient()).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for _, run := range quantized {
		slices.Reverse(run.Items)
	}
	second, err := mustCompare(t, base, quantized, lenient()).Marshal()
	if err != nil || string(first) != string(second) {
		t.Errorf("another order of items gave another report (%v)", err)
	}
	if quantized[quality.HumanEval].Items[0].DocID != 9 {
		t.Error("Compare reordered the caller's items")
	}
}

// The one-sided size: models that truly lose the whole margin pass about one
// time in twenty, not more. 300 draws, 5 % +- 3.8 % (three standard errors).
func TestCompareSize(t *testing.T) {
	const draws, n, margin = 300, 1000, 0.03
	passed := 0
	for seed := range uint64(draws) {
		rng := rand.New(rand.NewPCG(seed, 77))
		base, quantized := invented(rng, n, 2, 1)
		b, q := base[quality.MMLU].Items, quantized[quality.MMLU].Items
		for i := range b {
			switch u := rng.Float64(); { // worse 6 %, better 3 %: a true difference of -3 points
			case u < 0.06:
				b[i].Correct, q[i].Correct = 1, 0
			case u < 0.09:
				b[i].Correct, q[i].Correct = 0, 1
			default:
				b[i].Correct = rng.IntN(2)
				q[i].Correct = b[i].Correct
			}
		}
		m := lenient()
		m.MMLU.Absolute = margin
		if mustCompare(t, base, quantized, m).Benchmarks[0].NonInferior {
			passed++
		}
	}
	if passed > draws/20+11 || passed < 2 {
		t.Errorf("%d of %d models at the margin passed, want about %d", passed, draws, draws/20)
	}
}

// Greedy HumanEval is held to the lower of the bootstrap and Tango bounds: with
// no task changed the bootstrap alone would claim certainty. With several samples
// the bootstrap decides alone.
func TestCompareHumanEvalMethod(t *testing.T) {
	for _, changed := range []float64{0, 0.01, 0.1} {
		base, quantized := counted(qualitytest.Spec{Worse: changed, Better: changed})
		code := mustCompare(t, base, quantized, lenient()).Benchmarks[1]
		boot, tango := code.CrossChecks[0], code.CrossChecks[1]
		if code.LowerBound != min(boot.Lower, tango.Lower) || code.UpperBound != max(boot.Upper, tango.Upper) || code.LowerBound >= 0 {
			t.Errorf("changed %g: bounds %g and %g of %+v and %+v", changed, code.LowerBound, code.UpperBound, boot, tango)
		}
	}
	base, quantized := counted(qualitytest.Spec{Samples: 8, Worse: 0.1, Better: 0.1})
	code := mustCompare(t, base, quantized, lenient()).Benchmarks[1]
	if code.Method != "bootstrap-percentile" || len(code.CrossChecks) != 1 || math.Abs(code.LowerBound-code.CrossChecks[0].Lower) > 2e-3 {
		t.Errorf("method %s, bound %g, cross-checks %+v", code.Method, code.LowerBound, code.CrossChecks)
	}
}
