// SPDX-License-Identifier: Apache-2.0

//go:build !pkcs11 || !cgo

package token

import (
	"errors"
	"strings"
	"testing"

	"sluice/pkg/mofn"
)

// TestNotBuilt: a build without tokens says how to get one that has them.
func TestNotBuilt(t *testing.T) {
	s, opened := Open(&mofn.TokenKey{}, Secret{})
	_, listed := List(URI{})
	for _, err := range []error{opened, listed, Generate(Request{})} {
		if !errors.Is(err, ErrNotBuilt) || !strings.Contains(err.Error(), "make build-pkcs11") {
			t.Error(err)
		}
	}
	if s != nil {
		t.Error("a signer")
	}
}
