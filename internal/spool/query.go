// SPDX-License-Identifier: Apache-2.0

package spool

// Progress is how far an object has come. Recovered and Repair count over restarts, except that a power cut forgets
// them.
type Progress struct {
	Symbols   int64 // source symbols of the object
	Have      int64 // source symbols that are here, received or recovered; those staged are not counted yet
	Recovered int64 // source symbols that the code recovered
	Repair    int64 // repair symbols that were kept

	Spans, SpansComplete int
}

// SpanDeficit says what an incomplete span lacks: one line of a shortfall ticket.
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
