// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"sluice/pkg/registry"
	"sluice/pkg/registry/registrytest"
)

// decision is one call that a crash may fall into.
type decision struct {
	name  string
	ready func(t *testing.T, p registry.Publisher, s *registrytest.Spool) // before it
	do    func(t *testing.T, p registry.Publisher, s *registrytest.Spool) error
	gone  bool // the release is withdrawn after it
	final bool
}

func suspend(t *testing.T, p registry.Publisher, s *registrytest.Spool) error {
	return p.Withdraw(t.Context(), s.Name, s.ID, registrytest.Stop(1))
}

func revoke(t *testing.T, p registry.Publisher, s *registrytest.Spool) error {
	return p.Withdraw(t.Context(), s.Name, s.ID, registrytest.Revoke(2))
}

func resume(t *testing.T, p registry.Publisher, s *registrytest.Spool) error {
	return p.Restore(t.Context(), s.Name, s.ID, s.DirectoryDigest, registrytest.Resume(3))
}

func must(f func(*testing.T, registry.Publisher, *registrytest.Spool) error) func(*testing.T, registry.Publisher, *registrytest.Spool) {
	return func(t *testing.T, p registry.Publisher, s *registrytest.Spool) {
		t.Helper()
		if err := f(t, p, s); err != nil {
			t.Fatal(err)
		}
	}
}

func decisions() []decision {
	nothing := func(*testing.T, registry.Publisher, *registrytest.Spool) {}
	return []decision{
		{"suspend", nothing, suspend, true, false},
		{"revoke", nothing, revoke, true, true},
		{"revoke what is suspended", must(suspend), revoke, true, true},
		{"give back", must(suspend), resume, false, false},
	}
}

// prepared is a registry in dir with two releases; the second is what is decided upon.
func (d decision) prepared(t *testing.T, dir string) (p *registry.Directory, first, second *registrytest.Spool) {
	t.Helper()
	p = open(t, dir)
	first = registrytest.Make(t, t.TempDir(), "llama", 1, 1, crashSizes())
	second = registrytest.Make(t, t.TempDir(), "llama", 1, 2, crashSizes())
	for _, s := range []*registrytest.Spool{first, second} {
		if _, err := p.Publish(t.Context(), s.Release, s, nil); err != nil {
			t.Fatal(err)
		}
	}
	d.ready(t, p, second)
	return p, first, second
}

