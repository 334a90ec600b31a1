// SPDX-License-Identifier: Apache-2.0

package doctor_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sluice/internal/doctor"
	"sluice/internal/link"
)

// sick is one thing that is otherwise than on the good host, and what must be found.
type sick struct {
	name, id string
	change   func(*view, *asked)
	status   doctor.Status
	words    []string // all of them stand in what was seen, in the fix, or in the reason
}

const (
	ok      = doctor.OK
	warn    = doctor.Warn
	fail    = doctor.Fail
	unknown = doctor.Unknown
)

func on(change func(v *view)) func(*view, *asked) { return func(v *view, _ *asked) { change(v) } }

// findings are those of both sides; where both make a check they say the same.
func findings(v *view, w asked) map[string]doctor.Finding {
	all := map[string]doctor.Finding{}
	for _, f := range append(doctor.Receiver(v, w), doctor.Sender(v, w)...) {
		all[f.ID] = f
	}
	return all
}

func judge(t *testing.T, c sick) {
	t.Helper()
	v, w := host(), want()
	if c.change != nil {
		c.change(v, &w)
	}
	f, found := findings(v, w)[c.id]
	if !found {
		t.Fatalf("no check is called %s", c.id)
	}
	if f.Status != c.status {
		t.Errorf("%s, want %s: %+v", f.Status, c.status, f)
	}
	text := f.Seen + "\n" + f.Fix + "\n" + f.Reason
	for _, word := range c.words {
		if !strings.Contains(text, word) {
			t.Errorf("%q is not in %q", word, text)
		}
	}
	if f.Wanted == "" || f.Why == "" || (f.Status == warn || f.Status == fail) && f.Fix == "" || (f.Status == unknown) != (f.Reason != "") || f.Status != unknown && f.Seen == "" {
		t.Errorf("half a finding: %+v", f)
	}
}

