// SPDX-License-Identifier: Apache-2.0

package journal_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/internal/journal"
)

// childEnv makes the test binary a child: "loop PATH", "inside PATH" or "hold PATH".
const childEnv = "SLUICE_JOURNAL_TEST_CHILD"

func TestMain(m *testing.M) {
	role, path, isChild := strings.Cut(os.Getenv(childEnv), " ")
	if !isChild {
		os.Exit(m.Run())
	}
	if err := child(role, path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func child(role, path string) error {
	j, err := journal.Open(path, journal.Options{States: loopStates()})
	if err != nil {
		return err
	}
	switch role {
	case "loop":
		return loop(j)
	case "inside":
		return dieInside(j)
	case "hold":
		fmt.Println("held")
		_, err := io.Copy(io.Discard, os.Stdin) // until the parent lets go
		return errors.Join(err, j.Close())
	}
	return fmt.Errorf("unknown role %q", role)
}

func loopStates() map[string][]string { return map[string][]string{"a": {"a"}} }

// loop moves one job, its mark and the trail for ever, and says after each commit how far it is.
func loop(j *journal.Journal) error {
	for {
		job, err := j.AdvanceWithMark("j", "a", "a", func(job *journal.Job) error {
			job.Seq++
			return nil
		}, journal.Event{Actor: "child", Detail: strings.Repeat("x", 600)})
		if err != nil {
			return err
		}
		fmt.Println(job.Seq)
	}
}

// dieInside is killed in the middle of a transaction, after the job was read and before anything is committed.
func dieInside(j *journal.Journal) error {
	_, err := j.AdvanceWithMark("j", "a", "a", func(job *journal.Job) error {
		job.Seq++
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}, journal.Event{Actor: "child"})
	return fmt.Errorf("survived SIGKILL: %w", err)
}

func start(t *testing.T, role, path string) (*exec.Cmd, *bufio.Scanner) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+role+" "+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	return cmd, bufio.NewScanner(out)
}

func prepared(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journal.db")
	j, err := journal.Open(path, journal.Options{States: loopStates()})
	must(t, err)
	must(t, j.Create(journal.Job{ID: "j", State: "a", Stream: "s"}, journal.Event{}))
	must(t, j.Close())
	return path
}

// judge opens the journal after a crash: it must be sound, hold all that was acknowledged, and its job, mark and trail must
// tell of the same number of transitions.
func judge(t *testing.T, path string, acknowledged int64) int64 {
	t.Helper()
	j, err := journal.Open(path, journal.Options{States: loopStates()})
	must(t, err)
	defer j.Close()
	wantHealthy(t, j)
	job, err := j.Get("j")
	must(t, err)
	mark, _, err := j.HighWater("s")
	must(t, err)
	head, err := j.Head()
	must(t, err)
	if job.Seq < acknowledged {
		t.Fatalf("%d transitions were acknowledged, %d are there", acknowledged, job.Seq)
	}
	if mark.Seq != job.Seq || head.Seq != uint64(job.Seq)+1 { // and the one that made the job
		t.Fatalf("a transition was split: job %d, mark %d, events %d", job.Seq, mark.Seq, head.Seq)
	}
	return job.Seq
}

// TestKilledAgainAndAgain kills a writer at random points, 40 times on the same file.
func TestKilledAgainAndAgain(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	path := prepared(t)
	var stands int64
	for range 40 {
		cmd, out := start(t, "loop", path)
		acknowledged := stands
		for range 1 + random.IntN(20) {
			if !out.Scan() {
				t.Fatalf("the child stopped by itself: %v", cmd.Wait())
			}
			n, err := strconv.ParseInt(out.Text(), 10, 64)
			must(t, err)
			acknowledged = n
		}
		for range random.IntN(1 << 18) { // spend up to a transaction's time, so that the kill falls anywhere in it
			random.Uint64()
		}
		must(t, cmd.Process.Kill())
		for out.Scan() { // what it still said before it died counts as promised
			n, err := strconv.ParseInt(out.Text(), 10, 64)
			must(t, err)
			acknowledged = n
		}
		_ = cmd.Wait() // killed, as it should be
		stands = judge(t, path, acknowledged)
	}
	t.Logf("%d transitions survived", stands)
}

func TestKilledInsideTheTransaction(t *testing.T) {
	path := prepared(t)
	for range 5 {
		cmd, _ := start(t, "inside", path)
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("the child ended with %v, want SIGKILL", err)
		}
		if n := judge(t, path, 0); n != 0 {
			t.Fatalf("%d transitions, want none", n)
		}
	}
}

// TestLocked: while a daemon runs, its file cannot be opened, not even to read. It must be said in a second, and in words.
func TestLocked(t *testing.T) {
	path := prepared(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=hold "+path)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if !bufio.NewScanner(out).Scan() {
		t.Fatal("the child did not open the journal")
	}
	for _, readOnly := range []bool{false, true} {
		began := time.Now()
		_, err := journal.Open(path, journal.Options{States: loopStates(), ReadOnly: readOnly})
		wantErr(t, err, journal.ErrLocked)
		if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "ask the daemon") {
			t.Errorf("%v: does not help", err)
		}
		if waited := time.Since(began); waited > 10*time.Second {
			t.Errorf("it took %v to say so", waited)
		}
	}
	must(t, in.Close())
	must(t, cmd.Wait())
	judge(t, path, 0)
}
