// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sluice/internal/console"
)

const (
	// smallMTU is the smaller profile's.
	smallMTU = 1500
	// fullRing is enough for any rate of today: 4096 full frames are 5 ms of 10 Gbit/s.
	fullRing = 4096
	// loadPercent is how much of an interface a sender takes: the rest absorbs what pacing cannot see.
	loadPercent = 90
)

// ChooseInterface returns the interface that a receiver's datagrams come in by: the named one, or that which has the address. Every
// interface's address (0.0.0.0) is decided by there being one only, besides loopback, that is up and has an address.
func ChooseInterface(all []Interface, w Want) (Interface, error) {
	var found []Interface
	for _, i := range all {
		if isWanted(i, w) {
			found = append(found, i)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) == 0 && w.Interface != "":
		return Interface{}, fmt.Errorf("%w is called %s", ErrNoInterface, w.Interface)
	case len(found) == 0:
		return Interface{}, fmt.Errorf("%w has the address %s", ErrNoInterface, w.Address.Addr())
	}
	return Interface{}, fmt.Errorf("%w has the address %s: %s", ErrManyInterfaces, w.Address.Addr(), names(found))
}

func isWanted(i Interface, w Want) bool {
	switch addr := w.Address.Addr().Unmap().WithZone(""); {
	case w.Interface != "":
		return i.Name == w.Interface
	case addr.IsUnspecified():
		return i.Up && !i.Loopback && len(i.Addresses) > 0
	case i.Loopback && addr.IsLoopback():
		return true // 127.0.0.2 is nobody's, and lo's all the same
	default:
		return slices.Contains(i.Addresses, addr)
	}
}

func names(all []Interface) string {
	var s []string
	for _, i := range all {
		s = append(s, i.Name)
	}
	return strings.Join(s, ", ")
}

// device is the diode's interface, or why what depends on it is unknown.
func device(v *View) (Interface, error) {
	if err := v.Interface.Err; err != nil {
		return Interface{}, fmt.Errorf("the diode's interface is not known: %w", err)
	}
	return v.Interface.Value, nil
}

// software says of a reading that a driver refuses: there is no hardware whose setting could be wrong.
func software(err error) bool { return errors.Is(err, errors.ErrUnsupported) }

func checkInterface(v *View, w Want) Finding {
	f := Finding{ID: "interface", Wanted: "up, with a carrier", Why: "nothing crosses an interface that is down or has no light"}
	i, err := v.Interface.Value, v.Interface.Err
	switch {
	case errors.Is(err, ErrManyInterfaces):
		return f.unknown(err, "say which one is the diode's: doctor --interface NAME, or its address in link.listen")
	case errors.Is(err, ErrNoInterface):
		return f.fail(oneLine(err), noInterfaceFix(w))
	case err != nil:
		return f.unknown(err, "")
	case !i.Up:
		return f.fail(i.Name+": down", "ip link set dev "+i.Name+" up")
	case !i.Carrier:
		return f.fail(i.Name+": up, no carrier", "look at the fibre; an interface that only sends needs light on its receiving side too (a splitter, or a media converter's idle light)")
	}
	return f.ok(i.Name + ": up")
}

func noInterfaceFix(w Want) string {
	if w.Interface != "" {
		return "ip -br link shows the names: doctor --interface NAME"
	}
	return fmt.Sprintf("ip addr add %s/%d dev NAME, or mend the address in the configuration", w.Address.Addr(), w.Address.Addr().BitLen())
}

func checkMTU(v *View, w Want) Finding {
	need := max(w.MTU, smallMTU)
	f := Finding{
		ID: "mtu", Wanted: fmt.Sprintf("at least %d bytes", need),
		Why: "a datagram fills the profile's MTU and is never fragmented: the kernel refuses to send a longer one, and many devices drop it when it comes in",
	}
	i, err := device(v)
	switch {
	case err != nil:
		return f.unknown(err, "")
	case i.MTU < need:
		return f.fail(fmt.Sprintf("%d bytes", i.MTU), mtuFix(i.Name, need))
	}
	return f.ok(fmt.Sprintf("%d bytes", i.MTU))
}

