// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/mofn"
)

func goodSnapshot() mofn.Snapshot {
	return mofn.Snapshot{
		Site: "bastion-1", Root: digest(0xf00d), Counter: 7, Interval: 60, At: "2026-11-22T01:40:00Z",
		Trust: mofn.TrustRef{Version: 2, Fingerprint: digest(2)}, Orders: []string{digest(1), digest(2)},
		Releases: []mofn.Current{{Stream: "models/llm", Epoch: 1, Seq: 41, Release: digest(41)}, {Stream: "models/llm", Epoch: 1, Seq: 42, Release: digest(42)}, {Stream: "models/raw", Seq: 1, Release: digest(1)}},
		Log:      mofn.LogRef{Origin: "sluice/low/bastion-1", Size: 12, Root: base64.StdEncoding.EncodeToString(make([]byte, 32))},
	}
}

func snapshotPayload(t testing.TB, s *mofn.Snapshot) []byte {
	t.Helper()
	b, err := mofn.EncodeSnapshot(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSnapshotRoundTrip(t *testing.T) {
	s := goodSnapshot()
	payload, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := mofn.ParseSnapshot(payload)
	if err != nil || cmp.Diff(&s, got) != "" {
		t.Fatalf("%v %s", err, cmp.Diff(&s, got))
	}
	s.Orders, s.Releases, s.Log = nil, nil, mofn.LogRef{}
	if payload, err = s.Marshal(); err != nil || !strings.HasSuffix(string(payload), `"orders":[],"releases":[],"log":{"origin":"","size":0,"root":""}}`) {
		t.Errorf("empty lists: %s %v", payload, err)
	}
}

// TestSnapshotRefused: each rule of the table of bulletin.md section 2, with the words of its refusal.
func TestSnapshotRefused(t *testing.T) {
	swap := func(i, j int) func(*mofn.Snapshot) {
		return func(s *mofn.Snapshot) { s.Releases[i], s.Releases[j] = s.Releases[j], s.Releases[i] }
	}
	for _, c := range []struct {
		name  string
		spoil func(s *mofn.Snapshot)
		words string
	}{
		{"no site", func(s *mofn.Snapshot) { s.Site = "" }, "site"},
		{"site in capitals", func(s *mofn.Snapshot) { s.Site = "Bastion" }, "site"},
		{"site of 65", func(s *mofn.Snapshot) { s.Site = strings.Repeat("a", 65) }, "site"},
		{"no root", func(s *mofn.Snapshot) { s.Root = "" }, "root"},
		{"root in capitals", func(s *mofn.Snapshot) { s.Root = strings.Repeat("A", 64) }, "root"},
		{"counter 0", func(s *mofn.Snapshot) { s.Counter = 0 }, "counter"},
		{"counter negative", func(s *mofn.Snapshot) { s.Counter = -1 }, "counter"},
		{"counter 2^53", func(s *mofn.Snapshot) { s.Counter = 1 << 53 }, "counter"},
		{"interval 0", func(s *mofn.Snapshot) { s.Interval = 0 }, "interval"},
		{"interval of more than a day", func(s *mofn.Snapshot) { s.Interval = 86401 }, "interval"},
		{"at with an offset", func(s *mofn.Snapshot) { s.At = "2026-11-22T01:40:00+01:00" }, "at "},
		{"at with a fraction", func(s *mofn.Snapshot) { s.At = "2026-11-22T01:40:00.000Z" }, "at "},
		{"trust version 0", func(s *mofn.Snapshot) { s.Trust.Version = 0 }, "trust version"},
		{"trust version 2^53", func(s *mofn.Snapshot) { s.Trust.Version = 1 << 53 }, "trust version"},
		{"trust fingerprint", func(s *mofn.Snapshot) { s.Trust.Fingerprint = "aa" }, "trust fingerprint"},
		{"order twice", func(s *mofn.Snapshot) { s.Orders[1] = s.Orders[0] }, "strict order"},
		{"orders out of order", func(s *mofn.Snapshot) { slices.Reverse(s.Orders) }, "strict order"},
		{"order that is no id", func(s *mofn.Snapshot) { s.Orders[0] = "" }, "SHA-256"},
		{"1,025 orders", func(s *mofn.Snapshot) { s.Orders = ids(1025) }, "at most 1024"},
		{"release of no stream", func(s *mofn.Snapshot) { s.Releases[0].Stream = "" }, "stream"},
		{"release of a pattern", func(s *mofn.Snapshot) { s.Releases[0].Stream = "models/*" }, "stream"},
		{"release that is no id", func(s *mofn.Snapshot) { s.Releases[0].Release = "llm" }, "release id"},
		{"epoch negative", func(s *mofn.Snapshot) { s.Releases[0].Epoch = -1 }, "epoch -1"},
		{"seq 0", func(s *mofn.Snapshot) { s.Releases[0].Seq = 0 }, "seq 0"},
		{"seq 2^53", func(s *mofn.Snapshot) { s.Releases[1].Seq = 1 << 53 }, "seq 9007199254740992"},
		{"epoch 2^53", func(s *mofn.Snapshot) { s.Releases[1].Epoch = 1 << 53 }, "epoch 9007199254740992"},
		{"releases out of the order of seq", swap(0, 1), "strict order"},
		{"releases out of the order of stream", swap(1, 2), "strict order"},
		{"two releases of one seq", func(s *mofn.Snapshot) { s.Releases[1].Seq = 41 }, "strict order"},
		{"epoch falls", func(s *mofn.Snapshot) { s.Releases[1].Epoch = 0 }, "strict order"},
		{"8,193 releases", func(s *mofn.Snapshot) { s.Releases = releases(8193, "s") }, "at most 8192"},
		{"log without size", func(s *mofn.Snapshot) { s.Log.Size = 0 }, "log"},
		{"log with size alone", func(s *mofn.Snapshot) { s.Log = mofn.LogRef{Size: 1} }, "log"},
		{"log of a third side", func(s *mofn.Snapshot) { s.Log.Origin = "sluice/mid/x" }, "log"},
		{"log without an id", func(s *mofn.Snapshot) { s.Log.Origin = "sluice/low/" }, "log"},
		{"log without a prefix", func(s *mofn.Snapshot) { s.Log.Origin = "low/x" }, "log"},
		{"log root in hexadecimal", func(s *mofn.Snapshot) { s.Log.Root = digest(1) }, "log"},
		{"log root of 31 bytes", func(s *mofn.Snapshot) { s.Log.Root = base64.StdEncoding.EncodeToString(make([]byte, 31)) }, "log"},
		{"log root not in its one form", func(s *mofn.Snapshot) { s.Log.Root = s.Log.Root[:42] + "B=" }, "log"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := goodSnapshot()
			c.spoil(&s)
			got, err := mofn.ParseSnapshot(snapshotPayload(t, &s))
			if got != nil || !errors.Is(err, mofn.ErrSnapshot) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v, error %v; want %q", got, err, c.words)
			}
			if b, err := s.Marshal(); b != nil || !errors.Is(err, mofn.ErrSnapshot) {
				t.Errorf("Marshal wrote it: %v", err)
			}
		})
	}
}

