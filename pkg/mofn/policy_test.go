// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/mofn"
)

// policyErrors takes the joined error apart.
func policyErrors(err error) []*mofn.PolicyError {
	var one *mofn.PolicyError
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*mofn.PolicyError
		for _, e := range joined.Unwrap() {
			all = append(all, policyErrors(e)...)
		}
		return all
	}
	if errors.As(err, &one) {
		return []*mofn.PolicyError{one}
	}
	return nil
}

func TestPolicyVectors(t *testing.T) {
	first, err := mofn.ParseTrust(readVector(t, "trust-1.json"))
	if err != nil {
		t.Fatal(err)
	}
	good, bad := 0, 0
	files, err := os.ReadDir(vectors)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text := ""
		if strings.HasSuffix(f.Name(), ".policy") {
			text = string(readVector(t, f.Name()))
		}
		switch {
		case strings.HasSuffix(f.Name(), ".good.policy"):
			good++
			if _, err := mofn.ParsePolicy(text, first.Keys); err != nil {
				t.Errorf("%s: %v", f.Name(), err)
			}
		case strings.HasSuffix(f.Name(), ".bad.policy"):
			bad++
			t.Run(f.Name(), func(t *testing.T) { badPolicy(t, text, first.Keys) })
		}
	}
	if good < 6 || bad < 75 {
		t.Errorf("%d good and %d bad policies", good, bad)
	}
}

// badPolicy wants exactly the mistakes of the lines "# expect: line N: words"; 0 is no line.
func badPolicy(t *testing.T, text string, keys []mofn.TrustKey) {
	_, err := mofn.ParsePolicy(text, keys)
	if !errors.Is(err, mofn.ErrPolicy) {
		t.Fatalf("error %v", err)
	}
	got := policyErrors(err)
	want := 0
	for line := range strings.SplitSeq(text, "\n") {
		rest, ok := strings.CutPrefix(line, "# expect: line ")
		if !ok {
			continue
		}
		want++
		number, words, _ := strings.Cut(rest, ": ")
		n, err := strconv.Atoi(number)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(got, func(e *mofn.PolicyError) bool {
			return e.Line == n && strings.Contains(e.Error(), words) && e.Fix != ""
		}) {
			t.Errorf("no mistake on line %d with %q in:\n%v", n, words, errors.Join(asErrors(got)...))
		}
	}
	if want == 0 || want != len(got) {
		t.Errorf("%d mistakes expected, %d reported:\n%v", want, len(got), errors.Join(asErrors(got)...))
	}
}

func asErrors(list []*mofn.PolicyError) []error {
	out := make([]error, len(list))
	for i, e := range list {
		out[i] = e
	}
	return out
}

// TestEveryMistakeIsReported: officers wait while a policy is corrected, so one round must do.
func TestEveryMistakeIsReported(t *testing.T) {
	r := newRing(t)
	text := r.fill("officer alice key @alice\nofficer bob kay @bob\ngroup g 3 alice\nrule stream x quorum h\nnonsense\n")
	_, err := mofn.ParsePolicy(text, r.enrolled())
	var lines []int
	for _, e := range policyErrors(err) {
		lines = append(lines, e.Line)
	}
	slices.Sort(lines)
	if !slices.Equal(lines, []int{0, 2, 3, 4, 5}) {
		t.Errorf("mistakes on lines %v:\n%v", lines, err)
	}
}

