// SPDX-License-Identifier: Apache-2.0

package site_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/site"
	"sluice/internal/trust"
	"sluice/pkg/mofn"
)

func created(at string) func(*mofn.Trust) { return func(o *mofn.Trust) { o.Created = at } }

// TestAddTrust: what is refused, why, and that it leaves nothing behind, in memory or on the disk.
func TestAddTrust(t *testing.T) {
	l := newLab(t, nil)
	two := l.Next(l.first, nil)
	three := l.Next(two, nil)
	_, foreign := l.First(created("2026-02-01T00:00:00Z"))
	for _, c := range []struct {
		name  string
		data  []byte
		want  error
		words string
	}{
		{"noise", []byte("noise"), site.ErrChain, "DSSE"},
		{"an order", l.Order(l.first, "alice", nil), site.ErrChain, ""},
		{"a trust object of another payload type", l.DSSE("application/json", l.Payload(two), mofn.RoleRoot, "alice", "bob"), site.ErrChain, "no trust object"},
		{"too few signed", l.Next(l.first, nil, "alice"), site.ErrChain, "1 of 2"},
		{"one person with two keys", l.Next(l.first, nil, "alice", "alice2"), site.ErrChain, "1 of 2"},
		{"nobody signed", l.DSSE(trust.PayloadType, l.Payload(two), mofn.RoleRoot), site.ErrChain, "quorum"},
		{"signed in another role", l.DSSE(trust.PayloadType, l.Payload(two), "security", "alice", "bob"), site.ErrChain, "signature"},
		{"signed by a heartbeat key", l.DSSE(trust.PayloadType, l.Payload(two), mofn.RoleRoot, "heartbeat-1"), site.ErrChain, "quorum"},
		{"another version 1", foreign, site.ErrChain, "version 1 here is"},
		{"version 2 of another site", l.Next(foreign, nil), site.ErrChain, "prev"},
		{"version 3 before version 2", three, site.ErrGap, "this is version 3, the newest here is 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			news, err := l.site.AddTrust(c.data, l.now)
			if news || !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%t, %v; want %v, %q", news, err, c.want, c.words)
			}
			l.standsAt(1, 1)
			l.reopen()
			l.standsAt(1, 1)
		})
	}
	if news, err := l.site.AddTrust(l.first, l.now); news || err != nil {
		t.Errorf("the first one again: %t, %v", news, err)
	}
	l.add(two)
	if news, err := l.site.AddTrust(l.DSSE(trust.PayloadType, l.Payload(two), mofn.RoleRoot, "bob", "carol"), l.now); news || err != nil {
		t.Errorf("the same object with other signatures: %t, %v", news, err)
	}
	if _, err := l.site.AddTrust(l.Next(l.first, created("2026-05-01T00:00:00Z")), l.now); !errors.Is(err, site.ErrFork) {
		t.Errorf("another version 2, signed by the quorum: %v", err)
	}
	if _, err := l.site.AddTrust(l.Next(l.first, created("2026-06-01T00:00:00Z"), "alice"), l.now); !errors.Is(err, site.ErrChain) || errors.Is(err, site.ErrFork) {
		t.Errorf("another version 2 that the quorum did not sign is no fork: %v", err)
	}
	l.standsAt(1, 2)
}

// TestGap: a version that cannot be taken is said, and no more when the chain has reached it.
func TestGap(t *testing.T) {
	l := newLab(t, nil)
	two := l.Next(l.first, nil)
	three := l.Next(two, nil)
	if _, err := l.site.AddTrust(three, l.now); !errors.Is(err, site.ErrGap) || l.site.Gap() != 3 {
		t.Fatalf("%v, gap %d", err, l.site.Gap())
	}
	l.add(two)
	if l.site.Gap() != 3 {
		t.Errorf("gap %d before 3 is here", l.site.Gap())
	}
	l.add(three)
	if l.site.Gap() != 0 {
		t.Errorf("gap %d after 3 came", l.site.Gap())
	}
}

// TestGapOfASnapshot: a bulletin whose version 2 does not verify names a version that is not here.
func TestGapOfASnapshot(t *testing.T) {
	l := newLab(t, nil)
	forged := l.Next(l.first, nil, "alice")
	got := l.take(l.Bulletin(1, [][]byte{l.first, forged}, nil))
	l.refused(got, "quorum", site.ErrChain)
	if got.Snapshot == nil || l.site.Gap() != 2 {
		t.Errorf("snapshot %v, gap %d", got.Snapshot, l.site.Gap())
	}
}

