// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/internal/admin"
	"sluice/internal/audit"
	"sluice/internal/recv"
	"sluice/internal/site"
	"sluice/internal/trust"
	"sluice/pkg/mofn"
	"sluice/pkg/registry"
)

// Target is a publication target that can also show what it keeps beside the files.
type Target interface {
	registry.Publisher
	OpenProvenance(ctx context.Context, name string, id [32]byte, path string) (io.ReadCloser, int64, error)
}

// OpenRegistry opens the target that the configuration names. The caller closes it.
func OpenRegistry(cfg Config) (Target, error) {
	opt := registry.Options{Receiver: cfg.Receiver}
	if d := cfg.Registry.Directory; d != nil {
		reg, err := registry.NewDirectory(d.Path, opt)
		if err != nil {
			return nil, err // not a typed nil
		}
		return reg, nil
	}
	s := cfg.Registry.S3
	access, err := readSecret(s.AccessKeyFile)
	if err != nil {
		return nil, fmt.Errorf("registry.s3.access_key_file: %w", err)
	}
	secret, err := readSecret(s.SecretKeyFile)
	if err != nil {
		return nil, fmt.Errorf("registry.s3.secret_key_file: %w", err)
	}
	uploads := cfg.State + "/s3"
	if err := os.MkdirAll(uploads, 0o700); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	reg, err := registry.NewS3(registry.S3Config{
		Endpoint: s.Endpoint, Bucket: s.Bucket, Region: s.Region, AccessKey: access, SecretKey: secret, CAFile: s.CAFile,
		CreateBucket: s.CreateBucket, AllowForgedTrailer: s.AllowForgedTrailer, StateDir: uploads, Options: opt,
	})
	if err != nil {
		return nil, err
	}
	return reg, nil
}

// readSecret reads a secret's file: its first line.
func readSecret(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	if line = strings.TrimRight(line, "\r"); line == "" {
		return "", fmt.Errorf("the first line of %s is empty", path)
	}
	return line, nil
}

// loadKey opens the receiver's X-Wing key and holds it against the trust object, which says to which key the bastion encrypts.
func loadKey(cfg Config, st *trust.Store) (*mofn.SecretKey, error) {
	pass, err := readSecret(cfg.Keys.PassphraseFile)
	if err != nil {
		return nil, fmt.Errorf("keys.passphrase_file: %w", err)
	}
	b, err := os.ReadFile(cfg.Keys.HPKE)
	if err != nil {
		return nil, fmt.Errorf("keys.hpke: %w", err)
	}
	key, err := mofn.OpenSecret(b, []byte(pass))
	if err != nil {
		return nil, fmt.Errorf("keys.hpke %s: %w", cfg.Keys.HPKE, err)
	}
	for _, r := range st.Object.Receivers {
		if r.Name != cfg.Receiver {
			continue
		}
		if key.Suite != mofn.SuiteXWing || !bytes.Equal(r.HPKE, key.Public) {
			return nil, fmt.Errorf("keys.hpke %s: is not the key that the trust object names for receiver %q; nothing sent to it could be opened", cfg.Keys.HPKE, cfg.Receiver)
		}
		return key, nil
	}
	return nil, fmt.Errorf("receiver: the trust object knows no receiver %q", cfg.Receiver)
}

// StartFront starts the process that faces the link, on sockets that stay the caller's. command makes this program one.
func (r *Receiver) StartFront(ctx context.Context, sockets []*os.File, command []string, reg prometheus.Registerer) error {
	key, err := loadKey(r.cfg, r.store())
	if err != nil {
		return err
	}
	front, err := recv.Start(ctx, recv.Options{
		Command: command, Sockets: sockets, Buffer: int(r.cfg.Link.ReceiveBuffer), PrivateKey: key.Secret, LinkKeys: linkKeys(r.store()),
		State: r.state, StatePath: r.cfg.State, Lock: r.lock, BestEffort: r.cfg.Link.Confine == ConfineBestEffort,
		Daemon: r, Logger: r.log.Named("recv"), Registerer: reg,
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.front, r.assembler = front, front
	return nil
}

// linkKeys are the keys that may announce sessions.
func linkKeys(st *trust.Store) []ed25519.PublicKey {
	keys := make([]ed25519.PublicKey, 0, len(st.Object.Links))
	for _, l := range st.Object.Links {
		keys = append(keys, l.Public)
	}
	return keys
}

// showProgress shows how far the payloads that are being received have come.
func (r *Receiver) showProgress() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, c := range r.open {
		prog, symbol := c.asm.Progress(), int64(c.cut.SymbolSize)
		r.report("receive", id.String(), prog.Have*symbol, prog.Symbols*symbol)
	}
}

// Healthy is the watchdog's question: can the journal still be read?
func (r *Receiver) Healthy(context.Context) error {
	_, err := r.journal.List(nil)
	return err
}

// frontProblem says why what faces the link does not receive; empty: it does, or there is none.
func (r *Receiver) frontProblem() string {
	r.mu.Lock()
	front := r.front
	r.mu.Unlock()
	if front == nil {
		return ""
	}
	return front.Problem()
}

// Check looks at everything the configuration names, and changes nothing.
func Check(cfg Config) error {
	var errs []error
	if err := admin.CheckAddr(cfg.Admin.Listen); err != nil {
		errs = append(errs, fmt.Errorf("admin.listen: %w", err))
	}
	been, err := CurrentTrust(cfg)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	st := been[0]
	if _, err := loadKey(cfg, st); err != nil {
		errs = append(errs, err)
	}
	if _, err := loadTicketKey(cfg, st); err != nil && !errors.Is(err, errNoTicketKey) {
		errs = append(errs, err)
	}
	if _, err := logKey(cfg); err != nil && !errors.Is(err, audit.ErrNoKey) {
		errs = append(errs, err)
	}
	if _, err := modelKey(cfg); err != nil && !errors.Is(err, errNoModelKey) {
		errs = append(errs, err)
	}
	if err := recv.CanConfine(cfg.Link.Confine == ConfineBestEffort); err != nil {
		errs = append(errs, fmt.Errorf("link.confine: %w", err))
	}
	if s := cfg.Registry.S3; s != nil {
		for _, f := range []string{s.AccessKeyFile, s.SecretKeyFile} {
			if _, err := readSecret(f); err != nil {
				errs = append(errs, fmt.Errorf("registry.s3: %w", err))
			}
		}
	}
	return errors.Join(errs...)
}

// Ready gives the reasons why nothing can be received now; none means that the daemon is ready. A link that is down is one, because
// a probe is how most sites hear of it; so is a link of which nothing was heard since the start, once a heartbeat had time to come.
func (r *Receiver) Ready(ctx context.Context) []string {
	if err := r.Healthy(ctx); err != nil {
		return []string{err.Error()}
	}
	if problem := r.frontProblem(); problem != "" {
		return []string{problem}
	}
	report, err := r.LinkReport()
	if err != nil {
		return []string{err.Error()}
	}
	reasons := report.Unready()
	if f := r.site.Fresh(r.wall()); f.State == site.Stale || f.State == site.Late {
		reasons = append(reasons, f.Text)
	}
	return reasons
}
