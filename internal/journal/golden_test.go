// SPDX-License-Identifier: Apache-2.0

package journal_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/journal"
)

var update = flag.Bool("update", false, "write testdata/v1.db anew; only ever before version 1 is released")

const golden = "testdata/v1.db"

// goldenStory is what the committed file holds: a job a state, two streams, three events.
func goldenStory(t *testing.T, path string) {
	t.Helper()
	j, err := journal.Open(path, journal.Options{States: states(), Now: clock()})
	must(t, err)
	must(t, j.Create(journal.Job{
		ID: "models/7", State: "received", Kind: "model-weights", Stream: "models", Name: "demo/tiny-llama-awq",
		Release: "sha256:07", Epoch: 1, Seq: 7, Data: json.RawMessage(`{"files":12,"bytes":316000000}`),
	}))
	must(t, j.Create(journal.Job{ID: "models/8", State: "received", Stream: "models", Release: "sha256:08", Epoch: 1, Seq: 8}))
	_, err = j.Advance("models/7", "received", "verified", nil, journal.Event{Actor: "verify", Detail: "2 of 3"})
	must(t, err)
	_, err = j.AdvanceWithMark("models/7", "verified", "held", func(job *journal.Job) error {
		job.NotBefore = time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
		return nil
	}, journal.Event{Actor: "hold"})
	must(t, err)
	must(t, j.AdvanceMark("licenses", journal.Mark{Epoch: 4, Seq: 2, Release: "sha256:42"}))
	must(t, j.Append(journal.Event{Actor: "officer anna", Action: "stop", Detail: "stream licenses"}))
	must(t, j.Close())
}

// TestGoldenV1 opens a file that version 1 wrote. It must go on opening for as long as this package lives.
func TestGoldenV1(t *testing.T) {
	if *update {
		must(t, os.RemoveAll(golden))
		goldenStory(t, golden)
	}
	j := open(t, copyOf(t, golden))
	wantHealthy(t, j)
	jobs, err := j.List(nil)
	must(t, err)
	marks, err := j.Marks()
	must(t, err)
	got, err := json.MarshalIndent(map[string]any{"jobs": jobs, "marks": marks, "events": events(t, j)}, "", "  ")
	must(t, err)
	if *update {
		must(t, os.WriteFile("testdata/v1.json", append(got, '\n'), 0o644))
	}
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