// TestQuarantine: each version takes effect when its own time is over, after the one before it, and stays.
func TestQuarantine(t *testing.T) {
	l := newLab(t, nil)
	two := l.Next(l.first, nil)
	l.add(two)
	l.later(day)
	l.add(l.Next(two, nil))
	wait := l.site.Waiting()
	if len(wait) != 2 || wait[0].Version != 2 || wait[1].Version != 3 || wait[1].Effect.Sub(wait[0].Effect) != day || wait[0].Effect.Sub(wait[0].Arrived) != 3*day {
		t.Errorf("%+v", wait)
	}
	tick := func(want ...int64) {
		t.Helper()
		taken, err := l.site.Tick(l.now)
		must(t, err)
		var got []int64
		for _, st := range taken {
			got = append(got, st.Object.Version)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%v took effect, want %v", got, want)
		}
	}
	tick()
	l.later(2*day - time.Second)
	tick()
	l.reopen()
	l.standsAt(1, 3)
	l.later(time.Second)
	tick(2)
	l.standsAt(2, 3)
	tick()
	l.reopen()
	l.standsAt(2, 3)
	l.later(30 * day)
	l.reopen()
	l.standsAt(2, 3) // who opens it has heard nothing yet: a stop may be on its way
	tick(3)
	if len(l.site.Waiting()) != 0 || len(l.site.Been()) != 3 || l.site.Been()[0].Object.Version != 3 {
		t.Errorf("waiting %v, been %d", l.site.Waiting(), len(l.site.Been()))
	}
}

// TestClockSetBack: a version that is in effect stays so, and orders that were accepted under it count, whatever the clock says.
func TestClockSetBack(t *testing.T) {
	l := newLab(t, nil)
	l.add(l.Next(l.first, nil))
	l.later(4 * day)
	_, err := l.site.Tick(l.now)
	must(t, err)
	l.standsAt(2, 2)
	l.order(l.Order(l.first, "alice", nil))
	l.now = wall(l.now, l.now.AddDate(-1, 0, 0))
	l.reopen()
	l.standsAt(2, 2)
	if !l.stopped() {
		t.Error("the stop was forgotten")
	}
	got, err := site.Effective(l.options())
	if err != nil || len(got) != 2 {
		t.Errorf("Effective: %d, %v", len(got), err)
	}
}

// TestStopOvertakes: nothing takes effect while everything is stopped, neither by time, nor by hand, nor by a restart.
func TestStopOvertakes(t *testing.T) {
	l := newLab(t, nil)
	two := l.Next(l.first, nil)
	l.add(two)
	l.later(3*day - time.Second)
	stop := l.Order(l.first, "carol", nil)
	l.order(stop)
	l.later(time.Hour)
	for range 2 {
		if taken, err := l.site.Tick(l.now); err != nil || len(taken) > 0 {
			t.Errorf("%d took effect, %v", len(taken), err)
		}
		if st, err := l.site.Confirm(l.site.Waiting()[0].Fingerprint, l.now); st != nil || !errors.Is(err, site.ErrChain) || !strings.Contains(err.Error(), "stop of everything") {
			t.Errorf("Confirm: %v", err)
		}
		l.standsAt(1, 2)
		l.reopen()
		l.standsAt(1, 2)
	}
	for _, who := range []string{"alice", "bob"} {
		l.order(l.Order(l.first, who, l.Resume(stop)))
	}
	if _, err := l.site.Tick(l.now); err != nil {
		t.Error(err)
	}
	l.standsAt(2, 2)
}

// TestConfirmUnderAStop leaves the quarantine as it was.
func TestConfirmUnderAStop(t *testing.T) {
	l := newLab(t, nil)
	l.add(l.Next(l.first, nil))
	stop := l.Order(l.first, "carol", nil)
	l.order(stop)
	before := l.site.Waiting()[0]
	if _, err := l.site.Confirm(before.Fingerprint, l.now.Add(time.Hour)); !errors.Is(err, site.ErrChain) {
		t.Fatal(err)
	}
	l.order(l.Order(l.first, "alice", l.Resume(stop)))
	l.order(l.Order(l.first, "bob", l.Resume(stop)))
	if taken, err := l.site.Tick(l.now.Add(2 * time.Hour)); err != nil || len(taken) > 0 || l.site.Waiting()[0] != before {
		t.Errorf("the refused confirmation ended the quarantine: %d, %v", len(taken), err)
	}
}

// TestStopInTheSameBulletin: the stop counts first, although the quarantine is over, or there is none.
func TestStopInTheSameBulletin(t *testing.T) {
	for _, quarantine := range []time.Duration{0, 3 * day} {
		l := newLab(t, nil)
		l.quarantine = quarantine
		l.reopen()
		two := l.Next(l.first, nil)
		l.add(two)
		l.later(quarantine)
		three := l.Next(two, nil)
		got := l.fine(l.Bulletin(1, [][]byte{l.first, two, three}, [][]byte{l.Order(l.first, "carol", nil)}))
		if len(got.Effect) > 0 || len(got.Trust) != 1 || len(got.Orders) != 1 {
			t.Errorf("quarantine %v: %d versions took effect", quarantine, len(got.Effect))
		}
		l.standsAt(1, 3)
	}
}

