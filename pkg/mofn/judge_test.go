// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"sluice/pkg/mofn"
)

// court is a history of trust objects and the orders that were accepted under them. Names stand for ids: "s1" is an order, "llm-41" a
// release, "@alice" a key, "/alice" the Ed25519 half of a key.
type court struct {
	t      testing.TB
	ring   ring
	rulers []mofn.Ruler
	orders []mofn.SignedOrder
	ids    map[string]string // order name -> id
}

func newCourt(t testing.TB, r ring) *court {
	c := &court{t: t, ring: r, ids: map[string]string{}}
	return c.version(basePolicy + "stop security resume security\n")
}

// version puts the next trust object into effect.
func (c *court) version(policy string) *court {
	c.t.Helper()
	p := mustPolicy(c.t, c.ring.fill(policy), c.ring.enrolledBut())
	c.rulers = append(c.rulers, mofn.Ruler{Version: int64(len(c.rulers) + 1), Policy: p, Root: "release"})
	return c
}

// enrolledBut is everybody, mallory too: which keys count is the policy's word.
func (r ring) enrolledBut() []mofn.TrustKey {
	var out []mofn.TrustKey
	for name, k := range r {
		out = append(out, trustKey(k, name))
	}
	slices.SortFunc(out, func(a, b mofn.TrustKey) int { return strings.Compare(a.ID.String(), b.ID.String()) })
	return out
}

func (c *court) target(s string) string {
	switch {
	case strings.HasPrefix(s, "@"):
		return c.ring.id(s[1:])
	case strings.HasPrefix(s, "/"):
		return c.ring[s[1:]].Public().HalfIDs()[1].String()
	case strings.HasPrefix(s, "llm-"):
		return hex.EncodeToString(releaseID(s))
	}
	return s
}

func releaseID(name string) []byte {
	sum := mofn.Fingerprint([]byte(name))
	return sum[:]
}

// give accepts an order under the newest version: "s1 alice stop stream models/*", "r1 bob resume s1 s2", "k1 carol revoke key @dave".
// "alice2" is alice with her second key.
func (c *court) give(line string) *court {
	c.t.Helper()
	w := strings.Fields(line)
	under := c.rulers[len(c.rulers)-1]
	key := c.ring[w[1]].Public().ID()
	who, group, ok := under.Policy.OfficerOf(key)
	if !ok {
		c.t.Fatalf("%s: nobody's key under version %d", line, under.Version)
	}
	o := mofn.Order{Root: digest(1), Action: w[2], Officer: who, Role: group, At: "2026-11-22T01:40:00Z", Reason: w[0]}
	if o.Action == mofn.ActionResume {
		for _, name := range w[3:] {
			id, ok := c.ids[name]
			if !ok {
				id = hex.EncodeToString(releaseID(name)) // a stop that never was
			}
			o.Lifts = append(o.Lifts, id)
		}
		slices.Sort(o.Lifts)
	} else {
		o.Kind = w[3]
		if len(w) > 4 {
			o.Target = c.target(w[4])
		}
	}
	payload, err := o.Marshal()
	if err != nil {
		c.t.Fatalf("%s: %v", line, err)
	}
	c.ids[w[0]] = mofn.OrderID(payload)
	c.orders = append(c.orders, mofn.SignedOrder{Order: o, ID: c.ids[w[0]], Key: key, Under: under.Version})
	return c
}

