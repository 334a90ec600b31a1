// SPDX-License-Identifier: Apache-2.0

// Package tokentest gives tests a SoftHSM of their own: a directory of tokens that nothing else uses, named by SOFTHSM2_CONF for as long as
// the test runs, so that no token of the machine is ever touched.
package tokentest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// PIN opens every token.
const PIN = "correct horse battery"

// HSM is a SoftHSM.
type HSM struct {
	Dir    string // of the test
	Module string
	PIN    string // file of the PIN
}

// New skips aloud where there is no SoftHSM. CI has it (.ci/run).
func New(t testing.TB) *HSM {
	t.Helper()
	var module string
	for _, glob := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/*-linux-gnu/softhsm/libsofthsm2.so", "/usr/lib64/pkcs11/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so"} {
		if found, err := filepath.Glob(glob); err == nil && len(found) > 0 && module == "" {
			module = found[0]
		}
	}
	if _, err := exec.LookPath("softhsm2-util"); err != nil || module == "" {
		t.Skip("SoftHSM is not here, so that NOTHING was tested with a token: apt-get install softhsm2 opensc")
	}
	h := &HSM{Dir: t.TempDir(), Module: module}
	h.PIN = h.Write(t, "pin", PIN+"\n")
	if err := os.Mkdir(h.Path("tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	conf := h.Write(t, "softhsm2.conf", fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\n", h.Path("tokens")))
	t.Setenv("SOFTHSM2_CONF", conf)
	return h
}

// Path is a file of the test. Tokens are below tokens.
func (h *HSM) Path(name string) string { return filepath.Join(h.Dir, name) }

// Write writes a file of the test.
func (h *HSM) Write(t testing.TB, name, text string) string {
	t.Helper()
	if err := os.WriteFile(h.Path(name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return h.Path(name)
}

// Token makes a token.
func (h *HSM) Token(t testing.TB, label string) {
	t.Helper()
	Run(t, "softhsm2-util", "--module", h.Module, "--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", "12345678")
}

// Run runs a program and gives what it says.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
