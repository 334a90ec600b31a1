// SPDX-License-Identifier: Apache-2.0

// Package lab sets up a site with the real binaries, on loopback and in one temporary directory: keys, a policy, a trust object that
// both sides pin, daemons as child processes that die with their parent. The demonstration, the benchmark and the integration tests
// stand on it.
//
//	lab.New --> Keys --> Trust --> (configurations) --> Start ... Call ... Stop
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// Receiver is the receiver id of every lab.
const Receiver = "rx-1"

// Site is a site in a directory.
type Site struct {
	Bin         string // directory of the binaries
	Dir         string
	Fingerprint string // of the trust object
	Words       string
	Hold        time.Duration // of the policy
	// Watched: the trust object has a heartbeat key and binds the bastion's log, so that bulletins are made, and nothing is published that
	// none of them names.
	Watched bool
}

// Security and Quality are the officers of the policy: 2 of the former and 1 of the latter are needed.
func Security() []string { return []string{"a.roy", "m.lee", "s.ito"} }

// Quality are the quality officers.
func Quality() []string { return []string{"q.ali", "q.tan"} }

func officers() []string { return append(Security(), Quality()...) }

// Path is a path in the site's directory.
func (s *Site) Path(elem ...string) string {
	return filepath.Join(append([]string{s.Dir}, elem...)...)
}

// Setup makes the keys and the trust object.
func (s *Site) Setup(ctx context.Context) error {
	if err := os.MkdirAll(s.Path("keys"), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(s.Path("passphrase"), []byte("correct horse battery staple\n"), 0o600); err != nil {
		return err
	}
	if err := s.makeKeys(ctx); err != nil {
		return err
	}
	return s.makeTrust(ctx)
}

// makeKeys makes every key pair, two at a time: each costs one scrypt.
func (s *Site) makeKeys(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	generate := func(binary, name, use string) {
		g.Go(func() error {
			_, err := s.Call(ctx, binary, "keys", "generate", "--use", use, "--out", s.Path("keys", name), "--passphrase-file", s.Path("passphrase"), "--comment", name)
			return err
		})
	}
	generate("bastion-packer", "packer", "sign")
	generate("bastion-packer", "link", "link")
	generate("diode-receiver", Receiver, "hpke")
	generate("diode-receiver", "ticket", "ticket")
	for _, o := range officers() {
		generate("bastion-packer", o, "sign")
	}
	if s.Watched {
		generate("bastion-packer", "heartbeat", "sign")
		generate("bastion-packer", "log", "sign")
	}
	g.Go(func() error {
		_, err := s.Call(ctx, "diode-receiver", "keys", "generate", "--use", "model-signing", "--out", s.Path("keys", "model"))
		return err
	})
	return g.Wait()
}

var fingerprintLine = regexp.MustCompile(`fingerprint +([0-9a-f]{64})\nwords +(.+)`)

func (s *Site) makeTrust(ctx context.Context) error {
	var policy bytes.Buffer
	fmt.Fprintln(&policy, "# 2 of 3 security officers and 1 of 2 quality officers")
	ids := map[string]string{}
	args := []string{
		"trust", "init", "--policy", s.Path("policy"), "--root", "release", "--out", s.Path("trust.json"),
		"--link", s.Path("keys", "link.pub"), "--receiver", Receiver + "=" + s.Path("keys", Receiver+".pub"),
		"--ticket", Receiver + "=" + s.Path("keys", "ticket.pub"),
	}
	if s.Watched {
		args = append(args, "--heartbeat", s.Path("keys", "heartbeat.pub"), "--log", "sluice/low/bastion="+s.Path("keys", "log.pub"))
	}
	for _, name := range append([]string{"packer"}, officers()...) {
		out, err := s.Call(ctx, "bastion-packer", "keys", "show", s.Path("keys", name+".pub"))
		if err != nil {
			return err
		}
		ids[name], _, _ = strings.Cut(out, " ")
		args = append(args, "--key", s.Path("keys", name+".pub"))
	}
	for _, name := range officers() {
		fmt.Fprintf(&policy, "officer %s key %s\n", name, ids[name])
	}
	fmt.Fprintf(&policy, "group security 2 %s\ngroup quality 1 %s\ngroup release all security quality\n", strings.Join(Security(), " "), strings.Join(Quality(), " "))
	fmt.Fprintf(&policy, "packer %s\nrule stream models/* quorum release hold %s max-size 2TiB\nrule stream data/* quorum security hold 0s max-size 2TiB\n", ids["packer"], s.Hold)
	if err := os.WriteFile(s.Path("policy"), policy.Bytes(), 0o644); err != nil {
		return err
	}
	out, err := s.Call(ctx, "bastion-packer", args...)
	if err != nil {
		return err
	}
	m := fingerprintLine.FindStringSubmatch(out)
	if m == nil {
		return fmt.Errorf("trust init printed no fingerprint: %q", out)
	}
	s.Fingerprint, s.Words = m[1], m[2]
	return nil
}

// HighConfig is a receiver's configuration: it listens on a UDP address, or on several with commas between, and publishes into the given registry (a YAML flow mapping).
// It is written to high.yaml.
func (s *Site) HighConfig(listen, registry string) error {
	if registry == "" {
		registry = fmt.Sprintf("directory: {path: %s}", s.Path("registry"))
	}
	quoted := make([]string, 0, 1)
	for address := range strings.SplitSeq(listen, ",") {
		quoted = append(quoted, fmt.Sprintf("%q", address))
	}
	listen = "[" + strings.Join(quoted, ", ") + "]"
	second := ""
	if s.Watched {
		second = fmt.Sprintf(", second_place: %s/second-place", s.Dir)
	}
	return os.WriteFile(s.Path("high.yaml"), fmt.Appendf(nil, `receiver: %[6]s
state: %[1]s/high
log: {level: info, format: text}
admin: {listen: "unix:%[1]s/high.sock"}
trust: {object: %[1]s/trust.json, fingerprint: %[2]s, quarantine: 5s%[7]s}
keys: {hpke: %[1]s/keys/%[6]s, ticket: %[1]s/keys/ticket, model_signing: %[1]s/keys/model, passphrase_file: %[1]s/passphrase}
link: {listen: %[3]s, receive_buffer: %[5]s, confine: best-effort}
registry:
  %[4]s
`, s.Dir, s.Fingerprint, listen, registry, "32MiB", Receiver, second), 0o600)
}

// LowConfig is a packer's configuration, without its watch list, which the caller gives. It is written to low.yaml.
func (s *Site) LowConfig(hub, address, rate, watch string) error {
	online := ""
	if s.Watched {
		online = fmt.Sprintf("heartbeat: %[1]s/keys/heartbeat, log: %[1]s/keys/log, ", s.Dir)
	}
	return os.WriteFile(s.Path("low.yaml"), fmt.Appendf(nil, `state: %[1]s/low
log: {level: info, format: text}
admin: {listen: "unix:%[1]s/low.sock"}
trust: {object: %[1]s/trust.json, fingerprint: %[2]s, quarantine: 5s}
bulletin: {every: 5s}
keys: {packer: %[1]s/keys/packer, link: %[1]s/keys/link, %[8]spassphrase_file: %[1]s/passphrase}
hub: {endpoint: "%[3]s"}
drop_box: %[1]s/dropbox
seal: {audience: [%[7]s], classification: UNCLASSIFIED}
link: {receiver: %[7]s, address: "%[4]s", mtu: 1500, rate: %[5]s, repair: 10%%, passes: 2}
%[6]s`, s.Dir, s.Fingerprint, hub, address, rate, watch, Receiver, online), 0o600)
}

// Call runs one verb to its end and returns what it printed. Another exit code than 0 is a *CallError with the program's own words.
func (s *Site) Call(ctx context.Context, binary string, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(s.Bin, binary), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), &CallError{Verb: binary + " " + args[0], Code: cmd.ProcessState.ExitCode(), Stderr: LastLines(errs.String(), 8), Usage: usage(cmd), err: err}
	}
	return out.String(), nil
}