func sockets() []sick {
	const (
		rmem, wmem, backlog = "proc/sys/net/core/rmem_max", "proc/sys/net/core/wmem_max", "proc/sys/net/core/netdev_max_backlog"
		udpMem              = "proc/sys/net/ipv4/udp_mem"
	)
	buffer := func(n int64) func(*view, *asked) { return on(func(v *view) { v.ReceiveBuffer.Value = n }) }
	rate := func(r int64) func(*view, *asked) { return func(_ *view, w *asked) { w.Rate = r } }
	listen := func(s string) func(*view, *asked) {
		return func(_ *view, w *asked) { w.Address = netip.MustParseAddrPort(s) }
	}
	row := func(local string, drops int) string {
		return fmt.Sprintf(" 1: %s 00000000:0000 07 00000000:00000000 00:00000000 00000000 0 0 5 2 0000000000000000 %d\n", local, drops)
	}
	return []sick{
		{"as deployed", "rmem_max", nil, ok, []string{"128 MiB"}},
		{"exactly enough", "rmem_max", put(rmem, "67108864"), ok, nil},
		{"one byte short", "rmem_max", put(rmem, "67108863"), warn, []string{"sysctl -w 'net.core.rmem_max=67108864", "net.core.rmem_max = 67108864 in /etc/sysctl.d/90-sluice.conf"}},
		{"the kernel's default", "rmem_max", put(rmem, "212992"), warn, []string{"208 KiB"}},
		{"100 ms of 10 Gbit/s", "rmem_max", both(rate(10_000_000_000), put(rmem, "124999999")), warn, []string{"rmem_max=125000000"}},
		{"more than the kernel has", "rmem_max", both(rate(400_000_000_000), put(rmem, "1073741823")), ok, nil},
		{"absent", "rmem_max", drop(rmem), unknown, []string{rmem, "on the host itself"}},
		{"malformed", "rmem_max", put(rmem, "much"), unknown, []string{"malformed"}},
		{"unreadable", "rmem_max", on(func(v *view) { v.Files = unreadable{} }), unknown, []string{"permission denied"}},

		{"granted", "receive_buffer", nil, ok, []string{"64 MiB"}},
		{"forced", "receive_buffer", put(rmem, "212992"), ok, []string{"64 MiB, beyond rmem_max by this user's CAP_NET_ADMIN"}},
		{"half", "receive_buffer", buffer(32 << 20), warn, []string{"32 MiB", "net.core.rmem_max=67108864", "ReceiveBuffer=67108864"}},
		{"less than a turn", "receive_buffer", buffer(212992), fail, []string{"208 KiB"}},
		{"little, at an unknown rate", "receive_buffer", both(rate(0), buffer(212992)), warn, nil},
		{"configured too small", "receive_buffer", both(rate(10_000_000_000), buffer(64<<20)), warn, []string{"receive_buffer: 120MiB"}},
		{"not tried", "receive_buffer", on(func(v *view) { v.ReceiveBuffer.Err = errBroken }), unknown, []string{"on fire"}},

		{"as deployed", "wmem_max", func(_ *view, w *asked) { w.Buffer = 4 << 20 }, ok, []string{"16 MiB"}},
		{"small", "wmem_max", put(wmem, "212992"), warn, []string{"sysctl -w 'net.core.wmem_max=67108864"}},
		{"absent", "wmem_max", drop(wmem), unknown, []string{wmem}},
		{"malformed", "wmem_max", put(wmem, "1 2"), unknown, []string{"2 numbers, want 1"}},

		{"as deployed", "netdev_max_backlog", nil, ok, []string{"30000 packets"}},
		{"default", "netdev_max_backlog", put(backlog, "1000"), warn, []string{"1000 packets", "net.core.netdev_max_backlog=30000"}},
		{"absent, as in a container", "netdev_max_backlog", drop(backlog), unknown, []string{backlog, "container"}},

		{"large", "udp_mem", nil, ok, []string{"4.4 GiB"}},
		{"exactly enough", "udp_mem", put(udpMem, "1 2 32768"), ok, nil},
		{"one page short", "udp_mem", put(udpMem, "1 2 32767"), warn, []string{"sysctl -w 'net.ipv4.udp_mem=16384 24576 32768'", "net.ipv4.udp_mem = 16384 24576 32768 in"}},
		{"two numbers", "udp_mem", put(udpMem, "1 2"), unknown, []string{"malformed"}},
		{"no size of a page", "udp_mem", on(func(v *view) { v.Page = 0 }), unknown, []string{"page"}},

		{"none", "socket_drops", nil, ok, []string{"0 dropped"}},
		{"some", "socket_drops", put("proc/net/udp", udpHeader+row("020200C0:1266", 1234)), warn, []string{"1,234 dropped", "link.rate"}},
		{"every address", "socket_drops", put("proc/net/udp", udpHeader+row("00000000:1266", 5)), warn, []string{"5 dropped"}},
		{"every IPv6 address", "socket_drops", both(drop("proc/net/udp6"), both(put("proc/net/udp", udpHeader), put("proc/net/udp6", udpHeader+row(strings.Repeat("0", 32)+":1266", 6)))), warn, []string{"6 dropped"}},
		{"another's address", "socket_drops", put("proc/net/udp", udpHeader+row("030200C0:1266", 5)), unknown, []string{"no socket is open on 192.0.2.2:4710"}},
		{"listening on every address", "socket_drops", both(listen("0.0.0.0:4710"), put("proc/net/udp", udpHeader+row("030200C0:1266", 5))), warn, nil},
		{"not running", "socket_drops", put("proc/net/udp", udpHeader), unknown, []string{"systemctl start diode-receiver.socket"}},
		{"short row", "socket_drops", put("proc/net/udp", udpHeader+"1: 020200C0:1266\n"), unknown, []string{"proc/net/udp", "2 columns"}},
		{"bad address", "socket_drops", put("proc/net/udp", udpHeader+row("0202:1266", 0)), unknown, []string{`address "0202:1266"`}},
		{"bad port", "socket_drops", put("proc/net/udp", udpHeader+row("020200C0:12661", 0)), unknown, []string{"malformed"}},
		{"absent", "socket_drops", drop("proc/net/udp"), unknown, nil},
		{"no IPv6", "socket_drops", drop("proc/net/udp6"), ok, nil},

		{"none", "rcvbuf_errors", nil, ok, []string{"0"}},
		{"some", "rcvbuf_errors", put("proc/net/snmp", strings.Replace(snmp, "465273 0 0", "465273 4136 0", 1)), warn, []string{"4,136", "nstat UdpRcvbufErrors"}},
		{"absent", "rcvbuf_errors", drop("proc/net/snmp"), unknown, nil},
		{"no such counter", "rcvbuf_errors", put("proc/net/snmp", "Udp: InDatagrams\nUdp: 1\n"), unknown, []string{"no counter RcvbufErrors"}},
		{"one line", "rcvbuf_errors", put("proc/net/snmp", "Udp: RcvbufErrors\n"), unknown, []string{"no two lines"}},
		{"another protocol's first", "rcvbuf_errors", put("proc/net/snmp", "UdpLite: RcvbufErrors\nUdpLite: 77\n"+snmp), ok, nil},
		{"a word", "rcvbuf_errors", put("proc/net/snmp", "Udp: RcvbufErrors\nUdp: many\n"), unknown, []string{"malformed"}},

		{"none", "sndbuf_errors", nil, ok, []string{"0"}},
		{"some", "sndbuf_errors", put("proc/net/snmp", strings.Replace(snmp, "465273 0 0", "465273 0 7", 1)), warn, []string{"7", "lower link.rate"}},
		{"short line", "sndbuf_errors", put("proc/net/snmp", "Udp: RcvbufErrors SndbufErrors\nUdp: 0\n"), unknown, []string{"no counter SndbufErrors"}},
	}
}

