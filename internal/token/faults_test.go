// SPDX-License-Identifier: Apache-2.0

//go:build pkcs11 && cgo

package token

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/miekg/pkcs11"

	"sluice/internal/token/tokentest"
	"sluice/pkg/mofn"
)

// faulty is SoftHSM with what it never does by itself: tries that run out, return values of real tokens, mechanisms that are missing.
type faulty struct {
	cryptoki
	flags     uint  // of the token, in addition
	login     error // of C_Login
	loginSets uint  // flags that a login adds
	sign      error
	lacks     []uint

	logins, logouts, finalized, loaded int
}

func (f *faulty) loader(u URI) (cryptoki, error) {
	m, err := load(u)
	if err != nil {
		return nil, err
	}
	f.loaded++
	f.cryptoki = m
	return f, nil
}

func (f *faulty) GetTokenInfo(slot uint) (pkcs11.TokenInfo, error) {
	info, err := f.cryptoki.GetTokenInfo(slot)
	info.Flags |= f.flags
	return info, err
}

func (f *faulty) Login(s pkcs11.SessionHandle, user uint, pin string) error {
	f.logins++
	f.flags |= f.loginSets
	if f.login != nil {
		return f.login
	}
	return f.cryptoki.Login(s, user, pin)
}

func (f *faulty) Logout(s pkcs11.SessionHandle) error { f.logouts++; return f.cryptoki.Logout(s) }
func (f *faulty) Finalize() error                     { f.finalized++; return f.cryptoki.Finalize() }

func (f *faulty) Sign(s pkcs11.SessionHandle, m []byte) ([]byte, error) {
	if f.sign != nil {
		return nil, f.sign
	}
	return f.cryptoki.Sign(s, m)
}

func (f *faulty) GetMechanismList(slot uint) ([]*pkcs11.Mechanism, error) {
	list, err := f.cryptoki.GetMechanismList(slot)
	return slices.DeleteFunc(list, func(m *pkcs11.Mechanism) bool { return slices.Contains(f.lacks, m.Mechanism) }), err
}

// ended fails unless every module that was loaded was finalized, and every user who was let in was sent out.
func (f *faulty) ended(t *testing.T, in int) {
	t.Helper()
	if f.finalized != f.loaded || f.logouts < in {
		t.Errorf("%d modules loaded, %d finalized; %d logged in, %d out", f.loaded, f.finalized, in, f.logouts)
	}
}

