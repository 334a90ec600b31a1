// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"sluice/internal/admin"
	"sluice/internal/audit"
	"sluice/internal/checkpoint"
	"sluice/internal/hub"
	"sluice/internal/strictyaml"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
	"sluice/pkg/quality"
)

// Check looks at everything the configuration names, and changes nothing.
func Check(cfg Config) error {
	var errs []error
	if err := admin.CheckAddr(cfg.Admin.Listen); err != nil {
		errs = append(errs, fmt.Errorf("admin.listen: %w", err))
	}
	if _, err := NewHub(cfg.Hub, zap.NewNop()); err != nil {
		errs = append(errs, err)
	}
	for i, w := range cfg.Watch {
		if _, err := hub.ParseRepo(w.Repo); err != nil {
			errs = append(errs, fmt.Errorf("watch[%d].repo: %w", i, err))
		}
	}
	st, err := CurrentTrust(cfg)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	return errors.Join(append(errs, checkAgainstTrust(cfg, st))...)
}

// checkAgainstTrust holds keys, receivers and streams against the trust object.
func checkAgainstTrust(cfg Config, st *trust.Store) (err error) {
	var errs []error
	if _, err := receiverKey(st, cfg.Link.Receiver); err != nil {
		errs = append(errs, err)
	}
	for i, w := range cfg.Watch {
		if _, err := st.Policy.Rule(w.Stream); err != nil {
			errs = append(errs, fmt.Errorf("watch[%d].stream: %w", i, err))
		}
	}
	p := Packer{cfg: cfg}
	defer func() { err = errors.Join(err, p.closeKeys()) }()
	if err := p.loadKeys(); err != nil {
		return errors.Join(append(errs, err)...)
	}
	if _, err := logKey(cfg); err != nil && !errors.Is(err, audit.ErrNoKey) {
		errs = append(errs, err)
	}
	if !isPacker(st.Policy, p.signer.KeyID()) {
		errs = append(errs, fmt.Errorf("keys.packer: key %s is not a packer of the policy; every receiver would refuse what it signs", p.signer.KeyID()))
	}
	if !isLink(st.Object, p.linkKey.ID()) {
		errs = append(errs, fmt.Errorf("keys.link: key %s is not a link key of the trust object; every receiver would ignore its sessions", p.linkKey.ID()))
	}
	return errors.Join(errs...)
}

func isPacker(p *mofn.Policy, id mofn.KeyID) bool {
	for _, k := range p.Packers() {
		if k == id {
			return true
		}
	}
	return false
}

func isLink(t *mofn.Trust, id mofn.KeyID) bool {
	for _, l := range t.Links {
		if l.ID == id {
			return true
		}
	}
	return false
}

// Healthy is the watchdog's question: can the journal still be read?
func (p *Packer) Healthy(context.Context) error {
	_, err := p.journal.List(nil)
	return err
}

// SetRate fills the fields of a link that a command line gives as text.
func (l *Link) SetRate(rate string, repair float64) error {
	r, err := strictyaml.ParseBitRate(rate)
	if err != nil {
		return fmt.Errorf("--rate: %w", err)
	}
	l.Rate, l.Repair = r, strictyaml.Percent(repair)
	p := problems{}
	l.validate(&p)
	return p.join()
}

// DescribeEvidence fills a predicate with what a job directory's evidence says: source and base from the mirror records,
// quantization and verdict from the inspection, the gate's verdict.
func DescribeEvidence(dir, gateException, source string, p *envelope.Predicate) error {
	if err := describeSource(dir, source, p); err != nil {
		return err
	}
	p.Inspection = envelope.Inspection{Verdict: envelope.VerdictNotApplicable}
	if b, err := os.ReadFile(filepath.Join(dir, evidenceDir, evidenceInspection)); err == nil {
		rep, err := checkpoint.ParseReport(b)
		if err != nil {
			return fmt.Errorf("%s: %w", evidenceInspection, err)
		}
		p.Inspection.Verdict = rep.Verdict
		if q := rep.Quantization; q != nil {
			p.Quantization = &envelope.Quantization{Method: q.Method, Bits: int64(q.Bits), GroupSize: int64(q.GroupSize), Version: q.Version}
		}
	}
	return describeGate(dir, gateException, p)
}

func describeSource(dir, source string, p *envelope.Predicate) error {
	rec, err := readRecord(dir, evidenceMirror)
	if errors.Is(err, os.ErrNotExist) {
		if source == "" {
			return fmt.Errorf("%s holds no %s: mirror first, or say with --source where the files come from", dir, evidenceMirror)
		}
		p.Source = envelope.Source{Type: envelope.SourceDirectory, Repo: source}
		return nil
	}
	if err != nil {
		return err
	}
	p.Source = envelope.Source{Type: envelope.SourceHuggingFace, Repo: rec.Repo.ID, Revision: rec.Revision, Commit: rec.Commit}
	if p.Version == "" {
		p.Version = rec.Commit
	}
	base, err := readRecord(dir, evidenceBase)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	p.Base = &envelope.Base{Repo: base.Repo.ID, Commit: base.Commit}
	return nil
}

func readRecord(dir, name string) (*hub.Record, error) {
	b, err := os.ReadFile(filepath.Join(dir, evidenceDir, name))
	if err != nil {
		return nil, err
	}
	var rec hub.Record
	if err := json.Unmarshal(b, &rec); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &rec, nil
}

func describeGate(dir, exception string, p *envelope.Predicate) error {
	p.Gate = envelope.Gate{Verdict: envelope.VerdictNotApplicable}
	b, err := os.ReadFile(filepath.Join(dir, evidenceDir, evidenceGate))
	switch {
	case err == nil:
		rep, err := quality.ParseReport(b)
		if err != nil {
			return fmt.Errorf("%s: %w", evidenceGate, err)
		}
		p.Gate.Verdict = rep.Verdict
	case exception != "":
		p.Gate = envelope.Gate{Verdict: envelope.VerdictException, Reason: exception}
	case p.Kind == envelope.KindModelWeights:
		return fmt.Errorf("%s holds no %s: run the gate first, or declare --gate-exception with its reason", dir, evidenceGate)
	}
	return nil
}

// Ready gives the reasons why the daemon is not ready; none means that it is.
func (p *Packer) Ready(ctx context.Context) []string {
	if err := p.Healthy(ctx); err != nil {
		return []string{err.Error()}
	}
	return nil
}
