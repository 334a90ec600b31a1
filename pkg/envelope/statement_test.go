// SPDX-License-Identifier: Apache-2.0

package envelope_test

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/envelope"
)

type statement = envelope.Statement

// rule is one rule broken: what the change breaks, and the class of the refusal.
type rule struct {
	name   string
	want   error
	change func(s *statement)
}

// lineRules: types, files, and the place in the line of succession.
func lineRules() []rule {
	return []rule{
		{"section 4/_type", envelope.ErrVersion, func(s *statement) { s.Type = "https://in-toto.io/Statement/v2" }},
		{"section 4/predicateType", envelope.ErrVersion, func(s *statement) { s.PredicateType = "urn:sluice:release:v2" }},
		{"section 4/predicateType of an approval", envelope.ErrVersion, func(s *statement) { s.PredicateType = envelope.PredicateTypeApproval }},
		{"section 4/subject/none", envelope.ErrFormat, func(s *statement) { s.Subjects = []envelope.Subject{} }},
		{"section 4/subject/not sorted", envelope.ErrFormat, func(s *statement) { s.Subjects[0], s.Subjects[1] = s.Subjects[1], s.Subjects[0] }},
		{"section 4/subject/twice", envelope.ErrFormat, func(s *statement) { s.Subjects[1] = s.Subjects[0] }},
		{"section 4/subject/bad path", envelope.ErrFormat, func(s *statement) { s.Subjects[0].Name = "../a" }},
		{"section 4/subject/negative size", envelope.ErrFormat, func(s *statement) { s.Subjects[0].Annotations.Size = -1 }},
		{"section 4/subject/size 2^53", envelope.ErrFormat, func(s *statement) { s.Subjects[0].Annotations.Size = 1 << 53 }},
		{"section 4/subject/sizes overflow", envelope.ErrFormat, func(s *statement) {
			s.Subjects[0].Annotations.Size, s.Subjects[1].Annotations.Size = 1<<53-1, 1<<53-1
		}},
		{"section 1/index over 64 MiB", envelope.ErrFormat, func(s *statement) { s.Subjects[0].Annotations.Size = 3 << 40 }},
		{"section 4/stream/empty", envelope.ErrFormat, func(s *statement) { s.Predicate.Stream = "" }},
		{"section 4/stream/upper case", envelope.ErrFormat, func(s *statement) { s.Predicate.Stream = "Models" }},
		{"section 4/stream/dot dot", envelope.ErrFormat, func(s *statement) { s.Predicate.Stream = "a/../b" }},
		{"section 4/stream/double slash", envelope.ErrFormat, func(s *statement) { s.Predicate.Stream = "a//b" }},
		{"section 4/stream/trailing slash", envelope.ErrFormat, func(s *statement) { s.Predicate.Stream = "a/" }},
		{"section 4/stream/leading slash", envelope.ErrFormat, func(s *statement) { s.Predicate.Stream = "/a" }},
		{"section 4/stream/leading dot", envelope.ErrFormat, func(s *statement) { s.Predicate.Stream = ".a" }},
		{"section 4/stream/129 bytes", envelope.ErrFormat, func(s *statement) { s.Predicate.Stream = strings.Repeat("a", 129) }},
		{"section 4/epoch/negative", envelope.ErrFormat, func(s *statement) { s.Predicate.Epoch = -1 }},
		{"section 4/epoch/2^53", envelope.ErrFormat, func(s *statement) { s.Predicate.Epoch = 1 << 53 }},
		{"section 4/seq/0", envelope.ErrFormat, func(s *statement) { s.Predicate.Seq = 0 }},
		{"section 4/seq/2^53", envelope.ErrFormat, func(s *statement) { s.Predicate.Seq = 1 << 53 }},
		{"section 4/seq/max", envelope.ErrFormat, func(s *statement) { s.Predicate.Seq = math.MaxInt64 }},
		{"section 4/prev/short", envelope.ErrFormat, func(s *statement) { s.Predicate.Prev = "ab" }},
		{"section 4/prev/upper case", envelope.ErrFormat, func(s *statement) { s.Predicate.Prev = strings.Repeat("AB", 32) }},
		{"section 4/prev/not hex", envelope.ErrFormat, func(s *statement) { s.Predicate.Prev = strings.Repeat("zz", 32) }},
		{"section 4/kind", envelope.ErrFormat, func(s *statement) { s.Predicate.Kind = "malware" }},
		{"section 4/name/empty", envelope.ErrFormat, func(s *statement) { s.Predicate.Name = "" }},
		{"section 4/name/slash", envelope.ErrFormat, func(s *statement) { s.Predicate.Name = "a/b" }},
		{"section 4/name/leading dash", envelope.ErrFormat, func(s *statement) { s.Predicate.Name = "-a" }},
		{"section 4/name/129 bytes", envelope.ErrFormat, func(s *statement) { s.Predicate.Name = strings.Repeat("a", 129) }},
		{"section 4/version/empty", envelope.ErrFormat, func(s *statement) { s.Predicate.Version = "" }},
		{"section 4/version/129 bytes", envelope.ErrFormat, func(s *statement) { s.Predicate.Version = strings.Repeat("1", 129) }},
		{"section 4/version/control", envelope.ErrFormat, func(s *statement) { s.Predicate.Version = "1\n" }},
		{"section 4/version/not ASCII", envelope.ErrFormat, func(s *statement) { s.Predicate.Version = "1é" }},
	}
}

