// SPDX-License-Identifier: Apache-2.0

package envelope_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/envelope"
)

func TestEnvelopeRoundTrip(t *testing.T) {
	for name, build := range map[string]func() *envelope.Envelope{
		"small": func() *envelope.Envelope { return small(t) },
		"full":  func() *envelope.Envelope { e, _ := full(t); return e },
	} {
		t.Run(name, func(t *testing.T) {
			e := build()
			b := stream(t, e)
			back, err := envelope.Read(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(e, back); d != "" {
				t.Fatal(d)
			}
			if again := stream(t, back); !bytes.Equal(b, again) {
				t.Fatal("other bytes the second time")
			}
			if envelope.ID(back.DSSE.Payload) != back.ID {
				t.Fatal("ID")
			}
		})
	}
}

// TestTruncated: E4, every length.
func TestTruncated(t *testing.T) {
	b := stream(t, small(t))
	for n := range b {
		_, err := envelope.Read(bytes.NewReader(b[:n]))
		refused(t, err, envelope.ErrFormat)
	}
}

// TestFlipped: E5, every bit. The end digest makes it simple: none is accepted. With the end digest made right again,
// as an attacker would, what is accepted differs in signatures only.
func TestFlipped(t *testing.T) {
	slow(t)
	e := small(t)
	b := stream(t, e)
	accepted := 0
	for i := range 8 * len(b) {
		m := bytes.Clone(b)
		m[i/8] ^= 1 << (i % 8)
		if _, err := envelope.Read(bytes.NewReader(m)); err == nil {
			t.Fatalf("bit %d of byte %d flipped: accepted", i%8, i/8)
		}
		if i/8 >= len(b)-44 {
			continue // the end section itself
		}
		got, err := envelope.Read(bytes.NewReader(rawEnd(m[:len(m)-44])))
		if err != nil {
			continue
		}
		accepted++
		sameButSignatures(t, fmt.Sprintf("bit %d of byte %d", i%8, i/8), e, got)
	}
	if accepted == 0 {
		t.Fatal("no flip within a signature was accepted: the test does not reach them")
	}
}

func sameButSignatures(t *testing.T, what string, want, got *envelope.Envelope) {
	t.Helper()
	same := bytes.Equal(want.DSSE.Payload, got.DSSE.Payload) && want.ID == got.ID && bytes.Equal(want.Index, got.Index) &&
		cmp.Equal(want.Evidence, got.Evidence) && len(want.Approvals) == len(got.Approvals)
	changed := !cmp.Equal(want.DSSE.Signatures, got.DSSE.Signatures)
	for i := range min(len(want.Approvals), len(got.Approvals)) {
		a := must[*envelope.DSSE](t)(envelope.ParseDSSE(want.Approvals[i].Data, envelope.MaxApproval))
		b := must[*envelope.DSSE](t)(envelope.ParseDSSE(got.Approvals[i].Data, envelope.MaxApproval))
		// The text of an approval may change as well (a note, a time): its payload is signed, so the caller sees it.
		changed = changed || !cmp.Equal(a, b)
	}
	if !same || !changed {
		t.Fatalf("%s: accepted, and it differs outside of what is signed", what)
	}
}

// TestReadRefuses: what binds the parts together (sections 1, 2, 4, 5, 7). Each stream is well formed as a container.
func TestReadRefuses(t *testing.T) {
	e := small(t)
	other, _ := full(t)
	all := func() []rawSection { return slices.Clone(rawSections(e)) }
	body := func(i int, b []byte) []rawSection { s := all(); s[i].body = b; return s }
	named := func(i int, name string) []rawSection { s := all(); s[i].name = name; return s }
	dsse := func(payload []byte, typ string, signatures int) []byte {
		d := envelope.DSSE{Payload: payload, PayloadType: typ}
		for i := range signatures {
			d.Signatures = append(d.Signatures, envelope.Signature{KeyID: keyID(i), Sig: []byte("s")})
		}
		return must[[]byte](t)(d.Marshal())
	}
	approve := func(change func(a *envelope.Approval)) []rawSection {
		a := approval(e.Statement, e.ID, "security", "s.ito")
		change(a)
		return body(3, sign(t, must[[]byte](t)(a.Marshal())))
	}
	officer := must[*envelope.DSSE](t)(envelope.ParseDSSE(e.Approvals[0].Data, envelope.MaxApproval)).Payload
	tests := []struct {
		name     string
		want     error
		sections []rawSection
	}{
		{"section 2/release without signature", envelope.ErrFormat, body(0, dsse(e.DSSE.Payload, envelope.PayloadTypeInToto, 0))},
		{"section 2/release of another payload type", envelope.ErrFormat, body(0, dsse(e.DSSE.Payload, "application/json", 1))},
		{"section 2/release is no DSSE", envelope.ErrFormat, body(0, e.DSSE.Payload)},
		{"section 4/release is an approval", envelope.ErrFormat, body(0, e.Approvals[0].Data)},
		{"section 5/index of another release", envelope.ErrFormat, body(1, other.Index)},
		{"section 5/index flipped", envelope.ErrDigest, body(1, append(bytes.Clone(e.Index[:len(e.Index)-1]), 1))},
		{"section 4/evidence missing", envelope.ErrFormat, slices.Delete(all(), 2, 3)},
		{"section 4/evidence not listed", envelope.ErrFormat, slices.Insert(all(), 3, rawSection{typ: 3, name: "z.json"})},
		{"section 4/evidence renamed", envelope.ErrFormat, named(2, "other.json")},
		{"section 4/evidence of another size", envelope.ErrFormat, body(2, []byte("{ }"))},
		{"section 4/evidence of other bytes", envelope.ErrDigest, body(2, []byte("[]"))},
		{"section 7/approval without signature", envelope.ErrFormat, body(3, dsse(officer, envelope.PayloadTypeInToto, 0))},
		{"section 7/approval with two signatures", envelope.ErrFormat, body(3, dsse(officer, envelope.PayloadTypeInToto, 2))},
		{"section 7/approval of another payload type", envelope.ErrFormat, body(3, dsse(officer, "application/json", 1))},
		{"section 7/approval is the release", envelope.ErrFormat, body(3, e.Release)},
		{"section 7/approval of another release", envelope.ErrDigest, approve(func(a *envelope.Approval) { a.ReleaseID[0] ^= 1 })},
		{"section 7/approval of another stream", envelope.ErrFormat, approve(func(a *envelope.Approval) { a.Stream = "models/other" })},
		{"section 7/approval of another epoch", envelope.ErrFormat, approve(func(a *envelope.Approval) { a.Epoch++ })},
		{"section 7/approval of another seq", envelope.ErrFormat, approve(func(a *envelope.Approval) { a.Seq++ })},
		{"section 1/approval under another officer's name", envelope.ErrFormat, approve(func(a *envelope.Approval) { a.Officer = "a.roy" })},
		{"section 1/approval under another group's name", envelope.ErrFormat, named(3, "quality.s.ito.json")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := envelope.Read(bytes.NewReader(rawStream(tt.sections...)))
			refused(t, err, tt.want)
		})
	}
	if _, err := envelope.Read(bytes.NewReader(rawStream(all()...))); err != nil {
		t.Fatalf("the table's own envelope: %v", err)
	}
}

