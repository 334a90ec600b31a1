// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"sluice/internal/link"
)

// ReadReceiver reads what [Receiver] checks. It asks, and changes nothing.
func ReadReceiver(ctx context.Context, w Want) *View {
	start := time.Now()
	v := ReadReceiverLane(w)
	v.ReceiveBuffer = reading(tryBuffer(w))
	readDisk(ctx, v, w.State)
	v.Clock = reading(readClock(start))
	return v
}

// ReadSender reads what [Sender] checks. It asks, and changes nothing; the probe of the offload sends three datagrams over loopback.
func ReadSender(ctx context.Context, w Want) *View {
	start := time.Now()
	v := ReadSenderLane(w)
	v.GSO = link.ProbeGSO(ctx)
	readDisk(ctx, v, w.State)
	v.Clock = reading(readClock(start))
	return v
}

// ReadReceiverLane reads what one lane of a receiver has of its own.
func ReadReceiverLane(w Want) *View {
	v := blank()
	v.Interface = reading(findInterface(w))
	readDevice(v)
	return v
}

// ReadSenderLane reads what one lane of a sender has of its own.
func ReadSenderLane(w Want) *View {
	v := blank()
	v.Route = reading(findRoute(w.Address.Addr()))
	v.Interface = Reading[Interface]{v.Route.Value.Interface, v.Route.Err}
	readDevice(v)
	v.Neighbour = reading(findNeighbour(v.Route, w.Address.Addr()))
	return v
}

func blank() *View {
	return &View{Files: os.DirFS("/"), Page: os.Getpagesize()}
}

// reading makes one of a call's two results.
func reading[T any](value T, err error) Reading[T] { return Reading[T]{value, err} }

func findInterface(w Want) (Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return Interface{}, fmt.Errorf("list interfaces: %w", err)
	}
	var found []Interface
	for _, n := range all {
		i, err := describe(n)
		if err != nil {
			return Interface{}, err
		}
		found = append(found, i)
	}
	return ChooseInterface(found, w)
}

func describe(n net.Interface) (Interface, error) {
	addresses, err := n.Addrs()
	if err != nil {
		return Interface{}, fmt.Errorf("addresses of %s: %w", n.Name, err)
	}
	i := Interface{
		Name: n.Name, Index: n.Index, MTU: n.MTU,
		Up: n.Flags&net.FlagUp != 0, Carrier: n.Flags&net.FlagRunning != 0,
		Loopback: n.Flags&net.FlagLoopback != 0, PointToPoint: n.Flags&net.FlagPointToPoint != 0,
	}
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			i.Addresses = append(i.Addresses, p.Addr())
		}
	}
	return i, nil
}

// readDevice asks the driver and the queues of the diode's interface.
func readDevice(v *View) {
	i, err := device(v)
	if err != nil {
		v.Ring.Err, v.GRO.Err, v.Pause.Err, v.Qdiscs.Err = err, err, err, err
		return
	}
	v.Qdiscs = reading(findQdiscs(i))
	e, err := ethtool.NewEthtool()
	if err != nil {
		v.Ring.Err, v.GRO.Err, v.Pause.Err = err, err, err
		return
	}
	defer e.Close()
	v.Ring = reading(readRing(e, i.Name))
	v.GRO = reading(readGRO(e, i.Name))
	v.Pause = reading(readPause(e, i.Name))
}

func readRing(e *ethtool.Ethtool, name string) (Ring, error) {
	r, err := e.GetRing(name)
	if err != nil {
		return Ring{}, fmt.Errorf("ring of %s: %w", name, err)
	}
	return Ring{RX: r.RxPending, RXMax: r.RxMaxPending, TX: r.TxPending, TXMax: r.TxMaxPending}, nil
}

func readGRO(e *ethtool.Ethtool, name string) (bool, error) {
	features, err := e.Features(name)
	if err != nil {
		return false, fmt.Errorf("features of %s: %w", name, err)
	}
	on, known := features["rx-gro"]
	if !known {
		return false, fmt.Errorf("features of %s: %w: no rx-gro", name, ErrMalformed)
	}
	return on, nil
}

