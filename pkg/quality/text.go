// SPDX-License-Identifier: Apache-2.0

package quality

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// textAlarms is how many subjects the page names; the report has all.
const textAlarms = 8

// Text returns the report as one page of plain ASCII, at most 80 columns but for
// long reasons: the verdict first, the figures side by side, a plot of the
// differences and their intervals against the margins, and what was read. It
// rounds for the eye only. Text from inputs is printable by the rules of Report.
func (r *Report) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Quality gate: %s\n", strings.ToUpper(r.Verdict))
	if r.Reason != "" {
		fmt.Fprintf(&b, "  declared: %q\n", r.Reason)
	}
	for _, reason := range r.Reasons {
		fmt.Fprintf(&b, "  failed: %s\n", reason)
	}
	if r.Margins == nil || len(r.Benchmarks) == 0 {
		b.WriteString("  Nothing was measured.\n")
		return b.String()
	}
	b.WriteByte('\n')
	r.writeFigures(&b)
	r.writePlots(&b)
	for i := range r.Benchmarks {
		r.Benchmarks[i].writeMMLU(&b)
	}
	r.writeInputs(&b)
	return b.String()
}

// writeFigures prints one line a figure, one column a benchmark.
func (r *Report) writeFigures(b *strings.Builder) {
	row := func(label string, cell func(*BenchmarkReport) string) {
		fmt.Fprintf(b, "  %-26s", label)
		for i := range r.Benchmarks {
			fmt.Fprintf(b, "%22s", cell(&r.Benchmarks[i]))
		}
		b.WriteByte('\n')
	}
	row("", func(x *BenchmarkReport) string { return string(x.Benchmark) })
	row("items x samples", func(x *BenchmarkReport) string { return fmt.Sprintf("%d x %d", x.Items, x.Samples) })
	row("base accuracy", func(x *BenchmarkReport) string { return percent(x.BaseAccuracy) })
	row("quantized accuracy", func(x *BenchmarkReport) string { return percent(x.QuantizedAccuracy) })
	row("recovery", func(x *BenchmarkReport) string { return percent(x.Recovery) })
	row("difference", func(x *BenchmarkReport) string { return points(x.Difference) })
	row(fmt.Sprintf("lower %s %% bound", level(r.Margins)), func(x *BenchmarkReport) string { return points(x.LowerBound) })
	row("margin", func(x *BenchmarkReport) string { return points(-x.Margin.Absolute) })
	row("not worse than the margin", func(x *BenchmarkReport) string { return yesNo(x.NonInferior) })
	row("items worse / better", func(x *BenchmarkReport) string { return fmt.Sprintf("%d / %d", x.Worse, x.Better) })
	row("items changed", func(x *BenchmarkReport) string { return percent(x.FlipRate) })
	row("exact McNemar p (worse)", func(x *BenchmarkReport) string { return fmt.Sprintf("%.4g", x.McNemarP) })
	row("invalid base / quantized", func(x *BenchmarkReport) string { return fmt.Sprintf("%d / %d", x.BaseInvalid, x.QuantizedInvalid) })
	b.WriteByte('\n')
	for _, x := range r.Benchmarks {
		fmt.Fprintf(b, "  %s is decided by %s;\n", x.Benchmark, x.Method)
		for _, c := range x.CrossChecks {
			fmt.Fprintf(b, "    %-24s %s to %s, %s\n", c.Method, points(c.Lower), points(c.Upper), agrees(c.NonInferior, x.NonInferior))
		}
	}
	b.WriteByte('\n')
}

func percent(x float64) string { return fmt.Sprintf("%.2f %%", 100*x) }
func points(x float64) string  { return fmt.Sprintf("%+.3f pp", 100*x) }

func level(m *Margins) string { return strconv.FormatFloat(100*(1-m.level()), 'g', 6, 64) }

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "NO"
}

func agrees(a, b bool) string {
	if a == b {
		return "agrees"
	}
	return "DISAGREES"
}

// plotWidth is the number of columns between the ends of a plot.
const plotWidth = 66

