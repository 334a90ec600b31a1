// SPDX-License-Identifier: Apache-2.0

package spool_test

import (
	"fmt"
	"os"
	"testing"

	"sluice/internal/spool"
	"sluice/pkg/fec"
)

// BenchmarkPut is the path of a clean transfer: source symbols in order into a file in memory. 0 allocations.
func BenchmarkPut(b *testing.B) {
	for _, symbolSize := range []int{1408, 8896} {
		b.Run(fmt.Sprintf("T=%d", symbolSize), func(b *testing.B) { benchmarkPut(b, symbolSize, 1) })
	}
	b.Run("T=1408/every-100th-lost", func(b *testing.B) { benchmarkPut(b, 1408, 100) })
}

// benchmarkPut cycles through a file of 128 MiB; drop loses every drop-th symbol, which splits the writes. What was stored
// is forgotten at the end of a round, off the clock.
func benchmarkPut(b *testing.B, symbolSize, drop int) {
	const size = 128 << 20
	dir, err := os.MkdirTemp("/dev/shm", "spool-bench-")
	if err != nil {
		b.Skip(err)
	}
	defer os.RemoveAll(dir)
	g, err := fec.New(size, symbolSize, fec.DefaultGroups(symbolSize, 256<<20))
	if err != nil {
		b.Fatal(err)
	}
	o, err := spool.Open(openRoot(b, dir), []spool.File{{Name: "a", Size: size}}, g, spool.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer o.Close()
	symbol, n := make([]byte, symbolSize), int(g.Symbols())
	b.SetBytes(int64(symbolSize))
	b.ReportAllocs()
	esi := 0
	for b.Loop() {
		if esi == n {
			b.StopTimer()
			if err := o.Forget(0, size); err != nil {
				b.Fatal(err)
			}
			esi = 0
			b.StartTimer()
		}
		if drop == 1 || esi%drop != 0 {
			if _, err := o.Put(0, uint32(esi), symbol); err != nil {
				b.Fatal(err)
			}
		}
		esi++
	}
}

// BenchmarkRepair: a span of 64 MiB, every group of which lost the same two symbols (a burst) or two of its own (random),
// read, repaired and written back in memory. Bytes are those of the span.
func BenchmarkRepair(b *testing.B) {
	for _, kind := range []string{"burst", "random"} {
		b.Run(kind, func(b *testing.B) {
			w := newWorld(b, 1, 1408, 248, 1408*192*248)
			w.inMemory()
			s := w.g.Span(0)
			source := w.source[2*s.D:]
			if kind == "random" {
				source = nil
				for i, sym := range w.source {
					if row, group := i/s.D, i%s.D; row != group*7%192 && row != group*11%192+group%2 {
						source = append(source, sym)
					}
				}
			}
			o := w.open()
			b.SetBytes(int64(len(w.object)))
			for b.Loop() {
				b.StopTimer()
				if err := o.Forget(0, int64(len(w.object))); err != nil {
					b.Fatal(err)
				}
				w.put(o, source...)
				b.StartTimer()
				w.put(o, w.rows(0, 3)...)
				w.flush(o)
				if !o.Complete() {
					b.Fatal("not complete")
				}
			}
		})
	}
}
