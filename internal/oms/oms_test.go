// SPDX-License-Identifier: Apache-2.0

package oms_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/internal/oms"
)

var update = flag.Bool("update", false, "write the vectors of section 4 anew, but for the key")

const vectorDir = "../../testdata/vectors/oms"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(vectorDir, name))
	must(t, err)
	return b
}

// described is good.json.
type described struct {
	Name  string            `json:"name"`
	Files map[string]string `json:"files"` // path: digest
	Root  string            `json:"root"`
}

func (d described) list(t *testing.T) (files []oms.File) {
	t.Helper()
	for _, path := range slices.Sorted(maps.Keys(d.Files)) {
		sum, err := hex.DecodeString(d.Files[path])
		must(t, err)
		files = append(files, oms.File{Path: path, SHA256: [32]byte(sum)})
	}
	return files
}

func vector(t *testing.T) (d described, statement []byte, key *oms.Key) {
	t.Helper()
	must(t, json.Unmarshal(read(t, "good.json"), &d))
	key, err := oms.ParseKey(read(t, "key.pem"))
	must(t, err)
	statement, err = oms.Statement(d.Name, d.list(t))
	must(t, err)
	return d, statement, key
}

// TestVectorGood: the same statement has the same bundle, today and tomorrow.
func TestVectorGood(t *testing.T) {
	d, statement, key := vector(t)
	bundle, err := key.Sign(statement)
	must(t, err)
	if *update {
		must(t, os.WriteFile(filepath.Join(vectorDir, "good.sig"), bundle, 0o600))
		must(t, os.WriteFile(filepath.Join(vectorDir, "key.pub"), key.Public().PEM(), 0o600))
	}
	if !bytes.Equal(bundle, read(t, "good.sig")) {
		t.Error("good.sig is not what is made of good.json and key.pem; run with -update and look at the difference")
	}
	pub, err := oms.ParsePublicKey(read(t, "key.pub"))
	must(t, err)
	b, err := oms.Parse(read(t, "good.sig"))
	must(t, err)
	must(t, b.Verify(pub))
	if !bytes.Equal(b.Statement, statement) {
		t.Errorf("the statement is\n%s, want\n%s", b.Statement, statement)
	}
	root := sha256.New()
	for _, f := range d.list(t) {
		root.Write(f.SHA256[:])
	}
	if got := hex.EncodeToString(root.Sum(nil)); got != d.Root || !strings.Contains(string(statement), `"digest":{"sha256":"`+d.Root+`"}`) {
		t.Errorf("root digest %s, want %s in %s", got, d.Root, statement)
	}
}

// spoiled makes the bad vectors: what is done to the good bundle, and the error with its words.
func spoiled(good string) map[string]struct {
	data string
	err  error
	says string
} {
	type bad = struct {
		data string
		err  error
		says string
	}
	swap := func(old, with string) string {
		if strings.Count(good, old) != 1 {
			panic("the good vector has not exactly one " + old)
		}
		return strings.Replace(good, old, with, 1)
	}
	sig := good[strings.Index(good, `"sig":"`)+7:]
	sig = sig[:strings.IndexByte(sig, '"')]
	flipped := sig[:20] + map[bool]string{true: "B", false: "A"}[sig[20] == 'A'] + sig[21:]
	hint := good[strings.Index(good, `"hint":"`)+8:][:64]
	return map[string]bad{
		"media-type":    {swap("bundle.v0.3", "bundle.v0.2"), oms.ErrFormat, "types"},
		"payload-type":  {swap("vnd.in-toto", "vnd.in-tot0"), oms.ErrFormat, "types"},
		"two":           {swap(`"keyid":""}]`, `"keyid":""},{"sig":"`+sig+`","keyid":""}]`), oms.ErrFormat, "exactly one"},
		"none":          {swap(`[{"sig":"`+sig+`","keyid":""}]`, `[]`), oms.ErrFormat, "exactly one"},
		"keyid":         {swap(`"keyid":""`, `"keyid":"a"`), oms.ErrFormat, "exactly one"},
		"log-entry":     {swap(`"tlogEntries":[]`, `"tlogEntries":[{}]`), oms.ErrFormat, "log entries"},
		"no-list":       {swap(`"tlogEntries":[]`, `"tlogEntries":null`), oms.ErrFormat, "log entries"},
		"hint-short":    {swap(hint, hint[1:]), oms.ErrFormat, "hint"},
		"unknown":       {swap(`"dsseEnvelope":{`, `"dsseEnvelope":{"x":1,`), oms.ErrFormat, "one form"},
		"white-space":   {good + "\n", oms.ErrFormat, "one form"},
		"truncated":     {good[:len(good)-1], oms.ErrFormat, "unexpected end"},
		"other-key":     {swap(hint, strings.Repeat("0", 64)), oms.ErrSignature, "names the key 0000"},
		"signature":     {swap(sig, flipped), oms.ErrSignature, "bad model signature"},
		"statement":     {swap(`"payload":"eyJ`, `"payload":"eyB`), oms.ErrSignature, "bad model signature"},
		"empty-payload": {swap(good[strings.Index(good, `"payload":"`):strings.Index(good, `,"payloadType"`)], `"payload":""`), oms.ErrSignature, "bad model signature"},
	}
}