// Measure is Call that also returns what the process used.
func (s *Site) Measure(ctx context.Context, binary string, args ...string) (string, Usage, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(s.Bin, binary), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), Usage{}, &CallError{Verb: binary + " " + args[0], Code: cmd.ProcessState.ExitCode(), Stderr: LastLines(errs.String(), 8), Usage: usage(cmd), err: err}
	}
	return out.String(), usage(cmd), nil
}

// CallCapped is Call with a limit on private memory in bytes (RLIMIT_DATA, setrlimit(2)): a process that takes more dies. Unlike
// Usage.RSS it means the same whatever the caller's own size is.
func (s *Site) CallCapped(ctx context.Context, limit int64, binary string, args ...string) (string, error) {
	shell := Site{Bin: "/bin"}
	const capped = `ulimit -d "$0" && exec "$@"`
	return shell.Call(ctx, "sh", append([]string{"-c", capped, fmt.Sprint(limit / 1024), filepath.Join(s.Bin, binary)}, args...)...)
}

// Usage is what a process used in all.
type Usage struct {
	CPU time.Duration // user and system
	RSS int64         // largest resident set, bytes; at least that of the process that started it, which Linux counts in (getrusage(2))
}

func usage(cmd *exec.Cmd) Usage {
	if cmd.ProcessState == nil {
		return Usage{} // it was never started
	}
	ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return Usage{}
	}
	return Usage{CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), RSS: ru.Maxrss * 1024}
}