func (c *court) judge() *mofn.Standing {
	c.t.Helper()
	last := len(c.rulers) - 1
	s, err := mofn.Judge(c.rulers[last], c.rulers[:last], c.orders)
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// verdict is what stands, in names: "stops s1 s2; lifted s3; revoked key k1 k2; void v1".
func (c *court) verdict(s *mofn.Standing) string {
	names := map[string]string{}
	for name, id := range c.ids {
		names[id] = name
	}
	list := func(what string, orders []mofn.SignedOrder) string {
		var out []string
		for _, o := range orders {
			out = append(out, names[o.ID])
		}
		if slices.Sort(out); len(out) == 0 {
			return ""
		}
		return what + " " + strings.Join(out, " ")
	}
	parts := []string{list("stops", s.Stops), list("lifted", s.Lifted)}
	for _, r := range s.Revocations {
		var by []string
		for _, id := range r.Orders {
			by = append(by, names[id])
		}
		slices.Sort(by)
		parts = append(parts, "revoked "+strings.Join(by, " "))
	}
	slices.Sort(parts[2:])
	parts = slices.DeleteFunc(append(parts, list("void", s.Void)), func(p string) bool { return p == "" })
	return strings.Join(parts, "; ")
}

type trial struct {
	name  string
	lines []string // orders; a line "policy NAME" is the next trust object
	want  string
}

// laws are the policies of trials. In "base" alice, bob and carol are security, 2 of whom resume; any one of them stops.
func laws() map[string]string {
	stop := "stop security resume security\n"
	return map[string]string{
		"base":         basePolicy + stop,
		"no stop line": basePolicy, // root "release": two of security and one of quality
		"by release":   basePolicy + "stop quality resume release\n",
		"alice gone":   strings.Replace(strings.Replace(basePolicy, "officer alice key @alice key @alice2\n", "", 1), "alice bob carol", "bob carol", 1) + stop,
		"alice renewed": strings.Replace(basePolicy, "officer alice key @alice key @alice2", "officer alice key @mallory",
			1) + stop,
		"all three": strings.Replace(basePolicy, "security 2", "security 3", 1) + stop,
		"others":    strings.Replace(basePolicy, "group security 2 alice bob carol\n", "group security 2 frank gina\n", 1) + stop,
	}
}

func law(name string) string {
	text := laws()[name]
	if name == "others" {
		return strings.Replace(text, "group audit    1 frank\n", "group audit    1 alice\n", 1)
	}
	return text
}

func trials() []trial {
	return append(append(stopTrials(), revokeTrials()...), historyTrials()...)
}

func stopTrials() []trial {
	l := func(lines ...string) []string { return lines }
	return []trial{
		{"nothing", nil, ""},
		{"one officer stops everything", l("s alice stop everything"), "stops s"},
		{"one officer stops a stream", l("s bob stop stream models/*"), "stops s"},
		{"one officer stops a release", l("s carol stop release llm-41"), "stops s"},
		{"one officer stops a key", l("s alice stop key @packer"), "stops s"},
		{"one officer stops a half", l("s alice stop half /packer"), "stops s"},
		{"one officer stops an officer", l("s alice stop officer dave"), "stops s"},
		{"an officer stops themselves", l("s alice stop officer alice"), "stops s"},
		{"an officer outside the stop group", l("s dave stop everything"), "void s"},
		{"an officer outside every quorum", l("s frank stop everything"), "void s"},
		{"without a stop line any officer of a quorum stops", l("policy no stop line", "s dave stop everything", "x frank stop everything"), "stops s; void x"},
		{"two officers stop the same", l("a alice stop everything", "b bob stop everything"), "stops a b"},
		{"a stop with the second key", l("s alice2 stop everything"), "stops s"},

		{"one resumes: not enough", l("s alice stop everything", "a bob resume s"), "stops s"},
		{"who stopped resumes alone: not enough", l("s alice stop everything", "a alice resume s"), "stops s"},
		{"two resume", l("s alice stop everything", "a bob resume s", "b carol resume s"), "lifted s"},
		{"who stopped is one of two", l("s alice stop everything", "a alice resume s", "b carol resume s"), "lifted s"},
		{"one resumes twice", l("s alice stop everything", "a bob resume s", "b bob resume s x"), "stops s"},
		{"one resumes with two keys", l("s bob stop everything", "a alice resume s", "b alice2 resume s"), "stops s"},
		{"one and an outsider resume", l("s alice stop everything", "a bob resume s", "b dave resume s", "c frank resume s"), "stops s"},
		{"outsiders resume", l("s alice stop everything", "b dave resume s", "c erin resume s", "d frank resume s"), "stops s"},
		{"resume by release: two of three groups are not enough", l("policy by release", "s dave stop everything", "a alice resume s", "b bob resume s"), "stops s"},
		{"resume by release: two of security and one of quality", l("policy by release", "s dave stop everything", "a alice resume s", "b bob resume s", "c erin resume s"), "lifted s"},
		{"without a stop line the root group resumes", l("policy no stop line", "s dave stop everything", "a alice resume s", "b bob resume s"), "stops s"},
		{"without a stop line the root group resumes, met", l("policy no stop line", "s dave stop everything", "a alice resume s", "b bob resume s", "c dave resume s"), "lifted s"},
		{"a resume of many", l("s alice stop everything", "t alice stop stream models/*", "a bob resume s t", "b carol resume s t"), "lifted s t"},
		{"resumes that share one", l("s alice stop everything", "t alice stop stream models/*", "a bob resume s t", "b carol resume t"), "stops s; lifted t"},
		{"resume of a stop that never was", l("a bob resume ghost", "b carol resume ghost"), ""},
		{"resume of a resume", l("s alice stop everything", "a bob resume s", "b carol resume s", "c alice resume a b", "d carol resume a b"), "lifted s"},
		{"a second stop after the resume", l("s alice stop everything", "a bob resume s", "b carol resume s", "t alice stop everything"), "stops t; lifted s"},
		{"the resume of one stop is none of the same one by another", l("s alice stop everything", "t bob stop everything", "a alice resume s", "b carol resume s"), "stops t; lifted s"},
		{"a void stop is not lifted", l("s dave stop everything", "a alice resume s", "b carol resume s"), "void s"},
	}
}

func revokeTrials() []trial {
	l := func(lines ...string) []string { return lines }
	return []trial{
		{"a lone revoke is a stop", l("k alice revoke key @packer"), "stops k"},
		{"a lone revoke by one who may not stop", l("k dave revoke key @packer"), "void k"},
		{"a lone revoke is lifted like a stop", l("k alice revoke key @packer", "a bob resume k", "b carol resume k"), "lifted k"},
		{"two revoke a key", l("k alice revoke key @packer", "m bob revoke key @packer"), "revoked k m"},
		{"two revoke a half", l("k alice revoke half /packer", "m bob revoke half /packer"), "revoked k m"},
		{"two revoke a release", l("k alice revoke release llm-41", "m bob revoke release llm-41"), "revoked k m"},
		{"two revoke an officer", l("k alice revoke officer dave", "m bob revoke officer dave"), "revoked k m"},
		{"three revoke", l("k alice revoke officer dave", "m bob revoke officer dave", "n carol revoke officer dave"), "revoked k m n"},
		{"one revokes twice", l("k alice revoke key @packer", "m alice2 revoke key @packer"), "stops k m"},
		{"one and an outsider revoke", l("k alice revoke key @packer", "m dave revoke key @packer"), "stops k; void m"},
		{"two revoke two things", l("k alice revoke key @packer", "m bob revoke key @packer2"), "stops k m"},
		{"key and half are two things", l("k alice revoke key @packer", "m bob revoke half /packer"), "stops k m"},
		{"a revocation is never lifted", l("k alice revoke key @packer", "m bob revoke key @packer", "a alice resume k m", "b bob resume k m", "c carol resume k m"), "revoked k m"},
		{"a revoke that was lifted as a stop still counts", l("k alice revoke key @packer", "a bob resume k", "b carol resume k", "m bob revoke key @packer"), "revoked k m"},
		{"a stop and a revoke of the same", l("s carol stop key @packer", "k alice revoke key @packer", "m bob revoke key @packer"), "stops s; revoked k m"},

		{"a revoked officer's stop is void", l("s carol stop everything", "k alice revoke officer carol", "m bob revoke officer carol"), "revoked k m; void s"},
		{"a revoked officer's resume is void", l("s alice stop everything", "a bob resume s", "b carol resume s", "k alice revoke officer carol", "m bob revoke officer carol"), "stops s; revoked k m; void b"},
		{"a revoked key's stop is void, the other key's is not", l("s alice stop everything", "t alice2 stop everything", "k carol revoke key @alice", "m bob revoke key @alice"), "stops t; revoked k m; void s"},
		{"a revoked half's stop is void", l("s alice stop everything", "k carol revoke half /alice", "m bob revoke half /alice"), "revoked k m; void s"},
		{"a revoked officer's lone revoke is void", l("x carol revoke officer alice", "k alice revoke officer carol", "m bob revoke officer carol"), "revoked k m; void x"},
		{"who revokes stays though they stop themselves", l("k alice revoke officer alice", "m bob revoke officer alice", "s alice stop everything"), "revoked k m; void s"},
		{"mutual revocation: both stand", l("k alice revoke officer carol", "m bob revoke officer carol", "n carol revoke officer bob", "o alice revoke officer bob", "s carol stop everything", "t bob stop everything"), "revoked k m; revoked n o; void s t"},
		{"a stop of an officer does not void their stops", l("s carol stop everything", "t alice stop officer carol"), "stops s t"},
		{"a lone revoke of an officer does not void their stops", l("s carol stop everything", "k alice revoke officer carol"), "stops k s"},
	}
}

func historyTrials() []trial {
	l := func(lines ...string) []string { return lines }
	return []trial{
		{"an officer left: the stop stands", l("s alice stop everything", "policy alice gone"), "stops s"},
		{"an officer left: two others lift it", l("s alice stop everything", "policy alice gone", "a bob resume s", "b carol resume s"), "lifted s"},
		{"an officer left: their resume of before counts with one of before", l("s bob stop everything", "a alice resume s", "b bob resume s", "policy alice gone"), "lifted s"},
		{"an officer left: their resume does not count with a later one", l("s bob stop everything", "a alice resume s", "policy alice gone", "b bob resume s"), "stops s"},
		{"an officer left: their revoke of before counts with one of before", l("k alice revoke key @packer", "m bob revoke key @packer", "policy alice gone"), "revoked k m"},
		{"an officer left: their revoke does not count with a later one", l("k alice revoke key @packer", "policy alice gone", "m bob revoke key @packer"), "stops k m"},
		{"a new key: the stop by the old one stands", l("s alice stop everything", "policy alice renewed"), "stops s"},
		{"a new key: the resume by the old one counts with a later one", l("s bob stop everything", "a alice resume s", "policy alice renewed", "b bob resume s"), "lifted s"},
		{"a new key: old and new are one person", l("s bob stop everything", "a alice resume s", "policy alice renewed", "b mallory resume s"), "stops s"},
		{"the old key is revoked: the new key's stop stands", l("s alice stop everything", "policy alice renewed", "t mallory stop everything", "k bob revoke key @alice", "m carol revoke key @alice"), "stops t; revoked k m; void s"},
		{"the old key's half is revoked after it left", l("s alice stop everything", "policy alice renewed", "k bob revoke half /alice", "m carol revoke half /alice"), "revoked k m; void s"},
		{"the quorum grows: what was lifted stays lifted", l("s alice stop everything", "a bob resume s", "b carol resume s", "policy all three"), "lifted s"},
		{"the quorum grows: two are not enough later", l("s alice stop everything", "policy all three", "a bob resume s", "b carol resume s"), "stops s"},
		{"the quorum grows: one of before makes no quorum of before", l("s alice stop everything", "a bob resume s", "policy all three", "b carol resume s"), "stops s"},
		{"the quorum sinks: two of before are enough now", l("policy all three", "s alice stop everything", "a bob resume s", "b carol resume s", "policy base"), "lifted s"},
		{"other people: those of before lift nothing later", l("s alice stop everything", "a bob resume s", "policy others", "b frank resume s"), "stops s"},
		{"other people: they lift it", l("s alice stop everything", "policy others", "a gina resume s", "b frank resume s"), "lifted s"},
		{"one who may not stop any more: the stop of before stands", l("s alice stop everything", "policy others", "t alice stop everything"), "stops s; void t"},
	}
}

// TestJudge: what stands after each history, whatever the order in which it is told.
func TestJudge(t *testing.T) {
	r, all := newRing(t), trials()
	if len(all) < 60 {
		t.Fatalf("%d trials", len(all))
	}
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			court := newCourt(t, r)
			for _, line := range c.lines {
				if name, ok := strings.CutPrefix(line, "policy "); ok {
					court.version(law(name))
					continue
				}
				court.give(line)
			}
			want := c.want
			if got := court.verdict(court.judge()); got != want {
				t.Errorf("%q, want %q", got, want)
			}
			slices.Reverse(court.orders)
			if got := court.verdict(court.judge()); got != want {
				t.Errorf("told the other way round: %q, want %q", got, want)
			}
			if n := len(court.orders); n > 0 {
				court.orders = append(court.orders, court.orders[0])
				if got := court.judge(); len(got.Revocations) != strings.Count(want, "revoked") {
					t.Errorf("told twice: %q, want %q", court.verdict(got), want)
				}
			}
		})
	}
}

