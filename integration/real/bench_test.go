// SPDX-License-Identifier: Apache-2.0

//go:build real

package real_test

import (
	"fmt"
	"testing"

	"github.com/minio/minio-go/v7"

	"sluice/pkg/registry/registrytest"
)

// BenchmarkPublishMinIO publishes 256 MiB in four files to MinIO, beside
// minio-go's own put of the same files, four at a time with default parts: which
// checks no SHA-256, reads nothing back and lets anybody overwrite.
func BenchmarkPublishMinIO(b *testing.B) {
	s := startMinIO(b)
	sizes := make(map[string]int64)
	for i := range 4 {
		sizes[fmt.Sprint("model-", i)] = 64 << 20
	}
	spool, n := registrytest.Make(b, b.TempDir(), "llama", 1, 1, sizes), 0
	b.Run("publish", func(b *testing.B) {
		b.SetBytes(256 << 20)
		for b.Loop() {
			n++ // a new bucket: nothing is there yet
			p := open(b, s.config(fmt.Sprint("publish-", n), ""))
			if _, err := p.Publish(b.Context(), spool.Release, spool, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	c := s.client(b)
	if err := c.MakeBucket(b.Context(), "plain", minio.MakeBucketOptions{}); err != nil {
		b.Fatal(err)
	}
	b.Run("minio-go", func(b *testing.B) {
		b.SetBytes(256 << 20)
		for b.Loop() {
			n++
			done := make(chan error)
			for i := range spool.Files {
				go func() {
					_, err := c.FPutObject(b.Context(), "plain", fmt.Sprint(n, "/", i), spool.File(i), minio.PutObjectOptions{})
					done <- err
				}()
			}
			for range spool.Files {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}
