// SPDX-License-Identifier: Apache-2.0

package packer_test

import (
	"path/filepath"
	"testing"

	"sluice/internal/checkpoint/checkpointtest"
	"sluice/internal/packer"
	"sluice/pkg/quality/qualitytest"
)

// TestGate: a model waits until its evaluations are there, across a crash, and is refused when it lost too much.
func TestGate(t *testing.T) {
	l := newLow(t)
	models, evaluations := filepath.Join(t.TempDir(), "models"), filepath.Join(t.TempDir(), "evaluations")
	if err := checkpointtest.Write(models, checkpointtest.Small()); err != nil {
		t.Fatal(err)
	}
	for name, dir := range map[string]string{"org/base": checkpointtest.Base(models), "org/awq": checkpointtest.AWQ(models)} {
		if _, err := l.hub.AddRepo(name, dir); err != nil {
			t.Fatal(err)
		}
	}
	l.cfg.Watch = []packer.Watch{{
		Repo: "org/awq", Revision: "main", Every: 1, Stream: "models/tiny", Name: "tiny", Kind: "model-weights",
		Base: &packer.Base{Repo: "org/base", Revision: "main"}, Evaluations: evaluations,
	}}
	l.crash()
	if job := l.run()[0]; job.State != "INSPECTED" {
		t.Fatalf("state %s without evaluations: %s", job.State, job.LastError)
	}
	l.crash()
	if err := qualitytest.Write(evaluations, qualitytest.Failing(1)); err != nil {
		t.Fatal(err)
	}
	if job := l.run()[0]; job.State != "REFUSED" {
		t.Fatalf("state %s after a failed gate: %s", job.State, job.LastError)
	}
}
