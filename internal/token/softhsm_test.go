// SPDX-License-Identifier: Apache-2.0

//go:build pkcs11 && cgo

package token

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"sluice/internal/token/tokentest"
	"sluice/pkg/mofn"
)

// hsm is a SoftHSM with what these tests make in it.
type hsm struct{ *tokentest.HSM }

func newHSM(t testing.TB) *hsm {
	t.Helper()
	return &hsm{tokentest.New(t)}
}

func (h *hsm) uri(label string) URI { return URI{Token: label, ModulePath: h.Module} }

func (h *hsm) secret() Secret { return Secret{File: h.PIN} }

// generate makes a key and its file, and gives the path.
func (h *hsm) generate(t testing.TB, label string, suite mofn.Suite) (string, *mofn.TokenKey) {
	t.Helper()
	var file *mofn.TokenKey
	name := fmt.Sprintf("%s-%s-%d", label, suite, len(list(t, h.Dir)))
	err := Generate(Request{URI: h.uri(label), Suite: suite, Comment: "S. Ito", Secret: h.secret(), Keep: func(k *mofn.TokenKey) error {
		file = k
		b, err := k.Marshal()
		if err != nil {
			return err
		}
		return os.WriteFile(h.Path(name), b, 0o600)
	}})
	if err != nil {
		t.Fatal(err)
	}
	return h.Path(name), file
}

func list(t testing.TB, dir string) []os.DirEntry {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

// raw runs fn in a session of its own, logged in.
func (h *hsm) raw(t testing.TB, label string, fn func(*session)) {
	t.Helper()
	s, err := open(load, h.uri(label), mofn.SuiteH1, pkcs11.CKF_RW_SESSION, h.secret())
	if err != nil {
		t.Fatal(err)
	}
	fn(s)
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}

func suites() []mofn.Suite { return []mofn.Suite{mofn.SuiteH1, mofn.SuiteH2} }

// TestSign: a key that was made in a token signs, and the ordinary verifier, which knows the .pub file only, accepts it.
func TestSign(t *testing.T) {
	for _, suite := range suites() {
		t.Run(string(suite), func(t *testing.T) {
			h := newHSM(t)
			h.Token(t, "officer-1")
			path, file := h.generate(t, "officer-1", suite)
			pub, err := file.MarshalPublic()
			if err != nil {
				t.Fatal(err)
			}
			_, id, public, comment, err := mofn.ParsePublicFile(pub)
			if err != nil || comment != "S. Ito" {
				t.Fatal(comment, err)
			}
			verifier, err := mofn.ParsePublicKey(suite, public)
			if err != nil {
				t.Fatal(err)
			}
			signer, err := OpenSigner(path, h.secret())
			if err != nil {
				t.Fatal(err)
			}
			if signer.KeyID() != id {
				t.Errorf("signs as %v, the file is %v", signer.KeyID(), id)
			}
			for _, message := range []string{"", "a release", strings.Repeat("long ", 100_000)} {
				sig, err := signer.Sign("security", []byte(message))
				if err != nil {
					t.Fatal(err)
				}
				if err := verifier.Verify("security", []byte(message), sig); err != nil {
					t.Error(err)
				}
				if verifier.Verify("quality", []byte(message), sig) == nil || verifier.Verify("security", []byte(message+"x"), sig) == nil {
					t.Error("another role, or another message, verifies")
				}
			}
			if err := signer.Close(); err != nil {
				t.Error(err)
			}
			if _, err := signer.Sign("security", nil); err == nil {
				t.Error("a closed key signs")
			}
		})
	}
}

// TestKeysStayInside: neither key can be read out or was ever outside, with the PIN or without.
func TestKeysStayInside(t *testing.T) {
	for _, suite := range suites() {
		h := newHSM(t)
		h.Token(t, "officer-1")
		_, file := h.generate(t, "officer-1", suite)
		u, err := ParseURI(file.Token)
		if err != nil {
			t.Fatal(err)
		}
		h.raw(t, "officer-1", func(s *session) {
			found, err := s.objects(u.ID, curveOf(suite))
			if err != nil {
				t.Fatal(err)
			}
			for what, o := range map[string]pkcs11.ObjectHandle{"private key": found.private, "AES key": found.wrap} {
				_, err := s.m.GetAttributeValue(s.handle, o, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_VALUE, nil)})
				if !is(err, pkcs11.CKR_ATTRIBUTE_SENSITIVE) {
					t.Errorf("%s %s: reading it gave %v", suite, what, err)
				}
				got, err := s.m.GetAttributeValue(s.handle, o, []*pkcs11.Attribute{
					pkcs11.NewAttribute(pkcs11.CKA_ALWAYS_SENSITIVE, nil), pkcs11.NewAttribute(pkcs11.CKA_NEVER_EXTRACTABLE, nil), pkcs11.NewAttribute(pkcs11.CKA_LOCAL, nil),
				})
				if err != nil {
					t.Fatal(err)
				}
				for _, a := range got {
					if !bytes.Equal(a.Value, []byte{1}) {
						t.Errorf("%s %s: attribute %#x is %v", suite, what, a.Type, a.Value)
					}
				}
				// Nor can the AES key carry it out: it wraps nothing, and neither is extractable.
				if _, err := s.m.(*pkcs11.Ctx).WrapKey(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_WRAP_PAD, nil)}, found.wrap, o); err == nil {
					t.Errorf("%s %s: was wrapped out of the token", suite, what)
				}
			}
		})
		h.raw(t, "officer-1", func(s *session) {
			o, err := s.object(u.ID, pkcs11.CKO_SECRET_KEY, pkcs11.CKK_AES, "AES key")
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.m.GetAttributeValue(s.handle, o, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_WRAP, nil), pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, nil)})
			if err != nil || !bytes.Equal(got[0].Value, []byte{0}) || !bytes.Equal(got[1].Value, []byte{0}) {
				t.Errorf("%s: the AES key may wrap or unwrap keys: %v, %v", suite, got, err)
			}
		})
		h.bare(t, func(s *session) { // nobody is logged in
			if _, err := s.objects(u.ID, curveOf(suite)); !errors.Is(err, ErrNoObject) {
				t.Errorf("%s: found without a PIN: %v", suite, err)
			}
		})
	}
}

