// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"sluice/internal/trust"
	"sluice/internal/trust/trusttest"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func files() fstest.MapFS {
	return fstest.MapFS{"a.txt": {Data: []byte("a")}, "b/c.txt": {Data: bytes.Repeat([]byte("c"), 2000)}}
}

func site(t testing.TB, epochs ...mofn.Epoch) *trusttest.Site {
	t.Helper()
	s, err := trusttest.New(epochs...)
	must(t, err)
	return s
}

func seal(t *testing.T, s *trusttest.Site, p envelope.Predicate, officers ...string) *envelope.Envelope {
	t.Helper()
	env, err := s.Seal(t.Context(), files(), p, nil)
	must(t, err)
	must(t, s.Approve(env, envelope.DecisionApprove, officers...))
	return env
}

// marked is a stream that stands somewhere.
func marked(epoch, seq int64) func(string) (int64, int64, bool, error) {
	return func(string) (int64, int64, bool, error) { return epoch, seq, true, nil }
}

// attack is one thing that Check must refuse (design: "Attacks that verify must refuse").
type attack struct {
	name   string
	stream string // "": models/llm
	change func(t *testing.T, s *trusttest.Site, env *envelope.Envelope) *envelope.Envelope
	rules  func(r *trust.Rules)
	want   error
}

func attacks() []attack {
	return []attack{
		{name: "wrong audience", rules: func(r *trust.Rules) { r.Receiver = "enclave-b" }, want: trust.ErrAudience},
		{name: "expired", rules: func(r *trust.Rules) { r.Now = trusttest.Sealed().AddDate(1, 0, 0).Add(time.Second) }, want: trust.ErrExpired},
		{name: "rollback: an older seq", rules: func(r *trust.Rules) { r.Mark = marked(1, 6) }, want: trust.ErrRollback},
		{name: "rollback: an older epoch with a higher seq", rules: func(r *trust.Rules) { r.Mark = marked(2, 1) }, want: trust.ErrRollback},
		{name: "replay: the same seq again", rules: func(r *trust.Rules) { r.Mark = marked(1, 5) }, want: trust.ErrRollback},
		{name: "rollback below the trust object's floor", stream: "models/floor", want: trust.ErrRollback},
		{name: "a forged packer signature", change: forgePacker, want: mofn.ErrSignature},
		{name: "a packer that nobody enrolled", change: strangePacker, want: mofn.ErrUnknownPacker},
		{name: "role confusion: an officer's key as the packer", change: officerPacks, want: mofn.ErrSignature},
		{name: "too few approvals", change: onlyApprovals("security.a.roy.json"), want: mofn.ErrThreshold},
		{name: "no approval at all", change: onlyApprovals(), want: mofn.ErrThreshold},
		{name: "approvals of people outside of the quorum", change: outsiders, want: mofn.ErrThreshold},
		{name: "unknown keys do not count", change: unknownKeys, want: mofn.ErrThreshold},
		{name: "one person with two approvals", change: duplicate, want: mofn.ErrDuplicate},
		{name: "an approval under another's name", change: impostor, want: mofn.ErrSignature},
		{name: "a damaged approval by a known key", change: damaged, want: mofn.ErrSignature},
		{name: "an approval filed under another name", change: misfiled, want: trust.ErrVoteName},
		{name: "an officer rejects", change: rejected, want: mofn.ErrRejected},
		{name: "oversize", stream: "models/small", want: mofn.ErrTooLarge},
		{name: "a stream without a rule", stream: "elsewhere/llm", want: mofn.ErrNoRule},
	}
}

// TestCheckRefuses also holds that a refusal never comes with a usable approval.
func TestCheckRefuses(t *testing.T) {
	s := site(t, mofn.Epoch{Stream: "models/floor", MinEpoch: 1, MinSeq: 6})
	for _, a := range attacks() {
		t.Run(a.name, func(t *testing.T) {
			stream := a.stream
			if stream == "" {
				stream = "models/llm"
			}
			env := seal(t, s, trusttest.Predicate(stream, 1, 5), "s.ito", "a.roy")
			if a.change != nil {
				env = a.change(t, s, env)
			}
			r := trust.Rules{Receiver: trusttest.Receiver, Now: trusttest.Sealed(), Mark: marked(1, 4)}
			if a.rules != nil {
				a.rules(&r)
			}
			got, err := s.Store.Check(env, r)
			if !errors.Is(err, a.want) {
				t.Errorf("error %v, want %v", err, a.want)
			}
			if got.Valid() {
				t.Error("a refusal came with a valid approval")
			}
		})
	}
}

func TestCheckAccepts(t *testing.T) {
	s := site(t, mofn.Epoch{Stream: "models/llm", MinEpoch: 1, MinSeq: 5})
	env := seal(t, s, trusttest.Predicate("models/llm", 1, 5), "s.ito", "m.lee")
	atTheEnd := trusttest.Sealed().AddDate(1, 0, 0)
	for _, r := range []trust.Rules{
		{},
		{Receiver: trusttest.Receiver, Now: atTheEnd, Mark: marked(1, 4)},
		{Mark: marked(0, 99)},
		{Mark: func(string) (int64, int64, bool, error) { return 0, 0, false, nil }},
	} {
		a, err := s.Store.Check(env, r)
		must(t, err)
		if !a.Valid() || a.Release().ID != [32]byte(env.ID) || strings.Join(a.Officers(), " ") != "m.lee s.ito" {
			t.Errorf("approval %+v of %v", a.Release(), a.Officers())
		}
	}
}

