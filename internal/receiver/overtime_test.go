// SPDX-License-Identifier: Apache-2.0

package receiver_test

import (
	"bytes"
	"crypto/sha512"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/audit"
	"sluice/internal/site"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// enrol edits a successor: an officer gets one key more.
func enrol(officer string, key *mofn.PrivateKey) func(*mofn.Trust) {
	return func(next *mofn.Trust) {
		p := key.Public()
		word := "officer " + officer + " key "
		next.Policy = strings.Replace(next.Policy, word, word+p.ID().String()+" key ", 1)
		next.Keys = append(slices.Clone(next.Keys), mofn.TrustKey{ID: p.ID(), Suite: p.Suite(), Public: p.Bytes(), Comment: officer})
		slices.SortFunc(next.Keys, func(a, b mofn.TrustKey) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	}
}

// signedBy is an order of an officer by a key that may not be enrolled yet.
func (w *watched) signedBy(key *mofn.PrivateKey, officer string, o mofn.Order) []byte {
	w.Helper()
	o.Root, o.Officer, o.Role, o.At, o.Reason = w.low.Root(), officer, "security", envelope.FormatTime(w.clock.Now()), "because"
	payload, err := o.Marshal()
	must(w.T, err)
	return dsse(w.T, mofn.OrderPayloadType, payload, by(w.T, key, o.Role))
}

// actions are what the log says of trust, in order.
func (w *watched) actions() (out []string) {
	w.Helper()
	for _, line := range w.trail() {
		for _, a := range []string{audit.ActionTrustArrived, audit.ActionTrustEffect, "order stop", "order resume", "withdrawn", "given back"} {
			if strings.Contains(line, `"action":"`+a+`"`) {
				out = append(out, a)
			}
		}
	}
	return out
}

// TestOverTime: the log of a site that went through it all, as an auditor sees it.
func TestOverTime(t *testing.T) {
	w := newWatched(t, nil)
	r := w.approved("models/llm", 1)
	w.list(r)
	w.send()
	w.receive(r)
	w.step()
	w.published(r)

	// The order of a key that nobody enrolled comes first, and its trust object after it.
	key, err := mofn.GenerateKey(mofn.SuiteH1, nil)
	must(t, err)
	late := w.signedBy(key, "m.lee", mofn.Order{Action: mofn.ActionStop, Kind: mofn.KindRelease, Target: r.id()})
	_, _, err = w.low.AddOrder(late)
	must(t, err)
	_, err = w.low.AddTrust(w.successor(enrol("m.lee", key), "s.ito", "a.roy"), w.clock.Now())
	must(t, err)
	w.send()
	w.published(r)
	w.clock.add(25 * time.Hour)
	w.step()
	w.want(r, "WITHDRAWN")
	if got, want := strings.Join(w.actions(), ", "), "trust object arrived, trust object in effect, order stop, withdrawn"; got != want {
		t.Errorf("the log says %q, want %q", got, want)
	}

	// A crash between the state and the log: the next process tells what is untold, each thing once.
	must(t, w.r.Close())
	stop := mofn.OrderID(payloadIn(t, late))
	w.lowTick()
	for _, officer := range []string{"a.roy", "s.ito"} {
		w.give(officer, mofn.Order{Action: mofn.ActionResume, Lifts: []string{stop}})
	}
	w.takeSilently()
	w.open()
	if got := strings.Join(w.actions()[4:], ", "); got != "order resume, order resume" {
		t.Errorf("at its start the log says %q", got)
	}
	w.step()
	w.published(r)
	w.restart()
	if got, want := strings.Join(w.actions()[4:], ", "), "order resume, order resume, given back"; got != want {
		t.Errorf("the log says %q, want %q", got, want)
	}

	report, err := audit.Verify(w.exported(), audit.VerifyOptions{Root: w.low.Root()})
	must(t, err)
	o := report.OverTime
	if len(o.Versions) != 2 || o.Versions[1].Effect.IsZero() || o.Orders[mofn.ActionStop] != 1 || o.Orders[mofn.ActionResume] != 2 || o.Withdrawn != 1 || o.GivenBack != 1 || len(o.Standing) != 0 {
		t.Errorf("%+v", o)
	}
}

// lowTick puts the bastion's trust object into effect, as time did here.
func (w *watched) lowTick() {
	w.Helper()
	_, err := w.low.Tick(w.clock.Now())
	must(w.T, err)
}

// takeSilently takes a bulletin into the state of a receiver that does not run, as one that was killed before it wrote the log.
func (w *watched) takeSilently() {
	w.Helper()
	first, data, err := trust.LoadData(w.cfg.Trust.Object, w.cfg.Trust.Fingerprint)
	must(w.T, err)
	dir, err := os.OpenRoot(w.path("trust"))
	must(w.T, err)
	s, err := site.Open(site.Options{Dir: dir, First: first, FirstData: data, Quarantine: time.Duration(w.cfg.Trust.Quarantine), Now: w.clock.Now()})
	must(w.T, err)
	taken, err := s.Take(w.bulletin(), w.clock.Now())
	must(w.T, err)
	if len(taken.Orders) != 2 {
		w.Fatalf("%+v", taken)
	}
	must(w.T, s.Close())
}

func (w *watched) exported() string {
	w.Helper()
	seed := sha512.Sum512([]byte("log"))
	secret, err := mofn.GenerateSecret(bytes.NewReader(seed[:]), mofn.SuiteH1, "log")
	must(w.T, err)
	key, err := audit.NewLogKey(secret)
	must(w.T, err)
	dir := filepath.Join(w.TempDir(), "export")
	_, err = audit.Export(w.Context(), audit.NewLog(w.r.Journal(), audit.High, "rx-1", key), audit.Files{First: w.cfg.Trust.Object, State: w.path("trust")}, dir)
	must(w.T, err)
	return dir
}

func payloadIn(t *testing.T, data []byte) []byte {
	t.Helper()
	d, err := envelope.ParseDSSE(data, len(data))
	must(t, err)
	return d.Payload
}

// TestConfirmIsTold: a quarantine that a person ended stands in the log, and says so.
func TestConfirmIsTold(t *testing.T) {
	w := newWatched(t, nil)
	_, err := w.low.AddTrust(w.successor(func(next *mofn.Trust) { next.Epochs = []mofn.Epoch{{Stream: "models/llm", MinEpoch: 2}} }, "s.ito", "a.roy"), w.clock.Now())
	must(t, err)
	w.send()
	fp := w.low.Newest().Fingerprint
	must(t, w.r.ConfirmTrust(hex.EncodeToString(fp[:])))
	w.step()
	if last := w.trail()[len(w.trail())-1]; !strings.Contains(last, "its quarantine was ended at this console") {
		t.Errorf("the log ends with %s", last)
	}
}