// TestPIN: the PIN is tried once, never on a locked token, and the answer says what is left.
func TestPIN(t *testing.T) {
	h := newHSM(t)
	h.Token(t, "officer-1")
	_, file := h.generate(t, "officer-1", mofn.SuiteH1)
	incorrect := pkcs11.Error(pkcs11.CKR_PIN_INCORRECT)
	for name, c := range map[string]struct {
		f      faulty
		kind   error
		words  []string
		logins int
		prompt string
	}{
		"wrong":          {faulty{login: incorrect}, ErrPIN, []string{"does not say how many tries are left", "0xA0"}, 1, ""},
		"wrong, low":     {faulty{login: incorrect, flags: pkcs11.CKF_USER_PIN_COUNT_LOW}, ErrPIN, []string{"nearer to its lock", "CKR_PIN_INCORRECT"}, 1, "may lock soon"},
		"wrong, last":    {faulty{login: incorrect, loginSets: pkcs11.CKF_USER_PIN_FINAL_TRY}, ErrPIN, []string{"ONE try is left"}, 1, ""},
		"last try asked": {faulty{login: incorrect, flags: pkcs11.CKF_USER_PIN_FINAL_TRY}, ErrPIN, []string{"ONE try is left"}, 1, "ONE TRY LEFT"},
		"now locked":     {faulty{login: incorrect, loginSets: pkcs11.CKF_USER_PIN_LOCKED}, ErrLocked, []string{"is locked now", "security officer"}, 1, ""},
		"locked":         {faulty{login: pkcs11.Error(pkcs11.CKR_PIN_LOCKED)}, ErrLocked, []string{"is locked now", "[CKR_PIN_LOCKED, 0xA4]"}, 1, ""},
		"locked before":  {faulty{flags: pkcs11.CKF_USER_PIN_LOCKED}, ErrLocked, []string{"is locked after too many"}, 0, ""},
		"expired":        {faulty{login: pkcs11.Error(pkcs11.CKR_PIN_EXPIRED)}, ErrLocked, []string{"wants another PIN"}, 1, ""},
		"logged in":      {faulty{login: pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN)}, ErrLoggedIn, []string{"the PIN was not looked at", "CKR_USER_ALREADY_LOGGED_IN"}, 1, ""},
		"another user":   {faulty{login: pkcs11.Error(pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN)}, ErrLoggedIn, nil, 1, ""},
		"removed":        {faulty{login: pkcs11.Error(pkcs11.CKR_DEVICE_REMOVED)}, ErrGone, []string{"log in", "put it back"}, 1, ""},
		"the maker's":    {faulty{login: pkcs11.Error(pkcs11.CKR_VENDOR_DEFINED + 7)}, ErrToken, []string{"of the maker's own, 0x80000007"}, 1, ""},
	} {
		t.Run(name, func(t *testing.T) {
			pin, asked := []byte(tokentest.PIN), ""
			_, err := openKey(c.f.loader, file, Secret{Ask: func(prompt string) ([]byte, error) { asked = prompt; return pin, nil }})
			want(t, err, c.kind, c.words...)
			if c.f.logins != c.logins {
				t.Errorf("%d logins, want %d", c.f.logins, c.logins)
			}
			if c.logins > 0 && !bytes.Equal(pin, make([]byte, len(pin))) {
				t.Errorf("the PIN was not wiped: %q", pin)
			}
			if c.logins > 0 && (!bytes.Contains([]byte(asked), []byte(`token "officer-1"`)) || !bytes.Contains([]byte(asked), []byte(c.prompt))) {
				t.Errorf("asked %q", asked)
			}
			c.f.ended(t, 0)
		})
	}
}

// TestLoggedInAlready: what crypto11 does wrong. Somebody else of this process is logged in; a wrong PIN must not sign.
func TestLoggedInAlready(t *testing.T) {
	h := newHSM(t)
	h.Token(t, "officer-1")
	path, _ := h.generate(t, "officer-1", mofn.SuiteH1)
	wrong := Secret{File: h.Write(t, "wrong", "not the PIN\n")}
	first, err := OpenSigner(path, h.secret())
	if err != nil {
		t.Fatal(err)
	}
	want(t, mustFail(OpenSigner(path, wrong)), ErrLoggedIn, "CKR_CRYPTOKI_ALREADY_INITIALIZED")
	s := *first.(*key).s // another session beside the first, as another library in this process would have one
	if s.handle, err = s.m.OpenSession(s.slot, pkcs11.CKF_SERIAL_SESSION); err != nil {
		t.Fatal(err)
	}
	want(t, s.login(URI{}, wrong), ErrLoggedIn, "nothing is signed", "CKR_USER_ALREADY_LOGGED_IN")
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	want(t, mustFail(OpenSigner(path, wrong)), ErrPIN)
}

// TestMechanisms: a token that lacks one says which, and which suite would do.
func TestMechanisms(t *testing.T) {
	h := newHSM(t)
	h.Token(t, "officer-1")
	try := func(suite mofn.Suite, lacks ...uint) error {
		f := faulty{lacks: lacks}
		defer func() { f.ended(t, 0) }()
		return generate(f.loader, Request{URI: h.uri("officer-1"), Suite: suite, Secret: h.secret(), Keep: func(*mofn.TokenKey) error { return nil }})
	}
	want(t, try(mofn.SuiteH1, ckmEdDSA), ErrMechanism, "suite H1 needs CKM_EDDSA", "suite H2 would do", "--suite H2")
	want(t, try(mofn.SuiteH2, pkcs11.CKM_ECDSA, pkcs11.CKM_EC_KEY_PAIR_GEN), ErrMechanism, "CKM_EC_KEY_PAIR_GEN, CKM_ECDSA", "--suite H1")
	want(t, try(mofn.SuiteH1, pkcs11.CKM_AES_GCM), ErrMechanism, "CKM_AES_GCM", "keep it in a sealed file")
	if err := try(mofn.SuiteH2, ckmEdDSA); err != nil {
		t.Error(err)
	}
}

