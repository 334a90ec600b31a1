// SPDX-License-Identifier: Apache-2.0

package quality_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/quality"
)

// lineMMLU and lineCode are shaped as lm-eval 0.4 writes them.
const (
	lineMMLU = `{"doc_id": 7, "doc": {"question": "q", "acc": 5}, "target": "2", "arguments": {"gen_args_0": {"arg_0": "p", "arg_1": " A"}}, ` +
		`"resps": [[["-3.5", "False"]], [["-2.5", "False"]], [["-0.5", "True"]], [["-4.0", "False"]]], ` +
		`"filtered_resps": [["-3.5", "False"], ["-2.5", "False"], ["-0.5", "True"], ["-4.0", "False"]], "filter": "none", "metrics": ["acc"], ` +
		`"doc_hash": "1111111111111111111111111111111111111111111111111111111111111111", ` +
		`"prompt_hash": "2222222222222222222222222222222222222222222222222222222222222222", "target_hash": "3", "acc": 1.0}`
	lineCode = `{"doc_id": 7, "doc": {}, "target": "check(f)", "arguments": {}, "resps": [["a", "b", "c"]], "filtered_resps": [["pa", "pb", "pc"]], ` +
		`"filter": "create_test", "metrics": ["pass@1"], ` +
		`"doc_hash": "1111111111111111111111111111111111111111111111111111111111111111", ` +
		`"prompt_hash": "2222222222222222222222222222222222222222222222222222222222222222", "target_hash": "3", "pass@1": 0.6666666666666666}`
	fileMMLU = "m/samples_mmlu_anatomy_2026-01-16T15-23-47.285735.jsonl"
	fileCode = "m/samples_humaneval_2026-01-16T15-23-47.285735.jsonl"
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func TestImportLines(t *testing.T) {
	fsys := fstest.MapFS{
		fileMMLU: file(lineMMLU + "\n"), fileCode: file(lineCode), // the last newline may be absent
		"m/samples_gsm8k_2026.jsonl": file("not read"), "m/results_2026.json": file("{}"), "m/notes.txt": file(""),
	}
	got, err := quality.ImportSamples(fsys, "m")
	if err != nil {
		t.Fatal(err)
	}
	ones, twos := strings.Repeat("1", 64), strings.Repeat("2", 64)
	want := runs{
		quality.MMLU: {
			Benchmark: quality.MMLU, Source: "lm-eval", Scoring: map[string]string{"mmlu_anatomy": "acc/none"},
			Items: []quality.Item{{Task: "mmlu_anatomy", DocHash: ones, PromptHash: twos, DocID: 7, Correct: 1, Samples: 1}},
			Files: []quality.File{{Path: fileMMLU, SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte(lineMMLU+"\n")))}},
		},
		quality.HumanEval: {
			Benchmark: quality.HumanEval, Source: "lm-eval", Scoring: map[string]string{"humaneval": "pass@1/create_test"},
			Items: []quality.Item{{Task: "humaneval", DocHash: ones, PromptHash: twos, DocID: 7, Correct: 2, Samples: 3}},
			Files: []quality.File{{Path: fileCode, SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte(lineCode)))}},
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Every spelling and shape that is documented, and the answers that are invalid.
func TestImportAccepts(t *testing.T) {
	for _, tc := range []struct {
		name, line, old, new string
		want                 quality.Item
	}{
		{"acc,none", lineMMLU, `"acc": 1.0}`, `"acc,none": 1}`, quality.Item{Correct: 1, Samples: 1}},
		{"acc_norm beside", lineMMLU, `"acc": 1.0}`, `"acc": 1.0, "acc_norm": 0.0}`, quality.Item{Correct: 1, Samples: 1}},
		{"numbers unsanitized", lineMMLU, `["-0.5", "True"]]`, `[-0.5, true]]`, quality.Item{Correct: 1, Samples: 1}},
		{"wrong answer", lineMMLU, `"target": "2"`, `"target": "1"`, quality.Item{Samples: 1}},
		{"minus infinity for one choice", lineMMLU, `["-4.0", "False"]], "filter"`, `["-inf", "False"]], "filter"`, quality.Item{Correct: 1, Samples: 1}},
		{"pass@1,create_test", lineCode, `"pass@1": 0`, `"pass@1,create_test": 0`, quality.Item{Correct: 2, Samples: 3}},
		{"pass_at_1", lineCode, `"pass@1": 0`, `"pass_at_1": 0`, quality.Item{Correct: 2, Samples: 3}},
		{"pass@10 beside", lineCode, `"pass@1": 0`, `"pass@10": 1.0, "pass@1": 0`, quality.Item{Correct: 2, Samples: 3}},
		{"blank completion", lineCode, `"b"`, `" \n"`, quality.Item{Correct: 2, Samples: 3, Invalid: true}},
		{"error null", lineCode, `"target_hash"`, `"error": null, "target_hash"`, quality.Item{Correct: 2, Samples: 3}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			line := strings.Replace(tc.line, tc.old, tc.new, 1)
			if tc.name == "wrong answer" {
				line = strings.Replace(line, `"acc": 1.0`, `"acc": 0.0`, 1)
			}
			got, err := importOne(tc.line == lineMMLU, line)
			if err != nil {
				t.Fatal(err)
			}
			tc.want.Task, tc.want.DocID = got.Task, 7
			tc.want.DocHash, tc.want.PromptHash = strings.Repeat("1", 64), strings.Repeat("2", 64)
			if diff := cmp.Diff(tc.want, got); diff != "" || line == tc.line {
				t.Errorf("%s\n%s", line, diff)
			}
		})
	}
}

