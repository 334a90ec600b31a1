// SPDX-License-Identifier: Apache-2.0

//go:build !pkcs11 || !cgo

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"sluice/internal/cli/clitest"
)

// TestNoToken runs testdata/notoken: the ordinary build, which has no cgo, and a key in a token.
func TestNoToken(t *testing.T) {
	s := site(t)
	var vectors []struct {
		File string `json:"file"`
	}
	if err := json.Unmarshal([]byte(read(t, "../../testdata/vectors/trust/tokenkeys.json")), &vectors); err != nil || len(vectors) == 0 {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/notoken",
		Setup: func(env *testscript.Env) error {
			if err := os.WriteFile(filepath.Join(env.WorkDir, "h1.tok"), []byte(vectors[0].File), 0o600); err != nil {
				return err
			}
			return s.Prepare(env)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exit": clitest.Exit},
	})
}
