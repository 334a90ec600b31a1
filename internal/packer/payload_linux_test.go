// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/link"
	"sluice/internal/link/linktest"
	"sluice/pkg/envelope"
	"sluice/pkg/fec"
)

// around are sizes on both sides of the one from which on a file is mapped, with files between that are not.
func around() []int {
	return []int{mapFrom, 0, mapFrom - 1, 5, mapFrom + 1, 3*mapChunk + 4097, 0, 2 * mapChunk, 100}
}

func mustOpen(t *testing.T, dir string, st *envelope.Statement) *payloadReader {
	t.Helper()
	r, err := openPayload(dir, st)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// TestPayloadViews: a view is there exactly where one large file has the bytes, and has those bytes; what was forgotten may be looked at
// again; files that were passed are closed.
func TestPayloadViews(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	dir, st, all := layout(t, random, around())
	r := mustOpen(t, dir, st)
	for range 3000 {
		if random.IntN(100) == 0 {
			r.Forget(random.Int64N(int64(len(all))))
		}
		off := random.IntN(len(all))
		if random.IntN(4) == 0 { // near a border
			off = max(0, min(len(all)-1, int(r.starts[random.IntN(len(r.starts))])-random.IntN(10)))
		}
		n := 1 + random.IntN(1<<(1+random.IntN(20)))
		i := r.find(int64(off))
		want := int64(off+n) <= r.starts[i+1] && st.Subjects[i].Annotations.Size >= mapFrom
		b := r.View(int64(off), n)
		if (b != nil) != want || b != nil && !bytes.Equal(b, all[off:off+n]) {
			t.Fatalf("seed %d: View(%d, %d), in file %d: %d bytes, want %v", seed, off, n, i, len(b), want)
		}
	}
	if r.View(int64(len(all)), 1) != nil || r.View(int64(len(all))-1, 2) != nil {
		t.Error("bytes past the end are shown")
	}
	r.Forget(int64(len(all)))
	if len(r.shown) != 0 {
		t.Errorf("%d files are mapped that were passed", len(r.shown))
	}
}

// resident counts the pages of a mapping that this process has.
func resident(t *testing.T, b []byte) (pages int) {
	t.Helper()
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size := os.Getpagesize()
	table := make([]byte, (len(b)+size-1)/size*8)
	if _, err := f.ReadAt(table, int64(reflect.ValueOf(b).Pointer())/int64(size)*8); err != nil {
		t.Fatal(err)
	}
	for ; len(table) > 0; table = table[8:] {
		pages += int(binary.NativeEndian.Uint64(table) >> 63)
	}
	return pages
}

// TestPayloadMemory: a view is in memory before it is looked at, and leaves it when it is forgotten.
func TestPayloadMemory(t *testing.T) {
	dir, st, _ := layout(t, rand.New(rand.NewPCG(1, 1)), []int{4*mapChunk + 1})
	r := mustOpen(t, dir, st)
	r.View(mapChunk-1, 2)
	m, chunk := r.shown[0].memory, mapChunk/os.Getpagesize()
	if n := resident(t, m[:2*mapChunk]); n != 2*chunk {
		t.Errorf("%d pages of two chunks of %d are there", n, chunk)
	}
	r.View(4*mapChunk, 1)
	if resident(t, m[4*mapChunk:]) != 1 {
		t.Error("the last byte is not there")
	}
	r.Forget(2*mapChunk - 1)
	if a, b := resident(t, m[:mapChunk]), resident(t, m[mapChunk:2*mapChunk]); a != 0 || b != chunk {
		t.Errorf("%d and %d pages are left of a chunk that is forgotten and one of which a byte is not", a, b)
	}
	r.View(0, 1)
	if n := resident(t, m[:mapChunk]); n != chunk {
		t.Errorf("%d pages of a chunk that is looked at again", n)
	}
}

// TestPayloadMappedFiles: no more files are mapped than may be; others are read, and have their turn when the first were passed.
func TestPayloadMappedFiles(t *testing.T) {
	dir, st := t.TempDir(), &envelope.Statement{}
	for i := range maxOpenPayload + 1 {
		s := envelope.Subject{Name: "f" + string(rune('a'+i%26)) + string(rune('a'+i/26))}
		s.Annotations.Size = mapFrom
		path := filepath.Join(dir, s.Name)
		if err := errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, mapFrom)); err != nil {
			t.Fatal(err)
		}
		st.Subjects = append(st.Subjects, s)
	}
	r := mustOpen(t, dir, st)
	for i := range st.Subjects {
		if shown := r.View(r.starts[i], 10) != nil; shown != (i < maxOpenPayload) {
			t.Fatalf("file %d is shown: %v", i, shown)
		}
	}
	r.Forget(r.starts[1])
	if r.View(r.starts[maxOpenPayload], 10) == nil {
		t.Error("the last file is not shown when the first was passed")
	}
}

