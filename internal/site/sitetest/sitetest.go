// SPDX-License-Identifier: Apache-2.0

// Package sitetest makes what internal/site judges: a chain of trust objects, orders of officers, snapshots and bulletins, signed
// with keys that follow from their names, so that vectors can be made again.
//
//	New ──► World ── First, Next ──► trust objects ─┐
//	          │ ──── Order ────────► orders ────────┼─► Bulletin
//	          └ ──── Snapshot ─────► a snapshot ────┘
//
// alice (two keys: alice, alice2), bob and carol are of security: two of them are the root and the resume quorum, each of them stops.
// dave and erin are of quality, frank is of audit, gina is of no group; mallory's key is nobody's. heartbeat-1 signs snapshots.
package sitetest

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/bulletin"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// Policy is that of the first trust object; @name stands for the key id of name.
const Policy = `officer alice key @alice key @alice2
officer bob   key @bob
officer carol key @carol
officer dave  key @dave
officer erin  key @erin
officer frank key @frank
officer gina  key @gina
group security 2 alice bob carol
group quality  any dave erin
group release  all security quality
group audit    1 frank
packer @packer
rule stream models/* quorum release
stop security resume security
`

// Start is when the first trust object was made.
func Start() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// World makes signed objects. Its methods end the test when that fails.
type World struct {
	t    testing.TB
	keys map[string]*mofn.PrivateKey
}

// New makes a world without keys: each is made when its name comes up.
func New(t testing.TB) *World { return &World{t: t, keys: map[string]*mofn.PrivateKey{}} }

func (w *World) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// Key gives the H1 key of a name.
func (w *World) Key(name string) *mofn.PrivateKey {
	w.t.Helper()
	if k := w.keys[name]; k != nil {
		return k
	}
	seed := sha512.Sum512([]byte("sluice test key " + name))
	k, err := mofn.GenerateKey(mofn.SuiteH1, bytes.NewReader(seed[:]))
	w.must(err)
	w.keys[name] = k
	return k
}

// ID is the key id of a name.
func (w *World) ID(name string) string { return w.Key(name).Public().ID().String() }

