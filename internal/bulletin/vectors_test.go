// SPDX-License-Identifier: Apache-2.0

package bulletin_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/bulletin"
	"sluice/internal/site/sitetest"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// update writes the vectors anew. Signing is hedged, so their bytes change, and what they say does not.
var update = flag.Bool("update", false, "write the bulletin vectors anew")

// folder is that of bulletin.md section 6.
const folder = "../../testdata/vectors/bulletin"

// expected is the json beside a vector.
type expected struct {
	Counter int64    `json:"counter,omitempty"`
	Root    string   `json:"root,omitempty"`
	Trust   []string `json:"trust,omitempty"` // fingerprints
	Orders  []string `json:"orders,omitempty"`
	Head    string   `json:"head,omitempty"`
	Words   []string `json:"words,omitempty"`

	Refuse string `json:"refuse,omitempty"` // container, trust, order, snapshot or match
	Reason string `json:"reason,omitempty"` // for a person
}

// scene is what vectors are made of: two versions, three orders, a log.
type scene struct {
	*sitetest.World

	first, second []byte
	orders        [][]byte
}

func newScene(t testing.TB) *scene {
	w := sitetest.New(t)
	s := &scene{World: w}
	_, s.first = w.First(func(o *mofn.Trust) { // no more people than the vectors need
		w.SetPolicy(o, "officer alice key @alice\nofficer bob key @bob\nofficer carol key @carol\ngroup security 2 alice bob carol\npacker @packer\n"+
			"rule stream models/* quorum security\nstop security resume security\n")
	})
	s.second = w.Next(s.first, func(o *mofn.Trust) {
		o.Created = "2026-04-01T00:00:00Z"
		o.Heartbeats = w.Enrol("heartbeat-1", "heartbeat-2")
		k := w.Enrol("log-1")[0]
		o.Logs = []mofn.LogKey{{Origin: "sluice/low/bastion-1", ID: k.ID, Suite: k.Suite, Public: k.Public, Comment: "low side"}}
	})
	stop := w.Order(s.first, "alice", sitetest.Stop(mofn.KindStream, "models/*"))
	s.orders = [][]byte{stop, w.Order(s.first, "bob", w.Resume(stop)), w.Order(s.first, "carol", sitetest.Revoke(mofn.KindKey, w.ID("packer")))}
	return s
}

// says is the snapshot of everything in the scene.
func (s *scene) says() *mofn.Snapshot {
	n := s.Says(41, [][]byte{s.first, s.second}, s.orders)
	id := func(name string) string { sum := mofn.Fingerprint([]byte(name)); return hex.EncodeToString(sum[:]) }
	n.Releases = []mofn.Current{{Stream: "models/llm", Epoch: 1, Seq: 41, Release: id("a")}, {Stream: "models/llm", Epoch: 1, Seq: 42, Release: id("b")}, {Stream: "policy/edge", Seq: 1, Release: id("c")}}
	root := mofn.Fingerprint([]byte("tree"))
	n.Log = mofn.LogRef{Origin: "sluice/low/bastion-1", Size: 12, Root: base64.StdEncoding.EncodeToString(root[:])}
	return n
}

// parts are the sections of a bulletin with that snapshot.
func (s *scene) parts(snapshot []byte, orders ...[]byte) []part {
	out := []part{{1, 0, "", snapshot}, {2, 0, "000001", s.first}, {2, 0, "000002", s.second}}
	for _, o := range s.Sorted(orders) {
		out = append(out, part{3, 0, o.ID, o.Data})
	}
	return append(out, part{4, 0, "000000000000", []byte("a consistency proof\n")}, part{4, 0, "000000000007", []byte("another\n")})
}

// whole is a bulletin whose snapshot was edited before it was signed, or whose sections were after.
func (s *scene) whole(edit func(*mofn.Snapshot), spoil func([]part) []part) []byte {
	n := s.says()
	if edit != nil {
		edit(n)
	}
	p := s.parts(s.Snapshot(n), s.orders...)
	if spoil != nil {
		p = spoil(p)
	}
	return stream(p...)
}