func TestPolicyLimits(t *testing.T) {
	r := newRing(t)
	keys := r.enrolled()
	for name, text := range map[string]string{
		"too long":     "#" + strings.Repeat("x", 64<<10),
		"not UTF-8":    "# \xff\n",
		"not NFC":      "# e\u0308\n",
		"carriage":     "# x\r\n",
		"zero byte":    "# \x00\n",
		"line sep":     "# \u2028\n",
		"empty":        "",
		"comment only": "# nothing\n",
	} {
		if _, err := mofn.ParsePolicy(text, keys); !errors.Is(err, mofn.ErrPolicy) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := mofn.ParsePolicy(r.fill(basePolicy), slices.Repeat(keys[:1], 513)); !errors.Is(err, mofn.ErrPolicy) {
		t.Errorf("513 keys: %v", err)
	}
	_, err := mofn.ParsePolicy("officer alice key "+r.id("alice")+"\n# \u2066 x\u200d\n", keys)
	if got := policyErrors(err); len(got) != 1 || got[0].Line != 2 || got[0].Fix == "" {
		t.Errorf("invisible characters: %v", err)
	}
	_, err = mofn.ParsePolicy(strings.Repeat("x\n", 5000), keys)
	if n := len(policyErrors(err)); n > 64 {
		t.Errorf("%d mistakes are listed", n)
	}
	if len(err.Error()) > 32<<10 {
		t.Errorf("message of %d bytes", len(err.Error()))
	}
}

// TestBadKeysInTrust: a key that cannot be enrolled is a mistake of the line that uses it, and of no line when none does.
func TestBadKeysInTrust(t *testing.T) {
	r := newRing(t)
	low := append(r["mallory"].Public().Bytes()[:1952], append([]byte{1}, make([]byte, 31)...)...)
	zero := append(make([]byte, 1952), r["mallory"].Public().Bytes()[1952:]...)
	ownID := func(suite mofn.Suite, public []byte) mofn.TrustKey {
		return mofn.TrustKey{ID: mofn.NewKeyID(suite, public), Suite: suite, Public: public}
	}
	for words, k := range map[string]mofn.TrustKey{
		"low-order":          ownID(mofn.SuiteH1, low),
		"key is zero":        ownID(mofn.SuiteH1, zero),
		"has 3 bytes":        ownID(mofn.SuiteH1, []byte("abc")),
		"not sign statement": ownID(mofn.SuiteLink, make([]byte, 32)),
		"not its own":        {Suite: mofn.SuiteH1, Public: r["mallory"].Public().Bytes()},
	} {
		for line, text := range map[int]string{0: r.fill(basePolicy), 1: "officer zoe key " + k.ID.String() + "\n" + r.fill(basePolicy)} {
			_, err := mofn.ParsePolicy(text, append(r.enrolled(), k))
			got := policyErrors(err)
			if !errors.Is(err, mofn.ErrPolicy) || len(got) != 1 || got[0].Line != line || !strings.Contains(err.Error(), words) {
				t.Errorf("%s, on line %d: %v", words, line, err)
			}
		}
	}
	_, err := mofn.ParsePolicy(r.fill(basePolicy), append(r.enrolled(), trustKey(r["alice"], "again")))
	if got := policyErrors(err); len(got) != 1 || got[0].Line != 2 || !strings.Contains(err.Error(), "listed twice") {
		t.Errorf("alice's key twice: %v", err)
	}
}

// TestPolicyCaps: what nobody could meet, or read, is refused at the line that asks for it.
func TestPolicyCaps(t *testing.T) {
	r := ring{"packer": newKey(t, "packer")}
	var officers, names strings.Builder
	for i := range 34 {
		name := fmt.Sprintf("o%d", i)
		r[name] = newKey(t, name)
		fmt.Fprintf(&officers, "officer %s key @%s\n", name, name)
		fmt.Fprintf(&names, " %s", name)
	}
	repeat := func(n int, line string) string {
		var b strings.Builder
		for i := range n {
			b.WriteString(strings.ReplaceAll(line, "#", strconv.Itoa(i)) + "\n")
		}
		return b.String()
	}
	const rule = "rule stream a quorum g"
	for _, c := range []struct{ text, words string }{
		{"group g 32" + names.String() + "\n" + rule, ""},
		{"group g 33" + names.String() + "\n" + rule, `quorum "g" needs 33 people`},
		{"group h 1 o0\ngroup i 32" + names.String()[3:] + "\ngroup g all h i\n" + rule, `quorum "g" needs 33 people`},
		{"group g 1" + names.String() + "\n" + rule + " require checked=bytes:32", ""},
		{"group g 1" + names.String() + "\n" + rule + " require checked=bytes:33", "an envelope holds at most 32"},
		{"group g 1 o0\n" + repeat(256, "rule stream s# quorum g"), ""},
		{"group g 1 o0\n" + repeat(257, "rule stream s# quorum g"), "more than 256 rules"},
		{"group g 1 o0\ngroup h 33" + names.String()[3:] + "\n" + rule + "\nstop g resume h", `resume group "h" needs 33 people`},
	} {
		_, err := mofn.ParsePolicy(r.fill(officers.String()+"packer @packer\n"+c.text+"\n"), r.enrolled())
		got := policyErrors(err)
		if c.words == "" && err != nil || c.words != "" && (len(got) != 1 || got[0].Line < 35 || !strings.Contains(err.Error(), c.words)) {
			t.Errorf("want %q: %v", c.words, err)
		}
	}
}

// TestTooManyGroups: 512 groups load, one more does not.
func TestTooManyGroups(t *testing.T) {
	r := ring{"packer": newKey(t, "packer")}
	var b strings.Builder
	b.WriteString("packer @packer\nrule stream a quorum g0-0\n")
	for i := range 65 {
		name := fmt.Sprintf("o%d", i)
		r[name] = newKey(t, name)
		fmt.Fprintf(&b, "officer %s key @%s\n", name, name)
	}
	for i := range 512 {
		below := fmt.Sprintf("o%d", i/8)
		if i%8 > 0 {
			below = fmt.Sprintf("g%d-%d", i/8, i%8-1)
		}
		fmt.Fprintf(&b, "group g%d-%d 1 %s\n", i/8, i%8, below)
	}
	text := r.fill(b.String())
	mustPolicy(t, text, r.enrolled())
	_, err := mofn.ParsePolicy(text+"group more 1 o64\n", r.enrolled())
	if got := policyErrors(err); len(got) != 1 || !strings.Contains(err.Error(), "more than 512 groups") {
		t.Error(err)
	}
}

func TestRule(t *testing.T) {
	r := newRing(t)
	p := mustPolicy(t, r.fill(`officer alice key @alice
group g all alice
packer @packer
rule stream a/*     quorum g hold 2h max-size 5
rule stream a/b     quorum g hold 1h
rule stream a/b/*   quorum g hold 3h max-size 2TiB succession chain require checked=gate:1
rule stream a/b/c/d quorum g hold 4h
`), r.enrolled())
	for stream, want := range map[string]string{
		"a/b": "a/b", "a/c": "a/*", "a/bb": "a/*", "a/b/c": "a/b/*", "a/b/c/d": "a/b/c/d", "a/b/c/d/e": "a/b/*",
		"a": "", "ab": "", "b": "", "a/": "", "": "", "A/b": "", "a/b/": "", "a//b": "", "a/*": "",
	} {
		rule, err := p.Rule(stream)
		if rule.Pattern != want || errors.Is(err, mofn.ErrNoRule) != (want == "") {
			t.Errorf("%q: rule %q, error %v", stream, rule.Pattern, err)
		}
	}
	rule, _ := p.Rule("a/b/x")
	want := mofn.Rule{Pattern: "a/b/*", Quorum: "g", Hold: 3 * time.Hour, MaxSize: 2 << 40, Chain: true, Require: map[string]int{"gate": 1}}
	if diff := cmp.Diff(want, rule); diff != "" {
		t.Error(diff)
	}
	rule.Require["gate"] = 0
	p.Rules()[2].Require["gate"] = 0
	if again, _ := p.Rule("a/b/x"); again.Require["gate"] != 1 {
		t.Error("the policy was changed through a copy")
	}
	if n := len(p.Rules()); n != 4 {
		t.Errorf("%d rules", n)
	}
}

func TestOfficerOf(t *testing.T) {
	r := newRing(t)
	p := mustPolicy(t, r.fill(basePolicy), r.enrolled())
	for name, want := range map[string]string{
		"alice": "alice security true", "alice2": "alice security true", "dave": "dave quality true",
		"gina": "gina  true", "packer": "  false", "mallory": "  false",
	} {
		officer, group, ok := p.OfficerOf(r[name].Public().ID())
		if got := fmt.Sprint(officer, " ", group, " ", ok); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !slices.Equal(p.Officers(), []string{"alice", "bob", "carol", "dave", "erin", "frank", "gina"}) {
		t.Errorf("officers %v", p.Officers())
	}
	if got := p.Packers(); !slices.Equal(got, []mofn.KeyID{r["packer"].Public().ID(), r["packer2"].Public().ID()}) {
		t.Errorf("packers %v", got)
	}
	if k, ok := p.PublicKey(r["packer"].Public().ID()); !ok || k.ID() != r["packer"].Public().ID() {
		t.Error("PublicKey of a packer")
	}
	if _, ok := p.PublicKey(r["mallory"].Public().ID()); ok {
		t.Error("PublicKey of nobody")
	}
}

func TestProgress(t *testing.T) {
	r := newRing(t)
	reject := func(c *mofn.Claim) { c.Decision = mofn.DecisionReject }
	manifest := func(c *mofn.Claim) { c.Checked = []string{"manifest"} }
	for _, c := range []struct {
		name    string
		votes   func(*scenario)
		missing []string
		met     bool
		extra   string
	}{
		{"nobody", func(*scenario) {}, []string{"2 more of security: alice or bob or carol", "1 more of quality: dave or erin", "1 more approving officer(s) who checked bytes"}, false, ""},
		{"one", func(s *scenario) { s.vote("bob", "security", nil) }, []string{"1 more of security: alice or carol", "1 more of quality: dave or erin"}, false, ""},
		{
			"one, and one said no", func(s *scenario) { s.vote("bob", "security", nil); s.vote("alice", "security", reject) },
			[]string{"1 more of security: carol", "1 more of quality: dave or erin"},
			false, "rejected [alice]",
		},
		{
			"two said no", func(s *scenario) { s.vote("bob", "security", reject); s.vote("alice", "security", reject) },
			[]string{"2 more of security, which has only 1 left", "1 more of quality: dave or erin", "1 more approving officer(s) who checked bytes"},
			false, "rejected [alice bob]",
		},
		{"bytes unchecked", func(s *scenario) {
			s.vote("bob", "security", manifest)
			s.vote("alice", "security", manifest)
			s.vote("erin", "quality", manifest)
		}, []string{"1 more approving officer(s) who checked bytes"}, false, ""},
		{"met", func(s *scenario) {
			s.vote("bob", "security", nil)
			s.vote("alice", "security", nil)
			s.vote("erin", "quality", nil)
			s.vote("frank", "audit", nil)
			s.voteAs("mallory", "carol", "security", "security", nil)
		}, nil, true, "outside [frank] unknown 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := bareScenario(t, r)
			c.votes(s)
			p := mustPolicy(t, s.policy, s.keys)
			got, err := p.Progress(s.rel, s.votes, s.open)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.missing, got.Missing); diff != "" || got.Met != c.met {
				t.Errorf("met %v, missing:\n%s", got.Met, diff)
			}
			all := fmt.Sprintf("rejected %v outside %v unknown %d", got.Rejected, got.Outside, got.Unknown)
			if !strings.Contains(all, c.extra) {
				t.Errorf("%s, want %s", all, c.extra)
			}
			if _, err := s.run(); (err == nil) != got.Met {
				t.Errorf("Progress says met is %v, Verify says %v", got.Met, err)
			}
		})
	}
}

