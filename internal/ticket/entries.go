// SPDX-License-Identifier: Apache-2.0

package ticket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"sluice/pkg/fec"
)

// appendEntries writes a selection as section 2 says.
func appendEntries(b []byte, need fec.Selection) []byte {
	next := 0
	for _, p := range need {
		b = appendEntry(b, p, p.SBN-next)
		next = p.SBN + p.Spans
	}
	return b
}

func appendEntry(b []byte, p fec.Portion, skip int) []byte {
	b = appendNumbers(b, skip, p.Spans, len(p.Source), len(p.Repair))
	next := 0
	for _, e := range p.Source {
		b = appendNumbers(b, e.First-next, e.Count)
		next = e.First + e.Count
	}
	next = 0
	for _, r := range p.Repair {
		b = appendNumbers(b, r.Group-next, r.Groups, r.Rows)
		next = r.Group + r.Groups
	}
	return b
}

func appendNumbers(b []byte, numbers ...int) []byte {
	for _, n := range numbers {
		b = binary.AppendUvarint(b, uint64(n))
	}
	return b
}

// readEntries reads what appendEntries writes. What the numbers mean is checked by fec.Selection.Check; here only that they are
// numbers, so that nothing is allocated that was not there.
func readEntries(b []byte, fresh int) (fec.Selection, error) {
	r, next := &numbers{rest: b}, 0
	var need fec.Selection
	for len(r.rest) > 0 && r.err == nil {
		p := r.entry(next, fresh)
		next = p.SBN + p.Spans
		need = append(need, p)
	}
	if r.err != nil {
		return nil, fmt.Errorf("%w: entry %d: %w", ErrFormat, len(need), r.err)
	}
	return need, nil
}

// numbers reads numbers until one cannot be read; from then on it gives zeros.
type numbers struct {
	rest []byte
	err  error
}

var (
	errEnds      = errors.New("the ticket ends in the middle of it")
	errNotNumber = errors.New("a number is not in its one form")
)

// next reads one number in its shortest form (section 2); below 2^32 that is at most 5 bytes.
func (r *numbers) next() int {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.rest)
	switch {
	case n == 0:
		r.err = errEnds
	case n < 0 || v > math.MaxUint32 || n > 1 && r.rest[n-1] == 0:
		r.err = errNotNumber
	}
	if r.err != nil {
		return 0
	}
	r.rest = r.rest[n:]
	return int(v)
}

// entry reads one entry; next is the first span that it may name.
func (r *numbers) entry(next, fresh int) fec.Portion {
	p := fec.Portion{SBN: next + r.next(), Spans: r.next()}
	extents, runs := r.next(), r.next()
	at := 0
	for i := 0; i < extents && r.err == nil; i++ {
		e := fec.Extent{First: at + r.next(), Count: r.next()}
		at = e.First + e.Count
		p.Source = append(p.Source, e)
	}
	at = 0
	for i := 0; i < runs && r.err == nil; i++ {
		run := fec.RepairRun{Group: at + r.next(), Groups: r.next(), Row: fresh, Rows: r.next()}
		at = run.Group + run.Groups
		p.Repair = append(p.Repair, run)
	}
	return p
}
