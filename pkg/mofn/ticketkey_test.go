// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/pkg/mofn"
)

// asking is a trust object with two receivers, of which the first may ask for what is missing.
func asking(t testing.TB, r ring) *mofn.Trust {
	first := firstTrust(t, r)
	second := secretOf(t, mofn.SuiteXWing, "site-b")
	first.Receivers = append(first.Receivers, mofn.Receiver{Name: "site-b", HPKE: second.Public, Comment: "standby"})
	first.Receivers[0].Ticket = secretOf(t, mofn.SuiteTicket, "ticket site-a").Public
	return first
}

// ticketKeyCases are the vectors ticket-*.json: what is done to asking, and a word of the refusal; "" is good.
func ticketKeyCases(t testing.TB, r ring) map[string]struct {
	spoil func(*mofn.Trust)
	after func([]byte) []byte // of the payload
	words string
} {
	type entry = struct {
		spoil func(*mofn.Trust)
		after func([]byte) []byte
		words string
	}
	replace := func(from, to string) func([]byte) []byte {
		return func(b []byte) []byte { return bytes.Replace(b, []byte(from), []byte(to), 1) }
	}
	key := func(name string) []byte { return secretOf(t, mofn.SuiteTicket, "ticket "+name).Public }
	return map[string]entry{
		"key.good":        {words: ""},
		"both.good":       {spoil: func(o *mofn.Trust) { o.Receivers[1].Ticket = key("site-b") }},
		"shared.bad":      {spoil: func(o *mofn.Trust) { o.Receivers[1].Ticket = o.Receivers[0].Ticket }, words: "ticket key of receiver site-a too"},
		"link.bad":        {spoil: func(o *mofn.Trust) { o.Receivers[0].Ticket = o.Links[0].Public }, words: "is the link key"},
		"half.bad":        {spoil: func(o *mofn.Trust) { o.Receivers[0].Ticket = o.Keys[0].Public[1952:] }, words: "is half of the key"},
		"low-order.bad":   {spoil: func(o *mofn.Trust) { o.Receivers[0].Ticket = make([]byte, 32) }, words: "low-order"},
		"short.bad":       {spoil: func(o *mofn.Trust) { o.Receivers[0].Ticket = o.Receivers[0].Ticket[1:] }, words: "has 31 bytes"},
		"empty.bad":       {spoil: func(o *mofn.Trust) { o.Receivers[0].Ticket = nil }, after: replace(`"comment":"enclave"`, `"ticket":"","comment":"enclave"`), words: "canonical"},
		"null.bad":        {spoil: func(o *mofn.Trust) { o.Receivers[0].Ticket = nil }, after: replace(`"comment":"enclave"`, `"ticket":null,"comment":"enclave"`), words: "canonical"},
		"other-place.bad": {spoil: func(o *mofn.Trust) { o.Receivers[0].Ticket = nil }, after: replace(`"comment":"enclave"`, `"comment":"enclave","ticket":"`+strings.Repeat("A", 43)+`="`), words: "canonical"},
	}
}

func TestTicketKeyVectors(t *testing.T) {
	r := newRing(t)
	cases := ticketKeyCases(t, r)
	if names, err := filepath.Glob(filepath.Join(vectors, "ticket-*.json")); !*update && (err != nil || len(names) != len(cases)) {
		t.Errorf("%d files of vectors for %d cases, %v", len(names), len(cases), err)
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			object := asking(t, r)
			if c.spoil != nil {
				c.spoil(object)
			}
			payload := rawPayload(t, object)
			if c.after != nil {
				payload = c.after(payload)
			}
			file := "ticket-" + name + ".json"
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

// TestNoTicketKey: an object without ticket keys has the bytes that it always had.
func TestNoTicketKey(t *testing.T) {
	object, err := mofn.ParseTrust(readVector(t, "trust-1.json"))
	if err != nil {
		t.Fatal(err)
	}
	if object.Receivers[0].Ticket != nil || !bytes.Equal(marshal(t, object), readVector(t, "trust-1.json")) {
		t.Error("trust-1.json is not written as it was before there were ticket keys")
	}
}
