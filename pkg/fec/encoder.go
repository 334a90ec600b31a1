// SPDX-License-Identifier: Apache-2.0

package fec

import (
	"errors"
	"fmt"

	"github.com/klauspost/reedsolomon"
)

var (
	// ErrShape says that the slices given do not make a code word: a wrong number, or unequal lengths.
	ErrShape = errors.New("fec: malformed code word")
	// ErrRows says that the code has no such repair rows.
	ErrRows = errors.New("fec: no such repair rows")
)

// Encoder computes a range of repair rows. It is reusable and keeps scratch space: one goroutine at a time. Several
// encoders work side by side.
type Encoder struct {
	matrix [][]byte // rows x K
	codec  reedsolomon.Encoder
	k      int      // source rows that codec is made for; 0: none yet
	shards [][]byte // scratch: source and repair in one list, as the library wants them
}

// NewEncoder returns an encoder of the repair rows firstRow to firstRow+rows-1, all within 0 to 63, at least one; else
// an error that is [ErrRows].
func NewEncoder(firstRow, rows int) (*Encoder, error) {
	if firstRow < 0 || rows < 1 || firstRow > MaxRows-rows {
		return nil, fmt.Errorf("%w: %d from row %d, the code has rows 0 to %d", ErrRows, rows, firstRow, MaxRows-1)
	}
	return &Encoder{matrix: newField().matrix(firstRow, rows)}, nil
}

// Encode computes the repair rows of a code word, or of many that lie side by side. source is k rows (1 to 192; fewer
// than 192 stand for a code word whose other rows are zero) of one length w > 0; repair is one row of length w for each
// of the encoder's rows, and is overwritten. Nothing is kept. Errors are [ErrShape].
func (e *Encoder) Encode(source [][]byte, repair [][]byte) error {
	if err := checkRows(source); err != nil {
		return err
	}
	if len(repair) != len(e.matrix) {
		return fmt.Errorf("%w: %d repair rows for an encoder of %d", ErrShape, len(repair), len(e.matrix))
	}
	for i := range repair {
		if len(repair[i]) != len(source[0]) {
			return fmt.Errorf("%w: repair row %d has %d bytes, the source rows %d", ErrShape, i, len(repair[i]), len(source[0]))
		}
	}
	if e.k != len(source) {
		codec, err := newCodec(len(source), e.matrix)
		if err != nil {
			return err
		}
		e.codec, e.k = codec, len(source)
	}
	e.shards = append(append(e.shards[:0], source...), repair...)
	defer clear(e.shards) // keep no reference to the caller's memory
	return encodeBlocks(e.codec, e.shards)
}

// checkRows wants 1 to K rows of one length above 0.
func checkRows(source [][]byte) error {
	if len(source) < 1 || len(source) > K {
		return fmt.Errorf("%w: %d source rows, want 1 to %d", ErrShape, len(source), K)
	}
	w := len(source[0])
	if w == 0 {
		return fmt.Errorf("%w: rows of length 0", ErrShape)
	}
	for i := range source {
		if len(source[i]) != w {
			return fmt.Errorf("%w: source row %d has %d bytes, row 0 has %d", ErrShape, i, len(source[i]), w)
		}
	}
	return nil
}

// splitSize is the width in bytes above which the library takes its parallel path.
const splitSize = 1 << 10

// newCodec makes the library multiply by the given rows, cut to k columns. Two goroutines although whoever wants two cores runs two
// encoders: the library (v1.14.1) uses GFNI for more than ten source rows on its parallel path alone, which takes less than half the
// CPU time of AVX2 (`go test -cpu 1 -bench . ./pkg/fec`).
func newCodec(k int, matrix [][]byte) (reedsolomon.Encoder, error) {
	codec, err := reedsolomon.New(k, len(matrix),
		reedsolomon.WithCustomMatrix(matrix),
		reedsolomon.WithInversionCache(false),
		reedsolomon.WithMaxGoroutines(2), reedsolomon.WithMinSplitSize(splitSize))
	if err != nil {
		return nil, fmt.Errorf("codec of %d x %d: %w", len(matrix), k, err)
	}
	return codec, nil
}

// blockWidth is how many bytes of every row are multiplied at a time, so that the rows being written stay in the
// cache however wide the caller's rows are. Measured: 16 to 32 KiB is best, 4 KiB pays the set-up of each call.
const blockWidth = 32 << 10

// encodeBlocks runs the codec over the shards, blockWidth columns at a time.
func encodeBlocks(codec reedsolomon.Encoder, shards [][]byte) error {
	width := len(shards[0])
	if width <= blockWidth {
		return codec.Encode(shards)
	}
	var block [K + MaxRows][]byte
	for start := 0; start < width; start += blockWidth {
		end := min(start+blockWidth, width)
		for i, shard := range shards {
			block[i] = shard[start:end]
		}
		if err := codec.Encode(block[:len(shards)]); err != nil {
			return fmt.Errorf("repair rows: %w", err)
		}
	}
	return nil
}
