// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/scrypt"

	"sluice/pkg/mofn"
)

// compositeVector is one algorithm of draft-ietf-lamps-pq-composite-sigs-19.
type compositeVector struct {
	TcID                            string
	M, Ctx, PK, SK, S, SWithContext []byte
}

func TestCompositeDraftVectors(t *testing.T) {
	for _, s := range signing() {
		t.Run(string(s.suite), func(t *testing.T) {
			var v compositeVector
			if err := json.Unmarshal(readVector(t, s.vector), &v); err != nil {
				t.Fatal(err)
			}
			if v.TcID != s.draft {
				t.Fatalf("vector of %s, want %s", v.TcID, s.draft)
			}
			checkDraftVector(t, s.suite, v)
		})
	}
}

func checkDraftVector(t *testing.T, suite mofn.Suite, v compositeVector) {
	pub, err := mofn.ParsePublicKey(suite, v.PK)
	if err != nil {
		t.Fatal(err)
	}
	if !mofn.VerifyContext(pub, nil, v.M, v.S) {
		t.Error("without context: does not verify")
	}
	if !mofn.VerifyContext(pub, v.Ctx, v.M, v.SWithContext) {
		t.Error("with context: does not verify")
	}
	if mofn.VerifyContext(pub, v.Ctx, v.M, v.S) || mofn.VerifyContext(pub, nil, v.M, v.SWithContext) {
		t.Error("a signature verifies in another context")
	}
	secret := &mofn.SecretKey{Suite: suite, Secret: v.SK, Public: v.PK}
	priv, err := secret.SigningKey()
	if err != nil {
		t.Fatalf("the private key of the draft does not give its public key: %v", err)
	}
	own, err := mofn.SignContext(priv, v.Ctx, v.M)
	if err != nil || !mofn.VerifyContext(pub, v.Ctx, v.M, own) {
		t.Errorf("own signature: %v", err)
	}
	if _, err := mofn.SignContext(priv, make([]byte, 256), v.M); err == nil || mofn.VerifyContext(pub, make([]byte, 256), v.M, own) {
		t.Error("a context of 256 bytes has no place in M'")
	}
}

func TestSign(t *testing.T) {
	for _, s := range signing() {
		t.Run(string(s.suite), func(t *testing.T) { testSign(t, s, newKeyOf(t, s.suite, "alice")) })
	}
}

func testSign(t *testing.T, s signingSuite, k *mofn.PrivateKey) {
	message := []byte("message")
	sig, again := sign(t, k, "security", message), sign(t, k, "security", message)
	if len(sig) < s.shortest || len(sig) > s.longest || len(k.Public().Bytes()) != s.public {
		t.Fatalf("sizes %d and %d", len(sig), len(k.Public().Bytes()))
	}
	if bytes.Equal(sig[:s.mldsaSig], again[:s.mldsaSig]) {
		t.Error("ML-DSA is not hedged: two signatures are equal")
	}
	if err := k.Public().Verify("security", message, s.spliced(sig, again)); err != nil {
		t.Errorf("halves of two signatures over one message: %v (signature bytes are no identity)", err)
	}
	for _, role := range []string{"quality", "packer", "root", "securit", "security2"} {
		if err := k.Public().Verify(role, message, sig); !errors.Is(err, mofn.ErrSignature) {
			t.Errorf("role %s: %v", role, err)
		}
	}
	for _, role := range []string{"", "Security", "a b", "-a", strings.Repeat("a", 65)} {
		if _, err := k.Sign(role, message); !errors.Is(err, mofn.ErrRole) {
			t.Errorf("sign in role %q: %v", role, err)
		}
		if err := k.Public().Verify(role, message, sig); !errors.Is(err, mofn.ErrRole) {
			t.Errorf("verify in role %q: %v", role, err)
		}
	}
	if k.KeyID() != k.Public().ID() || k.KeyID() != mofn.NewKeyID(s.suite, k.Public().Bytes()) || k.Public().Suite() != s.suite {
		t.Errorf("key %v of suite %s", k.KeyID(), k.Public().Suite())
	}
}

