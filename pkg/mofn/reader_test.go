// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/scrypt"

	"sluice/pkg/mofn"
)

// secondReader is written from the specification in another language and shares no code with this package.
const secondReader = "check_trust.py"

// keyFileVector is one entry of keyfiles.json; README.md there says what the fields mean.
type keyFileVector struct {
	Suite      mofn.Suite `json:"suite"`
	File       string     `json:"file"`
	Passphrase string     `json:"passphrase"`
	KDF        string     `json:"kdf_sha256"`
	Secret     string     `json:"secret"`
	Public     []byte     `json:"public"`
}

// vectorScrypt is cheap: the vectors pin the construction, their keys are public anyway.
func vectorScrypt() mofn.ScryptParams { return mofn.ScryptParams{N: 1024, R: 8, P: 1} }

// sealVector makes a vector. Salt and nonce follow from the suite, so that the file can be made again.
func sealVector(t *testing.T, suite mofn.Suite, secret []byte) keyFileVector {
	t.Helper()
	s, err := mofn.GenerateSecret(bytes.NewReader(secret), suite, "test key, public")
	if err != nil {
		t.Fatal(err)
	}
	fresh := sha256.Sum256([]byte("sluice test salt and nonce " + suite))
	// Neither ASCII only nor without a blank: the bytes of the passphrase count, in UTF-8.
	passphrase := "correct horse bätterie"
	file, err := s.Seal(bytes.NewReader(fresh[:]), []byte(passphrase), vectorScrypt())
	if err != nil {
		t.Fatal(err)
	}
	p := vectorScrypt()
	key, err := scrypt.Key([]byte(passphrase), fresh[:16], p.N, p.R, p.P, 32)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(key)
	return keyFileVector{
		Suite: suite, File: string(file), Passphrase: passphrase, KDF: hex.EncodeToString(sum[:]),
		Secret: hex.EncodeToString(s.Secret), Public: s.Public,
	}
}

