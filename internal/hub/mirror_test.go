// SPDX-License-Identifier: Apache-2.0

package hub_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"sluice/internal/hub"
	"sluice/internal/hub/hubtest"
)

const big = 3<<20 + 12345 // bytes of the LFS file

// content is the snapshot that the tests mirror.
func content() map[string][]byte {
	r := rand.New(rand.NewPCG(1, 2))
	weights := make([]byte, big)
	for i := range weights {
		weights[i] = byte(r.Uint32())
	}
	return map[string][]byte{
		"config.json":          []byte(`{"model_type":"llama"}`),
		"README.md":            bytes.Repeat([]byte("read me\n"), 2000),
		"empty.txt":            {},
		"model.safetensors":    weights,
		"sub dir/ä?&#%41.json": []byte(`{}`),
		"onnx/deep/model.onnx": []byte("not wanted"),
	}
}

func writeTree(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for p, b := range files {
		full := filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func readTree(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		files[rel], err = os.ReadFile(p)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// bench is a server with one repository, a client for it and a target directory.
type bench struct {
	t      *testing.T
	srv    *hubtest.Server
	url    string
	repo   hub.Repo
	commit string
	dir    string
	files  map[string][]byte
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, srv: hubtest.New(), dir: filepath.Join(t.TempDir(), "mirror"), files: content(), repo: hub.Repo{Type: "model", ID: "org/model"}}
	commit, err := b.srv.AddRepo("org/model", writeTree(t, b.files))
	if err != nil {
		t.Fatal(err)
	}
	b.commit = commit
	s := httptest.NewServer(b.srv)
	t.Cleanup(s.Close)
	b.url = s.URL
	return b
}

func (b *bench) client(change ...func(*hub.Config)) *hub.Client {
	b.t.Helper()
	cfg := hub.Config{Endpoint: b.url, MaxWait: time.Millisecond, Retries: 3}
	for _, c := range change {
		c(&cfg)
	}
	c, err := hub.New(cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	return c
}

func (b *bench) request() hub.Request {
	return hub.Request{Repo: b.repo, Commit: b.commit, Revision: "main", Dir: b.dir}
}

func (b *bench) mirror() (*hub.Record, error) {
	return b.client().Mirror(b.t.Context(), b.request())
}

// check demands that the mirror holds exactly the files.
func (b *bench) check(rec *hub.Record, err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	if got := readTree(b.t, b.dir); !maps.EqualFunc(got, b.files, bytes.Equal) {
		for p := range got {
			if !bytes.Equal(got[p], b.files[p]) {
				b.t.Errorf("%s differs", p)
			}
		}
		b.t.Fatalf("mirrored %d files, want %d", len(got), len(b.files))
	}
	if len(rec.Files) != len(b.files) {
		b.t.Fatalf("record has %d files, want %d", len(rec.Files), len(b.files))
	}
	for _, f := range rec.Files {
		sum := sha256.Sum256(b.files[f.Path])
		if f.SHA256 != hex.EncodeToString(sum[:]) || f.Size != int64(len(b.files[f.Path])) {
			b.t.Errorf("record of %s: %+v", f.Path, f)
		}
	}
}

func TestResolveAndRecord(t *testing.T) {
	b := newBench(t)
	commit, err := b.client().Resolve(t.Context(), b.repo, "main")
	if err != nil || commit != b.commit {
		t.Fatalf("Resolve: %q %v, want %q", commit, err, b.commit)
	}
	rec, err := b.mirror()
	b.check(rec, err)
	methods := map[string]string{}
	for _, f := range rec.Files {
		methods[f.Path] = f.Method
	}
	if methods["model.safetensors"] != hub.MethodSHA256 || methods["config.json"] != hub.MethodGitSHA1 {
		t.Errorf("methods %v", methods)
	}
	j, err := rec.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var back hub.Record
	if err := json.Unmarshal(j, &back); err != nil || !cmp.Equal(*rec, back) {
		t.Errorf("record does not survive JSON: %v %s", err, cmp.Diff(*rec, back))
	}
	if rec.Endpoint != b.url || rec.Commit != b.commit || rec.Revision != "main" || rec.TotalSize <= big {
		t.Errorf("record %+v", rec)
	}
}

func TestOlderCommit(t *testing.T) {
	b := newBench(t)
	newer := map[string][]byte{"config.json": []byte("{}")}
	main, err := b.srv.AddCommit("org/model", writeTree(t, newer))
	if err != nil {
		t.Fatal(err)
	}
	b.check(b.mirror()) // the old one, still
	if got, err := b.client().Resolve(t.Context(), b.repo, "main"); got != main || err != nil {
		t.Errorf("main is %q %v, want %q", got, err, main)
	}
	b.commit, b.files, b.dir = main, newer, t.TempDir()
	b.check(b.mirror())
}

func TestDataset(t *testing.T) {
	b := newBench(t)
	commit, err := b.srv.AddRepo("datasets/org/data", writeTree(t, b.files))
	if err != nil {
		t.Fatal(err)
	}
	if b.repo, err = hub.ParseRepo("datasets/org/data"); err != nil {
		t.Fatal(err)
	}
	b.commit = commit
	b.check(b.mirror())
}

func TestPaging(t *testing.T) {
	for _, size := range []int{1, 2, 7, 100} {
		b := newBench(t)
		b.srv.PageSize = size
		b.check(b.mirror())
	}
}

func TestPatterns(t *testing.T) {
	b := newBench(t)
	req := b.request()
	req.Allow, req.Ignore = []string{"*.json", "*.onnx", "README*"}, []string{"onnx/"}
	rec, err := b.client().Mirror(t.Context(), req)
	for _, p := range []string{"empty.txt", "model.safetensors", "onnx/deep/model.onnx"} {
		delete(b.files, p)
	}
	b.check(rec, err)
	if want := []string{"empty.txt", "model.safetensors", "onnx/deep/model.onnx"}; !slices.Equal(rec.Skipped, want) {
		t.Errorf("skipped %v, want %v", rec.Skipped, want)
	}
	req.Allow = []string{"nothing"}
	if _, err := b.client().Mirror(t.Context(), req); !errors.Is(err, hub.ErrConfig) {
		t.Errorf("empty selection: %v", err)
	}
}

// TestFaults: whatever goes wrong once or twice on the way, the mirror ends exact.
func TestFaults(t *testing.T) {
	const lfs, small = "model.safetensors", "README.md"
	limited := map[string]string{"RateLimit": `"api";r=0;t=55`, "RateLimit-Policy": `"fixed window";"api";q=500;w=300`}
	for name, faults := range map[string][]hubtest.Fault{
		"cut body":               {{Where: hubtest.InBody, What: hubtest.Cut, Path: lfs, At: 1 << 20, Times: 1}},
		"cut body at many bytes": cuts(lfs, 1, 65536, 1<<20, 2<<20, 2<<20, big-1),
		"cut small body":         {{Where: hubtest.InBody, What: hubtest.Cut, Path: small, At: 9000, Times: 2}},
		"cut without progress":   {{Where: hubtest.InBody, What: hubtest.Cut, Path: lfs, At: 0, Times: 3}},
		"flip LFS":               {{Where: hubtest.InBody, What: hubtest.Flip, Path: lfs, At: 2_000_000, Times: 1}},
		"flip small":             {{Where: hubtest.InBody, What: hubtest.Flip, Path: small, At: 15_999, Times: 1}},
		"429 at API":             {{Where: hubtest.AtAPI, What: hubtest.Status, Code: 429, Header: limited, Times: 2}},
		"429 with Retry-After":   {{Where: hubtest.AtResolve, What: hubtest.Status, Code: 429, Header: map[string]string{"Retry-After": "86400"}, Times: 2}},
		"503 everywhere": {
			{Where: hubtest.AtAPI, What: hubtest.Status, Code: 503, Times: 1},
			{Where: hubtest.AtResolve, What: hubtest.Status, Code: 503, Times: 3},
			{Where: hubtest.AtCDN, What: hubtest.Status, Code: 500, Times: 2},
		},
		"408":               {{Where: hubtest.AtResolve, What: hubtest.Status, Code: 408, Times: 2}},
		"expired signature": {{Where: hubtest.AtResolve, What: hubtest.Expire, Path: lfs, Times: 3}},
		"expired after a cut": {
			{Where: hubtest.InBody, What: hubtest.Cut, Path: lfs, At: 1 << 20, Times: 1},
			{Where: hubtest.AtResolve, What: hubtest.Status, Path: "none"},
			{Where: hubtest.AtCDN, What: hubtest.Status, Path: lfs, Code: 403, Times: 2},
		},
		"range ignored":     {cut(lfs), {Where: hubtest.InBody, What: hubtest.NoRange, Path: lfs, Times: 1}},
		"range wrong":       {cut(lfs), {Where: hubtest.InBody, What: hubtest.WrongRange, Path: lfs, Times: 1}},
		"range refused":     {cut(lfs), {Where: hubtest.InBody, What: hubtest.Unsatisfied, Path: lfs, Times: 1}},
		"no content length": {{Where: hubtest.InBody, What: hubtest.Chunked, Path: lfs, Times: 1}},
		"longer than said":  {{Where: hubtest.InBody, What: hubtest.Chunked, Text: "x", Path: lfs, Times: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			for _, f := range faults {
				b.srv.Inject(f)
			}
			core, logs := observer.New(zap.WarnLevel)
			c := b.client(func(cfg *hub.Config) { cfg.Logger = zap.New(core) })
			b.check(c.Mirror(t.Context(), b.request()))
			again := 0 // only wrong content is fetched anew as a whole: what else goes wrong is repaired
			if strings.HasPrefix(name, "flip") || name == "longer than said" {
				again = 1
			}
			if got := logs.FilterMessageSnippet("fetching once more").Len(); got != again {
				t.Errorf("%d files fetched anew, want %d", got, again)
			}
		})
	}
}

func cut(p string) hubtest.Fault {
	return hubtest.Fault{Where: hubtest.InBody, What: hubtest.Cut, Path: p, At: 1 << 20, Times: 1}
}

func cuts(p string, at ...int64) []hubtest.Fault {
	var list []hubtest.Fault
	for _, a := range at {
		list = append(list, hubtest.Fault{Where: hubtest.InBody, What: hubtest.Cut, Path: p, At: a, Times: 1})
	}
	return list
}

// TestRefusals: what does not go away ends in the right error, and leaves no file under its final name.
func TestRefusals(t *testing.T) {
	const lfs = "model.safetensors"
	for name, c := range map[string]struct {
		prepare func(*bench)
		want    error
		text    string
	}{
		"content wrong twice":  {func(b *bench) { b.inject(hubtest.InBody, hubtest.Flip, lfs) }, hub.ErrDigest, "model.safetensors"},
		"small content wrong":  {func(b *bench) { b.inject(hubtest.InBody, hubtest.Flip, "config.json") }, hub.ErrDigest, "git-sha1"},
		"always cut":           {func(b *bench) { b.cutAlways(lfs) }, hub.ErrUnavailable, "at byte 1048576"},
		"always expired":       {func(b *bench) { b.inject(hubtest.AtResolve, hubtest.Expire, lfs) }, hub.ErrUnavailable, "signed URL refused"},
		"always 429":           {func(b *bench) { b.status(hubtest.AtAPI, 429) }, hub.ErrUnavailable, "rate limit"},
		"always 503":           {func(b *bench) { b.status(hubtest.AtResolve, 503) }, hub.ErrUnavailable, "503"},
		"masked":               {func(b *bench) { b.srv.MaskHashes(true) }, hub.ErrMasked, "hides the hash"},
		"gated":                {func(b *bench) { b.srv.Gate("org/model", true) }, hub.ErrGated, "accept its terms"},
		"token needed":         {func(b *bench) { b.srv.Token = "hf_x" }, hub.ErrToken, "token"},
		"no such repo":         {func(b *bench) { b.repo.ID = "org/other" }, hub.ErrRepoNotFound, "RepoNotFound"},
		"no such commit":       {func(b *bench) { b.commit = strings.Repeat("0", 40) }, hub.ErrRevisionNotFound, "RevisionNotFound"},
		"branch as commit":     {func(b *bench) { b.commit = "main" }, hub.ErrConfig, "Resolve"},
		"404 without a code":   {func(b *bench) { b.status(hubtest.AtAPI, 404) }, hub.ErrProtocol, "is the endpoint a Hub"},
		"garbage":              {func(b *bench) { b.garbage("<html>") }, hub.ErrProtocol, ""},
		"climbing path":        {func(b *bench) { b.garbage(treeOf("../x")) }, hub.ErrPath, ""},
		"git hook":             {func(b *bench) { b.garbage(treeOf(".git/hooks/x")) }, hub.ErrPath, ""},
		"same but for case":    {func(b *bench) { b.garbage(treeOf("a/X", "A/x")) }, hub.ErrPath, "one file where case is ignored"},
		"file and directory":   {func(b *bench) { b.garbage(treeOf("a", "a/b")) }, hub.ErrPath, "directory"},
		"name of a part":       {func(b *bench) { b.garbage(treeOf("a", "a.part")) }, hub.ErrPath, "unfinished"},
		"malformed hash":       {func(b *bench) { b.garbage(strings.Replace(treeOf("a"), "0", "G", 1)) }, hub.ErrMasked, "not a hash"},
		"symlink":              {func(b *bench) { b.garbage(strings.Replace(treeOf("a"), "file", "symlink", 1)) }, hub.ErrProtocol, "symlink"},
		"negative size":        {func(b *bench) { b.garbage(strings.Replace(treeOf("a"), ":1,", ":-1,", 1)) }, hub.ErrProtocol, "size"},
		"a stray file":         {func(b *bench) { b.put("stray.bin", "x") }, hub.ErrStray, "stray.bin"},
		"a link in the way":    {func(b *bench) { b.link("config.json") }, hub.ErrStray, "config.json"},
		"a link as part":       {func(b *bench) { b.link("config.json.part") }, hub.ErrStray, "config.json.part"},
		"a directory as file":  {func(b *bench) { b.put("config.json/x", "") }, hub.ErrStray, ""},
		"no target directory":  {func(b *bench) { b.dir = "" }, hub.ErrConfig, ""},
		"directory is locked":  {func(b *bench) { b.lock() }, hub.ErrConfig, "another mirror"},
		"an entry disappeared": {func(b *bench) { b.code(404, "EntryNotFound") }, hub.ErrEntryNotFound, ""},
		"disabled":             {func(b *bench) { b.code(403, "") }, hub.ErrForbidden, "disabled"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			c.prepare(b)
			_, err := b.mirror()
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Fatalf("got %v, want %v with %q", err, c.want, c.text)
			}
			if _, err := os.Stat(filepath.Join(b.dir, lfs)); err == nil && errors.Is(c.want, hub.ErrDigest) && strings.Contains(name, "twice") {
				t.Error("wrong content under the final name")
			}
		})
	}
}

func (b *bench) inject(where hubtest.Where, what hubtest.What, p string) {
	b.srv.Inject(hubtest.Fault{Where: where, What: what, Path: p, At: 5, Times: -1})
}

func (b *bench) cutAlways(p string) {
	b.srv.Inject(hubtest.Fault{Where: hubtest.InBody, What: hubtest.Cut, Path: p, At: 1 << 20, Times: -1})
}

func (b *bench) status(where hubtest.Where, code int) {
	b.srv.Inject(hubtest.Fault{Where: where, What: hubtest.Status, Code: code, Times: -1})
}

func (b *bench) code(status int, code string) {
	b.srv.Inject(hubtest.Fault{Where: hubtest.AtResolve, What: hubtest.Status, Code: status, Header: map[string]string{"X-Error-Code": code}, Times: -1})
}

func (b *bench) garbage(text string) {
	b.srv.Inject(hubtest.Fault{Where: hubtest.AtAPI, What: hubtest.Garbage, Text: text, Times: -1})
}

func treeOf(paths ...string) string {
	var items []string
	for _, p := range paths {
		items = append(items, fmt.Sprintf(`{"type":"file","oid":"%s","size":1,"path":%q}`, strings.Repeat("0", 40), p))
	}
	return "[" + strings.Join(items, ",") + "]"
}

func (b *bench) put(p, text string) {
	full := filepath.Join(b.dir, p)
	if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(text), 0o644)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) link(p string) {
	outside := filepath.Join(b.t.TempDir(), "outside")
	if err := errors.Join(os.MkdirAll(b.dir, 0o755), os.WriteFile(outside, nil, 0o644), os.Symlink(outside, filepath.Join(b.dir, p))); err != nil {
		b.t.Fatal(err)
	}
}

