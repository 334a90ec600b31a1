// SPDX-License-Identifier: Apache-2.0

package recv

import (
	"bytes"
	"os"
	"testing"

	"go.uber.org/zap"

	"sluice/internal/spool"
	"sluice/pkg/fec"
)

// TestRound: an assembly that ends before it is whole goes on in the same round, whoever interrupted it; one that was whole and is
// opened again begins another, for then something in it was found damaged.
func TestRound(t *testing.T) {
	state, err := os.OpenRoot(t.TempDir())
	must(t, err)
	defer state.Close()
	must(t, state.Mkdir("spool", 0o700))
	l := NewLocal(state, zap.NewNop())
	release, cut, sizes := [32]byte{1}, Cut{1408, testGroups}, []int64{100_000, 0, 50_000}
	g, err := fec.New(150_000, cut.SymbolSize, cut.Groups)
	must(t, err)
	open := func() Assembly {
		a, err := l.Assemble(t.Context(), "spool", release, sizes, cut)
		must(t, err)
		return a
	}
	p := l.payload(Place{Release: release, Cut: cut})
	pass := linked{p, nil}
	put := func(from, to int64) {
		for i := from; i < to; i++ {
			if stored, err := pass.Put(0, uint32(i), make([]byte, cut.SymbolSize)); err != nil || !stored {
				t.Fatalf("symbol %d: %v, %v", i, stored, err)
			}
		}
	}
	round := func(want int64) {
		t.Helper()
		if got := pass.Round(); got != want {
			t.Errorf("round %d, want %d", got, want)
		}
	}
	a := open()
	put(0, 50)
	must(t, a.Close())
	round(0)
	a = open()
	put(50, g.Symbols())
	<-a.Done()
	round(0)
	must(t, a.Close())
	round(1)
	dir, err := state.OpenRoot("spool")
	must(t, err)
	defer dir.Close()
	obj, err := OpenObject(dir, sizes, cut, spool.Options{})
	must(t, err)
	must(t, obj.Forget(0, 1408*10))
	must(t, obj.Close())
	a = open()
	put(0, 10)
	<-a.Done()
	round(1)
	must(t, a.Close())
	got, err := state.ReadFile("spool/" + FileName(0))
	must(t, err)
	if !bytes.Equal(got, make([]byte, 100_000)) {
		t.Error("the file is not what was put")
	}
}
