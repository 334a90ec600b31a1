// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"sluice/internal/console"
)

const (
	// columnGap is the space between two columns.
	columnGap = 2
	// indent sets apart what belongs to the check above it.
	indent = "         "
)

// Print writes one line a check in aligned columns, below what is not ok why it matters and what mends it, and a closing line of
// counts. Everything that came from the host is cleaned.
func Print(w io.Writer, findings []Finding) error {
	widths := columnWidths(findings)
	for _, f := range findings {
		if _, err := io.WriteString(w, line(f, widths)+detail(f)); err != nil {
			return fmt.Errorf("print findings: %w", err)
		}
	}
	_, err := fmt.Fprintln(w, Count(findings))
	return err
}

// ErrFailed says that a check failed: the host is not fit for the link.
var ErrFailed = errors.New("this host is not fit for the link")

// Report prints findings, as text or as a JSON array, and returns [ErrFailed] when one of them is [Fail].
func Report(w io.Writer, findings []Finding, asJSON bool) error {
	if err := write(w, findings, asJSON); err != nil {
		return err
	}
	if n := Count(findings)[Fail]; n > 0 {
		return fmt.Errorf("%w: %s failed; each one's fix stands below it", ErrFailed, console.Count(n, "check"))
	}
	return nil
}

func write(w io.Writer, findings []Finding, asJSON bool) error {
	if !asJSON {
		return Print(w, findings)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false) // fixes hold < and >, and nobody shows them in a page
	if err := e.Encode(findings); err != nil {
		return fmt.Errorf("print findings: %w", err)
	}
	return nil
}

// columns are the cells of a finding's line.
func columns(f Finding) [4]string {
	seen := f.Seen
	if seen == "" {
		seen = "?"
	}
	return [4]string{string(f.Status), f.name(), console.Clean(seen), "want " + console.Clean(f.Wanted)}
}

// columnWidths is how wide each column must be for all findings.
func columnWidths(findings []Finding) (widths [4]int) {
	for _, f := range findings {
		for i, cell := range columns(f) {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

func line(f Finding, widths [4]int) string {
	var b strings.Builder
	for i, cell := range columns(f) {
		b.WriteString(cell)
		b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+columnGap))
	}
	return strings.TrimRight(b.String(), " ") + "\n"
}

// detail is what stands below a finding that is not ok.
func detail(f Finding) string {
	if f.Status == OK {
		return ""
	}
	var b strings.Builder
	for _, part := range [][2]string{{"unknown: ", f.Reason}, {"why: ", f.Why}, {"fix: ", f.Fix}} {
		if part[1] != "" {
			b.WriteString(indent + part[0] + console.Clean(part[1]) + "\n")
		}
	}
	return b.String()
}