// bare runs fn in a session without a login.
func (h *hsm) bare(t *testing.T, fn func(*session)) {
	t.Helper()
	m, err := load(h.uri(""))
	if err != nil {
		t.Fatal(err)
	}
	s := &session{m: m}
	if err := s.find(h.uri("")); err != nil {
		t.Fatal(err)
	}
	if s.handle, err = m.OpenSession(s.slot, pkcs11.CKF_SERIAL_SESSION); err != nil {
		t.Fatal(err)
	}
	fn(s)
	if err := unload(m); err != nil {
		t.Fatal(err)
	}
}

// TestCurveSpellings: CKA_EC_PARAMS is an OID in some tokens and a PrintableString in others.
func TestCurveSpellings(t *testing.T) {
	h := newHSM(t)
	h.Token(t, "officer-1")
	h.raw(t, "officer-1", func(s *session) {
		for _, c := range []struct {
			suite mofn.Suite
			param []byte
		}{
			{mofn.SuiteH1, curveOf(mofn.SuiteH1).oid},
			{mofn.SuiteH1, curveOf(mofn.SuiteH1).printable},
			{mofn.SuiteH2, curveOf(mofn.SuiteH2).oid},
		} {
			curve := curveOf(c.suite)
			public, _, err := s.pair(curve, []byte(fmt.Sprintf("%x", c.param)), "x", c.param)
			if err != nil {
				t.Fatalf("%X: %v", c.param, err)
			}
			stored, err := s.m.GetAttributeValue(s.handle, public, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, nil)})
			if err != nil || !bytes.Equal(stored[0].Value, c.param) {
				t.Errorf("the token stored %v, so that this test shows nothing of %X", stored, c.param)
			}
			if point, err := s.point(public, curve); err != nil || len(point) != curve.public {
				t.Errorf("%X: %X, %v", c.param, point, err)
			}
		}
		// Another curve is told by its parameters.
		other := curve{pkcs11.CKK_EC, "P-256", pkcs11.CKM_EC_KEY_PAIR_GEN, pkcs11.CKM_ECDSA, []byte{0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07}, nil, 65}
		public, _, err := s.pair(other, []byte("p256"), "x", other.oid)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.point(public, curveOf(mofn.SuiteH2)); !errors.Is(err, ErrOtherKey) || !strings.Contains(err.Error(), "another curve than P-384") {
			t.Errorf("P-256 taken for P-384: %v", err)
		}
	})
}

// BenchmarkSign is one approval's signature through SoftHSM; the bar is 50 ms (docs/performance.md).
func BenchmarkSign(b *testing.B) {
	for _, suite := range suites() {
		b.Run(string(suite), func(b *testing.B) {
			h := newHSM(b)
			h.Token(b, "officer-1")
			path, _ := h.generate(b, "officer-1", suite)
			signer, err := OpenSigner(path, h.secret())
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := signer.Sign("security", []byte("a release")); err != nil {
					b.Fatal(err)
				}
			}
			if err := signer.Close(); err != nil {
				b.Error(err)
			}
		})
	}
}
