// SPDX-License-Identifier: Apache-2.0

//go:build pkcs11 && cgo

package token

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"sluice/pkg/mofn"
)

// want fails unless err is kind and says every word.
func want(t *testing.T, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%v\nis not: %v", err, kind)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%v\ndoes not say %q", err, w)
		}
	}
}

func mustFail(s Signer, err error) error {
	if err == nil {
		return errors.Join(errors.New("it was opened"), s.Close())
	}
	return err
}

// TestOpenRefuses: what an officer may do wrong, and what the tool answers.
func TestOpenRefuses(t *testing.T) {
	h := newHSM(t)
	h.Token(t, "officer-1")
	path, file := h.generate(t, "officer-1", mofn.SuiteH1)
	_, second := h.generate(t, "officer-1", mofn.SuiteH1)
	with := func(change func(*mofn.TokenKey)) error {
		k := *file
		k.Wrapped = bytes.Clone(k.Wrapped)
		change(&k)
		return mustFail(Open(&k, h.secret()))
	}
	uri := func(old, to string) error {
		return with(func(k *mofn.TokenKey) {
			if k.Token = strings.Replace(k.Token, old, to, 1); k.Token == file.Token {
				t.Fatalf("no %s in %s", old, file.Token)
			}
		})
	}

	wrong := Secret{File: h.Write(t, "wrong", "not the PIN\n")}
	want(t, mustFail(OpenSigner(path, wrong)), ErrPIN, path, `token "officer-1"`, "how many tries", "[CKR_PIN_INCORRECT, 0xA0]")
	want(t, mustFail(OpenSigner(path, Secret{})), ErrSecret)
	if err := mustFail(OpenSigner(path, Secret{File: h.Path("absent")})); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}

	module := "module-path=" + h.Module
	want(t, uri("?"+module, ""), ErrURI, "names no module", "?module-path=")
	want(t, uri(module, "module-path=/usr/lib/absent.so"), ErrModule, "no such file", "is it installed?")
	want(t, uri(module, "module-path=/etc/passwd"), ErrModule, "/etc/passwd does not load", "ldd")
	want(t, uri(module, "module-path=/etc"), ErrModule, "is not a file")
	want(t, uri(module, "module-name=absent"), ErrModule, "name it with module-path")
	want(t, uri("officer-1", "officer-2"), ErrNoToken, "token=officer-2", `there is token "officer-1"`)
	want(t, uri("type=private", "type=public"), ErrURI, "type is public")
	want(t, uri("id=", "object2="), ErrURI, "object2")
	want(t, uri("id=%", "id=%00%"), ErrNoObject, "has no private key (Ed25519) with id 00", "was the key deleted")

	want(t, with(func(k *mofn.TokenKey) { k.Wrapped[40] ^= 1 }), ErrWrapped, "take the file's backup")
	want(t, with(func(k *mofn.TokenKey) { k.Wrapped, k.Nonce = second.Wrapped, second.Nonce }), ErrWrapped)
	want(t, with(func(k *mofn.TokenKey) { k.Token = second.Token }), ErrOtherKey, file.ID().String(), "S. Ito")

	empty := newHSM(t)
	u := file.Token
	err := mustFail(Open(&mofn.TokenKey{Suite: file.Suite, Public: file.Public, Nonce: file.Nonce, Wrapped: file.Wrapped, Token: u}, empty.secret()))
	want(t, err, ErrNoToken, "no token at all", "plugged in")
}

