// SPDX-License-Identifier: Apache-2.0

package quality

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// ReportType names the format of a marshalled report.
const ReportType = "urn:sluice:gate-report:v1"

// Verdicts, as the gate field of an envelope has them (docs/spec/envelope.md, section 4).
const (
	VerdictPass          = "pass"
	VerdictFail          = "fail"
	VerdictException     = "exception"
	VerdictNotApplicable = "not-applicable"
)

const (
	// MaxReport bounds a marshalled report. MMLU with HumanEval needs 70 KB; a
	// million items need 3 MB.
	MaxReport = 64 << 20
	// MaxReason bounds the reason of an exception, as the note of an approval is.
	MaxReason = 1_024
)

var (
	// ErrReport means bytes that are no report, or a report whose parts contradict each other.
	ErrReport = errors.New("quality: malformed report")
	// ErrRecompute means that the verdict or a figure does not follow from the recorded outcomes.
	ErrRecompute = errors.New("quality: report does not follow from its outcomes")
)

// Report is the gate's verdict with all that it rests on. It holds no time and
// no host: the same inputs give the same bytes.
type Report struct {
	Type    string `json:"type"`
	Verdict string `json:"verdict"`
	// Reason is why an exception was declared, or why the gate does not apply; else "".
	Reason string `json:"reason"`
	// Reasons lists why a comparison failed; empty for a pass. An exception
	// declared on a failed report keeps them.
	Reasons []string `json:"reasons"`
	// Margins is the policy in force; nil without a comparison.
	Margins *Margins `json:"margins"`
	// Benchmarks holds MMLU and HumanEval in this order, or nothing without a comparison.
	Benchmarks []BenchmarkReport `json:"benchmarks"`
}

// BenchmarkReport is the comparison on one benchmark. Accuracies, differences
// and bounds are fractions: -0.005 is half a percentage point lost.
type BenchmarkReport struct {
	Benchmark         Benchmark `json:"benchmark"`
	Items             int       `json:"items"`
	Samples           int       `json:"samples"` // an item
	BaseAccuracy      float64   `json:"base_accuracy"`
	QuantizedAccuracy float64   `json:"quantized_accuracy"`
	Difference        float64   `json:"difference"` // quantized minus base
	Recovery          float64   `json:"recovery"`   // quantized over base; 0 when base has none right
	Worse             int       `json:"worse"`      // b: items that got worse
	Better            int       `json:"better"`     // c: items that got better
	FlipRate          float64   `json:"flip_rate"`  // (b+c)/items
	BaseInvalid       int       `json:"base_invalid"`
	QuantizedInvalid  int       `json:"quantized_invalid"`
	Alpha             float64   `json:"alpha"` // one-sided, after the correction for attempts
	Method            string    `json:"method"`
	LowerBound        float64   `json:"lower_bound"` // one-sided 1-alpha bound of the difference
	UpperBound        float64   `json:"upper_bound"` // likewise; for the plot
	Margin            Margin    `json:"margin"`
	NonInferior       bool      `json:"non_inferior"` // LowerBound > -Margin.Absolute
	McNemarP          float64   `json:"mcnemar_p"`    // exact, one-sided, of "quantized is worse"
	Reasons           []string  `json:"reasons"`      // why this benchmark fails

	CrossChecks []CrossCheck     `json:"cross_checks"`
	Bootstrap   *BootstrapReport `json:"bootstrap"`  // HumanEval
	ClusterSE   float64          `json:"cluster_se"` // MMLU: by subject
	Groups      []GroupReport    `json:"groups"`     // MMLU
	Subjects    []SubjectReport  `json:"subjects"`   // MMLU

	BaseSource      string         `json:"base_source"`
	QuantizedSource string         `json:"quantized_source"`
	BaseFiles       []File         `json:"base_files"`
	QuantizedFiles  []File         `json:"quantized_files"`
	Outcomes        []TaskOutcomes `json:"outcomes"`
}

// CrossCheck is the interval by a method that does not decide alone.
type CrossCheck struct {
	Method      string  `json:"method"`
	Lower       float64 `json:"lower"`
	Upper       float64 `json:"upper"`
	NonInferior bool    `json:"non_inferior"`
}

// BootstrapReport says how to draw the same resamples: PCG (math/rand/v2) with
// the two seeds, index = high 64 bits of draw times tasks.
type BootstrapReport struct {
	Resamples int       `json:"resamples"`
	Seed      [2]uint64 `json:"seed"`
}