// copied is a registry as prepared makes it, from one that was made before.
func (d decision) copied(t *testing.T, made string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(made)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// writes says whether the operation at point may change the target: a process
// that is killed at another leaves what the one before left.
func writes(point string) bool {
	verb, _, _ := strings.Cut(point, " ")
	return verb != "get" && verb != "stat" && verb != "list"
}

// points lists the store operations of the undisturbed call.
func (d decision) points(t *testing.T) (ops []string) {
	t.Helper()
	p, _, s := d.prepared(t, t.TempDir())
	registry.Intercept(p, func(op, key string, after bool) error {
		ops = append(ops, fmt.Sprint(op, " ", key, " ", after))
		return nil
	})
	if err := d.do(t, p, s); err != nil {
		t.Fatal(err)
	}
	if len(ops) < 30 {
		t.Fatalf("only %d points: %v", len(ops), ops)
	}
	return ops
}

// settled judges what a crash left in dir, and both ways to go on: the same
// call again, and a reconciliation. Which is first follows from k.
func (d decision) settled(t *testing.T, dir string, k int, what string) {
	t.Helper()
	p := open(t, dir)
	first := registrytest.Make(t, t.TempDir(), "llama", 1, 1, crashSizes())
	s := registrytest.Make(t, t.TempDir(), "llama", 1, 2, crashSizes())
	_, gone, err := p.Withdrawn(t.Context(), s.Name, s.ID)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if gone {
		registrytest.Withdrawn(t, p, s, d.decidedFinal(t, p, s))
	} else {
		visibleIsWhole(t, p, s)
	}
	if k%2 == 0 {
		if err := p.Reconcile(t.Context()); err != nil {
			t.Fatalf("%s: reconcile: %v", what, err)
		}
		if found := registrytest.Fsck(t, p, true); len(found) > 0 {
			t.Fatalf("%s: after reconcile: %+v", what, found)
		}
	}
	if err := d.do(t, p, s); err != nil {
		t.Fatalf("%s: again: %v", what, err)
	}
	registrytest.Complete(t, p, first)
	at := first
	if d.gone {
		registrytest.Withdrawn(t, p, s, d.final)
	} else {
		registrytest.Complete(t, p, s)
		at = s
	}
	if data := channel(t, dir); !strings.Contains(data, registrytest.Hex(at)) {
		t.Fatalf("%s: channel is %s", what, data)
	}
	if err := p.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	registrytest.Clean(t, p)
}

// decidedFinal is what the record says now: a crash may have kept the stronger one out.
func (d decision) decidedFinal(t *testing.T, p registry.Publisher, s *registrytest.Spool) bool {
	t.Helper()
	w, _, err := p.Withdrawn(t.Context(), s.Name, s.ID)
	if err != nil {
		t.Fatal(err)
	}
	return w.Final
}

func channel(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "registry", "channels", "llama", "latest.json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestWithdrawErrorAtEveryOperation fails each store operation in turn, once
// before and once after it took effect, and goes on.
func TestWithdrawErrorAtEveryOperation(t *testing.T) {
	for _, d := range decisions() {
		t.Run(d.name, func(t *testing.T) {
			made := t.TempDir()
			_, _, s := d.prepared(t, made)
			for k, point := range d.points(t) {
				dir := d.copied(t, made)
				p := open(t, dir)
				var n atomic.Int64
				registry.Intercept(p, func(string, string, bool) error {
					if n.Add(1) > int64(k) {
						return errInjected // and all that follow: the target is gone
					}
					return nil
				})
				if err := d.do(t, p, s); !errors.Is(err, errInjected) {
					t.Fatalf("point %d (%s): %v", k, point, err)
				}
				d.settled(t, dir, k, fmt.Sprint("error at ", point))
			}
		})
	}
}

// killDecision is the environment of TestWithdrawKillHelper, beside those of TestKillHelper.
const killDecision = "SLUICE_TEST_KILL_DECISION"

// TestWithdrawKillHelper is no test: it is the process that TestWithdrawKillAtEveryOperation kills.
func TestWithdrawKillHelper(t *testing.T) {
	name := os.Getenv(killDecision)
	if name == "" {
		t.Skip("only as a helper process")
	}
	at, err := strconv.Atoi(os.Getenv(killAt))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range decisions() {
		if d.name != name {
			continue
		}
		p := open(t, os.Getenv(killDir))
		n := 0
		registry.Intercept(p, func(string, string, bool) error {
			if n++; n > at {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // the signal is on its way
			}
			return nil
		})
		s := registrytest.Make(t, t.TempDir(), "llama", 1, 2, crashSizes())
		t.Fatalf("not killed at point %d: %v", at, d.do(t, p, s))
	}
}

// TestWithdrawKillAtEveryOperation kills the process before and after each
// store operation that writes: locks and staging are left as a crash leaves them. The
// decisions in between do the same operations, and are stopped by errors only.
func TestWithdrawKillAtEveryOperation(t *testing.T) {
	for _, d := range []decision{decisions()[1], decisions()[3]} {
		t.Run(d.name, func(t *testing.T) {
			made := t.TempDir()
			d.prepared(t, made)
			for k, point := range d.points(t) {
				if !writes(point) {
					continue
				}
				dir := d.copied(t, made)
				cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWithdrawKillHelper$")
				cmd.Env = append(os.Environ(), killAt+"="+strconv.Itoa(k), killDir+"="+dir, killDecision+"="+d.name)
				out, err := cmd.CombinedOutput()
				if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() {
					t.Fatalf("point %d (%s): helper was not killed: %v\n%s", k, point, err, out)
				}
				d.settled(t, dir, k, fmt.Sprint("killed at ", point))
			}
		})
	}
}

// TestWithdrawOrder is the order of registry-layout.md: whatever a reader looks
// at first, nothing that it relies on changes before the record does.
func TestWithdrawOrder(t *testing.T) {
	var wrote []string
	for _, op := range decisions()[1].points(t) {
		verb, rest, _ := strings.Cut(op, " ")
		if strings.HasSuffix(rest, " true") && (verb == "put" || verb == "swap" || verb == "hide") {
			top, _, _ := strings.Cut(rest, "/")
			wrote = append(wrote, verb+" "+top)
		}
	}
	if got, want := strings.Join(wrote, ", "), "swap withdrawals, put catalog, swap channels, hide releases"; got != want {
		t.Errorf("order %s, want %s", got, want)
	}
}

// at runs do once, before the first operation that matches.
func at(p registry.Publisher, verb, prefix string, do func() error) *int {
	n := new(int)
	registry.Intercept(p, func(op, key string, after bool) error {
		if op != verb || after || !strings.HasPrefix(key, prefix) || *n > 0 {
			return nil
		}
		*n++
		return do()
	})
	return n
}

// TestWithdrawOvertakesPublisher: the release is withdrawn while its publisher
// stands before the channel, which is right for the catalogue then and is not
// touched; the publisher must not leave it at the release.
func TestWithdrawOvertakesPublisher(t *testing.T) {
	for _, d := range decisions()[:2] {
		dir := t.TempDir()
		slow, fast := open(t, dir), open(t, dir)
		first := registrytest.Make(t, t.TempDir(), "llama", 1, 1, crashSizes())
		s := registrytest.Make(t, t.TempDir(), "llama", 1, 2, crashSizes())
		if _, err := slow.Publish(t.Context(), first.Release, first, nil); err != nil {
			t.Fatal(err)
		}
		n := at(slow, "swap", "channels/", func() error { return d.do(t, fast, s) })
		if _, err := slow.Publish(t.Context(), s.Release, s, nil); !errors.Is(err, registry.ErrWithdrawn) || *n != 1 {
			t.Errorf("%s: publish: %v, overtaken %d times", d.name, err, *n)
		}
		if data := channel(t, dir); !strings.Contains(data, registrytest.Hex(first)) {
			t.Errorf("%s: channel is %s", d.name, data)
		}
		registrytest.Withdrawn(t, fast, s, d.final)
		registrytest.Clean(t, fast)
	}
}

// TestWithdrawOvertakesReconcile: the same while a reconciliation repairs a
// channel that a crash left behind; it looks at no release at its end.
func TestWithdrawOvertakesReconcile(t *testing.T) {
	dir := t.TempDir()
	p, first, s := decisions()[0].prepared(t, dir)
	file := filepath.Join(dir, "registry", "channels", "llama", "latest.json")
	behind := fmt.Sprintf(`{"type":"sluice-channel-v1","name":"llama","release":"%x","stream":"models/llama","epoch":1,"seq":1,"serial":1}`, first.ID)
	if err := errors.Join(os.Remove(file), os.WriteFile(file, []byte(behind), 0o444)); err != nil {
		t.Fatal(err)
	}
	slow := open(t, dir)
	n := at(slow, "swap", "channels/", func() error { return suspend(t, p, s) })
	if err := slow.Reconcile(t.Context()); err != nil || *n != 1 {
		t.Errorf("%v, overtaken %d times", err, *n)
	}
	if data := channel(t, dir); !strings.Contains(data, registrytest.Hex(first)) {
		t.Errorf("channel is %s", data)
	}
	registrytest.Clean(t, p)
}

// TestRevokeOvertakesHealing: files of a release come back while it is revoked.
func TestRevokeOvertakesHealing(t *testing.T) {
	dir := t.TempDir()
	slow, fast := open(t, dir), open(t, dir)
	s := registrytest.Make(t, t.TempDir(), "llama", 1, 1, crashSizes())
	if _, err := slow.Publish(t.Context(), s.Release, s, nil); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "registry", published(s, "weights"))); err != nil {
		t.Fatal(err)
	}
	n := at(slow, "put", "releases/", func() error { return revoke(t, fast, s) })
	if _, err := slow.Publish(t.Context(), s.Release, s, nil); !errors.Is(err, registry.ErrWithdrawn) || *n != 1 {
		t.Errorf("publish: %v, overtaken %d times", err, *n)
	}
	registrytest.Withdrawn(t, fast, s, true)
	registrytest.Clean(t, fast)
	if _, err := os.Stat(filepath.Join(dir, "registry", ".withdrawn", "llama", "sha256-"+registrytest.Hex(s)+".1", "weights")); err != nil {
		t.Errorf("what came back is not kept: %v", err)
	}
}

