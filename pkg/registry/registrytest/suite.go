// SPDX-License-Identifier: Apache-2.0

package registrytest

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/registry"
)

// Target is one kind of registry under test.
type Target interface {
	// Open opens the registry called name, as a new process would: the same
	// name is the same registry. The test closes it.
	Open(t *testing.T, name string) registry.Publisher
	// Plant puts bytes at key behind the publisher's back, also over an
	// existing object.
	Plant(t *testing.T, name, key string, data []byte)
	// Remove takes the object at key away behind the publisher's back.
	Remove(t *testing.T, name, key string)
	// Kept returns the bytes that consumers could read at key before it was taken
	// away from them, as an investigator finds them.
	Kept(t *testing.T, name, key string) []byte
	// Keys lists every key of the registry with its write count or version, so
	// that a test sees any write.
	Keys(t *testing.T, name string) map[string]string
}

// Run runs the whole suite, one fresh registry a test.
func Run(t *testing.T, target Target) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *fixture)
	}{
		{"publish, get, open, list", testPublish},
		{"second publish writes nothing", testIdempotent},
		{"progress ends at total", testProgress},
		{"many small files", testMany},
		{"not found", testNotFound},
		{"invalid releases write nothing", testInvalid},
		{"flipped bit in the spool", testFlipped},
		{"short spool file", testShort},
		{"conflict: other bytes under a key", testConflict},
		{"conflict: extra key", testExtra},
		{"conflict: other provenance", testProvenanceConflict},
		{"model signature", testModelSignature},
		{"rollback", testRollback},
		{"chain, channel, streams", testStreams},
		{"racing publishers of one release", testRaceOne},
		{"racing publishers of many releases", testRaceMany},
		{"lost objects are healed", testHeal},
		{"crash before the catalogue", testReconcile},
		{"fsck finds planted damage", testFsck},
		{"fsck finds a forged receipt", testForgedReceipt},
		{"catalogue with a gap, catalogue cut short", testCatalogGap},
		{"open finds changed bytes", testOpenCorrupt},
		{"cancelled context", testCancel},
		{"suspend and give back", testSuspend},
		{"suspend the only release", testSuspendOnly},
		{"revoke", testRevoke},
		{"withdrawal of what is not there, or badly said", testWithdrawInvalid},
		{"what rotted is not given back", testRestoreDamaged},
		{"withdrawals and streams", testWithdrawStreams},
		{"racing withdrawals and publishers", testWithdrawRace},
		{"racing withdrawals and restores", testRestoreRace},
		{"fsck finds planted damage of withdrawals", testFsckWithdrawals},
		{"crash before the mark, and before the channel", testReconcileWithdrawal},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := &fixture{T: t, target: target, name: bucketName(t.Name())}
			test.run(t, f)
		})
	}
}

// bucketName is a name that a bucket may have: the end of the test's name, for
// people, and a digest of all of it, so that no two tests share a registry.
func bucketName(test string) string {
	name := strings.Map(bucketRune, test)
	return fmt.Sprintf("r%x%s", crc32.ChecksumIEEE([]byte(test)), strings.TrimRight(name[max(0, len(name)-40):], "-"))
}

func bucketRune(r rune) rune {
	if r >= 'A' && r <= 'Z' {
		return r + 'a' - 'A'
	}
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
		return r
	}
	return '-'
}

// fixture is one registry.
type fixture struct {
	*testing.T
	target Target
	name   string
}

func (f *fixture) open() registry.Publisher {
	f.Helper()
	p := f.target.Open(f.T, f.name)
	f.Cleanup(func() { p.Close() })
	return p
}

func (f *fixture) keys() map[string]string { return f.target.Keys(f.T, f.name) }

func (f *fixture) spool(name string, epoch, seq int64, sizes map[string]int64) *Spool {
	f.Helper()
	return Make(f, f.TempDir(), name, epoch, seq, sizes)
}

// publish must succeed.
func (f *fixture) publish(p registry.Publisher, s *Spool) *registry.Receipt {
	f.Helper()
	receipt, err := p.Publish(f.Context(), s.Release, s, nil)
	if err != nil {
		f.Fatalf("publish: %v", err)
	}
	return receipt
}

