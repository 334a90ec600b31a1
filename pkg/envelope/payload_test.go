// SPDX-License-Identifier: Apache-2.0

package envelope_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/envelope"
)

// TestBuild compares with digests computed plainly, for sizes around the borders of blocks.
func TestBuild(t *testing.T) {
	const mib = envelope.BlockSize
	sizes := []int{0, 1, 55, 64, mib - 1, mib, mib + 1, 2*mib - 1, 2 * mib, 2*mib + 1, 5*mib + 12345}
	fsys := fstest.MapFS{}
	for _, n := range sizes {
		fsys[fmt.Sprintf("f%08d", n)] = &fstest.MapFile{Data: []byte(bigFile(n))}
	}
	var blocks []envelope.Digest
	var total int64
	for _, n := range sizes { // the names sort as the sizes do
		total += int64(n)
		for rest := []byte(bigFile(n)); len(rest) > 0; {
			k := min(len(rest), mib)
			blocks = append(blocks, sha256.Sum256(rest[:k]))
			rest = rest[k:]
		}
	}
	for _, workers := range []int{0, 1, 3, 100} {
		s, index, err := envelope.Build(t.Context(), fsys, envelope.BuildOptions{Predicate: predicate(), Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		for i, n := range sizes {
			if got := s.Subjects[i]; got.Digest.SHA256 != sha256.Sum256([]byte(bigFile(n))) || got.Annotations.Size != int64(n) {
				t.Errorf("file of %d bytes: %+v", n, got)
			}
		}
		x := must[*envelope.Index](t)(envelope.ParseIndex(index, s))
		if d := cmp.Diff(blocks, x.Digests); d != "" || s.Predicate.TotalSize != total {
			t.Fatalf("total %d, blocks: %s", s.Predicate.TotalSize, d)
		}
	}
}

// TestBuildOrder: a directory walk gives a/x before a-b; the statement sorts bytewise by the whole path.
func TestBuildOrder(t *testing.T) {
	s, _ := build(t, payload("a/x", "1", "a-b", "2", "a.b/c", "3", "B", "4", "é", "5"), predicate())
	var names []string
	for _, f := range s.Subjects {
		names = append(names, f.Name)
	}
	if d := cmp.Diff([]string{"B", "a-b", "a.b/c", "a/x", "é"}, names); d != "" {
		t.Fatal(d)
	}
}

func TestBuildEvidence(t *testing.T) {
	s, _ := build(t, payload("a", "1"), predicate(), envelope.Named{Name: "z", Data: []byte("zz")}, envelope.Named{Name: "a"})
	want := []envelope.EvidenceRef{{Name: "a", SHA256: sha256.Sum256(nil)}, {Name: "z", SHA256: sha256.Sum256([]byte("zz")), Size: 2}}
	if d := cmp.Diff(want, s.Predicate.Evidence); d != "" {
		t.Fatal(d)
	}
}

// TestBuildRefuses: what a release cannot express (E2), and what the parser would refuse.
func TestBuildRefuses(t *testing.T) {
	irregular := func(mode fs.FileMode) fstest.MapFS {
		return fstest.MapFS{"ok": {Data: []byte("x")}, "weird": {Data: []byte("x"), Mode: mode}}
	}
	bad := predicate()
	bad.Seq = 0
	tests := map[string]struct {
		fsys     fs.FS
		p        envelope.Predicate
		evidence []envelope.Named
	}{
		"section 4/no file":        {fsys: fstest.MapFS{"dir": {Mode: fs.ModeDir}}, p: predicate()},
		"section 4/symbolic link":  {fsys: irregular(fs.ModeSymlink), p: predicate()},
		"section 4/device":         {fsys: irregular(fs.ModeDevice), p: predicate()},
		"section 4/named pipe":     {fsys: irregular(fs.ModeNamedPipe), p: predicate()},
		"section 4/socket":         {fsys: irregular(fs.ModeSocket), p: predicate()},
		"section 4/paths/Git":      {fsys: payload(".git/config", "x"), p: predicate()},
		"section 4/paths/device":   {fsys: payload("aux.json", "x"), p: predicate()},
		"section 4/paths/colon":    {fsys: payload("a:b", "x"), p: predicate()},
		"section 4/paths/not NFC":  {fsys: payload("e\u0301", "x"), p: predicate()},
		"section 4/paths/case":     {fsys: payload("A", "x", "a", "x"), p: predicate()},
		"section 4/predicate":      {fsys: payload("a", "x"), p: bad},
		"section 4/evidence name":  {fsys: payload("a", "x"), p: predicate(), evidence: []envelope.Named{{Name: "A"}}},
		"section 4/evidence twice": {fsys: payload("a", "x"), p: predicate(), evidence: []envelope.Named{{Name: "a"}, {Name: "a"}}},
		"section 1/evidence too big": {fsys: payload("a", "x"), p: predicate(), evidence: []envelope.Named{
			{Name: "a", Data: make([]byte, envelope.MaxEvidenceSize+1)},
		}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, err := envelope.Build(t.Context(), tt.fsys, envelope.BuildOptions{Predicate: tt.p, Evidence: tt.evidence})
			refused(t, err, envelope.ErrFormat)
		})
	}
}

// TestBuildOnDisk: a real tree through os.Root, with links and an unreadable file.
func TestBuildOnDisk(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write("a/b", "1")
	write("c", "2")
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
	root := must[*os.Root](t)(os.OpenRoot(dir))
	defer root.Close()
	s, index, err := envelope.Build(t.Context(), root.FS(), envelope.BuildOptions{Predicate: predicate()})
	if err != nil || len(s.Subjects) != 2 {
		t.Fatalf("%v, %v", s, err)
	}
	e := must[*envelope.Envelope](t)(envelope.New(sign(t, must[[]byte](t)(s.Marshal())), index, nil))
	if err := envelope.VerifyPayload(t.Context(), root.FS(), e, nil); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{"inside": "c", "outside": "/etc/hostname", "directory": "a", "dangling": "nowhere"} {
		link := filepath.Join(dir, "link")
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
		_, _, err := envelope.Build(t.Context(), root.FS(), envelope.BuildOptions{Predicate: predicate()})
		refused(t, err, envelope.ErrFormat)
		refused(t, envelope.VerifyPayload(t.Context(), root.FS(), e, nil), envelope.ErrFormat)
		if err := os.Remove(link); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}

// shifty is a file system whose one file is not what the directory says: its size, or its kind, changed after the walk.
type shifty struct {
	fstest.MapFS
	now fstest.MapFS
}

func (s shifty) Open(name string) (fs.File, error) {
	if _, changed := s.now[name]; changed {
		return s.now.Open(name)
	}
	return s.MapFS.Open(name)
}

func TestBuildChanging(t *testing.T) {
	one := bigFile(envelope.BlockSize + 5)
	tests := map[string]struct {
		was, now string
		mode     fs.FileMode
		want     error
	}{
		"longer":              {"abc", "abcd", 0, envelope.ErrDigest},
		"shorter":             {"abc", "ab", 0, envelope.ErrDigest},
		"emptied":             {"abc", "", 0, envelope.ErrDigest},
		"filled":              {"", "a", 0, envelope.ErrDigest},
		"one block more":      {one, one + one, 0, envelope.ErrDigest},
		"one block less":      {one, one[:envelope.BlockSize], 0, envelope.ErrDigest},
		"became a named pipe": {"abc", "abc", fs.ModeNamedPipe, envelope.ErrFormat},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			fsys := shifty{payload("f", tt.was, "g", "other"), fstest.MapFS{"f": {Data: []byte(tt.now), Mode: tt.mode}}}
			_, _, err := envelope.Build(t.Context(), fsys, envelope.BuildOptions{Predicate: predicate()})
			refused(t, err, tt.want)
		})
	}
}

