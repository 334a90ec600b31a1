// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/integration/lab"
)

// TestDeadLane sends a release over two one-way links between two namespaces. Behind the second, everything is dropped for the whole of the first pass,
// and nobody tells the sender. The receiver says so, and the second pass completes the release; over neither link anything comes back.
func TestDeadLane(t *testing.T) {
	s := newSite(t)
	diode := newDiodeOf(t, 2)
	_, one := lab.DiodeLane(0)
	_, two := lab.DiodeLane(1)
	to := one + ":4710," + two + ":4710"
	must(t, s.HighConfig(to, ""))
	d, err := s.Start("diode-receiver", nil, nil, "ip", "netns", "exec", diode.High, filepath.Join(s.Bin, "diode-receiver"), "run", "--config", s.Path("high.yaml"))
	d = up(t, s, d, err)
	dir, env := sealed(t, s, 1, 8*mib, 2)
	send := func(rate string, pass int) *exec.Cmd {
		args := slices.Concat([]string{"netns", "exec", diode.Low, filepath.Join(s.Bin, "bastion-packer")}, s.SendArgs(dir, to, rate, pass))
		return exec.CommandContext(t.Context(), "ip", args...)
	}

	must(t, diode.FaultCable(t.Context(), 1, "", "udp dport 4710 counter name hit drop"))
	first := send("6Mbit", 1) // some seven seconds: long enough for a lane to be called silent
	must(t, first.Start())
	must(t, lab.WaitFor(t.Context(), patience, "lane 2 to be called silent", func() (bool, error) {
		st, err := s.HighStatus(t.Context())
		if err != nil || len(st.Link.Lanes) != 2 {
			return false, err
		}
		words := strings.Join(st.Link.Words, "\n")
		return !st.Link.Lanes[0].Silent && st.Link.Lanes[1].Silent && strings.Contains(words, "lane 2: "+two+":4710 is SILENT since"), d.Died()
	}))
	must(t, first.Wait())
	if r := received(t, s, env); r.State != "RECEIVING" || r.Have < r.Symbols*4/10 || r.Have > r.Symbols*6/10 {
		t.Fatalf("after pass 1 over one of two lanes: %s, %d of %d symbols", r.State, r.Have, r.Symbols)
	}
	hits, err := diode.Hits(t.Context())
	must(t, err)
	if hits == 0 {
		t.Fatal("nothing was dropped: this test proves nothing")
	}

	must(t, diode.FaultCable(t.Context(), 1, ""))
	if out, err := send("300Mbit", 2).CombinedOutput(); err != nil {
		t.Fatalf("pass 2: %v: %s", err, out)
	}
	published(t, s, d, env)
	samePublished(t, s, dir, env)
	stop(t, d)
	wantCounters(t, diode, 0, 0)
	clean(t, s)
}