// TestPublishersAndWithdrawals: a withdrawal stands before its channel while
// the next release is published, and the other way round.
func TestPublishersAndWithdrawals(t *testing.T) {
	for _, publishes := range []bool{true, false} {
		dir := t.TempDir()
		slow, fast := open(t, dir), open(t, dir)
		s := registrytest.Make(t, t.TempDir(), "llama", 1, 1, crashSizes())
		next := registrytest.Make(t, t.TempDir(), "llama", 1, 2, crashSizes())
		if _, err := slow.Publish(t.Context(), s.Release, s, nil); err != nil {
			t.Fatal(err)
		}
		publish := func(p registry.Publisher) error {
			_, err := p.Publish(t.Context(), next.Release, next, nil)
			return err
		}
		withdraw := func(p registry.Publisher) error { return revoke(t, p, s) }
		first, second := withdraw, publish
		if publishes {
			first, second = publish, withdraw
		}
		n := at(slow, "swap", "channels/", func() error { return second(fast) })
		if err := first(slow); err != nil || *n != 1 {
			t.Errorf("publishes %v: %v, overtaken %d times", publishes, err, *n)
		}
		if data := channel(t, dir); !strings.Contains(data, registrytest.Hex(next)) {
			t.Errorf("publishes %v: channel is %s", publishes, data)
		}
		registrytest.Withdrawn(t, fast, s, true)
		registrytest.Complete(t, fast, next)
		registrytest.Clean(t, fast)
	}
}

