// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"sluice/integration/lab"
	"sluice/internal/receiver"
	"sluice/internal/site"
)

var proposalWords = regexp.MustCompile(`(?m)^WORDS +(\S+ \S+)`)

// TestRotationOverLink: officers propose and sign the next trust object with the verbs of the command line, it crosses the link in
// a bulletin, sits in quarantine, survives a SIGKILL, and takes effect on both sides. Then the bastion falls silent, and the receiver says so.
func TestRotationOverLink(t *testing.T) {
	s := &lab.Site{Bin: newSite(t).Bin, Dir: t.TempDir(), Watched: true}
	must(t, s.Setup(t.Context()))
	t.Cleanup(func() { showLogs(t, s) })
	addr := listening(t, s)
	must(t, s.LowConfig("http://127.0.0.1:9", addr, "300Mbit", ""))
	high := receive(t, s)
	low := startLow(t, s)
	awaitSite(t, s, high, "a first snapshot", func(st site.Status) bool { return st.Freshness.State == site.Fresh })

	common := []string{"--drop-box", s.Path("dropbox"), "--trust", s.Path("trust.json"), "--fingerprint", s.Fingerprint}
	out := call(t, s, "bastion-packer", append([]string{"trust", "propose", "--epoch", "data/lab=3/1"}, common...)...)
	m := proposalWords.FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("the proposal shows no words:\n%s", out)
	}
	for _, officer := range []string{"a.roy", "s.ito", "q.tan"} {
		call(t, s, "bastion-packer", append([]string{
			"trust", "approve", "--key", s.Path("keys", officer), "--passphrase-file", s.Path("passphrase"), "--confirm", m[1],
		}, common...)...)
	}
	awaitSite(t, s, high, "version 2 in quarantine, or in effect", func(st site.Status) bool { return st.Newest == 2 })
	high.Kill()
	high = receive(t, s)
	awaitSite(t, s, high, "version 2 in effect", func(st site.Status) bool { return st.Version == 2 && st.Freshness.State == site.Fresh })
	if shown := call(t, s, "diode-receiver", "status", "--config", s.Path("high.yaml")); !strings.Contains(shown, "trust object 2 in effect; fresh: snapshot ") {
		t.Errorf("status says:\n%s", shown)
	}
	low.Kill()
	awaitSite(t, s, high, "STALE", func(st site.Status) bool { return st.Freshness.State == site.Stale })
	if _, err := os.Stat(s.Path("second-place")); err != nil {
		t.Error(err)
	}
}

// awaitSite waits until the receiver knows something of trust.
func awaitSite(t *testing.T, s *lab.Site, d *lab.Daemon, what string, done func(site.Status) bool) {
	t.Helper()
	var last receiver.Status
	err := lab.WaitFor(t.Context(), patience, what, func() (bool, error) {
		st, err := s.HighStatus(t.Context())
		if err != nil {
			return false, d.Died()
		}
		last = st
		return done(st.Site), nil
	})
	if err != nil {
		t.Fatalf("%v; the receiver says %q", err, last.Site.Words)
	}
}
