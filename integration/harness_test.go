// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/integration/lab"
	"sluice/internal/packer"
	"sluice/internal/receiver"
	"sluice/pkg/envelope"
)

const mib = 1 << 20

// patience is how long a test waits for what must come: it costs nothing where all is well, and a busy machine is not a bug.
const patience = 2 * time.Minute

// template is the site whose keys and trust object every test's site has: making them costs a scrypt for each key.
type template struct {
	once sync.Once
	site *lab.Site
	err  error
}

var shared template

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.site != nil {
		_ = os.RemoveAll(shared.site.Dir)
	}
	os.Exit(code)
}

// newSite makes a site of the test's own. Its daemons log into its directory, which is shown when the test fails.
func newSite(t *testing.T) *lab.Site {
	t.Helper()
	shared.once.Do(func() { shared.site, shared.err = makeTemplate() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	s, err := shared.site.Clone(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { showLogs(t, s) })
	return s
}

func makeTemplate() (*lab.Site, error) {
	dir, err := os.MkdirTemp("", "sluice-integration-")
	if err != nil {
		return nil, err
	}
	s := &lab.Site{Bin: os.Getenv("SLUICE_BIN"), Dir: dir}
	if s.Bin == "" {
		if err := build(s.Path("bin")); err != nil {
			return s, err
		}
		s.Bin = s.Path("bin")
	}
	return s, s.Setup(context.Background())
}

// build makes the two binaries as `make build` does; without the race detector, for these are what a site runs.
func build(dir string) error {
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", dir+"/", "./cmd/...")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, out)
	}
	return nil
}

func showLogs(t *testing.T, s *lab.Site) {
	if !t.Failed() {
		return
	}
	logs, _ := filepath.Glob(s.Path("*.log")) // the pattern is well formed
	for _, name := range logs {
		b, err := os.ReadFile(name)
		t.Logf("%s: %v\n%s", filepath.Base(name), err, lab.LastLines(string(b), 25))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sealed gives the site a sealed release with a payload of the given size, approved by as many security officers as asked; two are
// enough. Sealing costs a scrypt for each signature, so the releases are made once, at the template, and copied.
func sealed(t *testing.T, s *lab.Site, seq int, size int64, officers int) (dir string, env *envelope.Envelope) {
	t.Helper()
	name := fmt.Sprintf("release-%d-%d-%d", seq, size/mib, officers)
	original := shared.site.Path(name)
	if _, err := os.Stat(filepath.Join(original, "envelope.sluice")); err != nil {
		must(t, lab.RandomFile(filepath.Join(original, "payload", "data.safetensors"), size, uint64(seq)))
		_, err = shared.site.SealData(t.Context(), original, "data/lab", seq, lab.Security()[:officers]...)
		must(t, err)
	}
	dir = s.Path(name)
	must(t, os.CopyFS(dir, os.DirFS(original)))
	env, err := packer.ReadEnvelope(dir)
	must(t, err)
	return dir, env
}

// listening configures a receiver on a free port.
func listening(t *testing.T, s *lab.Site) (addr string) {
	t.Helper()
	addr, err := lab.FreeUDP()
	must(t, err)
	must(t, s.HighConfig(addr, ""))
	return addr
}

// receive starts the receiver's daemon and waits until it answers. It is stopped at the end of the test.
func receive(t *testing.T, s *lab.Site) *lab.Daemon {
	t.Helper()
	d, err := s.StartBinary("diode-receiver", "high.yaml")
	return up(t, s, d, err)
}

func up(t *testing.T, s *lab.Site, d *lab.Daemon, err error) *lab.Daemon {
	t.Helper()
	must(t, err)
	t.Cleanup(d.Kill)
	must(t, s.WaitUp(t.Context(), d, "high.sock"))
	return d
}

// stop drains a daemon and wants exit code 0.
func stop(t *testing.T, d *lab.Daemon) {
	t.Helper()
	must(t, d.Stop(patience))
}

func call(t *testing.T, s *lab.Site, binary string, args ...string) string {
	t.Helper()
	out, err := s.Call(t.Context(), binary, args...)
	must(t, err)
	return out
}

func published(t *testing.T, s *lab.Site, d *lab.Daemon, env *envelope.Envelope) {
	t.Helper()
	must(t, s.WaitState(t.Context(), d, env.ID.String(), "PUBLISHED", patience))
}

// samePublished compares every published byte with the payload that was sealed.
func samePublished(t *testing.T, s *lab.Site, dir string, env *envelope.Envelope) {
	t.Helper()
	root := s.Path("registry", "releases", env.Statement.Predicate.Name, "sha256-"+env.ID.String())
	want, got := tree(t, filepath.Join(dir, "payload")), tree(t, root)
	if len(want) == 0 || len(want) != len(got) {
		t.Fatalf("%d files are published, %d were sealed", len(got), len(want))
	}
	for name, sum := range want {
		if got[name] != sum {
			t.Errorf("%s: published %s, sealed %s", name, got[name], sum)
		}
	}
}

// tree hashes the files below a directory.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	sums := map[string]string{}
	must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		_, err = io.Copy(h, f)
		name, _ := filepath.Rel(dir, path) // path is below dir
		sums[name] = fmt.Sprintf("%x", h.Sum(nil))
		return err
	}))
	return sums
}

