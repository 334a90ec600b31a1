// SPDX-License-Identifier: Apache-2.0

package receiver_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/audit"
	"sluice/internal/bulletin"
	"sluice/internal/journal"
	"sluice/internal/link"
	"sluice/internal/receiver"
	"sluice/internal/site"
	"sluice/internal/strictyaml"
	"sluice/internal/trust"
	"sluice/internal/trust/trusttest"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
	"sluice/pkg/registry"
)

const logOrigin = "sluice/low/bastion"

// watched is a bench whose trust object has a heartbeat key and binds the bastion's log, and that bastion's side of it.
type watched struct {
	*bench
	low       *site.Site
	heartbeat *mofn.PrivateKey
	journal   *journal.Journal
	log       *audit.Log
	current   []mofn.Current
	quiet     bool // no proofs of the log go into bulletins
}

func newWatched(t *testing.T, policy func(string) string) *watched {
	t.Helper()
	shared, err := keys()
	must(t, err)
	w := &watched{}
	w.heartbeat, err = mofn.GenerateKey(mofn.SuiteH1, nil)
	must(t, err)
	logSecret, err := mofn.GenerateSecret(nil, mofn.SuiteH1, "log")
	must(t, err)
	object := *shared.Store.Object
	hb := w.heartbeat.Public()
	object.Heartbeats = []mofn.TrustKey{{ID: hb.ID(), Suite: hb.Suite(), Public: hb.Bytes()}}
	object.Logs = []mofn.LogKey{{Origin: logOrigin, ID: logSecret.ID(), Suite: logSecret.Suite, Public: logSecret.Public}}
	if policy != nil {
		object.Policy = policy(object.Policy)
	}
	data := dsse(t, trust.PayloadType, payloadOf(t, &object))
	store, err := trust.Parse(data)
	must(t, err)
	copied := *shared
	copied.Store, copied.Object = store, data

	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "trust.json"), data, 0o600))
	cfg := receiver.DefaultConfig()
	cfg.Receiver, cfg.State = trusttest.Receiver, filepath.Join(dir, "state")
	cfg.Trust = receiver.Trust{
		Object: filepath.Join(dir, "trust.json"), Fingerprint: hex.EncodeToString(store.Fingerprint[:]),
		Quarantine: strictyaml.Duration(24 * time.Hour), SecondPlace: filepath.Join(dir, "second"),
	}
	cfg.Registry.Directory = &receiver.DirectoryRegistry{Path: filepath.Join(dir, "registry")}
	cfg.Retain = strictyaml.Duration(time.Minute)
	w.bench = &bench{T: t, site: &copied, cfg: cfg, clock: &clock{now: trusttest.Sealed().Add(time.Hour)}}
	w.open()
	t.Cleanup(func() { must(t, w.r.Close()) })
	t.Cleanup(w.verifyLog)

	low, err := os.OpenRoot(t.TempDir())
	must(t, err)
	w.low, err = site.Open(site.Options{Dir: low, First: store, FirstData: data, Quarantine: 24 * time.Hour, Now: w.clock.Now()})
	must(t, err)
	t.Cleanup(func() { must(t, w.low.Close()) })
	w.openLog(logSecret)
	return w
}

func (w *watched) openLog(secret *mofn.SecretKey) {
	w.Helper()
	var err error
	w.journal, err = journal.Open(filepath.Join(w.TempDir(), "journal.db"), journal.Options{States: map[string][]string{"X": nil}})
	must(w.T, err)
	w.Cleanup(func() { must(w.T, w.journal.Close()) })
	key, err := audit.NewLogKey(secret)
	must(w.T, err)
	w.log = audit.NewLog(w.journal, audit.Low, "bastion", key)
	must(w.T, w.journal.Append(journal.Event{Actor: "test", Action: "start"}))
}

func payloadOf(t testing.TB, object *mofn.Trust) []byte {
	t.Helper()
	payload, err := object.Marshal()
	must(t, err)
	return payload
}

