// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// unitDir is where the units stand, seen from this package.
const unitDir = "../deploy/systemd"

// units are the unit files as a machine would have them. threshold is the highest exposure allowed, in tenths, as systemd-analyze security
// counts it; the most exposed packages of a distribution reach 96.
func units() []struct {
	name, unit, dropIn string
	threshold          string
} {
	return []struct {
		name, unit, dropIn string
		threshold          string
	}{
		{"receiver, registry in a directory", "diode-receiver.service", "", "5"},
		{"receiver, registry on S3", "diode-receiver.service", "diode-receiver.service.d/s3.conf", "10"},
		{"receiver that makes tickets", "diode-receiver.service", "diode-receiver.service.d/ticket.conf", "5"},
		{"packer", "bastion-packer.service", "", "12"},
	}
}

func analyze(t *testing.T) string {
	t.Helper()
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("SKIPPED: no systemd-analyze on this machine: the hardening of the units is NOT checked")
	}
	return tool
}

// install copies the units into a directory of their own, as deployed, but with commands that exist here: verify looks
// for them.
func install(t *testing.T, dropIn string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"diode-receiver.service", "diode-receiver.socket", "bastion-packer.service", dropIn} {
		if name == "" {
			continue
		}
		text, err := os.ReadFile(filepath.Join(unitDir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		here := regexp.MustCompile(`(?m)^(Exec\w+=)/usr/bin/(bastion-packer|diode-receiver) `).ReplaceAllString(string(text), "${1}/bin/true ")
		if err := os.WriteFile(filepath.Join(dir, name), []byte(here), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestUnitsAreHardened asserts the exposure of each unit offline, and that the assertion can fail.
func TestUnitsAreHardened(t *testing.T) {
	tool := analyze(t)
	for _, u := range units() {
		t.Run(u.name, func(t *testing.T) {
			path := filepath.Join(install(t, u.dropIn), u.unit)
			out, err := security(t, tool, path, u.threshold)
			if err != nil {
				t.Errorf("exposure over %s tenths: %v\n%s", u.threshold, err, out)
			}
			t.Log(lastLine(out))
			if out, err := security(t, tool, path, "1"); err == nil {
				t.Errorf("the threshold has no effect:\n%s", out)
			}
		})
	}
}

func security(t *testing.T, tool, path, threshold string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), tool, "security", "--offline=true", "--no-pager", "--threshold="+threshold, path).CombinedOutput()
	return string(out), err
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

// TestUnitsVerify has systemd read each unit: an unknown key, a bad value or a missing reference is a line of output.
func TestUnitsVerify(t *testing.T) {
	tool := analyze(t)
	for _, u := range units() {
		t.Run(u.name, func(t *testing.T) {
			if out := verify(t, tool, filepath.Join(install(t, u.dropIn), u.unit)); out != "" {
				t.Errorf("systemd-analyze verify says:\n%s", out)
			}
		})
	}
	t.Run("socket", func(t *testing.T) {
		if out := verify(t, tool, filepath.Join(install(t, ""), "diode-receiver.socket")); out != "" {
			t.Errorf("systemd-analyze verify says:\n%s", out)
		}
	})
	t.Run("a planted mistake is found", func(t *testing.T) {
		path := filepath.Join(install(t, ""), "bastion-packer.service")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), "NoNewPrivileges=yes", "NoNewPriviliges=yes", 1)), 0o644); err != nil {
			t.Fatal(err)
		}
		if out := verify(t, tool, path); !strings.Contains(out, "NoNewPriviliges") {
			t.Errorf("it says %q", out)
		}
	})
}

// verify returns what systemd says about our unit. The files it reads for other units of this machine are not our business.
func verify(t *testing.T, tool, path string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), tool, "verify", "--man=no", "--recursive-errors=no", path).CombinedOutput()
	var ours []string
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "diode-receiver") || strings.Contains(line, "bastion-packer") || strings.Contains(line, filepath.Dir(path)) {
			ours = append(ours, line)
		}
	}
	if err != nil && len(ours) == 0 {
		t.Fatalf("systemd-analyze verify: %v\n%s", err, out)
	}
	return strings.Join(ours, "")
}

// TestUnitsSay asserts what no analyser knows to be essential here.
func TestUnitsSay(t *testing.T) {
	for file, lines := range map[string][]string{
		"diode-receiver.service": {
			"Type=notify", "Restart=always", "RestartPreventExitStatus=2", "WatchdogSec=60", "StartLimitIntervalSec=0",
			"Requires=diode-receiver.socket", "PrivateNetwork=yes", "RestrictAddressFamilies=AF_UNIX", "IPAddressDeny=any",
			"LimitCORE=0", "MemorySwapMax=0", // keys must reach no disk
			"LimitNICE=-10", "CPUWeight=400", // the process that faces the link goes before others
			"ExecStart=/usr/bin/diode-receiver run --config /etc/sluice/diode-receiver.yaml",
		},
		"diode-receiver.socket": {"ListenDatagram=0.0.0.0:4710", "ReceiveBuffer=64M", "FreeBind=yes", "FileDescriptorName=link"},
		"bastion-packer.service": {
			"Type=notify", "Restart=always", "RestartPreventExitStatus=2", "WatchdogSec=120", "LimitCORE=0", "MemorySwapMax=0",
			"ExecStart=/usr/bin/bastion-packer run --config /etc/sluice/bastion-packer.yaml",
		},
	} {
		text, err := os.ReadFile(filepath.Join(unitDir, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			if !strings.Contains(string(text), "\n"+line+"\n") {
				t.Errorf("%s does not say %s", file, line)
			}
		}
	}
}
