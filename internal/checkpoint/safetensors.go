// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits on safetensors files.
const (
	maxHeader  = 25_000_000 // bytes: what Hub clients read (the format itself allows 100 MB)
	maxRank    = 16         // dimensions a tensor; models use five
	maxTensors = 1_000_000
)

// ErrSafetensors reports a file that is not a strictly well-formed safetensors file.
var ErrSafetensors = errors.New("checkpoint: bad safetensors file")

// Tensor is one tensor of a safetensors file.
type Tensor struct {
	Name       string
	DType      string
	Shape      []int64
	Begin, End int64 // bytes, from Safetensors.Data on
}

// Elements returns the number of elements; ParseSafetensors has checked that it fits.
func (t Tensor) Elements() int64 {
	n := int64(1)
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Safetensors is the table of contents of one file.
type Safetensors struct {
	Tensors  []Tensor // in the order of their data
	Metadata map[string]string
	Data     int64 // offset of the data in the file: 8 + length of the header
	index    map[string]int
}

// Tensor finds a tensor by name.
func (s *Safetensors) Tensor(name string) (Tensor, bool) {
	i, ok := s.index[name]
	if !ok {
		return Tensor{}, false
	}
	return s.Tensors[i], true
}

// dtypeBits is the size of an element in bits, or 0 for an unknown dtype (safetensors, enum Dtype).
func dtypeBits(dtype string) int64 {
	switch dtype {
	case "F4":
		return 4
	case "F6_E2M3", "F6_E3M2":
		return 6
	case "BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ":
		return 8
	case "I16", "U16", "F16", "BF16":
		return 16
	case "I32", "U32", "F32":
		return 32
	case "I64", "U64", "F64", "C64":
		return 64
	}
	return 0
}

func badTensors(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSafetensors, fmt.Sprintf(format, args...))
}

// ParseSafetensors reads and checks the header of a safetensors file of size bytes. It is as strict as the format allows and
// stricter than the reference where parsers differ: the header begins with '{' and ends in '}' and spaces, no duplicate key
// at any level, no unknown key, tensors lie one behind the other from the first byte of the data to the last byte of the
// file, without hole, overlap or rest. Only the header is read: at most 25 MB. Errors wrap ErrSafetensors, or are r's own.
func ParseSafetensors(r io.ReaderAt, size int64) (*Safetensors, error) {
	header, err := readHeader(r, size)
	if err != nil {
		return nil, err
	}
	p := headerParser{s: &Safetensors{Data: 8 + int64(len(header)), index: map[string]int{}}}
	if err := p.parse(header); err != nil {
		return nil, err
	}
	if err := p.s.checkLayout(size - p.s.Data); err != nil {
		return nil, err
	}
	return p.s, nil
}

func readHeader(r io.ReaderAt, size int64) ([]byte, error) {
	var length [8]byte
	if size < int64(len(length)) {
		return nil, badTensors("%d bytes: too short for a header", size)
	}
	if err := readAt(r, length[:], 0); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > maxHeader {
		return nil, badTensors("header of %d bytes: want at most %d", n, int64(maxHeader))
	}
	if int64(n) > size-8 {
		return nil, badTensors("header of %d bytes in a file of %d", n, size)
	}
	header := make([]byte, n)
	if err := readAt(r, header, 8); err != nil {
		return nil, err
	}
	if len(header) < 2 || header[0] != '{' {
		return nil, badTensors("the header does not begin with {")
	}
	if !utf8.Valid(header) {
		return nil, badTensors("the header is not UTF-8")
	}
	return header, nil
}

// readAt fills p; a file that became shorter meanwhile is an error.
func readAt(r io.ReaderAt, p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read at byte %d: %w", off, err)
}

// headerParser walks the header token by token: decoding it into a map would keep the last of two equal keys in silence.
type headerParser struct {
	d *json.Decoder
	s *Safetensors
}

func (p *headerParser) parse(header []byte) error {
	p.d = json.NewDecoder(bytes.NewReader(header))
	p.d.UseNumber()
	err := p.object(func(key string) error {
		if key == "__metadata__" {
			return p.metadata()
		}
		return p.tensor(key)
	})
	if err != nil {
		return err
	}
	if rest := header[p.d.InputOffset():]; len(bytes.Trim(rest, " ")) > 0 {
		return badTensors("data behind the header's object")
	}
	return nil
}

// object reads an object and calls member after each key; member reads the value.
func (p *headerParser) object(member func(key string) error) error {
	if err := p.delim('{'); err != nil {
		return err
	}
	seen := map[string]bool{}
	for {
		tok, err := p.token()
		if err != nil {
			return err
		}
		key, ok := tok.(string)
		if !ok {
			return nil
		}
		if seen[key] {
			return badTensors("duplicate key %.80q", key)
		}
		if seen[key] = true; len(seen) > maxTensors {
			return badTensors("more than %d keys", maxTensors)
		}
		if err := member(key); err != nil {
			return err
		}
	}
}

