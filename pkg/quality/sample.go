// SPDX-License-Identifier: Apache-2.0

package quality

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// sample is one decoded line of lm-eval (evaluator.py, evaluate; resps and
// filtered_resps pass through sanitize_list, so numbers come as strings).
type sample struct {
	docID      *int64
	docHash    string
	promptHash string
	filter     string
	target     any
	resps      answers
	filtered   answers
	failure    any // an "error" or "exception" key, as forks write it
	metrics    map[string]json.RawMessage
}

// skipped takes a JSON value and keeps nothing of it: doc and arguments hold the
// prompts, which are most of a line.
type skipped struct{}

func (skipped) UnmarshalJSON([]byte) error { return nil }

// maxAnswerTokens bounds the values and brackets of a list of answers: a line of
// nothing but "[],[]," would otherwise grow thirtyfold in memory.
const maxAnswerTokens = 4 * MaxSamples

// answers is a nested list of answers with a bounded number of members.
type answers []any

func (a *answers) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	for tokens := 0; ; tokens++ {
		if tokens > maxAnswerTokens {
			return fmt.Errorf("%w: more than %d members", ErrTooLarge, maxAnswerTokens)
		}
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			return json.Unmarshal(b, (*[]any)(a))
		} else if err != nil {
			return err
		}
	}
}

// parseSample turns one line into an item (without its task) and its scoring.
func parseSample(line []byte, b Benchmark) (Item, string, error) {
	s, err := decodeSample(line)
	if err != nil {
		return Item{}, "", err
	}
	if err := s.checkKeys(); err != nil {
		return Item{}, "", err
	}
	item := Item{DocHash: s.docHash, PromptHash: s.promptHash, DocID: *s.docID, Samples: 1}
	metric, value, err := s.metric(b)
	if err != nil {
		return Item{}, "", err
	}
	if b == MMLU {
		err = s.scoreChoice(value, &item)
	} else {
		err = s.scoreProgram(value, &item)
	}
	return item, metric + "/" + s.filter, err
}

