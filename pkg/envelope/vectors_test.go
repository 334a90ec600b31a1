// SPDX-License-Identifier: Apache-2.0

package envelope_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/pkg/envelope"
)

var update = flag.Bool("update", false, "write the vectors of section 10 anew")

const (
	vectorDir    = "../../testdata/vectors/envelope"
	pythonReader = "../../testdata/vectors/read_envelope.py"
)

// verdict is the JSON beside a vector: the release id of a good one, the class and the reason of a bad one.
type verdict struct {
	Release string `json:"release,omitempty"`
	Refuse  string `json:"refuse,omitempty"` // format, digest or version
	Reason  string `json:"reason,omitempty"`
}

func goodVectors(t *testing.T) map[string]*envelope.Envelope {
	fullOne, _ := full(t)
	s, index := build(t, payload("a", "b"), predicate())
	minimal := must[*envelope.Envelope](t)(envelope.New(sign(t, must[[]byte](t)(s.Marshal())), index, nil))
	s, index = build(t, payload("empty", ""), predicate())
	empty := must[*envelope.Envelope](t)(envelope.New(sign(t, must[[]byte](t)(s.Marshal())), index, nil))
	return map[string]*envelope.Envelope{"good-min": minimal, "good-full": fullOne, "good-empty-file": empty}
}

type badVector struct {
	refuse, reason string
	data           []byte
}

// badVectors are bad in one way each: digests and lengths around the fault are right.
func badVectors(t *testing.T) map[string]badVector {
	out := map[string]badVector{}
	containerVectors(t, out)
	bindingVectors(t, out)
	statementVectors(t, out)
	jsonVectors(t, out)
	return out
}

func containerVectors(t *testing.T, out map[string]badVector) {
	e := small(t)
	good := stream(t, e)
	all := func() []rawSection { return slices.Clone(rawSections(e)) }
	huge := append(rawSections(e)[0].append([]byte(magic)), 2, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0)
	swapped := all()
	swapped[0], swapped[1] = swapped[1], swapped[0]
	reserved := all()
	reserved[1].reserved = 1
	out["bad-magic"] = badVector{"format", "section 1: not an envelope", append([]byte("PK\x03\x04"), good[4:]...)}
	out["bad-version"] = badVector{"version", "section 1: version 2", append([]byte("SLUICE\x02\n"), good[8:]...)}
	out["bad-truncated"] = badVector{"format", "section 1: the last byte is missing", good[:len(good)-1]}
	out["bad-end-digest"] = badVector{"digest", "section 1: the last bit is flipped", append(good[:len(good)-1:len(good)-1], good[len(good)-1]^1)}
	out["bad-trailing-byte"] = badVector{"format", "section 1: a byte after the end section", append(good[:len(good):len(good)], 0)}
	out["bad-section-size"] = badVector{"format", "section 1: an index of 2^63 bytes", rawEnd(huge)}
	out["bad-section-order"] = badVector{"format", "section 1: index before release", rawStream(swapped...)}
	out["bad-section-reserved"] = badVector{"format", "section 1: reserved byte is 1", rawStream(reserved...)}
	out["bad-section-twice"] = badVector{"format", "section 1: one approval twice", rawStream(append(all(), all()[3])...)}
}

func bindingVectors(t *testing.T, out map[string]badVector) {
	e := small(t)
	all := func() []rawSection { return slices.Clone(rawSections(e)) }
	with := func(i int, b []byte) []byte { s := all(); s[i].body = b; return rawStream(s...) }
	approve := func(change func(a *envelope.Approval)) []byte {
		a := approval(e.Statement, e.ID, "security", "s.ito")
		change(a)
		return with(3, sign(t, must[[]byte](t)(a.Marshal())))
	}
	release := string(e.Release)
	sig := release[strings.Index(release, `{"keyid"`):strings.Index(release, `]}`)]
	unpadded := strings.Replace(release, `="}]}`, `"}]}`, 1)
	officer := string(e.Approvals[0].Data)
	twoOfficers := strings.Replace(officer, `]}`, `,{"keyid":"`+keyID(7)+`","sig":"AAAA"}]}`, 1)
	out["bad-index-digest"] = badVector{"digest", "section 5: a digest of the index is flipped", with(1, append(bytes.Clone(e.Index[:len(e.Index)-1]), 1))}
	out["bad-index-count"] = badVector{"format", "section 5: a block more than the files have", with(1, append(bytes.Clone(e.Index), make([]byte, 32)...))}
	out["bad-evidence-missing"] = badVector{"format", "section 4: a report of the statement is missing", rawStream(slices.Delete(all(), 2, 3)...)}
	out["bad-evidence-digest"] = badVector{"digest", "section 4: a report of other bytes", with(2, []byte("[]"))}
	out["bad-evidence-unlisted"] = badVector{
		"format", "section 4: a report that the statement does not list",
		rawStream(slices.Insert(all(), 3, rawSection{typ: 3, name: "z.json"})...),
	}
	out["bad-dsse-keyid-twice"] = badVector{"format", "section 2: two signatures with one key id", with(0, []byte(strings.Replace(release, sig, sig+","+sig, 1)))}
	out["bad-dsse-base64"] = badVector{"format", "section 2: base64 without padding", with(0, []byte(unpadded))}
	out["bad-dsse-type"] = badVector{"format", "section 2: another payload type", with(0, []byte(strings.Replace(release, "vnd.in-toto", "vnd.other", 1)))}
	out["bad-approval-release"] = badVector{"digest", "section 7: approval of another release", approve(func(a *envelope.Approval) { a.ReleaseID[0] ^= 1 })}
	out["bad-approval-seq"] = badVector{"format", "section 7: approval of another seq", approve(func(a *envelope.Approval) { a.Seq++ })}
	out["bad-approval-name"] = badVector{"format", "section 1: approval under another officer's name", approve(func(a *envelope.Approval) { a.Officer = "a.roy" })}
	out["bad-approval-two-signatures"] = badVector{"format", "section 7: approval with two signatures", with(3, []byte(twoOfficers))}
}