func devices() []sick {
	device := func(change func(*doctor.Interface)) func(*view, *asked) {
		return on(func(v *view) { change(&v.Interface.Value) })
	}
	lost := on(func(v *view) { v.Interface.Err = errBroken })
	const own, all = "proc/sys/net/ipv4/conf/diode0/rp_filter", "proc/sys/net/ipv4/conf/all/rp_filter"
	return []sick{
		{"up", "interface", nil, ok, []string{"diode0: up"}},
		{"down", "interface", device(func(i *doctor.Interface) { i.Up = false }), fail, []string{"ip link set dev diode0 up"}},
		{"dark", "interface", device(func(i *doctor.Interface) { i.Carrier = false }), fail, []string{"no carrier", "light"}},
		{"none has the address", "interface", func(v *view, w *asked) { _, v.Interface.Err = doctor.ChooseInterface(nil, *w) }, fail, []string{"no interface has the address 192.0.2.2", "ip addr add 192.0.2.2/32"}},
		{"none has the name", "interface", func(v *view, w *asked) {
			w.Interface = "diode9"
			_, v.Interface.Err = doctor.ChooseInterface(nil, *w)
		}, fail, []string{"no interface is called diode9", "--interface"}},
		{"many", "interface", on(func(v *view) { v.Interface.Err = doctor.ErrManyInterfaces }), unknown, []string{"doctor --interface NAME"}},
		{"not read", "interface", lost, unknown, []string{"on fire"}},

		{"jumbo", "mtu", nil, ok, []string{"9000 bytes"}},
		{"small", "mtu", device(func(i *doctor.Interface) { i.MTU = 8999 }), fail, []string{"ip link set dev diode0 mtu 9000", "MTUBytes=9000", "mtu: 1500"}},
		{"of an unknown profile", "mtu", both(func(_ *view, w *asked) { w.MTU = 0 }, device(func(i *doctor.Interface) { i.MTU = 1500 })), ok, nil},
		{"tunnelled", "mtu", both(func(_ *view, w *asked) { w.MTU = 0 }, device(func(i *doctor.Interface) { i.MTU = 1400 })), fail, []string{"mtu 1500"}},
		{"not read", "mtu", lost, unknown, []string{"the diode's interface is not known"}},

		{"full", "rx_ring", nil, ok, []string{"4096 of 8192 descriptors"}},
		{"the device's most", "rx_ring", on(func(v *view) { v.Ring.Value = doctor.Ring{RX: 256, RXMax: 256} }), ok, nil},
		{"small", "rx_ring", on(func(v *view) { v.Ring.Value.RX = 512 }), warn, []string{"ethtool -G diode0 rx 4096", "RxBufferSize=4096"}},
		{"virtual", "rx_ring", on(func(v *view) { v.Ring = doctor.Reading[doctor.Ring]{Err: fmt.Errorf("ring: %w", errUnsupported)} }), ok, []string{"no ring to set"}},
		{"virtual, with an empty answer", "rx_ring", on(func(v *view) { v.Ring.Value = doctor.Ring{} }), ok, []string{"no ring to set"}},
		{"refused", "rx_ring", on(func(v *view) { v.Ring.Err = errBroken }), unknown, []string{"on fire", "ethtool -g diode0"}},
		{"no interface", "rx_ring", lost, unknown, nil},

		{"full", "tx_ring", nil, ok, []string{"512 of 512"}},
		{"small", "tx_ring", on(func(v *view) { v.Ring.Value.TX = 256 }), warn, []string{"ethtool -G diode0 tx 512", "TxBufferSize=512"}},
		{"refused", "tx_ring", on(func(v *view) { v.Ring.Err = errBroken }), unknown, nil},

		{"on", "gro", nil, ok, []string{"on"}},
		{"off", "gro", on(func(v *view) { v.GRO.Value = false }), warn, []string{"ethtool -K diode0 gro on"}},
		{"refused", "gro", on(func(v *view) { v.GRO.Err = errUnsupported }), unknown, []string{"ethtool -k diode0"}},

		{"off", "pause_frames", nil, ok, nil},
		{"sent", "pause_frames", on(func(v *view) { v.Pause.Value.TX = true }), warn, []string{"rx off, tx on", "ethtool -A diode0 autoneg off rx off tx off"}},
		{"heeded", "pause_frames", on(func(v *view) { v.Pause.Value.RX = true }), warn, []string{"rx on, tx off"}},
		{"virtual", "pause_frames", on(func(v *view) { v.Pause.Err = errUnsupported }), ok, []string{"no flow control"}},
		{"refused", "pause_frames", on(func(v *view) { v.Pause.Err = errBroken }), unknown, nil},

		{"off", "rp_filter", nil, ok, []string{"0"}},
		{"strict", "rp_filter", put(own, "1"), warn, []string{"1 (all 0, diode0 1)", "net.ipv4.conf.diode0.rp_filter = 0"}},
		{"loose, by all", "rp_filter", put(all, "2"), warn, []string{"2 (all 2, diode0 0)", "sysctl -w net.ipv4.conf.all.rp_filter=0"}},
		{"a VLAN", "rp_filter", device(func(i *doctor.Interface) { i.Name = "diode0.42" }), warn, []string{"sysctl -w 'net.ipv4.conf.diode0/42.rp_filter=0'"}},
		{"loopback", "rp_filter", both(put(own, "1"), device(func(i *doctor.Interface) { i.Loopback = true })), ok, []string{"loopback"}},
		{"IPv6", "rp_filter", both(put(own, "1"), func(_ *view, w *asked) { w.Address = netip.MustParseAddrPort("[fd00::2]:4710") }), ok, []string{"IPv6"}},
		{"absent", "rp_filter", drop(own), unknown, nil},
		{"malformed", "rp_filter", put(all, ""), unknown, []string{"0 numbers"}},

		{"none", "way_back", nil, ok, nil},
		{"a gateway", "way_back", put("proc/net/route", strings.ReplaceAll(routes, "eth0", "diode0")), warn, []string{"gateway 192.0.2.1 by diode0"}},
		{"absent", "way_back", drop("proc/net/route"), unknown, []string{"ip route show dev diode0"}},
		{"malformed", "way_back", put("proc/net/route", "Iface\ndiode0\n"), unknown, []string{"malformed"}},
		{"bad gateway", "way_back", put("proc/net/route", "diode0 00000000 0102\n"), unknown, []string{"malformed"}},
	}
}

