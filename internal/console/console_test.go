// SPDX-License-Identifier: Apache-2.0

package console_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/console"
)

// stepClock moves only when told.
type stepClock struct{ at time.Time }

func (c *stepClock) now() time.Time          { return c.at }
func (c *stepClock) advance(d time.Duration) { c.at = c.at.Add(d) }

func newClock() *stepClock { return &stepClock{time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func TestTimeline(t *testing.T) {
	var out bytes.Buffer
	clock := newClock()
	line := console.NewTimeline(&out, console.Style{}, clock.now)
	line.Note("one release, both sides")
	clock.advance(400 * time.Millisecond)
	line.Stage(console.Low, "mirrored", "demo/tiny-llama-awq@1f2e3d4c", 316_000_000, "12 files, all verified")
	clock.advance(2800 * time.Millisecond)
	line.Stage(console.High, "assembled", "", -1, "")
	clock.advance(2 * time.Minute)
	line.Stage(console.High, "published", "demo/tiny\x1b[2J\nlow  published", 0, "read\u202eback")
	line.Fail(console.High, "verify", "demo/tiny", "threshold: have 1 of 2")
	const want = `one release, both sides
    400 ms  low   mirrored    demo/tiny-llama-awq@1f2e3d4c  316 MB  12 files, all verified
     3.2 s  high  assembled
 2 min 3 s  high  published   demo/tiny?[2J?low  published  0 B  read?back
 2 min 3 s  high  verify      demo/tiny  threshold: have 1 of 2
`
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if err := line.Err(); err != nil {
		t.Error(err)
	}
}

func TestTimelineColours(t *testing.T) {
	var out bytes.Buffer
	line := console.NewTimeline(&out, console.Style{Color: true}, newClock().now)
	line.Stage(console.Low, "sent", "a", -1, "")
	line.Fail(console.High, "verify", "a", "no")
	const want = "      0 ms  \x1b[36mlow \x1b[0m  sent        a\n" +
		"      0 ms  \x1b[32mhigh\x1b[0m  \x1b[31mverify    \x1b[0m  a  no\n"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

type brokenWriter struct{ calls int }

func (w *brokenWriter) Write([]byte) (int, error) {
	w.calls++
	return 0, io.ErrClosedPipe
}

func TestTimelineKeepsTheFirstError(t *testing.T) {
	w := &brokenWriter{}
	line := console.NewTimeline(w, console.Style{}, nil)
	line.Note("a")
	line.Note("b")
	if err := line.Err(); !errors.Is(err, io.ErrClosedPipe) || w.calls != 1 {
		t.Errorf("%v after %d writes, want ErrClosedPipe after 1", err, w.calls)
	}
}

func TestPlainProgress(t *testing.T) {
	var out bytes.Buffer
	clock := newClock()
	p := console.NewProgress(&out, console.Style{}, console.Low, 316_000_000, clock.now)
	for range 316 {
		clock.advance(20 * time.Millisecond)
		p.Add(1_000_000)
	}
	p.Add(1)  // beyond the total
	p.Set(5)  // back
	p.Add(-9) // back
	p.Finish()
	p.Finish()
	const want = `low    10 %  32 MB of 316 MB  50 MB/s
low    20 %  64 MB of 316 MB  50 MB/s
low    30 %  95 MB of 316 MB  50 MB/s
low    40 %  127 MB of 316 MB  50 MB/s
low    50 %  158 MB of 316 MB  50 MB/s
low    60 %  190 MB of 316 MB  50 MB/s
low    70 %  222 MB of 316 MB  50 MB/s
low    80 %  253 MB of 316 MB  50 MB/s
low    90 %  285 MB of 316 MB  50 MB/s
low   100 %  316 MB of 316 MB  50 MB/s
`
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestPlainProgressEdges(t *testing.T) {
	for _, c := range []struct {
		name  string
		total int64
		steps []int64
		want  string
	}{
		{"unknown total", 0, []int64{5, 5}, ""},
		{"at once", 100, []int64{100}, "100"},
		{"skips", 100, []int64{35, 65}, "30 100"},
		{"tiny", 3, []int64{1, 1, 1}, "30 60 100"},
		{"not a multiple of ten", 19, []int64{18, 1}, "90 100"},
		{"huge", math.MaxInt64, []int64{math.MaxInt64 / 2, math.MaxInt64/2 + 1}, "50 100"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			p := console.NewProgress(&out, console.Style{}, "x", c.total, newClock().now)
			for _, n := range c.steps {
				p.Add(n)
			}
			p.Finish()
			var shown []string
			for line := range strings.Lines(out.String()) {
				shown = append(shown, strings.Fields(line)[1])
			}
			if got := strings.Join(shown, " "); got != c.want {
				t.Errorf("lines at %q, want %q", got, c.want)
			}
		})
	}
}

func TestTerminalProgress(t *testing.T) {
	var out bytes.Buffer
	p := console.NewProgress(&out, console.Style{Terminal: true}, console.High, 1000, nil)
	if n, err := io.Copy(io.MultiWriter(io.Discard, p), strings.NewReader(strings.Repeat("x", 1000))); n != 1000 || err != nil {
		t.Fatal(n, err)
	}
	p.Finish()
	p.Add(1) // after the end: nothing more is drawn
	got := out.String()
	if !strings.Contains(got, "high") || !strings.Contains(got, "100%") || !strings.Contains(got, "\r") || !strings.HasSuffix(got, "\n") {
		t.Errorf("bar: %q", got)
	}
	if strings.Contains(got, "\x1b[3") {
		t.Errorf("colours without Color: %q", got)
	}
	var half bytes.Buffer
	p = console.NewProgress(&half, console.Style{Terminal: true}, console.High, 1000, nil)
	p.Add(500)
	p.Finish()
	if !strings.HasSuffix(half.String(), "\n") {
		t.Errorf("the cursor is left in the bar: %q", half.String())
	}
}

func TestProgressIsConcurrent(t *testing.T) {
	var out bytes.Buffer
	p := console.NewProgress(&out, console.Style{}, "x", 8000, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				p.Add(1)
			}
		})
	}
	wg.Wait()
	if n := strings.Count(out.String(), "\n"); n != 10 || !strings.Contains(out.String(), "100 %") {
		t.Errorf("%d lines, want 10:\n%s", n, out.String())
	}
}

