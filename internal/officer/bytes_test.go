// SPDX-License-Identifier: Apache-2.0

package officer_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"sluice/internal/officer"
	"sluice/pkg/envelope"
)

func payloadError(t *testing.T, err error, path string, block int64) {
	t.Helper()
	var damage *envelope.PayloadError
	if !errors.As(err, &damage) || damage.Path != path || damage.Block != block {
		t.Errorf("%v: want file %s, block %d", err, path, block)
	}
}

// TestBytes: what is read, what is not read again, and what is claimed.
func TestBytes(t *testing.T) {
	r := newRoom(t)
	cache := filepath.Join(t.TempDir(), "cache")
	one := fstest.MapFS{"big.bin": {Data: big(3)}, "README.md": {Data: []byte("v1\n")}, "empty": {}}
	first := r.release(one, nil, nil)
	r.put(first, nil)
	verify := func(env *envelope.Envelope, files fstest.MapFS) officer.Bytes {
		t.Helper()
		seen, err := officer.OpenSeen(cache)
		must(t, err)
		defer func() { must(t, seen.Close()) }()
		var last int64
		b, err := (&officer.Payload{Root: staging(t, files), Seen: seen, Progress: func(done, _ int64) { last = done }}).Verify(t.Context(), env)
		must(t, err)
		if last != env.Statement.Predicate.TotalSize {
			t.Errorf("progress ended at %d", last)
		}
		return b
	}
	total := first.Statement.Predicate.TotalSize
	if got := verify(first, one); got != (officer.Bytes{All: true, Now: total, Files: 3, OfFiles: 3}) {
		t.Errorf("first: %+v", got)
	}
	if got := verify(first, one); got != (officer.Bytes{All: true, Before: total, Files: 3, OfFiles: 3}) {
		t.Errorf("again: %+v", got)
	}
	r.view(first, officer.LookOptions{Payload: &officer.Payload{Root: staging(t, one), Seen: openSeen(t, cache)}}) // keeps the small texts
	two := fstest.MapFS{"big.bin": {Data: append(big(3), "more"...)}, "README.md": {Data: []byte("v2 is longer\n")}, "empty": {}}
	second := r.release(two, first, nil)
	if got := verify(second, two); got != (officer.Bytes{All: true, Now: 8 + 13, Before: 3 << 20, Files: 2, OfFiles: 3}) {
		t.Errorf("second reads its last block and README alone: %+v", got)
	}
	r.put(second, first)
	v := r.view(second, officer.LookOptions{Payload: &officer.Payload{Root: staging(t, two), Seen: openSeen(t, cache)}})
	if !slices.Contains(v.Checked(), "bytes") || !strings.Contains(v.Page().Text(), "1 of 3 files by their content blocks only") || strings.Contains(v.Page().Text(), "NOT seen") {
		t.Errorf("checked %q\n%s", v.Checked(), v.Page().Text())
	}
	if !strings.Contains(v.Page().Text(), "| -v1\n") || !strings.Contains(v.Page().Text(), "| +v2 is longer\n") {
		t.Errorf("the README of before was kept when it was read, and no difference is shown:\n%s", v.Page().Text())
	}
	if without := r.view(second, officer.LookOptions{}); slices.Contains(without.Checked(), "bytes") || !strings.Contains(without.Page().Text(), "bytes NOT seen") {
		t.Error("bytes are claimed without a payload")
	}
}

// TestUnseenBlockIsRead: a block that this machine never hashed is read, whatever stands around it, and what differs is refused with its place.
func TestUnseenBlockIsRead(t *testing.T) {
	r := newRoom(t)
	cache := t.TempDir()
	must(t, os.Chmod(cache, 0o700))
	one := fstest.MapFS{"big.bin": {Data: big(3)}}
	first := r.release(one, nil, nil)
	_, err := (&officer.Payload{Root: staging(t, one), Seen: openSeen(t, cache)}).Verify(t.Context(), first)
	must(t, err)
	changed := bytes.Clone(big(3))
	changed[2<<20] ^= 1
	second := r.release(fstest.MapFS{"big.bin": {Data: changed}}, first, nil)
	// The staging has the old bytes: only the block that was never seen can tell.
	_, err = (&officer.Payload{Root: staging(t, one), Seen: openSeen(t, cache)}).Verify(t.Context(), second)
	payloadError(t, err, "big.bin", 2)
	// And a staging that differs in a block that was seen before is not what the claim is about: those bytes were hashed here once.
	flipped := bytes.Clone(changed)
	flipped[0] ^= 1
	b, err := (&officer.Payload{Root: staging(t, fstest.MapFS{"big.bin": {Data: flipped}}), Seen: openSeen(t, cache)}).Verify(t.Context(), second)
	must(t, err)
	if b.Now != 1<<20 || b.Before != 2<<20+4 {
		t.Errorf("%+v", b)
	}
}