// GroupReport sums the subjects of one of MMLU's four groups.
type GroupReport struct {
	Group             string  `json:"group"`
	Subjects          int     `json:"subjects"`
	Items             int     `json:"items"`
	BaseCorrect       int     `json:"base_correct"`
	QuantizedCorrect  int     `json:"quantized_correct"`
	BaseAccuracy      float64 `json:"base_accuracy"`
	QuantizedAccuracy float64 `json:"quantized_accuracy"`
}

// SubjectReport is one MMLU subject with its exact test for a collapse.
type SubjectReport struct {
	Task             string  `json:"task"`
	Group            string  `json:"group"`
	Items            int     `json:"items"`
	BaseCorrect      int     `json:"base_correct"`
	QuantizedCorrect int     `json:"quantized_correct"`
	Worse            int     `json:"worse"`
	Better           int     `json:"better"`
	McNemarP         float64 `json:"mcnemar_p"` // exact, one-sided
	HolmP            float64 `json:"holm_p"`    // adjusted over all subjects
	Alarm            bool    `json:"alarm"`     // HolmP <= alpha
}

// RejectedError is a failed gate as an error: the report is the evidence.
type RejectedError struct {
	Report *Report // not nil
}

// Error names every reason.
func (e *RejectedError) Error() string {
	return "quality: the quantized model is refused: " + strings.Join(e.Report.Reasons, "; ")
}

// Err returns a *RejectedError when the verdict is "fail", and nil for the others.
func (r *Report) Err() error {
	if r.Verdict != VerdictFail {
		return nil
	}
	return &RejectedError{Report: r}
}

// Exception returns a report without a comparison, for a release that a declared
// policy lets cross unmeasured. The reason is required: 1 to MaxReason bytes of
// printable text. Marshal refuses another one.
func Exception(reason string) *Report {
	return &Report{Type: ReportType, Verdict: VerdictException, Reason: reason, Reasons: []string{}, Benchmarks: []BenchmarkReport{}}
}

// NotApplicable returns a report for a release that is not a quantized model;
// the reason is as for Exception.
func NotApplicable(reason string) *Report {
	r := Exception(reason)
	r.Verdict = VerdictNotApplicable
	return r
}

// WithException returns a copy of r that declares an exception and keeps r's
// whole evidence, failed reasons included. The reason is as for Exception. The
// copy shares r's slices: neither is to be changed afterwards.
func (r *Report) WithException(reason string) *Report {
	out := *r
	out.Verdict, out.Reason = VerdictException, reason
	return &out
}

// judge joins the benchmarks: all must hold.
func (r *Report) judge() {
	r.Verdict, r.Reasons = VerdictPass, []string{}
	for _, b := range r.Benchmarks {
		r.Reasons = append(r.Reasons, b.Reasons...)
	}
	if len(r.Reasons) > 0 {
		r.Verdict = VerdictFail
	}
}

// Marshal returns the report as JSON with a trailing newline. The same report
// gives the same bytes. It refuses a report that Recompute could not read
// (ErrReport) or that exceeds MaxReport.
func (r *Report) Marshal() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReport, err)
	}
	if buf.Len() > MaxReport {
		return nil, fmt.Errorf("%w: report of %d bytes, at most %d", ErrTooLarge, buf.Len(), MaxReport)
	}
	return buf.Bytes(), nil
}

// ParseReport reads what Marshal wrote, and nothing else: bytes that Marshal
// would not give back are refused, so unknown and doubled keys, other case and
// trailing data have no second reading. It does not recompute: call Recompute.
func ParseReport(b []byte) (*Report, error) {
	if len(b) > MaxReport {
		return nil, fmt.Errorf("%w: report of %d bytes, at most %d", ErrTooLarge, len(b), MaxReport)
	}
	r := new(Report)
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReport, err)
	}
	again, err := r.Marshal()
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(again, b) {
		return nil, fmt.Errorf("%w: not in the canonical form that the gate writes", ErrReport)
	}
	return r, nil
}

// check holds a report to the rules that do not need statistics.
func (r *Report) check() error {
	if r.Type != ReportType {
		return fmt.Errorf("%w: type %.80q, want %q", ErrReport, r.Type, ReportType)
	}
	if err := r.checkVerdict(); err != nil {
		return err
	}
	for _, b := range r.Benchmarks {
		if err := b.checkInputs(); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrReport, b.Benchmark, err)
		}
	}
	return nil
}