// TestJudgeRefuses: a history that is not there.
func TestJudgeRefuses(t *testing.T) {
	c := newCourt(t, newRing(t)).give("s alice stop everything")
	c.orders[0].Under = 2
	if _, err := mofn.Judge(c.rulers[0], nil, c.orders); !errors.Is(err, mofn.ErrOrder) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("an order of a version that is not there: %v", err)
	}
	for _, later := range []bool{false, true} {
		bad, rulers := c.rulers[0], []mofn.Ruler(nil)
		bad.Policy, bad.Root = mustPolicy(t, c.ring.fill(basePolicy), c.ring.enrolledBut()), "nobody"
		if later {
			rulers, bad = []mofn.Ruler{bad}, c.rulers[0]
			bad.Version = 2
		}
		if _, err := mofn.Judge(bad, rulers, nil); !errors.Is(err, mofn.ErrOrder) || !strings.Contains(err.Error(), "nobody") {
			t.Errorf("a root group that is none: %v", err)
		}
	}
}

// TestPending says what waits, and for whom.
func TestPending(t *testing.T) {
	s := newCourt(t, newRing(t)).give("s alice stop everything").give("a bob resume s").give("k carol revoke officer dave").judge()
	text := strings.Join(s.Pending, "\n")
	if len(s.Pending) != 2 || !strings.Contains(text, "revocation of officer dave") || !strings.Contains(text, "lifting of the stop") || !strings.Contains(text, "1 of 2") {
		t.Errorf("%q", text)
	}
}

