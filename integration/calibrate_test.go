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
			m := regexp.MustCompile(`(?s)STEP +SAID.*\n5 .*It began to drop at about .*link.rate: (\d+)Mbit`).FindStringSubmatch(out)
			if m == nil {
				t.Fatal("no advice")
			}
			// The relay's queue holds 60 ms for a busy machine's sake, and a step of a second counts what it holds.
			if advice, _ := strconv.Atoi(m[1]); advice < 40 || advice > 49 {
				t.Errorf("advised %d Mbit", advice)
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
				if !strings.Contains(again, "link.rate: "+m[1]+"Mbit") {
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
