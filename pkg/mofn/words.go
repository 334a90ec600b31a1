// SPDX-License-Identifier: Apache-2.0

package mofn

import (
	"crypto/sha256"
	_ "embed"
	"strings"
)

// fingerprintWords words of 11 bits each are 88 bits: out of reach of a search for a second trust object that reads the same
// (trust.md section 4).
const (
	fingerprintWords = 8
	wordBits         = 11
)

// wordList is the English list of BIP-39: 2048 words, each known by its first four letters (bitcoin/bips, MIT licence).
//
//go:embed english.txt
var wordList string

// Fingerprint is the SHA-256 of a payload: what two people compare when a trust object is carried by hand.
func Fingerprint(payload []byte) [sha256.Size]byte { return sha256.Sum256(payload) }

// Words gives the first 88 bits of a digest as 8 words for reading aloud; nil when digest is shorter than 11 bytes.
func Words(digest []byte) []string {
	if len(digest)*8 < fingerprintWords*wordBits {
		return nil
	}
	list := strings.Fields(wordList)
	words := make([]string, fingerprintWords)
	for i := range words {
		words[i] = list[bitsAt(digest, i*wordBits)]
	}
	return words
}

// bitsAt reads 11 bits, most significant first, beginning at bit position at.
func bitsAt(b []byte, at int) int {
	v := 0
	for i := at; i < at+wordBits; i++ {
		v = v<<1 | int(b[i/8]>>(7-i%8)&1)
	}
	return v
}
