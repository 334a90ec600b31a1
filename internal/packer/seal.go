// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sluice/internal/checkpoint"
	"sluice/internal/dropbox"
	"sluice/internal/journal"
	"sluice/internal/officer"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// SealRequest is what the statement will say beside what is computed from the bytes.
type SealRequest struct {
	Dir       string // the job directory: payload/, evidence/; takes envelope.sluice
	Predicate envelope.Predicate
	Signer    mofn.Signer
	Progress  Progress
}

// Seal makes the envelope of a job directory: it reads every payload byte once, binds the evidence, signs as packer, and decodes its
// own output with the strict reader before it keeps it.
func Seal(ctx context.Context, req SealRequest) (*envelope.Envelope, error) {
	evidence, err := readEvidence(filepath.Join(req.Dir, evidenceDir))
	if err != nil {
		return nil, err
	}
	payload, err := os.OpenRoot(filepath.Join(req.Dir, payloadDir))
	if err != nil {
		return nil, err
	}
	defer payload.Close()
	st, index, err := envelope.Build(ctx, payload.FS(), envelope.BuildOptions{Predicate: req.Predicate, Evidence: evidence, Progress: req.Progress})
	if err != nil {
		return nil, err
	}
	env, err := sign(st, index, evidence, req.Signer)
	if err != nil {
		return nil, err
	}
	return env, writeEnvelope(req.Dir, env)
}

func sign(st *envelope.Statement, index []byte, evidence []envelope.Named, signer mofn.Signer) (*envelope.Envelope, error) {
	payload, err := st.Marshal()
	if err != nil {
		return nil, err
	}
	d, err := trust.Sign(signer, "packer", envelope.PayloadTypeInToto, payload)
	if err != nil {
		return nil, err
	}
	release, err := d.Marshal()
	if err != nil {
		return nil, err
	}
	return &envelope.Envelope{Release: release, DSSE: d, Statement: st, ID: envelope.ID(payload), Index: index, Evidence: evidence}, nil
}

// writeEnvelope encodes, decodes what it encoded with the real reader, and only then writes.
func writeEnvelope(dir string, env *envelope.Envelope) error {
	var b bytes.Buffer
	if _, err := env.WriteTo(&b); err != nil {
		return err
	}
	back, err := envelope.Read(bytes.NewReader(b.Bytes()))
	if err != nil {
		return fmt.Errorf("packer: internal error: the envelope just written does not read: %w", err)
	}
	if back.ID != env.ID {
		return fmt.Errorf("packer: internal error: the envelope just written reads as release %s, not %s", back.ID, env.ID)
	}
	return writeFile(dir, envelopeFile, b.Bytes())
}

// envelopeDigest is the SHA-256 of the envelope stream, in hex.
func envelopeDigest(env *envelope.Envelope) (string, error) {
	h := sha256.New()
	if _, err := env.WriteTo(h); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// ReadEnvelope reads the envelope of a sealed release.
func ReadEnvelope(dir string) (*envelope.Envelope, error) {
	f, err := os.Open(filepath.Join(dir, envelopeFile))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	env, err := envelope.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, envelopeFile), err)
	}
	return env, nil
}

