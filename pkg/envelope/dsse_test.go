// SPDX-License-Identifier: Apache-2.0

package envelope_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/envelope"
)

// TestPAE is the vector of the DSSE protocol (secure-systems-lab/dsse, protocol.md).
func TestPAE(t *testing.T) {
	const want = "DSSEv1 29 http://example.com/HelloWorld 11 hello world"
	if got := string(envelope.PAE("http://example.com/HelloWorld", []byte("hello world"))); got != want {
		t.Fatalf("got %q", got)
	}
	if got := string(envelope.PAE("", nil)); got != "DSSEv1 0  0 " {
		t.Fatalf("empty: got %q", got)
	}
}

func keyID(i int) string { return fmt.Sprintf("%064x", i) }

func TestDSSERoundTrip(t *testing.T) {
	for _, size := range []int{0, 1, 2, 3, 24<<10 - 1, 24 << 10, 24<<10 + 1, 100_000} {
		d := &envelope.DSSE{Payload: []byte(bigFile(size)), PayloadType: "http://example.com/HelloWorld"}
		for i := range envelope.MaxSignatures {
			d.Signatures = append(d.Signatures, envelope.Signature{KeyID: keyID(i), Sig: []byte(bigFile(i + 1))})
		}
		b := must[[]byte](t)(d.Marshal())
		back := must[*envelope.DSSE](t)(envelope.ParseDSSE(b, len(b)))
		if diff := cmp.Diff(d, back); diff != "" {
			t.Fatal(diff)
		}
		_, err := envelope.ParseDSSE(b, len(b)-1)
		refused(t, err, envelope.ErrFormat)
	}
}

// TestDSSEForm pins the one line of section 2 byte for byte.
func TestDSSEForm(t *testing.T) {
	d := &envelope.DSSE{
		Payload: []byte("{}"), PayloadType: envelope.PayloadTypeInToto,
		Signatures: []envelope.Signature{{KeyID: keyID(1), Sig: []byte{0xff}}},
	}
	want := `{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"` + keyID(1) + `","sig":"/w=="}]}`
	if got := string(must[[]byte](t)(d.Marshal())); got != want {
		t.Fatalf("got %s", got)
	}
}

func TestDSSERefuses(t *testing.T) {
	good := `{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"keyid":"` + keyID(1) + `","sig":"/w=="}]}`
	sig := `{"keyid":"` + keyID(1) + `","sig":"/w=="}`
	var many []string
	for i := range envelope.MaxSignatures + 1 {
		many = append(many, `{"keyid":"`+keyID(i)+`","sig":"/w=="}`)
	}
	tests := []struct{ name, old, new string }{
		{"base64 not padded", `e30=`, `e30`},
		{"base64 with other spare bits", `e30=`, `e31=`},
		{"base64 URL alphabet", `/w==`, `_w==`},
		{"base64 with newline", `e30=`, "e3\n0="},
		{"base64 with carriage return", `e30=`, "e30=\r"},
		{"base64 with space", `e30=`, "e30= "},
		{"base64 escaped", `e30=`, `e30\u003d`},
		{"base64 too much padding", `e30=`, `e30==`},
		{"base64 data after padding", `e30=`, `e30=e30=`},
		{"white space", `,"payloadType"`, `, "payloadType"`},
		{"trailing newline", `]}`, "]}\n"},
		{"two payloads", `{"payload":"e30="`, `{"payload":"e30=","payload":"e30="`},
		{"other case", `"payloadType"`, `"payloadtype"`},
		{"payload type escaped", `vnd.in`, `vnd\u002ein`},
		{"payload type empty", `application/vnd.in-toto+json`, ``},
		{"payload type with space", `application/vnd`, `application /vnd`},
		{"payload type with quote", `application/vnd`, `application\"vnd`},
		{"payload type too long", `application/vnd`, strings.Repeat("a", 250)},
		{"key id short", keyID(1), `ab`},
		{"key id upper case", keyID(1), strings.Repeat("AB", 32)},
		{"key id empty", keyID(1), ``},
		{"two signatures with one key id", sig, sig + "," + sig},
		{"two signatures with one key id, other bytes", sig, sig + "," + strings.Replace(sig, "/w==", "/g==", 1)},
		{"signature empty", `/w==`, ``},
		{"signatures null", `[` + sig + `]`, `null`},
		{"33 signatures", sig, strings.Join(many, ",")},
		{"unknown key", `,"sig"`, `,"alg":"none","sig"`},
	}
	for _, tt := range tests {
		t.Run("section 2/"+tt.name, func(t *testing.T) {
			if !strings.Contains(good, tt.old) {
				t.Fatalf("%q is not in it", tt.old)
			}
			_, err := envelope.ParseDSSE([]byte(strings.Replace(good, tt.old, tt.new, 1)), 1<<20)
			refused(t, err, envelope.ErrFormat)
		})
	}
	for n := range good {
		if _, err := envelope.ParseDSSE([]byte(good[:n]), 1<<20); err == nil {
			t.Fatalf("accepted the first %d bytes", n)
		}
	}
	if _, err := envelope.ParseDSSE([]byte(good), 1<<20); err != nil {
		t.Fatal(err)
	}
}

