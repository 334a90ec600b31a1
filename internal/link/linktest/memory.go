// SPDX-License-Identifier: Apache-2.0

package linktest

import (
	"context"
	"fmt"
	"sync"

	"sluice/internal/link"
	"sluice/pkg/fec"
)

// Memory is a link.Payload in memory: it keeps every symbol and repairs at
// Flush. It is safe for concurrent use.
type Memory struct {
	mu       sync.Mutex
	geometry fec.Geometry
	decoder  *fec.Decoder
	data     []byte // padded to whole symbols
	have     []bool // of each source symbol
	missing  int64
	repair   map[place][]byte
	flushes  int
}

// place is a repair symbol.
type place struct{ sbn, row, group int }

// NewMemory makes an empty object.
func NewMemory(g fec.Geometry) *Memory {
	n := g.Symbols()
	return &Memory{
		geometry: g, decoder: fec.NewDecoder(), data: make([]byte, n*int64(g.SymbolSize)),
		have: make([]bool, n), missing: n, repair: make(map[place][]byte),
	}
}

// Put implements link.Payload.
func (m *Memory) Put(sbn, esi uint32, symbol []byte) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.put(sbn, esi, symbol)
}

// Hold implements link.Holder.
func (m *Memory) Hold() link.Held {
	m.mu.Lock()
	return heldMemory{m}
}

// heldMemory is a memory whose lock is held.
type heldMemory struct{ *Memory }

func (h heldMemory) Put(sbn, esi uint32, symbol []byte) (bool, error) { return h.put(sbn, esi, symbol) }
func (h heldMemory) Release()                                         { h.mu.Unlock() }

// Slot shows the place of a source symbol that is missing.
func (h heldMemory) Slot(sbn, esi uint32) []byte {
	span := h.geometry.Span(int(sbn))
	if int64(esi) >= int64(span.N) || h.have[span.First+int64(esi)] {
		return nil
	}
	return h.data[span.Offset(int(esi)):][:span.SymbolSize:span.SymbolSize]
}

// put is Put with the lock held.
func (m *Memory) put(sbn, esi uint32, symbol []byte) (bool, error) {
	span := m.geometry.Span(int(sbn))
	p, err := span.Locate(esi)
	switch {
	case err != nil:
		return false, err
	case len(symbol) != span.SymbolSize:
		return false, fmt.Errorf("symbol of %d bytes, want %d", len(symbol), span.SymbolSize)
	case !p.Repair:
		return m.putSource(span, int(esi), symbol), nil
	}
	at := place{span.SBN, p.Row, p.Group}
	if m.repair[at] != nil {
		return false, nil
	}
	m.repair[at] = append([]byte(nil), symbol...)
	return true, nil
}

// putSource stores source symbol i of a span.
func (m *Memory) putSource(span fec.Span, i int, symbol []byte) bool {
	if m.have[span.First+int64(i)] {
		return false
	}
	m.have[span.First+int64(i)] = true
	m.missing--
	copy(m.data[span.Offset(i):], symbol)
	return true
}

// Flush implements link.Payload: it repairs every group that can be.
func (m *Memory) Flush(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushes++
	for sbn := range m.geometry.Spans() {
		span := m.geometry.Span(sbn)
		for group := range span.D {
			if err := m.repairGroup(span, group); err != nil {
				return err
			}
		}
	}
	return nil
}

// repairGroup recovers the lost symbols of one group if there are repair symbols
// enough.
func (m *Memory) repairGroup(span fec.Span, group int) error {
	var source [][]byte
	var lost []int
	for j := range span.K {
		i := j*span.D + group
		if i >= span.N {
			source = append(source, make([]byte, span.SymbolSize))
			continue
		}
		source = append(source, m.data[span.Offset(i):][:span.SymbolSize])
		if !m.have[span.First+int64(i)] {
			lost = append(lost, j)
		}
	}
	repair := m.repairOf(span.SBN, group)
	if len(lost) == 0 || len(repair) < len(lost) {
		return nil
	}
	if err := m.decoder.Decode(source, lost, repair); err != nil {
		return err
	}
	for _, j := range lost {
		m.have[span.First+int64(j*span.D+group)] = true
		m.missing--
	}
	return nil
}

// repairOf returns the repair symbols held of a group.
func (m *Memory) repairOf(sbn, group int) []fec.Repair {
	var list []fec.Repair
	for row := range fec.MaxRows {
		if data := m.repair[place{sbn, row, group}]; data != nil {
			list = append(list, fec.Repair{Row: row, Data: data})
		}
	}
	return list
}

// Refused implements link.Payload: no release is refused once it was accepted.
func (m *Memory) Refused() bool { return false }

// Complete implements link.Payload.
func (m *Memory) Complete() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.missing == 0
}

// Missing returns how many source symbols are missing.
func (m *Memory) Missing() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.missing
}

// Flushes returns how often Flush was called.
func (m *Memory) Flushes() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flushes
}

// Bytes returns a copy of the object, zeros where symbols are missing.
func (m *Memory) Bytes() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]byte(nil), m.data[:m.geometry.ObjectSize]...)
}
