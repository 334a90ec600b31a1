// SPDX-License-Identifier: Apache-2.0

package fec_test

import (
	"errors"
	"testing"

	"sluice/pkg/fec"
)

func TestDefaultGroups(t *testing.T) {
	for _, c := range []struct {
		symbolSize int
		span       int64
		want       int
	}{
		{1408, 256 << 20, 992}, {8896, 256 << 20, 157}, {1408, 1 << 30, 3971}, {1408, 1 << 50, 4096}, {1408, 0, 1}, {0, 1 << 20, 1},
	} {
		if got := fec.DefaultGroups(c.symbolSize, c.span); got != c.want {
			t.Errorf("DefaultGroups(%d, %d) = %d, want %d", c.symbolSize, c.span, got, c.want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, c := range []struct {
		size               int64
		symbolSize, groups int
	}{
		{-1, 1408, 1}, {1<<50 + 1, 1408, 4096}, {1, 0, 1}, {1, -1, 1}, {1, 65536, 1}, {1, 1408, 0}, {1, 1408, 4097}, {1 << 50, 1, 1},
	} {
		if _, err := fec.New(c.size, c.symbolSize, c.groups); !errors.Is(err, fec.ErrGeometry) {
			t.Errorf("New(%d, %d, %d): error %v, want ErrGeometry", c.size, c.symbolSize, c.groups, err)
		}
	}
}

func TestSpan(t *testing.T) {
	for name, c := range map[string]struct {
		size               int64
		symbolSize, groups int
		spans, sbn         int
		want               fec.Span
	}{
		"one byte":    {1, 1408, 992, 1, 0, fec.Span{N: 1, D: 1, K: 1, SymbolSize: 1408, Groups: 992}},
		"192 symbols": {192 * 10, 10, 992, 1, 0, fec.Span{N: 192, D: 1, K: 192, SymbolSize: 10, Groups: 992}},
		"193 symbols": {192*10 + 1, 10, 992, 1, 0, fec.Span{N: 193, D: 2, K: 97, SymbolSize: 10, Groups: 992}},
		"full span":   {192 * 4 * 10, 10, 4, 1, 0, fec.Span{N: 768, D: 4, K: 192, SymbolSize: 10, Groups: 4}},
		"second":      {192*4*10 + 1, 10, 4, 2, 1, fec.Span{SBN: 1, First: 768, N: 1, D: 1, K: 1, SymbolSize: 10, Groups: 4}},
		"no such":     {192 * 4 * 10, 10, 4, 1, 1, fec.Span{}},
		"negative":    {192 * 4 * 10, 10, 4, 1, -1, fec.Span{}},
		"empty":       {0, 10, 4, 0, 0, fec.Span{}},
	} {
		g, err := fec.New(c.size, c.symbolSize, c.groups)
		if err != nil {
			t.Fatal(err)
		}
		if got := g.Spans(); got != c.spans {
			t.Errorf("%s: %d spans, want %d", name, got, c.spans)
		}
		if got := g.Span(c.sbn); got != c.want {
			t.Errorf("%s: Span(%d) = %+v, want %+v", name, c.sbn, got, c.want)
		}
	}
}

// TestEveryESI walks every ESI of small spans and of a few beyond.
func TestEveryESI(t *testing.T) {
	for _, size := range []int64{1, 191, 192, 193, 400, 768, 769, 1535} {
		g, err := fec.New(size, 1, 4)
		if err != nil {
			t.Fatal(err)
		}
		for sbn := range g.Spans() {
			checkESIs(t, g.Span(sbn))
		}
	}
}

func checkESIs(t *testing.T, s fec.Span) {
	t.Helper()
	for esi := range uint32(192*4 + 64*4 + 10) {
		p, err := s.Locate(esi)
		source := int(esi) < s.N
		repair := int(esi) >= 192*4 && int(esi) < 192*4+64*s.D
		switch {
		case !source && !repair:
			if !errors.Is(err, fec.ErrESI) {
				t.Fatalf("%+v: Locate(%d): error %v, want ErrESI", s, esi, err)
			}
		case err != nil:
			t.Fatalf("%+v: Locate(%d): %v", s, esi, err)
		case repair && (!p.Repair || s.RepairESI(p.Row, p.Group) != esi || p.Row >= 64 || p.Group >= s.D):
			t.Fatalf("%+v: Locate(%d) = %+v", s, esi, p)
		case source && (p.Repair || p.Row*s.D+p.Group != int(esi) || p.Row >= s.K || p.Group >= s.D):
			t.Fatalf("%+v: Locate(%d) = %+v", s, esi, p)
		}
	}
}

// FuzzGeometry: whatever New accepts is a partition of the object into symbols, and Locate and RepairESI are inverse.
func FuzzGeometry(f *testing.F) {
	f.Add(int64(0), 1408, 992, 0, uint32(0))
	f.Add(int64(1<<30), 1408, 992, 3, uint32(192*992+5))
	f.Add(int64(1<<50), 65535, 4096, 21845, uint32(1<<20-1))
	f.Add(int64(1<<50), 8896, 1, 1<<30, uint32(1<<32-1))
	f.Add(int64(192*7*3+1), 3, 7, 1, uint32(0))
	f.Fuzz(func(t *testing.T, size int64, symbolSize, groups, sbn int, esi uint32) {
		g, err := fec.New(size, symbolSize, groups)
		if err != nil {
			if !errors.Is(err, fec.ErrGeometry) {
				t.Fatalf("error %v is not ErrGeometry", err)
			}
			return
		}
		checkEnds(t, g)
		s := g.Span(sbn)
		if (s == fec.Span{}) != (sbn < 0 || sbn >= g.Spans()) {
			t.Fatalf("Span(%d) = %+v of %d spans", sbn, s, g.Spans())
		}
		p, err := s.Locate(esi)
		switch {
		case err != nil:
			if !errors.Is(err, fec.ErrESI) {
				t.Fatalf("error %v is not ErrESI", err)
			}
		case p.Repair:
			if s.RepairESI(p.Row, p.Group) != esi {
				t.Fatalf("Locate(%d) = %+v", esi, p)
			}
		default:
			if off := s.Offset(int(esi)); off < 0 || off >= size {
				t.Fatalf("source symbol %d at %d of %d bytes", esi, off, size)
			}
		}
	})
}

// checkEnds: the last span ends where the symbols end.
func checkEnds(t *testing.T, g fec.Geometry) {
	t.Helper()
	if g.Spans() == 0 {
		if g.ObjectSize != 0 {
			t.Fatalf("%+v has no spans", g)
		}
		return
	}
	last := g.Span(g.Spans() - 1)
	if last.First+int64(last.N) != g.Symbols() || last.N < 1 || last.K > fec.K || last.K*last.D < last.N || (last.K-1)*last.D >= last.N {
		t.Fatalf("%+v: last span %+v of %d symbols", g, last, g.Symbols())
	}
}
