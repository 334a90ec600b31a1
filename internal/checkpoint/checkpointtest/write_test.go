// SPDX-License-Identifier: Apache-2.0

package checkpointtest_test

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"sluice/internal/checkpoint"
	"sluice/internal/checkpoint/checkpointtest"
)

func write(t *testing.T, spec checkpointtest.Spec) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pair")
	if err := checkpointtest.Write(dir, spec); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPairPassesInspection(t *testing.T) {
	for _, dtype := range []string{"BF16", "F16"} {
		spec := checkpointtest.Small()
		spec.Dtype = dtype
		dir := write(t, spec)
		base := os.DirFS(checkpointtest.Base(dir))
		for name, opt := range map[string]checkpoint.Options{
			checkpointtest.Base(dir): {Kind: "model-weights"},
			checkpointtest.AWQ(dir):  {Kind: "model-weights", Base: base},
		} {
			rep, err := checkpoint.Inspect(t.Context(), os.DirFS(name), opt)
			if err != nil {
				t.Fatal(err)
			}
			if rep.Verdict != checkpoint.Pass || len(rep.Findings) != 0 {
				t.Errorf("%s: %s %v", name, rep.Verdict, rep.Findings)
			}
		}
	}
}

// tensorBytes reads one tensor out of a sharded snapshot.
func tensorBytes(t *testing.T, dir, name string) ([]byte, checkpoint.Tensor) {
	t.Helper()
	shards, err := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range shards {
		f, err := os.Open(p)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, _ := f.Stat()
		s, err := checkpoint.ParseSafetensors(f, info.Size())
		if err != nil {
			t.Fatal(err)
		}
		if tensor, ok := s.Tensor(name); ok {
			b := make([]byte, tensor.End-tensor.Begin)
			if _, err := f.ReadAt(b, s.Data+tensor.Begin); err != nil {
				t.Fatal(err)
			}
			return b, tensor
		}
	}
	t.Fatalf("no tensor %s in %s", name, dir)
	return nil, checkpoint.Tensor{}
}

func bf16(b []byte, i int) float64 {
	return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b[2*i:])) << 16))
}

func half(b []byte, i int) float64 {
	h := binary.LittleEndian.Uint16(b[2*i:])
	exp, frac := int(h>>10&31), float64(h&0x3ff)
	v := math.Ldexp(1024+frac, exp-25)
	if exp == 0 {
		v = math.Ldexp(frac, -24)
	}
	if h&0x8000 != 0 {
		return -v
	}
	return v
}

// TestHalfStep unpacks by the reading rule of AutoAWQ (nibble k of a word holds column [0,2,4,6,1,3,5,7][k]), which is the
// inverse of the writer's table, and holds every weight against the base within half a step: the lineage bound.
func TestHalfStep(t *testing.T) {
	dir := write(t, checkpointtest.Small())
	for _, layer := range []string{"model.layers.0.self_attn.k_proj", "model.layers.1.mlp.down_proj"} {
		base, shape := tensorBytes(t, checkpointtest.Base(dir), layer+".weight")
		qw, _ := tensorBytes(t, checkpointtest.AWQ(dir), layer+".qweight")
		qz, _ := tensorBytes(t, checkpointtest.AWQ(dir), layer+".qzeros")
		sc, _ := tensorBytes(t, checkpointtest.AWQ(dir), layer+".scales")
		out, in := int(shape.Shape[0]), int(shape.Shape[1])
		order := [8]int{0, 2, 4, 6, 1, 3, 5, 7}
		used := map[uint32]bool{}
		for i := range in {
			for c := range out / 8 {
				w := binary.LittleEndian.Uint32(qw[4*(i*out/8+c):])
				z := binary.LittleEndian.Uint32(qz[4*(i/128*out/8+c):])
				for k, col := range order {
					o := 8*c + col
					code, zero := w>>(4*k)&15, z>>(4*k)&15
					used[code] = true
					s := half(sc, i/128*out+o)
					if got, want := s*(float64(code)-float64(zero)), bf16(base, o*in+i); math.Abs(got-want) > s/2*(1+1e-5) {
						t.Fatalf("%s[%d,%d]: %g, base %g, step %g", layer, o, i, got, want, s)
					}
				}
			}
		}
		if len(used) != 16 {
			t.Errorf("%s uses %d codes of 16", layer, len(used))
		}
	}
}

func TestPlainTensorsAreTheBaseCastToHalf(t *testing.T) {
	dir := write(t, checkpointtest.Small())
	for _, name := range []string{"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight", "model.layers.1.input_layernorm.weight"} {
		base, _ := tensorBytes(t, checkpointtest.Base(dir), name)
		awq, _ := tensorBytes(t, checkpointtest.AWQ(dir), name)
		for i := range len(base) / 2 {
			if b, h := bf16(base, i), half(awq, i); math.Abs(b-h) > math.Abs(b)/2048+1.0/(1<<25) {
				t.Fatalf("%s[%d]: base %g, half %g", name, i, b, h)
			}
		}
	}
}

// treeSum hashes a directory.
func treeSum(t *testing.T, dir string) [32]byte {
	t.Helper()
	h := sha256.New()
	err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(filepath.Join(dir, p))
		h.Write([]byte(p))
		h.Write(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return [32]byte(h.Sum(nil))
}

func TestDeterministicWhateverTheCores(t *testing.T) {
	spec := checkpointtest.Small()
	first := treeSum(t, write(t, spec))
	old := runtime.GOMAXPROCS(1)
	second := treeSum(t, write(t, spec))
	runtime.GOMAXPROCS(old)
	if first != second {
		t.Error("the number of cores changes the bytes")
	}
	spec.Seed++
	if treeSum(t, write(t, spec)) == first {
		t.Error("the seed changes nothing")
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, change := range map[string]func(*checkpointtest.Spec){
		"no layers": func(s *checkpointtest.Spec) { s.Layers = 0 },
		"group":     func(s *checkpointtest.Spec) { s.Hidden = 100 },
		"heads":     func(s *checkpointtest.Spec) { s.KVHeads = 3 },
		"dtype":     func(s *checkpointtest.Spec) { s.Dtype = "F32" },
	} {
		spec := checkpointtest.Small()
		change(&spec)
		if err := checkpointtest.Write(t.TempDir(), spec); !errors.Is(err, checkpointtest.ErrSpec) {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := write(t, checkpointtest.Small())
	if err := checkpointtest.Write(dir, checkpointtest.Small()); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("writes over a pair: %v", err)
	}
}
