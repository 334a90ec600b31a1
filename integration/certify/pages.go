// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"

	"sluice/internal/spool"
	"sluice/pkg/fec"
)

const (
	// pageSymbol and pageGroups make spans of 12 KiB: a few pages each, none of them aligned.
	pageSymbol, pageGroups = 64, 1
	// pageSize is what the kernel writes back, or does not.
	pageSize = 4096
)

// pageRows is the spool in memory: at a random moment of a reception a random half of the pages that nobody had synced is lost, in the
// files, the bitmaps and the repair symbols. internal/spool's own tests cover kills, torn records, vanished files and cuts on a real disk.
func pageRows() []row {
	return []row{
		{
			name: "S7", trials: 10_000, disks: true, play: pages(false), report: []column{{"lost", "pages lost", total}, {"believed", "spans believed after it", total}},
			promise: "any subset of the pages that were not synced is lost in a power cut: the spool believes what it recorded and nothing else, and completes byte for byte",
		},
		{
			name: "C7", trials: 200, disks: true, play: pages(true), report: []column{{"lost", "trials in which the spool believed lost bytes", total}}, judge: mostPagesLost,
			promise: "CONTROL, which must lose: the same with synced pages lost too, as if fdatasync were left out",
		},
	}
}

func mostPagesLost(all []figures) error { return lost(all, 0.5) }

// sheaf is one trial in memory: the object and where it is assembled.
type sheaf struct {
	root   *os.Root
	random *rand.Rand
	g      fec.Geometry
	files  []spool.File
	object []byte
}

func newSheaf(dir string, seed uint64) (*sheaf, error) {
	s := &sheaf{random: rand.New(rand.NewPCG(seed, 7))}
	var size int64
	for i := range 1 + s.random.IntN(4) {
		n := s.random.Int64N(40_000)
		if i == 0 {
			n += 20_000
		}
		s.files = append(s.files, spool.File{Name: fmt.Sprintf("files/%06d", i), Size: n})
		size += n
	}
	s.object = make([]byte, size)
	for i := range s.object {
		s.object[i] = byte(s.random.Uint32()) | 1 // no zero byte: what is lost reads as zeros
	}
	var err1, err2 error
	s.g, err1 = fec.New(size, pageSymbol, pageGroups)
	s.root, err2 = os.OpenRoot(dir)
	return s, errors.Join(err1, err2)
}

func (s *sheaf) open(boot string) (*spool.Object, error) {
	return spool.Open(s.root, s.files, s.g, spool.Options{SyncSpans: true, BootID: boot})
}

// put stores symbol i of the object.
func (s *sheaf) put(o *spool.Object, i int64) error {
	perSpan := int64(fec.K * pageGroups)
	symbol := make([]byte, pageSymbol)
	copy(symbol, s.object[i*pageSymbol:])
	_, err := o.Put(uint32(i/perSpan), uint32(i%perSpan), symbol)
	return err
}

// order is the symbols as they arrive: spans in any order, symbols within them too.
func (s *sheaf) order() (all []int64) {
	perSpan := int64(fec.K * pageGroups)
	for _, sbn := range s.random.Perm(s.g.Spans()) {
		from := int64(sbn) * perSpan
		n := int(min(s.g.Symbols()-from, perSpan))
		for _, i := range s.random.Perm(n) {
			all = append(all, from+int64(i))
		}
	}
	return all
}

func pages(synced bool) trial {
	return func(ctx context.Context, c *certifier, seed uint64) (f figures, err error) {
		dir, err := os.MkdirTemp(c.scratch, "pages-")
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		before, after := filepath.Join(dir, "before"), filepath.Join(dir, "after")
		if err := errors.Join(os.Mkdir(before, 0o700), os.Mkdir(after, 0o700)); err != nil {
			return nil, err
		}
		s, err := newSheaf(before, seed)
		if err != nil {
			return nil, err
		}
		defer s.root.Close()
		recorded, err := s.receive(ctx, before, after)
		if err != nil {
			return nil, err
		}
		return s.cut(ctx, after, recorded, synced)
	}
}

// receive stores a random part and copies what then lies there, the record first: what it says was synced before it was written.
func (s *sheaf) receive(ctx context.Context, from, to string) (recorded map[int]bool, err error) {
	o, err := s.open("first")
	if err != nil {
		return nil, err
	}
	all := s.order()
	for _, i := range all[:s.random.IntN(len(all))] {
		if err := s.put(o, i); err != nil {
			return nil, err
		}
	}
	if err := o.Flush(ctx); err != nil {
		return nil, err
	}
	record, err := s.recorded(ctx, o, filepath.Join(from, "spool.record"))
	if err != nil {
		return nil, err
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return nil, err
	}
	return recordedSpans(record), errors.Join(os.WriteFile(filepath.Join(to, "spool.record"), record, 0o600), o.Close())
}