// TestRemoved: a token that is taken out while it is open. The next signature says so; when it is back, the one after signs.
func TestRemoved(t *testing.T) {
	for _, suite := range suites() {
		t.Run(string(suite), func(t *testing.T) {
			h := newHSM(t)
			h.Token(t, "officer-1")
			_, file := h.generate(t, "officer-1", suite)
			f := faulty{}
			k, err := openKey(f.loader, file, h.secret())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := k.Sign("packer", nil); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(h.Path("tokens"), h.Path("pocket")); err != nil {
				t.Fatal(err)
			}
			_, err = k.Sign("packer", nil)
			want(t, err, ErrGone, `token "officer-1"`, "put it back and try again")
			_, err = k.Sign("packer", nil)
			if err == nil {
				t.Error("signed without a token")
			}
			if err := os.Rename(h.Path("pocket"), h.Path("tokens")); err != nil {
				t.Fatal(err)
			}
			sig, err := k.Sign("packer", []byte("x"))
			if err != nil {
				t.Fatal(err)
			}
			public, err := file.PublicKey()
			if err != nil {
				t.Fatal(err)
			}
			if err := public.Verify("packer", []byte("x"), sig); err != nil {
				t.Error(err)
			}
			if err := k.Close(); err != nil {
				t.Error(err)
			}
			f.ended(t, 2)
		})
	}
}

// TestSignFails: return values in the middle of a signature. A session that failed is never used again.
func TestSignFails(t *testing.T) {
	h := newHSM(t)
	h.Token(t, "officer-1")
	_, file := h.generate(t, "officer-1", mofn.SuiteH1)
	for value, kind := range map[uint]error{
		pkcs11.CKR_DEVICE_REMOVED: ErrGone, pkcs11.CKR_TOKEN_NOT_PRESENT: ErrGone, pkcs11.CKR_SESSION_HANDLE_INVALID: ErrGone,
		pkcs11.CKR_USER_NOT_LOGGED_IN: ErrGone, pkcs11.CKR_DEVICE_ERROR: ErrToken, pkcs11.CKR_FUNCTION_FAILED: ErrToken,
	} {
		f := faulty{}
		k, err := openKey(f.loader, file, h.secret())
		if err != nil {
			t.Fatal(err)
		}
		f.sign = pkcs11.Error(value)
		_, err = k.Sign("packer", nil)
		want(t, err, kind, "sign", pkcs11Name(value))
		f.sign = nil
		if _, err := k.Sign("packer", nil); err != nil {
			t.Errorf("%#x: not opened again: %v", value, err)
		}
		if f.loaded != 2 {
			t.Errorf("%#x: %d sessions, want a second one", value, f.loaded)
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
		f.ended(t, 2)
	}
	// A role that is none is the caller's mistake and not the token's.
	f := faulty{}
	k, err := openKey(f.loader, file, h.secret())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Sign("Not A Role", nil); !errors.Is(err, mofn.ErrRole) || k.s == nil {
		t.Errorf("%v, session %v", err, k.s)
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
}

func pkcs11Name(value uint) string { return name(pkcs11.Error(value)) }

// TestWrongPINIsNotTriedAgain: a daemon that tries again and again must not lock a token.
func TestWrongPINIsNotTriedAgain(t *testing.T) {
	h := newHSM(t)
	h.Token(t, "officer-1")
	_, file := h.generate(t, "officer-1", mofn.SuiteH1)
	f := faulty{}
	k, err := openKey(f.loader, file, h.secret())
	if err != nil {
		t.Fatal(err)
	}
	f.sign = pkcs11.Error(pkcs11.CKR_DEVICE_REMOVED)
	_, err = k.Sign("packer", nil)
	want(t, err, ErrGone)
	f.sign = nil
	h.Write(t, "pin", "somebody changed it\n")
	f.logins = 0
	for range 3 {
		_, err = k.Sign("packer", nil)
		want(t, err, ErrPIN)
	}
	want(t, err, ErrPIN, "not tried again")
	if f.logins != 1 {
		t.Errorf("%d logins", f.logins)
	}
	if err := k.Close(); err != nil {
		t.Error(err)
	}
	f.ended(t, 1)
}
