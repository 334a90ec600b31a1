// SPDX-License-Identifier: Apache-2.0

package quality

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
)

// TaskOutcomes holds the per-item outcomes of one task: about two characters an
// item, so that MMLU fits in 40 KB and an auditor can recompute the verdict.
type TaskOutcomes struct {
	Task    string `json:"task"`
	Scoring string `json:"scoring"` // metric and filter
	// Docs lists the doc_ids in rising order, as "0-99,101".
	Docs string `json:"docs"`
	// Items is the SHA-256 of one line "<doc_id> <doc_hash> <prompt_hash>\n" an
	// item: it ties the outcomes to the questions in the samples files.
	Items string `json:"items_sha256"`
	// Base and Quantized give the right samples of each document: one digit an
	// item when there is one sample, else numbers joined by commas.
	Base      string `json:"base"`
	Quantized string `json:"quantized"`
	// BaseInvalid and QuantizedInvalid list doc_ids as Docs does.
	BaseInvalid      string `json:"base_invalid"`
	QuantizedInvalid string `json:"quantized_invalid"`
}

// bind digests what was asked, in canonical order.
func bind(sorted []Item) string {
	h := sha256.New()
	for _, it := range sorted {
		fmt.Fprintf(h, "%d %s %s\n", it.DocID, it.DocHash, it.PromptHash) // a hash never fails
	}
	return hex.EncodeToString(h.Sum(nil))
}

func encodeOutcomes(p *paired) []TaskOutcomes {
	out := make([]TaskOutcomes, len(p.tasks))
	for i, t := range p.tasks {
		out[i] = TaskOutcomes{
			Task: t.name, Scoring: t.scoring, Items: t.binding,
			Docs:             encodeDocs(t.items, func(pair) bool { return true }),
			Base:             encodeCounts(t.items, p.samples, func(it pair) int32 { return it.base }),
			Quantized:        encodeCounts(t.items, p.samples, func(it pair) int32 { return it.quantized }),
			BaseInvalid:      encodeDocs(t.items, func(it pair) bool { return it.baseInvalid }),
			QuantizedInvalid: encodeDocs(t.items, func(it pair) bool { return it.quantizedInval }),
		}
	}
	return out
}

// encodeDocs writes the chosen doc_ids as ranges; ids rise strictly.
func encodeDocs(items []pair, chosen func(pair) bool) string {
	var b strings.Builder
	first, last := int64(-1), int64(-1)
	flush := func() {
		if first < 0 {
			return
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(first, 10))
		if last > first {
			b.WriteString("-" + strconv.FormatInt(last, 10))
		}
	}
	for _, it := range items {
		switch {
		case !chosen(it):
		case first >= 0 && it.docID == last+1:
			last = it.docID
		default:
			flush()
			first, last = it.docID, it.docID
		}
	}
	flush()
	return b.String()
}

func encodeCounts(items []pair, samples int, count func(pair) int32) string {
	var b strings.Builder
	for i, it := range items {
		if samples > 1 && i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(int(count(it))))
	}
	return b.String()
}

// decodeOutcomes rebuilds the pairs of a report; it wraps ErrReport.
func decodeOutcomes(br *BenchmarkReport) (*paired, error) {
	p := &paired{benchmark: br.Benchmark, samples: br.Samples}
	if br.Samples < 1 || br.Samples > MaxSamples || (br.Benchmark == MMLU && br.Samples != 1) {
		return nil, fmt.Errorf("%w: %d samples an item", ErrReport, br.Samples)
	}
	total, last := 0, ""
	for i := range br.Outcomes {
		o := &br.Outcomes[i]
		if !taskOf(br.Benchmark, o.Task) || o.Task <= last || !isDigest(o.Items) || !isText(o.Scoring) {
			return nil, fmt.Errorf("%w: outcomes %d: task %.80q unknown or out of order, or its digest or scoring malformed", ErrReport, i, o.Task)
		}
		t, err := decodeTask(o, br.Samples, limitOf(br.Benchmark)-total)
		if err != nil {
			return nil, fmt.Errorf("%w: outcomes of %s: %w", ErrReport, o.Task, err)
		}
		p.tasks, total, last = append(p.tasks, t), total+len(t.items), o.Task
	}
	return p, nil
}

