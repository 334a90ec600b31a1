// SPDX-License-Identifier: Apache-2.0

package site_test

import (
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"sluice/internal/bulletin"
	"sluice/internal/site"
	"sluice/internal/site/sitetest"
	"sluice/pkg/mofn"
)

// TestAttackFreeze: whoever holds the link back, or plays old bulletins again, hides nothing for longer than three intervals.
func TestAttackFreeze(t *testing.T) {
	l := newLab(t, nil)
	old := l.Bulletin(1, [][]byte{l.first}, nil)
	l.onTime(1)
	l.fine(old)
	for i := range 10 {
		l.later(time.Minute)
		if i%3 == 2 {
			l.reopen() // the attacker makes the machine start again
		}
		l.refused(l.take(old), "", site.ErrReplay)
		if f := l.site.Fresh(l.now); i == 2 && f.State == site.Fresh || f.State == site.Late {
			t.Errorf("after %d minutes: %s", i+1, f.Text)
		}
	}
	l.later(3 * time.Minute)
	l.fresh(site.Stale, "")
}

// TestAttackMixAndMatch: parts of several bulletins make no bulletin; and what each part proves by itself counts.
func TestAttackMixAndMatch(t *testing.T) {
	l := newLab(t, nil)
	two := l.Next(l.first, nil)
	stop := l.Order(l.first, "alice", sitetest.Stop(mofn.KindStream, "models/*"))
	one := [][]byte{l.first}
	both := [][]byte{l.first, two}
	before, after := l.Bulletin(1, one, nil), l.Bulletin(2, both, [][]byte{stop})
	for name, b := range map[string]*bulletin.Bulletin{
		"the new snapshot, without the stop":     {Snapshot: after.Snapshot, Trust: after.Trust},
		"the new snapshot, with the old chain":   {Snapshot: after.Snapshot, Trust: before.Trust, Orders: after.Orders},
		"the old snapshot, with the new rest":    {Snapshot: before.Snapshot, Trust: after.Trust, Orders: after.Orders},
		"the new snapshot, with another version": {Snapshot: after.Snapshot, Trust: [][]byte{l.first, l.Next(l.first, created("2026-05-01T00:00:00Z"))}, Orders: after.Orders},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, nil)
			got := l.take(b)
			l.refused(got, "the snapshot", bulletin.ErrFormat)
			if got.Snapshot != nil || l.site.Snapshot() != nil || l.site.Numbers().Counter != 0 {
				t.Error("the snapshot counts")
			}
			if len(got.Orders) != len(b.Orders) || len(got.Trust) != len(b.Trust)-1 {
				t.Errorf("%d orders and %d versions of it count", len(got.Orders), len(got.Trust))
			}
		})
	}
	l.fine(after)
	if c := (mofn.Current{Stream: "models/llm", Seq: 1, Release: l.Root(l.first)}); l.site.Snapshot().Names(c) {
		t.Error("a release that it does not name")
	}
}