// mtuFix offers the smaller profile where the larger does not fit.
func mtuFix(name string, need int) string {
	fix := linkFix(fmt.Sprintf("ip link set dev %s mtu %d", name, need), fmt.Sprintf("MTUBytes=%d", need))
	if need > smallMTU {
		fix += fmt.Sprintf("; or link: {mtu: %d} at the sender", smallMTU)
	}
	return fix
}

func checkRXRing(v *View, _ Want) Finding {
	f := Finding{ID: "rx_ring", Why: "frames that come while the processor is busy wait in the ring; a full ring loses them before the kernel sees them"}
	return checkRing(v, f, "rx", "RxBufferSize", func(r Ring) (uint32, uint32) { return r.RX, r.RXMax })
}

func checkTXRing(v *View, _ Want) Finding {
	f := Finding{ID: "tx_ring", Why: "batches wait in the ring; a short one is full at once, and the queue above it drops"}
	return checkRing(v, f, "tx", "TxBufferSize", func(r Ring) (uint32, uint32) { return r.TX, r.TXMax })
}

// checkRing holds one direction of the ring against its maximum.
func checkRing(v *View, f Finding, direction, key string, of func(Ring) (now, most uint32)) Finding {
	now, most := of(v.Ring.Value)
	need := min(most, fullRing)
	f.Wanted = fmt.Sprintf("the device's maximum, up to %d descriptors", fullRing)
	i, err := device(v)
	switch {
	case err != nil:
		return f.unknown(err, "")
	case software(v.Ring.Err), v.Ring.Err == nil && most == 0:
		return f.ok("none: " + i.Name + " has no ring to set")
	case v.Ring.Err != nil:
		return f.unknown(v.Ring.Err, "ethtool -g "+i.Name)
	case now < need:
		return f.warn(fmt.Sprintf("%d of %d descriptors", now, most),
			linkFix(fmt.Sprintf("ethtool -G %s %s %d", i.Name, direction, need), fmt.Sprintf("%s=%d", key, need)))
	}
	return f.ok(fmt.Sprintf("%d of %d descriptors", now, most))
}

func checkGRO(v *View, _ Want) Finding {
	f := Finding{
		ID: "gro", Wanted: "generic receive offload on",
		Why: "it hands datagrams over by the dozen: without it one core takes a third of the rate, and the buffer fills",
	}
	i, err := device(v)
	switch {
	case err != nil:
		return f.unknown(err, "")
	case v.GRO.Err != nil:
		return f.unknown(v.GRO.Err, "ethtool -k "+i.Name)
	case !v.GRO.Value:
		return f.warn("off", linkFix("ethtool -K "+i.Name+" gro on", "GenericReceiveOffload=yes"))
	}
	return f.ok("on")
}

