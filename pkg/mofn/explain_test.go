// SPDX-License-Identifier: Apache-2.0

package mofn_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/pkg/mofn"
)

// unfill is the inverse of fill: key ids become @name.
func (r ring) unfill(text string) string {
	for name := range r {
		text = strings.ReplaceAll(text, r.id(name), "@"+name)
	}
	return text
}

// TestExplain compares with the page that a person reads: testdata/explain-*.golden, written anew by -update.
func TestExplain(t *testing.T) {
	r := newRing(t)
	for name, text := range map[string]string{"base": basePolicy, "everything": everythingPolicy} {
		path := filepath.Join("testdata", "explain-"+name+".golden")
		got := r.unfill(mustPolicy(t, r.fill(text), r.enrolled()).Explain())
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s:\n%s", path, diff)
		}
	}
}

// everythingPolicy has each word of the language, and groups three deep.
const everythingPolicy = `# the whole language
officer alice key @alice key @alice2
officer bob   key @bob
officer carol key @carol
officer dave  key @dave
officer erin  key @erin
officer frank key @frank
officer gina  key @gina
group security 2 alice bob carol
group quality  any dave erin
group audit    all frank
group expert   all security quality
group release  any expert audit
packer @packer
rule stream models/*    quorum release hold 24h max-size 2TiB succession chain require checked=bytes:2 require checked=gate:1
rule stream models/raw  quorum security hold 1h30m max-size 4097 succession latest
rule stream policy/site quorum quality max-size 3KiB
stop expert resume release
`

func TestStopLine(t *testing.T) {
	r := newRing(t)
	with := mustPolicy(t, r.fill(everythingPolicy), r.enrolled())
	without := mustPolicy(t, r.fill(basePolicy), r.enrolled())
	if name, ok := with.StopGroup(); name != "expert" || !ok || with.ResumeGroup() != "release" {
		t.Errorf("stop %q %t, resume %q", name, ok, with.ResumeGroup())
	}
	if name, ok := without.StopGroup(); name != "" || ok || without.ResumeGroup() != "" {
		t.Errorf("without the line: stop %q %t, resume %q", name, ok, without.ResumeGroup())
	}
	// With the line: everybody below expert. Without: everybody below a quorum, so neither frank (audit) nor gina.
	for name, p := range map[string]*mofn.Policy{"with": with, "without": without} {
		for _, who := range []string{"alice", "bob", "carol", "dave", "erin", "frank", "gina", "mallory", "", "security", "expert"} {
			want := slices.Contains([]string{"alice", "bob", "carol", "dave", "erin"}, who)
			if got := p.MayStop(who); got != want {
				t.Errorf("%s the line: MayStop(%q) is %t", name, who, got)
			}
		}
	}
	narrow := mustPolicy(t, r.fill(strings.Replace(everythingPolicy, "stop expert", "stop audit", 1)), r.enrolled())
	if !narrow.MayStop("frank") || narrow.MayStop("alice") {
		t.Error("the stop line does not narrow who may stop")
	}
}

func TestMeetsGroup(t *testing.T) {
	r := newRing(t)
	p := mustPolicy(t, r.fill(everythingPolicy), r.enrolled())
	for _, c := range []struct {
		group, who, missing string
		need, have          int
	}{
		{"security", "alice bob", "", 0, 0},
		{"security", "alice bob carol mallory", "", 0, 0},
		{"security", "alice", "1 more of security: bob or carol", 2, 1},
		{"security", "alice dave frank mallory security", "1 more of security: bob or carol", 2, 1},
		{"security", "", "2 more of security: alice or bob or carol", 2, 0},
		{"expert", "alice bob erin", "", 0, 0},
		{"expert", "alice bob carol", "1 more of quality: dave or erin", 2, 1},
		{"release", "frank", "", 0, 0},
		{"release", "gina", "1 more of the groups of release: (2 more of security: alice or bob or carol and 1 more of quality: dave or erin) or (1 more of audit: frank)", 1, 0},
	} {
		officers := map[string]bool{"bob": false}
		for name := range strings.FieldsSeq(c.who) {
			officers[name] = true
		}
		err := p.MeetsGroup(c.group, officers)
		var short *mofn.ThresholdError
		if c.missing == "" {
			if err != nil {
				t.Errorf("%s by %q: %v", c.group, c.who, err)
			}
			continue
		}
		if !errors.As(err, &short) || short.Need != c.need || short.Have != c.have || strings.Join(short.Missing, "; ") != c.missing {
			t.Errorf("%s by %q: %v", c.group, c.who, err)
		}
	}
	for _, name := range []string{"", "alice", "nobody"} {
		if err := p.MeetsGroup(name, map[string]bool{"alice": true}); !errors.Is(err, mofn.ErrPolicy) {
			t.Errorf("group %q: %v", name, err)
		}
	}
}

// TestInGroup: who is below a group is in it; who is beside or above it is not.
func TestInGroup(t *testing.T) {
	r := newRing(t)
	p := mustPolicy(t, r.fill(everythingPolicy), r.enrolled())
	for _, c := range []struct {
		group, who string
		want       bool
	}{
		{"security", "alice", true},
		{"expert", "alice", true},
		{"release", "alice", true},
		{"release", "frank", true},
		{"security", "dave", false},
		{"audit", "alice", false},
		{"release", "gina", false},
		{"release", "mallory", false},
		{"release", "security", false},
		{"nobody", "alice", false},
	} {
		if got := p.InGroup(c.group, c.who); got != c.want {
			t.Errorf("InGroup(%s, %s) is %t", c.group, c.who, got)
		}
	}
}
