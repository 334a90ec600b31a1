// SPDX-License-Identifier: Apache-2.0

// Package envelope reads, writes, builds and checks Sluice envelopes, version 1: what a release is, and who answers
// for it. The contract is docs/spec/envelope.md; "section" in the comments and in the errors means a section of it.
//
//	                      envelope.sluice                                            payload/
//	+-------+---------+-------+-------------+-------------+-----+    +-----------+--------+-----------+
//	| magic | release | index | evidence ...| approval ...| end |    | file 0    | file 1 | file 2    |
//	+-------+----|----+---|---+------|------+------|------+--|--+    +-----------+--------+-----------+
//	             |        |          |             |         |        1 MiB blocks, none spans two files
//	     DSSE: payload    |   bound by name,       |       SHA-256
//	     = statement      |   size and SHA-256     |       of all before
//	             |        |                    DSSE: payload = one officer's in-toto statement,
//	             |        SHA-256 a block      naming the release id R
//	     R = SHA-256(statement): every file with its SHA-256 and size, the predicate,
//	         the SHA-256 of the index, the directory digest
//
// Everything that arrives is hostile. A length is compared with its cap before anything is allocated, memory never
// follows a declared number but only bytes that came, and JSON is accepted by one rule (section 3): what was decoded
// is encoded again and must give the same bytes. Signatures are carried, not judged: package mofn does that, over
// the exact bytes found here.
//
// The package is pure: no network, no files but those of an fs.FS that the caller hands over.
package envelope

import "errors"

// The four ways an envelope is refused. Every error of this package that is not one of the caller's own (a reader's,
// a context's) wraps exactly one of them.
var (
	// ErrFormat: the bytes are not in the one form of docs/spec/envelope.md, or a rule of it does not hold.
	ErrFormat = errors.New("envelope: not in the format of the specification")
	// ErrDigest: well formed, but a digest or a size does not match the bytes it stands for.
	ErrDigest = errors.New("envelope: digest mismatch")
	// ErrVersion: an envelope, an index or a statement of another version; a newer reader may take it.
	ErrVersion = errors.New("envelope: unsupported version")
	// ErrConflict: two approvals with one name and different bytes; a person has to choose (section 7).
	ErrConflict = errors.New("envelope: conflicting approvals")
)

// Caps of section 1. Each is compared before allocation.
const (
	// BlockSize is the size of a content block in bytes (section 5).
	BlockSize = 1 << 20
	// MaxStream caps the whole envelope stream: the sum of the other caps.
	MaxStream = 160 << 20
	// MaxRelease caps the release section: base64 of MaxStatement and the signatures.
	MaxRelease = 44 << 20
	// MaxStatement caps a release statement: MaxFiles of about 200 bytes each, with room.
	MaxStatement = 32 << 20
	// MaxFiles caps the files of a release.
	MaxFiles = 100_000
	// MaxPath, MaxComponent and MaxComponents cap a path in bytes, one component in bytes, and the depth: what every
	// file system takes.
	MaxPath       = 1024
	MaxComponent  = 255
	MaxComponents = 32
	// MaxIndex caps the index section: 2 TiB of blocks.
	MaxIndex = 64 << 20
	// MaxEvidence, MaxEvidenceSize and MaxEvidenceTotal cap the reports: their number, one, and all together.
	MaxEvidence      = 16
	MaxEvidenceSize  = 32 << 20
	MaxEvidenceTotal = 48 << 20
	// MaxApprovals and MaxApproval cap the approvals: their number, and one as a DSSE envelope.
	MaxApprovals = 32
	MaxApproval  = 64 << 10
	// MaxSignatures caps the signatures of one DSSE envelope.
	MaxSignatures = 32
	// MaxSectionName caps the name of an evidence or approval section.
	MaxSectionName = 128
	// MaxAudience caps the receivers of one release. Section 1 gives no figure; without one, a 32 MiB list of
	// two-letter receivers costs ten times its size in memory.
	MaxAudience = 4096
	// MaxNote caps the note of an approval in bytes (section 7).
	MaxNote = 1024
	// maxInt is the first integer that section 3 refuses: beyond it JSON readers lose digits.
	maxInt = 1 << 53
)
