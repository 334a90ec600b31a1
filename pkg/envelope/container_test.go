// SPDX-License-Identifier: Apache-2.0

package envelope_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/envelope"
)

// drain reads all sections of a stream and throws their bodies away.
func drain(r io.Reader) (sections []envelope.Section, err error) {
	in := envelope.NewReader(r)
	for {
		s, err := in.Next()
		if err == io.EOF {
			return sections, nil
		}
		if err != nil {
			return sections, err
		}
		sections = append(sections, s)
	}
}

func TestContainerRoundTrip(t *testing.T) {
	want := []envelope.Section{
		{Type: envelope.SectionRelease, Size: 3},
		{Type: envelope.SectionIndex},
		{Type: envelope.SectionEvidence, Name: "a", Size: 70_000},
		{Type: envelope.SectionEvidence, Name: "b", Size: 1},
		{Type: envelope.SectionApproval, Name: "a", Size: 2},
	}
	var b bytes.Buffer
	w := envelope.NewWriter(&b)
	for _, s := range want {
		if err := w.Section(s.Type, s.Name, s.Size); err != nil {
			t.Fatal(err)
		}
		for range s.Size {
			if _, err := w.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(b.Bytes()), "one byte": iotest.OneByteReader(bytes.NewReader(b.Bytes())),
		"data with EOF": iotest.DataErrReader(bytes.NewReader(b.Bytes())),
	} {
		got, err := drain(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("%s: %s", name, d)
		}
	}
}

// TestContainerBodies: Read gives each body, EOF at its end, and Next skips what was not read.
func TestContainerBodies(t *testing.T) {
	b := rawStream(rawSection{typ: 1, body: []byte("release")}, rawSection{typ: 2, body: []byte("index")})
	r := envelope.NewReader(bytes.NewReader(b))
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("before Next: %d, %v", n, err)
	}
	_, err := r.Next()
	head := make([]byte, 3)
	if _, err2 := io.ReadFull(r, head); err != nil || err2 != nil || string(head) != "rel" {
		t.Fatalf("%v, %v, %s", err, err2, head)
	}
	_, err = r.Next()
	body, err2 := io.ReadAll(r)
	if err != nil || err2 != nil || string(body) != "index" {
		t.Fatalf("%v, %v, %s", err, err2, body)
	}
	for range 2 {
		if _, err := r.Next(); err != io.EOF {
			t.Fatalf("end: %v", err)
		}
	}
}

// TestWriterRefuses: the writer keeps the order and the caps too, and its first error sticks.
func TestWriterRefuses(t *testing.T) {
	begin := func(w *envelope.Writer) error {
		return errors.Join(w.Section(envelope.SectionRelease, "", 0), w.Section(envelope.SectionIndex, "", 0))
	}
	tests := map[string]func(w *envelope.Writer) error{
		"order":         func(w *envelope.Writer) error { return w.Section(envelope.SectionIndex, "", 0) },
		"end by hand":   func(w *envelope.Writer) error { return w.Section(envelope.SectionEnd, "", 32) },
		"negative size": func(w *envelope.Writer) error { return w.Section(envelope.SectionRelease, "", -1) },
		"over the cap":  func(w *envelope.Writer) error { return w.Section(envelope.SectionRelease, "", envelope.MaxRelease+1) },
		"no section":    func(w *envelope.Writer) error { _, err := w.Write([]byte("x")); return err },
		"empty":         func(w *envelope.Writer) error { return w.Close() },
		"body too long": func(w *envelope.Writer) error {
			_, err := w.Write([]byte("xy"))
			return errors.Join(w.Section(envelope.SectionRelease, "", 1), err)
		},
		"body too short": func(w *envelope.Writer) error {
			return errors.Join(w.Section(envelope.SectionRelease, "", 1), w.Section(envelope.SectionIndex, "", 0))
		},
		"evidence without a name": func(w *envelope.Writer) error {
			return errors.Join(begin(w), w.Section(envelope.SectionEvidence, "", 0))
		},
		"evidence twice": func(w *envelope.Writer) error {
			return errors.Join(begin(w), w.Section(envelope.SectionEvidence, "a", 0), w.Section(envelope.SectionEvidence, "a", 0))
		},
		"evidence over 48 MiB together": func(w *envelope.Writer) error {
			if err := begin(w); err != nil {
				return errors.New("begin")
			}
			const part = envelope.MaxEvidenceTotal / 2
			for _, name := range []string{"a", "b"} {
				err := w.Section(envelope.SectionEvidence, name, part)
				if _, werr := w.Write(make([]byte, part)); err != nil || werr != nil {
					return errors.New("48 MiB are allowed")
				}
			}
			return w.Section(envelope.SectionEvidence, "c", 1)
		},
		"evidence after approval": func(w *envelope.Writer) error {
			return errors.Join(begin(w), w.Section(envelope.SectionApproval, "a", 0), w.Section(envelope.SectionEvidence, "b", 0))
		},
	}
	for name, do := range tests {
		t.Run("section 1/"+name, func(t *testing.T) {
			w := envelope.NewWriter(io.Discard)
			refused(t, do(w), envelope.ErrFormat)
			refused(t, w.Close(), envelope.ErrFormat)
		})
	}
	w := envelope.NewWriter(io.Discard)
	if err := errors.Join(begin(w), w.Close()); err != nil {
		t.Fatal(err)
	}
	if w.Close() == nil || w.Section(envelope.SectionApproval, "a", 0) == nil {
		t.Fatal("a closed writer goes on")
	}
}

