// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"bytes"
	"io"
	"sync"
	"testing"

	"sluice/internal/link"
	"sluice/pkg/fec"
)

// gallery is a payload that shows copies of its bytes, none over a border, and spoils them when they are forgotten: who looks at them
// afterwards sends something else.
type gallery struct {
	io.ReaderAt
	all    []byte
	border int64 // every so many bytes

	mu    sync.Mutex
	shown map[int64][][]byte // by where they begin
	views int
	most  int64 // bytes from what was forgotten last to the end of a view
	low   int64 // what was forgotten
}

func newGallery(all []byte, border int64) *gallery {
	return &gallery{ReaderAt: bytes.NewReader(all), all: all, border: border, shown: make(map[int64][][]byte)}
}

func (g *gallery) View(off int64, n int) []byte {
	end := off + int64(n)
	if end > int64(len(g.all)) || off/g.border != (end-1)/g.border {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	b := bytes.Clone(g.all[off:end])
	g.shown[off] = append(g.shown[off], b)
	g.views++
	g.most = max(g.most, end-g.low)
	return b
}

func (g *gallery) Forget(off int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.low = off
	for from, list := range g.shown {
		for _, b := range list {
			clear(b[:max(0, min(int64(len(b)), off-from))])
		}
	}
}

// TestViews: a payload that is looked at is sent as one that is read, in every kind of pass; nothing is looked at after it was forgotten,
// all is forgotten in the end, and no more than two spans are in memory.
func TestViews(t *testing.T) {
	c := newCargo(5, 5_000, 5_000_000)
	const span = testGroups * fec.K * 1408
	for name, change := range map[string]func(*link.Transfer){
		"source and repair":   func(tr *link.Transfer) { tr.Rows = 30 },
		"source":              func(tr *link.Transfer) { tr.Rows = -1 },
		"repair":              func(tr *link.Transfer) { tr.Source, tr.FirstRow, tr.Rows = false, 20, 20 },
		"one span, one group": func(tr *link.Transfer) { tr.PayloadSize = 100_000 },
	} {
		read := c.transfer()
		change(&read)
		looked, g := read, newGallery(c.payload, 1_500_000)
		looked.Payload = g
		passes, _, _ := overhear(t, c, read, looked)
		equal(t, name+": what was sent", passes[1].bodies, passes[0].bodies)
		if g.views == 0 && read.PayloadSize > 1<<20 {
			t.Errorf("%s: nothing was looked at", name)
		}
		if g.low < read.PayloadSize {
			t.Errorf("%s: forgotten up to %d of %d", name, g.low, read.PayloadSize)
		}
		if g.most > 2*span+1<<20 {
			t.Errorf("%s: %d bytes in memory at once, a span has %d", name, g.most, span)
		}
	}
}

// TestSelectionReads: a selection is read: what a view brings into memory is more than it needs.
func TestSelectionReads(t *testing.T) {
	c := newCargo(6, 5_000, 1_300_000)
	tr, g := c.transfer(), newGallery(c.payload, 1<<30)
	tr.Payload, tr.Source = g, false
	tr.Only = fec.Selection{{SBN: 1, Spans: 1, Source: []fec.Extent{{First: 3, Count: 2}}, Repair: []fec.RepairRun{{Groups: 1, Rows: 3}}}}
	passes, _, _ := overhear(t, c, tr)
	if len(passes[0].heard) != 5 || g.views != 0 {
		t.Errorf("%d symbols came, %d views were made", len(passes[0].heard), g.views)
	}
}
