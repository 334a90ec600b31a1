// SPDX-License-Identifier: Apache-2.0

package quality

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Benchmark names one of the two benchmarks that the gate knows.
type Benchmark string

const (
	// MMLU is Massive Multitask Language Understanding (Hendrycks et al. 2021):
	// 57 subjects, 14,042 test items, four choices each.
	MMLU Benchmark = "mmlu"
	// HumanEval is OpenAI's set of 164 Python problems (Chen et al. 2021).
	HumanEval Benchmark = "humaneval"
)

// Limits. Each bounds memory or time whatever the input holds.
const (
	// MaxItems bounds the items of one run: 70 times MMLU, and about 250 MB.
	MaxItems = 1_000_000
	// MaxLine bounds one JSON line: 64 HumanEval samples need some 200 KiB.
	MaxLine = 16 << 20
	// MaxSamples bounds the samples of one task; papers use up to 200.
	MaxSamples = 10_000
	// MaxTasks bounds the tasks of a HumanEval run, as the bootstrap draws each of
	// them 10,000 times: 60 times HumanEval, under a second.
	MaxTasks = 10_000
	// maxFiles bounds the files of one run: MMLU has 57.
	maxFiles = 1_000
	// maxPath bounds a file name as Linux does (NAME_MAX) with room for a folder.
	maxPath = 1_024
	// maxNamed is how many offending items an error names before it counts.
	maxNamed = 10
	// maxWord bounds a task name, a scoring and a source.
	maxWord = 128
)

// Reasons for which no verdict can be given. Every error of this package wraps
// one of these, or an error of the file system.
var (
	// ErrNoSamples: the directory holds no samples file of a known benchmark.
	ErrNoSamples = errors.New("quality: no samples")
	// ErrUnknownTask: a samples file of the MMLU or HumanEval families that is not the benchmark itself.
	ErrUnknownTask = errors.New("quality: unknown task")
	// ErrMalformed: a line or a run that breaks its format.
	ErrMalformed = errors.New("quality: malformed samples")
	// ErrMetric: the metric is absent, unknown, out of range or contradicts the answers.
	ErrMetric = errors.New("quality: unusable metric")
	// ErrErrored: the evaluator recorded an error, or no number, for an item.
	ErrErrored = errors.New("quality: errored item")
	// ErrDuplicate: an item, a key or a task occurs twice.
	ErrDuplicate = errors.New("quality: duplicate")
	// ErrTooLarge: a limit of this package is exceeded.
	ErrTooLarge = errors.New("quality: too large")
	// ErrMissingItems: items, or a whole benchmark, exist on one side only.
	ErrMissingItems = errors.New("quality: missing items")
	// ErrPairing: the two runs were not asked the same thing in the same way.
	ErrPairing = errors.New("quality: runs cannot be paired")
	// ErrTooFewItems: fewer items than the margin demands.
	ErrTooFewItems = errors.New("quality: too few items")
	// ErrBaseBand: the base model scores outside its sanity band, so the evaluation itself is in doubt.
	ErrBaseBand = errors.New("quality: base outside its sanity band")
	// ErrSameRun: base and quantized results are the same bytes.
	ErrSameRun = errors.New("quality: one run given twice")
	// ErrMargins: the margins are not usable.
	ErrMargins = errors.New("quality: unusable margins")
)

// Item is one question put to one model.
type Item struct {
	Task       string // "mmlu_anatomy", "humaneval": lower case letters, digits, underscore
	DocHash    string // SHA-256 of the document as the evaluator prints it, 64 lower-case hex
	PromptHash string // SHA-256 of the prompt, 64 lower-case hex
	DocID      int64  // index in the data set; with Task it is the item's key
	Correct    int    // samples that were right, 0..Samples
	Samples    int    // samples drawn; 1 for MMLU and for greedy HumanEval
	Invalid    bool   // a sample held no usable answer (it counts as wrong)
}

// File is one input file: its path as it was opened, and the SHA-256 of all its
// bytes in 64 lower-case hex digits.
type File struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
}

// Run is what one model answered on one benchmark. The caller owns it; Compare
// only reads it. Items may stand in any order.
type Run struct {
	Benchmark Benchmark
	Source    string            // the evaluator: "lm-eval"
	Scoring   map[string]string // by task: metric and filter, as "acc/none"; both runs must agree
	Items     []Item
	Files     []File // sorted by path; may be empty when no file stands behind the run
}

