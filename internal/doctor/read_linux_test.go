// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/internal/doctor"
)

// bound is a UDP socket on loopback with a small buffer.
func bound(t *testing.T) (*net.UDPConn, netip.AddrPort) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetReadBuffer(4096); err != nil {
		t.Fatal(err)
	}
	return conn, conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// TestThisHost reads the machine that runs the test, over loopback, which every machine has.
func TestThisHost(t *testing.T) {
	_, address := bound(t)
	w := asked{Address: address, Buffer: 64 << 10, Rate: 1_000_000, State: t.TempDir()}
	high := byID(doctor.Receiver(doctor.ReadReceiver(t.Context(), w), w))
	low := byID(doctor.Sender(doctor.ReadSender(t.Context(), w), w))
	for _, f := range []doctor.Finding{
		high["interface"], high["mtu"], high["rx_ring"], high["pause_frames"], high["rp_filter"], high["receive_buffer"], high["udp_mem"],
		high["socket_drops"], high["write_speed"], high["clock_steady"], high["boot_id"],
		low["route"], low["neighbour"], low["interface"], low["mtu"], low["tx_ring"], low["read_speed"],
	} {
		if f.Status != ok {
			t.Errorf("%+v", f)
		}
	}
	if f := low["route"]; !strings.HasPrefix(f.Seen, "by lo from 127.0.0.1") {
		t.Errorf("%+v", f)
	}
	if f := low["qdisc"]; f.Status == unknown && strings.Contains(f.Reason, "names no queue") {
		t.Errorf("%+v", f)
	}
	left, err := os.ReadDir(w.State)
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func byID(all []doctor.Finding) map[string]doctor.Finding {
	m := map[string]doctor.Finding{}
	for _, f := range all {
		m[f.ID] = f
	}
	return m
}

// TestRealDrops overruns a socket: doctor finds it in the kernel's table and says how many are lost, as the socket itself does.
func TestRealDrops(t *testing.T) {
	conn, address := bound(t)
	out, err := net.Dial("udp4", address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	for range 100 {
		if _, err := out.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	drops := dropsOf(t, conn)
	w := asked{Address: address, Buffer: 4096, State: filepath.Join(t.TempDir(), "absent")}
	f := byID(doctor.Receiver(doctor.ReadReceiver(t.Context(), w), w))["socket_drops"]
	if drops == 0 || f.Status != warn || f.Seen != strconv.Itoa(drops)+" dropped" {
		t.Errorf("the socket says %d, doctor %+v", drops, f)
	}
}

// dropsOf counts what the socket did not keep of 100 datagrams.
func dropsOf(t *testing.T, conn *net.UDPConn) int {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	kept := 0
	err = raw.Read(func(fd uintptr) bool {
		for b := make([]byte, 2000); ; kept++ {
			if _, _, err := unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT); err != nil {
				return true
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return 100 - kept
}

// TestMissingState: the directory is not made, and the disk below which it will be is looked at.
func TestMissingState(t *testing.T) {
	dir := t.TempDir()
	w := asked{Address: netip.MustParseAddrPort("127.0.0.1:9"), Rate: 1_000_000, State: filepath.Join(dir, "a", "b")}
	v := doctor.ReadReceiver(t.Context(), w)
	if resolved, err := filepath.EvalSymlinks(dir); err != nil || v.Disk.Value.Path != resolved {
		t.Errorf("%+v, want %s (%v)", v.Disk, resolved, err)
	}
	f := byID(doctor.Receiver(v, w))["write_speed"]
	if f.Status != unknown || !strings.Contains(f.Reason, "is not there yet") {
		t.Errorf("%+v", f)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("made: %v, %v", left, err)
	}
}

// TestInterrupted: ^C ends the measurement at once, and nothing is left.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := asked{Address: netip.MustParseAddrPort("127.0.0.1:9"), State: t.TempDir()}
	v := doctor.ReadReceiver(ctx, w)
	if !errors.Is(v.Speed.Err, context.Canceled) {
		t.Errorf("%+v", v.Speed)
	}
	if left, err := os.ReadDir(w.State); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestNoSuchInterface: a name that does not exist is a finding, and not the end.
func TestNoSuchInterface(t *testing.T) {
	w := asked{Address: netip.MustParseAddrPort("0.0.0.0:9"), Interface: "nosuch0", State: t.TempDir()}
	all := doctor.Receiver(doctor.ReadReceiver(t.Context(), w), w)
	if i := slices.IndexFunc(all, func(f doctor.Finding) bool { return f.ID == "interface" }); all[i].Status != fail {
		t.Errorf("%+v", all[i])
	}
}
