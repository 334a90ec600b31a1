// SPDX-License-Identifier: Apache-2.0

package journal_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"sluice/internal/journal"
)

// TestTamperedTrail changes the audit trail behind the journal's back, as somebody with the file and bbolt could.
func TestTamperedTrail(t *testing.T) {
	put := func(tx *bolt.Tx, seq uint64, value []byte) error {
		return tx.Bucket([]byte("events")).Put(binary.BigEndian.AppendUint64(nil, seq), value)
	}
	get := func(tx *bolt.Tx, seq uint64) []byte {
		return bytes.Clone(tx.Bucket([]byte("events")).Get(binary.BigEndian.AppendUint64(nil, seq)))
	}
	remove := func(tx *bolt.Tx, seq uint64) error {
		return tx.Bucket([]byte("events")).Delete(binary.BigEndian.AppendUint64(nil, seq))
	}
	replace := func(seq uint64, old, new string) func(*bolt.Tx) error {
		return func(tx *bolt.Tx) error {
			was := get(tx, seq)
			now := bytes.Replace(was, []byte(old), []byte(new), 1)
			if bytes.Equal(was, now) {
				return fmt.Errorf("event %d has no %q", seq, old)
			}
			return put(tx, seq, now)
		}
	}
	for _, c := range []struct {
		name string
		edit func(*bolt.Tx) error
		says string
	}{
		{"altered in the middle", replace(3, "officer-3", "officer-X"), "event 3 is not what hash 3 of the tree was computed from"},
		{"altered at the end", replace(9, "officer-9", "officer-X"), "event 9 is not what hash 15"},
		{"altered at the start", replace(1, "officer-1", "officer-X"), "event 1 is not what hash 0"},
		{"whitespace added", replace(3, `{`, `{ `), "event 3 is not what hash 3"},
		{"removed in the middle", func(tx *bolt.Tx) error { return remove(tx, 5) }, "event 4 is followed by event 6"},
		{"removed at the start", func(tx *bolt.Tx) error { return remove(tx, 1) }, "event 0 is followed by event 2"},
		{"cut at the end", func(tx *bolt.Tx) error { return remove(tx, 9) }, "trail ends at event 8"},
		{"swapped", func(tx *bolt.Tx) error {
			a, b := get(tx, 4), get(tx, 5)
			return errors.Join(put(tx, 4, b), put(tx, 5, a))
		}, "event 5 is stored as 4"},
		{"added at the end", func(tx *bolt.Tx) error {
			return put(tx, 10, bytes.Replace(get(tx, 9), []byte(`"seq":9`), []byte(`"seq":10`), 1))
		}, "event 9 is not what event 10"},
		{"garbage", func(tx *bolt.Tx) error { return put(tx, 5, []byte("{}x")) }, "event 5"},
		{"unknown field", replace(5, `{`, `{"x":1,`), "unknown field"},
		{"short key", func(tx *bolt.Tx) error { return tx.Bucket([]byte("events")).Put([]byte("x"), []byte("{}")) }, "key of 1 bytes"},
		{"head removed", func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Delete([]byte("events_head")) }, "head says event 0"},
		{"head garbage", func(tx *bolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("events_head"), []byte("?")) }, "head of the audit trail"},
		{"a hash altered", func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("tree")).Put(binary.BigEndian.AppendUint64(nil, 7), make([]byte, 32))
		}, "hash 7 of the tree"},
		{"a hash removed", func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("tree")).Delete(binary.BigEndian.AppendUint64(nil, 7))
		}, "hash 7 of the tree"},
		{"a hash added", func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("tree")).Put(binary.BigEndian.AppendUint64(nil, 16), make([]byte, 32))
		}, "hashes beyond event 9"},
		{"all removed", func(tx *bolt.Tx) error {
			_, err := tx.CreateBucketIfNotExists([]byte("events"))
			return errors.Join(tx.DeleteBucket([]byte("events")), err, recreate(tx, "events"))
		}, "trail ends at event 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.db")
			j := open(t, path)
			for i := range 9 {
				must(t, j.Append(journal.Event{Actor: fmt.Sprintf("officer-%d", i+1), Action: "approve"}))
			}
			wantHealthy(t, j)
			must(t, j.Close())
			raw(t, path, c.edit)

			j = open(t, path)
			err := j.VerifyEvents()
			wantErr(t, err, journal.ErrTampered)
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v\ndoes not say %q", err, c.says)
			}
			wantErr(t, j.Check(), journal.ErrTampered)
		})
	}
}

