// SPDX-License-Identifier: Apache-2.0

package receiver_test

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
	"sluice/internal/receiver"
	"sluice/pkg/mofn"
)

// TestMovesAreThoseOfTheSpecification: an auditor's table has the arrows of this pipeline and no others.
func TestMovesAreThoseOfTheSpecification(t *testing.T) {
	want := audit.Moves(audit.High)
	delete(want, "")
	got := receiver.States()
	for _, table := range []map[string][]string{want, got} {
		for from, to := range table {
			to = slices.DeleteFunc(slices.Sorted(slices.Values(to)), func(s string) bool { return s == journal.StateDeleted })
			table[from] = to
		}
	}
	if !maps.EqualFunc(want, got, slices.Equal) {
		t.Errorf("the specification has %v, the pipeline %v", want, got)
	}
}

// verifyLog exports the log that a test left and judges it as an auditor does: whatever happened, the log tells a possible story.
func (b *bench) verifyLog() {
	b.Helper()
	if size, _, err := b.r.Journal().Tree(); b.Failed() || err != nil || size == 0 {
		return // the test says what is wrong, closed the journal, or left nothing
	}
	seed := sha512.Sum512([]byte("log"))
	secret, err := mofn.GenerateSecret(bytes.NewReader(seed[:]), mofn.SuiteH1, "log")
	must(b.T, err)
	key, err := audit.NewLogKey(secret)
	must(b.T, err)
	dir := filepath.Join(b.TempDir(), "export")
	_, err = audit.Export(context.WithoutCancel(b.Context()), audit.NewLog(b.r.Journal(), audit.High, "rx-1", key), audit.Files{First: b.cfg.Trust.Object, State: filepath.Join(b.cfg.State, "trust")}, dir)
	must(b.T, err)
	if _, err := audit.Verify(dir, audit.VerifyOptions{}); err != nil {
		b.Errorf("%v\n%s", err, strings.Join(b.trail(), "\n"))
	}
}

func (b *bench) trail() (out []string) {
	must(b.T, b.r.Journal().RawEvents(1, 1<<20, func(raw []byte) error { out = append(out, string(raw)); return nil }))
	return out
}
