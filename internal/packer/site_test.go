// SPDX-License-Identifier: Apache-2.0

package packer_test

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

	"sluice/internal/bulletin"
	"sluice/internal/cli/clitest"
	"sluice/internal/dropbox"
	"sluice/internal/packer"
	"sluice/internal/strictyaml"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

func (l *low) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// sign wraps a payload, signed in a role.
func (l *low) sign(name, role, payloadType string, payload []byte) []byte {
	l.t.Helper()
	signer, err := l.site.Signer(name)
	l.must(err)
	sig, err := signer.Sign(role, envelope.PAE(payloadType, payload))
	l.must(err)
	d := envelope.DSSE{Payload: payload, PayloadType: payloadType, Signatures: []envelope.Signature{{KeyID: signer.KeyID().String(), Sig: sig}}}
	data, err := d.Marshal()
	l.must(err)
	return data
}

// order leaves an order of an officer in the drop-box, and has the bastion look. It returns the order's id.
func (l *low) order(officer, role string, o mofn.Order) string {
	l.t.Helper()
	o.Root, o.Officer, o.Role, o.At, o.Reason = l.site.Fingerprint, officer, role, envelope.FormatTime(l.now), "because"
	payload, err := o.Marshal()
	l.must(err)
	id := mofn.OrderID(payload)
	l.must(dropbox.Box{Dir: l.cfg.DropBox}.AddOrder(id, l.sign(officer, role, mofn.OrderPayloadType, payload)))
	l.must(l.Heed())
	return id
}

func (l *low) standing() *mofn.Standing { return l.Site().Standing() }

// TestOrdersFromTheBox: a stop holds a release that is sealed and approved, and the quorum lets it go on. What is no order is named and
// holds nothing up.
func TestOrdersFromTheBox(t *testing.T) {
	l := newLow(t)
	job := l.run()[0]
	stop := l.order("q.tan", "quality", mofn.Order{Action: mofn.ActionStop, Kind: mofn.KindStream, Target: "data/*"})
	l.decide(job, "approve", "a.roy", "m.lee")
	job = l.run()[0]
	l.want(job, "SEALED", "STOPPED: stream data/*, by q.tan: because")
	orders := filepath.Join(l.cfg.DropBox, "orders")
	l.must(os.WriteFile(filepath.Join(orders, strings.Repeat("ab", 32)+".json"), []byte("no order"), 0o600))
	l.must(os.Symlink("/etc/passwd", filepath.Join(orders, strings.Repeat("cd", 32)+".json")))
	for _, o := range [][2]string{{"a.roy", "security"}, {"s.ito", "security"}} {
		l.order(o[0], o[1], mofn.Order{Action: mofn.ActionResume, Lifts: []string{stop}})
	}
	if n := len(l.standing().Stops); n != 1 {
		t.Fatalf("%d stops stand before the quorum resumed", n)
	}
	l.order("q.ali", "quality", mofn.Order{Action: mofn.ActionResume, Lifts: []string{stop}})
	job = l.run()[0]
	l.want(job, "SENT", "abababab")
	l.crash()
	if n := len(l.standing().Lifted); n != 1 {
		t.Errorf("after a restart %d stops were lifted", n)
	}
}

// TestRevokedBeforeItWasSent: a release that the quorum revoked is refused here too.
func TestRevokedBeforeItWasSent(t *testing.T) {
	l := newLow(t)
	job := l.run()[0]
	for _, o := range [][2]string{{"a.roy", "security"}, {"s.ito", "security"}, {"q.ali", "quality"}} {
		l.order(o[0], o[1], mofn.Order{Action: mofn.ActionRevoke, Kind: mofn.KindRelease, Target: job.Release})
	}
	l.decide(job, "approve", "a.roy", "m.lee")
	job = l.run()[0]
	l.want(job, "REFUSED", "revoked")
}

// TestStoppedOfficer: the approval of an officer who was stopped is not counted, and the others are.
func TestStoppedOfficer(t *testing.T) {
	l := newLow(t)
	job := l.run()[0]
	l.order("m.lee", "security", mofn.Order{Action: mofn.ActionStop, Kind: mofn.KindOfficer, Target: "a.roy"})
	l.decide(job, "approve", "a.roy", "s.ito")
	job = l.run()[0]
	l.want(job, "SEALED", "a.roy.json is not counted: officer a.roy is stopped by m.lee")
	l.decide(job, "approve", "m.lee")
	job = l.run()[0]
	l.want(job, "SENT", "")
}

// TestStopGrounds: an order takes a release off the air in the middle of a pass.
func TestStopGrounds(t *testing.T) {
	l := newLow(t)
	job := l.run()[0]
	l.decide(job, "approve", "a.roy", "m.lee")
	ctx, land := l.TakeOff(t.Context(), job)
	defer land()
	l.order("s.ito", "security", mofn.Order{Action: mofn.ActionStop, Kind: mofn.KindRelease, Target: strings.Repeat("00", 32)})
	if ctx.Err() != nil {
		t.Fatal("a stop of another release took it off the air")
	}
	l.order("s.ito", "security", mofn.Order{Action: mofn.ActionStop, Kind: mofn.KindEverything})
	if ctx.Err() == nil {
		t.Error("it is still on the air")
	}
}