// CallError is a verb that ended with another exit code than 0.
type CallError struct {
	Verb   string
	Code   int
	Stderr string
	Usage  Usage
	err    error
}

func (e *CallError) Error() string {
	if e.Stderr == "" {
		return fmt.Sprintf("%s: %v", e.Verb, e.err)
	}
	return fmt.Sprintf("%s: exit %d: %s", e.Verb, e.Code, e.Stderr)
}

// Unwrap gives the error of os/exec.
func (e *CallError) Unwrap() error { return e.err }

// LastLines gives the last n lines of a text.
func LastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// Daemon is a child process with a log file.
type Daemon struct {
	Name string
	Log  string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start starts a child process that dies with its parent. Files become its descriptors from 3 on; with exactly one named by
// LISTEN_FDS in env that is socket activation.
func (s *Site) Start(name string, env []string, files []*os.File, binary string, args ...string) (*Daemon, error) {
	log, err := os.OpenFile(s.Path(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, files
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	d := &Daemon{Name: name, cmd: cmd, Log: log.Name(), done: make(chan struct{})}
	go func() {
		d.err = errors.Join(cmd.Wait(), log.Close())
		close(d.done)
	}()
	return d, nil
}

// StartBinary starts one of the two daemons on its configuration.
func (s *Site) StartBinary(name, config string) (*Daemon, error) {
	return s.Start(name, nil, nil, filepath.Join(s.Bin, name), "run", "--config", s.Path(config))
}

// Kill sends SIGKILL and waits.
func (d *Daemon) Kill() {
	_ = d.cmd.Process.Kill()
	<-d.done
}

// Stop sends SIGTERM, waits, and kills what does not go. The error is the process's own end. A nil Daemon is stopped.
func (d *Daemon) Stop(grace time.Duration) error {
	if d == nil {
		return nil
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-d.done:
		return d.err
	case <-time.After(grace):
		d.Kill()
		return fmt.Errorf("%s did not stop within %s", d.Name, grace)
	}
}

// Died says whether the process is gone, with the end of its log.
func (d *Daemon) Died() error {
	select {
	case <-d.done:
		if d.err == nil {
			return fmt.Errorf("%s ended with exit code 0\n%s", d.Name, d.Tail(12))
		}
		return fmt.Errorf("%s ended: %w\n%s", d.Name, d.err, d.Tail(12))
	default:
		return nil
	}
}

// Tail is the end of the log.
func (d *Daemon) Tail(n int) string {
	b, err := os.ReadFile(d.Log)
	if err != nil {
		return err.Error()
	}
	return LastLines(string(b), n)
}

// Usage is what the process used; it has ended.
func (d *Daemon) Usage() Usage { <-d.done; return usage(d.cmd) }

// WaitFor asks again and again until done, an error, or the time is up.
func WaitFor(ctx context.Context, limit time.Duration, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t := time.NewTicker(50 * time.Millisecond)
	defer t.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s", what, limit)
		case <-t.C:
		}
	}
}

// FreeUDP is a loopback address with a UDP port that is free now. It lies below the ports that Linux gives to sockets that ask for
// none (ip_local_port_range), so that nobody is given it before it is bound.
func FreeUDP() (string, error) {
	for {
		a := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(20_000+rand.N(12_000)))
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(a))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return "", err
		}
		return a.String(), c.Close()
	}
}

// PID is the process id.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Processes are the process and those that it started: the receiver's daemon has one that faces the link.
func (d *Daemon) Processes() []int {
	all := []int{d.PID()}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", d.PID()))
	if err != nil {
		return all // a pattern of ours is never malformed
	}
	for _, name := range tasks {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // a thread that ended meanwhile
		}
		for word := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(word); err == nil {
				all = append(all, pid)
			}
		}
	}
	return all
}

// SignalAll sends a signal to all of them.
func (d *Daemon) SignalAll(sig syscall.Signal) (err error) {
	for _, pid := range d.Processes() {
		err = errors.Join(err, syscall.Kill(pid, sig))
	}
	return err
}

// Signal sends a signal.
func (d *Daemon) Signal(sig os.Signal) error { return d.cmd.Process.Signal(sig) }

// PeakRSS is the largest resident set of the running process so far, in bytes (VmHWM in proc(5)), and that of those that it started
// added: more than they ever had together, if they had it at different times.
func (d *Daemon) PeakRSS() (sum int64, err error) {
	for _, pid := range d.Processes() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(b), "VmHWM:")
		var kib int64
		if _, err := fmt.Sscanf(rest, "%d kB", &kib); err != nil {
			return 0, err
		}
		sum += kib * 1024
	}
	return sum, nil
}

// State is how the process ended; it waits for the end.
func (d *Daemon) State() *os.ProcessState { <-d.done; return d.cmd.ProcessState }
