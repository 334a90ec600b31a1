// SPDX-License-Identifier: Apache-2.0

package site_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sluice/internal/site"
	"sluice/internal/site/sitetest"
	"sluice/pkg/mofn"
)

func policy() string { return sitetest.Policy }

// smallest is a trust object of one officer.
func smallest(o *mofn.Trust) {
	var kept []mofn.TrustKey
	var text string
	for _, k := range o.Keys {
		switch k.Comment {
		case "alice":
			kept, text = append(kept, k), text+"officer alice key "+k.ID.String()+"\n"
		case "packer":
			kept, text = append(kept, k), text+"packer "+k.ID.String()+"\n"
		}
	}
	o.Keys, o.Policy = kept, text+"group security 1 alice\nrule stream models/* quorum security\nstop security resume security\n"
}

// next is what the bastion adds, signed by a heartbeat key.
func (l *lab) next(minutes int) site.Next {
	return site.Next{
		Site: "bastion-1", Interval: time.Minute, Now: l.now.Add(time.Duration(minutes) * time.Minute),
		Sign: func(payload []byte) ([]byte, error) {
			return l.DSSE(mofn.SnapshotPayloadType, payload, mofn.RoleHeartbeat, "heartbeat-1"), nil
		},
	}
}

// TestMake: what one side makes, the other takes, across restarts of both.
func TestMake(t *testing.T) {
	low, high := newLab(t, nil), newLab(t, nil)
	two := low.Next(low.first, nil)
	for i := range 6 {
		switch i {
		case 1:
			low.order(low.Order(low.first, "alice", sitetest.Stop(mofn.KindStream, "models/*")))
		case 2:
			low.add(two)
		case 3:
			low.reopen()
		case 4:
			high.reopen()
		case 5:
			if _, _, err := low.site.AddOrder(low.Order(low.first, "mallory", nil)); err != nil { // kept and carried
				t.Fatal(err)
			}
		}
		b, snap, err := low.site.Make(low.next(i))
		must(t, err)
		data, err := b.Bytes()
		if err != nil || snap.Counter != int64(i+1) || low.site.Snapshot().Counter != snap.Counter {
			t.Fatalf("%d bytes, counter %d, %v", len(data), snap.Counter, err)
		}
		high.fine(b)
		if diff := high.site.Numbers(); diff.Counter != int64(i+1) {
			t.Errorf("%+v", diff)
		}
	}
	if a, b := low.site.Numbers(), high.site.Numbers(); a != b || a.Orders != 1 || a.Trust != 2 || a.Generation != 1 {
		t.Errorf("%+v and %+v", a, b)
	}
	if a, b := low.site.Fresh(low.now).Words, high.site.Fresh(high.now).Words; strings.Join(a, " ") != strings.Join(b, " ") || len(a) != 6 {
		t.Errorf("%v and %v", a, b)
	}
}

// TestMakeRefuses: nothing goes out that receivers would refuse, and no counter is lost.
func TestMakeRefuses(t *testing.T) {
	l := newLab(t, nil)
	signed := errors.New("the token is locked")
	for name, spoil := range map[string]func(*site.Next){
		"no name":     func(n *site.Next) { n.Site = "" },
		"no interval": func(n *site.Next) { n.Interval = time.Millisecond },
		"a release of no stream": func(n *site.Next) {
			n.Releases = []mofn.Current{{Stream: "*", Seq: 1, Release: strings.Repeat("a", 64)}}
		},
		"nobody signs": func(n *site.Next) { n.Sign = func([]byte) ([]byte, error) { return nil, signed } },
		"noise":        func(n *site.Next) { n.Sign = func([]byte) ([]byte, error) { return []byte("x"), nil } },
		"an officer signs": func(n *site.Next) {
			n.Sign = func(p []byte) ([]byte, error) {
				return l.DSSE(mofn.SnapshotPayloadType, p, mofn.RoleHeartbeat, "alice"), nil
			}
		},
		"signed as another thing": func(n *site.Next) {
			n.Sign = func(p []byte) ([]byte, error) {
				return l.DSSE(mofn.OrderPayloadType, p, mofn.RoleHeartbeat, "heartbeat-1"), nil
			}
		},
		"no proof of the log": func(n *site.Next) { n.Log.Size = 1; n.Prove = func(int64) ([]byte, error) { return nil, signed } },
	} {
		n := l.next(0)
		spoil(&n)
		if b, snap, err := l.site.Make(n); b != nil || snap != nil || err == nil {
			t.Errorf("%s: made", name)
		}
		if got := l.site.Numbers().Counter; got != 0 || l.site.Snapshot() != nil {
			t.Errorf("%s: counter %d", name, got)
		}
	}
}

// TestProofs: a log is proven from nothing and from each size of before; one that shrank makes no bulletin.
func TestProofs(t *testing.T) {
	l := newLab(t, nil)
	var asked []int64
	make1 := func(size int64) error {
		asked = nil
		n := l.next(0)
		n.Log = mofn.LogRef{Origin: "sluice/low/bastion-1", Size: size, Root: strings.Repeat("A", 43) + "="}
		n.Prove = func(old int64) ([]byte, error) { asked = append(asked, old); return []byte("proof"), nil }
		b, _, err := l.site.Make(n)
		if err == nil {
			_, err = b.Bytes()
		}
		return err
	}
	for size := int64(1); size <= 400; size++ {
		must(t, make1(size))
		if size == 200 {
			l.reopen()
		}
	}
	if len(asked) > 64 || asked[0] != 0 || asked[len(asked)-1] != 399 || asked[len(asked)-24] != 376 {
		t.Errorf("%d proofs: %v", len(asked), asked)
	}
	if err := make1(399); !errors.Is(err, site.ErrState) || !strings.Contains(err.Error(), "400 events once") {
		t.Errorf("a log that shrank: %v", err)
	}
}
