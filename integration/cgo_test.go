// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// TestNoCgo: what verifies is pure Go (ADR 0014). The receiver is so with the tag too, which is more than the Makefile asks of it; the
// packer that people get by default is so without it; and the tag does what it is for.
func TestNoCgo(t *testing.T) {
	const library = "github.com/miekg/pkcs11"
	for _, c := range []struct {
		command, tags, cgo string
		linked             bool
	}{
		{"diode-receiver", "", "0", false},
		{"bastion-packer", "", "0", false},
		{"diode-receiver", "pkcs11", "0", false},
		{"bastion-packer", "pkcs11", "0", false},
		{"diode-receiver", "pkcs11", "1", false},
		{"bastion-packer", "", "1", false},
		{"bastion-packer", "pkcs11", "1", true},
	} {
		deps := dependencies(t, c.command, c.tags, c.cgo)
		if slices.Contains(deps, library) != c.linked {
			t.Errorf("%s, tags %q, CGO_ENABLED=%s: %s linked is %v, want %v", c.command, c.tags, c.cgo, library, !c.linked, c.linked)
		}
		if c.cgo == "0" && slices.Contains(deps, "runtime/cgo") {
			t.Errorf("%s, tags %q: links cgo", c.command, c.tags)
		}
		if c.command == "diode-receiver" && slices.Contains(deps, "sluice/internal/token") {
			t.Errorf("%s, tags %q: imports internal/token, which is the low side's", c.command, c.tags)
		}
	}
}

func dependencies(t *testing.T, command, tags, cgo string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags", tags, "./cmd/"+command)
	cmd.Dir, cmd.Env = root(t), append(os.Environ(), "CGO_ENABLED="+cgo)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 100 {
		t.Fatalf("%s has %d dependencies only", command, len(deps))
	}
	return deps
}
