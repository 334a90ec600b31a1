// SPDX-License-Identifier: Apache-2.0

package officer

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
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// Rehearsal is a whole site with throw-away keys in a directory: nothing of it counts anywhere, because its trust object is pinned nowhere.
type Rehearsal struct {
	Dir         string
	Box         dropbox.Box
	Trust       string // file of the trust object
	Fingerprint string
	Payload     string // of the release to decide about; Previous that of the one before
	Previous    string
	Request     string

	keys map[string]*mofn.SecretKey
}

// RehearsalPassphrase opens every key of a rehearsal.
const RehearsalPassphrase = "rehearsal"

// The people of a rehearsal: two of them release.
const (
	RehearsalYou    = "you"
	RehearsalFriend = "friend"
	rehearsalThird  = "third"
	rehearsalPacker = "packer"
	rehearsalGroup  = "security"
	rehearsalStream = "rehearsal/model"
)

// NewRehearsal makes keys, a trust object, two small releases, and a request for the second, in a directory that exists.
func NewRehearsal(ctx context.Context, dir string, now time.Time) (*Rehearsal, error) {
	r := &Rehearsal{
		Dir: dir, Box: dropbox.Box{Dir: filepath.Join(dir, "drop-box")}, Trust: filepath.Join(dir, "trust.json"),
		Payload: filepath.Join(dir, "staging"), Previous: filepath.Join(dir, "staging-before"), keys: map[string]*mofn.SecretKey{},
	}
	if err := r.makeTrust(now); err != nil {
		return nil, err
	}
	st, err := trust.Load(r.Trust, r.Fingerprint)
	if err != nil {
		return nil, err
	}
	before, err := r.release(ctx, r.Previous, nil, now, map[string]string{
		"README.md": "# A model to rehearse with\n\nVersion one.\n", "LICENSE": "Apache-2.0\n", "model.safetensors": strings.Repeat("weights\n", 4096),
	})
	if err != nil {
		return nil, err
	}
	env, err := r.release(ctx, r.Payload, before, now, map[string]string{
		"README.md": "# A model to rehearse with\n\nVersion two, with a tool.\n", "LICENSE": "Apache-2.0\n", "model.safetensors": strings.Repeat("weights\n", 4096),
		"tool.py": "print(\"executable code: would you approve this?\")\n",
	})
	if err != nil {
		return nil, err
	}
	r.Request = dropbox.RequestName(env)
	return r, r.put(st, env, before)
}

func (r *Rehearsal) put(st *trust.Store, env, before *envelope.Envelope) error {
	view, err := Bastion(st, env, before)
	if err != nil {
		return err
	}
	page := view.Page()
	html, err := page.HTML()
	if err != nil {
		return err
	}
	return r.Box.PutRequest(env, before, dropbox.Page{Text: []byte(page.Text()), HTML: html})
}

// KeyFile is the key file of one of the people.
func (r *Rehearsal) KeyFile(name string) string { return filepath.Join(r.Dir, name+".key") }

