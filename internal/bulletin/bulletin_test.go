// SPDX-License-Identifier: Apache-2.0

package bulletin_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/bulletin"
	"sluice/internal/site/sitetest"
	"sluice/pkg/mofn"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// part is a section to be written as it is.
type part struct {
	typ, reserved byte
	name          string
	body          []byte
}

// stream writes sections and an end, without any check.
func stream(parts ...part) []byte {
	out := []byte("SLUICE\x02\n")
	for _, p := range parts {
		out = append(out, p.typ, p.reserved)
		out = binary.BigEndian.AppendUint16(out, uint16(len(p.name)))
		out = binary.BigEndian.AppendUint64(out, uint64(len(p.body)))
		out = append(append(out, p.name...), p.body...)
	}
	out = append(out, 0, 0, 0, 0)
	out = binary.BigEndian.AppendUint64(out, 32)
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

// whole are the sections of a bulletin with two versions, two orders and a proof.
func whole(t testing.TB) []part {
	w := sitetest.New(t)
	_, first := w.First(nil)
	second := w.Next(first, nil)
	orders := w.Sorted([][]byte{w.Order(first, "alice", nil), w.Order(first, "bob", nil)})
	return []part{
		{1, 0, "", w.Snapshot(w.Says(1, [][]byte{first, second}, nil))},
		{2, 0, "000001", first},
		{2, 0, "000002", second},
		{3, 0, orders[0].ID, orders[0].Data},
		{3, 0, orders[1].ID, orders[1].Data},
		{4, 0, "000000000000", []byte("proof\n")},
		{4, 0, "000000000012", []byte("proof of 12\n")},
	}
}

func TestRead(t *testing.T) {
	parts := whole(t)
	data := stream(parts...)
	if !bulletin.IsBulletin(data[:8]) || bulletin.IsBulletin(data[:7]) || bulletin.IsBulletin([]byte("SLUICE\x01\n")) || bulletin.ID(data) != sha256.Sum256(data) {
		t.Error("it is not told from an envelope")
	}
	for name, r := range map[string]io.Reader{"at once": bytes.NewReader(data), "byte by byte": iotest.OneByteReader(bytes.NewReader(data)), "with the end in one": iotest.DataErrReader(bytes.NewReader(data))} {
		b, err := bulletin.Read(r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := &bulletin.Bulletin{
			Snapshot: parts[0].body, Trust: [][]byte{parts[1].body, parts[2].body}, Proofs: []bulletin.Proof{{Old: 0, Text: parts[5].body}, {Old: 12, Text: parts[6].body}},
			Orders: []bulletin.Order{{ID: parts[3].name, Data: parts[3].body}, {ID: parts[4].name, Data: parts[4].body}},
		}
		if diff := cmp.Diff(want, b); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		if again, err := b.Bytes(); err != nil || !bytes.Equal(again, data) {
			t.Errorf("%s: not written as read: %v", name, err)
		}
	}
	small, err := bulletin.Read(bytes.NewReader(stream(parts[0], parts[1])))
	if err != nil || small.Orders != nil || small.Proofs != nil {
		t.Errorf("without orders and proof: %v", err)
	}
}

// TestReadRefused: each rule of bulletin.md section 1, with the words of its refusal.
func TestReadRefused(t *testing.T) {
	p := whole(t)
	alone := func(q part) []byte { return stream(p[0], p[1], q) }
	good := stream(p...)
	patch := func(at int, b byte) []byte {
		out := bytes.Clone(good)
		out[at] ^= b
		return out
	}
	many := func(n int) []byte {
		parts := []part{p[0]}
		for i := range n {
			parts = append(parts, part{2, 0, fmt.Sprintf("%06d", i+1), []byte("x")})
		}
		return stream(parts...)
	}
	for _, c := range []struct {
		name  string
		data  []byte
		words string
	}{
		{"nothing", nil, "cut off after 0 bytes"},
		{"an envelope", []byte("SLUICE\x01\nxxxxxxxxxxxxxxxx"), "magic"},
		{"the magic alone", good[:8], "cut off"},
		{"cut in a header", good[:15], "cut off"},
		{"cut in a body", good[:200], "cut off after 200 bytes"},
		{"cut before the end", good[:len(good)-44], "cut off"},
		{"cut in the digest", good[:len(good)-1], "cut off"},
		{"a byte behind", append(bytes.Clone(good), 0), "bytes after the end"},
		{"another bulletin behind", append(bytes.Clone(good), good...), "bytes after the end"},
		{"digest damaged", patch(len(good)-1, 1), "damaged"},
		{"body damaged", patch(100, 1), "damaged"},
		{"only an end", stream(), "no snapshot"},
		{"no trust object", stream(p[0]), "no trust object"},
		{"no snapshot", stream(p[1]), "does not come first"},
		{"two snapshots", stream(p[0], p[0], p[1]), "second one"},
		{"snapshot after the chain", stream(p[1], p[0]), "does not come first"},
		{"snapshot with a name", stream(part{1, 0, "a", p[0].body}, p[1]), "named"},
		{"snapshot empty", stream(part{1, 0, "", nil}, p[1]), "of 0 bytes"},
		{"snapshot too large", stream(part{1, 0, "", make([]byte, 4<<20+1)}, p[1]), "1 to 4194304"},
		{"trust object too large", stream(p[0], part{2, 0, "000001", make([]byte, 8<<20+1)}), "1 to 8388608"},
		{"trust object empty", stream(p[0], part{2, 0, "000001", nil}), "of 0 bytes"},
		{"chain begins with 2", stream(p[0], p[2]), `"000001" is due`},
		{"chain with a gap", stream(p[0], p[1], part{2, 0, "000003", p[2].body}), `"000002" is due`},
		{"version twice", stream(p[0], p[1], p[1]), `"000002" is due`},
		{"version in five digits", stream(p[0], part{2, 0, "00001", p[1].body}), `"000001" is due`},
		{"version without a name", stream(p[0], part{2, 0, "", p[1].body}), `"000001" is due`},
		{"256 versions are a chain, 257 not", many(257), "too many"},
		{"trust object after an order", stream(p[0], p[1], p[3], p[2]), "type 2 after one of type 3"},
		{"order after the proof", stream(p[0], p[1], p[5], p[3]), "type 3 after one of type 4"},
		{"orders out of order", stream(p[0], p[1], p[4], p[3]), "does not come after"},
		{"order twice", stream(p[0], p[1], p[3], p[3]), "does not come after"},
		{"order under another name", alone(part{3, 0, p[4].name, p[3].body}), "the order in section"},
		{"order without a name", alone(part{3, 0, "", p[3].body}), "the order in section"},
		{"order too large", alone(part{3, 0, p[3].name, make([]byte, 64<<10+1)}), "1 to 65536"},
		{"order that is a trust object", alone(part{3, 0, p[3].name, p[1].body}), "this is no order"},
		{"order that is noise", alone(part{3, 0, p[3].name, []byte("noise")}), "order"},
		{"a proof twice", stream(p[0], p[1], p[5], p[5]), "does not come after"},
		{"proofs out of order", stream(p[0], p[1], p[6], p[5]), "does not come after"},
		{"65 proofs", stream(append([]part{p[0], p[1]}, proofs(65)...)...), "too many"},
		{"proof without a name", alone(part{4, 0, "", p[5].body}), "old size"},
		{"proof of a number in 11 digits", alone(part{4, 0, "00000000012", p[5].body}), "old size"},
		{"proof of a number with a sign", alone(part{4, 0, "+00000000012", p[5].body}), "old size"},
		{"proof of a negative number", alone(part{4, 0, "-00000000012", p[5].body}), "old size"},
		{"proof with a word for a name", alone(part{4, 0, "a", p[5].body}), "old size"},
		{"proof empty", alone(part{4, 0, "000000000000", nil}), "of 0 bytes"},
		{"proof too large", alone(part{4, 0, "000000000000", make([]byte, 256<<10+1)}), "1 to 262144"},
		{"unknown section", alone(part{5, 0, "", []byte("x")}), "type 5"},
		{"section 255", alone(part{255, 0, "", []byte("x")}), "type 255"},
		{"reserved byte", alone(part{4, 1, "", []byte("x")}), "reserved"},
		{"name of 65", alone(part{3, 0, strings.Repeat("a", 65), []byte("x")}), "name of 65"},
		{"end with a name", append(stream(p[0], p[1])[:len(stream(p[0], p[1]))-44], 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 32, 'a'), "type 0"},
		{"end of 31 bytes", append(stream(p[0], p[1])[:len(stream(p[0], p[1]))-44], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 31), "end section of 31"},
		{"length above the stream", append(bytes.Clone(good[:8]), 1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 1), "body of 67108865"},
		{"length of 2^64 - 1", append(bytes.Clone(good[:8]), 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255), "body of"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := bulletin.Read(bytes.NewReader(c.data))
			if b != nil || !errors.Is(err, bulletin.ErrFormat) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v, error %v; want %q", b != nil, err, c.words)
			}
		})
	}
	if b, err := bulletin.Read(bytes.NewReader(many(256))); err != nil || len(b.Trust) != 256 {
		t.Errorf("256 versions: %v", err)
	}
}

