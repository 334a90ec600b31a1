// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"slices"
	"testing"

	"sluice/internal/trust/trusttest"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// rebuilt is env with another release section and other approvals.
func rebuilt(t *testing.T, env *envelope.Envelope, release []byte, approvals []envelope.Named) *envelope.Envelope {
	t.Helper()
	out, err := envelope.New(release, env.Index, env.Evidence)
	must(t, err)
	must(t, out.Merge(approvals))
	return out
}

func forgePacker(t *testing.T, _ *trusttest.Site, env *envelope.Envelope) *envelope.Envelope {
	d := *env.DSSE
	d.Signatures = slices.Clone(d.Signatures)
	d.Signatures[0].Sig = slices.Clone(d.Signatures[0].Sig)
	d.Signatures[0].Sig[100] ^= 1
	release, err := d.Marshal()
	must(t, err)
	return rebuilt(t, env, release, env.Approvals)
}

func repacked(t *testing.T, s *trusttest.Site, env *envelope.Envelope, key *mofn.PrivateKey) *envelope.Envelope {
	t.Helper()
	out, err := s.Seal(t.Context(), files(), env.Statement.Predicate, key)
	must(t, err)
	must(t, out.Merge(env.Approvals))
	return out
}

func strangePacker(t *testing.T, s *trusttest.Site, env *envelope.Envelope) *envelope.Envelope {
	key, err := mofn.GenerateKey(mofn.SuiteH1, nil)
	must(t, err)
	return repacked(t, s, env, key)
}

func officerPacks(t *testing.T, s *trusttest.Site, env *envelope.Envelope) *envelope.Envelope {
	return repacked(t, s, env, s.Keys["s.ito"])
}

func onlyApprovals(names ...string) func(*testing.T, *trusttest.Site, *envelope.Envelope) *envelope.Envelope {
	return func(t *testing.T, _ *trusttest.Site, env *envelope.Envelope) *envelope.Envelope {
		kept := slices.DeleteFunc(slices.Clone(env.Approvals), func(n envelope.Named) bool { return !slices.Contains(names, n.Name) })
		return rebuilt(t, env, env.Release, kept)
	}
}

func outsiders(t *testing.T, s *trusttest.Site, env *envelope.Envelope) *envelope.Envelope {
	out := onlyApprovals("security.a.roy.json")(t, s, env)
	must(t, s.Approve(out, envelope.DecisionApprove, "q.tan"))
	return out
}

// vote adds one to those of a.roy, whatever it claims: past the envelope's reader, which refuses some of it before.
func vote(t *testing.T, s *trusttest.Site, env *envelope.Envelope, officer string, key *mofn.PrivateKey, name string) *envelope.Envelope {
	t.Helper()
	out := onlyApprovals("security.a.roy.json")(t, s, env)
	a := trusttest.Decision(env, officer, envelope.DecisionApprove)
	v, err := s.Vote(&a, key, name)
	must(t, err)
	out.Approvals = append(out.Approvals, v)
	return out
}

func unknownKeys(t *testing.T, s *trusttest.Site, env *envelope.Envelope) *envelope.Envelope {
	key, err := mofn.GenerateKey(mofn.SuiteH1, nil)
	must(t, err)
	return vote(t, s, env, "m.lee", key, "")
}

func duplicate(t *testing.T, s *trusttest.Site, env *envelope.Envelope) *envelope.Envelope {
	return vote(t, s, env, "a.roy", s.Keys["a.roy"], "security.m.lee.json")
}

func impostor(t *testing.T, s *trusttest.Site, env *envelope.Envelope) *envelope.Envelope {
	return vote(t, s, env, "m.lee", s.Keys["a.roy"], "")
}

func misfiled(t *testing.T, s *trusttest.Site, env *envelope.Envelope) *envelope.Envelope {
	return vote(t, s, env, "s.ito", s.Keys["s.ito"], "security.m.lee.json")
}

func damaged(t *testing.T, s *trusttest.Site, env *envelope.Envelope) *envelope.Envelope {
	a := trusttest.Decision(env, "m.lee", envelope.DecisionApprove)
	v, err := s.Vote(&a, s.Keys["m.lee"], "")
	must(t, err)
	d, err := envelope.ParseDSSE(v.Data, len(v.Data))
	must(t, err)
	d.Signatures[0].Sig[3330] ^= 1 // in the Ed25519 half
	v.Data, err = d.Marshal()
	must(t, err)
	return rebuilt(t, env, env.Release, append(slices.Clone(env.Approvals), v))
}

func rejected(t *testing.T, s *trusttest.Site, env *envelope.Envelope) *envelope.Envelope {
	must(t, s.Approve(env, envelope.DecisionReject, "m.lee"))
	return env
}