// dsse wraps a payload, signed in a role by keys.
func dsse(t testing.TB, payloadType string, payload []byte, signers ...func([]byte) envelope.Signature) []byte {
	t.Helper()
	d := envelope.DSSE{Payload: payload, PayloadType: payloadType, Signatures: []envelope.Signature{}}
	for _, sign := range signers {
		d.Signatures = append(d.Signatures, sign(envelope.PAE(payloadType, payload)))
	}
	b, err := d.Marshal()
	must(t, err)
	return b
}

func by(t testing.TB, key *mofn.PrivateKey, role string) func([]byte) envelope.Signature {
	t.Helper()
	return func(message []byte) envelope.Signature {
		sig, err := key.Sign(role, message)
		must(t, err)
		return envelope.Signature{KeyID: key.KeyID().String(), Sig: sig}
	}
}

// order is an order of an officer, signed.
func (w *watched) order(officer string, o mofn.Order) []byte {
	w.Helper()
	_, group, _ := w.low.Trust().Policy.OfficerOf(w.bench.site.Keys[officer].KeyID())
	o.Root, o.Officer, o.Role, o.At = w.low.Root(), officer, group, envelope.FormatTime(w.clock.Now())
	if o.Reason == "" {
		o.Reason = "because"
	}
	payload, err := o.Marshal()
	must(w.T, err)
	return dsse(w.T, mofn.OrderPayloadType, payload, by(w.T, w.bench.site.Keys[officer], group))
}

// give gives an order to the bastion, and returns its id.
func (w *watched) give(officer string, o mofn.Order) string {
	w.Helper()
	signed, news, err := w.low.AddOrder(w.order(officer, o))
	must(w.T, err)
	if !news || signed.ID == "" {
		w.Fatalf("the bastion did not accept the order of %s", officer)
	}
	return signed.ID
}

// list makes a release current.
func (w *watched) list(r release) {
	p := r.env.Statement.Predicate
	w.current = append(w.current, mofn.Current{Stream: p.Stream, Epoch: p.Epoch, Seq: p.Seq, Release: r.id()})
}

func (w *watched) bulletin() *bulletin.Bulletin {
	w.Helper()
	w.clock.add(time.Second)
	must(w.T, w.journal.Append(journal.Event{Actor: "test", Action: "bulletin"}))
	c, err := w.log.Continue(w.Context(), 0)
	must(w.T, err)
	head, err := audit.OpenCheckpoint(c.Note, w.log.Key.Public)
	must(w.T, err)
	next := site.Next{
		Site: "bastion", Interval: time.Minute, Now: w.clock.Now(), Releases: w.current,
		Log:   mofn.LogRef{Origin: head.Origin, Size: head.Size, Root: head.Root.String()},
		Prove: func(old int64) ([]byte, error) { return w.log.Prove(old, head.Size, c.Note) },
		Sign: func(payload []byte) ([]byte, error) {
			return dsse(w.T, mofn.SnapshotPayloadType, payload, by(w.T, w.heartbeat, mofn.RoleHeartbeat)), nil
		},
	}
	if w.quiet {
		next.Log, next.Prove = mofn.LogRef{}, nil
	}
	b, _, err := w.low.Make(next)
	must(w.T, err)
	return b
}

// send brings a bulletin over the link, and has the receiver act on it.
func (w *watched) send() {
	w.Helper()
	stream, err := w.bulletin().Bytes()
	must(w.T, err)
	w.carry(stream)
	w.step()
}

func (w *watched) carry(stream []byte) {
	w.Helper()
	a := link.Announcement{Profile: link.Profile1500, Release: bulletin.ID(stream), EnvelopeSize: int64(len(stream)), Groups: groups, Pass: 1}
	payload, err := w.r.Envelope(w.Context(), a, bytes.NewReader(stream), int64(len(stream)))
	must(w.T, err)
	if !payload.Complete() {
		w.Error("the link waits for a payload of a bulletin")
	}
}

func (w *watched) said(action string) (n int) {
	w.Helper()
	must(w.T, w.r.Journal().Events(1, func(e journal.Event) error {
		if e.Action == action {
			n++
		}
		return nil
	}))
	return n
}

