// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"

	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"sluice/pkg/mofn"
)

// signingSuite is a row of the table of trust.md section 1, in bytes.
type signingSuite struct {
	suite                                            mofn.Suite
	draft, label, vector                             string
	public, mldsaPublic, mldsaSig, shortest, longest int
}

func signing() []signingSuite {
	return []signingSuite{
		{mofn.SuiteH1, "id-MLDSA65-Ed25519-SHA512", "COMPSIG-MLDSA65-Ed25519-SHA512", "composite.json", 1984, 1952, 3309, 3373, 3373},
		{mofn.SuiteH2, "id-MLDSA87-ECDSA-P384-SHA512", "COMPSIG-MLDSA87-ECDSA-P384-SHA512", "composite-h2.json", 2689, 2592, 4627, 4635, 4731},
	}
}

// spliced takes the ML-DSA half of one signature and the classical half of another.
func (s signingSuite) spliced(mldsa, classical []byte) []byte {
	return slices.Concat(mldsa[:s.mldsaSig], classical[s.mldsaSig:])
}

// representative is M' of the draft, written a second time.
func (s signingSuite) representative(context string, message []byte) []byte {
	digest := sha512.Sum512(message)
	return slices.Concat([]byte("CompositeAlgorithmSignatures2025"+s.label), []byte{byte(len(context))}, []byte(context), digest[:])
}

// forEachSuite runs a test for H1 and H2, with a key and a good signature of "message" in the role security.
func forEachSuite(t *testing.T, test func(t *testing.T, s signingSuite, k *mofn.PrivateKey, sig []byte)) {
	for _, s := range signing() {
		t.Run(string(s.suite), func(t *testing.T) {
			k := newKeyOf(t, s.suite, "alice")
			sig := sign(t, k, "security", []byte("message"))
			if err := k.Public().Verify("security", []byte("message"), sig); err != nil {
				t.Fatalf("control: %v", err)
			}
			test(t, s, k, sig)
		})
	}
}

func refused(t *testing.T, what string, k *mofn.PrivateKey, sig []byte) {
	t.Helper()
	if err := k.Public().Verify("security", []byte("message"), sig); !errors.Is(err, mofn.ErrSignature) {
		t.Errorf("%s: %v", what, err)
	}
}

// TestNoStrippedHalf: one half alone, or with nothing or noise in the place of the other, is no signature.
func TestNoStrippedHalf(t *testing.T) {
	forEachSuite(t, func(t *testing.T, s signingSuite, k *mofn.PrivateKey, sig []byte) {
		mldsa, classical := sig[:s.mldsaSig], sig[s.mldsaSig:]
		refused(t, "ML-DSA alone", k, mldsa)
		refused(t, "classical alone", k, classical)
		refused(t, "ML-DSA and zeros", k, slices.Concat(mldsa, make([]byte, len(classical))))
		refused(t, "zeros and classical", k, slices.Concat(make([]byte, len(mldsa)), classical))
		refused(t, "halves in the other order", k, slices.Concat(classical, mldsa))
		refused(t, "nothing", k, nil)
		smallest := []byte{0x30, 6, 2, 1, 0, 2, 1, 0} // r = s = 0, in DER
		refused(t, "ML-DSA and r = s = 0", k, slices.Concat(mldsa, smallest))
	})
}

// TestNoSwappedHalves: halves of two keys over one message do not make a signature of either.
func TestNoSwappedHalves(t *testing.T) {
	forEachSuite(t, func(t *testing.T, s signingSuite, k *mofn.PrivateKey, sig []byte) {
		bob := newKeyOf(t, s.suite, "bob")
		other := sign(t, bob, "security", []byte("message"))
		for _, key := range []*mofn.PrivateKey{k, bob} {
			refused(t, "ML-DSA of alice", key, s.spliced(sig, other))
			refused(t, "ML-DSA of bob", key, s.spliced(other, sig))
		}
	})
}

// TestNoCrossRole: neither the whole nor one half of a signature is good for another role, or another message.
func TestNoCrossRole(t *testing.T) {
	forEachSuite(t, func(t *testing.T, s signingSuite, k *mofn.PrivateKey, sig []byte) {
		for _, role := range []string{"quality", mofn.RolePacker, mofn.RoleRoot, "securit", "security2"} {
			other := sign(t, k, role, []byte("message"))
			refused(t, role, k, other)
			refused(t, role+" in the ML-DSA half", k, s.spliced(other, sig))
			refused(t, role+" in the classical half", k, s.spliced(sig, other))
		}
		other := sign(t, k, "security", []byte("another"))
		refused(t, "another message in the ML-DSA half", k, s.spliced(other, sig))
		refused(t, "another message in the classical half", k, s.spliced(sig, other))
	})
}

