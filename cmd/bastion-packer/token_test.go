// SPDX-License-Identifier: Apache-2.0

//go:build pkcs11 && cgo

package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"sluice/internal/cli/clitest"
	"sluice/internal/token/tokentest"
	"sluice/pkg/mofn"
)

// TestToken runs testdata/token: an officer's way with a real SoftHSM.
func TestToken(t *testing.T) {
	h := tokentest.New(t)
	s := site(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/token",
		Setup: func(env *testscript.Env) error {
			env.Setenv("SOFTHSM2_CONF", h.Path("softhsm2.conf"))
			return s.Prepare(env)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exit": clitest.Exit, "expand": clitest.Expand, "request": request, "merge": merge, "fingerprint": fingerprint, "keyid": keyID,
		},
	})
}

// keyID is the script command `keyid NAME FILE`: it sets NAME to the id of a public key, or of a key in a token.
func keyID(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: keyid NAME FILE")
	}
	b := []byte(ts.ReadFile(args[1]))
	if mofn.IsTokenKey(b) {
		k, err := mofn.ParseTokenKey(b)
		ts.Check(err)
		ts.Setenv(args[0], k.ID().String())
		return
	}
	_, id, _, _, err := mofn.ParsePublicFile(b)
	ts.Check(err)
	ts.Setenv(args[0], id.String())
}