// around wraps the bytes of a statement into an otherwise right envelope without approvals.
func around(t *testing.T, statement, index []byte) []byte {
	return rawStream(rawSection{typ: 1, body: sign(t, statement)}, rawSection{typ: 2, body: index})
}

func statementVectors(t *testing.T, out map[string]badVector) {
	good, _ := build(t, payload("a", "", "b", ""), predicate())
	add := func(name, refuse, reason string, change func(s *envelope.Statement)) {
		s := clone(good)
		change(s)
		index := (&envelope.Index{}).Marshal()
		out[name] = badVector{refuse, reason, around(t, unchecked(t, s), index)}
	}
	path := func(name, reason string, paths ...string) {
		add(name, "format", "section 4, paths: "+reason, func(s *envelope.Statement) {
			for i, p := range paths {
				s.Subjects[i].Name = p
			}
			s.Predicate.DirectoryDigest = envelope.DirectoryDigest(s.Subjects)
		})
	}
	path("bad-path-traversal", "..", "../a")
	path("bad-path-absolute", "leading slash", "/a")
	path("bad-path-backslash", "backslash", `a\b`)
	path("bad-path-control", "control character", "a\x1bb")
	path("bad-path-device", "Windows device", "NUL.txt")
	path("bad-path-git", ".git", "a/.GIT/config")
	path("bad-path-not-nfc", "not NFC", "e\u0301", "z")
	path("bad-path-case", "equal after case folding", "STRASSE", "straße")
	path("bad-path-case-cherokee", "equal after case folding", "\u13a0", "\uab70")
	path("bad-path-file-and-directory", "a file that is a directory too", "A", "a/b")
	path("bad-path-order", "not sorted", "b", "a")
	add("bad-statement-version", "version", "section 4: predicateType of version 2", func(s *envelope.Statement) { s.PredicateType = "urn:sluice:release:v2" })
	add("bad-statement-total", "digest", "section 4: total_size is not the sum", func(s *envelope.Statement) { s.Predicate.TotalSize = 1 })
	add("bad-statement-directory", "digest", "section 6: directory_digest", func(s *envelope.Statement) { s.Predicate.DirectoryDigest[0] ^= 1 })
	add("bad-statement-expires", "format", "section 4: expires is not after created", func(s *envelope.Statement) { s.Predicate.Expires = s.Predicate.Created })
	add("bad-statement-audience", "format", "section 4: no audience", func(s *envelope.Statement) { s.Predicate.Audience = []string{} })
	add("bad-statement-kind", "format", "section 4: unknown kind", func(s *envelope.Statement) { s.Predicate.Kind = "other" })
	add("bad-statement-seq", "format", "section 4: seq is 0", func(s *envelope.Statement) { s.Predicate.Seq = 0 })
	add("bad-statement-exception", "format", "section 4: exception without a reason", func(s *envelope.Statement) { s.Predicate.Gate.Verdict = "exception" })
	add("bad-statement-subjects", "format", "section 4: no subject", func(s *envelope.Statement) {
		s.Subjects = []envelope.Subject{}
		s.Predicate.DirectoryDigest = envelope.DirectoryDigest(nil)
	})
}

