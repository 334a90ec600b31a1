// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"fmt"
	"testing"
)

// machine measures what one core does with the two things that cost most. Machines differ by half, and a shared one from hour to hour:
// a figure of a transfer says little without. Beside it stands what the machine did on which the bars were set (an EPYC with SHA-NI;
// for AES it tells of keys of 128 bits, which take about a quarter less).
func (b *bench) machine() {
	block, err1 := aes.NewCipher(make([]byte, 32))
	aead, err2 := cipher.NewGCM(block)
	if err1 != nil || err2 != nil {
		return // a key of 32 bytes is one
	}
	nonce, data := make([]byte, aead.NonceSize()), make([]byte, 1408)
	sealed := make([]byte, 0, len(data)+aead.Overhead())
	row := func(name string, bar float64, work func()) {
		r := testing.Benchmark(func(t *testing.B) {
			for t.Loop() {
				work()
			}
		})
		speed := float64(len(data)) * float64(r.N) / r.T.Seconds() / 1e9
		fmt.Printf("%-52s %5.2f GB/s\n", "one core, "+name, speed)
		if b.opt.rows != "" {
			return // those of the run that the other results are of stay
		}
		b.results = append(b.results, result{"machine/" + name, speed, "GB/s", map[string]any{"bytes": len(data)}, []beside{{"where the bars were set", bar, "GB/s"}}})
	}
	row("AES-256-GCM", 3.6, func() { aead.Seal(sealed[:0], nonce, data, nil) })
	row("SHA-256", 1.59, func() { sha256.Sum256(data) })
	fmt.Println()
}
