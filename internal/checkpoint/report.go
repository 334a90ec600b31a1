// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

// The verdicts of a report.
const (
	Pass = "pass"
	Fail = "fail"
)

// The rules, by the id that findings and exceptions use.
const (
	RuleIrregular     = "irregular"      // a link, a device, or a name that does not belong
	RuleFileKind      = "file-kind"      // content of a kind that is not on the allowlist
	RulePickle        = "pickle"         // a pickle, or an archive that may hold one
	RuleExecutable    = "executable"     // a program or a script
	RulePolyglot      = "polyglot"       // one file that is also another
	RuleName          = "file-name"      // the name promises something else than the content
	RuleSafetensors   = "safetensors"    // a safetensors file that is not strictly well formed
	RuleJSON          = "json"           // JSON that parsers may read differently: duplicate keys, bad UTF-8, too deep
	RuleText          = "text"           // text that is not plain UTF-8
	RuleRemoteCode    = "remote-code"    // a setting that makes a loader run code from outside the loader
	RuleConfig        = "config"         // config.json is not usable
	RuleTemplate      = "chat-template"  // a chat template that is neither the base's nor in the strict subset
	RuleTemplateGone  = "template-gone"  // the base has a chat template, the snapshot has none
	RuleTokenizer     = "base-tokenizer" // the tokenizer differs from the base's (a remark, not a refusal)
	RuleComplete      = "complete"       // a file is missing without which the model cannot start
	RuleIndex         = "index"          // index and shards do not agree
	RuleShape         = "shape"          // a tensor does not have the shape that config.json implies
	RuleQuantMethod   = "quant-method"   // a quantization that these rules do not know
	RuleQuantConfig   = "quant-config"   // quantization_config contradicts itself or the tensors
	RuleQuantTriple   = "quant-triple"   // packed weights without their scales or zero points, or of other shapes
	RuleQuantLeftover = "quant-leftover" // a full-precision weight beside its quantized form
	RuleQuantScale    = "quant-scale"    // a scale that is zero, negative or not a number
)

func allRules() []string {
	return []string{
		RuleIrregular, RuleFileKind, RulePickle, RuleExecutable, RulePolyglot, RuleName, RuleSafetensors, RuleJSON, RuleText,
		RuleRemoteCode, RuleConfig, RuleTemplate, RuleTemplateGone, RuleTokenizer, RuleComplete, RuleIndex, RuleShape,
		RuleQuantMethod, RuleQuantConfig, RuleQuantTriple, RuleQuantLeftover, RuleQuantScale,
	}
}

// Errors of Inspect and ParseReport: the inspection could not be done. A refusal is a verdict, not an error.
var (
	ErrOptions = errors.New("checkpoint: unusable options")
	ErrReport  = errors.New("checkpoint: not a report")
	ErrTooMany = errors.New("checkpoint: too many files")
)

// Options say by which rules a snapshot is inspected.
type Options struct {
	Kind       string   // kind of the envelope (docs/spec/envelope.md, section 4); model-weights gets the model rules, dataset those of files
	Base       fs.FS    // snapshot of the base model, at least its small files; nil = none
	Exceptions []string // ids of rules that the declared policy accepts; an unknown id is an error
}

// Finding is one observation.
type Finding struct {
	Rule     string `json:"rule"`
	File     string `json:"file"` // path, or "" for the snapshot as a whole
	Detail   string `json:"detail"`
	Fix      string `json:"fix"`                // what to do about it
	Fatal    bool   `json:"fatal"`              // it refuses the snapshot, unless excepted
	Excepted bool   `json:"excepted,omitempty"` // accepted by the declared policy
}

// FileKind says what a file is, by its content.
type FileKind struct {
	Path string `json:"path"`
	Kind string `json:"kind"`
	Size int64  `json:"size"` // bytes
}

// ModelInfo describes the model that the tensors make up.
type ModelInfo struct {
	Architecture string           `json:"architecture"`
	ModelType    string           `json:"model_type"`
	Dtypes       map[string]int64 `json:"dtypes"`     // stored elements by dtype
	Parameters   int64            `json:"parameters"` // weights; a packed word counts as those that it holds
	Tensors      int              `json:"tensors"`
	Template     string           `json:"template"` // "base", "subset", "none" or "refused"
}

// Quantization describes how the weights are quantized, as config.json declares and the tensors confirm.
type Quantization struct {
	Method    string `json:"method"` // "awq" or "compressed-tensors"
	Bits      int    `json:"bits"`
	GroupSize int    `json:"group_size"` // weights a scale; -1 = a whole row
	ZeroPoint bool   `json:"zero_point"`
	Version   string `json:"version"` // "gemm" or "pack-quantized"
	Linears   int    `json:"linears"` // quantized layers found
}

// Report is the result of an inspection: the evidence `inspection.json`.
type Report struct {
	Verdict      string        `json:"verdict"` // Pass or Fail
	Kind         string        `json:"kind"`
	Findings     []Finding     `json:"findings"`
	Model        *ModelInfo    `json:"model,omitempty"`
	Quantization *Quantization `json:"quantization,omitempty"`
	Files        []FileKind    `json:"files"` // sorted by path
}

// Marshal returns the report as indented JSON with a final newline.
func (r *Report) Marshal() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(r)
	return b.Bytes(), err
}

// ParseReport reads what Marshal wrote. The error wraps ErrReport.
func ParseReport(b []byte) (*Report, error) {
	var r Report
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrReport, err)
	}
	if r.Verdict != Pass && r.Verdict != Fail {
		return nil, fmt.Errorf("%w: verdict %q", ErrReport, r.Verdict)
	}
	return &r, nil
}

// Refused returns the findings that make the verdict fail.
func (r *Report) Refused() []Finding {
	var list []Finding
	for _, f := range r.Findings {
		if f.Fatal && !f.Excepted {
			list = append(list, f)
		}
	}
	return list
}
