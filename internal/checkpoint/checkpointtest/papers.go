// SPDX-License-Identifier: Apache-2.0

package checkpointtest

import (
	"fmt"
	"strings"
)

// ChatTemplate is the pair's chat template: ChatML, as many published models have it.
const ChatTemplate = `{%- for message in messages %}
    {%- if message['role'] not in ['system', 'user', 'assistant'] %}
        {{- raise_exception('unknown role: ' + message['role']) }}
    {%- endif %}
    {{- '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
`

// papers are the small files of a snapshot. Both snapshots have the same but for what config.json says of the weights.
func papers(spec Spec, quantized bool) map[string][]byte {
	return map[string][]byte{
		"config.json":             indented(config(spec, quantized)),
		"generation_config.json":  indented(map[string]any{"_from_model_config": true, "bos_token_id": 256, "eos_token_id": 258, "do_sample": true, "temperature": 0.6, "top_p": 0.9}),
		"tokenizer.json":          indented(tokenizer()),
		"tokenizer_config.json":   indented(tokenizerConfig()),
		"special_tokens_map.json": indented(map[string]any{"bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<unk>"}),
		"README.md":               []byte(readme(spec)),
		"LICENSE":                 []byte("Synthetic weights, dedicated to the public domain (CC0 1.0 Universal).\nhttps://creativecommons.org/publicdomain/zero/1.0/legalcode\n"),
		".gitattributes":          []byte("*.safetensors filter=lfs diff=lfs merge=lfs -text\n"),
	}
}

func readme(spec Spec) string {
	return fmt.Sprintf("---\nlicense: cc0-1.0\nlibrary_name: transformers\n---\n\n# Sluice demonstration model\n\n%d layers of random weights (seed %d). It has a model's shape and says nothing.\n", spec.Layers, spec.Seed)
}

func config(spec Spec, quantized bool) map[string]any {
	c := map[string]any{
		"architectures": []string{"LlamaForCausalLM"}, "model_type": "llama", "hidden_size": spec.Hidden, "intermediate_size": spec.Intermediate,
		"num_hidden_layers": spec.Layers, "num_attention_heads": spec.Heads, "num_key_value_heads": spec.KVHeads, "head_dim": spec.Hidden / spec.Heads,
		"vocab_size": spec.Vocab, "hidden_act": "silu", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "initializer_range": deviation,
		"tie_word_embeddings": false, "attention_bias": false, "mlp_bias": false, "use_cache": true, "bos_token_id": 256, "eos_token_id": 258,
		"torch_dtype": map[string]string{"BF16": "bfloat16", "F16": "float16"}[spec.Dtype], "transformers_version": "4.51.3",
	}
	if quantized {
		c["torch_dtype"] = "float16"
		c["quantization_config"] = map[string]any{"quant_method": "awq", "bits": 4, "group_size": spec.Group, "zero_point": true, "version": "gemm", "modules_to_not_convert": nil}
	}
	return c
}

// special are the tokens behind the 256 bytes.
func special() []string { return []string{"<s>", "<|im_start|>", "<|im_end|>", "<unk>"} }

// tokenizer is a byte-level BPE without merges: every byte is a token, in the alphabet of GPT-2.
func tokenizer() map[string]any {
	vocab := map[string]int{}
	for i, r := range byteAlphabet() {
		vocab[string(r)] = i
	}
	added := []any{}
	for i, s := range special() {
		added = append(added, map[string]any{"id": 256 + i, "content": s, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
	}
	byteLevel := map[string]any{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}
	return map[string]any{
		"version": "1.0", "truncation": nil, "padding": nil, "added_tokens": added, "normalizer": nil, "pre_tokenizer": byteLevel, "post_processor": nil, "decoder": byteLevel,
		"model": map[string]any{
			"type": "BPE", "dropout": nil, "unk_token": nil, "continuing_subword_prefix": nil, "end_of_word_suffix": nil,
			"fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []string{},
		},
	}
}

// byteAlphabet gives each byte a visible character: itself where it is one, else one from U+0100 on (GPT-2 bytes_to_unicode).
func byteAlphabet() [256]rune {
	var a [256]rune
	next := rune(0x100)
	for b := range a {
		visible := b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae
		if a[b] = rune(b); !visible {
			a[b] = next
			next++
		}
	}
	return a
}

func tokenizerConfig() map[string]any {
	added := map[string]any{}
	for i, s := range special() {
		added[fmt.Sprint(256+i)] = map[string]any{"content": s, "lstrip": false, "normalized": false, "rstrip": false, "single_word": false, "special": true}
	}
	return map[string]any{
		"added_tokens_decoder": added, "bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<unk>", "clean_up_tokenization_spaces": false,
		"model_max_length": 4096, "tokenizer_class": "PreTrainedTokenizerFast", "chat_template": strings.TrimSpace(ChatTemplate),
	}
}
