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
	"sluice/internal/link"
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

// NewLink makes the receiving end of the link on a socket, with this receiver as its sink.
func (r *Receiver) NewLink(conn link.BatchReader, reg prometheus.Registerer) (*link.Receiver, error) {
	key, err := loadKey(r.cfg, r.trust)
	if err != nil {
		return nil, err
	}
	dir, err := r.spool.OpenRoot("link")
	if err != nil {
		return nil, fmt.Errorf("spool: %w", err)
	}
	return link.NewReceiver(link.ReceiverConfig{
		Conn: conn, PrivateKey: key.Secret, LinkKeys: linkKeys(r.trust), Sink: r, Dir: dir,
		Logger: r.log.Named("link"), Registerer: reg, Progress: r.linkProgress,
	})
}

// linkKeys are the keys that may announce sessions.
func linkKeys(st *trust.Store) []ed25519.PublicKey {
	keys := make([]ed25519.PublicKey, 0, len(st.Object.Links))
	for _, l := range st.Object.Links {
		keys = append(keys, l.Public)
	}
	return keys
}

// linkProgress shows how far the payload of a running session has come.
func (r *Receiver) linkProgress(link.ReceiveProgress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, c := range r.open {
		prog, symbol := c.obj.Progress(), int64(c.geometry.SymbolSize)
		r.report("receive", id.String(), prog.Have*symbol, prog.Symbols*symbol)
	}
}

// Healthy is the watchdog's question: can the journal still be read?
func (r *Receiver) Healthy(context.Context) error {
	_, err := r.journal.List(nil)
	return err
}

// Check looks at everything the configuration names, and changes nothing.
func Check(cfg Config) error {
	var errs []error
	if err := admin.CheckAddr(cfg.Admin.Listen); err != nil {
		errs = append(errs, fmt.Errorf("admin.listen: %w", err))
	}
	st, err := trust.Load(cfg.Trust.Object, cfg.Trust.Fingerprint)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	if _, err := loadKey(cfg, st); err != nil {
		errs = append(errs, err)
	}
	if _, err := loadTicketKey(cfg, st); err != nil && !errors.Is(err, errNoTicketKey) {
		errs = append(errs, err)
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
	report, err := r.LinkReport()
	if err != nil {
		return []string{err.Error()}
	}
	return report.Unready()
}
