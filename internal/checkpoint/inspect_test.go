// SPDX-License-Identifier: Apache-2.0

package checkpoint_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/checkpoint"
	"sluice/internal/checkpoint/checkpointtest"
)

// tens is a tensor of a snapshot that a test builds.
type tens struct {
	dtype string
	shape []int64
	data  []byte
}

func filled(dtype string, width int64, b byte, shape ...int64) tens {
	for _, d := range shape {
		width *= d
	}
	return tens{dtype, shape, bytes.Repeat([]byte{b}, int(width))}
}

func f16(shape ...int64) tens { return filled("F16", 2, 0x2c, shape...) } // 0x2c2c is 0.065
func i32(shape ...int64) tens { return filled("I32", 4, 0x55, shape...) }

// snap is a snapshot under construction.
type snap struct {
	files   map[string][]byte
	tensors map[string]tens
	config  map[string]any
	shardOf func(name string) string
	index   map[string]any // filled by build; tests may change it through late
	late    func(*snap)    // runs on the finished files
}

const (
	shard1 = "model-00001-of-00002.safetensors"
	shard2 = "model-00002-of-00002.safetensors"
)

// plain is a small Llama in F16: hidden 64, intermediate 128, 4 heads, 2 key-value heads, 1 layer.
func plain() *snap {
	s := &snap{
		files: map[string][]byte{
			"tokenizer.json":        []byte(`{"version":"1.0","model":{"type":"BPE","vocab":{"a":0,"auto_map":1},"merges":[]}}`),
			"tokenizer_config.json": []byte(`{"tokenizer_class":"PreTrainedTokenizerFast","chat_template":"{{ messages }}"}`),
			"README.md":             []byte("# A model\n"),
		},
		config: map[string]any{
			"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
			"num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 10,
		},
		tensors: map[string]tens{"model.embed_tokens.weight": f16(10, 64), "model.norm.weight": f16(64), "model.layers.0.input_layernorm.weight": f16(64)},
		shardOf: func(name string) string {
			if strings.Contains(name, "layers") {
				return shard2
			}
			return shard1
		},
	}
	for name, size := range linears() {
		s.tensors[name+".weight"] = f16(size[1], size[0])
	}
	return s
}

// linears gives inputs and outputs of the layer's linears.
func linears() map[string][2]int64 {
	p := "model.layers.0."
	return map[string][2]int64{
		p + "self_attn.q_proj": {64, 64}, p + "self_attn.k_proj": {64, 32}, p + "self_attn.v_proj": {64, 32}, p + "self_attn.o_proj": {64, 64},
		p + "mlp.gate_proj": {64, 128}, p + "mlp.up_proj": {64, 128}, p + "mlp.down_proj": {128, 64},
	}
}

// awq is plain with every linear in AutoAWQ's layout, in groups of 32.
func awq() *snap {
	s := plain()
	for name, size := range linears() {
		delete(s.tensors, name+".weight")
		s.tensors[name+".qweight"] = i32(size[0], size[1]/8)
		s.tensors[name+".qzeros"] = i32(size[0]/32, size[1]/8)
		s.tensors[name+".scales"] = f16(size[0]/32, size[1])
	}
	s.config["quantization_config"] = map[string]any{"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": true, "version": "gemm", "modules_to_not_convert": nil}
	return s
}

// packed is plain in compressed-tensors' pack-quantized layout.
func packed(symmetric bool) *snap {
	s := plain()
	for name, size := range linears() {
		delete(s.tensors, name+".weight")
		s.tensors[name+".weight_packed"] = i32(size[1], size[0]/8)
		s.tensors[name+".weight_scale"] = filled("BF16", 2, 0x3c, size[1], size[0]/32)
		if !symmetric {
			s.tensors[name+".weight_zero_point"] = i32(size[1]/8, size[0]/32)
		}
		shape := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, uint64(size[1])), uint64(size[0]))
		s.tensors[name+".weight_shape"] = tens{"I64", []int64{2}, shape}
	}
	s.config["quantization_config"] = map[string]any{
		"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": []string{"lm_head"},
		"config_groups": map[string]any{"group_0": map[string]any{"targets": []string{"Linear"}, "weights": map[string]any{
			"num_bits": 4, "group_size": 32, "symmetric": symmetric, "strategy": "group", "type": "int",
		}}},
	}
	return s
}

func (s *snap) quant() map[string]any { return s.config["quantization_config"].(map[string]any) }

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func shardBytes(tensors map[string]tens) []byte {
	header := map[string]any{"__metadata__": map[string]string{"format": "pt"}}
	var data []byte
	for _, name := range slices.Sorted(maps.Keys(tensors)) {
		t := tensors[name]
		header[name] = map[string]any{"dtype": t.dtype, "shape": t.shape, "data_offsets": []int{len(data), len(data) + len(t.data)}}
		data = append(data, t.data...)
	}
	h := mustJSON(header)
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(h))), h...), data...)
}

