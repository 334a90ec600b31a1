// SPDX-License-Identifier: Apache-2.0

// Package clitest makes what tests of the two commands need before they can begin: keys, a policy, a trust object, and sealed releases.
//
//	New(dir) --> packer, link, rx-1, ticket, five officers (each with .pub), passphrase, policy, trust.json
//	Site.Seal(ctx, dir, ...) --> dir/envelope.sluice      over dir/payload, approved by whom the test names
//
// The keys are real; only the scrypt of their files is cheap, so that a test does not pay 64 MiB and a quarter of a second a key.
package clitest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sluice/internal/dropbox"
	"sluice/internal/officer"
	"sluice/internal/packer"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// Receiver is the receiver id of a site.
const Receiver = "rx-1"

// Passphrase opens every key of a site.
const Passphrase = "correct horse battery staple"

// Site is a directory with keys and trust.
type Site struct {
	Dir         string
	Fingerprint string // of trust.json, 64 hex digits
}

// Officers are the people of the policy: security needs two of a.roy, m.lee and s.ito, quality one of q.ali and q.tan.
func Officers() []string { return []string{"a.roy", "m.lee", "s.ito", "q.ali", "q.tan"} }

// Enough are officers that meet the quorum of models/*; the first two meet that of data/*.
func Enough() []string { return []string{"a.roy", "m.lee", "q.ali"} }

// Path is a file of the site.
func (s *Site) Path(name string) string { return filepath.Join(s.Dir, name) }

// New makes a site in a directory that exists.
func New(dir string) (*Site, error) { return makeSite(dir, false) }

// NewWatched is New in a directory of its own, with a heartbeat key and the log key of a bastion in the trust object: heartbeat and log.
func NewWatched(dir string) (*Site, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	return makeSite(dir, true)
}

