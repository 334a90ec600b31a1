// SPDX-License-Identifier: Apache-2.0

package quality

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// The methods that decide, as reports name them.
const (
	methodTango     = "tango"
	methodBootstrap = "bootstrap-percentile"
	methodLower     = "lower of bootstrap-percentile and tango"
)

// analyse computes everything of a benchmark's report but the inputs' names. It
// is a function of p and m alone: Recompute calls it on decoded outcomes.
func analyse(p *paired, m Margins) (*BenchmarkReport, error) {
	margin, n := m.of(p.benchmark), p.len()
	if n < max(margin.MinItems, 1) {
		return nil, fmt.Errorf("%w: %d, the margin demands %d; evaluate the whole benchmark", ErrTooFewItems, n, max(margin.MinItems, 1))
	}
	br := &BenchmarkReport{Benchmark: p.benchmark, Items: n, Samples: p.samples, Alpha: m.level(), Margin: margin}
	br.count(p)
	if err := checkBand(margin.Base, br.BaseAccuracy); err != nil {
		return nil, err
	}
	if p.benchmark == MMLU {
		br.analyseMMLU(p)
	} else {
		br.analyseHumanEval(p)
	}
	br.decide(m)
	return br, nil
}

// checkBand refuses a base outside the band; the zero band is none.
func checkBand(band Band, accuracy float64) error {
	if band == (Band{}) || (accuracy >= band.Low && accuracy <= band.High) {
		return nil
	}
	return fmt.Errorf("%w: base scores %.2f %%, the band is %.2f to %.2f %%; check prompts, truncation and BOS of the evaluation",
		ErrBaseBand, 100*accuracy, 100*band.Low, 100*band.High)
}

// count fills in what needs no statistics.
func (br *BenchmarkReport) count(p *paired) {
	base, quantized := 0, 0
	for _, t := range p.tasks {
		for _, it := range t.items {
			base += int(it.base)
			quantized += int(it.quantized)
			br.BaseInvalid += asInt(it.baseInvalid)
			br.QuantizedInvalid += asInt(it.quantizedInval)
		}
	}
	total := float64(br.Items) * float64(p.samples)
	br.BaseAccuracy, br.QuantizedAccuracy = float64(base)/total, float64(quantized)/total
	br.Difference = float64(quantized-base) / total
	if base > 0 {
		br.Recovery = float64(quantized) / float64(base)
	}
	t := tableOf(p)
	br.Worse, br.Better, br.FlipRate = t.worse, t.better, float64(t.worse+t.better)/float64(t.n)
	br.McNemarP = mcnemar(t.worse, t.better)
}

func asInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// tableOf counts items that got worse and better; with several samples an item
// is a task whose share of right samples fell or rose.
func tableOf(p *paired) table {
	var sum table
	for _, t := range p.tasks {
		s := t.table(p.samples)
		sum.n, sum.both, sum.worse, sum.better = sum.n+s.n, sum.both+s.both, sum.worse+s.worse, sum.better+s.better
	}
	return sum
}

func (t pairedTask) table(samples int) table {
	out := table{n: len(t.items)}
	for _, it := range t.items {
		switch {
		case it.quantized < it.base:
			out.worse++
		case it.quantized > it.base:
			out.better++
		case int(it.base) == samples:
			out.both++
		}
	}
	return out
}

// analyseMMLU: Tango decides; Newcombe and the cluster-robust bound stand beside
// it; subjects and groups are reported.
func (br *BenchmarkReport) analyseMMLU(p *paired) {
	t := tableOf(p)
	iv := tango(t, br.Alpha)
	br.Method, br.LowerBound, br.UpperBound = methodTango, iv.lower, iv.upper
	br.cross("newcombe-10", newcombe(t, br.Alpha))
	br.Subjects = subjectsOf(p, br.Alpha)
	br.Groups = groupsOf(br.Subjects)
	clusters := make([]table, len(p.tasks))
	for i, task := range p.tasks {
		clusters[i] = task.table(1)
	}
	br.ClusterSE = clusterSE(clusters, t.n, t.diff())
	half := normalQuantile(br.Alpha) * br.ClusterSE
	br.cross("cluster-robust normal", interval{lower: t.diff() - half, upper: t.diff() + half})
}

