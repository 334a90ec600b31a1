// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoDiode says that this machine does not allow a Diode: no root, no network namespaces, or no nftables.
var ErrNoDiode = errors.New("lab: no network namespaces here")

// Addresses of the two ends of a Diode's first cable.
const (
	DiodeLow  = "10.99.0.1"
	DiodeHigh = "10.99.0.2"
)

// DiodeLane are the addresses of the two ends of cable 0, 1, ...
func DiodeLane(i int) (low, high string) {
	return fmt.Sprintf("10.99.%d.1", i), fmt.Sprintf("10.99.%d.2", i)
}

// Diode is two network namespaces joined by a veth pair that carries one way only: by construction (no route and no neighbour
// back) and by force (whatever leaves the high side, or enters the low side, is counted and dropped).
//
//	Low [ low0 ] ==========> [ high0 ] High
//	     came_back, drop       tried_back, drop
//
// It may have several cables, low1 to high1 and so on, each with addresses of its own.
type Diode struct {
	Low, High         string // namespaces, for `ip netns exec`
	lowDev, highDev   string // of the first cable
	triedFrom, backTo string // counters
	cables            int
	joins             bool // the high side joins datagrams
}

// NewDiode builds one, with names of this process's own.
func NewDiode(ctx context.Context) (*Diode, error) { return NewDiodeOf(ctx, 1) }

// NewDiodeOf builds one of several cables.
func NewDiodeOf(ctx context.Context, cables int) (*Diode, error) {
	if os.Getuid() != 0 {
		return nil, fmt.Errorf("%w: not root", ErrNoDiode)
	}
	for _, tool := range []string{"ip", "nft", "sysctl"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNoDiode, err)
		}
	}
	pid := os.Getpid()
	d := &Diode{
		Low: fmt.Sprintf("slab-low-%d", pid), High: fmt.Sprintf("slab-high-%d", pid),
		lowDev: "low0", highDev: "high0", triedFrom: "tried_back", backTo: "came_back", cables: cables,
	}
	if _, err := command(ctx, "", "ip", "netns", "add", d.Low); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoDiode, err)
	}
	if err := d.build(ctx); err != nil {
		return nil, errors.Join(err, d.Close(context.WithoutCancel(ctx)))
	}
	return d, nil
}

// build joins the namespaces, gives the low side a route and a fixed neighbour and the high side neither, and sets the filters.
func (d *Diode) build(ctx context.Context) error {
	script := []string{"ip netns add " + d.High}
	for _, namespace := range []string{d.Low, d.High} {
		script = append(script,
			fmt.Sprintf("ip netns exec %s sysctl -qw net.ipv6.conf.all.disable_ipv6=1", namespace),
			fmt.Sprintf("ip -n %s link set lo up", namespace))
	}
	for i := range d.cables {
		script = append(script, d.cable(i)...)
	}
	for _, line := range script {
		if _, err := command(ctx, "", strings.Fields(line)...); err != nil {
			return err
		}
	}
	for i := range d.cables {
		if err := d.neighbour(ctx, i); err != nil {
			return err
		}
	}
	return errors.Join(d.filter(ctx, d.High, "high", "egress", d.triedFrom), d.filter(ctx, d.Low, "low", "ingress", d.backTo))
}

// cable are the commands that lay one cable.
func (d *Diode) cable(i int) []string {
	low, high := DiodeLane(i)
	lowDev, highDev := fmt.Sprintf("low%d", i), fmt.Sprintf("high%d", i)
	script := []string{fmt.Sprintf("ip link add %s netns %s type veth peer name %s netns %s", lowDev, d.Low, highDev, d.High)}
	for _, end := range [][3]string{{d.Low, lowDev, low}, {d.High, highDev, high}} {
		script = append(script,
			fmt.Sprintf("ip -n %s link set %s mtu 9000 arp off up", end[0], end[1]),
			fmt.Sprintf("ip -n %s addr add %s/32 dev %s", end[0], end[2], end[1]))
	}
	return append(script,
		fmt.Sprintf("ip -n %s route add %s/32 dev %s", d.Low, high, lowDev),
		fmt.Sprintf("ip netns exec %s sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.%s.rp_filter=0", d.High, highDev))
}