// writePlots draws one axis a benchmark, each on its own scale.
func (r *Report) writePlots(b *strings.Builder) {
	b.WriteString("  Difference (o) with its bounds ( ), against the margin (M) and zero (|):\n")
	for i := range r.Benchmarks {
		br := &r.Benchmarks[i]
		low, high := plotRange(br)
		fmt.Fprintf(b, "  %-10s%s\n", br.Benchmark, plot(br, low, high))
		left, right := points(low), points(high)
		fmt.Fprintf(b, "  %-10s%s%*s\n", "", left, plotWidth-len(left), right)
	}
	b.WriteByte('\n')
}

// plotRange covers the margin, zero and the interval, with a tenth to spare.
func plotRange(br *BenchmarkReport) (low, high float64) {
	low = math.Min(math.Min(-br.Margin.Absolute, br.LowerBound), 0)
	high = math.Max(br.UpperBound, 0)
	spare := math.Max((high-low)/10, 1e-4) // the floor keeps an empty range drawable
	return low - spare, high + spare
}

func plot(br *BenchmarkReport, low, high float64) string {
	line := []byte(strings.Repeat("-", plotWidth))
	at := func(x float64) int {
		column := math.Round((x - low) / (high - low) * (plotWidth - 1))
		return int(math.Max(0, math.Min(plotWidth-1, column)))
	}
	for i := at(br.LowerBound); i <= at(br.UpperBound); i++ {
		line[i] = '='
	}
	line[at(0)] = '|'
	line[at(br.LowerBound)], line[at(br.UpperBound)] = '(', ')'
	line[at(br.Difference)] = 'o'
	line[at(-br.Margin.Absolute)] = 'M'
	return string(line)
}

// writeMMLU prints groups and alarms; HumanEval has neither.
func (br *BenchmarkReport) writeMMLU(b *strings.Builder) {
	for _, g := range br.Groups {
		fmt.Fprintf(b, "  %-18s %2d subjects %6d items   %8s -> %8s\n", g.Group, g.Subjects, g.Items, percent(g.BaseAccuracy), percent(g.QuantizedAccuracy))
	}
	if br.Benchmark != MMLU {
		return
	}
	names := alarms(br.Subjects)
	if len(names) == 0 {
		b.WriteString("  No subject collapsed (exact McNemar, Holm).\n\n")
		return
	}
	fmt.Fprintf(b, "  ALARM: %d subjects collapsed (exact McNemar, Holm):\n", len(names))
	shown := 0
	for _, s := range br.Subjects {
		if s.Alarm && shown < textAlarms {
			fmt.Fprintf(b, "    %-40s %d of %d -> %d, p %.2g\n", strings.TrimPrefix(s.Task, mmluPrefix), s.BaseCorrect, s.Items, s.QuantizedCorrect, s.HolmP)
			shown++
		}
	}
	if len(names) > shown {
		fmt.Fprintf(b, "    and %d more in the report\n", len(names)-shown)
	}
	b.WriteByte('\n')
}

// writeInputs names what was read by one digest a side: of the lines that
// sha256sum would print for the files.
func (r *Report) writeInputs(b *strings.Builder) {
	fmt.Fprintf(b, "  alpha %g one-sided, attempt %d\n", r.Margins.Alpha, max(r.Margins.Attempt, 1))
	for _, x := range r.Benchmarks {
		fmt.Fprintf(b, "  %-10s base      %3d files  %.24s  %s\n", x.Benchmark, len(x.BaseFiles), listDigest(x.BaseFiles), x.BaseSource)
		fmt.Fprintf(b, "  %-10s quantized %3d files  %.24s  %s\n", "", len(x.QuantizedFiles), listDigest(x.QuantizedFiles), x.QuantizedSource)
	}
}

func listDigest(files []File) string {
	h := sha256.New()
	for _, f := range files {
		fmt.Fprintf(h, "%s  %s\n", f.SHA256, f.Path) // a hash never fails
	}
	return hex.EncodeToString(h.Sum(nil))
}