func readPause(e *ethtool.Ethtool, name string) (Pause, error) {
	p, err := e.GetPause(name)
	if err != nil {
		return Pause{}, fmt.Errorf("flow control of %s: %w", name, err)
	}
	return Pause{RX: p.RxPause != 0, TX: p.TxPause != 0}, nil
}

// findQdiscs names each kind of queue once: an interface of many queues has one of the same kind below each.
func findQdiscs(i Interface) (kinds []string, err error) {
	list, err := netlink.QdiscList(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: i.Index, Name: i.Name}})
	if err != nil {
		return nil, fmt.Errorf("queues of %s: %w", i.Name, err)
	}
	for _, q := range list {
		if kind := q.Type(); !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	return kinds, nil
}

func findRoute(to netip.Addr) (Route, error) {
	list, err := netlink.RouteGet(to.Unmap().WithZone("").AsSlice())
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EACCES):
		return Route{}, fmt.Errorf("%w: %w", ErrNoRoute, err)
	case err != nil:
		return Route{}, fmt.Errorf("route to %s: %w", to, err)
	case len(list) == 0:
		return Route{}, ErrNoRoute
	}
	n, err := net.InterfaceByIndex(list[0].LinkIndex)
	if err != nil {
		return Route{}, fmt.Errorf("interface of the route to %s: %w", to, err)
	}
	r := Route{Gateway: address(list[0].Gw), Source: address(list[0].Src)}
	r.Interface, err = describe(*n)
	return r, err
}

// address is invalid for none.
func address(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// findNeighbour looks up the next hop.
func findNeighbour(r Reading[Route], to netip.Addr) (Neighbour, error) {
	if r.Err != nil {
		return Neighbour{}, r.Err
	}
	hop, family := to.Unmap().WithZone(""), netlink.FAMILY_V4
	if r.Value.Gateway.IsValid() {
		hop = r.Value.Gateway
	}
	if hop.Is6() {
		family = netlink.FAMILY_V6
	}
	list, err := netlink.NeighList(r.Value.Interface.Index, family)
	if err != nil {
		return Neighbour{}, fmt.Errorf("neighbours by %s: %w", r.Value.Interface.Name, err)
	}
	for _, n := range list {
		if address(n.IP) == hop {
			return Neighbour{State: stateName(n.State), Hardware: n.HardwareAddr.String()}, nil
		}
	}
	return Neighbour{}, nil
}

// stateName is ip-neighbour(8)'s.
func stateName(state int) string {
	switch state {
	case netlink.NUD_INCOMPLETE:
		return "incomplete"
	case netlink.NUD_REACHABLE:
		return "reachable"
	case netlink.NUD_STALE:
		return "stale"
	case netlink.NUD_DELAY:
		return "delay"
	case netlink.NUD_PROBE:
		return "probe"
	case netlink.NUD_FAILED:
		return "failed"
	case netlink.NUD_NOARP:
		return "noarp"
	case netlink.NUD_PERMANENT:
		return "permanent"
	}
	return ""
}

func tryBuffer(w Want) (int64, error) {
	got, err := link.TryReceiveBuffer(int(min(w.Buffer, maxBuffer)))
	return int64(got), err
}

func readClock(start time.Time) (Clock, error) {
	var t unix.Timex // modes 0: only asks
	if _, err := unix.Adjtimex(&t); err != nil {
		return Clock{}, fmt.Errorf("ask the kernel's clock: %w", err)
	}
	now := time.Now()
	return Clock{
		Now: now, Synchronised: t.Status&unix.STA_UNSYNC == 0, MaxError: time.Duration(t.Maxerror) * time.Microsecond,
		Watched: now.Sub(start), Moved: now.Round(0).Sub(start.Round(0)), // Round drops the monotonic reading
	}, nil
}
