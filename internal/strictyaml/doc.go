// SPDX-License-Identifier: Apache-2.0

// Package strictyaml reads configuration files in which a mistake is an error and never a default.
//
//	bytes ──► tree ──────────────────► refuse ─────────────────────────────► decode over the defaults
//	 cap      one document, UTF-8      unknown, empty, doubled, aliased or    go.yaml.in/yaml/v3, KnownFields
//	                                   tagged keys, each with its line
//
// In a gateway a misspelt key that is silently ignored is a hole: `requried_signatures: 3` would be no
// requirement at all. So every key must be known ("did you mean ...?"), every key must have a value, and every problem of
// the file is reported at once as file:line. Anchors, aliases, merge keys and tags are refused: they are how a small
// file becomes a large one, and how a reader is misled.
//
// Units stand in the values: [Bytes] "64MiB", [BitRate] "900Mbit", [Duration] "2h30m", [Percent] "10%", [FilePath]
// "/etc/sluice/root.pem". They serve as flags too (Set, String, Type).
//
// What it does not do: it reads no file, no environment and no include, and judges no value: that is the Validate of each
// component's own struct.
package strictyaml