// TestKeyFileVectors: the file is what this code makes (trust.md section 2), and opens to the expected secret.
func TestKeyFileVectors(t *testing.T) {
	alice := testRandom(mofn.SuiteH1, "alice")
	bob := testRandom(mofn.SuiteH2, "bob")
	link := sha256.Sum256([]byte("sluice test key link"))
	ticket := sha256.Sum256([]byte("sluice test key ticket site-a"))
	want, err := json.MarshalIndent([]keyFileVector{
		sealVector(t, mofn.SuiteH1, alice),
		sealVector(t, mofn.SuiteH2, bob),
		sealVector(t, mofn.SuiteLink, link[:]),
		sealVector(t, mofn.SuiteTicket, ticket[:]),
	}, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile(filepath.Join(vectors, "keyfiles.json"), want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := readVector(t, "keyfiles.json")
	if !bytes.Equal(got, want) {
		t.Error("keyfiles.json is not what this code seals: the form of key files has changed")
	}
	var cases []keyFileVector
	if err := json.Unmarshal(got, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(string(c.Suite), func(t *testing.T) { openVector(t, c) })
	}
}

// openVector opens the file, and does not with another passphrase, id or suite.
func openVector(t *testing.T, c keyFileVector) {
	s, err := mofn.OpenSecret([]byte(c.File), []byte(c.Passphrase))
	if err != nil {
		t.Fatal(err)
	}
	if s.Suite != c.Suite || hex.EncodeToString(s.Secret) != c.Secret || !bytes.Equal(s.Public, c.Public) {
		t.Errorf("opened another key: %v", s)
	}
	if !strings.Contains(c.File, `"id":"`+s.ID().String()+`"`) {
		t.Errorf("the file does not name %v", s.ID())
	}
	if _, err := mofn.OpenSecret([]byte(c.File), []byte(c.Passphrase+" ")); !errors.Is(err, mofn.ErrPassphrase) {
		t.Errorf("another passphrase: %v", err)
	}
	id := s.ID().String()
	other := strings.Replace(c.File, id, id[1:]+id[:1], 1) // the id is additional data of the seal
	if _, err := mofn.OpenSecret([]byte(other), []byte(c.Passphrase)); !errors.Is(err, mofn.ErrPassphrase) {
		t.Errorf("another id: %v", err)
	}
}

func python(t *testing.T) string {
	t.Helper()
	name, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here: the second reader of the trust vectors did NOT run")
	}
	return name
}

// runReader runs the second reader over a folder of vectors.
func runReader(t *testing.T, folder string) (string, error) {
	t.Helper()
	script := filepath.Join(vectors, secondReader)
	out, err := exec.CommandContext(t.Context(), python(t), "-B", script, folder).CombinedOutput()
	return string(out), err
}

// TestSecondReader: it comes to the same verdict on every vector, of a bad policy even on the same lines.
func TestSecondReader(t *testing.T) {
	out, err := runReader(t, vectors)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Log(out)
}

// TestSecondReaderCanFail spoils one vector at a time: a reader that says yes to everything is worth nothing.
func TestSecondReaderCanFail(t *testing.T) {
	python(t)
	for _, c := range []struct{ name, file, old, new, reason string }{
		{"fingerprint", "trust-1.json", `"comment":"alice"`, `"comment":"alicf"`, "fingerprint"},
		{"words", "trust-1.expect.json", `"infant"`, `"zoo"`, "words"},
		{"white space", "trust-1.json", `{"type":`, `{ "type":`, "not canonical"},
		{"key id", "trust-1.json", `"id":"1a3c`, `"id":"1a3d`, "key id"},
		{"link key id", "trust-1.json", `"id":"dbb8`, `"id":"dbb9`, "link key id"},
		{"order of keys", "trust-1.json", `"id":"1a3c`, `"id":"fa3c`, "sorted"},
		{"payload type", "trust-2.dsse.json", "sluice.trust.v1", "sluice.trust.v2", "payload type"},
		{"a good policy that is bad", "nested.good.policy", "group ab any", "group ab 3", "nested.good.policy"},
		{"a bad policy that is good", "threshold-above.bad.policy", "group security 4", "group security 2", "threshold-above"},
		{"another line", "threshold-above.bad.policy", "line 6", "line 7", "threshold-above"},
		{"a good ticket key that is bad", "ticket-key.good.json", `"ticket":"`, `"ticket":"AAAA`, "ticket-key.good.json"},
		{"a bad ticket key that is good", "ticket-empty.bad.json", `"ticket":"",`, ``, "ticket-empty.bad.json"},
		{"a good heartbeat key that is bad", "online-both.good.json", `"origin":"sluice/low/`, `"origin":"sluice/mid/`, "online-both.good.json"},
		{"a bad heartbeat key that is good", "online-heartbeats-empty.bad.json", `"heartbeats":[],`, ``, "online-heartbeats-empty.bad.json"},
		{"composite context", "composite.json", `"ctx": "VGhl`, `"ctx": "VGhm`, "composite"},
		{"composite context of H2", "composite-h2.json", `"ctx": "VGhl`, `"ctx": "VGhm`, "composite"},
		{"a good suite that is bad", "suites-mixed.good.json", `"suite":"H2"`, `"suite":"H3"`, "suites-mixed.good.json"},
		{"ECDSA half", "composite-h2.json", `RJWGdqUYmhT44=`, `RJWAdqUYmhT44=`, "classical half"},
		{"payload of both suites", "suites-mixed.next.json", `sluice.trust.v1`, `sluice.trust.v2`, "payload type"},
		{"passphrase", "keyfiles.json", "correct horse", "correct house", "scrypt"},
		{"sealed", "keyfiles.json", `sealed\":\"`, `sealed\":\"AAAA`, "section 2"},
		{"secret", "keyfiles.json", `"secret": "`, `"secret": "00`, "section 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := spoiltVectors(t, c.file, c.old, c.new)
			if out, err := runReader(t, dir); err == nil || !strings.Contains(out, c.reason) {
				t.Errorf("%v, without %q:\n%s", err, c.reason, out)
			}
		})
	}
}

// spoiltVectors copies the vectors and replaces text in one of them.
func spoiltVectors(t *testing.T, file, from, to string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(vectors)); err != nil {
		t.Fatal(err)
	}
	old := readVector(t, file)
	spoilt := bytes.Replace(old, []byte(from), []byte(to), 1)
	if bytes.Equal(old, spoilt) {
		t.Fatalf("%s has no %q", file, from)
	}
	if err := os.WriteFile(filepath.Join(dir, file), spoilt, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}
