// SPDX-License-Identifier: Apache-2.0

package journal_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/journal"
)

const golden = "testdata/v1.db"

// TestGoldenV1 opens a file that version 1 wrote: a job a state, two streams, three events. It must go on opening for as long as this package
// lives; the file is never written again.
func TestGoldenV1(t *testing.T) {
	j := open(t, copyOf(t, golden))
	wantHealthy(t, j)
	jobs, err := j.List(nil)
	must(t, err)
	marks, err := j.Marks()
	must(t, err)
	trail := events(t, j)
	if last := trail[len(trail)-1]; last.Action != journal.ActionLogBegins || !strings.HasPrefix(last.Detail, "3 events of before") {
		t.Errorf("the migration ends the old trail with %+v", last)
	}
	got, err := json.MarshalIndent(map[string]any{"jobs": jobs, "marks": marks, "events": trail[:len(trail)-1]}, "", "  ")
	must(t, err)
	want, err := os.ReadFile("testdata/v1.json")
	must(t, err)
	if d := cmp.Diff(strings.TrimSpace(string(want)), string(got)); d != "" {
		t.Errorf("the golden file tells another story (-want +got):\n%s", d)
	}
	must(t, j.Append(journal.Event{Actor: "test", Action: "goes on"}))
	must(t, j.VerifyEvents())
}

func copyOf(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	to := filepath.Join(t.TempDir(), "journal.db")
	must(t, os.WriteFile(to, data, 0o600))
	return to
}

// TestDamagedPages overwrites whole pages, as a disk does that lost or misplaced a write.
func TestDamagedPages(t *testing.T) {
	const page = 4096
	whole, err := os.ReadFile(golden)
	must(t, err)
	for _, c := range []struct {
		name   string
		damage func(b []byte)
	}{
		{"both meta pages zero", func(b []byte) { clear(b[:2*page]) }},
		{"both meta pages noise", func(b []byte) {
			for i := range 2 * page {
				b[i] = byte(i * 7)
			}
		}},
		{"all but meta zero", func(b []byte) { clear(b[2*page:]) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.db")
			broken := slices.Clone(whole)
			c.damage(broken)
			must(t, os.WriteFile(path, broken, 0o600))
			j, err := journal.Open(path, journal.Options{States: states()})
			if err == nil {
				err = errors.Join(j.Check(), j.Close())
			}
			wantErr(t, err, journal.ErrCorrupt)
		})
	}
}
