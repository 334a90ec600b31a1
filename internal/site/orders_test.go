// SPDX-License-Identifier: Apache-2.0

package site_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"sluice/internal/bulletin"
	"sluice/internal/site"
	"sluice/internal/site/sitetest"
	"sluice/pkg/mofn"
)

// TestAddOrder: what is refused leaves nothing behind.
func TestAddOrder(t *testing.T) {
	l := newLab(t, nil)
	good := l.Order(l.first, "alice", nil)
	_, foreign := l.First(created("2026-02-01T00:00:00Z"))
	for _, c := range []struct {
		name  string
		data  []byte
		want  error
		words string
	}{
		{"noise", []byte("noise"), bulletin.ErrFormat, "order"},
		{"a trust object", l.first, bulletin.ErrFormat, "this is no order"},
		{"a snapshot", l.Snapshot(l.Says(1, [][]byte{l.first}, nil)), bulletin.ErrFormat, "this is no order"},
		{"signed by another officer", l.DSSE(mofn.OrderPayloadType, l.Payload(good), "security", "bob"), mofn.ErrOrder, "speaks for alice"},
		{"signed in the role root", l.DSSE(mofn.OrderPayloadType, l.Payload(good), mofn.RoleRoot, "alice"), mofn.ErrSignature, ""},
		{"two signatures", l.DSSE(mofn.OrderPayloadType, l.Payload(good), "security", "alice", "bob"), mofn.ErrSignature, "exactly one"},
		{"an officer of no group", l.OrderAs(l.first, "gina", "gina", "security", nil), mofn.ErrOrder, "no role"},
		{"another site's", l.Order(foreign, "alice", nil), mofn.ErrClaim, "another site"},
		{"malformed", l.DSSE(mofn.OrderPayloadType, []byte("{}"), "security", "alice"), mofn.ErrOrder, ""},
	} {
		o, news, err := l.site.AddOrder(c.data)
		if o.ID != "" || news || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %q %t %v; want %v, %q", c.name, o.ID, news, err, c.want, c.words)
		}
		l.reopen()
		if n := len(l.site.Orders()); n != 0 {
			t.Errorf("%s: %d orders are kept", c.name, n)
		}
	}
	got := l.order(good)
	if got.Under != 1 || got.Officer != "alice" || !l.stopped() {
		t.Errorf("%+v", got)
	}
	again, news, err := l.site.AddOrder(l.DSSE(mofn.OrderPayloadType, l.Payload(good), "security", "alice"))
	if again.ID != got.ID || news || err != nil {
		t.Errorf("again, with another signature: %q %t %v", again.ID, news, err)
	}
	l.reopen()
	if !l.stopped() || len(l.site.Orders()) != 1 {
		t.Error("the stop was forgotten")
	}
}

// TestAttackKeepAStopOut: whoever sees an order first puts a signature of their own in its place. The officer's own still counts.
func TestAttackKeepAStopOut(t *testing.T) {
	l := newLab(t, nil)
	stop := l.Order(l.first, "alice", nil)
	bogus := l.DSSE(mofn.OrderPayloadType, l.Payload(stop), "security", "mallory")
	for range 2 {
		got := l.fine(l.Bulletin(1+l.site.Numbers().Counter, [][]byte{l.first}, [][]byte{bogus}))
		if len(got.Orders) != 0 || l.stopped() {
			t.Fatal("a stranger's signature counts")
		}
		l.reopen()
	}
	if l.site.Strangers() != 1 {
		t.Fatalf("%d strangers", l.site.Strangers())
	}
	got := l.fine(l.Bulletin(3, [][]byte{l.first}, [][]byte{stop}))
	if len(got.Orders) != 1 || !l.stopped() || l.site.Strangers() != 0 {
		t.Errorf("the officer's own: %+v, stopped %t", got, l.stopped())
	}
	l.reopen()
	if !l.stopped() {
		t.Error("after a restart")
	}
	if _, news, err := l.site.AddOrder(bogus); news || err != nil || !l.stopped() {
		t.Errorf("the stranger's once more: %t %v", news, err)
	}
}

// TestStrangers: an order whose key is not enrolled counts when a version takes effect that has it, under that version; a bad
// signature never.
func TestStrangers(t *testing.T) {
	l := newLab(t, nil)
	enrol := func(o *mofn.Trust) {
		l.SetPolicy(o, strings.Replace(policy(), "officer carol key @carol", "officer carol key @carol9", 1))
	}
	stop := l.OrderAs(l.first, "carol9", "carol", "security", nil)
	wrong := l.DSSE(mofn.OrderPayloadType, l.Payload(l.OrderAs(l.first, "carol9", "carol", "security", sitetest.Stop(mofn.KindOfficer, "dave"))), mofn.RoleRoot, "carol9")
	for _, data := range [][]byte{stop, wrong} {
		if o, news, err := l.site.AddOrder(data); o.ID != "" || !news || err != nil {
			t.Fatalf("%q %t %v", o.ID, news, err)
		}
	}
	l.reopen()
	if l.site.Strangers() != 2 || l.stopped() || l.site.Numbers().Orders != 0 {
		t.Errorf("%d strangers", l.site.Strangers())
	}
	two := l.Next(l.first, enrol)
	l.add(two)
	l.add(l.Next(two, func(o *mofn.Trust) { l.SetPolicy(o, policy()) })) // carol9 leaves again
	l.later(4 * day)
	taken, err := l.site.Tick(l.now)
	if err != nil || len(taken) != 1 || !l.stopped() || l.site.Strangers() != 1 {
		t.Fatalf("%d in effect, stopped %t, %d strangers, %v", len(taken), l.stopped(), l.site.Strangers(), err)
	}
	if o := l.site.Standing().Stops[0]; o.Under != 2 {
		t.Errorf("under version %d", o.Under)
	}
	for _, who := range []string{"alice", "bob"} {
		l.order(l.Order(l.first, who, l.Resume(stop)))
	}
	if taken, err = l.site.Tick(l.now); err != nil || len(taken) != 1 {
		t.Fatalf("%d in effect, %v", len(taken), err)
	}
	l.reopen()
	if n := len(l.site.Standing().Lifted); n != 1 {
		t.Errorf("%d lifted: its officer's key left, and it goes on counting", n)
	}
}

