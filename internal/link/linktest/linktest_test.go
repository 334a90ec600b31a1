// SPDX-License-Identifier: Apache-2.0

package linktest_test

import (
	"encoding/binary"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/link"
	"sluice/internal/link/linktest"
)

const size = 64

// run writes n numbered datagrams through a link and returns what came out.
func run(t *testing.T, o linktest.Options, n int) ([][]byte, linktest.Counters) {
	t.Helper()
	if o.QueueLen == 0 {
		o.QueueLen = 2 * n
	}
	l := linktest.New(o)
	w, r := l.Writer(), l.Reader()
	b := make([]byte, size)
	for i := range n {
		binary.BigEndian.PutUint64(b, uint64(i))
		if err := w.WriteBatch(b, size); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	bufs := make([]link.Buffer, 4)
	for i := range bufs {
		bufs[i].Data = make([]byte, link.BufferSize)
	}
	var out [][]byte
	for count := l.Counters(); uint64(len(out)) < count.Delivered; {
		n, err := r.ReadBatch(bufs)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range bufs[:n] {
			for at := 0; at < b.N; at += b.Segment {
				out = append(out, append([]byte(nil), b.Data[at:at+b.Segment]...))
			}
		}
	}
	return out, l.Counters()
}

func number(d []byte) uint64 { return binary.BigEndian.Uint64(d) }

func TestCleanLink(t *testing.T) {
	out, n := run(t, linktest.Options{}, 1000)
	for i, d := range out {
		if number(d) != uint64(i) {
			t.Fatalf("datagram %d is number %d", i, number(d))
		}
	}
	if want := (linktest.Counters{Written: 1000, Delivered: 1000}); n != want {
		t.Errorf("%+v, want %+v", n, want)
	}
}

// TestRates: each fault happens as often as asked, and the counters add up.
func TestRates(t *testing.T) {
	const n = 100_000
	near := func(name string, got uint64, want float64) {
		t.Helper()
		if sigma := math.Sqrt(n * want * (1 - want)); math.Abs(float64(got)-n*want) > 6*sigma {
			t.Errorf("%s: %d of %d, want about %.0f", name, got, n, n*want)
		}
	}
	out, c := run(t, linktest.Options{Seed: 3, Drop: 0.05, Duplicate: 0.02, Corrupt: 0.03, Reorder: 0.04}, n)
	near("dropped", c.Dropped, 0.05)
	near("duplicated", c.Duplicated, 0.95*0.02)
	near("corrupted", c.Corrupted, 0.95*0.03)
	near("reordered", c.Reordered, 0.95*0.04)
	if c.Delivered != c.Written-c.Dropped+c.Duplicated || uint64(len(out)) != c.Delivered {
		t.Errorf("%d out, %+v", len(out), c)
	}
	displaced := 0
	for i := 1; i < len(out); i++ {
		if number(out[i]) < number(out[i-1]) && number(out[i]) < n {
			displaced++
		}
	}
	if displaced == 0 {
		t.Error("nothing was out of order")
	}
}

// TestBursts: the mean burst is 1/R and the mean loss P/(P+R).
func TestBursts(t *testing.T) {
	const n = 400_000
	out, c := run(t, linktest.Options{Seed: 4, Burst: linktest.Burst{P: 0.001, R: 0.05}}, n)
	gaps, next := 0, uint64(0)
	for _, d := range out {
		if number(d) != next {
			gaps++
		}
		next = number(d) + 1
	}
	if mean := float64(c.Dropped) / float64(gaps); mean < 17 || mean > 23 {
		t.Errorf("mean burst %.1f, want about 20", mean)
	}
	if loss := float64(c.Dropped) / n; loss < 0.014 || loss > 0.026 {
		t.Errorf("loss %.4f, want about 0.0196", loss)
	}
}

func TestOutageAndQueue(t *testing.T) {
	out, c := run(t, linktest.Options{Outage: []linktest.Outage{{From: 10, Count: 5}}, QueueLen: 50}, 100)
	if c.Dropped != 5 || c.Overflowed != 45 || c.Delivered != 50 {
		t.Errorf("%+v", c)
	}
	if number(out[9]) != 9 || number(out[10]) != 15 {
		t.Errorf("around the outage: %d, %d", number(out[9]), number(out[10]))
	}
}

// TestSeed: a seed repeats a run; another seed does not.
func TestSeed(t *testing.T) {
	o := linktest.Options{Seed: 5, Drop: 0.1, Duplicate: 0.1, Corrupt: 0.1, Reorder: 0.1}
	first, _ := run(t, o, 2000)
	again, _ := run(t, o, 2000)
	o.Seed = 6
	other, _ := run(t, o, 2000)
	if !cmp.Equal(first, again) {
		t.Error("one seed, two runs")
	}
	if cmp.Equal(first, other) {
		t.Error("two seeds, one run")
	}
}