func makeSite(dir string, online bool) (*Site, error) {
	s := &Site{Dir: dir}
	if err := os.WriteFile(s.Path("passphrase"), []byte(Passphrase+"\n"), 0o600); err != nil {
		return nil, err
	}
	object := &mofn.Trust{Version: 1, Root: "release", Created: "2026-01-02T03:04:05Z", Keys: []mofn.TrustKey{}, Links: []mofn.LinkKey{}, Receivers: []mofn.Receiver{}, Epochs: []mofn.Epoch{}}
	ids := map[string]mofn.KeyID{}
	for _, name := range append([]string{"packer"}, Officers()...) {
		suite := mofn.SuiteH1
		if name == "m.lee" { // somebody whose token knows P-384 only
			suite = mofn.SuiteH2
		}
		k, err := s.key(name, suite)
		if err != nil {
			return nil, err
		}
		ids[name] = k.ID()
		object.Keys = append(object.Keys, mofn.TrustKey{ID: k.ID(), Suite: k.Suite, Public: k.Public, Comment: name})
	}
	slices.SortFunc(object.Keys, func(a, b mofn.TrustKey) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	link, err := s.key("link", mofn.SuiteLink)
	if err != nil {
		return nil, err
	}
	hpke, err := s.key(Receiver, mofn.SuiteXWing)
	if err != nil {
		return nil, err
	}
	asks, err := s.key("ticket", mofn.SuiteTicket)
	if err != nil {
		return nil, err
	}
	object.Links = append(object.Links, mofn.LinkKey{ID: link.ID(), Public: link.Public, Comment: "link"})
	object.Receivers = append(object.Receivers, mofn.Receiver{Name: Receiver, HPKE: hpke.Public, Ticket: asks.Public, Comment: Receiver})
	if online {
		if err := s.addOnline(object); err != nil {
			return nil, err
		}
	}
	object.Policy = policy(ids)
	return s, s.writeTrust(object)
}

// addOnline adds the keys that no person holds.
func (s *Site) addOnline(object *mofn.Trust) error {
	heartbeat, err := s.key("heartbeat", mofn.SuiteH1)
	if err != nil {
		return err
	}
	log, err := s.key("log", mofn.SuiteH1)
	if err != nil {
		return err
	}
	object.Heartbeats = []mofn.TrustKey{{ID: heartbeat.ID(), Suite: heartbeat.Suite, Public: heartbeat.Public, Comment: "heartbeat"}}
	object.Logs = []mofn.LogKey{{Origin: "sluice/low/bastion", ID: log.ID(), Suite: log.Suite, Public: log.Public, Comment: "log"}}
	return nil
}

// key makes one key pair, cheaply sealed.
func (s *Site) key(name string, suite mofn.Suite) (*mofn.SecretKey, error) {
	k, err := mofn.GenerateSecret(rand.Reader, suite, name)
	if err != nil {
		return nil, err
	}
	private, err := k.Seal(rand.Reader, []byte(Passphrase), mofn.ScryptParams{N: 16, R: 8, P: 1})
	if err != nil {
		return nil, err
	}
	public, err := k.MarshalPublic()
	if err != nil {
		return nil, err
	}
	return k, errors.Join(os.WriteFile(s.Path(name), private, 0o600), os.WriteFile(s.Path(name+".pub"), public, 0o644))
}

func policy(ids map[string]mofn.KeyID) string {
	var b strings.Builder
	for _, o := range Officers() {
		fmt.Fprintf(&b, "officer %s key %s\n", o, ids[o])
	}
	b.WriteString("group security 2 a.roy m.lee s.ito\ngroup quality 1 q.ali q.tan\ngroup release all security quality\n")
	fmt.Fprintf(&b, "packer %s\n", ids["packer"])
	b.WriteString("rule stream models/* quorum release hold 0s max-size 1GiB\nrule stream data/* quorum security hold 0s max-size 1GiB\nrule stream held/* quorum security hold 1h max-size 1GiB\n")
	return b.String()
}

func (s *Site) writeTrust(object *mofn.Trust) error {
	payload, err := object.Marshal()
	if err != nil {
		return err
	}
	d := envelope.DSSE{Payload: payload, PayloadType: trust.PayloadType, Signatures: []envelope.Signature{}}
	b, err := d.Marshal()
	if err != nil {
		return err
	}
	s.Fingerprint = fmt.Sprintf("%x", mofn.Fingerprint(payload))
	return errors.Join(os.WriteFile(s.Path("trust.json"), b, 0o644), os.WriteFile(s.Path("policy"), []byte(object.Policy), 0o644))
}

// Trust loads the trust object.
func (s *Site) Trust() (*trust.Store, error) { return trust.Load(s.Path("trust.json"), s.Fingerprint) }

// Signer opens the signing key of the packer or of an officer.
func (s *Site) Signer(name string) (mofn.Signer, error) {
	k, err := trust.OpenKey(s.Path(name), []byte(Passphrase))
	if err != nil {
		return nil, err
	}
	key, err := k.SigningKey()
	if err != nil {
		return nil, err
	}
	return key, nil
}

// Seal makes dir, which holds payload/, a sealed release of kind dataset with the number seq, approved by officers through a drop-box
// of its own. Everything in it is the packer's own work.
func (s *Site) Seal(ctx context.Context, dir, stream string, seq int64, officers ...string) (*envelope.Envelope, error) {
	signer, err := s.Signer("packer")
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC()
	env, err := packer.Seal(ctx, packer.SealRequest{Dir: dir, Signer: signer, Predicate: envelope.Predicate{
		Stream: stream, Epoch: 1, Seq: seq, Kind: envelope.KindDataset, Name: "lab-data", Version: fmt.Sprintf("v%d", seq),
		Source: envelope.Source{Type: envelope.SourceDirectory, Repo: "lab"}, Gate: envelope.Gate{Verdict: envelope.VerdictNotApplicable},
		Inspection: envelope.Inspection{Verdict: envelope.VerdictNotApplicable}, Created: now.Format(time.RFC3339),
		Expires: now.Add(time.Hour).Format(time.RFC3339), Audience: []string{Receiver}, Classification: "UNCLASSIFIED",
	}})
	if err != nil {
		return nil, err
	}
	st, err := s.Trust()
	if err != nil {
		return nil, err
	}
	box := dropbox.Box{Dir: filepath.Join(dir, "drop-box")}
	if err := packer.Request(box, st, env, nil); err != nil {
		return nil, err
	}
	if err := s.Decide(ctx, box, env, envelope.DecisionApprove, officers...); err != nil {
		return nil, err
	}
	if err := Merge(dir, box.Dir); err != nil {
		return nil, err
	}
	env, err = packer.ReadEnvelope(dir)
	return env, errors.Join(err, os.RemoveAll(box.Dir))
}

// Merge puts the approvals of a drop-box into dir/envelope.sluice.
func Merge(dir, box string) error {
	env, err := packer.ReadEnvelope(dir)
	if err != nil {
		return err
	}
	found, problems, err := dropbox.Box{Dir: box}.Approvals(env.ID)
	if err != nil || len(problems) > 0 {
		return fmt.Errorf("drop-box: %v: %w", problems, err)
	}
	if err := env.Merge(found); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "envelope.sluice"))
	if err != nil {
		return err
	}
	_, err = env.WriteTo(f)
	return errors.Join(err, f.Close())
}

// Decide lets officers approve or reject a request in a drop-box, without looking at the bytes.
func (s *Site) Decide(ctx context.Context, box dropbox.Box, env *envelope.Envelope, decision string, officers ...string) error {
	anchor, err := officer.OpenAnchor(box, s.Path("trust.json"), s.Fingerprint)
	if err != nil {
		return err
	}
	for _, o := range officers {
		if err := s.decide(ctx, box, anchor, env, decision, o); err != nil {
			return fmt.Errorf("%s: %w", o, err)
		}
	}
	return nil
}

func (s *Site) decide(ctx context.Context, box dropbox.Box, anchor *officer.Anchor, env *envelope.Envelope, decision, name string) error {
	signer, err := s.Signer(name)
	if err != nil {
		return err
	}
	you, err := anchor.PersonOf(signer.KeyID(), name)
	if err != nil {
		return err
	}
	req, err := box.ReadRequest(env.ID.String())
	if err != nil {
		return err
	}
	view, err := officer.Look(ctx, box, anchor, req, officer.LookOptions{You: you})
	if err != nil {
		return err
	}
	_, err = officer.Decide(box, anchor, officer.Decision{
		View: view, Page: view.Page(), Decision: decision, Typed: officer.Confirmation(env, decision), Tool: "clitest", Now: time.Now(), Signer: signer,
	})
	return err
}
