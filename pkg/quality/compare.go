// SPDX-License-Identifier: Apache-2.0

package quality

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// pair is one item answered by both models: 24 bytes, so that a million fit.
type pair struct {
	docID                       int64
	base, quantized             int32 // samples that were right
	baseInvalid, quantizedInval bool
}

// paired is the input of every statistic: what Compare gets from two runs and
// Recompute from a report. Tasks are sorted by name, items by document.
type paired struct {
	benchmark Benchmark
	samples   int
	tasks     []pairedTask
}

type pairedTask struct {
	name    string
	scoring string
	binding string // SHA-256 of the documents and prompts, see bindItem
	items   []pair
}

func (p *paired) len() int {
	n := 0
	for _, t := range p.tasks {
		n += len(t.items)
	}
	return n
}

// Compare judges the quantized model against its base. Both maps must hold MMLU
// and HumanEval, evaluated on the same items with the same prompts; the caller
// keeps them. The verdict of the report is "pass" or "fail"; RejectedError
// carries a fail where an error is wanted.
//
// An error means that no verdict can be given: ErrMissingItems, ErrPairing,
// ErrDuplicate, ErrTooFewItems, ErrBaseBand, ErrSameRun, ErrMargins, ErrMalformed
// or ErrTooLarge. It must be read as "refused", never as a pass.
func Compare(base, quantized map[Benchmark]*Run, m Margins) (*Report, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	r := &Report{Type: ReportType, Margins: &m}
	for _, b := range benchmarks() {
		br, err := compareOne(b, base[b], quantized[b], m)
		if err != nil {
			return nil, fmt.Errorf("compare %s: %w", b, err)
		}
		r.Benchmarks = append(r.Benchmarks, *br)
	}
	r.judge()
	return r, nil
}

func compareOne(b Benchmark, base, quantized *Run, m Margins) (*BenchmarkReport, error) {
	if err := bothThere(b, base, quantized); err != nil {
		return nil, err
	}
	p, err := pairRuns(base, quantized)
	if err != nil {
		return nil, err
	}
	br, err := analyse(p, m)
	if err != nil {
		return nil, err
	}
	br.BaseSource, br.BaseFiles = base.Source, slices.Clone(base.Files)
	br.QuantizedSource, br.QuantizedFiles = quantized.Source, slices.Clone(quantized.Files)
	br.Outcomes = encodeOutcomes(p)
	return br, nil
}

func bothThere(b Benchmark, base, quantized *Run) error {
	switch {
	case base == nil:
		return fmt.Errorf("%w: the base model has no %s run", ErrMissingItems, b)
	case quantized == nil:
		return fmt.Errorf("%w: the quantized model has no %s run", ErrMissingItems, b)
	case base.Benchmark != b || quantized.Benchmark != b:
		return fmt.Errorf("%w: runs of %q and %q stand under %q", ErrPairing, base.Benchmark, quantized.Benchmark, b)
	case base.Source != quantized.Source:
		return fmt.Errorf("%w: base was evaluated by %q, quantized by %q", ErrPairing, base.Source, quantized.Source)
	case sameFiles(base.Files, quantized.Files):
		return fmt.Errorf("%w: base and quantized files are the same bytes; evaluate both models", ErrSameRun)
	}
	return nil
}

// sameFiles reports whether both sides consist of the same bytes. Two models do
// not agree in every log-probability and every completion; a copied directory does.
func sameFiles(a, b []File) bool {
	return len(a) > 0 && slices.EqualFunc(digests(a), digests(b), func(x, y string) bool { return x == y })
}

func digests(files []File) []string {
	out := make([]string, len(files))
	for i, f := range files {
		out[i] = f.SHA256
	}
	slices.Sort(out)
	return out
}

// pairRuns joins two runs by task and document.
func pairRuns(base, quantized *Run) (*paired, error) {
	bs, err := base.sorted()
	if err != nil {
		return nil, fmt.Errorf("base run: %w", err)
	}
	qs, err := quantized.sorted()
	if err != nil {
		return nil, fmt.Errorf("quantized run: %w", err)
	}
	if err := missing(bs, qs); err != nil {
		return nil, err
	}
	if err := mismatched(bs, qs); err != nil {
		return nil, err
	}
	p := &paired{benchmark: base.Benchmark}
	for start := 0; start < len(bs); {
		end := start + 1
		for end < len(bs) && bs[end].Task == bs[start].Task {
			end++
		}
		t := joinTask(bs[start:end], qs[start:end])
		if t.scoring = base.Scoring[t.name]; t.scoring != quantized.Scoring[t.name] {
			return nil, fmt.Errorf("%w: %s is scored as %q for base, as %q for quantized", ErrPairing, t.name, t.scoring, quantized.Scoring[t.name])
		}
		p.tasks, p.samples, start = append(p.tasks, t), bs[start].Samples, end
	}
	return p, nil
}

// missing lists items that only one side has, by a merge of two sorted lists.
func missing(bs, qs []Item) error {
	var gone namedList
	for len(bs) > 0 || len(qs) > 0 {
		switch order := compareHeads(bs, qs); {
		case order < 0:
			gone.add(bs[0].name() + " (not in quantized)")
			bs = bs[1:]
		case order > 0:
			gone.add(qs[0].name() + " (not in base)")
			qs = qs[1:]
		default:
			bs, qs = bs[1:], qs[1:]
		}
	}
	return gone.err(ErrMissingItems, "evaluate both models on all items")
}

// compareHeads orders the first items; an empty list comes last.
func compareHeads(bs, qs []Item) int {
	if len(bs) == 0 || len(qs) == 0 {
		return cmp.Compare(len(qs), len(bs))
	}
	return compareItems(bs[0], qs[0])
}

// mismatched lists items that were not asked the same, or not as often as the
// first item of the run.
func mismatched(bs, qs []Item) error {
	var odd namedList
	for i := range bs {
		switch b, q := &bs[i], &qs[i]; {
		case b.DocHash != q.DocHash:
			odd.add(b.name() + " (doc_hash differs)")
		case b.PromptHash != q.PromptHash:
			odd.add(b.name() + " (prompt_hash differs)")
		case b.Samples != bs[0].Samples || q.Samples != bs[0].Samples:
			odd.add(fmt.Sprintf("%s (%d and %d samples, the first item has %d)", b.name(), b.Samples, q.Samples, bs[0].Samples))
		}
	}
	return odd.err(ErrPairing, "evaluate both models with the same data, prompts and number of samples")
}

// namedList names the first few offenders and counts all.
type namedList struct {
	names []string
	count int
}

func (l *namedList) add(name string) {
	if l.count++; len(l.names) < maxNamed {
		l.names = append(l.names, name)
	}
}

func (l *namedList) err(sentinel error, advice string) error {
	if l.count == 0 {
		return nil
	}
	more := ""
	if l.count > len(l.names) {
		more = fmt.Sprintf(" and %d more", l.count-len(l.names))
	}
	return fmt.Errorf("%w: %d: %s%s; %s", sentinel, l.count, strings.Join(l.names, ", "), more, advice)
}

func joinTask(bs, qs []Item) pairedTask {
	t := pairedTask{name: bs[0].Task, items: make([]pair, len(bs)), binding: bind(bs)}
	for i, b := range bs {
		q := qs[i]
		t.items[i] = pair{
			docID: b.DocID, base: int32(b.Correct), quantized: int32(q.Correct),
			baseInvalid: b.Invalid, quantizedInval: q.Invalid,
		}
	}
	return t
}