// TestProposal: a trust object is taken as soon as both quorums signed it, each officer in a file of their own, and officers find the chain in
// the drop-box.
func TestProposal(t *testing.T) {
	l := newLow(t)
	first := l.Site().Trust()
	next := *first.Object
	next.Version, next.Prev, next.Created = 2, hex.EncodeToString(first.Fingerprint[:]), envelope.FormatTime(l.now)
	next.Epochs = []mofn.Epoch{{Stream: "data/list", MinEpoch: 7}}
	payload, err := next.Marshal()
	l.must(err)
	fp := mofn.Fingerprint(payload)
	name := hex.EncodeToString(fp[:])
	unsigned := envelope.DSSE{Payload: payload, PayloadType: trust.PayloadType, Signatures: []envelope.Signature{}}
	data, err := unsigned.Marshal()
	l.must(err)
	box := dropbox.Box{Dir: l.cfg.DropBox}
	l.must(l.Heed()) // makes the drop-box
	l.must(box.AddProposal(2, name, data))
	for i, officer := range []string{"a.roy", "s.ito", "q.tan"} {
		l.must(l.Heed())
		if v := l.Site().Newest().Object.Version; v != 1 {
			t.Fatalf("version %d after %d signatures", v, i)
		}
		signer, err := l.site.Signer(officer)
		l.must(err)
		l.must(box.AddSignature(2, name, officer, signer.KeyID().String()[:8], l.sign(officer, mofn.RoleRoot, trust.PayloadType, payload)))
	}
	l.must(l.Heed())
	if v := l.Site().Newest().Object.Version; v != 2 {
		t.Fatalf("version %d after three signatures: %v", v, l.Said())
	}
	if v := l.Site().Trust().Object.Version; v != 1 {
		t.Error("it took effect without quarantine")
	}
	chain, err := box.Chain()
	l.must(err)
	if len(chain) != 2 {
		t.Errorf("officers find %d versions", len(chain))
	}
	l.now = l.now.Add(73 * time.Hour)
	l.must(l.Heed())
	if v := l.Site().Trust().Object.Version; v != 2 {
		t.Error("it took no effect after its quarantine")
	}
}

// TestStick: a drop-box that goes away and comes back empty, or on another stick, gets the request again, and no time is lost.
func TestStick(t *testing.T) {
	l := newLow(t)
	l.want(l.run()[0], "SEALED", "security")
	request := filepath.Join(l.cfg.DropBox, "requests")
	names, err := os.ReadDir(request)
	l.must(err)
	l.must(os.RemoveAll(l.cfg.DropBox))
	l.must(os.WriteFile(l.cfg.DropBox, nil, 0o600)) // away: nothing can be made there
	l.now = l.now.Add(time.Minute)
	l.must(errors.Join(l.Heed(), l.Step(t.Context())))
	jobs, err := l.Jobs()
	l.must(err)
	if jobs[0].Attempts != 0 || jobs[0].NotBefore.Sub(l.now) > 10*time.Second {
		t.Errorf("a stick that is away is taken for a failure: %d attempts, again at %s", jobs[0].Attempts, jobs[0].NotBefore)
	}
	l.must(os.Remove(l.cfg.DropBox))
	l.must(os.Mkdir(l.cfg.DropBox, 0o775))
	job := l.run()[0]
	l.want(job, "SEALED", "security")
	again, err := os.ReadDir(request)
	l.must(err)
	if len(again) != 1 || again[0].Name() != names[0].Name() {
		t.Errorf("requests on the new stick: %v", again)
	}
	l.decide(job, "approve", "a.roy", "m.lee")
	job = l.run()[0]
	l.want(job, "SENT", "")
}

// TestMakeBulletin: it names what is current, carries every order and version, and its counter goes on after a crash.
func TestMakeBulletin(t *testing.T) {
	l := newLow(t)
	l.must(l.Close())
	l.site = watched(t, l.site)
	l.cfg.Trust.Object, l.cfg.Trust.Fingerprint, l.cfg.Trust.Quarantine = l.site.Path("trust.json"), l.site.Fingerprint, strictyaml.Duration(time.Hour)
	l.cfg.Keys = packer.Keys{
		Packer: l.site.Path("packer"), Link: l.site.Path("link"), Heartbeat: l.site.Path("heartbeat"), Log: l.site.Path("log"), PassphraseFile: l.site.Path("passphrase"),
	}
	l.cfg.State = filepath.Join(t.TempDir(), "state")
	l.open()
	job := l.run()[0]
	l.want(job, "SEALED", "missing")
	l.order("q.tan", "quality", mofn.Order{Action: mofn.ActionStop, Kind: mofn.KindStream, Target: "other"})
	for want := int64(1); want <= 2; want++ {
		b, err := l.MakeBulletin(t.Context())
		l.must(err)
		stream, err := b.Bytes()
		l.must(err)
		back, err := bulletin.Read(bytes.NewReader(stream))
		l.must(err)
		snap := l.Site().Snapshot()
		l.must(back.Matches(snap))
		if snap.Counter != want || len(snap.Orders) != 1 || len(snap.Releases) != 1 || snap.Releases[0].Release != job.Release {
			t.Errorf("snapshot %+v", snap)
		}
		l.crash()
	}
	if !slices.Contains(l.Site().Describe(l.now).Words, "STOPPED: stream other, by q.tan: because (order "+l.standing().Stops[0].ID[:12]+")") {
		t.Error(l.Site().Describe(l.now).Words)
	}
}

// watched makes the site anew, with a heartbeat key and a log key.
func watched(t *testing.T, s *clitest.Site) *clitest.Site {
	t.Helper()
	w, err := clitest.NewWatched(s.Path("watched"))
	if err != nil {
		t.Fatal(err)
	}
	return w
}
