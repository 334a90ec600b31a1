// SPDX-License-Identifier: Apache-2.0

// Package registry publishes verified releases where consumers read them: in a
// directory or in an S3 bucket, with one layout (docs/spec/registry-layout.md).
//
//	spool (verified, complete)
//	  |
//	  |  1 files, put if absent      releases/<name>/sha256-<R>/<path>
//	  |  2 the keys equal the statement's, exactly
//	  |  3 provenance, receipt       provenance/<name>/sha256-<R>/...
//	  |  4 everything read back and hashed
//	  v
//	  5 COMMIT ------------------->  the release is visible, whole
//	  6 catalogue serial n+1         catalog/serial-<n>.json  (chain of hashes)
//	  7 channel, compare and set     channels/<name>/latest.json
//
// The sequence exists once, in publish.go, over the small store interface of
// store.go. The two stores (directory and S3) only know how to put an object
// that must not exist, read one, list, and compare-and-set; so both targets
// have the same order, the same idempotence, the same catalogue and the same
// fsck, and one conformance suite runs on both.
//
// Every step may be repeated: an object that is already there with the same
// bytes is success, with other bytes it is [ErrConflict] and is never
// overwritten. So a crash between any two steps is repaired by calling
// Publish again, and until COMMIT exists no reader may look.
//
// A release that is withdrawn ends where it began, in the same manner
// (withdraw.go): a record makes it invisible at once, a further serial marks
// its entry, the channel follows from the catalogue, and what was revoked for
// good loses its files, last.
//
// Waiting for a target that is down is the caller's job: a failure that may
// pass by itself matches [ErrUnavailable].
package registry
