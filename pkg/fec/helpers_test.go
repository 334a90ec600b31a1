// SPDX-License-Identifier: Apache-2.0

package fec_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"sluice/pkg/fec"
)

func zeroRows(n, width int) [][]byte {
	rows := make([][]byte, n)
	for i := range rows {
		rows[i] = make([]byte, width)
	}
	return rows
}

func randomRows(random *rand.Rand, n, width int) [][]byte {
	rows := zeroRows(n, width)
	for _, row := range rows {
		fill(random, row)
	}
	return rows
}

func fill(random *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(random.Uint32())
	}
}

func cloneRows(rows [][]byte) [][]byte {
	out := make([][]byte, len(rows))
	for i := range rows {
		out[i] = append([]byte(nil), rows[i]...)
	}
	return out
}

// encode fills the repair rows from firstRow on.
func encode(t testing.TB, firstRow int, source, repair [][]byte) {
	t.Helper()
	encoder, err := fec.NewEncoder(firstRow, len(repair))
	if err != nil {
		t.Fatal(err)
	}
	if err := encoder.Encode(source, repair); err != nil {
		t.Fatal(err)
	}
}

func same(a, b [][]byte) bool { return slices.EqualFunc(a, b, bytes.Equal) }

// differ says where want and got part, or "".
func differ(want, got [][]byte) string {
	if len(want) != len(got) {
		return fmt.Sprintf("%d rows, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(want[i], got[i]) {
			return fmt.Sprintf("row %d is\n%x, want\n%x", i, got[i], want[i])
		}
	}
	return ""
}
