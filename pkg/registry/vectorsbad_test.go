// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"testing"

	"sluice/pkg/registry"
)

// spoiler makes the overlays of bad.json.
type spoiler struct {
	t    *testing.T
	good tree
	all  []overlay

	tiny1, tool, tiny2 place // the releases, in the order of publication
}

// place is where a release lies.
type place struct{ files, prov string }

func newPlace(name, id string) place {
	return place{"releases/" + name + "/sha256-" + id + "/", "provenance/" + name + "/sha256-" + id + "/"}
}

func (p place) commit() string { return p.prov + "COMMIT" }

const (
	serial1     = "catalog/serial-000000000001.json"
	serial2     = "catalog/serial-000000000002.json"
	serial3     = "catalog/serial-000000000003.json"
	tinyChannel = "channels/tiny/latest.json"
	toolChannel = "channels/tool/latest.json"

	kindStatement registry.ProblemKind = "statement" // of the second reader only
)

// badVectors are all overlays. Each planted damage stands alone, so that a reader that overlooks it is found out.
func badVectors(t *testing.T, good tree, ids []string) []overlay {
	s := &spoiler{t: t, good: good, tiny1: newPlace("tiny", ids[0]), tool: newPlace("tool", ids[1]), tiny2: newPlace("tiny", ids[2])}
	s.objects()
	s.records()
	s.catalogue()
	s.announcements()
	s.crashes(ids)
	s.forgeries()
	return s.all
}

func (s *spoiler) add(name string, changes []change, found ...finding) {
	s.all = append(s.all, overlay{Name: name, Changes: changes, Fsck: found, Reader: []finding{}})
}

// unseen adds an overlay in which Fsck finds nothing.
func (s *spoiler) unseen(name string, changes []change, found finding) {
	s.all = append(s.all, overlay{Name: name, Changes: changes, Fsck: []finding{}, Reader: []finding{found}})
}

func drop(keys ...string) (list []change) {
	for _, key := range keys {
		list = append(list, change{Op: "delete", Key: key})
	}
	return list
}

func plant(key, data string) []change { return []change{{"add", key, []byte(data)}} }

// edit replaces from by to in an object; it must be there.
func (s *spoiler) edit(key, from, to string) []change {
	s.t.Helper()
	data := bytes.Replace(s.good[key], []byte(from), []byte(to), 1)
	if bytes.Equal(data, s.good[key]) {
		s.t.Fatalf("%s has no %q", key, from)
	}
	return []change{{"replace", key, data}}
}

// objects: damage to what is published.
func (s *spoiler) objects() {
	weights := s.tiny1.files + "weights/part-1.safetensors"
	s.add("file-changed", s.edit(weights, "first", "worst"), finding{registry.ProblemDigest, weights})
	s.add("file-longer", s.edit(weights, "weights", "weights."), finding{registry.ProblemSize, weights})
	s.add("file-missing", drop(weights), finding{registry.ProblemMissing, weights})
	s.add("empty-file-missing", drop(s.tiny1.files+"empty"), finding{registry.ProblemMissing, s.tiny1.files + "empty"})
	s.add("file-extra", plant(s.tiny1.files+"setup.py", "x"), finding{registry.ProblemExtra, s.tiny1.files + "setup.py"})
	s.add("envelope-changed", s.edit(s.tool.prov+"envelope.sluice", "SLUICE", "SLUICF"), finding{registry.ProblemDigest, s.tool.prov + "envelope.sluice"})
	s.add("evidence-missing", drop(s.tiny1.prov+"evidence/gate.json"), finding{registry.ProblemMissing, s.tiny1.prov + "evidence/gate.json"})
	s.add("evidence-extra", plant(s.tool.prov+"evidence/gate.json", "{}"), finding{registry.ProblemExtra, s.tool.prov + "evidence/gate.json"})
	s.add("name-that-is-none", plant("releases/Tiny/x", "x"), finding{registry.ProblemExtra, "releases/Tiny/"})
	s.add("prefix-that-is-none", plant("provenance/tiny/v2/COMMIT", "x"), finding{registry.ProblemExtra, "provenance/tiny/v2/"})
}

