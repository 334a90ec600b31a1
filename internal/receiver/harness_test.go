// SPDX-License-Identifier: Apache-2.0

package receiver_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"sluice/internal/journal"
	"sluice/internal/link"
	"sluice/internal/receiver"
	"sluice/internal/strictyaml"
	"sluice/internal/trust/trusttest"
	"sluice/pkg/envelope"
	"sluice/pkg/fec"
)

const groups = 4 // of a full span; the payloads of these tests are a few spans

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// clock is set by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// bench is a receiver's site in a directory, without daemons.
type bench struct {
	*testing.T
	site  *trusttest.Site
	cfg   receiver.Config
	clock *clock
	r     *receiver.Receiver
}

var keys = sync.OnceValues(func() (*trusttest.Site, error) { return trusttest.New() })

func newBench(t *testing.T) *bench {
	t.Helper()
	site, err := keys()
	must(t, err)
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "trust.json"), site.Object, 0o600))
	cfg := receiver.DefaultConfig()
	cfg.Receiver, cfg.State = trusttest.Receiver, filepath.Join(dir, "state")
	cfg.Trust = receiver.Trust{Object: filepath.Join(dir, "trust.json"), Fingerprint: hex.EncodeToString(site.Store.Fingerprint[:])}
	cfg.Registry.Directory = &receiver.DirectoryRegistry{Path: filepath.Join(dir, "registry")}
	cfg.Retain = strictyaml.Duration(time.Minute)
	elsewhere := time.FixedZone("elsewhere", 5*3600)
	b := &bench{T: t, site: site, cfg: cfg, clock: &clock{now: trusttest.Sealed().Add(time.Hour).In(elsewhere)}}
	b.open()
	t.Cleanup(func() { must(t, b.r.Close()) })
	t.Cleanup(b.verifyLog)
	return b
}

func (b *bench) open() {
	b.Helper()
	r, err := receiver.Open(b.Context(), b.cfg, receiver.Options{Now: b.clock.Now})
	must(b.T, err)
	b.r = r
}

// restart is a new process on the same state.
func (b *bench) restart() {
	b.Helper()
	must(b.T, b.r.Close())
	b.open()
	must(b.T, b.r.Resume(b.Context()))
}

func (b *bench) path(parts ...string) string {
	return filepath.Join(append([]string{b.cfg.State}, parts...)...)
}

// release is a sealed release and the bytes of its payload.
type release struct {
	env     *envelope.Envelope
	files   fstest.MapFS
	payload []byte
}

func (r release) id() string { return r.env.ID.String() }

// tensors is a well-formed safetensors file.
func tensors(size int, seed uint64) []byte {
	head := fmt.Appendf(nil, `{"t":{"dtype":"U8","shape":[%[1]d],"data_offsets":[0,%[1]d]}}`, size)
	head = append(head, bytes.Repeat([]byte(" "), -len(head)&7)...)
	out := append(binary.LittleEndian.AppendUint64(nil, uint64(len(head))), head...)
	source, body := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}), make([]byte, size)
	_, _ = source.Read(body) // never fails
	return append(out, body...)
}

// seal makes a release of two files and an empty one, approved by the officers given.
func (b *bench) seal(stream string, seq int64, officers ...string) release {
	b.Helper()
	return b.sealP(trusttest.Predicate(stream, 1, seq), officers...)
}

func (b *bench) sealP(p envelope.Predicate, officers ...string) release {
	b.Helper()
	files := fstest.MapFS{
		"data.safetensors":      {Data: tensors(1_200_000, uint64(p.Seq))},
		"deep/er/x.safetensors": {Data: tensors(70_000, uint64(p.Seq)+100)},
		"README.md":             {Data: []byte{}},
	}
	env, err := b.site.Seal(b.Context(), files, p, nil)
	must(b.T, err)
	must(b.T, b.site.Approve(env, envelope.DecisionApprove, officers...))
	r := release{env: env, files: files}
	for _, s := range env.Statement.Subjects {
		r.payload = append(r.payload, files[s.Name].Data...)
	}
	return r
}

func (b *bench) approved(stream string, seq int64) release {
	b.Helper()
	return b.seal(stream, seq, "s.ito", "a.roy")
}

func (r release) stream(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	_, err := r.env.WriteTo(&out)
	must(t, err)
	return out.Bytes()
}

func (r release) announcement() link.Announcement {
	return link.Announcement{Profile: link.Profile1500, Release: [32]byte(r.env.ID), PayloadSize: int64(len(r.payload)), Groups: groups, Pass: 1}
}

// announce gives the release's envelope to the receiver as the link does.
func (b *bench) announce(r release) (link.Payload, error) {
	b.Helper()
	return b.announceAs(r, r.announcement())
}

func (b *bench) announceAs(r release, a link.Announcement) (link.Payload, error) {
	b.Helper()
	s := r.stream(b.T)
	return b.r.Envelope(b.Context(), a, bytes.NewReader(s), int64(len(s)))
}

// symbol is an encoding symbol on its way.
type symbol struct {
	sbn, esi uint32
	data     []byte
}

// symbols encodes the payload: all source symbols, and rows repair rows a span.
func (r release) symbols(t testing.TB, groups, rows int) (source, repair []symbol) {
	t.Helper()
	size := link.Profile1500.SymbolSize()
	g, err := fec.New(int64(len(r.payload)), size, groups)
	must(t, err)
	enc, err := fec.NewEncoder(0, max(rows, 1))
	must(t, err)
	for sbn := range g.Spans() {
		s := g.Span(sbn)
		body := make([]byte, s.K*s.D*size)
		copy(body, r.payload[s.First*int64(size):min(int64(len(r.payload)), (s.First+int64(s.N))*int64(size))])
		for i := range s.N {
			source = append(source, symbol{uint32(sbn), uint32(i), body[i*size : (i+1)*size]})
		}
		repair = append(repair, encode(t, enc, s, body, rows)...)
	}
	return source, repair
}

