// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"strings"
)

// Status is the verdict of one check.
type Status string

// The statuses. Only [Fail] keeps a transfer from working.
const (
	OK      Status = "ok"      // as it should be
	Warn    Status = "warn"    // costs datagrams, time or certainty
	Fail    Status = "fail"    // would stop or corrupt the transfer
	Unknown Status = "unknown" // could not be checked; Reason says why
)

// Finding is what one check found.
type Finding struct {
	ID     string `json:"id"`
	Status Status `json:"status"`
	// Seen is what is there, with its unit; empty when nothing could be seen.
	Seen string `json:"seen"`
	// Wanted is what should be there, and Why what goes wrong otherwise.
	Wanted string `json:"wanted"`
	Why    string `json:"why"`
	// Fix is the command, or the line of the named file, that mends what is not ok.
	Fix string `json:"fix,omitempty"`
	// Reason is why an unknown thing is unknown.
	Reason string `json:"reason,omitempty"`
	// Lane is which of several lanes it is of; 0: of the host, or of the only one.
	Lane int `json:"lane,omitempty"`
}

// name tells it from the others.
func (f Finding) name() string {
	if f.Lane == 0 {
		return f.ID
	}
	return fmt.Sprintf("%s (lane %d)", f.ID, f.Lane)
}

func (f Finding) ok(seen string) Finding {
	f.Status, f.Seen = OK, seen
	return f
}

func (f Finding) warn(seen, fix string) Finding {
	f.Status, f.Seen, f.Fix = Warn, seen, fix
	return f
}

func (f Finding) fail(seen, fix string) Finding {
	f.Status, f.Seen, f.Fix = Fail, seen, fix
	return f
}

// unknown takes the reason, and what makes the check possible; "" where nothing does.
func (f Finding) unknown(reason error, fix string) Finding {
	f.Status, f.Reason, f.Fix = Unknown, oneLine(reason), fix
	return f
}

// oneLine is an error on one line, as a table needs it.
func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// Counts is how many findings have each status.
type Counts map[Status]int

// Count counts.
func Count(findings []Finding) Counts {
	n := Counts{}
	for _, f := range findings {
		n[f.Status]++
	}
	return n
}

// String is the closing line: "12 ok, 2 warn, 0 fail, 1 unknown".
func (n Counts) String() string {
	return fmt.Sprintf("%d ok, %d warn, %d fail, %d unknown", n[OK], n[Warn], n[Fail], n[Unknown])
}
