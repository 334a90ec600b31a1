// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"sluice/internal/durable"
	"sluice/pkg/fec"
)

const (
	mapName = "spool.map"
	// mapMagic is compared as a number, so that a map written with another byte order is not believed.
	mapMagic = 0x534c_4d41_5030_3101
	// headerWords keeps the header on a page of its own.
	headerWords = 512
)

// Words of the header.
const (
	wordMagic     = iota
	wordDigest                     // four words: what the object is
	wordBoot      = wordDigest + 4 // two words: the boot in which the bits were set
	wordClean     = wordBoot + 2   // 1: all that the bits say is on stable storage
	wordRecovered = wordClean + 1  // symbols that the code recovered
	wordRepair    = wordRecovered + 1
)

// bitmap is spool.map in memory, shared with the kernel: a set bit outlives the process. In file order, in words of
// the machine:
//
//	header | source bits: 192*G a span | repair bits: 64*G a span, row r of group g at r*D+g
//
// A span starts at a word, as 192 and 64 are multiples of 64.
type bitmap struct {
	file   *os.File
	raw    []byte
	words  []uint64 // raw, as words
	source []uint64
	repair []uint64
	groups int
}

// mapWords returns the number of words of source and repair bits.
func mapWords(g fec.Geometry) (source, repair int64) {
	spans := int64(g.Spans())
	return spans * fec.K / 64 * int64(g.Groups), spans * fec.MaxRows / 64 * int64(g.Groups)
}

func mapBytes(g fec.Geometry) int64 {
	source, repair := mapWords(g)
	return (headerWords + source + repair) * 8
}

// openBitmap opens or creates spool.map, reserves its blocks (a mapped page without a block would kill the
// process when the disk is full) and maps it. The bits are whatever they were.
func openBitmap(root *os.Root, g fec.Geometry) (_ *bitmap, err error) {
	f, err := root.OpenFile(mapName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open bitmaps: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	size := mapBytes(g)
	if info, err := f.Stat(); err != nil || info.Size() > size {
		if err := errors.Join(err, f.Truncate(0)); err != nil { // another object's: its header will not match anyway
			return nil, fmt.Errorf("bitmaps: %w", err)
		}
	}
	if err := durable.Allocate(f, size); err != nil {
		return nil, fmt.Errorf("bitmaps: %w", err)
	}
	raw, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map bitmaps: %w", err)
	}
	words := unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(raw))), size/8) // a mapping starts at a page
	source, _ := mapWords(g)
	return &bitmap{
		file: f, raw: raw, words: words, groups: g.Groups,
		source: words[headerWords : headerWords+source], repair: words[headerWords+source:],
	}, nil
}

// bootKey shortens a boot id to two words.
func bootKey(bootID string) (key [2]uint64) {
	sum := sha256.Sum256([]byte(bootID))
	for i, b := range sum[:16] {
		key[i/8] = key[i/8]<<8 | uint64(b)
	}
	return key
}

func digestWords(digest [32]byte) (w [4]uint64) {
	for i, b := range digest {
		w[i/8] = w[i/8]<<8 | uint64(b)
	}
	return w
}

// trusted tells whether the bits can be believed: they are of this object, and the process that set them died in this
// boot, or closed cleanly in another.
func (b *bitmap) trusted(digest [32]byte, boot [2]uint64) bool {
	if b.words[wordMagic] != mapMagic || [4]uint64(b.words[wordDigest:]) != digestWords(digest) {
		return false
	}
	return [2]uint64(b.words[wordBoot:]) == boot || b.clean()
}

// clean tells whether the map was sealed.
func (b *bitmap) clean() bool { return b.words[wordClean] == 1 }

// reset forgets every bit. The magic goes first and comes back with claim: a kill in between leaves a map that is
// not believed.
func (b *bitmap) reset() {
	b.words[wordMagic] = 0
	clear(b.words)
}

// claim takes the map over for this boot. The clean mark must be off the disk before any bit or byte changes: a power cut
// would find it again and believe all.
func (b *bitmap) claim(digest [32]byte, boot [2]uint64) error {
	b.words[wordClean] = 0
	if err := b.msync(b.raw[:headerWords*8]); err != nil {
		return err
	}
	d := digestWords(digest)
	copy(b.words[wordDigest:], d[:])
	copy(b.words[wordBoot:], boot[:])
	b.words[wordMagic] = mapMagic
	return nil
}

// seal brings the bits to stable storage and then marks them clean. What they promise is there already.
func (b *bitmap) seal(recovered, repair int64) error {
	b.words[wordRecovered], b.words[wordRepair] = uint64(recovered), uint64(repair)
	if err := b.msync(b.raw); err != nil {
		return err
	}
	b.words[wordClean] = 1
	return b.msync(b.raw[:headerWords*8])
}

func (b *bitmap) msync(raw []byte) error {
	if err := unix.Msync(raw, unix.MS_SYNC); err != nil {
		return fmt.Errorf("%w: bitmaps: %w", durable.ErrSync, err)
	}
	return nil
}

// close unmaps and closes the file.
func (b *bitmap) close() error {
	err := unix.Munmap(b.raw)
	b.raw, b.words, b.source, b.repair = nil, nil, nil, nil
	return errors.Join(err, b.file.Close())
}

// sourceOf returns the words of the source bits of a span.
func (b *bitmap) sourceOf(sbn int) []uint64 {
	n := fec.K / 64 * b.groups
	return b.source[sbn*n : (sbn+1)*n]
}

// repairOf returns the words of the repair bits of a span.
func (b *bitmap) repairOf(sbn int) []uint64 {
	n := fec.MaxRows / 64 * b.groups
	return b.repair[sbn*n : (sbn+1)*n]
}

func isSet(words []uint64, i int) bool { return words[i>>6]>>(i&63)&1 != 0 }

func set(words []uint64, i int) { words[i>>6] |= 1 << (i & 63) }

func unset(words []uint64, i int) { words[i>>6] &^= 1 << (i & 63) }

// setAll sets the first n bits.
func setAll(words []uint64, n int) {
	for i := range n / 64 {
		words[i] = ^uint64(0)
	}
	if n%64 != 0 {
		words[n/64] |= 1<<(n%64) - 1
	}
}

func countSet(words []uint64) (n int) {
	for _, w := range words {
		n += bits.OnesCount64(w)
	}
	return n
}

// countRange counts the bits that are set of n from bit i on.
func countRange(words []uint64, i, n int) (count int) {
	for ; n > 0; i, n = i+64, n-64 {
		count += bits.OnesCount64(word(words, i, min(n, 64)))
	}
	return count
}

// word returns the n bits (at most 64) from bit i on; bits behind the last word are 0.
func word(words []uint64, i, n int) uint64 {
	w := words[i>>6] >> (i & 63)
	if shift := i & 63; shift > 0 && i>>6+1 < len(words) {
		w |= words[i>>6+1] << (64 - shift)
	}
	return w & low(n)
}

// low is a word of n ones.
func low(n int) uint64 { return ^uint64(0) >> (64 - n) }
