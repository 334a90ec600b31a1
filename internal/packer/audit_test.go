// SPDX-License-Identifier: Apache-2.0

package packer_test

import (
	"bytes"
	"context"
	"crypto/sha512"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/internal/audit"
	"sluice/internal/journal"
	"sluice/internal/packer"
	"sluice/pkg/mofn"
)

// TestMovesAreThoseOfTheSpecification: an auditor's table has the arrows of this pipeline and no others.
func TestMovesAreThoseOfTheSpecification(t *testing.T) {
	want, got := audit.Moves(audit.Low), packer.Transitions()
	delete(want, "")
	for _, table := range []map[string][]string{want, got} {
		for from, to := range table {
			table[from] = slices.DeleteFunc(slices.Sorted(slices.Values(to)), func(s string) bool { return s == journal.StateDeleted })
		}
	}
	if !maps.EqualFunc(want, got, slices.Equal) {
		t.Errorf("the specification has %v, the pipeline %v", want, got)
	}
}

// verifyLog exports the log that a test left and judges it as an auditor does: whatever happened, the log tells a possible story.
func (l *low) verifyLog() {
	l.t.Helper()
	if size, _, err := l.Journal().Tree(); l.t.Failed() || err != nil || size == 0 {
		return // the test says what is wrong, closed the journal, or left nothing
	}
	seed := sha512.Sum512([]byte("log"))
	secret, err := mofn.GenerateSecret(bytes.NewReader(seed[:]), mofn.SuiteH1, "log")
	if err != nil {
		l.t.Fatal(err)
	}
	key, err := audit.NewLogKey(secret)
	if err != nil {
		l.t.Fatal(err)
	}
	dir := filepath.Join(l.t.TempDir(), "export")
	if _, err := audit.Export(context.WithoutCancel(l.t.Context()), audit.NewLog(l.Journal(), audit.Low, "lab", key), audit.Files{First: l.cfg.Trust.Object, State: filepath.Join(l.cfg.State, "trust")}, dir); err != nil {
		l.t.Fatal(err)
	}
	if _, err := audit.Verify(dir, audit.VerifyOptions{}); err != nil {
		l.t.Errorf("%v\n%s", err, strings.Join(l.trail(), "\n"))
	}
}

func (l *low) trail() (out []string) {
	err := l.Journal().RawEvents(1, 1<<20, func(raw []byte) error { out = append(out, string(raw)); return nil })
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}