// TestStopOvertakesRestore: a second officer stops the release while it is read
// to be given back. Nobody gives back what that officer stopped.
func TestStopOvertakesRestore(t *testing.T) {
	dir := t.TempDir()
	slow, fast := open(t, dir), open(t, dir)
	s := registrytest.Make(t, t.TempDir(), "llama", 1, 1, crashSizes())
	if _, err := slow.Publish(t.Context(), s.Release, s, nil); err != nil {
		t.Fatal(err)
	}
	must(suspend)(t, slow, s)
	n := at(slow, "get", "releases/", func() error { return fast.Withdraw(t.Context(), s.Name, s.ID, registrytest.Stop(9)) })
	if err := resume(t, slow, s); !errors.Is(err, registry.ErrConflict) || *n != 1 {
		t.Errorf("restore: %v, overtaken %d times", err, *n)
	}
	registrytest.Withdrawn(t, fast, s, false)
	registrytest.Clean(t, fast)
}

// TestFirstStopWhileRestoring: a release that nobody stopped is given back, and the first stop of its life comes at any
// moment of that. Whoever is first, neither takes what the other did for damage.
func TestFirstStopWhileRestoring(t *testing.T) {
	for k := 0; ; k++ {
		dir := t.TempDir()
		slow, fast := open(t, dir), open(t, dir)
		s := registrytest.Make(t, t.TempDir(), "llama", 1, 1, map[string]int64{"f": 1})
		if _, err := slow.Publish(t.Context(), s.Release, s, nil); err != nil {
			t.Fatal(err)
		}
		n, at := 0, ""
		registry.Intercept(slow, func(op, key string, after bool) error {
			if n++; n != k+1 || at == "locked" {
				return nil
			}
			if op == "begin" { // from here to the end of the call nobody else decides
				at = "locked"
				return nil
			}
			at = fmt.Sprint(op, " ", key, " ", after)
			return suspend(t, fast, s)
		})
		err := resume(t, slow, s)
		if at == "locked" {
			if k < 6 {
				t.Errorf("only %d points", k)
			}
			return
		}
		if err != nil && !errors.Is(err, registry.ErrConflict) {
			t.Errorf("stopped at %s: %v", at, err)
		}
		registrytest.Clean(t, fast)
	}
}