// TestWriteToRefuses: nothing is written that Read refuses.
func TestWriteToRefuses(t *testing.T) {
	changes := map[string]func(e *envelope.Envelope){
		"release":        func(e *envelope.Envelope) { e.Release = e.Release[1:] },
		"index":          func(e *envelope.Envelope) { e.Index = e.Index[1:] },
		"evidence":       func(e *envelope.Envelope) { e.Evidence = nil },
		"evidence bytes": func(e *envelope.Envelope) { e.Evidence = []envelope.Named{{Name: "gate.json", Data: []byte("[]")}} },
		"more evidence":  func(e *envelope.Envelope) { e.Evidence = append(e.Evidence, envelope.Named{Name: "z"}) },
		"approval":       func(e *envelope.Envelope) { e.Approvals = append(e.Approvals, envelope.Named{Name: "z"}) },
		"approvals twice": func(e *envelope.Envelope) {
			e.Approvals = append(e.Approvals, envelope.Named{Name: e.Approvals[0].Name})
		},
		"ID": func(e *envelope.Envelope) { e.ID[0] ^= 1 },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			e := small(t)
			change(e)
			var b bytes.Buffer
			if n, err := e.WriteTo(&b); err == nil || n != 0 || b.Len() != 0 {
				t.Fatalf("wrote %d bytes, %v", n, err)
			}
		})
	}
	e := small(t)
	e.ID, e.DSSE, e.Statement = envelope.Digest{}, nil, nil // parts only
	stream(t, e)
}

