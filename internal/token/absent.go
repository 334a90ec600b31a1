// SPDX-License-Identifier: Apache-2.0

//go:build !pkcs11 || !cgo

package token

import "sluice/pkg/mofn"

// Open is [ErrNotBuilt]: this build has no code for tokens.
func Open(*mofn.TokenKey, Secret) (Signer, error) { return nil, ErrNotBuilt }

// Generate is [ErrNotBuilt].
func Generate(Request) error { return ErrNotBuilt }

// List is [ErrNotBuilt].
func List(URI) ([]Info, error) { return nil, ErrNotBuilt }