// analyseHumanEval: the bootstrap over tasks decides, for greedy runs the lower
// of it and Tango; Student's t stands beside it.
func (br *BenchmarkReport) analyseHumanEval(p *paired) {
	var deltas []int
	for _, t := range p.tasks {
		for _, it := range t.items {
			deltas = append(deltas, int(it.quantized)-int(it.base))
		}
	}
	iv := bootstrap(deltas, p.samples, br.Alpha)
	br.Method, br.Bootstrap = methodBootstrap, &BootstrapReport{Resamples: Resamples, Seed: [2]uint64{bootstrapSeed, bootstrapStream}}
	if p.samples == 1 {
		br.cross(methodBootstrap, iv)
		score := tango(tableOf(p), br.Alpha)
		br.cross(methodTango, score)
		br.Method = methodLower
		iv = interval{lower: math.Min(iv.lower, score.lower), upper: math.Max(iv.upper, score.upper)}
	}
	br.LowerBound, br.UpperBound = iv.lower, iv.upper
	if t, ok := studentT(deltas, p.samples, br.Alpha); ok {
		br.cross("student-t", t)
	}
}

// cross records an interval by another method.
func (br *BenchmarkReport) cross(method string, iv interval) {
	br.CrossChecks = append(br.CrossChecks, CrossCheck{
		Method: method, Lower: iv.lower, Upper: iv.upper, NonInferior: iv.lower > -br.Margin.Absolute,
	})
}

// subjectsOf gives each subject's table with an exact one-sided McNemar test,
// adjusted by Holm: an alarm is a subject that collapsed while the average held.
func subjectsOf(p *paired, alpha float64) []SubjectReport {
	out, raw := make([]SubjectReport, len(p.tasks)), make([]float64, len(p.tasks))
	for i, t := range p.tasks {
		tab := t.table(1)
		group, _ := subjectGroup(strings.TrimPrefix(t.name, mmluPrefix))
		raw[i] = mcnemar(tab.worse, tab.better)
		out[i] = SubjectReport{
			Task: t.name, Group: group, Items: tab.n, BaseCorrect: tab.both + tab.worse, QuantizedCorrect: tab.both + tab.better,
			Worse: tab.worse, Better: tab.better, McNemarP: raw[i],
		}
	}
	for i, adjusted := range holm(raw) {
		out[i].HolmP, out[i].Alarm = adjusted, adjusted <= alpha
	}
	return out
}

// groupsOf sums the subjects of each group that occurs, in a fixed order.
func groupsOf(subjects []SubjectReport) []GroupReport {
	var out []GroupReport
	for _, name := range []string{groupSTEM, groupHumanities, groupSocial, groupOther} {
		g := GroupReport{Group: name}
		for _, s := range subjects {
			if s.Group == name {
				g.Subjects++
				g.Items += s.Items
				g.BaseCorrect += s.BaseCorrect
				g.QuantizedCorrect += s.QuantizedCorrect
			}
		}
		if g.Items > 0 {
			g.BaseAccuracy = float64(g.BaseCorrect) / float64(g.Items)
			g.QuantizedAccuracy = float64(g.QuantizedCorrect) / float64(g.Items)
			out = append(out, g)
		}
	}
	return out
}

// decide applies the policy. Nothing is rounded before it is compared.
func (br *BenchmarkReport) decide(m Margins) {
	br.NonInferior = br.LowerBound > -br.Margin.Absolute
	br.Reasons = []string{}
	fail := func(format string, args ...any) { br.Reasons = append(br.Reasons, fmt.Sprintf(format, args...)) }
	if !br.NonInferior {
		fail("%s: the lower bound of the difference, %+.3f pp, is not above the margin of %+.3f pp", br.Benchmark, 100*br.LowerBound, -100*br.Margin.Absolute)
	}
	if br.QuantizedAccuracy < br.Margin.MinRecovery*br.BaseAccuracy {
		fail("%s: recovery %.4f is below %.4f", br.Benchmark, br.Recovery, br.Margin.MinRecovery)
	}
	if br.Benchmark == MMLU && br.QuantizedAccuracy <= Chance {
		fail("%s: the quantized model answers no better than chance (%.2f %%)", br.Benchmark, 100*br.QuantizedAccuracy)
	}
	if names := alarms(br.Subjects); m.FailOnAlarm && len(names) > 0 {
		fail("%s: subjects collapsed: %s", br.Benchmark, strings.Join(names, ", "))
	}
}

// alarms names the subjects whose alarm is raised.
func alarms(subjects []SubjectReport) []string {
	var names []string
	for _, s := range subjects {
		if s.Alarm {
			names = append(names, strings.TrimPrefix(s.Task, mmluPrefix))
		}
	}
	return slices.Clip(names)
}