// TestNoCrossSuite: a signature or key of one suite is none of the other, whatever is cut or added.
func TestNoCrossSuite(t *testing.T) {
	h1, h2 := newKeyOf(t, mofn.SuiteH1, "alice"), newKeyOf(t, mofn.SuiteH2, "alice")
	one, two := sign(t, h1, "security", []byte("message")), sign(t, h2, "security", []byte("message"))
	refused(t, "H1 under H2", h2, one)
	refused(t, "H2 under H1", h1, two)
	refused(t, "H1 made as long as H2", h2, slices.Concat(one, two[len(one):]))
	refused(t, "H2 cut to H1", h1, two[:len(one)])
	refused(t, "Ed25519 half under H2", h2, slices.Concat(two[:4627], one[3309:]))
	for _, suite := range []mofn.Suite{mofn.SuiteLink, mofn.SuiteTicket, mofn.SuiteXWing, "h2", "H2 ", "H3"} {
		if _, err := mofn.ParsePublicKey(suite, h2.Public().Bytes()); !errors.Is(err, mofn.ErrKey) {
			t.Errorf("H2 key as %q: %v", suite, err)
		}
	}
	if _, err := mofn.ParsePublicKey(mofn.SuiteH1, h2.Public().Bytes()); !errors.Is(err, mofn.ErrKey) {
		t.Errorf("H2 key as H1: %v", err)
	}
	if _, err := mofn.ParsePublicKey(mofn.SuiteH2, h1.Public().Bytes()); !errors.Is(err, mofn.ErrKey) {
		t.Errorf("H1 key as H2: %v", err)
	}
}

// TestNoCutOrExtendedSignature: a signature has one length, or says its length itself.
func TestNoCutOrExtendedSignature(t *testing.T) {
	forEachSuite(t, func(t *testing.T, s signingSuite, k *mofn.PrivateKey, sig []byte) {
		for _, n := range []int{0, 1, s.mldsaSig - 1, s.mldsaSig, s.mldsaSig + 1, s.mldsaSig + 8, len(sig) - 2, len(sig) - 1} {
			refused(t, "cut", k, sig[:n])
		}
		for _, tail := range [][]byte{{0}, {0, 0}, {0x30, 0}, make([]byte, 100), make([]byte, 1<<20)} {
			refused(t, "extended at the end", k, slices.Concat(sig, tail))
			refused(t, "extended between the halves", k, slices.Concat(sig[:s.mldsaSig], tail, sig[s.mldsaSig:]))
		}
	})
}

// derInteger is an INTEGER with its length in one byte and the given content.
func derInteger(content []byte) []byte { return slices.Concat([]byte{2, byte(len(content))}, content) }

// integerContent is the shortest form of a positive number.
func integerContent(n *big.Int) []byte {
	b := n.Bytes()
	if b[0]&0x80 != 0 {
		b = append([]byte{0}, b...)
	}
	return b
}

