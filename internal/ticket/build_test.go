// SPDX-License-Identifier: Apache-2.0

package ticket_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/ticket"
	"sluice/pkg/fec"
)

// losses is what a receiver of one object has: symbols by span and ESI.
type losses struct {
	g      fec.Geometry
	source []bool // missing
	rows   []map[int]int
	fresh  int
}

func newLosses(t testing.TB, g fec.Geometry) *losses {
	t.Helper()
	return &losses{g: g, source: make([]bool, g.Symbols()), rows: make([]map[int]int, g.Spans())}
}

// lose takes a source symbol away; hold adds a repair symbol.
func (l *losses) lose(sbn, i int) { l.source[l.g.Span(sbn).First+int64(i)] = true }

func (l *losses) hold(sbn, row, group int) {
	if l.rows[sbn] == nil {
		l.rows[sbn] = map[int]int{}
	}
	l.rows[sbn][group]++
}

// lack is what the spool says of a span.
func (l *losses) lack(sbn int) (s fec.Span, deficit []uint8, missing []fec.Extent) {
	s = l.g.Span(sbn)
	lost := make([]int, s.D)
	for i := range s.N {
		if !l.source[s.First+int64(i)] {
			continue
		}
		lost[i%s.D]++
		if n := len(missing); n > 0 && missing[n-1].First+missing[n-1].Count == i {
			missing[n-1].Count++
		} else {
			missing = append(missing, fec.Extent{First: i, Count: 1})
		}
	}
	deficit = make([]uint8, s.D)
	for g, n := range lost {
		deficit[g] = uint8(max(0, n-l.rows[sbn][g]))
	}
	return s, deficit, missing
}

func (l *losses) build(room int) *ticket.Builder {
	b := ticket.NewBuilder(l.g, l.fresh, room)
	for sbn := range l.g.Spans() {
		if s, deficit, missing := l.lack(sbn); len(missing) > 0 {
			b.Add(s, deficit, missing)
		}
	}
	return b
}

// check: a selection serves if each group gets as many useful symbols as it needs: missing source, or fresh rows.
func (l *losses) check(t *testing.T, need fec.Selection) {
	t.Helper()
	if err := need.Check(l.g); err != nil {
		t.Fatal(err)
	}
	gets := make([][]int, l.g.Spans())
	for _, p := range need {
		for sbn := p.SBN; sbn < p.SBN+p.Spans; sbn++ {
			gets[sbn] = l.gets(t, sbn, p)
		}
	}
	for sbn := range gets {
		_, deficit, _ := l.lack(sbn)
		for g, n := range deficit {
			if n > 0 && (gets[sbn] == nil || gets[sbn][g] < int(n)) {
				t.Fatalf("span %d group %d needs %d, gets %v", sbn, g, n, gets[sbn])
			}
		}
	}
}

// gets counts what a portion brings each group of a span.
func (l *losses) gets(t *testing.T, sbn int, p fec.Portion) []int {
	t.Helper()
	s := l.g.Span(sbn)
	n := make([]int, s.D)
	for _, e := range p.Source {
		for i := e.First; i < e.First+e.Count; i++ {
			if l.source[s.First+int64(i)] {
				n[i%s.D]++
			}
		}
	}
	for _, r := range p.Repair {
		if r.Row < l.fresh {
			t.Fatalf("row %d is not fresh", r.Row)
		}
		for g := r.Group; g < r.Group+r.Groups; g++ {
			n[g] += r.Rows
		}
	}
	return n
}

// random loses at random, in pieces and at large, and holds some repair symbols.
func (l *losses) random(r *rand.Rand) {
	l.fresh = []int{0, 7, 20, 50, 63, 64}[r.IntN(6)]
	share, held := r.Float64()*r.Float64(), r.Float64()
	for sbn := range l.g.Spans() {
		s := l.g.Span(sbn)
		if r.IntN(3) == 0 {
			continue
		}
		first, count := r.IntN(s.N), r.IntN(s.N)
		for i := range s.N {
			if i >= first && i < first+count && r.IntN(10) > 0 || r.Float64() < share {
				l.lose(sbn, i)
			}
		}
		for i := range l.fresh * s.D {
			if r.Float64() < held {
				l.hold(sbn, i/s.D, i%s.D)
			}
		}
	}
}

