// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"sluice/pkg/registry"
	"sluice/pkg/registry/registrytest"
)

// errInjected stands for any failure of a target.
var errInjected = errors.New("injected failure")

// crashSizes is a release with one file in each interesting place.
func crashSizes() map[string]int64 {
	return map[string]int64{"a/b": 2000, "empty": 0, "weights": 70_000}
}

// trace lists the store operations of one undisturbed publish.
func trace(t *testing.T) []string {
	t.Helper()
	p := open(t, t.TempDir())
	var ops []string
	registry.Intercept(p, func(op, key string, after bool) error {
		ops = append(ops, fmt.Sprint(op, " ", key, " ", after))
		return nil
	})
	s := registrytest.Make(t, t.TempDir(), "llama", 1, 1, crashSizes())
	if _, err := p.Publish(t.Context(), s.Release, s, nil); err != nil {
		t.Fatal(err)
	}
	return ops
}

func open(t *testing.T, dir string) *registry.Directory {
	t.Helper()
	p, err := registry.NewDirectory(filepath.Join(dir, "registry"), registry.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// visibleIsWhole is invariant I3: a release without COMMIT is invisible, one
// with COMMIT is complete.
func visibleIsWhole(t *testing.T, p registry.Publisher, s *registrytest.Spool) {
	t.Helper()
	_, err := p.Get(t.Context(), s.Name, s.ID)
	if errors.Is(err, registry.ErrNotFound) {
		return
	}
	if err != nil {
		t.Fatalf("half a release is visible: %v", err)
	}
	for _, f := range s.Files {
		rc, _, err := p.Open(t.Context(), s.Name, s.ID, f.Path)
		if err != nil {
			t.Fatalf("visible release without %s: %v", f.Path, err)
		}
		rc.Close()
	}
}

// TestErrorAtEveryOperation fails each store operation in turn, once before and
// once after it took effect, and publishes again.
func TestErrorAtEveryOperation(t *testing.T) {
	points := trace(t)
	if len(points) < 40 {
		t.Fatalf("only %d points: %v", len(points), points)
	}
	for k := range points {
		dir := t.TempDir()
		p := open(t, dir)
		var n atomic.Int64
		registry.Intercept(p, func(string, string, bool) error {
			if n.Add(1) > int64(k) {
				return errInjected // and all that follow: the target is gone
			}
			return nil
		})
		s := registrytest.Make(t, t.TempDir(), "llama", 1, 1, crashSizes())
		if _, err := p.Publish(t.Context(), s.Release, s, nil); !errors.Is(err, errInjected) {
			t.Fatalf("point %d (%s): publish returned %v", k, points[k], err)
		}
		again(t, dir, s, fmt.Sprint("error at ", points[k]))
	}
}

// again is what the receiver does after a failure: reconcile, publish again.
func again(t *testing.T, dir string, s *registrytest.Spool, what string) {
	t.Helper()
	p := open(t, dir)
	visibleIsWhole(t, p, s)
	if err := p.Reconcile(t.Context()); err != nil {
		t.Fatalf("%s: reconcile: %v", what, err)
	}
	visibleIsWhole(t, p, s)
	for _, found := range registrytest.Fsck(t, p, true) {
		if found.Kind != registry.ProblemUncommitted {
			t.Fatalf("%s: after reconcile: %+v", what, found)
		}
	}
	if _, err := p.Publish(t.Context(), s.Release, s, nil); err != nil {
		t.Fatalf("%s: publish again: %v", what, err)
	}
	registrytest.Complete(t, p, s)
	registrytest.Clean(t, p)
}

// Environment of the helper process.
const (
	killAt    = "SLUICE_TEST_KILL_AT"
	killDir   = "SLUICE_TEST_KILL_DIR"
	killSpool = "SLUICE_TEST_KILL_SPOOL"
)

// TestKillHelper is no test: it is the process that TestKillAtEveryOperation kills.
func TestKillHelper(t *testing.T) {
	at, err := strconv.Atoi(os.Getenv(killAt))
	if err != nil {
		t.Skip("only as a helper process")
	}
	p := open(t, os.Getenv(killDir))
	var n int
	registry.Intercept(p, func(string, string, bool) error {
		if n++; n > at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // the signal is on its way
		}
		return nil
	})
	s := registrytest.Make(t, os.Getenv(killSpool), "llama", 1, 1, crashSizes())
	_, err = p.Publish(t.Context(), s.Release, s, nil)
	t.Fatalf("not killed at point %d: %v", at, err)
}

// TestKillAtEveryOperation kills a publisher process with SIGKILL before and
// after each store operation: staging and locks are left as a crash leaves them.
func TestKillAtEveryOperation(t *testing.T) {
	points := trace(t)
	for k := range points {
		dir, spool := t.TempDir(), t.TempDir()
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKillHelper$")
		cmd.Env = append(os.Environ(), killAt+"="+strconv.Itoa(k), killDir+"="+dir, killSpool+"="+spool)
		out, err := cmd.CombinedOutput()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !status.Signaled() {
			t.Fatalf("point %d (%s): helper was not killed: %v\n%s", k, points[k], err, out)
		}
		s := registrytest.Make(t, t.TempDir(), "llama", 1, 1, crashSizes())
		again(t, dir, s, fmt.Sprint("killed at ", points[k]))
	}
}

// TestCommitIsLast is the order of registry-layout.md.
func TestCommitIsLast(t *testing.T) {
	var puts []string
	for _, op := range trace(t) {
		verb, key, _ := strings.Cut(strings.TrimSuffix(op, " true"), " ")
		if strings.HasSuffix(op, " true") && (verb == "put" || verb == "swap") {
			part := strings.Split(key, "/")
			puts = append(puts, part[0]+"/"+part[len(part)-1])
		}
	}
	want := []string{
		"releases/b", "releases/empty", "releases/weights",
		"provenance/envelope.sluice", "provenance/gate.json", "provenance/inspection.json", "provenance/release.json",
		"provenance/receipt.json", "provenance/COMMIT", "catalog/serial-000000000001.json", "channels/latest.json",
	}
	if !slices.Equal(puts, want) {
		t.Errorf("order\n%q, want\n%q", puts, want)
	}
}

// TestSlowPublisherDoesNotMoveChannelBack: while one publisher stands between
// catalogue and channel, another publishes the next release.
func TestSlowPublisherDoesNotMoveChannelBack(t *testing.T) {
	dir := t.TempDir()
	slow, fast := open(t, dir), open(t, dir)
	first := registrytest.Make(t, t.TempDir(), "llama", 1, 1, crashSizes())
	second := registrytest.Make(t, t.TempDir(), "llama", 1, 2, crashSizes())
	overtaken := 0
	registry.Intercept(slow, func(op, key string, after bool) error {
		if !strings.HasPrefix(key, "channels/") || after || op != "get" || overtaken > 0 {
			return nil
		}
		overtaken++
		_, err := fast.Publish(t.Context(), second.Release, second, nil)
		return err
	})
	if _, err := slow.Publish(t.Context(), first.Release, first, nil); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "registry", "channels", "llama", "latest.json"))
	if err != nil || !strings.Contains(string(data), registrytest.Hex(second)) || overtaken != 1 {
		t.Errorf("channel is %s, %v, overtaken %d times", data, err, overtaken)
	}
	registrytest.Clean(t, slow)
}

