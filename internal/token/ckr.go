// SPDX-License-Identifier: Apache-2.0

//go:build pkcs11 && cgo

package token

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/pkcs11"
)

// name is the name of a return value, CKR_PIN_INCORRECT.
func name(e pkcs11.Error) string {
	_, text, _ := strings.Cut(strings.TrimPrefix(e.Error(), "pkcs11: "), ": ")
	if text == "" {
		return "CKR, of the maker's own"
	}
	return text
}

// is says whether err is one of these return values.
func is(err error, values ...uint) bool {
	var e pkcs11.Error
	return errors.As(err, &e) && slices.Contains(values, uint(e))
}

// gone are the return values of a token that was taken out, or came back without its session.
func gone(err error) bool {
	return is(err, pkcs11.CKR_DEVICE_REMOVED, pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED, pkcs11.CKR_SESSION_HANDLE_INVALID,
		pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_USER_NOT_LOGGED_IN, pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_KEY_HANDLE_INVALID,
		pkcs11.CKR_SLOT_ID_INVALID, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)
}

// failed explains a call that failed while the session was open: doing says what was done.
func (s *session) failed(doing string, err error) error {
	if gone(err) || !s.present() {
		return fmt.Errorf("%w: %s was taken out, or its session ended, while it was asked to %s; put it back and try again%s", ErrGone, s.title, doing, ckr(err))
	}
	return fmt.Errorf("%w: %s could not %s; look at its own log, and at `keys token list`%s", ErrToken, s.title, doing, ckr(err))
}

// present says whether the slot still has the token that was opened.
func (s *session) present() bool {
	info, err := s.m.GetTokenInfo(s.slot)
	return err == nil && info.SerialNumber == s.info.SerialNumber && info.Label == s.info.Label
}
