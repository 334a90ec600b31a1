// SPDX-License-Identifier: Apache-2.0

package fec_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"sluice/pkg/fec"
)

// slab is the width of a row in the benchmarks: 64 neighbouring groups of profile 1.
const slab = 64 * 1408

func BenchmarkEncode(b *testing.B) {
	for _, rows := range []int{10, 20} {
		b.Run(fmt.Sprintf("192+%d", rows), func(b *testing.B) {
			random := rand.New(rand.NewPCG(1, 1))
			source, repair := randomRows(random, fec.K, slab), zeroRows(rows, slab)
			encoder, err := fec.NewEncoder(0, rows)
			if err != nil {
				b.Fatal(err)
			}
			b.SetBytes(fec.K * slab)
			b.ReportAllocs()
			for b.Loop() {
				if err := encoder.Encode(source, repair); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkDecode counts source bytes: "slab" is 64 groups that lost the same rows (a burst), "group" one group with a
// pattern of its own every time (random loss).
func BenchmarkDecode(b *testing.B) {
	for _, lost := range []int{1, 2, 4, 10, 40} {
		for _, width := range []int{slab, 1408} {
			for _, pattern := range []string{"same", "new"} {
				name := fmt.Sprintf("lost=%d/width=%d/%s", lost, width, pattern)
				b.Run(name, func(b *testing.B) { benchmarkDecode(b, lost, width, pattern == "new") })
			}
		}
	}
}

func benchmarkDecode(b *testing.B, lost, width int, fresh bool) {
	random := rand.New(rand.NewPCG(1, 2))
	source, repairRows := randomRows(random, fec.K, width), zeroRows(fec.MaxRows, width)
	encode(b, 0, source, repairRows)
	repair := make([]fec.Repair, lost)
	for i := range repair {
		repair[i] = fec.Repair{Row: i, Data: repairRows[i]}
	}
	patterns := make([][]int, 64)
	for i := range patterns {
		patterns[i] = random.Perm(fec.K)[:lost]
	}
	decoder := fec.NewDecoder()
	b.SetBytes(int64(fec.K * width))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		n := 0
		if fresh {
			n = i % len(patterns)
		}
		if err := decoder.Decode(source, patterns[n], repair); err != nil {
			b.Fatal(err)
		}
	}
}
