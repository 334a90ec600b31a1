// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sluice/integration/lab"
)

// TestNothingComesBack sends a release between two network namespaces, and lets the kernel count what tries to go the other way.
func TestNothingComesBack(t *testing.T) {
	s := newSite(t)
	diode := newDiode(t)

	addr := lab.DiodeHigh + ":4710"
	must(t, s.HighConfig(addr, ""))
	d, err := s.Start("diode-receiver", nil, nil, "ip", "netns", "exec", diode.High, filepath.Join(s.Bin, "diode-receiver"), "run", "--config", s.Path("high.yaml"))
	d = up(t, s, d, err)
	dir, env := sealed(t, s, 1, 16*mib, 2)
	inside(t, diode.Low, slices.Concat([]string{filepath.Join(s.Bin, "bastion-packer")}, s.SendArgs(dir, addr, "300Mbit", 1))...)
	published(t, s, d, env)
	samePublished(t, s, dir, env)
	front := frontOf(t, d.PID())
	checkSockets(t, d.PID(), s.Path("high.sock"), front)
	checkSockets(t, front, "", d.PID())
	stop(t, d)
	wantCounters(t, diode, 0, 0)

	t.Log("the counters count: a datagram sent back on purpose is seen, and stopped")
	must(t, diode.LetOut(t.Context()))
	inside(t, diode.High, "bash", "-c", "echo back >/dev/udp/"+lab.DiodeLow+"/4711")
	wantCounters(t, diode, 1, 0)
}

// newDiode gives the test two network namespaces with a one-way link between them.
func newDiode(t *testing.T) *lab.Diode {
	t.Helper()
	return newDiodeOf(t, 1)
}

// newDiodeOf gives the test one with several links.
func newDiodeOf(t *testing.T, cables int) *lab.Diode {
	t.Helper()
	diode, err := lab.NewDiodeOf(t.Context(), cables)
	if errors.Is(err, lab.ErrNoDiode) {
		t.Skipf("SKIPPED: %v. It needs root, ip, sysctl and nft (apt-get install nftables iproute2)", err)
	}
	must(t, err)
	t.Cleanup(func() { _ = diode.Close(context.WithoutCancel(t.Context())) })
	return diode
}

func wantCounters(t *testing.T, diode *lab.Diode, tried, back int64) {
	t.Helper()
	gotTried, gotBack, err := diode.Counters(t.Context())
	must(t, err)
	if gotTried != tried || gotBack != back {
		t.Errorf("%d packets tried to leave the high side and %d came back; want %d and %d", gotTried, gotBack, tried, back)
	}
}

func inside(t *testing.T, namespace string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "ip", slices.Concat([]string{"netns", "exec", namespace}, args)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("in %s: %v\n%s", namespace, err, lab.LastLines(string(out), 8))
	}
}

// TestReceiverSockets looks at what the receiver's process has open after a transfer, where there are no namespaces.
func TestReceiverSockets(t *testing.T) {
	s := newSite(t)
	addr := listening(t, s)
	d := receive(t, s)
	dir, env := sealed(t, s, 1, 8*mib, 2)
	call(t, s, "bastion-packer", s.SendArgs(dir, addr, "300Mbit", 1)...)
	published(t, s, d, env)
	front := frontOf(t, d.PID())
	checkSockets(t, d.PID(), s.Path("high.sock"), front)
	checkSockets(t, front, "", d.PID())
}

// frontOf is the process that faces the link: the daemon's only child.
func frontOf(t *testing.T, daemon int) int {
	t.Helper()
	list, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", daemon))
	must(t, err)
	var children []string
	for _, name := range list {
		b, err := os.ReadFile(name)
		must(t, err)
		children = append(children, strings.Fields(string(b))...)
	}
	if len(children) != 1 {
		t.Fatalf("the daemon has the children %v, want one", children)
	}
	pid, err := strconv.Atoi(children[0])
	must(t, err)
	return pid
}

var socketLink = regexp.MustCompile(`^socket:\[(\d+)\]$`)

// checkSockets wants exactly one UDP socket, one pair that joins it to the other process, and beside them only sockets of the admin
// address, if there is one.
func checkSockets(t *testing.T, pid int, admin string, other int) {
	t.Helper()
	kinds := map[string]string{}
	for _, table := range []string{"udp", "udp6", "udplite", "udplite6", "tcp", "tcp6", "raw", "raw6", "icmp", "icmp6", "packet", "netlink", "unix"} {
		for inode, line := range netTable(t, pid, table) {
			kinds[inode] = table + "\t" + line
		}
	}
	count := map[string]int{}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	must(t, err)
	for _, fd := range fds {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name()))
		m := socketLink.FindStringSubmatch(target)
		if err != nil || m == nil {
			continue // closed meanwhile, or no socket
		}
		table, line, _ := strings.Cut(kinds[m[1]], "\t")
		isPair := table == "unix" && !strings.Contains(line, "/")
		if isPair {
			table = "pair"
		}
		count[table]++
		if table != "udp" && !isPair && (table != "unix" || admin == "" || !strings.Contains(line, admin)) {
			t.Errorf("descriptor %s is a socket that nobody asked for: %q %s", fd.Name(), table, line)
		}
	}
	if count["udp"] != 1 || count["pair"] != 1 || (count["unix"] > 0) != (admin != "") {
		t.Errorf("sockets %v of process %d: want one UDP socket, one to process %d, and the admin socket in the daemon only", count, pid, other)
	}
}

// netTable gives the lines of a table of /proc/<pid>/net by inode. Where the inode stands depends on the table.
func netTable(t *testing.T, pid int, table string) map[string]string {
	t.Helper()
	column := map[string]int{"unix": 6, "packet": 8, "netlink": 9}
	at, special := column[table]
	if !special {
		at = 9
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
	if errors.Is(err, os.ErrNotExist) {
		return nil // not in this kernel
	}
	must(t, err)
	lines := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > at && f[at] != "0" {
			lines[f[at]] = strings.TrimSpace(line)
		}
	}
	return lines
}