// TestAttackFastForward: a thief of the heartbeat key counts up to the end. A new key begins anew, and the old one is silent.
func TestAttackFastForward(t *testing.T) {
	l := newLab(t, nil)
	l.fine(l.Bulletin(1, [][]byte{l.first}, nil))
	end := l.Says(1, [][]byte{l.first}, nil)
	end.Counter = 1<<53 - 1
	l.fine(&bulletin.Bulletin{Snapshot: l.Snapshot(end), Trust: [][]byte{l.first}})
	l.refused(l.take(l.Bulletin(2, [][]byte{l.first}, nil)), "counter 2", site.ErrReplay)

	chain := [][]byte{l.first, l.Next(l.first, func(o *mofn.Trust) { o.Heartbeats = l.Enrol("heartbeat-1", "heartbeat-2") })}
	by := func(counter int64, key string) *bulletin.Bulletin {
		return &bulletin.Bulletin{Snapshot: l.Snapshot(l.Says(counter, chain, nil), key), Trust: chain}
	}
	l.refused(l.take(by(3, "heartbeat-1")), "counter 3", site.ErrReplay)
	l.fine(by(3, "heartbeat-2"))
	if n := l.site.Numbers(); n.Generation != 2 || n.Counter != 3 {
		t.Errorf("%+v", n)
	}
	l.reopen()
	for _, b := range []*bulletin.Bulletin{by(3, "heartbeat-2"), by(2, "heartbeat-2"), by(4, "heartbeat-1"), by(math.MaxInt64>>11, "heartbeat-1")} {
		l.refused(l.take(b), "", site.ErrReplay)
	}
	l.fine(by(4, "heartbeat-2"))
	// The old key on the low side: it would make what nobody takes, and says so.
	low := newLab(t, nil)
	low.fine(by(1, "heartbeat-2"))
	if _, _, err := low.site.Make(low.next(1)); !errors.Is(err, site.ErrReplay) {
		t.Errorf("made with the key of before: %v", err)
	}
}

// TestAttackRollback: older snapshots, newer ones of an older state, and older trust objects.
func TestAttackRollback(t *testing.T) {
	l := newLab(t, nil)
	two := l.Next(l.first, nil)
	chain := [][]byte{l.first, two}
	orders := [][]byte{l.Order(l.first, "alice", sitetest.Stop(mofn.KindStream, "a")), l.Order(l.first, "bob", sitetest.Stop(mofn.KindStream, "b"))}
	l.fine(l.Bulletin(10, chain, orders))
	for name, c := range map[string]struct {
		b    *bulletin.Bulletin
		want error
	}{
		"the same again":                {l.Bulletin(10, chain, orders), site.ErrReplay},
		"an older one":                  {l.Bulletin(9, chain, orders), site.ErrReplay},
		"a newer one without version 2": {l.Bulletin(11, chain[:1], orders), site.ErrRollback},
		"a newer one without orders":    {l.Bulletin(12, chain, nil), site.ErrRollback},
		"a newer one with one order":    {l.Bulletin(13, chain, orders[:1]), site.ErrRollback},
	} {
		for range 2 {
			got := l.take(c.b)
			l.refused(got, "", c.want)
			if n := l.site.Numbers(); n.Counter != 10 || n.Trust != 2 || n.Orders != 2 || len(l.site.Snapshot().Orders) != 2 {
				t.Errorf("%s: %+v", name, n)
			}
			l.reopen()
		}
	}
	more := append(slices.Clone(orders), l.Order(l.first, "carol", nil))
	l.fine(l.Bulletin(11, append(slices.Clone(chain), l.Next(two, nil)), more))
}

// TestAttackWrongSite: what belongs to another site means nothing here, though the same people signed it.
func TestAttackWrongSite(t *testing.T) {
	l := newLab(t, nil)
	_, foreign := l.First(created("2026-02-01T00:00:00Z"))
	stop := l.Order(foreign, "alice", nil)
	got := l.take(l.Bulletin(1, [][]byte{foreign, l.Next(foreign, nil)}, [][]byte{stop}))
	l.refused(got, "another site's", site.ErrChain, mofn.ErrOrder, mofn.ErrSnapshot)
	if got.Snapshot != nil || len(got.Orders)+len(got.Trust)+got.Strange > 0 || l.stopped() {
		t.Errorf("%+v", got)
	}
	// Its snapshot and its order within our chain.
	b := l.Bulletin(1, [][]byte{l.first}, nil)
	b.Orders = l.Sorted([][]byte{stop})
	s := l.Says(1, [][]byte{l.first}, [][]byte{stop})
	s.Root = l.Root(foreign)
	b.Snapshot = l.Snapshot(s)
	l.refused(l.take(b), "another site", mofn.ErrOrder, mofn.ErrSnapshot)
	l.standsAt(1, 1)
}