// lock leaves a mirror of the same directory at work until the test ends.
func (b *bench) lock() {
	entered, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	req := b.request()
	req.Progress = func(int64, int64, string) {
		once.Do(func() { close(entered) })
		<-release
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := b.client().Mirror(context.Background(), req); err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(wg.Wait)
	b.t.Cleanup(func() { close(release) })
	<-entered
}

func TestDigestErrorSaysAll(t *testing.T) {
	b := newBench(t)
	b.inject(hubtest.InBody, hubtest.Flip, "model.safetensors")
	_, err := b.mirror()
	var d *hub.DigestError
	if !errors.As(err, &d) {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b.files["model.safetensors"])
	if d.Path != "model.safetensors" || d.Want != hex.EncodeToString(sum[:]) || d.Got == d.Want || len(d.Got) != 64 {
		t.Errorf("%+v", d)
	}
	if _, err := os.Stat(filepath.Join(b.dir, "model.safetensors.part")); err == nil {
		t.Error("the corrupted part is kept")
	}
}

// TestKillAndResume stops a mirror in the middle of a file and continues it with a new client: the kept bytes are not
// fetched again.
func TestKillAndResume(t *testing.T) {
	b := newBench(t)
	ctx, kill := context.WithCancel(t.Context())
	req := b.request()
	req.Allow = []string{"model.safetensors"}
	req.Progress = func(done, _ int64, _ string) {
		if done >= 1<<20 {
			kill()
		}
	}
	if _, err := b.client().Mirror(ctx, req); !errors.Is(err, context.Canceled) {
		t.Fatalf("killed mirror: %v", err)
	}
	info, err := os.Stat(filepath.Join(b.dir, "model.safetensors.part"))
	if err != nil || info.Size() < 1<<20 || info.Size() >= big {
		t.Fatalf("part: %v %v", info, err)
	}
	b.check(b.mirror())
	var ranges []string
	for _, s := range b.srv.Requests() {
		if strings.HasPrefix(s.Path, "/cdn/") {
			ranges = append(ranges, s.Range)
		}
	}
	if want := []string{"", fmt.Sprintf("bytes=%d-", info.Size())}; !slices.Equal(ranges, want) {
		t.Errorf("the CDN was asked for %q, want %q", ranges, want)
	}
}

// TestKeptPrefixIsNotTrusted: a part that rotted on disk is found out and fetched again as a whole.
func TestKeptPrefixIsNotTrusted(t *testing.T) {
	for name, part := range map[string][]byte{
		"rotten":   bytes.Repeat([]byte{7}, 1<<20),
		"too long": bytes.Repeat([]byte{7}, big+1),
		"whole":    bytes.Repeat([]byte{7}, big),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.put("model.safetensors.part", string(part))
			b.check(b.mirror())
		})
	}
}

