// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/registry"
	"sluice/pkg/registry/registrytest"
)

// vectorDir is the folder of the section "Vectors" of registry-layout.md.
const vectorDir = "../../testdata/vectors/registry"

var updateVectors = flag.Bool("update", false, "write the registry vectors anew")

// vectorRelease is one release of the tree of the vectors.
type vectorRelease struct {
	name, version, stream, kind string
	epoch, seq                  int64
	published                   string            // RFC 3339
	files                       map[string]string // path: content
	evidence                    map[string]string // name: content
}

// vectorReleases are in the order of publication: two releases of one stream, with one of another between them. One has an empty file,
// one a version that an HTML-escaping encoder would write differently, and paths that sort differently by component.
func vectorReleases() []vectorRelease {
	return []vectorRelease{
		{
			name: "tiny", version: "1.0", stream: "models/tiny", kind: "model-weights", epoch: 0, seq: 1, published: "2026-02-01T08:00:00Z",
			files:    map[string]string{"config.json": `{"layers":1}`, "empty": "", "weights/part-1.safetensors": "first weights"},
			evidence: map[string]string{"gate.json": `{"verdict":"pass"}`},
		},
		{
			name: "tool", version: `2.0 "<&>"`, stream: "tools/tool", kind: "software-package", epoch: 3, seq: 7, published: "2026-02-02T08:00:00Z",
			files: map[string]string{"a.txt": "dot sorts before slash\n", "a/b.txt": "below a\n", "a/é.txt": "not ASCII\n"},
		},
		{
			name: "tiny", version: "2.0", stream: "models/tiny", kind: "model-weights", epoch: 0, seq: 2, published: "2026-02-03T08:00:00Z",
			files:    map[string]string{"config.json": `{"layers":2}`, "weights/part-1.safetensors": "second weights"},
			evidence: map[string]string{"gate.json": `{"verdict":"pass"}`, "mirror.json": `{"files":2}`},
		},
	}
}

// quote is a JSON string in the canonical form.
func quote(t *testing.T, s string) string {
	t.Helper()
	b, err := registry.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// index is the content index (envelope.md section 5) of files below one block each.
func (v *vectorRelease) index() (index []byte, blocks int) {
	for _, path := range slices.Sorted(maps.Keys(v.files)) {
		if content := v.files[path]; content != "" {
			sum := sha256.Sum256([]byte(content))
			index = append(index, sum[:]...)
			blocks++
		}
	}
	head := []byte("SLINDEX\x01\x00\x10\x00\x00\x00\x00\x00\x00")
	return append(binary.BigEndian.AppendUint64(head, uint64(blocks)), index...), blocks
}

// statement is the release statement (envelope.md section 4).
func (v *vectorRelease) statement(t *testing.T, files []registry.File) string {
	subjects, evidence, total := []string{}, []string{}, int64(0)
	for _, f := range files {
		subjects = append(subjects, fmt.Sprintf(`{"name":%s,"digest":{"sha256":"%x"},"annotations":{"size":%d}}`, quote(t, f.Path), f.SHA256, f.Size))
		total += f.Size
	}
	for _, name := range slices.Sorted(maps.Keys(v.evidence)) {
		body := v.evidence[name]
		evidence = append(evidence, fmt.Sprintf(`{"name":"%s","sha256":"%x","size":%d}`, name, sha256.Sum256([]byte(body)), len(body)))
	}
	index, blocks := v.index()
	return fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[%s],"predicateType":"urn:sluice:release:v1","predicate":{`+
		`"stream":"%s","epoch":%d,"seq":%d,"prev":"","kind":"%s","name":"%s","version":%s,`+
		`"source":{"type":"directory","repo":"","revision":"","commit":""},"gate":{"verdict":"pass","reason":""},`+
		`"inspection":{"verdict":"pass"},"evidence":[%s],"created":"2026-01-31T00:00:00Z","expires":"2027-01-31T00:00:00Z",`+
		`"audience":["site-a"],"classification":"UNCLASSIFIED","total_size":%d,`+
		`"content_index":{"sha256":"%x","size":%d,"block_size":1048576,"blocks":%d},"directory_digest":"%x"}}`,
		strings.Join(subjects, ","), v.stream, v.epoch, v.seq, v.kind, v.name, quote(t, v.version), strings.Join(evidence, ","), total,
		sha256.Sum256(index), len(index), blocks, registry.DirectoryDigest(files))
}

// dsse wraps a statement (envelope.md section 2). The signature is not one: nothing that reads the vectors looks at it.
func dsse(statement string) []byte {
	sum := sha256.Sum256([]byte(statement))
	return fmt.Appendf(nil, `{"payload":"%s","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"%064x","sig":"%s"}]}`,
		base64.StdEncoding.EncodeToString([]byte(statement)), 0xaa, base64.StdEncoding.EncodeToString(sum[:]))
}

