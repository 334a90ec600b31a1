// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"os"
	"sync/atomic"
)

const (
	// mapFrom is the size from which on a file is mapped: what is smaller costs more to map than to copy.
	mapFrom = 1 << 20

	// mapChunk is how much of a file is brought into memory, and given back, at once: a large page of amd64 and arm64, which
	// the kernel maps, and takes out, in one piece where the page cache has such.
	mapChunk = 2 << 20
)

// mapping shows a file where it lies in the page cache. A mapped page that its file has no longer, or that its disk does not
// give, kills who touches it. So each chunk is brought into memory first, where that is an error, and each view asks first how
// long the file is. Between that and the look a file may still be cut short, or a page be evicted and not come again: the link
// guards what it seals, and what it encodes at once it does not. Then the process dies, is started again, and checks the
// payload before it sends.
type mapping struct {
	file    *os.File
	memory  []byte
	present []atomic.Bool // of each chunk: it was brought into memory, and not given back
	dropped int           // chunks before it were given back; the caller of forget holds a lock
}

// newMapping maps a file of that size, and owns it. It is nil, and the file closed, where that cannot be.
func newMapping(f *os.File, size int64) *mapping {
	memory, err := mapFile(f, size)
	if err != nil {
		f.Close()
		return nil
	}
	return &mapping{file: f, memory: memory, present: make([]atomic.Bool, (size+mapChunk-1)/mapChunk)}
}

// view shows n bytes from off on; nil: reading them says why not.
func (m *mapping) view(off int64, n int) []byte {
	end := off + int64(n)
	for chunk := off / mapChunk; chunk*mapChunk < end; chunk++ {
		if m.present[chunk].Load() {
			continue
		}
		if populate(m.memory[chunk*mapChunk:min((chunk+1)*mapChunk, int64(len(m.memory)))]) != nil {
			return nil
		}
		m.present[chunk].Store(true)
	}
	if !reaches(m.file, end) {
		return nil
	}
	return m.memory[off:end:end]
}

// forget gives back the chunks that end before off. The page cache keeps them.
func (m *mapping) forget(off int64) {
	if m == nil || off/mapChunk <= int64(m.dropped) {
		return
	}
	from := m.dropped
	m.dropped = int(off / mapChunk)
	for chunk := from; chunk < m.dropped; chunk++ {
		m.present[chunk].Store(false)
	}
	drop(m.memory[from*mapChunk : m.dropped*mapChunk])
}

// close ends the mapping: nobody may look any more.
func (m *mapping) close() {
	if m != nil {
		unmap(m.memory)
		m.file.Close()
	}
}
