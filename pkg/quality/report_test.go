// SPDX-License-Identifier: Apache-2.0

package quality_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/quality"
	"sluice/pkg/quality/qualitytest"
)

func marshalled(t *testing.T, r *quality.Report) []byte {
	t.Helper()
	b, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReportRoundTrip(t *testing.T) {
	many := small()
	many.Samples = 12
	for name, spec := range map[string]qualitytest.Spec{"greedy": small(), "12 samples": many} {
		t.Run(name, func(t *testing.T) {
			base, quantized := imported(t, spec)
			quantized[quality.HumanEval].Items[4].Invalid = true
			quantized[quality.HumanEval].Items[5].Invalid = true
			r := mustCompare(t, base, quantized, lenient())
			b := marshalled(t, r)
			got, err := quality.ParseReport(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(r, got); diff != "" {
				t.Error(diff)
			}
			if err := got.Recompute(); err != nil {
				t.Error(err)
			}
			if got.Benchmarks[1].QuantizedInvalid != 2 || got.Benchmarks[1].Outcomes[0].QuantizedInvalid != "4-5" {
				t.Errorf("invalid items: %d, %q", got.Benchmarks[1].QuantizedInvalid, got.Benchmarks[1].Outcomes[0].QuantizedInvalid)
			}
		})
	}
}

// The full benchmarks stay small enough to read and to sign.
func TestReportSize(t *testing.T) {
	base, quantized := counted(qualitytest.Passing(1))
	r := mustCompare(t, base, quantized, quality.DefaultMargins())
	if b := marshalled(t, r); len(b) > 100<<10 {
		t.Errorf("report of %d bytes, want at most 100 KiB", len(b))
	}
	if r.Benchmarks[0].Outcomes[1].Docs != "100-234" {
		t.Errorf("docs %q, want 100-234", r.Benchmarks[0].Outcomes[1].Docs)
	}
}

// Every single outcome that is flipped, on either side, is noticed.
func TestReportTamperOutcome(t *testing.T) {
	base, quantized := imported(t, small())
	b := marshalled(t, mustCompare(t, base, quantized, lenient()))
	flip := func(s string, i int) string {
		return s[:i] + string('0'+'1'-s[i]) + s[i+1:]
	}
	for bench := range 2 {
		for side := range 2 {
			for i := 0; ; i++ {
				r, err := quality.ParseReport(b)
				if err != nil {
					t.Fatal(err)
				}
				o := &r.Benchmarks[bench].Outcomes[0]
				if i == len(o.Base) {
					break
				}
				if side == 0 {
					o.Base = flip(o.Base, i)
				} else {
					o.Quantized = flip(o.Quantized, i)
				}
				if err := r.Recompute(); !errors.Is(err, quality.ErrRecompute) {
					t.Fatalf("benchmark %d side %d outcome %d flipped: %v", bench, side, i, err)
				}
			}
		}
	}
}

func TestReportTamperField(t *testing.T) {
	for name, change := range map[string]func(*quality.Report){
		"verdict":       func(r *quality.Report) { r.Verdict, r.Reasons = "pass", []string{} },
		"margin":        func(r *quality.Report) { r.Margins.MMLU.Absolute = 0.5 },
		"alpha":         func(r *quality.Report) { r.Margins.Alpha = 0.4 },
		"attempt":       func(r *quality.Report) { r.Margins.Attempt = 2 },
		"bound":         func(r *quality.Report) { r.Benchmarks[0].LowerBound += 1e-6 },
		"non-inferior":  func(r *quality.Report) { r.Benchmarks[0].NonInferior = true },
		"reason":        func(r *quality.Report) { r.Reasons[0] = "mmlu: fine" },
		"alarm":         func(r *quality.Report) { r.Benchmarks[0].Subjects[0].Alarm = !r.Benchmarks[0].Subjects[0].Alarm },
		"seed":          func(r *quality.Report) { r.Benchmarks[1].Bootstrap.Seed[0]++ },
		"cross-check":   func(r *quality.Report) { r.Benchmarks[1].CrossChecks = nil },
		"docs":          func(r *quality.Report) { r.Benchmarks[0].Outcomes[0].Docs = "0-28,29" },
		"docs short":    func(r *quality.Report) { r.Benchmarks[0].Outcomes[0].Docs = "0-28" },
		"docs huge":     func(r *quality.Report) { r.Benchmarks[0].Outcomes[0].Docs = "0-4611686018427387903" },
		"docs overflow": func(r *quality.Report) { r.Benchmarks[0].Outcomes[0].Docs = "0-9223372036854775807" },
		"docs falling":  func(r *quality.Report) { r.Benchmarks[0].Outcomes[0].Docs = "5-29,0-4" },
		"invalid":       func(r *quality.Report) { r.Benchmarks[0].Outcomes[0].BaseInvalid = "3" },
		"invalid alien": func(r *quality.Report) { r.Benchmarks[0].Outcomes[0].BaseInvalid = "300" },
		"task twice":    func(r *quality.Report) { r.Benchmarks[0].Outcomes[1] = r.Benchmarks[0].Outcomes[0] },
		"task dropped":  func(r *quality.Report) { r.Benchmarks[0].Outcomes = r.Benchmarks[0].Outcomes[:1] },
		"all dropped":   func(r *quality.Report) { r.Benchmarks[0].Outcomes = nil },
		"outcome 2":     func(r *quality.Report) { r.Benchmarks[0].Outcomes[0].Base = strings.Repeat("2", 30) },
		"samples":       func(r *quality.Report) { r.Benchmarks[1].Samples = 2 },
		"samples 0":     func(r *quality.Report) { r.Benchmarks[1].Samples = 0 },
		"benchmark":     func(r *quality.Report) { r.Benchmarks = r.Benchmarks[:1] },
	} {
		t.Run(name, func(t *testing.T) {
			spec := small()
			spec.Worse, spec.Better = 0.3, 0
			base, quantized := imported(t, spec)
			r := mustCompare(t, base, quantized, lenient())
			if r.Verdict != "fail" || r.Recompute() != nil {
				t.Fatalf("verdict %s, recompute %v", r.Verdict, r.Recompute())
			}
			change(r)
			if err := r.Recompute(); !errors.Is(err, quality.ErrRecompute) && !errors.Is(err, quality.ErrReport) {
				t.Errorf("recompute: %v", err)
			}
		})
	}
}

func TestReportParseStrict(t *testing.T) {
	base, quantized := imported(t, small())
	b := marshalled(t, mustCompare(t, base, quantized, lenient()))
	for name, bad := range map[string][]byte{
		"empty":          nil,
		"null":           []byte("null\n"),
		"trailing":       append(bytes.Clone(b), ' '),
		"cut":            b[:len(b)-2],
		"unknown key":    bytes.Replace(b, []byte(`{"type"`), []byte(`{"x":1,"type"`), 1),
		"key twice":      bytes.Replace(b, []byte(`"verdict":"pass"`), []byte(`"verdict":"fail","verdict":"pass"`), 1),
		"other case":     bytes.Replace(b, []byte(`"verdict"`), []byte(`"Verdict"`), 1),
		"other type":     bytes.Replace(b, []byte(`report:v1`), []byte(`report:v2`), 1),
		"other verdict":  bytes.Replace(b, []byte(`"verdict":"pass"`), []byte(`"verdict":"passed"`), 1),
		"fail unreasond": bytes.Replace(b, []byte(`"verdict":"pass"`), []byte(`"verdict":"fail"`), 1),
		"number form":    bytes.Replace(b, []byte(`"alpha":0.05`), []byte(`"alpha":5e-2`), 1),
		"digest":         bytes.Replace(b, []byte(`"sha256":"`), []byte(`"sha256":"Z`), 1),
	} {
		if _, err := quality.ParseReport(bad); !errors.Is(err, quality.ErrReport) || bytes.Equal(bad, b) {
			t.Errorf("%s: error %v, want %v", name, err, quality.ErrReport)
		}
	}
}

func TestReportException(t *testing.T) {
	spec := small()
	spec.Worse, spec.Better = 0.3, 0
	base, quantized := imported(t, spec)
	failed := mustCompare(t, base, quantized, lenient())
	excepted := failed.WithException("accepted by the board for pilot use, ticket 4711")
	if failed.Verdict != "fail" || excepted.Verdict != "exception" || len(excepted.Reasons) == 0 || excepted.Err() != nil {
		t.Errorf("verdicts %s and %s", failed.Verdict, excepted.Verdict)
	}
	for _, r := range []*quality.Report{excepted, quality.Exception("no base model exists"), quality.NotApplicable("not a quantized model")} {
		got, err := quality.ParseReport(marshalled(t, r))
		if err != nil {
			t.Fatal(err)
		}
		if err := got.Recompute(); err != nil || got.Verdict != r.Verdict || !strings.Contains(got.Text(), strings.ToUpper(r.Verdict)) || !strings.Contains(got.Text(), r.Reason) {
			t.Errorf("%s: recompute %v\n%s", r.Verdict, err, got.Text())
		}
	}
	for _, reason := range []string{"", strings.Repeat("x", quality.MaxReason+1), "two\nlines", "\x1b[2J", "\xff"} {
		if _, err := quality.Exception(reason).Marshal(); !errors.Is(err, quality.ErrReport) {
			t.Errorf("reason %q: error %v", reason, err)
		}
	}
	excepted.Reasons = []string{}
	if err := excepted.Recompute(); !errors.Is(err, quality.ErrRecompute) {
		t.Errorf("an exception that hides why the gate failed: %v", err)
	}
}

// The page for a human, whole: a change of layout shows here.
func TestReportText(t *testing.T) {
	base, quantized := counted(qualitytest.Failing(1))
	for i := range 57 {
		base[quality.MMLU].Files = append(base[quality.MMLU].Files, quality.File{Path: fmt.Sprintf("base/%02d", i), SHA256: hex64(i)})
	}
	text := mustCompare(t, base, quantized, quality.DefaultMargins()).Text()
	for _, want := range []string{"Quality gate: FAIL", "failed: mmlu: the lower bound", "-1.000 pp", "14042 x 1", "164 x 1", "stem               19 subjects", "57 files"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	lines := strings.Split(text, "\n")
	if len(lines) > 60 {
		t.Errorf("%d lines, want one page of 60", len(lines))
	}
	for _, line := range lines {
		if len(line) > 80 && !strings.HasPrefix(line, "  failed:") {
			t.Errorf("line of %d columns: %s", len(line), line)
		}
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return (r < ' ' && r != '\n') || r > '~' }); i >= 0 {
		t.Errorf("not plain ASCII at %d", i)
	}
	plots := 0
	for _, line := range lines {
		if strings.Count(line, "M") == 1 && strings.Contains(line, "---") {
			plots++
			margin, low := strings.IndexByte(line, 'M'), strings.IndexByte(line, '(')
			if strings.Contains(line, "mmlu") && low > margin {
				t.Errorf("a failed benchmark is drawn inside its margin: %s", line)
			}
		}
	}
	if plots != 2 {
		t.Errorf("%d plots, want 2\n%s", plots, text)
	}
}

func FuzzParseReport(f *testing.F) {
	rng, m := newRand(), lenient()
	base, quantized := invented(rng, 12, 4, 3)
	m.MMLU.Absolute = 0.5
	r, err := quality.Compare(base, quantized, m)
	if err != nil {
		f.Fatal(err)
	}
	for _, report := range []*quality.Report{r, r.WithException("x"), quality.Exception("y")} {
		b, err := report.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := quality.ParseReport(b)
		if err != nil {
			return
		}
		if again, err := r.Marshal(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("a second reading of %q", b)
		}
		if err := r.Recompute(); err != nil && !errors.Is(err, quality.ErrReport) && !errors.Is(err, quality.ErrRecompute) {
			t.Errorf("recompute: %v", err)
		}
		r.Text()
	})
}