// envelope is the envelope stream (envelope.md section 1) without approvals.
func (v *vectorRelease) envelope(release []byte) []byte {
	out := []byte("SLUICE\x01\n")
	section := func(kind byte, name string, body []byte) {
		out = append(out, kind, 0)
		out = binary.BigEndian.AppendUint16(out, uint16(len(name)))
		out = binary.BigEndian.AppendUint64(out, uint64(len(body)))
		out = append(append(out, name...), body...)
	}
	section(1, "", release)
	index, _ := v.index()
	section(2, "", index)
	for _, name := range slices.Sorted(maps.Keys(v.evidence)) {
		section(3, name, []byte(v.evidence[name]))
	}
	// The end digest covers its own header too.
	header := append(bytes.Clone(out), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32)
	sum := sha256.Sum256(header)
	section(0, "", sum[:])
	return out
}

// spool writes the files of the release below dir.
func (v *vectorRelease) spool(t *testing.T, dir string) *registrytest.Spool {
	t.Helper()
	s := &registrytest.Spool{Dir: dir}
	for i, path := range slices.Sorted(maps.Keys(v.files)) {
		content := []byte(v.files[path])
		if err := os.WriteFile(s.File(i), content, 0o644); err != nil {
			t.Fatal(err)
		}
		s.Files = append(s.Files, registry.File{Path: path, Size: int64(len(content)), SHA256: sha256.Sum256(content)})
	}
	statement := v.statement(t, s.Files)
	s.ID, s.Statement = sha256.Sum256([]byte(statement)), dsse(statement)
	s.Name, s.Version, s.Stream, s.Kind, s.Epoch, s.Seq = v.name, v.version, v.stream, v.kind, v.epoch, v.seq
	s.DirectoryDigest = registry.DirectoryDigest(s.Files)
	s.Envelope = registrytest.Blob("", string(v.envelope(s.Statement)))
	for _, name := range slices.Sorted(maps.Keys(v.evidence)) {
		s.Evidence = append(s.Evidence, registrytest.Blob(name, v.evidence[name]))
	}
	return s
}

// tree is a registry: key to bytes.
type tree map[string][]byte