// TestAttackRoleConfusion: each key speaks in its one role.
func TestAttackRoleConfusion(t *testing.T) {
	l := newLab(t, func(o *mofn.Trust) {
		w := sitetest.New(t)
		k := w.Enrol("log-1")[0]
		o.Logs = []mofn.LogKey{{Origin: "sluice/low/bastion-1", ID: k.ID, Suite: k.Suite, Public: k.Public}}
	})
	chain := [][]byte{l.first}
	good := l.Says(1, chain, nil)
	payload := l.Payload(l.Snapshot(good))
	for _, key := range []string{"log-1", "alice", "packer", "mallory"} {
		for _, role := range []string{mofn.RoleHeartbeat, "log", "security", mofn.RoleRoot, mofn.RolePacker} {
			b := &bulletin.Bulletin{Snapshot: l.DSSE(mofn.SnapshotPayloadType, payload, role, key), Trust: chain}
			l.refused(l.take(b), "no heartbeat key", mofn.ErrSnapshot)
		}
	}
	for _, role := range []string{"log", "security", mofn.RoleRoot, mofn.RolePacker} {
		l.refused(l.take(&bulletin.Bulletin{Snapshot: l.DSSE(mofn.SnapshotPayloadType, payload, role, "heartbeat-1"), Trust: chain}), "", mofn.ErrSnapshot)
	}
	for _, key := range []string{"heartbeat-1", "log-1", "packer"} {
		order := l.OrderAs(l.first, key, "alice", "security", nil)
		if o, _, err := l.site.AddOrder(order); o.ID != "" || err != nil || l.stopped() {
			t.Errorf("an order by %s: %q %v", key, o.ID, err)
		}
		if _, err := l.site.AddTrust(l.Next(l.first, nil, key), l.now); !errors.Is(err, site.ErrChain) {
			t.Errorf("a trust object by %s: %v", key, err)
		}
		if _, err := l.site.AddTrust(l.Next(l.first, nil, "alice", key), l.now); !errors.Is(err, site.ErrChain) {
			t.Errorf("a trust object by alice and %s: %v", key, err)
		}
	}
	if l.site.Numbers() != (site.Numbers{Trust: 1}) {
		t.Errorf("%+v", l.site.Numbers())
	}
}

// TestAttackFork: two trust objects of one version are an alarm, when the quorum signed both; and a snapshot that names another one.
func TestAttackFork(t *testing.T) {
	l := newLab(t, nil)
	two, other := l.Next(l.first, nil), l.Next(l.first, created("2026-05-01T00:00:00Z"))
	l.fine(l.Bulletin(1, [][]byte{l.first, two}, nil))
	got := l.take(l.Bulletin(2, [][]byte{l.first, other}, [][]byte{l.Order(l.first, "alice", nil)}))
	l.refused(got, "two trust objects have one version", site.ErrFork, site.ErrFork)
	if len(got.Orders) != 1 || l.site.Numbers().Counter != 1 {
		t.Errorf("the stop beside it: %d; counter %d", len(got.Orders), l.site.Numbers().Counter)
	}
	got = l.take(l.Bulletin(3, [][]byte{l.first, l.Next(l.first, created("2026-05-01T00:00:00Z"), "alice")}, nil))
	if len(got.Problems) == 0 || errors.Is(got.Problems[0], site.ErrFork) || !errors.Is(got.Problems[0], site.ErrChain) {
		t.Errorf("one that the quorum did not sign: %v", got.Problems)
	}
}

