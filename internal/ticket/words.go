// SPDX-License-Identifier: Apache-2.0

package ticket

import (
	"fmt"
	"strings"

	"sluice/pkg/fec"
)

// maxWords is how many entries Words lists: a person reads a screen, the rest is a number.
const maxWords = 12

// Words says what a selection asks for, a line an entry.
func Words(s fec.Selection) string {
	var b strings.Builder
	for i, p := range s {
		if i == maxWords {
			fmt.Fprintf(&b, "and %d more\n", len(s)-i)
			break
		}
		fmt.Fprintf(&b, "%s: %s\n", spans(p), strings.Join(append(extents(p.Source), runs(p.Repair)...), "; "))
	}
	return b.String()
}

func spans(p fec.Portion) string {
	if p.Spans == 1 {
		return fmt.Sprintf("span %d", p.SBN)
	}
	return fmt.Sprintf("spans %d to %d, each", p.SBN, p.SBN+p.Spans-1)
}

func extents(list []fec.Extent) (words []string) {
	for i, e := range list {
		if i == maxWords {
			return append(words, fmt.Sprintf("and %d more runs of source symbols", len(list)-i))
		}
		words = append(words, fmt.Sprintf("source symbols %d to %d", e.First, e.First+e.Count-1))
	}
	return words
}

func runs(list []fec.RepairRun) (words []string) {
	for i, r := range list {
		if i == maxWords {
			return append(words, fmt.Sprintf("and %d more runs of groups", len(list)-i))
		}
		words = append(words, fmt.Sprintf("groups %d to %d need %d rows from row %d", r.Group, r.Group+r.Groups-1, r.Rows, r.Row))
	}
	return words
}
