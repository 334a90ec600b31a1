// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"math/bits"

	"sluice/pkg/fec"
)

// Progress is how far an object has come. Recovered and Repair count over restarts, except that a power cut forgets
// them.
type Progress struct {
	Symbols   int64 // source symbols of the object
	Have      int64 // source symbols that are here, received or recovered; those staged are not counted yet
	Recovered int64 // source symbols that the code recovered
	Repair    int64 // repair symbols that were kept

	Spans, SpansComplete int
}

// SpanDeficit says how much an incomplete span lacks; Lack says what.
type SpanDeficit struct {
	SBN     int
	Lost    int // source symbols that are not here
	Deficit int // repair symbols that the worst group still needs; so many fresh rows complete the span
}

// Progress returns how far the object has come. It takes no lock.
func (o *Object) Progress() Progress {
	return Progress{
		Symbols:       o.geometry.Symbols(),
		Have:          o.have.Load(),
		Recovered:     o.recovered.Load(),
		Repair:        o.repair.Load(),
		Spans:         o.geometry.Spans(),
		SpansComplete: int(o.complete.Load()),
	}
}

// Missing returns what each incomplete span lacks, in order of SBN. Call [Object.Flush] before: symbols that are staged,
// and groups that wait to be repaired, count as lost.
func (o *Object) Missing() []SpanDeficit {
	o.mu.Lock()
	defer o.mu.Unlock()
	var missing []SpanDeficit
	for sbn, lost := range o.counts.spanLost {
		if lost > 0 {
			deficit := o.counts.deficit(o.geometry.Span(sbn))
			missing = append(missing, SpanDeficit{SBN: sbn, Lost: int(lost), Deficit: deficit})
		}
	}
	return missing
}

// Lack is what an incomplete span needs. Its slices are valid until the next one.
type Lack struct {
	Span    fec.Span
	Deficit []uint8      // of each group: repair symbols that it still needs; 0: whole, or to be repaired with what is here
	Missing []fec.Extent // runs of source symbols that are not here, in order
}

// FreshRow returns the first repair row of which no incomplete span holds a symbol, nor of any later one: rows from there on were
// not used up yet, 64 if there is none. The lock is taken a span at a time.
func (o *Object) FreshRow() (int, error) {
	fresh := 0
	for sbn := range o.spans {
		row, err := o.freshRow(sbn, fresh)
		if err != nil {
			return 0, err
		}
		fresh = row
	}
	return fresh, nil
}

// freshRow is FreshRow for one span, of rows from a first one on.
func (o *Object) freshRow(sbn, first int) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.usable(); err != nil {
		return 0, err
	}
	if o.counts.spanLost[sbn] == 0 {
		return first, nil
	}
	s, repair := o.geometry.Span(sbn), o.bits.repairOf(sbn)
	for i := fec.MaxRows*s.D - 1; i >= first*s.D; i-- {
		if isSet(repair, i) {
			return i/s.D + 1, nil
		}
	}
	return first, nil
}

// Lacking calls yield for each incomplete span, in order of SBN, until it returns an error, which is returned. The lock is taken for
// one span at a time and never while yield runs, so that Put waits for microseconds; memory is that of one span. Call [Object.Flush]
// before, as for [Object.Missing]. What arrives meanwhile may still be counted as missing.
func (o *Object) Lacking(yield func(Lack) error) error {
	lack := Lack{Deficit: make([]uint8, 0, o.geometry.Groups)}
	for sbn := range o.spans {
		incomplete, err := o.lack(sbn, &lack)
		if err != nil {
			return err
		}
		if !incomplete {
			continue
		}
		if err := yield(lack); err != nil {
			return err
		}
	}
	return nil
}

// lack fills in what a span needs.
func (o *Object) lack(sbn int, lack *Lack) (incomplete bool, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.usable(); err != nil {
		return false, err
	}
	if o.counts.spanLost[sbn] == 0 {
		return false, nil
	}
	s := o.geometry.Span(sbn)
	lack.Span, lack.Deficit = s, lack.Deficit[:s.D]
	for group := range s.D {
		i := sbn*o.counts.groups + group
		lack.Deficit[group] = o.counts.lost[i] - min(o.counts.lost[i], o.counts.repair[i])
	}
	lack.Missing = appendGaps(lack.Missing[:0], o.bits.sourceOf(sbn), s.N)
	return true, nil
}

// appendGaps appends the runs of zeros among the first n bits, word by word.
func appendGaps(gaps []fec.Extent, words []uint64, n int) []fec.Extent {
	for i := 0; i < n; {
		w := words[i>>6] >> (i & 63)
		if w&1 != 0 {
			i += bits.TrailingZeros64(^w) // zeros shifted in end the run with the word
			continue
		}
		first := i
		for i < n && !isSet(words, i) {
			i += min(bits.TrailingZeros64(words[i>>6]>>(i&63)), 64-i%64)
		}
		gaps = append(gaps, fec.Extent{First: first, Count: min(i, n) - first})
	}
	return gaps
}