func TestVectorsBad(t *testing.T) {
	pub, err := oms.ParsePublicKey(read(t, "key.pub"))
	must(t, err)
	words := map[string]string{}
	for name, bad := range spoiled(string(read(t, "good.sig"))) {
		file := "bad-" + name + ".sig"
		words[file] = bad.says
		if *update {
			must(t, os.WriteFile(filepath.Join(vectorDir, file), []byte(bad.data), 0o600))
		}
		data := read(t, file)
		if string(data) != bad.data {
			t.Errorf("%s is not what this test makes", file)
		}
		b, err := oms.Parse(data)
		if err == nil {
			err = b.Verify(pub)
		}
		if !errors.Is(err, bad.err) || !strings.Contains(err.Error(), bad.says) {
			t.Errorf("%s: %v, want %v with %q", file, err, bad.err, bad.says)
		}
	}
	text, err := json.MarshalIndent(words, "", " ")
	must(t, err)
	if *update {
		must(t, os.WriteFile(filepath.Join(vectorDir, "bad.json"), append(text, '\n'), 0o600))
	}
	if string(read(t, "bad.json")) != string(text)+"\n" {
		t.Error("bad.json is not what this test makes")
	}
	files, err := filepath.Glob(filepath.Join(vectorDir, "bad-*.sig"))
	must(t, err)
	if len(files) != len(words) {
		t.Errorf("%d bad vectors, %d are expected", len(files), len(words))
	}
}

func TestStatementRefuses(t *testing.T) {
	for name, files := range map[string][]oms.File{
		"no file": nil, "unsorted": {{Path: "b"}, {Path: "a"}}, "twice": {{Path: "a"}, {Path: "a"}},
	} {
		if _, err := oms.Statement("m", files); !errors.Is(err, oms.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := oms.Statement("", []oms.File{{Path: "a"}}); !errors.Is(err, oms.ErrFormat) {
		t.Errorf("no name: %v", err)
	}
}

func TestGenerateKey(t *testing.T) {
	private, public, err := oms.GenerateKey()
	must(t, err)
	key, err := oms.ParseKey(private)
	must(t, err)
	if !bytes.Equal(key.Public().PEM(), public) {
		t.Error("the public file is not the private key's")
	}
	other, err := oms.ParsePublicKey(read(t, "key.pub"))
	must(t, err)
	statement, err := oms.Statement("m", []oms.File{{Path: "a"}})
	must(t, err)
	signed, err := key.Sign(statement)
	must(t, err)
	b, err := oms.Parse(signed)
	must(t, err)
	must(t, b.Verify(key.Public()))
	if err := b.Verify(other); !errors.Is(err, oms.ErrSignature) {
		t.Errorf("under another key: %v", err)
	}
}

// keyFile makes PEM text.
func keyFile(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

func TestParseKeyRefuses(t *testing.T) {
	good, public := string(read(t, "key.pem")), string(read(t, "key.pub"))
	small, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	p256, err := x509.MarshalPKCS8PrivateKey(small)
	must(t, err)
	sec1, err := x509.MarshalECPrivateKey(small)
	must(t, err)
	edPublic, ed, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	edDER, err := x509.MarshalPKCS8PrivateKey(ed)
	must(t, err)
	edPub, err := x509.MarshalPKIXPublicKey(edPublic)
	must(t, err)
	p256Pub, err := x509.MarshalPKIXPublicKey(&small.PublicKey)
	must(t, err)
	for _, c := range []struct{ name, text, says string }{
		{"empty", "", "no PEM"},
		{"a public key", public, `PEM block "PUBLIC KEY"`},
		{"two", good + good, "more than one"},
		{"text behind", good + "x", "more than one"},
		{"SEC 1", keyFile("EC PRIVATE KEY", sec1), "openssl pkcs8 -topk8"},
		{"encrypted", keyFile("ENCRYPTED PRIVATE KEY", p256), "encrypted"},
		{"P-256", keyFile("PRIVATE KEY", p256), "curve P-256, not P-384"},
		{"Ed25519", keyFile("PRIVATE KEY", edDER), "not ECDSA"},
		{"rubbish", keyFile("PRIVATE KEY", []byte("x")), "asn1"},
	} {
		if _, err := oms.ParseKey([]byte(c.text)); !errors.Is(err, oms.ErrKey) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
	for _, c := range []struct{ name, text, says string }{
		{"a private key", good, `PEM block "PRIVATE KEY"`},
		{"P-256", keyFile("PUBLIC KEY", p256Pub), "curve P-256, not P-384"},
		{"Ed25519", keyFile("PUBLIC KEY", edPub), "not ECDSA"},
		{"rubbish", keyFile("PUBLIC KEY", []byte("x")), "asn1"},
	} {
		if _, err := oms.ParsePublicKey([]byte(c.text)); !errors.Is(err, oms.ErrKey) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("public, %s: %v, want %q", c.name, err, c.says)
		}
	}
}

// FuzzParse: what is accepted has one form, and verifies only as it was signed.
func FuzzParse(f *testing.F) {
	good, err := os.ReadFile(filepath.Join(vectorDir, "good.sig"))
	if err != nil {
		f.Fatal(err)
	}
	public, err := os.ReadFile(filepath.Join(vectorDir, "key.pub"))
	if err != nil {
		f.Fatal(err)
	}
	key, err := oms.ParsePublicKey(public)
	if err != nil {
		f.Fatal(err)
	}
	original, err := oms.Parse(good)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, bad := range spoiled(string(good)) {
		f.Add([]byte(bad.data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := oms.Parse(data)
		if err != nil {
			if !errors.Is(err, oms.ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		if err := b.Verify(key); err == nil && !bytes.Equal(b.Statement, original.Statement) {
			t.Fatalf("verifies another statement: %q", b.Statement)
		} else if err != nil && !errors.Is(err, oms.ErrSignature) {
			t.Fatal(err)
		}
	})
}
