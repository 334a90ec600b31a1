// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// quantConfig is config.json's quantization_config, of AutoAWQ and of compressed-tensors.
type quantConfig struct {
	Method    string                `json:"quant_method"`
	Bits      int                   `json:"bits"`
	WBit      int                   `json:"w_bit"` // older AutoAWQ
	GroupSize *int                  `json:"group_size"`
	QGroup    *int                  `json:"q_group_size"` // older AutoAWQ
	ZeroPoint *bool                 `json:"zero_point"`
	Version   string                `json:"version"`
	Keep      []string              `json:"modules_to_not_convert"`
	Format    string                `json:"format"`
	Groups    map[string]quantGroup `json:"config_groups"`
	Ignore    []string              `json:"ignore"`
}

type quantGroup struct {
	Targets []string `json:"targets"`
	Weights *struct {
		Bits      int    `json:"num_bits"`
		GroupSize *int   `json:"group_size"`
		Symmetric bool   `json:"symmetric"`
		Strategy  string `json:"strategy"`
		Type      string `json:"type"`
	} `json:"weights"`
	Activations json.RawMessage `json:"input_activations"`
}

// packFactor is the number of 4-bit codes in an I32 word.
const packFactor = 8

const quantFix = "quantize again with AutoAWQ (gemm) or llm-compressor (pack-quantized), from the same base"

// where is a tensor and the file that it lies in.
type where struct {
	Tensor
	file string
	data int64 // offset of the file's data
}

// quantization finds out how the model is quantized and holds the declaration against the tensors.
func (in *inspector) quantization(cfg *config) error {
	all := in.allTensors()
	packed := hasSuffix(all, ".qweight") || hasSuffix(all, ".weight_packed")
	var q *quantConfig
	if cfg != nil {
		q = cfg.Quantization
	}
	switch {
	case q == nil && !packed:
		return nil
	case q == nil:
		in.refuse(RuleQuantConfig, "config.json", quantFix, "packed weights without a quantization_config: a loader would take them for integers")
		return nil
	}
	switch q.Method {
	case "awq":
		return in.awq(cfg, q, all)
	case "compressed-tensors":
		return in.compressed(cfg, q, all)
	}
	in.rep.Quantization = &Quantization{Method: q.Method, Bits: q.Bits}
	in.refuse(RuleQuantMethod, "config.json", "accept the rule quant-method in the policy if this format is wanted", "quantization method %.80q has no rules here", q.Method)
	return nil
}

// allTensors joins the shards. A name in two shards is refused where there is an index; here the first one counts.
func (in *inspector) allTensors() map[string]where {
	all := map[string]where{}
	for _, p := range slices.Sorted(maps.Keys(in.tensors)) {
		s := in.tensors[p]
		for _, t := range s.Tensors {
			if old, dup := all[t.Name]; dup {
				in.refuse(RuleIndex, p, "mirror the whole repository at one commit", "tensor %.80q is also in %s", t.Name, old.file)
				continue
			}
			all[t.Name] = where{t, p, s.Data}
		}
	}
	return all
}

func hasSuffix(all map[string]where, suffix string) bool {
	for name := range all {
		if strings.HasSuffix(name, suffix) {
			return true
		}
	}
	return false
}

