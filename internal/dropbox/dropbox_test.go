// SPDX-License-Identifier: Apache-2.0

package dropbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"

	"sluice/internal/dropbox"
	"sluice/internal/trust/trusttest"
	"sluice/pkg/envelope"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sealed makes a release of a stream, and its successor.
func sealed(t *testing.T) (before, after *envelope.Envelope) {
	t.Helper()
	s, err := trusttest.New()
	must(t, err)
	before, err = s.Seal(t.Context(), fstest.MapFS{"a.txt": {Data: []byte("a")}}, trusttest.Predicate("models/llm", 1, 4), nil)
	must(t, err)
	p := trusttest.Predicate("models/llm", 1, 5)
	p.Prev = before.ID.String()
	after, err = s.Seal(t.Context(), fstest.MapFS{"a.txt": {Data: []byte("b")}}, p, nil)
	must(t, err)
	return before, after
}

func TestRequest(t *testing.T) {
	before, after := sealed(t)
	box := dropbox.Box{Dir: filepath.Join(t.TempDir(), "box")}
	for range 2 { // idempotent
		must(t, box.PutRequest(after, before, dropbox.Page{Text: []byte("text"), HTML: []byte("html")}))
	}
	name := fmt.Sprintf("models.llm-000005-%.8s", after.ID)
	for _, by := range []string{"", name, after.ID.String()[:8], after.ID.String()} {
		r, err := box.ReadRequest(by)
		must(t, err)
		if r.Name != name || r.Envelope.ID != after.ID || r.Previous == nil || r.Previous.ID != before.ID || r.Lack != "" {
			t.Errorf("%q: %s, previous %v, lack %q", by, r.Name, r.Previous != nil, r.Lack)
		}
	}
	for _, by := range []string{"x", after.ID.String()[:7], after.ID.String()[:8] + strings.Repeat("0", 56), "../requests"} {
		if _, err := box.ReadRequest(by); !errors.Is(err, dropbox.ErrRequest) {
			t.Errorf("%q: %v", by, err)
		}
	}
	for file, want := range map[string]string{"review.txt": "text", "review.html": "html", "evidence/inspection.json": "{}\n"} {
		if b, err := os.ReadFile(filepath.Join(box.Dir, "requests", name, file)); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v", file, b, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(box.Dir, "requests", name, ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("dot files left behind: %v %v", left, err)
	}
}

// TestEvilPrevious: what previous.sluice holds is taken only if it is the release that the statement names, and nothing that lies there holds
// the tool up.
func TestEvilPrevious(t *testing.T) {
	before, after := sealed(t)
	other, _ := sealed(t)
	var stream, strange bytes.Buffer
	_, err := before.WriteTo(&stream)
	must(t, err)
	p := other.Statement.Predicate
	p.Version = "another"
	s, err := trusttest.New()
	must(t, err)
	other, err = s.Seal(t.Context(), fstest.MapFS{"evil.txt": {Data: []byte("e")}}, p, nil)
	must(t, err)
	_, err = other.WriteTo(&strange)
	must(t, err)
	for _, c := range []struct {
		name string
		put  func(path string) error
		lack string
	}{
		{"the right one", func(path string) error { return os.WriteFile(path, stream.Bytes(), 0o600) }, ""},
		{"none", func(string) error { return nil }, "does not hold it"},
		{"another release", func(path string) error { return os.WriteFile(path, strange.Bytes(), 0o600) }, "another release"},
		{"cut", func(path string) error { return os.WriteFile(path, stream.Bytes()[:stream.Len()/2], 0o600) }, "format"},
		{"flipped", func(path string) error {
			b := bytes.Clone(stream.Bytes())
			b[len(b)/2] ^= 1
			return os.WriteFile(path, b, 0o600)
		}, "envelope"},
		{"a link", func(path string) error { return os.Symlink("envelope.sluice", path) }, "no regular file"},
		{"a pipe", func(path string) error { return syscall.Mkfifo(path, 0o600) }, "no regular file"},
		{"a directory", func(path string) error { return os.Mkdir(path, 0o700) }, "no regular file"},
	} {
		t.Run(c.name, func(t *testing.T) {
			box := dropbox.Box{Dir: t.TempDir()}
			must(t, box.PutRequest(after, nil, dropbox.Page{}))
			must(t, c.put(filepath.Join(box.Dir, "requests", dropbox.RequestName(after), "previous.sluice")))
			r, err := box.ReadRequest("")
			must(t, err)
			if (r.Previous != nil) != (c.lack == "") || !strings.Contains(r.Lack, c.lack) {
				t.Errorf("previous %v, lack %q", r.Previous != nil, r.Lack)
			}
		})
	}
}

