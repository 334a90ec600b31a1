// SPDX-License-Identifier: Apache-2.0

package journal_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"sluice/internal/journal"
)

// states is a small receiver: the walk tests take each of its arrows.
func states() map[string][]string {
	return map[string][]string{
		"received":  {"verified", "rejected"},
		"verified":  {"held", "rejected"},
		"held":      {"published", "rejected", "held"},
		"published": {"withdrawn"},
	}
}

// clock ticks one second a reading, so that orders are exact.
func clock() func() time.Time {
	var n atomic.Int64
	return func() time.Time {
		return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Add(time.Duration(n.Add(1)) * time.Second)
	}
}

func open(t *testing.T, path string) *journal.Journal {
	t.Helper()
	j, err := journal.Open(path, journal.Options{States: states(), Now: clock()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func fresh(t *testing.T) *journal.Journal {
	t.Helper()
	return open(t, filepath.Join(t.TempDir(), "journal.db"))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

func wantHealthy(t *testing.T, j *journal.Journal) {
	t.Helper()
	if err := j.Check(); err != nil {
		t.Fatalf("Check: %v", err)
	}
}

func TestJobRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path)
	want := journal.Job{
		ID: "models/7", State: "received", Kind: "model-weights", Stream: "models", Name: "demo/tiny", Release: "sha256:ab",
		Epoch: 1, Seq: 7, NotBefore: time.Date(2026, 5, 1, 12, 0, 0, 5, time.FixedZone("x", 3600)), Attempts: 2,
		LastError: "line one\nline two", Data: json.RawMessage(`{"files":12}`),
	}
	must(t, j.Create(want, journal.Event{}))
	wantErr(t, j.Create(want, journal.Event{}), journal.ErrExists)
	must(t, j.Close())

	j = open(t, path)
	got, err := j.Get(want.ID)
	must(t, err)
	if got.Created.IsZero() || got.Updated.IsZero() {
		t.Error("Create left Created or Updated zero")
	}
	got.Created, got.Updated = time.Time{}, time.Time{}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("job changed on the way (-want +got):\n%s", d)
	}
	_, err = j.Get("models/8")
	wantErr(t, err, journal.ErrNotFound)
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, want 0600", info.Mode().Perm())
	}
	wantHealthy(t, j)
}

func TestCreateRefuses(t *testing.T) {
	j := fresh(t)
	for _, c := range []struct {
		name string
		job  journal.Job
	}{
		{"no id", journal.Job{State: "received"}},
		{"long id", journal.Job{ID: strings.Repeat("x", 513), State: "received"}},
		{"no state", journal.Job{ID: "a"}},
		{"unknown state", journal.Job{ID: "a", State: "nowhere"}},
		{"long stream", journal.Job{ID: "a", State: "received", Stream: strings.Repeat("x", 513)}},
		{"negative epoch", journal.Job{ID: "a", State: "received", Epoch: -1}},
		{"inexact seq", journal.Job{ID: "a", State: "received", Seq: 1 << 53}},
		{"broken data", journal.Job{ID: "a", State: "received", Data: json.RawMessage(`{"a":`)}},
		{"bulky data", journal.Job{ID: "a", State: "received", Data: json.RawMessage(`"` + strings.Repeat("x", 1<<20) + `"`)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			wantErr(t, j.Create(c.job, journal.Event{}), journal.ErrInvalid)
			if jobs, err := j.List(nil); err != nil || len(jobs) != 0 {
				t.Errorf("List: %d jobs, %v; want none", len(jobs), err)
			}
		})
	}
}

// TestTransitions walks every pair of states: the arrows succeed, everything else is refused and changes nothing.
func TestTransitions(t *testing.T) {
	all := []string{"received", "verified", "held", "published", "rejected", "withdrawn"}
	for _, from := range all {
		for _, to := range all {
			t.Run(from+" to "+to, func(t *testing.T) {
				j := fresh(t)
				must(t, j.Create(journal.Job{ID: "a", State: from, Release: "r"}, journal.Event{}))
				job, err := j.Advance("a", from, to, nil, journal.Event{Actor: "test"})
				stored, getErr := j.Get("a")
				must(t, getErr)
				if !slices.Contains(states()[from], to) {
					wantErr(t, err, journal.ErrTransition)
					if stored.State != from || len(events(t, j)) != 0 {
						t.Errorf("refused, but state is %q with %d events", stored.State, len(events(t, j)))
					}
					return
				}
				must(t, err)
				if d := cmp.Diff(stored, job); d != "" {
					t.Errorf("returned job is not the stored one:\n%s", d)
				}
				got := events(t, j)
				if len(got) != 1 || got[0].Action != from+" -> "+to || got[0].Job != "a" || got[0].Release != "r" || got[0].From != from || got[0].To != to {
					t.Errorf("events: %+v", got)
				}
			})
		}
	}
}

