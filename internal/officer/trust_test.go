// SPDX-License-Identifier: Apache-2.0

package officer_test

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/internal/dropbox"
	"sluice/internal/officer"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// replaced is the newest version with another key for an officer, who is given in Keys as "new <name>".
func (r *room) replaced(name string) *mofn.Trust {
	r.t.Helper()
	key, err := mofn.GenerateKey(mofn.SuiteH1, nil)
	must(r.t, err)
	r.Keys["new "+name] = key
	return r.exchanged(name, key)
}

func (r *room) exchanged(name string, key *mofn.PrivateKey) *mofn.Trust {
	next := *r.anchor.Newest().Object
	old := r.Keys[name].KeyID()
	next.Keys = slices.DeleteFunc(slices.Clone(next.Keys), func(k mofn.TrustKey) bool { return k.ID == old })
	next.Keys = append(next.Keys, mofn.TrustKey{ID: key.KeyID(), Suite: key.Public().Suite(), Public: key.Public().Bytes(), Comment: name})
	slices.SortFunc(next.Keys, func(a, b mofn.TrustKey) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	next.Policy = strings.ReplaceAll(next.Policy, old.String(), key.KeyID().String())
	return &next
}

// sign signs the only proposal.
func (r *room) sign(key string) ([]string, error) {
	r.t.Helper()
	p, err := officer.FindProposal(r.box, r.anchor, "")
	must(r.t, err)
	_, missing, err := officer.SignProposal(r.box, p, r.Keys[key])
	return missing, err
}

// take puts the only proposal into the chain, as the bastion does.
func (r *room) take() {
	r.t.Helper()
	p, err := officer.FindProposal(r.box, r.anchor, "")
	must(r.t, err)
	joined, err := p.Join()
	must(r.t, err)
	chain, err := r.box.Chain()
	must(r.t, err)
	if len(chain) == 0 {
		chain = [][]byte{r.Object}
	}
	must(r.t, r.box.PutChain(append(chain, joined)))
	r.reopen()
}

func TestRotation(t *testing.T) {
	r := newRoom(t)
	p, err := officer.Propose(r.box, r.anchor, r.replaced("a.roy"))
	must(t, err)
	if text := strings.Join(officer.Compare(p.Current, p.Next), "\n"); !strings.Contains(text, "officer a.roy has OTHER KEYS: "+r.Keys["new a.roy"].KeyID().String()+", before "+r.Keys["a.roy"].KeyID().String()) {
		t.Errorf("the difference does not name the person and both keys:\n%s", text)
	}
	if got := p.Missing(); len(got) != 2 || !strings.Contains(got[0], "version 1 (version in effect): missing 2 more of security") || !strings.Contains(got[1], "version 2 (proposal itself)") {
		t.Errorf("missing %q", got)
	}
	missing, err := r.sign("new a.roy") // enrolled by the proposal alone
	must(t, err)
	if len(missing) != 2 || !strings.Contains(missing[0], "missing 2 more") || !strings.Contains(missing[1], "missing 1 more") {
		t.Errorf("after the new key: %q", missing)
	}
	missing, err = r.sign("s.ito")
	must(t, err)
	if len(missing) != 1 || !strings.Contains(missing[0], "version in effect") {
		t.Errorf("after s.ito: %q", missing)
	}
	if p, err = officer.FindProposal(r.box, r.anchor, p.Fingerprint[:8]); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Join(); !errors.Is(err, mofn.ErrThreshold) {
		t.Errorf("joined with one quorum: %v", err)
	}
	if missing, err = r.sign("m.lee"); err != nil || len(missing) > 0 {
		t.Errorf("after m.lee: %q, %v", missing, err)
	}
	if _, err := r.sign("m.lee"); !errors.Is(err, officer.ErrSigned) {
		t.Errorf("one key signed twice: %v", err)
	}
	if _, err := r.sign("q.tan"); !errors.Is(err, officer.ErrNoOfficer) {
		t.Errorf("an officer outside of the root group: %v", err)
	}
	r.take()
	if r.anchor.Newest().Object.Version != 2 || len(r.anchor.News) == 0 || r.anchor.Root() != r.fingerprint() {
		t.Errorf("version %d, news %q", r.anchor.Newest().Object.Version, r.anchor.News)
	}
	if _, err := r.anchor.PersonOf(r.Keys["a.roy"].KeyID(), "old"); !errors.Is(err, officer.ErrNoOfficer) {
		t.Errorf("the old key: %v", err)
	}
	env := r.release(files(map[string]string{"a": "a"}), nil, nil)
	r.put(env, nil)
	if text := r.view(env, officer.LookOptions{}).Page().Text(); !strings.Contains(text, "\n!!          the policy or its keys changed with version 2 of the trust object: officer a.roy has OTHER KEYS") {
		t.Errorf("the page does not say it:\n%s", text)
	}
	if all, _, err := officer.ReadProposals(r.box, r.anchor); err != nil || len(all) > 0 {
		t.Errorf("a decided proposal is offered: %d, %v", len(all), err)
	}
}

// TestChainRefused: a chain that does not continue the pinned object is not gone by.
func TestChainRefused(t *testing.T) {
	r, other := newRoom(t), newRoom(t)
	next := *r.Store.Object
	next.Version, next.Prev = 2, r.fingerprint()
	payload, err := next.Marshal()
	must(t, err)
	unsigned, err := (&envelope.DSSE{Payload: payload, PayloadType: trust.PayloadType, Signatures: []envelope.Signature{}}).Marshal()
	must(t, err)
	one, err := trust.Sign(r.Keys["a.roy"], mofn.RoleRoot, trust.PayloadType, payload)
	must(t, err)
	few, err := one.Marshal()
	must(t, err)
	for name, chain := range map[string][][]byte{
		"another site's": {other.Object}, "no quorum": {r.Object, unsigned}, "one officer": {r.Object, few}, "nonsense": {r.Object, []byte("{}")}, "the first again": {r.Object, r.Object},
	} {
		must(t, os.RemoveAll(filepath.Join(r.box.Dir, "trust")))
		must(t, r.box.PutChain(chain))
		if _, err := officer.OpenAnchor(r.box, r.file, r.fingerprint()); !errors.Is(err, officer.ErrChain) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := officer.OpenAnchor(r.box, r.file, strings.Repeat("0", 64)); !errors.Is(err, trust.ErrFingerprint) {
		t.Errorf("another fingerprint: %v", err)
	}
}

// TestHostileProposals: what lies among the proposals is what its names say, or a problem.
func TestHostileProposals(t *testing.T) {
	r := newRoom(t)
	p, err := officer.Propose(r.box, r.anchor, r.replaced("a.roy"))
	must(t, err)
	data, err := (&envelope.DSSE{Payload: p.Payload, PayloadType: trust.PayloadType, Signatures: []envelope.Signature{}}).Marshal()
	must(t, err)
	signed, err := trust.Sign(r.Keys["s.ito"], mofn.RoleRoot, trust.PayloadType, p.Payload)
	must(t, err)
	good, err := signed.Marshal()
	must(t, err)
	wrongRole, err := trust.Sign(r.Keys["s.ito"], "security", trust.PayloadType, p.Payload)
	must(t, err)
	role, err := wrongRole.Marshal()
	must(t, err)
	stranger, err := mofn.GenerateKey(mofn.SuiteH1, rand.Reader)
	must(t, err)
	byStranger, err := trust.Sign(stranger, mofn.RoleRoot, trust.PayloadType, p.Payload)
	must(t, err)
	strange, err := byStranger.Marshal()
	must(t, err)
	ito := r.Keys["s.ito"].KeyID().String()
	must(t, errors.Join(
		r.box.AddProposal(7, p.Fingerprint, data),                      // it claims another version
		r.box.AddProposal(2, strings.Repeat("0", 64), data),            // and another fingerprint
		r.box.AddProposal(2, strings.Repeat("1", 64), good),            // a proposal with a signature
		r.box.AddSignature(2, strings.Repeat("2", 64), "x", ito, good), // a signature of nothing
		r.box.AddSignature(2, p.Fingerprint, "a.roy", ito, good),       // under another's name
		r.box.AddSignature(2, p.Fingerprint, "s.ito", ito, role),       // made in another role
		r.box.AddSignature(2, p.Fingerprint, "s.ito", strings.Repeat("9", 64), strange),
	))
	all, problems, err := officer.ReadProposals(r.box, r.anchor)
	must(t, err)
	if len(all) != 1 || len(problems) != 4 || len(all[0].Problems) != 3 || len(all[0].Signatures) != 0 {
		t.Fatalf("%d proposals, problems %q", len(all), problems)
	}
	if got := all[0].Missing(); len(got) != 2 {
		t.Errorf("strange signatures count: %q", got)
	}
	for _, name := range []string{"m.lee", "a.roy", "new a.roy"} { // and hold nobody up
		if err := signAll(r, all[0], name); err != nil {
			t.Errorf("%s beside strange signatures: %v", name, err)
		}
	}
	if _, err := all[0].Join(); err != nil {
		t.Errorf("not joined: %v", err)
	}
	same := *r.Store.Object
	if _, err := officer.Propose(r.box, r.anchor, &same); !errors.Is(err, officer.ErrProposal) {
		t.Errorf("nothing differs: %v", err)
	}
}

func signAll(r *room, p *officer.Proposal, name string) error {
	_, _, err := officer.SignProposal(r.box, p, r.Keys[name])
	return err
}

func TestCompare(t *testing.T) {
	r := newRoom(t)
	from := r.Store.Object
	to := *from
	log, err := mofn.GenerateKey(mofn.SuiteH1, nil)
	must(t, err)
	beat, err := mofn.GenerateKey(mofn.SuiteH1, nil)
	must(t, err)
	to.Root = "quality"
	to.Policy = strings.ReplaceAll(strings.ReplaceAll(from.Policy, "group security 2", "group security 1"), "officer q.tan", "officer q.new")
	to.Policy = strings.ReplaceAll(to.Policy, "quality 1 q.tan", "quality 1 q.new")
	to.Logs = []mofn.LogKey{{Origin: "sluice/low/b", ID: log.KeyID(), Suite: mofn.SuiteH1, Public: log.Public().Bytes()}}
	to.Heartbeats = []mofn.TrustKey{{ID: beat.KeyID(), Suite: mofn.SuiteH1, Public: beat.Public().Bytes()}}
	to.Receivers, to.Links = []mofn.Receiver{}, []mofn.LinkKey{}
	to.Epochs = []mofn.Epoch{{Stream: "models/llm", MinEpoch: 1, MinSeq: 9}}
	text := strings.Join(officer.Compare(from, &to), "\n")
	for _, want := range []string{
		"NEW officer q.new with the key " + r.Keys["q.tan"].KeyID().String(), "officer q.tan is REMOVED", "+ heartbeat key H1 " + beat.KeyID().String(),
		"+ log key sluice/low/b " + log.KeyID().String(), "- link key ", "- receiver enclave-a hpke ", "the group that signs the next version: quality, before security",
		"+ policy: group security 1 s.ito a.roy m.lee", "- policy: group security 2 s.ito a.roy m.lee", "floor of models/llm: nothing below epoch 1 seq 9",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	back := strings.Join(officer.Compare(&to, from), "\n")
	if !strings.Contains(back, "floor of models/llm is REMOVED: old releases pass again") {
		t.Errorf("a floor that goes:\n%s", back)
	}
	low := to
	low.Epochs = []mofn.Epoch{{Stream: "models/llm", MinEpoch: 1, MinSeq: 8}}
	if got := officer.Compare(&to, &low); len(got) != 1 || !strings.Contains(got[0], "LOWERED") {
		t.Errorf("%q", got)
	}
	if got := officer.Compare(from, from); len(got) > 0 {
		t.Errorf("nothing differs: %q", got)
	}
}

func TestOrders(t *testing.T) {
	r := newRoom(t)
	stop := r.give("a.roy", order(mofn.ActionStop, mofn.KindStream, "models/*", "look"))
	release := hexOf(7)
	r.give("a.roy", order(mofn.ActionRevoke, mofn.KindRelease, release, "bad"))
	all, err := officer.ReadOrders(r.box, r.anchor)
	must(t, err)
	if _, err := all.FindOrders([]string{"1234567"}); !errors.Is(err, mofn.ErrOrder) {
		t.Errorf("too short an id: %v", err)
	}
	ids, err := all.FindOrders([]string{stop[:8]})
	must(t, err)
	r.give("s.ito", mofn.Order{Action: mofn.ActionResume, Lifts: ids, Reason: "all is well"})
	text := strings.Join(lines(t, r), "\n")
	for _, want := range []string{"STOPPED   stream models/*", "STOPPED   release " + release, "pending   lifting of the stop " + stop[:12], "pending   revocation of release " + release} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	r.give("m.lee", mofn.Order{Action: mofn.ActionResume, Lifts: ids, Reason: "yes"})
	r.give("s.ito", order(mofn.ActionRevoke, mofn.KindRelease, release, "bad"))
	must(t, errors.Join(
		os.WriteFile(filepath.Join(r.box.Dir, "orders", strings.Repeat("0", 64)+".json"), []byte("{}"), 0o600),
		os.WriteFile(filepath.Join(r.box.Dir, "orders", "x.json"), []byte("{}"), 0o600),
	))
	text = strings.Join(lines(t, r), "\n")
	for _, want := range []string{"lifted    stream models/*", "REVOKED   release " + release + "   by a.roy, s.ito", "ignored   "} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if strings.Contains(text, "STOPPED") {
		t.Errorf("something is stopped still:\n%s", text)
	}
	if _, _, err := officer.NewOrder(r.anchor, r.person("a.roy"), order(mofn.ActionRevoke, mofn.KindStream, "models/*", "x"), now()); !errors.Is(err, mofn.ErrOrder) {
		t.Errorf("revoke a stream: %v", err)
	}
	if _, _, err := officer.NewOrder(r.anchor, r.person("q.tan"), order(mofn.ActionStop, mofn.KindEverything, "", "x"), now()); !errors.Is(err, officer.ErrMayNot) {
		t.Errorf("a stop by somebody of no quorum: %v", err)
	}
}

func lines(t *testing.T, r *room) []string {
	t.Helper()
	all, err := officer.ReadOrders(r.box, r.anchor)
	must(t, err)
	return all.Lines()
}

// TestConsequences: an officer is told what happens, and who resumes, before anything is signed.
func TestConsequences(t *testing.T) {
	r := newRoom(t)
	for _, c := range []struct {
		o    mofn.Order
		want []string
	}{
		{order(mofn.ActionStop, mofn.KindEverything, "", "x"), []string{"NOTHING is accepted", "you alone can stop", "quorum of security must resume it: missing 2 more of security"}},
		{order(mofn.ActionStop, mofn.KindOfficer, "m.lee", "x"), []string{"what officer m.lee signed counts nothing"}},
		{order(mofn.ActionRevoke, mofn.KindRelease, hexOf(1), "x"), []string{"FOR GOOD", "missing 1 more of security", "until then it is a stop", "never lifted"}},
		{mofn.Order{Action: mofn.ActionResume, Lifts: []string{hexOf(2)}, Reason: "x"}, []string{"is lifted when the quorum says so", "missing 1 more of security"}},
	} {
		_, words, err := officer.NewOrder(r.anchor, r.person("a.roy"), c.o, now())
		must(t, err)
		for _, want := range c.want {
			if text := strings.Join(words, "\n"); !strings.Contains(text, want) {
				t.Errorf("%s %s: no %q in:\n%s", c.o.Action, c.o.Kind, want, text)
			}
		}
	}
}

// fileSigner has nothing to close.
type fileSigner struct{ *mofn.PrivateKey }

func (fileSigner) Close() error { return nil }

// checkup gives the findings by their ids.
func checkup(r officer.CheckupRequest) map[string]officer.Finding {
	out := map[string]officer.Finding{}
	for _, f := range officer.Checkup(r) {
		out[f.ID] = f
	}
	return out
}

func TestCheckup(t *testing.T) {
	r := newRoom(t)
	env := r.release(files(map[string]string{"a": "a"}), nil, nil)
	r.put(env, nil)
	secret, err := mofn.GenerateSecret(rand.Reader, mofn.SuiteH1, "a.roy")
	must(t, err)
	private, err := secret.Seal(rand.Reader, []byte("pass"), mofn.ScryptParams{N: 16, R: 8, P: 1})
	must(t, err)
	signer, err := secret.SigningKey()
	must(t, err)
	keyFile := filepath.Join(t.TempDir(), "a.roy")
	must(t, os.WriteFile(keyFile, private, 0o600))
	opens := func(pass string) func() (officer.Signer, error) {
		return func() (officer.Signer, error) {
			key, err := mofn.OpenSecret(private, []byte(pass))
			if err != nil {
				return nil, err
			}
			signer, err := key.SigningKey()
			return fileSigner{signer}, err
		}
	}
	req := officer.CheckupRequest{Box: r.box, Trust: r.file, Fingerprint: r.fingerprint(), Key: keyFile, Open: opens("pass"), Now: now()}
	if got := checkup(req); got["key"].Status != officer.Bad || got["requests"].Status != officer.Good || got["drop_box_write"].Status != officer.Good || got["clock"].Status != officer.Good {
		t.Errorf("a key that nobody enrolled: %+v", got)
	}
	_, err = officer.Propose(r.box, r.anchor, r.exchanged("a.roy", signer))
	must(t, err)
	for _, who := range []string{"s.ito", "m.lee"} {
		_, err := r.sign(who)
		must(t, err)
	}
	r.take()
	for id, f := range checkup(req) {
		if f.Status != officer.Good {
			t.Errorf("%s: %+v", id, f)
		}
	}
	bad := req
	bad.Open, bad.Now = opens("wrong"), now().AddDate(-1, 0, 0)
	must(t, os.WriteFile(filepath.Join(r.box.Dir, "requests", dropbox.RequestName(env), "envelope.sluice"), []byte("x"), 0o600))
	got := checkup(bad)
	for id, want := range map[string]officer.Status{"passphrase": officer.Bad, "clock": officer.Bad, "requests": officer.Doubt} {
		if got[id].Status != want || got[id].Fix == "" {
			t.Errorf("%s: %+v", id, got[id])
		}
	}
	away := req
	away.Box.Dir += "-away"
	away.Fingerprint = strings.Repeat("0", 64)
	got = checkup(away)
	if got["drop_box"].Status != officer.Bad || got["trust_object"].Status != officer.Bad || got["key"].Status != officer.Unknown || got["space"].Status != officer.Unknown {
		t.Errorf("nothing is there: %+v", got)
	}
	left, err := os.ReadDir(r.box.Dir)
	must(t, err)
	for _, e := range left {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("the checkup left %s behind", e.Name())
		}
	}
}

func TestRehearsal(t *testing.T) {
	dir := t.TempDir()
	r, err := officer.NewRehearsal(t.Context(), dir, now())
	must(t, err)
	anchor, err := officer.OpenAnchor(r.Box, r.Trust, r.Fingerprint)
	must(t, err)
	if _, err := r.Judge(anchor, now()); !errors.Is(err, mofn.ErrThreshold) {
		t.Errorf("nobody approved: %v", err)
	}
	must(t, r.Friend(t.Context(), anchor, now()))
	if _, err := r.Judge(anchor, now()); !errors.Is(err, mofn.ErrThreshold) {
		t.Errorf("one is too few: %v", err)
	}
	if _, err := officer.KeyIDOf(r.KeyFile(officer.RehearsalYou)); err != nil {
		t.Error(err)
	}
}

func TestConfig(t *testing.T) {
	path := filepath.Join(t.TempDir(), "officer.yaml")
	if c, err := officer.LoadConfig(path); err != nil || c != (officer.Config{}) {
		t.Errorf("none: %+v, %v", c, err)
	}
	want := officer.Config{DropBox: "/media/stick 1/\"box\"", Trust: "/t.json", Fingerprint: hexOf(3), Key: "/k", Cache: "/c", Pages: "/p"}
	b, err := want.Marshal()
	must(t, err)
	must(t, os.WriteFile(path, b, 0o600))
	if got, err := officer.LoadConfig(path); err != nil || got != want {
		t.Errorf("%+v, %v\n%s", got, err, b)
	}
	for _, bad := range []string{"drop_bx: /x\n", "trust: relative\n", fmt.Sprintf("fingerprint: %q\n", "12")} {
		must(t, os.WriteFile(path, []byte(bad), 0o600))
		if _, err := officer.LoadConfig(path); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
