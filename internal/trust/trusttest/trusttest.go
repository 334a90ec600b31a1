// SPDX-License-Identifier: Apache-2.0

// Package trusttest makes a site's keys, policy and trust object in memory, and releases that its packer and its officers
// signed, for the tests of whoever judges releases.
//
//	New --> Site --Seal--> envelope without approvals --Approve--> envelope with them
package trusttest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// Receiver is the receiver that the trust object knows.
const Receiver = "enclave-a"

// Sealed is when releases are created; they expire a year later.
func Sealed() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

// Site holds the secrets of both sides.
type Site struct {
	Store  *trust.Store
	Object []byte // the trust object's DSSE envelope
	Packer *mofn.PrivateKey
	Keys   map[string]*mofn.PrivateKey // officers by name: s.ito, a.roy and m.lee of security, q.tan of quality
	HPKE   *mofn.SecretKey             // the receiver's
	Link   *mofn.SecretKey
	Ticket *mofn.SecretKey // the receiver's
}

// New makes a site. Two of security release anything; models/held/* waits a day; models/small is at most 1 KiB.
func New(epochs ...mofn.Epoch) (*Site, error) {
	s := &Site{Keys: map[string]*mofn.PrivateKey{}}
	var policy strings.Builder
	var keys []mofn.TrustKey
	for _, name := range []string{"packer", "s.ito", "a.roy", "m.lee", "q.tan"} {
		suite := mofn.SuiteH1
		if name == "s.ito" { // somebody whose token knows P-384 only
			suite = mofn.SuiteH2
		}
		key, err := mofn.GenerateKey(suite, nil)
		if err != nil {
			return nil, err
		}
		pub := key.Public()
		keys = append(keys, mofn.TrustKey{ID: pub.ID(), Suite: pub.Suite(), Public: pub.Bytes(), Comment: name})
		if name == "packer" {
			s.Packer = key
			fmt.Fprintf(&policy, "packer %s\n", pub.ID())
			continue
		}
		s.Keys[name] = key
		fmt.Fprintf(&policy, "officer %s key %s\n", name, pub.ID())
	}
	policy.WriteString("group security 2 s.ito a.roy m.lee\ngroup quality 1 q.tan\n" +
		"rule stream models/* quorum security\nrule stream models/held/* quorum security hold 24h\nrule stream models/small quorum security max-size 1KiB\n")
	return s, s.finish(policy.String(), keys, epochs)
}

func (s *Site) finish(policy string, keys []mofn.TrustKey, epochs []mofn.Epoch) (err error) {
	if s.HPKE, err = mofn.GenerateSecret(nil, mofn.SuiteXWing, Receiver); err != nil {
		return err
	}
	if s.Link, err = mofn.GenerateSecret(nil, mofn.SuiteLink, "link"); err != nil {
		return err
	}
	if s.Ticket, err = mofn.GenerateSecret(nil, mofn.SuiteTicket, Receiver); err != nil {
		return err
	}
	sortKeys(keys)
	t := &mofn.Trust{
		Version: 1, Root: "security", Policy: policy, Keys: keys, Epochs: epochs, Created: envelope.FormatTime(Sealed()),
		Links:     []mofn.LinkKey{{ID: s.Link.ID(), Public: s.Link.Public, Comment: "link"}},
		Receivers: []mofn.Receiver{{Name: Receiver, HPKE: s.HPKE.Public, Ticket: s.Ticket.Public, Comment: "high side"}},
	}
	payload, err := t.Marshal()
	if err != nil {
		return err
	}
	d := envelope.DSSE{Payload: payload, PayloadType: trust.PayloadType, Signatures: []envelope.Signature{}}
	if s.Object, err = d.Marshal(); err != nil {
		return err
	}
	s.Store, err = trust.Parse(s.Object)
	return err
}

func sortKeys(keys []mofn.TrustKey) {
	for i := range keys {
		for j := i; j > 0 && keys[j].ID.String() < keys[j-1].ID.String(); j-- {
			keys[j], keys[j-1] = keys[j-1], keys[j]
		}
	}
}

// Predicate is a complete one for a release of a stream.
func Predicate(stream string, epoch, seq int64) envelope.Predicate {
	return envelope.Predicate{
		Stream: stream, Epoch: epoch, Seq: seq, Kind: envelope.KindDataset, Name: "demo", Version: fmt.Sprintf("v%d.%d", epoch, seq),
		Source: envelope.Source{Type: envelope.SourceDirectory, Repo: "lab"}, Gate: envelope.Gate{Verdict: envelope.VerdictNotApplicable},
		Inspection: envelope.Inspection{Verdict: envelope.VerdictPass}, Created: envelope.FormatTime(Sealed()),
		Expires: envelope.FormatTime(Sealed().AddDate(1, 0, 0)), Audience: []string{Receiver}, Classification: "UNCLASSIFIED",
	}
}

// Seal makes the envelope of a release of the files, signed by the given key as the packer; nil is the site's.
func (s *Site) Seal(ctx context.Context, files fs.FS, p envelope.Predicate, packer *mofn.PrivateKey) (*envelope.Envelope, error) {
	if packer == nil {
		packer = s.Packer
	}
	evidence := []envelope.Named{{Name: "inspection.json", Data: []byte("{}\n")}}
	st, index, err := envelope.Build(ctx, files, envelope.BuildOptions{Predicate: p, Evidence: evidence})
	if err != nil {
		return nil, err
	}
	payload, err := st.Marshal()
	if err != nil {
		return nil, err
	}
	release, err := sign(packer, mofn.RolePacker, payload)
	if err != nil {
		return nil, err
	}
	return envelope.New(release, index, evidence)
}

// Approve adds the decisions of officers.
func (s *Site) Approve(env *envelope.Envelope, decision string, officers ...string) error {
	for _, name := range officers {
		a := Decision(env, name, decision)
		vote, err := s.Vote(&a, s.Keys[name], "")
		if err != nil {
			return err
		}
		if err := env.Merge([]envelope.Named{vote}); err != nil {
			return err
		}
	}
	return nil
}

// Decision is what an officer says of a release.
func Decision(env *envelope.Envelope, officer, decision string) envelope.Approval {
	p, role := env.Statement.Predicate, "security"
	if strings.HasPrefix(officer, "q.") {
		role = "quality"
	}
	return envelope.Approval{
		ReleaseID: env.ID, Stream: p.Stream, Epoch: p.Epoch, Seq: p.Seq, Role: role, Officer: officer, Decision: decision,
		Checked: []string{envelope.CheckedManifest}, Tool: "trusttest", At: envelope.FormatTime(Sealed()),
	}
}

// Vote signs a decision with any key, in the role that it names, and files it under a name; "" is the right one.
func (s *Site) Vote(a *envelope.Approval, key *mofn.PrivateKey, name string) (envelope.Named, error) {
	payload, err := a.Marshal()
	if err != nil {
		return envelope.Named{}, err
	}
	if name == "" {
		name = a.SectionName()
	}
	data, err := sign(key, a.Role, payload)
	return envelope.Named{Name: name, Data: data}, err
}

func sign(key *mofn.PrivateKey, role string, payload []byte) ([]byte, error) {
	sig, err := key.Sign(role, envelope.PAE(envelope.PayloadTypeInToto, payload))
	d := envelope.DSSE{
		Payload: payload, PayloadType: envelope.PayloadTypeInToto,
		Signatures: []envelope.Signature{{KeyID: key.Public().ID().String(), Sig: sig}},
	}
	b, merr := d.Marshal()
	return b, errors.Join(err, merr)
}