func routing() []sick {
	neighbour := func(state string) func(*view, *asked) {
		return on(func(v *view) { v.Neighbour.Value = doctor.Neighbour{State: state} })
	}
	gateway := on(func(v *view) { v.Route.Value.Gateway = netip.MustParseAddr("192.0.2.254") })
	qdisc := func(kinds ...string) func(*view, *asked) { return on(func(v *view) { v.Qdiscs.Value = kinds }) }
	rate := func(r int64) func(*view, *asked) { return func(_ *view, w *asked) { w.Rate = r } }
	const speed = "sys/class/net/diode0/speed"
	return []sick{
		{"direct", "route", nil, ok, []string{"by diode0 from 192.0.2.1"}},
		{"by a gateway", "route", gateway, ok, []string{"via 192.0.2.254"}},
		{"none", "route", on(func(v *view) { v.Route.Err = fmt.Errorf("%w: x", doctor.ErrNoRoute) }), fail, []string{"no route", "ip route add 192.0.2.2/32"}},
		{"not asked", "route", on(func(v *view) { v.Route.Err = errBroken }), unknown, nil},

		{"permanent", "neighbour", nil, ok, []string{"permanent 02:00:00:00:00:02"}},
		{"none", "neighbour", neighbour(""), fail, []string{"none", "ip neigh replace 192.0.2.2 lladdr MAC dev diode0 nud permanent"}},
		{"asked in vain", "neighbour", neighbour("failed"), fail, []string{"failed"}},
		{"asking", "neighbour", neighbour("incomplete"), fail, nil},
		{"somebody answers", "neighbour", neighbour("stale"), warn, []string{"stale"}},
		{"no question is asked", "neighbour", neighbour("noarp"), warn, nil},
		{"a gateway that answers", "neighbour", both(gateway, neighbour("reachable")), ok, []string{"gateway 192.0.2.254 answers"}},
		{"a gateway that does not", "neighbour", both(gateway, neighbour("failed")), warn, []string{"gateway 192.0.2.254: failed"}},
		{"loopback", "neighbour", both(neighbour(""), on(func(v *view) { v.Route.Value.Interface.Loopback = true })), ok, []string{"loopback"}},
		{"a tunnel", "neighbour", both(neighbour(""), on(func(v *view) { v.Route.Value.Interface.PointToPoint = true })), ok, []string{"point-to-point"}},
		{"multicast", "neighbour", both(neighbour(""), func(_ *view, w *asked) { w.Address = netip.MustParseAddrPort("239.1.1.1:4710") }), ok, []string{"multicast"}},
		{"not read", "neighbour", on(func(v *view) { v.Neighbour.Err = errBroken }), unknown, []string{"ip neigh show dev diode0"}},
		{"no route", "neighbour", on(func(v *view) { v.Route.Err = doctor.ErrNoRoute }), unknown, []string{"the route is not known"}},

		{"fq below mq", "qdisc", nil, ok, []string{"mq + fq"}},
		{"virtual", "qdisc", qdisc("noqueue"), ok, nil},
		{"fifo", "qdisc", qdisc("pfifo_fast"), ok, nil},
		{"dropping", "qdisc", qdisc("fq_codel"), warn, []string{"tc qdisc replace dev diode0 root fq", "net.core.default_qdisc = fq"}},
		{"dropping in one queue", "qdisc", qdisc("mq", "fq", "fq_codel"), warn, []string{"mq + fq + fq_codel"}},
		{"dropping beside a strange one", "qdisc", qdisc("dualpi2", "cake"), warn, nil},
		{"shaping", "qdisc", qdisc("tbf"), warn, nil},
		{"strange", "qdisc", qdisc("dualpi2"), unknown, []string{`"dualpi2"`, "tc -s qdisc show dev diode0"}},
		{"none", "qdisc", qdisc(), unknown, []string{"names no queue of diode0"}},
		{"not read", "qdisc", on(func(v *view) { v.Qdiscs.Err = errBroken }), unknown, nil},

		{"90 %", "rate", nil, ok, []string{"900 Mbit/s on 1 Gbit/s"}},
		{"91 %", "rate", rate(910_000_000), warn, []string{"rate: 900Mbit"}},
		{"all of it", "rate", rate(1_000_000_000), warn, nil},
		{"more than it", "rate", rate(1_000_000_001), fail, []string{"rate: 900Mbit"}},
		{"no speed", "rate", put(speed, "-1"), unknown, []string{"diode0 does not tell its speed", "900 Mbit/s"}},
		{"no file", "rate", drop(speed), unknown, []string{speed}},
		{"no interface", "rate", on(func(v *view) { v.Interface.Err = errBroken }), unknown, nil},
	}
}