// TestCheckMarkFails: a mark that cannot be read is no permission.
func TestCheckMarkFails(t *testing.T) {
	s, broken := site(t), errors.New("disk")
	env := seal(t, s, trusttest.Predicate("models/llm", 1, 5), "s.ito", "m.lee")
	a, err := s.Store.Check(env, trust.Rules{Mark: func(string) (int64, int64, bool, error) { return 0, 0, false, broken }})
	if !errors.Is(err, broken) || a.Valid() {
		t.Errorf("error %v, approval valid: %t", err, a.Valid())
	}
}

// TestAudienceMessage: nobody has signed for the audience when it is judged, so its length must not become the message's.
func TestAudienceMessage(t *testing.T) {
	s, p := site(t), trusttest.Predicate("models/llm", 1, 5)
	p.Audience = nil
	for i := range 4000 {
		p.Audience = append(p.Audience, fmt.Sprintf("r%06d", i))
	}
	env := seal(t, s, p)
	_, err := s.Store.Check(env, trust.Rules{Receiver: trusttest.Receiver})
	if !errors.Is(err, trust.ErrAudience) || len(err.Error()) > 500 || !strings.Contains(err.Error(), "and 3992 more") {
		t.Errorf("%d bytes: %.600v", len(err.Error()), err)
	}
}

func TestProgressAndPacker(t *testing.T) {
	s := site(t)
	env := seal(t, s, trusttest.Predicate("models/llm", 1, 5), "s.ito")
	must(t, s.Store.CheckPacker(env))
	if err := s.Store.CheckPacker(strangePacker(t, s, env)); !errors.Is(err, mofn.ErrUnknownPacker) {
		t.Errorf("strange packer: %v", err)
	}
	p, err := s.Store.Progress(env)
	must(t, err)
	if p.Met || len(p.Approved) != 1 {
		t.Errorf("progress %+v", p)
	}
}

func TestVotesAndOpen(t *testing.T) {
	s := site(t)
	env := seal(t, s, trusttest.Predicate("models/llm", 2, 7), "s.ito", "a.roy")
	votes, err := trust.Votes(env)
	must(t, err)
	if len(votes) != 2 {
		t.Fatalf("%d votes", len(votes))
	}
	c, err := trust.Open(votes[1].Payload)
	must(t, err)
	if c.Officer != "s.ito" || c.Role != "security" || c.Epoch != 2 || c.Seq != 7 || c.ReleaseID != [32]byte(env.ID) || c.Decision != mofn.DecisionApprove {
		t.Errorf("claim %+v", c)
	}
	if _, err := trust.Open([]byte("{}")); !errors.Is(err, envelope.ErrFormat) {
		t.Errorf("Open of nonsense: %v", err)
	}
	if _, err := trust.Vote(envelope.Named{Name: "x", Data: []byte("{}")}); !errors.Is(err, envelope.ErrFormat) {
		t.Errorf("Vote of nonsense: %v", err)
	}
}

func TestLoad(t *testing.T) {
	s := site(t)
	path := filepath.Join(t.TempDir(), "trust.json")
	must(t, os.WriteFile(path, s.Object, 0o600))
	right := hex.EncodeToString(s.Store.Fingerprint[:])
	for _, fp := range []string{right, strings.ToUpper(right)} {
		st, err := trust.Load(path, fp)
		must(t, err)
		if st.Object.Version != 1 {
			t.Errorf("version %d", st.Object.Version)
		}
	}
	for _, fp := range []string{"", right[:62], strings.Repeat("0", 64)} {
		if _, err := trust.Load(path, fp); !errors.Is(err, trust.ErrFingerprint) {
			t.Errorf("fingerprint %q: %v", fp, err)
		}
	}
	if _, err := trust.Load(path+".gone", right); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestLoadNoTrustObject: other signed objects, damage and endless data are refused whatever the fingerprint says.
func TestLoadNoTrustObject(t *testing.T) {
	s := site(t)
	env := seal(t, s, trusttest.Predicate("models/llm", 1, 1))
	cut := bytes.Replace(s.Object, []byte("payloadType"), []byte("payloadTypo"), 1)
	huge := append(bytes.Clone(s.Object), bytes.Repeat([]byte(" "), 8<<20)...)
	for name, b := range map[string][]byte{"a release statement": env.Release, "another key": cut, "endless": huge, "empty": nil} {
		path := filepath.Join(t.TempDir(), "trust.json")
		must(t, os.WriteFile(path, b, 0o600))
		if _, err := trust.Load(path, hex.EncodeToString(s.Store.Fingerprint[:])); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
