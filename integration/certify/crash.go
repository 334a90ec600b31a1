// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"sluice/integration/lab"
	"sluice/internal/packer"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// The table of crashes: what is left of the high side when its process is killed, a system call fails, the power goes, the disk is
// full, or a bit rots. A trial is a receiver's state of its own; what is left is judged by judge.go, which shares nothing with the
// receiver but the reader of the journal, and then the same verb has to finish.
//
//	crash.go   the ward, and programs in it    inject.go   S4, S5: strace kills, or fails, one system call    cut.go    S6: power cuts
//	victim.go  a reception as a process        daemon.go   S4: the daemon, killed while it receives           pages.go  S7: pages in memory
//	judge.go   what may be left                full.go     D1: no space                                       rot.go    D2: rotten bits
func crashRows() []row {
	return slices.Concat(killRows(), errorRows(), cutRows(), pageRows(), fullRows(), rotRows())
}

const (
	// pathology is how long a program may take before it hangs: the slowest takes seconds on a busy machine.
	pathology = 2 * time.Minute

	// bodySize makes the payload's largest file two content blocks of 1 MiB, the second of them short.
	bodySize = 1<<20 + 150_000

	// heldFor is the hold time of models/*: longer than any run, so that only a clock set forward ends it.
	heldFor = 24 * time.Hour
)

// ward is where processes die: one site's keys and sealed releases, shared by all trials.
type ward struct {
	lab.Site
	once  sync.Once
	err   error
	self  string    // the victim
	cheap sync.Once // see cheapen
	plain *specimen // published at once
	held  *specimen // held for heldFor
	beds  atomic.Int64

	mu     sync.Mutex
	points map[string][]point // by scene: where it can be struck
	disks  map[string]chan *disk
	spans  map[string]time.Duration // by file system and scene: in which cuts fall
}

// specimen is a sealed release and its bytes.
type specimen struct {
	dir    string
	env    *envelope.Envelope
	stream []byte   // of the envelope
	files  [][]byte // in subject order
}

func (s *specimen) id() string { return s.env.ID.String() }

// ward returns the ward, which the first trial sets up.
func (c *certifier) ward(ctx context.Context) (*ward, error) {
	w := &c.wards
	w.once.Do(func() { w.err = w.setUp(ctx, c.options, filepath.Join(c.scratch, "ward")) })
	return w, w.err
}

func (w *ward) setUp(ctx context.Context, o options, dir string) error {
	if o.bin == "" {
		return fmt.Errorf("%w: no binaries were named (-bin)", errSkip)
	}
	bin, err1 := filepath.Abs(o.bin)
	self, err2 := os.Executable()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	w.self = cmp.Or(o.victim, self)
	w.Site = lab.Site{Bin: bin, Dir: dir, Hold: heldFor}
	w.points, w.disks, w.spans = make(map[string][]point), make(map[string]chan *disk), make(map[string]time.Duration)
	if err := w.Setup(ctx); err != nil {
		return err
	}
	officers := append(lab.Security()[:2:2], lab.Quality()[0])
	var err error
	if w.plain, err = w.specimen(ctx, "data/crash", officers[:2]); err != nil {
		return err
	}
	w.held, err = w.specimen(ctx, "models/crash", officers)
	return err
}

// cheapen seals the keys of the link anew under a passphrase that is quick to try: a daemon that is started a hundred times opens its
// own each time. Nothing else opens one.
func (w *ward) cheapen() error {
	w.cheap.Do(func() {
		for _, name := range []string{lab.Receiver, "link"} {
			if w.err == nil {
				w.err = w.reseal(name)
			}
		}
	})
	return w.err
}

func (w *ward) reseal(name string) error {
	pass, err := trust.ReadPassphrase(w.Path("passphrase"))
	if err != nil {
		return err
	}
	key, err := trust.OpenKey(w.Path("keys", name), pass)
	if err != nil {
		return err
	}
	sealed, err := key.Seal(nil, pass, mofn.ScryptParams{N: 2, R: 1, P: 1})
	if err != nil {
		return err
	}
	return os.WriteFile(w.Path("keys", name), sealed, 0o600)
}

// specimen seals a release of a file of two content blocks, a small one and an empty one.
func (w *ward) specimen(ctx context.Context, stream string, officers []string) (_ *specimen, err error) {
	s := &specimen{dir: w.Path("release-" + filepath.Base(filepath.Dir(stream)))}
	payload := filepath.Join(s.dir, "payload")
	err = errors.Join(lab.RandomFile(filepath.Join(payload, "body.safetensors"), bodySize, 1), lab.RandomFile(filepath.Join(payload, "deep", "er.safetensors"), 5000, 2),
		os.WriteFile(filepath.Join(payload, "README.md"), nil, 0o644))
	if err != nil {
		return nil, err
	}
	if s.env, err = w.SealData(ctx, s.dir, stream, 1, officers...); err != nil {
		return nil, err
	}
	if s.env, err = packer.ReadEnvelope(s.dir); err != nil {
		return nil, err
	}
	if s.stream, err = os.ReadFile(filepath.Join(s.dir, "envelope.sluice")); err != nil {
		return nil, err
	}
	for _, f := range s.env.Statement.Subjects {
		b, err := os.ReadFile(filepath.Join(payload, filepath.FromSlash(f.Name)))
		if err != nil {
			return nil, err
		}
		s.files = append(s.files, b)
	}
	return s, nil
}