func TestKeptFilesAreHashedAgain(t *testing.T) {
	b := newBench(t)
	b.check(b.mirror())
	before := len(b.srv.Requests())
	b.check(b.mirror())
	if n := len(b.srv.Requests()) - before; n != 1 {
		t.Errorf("a complete mirror costs %d requests, want 1 (the tree)", n)
	}
	wrong := bytes.Clone(b.files["model.safetensors"])
	wrong[big/2] ^= 1
	b.put("model.safetensors", string(wrong))
	b.put("README.md", "short")
	b.check(b.mirror())
}

// TestTokenStaysAtHome: two servers on two ports; the CDN is the other one and must never see the token.
func TestTokenStaysAtHome(t *testing.T) {
	b := newBench(t)
	cdn := httptest.NewServer(b.srv)
	defer cdn.Close()
	b.srv.CDN, b.srv.Token = cdn.URL, "hf_secret"
	c := b.client(func(cfg *hub.Config) { cfg.Token = "hf_secret\n" })
	b.check(c.Mirror(t.Context(), b.request()))
	atCDN := 0
	for _, s := range b.srv.Requests() {
		home := strings.HasSuffix(b.url, s.Host)
		if !home {
			atCDN++
		}
		if want := map[bool]string{true: "Bearer hf_secret", false: ""}[home]; s.Authorization != want {
			t.Errorf("%s%s got Authorization %q, want %q", s.Host, s.Path, s.Authorization, want)
		}
	}
	if atCDN == 0 {
		t.Error("the CDN was never asked: the test shows nothing")
	}
}