// checkVerdict ties the verdict to the parts that must stand with it.
func (r *Report) checkVerdict() error {
	compared := r.Margins != nil
	switch r.Verdict {
	case VerdictPass, VerdictFail:
		if !compared || r.Reason != "" || (r.Verdict == VerdictFail) != (len(r.Reasons) > 0) {
			return fmt.Errorf("%w: verdict %q without a comparison, or with reasons that contradict it", ErrReport, r.Verdict)
		}
	case VerdictException, VerdictNotApplicable:
		if r.Reason == "" || len(r.Reason) > MaxReason || !isPrintable(r.Reason) {
			return fmt.Errorf("%w: verdict %q needs a reason of 1 to %d bytes of printable text", ErrReport, r.Verdict, MaxReason)
		}
		if r.Verdict == VerdictNotApplicable && compared {
			return fmt.Errorf("%w: verdict %q with a comparison", ErrReport, r.Verdict)
		}
	default:
		return fmt.Errorf("%w: verdict %.40q", ErrReport, r.Verdict)
	}
	if !compared && (len(r.Benchmarks) > 0 || len(r.Reasons) > 0) {
		return fmt.Errorf("%w: benchmarks or reasons without margins", ErrReport)
	}
	if compared && !slices.EqualFunc(r.Benchmarks, benchmarks(), func(a BenchmarkReport, b Benchmark) bool { return a.Benchmark == b }) {
		return fmt.Errorf("%w: want the benchmarks mmlu and humaneval, in this order", ErrReport)
	}
	return nil
}

func (br *BenchmarkReport) checkInputs() error {
	if !isText(br.BaseSource) || !isText(br.QuantizedSource) {
		return fmt.Errorf("sources %.80q and %.80q", br.BaseSource, br.QuantizedSource)
	}
	if len(br.BaseFiles) > maxFiles || len(br.QuantizedFiles) > maxFiles {
		return fmt.Errorf("more than %d files", maxFiles)
	}
	return errors.Join(checkFiles(br.BaseFiles), checkFiles(br.QuantizedFiles))
}

// Recompute repeats every statistic from the recorded outcomes and margins, and
// compares verdict, counts and reasons exactly and figures to 1e-9, as
// processors round differently. It returns nil, an error that wraps
// ErrRecompute and names the first difference, or one that wraps ErrReport.
// It does not see the samples files: their digests are in the report.
func (r *Report) Recompute() error {
	if err := r.check(); err != nil {
		return err
	}
	if r.Margins == nil {
		return nil
	}
	if err := r.Margins.Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrReport, err)
	}
	again := &Report{Type: ReportType, Margins: r.Margins}
	for i := range r.Benchmarks {
		br, err := r.Benchmarks[i].recompute(*r.Margins)
		if err != nil {
			return fmt.Errorf("recompute %s: %w", r.Benchmarks[i].Benchmark, err)
		}
		again.Benchmarks = append(again.Benchmarks, *br)
	}
	again.judge()
	if r.Verdict == VerdictException {
		again = again.WithException(r.Reason)
	}
	return sameReport(r, again)
}

func (br *BenchmarkReport) recompute(m Margins) (*BenchmarkReport, error) {
	p, err := decodeOutcomes(br)
	if err != nil {
		return nil, err
	}
	again, err := analyse(p, m)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecompute, err)
	}
	again.BaseSource, again.BaseFiles = br.BaseSource, br.BaseFiles
	again.QuantizedSource, again.QuantizedFiles = br.QuantizedSource, br.QuantizedFiles
	again.Outcomes = encodeOutcomes(p)
	return again, nil
}

// sameReport compares two reports as JSON trees, so that no field is forgotten.
func sameReport(got, want *Report) error {
	a, err := tree(got)
	if err != nil {
		return err
	}
	b, err := tree(want)
	if err != nil {
		return err
	}
	if path, ok := sameTree(a, b, "report"); !ok {
		return fmt.Errorf("%w: %s differs", ErrRecompute, path)
	}
	return nil
}

func tree(r *Report) (any, error) {
	b, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReport, err)
	}
	var v any
	return v, json.Unmarshal(b, &v)
}

// figureTolerance is what processors may differ by; the figures are fractions.
const figureTolerance = 1e-9

// sameTree returns the path of the first difference.
func sameTree(a, b any, path string) (string, bool) {
	switch a := a.(type) {
	case map[string]any:
		b, ok := b.(map[string]any)
		if !ok {
			return path, false
		}
		for _, key := range slices.Sorted(maps.Keys(a)) { // both sides come from one struct: same keys
			if p, same := sameTree(a[key], b[key], path+"."+key); !same {
				return p, false
			}
		}
		return "", true
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			return path, false
		}
		for i := range a {
			if p, same := sameTree(a[i], b[i], fmt.Sprintf("%s[%d]", path, i)); !same {
				return p, false
			}
		}
		return "", true
	case float64:
		b, ok := b.(float64)
		return path, ok && (a == b || math.Abs(a-b) <= figureTolerance)
	}
	return path, a == b
}
