// SPDX-License-Identifier: Apache-2.0

// Package mofn decides whether enough of the right people answer for a release.
//
//	trust object (signed, versioned)
//	  |
//	  +-- keys ------------------------------+
//	  +-- policy text -- ParsePolicy ---- Policy
//	                                         |
//	release statement -- packer signature ---+-- Verify --> Approval
//	approvals (one statement an officer) ----+      |
//	                                                +--> Progress, ThresholdError
//
//	             officers (people)            groups              rule
//	             s.ito  a.roy  m.lee  --->  security 2 --+
//	             q.tan  q.ali         --->  quality  1 --+--> release all --> models/*
//
// The contract is docs/spec/trust.md (keys, signatures, policy, trust object) and section 7 of docs/spec/envelope.md
// (approvals). Three rules carry the weight:
//
//   - People are counted, never keys, key ids or signatures. A key id is recomputed from the key, a key (or either half of
//     it) belongs to one person, and a person belongs to one group: a policy that says otherwise does not load.
//   - Both halves of a signature (ML-DSA-65 and Ed25519, or ML-DSA-87 and ECDSA P-384) must verify, in the role for which the
//     signature was made.
//   - Bytes are looked at only after their signature verified. A known key with a bad signature refuses everything;
//     unknown keys are counted and never tried.
//
// The package is pure: it opens no file and no socket and holds no state. Everything in it may be called from several
// goroutines at once; a *Policy and a *PublicKey never change after they were made.
package mofn