func recreate(tx *bolt.Tx, name string) error {
	_, err := tx.CreateBucket([]byte(name))
	return err
}

// TestNothingIsChainedToAnAlteredTail: appending would give the forgery a valid successor.
func TestNothingIsChainedToAnAlteredTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal.db")
	j := open(t, path)
	must(t, j.Create(journal.Job{ID: "a", State: "received"}, journal.Event{}))
	must(t, j.Append(journal.Event{Actor: "officer", Action: "reject"}))
	must(t, j.Close())
	raw(t, path, func(tx *bolt.Tx) error {
		events := tx.Bucket([]byte("events"))
		k, v := events.Cursor().Last()
		return events.Put(bytes.Clone(k), bytes.Replace(v, []byte("reject"), []byte("accept"), 1))
	})

	j = open(t, path)
	wantErr(t, j.Append(journal.Event{}), journal.ErrTampered)
	_, err := j.Advance("a", "received", "verified", nil, journal.Event{})
	wantErr(t, err, journal.ErrTampered)
	if job, err := j.Get("a"); err != nil || job.State != "received" {
		t.Errorf("the job moved to %q without a trail, %v", job.State, err)
	}
}

// TestNothingIsGrownOnAnAlteredTree: a leaf that is put on a tree of other events would be no leaf of this log.
func TestNothingIsGrownOnAnAlteredTree(t *testing.T) {
	for name, edit := range map[string]func(*bolt.Bucket) error{
		"cut":     func(b *bolt.Bucket) error { return b.Delete(binary.BigEndian.AppendUint64(nil, 3)) },
		"longer":  func(b *bolt.Bucket) error { return b.Put(binary.BigEndian.AppendUint64(nil, 4), make([]byte, 32)) },
		"clipped": func(b *bolt.Bucket) error { return b.Put(binary.BigEndian.AppendUint64(nil, 3), make([]byte, 31)) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "journal.db")
			j := open(t, path)
			for range 3 {
				must(t, j.Append(journal.Event{Action: "x"}))
			}
			must(t, j.Close())
			raw(t, path, func(tx *bolt.Tx) error { return edit(tx.Bucket([]byte("tree"))) })
			wantErr(t, open(t, path).Append(journal.Event{Action: "x"}), journal.ErrTampered)
		})
	}
}

// TestHeadPinsTheTrail: a whole rewritten trail verifies by itself; only a head copied elsewhere gives it away.
func TestHeadPinsTheTrail(t *testing.T) {
	trail := func(actor string) (journal.Head, error) {
		j := fresh(t)
		for range 3 {
			must(t, j.Append(journal.Event{Actor: actor, Action: "approve"}))
		}
		must(t, j.VerifyEvents())
		return j.Head()
	}
	genuine, err := trail("officer")
	must(t, err)
	again, err := trail("officer")
	must(t, err)
	forged, err := trail("mallory")
	must(t, err)
	if genuine != again || genuine.Seq != 3 {
		t.Errorf("the same trail has the heads %+v and %+v", genuine, again)
	}
	if forged == genuine {
		t.Error("another trail has the same head")
	}
}

// TestCheckFinds plants what Check must see beside the trail.
func TestCheckFinds(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*bolt.Tx) error
		says string
	}{
		{"unknown state", func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("jobs")).Put([]byte("a"), []byte(
				`{"id":"a","state":"nowhere","created":"2026-01-01T00:00:00Z","updated":"2026-01-01T00:00:00Z"}`))
		}, `unknown state "nowhere"`},
		{"wrong key", func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("jobs")).Put([]byte("b"), []byte(
				`{"id":"a","state":"held","created":"2026-01-01T00:00:00Z","updated":"2026-01-01T00:00:00Z"}`))
		}, `job "a" is stored under "b"`},
		{"broken job", func(tx *bolt.Tx) error { return tx.Bucket([]byte("jobs")).Put([]byte("a"), []byte(`{`)) }, `job "a"`},
		{"broken mark", func(tx *bolt.Tx) error { return tx.Bucket([]byte("streams")).Put([]byte("s"), []byte(`1`)) }, `stream "s"`},
		{"impossible mark", func(tx *bolt.Tx) error {
			return tx.Bucket([]byte("streams")).Put([]byte("s"), []byte(`{"epoch":-1,"seq":0,"release":""}`))
		}, "epoch -1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := open(t, edited(t, t.TempDir(), "j", c.edit))
			err := j.Check()
			wantErr(t, err, journal.ErrCorrupt)
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v\ndoes not say %q", err, c.says)
			}
		})
	}
}