// TestStopOfALaterKey: a stop by a key of version 2 keeps version 3 out, which was due with it.
func TestStopOfALaterKey(t *testing.T) {
	l := newLab(t, nil)
	two := l.Next(l.first, func(o *mofn.Trust) {
		l.SetPolicy(o, strings.Replace(policy(), "officer carol key @carol", "officer carol key @carol9", 1))
	})
	stop := l.OrderAs(l.first, "carol9", "carol", "security", nil)
	got := l.fine(l.Bulletin(1, [][]byte{l.first, two, l.Next(two, nil)}, [][]byte{stop}))
	if got.Strange != 1 || len(got.Orders) != 0 || l.stopped() {
		t.Fatalf("%+v", got)
	}
	l.later(4 * day)
	taken, err := l.site.Tick(l.now)
	if err != nil || len(taken) != 1 || !l.stopped() {
		t.Errorf("%d took effect, stopped %t, %v", len(taken), l.stopped(), err)
	}
	l.standsAt(2, 3)
}

func TestConfirm(t *testing.T) {
	l := newLab(t, nil)
	if _, err := l.site.Confirm(strings.Repeat("a", 64), l.now); !errors.Is(err, site.ErrChain) || !strings.Contains(err.Error(), "no version waits") {
		t.Errorf("nothing waits: %v", err)
	}
	two := l.Next(l.first, nil)
	l.add(two)
	l.add(l.Next(two, nil))
	if _, err := l.site.Confirm(l.site.Waiting()[1].Fingerprint, l.now); !errors.Is(err, site.ErrChain) || !strings.Contains(err.Error(), "the next version is 2") {
		t.Errorf("the one after the next: %v", err)
	}
	l.standsAt(1, 3)
	st, err := l.site.Confirm(l.site.Waiting()[0].Fingerprint, l.now)
	if err != nil || st.Object.Version != 2 {
		t.Fatalf("%v", err)
	}
	l.standsAt(2, 3)
	l.reopen()
	l.standsAt(2, 3)
}

// TestChainFull: a chain ends at what a bulletin takes.
func TestChainFull(t *testing.T) {
	slow(t)
	l := newLab(t, smallest)
	l.quick()
	last := l.first
	for range 255 {
		last = l.Next(last, nil, "alice")
		l.add(last)
	}
	if _, err := l.site.AddTrust(l.Next(last, nil, "alice"), l.now); !errors.Is(err, site.ErrFull) || !strings.Contains(err.Error(), "at most 256 versions") {
		t.Errorf("version 257: %v", err)
	}
	b, _, err := l.site.Make(l.next(1))
	must(t, err)
	data, err := b.Bytes()
	must(t, err)
	t.Logf("a bulletin of 256 versions has %d bytes", len(data))
	other := newLab(t, smallest)
	other.quick()
	if got := other.fine(b); len(got.Trust) != 255 {
		t.Errorf("%d versions were new", len(got.Trust))
	}
	l.reopen()
	l.standsAt(1, 256)
}

// TestChainTooLarge: versions that no bulletin could carry together.
func TestChainTooLarge(t *testing.T) {
	slow(t)
	l := newLab(t, smallest)
	l.quick()
	fat := func(o *mofn.Trust) {
		o.Epochs = nil
		for i := range 4096 {
			o.Epochs = append(o.Epochs, mofn.Epoch{Stream: fmt.Sprintf("s%04d-%s", i, strings.Repeat("x", 120)), MinSeq: 1})
		}
		o.Receivers = nil
	}
	last, n := l.Next(l.first, fat, "alice"), 0
	for ; n < 100; n++ {
		news, err := l.site.AddTrust(last, l.now)
		if errors.Is(err, site.ErrFull) && strings.Contains(err.Error(), "bytes") {
			break
		}
		if !news || err != nil {
			t.Fatal(err)
		}
		last = l.Next(last, func(o *mofn.Trust) { o.Epochs[0].MinSeq++ }, "alice")
	}
	if n*len(last) > site.MaxChain || n < 10 {
		t.Fatalf("%d versions of %d bytes", n, len(last))
	}
	b, _, err := l.site.Make(l.next(1))
	must(t, err)
	if _, err := b.Bytes(); err != nil {
		t.Error(err)
	}
}

// TestFirstIsVersionOne: a site begins at the beginning.
func TestFirstIsVersionOne(t *testing.T) {
	l := newLab(t, nil)
	two := l.Next(l.first, nil)
	st, err := trust.Parse(two)
	must(t, err)
	opt := l.options()
	opt.First, opt.FirstData = st, two
	if _, err := site.Open(opt); !errors.Is(err, site.ErrChain) || !strings.Contains(err.Error(), "version 2 as the first") {
		t.Error(err)
	}
}

// TestTakeActivates: a version whose quarantine is over takes effect with the next bulletin, and Taken says so, once.
func TestTakeActivates(t *testing.T) {
	l := newLab(t, nil)
	chain := [][]byte{l.first, l.Next(l.first, nil)}
	if got := l.fine(l.Bulletin(1, chain, nil)); len(got.Trust) != 1 || len(got.Effect) != 0 {
		t.Errorf("%d new, %d in effect", len(got.Trust), len(got.Effect))
	}
	l.later(3 * day)
	for i, want := range []int{1, 0} {
		if got := l.fine(l.Bulletin(int64(i+2), chain, nil)); len(got.Trust) != 0 || len(got.Effect) != want {
			t.Errorf("%d new, %d in effect, want %d", len(got.Trust), len(got.Effect), want)
		}
	}
	l.standsAt(2, 2)
}
