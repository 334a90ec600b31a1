// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/doctor"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden")

// worn is a host as one finds it: fresh from the installer.
func worn() (*view, asked) {
	v, w := host(), want()
	for _, change := range []func(*view, *asked){
		put("proc/sys/net/core/rmem_max", "212992"), put("proc/sys/net/core/netdev_max_backlog", "1000"),
		put("proc/net/udp", udpHeader), drop("proc/sys/net/ipv4/udp_mem"),
		on(func(v *view) {
			v.ReceiveBuffer.Value, v.Interface.Value.MTU, v.Ring.Value.RX, v.Ring.Err = 212992, 1500, 256, nil
			v.Qdiscs.Value, v.Neighbour.Value, v.Clock.Value.Synchronised = []string{"fq_codel"}, doctor.Neighbour{}, false
		}),
	} {
		change(v, &w)
	}
	return v, w
}

// TestPrint holds what an operator reads, and what a program reads, against files that a person looked at.
func TestPrint(t *testing.T) {
	v, w := worn()
	for name, run := range map[string]func() ([]doctor.Finding, bool){
		"receiver.txt":  func() ([]doctor.Finding, bool) { return doctor.Receiver(v, w), false },
		"sender.txt":    func() ([]doctor.Finding, bool) { return doctor.Sender(v, w), false },
		"receiver.json": func() ([]doctor.Finding, bool) { return doctor.Receiver(v, w), true },
	} {
		var out bytes.Buffer
		all, asJSON := run()
		if err := doctor.Report(&out, all, asJSON); !errors.Is(err, doctor.ErrFailed) || !strings.Contains(err.Error(), "failed; each one's fix stands below it") {
			t.Errorf("%s: %v, want ErrFailed", name, err)
		}
		golden(t, name+".golden", out.String())
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got), go test -update rewrites it:\n%s", path, d)
	}
}

// TestReport: only a failure is one, and a host cannot write to the operator's terminal.
func TestReport(t *testing.T) {
	var out bytes.Buffer
	all := []doctor.Finding{
		{ID: "a", Status: ok, Seen: "x\x1b[2J", Wanted: "y"},
		{ID: "bcd", Status: warn, Seen: "größe", Wanted: "y", Why: "w", Fix: "line\nbreak <&>"},
		{ID: "e", Status: unknown, Wanted: "y", Why: "w", Reason: "r"},
	}
	if err := doctor.Report(&out, all, false); err != nil {
		t.Error(err)
	}
	const text = `ok       a    x?[2J  want y
warn     bcd  größe  want y
         why: w
         fix: line?break <&>
unknown  e    ?      want y
         unknown: r
         why: w
1 ok, 1 warn, 0 fail, 1 unknown
`
	if d := cmp.Diff(text, out.String()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	out.Reset()
	var back []doctor.Finding
	if err := errors.Join(doctor.Report(&out, all, true), json.Unmarshal(out.Bytes(), &back)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(all, back); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	for _, asJSON := range []bool{false, true} {
		if err := doctor.Report(closed{}, all, asJSON); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("JSON %v: %v", asJSON, err)
		}
	}
}

// closed is a pipe that nobody reads.
type closed struct{}

func (closed) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// TestDeployedSettings: a host that has deploy/sysctl.d installed is content with it at the defaults of the configurations.
func TestDeployedSettings(t *testing.T) {
	text, err := os.ReadFile("../../deploy/sysctl.d/90-sluice.conf")
	if err != nil {
		t.Fatal(err)
	}
	v, w := host(), want()
	w.Rate = 0
	files := v.Files.(fstest.MapFS)
	for _, name := range []string{"rmem_max", "wmem_max", "netdev_max_backlog"} {
		m := regexp.MustCompile(`(?m)^net\.core\.` + name + ` = (\d+)$`).FindSubmatch(text)
		if m == nil {
			t.Fatalf("deploy/sysctl.d sets no net.core.%s", name)
		}
		files["proc/sys/net/core/"+name] = file(string(m[1]))
	}
	all := findings(v, w)
	w.Buffer = 4 << 20 // link.send_buffer
	all["wmem_max"] = findings(v, w)["wmem_max"]
	for _, id := range []string{"rmem_max", "wmem_max", "netdev_max_backlog"} {
		if all[id].Status != ok {
			t.Errorf("%+v", all[id])
		}
	}
	files["proc/sys/net/core/netdev_max_backlog"] = file(strconv.Itoa(29999))
	if f := findings(v, w)["netdev_max_backlog"]; !bytes.Contains(text, []byte("net.core.netdev_max_backlog = 30000")) || !strings.Contains(f.Fix, "30000") {
		t.Errorf("the fix is another than deploy/sysctl.d: %+v", f)
	}
}

// FuzzFiles gives every file of the host the same text: whatever a kernel writes, each check says something whole.
func FuzzFiles(f *testing.F) {
	for _, text := range []string{"", "1\n", "1 2 3", snmp, udpHeader + udpRows, routes, mounts, "7.1.4", "-1", "Udp:\nUdp:\n"} {
		f.Add(text)
	}
	names := []string{}
	for name := range host().Files.(fstest.MapFS) {
		names = append(names, name)
	}
	f.Fuzz(func(t *testing.T, text string) {
		v, w := host(), want()
		for _, name := range names {
			v.Files.(fstest.MapFS)[name] = file(text)
		}
		for id, f := range findings(v, w) {
			if f.ID != id || f.Status == "" || f.Wanted == "" || f.Why == "" || (f.Status == unknown) != (f.Reason != "") || f.Status != unknown && f.Seen == "" {
				t.Errorf("half a finding: %+v", f)
			}
			if strings.Contains(f.Reason, "\n") {
				t.Errorf("more than a line: %q", f.Reason)
			}
		}
	})
}