// rawSnapshot signs a payload that Marshal would refuse: the good one with a text replaced.
func (s *scene) rawSnapshot(t testing.TB, from, to string) []byte {
	payload, err := s.says().Marshal()
	must(t, err)
	if !bytes.Contains(payload, []byte(from)) {
		t.Fatalf("the snapshot has no %q", from)
	}
	return s.DSSE(mofn.SnapshotPayloadType, bytes.Replace(payload, []byte(from), []byte(to), 1), mofn.RoleHeartbeat, "heartbeat-1")
}

// rawOrder signs an order that Marshal would refuse, in the place of the first.
func (s *scene) rawOrder(t testing.TB, from, to, role, key string) []byte {
	payload := s.Payload(s.orders[0])
	if !bytes.Contains(payload, []byte(from)) {
		t.Fatalf("the order has no %q", from)
	}
	bad := s.DSSE(mofn.OrderPayloadType, bytes.Replace(payload, []byte(from), []byte(to), 1), role, key)
	n := s.says()
	all := [][]byte{bad, s.orders[1], s.orders[2]}
	n.Orders = nil
	for _, o := range s.Sorted(all) {
		n.Orders = append(n.Orders, o.ID)
	}
	return stream(s.parts(s.Snapshot(n), all...)...)
}

type vector struct {
	data   []byte
	refuse string // "" is good
	words  string // of the refusal
}