// TestBuilderServes: whatever was lost, the ticket completes it, and fits; unless it was coarsened it asks for no symbol more than were lost.
func TestBuilderServes(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		g, err := fec.New(int64(1+r.IntN(40_000)), 4, 1+r.IntN(30))
		if err != nil {
			t.Fatal(err)
		}
		l := newLosses(t, g)
		l.random(r)
		exact := l.build(1 << 30)
		need := exact.Exact()
		l.check(t, need)
		if source, repair := need.Symbols(); source+repair > exact.Lost() {
			t.Fatalf("seed %d: %d symbols for %d that were lost", seed, source+repair, exact.Lost())
		}
		for _, room := range []int{60, 100, 300} {
			need := l.build(room).Need()
			l.check(t, need)
			if size := ticket.EntriesSize(need); size > room {
				t.Fatalf("seed %d: %d bytes for a room of %d: %+v", seed, size, room, need)
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// TestChoice: the forms of docs/spec/ticket.md section 2.
func TestChoice(t *testing.T) {
	g, err := fec.New(4*192*10*2, 4, 10) // two spans of ten groups
	if err != nil {
		t.Fatal(err)
	}
	source := func(first, count int) []fec.Extent { return []fec.Extent{{First: first, Count: count}} }
	for _, c := range []struct {
		name string
		lose [][2]int // of span 0: first, count
		hold int      // rows of all groups
		want fec.Portion
	}{
		{"an outage that nothing was held for", [][2]int{{100, 30}}, 0, fec.Portion{Source: source(100, 30)}},
		{"one that rows help with", [][2]int{{100, 300}}, 20, fec.Portion{Repair: []fec.RepairRun{{Groups: 10, Row: 20, Rows: 10}}}},
		{"rows are all used up by the spare", [][2]int{{100, 610}}, 20, fec.Portion{Source: source(100, 610)}},
		{"here and there", [][2]int{{0, 1}, {20, 1}, {40, 1}, {61, 1}}, 1, fec.Portion{Repair: []fec.RepairRun{{Groups: 1, Row: 1, Rows: 2}}}},
		{"an outage and here and there", [][2]int{{100, 700}, {900, 1}, {910, 1}, {920, 1}, {930, 2}}, 0, fec.Portion{
			Source: source(100, 700), Repair: []fec.RepairRun{{Group: 0, Groups: 1, Rows: 4}, {Group: 1, Groups: 1, Rows: 1}},
		}},
		{"what is here repairs it", [][2]int{{100, 10}}, 1, fec.Portion{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := newLosses(t, g)
			l.fresh = c.hold
			for _, e := range c.lose {
				for i := range e[1] {
					l.lose(0, e[0]+i)
				}
			}
			for i := range c.hold * 10 {
				l.hold(0, i/10, i%10)
			}
			var want fec.Selection
			if c.want.Spans = 1; c.want.Source != nil || c.want.Repair != nil {
				want = fec.Selection{c.want}
			}
			if diff := cmp.Diff(want, l.build(1000).Need()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestSpansAlike: what a hundred spans lack alike is one entry; the short last one has its own.
func TestSpansAlike(t *testing.T) {
	g, err := fec.New(4*(192*10*100+5), 4, 10)
	if err != nil {
		t.Fatal(err)
	}
	l := newLosses(t, g)
	for i := range l.source {
		l.source[i] = true
	}
	want := fec.Selection{{SBN: 0, Spans: 100, Source: []fec.Extent{{Count: 1920}}}, {SBN: 100, Spans: 1, Source: []fec.Extent{{Count: 5}}}}
	if diff := cmp.Diff(want, l.build(1000).Need()); diff != "" {
		t.Error(diff)
	}
	clear(l.source)
	for sbn := range g.Spans() {
		l.lose(sbn, 3) // the same of each, also of the last
	}
	want = fec.Selection{{SBN: 0, Spans: 100, Source: []fec.Extent{{First: 3, Count: 1}}}, {SBN: 100, Spans: 1, Source: []fec.Extent{{First: 3, Count: 1}}}}
	if diff := cmp.Diff(want, l.build(1000).Need()); diff != "" {
		t.Error(diff)
	}
}

// TestManySpans: 3,000 damaged spans at the real size, each in its own way, take little time and little room.
func TestManySpans(t *testing.T) {
	slow(t)
	g, err := fec.New(1408*192*992*3000, 1408, 992)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 3))
	b := ticket.NewBuilder(g, 20, 1700)
	began, deficit := time.Now(), make([]uint8, 992)
	for sbn := range g.Spans() {
		for i := range deficit {
			deficit[i] = uint8(max(0, r.IntN(12)-5))
		}
		b.Add(g.Span(sbn), deficit, []fec.Extent{{First: 10, Count: 10_000}})
	}
	need := b.Need()
	if err := need.Check(g); err != nil || ticket.EntriesSize(need) > 1700 {
		t.Errorf("%v, %d bytes", err, ticket.EntriesSize(need))
	}
	t.Logf("%d entries, %d bytes, in %v", len(need), ticket.EntriesSize(need), time.Since(began))
}

// sent walks the payload datagrams of pass 1 in the order of docs/spec/datagram.md section 5: the repair rows of a span through the source of
// the next.
func sent(g fec.Geometry, rows int, visit func(sbn, row, i int)) {
	for sbn := range g.Spans() {
		s, debt, next := g.Span(sbn), 0, 0
		owed := 0
		if sbn > 0 {
			owed = rows * g.Span(sbn-1).D
		}
		for i := range s.N {
			visit(sbn, -1, i)
			for debt += owed; debt >= s.N; debt -= s.N {
				visit(sbn-1, next/g.Span(sbn-1).D, next%g.Span(sbn-1).D)
				next++
			}
		}
	}
	last := g.Span(g.Spans() - 1)
	for i := range rows * last.D {
		visit(last.SBN, i/last.D, i%last.D)
	}
}

// TestOutageAtFullScale: 200 ms of 5 Gbit/s, in a release of four spans of 256 MiB, at many places: the signed ticket has less than 500
// bytes, and with spare less than twice the lost bytes are sent.
func TestOutageAtFullScale(t *testing.T) {
	const (
		perDatagram = (1452 + 66) * 8
		outage      = 5_000_000_000 / 5 / perDatagram
		rows        = 20 // 10 %
	)
	g, err := fec.New(4*192*992*1408-777, 1408, 992)
	if err != nil {
		t.Fatal(err)
	}
	total := int(g.Symbols()) + rows*992*4
	for _, random := range []float64{0, 0.01} {
		for from := 0; from < total-outage-rows*992; from += total / 7 {
			r := rand.New(rand.NewPCG(uint64(from), 5))
			l := newLosses(t, g)
			l.fresh = rows
			at, gone := 0, int64(0)
			sent(g, rows, func(sbn, row, i int) {
				lost := at >= from && at < from+outage || r.Float64() < random
				at++
				switch {
				case lost && row < 0:
					l.lose(sbn, i)
				case !lost && row >= 0:
					l.hold(sbn, row, i)
				}
				if lost {
					gone++
				}
			})
			b := l.build(ticket.Room("rx-1"))
			need := b.Need()
			if len(need) == 0 {
				t.Errorf("from %d: nothing is needed", from)
				continue
			}
			l.check(t, need)
			s := signed(t, with(func(tk *ticket.Ticket) { tk.Payload, tk.Need, tk.Receiver, tk.Fresh = g.ObjectSize, need, "rx-1", rows }))
			only, err := s.Selection(ticket.Spare)
			if err != nil {
				t.Fatal(err)
			}
			cost := ticket.CostOf(only, g)
			sum := cost.Source + cost.Repair
			t.Logf("random %.2f, from %7d: %d lost, ticket of %d bytes, %d lines, asks for %d and %d symbols with spare: %.2f times", random, from, gone, len(s.Bytes()), strings.Count(s.Text(), "\n"), cost.Source, cost.Repair, float64(sum)/float64(gone))
			if len(s.Bytes()) >= 500 || sum >= 2*gone {
				t.Errorf("random %.2f, from %d: %d bytes, %d sent for %d", random, from, len(s.Bytes()), sum, gone)
			}
		}
	}
}