// clean lets the stopped receiver judge its own state, every byte of it.
func clean(t *testing.T, s *lab.Site) {
	t.Helper()
	if out := call(t, s, "diode-receiver", "fsck", "--deep", "--config", s.Path("high.yaml")); !strings.HasSuffix(out, "clean\n") {
		t.Errorf("fsck --deep: %s", out)
	}
}

// actions lists the audit trail of a release, oldest first.
func actions(t *testing.T, s *lab.Site, env *envelope.Envelope) (list []string) {
	t.Helper()
	st, err := s.HighStatus(t.Context())
	must(t, err)
	for _, e := range st.Events {
		if e.Release == env.ID.String() {
			list = append(list, e.Action)
		}
	}
	return list
}

// pass is a sender that runs only while the test lets it, and is stopped (SIGSTOP) between: how fast this machine is, and how long a
// process takes to come up on it, decides nothing.
type pass struct {
	t *testing.T
	s *lab.Site
	d *lab.Daemon
}

// step is how long a sender runs at a time.
const step = 20 * time.Millisecond

// startPass starts one pass of the verb send. It is ended with the test.
func startPass(t *testing.T, s *lab.Site, args ...string) *pass {
	t.Helper()
	d, err := s.Start("send", nil, nil, filepath.Join(s.Bin, "bastion-packer"), args...)
	must(t, err)
	t.Cleanup(d.Kill)
	return &pass{t: t, s: s, d: d}
}

// until lets the sender run until the receiver holds a share of a release's source symbols, and leaves it stopped.
func (p *pass) until(env *envelope.Envelope, share float64) {
	p.t.Helper()
	must(p.t, lab.WaitFor(p.t.Context(), patience, fmt.Sprintf("%.0f %% received", 100*share), func() (bool, error) {
		r, err := p.s.Release(p.t.Context(), env.ID.String())
		switch {
		case err != nil:
			return false, err
		case r != nil && r.State != "RECEIVING":
			return false, fmt.Errorf("state %s before the share was seen: %s", r.State, r.Error)
		case r != nil && r.Symbols > 0 && float64(r.Have) >= share*float64(r.Symbols):
			return true, nil
		}
		return false, p.run(step)
	}))
}

// run lets the sender run for a while.
func (p *pass) run(d time.Duration) error {
	if err := p.d.Died(); err != nil {
		return err
	}
	must(p.t, p.d.Signal(syscall.SIGCONT))
	<-time.After(d)
	_ = p.d.Signal(syscall.SIGSTOP) // it may have come to its end
	return nil
}

// finish lets the sender run to its end and wants exit code 0.
func (p *pass) finish() {
	p.t.Helper()
	_ = p.d.Signal(syscall.SIGCONT)
	if state := p.d.State(); !state.Success() {
		p.t.Fatalf("send: %s\n%s", state, p.d.Tail(8))
	}
}

// received says how far a release came, for messages.
func received(t *testing.T, s *lab.Site, env *envelope.Envelope) receiver.ReleaseStatus {
	t.Helper()
	r, err := s.Release(t.Context(), env.ID.String())
	must(t, err)
	if r == nil {
		t.Fatal("the receiver does not know the release")
	}
	return *r
}

func readAll(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	must(t, err)
	return b
}

func marshalled(t *testing.T, env *envelope.Envelope) []byte {
	t.Helper()
	var b bytes.Buffer
	_, err := env.WriteTo(&b)
	must(t, err)
	return b.Bytes()
}