func (w *watched) visible(r release) bool {
	w.Helper()
	entries, err := w.r.Releases(w.Context())
	must(w.T, err)
	return slices.ContainsFunc(entries, func(e registry.Entry) bool { return e.Release == r.id() })
}

// TestListed: what no snapshot names is not published, however well it is signed, and is published as soon as one does, even if a
// later one has replaced it.
func TestListed(t *testing.T) {
	w := newWatched(t, nil)
	r := w.approved("models/llm", 1)
	w.receive(r)
	w.step()
	w.want(r, "HELD")
	if why := w.job(r).LastError; !strings.Contains(why, "no snapshot") {
		t.Errorf("it waits for %q", why)
	}
	w.send() // a bulletin that does not name it
	w.clock.add(10 * time.Minute)
	w.step()
	w.want(r, "HELD")
	w.list(r)
	w.send()
	w.current = nil
	w.send()
	w.restart()
	w.clock.add(10 * time.Minute)
	w.step()
	w.published(r)
	w.clean()
}

// TestStopRelease: one officer withdraws what is published, and only the quorum gives it back, byte for byte.
func TestStopRelease(t *testing.T) {
	w := newWatched(t, nil)
	old, r := w.approved("models/llm", 1), w.approved("models/llm", 2)
	for _, rel := range []release{old, r} {
		w.list(rel)
		w.send()
		w.receive(rel)
		w.step()
		w.published(rel)
	}
	stop := w.give("m.lee", mofn.Order{Action: mofn.ActionStop, Kind: mofn.KindRelease, Target: r.id(), Reason: "it says strange things"})
	w.send()
	w.want(r, "WITHDRAWN")
	if w.visible(r) || !w.visible(old) {
		t.Error("the stopped release is visible, or the one before is not")
	}
	w.clean()
	w.give("a.roy", mofn.Order{Action: mofn.ActionResume, Lifts: []string{stop}})
	w.send()
	w.want(r, "WITHDRAWN")
	if p := w.r.Site().Pending; len(p) != 1 || !strings.Contains(p[0], "lifting") {
		t.Errorf("pending: %v", p)
	}
	w.restart()
	w.give("s.ito", mofn.Order{Action: mofn.ActionResume, Lifts: []string{stop}})
	w.send()
	w.published(r)
	if !w.visible(r) {
		t.Error("the release that was given back is not visible")
	}
	w.clean()
}

// TestRevokeRelease: a quorum withdraws for good; a replay of the release does not bring it back, nor does a resume.
func TestRevokeRelease(t *testing.T) {
	w := newWatched(t, nil)
	r := w.approved("models/llm", 1)
	w.list(r)
	w.send()
	w.receive(r)
	w.step()
	w.published(r)
	first := w.give("m.lee", mofn.Order{Action: mofn.ActionRevoke, Kind: mofn.KindRelease, Target: r.id()})
	w.send()
	w.want(r, "WITHDRAWN") // a lone revoke stops
	w.give("a.roy", mofn.Order{Action: mofn.ActionRevoke, Kind: mofn.KindRelease, Target: r.id()})
	w.send()
	w.give("a.roy", mofn.Order{Action: mofn.ActionResume, Lifts: []string{first}})
	w.give("s.ito", mofn.Order{Action: mofn.ActionResume, Lifts: []string{first}})
	w.send()
	w.want(r, "WITHDRAWN")
	if _, err := os.Stat(w.publishedDir(r)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the files of a revoked release lie where they were: %v", err)
	}
	if _, err := w.announce(r); err != nil {
		t.Log(err) // refused or taken as here already: nothing may come of it
	}
	w.step()
	w.want(r, "WITHDRAWN")
	w.clean()
}