func importOne(mmlu bool, line string) (quality.Item, error) {
	name, b := fileCode, quality.HumanEval
	if mmlu {
		name, b = fileMMLU, quality.MMLU
	}
	got, err := quality.ImportSamples(fstest.MapFS{name: file(line)}, "m")
	if err != nil {
		return quality.Item{}, err
	}
	return got[b].Items[0], nil
}

func TestImportRefusesLine(t *testing.T) {
	for _, tc := range []struct {
		name, line, old, new string
		want                 error
	}{
		{"no doc_id", lineMMLU, `"doc_id": 7, `, ``, quality.ErrMalformed},
		{"doc_id null", lineMMLU, `"doc_id": 7`, `"doc_id": null`, quality.ErrMalformed},
		{"doc_id in other case", lineMMLU, `"doc_id"`, `"Doc_ID"`, quality.ErrMalformed},
		{"doc_id text", lineMMLU, `"doc_id": 7`, `"doc_id": "7"`, quality.ErrMalformed},
		{"doc_id negative", lineMMLU, `"doc_id": 7`, `"doc_id": -7`, quality.ErrMalformed},
		{"no doc_hash", lineMMLU, `"doc_hash"`, `"doc_hush"`, quality.ErrMalformed},
		{"doc_hash masked", lineMMLU, strings.Repeat("1", 64), strings.Repeat("*", 64), quality.ErrMalformed},
		{"no prompt_hash", lineMMLU, `"prompt_hash"`, `"prompt_hush"`, quality.ErrMalformed},
		{"prompt_hash short", lineMMLU, strings.Repeat("2", 64), strings.Repeat("2", 63), quality.ErrMalformed},
		{"key twice", lineMMLU, `"acc": 1.0}`, `"acc": 1.0, "acc": 1.0}`, quality.ErrDuplicate},
		{"irrelevant key twice", lineMMLU, `"target_hash"`, `"doc"`, quality.ErrDuplicate},
		{"metric in two forms", lineMMLU, `"acc": 1.0}`, `"acc": 1.0, "acc,none": 1.0}`, quality.ErrMetric},
		{"metric unknown", lineMMLU, `"acc": 1.0}`, `"exact_match": 1.0}`, quality.ErrMetric},
		{"metric of the other benchmark", lineMMLU, `"acc": 1.0}`, `"pass@1": 1.0}`, quality.ErrMetric},
		{"metric a list", lineMMLU, `"acc": 1.0}`, `"acc": [1, 1]}`, quality.ErrMetric},
		{"metric true", lineMMLU, `"acc": 1.0}`, `"acc": true}`, quality.ErrMetric},
		{"metric null", lineMMLU, `"acc": 1.0}`, `"acc": null}`, quality.ErrMetric},
		{"metric text", lineMMLU, `"acc": 1.0}`, `"acc": "NaN"}`, quality.ErrMetric},
		{"metric half", lineMMLU, `"acc": 1.0}`, `"acc": 0.5}`, quality.ErrMetric},
		{"metric above one", lineMMLU, `"acc": 1.0}`, `"acc": 1.5}`, quality.ErrMetric},
		{"metric NaN", lineMMLU, `"acc": 1.0}`, `"acc": NaN}`, quality.ErrErrored},
		{"metric infinite", lineMMLU, `"acc": 1.0}`, `"acc": Infinity}`, quality.ErrErrored},
		{"metric against log-probabilities", lineMMLU, `"acc": 1.0}`, `"acc": 0.0}`, quality.ErrMetric},
		{"target against metric", lineMMLU, `"target": "2"`, `"target": "0"`, quality.ErrMetric},
		{"log-probability nan", lineMMLU, `["-0.5", "True"], ["-4`, `["nan", "True"], ["-4`, quality.ErrErrored},
		{"error recorded", lineMMLU, `"target_hash"`, `"error": "timeout", "target_hash"`, quality.ErrErrored},
		{"no responses", lineMMLU, `"resps"`, `"reps"`, quality.ErrErrored},
		{"null response", lineCode, `"b"`, `null`, quality.ErrErrored},
		{"empty responses", lineCode, `[["a", "b", "c"]]`, `[[]]`, quality.ErrErrored},
		{"responses of another shape", lineCode, `[["a", "b", "c"]]`, `["a"]`, quality.ErrMalformed},
		{"two requests", lineCode, `[["a", "b", "c"]]`, `[["a"], ["b"]]`, quality.ErrMalformed},
		{"pass@1 no share of the samples", lineCode, `0.6666666666666666`, `0.65`, quality.ErrMetric},
		{"only pass@10", lineCode, `"pass@1": 0`, `"pass@10": 0`, quality.ErrMetric},
		{"too many members", lineCode, `["a", "b", "c"]`, `[` + strings.Repeat(`"a",`, 4*quality.MaxSamples) + `"a"]`, quality.ErrTooLarge},
		{"cut short", lineMMLU, `, "acc": 1.0}`, ``, quality.ErrMalformed},
		{"two objects", lineMMLU, `"acc": 1.0}`, `"acc": 1.0} {}`, quality.ErrMalformed},
		{"a list", lineMMLU, lineMMLU, `[]`, quality.ErrMalformed},
		{"empty line", lineMMLU, lineMMLU, "\n", quality.ErrMalformed},
		{"same item again", lineMMLU, lineMMLU, lineMMLU + "\n" + lineMMLU, quality.ErrDuplicate},
		{"another filter", lineMMLU, lineMMLU, lineMMLU + "\n" + strings.Replace(strings.Replace(lineMMLU, "7", "8", 1), `"none"`, `"other"`, 1), quality.ErrMetric},
	} {
		t.Run(tc.name, func(t *testing.T) {
			line := strings.Replace(tc.line, tc.old, tc.new, 1)
			_, err := importOne(tc.line == lineMMLU, line)
			if line == tc.line || !errors.Is(err, tc.want) {
				t.Fatalf("error %v, want %v", err, tc.want)
			}
			if tc.name != "same item again" && !regexp.MustCompile(`samples_\w+_2026.*\.jsonl line [12]:`).MatchString(err.Error()) {
				t.Errorf("message names no file and line: %v", err)
			}
		})
	}
}