func checkPause(v *View, _ Want) Finding {
	f := Finding{
		ID: "pause_frames", Wanted: "off, both ways",
		Why: "a pause frame cannot cross the diode, and one that the diode's own port heeds stops the link without anybody being told",
	}
	i, err := device(v)
	p := v.Pause
	switch {
	case err != nil:
		return f.unknown(err, "")
	case software(p.Err):
		return f.ok("none: " + i.Name + " has no flow control")
	case p.Err != nil:
		return f.unknown(p.Err, "ethtool -a "+i.Name)
	case p.Value.RX || p.Value.TX:
		return f.warn("rx "+onOff(p.Value.RX)+", tx "+onOff(p.Value.TX),
			linkFix("ethtool -A "+i.Name+" autoneg off rx off tx off", "AutoNegotiationFlowControl=no RxFlowControl=no TxFlowControl=no, one a line"))
	}
	return f.ok("rx off, tx off")
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// checkReversePath looks at the larger of the two settings, which is the one that counts (ip-sysctl).
func checkReversePath(v *View, w Want) Finding {
	f := Finding{
		ID: "rp_filter", Wanted: "0",
		Why: "1 drops what comes from an address that this host would answer by another interface, 2 what it could not answer at all; behind a diode there may be no way to answer",
	}
	i, err := device(v)
	if err != nil {
		return f.unknown(err, "")
	}
	if w.Address.Addr().Is6() && !w.Address.Addr().Is4In6() && !w.Address.Addr().IsUnspecified() {
		return f.ok("none: IPv6 has no such filter")
	}
	if i.Loopback {
		return f.ok("none: loopback is not filtered")
	}
	all, err1 := readInt(v.Files, "proc/sys/net/ipv4/conf/all/rp_filter")
	own, err2 := readInt(v.Files, "proc/sys/net/ipv4/conf/"+i.Name+"/rp_filter")
	if err := errors.Join(err1, err2); err != nil {
		return f.unknown(err, sysctlAsk("net.ipv4.conf."+i.Name+".rp_filter"))
	}
	if max(all, own) > 0 {
		return f.warn(fmt.Sprintf("%d (all %d, %s %d)", max(all, own), all, i.Name, own), reversePathFix(i.Name, all))
	}
	return f.ok("0")
}

// reversePathFix names all only where it is in the way: it counts for every other interface too.
func reversePathFix(name string, all int64) string {
	own := "net.ipv4.conf." + strings.ReplaceAll(name, ".", "/") + ".rp_filter" // sysctl(8) swaps the two separators
	fix := sysctlFix(own, 0)
	if all > 0 {
		fix = "sysctl -w net.ipv4.conf.all.rp_filter=0 (it overrides each interface's own, so give the others theirs first), and " + fix
	}
	return fix
}

func checkGateway(v *View, _ Want) Finding {
	f := Finding{
		ID: "way_back", Wanted: "no gateway behind the diode",
		Why: "a receiver needs no route and no neighbour back; what is routed by a gateway behind the diode is lost, and tells of a wiring that is not one-way",
	}
	i, err := device(v)
	if err != nil {
		return f.unknown(err, "")
	}
	found, err := gateways(v.Files, i.Name)
	switch {
	case err != nil:
		return f.unknown(err, "ip route show dev "+i.Name)
	case len(found) > 0:
		return f.warn("gateway "+found[0].String()+" by "+i.Name, "ip route show dev "+i.Name+", and ip route del each route with \"via\"")
	}
	return f.ok("none; no route and no neighbour back is needed")
}

func checkRoute(v *View, w Want) Finding {
	f := Finding{ID: "route", Wanted: "a route to " + w.Address.Addr().String(), Why: "without a route nothing is sent"}
	r := v.Route.Value
	switch {
	case errors.Is(v.Route.Err, ErrNoRoute):
		return f.fail(oneLine(v.Route.Err), fmt.Sprintf("ip route add %s/%d dev NAME, NAME being the diode's interface", w.Address.Addr(), w.Address.Addr().BitLen()))
	case v.Route.Err != nil:
		return f.unknown(v.Route.Err, "ip route get "+w.Address.Addr().String())
	}
	seen := "by " + r.Interface.Name
	if r.Gateway.IsValid() {
		seen += " via " + r.Gateway.String()
	}
	if r.Source.IsValid() {
		seen += " from " + r.Source.String()
	}
	return f.ok(seen)
}

// checkNeighbour looks for the entry that stands in for an answer which a diode can never bring.
func checkNeighbour(v *View, w Want) Finding {
	f := Finding{
		ID: "neighbour", Wanted: "a permanent neighbour entry",
		Why: "the kernel asks for the receiver's hardware address before it sends, and no answer comes back over a diode",
	}
	r := v.Route.Value
	if v.Route.Err != nil {
		return f.unknown(fmt.Errorf("the route is not known: %w", v.Route.Err), "")
	}
	switch i := r.Interface; {
	case i.Loopback:
		return f.ok("not needed: loopback")
	case w.Address.Addr().IsMulticast():
		return f.ok("not needed: a multicast address has its hardware address in it")
	case i.PointToPoint:
		return f.ok("not needed: " + i.Name + " is point-to-point")
	case v.Neighbour.Err != nil:
		return f.unknown(v.Neighbour.Err, "ip neigh show dev "+i.Name)
	}
	return judgeNeighbour(f, v.Neighbour.Value, r, w.Address.Addr())
}

func judgeNeighbour(f Finding, n Neighbour, r Route, to netip.Addr) Finding {
	fix := fmt.Sprintf("ip neigh replace %s lladdr MAC dev %s nud permanent, MAC being that of the receiver's interface, and at each boot", to, r.Interface.Name)
	seen := strings.TrimSpace(n.State + " " + n.Hardware)
	switch {
	case n.State == "permanent":
		return f.ok(seen)
	case r.Gateway.IsValid() && answers(n.State):
		return f.ok(fmt.Sprintf("not needed: gateway %s answers (%s); the entry belongs on the host before the diode", r.Gateway, n.State))
	case r.Gateway.IsValid():
		return f.warn(fmt.Sprintf("gateway %s: %s", r.Gateway, orNone(seen)), "a gateway that cannot answer is behind the diode: route to the receiver directly, and "+fix)
	case answers(n.State), n.State == "noarp":
		return f.warn(seen, fix)
	}
	return f.fail(orNone(seen), fix)
}

// answers says whether the neighbour has answered at some time, as nobody does behind a diode.
func answers(state string) bool {
	return slices.Contains([]string{"reachable", "stale", "delay", "probe"}, state)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// checkQdisc judges every queue of the interface: below mq each hardware queue has one of its own.
func checkQdisc(v *View, _ Want) Finding {
	f := Finding{
		ID: "qdisc", Wanted: "fq, noqueue or a plain fifo",
		Why: "fq_codel and its kin drop on purpose, to slow a sender down that listens; this one cannot. A shaper drops above its own rate",
	}
	i, err := device(v)
	switch {
	case err != nil:
		return f.unknown(err, "")
	case v.Qdiscs.Err != nil:
		return f.unknown(v.Qdiscs.Err, "tc qdisc show dev "+i.Name)
	case len(v.Qdiscs.Value) == 0:
		return f.unknown(fmt.Errorf("the kernel names no queue of %s", i.Name), "tc qdisc show dev "+i.Name)
	}
	return judgeQdiscs(f, v.Qdiscs.Value, i.Name)
}

func judgeQdiscs(f Finding, kinds []string, name string) Finding {
	seen := strings.Join(kinds, " + ")
	strange := ""
	for _, kind := range kinds {
		switch kind {
		case "fq", "noqueue", "mq", "pfifo", "bfifo", "pfifo_fast", "ingress", "clsact":
		case "fq_codel", "codel", "fq_pie", "pie", "cake", "sfq", "red", "sfb", "choke", "hhf", "tbf", "htb", "hfsc", "netem":
			return f.warn(seen, "tc qdisc replace dev "+name+" root fq, and the line net.core.default_qdisc = fq in "+sysctlFile)
		default:
			strange = kind
		}
	}
	if strange != "" {
		f.Seen = seen
		return f.unknown(fmt.Errorf("nothing is known here of the qdisc %q", strange), "tc -s qdisc show dev "+name+": does it drop?")
	}
	return f.ok(seen)
}

// checkRate holds the configured rate against what the interface does.
func checkRate(v *View, w Want) Finding {
	f := Finding{
		ID: "rate", Wanted: fmt.Sprintf("at most %d %% of the interface", loadPercent),
		Why: "what is sent faster than the interface takes is dropped in this host, and a link without slack turns every burst into loss",
	}
	i, err := device(v)
	if err != nil {
		return f.unknown(err, "")
	}
	f.Seen = console.BitRate(float64(w.Rate))
	megabits, err := readInt(v.Files, "sys/class/net/"+i.Name+"/speed")
	if err != nil || megabits <= 0 {
		reason := fmt.Errorf("%s does not tell its speed", i.Name)
		if err != nil {
			reason = fmt.Errorf("%w: %w", reason, err)
		}
		return f.unknown(reason, "set link.rate to 90 % of what the diode takes")
	}
	speed := megabits * 1_000_000
	seen := fmt.Sprintf("%s on %s", console.BitRate(float64(w.Rate)), console.BitRate(float64(speed)))
	fix := fmt.Sprintf("link: {rate: %dMbit} in the configuration", megabits*loadPercent/100)
	switch {
	case w.Rate > speed:
		return f.fail(seen, fix)
	case w.Rate > speed/100*loadPercent:
		return f.warn(seen, fix)
	}
	return f.ok(seen)
}