// breaking gives a reader that fails in the middle.
type breaking struct {
	fstest.MapFS
	after int
}

type breakingFile struct {
	fs.File
	r io.Reader
}

func (b breakingFile) Read(p []byte) (int, error) { return b.r.Read(p) }

func (b breaking) Open(name string) (fs.File, error) {
	f, err := b.MapFS.Open(name)
	if name == "." || err != nil {
		return f, err
	}
	return breakingFile{f, io.MultiReader(io.LimitReader(f, int64(b.after)), iotest.ErrReader(errDisk))}, nil
}

func TestReadErrors(t *testing.T) {
	files := payload("f", bigFile(2*envelope.BlockSize), "g", "x")
	s, index := build(t, files, predicate())
	e := must[*envelope.Envelope](t)(envelope.New(sign(t, must[[]byte](t)(s.Marshal())), index, nil))
	for _, after := range []int{0, 1, envelope.BlockSize - 1, envelope.BlockSize, envelope.BlockSize + 1, 2 * envelope.BlockSize} {
		fsys := breaking{files, after}
		if _, _, err := envelope.Build(t.Context(), fsys, envelope.BuildOptions{Predicate: predicate()}); !errors.Is(err, errDisk) {
			t.Errorf("build, after %d bytes: %v", after, err)
		}
		if err := envelope.VerifyPayload(t.Context(), fsys, e, nil); !errors.Is(err, errDisk) || errors.Is(err, envelope.ErrDigest) {
			t.Errorf("verify, after %d bytes: %v", after, err)
		}
	}
}

