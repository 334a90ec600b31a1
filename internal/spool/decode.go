// SPDX-License-Identifier: Apache-2.0

package spool

import (
	"fmt"
	"math/bits"
	"slices"

	"sluice/pkg/fec"
)

// pattern is the damage of a group and the repair rows to use: neighbours with equal patterns are repaired together, and
// after a burst most are equal.
type pattern struct {
	lost [fec.K / 64]uint64 // bit j: source row j is lost
	rows uint64             // bit r: repair row r is used; as many as there are lost
}

// job is the repair of one slab. Groups are counted from the first of the slab.
type job struct {
	slab     int
	span     fec.Span
	first    int    // group of the span that is group 0 here
	mask     uint64 // groups to repair
	patterns [maxSlabGroups]pattern
}

// bench is the decoder's working memory.
type bench struct {
	decoder *fec.Decoder
	source  []byte // the rows of the slab, one after the other
	repair  []byte
	rows    [][]byte
	piece   [][]byte
	lost    []int
	extra   []fec.Repair
}

// repairer is the decoder goroutine: it takes slabs off the queue and repairs them, one at a time. While it works on a
// slab, mu is free; symbols of the same slab may arrive and are written twice, with the same bytes.
func (o *Object) repairer() {
	var b bench
	var j job
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		next := o.repairable()
		for ; !o.quit && next < 0; next = o.repairable() {
			if o.trim || o.Complete() {
				b, o.trim = bench{}, false // a pass has ended: give the memory back
			}
			o.changed.Wait()
		}
		if o.quit {
			return
		}
		slab := o.ready[next]
		o.ready = slices.Delete(o.ready, next, next+1)
		o.queued[slab] = false
		if o.plan(&j, slab); j.mask != 0 {
			o.decoding = slab
			o.mu.Unlock()
			err := b.run(o, &j)
			o.mu.Lock()
			o.decoding = none
			o.commit(&j, err)
		}
		o.changed.Broadcast()
	}
}

// repairable is the place in the queue of the first slab in whose span nothing is on its way past the page cache: nothing of it may be
// written through the page cache meanwhile (goesPast). Below 0: there is none.
func (o *Object) repairable() int {
	return slices.IndexFunc(o.ready, func(slab int) bool { return !o.staging.flying(slab / o.counts.slabs) })
}

// plan reads off the bits what there is to do in a slab.
func (o *Object) plan(j *job, slab int) {
	c := &o.counts
	s := o.geometry.Span(slab / c.slabs)
	*j = job{slab: slab, span: s, first: slab % c.slabs * c.slabGroups}
	width := min(c.slabGroups, s.D-j.first)
	for group := range width {
		if i := s.SBN*c.groups + j.first + group; c.lost[i] > 0 && c.repair[i] >= c.lost[i] {
			j.mask |= 1 << group
		}
	}
	source, repair := o.bits.sourceOf(s.SBN), o.bits.repairOf(s.SBN)
	for row := range s.K {
		at := row*s.D + j.first
		n := min(width, s.N-at) // the last row may end here
		if n <= 0 {
			break
		}
		for rest := ^word(source, at, n) & low(n) & j.mask; rest != 0; rest &= rest - 1 {
			j.patterns[bits.TrailingZeros64(rest)].lost[row/64] |= 1 << (row % 64)
		}
	}
	for row := range fec.MaxRows {
		for rest := word(repair, row*s.D+j.first, width) & j.mask; rest != 0; rest &= rest - 1 {
			group := bits.TrailingZeros64(rest)
			if p := &j.patterns[group]; bits.OnesCount64(p.rows) < countSet(p.lost[:]) {
				p.rows |= 1 << row
			}
		}
	}
}