func offloads() []sick {
	gso := func(o link.Offload) func(*view, *asked) { return func(_ *view, w *asked) { w.GSO = o } }
	refused := on(func(v *view) { v.GSO = errBroken })
	kernel := func(release string) func(*view, *asked) { return put("proc/sys/kernel/osrelease", release) }
	return []sick{
		{"works", "gso", nil, ok, []string{"works"}},
		{"refused", "gso", refused, warn, []string{"refused: the driver is on fire", "sendmmsg"}},
		{"refused, and demanded", "gso", both(refused, gso(link.OffloadOn)), fail, []string{"gso: auto"}},
		{"refused, and not used", "gso", both(refused, gso(link.OffloadOff)), ok, []string{"not used"}},
		{"no such system", "gso", on(func(v *view) { v.GSO = errUnsupported }), unknown, nil},

		{"good", "gso_kernel", nil, ok, []string{"6.12.9-amd64"}},
		{"last good", "gso_kernel", kernel("6.19.12"), ok, nil},
		{"first bad", "gso_kernel", kernel("7.0.0-rc1"), warn, []string{"so sendmmsg is used", "7.1.5"}},
		{"last bad", "gso_kernel", kernel("7.1.4-2-amd64"), warn, nil},
		{"bad, and demanded", "gso_kernel", both(kernel("7.1.4"), gso(link.OffloadOn)), fail, []string{"gso: auto"}},
		{"bad, and not used", "gso_kernel", both(kernel("7.1.4"), gso(link.OffloadOff)), ok, nil},
		{"mended", "gso_kernel", kernel("7.1.5"), ok, nil},
		{"absent", "gso_kernel", drop("proc/sys/kernel/osrelease"), unknown, []string{"uname -r"}},
		{"malformed", "gso_kernel", kernel("plan9"), unknown, []string{`"plan9" is no version`}},
	}
}

