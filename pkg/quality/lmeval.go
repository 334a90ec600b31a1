// SPDX-License-Identifier: Apache-2.0

package quality

import (
	"bufio"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// lm-eval names a samples file samples_<task>_<date>.jsonl, with the date as
// 2026-01-16T15-23-47.285735 (evaluation_tracker.py, save_results_samples).
const (
	samplesPrefix = "samples_"
	samplesSuffix = ".jsonl"
	sourceLMEval  = "lm-eval"
	// maxEntries bounds the directory: an lm-eval run of everything has some thousand files.
	maxEntries = 100_000
)

// ImportSamples reads the samples files that lm-evaluation-harness wrote with
// --log_samples into dir of fsys: every MMLU subject and HumanEval. Files of
// unrelated tasks are left alone. Lines are streamed, each of at most MaxLine
// bytes; the SHA-256 of each file is taken on the way.
//
// It refuses, with file and line: a line that is no JSON object, a key given
// twice, an absent or malformed doc_id, doc_hash or prompt_hash, an item scored
// twice, a metric that is absent, unknown, NaN or contradicts the recorded
// log-probabilities, and an item whose response is missing. A directory that
// holds the same task twice is refused too: which run is meant is not for the
// gate to guess. The caller owns the result.
func ImportSamples(fsys fs.FS, dir string) (map[Benchmark]*Run, error) {
	names, err := samplesFiles(fsys, dir)
	if err != nil {
		return nil, err
	}
	runs := make(map[Benchmark]*Run)
	for _, n := range names {
		run := runs[n.benchmark]
		if run == nil {
			run = &Run{Benchmark: n.benchmark, Source: sourceLMEval, Scoring: make(map[string]string)}
			runs[n.benchmark] = run
		}
		if err := importFile(fsys, path.Join(dir, n.file), n, run); err != nil {
			return nil, err
		}
	}
	for _, b := range benchmarks() {
		if runs[b] == nil {
			continue
		}
		if err := runs[b].Validate(); err != nil {
			return nil, fmt.Errorf("import %s of %s: %w", b, dir, err)
		}
	}
	return runs, nil
}

// samplesFile is one file of dir that belongs to a benchmark.
type samplesFile struct {
	file      string
	task      string
	benchmark Benchmark
}

// samplesFiles lists the files to import, sorted by name.
func samplesFiles(fsys fs.FS, dir string) ([]samplesFile, error) {
	entries, err := fs.ReadDir(fsys, dir)
	if err != nil {
		return nil, fmt.Errorf("list samples: %w", err)
	}
	if len(entries) > maxEntries {
		return nil, fmt.Errorf("%w: %d entries in %s, at most %d", ErrTooLarge, len(entries), dir, maxEntries)
	}
	var files []samplesFile
	for _, e := range entries {
		f, ok, err := classify(e)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", dir, err)
		}
		if ok {
			files = append(files, f)
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%w: %s holds no samples_mmlu_<subject>_<date>.jsonl and no samples_humaneval_<date>.jsonl; "+
			"run lm-eval with --log_samples and name the directory of the model below its --output_path", ErrNoSamples, dir)
	}
	slices.SortFunc(files, func(a, b samplesFile) int { return cmp.Compare(a.file, b.file) })
	return files, checkTasks(files)
}

// classify decides whether a directory entry is a samples file of ours. Names of
// the two families that are not the benchmark are refused, not skipped: a
// subject that nobody counts would be a silent drop.
func classify(e fs.DirEntry) (samplesFile, bool, error) {
	task, ok := taskOfFile(e.Name())
	if !ok {
		return samplesFile{}, false, nil
	}
	var b Benchmark
	switch {
	case strings.HasPrefix(task, mmluPrefix) || task == string(MMLU):
		b = MMLU
	case strings.HasPrefix(task, string(HumanEval)):
		b = HumanEval
	default:
		return samplesFile{}, false, nil
	}
	if !taskOf(b, task) {
		return samplesFile{}, false, fmt.Errorf("%w: file %q holds task %q, which is not part of %s; move it to another directory", ErrUnknownTask, e.Name(), task, b)
	}
	if !e.Type().IsRegular() {
		return samplesFile{}, false, fmt.Errorf("%w: %q is not a regular file", ErrMalformed, e.Name())
	}
	return samplesFile{file: e.Name(), task: task, benchmark: b}, true, nil
}