// decodeSample walks the top-level keys, so that a key given twice is seen
// (encoding/json would keep the last) and case matters.
func decodeSample(line []byte) (*sample, error) {
	dec := json.NewDecoder(bytes.NewReader(line))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('{') {
		return nil, notJSON(line, err)
	}
	s, seen := &sample{metrics: make(map[string]json.RawMessage)}, make(map[string]bool)
	for dec.More() {
		tok, err := dec.Token()
		key, ok := tok.(string)
		if err != nil || !ok {
			return nil, notJSON(line, err)
		}
		if seen[key] {
			return nil, fmt.Errorf("%w: key %q given twice", ErrDuplicate, key)
		}
		seen[key] = true
		behind := dec.InputOffset()
		if err := dec.Decode(s.field(key)); err != nil {
			return nil, badValue(line[min(behind, int64(len(line))):], key, err)
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, notJSON(line, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: bytes after the JSON object", ErrMalformed)
	}
	return s, nil
}

// field says where the value of a top-level key goes.
func (s *sample) field(key string) any {
	switch key {
	case "doc_id":
		return &s.docID
	case "doc_hash":
		return &s.docHash
	case "prompt_hash":
		return &s.promptHash
	case "filter":
		return &s.filter
	case "target":
		return &s.target
	case "resps":
		return &s.resps
	case "filtered_resps":
		return &s.filtered
	case "error", "exception":
		return &failureField{s}
	}
	if _, ok := metricName(MMLU, key); ok {
		return &metricField{s, key}
	}
	if _, ok := metricName(HumanEval, key); ok {
		return &metricField{s, key}
	}
	return &skipped{}
}

// failureField keeps any value but null, so that "error" and "exception" do not
// overwrite each other with nothing.
type failureField struct{ s *sample }

func (f *failureField) UnmarshalJSON(b []byte) error {
	if !bytes.Equal(bytes.TrimSpace(b), []byte("null")) {
		f.s.failure = string(b[:min(len(b), 200)])
	}
	return nil
}

// metricField keeps the value of a metric as it was written.
type metricField struct {
	s   *sample
	key string
}

func (m *metricField) UnmarshalJSON(b []byte) error {
	m.s.metrics[m.key] = slices.Clone(b)
	return nil
}

// notJSON explains a line that is no object.
func notJSON(line []byte, err error) error {
	switch {
	case len(bytes.TrimSpace(line)) == 0:
		return fmt.Errorf("%w: empty line", ErrMalformed)
	case err != nil:
		return fmt.Errorf("%w: not a whole JSON object (%w); was the file cut short?", ErrMalformed, err)
	}
	return fmt.Errorf("%w: not a JSON object", ErrMalformed)
}

// badValue explains a value that does not decode. Python writes NaN and Infinity
// bare, which is not JSON; that is an errored item, and said so. rest is the line behind its key.
func badValue(rest []byte, key string, err error) error {
	if errors.Is(err, ErrTooLarge) {
		return fmt.Errorf("value of %q: %w", key, err)
	}
	value := bytes.TrimPrefix(bytes.TrimLeft(rest, " \t:"), []byte("-"))
	if bytes.HasPrefix(value, []byte("NaN")) || bytes.HasPrefix(value, []byte("Infinity")) {
		return fmt.Errorf("%w: %q is NaN or infinite; evaluate the item again", ErrErrored, key)
	}
	return fmt.Errorf("%w: value of %q: %w", ErrMalformed, key, err)
}

// checkKeys demands what pairs an item, and that it was answered at all.
func (s *sample) checkKeys() error {
	switch {
	case s.docID == nil || *s.docID < 0:
		return fmt.Errorf("%w: doc_id is missing or negative", ErrMalformed)
	case !isDigest(s.docHash):
		return fmt.Errorf("%w: doc_hash %.80q, want a SHA-256 in hex (lm-eval 0.4.3 and later writes it)", ErrMalformed, s.docHash)
	case !isDigest(s.promptHash):
		return fmt.Errorf("%w: prompt_hash %.80q, want a SHA-256 in hex (lm-eval 0.4.3 and later writes it)", ErrMalformed, s.promptHash)
	case !isText(s.filter):
		return fmt.Errorf("%w: filter %.80q", ErrMalformed, s.filter)
	case s.failure != nil:
		return fmt.Errorf("%w: doc_id %d carries the error %.200q; evaluate it again", ErrErrored, *s.docID, s.failure)
	case len(s.resps) == 0 || holdsNull(s.resps):
		return fmt.Errorf("%w: doc_id %d has no response; evaluate it again", ErrErrored, *s.docID)
	}
	return nil
}

// holdsNull reports a null or an empty list anywhere inside list.
func holdsNull(list []any) bool {
	return slices.ContainsFunc(list, func(v any) bool {
		inner, ok := v.([]any)
		return v == nil || (ok && (len(inner) == 0 || holdsNull(inner)))
	})
}

// metricName maps the documented spellings of a benchmark's metric to its name:
// the bare one of samples files, the one with a filter of results files, and the
// one with underscores of task configurations.
func metricName(b Benchmark, key string) (string, bool) {
	switch {
	case b == MMLU && (key == "acc" || key == "acc,none"):
		return "acc", true
	case b == HumanEval && (key == "pass@1" || key == "pass@1,create_test" || key == "pass_at_1" || key == "pass_at_1,create_test"):
		return "pass@1", true
	}
	return "", false
}

// metric returns the benchmark's one metric of the line, a finite number in [0, 1].
func (s *sample) metric(b Benchmark) (name string, value float64, err error) {
	found := ""
	for key := range s.metrics {
		n, ok := metricName(b, key)
		if !ok {
			continue
		}
		if found != "" {
			return "", 0, fmt.Errorf("%w: both %q and %q are given", ErrMetric, min(found, key), max(found, key))
		}
		found, name = key, n
	}
	if found == "" {
		want := map[Benchmark]string{MMLU: `"acc"`, HumanEval: `"pass@1" (set k to a list that holds 1)`}[b]
		return "", 0, fmt.Errorf("%w: no metric of %s in the item; want %s", ErrMetric, b, want)
	}
	value, err = strconv.ParseFloat(string(s.metrics[found]), 64)
	if err != nil || !(value >= 0 && value <= 1) {
		return "", 0, fmt.Errorf("%w: %s is %.80s, want a number from 0 to 1", ErrMetric, found, s.metrics[found])
	}
	return name, value, nil
}

// scoreChoice scores a multiple-choice item: acc is 0 or 1, and it must follow
// from the log-probabilities that stand beside it.
func (s *sample) scoreChoice(acc float64, item *Item) error {
	if acc != 0 && acc != 1 {
		return fmt.Errorf("%w: acc is %v, want 0 or 1", ErrMetric, acc)
	}
	item.Correct = int(acc)
	item.Invalid = isInvalid(s.filtered)
	logprobs, err := choiceLogprobs(s.filtered)
	if err != nil || logprobs == nil {
		return err
	}
	gold, ok := goldIndex(s.target, len(logprobs))
	if !ok {
		return nil
	}
	// First maximum, as numpy.argmax (lm-eval task.py, process_results).
	chosen := slices.Index(logprobs, slices.Max(logprobs))
	if (chosen == gold) != (acc == 1) {
		return fmt.Errorf("%w: acc is %v, but the log-probabilities choose %d and the target is %d", ErrMetric, acc, chosen, gold)
	}
	return nil
}

// choiceLogprobs reads [[logprob, is_greedy], ...] of four choices; nil when the
// list has another shape, as a generating task has.
func choiceLogprobs(filtered []any) ([]float64, error) {
	const choices = 4
	if len(filtered) != choices {
		return nil, nil
	}
	out := make([]float64, choices)
	for i, v := range filtered {
		pair, ok := v.([]any)
		if !ok || len(pair) != 2 {
			return nil, nil
		}
		x, ok := number(pair[0])
		if !ok {
			return nil, nil
		}
		if math.IsNaN(x) || math.IsInf(x, 1) {
			return nil, fmt.Errorf("%w: the log-probability of choice %d is %v; evaluate the item again", ErrErrored, i, x)
		}
		out[i] = x
	}
	if math.IsInf(slices.Max(out), -1) {
		return nil, fmt.Errorf("%w: every choice has log-probability -inf; evaluate the item again", ErrErrored)
	}
	return out, nil
}

// number reads a JSON number, or a number in a string as sanitize_list writes it.
func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, true
	case string:
		x, err := strconv.ParseFloat(v, 64)
		return x, err == nil
	}
	return 0, false
}

