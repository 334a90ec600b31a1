// SPDX-License-Identifier: Apache-2.0

package token

import "errors"

// The errors of this package. Each message says what to do next, and ends with the PKCS#11 return value where there was one.
var (
	// ErrURI says that a PKCS#11 URI is not taken.
	ErrURI = errors.New("token: not a usable PKCS#11 URI")
	// ErrNotBuilt says that this binary has no code for tokens.
	ErrNotBuilt = errors.New("token: this build cannot use tokens: it was built without cgo; use bastion-packer built with `make build-pkcs11`")
	// ErrModule says that the token's library cannot be used.
	ErrModule = errors.New("token: the PKCS#11 module cannot be used")
	// ErrNoToken says that no token matches the URI.
	ErrNoToken = errors.New("token: no token matches")
	// ErrManyTokens says that several tokens match, and none was tried: a PIN tried on the wrong one costs one of its tries.
	ErrManyTokens = errors.New("token: more than one token matches")
	// ErrMechanism says that the token cannot do what the suite needs.
	ErrMechanism = errors.New("token: the token lacks what the suite needs")
	// ErrPIN says that the PIN is wrong.
	ErrPIN = errors.New("token: the PIN is wrong")
	// ErrLocked says that the token takes no PIN any more, or never had one.
	ErrLocked = errors.New("token: the token takes no PIN")
	// ErrLoggedIn says that somebody else in this process is logged in: whoever asks now has not shown a PIN.
	ErrLoggedIn = errors.New("token: this process is logged in already")
	// ErrNoObject says that the token lacks a key, or has it twice.
	ErrNoObject = errors.New("token: the key is not in the token")
	// ErrReadable says that the token would give a key away.
	ErrReadable = errors.New("token: the key can be read out of the token")
	// ErrOtherKey says that the key in the token is not the one of the file.
	ErrOtherKey = errors.New("token: the token holds another key")
	// ErrWrapped says that the seed in the file does not unwrap.
	ErrWrapped = errors.New("token: the wrapped seed does not unwrap")
	// ErrGone says that the token was taken out, or its session ended.
	ErrGone = errors.New("token: the token is gone")
	// ErrToken says that the token failed in another way.
	ErrToken = errors.New("token: the token failed")
	// ErrSecret says that there is nobody and nothing to ask for the PIN or the passphrase.
	ErrSecret = errors.New("token: no PIN and no passphrase")
)
