// SPDX-License-Identifier: Apache-2.0

package fec_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"sluice/pkg/fec"
)

const vectorDir = "../../testdata/vectors/fec"

// vector is one object of testdata/vectors/fec/objects.json; README.md there says what the fields mean.
type vector struct {
	Name       string         `json:"name"`
	ObjectSize int64          `json:"object_size"`
	SymbolSize int            `json:"symbol_size"`
	Groups     int            `json:"groups"`
	Content    string         `json:"content_sha256"`
	Spans      []vectorSpan   `json:"spans"`
	Repair     []vectorSymbol `json:"repair"`
}

type vectorSpan struct {
	SBN   int   `json:"sbn"`
	First int64 `json:"first"`
	N     int   `json:"n"`
	D     int   `json:"d"`
	K     int   `json:"k"`
}

type vectorSymbol struct {
	SBN   int    `json:"sbn"`
	ESI   uint32 `json:"esi"`
	Row   int    `json:"row"`
	Group int    `json:"group"`
	Data  string `json:"data"`
}

// content is the object of a vector: blocks of SHA-256("sluice fec vector " || name || 8-byte counter).
func content(name string, size int64) []byte {
	var b []byte
	for i := uint64(0); int64(len(b)) < size; i++ {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte("sluice fec vector "+name), i))
		b = append(b, sum[:]...)
	}
	return b[:size]
}

// rowsOf cuts a span out of the object, padded with zeros to whole rows.
func rowsOf(object []byte, s fec.Span) [][]byte {
	rows := zeroRows(s.K, s.D*s.SymbolSize)
	for i := range s.N {
		from := min(s.Offset(i), int64(len(object)))
		to := min(from+int64(s.SymbolSize), int64(len(object)))
		copy(rows[i/s.D][i%s.D*s.SymbolSize:], object[from:to])
	}
	return rows
}

// compute fills in a vector from its name and its geometry.
func compute(t *testing.T, v vector) vector {
	t.Helper()
	g, err := fec.New(v.ObjectSize, v.SymbolSize, v.Groups)
	if err != nil {
		t.Fatal(err)
	}
	object := content(v.Name, v.ObjectSize)
	sum := sha256.Sum256(object)
	v.Content, v.Spans, v.Repair = hex.EncodeToString(sum[:]), nil, nil
	for sbn := range g.Spans() {
		s := g.Span(sbn)
		v.Spans = append(v.Spans, vectorSpan{SBN: sbn, First: s.First, N: s.N, D: s.D, K: s.K})
		repair := zeroRows(fec.MaxRows, s.D*s.SymbolSize)
		encode(t, 0, rowsOf(object, s), repair)
		for _, row := range []int{0, 1, 9, 10, 63} {
			for group := range s.D {
				v.Repair = append(v.Repair, vectorSymbol{
					SBN: sbn, ESI: s.RepairESI(row, group), Row: row, Group: group,
					Data: hex.EncodeToString(repair[row][group*s.SymbolSize : (group+1)*s.SymbolSize]),
				})
			}
		}
	}
	return v
}

func vectors(t *testing.T) []byte {
	t.Helper()
	var all []vector
	for _, v := range []vector{
		{Name: "full-span", ObjectSize: 192 * 2 * 8, SymbolSize: 8, Groups: 2},
		{Name: "one-byte", ObjectSize: 1, SymbolSize: 8, Groups: 4},
		{Name: "one-group", ObjectSize: 192 * 8, SymbolSize: 8, Groups: 4},
		{Name: "one-symbol-more-than-a-group", ObjectSize: 192*8 + 3, SymbolSize: 8, Groups: 4},
		{Name: "full-and-short-span", ObjectSize: 192*3*5 + 1001, SymbolSize: 5, Groups: 3},
		{Name: "last-symbol-is-one-byte", ObjectSize: 192*3*7 + 7*100 + 1, SymbolSize: 7, Groups: 3},
	} {
		all = append(all, compute(t, v))
	}
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

func matrixText() []byte {
	var b strings.Builder
	for row := range fec.MaxRows {
		for column := range fec.K {
			fmt.Fprintf(&b, "%02x", fec.Coefficient(row, column))
		}
		b.WriteByte('\n')
	}
	return []byte(b.String())
}

// TestVectors: the committed files are what the code computes. To write them anew, after a change of the specification
// only: SLUICE_WRITE_VECTORS=1 go test ./pkg/fec -run TestVectors
func TestVectors(t *testing.T) {
	for name, want := range map[string][]byte{"matrix.hex": matrixText(), "objects.json": vectors(t)} {
		path := filepath.Join(vectorDir, name)
		if os.Getenv("SLUICE_WRITE_VECTORS") != "" {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what this code computes: the format has changed", path)
		}
	}
}

// TestVectorsInPython: a second reader, written from the specification in another language, computes the same.
func TestVectorsInPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here: the second reader of the vectors did NOT run")
	}
	out, err := exec.CommandContext(t.Context(), python, filepath.Join(vectorDir, "check_fec.py")).CombinedOutput()
	if err != nil {
		t.Fatalf("check_fec.py: %v\n%s", err, out)
	}
	t.Logf("%s", out)
}
