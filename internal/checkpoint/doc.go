// SPDX-License-Identifier: Apache-2.0

// Package checkpoint looks at a model snapshot and says whether it may cross: without a GPU, without running anything that
// is in it, and without believing a file's name.
//
//	files --sniff--> kind --by kind--> safetensors | JSON | text | SentencePiece | image     anything else is refused
//	                                   |             |      |
//	                                   |             |      +-- chat templates: as the base's, or in a strict subset of Jinja
//	                                   |             +-- no key that makes a loader run foreign code
//	                                   +-- header checked byte by byte; index, shards and quantized triples agree
//
// The list of kinds is an allowlist. Scanners of pickles lose (dozens of published bypasses by extension, CRC, submodule);
// a snapshot that needs none has none. Every rule has an id; a declared policy may accept single rules (Options.Exceptions).
//
// Memory is bounded whatever the files hold: headers, JSON depth, keys, templates and findings have caps, weights are never
// loaded.
package checkpoint
