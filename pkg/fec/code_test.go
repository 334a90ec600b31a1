// SPDX-License-Identifier: Apache-2.0

package fec_test

import (
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/klauspost/reedsolomon"

	"sluice/pkg/fec"
)

// seeded returns a generator whose seed a failing test prints.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	})
	return rand.New(rand.NewPCG(seed, 1))
}

func TestCoefficientIsTheCauchyElement(t *testing.T) {
	r := newReference()
	for row := range fec.MaxRows {
		for column := range fec.K {
			got := fec.Coefficient(row, column)
			if want := r.coefficient(row, column); got != want {
				t.Fatalf("Coefficient(%d, %d) = %#x, the reference says %#x", row, column, got, want)
			}
			if r.mul(got, byte(192+row)^byte(column)) != 1 {
				t.Fatalf("Coefficient(%d, %d) = %#x is not the inverse of %#x", row, column, got, (192+row)^column)
			}
		}
	}
}

func TestCoefficientOutsideOfTheMatrix(t *testing.T) {
	for _, at := range [][2]int{{-1, 0}, {64, 0}, {0, -1}, {0, 192}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Coefficient(%d, %d) did not panic", at[0], at[1])
				}
			}()
			fec.Coefficient(at[0], at[1])
		}()
	}
}

// TestEncoderMultipliesByTheMatrix reads the matrix back out of the encoder: row r of a unit vector is a column.
func TestEncoderMultipliesByTheMatrix(t *testing.T) {
	source, repair := zeroRows(fec.K, fec.K), zeroRows(fec.MaxRows, fec.K)
	for j := range fec.K {
		source[j][j] = 1 // column j of the rows is the unit vector j
	}
	encode(t, 0, source, repair)
	for row := range fec.MaxRows {
		for column := range fec.K {
			if got, want := repair[row][column], fec.Coefficient(row, column); got != want {
				t.Fatalf("the encoder multiplies source row %d into repair row %d by %#x, want %#x", column, row, got, want)
			}
		}
	}
}

// TestNested: the first m rows are the code of the library's own Cauchy matrix, whatever m.
func TestNested(t *testing.T) {
	random := seeded(t)
	source := randomRows(random, fec.K, 100)
	for _, m := range []int{1, 10, 20, 63, 64} {
		codec, err := reedsolomon.New(fec.K, m, reedsolomon.WithCauchyMatrix())
		if err != nil {
			t.Fatal(err)
		}
		theirs := append(slices.Clone(source), zeroRows(m, 100)...)
		if err := codec.Encode(theirs); err != nil {
			t.Fatal(err)
		}
		ours := zeroRows(m, 100)
		encode(t, 0, source, ours)
		if diff := differ(theirs[fec.K:], ours); diff != "" {
			t.Fatalf("%d rows differ from WithCauchyMatrix:\n%s", m, diff)
		}
	}
}

func TestEncodeAgainstReference(t *testing.T) {
	random, r := seeded(t), newReference()
	for _, k := range []int{1, 2, 5, 63, 191, 192} {
		for _, rows := range [][2]int{{0, 1}, {0, 10}, {10, 20}, {63, 1}, {0, 64}} {
			source := randomRows(random, k, 37)
			before := cloneRows(source)
			repair := randomRows(random, rows[1], 37) // overwritten, whatever was there
			encode(t, rows[0], source, repair)
			if diff := differ(r.encode(source, rows[0], rows[1]), repair); diff != "" {
				t.Fatalf("k=%d rows=%v:\n%s", k, rows, diff)
			}
			if diff := differ(before, source); diff != "" {
				t.Fatalf("k=%d: the source was changed:\n%s", k, diff)
			}
		}
	}
}

// TestEncodeWide crosses the blocks that the kernels are fed.
func TestEncodeWide(t *testing.T) {
	random, r := seeded(t), newReference()
	const width = 2*(32<<10) + 77
	source, repair := randomRows(random, 3, width), zeroRows(2, width)
	encode(t, 5, source, repair)
	if !same(r.encode(source, 5, 2), repair) {
		t.Fatal("a row of more than one block is wrong")
	}
}