func disks() []sick {
	at := func(path string) func(*view, *asked) { return on(func(v *view) { v.Disk.Value.Path = path }) }
	mounted := func(kind, options string) func(*view, *asked) {
		return put("proc/self/mountinfo", mounts+"50 40 0:9 / /var/lib/diode-receiver "+options+" - "+kind+" dev rw\n")
	}
	speed := func(write, read float64) func(*view, *asked) {
		return on(func(v *view) { v.Speed.Value = doctor.Speed{Write: write, Read: read} })
	}
	unmeasured := on(func(v *view) { v.Speed.Err = fmt.Errorf("%w: %w", doctor.ErrNotRead, syscallDenied) })
	noDisk := on(func(v *view) { v.Disk.Err = errBroken })
	return []sick{
		{"xfs of its own", "file_system", nil, ok, []string{"xfs on /dev/vdb"}},
		{"the root", "file_system", at("/srv/x"), ok, []string{"ext4 on /dev/vda1"}},
		{"a name alike", "file_system", at("/var/library"), ok, []string{"ext4"}},
		{"memory", "file_system", at("/var/lib/other/deep"), warn, []string{"tmpfs", "on a local disk"}},
		{"a share with a space", "file_system", at("/mnt/a share/x"), warn, []string{"nfs4 on nas:/x"}},
		{"overlay", "file_system", mounted("overlay", "rw"), warn, nil},
		{"the last mounted counts", "file_system", both(mounted("overlay", "rw"), func(v *view, w *asked) {
			put("proc/self/mountinfo", mounts+"50 40 0:9 / /var/lib rw - overlay x rw\n")(v, w)
		}), warn, nil},
		{"read-only", "file_system", mounted("ext4", "ro,relatime"), fail, []string{"mount -o remount,rw /var/lib/diode-receiver"}},
		{"errors=remount-ro is not read-only", "file_system", at("/"), ok, nil},
		{"strange", "file_system", mounted("plan9fs", "rw"), unknown, []string{`"plan9fs"`}},
		{"absent", "file_system", drop("proc/self/mountinfo"), unknown, []string{"findmnt -T /var/lib/diode-receiver"}},
		{"malformed", "file_system", put("proc/self/mountinfo", "24 1 254:1 / / rw\n"), unknown, []string{"malformed"}},
		{"empty", "file_system", put("proc/self/mountinfo", ""), unknown, []string{"nothing is mounted"}},
		{"no disk", "file_system", noDisk, unknown, nil},

		{"much", "free_space", nil, ok, []string{"200 GiB of 400 GiB"}},
		{"little", "free_space", on(func(v *view) { v.Disk.Value.Free = 100<<30 - 1 }), warn, []string{"make room on the file system of /var/lib/diode-receiver"}},
		{"next to nothing", "free_space", on(func(v *view) { v.Disk.Value.Free = 1<<30 - 1 }), fail, nil},
		{"no disk", "free_space", noDisk, unknown, nil},

		{"fast", "write_speed", nil, ok, []string{"400 MB/s"}},
		{"exactly twice", "write_speed", speed(225e6, 0), ok, nil},
		{"less than twice", "write_speed", speed(224e6, 0), warn, []string{"faster disk", "rate: 896Mbit"}},
		{"slower than the link", "write_speed", speed(112e6, 0), fail, []string{"rate: 448Mbit"}},
		{"of an unknown rate", "write_speed", func(_ *view, w *asked) { w.Rate = 0 }, unknown, []string{"400 MB/s", "--rate"}},
		{"not measured", "write_speed", unmeasured, unknown, []string{"permission denied", "as root"}},

		{"fast", "read_speed", nil, ok, []string{"900 MB/s"}},
		{"slow", "read_speed", speed(0, 112e6), warn, []string{"112 MB/s"}},
		{"not measured", "read_speed", unmeasured, unknown, nil},
	}
}

