// SPDX-License-Identifier: Apache-2.0

// Package qualitytest writes directories of benchmark results as
// lm-evaluation-harness leaves them with --log_samples, for tests and demos that
// have no model at hand:
//
//	<dir>/base/samples_mmlu_<subject>_<date>.jsonl       57 files
//	<dir>/base/samples_humaneval_<date>.jsonl
//	<dir>/quantized/...                                  the same items, some answers changed
//
// The same Spec gives the same bytes. Items, prompts and programs are invented;
// names, keys, hashes, sizes and the relation of metric to responses are real.
package qualitytest

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// The two directories that Write makes.
const (
	BaseDir      = "base"
	QuantizedDir = "quantized"
)

// date is the stamp in the file names; fixed, so that runs repeat.
const date = "2026-01-16T15-23-47.285735"

// The full sizes of the benchmarks.
const (
	humanEvalTasks  = 164
	defaultAccuracy = 0.65
)

// Spec says what to write. The zero Spec is the full MMLU and greedy HumanEval of
// two models that give the same answers.
type Spec struct {
	Seed         uint64
	MMLU         map[string]int // items by subject; nil means MMLUSizes
	HumanEval    int            // tasks; 0 means 164
	Samples      int            // programs a HumanEval task; 0 means 1, greedy
	BaseAccuracy float64        // share of right answers of base; 0 means 0.65
	// Worse and Better are shares of all items of a benchmark, rounded to whole
	// items: those that base has right and quantized wrong, and the reverse. With
	// several samples a changed task loses or gains a quarter of its samples.
	Worse, Better float64
}

// Passing is a Spec that the default margins let pass: the quantized model loses
// 0.3 points on MMLU.
func Passing(seed uint64) Spec { return Spec{Seed: seed, Worse: 0.025, Better: 0.022} }

// Failing is a Spec that they refuse: a loss of 3 points on MMLU.
func Failing(seed uint64) Spec { return Spec{Seed: seed, Worse: 0.055, Better: 0.025} }

// item is one question and what the two models made of it.
type item struct {
	task            string
	id              int
	base, quantized int // right samples
}

// Write makes dir/base and dir/quantized, which must not hold files of the same
// names. It refuses a Spec whose rates do not fit in its items.
func Write(dir string, spec Spec) error {
	spec = spec.withDefaults()
	if err := spec.check(); err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(spec.Seed, 0x6c6d6576616c)) // "lmeval": a stream of its own
	mmlu := spec.mmluItems()
	if err := spec.answer(rng, mmlu, 1); err != nil {
		return fmt.Errorf("mmlu: %w", err)
	}
	code := make([]item, spec.HumanEval)
	for i := range code {
		code[i] = item{task: "humaneval", id: i}
	}
	if err := spec.answer(rng, code, spec.Samples); err != nil {
		return fmt.Errorf("humaneval: %w", err)
	}
	for _, side := range []string{BaseDir, QuantizedDir} {
		w := &writer{dir: filepath.Join(dir, side), spec: spec, quantized: side == QuantizedDir}
		if err := w.write(mmlu, code); err != nil {
			return err
		}
	}
	return nil
}

func (s Spec) withDefaults() Spec {
	if s.MMLU == nil {
		s.MMLU = MMLUSizes()
	}
	if s.HumanEval == 0 {
		s.HumanEval = humanEvalTasks
	}
	s.Samples = max(s.Samples, 1)
	if s.BaseAccuracy == 0 {
		s.BaseAccuracy = defaultAccuracy
	}
	return s
}

func (s Spec) check() error {
	for _, x := range []float64{s.BaseAccuracy, s.Worse, s.Better} {
		if !(x >= 0 && x <= 1) {
			return fmt.Errorf("qualitytest: share %v, want 0 to 1", x)
		}
	}
	if s.HumanEval < 0 || s.Samples > 1_000 {
		return errors.New("qualitytest: negative number of tasks, or more than 1,000 samples")
	}
	return nil
}

