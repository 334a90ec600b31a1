// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"sluice/pkg/envelope"
)

func TestRepairRows(t *testing.T) {
	for _, c := range []struct {
		percent float64
		rows    int
	}{{0.1, 1}, {0.5, 1}, {1, 2}, {10, 20}, {20, 39}, {33, 64}, {99, 64}} {
		if got := RepairRows(c.percent); got != c.rows {
			t.Errorf("RepairRows(%v) = %d, want %d", c.percent, got, c.rows)
		}
	}
}

// layout writes files of the given sizes and returns their statement and their concatenation.
func layout(t *testing.T, random *rand.Rand, sizes []int) (dir string, st *envelope.Statement, all []byte) {
	t.Helper()
	dir, st = t.TempDir(), &envelope.Statement{}
	for i, size := range sizes {
		name := fmt.Sprintf("d%d/f%04d", i%3, i)
		b := make([]byte, size)
		for k := range b {
			b[k] = byte(random.Uint32())
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, b, 0o644)); err != nil {
			t.Fatal(err)
		}
		s := envelope.Subject{Name: name}
		s.Annotations.Size = int64(size)
		st.Subjects = append(st.Subjects, s)
		all = append(all, b...)
	}
	return dir, st, all
}

// TestPayloadReader: random reads over random layouts, empty files among them, are those of the concatenation.
func TestPayloadReader(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	layouts := [][]int{{}, {0}, {0, 0, 0}, {1}, {0, 5, 0}, make([]int, maxOpenPayload+50)}
	for i := range layouts[5] {
		layouts[5][i] = random.IntN(3)
	}
	for range 20 {
		sizes := make([]int, random.IntN(12))
		for i := range sizes {
			sizes[i] = random.IntN(4) * random.IntN(300)
		}
		layouts = append(layouts, sizes)
	}
	for _, sizes := range layouts {
		dir, st, all := layout(t, random, sizes)
		r, err := openPayload(dir, st)
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.NewReader(all)
		for range 300 {
			off := int64(random.IntN(len(all) + 2))
			a := make([]byte, random.IntN(len(all)+8))
			b := make([]byte, len(a))
			n, err := r.ReadAt(a, off)
			m, werr := want.ReadAt(b, off)
			if len(a) == 0 {
				werr = nil
			}
			if n != m || !errors.Is(err, werr) || !bytes.Equal(a[:n], b[:m]) {
				t.Fatalf("seed %d: sizes %v: ReadAt(%d bytes, %d) = %d, %v; want %d, %v", seed, sizes, len(a), off, n, err, m, werr)
			}
			if len(r.open) > maxOpenPayload {
				t.Fatalf("%d files are open", len(r.open))
			}
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPayloadReaderChanged: a file that shrank or is gone is an error, never zeros and never a short object.
func TestPayloadReaderChanged(t *testing.T) {
	dir, st, all := layout(t, rand.New(rand.NewPCG(1, 1)), []int{100, 100, 100})
	r, err := openPayload(dir, st)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := os.Truncate(filepath.Join(dir, "d1", "f0001"), 60); err != nil {
		t.Fatal(err)
	}
	n, err := r.ReadAt(make([]byte, len(all)), 0)
	if n != 160 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file that shrank: %d, %v", n, err)
	}
	if err := os.Remove(filepath.Join(dir, "d2", "f0002")); err != nil {
		t.Fatal(err)
	}
	if n, err := r.ReadAt(make([]byte, 10), 250); n != 0 || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is gone: %d, %v", n, err)
	}
}

// TestPayloadReaderLink: a link that was put in the place of a file leads nowhere.
func TestPayloadReaderLink(t *testing.T) {
	dir, st, _ := layout(t, rand.New(rand.NewPCG(1, 1)), []int{4})
	secret := filepath.Join(t.TempDir(), "secret")
	path := filepath.Join(dir, "d0", "f0000")
	if err := errors.Join(os.WriteFile(secret, []byte("1234"), 0o600), os.Remove(path), os.Symlink(secret, path)); err != nil {
		t.Fatal(err)
	}
	r, err := openPayload(dir, st)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if n, err := r.ReadAt(make([]byte, 4), 0); err == nil {
		t.Errorf("%d bytes were read from outside", n)
	}
}

// TestAir: heartbeats give way to a release at once, stay away while it has the link, and come back.
func TestAir(t *testing.T) {
	var a air
	began, ended := make(chan struct{}), make(chan bool, 1)
	heartbeat := func(ctx context.Context) { began <- struct{}{}; <-ctx.Done() }
	for range 3 {
		go func() { ended <- a.rest(t.Context(), heartbeat) }()
		<-began
		release := a.take() // never comes back if the heartbeats are not stopped
		if !<-ended {
			t.Error("the heartbeats did not run")
		}
		if a.rest(t.Context(), func(context.Context) { t.Error("heartbeats beside a release") }) {
			t.Error("heartbeats while a release has the link")
		}
		release()
	}
}