// TestRevokedOnItsWay: a release that is revoked before it is published is refused, and its space is freed.
func TestRevokedOnItsWay(t *testing.T) {
	w := newWatched(t, nil)
	r := w.approved("models/held/x", 1)
	w.list(r)
	w.send()
	w.receive(r)
	w.step()
	w.want(r, "HELD")
	w.give("m.lee", mofn.Order{Action: mofn.ActionRevoke, Kind: mofn.KindRelease, Target: r.id()})
	w.give("a.roy", mofn.Order{Action: mofn.ActionRevoke, Kind: mofn.KindRelease, Target: r.id()})
	w.send()
	w.want(r, "REJECTED")
	w.clock.add(48 * time.Hour)
	w.step()
	w.notPublished(r)
	if w.spooled(r) {
		t.Error("its bytes are kept")
	}
}

// TestStopStream: a stop overtakes a release that is held, also after its hold; another stream goes on; the quorum resumes it.
func TestStopStream(t *testing.T) {
	w := newWatched(t, nil)
	r, other := w.approved("models/held/x", 1), w.approved("models/llm", 1)
	w.list(r)
	w.send()
	w.receive(r)
	w.step()
	w.want(r, "HELD")
	stop := w.give("m.lee", mofn.Order{Action: mofn.ActionStop, Kind: mofn.KindStream, Target: "models/held/*"})
	w.current = append([]mofn.Current(nil), w.current...)
	w.list(other)
	slices.SortFunc(w.current, func(a, b mofn.Current) int { return strings.Compare(a.Stream, b.Stream) })
	w.send()
	w.clock.add(48 * time.Hour)
	w.step()
	w.want(r, "HELD")
	w.notPublished(r)
	w.receive(other)
	w.step()
	w.published(other)
	w.give("a.roy", mofn.Order{Action: mofn.ActionResume, Lifts: []string{stop}})
	w.give("s.ito", mofn.Order{Action: mofn.ActionResume, Lifts: []string{stop}})
	w.send()
	w.clock.add(10 * time.Minute)
	w.step()
	w.published(r)
}

// TestStopEverything: nothing is accepted any more, and bulletins go on.
func TestStopEverything(t *testing.T) {
	w := newWatched(t, nil)
	r := w.approved("models/llm", 1)
	w.list(r)
	stop := w.give("a.roy", mofn.Order{Action: mofn.ActionStop, Kind: mofn.KindEverything})
	w.send()
	if _, err := w.announce(r); !errors.Is(err, trust.ErrStopped) {
		t.Fatalf("accepted while everything is stopped: %v", err)
	}
	if state := w.state(r); state != "" {
		t.Errorf("a stop refused the release for good: %s", state)
	}
	w.give("m.lee", mofn.Order{Action: mofn.ActionResume, Lifts: []string{stop}})
	w.give("s.ito", mofn.Order{Action: mofn.ActionResume, Lifts: []string{stop}})
	w.send()
	w.receive(r)
	w.step()
	w.published(r)
}

// TestStopOfficer: what a stopped officer signed counts nothing, before and after it was signed.
func TestStopOfficer(t *testing.T) {
	w := newWatched(t, nil)
	r := w.approved("models/held/x", 1) // by s.ito and a.roy
	w.list(r)
	w.send()
	w.receive(r)
	w.step()
	w.want(r, "HELD")
	w.give("m.lee", mofn.Order{Action: mofn.ActionStop, Kind: mofn.KindOfficer, Target: "s.ito"})
	w.send()
	w.clock.add(48 * time.Hour)
	w.step()
	w.notPublished(r)
	must(t, w.bench.site.Approve(r.env, envelope.DecisionApprove, "m.lee"))
	w.receive(r)
	w.step()
	w.want(r, "HELD")
	w.clock.add(48 * time.Hour)
	w.step()
	w.published(r) // a.roy and m.lee are enough
}

// successor is the next version of the trust object, changed and signed by officers of the root.
func (w *watched) successor(change func(*mofn.Trust), officers ...string) []byte {
	w.Helper()
	newest := w.low.Newest()
	next := *newest.Object
	next.Version++
	next.Prev = hex.EncodeToString(newest.Fingerprint[:])
	next.Created = envelope.FormatTime(w.clock.Now())
	change(&next)
	var signers []func([]byte) envelope.Signature
	for _, o := range officers {
		signers = append(signers, by(w.T, w.bench.site.Keys[o], mofn.RoleRoot))
	}
	return dsse(w.T, trust.PayloadType, payloadOf(w.T, &next), signers...)
}