// TestRetiredKey: a key that left gives no new orders, and what it gave stands.
func TestRetiredKey(t *testing.T) {
	l := newLab(t, nil)
	stop := l.Order(l.first, "carol", nil)
	l.order(stop)
	for _, who := range []string{"alice", "bob"} {
		l.order(l.Order(l.first, who, l.Resume(stop)))
	}
	kept := l.Order(l.first, "carol", sitetest.Stop(mofn.KindStream, "models/*"))
	l.order(kept)
	l.add(l.Next(l.first, func(o *mofn.Trust) {
		l.SetPolicy(o, strings.Replace(policy(), "officer carol key @carol", "officer carol key @carol9", 1))
	}))
	l.later(4 * day)
	_, err := l.site.Tick(l.now)
	must(t, err)
	l.standsAt(2, 2)
	if o, news, err := l.site.AddOrder(l.Order(l.first, "carol", sitetest.Stop(mofn.KindOfficer, "dave"))); o.ID != "" || !news || err != nil {
		t.Errorf("the old key: %q %t %v", o.ID, news, err)
	}
	l.order(l.OrderAs(l.first, "carol9", "carol", "security", sitetest.Stop(mofn.KindOfficer, "erin")))
	l.reopen()
	if st := l.site.Standing(); len(st.Stops) != 2 || l.site.Strangers() != 1 {
		t.Errorf("%d stops, %d strangers", len(st.Stops), l.site.Strangers())
	}
}

// TestRoomForOrders: strangers take no officer's place, and officers no more than a bulletin carries.
func TestRoomForOrders(t *testing.T) {
	l := newLab(t, nil)
	l.quick()
	for i := range site.MaxUnknown + 5 {
		_, news, err := l.site.AddOrder(l.Order(l.first, "mallory", sitetest.Stop(mofn.KindStream, fmt.Sprintf("s%d", i))))
		if full := i >= site.MaxUnknown; full != errors.Is(err, site.ErrFull) || full == news {
			t.Fatalf("stranger %d: %t %v", i, news, err)
		}
	}
	l.order(l.Order(l.first, "alice", nil))
	var all []bulletin.Order
	for i := range bulletin.MaxOrders - site.MaxUnknown {
		o, err := bulletin.NewOrder(l.Order(l.first, "bob", sitetest.Stop(mofn.KindStream, fmt.Sprintf("s%d", i))))
		must(t, err)
		all = append(all, o)
	}
	got := l.take(&bulletin.Bulletin{Snapshot: l.Snapshot(l.Says(1, [][]byte{l.first}, nil)), Trust: [][]byte{l.first}, Orders: all})
	if len(got.Orders) != len(all)-1 || len(got.Problems) != 2 || !errors.Is(got.Problems[0], site.ErrFull) || !strings.Contains(got.Problems[0].Error(), "a new chain of trust begins") {
		t.Errorf("%d orders, %v", len(got.Orders), got.Problems)
	}
	b, _, err := l.site.Make(l.next(1))
	must(t, err)
	if data, err := b.Bytes(); err != nil || len(b.Orders) != bulletin.MaxOrders {
		t.Errorf("%d orders, %d bytes, %v", len(b.Orders), len(data), err)
	}
}

// TestHeartbeatKeyStopped: the snapshots of a stopped key count nothing, the orders beside them do; and the bastion's own go on.
func TestHeartbeatKeyStopped(t *testing.T) {
	l, low := newLab(t, nil), newLab(t, nil)
	stop := l.Order(l.first, "carol", sitetest.Stop(mofn.KindKey, l.ID("heartbeat-1")))
	l.fine(l.Bulletin(1, [][]byte{l.first}, nil))
	got := l.take(l.Bulletin(2, [][]byte{l.first}, [][]byte{stop}))
	l.refused(got, "stopped by carol", mofn.ErrSnapshot)
	if len(got.Orders) != 1 || l.site.Snapshot() != nil {
		t.Errorf("%d orders, snapshot %v", len(got.Orders), l.site.Snapshot())
	}
	l.fresh(site.Unheard, "")
	l.reopen()
	if l.site.Snapshot() != nil {
		t.Error("after a restart it counts again")
	}
	low.order(stop)
	if _, _, err := low.site.Make(low.next(1)); err != nil {
		t.Errorf("bulletins stop: %v", err)
	}
	got = l.fine(l.Bulletin(3, [][]byte{l.first}, [][]byte{stop, l.Order(l.first, "alice", l.Resume(stop)), l.Order(l.first, "bob", l.Resume(stop))}))
	if len(got.Orders) != 2 {
		t.Errorf("%d orders", len(got.Orders))
	}
}