// TestNoNonMinimalDER: of the many BER forms of (r, s) exactly one is taken, and of the values only those below the order.
func TestNoNonMinimalDER(t *testing.T) {
	s, k := signing()[1], newKeyOf(t, mofn.SuiteH2, "alice")
	sig := sign(t, k, "security", []byte("message"))
	var v struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(sig[s.mldsaSig:], &v); err != nil || len(rest) > 0 {
		t.Fatal(err)
	}
	r, z := integerContent(v.R), integerContent(v.S)
	body := slices.Concat(derInteger(r), derInteger(z))
	half := func(b ...[]byte) []byte { return slices.Concat(append([][]byte{sig[:s.mldsaSig]}, b...)...) }
	if err := k.Public().Verify("security", []byte("message"), half([]byte{0x30, byte(len(body))}, body)); err != nil {
		t.Fatalf("control: %v", err)
	}
	longR := slices.Concat(derInteger(append([]byte{0}, r...)), derInteger(z))
	longS := slices.Concat(derInteger(r), derInteger(append([]byte{0}, z...)))
	order := elliptic.P384().Params().N
	above := slices.Concat(derInteger(r), derInteger(integerContent(new(big.Int).Add(v.S, order))))
	negative := slices.Concat(derInteger(r), derInteger(new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 392), v.S).FillBytes(make([]byte, 49))))
	for name, b := range map[string][]byte{
		"length of the sequence in two bytes":   half([]byte{0x30, 0x81, byte(len(body))}, body),
		"length of the sequence in three":       half([]byte{0x30, 0x82, 0, byte(len(body))}, body),
		"indefinite length":                     half([]byte{0x30, 0x80}, body, []byte{0, 0}),
		"leading zero of r":                     half([]byte{0x30, byte(len(longR))}, longR),
		"leading zero of s":                     half([]byte{0x30, byte(len(longS))}, longS),
		"length of r in two bytes":              half([]byte{0x30, byte(len(body) + 1), 2, 0x81}, body[1:]),
		"a byte after s within the sequence":    half([]byte{0x30, byte(len(body) + 1)}, body, []byte{0}),
		"a set and no sequence":                 half([]byte{0x31, byte(len(body))}, body),
		"s and the order":                       half([]byte{0x30, byte(len(above))}, above),
		"negative s":                            half([]byte{0x30, byte(len(negative))}, negative),
		"r and s of IEEE P1363":                 half(v.R.FillBytes(make([]byte, 48)), v.S.FillBytes(make([]byte, 48))),
		"r = 0":                                 half([]byte{0x30, byte(3 + len(derInteger(z)))}, derInteger([]byte{0}), derInteger(z)),
		"empty integer":                         half([]byte{0x30, byte(2 + len(derInteger(z)))}, derInteger(nil), derInteger(z)),
		"the other way round":                   half([]byte{0x30, byte(len(body))}, derInteger(z), derInteger(r)),
		"length above the longest of the draft": half([]byte{0x30, byte(len(body))}, body, make([]byte, 200)),
	} {
		refused(t, name, k, b)
	}
	// ECDSA is malleable, and the draft does not forbid it: who takes signature bytes for an identifier counts one twice.
	mirror := slices.Concat(derInteger(r), derInteger(integerContent(new(big.Int).Sub(order, v.S))))
	if err := k.Public().Verify("security", []byte("message"), half([]byte{0x30, byte(len(mirror))}, mirror)); err != nil {
		t.Errorf("(r, n - s) is a signature too: %v", err)
	}
}

