// SPDX-License-Identifier: Apache-2.0

package receiver_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"sluice/internal/oms"
	"sluice/internal/receiver"
	"sluice/internal/trust/trusttest"
	"sluice/pkg/envelope"
	"sluice/pkg/registry"
)

// signing gives the site a new key for models; it is read anew at each release.
func (b *bench) signing() *oms.PublicKey {
	b.Helper()
	private, public, err := oms.GenerateKey()
	must(b.T, err)
	b.cfg.Keys.ModelSigning = filepath.Join(b.TempDir(), "model")
	must(b.T, os.WriteFile(b.cfg.Keys.ModelSigning, private, 0o600))
	key, err := oms.ParsePublicKey(public)
	must(b.T, err)
	return key
}

// weights makes a release of a model, with a file that tools of git leave out.
func (b *bench) weights(stream string, seq int64) release {
	b.Helper()
	p := trusttest.Predicate(stream, 1, seq)
	p.Kind, p.Gate = envelope.KindModelWeights, envelope.Gate{Verdict: envelope.VerdictPass}
	r := release{files: fstest.MapFS{
		".gitattributes":        {Data: []byte("*.safetensors filter=lfs\n")},
		"config.json":           {Data: []byte(`{"architectures":["X"],"model_type":"x"}`)},
		"vocab.txt":             {Data: []byte("a\nb\n")},
		"tokenizer_config.json": {Data: []byte("{}")},
		"model.safetensors":     {Data: tensors(400_000, uint64(seq))},
	}}
	env, err := b.site.Seal(b.Context(), r.files, p, nil)
	must(b.T, err)
	must(b.T, b.site.Approve(env, envelope.DecisionApprove, "s.ito", "a.roy"))
	r.env = env
	for _, s := range env.Statement.Subjects {
		r.payload = append(r.payload, r.files[s.Name].Data...)
	}
	return r
}

// signature reads what is published, nil when there is none, and holds the receipt against it.
func (b *bench) signature(r release) []byte {
	b.Helper()
	dir := filepath.Join(b.cfg.Registry.Directory.Path, "provenance", r.env.Statement.Predicate.Name, "sha256-"+r.id())
	sig, err := os.ReadFile(filepath.Join(dir, "model.sig"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.Fatal(err)
	}
	var receipt registry.Receipt
	text, rerr := os.ReadFile(filepath.Join(dir, "receipt.json"))
	must(b.T, rerr)
	must(b.T, json.Unmarshal(text, &receipt))
	listed := false
	for _, f := range receipt.Provenance {
		listed = listed || f.Path == "model.sig" && f.Size == int64(len(sig))
	}
	if listed != (err == nil) {
		b.Errorf("model.sig: there is one: %v, the receipt lists it: %v", err == nil, listed)
	}
	return sig
}

// covers holds a signature against the release.
func (b *bench) covers(r release, key *oms.PublicKey) {
	b.Helper()
	sig, err := oms.Parse(b.signature(r))
	must(b.T, err)
	must(b.T, sig.Verify(key))
	for _, s := range r.env.Statement.Subjects {
		if !bytes.Contains(sig.Statement, []byte(`{"name":"`+s.Name+`","digest":"`+s.Digest.SHA256.String()+`"`)) {
			b.Errorf("%s is not signed: %s", s.Name, sig.Statement)
		}
	}
	if n := bytes.Count(sig.Statement, []byte(`"algorithm"`)); n != len(r.env.Statement.Subjects) || !bytes.Contains(sig.Statement, []byte("sha256-"+r.id())) {
		b.Errorf("%d files of %d are signed, for %s", n, len(r.env.Statement.Subjects), sig.Statement)
	}
}

func TestModelSignature(t *testing.T) {
	b := newBench(t)
	without := b.weights("models/none", 1)
	b.receive(without)
	b.step()
	b.published(without)
	key := b.signing()
	b.restart()
	model, data := b.weights("models/llm", 1), b.approved("models/data", 1)
	b.receive(model)
	b.receive(data)
	b.step()
	b.published(model)
	b.published(data)
	b.covers(model, key)
	if b.signature(without) != nil || b.signature(data) != nil {
		t.Error("a site without a key, or a data set, has a model signature")
	}
	b.clock.add(time.Hour)
	b.step()
	if b.spooled(model) {
		t.Error("the spool copy was kept")
	}
	b.clean()
}

// TestModelSignatureIsMadeOnce: whatever the configuration became between two tries, what was published is published again with the
// same bytes.
func TestModelSignatureIsMadeOnce(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after bool // there is a key
	}{{"the key changed", true, true}, {"the key went", true, false}, {"a key came", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			var key *oms.PublicKey
			if c.before {
				key = b.signing()
				b.restart()
			}
			r := b.weights("models/llm", 1)
			b.receive(r)
			b.r.SetTarget(func(t receiver.Target) receiver.Target { return forgetful{t} })
			b.step()
			b.want(r, "HELD")
			if b.cfg.Keys.ModelSigning = ""; c.after {
				b.signing()
			}
			b.clock.add(time.Hour)
			b.restart()
			b.step()
			b.published(r)
			if c.before {
				b.covers(r, key)
			} else if b.signature(r) != nil {
				t.Error("the release got a signature when its receipt was written")
			}
		})
	}
}

// TestModelSignatureSpoilt: what rotted in the spool is made again, to the same bytes.
func TestModelSignatureSpoilt(t *testing.T) {
	for name, offset := range map[string]int{"in the statement": 300, "so that it is no bundle": 0} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			key := b.signing()
			b.restart()
			r := b.weights("models/llm", 1)
			b.receive(r)
			b.r.SetTarget(func(t receiver.Target) receiver.Target { return forgetful{t} })
			b.step()
			sig, err := os.ReadFile(b.path("spool", r.id(), "model.sig"))
			must(t, err)
			sig[offset] ^= 4
			must(t, os.WriteFile(b.path("spool", r.id(), "model.sig"), sig, 0o600))
			b.clock.add(time.Hour)
			b.restart()
			b.step()
			b.published(r)
			b.covers(r, key)
		})
	}
}

// TestModelSigningKeyIsGone: a release waits for the key that the configuration names; it is not published without a signature.
func TestModelSigningKeyIsGone(t *testing.T) {
	b := newBench(t)
	b.signing()
	must(t, os.Chmod(b.cfg.Keys.ModelSigning, 0o604))
	b.restart()
	if err := receiver.Check(b.cfg); err == nil || !strings.Contains(err.Error(), "keys.model_signing") {
		t.Errorf("check: %v", err)
	}
	r := b.weights("models/llm", 1)
	b.receive(r)
	b.step()
	b.want(r, "HELD")
	b.notPublished(r)
	if job := b.job(r); !strings.Contains(job.LastError, "everybody may read") {
		t.Errorf("%q", job.LastError)
	}
	must(t, os.Chmod(b.cfg.Keys.ModelSigning, 0o600))
	b.clock.add(time.Hour)
	b.step()
	b.published(r)
	if b.signature(r) == nil {
		t.Error("published without a signature")
	}
}
