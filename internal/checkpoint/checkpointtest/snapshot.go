// SPDX-License-Identifier: Apache-2.0

package checkpointtest

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// tensor is one stored tensor.
type tensor struct {
	name  string
	dtype string
	shape []int64
	size  int64 // bytes
}

func newTensor(name, dtype string, shape ...int64) tensor {
	t := tensor{name: name, dtype: dtype, shape: shape, size: 2}
	if dtype == "I32" {
		t.size = 4
	}
	for _, d := range shape {
		t.size *= d
	}
	return t
}

// tensors says how a parameter is stored.
func (p param) tensors(spec Spec, quantized bool) []tensor {
	dtype := spec.Dtype
	if quantized {
		dtype = "F16"
	}
	out, in := int64(p.rows), int64(p.cols)
	switch g := int64(spec.Group); {
	case p.cols == 0:
		return []tensor{newTensor(p.name+".weight", dtype, out)}
	case quantized && p.linear:
		return []tensor{
			newTensor(p.name+".qweight", "I32", in, out/packFactor),
			newTensor(p.name+".qzeros", "I32", in/g, out/packFactor),
			newTensor(p.name+".scales", "F16", in/g, out),
		}
	}
	return []tensor{newTensor(p.name+".weight", dtype, out, in)}
}

// place is where a tensor's bytes go.
type place struct {
	shard int
	off   int64
}

// snapshot is a directory with open shards; write may be called from several goroutines.
type snapshot struct {
	dir    string
	shards []*os.File
	places map[string]place
}

func newSnapshot(dir string, spec Spec, quantized bool) (*snapshot, error) {
	s := &snapshot{dir: dir, places: map[string]place{}}
	var shards [][]tensor
	size, total := int64(0), int64(0)
	for _, p := range spec.params() {
		for _, t := range p.tensors(spec, quantized) {
			if len(shards) == 0 || size > 0 && size+t.size > spec.ShardSize {
				shards, size = append(shards, nil), 0
			}
			shards[len(shards)-1] = append(shards[len(shards)-1], t)
			size, total = size+t.size, total+t.size
		}
	}
	weightMap := map[string]string{}
	for i, list := range shards {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, len(shards))
		for _, t := range list {
			weightMap[t.name] = name
		}
		if err := s.open(name, list); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	index := map[string]any{"metadata": map[string]any{"total_size": total}, "weight_map": weightMap}
	return s, os.WriteFile(filepath.Join(dir, "model.safetensors.index.json"), indented(index), 0o644)
}

// open makes one shard with its header and its final length.
func (s *snapshot) open(name string, list []tensor) error {
	f, err := os.Create(filepath.Join(s.dir, name))
	if err != nil {
		return err
	}
	s.shards = append(s.shards, f)
	header, data := header(list)
	for _, t := range list {
		s.places[t.name] = place{len(s.shards) - 1, int64(len(header)) + data[t.name]}
	}
	last := list[len(list)-1]
	if err := f.Truncate(int64(len(header)) + data[last.name] + last.size); err != nil {
		return err
	}
	_, err = f.WriteAt(header, 0)
	return err
}

// header is the length and the table of contents, padded with spaces to a multiple of eight bytes as safetensors' own writer
// does; data holds the offset of every tensor behind it.
func header(list []tensor) (h []byte, data map[string]int64) {
	var b strings.Builder
	b.WriteString(`{"__metadata__":{"format":"pt"}`)
	data = map[string]int64{}
	off := int64(0)
	for _, t := range list {
		data[t.name] = off
		shape, _ := json.Marshal(t.shape)
		fmt.Fprintf(&b, `,%q:{"dtype":%q,"shape":%s,"data_offsets":[%d,%d]}`, t.name, t.dtype, shape, off, off+t.size)
		off += t.size
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	return append(binary.LittleEndian.AppendUint64(nil, uint64(b.Len())), b.String()...), data
}

func (s *snapshot) write(name string, off int64, b []byte) error {
	p, ok := s.places[name]
	if !ok {
		return fmt.Errorf("checkpointtest: no place for %s", name)
	}
	_, err := s.shards[p.shard].WriteAt(b, p.off+off)
	return err
}

// close closes the shards, once.
func (s *snapshot) close() error {
	var errs []error
	for _, f := range s.shards {
		errs = append(errs, f.Close())
	}
	s.shards = nil
	return errors.Join(errs...)
}

func indented(v any) []byte {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(err) // our own maps of strings and numbers
	}
	return append(b, '\n')
}