func jsonVectors(t *testing.T, out map[string]badVector) {
	s, index := build(t, payload("a", "", "b<", ""), predicate())
	good := string(must[[]byte](t)(s.Marshal()))
	for _, v := range []struct{ name, reason, old, new string }{
		{"duplicate-key", "duplicate key", `"seq":1`, `"seq":9,"seq":1`},
		{"unknown-key", "unknown key", `"seq":1`, `"seq":1,"x":1`},
		{"key-case", "key in other case", `"seq"`, `"Seq"`},
		{"key-order", "keys in other order", `"epoch":0,"seq":1`, `"seq":1,"epoch":0`},
		{"null-list", "null list", `"evidence":[]`, `"evidence":null`},
		{"float", "float", `"seq":1`, `"seq":1.0`},
		{"big-number", "2^53", `"seq":1`, `"seq":9007199254740992`},
		{"white-space", "white space", `"seq":1`, `"seq": 1`},
		{"html-escape", "HTML escape", `b<`, `b\u003c`},
		{"raw-2028", "U+2028 not escaped", `"reason":""`, "\"reason\":\"\u2028\""},
		{"invalid-utf8", "invalid UTF-8", `"reason":""`, "\"reason\":\"\xff\""},
		{"trailing-newline", "trailing newline", `"}}`, "\"}}\n"},
	} {
		at := strings.LastIndex(good, v.old)
		b := good[:at] + v.new + good[at+len(v.old):]
		out["bad-json-"+v.name] = badVector{"format", "section 3: " + v.reason, around(t, []byte(b), index)}
	}
}

// TestVectors makes every vector anew and compares it with the file: the vectors pin the format, and cannot drift.
func TestVectors(t *testing.T) {
	want := map[string][]byte{}
	add := func(name string, data []byte, v verdict) {
		want[name+".sluice"] = data
		want[name+".json"] = append(unchecked(t, v), '\n')
	}
	for name, e := range goodVectors(t) {
		add(name, stream(t, e), verdict{Release: e.ID.String()})
	}
	for name, v := range badVectors(t) {
		add(name, v.data, verdict{Refuse: v.refuse, Reason: v.reason})
	}
	if *update {
		writeVectors(t, want)
	}
	for name, data := range want {
		got, err := os.ReadFile(filepath.Join(vectorDir, name))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: not what this test makes (%v): run it with -update and look at the difference", name, err)
		}
	}
	entries := must[[]os.DirEntry](t)(os.ReadDir(vectorDir))
	if len(entries) != len(want) {
		t.Errorf("%d files in %s, want %d", len(entries), vectorDir, len(want))
	}
}

func writeVectors(t *testing.T, files map[string][]byte) {
	if err := errors.Join(os.RemoveAll(vectorDir), os.MkdirAll(vectorDir, 0o755)); err != nil {
		t.Fatal(err)
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(vectorDir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// TestReadVectors reads every file as any reader would: good ones by their id, bad ones by their class.
func TestReadVectors(t *testing.T) {
	classes := map[string]error{"format": envelope.ErrFormat, "digest": envelope.ErrDigest, "version": envelope.ErrVersion}
	names, err := filepath.Glob(filepath.Join(vectorDir, "*.sluice"))
	if err != nil || len(names) < 23 {
		t.Fatalf("%d vectors: %v", len(names), err)
	}
	for _, name := range names {
		t.Run(filepath.Base(name), func(t *testing.T) {
			var v verdict
			if err := json.Unmarshal(must[[]byte](t)(os.ReadFile(strings.TrimSuffix(name, ".sluice")+".json")), &v); err != nil {
				t.Fatal(err)
			}
			e, err := envelope.Read(bytes.NewReader(must[[]byte](t)(os.ReadFile(name))))
			if v.Refuse != "" {
				t.Log(err)
				refused(t, err, classes[v.Refuse])
			} else if err != nil || e.ID.String() != v.Release {
				t.Fatalf("%v", err)
			}
			if strings.HasPrefix(filepath.Base(name), "good-") != (v.Refuse == "") {
				t.Fatal("name and verdict disagree")
			}
		})
	}
}

// TestPythonReader runs the second reader, which shares no code, over the same files.
func TestPythonReader(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here: the second reader was not run")
	}
	out, err := exec.CommandContext(t.Context(), python, pythonReader, vectorDir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	names, _ := filepath.Glob(filepath.Join(vectorDir, "*.sluice"))
	if got := bytes.Count(out, []byte("ok   ")); got != len(names) {
		t.Fatalf("%d of %d vectors:\n%s", got, len(names), out)
	}
}

// TestPythonReaderFails shows that the run above can fail: a bad stream under a good name.
func TestPythonReaderFails(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here: the second reader was not run")
	}
	dir := t.TempDir()
	b := must[[]byte](t)(os.ReadFile(filepath.Join(vectorDir, "bad-end-digest.sluice")))
	v := must[[]byte](t)(os.ReadFile(filepath.Join(vectorDir, "good-min.json")))
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "good-x.sluice"), b, 0o644), os.WriteFile(filepath.Join(dir, "good-x.json"), v, 0o644)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), python, pythonReader, dir).CombinedOutput(); err == nil {
		t.Fatalf("a bad stream passed as good:\n%s", out)
	}
}
