// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"sluice/internal/hub"
	"sluice/internal/journal"
)

const (
	payloadDir   = "payload"
	baseDir      = "base"
	evidenceDir  = "evidence"
	envelopeFile = "envelope.sluice"

	evidenceMirror     = "mirror.json"
	evidenceBase       = "mirror-base.json"
	evidenceInspection = "inspection.json"
	evidenceGate       = "gate.json"
)

// Progress is told how far a stage has come, in bytes.
type Progress func(done, total int64)

// MirrorRequest says what to fetch where.
type MirrorRequest struct {
	Repo     string
	Revision string // a branch, a tag or a commit
	Dir      string // a job directory: the files go below Dir/Sub, the record to Dir/evidence/Evidence
	Sub      string
	Evidence string
	Allow    []string
	Ignore   []string
	Progress Progress
}

// Mirror pins the revision to a commit, fetches every file of it, verifies each against the tree's own hash, and leaves a
// record of what was fetched and how it was verified. It resumes what an earlier call began.
func Mirror(ctx context.Context, c *hub.Client, req MirrorRequest) (*hub.Record, error) {
	repo, err := hub.ParseRepo(req.Repo)
	if err != nil {
		return nil, err
	}
	commit, err := c.Resolve(ctx, repo, req.Revision)
	if err != nil {
		return nil, fmt.Errorf("resolve %s@%s: %w", req.Repo, req.Revision, err)
	}
	dir := filepath.Join(req.Dir, req.Sub)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	rec, err := c.Mirror(ctx, hub.Request{
		Repo: repo, Revision: req.Revision, Commit: commit, Dir: dir, Allow: req.Allow, Ignore: req.Ignore,
		Progress: func(done, total int64, _ string) { report(req.Progress, done, total) },
	})
	if err != nil {
		return nil, fmt.Errorf("mirror %s@%s: %w", req.Repo, commit, err)
	}
	b, err := rec.Marshal()
	if err != nil {
		return nil, err
	}
	return rec, writeEvidence(req.Dir, req.Evidence, b)
}

func report(p Progress, done, total int64) {
	if p != nil {
		p(done, total)
	}
}

// mirror is the stage: the watched repository, and its base when it names one.
func (p *Packer) mirror(ctx context.Context, job journal.Job, d jobData) (result, error) {
	dir := p.workDir(job)
	rec, err := Mirror(ctx, p.hub, MirrorRequest{
		Repo: d.Watch.Repo, Revision: d.Commit, Dir: dir, Sub: payloadDir, Evidence: evidenceMirror,
		Allow: d.Watch.Allow, Ignore: d.Watch.Ignore, Progress: p.progress("mirror", job),
	})
	if err != nil {
		return result{}, err
	}
	var bytes int64
	for _, f := range rec.Files {
		bytes += f.Size
	}
	res := result{to: stateMirrored, detail: fmt.Sprintf("%s@%.12s, %d files, %d bytes, each verified against the tree", d.Watch.Repo, d.Commit, len(rec.Files), bytes)}
	res.change = func(d *jobData) { d.Bytes, d.Files = bytes, len(rec.Files) }
	if res.digest, err = evidenceDigest(dir, evidenceMirror); err != nil || d.Watch.Base == nil {
		return res, err
	}
	base, err := Mirror(ctx, p.hub, MirrorRequest{
		Repo: d.Watch.Base.Repo, Revision: d.Watch.Base.Revision, Dir: dir, Sub: baseDir, Evidence: evidenceBase,
		Allow: d.Watch.Base.Allow, Ignore: d.Watch.Base.Ignore, Progress: p.progress("mirror base", job),
	})
	if err != nil {
		return result{}, err
	}
	res.detail += fmt.Sprintf("; base %s@%.12s", d.Watch.Base.Repo, base.Commit)
	res.change = func(d *jobData) { d.Bytes, d.Files, d.BaseCommit = bytes, len(rec.Files), base.Commit }
	return res, nil
}

// evidenceDigest is the SHA-256 of a report as it is bound by the statement later, in hex.
func evidenceDigest(dir, name string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, evidenceDir, name))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sha256.Sum256(b)), nil
}

// writeEvidence keeps a report beside the payload. The directory is ours; the name is a constant.
func writeEvidence(dir, name string, b []byte) error {
	if err := os.MkdirAll(filepath.Join(dir, evidenceDir), 0o755); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, evidenceDir), name, b)
}
