// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/pkg/mofn"
)

// tokenKeyVector is one entry of tokenkeys.json; README.md there says what the fields mean.
type tokenKeyVector struct {
	Suite mofn.Suite `json:"suite"`
	File  string     `json:"file"`
	Key   string     `json:"wrapping_key"`
	Seed  string     `json:"seed"`
}

// wrapping is the AES key that a token would hold.
func wrapping(t testing.TB, suite mofn.Suite) ([]byte, cipher.AEAD) {
	t.Helper()
	key := sha256.Sum256([]byte("sluice test wrapping key " + suite))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return key[:], aead
}

// newTokenKey is the key of alice (H1) or bob (H2) as a token would hold it.
func newTokenKey(t testing.TB, suite mofn.Suite) *mofn.TokenKey {
	t.Helper()
	name := map[mofn.Suite]string{mofn.SuiteH1: "alice", mofn.SuiteH2: "bob"}[suite]
	random := testRandom(suite, name)
	s, err := mofn.GenerateSecret(bytes.NewReader(random), suite, "test key, public")
	if err != nil {
		t.Fatal(err)
	}
	nonce := sha256.Sum256([]byte("sluice test token nonce " + suite))
	k := &mofn.TokenKey{
		Suite: suite, Public: s.Public, Nonce: nonce[:12], Comment: s.Comment,
		Token: "pkcs11:token=officer-1;serial=1234;id=%00%01%02%03%04%05%06%07%08%09%0A%0B%0C%0D%0E%0F?module-path=/usr/lib/softhsm/libsofthsm2.so",
	}
	_, aead := wrapping(t, suite)
	k.Wrapped = aead.Seal(nil, k.Nonce, random[:mofn.SeedSize], k.AdditionalData())
	return k
}

// TestTokenKeyVectors: the file is what this code makes (trust.md section 2, Keys in a token), and reads as it was written.
func TestTokenKeyVectors(t *testing.T) {
	var cases []tokenKeyVector
	for suite, name := range map[mofn.Suite]string{mofn.SuiteH1: "alice", mofn.SuiteH2: "bob"} {
		file, err := newTokenKey(t, suite).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		key, _ := wrapping(t, suite)
		cases = append(cases, tokenKeyVector{suite, string(file), hex.EncodeToString(key), hex.EncodeToString(testRandom(suite, name)[:mofn.SeedSize])})
	}
	if cases[0].Suite != mofn.SuiteH1 {
		cases[0], cases[1] = cases[1], cases[0]
	}
	want, err := json.MarshalIndent(cases, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	want = append(want, '\n')
	if *update {
		if err := os.WriteFile(filepath.Join(vectors, "tokenkeys.json"), want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := readVector(t, "tokenkeys.json")
	if !bytes.Equal(got, want) {
		t.Error("tokenkeys.json is not what this code writes: the form of token key files has changed")
	}
	cases = nil
	if err := json.Unmarshal(got, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		k, err := mofn.ParseTokenKey([]byte(c.File))
		if err != nil {
			t.Fatal(err)
		}
		_, aead := wrapping(t, c.Suite)
		seed, err := aead.Open(nil, k.Nonce, k.Wrapped, k.AdditionalData())
		if err != nil || hex.EncodeToString(seed) != c.Seed {
			t.Errorf("%s: unwrapped %x, %v", c.Suite, seed, err)
		}
	}
}

// TestTokenKeyRefuses: each rule of the file, broken by itself.
func TestTokenKeyRefuses(t *testing.T) {
	file, err := newTokenKey(t, mofn.SuiteH1).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	other, err := newTokenKey(t, mofn.SuiteH2).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	id := newTokenKey(t, mofn.SuiteH1).ID().String()
	nonce := string(file[bytes.Index(file, []byte(`"nonce":"`))+9:][:16])
	for name, c := range map[string]struct{ old, new, want string }{
		"another id":         {id, id[1:] + id[:1], "the file says"},
		"suite of another":   {`"suite":"H1"`, `"suite":"H2"`, "key"},
		"suite of a link":    {`"suite":"H1"`, `"suite":"ED25519-LINK"`, "does not sign statements"},
		"another wrap":       {"AES-256-GCM", "AES-KWP", `wrap is "AES-KWP"`},
		"short nonce":        {nonce, nonce[:12], "nonce of 9 bytes"},
		"short wrapped":      {`"wrapped":"`, `"wrapped":"AAAA","x":"`, "unknown field"},
		"another scheme":     {"pkcs11:", "https:", "pkcs11: URI"},
		"blank in the URI":   {"officer-1", "officer 1", "pkcs11: URI"},
		"long URI":           {"officer-1", strings.Repeat("o", 1024), "at most 1024"},
		"another type":       {"sluice-token-key-v1", "sluice-token-key-v2", "type is"},
		"twice":              {`,"wrap"`, `,"token":"pkcs11:","wrap"`, "canonical"},
		"control in comment": {"test key, public", `test\u0007`, "comment"},
		"a private file's":   {`"wrap":"AES-256-GCM"`, `"kdf":"scrypt"`, "unknown field"},
	} {
		spoilt := strings.Replace(string(file), c.old, c.new, 1)
		if spoilt == string(file) {
			t.Fatalf("%s: nothing replaced", name)
		}
		if _, err := mofn.ParseTokenKey([]byte(spoilt)); !errors.Is(err, mofn.ErrKeyFile) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := mofn.OpenSecret(file, []byte("p")); !errors.Is(err, mofn.ErrKeyFile) {
		t.Errorf("read as a sealed key: %v", err)
	}
	if !mofn.IsTokenKey(file) || !mofn.IsTokenKey(other) || mofn.IsTokenKey([]byte(`{"type":"sluice-private-key-v1",`)) {
		t.Error("told by its type wrongly")
	}
}

// TestTokenKeyPublic: the .pub file of a token key is that of any other key, and its classical half is the end of it.
func TestTokenKeyPublic(t *testing.T) {
	for suite, size := range map[mofn.Suite]int{mofn.SuiteH1: 32, mofn.SuiteH2: 97} {
		k := newTokenKey(t, suite)
		file, err := k.MarshalPublic()
		if err != nil {
			t.Fatal(err)
		}
		gotSuite, id, public, comment, err := mofn.ParsePublicFile(file)
		if err != nil || gotSuite != suite || id != k.ID() || !bytes.Equal(public, k.Public) || comment != k.Comment {
			t.Errorf("%s: read back as %v %v, %v", suite, gotSuite, id, err)
		}
		p, err := k.PublicKey()
		if err != nil || !bytes.Equal(p.Classical(), k.Public[len(k.Public)-size:]) {
			t.Errorf("%s: classical half %x, %v", suite, p.Classical(), err)
		}
	}
}
