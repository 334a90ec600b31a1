// SPDX-License-Identifier: Apache-2.0

// Package registrytest checks that a registry.Publisher keeps the promises of
// docs/spec/registry-layout.md. The same suite runs over the directory target
// (go test ./pkg/registry) and over a real S3 server (integration/real).
package registrytest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/pkg/registry"
)

// Spool is a release with its files in a directory. It is a registry.Source.
type Spool struct {
	registry.Release
	Dir string
}

// Open implements registry.Source. The spool names files by number, as the
// receiver names them by digest: never by their path.
func (s *Spool) Open(i int) (*os.File, error) { return os.Open(s.File(i)) }

// File is the path of file i of the spool.
func (s *Spool) File(i int) string { return filepath.Join(s.Dir, fmt.Sprint(i)) }

// Make writes a release called name with these file sizes below dir. The bytes
// and the release id follow from seed, name, epoch and seq.
func Make(t testing.TB, dir, name string, epoch, seq int64, sizes map[string]int64) *Spool {
	t.Helper()
	s := &Spool{Dir: dir}
	s.Name, s.Version, s.Stream, s.Kind = name, fmt.Sprintf("%d.%d", epoch, seq), "models/"+name, "model-weights"
	s.Epoch, s.Seq = epoch, seq
	s.ID = sha256.Sum256([]byte(fmt.Sprint(name, epoch, seq, sizes)))
	s.Statement = []byte(fmt.Sprintf(`{"payload":"%x"}`, s.ID))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	paths := make([]string, 0, len(sizes))
	for path := range sizes {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for i, path := range paths {
		sum := Fill(t, s.File(i), sizes[path], s.ID, path)
		s.Files = append(s.Files, registry.File{Path: path, Size: sizes[path], SHA256: sum})
	}
	s.DirectoryDigest = registry.DirectoryDigest(s.Files)
	s.Envelope = Blob("", "envelope of "+s.Version)
	s.Evidence = []registry.Blob{Blob("gate.json", `{"gate":"pass"}`), Blob("inspection.json", "{}")}
	return s
}

// Fill writes size bytes that follow from id and path, and returns their digest.
func Fill(t testing.TB, file string, size int64, id [32]byte, path string) [32]byte {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	seed := sha256.Sum256(append(id[:], path...))
	h := sha256.New()
	src := io.LimitReader(rand.NewChaCha8(seed), size)
	if _, err := io.Copy(io.MultiWriter(f, h), src); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}

// Blob is a provenance object in memory.
func Blob(name, text string) registry.Blob {
	return registry.Blob{
		Name: name, Size: int64(len(text)), SHA256: sha256.Sum256([]byte(text)),
		Open: func() (io.ReadSeekCloser, error) { return closer{bytes.NewReader([]byte(text))}, nil },
	}
}

type closer struct{ *bytes.Reader }

func (closer) Close() error { return nil }

// Small is a release of a few small files, one of them empty, with paths that
// sort differently by byte and by component, and one that is not ASCII.
func Small() map[string]int64 {
	return map[string]int64{
		"config.json": 700, "empty": 0, "a/b.txt": 10, "a.txt": 11, "a/é.bin": 4097, "weights/model.safetensors": 300_000,
	}
}

// Many is n files of a few bytes.
func Many(n int) map[string]int64 {
	sizes := make(map[string]int64, n)
	for i := range n {
		sizes[fmt.Sprintf("part-%d/file-%04d", i%7, i)] = int64(i % 300)
	}
	return sizes
}

// Flip inverts one bit of file, at offset.
func Flip(t testing.TB, file string, offset int64) {
	t.Helper()
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	if _, err := f.ReadAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1 << (offset % 8)
	if _, err := f.WriteAt(b[:], offset); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// id returns a release id that nobody made.
func id(n uint64) (sum [32]byte) {
	binary.BigEndian.PutUint64(sum[24:], n)
	return sum
}

// kinds joins the findings of Fsck for an error message.
func kinds(problems []registry.Problem) string {
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintf(&b, "\n  %s %s: %s", p.Kind, p.Key, p.Detail)
	}
	return b.String()
}

// Hex is the release id as keys hold it.
func Hex(s *Spool) string { return fmt.Sprintf("%x", s.ID) }

// MaxShown is how many bytes of an object Target.Keys may hold.
const MaxShown = 4096

// Shown is the value that Target.Keys gives for an object: a mark that changes
// with every write, and the bytes if they are few.
func Shown(mark string, data []byte) string {
	if len(data) > MaxShown {
		return mark
	}
	return mark + "\n" + string(data)
}
