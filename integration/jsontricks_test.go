// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"sluice/internal/journal"
	"sluice/internal/trust"
	"sluice/internal/trust/trusttest"
	"sluice/pkg/envelope"
	"sluice/pkg/envelope/envelopetest"
	"sluice/pkg/mofn"
)

// strictParser is one parser of strict JSON, and an object that it takes.
type strictParser struct {
	name  string
	good  []byte
	parse func([]byte) error
}

// strictParsers are all of the module that have a public door; pkg/registry tries its own four.
func strictParsers(t *testing.T) []strictParser {
	t.Helper()
	site, err := trusttest.New(mofn.Epoch{Stream: "models/llm", MinEpoch: 1, MinSeq: 1})
	must(t, err)
	p := trusttest.Predicate("models/llm", 1, 5)
	p.Base = &envelope.Base{Repo: "org/B\u00e4se", Commit: "abc"}
	p.Quantization = &envelope.Quantization{Method: "awq", Bits: 4, GroupSize: 128, Version: "1"}
	env, err := site.Seal(t.Context(), fstest.MapFS{"a": {Data: []byte("a")}, "b/c": {Data: []byte("c")}}, p, nil)
	must(t, err)
	must(t, site.Approve(env, envelope.DecisionApprove, "a.roy"))
	vote, err := envelope.ParseDSSE(env.Approvals[0].Data, envelope.MaxApproval)
	must(t, err)
	short := *vote
	short.Signatures = []envelope.Signature{{KeyID: vote.Signatures[0].KeyID, Sig: []byte("signature")}}
	short.Payload = []byte("payload")
	dsse, err := short.Marshal()
	must(t, err)
	object, err := site.Store.Object.Marshal()
	must(t, err)
	public, err := site.Ticket.MarshalPublic()
	must(t, err)
	private, err := site.Ticket.Seal(nil, []byte("p"), mofn.ScryptParams{N: 4, R: 1, P: 1})
	must(t, err)
	event, err := journal.Event{
		Seq: 1, Time: time.Unix(1_770_000_000, 0), Actor: "receiver", Action: "approve", Job: strings.Repeat("ab", 32), Release: strings.Repeat("ab", 32), Officer: "a.roy",
		From: "HELD", To: "PUBLISHED", Stream: "models/llm", Epoch: 1, Number: 5, Key: strings.Repeat("cd", 32), Digest: strings.Repeat("ef", 32), Prev: strings.Repeat("01", 32), Detail: "d\u00e9tail",
	}.Encode()
	must(t, err)
	return []strictParser{
		{"release statement", env.DSSE.Payload, func(b []byte) error { _, err := envelope.ParseStatement(b); return err }},
		{"approval", vote.Payload, func(b []byte) error { _, err := envelope.ParseApproval(b); return err }},
		{"approval, as the judge opens it", vote.Payload, func(b []byte) error { _, err := trust.Open(b); return err }},
		{"DSSE envelope", dsse, func(b []byte) error { _, err := envelope.ParseDSSE(b, 1<<20); return err }},
		{"trust object", object, func(b []byte) error { _, err := mofn.ParseTrust(b); return err }},
		{"public key file", public, func(b []byte) error { _, _, _, _, err := mofn.ParsePublicFile(b); return err }},
		{"private key file", private, func(b []byte) error { _, err := mofn.OpenSecret(b, []byte("p")); return err }},
		{"audit event", event, func(b []byte) error { _, err := journal.ParseEvent(b, false); return err }},
	}
}

// TestJSONTricks: duplicate keys, case folding, null, numbers, trailing data, encodings, escapes, unknown fields, NFD, BOM and depth, in
// every place of every object that is read strictly.
func TestJSONTricks(t *testing.T) {
	for _, p := range strictParsers(t) {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			must(t, p.parse(p.good))
			tricks := envelopetest.Tricks(p.good)
			if len(tricks) < 300 {
				t.Errorf("only %d tricks", len(tricks))
			}
			for _, trick := range tricks {
				if p.parse(trick.JSON) == nil {
					t.Errorf("accepted: %s\n%.300q", trick.Name, trick.JSON)
				}
			}
		})
	}
}