// records: COMMIT and receipt. A release whose records are bad is not visible, so the catalogue names one that is missing.
func (s *spoiler) records() {
	bad := func(kind registry.ProblemKind) []finding {
		return []finding{{kind, s.tool.commit()}, {registry.ProblemMissing, s.tool.commit()}}
	}
	s.add("commit-newline", s.edit(s.tool.commit(), "}", "}\n"), bad(registry.ProblemCommit)...)
	s.add("commit-type", s.edit(s.tool.commit(), "commit-v1", "commit-v2"), bad(registry.ProblemCommit)...)
	s.add("commit-of-another-release", []change{{"replace", s.tool.commit(), s.good[s.tiny1.commit()]}}, bad(registry.ProblemCommit)...)
	s.add("commit-counts", s.edit(s.tool.commit(), `"files":3`, `"files":2`), bad(registry.ProblemReceipt)...)
	s.add("commit-directory-digest", s.edit(s.tool.commit(), `"directory_digest":"`+s.field(s.tool.commit(), "directory_digest"),
		`"directory_digest":"`+s.field(s.tool.commit(), "receipt")), bad(registry.ProblemReceipt)...)
	s.add("receipt-changed", s.edit(s.tool.prov+"receipt.json", "site-a", "site-b"), bad(registry.ProblemReceipt)...)
	s.add("receipt-missing", drop(s.tool.prov+"receipt.json"), bad(registry.ProblemReceipt)...)
	unsorted := s.edit(s.tool.prov+"receipt.json", `"path":"a.txt"`, `"path":"b.txt"`)
	s.add("receipt-unsorted", append(unsorted, s.rebind(s.tool, unsorted[0].Data)), bad(registry.ProblemReceipt)...)
}

// field is the value of a string in an object of one level.
func (s *spoiler) field(key, name string) string {
	_, rest, ok := bytes.Cut(s.good[key], []byte(`"`+name+`":"`))
	value, _, end := bytes.Cut(rest, []byte(`"`))
	if !ok || !end {
		s.t.Fatalf("%s has no %s", key, name)
	}
	return string(value)
}

// rebind replaces COMMIT by one that binds another receipt.
func (s *spoiler) rebind(p place, receipt []byte) change {
	return s.edit(p.commit(), s.field(p.commit(), "receipt"), fmt.Sprintf("%x", sha256.Sum256(receipt)))[0]
}

// catalogue: the chain of serials.
func (s *spoiler) catalogue() {
	s.add("catalogue-gap", drop(serial2), finding{registry.ProblemCatalog, serial2})
	s.add("catalogue-prev", s.edit(serial3, s.field(serial3, "prev"), s.field(serial2, "prev")), finding{registry.ProblemCatalog, serial3})
	s.add("catalogue-past-changed", s.edit(serial1, "08:00:00Z", "09:00:00Z"), finding{registry.ProblemCatalog, serial2})
	s.add("catalogue-type", s.edit(serial1, "catalog-v1", "catalog-v2"), finding{registry.ProblemCatalog, serial1})
	s.add("catalogue-serial", s.edit(serial1, `"serial":1`, `"serial":2`), finding{registry.ProblemCatalog, serial1})
	s.add("catalogue-version", s.edit(serial3, `"version":"2.0"`, `"version":"2.1"`), finding{registry.ProblemCatalog, s.tiny2.commit()})
	s.add("catalogue-extra", plant("catalog/latest.json", "{}"), finding{registry.ProblemExtra, "catalog/latest.json"})
	s.add("catalogue-forgets", []change{{"replace", serial3, s.without(serial3)}},
		finding{registry.ProblemCatalog, serial3}, finding{registry.ProblemUncatalogued, s.tool.commit()}, finding{registry.ProblemChannel, toolChannel})
}

// without is the last catalogue without the entry of the tool.
func (s *spoiler) without(last string) []byte {
	data := s.good[last]
	from := bytes.Index(data, []byte(`,{"name":"tool"`))
	to := bytes.Index(data[max(from, 0):], []byte("}"))
	if from < 0 || to < 0 {
		s.t.Fatalf("%s has no entry of the tool at its end", last)
	}
	return append(bytes.Clone(data[:from]), data[from+to+1:]...)
}