// bed is the state of one receiver: the configuration and the logs in dir, journal, spool and registry in disk.
type bed struct {
	*ward
	*specimen
	dir, disk string
}

// bed makes an empty one. An empty disk is a directory beside the configuration.
func (w *ward) bed(s *specimen, disk string) (*bed, error) {
	p := &bed{ward: w, specimen: s, dir: w.Path(fmt.Sprintf("bed-%d", w.beds.Add(1))), disk: disk}
	if disk == "" {
		p.disk = filepath.Join(p.dir, "disk")
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return nil, err
	}
	return p, errors.Join(p.listen("127.0.0.1:1"), ignoreExists(os.Mkdir(p.disk, 0o700)))
}

func ignoreExists(err error) error {
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

// listen writes the configuration. Spool copies go at once, so that their end is tried too.
func (p *bed) listen(addr string) error {
	return os.WriteFile(p.config(), fmt.Appendf(nil, `receiver: %s
state: %s
log: {level: info, format: text}
admin: {listen: "unix:%s"}
trust: {object: %s, fingerprint: %s}
keys: {hpke: %s, passphrase_file: %s}
link: {listen: "%s", confine: best-effort}
registry: {directory: {path: %s}}
retain: 0s
`, lab.Receiver, p.state(), filepath.Join(p.dir, "high.sock"), p.Path("trust.json"), p.Fingerprint, p.Path("keys", lab.Receiver), p.Path("passphrase"), addr, p.registry()), 0o600)
}

func (p *bed) config() string   { return filepath.Join(p.dir, "high.yaml") }
func (p *bed) state() string    { return filepath.Join(p.disk, "high") }
func (p *bed) registry() string { return filepath.Join(p.disk, "registry") }
func (p *bed) journal() string  { return filepath.Join(p.state(), "journal.db") }
func (p *bed) spool(elem ...string) string {
	return filepath.Join(append([]string{p.state(), "spool", p.id()}, elem...)...)
}

func (p *bed) gone() error { return os.RemoveAll(p.dir) }

// program is a process to be.
type program struct {
	argv []string
	env  []string
}

// verb is the real receiver with a verb.
func (p *bed) verb(verb string, args ...string) program {
	return program{argv: append([]string{filepath.Join(p.Bin, "diode-receiver"), verb, "--config", p.config()}, args...)}
}

func (p *bed) imports() program { return p.verb("import", p.specimen.dir) }

// outcome is how a process ended.
type outcome struct {
	code   int // -1: by a signal
	signal syscall.Signal
	out    string
	errs   string
}

func (o outcome) String() string {
	if o.code < 0 {
		return fmt.Sprintf("ended by %s: %s", o.signal, lab.LastLines(o.errs, 8))
	}
	return fmt.Sprintf("exit %d: %s", o.code, lab.LastLines(o.errs+o.out, 8))
}

// running is a process that was started.
type running struct {
	cmd       *exec.Cmd
	out, errs bytes.Buffer
	done      chan error
}

// start starts a program as the leader of a process group of its own. It dies with the thread that started it.
func (pr program) start() (*running, error) {
	r := &running{cmd: exec.Command(pr.argv[0], pr.argv[1:]...), done: make(chan error, 1)}
	r.cmd.Env = append(os.Environ(), pr.env...)
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.errs
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := r.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { r.done <- r.cmd.Wait() }()
	return r, nil
}

func (r *running) kill() { _ = syscall.Kill(-r.cmd.Process.Pid, syscall.SIGKILL) }

// wait waits for the end.
func (r *running) wait() (outcome, error) {
	limit := time.NewTimer(pathology)
	defer limit.Stop()
	select {
	case err := <-r.done:
		return r.outcome(err)
	case <-limit.C:
		r.kill()
		err := fmt.Errorf("%s hangs: not done within %s", strings.Join(r.cmd.Args, " "), pathology)
		return outcome{}, errors.Join(err, <-r.done)
	}
}

func (r *running) outcome(err error) (outcome, error) {
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return outcome{}, err
	}
	o := outcome{code: r.cmd.ProcessState.ExitCode(), out: r.out.String(), errs: r.errs.String()}
	if s, ok := r.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		o.signal = s.Signal()
	}
	return o, nil
}

// run runs a program to its end.
func (pr program) run() (outcome, error) {
	r, err := pr.start()
	if err != nil {
		return outcome{}, err
	}
	return r.wait()
}

// must runs a program that has to end with 0.
func (pr program) must() (string, error) {
	o, err := pr.run()
	if err == nil && o.code != 0 {
		err = fmt.Errorf("%s: %s", strings.Join(pr.argv[1:3], " "), o)
	}
	return o.out, err
}
