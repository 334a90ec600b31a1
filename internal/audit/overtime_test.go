// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/internal/audit"
	"sluice/internal/journal"
	"sluice/internal/site/sitetest"
	"sluice/internal/trust"
	"sluice/pkg/mofn"
)

// tale is a log of the high side with all that there is of trust over time: alice's first key is replaced by version 2, a release is published,
// stopped, and given back by the quorum, carol alone revokes another, and version 3 waits in quarantine.
type tale struct {
	testing.TB
	*sitetest.World

	key    *audit.LogKey
	chain  [][]byte
	orders map[string][]byte // by a name of this test
	events []journal.Event
}

// newTale makes the tale. The log is bound by every version.
func newTale(tb testing.TB) *tale {
	tb.Helper()
	w := &tale{TB: tb, World: sitetest.New(tb), key: logKey(tb, audit.High), orders: map[string][]byte{}}
	_, first := w.First(func(o *mofn.Trust) {
		k := w.key.Public
		_, _, public, _, err := mofn.ParsePublicFile(k.File)
		must(tb, err)
		o.Logs = []mofn.LogKey{{Origin: audit.Origin(audit.High, "site-a"), ID: k.ID, Suite: k.Suite, Public: public}}
	})
	w.chain = [][]byte{first}
	w.chain = append(w.chain, w.Next(first, func(o *mofn.Trust) {
		w.SetPolicy(o, strings.Replace(sitetest.Policy, "key @alice key @alice2", "key @alice2", 1))
	}, "bob", "carol"))
	w.chain = append(w.chain, w.Next(w.chain[1], nil, "alice2", "bob"))
	w.order("stop", "bob", sitetest.Stop(mofn.KindRelease, release(1)))
	w.order("resume1", "alice2", w.Resume(w.orders["stop"]))
	w.order("resume2", "carol", w.Resume(w.orders["stop"]))
	w.order("revoke", "carol", sitetest.Revoke(mofn.KindRelease, release(9)))

	w.add(w.start(1), w.version(audit.ActionTrustArrived, 2), w.version(audit.ActionTrustEffect, 2))
	w.publish(1, "alice2", "bob", "dave")
	w.add(w.ordered("stop"))
	w.add(w.move(1, "PUBLISHED", "WITHDRAWN", "withdrawn"))
	w.add(w.ordered("resume1"), w.ordered("resume2"), w.about(1, audit.ActionPublishing), w.move(1, "WITHDRAWN", "PUBLISHED", "given back"))
	w.add(w.ordered("revoke"), w.version(audit.ActionTrustArrived, 3), journal.Event{Actor: "test", Action: audit.ActionStop}, w.start(2))
	return w
}

func (w *tale) add(events ...journal.Event) { w.events = append(w.events, events...) }

func (w *tale) order(name, key string, edit func(*mofn.Order)) {
	w.orders[name] = w.Order(w.chain[0], key, edit)
}

func (w *tale) id(name string) string { return mofn.OrderID(w.Payload(w.orders[name])) }

// ordered is the event of an order.
func (w *tale) ordered(name string) journal.Event {
	w.Helper()
	o, err := mofn.ParseOrder(w.Payload(w.orders[name]))
	must(w, err)
	var d struct {
		Signatures []struct{ KeyID string }
	}
	must(w, json.Unmarshal(w.orders[name], &d))
	e := journal.Event{Actor: "test", Action: audit.ActionOrder + " " + o.Action, Officer: o.Officer, Key: d.Signatures[0].KeyID, Digest: w.id(name)}
	if o.Kind == mofn.KindRelease {
		e.Release = o.Target
	}
	return e
}

func (w *tale) start(v int) journal.Event { return w.version(audit.ActionStart, v) }

func (w *tale) version(action string, v int) journal.Event {
	return journal.Event{Actor: "test", Action: action, Digest: w.Root(w.chain[v-1])} // the fingerprint of any
}