// events are all but those that say that a job is new: most tests are about what comes after.
func events(t *testing.T, j *journal.Journal) []journal.Event {
	t.Helper()
	var all []journal.Event
	must(t, j.Events(0, func(e journal.Event) error {
		if e.Action != "create" {
			all = append(all, e)
		}
		return nil
	}))
	return all
}

func TestAdvanceRefuses(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []struct {
		name   string
		id     string
		from   string
		mutate func(*journal.Job) error
		event  journal.Event
		want   error
	}{
		{"absent job", "b", "received", nil, journal.Event{}, journal.ErrNotFound},
		{"other state", "a", "verified", nil, journal.Event{}, journal.ErrTransition},
		{"mutate fails", "a", "received", func(*journal.Job) error { return boom }, journal.Event{}, boom},
		{"mutate moves", "a", "received", func(j *journal.Job) error { j.State = "published"; return nil }, journal.Event{}, journal.ErrInvalid},
		{"mutate renames", "a", "received", func(j *journal.Job) error { j.ID = "c"; return nil }, journal.Event{}, journal.ErrInvalid},
		{"mutate redates", "a", "received", func(j *journal.Job) error { j.Created = time.Now(); return nil }, journal.Event{}, journal.ErrInvalid},
		{"mutate breaks data", "a", "received", func(j *journal.Job) error { j.Data = json.RawMessage("{"); return nil }, journal.Event{}, journal.ErrInvalid},
		{"bulky event", "a", "received", nil, journal.Event{Detail: strings.Repeat("x", 64<<10)}, journal.ErrInvalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := fresh(t)
			must(t, j.Create(journal.Job{ID: "a", State: "received"}, journal.Event{}))
			before, err := j.Get("a")
			must(t, err)
			got, err := j.Advance(c.id, c.from, "rejected", c.mutate, c.event)
			wantErr(t, err, c.want)
			after, err := j.Get("a")
			must(t, err)
			if d := cmp.Diff(before, after); d != "" || got.ID != "" || len(events(t, j)) != 0 {
				t.Errorf("a refused Advance left traces: job %s, returned %+v, %d events", d, got, len(events(t, j)))
			}
			wantHealthy(t, j)
		})
	}
}

func TestTouchKeepsState(t *testing.T) {
	j := fresh(t)
	must(t, j.Create(journal.Job{ID: "a", State: "received"}, journal.Event{}))
	job, err := j.Touch("a", func(job *journal.Job) error {
		job.Attempts++
		job.LastError = "timeout"
		job.Data = json.RawMessage(`{"part": 3}`)
		return nil
	})
	must(t, err)
	if job.State != "received" || job.Attempts != 1 || job.LastError != "timeout" || !job.Updated.After(job.Created) {
		t.Errorf("touched job: %+v", job)
	}
	if n := len(events(t, j)); n != 0 {
		t.Errorf("Touch wrote %d events", n)
	}
	_, err = j.Touch("a", func(job *journal.Job) error { job.State = "verified"; return nil })
	wantErr(t, err, journal.ErrInvalid)
	_, err = j.Touch("b", nil)
	wantErr(t, err, journal.ErrNotFound)
}

