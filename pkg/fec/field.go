// SPDX-License-Identifier: Apache-2.0

package fec

// polynomial is x^8+x^4+x^3+x^2+1, the field of the code (docs/spec/datagram.md section 4); 2 generates it.
const polynomial = 0x11D

// Coefficient returns the matrix element of a repair row (0 to 63) and a source column (0 to 191):
// 1 / ((192+row) XOR column) in GF(2^8), the Cauchy element of docs/spec/datagram.md section 4. It computes from the
// definition alone, without tables and without the library, so that it can judge both. Arguments outside the ranges
// are a programmer error and panic.
func Coefficient(row, column int) byte {
	if row < 0 || row >= MaxRows || column < 0 || column >= K {
		panic("fec: coefficient outside of the 64 x 192 matrix")
	}
	x := byte(K+row) ^ byte(column) // never 0: the one is at least 192, the other below
	inverse := byte(1)
	for range 254 { // x^254 = 1/x, as x^255 = 1
		inverse = multiply(inverse, x)
	}
	return inverse
}

// multiply is the schoolbook product: shift, add, reduce.
func multiply(a, b byte) byte {
	product, shifted := 0, int(a)
	for ; b != 0; b >>= 1 {
		if b&1 != 0 {
			product ^= shifted
		}
		if shifted <<= 1; shifted&0x100 != 0 {
			shifted ^= polynomial
		}
	}
	return byte(product)
}

// field holds logarithm tables: what the small systems of the decoder and the matrix are computed with.
type field struct {
	exp [510]byte // exp[i] = 2^i, twice around so that a sum of two logarithms needs no reduction
	log [256]byte // log[0] is never read
}

func newField() *field {
	f := new(field)
	for i, x := 0, byte(1); i < 255; i, x = i+1, multiply(x, 2) {
		f.exp[i], f.exp[i+255] = x, x
		f.log[x] = byte(i)
	}
	return f
}

func (f *field) mul(a, b byte) byte {
	if a == 0 || b == 0 {
		return 0
	}
	return f.exp[int(f.log[a])+int(f.log[b])]
}

// div returns a/b; b is not 0.
func (f *field) div(a, b byte) byte {
	if a == 0 {
		return 0
	}
	return f.exp[int(f.log[a])+255-int(f.log[b])]
}

// matrix returns the rows of the code from first on, each of K elements.
func (f *field) matrix(first, rows int) [][]byte {
	m := make([][]byte, rows)
	for r := range m {
		m[r] = make([]byte, K)
		for j := range m[r] {
			m[r][j] = f.div(1, byte(K+first+r)^byte(j))
		}
	}
	return m
}

// invertCauchy writes to inverse (e x e, row major) the inverse of the matrix a[i][j] = 1/(x[i]^y[j]), by the closed
// form of the Cauchy matrix, in e^2 steps: with P(i) = prod_k (x[i]^y[k]), X(i) = prod_{k!=i} (x[i]^x[k]),
// Q(j) = prod_k (x[k]^y[j]), Y(j) = prod_{k!=j} (y[j]^y[k]):
//
//	inverse[j][i] = P(i) Q(j) / (X(i) Y(j) (x[i]^y[j]))
//
// The x are distinct, the y are distinct, and no x is a y.
func (f *field) invertCauchy(inverse, x, y []byte) {
	e := len(x)
	var left, right [MaxRows]byte // P/X and Q/Y
	for i := range e {
		left[i], right[i] = 1, 1
		for k := range e {
			left[i] = f.mul(left[i], x[i]^y[k])
			right[i] = f.mul(right[i], x[k]^y[i])
			if k != i {
				left[i] = f.div(left[i], x[i]^x[k])
				right[i] = f.div(right[i], y[i]^y[k])
			}
		}
	}
	for j := range e {
		for i := range e {
			inverse[j*e+i] = f.div(f.mul(left[i], right[j]), x[i]^y[j])
		}
	}
}
