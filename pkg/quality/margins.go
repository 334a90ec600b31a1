// SPDX-License-Identifier: Apache-2.0

package quality

import (
	"fmt"
)

// Band is a closed interval of accuracy, as fractions. The zero Band means none.
type Band struct {
	Low  float64 `json:"low"`
	High float64 `json:"high"`
}

// Margin says how much one benchmark may lose, and when it may be judged at all.
type Margin struct {
	// Absolute is the largest loss of accuracy that is acceptable, as a fraction:
	// 0.01 is one percentage point. In [0, 0.5]. The lower bound of the
	// difference must lie strictly above -Absolute.
	Absolute float64 `json:"absolute"`
	// MinRecovery, when positive, also demands quantized/base >= MinRecovery of
	// the point estimates, unrounded. In [0, 1].
	MinRecovery float64 `json:"min_recovery"`
	// MinItems refuses runs that are too short to judge, such as a --limit run.
	MinItems int `json:"min_items"`
	// Base is where the base model's accuracy must lie. Outside it the harness is
	// broken (wrong prompt, truncation, doubled BOS), and no verdict is given.
	Base Band `json:"base"`
}

// Margins is the declared policy of the gate. It is copied into the report.
type Margins struct {
	MMLU      Margin `json:"mmlu"`
	HumanEval Margin `json:"humaneval"`
	// Alpha is the one-sided level of each test: 0.05 gives 95 % bounds. In (0, 0.5).
	Alpha float64 `json:"alpha"`
	// Attempt counts the tries on the same items, this one included; 0 means 1.
	// Quantizing until a test passes is multiple testing, so attempt k is held
	// to Alpha/k (Bonferroni).
	Attempt int `json:"attempt"`
	// FailOnAlarm turns a per-subject alarm of MMLU into a fail. Otherwise alarms
	// are reported only: the verdict rests on the whole benchmark.
	FailOnAlarm bool `json:"fail_on_alarm"`
}

// The items of the full benchmarks.
const (
	MMLUItems      = 14_042 // rows of cais/mmlu, split test
	HumanEvalItems = 164    // rows of openai/openai_humaneval
)

// DefaultMargins returns the margins that hold when a policy names none.
//
//   - MMLU 1 percentage point. With 14,042 items and 5 % of the answers changed
//     the bound lies 0.31 points below the difference, so one point is
//     resolvable: a true loss of half a point passes 84 times in 100. It is
//     strict: official AWQ models lose 0.8 to 3.5 points (Qwen2), and whoever
//     wants those says so in the policy.
//   - HumanEval 5 points. 164 greedy answers, of which 10 % change, give a half
//     width of 4.1 points; a tighter margin would refuse on noise. Draw 20
//     samples a task before a policy asks for less.
//   - All items of both benchmarks: a subset can be chosen to please.
//   - Base at least 30 % on MMLU and 5 % on HumanEval: a model at chance has
//     nothing to lose, so its test could not fail. A policy should narrow the
//     band around the base's published score.
func DefaultMargins() Margins {
	return Margins{
		MMLU:      Margin{Absolute: 0.01, MinItems: MMLUItems, Base: Band{Low: 0.30, High: 1}},
		HumanEval: Margin{Absolute: 0.05, MinItems: HumanEvalItems, Base: Band{Low: 0.05, High: 1}},
		Alpha:     0.05,
		Attempt:   1,
	}
}

// maxAttempt bounds Margins.Attempt; a thousand tries are no release process.
const maxAttempt = 1_000

// Validate reports the first field that is out of range, NaN included; it wraps
// ErrMargins.
func (m Margins) Validate() error {
	if !(m.Alpha > 0 && m.Alpha < 0.5) {
		return fmt.Errorf("%w: alpha %v, want a one-sided level between 0 and 0.5", ErrMargins, m.Alpha)
	}
	if m.Attempt < 0 || m.Attempt > maxAttempt {
		return fmt.Errorf("%w: attempt %d, want 0 to %d", ErrMargins, m.Attempt, maxAttempt)
	}
	for _, b := range benchmarks() {
		if err := m.of(b).validate(); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrMargins, b, err)
		}
	}
	return nil
}

func (m Margin) validate() error {
	switch {
	case !(m.Absolute >= 0 && m.Absolute <= 0.5):
		return fmt.Errorf("absolute margin %v, want a fraction from 0 to 0.5 (0.01 is one percentage point)", m.Absolute)
	case !(m.MinRecovery >= 0 && m.MinRecovery <= 1):
		return fmt.Errorf("least recovery %v, want 0 to 1", m.MinRecovery)
	case m.MinItems < 0 || m.MinItems > MaxItems:
		return fmt.Errorf("least items %d, want 0 to %d", m.MinItems, MaxItems)
	case !(m.Base.Low >= 0 && m.Base.Low <= m.Base.High && m.Base.High <= 1):
		return fmt.Errorf("base band %v to %v, want 0 <= low <= high <= 1", m.Base.Low, m.Base.High)
	}
	return nil
}

// level is the one-sided level after the correction for earlier attempts.
func (m Margins) level() float64 { return m.Alpha / float64(max(m.Attempt, 1)) }

func (m Margins) of(b Benchmark) Margin {
	if b == MMLU {
		return m.MMLU
	}
	return m.HumanEval
}

// benchmarks lists the benchmarks in the order of every report.
func benchmarks() []Benchmark { return []Benchmark{MMLU, HumanEval} }