func clocks() []sick {
	clock := func(change func(*doctor.Clock)) func(*view, *asked) {
		return on(func(v *view) { change(&v.Clock.Value) })
	}
	unread := on(func(v *view) { v.Clock.Err = errBroken })
	const bootID = "proc/sys/kernel/random/boot_id"
	return []sick{
		{"set", "clock", nil, ok, []string{"synchronised, within 12 ms"}},
		{"free", "clock", clock(func(c *doctor.Clock) { c.Synchronised = false }), warn, []string{"timedatectl set-ntp true"}},
		{"reset", "clock", clock(func(c *doctor.Clock) { c.Now = time.Unix(0, 0) }), fail, []string{"1970-01-01", "timedatectl set-time"}},
		{"not read", "clock", unread, unknown, nil},

		{"steady", "clock_steady", nil, ok, []string{"300 ms"}},
		{"slewed", "clock_steady", clock(func(c *doctor.Clock) { c.Moved += 50 * time.Millisecond }), ok, nil},
		{"stepped", "clock_steady", clock(func(c *doctor.Clock) { c.Moved += time.Hour }), warn, []string{"1 h"}},
		{"stepped back", "clock_steady", clock(func(c *doctor.Clock) { c.Moved -= time.Hour }), warn, []string{"makestep"}},
		{"standing", "clock_steady", clock(func(c *doctor.Clock) { c.Watched = 0 }), fail, []string{"stood still"}},
		{"not read", "clock_steady", unread, unknown, nil},

		{"readable", "boot_id", nil, ok, []string{"b7f314dd"}},
		{"hidden", "boot_id", drop(bootID), fail, []string{"not readable", "mount /proc"}},
		{"strange", "boot_id", put(bootID, "none"), warn, []string{`"none"`}},
		{"no host", "boot_id", on(func(v *view) { v.Files = nil }), unknown, nil},
	}
}