// TestC8RemovedKey (tuf-conformance #405): what is cached is judged by who may speak now. A snapshot whose key left with a rotation
// names nothing any more, in this process or after a restart.
func TestC8RemovedKey(t *testing.T) {
	for _, restart := range []bool{false, true} {
		l := newLab(t, nil)
		two := l.Next(l.first, func(o *mofn.Trust) { o.Heartbeats = l.Enrol("heartbeat-2") })
		l.fine(l.Bulletin(1, [][]byte{l.first, two}, nil))
		l.later(4 * day)
		if l.site.Snapshot() == nil {
			t.Fatal("the old key counts until version 2 takes effect")
		}
		_, err := l.site.Tick(l.now)
		must(t, err)
		if restart {
			l.reopen()
		}
		if l.site.Snapshot() != nil {
			t.Errorf("restart %t: the snapshot of a key that left still names what is current", restart)
		}
		l.refused(l.take(l.Bulletin(2, [][]byte{l.first, two}, nil)), "no heartbeat key", mofn.ErrSnapshot)
		chain := [][]byte{l.first, two}
		l.fine(&bulletin.Bulletin{Snapshot: l.Snapshot(l.Says(1, chain, nil), "heartbeat-2"), Trust: chain})
	}
}

// TestCVE2025_2888 (C2, tough): a snapshot that was refused leaves no trace: the next good one is not older than it.
func TestCVE2025_2888(t *testing.T) {
	l := newLab(t, nil)
	chain := [][]byte{l.first}
	l.fine(l.Bulletin(1, chain, nil))
	far := l.Says(1000, chain, nil)
	for name, b := range map[string]*bulletin.Bulletin{
		"by nobody":        {Snapshot: l.Snapshot(far, "mallory"), Trust: chain},
		"of another chain": {Snapshot: l.Snapshot(l.Says(1000, [][]byte{l.first, l.Next(l.first, nil)}, nil)), Trust: chain},
		"without an order": {Snapshot: l.Snapshot(l.Says(1000, chain, [][]byte{l.Order(l.first, "alice", nil)})), Trust: chain},
	} {
		if got := l.take(b); got.Snapshot != nil || len(got.Problems) != 1 {
			t.Errorf("%s: %+v", name, got)
		}
		l.reopen()
		if s := l.site.Snapshot(); s == nil || s.Counter != 1 || l.site.Numbers().Counter != 1 {
			t.Errorf("%s: the refused one was kept", name)
		}
	}
	l.fine(l.Bulletin(2, chain, nil))
}

// TestCVE2025_2885 (C1, tough): no version is skipped, by a bulletin neither.
func TestCVE2025_2885(t *testing.T) {
	l := newLab(t, nil)
	two := l.Next(l.first, nil)
	skipping := l.Next(l.first, func(o *mofn.Trust) { o.Version = 3 })
	for name, chain := range map[string][][]byte{
		"version 3 of version 2, without it":     {l.first, l.Next(two, nil)},
		"version 3 that names version 1 as prev": {l.first, skipping},
	} {
		got := l.take(&bulletin.Bulletin{Snapshot: l.Snapshot(l.Says(1, [][]byte{l.first}, nil)), Trust: chain})
		if len(got.Trust) != 0 || len(got.Problems) == 0 || !errors.Is(got.Problems[0], site.ErrGap) {
			t.Errorf("%s: %+v", name, got)
		}
		l.reopen()
		l.standsAt(1, 1)
	}
	l.add(two)
	if _, err := l.site.AddTrust(skipping, l.now); !errors.Is(err, site.ErrChain) {
		t.Errorf("with version 2 here: %v", err)
	}
	l.standsAt(1, 2)
}

// TestReplayAcrossRestart: nothing of what came before counts as new after a restart.
func TestReplayAcrossRestart(t *testing.T) {
	l := newLab(t, nil)
	b := l.Bulletin(5, [][]byte{l.first, l.Next(l.first, nil)}, [][]byte{l.Order(l.first, "alice", sitetest.Stop(mofn.KindStream, "a"))})
	l.fine(b)
	before := l.site.Numbers()
	l.reopen()
	got := l.take(b)
	l.refused(got, "", site.ErrReplay)
	if len(got.Trust)+len(got.Orders)+len(got.Effect)+got.Strange > 0 || l.site.Numbers() != before {
		t.Errorf("%+v", got)
	}
}