func TestDetect(t *testing.T) {
	env := func(values map[string]string) func(string) string { return func(k string) string { return values[k] } }
	if got := console.Detect(&bytes.Buffer{}, env(nil)); got != (console.Style{}) {
		t.Errorf("a buffer: %+v", got)
	}
	f, err := os.Create(t.TempDir() + "/log")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got := console.Detect(f, env(nil)); got != (console.Style{}) {
		t.Errorf("a file: %+v", got)
	}
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminal to be had: %v", err)
	}
	defer tty.Close()
	for _, c := range []struct {
		env  map[string]string
		want console.Style
	}{
		{nil, console.Style{Terminal: true, Color: true}},
		{map[string]string{"NO_COLOR": "1"}, console.Style{Terminal: true}},
		{map[string]string{"TERM": "dumb"}, console.Style{}},
	} {
		if got := console.Detect(tty, env(c.env)); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.env, got, c.want)
		}
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	err := console.Table(&out, []string{"RELEASE", "STATE", "WHY"}, [][]string{
		{"demo/tiny", "held", "2 of 3"},
		{"a\tb\nc", "published"},
		{"日本", "x", "y"},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = "RELEASE    STATE  WHY\n" +
		"demo/tiny  held   2 of 3\n" +
		"a?b?c      published\n" +
		"日本         x  y\n"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if err := console.Table(&brokenWriter{}, nil, [][]string{{"a"}}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("error is %v", err)
	}
}

func TestText(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{console.Bytes(0), "0 B"},
		{console.Bytes(316_000_000), "316 MB"},
		{console.Bytes(-1), "?"},
		{console.Rate(52_000_000), "52 MB/s"},
		{console.Rate(math.NaN()), "?"},
		{console.Rate(math.Inf(1)), "?"},
		{console.BitRate(4.2e9), "4.2 Gbit/s"},
		{console.BitRate(900e6), "900 Mbit/s"},
		{console.BitRate(0), "0 bit/s"},
		{console.BitRate(-1), "?"},
		{console.Duration(0), "0 ms"},
		{console.Duration(999 * time.Millisecond), "999 ms"},
		{console.Duration(59990 * time.Millisecond), "59.9 s"},
		{console.Duration(60 * time.Second), "1 min"},
		{console.Duration(125 * time.Second), "2 min 5 s"},
		{console.Duration(80 * time.Minute), "1 h 20 min"},
		{console.Duration(76 * time.Hour), "3 d 4 h"},
		{console.Duration(-5 * time.Second), "-5.0 s"},
		{console.Duration(math.MinInt64), "-106751 d 23 h"},
		{console.Count(1, "file"), "1 file"},
		{console.Count(0, "file"), "0 files"},
		{console.Count(1204, "file"), "1,204 files"},
		{console.Short("sha256:1f2e3d4c5b6a"), "1f2e3d4c"},
		{console.Short("1f"), "1f"},
		{console.Clean("tab\tbell\x07 esc\x1b[31m nul\x00 c1\u009b cr\r"), "tab?bell? esc?[31m nul? c1? cr?"},
		{console.Clean("rtl\u202e zero\u200b line\u2028 bad\xff"), "rtl? zero? line? bad?"},
		{console.Clean("größe 日本 😀"), "größe 日本 😀"},
		{console.Truncate("größe", 5), "größe"},
		{console.Truncate("größer", 5), "größ…"},
		{console.Truncate("ab", 0), "…"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("a\x1b[2J\n\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := console.Clean(s)
		if strings.ContainsAny(got, "\x00\x07\b\t\n\v\f\r\x1b\u0085\u009b\u2028\u2029\u202a\u202e\u2066\ufeff") {
			t.Errorf("%q became %q", s, got)
		}
		if again := console.Clean(got); again != got {
			t.Errorf("cleaning %q again gives %q", got, again)
		}
	})
}