func TestListAndDue(t *testing.T) {
	j := fresh(t)
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	for _, job := range []journal.Job{
		{ID: "z", State: "held", Created: now, NotBefore: now},
		{ID: "b", State: "held", Created: now.Add(time.Second), NotBefore: now.Add(time.Nanosecond)},
		{ID: "a", State: "held", Created: now.Add(time.Second)},
		{ID: "c", State: "received", Created: now.Add(-time.Second), NotBefore: now.Add(-time.Hour)},
	} {
		must(t, j.Create(job, journal.Event{}))
	}
	all, err := j.List(nil)
	must(t, err)
	held, err := j.List(func(job journal.Job) bool { return job.State == "held" })
	must(t, err)
	due, err := j.Due(now)
	must(t, err)
	dueHeld, err := j.Due(now, "held", "verified")
	must(t, err)
	for _, c := range []struct {
		name string
		got  []journal.Job
		want string
	}{{"all", all, "c z a b"}, {"held", held, "z a b"}, {"due", due, "c z a"}, {"due held", dueHeld, "z a"}} {
		var ids []string
		for _, job := range c.got {
			ids = append(ids, job.ID)
		}
		if got := strings.Join(ids, " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestDelete(t *testing.T) {
	j := fresh(t)
	must(t, j.Create(journal.Job{ID: "a", State: "received", Release: "r"}, journal.Event{}))
	wantErr(t, j.Delete("a", journal.Event{}), journal.ErrTransition)
	_, err := j.Advance("a", "received", "rejected", nil, journal.Event{})
	must(t, err)
	must(t, j.Delete("a", journal.Event{Actor: "retention"}))
	wantErr(t, j.Delete("a", journal.Event{}), journal.ErrNotFound)
	if got := events(t, j); len(got) != 2 || got[1].Action != "delete" || got[1].Release != "r" || got[1].Actor != "retention" || got[1].To != journal.StateDeleted {
		t.Errorf("events after Delete: %+v", got)
	}
	wantHealthy(t, j)
}

// TestRollback is the anti-rollback rule of docs/spec/envelope.md: (epoch, seq) grows lexicographically.
func TestRollback(t *testing.T) {
	j := fresh(t)
	if _, ok, err := j.HighWater("models"); ok || err != nil {
		t.Fatalf("a new stream has a mark: %v, %v", ok, err)
	}
	must(t, j.AdvanceMark("models", journal.Mark{Epoch: 2, Seq: 10, Release: "r10"}))
	for _, c := range []struct {
		epoch, seq int64
		want       error
	}{
		{2, 10, journal.ErrRollback},
		{2, 9, journal.ErrRollback},
		{1, 11, journal.ErrRollback},
		{0, 1<<53 - 1, journal.ErrRollback},
		{2, -1, journal.ErrInvalid},
		{-1, 99, journal.ErrInvalid},
		{1 << 53, 0, journal.ErrInvalid},
		{2, 1 << 53, journal.ErrInvalid},
	} {
		wantErr(t, j.AdvanceMark("models", journal.Mark{Epoch: c.epoch, Seq: c.seq}), c.want)
	}
	wantErr(t, j.AdvanceMark("", journal.Mark{Epoch: 9}), journal.ErrInvalid)
	must(t, j.AdvanceMark("other", journal.Mark{}))
	must(t, j.AdvanceMark("models", journal.Mark{Epoch: 3, Seq: 0, Release: "r0"}))
	marks, err := j.Marks()
	must(t, err)
	want := map[string]journal.Mark{"models": {Epoch: 3, Release: "r0"}, "other": {}}
	if d := cmp.Diff(want, marks); d != "" {
		t.Error(d)
	}
}

func TestAdvanceWithMarkIsOneTransaction(t *testing.T) {
	j := fresh(t)
	for _, job := range []journal.Job{
		{ID: "new", State: "held", Stream: "models", Epoch: 1, Seq: 5, Release: "r5"},
		{ID: "old", State: "held", Stream: "models", Epoch: 1, Seq: 4, Release: "r4"},
		{ID: "none", State: "held"},
	} {
		must(t, j.Create(job, journal.Event{}))
	}
	_, err := j.AdvanceWithMark("new", "held", "published", nil, journal.Event{Actor: "publish"})
	must(t, err)
	if m, ok, err := j.HighWater("models"); err != nil || !ok || m != (journal.Mark{Epoch: 1, Seq: 5, Release: "r5"}) {
		t.Errorf("mark is %+v, %v, %v", m, ok, err)
	}
	_, err = j.AdvanceWithMark("old", "held", "published", nil, journal.Event{})
	wantErr(t, err, journal.ErrRollback)
	if job, err := j.Get("old"); err != nil || job.State != "held" {
		t.Errorf("a rolled-back job moved to %q, %v", job.State, err)
	}
	_, err = j.AdvanceWithMark("none", "held", "published", nil, journal.Event{})
	wantErr(t, err, journal.ErrInvalid)
	if n := len(events(t, j)); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}

func TestConcurrentAdvanceHasOneWinner(t *testing.T) {
	const rivals = 16
	j := fresh(t)
	must(t, j.Create(journal.Job{ID: "a", State: "received"}, journal.Event{}))
	var wins, losses atomic.Int64
	var wg sync.WaitGroup
	for i := range rivals {
		wg.Go(func() {
			_, err := j.Advance("a", "received", "verified", nil, journal.Event{Actor: fmt.Sprint(i)})
			switch {
			case err == nil:
				wins.Add(1)
			case errors.Is(err, journal.ErrTransition):
				losses.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 || losses.Load() != rivals-1 {
		t.Errorf("%d wins and %d losses, want 1 and %d", wins.Load(), losses.Load(), rivals-1)
	}
	if n := len(events(t, j)); n != 1 {
		t.Errorf("%d events, want 1", n)
	}
}

// TestEventsMayUseTheJournal: a callback that writes would deadlock inside bbolt's read transaction.
func TestEventsMayUseTheJournal(t *testing.T) {
	const before = 300 // more than one batch
	j := fresh(t)
	for range before {
		must(t, j.Append(journal.Event{Actor: "test", Action: "tick"}))
	}
	var seen uint64
	err := j.Events(0, func(e journal.Event) error {
		seen++
		if e.Seq != seen {
			t.Fatalf("event %d came as number %d", e.Seq, seen)
		}
		if seen <= 3 {
			return j.Append(journal.Event{Actor: "callback", Action: "tock"})
		}
		return nil
	})
	must(t, err)
	if seen != before+3 {
		t.Errorf("saw %d events, want %d", seen, before+3)
	}
	stop := errors.New("stop")
	var from []uint64
	err = j.Events(299, func(e journal.Event) error {
		if from = append(from, e.Seq); len(from) == 2 {
			return stop
		}
		return nil
	})
	wantErr(t, err, stop)
	if d := cmp.Diff([]uint64{299, 300}, from); d != "" {
		t.Error(d)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good.db")
	must(t, open(t, good).Close())
	whole, err := os.ReadFile(good)
	must(t, err)
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		must(t, os.WriteFile(path, data, 0o600))
		return path
	}
	for _, c := range []struct {
		name string
		path string
		opt  journal.Options
		want error
	}{
		{"no states", filepath.Join(dir, "new.db"), journal.Options{}, journal.ErrInvalid},
		{"empty state", filepath.Join(dir, "new.db"), journal.Options{States: map[string][]string{"a": {""}}}, journal.ErrInvalid},
		{"absent, read-only", filepath.Join(dir, "new.db"), journal.Options{ReadOnly: true}, fs.ErrNotExist},
		{"absent directory", filepath.Join(dir, "no", "new.db"), journal.Options{States: states()}, fs.ErrNotExist},
		{"text", write("text", []byte(strings.Repeat("not a journal\n", 1000))), journal.Options{States: states()}, journal.ErrCorrupt},
		{"cut", write("cut", whole[:len(whole)/2]), journal.Options{States: states()}, journal.ErrCorrupt},
		{"another program's", foreign(t, dir), journal.Options{States: states()}, journal.ErrCorrupt},
		{"newer", edited(t, dir, "newer", func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte("99"))
		}), journal.Options{States: states()}, journal.ErrVersion},
		{"no version", edited(t, dir, "unversioned", func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("meta")).Put([]byte("schema"), []byte("x"))
		}), journal.Options{States: states()}, journal.ErrCorrupt},
		{"bucket gone", edited(t, dir, "gone", func(tx *bolt.Tx) error {
			return tx.DeleteBucket([]byte("streams"))
		}), journal.Options{States: states()}, journal.ErrCorrupt},
	} {
		t.Run(c.name, func(t *testing.T) {
			j, err := journal.Open(c.path, c.opt)
			if err == nil {
				err = errors.Join(j.Check(), j.Close())
			}
			wantErr(t, err, c.want)
		})
	}
}

func foreign(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, "foreign.db")
	raw(t, path, func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("photos")); return err })
	return path
}