func encode(t testing.TB, enc *fec.Encoder, s fec.Span, body []byte, rows int) (out []symbol) {
	t.Helper()
	if rows == 0 {
		return nil
	}
	width := s.D * s.SymbolSize
	source, repair := slices.Collect(slices.Chunk(body, width)), make([][]byte, rows)
	for i := range repair {
		repair[i] = make([]byte, width)
	}
	must(t, enc.Encode(source, repair))
	for row, b := range repair {
		for d := range s.D {
			out = append(out, symbol{uint32(s.SBN), s.RepairESI(row, d), b[d*s.SymbolSize : (d+1)*s.SymbolSize]})
		}
	}
	return out
}

func put(t testing.TB, p link.Payload, list []symbol) (stored int) {
	t.Helper()
	for _, s := range list {
		ok, err := p.Put(s.sbn, s.esi, s.data)
		must(t, err)
		if ok {
			stored++
		}
	}
	return stored
}

// receive takes the whole release in over the payload, and waits until it is recorded.
func (b *bench) receive(r release) {
	b.Helper()
	p, err := b.announce(r)
	must(b.T, err)
	b.fill(r, p)
}

func (b *bench) fill(r release, p link.Payload) {
	b.Helper()
	source, _ := r.symbols(b.T, groups, 0)
	put(b.T, p, source)
	must(b.T, p.Flush(b.Context()))
	b.await(r, "RECEIVED")
}

// await polls for a state that another goroutine records.
func (b *bench) await(r release, state string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for b.state(r) != state {
		select {
		case <-ctx.Done():
			b.Fatalf("state %s, want %s", b.state(r), state)
		case <-tick.C:
		}
	}
}

func (b *bench) job(r release) journal.Job {
	b.Helper()
	j, err := b.r.Job(r.id())
	must(b.T, err)
	return j
}

func (b *bench) state(r release) string {
	b.Helper()
	j, err := b.r.Job(r.id())
	if errors.Is(err, journal.ErrNotFound) {
		return ""
	}
	must(b.T, err)
	return j.State
}

func (b *bench) want(r release, state string) {
	b.Helper()
	if got := b.state(r); got != state {
		b.Fatalf("state %s, want %s: %s", got, state, b.job(r).LastError)
	}
}

func (b *bench) step() {
	b.Helper()
	must(b.T, b.r.Step(b.Context()))
}

// published compares every published byte.
func (b *bench) published(r release) {
	b.Helper()
	b.want(r, "PUBLISHED")
	root := b.publishedDir(r)
	n := 0
	must(b.T, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		name, _ := filepath.Rel(root, path) // path is below root
		got, err := os.ReadFile(path)
		if f := r.files[filepath.ToSlash(name)]; f == nil || !bytes.Equal(got, f.Data) {
			b.Errorf("%s is not what was sealed", name)
		}
		return err
	}))
	if n != len(r.files) {
		b.Errorf("%d files published, %d sealed", n, len(r.files))
	}
}

func (b *bench) publishedDir(r release) string {
	return filepath.Join(b.cfg.Registry.Directory.Path, "releases", r.env.Statement.Predicate.Name, "sha256-"+r.id())
}

// notPublished looks for any trace of it below releases/ that a reader would see.
func (b *bench) notPublished(r release) {
	b.Helper()
	commit := filepath.Join(b.cfg.Registry.Directory.Path, "provenance", r.env.Statement.Predicate.Name, "sha256-"+r.id(), "COMMIT")
	if _, err := os.Stat(commit); !errors.Is(err, os.ErrNotExist) {
		b.Errorf("the release is visible: %v", err)
	}
}

func (b *bench) spooled(r release) bool {
	_, err := os.Stat(b.path("spool", r.id()))
	return err == nil
}

// medium writes the release as it lies on a medium.
func (b *bench) medium(r release) string {
	b.Helper()
	dir := b.TempDir()
	must(b.T, os.WriteFile(filepath.Join(dir, "envelope.sluice"), r.stream(b.T), 0o600))
	must(b.T, os.CopyFS(filepath.Join(dir, "payload"), r.files))
	return dir
}

func (b *bench) events(r release) (actions []string) {
	b.Helper()
	must(b.T, b.r.Journal().Events(1, func(e journal.Event) error {
		if e.Release == r.id() {
			actions = append(actions, e.Action)
		}
		return nil
	}))
	return actions
}

// spoil flips a bit in a spooled file.
func (b *bench) spoil(r release, file int, offset int64) {
	b.Helper()
	f, err := os.OpenFile(b.path("spool", r.id(), "payload", "files", fmt.Sprintf("%06d", file)), os.O_RDWR, 0)
	must(b.T, err)
	var one [1]byte
	_, err = f.ReadAt(one[:], offset)
	must(b.T, err)
	one[0] ^= 4
	_, err = f.WriteAt(one[:], offset)
	must(b.T, errors.Join(err, f.Close()))
}

// problems are fsck's findings.
func (b *bench) problems() (list []string) {
	b.Helper()
	must(b.T, b.r.Fsck(b.Context(), true, func(p receiver.Problem) { list = append(list, p.Where+": "+p.What) }))
	return list
}

func (b *bench) clean() {
	b.Helper()
	if found := b.problems(); len(found) > 0 {
		b.Errorf("fsck: %v", found)
	}
}