// TestStandingCovers: what a standing says of releases and keys.
func TestStandingCovers(t *testing.T) {
	r := newRing(t)
	p := newCourt(t, r).rulers[0].Policy
	rel := [32]byte(releaseID("llm-41"))
	stopped := func(line, stream string) bool {
		_, ok := newCourt(t, r).give(line).judge().StopOf(stream, rel)
		return ok
	}
	for _, c := range []struct {
		line, stream string
		want         bool
	}{
		{"s alice stop everything", "models/llm", true},
		{"s alice stop stream models/llm", "models/llm", true},
		{"s alice stop stream models/llm", "models/llm2", false},
		{"s alice stop stream models/llm", "models/llm/x", false},
		{"s alice stop stream models/*", "models/llm", true},
		{"s alice stop stream models/*", "models/llm/x", true},
		{"s alice stop stream models/*", "models", false},
		{"s alice stop stream models/*", "modelsx/llm", false},
		{"s alice stop release llm-41", "anything", true},
		{"s alice stop release llm-42", "models/llm", false},
		{"s alice revoke release llm-41", "models/llm", true},
		{"s alice stop key @packer", "models/llm", false},
		{"s alice stop officer alice", "models/llm", false},
		{"s dave stop everything", "models/llm", false},
	} {
		if got := stopped(c.line, c.stream); got != c.want {
			t.Errorf("%s: %s stopped %t", c.line, c.stream, got)
		}
	}
	barred := func(key string, lines ...string) string {
		court := newCourt(t, r)
		for _, l := range lines {
			court.give(l)
		}
		why, is := court.judge().Barred(p, r[key].Public().ID())
		if is != (why != "") {
			t.Errorf("%t without words, or the other way round: %q", is, why)
		}
		return why
	}
	for _, c := range []struct {
		key   string
		lines []string
		want  string
	}{
		{"dave", nil, ""},
		{"dave", []string{"s alice stop key @dave"}, "stopped by alice"},
		{"dave", []string{"s alice stop half /dave"}, "stopped by alice"},
		{"dave", []string{"s alice stop officer dave"}, "stopped by alice"},
		{"dave", []string{"s alice revoke officer dave"}, "stopped by alice"},
		{"dave", []string{"s alice revoke officer dave", "t bob revoke officer dave"}, "officer dave is revoked"},
		{"packer", []string{"s alice stop key @packer"}, "stopped by alice"},
		{"packer", []string{"s alice revoke half /packer", "t bob revoke half /packer"}, "is revoked"},
		{"packer", []string{"s alice stop key @packer2"}, ""},
		{"alice2", []string{"s bob stop key @alice"}, ""},
		{"alice2", []string{"s bob stop officer alice"}, "stopped by bob"},
		{"dave", []string{"s alice stop everything"}, ""},
		{"dave", []string{"s alice stop key @dave", "a bob resume s", "b carol resume s"}, ""},
	} {
		if got := barred(c.key, c.lines...); c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s after %q: %q, want %q", c.key, c.lines, got, c.want)
		}
	}
	hb := newKey(t, "heartbeat-1").Public()
	court := newCourt(t, r)
	court.ring = maps.Clone(r)
	court.ring["heartbeat-1"] = newKey(t, "heartbeat-1")
	for _, line := range []string{"s alice stop key @heartbeat-1", "s alice stop half /heartbeat-1"} {
		court.orders = nil
		if why, is := court.give(line).judge().BarredKey(hb); !is || !strings.Contains(why, "stopped by alice") {
			t.Errorf("%s: %q", line, why)
		}
	}
	if why, is := newCourt(t, r).give("s alice stop key @packer").judge().BarredKey(hb); is {
		t.Errorf("a stop of another key: %q", why)
	}
}

