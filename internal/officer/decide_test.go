// SPDX-License-Identifier: Apache-2.0

package officer_test

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"sluice/internal/dropbox"
	"sluice/internal/officer"
	"sluice/internal/trust"
	"sluice/internal/trust/trusttest"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// written reads the one approval of an officer.
func written(t *testing.T, r *room, env *envelope.Envelope, name string) *envelope.Approval {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(r.box.Dir, "approvals", env.ID.String(), name))
	must(t, err)
	d, err := envelope.ParseDSSE(b, len(b))
	must(t, err)
	a, err := envelope.ParseApproval(d.Payload)
	must(t, err)
	return a
}

func TestDecide(t *testing.T) {
	r := newRoom(t)
	env := r.release(files(map[string]string{"a.txt": "a"}), nil, nil)
	r.put(env, nil)
	v := r.view(env, officer.LookOptions{You: r.person("s.ito")})
	page := v.Page()
	name, err := officer.Decide(r.box, r.anchor, officer.Decision{
		View: v, Page: page, Decision: envelope.DecisionApprove, Typed: "  " + strings.Replace(officer.Words(env), " ", "  ", 1), Note: "n", Tool: "tool", Now: now(), Signer: r.Keys["s.ito"],
	})
	must(t, err)
	a := written(t, r, env, name)
	if name != "security.s.ito.json" || a.Shown != sha256.Sum256([]byte(page.Text())) || !slices.Equal(a.Checked, []string{"manifest"}) || a.Note != "n" || a.Tool != "tool" || a.At != envelope.FormatTime(now()) {
		t.Errorf("%s: %+v", name, a)
	}
	if strings.Contains(page.Text(), "all is well") {
		t.Error("the page has something of the request's review.txt")
	}
	if err := r.decide(env, "s.ito", envelope.DecisionReject); !errors.Is(err, officer.ErrDecided) {
		t.Errorf("a second decision: %v", err)
	}
	if err := officer.CheckUndecided(r.box, v); !errors.Is(err, officer.ErrDecided) {
		t.Errorf("undecided: %v", err)
	}
	must(t, r.decide(env, "a.roy", envelope.DecisionApprove))
	found, _, err := r.box.Approvals(env.ID)
	must(t, err)
	must(t, env.Merge(found))
	if _, err := r.Store.Check(env, trust.Rules{Receiver: trusttest.Receiver, Now: now()}); err != nil {
		t.Errorf("a receiver refuses it: %v", err)
	}
}

