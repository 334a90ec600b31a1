// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// point is one system call of a program: the nth of its name by any thread, and what strace does there. KILL strikes before the call
// is carried out; an error is returned in its stead.
type point struct {
	call string
	what string // KILL, or the name of an error
	n    int
}

func (p point) String() string { return fmt.Sprintf("%s:%s:%d", p.call, p.what, p.n) }

func parsePoint(s string) (p point, err error) {
	part := strings.Split(s, ":")
	if len(part) != 3 {
		return p, fmt.Errorf("%w: point %q is not SYSCALL:KILL:N or SYSCALL:ERROR:N", errRow, s)
	}
	p.call, p.what = part[0], part[1]
	p.n, err = strconv.Atoi(part[2])
	return p, err
}

// scene is a program whose system calls are struck.
type scene struct {
	name    string
	program func(p *bed) program
	again   func(p *bed) program // what has to finish it
}

func importScene() scene { return scene{"import", (*bed).imports, (*bed).imports} }

// receiveScene is a reception. The one that finishes it lives an hour later: a stage that failed waits before it is tried again.
func receiveScene() scene {
	receive := func(ahead time.Duration) func(p *bed) program {
		return func(p *bed) program { return p.does("receive", ahead) }
	}
	return scene{"receive", receive(0), receive(time.Hour)}
}

// mapped are calls that the runtime makes for its own memory too: they are struck only where they touch a file of ours.
func mapped(call string) bool { return call == "mmap" || call == "msync" }

// killCalls are struck by SIGKILL: all that change something, and close, between which everything else happens.
func killCalls() []string {
	return []string{
		"close", "copy_file_range", "fallocate", "fchmod", "fdatasync", "fsync", "ftruncate", "linkat", "mkdirat", "mmap", "msync",
		"openat", "pwrite64", "renameat", "unlinkat", "write",
	}
}

// errorCalls are the errors that each call is struck with. A write is also how the runtime wakes itself, which it does not survive; the
// spool and the journal use pwrite64.
func errorCalls() map[string][]string {
	return map[string][]string{
		"close": {"EIO"}, "copy_file_range": {"ENOSPC", "EIO"}, "fallocate": {"ENOSPC", "EIO"}, "fchmod": {"EIO"}, "fdatasync": {"EIO", "ENOSPC"},
		"flock": {"EIO"}, "fsync": {"EIO", "ENOSPC"}, "ftruncate": {"EIO"}, "getdents64": {"EIO"}, "linkat": {"ENOSPC", "EIO"}, "mkdirat": {"ENOSPC", "EIO"},
		"mmap": {"ENOMEM"}, "msync": {"EIO"}, "openat": {"EMFILE", "EIO", "ENOSPC"}, "pread64": {"EIO"}, "pwrite64": {"ENOSPC", "EIO"},
		"read": {"EIO"}, "renameat": {"ENOSPC", "EIO"}, "unlinkat": {"EIO"}, "newfstatat": {"EIO"},
	}
}

// traced is a program under strace.
func (p *bed) traced(of program, options ...string) program {
	argv := append([]string{"strace", "-f", "-y", "-qq", "-o", p.log()}, options...)
	return program{argv: append(append(argv, "--"), of.argv...), env: of.env}
}

func (p *bed) log() string { return filepath.Join(p.dir, "strace") }

// strikes are the options that strike a point.
func (p *bed) strikes(at point) []string {
	how, trace := "error="+at.what, at.call
	if at.what == "KILL" {
		how = "signal=KILL"
	} else if strings.HasSuffix(at.call, "sync") {
		trace = "fsync,fdatasync" // to see whether somebody tries again
	}
	options := p.ours(at.call)
	if at.what != "KILL" { // at the stop of a seccomp filter, which is quicker, strace cannot send a signal
		options = append(options, "--seccomp-bpf")
	}
	return append(options, "-e", "trace="+trace, "-e", fmt.Sprintf("inject=%s:%s:when=%d", at.call, how, at.n))
}

// ours narrows a call to files of ours where that is needed.
func (p *bed) ours(call string) []string {
	if !mapped(call) {
		return nil
	}
	return []string{"-P", p.journal(), "-P", p.spool("payload", "spool.map")}
}

var callLine = regexp.MustCompile(`^(\d+) +(\w+)\(`)

// calls counts, undisturbed, how often a thread of the scene makes a call: strace counts each thread by itself.
func (w *ward) calls(s scene, names []string) (map[string]int, error) {
	p, err := w.bed(w.plain, "")
	if err != nil {
		return nil, err
	}
	defer func() { _ = p.gone() }()
	most := make(map[string]int)
	for _, some := range [][]string{slices.DeleteFunc(slices.Clone(names), mapped), slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !mapped(n) })} {
		if err := os.RemoveAll(p.disk); err != nil {
			return nil, err
		}
		if err := os.Mkdir(p.disk, 0o700); err != nil {
			return nil, err
		}
		options := append(p.ours(some[0]), "-e", "trace="+strings.Join(some, ","))
		if o, err := p.traced(s.program(p), options...).run(); err != nil || o.code != 0 {
			return nil, fmt.Errorf("%w: strace does not work here: %v %w", errSkip, o, err)
		}
		if err := countCalls(p.log(), most); err != nil {
			return nil, err
		}
	}
	return most, nil
}

