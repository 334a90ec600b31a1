// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"errors"
	"io/fs"
	"net/netip"
	"syscall"
	"testing/fstest"
	"time"

	"sluice/internal/doctor"
	"sluice/internal/link"
)

const (
	snmp = `Ip: Forwarding DefaultTTL
Ip: 2 64
Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors
Udp: 461365 2079 0 465273 0 0 0 0 0
UdpLite: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors
UdpLite: 0 0 0 0 77 77 0 0 0
`
	udpHeader = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"
	// 192.0.2.2:4710 and another port, as a little-endian machine writes them.
	udpRows = "  12: 020200C0:1266 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 5345 2 0000000000000000 0\n" +
		"  13: 020200C0:1267 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 5346 2 0000000000000000 9\n"
	routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
		"eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
		"diode0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n"
	mounts = `24 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,errors=remount-ro
25 24 0:22 / /proc rw,nosuid - proc proc rw
40 24 254:2 / /var/lib rw,noatime shared:2 - xfs /dev/vdb rw
41 40 0:50 / /var/lib/other rw - tmpfs tmpfs rw
42 24 0:51 / /mnt/a\040share rw - nfs4 nas:/x rw
`
)

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

// host is a host on which everything is as it should be.
func host() *doctor.View {
	diode := doctor.Interface{Name: "diode0", Index: 2, MTU: 9000, Up: true, Carrier: true, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2")}}
	v := &doctor.View{
		Page: 4096,
		Files: fstest.MapFS{
			"proc/sys/net/core/rmem_max":                 file("134217728\n"),
			"proc/sys/net/core/wmem_max":                 file("16777216\n"),
			"proc/sys/net/core/netdev_max_backlog":       file("30000\n"),
			"proc/sys/net/ipv4/udp_mem":                  file("575802\t767736\t1151604\n"),
			"proc/sys/net/ipv4/conf/all/rp_filter":       file("0\n"),
			"proc/sys/net/ipv4/conf/diode0/rp_filter":    file("0\n"),
			"proc/sys/net/ipv4/conf/diode0.42/rp_filter": file("1\n"),
			"proc/sys/kernel/osrelease":                  file("6.12.9-amd64\n"),
			"proc/sys/kernel/random/boot_id":             file("b7f314dd-0000-4000-8000-000000000000\n"),
			"proc/net/snmp":                              file(snmp),
			"proc/net/udp":                               file(udpHeader + udpRows),
			"proc/net/udp6":                              file(udpHeader),
			"proc/net/route":                             file(routes),
			"proc/self/mountinfo":                        file(mounts),
			"sys/class/net/diode0/speed":                 file("1000\n"),
		},
	}
	v.Interface.Value = diode
	v.Ring.Value = doctor.Ring{RX: 4096, RXMax: 8192, TX: 512, TXMax: 512}
	v.GRO.Value = true
	v.Qdiscs.Value = []string{"mq", "fq"}
	v.Route.Value = doctor.Route{Interface: diode, Source: netip.MustParseAddr("192.0.2.1")}
	v.Neighbour.Value = doctor.Neighbour{State: "permanent", Hardware: "02:00:00:00:00:02"}
	v.ReceiveBuffer.Value = 64 << 20
	v.Disk.Value = doctor.Disk{Path: "/var/lib/diode-receiver", Free: 200 << 30, Total: 400 << 30}
	v.Speed.Value = doctor.Speed{Write: 400e6, Read: 900e6}
	v.Clock.Value = doctor.Clock{
		Now: time.Date(2026, time.November, 26, 12, 0, 0, 0, time.UTC), Synchronised: true,
		MaxError: 12 * time.Millisecond, Watched: 300 * time.Millisecond, Moved: 300 * time.Millisecond,
	}
	return v
}

// want asks for what that host has: 900 Mbit/s at MTU 9000.
func want() doctor.Want {
	return doctor.Want{
		Address: netip.MustParseAddrPort("192.0.2.2:4710"), Buffer: 64 << 20, Rate: 900_000_000, MTU: 9000,
		GSO: link.OffloadAuto, State: "/var/lib/diode-receiver",
	}
}

// broken is a reason that nobody else gives.
var errBroken = errors.New("the driver is on fire")

// unsupported is what an ioctl of a virtual interface answers.
var errUnsupported = error(syscall.EOPNOTSUPP)

type (
	view  = doctor.View
	asked = doctor.Want
)

// put replaces a file of the host; drop removes one.
func put(name, text string) func(*view, *asked) {
	return func(v *view, _ *asked) { v.Files.(fstest.MapFS)[name] = file(text) }
}

func drop(name string) func(*view, *asked) {
	return func(v *view, _ *asked) { delete(v.Files.(fstest.MapFS), name) }
}

// unreadable is a file system of which nothing may be read.
type unreadable struct{}

func (unreadable) Open(name string) (fs.File, error) {
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
}

// both changes two things.
func both(a, b func(*view, *asked)) func(*view, *asked) {
	return func(v *view, w *asked) { a(v, w); b(v, w) }
}

// syscallDenied is what opening a file of somebody else's answers.
var syscallDenied = error(syscall.EACCES)