// TestRotation: a later trust object arrives over the link, sits in quarantine, survives a restart, and takes effect.
func TestRotation(t *testing.T) {
	w := newWatched(t, nil)
	raise := func(next *mofn.Trust) { next.Epochs = []mofn.Epoch{{Stream: "models/llm", MinEpoch: 2}} }
	if _, err := w.low.AddTrust(w.successor(raise, "s.ito"), w.clock.Now()); !errors.Is(err, site.ErrChain) {
		t.Fatalf("one of two signed the successor: %v", err)
	}
	_, err := w.low.AddTrust(w.successor(raise, "s.ito", "a.roy"), w.clock.Now())
	must(t, err)
	w.send()
	st := w.r.Site()
	if st.Version != 1 || st.Newest != 2 || len(st.Quarantine) != 1 || w.said(audit.ActionTrustArrived) != 1 {
		t.Fatalf("after its arrival: %+v", st)
	}
	r := w.approved("models/llm", 1)
	w.list(r)
	w.send()
	w.receive(r)
	w.step()
	w.published(r) // the old policy is in effect
	w.restart()
	w.clock.add(23 * time.Hour)
	w.step()
	if v := w.r.Site().Version; v != 1 {
		t.Fatalf("version %d in effect before the quarantine is over", v)
	}
	w.clock.add(2 * time.Hour)
	w.step()
	if v := w.r.Site().Version; v != 2 || w.said(audit.ActionTrustEffect) != 1 {
		t.Fatalf("version %d in effect after the quarantine", v)
	}
	w.send()
	if _, err := w.announce(w.approved("models/llm", 2)); !errors.Is(err, trust.ErrRollback) {
		t.Errorf("the floor of version 2 holds nothing: %v", err)
	}
	env, a, err := receiver.VerifyPublished(t.Context(), mustTrust(t, w.cfg), w.cfg, openRegistry(t, w.cfg), "demo", r.env.ID)
	must(t, err)
	if env.ID != r.env.ID || !a.Valid() {
		t.Error("what was published under version 1 does not verify under the chain")
	}
}

func mustTrust(t *testing.T, cfg receiver.Config) []*trust.Store {
	t.Helper()
	been, err := receiver.CurrentTrust(cfg)
	must(t, err)
	return been
}

func openRegistry(t *testing.T, cfg receiver.Config) receiver.Target {
	t.Helper()
	reg, err := receiver.OpenRegistry(cfg)
	must(t, err)
	t.Cleanup(func() { must(t, reg.Close()) })
	return reg
}

// TestStopOvertakesRotation: a stop of everything keeps a trust object in quarantine from taking effect.
func TestStopOvertakesRotation(t *testing.T) {
	w := newWatched(t, nil)
	_, err := w.low.AddTrust(w.successor(func(*mofn.Trust) {}, "s.ito", "a.roy"), w.clock.Now())
	must(t, err)
	w.give("m.lee", mofn.Order{Action: mofn.ActionStop, Kind: mofn.KindEverything, Reason: "the root keys were stolen"})
	w.send()
	w.clock.add(100 * time.Hour)
	w.step()
	if v := w.r.Site().Version; v != 1 {
		t.Errorf("version %d took effect although everything is stopped", v)
	}
}

// TestFreshness: STALE by the monotonic clock, in readiness, and fresh again.
func TestFreshness(t *testing.T) {
	w := newWatched(t, nil)
	w.send()
	if f := w.r.Site().Freshness; f.State != site.Fresh || len(f.Words) != 6 {
		t.Fatalf("after a bulletin: %+v", f)
	}
	w.clock.add(4 * time.Minute)
	if f := w.r.Site().Freshness; f.State != site.Stale {
		t.Fatalf("after four minutes: %+v", f)
	}
	if reasons := w.r.Ready(t.Context()); !slices.ContainsFunc(reasons, func(s string) bool { return strings.Contains(s, "STALE") }) {
		t.Errorf("ready although stale: %v", reasons)
	}
	w.send()
	if f := w.r.Site().Freshness; f.State != site.Fresh {
		t.Errorf("after another bulletin: %+v", f)
	}
}