func TestPayloadRefusals(t *testing.T) {
	r := newRoom(t)
	good := func() fstest.MapFS { return fstest.MapFS{"a.txt": {Data: []byte("aaaa")}, "d/b.bin": {Data: big(1)}} }
	env := r.release(good(), nil, nil)
	for _, c := range []struct {
		name  string
		spoil func(fstest.MapFS)
		path  string
		block int64
	}{
		{"a flipped byte", func(f fstest.MapFS) { f["d/b.bin"].Data[1<<20] ^= 1 }, "d/b.bin", 1},
		{"missing", func(f fstest.MapFS) { delete(f, "a.txt") }, "a.txt", -1},
		{"one more", func(f fstest.MapFS) { f["c.txt"] = &fstest.MapFile{} }, "c.txt", -1},
		{"shorter", func(f fstest.MapFS) { f["a.txt"].Data = []byte("aaa") }, "a.txt", -1},
		{"longer", func(f fstest.MapFS) { f["a.txt"].Data = []byte("aaaaa") }, "a.txt", -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			spoilt := good()
			c.spoil(spoilt)
			b, err := (&officer.Payload{Root: staging(t, spoilt)}).Verify(t.Context(), env)
			payloadError(t, err, c.path, c.block)
			if b.All {
				t.Error("claimed all the same")
			}
		})
	}
	for name, put := range map[string]func(path string) error{
		"a link": func(path string) error { return os.Symlink("d/b.bin", path) },
		"a pipe": func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			must(t, errors.Join(os.CopyFS(dir, fs.FS(good())), os.Remove(filepath.Join(dir, "a.txt")), put(filepath.Join(dir, "a.txt"))))
			root, err := os.OpenRoot(dir)
			must(t, err)
			defer root.Close()
			_, err = (&officer.Payload{Root: root}).Verify(t.Context(), env)
			payloadError(t, err, "a.txt", -1)
		})
	}
}

// TestSeen: the record is this officer's memory, or it is nothing.
func TestSeen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	must(t, openSeen(t, dir).Close())
	must(t, os.Chmod(dir, 0o777))
	if _, err := officer.OpenSeen(dir); !errors.Is(err, officer.ErrSeen) {
		t.Errorf("others may write there: %v", err)
	}
	must(t, os.Chmod(dir, 0o700))
	file := filepath.Join(dir, "seen-v1")
	must(t, os.Chmod(file, 0o666))
	if _, err := officer.OpenSeen(dir); !errors.Is(err, officer.ErrSeen) {
		t.Errorf("others may write the file: %v", err)
	}
	must(t, os.Chmod(file, 0o600))
	must(t, os.WriteFile(file, []byte("something else"), 0o600))
	if _, err := officer.OpenSeen(dir); !errors.Is(err, officer.ErrSeen) {
		t.Errorf("no record: %v", err)
	}
	must(t, os.WriteFile(file, []byte("SLSEEN\x00\x01torn entry"), 0o600))
	r := newRoom(t)
	env := r.release(fstest.MapFS{"a": {Data: []byte("a")}}, nil, nil)
	for _, now := range []int64{1, 0} { // the torn entry is nothing, and what is written after it is found
		seen, err := officer.OpenSeen(dir)
		must(t, err)
		b, err := (&officer.Payload{Root: staging(t, fstest.MapFS{"a": {Data: []byte("a")}}), Seen: seen}).Verify(t.Context(), env)
		must(t, errors.Join(err, seen.Close()))
		if b.Now != now || !b.All {
			t.Errorf("%+v, want %d read", b, now)
		}
	}
}