// publishVectors publishes the releases into a fresh directory and returns what is there, what is there after the withdrawals, and
// the release ids.
func publishVectors(t *testing.T) (good, withdrawn tree, ids []string) {
	t.Helper()
	dir, now := filepath.Join(t.TempDir(), "registry"), ""
	clock := func() time.Time {
		at, err := time.Parse(time.RFC3339, now)
		if err != nil {
			t.Error(err)
		}
		return at
	}
	p, err := registry.NewDirectory(dir, registry.Options{Receiver: "site-a", Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var spools []*registrytest.Spool
	for _, v := range vectorReleases() {
		now = v.published
		s := v.spool(t, t.TempDir())
		if _, err := p.Publish(t.Context(), s.Release, s, nil); err != nil {
			t.Fatal(err)
		}
		spools, ids = append(spools, s), append(ids, fmt.Sprintf("%x", s.ID))
	}
	good = readTree(t, dir)
	for i, step := range vectorWithdrawals() {
		now = fmt.Sprintf("2026-02-1%dT08:00:00Z", i)
		s := spools[step.release]
		do := p.Withdraw
		if step.restore {
			do = func(ctx context.Context, name string, id [32]byte, w registry.Withdrawal) error {
				return p.Restore(ctx, name, id, s.DirectoryDigest, w)
			}
		}
		if err := do(t.Context(), s.Name, s.ID, step.w); err != nil {
			t.Fatal(err)
		}
	}
	return good, readTree(t, dir), ids
}

// vectorStep is one decision on one of the releases.
type vectorStep struct {
	release int
	restore bool
	w       registry.Withdrawal
}

// vectorWithdrawals: the first release of tiny is suspended and given back, the second suspended by two orders, the tool revoked. One
// reason is what an HTML-escaping encoder would write differently.
func vectorWithdrawals() []vectorStep {
	say := func(reason string, final bool, orders ...uint64) registry.Withdrawal {
		w := registry.Withdrawal{Reason: reason, Final: final}
		for _, n := range orders {
			w.Orders = append(w.Orders, registrytest.Order(n))
		}
		return w
	}
	return []vectorStep{
		{0, false, say("licence in doubt", false, 1)},
		{2, false, say("answers < base & not é", false, 5)},
		{2, false, say("a second officer", false, 4)},
		{1, false, say("key of the packer was stolen", true, 2, 3)},
		{0, true, say("licence cleared", false, 6)},
	}
}

func readTree(t *testing.T, dir string) tree {
	t.Helper()
	all := tree{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(key string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		all[key], err = os.ReadFile(filepath.Join(dir, key))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// write makes a directory of the tree. Directories without a file are not kept by git, and so not here.
func (tr tree) write(t *testing.T, dir string) {
	t.Helper()
	for key, data := range tr {
		file := filepath.Join(dir, key)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// finding is a Problem without its words.
type finding struct {
	Kind registry.ProblemKind `json:"kind"`
	Key  string               `json:"key"`
}

// fsck returns the findings of a deep Fsck over the tree, sorted.
func (tr tree) fsck(t *testing.T) []finding {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "registry")
	tr.write(t, dir)
	p, err := registry.NewDirectory(dir, registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	found := []finding{}
	err = p.Fsck(t.Context(), true, func(problem registry.Problem) {
		t.Logf("%s %s: %s", problem.Kind, problem.Key, problem.Detail)
		found = append(found, finding{problem.Kind, problem.Key})
	})
	if err != nil {
		t.Fatal(err)
	}
	return sorted(found)
}

func sorted(list []finding) []finding {
	slices.SortFunc(list, func(a, b finding) int { return strings.Compare(a.Key+string(a.Kind), b.Key+string(b.Kind)) })
	return slices.Compact(list)
}

// TestRegistryVectors: what is committed is what this code publishes, byte for byte, and Fsck finds nothing in it.
func TestRegistryVectors(t *testing.T) {
	good, withdrawn, ids := publishVectors(t)
	holdVectors(t, "good", "bad.json", good, badVectors(t, good, ids))
	holdVectors(t, "withdrawn", "withdrawn.json", withdrawn, withdrawnVectors(t, withdrawn, ids))
}

func holdVectors(t *testing.T, folder, file string, good tree, cases []overlay) {
	t.Helper()
	bad, err := json.MarshalIndent(cases, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	bad = append(bad, '\n')
	if *updateVectors {
		if err := os.RemoveAll(filepath.Join(vectorDir, folder)); err != nil {
			t.Fatal(err)
		}
		good.write(t, filepath.Join(vectorDir, folder))
		tree{file: bad}.write(t, vectorDir)
	}
	committed := readTree(t, filepath.Join(vectorDir, folder))
	if diff := cmp.Diff(good, committed); diff != "" {
		t.Errorf("the layout has changed (-published +committed):\n%s", diff)
	}
	if got := readTree(t, vectorDir)[file]; !bytes.Equal(got, bad) {
		t.Errorf("%s is not what this code makes; go test ./pkg/registry -run TestRegistryVectors -update", file)
	}
	if found := committed.fsck(t); len(found) > 0 {
		t.Errorf("findings in %s: %v", folder, found)
	}
}

// TestBadRegistryVectors: every overlay gives exactly its findings.
func TestBadRegistryVectors(t *testing.T) {
	for folder, file := range map[string]string{"good": "bad.json", "withdrawn": "withdrawn.json"} {
		var cases []overlay
		if err := json.Unmarshal(readTree(t, vectorDir)[file], &cases); err != nil || len(cases) < 20 {
			t.Fatalf("%d overlays: %v", len(cases), err)
		}
		good := readTree(t, filepath.Join(vectorDir, folder))
		for _, c := range cases {
			t.Run(folder+"/"+c.Name, func(t *testing.T) {
				if diff := cmp.Diff(sorted(c.Fsck), c.over(t, good).fsck(t)); diff != "" {
					t.Errorf("-expected +found:\n%s", diff)
				}
			})
		}
	}
}

// runScript runs one of the readers in Python, which share no code with this package.
func runScript(t *testing.T, script string, args ...string) (string, error) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here: the second reader of the registry vectors did NOT run")
	}
	out, err := exec.CommandContext(t.Context(), python, append([]string{"-B", script}, args...)...).CombinedOutput()
	return string(out), err
}

func checkScript() string { return filepath.Join(vectorDir, "check_registry.py") }

// TestRegistrySecondReader: it comes to the same findings, and to those that need a look into the envelope.
func TestRegistrySecondReader(t *testing.T) {
	out, err := runScript(t, checkScript(), vectorDir)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Log(out)
}

// TestRegistryVectorEnvelopes: the envelopes in the tree are envelopes, to the second reader of those.
func TestRegistryVectorEnvelopes(t *testing.T) {
	for key := range readTree(t, filepath.Join(vectorDir, "good")) {
		if filepath.Base(key) != "envelope.sluice" {
			continue
		}
		out, err := runScript(t, filepath.Join(vectorDir, "..", "read_envelope.py"), filepath.Join(vectorDir, "good", key))
		_, id, _ := strings.Cut(filepath.Base(filepath.Dir(key)), "-")
		if err != nil || !strings.Contains(out, id) {
			t.Errorf("%s: %v\n%s", key, err, out)
		}
	}
}

// TestRegistrySecondReaderCanFail: one byte of good, one expectation of bad, and a tree of its own.
func TestRegistrySecondReaderCanFail(t *testing.T) {
	all := readTree(t, vectorDir)
	for key, spoil := range map[string]func([]byte) []byte{
		"good/channels/tiny/latest.json":        func(b []byte) []byte { return append(b, '\n') },
		"good/catalog/serial-000000000002.json": func(b []byte) []byte { return bytes.Replace(b, []byte(`"seq":7`), []byte(`"seq":8`), 1) },
		"bad.json": func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"kind": "size"`), []byte(`"kind": "digest"`), 1)
		},
		"withdrawn.json": func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"kind": "exposed"`), []byte(`"kind": "extra"`), 1)
		},
		"withdrawn/channels/tool/latest.json": func(b []byte) []byte { return bytes.Replace(b, []byte(`"epoch":0`), []byte(`"epoch":1`), 1) },
	} {
		spoilt := maps.Clone(all)
		spoilt[key] = spoil(bytes.Clone(all[key]))
		dir := t.TempDir()
		spoilt.write(t, dir)
		if out, err := runScript(t, checkScript(), dir); err == nil || !strings.Contains(out, "FAIL") {
			t.Errorf("%s: %v\n%s", key, err, out)
		}
	}
	dir := t.TempDir()
	tree{"releases/x/y": nil}.write(t, dir)
	if out, err := runScript(t, checkScript(), "-t", dir); err == nil || out != "extra releases/x/y/\n" {
		t.Errorf("%v\n%s", err, out)
	}
}

// change is one step of an overlay.
type change struct {
	Op   string `json:"op"` // add, replace or delete
	Key  string `json:"key"`
	Data []byte `json:"data,omitempty"`
}

// overlay is a registry that differs from good.
type overlay struct {
	Name    string    `json:"name"`
	Changes []change  `json:"changes"`
	Fsck    []finding `json:"fsck"`   // what Fsck finds, deep
	Reader  []finding `json:"reader"` // what a reader finds besides that looks into the envelope and at the serials of channels
}

// over applies the overlay.
func (o *overlay) over(t *testing.T, good tree) tree {
	t.Helper()
	out := maps.Clone(good)
	for _, c := range o.Changes {
		if _, there := out[c.Key]; there == (c.Op == "add") {
			t.Fatalf("%s %s", c.Op, c.Key)
		}
		out[c.Key] = c.Data
		if c.Op == "delete" {
			delete(out, c.Key)
		}
	}
	return out
}
