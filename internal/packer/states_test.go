// SPDX-License-Identifier: Apache-2.0

package packer_test

import (
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"sluice/internal/cli/clitest"
	"sluice/internal/dropbox"
	"sluice/internal/hub/hubtest"
	"sluice/internal/journal"
	"sluice/internal/link"
	"sluice/internal/packer"
	"sluice/internal/strictyaml"
)

// low is a low side with a Hub, officers and a link into nothing. Its clock is the test's.
type low struct {
	t    *testing.T
	site *clitest.Site
	hub  *hubtest.Server
	cfg  packer.Config
	now  time.Time
	*packer.Packer
}

func newLow(t *testing.T) *low {
	t.Helper()
	dir := t.TempDir()
	site, err := clitest.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	sink, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sink.Close() })
	l := &low{t: t, site: site, hub: hubtest.New(), now: time.Now()}
	l.commit("one")
	srv := httptest.NewServer(l.hub)
	t.Cleanup(srv.Close)
	c := packer.DefaultConfig()
	c.State, c.DropBox, c.Hub.Endpoint = filepath.Join(dir, "state"), filepath.Join(dir, "box"), srv.URL
	c.Trust = packer.Trust{Object: site.Path("trust.json"), Fingerprint: site.Fingerprint}
	c.Keys = packer.Keys{Packer: site.Path("packer"), Link: site.Path("link"), PassphraseFile: site.Path("passphrase")}
	c.Seal.Audience = []string{clitest.Receiver}
	c.Link.Receiver, c.Link.Address, c.Link.Rate, c.Link.Settle, c.Link.Passes = clitest.Receiver, sink.LocalAddr().String(), 100_000_000, 1_000_000, packer.CountedPasses(3)
	c.Watch = []packer.Watch{{Repo: "org/list", Revision: "main", Every: 1, Stream: "data/list", Name: "org.list", Kind: "dataset"}}
	l.cfg = c
	l.open()
	return l
}