// TestNoStanding: nothing was ordered, nothing is held.
func TestNoStanding(t *testing.T) {
	var s *mofn.Standing
	rel := [32]byte(releaseID("llm-41"))
	p := newCourt(t, newRing(t)).rulers[0].Policy
	_, a := s.StopOf("models/llm", rel)
	_, b := s.Everything()
	_, c := s.StopOfRelease(rel)
	_, d := s.RevocationOf(rel)
	_, e := s.Barred(p, mofn.KeyID{})
	_, f := s.BarredKey(newKey(t, "alice").Public())
	if got := fmt.Sprint(a, b, c, d, e, f); got != "false false false false false false" {
		t.Error(got)
	}
}

// TestRevocationOf: who, and the reason.
func TestRevocationOf(t *testing.T) {
	s := newCourt(t, newRing(t)).give("k bob revoke release llm-41").give("m alice revoke release llm-41").judge()
	r, ok := s.RevocationOf([32]byte(releaseID("llm-41")))
	if !ok || strings.Join(r.Officers, " ") != "alice bob" || len(r.Orders) != 2 || !slices.IsSorted(r.Orders) || r.Reason == "" {
		t.Errorf("%+v", r)
	}
	if _, ok := s.RevocationOf([32]byte(releaseID("llm-42"))); ok {
		t.Error("another release")
	}
	if _, ok := s.StopOfRelease([32]byte(releaseID("llm-41"))); ok {
		t.Error("a revocation is a stop too")
	}
}