// TestHostileBox: links, pipes, huge files, names with escapes. Each is named, and the good one beside them is read.
func TestHostileBox(t *testing.T) {
	_, after := sealed(t)
	box := dropbox.Box{Dir: t.TempDir()}
	must(t, box.PutRequest(after, nil, dropbox.Page{}))
	dir := filepath.Join(box.Dir, "approvals", after.ID.String())
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	must(t, errors.Join(
		os.WriteFile(filepath.Join(dir, "security.a.roy.json"), []byte("{}"), 0o600),
		os.Symlink(secret, filepath.Join(dir, "security.link.json")),
		syscall.Mkfifo(filepath.Join(dir, "security.pipe.json"), 0o600),
		os.WriteFile(filepath.Join(dir, "security.huge.json"), make([]byte, 64<<10+1), 0o600),
		os.WriteFile(filepath.Join(dir, "security.\x1b[2J\u202egnp.json"), []byte("{}"), 0o600),
		os.WriteFile(filepath.Join(dir, ".security.a.roy.json.tmp"), []byte("half"), 0o600),
		os.Mkdir(filepath.Join(dir, "security.dir.json"), 0o700),
	))
	found, problems, err := box.Approvals(after.ID)
	must(t, err)
	if len(found) != 1 || found[0].Name != "security.a.roy.json" || len(problems) != 5 {
		t.Errorf("%d found, problems %q", len(found), problems)
	}
	for _, p := range problems {
		if strings.ContainsAny(p, "\x1b\u202e") {
			t.Errorf("a problem carries the escape: %q", p)
		}
	}
	must(t, errors.Join(os.RemoveAll(filepath.Join(box.Dir, "requests")), os.Symlink("/etc", filepath.Join(box.Dir, "requests"))))
	if _, err := box.Requests(); !errors.Is(err, dropbox.ErrHostile) {
		t.Errorf("requests is a link: %v", err)
	}
}

// TestTooManyNames: a directory of a stick may have any number of names.
func TestTooManyNames(t *testing.T) {
	box := dropbox.Box{Dir: t.TempDir()}
	dir := filepath.Join(box.Dir, "requests")
	must(t, os.Mkdir(dir, 0o700))
	for i := range dropbox.MaxNames + 1 {
		must(t, os.Mkdir(filepath.Join(dir, fmt.Sprint(i)), 0o700))
	}
	if _, err := box.Requests(); !errors.Is(err, dropbox.ErrHostile) {
		t.Errorf("%v", err)
	}
}

// TestNeverOver: each way to give a file its name leaves one that is there as it is.
func TestNeverOver(t *testing.T) {
	for name, way := range dropbox.Ways() {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			root, err := os.OpenRoot(dir)
			must(t, err)
			defer root.Close()
			must(t, errors.Join(root.Mkdir("d", 0o700), root.WriteFile("d/tmp", []byte("new"), 0o600), root.WriteFile("d/name", []byte("old"), 0o600)))
			if err := way(root, "d/tmp", "d/name", []byte("new")); !errors.Is(err, fs.ErrExist) && !errors.Is(err, dropbox.ErrExists) {
				t.Errorf("over a file: %v", err)
			}
			if b, err := root.ReadFile("d/name"); err != nil || string(b) != "old" {
				t.Errorf("it holds %q now, %v", b, err)
			}
			must(t, way(root, "d/tmp", "d/fresh", []byte("new")))
			if b, err := root.ReadFile("d/fresh"); err != nil || string(b) != "new" {
				t.Errorf("fresh holds %q, %v", b, err)
			}
			if _, err := root.Lstat("d/tmp"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the dot file is left: %v", err)
			}
		})
	}
}

// TestAtOnce: many writers of one name. One wins, and its bytes are whole.
func TestAtOnce(t *testing.T) {
	box := dropbox.Box{Dir: t.TempDir()}
	const writers = 16
	errs := make([]error, writers)
	var all sync.WaitGroup
	for i := range writers {
		all.Go(func() {
			errs[i] = box.AddApproval(envelope.Digest{1}, "security.a.roy.json", bytes.Repeat([]byte{byte('a' + i)}, 9000))
		})
	}
	all.Wait()
	won := -1
	for i, err := range errs {
		switch {
		case err == nil && won >= 0:
			t.Fatalf("%d and %d both won", won, i)
		case err == nil:
			won = i
		case !errors.Is(err, dropbox.ErrExists):
			t.Errorf("%d: %v", i, err)
		}
	}
	found, problems, err := box.Approvals(envelope.Digest{1})
	must(t, err)
	if won < 0 || len(found) != 1 || len(problems) > 0 || !bytes.Equal(found[0].Data, bytes.Repeat([]byte{byte('a' + won)}, 9000)) {
		t.Errorf("winner %d, found %d, %q", won, len(found), problems)
	}
}

