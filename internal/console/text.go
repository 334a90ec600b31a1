// SPDX-License-Identifier: Apache-2.0

package console

import (
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"
)

// shortDigest is how much of a digest or commit is shown where a person only tells two of them apart.
const shortDigest = 8

// Bytes writes a size in decimal units: "316 MB". A negative size is unknown: "?".
func Bytes(n int64) string {
	if n < 0 {
		return "?"
	}
	return humanize.Bytes(uint64(n))
}

// Rate writes bytes a second: "52 MB/s".
func Rate(bytesPerSecond float64) string {
	if !isAmount(bytesPerSecond) {
		return "?"
	}
	return humanize.Bytes(uint64(bytesPerSecond)) + "/s"
}

// BitRate writes bits a second: "4.2 Gbit/s".
func BitRate(bitsPerSecond float64) string {
	if !isAmount(bitsPerSecond) {
		return "?"
	}
	return strings.TrimSpace(humanize.SIWithDigits(bitsPerSecond, 1, "bit/s"))
}

func isAmount(f float64) bool { return f >= 0 && f < math.MaxInt64 }

// Duration writes a span for a person, two units at most: "40 ms", "3.2 s", "2 min 5 s", "1 h 20 min", "3 d 4 h".
func Duration(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + Duration(-max(d, -math.MaxInt64))
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Truncate(100*time.Millisecond).Seconds())
	case d < time.Hour:
		return pair(d, time.Minute, "min", time.Second, "s")
	case d < 24*time.Hour:
		return pair(d, time.Hour, "h", time.Minute, "min")
	}
	return pair(d, 24*time.Hour, "d", time.Hour, "h")
}

func pair(d, large time.Duration, largeName string, small time.Duration, smallName string) string {
	if rest := d % large / small; rest > 0 {
		return fmt.Sprintf("%d %s %d %s", d/large, largeName, rest, smallName)
	}
	return fmt.Sprintf("%d %s", d/large, largeName)
}

// Count writes a number with its noun: "1 file", "12 files", "1,204 files".
func Count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return humanize.Comma(int64(n)) + " " + noun
}

// Short cuts a digest or a commit to what tells two of them apart; "sha256:" in front is dropped.
func Short(digest string) string {
	digest = strings.TrimPrefix(digest, "sha256:")
	return Clean(digest[:min(len(digest), shortDigest)])
}

// Clean makes text from outside safe to print on one line: control characters, escape sequences, line and direction changes and
// invalid UTF-8 become '?'.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

// Truncate cleans s and cuts it to at most width characters, the last one an ellipsis.
func Truncate(s string, width int) string {
	runes := []rune(Clean(s))
	if len(runes) <= width {
		return string(runes)
	}
	return string(runes[:max(width-1, 0)]) + "…"
}

// columnGap is the space between two columns of a table.
const columnGap = 2

// Table prints rows in aligned columns under an optional header. Cells are cleaned.
func Table(w io.Writer, header []string, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, columnGap, ' ', 0)
	if len(header) > 0 {
		rows = append([][]string{header}, rows...)
	}
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = Clean(cell)
		}
		if _, err := fmt.Fprintln(t, strings.Join(cells, "\t")); err != nil {
			return fmt.Errorf("print table: %w", err)
		}
	}
	return t.Flush()
}