// TestContainerRules breaks one rule of section 1 at a time; digest and lengths are right otherwise.
func TestContainerRules(t *testing.T) {
	r, x := rawSection{typ: 1}, rawSection{typ: 2}
	ev := func(name string) rawSection { return rawSection{typ: 3, name: name} }
	ap := func(name string) rawSection { return rawSection{typ: 4, name: name} }
	many := func(n int, section func(string) rawSection) []rawSection {
		out := []rawSection{r, x}
		for i := range n {
			out = append(out, section(fmt.Sprintf("n%03d", i)))
		}
		return out
	}
	good := rawStream(r, x)
	tests := []struct {
		name string
		want error
		b    []byte
	}{
		{"empty", envelope.ErrFormat, nil},
		{"magic only", envelope.ErrFormat, []byte(magic)},
		{"other magic", envelope.ErrFormat, append([]byte("PK\x03\x04"), good[4:]...)},
		{"next version", envelope.ErrVersion, append([]byte("SLUICE\x02\n"), good[8:]...)},
		{"newline translated", envelope.ErrFormat, append([]byte("SLUICE\x01\r\n"), good[8:]...)},
		{"only end", envelope.ErrFormat, rawStream()},
		{"no index", envelope.ErrFormat, rawStream(r)},
		{"no release", envelope.ErrFormat, rawStream(x)},
		{"index first", envelope.ErrFormat, rawStream(x, r)},
		{"two releases", envelope.ErrFormat, rawStream(r, r, x)},
		{"two indexes", envelope.ErrFormat, rawStream(r, x, x)},
		{"release again at the end", envelope.ErrFormat, rawStream(r, x, r)},
		{"evidence before index", envelope.ErrFormat, rawStream(r, ev("a"), x)},
		{"evidence after approval", envelope.ErrFormat, rawStream(r, x, ap("a"), ev("b"))},
		{"evidence twice", envelope.ErrFormat, rawStream(r, x, ev("a"), ev("a"))},
		{"evidence not sorted", envelope.ErrFormat, rawStream(r, x, ev("b"), ev("a"))},
		{"approval twice", envelope.ErrFormat, rawStream(r, x, ap("a"), ap("a"))},
		{"approvals not sorted", envelope.ErrFormat, rawStream(r, x, ap("b"), ap("a"))},
		{"17 evidence", envelope.ErrFormat, rawStream(many(17, ev)...)},
		{"33 approvals", envelope.ErrFormat, rawStream(many(33, ap)...)},
		{"unknown type", envelope.ErrFormat, rawStream(r, x, rawSection{typ: 5, name: "a"})},
		{"reserved byte", envelope.ErrFormat, rawStream(r, rawSection{typ: 2, reserved: 1})},
		{"release with a name", envelope.ErrFormat, rawStream(rawSection{typ: 1, name: "a"}, x)},
		{"evidence without a name", envelope.ErrFormat, rawStream(r, x, ev(""))},
		{"name of 129 bytes", envelope.ErrFormat, rawStream(r, x, ev(strings.Repeat("a", 129)))},
		{"name with a slash", envelope.ErrFormat, rawStream(r, x, ev("a/b"))},
		{"name with dots first", envelope.ErrFormat, rawStream(r, x, ev("..a"))},
		{"name in upper case", envelope.ErrFormat, rawStream(r, x, ap("A"))},
		{"name with a NUL", envelope.ErrFormat, rawStream(r, x, ap("a\x00"))},
		{"approval of 64 KiB + 1", envelope.ErrFormat, rawStream(r, x, rawSection{typ: 4, name: "a", body: make([]byte, 64<<10+1)})},
		{"byte after the end", envelope.ErrFormat, append(good[:len(good):len(good)], 0)},
		{"end digest", envelope.ErrDigest, append(good[:len(good)-1:len(good)-1], good[len(good)-1]^1)},
		{"end of 31 bytes", envelope.ErrFormat, func() []byte {
			b := append([]byte(nil), good[:len(good)-1]...)
			b[len(b)-32] = 31
			return b
		}()},
	}
	for _, tt := range tests {
		t.Run("section 1/"+tt.name, func(t *testing.T) {
			_, err := drain(bytes.NewReader(tt.b))
			refused(t, err, tt.want)
		})
	}
	for name, b := range map[string][]byte{
		"smallest": good, "16 evidence": rawStream(many(16, ev)...), "32 approvals": rawStream(many(32, ap)...),
		"same name in both": rawStream(r, x, ev("a"), ap("a")),
	} {
		if _, err := drain(bytes.NewReader(b)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReaderPassesErrors: trouble of the medium is not a bad envelope.
func TestReaderPassesErrors(t *testing.T) {
	broken := errors.New("medium broken")
	b := stream(t, small(t))
	for n := range b {
		_, err := envelope.Read(io.MultiReader(bytes.NewReader(b[:n]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) || errors.Is(err, envelope.ErrFormat) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
	_, err := envelope.Read(io.MultiReader(bytes.NewReader(b), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) {
		t.Fatalf("after the end: %v", err)
	}
	_, err = envelope.Read(bytes.NewReader(b[:len(b)-1]))
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("truncated: %v", err)
	}
}

// failingWriter fails after n bytes.
type failingWriter struct{ n int }

var errDisk = errors.New("disk full")

func (f *failingWriter) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errDisk
	}
	return len(p), nil
}

func TestWriteToPassesErrors(t *testing.T) {
	e := small(t)
	size := len(stream(t, e))
	for n := 0; n < size; n += 7 {
		if _, err := e.WriteTo(&failingWriter{n}); !errors.Is(err, errDisk) {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
}

// measure runs f and returns what it allocated in all (an upper bound of its peak), and the shortest of some times:
// other work on the machine must not fail the test.
func measure(times int, f func()) (allocated uint64, shortest time.Duration) {
	shortest = time.Hour
	for range times {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		f()
		shortest = min(shortest, time.Since(start))
		runtime.ReadMemStats(&after)
		allocated = max(allocated, after.TotalAlloc-before.TotalAlloc)
	}
	return allocated, shortest
}

// bombTime and bombMemory are the bars of E3.
const (
	bombTime   = 100 * time.Millisecond
	bombMemory = 1 << 20
)

func defused(t *testing.T, f func() error) {
	t.Helper()
	var err error
	allocated, took := measure(3, func() { err = f() })
	refused(t, err, envelope.ErrFormat)
	if allocated > bombMemory || took > bombTime {
		t.Fatalf("%d bytes allocated, %v: at most %d and %v", allocated, took, bombMemory, bombTime)
	}
}

// TestBombs: E3. A declared size never makes memory.
func TestBombs(t *testing.T) {
	e := small(t)
	head := func(before []rawSection, typ byte, name string, size uint64) []byte {
		b := []byte(magic)
		for _, s := range before {
			b = s.append(b)
		}
		b = append(b, typ, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
		return append(binary.BigEndian.AppendUint64(b, size), name...)
	}
	all := rawSections(e)
	for shift := 10; shift < 64; shift++ {
		size := uint64(1) << shift
		for name, b := range map[string][]byte{
			"release":  head(nil, 1, "", size),
			"index":    head(all[:1], 2, "", size),
			"evidence": head(all[:2], 3, "gate.json", size),
			"approval": head(all[:3], 4, "security.s.ito.json", size),
			"end":      head(all, 0, "", size),
		} {
			t.Run(fmt.Sprintf("section 1/%s of 2^%d", name, shift), func(t *testing.T) {
				defused(t, func() error { _, err := envelope.Read(bytes.NewReader(b)); return err })
			})
		}
	}
	t.Run("section 1/name of 65535", func(t *testing.T) {
		b := append([]byte(magic), 3, 0, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0)
		defused(t, func() error { _, err := envelope.Read(bytes.NewReader(b)); return err })
	})
	for shift := 31; shift < 64; shift++ {
		t.Run(fmt.Sprintf("section 5/2^%d blocks", shift), func(t *testing.T) {
			b := append([]byte(nil), e.Index...)
			binary.BigEndian.PutUint64(b[16:], 1<<shift)
			defused(t, func() error { _, err := envelope.ParseIndex(b, e.Statement); return err })
		})
		t.Run(fmt.Sprintf("section 4/file of 2^%d", shift), func(t *testing.T) {
			old := fmt.Sprintf(`"size":%d}}`, e.Statement.Subjects[0].Annotations.Size)
			b := bytes.Replace(e.DSSE.Payload, []byte(old), fmt.Appendf(nil, `"size":%d}}`, uint64(1)<<shift), 1)
			var err error
			allocated, took := measure(1, func() { _, err = envelope.ParseStatement(b) })
			if err == nil || allocated > bombMemory {
				t.Fatalf("%v, %d bytes allocated, %v", err, allocated, took)
			}
		})
	}
}

// TestBombStatements: 32 MiB of hostile JSON. All that is allocated, dead or alive, stays far under 256 MiB, with
// the statement itself.
func TestBombStatements(t *testing.T) {
	slow(t)
	if testing.Short() {
		t.Skip("takes seconds: left out with -short")
	}
	s, _ := build(t, payload("a", "1"), predicate())
	good := string(must[[]byte](t)(s.Marshal()))
	fill := func(old, left, unit, right string) []byte {
		n := (envelope.MaxStatement - len(good) - len(left) - len(right)) / len(unit)
		return []byte(strings.Replace(good, old, left+strings.Repeat(unit, n)+right, 1))
	}
	subject := good[strings.Index(good, `{"name":"a"`):strings.Index(good, `],"predicateType"`)]
	tests := map[string][]byte{
		"empty subjects":       fill(`"subject":[`, `"subject":[`, `{},`, ``),
		"subjects":             fill(`"subject":[`, `"subject":[`, subject+",", ``),
		"audience":             fill(`["enclave-1"`, `["enclave-1"`, `,"a"`, ``),
		"evidence":             fill(`"evidence":[`, `"evidence":[`, `{"name":"a","sha256":"`+keyID(1)+`","size":1},`, ``),
		"lists in lists":       fill(`"evidence":[`, `"evidence":[`, `[`, ``),
		"one long path":        fill(`"name":"a"`, `"name":"`, `a`, `"`),
		"one long stream":      fill(`models/llm`, ``, `a`, ``),
		"one long number":      fill(`"seq":1`, `"seq":`, `1`, ``),
		"one long escape":      fill(`"reason":""`, `"reason":"`, `\n`, `"`),
		"one long bad escape":  fill(`"name":"a"`, `"name":"`, `\u0061`, `"`),
		"one long kind":        fill(`"model-weights"`, `"`, "\U0001f512", `"`),
		"one long reason":      fill(`"reason":""`, `"reason":"`, "é", `"`),
		"invalid UTF-8":        fill(`"reason":""`, `"reason":"`, "\xff", `"`),
		"not closed":           fill(`"reason":""`, `"reason":"`, `a`, ``),
		"backslashes":          fill(`"reason":""`, `"reason":"`, `\\`, `"`),
		"white space":          fill(`"seq":1`, `"seq":`, ` `, `1`),
		"over the cap by much": bytes.Repeat([]byte("a"), envelope.MaxStatement+1),
	}
	for name, b := range tests {
		t.Run("section 3/"+name, func(t *testing.T) {
			var err error
			allocated, took := measure(1, func() { _, err = envelope.ParseStatement(b) })
			t.Logf("%d MiB allocated, %v: %.200v", allocated>>20, took, err)
			if allocated > 128<<20 {
				t.Fatalf("%d MiB allocated", allocated>>20)
			}
			accepted := name == "one long escape" || name == "one long reason" || name == "backslashes"
			if (err == nil) != accepted {
				t.Fatalf("accepted %v, want %v: %v", err == nil, accepted, err)
			}
			if err != nil && len(err.Error()) > 1000 {
				t.Fatalf("a message of %d bytes", len(err.Error()))
			}
		})
	}
}