// originRules: source, verdicts, evidence.
func originRules() []rule {
	return []rule{
		{"section 4/source/type", envelope.ErrFormat, func(s *statement) { s.Predicate.Source.Type = "ftp" }},
		{"head/source/not NFC", envelope.ErrFormat, func(s *statement) { s.Predicate.Source.Repo = "e\u0301" }},
		{"head/base/not NFC", envelope.ErrFormat, func(s *statement) { s.Predicate.Base = &envelope.Base{Repo: "e\u0301"} }},
		{"section 4/quantization/negative bits", envelope.ErrFormat, func(s *statement) { s.Predicate.Quantization = &envelope.Quantization{Bits: -1} }},
		{"section 4/quantization/group 2^53", envelope.ErrFormat, func(s *statement) { s.Predicate.Quantization = &envelope.Quantization{GroupSize: 1 << 53} }},
		{"section 4/gate/verdict", envelope.ErrFormat, func(s *statement) { s.Predicate.Gate.Verdict = "PASS" }},
		{"section 4/gate/exception without reason", envelope.ErrFormat, func(s *statement) { s.Predicate.Gate.Verdict = "exception" }},
		{"section 4/inspection/exception", envelope.ErrFormat, func(s *statement) { s.Predicate.Inspection.Verdict = "exception" }},
		{"section 4/evidence/not sorted", envelope.ErrFormat, func(s *statement) {
			s.Predicate.Evidence = []envelope.EvidenceRef{{Name: "b"}, {Name: "a"}}
		}},
		{"section 4/evidence/twice", envelope.ErrFormat, func(s *statement) {
			s.Predicate.Evidence = []envelope.EvidenceRef{{Name: "a"}, {Name: "a"}}
		}},
		{"section 1/evidence/name", envelope.ErrFormat, func(s *statement) { s.Predicate.Evidence = []envelope.EvidenceRef{{Name: "../x"}} }},
		{"section 1/evidence/17", envelope.ErrFormat, func(s *statement) {
			for i := range 17 {
				s.Predicate.Evidence = append(s.Predicate.Evidence, envelope.EvidenceRef{Name: fmt.Sprintf("z%02d", i)})
			}
		}},
		{"section 1/evidence/over 32 MiB", envelope.ErrFormat, func(s *statement) { s.Predicate.Evidence = []envelope.EvidenceRef{{Name: "a", Size: 32<<20 + 1}} }},
		{"section 1/evidence/over 48 MiB together", envelope.ErrFormat, func(s *statement) {
			s.Predicate.Evidence = []envelope.EvidenceRef{{Name: "a", Size: 32 << 20}, {Name: "b", Size: 16<<20 + 1}}
		}},
	}
}