func vectors(t testing.TB) map[string]vector {
	s := newScene(t)
	good := s.whole(nil, nil)
	put := func(at int, p part) func([]part) []part {
		return func(all []part) []part { all[at] = p; return all }
	}
	drop := func(at int) func([]part) []part {
		return func(all []part) []part { return slices.Delete(all, at, at+1) }
	}
	swap := func(i, j int) func([]part) []part {
		return func(all []part) []part { all[i], all[j] = all[j], all[i]; return all }
	}
	forged := s.Next(s.first, nil, "alice", "dave")
	// The container is refused before anybody looks into it.
	tiny := func(spoil func([]part) []part) []byte {
		return stream(spoil([]part{{1, 0, "", []byte("s")}, {2, 0, "000001", []byte("one")}, {2, 0, "000002", []byte("two")}, {4, 0, "000000000000", []byte("p")}})...)
	}
	small := tiny(func(all []part) []part { return all })
	other := s.Next(s.first, func(o *mofn.Trust) { o.Created = "2026-05-01T00:00:00Z" })
	return map[string]vector{
		"good-small":       {data: stream(part{1, 0, "", s.Snapshot(s.Says(1, [][]byte{s.first}, nil))}, part{2, 0, "000001", s.first})},
		"good-full":        {data: good},
		"good-no-proof":    {data: s.whole(nil, func(all []part) []part { return all[:6] })},
		"good-second-key":  {data: s.whole(nil, put(0, part{1, 0, "", s.Snapshot(s.says(), "heartbeat-2")}))},
		"good-one-order":   {data: stream(part{1, 0, "", s.Snapshot(s.Says(7, [][]byte{s.first}, s.orders[:1]))}, part{2, 0, "000001", s.first}, part{3, 0, s.Sorted(s.orders[:1])[0].ID, s.orders[0]})},
		"bad-magic":        {append([]byte("SLUICE\x01\n"), small[8:]...), "container", "magic"},
		"bad-cut":          {small[:len(small)-1], "container", "cut off"},
		"bad-behind":       {append(bytes.Clone(small), '\n'), "container", "after the end"},
		"bad-damaged":      {bytes.Replace(small, []byte("one"), []byte("ode"), 1), "container", "damaged"},
		"bad-no-snapshot":  {tiny(drop(0)), "container", "does not come first"},
		"bad-gap":          {tiny(drop(1)), "container", `"000001" is due`},
		"bad-order-place":  {tiny(swap(2, 3)), "container", "type 2 after one of type 4"},
		"bad-order-sorted": {s.whole(nil, swap(3, 4)), "container", "does not come after"},
		"bad-reserved":     {tiny(func(all []part) []part { all[0].reserved = 1; return all }), "container", "reserved"},
		"bad-empty-proof":  {tiny(put(3, part{4, 0, "000000000000", nil})), "container", "0 bytes"},
		"bad-proof-name":   {tiny(put(3, part{4, 0, "", []byte("p")})), "container", "old size"},
		"bad-type":         {tiny(put(3, part{5, 0, "", []byte("x")})), "container", "type 5"},
		"bad-order-name":   {s.whole(nil, func(all []part) []part { all[5].name = strings.Repeat("f", 64); return all }), "container", "in section"},

		"bad-trust-quorum":  {s.whole(nil, put(2, part{2, 0, "000002", forged})), "trust", "quorum"},
		"bad-trust-version": {s.whole(nil, put(2, part{2, 0, "000002", s.first})), "trust", "version"},

		"bad-snapshot-white-space": {s.whole(nil, put(0, part{1, 0, "", s.rawSnapshot(t, `,"counter"`, `, "counter"`)})), "snapshot", "canonical"},
		"bad-snapshot-counter":     {s.whole(nil, put(0, part{1, 0, "", s.rawSnapshot(t, `"counter":41`, `"counter":0`)})), "snapshot", "counter"},
		"bad-snapshot-interval":    {s.whole(nil, put(0, part{1, 0, "", s.rawSnapshot(t, `"interval":60`, `"interval":86401`)})), "snapshot", "interval"},
		"bad-snapshot-at":          {s.whole(nil, put(0, part{1, 0, "", s.rawSnapshot(t, `:00Z","trust"`, `:00+00:00","trust"`)})), "snapshot", "at "},
		"bad-snapshot-stream":      {s.whole(nil, put(0, part{1, 0, "", s.rawSnapshot(t, `"stream":"models/llm"`, `"stream":"models/*"`)})), "snapshot", "stream"},
		"bad-snapshot-unsorted":    {s.whole(nil, put(0, part{1, 0, "", s.rawSnapshot(t, `"seq":41`, `"seq":43`)})), "snapshot", "strict order"},
		"bad-snapshot-origin":      {s.whole(nil, put(0, part{1, 0, "", s.rawSnapshot(t, `sluice/low/`, `sluice/mid/`)})), "snapshot", "log"},
		"bad-snapshot-type":        {s.whole(nil, put(0, part{1, 0, "", s.DSSE(mofn.OrderPayloadType, s.Payload(s.Snapshot(s.says())), mofn.RoleHeartbeat, "heartbeat-1")})), "snapshot", "payload"},
		"bad-snapshot-officer":     {s.whole(nil, put(0, part{1, 0, "", s.DSSE(mofn.SnapshotPayloadType, s.Payload(s.Snapshot(s.says())), mofn.RoleHeartbeat, "alice")})), "snapshot", "no heartbeat key"},
		"bad-snapshot-role":        {s.whole(nil, put(0, part{1, 0, "", s.DSSE(mofn.SnapshotPayloadType, s.Payload(s.Snapshot(s.says())), "log", "heartbeat-1")})), "snapshot", "signature"},
		"bad-snapshot-two":         {s.whole(nil, put(0, part{1, 0, "", s.Snapshot(s.says(), "heartbeat-1", "heartbeat-2")})), "snapshot", "exactly one"},
		"bad-snapshot-root":        {s.whole(func(n *mofn.Snapshot) { n.Root = strings.Repeat("a", 64) }, nil), "snapshot", "another site"},

		"bad-order-white-space": {s.rawOrder(t, `,"kind"`, `, "kind"`, "security", "alice"), "order", "canonical"},
		"bad-order-revoke":      {s.rawOrder(t, `"action":"stop"`, `"action":"revoke"`, "security", "alice"), "order", "cannot be revoked"},
		"bad-order-pattern":     {s.rawOrder(t, `models/*`, `models*`, "security", "alice"), "order", "target"},
		"bad-order-lifts":       {s.rawOrder(t, `"lifts":[]`, `"lifts":["`+strings.Repeat("a", 64)+`"]`, "security", "alice"), "order", "lifts nothing"},
		"bad-order-no-reason":   {s.rawOrder(t, `the build host was entered`, ``, "security", "alice"), "order", "reason"},
		"bad-order-role":        {s.rawOrder(t, `,"kind"`, `,"kind"`, "root", "alice"), "order", "signature"},
		"bad-order-officer":     {s.rawOrder(t, `,"kind"`, `,"kind"`, "security", "bob"), "order", "speaks for"},
		"bad-order-site":        {s.rawOrder(t, `"root":"`+s.Root(s.first), `"root":"`+strings.Repeat("a", 64), "security", "alice"), "order", "another site"},
		"bad-order-stranger":    {s.rawOrder(t, `,"kind"`, `,"kind"`, "security", "mallory"), "order", "no enrolled"},

		"bad-match-left-out":    {s.whole(nil, drop(5)), "match", "left one out"},
		"bad-match-put-in":      {s.whole(func(n *mofn.Snapshot) { n.Orders = n.Orders[1:] }, nil), "match", "put one in"},
		"bad-match-version":     {s.whole(func(n *mofn.Snapshot) { n.Trust.Version = 3 }, nil), "match", "names version 3"},
		"bad-match-fingerprint": {s.whole(nil, put(2, part{2, 0, "000002", other})), "match", "the chain ends with"},
		"bad-match-proof":       {s.whole(func(n *mofn.Snapshot) { n.Log = mofn.LogRef{} }, nil), "match", "proof"},
	}
}