func TestDecideRefuses(t *testing.T) {
	r := newRoom(t)
	env := r.release(files(map[string]string{"a.txt": "a"}), nil, nil)
	r.put(env, nil)
	words := officer.Words(env)
	for _, c := range []struct {
		name, decision, typed, signer string
		want                          error
	}{
		{"nothing typed", "approve", "", "s.ito", officer.ErrConfirm},
		{"y", "approve", "y", "s.ito", officer.ErrConfirm},
		{"one word", "approve", strings.Fields(words)[0], "s.ito", officer.ErrConfirm},
		{"approve with reject", "approve", "reject", "s.ito", officer.ErrConfirm},
		{"reject with the words", "reject", words, "s.ito", officer.ErrConfirm},
		{"another's key", "approve", words, "a.roy", officer.ErrKeyID},
		{"the packer's key", "approve", words, "", officer.ErrKeyID},
	} {
		v := r.view(env, officer.LookOptions{You: r.person("s.ito")})
		signer := r.Keys[c.signer]
		if c.signer == "" {
			signer = r.Packer
		}
		_, err := officer.Decide(r.box, r.anchor, officer.Decision{View: v, Page: v.Page(), Decision: c.decision, Typed: c.typed, Tool: "t", Now: now(), Signer: signer})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := r.anchor.PersonOf(r.Packer.KeyID(), "f"); !errors.Is(err, officer.ErrNoOfficer) {
		t.Errorf("the packer's person: %v", err)
	}
	if found, _, err := r.box.Approvals(env.ID); err != nil || len(found) > 0 {
		t.Errorf("%d files were written, %v", len(found), err)
	}
}

// TestTwoAtOnce: two officers, each twice, at the same time. Each has exactly one file.
func TestTwoAtOnce(t *testing.T) {
	r := newRoom(t)
	env := r.release(files(map[string]string{"a.txt": "a"}), nil, nil)
	r.put(env, nil)
	var all sync.WaitGroup
	errs := make([]error, 4)
	for i, name := range []string{"s.ito", "a.roy", "s.ito", "a.roy"} {
		v := r.view(env, officer.LookOptions{You: r.person(name)})
		all.Go(func() {
			_, errs[i] = officer.Decide(r.box, r.anchor, officer.Decision{View: v, Page: v.Page(), Decision: "approve", Typed: officer.Words(env), Tool: "t", Now: now(), Signer: r.Keys[name]})
		})
	}
	all.Wait()
	for _, pair := range [][2]error{{errs[0], errs[2]}, {errs[1], errs[3]}} {
		if (pair[0] == nil) == (pair[1] == nil) || !errors.Is(errors.Join(pair[0], pair[1]), officer.ErrDecided) {
			t.Errorf("one wins, one is told: %v, %v", pair[0], pair[1])
		}
	}
	found, problems, err := r.box.Approvals(env.ID)
	must(t, err)
	if good, bad := officer.Sift(r.Store, env, found); len(good) != 2 || len(bad)+len(problems) > 0 {
		t.Errorf("%d good, %q %q", len(good), bad, problems)
	}
}

// TestStrangeApprovals: what lies beside is named on the page, counts nothing, and holds nobody up.
func TestStrangeApprovals(t *testing.T) {
	r := newRoom(t)
	env, other := r.release(files(map[string]string{"a.txt": "a"}), nil, nil), r.release(files(map[string]string{"a.txt": "other"}), nil, nil)
	r.put(env, nil)
	r.put(other, nil)
	must(t, r.decide(other, "m.lee", envelope.DecisionApprove))
	theirs, _, err := r.box.Approvals(other.ID)
	must(t, err)
	must(t, r.box.AddApproval(env.ID, "security.m.lee.json", theirs[0].Data)) // for another release
	mine := trusttest.Decision(env, "a.roy", envelope.DecisionApprove)
	vote, err := r.Vote(&mine, r.Keys["a.roy"], "")
	must(t, err)
	must(t, r.box.AddApproval(env.ID, "security.s.ito.json", vote.Data)) // under another's name
	stranger, err := mofn.GenerateKey(mofn.SuiteH1, nil)
	must(t, err)
	vote, err = r.Vote(&mine, stranger, "")
	must(t, err)
	must(t, r.box.AddApproval(env.ID, "security.a.roy.json", vote.Data)) // by nobody's key
	v := r.view(env, officer.LookOptions{})
	if len(v.Problems) != 3 || len(v.Policy.Approved) != 0 {
		t.Errorf("problems %q, approved %q", v.Problems, v.Policy.Approved)
	}
	if text := v.Page().Text(); strings.Count(text, "\n!!          not counted: ") != 3 {
		t.Errorf("the page does not name them first:\n%s", text)
	}
	if err := r.decide(env, "m.lee", envelope.DecisionApprove); !errors.Is(err, officer.ErrDecided) {
		t.Errorf("over a strange file: %v", err)
	}
}

// TestLookRefuses: without a packer's signature nothing is shown.
func TestLookRefuses(t *testing.T) {
	r := newRoom(t)
	env := r.release(files(map[string]string{"a.txt": "a"}), nil, nil)
	evil, err := r.Seal(t.Context(), files(map[string]string{"a.txt": "a"}), env.Statement.Predicate, r.Keys["a.roy"])
	must(t, err)
	r.put(evil, nil)
	if _, err := r.look(evil, officer.LookOptions{}); !errors.Is(err, mofn.ErrSignature) {
		t.Errorf("signed by an officer: %v", err)
	}
	// A predecessor is bound by its id; one that no packer of ours signed is shown as missing, and not as a base of comparison.
	after := r.release(files(map[string]string{"a.txt": "b"}), evil, nil)
	r.put(after, evil)
	v := r.view(after, officer.LookOptions{})
	if v.Prev != nil || !strings.Contains(v.Page().Text(), "\n!!          the predecessor "+evil.ID.String()[:8]+" is not here: its packer's signature does not hold") {
		t.Errorf("an unsigned predecessor is shown:\n%s", v.Page().Text())
	}
}

// TestStickGoes: the stick is pulled out between the page and the signature.
func TestStickGoes(t *testing.T) {
	r := newRoom(t)
	env := r.release(files(map[string]string{"a.txt": "a"}), nil, nil)
	r.put(env, nil)
	v := r.view(env, officer.LookOptions{You: r.person("s.ito")})
	must(t, os.RemoveAll(r.box.Dir))
	_, err := officer.Decide(r.box, r.anchor, officer.Decision{View: v, Page: v.Page(), Decision: "approve", Typed: officer.Words(env), Tool: "t", Now: now(), Signer: r.Keys["s.ito"]})
	if !errors.Is(err, dropbox.ErrAway) {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(r.box.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("the tool made the folder anew, where no stick is")
	}
}

// TestStoppedApprovals: what a stopped officer signed counts nothing, and the page says so first.
func TestStoppedApprovals(t *testing.T) {
	r := newRoom(t)
	env := r.release(files(map[string]string{"a.txt": "a"}), nil, nil)
	r.put(env, nil)
	must(t, r.decide(env, "a.roy", envelope.DecisionApprove))
	r.give("m.lee", order(mofn.ActionStop, mofn.KindOfficer, "a.roy", "the laptop is gone"))
	r.give("m.lee", order(mofn.ActionStop, mofn.KindKey, r.Packer.KeyID().String(), "and the bastion's key"))
	v := r.view(env, officer.LookOptions{})
	if len(v.Policy.Approved) != 0 || len(v.Problems) != 1 || len(v.Orders) != 1 {
		t.Errorf("approved %q, problems %q, orders %q", v.Policy.Approved, v.Problems, v.Orders)
	}
}
