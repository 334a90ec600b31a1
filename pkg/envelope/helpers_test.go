// SPDX-License-Identifier: Apache-2.0

package envelope_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"sluice/pkg/envelope"
)

// payload makes a file system out of path and content pairs.
func payload(pairs ...string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		fsys[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return fsys
}

// predicate is a good one, without optional fields.
func predicate() envelope.Predicate {
	return envelope.Predicate{
		Stream: "models/llm", Epoch: 0, Seq: 1, Kind: envelope.KindModelWeights, Name: "llm", Version: "1.0",
		Source:     envelope.Source{Type: envelope.SourceDirectory},
		Gate:       envelope.Gate{Verdict: envelope.VerdictPass},
		Inspection: envelope.Inspection{Verdict: envelope.VerdictNotApplicable},
		Created:    "2026-01-31T00:00:00Z", Expires: "2027-01-31T00:00:00Z",
		Audience: []string{"enclave-1"}, Classification: "UNCLASSIFIED",
	}
}

// fullPredicate has every optional field, and text that needs escapes.
func fullPredicate() envelope.Predicate {
	p := predicate()
	p.Epoch, p.Seq, p.Prev = 2, 41, strings.Repeat("0f", 32)
	p.Version = `1.0 "<&>"`
	p.Source = envelope.Source{Type: envelope.SourceHuggingFace, Repo: "org/Modèle", Revision: "main", Commit: "abc"}
	p.Base = &envelope.Base{Repo: "org/Base", Commit: "def"}
	p.Quantization = &envelope.Quantization{Method: "awq", Bits: 4, GroupSize: 128, Version: "0.2"}
	p.Gate = envelope.Gate{Verdict: envelope.VerdictException, Reason: "drift\tof 2 %\n\u2028signed \x01 off"}
	p.Inspection.Verdict = envelope.VerdictPass
	p.Audience = []string{"enclave-1", "enclave-2"}
	p.Classification = "SECRET//EXAMPLE"
	return p
}

func build(t testing.TB, fsys fstest.MapFS, p envelope.Predicate, evidence ...envelope.Named) (*envelope.Statement, []byte) {
	t.Helper()
	s, index, err := envelope.Build(t.Context(), fsys, envelope.BuildOptions{Predicate: p, Evidence: evidence})
	if err != nil {
		t.Fatalf("build: %v", err)
	}
	return s, index
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

const testKey = "00000000000000000000000000000000000000000000000000000000000000aa"

// sign wraps a payload into a DSSE envelope with one signature, which nobody verifies here.
func sign(t testing.TB, payload []byte) []byte {
	t.Helper()
	sig := sha256.Sum256(envelope.PAE(envelope.PayloadTypeInToto, payload))
	d := envelope.DSSE{
		Payload: payload, PayloadType: envelope.PayloadTypeInToto,
		Signatures: []envelope.Signature{{KeyID: testKey, Sig: sig[:]}},
	}
	return must[[]byte](t)(d.Marshal())
}

func approval(s *envelope.Statement, id envelope.Digest, role, officer string) *envelope.Approval {
	return &envelope.Approval{
		ReleaseID: id, Stream: s.Predicate.Stream, Epoch: s.Predicate.Epoch, Seq: s.Predicate.Seq,
		Role: role, Officer: officer, Decision: envelope.DecisionApprove,
		Checked: []string{envelope.CheckedBytes, envelope.CheckedManifest},
		Shown:   sha256.Sum256([]byte("screen")), Tool: "sluice 1.0", At: "2026-02-01T10:00:00Z", Note: "",
	}
}

func signedApproval(t testing.TB, a *envelope.Approval) envelope.Named {
	t.Helper()
	return envelope.Named{Name: a.SectionName(), Data: sign(t, must[[]byte](t)(a.Marshal()))}
}

func bigFile(n int) string {
	return strings.Repeat("0123456789abcdef", n/16+1)[:n]
}

// full is an envelope with everything in it: several files and blocks, an empty file, evidence, approvals.
func full(t testing.TB) (*envelope.Envelope, fstest.MapFS) {
	t.Helper()
	fsys := payload("config.json", `{"a":1}`, "empty", "", "weights/model-1.bin", bigFile(2*envelope.BlockSize+17),
		"weights/modèle <&>\".bin", bigFile(envelope.BlockSize), "z\u2028z", "separator")
	evidence := []envelope.Named{{Name: "gate.json", Data: []byte("{}")}, {Name: "mirror.json", Data: []byte(`{"files":4}`)}}
	s, index := build(t, fsys, fullPredicate(), evidence...)
	e := must[*envelope.Envelope](t)(envelope.New(sign(t, must[[]byte](t)(s.Marshal())), index, evidence))
	err := e.Merge([]envelope.Named{
		signedApproval(t, approval(s, e.ID, "security", "s.ito")), signedApproval(t, approval(s, e.ID, "quality", "a.roy")),
	})
	if err != nil {
		t.Fatal(err)
	}
	return e, fsys
}

// small is an envelope of one tiny file, with one report and one approval.
func small(t testing.TB) *envelope.Envelope {
	t.Helper()
	evidence := envelope.Named{Name: "gate.json", Data: []byte("{}")}
	s, index := build(t, payload("a", "b"), predicate(), evidence)
	e := must[*envelope.Envelope](t)(envelope.New(sign(t, must[[]byte](t)(s.Marshal())), index, []envelope.Named{evidence}))
	if err := e.Merge([]envelope.Named{signedApproval(t, approval(s, e.ID, "security", "s.ito"))}); err != nil {
		t.Fatal(err)
	}
	return e
}

func stream(t testing.TB, e *envelope.Envelope) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := e.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("WriteTo = %d, %v; wrote %d", n, err, b.Len())
	}
	return b.Bytes()
}