// TestLostSwapIsRepeated: the same between reading the channel and writing it.
func TestLostSwapIsRepeated(t *testing.T) {
	dir := t.TempDir()
	slow, fast := open(t, dir), open(t, dir)
	first := registrytest.Make(t, t.TempDir(), "llama", 1, 1, crashSizes())
	second := registrytest.Make(t, t.TempDir(), "llama", 1, 2, crashSizes())
	swaps := 0
	registry.Intercept(slow, func(op, _ string, after bool) error {
		if op != "swap" || after {
			return nil
		}
		swaps++
		_, err := fast.Publish(t.Context(), second.Release, second, nil)
		return err
	})
	if _, err := slow.Publish(t.Context(), first.Release, first, nil); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "registry", "channels", "llama", "latest.json"))
	if err != nil || !strings.Contains(string(data), registrytest.Hex(second)) || swaps != 1 {
		t.Errorf("channel is %s, %v, after %d swaps", data, err, swaps)
	}
}

// TestLeftoversOfACrash: staging of a dead publisher is found and removed, that
// of a living one is not touched.
func TestLeftoversOfACrash(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir)
	s := registrytest.Make(t, t.TempDir(), "llama", 1, 1, crashSizes())
	stage := filepath.Join(dir, "registry", ".staging", strings.Repeat("ab", 32))
	if err := os.Mkdir(stage, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(stage+"/1", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if found := registrytest.Fsck(t, p, false); len(found) != 1 || found[0].Kind != registry.ProblemLeftover {
		t.Errorf("fsck found %v", found)
	}
	other := open(t, dir)
	registry.Intercept(p, func(op, key string, after bool) error {
		if op != "put" || after || !strings.HasSuffix(key, "weights") {
			return nil
		}
		if err := other.Reconcile(t.Context()); err != nil {
			return err
		}
		_, err := os.Stat(filepath.Join(dir, "registry", ".staging", registrytest.Hex(s)))
		return err
	})
	if _, err := p.Publish(t.Context(), s.Release, s, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(stage); err == nil {
		t.Error("leftover staging was not removed")
	}
	registrytest.Clean(t, p)
}
