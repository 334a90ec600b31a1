// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/pkg/mofn"
)

// FuzzParsePolicy: no text makes the parser panic or accept a policy that breaks its own promises.
func FuzzParsePolicy(f *testing.F) {
	r := newRing(f)
	keys := r.enrolled()
	f.Add(r.fill(basePolicy))
	files, err := filepath.Glob(filepath.Join(vectors, "*.policy"))
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := mofn.ParsePolicy(text, keys)
		if err != nil {
			if p != nil || !errors.Is(err, mofn.ErrPolicy) {
				t.Fatalf("%v, %v", p, err)
			}
			return
		}
		soundPolicy(t, p)
	})
}

// soundPolicy: every rule needs somebody, and nobody at all never meets it.
func soundPolicy(t *testing.T, p *mofn.Policy) {
	if len(p.Rules()) == 0 || len(p.Packers()) == 0 || p.Explain() == "" {
		t.Fatal("a policy without rules or packers")
	}
	for _, rule := range p.Rules() {
		stream := strings.TrimSuffix(rule.Pattern, "*")
		if stream != rule.Pattern {
			stream += "x"
		}
		if len(stream) > 128 {
			continue
		}
		progress, err := p.Progress(mofn.Release{Stream: stream}, nil, nil)
		if err != nil {
			t.Fatalf("stream %q: %v", stream, err)
		}
		if progress.Met || len(progress.Missing) == 0 {
			t.Fatalf("stream %q is released by nobody", stream)
		}
		for _, g := range progress.Groups {
			if g.Need < 1 || g.Need > len(g.Waiting) {
				t.Fatalf("group %+v", g)
			}
		}
	}
}

// FuzzParseTrust: what is accepted has exactly one form.
func FuzzParseTrust(f *testing.F) {
	trust := firstTrust(f, newRing(f))
	f.Add(marshal(f, trust))
	f.Add([]byte(`{"type":"sluice-trust-v1","version":1,"prev":"","root":"g","policy":"","keys":[],"links":[],"receivers":[],"epochs":[],"created":"2026-11-22T01:40:00Z"}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		got, err := mofn.ParseTrust(payload)
		if err != nil {
			if got != nil || !errors.Is(err, mofn.ErrTrust) {
				t.Fatalf("%v, %v", got, err)
			}
			return
		}
		if again, err := got.Marshal(); err != nil || !bytes.Equal(again, payload) {
			t.Fatalf("not written as read: %v", err)
		}
	})
}

func FuzzParsePublicFile(f *testing.F) {
	for _, suite := range suites() {
		b, err := newSecret(f, suite).MarshalPublic()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		suite, id, public, _, err := mofn.ParsePublicFile(b)
		if err == nil && mofn.NewKeyID(suite, public) != id {
			t.Fatal("id of another key")
		}
		if err != nil && !errors.Is(err, mofn.ErrKeyFile) {
			t.Fatal(err)
		}
	})
}

func FuzzOpenSecret(f *testing.F) {
	for _, suite := range suites() {
		b, err := newSecret(f, suite).Seal(nil, []byte("p"), cheap())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	limit := mofn.ScryptParams{N: 16, R: 2, P: 2}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := mofn.OpenSecretWithin(b, []byte("p"), limit)
		if err == nil && !bytes.Contains(b, []byte(s.ID().String())) {
			t.Fatal("a key that the file does not name")
		}
		if err != nil && !errors.Is(err, mofn.ErrKeyFile) && !errors.Is(err, mofn.ErrPassphrase) {
			t.Fatal(err)
		}
	})
}

// FuzzParseTokenKey: what is accepted has exactly one form.
func FuzzParseTokenKey(f *testing.F) {
	for _, suite := range []mofn.Suite{mofn.SuiteH1, mofn.SuiteH2} {
		b, err := newTokenKey(f, suite).Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := mofn.ParseTokenKey(b)
		if err != nil {
			if k != nil || !errors.Is(err, mofn.ErrKeyFile) {
				t.Fatalf("%v, %v", k, err)
			}
			return
		}
		again, err := k.Marshal()
		if err != nil || !bytes.Equal(bytes.TrimSuffix(again, []byte("\n")), bytes.TrimSuffix(b, []byte("\n"))) || !mofn.IsTokenKey(b) {
			t.Fatalf("not written as read: %v", err)
		}
	})
}

// FuzzSplitPAE: what is taken apart is put together again as it was.
func FuzzSplitPAE(f *testing.F) {
	f.Add(mofn.PAE(statementType, []byte("{}")))
	f.Add([]byte("DSSEv1 0  0 "))
	f.Add([]byte("DSSEv1 9223372036854775807 x 1 x"))
	f.Add([]byte("DSSEv1 01 x 1 x"))
	f.Add([]byte("DSSEv1 1 x 1 xy"))
	f.Add([]byte("DSSEv1 1 xx 1 x"))
	f.Add([]byte("DSSEv1 -1 x 1 x"))
	f.Fuzz(func(t *testing.T, message []byte) {
		kind, payload, ok := mofn.SplitPAE(message)
		if ok && !bytes.Equal(mofn.PAE(kind, payload), message) {
			t.Fatalf("%q, %q", kind, payload)
		}
	})
}
