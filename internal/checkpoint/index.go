// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

const indexSuffix = ".safetensors.index.json"

// shardIndex is what an index file says.
type shardIndex struct {
	path      string
	dir       string
	total     float64           // metadata.total_size; NaN when absent
	weightMap map[string]string // tensor -> shard
}

// indexes holds every index against the shards beside it, and every shard against an index.
func (in *inspector) indexes() error {
	named := map[string]bool{} // shards that an index names
	indexed := map[string]bool{}
	for _, p := range slices.Sorted(maps.Keys(in.kinds)) {
		if !strings.HasSuffix(p, indexSuffix) || in.kinds[p] != kindJSON {
			continue
		}
		idx, err := in.readIndex(p)
		if err != nil {
			return err
		}
		indexed[idx.dir] = true
		in.checkIndex(idx, named)
	}
	in.unnamed(named, indexed)
	return nil
}

// readIndex decodes an index that checkJSON has passed (no duplicate keys).
func (in *inspector) readIndex(p string) (*shardIndex, error) {
	idx := &shardIndex{path: p, dir: path.Dir(p), total: math.NaN(), weightMap: map[string]string{}}
	err := with(in.fsys, p, func(f *file) error {
		_, err := scanJSON(f.all(), func(m member) {
			switch where := strings.Join(m.Path, "\x00"); {
			case where == "weight_map" && len(m.Path) == 1:
				if s, ok := m.Value.(string); ok {
					idx.weightMap[m.Key] = s
				} else {
					in.refuse(RuleIndex, p, "its author must correct it", "tensor %.80q names no shard", m.Key)
				}
			case where == "metadata" && m.Key == "total_size":
				n, _ := m.Value.(json.Number)
				if v, err := strconv.ParseFloat(n.String(), 64); err == nil {
					idx.total = v
				}
			}
		})
		return err
	})
	if err != nil && in.refusedFile(p) {
		return idx, nil
	}
	return idx, err
}

// refusedFile tells whether a finding against the file exists already.
func (in *inspector) refusedFile(p string) bool {
	return slices.ContainsFunc(in.rep.Findings, func(f Finding) bool { return f.File == p })
}

func (in *inspector) checkIndex(idx *shardIndex, named map[string]bool) {
	const fix = "mirror the whole repository at one commit"
	if len(idx.weightMap) == 0 {
		in.refuse(RuleIndex, idx.path, fix, "names no tensor")
	}
	shards := map[string]bool{}
	for _, tensor := range slices.Sorted(maps.Keys(idx.weightMap)) {
		shard := idx.weightMap[tensor]
		full := path.Join(idx.dir, shard)
		if shard != path.Base(shard) || shard == ".." || shard == "." {
			in.refuse(RuleIndex, idx.path, fix, "tensor %.80q lies in %.80q, outside of its directory", tensor, shard)
			continue
		}
		if !shards[full] {
			shards[full], named[full] = true, true
			if in.tensors[full] == nil {
				in.refuse(RuleIndex, idx.path, fix, "shard %s is missing or refused", shard)
			}
		}
		if s := in.tensors[full]; s != nil {
			if _, ok := s.Tensor(tensor); !ok {
				in.refuse(RuleIndex, idx.path, fix, "tensor %.80q is not in %s", tensor, shard)
			}
		}
	}
	in.checkShards(idx, shards)
}

// checkShards looks the other way: tensors in a shard that the index does not put there, and the sum of sizes.
func (in *inspector) checkShards(idx *shardIndex, shards map[string]bool) {
	const fix = "mirror the whole repository at one commit"
	total := int64(0)
	for _, p := range slices.Sorted(maps.Keys(shards)) {
		s := in.tensors[p]
		if s == nil {
			continue
		}
		for _, t := range s.Tensors {
			total += t.End - t.Begin
			if idx.weightMap[t.Name] != path.Base(p) {
				in.refuse(RuleIndex, p, fix, "tensor %.80q is not named by %s", t.Name, path.Base(idx.path))
			}
		}
	}
	switch {
	case math.IsNaN(idx.total):
		in.remark(RuleIndex, idx.path, "nothing; older writers leave it out", "no metadata.total_size")
	case idx.total != float64(total):
		in.refuse(RuleIndex, idx.path, fix, "total_size is %s, the shards hold %d bytes", fmt.Sprintf("%.0f", idx.total), total)
	}
}

// unnamed refuses shards that no index names: beside an index, or one of several without one.
func (in *inspector) unnamed(named, indexed map[string]bool) {
	alone := map[string]int{}
	for p := range in.tensors {
		alone[path.Dir(p)]++
	}
	for _, p := range slices.Sorted(maps.Keys(in.tensors)) {
		dir := path.Dir(p)
		if !named[p] && (indexed[dir] || alone[dir] > 1) {
			in.refuse(RuleIndex, p, "keep it out with the mirror's ignore patterns, or mirror the index", "no index names this file")
		}
	}
}

// layers demands that every layer which config.json announces has tensors.
func (in *inspector) layers(cfg *config) {
	seen := map[int64]bool{}
	for _, s := range in.tensors {
		for _, t := range s.Tensors {
			if rest, ok := strings.CutPrefix(t.Name, "model.layers."); ok {
				digits, _, _ := strings.Cut(rest, ".")
				if n, err := strconv.ParseInt(digits, 10, 32); err == nil {
					seen[n] = true
				}
			}
		}
	}
	if len(seen) == 0 || cfg.Layers <= 0 || cfg.Layers > maxTensors {
		return
	}
	for n := range cfg.Layers {
		if !seen[n] {
			in.refuse(RuleIndex, "", "mirror the whole repository at one commit", "layer %d of %d has no tensors", n, cfg.Layers)
			return // one is enough; config.json may claim a million
		}
	}
}