func TestProgressGroups(t *testing.T) {
	s := newScenario(t)
	s.votes = s.votes[1:]
	got, err := mustPolicy(t, s.policy, s.keys).Progress(s.rel, s.votes, s.open)
	if err != nil {
		t.Fatal(err)
	}
	want := []mofn.GroupProgress{
		{Name: "release", Need: 2, Have: 1, Approved: []string{"quality"}, Waiting: []string{"security"}},
		{Name: "security", Need: 2, Have: 1, Approved: []string{"bob"}, Waiting: []string{"alice", "carol"}},
		{Name: "quality", Need: 1, Have: 1, Met: true, Approved: []string{"dave"}, Waiting: []string{"erin"}},
	}
	if diff := cmp.Diff(want, got.Groups); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]mofn.RequireProgress{{Word: "bytes", Need: 1, Have: 2}}, got.Requires); diff != "" {
		t.Error(diff)
	}
}

func TestProgressRefuses(t *testing.T) {
	s := newScenario(t)
	p := mustPolicy(t, s.policy, s.keys)
	s.votes[0].Signatures[0].Sig[7] ^= 1
	if got, err := p.Progress(s.rel, s.votes, s.open); !errors.Is(err, mofn.ErrSignature) || got.Met {
		t.Errorf("bad signature: %v", err)
	}
	s.rel.Stream = "other"
	if _, err := p.Progress(s.rel, nil, s.open); !errors.Is(err, mofn.ErrNoRule) {
		t.Errorf("no rule: %v", err)
	}
	s.rel.Stream, s.rel.Size = "models/llm", 1<<40
	if _, err := p.Progress(s.rel, nil, s.open); !errors.Is(err, mofn.ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
}

// TestMissingOfNestedGroups reads the words for k of n groups.
func TestMissingOfNestedGroups(t *testing.T) {
	s := bareScenario(t, newRing(t))
	s.replace("release  all", "release any")
	_, err := s.run()
	var short *mofn.ThresholdError
	if !errors.As(err, &short) {
		t.Fatal(err)
	}
	want := []string{"1 more of the groups of release: (2 more of security: alice or bob or carol) or (1 more of quality: dave or erin)"}
	if diff := cmp.Diff(want, short.Missing); diff != "" {
		t.Error(diff)
	}
}

// TestVectorFilesAreSpelled keeps stray files out of the folder of vectors.
func TestVectorFilesAreSpelled(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(vectors, "*"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, f := range files {
		if ext := filepath.Ext(f); !slices.Contains([]string{".policy", ".json", ".md", ".py"}, ext) {
			t.Errorf("%s", f)
		}
	}
}