// neighbour tells the low side the hardware address that it may not ask for.
func (d *Diode) neighbour(ctx context.Context, cable int) error {
	_, high := DiodeLane(cable)
	lowDev, highDev := fmt.Sprintf("low%d", cable), fmt.Sprintf("high%d", cable)
	out, err := command(ctx, "", "ip", "-n", d.High, "-br", "link", "show", highDev)
	if err != nil {
		return err
	}
	fields := strings.Fields(out)
	if len(fields) < 3 {
		return fmt.Errorf("ip -br link shows no hardware address: %q", out)
	}
	_, err = command(ctx, "", "ip", "-n", d.Low, "neigh", "add", high, "lladdr", fields[2], "dev", lowDev, "nud", "permanent")
	return err
}

// filter counts and drops everything that passes a hook of the devices of one side.
func (d *Diode) filter(ctx context.Context, namespace, side, hook, counter string) error {
	var chains strings.Builder
	for i := range d.cables {
		fmt.Fprintf(&chains, `  chain way_back%[1]d {
    type filter hook %[2]s device "%[3]s%[1]d" priority -300; policy drop;
    counter name %[4]s drop
  }
`, i, hook, side, counter)
	}
	rules := fmt.Sprintf("table netdev diode {\n  counter %s { }\n%s}\n", counter, chains.String())
	_, err := command(ctx, rules, "ip", "netns", "exec", namespace, "nft", "-f", "-")
	return err
}

// LetOut gives the high side a route and a neighbour back, on purpose: then the filters alone hold, and count.
func (d *Diode) LetOut(ctx context.Context) error {
	_, err := command(ctx, "", "ip", "-n", d.High, "route", "add", DiodeLow+"/32", "dev", d.highDev)
	if err != nil {
		return err
	}
	_, err = command(ctx, "", "ip", "-n", d.High, "neigh", "add", DiodeLow, "lladdr", "02:00:00:00:00:01", "dev", d.highDev, "nud", "permanent")
	return err
}

var packets = regexp.MustCompile(`packets (\d+)`)

// Counters says how many packets tried to leave the high side, and how many came back to the low side.
func (d *Diode) Counters(ctx context.Context) (tried, back int64, err error) {
	if tried, err = d.counter(ctx, d.High, "diode", d.triedFrom); err != nil {
		return 0, 0, err
	}
	back, err = d.counter(ctx, d.Low, "diode", d.backTo)
	return tried, back, err
}

func (d *Diode) counter(ctx context.Context, namespace, table, name string) (int64, error) {
	out, err := command(ctx, "", "ip", "netns", "exec", namespace, "nft", "list", "counter", "netdev", table, name)
	if err != nil {
		return 0, err
	}
	m := packets.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("counter %s: %q", name, out)
	}
	return strconv.ParseInt(m[1], 10, 64)
}

// Fault puts rules in front of what arrives at the high side, instead of those of an earlier Fault; none is no fault. sets are declarations
// for the rules. A rule that says `counter name hit` is counted by Hits.
func (d *Diode) Fault(ctx context.Context, sets string, rules ...string) error {
	return d.FaultCable(ctx, 0, sets, rules...)
}

// FaultCable is Fault of cable 0, 1, ...; there are faults of one cable at a time.
func (d *Diode) FaultCable(ctx context.Context, cable int, sets string, rules ...string) error {
	text := fmt.Sprintf(`table netdev faults { }
delete table netdev faults
table netdev faults {
  counter hit { }
  %s
  chain in {
    type filter hook ingress device "high%d" priority 0; policy accept;
    %s
  }
}
`, sets, cable, strings.Join(rules, "\n    "))
	_, err := command(ctx, text, "ip", "netns", "exec", d.High, "nft", "-f", "-")
	return err
}

// Hits is how many packets the rules of Fault took.
func (d *Diode) Hits(ctx context.Context) (int64, error) {
	return d.counter(ctx, d.High, "faults", "hit")
}

// Filter puts a compiled tc-bpf program (section tc, direct action) in front of what arrives at the high side.
func (d *Diode) Filter(ctx context.Context, object string) error {
	tc := []string{"ip", "netns", "exec", d.High, "tc"}
	if _, err := command(ctx, "", slices.Concat(tc, []string{"qdisc", "add", "dev", d.highDev, "clsact"})...); err != nil {
		return err
	}
	_, err := command(ctx, "", slices.Concat(tc, []string{"filter", "add", "dev", d.highDev, "ingress", "bpf", "da", "obj", object, "sec", "tc"})...)
	return err
}

// Unfilter takes it away.
func (d *Diode) Unfilter(ctx context.Context) error {
	_, err := command(ctx, "", "ip", "netns", "exec", d.High, "tc", "qdisc", "del", "dev", d.highDev, "clsact")
	return err
}

