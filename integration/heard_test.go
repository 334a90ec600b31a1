// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"sluice/integration/lab"
	"sluice/internal/admin"
	"sluice/internal/link/linktest"
)

// TestHeard follows one link with the real daemons through everything that it can do to a person: nothing heard yet, up and idle, a
// release that loses a fifth of its datagrams and stays short, a receiver that is restarted, a sender that is killed.
func TestHeard(t *testing.T) {
	s := newSite(t)
	addr := listening(t, s)
	relay, err := linktest.StartRelay(t.Context(), linktest.RelayOptions{Listen: "127.0.0.1:0", Forward: addr, Faults: linktest.Options{Seed: 11, Drop: 0.2}})
	must(t, err)
	t.Cleanup(func() { must(t, relay.Close()) })
	must(t, s.LowConfig("http://127.0.0.1:9", relay.Addr(), "300Mbit", ""))
	high := receive(t, s)
	says(t, s, "diode-receiver", "high.yaml", "link: nothing heard yet, ")

	low := startLow(t, s)
	says(t, s, "diode-receiver", "high.yaml", "link: up since ", "sender: idle; set to 300 Mbit/s, arriving ", ": idle, heard ")
	says(t, s, "bastion-packer", "low.yaml", "link: idle: heartbeats since ")

	dir, env := sealed(t, s, 1, 8*mib, 2)
	call(t, s, "bastion-packer", s.SendArgs(dir, relay.Addr(), "100Mbit", 1)...)
	id := env.ID.String()[:12]
	says(t, s, "diode-receiver", "high.yaml", "pass 1 of release "+id+", end of", "before this host's socket", "awaited "+id+": lab", " missing (",
		"Wait for the next pass; when the bastion is done with its passes, send one more there: bastion-packer send --pass 2 DIR")

	must(t, high.Signal(syscall.SIGKILL))
	_ = high.State()
	high = receive(t, s)
	says(t, s, "diode-receiver", "high.yaml", "link: up since ", "were sent before this process listened", "awaited "+id+": lab")

	must(t, low.Signal(syscall.SIGKILL))
	_ = low.State()
	says(t, s, "diode-receiver", "high.yaml", "link: DOWN since 20", "when last heard: idle; set to 300 Mbit/s", "Nothing arrives while the link is down")
	unready(t, s, "link: DOWN since 20")
	must(t, high.Signal(syscall.SIGKILL))
	_ = high.State()
	receive(t, s)
	says(t, s, "diode-receiver", "high.yaml", "link: DOWN: nothing authentic heard for ", "since this process began to listen")
	unready(t, s, "since this process began to listen")
}

// startLow starts the bastion's daemon and waits until it answers.
func startLow(t *testing.T, s *lab.Site) *lab.Daemon {
	t.Helper()
	d, err := s.StartBinary("bastion-packer", "low.yaml")
	must(t, err)
	t.Cleanup(d.Kill)
	must(t, s.WaitUp(t.Context(), d, "low.sock"))
	return d
}

// says waits until status says all of these.
func says(t *testing.T, s *lab.Site, binary, config string, words ...string) {
	t.Helper()
	var out, absent string
	err := lab.WaitFor(t.Context(), patience, "words of status", func() (bool, error) {
		out = call(t, s, binary, "status", "--config", s.Path(config))
		for _, absent = range words {
			if !strings.Contains(out, absent) {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		t.Fatalf("%v: %q is not in\n%s", err, absent, out)
	}
	t.Logf("%s status:\n%s", binary, out)
}

// unready wants 503 and the words at /readyz.
func unready(t *testing.T, s *lab.Site, words string) {
	t.Helper()
	err := admin.Fetch(t.Context(), "unix:"+s.Path("high.sock"), "/readyz", nil)
	var status *admin.StatusError
	if !errors.As(err, &status) || !strings.Contains(status.Body, words) {
		t.Errorf("/readyz: %v, want %q", err, words)
	}
}