func (s Spec) mmluItems() []item {
	var items []item
	for _, subject := range slices.Sorted(maps.Keys(s.MMLU)) {
		for id := range s.MMLU[subject] {
			items = append(items, item{task: "mmlu_" + subject, id: id})
		}
	}
	return items
}

// answer fills in the right samples of both models.
func (s Spec) answer(rng *rand.Rand, items []item, samples int) error {
	order := rng.Perm(len(items))
	right := int(math.Round(s.BaseAccuracy * float64(len(items))))
	worse, better := share(s.Worse, items), share(s.Better, items)
	if worse > right || better > len(items)-right {
		return fmt.Errorf("qualitytest: %d worse of %d right and %d better of %d wrong do not fit", worse, right, better, len(items)-right)
	}
	step := max(samples/4, 1)
	for rank, at := range order {
		it := &items[at]
		it.base = start(rng, rank < right, samples)
		it.quantized = it.base
		switch {
		case rank < worse:
			it.quantized = max(it.base-step, 0)
		case rank >= len(items)-better:
			it.quantized = min(it.base+step, samples)
		}
	}
	return nil
}

func share(rate float64, items []item) int { return int(math.Round(rate * float64(len(items)))) }

// start draws base's right samples: all or none when greedy, else more or fewer
// than half, as tasks are mostly solved or mostly not.
func start(rng *rand.Rand, solved bool, samples int) int {
	switch half := (samples + 1) / 2; {
	case samples == 1 && solved:
		return 1
	case samples == 1:
		return 0
	case solved:
		return half + rng.IntN(samples-half+1)
	default:
		return rng.IntN(half)
	}
}

// writer writes one side.
type writer struct {
	dir       string
	spec      Spec
	quantized bool
}

