// SPDX-License-Identifier: Apache-2.0

package envelope_test

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/envelope"
)

// The fuzz targets ask two things of every parser: no panic, and whatever is accepted is written back as the same bytes.

func FuzzParseStatement(f *testing.F) {
	for _, p := range []envelope.Predicate{predicate(), fullPredicate()} {
		s, _ := build(f, payload("a", "1", "b/c", ""), p)
		f.Add(must[[]byte](f)(s.Marshal()))
	}
	f.Add([]byte(`{"_type":"\u2028","subject":[`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := envelope.ParseStatement(b)
		if err != nil {
			return
		}
		if again, err := s.Marshal(); err != nil || !bytes.Equal(b, again) {
			t.Fatalf("%v: %q became %q", err, b, again)
		}
		if other := unchecked(t, s); !bytes.Equal(b, other) {
			t.Fatalf("encoding/json disagrees: %q, %q", b, other)
		}
	})
}

func FuzzParseDSSE(f *testing.F) {
	e := small(f)
	f.Add(e.Release)
	f.Add(e.Approvals[0].Data)
	f.Add([]byte(`{"payload":"","payloadType":"a/b","signatures":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := envelope.ParseDSSE(b, 1<<20)
		if err != nil {
			return
		}
		if again, err := d.Marshal(); err != nil || !bytes.Equal(b, again) {
			t.Fatalf("%v: %q became %q", err, b, again)
		}
	})
}

func FuzzParseApproval(f *testing.F) {
	e := small(f)
	a := approval(e.Statement, e.ID, "security", "s.ito")
	f.Add(must[[]byte](f)(a.Marshal()))
	a.Checked, a.Note, a.Decision = []string{}, "é\u2029\n", envelope.DecisionReject
	f.Add(must[[]byte](f)(a.Marshal()))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := envelope.ParseApproval(b)
		if err != nil {
			return
		}
		if again, err := a.Marshal(); err != nil || !bytes.Equal(b, again) {
			t.Fatalf("%v: %q became %q", err, b, again)
		}
	})
}

func FuzzParseIndex(f *testing.F) {
	s, index := build(f, payload("a", bigFile(envelope.BlockSize+1), "b", "x"), predicate())
	f.Add(index)
	f.Add(index[:24])
	f.Fuzz(func(t *testing.T, b []byte) {
		// Bound to the statement, only the one index passes; bound to what was found, the header and the length decide.
		bound := clone(s)
		bound.Predicate.ContentIndex.SHA256 = envelope.ID(b)
		for _, s := range []*envelope.Statement{s, bound} {
			x, err := envelope.ParseIndex(b, s)
			if err == nil && !bytes.Equal(b, x.Marshal()) {
				t.Fatalf("%q became %q", b, x.Marshal())
			}
		}
		if _, err := envelope.ParseIndex(b, s); err == nil && !bytes.Equal(b, index) {
			t.Fatalf("two indexes for one statement: %q", b)
		}
	})
}

// FuzzRead gets a stream, and the same with its end digest made right, so that the fuzzer passes it.
func FuzzRead(f *testing.F) {
	small := stream(f, small(f))
	f.Add(small)
	f.Add(rawStream(rawSection{typ: 1}, rawSection{typ: 2}, rawSection{typ: 3, name: "a"}, rawSection{typ: 4, name: "a"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		read(t, b)
		if len(b) > 44 {
			read(t, rawEnd(bytes.Clone(b[:len(b)-44])))
		}
	})
}

func read(t *testing.T, b []byte) {
	e, err := envelope.Read(bytes.NewReader(b))
	if err != nil {
		return
	}
	var again bytes.Buffer
	if _, err := e.WriteTo(&again); err != nil || !bytes.Equal(b, again.Bytes()) {
		t.Fatalf("%v: %q became %q", err, b, again.Bytes())
	}
}

// FuzzCheckPath: what is accepted stays below the directory it is joined to, and alone is a good set.
func FuzzCheckPath(f *testing.F) {
	for _, p := range []string{"a/b", "../a", "NUL.txt", "é", "e\u0301", "a\\b", ".git"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		err := envelope.CheckPath(p)
		if together := envelope.CheckPaths([]string{p}); (err == nil) != (together == nil) {
			t.Fatalf("%q: alone %v, in a list %v", p, err, together)
		}
		if err == nil && !local(p) {
			t.Fatalf("%q leaves its directory", p)
		}
		if err == nil && envelope.CheckPaths([]string{p, p}) == nil {
			t.Fatalf("%q: twice", p)
		}
	})
}

// TestMutants: E1 and E5 without the fuzzer: every byte of a small envelope replaced by every hostile byte.
func TestMutants(t *testing.T) {
	e := small(t)
	for i := range e.DSSE.Payload {
		for _, c := range []byte("\x00\"\\/.{}[],:0 9\xff\n") {
			b := bytes.Clone(e.DSSE.Payload)
			if b[i] == c {
				continue
			}
			b[i] = c
			s, err := envelope.ParseStatement(b)
			if err != nil {
				continue
			}
			if again, err := s.Marshal(); err != nil || !bytes.Equal(b, again) || cmp.Equal(s, e.Statement) {
				t.Fatalf("byte %d as %q: %v", i, c, err)
			}
		}
	}
}

// local is a second opinion: neither Unix nor Windows finds a way out in it.
func local(p string) bool {
	return filepath.IsLocal(p) && filepath.Clean(p) == p && !bytes.ContainsAny([]byte(p), "\\:\x00")
}