func cases() (all []sick) {
	for _, part := range [][]sick{sockets(), devices(), routing(), offloads(), disks(), clocks()} {
		all = append(all, part...)
	}
	return all
}

// TestChecks changes one thing of a good host at a time.
func TestChecks(t *testing.T) {
	for _, c := range cases() {
		t.Run(c.id+"/"+c.name, func(t *testing.T) { judge(t, c) })
	}
}

// TestEveryCheckHasCases: each check is seen good, not good, and unable to look.
func TestEveryCheckHasCases(t *testing.T) {
	seen := map[string]map[doctor.Status]bool{}
	for _, c := range cases() {
		if seen[c.id] == nil {
			seen[c.id] = map[doctor.Status]bool{}
		}
		seen[c.id][c.status] = true
	}
	ids := findings(host(), want())
	if len(ids) < 25 {
		t.Errorf("%d checks only", len(ids))
	}
	for id := range ids {
		if s := seen[id]; !s[ok] || !s[unknown] || !s[warn] && !s[fail] {
			t.Errorf("%s: cases for %v only", id, s)
		}
	}
}

// TestGoodHost: nothing is wanted of a host that has everything.
func TestGoodHost(t *testing.T) {
	for id, f := range findings(host(), want()) {
		sender := map[string]bool{"wmem_max": true} // the fixture's buffer is a receiver's
		if f.Status != ok && !sender[id] {
			t.Errorf("%+v", f)
		}
	}
}

// TestBlindHost: where nothing can be read nothing is good, and nothing is called bad.
func TestBlindHost(t *testing.T) {
	v := &doctor.View{GSO: doctor.ErrNotRead}
	for _, err := range []*error{&v.Interface.Err, &v.Ring.Err, &v.GRO.Err, &v.Pause.Err, &v.Qdiscs.Err, &v.Route.Err, &v.Neighbour.Err, &v.ReceiveBuffer.Err, &v.Disk.Err, &v.Speed.Err, &v.Clock.Err} {
		*err = doctor.ErrNotRead
	}
	for id, f := range findings(v, want()) {
		if f.Status != unknown {
			t.Errorf("%s: %+v", id, f)
		}
	}
}

func TestChooseInterface(t *testing.T) {
	addr := netip.MustParseAddr
	lo := doctor.Interface{Name: "lo", Up: true, Loopback: true, Addresses: []netip.Addr{addr("127.0.0.1")}}
	eth0 := doctor.Interface{Name: "eth0", Up: true, Addresses: []netip.Addr{addr("198.51.100.7"), addr("fd00::2")}}
	diode := doctor.Interface{Name: "diode0", Up: true, Addresses: []netip.Addr{addr("192.0.2.2")}}
	spare := doctor.Interface{Name: "spare0", Addresses: []netip.Addr{addr("203.0.113.1")}}
	bare := doctor.Interface{Name: "bare0", Up: true}
	all := []doctor.Interface{lo, eth0, diode, spare, bare}
	for _, c := range []struct {
		all             []doctor.Interface
		address, device string
		want            string
	}{
		{all, "192.0.2.2:1", "", "diode0"},
		{all, "[::ffff:192.0.2.2]:1", "", "diode0"},
		{all, "[fd00::2]:1", "", "eth0"},
		{all, "203.0.113.1:1", "", "spare0"},
		{all, "127.0.0.2:1", "", "lo"},
		{all, "0.0.0.0:1", "diode0", "diode0"},
		{all, "0.0.0.0:1", "", "more than one interface has the address 0.0.0.0: eth0, diode0"},
		{[]doctor.Interface{lo, diode, spare, bare}, "0.0.0.0:1", "", "diode0"},
		{[]doctor.Interface{lo}, "[::]:1", "", "no interface has the address ::"},
		{all, "192.0.2.3:1", "", "no interface has the address 192.0.2.3"},
		{all, "192.0.2.2:1", "diode1", "no interface is called diode1"},
	} {
		i, err := doctor.ChooseInterface(c.all, asked{Address: netip.MustParseAddrPort(c.address), Interface: c.device})
		got := i.Name
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%s %s: %q, want %q", c.address, c.device, got, c.want)
		}
	}
}