func (s *snap) build() fstest.MapFS {
	shards, weightMap, total := map[string]map[string]tens{}, map[string]string{}, 0
	for name, t := range s.tensors {
		p := s.shardOf(name)
		if shards[p] == nil {
			shards[p] = map[string]tens{}
		}
		shards[p][name], weightMap[name] = t, p
		total += len(t.data)
	}
	for p, list := range shards {
		s.files[p] = shardBytes(list)
	}
	s.index = map[string]any{"metadata": map[string]any{"total_size": total}, "weight_map": weightMap}
	if _, own := s.files["config.json"]; !own {
		s.files["config.json"] = mustJSON(s.config)
	}
	s.files["model.safetensors.index.json"] = mustJSON(s.index)
	if s.late != nil {
		s.late(s)
	}
	out := fstest.MapFS{}
	for p, b := range s.files {
		out[p] = &fstest.MapFile{Data: b, Mode: 0o644}
	}
	return out
}

func inspect(t *testing.T, fsys fs.FS, opt checkpoint.Options) *checkpoint.Report {
	t.Helper()
	if opt.Kind == "" {
		opt.Kind = "model-weights"
	}
	rep, err := checkpoint.Inspect(t.Context(), fsys, opt)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

func TestGoodSnapshots(t *testing.T) {
	one := func(*snap) {}
	for name, c := range map[string]struct {
		start  *snap
		change func(*snap)
	}{
		"plain":         {plain(), one},
		"AWQ":           {awq(), one},
		"packed":        {packed(true), one},
		"packed, zeros": {packed(false), one},
		"one file": {plain(), func(s *snap) {
			s.shardOf = func(string) string { return "model.safetensors" }
			s.late = func(s *snap) { delete(s.files, "model.safetensors.index.json") }
		}},
		"one file, indexed": {plain(), func(s *snap) { s.shardOf = func(string) string { return "model.safetensors" } }},
		"no total_size":     {plain(), func(s *snap) { s.late = func(s *snap) { delete(s.index, "metadata"); s.writeIndex() } }},
		"old key names": {awq(), func(s *snap) {
			q := s.quant()
			q["w_bit"], q["q_group_size"], q["version"] = 4, 32, "GEMM"
			delete(q, "bits")
			delete(q, "group_size")
		}},
		"a bias": {awq(), func(s *snap) { s.tensors["model.layers.0.self_attn.q_proj.bias"] = f16(64) }},
		"kept layer": {awq(), func(s *snap) {
			s.config["num_hidden_layers"] = 2
			s.tensors["model.layers.1.mlp.up_proj.weight"] = f16(128, 64)
			s.quant()["modules_to_not_convert"] = []string{"model.layers.1"}
		}},
		"SentencePiece": {plain(), func(s *snap) { s.files["tokenizer.model"] = sentencePiece() }},
		"tiktoken":      {plain(), func(s *snap) { s.files["original/tokenizer.model"] = []byte("IQ== 0\nIg== 1\n") }},
		"vocab and merges": {plain(), func(s *snap) {
			s.rename("tokenizer.json", "vocab.json")
			s.files["merges.txt"] = []byte("#version: 0.2\na b\n")
		}},
		"vocab.txt": {plain(), func(s *snap) { delete(s.files, "tokenizer.json"); s.files["vocab.txt"] = []byte("[PAD]\n\u0085\n") }},
		"pictures":  {plain(), func(s *snap) { s.files["a.png"], s.files["b.jpg"] = pictures() }},
		"papers": {plain(), func(s *snap) {
			s.put("x", "LICENSE", "NOTICE", "USE_POLICY.md", ".gitattributes", "recipe.yaml", "a/b.txt")
		}},
		"HTML in Markdown": {plain(), func(s *snap) { s.put("# x\n<p align=center><img src=x></p>", "README.md") }},
		"no auto_map":      {plain(), func(s *snap) { s.config["auto_map"] = nil; s.config["trust_remote_code"] = false }},
		"jinja file": {plain(), func(s *snap) {
			s.put("{{ messages }}", "chat_template.jinja", "additional_chat_templates/tool_use.jinja")
		}},
		"list of templates": {plain(), func(s *snap) {
			s.put(`{"chat_template":[{"name":"default","template":"{{ x }}"}]}`, "tokenizer_config.json")
		}},
		"sentence-transformers": {plain(), func(s *snap) {
			s.put(`[{"idx":0,"name":"0","path":"","type":"sentence_transformers.models.Transformer"}]`, "modules.json")
			s.put(`{"pooling_mode_mean_tokens":true}`, "1_Pooling/config.json")
		}},
		"dense module": {plain(), func(s *snap) {
			s.files["2_Dense/model.safetensors"] = shardBytes(map[string]tens{"linear.weight": f16(4, 4)})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c.change(c.start)
			if rep := inspect(t, c.start.build(), checkpoint.Options{}); rep.Verdict != checkpoint.Pass {
				t.Errorf("%+v", rep.Refused())
			}
		})
	}
}

func (s *snap) put(text string, paths ...string) {
	for _, p := range paths {
		s.files[p] = []byte(text)
	}
}

func (s *snap) rename(from, to string) {
	s.files[to] = s.files[from]
	delete(s.files, from)
}

func (s *snap) writeIndex() { s.files["model.safetensors.index.json"] = mustJSON(s.index) }

func (s *snap) weightMap() map[string]string { return s.index["weight_map"].(map[string]string) }

func sentencePiece() []byte {
	return []byte("\x0a\x0e\x0a\x05<unk>\x15\x00\x00\x00\x00\x18\x02\x0a\x0a\x0a\x03\xe2\x96\x81\x15\x00\x00\x80\xbf\x12\x02\x08\x01")
}

func pictures() (p, j []byte) {
	var a, b bytes.Buffer
	img := image.NewGray(image.Rect(0, 0, 8, 8))
	if err := errors.Join(png.Encode(&a, img), jpeg.Encode(&b, img, nil)); err != nil {
		panic(err)
	}
	return a.Bytes(), b.Bytes()
}

// emptyZip is an archive without entries: the end record alone.
const emptyZip = "PK\x05\x06\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// bad is a snapshot that must be refused by a rule, at a file.
type bad struct {
	rule, file string
	start      *snap
	change     func(*snap)
}

func add(rule, p, content string) bad {
	return bad{rule, p, plain(), func(s *snap) { s.put(content, p) }}
}

func TestBadFiles(t *testing.T) {
	pic, photo := pictures()
	check(t, map[string]bad{
		"pickle 4":               add(checkpoint.RulePickle, "vocab.txt", "\x80\x04\x95."),
		"pickle 2 as JSON":       add(checkpoint.RulePickle, "special_tokens_map.json", "\x80\x02cposix\nsystem\n."),
		"pickle 0":               add(checkpoint.RulePickle, "merges.txt", "cposix\nsystem\n(S'id'\ntR."),
		"pickle 0, dict":         add(checkpoint.RulePickle, "merges.txt", "(dp0\nS'a'\np1\ncos\nsystem\np2\ns."),
		"torch zip":              add(checkpoint.RulePickle, "pytorch_model.bin", "PK\x03\x04\x00\x00"),
		"zip as safetensors":     add(checkpoint.RulePickle, "x.safetensors", "PK\x03\x04\x00\x00"),
		"empty zip":              add(checkpoint.RulePickle, "a.txt", emptyZip),
		"numpy":                  add(checkpoint.RulePickle, "a.npy", "\x93NUMPY\x01\x00"),
		"hdf5":                   add(checkpoint.RuleFileKind, "tf_model.h5", "\x89HDF\r\n\x1a\n"),
		"gguf":                   add(checkpoint.RuleFileKind, "m.gguf", "GGUF\x03\x00\x00\x00"),
		"onnx":                   add(checkpoint.RuleFileKind, "model.onnx", "\x08\x07\x12\x07pytorch"),
		"gzip":                   add(checkpoint.RuleFileKind, "a.txt", "\x1f\x8b\x08"),
		"tar":                    add(checkpoint.RuleFileKind, "a.txt", strings.Repeat("a", 257)+"ustar\x0000"),
		"parquet":                add(checkpoint.RuleFileKind, "a.parquet", "PAR1xxxxPAR1"),
		"unknown":                add(checkpoint.RuleFileKind, "a.txt", "\x00\x01\x02"),
		"unknown extension":      add(checkpoint.RuleFileKind, "a.bin", "hello"),
		"no extension":           add(checkpoint.RuleFileKind, "Makefile", "all:\n"),
		"Python":                 add(checkpoint.RuleFileKind, "modeling_llama.py", "import os\n"),
		"Python in capitals":     add(checkpoint.RuleFileKind, "modeling.PY", "import os\n"),
		"HTML":                   add(checkpoint.RuleFileKind, "README.md", " \n<!DOCTYPE html><script>"),
		"SVG":                    add(checkpoint.RuleFileKind, "logo.svg", "<svg onload=x>"),
		"PDF":                    add(checkpoint.RuleFileKind, "paper.txt", "%PDF-1.4"),
		"escape sequence":        add(checkpoint.RuleFileKind, "README.md", "\x1b]0;x\x07"),
		"bad UTF-8":              add(checkpoint.RuleFileKind, "README.md", "\xe4"),
		"cut UTF-8":              add(checkpoint.RuleFileKind, "README.md", "abc\xe2\x96"),
		"ELF":                    add(checkpoint.RuleExecutable, "a.txt", "\x7fELF\x02"),
		"Windows":                add(checkpoint.RuleExecutable, "a.txt", "MZ\x90"),
		"script":                 add(checkpoint.RuleExecutable, "README.md", "#!/bin/sh\n"),
		"safetensors misnamed":   {checkpoint.RuleName, "pytorch_model.bin", plain(), func(s *snap) { s.files["pytorch_model.bin"] = shardBytes(nil) }},
		"PNG misnamed":           add(checkpoint.RuleName, "a.txt", string(pic)),
		"SentencePiece misnamed": add(checkpoint.RuleName, "a.txt", string(sentencePiece())),
		"LFS pointer":            add(checkpoint.RuleFileKind, "tokenizer.model", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
		"cut SentencePiece":      add(checkpoint.RuleFileKind, "tokenizer.model", string(sentencePiece()[:20])),
		"text as safetensors":    add(checkpoint.RuleSafetensors, "x.safetensors", "not one"),
		"zip behind PNG":         add(checkpoint.RulePolyglot, "a.png", string(pic)+emptyZip),
		"data behind PNG":        add(checkpoint.RulePolyglot, "a.png", string(pic)+"x"),
		"cut PNG":                add(checkpoint.RulePolyglot, "a.png", string(pic[:len(pic)-4])),
		"data behind JPEG":       add(checkpoint.RulePolyglot, "a.jpg", string(photo)+"x"),
	})
}

func TestBadZipInsideSafetensors(t *testing.T) {
	tail := tens{"U8", []int64{22}, []byte(emptyZip)}
	check(t, map[string]bad{"zip in the last tensor": {checkpoint.RulePolyglot, shard1, plain(), func(s *snap) { s.tensors["z"] = tail }}})
}

// check demands that the rule refuses the file, that nothing else is needed for the refusal when the rule is excepted, and
// that the unchanged snapshot passes.
func check(t *testing.T, cases map[string]bad) {
	t.Helper()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			c.change(c.start)
			fsys := c.start.build()
			rep := inspect(t, fsys, checkpoint.Options{})
			hit := slices.ContainsFunc(rep.Refused(), func(f checkpoint.Finding) bool { return f.Rule == c.rule && f.File == c.file })
			if rep.Verdict != checkpoint.Fail || !hit {
				t.Fatalf("want %s at %q, got %s %+v", c.rule, c.file, rep.Verdict, rep.Findings)
			}
			for _, f := range rep.Findings {
				if f.Detail == "" || f.Fix == "" {
					t.Errorf("finding without detail or fix: %+v", f)
				}
			}
			excepted := inspect(t, fsys, checkpoint.Options{Exceptions: []string{c.rule}})
			if slices.ContainsFunc(excepted.Refused(), func(f checkpoint.Finding) bool { return f.Rule == c.rule }) {
				t.Errorf("the exception of %s accepts nothing", c.rule)
			}
		})
	}
}