func goldIndex(target any, choices int) (int, bool) {
	x, ok := number(target)
	if !ok || x != math.Trunc(x) || x < 0 || x >= float64(choices) {
		return 0, false
	}
	return int(x), true
}

// tolerance of c/n written in decimal by Python; the next fraction is 1/n away,
// which is at least 1/MaxSamples.
const fractionTolerance = 1e-9

// scoreProgram scores a HumanEval task: resps is [[sample, ...]] and pass@1 is
// the share of the samples that passed (Chen et al. 2021, equation 1 with k=1).
func (s *sample) scoreProgram(pass float64, item *Item) error {
	samples, ok := s.resps[0].([]any)
	if len(s.resps) != 1 || !ok {
		return fmt.Errorf("%w: resps of doc_id %d is not one list of samples", ErrMalformed, item.DocID)
	}
	if len(samples) > MaxSamples {
		return fmt.Errorf("%w: %d samples, at most %d", ErrTooLarge, len(samples), MaxSamples)
	}
	right := math.Round(pass * float64(len(samples)))
	if math.Abs(right/float64(len(samples))-pass) > fractionTolerance {
		return fmt.Errorf("%w: pass@1 is %v, which is no share of %d samples", ErrMetric, pass, len(samples))
	}
	item.Correct, item.Samples = int(right), len(samples)
	item.Invalid = isInvalid(samples) || isInvalid(s.filtered)
	return nil
}

// isInvalid reports an answer that is blank, or that lm-eval's filters marked.
func isInvalid(answers []any) bool {
	return slices.ContainsFunc(answers, func(v any) bool {
		switch v := v.(type) {
		case string:
			return strings.TrimSpace(v) == "" || v == "[invalid]"
		case []any:
			return isInvalid(v)
		}
		return false
	})
}
