// SPDX-License-Identifier: Apache-2.0

package mofn

import (
	"bytes"
	"fmt"
)

// Halves is a composite signature taken apart, so that tools which know one half alone can check that half. A half that verifies is no
// signature of ours: both must, under one enrolled key, which is what Verify asks.
type Halves struct {
	Message   []byte // M' of trust.md section 1, what both halves sign; it ends in the SHA-512 of the message
	Context   string // FIPS 204 context of the ML-DSA half
	MLDSA     Half
	Classical Half
}

// Half is one of them.
type Half struct {
	Algorithm string // ML-DSA-65, ML-DSA-87, Ed25519 or ECDSA-P384
	Public    []byte // as in the composite key: raw bytes, or an uncompressed point
	Signature []byte // raw bytes, or an Ecdsa-Sig-Value in DER
}

// Split takes apart a signature by k over message in role. It verifies nothing. The bytes are copies. Errors: ErrRole, and ErrSignature
// for a length that no signature of the suite has.
func (k *PublicKey) Split(role string, message, sig []byte) (Halves, error) {
	if !validName(role) {
		return Halves{}, fmt.Errorf("%w: %q", ErrRole, shorten(role))
	}
	m, label, parts, ok := k.key.Split([]byte(contextPrefix+role), message, sig)
	if !ok {
		shortest, longest := k.key.SignatureSizes()
		return Halves{}, fmt.Errorf("%w: %d bytes, a signature of suite %s has %s", ErrSignature, len(sig), k.suite, span(shortest, longest))
	}
	half := func(i int) Half {
		h := k.key.Halves()[i]
		return Half{h.Algorithm, bytes.Clone(h.Public), bytes.Clone(parts[i])}
	}
	return Halves{Message: m, Context: label, MLDSA: half(0), Classical: half(1)}, nil
}