func TestBadJSON(t *testing.T) {
	deep := strings.Repeat(`{"a":`, 70) + "1" + strings.Repeat("}", 70)
	check(t, map[string]bad{
		"malformed":         add(checkpoint.RuleJSON, "a.json", `{"a":}`),
		"cut":               add(checkpoint.RuleJSON, "a.json", `{"a":1`),
		"empty":             add(checkpoint.RuleJSON, "a.json", ``),
		"two documents":     add(checkpoint.RuleJSON, "a.json", `{}{}`),
		"duplicate key":     add(checkpoint.RuleJSON, "a.json", `{"a":1,"b":{"c":1,"c":2}}`),
		"duplicate escaped": add(checkpoint.RuleJSON, "a.json", `{"a":1,"\u0061":2}`),
		"bad UTF-8":         add(checkpoint.RuleJSON, "a.json", "{\"a\":\"\xff\"}"),
		"cut UTF-8":         add(checkpoint.RuleJSON, "a.json", "{}\xe2"),
		"deep":              add(checkpoint.RuleJSON, "a.json", deep),
		"deep lists":        add(checkpoint.RuleJSON, "a.json", strings.Repeat("[", 100_000)),
		"a number":          add(checkpoint.RuleJSON, "a.json", `1`),
		"NaN":               add(checkpoint.RuleJSON, "a.json", `{"a":NaN}`),
		"a comment":         add(checkpoint.RuleJSON, "a.json", `{} // x`),
		"hidden template":   add(checkpoint.RuleJSON, "tokenizer_config.json", `{"chat_template":"{{ x.__class__ }}","Chat_Template":"{{ x }}"}`),
		"hidden size":       add(checkpoint.RuleJSON, "config.json", `{"model_type":"llama","hidden_size":64,"Hidden_Size":32}`),
	})
}

