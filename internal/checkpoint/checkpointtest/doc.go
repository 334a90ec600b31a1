// SPDX-License-Identifier: Apache-2.0

// Package checkpointtest writes synthetic model snapshots for tests and demonstrations: a Llama-shaped base in BF16 or F16,
// and the same weights really quantized to AutoAWQ's gemm layout (4 bits, groups, zero points).
//
//	<dir>/base/   config, tokenizer, template, papers, shards, index       as a published model
//	<dir>/awq/    the same; linears as qweight, qzeros, scales; the rest   as AutoAWQ leaves it
//	              byte-equal after the cast to F16
//
// Weights come from one seed, chunk by chunk, so that neither the number of cores nor the order of work changes a byte, and
// no model is ever in memory as a whole: one linear a core at a time.
package checkpointtest
