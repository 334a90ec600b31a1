// SPDX-License-Identifier: Apache-2.0

// Package journal is the memory of a daemon: one bbolt file that says which release stands where, which
// release of a stream was the newest ever accepted, and who decided what.
//
//	journal.db                        one file a daemon, mode 0600, one writer
//	├── meta
//	│   ├── schema       decimal      version of this tree; migrations bring an older file forward, in order
//	│   └── events_head  JSON         {"seq","sha256"} of the last event: a cut tail is seen
//	├── jobs
//	│   └── <job id>     JSON Job     one job a release; moved only along the arrows of Options.States
//	├── streams
//	│   └── <stream>     JSON Mark    {"epoch","seq","release"}: the anti-rollback high-water mark, it only grows
//	├── events
//	│   └── <u64, BE>    JSON Event   1, 2, 3, ...; each holds the SHA-256 of the value before it: the audit trail
//	├── tree
//	│   └── <u64, BE>    32 bytes     hash of RFC 6962 over the events, by the index of golang.org/x/mod/sumdb/tlog
//	└── witness
//	    └── <origin>     text         the last checkpoint that was seen of another log
//
// Invariants. A transition, its event, the leaf of that event in the tree and (with [Journal.AdvanceWithMark]) its mark are one
// transaction: after a kill or a power cut all of them are there or none is. A job is in a state that Options.States names. A mark
// never goes back. An event is never changed, removed or skipped; [Journal.VerifyEvents] proves it, up to the
// head, which somebody who may write the file could rewrite together with the whole chain and the whole tree: so a signed checkpoint
// of the tree is carried elsewhere (internal/audit, docs/spec/audit.md) to pin it.
//
// Order of durability: body fsynced, directory fsynced, journal committed, next stage. Bodies are files; the
// journal holds names and digests only, which is why its values have caps.
//
// What it does not do: it knows no stage, runs nothing, and waits for nobody. bbolt locks the file, so a second
// process cannot even read it while the daemon runs ([ErrLocked]): ask the daemon, over its admin socket.
package journal