// TestRestoreOvertakesWithdrawal, on a target without locks: the release is given
// back while who withdrew it stands before the mark. The mark must not stay.
func TestRestoreOvertakesWithdrawal(t *testing.T) {
	f := newFake(t)
	slow, fast := f.open(t, "marks"), f.open(t, "marks")
	s := registrytest.Make(t, t.TempDir(), "llama", 1, 1, registrytest.Small())
	if _, err := slow.Publish(t.Context(), s.Release, s, nil); err != nil {
		t.Fatal(err)
	}
	n := at(slow, "put", "catalog/", func() error { return resume(t, fast, s) })
	if err := suspend(t, slow, s); err != nil || *n != 1 {
		t.Fatalf("%v, overtaken %d times", err, *n)
	}
	registrytest.Complete(t, fast, s)
	registrytest.Clean(t, fast)
}

// TestWithdrawnProvenance: what an auditor needs stays readable, on both kinds of withdrawal.
func TestWithdrawnProvenance(t *testing.T) {
	for _, d := range decisions()[:2] {
		p, _, s := d.prepared(t, t.TempDir())
		must(d.do)(t, p, s)
		rc, _, err := p.OpenProvenance(t.Context(), s.Name, s.ID, "release.json")
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(rc)
		if rc.Close(); err != nil || string(data) != string(s.Statement) {
			t.Errorf("%s: %q, %v", d.name, data, err)
		}
		if err := p.Verify(t.Context(), s.Name, s.ID); !errors.Is(err, registry.ErrWithdrawn) {
			t.Errorf("%s: verify: %v", d.name, err)
		}
	}
}

// TestHiddenModes: nobody but the receiver's user looks at what was revoked.
func TestHiddenModes(t *testing.T) {
	dir := t.TempDir()
	p, _, s := decisions()[1].prepared(t, dir)
	must(revoke)(t, p, s)
	for _, name := range []string{".withdrawn", ".withdrawn/llama"} {
		if mode := stat(t, filepath.Join(dir, "registry", name)).Mode & 0o777; mode != 0o700 {
			t.Errorf("%s has mode %o", name, mode)
		}
	}
}

// TestRevokeWithoutVersions: where a delete would destroy, the bytes stay and
// the call says so; all else is done, and it is found. With versions it goes on.
func TestRevokeWithoutVersions(t *testing.T) {
	f := newFake(t)
	f.plain = true
	p := f.open(t, "plain")
	s := registrytest.Make(t, t.TempDir(), "llama", 1, 1, registrytest.Small())
	if _, err := p.Publish(t.Context(), s.Release, s, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := revoke(t, p, s); !errors.Is(err, registry.ErrNoVersions) {
			t.Errorf("revoke: %v", err)
		}
		if err := p.Reconcile(t.Context()); err != nil {
			t.Errorf("reconcile: %v", err)
		}
		registrytest.Withdrawn(t, p, s, true)
		if found := registrytest.Fsck(t, p, true); len(found) != 1 || found[0].Kind != registry.ProblemExposed {
			t.Errorf("fsck found %v", found)
		}
	}
	f.mu.Lock()
	f.plain = false
	f.mu.Unlock()
	must(revoke)(t, p, s)
	registrytest.Clean(t, p)
}

