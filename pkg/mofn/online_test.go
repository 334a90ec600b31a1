// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/pkg/mofn"
)

// onlineKeys are the keys of those names, sorted by id.
func onlineKeys(t testing.TB, names ...string) (out []mofn.TrustKey) {
	for _, name := range names {
		out = append(out, trustKey(newKey(t, name), name))
	}
	slices.SortFunc(out, func(a, b mofn.TrustKey) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return out
}

func logKey(t testing.TB, origin, name string) mofn.LogKey {
	k := trustKey(newKey(t, name), name)
	return mofn.LogKey{Origin: origin, ID: k.ID, Suite: k.Suite, Public: k.Public, Comment: k.Comment}
}

// watched is a trust object with two heartbeat keys, of both suites, and the keys of two logs.
func watched(t testing.TB, r ring) *mofn.Trust {
	first := firstTrust(t, r)
	first.Receivers[0].Ticket = secretOf(t, mofn.SuiteTicket, "ticket site-a").Public
	first.Heartbeats = append(onlineKeys(t, "heartbeat-1"), trustKey(newKeyOf(t, mofn.SuiteH2, "heartbeat-2"), "heartbeat-2"))
	slices.SortFunc(first.Heartbeats, func(a, b mofn.TrustKey) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	first.Logs = []mofn.LogKey{logKey(t, "sluice/high/site-a", "log-2"), logKey(t, "sluice/low/bastion-1", "log-1")}
	return first
}

// grafted is a key of name whose Ed25519 half is the given public key: it has an id of its own.
func grafted(t testing.TB, name string, ed []byte) mofn.TrustKey {
	t.Helper()
	public := append(bytes.Clone(newKey(t, name).Public().Bytes()[:1952]), ed...)
	key, err := mofn.ParsePublicKey(mofn.SuiteH1, public)
	if err != nil {
		t.Fatal(err)
	}
	return mofn.TrustKey{ID: key.ID(), Suite: mofn.SuiteH1, Public: public, Comment: name}
}

type onlineCase struct {
	spoil func(*mofn.Trust)
	after func([]byte) []byte // of the payload
	words string              // of the refusal; "" is good
}

// onlineCases are the vectors online-*.json: what is done to watched.
func onlineCases(t testing.TB, r ring) map[string]onlineCase {
	replace := func(from, to string) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.Replace(b, []byte(from), []byte(to), 1) }
	}
	log := func(k mofn.TrustKey) mofn.LogKey {
		return mofn.LogKey{Origin: "sluice/low/bastion-1", ID: k.ID, Suite: k.Suite, Public: k.Public, Comment: k.Comment}
	}
	cases := map[string]onlineCase{
		"both.good":            {},
		"heartbeats-only.good": {spoil: func(o *mofn.Trust) { o.Logs = nil }},
		"logs-only.good":       {spoil: func(o *mofn.Trust) { o.Heartbeats = nil }},
		"neither.good":         {spoil: func(o *mofn.Trust) { o.Heartbeats, o.Logs = nil, nil }},

		"heartbeats-empty.bad":    {spoil: func(o *mofn.Trust) { o.Heartbeats, o.Logs = nil, nil }, after: replace(`"epochs"`, `"heartbeats":[],"epochs"`), words: "canonical"},
		"heartbeats-null.bad":     {spoil: func(o *mofn.Trust) { o.Heartbeats, o.Logs = nil, nil }, after: replace(`"epochs"`, `"heartbeats":null,"epochs"`), words: "canonical"},
		"logs-empty.bad":          {spoil: func(o *mofn.Trust) { o.Heartbeats, o.Logs = nil, nil }, after: replace(`"epochs"`, `"logs":[],"epochs"`), words: "canonical"},
		"heartbeats-unsorted.bad": {spoil: func(o *mofn.Trust) { slices.Reverse(o.Heartbeats) }, words: "strict order"},
		"heartbeats-twice.bad":    {spoil: func(o *mofn.Trust) { o.Heartbeats[1] = o.Heartbeats[0] }, words: "strict order"},
		"heartbeats-many.bad":     {spoil: func(o *mofn.Trust) { o.Heartbeats = slices.Repeat(o.Heartbeats, 9) }, words: "18 heartbeats, at most 16"},
		"heartbeat-id.bad":        {spoil: func(o *mofn.Trust) { o.Heartbeats[0].ID[31] ^= 1 }, words: "not its own"},
		"heartbeat-suite.bad":     {spoil: func(o *mofn.Trust) { o.Heartbeats[0].Suite = "H3" }, words: "suite"},
		"heartbeat-short.bad":     {spoil: func(o *mofn.Trust) { o.Heartbeats[0].Public = o.Heartbeats[0].Public[1:] }, words: "heartbeat key"},
		"heartbeat-comment.bad":   {spoil: func(o *mofn.Trust) { o.Heartbeats[0].Comment = "a\nb" }, words: "control character"},
		"heartbeat-officer.bad":   {spoil: func(o *mofn.Trust) { o.Heartbeats = o.Keys[:1] }, words: "shares a half with the enrolled key"},
		"heartbeat-half.bad": {spoil: func(o *mofn.Trust) {
			o.Heartbeats = []mofn.TrustKey{grafted(t, "heartbeat-1", o.Keys[0].Public[1952:])}
		}, words: "shares a half with the enrolled key"},
		"heartbeat-link.bad":       {spoil: func(o *mofn.Trust) { o.Heartbeats = []mofn.TrustKey{grafted(t, "heartbeat-1", o.Links[0].Public)} }, words: "the link key"},
		"heartbeat-ticket.bad":     {spoil: func(o *mofn.Trust) { o.Heartbeats = []mofn.TrustKey{grafted(t, "heartbeat-1", o.Receivers[0].Ticket)} }, words: "the ticket key of receiver site-a"},
		"heartbeats-one-half.bad":  {spoil: func(o *mofn.Trust) { o.Heartbeats = twins(t, "heartbeat-1", "heartbeat-3") }, words: "the heartbeat key"},
		"log-heartbeat.bad":        {spoil: func(o *mofn.Trust) { o.Logs = []mofn.LogKey{log(o.Heartbeats[0])} }, words: "the heartbeat key"},
		"log-officer.bad":          {spoil: func(o *mofn.Trust) { o.Logs = []mofn.LogKey{log(o.Keys[0])} }, words: "the enrolled key"},
		"log-link.bad":             {spoil: func(o *mofn.Trust) { o.Logs = []mofn.LogKey{log(grafted(t, "log-1", o.Links[0].Public))} }, words: "the link key"},
		"log-two-origins.bad":      {spoil: func(o *mofn.Trust) { o.Logs[0] = logKey(t, o.Logs[0].Origin, "log-1") }, words: "the log key of sluice/high/site-a"},
		"logs-unsorted.bad":        {spoil: func(o *mofn.Trust) { slices.Reverse(o.Logs) }, words: "strict order"},
		"log-origin-twice.bad":     {spoil: func(o *mofn.Trust) { o.Logs[0].Origin = o.Logs[1].Origin }, words: "strict order"},
		"log-origin-side.bad":      {spoil: func(o *mofn.Trust) { o.Logs[0].Origin = "sluice/aside/site-a" }, words: "sluice/low/<id>"},
		"log-origin-deeper.bad":    {spoil: func(o *mofn.Trust) { o.Logs[0].Origin = "sluice/high/a/b" }, words: "sluice/low/<id>"},
		"log-origin-no-id.bad":     {spoil: func(o *mofn.Trust) { o.Logs[0].Origin = "sluice/high" }, words: "sluice/low/<id>"},
		"log-origin-no-prefix.bad": {spoil: func(o *mofn.Trust) { o.Logs[0].Origin = "high/site-a" }, words: "sluice/low/<id>"},
		"log-id.bad":               {spoil: func(o *mofn.Trust) { o.Logs[0].ID[0] ^= 1 }, words: "not its own"},
		"other-place.bad":          {spoil: func(o *mofn.Trust) { o.Heartbeats = nil }, after: replace(`"links"`, `"logs":[],"links"`), words: "canonical"},
	}
	return cases
}