// Enrol gives keys as a trust object lists them.
func (w *World) Enrol(names ...string) (out []mofn.TrustKey) {
	for _, name := range names {
		p := w.Key(name).Public()
		out = append(out, mofn.TrustKey{ID: p.ID(), Suite: p.Suite(), Public: p.Bytes(), Comment: name})
	}
	slices.SortFunc(out, func(a, b mofn.TrustKey) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return out
}

// SetPolicy gives a trust object a policy, with the keys that it names by @name.
func (w *World) SetPolicy(o *mofn.Trust, text string) {
	var names []string
	for _, word := range strings.Fields(text) {
		if name, ok := strings.CutPrefix(word, "@"); ok {
			names = append(names, name)
		}
	}
	o.Keys = w.Enrol(names...)
	slices.SortFunc(names, func(a, b string) int { return len(b) - len(a) })
	for _, name := range names {
		text = strings.ReplaceAll(text, "@"+name, w.ID(name))
	}
	o.Policy = text
}

// Object is the first trust object. edit may be nil.
func (w *World) Object(edit func(*mofn.Trust)) *mofn.Trust {
	o := &mofn.Trust{Version: 1, Root: "security", Heartbeats: w.Enrol("heartbeat-1"), Created: envelope.FormatTime(Start())}
	w.SetPolicy(o, Policy)
	if edit != nil {
		edit(o)
	}
	return o
}

// DSSE signs a payload in a role with the keys of those names.
func (w *World) DSSE(payloadType string, payload []byte, role string, signers ...string) []byte {
	w.t.Helper()
	d := envelope.DSSE{Payload: payload, PayloadType: payloadType, Signatures: []envelope.Signature{}}
	for _, name := range signers {
		sig, err := w.Key(name).Sign(role, envelope.PAE(payloadType, payload))
		w.must(err)
		d.Signatures = append(d.Signatures, envelope.Signature{KeyID: w.ID(name), Sig: sig})
	}
	data, err := d.Marshal()
	w.must(err)
	return data
}

// Payload is what a DSSE envelope holds.
func (w *World) Payload(data []byte) []byte {
	w.t.Helper()
	d, err := envelope.ParseDSSE(data, len(data))
	w.must(err)
	return d.Payload
}

// First makes version 1.
func (w *World) First(edit func(*mofn.Trust)) (*trust.Store, []byte) {
	w.t.Helper()
	payload, err := w.Object(edit).Marshal()
	w.must(err)
	data := w.DSSE(trust.PayloadType, payload, mofn.RoleRoot)
	st, err := trust.Parse(data)
	w.must(err)
	return st, data
}

// Next makes the version after prev, the same but for edit (which may be nil), signed by the names; none is alice and bob.
func (w *World) Next(prev []byte, edit func(*mofn.Trust), signers ...string) []byte {
	w.t.Helper()
	payload := w.Payload(prev)
	o, err := mofn.ParseTrust(payload)
	w.must(err)
	fp := mofn.Fingerprint(payload)
	o.Version, o.Prev = o.Version+1, hex.EncodeToString(fp[:])
	if edit != nil {
		edit(o)
	}
	if signers == nil {
		signers = []string{"alice", "bob"}
	}
	next, err := o.Marshal()
	w.must(err)
	return w.DSSE(trust.PayloadType, next, mofn.RoleRoot, signers...)
}

// Root is the fingerprint of a first trust object.
func (w *World) Root(first []byte) string {
	fp := mofn.Fingerprint(w.Payload(first))
	return hex.EncodeToString(fp[:])
}

// Officers is who owns a key in Policy, and their group.
func Officers(key string) (officer, group string) {
	officer = strings.TrimRight(key, "0123456789")
	switch officer {
	case "dave", "erin":
		return officer, "quality"
	case "frank":
		return officer, "audit"
	}
	return officer, "security"
}

// Order makes an order signed with a key, for the officer who owns it in Policy; edit may be nil. Without an edit it stops everything.
func (w *World) Order(first []byte, key string, edit func(*mofn.Order)) []byte {
	w.t.Helper()
	who, group := Officers(key)
	return w.OrderAs(first, key, who, group, edit)
}

// OrderAs is Order for anybody.
func (w *World) OrderAs(first []byte, key, officer, group string, edit func(*mofn.Order)) []byte {
	w.t.Helper()
	o := &mofn.Order{
		Root: w.Root(first), Action: mofn.ActionStop, Kind: mofn.KindEverything, Officer: officer, Role: group,
		At: envelope.FormatTime(Start().Add(time.Hour)), Reason: "the build host was entered",
	}
	if edit != nil {
		edit(o)
	}
	payload, err := o.Marshal()
	w.must(err)
	return w.DSSE(mofn.OrderPayloadType, payload, group, key)
}

// Stop edits an order into a stop.
func Stop(kind, target string) func(*mofn.Order) {
	return func(o *mofn.Order) { o.Action, o.Kind, o.Target = mofn.ActionStop, kind, target }
}

// Revoke edits an order into a revoke.
func Revoke(kind, target string) func(*mofn.Order) {
	return func(o *mofn.Order) { o.Action, o.Kind, o.Target = mofn.ActionRevoke, kind, target }
}

// Resume edits an order into a resume of orders.
func (w *World) Resume(orders ...[]byte) func(*mofn.Order) {
	return func(o *mofn.Order) {
		o.Action, o.Kind = mofn.ActionResume, ""
		for _, data := range orders {
			o.Lifts = append(o.Lifts, mofn.OrderID(w.Payload(data)))
		}
		slices.Sort(o.Lifts)
	}
}

// Snapshot signs a snapshot with a heartbeat key; none is heartbeat-1.
func (w *World) Snapshot(s *mofn.Snapshot, keys ...string) []byte {
	w.t.Helper()
	payload, err := s.Marshal()
	w.must(err)
	if keys == nil {
		keys = []string{"heartbeat-1"}
	}
	return w.DSSE(mofn.SnapshotPayloadType, payload, mofn.RoleHeartbeat, keys...)
}

// Says is the snapshot of a chain and orders, an interval of a minute, that was made counter minutes after Start.
func (w *World) Says(counter int64, chain, orders [][]byte) *mofn.Snapshot {
	w.t.Helper()
	fp := mofn.Fingerprint(w.Payload(chain[len(chain)-1]))
	s := &mofn.Snapshot{
		Site: "bastion-1", Root: w.Root(chain[0]), Counter: counter, Interval: 60, At: envelope.FormatTime(Start().Add(time.Duration(counter) * time.Minute)),
		Trust: mofn.TrustRef{Version: int64(len(chain)), Fingerprint: hex.EncodeToString(fp[:])},
	}
	for _, o := range w.Sorted(orders) {
		s.Orders = append(s.Orders, o.ID)
	}
	return s
}

// Sorted names orders and sorts them.
func (w *World) Sorted(orders [][]byte) (out []bulletin.Order) {
	w.t.Helper()
	for _, data := range orders {
		o, err := bulletin.NewOrder(data)
		w.must(err)
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b bulletin.Order) int { return strings.Compare(a.ID, b.ID) })
	return out
}

// Bulletin is what the bastion says: a chain, orders, and a snapshot of both.
func (w *World) Bulletin(counter int64, chain, orders [][]byte) *bulletin.Bulletin {
	w.t.Helper()
	return &bulletin.Bulletin{Snapshot: w.Snapshot(w.Says(counter, chain, orders)), Trust: chain, Orders: w.Sorted(orders)}
}