// TestRevokeInterrupted: the server fails between two deletes.
func TestRevokeInterrupted(t *testing.T) {
	f := newFake(t)
	p := f.open(t, "interrupted")
	s := registrytest.Make(t, t.TempDir(), "llama", 1, 1, registrytest.Many(20))
	if _, err := p.Publish(t.Context(), s.Release, s, nil); err != nil {
		t.Fatal(err)
	}
	var deletes atomic.Int64
	f.inject = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodDelete || deletes.Add(1) < 8 {
			return false
		}
		fail(w, http.StatusForbidden, "AccessDenied")
		return true
	}
	if err := revoke(t, p, s); !errors.Is(err, registry.ErrDenied) {
		t.Errorf("revoke: %v", err)
	}
	if found := registrytest.Fsck(t, p, true); len(found) != 1 || found[0].Kind != registry.ProblemExposed {
		t.Errorf("fsck found %v", found)
	}
	f.inject = nil
	must(revoke)(t, f.open(t, "interrupted"), s)
	registrytest.Clean(t, p)
	if n := len(f.kept["interrupted"]); n != 20 {
		t.Errorf("%d files are kept for investigators, want 20", n)
	}
}

// TestReconcileWithUnreadableRecord: it keeps neither the release from being
// withdrawn nor others from being finished.
func TestReconcileWithUnreadableRecord(t *testing.T) {
	f := fakes{newFake(t)}
	p := f.open(t, "unreadable")
	s := registrytest.Make(t, t.TempDir(), "llama", 1, 1, crashSizes())
	other := registrytest.Make(t, t.TempDir(), "llama", 1, 2, crashSizes())
	for _, s := range []*registrytest.Spool{s, other} {
		if _, err := p.Publish(t.Context(), s.Release, s, nil); err != nil {
			t.Fatal(err)
		}
	}
	f.Remove(t, "unreadable", "catalog/serial-000000000001.json")
	f.Remove(t, "unreadable", "catalog/serial-000000000002.json")
	f.Plant(t, "unreadable", "withdrawals/llama/sha256-"+registrytest.Hex(s)+".json", []byte("{}"))
	q := f.open(t, "unreadable")
	if err := q.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	registrytest.Complete(t, q, other)
	if _, err := q.Get(t.Context(), s.Name, s.ID); !errors.Is(err, registry.ErrCorrupt) {
		t.Errorf("get: %v", err)
	}
	if list, err := q.List(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("list: %v, %v", list, err)
	}
}

// TestWithdrawDamaged: a release that is damaged can be stopped and revoked like any other.
func TestWithdrawDamaged(t *testing.T) {
	for _, lost := range []string{"COMMIT", "receipt.json"} {
		dir := t.TempDir()
		p, first, s := decisions()[0].prepared(t, dir)
		if err := os.Remove(filepath.Join(dir, "registry/provenance/llama/sha256-"+registrytest.Hex(s), lost)); err != nil {
			t.Fatal(err)
		}
		q := open(t, dir)
		must(revoke)(t, q, s)
		if data := channel(t, dir); !strings.Contains(data, registrytest.Hex(first)) {
			t.Errorf("without %s: channel is %s", lost, data)
		}
		if _, err := os.Stat(filepath.Join(dir, "registry", published(s, "weights"))); err == nil {
			t.Errorf("without %s: the files are still there", lost)
		}
		if _, gone, err := p.Withdrawn(t.Context(), s.Name, s.ID); err != nil || !gone {
			t.Errorf("without %s: withdrawn %v, %v", lost, gone, err)
		}
	}
}
