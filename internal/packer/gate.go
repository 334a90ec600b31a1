// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sluice/internal/journal"
	"sluice/internal/officer"
	"sluice/pkg/envelope"
	"sluice/pkg/quality"
)

// ErrGate says that the quantized model is not shown to be as good as its base within the declared margins.
var ErrGate = errors.New("packer: the quality gate refused the model")

// GateRequest names the evaluations of both models: directories of lm-eval samples.
type GateRequest struct {
	Dir       string // the job directory, which takes gate.json
	Base      string
	Quantized string
	Margins   quality.Margins
}

// RunGate compares the two models item by item and leaves gate.json. A verdict of fail comes with ErrGate.
func RunGate(_ context.Context, req GateRequest) (*quality.Report, error) {
	base, err := importSamples(req.Base)
	if err != nil {
		return nil, fmt.Errorf("evaluations of the base: %w", err)
	}
	quantized, err := importSamples(req.Quantized)
	if err != nil {
		return nil, fmt.Errorf("evaluations of the quantized model: %w", err)
	}
	rep, err := quality.Compare(base, quantized, req.Margins)
	if err != nil {
		return nil, err
	}
	b, err := rep.Marshal()
	if err != nil {
		return nil, err
	}
	if err := writeEvidence(req.Dir, evidenceGate, b); err != nil {
		return nil, err
	}
	if rep.Verdict != quality.VerdictPass {
		return rep, fmt.Errorf("%w:\n%s", ErrGate, rep.Text())
	}
	return rep, nil
}

func importSamples(dir string) (map[quality.Benchmark]*quality.Run, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return quality.ImportSamples(root.FS(), ".")
}

// margins turns the configured margins into the gate's.
func (g Gate) margins() quality.Margins {
	m := quality.DefaultMargins()
	m.MMLU.Absolute = float64(g.MMLU) / 100
	m.HumanEval.Absolute = float64(g.HumanEval) / 100
	m.Alpha = float64(g.Alpha) / 100
	return m
}

func (p *Packer) gate(ctx context.Context, job journal.Job, d jobData) (result, error) {
	switch {
	case d.Watch.Kind != envelope.KindModelWeights:
		return result{to: stateGated, detail: "not applicable", change: setGate(envelope.VerdictNotApplicable)}, nil
	case d.Watch.GateException != "":
		return result{to: stateGated, detail: "declared exception: " + d.Watch.GateException, change: setGate(envelope.VerdictException)}, nil
	}
	dir := strings.ReplaceAll(d.Watch.Evaluations, "{commit}", d.Commit)
	base, quantized := filepath.Join(dir, "base"), filepath.Join(dir, "quantized")
	for _, need := range []string{base, quantized} {
		_, err := os.Stat(need)
		if errors.Is(err, os.ErrNotExist) {
			return result{wait: "evaluations: " + need + " does not exist yet"}, nil
		}
		if err != nil {
			return result{}, err
		}
	}
	rep, err := RunGate(ctx, GateRequest{Dir: p.workDir(job), Base: base, Quantized: quantized, Margins: p.cfg.Gate.margins()})
	if err != nil {
		return result{}, err
	}
	sum, err := evidenceDigest(p.workDir(job), evidenceGate)
	if err != nil {
		return result{}, err
	}
	return result{to: stateGated, detail: officer.GateSummary(rep), digest: sum, change: setGate(envelope.VerdictPass)}, nil
}

func setGate(verdict string) func(*jobData) { return func(d *jobData) { d.Gate = verdict } }