// validityRules: times, audience, label, content index.
func validityRules() []rule {
	return []rule{
		{"section 4/created/zone", envelope.ErrFormat, func(s *statement) { s.Predicate.Created = "2026-01-31T00:00:00+00:00" }},
		{"section 4/created/fraction", envelope.ErrFormat, func(s *statement) { s.Predicate.Created = "2026-01-31T00:00:00.0Z" }},
		{"section 4/created/no such day", envelope.ErrFormat, func(s *statement) { s.Predicate.Created = "2026-02-30T00:00:00Z" }},
		{"section 4/created/small t", envelope.ErrFormat, func(s *statement) { s.Predicate.Created = "2026-01-31t00:00:00Z" }},
		{"section 4/created/short", envelope.ErrFormat, func(s *statement) { s.Predicate.Created = "2026-1-31T0:00:00Z" }},
		{"section 4/created/leap second", envelope.ErrFormat, func(s *statement) { s.Predicate.Created = "2016-12-31T23:59:60Z" }},
		{"section 4/expires/bad", envelope.ErrFormat, func(s *statement) { s.Predicate.Expires = "never" }},
		{"section 4/expires/equal", envelope.ErrFormat, func(s *statement) { s.Predicate.Expires = s.Predicate.Created }},
		{"section 4/expires/before", envelope.ErrFormat, func(s *statement) { s.Predicate.Expires = "2025-01-31T00:00:00Z" }},
		{"section 4/audience/none", envelope.ErrFormat, func(s *statement) { s.Predicate.Audience = []string{} }},
		{"section 4/audience/not sorted", envelope.ErrFormat, func(s *statement) { s.Predicate.Audience = []string{"b", "a"} }},
		{"section 4/audience/twice", envelope.ErrFormat, func(s *statement) { s.Predicate.Audience = []string{"a", "a"} }},
		{"section 4/audience/name", envelope.ErrFormat, func(s *statement) { s.Predicate.Audience = []string{"*"} }},
		{"section 4/audience/65 bytes", envelope.ErrFormat, func(s *statement) { s.Predicate.Audience = []string{strings.Repeat("a", 65)} }},
		{"section 1/audience/4097", envelope.ErrFormat, func(s *statement) {
			s.Predicate.Audience = nil
			for i := range envelope.MaxAudience + 1 {
				s.Predicate.Audience = append(s.Predicate.Audience, fmt.Sprintf("r%05d", i))
			}
		}},
		{"section 4/classification/empty", envelope.ErrFormat, func(s *statement) { s.Predicate.Classification = "" }},
		{"section 4/classification/65 bytes", envelope.ErrFormat, func(s *statement) { s.Predicate.Classification = strings.Repeat("S", 65) }},
		{"section 4/classification/not ASCII", envelope.ErrFormat, func(s *statement) { s.Predicate.Classification = "SECRÉT" }},
		{"section 5/content_index/block size", envelope.ErrFormat, func(s *statement) { s.Predicate.ContentIndex.BlockSize = 1 << 19 }},
	}
}

// computedRules: fields that follow from others, and so are not computed anew after the change.
func computedRules() []rule {
	return []rule{
		{"section 4/total_size", envelope.ErrDigest, func(s *statement) { s.Predicate.TotalSize++ }},
		{"section 5/content_index/blocks", envelope.ErrFormat, func(s *statement) { s.Predicate.ContentIndex.Blocks++ }},
		{"section 5/content_index/size", envelope.ErrFormat, func(s *statement) { s.Predicate.ContentIndex.Size++ }},
		{"section 6/directory_digest", envelope.ErrDigest, func(s *statement) { s.Predicate.DirectoryDigest[31] ^= 1 }},
		{"section 6/file digest", envelope.ErrDigest, func(s *statement) { s.Subjects[0].Digest.SHA256[0] ^= 1 }},
	}
}

