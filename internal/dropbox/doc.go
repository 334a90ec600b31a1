// SPDX-License-Identifier: Apache-2.0

// Package dropbox is the folder between the bastion and its officers: a share, or a stick that comes and goes (docs/spec/drop-box.md).
//
//	bastion ──► requests/, trust/chain/, status.txt ──► officer's tool
//	bastion ◄── approvals/, orders/, trust/proposals/ ◄── officer's tool, one new file a decision
//
// It knows where things lie and how they are written and read, and believes none of them: what is signed is judged by whoever reads it.
// Everything in the folder is hostile. A file is read once, under its cap, below the folder, and only if it is a regular file; a directory
// with too many names is not read to its end. What an officer writes is never written over: it appears whole, or not at all.
package dropbox