// refusal is a verdict: which part, and why.
type refusal struct {
	part string
	error
}

func signatures(d *envelope.DSSE) (out []mofn.Signature) {
	for _, g := range d.Signatures {
		out = append(out, mofn.Signature(g))
	}
	return out
}

// verdict judges a bulletin by itself, as read_bulletin.py does: each part by its form, and by the keys of the chain that it holds.
func verdict(data []byte) (expected, *refusal) {
	no := func(part string, err error) (expected, *refusal) { return expected{}, &refusal{part, err} }
	b, err := bulletin.Read(bytes.NewReader(data))
	if err != nil {
		return no("container", err)
	}
	var out expected
	var chain []*mofn.Trust
	for i, raw := range b.Trust {
		st, err := trust.Parse(raw)
		if err == nil && i > 0 {
			d, _ := envelope.ParseDSSE(raw, len(raw))
			_, err = mofn.VerifyTrust(chain[i-1], d.Payload, signatures(d), envelope.PAE(d.PayloadType, d.Payload))
		}
		if err != nil {
			return no("trust", err)
		}
		chain, out.Trust = append(chain, st.Object), append(out.Trust, hex.EncodeToString(st.Fingerprint[:]))
	}
	out.Root = out.Trust[0]
	for _, o := range b.Orders {
		d, _ := envelope.ParseDSSE(o.Data, len(o.Data))
		err := errors.New("no version")
		for _, t := range chain {
			p, _ := t.LoadPolicy()
			if _, err = p.VerifyOrder(out.Root, d.Payload, signatures(d), envelope.PAE(d.PayloadType, d.Payload)); !errors.Is(err, mofn.ErrUnknownSigner) {
				break
			}
		}
		if err != nil {
			return no("order", err)
		}
		out.Orders = append(out.Orders, o.ID)
	}
	d, err := envelope.ParseDSSE(b.Snapshot, len(b.Snapshot))
	if err != nil {
		return no("snapshot", err)
	}
	s, err := mofn.VerifySnapshot(chain, d.Payload, signatures(d), envelope.PAE(d.PayloadType, d.Payload))
	if err == nil && s.Root != out.Root {
		err = errors.New("another site's")
	}
	if err != nil {
		return no("snapshot", err)
	}
	if err := b.Matches(s); err != nil {
		return no("match", err)
	}
	head, err := s.Head()
	if err != nil {
		return no("snapshot", err)
	}
	out.Counter, out.Head = s.Counter, hex.EncodeToString(head[:])
	out.Words, _ = s.Words()
	return out, nil
}