// TestStatementRules breaks one rule of sections 1, 4 and 6 at a time. The writer must refuse it, and so must the
// parser when another writer sends it.
func TestStatementRules(t *testing.T) {
	good, _ := build(t, payload("a", "1", "b/c", "22", "b/d", ""), predicate())
	check := func(t *testing.T, s *statement, want error) {
		_, err := s.Marshal()
		refused(t, err, want)
		_, err = envelope.ParseStatement(unchecked(t, s))
		refused(t, err, want)
	}
	for _, tt := range slices.Concat(lineRules(), originRules(), validityRules()) {
		t.Run(tt.name, func(t *testing.T) {
			s := clone(good)
			tt.change(s)
			recompute(s)
			check(t, s, tt.want)
		})
	}
	for _, tt := range computedRules() {
		t.Run(tt.name, func(t *testing.T) {
			s := clone(good)
			tt.change(s)
			check(t, s, tt.want)
		})
	}
}

// TestStatementAccepts is the other half of the table: the values at the edge of each rule.
func TestStatementAccepts(t *testing.T) {
	tests := map[string]func(s *statement){
		"section 4/as built":         func(*statement) {},
		"section 4/stream/128 bytes": func(s *statement) { s.Predicate.Stream = "0" + strings.Repeat("a/", 63) + "a" },
		"section 4/seq/2^53-1":       func(s *statement) { s.Predicate.Seq, s.Predicate.Epoch = 1<<53-1, 1<<53-1 },
		"section 4/prev":             func(s *statement) { s.Predicate.Prev = strings.Repeat("ab", 32) },
		"section 4/version/blanks":   func(s *statement) { s.Predicate.Version = ` ~"\<` },
		"section 4/expires/1 s":      func(s *statement) { s.Predicate.Expires = "2026-01-31T00:00:01Z" },
		"section 4/leap day":         func(s *statement) { s.Predicate.Expires = "2028-02-29T00:00:00Z" },
		"section 4/gate/exception":   func(s *statement) { s.Predicate.Gate = envelope.Gate{Verdict: "exception", Reason: "x"} },
		"section 4/base":             func(s *statement) { s.Predicate.Base = &envelope.Base{} },
		"section 4/quantization":     func(s *statement) { s.Predicate.Quantization = &envelope.Quantization{} },
		"section 1/index of 64 MiB":  func(s *statement) { s.Subjects[0].Annotations.Size = ((64<<20-24)/32 - 1) << 20 },
		"section 1/evidence/48 MiB": func(s *statement) {
			s.Predicate.Evidence = []envelope.EvidenceRef{{Name: "a", Size: 32 << 20}, {Name: "b", Size: 16 << 20}}
		},
		"section 3/every ASCII character in a text": func(s *statement) {
			for c := range rune(0x80) {
				s.Predicate.Gate.Reason += string(c)
			}
		},
		"section 3/separators, astral, replacement": func(s *statement) { s.Predicate.Gate.Reason = "\u2028\u2029\u202a\U0001f512\ufffd" },
	}
	for _, k := range []envelope.Kind{
		"model-weights", "software-package", "container-images", "dataset", "policy-update",
		"certificate-rotation", "license", "trust-update", "revocation",
	} {
		tests["section 4/kind/"+string(k)] = func(s *statement) { s.Predicate.Kind = k }
	}
	good, _ := build(t, payload("a", "1", "b/c", "22"), predicate())
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			s := clone(good)
			change(s)
			recompute(s)
			b, err := s.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			if other := unchecked(t, s); !bytes.Equal(b, other) {
				t.Fatalf("encoding/json disagrees:\n%s\n%s", b, other)
			}
			back, err := envelope.ParseStatement(b)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(s, back); d != "" {
				t.Fatal(d)
			}
		})
	}
}

// trick replaces a piece of a good statement.
type trick struct{ name, old, new string }

