// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/integration/lab"
	"sluice/internal/link/linktest"
)

// stepRow is the line of a step.
var stepRow = regexp.MustCompile(`(?m)^[1-5] .*`)

// bottleneck is what the relay of TestCalibrate lets through, in bits a second.
const bottleneck = 50e6

// TestCalibrate ramps over a relay with a bottleneck, beside a running daemon and without one, at both MTUs. The advice is 90 % of the
// bottleneck, and whoever listened by himself leaves nothing behind.
func TestCalibrate(t *testing.T) {
	for _, c := range []struct {
		name, mtu string
		daemon    bool
	}{{"daemon", "1500", true}, {"alone", "9000", false}} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			t.Setenv("TMPDIR", s.Dir)
			addr := listening(t, s)
			relay, err := linktest.StartRelay(t.Context(), linktest.RelayOptions{Listen: "127.0.0.1:0", Forward: addr, Faults: linktest.Options{
				Limit: linktest.Limit{Rate: bottleneck, Queue: 60 * time.Millisecond, Overhead: 66},
			}})
			must(t, err)
			t.Cleanup(func() { must(t, relay.Close()) })
			if c.daemon {
				receive(t, s)
			}
			shown := make(chan string, 1)
			go func() {
				out, err := s.Call(t.Context(), "diode-receiver", "calibrate", "--config", s.Path("high.yaml"), "--wait", "1m")
				if err != nil {
					t.Errorf("diode-receiver calibrate: %v", err)
				}
				shown <- out
			}()
			if !c.daemon {
				waitBound(t, addr)
			}
			sent := call(t, s, "bastion-packer", "calibrate", "--trust", s.Path("trust.json"), "--fingerprint", s.Fingerprint, "--link-key", s.Path("keys", "link"),
				"--passphrase-file", s.Path("passphrase"), "--receiver", lab.Receiver, "--to", relay.Addr(), "--mtu", c.mtu,
				"--from", "30Mbit", "--until", "70Mbit", "--step-seconds", "1")
			out := <-shown
			t.Logf("%s\n%s", sent, out)
			if n := strings.Count(sent, "\nstep "); n != 5 {
				t.Errorf("%d steps sent", n)
			}
			if n := stepRow.FindAllString(out, -1); len(n) != 5 {
				t.Errorf("%d steps received, want 5:\n%s", len(n), out)
			}
			// Which step begins to drop is a matter of real time, and of what else this machine does: internal/link's TestCalibrate and the
			// table of JudgeCalibration hold the figures. Here somebody must come to one of the conclusions that the bottleneck allows.
			if !regexp.MustCompile(`It began to drop at |It dropped at the slowest step|all that the sender can send`).MatchString(out) {
				t.Errorf("the bottleneck was not seen:\n%s", out)
			}
			advice := regexp.MustCompile(`link.rate: (\d+)Mbit`).FindStringSubmatch(out)
			if advice != nil {
				if n, _ := strconv.Atoi(advice[1]); n > 55 {
					t.Errorf("advised %d Mbit", n)
				}
			}
			left, err := os.ReadDir(s.Dir)
			must(t, err)
			for _, e := range left {
				if strings.HasPrefix(e.Name(), "sluice-calibrate-") {
					t.Errorf("%s was left behind", e.Name())
				}
			}
			if c.daemon {
				again := call(t, s, "diode-receiver", "calibrate", "--config", s.Path("high.yaml"), "--last")
				if advice != nil && !strings.Contains(again, advice[0]) {
					t.Errorf("--last says something else:\n%s", again)
				}
				says(t, s, "diode-receiver", "high.yaml", ": calibration over, heard ")
			}
		})
	}
}

// waitBound waits until somebody holds a UDP port.
func waitBound(t *testing.T, addr string) {
	t.Helper()
	_, port, _ := strings.Cut(addr, ":")
	n, err := strconv.Atoi(port)
	must(t, err)
	line := regexp.MustCompile(`(?im)^ *\d+: [0-9a-f]+:` + strings.ToUpper(strconv.FormatInt(int64(n)|1<<16, 16)[1:]) + ` `)
	must(t, lab.WaitFor(t.Context(), patience, "the port to be bound", func() (bool, error) {
		b, err := os.ReadFile("/proc/net/udp")
		return line.Match(b), err
	}))
}
