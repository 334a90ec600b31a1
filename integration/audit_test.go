// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"sluice/integration/lab"
	"sluice/internal/link/linktest"
)

// withLogKey makes a log key and names it in a configuration of the site.
func withLogKey(t *testing.T, s *lab.Site, config string) (public string) {
	t.Helper()
	key := s.Path("log-of-" + config)
	call(t, s, "diode-receiver", "keys", "generate", "--use", "sign", "--out", key, "--passphrase-file", s.Path("passphrase"))
	b, err := os.ReadFile(s.Path(config))
	must(t, err)
	b = bytes.Replace(b, []byte(", passphrase_file:"), []byte(", log: "+key+", passphrase_file:"), 1)
	must(t, os.WriteFile(s.Path(config), b, 0o600))
	return key + ".pub"
}

// TestAudit: a release crosses, the daemon is killed and started again, and an auditor takes the log along twice: from the running daemon, and
// from the journal at rest. The second continues the first.
func TestAudit(t *testing.T) {
	s := newSite(t)
	w := newWire(t, listening(t, s), linktest.Options{})
	key := withLogKey(t, s, "high.yaml")
	d := receive(t, s)
	dir, env := sealed(t, s, 1, mib, 2)
	call(t, s, "bastion-packer", s.SendArgs(dir, w.to, "300Mbit", 1)...)
	published(t, s, d, env)
	call(t, s, "diode-receiver", "audit", "export", "--config", s.Path("high.yaml"), "--to", s.Path("visit1"))
	proof := call(t, s, "diode-receiver", "audit", "prove", "--config", s.Path("high.yaml"), env.ID.String())
	d.Kill()
	d = receive(t, s)
	stop(t, d)
	clean(t, s)
	call(t, s, "diode-receiver", "audit", "export", "--config", s.Path("high.yaml"), "--to", s.Path("visit2"))

	page := call(t, s, "diode-receiver", "audit", "verify", s.Path("visit2"), "--key", key, "--since", s.Path("visit1", "checkpoint"))
	t.Log(page)
	for _, words := range []string{"VERDICT    whole", "1 PUBLISHED; 1 proof", "2 approvals", "this log continues it", "1 start without a stop before", "stops 1; 1 fsck runs"} {
		if !strings.Contains(page, words) {
			t.Errorf("the page does not say %q", words)
		}
	}
	name := s.Path("one.tlog-proof")
	must(t, os.WriteFile(name, []byte(proof), 0o600))
	call(t, s, "bastion-packer", "audit", "verify-proof", name, "--key", key, "--release", env.ID.String())
	if _, err := s.Call(t.Context(), "diode-receiver", "audit", "verify", s.Path("visit1"), "--key", key, "--since", s.Path("visit2", "checkpoint")); err == nil {
		t.Error("the older log was taken for a continuation of the newer")
	}
}
