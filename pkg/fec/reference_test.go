// SPDX-License-Identifier: Apache-2.0

package fec_test

// The oracle: the code of docs/spec/datagram.md section 4, written a second time, slowly, with tables of another
// generator (4 in place of 2) and Gaussian elimination in place of the closed form.

type reference struct {
	exp [255]byte
	log [256]int
}

func newReference() *reference {
	r := new(reference)
	x := 1
	for i := range 255 {
		r.exp[i] = byte(x)
		r.log[x] = i
		for range 2 { // times 4
			if x <<= 1; x > 255 {
				x ^= 0x11D
			}
		}
	}
	return r
}

func (r *reference) mul(a, b byte) byte {
	if a == 0 || b == 0 {
		return 0
	}
	return r.exp[(r.log[a]+r.log[b])%255]
}

func (r *reference) inv(a byte) byte { return r.exp[(255-r.log[a])%255] }

func (r *reference) coefficient(row, column int) byte { return r.inv(byte(192+row) ^ byte(column)) }

// encode returns repair rows first to first+rows-1 of source.
func (r *reference) encode(source [][]byte, first, rows int) [][]byte {
	repair := zeroRows(rows, len(source[0]))
	for i := range repair {
		for j := range source {
			c := r.coefficient(first+i, j)
			for at, b := range source[j] {
				repair[i][at] ^= r.mul(c, b)
			}
		}
	}
	return repair
}

// solve returns the lost rows of source, by elimination; rows names the repair rows used, as many as lost.
func (r *reference) solve(source [][]byte, lost []int, rows []int, repair [][]byte) [][]byte {
	isLost := make(map[int]bool)
	for _, j := range lost {
		isLost[j] = true
	}
	a, b := zeroRows(len(lost), len(lost)), cloneRows(repair)
	for i, row := range rows {
		for n, j := range lost {
			a[i][n] = r.coefficient(row, j)
		}
		for j := range source {
			for at := range source[j] {
				if !isLost[j] {
					b[i][at] ^= r.mul(r.coefficient(row, j), source[j][at])
				}
			}
		}
	}
	r.eliminate(a, b)
	return b
}

func (r *reference) eliminate(a, b [][]byte) {
	for i := range a {
		pivot := i
		for a[pivot][i] == 0 {
			pivot++ // runs out of the matrix if it is singular, which no Cauchy matrix is
		}
		a[i], a[pivot], b[i], b[pivot] = a[pivot], a[i], b[pivot], b[i]
		scale := r.inv(a[i][i])
		for _, row := range [][]byte{a[i], b[i]} {
			for at := range row {
				row[at] = r.mul(row[at], scale)
			}
		}
		for other := range a {
			if c := a[other][i]; other != i && c != 0 {
				for at := range a[i] {
					a[other][at] ^= r.mul(c, a[i][at])
				}
				for at := range b[i] {
					b[other][at] ^= r.mul(c, b[i][at])
				}
			}
		}
	}
}
