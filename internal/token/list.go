// SPDX-License-Identifier: Apache-2.0

//go:build pkcs11 && cgo

package token

import (
	"errors"
	"fmt"

	"github.com/miekg/pkcs11"
)

// List shows the tokens that the module of a URI sees and that match it. No PIN is asked for.
func List(u URI) (_ []Info, err error) {
	m, err := load(u)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unload(m)) }()
	slots, err := m.GetSlotList(true)
	if err != nil {
		return nil, fmt.Errorf("%w: the slots cannot be listed%s", ErrToken, ckr(err))
	}
	var out []Info
	for _, slot := range slots {
		t, err := m.GetTokenInfo(slot)
		if err != nil {
			return nil, fmt.Errorf("%w: slot %d does not say what is in it%s", ErrToken, slot, ckr(err))
		}
		s := &session{m: m, slot: slot, info: t, title: title(slot, t)}
		if ok, err := s.matches(u, slot, t); err != nil || !ok {
			if err != nil {
				return nil, err
			}
			continue
		}
		lack, err := s.lacks()
		if err != nil {
			return nil, err
		}
		info := Info{
			Slot: slot, Label: t.Label, Manufacturer: t.ManufacturerID, Model: t.Model, Serial: t.SerialNumber,
			State: state(t.Flags), Lacks: map[string]string{},
		}
		for suite, what := range lack {
			info.Lacks[string(suite)] = what
		}
		name := URI{Token: t.Label, Serial: t.SerialNumber, ModulePath: u.ModulePath, ModuleName: u.ModuleName}
		if t.Flags&pkcs11.CKF_TOKEN_INITIALIZED != 0 { // an empty place has no name
			info.URI = name.String()
		}
		out = append(out, info)
	}
	return out, nil
}

// state says what is odd about a token.
func state(flags uint) (words []string) {
	for _, f := range []struct {
		set, odd bool
		word     string
	}{
		{flags&pkcs11.CKF_TOKEN_INITIALIZED != 0, false, "not initialized"},
		{flags&pkcs11.CKF_USER_PIN_INITIALIZED != 0, false, "no user PIN"},
		{flags&pkcs11.CKF_USER_PIN_LOCKED != 0, true, "PIN locked"},
		{flags&pkcs11.CKF_USER_PIN_FINAL_TRY != 0, true, "ONE PIN try left"},
		{flags&pkcs11.CKF_USER_PIN_COUNT_LOW != 0, true, "few PIN tries left"},
		{flags&pkcs11.CKF_WRITE_PROTECTED != 0, true, "write protected"},
	} {
		if f.set == f.odd {
			words = append(words, f.word)
		}
	}
	return words
}
