// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/internal/cli"
	"sluice/internal/cli/clitest"
	"sluice/internal/dropbox"
	"sluice/internal/officer"
	"sluice/internal/packer"
	"sluice/pkg/envelope"
)

// person sits at a pseudo terminal: they see what is printed, and type when they are asked.
type person struct {
	t      *testing.T
	master *os.File
	slave  *os.File

	mu   sync.Mutex
	seen bytes.Buffer
	news chan struct{}
}

func sitDown(t *testing.T) *person {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	p := &person{t: t, master: master, slave: slave, news: make(chan struct{}, 1)}
	go p.watch()
	t.Cleanup(func() { _ = errors.Join(slave.Close(), master.Close()) })
	return p
}

func (p *person) watch() {
	buf := make([]byte, 4096)
	for {
		n, err := p.master.Read(buf)
		p.mu.Lock()
		p.seen.Write(buf[:n])
		p.mu.Unlock()
		select {
		case p.news <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// text is what stood on the screen so far, with the newlines of a file.
func (p *person) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.ReplaceAll(p.seen.String(), "\r\n", "\n")
}

// answer waits for a question and types.
func (p *person) answer(question, typed string) {
	p.t.Helper()
	p.waitFor(question)
	if _, err := p.master.WriteString(typed + "\n"); err != nil {
		p.t.Fatal(err)
	}
}

// run starts a verb at the terminal.
func (p *person) run(ctx context.Context, args ...string) <-chan int {
	done := make(chan int, 1)
	go func() { done <- cli.Run(ctx, root, args, cli.Streams{In: p.slave, Out: p.slave, Err: p.slave}) }()
	return done
}

// ceremony is a request and what an officer names.
func ceremony(t *testing.T) (s *clitest.Site, env *envelope.Envelope, box dropbox.Box, flags []string) {
	t.Helper()
	s = site(t)
	job := t.TempDir()
	err := errors.Join(os.Mkdir(filepath.Join(job, "payload"), 0o700), os.WriteFile(filepath.Join(job, "payload", "list.txt"), []byte("one\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	env, err = s.Seal(t.Context(), job, "data/lists", 1)
	if err != nil {
		t.Fatal(err)
	}
	st, err := s.Trust()
	if err != nil {
		t.Fatal(err)
	}
	box = dropbox.Box{Dir: filepath.Join(job, "box")}
	if err := packer.Request(box, st, env, nil); err != nil {
		t.Fatal(err)
	}
	return s, env, box, []string{
		"--config", filepath.Join(job, "officer.yaml"), "--drop-box", box.Dir, "--trust", s.Path("trust.json"), "--fingerprint", s.Fingerprint,
		"--key", s.Path("a.roy"), "--passphrase-file", s.Path("passphrase"), "--payload", filepath.Join(job, "payload"), "--cache", filepath.Join(job, "cache"),
	}
}

// TestCeremonyAtTerminal: the page and two words; that a passphrase is asked for without an echo is tested with cli.AskSecret. The hash in the approval is that of what stood on the screen.
func TestCeremonyAtTerminal(t *testing.T) {
	_, env, box, flags := ceremony(t)
	p := sitDown(t)
	done := p.run(t.Context(), append([]string{"officer", "approve"}, flags...)...)
	p.answer("To APPROVE, type the first two words", officer.Words(env))
	if code := <-done; code != 0 {
		t.Fatalf("exit %d:\n%s", code, p.text())
	}
	found, _, err := box.Approvals(env.ID)
	if err != nil || len(found) != 1 {
		t.Fatalf("%d approvals, %v", len(found), err)
	}
	d, err := envelope.ParseDSSE(found[0].Data, len(found[0].Data))
	if err != nil {
		t.Fatal(err)
	}
	a, err := envelope.ParseApproval(d.Payload)
	if err != nil {
		t.Fatal(err)
	}
	screen := p.text()
	from, to := strings.Index(screen, "RELEASE     "), strings.Index(screen, "\n\nTo APPROVE")
	if from < 0 || to < from {
		t.Fatalf("no page on the screen:\n%s", screen)
	}
	if got := envelope.Digest(sha256.Sum256([]byte(screen[from : to+1]))); got != a.Shown {
		t.Errorf("what was signed as shown is not what stood on the screen: %s, %s\n%s", a.Shown, got, screen)
	}
}

// TestLeavingAtTerminal: wrong words, no words, and a signal at the question sign nothing.
func TestLeavingAtTerminal(t *testing.T) {
	_, env, box, flags := ceremony(t)
	for name, leave := range map[string]func(p *person, stop func()){
		"wrong words": func(p *person, _ func()) { p.answer("To APPROVE", "y") },
		"nothing":     func(p *person, _ func()) { p.answer("To APPROVE", "") },
		"a signal at the words": func(p *person, stop func()) {
			p.waitFor("To APPROVE")
			stop()
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := sitDown(t)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			done := p.run(ctx, append([]string{"officer", "approve"}, flags...)...)
			leave(p, stop)
			if code := <-done; code != cli.ExitUsage {
				t.Errorf("exit %d:\n%s", code, p.text())
			}
			if found, _, err := box.Approvals(env.ID); err != nil || len(found) > 0 {
				t.Errorf("%d approvals, %v", len(found), err)
			}
		})
	}
}

// waitFor waits until something stands on the screen.
func (p *person) waitFor(text string) {
	p.t.Helper()
	deadline := time.After(time.Minute)
	for !strings.Contains(p.text(), text) {
		select {
		case <-p.news:
		case <-deadline:
			p.t.Fatalf("%q never stood on the screen:\n%s", text, p.text())
		}
	}
}
