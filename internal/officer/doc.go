// SPDX-License-Identifier: Apache-2.0

// Package officer is what an officer's machine does, from the drop-box alone: no daemon, no journal, no network (docs/spec/drop-box.md).
//
//	trust object pinned by its fingerprint ─► drop-box's chain ─► Anchor: the newest version, verified
//	request ─► Look: packer's signature, predecessor, evidence, bytes read here ─► View ─► Page: the text that is shown and hashed
//	                                                                                └─► Decide: one new file, read back and verified
//	orders    ─► NewOrder, Orders: what stands, who is missing
//	proposals ─► Next, Compare, SignProposal, Join: versions of the trust object
//
// Three rules carry the weight. What is signed is what was read into memory once, and shown. A risk stands before everything else and is
// never folded away. What this machine did not see is never claimed: see [Bytes].
package officer
