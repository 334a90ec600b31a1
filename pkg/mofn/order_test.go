// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/mofn"
)

// digest is a SHA-256 in hexadecimal that sorts by its number.
func digest(n int) string { return fmt.Sprintf("%064x", n) }

// goodOrder is a stop of everything by alice.
func goodOrder() mofn.Order {
	return mofn.Order{
		Root: digest(0xf00d), Action: mofn.ActionStop, Kind: mofn.KindEverything, Officer: "alice", Role: "security",
		At: "2026-11-22T01:40:00Z", Reason: "the build host was entered",
	}
}

// orderPayload writes an order without the checks of Marshal.
func orderPayload(t testing.TB, o *mofn.Order) []byte {
	t.Helper()
	b, err := mofn.EncodeOrder(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestOrderForms: every action and kind of the table of bulletin.md section 3 is written and read as it was.
func TestOrderForms(t *testing.T) {
	form := func(action, kind, target string, lifts ...string) mofn.Order {
		o := goodOrder()
		o.Action, o.Kind, o.Target, o.Lifts = action, kind, target, lifts
		return o
	}
	many := make([]string, 64)
	for i := range many {
		many[i] = digest(i)
	}
	for _, o := range []mofn.Order{
		form("stop", "everything", ""), form("stop", "stream", "models/llm"), form("stop", "stream", "models/*"), form("stop", "release", digest(1)),
		form("stop", "key", digest(2)), form("stop", "half", digest(3)), form("stop", "officer", "bob"),
		form("revoke", "release", digest(1)), form("revoke", "key", digest(2)), form("revoke", "half", digest(3)), form("revoke", "officer", "bob"),
		form("resume", "", "", digest(7)), form("resume", "", "", many...),
	} {
		payload, err := o.Marshal()
		if err != nil {
			t.Errorf("%s %s: %v", o.Action, o.Kind, err)
			continue
		}
		got, err := mofn.ParseOrder(payload)
		if o.Lifts == nil {
			o.Lifts = []string{}
		}
		if err != nil || cmp.Diff(&o, got) != "" {
			t.Errorf("%s %s: %v %s", o.Action, o.Kind, err, cmp.Diff(&o, got))
		}
	}
	o := goodOrder()
	o.Reason = "line\n\ttwo, ünd <&> \"quotes\" \\"
	if payload, err := o.Marshal(); err != nil || !strings.Contains(string(payload), `line\n\ttwo, ünd <&>`) {
		t.Errorf("%s %v", payload, err)
	}
}

// TestOrderRefused: each rule of the table, with the words of its refusal.
func TestOrderRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(o *mofn.Order)
		words string
	}{
		{"root empty", func(o *mofn.Order) { o.Root = "" }, "root"},
		{"root in capitals", func(o *mofn.Order) { o.Root = strings.Repeat("A", 64) }, "root"},
		{"root too short", func(o *mofn.Order) { o.Root = strings.Repeat("a", 62) }, "root"},
		{"no action", func(o *mofn.Order) { o.Action = "" }, "action"},
		{"unknown action", func(o *mofn.Order) { o.Action = "pause" }, "not stop, resume or revoke"},
		{"action in capitals", func(o *mofn.Order) { o.Action = "STOP" }, "not stop, resume or revoke"},
		{"no kind", func(o *mofn.Order) { o.Kind = "" }, "kind"},
		{"unknown kind", func(o *mofn.Order) { o.Kind = "site" }, "kind"},
		{"everything with a target", func(o *mofn.Order) { o.Target = "x" }, "target"},
		{"stream without a target", func(o *mofn.Order) { o.Kind = "stream" }, "target"},
		{"stream with a bare star", func(o *mofn.Order) { o.Kind, o.Target = "stream", "*" }, "target"},
		{"stream with an inner star", func(o *mofn.Order) { o.Kind, o.Target = "stream", "a/*/b" }, "target"},
		{"stream with half a star", func(o *mofn.Order) { o.Kind, o.Target = "stream", "a*" }, "target"},
		{"stream with an empty part", func(o *mofn.Order) { o.Kind, o.Target = "stream", "a//b" }, "target"},
		{"stream /*", func(o *mofn.Order) { o.Kind, o.Target = "stream", "/*" }, "target"},
		{"stream too long", func(o *mofn.Order) { o.Kind, o.Target = "stream", strings.Repeat("a", 129) }, "target"},
		{"release by a name", func(o *mofn.Order) { o.Kind, o.Target = "release", "llm" }, "target"},
		{"key in capitals", func(o *mofn.Order) { o.Kind, o.Target = "key", strings.Repeat("A", 64) }, "target"},
		{"half of 63", func(o *mofn.Order) { o.Kind, o.Target = "half", strings.Repeat("a", 63) }, "target"},
		{"officer by a key", func(o *mofn.Order) { o.Kind, o.Target = "officer", "Bob" }, "target"},
		{"officer without a name", func(o *mofn.Order) { o.Kind = "officer" }, "target"},
		{"revoke everything", func(o *mofn.Order) { o.Action = "revoke" }, "cannot be revoked; stop it"},
		{"revoke a stream", func(o *mofn.Order) { o.Action, o.Kind, o.Target = "revoke", "stream", "models/*" }, "cannot be revoked; stop it"},
		{"stop that lifts", func(o *mofn.Order) { o.Lifts = []string{digest(1)} }, "lifts nothing"},
		{"revoke that lifts", func(o *mofn.Order) {
			o.Action, o.Kind, o.Target, o.Lifts = "revoke", "key", digest(1), []string{digest(1)}
		}, "lifts nothing"},
		{"resume of nothing", func(o *mofn.Order) { o.Action, o.Kind = "resume", "" }, "names the stops"},
		{"resume with a kind", func(o *mofn.Order) { o.Action, o.Lifts = "resume", []string{digest(1)} }, "names the stops"},
		{"resume with a target", func(o *mofn.Order) { o.Action, o.Kind, o.Target, o.Lifts = "resume", "", "x", []string{digest(1)} }, "names the stops"},
		{"resume of 65", func(o *mofn.Order) {
			o.Action, o.Kind = "resume", ""
			for i := range 65 {
				o.Lifts = append(o.Lifts, digest(i))
			}
		}, "at most 64"},
		{"resume out of order", func(o *mofn.Order) { o.Action, o.Kind, o.Lifts = "resume", "", []string{digest(2), digest(1)} }, "strict order"},
		{"resume of one twice", func(o *mofn.Order) { o.Action, o.Kind, o.Lifts = "resume", "", []string{digest(2), digest(2)} }, "strict order"},
		{"resume of a name", func(o *mofn.Order) { o.Action, o.Kind, o.Lifts = "resume", "", []string{"stop"} }, "SHA-256"},
		{"officer of the order empty", func(o *mofn.Order) { o.Officer = "" }, "not names"},
		{"officer of the order in capitals", func(o *mofn.Order) { o.Officer = "Alice" }, "not names"},
		{"role empty", func(o *mofn.Order) { o.Role = "" }, "not names"},
		{"role with a slash", func(o *mofn.Order) { o.Role = "a/b" }, "not names"},
		{"at with an offset", func(o *mofn.Order) { o.At = "2026-11-22T01:40:00+00:00" }, "at "},
		{"at with a fraction", func(o *mofn.Order) { o.At = "2026-11-22T01:40:00.5Z" }, "at "},
		{"at a day that is none", func(o *mofn.Order) { o.At = "2026-02-30T01:40:00Z" }, "at "},
		{"at empty", func(o *mofn.Order) { o.At = "" }, "at "},
		{"no reason", func(o *mofn.Order) { o.Reason = "" }, "no reason"},
		{"reason too long", func(o *mofn.Order) { o.Reason = strings.Repeat("a", 1025) }, "1024"},
		{"reason with an escape", func(o *mofn.Order) { o.Reason = "a\x1b[2J" }, "control character"},
		{"reason with a carriage return", func(o *mofn.Order) { o.Reason = "a\r" }, "control character"},
		{"reason not in NFC", func(o *mofn.Order) { o.Reason = "e\u0301" }, "Normalization"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := goodOrder()
			c.spoil(&o)
			got, err := mofn.ParseOrder(orderPayload(t, &o))
			if got != nil || !errors.Is(err, mofn.ErrOrder) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v, error %v; want %q", got, err, c.words)
			}
			if b, err := o.Marshal(); b != nil || !errors.Is(err, mofn.ErrOrder) {
				t.Errorf("Marshal wrote it: %v", err)
			}
		})
	}
	longest := goodOrder()
	longest.Reason = strings.Repeat(`"`, 1024)
	if _, err := longest.Marshal(); err != nil {
		t.Errorf("the longest reason: %v", err)
	}
}