func TestMerge(t *testing.T) {
	e := small(t)
	roy := signedApproval(t, approval(e.Statement, e.ID, "quality", "a.roy"))
	lee := signedApproval(t, approval(e.Statement, e.ID, "quality", "b.lee"))
	old := e.Approvals[0]
	for range 2 { // the second time is no news
		if err := e.Merge([]envelope.Named{lee, old, roy, lee}); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]envelope.Named{roy, lee, old}, e.Approvals); d != "" {
		t.Fatal(d)
	}
	stream(t, e)

	second := approval(e.Statement, e.ID, "quality", "a.roy")
	second.Decision = envelope.DecisionReject
	foreign := approval(e.Statement, e.ID, "quality", "c.new")
	foreign.ReleaseID[5] ^= 1
	fresh := signedApproval(t, approval(e.Statement, e.ID, "quality", "d.new"))
	tests := map[string]struct {
		want error
		add  []envelope.Named
	}{
		"section 7/conflict":               {envelope.ErrConflict, []envelope.Named{fresh, signedApproval(t, second)}},
		"section 7/conflict among the new": {envelope.ErrConflict, []envelope.Named{fresh, {Name: fresh.Name, Data: roy.Data}}},
		"section 7/of another release":     {envelope.ErrDigest, []envelope.Named{fresh, signedApproval(t, foreign)}},
		"section 7/no approval":            {envelope.ErrFormat, []envelope.Named{fresh, {Name: "x.y.json", Data: []byte("{}")}}},
		"section 1/33 approvals":           {envelope.ErrFormat, crowd(t, e, 30)},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			refused(t, e.Merge(tt.add), tt.want)
			if len(e.Approvals) != 3 {
				t.Fatalf("half merged: %d approvals", len(e.Approvals))
			}
		})
	}
	if err := e.Merge(crowd(t, e, 29)); err != nil || len(e.Approvals) != envelope.MaxApprovals {
		t.Fatalf("32 approvals: %v", err)
	}
	stream(t, e)
}

func crowd(t *testing.T, e *envelope.Envelope, n int) []envelope.Named {
	var out []envelope.Named
	for i := range n {
		out = append(out, signedApproval(t, approval(e.Statement, e.ID, "crowd", fmt.Sprintf("o%02d", i))))
	}
	return out
}

// manyFiles is the statement and the index of n empty files.
func manyFiles(t testing.TB, n int) (*envelope.Statement, []byte) {
	t.Helper()
	s, index := build(t, payload("a", ""), predicate())
	empty := s.Subjects[0]
	s.Subjects = make([]envelope.Subject, n)
	for i := range s.Subjects {
		s.Subjects[i] = empty
		s.Subjects[i].Name = fmt.Sprintf("shards/part-%03d/model-%06d-of-%06d.safetensors", i/1000, i, n)
	}
	recompute(s)
	return s, index
}

// TestHundredThousandFiles: the largest release, and one more.
func TestHundredThousandFiles(t *testing.T) {
	slow(t)
	if testing.Short() {
		t.Skip("takes seconds: left out with -short")
	}
	s, index := manyFiles(t, envelope.MaxFiles)
	b := must[[]byte](t)(s.Marshal())
	e := must[*envelope.Envelope](t)(envelope.New(sign(t, b), index, nil))
	back := must[*envelope.Envelope](t)(envelope.Read(bytes.NewReader(stream(t, e))))
	if len(back.Statement.Subjects) != envelope.MaxFiles || back.ID != envelope.ID(b) {
		t.Fatalf("%d files", len(back.Statement.Subjects))
	}
	s, _ = manyFiles(t, envelope.MaxFiles+1)
	_, err := s.Marshal()
	refused(t, err, envelope.ErrFormat)
	_, err = envelope.ParseStatement(unchecked(t, s))
	refused(t, err, envelope.ErrFormat)
}

// TestStatementTooLong: paths of 1,024 bytes reach the cap of 32 MiB before the cap of 100,000 files.
func TestStatementTooLong(t *testing.T) {
	slow(t)
	if testing.Short() {
		t.Skip("takes seconds: left out with -short")
	}
	s, _ := manyFiles(t, 40_000)
	for i := range s.Subjects {
		s.Subjects[i].Name = strings.Repeat("long/", 25) + strings.Repeat("a", 250) + "/" + strings.Repeat("b", 250) + "/" +
			strings.Repeat("c", 250) + fmt.Sprintf("/%06d", i)
	}
	recompute(s)
	_, err := s.Marshal()
	refused(t, err, envelope.ErrFormat)
	if !strings.Contains(err.Error(), "33554432") {
		t.Fatal(err)
	}
}

// TestMessages: an error says what, where, and the section; the sentinel says which kind.
func TestMessages(t *testing.T) {
	e := small(t)
	b := stream(t, e)
	_, err := envelope.Read(bytes.NewReader(b[:100]))
	for _, words := range []string{"byte 100", "bytes are missing", "fresh copy", "release section"} {
		if !errors.Is(err, envelope.ErrFormat) || !strings.Contains(err.Error(), words) {
			t.Errorf("%v: does not say %q", err, words)
		}
	}
	_, err = envelope.ParseStatement(bytes.Replace(e.DSSE.Payload, []byte(`"seq":1`), []byte(`"seq":01`), 1))
	if !strings.Contains(err.Error(), "section 3") || !strings.Contains(err.Error(), "byte ") {
		t.Error(err)
	}
}
