// SPDX-License-Identifier: Apache-2.0

package merkle_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"sluice/internal/merkle"
)

// TestFrontier holds the walk against tlog's own stored hashes and root, at every size up to past a power of two.
func TestFrontier(t *testing.T) {
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(at []int64) (out []tlog.Hash, err error) {
		for _, i := range at {
			out = append(out, stored[i])
		}
		return out, nil
	})
	var f merkle.Frontier
	for n := range int64(300) {
		if root, err := tlog.TreeHash(n, reader); err != nil || root != f.Root() || f.Size() != n {
			t.Fatalf("size %d: root %v, tlog has %v, %v", n, f.Root(), root, err)
		}
		leaf := tlog.RecordHash([]byte(strconv.FormatInt(n, 10)))
		want, err := tlog.StoredHashesForRecordHash(n, leaf, reader)
		if err != nil {
			t.Fatal(err)
		}
		got := f.Append(leaf)
		if len(got) != len(want) {
			t.Fatalf("leaf %d completes %d hashes, tlog stores %d", n, len(got), len(want))
		}
		for i := range want {
			if got[i] != want[i] {
				t.Fatalf("leaf %d: hash %d differs", n, i)
			}
		}
		stored = append(stored, want...)
	}
}

// vector is one case of transparency-dev/merkle, either kind.
type vector struct {
	LeafIdx, TreeSize, Size1, Size2 uint64 // some are 2^64 - 1
	Root, LeafHash, Root1, Root2    string
	Proof                           []string
	Desc                            string
	WantErr                         bool
}

// TestForeignVectors runs the inclusion and consistency cases of transparency-dev/merkle through the checks that Sluice uses. testdata/README
// says where they are from. An auditor refuses consistency with the empty tree: it proves nothing.
func TestForeignVectors(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "vectors.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string][]vector
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	if len(all["inclusion"]) < 90 || len(all["consistency"]) < 90 {
		t.Fatalf("%d and %d vectors only", len(all["inclusion"]), len(all["consistency"]))
	}
	for _, v := range all["inclusion"] {
		err := foreign(v.Proof, []string{v.Root, v.LeafHash}, func(p, h []tlog.Hash) error {
			return tlog.CheckRecord(p, int64(v.TreeSize), h[0], int64(v.LeafIdx), h[1])
		})
		if (err != nil) != v.WantErr {
			t.Errorf("inclusion %d of %d, %s: %v, want an error: %v", v.LeafIdx, v.TreeSize, v.Desc, err, v.WantErr)
		}
	}
	for _, v := range all["consistency"] {
		err := foreign(v.Proof, []string{v.Root2, v.Root1}, func(p, h []tlog.Hash) error {
			return tlog.CheckTree(p, int64(v.Size2), h[0], int64(v.Size1), h[1])
		})
		noRoot := len(v.Root1) < 44 // sizes and roots are equal, and the roots no hashes: a checkpoint cannot say so
		if (err != nil) != v.WantErr && !noRoot {
			t.Errorf("consistency %d to %d, %s: %v, want an error: %v", v.Size1, v.Size2, v.Desc, err, v.WantErr)
		}
	}
}

// foreign refuses what is no hash, as the parsers of internal/audit do, and checks the rest.
func foreign(proof, others []string, check func(proof, others []tlog.Hash) error) error {
	p, perr := hashes(proof)
	o, oerr := hashes(others)
	if err := errors.Join(perr, oerr); err != nil {
		return err
	}
	return check(p, o)
}

func hashes(list []string) (out []tlog.Hash, err error) {
	for _, s := range list {
		h, err := tlog.ParseHash(s)
		if err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}
