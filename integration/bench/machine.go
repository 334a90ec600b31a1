// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"fmt"
	"sync"
	"testing"
	"time"
)

// What one core did on the machine on which the bars were set (../shared/design/protocol.md, and section 4.6 of the research), GB/s of
// 1,400 bytes.
const (
	barSeal = 2.8 // AES-256-GCM
	barHash = 1.59
)

// machine measures what one core does with the two things that cost most. Machines differ by half, and a shared one from hour to hour:
// a figure of a transfer says little without. Beside it stands what the machine did on which the bars were set.
func (b *bench) machine() {
	data := make([]byte, 1408)
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
	row("AES-256-GCM", barSeal, b.sealer.once(data))
	row("SHA-256", barHash, func() { sha256.Sum256(data) })
	fmt.Println()
}

// sealer makes functions that seal the same data each time, one for each core.
type sealer struct {
	aead cipher.AEAD
}

func newSealer() (sealer, error) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return sealer{}, err
	}
	aead, err := cipher.NewGCM(block)
	return sealer{aead}, err
}

func (s sealer) once(data []byte) func() {
	nonce, sealed := make([]byte, s.aead.NonceSize()), make([]byte, 0, len(data)+s.aead.Overhead())
	return func() { s.aead.Seal(sealed[:0], nonce, data, nil) }
}

// sealing is how fast a core seals at this moment, GB/s, while all of them do: it is measured around each transfer, of which a shared
// machine makes one thing now and another a minute later.
func (s sealer) sealing(cores int) float64 {
	const long = 100 * time.Millisecond
	speeds := make([]float64, cores)
	var wg sync.WaitGroup
	for i := range speeds {
		wg.Go(func() {
			data := make([]byte, 1408)
			seal := s.once(data)
			began, n := time.Now(), 0
			for time.Since(began) < long {
				for range 100 {
					seal()
				}
				n += 100
			}
			speeds[i] = float64(n*len(data)) / time.Since(began).Seconds() / 1e9
		})
	}
	wg.Wait()
	sum := 0.0
	for _, speed := range speeds {
		sum += speed
	}
	return sum / float64(cores)
}
