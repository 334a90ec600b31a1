// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sluice/integration/lab"
)

// sealed is a release that waits to be sent.
type sealed struct{ dir, id string }

// release seals a release of the payload that a setup wants. It is made once for all setups that want the same.
func (b *bench) release(ctx context.Context, s setup) (dir, id string, err error) {
	key := fmt.Sprintf("%d-%d", s.size, s.files)
	if r, ok := b.sealed[key]; ok {
		return r.dir, r.id, nil
	}
	if err := b.forget(); err != nil { // a disk holds one of the large ones at a time
		return "", "", err
	}
	b.seq++
	dir = b.Path("release-" + key)
	if err := makePayload(filepath.Join(dir, "payload"), s); err != nil {
		return "", "", err
	}
	env, err := b.SealData(ctx, dir, "data/bench", b.seq, lab.Security()[:2]...)
	if err != nil {
		return "", "", err
	}
	b.sealed[key] = sealed{dir, env.ID.String()}
	return dir, env.ID.String(), nil
}

// forget removes the releases made so far.
func (b *bench) forget() (err error) {
	for _, r := range b.sealed {
		err = errors.Join(err, os.RemoveAll(r.dir))
	}
	clear(b.sealed)
	return err
}

func makePayload(dir string, s setup) error {
	if s.files > 1 {
		return manyFiles(dir, s.files)
	}
	name := filepath.Join(dir, "data.safetensors")
	if s.files == 1 {
		return lab.RandomFile(name, int64(s.size), 1)
	}
	return lab.SparseFile(name, int64(s.size)) // of zeros: it takes no space here, and all of it on the high side
}

// manyFiles writes small files, a thousand a folder.
func manyFiles(dir string, n int) error {
	for i := range n {
		name := filepath.Join(dir, fmt.Sprintf("%03d", i/1000), fmt.Sprintf("%03d.safetensors", i%1000))
		if err := lab.RandomFile(name, smallFile, uint64(i)); err != nil {
			return err
		}
	}
	return nil
}
