// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"bytes"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"sluice/integration/lab"
	"sluice/internal/cli"
)

// TestWrongConfiguration: exit code 2, so that no supervisor tries again, and the words that lead to the mistake.
func TestWrongConfiguration(t *testing.T) {
	s := newSite(t)
	listening(t, s)
	good := readAll(t, s.Path("high.yaml"))
	wrong := strings.Repeat("0123456789abcdef", 4)
	for _, c := range []struct {
		name, old, new string
		words          []string
	}{
		{"unknown key", "\nlink:", "\nretian: 5m\nlink:", []string{"wrong.yaml:7", "retian", "retain"}},
		{"unknown key below", "receive_buffer:", "receive_bufer:", []string{"wrong.yaml:7", "receive_bufer", "receive_buffer"}},
		{"wrong fingerprint", s.Fingerprint, wrong, []string{s.Path("trust.json"), s.Fingerprint, wrong, "paper record"}},
		{"no fingerprint", "fingerprint: " + s.Fingerprint, "fingerprint: ''", []string{"trust.fingerprint", "64 hex digits"}},
		{"key of somebody else", "/keys/" + lab.Receiver + ",", "/keys/link,", []string{"keys.hpke", "/keys/link"}},
	} {
		text := bytes.Replace(good, []byte(c.old), []byte(c.new), 1)
		if bytes.Equal(text, good) {
			t.Fatalf("%s: the configuration has no %q", c.name, c.old)
		}
		must(t, os.WriteFile(s.Path("wrong.yaml"), text, 0o600))
		for _, verb := range []string{"check", "run"} {
			t.Run(c.name+"/"+verb, func(t *testing.T) {
				_, err := s.Call(t.Context(), "diode-receiver", verb, "--config", s.Path("wrong.yaml"))
				wantExit(t, err, cli.ExitUsage, c.words...)
			})
		}
	}
	if _, err := os.Stat(s.Path("registry")); err == nil {
		t.Error("a daemon with a wrong configuration made the registry's directory")
	}
}

// TestDrain stops the receiver in the middle of a pass with SIGTERM: exit code 0, nothing lost, and the next process goes on.
func TestDrain(t *testing.T) {
	s := newSite(t)
	socket, addr := heldSocket(t)
	must(t, s.HighConfig(addr, ""))
	start := func() *lab.Daemon {
		d, err := s.StartActivated("high.yaml", socket)
		return up(t, s, d, err)
	}
	dir, env := sealed(t, s, 1, 16*mib, 2)
	d := start()
	p := startPass(t, s, s.SendArgs(dir, addr, killRate, 1)...)
	p.until(env, 0.4)
	before := received(t, s, env)
	must(t, p.run(step))
	stop(t, d)
	d = start()
	if after := received(t, s, env); after.State == "RECEIVING" && after.Have < before.Have {
		t.Errorf("draining lost %d symbols", before.Have-after.Have)
	}
	p.finish()
	published(t, s, d, env)
	samePublished(t, s, dir, env)
	stop(t, d)
	clean(t, s)
}

// TestSecondSignalKills holds an unfinished request open, so that the drain has something to wait for.
func TestSecondSignalKills(t *testing.T) {
	s := newSite(t)
	listening(t, s)
	d := receive(t, s)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", s.Path("high.sock"))
	must(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("GET /status HTTP/1.1\r\nHost: local"))
	must(t, err)
	must(t, s.WaitUp(t.Context(), d, "high.sock")) // the daemon has accepted the connection before this one
	must(t, d.Signal(syscall.SIGTERM))
	must(t, lab.WaitFor(t.Context(), patience, "the admin socket to close", func() (bool, error) {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "unix", s.Path("high.sock"))
		if err == nil {
			_ = c.Close()
		}
		return err != nil, d.Died()
	}))
	must(t, d.Signal(syscall.SIGTERM))
	must(t, lab.WaitFor(t.Context(), patience, "death by the second signal", func() (bool, error) { return d.Died() != nil, nil }))
	if state := d.State(); state.Exited() || state.Sys().(syscall.WaitStatus).Signal() != syscall.SIGTERM {
		t.Errorf("the second SIGTERM ended the daemon with %s, want death by the signal", state)
	}
	d = receive(t, s)
	stop(t, d)
	clean(t, s)
}

// TestSlowClientDrain: somebody who holds a request open must not turn a clean stop into a failure.
func TestSlowClientDrain(t *testing.T) {
	s := newSite(t)
	listening(t, s)
	d := receive(t, s)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", s.Path("high.sock"))
	must(t, err)
	defer conn.Close()
	_, err = conn.Write([]byte("GET /status HTTP/1.1\r\nHost: local"))
	must(t, err)
	must(t, s.WaitUp(t.Context(), d, "high.sock"))
	stop(t, d)
}

// TestOneProcess: the journal belongs to one process, and everybody else is told so.
func TestOneProcess(t *testing.T) {
	s := newSite(t)
	listening(t, s)
	config := readAll(t, s.Path("high.yaml"))
	d := receive(t, s)
	second, err := lab.FreeUDP()
	must(t, err)
	must(t, s.HighConfig(second, ""))
	other := bytes.Replace(readAll(t, s.Path("high.yaml")), []byte("high.sock"), []byte("second.sock"), 1)
	must(t, os.WriteFile(s.Path("second.yaml"), other, 0o600))
	must(t, os.WriteFile(s.Path("high.yaml"), config, 0o600))
	for _, verb := range [][]string{{"run"}, {"fsck"}, {"import", s.Dir}} {
		_, err = s.Call(t.Context(), "diode-receiver", append(verb, "--config", s.Path("second.yaml"))...)
		wantExit(t, err, cli.ExitFailed, "another process holds", s.Path("high", "journal.db"))
	}
	must(t, d.Died())
	stop(t, d)
	clean(t, s)
}