func (w *tale) about(n int, action string) journal.Event {
	return journal.Event{Actor: "test", Action: action, Job: release(n), Release: release(n)}
}

func (w *tale) approve(n int, key string) journal.Event {
	e := w.about(n, audit.ActionApprove)
	e.Officer, _ = sitetest.Officers(key)
	e.Key, e.Digest = w.ID(key), release(201)
	return e
}

func (w *tale) move(n int, from, to, action string) journal.Event {
	e := w.about(n, action)
	e.From, e.To = from, to
	return e
}

func (w *tale) publish(n int, keys ...string) {
	w.add(w.move(n, "", "RECEIVING", "accepted"))
	for _, key := range keys {
		w.add(w.approve(n, key))
	}
	states := []string{"RECEIVING", "RECEIVED", "VERIFIED", "INSPECTED", "HELD"}
	for i := range states[1:] {
		w.add(w.move(n, states[i], states[i+1], "moved"))
	}
	w.add(w.about(n, audit.ActionPublishing), w.published(n))
}

func (w *tale) published(n int) journal.Event {
	e := w.move(n, "HELD", "PUBLISHED", "published")
	e.Stream, e.Epoch, e.Number, e.Digest = "models/llm", 1, int64(n), release(202)
	return e
}

// at finds the nth event that an action names, from 0.
func (w *tale) at(action string, nth int) int {
	w.Helper()
	for i, e := range w.events {
		if e.Action == action {
			if nth--; nth < 0 {
				return i
			}
		}
	}
	w.Fatalf("no event %q", action)
	return 0
}

// insert puts events before one, and gives the number of the first.
func (w *tale) insert(i int, events ...journal.Event) int {
	w.events = slices.Insert(w.events, i, events...)
	return i + 1
}

// state writes the files of internal/site.
func (w *tale) state() audit.Files {
	w.Helper()
	dir := w.TempDir()
	for _, sub := range []string{"trust/chain", "trust/orders"} {
		must(w, os.MkdirAll(filepath.Join(dir, sub), 0o700))
	}
	for i, data := range w.chain[1:] {
		must(w, os.WriteFile(filepath.Join(dir, "trust/chain", fmt.Sprintf("%06d.json", i+2)), data, 0o600))
	}
	for name := range w.orders {
		must(w, os.WriteFile(filepath.Join(dir, "trust/orders", w.id(name)+".json"), w.orders[name], 0o600))
	}
	must(w, os.WriteFile(filepath.Join(dir, "first.json"), w.chain[0], 0o600))
	return audit.Files{First: filepath.Join(dir, "first.json"), State: filepath.Join(dir, "trust")}
}

func (w *tale) log() *memory {
	w.Helper()
	m := &memory{key: w.key}
	for _, e := range w.events {
		m.add(w, e)
	}
	return m
}

func (w *tale) export() string {
	w.Helper()
	dir := filepath.Join(w.TempDir(), "export")
	_, err := audit.Export(context.Background(), w.log(), w.state(), dir)
	must(w, err)
	return dir
}

