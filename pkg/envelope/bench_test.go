// SPDX-License-Identifier: Apache-2.0

package envelope_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"sluice/pkg/envelope"
)

const benchFile = 256 << 20

// bigTree is a directory with one file of 256 MiB, in the page cache.
func bigTree(b *testing.B) *os.Root {
	dir := b.TempDir()
	f := must[*os.File](b)(os.Create(filepath.Join(dir, "model.bin")))
	for range benchFile / envelope.BlockSize {
		if _, err := f.WriteString(bigFile(envelope.BlockSize)); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		b.Fatal(err)
	}
	root := must[*os.Root](b)(os.OpenRoot(dir))
	b.Cleanup(func() { root.Close() })
	return root
}

// BenchmarkBuild hashes every byte for its file and for its block; BenchmarkPlainSHA256 is the bar.
func BenchmarkBuild(b *testing.B) {
	root := bigTree(b)
	b.SetBytes(benchFile)
	for b.Loop() {
		if _, _, err := envelope.Build(b.Context(), root.FS(), envelope.BuildOptions{Predicate: predicate()}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPlainSHA256(b *testing.B) {
	root := bigTree(b)
	b.SetBytes(benchFile)
	for b.Loop() {
		f := must[*os.File](b)(root.Open("model.bin"))
		h := sha256.New()
		if _, err := io.CopyBuffer(h, struct{ io.Reader }{f}, make([]byte, envelope.BlockSize)); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}

func BenchmarkRead(b *testing.B) {
	for _, n := range []int{1000, envelope.MaxFiles} {
		b.Run(fmt.Sprintf("files=%d", n), func(b *testing.B) {
			s, index := manyFiles(b, n)
			e := must[*envelope.Envelope](b)(envelope.New(sign(b, must[[]byte](b)(s.Marshal())), index, nil))
			for i := range 5 {
				if err := e.Merge([]envelope.Named{signedApproval(b, approval(s, e.ID, "security", fmt.Sprintf("o%d", i)))}); err != nil {
					b.Fatal(err)
				}
			}
			data := stream(b, e)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := envelope.Read(bytes.NewReader(data)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