func TestBadConfig(t *testing.T) {
	nested := map[string]any{"a": []any{map[string]any{"auto_map": map[string]string{"AutoModel": "x.Y"}}}}
	check(t, map[string]bad{
		"auto_map":          {checkpoint.RuleRemoteCode, "config.json", plain(), func(s *snap) { s.config["auto_map"] = map[string]string{"AutoConfig": "a.B"} }},
		"auto_map nested":   {checkpoint.RuleRemoteCode, "config.json", plain(), func(s *snap) { s.config["text_config"] = nested }},
		"auto_map text":     {checkpoint.RuleRemoteCode, "config.json", plain(), func(s *snap) { s.config["auto_map"] = "a.B" }},
		"tokenizer":         add(checkpoint.RuleRemoteCode, "tokenizer_config.json", `{"auto_map":{"AutoTokenizer":["a.B",null]}}`),
		"processor":         add(checkpoint.RuleRemoteCode, "sub/preprocessor_config.json", `{"auto_map":{}}`),
		"trust_remote_code": {checkpoint.RuleRemoteCode, "config.json", plain(), func(s *snap) { s.config["trust_remote_code"] = true }},
		"custom_pipelines":  {checkpoint.RuleRemoteCode, "config.json", plain(), func(s *snap) { s.config["custom_pipelines"] = map[string]any{} }},
		"custom_generate":   add(checkpoint.RuleRemoteCode, "generation_config.json", `{"custom_generate":"org/repo"}`),
		"kernel":            {checkpoint.RuleRemoteCode, "config.json", plain(), func(s *snap) { s.config["_attn_implementation"] = "evil/kernel" }},
		"module type":       add(checkpoint.RuleRemoteCode, "modules.json", `[{"type":"os.system"}]`),
		"YAML tag":          add(checkpoint.RuleRemoteCode, "recipe.yaml", "a: !!python/object/apply:os.system [id]\n"),
		"no config":         {checkpoint.RuleComplete, "config.json", plain(), func(s *snap) { s.late = func(s *snap) { delete(s.files, "config.json") } }},
		"config is a list":  add(checkpoint.RuleConfig, "config.json", `[]`),
		"config is empty":   add(checkpoint.RuleConfig, "config.json", `{}`),
		"size is a text":    add(checkpoint.RuleConfig, "config.json", `{"model_type":"llama","hidden_size":"64"}`),
		"odd architecture":  {checkpoint.RuleConfig, "config.json", plain(), func(s *snap) { s.config["architectures"] = []string{"../evil"} }},
		"config too long":   add(checkpoint.RuleConfig, "config.json", `{"a":"`+strings.Repeat("x", 9<<20)+`"}`),
		"no tokenizer":      {checkpoint.RuleComplete, "", plain(), func(s *snap) { delete(s.files, "tokenizer.json") }},
		"half a tokenizer":  {checkpoint.RuleComplete, "", plain(), func(s *snap) { s.rename("tokenizer.json", "vocab.json") }},
		"no tokenizer_config": {checkpoint.RuleComplete, "tokenizer_config.json", plain(), func(s *snap) {
			delete(s.files, "tokenizer_config.json")
		}},
		"no weights": {checkpoint.RuleComplete, "", plain(), func(s *snap) { s.tensors = nil }},
	})
}