func ids(n int) (out []string) {
	for i := range n {
		out = append(out, digest(i))
	}
	return out
}

func releases(n int, stream string) (out []mofn.Current) {
	for i := range n {
		out = append(out, mofn.Current{Stream: stream, Epoch: 1<<53 - 1, Seq: 1<<53 - 1 - int64(n) + int64(i), Release: digest(i)})
	}
	return out
}

// TestSnapshotLargest: what section 2 allows fits into the cap.
func TestSnapshotLargest(t *testing.T) {
	s := goodSnapshot()
	s.Orders, s.Releases = ids(1024), releases(8192, strings.Repeat("s", 128))
	payload, err := s.Marshal()
	if err != nil || len(payload) > mofn.MaxSnapshot {
		t.Fatalf("%d bytes: %v", len(payload), err)
	}
	t.Logf("%d bytes, at most %d", len(payload), mofn.MaxSnapshot)
	if _, err := mofn.ParseSnapshot(make([]byte, mofn.MaxSnapshot+1)); !errors.Is(err, mofn.ErrSnapshot) || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a byte more: %v", err)
	}
}

func TestSnapshotCanonical(t *testing.T) {
	s := goodSnapshot()
	good := string(snapshotPayload(t, &s))
	for name, bad := range map[string]string{
		"empty": "", "null": "null", "white space": strings.Replace(good, ":", ": ", 1), "newline": good + "\n",
		"another type":   strings.Replace(good, "snapshot-v1", "snapshot-v2", 1),
		"orders null":    `{"type":"sluice-snapshot-v1","site":"a","root":"` + digest(1) + `","counter":1,"interval":1,"at":"2026-11-22T01:40:00Z","trust":{"version":1,"fingerprint":"` + digest(1) + `"},"orders":null,"releases":[],"log":{"origin":"","size":0,"root":""}}`,
		"releases null":  `{"type":"sluice-snapshot-v1","site":"a","root":"` + digest(1) + `","counter":1,"interval":1,"at":"2026-11-22T01:40:00Z","trust":{"version":1,"fingerprint":"` + digest(1) + `"},"orders":[],"releases":null,"log":{"origin":"","size":0,"root":""}}`,
		"unknown field":  strings.Replace(good, `"site"`, `"sites":1,"site"`, 1),
		"counter a text": strings.Replace(good, `"counter":7`, `"counter":"7"`, 1),
		"counter 7.0":    strings.Replace(good, `"counter":7`, `"counter":7.0`, 1),
		"log left out":   good[:strings.Index(good, `,"log"`)] + "}",
	} {
		if got, err := mofn.ParseSnapshot([]byte(bad)); got != nil || !errors.Is(err, mofn.ErrSnapshot) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// TestHead: the words change when something did, and not with counter, clock, interval or log.
func TestHead(t *testing.T) {
	words := func(spoil func(*mofn.Snapshot)) string {
		s := goodSnapshot()
		spoil(&s)
		w, err := s.Words()
		if err != nil || len(w) != 6 {
			t.Fatalf("%v %v", w, err)
		}
		return strings.Join(w, " ")
	}
	same := words(func(*mofn.Snapshot) {})
	for name, spoil := range map[string]func(*mofn.Snapshot){
		"counter": func(s *mofn.Snapshot) { s.Counter = 8 }, "at": func(s *mofn.Snapshot) { s.At = "2026-11-23T01:40:00Z" },
		"interval": func(s *mofn.Snapshot) { s.Interval = 5 }, "log": func(s *mofn.Snapshot) { s.Log.Size++ }, "site": func(s *mofn.Snapshot) { s.Site = "b" },
	} {
		if got := words(spoil); got != same {
			t.Errorf("%s changes the words", name)
		}
	}
	seen := map[string]string{same: "nothing"}
	for name, spoil := range map[string]func(*mofn.Snapshot){
		"trust version": func(s *mofn.Snapshot) { s.Trust.Version++ }, "trust": func(s *mofn.Snapshot) { s.Trust.Fingerprint = digest(3) },
		"an order": func(s *mofn.Snapshot) { s.Orders = s.Orders[:1] }, "a release": func(s *mofn.Snapshot) { s.Releases = s.Releases[:2] },
		"seq": func(s *mofn.Snapshot) { s.Releases[1].Seq++ },
	} {
		got := words(spoil)
		if other, twice := seen[got]; twice {
			t.Errorf("%s: the words of %s", name, other)
		}
		seen[got] = name
	}
}

func TestSnapshotNames(t *testing.T) {
	s := goodSnapshot()
	c := s.Releases[1]
	if !s.Names(c) {
		t.Error("a release that it names")
	}
	for name, spoil := range map[string]func(*mofn.Current){
		"stream": func(c *mofn.Current) { c.Stream = "models/raw" }, "epoch": func(c *mofn.Current) { c.Epoch++ },
		"seq": func(c *mofn.Current) { c.Seq++ }, "id": func(c *mofn.Current) { c.Release = digest(41) },
	} {
		other := c
		if spoil(&other); s.Names(other) {
			t.Errorf("one with another %s", name)
		}
	}
}

// TestVerifySnapshot: only a heartbeat key speaks, in its role, once.
func TestVerifySnapshot(t *testing.T) {
	r := newRing(t)
	with := func(names ...string) *mofn.Trust {
		o := firstTrust(t, r)
		o.Heartbeats = onlineKeys(t, names...)
		return o
	}
	hb, other, logs := newKey(t, "heartbeat-1"), newKey(t, "heartbeat-2"), newKey(t, "log-1")
	s := goodSnapshot()
	payload := snapshotPayload(t, &s)
	message := mofn.PAE(mofn.SnapshotPayloadType, payload)
	spoilt := goodSnapshot()
	spoilt.Counter = 0
	bad := snapshotPayload(t, &spoilt)
	one := with("heartbeat-1")
	one.Logs = []mofn.LogKey{logKey(t, "sluice/low/bastion-1", "log-1")}
	by := func(k *mofn.PrivateKey, role string) []mofn.Signature {
		return []mofn.Signature{signature(t, k, role, message)}
	}
	for _, c := range []struct {
		name             string
		keys             []*mofn.Trust
		payload, message []byte
		sigs             []mofn.Signature
		want             error
		words            string
	}{
		{"its key", []*mofn.Trust{one}, payload, message, by(hb, mofn.RoleHeartbeat), nil, ""},
		{"the key of a later version", []*mofn.Trust{one, with("heartbeat-2")}, payload, message, by(other, mofn.RoleHeartbeat), nil, ""},
		{"a key that nobody enrolled", []*mofn.Trust{one}, payload, message, by(other, mofn.RoleHeartbeat), mofn.ErrSignature, "no heartbeat key"},
		{"no version", nil, payload, message, by(hb, mofn.RoleHeartbeat), mofn.ErrSignature, "no heartbeat key"},
		{"no heartbeat keys", []*mofn.Trust{with()}, payload, message, by(hb, mofn.RoleHeartbeat), mofn.ErrSignature, "no heartbeat key"},
		{"role confusion: a log key", []*mofn.Trust{one}, payload, message, by(logs, mofn.RoleHeartbeat), mofn.ErrSignature, "no heartbeat key"},
		{"role confusion: an officer", []*mofn.Trust{one}, payload, message, by(r["alice"], mofn.RoleHeartbeat), mofn.ErrSignature, "no heartbeat key"},
		{"role confusion: the packer", []*mofn.Trust{one}, payload, message, by(r["packer"], mofn.RoleHeartbeat), mofn.ErrSignature, "no heartbeat key"},
		{"role confusion: signed as a log", []*mofn.Trust{one}, payload, message, by(hb, "log"), mofn.ErrSignature, ""},
		{"role confusion: signed as a packer", []*mofn.Trust{one}, payload, message, by(hb, mofn.RolePacker), mofn.ErrSignature, ""},
		{"no signature", []*mofn.Trust{one}, payload, message, nil, mofn.ErrSignature, "exactly one"},
		{"two signatures", []*mofn.Trust{one}, payload, message, append(by(hb, mofn.RoleHeartbeat), by(other, mofn.RoleHeartbeat)...), mofn.ErrSignature, "exactly one"},
		{"key id that is none", []*mofn.Trust{one}, payload, message, []mofn.Signature{{KeyID: "x"}}, mofn.ErrSnapshot, ""},
		{"another payload", []*mofn.Trust{one}, bad, message, by(hb, mofn.RoleHeartbeat), mofn.ErrSignature, "not this payload"},
		{"signed and malformed", []*mofn.Trust{one}, bad, mofn.PAE(mofn.SnapshotPayloadType, bad), []mofn.Signature{signature(t, hb, mofn.RoleHeartbeat, mofn.PAE(mofn.SnapshotPayloadType, bad))}, mofn.ErrSnapshot, "counter"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := mofn.VerifySnapshot(c.keys, c.payload, c.sigs, c.message)
			if c.want == nil {
				if err != nil || got.Counter != 7 {
					t.Errorf("%v, %v", got, err)
				}
				return
			}
			if got != nil || !errors.Is(err, c.want) || !errors.Is(err, mofn.ErrSnapshot) || !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v, error %v; want %v, %q", got, err, c.want, c.words)
			}
		})
	}
}

// FuzzParseSnapshot: what is accepted has exactly one form, and a head.
func FuzzParseSnapshot(f *testing.F) {
	s := goodSnapshot()
	f.Add(snapshotPayload(f, &s))
	s.Orders, s.Releases, s.Log = nil, nil, mofn.LogRef{}
	f.Add(snapshotPayload(f, &s))
	f.Add([]byte(fmt.Sprintf(`{"type":"sluice-snapshot-v1","root":%q}`, digest(1))))
	f.Fuzz(func(t *testing.T, payload []byte) {
		got, err := mofn.ParseSnapshot(payload)
		if err != nil {
			if got != nil || !errors.Is(err, mofn.ErrSnapshot) {
				t.Fatalf("%v, %v", got, err)
			}
			return
		}
		if again, err := got.Marshal(); err != nil || !bytes.Equal(again, payload) {
			t.Fatalf("not written as read: %v", err)
		}
		if words, err := got.Words(); err != nil || len(words) != 6 {
			t.Fatal(words, err)
		}
	})
}