func countCalls(log string, most map[string]int) error {
	count := make(map[[2]string]int)
	err := lines(log, func(line string) {
		if m := callLine.FindStringSubmatch(line); m != nil {
			count[[2]string{m[1], m[2]}]++
		}
	})
	for k, n := range count {
		most[k[1]] = max(most[k[1]], n)
	}
	return err
}

func lines(name string, each func(string)) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		each(in.Text())
	}
	return in.Err()
}

// pointsOf lists every point of a scene, once: each call with each of its errors, at every n that was counted.
func (w *ward) pointsOf(s scene, kind string, calls map[string][]string) ([]point, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := s.name + " " + kind
	if w.points[key] != nil {
		return w.points[key], nil
	}
	if _, err := exec.LookPath("strace"); err != nil {
		return nil, fmt.Errorf("%w: %w (apt-get install strace)", errSkip, err)
	}
	names := slices.Sorted(maps.Keys(calls))
	most, err := w.calls(s, names)
	if err != nil {
		return nil, err
	}
	var all []point
	for _, call := range names {
		for _, what := range calls[call] {
			for n := range most[call] {
				all = append(all, point{call, what, n + 1})
			}
		}
	}
	w.points[key] = all
	return all, nil
}

// pick spreads seeds over all points, so that a few trials try a bit of everything: the golden section leaves no neighbours.
func pick(all []point, seed uint64) point {
	n := uint64(len(all))
	stride := max(1, n*618/1000)
	for gcd(stride, n) != 1 {
		stride++
	}
	return all[(seed-1)%n*stride%n]
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// where returns the point of a trial and a place to strike it.
func (c *certifier) where(ctx context.Context, s scene, kind string, calls map[string][]string, seed uint64) (*bed, point, error) {
	w, err := c.ward(ctx)
	if err != nil {
		return nil, point{}, err
	}
	p, err := w.bed(w.plain, "")
	if err != nil {
		return nil, point{}, err
	}
	if c.at != "" {
		at, err := parsePoint(c.at)
		return p, at, err
	}
	all, err := w.pointsOf(s, kind, calls)
	if err != nil {
		return p, point{}, err
	}
	return p, pick(all, seed), nil
}

func killRows() []row {
	struck := []column{{"struck", "processes killed", total}, {"missed", "ended before their point came", total}, {"visible", "had published", total}}
	return []row{
		{
			name: "S4", trials: 1200, disks: true, report: struck, play: killed(importScene()), judge: mostlyStruck,
			promise: "`diode-receiver import` killed with SIGKILL before a system call, every one in turn: nothing partial is visible, the journal promises nothing that is not there, the same command finishes, fsck --deep is clean",
		},
		{
			name: "S4r", trials: 400, disks: true, report: struck, play: killed(receiveScene()), judge: mostlyStruck,
			promise: "the same of a reception, from the first symbol to the freed spool",
		},
		daemonRow(),
	}
}

// few tells whether too few trials were played to judge their number: then a row is judged by each alone.
func few(all []figures) bool { return len(all) < 20 }

// sum adds up a figure.
func sum(all []figures, name string) (n float64) {
	for _, f := range all {
		n += f[name]
	}
	return n
}

// mostlyStruck wants that the points were really there: threads share the calls in another way each time, so some are missed.
func mostlyStruck(all []figures) error {
	struck := sum(all, "struck")
	if !few(all) && struck < 0.6*float64(len(all)) {
		return fmt.Errorf("only %v of %d points were struck", struck, len(all))
	}
	return nil
}

func killed(s scene) trial {
	return func(ctx context.Context, c *certifier, seed uint64) (f figures, err error) {
		calls := make(map[string][]string)
		for _, call := range killCalls() {
			calls[call] = []string{"KILL"}
		}
		p, at, err := c.where(ctx, s, "kill", calls, seed)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(atPoint(at, err), p.gone()) }()
		o, err := p.traced(s.program(p), p.strikes(at)...).run()
		if err != nil {
			return nil, err
		}
		f = figures{"struck": 0, "missed": 1}
		switch {
		case o.signal == syscall.SIGKILL:
			f = figures{"struck": 1, "missed": 0}
		case o.code != 0:
			return f, errors.New(o.String())
		}
		l, err := p.judge()
		if err != nil {
			return f, err
		}
		f["visible"] = number01(l.visible)
		if err := p.finishes(s.again(p)); err != nil {
			return f, err
		}
		return f, p.neverAgain()
	}
}