// commit moves the repository on.
func (l *low) commit(text string) {
	l.t.Helper()
	dir := l.t.TempDir()
	err := os.WriteFile(filepath.Join(dir, "list.txt"), []byte(text+"\n"), 0o644)
	if err == nil && len(l.hub.Repos()) == 0 {
		_, err = l.hub.AddRepo("org/list", dir)
	} else if err == nil {
		_, err = l.hub.AddCommit("org/list", dir)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *low) open() {
	l.t.Helper()
	p, err := packer.Open(l.t.Context(), l.cfg, packer.Options{Logger: zap.NewNop(), Now: func() time.Time { return l.now }})
	if err != nil {
		l.t.Fatal(err)
	}
	l.Packer = p
	l.t.Cleanup(func() { _ = p.Close() })
	l.t.Cleanup(func() {
		if l.Packer == p { // the last of those that crashed
			l.verifyLog()
		}
	})
}

// crash forgets everything that is not in the journal and on disk.
func (l *low) crash() {
	l.t.Helper()
	if err := l.Close(); err != nil {
		l.t.Fatal(err)
	}
	l.open()
}

// run looks upstream and moves every job as far as it goes, a minute later.
func (l *low) run() []journal.Job {
	l.t.Helper()
	l.now = l.now.Add(time.Minute)
	l.Look(l.t.Context())
	if err := errors.Join(l.Step(l.t.Context()), l.WriteStatus()); err != nil {
		l.t.Fatal(err)
	}
	jobs, err := l.Jobs()
	if err != nil {
		l.t.Fatal(err)
	}
	return jobs
}

func (l *low) decide(job journal.Job, decision string, officers ...string) {
	l.t.Helper()
	env, err := packer.ReadEnvelope(l.WorkDir(job))
	if err == nil {
		err = l.site.Decide(l.t.Context(), dropbox.Box{Dir: l.cfg.DropBox}, env, decision, officers...)
	}
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *low) want(job journal.Job, state, words string) {
	l.t.Helper()
	status, err := os.ReadFile(filepath.Join(l.cfg.DropBox, "status.txt"))
	if err != nil {
		l.t.Fatal(err)
	}
	if job.State != state || !strings.Contains(string(status), words) {
		l.t.Fatalf("state %s, want %s; status.txt should say %q:\n%s\nlast error: %s", job.State, state, words, status, job.LastError)
	}
}

// TestCrashBetweenStages: a process that dies after every single stage comes to the same end, and the audit trail holds together.
func TestCrashBetweenStages(t *testing.T) {
	l := newLow(t)
	l.Look(t.Context())
	var states []string
	for range 20 {
		l.now = l.now.Add(time.Minute)
		moved, err := l.One(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		l.crash()
		jobs, err := l.Jobs()
		if err != nil || len(jobs) != 1 {
			t.Fatalf("%d jobs, %v", len(jobs), err)
		}
		if moved {
			states = append(states, jobs[0].State)
		}
		if jobs[0].State == "SEALED" && !moved {
			l.decide(jobs[0], "approve", "a.roy", "m.lee")
		}
		if jobs[0].State == "SENT" {
			break
		}
	}
	if got, want := strings.Join(states, " "), "MIRRORED INSPECTED GATED SEALED APPROVED SENT"; got != want {
		t.Errorf("states %s, want %s", got, want)
	}
	if err := l.Journal().Check(); err != nil {
		t.Error(err)
	}
}

// TestApprovals: a sealed release waits and says for what; what does not belong into the drop-box neither refuses it nor travels with it.
func TestApprovals(t *testing.T) {
	l := newLow(t)
	job := l.run()[0]
	l.want(job, "SEALED", "missing: 2 more of security")
	l.decide(job, "approve", "a.roy")
	dir := filepath.Join(l.cfg.DropBox, "approvals", job.Release)
	signed, err := os.ReadFile(filepath.Join(dir, "security.a.roy.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.WriteFile(filepath.Join(dir, "security.s.ito.json"), signed, 0o644), // a.roy's under another name
		os.WriteFile(filepath.Join(dir, "quality.q.ali.json"), []byte("{}"), 0o644),
		os.WriteFile(filepath.Join(dir, "notes.txt"), []byte("x"), 0o644),
		os.WriteFile(filepath.Join(dir, "quality.big.json"), make([]byte, 1<<20), 0o644),
		os.Mkdir(filepath.Join(dir, "quality.dir.json"), 0o755),
		os.Symlink("/etc/passwd", filepath.Join(dir, "quality.link.json")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	job = l.run()[0]
	l.want(job, "SEALED", "missing: 1 more of security")
	for _, name := range []string{"security.s.ito.json", "quality.q.ali.json", "notes.txt", "quality.big.json", "quality.dir.json", "quality.link.json"} {
		l.want(job, "SEALED", name)
	}
	l.decide(job, "approve", "m.lee")
	job = l.run()[0]
	l.want(job, "SENT", "SENT")
	env, err := packer.ReadEnvelope(l.WorkDir(job))
	if err != nil || len(env.Approvals) != 2 {
		t.Errorf("%d approvals travelled, want 2 (%v)", len(env.Approvals), err)
	}
}

func TestRejected(t *testing.T) {
	l := newLow(t)
	job := l.run()[0]
	l.decide(job, "approve", "a.roy", "m.lee")
	l.decide(job, "reject", "s.ito")
	l.want(l.run()[0], "REFUSED", "rejected by an officer: by s.ito")
}

// TestSuperseded: what was overtaken by its successor is not sent: the receiver would refuse it.
func TestSuperseded(t *testing.T) {
	l := newLow(t)
	l.run()
	l.commit("two")
	jobs := l.run()
	if len(jobs) != 2 || jobs[1].Seq != jobs[0].Seq+1 {
		t.Fatalf("%d jobs: %+v", len(jobs), jobs)
	}
	l.decide(jobs[0], "approve", "a.roy")
	l.decide(jobs[1], "approve", "a.roy", "m.lee")
	jobs = l.run()
	l.want(jobs[1], "SENT", "SENT")
	l.want(l.run()[0], "REFUSED", "a later release of the stream was sent already")
}

// TestDamagedBeforeSending: what is sent is what was sealed and approved, or nothing.
func TestDamagedBeforeSending(t *testing.T) {
	l := newLow(t)
	job := l.run()[0]
	if err := os.WriteFile(filepath.Join(l.WorkDir(job), "payload", "list.txt"), []byte("ONE\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	l.decide(job, "approve", "a.roy", "m.lee")
	l.want(l.run()[0], "REFUSED", "list.txt")
}

// TestCrashBetweenPasses: passes that were sent are not sent again.
func TestCrashBetweenPasses(t *testing.T) {
	l := newLow(t)
	job := l.run()[0]
	l.decide(job, "approve", "a.roy", "m.lee")
	l.now = l.now.Add(time.Minute)
	if _, err := l.One(t.Context()); err != nil {
		t.Fatal(err)
	}
	sent := func(j *journal.Job) error { // what the journal holds when the process dies after the first pass
		j.Data = append(j.Data[:len(j.Data)-1:len(j.Data)-1], `,"passes":1}`...)
		return nil
	}
	if job, err := l.Journal().Touch(job.ID, sent); err != nil || job.State != "APPROVED" {
		t.Fatalf("state %s, %v", job.State, err)
	}
	l.crash()
	l.want(l.run()[0], "SENT", "SENT")
	var passes []string
	err := l.Journal().Events(1, func(e journal.Event) error {
		if e.Action == "pass sent" {
			passes = append(passes, e.Detail[:len("pass 1")])
		}
		return nil
	})
	if got := strings.Join(passes, ", "); err != nil || got != "pass 2, pass 3" {
		t.Errorf("%s (%v)", got, err)
	}
}

// passesSent lists the passes of the audit trail, as "org.list 1, ...".
func (l *low) passesSent() string {
	l.t.Helper()
	jobs, err := l.Jobs()
	if err != nil {
		l.t.Fatal(err)
	}
	seq := map[string]int64{}
	for _, j := range jobs {
		seq[j.ID] = j.Seq
	}
	var passes []string
	err = l.Journal().Events(1, func(e journal.Event) error {
		if e.Action == "pass sent" {
			passes = append(passes, fmt.Sprintf("%d.%s", seq[e.Job], e.Detail[len("pass "):len("pass 1")]))
		}
		return nil
	})
	if err != nil {
		l.t.Fatal(err)
	}
	return strings.Join(passes, " ")
}

// approve lets the officers approve a job.
func (l *low) approve(job journal.Job) {
	l.t.Helper()
	l.decide(job, "approve", "a.roy", "m.lee")
}

// next is what status says of the next pass of a job.
func (l *low) next(job journal.Job) string {
	l.t.Helper()
	st, err := l.Status(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	for _, j := range st.(packer.Status).Jobs {
		if j.Job != job.ID || j.NextPass == nil {
			continue
		}
		n := j.NextPass
		return fmt.Sprintf("%d/%d %s in %s", n.Pass, n.Of, n.Send, n.At.Sub(l.now).Round(time.Minute))
	}
	return ""
}

// TestSchedule: pauses are kept over restarts of the process, status says what comes next and when, no pass is sent twice and none is left out.
func TestSchedule(t *testing.T) {
	l := newLow(t)
	l.cfg.Link.Passes = packer.Passes{{Send: "all"}, {Send: "repair", After: strictyaml.Duration(10 * time.Minute)}, {Send: "all", After: strictyaml.Duration(24 * time.Hour)}}
	l.crash()
	job := l.run()[0]
	l.approve(job)
	l.run()
	for _, step := range []struct {
		later time.Duration // and a minute
		sent  string
		next  string
	}{
		{0, "1.1", "2/3 repair in 9m0s"},
		{7 * time.Minute, "1.1", "2/3 repair in 1m0s"},
		{0, "1.1 1.2", "3/3 all in 24h0m0s"},
		{23 * time.Hour, "1.1 1.2", "3/3 all in 59m0s"},
	} {
		l.crash() // whatever was known besides the journal is gone
		l.now = l.now.Add(step.later)
		job = l.run()[0]
		if got := l.passesSent(); got != step.sent {
			t.Fatalf("after %v the passes are %s, want %s", step.later, got, step.sent)
		}
		if got := l.next(job); got != step.next {
			t.Errorf("next %q, want %q", got, step.next)
		}
		l.want(job, "APPROVED", "waiting for pass")
	}
	l.now = l.now.Add(time.Hour)
	job = l.run()[0]
	l.want(job, "SENT", "SENT")
	if got := l.passesSent(); got != "1.1 1.2 1.3" || l.next(job) != "" {
		t.Errorf("passes %s, then %q", got, l.next(job))
	}
}

// TestPauseLetsOthersPass: while a release pauses, one of another stream is sent; and one that was overtaken in its own stream has had its passes, and
// is not called refused.
func TestPauseLetsOthersPass(t *testing.T) {
	l := newLow(t)
	l.cfg.Link.Passes = packer.Passes{{Send: "all"}, {Send: "repair", After: strictyaml.Duration(time.Hour)}}
	l.crash()
	first := l.run()[0]
	l.approve(first)
	l.run()
	l.commit("two")
	second := l.run()[1]
	l.approve(second)
	l.run()
	if got := l.passesSent(); got != "1.1 2.1" {
		t.Fatalf("passes %s", got)
	}
	l.now = l.now.Add(58 * time.Minute) // the first is due
	jobs := l.run()
	if got := l.passesSent(); got != "1.1 2.1 1.2" || jobs[0].State != "SENT" || jobs[1].State != "APPROVED" {
		t.Errorf("passes %s, states %s and %s", got, jobs[0].State, jobs[1].State)
	}

	l.commit("three")
	third := l.run()[2]
	l.approve(third)
	l.now = l.now.Add(time.Hour) // the second is due, the third new
	l.run()
	l.commit("four")
	fourth := l.run()[3]
	if third, err := l.Journal().Get(third.ID); err != nil || third.State != "APPROVED" {
		t.Fatalf("the third is %s (%v)", third.State, err)
	}
	l.cfg.Link.Passes = packer.CountedPasses(1)
	l.crash()
	l.approve(fourth)
	l.run()
	l.cfg.Link.Passes = packer.Passes{{Send: "all"}, {Send: "repair"}}
	l.crash()
	l.now = l.now.Add(2 * time.Hour)
	jobs = l.run()
	if passes := l.passesSent(); jobs[2].State != "SENT" || jobs[3].State != "SENT" || !strings.Contains(passes, "3.1") || strings.Contains(passes, "3.2") {
		t.Errorf("states %s and %s, passes %s; %s", jobs[2].State, jobs[3].State, passes, jobs[2].LastError)
	}
}

// TestTwoLanes: one release over two sockets, of which one leads nowhere: it is sent all the same, both in full passes, and status and the audit
// trail tell the lanes apart.
func TestTwoLanes(t *testing.T) {
	l := newLow(t)
	second, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	one, two := packer.Lane{Address: l.cfg.Link.Address}, packer.Lane{Address: second.LocalAddr().String(), Rate: 50_000_000}
	l.cfg.Link.Address, l.cfg.Link.Lanes, l.cfg.Link.Passes = "", []packer.Lane{one, two}, packer.CountedPasses(2)
	l.crash()
	job := l.run()[0]
	l.approve(job)
	l.run()
	st, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := st.(packer.Status)
	if p := got.Link.LastPass; p == nil || p.Pass != 2 || p.Source == 0 || len(p.Lanes) != 2 || p.Lanes[1].Address != two.Address || p.Lanes[0].Sealed == 0 || p.Lanes[1].Sealed == 0 {
		t.Errorf("the last pass: %+v", p)
	}
	if words := strings.Join(got.Link.Words, "\n"); !strings.Contains(words, "lane 1, "+one.Address+" at 100 Mbit/s: ") || !strings.Contains(words, "lane 2, "+two.Address+" at 50 Mbit/s: ") {
		t.Errorf("words: %s", words)
	}
	if len(got.Link.Lanes) != 2 || got.Link.Lanes[1].Quiet || got.Link.RateBits != 150_000_000 {
		t.Errorf("lanes: %+v", got.Link)
	}
}

// TestLaneThatCannotBeOpened: a lane that has no route does not keep the packer from starting, and is opened later.
func TestLaneThatCannotBeOpened(t *testing.T) {
	cfg := packer.DefaultConfig().Link
	cfg.GSO, cfg.Lanes = "off", []packer.Lane{{Address: "127.0.0.1:9"}, {Address: "[fe80::1%nowhere]:9"}}
	conns, err := packer.Dial(t.Context(), cfg, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	defer conns.Close()
	var refused *link.SendError
	if err := conns[1].Conn.WriteBatch(make([]byte, 20), 10); !errors.As(err, &refused) || refused.Lost != 2 {
		t.Errorf("%v", err)
	}
	if err := conns[0].Conn.WriteBatch(make([]byte, 20), 10); err != nil {
		t.Error(err)
	}
	cfg.Lanes = cfg.Lanes[1:]
	if _, err := packer.Dial(t.Context(), cfg, zap.NewNop()); err == nil {
		t.Error("no lane can be opened, and there is no error")
	}
}
