// SPDX-License-Identifier: Apache-2.0

//go:build pkcs11 && cgo

package packer_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/internal/packer"
	"sluice/internal/token"
	"sluice/internal/token/tokentest"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// inToken gives the site a packer's key in a token, and a trust object that knows it.
func (l *low) inToken(h *tokentest.HSM) {
	l.t.Helper()
	h.Token(l.t, "packer-1")
	u := token.URI{Token: "packer-1", ModulePath: h.Module, PINSource: h.PIN}
	var key *mofn.TokenKey
	err := token.Generate(token.Request{URI: u, Suite: mofn.SuiteH1, Keep: func(k *mofn.TokenKey) error {
		key = k
		b, err := k.Marshal()
		if err != nil {
			return err
		}
		return os.WriteFile(h.Path("packer"), b, 0o600)
	}})
	if err != nil {
		l.t.Fatal(err)
	}
	st, err := l.site.Trust()
	if err != nil {
		l.t.Fatal(err)
	}
	object := *st.Object
	object.Keys = append(slices.Clone(object.Keys), mofn.TrustKey{ID: key.ID(), Suite: key.Suite, Public: key.Public})
	slices.SortFunc(object.Keys, func(a, b mofn.TrustKey) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	object.Policy += fmt.Sprintf("packer %s\n", key.ID())
	payload, err := object.Marshal()
	if err != nil {
		l.t.Fatal(err)
	}
	d := envelope.DSSE{Payload: payload, PayloadType: trust.PayloadType, Signatures: []envelope.Signature{}}
	b, err := d.Marshal()
	if err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(l.site.Path("trust.json"), b, 0o644); err != nil {
		l.t.Fatal(err)
	}
	l.site.Fingerprint = fmt.Sprintf("%x", mofn.Fingerprint(payload))
	l.cfg.Trust.Fingerprint, l.cfg.Keys.Packer = l.site.Fingerprint, h.Path("packer")
}

// TestPackerKeyInToken: a daemon seals with its key in a token. When the token is taken out, the next seal fails, says so, and is tried again;
// when it is back, it goes on.
func TestPackerKeyInToken(t *testing.T) {
	h := tokentest.New(t)
	l := newLow(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l.inToken(h)
	if err := packer.Check(l.cfg); err != nil { // as run does before it opens: two sessions, one after the other
		t.Fatal(err)
	}
	l.open()
	job := l.run()[0]
	if job.State != "SEALED" {
		t.Fatalf("state %s: %s", job.State, job.LastError)
	}
	env, err := packer.ReadEnvelope(l.WorkDir(job))
	if err != nil {
		t.Fatal(err)
	}
	st, err := l.site.Trust()
	if err != nil {
		t.Fatal(err)
	}
	if err := st.CheckPacker(env); err != nil {
		t.Error(err)
	}

	if err := os.Rename(h.Path("tokens"), h.Path("pocket")); err != nil {
		t.Fatal(err)
	}
	l.commit("two")
	second := func() (state, said string) {
		for _, j := range l.run() {
			if j.ID != job.ID {
				return j.State, j.LastError
			}
		}
		t.Fatal("no second job")
		return "", ""
	}
	for range 2 {
		state, said := second()
		if state != "GATED" || !strings.Contains(said, "token") {
			t.Fatalf("state %s: %s", state, said)
		}
		t.Log(said)
		l.now = l.now.Add(time.Hour)
	}
	if err := os.Rename(h.Path("pocket"), h.Path("tokens")); err != nil {
		t.Fatal(err)
	}
	if state, said := second(); state != "SEALED" {
		t.Errorf("state %s: %s", state, said)
	}
}