func (w *writer) write(mmlu, code []item) error {
	if err := os.MkdirAll(w.dir, 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	for start := 0; start < len(mmlu); {
		end := start + 1
		for end < len(mmlu) && mmlu[end].task == mmlu[start].task {
			end++
		}
		if err := w.file(mmlu[start:end], w.choice); err != nil {
			return err
		}
		start = end
	}
	if len(code) == 0 {
		return nil
	}
	return w.file(code, w.program)
}

// file writes the items of one task, one line each.
func (w *writer) file(items []item, line func(item) (any, error)) (err error) {
	name := filepath.Join(w.dir, "samples_"+items[0].task+"_"+date+".jsonl")
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("create samples: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := bufio.NewWriter(f)
	enc := json.NewEncoder(buf)
	enc.SetEscapeHTML(false)
	for _, it := range items {
		v, err := line(it)
		if err != nil {
			return err
		}
		if err := enc.Encode(v); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return buf.Flush()
}

func (w *writer) right(it item) int {
	if w.quantized {
		return it.quantized
	}
	return it.base
}

// record is the part of a line that all tasks share, in lm-eval's order; the
// metric is the last key.
type record struct {
	DocID      int             `json:"doc_id"`
	Doc        any             `json:"doc"`
	Target     string          `json:"target"`
	Arguments  map[string]args `json:"arguments"`
	Resps      any             `json:"resps"`
	Filtered   any             `json:"filtered_resps"`
	Filter     string          `json:"filter"`
	Metrics    []string        `json:"metrics"`
	DocHash    string          `json:"doc_hash"`
	PromptHash string          `json:"prompt_hash"`
	TargetHash string          `json:"target_hash"`
	Acc        *float64        `json:"acc,omitempty"`
	Pass       *float64        `json:"pass@1,omitempty"`
}

type args struct {
	Arg0 string `json:"arg_0"`
	Arg1 any    `json:"arg_1"`
}

type question struct {
	Question string   `json:"question"`
	Subject  string   `json:"subject"`
	Choices  []string `json:"choices"`
	Answer   int      `json:"answer"`
}

// choice is a line of MMLU: four continuations with their log-probabilities as
// strings, of which the largest is the answer.
func (w *writer) choice(it item) (any, error) {
	subject := strings.TrimPrefix(it.task, "mmlu_")
	gold := int(w.noise(it, 0) % 4)
	doc := question{fmt.Sprintf("Question %d of %s?", it.id, subject), subject, []string{"w", "x", "y", "z"}, gold}
	prompt := doc.Question + "\nA. w\nB. x\nC. y\nD. z\nAnswer:"
	chosen := gold
	if w.right(it) == 0 {
		chosen = (gold + 1 + int(w.noise(it, 1)%3)) % 4
	}
	rec, err := newRecord(it, doc, prompt, strconv.Itoa(gold))
	if err != nil {
		return nil, err
	}
	pairs, resps := make([][2]string, 4), make([][1][2]string, 4)
	for i := range pairs {
		logprob := -2 - w.fraction(it, 2+i)
		if i == chosen {
			logprob = -w.fraction(it, 2+i)
		}
		pairs[i] = [2]string{strconv.FormatFloat(logprob, 'g', -1, 64), "False"}
		resps[i] = [1][2]string{pairs[i]}
		rec.Arguments["gen_args_"+strconv.Itoa(i)] = args{prompt, " " + string(rune('A'+i))}
	}
	acc := float64(w.right(it))
	rec.Resps, rec.Filtered, rec.Filter, rec.Metrics, rec.Acc = resps, pairs, "none", []string{"acc"}, &acc
	return rec, nil
}

type problem struct {
	TaskID     string `json:"task_id"`
	Prompt     string `json:"prompt"`
	EntryPoint string `json:"entry_point"`
	Test       string `json:"test"`
}

// program is a line of HumanEval: the completions, and the share that passed.
func (w *writer) program(it item) (any, error) {
	entry := "f" + strconv.Itoa(it.id)
	prompt := "def " + entry + "(x):\n    \"\"\"Return x plus " + strconv.Itoa(it.id) + ".\"\"\"\n"
	doc := problem{"HumanEval/" + strconv.Itoa(it.id), prompt, entry, "def check(f):\n    assert f(1) == " + strconv.Itoa(it.id+1) + "\n"}
	rec, err := newRecord(it, doc, prompt, doc.Test+"\ncheck("+entry+")")
	if err != nil {
		return nil, err
	}
	rec.Arguments["gen_args_0"] = args{prompt, map[string]any{"until": []string{"\nclass", "\ndef", "\n#", "\nif", "\nprint"}, "max_gen_toks": 1024}}
	completions, programs := make([]string, w.spec.Samples), make([]string, w.spec.Samples)
	for i := range completions {
		wrong := asInt(i >= w.right(it))
		completions[i] = fmt.Sprintf("    y = %d\n    return x + %d\n", w.noise(it, 10+i)%1000, it.id+wrong)
		programs[i] = prompt + completions[i]
	}
	pass := float64(w.right(it)) / float64(w.spec.Samples)
	rec.Resps, rec.Filtered = [][]string{completions}, [][]string{programs}
	rec.Filter, rec.Metrics, rec.Pass = "create_test", []string{"pass@1"}, &pass
	return rec, nil
}

func asInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// newRecord hashes as lm-eval does: the document as JSON with an indent of two,
// the prompt and the target as they are.
func newRecord(it item, doc any, prompt, target string) (*record, error) {
	text, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode document: %w", err)
	}
	return &record{
		DocID: it.id, Doc: doc, Target: target, Arguments: make(map[string]args),
		DocHash: hash(string(text)), PromptHash: hash(prompt), TargetHash: hash(target),
	}, nil
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// noise is a repeatable number for one item and purpose. Purpose 0, the gold
// answer, is the same for both models; the rest differs, as log-probabilities do.
func (w *writer) noise(it item, purpose int) uint64 {
	side := uint64(asInt(w.quantized && purpose != 0))
	name := sha256.Sum256([]byte(it.task))
	high := uint64(name[0])<<32 | uint64(name[1])<<40 | uint64(it.id)
	return rand.NewPCG(w.spec.Seed^high, uint64(purpose)<<1|side).Uint64()
}

// fraction is noise in (0, 1).
func (w *writer) fraction(it item, purpose int) float64 {
	return (float64(w.noise(it, purpose)>>12) + 0.5) / (1 << 52)
}
