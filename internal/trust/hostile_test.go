// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"sluice/internal/trust"
	"sluice/internal/trust/trusttest"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// parts are the sections of an envelope, each as its owner could have made it: nothing here is checked.
type parts struct {
	release, index      []byte
	evidence, approvals []envelope.Named
}

// stream writes the sections one after another, with the digest at the end: only the reader stands between it and Check.
func (p parts) stream(t testing.TB) []byte {
	t.Helper()
	var out bytes.Buffer
	w := envelope.NewWriter(&out)
	section := func(typ envelope.SectionType, name string, data []byte) {
		must(t, w.Section(typ, name, int64(len(data))))
		_, err := w.Write(data)
		must(t, err)
	}
	section(envelope.SectionRelease, "", p.release)
	section(envelope.SectionIndex, "", p.index)
	for _, n := range p.evidence {
		section(envelope.SectionEvidence, n.Name, n.Data)
	}
	for _, n := range p.approvals {
		section(envelope.SectionApproval, n.Name, n.Data)
	}
	must(t, w.Close())
	return out.Bytes()
}

func partsOf(env *envelope.Envelope) parts {
	return parts{env.Release, env.Index, env.Evidence, slices.Clone(env.Approvals)}
}

// signed is a DSSE envelope over any payload, by any key in any role.
func signed(t testing.TB, key *mofn.PrivateKey, role string, payload []byte) []byte {
	t.Helper()
	sig, err := key.Sign(role, envelope.PAE(envelope.PayloadTypeInToto, payload))
	must(t, err)
	d := envelope.DSSE{
		Payload: payload, PayloadType: envelope.PayloadTypeInToto,
		Signatures: []envelope.Signature{{KeyID: key.Public().ID().String(), Sig: sig}},
	}
	b, err := d.Marshal()
	must(t, err)
	return b
}

// plain encodes without a rule, in the canonical form.
func plain(t testing.TB, v any) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	must(t, enc.Encode(v))
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// forged is what a bastion and a quorum of officers who conspire can make: a statement with one change, all computed fields and
// all signatures right. edit works on the bytes and may be nil.
func forged(t testing.TB, s *trusttest.Site, change func(*envelope.Statement), edit func([]byte) []byte, officers ...string) parts {
	t.Helper()
	env, err := s.Seal(t.Context(), files(), trusttest.Predicate("models/llm", 1, 5), nil)
	must(t, err)
	st := *env.Statement
	st.Subjects = slices.Clone(st.Subjects)
	if change != nil {
		change(&st)
	}
	st.Predicate.DirectoryDigest = envelope.DirectoryDigest(st.Subjects)
	payload := plain(t, &st)
	if edit != nil {
		edited := edit(bytes.Clone(payload))
		if bytes.Equal(edited, payload) {
			t.Fatal("the edit changes nothing")
		}
		payload = edited
	}
	p := parts{signed(t, s.Packer, mofn.RolePacker, payload), env.Index, env.Evidence, nil}
	env.ID, env.Statement = envelope.ID(payload), &st
	for _, name := range officers {
		a := trusttest.Decision(env, name, envelope.DecisionApprove)
		v, err := s.Vote(&a, s.Keys[name], "")
		must(t, err)
		p.approvals = append(p.approvals, v)
	}
	return p
}

// rules are those of a receiver whose streams stand at epoch 1 seq 4.
func rules() trust.Rules {
	return trust.Rules{Receiver: trusttest.Receiver, Now: trusttest.Sealed(), Mark: marked(1, 4)}
}

// door is the way of every envelope: the strict reader, then the verdict.
func door(s *trusttest.Site, stream []byte, r trust.Rules) (mofn.Approval, error) {
	env, err := envelope.Read(bytes.NewReader(stream))
	if err != nil {
		return mofn.Approval{}, err
	}
	return s.Store.Check(env, r)
}

// refused wants the reason, words in the message, and no usable approval.
func refused(t *testing.T, s *trusttest.Site, name string, stream []byte, r trust.Rules, want error, words string) {
	t.Helper()
	a, err := door(s, stream, r)
	if !errors.Is(err, want) || a.Valid() || !strings.Contains(fmt.Sprint(err), words) {
		t.Errorf("%s: error %v, approval valid: %t; want %v with %q", name, err, a.Valid(), want, words)
	}
}

func accepted(t *testing.T, s *trusttest.Site, name string, stream []byte, r trust.Rules) {
	t.Helper()
	if a, err := door(s, stream, r); err != nil || !a.Valid() {
		t.Errorf("%s: error %v, approval valid: %t", name, err, a.Valid())
	}
}

// siteOf is a site with a policy of the test's own: @name stands for the key id of name, and the keys are made on the way.
func siteOf(t testing.TB, policy string, epochs ...mofn.Epoch) *trusttest.Site {
	t.Helper()
	s := &trusttest.Site{Keys: map[string]*mofn.PrivateKey{}}
	var keys []mofn.TrustKey
	text := regexp.MustCompile(`@[a-z0-9.]+`).ReplaceAllStringFunc(policy, func(at string) string {
		key, err := mofn.GenerateKey(mofn.SuiteH1, nil)
		must(t, err)
		s.Keys[at[1:]] = key
		keys = append(keys, mofn.TrustKey{ID: key.Public().ID(), Suite: mofn.SuiteH1, Public: key.Public().Bytes(), Comment: at[1:]})
		return key.Public().ID().String()
	})
	s.Packer = s.Keys["packer"]
	slices.SortFunc(keys, func(a, b mofn.TrustKey) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	object := &mofn.Trust{Version: 1, Root: "security", Policy: text, Keys: keys, Epochs: epochs, Created: envelope.FormatTime(trusttest.Sealed())}
	payload, err := object.Marshal()
	must(t, err)
	d := envelope.DSSE{Payload: payload, PayloadType: trust.PayloadType, Signatures: []envelope.Signature{}}
	s.Object, err = d.Marshal()
	must(t, err)
	s.Store, err = trust.Parse(s.Object)
	must(t, err)
	return s
}

func map1(name string, data []byte) fstest.MapFS { return fstest.MapFS{name: {Data: data}} }

// ended adds the end section with its digest to bytes that no Writer would write.
func ended(b []byte) []byte {
	b = append(b, header(0, "", sha256.Size)...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

func sum(b []byte) envelope.Digest { return sha256.Sum256(b) }