// TestVectors: the files are these cases, and each is judged as it says.
func TestVectors(t *testing.T) {
	cases := vectors(t)
	if names, err := filepath.Glob(filepath.Join(folder, "*.bulletin")); !*update && (err != nil || len(names) != len(cases)) {
		t.Errorf("%d files of vectors for %d cases, %v", len(names), len(cases), err)
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(folder, name)
			got, no := verdict(c.data)
			check(t, c, no)
			if no != nil {
				got = expected{Refuse: no.part, Reason: c.words}
			}
			if *update {
				b, err := json.MarshalIndent(got, "", " ")
				must(t, err)
				must(t, os.WriteFile(file+".json", append(b, '\n'), 0o644))
				must(t, os.WriteFile(file+".bulletin", c.data, 0o644))
			}
			data, err := os.ReadFile(file + ".bulletin")
			must(t, err)
			var want expected
			b, err := os.ReadFile(file + ".json")
			must(t, err)
			must(t, json.Unmarshal(b, &want))
			got, no = verdict(data)
			check(t, c, no)
			if no != nil {
				got = expected{Refuse: no.part, Reason: c.words}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		})
	}
}

func check(t *testing.T, c vector, no *refusal) {
	t.Helper()
	switch {
	case no == nil && c.refuse != "":
		t.Errorf("taken; want a refusal of its %s", c.refuse)
	case no != nil && (no.part != c.refuse || !strings.Contains(no.Error(), c.words)):
		t.Errorf("%s: %v; want %q: %q", no.part, no.error, c.refuse, c.words)
	}
}

// readPython runs the second reader over a folder.
func readPython(t *testing.T, dir string) (string, error) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not here: the second reader of the bulletin vectors did NOT run")
	}
	out, err := exec.CommandContext(t.Context(), python, "-B", filepath.Join(folder, "read_bulletin.py"), dir).CombinedOutput()
	return string(out), err
}

// TestSecondReader: it comes to the same verdict on every vector.
func TestSecondReader(t *testing.T) {
	out, err := readPython(t, folder)
	if names, _ := filepath.Glob(filepath.Join(folder, "*.bulletin")); err != nil || !strings.Contains(out, fmt.Sprintf("%d vectors, 0 wrong", len(names))) {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestSecondReaderCanFail spoils what is expected of one vector at a time.
func TestSecondReaderCanFail(t *testing.T) {
	for file, change := range map[string][2]string{
		"good-full.json":        {`"counter": 41`, `"counter": 42`},
		"good-small.json":       {`"words": [`, `"words": ["zoo",`},
		"bad-cut.json":          {"container", "match"},
		"good-one-order.json":   {`"head": "`, `"head": "0`},
		"bad-match-proof.json":  {"match", "snapshot"},
		"bad-order-site.json":   {`"refuse": "order"`, `"refuse": "trust"`},
		"bad-trust-quorum.json": {`"refuse": "trust"`, `"refuse": "order"`},
	} {
		t.Run(file, func(t *testing.T) {
			dir := t.TempDir()
			name := strings.TrimSuffix(file, ".json") + ".bulletin"
			whole, err := os.ReadFile(filepath.Join(folder, name))
			must(t, err)
			must(t, os.WriteFile(filepath.Join(dir, name), whole, 0o644))
			old, err := os.ReadFile(filepath.Join(folder, file))
			must(t, err)
			spoilt := bytes.Replace(old, []byte(change[0]), []byte(change[1]), 1)
			if bytes.Equal(old, spoilt) {
				t.Fatalf("%s has no %q", file, change[0])
			}
			must(t, os.WriteFile(filepath.Join(dir, file), spoilt, 0o644))
			if out, err := readPython(t, dir); err == nil || !strings.Contains(out, "FAIL "+strings.TrimSuffix(file, ".json")) || !strings.Contains(out, " 1 wrong") {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
