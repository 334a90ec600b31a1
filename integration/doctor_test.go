// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/integration/lab"
	"sluice/internal/doctor"
)

// TestDoctorOnADiode asks on both sides of a one-way pair of interfaces, which loopback cannot stand in for: the neighbour entry is
// there, and is missed when it goes.
func TestDoctorOnADiode(t *testing.T) {
	s := newSite(t)
	diode := newDiode(t)
	addr := lab.DiodeHigh + ":4710"
	must(t, s.HighConfig(addr, ""))
	must(t, s.LowConfig("http://127.0.0.1:9", addr, "300Mbit", ""))

	high := examine(t, diode.High, 0, filepath.Join(s.Bin, "diode-receiver"), "doctor", "--json", "--mtu", "9000", "--config", s.Path("high.yaml"))
	wantFindings(t, high, map[string]string{"interface": "high0: up", "mtu": "9000 bytes", "rp_filter": "0", "way_back": "none", "rcvbuf_errors": "0"})

	ask := []string{filepath.Join(s.Bin, "bastion-packer"), "doctor", "--json", "--config", s.Path("low.yaml")}
	low := examine(t, diode.Low, 0, ask...)
	wantFindings(t, low, map[string]string{"route": "by low0 from " + lab.DiodeLow, "neighbour": "permanent ", "interface": "low0: up", "rate": "300 Mbit/s on", "qdisc": "noqueue"})

	inside(t, diode.Low, "ip", "neigh", "del", lab.DiodeHigh, "dev", "low0")
	low = examine(t, diode.Low, 1, ask...)
	if f := low["neighbour"]; f.Status != doctor.Fail || !strings.HasPrefix(f.Fix, "ip neigh replace "+lab.DiodeHigh+" lladdr MAC dev low0 nud permanent") {
		t.Errorf("without a neighbour entry: %+v", f)
	}
	inside(t, diode.Low, "ip", "route", "del", lab.DiodeHigh)
	low = examine(t, diode.Low, 1, ask...)
	if f := low["route"]; f.Status != doctor.Fail || low["neighbour"].Status != doctor.Unknown {
		t.Errorf("without a route: %+v, %+v", f, low["neighbour"])
	}
	wantCounters(t, diode, 0, 0)
}

// examine runs doctor in a namespace, wants an exit code, and returns the findings by id.
func examine(t *testing.T, namespace string, code int, args ...string) map[string]doctor.Finding {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "ip", slices.Concat([]string{"netns", "exec", namespace}, args)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
		t.Fatalf("want exit code %d: %v: %s\n%s", code, err, errs.String(), out.String())
	}
	var list []doctor.Finding
	must(t, json.Unmarshal(out.Bytes(), &list))
	all := map[string]doctor.Finding{}
	for _, f := range list {
		all[f.ID] = f
	}
	return all
}

// wantFindings wants these to be ok, and to begin so.
func wantFindings(t *testing.T, all map[string]doctor.Finding, want map[string]string) {
	t.Helper()
	for id, seen := range want {
		if f := all[id]; f.Status != doctor.OK || !strings.HasPrefix(f.Seen, seen) {
			t.Errorf("%s: want %q: %+v", id, seen, f)
		}
	}
}
