// SPDX-License-Identifier: Apache-2.0

package checkpointtest

import (
	"encoding/binary"
	"hash/fnv"
	"math"
)

const (
	packFactor   = 8       // 4-bit codes a word
	chunkWeights = 1 << 20 // weights made at once, where a tensor can be cut
	maxCode      = 15
	deviation    = 0.02 // of a weight: Llama's initializer_range
)

// tables turns 16 random bits into a weight: quantiles of a normal distribution, in the base's dtype and cast to F16, as
// value and as bits.
type tables struct {
	value [1 << 16]float32 // of the base's weight
	base  [1 << 16]uint16
	half  [1 << 16]uint16 // the base's weight cast to F16
}

func newTables(dtype string) *tables {
	t := new(tables)
	for i := range t.value {
		u := (float64(i) + 0.5) / (1 << 16)
		x := float32(deviation * math.Sqrt2 * math.Erfinv(2*u-1))
		if dtype == "BF16" {
			t.base[i] = bf16(x)
			t.value[i] = math.Float32frombits(uint32(t.base[i]) << 16)
		} else {
			t.base[i] = toHalf(x)
			t.value[i] = fromHalf(t.base[i])
		}
		t.half[i] = toHalf(t.value[i])
	}
	return t
}

// random is SplitMix64: one addition and three multiplications for four weights.
type random struct{ state uint64 }

// newRandom seeds by what is made, not by when: the order of work changes nothing.
func newRandom(seed uint64, name string, row int) *random {
	h := fnv.New64a()
	h.Write(binary.LittleEndian.AppendUint64(nil, seed))
	h.Write([]byte(name))
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(row)))
	return &random{h.Sum64()}
}