// Validate reports the first item or file that breaks the rules of Run: it
// wraps ErrMalformed, ErrDuplicate or ErrTooLarge. Every source of runs is held
// to it by Compare.
func (r *Run) Validate() error {
	_, err := r.sorted()
	return err
}

// sorted checks the run and returns its items in canonical order: by task, then
// by document. The order fixes what the bootstrap draws.
func (r *Run) sorted() ([]Item, error) {
	if len(r.Items) > MaxItems || len(r.Files) > maxFiles {
		return nil, fmt.Errorf("%w: %d items in %d files, at most %d in %d", ErrTooLarge, len(r.Items), len(r.Files), MaxItems, maxFiles)
	}
	if r.Benchmark == HumanEval && len(r.Items) > MaxTasks {
		return nil, fmt.Errorf("%w: %d HumanEval tasks, at most %d", ErrTooLarge, len(r.Items), MaxTasks)
	}
	if !isText(r.Source) {
		return nil, fmt.Errorf("%w: source %q", ErrMalformed, r.Source)
	}
	if err := checkFiles(r.Files); err != nil {
		return nil, err
	}
	for i := range r.Items {
		if err := r.checkItem(&r.Items[i]); err != nil {
			return nil, err
		}
	}
	items := slices.Clone(r.Items)
	slices.SortFunc(items, compareItems)
	return items, noDuplicates(items)
}

func compareItems(a, b Item) int {
	return cmp.Or(cmp.Compare(a.Task, b.Task), cmp.Compare(a.DocID, b.DocID))
}

func noDuplicates(sorted []Item) error {
	for i := 1; i < len(sorted); i++ {
		if compareItems(sorted[i-1], sorted[i]) == 0 {
			return fmt.Errorf("%w: %s occurs twice; give one evaluation only", ErrDuplicate, sorted[i].name())
		}
	}
	return nil
}

func (it *Item) name() string { return fmt.Sprintf("%s doc_id %d", it.Task, it.DocID) }

// checkItem holds one item to the rules of Item.
func (r *Run) checkItem(it *Item) error {
	switch {
	case !taskOf(r.Benchmark, it.Task):
		return fmt.Errorf("%w: %q is no task of %s", ErrUnknownTask, it.Task, r.Benchmark)
	case it.DocID < 0:
		return fmt.Errorf("%w: %s: negative doc_id", ErrMalformed, it.name())
	case !isDigest(it.DocHash) || !isDigest(it.PromptHash):
		return fmt.Errorf("%w: %s: doc_hash and prompt_hash must be 64 lower-case hex digits", ErrMalformed, it.name())
	case it.Samples < 1 || it.Samples > MaxSamples || it.Correct < 0 || it.Correct > it.Samples:
		return fmt.Errorf("%w: %s: %d right of %d samples", ErrMalformed, it.name(), it.Correct, it.Samples)
	case r.Benchmark == MMLU && it.Samples != 1:
		return fmt.Errorf("%w: %s: %d samples, MMLU has one", ErrMalformed, it.name(), it.Samples)
	case !isText(r.Scoring[it.Task]):
		return fmt.Errorf("%w: %s: scoring %q", ErrMalformed, it.name(), r.Scoring[it.Task])
	}
	return nil
}

func checkFiles(files []File) error {
	for i, f := range files {
		if f.Path == "" || len(f.Path) > maxPath || !isPrintable(f.Path) || !isDigest(f.SHA256) {
			return fmt.Errorf("%w: file %q with digest %q", ErrMalformed, f.Path, f.SHA256)
		}
		if i > 0 && files[i-1].Path >= f.Path {
			return fmt.Errorf("%w: file %q out of order or twice", ErrDuplicate, f.Path)
		}
	}
	return nil
}

// isDigest reports whether s is a SHA-256 in lower-case hex. A masked or a
// shortened digest pairs with anything, so it is refused.
func isDigest(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// isText reports whether s is a short word of printable ASCII without spaces;
// such words reach a terminal, so nothing else may stand in them.
func isText(s string) bool {
	if len(s) > maxWord {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}