func TestBadIndex(t *testing.T) {
	const idx = "model.safetensors.index.json"
	late := func(f func(*snap)) func(*snap) { return func(s *snap) { s.late = f } }
	check(t, map[string]bad{
		"shard missing":   {checkpoint.RuleIndex, idx, plain(), late(func(s *snap) { delete(s.files, shard2) })},
		"shard malformed": {checkpoint.RuleIndex, idx, plain(), late(func(s *snap) { s.files[shard2] = s.files[shard2][:100] })},
		"tensor missing": {checkpoint.RuleIndex, idx, plain(), late(func(s *snap) {
			s.weightMap()["ghost"] = shard1
			s.writeIndex()
		})},
		"tensor in the other shard": {checkpoint.RuleIndex, idx, plain(), late(func(s *snap) {
			s.weightMap()["model.norm.weight"] = shard2
			s.writeIndex()
		})},
		"tensor unnamed": {checkpoint.RuleIndex, shard1, plain(), late(func(s *snap) {
			delete(s.weightMap(), "model.norm.weight")
			s.writeIndex()
		})},
		"shard unnamed": {checkpoint.RuleIndex, "consolidated.safetensors", plain(), late(func(s *snap) {
			s.files["consolidated.safetensors"] = shardBytes(map[string]tens{"x": f16(1)})
		})},
		"two shards, no index": {checkpoint.RuleIndex, shard1, plain(), late(func(s *snap) { delete(s.files, idx) })},
		"tensor twice": {checkpoint.RuleIndex, "x.safetensors", plain(), late(func(s *snap) {
			s.files["x.safetensors"] = shardBytes(map[string]tens{"model.norm.weight": f16(64)})
		})},
		"total_size": {checkpoint.RuleIndex, idx, plain(), late(func(s *snap) {
			s.index["metadata"] = map[string]any{"total_size": 1}
			s.writeIndex()
		})},
		"total_size off by one, beyond float": {checkpoint.RuleIndex, idx, plain(), late(func(s *snap) {
			s.index["metadata"] = map[string]any{"total_size": uint64(1) << 60}
			s.writeIndex()
		})},
		"climbing": {checkpoint.RuleIndex, idx, plain(), late(func(s *snap) {
			s.weightMap()["model.norm.weight"] = "../" + shard1
			s.writeIndex()
		})},
		"shard is a number": {checkpoint.RuleIndex, idx, plain(), late(func(s *snap) { s.put(`{"weight_map":{"a":1}}`, idx) })},
		"no map":            {checkpoint.RuleIndex, idx, plain(), late(func(s *snap) { s.put(`{}`, idx) })},
		"layer missing":     {checkpoint.RuleIndex, "", plain(), func(s *snap) { s.config["num_hidden_layers"] = 2 }},
		"shape": {checkpoint.RuleShape, shard2, plain(), func(s *snap) {
			s.tensors["model.layers.0.mlp.up_proj.weight"] = f16(128, 32)
		}},
		"embedding": {checkpoint.RuleShape, shard1, plain(), func(s *snap) { s.tensors["model.embed_tokens.weight"] = f16(10, 32) }},
	})
}