// TestNoInvalidPoint: a P-384 half is an uncompressed point of the curve, in the one form that the draft has. (The Ed25519 half:
// TestLowOrderEd25519 and TestCheckPoint.)
func TestNoInvalidPoint(t *testing.T) {
	good := newKeyOf(t, mofn.SuiteH2, "alice").Public().Bytes()
	mldsa, point := good[:2592], good[2592:]
	field := elliptic.P384().Params().P
	spoilt := func(change func(p []byte)) []byte {
		p := slices.Clone(point)
		change(p)
		return p
	}
	base := elliptic.P384().Params()
	generator := slices.Concat([]byte{4}, base.Gx.FillBytes(make([]byte, 48)), base.Gy.FillBytes(make([]byte, 48)))
	if _, err := mofn.ParsePublicKey(mofn.SuiteH2, slices.Concat(mldsa, generator)); err != nil {
		t.Fatalf("control: %v", err)
	}
	for name, p := range map[string][]byte{
		"identity":              {0},
		"identity, padded":      make([]byte, 97),
		"(0, 0)":                spoilt(func(p []byte) { clear(p[1:]) }),
		"off the curve":         spoilt(func(p []byte) { p[96] ^= 1 }),
		"x = p":                 spoilt(func(p []byte) { field.FillBytes(p[1:49]) }),
		"y above the field":     spoilt(func(p []byte) { copy(p[49:], bytes.Repeat([]byte{0xff}, 48)) }),
		"compressed":            slices.Concat([]byte{2 + point[96]&1}, point[1:49]),
		"compressed and padded": slices.Concat([]byte{2 + point[96]&1}, point[1:49], make([]byte, 48)),
		"hybrid":                spoilt(func(p []byte) { p[0] = 6 + p[96]&1 }),
		"without its 04":        point[1:],
		"a byte too long":       slices.Concat(point, []byte{0}),
	} {
		k, err := mofn.ParsePublicKey(mofn.SuiteH2, slices.Concat(mldsa, p))
		if !errors.Is(err, mofn.ErrKey) || k != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	zero := slices.Clone(good)
	clear(zero[32:2592])
	if _, err := mofn.ParsePublicKey(mofn.SuiteH2, zero); !errors.Is(err, mofn.ErrKey) || !strings.Contains(err.Error(), "anybody can sign") {
		t.Errorf("ML-DSA t1 is 0: %v", err)
	}
}

// TestNoDroppedContext is about the trap of circl: the crypto.Signer method of an ML-DSA key drops the context and is not hedged.
func TestNoDroppedContext(t *testing.T) {
	forEachSuite(t, func(t *testing.T, s signingSuite, k *mofn.PrivateKey, sig []byte) {
		m, seed := s.representative("sluice/v1/security", []byte("message")), testRandom(s.suite, "alice")[:32]
		var trap crypto.Signer
		var verifies func(context []byte) bool
		if s.suite == mofn.SuiteH1 {
			pub, key := mldsa65.NewKeyFromSeed((*[32]byte)(seed))
			trap, verifies = key, func(context []byte) bool { return mldsa65.Verify(pub, m, context, sig[:s.mldsaSig]) }
		} else {
			pub, key := mldsa87.NewKeyFromSeed((*[32]byte)(seed))
			trap, verifies = key, func(context []byte) bool { return mldsa87.Verify(pub, m, context, sig[:s.mldsaSig]) }
		}
		if !verifies([]byte(s.label)) || verifies(nil) {
			t.Error("the ML-DSA half is not bound to the label")
		}
		dropped, err := trap.Sign(rand.Reader, m, crypto.Hash(0))
		if err != nil {
			t.Fatal(err)
		}
		refused(t, "ML-DSA half without its context", k, s.spliced(dropped, sig))
	})
}

// TestNoOtherContext: a signature of another application, or of the draft's own without a context, is none of a role.
func TestNoOtherContext(t *testing.T) {
	forEachSuite(t, func(t *testing.T, _ signingSuite, k *mofn.PrivateKey, _ []byte) {
		for _, context := range []string{"", "security", "sluice/v1/", "sluice/v1/securit", "sluice/v2/security", "sluice/v1/security\x00"} {
			sig, err := mofn.SignContext(k, []byte(context), []byte("message"))
			if err != nil {
				t.Fatal(err)
			}
			refused(t, "context "+context, k, sig)
		}
	})
}

// TestNoEqualKeyIDsAcrossSuites: the suite is hashed into the id, so not even one public key has one id in two suites.
func TestNoEqualKeyIDsAcrossSuites(t *testing.T) {
	seen := map[mofn.KeyID]mofn.Suite{}
	for _, suite := range []mofn.Suite{mofn.SuiteH1, mofn.SuiteH2, mofn.SuiteLink, mofn.SuiteTicket, mofn.SuiteXWing} {
		for _, public := range [][]byte{nil, {0}, []byte("key"), newKeyOf(t, mofn.SuiteH2, "alice").Public().Bytes()} {
			id := mofn.NewKeyID(suite, public)
			if other, twice := seen[id]; twice {
				t.Errorf("one id in %s and %s", suite, other)
			}
			seen[id] = suite
		}
	}
	// The 00 after the suite: no suite is the beginning of another with its key.
	if mofn.NewKeyID("H", []byte("1key")) == mofn.NewKeyID("H1", []byte("key")) {
		t.Error("suite and key run together")
	}
}

// elsewhere is a classical half whose key is not in the hands of the package, as in a token.
type elsewhere struct {
	public []byte
	sign   func([]byte) ([]byte, error)
	seen   []byte
}

func (e *elsewhere) Public() []byte { return e.public }

func (e *elsewhere) Sign(message []byte) ([]byte, error) {
	e.seen = slices.Clone(message)
	return e.sign(message)
}

// newElsewhere makes a half with the standard library alone.
func newElsewhere(t *testing.T, suite mofn.Suite) *elsewhere {
	t.Helper()
	if suite == mofn.SuiteH1 {
		public, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return &elsewhere{public: public, sign: func(m []byte) ([]byte, error) { return ed25519.Sign(key, m), nil }}
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return &elsewhere{public: public, sign: func(m []byte) ([]byte, error) {
		digest := sha512.Sum384(m)
		return key.Sign(rand.Reader, digest[:], crypto.SHA384)
	}}
}

// TestClassicalHalfElsewhere: a token sees M' and nothing else, and its signature is checked like every other.
func TestClassicalHalfElsewhere(t *testing.T) {
	forEachSuite(t, func(t *testing.T, s signingSuite, _ *mofn.PrivateKey, _ []byte) {
		half := newElsewhere(t, s.suite)
		k, err := mofn.NewPrivateKey(s.suite, make([]byte, 32), half)
		if err != nil {
			t.Fatal(err)
		}
		var signer mofn.Signer = k
		sig, err := signer.Sign("security", []byte("message"))
		if err != nil || k.Public().Verify("security", []byte("message"), sig) != nil {
			t.Errorf("%v", err)
		}
		if !bytes.Equal(half.seen, s.representative("sluice/v1/security", []byte("message"))) {
			t.Errorf("the half signed %q", half.seen)
		}
		if !bytes.Equal(k.Public().Bytes()[s.mldsaPublic:], half.public) {
			t.Error("another public key")
		}
	})
}

// TestNoFaultySignatureReleased: a half that fails, lies, or signs something else never makes a signature.
func TestNoFaultySignatureReleased(t *testing.T) {
	broken := errors.New("token was pulled out")
	forEachSuite(t, func(t *testing.T, s signingSuite, _ *mofn.PrivateKey, _ []byte) {
		half := newElsewhere(t, s.suite)
		good := half.sign
		k, err := mofn.NewPrivateKey(s.suite, make([]byte, 32), half)
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			sign func([]byte) ([]byte, error)
			want error
		}{
			"an error":         {func([]byte) ([]byte, error) { return nil, broken }, broken},
			"nothing":          {func([]byte) ([]byte, error) { return nil, nil }, mofn.ErrSignature},
			"another message":  {func(m []byte) ([]byte, error) { return good(m[1:]) }, mofn.ErrSignature},
			"another key":      {newElsewhere(t, s.suite).sign, mofn.ErrSignature},
			"a byte too many":  {func(m []byte) ([]byte, error) { b, err := good(m); return append(b, 0), err }, mofn.ErrSignature},
			"a megabyte":       {func([]byte) ([]byte, error) { return make([]byte, 1<<20), nil }, mofn.ErrSignature},
			"a flipped bit":    {func(m []byte) ([]byte, error) { b, err := good(m); b[len(b)-1] ^= 1; return b, err }, mofn.ErrSignature},
			"the digest alone": {func(m []byte) ([]byte, error) { d := sha512.Sum384(m); return good(d[:]) }, mofn.ErrSignature},
		} {
			half.sign = c.sign
			if sig, err := k.Sign("security", []byte("message")); !errors.Is(err, c.want) || sig != nil {
				t.Errorf("%s: %d bytes, %v", name, len(sig), err)
			}
		}
	})
}

func TestNewPrivateKeyRefuses(t *testing.T) {
	h1, h2 := newElsewhere(t, mofn.SuiteH1), newElsewhere(t, mofn.SuiteH2)
	for name, c := range map[string]struct {
		suite mofn.Suite
		seed  []byte
		half  *elsewhere
	}{
		"half of the other suite":    {mofn.SuiteH1, make([]byte, 32), h2},
		"half of the other suite, 2": {mofn.SuiteH2, make([]byte, 32), h1},
		"short seed":                 {mofn.SuiteH1, make([]byte, 31), h1},
		"no seed":                    {mofn.SuiteH2, nil, h2},
		"a suite that does not sign": {mofn.SuiteLink, make([]byte, 32), h1},
		"low-order point":            {mofn.SuiteH1, make([]byte, 32), &elsewhere{public: make([]byte, 32)}},
		"no public key":              {mofn.SuiteH2, make([]byte, 32), &elsewhere{}},
	} {
		if k, err := mofn.NewPrivateKey(c.suite, c.seed, c.half); !errors.Is(err, mofn.ErrKey) || k != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNoSecondFormOfAPrivateKey: the ECPrivateKey of an H2 secret has one encoding, and its scalar is one of the group's.
func TestNoSecondFormOfAPrivateKey(t *testing.T) {
	good := newSecret(t, mofn.SuiteH2)
	order := elliptic.P384().Params().N
	for name, change := range map[string]func(b []byte) []byte{
		"scalar 0":             func(b []byte) []byte { clear(b[39:87]); return b },
		"scalar is the order":  func(b []byte) []byte { order.FillBytes(b[39:87]); return b },
		"scalar above":         func(b []byte) []byte { copy(b[39:87], bytes.Repeat([]byte{0xff}, 48)); return b },
		"version 2":            func(b []byte) []byte { b[36] = 2; return b },
		"another curve":        func(b []byte) []byte { b[95] = 0x23; return b },
		"without parameters":   func(b []byte) []byte { b[33] = 0x35; return b[:87] },
		"with a byte after it": func(b []byte) []byte { return append(b, 0) },
		"scalar alone":         func(b []byte) []byte { return append(b[:32:32], b[39:87]...) },
		"empty":                func([]byte) []byte { return nil },
	} {
		bad := mofn.SecretKey{Suite: good.Suite, Secret: change(slices.Clone(good.Secret)), Public: good.Public}
		if _, err := bad.SigningKey(); !errors.Is(err, mofn.ErrKey) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := mofn.GenerateKey(mofn.SuiteH2, bytes.NewReader(make([]byte, 80))); !errors.Is(err, mofn.ErrKey) {
		t.Errorf("random bytes that are 0: %v", err)
	}
	if _, err := good.SigningKey(); err != nil {
		t.Errorf("control: %v", err)
	}
}