// rawSection is a section without any rule: what a hostile writer can send.
type rawSection struct {
	typ, reserved byte
	name          string
	body          []byte
}

func (s rawSection) append(b []byte) []byte {
	b = append(b, s.typ, s.reserved)
	b = binary.BigEndian.AppendUint16(b, uint16(len(s.name)))
	b = binary.BigEndian.AppendUint64(b, uint64(len(s.body)))
	return append(append(b, s.name...), s.body...)
}

const magic = "SLUICE\x01\n"

func rawStream(sections ...rawSection) []byte {
	b := []byte(magic)
	for _, s := range sections {
		b = s.append(b)
	}
	return rawEnd(b)
}

func rawEnd(b []byte) []byte {
	b = append(b, make([]byte, 12)...)
	b[len(b)-1] = sha256.Size
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// rawSections takes an envelope apart, for tests that put it together wrongly.
func rawSections(e *envelope.Envelope) []rawSection {
	out := []rawSection{{typ: 1, body: e.Release}, {typ: 2, body: e.Index}}
	for _, n := range e.Evidence {
		out = append(out, rawSection{typ: 3, name: n.Name, body: n.Data})
	}
	for _, n := range e.Approvals {
		out = append(out, rawSection{typ: 4, name: n.Name, body: n.Data})
	}
	return out
}

// unchecked encodes a statement by encoding/json, which applies no rule: a second opinion about the canonical form.
func unchecked(t testing.TB, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// recompute makes the computed fields of a changed statement right again, so that only the change is wrong.
func recompute(s *envelope.Statement) {
	var total, blocks int64
	for i := range s.Subjects {
		total += s.Subjects[i].Annotations.Size
		blocks += envelope.Blocks(s.Subjects[i].Annotations.Size)
	}
	s.Predicate.TotalSize = total
	s.Predicate.ContentIndex.Blocks, s.Predicate.ContentIndex.Size = blocks, 24+32*blocks
	s.Predicate.DirectoryDigest = envelope.DirectoryDigest(s.Subjects)
}

// clone copies a statement deeply enough to be changed by a test.
func clone(s *envelope.Statement) *envelope.Statement {
	c := *s
	c.Subjects = slices.Clone(s.Subjects)
	c.Predicate.Evidence = slices.Clone(s.Predicate.Evidence)
	c.Predicate.Audience = slices.Clone(s.Predicate.Audience)
	return &c
}

// refused checks that err is one of the package's refusals, of the class wanted, and of no other.
func refused(t testing.TB, err, want error) {
	t.Helper()
	classes := []error{envelope.ErrFormat, envelope.ErrDigest, envelope.ErrVersion, envelope.ErrConflict}
	for _, c := range classes {
		if errors.Is(err, c) != (c == want) { //nolint:errorlint // want is a sentinel itself
			t.Fatalf("got error %v; want only %v", err, want)
		}
	}
}