func TestBadAWQ(t *testing.T) {
	const up = "model.layers.0.mlp.up_proj"
	set := func(key string, v any) func(*snap) { return func(s *snap) { s.quant()[key] = v } }
	put := func(suffix string, v tens) func(*snap) { return func(s *snap) { s.tensors[up+suffix] = v } }
	scale := func(bits uint16) func(*snap) {
		return func(s *snap) { binary.LittleEndian.PutUint16(s.tensors[up+".scales"].data[100:], bits) }
	}
	check(t, map[string]bad{
		"no declaration": {checkpoint.RuleQuantConfig, "config.json", awq(), func(s *snap) { delete(s.config, "quantization_config") }},
		"nothing packed": {checkpoint.RuleQuantConfig, "config.json", plain(), func(s *snap) { s.config["quantization_config"] = awq().quant() }},
		"bits":           {checkpoint.RuleQuantConfig, "config.json", awq(), set("bits", 8)},
		"version":        {checkpoint.RuleQuantConfig, "config.json", awq(), set("version", "gemv")},
		"zero_point":     {checkpoint.RuleQuantConfig, "config.json", awq(), set("zero_point", false)},
		"group 0":        {checkpoint.RuleQuantConfig, "config.json", awq(), set("group_size", 0)},
		"group 48":       {checkpoint.RuleQuantConfig, "config.json", awq(), set("group_size", 48)},
		"other group":    {checkpoint.RuleQuantTriple, shard2, awq(), set("group_size", 64)},
		"whole row":      {checkpoint.RuleQuantTriple, shard2, awq(), set("group_size", -1)},
		"method":         {checkpoint.RuleQuantMethod, "config.json", awq(), set("quant_method", "gptq")},
		"no qzeros":      {checkpoint.RuleQuantTriple, shard2, awq(), func(s *snap) { delete(s.tensors, up+".qzeros") }},
		"no scales":      {checkpoint.RuleQuantTriple, shard2, awq(), func(s *snap) { delete(s.tensors, up+".scales") }},
		"scales alone":   {checkpoint.RuleQuantTriple, shard2, awq(), func(s *snap) { delete(s.tensors, up+".qweight") }},
		"qweight dtype":  {checkpoint.RuleQuantTriple, shard2, awq(), put(".qweight", filled("U32", 4, 1, 64, 16))},
		"scales dtype":   {checkpoint.RuleQuantTriple, shard2, awq(), put(".scales", filled("F32", 4, 1, 2, 128))},
		"qzeros shape":   {checkpoint.RuleQuantTriple, shard2, awq(), put(".qzeros", i32(16, 2))},
		"scales shape":   {checkpoint.RuleQuantTriple, shard2, awq(), put(".scales", f16(2, 64))},
		"qweight rank":   {checkpoint.RuleQuantTriple, shard2, awq(), put(".qweight", i32(64*16))},
		"bias shape":     {checkpoint.RuleQuantTriple, shard2, awq(), put(".bias", f16(64))},
		"leftover":       {checkpoint.RuleQuantLeftover, shard2, awq(), put(".weight", f16(128, 64))},
		"swapped shape": {checkpoint.RuleShape, shard2, awq(), func(s *snap) {
			s.tensors[up+".qweight"], s.tensors[up+".qzeros"], s.tensors[up+".scales"] = i32(128, 8), i32(4, 8), f16(4, 64)
		}},
		"one layer kept": {checkpoint.RuleQuantTriple, shard2, awq(), func(s *snap) {
			s.config["num_hidden_layers"] = 2
			s.tensors["model.layers.1.mlp.up_proj.weight"] = f16(128, 64)
		}},
		"scale zero":     {checkpoint.RuleQuantScale, shard2, awq(), scale(0)},
		"scale negative": {checkpoint.RuleQuantScale, shard2, awq(), scale(0x9000)},
		"scale infinite": {checkpoint.RuleQuantScale, shard2, awq(), scale(0x7c00)},
		"scale NaN":      {checkpoint.RuleQuantScale, shard2, awq(), scale(0x7e00)},
	})
}

func TestBadPacked(t *testing.T) {
	const up = "model.layers.0.mlp.up_proj"
	weights := func(s *snap) map[string]any {
		return s.quant()["config_groups"].(map[string]any)["group_0"].(map[string]any)["weights"].(map[string]any)
	}
	check(t, map[string]bad{
		"format":        {checkpoint.RuleQuantMethod, "config.json", packed(true), func(s *snap) { s.quant()["format"] = "marlin-24" }},
		"no groups":     {checkpoint.RuleQuantConfig, "config.json", packed(true), func(s *snap) { s.quant()["config_groups"] = map[string]any{} }},
		"bits":          {checkpoint.RuleQuantConfig, "config.json", packed(true), func(s *snap) { weights(s)["num_bits"] = 8 }},
		"float":         {checkpoint.RuleQuantConfig, "config.json", packed(true), func(s *snap) { weights(s)["type"] = "float" }},
		"group":         {checkpoint.RuleQuantConfig, "config.json", packed(true), func(s *snap) { weights(s)["group_size"] = 3 }},
		"other group":   {checkpoint.RuleQuantTriple, shard2, packed(true), func(s *snap) { weights(s)["group_size"] = 64 }},
		"not symmetric": {checkpoint.RuleQuantTriple, shard2, packed(true), func(s *snap) { weights(s)["symmetric"] = false }},
		"symmetric":     {checkpoint.RuleQuantTriple, shard2, packed(false), func(s *snap) { weights(s)["symmetric"] = true }},
		"no shape":      {checkpoint.RuleQuantTriple, shard2, packed(true), func(s *snap) { delete(s.tensors, up+".weight_shape") }},
		"no scale":      {checkpoint.RuleQuantTriple, shard2, packed(true), func(s *snap) { delete(s.tensors, up+".weight_scale") }},
		"shape lies":    {checkpoint.RuleQuantTriple, shard2, packed(true), func(s *snap) { s.tensors[up+".weight_shape"].data[0]++ }},
		"shape huge":    {checkpoint.RuleQuantTriple, shard2, packed(true), func(s *snap) { s.tensors[up+".weight_shape"].data[15] = 0xff }},
		"zero shape":    {checkpoint.RuleQuantTriple, shard2, packed(false), func(s *snap) { s.tensors[up+".weight_zero_point"] = i32(2, 16) }},
		"leftover":      {checkpoint.RuleQuantLeftover, shard2, packed(true), func(s *snap) { s.tensors[up+".weight"] = f16(128, 64) }},
		"scale NaN":     {checkpoint.RuleQuantScale, shard2, packed(true), func(s *snap) { binary.LittleEndian.PutUint16(s.tensors[up+".weight_scale"].data, 0x7fc0) }},
		"dtype":         {checkpoint.RuleQuantTriple, shard2, packed(true), func(s *snap) { s.tensors[up+".weight_packed"] = filled("U32", 4, 1, 128, 8) }},
		"nothing": {checkpoint.RuleQuantConfig, "config.json", plain(), func(s *snap) {
			s.config["quantization_config"] = packed(true).quant()
		}},
	})
}