// twins are two keys with one Ed25519 half, sorted.
func twins(t testing.TB, one, two string) []mofn.TrustKey {
	out := []mofn.TrustKey{trustKey(newKey(t, one), one), grafted(t, two, newKey(t, one).Public().Bytes()[1952:])}
	slices.SortFunc(out, func(a, b mofn.TrustKey) int { return bytes.Compare(a.ID[:], b.ID[:]) })
	return out
}

// TestOnlineVectors: heartbeat and log keys of the trust object (trust.md section 4).
func TestOnlineVectors(t *testing.T) {
	r := newRing(t)
	cases := onlineCases(t, r)
	if names, err := filepath.Glob(filepath.Join(vectors, "online-*.json")); !*update && (err != nil || len(names) != len(cases)) {
		t.Errorf("%d files of vectors for %d cases, %v", len(names), len(cases), err)
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			object := watched(t, r)
			if c.spoil != nil {
				c.spoil(object)
			}
			payload := rawPayload(t, object)
			if c.after != nil {
				payload = c.after(payload)
			}
			file := "online-" + name + ".json"
			if *update {
				if err := os.WriteFile(filepath.Join(vectors, file), payload, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(readVector(t, file), payload) {
				t.Errorf("%s is not what this code writes", file)
			}
			_, err := mofn.ParseTrust(payload)
			if good := strings.HasSuffix(name, ".good"); good != (err == nil) || err != nil && (!errors.Is(err, mofn.ErrTrust) || !strings.Contains(err.Error(), c.words)) {
				t.Errorf("%v; want %q", err, c.words)
			}
		})
	}
}

// TestHeartbeat: it gives heartbeat keys and no other, and a role of its own to none of them.
func TestHeartbeat(t *testing.T) {
	r := newRing(t)
	object := watched(t, r)
	for _, k := range object.Heartbeats {
		if key, ok := object.Heartbeat(k.ID); !ok || key.ID() != k.ID {
			t.Errorf("%v is not found", k.ID)
		}
	}
	for name, id := range map[string]mofn.KeyID{"an officer's": object.Keys[0].ID, "a log's": object.Logs[0].ID, "none": {}} {
		if _, ok := object.Heartbeat(id); ok {
			t.Errorf("%s key is a heartbeat key", name)
		}
	}
	policy, err := object.LoadPolicy()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range object.Heartbeats {
		if _, ok := policy.PublicKey(k.ID); ok {
			t.Errorf("the policy knows the heartbeat key %v", k.ID)
		}
	}
}

// TestLogsMost: 1,024 logs are taken, one more is not.
func TestLogsMost(t *testing.T) {
	if testing.Short() {
		t.Skip("1,025 keys")
	}
	object := firstTrust(t, newRing(t))
	for i := range 1024 {
		origin := fmt.Sprintf("sluice/high/e%04d", i)
		object.Logs = append(object.Logs, logKey(t, origin, origin))
	}
	if _, err := mofn.ParseTrust(rawPayload(t, object)); err != nil {
		t.Errorf("1,024 logs: %v", err)
	}
	object.Logs = append(object.Logs, logKey(t, "sluice/low/x", "one more"))
	if _, err := mofn.ParseTrust(rawPayload(t, object)); !errors.Is(err, mofn.ErrTrust) || !strings.Contains(err.Error(), "at most 1024") {
		t.Errorf("1,025: %v", err)
	}
}