// taskOfFile cuts the task out of samples_<task>_<date>.jsonl as lm-eval's
// get_file_task_name does: from the first to the last underscore.
func taskOfFile(name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, samplesPrefix)
	if !ok || !strings.HasSuffix(rest, samplesSuffix) {
		return "", false
	}
	last := strings.LastIndexByte(rest, '_')
	if last < 1 {
		return "", false
	}
	return rest[:last], true
}

// checkTasks refuses two files of one task and two flavours of HumanEval.
func checkTasks(files []samplesFile) error {
	byTask := make(map[string]string, len(files))
	humanEval := ""
	for _, f := range files {
		if other, ok := byTask[f.task]; ok {
			return fmt.Errorf("%w: %q and %q both hold %s; keep the one evaluation that is meant", ErrDuplicate, other, f.file, f.task)
		}
		byTask[f.task] = f.file
		if f.benchmark != HumanEval {
			continue
		}
		if humanEval != "" {
			return fmt.Errorf("%w: %q and %q are two flavours of HumanEval; keep one", ErrDuplicate, humanEval, f.file)
		}
		humanEval = f.file
	}
	return nil
}

// importFile streams one file into run.
func importFile(fsys fs.FS, name string, sf samplesFile, run *Run) error {
	f, err := fsys.Open(name)
	if err != nil {
		return fmt.Errorf("open samples: %w", err)
	}
	defer f.Close() // read only: nothing is lost by an error here
	digest := sha256.New()
	lines := &lineReader{r: bufio.NewReaderSize(io.TeeReader(f, digest), 64<<10), max: MaxLine}
	for number := 1; ; number++ {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = importLine(line, sf, run)
		}
		if err != nil {
			return fmt.Errorf("import %s line %d: %w", name, number, err)
		}
	}
	run.Files = append(run.Files, File{Path: name, SHA256: hex.EncodeToString(digest.Sum(nil))})
	return nil
}

// importLine adds one line's item, and holds the file to one scoring.
func importLine(line []byte, sf samplesFile, run *Run) error {
	if len(run.Items) >= MaxItems {
		return fmt.Errorf("%w: more than %d items", ErrTooLarge, MaxItems)
	}
	item, scoring, err := parseSample(line, sf.benchmark)
	if err != nil {
		return err
	}
	item.Task = sf.task
	if first, ok := run.Scoring[sf.task]; ok && first != scoring {
		return fmt.Errorf("%w: item is scored as %s, the items before it as %s; evaluate with one filter", ErrMetric, scoring, first)
	}
	run.Scoring[sf.task] = scoring
	run.Items = append(run.Items, item)
	return nil
}

// lineReader cuts lines of at most max bytes; its buffer is reused.
type lineReader struct {
	r   *bufio.Reader
	max int
	buf []byte
}

// next returns the next line without its newline, valid until the next call;
// io.EOF at the end. A last line without a newline is a line.
func (l *lineReader) next() ([]byte, error) {
	l.buf = l.buf[:0]
	for {
		part, err := l.r.ReadSlice('\n')
		if len(l.buf)+len(part) > l.max {
			return nil, fmt.Errorf("%w: line of more than %d bytes", ErrTooLarge, l.max)
		}
		l.buf = append(l.buf, part...)
		switch {
		case err == nil:
			return l.buf[:len(l.buf)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(l.buf) > 0:
			return l.buf, nil
		default:
			return nil, err
		}
	}
}
