// SPDX-License-Identifier: Apache-2.0

// Package quality judges whether a quantized model may cross: it compares the
// benchmark results of a base model and of its quantized copy, item by item,
// and gives a verdict that an auditor can recompute.
//
//	base/samples_*.jsonl  ──ImportSamples──▶ Run ─┐
//	                                              ├─ pair ─▶ Compare ─▶ Report ─▶ gate.json
//	quant/samples_*.jsonl ──ImportSamples──▶ Run ─┘            ▲          │
//	                                                        Margins       └─▶ Recompute, Text
//
// The question is not "is the quantized model significantly worse?", which a
// small benchmark answers with "no" whatever happened, but "is it shown to be
// at most a declared margin worse?". That is a non-inferiority test: the lower
// one-sided 95 % bound of the difference in accuracy must lie above minus the
// margin. MMLU and HumanEval must both hold (an intersection-union test, so
// each is tested at the full level).
//
//   - MMLU: the score interval for paired proportions of Tango (1998); Newcombe's
//     method 10 (1998) and a cluster-robust bound by subject stand beside it.
//   - HumanEval: a percentile bootstrap over tasks with a fixed seed; Student's
//     t beside it. With one greedy sample a task the lower of the bootstrap and
//     the Tango bound decides, for a bootstrap of few changed tasks is too sure.
//
// Both deciding bounds fall, or stay, when any quantized answer turns from
// right to wrong: more damage never turns a fail into a pass. (BCa and the t
// interval do not have this property, which is why they do not decide.)
//
// Nothing is dropped: an item that is missing, doubled, errored or asked with
// another prompt on one side makes Compare return an error, never a verdict.
// A Run may come from any evaluator; lm-evaluation-harness is the first source.
// The package reads a read-only fs.FS and never touches the network.
package quality
