// SPDX-License-Identifier: Apache-2.0

//go:build pkcs11 && cgo

package token

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/miekg/pkcs11"

	"sluice/pkg/mofn"
)

// session is the one session of this process: a module that is initialized, a token, and a user who is logged in.
type session struct {
	m      cryptoki
	slot   uint
	info   pkcs11.TokenInfo
	title  string // names the token for a person
	handle pkcs11.SessionHandle
}

// loader gives the module of a URI; [load], but for tests.
type loader func(URI) (cryptoki, error)

// open finds the one token of a URI that can do what a suite needs, and logs in. flags are those of C_OpenSession. The caller closes it.
func open(ld loader, u URI, suite mofn.Suite, flags uint, secret Secret) (_ *session, err error) {
	m, err := ld(u)
	if err != nil {
		return nil, err
	}
	s := &session{m: m}
	defer func() {
		if err != nil {
			err = errors.Join(err, unload(m)) // closes the session too, and logs out
		}
	}()
	if err := s.find(u); err != nil {
		return nil, err
	}
	if lack, err := s.lacks(); err != nil || lack[suite] != "" {
		return nil, errors.Join(err, missing(s.title, suite, lack))
	}
	if s.handle, err = m.OpenSession(s.slot, flags|pkcs11.CKF_SERIAL_SESSION); err != nil {
		return nil, s.failed("open a session", err)
	}
	return s, s.login(u, secret)
}

// close logs out and lets the module go. What is said of a token that is not there any more is not an error: there is nothing to log out of.
func (s *session) close() error {
	var errs []error
	for _, err := range []error{s.m.Logout(s.handle), s.m.CloseSession(s.handle)} {
		if err != nil && !gone(err) && s.present() {
			errs = append(errs, s.failed("log out", err))
		}
	}
	return errors.Join(append(errs, unload(s.m))...)
}

// title names a token for a person. What it says of itself is quoted: it is whatever somebody wrote there.
func title(slot uint, t pkcs11.TokenInfo) string {
	return fmt.Sprintf("token %q (serial %q, %s, slot %d)", t.Label, t.SerialNumber, strconv.Quote(strings.TrimSpace(t.ManufacturerID+" "+t.Model)), slot)
}

// find takes the one token that matches. Several are refused before a PIN is tried on the wrong one.
func (s *session) find(u URI) error {
	slots, err := s.m.GetSlotList(true)
	if err != nil {
		return fmt.Errorf("%w: the slots cannot be listed%s", ErrToken, ckr(err))
	}
	var found, others []string
	for _, slot := range slots {
		info, err := s.m.GetTokenInfo(slot)
		if err != nil || info.Flags&pkcs11.CKF_TOKEN_INITIALIZED == 0 {
			continue // an empty place
		}
		ok, err := s.matches(u, slot, info)
		if err != nil {
			return err
		}
		if !ok {
			others = append(others, title(slot, info))
			continue
		}
		found = append(found, title(slot, info))
		s.slot, s.info, s.title = slot, info, title(slot, info)
	}
	switch {
	case len(found) > 1:
		return fmt.Errorf("%w %s: %s; say which with serial=", ErrManyTokens, u.what(), strings.Join(found, ", "))
	case len(found) == 0 && len(others) == 0:
		return fmt.Errorf("%w %s: the module sees no token at all; is it plugged in, and initialized?", ErrNoToken, u.what())
	case len(found) == 0:
		return fmt.Errorf("%w %s: there is %s", ErrNoToken, u.what(), strings.Join(others, ", "))
	}
	return nil
}

// matches holds a token against the path attributes of a URI (RFC 7512 section 2.5): an attribute that is not there matches everything.
func (s *session) matches(u URI, slot uint, t pkcs11.TokenInfo) (bool, error) {
	lib, err := s.m.GetInfo()
	if err != nil {
		return false, fmt.Errorf("%w: C_GetInfo%s", ErrToken, ckr(err))
	}
	place, err := s.m.GetSlotInfo(slot)
	if err != nil {
		return false, fmt.Errorf("%w: C_GetSlotInfo of %d%s", ErrToken, slot, ckr(err))
	}
	for _, p := range []struct{ want, have string }{
		{u.Token, t.Label},
		{u.Manufacturer, t.ManufacturerID},
		{u.Serial, t.SerialNumber},
		{u.Model, t.Model},
		{u.LibraryManufacturer, lib.ManufacturerID},
		{u.LibraryDescription, lib.LibraryDescription},
		{u.LibraryVersion, fmt.Sprintf("%d.%d", lib.LibraryVersion.Major, lib.LibraryVersion.Minor)},
		{u.SlotManufacturer, place.ManufacturerID},
		{u.SlotDescription, place.SlotDescription},
		{u.SlotID, fmt.Sprint(slot)},
	} {
		if p.want != "" && p.want != strings.TrimRight(p.have, " \x00") {
			return false, nil
		}
	}
	return true, nil
}