// TestModuleOwner: a module that somebody else could have put there is not loaded.
func TestModuleOwner(t *testing.T) {
	h := newHSM(t)
	b, err := os.ReadFile(h.Module)
	if err != nil {
		t.Fatal(err)
	}
	own := h.Write(t, "own.so", string(b))
	if err := os.Chmod(own, 0o666); err != nil {
		t.Fatal(err)
	}
	_, err = List(URI{ModulePath: own})
	want(t, err, ErrModule, own, "belong to root")
	if err := os.Symlink(own, h.Path("link.so")); err != nil {
		t.Fatal(err)
	}
	_, err = List(URI{ModulePath: h.Path("link.so")})
	want(t, err, ErrModule, own, "belong to root")
	if os.Getuid() != 0 {
		t.Skip("not root: a module below a folder that others may write was NOT tried")
	}
	open := h.Path("open")
	if err := errors.Join(os.Mkdir(open, 0o755), os.WriteFile(filepath.Join(open, "m.so"), b, 0o644), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	_, err = List(URI{ModulePath: filepath.Join(open, "m.so")})
	want(t, err, ErrModule, open+" does not")
}

// TestTwoTokens: a PIN is never tried on a token that may be the wrong one.
func TestTwoTokens(t *testing.T) {
	h := newHSM(t)
	h.Token(t, "officer-1")
	_, file := h.generate(t, "officer-1", mofn.SuiteH1)
	h.Token(t, "officer-1")
	asked := Secret{Ask: func(string) ([]byte, error) { t.Error("a PIN was asked for"); return nil, errors.New("no") }}
	tokens, err := List(h.uri("officer-1"))
	if err != nil || len(tokens) != 2 {
		t.Fatal(tokens, err)
	}
	err = Generate(Request{URI: h.uri("officer-1"), Suite: mofn.SuiteH1, Secret: asked})
	want(t, err, ErrManyTokens, "token=officer-1", "serial=", tokens[0].Serial, tokens[1].Serial)
	s, err := Open(file, h.secret()) // its file names the serial number
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for _, token := range tokens {
		u, err := ParseURI(token.URI)
		if err != nil {
			t.Fatal(err)
		}
		if one, err := List(u); err != nil || len(one) != 1 || one[0].Serial != token.Serial {
			t.Errorf("%s names %v, %v", token.URI, one, err)
		}
	}
}

// TestMissingObjects: each of the three objects, deleted.
func TestMissingObjects(t *testing.T) {
	for what, pick := range map[string]func(keys) pkcs11.ObjectHandle{
		"private key (P-384)": func(k keys) pkcs11.ObjectHandle { return k.private },
		"public key (P-384)":  func(k keys) pkcs11.ObjectHandle { return k.public },
		"AES key":             func(k keys) pkcs11.ObjectHandle { return k.wrap },
	} {
		h := newHSM(t)
		h.Token(t, "officer-1")
		_, file := h.generate(t, "officer-1", mofn.SuiteH2)
		h.raw(t, "officer-1", func(s *session) {
			u, err := ParseURI(file.Token)
			if err != nil {
				t.Fatal(err)
			}
			found, err := s.objects(u.ID, curveOf(mofn.SuiteH2))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.m.DestroyObject(s.handle, pick(found)); err != nil {
				t.Fatal(err)
			}
		})
		want(t, mustFail(Open(file, h.secret())), ErrNoObject, "has no "+what)
	}
}

// TestOtherKeys: objects of the right id that are not the file's: a pair of its own, an AES key of its own, and keys that can be read.
func TestOtherKeys(t *testing.T) {
	h := newHSM(t)
	h.Token(t, "officer-1")
	_, file := h.generate(t, "officer-1", mofn.SuiteH1)
	u, err := ParseURI(file.Token)
	if err != nil {
		t.Fatal(err)
	}
	c := curveOf(mofn.SuiteH1)
	replace := func(make func(*session, keys)) {
		t.Helper()
		h.raw(t, "officer-1", func(s *session) {
			found, err := s.objects(u.ID, c)
			if err != nil {
				t.Fatal(err)
			}
			make(s, found)
		})
	}
	destroy := func(s *session, o pkcs11.ObjectHandle) {
		if err := s.m.DestroyObject(s.handle, o); err != nil {
			t.Fatal(err)
		}
	}
	aes := func(s *session, extra ...*pkcs11.Attribute) {
		if _, err := s.m.GenerateKey(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, append(wrapTemplate(u.ID, "x"), extra...)); err != nil {
			t.Fatal(err)
		}
	}
	replace(func(s *session, _ keys) { aes(s) })
	want(t, mustFail(Open(file, h.secret())), ErrNoObject, "more than one AES key")
	h = newHSM(t)
	h.Token(t, "officer-1")
	_, file = h.generate(t, "officer-1", mofn.SuiteH1)
	if u, err = ParseURI(file.Token); err != nil {
		t.Fatal(err)
	}
	replace(func(s *session, k keys) { destroy(s, k.wrap); aes(s) })
	want(t, mustFail(Open(file, h.secret())), ErrWrapped, "not the one that wrapped it")
	replace(func(s *session, k keys) {
		destroy(s, k.wrap)
		aes(s, pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true))
	})
	want(t, mustFail(Open(file, h.secret())), ErrReadable, "AES key")
	h.raw(t, "officer-1", func(s *session) {
		o, err := s.object(u.ID, pkcs11.CKO_SECRET_KEY, pkcs11.CKK_AES, "AES key")
		if err != nil {
			t.Fatal(err)
		}
		destroy(s, o)
		aes(s)
	})
	replace(func(s *session, k keys) {
		destroy(s, k.private)
		destroy(s, k.public)
		if _, _, err := s.pair(c, u.ID, "x", c.oid); err != nil {
			t.Fatal(err)
		}
	})
	want(t, mustFail(Open(file, h.secret())), ErrOtherKey, "is not the key "+file.ID().String())
}

