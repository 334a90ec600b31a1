// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// Limits on the files that are read whole.
const (
	maxConfig   = 8 << 20  // bytes of config.json and its like: real ones have a few kilobytes
	maxBaseFile = 64 << 20 // bytes of a tokenizer that is compared with the base's
)

// codeKeys returns a visitor that refuses what makes loaders run code which is not theirs. Vocabularies are left out: there
// a key is a word. vLLM ran auto_map although it was told not to trust remote code (CVE-2025-66448, CVE-2026-22807), so the
// key itself is refused, wherever it is nested.
func (in *inspector) codeKeys(file string) func(member) {
	switch path.Base(file) {
	case "tokenizer.json", "vocab.json", "added_tokens.json", "data_config.json":
		return nil
	}
	if strings.HasSuffix(file, ".index.json") {
		return nil
	}
	const fix = "take a snapshot whose architecture the loader has itself; remove nothing by hand"
	return func(m member) {
		if ambiguousKey(m.Key) {
			in.refuse(RuleJSON, file, "its author must correct it", "key %.80q differs only in case from one that loaders read", m.Key)
		}
		switch m.Key {
		case "auto_map", "trust_remote_code", "custom_pipelines", "custom_generate":
			if m.Value != false && m.Value != nil {
				in.refuse(RuleRemoteCode, file, fix, "key %q", strings.Join(append(slices.Clone(m.Path), m.Key), "."))
			}
		case "attn_implementation", "_attn_implementation", "_attn_implementation_internal":
			if s, _ := m.Value.(string); strings.ContainsAny(s, "/:") {
				in.refuse(RuleRemoteCode, file, fix, "%s %.80q names a kernel to be fetched", m.Key, s)
			}
		case "type":
			if s, _ := m.Value.(string); path.Base(file) == "modules.json" && !strings.HasPrefix(s, "sentence_transformers.") {
				in.refuse(RuleRemoteCode, file, fix, "module type %.80q is not one of sentence_transformers", s)
			}
		}
	}
}

// ambiguousKey finds keys that encoding/json takes for one of ours and Python does not: what we read must be what loaders
// read.
func ambiguousKey(key string) bool {
	for _, k := range []string{
		"architectures", "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
		"quantization_config", "quant_method", "bits", "w_bit", "group_size", "q_group_size", "zero_point", "version", "modules_to_not_convert", "format",
		"config_groups", "ignore", "targets", "weights", "num_bits", "symmetric", "strategy", "type", "chat_template", "template", "name", "auto_map",
	} {
		if key != k && strings.EqualFold(key, k) {
			return true
		}
	}
	return false
}

// config is what the rules need of config.json.
type config struct {
	Architectures []string     `json:"architectures"`
	ModelType     string       `json:"model_type"`
	Hidden        int64        `json:"hidden_size"`
	Intermediate  int64        `json:"intermediate_size"`
	Layers        int64        `json:"num_hidden_layers"`
	Heads         int64        `json:"num_attention_heads"`
	KVHeads       int64        `json:"num_key_value_heads"`
	HeadDim       int64        `json:"head_dim"`
	Quantization  *quantConfig `json:"quantization_config"`
}

