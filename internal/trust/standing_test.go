// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"sluice/internal/trust"
	"sluice/internal/trust/trusttest"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// ordered is what orders of officers come to. Each line: officer, action, kind, target.
func ordered(t *testing.T, s *trusttest.Site, lines ...[4]string) *mofn.Standing {
	t.Helper()
	var orders []mofn.SignedOrder
	for _, l := range lines {
		o := mofn.Order{
			Root: hex.EncodeToString(s.Store.Fingerprint[:]), Action: l[1], Kind: l[2], Target: l[3], Officer: l[0], Role: "security",
			At: envelope.FormatTime(trusttest.Sealed()), Reason: "the test says so",
		}
		payload, err := o.Marshal()
		must(t, err)
		message := envelope.PAE(mofn.OrderPayloadType, payload)
		sig, err := s.Keys[l[0]].Sign("security", message)
		must(t, err)
		key := s.Keys[l[0]].Public().ID().String()
		signed, err := s.Store.Policy.VerifyOrder(o.Root, payload, []mofn.Signature{{KeyID: key, Sig: sig}}, message)
		must(t, err)
		signed.Under = 1
		orders = append(orders, signed)
	}
	st, err := mofn.Judge(mofn.Ruler{Version: 1, Policy: s.Store.Policy, Root: s.Store.Object.Root}, nil, orders)
	must(t, err)
	return st
}

// TestStanding: what is stopped or revoked holds a release or refuses it; what a stopped or revoked key signed counts nothing.
func TestStanding(t *testing.T) {
	s := site(t)
	env := seal(t, s, trusttest.Predicate("models/llm", 1, 5), "s.ito", "a.roy")
	three := seal(t, s, trusttest.Predicate("models/llm", 1, 6), "s.ito", "a.roy", "m.lee")
	id := func(e *envelope.Envelope) string { return hex.EncodeToString(e.ID[:]) }
	key := func(name string) string { return s.Keys[name].Public().ID().String() }
	half := func(k *mofn.PublicKey, i int) string { return k.HalfIDs()[i].String() }
	line := func(who, action, kind, target string) [4]string { return [4]string{who, action, kind, target} }
	l := func(lines ...[4]string) [][4]string { return lines }
	packer := s.Packer.Public()
	for _, c := range []struct {
		name  string
		env   *envelope.Envelope
		lines [][4]string
		want  error
		words string
	}{
		{"no orders", env, nil, nil, ""},
		{"stop of everything", env, l(line("m.lee", "stop", "everything", "")), trust.ErrStopped, "by m.lee"},
		{"stop of its stream", env, l(line("m.lee", "stop", "stream", "models/*")), trust.ErrStopped, "stream models/*"},
		{"stop of another stream", env, l(line("m.lee", "stop", "stream", "policy/*")), nil, ""},
		{"stop of the release", env, l(line("m.lee", "stop", "release", id(env))), trust.ErrStopped, "release " + id(env)},
		{"stop of another release", env, l(line("m.lee", "stop", "release", id(three))), nil, ""},
		{"one revokes the release: a stop", env, l(line("m.lee", "revoke", "release", id(env))), trust.ErrStopped, "by m.lee"},
		{"two revoke the release", env, l(line("m.lee", "revoke", "release", id(env)), line("a.roy", "revoke", "release", id(env))), trust.ErrRevoked, "by a.roy, m.lee"},
		{"a revocation goes before a stop", env, l(line("m.lee", "revoke", "release", id(env)), line("a.roy", "revoke", "release", id(env)), line("a.roy", "stop", "everything", "")), trust.ErrRevoked, ""},

		{"stopped packer key", env, l(line("m.lee", "stop", "key", packer.ID().String())), trust.ErrStopped, "the packer's signature counts nothing"},
		{"revoked packer key", env, l(line("m.lee", "revoke", "key", packer.ID().String()), line("a.roy", "revoke", "key", packer.ID().String())), trust.ErrStopped, "is revoked"},
		{"stopped half of the packer key", env, l(line("m.lee", "stop", "half", half(packer, 0))), trust.ErrStopped, "half"},
		{"stopped other half of the packer key", env, l(line("m.lee", "stop", "half", half(packer, 1))), trust.ErrStopped, "half"},

		{"stopped officer: one vote too few", env, l(line("m.lee", "stop", "officer", "s.ito")), mofn.ErrThreshold, "security.s.ito.json: officer s.ito is stopped by m.lee"},
		{"stopped officer: two others are enough", three, l(line("m.lee", "stop", "officer", "s.ito")), nil, ""},
		{"stopped key of an officer", env, l(line("m.lee", "stop", "key", key("a.roy"))), mofn.ErrThreshold, "not counted: security.a.roy.json"},
		{"revoked half of an officer", env, l(line("m.lee", "revoke", "half", half(s.Keys["a.roy"].Public(), 1)), line("s.ito", "revoke", "half", half(s.Keys["a.roy"].Public(), 1))), mofn.ErrThreshold, "is revoked"},
		{"revoked officer: two others are enough", three, l(line("m.lee", "revoke", "officer", "s.ito"), line("a.roy", "revoke", "officer", "s.ito")), nil, ""},
		{"two stopped officers: one of three is left", three, l(line("m.lee", "stop", "officer", "s.ito"), line("m.lee", "stop", "key", key("a.roy"))), mofn.ErrThreshold, "; security.s.ito.json"},
		{"stopped officer who did not vote", env, l(line("a.roy", "stop", "officer", "m.lee")), nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := s.Store.Check(c.env, trust.Rules{Receiver: trusttest.Receiver, Now: trusttest.Sealed(), Standing: ordered(t, s, c.lines...)})
			if c.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				for _, line := range c.lines {
					if line[2] == "officer" && strings.Contains(strings.Join(a.Officers(), " "), line[3]) {
						t.Errorf("%s counts: %v", line[3], a.Officers())
					}
				}
				return
			}
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v; want %v, %q", err, c.want, c.words)
			}
			for _, other := range []error{trust.ErrStopped, trust.ErrRevoked} {
				if !errors.Is(c.want, other) && errors.Is(err, other) {
					t.Errorf("%v is %v too", err, other)
				}
			}
		})
	}
}

// TestStoppedVeto: a reject by a stopped officer counts as little as their approval.
func TestStoppedVeto(t *testing.T) {
	s := site(t)
	env := seal(t, s, trusttest.Predicate("models/llm", 1, 5), "s.ito", "a.roy")
	must(t, s.Approve(env, envelope.DecisionReject, "m.lee"))
	rules := trust.Rules{Receiver: trusttest.Receiver, Now: trusttest.Sealed()}
	if _, err := s.Store.Check(env, rules); !errors.Is(err, mofn.ErrRejected) {
		t.Fatalf("control: %v", err)
	}
	rules.Standing = ordered(t, s, [4]string{"a.roy", "stop", "officer", "m.lee"})
	if _, err := s.Store.Check(env, rules); err != nil {
		t.Errorf("a stopped officer's veto: %v", err)
	}
}