// TestGenerateLeavesNothing: whatever fails, the token is as it was.
func TestGenerateLeavesNothing(t *testing.T) {
	h := newHSM(t)
	h.Token(t, "officer-1")
	full := errors.New("disk full")
	var kept *mofn.TokenKey
	err := Generate(Request{URI: h.uri("officer-1"), Suite: mofn.SuiteH1, Secret: h.secret(), Keep: func(k *mofn.TokenKey) error { kept = k; return full }})
	want(t, err, full)
	want(t, mustFail(Open(kept, h.secret())), ErrNoObject)
	h.raw(t, "officer-1", func(s *session) {
		if err := s.m.FindObjectsInit(s.handle, nil); err != nil {
			t.Fatal(err)
		}
		if left, _, err := s.m.FindObjects(s.handle, 10); err != nil || len(left) > 0 {
			t.Errorf("%d objects are left, %v", len(left), err)
		}
	})
	for _, u := range []URI{{ID: []byte{1}}, {Type: "private"}} {
		u.ModulePath = h.Module
		want(t, Generate(Request{URI: u, Suite: mofn.SuiteH1, Secret: h.secret()}), ErrURI, "leave them out")
	}
	want(t, Generate(Request{URI: h.uri("officer-1"), Suite: mofn.SuiteLink, Secret: h.secret()}), mofn.ErrKey)
}

// TestSoftHSMIsNamed: whoever makes a key in a software token is told what its PIN is worth.
func TestSoftHSMIsNamed(t *testing.T) {
	h := newHSM(t)
	h.Token(t, "officer-1")
	var notes []string
	err := Generate(Request{
		URI: h.uri("officer-1"), Suite: mofn.SuiteH1, Secret: h.secret(), Note: func(n string) { notes = append(notes, n) },
		Keep: func(*mofn.TokenKey) error { return nil },
	})
	if err != nil || len(notes) != 1 || !strings.Contains(notes[0], "software token") || !strings.Contains(notes[0], "at least 16 random characters") {
		t.Errorf("%q, %v", notes, err)
	}
}

// TestList: what a token lacks is told by suite, and no PIN is needed.
func TestList(t *testing.T) {
	h := newHSM(t)
	h.Token(t, "officer-1")
	tokens, err := List(URI{ModuleName: "softhsm2"})
	if err != nil || len(tokens) != 2 { // SoftHSM always shows one more, for the next token
		t.Fatal(tokens, err)
	}
	one, free := tokens[0], tokens[1]
	if one.Label != "officer-1" || len(one.State) != 0 || one.Lacks["H1"] != "" || one.Lacks["H2"] != "" || len(one.Lacks) != 2 {
		t.Errorf("%+v", one)
	}
	if strings.Join(free.State, ", ") != "not initialized, no user PIN" || free.URI != "" {
		t.Errorf("%+v", free)
	}
}