// structureTricks: keys, null, numbers.
func structureTricks() []trick {
	return []trick{
		{"duplicate key", `"seq":1`, `"seq":9,"seq":1`},
		{"duplicate key, same value", `"seq":1`, `"seq":1,"seq":1`},
		{"key in other case", `"seq"`, `"Seq"`},
		{"unknown key", `"seq":1`, `"seq":1,"x":1`},
		{"missing key", `"epoch":0,`, ``},
		{"keys in other order", `"epoch":0,"seq":1`, `"seq":1,"epoch":0`},
		{"escaped key", `"seq"`, `"s\u0065q"`},
		{"null list", `"evidence":[]`, `"evidence":null`},
		{"null object", `"gate":{"verdict":"pass","reason":""}`, `"gate":null`},
		{"null string", `"prev":""`, `"prev":null`},
		{"null number", `"epoch":0`, `"epoch":null`},
		{"null optional", `"gate":`, `"base":null,"gate":`},
		{"object for a list", `"evidence":[]`, `"evidence":{}`},
		{"string for a number", `"seq":1`, `"seq":"1"`},
		{"float", `"seq":1`, `"seq":1.0`},
		{"exponent", `"seq":1`, `"seq":1e0`},
		{"negative zero", `"epoch":0`, `"epoch":-0`},
		{"negative", `"epoch":0`, `"epoch":-1`},
		{"leading zero", `"seq":1`, `"seq":01`},
		{"plus", `"seq":1`, `"seq":+1`},
		{"empty number", `"seq":1`, `"seq":`},
		{"2^53", `"seq":1`, `"seq":9007199254740992`},
		{"2^63", `"seq":1`, `"seq":9223372036854775808`},
		{"2^64 + 1", `"seq":1`, `"seq":18446744073709551617`},
		{"200 digits", `"seq":1`, `"seq":` + strings.Repeat("1", 200)},
		{"true", `"seq":1`, `"seq":true`},
	}
}

// textTricks: white space, escapes, UTF-8, lists.
func textTricks() []trick {
	return []trick{
		{"white space", `"seq":1`, `"seq": 1`},
		{"newline between", `,"predicate":`, ",\n\"predicate\":"},
		{"HTML escape", `b<`, `b\u003c`},
		{"needless escape", `"1.0"`, `"1\u002e0"`},
		{"escaped slash", `models/llm`, `models\/llm`},
		{"upper-case escape", `"reason":""`, `"reason":"\u001F"`},
		{"long escape of newline", `"reason":""`, `"reason":"\u000a"`},
		{"raw newline in string", `"reason":""`, "\"reason\":\"\n\""},
		{"raw U+2028", `"reason":""`, "\"reason\":\"\u2028\""},
		{"raw U+0000", `"reason":""`, "\"reason\":\"\x00\""},
		{"surrogate pair escape", `"reason":""`, `"reason":"\ud83d\udd12"`},
		{"lone surrogate", `"reason":""`, `"reason":"\ud83d"`},
		{"unknown escape", `"reason":""`, `"reason":"\x"`},
		{"cut escape", `"reason":""`, `"reason":"\u00"`},
		{"escaped end", `"reason":""`, `"reason":"\"`},
		{"invalid UTF-8", `"reason":""`, "\"reason\":\"\xff\""},
		{"overlong UTF-8", `"reason":""`, "\"reason\":\"\xc0\xaf\""},
		{"UTF-8 surrogate", `"reason":""`, "\"reason\":\"\xed\xa0\x80\""},
		{"invalid UTF-8 in a path", `"a"`, "\"a\xff\""},
		{"second digest algorithm", `"digest":{`, `"digest":{"md5":"",`},
		{"comma at the end of a list", `["enclave-1"]`, `["enclave-1",]`},
		{"comma at the head of a list", `["enclave-1"]`, `[,"enclave-1"]`},
		{"no comma in a list", `["enclave-1"]`, `["enclave-1""f"]`},
		{"list not closed", `["enclave-1"]`, `["enclave-1"`},
		{"comment", `"seq":1`, `"seq":1/**/`},
	}
}