// Shape makes the link narrow: beyond a rate, in tc(8)'s words, the low side drops what 20 ms of it cannot hold.
func (d *Diode) Shape(ctx context.Context, rate string) error {
	_, err := command(ctx, "", "ip", "netns", "exec", d.Low, "tc", "qdisc", "add", "dev", d.lowDev, "root", "tbf", "rate", rate, "burst", "256kb", "latency", "20ms")
	return err
}

// Unshape makes it wide again.
func (d *Diode) Unshape(ctx context.Context) error {
	_, err := command(ctx, "", "ip", "netns", "exec", d.Low, "tc", "qdisc", "del", "dev", d.lowDev, "root")
	return err
}

// Split makes the cable what a real one is: a veth pair hands over in one piece what an offload (UDP_SEGMENT) joined, 64 KiB that no
// cable can carry. Now the kernel cuts it into datagrams before they cross, as network cards or their drivers do. With gro, those that
// follow one another are joined again where they arrive (generic receive offload), as most drivers of network cards do; that takes
// ethtool, and is [ErrNoDiode] without it. Join undoes it.
func (d *Diode) Split(ctx context.Context, gro bool) error {
	if gro {
		if _, err := exec.LookPath("ethtool"); err != nil {
			return fmt.Errorf("%w: %w", ErrNoDiode, err)
		}
		if err := d.gro(ctx, "on"); err != nil {
			return err
		}
	}
	d.joins = gro
	return d.segments(ctx, 1)
}

// Join undoes Split.
func (d *Diode) Join(ctx context.Context) error {
	err := d.segments(ctx, 65535)
	if d.joins {
		err = errors.Join(err, d.gro(ctx, "off"))
	}
	d.joins = false
	return err
}

func (d *Diode) segments(ctx context.Context, most int) error {
	_, err := command(ctx, "", "ip", "-n", d.Low, "link", "set", d.lowDev, "gso_max_segs", strconv.Itoa(most))
	return err
}

// gro turns the receive offload on or off. veth leaves alone what a socket of this machine sent, which could have stayed joined, unless
// UDP is joined for forwarding, too.
func (d *Diode) gro(ctx context.Context, state string) error {
	_, err := command(ctx, "", "ip", "netns", "exec", d.High, "ethtool", "-K", d.highDev, "gro", state, "rx-udp-gro-forwarding", state)
	return err
}

// Cut takes the high side's end of the cable out, and puts it in again after a while.
func (d *Diode) Cut(ctx context.Context, out time.Duration) error {
	if _, err := command(ctx, "", "ip", "-n", d.High, "link", "set", d.highDev, "down"); err != nil {
		return err
	}
	<-time.After(out)
	_, err := command(ctx, "", "ip", "-n", d.High, "link", "set", d.highDev, "up")
	return err
}

// Inside runs f on a thread that is in a network namespace: sockets that it opens belong there for good. f must start no goroutine that
// opens any.
func (d *Diode) Inside(namespace string, f func() error) error {
	there, err := os.Open("/run/netns/" + namespace)
	if err != nil {
		return err
	}
	defer there.Close()
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter namespace %s: %w", namespace, err)
	}
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, fmt.Errorf("leave namespace %s: %w", namespace, back)) // still locked: nobody else may find himself there
	}
	// The thread must live: the daemons that it started die with it (Pdeathsig).
	runtime.UnlockOSThread()
	return err
}

// SocketDrops is how many packets the kernel dropped at the high side's UDP sockets of a port, as it counts them itself (the last column of
// /proc/net/udp). Sockets that are closed have taken their count with them.
func (d *Diode) SocketDrops(ctx context.Context, port int) (drops int64, err error) {
	out, err := command(ctx, "", "ip", "netns", "exec", d.High, "cat", "/proc/net/udp")
	if err != nil {
		return 0, err
	}
	found := false
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) < 13 || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			continue
		}
		n, err := strconv.ParseInt(f[12], 10, 64)
		if err != nil {
			return 0, err
		}
		drops, found = drops+n, true
	}
	if !found {
		return 0, fmt.Errorf("no UDP socket of port %d in %s", port, d.High)
	}
	return drops, nil
}

// Close removes both namespaces, and with them everything in them.
func (d *Diode) Close(ctx context.Context) error {
	_, err1 := command(ctx, "", "ip", "netns", "del", d.Low)
	_, err2 := command(ctx, "", "ip", "netns", "del", d.High)
	return errors.Join(err1, err2)
}

// command runs a program of the system to its end.
func command(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