func TestOverTime(t *testing.T) {
	w := newTale(t)
	w.order("stranger", "mallory", nil) // by nobody's key: kept, and counts nothing
	r, err := audit.Verify(w.export(), audit.VerifyOptions{Root: w.Root(w.chain[0])})
	must(t, err)
	o := r.OverTime
	if o == nil || !o.LogBound || len(o.Versions) != 3 || o.Versions[1].Effect.IsZero() || o.Versions[2].Arrived.IsZero() || !o.Versions[2].Effect.IsZero() {
		t.Fatalf("%+v", o)
	}
	if o.Withdrawn != 1 || o.GivenBack != 1 || o.Orders[mofn.ActionResume] != 2 || o.Officers["carol"] != 2 || o.Strangers != 1 || len(o.Standing) != 1 || len(o.Pending) != 1 {
		t.Errorf("%+v", o)
	}
	page := r.Page()
	for _, want := range []string{
		"bound by the trust object in effect, whose chain begins with the fingerprint that you brought", "3 versions of the trust object",
		"in quarantine", "in effect since 2026-03-04T05:00:02Z", "1 stop, 2 resumes, 1 revocation; by alice 1, bob 1, carol 2", "1 withdrawal, 1 given back",
		"STANDS     1 at the end:", "stop of release " + release(9) + " by carol",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if len(r.Odd) != 1 || !strings.Contains(r.Odd[0], "not read back") {
		t.Errorf("odd: %v", r.Odd)
	}
}

// TestOverTimePage: however much there is, a page has 40 lines.
func TestOverTimePage(t *testing.T) {
	w := newTale(t)
	for i := range 20 {
		name := fmt.Sprint(i)
		w.order(name, "bob", sitetest.Stop(mofn.KindRelease, release(30+i)))
		w.add(w.ordered(name))
	}
	for range 6 {
		w.chain = append(w.chain, w.Next(w.chain[len(w.chain)-1], nil, "alice2", "bob"))
		w.add(w.version(audit.ActionTrustArrived, len(w.chain)))
	}
	for range 20 {
		w.add(w.about(1, "published again"))
	}
	r, err := audit.Verify(w.export(), audit.VerifyOptions{})
	must(t, err)
	r.Fail(errors.New("a problem"))
	if n := strings.Count(r.Page(), "\n"); n > 40 || n < 30 {
		t.Errorf("%d lines:\n%s", n, r.Page())
	}
}

// TestOverTimeOld: an export of before says that nobody looked; one whose trust/ was taken out says so too.
func TestOverTimeOld(t *testing.T) {
	dir := newTale(t).export()
	must(t, os.RemoveAll(filepath.Join(dir, "trust")))
	r, err := audit.Verify(dir, audit.VerifyOptions{})
	must(t, err)
	if !strings.Contains(r.Page(), "trust over time was not looked at") || !slices.ContainsFunc(r.Odd, func(s string) bool { return strings.Contains(s, "6 events of trust objects and orders") }) {
		t.Errorf("%s", r.Page())
	}
}

// forgery changes the events of a tale, and gives the number of the first that is wrong then.
type forgery struct {
	forge func(*tale) int
	want  string
}

// forgedTrust are forgeries of what was known: versions and orders.
func forgedTrust() map[string]forgery {
	return map[string]forgery{
		"order by another officer": {func(w *tale) int {
			i := w.at("order stop", 0)
			w.events[i].Officer = "carol"
			return i + 1
		}, `the officer "carol", and that is "bob"`},
		"order by another key": {func(w *tale) int {
			i := w.at("order stop", 0)
			w.events[i].Key = w.ID("carol")
			return i + 1
		}, "the key"},
		"another action": {func(w *tale) int {
			i := w.at("order stop", 0)
			w.events[i].Action = "order revoke"
			return i + 1
		}, `the action "revoke", and that is "stop"`},
		"order of another release": {func(w *tale) int {
			i := w.at("order stop", 0)
			w.events[i].Release = release(2)
			return i + 1
		}, "the release"},
		"an order that nobody gave": {func(w *tale) int {
			e := w.ordered("stop")
			e.Digest = release(77)
			return w.insert(w.at("order stop", 0), e)
		}, "trust/orders does not have it"},
		"an order twice": {func(w *tale) int { return w.insert(w.at(audit.ActionStop, 0), w.ordered("stop")) }, "for the second time"},
		"an order by a retired key": {func(w *tale) int {
			w.order("late", "alice", nil)
			return w.insert(w.at("order stop", 0), w.ordered("late"))
		}, "no enrolled officer's key"},
		"an order before its key was enrolled": {func(w *tale) int {
			w.chain[1] = w.Next(w.chain[0], func(o *mofn.Trust) {
				w.SetPolicy(o, strings.Replace(sitetest.Policy, "key @carol", "key @carol key @carol2", 1))
			})
			w.events = w.events[:1]
			w.chain = w.chain[:2]
			w.orders = map[string][]byte{}
			w.order("early", "carol2", nil)
			w.add(w.version(audit.ActionTrustArrived, 2), w.ordered("early"), w.version(audit.ActionTrustEffect, 2))
			return 3
		}, "no enrolled officer's key"},
		"in effect before its arrival": {func(w *tale) int {
			w.events[1], w.events[2] = w.events[2], w.events[1]
			return 2
		}, "version 2 of the trust object takes effect, and has not arrived"},
		"in effect without the one before": {func(w *tale) int {
			w.events[2] = w.version(audit.ActionTrustEffect, 3)
			return 3
		}, "version 3 of the trust object takes effect, and version 1 is in effect"},
		"in effect under a stop of everything": {func(w *tale) int {
			w.order("halt", "bob", nil)
			return w.insert(2, w.ordered("halt")) + 1
		}, "and bob has stopped everything"},
		"an arrival twice": {func(w *tale) int { return w.insert(3, w.version(audit.ActionTrustArrived, 2)) }, "version 2 of the trust object arrives, and version 2 was the last before it"},
		"a version that is none": {func(w *tale) int {
			i := w.at(audit.ActionTrustArrived, 1)
			w.events[i].Digest = release(3)
			return i + 1
		}, "which is no version of the chain"},
		"a start under another version": {func(w *tale) int {
			i := w.at(audit.ActionStart, 1)
			w.events[i] = w.start(1)
			return i + 1
		}, "it starts under version 1 of the trust object, and version 2 is in effect"},
		"a start under another chain": {func(w *tale) int {
			i := w.at(audit.ActionStart, 1)
			w.events[i].Digest = release(5)
			return i + 1
		}, "which is no version of the chain"},
	}
}

// forgedReleases are forgeries of what was decided by it.
func forgedReleases() map[string]forgery {
	return map[string]forgery{
		"approval by a retired key": {func(w *tale) int {
			i := w.at(audit.ActionApprove, 0)
			w.events[i].Key = w.ID("alice")
			return i + 1
		}, "not theirs in version 2"},
		"approval by another's key": {func(w *tale) int {
			i := w.at(audit.ActionApprove, 0)
			w.events[i].Key = w.ID("bob")
			return i + 1
		}, "not theirs in version 2"},
		"rejection by nobody": {func(w *tale) int {
			e := w.approve(1, "mallory")
			e.Action = audit.ActionReject
			return w.insert(w.at(audit.ActionApprove, 0), e)
		}, "not theirs in version 2"},
		"approval by an officer without a role": {func(w *tale) int {
			return w.insert(w.at(audit.ActionApprove, 0), w.approve(1, "gina"))
		}, "not theirs in version 2"},
		"a publication without the quorum": {func(w *tale) int {
			i := w.at(audit.ActionApprove, 2)
			w.events = slices.Delete(w.events, i, i+1)
			return w.at("published", 0) + 1
		}, "without the quorum of version 2"},
		"a publication by a key that was retired meanwhile": {func(w *tale) int {
			i := w.at(audit.ActionTrustEffect, 0)
			in := w.events[i]
			w.events = slices.Delete(w.events, i, i+1)
			w.events[w.at(audit.ActionApprove, 0)] = w.approve(1, "alice")
			w.insert(w.at(audit.ActionPublishing, 0), in)
			return w.at("published", 0) + 1
		}, "without the quorum of version 2"},
		"a publication with an officer who is stopped": {func(w *tale) int {
			w.order("out", "carol", sitetest.Stop(mofn.KindOfficer, "bob"))
			w.insert(w.at(audit.ActionPublishing, 0), w.ordered("out"))
			return w.at("published", 0) + 1
		}, "without the quorum of version 2"},
		"a publication that a late approval would have made": {func(w *tale) int {
			i := w.at(audit.ActionApprove, 2)
			e := w.events[i]
			w.events = slices.Delete(w.events, i, i+1)
			w.insert(w.at("published", 0), e)
			return w.at("published", 0) + 1
		}, "without the quorum of version 2"},
		"a publication under a stop": {func(w *tale) int {
			i := w.at("order stop", 0)
			e := w.events[i]
			w.events = slices.Delete(w.events, i, i+1)
			w.insert(w.at(audit.ActionPublishing, 0), e)
			return w.at("published", 0) + 1
		}, "stopped by bob"},
		"a publication under a stop that did not say when it began": {func(w *tale) int {
			i := w.at("order stop", 0)
			e := w.events[i]
			w.events = slices.Delete(w.events, i, i+1)
			w.events[w.at(audit.ActionPublishing, 0)] = e
			return w.at("published", 0) + 1
		}, "stopped by bob"},
		"a publication under a stop of its stream": {func(w *tale) int {
			w.order("halt", "bob", sitetest.Stop(mofn.KindStream, "models/*"))
			w.insert(w.at(audit.ActionPublishing, 0), w.ordered("halt"))
			return w.at("published", 0) + 1
		}, "stopped by bob"},
		"a withdrawal without an order": {func(w *tale) int {
			i := w.at("order stop", 0)
			w.events = slices.Delete(w.events, i, i+1)
			return i + 1
		}, "is withdrawn, and no stop or revocation of it stands"},
		"a withdrawal for the order of before": {func(w *tale) int {
			return w.insert(w.at("given back", 0)+1, w.move(1, "PUBLISHED", "WITHDRAWN", "withdrawn"))
		}, "is withdrawn, and no stop or revocation of it stands"},
		"given back by one": {func(w *tale) int {
			i := w.at("order resume", 1)
			w.events = slices.Delete(w.events, i, i+1)
			return w.at("given back", 0) + 1
		}, "the stop of it by bob stands"},
		"given back under a revocation": {func(w *tale) int {
			w.order("never1", "bob", sitetest.Revoke(mofn.KindRelease, release(1)))
			w.order("never2", "carol", sitetest.Revoke(mofn.KindRelease, release(1)))
			w.insert(w.at("order resume", 0), w.ordered("never1"), w.ordered("never2"))
			return w.at("given back", 0) + 1
		}, "its revocation by bob, carol stands"},
	}
}

// TestOverTimeForged: whoever has the log key can write any events; those that people did not sign are found, the first of them first.
func TestOverTimeForged(t *testing.T) {
	all := forgedTrust()
	maps.Copy(all, forgedReleases())
	for name, c := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTale(t)
			n := c.forge(w)
			dir := w.export()
			r, err := audit.Verify(dir, audit.VerifyOptions{})
			if !errors.Is(err, audit.ErrTampered) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), fmt.Sprintf("event %d: ", n)) {
				t.Errorf("%v, want event %d: %s", err, n, c.want)
			}
			if r == nil || !audit.Verdict(err) {
				t.Error("it is no verdict")
			}
		})
	}
}

