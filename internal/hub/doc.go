// SPDX-License-Identifier: Apache-2.0

// Package hub mirrors snapshots from the Hugging Face Hub, or from a server that speaks its HTTP contract.
//
//	revision --Resolve--> commit --Tree--> entries --filter--> files --fetch--> <path>.part --verify--> <path>
//	 "main"               40 hex           path, size,                 parallel,               every byte
//	                                       hash                        resumed                 against the tree
//
// One answer is trusted: the tree of a pinned commit, read from the configured endpoint over an authenticated connection.
// Everything after it is checked against it. The bytes of an LFS file must have the tree's SHA-256; the bytes of any other
// file must have the tree's git blob SHA-1. Neither the headers of a redirect nor those of a CDN are believed: a CDN's ETag
// looks like a SHA-256 and is none. A tree whose hashes are masked (a gated repository without access) is refused.
//
// What is on disk is never trusted either. A kept prefix (<path>.part) and a kept file are hashed again before they count,
// so a mirror may be killed at any moment and continued by another process.
//
// The token goes to the endpoint's own scheme, host and port and to nothing else; redirects are followed by hand for that.
package hub