// TestPayloadCutShort: of a file that shrank nothing is shown that is not there, whether it was looked at before or not, and reading it
// says which file it is.
func TestPayloadCutShort(t *testing.T) {
	dir, st, all := layout(t, rand.New(rand.NewPCG(1, 1)), []int{100, 4 * mapChunk})
	r := mustOpen(t, dir, st)
	if r.View(100+3*mapChunk, 10) == nil {
		t.Fatal("nothing is shown")
	}
	if err := os.Truncate(filepath.Join(dir, "d1", "f0001"), mapChunk+4096); err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{100 + mapChunk, 100 + mapChunk + 4095, 100 + 2*mapChunk, 100 + 3*mapChunk} {
		if b := r.View(off, 10); b != nil {
			t.Errorf("at %d of a chunk that is not whole: %x", off, b)
		}
	}
	if b := r.View(100, 10); !bytes.Equal(b, all[100:110]) {
		t.Errorf("what is left of the file is not shown: %x", b)
	}
	if _, err := r.ReadAt(make([]byte, 10), 100+2*mapChunk); !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "d1/f0001") {
		t.Errorf("reading it: %v", err)
	}
}

// quay is where a transfer arrives.
type quay struct {
	memory atomic.Pointer[linktest.Memory]
}

func (q *quay) Envelope(_ context.Context, a link.Announcement, _ io.ReaderAt, _ int64) (link.Payload, error) {
	g, err := fec.New(a.PayloadSize, a.Profile.SymbolSize(), a.Groups)
	if err != nil {
		return nil, err
	}
	m := linktest.NewMemory(g)
	q.memory.Store(m)
	return m, nil
}

// ship sends a payload over lossy lanes and returns what arrived.
func ship(t *testing.T, payload io.ReaderAt, size, lanes int) []byte {
	dir, q := t.TempDir(), &quay{}
	synctest.Test(t, func(t *testing.T) {
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		k, l := linktest.NewKeys(7), linktest.New(linktest.Options{Seed: uint64(size), Drop: 0.03})
		receiver, err := link.NewReceiver(link.ReceiverConfig{Conns: []link.BatchReader{l.Reader()}, Opener: linktest.Opener(k.Private, k.Public()), Sink: q, Dir: root})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- receiver.Run(ctx) }()
		var writers []link.BatchWriter
		for range lanes {
			writers = append(writers, l.Writer())
		}
		if _, err := sendTo(t, k, payload, size, link.Transfer{Source: true, Rows: 30}, writers...); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second) //nolint:forbidigo // synctest's clock: the receiver flushes
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return q.memory.Load().Bytes()
}

// sendTo sends a payload, of which tr says what.
func sendTo(t *testing.T, k linktest.Keys, payload io.ReaderAt, size int, tr link.Transfer, writers ...link.BatchWriter) (link.SendReport, error) {
	t.Helper()
	var lanes []link.Lane
	for _, w := range writers {
		lanes = append(lanes, link.Lane{Conn: w, Rate: 1e9})
	}
	s, err := link.NewSender(link.SenderConfig{Lanes: lanes, Profile: link.Profile1500, Groups: 4, LinkKey: k.Link, ReceiverKey: k.Receiver})
	if err != nil {
		t.Fatal(err)
	}
	tr.Release, tr.Envelope, tr.EnvelopeSize, tr.Pass = [32]byte{1}, bytes.NewReader([]byte{1}), 1, 1
	tr.Payload, tr.PayloadSize = payload, int64(size)
	return s.Send(t.Context(), tr)
}

// TestMappedTransfer: what arrives of files that are looked at is what arrives of those that are read, repaired symbols among it, over one
// lane and over two.
func TestMappedTransfer(t *testing.T) {
	dir, st, all := layout(t, rand.New(rand.NewPCG(3, 1)), around())
	for _, lanes := range []int{1, 2} {
		r := mustOpen(t, dir, st)
		if !bytes.Equal(ship(t, r, len(all), lanes), all) {
			t.Errorf("%d lanes: looked at, something else arrived", lanes)
		}
		if !bytes.Equal(ship(t, struct{ io.ReaderAt }{r}, len(all), lanes), all) {
			t.Errorf("%d lanes: read, something else arrived", lanes)
		}
	}
}

// axe cuts a file short after so many batches.
type axe struct {
	link.BatchWriter
	left int
	cut  func()
}

func (a *axe) WriteBatch(b []byte, segment int) error {
	if a.left--; a.left == 0 {
		a.cut()
	}
	return nil
}

// TestCutShortWhileSent: a file that is cut short before a pass, or under the hands of the sender in what was shown already, is an error
// that names it; the process lives.
func TestCutShortWhileSent(t *testing.T) {
	for name, c := range map[string]struct {
		transfer link.Transfer
		after    int // batches; 0: before
	}{
		"before, source":            {link.Transfer{Source: true, Rows: -1}, 0},
		"before, source and repair": {link.Transfer{Source: true, Rows: 20}, 0},
		"before, heal pass":         {link.Transfer{Rows: 20}, 0},
		"meanwhile":                 {link.Transfer{Source: true, Rows: -1}, 200},
	} {
		dir, st, all := layout(t, rand.New(rand.NewPCG(4, 1)), []int{10, 8 * mapChunk})
		cut := func() {
			if err := os.Truncate(filepath.Join(dir, "d1", "f0001"), mapChunk+1<<20+4096); err != nil {
				t.Error(err)
			}
		}
		r := mustOpen(t, dir, st)
		if c.after == 0 {
			cut()
		}
		synctest.Test(t, func(t *testing.T) {
			_, err := sendTo(t, linktest.NewKeys(8), r, len(all), c.transfer, &axe{left: c.after, cut: cut})
			if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), "d1/f0001") {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}