// TestReplayedBulletin: an old bulletin changes nothing, after a restart too, and does not make the site fresh.
func TestReplayedBulletin(t *testing.T) {
	w := newWatched(t, nil)
	stream, err := w.bulletin().Bytes()
	must(t, err)
	w.carry(stream)
	w.send()
	counter := w.r.Site().Freshness.Counter
	w.restart()
	w.clock.add(time.Hour)
	w.carry(stream)
	f := w.r.Site().Freshness
	if f.Counter != counter || f.State == site.Fresh {
		t.Errorf("a replay counts: %+v", f)
	}
}

// TestLogFork: the bastion's audit log is witnessed; one that was rewritten is an alarm.
func TestLogFork(t *testing.T) {
	w := newWatched(t, nil)
	for range 40 {
		w.send()
	}
	note, err := w.r.Journal().Witness(logOrigin)
	must(t, err)
	seen, err := audit.OpenCheckpoint(note, w.log.Key.Public)
	must(t, err)
	if seen.Size != 41 || w.said(audit.ActionFork) != 0 {
		t.Fatalf("witnessed %d events, %d forks", seen.Size, w.said(audit.ActionFork))
	}
	for range 15 { // a receiver that was away: some proof begins where it stands
		w.bulletin()
	}
	w.send()
	if size := w.witnessed(); size != 57 || w.said(audit.ActionAnchor) != 0 {
		t.Errorf("after a short absence: %d events witnessed", size)
	}
	for range 100 { // and one that was away for longer than that, but saw bulletin 32
		w.bulletin()
	}
	w.send()
	if size := w.witnessed(); size != 158 || w.said(audit.ActionAnchor) != 1 {
		t.Errorf("after a long absence: %d events witnessed, %d times from an anchor", size, w.said(audit.ActionAnchor))
	}
	other := newWatched(t, nil)
	w.journal, w.log = other.journal, audit.NewLog(other.journal, audit.Low, "bastion", w.log.Key)
	for range 200 {
		must(t, w.journal.Append(journal.Event{Actor: "test", Action: "rewritten"}))
	}
	w.send()
	if w.said(audit.ActionFork) == 0 {
		t.Error("a rewritten log was not noticed")
	}
}

// witnessed is how far the receiver has seen the bastion's log.
func (w *watched) witnessed() int64 {
	w.Helper()
	note, err := w.r.Journal().Witness(logOrigin)
	must(w.T, err)
	c, err := audit.OpenCheckpoint(note, w.log.Key.Public)
	must(w.T, err)
	return c.Size
}

// TestOrderOfPublication: a stream whose rule says chain waits for the predecessor.
func TestOrderOfPublication(t *testing.T) {
	w := newWatched(t, func(p string) string {
		return strings.Replace(p, "rule stream models/* quorum security\n", "rule stream models/* quorum security succession chain\n", 1)
	})
	first := w.approved("models/llm", 1)
	p := trusttest.Predicate("models/llm", 1, 2)
	p.Prev = first.id()
	second := w.sealP(p, "s.ito", "a.roy")
	w.list(first)
	w.list(second)
	w.send()
	w.receive(second)
	w.step()
	w.want(second, "HELD")
	w.receive(first)
	w.step()
	w.published(first)
	w.clock.add(10 * time.Minute)
	w.step()
	w.published(second)
}

