// SPDX-License-Identifier: Apache-2.0

package quality

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The four groups of MMLU (hendrycks/test categories.py; lm-eval's tags). With
// the full test split they hold 3,153, 4,705, 3,077 and 3,107 items.
const (
	groupSTEM       = "stem"
	groupHumanities = "humanities"
	groupSocial     = "social sciences"
	groupOther      = "other"
)

// Chance is the accuracy of guessing among MMLU's four choices.
const Chance = 0.25

// mmluPrefix stands before the subject in lm-eval's task names.
const mmluPrefix = "mmlu_"

// subjectGroup returns the MMLU group of a subject, and false for a subject that
// is not one of the 57.
func subjectGroup(subject string) (string, bool) {
	switch subject {
	case "abstract_algebra", "anatomy", "astronomy", "college_biology", "college_chemistry", "college_computer_science",
		"college_mathematics", "college_physics", "computer_security", "conceptual_physics", "electrical_engineering",
		"elementary_mathematics", "high_school_biology", "high_school_chemistry", "high_school_computer_science",
		"high_school_mathematics", "high_school_physics", "high_school_statistics", "machine_learning":
		return groupSTEM, true
	case "formal_logic", "high_school_european_history", "high_school_us_history", "high_school_world_history",
		"international_law", "jurisprudence", "logical_fallacies", "moral_disputes", "moral_scenarios", "philosophy",
		"prehistory", "professional_law", "world_religions":
		return groupHumanities, true
	case "econometrics", "high_school_geography", "high_school_government_and_politics", "high_school_macroeconomics",
		"high_school_microeconomics", "high_school_psychology", "human_sexuality", "professional_psychology",
		"public_relations", "security_studies", "sociology", "us_foreign_policy":
		return groupSocial, true
	case "business_ethics", "clinical_knowledge", "college_medicine", "global_facts", "human_aging", "management",
		"marketing", "medical_genetics", "miscellaneous", "nutrition", "professional_accounting",
		"professional_medicine", "virology":
		return groupOther, true
	}
	return "", false
}

// taskOf reports whether task belongs to the benchmark: mmlu_<subject> for one
// of the 57 subjects; humaneval, humaneval_<samples>, and their _instruct forms.
// humaneval_plus, mmlu_pro_* and the like are other benchmarks.
func taskOf(b Benchmark, task string) bool {
	switch b {
	case MMLU:
		subject, ok := strings.CutPrefix(task, mmluPrefix)
		if !ok {
			return false
		}
		_, ok = subjectGroup(subject)
		return ok
	case HumanEval:
		rest, ok := strings.CutPrefix(strings.TrimSuffix(task, "_instruct"), string(HumanEval))
		return ok && (rest == "" || isCount(rest))
	}
	return false
}

// isCount reports whether s is "_" and one to four digits, as in humaneval_64.
func isCount(s string) bool {
	digits, ok := strings.CutPrefix(s, "_")
	return ok && len(digits) >= 1 && len(digits) <= 4 && !slices.ContainsFunc([]byte(digits), func(c byte) bool {
		return c < '0' || c > '9'
	})
}

// isPrintable reports whether s is UTF-8 that cannot steer a terminal.
func isPrintable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
