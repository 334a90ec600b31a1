// SPDX-License-Identifier: Apache-2.0

// Package fec turns an object into encoding symbols and back: the code of docs/spec/datagram.md section 4.
//
//	object   |<------------- span 0 ------------->|<-- span 1 -->| ...        192*G symbols a span
//
//	span                 group 0   group 1   ...  group D-1
//	  row 0              [  0  ]   [  1  ]        [ D-1 ]     a row is one contiguous piece of the object
//	  row 1              [  D  ]   [ D+1 ]        [2D-1 ]
//	  ...
//	  row k-1            [     ]   [     ]        [     ]     k <= 192
//	  repair row 0       [     ]   [     ]        [     ]     Cauchy over GF(2^8): a column is one code word,
//	  ...                                                     any e repair symbols of a group replace any e losses
//	  repair row 63      [     ]   [     ]        [     ]
//
// A column loses one symbol for every D lost in a row, so a contiguous outage of m*D symbols is repaired by m repair
// rows. The package is pure: it computes positions ([Geometry], [Span]) and bytes ([Encoder], [Decoder]), and touches
// neither files nor the network. The byte work runs in the vector kernels of klauspost/reedsolomon, under the matrix
// that the specification fixes ([Coefficient]), so that the format does not depend on that library.
package fec

import (
	"errors"
	"fmt"
)

// The dimensions of the code (docs/spec/datagram.md section 4).
const (
	K         = 192  // source symbols in a full code word; 192 + 64 = 256, all that GF(2^8) has
	MaxRows   = 64   // repair rows
	MaxGroups = 4096 // code words interleaved in one span; the announcement's cap on G
)

const (
	// maxSymbolSize: a symbol travels in one UDP datagram.
	maxSymbolSize = 65535
	// maxObjectSize is the announcement's cap on the payload (docs/spec/datagram.md section 2).
	maxObjectSize = 1 << 50
	// maxSpans: the SBN is 32 bits on the wire.
	maxSpans = 1 << 32
)

var (
	// ErrGeometry says that no object can be laid out that way.
	ErrGeometry = errors.New("fec: impossible geometry")
	// ErrESI says that the span has no encoding symbol of that number.
	ErrESI = errors.New("fec: no such encoding symbol")
)

// Geometry says how an object is cut into spans, groups and symbols. Make it with [New]; it is a value, immutable by
// convention, and comparable.
type Geometry struct {
	ObjectSize int64 // bytes
	SymbolSize int   // bytes, T of the specification
	Groups     int   // G: groups in a full span
}

// New checks and returns a geometry: objectSize in bytes (0 to 2^50), symbolSize in bytes (1 to 65535), groups in a
// full span (1 to [MaxGroups]). It returns an error that is [ErrGeometry] for anything else.
func New(objectSize int64, symbolSize, groups int) (Geometry, error) {
	g := Geometry{ObjectSize: objectSize, SymbolSize: symbolSize, Groups: groups}
	switch {
	case objectSize < 0 || objectSize > maxObjectSize:
		return Geometry{}, fmt.Errorf("%w: an object of %d bytes, want 0 to %d", ErrGeometry, objectSize, int64(maxObjectSize))
	case symbolSize < 1 || symbolSize > maxSymbolSize:
		return Geometry{}, fmt.Errorf("%w: symbols of %d bytes, want 1 to %d", ErrGeometry, symbolSize, maxSymbolSize)
	case groups < 1 || groups > MaxGroups:
		return Geometry{}, fmt.Errorf("%w: %d groups, want 1 to %d", ErrGeometry, groups, MaxGroups)
	case g.spans() > maxSpans:
		return Geometry{}, fmt.Errorf("%w: %d spans, more than an SBN can number; use more groups", ErrGeometry, g.spans())
	}
	return g, nil
}

// DefaultGroups returns the largest G whose full span is at most spanBytes, within 1 to [MaxGroups]: 992 for symbols
// of 1408 bytes and 256 MiB, 157 for 8896. A symbolSize below 1 gives 1.
func DefaultGroups(symbolSize int, spanBytes int64) int {
	if symbolSize < 1 {
		return 1
	}
	return int(max(1, min(spanBytes/(K*int64(symbolSize)), MaxGroups)))
}

// Symbols returns N, the number of source symbols of the object; the last one may be padded.
func (g Geometry) Symbols() int64 {
	return ceilDiv(g.ObjectSize, int64(g.SymbolSize))
}

// Spans returns the number of spans; 0 for an empty object.
func (g Geometry) Spans() int { return int(g.spans()) }

func (g Geometry) spans() int64 { return ceilDiv(g.Symbols(), g.spanSymbols()) }

// spanSymbols is the number of source symbols in a full span.
func (g Geometry) spanSymbols() int64 { return K * int64(g.Groups) }

// Span describes span sbn. The caller checks 0 <= sbn < Spans(); any other number gives the zero Span, in which no
// ESI exists.
func (g Geometry) Span(sbn int) Span {
	if sbn < 0 || int64(sbn) >= g.spans() {
		return Span{}
	}
	first := int64(sbn) * g.spanSymbols()
	n := int(min(g.spanSymbols(), g.Symbols()-first))
	d := min(g.Groups, (n+K-1)/K)
	return Span{
		SBN:        sbn,
		First:      first,
		N:          n,
		D:          d,
		K:          (n + d - 1) / d,
		SymbolSize: g.SymbolSize,
		Groups:     g.Groups,
	}
}

// Span is one source block (RFC 5052): N source symbols in D groups of up to K rows. Source symbol i (0 <= i < N) is
// row i/D of group i%D. The symbols of the last row at and past N are zeros that are never sent.
type Span struct {
	SBN        int   // its number
	First      int64 // first source symbol, counted from the start of the object
	N          int   // source symbols
	D          int   // groups
	K          int   // source rows, at most [K]
	SymbolSize int   // bytes
	Groups     int   // G of the geometry, which places the repair ESIs
}

// Position is what an ESI means: a source symbol or a repair symbol, its row and its group.
type Position struct {
	Repair     bool
	Row, Group int
}

// RepairESI returns the ESI of the symbol of a repair row (0 to 63) in a group (0 to D-1). The caller keeps to these
// ranges; [Span.Locate] checks what comes from outside.
func (s Span) RepairESI(row, group int) uint32 {
	return uint32(K*s.Groups + row*s.D + group)
}

// Locate returns the position of an ESI, or an error that is [ErrESI] if the span has no such symbol.
func (s Span) Locate(esi uint32) (Position, error) {
	if int64(esi) < int64(s.N) {
		return Position{Row: int(esi) / s.D, Group: int(esi) % s.D}, nil
	}
	r := int64(esi) - int64(K*s.Groups)
	if r < 0 || r >= int64(MaxRows*s.D) {
		return Position{}, fmt.Errorf("%w: SBN %d, ESI %d: the span has %d source symbols and repair symbols %d to %d",
			ErrESI, s.SBN, esi, s.N, K*s.Groups, K*s.Groups+MaxRows*s.D-1)
	}
	return Position{Repair: true, Row: int(r) / s.D, Group: int(r) % s.D}, nil
}

// Offset returns the byte offset in the object of source symbol i of the span (0 <= i < N).
func (s Span) Offset(i int) int64 {
	return (s.First + int64(i)) * int64(s.SymbolSize)
}

func ceilDiv(a, b int64) int64 { return a/b + (a%b+b-1)/b }