// TestDSSEMarshalRefuses: the writer keeps the same rules.
func TestDSSEMarshalRefuses(t *testing.T) {
	d := envelope.DSSE{PayloadType: "a b"}
	_, err := d.Marshal()
	refused(t, err, envelope.ErrFormat)
	d = envelope.DSSE{PayloadType: "a/b", Signatures: make([]envelope.Signature, envelope.MaxSignatures+1)}
	_, err = d.Marshal()
	refused(t, err, envelope.ErrFormat)
}

func approvalText(t *testing.T) string {
	a := approval(&envelope.Statement{Predicate: predicate()}, envelope.ID([]byte("R")), "security", "s.ito")
	a.Note = "seen < 5 min"
	return string(must[[]byte](t)(a.Marshal()))
}

// TestApprovalForm pins section 7 byte for byte.
func TestApprovalForm(t *testing.T) {
	want := `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"release","digest":{"sha256":"` +
		envelope.ID([]byte("R")).String() + `"}}],"predicateType":"urn:sluice:approval:v1","predicate":{"stream":"models/llm","epoch":0,"seq":1,` +
		`"role":"security","officer":"s.ito","decision":"approve","checked":["bytes","manifest"],"shown":"` +
		envelope.ID([]byte("screen")).String() + `","tool":"sluice 1.0","at":"2026-02-01T10:00:00Z","note":"seen < 5 min"}}`
	got := approvalText(t)
	if got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
	a := must[*envelope.Approval](t)(envelope.ParseApproval([]byte(got)))
	if again := string(must[[]byte](t)(a.Marshal())); again != want || a.SectionName() != "security.s.ito.json" {
		t.Fatalf("again %s, %s", again, a.SectionName())
	}
}

func TestApprovalRefuses(t *testing.T) {
	good := approvalText(t)
	tests := []struct {
		name     string
		want     error
		old, new string
	}{
		{"statement type", envelope.ErrVersion, "Statement/v1", "Statement/v0.1"},
		{"predicate type", envelope.ErrVersion, "approval:v1", "approval:v2"},
		{"release statement's type", envelope.ErrVersion, "approval:v1", "release:v1"},
		{"subject name", envelope.ErrFormat, `"name":"release"`, `"name":"model"`},
		{"two subjects", envelope.ErrFormat, `}}],`, `}},{"name":"release","digest":{"sha256":"` + keyID(1) + `"}}],`},
		{"subject annotations", envelope.ErrFormat, `"}}],`, `"},"annotations":{"size":1}}],`},
		{"stream", envelope.ErrFormat, "models/llm", "models//llm"},
		{"seq", envelope.ErrFormat, `"seq":1`, `"seq":0`},
		{"role empty", envelope.ErrFormat, `"role":"security"`, `"role":""`},
		{"role with slash", envelope.ErrFormat, `"role":"security"`, `"role":"../x"`},
		{"officer upper case", envelope.ErrFormat, `s.ito`, `S.ITO`},
		{"officer 65 bytes", envelope.ErrFormat, `s.ito`, strings.Repeat("a", 65)},
		{"decision", envelope.ErrFormat, `"approve"`, `"Approve"`},
		{"decision empty", envelope.ErrFormat, `"approve"`, `""`},
		{"checked not sorted", envelope.ErrFormat, `["bytes","manifest"]`, `["manifest","bytes"]`},
		{"checked twice", envelope.ErrFormat, `["bytes","manifest"]`, `["bytes","bytes"]`},
		{"checked unknown", envelope.ErrFormat, `["bytes","manifest"]`, `["vibes"]`},
		{"checked null", envelope.ErrFormat, `["bytes","manifest"]`, `null`},
		{"checked five", envelope.ErrFormat, `["bytes","manifest"]`, `["bytes","gate","inspection","manifest","x"]`},
		{"at with fraction", envelope.ErrFormat, `10:00:00Z`, `10:00:00.5Z`},
		{"note 1025 bytes", envelope.ErrFormat, `seen < 5 min`, strings.Repeat("n", 1025)},
		{"note not NFC", envelope.ErrFormat, `seen`, "e\u0301"},
		{"tool not NFC", envelope.ErrFormat, `sluice 1.0`, "e\u0301"},
		{"note with HTML escape", envelope.ErrFormat, `<`, `\u003c`},
		{"duplicate decision", envelope.ErrFormat, `"decision":`, `"decision":"reject","decision":`},
		{"unknown key", envelope.ErrFormat, `"note":`, `"x":1,"note":`},
		{"trailing newline", envelope.ErrFormat, `min"}}`, "min\"}}\n"},
		{"over 64 KiB", envelope.ErrFormat, `seen`, strings.Repeat("n", 64<<10)},
	}
	for _, tt := range tests {
		t.Run("section 7/"+tt.name, func(t *testing.T) {
			if !strings.Contains(good, tt.old) {
				t.Fatalf("%q is not in it", tt.old)
			}
			_, err := envelope.ParseApproval([]byte(strings.Replace(good, tt.old, tt.new, 1)))
			refused(t, err, tt.want)
		})
	}
	for _, ok := range [][2]string{
		{`["bytes","manifest"]`, `[]`},
		{`seen < 5 min`, strings.Repeat("n", 1024)},
		{`"approve"`, `"reject"`},
		{`["bytes","manifest"]`, `["bytes","gate","inspection","manifest"]`},
		{"sluice 1.0", ""},
	} {
		if _, err := envelope.ParseApproval([]byte(strings.Replace(good, ok[0], ok[1], 1))); err != nil {
			t.Errorf("%s: %v", ok[1], err)
		}
	}
	bad := &envelope.Approval{}
	_, err := bad.Marshal()
	refused(t, err, envelope.ErrFormat)
}