func TestCancelled(t *testing.T) {
	e, fsys := full(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := envelope.Build(ctx, fsys, envelope.BuildOptions{Predicate: predicate()}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if err := envelope.VerifyPayload(ctx, fsys, e, nil); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	stop := func(done, _ int64) { cancel() } // in the middle of the first file
	_, _, err := envelope.Build(ctx, payload("f", bigFile(3*envelope.BlockSize)), envelope.BuildOptions{Predicate: predicate(), Progress: stop})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

// TestProgress: one call at a time, never back, and the total is reached.
func TestProgress(t *testing.T) {
	_, fsys := full(t)
	var last, calls int64
	var busy sync.Mutex
	report := func(done, total int64) {
		if !busy.TryLock() {
			t.Error("two calls at a time")
			return
		}
		defer busy.Unlock()
		if done < last || done > total {
			t.Errorf("done %d after %d, total %d", done, last, total)
		}
		last, calls = done, calls+1
	}
	s, index, err := envelope.Build(t.Context(), fsys, envelope.BuildOptions{Predicate: predicate(), Progress: report})
	if err != nil || last != s.Predicate.TotalSize || calls != s.Predicate.ContentIndex.Blocks {
		t.Fatalf("%v: %d bytes in %d calls", err, last, calls)
	}
	last, calls = 0, 0
	e := must[*envelope.Envelope](t)(envelope.New(sign(t, must[[]byte](t)(s.Marshal())), index, nil))
	if err := envelope.VerifyPayload(t.Context(), fsys, e, report); err != nil || last != s.Predicate.TotalSize {
		t.Fatalf("%v: %d bytes", err, last)
	}
}

// TestVerifyPayload plants one fault at a time and wants the file and the range by name.
func TestVerifyPayload(t *testing.T) {
	e, fsys := full(t)
	if err := envelope.VerifyPayload(t.Context(), fsys, e, nil); err != nil {
		t.Fatal(err)
	}
	const big = "weights/model-1.bin"
	flip := func(path string, at int) fstest.MapFS {
		m := copyFS(fsys)
		data := bytes.Clone(m[path].Data)
		data[at] ^= 0x10
		m[path] = &fstest.MapFile{Data: data}
		return m
	}
	set := func(path, data string) fstest.MapFS {
		m := copyFS(fsys)
		m[path] = &fstest.MapFile{Data: []byte(data)}
		return m
	}
	without := func(path string) fstest.MapFS {
		m := copyFS(fsys)
		delete(m, path)
		return m
	}
	const mib = envelope.BlockSize
	type at struct {
		path                  string
		block, offset, length int64
		words                 string
	}
	tests := map[string]struct {
		fsys fstest.MapFS
		want at
	}{
		"first byte":         {flip(big, 0), at{big, 0, 0, mib, "bytes 0 to 1048575"}},
		"end of first block": {flip(big, mib-1), at{big, 0, 0, mib, "content block 0"}},
		"second block":       {flip(big, mib), at{big, 1, mib, mib, "bytes 1048576 to 2097151"}},
		"last, short block":  {flip(big, 2*mib+16), at{big, 2, 2 * mib, 17, "bytes 2097152 to 2097168"}},
		"small file":         {flip("config.json", 3), at{"config.json", 0, 0, 7, "content block 0"}},
		"missing":            {without(big), at{big, -1, 0, 2*mib + 17, "is missing"}},
		"missing, last":      {without("z\u2028z"), at{"z\u2028z", -1, 0, 9, "is missing"}},
		"missing, empty":     {without("empty"), at{"empty", -1, 0, 0, "is missing"}},
		"extra":              {set("extra", "x"), at{"extra", -1, 0, 1, "not in the release"}},
		"extra, first":       {set("aaa", ""), at{"aaa", -1, 0, 0, "not in the release"}},
		"extra, last":        {set("\U0001f512", ""), at{"\U0001f512", -1, 0, 0, "not in the release"}},
		"longer":             {set("config.json", `{"a":1} `), at{"config.json", -1, 0, 7, "has 8 bytes"}},
		"shorter":            {set(big, bigFile(2*mib)), at{big, -1, 0, 2*mib + 17, "has 2097152 bytes"}},
		"no more empty":      {set("empty", "x"), at{"empty", -1, 0, 0, "has 1 bytes"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := envelope.VerifyPayload(t.Context(), tt.fsys, e, nil)
			refused(t, err, envelope.ErrDigest)
			var pe *envelope.PayloadError
			if !errors.As(err, &pe) {
				t.Fatalf("%T: %v", err, err)
			}
			if got := (at{pe.Path, pe.Block, pe.Offset, pe.Length, tt.want.words}); got != tt.want || !strings.Contains(err.Error(), tt.want.words) {
				t.Fatalf("got %+v: %v", got, err)
			}
			if pe.Block >= 0 && (pe.Want == pe.Got || pe.Want == envelope.Digest{} || pe.Got == envelope.Digest{}) {
				t.Fatalf("digests: %+v", pe)
			}
		})
	}
}

func copyFS(m fstest.MapFS) fstest.MapFS {
	out := fstest.MapFS{}
	for k, v := range m {
		out[k] = v
	}
	return out
}

// TestVerifyFiles: by number, with lengths that only the reading shows.
func TestVerifyFiles(t *testing.T) {
	const mib = envelope.BlockSize
	contents := []string{"", "abc", bigFile(mib), bigFile(mib + 1), bigFile(2 * mib)}
	s, index := build(t, payload("0", contents[0], "1", contents[1], "2", contents[2], "3", contents[3], "4", contents[4]), predicate())
	verify := func(i int, instead string) error {
		var mu sync.Mutex
		closed := 0
		open := func(n int) (io.ReadCloser, error) {
			data := contents[n]
			if n == i {
				data = instead
			}
			return closer{strings.NewReader(data), func() { mu.Lock(); closed++; mu.Unlock() }}, nil
		}
		err := envelope.VerifyFiles(t.Context(), s, index, open, nil)
		if err == nil && closed != len(contents) {
			t.Fatalf("%d of %d files closed", closed, len(contents))
		}
		return err
	}
	if err := verify(-1, ""); err != nil {
		t.Fatal(err)
	}
	for i, data := range contents {
		changed := []string{data + "x", data + contents[3]}
		if data != "" {
			changed = append(changed, data[1:], "x"+data[1:], "", data[:len(data)-1])
		}
		for _, c := range changed {
			err := verify(i, c)
			var pe *envelope.PayloadError
			if !errors.As(err, &pe) || pe.Path != fmt.Sprint(i) {
				t.Errorf("file %d with %d bytes for %d: %v", i, len(c), len(data), err)
			}
			if strings.HasPrefix(c, data) && len(data)%mib == 0 && !strings.Contains(err.Error(), "longer") {
				t.Errorf("file %d with %d bytes for %d: %v: does not say longer", i, len(c), len(data), err)
			}
		}
	}
	broken := func(int) (io.ReadCloser, error) { return nil, errDisk }
	if err := envelope.VerifyFiles(t.Context(), s, index, broken, nil); !errors.Is(err, errDisk) {
		t.Fatal(err)
	}
	refused(t, envelope.VerifyFiles(t.Context(), s, index[1:], broken, nil), envelope.ErrFormat)
}

type closer struct {
	io.Reader
	close func()
}

func (c closer) Close() error { c.close(); return nil }

// TestVerifyLyingStatement: a statement whose index is right and whose file digest is not; the blocks alone would
// not show it.
func TestVerifyLyingStatement(t *testing.T) {
	fsys := payload("f", bigFile(envelope.BlockSize+1))
	s, index := build(t, fsys, predicate())
	s.Subjects[0].Digest.SHA256[0] ^= 1
	recompute(s)
	open := func(int) (io.ReadCloser, error) { return fsys.Open("f") }
	var pe *envelope.PayloadError
	if err := envelope.VerifyFiles(t.Context(), s, index, open, nil); !errors.As(err, &pe) || pe.Block != -1 {
		t.Fatal(err)
	}
	e := &envelope.Envelope{Statement: s, Index: index}
	if err := envelope.VerifyPayload(t.Context(), fsys, e, nil); !errors.As(err, &pe) {
		t.Fatal(err)
	}
}