// TestShortened: a short code word is a full one whose other rows are zero.
func TestShortened(t *testing.T) {
	random := seeded(t)
	short, shortRepair, fullRepair := randomRows(random, 77, 64), zeroRows(9, 64), zeroRows(9, 64)
	encode(t, 3, short, shortRepair)
	encode(t, 3, append(slices.Clone(short), zeroRows(fec.K-77, 64)...), fullRepair)
	if diff := differ(fullRepair, shortRepair); diff != "" {
		t.Fatal(diff)
	}
}

// TestEncoderIsReusable goes back and forth between lengths.
func TestEncoderIsReusable(t *testing.T) {
	random, r := seeded(t), newReference()
	encoder, err := fec.NewEncoder(2, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []int{192, 7, 192, 8, 7, 1} {
		source, repair := randomRows(random, k, 10+k), zeroRows(3, 10+k)
		if err := encoder.Encode(source, repair); err != nil {
			t.Fatal(err)
		}
		if !same(r.encode(source, 2, 3), repair) {
			t.Fatalf("wrong with %d rows", k)
		}
	}
}

// TestEveryLossOfSmallCodes: every subset of losses with every subset of repair rows.
func TestEveryLossOfSmallCodes(t *testing.T) {
	random, decoder := seeded(t), fec.NewDecoder()
	for k := 4; k <= 6; k++ {
		for rows := 1; rows <= 4; rows++ {
			source, repair := randomRows(random, k, 5), zeroRows(rows, 5)
			encode(t, 0, source, repair)
			for lost := range 1 << k {
				for have := range 1 << rows {
					checkLoss(t, decoder, source, repair, lost, have)
				}
			}
		}
	}
}

// checkLoss decodes with the source rows in the set lost gone and the repair rows in the set have there.
func checkLoss(t *testing.T, decoder *fec.Decoder, source, repair [][]byte, lostSet, haveSet int) {
	t.Helper()
	damaged, lost := cloneRows(source), []int{}
	for j := range source {
		if lostSet>>j&1 != 0 {
			lost = append(lost, j)
			copy(damaged[j], "garbage")
		}
	}
	var extra []fec.Repair
	for r := range repair {
		if haveSet>>r&1 != 0 {
			extra = append(extra, fec.Repair{Row: r, Data: repair[r]})
		}
	}
	name := fmt.Sprintf("k=%d lost=%b have=%b", len(source), lostSet, haveSet)
	before := cloneRows(damaged)
	err := decoder.Decode(damaged, lost, extra)
	if bits.OnesCount(uint(lostSet)) > bits.OnesCount(uint(haveSet)) {
		if !errors.Is(err, fec.ErrTooFewSymbols) || !same(before, damaged) {
			t.Fatalf("%s: error %v, want ErrTooFewSymbols and nothing changed", name, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if diff := differ(source, damaged); diff != "" {
		t.Fatalf("%s: wrong bytes:\n%s", name, diff)
	}
}

func TestRandomLosses(t *testing.T) {
	random, r, decoder := seeded(t), newReference(), fec.NewDecoder()
	for range 150 {
		k := 1 + random.IntN(fec.K)
		e := 1 + random.IntN(min(k, fec.MaxRows))
		width := 1 + random.IntN(300)
		source, repair := randomRows(random, k, width), zeroRows(fec.MaxRows, width)
		encode(t, 0, source, repair)
		lost, rows := random.Perm(k)[:e], random.Perm(fec.MaxRows)[:e]
		damaged := cloneRows(source)
		for _, j := range lost {
			fill(random, damaged[j])
		}
		extra := []fec.Repair{}
		for _, row := range rows {
			extra = append(extra, fec.Repair{Row: row, Data: repair[row]})
		}
		if e < 12 { // the oracle is slow
			chosen := make([][]byte, e)
			for i, row := range rows {
				chosen[i] = repair[row]
			}
			for i, row := range r.solve(damaged, lost, rows, chosen) {
				if !slices.Equal(row, source[lost[i]]) {
					t.Fatalf("the reference cannot solve lost=%v rows=%v", lost, rows)
				}
			}
		}
		if err := decoder.Decode(damaged, lost, extra); err != nil {
			t.Fatal(err)
		}
		if !same(source, damaged) {
			t.Fatalf("k=%d lost=%v rows=%v: wrong bytes", k, lost, rows)
		}
	}
}

// TestMoreRepairThanNeeded: rows in excess and rows there twice change nothing; a row twice is one row.
func TestMoreRepairThanNeeded(t *testing.T) {
	random, decoder := seeded(t), fec.NewDecoder()
	source, repair := randomRows(random, 20, 50), zeroRows(5, 50)
	encode(t, 0, source, repair)
	damaged := cloneRows(source)
	clear(damaged[3])
	clear(damaged[4])
	extra := []fec.Repair{{4, repair[4]}, {4, repair[4]}, {1, repair[1]}, {0, repair[0]}}
	if err := decoder.Decode(damaged, []int{4, 3}, extra[:2]); !errors.Is(err, fec.ErrTooFewSymbols) {
		t.Fatalf("the same row twice stood for two: %v", err)
	}
	if err := decoder.Decode(damaged, []int{4, 3}, extra); err != nil {
		t.Fatal(err)
	}
	if !same(source, damaged) {
		t.Fatal("wrong bytes")
	}
}

// TestManyRepairSets walks past the bound of the decoder's cache.
func TestManyRepairSets(t *testing.T) {
	random, decoder := seeded(t), fec.NewDecoder()
	source, repair := randomRows(random, 30, 16), zeroRows(fec.MaxRows, 16)
	encode(t, 0, source, repair)
	for i := range 3 * fec.MaxRows {
		damaged, row := cloneRows(source), i*7%fec.MaxRows
		clear(damaged[i%30])
		if err := decoder.Decode(damaged, []int{i % 30}, []fec.Repair{{row, repair[row]}}); err != nil {
			t.Fatal(err)
		}
		if !same(source, damaged) {
			t.Fatalf("repair row %d: wrong bytes", row)
		}
	}
}

func TestMalformed(t *testing.T) {
	rows := func(n, width int) [][]byte { return zeroRows(n, width) }
	uneven := append(rows(2, 8), make([]byte, 7))
	encoder, err := fec.NewEncoder(0, 2)
	if err != nil {
		t.Fatal(err)
	}
	decode := func(source [][]byte, lost []int, repair ...fec.Repair) error {
		return fec.NewDecoder().Decode(source, lost, repair)
	}
	_, tooMany := fec.NewEncoder(60, 5)
	_, noRows := fec.NewEncoder(0, 0)
	_, before := fec.NewEncoder(-1, 2)
	for name, c := range map[string]struct{ got, want error }{
		"no source":             {encoder.Encode(nil, rows(2, 8)), fec.ErrShape},
		"193 rows":              {encoder.Encode(rows(193, 8), rows(2, 8)), fec.ErrShape},
		"empty rows":            {encoder.Encode(rows(3, 0), rows(2, 0)), fec.ErrShape},
		"uneven source":         {encoder.Encode(uneven, rows(2, 8)), fec.ErrShape},
		"uneven repair":         {encoder.Encode(rows(3, 8), uneven[1:]), fec.ErrShape},
		"too few repair":        {encoder.Encode(rows(3, 8), rows(1, 8)), fec.ErrShape},
		"rows past 63":          {tooMany, fec.ErrRows},
		"no rows":               {noRows, fec.ErrRows},
		"rows before 0":         {before, fec.ErrRows},
		"decode nothing":        {decode(nil, nil), fec.ErrShape},
		"decode uneven":         {decode(uneven, nil), fec.ErrShape},
		"lost past the end":     {decode(rows(3, 8), []int{3}, fec.Repair{Row: 0, Data: make([]byte, 8)}), fec.ErrShape},
		"lost below 0":          {decode(rows(3, 8), []int{-1}, fec.Repair{Row: 0, Data: make([]byte, 8)}), fec.ErrShape},
		"lost twice":            {decode(rows(3, 8), []int{1, 1}, fec.Repair{Row: 0, Data: make([]byte, 8)}), fec.ErrShape},
		"repair row 64":         {decode(rows(3, 8), []int{1}, fec.Repair{Row: 64, Data: make([]byte, 8)}), fec.ErrRows},
		"repair row -1":         {decode(rows(3, 8), []int{1}, fec.Repair{Row: -1, Data: make([]byte, 8)}), fec.ErrRows},
		"repair of other width": {decode(rows(3, 8), []int{1}, fec.Repair{Row: 0, Data: make([]byte, 9)}), fec.ErrShape},
		"nothing lost":          {decode(rows(3, 8), nil), nil},
	} {
		if !errors.Is(c.got, c.want) {
			t.Errorf("%s: error %v, want %v", name, c.got, c.want)
		}
	}
}