func (r *random) next() uint64 {
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// draw fills idx with one row's indices into the tables.
func draw(seed uint64, name string, row int, idx []uint16) {
	r := newRandom(seed, name, row)
	i := 0
	for ; i+4 <= len(idx); i += 4 {
		z := r.next()
		idx[i], idx[i+1], idx[i+2], idx[i+3] = uint16(z), uint16(z>>16), uint16(z>>32), uint16(z>>48)
	}
	for z := r.next(); i < len(idx); i, z = i+1, z>>16 {
		idx[i] = uint16(z)
	}
}

// writePlain writes rows of an unquantized tensor. Norms are near one, as trained ones are.
func writePlain(spec Spec, t *tables, p param, row, rows int, base, awq *snapshot) error {
	if p.cols == 0 {
		return writeNorm(spec, t, p, base, awq)
	}
	idx := make([]uint16, p.cols)
	inBase, inAWQ := make([]byte, 0, 2*rows*p.cols), make([]byte, 0, 2*rows*p.cols)
	for r := range rows {
		draw(spec.Seed, p.name, row+r, idx)
		for _, i := range idx {
			inBase = binary.LittleEndian.AppendUint16(inBase, t.base[i])
			inAWQ = binary.LittleEndian.AppendUint16(inAWQ, t.half[i])
		}
	}
	off := 2 * int64(row) * int64(p.cols)
	if err := base.write(p.name+".weight", off, inBase); err != nil {
		return err
	}
	return awq.write(p.name+".weight", off, inAWQ)
}

func writeNorm(spec Spec, t *tables, p param, base, awq *snapshot) error {
	idx := make([]uint16, p.rows)
	draw(spec.Seed, p.name, 0, idx)
	var inBase, inAWQ []byte
	for _, i := range idx {
		x := 1 + t.value[i]
		bits := toHalf(x)
		if spec.Dtype == "BF16" {
			bits = bf16(x)
			x = math.Float32frombits(uint32(bits) << 16)
		}
		inBase = binary.LittleEndian.AppendUint16(inBase, bits)
		inAWQ = binary.LittleEndian.AppendUint16(inAWQ, toHalf(x))
	}
	if err := base.write(p.name+".weight", 0, inBase); err != nil {
		return err
	}
	return awq.write(p.name+".weight", 0, inAWQ)
}

// quantized is one linear in AutoAWQ's gemm layout; the weights lie transposed, inputs first.
type quantized struct {
	words, zeros []uint32 // [in, out/8], [in/g, out/8]
	scales       []uint16 // [in/g, out]
	out          int
}

// writeLinear makes one linear, writes it to the base, quantizes it and writes the triple.
func writeLinear(spec Spec, t *tables, p param, base, awq *snapshot) error {
	groups := p.cols / spec.Group
	q := &quantized{
		words:  make([]uint32, p.cols*p.rows/packFactor),
		zeros:  make([]uint32, groups*p.rows/packFactor),
		scales: make([]uint16, groups*p.rows),
		out:    p.rows,
	}
	idx := make([]uint16, p.cols)
	row := make([]float32, p.cols)
	inBase := make([]byte, 2*p.rows*p.cols)
	for o := range p.rows {
		draw(spec.Seed, p.name, o, idx)
		for i, k := range idx {
			binary.LittleEndian.PutUint16(inBase[2*(o*p.cols+i):], t.base[k])
			row[i] = t.value[k]
		}
		for g := range groups {
			q.group(row[g*spec.Group:(g+1)*spec.Group], o, g, spec.Group)
		}
	}
	if err := base.write(p.name+".weight", 0, inBase); err != nil {
		return err
	}
	return q.write(p.name, awq)
}

// nibble is where column 8c+j lies in word c (AutoAWQ packing_utils, AWQ_REVERSE_ORDER).
func nibble(column int) int {
	return [packFactor]int{0, 4, 1, 5, 2, 6, 3, 7}[column%packFactor]
}

// group quantizes one group of one output row, round to nearest: s = (max-min)/15, z = -round(min/s), q = round(w/s)+z. The
// scale is rounded up to F16, so that the range always fits.
func (q *quantized) group(w []float32, o, g, size int) {
	low, high := w[0], w[0]
	for _, x := range w {
		low, high = min(low, x), max(high, x)
	}
	bits := halfUp(max(high-low, 1e-5) / maxCode)
	scale := fromHalf(bits)
	inverse := 1 / scale
	zero := clampCode(-nearest(low * inverse))
	q.scales[g*q.out+o] = bits
	shift := 4 * nibble(o)
	q.zeros[(g*q.out+o)/packFactor] |= uint32(zero) << shift
	at := (g*size*q.out + o) / packFactor
	for _, x := range w {
		q.words[at] |= uint32(clampCode(nearest(x*inverse)+zero)) << shift
		at += q.out / packFactor
	}
}

// nearest rounds to the nearest integer; adding 1.5·2^23 leaves it in the low bits of the mantissa.
func nearest(x float32) int32 {
	const magic = 3 << 22
	return int32(math.Float32bits(x+magic)) - int32(math.Float32bits(magic))
}

func clampCode(v int32) int32 { return max(0, min(maxCode, v)) }

func (q *quantized) write(name string, awq *snapshot) error {
	if err := awq.write(name+".qweight", 0, words(q.words)); err != nil {
		return err
	}
	if err := awq.write(name+".qzeros", 0, words(q.zeros)); err != nil {
		return err
	}
	b := make([]byte, 0, 2*len(q.scales))
	for _, s := range q.scales {
		b = binary.LittleEndian.AppendUint16(b, s)
	}
	return awq.write(name+".scales", 0, b)
}

func words(list []uint32) []byte {
	b := make([]byte, 0, 4*len(list))
	for _, w := range list {
		b = binary.LittleEndian.AppendUint32(b, w)
	}
	return b
}

// bf16 rounds to nearest even.
func bf16(x float32) uint16 {
	b := math.Float32bits(x)
	return uint16((b + 0x7fff + b>>16&1) >> 16)
}

// toHalf rounds to the nearest F16, ties to even; x is finite and below 65504 in size.
func toHalf(x float32) uint16 {
	b := math.Float32bits(x)
	sign := uint16(b >> 16 & 0x8000)
	abs := b & 0x7fffffff
	if abs < 0x38800000 { // below 2^-14: subnormal, units of 2^-24
		return sign | uint16(math.RoundToEven(float64(math.Float32frombits(abs))*(1<<24)))
	}
	abs += 0xfff + abs>>13&1
	return sign | uint16(abs>>13-112<<10)
}

// halfUp is the smallest F16 that is not below x, for positive x.
func halfUp(x float32) uint16 {
	h := toHalf(x)
	if fromHalf(h) < x {
		h++
	}
	return h
}

func fromHalf(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exp, frac := uint32(h>>10&0x1f), uint32(h&0x3ff)
	if exp == 0 {
		v := float32(frac) / (1 << 24)
		return math.Float32frombits(math.Float32bits(v) | sign)
	}
	return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
}
