// SPDX-License-Identifier: Apache-2.0

//go:build real

package real_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"sluice/pkg/registry"
	"sluice/pkg/registry/registrytest"
)

// TestRevokeUnderObjectLock: COMPLIANCE lets nobody delete a version, and a revocation hides it all the same. Investigators read every
// version by its id, which the receipt has.
func TestRevokeUnderObjectLock(t *testing.T) {
	s := startMinIO(t)
	cfg := s.config("compliance", "")
	cfg.RetainFor, cfg.Compliance = time.Hour, true
	spool := smallSpool(t)
	p := open(t, cfg)
	receipt, err := p.Publish(t.Context(), spool.Release, spool, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Withdraw(t.Context(), spool.Name, spool.ID, registrytest.Revoke(1)); err != nil {
		t.Fatal(err)
	}
	registrytest.Withdrawn(t, p, spool, true)
	registrytest.Clean(t, p)
	c := s.client(t)
	for i, f := range receipt.Files {
		key := "releases/llama/sha256-" + receipt.Release + "/" + f.Path
		if _, err := c.StatObject(t.Context(), "compliance", key, minio.StatObjectOptions{}); minio.ToErrorResponse(err).StatusCode != http.StatusNotFound {
			t.Errorf("%s by name: %v", key, err)
		}
		want, err := os.ReadFile(spool.File(i))
		if err != nil {
			t.Fatal(err)
		}
		if got := readVersion(t, c, "compliance", key, f.VersionID); string(got) != string(want) {
			t.Errorf("%s version %s has %d bytes, was %d, or others", key, f.VersionID, len(got), len(want))
		}
		if err := c.RemoveObject(t.Context(), "compliance", key, minio.RemoveObjectOptions{VersionID: f.VersionID}); err == nil {
			t.Errorf("version %s of %s was deleted within its retention", f.VersionID, key)
		}
	}
	if _, err := open(t, cfg).Publish(t.Context(), spool.Release, spool, nil); !errors.Is(err, registry.ErrWithdrawn) {
		t.Errorf("publish over delete markers: %v", err) // this server would take If-None-Match: * there
	}
}

// TestRevokeInPlainBucket: a bucket that somebody made without versioning, and its mending.
func TestRevokeInPlainBucket(t *testing.T) {
	s := startMinIO(t)
	c := s.client(t)
	if err := c.MakeBucket(t.Context(), "plain", minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	spool := smallSpool(t)
	p := open(t, s.config("plain", ""))
	if _, err := p.Publish(t.Context(), spool.Release, spool, nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Withdraw(t.Context(), spool.Name, spool.ID, registrytest.Revoke(1)); !errors.Is(err, registry.ErrNoVersions) {
		t.Errorf("revoke in a bucket without versions: %v", err)
	}
	registrytest.Withdrawn(t, p, spool, true)
	if found := registrytest.Fsck(t, p, true); len(found) != 1 || found[0].Kind != registry.ProblemExposed {
		t.Errorf("fsck found %v", found)
	}
	if err := c.EnableVersioning(t.Context(), "plain"); err != nil {
		t.Fatal(err)
	}
	if err := p.Reconcile(t.Context()); err != nil {
		t.Fatal(err)
	}
	registrytest.Clean(t, p)
	key := "releases/llama/sha256-" + registrytest.Hex(spool) + "/a.txt"
	if got := (buckets{server: s}).Kept(t, "plain", key); int64(len(got)) != registrytest.Small()["a.txt"] {
		t.Errorf("investigators find %d bytes", len(got))
	}
}

// helperRestore makes TestWithdrawHelper give back instead of revoking.
const helperRestore = "SLUICE_TEST_RESTORE"

// decide is what the helper does, and its parent again.
func decide(t *testing.T, p registry.Publisher, spool *registrytest.Spool, restore bool) error {
	t.Helper()
	if restore {
		return p.Restore(t.Context(), spool.Name, spool.ID, spool.DirectoryDigest, registrytest.Resume(2))
	}
	return p.Withdraw(t.Context(), spool.Name, spool.ID, registrytest.Revoke(2))
}

// TestWithdrawHelper is no test: it is what TestKillWithdrawalAtEveryRequest kills.
func TestWithdrawHelper(t *testing.T) {
	endpoint := os.Getenv(helperEndpoint)
	if endpoint == "" {
		t.Skip("only as a helper process")
	}
	spool := killSpool(t, os.Getenv(helperSpool))
	p := open(t, (&server{}).killConfig(endpoint, os.Getenv(helperBucket), os.Getenv(helperState)))
	if err := decide(t, p, spool, os.Getenv(helperRestore) != ""); err != nil {
		t.Fatal(err)
	}
}

// TestKillWithdrawalAtEveryRequest kills who revokes, or gives back, with SIGKILL at the k-th request, before the server sees it and after
// the server has answered, for every k; then a reconciliation or the same call goes on.
func TestKillWithdrawalAtEveryRequest(t *testing.T) {
	s := startMinIO(t)
	for _, restore := range []bool{false, true} {
		points := 0
		for k := 1; ; k++ {
			before := s.killDecision(t, k, true, restore)
			after := s.killDecision(t, k, false, restore)
			if !before && !after {
				break
			}
			points += 2
		}
		t.Logf("give back %v: %d kill points", restore, points)
		if points < 30 {
			t.Errorf("give back %v: only %d kill points", restore, points)
		}
	}
}

// killDecision reports whether the helper lived long enough to send request k.
func (s *server) killDecision(t *testing.T, k int, early, restore bool) bool {
	t.Helper()
	bucket, state, dir, what := fmt.Sprint("decide-", k, "-", early, "-", restore), t.TempDir(), t.TempDir(), "nothing"
	spool := killSpool(t, t.TempDir())
	p := open(t, s.killConfig("http://"+s.addr, bucket, state))
	if _, err := p.Publish(t.Context(), spool.Release, spool, nil); err != nil {
		t.Fatal(err)
	}
	if restore {
		if err := p.Withdraw(t.Context(), spool.Name, spool.ID, registrytest.Stop(1)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWithdrawHelper$")
	var n atomic.Int64
	kill := func(r *http.Request) {
		what = fmt.Sprint(r.Method, " ", r.URL.Path, "?", r.URL.RawQuery)
		_ = cmd.Process.Kill()
		_, _ = cmd.Process.Wait()
		panic(http.ErrAbortHandler)
	}
	proxy := s.proxy(t, func(r *http.Request) {
		if n.Add(1) == int64(k) && early {
			kill(r)
		}
	}, func(resp *http.Response) error {
		if n.Load() == int64(k) && !early {
			kill(resp.Request)
		}
		return nil
	})
	defer proxy.Close()
	cmd.Env = append(os.Environ(), helperEndpoint+"="+proxy.URL, helperBucket+"="+bucket, helperState+"="+state, helperSpool+"="+dir)
	if restore {
		cmd.Env = append(cmd.Env, helperRestore+"=1")
	}
	out, err := cmd.CombinedOutput()
	killed := n.Load() >= int64(k)
	if !killed && err != nil {
		t.Fatalf("helper: %v\n%s", err, out)
	}
	s.afterDecision(t, bucket, state, k, restore, fmt.Sprintf("request %d, early %v, give back %v, %s", k, early, restore, what))
	return killed
}

// afterDecision checks that the release is withdrawn or whole, and that both ways to go on end in the same.
func (s *server) afterDecision(t *testing.T, bucket, state string, k int, restore bool, what string) {
	t.Helper()
	spool := killSpool(t, t.TempDir())
	p := open(t, s.killConfig("http://"+s.addr, bucket, state))
	w, gone, err := p.Withdrawn(t.Context(), spool.Name, spool.ID)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if gone {
		registrytest.Withdrawn(t, p, spool, w.Final)
	} else {
		registrytestWhole(t, p, spool, what)
	}
	if k%2 == 0 {
		if err := p.Reconcile(t.Context()); err != nil {
			t.Fatalf("%s: reconcile: %v", what, err)
		}
		if found := registrytest.Fsck(t, p, true); len(found) > 0 {
			t.Fatalf("%s: after reconcile: %v", what, found)
		}
	}
	if err := decide(t, p, spool, restore); err != nil {
		t.Fatalf("%s: again: %v", what, err)
	}
	if restore {
		registrytest.Complete(t, p, spool)
	} else {
		registrytest.Withdrawn(t, p, spool, true)
	}
	if found := registrytest.Fsck(t, p, true); len(found) > 0 {
		t.Fatalf("%s: fsck found %v", what, found)
	}
}