// refused publishes and wants an error that matches.
func (f *fixture) refused(p registry.Publisher, s *Spool, want error) error {
	f.Helper()
	_, err := p.Publish(f.Context(), s.Release, s, nil)
	if !errors.Is(err, want) {
		f.Fatalf("publish: got %v, want %v", err, want)
	}
	return err
}

// invisible requires that no reader sees the release.
func (f *fixture) invisible(p registry.Publisher, s *Spool) {
	f.Helper()
	if _, err := p.Get(f.Context(), s.Name, s.ID); !errors.Is(err, registry.ErrNotFound) {
		f.Fatalf("get of an unpublished release: %v", err)
	}
	list, err := p.List(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	if slices.ContainsFunc(list, func(e registry.Entry) bool { return e.Release == Hex(s) }) {
		f.Fatalf("unpublished release is in the catalogue: %v", list)
	}
}

// Fsck returns the findings of a deep or shallow run.
func Fsck(t testing.TB, p registry.Publisher, deep bool) []registry.Problem {
	t.Helper()
	var found []registry.Problem
	err := p.Fsck(context.Background(), deep, func(p registry.Problem) { found = append(found, p) })
	if err != nil {
		t.Fatalf("fsck: %v", err)
	}
	return found
}

// Clean requires that a deep Fsck finds nothing.
func Clean(t testing.TB, p registry.Publisher) {
	t.Helper()
	if found := Fsck(t, p, true); len(found) > 0 {
		t.Fatalf("fsck found%s", kinds(found))
	}
}

// Complete requires that the release is visible, whole and byte-identical to
// its spool, and announced.
func Complete(t testing.TB, p registry.Publisher, s *Spool) {
	t.Helper()
	got, err := p.Get(t.Context(), s.Name, s.ID)
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	if got.DirectoryDigest != s.DirectoryDigest || len(got.Receipt.Files) != len(s.Files) {
		t.Fatalf("published %d files, digest %x; want %d, %x", len(got.Receipt.Files), got.DirectoryDigest, len(s.Files), s.DirectoryDigest)
	}
	for i, file := range s.Files {
		same(t, p, s, i, file)
	}
	list, err := p.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(list, func(e registry.Entry) bool { return e.Release == Hex(s) && e.Name == s.Name }) {
		t.Fatalf("release %s is not in the catalogue %v", Hex(s), list)
	}
}

// same compares one published file with the spool.
func same(t testing.TB, p registry.Publisher, s *Spool, i int, file registry.File) {
	t.Helper()
	rc, size, err := p.Open(t.Context(), s.Name, s.ID, file.Path)
	if err != nil {
		t.Fatalf("open %s: %v", file.Path, err)
	}
	defer rc.Close()
	want, err := s.Open(i)
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	if size != file.Size || !equal(t, rc, want) {
		t.Fatalf("%s: %d bytes published, or other bytes; want %d", file.Path, size, file.Size)
	}
}

func equal(t testing.TB, a, b io.Reader) bool {
	t.Helper()
	x, err := io.ReadAll(a)
	if err != nil {
		t.Fatal(err)
	}
	y, err := io.ReadAll(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(x) == string(y)
}

func testPublish(t *testing.T, f *fixture) {
	p := f.open()
	if list, err := p.List(t.Context()); err != nil || len(list) != 0 {
		t.Fatalf("empty registry lists %v, %v", list, err)
	}
	s := f.spool("llama", 1, 1, Small())
	receipt := f.publish(p, s)
	Complete(t, p, s)
	Clean(t, p)
	if receipt.Release != Hex(s) || receipt.Name != "llama" || receipt.Receiver != "receiver-1" {
		t.Errorf("receipt is for %s %s by %q", receipt.Name, receipt.Release, receipt.Receiver)
	}
	want := []registry.Entry{{
		Name: "llama", Version: "1.1", Stream: "models/llama", Epoch: 1, Seq: 1,
		Release: Hex(s), Kind: "model-weights", Published: receipt.Finished,
	}}
	list, err := p.List(t.Context())
	if diff := cmp.Diff(want, list); diff != "" || err != nil {
		t.Errorf("catalogue (-want +got):\n%s%v", diff, err)
	}
	f.layout(s)
}

// layout requires exactly the keys of the specification.
func (f *fixture) layout(s *Spool) {
	f.Helper()
	prefix := "/" + s.Name + "/sha256-" + Hex(s) + "/"
	want := []string{"catalog/serial-000000000001.json", "channels/" + s.Name + "/latest.json"}
	for _, name := range []string{"COMMIT", "envelope.sluice", "evidence/gate.json", "evidence/inspection.json", "receipt.json", "release.json"} {
		want = append(want, "provenance"+prefix+name)
	}
	for _, file := range s.Files {
		want = append(want, "releases"+prefix+file.Path)
	}
	var got []string
	for key := range f.keys() {
		got = append(got, key)
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		f.Fatalf("keys (-want +got):\n%s", diff)
	}
}

func testIdempotent(t *testing.T, f *fixture) {
	p := f.open()
	s := f.spool("llama", 1, 1, Small())
	first := f.publish(p, s)
	before := f.keys()
	again := f.open() // another process
	second := f.publish(again, s)
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("second receipt differs (-first +second):\n%s", diff)
	}
	if diff := cmp.Diff(before, f.keys()); diff != "" {
		t.Errorf("second publish wrote (-before +after):\n%s", diff)
	}
	if err := again.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, f.keys()); diff != "" {
		t.Errorf("reconcile wrote (-before +after):\n%s", diff)
	}
}

