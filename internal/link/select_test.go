// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/link"
	"sluice/internal/link/linktest"
	"sluice/pkg/fec"
)

// listener is a Payload that keeps the order in which symbols came, and what they were.
type listener struct {
	link.Payload
	heard  [][2]uint32
	bodies map[[2]uint32]string
}

func (l *listener) Put(sbn, esi uint32, symbol []byte) (bool, error) {
	at := [2]uint32{sbn, esi}
	if l.bodies[at] != "" {
		return false, fmt.Errorf("%v twice", at)
	}
	l.heard, l.bodies[at] = append(l.heard, at), string(symbol)
	return l.Payload.Put(sbn, esi, symbol)
}

// overhear sends transfers of one cargo over a perfect link and returns, pass after pass, what came.
func overhear(t *testing.T, c cargo, transfers ...link.Transfer) (passes []*listener, reports []link.SendReport, progress []link.SendProgress) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		for i, tr := range transfers {
			s := newSink()
			ear := &listener{bodies: map[[2]uint32]string{}}
			s.wrap = func(p link.Payload) link.Payload { ear.Payload = p; return ear }
			k, l := newKeys(byte(40+i)), linktest.New(linktest.Options{})
			h := receive(t, k, l.Reader(), s, dir, nil)
			report := send(t, k, l.Writer(), tr, func(sc *link.SenderConfig) {
				sc.Progress = func(p link.SendProgress) { progress = append(progress, p) }
			})
			wait(time.Second)
			st := h.stop(t)
			equal(t, "early", session(t, st, report.Session).Early, uint64(0))
			equal(t, "malformed", session(t, st, report.Session).Malformed, uint64(0))
			passes, reports = append(passes, ear), append(reports, report)
		}
	})
	return passes, reports, progress
}

// selected lists the symbols of a selection in the order of docs/spec/datagram.md section 5: span after span, source, then row by row.
func selected(g fec.Geometry, s fec.Selection) (list [][2]uint32) {
	for _, p := range s {
		for sbn := p.SBN; sbn < p.SBN+p.Spans; sbn++ {
			for _, e := range p.Source {
				for i := range e.Count {
					list = append(list, [2]uint32{uint32(sbn), uint32(e.First + i)})
				}
			}
			for row := range fec.MaxRows {
				for _, r := range p.Repair {
					for group := r.Group; group < r.Group+r.Groups && row >= r.Row && row < r.Row+r.Rows; group++ {
						list = append(list, [2]uint32{uint32(sbn), g.Span(sbn).RepairESI(row, group)})
					}
				}
			}
		}
	}
	return list
}

// TestSelection: a selection sends its symbols, each once, in order, and nothing else; they are the symbols of a full pass; the totals are
// those of the selection.
func TestSelection(t *testing.T) {
	c := newCargo(3, 5_000, 1_300_000) // two full spans of 384 symbols and one of 156, in one group
	g, err := fec.New(int64(len(c.payload)), link.Profile1500.SymbolSize(), testGroups)
	if err != nil {
		t.Fatal(err)
	}
	only := fec.Selection{
		{SBN: 0, Spans: 2, Source: []fec.Extent{{First: 0, Count: 2}, {First: 380, Count: 4}}, Repair: []fec.RepairRun{{Group: 0, Groups: 1, Row: 20, Rows: 3}, {Group: 1, Groups: 1, Row: 19, Rows: 2}}},
		{SBN: 2, Spans: 1, Source: []fec.Extent{{First: 150, Count: 6}}, Repair: []fec.RepairRun{{Group: 0, Groups: 1, Row: 60, Rows: 3}}},
	}
	everything := c.transfer()
	everything.Rows = fec.MaxRows
	part := c.transfer()
	part.Source, part.Only, part.Pass = false, only, 2
	passes, reports, progress := overhear(t, c, everything, part)
	equal(t, "what was sent, in order", passes[1].heard, selected(g, only))
	for at, body := range passes[1].bodies {
		if passes[0].bodies[at] != body {
			t.Errorf("%v is another symbol than in a full pass", at)
		}
	}
	last := progress[len(progress)-1]
	source, repair := only.Symbols()
	equal(t, "totals", [2]uint64{last.SourceTotal, last.RepairTotal}, [2]uint64{uint64(source), uint64(repair)})
	equal(t, "sent", [2]uint64{reports[1].Source, reports[1].Repair}, [2]uint64{uint64(source), uint64(repair)})
}

// TestSelectionWide: a run wider than a slab of the encoder, and one that begins in the middle of it.
func TestSelectionWide(t *testing.T) {
	const groups = 60 // a slab has 23
	c := newCargo(4, 5_000, 192*groups*1408)
	only := fec.Selection{{Spans: 1, Repair: []fec.RepairRun{{Groups: 1, Row: 5, Rows: 2}, {Group: 1, Groups: 50, Row: 5, Rows: 2}, {Group: 51, Groups: 9, Row: 8, Rows: 3}}}}
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := newSink()
		var memory link.Payload
		s.wrap = func(p link.Payload) link.Payload { memory = p; return p }
		k, l := newKeys(60), linktest.New(linktest.Options{Outage: []linktest.Outage{{From: 500, Count: 2 * groups}}})
		h := receive(t, k, l.Reader(), s, dir, nil)
		wide := func(sc *link.SenderConfig) { sc.Groups = groups }
		first, second := c.transfer(), c.transfer()
		first.Rows = -1
		send(t, k, l.Writer(), first, wide)
		second.Source, second.Only = false, only
		send(t, k, l.Writer(), second, wide)
		wait(3 * time.Second)
		h.stop(t)
		equal(t, "missing", memory.(*linktest.Memory).Missing(), int64(0))
		wantArrived(t, s, c)
	})
}

func TestSelectionRefused(t *testing.T) {
	c, k := newCargo(5, 100, 1_000_000), newKeys(61)
	one := fec.Selection{{Spans: 1, Source: []fec.Extent{{Count: 1}}}}
	for name, change := range map[string]func(*link.Transfer){
		"a selection beside source": func(t *link.Transfer) { t.Only, t.Source = one, true },
		"beside source or repair":   func(t *link.Transfer) { t.Only, t.Rows = one, 3 },
		"selection beside":          func(t *link.Transfer) { t.Only, t.FirstRow = one, 3 },
		"an empty selection":        func(t *link.Transfer) { t.Only = fec.Selection{} },
		"no such part":              func(t *link.Transfer) { t.Only = fec.Selection{{SBN: 9, Spans: 1, Source: []fec.Extent{{Count: 1}}}} },
	} {
		tr := c.transfer()
		tr.Source = false
		change(&tr)
		_, err := newSender(t, k, linktest.New(linktest.Options{}).Writer(), nil).Send(context.Background(), tr)
		if !errors.Is(err, link.ErrConfig) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
