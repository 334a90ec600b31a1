// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Digest is a SHA-256 (or, for the directory digest, SHA3-256) value. Its text is 64 lower-case hexadecimal digits.
type Digest [32]byte

// String returns the 64 lower-case hexadecimal digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText is String as bytes; it never fails.
func (d Digest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText is ParseDigest.
func (d *Digest) UnmarshalText(text []byte) error {
	v, err := ParseDigest(string(text))
	if err == nil {
		*d = v
	}
	return err
}

// ParseDigest takes exactly 64 lower-case hexadecimal digits, and nothing else; otherwise ErrFormat.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	if len(s) != hex.EncodedLen(len(d)) {
		return Digest{}, fmt.Errorf("%w: digest of %d characters: want 64 lower-case hexadecimal digits", ErrFormat, len(s))
	}
	if !onlyBytes(s, isLowerHex) {
		return Digest{}, fmt.Errorf("%w: digest %q: want 64 lower-case hexadecimal digits", ErrFormat, s)
	}
	if _, err := hex.Decode(d[:], []byte(s)); err != nil {
		return Digest{}, fmt.Errorf("%w: digest %q: %w", ErrFormat, s, err)
	}
	return d, nil
}

// ID is the release id R: the SHA-256 of the exact bytes of the release statement.
func ID(statement []byte) Digest { return sha256.Sum256(statement) }

func isLowerHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' }

// onlyBytes says whether every byte of s is one that ok takes.
func onlyBytes(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}
