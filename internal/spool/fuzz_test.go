// SPDX-License-Identifier: Apache-2.0

package spool_test

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"strconv"
	"testing"

	"sluice/internal/spool"
	"sluice/pkg/fec"
)

// entry is a whole entry of the record.
func entry(kind, sbn uint32) []byte {
	b := make([]byte, 16)
	binary.BigEndian.PutUint32(b, kind)
	binary.BigEndian.PutUint32(b[4:], sbn)
	binary.BigEndian.PutUint32(b[12:], crc32.Checksum(b[:12], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

// oracle replays a record as the package comment has it: whole entries in order, up to the first that is not whole.
func oracle(b []byte, spans int) (complete int) {
	state := make(map[uint32]bool)
	for ; len(b) >= 16; b = b[16:] {
		kind, sbn := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
		if kind < 1 || kind > 2 || binary.BigEndian.Uint32(b[12:]) != crc32.Checksum(b[:12], crc32.MakeTable(crc32.Castagnoli)) {
			break
		}
		if int64(sbn) < int64(spans) {
			state[sbn] = kind == 1
		}
	}
	for _, yes := range state {
		if yes {
			complete++
		}
	}
	return complete
}

// FuzzRecord: whatever follows the header of spool.record, Open neither fails nor believes more than it says.
func FuzzRecord(f *testing.F) {
	f.Add([]byte{})
	f.Add(entry(1, 0))
	f.Add(append(entry(1, 1), entry(2, 1)...))
	f.Add(append(entry(1, 1<<32-1), entry(1, 2)...))
	f.Add(append(entry(1, 2), 1, 2, 3))
	f.Add(append(append(entry(1, 0), make([]byte, 16)...), entry(1, 1)...))
	f.Add(entry(3, 0))
	g, err := fec.New(192*3*10, 10, 1)
	if err != nil {
		f.Fatal(err)
	}
	files := []spool.File{{Name: "a", Size: g.ObjectSize}}
	// The folder is made once: what an execution leaves in it, the next does not believe, since it begins in another boot.
	dir, err := os.MkdirTemp("/dev/shm", "spool-fuzz-")
	if err != nil {
		f.Skip(err)
	}
	f.Cleanup(func() { os.RemoveAll(dir) })
	root := openRoot(f, dir)
	boot := 0
	open := func(t testing.TB) *spool.Object {
		boot++
		o, err := spool.Open(root, files, g, spool.Options{BootID: strconv.Itoa(boot)})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	if err := open(f).Abandon(); err != nil {
		f.Fatal(err)
	}
	header, err := os.ReadFile(dir + "/spool.record")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, tail []byte) {
		if err := os.WriteFile(dir+"/spool.record", append(header[:len(header):len(header)], tail...), 0o600); err != nil {
			t.Fatal(err)
		}
		o := open(t)
		defer o.Abandon() // as a kill leaves it
		if got, want := o.Progress().SpansComplete, oracle(tail, 3); got != want {
			t.Fatalf("%d spans are believed, the record says %d", got, want)
		}
	})
}