// TestOverTimeFiles: every change of the files beside the log is found.
func TestOverTimeFiles(t *testing.T) {
	const second, third = "trust/chain/000002.json", "trust/chain/000003.json"
	for name, c := range map[string]struct {
		change func(*tale, string)
		err    error
		want   string
	}{
		"order dropped": {func(w *tale, dir string) { w.remove(dir, w.file("stop")) }, audit.ErrTampered, "does not have it"},
		"order altered": {func(w *tale, dir string) {
			data := w.Order(w.chain[0], "carol", sitetest.Stop(mofn.KindRelease, release(1)))
			w.put(dir, w.file("stop"), data)
		}, audit.ErrTampered, "holds the order"},
		"order signed by another": {func(w *tale, dir string) {
			w.put(dir, w.file("stop"), w.OrderAs(w.chain[0], "carol", "bob", "security", sitetest.Stop(mofn.KindRelease, release(1))))
		}, audit.ErrTampered, "under version 2 of the trust object"},
		"order added": {func(w *tale, dir string) {
			w.order("more", "carol", nil)
			w.put(dir, w.file("more"), w.orders["more"])
		}, audit.ErrTampered, "is an order of carol, and no event says that it was accepted"},
		"orders exchanged": {func(w *tale, dir string) { w.exchange(dir, w.file("resume1"), w.file("resume2")) }, audit.ErrTampered, "holds the order"},
		"no order":         {func(w *tale, dir string) { w.put(dir, w.file("stop"), []byte("{}")) }, audit.ErrTampered, "trust/orders/"},
		"order too long": {func(w *tale, dir string) {
			w.put(dir, w.file("stop"), append(bytes.Clone(w.orders["stop"]), bytes.Repeat([]byte(" "), 64<<10)...))
		}, audit.ErrFormat, "longer than"},
		"order is a link": {func(w *tale, dir string) {
			w.remove(dir, w.file("stop"))
			must(w, os.Symlink("/etc/passwd", filepath.Join(dir, w.file("stop"))))
		}, audit.ErrFormat, "no regular file"},
		"version dropped":      {func(w *tale, dir string) { w.remove(dir, second) }, audit.ErrTampered, third + " stands where 000002.json belongs"},
		"last version dropped": {func(w *tale, dir string) { w.remove(dir, third) }, audit.ErrTampered, "which is no version of the chain"},
		"all versions dropped": {func(w *tale, dir string) { w.remove(dir, "trust/chain") }, audit.ErrTampered, "trust/chain/000001.json is missing"},
		"all orders dropped":   {func(w *tale, dir string) { w.remove(dir, "trust/orders") }, audit.ErrTampered, "does not have it"},
		"versions exchanged":   {func(w *tale, dir string) { w.exchange(dir, second, third) }, audit.ErrTampered, second},
		"version by one of two": {func(w *tale, dir string) {
			w.put(dir, second, w.Next(w.chain[0], func(o *mofn.Trust) { o.Root = "security" }, "alice"))
		}, audit.ErrTampered, second},
		"another version by the quorum": {func(w *tale, dir string) {
			w.put(dir, third, w.Next(w.chain[1], func(o *mofn.Trust) { o.Epochs = []mofn.Epoch{{Stream: "models/x", MinEpoch: 2}} }, "alice2", "bob"))
		}, audit.ErrTampered, "which is no version of the chain"},
		"version added": {func(w *tale, dir string) {
			w.put(dir, "trust/chain/000004.json", w.Next(w.chain[2], nil, "alice2", "bob"))
		}, audit.ErrTampered, "trust/chain/000004.json is there, and no event says that it arrived"},
		"something else": {func(w *tale, dir string) { w.put(dir, "trust/chain/readme", []byte("hello")) }, audit.ErrTampered, "trust/chain/readme stands where"},
		"first version exchanged": {func(w *tale, dir string) {
			_, data := w.First(func(o *mofn.Trust) { o.Root = "quality" })
			w.remove(dir, "trust/chain")
			must(w, os.Mkdir(filepath.Join(dir, "trust/chain"), 0o700))
			w.put(dir, "trust/chain/000001.json", data)
		}, audit.ErrTampered, "and trust.json is"},
		"another chain": {func(w *tale, dir string) {
			_, data := w.First(func(o *mofn.Trust) { o.Root = "quality" })
			w.remove(dir, "trust")
			must(w, os.MkdirAll(filepath.Join(dir, "trust/chain"), 0o700))
			w.put(dir, "trust/chain/000001.json", data)
			w.put(dir, "trust.json", data)
		}, audit.ErrTampered, "the chain is another's"},
		"trust is a file": {func(w *tale, dir string) {
			w.remove(dir, "trust")
			w.put(dir, "trust", []byte("x"))
		}, audit.ErrFormat, "trust is no directory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newTale(t)
			dir := w.export()
			c.change(w, dir)
			if _, err := audit.Verify(dir, audit.VerifyOptions{}); !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %v: %s", err, c.err, c.want)
			}
		})
	}
}

