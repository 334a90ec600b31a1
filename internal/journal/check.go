// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"runtime/debug"

	bolt "go.etcd.io/bbolt"
)

// maxFindings is how many errors of one kind Check reports: a broken file has thousands, a person reads ten.
const maxFindings = 10

// Check judges the whole file: the audit trail, every job in a known state under its own key, every mark readable, and
// bbolt's own page check. It returns all it found, joined; nil is a clean bill. It changes nothing, it reads everything, and
// writers wait for it.
//
// A damaged file can contain pages on which bbolt itself loops or dies, though a fault in what we walk is caught: a tool
// that judges files after a disaster should do it in a process of its own.
func (j *Journal) Check() error {
	// Ours first: bbolt checks pages in a goroutine where a fault cannot be caught, and an impossible page number in one of
	// our buckets shows here already.
	var inhabitants error
	walked := guard(func() error {
		inhabitants = errors.Join(j.checkJobs(), j.checkMarks(), j.VerifyEvents())
		return nil
	})
	if walked != nil {
		return walked
	}
	return errors.Join(inhabitants, guard(j.checkPages))
}

// checkPages runs inside a writing transaction that is rolled back: bbolt's checker is not safe beside a writer.
func (j *Journal) checkPages() error {
	tx, err := j.db.Begin(!j.db.IsReadOnly())
	if err != nil {
		return fmt.Errorf("check journal: %w", err)
	}
	var found []error
	for e := range tx.Check() { // drained to its end: the checker blocks on the channel
		if len(found) < maxFindings {
			found = append(found, fmt.Errorf("%w: %w", ErrCorrupt, e))
		}
	}
	return errors.Join(append(found, tx.Rollback())...)
}

func (j *Journal) checkJobs() error {
	var found []error
	err := j.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucketJobs)).ForEach(func(k, v []byte) error {
			job, err := decodeJob(k, v)
			if err == nil && len(j.state) > 0 && !j.state[job.State] {
				err = fmt.Errorf("%w: job %q is in the unknown state %q", ErrCorrupt, job.ID, job.State)
			}
			if err != nil && len(found) < maxFindings {
				found = append(found, err)
			}
			return nil
		})
	})
	return errors.Join(append(found, err)...)
}

func (j *Journal) checkMarks() error {
	_, err := j.Marks()
	return err
}

// guard turns a panic of bbolt on impossible pages, and a fault on an impossible offset in its memory map, into [ErrCorrupt]: the
// one who judges a broken file must survive it.
func guard(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: bbolt gave up on it: %v", ErrCorrupt, r)
		}
	}()
	return fn()
}
