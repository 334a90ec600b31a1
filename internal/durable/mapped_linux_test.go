// SPDX-License-Identifier: Apache-2.0

package durable_test

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"sluice/internal/durable"
)

// TestWriteMapped: it is a pwrite, wherever in a page the bytes begin and end.
func TestWriteMapped(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	want := bytes.Repeat([]byte{0xEE}, 100_000)
	if err := os.WriteFile(name, want, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	for range 500 {
		at := random.IntN(len(want))
		b := make([]byte, random.IntN(min(20_000, len(want)-at)+1))
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		copy(want[at:], b)
		if err := durable.WriteMapped(f, b, int64(at)); err != nil {
			t.Fatalf("seed %d: %d bytes at %d: %v", seed, len(b), at, err)
		}
	}
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
		t.Errorf("seed %d: the file differs (%v)", seed, err)
	}
}

// TestWriteMappedWithoutPages: where the mapping has no page to write to, which is a signal (SIGBUS), and where there is no mapping, it
// does and says what a pwrite does and says.
func TestWriteMappedWithoutPages(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := durable.WriteMapped(f, []byte("far behind its end"), 3*4096+5); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(name)
	if want := 3*4096 + 5 + len("far behind its end"); err != nil || len(got) != want || !bytes.HasSuffix(got, []byte("\x00far behind its end")) || !bytes.HasPrefix(got, []byte("short\x00")) {
		t.Errorf("%d bytes, want %d (%v)", len(got), want, err)
	}
	f.Close()
	if err := durable.WriteMapped(f, []byte("x"), 0); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("a closed file: %v", err)
	}
	if f, err = os.Open(name); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := durable.WriteMapped(f, []byte("x"), 0); err == nil {
		t.Error("a file that is open for reading alone was written")
	}
}
