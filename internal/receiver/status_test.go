// SPDX-License-Identifier: Apache-2.0

package receiver_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/internal/receiver"

	"sluice/pkg/registry"
)

// TestFsck plants each kind of damage once. Judging changes nothing: a second look finds the same.
func TestFsck(t *testing.T) {
	for name, tt := range map[string]struct {
		plant func(b *bench, done, waiting release)
		want  string
	}{
		"an unknown spool directory": {func(b *bench, _, _ release) { must(b.T, os.Mkdir(b.path("spool", "zz"), 0o700)) }, "spool/zz: no job needs it"},
		"a lost spool":               {func(b *bench, _, w release) { must(b.T, os.RemoveAll(b.path("spool", w.id()))) }, "no such file"},
		"a lost envelope":            {func(b *bench, _, w release) { must(b.T, os.Remove(b.path("spool", w.id(), "envelope.sluice"))) }, "spooled envelope"},
		"a damaged envelope": {func(b *bench, _, w release) {
			must(b.T, os.Truncate(b.path("spool", w.id(), "envelope.sluice"), 1000))
		}, "spooled envelope"},
		"a lost file": {func(b *bench, _, w release) { must(b.T, os.Remove(b.file(w, "000001"))) }, "data.safetensors"},
		"a cut file":  {func(b *bench, _, w release) { must(b.T, os.Truncate(b.file(w, "000002"), 5)) }, "deep/er/x.safetensors does not have"},
		"a lost release": {func(b *bench, d, _ release) {
			must(b.T, os.RemoveAll(filepath.Join(b.cfg.Registry.Directory.Path, "provenance", "demo", "sha256-"+d.id())))
		}, "calls it published"},
		"a lost published file": {func(b *bench, d, _ release) {
			must(b.T, os.Remove(filepath.Join(b.publishedDir(d), "README.md")))
		}, "missing"},
		"an extra published file": {func(b *bench, d, _ release) {
			must(b.T, os.WriteFile(filepath.Join(b.publishedDir(d), "more"), nil, 0o600))
		}, "extra"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			done, waiting := b.approved("models/llm", 1), b.approved("models/other", 1)
			_, err := b.r.Import(t.Context(), b.medium(done), false)
			must(t, err)
			_, err = b.announce(waiting)
			must(t, err)
			b.clean()
			tt.plant(b, done, waiting)
			before := b.names()
			first := b.problems()
			if len(first) == 0 || !strings.Contains(strings.Join(first, "\n"), tt.want) {
				t.Errorf("found %q, want %q", first, tt.want)
			}
			if again := b.problems(); strings.Join(first, "\n") != strings.Join(again, "\n") {
				t.Errorf("judged again: %q, before %q", again, first)
			}
			if after := b.names(); after != before {
				t.Errorf("judging changed the spool: %s, before %s", after, before)
			}
		})
	}
}

// names lists the directories of the spool.
func (b *bench) names() string {
	b.Helper()
	entries, err := os.ReadDir(b.path("spool"))
	must(b.T, err)
	return fmt.Sprint(entries)
}

func (b *bench) file(r release, name string) string {
	return b.path("spool", r.id(), "payload", "files", name)
}

// TestFsckForgedTogether rewrites a published file, the receipt and COMMIT so that they agree with one another. The registry alone
// cannot tell; the journal knows the statement's digest.
func TestFsckForgedTogether(t *testing.T) {
	b := newBench(t)
	rel := b.approved("models/llm", 1)
	_, err := b.r.Import(t.Context(), b.medium(rel), false)
	must(t, err)
	b.clean()
	provenance := filepath.Join(b.cfg.Registry.Directory.Path, "provenance", "demo", "sha256-"+rel.id())
	old := replace(t, filepath.Join(b.publishedDir(rel), "data.safetensors"), forge)
	oldReceipt := replace(t, filepath.Join(provenance, "receipt.json"), func(text string) string {
		return strings.ReplaceAll(text, hexSum(old), hexSum(forge(old)))
	})
	newReceipt := strings.ReplaceAll(oldReceipt, hexSum(old), hexSum(forge(old)))
	var files []registry.File
	for _, s := range rel.env.Statement.Subjects {
		f := registry.File{Path: s.Name, Size: s.Annotations.Size, SHA256: [32]byte(s.Digest.SHA256)}
		if s.Name == "data.safetensors" {
			f.SHA256 = sha256.Sum256([]byte(forge(old)))
		}
		files = append(files, f)
	}
	tree := registry.DirectoryDigest(files)
	replace(t, filepath.Join(provenance, "COMMIT"), func(text string) string {
		text = strings.ReplaceAll(text, rel.env.Statement.Predicate.DirectoryDigest.String(), hex.EncodeToString(tree[:]))
		return strings.ReplaceAll(text, hexSum(oldReceipt), hexSum(newReceipt))
	})
	if found := strings.Join(b.problems(), "\n"); !strings.Contains(found, "data.safetensors is published with sha256 "+hexSum(forge(old))) {
		t.Errorf("the forged registry was not found out: %q", found)
	}
}

// forge gives another text of the same length.
func forge(text string) string { return text[:len(text)-1] + string([]byte{text[len(text)-1] ^ 1}) }

// replace rewrites a file and returns what was in it.
func replace(t *testing.T, name string, change func(string) string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	must(t, os.Remove(name))
	must(t, os.WriteFile(name, []byte(change(string(b))), 0o444))
	if change(string(b)) == string(b) {
		t.Fatalf("%s did not change", name)
	}
	return string(b)
}

func hexSum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func TestStatus(t *testing.T) {
	b := newBench(t)
	done, waiting, held, refused := b.approved("models/llm", 1), b.approved("models/other", 1), b.approved("models/held/x", 1), b.seal("models/few", 1)
	for _, r := range []release{done, held} {
		_, err := b.r.Import(t.Context(), b.medium(r), false)
		must(t, err)
	}
	p, err := b.announce(waiting)
	must(t, err)
	source, _ := waiting.symbols(t, groups, 0)
	put(t, p, source[:100])
	must(t, p.Flush(t.Context()))
	if _, err := b.announce(refused); err == nil {
		t.Fatal("not refused")
	}
	any, err := b.r.Status(t.Context())
	must(t, err)
	raw, err := json.Marshal(any)
	must(t, err)
	var s receiver.Status
	must(t, json.Unmarshal(raw, &s))
	got := map[string]receiver.ReleaseStatus{}
	for _, r := range s.Releases {
		got[r.Release] = r
	}
	if g := got[done.id()]; g.State != "PUBLISHED" || g.Bytes != int64(len(done.payload)) || g.Name != "demo" {
		t.Errorf("%+v", g)
	}
	if g := got[waiting.id()]; g.State != "RECEIVING" || g.Have != 100 || g.Symbols != int64(len(source)) {
		t.Errorf("%+v", g)
	}
	if g := got[held.id()]; g.State != "HELD" || g.NotBefore.Sub(b.clock.Now()) != 24*time.Hour {
		t.Errorf("%+v", g)
	}
	if g := got[refused.id()]; g.State != "REJECTED" || !strings.Contains(g.Error, "not enough") {
		t.Errorf("%+v", g)
	}
	if len(s.Events) == 0 || s.Receiver != b.cfg.Receiver || strings.Contains(string(raw), "+05:00") {
		t.Errorf("%s", raw)
	}
	must(t, b.r.Healthy(t.Context()))
	list, err := b.r.Releases(t.Context())
	if err != nil || len(list) != 1 || list[0].Release != done.id() {
		t.Errorf("catalogue %v %v", list, err)
	}
}