func TestAway(t *testing.T) {
	box := dropbox.Box{Dir: filepath.Join(t.TempDir(), "stick")}
	if _, err := box.ReadRequest(""); !errors.Is(err, dropbox.ErrAway) {
		t.Errorf("read: %v", err)
	}
	if err := box.AddOrder(strings.Repeat("a", 64), []byte("x")); !errors.Is(err, dropbox.ErrAway) {
		t.Errorf("write: %v", err)
	}
	if _, err := os.Lstat(box.Dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("an officer's tool made the folder of a stick that is not in")
	}
	if found, _, err := box.Approvals(envelope.Digest{}); err != nil || found != nil {
		t.Errorf("the bastion asks before there is anything: %v, %v", found, err)
	}
}

// TestReadOnly is what a person is told. A mount cannot be made here, so the errors of the kernel are given by hand, and where the user is not
// root a directory without permission is tried as well.
func TestReadOnly(t *testing.T) {
	wrap := func(e syscall.Errno) error { return &fs.PathError{Op: "openat", Path: "x", Err: e} }
	for errno, want := range map[syscall.Errno]error{
		syscall.EROFS: dropbox.ErrReadOnly, syscall.EACCES: dropbox.ErrReadOnly, syscall.EPERM: dropbox.ErrReadOnly,
		syscall.ENOENT: dropbox.ErrAway, syscall.EIO: dropbox.ErrAway, syscall.ENODEV: dropbox.ErrAway, syscall.ESTALE: dropbox.ErrAway,
	} {
		if err := dropbox.ExplainWrite(wrap(errno)); !errors.Is(err, want) || !errors.Is(err, errno) {
			t.Errorf("%v: %v", errno, err)
		}
	}
	if err := dropbox.Explain(wrap(syscall.EACCES)); errors.Is(err, dropbox.ErrReadOnly) {
		t.Errorf("a file that may not be read is no read-only stick: %v", err)
	}
	if os.Geteuid() == 0 {
		return
	}
	box := dropbox.Box{Dir: t.TempDir()}
	must(t, os.Chmod(box.Dir, 0o500))
	if err := box.TryWrite(); !errors.Is(err, dropbox.ErrReadOnly) {
		t.Errorf("%v", err)
	}
}

func TestChainAndProposals(t *testing.T) {
	box := dropbox.Box{Dir: filepath.Join(t.TempDir(), "box")}
	for range 2 {
		must(t, box.PutChain([][]byte{[]byte("one"), []byte("two")}))
	}
	must(t, os.WriteFile(filepath.Join(box.Dir, "trust/chain/000004.json"), []byte("four"), 0o600))
	chain, err := box.Chain()
	must(t, err)
	if len(chain) != 2 || string(chain[1]) != "two" {
		t.Errorf("chain %q: nothing is skipped", chain)
	}
	fp, key := strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	must(t, box.AddProposal(3, fp, []byte("proposal")))
	must(t, box.AddSignature(3, fp, "a.roy", key, []byte("signature")))
	if err := box.AddSignature(3, fp, "a.roy", key, []byte("other")); !errors.Is(err, dropbox.ErrExists) {
		t.Errorf("over a signature: %v", err)
	}
	must(t, errors.Join(
		os.Mkdir(filepath.Join(box.Dir, "trust/proposals/3"), 0o700),
		os.WriteFile(filepath.Join(box.Dir, "trust/proposals/000003/notes.txt"), []byte("x"), 0o600),
	))
	found, problems, err := box.Proposals()
	must(t, err)
	if len(found) != 1 || len(problems) != 2 {
		t.Fatalf("found %d, problems %q", len(found), problems)
	}
	p := found[0]
	if p.Version != 3 || p.Fingerprint != fp || string(p.Data) != "proposal" || len(p.Signed) != 1 || p.Signed[0].Name != fp+".a.roy.cdcdcdcd.json" {
		t.Errorf("%+v", p)
	}
}