func number01(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

func atPoint(at point, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("struck at %s (-at %s): %w", at, at, err)
}

func errorRows() []row {
	report := []column{
		{"struck", "calls failed", total},
		{"said", "said so and ended with 1", total},
		{"borne", "were borne, and the release was published whole", total},
		{"usage", "met the configuration (exit 2)", total},
		{"missed", "ended before their point came", total},
	}
	return []row{
		{
			name: "S5", trials: 1200, disks: true, report: report, play: failing(importScene()), judge: mostlyStruck,
			promise: "a system call of `diode-receiver import` fails with ENOSPC, EIO or EMFILE, every one in turn: exit 1 and words that say what and where, or the release is whole; never a verdict, never a panic, a failed fsync is never tried again; the same command finishes",
		},
		{
			name: "S5r", trials: 400, disks: true, report: report, play: failing(receiveScene()), judge: mostlyStruck,
			promise: "the same of a reception",
		},
	}
}

func failing(s scene) trial {
	return func(ctx context.Context, c *certifier, seed uint64) (f figures, err error) {
		p, at, err := c.where(ctx, s, "error", errorCalls(), seed)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(atPoint(at, err), p.gone()) }()
		o, err := p.traced(s.program(p), p.strikes(at)...).run()
		if err != nil {
			return nil, err
		}
		line, again, err := injected(p.log())
		if err != nil {
			return nil, err
		}
		f = figures{"struck": number01(line != ""), "missed": number01(line == ""), "said": 0, "borne": 0, "usage": 0}
		if err := p.said(o, at, line, again, f); err != nil {
			return f, fmt.Errorf("%w (the call: %s)", err, line)
		}
		if _, err := p.judge(); err != nil {
			return f, fmt.Errorf("%w (the call: %s; it ended with %s)", err, line, o)
		}
		return f, p.finishes(s.again(p))
	}
}

var syncLine = regexp.MustCompile(`f(?:data)?sync\(\d+(<[^>]*>)\) += (.*)`)

// injected finds the calls that failed, and a later sync of the same file where that was one.
func injected(log string) (line, again string, err error) {
	file := ""
	err = lines(log, func(l string) {
		m := syncLine.FindStringSubmatch(l)
		switch {
		case strings.HasSuffix(l, "(INJECTED)"): // each thread counts by itself, so there may be several
			line += l + "; "
			if file == "" && m != nil {
				file = m[1]
			}
		case file != "" && m != nil && m[1] == file:
			again = l
		}
	})
	return line, again, err
}

// said judges how a program ended after a call had failed.
func (p *bed) said(o outcome, at point, line, again string, f figures) error {
	missed, sync := line == "", strings.Contains(line, "sync(")
	switch {
	case o.code < 0 || strings.Contains(o.errs, "goroutine ") || strings.Contains(o.errs, "panic"):
		return fmt.Errorf("it crashed: %s", o)
	case o.code == 0 && missed:
		return p.published0()
	case missed:
		return fmt.Errorf("nothing was struck, and it %s", o)
	case again != "":
		return fmt.Errorf("a failed sync was tried again: %s", again)
	case o.code == 0 && sync:
		return errors.New("a failed sync, and exit 0")
	case o.code == 0:
		f["borne"] = 1
		return p.published0()
	case o.code == 2 && strings.Contains(line, "high.yaml"):
		f["usage"] = 1
		return nil
	case o.code != 1:
		return fmt.Errorf("a failed call is no verdict: %s", o)
	}
	f["said"] = 1
	switch at.call {
	case "newfstatat": // where a name cannot be looked at, os.Root makes it anew, and says that it exists
		return nil
	case "mmap": // the journal's, which says then that it is not mapped
		return nil
	case "copy_file_range": // io.Copy goes on with reads after an EIO, and forgets to count what came before
		return nil
	}
	return worded(o.errs, at.what)
}

// published0 is what exit 0 promises.
func (p *bed) published0() error {
	l, err := p.judge()
	if err == nil && (l.state != "PUBLISHED" || !l.visible) {
		err = fmt.Errorf("exit 0, and the job is %q", l.state)
	}
	return err
}

// worded wants the error's own words, and something before them that says what it was about.
func worded(errs, name string) error {
	words := map[string]string{
		"EIO": syscall.EIO.Error(), "ENOSPC": syscall.ENOSPC.Error(), "EMFILE": syscall.EMFILE.Error(), "ENOMEM": syscall.ENOMEM.Error(),
	}[name]
	before, _, found := strings.Cut(errs, words)
	if !found && !strings.Contains(errs, "no space left") {
		return fmt.Errorf("the message does not say %q: %q", words, errs)
	}
	if len(strings.TrimSpace(before)) < len("journal: ") {
		return fmt.Errorf("the message does not say what it is about: %q", errs)
	}
	return nil
}
