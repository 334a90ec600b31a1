// SPDX-License-Identifier: Apache-2.0

// Package merkle grows the tree of RFC 6962 section 2.1 one leaf at a time and remembers only its right edge.
//
//	leaves   0 1 2 3 4 5 6        a tree of 7 leaves is three whole ones: 4, 2 and 1
//	          \/  \/  \/  |       the frontier holds their roots, 63 hashes at most,
//	           \  /    |  |       and folds them from the right to the root of all
//	            \/     |  |
//
// Hashes of leaves and nodes, proofs and their checks are those of golang.org/x/mod/sumdb/tlog, which the Go checksum
// database runs on; only the walk over all leaves in constant memory is missing there. Both who stores a tree (internal/journal)
// and who replays one (internal/audit) need it.
package merkle

import (
	"crypto/sha256"

	"golang.org/x/mod/sumdb/tlog"
)

// Frontier is the right edge of a growing tree. The zero value is the empty tree.
type Frontier struct {
	size  int64
	edges []tlog.Hash // roots of the whole subtrees, the largest first
}

// Append adds a leaf by its hash and returns the hashes that are complete now: the leaf, then each node that it was the last leaf
// of, upwards. They are the hashes that tlog stores for this leaf, in the order of their indices. The slice is the caller's.
func (f *Frontier) Append(leaf tlog.Hash) []tlog.Hash {
	done := []tlog.Hash{leaf}
	for n := f.size; n&1 == 1; n >>= 1 {
		last := len(f.edges) - 1
		leaf = tlog.NodeHash(f.edges[last], leaf)
		f.edges = f.edges[:last]
		done = append(done, leaf)
	}
	f.edges = append(f.edges, leaf)
	f.size++
	return done
}

// Size is the number of leaves.
func (f *Frontier) Size() int64 { return f.size }

// Root is the root hash. That of the empty tree is the hash of nothing (RFC 6962 section 2.1).
func (f *Frontier) Root() tlog.Hash {
	if f.size == 0 {
		return sha256.Sum256(nil)
	}
	root := f.edges[len(f.edges)-1]
	for i := len(f.edges) - 2; i >= 0; i-- {
		root = tlog.NodeHash(f.edges[i], root)
	}
	return root
}