// TestRestoredState: a state that was turned back is refused, and a person can accept it.
func TestRestoredState(t *testing.T) {
	w := newWatched(t, nil)
	w.send()
	must(t, w.r.Close())
	backup := filepath.Join(t.TempDir(), "backup")
	must(t, os.CopyFS(backup, os.DirFS(w.cfg.State)))
	w.open()
	w.send()
	must(t, w.r.Close())
	must(t, os.RemoveAll(w.cfg.State))
	must(t, os.CopyFS(w.cfg.State, os.DirFS(backup)))
	_, err := receiver.Open(t.Context(), w.cfg, receiver.Options{Now: w.clock.Now})
	if err == nil || !strings.Contains(err.Error(), "restored") {
		t.Fatalf("an old state was taken: %v", err)
	}
	r, err := receiver.Open(t.Context(), w.cfg, receiver.Options{Now: w.clock.Now, AcceptRestored: true})
	must(t, err)
	must(t, r.Close())
	w.open()
	if w.said(audit.ActionRestored) != 1 {
		t.Error("the log does not say who accepted it")
	}
}

// TestImportBulletin: a medium brings a bulletin beside a release.
func TestImportBulletin(t *testing.T) {
	w := newWatched(t, nil)
	r := w.approved("models/llm", 1)
	w.list(r)
	dir := w.medium(r)
	stream, err := w.bulletin().Bytes()
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "bulletin.sluice"), stream, 0o600))
	job, err := w.r.Import(t.Context(), dir, false)
	must(t, err)
	if job.State != "PUBLISHED" {
		t.Errorf("%s: %s", job.State, job.LastError)
	}
	stream[len(stream)/2] ^= 1
	must(t, os.WriteFile(filepath.Join(dir, "bad.bulletin"), stream, 0o600))
	if err := w.r.ImportBulletin(t.Context(), filepath.Join(dir, "bad.bulletin")); !errors.Is(err, bulletin.ErrFormat) {
		t.Errorf("a damaged bulletin: %v", err)
	}
}

// TestConfirm: a site that wants it publishes nothing that nobody there confirmed, and the log says who did.
func TestConfirm(t *testing.T) {
	w := newWatched(t, nil)
	w.cfg.Confirm = true
	w.restart()
	r := w.approved("models/llm", 1)
	w.list(r)
	w.send()
	w.receive(r)
	w.step()
	w.want(r, "HELD")
	if why := w.job(r).LastError; !strings.Contains(why, "diode-receiver confirm "+r.id()[:12]) {
		t.Errorf("it waits for %q", why)
	}
	other := w.approved("models/llm", 2)
	must(t, receiver.Confirm(w.cfg, other.env.ID, w.clock.Now())) // of another release
	w.clock.add(10 * time.Minute)
	w.step()
	w.want(r, "HELD")
	must(t, receiver.Confirm(w.cfg, r.env.ID, w.clock.Now()))
	w.clock.add(10 * time.Minute)
	w.step()
	w.published(r)
	if w.said(audit.ActionConfirmed) != 1 {
		t.Error("the log does not say who confirmed it")
	}
}

// TestGivenBackByACrash: the registry gave a release back, the process died before the journal knew, and another stop came meanwhile: it is
// withdrawn again.
func TestGivenBackByACrash(t *testing.T) {
	w := newWatched(t, nil)
	r := w.approved("models/llm", 1)
	w.list(r)
	w.send()
	w.receive(r)
	w.step()
	w.published(r)
	first := w.give("m.lee", mofn.Order{Action: mofn.ActionStop, Kind: mofn.KindRelease, Target: r.id()})
	w.send()
	w.want(r, "WITHDRAWN")
	must(t, w.r.Close())
	reg := openRegistry(t, w.cfg)
	directory := [32]byte(r.env.Statement.Predicate.DirectoryDigest)
	must(t, reg.Restore(t.Context(), "demo", [32]byte(r.env.ID), directory, registry.Withdrawal{Reason: "resumed", Orders: []string{first}}))
	w.open()
	w.give("a.roy", mofn.Order{Action: mofn.ActionStop, Kind: mofn.KindRelease, Target: r.id()})
	w.send()
	w.want(r, "WITHDRAWN")
	if w.visible(r) {
		t.Error("a release that is stopped is visible")
	}
	w.clean()
}