// prefixes lists, sorted, the layers that have any tensor with one of the suffixes.
func prefixes(all map[string]where, suffixes ...string) []string {
	set := map[string]bool{}
	for name := range all {
		for _, s := range suffixes {
			if p, ok := strings.CutSuffix(name, s); ok {
				set[p] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// awq checks AutoAWQ's gemm layout: for a linear in→out with groups of g, qweight I32 [in, out/8], qzeros I32 [in/g, out/8],
// scales F16 [in/g, out].
func (in *inspector) awq(cfg *config, q *quantConfig, all map[string]where) error {
	rep := &Quantization{Method: q.Method, Bits: max(q.Bits, q.WBit), Version: strings.ToLower(q.Version), ZeroPoint: q.ZeroPoint == nil || *q.ZeroPoint}
	in.rep.Quantization = rep
	switch {
	case q.GroupSize != nil:
		rep.GroupSize = *q.GroupSize
	case q.QGroup != nil:
		rep.GroupSize = *q.QGroup
	}
	if !in.awqConfig(rep) {
		return nil
	}
	for _, p := range prefixes(all, ".qweight", ".qzeros", ".scales") {
		if !in.awqTriple(p, rep, cfg, all) {
			continue
		}
		rep.Linears++
		if err := in.scales(all[p+".scales"]); err != nil {
			return err
		}
	}
	if rep.Linears == 0 {
		in.refuse(RuleQuantConfig, "config.json", quantFix, "declares AWQ, but no layer is quantized")
	}
	in.evenly(q.Keep, all, ".qweight")
	return nil
}

func (in *inspector) awqConfig(q *Quantization) bool {
	switch {
	case q.Bits != 4:
		in.refuse(RuleQuantConfig, "config.json", quantFix, "AWQ with %d bits: want 4", q.Bits)
	case q.Version != "gemm":
		in.refuse(RuleQuantConfig, "config.json", quantFix, "AWQ version %.40q: only gemm has a layout that loaders share", q.Version)
	case q.GroupSize != -1 && (q.GroupSize < 16 || q.GroupSize > 1024 || q.GroupSize&(q.GroupSize-1) != 0):
		in.refuse(RuleQuantConfig, "config.json", quantFix, "group_size %d: want -1 or a power of two from 16 to 1024", q.GroupSize)
	case !q.ZeroPoint:
		in.refuse(RuleQuantConfig, "config.json", quantFix, "AWQ gemm without zero points")
	default:
		return true
	}
	return false
}

func (in *inspector) awqTriple(p string, q *Quantization, cfg *config, all map[string]where) bool {
	qw, ok1 := all[p+".qweight"]
	qz, ok2 := all[p+".qzeros"]
	sc, ok3 := all[p+".scales"]
	file := cmpStr(qw.file, cmpStr(qz.file, sc.file))
	if !ok1 || !ok2 || !ok3 {
		in.refuse(RuleQuantTriple, file, quantFix, "%s: want qweight, qzeros and scales together", p)
		return false
	}
	if w, both := all[p+".weight"]; both {
		in.refuse(RuleQuantLeftover, w.file, quantFix, "%s.weight lies beside its quantized form", p)
	}
	if qw.DType != "I32" || qz.DType != "I32" || sc.DType != "F16" && sc.DType != "BF16" || len(qw.Shape) != 2 {
		in.refuse(RuleQuantTriple, file, quantFix, "%s: qweight %s %v, qzeros %s, scales %s: want I32, I32, F16", p, qw.DType, qw.Shape, qz.DType, sc.DType)
		return false
	}
	inputs, outputs := qw.Shape[0], qw.Shape[1]*packFactor
	g := int64(q.GroupSize)
	if g < 0 {
		g = inputs
	}
	if inputs == 0 || inputs%g != 0 ||
		!slices.Equal(qz.Shape, []int64{inputs / g, outputs / packFactor}) || !slices.Equal(sc.Shape, []int64{inputs / g, outputs}) {
		in.refuse(RuleQuantTriple, file, quantFix, "%s: qweight %v, qzeros %v, scales %v do not fit together with groups of %d", p, qw.Shape, qz.Shape, sc.Shape, g)
		return false
	}
	if b, has := all[p+".bias"]; has && !slices.Equal(b.Shape, []int64{outputs}) {
		in.refuse(RuleQuantTriple, b.file, quantFix, "%s.bias has the shape %v: want [%d]", p, b.Shape, outputs)
	}
	in.linear(p, file, cfg, outputs, inputs)
	return true
}

func cmpStr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// linear holds a layer's size against config.json, for the architectures whose sizes follow from it.
func (in *inspector) linear(p, file string, cfg *config, outputs, inputs int64) {
	wantOut, wantIn, known := cfg.linearSize(p)
	if known && (outputs != wantOut || inputs != wantIn) {
		in.refuse(RuleShape, file, "mirror config.json and weights at one commit", "%s is %d→%d, config.json implies %d→%d", p, inputs, outputs, wantIn, wantOut)
	}
}

// linearSize gives the size of a linear of Llama and the models built like it.
func (c *config) linearSize(p string) (outputs, inputs int64, known bool) {
	if c == nil || c.Hidden <= 0 || c.Heads <= 0 || c.Intermediate <= 0 || !slices.Contains([]string{"llama", "mistral", "qwen2", "qwen3"}, c.ModelType) {
		return 0, 0, false
	}
	tail := p
	if i := strings.LastIndex(p, "."); i >= 0 {
		tail = p[strings.LastIndex(p[:i], ".")+1:]
	}
	switch tail {
	case "self_attn.q_proj":
		return c.Heads * c.HeadDim, c.Hidden, true
	case "self_attn.k_proj", "self_attn.v_proj":
		return c.KVHeads * c.HeadDim, c.Hidden, true
	case "self_attn.o_proj":
		return c.Hidden, c.Heads * c.HeadDim, true
	case "mlp.gate_proj", "mlp.up_proj":
		return c.Intermediate, c.Hidden, true
	case "mlp.down_proj":
		return c.Hidden, c.Intermediate, true
	}
	return 0, 0, false
}

// shapes holds the full-precision tensors against config.json.
func (in *inspector) shapes(cfg *config) {
	for _, p := range slices.Sorted(maps.Keys(in.tensors)) {
		for _, t := range in.tensors[p].Tensors {
			layer, ok := strings.CutSuffix(t.Name, ".weight")
			if !ok || len(t.Shape) != 2 {
				continue
			}
			if layer == "model.embed_tokens" && cfg.Hidden > 0 && t.Shape[1] != cfg.Hidden {
				in.refuse(RuleShape, p, "mirror config.json and weights at one commit", "%s is %v, config.json says hidden_size %d", t.Name, t.Shape, cfg.Hidden)
			}
			in.linear(layer, p, cfg, t.Shape[0], t.Shape[1])
		}
	}
}

// evenly refuses a layer that is quantized here and not there, unless config.json names it as kept: an attacker who swaps
// one layer for weights of their own would look like this, and so would half a conversion.
func (in *inspector) evenly(keep []string, all map[string]where, suffix string) {
	quantized := map[string]bool{}
	for _, p := range prefixes(all, suffix) {
		quantized[layerKind(p)] = true
	}
	for _, p := range prefixes(all, ".weight") {
		if _, both := all[p+suffix]; both || !quantized[layerKind(p)] || len(all[p+".weight"].Shape) != 2 {
			continue
		}
		if !slices.ContainsFunc(keep, func(k string) bool { return k != "" && (strings.Contains(p, k) || strings.HasPrefix(k, "re:")) }) {
			in.refuse(RuleQuantTriple, all[p+".weight"].file, quantFix, "%s is not quantized, the same layer elsewhere is", p)
		}
	}
}

// layerKind replaces the numbers in a layer's name: model.layers.#.mlp.up_proj.
func layerKind(p string) string {
	parts := strings.Split(p, ".")
	for i, s := range parts {
		if isDigits([]byte(s)) {
			parts[i] = "#"
		}
	}
	return strings.Join(parts, ".")
}

// compressed checks compressed-tensors' pack-quantized layout: weight_packed I32 [out, in/8], weight_scale [out, in/g],
// weight_shape I64 [2], and (not symmetric) weight_zero_point I32 [out/8, in/g].
func (in *inspector) compressed(cfg *config, q *quantConfig, all map[string]where) error {
	rep := &Quantization{Method: q.Method, Version: q.Format}
	in.rep.Quantization = rep
	if !in.compressedConfig(q, rep) {
		return nil
	}
	for _, p := range prefixes(all, ".weight_packed", ".weight_scale", ".weight_zero_point", ".weight_shape") {
		ok, err := in.compressedLayer(p, rep, cfg, all)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		rep.Linears++
		if err := in.scales(all[p+".weight_scale"]); err != nil {
			return err
		}
	}
	if rep.Linears == 0 {
		in.refuse(RuleQuantConfig, "config.json", quantFix, "declares pack-quantized, but no layer is quantized")
	}
	in.evenly(q.Ignore, all, ".weight_packed")
	return nil
}

func (in *inspector) compressedConfig(q *quantConfig, rep *Quantization) bool {
	if q.Format != "pack-quantized" {
		in.refuse(RuleQuantMethod, "config.json", "accept the rule quant-method in the policy if this format is wanted", "compressed-tensors format %.80q has no rules here", q.Format)
		return false
	}
	if len(q.Groups) != 1 {
		in.refuse(RuleQuantConfig, "config.json", quantFix, "%d config_groups: want one", len(q.Groups))
		return false
	}
	for _, g := range q.Groups {
		if g.Weights == nil || g.Weights.Bits != 4 || g.Weights.Type != "int" || g.Weights.Strategy != "group" && g.Weights.Strategy != "channel" {
			in.refuse(RuleQuantConfig, "config.json", quantFix, "want weights of 4-bit integers, by group or channel")
			return false
		}
		rep.Bits, rep.ZeroPoint, rep.GroupSize = g.Weights.Bits, !g.Weights.Symmetric, -1
		if g.Weights.GroupSize != nil && g.Weights.Strategy == "group" {
			rep.GroupSize = *g.Weights.GroupSize
		}
	}
	if rep.GroupSize != -1 && (rep.GroupSize < 16 || rep.GroupSize > 1024) {
		in.refuse(RuleQuantConfig, "config.json", quantFix, "group_size %d: want 16 to 1024", rep.GroupSize)
		return false
	}
	return true
}

func (in *inspector) compressedLayer(p string, q *Quantization, cfg *config, all map[string]where) (bool, error) {
	packed, ok1 := all[p+".weight_packed"]
	scale, ok2 := all[p+".weight_scale"]
	shape, ok3 := all[p+".weight_shape"]
	zero, ok4 := all[p+".weight_zero_point"]
	file := cmpStr(cmpStr(packed.file, scale.file), cmpStr(shape.file, zero.file))
	if !ok1 || !ok2 || !ok3 || ok4 != q.ZeroPoint {
		in.refuse(RuleQuantTriple, file, quantFix, "%s: want weight_packed, weight_scale and weight_shape (and weight_zero_point exactly when not symmetric)", p)
		return false, nil
	}
	if w, both := all[p+".weight"]; both {
		in.refuse(RuleQuantLeftover, w.file, quantFix, "%s.weight lies beside its quantized form", p)
	}
	if packed.DType != "I32" || len(packed.Shape) != 2 || shape.DType != "I64" || !slices.Equal(shape.Shape, []int64{2}) || scale.DType != "F16" && scale.DType != "BF16" && scale.DType != "F32" {
		in.refuse(RuleQuantTriple, file, quantFix, "%s: weight_packed %s %v, weight_scale %s, weight_shape %s %v: want I32, F16 or BF16, I64 [2]", p, packed.DType, packed.Shape, scale.DType, shape.DType, shape.Shape)
		return false, nil
	}
	outputs, inputs, err := in.storedShape(shape)
	if err != nil {
		return false, err
	}
	g := int64(q.GroupSize)
	if g < 0 {
		g = max(inputs, 1)
	}
	groups := []int64{outputs, (inputs + g - 1) / g}
	fits := inputs > 0 && outputs > 0 && slices.Equal(packed.Shape, []int64{outputs, (inputs + packFactor - 1) / packFactor}) && slices.Equal(scale.Shape, groups) &&
		(!ok4 || zero.DType == "I32" && slices.Equal(zero.Shape, []int64{(outputs + packFactor - 1) / packFactor, groups[1]}))
	if !fits {
		in.refuse(RuleQuantTriple, file, quantFix, "%s: weight_packed %v, weight_scale %v, weight_zero_point %v do not fit the stored shape [%d %d] with groups of %d", p, packed.Shape, scale.Shape, zero.Shape, outputs, inputs, g)
		return false, nil
	}
	in.linear(p, file, cfg, outputs, inputs)
	return true, nil
}

// storedShape reads the two integers of weight_shape; nonsense comes back as zeros.
func (in *inspector) storedShape(t where) (outputs, inputs int64, err error) {
	var b [16]byte
	err = with(in.fsys, t.file, func(f *file) error { return readAt(f, b[:], t.data+t.Begin) })
	o, i := binary.LittleEndian.Uint64(b[:]), binary.LittleEndian.Uint64(b[8:])
	const most = 1 << 31 // rows or columns: no linear comes near
	if err != nil || o > most || i > most {
		return 0, 0, err
	}
	return int64(o), int64(i), nil
}

const scaleChunk = 256 << 10 // bytes read at once

// scales demands that every scale is a positive finite number: zero wipes a group out, a NaN poisons every answer.
func (in *inspector) scales(t where) error {
	if t.DType != "F16" && t.DType != "BF16" {
		return nil
	}
	exponent := uint16(0x7c00)
	if t.DType == "BF16" {
		exponent = 0x7f80
	}
	return with(in.fsys, t.file, func(f *file) error {
		buf := make([]byte, scaleChunk)
		for off := t.Begin; off < t.End; {
			n := min(int64(len(buf)), t.End-off)
			if err := readAt(f, buf[:n], t.data+off); err != nil {
				return fmt.Errorf("read %s: %w", t.Name, err)
			}
			for i := 0; i+1 < int(n); i += 2 {
				v := binary.LittleEndian.Uint16(buf[i:])
				if v == 0 || v >= 0x8000 || v&exponent == exponent {
					in.refuse(RuleQuantScale, t.file, quantFix, "%s: element %d (%#04x) is not a positive finite number", t.Name, (off-t.Begin+int64(i))/2, v)
					return nil
				}
			}
			off += n
		}
		return nil
	})
}
