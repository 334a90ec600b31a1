// SPDX-License-Identifier: Apache-2.0

package mofn

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Domains of the two identifiers of trust.md section 1.
const (
	keyDomain  = "sluice-key-v1"
	halfDomain = "sluice-half-v1"
)

// Suite names what a key is for and how it is built (trust.md sections 1 and 2). It is a property of the enrolled key;
// signatures carry no algorithm field, so there is nothing to confuse.
type Suite string

// The suites.
const (
	SuiteH1     Suite = "H1"             // ML-DSA-65 + Ed25519 composite: officers, packers, root
	SuiteH2     Suite = "H2"             // ML-DSA-87 + ECDSA P-384 composite: the same, for tokens without Ed25519
	SuiteLink   Suite = "ED25519-LINK"   // announces sessions on the link
	SuiteTicket Suite = "ED25519-TICKET" // signs the shortfall tickets of a receiver
	SuiteXWing  Suite = "XWING"          // HPKE key of a receiver
)

// KeyID is SHA-256("sluice-key-v1" 00 suite 00 public key), or of one half the half id. It is always recomputed from the
// key; an id that came from outside is only ever compared with it.
type KeyID [sha256.Size]byte

// NewKeyID computes the id of a public key of a suite (trust.md section 1). It does not look at the key.
func NewKeyID(suite Suite, public []byte) KeyID { return separated(keyDomain, string(suite), public) }

// halfID names one half of a composite key; algorithm is "ML-DSA-65", "ML-DSA-87", "Ed25519" or "ECDSA-P384".
func halfID(algorithm string, public []byte) KeyID { return separated(halfDomain, algorithm, public) }

func separated(domain, kind string, public []byte) KeyID {
	h := sha256.New()
	h.Write([]byte(domain + "\x00" + kind + "\x00"))
	h.Write(public)
	return KeyID(h.Sum(nil))
}

// ParseKeyID reads 64 lower-case hexadecimal digits; any other spelling is refused, so that one key has one id.
func ParseKeyID(s string) (KeyID, error) {
	var id KeyID
	if len(s) != hex.EncodedLen(len(id)) {
		return id, fmt.Errorf("%w: key id %q has %d characters, not 64", ErrKey, shorten(s), len(s))
	}
	raw, err := hex.DecodeString(s)
	if err != nil || hex.EncodeToString(raw) != s {
		return id, fmt.Errorf("%w: key id %q is not 64 lower-case hexadecimal digits", ErrKey, s)
	}
	return KeyID(raw), nil
}

// String gives 64 lower-case hexadecimal digits.
func (id KeyID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText gives the same as String. It never fails.
func (id KeyID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseKeyID.
func (id *KeyID) UnmarshalText(text []byte) error {
	parsed, err := ParseKeyID(string(text))
	if err != nil {
		return err
	}
	*id = parsed
	return nil
}