// recorded reads the record as soon as a random number of the complete spans are in it.
func (s *sheaf) recorded(ctx context.Context, o *spool.Object, name string) (b []byte, err error) {
	least := s.random.IntN(o.Progress().SpansComplete + 1)
	for err == nil && ctx.Err() == nil {
		b, err = os.ReadFile(name)
		if len(recordedSpans(b)) >= least {
			break
		}
		runtime.Gosched()
	}
	return b, err
}

// recordedSpans reads spool.record: a header of 64 bytes, then 16 an entry with the span in bytes 4 to 8 (internal/spool/record.go).
func recordedSpans(b []byte) map[int]bool {
	spans := make(map[int]bool)
	for at := 64; at+16 <= len(b); at += 16 {
		spans[int(b[at+6])<<8|int(b[at+7])] = true
	}
	return spans
}

// cut loses pages, opens what is left in another boot, compares what is believed, and completes it.
func (s *sheaf) cut(ctx context.Context, dir string, recorded map[int]bool, synced bool) (f figures, err error) {
	lost, err := s.lose(dir, recorded, synced)
	if err != nil {
		return nil, err
	}
	s.root.Close()
	if s.root, err = os.OpenRoot(dir); err != nil {
		return nil, err
	}
	o, err := s.open("second")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	believed, wrong, err := s.believed(o)
	f = figures{"lost": float64(lost), "believed": float64(believed)}
	switch {
	case err != nil:
		return f, err
	case synced:
		return figures{"lost": number01(wrong >= 0)}, nil
	case wrong >= 0:
		return f, fmt.Errorf("span %d is believed and not there", wrong)
	case believed < len(recorded):
		return f, fmt.Errorf("%d spans were recorded, %d are believed", len(recorded), believed)
	}
	return f, s.complete(ctx, o)
}

// lose loses each page with even odds: of the files but for the bytes of recorded spans, unless synced says to lose those too, and of the
// map and the repair symbols.
func (s *sheaf) lose(dir string, recorded map[int]bool, synced bool) (lost int, err error) {
	var at int64
	for _, f := range s.files {
		keep := func(offset int64) bool {
			span := int((at + offset) / (pageSymbol * fec.K * pageGroups))
			return recorded[span] != synced && recorded[span]
		}
		n, err := s.losePages(filepath.Join(dir, f.Name), keep)
		if err != nil {
			return lost, err
		}
		lost += n
		at += f.Size
	}
	for _, name := range []string{"spool.map", "spool.repair"} {
		n, err := s.losePages(filepath.Join(dir, name), func(int64) bool { return false })
		if err != nil {
			return lost, err
		}
		lost += n
	}
	return lost, nil
}

func (s *sheaf) losePages(name string, keep func(offset int64) bool) (lost int, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	for from := 0; from < len(b); from += pageSize {
		if s.random.IntN(2) == 0 {
			continue
		}
		lost++
		for i := from; i < min(from+pageSize, len(b)); i++ {
			if !keep(int64(i)) {
				b[i] = 0
			}
		}
	}
	return lost, os.WriteFile(name, b, 0o600)
}

// believed compares every span that the object has with the truth; wrong is the first that is not there, -1 when all are.
func (s *sheaf) believed(o *spool.Object) (n, wrong int, err error) {
	missing := make(map[int]bool)
	for _, m := range o.Missing() {
		missing[m.SBN] = true
	}
	disk, err := s.read()
	for wrong = 0; err == nil && wrong < s.g.Spans(); wrong++ {
		span := s.g.Span(wrong)
		from, to := span.Offset(0), min(span.Offset(span.N), s.g.ObjectSize)
		if missing[wrong] {
			continue
		}
		if !bytes.Equal(disk[from:to], s.object[from:to]) {
			return n, wrong, nil
		}
		n++
	}
	return n, -1, err
}

func (s *sheaf) read() (all []byte, err error) {
	for _, f := range s.files {
		in, err := s.root.Open(f.Name)
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(in)
		if err := errors.Join(err, in.Close()); err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	return all, nil
}

// complete sends everything again and compares.
func (s *sheaf) complete(ctx context.Context, o *spool.Object) error {
	for i := range s.g.Symbols() {
		if err := s.put(o, i); err != nil {
			return err
		}
	}
	if err := o.Flush(ctx); err != nil {
		return err
	}
	select {
	case <-o.Done():
	case <-ctx.Done():
		return ctx.Err()
	}
	disk, err := s.read()
	if err == nil && !bytes.Equal(disk, s.object) {
		err = errors.New("complete, and not what was sent")
	}
	return err
}