// TestOrderCanonical: one form only.
func TestOrderCanonical(t *testing.T) {
	o := goodOrder()
	good := string(orderPayload(t, &o))
	if _, err := mofn.ParseOrder([]byte(good)); err != nil {
		t.Fatalf("control: %v", err)
	}
	for name, bad := range map[string]string{
		"empty":          "",
		"null":           "null",
		"white space":    strings.Replace(good, ",", ", ", 1),
		"newline":        good + "\n",
		"more behind":    good + "{}",
		"another type":   strings.Replace(good, "sluice-order-v1", "sluice-order-v2", 1),
		"lifts null":     strings.Replace(good, `"lifts":[]`, `"lifts":null`, 1),
		"lifts left out": strings.Replace(good, `"lifts":[],`, ``, 1),
		"a field twice":  strings.Replace(good, `"lifts":[]`, `"lifts":[],"lifts":[]`, 1),
		"unknown field":  strings.Replace(good, `"lifts":[]`, `"lifts":[],"until":""`, 1),
		"other case":     strings.Replace(good, `"action"`, `"Action"`, 1),
		"escaped letter": strings.Replace(good, `"everything"`, `"\u0065verything"`, 1),
		"another order":  strings.Replace(good, `"officer":"alice","role":"security"`, `"role":"security","officer":"alice"`, 1),
		"too long":       strings.Replace(good, "the build", strings.Repeat("x", 17<<10), 1),
	} {
		if got, err := mofn.ParseOrder([]byte(bad)); got != nil || !errors.Is(err, mofn.ErrOrder) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// TestVerifyOrder: who may say what an order says.
func TestVerifyOrder(t *testing.T) {
	r := newRing(t)
	p := mustPolicy(t, r.fill(basePolicy), r.enrolled())
	root := goodOrder().Root
	type signed struct {
		payload, message []byte
		sigs             []mofn.Signature
	}
	by := func(key, role string, spoil func(*mofn.Order)) signed {
		o := goodOrder()
		if spoil != nil {
			spoil(&o)
		}
		s := signed{payload: orderPayload(t, &o)}
		s.message = mofn.PAE(mofn.OrderPayloadType, s.payload)
		s.sigs = []mofn.Signature{signature(t, r[key], role, s.message)}
		return s
	}
	good := by("alice", "security", nil)
	for _, c := range []struct {
		name  string
		s     signed
		want  error
		words string
	}{
		{"alice for herself", good, nil, ""},
		{"alice with her second key", by("alice2", "security", nil), nil, ""},
		{"role confusion: in the role of another group", by("alice", "quality", nil), mofn.ErrSignature, ""},
		{"role confusion: in the role root", by("alice", mofn.RoleRoot, nil), mofn.ErrSignature, ""},
		{"role confusion: in the role packer", by("alice", mofn.RolePacker, nil), mofn.ErrSignature, ""},
		{"role confusion: in the role heartbeat", by("alice", mofn.RoleHeartbeat, nil), mofn.ErrSignature, ""},
		{"bob speaks for alice", by("bob", "security", nil), mofn.ErrClaim, "it speaks for alice"},
		{"alice claims another role", by("alice", "security", func(o *mofn.Order) { o.Role = "quality" }), mofn.ErrClaim, "of quality"},
		{"nobody's key", by("mallory", "security", nil), mofn.ErrUnknownSigner, ""},
		{"a packer's key", by("packer", mofn.RolePacker, nil), mofn.ErrUnknownSigner, ""},
		{"an officer of no group", by("gina", "security", func(o *mofn.Order) { o.Officer = "gina" }), mofn.ErrOrder, "no role"},
		{"another site's order", by("alice", "security", func(o *mofn.Order) { o.Root = digest(1) }), mofn.ErrClaim, "another site"},
		{"signed and malformed", by("alice", "security", func(o *mofn.Order) { o.Kind = "site" }), mofn.ErrOrder, "kind"},
		{"no signature", signed{good.payload, good.message, nil}, mofn.ErrSignature, "exactly one"},
		{"two signatures", signed{good.payload, good.message, append(good.sigs, by("bob", "security", nil).sigs...)}, mofn.ErrSignature, "exactly one"},
		{"key id that is none", signed{good.payload, good.message, []mofn.Signature{{KeyID: "alice", Sig: good.sigs[0].Sig}}}, mofn.ErrOrder, ""},
		{"key id in capitals", signed{good.payload, good.message, []mofn.Signature{{KeyID: strings.ToUpper(good.sigs[0].KeyID), Sig: good.sigs[0].Sig}}}, mofn.ErrOrder, ""},
		{"half a signature", signed{good.payload, good.message, []mofn.Signature{{KeyID: good.sigs[0].KeyID, Sig: good.sigs[0].Sig[:3309]}}}, mofn.ErrSignature, ""},
		{"message of another type", signed{good.payload, mofn.PAE(statementType, good.payload), good.sigs}, mofn.ErrSignature, "not this payload"},
		{"message of another payload", signed{append(bytes.Clone(good.payload), ' '), good.message, good.sigs}, mofn.ErrSignature, "not this payload"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := p.VerifyOrder(root, c.s.payload, c.s.sigs, c.s.message)
			if c.want == nil {
				if err != nil || got.ID != mofn.OrderID(c.s.payload) || got.Officer != "alice" || got.Key.String() != c.s.sigs[0].KeyID {
					t.Errorf("%+v, %v", got, err)
				}
				return
			}
			if !errors.Is(err, c.want) || !errors.Is(err, mofn.ErrOrder) || !strings.Contains(err.Error(), c.words) || got.ID != "" {
				t.Errorf("%+v, error %v; want %v, %q", got, err, c.want, c.words)
			}
			if errors.Is(err, mofn.ErrUnknownSigner) != errors.Is(c.want, mofn.ErrUnknownSigner) {
				t.Errorf("%v: known and unknown keys are mixed up", err)
			}
		})
	}
}

// TestAttackApprovalAsOrder: what an officer signed to approve a release is no order, whatever is made to look like one.
func TestAttackApprovalAsOrder(t *testing.T) {
	s := newScenario(t)
	p := mustPolicy(t, s.policy, s.keys)
	vote := s.votes[0]
	if _, err := p.VerifyOrder(goodOrder().Root, vote.Payload, vote.Signatures, vote.Message); !errors.Is(err, mofn.ErrSignature) {
		t.Errorf("an approval as it is: %v", err)
	}
	o := goodOrder()
	payload := orderPayload(t, &o)
	message := mofn.PAE(statementType, payload) // an order that somebody was made to sign as an approval
	sigs := []mofn.Signature{signature(t, s.ring["alice"], "security", message)}
	if _, err := p.VerifyOrder(o.Root, payload, sigs, mofn.PAE(mofn.OrderPayloadType, payload)); !errors.Is(err, mofn.ErrSignature) {
		t.Errorf("an order that was signed as an approval: %v", err)
	}
}

func TestSignedOrderTime(t *testing.T) {
	s := mofn.SignedOrder{Order: goodOrder()}
	if got := s.Time(); !got.Equal(time.Date(2026, 11, 22, 1, 40, 0, 0, time.UTC)) {
		t.Error(got)
	}
	s.At = "yesterday"
	if !s.Time().IsZero() {
		t.Error("a time that is none")
	}
}

// FuzzParseOrder: what is accepted has exactly one form.
func FuzzParseOrder(f *testing.F) {
	o := goodOrder()
	f.Add(orderPayload(f, &o))
	o.Action, o.Kind, o.Lifts = "resume", "", []string{digest(1), digest(2)}
	f.Add(orderPayload(f, &o))
	o.Action, o.Kind, o.Target, o.Lifts = "revoke", "half", digest(9), nil
	f.Add(orderPayload(f, &o))
	f.Add([]byte(`{"type":"sluice-order-v1","root":null}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		got, err := mofn.ParseOrder(payload)
		if err != nil {
			if got != nil || !errors.Is(err, mofn.ErrOrder) {
				t.Fatalf("%v, %v", got, err)
			}
			return
		}
		if again, err := got.Marshal(); err != nil || !bytes.Equal(again, payload) || !json.Valid(payload) {
			t.Fatalf("not written as read: %v", err)
		}
	})
}