// TestEd25519HalfIsPlain documents what makes reuse of a half dangerous: it verifies alone, over M'.
func TestEd25519HalfIsPlain(t *testing.T) {
	k := newKey(t, "alice")
	sig := sign(t, k, "security", nil)
	m := append([]byte("CompositeAlgorithmSignatures2025COMPSIG-MLDSA65-Ed25519-SHA512"), 18)
	m = append(m, "sluice/v1/security"...)
	empty, _ := hex.DecodeString("cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e")
	if !ed25519.Verify(k.Public().Bytes()[1952:], append(m, empty...), sig[3309:]) {
		t.Error("M' is not as in the draft")
	}
}

// TestEveryByteOfASignature flips one bit of each byte: a signature has no slack. Of the ML-DSA half of H2 one byte in sixteen is
// enough: P-384 is slow, and integration/conformance flips bits of it at random.
func TestEveryByteOfASignature(t *testing.T) {
	for _, s := range signing() {
		k := newKeyOf(t, s.suite, "alice")
		message := []byte("message")
		sig := sign(t, k, "security", message)
		for i := range sig {
			if s.suite == mofn.SuiteH2 && i < s.mldsaSig && i%16 != 0 {
				continue
			}
			sig[i] ^= 1 << (i % 8)
			if k.Public().Verify("security", message, sig) == nil {
				t.Fatalf("%s: byte %d changed and it verifies", s.suite, i)
			}
			sig[i] ^= 1 << (i % 8)
		}
	}
}