// readConfig reads config.json; nil means that it is missing or unusable, which has been noted.
func (in *inspector) readConfig() (*config, error) {
	const fix = "mirror the whole repository: every loader begins with config.json"
	if in.kinds["config.json"] == "" {
		in.refuse(RuleComplete, "config.json", fix, "config.json is missing")
		return nil, nil
	}
	b, err := readSmall(in.fsys, "config.json", maxConfig)
	if errors.Is(err, errTooLong) {
		in.refuse(RuleConfig, "config.json", "its author must write a smaller one", "%v", err)
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var c config
	if err := json.Unmarshal(b, &c); err != nil {
		in.refuse(RuleConfig, "config.json", "its author must correct it", "%v", err)
		return nil, nil
	}
	if c.ModelType == "" && len(c.Architectures) == 0 {
		in.refuse(RuleConfig, "config.json", fix, "names neither a model_type nor an architecture")
	}
	for _, name := range append([]string{c.ModelType}, c.Architectures...) {
		if strings.ContainsFunc(name, func(r rune) bool { return r < '!' || r > '~' || strings.ContainsRune(`/\:"'`, r) }) {
			in.refuse(RuleConfig, "config.json", fix, "architecture or model type %.80q is not a name", name)
		}
	}
	c.KVHeads = cmpOr(c.KVHeads, c.Heads)
	if c.HeadDim == 0 && c.Heads > 0 {
		c.HeadDim = c.Hidden / c.Heads
	}
	return &c, nil
}

func cmpOr(a, b int64) int64 {
	if a != 0 {
		return a
	}
	return b
}

// model applies the rules about the snapshot as a whole.
func (in *inspector) model() error {
	in.rep.Model = &ModelInfo{Dtypes: map[string]int64{}}
	cfg, err := in.readConfig()
	if err != nil {
		return err
	}
	if cfg != nil {
		in.rep.Model.ModelType = cfg.ModelType
		if len(cfg.Architectures) > 0 {
			in.rep.Model.Architecture = cfg.Architectures[0]
		}
	}
	in.complete()
	if err := in.indexes(); err != nil {
		return err
	}
	if cfg != nil {
		in.layers(cfg)
		in.shapes(cfg)
	}
	if err := in.quantization(cfg); err != nil {
		return err
	}
	in.count()
	if err := in.templates(); err != nil {
		return err
	}
	return in.compareTokenizer()
}

// complete checks that a loader without a network finds what it needs.
func (in *inspector) complete() {
	have := func(p string) bool { return in.kinds[p] != "" }
	if !have("tokenizer.json") && !have("tokenizer.model") && !have("vocab.txt") && !have("tekken.json") &&
		!(have("vocab.json") && have("merges.txt")) && !in.anyTiktoken() {
		in.refuse(RuleComplete, "", "mirror the tokenizer's files too", "no tokenizer: want tokenizer.json, tokenizer.model, vocab.txt, or vocab.json with merges.txt")
	}
	if !have("tokenizer_config.json") && !have("tekken.json") {
		in.refuse(RuleComplete, "tokenizer_config.json", "mirror it too", "tokenizer_config.json is missing")
	}
	if len(in.tensors) == 0 {
		in.refuse(RuleComplete, "", "take the safetensors form of the weights", "no usable safetensors file")
	}
}

func (in *inspector) anyTiktoken() bool {
	for p := range in.kinds {
		if strings.HasSuffix(p, ".tiktoken") {
			return true
		}
	}
	return false
}

// count fills in the model's figures.
func (in *inspector) count() {
	m := in.rep.Model
	for _, s := range in.tensors {
		m.Tensors += len(s.Tensors)
		for _, t := range s.Tensors {
			n := t.Elements()
			m.Dtypes[t.DType] += n
			switch suffix := path.Ext(t.Name); {
			case suffix == ".qweight" || suffix == ".weight_packed":
				m.Parameters += n * 8
			case suffix != ".qzeros" && suffix != ".scales" && suffix != ".weight_scale" && suffix != ".weight_zero_point" && suffix != ".weight_shape":
				m.Parameters += n
			}
		}
	}
}

// compareTokenizer remarks on tokenizer files that differ from the base's: AutoAWQ writes them anew, so that a difference
// alone proves nothing, but an officer should know.
func (in *inspector) compareTokenizer() error {
	if in.opt.Base == nil {
		return nil
	}
	for _, p := range []string{"tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "merges.txt"} {
		if in.kinds[p] == "" {
			continue
		}
		mine, err := readSmall(in.fsys, p, maxBaseFile)
		if err != nil {
			return err
		}
		base, err := readSmall(in.opt.Base, p, maxBaseFile)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errTooLong) {
			continue
		}
		if err != nil {
			return fmt.Errorf("read the base's tokenizer: %w", err)
		}
		if string(mine) != string(base) {
			in.remark(RuleTokenizer, p, "compare it with the base's by hand", "differs from the base's %s", p)
		}
	}
	return nil
}