// mechanism is what a suite asks of a token.
type mechanism struct {
	id   uint
	name string
}

func mechanisms(suite mofn.Suite) []mechanism {
	both := []mechanism{{pkcs11.CKM_AES_KEY_GEN, "CKM_AES_KEY_GEN"}, {pkcs11.CKM_AES_GCM, "CKM_AES_GCM"}}
	if suite == mofn.SuiteH2 {
		return append([]mechanism{{pkcs11.CKM_EC_KEY_PAIR_GEN, "CKM_EC_KEY_PAIR_GEN"}, {pkcs11.CKM_ECDSA, "CKM_ECDSA"}}, both...)
	}
	return append([]mechanism{{ckmECEdwardsKeyPairGen, "CKM_EC_EDWARDS_KEY_PAIR_GEN"}, {ckmEdDSA, "CKM_EDDSA"}}, both...)
}

// lacks says for each suite that signs which mechanisms are not there.
func (s *session) lacks() (map[mofn.Suite]string, error) {
	have := map[uint]bool{}
	list, err := s.m.GetMechanismList(s.slot)
	if err != nil {
		return nil, s.failed("list its mechanisms", err)
	}
	for _, m := range list {
		have[m.Mechanism] = true
	}
	out := map[mofn.Suite]string{}
	for _, suite := range []mofn.Suite{mofn.SuiteH1, mofn.SuiteH2} {
		var lack []string
		for _, m := range mechanisms(suite) {
			if !have[m.id] {
				lack = append(lack, m.name)
			}
		}
		out[suite] = strings.Join(lack, ", ")
	}
	return out, nil
}

// missing says which mechanism is missing, and which suite would do.
func missing(title string, suite mofn.Suite, lack map[mofn.Suite]string) error {
	other := map[mofn.Suite]mofn.Suite{mofn.SuiteH1: mofn.SuiteH2, mofn.SuiteH2: mofn.SuiteH1}[suite]
	advice := fmt.Sprintf("suite %s would do: make the key with --suite %s", other, other)
	if lack[other] != "" {
		advice = fmt.Sprintf("suite %s lacks %s: this token cannot hold a key of Sluice; keep it in a sealed file", other, lack[other])
	}
	return fmt.Errorf("%w: suite %s needs %s, which %s does not have; %s", ErrMechanism, suite, lack[suite], title, advice)
}

// login asks for the PIN and gives it to the token, once. A token that takes no PIN is not given one.
func (s *session) login(u URI, secret Secret) error {
	switch {
	case s.info.Flags&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return fmt.Errorf("%w: the PIN of %s is locked after too many wrong ones; its administrator (security officer PIN) can set a new one", ErrLocked, s.title)
	case s.info.Flags&pkcs11.CKF_USER_PIN_INITIALIZED == 0:
		return fmt.Errorf("%w: %s has no user PIN yet; set one with the tool of its maker", ErrLocked, s.title)
	}
	prompt := fmt.Sprintf("PIN of %s%s: ", s.title, tries(s.info.Flags))
	pin, err := secret.of(u.PINSource, prompt)
	if err != nil {
		return err
	}
	defer wipe(pin)
	err = s.m.Login(s.handle, pkcs11.CKU_USER, string(pin))
	if err == nil {
		return nil
	}
	now := s.info.Flags
	if info, err := s.m.GetTokenInfo(s.slot); err == nil {
		now = info.Flags
	}
	switch {
	case is(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN, pkcs11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN):
		return fmt.Errorf("%w: the PIN was not looked at, so nothing is signed; end the other user of %s in this process%s", ErrLoggedIn, s.title, ckr(err))
	case is(err, pkcs11.CKR_PIN_LOCKED), is(err, pkcs11.CKR_PIN_INCORRECT) && now&pkcs11.CKF_USER_PIN_LOCKED != 0:
		return fmt.Errorf("%w: the PIN of %s is locked now; its administrator (security officer PIN) can set a new one%s", ErrLocked, s.title, ckr(err))
	case is(err, pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE):
		return fmt.Errorf("%w, says %s%s%s", ErrPIN, s.title, left(now), ckr(err))
	case is(err, pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_USER_PIN_NOT_INITIALIZED):
		return fmt.Errorf("%w: %s wants another PIN set first; use the tool of its maker%s", ErrLocked, s.title, ckr(err))
	}
	return s.failed("log in", err)
}

// tries warns before a PIN is typed.
func tries(flags uint) string {
	switch {
	case flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return ", ONE TRY LEFT before it locks"
	case flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0:
		return ", wrong PINs were given before: it may lock soon"
	}
	return ""
}

// left says after a wrong PIN how many tries there are, as far as PKCS#11 tells.
func left(flags uint) string {
	switch {
	case flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0:
		return "; ONE try is left, then it locks: be sure, or ask its administrator"
	case flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0:
		return "; each wrong PIN brings it nearer to its lock, and it does not say how many tries are left"
	}
	return "; the token does not say how many tries are left"
}