// run reads, repairs and writes back. It holds no lock and touches neither bits nor counts.
func (b *bench) run(o *Object, j *job) error {
	start, end := bits.TrailingZeros64(j.mask), bits.Len64(j.mask)
	if err := b.read(o, j, start, end); err != nil {
		return fmt.Errorf("read span %d: %w", j.span.SBN, err)
	}
	for at := start; at < end; {
		if j.mask>>at&1 == 0 {
			at++
			continue
		}
		run := at
		for at++; at < end && j.mask>>at&1 != 0 && j.patterns[at] == j.patterns[run]; {
			at++
		}
		if err := b.mend(o, j, run, at, start); err != nil {
			return fmt.Errorf("repair of span %d, groups %d to %d: %w", j.span.SBN, j.first+run, j.first+at-1, err)
		}
	}
	return nil
}

// read fills b.rows with groups start to end of every source row; what is lost holds anything.
func (b *bench) read(o *Object, j *job, start, end int) error {
	s := j.span
	width := (end - start) * s.SymbolSize
	b.source = slices.Grow(b.source[:0], s.K*width)[:s.K*width]
	b.rows = b.rows[:0]
	for row := range s.K {
		buf := b.source[row*width : (row+1)*width : (row+1)*width]
		b.rows = append(b.rows, buf)
		// Only the last span has symbols that are never sent; they lie behind the object's end and are read as zeros.
		if err := o.files.readAt(buf, s.Offset(row*s.D+j.first+start)); err != nil {
			return err
		}
	}
	return nil
}

// mend repairs groups from to end, which share a pattern, in b.rows, whose first group is start; and writes them back.
func (b *bench) mend(o *Object, j *job, from, end, start int) error {
	s, p := j.span, &j.patterns[from]
	low, high := (from-start)*s.SymbolSize, (end-start)*s.SymbolSize
	b.piece, b.lost = b.piece[:0], b.lost[:0]
	for row := range b.rows {
		b.piece = append(b.piece, b.rows[row][low:high])
		if p.lost[row/64]>>(row%64)&1 != 0 {
			b.lost = append(b.lost, row)
		}
	}
	if err := b.readRepair(o, s, p.rows, j.first+from, high-low); err != nil {
		return err
	}
	if b.decoder == nil {
		b.decoder = fec.NewDecoder()
	}
	if err := b.decoder.Decode(b.piece, b.lost, b.extra); err != nil {
		return err
	}
	for _, row := range b.lost {
		if err := o.files.writeAt(b.piece[row], s.Offset(row*s.D+j.first+from)); err != nil {
			return err
		}
	}
	return nil
}

// readRepair fills b.extra with a piece of each of the given repair rows, from a group on.
func (b *bench) readRepair(o *Object, s fec.Span, rows uint64, group, width int) error {
	n := bits.OnesCount64(rows)
	b.repair = slices.Grow(b.repair[:0], n*width)[:n*width]
	b.extra = b.extra[:0]
	for rest, at := rows, 0; rest != 0; rest, at = rest&(rest-1), at+width {
		row, data := bits.TrailingZeros64(rest), b.repair[at:at+width]
		if _, err := o.side.ReadAt(data, repairOffset(s, row, group)); err != nil {
			return fmt.Errorf("repair row %d: %w", row, err)
		}
		b.extra = append(b.extra, fec.Repair{Row: row, Data: data})
	}
	return nil
}

// commit sets the bits of what a job repaired. The caller holds mu.
func (o *Object) commit(j *job, err error) {
	if err != nil {
		_ = o.fail(err) // sticky: the next call returns it
		return
	}
	fresh := 0
	for rest := j.mask; rest != 0; rest &= rest - 1 {
		group := bits.TrailingZeros64(rest)
		for w, lost := range j.patterns[group].lost {
			for ; lost != 0; lost &= lost - 1 {
				row := w*64 + bits.TrailingZeros64(lost)
				fresh += o.mark(j.span, row*j.span.D+j.first+group, 1)
			}
		}
	}
	o.bits.words[wordRecovered] = uint64(o.recovered.Add(int64(fresh)))
	o.settleSpan(j.span.SBN)
}
