// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/internal/console"
	"sluice/internal/hub/hubtest"
	"sluice/internal/link/linktest"
)

// demo is the state of a demonstration.
type demo struct {
	opt   options
	dir   string
	style console.Style
	tl    *console.Timeline
	out   io.Writer

	input    input
	hub      *hubtest.Server
	hubURL   string
	relay    *linktest.Relay
	listen   string // the receiver's UDP address
	trustFP  string
	words    string
	low      *daemon
	high     *daemon
	minio    *daemon
	s3       s3Access
	releases []string // release ids, in order
	closers  []func() error
}

// officers of the demonstration, by group.
var security, quality = []string{"a.roy", "m.lee", "s.ito"}, []string{"q.ali", "q.tan"} //nolint:gochecknoglobals // the cast

func (d *demo) path(elem ...string) string { return filepath.Join(append([]string{d.dir}, elem...)...) }

// prepareSite makes what a site has before its first release: keys, a policy, a trust object that both sides pin, configurations.
func (d *demo) prepareSite(ctx context.Context) error {
	if err := os.MkdirAll(d.path("keys"), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(d.path("passphrase"), []byte("correct horse battery staple\n"), 0o600); err != nil {
		return err
	}
	if err := d.makeKeys(ctx); err != nil {
		return err
	}
	if err := d.makeTrust(ctx); err != nil {
		return err
	}
	if err := d.startHub(); err != nil {
		return err
	}
	if err := d.openLink(ctx); err != nil {
		return err
	}
	if d.opt.minio != "" {
		if err := d.startMinIO(ctx); err != nil {
			return err
		}
	}
	if err := d.writeConfigs(); err != nil {
		return err
	}
	for _, check := range [][]string{{"bastion-packer", "low.yaml"}, {"diode-receiver", "high.yaml"}} {
		if _, err := d.call(ctx, check[0], "check", "--config", d.path(check[1])); err != nil {
			return err
		}
	}
	return nil
}

// makeKeys makes every key pair, two at a time: each costs one scrypt.
func (d *demo) makeKeys(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	generate := func(binary, name, use string) {
		g.Go(func() error {
			_, err := d.call(ctx, binary, "keys", "generate", "--use", use, "--out", d.path("keys", name), "--passphrase-file", d.path("passphrase"), "--comment", name)
			return err
		})
	}
	generate("bastion-packer", "packer", "sign")
	generate("bastion-packer", "link", "link")
	generate("diode-receiver", "rx-1", "hpke")
	for _, o := range append(append([]string{}, security...), quality...) {
		generate("bastion-packer", o, "sign")
	}
	return g.Wait()
}

var fingerprintLine = regexp.MustCompile(`fingerprint +([0-9a-f]{64})\nwords +(.+)`)

func (d *demo) makeTrust(ctx context.Context) error {
	var policy bytes.Buffer
	fmt.Fprintln(&policy, "# 2 of 3 security officers and 1 of 2 quality officers")
	ids := map[string]string{}
	args := []string{"trust", "init", "--policy", d.path("policy"), "--root", "release", "--out", d.path("trust.json"),
		"--link", d.path("keys", "link.pub"), "--receiver", "rx-1=" + d.path("keys", "rx-1.pub")}
	for _, name := range append([]string{"packer"}, append(append([]string{}, security...), quality...)...) {
		out, err := d.call(ctx, "bastion-packer", "keys", "show", d.path("keys", name+".pub"))
		if err != nil {
			return err
		}
		ids[name], _, _ = strings.Cut(out, " ")
		args = append(args, "--key", d.path("keys", name+".pub"))
	}
	for _, name := range append(append([]string{}, security...), quality...) {
		fmt.Fprintf(&policy, "officer %s key %s\n", name, ids[name])
	}
	fmt.Fprintf(&policy, "group security 2 %s\ngroup quality 1 %s\ngroup release all security quality\n", strings.Join(security, " "), strings.Join(quality, " "))
	fmt.Fprintf(&policy, "packer %s\nrule stream models/* quorum release hold 1s max-size 2TiB\n", ids["packer"])
	if err := os.WriteFile(d.path("policy"), policy.Bytes(), 0o644); err != nil {
		return err
	}
	out, err := d.call(ctx, "bastion-packer", args...)
	if err != nil {
		return err
	}
	m := fingerprintLine.FindStringSubmatch(out)
	if m == nil {
		return fmt.Errorf("trust init printed no fingerprint: %q", out)
	}
	d.trustFP, d.words = m[1], m[2]
	d.tl.Stage("both", "trust", "trust object, version 1", -1, "2 of 3 security and 1 of 2 quality officers; words: "+m[2])
	return nil
}

func (d *demo) startHub() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: d.hub, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(l) }()
	d.closers = append(d.closers, srv.Close)
	d.hubURL = "http://" + l.Addr().String()
	return nil
}