func testProgress(t *testing.T, f *fixture) {
	p := f.open()
	s := f.spool("llama", 1, 1, map[string]int64{"a": 5 << 20, "b": 1, "c": 0})
	for range 2 {
		var last, total, calls int64
		_, err := p.Publish(t.Context(), s.Release, s, func(done, all int64) {
			if done < last || done > all {
				t.Errorf("progress went from %d to %d of %d", last, done, all)
			}
			last, total = done, all
			calls++
		})
		if err != nil {
			t.Fatal(err)
		}
		if last != total || total == 0 || calls == 0 {
			t.Errorf("progress ended at %d of %d after %d calls", last, total, calls)
		}
	}
}

func testMany(t *testing.T, f *fixture) {
	p := f.open()
	s := f.spool("many", 1, 1, Many(100))
	f.publish(p, s)
	Complete(t, p, s)
	Clean(t, p)
}

func testNotFound(t *testing.T, f *fixture) {
	p := f.open()
	s := f.spool("llama", 1, 1, Small())
	f.publish(p, s)
	for _, name := range []string{"llama", "other", "../llama", ""} {
		if _, err := p.Get(t.Context(), name, id(7)); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("get %q: %v", name, err)
		}
	}
	for _, name := range []string{"nothing", "../config.json", "a", "", "/config.json", "A.TXT"} {
		if _, _, err := p.Open(t.Context(), s.Name, s.ID, name); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("open %q: %v", name, err)
		}
	}
}

