// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"sluice/pkg/registry"
	"sluice/pkg/registry/registrytest"
)

// benchSizes is 256 MiB in four shards and a small file.
func benchSizes() map[string]int64 {
	sizes := map[string]int64{"config.json": 1000}
	for i := range 4 {
		sizes[fmt.Sprintf("model-%d.safetensors", i)] = 64 << 20
	}
	return sizes
}

// BenchmarkPublish publishes 256 MiB into a directory, with links and with
// copies, beside "cp -r && sync -f" of the same files: which neither hashes nor
// reads back.
func BenchmarkPublish(b *testing.B) {
	spool := registrytest.Make(b, filepath.Join(b.TempDir(), "spool"), "llama", 1, 1, benchSizes())
	for name, opt := range map[string]registry.Options{"link": {}, "copy": {NoLink: true}} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(256 << 20)
			for b.Loop() {
				dir := filepath.Join(b.TempDir(), "registry")
				p, err := registry.NewDirectory(dir, opt)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := p.Publish(b.Context(), spool.Release, spool, nil); err != nil {
					b.Fatal(err)
				}
				p.Close()
				os.RemoveAll(dir)
			}
		})
	}
	b.Run("cp and sync", func(b *testing.B) {
		b.SetBytes(256 << 20)
		for b.Loop() {
			dir := filepath.Join(b.TempDir(), "copy")
			out, err := exec.Command("sh", "-c", `cp -r "$0" "$1" && sync -f "$1"`, spool.Dir, dir).CombinedOutput()
			if err != nil {
				b.Fatalf("%v: %s", err, out)
			}
			os.RemoveAll(dir)
		}
	})
}