func (p *headerParser) token() (json.Token, error) {
	tok, err := p.d.Token()
	if err != nil {
		return nil, badTensors("header at byte %d: %v", p.d.InputOffset(), err)
	}
	return tok, nil
}

func (p *headerParser) delim(want json.Delim) error {
	tok, err := p.token()
	if err == nil && tok != want {
		err = badTensors("header at byte %d: want %v", p.d.InputOffset(), want)
	}
	return err
}

func (p *headerParser) text() (string, error) {
	tok, err := p.token()
	if err != nil {
		return "", err
	}
	s, ok := tok.(string)
	if !ok {
		return "", badTensors("header at byte %d: want a string", p.d.InputOffset())
	}
	return s, nil
}

func (p *headerParser) metadata() error {
	p.s.Metadata = map[string]string{}
	return p.object(func(key string) (err error) {
		p.s.Metadata[key], err = p.text()
		return err
	})
}

func (p *headerParser) tensor(name string) error {
	if name == "" || strings.ContainsFunc(name, unicode.IsControl) {
		return badTensors("tensor name %.80q: empty, or with control characters", name)
	}
	t := Tensor{Name: name}
	var offsets []int64
	fields := 0
	err := p.object(func(key string) (err error) {
		fields++
		switch key {
		case "dtype":
			t.DType, err = p.text()
		case "shape":
			t.Shape, err = p.numbers(maxRank)
		case "data_offsets":
			offsets, err = p.numbers(2)
		default:
			err = badTensors("tensor %.80q: unknown key %.80q", name, key)
		}
		return err
	})
	if err != nil {
		return err
	}
	if fields != 3 || len(offsets) != 2 {
		return badTensors("tensor %.80q: want dtype, shape and two data_offsets", name)
	}
	t.Begin, t.End = offsets[0], offsets[1]
	p.s.Tensors = append(p.s.Tensors, t)
	return t.check()
}

// numbers reads a list of at most limit non-negative integers in plain decimal.
func (p *headerParser) numbers(limit int) ([]int64, error) {
	if err := p.delim('['); err != nil {
		return nil, err
	}
	list := []int64{}
	for p.d.More() {
		tok, err := p.token()
		if err != nil {
			return nil, err
		}
		num, ok := tok.(json.Number)
		n, err := strconv.ParseInt(num.String(), 10, 64)
		if !ok || err != nil || n < 0 || num.String() != strconv.FormatInt(n, 10) {
			return nil, badTensors("header at byte %d: want a non-negative integer", p.d.InputOffset())
		}
		if list = append(list, n); len(list) > limit {
			return nil, badTensors("header at byte %d: more than %d numbers", p.d.InputOffset(), limit)
		}
	}
	return list, p.delim(']')
}

// check holds the size in bytes against dtype and shape, without overflow.
func (t Tensor) check() error {
	width := dtypeBits(t.DType)
	if width == 0 {
		return badTensors("tensor %.80q: unknown dtype %.80q", t.Name, t.DType)
	}
	total := uint64(width)
	zero := slices.Contains(t.Shape, 0)
	for _, d := range t.Shape {
		hi, lo := bits.Mul64(total, uint64(max(d, 1)))
		if hi != 0 || lo > math.MaxInt64 {
			return badTensors("tensor %.80q: shape %v overflows", t.Name, t.Shape)
		}
		total = lo
	}
	if zero {
		total = 0
	}
	if total%8 != 0 {
		return badTensors("tensor %.80q: %d bits are no whole bytes", t.Name, total)
	}
	if t.Begin > t.End || uint64(t.End-t.Begin) != total/8 {
		return badTensors("tensor %.80q: %s %v takes %d bytes, data_offsets are [%d, %d]", t.Name, t.DType, t.Shape, total/8, t.Begin, t.End)
	}
	return nil
}

// checkLayout demands that the tensors fill the data exactly.
func (s *Safetensors) checkLayout(data int64) error {
	slices.SortFunc(s.Tensors, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.End, b.End), cmp.Compare(a.Name, b.Name))
	})
	end := int64(0)
	for i, t := range s.Tensors {
		if t.Begin != end {
			return badTensors("tensor %.80q begins at %d, the one before ends at %d: a hole or an overlap", t.Name, t.Begin, end)
		}
		end = t.End
		s.index[t.Name] = i
	}
	if end != data {
		return badTensors("the tensors take %d bytes, the file holds %d behind its header", end, data)
	}
	return nil
}