func TestTemplatesAgainstSubset(t *testing.T) {
	evil := `{{ x.__class__ }}`
	check(t, map[string]bad{
		"in tokenizer_config": add(checkpoint.RuleTemplate, "tokenizer_config.json", `{"chat_template":"`+evil+`"}`),
		"in a list":           add(checkpoint.RuleTemplate, "tokenizer_config.json", `{"chat_template":[{"name":"a","template":"{{ x }}"},{"name":"b","template":"`+evil+`"}]}`),
		"by name":             add(checkpoint.RuleTemplate, "processor_config.json", `{"chat_template":{"a":"`+evil+`"}}`),
		"in chat_template":    add(checkpoint.RuleTemplate, "chat_template.json", `{"chat_template":"`+evil+`"}`),
		"in a jinja file":     add(checkpoint.RuleTemplate, "chat_template.jinja", evil),
		"in another jinja":    add(checkpoint.RuleTemplate, "additional_chat_templates/x.jinja", evil),
		"not a text":          add(checkpoint.RuleTemplate, "tokenizer_config.json", `{"chat_template":1}`),
	})
}

func TestTemplatesAgainstBase(t *testing.T) {
	evil := "{{ x.__class__ }}" // what the base has is the base's own matter: it was approved with its commit
	base := plain()
	base.put(`{"chat_template":"`+evil+`"}`, "tokenizer_config.json")
	opt := checkpoint.Options{Base: base.build()}

	same := plain()
	same.put(`{}`, "tokenizer_config.json")
	same.put(evil, "chat_template.jinja") // newer writers move it there
	if rep := inspect(t, same.build(), opt); rep.Verdict != checkpoint.Pass || rep.Model.Template != "base" {
		t.Errorf("%+v %+v", rep.Model, rep.Findings)
	}
	for name, change := range map[string]func(*snap){
		checkpoint.RuleTemplate:     func(s *snap) { s.put(evil+" ", "chat_template.jinja") },
		checkpoint.RuleTemplateGone: func(s *snap) { s.put(`{}`, "tokenizer_config.json") },
	} {
		s := plain()
		change(s)
		rep := inspect(t, s.build(), opt)
		if !slices.ContainsFunc(rep.Refused(), func(f checkpoint.Finding) bool { return f.Rule == name }) {
			t.Errorf("%s: %+v", name, rep.Findings)
		}
	}
}

func TestTokenizerRemark(t *testing.T) {
	base, s := plain(), plain()
	s.put(`{"model":{}}`, "tokenizer.json")
	rep := inspect(t, s.build(), checkpoint.Options{Base: base.build()})
	if rep.Verdict != checkpoint.Pass || len(rep.Findings) != 1 || rep.Findings[0].Rule != checkpoint.RuleTokenizer || rep.Findings[0].Fatal {
		t.Errorf("%s %+v", rep.Verdict, rep.Findings)
	}
}