func (w *tale) file(name string) string { return "trust/orders/" + w.id(name) + ".json" }

func (w *tale) remove(dir, name string) {
	w.Helper()
	must(w, os.RemoveAll(filepath.Join(dir, name)))
}

func (w *tale) put(dir, name string, data []byte) {
	w.Helper()
	must(w, os.WriteFile(filepath.Join(dir, name), data, 0o600))
}

func (w *tale) exchange(dir, a, b string) {
	w.Helper()
	other := filepath.Join(dir, "other")
	must(w, os.Rename(filepath.Join(dir, a), other))
	must(w, os.Rename(filepath.Join(dir, b), filepath.Join(dir, a)))
	must(w, os.Rename(other, filepath.Join(dir, b)))
}

// TestOverTimeFirst: what does not fit with trust is named before what is wrong further on.
func TestOverTimeFirst(t *testing.T) {
	w := newTale(t)
	i := w.at("order stop", 0)
	w.events[i].Officer = "carol"
	dir := w.export()
	writeLines(t, dir, append(lines(t, dir), "{}"))
	if _, err := audit.Verify(dir, audit.VerifyOptions{}); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("event %d: it gives the order", i+1)) {
		t.Errorf("%v", err)
	}
}

// TestTeller: each thing is told once, in the order in which it counted, across processes; after a restored state all is told anew.
func TestTeller(t *testing.T) {
	w := newTale(t)
	s := newSite(t, audit.High)
	k := audit.Known{Effect: 2}
	for _, data := range w.chain {
		st, err := trust.Parse(data)
		must(t, err)
		k.Versions = append(k.Versions, st)
	}
	for name, under := range map[string]int64{"stop": 2, "revoke": 1} {
		o, err := mofn.ParseOrder(w.Payload(w.orders[name]))
		must(t, err)
		k.Orders = append(k.Orders, mofn.SignedOrder{Order: *o, ID: w.id(name), Under: under})
	}
	tell := func(want string) {
		t.Helper()
		teller, err := audit.NewTeller(s.j, "test")
		must(t, err)
		var got []string
		for range 2 {
			events, err := teller.Tell(k, "")
			must(t, err)
			for _, e := range events {
				got = append(got, e.Action)
			}
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("told %q, want %q", got, want)
		}
	}
	const arrivals, rest = "trust object arrived, trust object arrived, ", "order revoke, trust object in effect, order stop"
	tell(arrivals + rest)
	tell("")
	s.note(journal.Event{Action: audit.ActionRestored})
	tell(arrivals + rest)
	tell("")
	k.Effect = 3
	tell(audit.ActionTrustEffect)
}

