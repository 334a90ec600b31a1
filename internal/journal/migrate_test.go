// SPDX-License-Identifier: Apache-2.0

// An internal test: it runs the machinery with migrations that no release has.

package journal

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
)

func goldenCopy(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("testdata/v1.db")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "journal.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func anyStates() map[string][]string {
	return map[string][]string{"received": {"held"}, "held": {"verified"}}
}

// rename is a migration as a later version may need it: it moves a job to another key.
func rename(from, to string) func(*bolt.Tx) error {
	return func(tx *bolt.Tx) error {
		jobs := tx.Bucket([]byte(bucketJobs))
		job, err := load(jobs, from)
		if err != nil {
			return err
		}
		job.ID = to
		_, err = put(jobs, []byte(to), job, maxJob)
		return errors.Join(err, jobs.Delete([]byte(from)))
	}
}

func TestMigrationsRunInOrderAndOnce(t *testing.T) {
	path := goldenCopy(t)
	steps := []migration{{"rename", rename("models/7", "x")}, {"rename again", rename("x", "y")}}
	for range 2 { // the second time there is nothing to do
		j, err := open(path, Options{States: anyStates()}, steps)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.Get("y"); err != nil {
			t.Error(err)
		}
		if err := errors.Join(j.Check(), j.Close()); err != nil {
			t.Error(err)
		}
	}
	if _, err := Open(path, Options{States: anyStates()}); !errors.Is(err, ErrVersion) {
		t.Errorf("an older build opened a newer file: %v", err)
	}
}

func TestFailedMigrationChangesNothing(t *testing.T) {
	path := goldenCopy(t)
	boom := errors.New("boom")
	half := func(tx *bolt.Tx) error { return errors.Join(rename("models/7", "x")(tx), boom) }
	if _, err := open(path, Options{States: anyStates()}, []migration{{"half", half}}); !errors.Is(err, boom) {
		t.Fatalf("error is %v, want boom", err)
	}
	j, err := Open(path, Options{States: anyStates()})
	if err != nil {
		t.Fatalf("the file is no longer of this version: %v", err)
	}
	if _, err := j.Get("models/7"); err != nil {
		t.Error(err)
	}
	if err := errors.Join(j.Check(), j.Close()); err != nil {
		t.Error(err)
	}
}

func TestReadOnlyNeverMigrates(t *testing.T) {
	path := goldenCopy(t)
	steps := []migration{{"rename", rename("models/7", "x")}}
	if _, err := open(path, Options{ReadOnly: true}, steps); !errors.Is(err, ErrVersion) {
		t.Errorf("error is %v, want ErrVersion", err)
	}
}