func TestReport(t *testing.T) {
	rep := inspect(t, awq().build(), checkpoint.Options{})
	want := &checkpoint.Quantization{Method: "awq", Bits: 4, GroupSize: 32, ZeroPoint: true, Version: "gemm", Linears: 7}
	if !cmp.Equal(rep.Quantization, want) {
		t.Error(cmp.Diff(want, rep.Quantization))
	}
	if ref := inspect(t, plain().build(), checkpoint.Options{}); rep.Model.Parameters != ref.Model.Parameters || rep.Model.Architecture != "LlamaForCausalLM" || rep.Model.Template != "subset" {
		t.Errorf("%+v, unquantized %+v", rep.Model, ref.Model)
	}
	if !slices.IsSortedFunc(rep.Files, func(a, b checkpoint.FileKind) int { return strings.Compare(a.Path, b.Path) }) || len(rep.Files) != 7 {
		t.Errorf("%+v", rep.Files)
	}
	b, err := rep.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	back, err := checkpoint.ParseReport(b)
	if err != nil || !cmp.Equal(rep, back) {
		t.Errorf("%v %s", err, cmp.Diff(rep, back))
	}
	for _, bad := range []string{``, `{}`, `{"verdict":"maybe"}`, `{"verdict":"pass","x":1}`} {
		if _, err := checkpoint.ParseReport([]byte(bad)); !errors.Is(err, checkpoint.ErrReport) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestInspectCannot(t *testing.T) {
	if _, err := checkpoint.Inspect(t.Context(), plain().build(), checkpoint.Options{Exceptions: []string{"no-such-rule"}}); !errors.Is(err, checkpoint.ErrOptions) {
		t.Errorf("unknown exception: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := checkpoint.Inspect(ctx, plain().build(), checkpoint.Options{Kind: "model-weights"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := checkpoint.Inspect(t.Context(), os.DirFS(filepath.Join(t.TempDir(), "none")), checkpoint.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestIrregular(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pair")
	if err := checkpointtest.Write(dir, checkpointtest.Small()); err != nil {
		t.Fatal(err)
	}
	base := checkpointtest.Base(dir)
	if err := os.Symlink("/etc/passwd", filepath.Join(base, "vocab.txt")); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"model-weights", "dataset", "license"} {
		rep := inspect(t, os.DirFS(base), checkpoint.Options{Kind: kind})
		if len(rep.Refused()) != 1 || rep.Refused()[0].Rule != checkpoint.RuleIrregular {
			t.Errorf("%s: %+v", kind, rep.Findings)
		}
	}
	odd := plain()
	odd.put("x", "a\\b.txt")
	if rep := inspect(t, odd.build(), checkpoint.Options{}); rep.Verdict != checkpoint.Fail {
		t.Error("a backslash in a name passes")
	}
}

func TestOtherKinds(t *testing.T) {
	files := fstest.MapFS{
		"image.tar": {Data: []byte(strings.Repeat("a", 257) + "ustar")}, "tool": {Data: []byte("\x7fELF")}, "data.parquet": {Data: []byte("PAR1....PAR1")}, "notes.md": {Data: []byte("x")},
	}
	rep := inspect(t, files, checkpoint.Options{Kind: "container-images"})
	if rep.Verdict != checkpoint.Pass || rep.Model != nil || len(rep.Files) != 4 {
		t.Errorf("%+v", rep)
	}
	rep = inspect(t, files, checkpoint.Options{Kind: "dataset"})
	if got := len(rep.Refused()); got != 2 {
		t.Errorf("dataset: %d refusals, want 2 (tar, program): %+v", got, rep.Findings)
	}
}

func TestFindingsAreCapped(t *testing.T) {
	files := fstest.MapFS{}
	for i := range 1100 {
		files[fmt.Sprintf("%04d.py", i)] = &fstest.MapFile{Data: []byte("import os\n")}
	}
	rep := inspect(t, files, checkpoint.Options{Kind: "dataset"})
	if len(rep.Findings) != 1001 || rep.Verdict != checkpoint.Fail {
		t.Errorf("%d findings, %s", len(rep.Findings), rep.Verdict)
	}
	rep = inspect(t, files, checkpoint.Options{Kind: "dataset", Exceptions: []string{checkpoint.RuleFileKind}})
	if rep.Verdict != checkpoint.Pass {
		t.Error("excepted findings beyond the cap refuse")
	}
}

func FuzzInspectJSON(f *testing.F) {
	f.Add([]byte(`{"model_type":"llama","quantization_config":{"quant_method":"awq","bits":4}}`), []byte(`{"weight_map":{"a":"b"}}`))
	f.Add([]byte(`[]`), []byte(`{"metadata":{"total_size":1e400}}`))
	f.Fuzz(func(t *testing.T, config, index []byte) {
		s := awq()
		s.files["config.json"] = config
		s.late = func(s *snap) { s.files["model.safetensors.index.json"] = index }
		rep, err := checkpoint.Inspect(t.Context(), s.build(), checkpoint.Options{Kind: "model-weights"})
		if err != nil {
			t.Fatalf("%q %q: %v", config, index, err)
		}
		if rep.Verdict == checkpoint.Pass && !json.Valid(config) {
			t.Errorf("%q passes", config)
		}
	})
}

func FuzzFileKinds(f *testing.F) {
	pic, photo := pictures()
	for _, b := range [][]byte{pic, photo, sentencePiece(), []byte("cposix\nsystem\n."), shardBytes(nil), []byte("PAR1")} {
		f.Add("a.txt", b)
		f.Add("tokenizer.model", b)
	}
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		if !fs.ValidPath(name) || name == "." || strings.Contains(name, "/") {
			return
		}
		rep, err := checkpoint.Inspect(t.Context(), fstest.MapFS{name: {Data: b}}, checkpoint.Options{Kind: "dataset"})
		if err != nil {
			t.Fatalf("%q %q: %v", name, b, err)
		}
		if rep.Verdict == checkpoint.Pass && (bytes.HasPrefix(b, []byte("PK\x03\x04")) || bytes.HasPrefix(b, []byte("\x80\x04")) || strings.HasSuffix(name, ".py")) {
			t.Errorf("%q %q passes", name, b)
		}
	})
}