// TestOverTimeGiven: what an auditor brings, and what the trust object binds.
func TestOverTimeGiven(t *testing.T) {
	w := newTale(t)
	if _, err := audit.Verify(w.export(), audit.VerifyOptions{Root: release(7)}); !errors.Is(err, audit.ErrSignature) || !strings.Contains(err.Error(), "which was given") {
		t.Errorf("another first trust object: %v", err)
	}
	w.key = logKey(t, "thief")
	if _, err := audit.Verify(w.export(), audit.VerifyOptions{}); !errors.Is(err, audit.ErrSignature) || !strings.Contains(err.Error(), "gives sluice/high/site-a the log key") {
		t.Errorf("a log key that the trust object does not name: %v", err)
	}
}

// TestOverTimeLate: an order that comes while a publication goes on came too late for it; that is named, and is no contradiction. So is a
// lifting that comes while a withdrawal goes on.
func TestOverTimeLate(t *testing.T) {
	w := newTale(t)
	i := w.at("order stop", 0)
	e := w.events[i]
	w.events = slices.Delete(w.events, i, i+1)
	w.insert(w.at("published", 0), e)
	r, err := audit.Verify(w.export(), audit.VerifyOptions{})
	must(t, err)
	if !slices.ContainsFunc(r.Odd, func(s string) bool { return strings.Contains(s, "when an order came too late for it: ") }) {
		t.Errorf("odd: %v", r.Odd)
	}
	w = newTale(t)
	no := w.approve(1, "dave")
	no.Action = audit.ActionReject
	w.insert(w.at("published", 0), no)
	r, err = audit.Verify(w.export(), audit.VerifyOptions{})
	must(t, err)
	if !slices.ContainsFunc(r.Odd, func(s string) bool { return strings.Contains(s, "dave had rejected it before") }) {
		t.Errorf("odd: %v", r.Odd)
	}
	w = newTale(t)
	i = w.at("withdrawn", 0)
	e = w.events[i]
	w.events = slices.Delete(w.events, i, i+1)
	w.insert(w.at("order resume", 1)+1, e)
	_, err = audit.Verify(w.export(), audit.VerifyOptions{})
	must(t, err)
}

