// SPDX-License-Identifier: Apache-2.0

package fec

import (
	"errors"
	"fmt"
	"math/bits"

	"github.com/klauspost/reedsolomon"
)

// ErrTooFewSymbols says that a code word lost more source symbols than there are distinct repair symbols for. Nothing
// was written: keep what is there and wait for more.
var ErrTooFewSymbols = errors.New("fec: too few repair symbols")

// Repair is one repair row: its number (0 to 63) and its bytes, as wide as the source rows.
type Repair struct {
	Row  int
	Data []byte
}

// Decoder recovers lost source rows. It is reusable and keeps scratch space and a bounded cache: one goroutine at a
// time.
type Decoder struct {
	field  *field
	matrix [][]byte // all MaxRows x K
	cache  [maxCodecs]cachedCodec
	clock  uint64

	shards    [][]byte // scratch: source rows and syndromes
	arena     []byte   // scratch: the bytes of the syndromes
	lowLevel  reedsolomon.LowLevel
	inverse   [MaxRows * MaxRows]byte
	syndromes [MaxRows][]byte
}

// maxCodecs bounds the cache of codecs. A codec depends on the repair rows used and not on what was lost; with
// the lowest rows taken first there are few combinations. One holds about 50 KiB and up to 0.8 MiB of tables.
const maxCodecs = 16

type codecKey struct {
	rows uint64 // bit r: repair row r
	k    int
}

type cachedCodec struct {
	key  codecKey
	used uint64 // clock at the last use
	rs   reedsolomon.Encoder
}

// NewDecoder returns a decoder for every geometry.
func NewDecoder() *Decoder {
	f := newField()
	return &Decoder{field: f, matrix: f.matrix(0, MaxRows)}
}

// Decode recovers the lost source rows of a code word, or of many side by side that lost the same rows.
//
// source is k rows (1 to 192) of one length w > 0. lost names the rows, each once, whose slices hold anything; they are
// overwritten with the recovered bytes. repair holds at least len(lost) distinct rows of length w; more are ignored,
// and so is a row that is there twice. The cost is proportional to len(lost).
//
// Errors: [ErrTooFewSymbols], [ErrRows] and [ErrShape]; source is unchanged after any of them. Whether the result is
// true is not for this code to say: a wrong symbol that goes in gives wrong symbols. Hashes decide that.
func (d *Decoder) Decode(source [][]byte, lost []int, repair []Repair) error {
	if err := checkRows(source); err != nil {
		return err
	}
	if err := checkLost(lost, len(source)); err != nil {
		return err
	}
	if len(lost) == 0 {
		return nil
	}
	var chosen [MaxRows]Repair
	rows, err := choose(&chosen, repair, len(lost), len(source[0]))
	if err != nil {
		return err
	}
	codec, err := d.codec(codecKey{rows: rows, k: len(source)})
	if err != nil {
		return err
	}
	if err := d.computeSyndromes(codec, source, lost, chosen[:len(lost)]); err != nil {
		return err
	}
	d.solve(source, lost, chosen[:len(lost)])
	return nil
}

// checkLost wants distinct row numbers below k.
func checkLost(lost []int, k int) error {
	var seen [K]bool
	for _, j := range lost {
		if j < 0 || j >= k || seen[j] {
			return fmt.Errorf("%w: lost row %d is out of range or named twice, there are %d source rows", ErrShape, j, k)
		}
		seen[j] = true
	}
	return nil
}

// choose takes the e lowest distinct repair rows, in ascending order, and returns their set. Always the lowest, so that
// few sets occur and their codecs are found in the cache.
func choose(chosen *[MaxRows]Repair, repair []Repair, e, width int) (uint64, error) {
	var byRow [MaxRows][]byte
	var have uint64
	for _, r := range repair {
		if r.Row < 0 || r.Row >= MaxRows {
			return 0, fmt.Errorf("%w: %d, the code has rows 0 to %d", ErrRows, r.Row, MaxRows-1)
		}
		if len(r.Data) != width {
			return 0, fmt.Errorf("%w: repair row %d has %d bytes, the source rows %d", ErrShape, r.Row, len(r.Data), width)
		}
		byRow[r.Row] = r.Data
		have |= 1 << r.Row
	}
	if n := bits.OnesCount64(have); n < e {
		return 0, fmt.Errorf("%w: %d source symbols lost, %d distinct repair symbols here", ErrTooFewSymbols, e, n)
	}
	var rows uint64
	for i := range e {
		row := bits.TrailingZeros64(have)
		chosen[i] = Repair{Row: row, Data: byRow[row]}
		have &^= 1 << row
		rows |= 1 << row
	}
	return rows, nil
}

// computeSyndromes leaves in d.syndromes what each chosen repair row is short of: itself plus what the present
// source rows give to it.
func (d *Decoder) computeSyndromes(codec reedsolomon.Encoder, source [][]byte, lost []int, chosen []Repair) error {
	e, width := len(lost), len(source[0])
	if cap(d.arena) < e*width {
		d.arena = make([]byte, e*width)
	}
	for i := range chosen {
		d.syndromes[i] = d.arena[i*width : (i+1)*width : (i+1)*width]
	}
	for _, j := range lost {
		clear(source[j]) // a row of zeros gives nothing
	}
	d.shards = append(append(d.shards[:0], source...), d.syndromes[:e]...)
	defer clear(d.shards) // keep no reference to the caller's memory
	if err := encodeBlocks(codec, d.shards); err != nil {
		return err
	}
	for i, r := range chosen {
		d.lowLevel.GalMulSliceXor(1, r.Data, d.syndromes[i])
	}
	return nil
}

// solve multiplies the syndromes by the inverse of the e x e matrix of the chosen rows and the lost columns.
func (d *Decoder) solve(source [][]byte, lost []int, chosen []Repair) {
	e := len(lost)
	var x, y [MaxRows]byte
	for i := range e {
		x[i], y[i] = byte(K+chosen[i].Row), byte(lost[i])
	}
	d.field.invertCauchy(d.inverse[:e*e], x[:e], y[:e])
	width := len(source[0])
	for start := 0; start < width; start += solveWidth {
		end := min(start+solveWidth, width)
		for j, row := range lost {
			out := source[row][start:end]
			d.lowLevel.GalMulSlice(d.inverse[j*e], d.syndromes[0][start:end], out)
			for i := 1; i < e; i++ {
				d.lowLevel.GalMulSliceXor(d.inverse[j*e+i], d.syndromes[i][start:end], out)
			}
		}
	}
}

// solveWidth keeps the syndromes of a block in the first-level cache while they are read once for each lost row.
const solveWidth = 4 << 10

// codec returns the multiplier of a set of repair rows, from the cache or new; the one idle longest gives way.
func (d *Decoder) codec(key codecKey) (reedsolomon.Encoder, error) {
	d.clock++
	oldest := 0
	for i := range d.cache {
		if d.cache[i].key == key {
			d.cache[i].used = d.clock
			return d.cache[i].rs, nil
		}
		if d.cache[i].used < d.cache[oldest].used {
			oldest = i
		}
	}
	var matrix [][]byte
	for rest := key.rows; rest != 0; rest &= rest - 1 {
		matrix = append(matrix, d.matrix[bits.TrailingZeros64(rest)])
	}
	rs, err := newCodec(key.k, matrix)
	if err != nil {
		return nil, err
	}
	d.cache[oldest] = cachedCodec{key: key, used: d.clock, rs: rs}
	return rs, nil
}