// edited makes a journal and changes it behind its back.
func edited(t *testing.T, dir, name string, edit func(*bolt.Tx) error) string {
	t.Helper()
	path := filepath.Join(dir, name+".db")
	must(t, open(t, path).Close())
	raw(t, path, edit)
	return path
}

func raw(t *testing.T, path string, edit func(*bolt.Tx) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second})
	must(t, err)
	must(t, errors.Join(db.Update(edit), db.Close()))
}

func TestReadOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path)
	must(t, j.Create(journal.Job{ID: "a", State: "received"}, journal.Event{}))
	must(t, j.Close())
	before, err := os.ReadFile(path)
	must(t, err)

	ro, err := journal.Open(path, journal.Options{ReadOnly: true})
	must(t, err)
	second, err := journal.Open(path, journal.Options{ReadOnly: true}) // readers share the lock
	must(t, err)
	if jobs, err := second.List(nil); err != nil || len(jobs) != 1 {
		t.Errorf("List: %d jobs, %v", len(jobs), err)
	}
	wantHealthy(t, ro)
	if err := ro.Append(journal.Event{}); err == nil {
		t.Error("a read-only journal took an event")
	}
	must(t, errors.Join(ro.Close(), second.Close()))
	after, err := os.ReadFile(path)
	must(t, err)
	if !slices.Equal(before, after) {
		t.Error("reading changed the file")
	}
}