// TestReadFails: what the disk says is no verdict about the bulletin, at the end either.
func TestReadFails(t *testing.T) {
	data, broken := stream(whole(t)...), errors.New("disk")
	for _, n := range []int{0, 8, 15, 200, len(data) - 1, len(data)} {
		b, err := bulletin.Read(io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(broken)))
		if b != nil || !errors.Is(err, broken) || errors.Is(err, bulletin.ErrFormat) {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
}

// endless gives a header and then zeros for ever.
type endless struct {
	head io.Reader
	n    int64
}

func (e *endless) Read(p []byte) (int, error) {
	if n, err := e.head.Read(p); err == nil {
		return n, nil
	}
	clear(p)
	e.n += int64(len(p))
	return len(p), nil
}

// TestAttackEndlessData: a stream that never ends is left after the caps, and what it promises is not allocated.
func TestAttackEndlessData(t *testing.T) {
	p := whole(t)
	for name, head := range map[string][]byte{
		"no bulletin at all": []byte("SLUICE\x01\n"),
		"trust objects":      append([]byte("SLUICE\x02\n"), stream(p[0])[8:len(stream(p[0]))-44]...),
		"after the end":      stream(p...),
	} {
		e := &endless{head: bytes.NewReader(head)}
		if _, err := bulletin.Read(e); !errors.Is(err, bulletin.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
		if e.n > bulletin.MaxStream {
			t.Errorf("%s: %d bytes were read", name, e.n)
		}
	}
	// Eight versions of 8 MiB and a ninth: the stream is over its cap before the chain is.
	parts := []part{p[0]}
	for i := range 8 {
		parts = append(parts, part{2, 0, fmt.Sprintf("%06d", i+1), make([]byte, 8<<20)})
	}
	if _, err := bulletin.Read(bytes.NewReader(stream(parts...))); !errors.Is(err, bulletin.ErrFormat) || !strings.Contains(err.Error(), "more than 67108864") {
		t.Errorf("64 MiB and a snapshot: %v", err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	promise := append([]byte("SLUICE\x02\n"), 2, 0, 0, 6, 0, 0, 0, 0, 0, 0x80, 0, 0)
	promise = append(append(append([]byte{}, stream(p[0])[:len(stream(p[0]))-44]...), promise[8:]...), "000001"...)
	for range 16 {
		if _, err := bulletin.Read(bytes.NewReader(promise)); !errors.Is(err, bulletin.ErrFormat) {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
		t.Errorf("16 promises of 8 MiB took %d bytes", took)
	}
}

// TestBytesRefuses: nothing is written that would not be read.
func TestBytesRefuses(t *testing.T) {
	w := sitetest.New(t)
	_, first := w.First(nil)
	stop := w.Sorted([][]byte{w.Order(first, "alice", nil)})[0]
	good := func() *bulletin.Bulletin { return w.Bulletin(1, [][]byte{first}, nil) }
	if _, err := good().Bytes(); err != nil {
		t.Fatalf("control: %v", err)
	}
	for name, spoil := range map[string]func(*bulletin.Bulletin){
		"no snapshot":     func(b *bulletin.Bulletin) { b.Snapshot = nil },
		"no trust object": func(b *bulletin.Bulletin) { b.Trust = nil },
		"an empty order":  func(b *bulletin.Bulletin) { b.Orders = []bulletin.Order{{ID: stop.ID}} },
		"an order twice":  func(b *bulletin.Bulletin) { b.Orders = []bulletin.Order{stop, stop} },
		"a misnamed one": func(b *bulletin.Bulletin) {
			b.Orders = []bulletin.Order{{ID: strings.Repeat("0", 64), Data: stop.Data}}
		},
		"an empty proof":       func(b *bulletin.Bulletin) { b.Proofs = []bulletin.Proof{{Old: 1}} },
		"a proof from below 0": func(b *bulletin.Bulletin) { b.Proofs = []bulletin.Proof{{Old: -1, Text: []byte("x")}} },
		"a proof of 13 digits": func(b *bulletin.Bulletin) { b.Proofs = []bulletin.Proof{{Old: 1e12, Text: []byte("x")}} },
	} {
		b := good()
		spoil(b)
		if out, err := b.Bytes(); out != nil || !errors.Is(err, bulletin.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMatches: the stream is exactly what its snapshot names (section 2).
func TestMatches(t *testing.T) {
	w := sitetest.New(t)
	_, first := w.First(nil)
	second := w.Next(first, nil)
	other := w.Next(first, func(o *mofn.Trust) { o.Created = "2026-04-01T00:00:00Z" })
	stop, more := w.Order(first, "alice", nil), w.Order(first, "bob", nil)
	chain, orders := [][]byte{first, second}, [][]byte{stop}
	for _, c := range []struct {
		name  string
		spoil func(b *bulletin.Bulletin, s *mofn.Snapshot)
		words string
	}{
		{"as it is", func(*bulletin.Bulletin, *mofn.Snapshot) {}, ""},
		{"an order left out", func(b *bulletin.Bulletin, _ *mofn.Snapshot) { b.Orders = nil }, "left one out"},
		{"an order put in", func(b *bulletin.Bulletin, _ *mofn.Snapshot) { b.Orders = w.Sorted([][]byte{stop, more}) }, "put one in"},
		{"another order", func(b *bulletin.Bulletin, _ *mofn.Snapshot) { b.Orders = w.Sorted([][]byte{more}) }, "left one out"},
		{"many orders more", func(_ *bulletin.Bulletin, s *mofn.Snapshot) {
			s.Orders = []string{stop64(1), stop64(2), stop64(3), stop64(4), stop64(5)}
		}, "and 2 more"},
		{"a version left out", func(b *bulletin.Bulletin, _ *mofn.Snapshot) { b.Trust = b.Trust[:1] }, "names version 2 of the trust object, here are 1"},
		{"a version put in", func(b *bulletin.Bulletin, _ *mofn.Snapshot) { b.Trust = append(b.Trust, second) }, "here are 3"},
		{"another version 2", func(b *bulletin.Bulletin, _ *mofn.Snapshot) { b.Trust = [][]byte{first, other} }, "the chain ends with"},
		{"no chain", func(b *bulletin.Bulletin, _ *mofn.Snapshot) { b.Trust = nil }, "no trust object"},
		{"a last version that does not read", func(b *bulletin.Bulletin, _ *mofn.Snapshot) { b.Trust = [][]byte{first, []byte("{}")} }, "trust object 2"},
		{"a proof that the snapshot does not name", func(b *bulletin.Bulletin, _ *mofn.Snapshot) { b.Proofs = []bulletin.Proof{{Text: []byte("x")}} }, "proof"},
		{"a log and its proof", func(b *bulletin.Bulletin, s *mofn.Snapshot) {
			s.Log.Size, b.Proofs = 1, []bulletin.Proof{{Text: []byte("x")}}
		}, ""},
	} {
		s := w.Says(1, chain, orders)
		b := w.Bulletin(1, chain, orders)
		c.spoil(b, s)
		err := b.Matches(s)
		if c.words == "" && err != nil || c.words != "" && (!errors.Is(err, bulletin.ErrFormat) || !strings.Contains(err.Error(), c.words)) {
			t.Errorf("%s: %v; want %q", c.name, err, c.words)
		}
	}
}

func proofs(n int) (out []part) {
	for i := range n {
		out = append(out, part{4, 0, fmt.Sprintf("%012d", i), []byte("x")})
	}
	return out
}

func stop64(n int) string { return fmt.Sprintf("%064x", n) }

// FuzzRead: no bytes make it panic, or take what it would not write.
func FuzzRead(f *testing.F) {
	p := whole(f)
	add := func(data []byte) { f.Add(data, false); f.Add(data[:len(data)-44], true) }
	add(stream(p...))
	add(stream(p[0], p[1]))
	add(stream(p[1], p[0]))
	add(stream(part{1, 0, "", []byte("s")}, part{2, 0, "000001", []byte("t")}, part{4, 0, "000000000007", []byte("p")}))
	add(stream(part{1, 0, "", []byte("s")}, part{2, 0, "000001", []byte("t")})[:60])
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		if seal { // the fuzzer does not find digests
			data = append(bytes.Clone(data), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32)
			sum := sha256.Sum256(data)
			data = append(data, sum[:]...)
		}
		b, err := bulletin.Read(bytes.NewReader(data))
		if err != nil {
			if b != nil || !errors.Is(err, bulletin.ErrFormat) {
				t.Fatalf("%v, %v", b, err)
			}
			return
		}
		if again, err := b.Bytes(); err != nil || !bytes.Equal(again, data) {
			t.Fatalf("not written as read: %v", err)
		}
		if len(b.Trust) == 0 || b.Snapshot == nil {
			t.Fatal("not a whole bulletin")
		}
	})
}
