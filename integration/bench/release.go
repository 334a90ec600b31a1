// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"sluice/integration/lab"
	"sluice/internal/console"
	"sluice/internal/strictyaml"
)

// sealed is a release that waits to be sent.
type sealed struct{ dir, id string }

// release seals a release of the payload that a setup wants. It is made once for all setups that want the same.
func (b *bench) release(ctx context.Context, s setup) (dir, id string, err error) {
	key := s.key()
	if r, ok := b.sealed[key]; ok {
		return r.dir, r.id, nil
	}
	if err := b.forgetOthers(s); err != nil {
		return "", "", err
	}
	b.seq++
	dir = b.Path("release-" + key)
	if err := makePayload(filepath.Join(dir, "payload"), s); err != nil {
		return "", "", err
	}
	env, err := b.SealData(ctx, dir, "data/bench", b.seq, lab.Security()[:2]...)
	if err == nil {
		err = b.settle()
	}
	if err != nil {
		return "", "", err
	}
	b.sealed[key] = sealed{dir, env.ID.String()}
	return dir, env.ID.String(), nil
}

// settle waits until what was written is on the disk: half a minute after it was, the kernel writes it all at once, and a receiver that
// shares the disk, as none does behind a diode, would have to wait for that. With the release just made, every long transfer met it.
func (b *bench) settle() error {
	dir, err := os.Open(b.Dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(dir.Fd())), dir.Close())
}

// lacking says what a setup lacks of the disk, if it does. The high side has every byte once (spool and registry share them), and the
// repair symbols of what was lost; so has the low side, but for sparse files.
func (b *bench) lacking(s setup) (string, error) {
	if err := b.forgetOthers(s); err != nil {
		return "", err
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(b.Dir, &disk); err != nil {
		return "", err
	}
	free := strictyaml.Bytes(int64(disk.Bavail) * disk.Bsize)
	need := s.size + s.size/64 + 1<<30
	if _, made := b.sealed[s.key()]; s.files > 0 && !made {
		need += s.size
	}
	if free >= need {
		return "", nil
	}
	return fmt.Sprintf("%s has %s free, %s are needed", b.Dir, console.Bytes(int64(free)), console.Bytes(int64(need))), nil
}

// key tells payloads apart.
func (s setup) key() string { return fmt.Sprintf("%d-%d", s.size, s.files) }

// forgetOthers removes the releases of other payloads: a disk holds one of the large ones at a time.
func (b *bench) forgetOthers(s setup) (err error) {
	for key, r := range b.sealed {
		if key != s.key() {
			err = errors.Join(err, os.RemoveAll(r.dir))
			delete(b.sealed, key)
		}
	}
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
