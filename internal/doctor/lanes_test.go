// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// TestLanes: the host is checked once, and what each lane has of its own for each, with its number; one lane has none.
func TestLanes(t *testing.T) {
	lanes := []Want{{Address: netip.MustParseAddrPort("192.0.2.2:4710")}, {Address: netip.MustParseAddrPort("192.0.2.6:4710")}}
	var read []Want
	look := func(w Want) *View {
		read = append(read, w)
		v := &View{}
		v.Interface.Err, v.Ring.Err, v.Qdiscs.Err, v.Route.Err, v.Neighbour.Err = errAbsent, errAbsent, errAbsent, errAbsent, errAbsent
		return v
	}
	host := func() []Finding { return []Finding{{ID: "clock"}, {ID: "route"}, {ID: "mtu"}} }
	if got := ofLanes(lanes[:1], host(), senderLane(), look); len(got) != 3 || got[1].Lane != 0 || len(read) != 0 {
		t.Errorf("one lane: %+v", got)
	}
	got := ofLanes(lanes, host(), senderLane(), look)
	var names []string
	for _, f := range got {
		names = append(names, f.name())
	}
	want := "clock, route (lane 1), mtu (lane 1), route (lane 2), neighbour (lane 2)"
	if s := strings.Join(names, ", "); !strings.HasPrefix(s, want) || len(got) != 3+len(senderLane()) {
		t.Errorf("%s, want %s and others of lane 2", s, want)
	}
	if !slices.Equal(read, lanes[1:]) {
		t.Errorf("read for %v", read)
	}
	if w := (Want{Rate: 100, Total: 250}); w.total() != 250 || bytesPerSecond(w) != 250.0/8 {
		t.Error("the disk is shared by the lanes")
	}
}

var errAbsent = errors.New("absent")
