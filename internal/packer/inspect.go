// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sluice/internal/checkpoint"
	"sluice/internal/journal"
)

// ErrInspection says that the inspection refused the checkpoint.
var ErrInspection = errors.New("packer: the inspection refused the checkpoint")

// Inspect looks at a job directory's payload (and base, when there is one) and leaves inspection.json. A report with verdict
// fail comes with ErrInspection.
func Inspect(ctx context.Context, dir string, opt checkpoint.Options) (*checkpoint.Report, error) {
	payload, err := os.OpenRoot(filepath.Join(dir, payloadDir))
	if err != nil {
		return nil, err
	}
	defer payload.Close()
	if base, err := os.OpenRoot(filepath.Join(dir, baseDir)); err == nil {
		defer base.Close()
		opt.Base = base.FS()
	}
	rep, err := checkpoint.Inspect(ctx, payload.FS(), opt)
	if err != nil {
		return nil, err
	}
	b, err := rep.Marshal()
	if err != nil {
		return nil, err
	}
	if err := writeEvidence(dir, evidenceInspection, b); err != nil {
		return nil, err
	}
	if rep.Verdict != "pass" {
		return rep, fmt.Errorf("%w: %s", ErrInspection, fatalFindings(rep))
	}
	return rep, nil
}

// fatalFindings joins the findings that refused, the first few of them.
func fatalFindings(rep *checkpoint.Report) string {
	const show = 5
	text, n := "", 0
	for _, f := range rep.Findings {
		if !f.Fatal || f.Excepted {
			continue
		}
		n++
		if n <= show {
			text += fmt.Sprintf("\n  %s: %s: %s (%s)", f.File, f.Rule, f.Detail, f.Fix)
		}
	}
	if n > show {
		text += fmt.Sprintf("\n  and %d more in inspection.json", n-show)
	}
	return text
}

func (p *Packer) inspect(ctx context.Context, job journal.Job, d jobData) (result, error) {
	rep, err := Inspect(ctx, p.workDir(job), checkpoint.Options{Kind: string(d.Watch.Kind), Exceptions: d.Watch.Accept})
	if err != nil {
		return result{}, err
	}
	detail := fmt.Sprintf("%d files of allowed kinds", len(rep.Files))
	if q := rep.Quantization; q != nil {
		detail += fmt.Sprintf(", %s %d bit, groups of %d", q.Method, q.Bits, q.GroupSize)
	}
	sum, err := evidenceDigest(p.workDir(job), evidenceInspection)
	if err != nil {
		return result{}, err
	}
	return result{to: stateInspected, detail: detail, digest: sum, change: func(d *jobData) { d.Inspection = rep.Verdict }}, nil
}
