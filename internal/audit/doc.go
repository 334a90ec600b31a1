// SPDX-License-Identifier: Apache-2.0

// Package audit makes a log out of a journal's events, and judges such a log without network, configuration or state
// (docs/spec/audit.md).
//
//	journal.db ── events, tree ──► Log ──► checkpoint        signed note: origin, size, root hash
//	                                │  ├──► tlog-proof       one event is in that tree
//	                                │  └──► consistency      this checkpoint continues an earlier one
//	                                ▼                              │
//	                             Export ──► a directory            ▼
//	                                           │               Witness      the other side: last checkpoint, forks
//	                                           ▼
//	                                         Verify ──► Report: one page, and what is wrong first
//
// Invariants. Nothing is believed of a text whose signature was not checked. Every length is capped before it is
// allocated. What Verify accepts, it has hashed: no event counts that is not a leaf of the checkpoint's tree, and none of
// that tree is left out. A log is never called consistent with an empty one, for everything is.
//
// The texts are those of C2SP (signed-note, tlog-checkpoint, tlog-proof, tlog-witness), and the hashes those of RFC 6962, so
// that tools of others can follow the tree; only the signature is of our own suite.
package audit