// TestOverTimeRestored: after a person accepted a restored state, all is told anew, and what did not fit before is odd.
func TestOverTimeRestored(t *testing.T) {
	w := newTale(t)
	i := w.at(audit.ActionStop, 0)
	lost := w.version(audit.ActionTrustArrived, 2)
	lost.Digest = release(3) // a version that the restored state does not know any more
	again := slices.Clone(w.events[1:3])
	again = append(again, w.ordered("stop"), w.ordered("resume1"), w.ordered("resume2"), w.ordered("revoke"), w.version(audit.ActionTrustArrived, 3))
	w.insert(i+1, slices.Concat([]journal.Event{lost, {Actor: "test", Action: audit.ActionRestored}}, again)...)
	r, err := audit.Verify(w.export(), audit.VerifyOptions{})
	must(t, err)
	if !slices.ContainsFunc(r.Odd, func(s string) bool {
		return strings.Contains(s, "accepted a restored state") && strings.Contains(s, "before it: ")
	}) {
		t.Errorf("odd: %v", r.Odd)
	}
	if r.OverTime.Orders[mofn.ActionResume] != 2 {
		t.Errorf("%+v", r.OverTime)
	}
}

// TestOverTimeOtherChain: a log that is older than its chain of trust objects is held against it from its first start under it on.
func TestOverTimeOtherChain(t *testing.T) {
	w := newTale(t)
	old := w.start(1)
	old.Digest = release(5)
	e := w.approve(8, "mallory")
	w.insert(0, old, e)
	r, err := audit.Verify(w.export(), audit.VerifyOptions{})
	must(t, err)
	if !slices.ContainsFunc(r.Odd, func(s string) bool { return strings.Contains(s, "the first start under this chain") }) {
		t.Errorf("odd: %v", r.Odd)
	}
}

// TestExportLater: what a daemon took in after the checkpoint was signed is left out, and is no contradiction.
func TestExportLater(t *testing.T) {
	w := newTale(t)
	w.chain = append(w.chain, w.Next(w.chain[2], nil, "alice2", "bob"))
	w.order("later", "carol", nil)
	w.order("stranger", "mallory", nil)
	dir := filepath.Join(t.TempDir(), "export")
	files := w.state()
	must(t, os.WriteFile(filepath.Join(files.State, "orders", ".x.tmp-1"), []byte("half a file"), 0o600))
	x, err := audit.Export(t.Context(), w.log(), files, dir)
	must(t, err)
	if x.Later != 2 {
		t.Errorf("%d left out", x.Later)
	}
	r, err := audit.Verify(dir, audit.VerifyOptions{})
	must(t, err)
	if len(r.OverTime.Versions) != 3 || r.OverTime.Strangers != 1 {
		t.Errorf("%+v", r.OverTime)
	}
}