func (r *Rehearsal) makeTrust(now time.Time) error {
	object := &mofn.Trust{Version: 1, Root: rehearsalGroup, Created: envelope.FormatTime(now)}
	var policy strings.Builder
	for _, name := range []string{rehearsalPacker, RehearsalYou, RehearsalFriend, rehearsalThird} {
		key, err := r.makeKey(name)
		if err != nil {
			return err
		}
		object.Keys = append(object.Keys, mofn.TrustKey{ID: key.ID(), Suite: key.Suite, Public: key.Public, Comment: "rehearsal: " + name})
		if name == rehearsalPacker {
			fmt.Fprintf(&policy, "packer %s\n", key.ID())
			continue
		}
		fmt.Fprintf(&policy, "officer %s key %s\n", name, key.ID())
	}
	fmt.Fprintf(&policy, "group %s 2 %s %s %s\nrule stream rehearsal/* quorum %s hold 24h require checked=bytes:1\n", rehearsalGroup, RehearsalYou, RehearsalFriend, rehearsalThird, rehearsalGroup)
	object.Policy = policy.String()
	slices.SortFunc(object.Keys, func(a, b mofn.TrustKey) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	payload, err := object.Marshal()
	if err != nil {
		return err
	}
	d := envelope.DSSE{Payload: payload, PayloadType: trust.PayloadType, Signatures: []envelope.Signature{}}
	b, err := d.Marshal()
	if err != nil {
		return err
	}
	r.Fingerprint = fmt.Sprintf("%x", mofn.Fingerprint(payload))
	return os.WriteFile(r.Trust, b, 0o600)
}

func (r *Rehearsal) makeKey(name string) (*mofn.SecretKey, error) {
	key, err := mofn.GenerateSecret(rand.Reader, mofn.SuiteH1, "rehearsal: "+name)
	if err != nil {
		return nil, err
	}
	r.keys[name] = key
	file, err := key.Seal(rand.Reader, []byte(RehearsalPassphrase), mofn.DefaultScrypt())
	if err != nil {
		return nil, err
	}
	return key, os.WriteFile(r.KeyFile(name), file, 0o600)
}

func (r *Rehearsal) release(ctx context.Context, dir string, before *envelope.Envelope, now time.Time, files map[string]string) (*envelope.Envelope, error) {
	for _, name := range sortedKeys(files) {
		at := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o700), os.WriteFile(at, []byte(files[name]), 0o600)); err != nil {
			return nil, err
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	p := envelope.Predicate{
		Stream: rehearsalStream, Epoch: 1, Seq: 1, Kind: envelope.KindDataset, Name: "rehearsal-model", Version: "v1",
		Source: envelope.Source{Type: envelope.SourceDirectory, Repo: "rehearsal"}, Gate: envelope.Gate{Verdict: envelope.VerdictNotApplicable},
		Inspection: envelope.Inspection{Verdict: envelope.VerdictNotApplicable}, Created: envelope.FormatTime(now), Expires: envelope.FormatTime(now.Add(24 * time.Hour)),
		Audience: []string{"nobody"}, Classification: "REHEARSAL",
	}
	if before != nil {
		p.Seq, p.Prev, p.Version = 2, before.ID.String(), "v2"
	}
	st, index, err := envelope.Build(ctx, root.FS(), envelope.BuildOptions{Predicate: p})
	if err != nil {
		return nil, err
	}
	payload, err := st.Marshal()
	if err != nil {
		return nil, err
	}
	signer, err := r.keys[rehearsalPacker].SigningKey()
	if err != nil {
		return nil, err
	}
	d, err := trust.Sign(signer, mofn.RolePacker, envelope.PayloadTypeInToto, payload)
	if err != nil {
		return nil, err
	}
	release, err := d.Marshal()
	if err != nil {
		return nil, err
	}
	return envelope.New(release, index, nil)
}

// Friend approves as the second officer, without a person.
func (r *Rehearsal) Friend(ctx context.Context, anchor *Anchor, now time.Time) error {
	signer, err := r.keys[RehearsalFriend].SigningKey()
	if err != nil {
		return err
	}
	you, err := anchor.PersonOf(signer.KeyID(), r.KeyFile(RehearsalFriend))
	if err != nil {
		return err
	}
	req, err := r.Box.ReadRequest(r.Request)
	if err != nil {
		return err
	}
	view, err := Look(ctx, r.Box, anchor, req, LookOptions{You: you})
	if err != nil {
		return err
	}
	_, err = Decide(r.Box, anchor, Decision{
		View: view, Page: view.Page(), Decision: envelope.DecisionApprove, Typed: Words(view.Env), Tool: "rehearsal", Now: now, Signer: signer,
	})
	return err
}

// Judge verifies the release with the decisions of the drop-box, as a receiver would: nil when it would pass.
func (r *Rehearsal) Judge(anchor *Anchor, now time.Time) (officers []string, err error) {
	req, err := r.Box.ReadRequest(r.Request)
	if err != nil {
		return nil, err
	}
	found, problems, err := r.Box.Approvals(req.Envelope.ID)
	if err != nil {
		return nil, err
	}
	if len(problems) > 0 {
		return nil, errors.New(strings.Join(problems, "; "))
	}
	if err := req.Envelope.Merge(found); err != nil {
		return nil, err
	}
	a, err := anchor.Newest().Check(req.Envelope, trust.Rules{Receiver: "nobody", Now: now})
	return a.Officers(), err
}