// readEvidence reads the reports, sorted by name. A directory that is not there is no evidence.
func readEvidence(dir string) ([]envelope.Named, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []envelope.Named
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, err
		}
		out = append(out, envelope.Named{Name: e.Name(), Data: b})
	}
	slices.SortFunc(out, func(a, b envelope.Named) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (p *Packer) seal(ctx context.Context, job journal.Job, d jobData) (result, error) {
	m, _, err := p.journal.HighWater(job.Stream)
	if err != nil {
		return result{}, err
	}
	pred := p.predicate(d, job, m)
	if pred.Quantization, err = p.quantization(job); err != nil {
		return result{}, err
	}
	env, err := Seal(ctx, SealRequest{Dir: p.workDir(job), Predicate: pred, Signer: p.signer, Progress: p.progress("seal", job)})
	if err != nil {
		return result{}, err
	}
	if err := p.request(env); err != nil {
		return result{}, err
	}
	sum, err := envelopeDigest(env)
	if err != nil {
		return result{}, err
	}
	return result{
		to: stateSealed, mark: true, digest: sum, key: p.signer.KeyID().String(), detail: fmt.Sprintf("release %.12s, %s epoch %d seq %d; words: %s", env.ID, pred.Stream, pred.Epoch, pred.Seq, officer.Words(env)),
		job: func(j *journal.Job) { j.Release, j.Epoch, j.Seq = env.ID.String(), pred.Epoch, pred.Seq },
	}, nil
}

// predicate fills the statement from the job and the stream's last release: (epoch, seq) goes up by one, prev names the predecessor.
func (p *Packer) predicate(d jobData, job journal.Job, m journal.Mark) envelope.Predicate {
	now := p.now().UTC().Truncate(time.Second)
	w := d.Watch
	pred := envelope.Predicate{
		Stream: job.Stream, Epoch: p.cfg.Seal.Epoch, Seq: 1, Prev: m.Release, Kind: w.Kind, Name: w.Name, Version: d.Commit,
		Source:     envelope.Source{Type: "huggingface", Repo: w.Repo, Revision: w.Revision, Commit: d.Commit},
		Gate:       envelope.Gate{Verdict: d.Gate, Reason: w.GateException},
		Inspection: envelope.Inspection{Verdict: d.Inspection},
		Created:    now.Format(time.RFC3339), Expires: now.Add(time.Duration(p.cfg.Seal.Lifetime)).Format(time.RFC3339),
		Audience: slices.Sorted(slices.Values(p.cfg.Seal.Audience)), Classification: p.cfg.Seal.Classification,
	}
	if m.Epoch == pred.Epoch {
		pred.Seq = m.Seq + 1
	}
	if w.Base != nil {
		pred.Base = &envelope.Base{Repo: w.Base.Repo, Commit: d.BaseCommit}
	}
	return pred
}

// quantization reads what the inspection found.
func (p *Packer) quantization(job journal.Job) (*envelope.Quantization, error) {
	b, err := os.ReadFile(filepath.Join(p.workDir(job), evidenceDir, evidenceInspection))
	if err != nil {
		return nil, err
	}
	rep, err := checkpoint.ParseReport(b)
	if err != nil || rep.Quantization == nil {
		return nil, err
	}
	q := rep.Quantization
	return &envelope.Quantization{Method: q.Method, Bits: int64(q.Bits), GroupSize: int64(q.GroupSize), Version: q.Version}, nil
}

// request puts a sealed release into the drop-box, with its predecessor as far as it is here and the page as this bastion sees it.
func (p *Packer) request(env *envelope.Envelope) error {
	prev, err := p.previous(env.Statement.Predicate.Prev)
	if err != nil {
		return err
	}
	return Request(p.box, p.store(), env, prev)
}

// Request puts a sealed release into a drop-box, with the envelope of its predecessor; nil: it is not here.
func Request(box dropbox.Box, st *trust.Store, env, prev *envelope.Envelope) error {
	view, err := officer.Bastion(st, env, prev)
	if err != nil {
		return err
	}
	page := view.Page()
	html, err := page.HTML()
	if err != nil {
		return err
	}
	return box.PutRequest(env, prev, dropbox.Page{Text: []byte(page.Text()), HTML: html})
}

// previous reads the envelope of a release of this bastion. One whose work is gone, or that was sealed elsewhere, is nil: the page says so.
func (p *Packer) previous(id string) (*envelope.Envelope, error) {
	if id == "" {
		return nil, nil
	}
	jobs, err := p.journal.List(func(j journal.Job) bool { return j.Release == id })
	if err != nil {
		return nil, err
	}
	for _, j := range jobs {
		if env, err := ReadEnvelope(p.workDir(j)); err == nil && env.ID.String() == id {
			return env, nil
		}
	}
	return nil, nil
}
