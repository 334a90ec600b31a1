// SPDX-License-Identifier: Apache-2.0

package site_test

import (
	"bytes"
	"crypto/sha256"
	"io/fs"
	"os"
	"testing"

	"sluice/internal/bulletin"
	"sluice/internal/site"
	"sluice/internal/site/sitetest"
	"sluice/pkg/mofn"
)

// FuzzTake: whatever a bulletin holds, what is known only grows, and nothing counts that was not signed: the real people of this
// world signed one version, two orders and two snapshots, and there is nothing else to be known.
func FuzzTake(f *testing.F) {
	w := sitetest.New(f)
	store, first := w.First(smallest)
	two := w.Next(first, nil, "alice")
	stop := w.Order(first, "alice", sitetest.Stop(mofn.KindStream, "models/*"))
	stranger := w.Order(first, "mallory", nil)
	add := func(b *bulletin.Bulletin) {
		data, err := b.Bytes()
		must(f, err)
		f.Add(data[:len(data)-44])
	}
	add(w.Bulletin(1, [][]byte{first}, nil))
	add(w.Bulletin(7, [][]byte{first, two}, [][]byte{stop, stranger}))
	mixed := w.Bulletin(7, [][]byte{first, two}, [][]byte{stop})
	mixed.Orders = w.Sorted([][]byte{stop, stranger})
	add(mixed)
	mixed.Trust = [][]byte{first, first}
	add(mixed)
	second := w.Payload(two)
	signed := map[string]bool{mofn.OrderID(w.Payload(stop)): true}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := bulletin.Read(bytes.NewReader(sealed(data)))
		if err != nil {
			return
		}
		l := &lab{World: w, t: t, dir: t.TempDir(), quarantine: 3 * day, store: store, first: first, now: sitetest.Start().Add(day)}
		l.write = func(dir *os.Root, name string, data []byte, perm fs.FileMode) error {
			return dir.WriteFile(name, data, perm)
		}
		l.reopen()
		var before site.Numbers
		for range 2 {
			got := l.take(b)
			n := l.site.Numbers()
			if n.Trust < before.Trust || n.Counter < before.Counter || n.Orders < before.Orders {
				t.Fatalf("%+v after %+v", n, before)
			}
			if n.Trust > 2 || n.Orders > 1 || n.Counter != 0 && n.Counter != 1 && n.Counter != 7 || l.site.Trust().Object.Version != 1 {
				t.Fatalf("something counts that nobody signed: %+v", n)
			}
			for _, o := range l.site.Standing().Stops {
				if !signed[o.ID] {
					t.Fatalf("a stop that nobody ordered: %+v", o)
				}
			}
			if n.Trust == 2 && l.site.Newest().Fingerprint != mofn.Fingerprint(second) {
				t.Fatal("a version 2 that nobody signed")
			}
			if got.Snapshot != nil && b.Matches(got.Snapshot) != nil {
				t.Fatal("a snapshot of another bulletin")
			}
			before = n
			l.reopen()
			if l.site.Numbers() != before {
				t.Fatalf("opened: %+v, want %+v", l.site.Numbers(), before)
			}
		}
	})
}

// sealed adds the end section: the fuzzer does not find digests.
func sealed(data []byte) []byte {
	out := append(bytes.Clone(data), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32)
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

// BenchmarkTake takes a bulletin of 256 versions, anew and once more.
func BenchmarkTake(b *testing.B) {
	l := newLab(b, smallest)
	chain := [][]byte{l.first}
	for len(chain) < 256 {
		chain = append(chain, l.Next(chain[len(chain)-1], nil, "alice"))
	}
	data, err := l.Bulletin(1, chain, nil).Bytes()
	must(b, err)
	fresh := func() *lab {
		n := &lab{World: l.World, t: b, dir: b.TempDir(), quarantine: 3 * day, store: l.store, first: l.first, now: l.now}
		n.quick()
		return n
	}
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			_, err := bulletin.Read(bytes.NewReader(data))
			must(b, err)
		}
	})
	read, err := bulletin.Read(bytes.NewReader(data))
	must(b, err)
	b.Run("new", func(b *testing.B) {
		for b.Loop() {
			if got := fresh().take(read); len(got.Trust) != 255 {
				b.Fatal(got.Problems)
			}
		}
	})
	known := fresh()
	known.take(read)
	b.Run("known", func(b *testing.B) {
		for b.Loop() {
			known.take(read)
		}
	})
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			known.reopen()
		}
	})
}