// announcements: the channels.
func (s *spoiler) announcements() {
	s.add("channel-missing", drop(toolChannel), finding{registry.ProblemChannel, toolChannel})
	old := fmt.Sprintf(`{"type":"sluice-channel-v1","name":"tiny","release":"%s","stream":"models/tiny","epoch":0,"seq":1,"serial":1}`,
		s.field(s.tiny1.commit(), "release"))
	s.add("channel-rolled-back", []change{{"replace", tinyChannel, []byte(old)}}, finding{registry.ProblemChannel, tinyChannel})
	s.add("channel-unknown-release", s.edit(toolChannel, s.field(toolChannel, "release"), s.field(tinyChannel, "release")),
		finding{registry.ProblemChannel, toolChannel})
	s.add("channel-of-another-name", []change{{"replace", toolChannel, s.good[tinyChannel]}}, finding{registry.ProblemChannel, toolChannel})
	s.add("channel-extra", plant("channels/tiny/stable.json", "{}"), finding{registry.ProblemExtra, "channels/tiny/stable.json"})
	s.unseen("channel-serial", s.edit(toolChannel, `"serial":2`, `"serial":3`), finding{registry.ProblemChannel, toolChannel})
}

// crashes: what a crash leaves; Publish or Reconcile repairs all of it, but for the lost COMMIT of a catalogued release.
func (s *spoiler) crashes(ids []string) {
	other := newPlace("tiny", fmt.Sprintf("%x", sha256.Sum256([]byte("a release that never came to its COMMIT"))))
	s.add("crash-before-commit", append(plant(other.files+"config.json", "{}"), plant(other.prov+"release.json", "{}")...),
		finding{registry.ProblemUncommitted, other.files}, finding{registry.ProblemUncommitted, other.prov})
	s.add("crash-before-catalogue", append(drop(serial3), []change{{"replace", tinyChannel, fmt.Appendf(nil,
		`{"type":"sluice-channel-v1","name":"tiny","release":"%s","stream":"models/tiny","epoch":0,"seq":1,"serial":1}`, ids[0])}}...),
		finding{registry.ProblemUncatalogued, s.tiny2.commit()})
	s.add("crash-while-staging", plant(".staging/"+ids[2]+"/1", "half a fi"), finding{registry.ProblemLeftover, ".staging/" + ids[2]})
	s.add("commit-lost", drop(s.tool.commit()), finding{registry.ProblemMissing, s.tool.commit()},
		finding{registry.ProblemUncommitted, s.tool.files}, finding{registry.ProblemUncommitted, s.tool.prov})
}

// forgeries: somebody who can write to the registry made its records agree with each other again. Only the signed statement, which
// Fsck does not open, says otherwise: this is why a consumer verifies the envelope.
func (s *spoiler) forgeries() {
	statement := finding{kindStatement, s.tool.prov + "release.json"}
	s.unseen("forged-release-json", s.forge(s.tool.prov+"release.json", "release.json", s.other("release.json")), statement)
	s.unseen("forged-envelope", s.forge(s.tool.prov+"envelope.sluice", "envelope.sluice", s.other("envelope.sluice")), statement)
	key := s.tool.files + "a.txt"
	forged := bytes.ToUpper(s.good[key])
	changes := s.forge(key, "a.txt", forged)
	changes[2].Data = bytes.Replace(changes[2].Data, []byte(s.field(s.tool.commit(), "directory_digest")), s.digestWith("a.txt", forged), 1)
	s.unseen("forged-file", changes, statement)
}

// other is the same object of another release.
func (s *spoiler) other(name string) []byte { return s.good[s.tiny1.prov+name] }

// forge replaces an object of the tool's release, its line in the receipt, and COMMIT.
func (s *spoiler) forge(key, path string, data []byte) []change {
	line := func(b []byte) string {
		return fmt.Sprintf(`{"path":"%s","size":%d,"sha256":"%x"}`, path, len(b), sha256.Sum256(b))
	}
	receipt := s.edit(s.tool.prov+"receipt.json", line(s.good[key]), line(data))[0]
	return []change{{"replace", key, data}, receipt, s.rebind(s.tool, receipt.Data)}
}

// digestWith is the directory digest of the tool's release with one other file, in hexadecimal.
func (s *spoiler) digestWith(path string, data []byte) []byte {
	var files []registry.File
	for _, name := range []string{"a.txt", "a/b.txt", "a/é.txt"} {
		content := s.good[s.tool.files+name]
		if name == path {
			content = data
		}
		files = append(files, registry.File{Path: name, Size: int64(len(content)), SHA256: sha256.Sum256(content)})
	}
	return fmt.Appendf(nil, "%x", registry.DirectoryDigest(files))
}