// openLink puts the lossy relay between the two sides. What it forwards goes one way only.
func (d *demo) openLink(ctx context.Context) error {
	port, err := freeUDPPort()
	if err != nil {
		return err
	}
	d.listen = fmt.Sprintf("127.0.0.1:%d", port)
	d.relay, err = linktest.StartRelay(ctx, linktest.RelayOptions{Listen: "127.0.0.1:0", Forward: d.listen, Faults: linktest.Options{Seed: 1, Drop: d.opt.loss}})
	if err != nil {
		return err
	}
	d.closers = append(d.closers, d.relay.Close)
	return nil
}

func freeUDPPort() (uint16, error) {
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer c.Close()
	a, err := netip.ParseAddrPort(c.LocalAddr().String())
	return a.Port(), err
}

// call runs one verb to its end and returns what it printed. A failure carries the program's own words.
func (d *demo) call(ctx context.Context, binary string, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, filepath.Join(d.opt.bin, binary), args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), &callError{verb: binary + " " + args[0], code: cmd.ProcessState.ExitCode(), stderr: lastLines(errs.String(), 6), err: err}
	}
	return out.String(), nil
}

// callError is a verb that ended with another exit code than 0.
type callError struct {
	verb   string
	code   int
	stderr string
	err    error
}

func (e *callError) Error() string { return fmt.Sprintf("%s: exit %d: %s", e.verb, e.code, e.stderr) }
func (e *callError) Unwrap() error { return e.err }

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// daemon is a child process with a log file.
type daemon struct {
	name string
	cmd  *exec.Cmd
	log  string
	done chan struct{}
	err  error
}

func (d *demo) start(name string, env []string, binary string, args ...string) (*daemon, error) {
	log, err := os.Create(d.path(name + ".log"))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // nothing outlives the demonstration
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	p := &daemon{name: name, cmd: cmd, log: log.Name(), done: make(chan struct{})}
	go func() {
		p.err = errors.Join(cmd.Wait(), log.Close())
		close(p.done)
	}()
	return p, nil
}

// stop sends SIGTERM, waits, and kills what does not go.
func (p *daemon) stop(grace time.Duration) error {
	if p == nil {
		return nil
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		return p.err
	case <-time.After(grace):
		_ = p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not stop within %s", p.name, grace)
	}
}

// died says whether the process is gone, with the end of its log.
func (p *daemon) died() error {
	select {
	case <-p.done:
		b, _ := os.ReadFile(p.log)
		return fmt.Errorf("%s ended: %w\n%s", p.name, p.err, lastLines(string(b), 12))
	default:
		return nil
	}
}

// clean stops what still runs and removes the working directory. After a failure the logs are shown.
func (d *demo) clean(cause error) error {
	var errs []error
	for _, p := range []*daemon{d.low, d.high, d.minio} {
		if p == nil {
			continue
		}
		if err := p.stop(10 * time.Second); err != nil && cause == nil && p != d.minio {
			errs = append(errs, err)
		}
		if cause != nil {
			b, _ := os.ReadFile(p.log)
			fmt.Fprintf(d.out, "\n--- %s.log ---\n%s\n", p.name, lastLines(string(b), 20))
		}
	}
	for _, c := range d.closers {
		errs = append(errs, c())
	}
	if d.opt.keep {
		fmt.Fprintf(d.out, "kept: %s\n", d.dir)
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, os.RemoveAll(d.dir))...)
}
