// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"fmt"
	"strconv"

	bolt "go.etcd.io/bbolt"
)

const keySchema = "schema"

// A migration takes the file from the version before it to its own version. It runs inside the transaction
// that also writes the new version number, so that it happens whole or not at all.
type migration struct {
	name string
	step func(*bolt.Tx) error
}

// migrations returns the steps in order; the version of a file is the number of steps it has taken. Only ever
// append: a released step is history.
func (j *Journal) migrations() []migration {
	return []migration{
		{"create buckets", createBuckets},        // 1
		{"grow the tree of events", j.plantTree}, // 2
	}
}

// buckets are those that every method expects to find.
func buckets() []string {
	return []string{bucketMeta, bucketJobs, bucketStreams, bucketEvents, bucketTree, bucketWitness}
}

func createBuckets(tx *bolt.Tx) error {
	for _, name := range []string{bucketMeta, bucketJobs, bucketStreams, bucketEvents} {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return fmt.Errorf("create bucket %s: %w", name, err)
		}
	}
	return nil
}

// checkBuckets: a schema number without its buckets is a file that somebody edited.
func checkBuckets(tx *bolt.Tx) error {
	for _, name := range buckets() {
		if tx.Bucket([]byte(name)) == nil {
			return fmt.Errorf("%w: bucket %q is missing", ErrCorrupt, name)
		}
	}
	return nil
}

// migrate brings db up to len(steps), one transaction a step.
func migrate(db *bolt.DB, steps []migration, readOnly bool) error {
	var at int
	err := db.View(func(tx *bolt.Tx) (err error) { at, err = schemaVersion(tx); return err })
	if err != nil {
		return err
	}
	if at > len(steps) {
		return fmt.Errorf("%w: file has %d, this build knows %d: use the newer build", ErrVersion, at, len(steps))
	}
	if at < len(steps) && readOnly {
		return fmt.Errorf("%w: file has %d, this build wants %d: start the daemon once to migrate it",
			ErrVersion, at, len(steps))
	}
	for ; at < len(steps); at++ {
		if err := db.Update(func(tx *bolt.Tx) error { return takeStep(tx, steps[at], at+1) }); err != nil {
			return fmt.Errorf("migrate to %d (%s): %w", at+1, steps[at].name, err)
		}
	}
	return nil
}

func takeStep(tx *bolt.Tx, m migration, version int) error {
	meta, err := tx.CreateBucketIfNotExists([]byte(bucketMeta))
	if err != nil {
		return err
	}
	if err := m.step(tx); err != nil {
		return err
	}
	return meta.Put([]byte(keySchema), []byte(strconv.Itoa(version)))
}

// schemaVersion is 0 for a file that holds nothing yet. A file with buckets but no version is not ours.
func schemaVersion(tx *bolt.Tx) (int, error) {
	meta := tx.Bucket([]byte(bucketMeta))
	if meta == nil {
		if name, _ := tx.Cursor().First(); name != nil {
			return 0, fmt.Errorf("%w: has a bucket %q and no %q: another program's file", ErrCorrupt, name, bucketMeta)
		}
		return 0, nil
	}
	raw := meta.Get([]byte(keySchema))
	version, err := strconv.Atoi(string(raw))
	if err != nil || version < 1 {
		return 0, fmt.Errorf("%w: schema version is %q", ErrCorrupt, raw)
	}
	return version, nil
}
