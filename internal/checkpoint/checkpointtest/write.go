// SPDX-License-Identifier: Apache-2.0

package checkpointtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"
)

// Spec says how big the pair is. All sizes in elements; Hidden and Intermediate are multiples of Group, and Heads divides
// Hidden.
type Spec struct {
	Seed         uint64
	Vocab        int
	Hidden       int
	Intermediate int
	Layers       int
	Heads        int
	KVHeads      int
	Group        int    // weights a scale
	Dtype        string // of the base: "BF16" or "F16"
	ShardSize    int64  // bytes; a tensor that is larger has a shard of its own
}

// Small is a pair of a few hundred kilobytes, for tests.
func Small() Spec {
	return Spec{Seed: 1, Vocab: 384, Hidden: 128, Intermediate: 256, Layers: 2, Heads: 4, KVHeads: 2, Group: 128, Dtype: "BF16", ShardSize: 256 << 10}
}

// Demo is a pair of 480 MB and 317 MB, for demonstrations over a real link.
func Demo() Spec {
	return Spec{Seed: 1, Vocab: 64000, Hidden: 1024, Intermediate: 4096, Layers: 7, Heads: 16, KVHeads: 8, Group: 128, Dtype: "BF16", ShardSize: 128 << 20}
}

// Base is where Write puts the base snapshot.
func Base(dir string) string { return filepath.Join(dir, "base") }

// AWQ is where Write puts the quantized snapshot.
func AWQ(dir string) string { return filepath.Join(dir, "awq") }

// ErrSpec reports a Spec that makes no model.
var ErrSpec = errors.New("checkpointtest: impossible spec")

func (s Spec) check() error {
	switch {
	case s.Vocab < 260 || s.Hidden <= 0 || s.Intermediate <= 0 || s.Layers <= 0 || s.Heads <= 0 || s.KVHeads <= 0 || s.Group <= 0 || s.ShardSize <= 0:
		return fmt.Errorf("%w: all sizes must be positive, Vocab at least 260", ErrSpec)
	case s.Hidden%s.Group != 0 || s.Intermediate%s.Group != 0 || s.Hidden%s.Heads != 0 || s.Heads%s.KVHeads != 0 || s.kvSize()%packFactor != 0:
		return fmt.Errorf("%w: Group must divide Hidden and Intermediate, Heads divide Hidden, KVHeads divide Heads", ErrSpec)
	case s.Dtype != "BF16" && s.Dtype != "F16":
		return fmt.Errorf("%w: dtype %q: want BF16 or F16", ErrSpec, s.Dtype)
	}
	return nil
}

func (s Spec) kvSize() int { return s.Hidden / s.Heads * s.KVHeads }

// param is one tensor of the model, before it is decided how it is stored.
type param struct {
	name   string // without ".weight"
	rows   int    // outputs
	cols   int    // inputs; 0 = a vector
	linear bool   // quantized in the AWQ snapshot
}

// params lists the model in the order in which it is stored.
func (s Spec) params() []param {
	list := []param{{"model.embed_tokens", s.Vocab, s.Hidden, false}}
	for i := range s.Layers {
		p := fmt.Sprintf("model.layers.%d.", i)
		list = append(list,
			param{p + "input_layernorm", s.Hidden, 0, false},
			param{p + "self_attn.q_proj", s.Hidden, s.Hidden, true},
			param{p + "self_attn.k_proj", s.kvSize(), s.Hidden, true},
			param{p + "self_attn.v_proj", s.kvSize(), s.Hidden, true},
			param{p + "self_attn.o_proj", s.Hidden, s.Hidden, true},
			param{p + "post_attention_layernorm", s.Hidden, 0, false},
			param{p + "mlp.gate_proj", s.Intermediate, s.Hidden, true},
			param{p + "mlp.up_proj", s.Intermediate, s.Hidden, true},
			param{p + "mlp.down_proj", s.Hidden, s.Intermediate, true},
		)
	}
	return append(list, param{"model.norm", s.Hidden, 0, false}, param{"lm_head", s.Vocab, s.Hidden, false})
}

// Write makes Base(dir) and AWQ(dir), which must not exist yet.
func Write(dir string, spec Spec) error {
	if err := spec.check(); err != nil {
		return err
	}
	base, err := create(Base(dir), spec, false)
	if err != nil {
		return err
	}
	defer base.close()
	awq, err := create(AWQ(dir), spec, true)
	if err != nil {
		return err
	}
	defer awq.close()
	if err := fill(spec, base, awq); err != nil {
		return err
	}
	return errors.Join(base.close(), awq.close())
}

// fill makes every weight once and writes it to both snapshots, on all cores.
func fill(spec Spec, base, awq *snapshot) error {
	g, tables := new(errgroup.Group), newTables(spec.Dtype)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, p := range spec.params() {
		if p.linear {
			g.Go(func() error { return writeLinear(spec, tables, p, base, awq) })
			continue
		}
		rows := p.rows
		if p.cols > 0 {
			rows = max(1, chunkWeights/p.cols) // a table of embeddings is shared out by rows
		}
		for row := 0; row < p.rows; row += rows {
			g.Go(func() error { return writePlain(spec, tables, p, row, min(rows, p.rows-row), base, awq) })
		}
	}
	return g.Wait()
}

// create makes a snapshot's directory, its small files and its empty shards.
func create(dir string, spec Spec, quantized bool) (*snapshot, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	for name, content := range papers(spec, quantized) {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return nil, err
		}
	}
	return newSnapshot(dir, spec, quantized)
}