// TestStatementCanonical feeds the tricks of JSON. All of them fall to the one rule of section 3.
func TestStatementCanonical(t *testing.T) {
	s, _ := build(t, payload("a", "1", "b<", "22"), predicate())
	good := string(must[[]byte](t)(s.Marshal()))
	hash := s.Subjects[0].Digest.SHA256.String()
	digests := []trick{
		{"upper-case digest", hash, strings.ToUpper(hash)},
		{"short digest", hash, "ab"},
		{"digest not hex", hash, strings.Repeat("zz", 32)},
	}
	for _, tt := range slices.Concat(structureTricks(), textTricks(), digests) {
		t.Run("section 3/"+tt.name, func(t *testing.T) {
			if strings.Count(good, tt.old) == 0 {
				t.Fatalf("%q is not in the statement", tt.old)
			}
			_, err := envelope.ParseStatement([]byte(strings.Replace(good, tt.old, tt.new, 1)))
			refused(t, err, envelope.ErrFormat)
		})
	}
	whole := map[string]string{
		"empty": "", "null": "null", "list": "[" + good + "]", "trailing newline": good + "\n",
		"trailing space": good + " ", "trailing object": good + good, "leading space": " " + good, "BOM": "\ufeff" + good,
		"UTF-16": "\xff\xfe{\x00",
	}
	for name, b := range whole {
		t.Run("section 3/"+name, func(t *testing.T) {
			_, err := envelope.ParseStatement([]byte(b))
			refused(t, err, envelope.ErrFormat)
		})
	}
}

// TestStatementTruncated: E4 for the statement alone.
func TestStatementTruncated(t *testing.T) {
	e, _ := full(t)
	for n := range e.DSSE.Payload {
		if _, err := envelope.ParseStatement(e.DSSE.Payload[:n]); err == nil {
			t.Fatalf("accepted the first %d bytes", n)
		}
	}
}

// TestMarshalReadsOnly: writing leaves the struct as it is, a nil list included, so that two goroutines may write it.
func TestMarshalReadsOnly(t *testing.T) {
	s, _ := build(t, payload("a", "1"), predicate())
	s.Predicate.Evidence = nil
	b := must[[]byte](t)(s.Marshal())
	if s.Predicate.Evidence != nil || !bytes.Contains(b, []byte(`"evidence":[]`)) {
		t.Fatalf("nil list: %v, %s", s.Predicate.Evidence, b)
	}
}

func TestDigestText(t *testing.T) {
	d := envelope.ID([]byte("abc"))
	const want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" // FIPS 180-2, B.1
	if d.String() != want {
		t.Fatalf("got %s", d)
	}
	var back envelope.Digest
	if err := back.UnmarshalText([]byte(want)); err != nil || back != d {
		t.Fatalf("got %s, %v", back, err)
	}
	for _, bad := range []string{"", want[1:], want + "0", strings.ToUpper(want), "0x" + want[2:], " " + want[1:], want[:63] + "\n"} {
		_, err := envelope.ParseDigest(bad)
		refused(t, err, envelope.ErrFormat)
	}
}

// TestDirectoryDigest pins section 6 by hand: SHA3-256 of two lines.
func TestDirectoryDigest(t *testing.T) {
	subjects := []envelope.Subject{{
		Name: "a", Digest: envelope.DigestSet{SHA256: envelope.ID([]byte("abc"))},
		Annotations: envelope.Annotations{Size: 3},
	}}
	// printf 'sluice-directory-v1\nba78...15ad 3 a\n' | openssl dgst -sha3-256
	const want = "8f69a8a75dba9f4342813f0075e58e913b0c946338d3aa16e68966c00e793d11"
	if got := envelope.DirectoryDigest(subjects).String(); got != want {
		t.Fatalf("got %s", got)
	}
}