func limitOf(b Benchmark) int {
	if b == HumanEval {
		return MaxTasks
	}
	return MaxItems
}

func decodeTask(o *TaskOutcomes, samples, limit int) (pairedTask, error) {
	t := pairedTask{name: o.Task, scoring: o.Scoring, binding: o.Items}
	ids, err := decodeDocs(o.Docs, limit)
	if err != nil {
		return t, fmt.Errorf("docs: %w", err)
	}
	base, err := decodeCounts(o.Base, samples, len(ids))
	if err != nil {
		return t, fmt.Errorf("base: %w", err)
	}
	quantized, err := decodeCounts(o.Quantized, samples, len(ids))
	if err != nil {
		return t, fmt.Errorf("quantized: %w", err)
	}
	t.items = make([]pair, len(ids))
	at := make(map[int64]int, len(ids))
	for i, id := range ids {
		t.items[i] = pair{docID: id, base: base[i], quantized: quantized[i]}
		at[id] = i
	}
	if err := mark(o.BaseInvalid, at, func(i int) { t.items[i].baseInvalid = true }); err != nil {
		return t, err
	}
	return t, mark(o.QuantizedInvalid, at, func(i int) { t.items[i].quantizedInval = true })
}

func mark(docs string, at map[int64]int, set func(int)) error {
	if docs == "" {
		return nil
	}
	ids, err := decodeDocs(docs, len(at))
	if err != nil {
		return fmt.Errorf("invalid items: %w", err)
	}
	for _, id := range ids {
		i, ok := at[id]
		if !ok {
			return fmt.Errorf("invalid item %d is no item", id)
		}
		set(i)
	}
	return nil
}

// decodeDocs reads ranges of strictly rising ids, at most limit of them.
func decodeDocs(s string, limit int) ([]int64, error) {
	var ids []int64
	for part := range strings.SplitSeq(s, ",") {
		from, to, err := decodeRange(part)
		if err != nil {
			return nil, err
		}
		if len(ids) > 0 && from <= ids[len(ids)-1] {
			return nil, fmt.Errorf("doc_id %d out of order", from)
		}
		if to-from >= int64(limit-len(ids)) {
			return nil, fmt.Errorf("%w: more than %d items", ErrTooLarge, limit)
		}
		for id := from; id <= to; id++ {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func decodeRange(part string) (from, to int64, err error) {
	a, b, isRange := strings.Cut(part, "-")
	// 62 bits keep from+1 and to-from from overflowing.
	low, err := strconv.ParseUint(a, 10, 62)
	if err != nil {
		return 0, 0, fmt.Errorf("doc_id %.20q", a)
	}
	high := low
	if isRange {
		if high, err = strconv.ParseUint(b, 10, 62); err != nil || high <= low {
			return 0, 0, fmt.Errorf("doc_id range %.40q", part)
		}
	}
	return int64(low), int64(high), nil
}

func decodeCounts(s string, samples, n int) ([]int32, error) {
	out := make([]int32, 0, n)
	if samples == 1 {
		if len(s) != n {
			return nil, fmt.Errorf("%d outcomes for %d items", len(s), n)
		}
		for _, c := range []byte(s) {
			if c != '0' && c != '1' {
				return nil, fmt.Errorf("outcome %q, want 0 or 1", c)
			}
			out = append(out, int32(c-'0'))
		}
		return out, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		v, err := strconv.ParseUint(part, 10, 31)
		if err != nil || v > uint64(samples) || len(out) >= n {
			return nil, fmt.Errorf("outcome %.20q of %d samples, or more than %d outcomes", part, samples, n)
		}
		out = append(out, int32(v))
	}
	if len(out) != n {
		return nil, fmt.Errorf("%d outcomes for %d items", len(out), n)
	}
	return out, nil
}