func TestKeyIDs(t *testing.T) {
	k := newKey(t, "alice").Public()
	other := newKeyOf(t, mofn.SuiteH2, "alice").Public()
	p384 := sha256.Sum256(append([]byte("sluice-half-v1\x00ECDSA-P384\x00"), other.Bytes()[2592:]...))
	ml87 := sha256.Sum256(append([]byte("sluice-half-v1\x00ML-DSA-87\x00"), other.Bytes()[:2592]...))
	if other.HalfIDs() != [2]mofn.KeyID{ml87, p384} {
		t.Error("half ids of H2")
	}
	// hashlib.sha256(b"sluice-key-v1\0H1\0abc").hexdigest() of Python
	if got := mofn.NewKeyID(mofn.SuiteH1, []byte("abc")).String(); got != "5dd16f4c8391f1f147f9d73175a27abdad8b6f0ded155ec6c97d896da3f5f352" {
		t.Errorf("key id %s", got)
	}
	ed := sha256.Sum256(append([]byte("sluice-half-v1\x00Ed25519\x00"), k.Bytes()[1952:]...))
	ml := sha256.Sum256(append([]byte("sluice-half-v1\x00ML-DSA-65\x00"), k.Bytes()[:1952]...))
	if k.HalfIDs() != [2]mofn.KeyID{ml, ed} {
		t.Error("half ids")
	}
	id := k.ID()
	back, err := mofn.ParseKeyID(id.String())
	if err != nil || back != id || len(id.String()) != 64 {
		t.Errorf("%v, %v", back, err)
	}
	if h := k.HalfIDs(); h[0] == h[1] || h[0] == id || h[1] == id {
		t.Error("ids are not separated")
	}
	if mofn.NewKeyID(mofn.SuiteLink, k.Bytes()) == id {
		t.Error("suites are not separated")
	}
	for _, bad := range []string{"", "ab", strings.ToUpper(id.String()), id.String() + "00", strings.Repeat("g", 64), " " + id.String()[1:]} {
		if _, err := mofn.ParseKeyID(bad); !errors.Is(err, mofn.ErrKey) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// TestLowOrderEd25519 is the table of the 14 encodings (C2SP CCTV), as half of an H1 key and as a link key. The control shows
// why: under the identity one constant signature verifies for every message.
func TestLowOrderEd25519(t *testing.T) {
	points := mofn.LowOrderPoints()
	if len(points) != 14 {
		t.Fatalf("%d encodings, not 14", len(points))
	}
	good := newKey(t, "alice").Public().Bytes()
	for _, text := range points {
		point, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := mofn.ParsePublicKey(mofn.SuiteH1, append(bytes.Clone(good[:1952]), point...)); !errors.Is(err, mofn.ErrKey) {
			t.Errorf("H1 half %s: %v", text, err)
		}
		if err := mofn.CheckPoint(point); err == nil || !strings.Contains(err.Error(), "low-order") {
			t.Errorf("%s: %v", text, err)
		}
	}
	identity := append([]byte{1}, make([]byte, 31)...)
	constant := append(bytes.Clone(identity), make([]byte, 32)...)
	if !ed25519.Verify(identity, []byte("anything"), constant) {
		t.Error("control: the standard library no longer accepts the identity; is the check still needed?")
	}
}

func TestCheckPoint(t *testing.T) {
	for i := range 50 {
		public, _, err := ed25519.GenerateKey(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := mofn.CheckPoint(public); err != nil {
			t.Errorf("key %d %x: %v", i, public, err)
		}
	}
	pad := func(first byte, rest byte, last byte) []byte {
		b := bytes.Repeat([]byte{rest}, 32)
		b[0], b[31] = first, last
		return b
	}
	for name, c := range map[string]struct {
		b     []byte
		words string
	}{
		"y = p + 3":       {pad(0xf0, 0xff, 0x7f), "canonically"},
		"y = 2^255 - 1":   {pad(0xff, 0xff, 0x7f), "canonically"},
		"y = 2, no point": {pad(2, 0, 0), "not a point"},
		"short":           {make([]byte, 31), "31 bytes"},
		"long":            {make([]byte, 33), "33 bytes"},
		"nothing":         {nil, "0 bytes"},
	} {
		if err := mofn.CheckPoint(c.b); !errors.Is(err, mofn.ErrKey) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParsePublicKeyRefuses(t *testing.T) {
	good := newKey(t, "alice").Public().Bytes()
	zero := bytes.Clone(good)
	clear(zero[32:1952])
	for name, c := range map[string]struct {
		suite mofn.Suite
		b     []byte
	}{
		"other suite":     {mofn.SuiteLink, good},
		"no suite":        {"", good},
		"unknown suite":   {"H3", good},
		"short":           {mofn.SuiteH1, good[:1983]},
		"long":            {mofn.SuiteH1, append(bytes.Clone(good), 0)},
		"empty":           {mofn.SuiteH1, nil},
		"ML-DSA t1 is 0":  {mofn.SuiteH1, zero},
		"halves reversed": {mofn.SuiteH1, append(bytes.Clone(good[1952:]), good[:1952]...)},
	} {
		if k, err := mofn.ParsePublicKey(c.suite, c.b); !errors.Is(err, mofn.ErrKey) || k != nil {
			// A reversed key is noise and may by chance end in a point.
			if name != "halves reversed" {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	k, err := mofn.ParsePublicKey(mofn.SuiteH1, good)
	if err != nil {
		t.Fatal(err)
	}
	id := k.ID()
	good[0] ^= 1
	k.Bytes()[0] ^= 1
	if k.ID() != id {
		t.Error("the key shares memory with its caller")
	}
}

func TestGenerateFails(t *testing.T) {
	broken := iotest.ErrReader(io.ErrUnexpectedEOF)
	if _, err := mofn.GenerateKey(mofn.SuiteH1, broken); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("GenerateKey: %v", err)
	}
	if _, err := mofn.GenerateSecret(broken, mofn.SuiteH1, ""); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("GenerateSecret: %v", err)
	}
	if _, err := mofn.GenerateSecret(nil, "H9", ""); !errors.Is(err, mofn.ErrKey) {
		t.Errorf("unknown suite: %v", err)
	}
	s := newSecret(t, mofn.SuiteLink)
	if _, err := s.Seal(broken, []byte("x"), cheap()); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Seal: %v", err)
	}
}

func newSecret(t testing.TB, suite mofn.Suite) *mofn.SecretKey {
	t.Helper()
	s, err := mofn.GenerateSecret(nil, suite, "Zoë, shift \"2\" <z>")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func suites() []mofn.Suite {
	return []mofn.Suite{mofn.SuiteH1, mofn.SuiteH2, mofn.SuiteLink, mofn.SuiteXWing}
}

func TestKeyFiles(t *testing.T) {
	sizes := map[mofn.Suite]int{mofn.SuiteH1: 1984, mofn.SuiteH2: 2689, mofn.SuiteLink: 32, mofn.SuiteXWing: 1216}
	for _, suite := range suites() {
		t.Run(string(suite), func(t *testing.T) {
			s := newSecret(t, suite)
			file, err := s.Seal(rand.Reader, []byte("correct horse"), cheap())
			if err != nil {
				t.Fatal(err)
			}
			got, err := mofn.OpenSecret(file, []byte("correct horse"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(*s, *got); diff != "" {
				t.Error(diff)
			}
			public, err := s.MarshalPublic()
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(public), `{"type":"sluice-public-key-v1","suite":"`+string(suite)+`","id":"`+s.ID().String()+`","public":"`) {
				t.Errorf("public file %.120s", public)
			}
			gotSuite, id, key, comment, err := mofn.ParsePublicFile(public)
			if err != nil || gotSuite != suite || id != s.ID() || !bytes.Equal(key, s.Public) || comment != s.Comment || len(key) != sizes[suite] {
				t.Errorf("%v %v %v %v", gotSuite, id, comment, err)
			}
			if _, _, _, _, err := mofn.ParsePublicFile(bytes.TrimSuffix(public, []byte("\n"))); err != nil {
				t.Errorf("without the newline: %v", err)
			}
		})
	}
}

func TestWrongPassphrase(t *testing.T) {
	s := newSecret(t, mofn.SuiteH1)
	file, err := s.Seal(nil, []byte("right"), cheap())
	if err != nil {
		t.Fatal(err)
	}
	for _, wrong := range []string{"", "wrong", "Right", "right ", "right\n"} {
		got, err := mofn.OpenSecret(file, []byte(wrong))
		if !errors.Is(err, mofn.ErrPassphrase) || got != nil {
			t.Errorf("%q: %v, %v", wrong, got, err)
		}
		if err != nil && !strings.Contains(err.Error(), "wrong passphrase") {
			t.Errorf("not in plain words: %v", err)
		}
	}
	if _, err := s.Seal(nil, nil, cheap()); !errors.Is(err, mofn.ErrPassphrase) {
		t.Errorf("empty passphrase: %v", err)
	}
}

// TestMutatedKeyFiles changes, drops and doubles every byte of both files. Nothing but the comment, which no key covers, may
// read differently afterwards.
func TestMutatedKeyFiles(t *testing.T) {
	limit := mofn.ScryptParams{N: 64, R: 2, P: 2}
	for _, suite := range suites() {
		s := newSecret(t, suite)
		secret, err := s.Seal(nil, []byte("p"), cheap())
		if err != nil {
			t.Fatal(err)
		}
		mutations(secret, func(what string, b []byte) {
			got, err := mofn.OpenSecretWithin(b, []byte("p"), limit)
			if err == nil && (got.ID() != s.ID() || got.Comment == s.Comment) {
				t.Errorf("%s secret file, %s: accepted", suite, what)
			}
		})
		public, err := s.MarshalPublic()
		if err != nil {
			t.Fatal(err)
		}
		mutations(public, func(what string, b []byte) {
			_, id, _, comment, err := mofn.ParsePublicFile(b)
			if err == nil && (id != s.ID() || comment == s.Comment) {
				t.Errorf("%s public file, %s: accepted", suite, what)
			}
		})
	}
}

// mutations visits every byte changed and doubled, every bit of it flipped being one of the changes in turn, and every
// truncation. The final newline may be missing, so the file without it is not visited.
func mutations(file []byte, try func(what string, b []byte)) {
	for i := range file {
		b := bytes.Clone(file)
		b[i] ^= 1 << (i % 7)
		try(fmt.Sprintf("byte %d changed", i), b)
		try(fmt.Sprintf("byte %d doubled", i), append(append(bytes.Clone(file[:i+1]), file[i]), file[i+1:]...))
		if i < len(file)-1 {
			try(fmt.Sprintf("cut at %d", i), file[:i])
		}
	}
}

// TestHostileScrypt: the caps are checked before the function that they bound. Without that each case would take gigabytes.
func TestHostileScrypt(t *testing.T) {
	s := newSecret(t, mofn.SuiteLink)
	file, err := s.Seal(nil, []byte("p"), cheap())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{
		`"n":2097152,"r":1,"p":1`, `"n":1073741824,"r":1,"p":1`, `"n":4,"r":17,"p":1`, `"n":4,"r":1,"p":5`, `"n":0,"r":1,"p":1`,
		`"n":1,"r":1,"p":1`, `"n":-4,"r":1,"p":1`, `"n":6,"r":1,"p":1`, `"n":4,"r":0,"p":1`, `"n":4,"r":1,"p":0`, `"n":4,"r":-1,"p":1`,
		`"n":-9223372036854775808,"r":1,"p":1`,
	} {
		bad := strings.Replace(string(file), `"n":4,"r":1,"p":1`, c, 1)
		if _, err := mofn.OpenSecret([]byte(bad), []byte("p")); !errors.Is(err, mofn.ErrKeyFile) || !strings.Contains(err.Error(), "scrypt") {
			t.Errorf("%s: %v", c, err)
		}
	}
	for _, p := range []mofn.ScryptParams{{N: 1 << 21, R: 8, P: 1}, {N: 3, R: 1, P: 1}, {N: 4, R: 99, P: 1}, {N: 4, R: 1, P: 99}} {
		if _, err := s.Seal(nil, []byte("p"), p); !errors.Is(err, mofn.ErrKeyFile) {
			t.Errorf("Seal with %+v: %v", p, err)
		}
	}
}

// handSealed writes a private key file by trust.md section 2 alone, without the package, so that both must agree on the format.
func handSealed(t *testing.T, s *mofn.SecretKey, id mofn.KeyID, passphrase string) []byte {
	t.Helper()
	salt, nonce := bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{2}, 12)
	key, err := scrypt.Key([]byte(passphrase), salt, 8, 2, 1, 32)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	sealed := aead.Seal(nil, nonce, s.Secret, []byte("sluice-private-key-v1\x00"+string(s.Suite)+"\x00"+id.String()))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `{"type":"sluice-private-key-v1","suite":"%s","id":"%v","kdf":"scrypt","n":8,"r":2,"p":1,"salt":"%s","nonce":"%s","sealed":"%s","comment":"by hand"}`,
		s.Suite, id, b64(salt), b64(nonce), b64(sealed))
}

func TestSealedFormat(t *testing.T) {
	for _, suite := range suites() {
		s := newSecret(t, suite)
		got, err := mofn.OpenSecret(handSealed(t, s, s.ID(), "p"), []byte("p"))
		if err != nil || !bytes.Equal(got.Secret, s.Secret) || got.Comment != "by hand" {
			t.Errorf("%s: %v", suite, err)
		}
		// A file whose seal is in order, but which names another key than it holds.
		if _, err := mofn.OpenSecret(handSealed(t, s, newSecret(t, suite).ID(), "p"), []byte("p")); !errors.Is(err, mofn.ErrKeyFile) {
			t.Errorf("%s under another id: %v", suite, err)
		}
	}
}

func TestKeyFilesRefuse(t *testing.T) {
	s := newSecret(t, mofn.SuiteLink)
	public, _ := s.MarshalPublic()
	secret, _ := s.Seal(nil, []byte("p"), cheap())
	edit := func(b []byte, old, text string) string {
		if !strings.Contains(string(b), old) {
			t.Fatalf("file has no %q", old)
		}
		return strings.Replace(string(b), old, text, 1)
	}
	other := newSecret(t, mofn.SuiteLink)
	for name, file := range map[string]string{
		"empty":              "",
		"null":               "null",
		"secret as public":   string(secret),
		"other type":         edit(public, "public-key-v1", "public-key-v2"),
		"unknown suite":      edit(public, "ED25519-LINK", "ED25519"),
		"another id":         edit(public, s.ID().String(), other.ID().String()),
		"id in capitals":     edit(public, s.ID().String(), strings.ToUpper(s.ID().String())),
		"null key":           edit(public, `"public":"`, `"public":null,"x":"`),
		"unknown field":      edit(public, `,"comment"`, `,"role":"root","comment"`),
		"duplicate field":    edit(public, `"type"`, `"type":"sluice-public-key-v1","type"`),
		"field in capitals":  edit(public, `"suite"`, `"Suite"`),
		"white space":        edit(public, `,"suite"`, `, "suite"`),
		"two lines":          string(public) + "\n",
		"two objects":        strings.TrimSpace(string(public)) + string(public),
		"escaped comment":    edit(public, "Zo", `\u005ao`),
		"control character":  edit(public, "Zo", `Z\n`),
		"not NFC":            edit(public, "ë", "e\u0308"),
		"line separator":     edit(public, "Zo", `Z\u2028`),
		"too long a comment": edit(public, "Zo", strings.Repeat("z", 257)),
		"too long a file":    edit(public, "Zo", strings.Repeat("z", 20000)),
	} {
		if _, _, _, _, err := mofn.ParsePublicFile([]byte(file)); !errors.Is(err, mofn.ErrKeyFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, file := range map[string]string{
		"public as secret": string(public),
		"other kdf":        edit(secret, `"kdf":"scrypt"`, `"kdf":"none"`),
		"unknown suite":    edit(secret, "ED25519-LINK", "H3"),
		"suite of others":  edit(secret, "ED25519-LINK", "H2"),
		"suite swapped":    edit(secret, "ED25519-LINK", "XWING"),
		"short salt":       edit(secret, `"salt":"`, `"salt":"AAAA","x":"`),
		"id of another":    edit(secret, s.ID().String(), other.ID().String()),
	} {
		if got, err := mofn.OpenSecret([]byte(file), []byte("p")); err == nil {
			t.Errorf("%s: accepted %v", name, got)
		}
	}
}

func TestSecretKeyMisuse(t *testing.T) {
	link := newSecret(t, mofn.SuiteLink)
	if _, err := link.SigningKey(); !errors.Is(err, mofn.ErrKey) {
		t.Errorf("H1 of a link key: %v", err)
	}
	h1 := newSecret(t, mofn.SuiteH1)
	k, err := h1.SigningKey()
	if err != nil || k.Public().ID() != h1.ID() {
		t.Errorf("H1: %v", err)
	}
	mixed := *h1
	mixed.Public = newSecret(t, mofn.SuiteH1).Public
	if _, err := mixed.SigningKey(); !errors.Is(err, mofn.ErrKey) {
		t.Errorf("public key of another: %v", err)
	}
	if _, err := mixed.MarshalPublic(); !errors.Is(err, mofn.ErrKey) {
		t.Errorf("public file of another: %v", err)
	}
	if _, err := mixed.Seal(nil, []byte("p"), cheap()); !errors.Is(err, mofn.ErrKey) {
		t.Errorf("sealed with the public key of another: %v", err)
	}
	short := mofn.SecretKey{Suite: mofn.SuiteH1, Secret: h1.Secret[:63], Public: h1.Public}
	if _, err := short.SigningKey(); !errors.Is(err, mofn.ErrKey) {
		t.Errorf("short secret: %v", err)
	}
}

// TestSecretIsNotPrinted looks for the bytes in every common way to print a value.
func TestSecretIsNotPrinted(t *testing.T) {
	s := newSecret(t, mofn.SuiteLink)
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		for _, v := range []any{s, *s} {
			text := fmt.Sprintf(format, v)
			if strings.Contains(text, hex.EncodeToString(s.Secret)) || strings.Contains(text, fmt.Sprint(s.Secret)) {
				t.Errorf("%s prints the secret", format)
			}
		}
	}
	if b, err := json.Marshal(s); err == nil {
		t.Errorf("JSON: %s", b)
	}
}
