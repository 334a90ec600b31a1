// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/integration/lab"
	"sluice/pkg/envelope"
)

// TestDamageHeals: what arrives complete and authentic and still is not what was sealed goes back to the assembler, and the next pass
// repairs it, in the same process.
func TestDamageHeals(t *testing.T) {
	s := newSite(t)
	addr := listening(t, s)
	d := receive(t, s)
	dir, env := sealed(t, s, 1, 8*mib, 2)
	flip(t, dir, 3*mib+17)
	// At this rate the damage is found while the pass goes on: its repair symbols are of the damaged bytes, too.
	_, err := s.SendUnchecked(t.Context(), dir, addr, "30Mbit")
	must(t, err)
	waitAction(t, s, d, env, "receiving again")
	if r := received(t, s, env); r.State != "RECEIVING" {
		t.Fatalf("the damaged release is %s", r.State)
	}
	flip(t, dir, 3*mib+17)
	call(t, s, "bastion-packer", s.SendArgs(dir, addr, "300Mbit", 1)...)
	published(t, s, d, env)
	samePublished(t, s, dir, env)
	stop(t, d)
	clean(t, s)
}

// TestDamageIsRefused: a sender that does not send what it sealed is refused in the end; and when it sends what it sealed after all,
// under the very same envelope, it is asked about again and taken.
func TestDamageIsRefused(t *testing.T) {
	s := newSite(t)
	addr := listening(t, s)
	d := receive(t, s)
	dir, env := sealed(t, s, 1, 8*mib, 2)
	flip(t, dir, 3*mib+17)
	for again := range 3 { // receiver.maxDamage
		if again > 0 {
			must(t, lab.WaitFor(t.Context(), patience, "the damage to be found", func() (bool, error) {
				return countOf(actions(t, s, env), "receiving again") == again, d.Died()
			}))
		}
		_, err := s.SendUnchecked(t.Context(), dir, addr, "300Mbit")
		must(t, err)
	}
	must(t, s.WaitState(t.Context(), d, env.ID.String(), "REJECTED", patience))
	if r := received(t, s, env); !strings.Contains(r.Error, "data.safetensors") || !strings.Contains(r.Error, "content block 3") {
		t.Errorf("the reason does not say what is damaged: %q", r.Error)
	}
	checkEvidence(t, s, env)
	if _, err := os.Stat(s.Path("registry", "releases")); err == nil {
		t.Error("something is published")
	}
	flip(t, dir, 3*mib+17)
	call(t, s, "bastion-packer", s.SendArgs(dir, addr, "300Mbit", 1)...)
	published(t, s, d, env)
	samePublished(t, s, dir, env)
	stop(t, d)
	clean(t, s)
}

// TestWorseEnvelope: an envelope with too few approvals does not take away what one with enough has brought.
func TestWorseEnvelope(t *testing.T) {
	s := newSite(t)
	addr := listening(t, s)
	d := receive(t, s)
	dir, env := sealed(t, s, 1, 16*mib, 2)
	worse := s.Path("worse")
	must(t, os.CopyFS(worse, os.DirFS(dir)))
	few := *env
	few.Approvals = env.Approvals[:1]
	must(t, os.WriteFile(filepath.Join(worse, "envelope.sluice"), marshalled(t, &few), 0o600))
	sendWorse, err := s.Unchecked(worse, addr, "800Mbit")
	must(t, err)
	p := startPass(t, s, s.SendArgs(dir, addr, killRate, 1)...)
	p.until(env, 0.2)
	_, err = sendWorse(t.Context())
	must(t, err)
	p.finish()
	published(t, s, d, env)
	samePublished(t, s, dir, env)
	refused := func(action string) bool { return strings.HasPrefix(action, "refused") }
	if trail := actions(t, s, env); !slices.ContainsFunc(trail, refused) || slices.Contains(trail, "accepted again") {
		t.Errorf("audit trail: %q", trail)
	}
	stop(t, d)
	clean(t, s)
}

// TestImportThenLink: an import that was refused half way leaves the way free for the link.
func TestImportThenLink(t *testing.T) {
	s := newSite(t)
	addr := listening(t, s)
	dir, env := sealed(t, s, 1, 8*mib, 2)
	medium := s.Path("medium")
	must(t, os.CopyFS(medium, os.DirFS(dir)))
	flip(t, medium, 5*mib)
	_, err := s.Call(t.Context(), "diode-receiver", "import", "--config", s.Path("high.yaml"), medium)
	wantRefusal(t, err, "data.safetensors")
	d := receive(t, s)
	call(t, s, "bastion-packer", s.SendArgs(dir, addr, "300Mbit", 1)...)
	published(t, s, d, env)
	samePublished(t, s, dir, env)
	stop(t, d)
	clean(t, s)
}

// flip changes one bit of the payload of a sealed release; twice is not at all.
func flip(t *testing.T, dir string, at int64) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "payload", "data.safetensors"), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	must(t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b[:], at)
	must(t, err)
}

func waitAction(t *testing.T, s *lab.Site, d *lab.Daemon, env *envelope.Envelope, action string) {
	t.Helper()
	must(t, lab.WaitFor(t.Context(), patience, action, func() (bool, error) { return slices.Contains(actions(t, s, env), action), d.Died() }))
}