func TestTokenIsNotLeakedByErrors(t *testing.T) {
	b := newBench(t)
	b.srv.Token = "hf_right"
	_, err := b.client(func(cfg *hub.Config) { cfg.Token = "hf_secret" }).Mirror(t.Context(), b.request())
	if !errors.Is(err, hub.ErrToken) || strings.Contains(err.Error(), "hf_secret") {
		t.Errorf("%v", err)
	}
}

func TestSignatureIsNotLeakedByErrors(t *testing.T) {
	b := newBench(t)
	b.status(hubtest.AtCDN, 500)
	_, err := b.mirror()
	if !errors.Is(err, hub.ErrUnavailable) || strings.Contains(err.Error(), "Signature") {
		t.Errorf("%v", err)
	}
}

// TestWritesAreLargePages: a body that breaks off anywhere costs one odd piece, and the next ones begin at large pages again.
func TestWritesAreLargePages(t *testing.T) {
	const at, large = 1<<20 + 4321, 2 << 20
	b := newBench(t)
	b.srv.Inject(hubtest.Fault{Where: hubtest.InBody, What: hubtest.Cut, Path: "model.safetensors", At: at, Times: 1})
	req := b.request()
	req.Allow = []string{"model.safetensors"}
	var got []int64
	req.Progress = func(done, _ int64, _ string) { got = append(got, done) }
	if _, err := b.client().Mirror(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	want := []int64{0, at}
	for off := int64(large); off < big; off += large {
		want = append(want, off)
	}
	if want = append(want, big); !slices.Equal(got, want) {
		t.Errorf("bytes on disk after each write: %v, want %v", got, want)
	}
}

func TestProgressReachesTheTotal(t *testing.T) {
	b := newBench(t)
	b.srv.Inject(hubtest.Fault{Where: hubtest.InBody, What: hubtest.Flip, Path: "model.safetensors", At: 9, Times: 1})
	var last, total int64
	req := b.request()
	req.Progress = func(d, t int64, _ string) { last, total = d, t }
	b.check(b.client().Mirror(t.Context(), req))
	if last != total || total <= big {
		t.Errorf("progress ended at %d of %d", last, total)
	}
}

// TestTreeFollowsNoForeignLink: a Link to another host is taken for its query only.
func TestTreeFollowsNoForeignLink(t *testing.T) {
	asked := 0
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked++ }))
	defer evil.Close()
	calls := 0
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls++
		if r.URL.Query().Get("cursor") == "" {
			w.Header().Set("Link", fmt.Sprintf(`<%s/x?cursor=2>; rel="next"`, evil.URL))
		}
		io.WriteString(w, treeOf(fmt.Sprintf("f%d", calls)))
	}))
	defer home.Close()
	c, err := hub.New(hub.Config{Endpoint: home.URL})
	if err != nil {
		t.Fatal(err)
	}
	entries, err := c.Tree(t.Context(), hub.Repo{ID: "org/model"}, strings.Repeat("a", 40))
	if err != nil || len(entries) != 2 || asked != 0 {
		t.Errorf("%v %v, %d requests to the other host", entries, err, asked)
	}
}