func testInvalid(t *testing.T, f *fixture) {
	p := f.open()
	for what, spoil := range map[string]func(r *registry.Release){
		"name":            func(r *registry.Release) { r.Name = "../x" },
		"upper-case name": func(r *registry.Release) { r.Name = "Llama" },
		"name with slash": func(r *registry.Release) { r.Name = "a/b" },
		"stream":          func(r *registry.Release) { r.Stream = "a//b" },
		"version":         func(r *registry.Release) { r.Version = "" },
		"kind":            func(r *registry.Release) { r.Kind = "" },
		"seq":             func(r *registry.Release) { r.Seq = 0 },
		"no files":        func(r *registry.Release) { r.Files = nil },
		"climbing path":   func(r *registry.Release) { r.Files[0].Path = "../x" },
		"absolute path":   func(r *registry.Release) { r.Files[0].Path = "/x" },
		"unsorted":        func(r *registry.Release) { r.Files[0], r.Files[1] = r.Files[1], r.Files[0] },
		"same path twice": func(r *registry.Release) { r.Files[1] = r.Files[0] },
		"negative size":   func(r *registry.Release) { r.Files[0].Size = -1 },
		"digest":          func(r *registry.Release) { r.DirectoryDigest[0] ^= 1 },
		"no statement":    func(r *registry.Release) { r.Statement = nil },
		"no envelope":     func(r *registry.Release) { r.Envelope = registry.Blob{} },
		"evidence name":   func(r *registry.Release) { r.Evidence[0].Name = "../../COMMIT" },
		"evidence order":  func(r *registry.Release) { r.Evidence[1] = r.Evidence[0] },
	} {
		s := f.spool("llama", 1, 1, Small())
		s.Files = slices.Clone(s.Files)
		spoil(&s.Release)
		if what != "digest" {
			s.DirectoryDigest = registry.DirectoryDigest(s.Files)
		}
		if _, err := p.Publish(t.Context(), s.Release, s, nil); !errors.Is(err, registry.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if keys := f.keys(); len(keys) > 0 {
		t.Errorf("invalid releases wrote %v", keys)
	}
}

// testFlipped is the bit that rots between verification and publishing.
func testFlipped(t *testing.T, f *fixture) {
	p := f.open()
	s := f.spool("llama", 1, 1, Small())
	last := len(s.Files) - 1
	Flip(t, s.File(last), 123_456)
	f.refused(p, s, registry.ErrCorrupt)
	f.invisible(p, s)
	if key := "releases/llama/sha256-" + Hex(s) + "/" + s.Files[last].Path; f.keys()[key] != "" {
		t.Errorf("%s was written with bytes that nobody verified", key)
	}
	Flip(t, s.File(last), 123_456) // the receiver repairs its spool
	f.publish(p, s)
	Complete(t, p, s)
	Clean(t, p)
}

func testShort(t *testing.T, f *fixture) {
	p := f.open()
	s := f.spool("llama", 1, 1, Small())
	Fill(t, s.File(0), s.Files[0].Size-1, s.ID, s.Files[0].Path)
	f.refused(p, s, registry.ErrCorrupt)
	f.invisible(p, s)
}

func testConflict(t *testing.T, f *fixture) {
	p := f.open()
	s := f.spool("llama", 1, 1, Small())
	key := "releases/llama/sha256-" + Hex(s) + "/a.txt"
	f.target.Plant(t, f.name, key, []byte("hello other")) // 11 bytes, as the release's
	before := f.keys()[key]
	f.refused(p, s, registry.ErrConflict)
	if f.keys()[key] != before {
		t.Error("the conflicting object was overwritten")
	}
	f.invisible(p, s)
	f.target.Plant(t, f.name, key, []byte("longer than the release's"))
	f.refused(p, s, registry.ErrConflict)
	f.invisible(p, s)
}

func testExtra(t *testing.T, f *fixture) {
	p := f.open()
	s := f.spool("llama", 1, 1, Small())
	key := "releases/llama/sha256-" + Hex(s) + "/aaa-injected.safetensors"
	f.target.Plant(t, f.name, key, []byte("x"))
	if err := f.refused(p, s, registry.ErrConflict); !strings.Contains(err.Error(), key) {
		t.Errorf("the error does not name the key: %v", err)
	}
	f.invisible(p, s)
	f.target.Remove(t, f.name, key)
	f.publish(p, s)
	Complete(t, p, s)
	f.target.Plant(t, f.name, key, []byte{}) // an empty one counts as well
	f.refused(p, s, registry.ErrConflict)
}

func testProvenanceConflict(t *testing.T, f *fixture) {
	p := f.open()
	s := f.spool("llama", 1, 1, Small())
	f.publish(p, s)
	s.Envelope = Blob("", "another envelope")
	f.refused(p, s, registry.ErrConflict)
}

// testModelSignature: model.sig is provenance like the rest of it; a release that was published without one, or with another, stands.
func testModelSignature(t *testing.T, f *fixture) {
	p := f.open()
	s, plain := f.spool("llama", 1, 1, Small()), f.spool("plain", 1, 1, Small())
	s.ModelSignature = []byte("a bundle")
	receipt := f.publish(p, s)
	f.publish(p, plain)
	Complete(t, p, s)
	Clean(t, p)
	if got := string(f.read("provenance/llama/sha256-" + Hex(s) + "/model.sig")); got != "a bundle" {
		t.Errorf("model.sig holds %q", got)
	}
	listed := slices.ContainsFunc(receipt.Provenance, func(r registry.ReceiptFile) bool { return r.Path == "model.sig" && r.Size == 8 })
	if !listed {
		t.Errorf("the receipt does not list it: %v", receipt.Provenance)
	}
	f.publish(p, s)
	s.ModelSignature = []byte("other one")
	f.refused(p, s, registry.ErrConflict)
	s.ModelSignature = nil
	f.refused(p, s, registry.ErrConflict)
	plain.ModelSignature = []byte("too late")
	f.refused(p, plain, registry.ErrConflict)
	if key := "provenance/plain/sha256-" + Hex(plain) + "/model.sig"; f.keys()[key] != "" {
		t.Error("a signature was written beside a receipt that does not list it")
	}
}

func testRollback(t *testing.T, f *fixture) {
	p := f.open()
	old, now := f.spool("llama", 1, 4, Small()), f.spool("llama", 2, 1, Small())
	f.publish(p, now)
	before := f.keys()
	f.refused(p, old, registry.ErrRollback)
	f.invisible(p, old)
	twin := f.spool("llama", 2, 1, map[string]int64{"other": 1})
	f.refused(p, twin, registry.ErrRollback)
	if diff := cmp.Diff(before, f.keys()); diff != "" {
		t.Errorf("a refused release wrote (-before +after):\n%s", diff)
	}
	f.publish(p, now) // itself is no rollback
	next := f.spool("llama", 2, 2, Small())
	f.publish(p, next)
	f.publish(p, now) // published before, still no rollback, and moves nothing
	if got := f.channel("llama"); !strings.Contains(got, Hex(next)) {
		t.Errorf("channel went back: %s", got)
	}
	Clean(t, p)
}

// channel reads the channel's bytes through the target's own keys.
func (f *fixture) channel(name string) string {
	return f.keys()["channels/"+name+"/latest.json"]
}

func testStreams(t *testing.T, f *fixture) {
	p := f.open()
	first := f.spool("llama", 1, 9, Small())
	f.publish(p, first)
	other := f.spool("llama", 1, 1, map[string]int64{"x": 1})
	other.Stream = "models/new-line"
	f.publish(p, other) // another stream of the same name takes the channel over
	if got := f.channel("llama"); !strings.Contains(got, Hex(other)) {
		t.Errorf("channel is %s", got)
	}
	f.publish(p, first) // and does not lose it to a repetition
	if got := f.channel("llama"); !strings.Contains(got, Hex(other)) {
		t.Errorf("channel went back to the first stream: %s", got)
	}
	back := f.spool("llama", 1, 8, map[string]int64{"y": 1})
	f.refused(p, back, registry.ErrRollback) // the first stream still remembers seq 9
	Clean(t, p)
	list, err := p.List(t.Context())
	if err != nil || len(list) != 2 {
		t.Errorf("catalogue %v, %v", list, err)
	}
}

// racers is how many publishers race.
const racers = 16

func testRaceOne(t *testing.T, f *fixture) {
	s := f.spool("llama", 1, 1, Many(20))
	receipts := make([]*registry.Receipt, racers)
	f.race(func(i int, p registry.Publisher) error {
		receipt, err := p.Publish(t.Context(), s.Release, s, nil)
		receipts[i] = receipt
		return err
	})
	for i, r := range receipts {
		if diff := cmp.Diff(receipts[0], r); diff != "" {
			t.Fatalf("publisher %d has another receipt:\n%s", i, diff)
		}
	}
	p := f.open()
	Complete(t, p, s)
	Clean(t, p)
	list, err := p.List(t.Context())
	if err != nil || len(list) != 1 {
		t.Errorf("catalogue %v, %v", list, err)
	}
}

func testRaceMany(t *testing.T, f *fixture) {
	spools := make([]*Spool, racers)
	for i := range spools {
		spools[i] = f.spool("llama", 1, int64(i)+1, map[string]int64{"f": int64(i) + 1})
	}
	f.race(func(i int, p registry.Publisher) error {
		_, err := p.Publish(t.Context(), spools[i].Release, spools[i], nil)
		if errors.Is(err, registry.ErrRollback) {
			return nil // a higher one was faster
		}
		return err
	})
	p := f.open()
	Clean(t, p)
	Complete(t, p, spools[racers-1])
	if got := f.channel("llama"); !strings.Contains(got, Hex(spools[racers-1])) {
		t.Errorf("channel is not at the highest seq: %s", got)
	}
}

// race runs work in as many publishers at once, each with its own handle.
func (f *fixture) race(work func(i int, p registry.Publisher) error) {
	f.Helper()
	var group sync.WaitGroup
	start := make(chan struct{})
	for i := range racers {
		p := f.open()
		group.Go(func() {
			<-start
			if err := work(i, p); err != nil {
				f.Errorf("publisher %d: %v", i, err)
			}
		})
	}
	close(start)
	group.Wait()
}

// testHeal is a server that lost acknowledged objects at a power cut.
func testHeal(t *testing.T, f *fixture) {
	p := f.open()
	s := f.spool("llama", 1, 1, Small())
	first := f.publish(p, s)
	all := f.keys()
	for key := range all {
		if path.Base(key) == "receipt.json" || strings.HasPrefix(key, "catalog/") {
			continue
		}
		f.target.Remove(t, f.name, key)
		if found := Fsck(t, p, false); len(found) == 0 {
			t.Errorf("fsck does not miss %s", key)
		}
		again := f.open()
		if receipt := f.publish(again, s); receipt.Finished != first.Finished {
			t.Errorf("healing %s made a new receipt", key)
		}
		Complete(t, again, s)
		Clean(t, again)
	}
}

// testReconcile is a crash after COMMIT, and one after the catalogue.
func testReconcile(t *testing.T, f *fixture) {
	p := f.open()
	s := f.spool("llama", 1, 1, Small())
	f.publish(p, s)
	f.target.Remove(t, f.name, "catalog/serial-000000000001.json")
	f.target.Remove(t, f.name, "channels/llama/latest.json")
	for _, lost := range []string{"", "channels/llama/latest.json"} {
		if lost != "" {
			f.target.Remove(t, f.name, lost)
		}
		q := f.open()
		if err := q.Reconcile(t.Context()); err != nil {
			t.Fatal(err)
		}
		Complete(t, q, s)
		Clean(t, q)
	}
}

func testFsck(t *testing.T, f *fixture) {
	p := f.open()
	s, next := f.spool("llama", 1, 1, Small()), f.spool("llama", 1, 2, Small())
	f.publish(p, s)
	f.publish(p, next)
	Clean(t, p)
	for _, damage := range damages(s) {
		before := f.keys()
		data := []byte(nil)
		if _, there := before[damage.key]; there {
			data = f.read(damage.key)
		}
		if damage.plant == nil {
			f.target.Remove(t, f.name, damage.key)
		} else {
			f.target.Plant(t, f.name, damage.key, damage.plant)
		}
		found := Fsck(t, f.open(), true)
		if !slices.ContainsFunc(found, func(p registry.Problem) bool { return p.Kind == damage.want }) {
			t.Errorf("%s %s: fsck found%s", damage.want, damage.key, kinds(found))
		}
		if data == nil {
			f.target.Remove(t, f.name, damage.key)
		} else {
			f.target.Plant(t, f.name, damage.key, data)
		}
		Clean(t, f.open())
	}
}

// testForgedReceipt changes one word of a receipt: it still parses, COMMIT does
// not bind it any more. The publisher that wrote it must see that too.
func testForgedReceipt(t *testing.T, f *fixture) {
	p := f.open()
	s := f.spool("llama", 1, 1, Small())
	f.publish(p, s)
	key := "provenance/llama/sha256-" + Hex(s) + "/receipt.json"
	forged := strings.Replace(string(f.read(key)), "receiver-1", "receiver-2", 1)
	f.target.Plant(t, f.name, key, []byte(forged))
	found := Fsck(t, p, false)
	if !slices.ContainsFunc(found, func(p registry.Problem) bool { return p.Kind == registry.ProblemReceipt }) {
		t.Errorf("fsck found%s", kinds(found))
	}
	if _, err := f.open().Get(t.Context(), s.Name, s.ID); !errors.Is(err, registry.ErrCorrupt) {
		t.Errorf("get with a forged receipt: %v", err)
	}
}

func testCatalogGap(t *testing.T, f *fixture) {
	p := f.open()
	for seq := range int64(3) {
		f.publish(p, f.spool("llama", 1, seq+1, map[string]int64{"f": seq}))
	}
	last := "catalog/serial-000000000003.json"
	data := f.read(last)
	f.target.Remove(t, f.name, last)
	if list, err := p.List(t.Context()); !errors.Is(err, registry.ErrCorrupt) {
		t.Errorf("a catalogue that went back lists %v, %v", list, err)
	}
	f.target.Plant(t, f.name, last, data)
	f.target.Remove(t, f.name, "catalog/serial-000000000001.json")
	if list, err := f.open().List(t.Context()); !errors.Is(err, registry.ErrCorrupt) {
		t.Errorf("a catalogue with a gap lists %v, %v", list, err)
	}
}

type damage struct {
	key   string
	plant []byte // nil: remove
	want  registry.ProblemKind
}

func damages(s *Spool) []damage {
	files, prov := "releases/llama/sha256-"+Hex(s)+"/", "provenance/llama/sha256-"+Hex(s)+"/"
	return []damage{
		{files + "a.txt", []byte("hello other"), registry.ProblemDigest},
		{files + "a.txt", []byte("short"), registry.ProblemSize},
		{files + "a.txt", nil, registry.ProblemMissing},
		{files + "empty", nil, registry.ProblemMissing},
		{files + "zzz", []byte("x"), registry.ProblemExtra},
		{prov + "zzz", []byte("x"), registry.ProblemExtra},
		{prov + "release.json", nil, registry.ProblemMissing},
		{prov + "evidence/gate.json", []byte(`{"gate":"fail"}`), registry.ProblemDigest},
		{prov + "receipt.json", nil, registry.ProblemReceipt},
		{prov + "receipt.json", []byte("{}"), registry.ProblemReceipt},
		{prov + "COMMIT", nil, registry.ProblemUncommitted},
		{prov + "COMMIT", []byte("{}"), registry.ProblemCommit},
		{"releases/other/sha256-" + Hex(s) + "/x", []byte("x"), registry.ProblemUncommitted},
		{"releases/llama/latest/x", []byte("x"), registry.ProblemExtra},
		{"releases/llama/note", []byte("x"), registry.ProblemExtra},
		{"provenance/note", []byte("x"), registry.ProblemExtra},
		{"releases/Upper/x", []byte("x"), registry.ProblemExtra},
		{"catalog/note.txt", []byte("x"), registry.ProblemExtra},
		{"catalog/serial-000000000001.json", nil, registry.ProblemCatalog},
		{"catalog/serial-000000000001.json", []byte(`{"type":"sluice-catalog-v1","serial":1,"prev":"","entries":[]}`), registry.ProblemCatalog},
		{"catalog/serial-000000000002.json", []byte("{}"), registry.ProblemCatalog},
		{"channels/llama/latest.json", nil, registry.ProblemChannel},
		{"channels/llama/other.json", []byte("{}"), registry.ProblemExtra},
		{"channels/note", []byte("{}"), registry.ProblemExtra},
		{"channels/llama/latest.json", []byte("{}"), registry.ProblemChannel},
		{"channels/llama/latest.json", []byte(`{"type":"sluice-channel-v1","name":"llama","release":"` + Hex(s) +
			`","stream":"models/llama","epoch":1,"seq":1,"serial":1}`), registry.ProblemChannel},
	}
}

// read fetches the bytes of any key: the target's Keys holds small ones.
func (f *fixture) read(key string) []byte {
	f.Helper()
	value, ok := f.keys()[key]
	if !ok {
		f.Fatalf("no key %s", key)
	}
	_, data, ok := strings.Cut(value, "\n")
	if !ok {
		f.Fatalf("%s is too large to restore", key)
	}
	return []byte(data)
}

func testOpenCorrupt(t *testing.T, f *fixture) {
	p := f.open()
	s := f.spool("llama", 1, 1, Small())
	f.publish(p, s)
	key := "releases/llama/sha256-" + Hex(s) + "/a.txt"
	f.target.Plant(t, f.name, key, []byte("hello other"))
	rc, _, err := p.Open(t.Context(), s.Name, s.ID, "a.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if _, err := io.ReadAll(rc); !errors.Is(err, registry.ErrCorrupt) {
		t.Errorf("reading changed bytes: %v", err)
	}
	f.target.Plant(t, f.name, key, []byte("other size"))
	if _, _, err := p.Open(t.Context(), s.Name, s.ID, "a.txt"); !errors.Is(err, registry.ErrCorrupt) {
		t.Errorf("opening another size: %v", err)
	}
}

func testCancel(t *testing.T, f *fixture) {
	p := f.open()
	s := f.spool("llama", 1, 1, map[string]int64{"a": 8 << 20, "b": 8 << 20})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := p.Publish(ctx, s.Release, s, func(done, total int64) {
		if done > total/4 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled publish: %v", err)
	}
	f.invisible(p, s)
	f.publish(p, s)
	Complete(t, p, s)
	Clean(t, p)
}
