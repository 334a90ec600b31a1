// SPDX-License-Identifier: Apache-2.0

package officer

import (
	"encoding/json"
	"errors"
	"fmt"

	"sluice/internal/checkpoint"
	"sluice/pkg/envelope"
	"sluice/pkg/quality"
)

// mirrorRecord is what a page needs of the bastion's record of what it fetched (mirror.json).
type mirrorRecord struct {
	Endpoint string       `json:"endpoint"`
	Commit   string       `json:"commit"`
	Skipped  []string     `json:"skipped"`
	Files    []mirrorFile `json:"files"`
}

type mirrorFile struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
	Method string `json:"method"`
}

func report(env *envelope.Envelope, name string) []byte {
	for _, e := range env.Evidence {
		if e.Name == name {
			return e.Data
		}
	}
	return nil
}

// readEvidence reads the reports, and holds them against what the statement says of them.
func (v *View) readEvidence() {
	p, e := v.Env.Statement.Predicate, &v.Evidence
	if p.Gate.Verdict == envelope.VerdictPass {
		rep, err := readGate(report(v.Env, reportGate))
		if err != nil {
			e.GateErr = err.Error()
		}
		e.Gate = rep
		v.Checks = append(v.Checks, Check{"the gate's figures, computed again from its recorded outcomes", err == nil})
	}
	if p.Inspection.Verdict == envelope.VerdictPass {
		rep, err := readInspection(report(v.Env, reportInspection), v.Env.Statement)
		if err != nil {
			e.InspectErr = err.Error()
		}
		e.Inspection = rep
		v.Checks = append(v.Checks, Check{"the inspection's report, of exactly these files", err == nil})
	}
	if b := report(v.Env, reportMirror); b != nil {
		rec, err := readMirror(b, v.Env.Statement)
		if err != nil {
			e.MirrorErr = err.Error()
		}
		e.Mirror = rec
		v.Checks = append(v.Checks, Check{"the record of what was fetched, of exactly these files", err == nil})
	}
	if v.Prev != nil {
		if b := report(v.Prev, reportMirror); b != nil {
			var rec mirrorRecord
			if json.Unmarshal(b, &rec) == nil {
				e.PrevMirror = &rec
			}
		}
	}
}

var errReport = errors.New("the statement says pass, and there is no report")

// readGate takes a report of a pass only, with figures that follow from what it records.
func readGate(b []byte) (*quality.Report, error) {
	if b == nil {
		return nil, errReport
	}
	rep, err := quality.ParseReport(b)
	if err != nil {
		return nil, err
	}
	if rep.Verdict != quality.VerdictPass {
		return nil, fmt.Errorf("the statement says pass, the report says %s", rep.Verdict)
	}
	if err := rep.Recompute(); err != nil {
		return nil, err
	}
	return rep, nil
}

func readInspection(b []byte, st *envelope.Statement) (*checkpoint.Report, error) {
	if b == nil {
		return nil, errReport
	}
	rep, err := checkpoint.ParseReport(b)
	if err != nil {
		return nil, err
	}
	if rep.Verdict != "pass" {
		return nil, fmt.Errorf("the statement says pass, the report says %q", rep.Verdict)
	}
	if len(rep.Files) != len(st.Subjects) {
		return nil, fmt.Errorf("the report is about %d files, the release has %d", len(rep.Files), len(st.Subjects))
	}
	for i, f := range rep.Files {
		if f.Path != st.Subjects[i].Name || f.Size != st.Subjects[i].Annotations.Size {
			return nil, fmt.Errorf("the report is about %q of %d bytes where the release has %q of %d", f.Path, f.Size, st.Subjects[i].Name, st.Subjects[i].Annotations.Size)
		}
	}
	return rep, nil
}

func readMirror(b []byte, st *envelope.Statement) (*mirrorRecord, error) {
	var rec mirrorRecord
	if err := json.Unmarshal(b, &rec); err != nil {
		return nil, fmt.Errorf("the record does not read: %w", err)
	}
	if rec.Commit != st.Predicate.Source.Commit {
		return nil, fmt.Errorf("the record is of commit %q, the statement says %q", rec.Commit, st.Predicate.Source.Commit)
	}
	if len(rec.Files) != len(st.Subjects) {
		return nil, fmt.Errorf("the record has %d files, the release %d", len(rec.Files), len(st.Subjects))
	}
	for i, f := range rec.Files {
		if s := st.Subjects[i]; f.Path != s.Name || f.SHA256 != s.Digest.SHA256.String() {
			return nil, fmt.Errorf("the record has %q with %.16q where the release has %q with %.16s", f.Path, f.SHA256, s.Name, s.Digest.SHA256)
		}
	}
	return &rec, nil
}