func TestTreeInCircles(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", `</x?cursor=same>; rel="next"`)
		io.WriteString(w, "[]")
	}))
	defer srv.Close()
	c, err := hub.New(hub.Config{Endpoint: srv.URL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Tree(t.Context(), hub.Repo{ID: "org/model"}, strings.Repeat("a", 40)); !errors.Is(err, hub.ErrProtocol) {
		t.Error(err)
	}
}

func TestResolveRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want error
	}{
		"moved":    {`{"id":"org/other","sha":"` + strings.Repeat("a", 40) + `"}`, hub.ErrRepoMoved},
		"no sha":   {`{"id":"org/model"}`, hub.ErrProtocol},
		"bad sha":  {`{"sha":"main"}`, hub.ErrProtocol},
		"not JSON": {`<html>`, hub.ErrProtocol},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, c.body) }))
		cl, err := hub.New(hub.Config{Endpoint: srv.URL})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cl.Resolve(t.Context(), hub.Repo{ID: "org/model"}, "main"); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		srv.Close()
	}
}

func TestRedirectsAreBounded(t *testing.T) {
	for name, location := range map[string]string{"loop": "/again", "other scheme": "file:///etc/passwd", "nowhere": ""} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", location)
			w.WriteHeader(http.StatusFound)
		}))
		c, err := hub.New(hub.Config{Endpoint: srv.URL})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Resolve(t.Context(), hub.Repo{ID: "org/model"}, "main"); !errors.Is(err, hub.ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
		srv.Close()
	}
}

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]hub.Config{
		"scheme":          {Endpoint: "ftp://hub"},
		"no host":         {Endpoint: "https://"},
		"user in URL":     {Endpoint: "https://user:pw@hub"},
		"query":           {Endpoint: "https://hub/?x=1"},
		"token with line": {Token: "a\nb"},
		"token in clear":  {Endpoint: "http://hub.example", Token: "hf_x"},
		"too many":        {Workers: 1000},
	} {
		if _, err := hub.New(cfg); !errors.Is(err, hub.ErrConfig) || strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if c, err := hub.New(hub.Config{}); err != nil || c.Endpoint() != hub.DefaultEndpoint {
		t.Errorf("zero Config: %v", err)
	}
}

func TestParseRepo(t *testing.T) {
	for in, want := range map[string]string{
		"org/model": "model org/model", "gpt2": "model gpt2", "models/a/b": "model a/b", "datasets/cais/mmlu": "dataset cais/mmlu", "a_b.c-d/E.f_1": "model a_b.c-d/E.f_1",
		"": "", "a/b/c": "", "a--b/c": "", "a..b": "", "a/b.git": "", "-a/b": "", "a/.b": "", "a/b-": "", "a/": "", "/b": "", "a b": "", "a/ä": "", "a/" + strings.Repeat("x", 95): "",
	} {
		r, err := hub.ParseRepo(in)
		if want == "" {
			if !errors.Is(err, hub.ErrConfig) {
				t.Errorf("ParseRepo(%q) = %v, %v: want an error", in, r, err)
			}
			continue
		}
		if got := r.Type + " " + r.ID; err != nil || got != want {
			t.Errorf("ParseRepo(%q) = %q, %v: want %q", in, got, err, want)
		}
	}
}