func TestImportRefusesDirectory(t *testing.T) {
	for _, tc := range []struct {
		name, file string
		want       error
	}{
		{"same task twice", "m/samples_mmlu_anatomy_2026-02-02T00-00-00.jsonl", quality.ErrDuplicate},
		{"two flavours of HumanEval", "m/samples_humaneval_instruct_2026-01-16T15-23-47.jsonl", quality.ErrDuplicate},
		{"another MMLU", "m/samples_mmlu_pro_law_2026-01-16T15-23-47.jsonl", quality.ErrUnknownTask},
		{"another HumanEval", "m/samples_humaneval_plus_2026-01-16T15-23-47.jsonl", quality.ErrUnknownTask},
		{"not a file", "m/samples_mmlu_virology_2026-01-16T15-23-47.jsonl/x", quality.ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fsys := fstest.MapFS{fileMMLU: file(lineMMLU), fileCode: file(lineCode), tc.file: file(lineCode)}
			if _, err := quality.ImportSamples(fsys, "m"); !errors.Is(err, tc.want) {
				t.Errorf("error %v, want %v", err, tc.want)
			}
		})
	}
	if _, err := quality.ImportSamples(fstest.MapFS{"m/x": file("")}, "m"); !errors.Is(err, quality.ErrNoSamples) {
		t.Errorf("directory without samples: %v", err)
	}
	if _, err := quality.ImportSamples(fstest.MapFS{}, "m"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

// A line may have MaxLine bytes and not one more.
func TestImportLineLimit(t *testing.T) {
	for _, over := range []int{0, 1} {
		padding := strings.Repeat(" ", quality.MaxLine-len(lineMMLU)+over)
		_, err := importOne(true, strings.Replace(lineMMLU, "{", "{"+padding, 1))
		if (over == 0) != (err == nil) || (over == 1 && !errors.Is(err, quality.ErrTooLarge)) {
			t.Errorf("line of MaxLine%+d bytes: %v", over, err)
		}
	}
}

func FuzzImportLine(f *testing.F) {
	for _, seed := range []string{
		lineMMLU, lineCode, "", "{", "{}", "[]", "null", `{"doc_id": 1}`, strings.Replace(lineMMLU, "1.0}", "NaN}", 1),
		strings.Replace(lineCode, `["a", "b", "c"]`, `[[], null, [[]]]`, 1), lineMMLU + "\n" + lineMMLU, lineMMLU[:200],
		strings.Replace(lineMMLU, `"-0.5"`, `"1e999"`, 2), strings.Replace(lineMMLU, `"target": "2"`, `"target": "1e300"`, 1),
	} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, text string, mmlu bool) {
		name := fileCode
		if mmlu {
			name = fileMMLU
		}
		got, err := quality.ImportSamples(fstest.MapFS{name: file(text)}, path.Dir(name))
		if err != nil {
			return
		}
		for _, run := range got {
			if err := run.Validate(); err != nil {
				t.Errorf("accepted a run that does not validate: %v", err)
			}
		}
	})
}