// TestApprovalNameFits: 64 bytes of group and 64 of officer make a section name that section 1 cannot carry; it is
// refused when it is merged, not cut.
func TestApprovalNameFits(t *testing.T) {
	e := small(t)
	a := approval(e.Statement, e.ID, strings.Repeat("g", 64), strings.Repeat("o", 64))
	refused(t, e.Merge([]envelope.Named{signedApproval(t, a)}), envelope.ErrFormat)
}

func TestIndex(t *testing.T) {
	s, b := build(t, payload("a", bigFile(envelope.BlockSize+1), "b", "", "c", "x"), predicate())
	x := must[*envelope.Index](t)(envelope.ParseIndex(b, s))
	if len(x.Digests) != 3 || x.Digests[2] != envelope.ID([]byte("x")) || string(x.Marshal()) != string(b) {
		t.Fatalf("%d digests, %v", len(x.Digests), x.Digests)
	}
	var w strings.Builder
	if n, err := x.WriteTo(&w); err != nil || n != int64(len(b)) || w.String() != string(b) {
		t.Fatalf("WriteTo: %d, %v", n, err)
	}
	flip := func(at int) []byte {
		c := []byte(string(b))
		c[at] ^= 1
		return c
	}
	tests := []struct {
		name string
		want error
		b    []byte
	}{
		{"empty", envelope.ErrFormat, nil},
		{"header cut", envelope.ErrFormat, b[:23]},
		{"cut", envelope.ErrFormat, b[:len(b)-1]},
		{"longer", envelope.ErrFormat, append([]byte(string(b)), 0)},
		{"magic", envelope.ErrFormat, flip(0)},
		{"version", envelope.ErrVersion, flip(7)},
		{"block size", envelope.ErrFormat, flip(8)},
		{"reserved", envelope.ErrFormat, flip(15)},
		{"count", envelope.ErrFormat, flip(23)},
		{"count 2^63", envelope.ErrFormat, append(append([]byte(string(b[:16])), 0x80), b[17:]...)},
		{"digest", envelope.ErrDigest, flip(24)},
		{"last digest", envelope.ErrDigest, flip(len(b) - 1)},
	}
	for _, tt := range tests {
		t.Run("section 5/"+tt.name, func(t *testing.T) {
			_, err := envelope.ParseIndex(tt.b, s)
			refused(t, err, tt.want)
		})
	}
}

func TestBlocks(t *testing.T) {
	for size, want := range map[int64]int64{0: 0, 1: 1, 1<<20 - 1: 1, 1 << 20: 1, 1<<20 + 1: 2, 1<<53 - 1: 1 << 33, 1<<63 - 1: 1 << 43} {
		if got := envelope.Blocks(size); got != want {
			t.Errorf("Blocks(%d) = %d, want %d", size, got, want)
		}
	}
}

// TestBase64Lengths compares the streaming base64 with the library's for every remainder.
func TestBase64Lengths(t *testing.T) {
	for n := range 200 {
		d := envelope.DSSE{Payload: []byte(bigFile(n * 331)), PayloadType: "a/b"}
		want := `{"payload":"` + base64.StdEncoding.EncodeToString(d.Payload) + `","payloadType":"a/b","signatures":[]}`
		if got := string(must[[]byte](t)(d.Marshal())); got != want {
			t.Fatalf("payload of %d bytes", n*331)
		}
	}
}
