// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Job is one release on its way through one daemon. The journal owns ID, State, Created and Updated; the rest
// belongs to the stages.
type Job struct {
	ID        string          `json:"id"`                   // key, chosen by the caller, at most 512 bytes
	State     string          `json:"state"`                // one of Options.States
	Kind      string          `json:"kind,omitempty"`       // model-weights, trust-update, ...
	Stream    string          `json:"stream,omitempty"`     // what the high-water mark belongs to
	Name      string          `json:"name,omitempty"`       // org/model
	Release   string          `json:"release,omitempty"`    // release id: digest of the statement
	Epoch     int64           `json:"epoch,omitempty"`      // with Seq, lexicographic
	Seq       int64           `json:"seq,omitempty"`        //
	Created   time.Time       `json:"created"`              // UTC, set by Create when zero
	Updated   time.Time       `json:"updated"`              // UTC, set by every write
	NotBefore time.Time       `json:"not_before,omitzero"`  // hold time or back-off; zero is at once
	Attempts  int             `json:"attempts,omitempty"`   // tries in this state; the stages count
	LastError string          `json:"last_error,omitempty"` // for a person; never parsed
	Data      json.RawMessage `json:"data,omitempty"`       // the stages' own record, valid JSON or empty
}

// Create stores a new job and appends event, filled in as by [Journal.Advance], in one transaction. The job's state must be one of
// Options.States. Errors: [ErrExists], [ErrInvalid], [ErrTampered].
func (j *Journal) Create(job Job, event Event) error {
	if err := j.checkJob(job); err != nil {
		return err
	}
	return j.update(func(tx *bolt.Tx) error {
		jobs := tx.Bucket([]byte(bucketJobs))
		if jobs.Get([]byte(job.ID)) != nil {
			return fmt.Errorf("%w: %q", ErrExists, job.ID)
		}
		if job.Created.IsZero() {
			job.Created = j.clock()
		}
		if _, err := j.store(jobs, job); err != nil {
			return err
		}
		event.Action = cmp.Or(event.Action, "create")
		return j.appendEvent(tx, describe(event, job, ""))
	})
}

// Get returns one job, or [ErrNotFound].
func (j *Journal) Get(id string) (job Job, err error) {
	err = j.db.View(func(tx *bolt.Tx) error {
		job, err = load(tx.Bucket([]byte(bucketJobs)), id)
		return err
	})
	return job, err
}

// List returns the jobs that filter keeps (nil keeps all), ordered by Created, then ID. filter runs inside a read
// transaction: it must not call the journal.
func (j *Journal) List(filter func(Job) bool) ([]Job, error) {
	var jobs []Job
	err := j.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucketJobs)).ForEach(func(k, v []byte) error {
			job, err := decodeJob(k, v)
			if err == nil && (filter == nil || filter(job)) {
				jobs = append(jobs, job)
			}
			return err
		})
	})
	slices.SortFunc(jobs, func(a, b Job) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return jobs, err
}

// Due returns the jobs in one of states (none given: in any) whose NotBefore is not after now, in List's order.
func (j *Journal) Due(now time.Time, states ...string) ([]Job, error) {
	return j.List(func(job Job) bool {
		return !job.NotBefore.After(now) && (len(states) == 0 || slices.Contains(states, job.State))
	})
}

// Advance moves a job from one state to another, applies mutate (which may be nil) and appends event, in one
// transaction. Empty fields of event are filled in: Job, Release, and Action as "from -> to".
//
// mutate runs inside the transaction: it must be quick, must not call the journal, and may not touch ID, State or
// Created; its error undoes everything. Attempts, LastError and NotBefore are kept unless mutate clears them.
// The returned job is what was stored. Errors: [ErrNotFound], [ErrTransition], [ErrInvalid], [ErrTampered], mutate's own.
func (j *Journal) Advance(id, from, to string, mutate func(*Job) error, event Event) (Job, error) {
	return j.advance(id, from, to, mutate, event, nil)
}

// AdvanceWithMark is [Journal.Advance] that also raises the high-water mark of the job's stream to the job's (Epoch,
// Seq, Release), as they are after mutate, in the same transaction. If the mark would not grow nothing
// happens and the error is [ErrRollback].
func (j *Journal) AdvanceWithMark(id, from, to string, mutate func(*Job) error, event Event) (Job, error) {
	return j.advance(id, from, to, mutate, event, func(tx *bolt.Tx, job Job) error {
		return raiseMark(tx, job.Stream, Mark{Epoch: job.Epoch, Seq: job.Seq, Release: job.Release})
	})
}

func (j *Journal) advance(
	id, from, to string, mutate func(*Job) error, event Event, also func(*bolt.Tx, Job) error,
) (job Job, err error) {
	if !j.arrow[[2]string{from, to}] {
		return Job{}, fmt.Errorf("%w: job %q: no arrow from %q to %q", ErrTransition, id, from, to)
	}
	err = j.update(func(tx *bolt.Tx) error {
		job, err = j.change(tx, id, from, to, mutate)
		if err != nil {
			return err
		}
		if also != nil {
			if err := also(tx, job); err != nil {
				return fmt.Errorf("job %q: %w", id, err)
			}
		}
		event = describe(event, job, from)
		if also != nil {
			event.Stream, event.Epoch, event.Number = job.Stream, job.Epoch, job.Seq
		}
		return j.appendEvent(tx, event)
	})
	return settled(job, err)
}

// Touch changes a job without moving it: attempts, last error, NotBefore, Data. mutate is bound as in [Journal.Advance]. Events that are
// given are appended in the same transaction, with Job and Release filled in.
func (j *Journal) Touch(id string, mutate func(*Job) error, events ...Event) (job Job, err error) {
	err = j.update(func(tx *bolt.Tx) error {
		job, err = load(tx.Bucket([]byte(bucketJobs)), id)
		if err != nil {
			return err
		}
		job, err = j.change(tx, id, job.State, job.State, mutate)
		if err != nil {
			return err
		}
		for _, e := range events {
			e.Job, e.Release = cmp.Or(e.Job, job.ID), cmp.Or(e.Release, job.Release)
			if err := j.appendEvent(tx, e); err != nil {
				return err
			}
		}
		return nil
	})
	return settled(job, err)
}

// Delete removes a job in a final state (one without an arrow out of it), so that the journal does not grow for ever. Its
// events stay, and event, filled in as by [Journal.Advance], is added to them. Errors: [ErrNotFound], [ErrTransition].
func (j *Journal) Delete(id string, event Event) error {
	return j.update(func(tx *bolt.Tx) error {
		jobs := tx.Bucket([]byte(bucketJobs))
		job, err := load(jobs, id)
		if err != nil {
			return err
		}
		if !j.final(job.State) {
			return fmt.Errorf("%w: job %q is %q, which is not final: it cannot be deleted", ErrTransition, id, job.State)
		}
		if err := jobs.Delete([]byte(id)); err != nil {
			return err
		}
		event.Action = cmp.Or(event.Action, "delete")
		event = describe(event, job, job.State)
		event.From, event.To = job.State, StateDeleted
		return j.appendEvent(tx, event)
	})
}

// change loads a job, checks where it stands, mutates it and stores it in state to.
func (j *Journal) change(tx *bolt.Tx, id, from, to string, mutate func(*Job) error) (Job, error) {
	jobs := tx.Bucket([]byte(bucketJobs))
	before, err := load(jobs, id)
	if err != nil {
		return Job{}, err
	}
	if before.State != from {
		return Job{}, fmt.Errorf("%w: job %q is %q and not %q", ErrTransition, id, before.State, from)
	}
	job := before
	if mutate != nil {
		if err := mutate(&job); err != nil {
			return Job{}, err
		}
	}
	if job.ID != before.ID || job.State != before.State || !job.Created.Equal(before.Created) {
		return Job{}, fmt.Errorf("%w: job %q: mutate may not touch ID, State or Created", ErrInvalid, id)
	}
	job.State = to
	return j.store(jobs, job)
}

func (j *Journal) store(jobs *bolt.Bucket, job Job) (Job, error) {
	if err := j.checkJob(job); err != nil {
		return Job{}, err
	}
	job.Created = job.Created.UTC().Round(0)
	job.Updated = j.clock()
	job.NotBefore = job.NotBefore.UTC().Round(0)
	_, err := put(jobs, []byte(job.ID), job, maxJob)
	return job, err
}

func (j *Journal) checkJob(job Job) error {
	switch {
	case job.ID == "" || len(job.ID) > maxID:
		return fmt.Errorf("%w: job id of %d bytes, want 1 to %d", ErrInvalid, len(job.ID), maxID)
	case len(job.Stream) > maxID:
		return fmt.Errorf("%w: job %q: stream name of %d bytes, at most %d", ErrInvalid, job.ID, len(job.Stream), maxID)
	case !j.state[job.State]:
		return fmt.Errorf("%w: job %q: unknown state %q", ErrInvalid, job.ID, job.State)
	case !inRange(job.Epoch) || !inRange(job.Seq):
		return fmt.Errorf("%w: job %q: epoch %d, seq %d: want 0 to 2^53-1", ErrInvalid, job.ID, job.Epoch, job.Seq)
	}
	return nil
}

// final says whether no arrow leaves a known state.
func (j *Journal) final(state string) bool {
	for arrow := range j.arrow {
		if arrow[0] == state {
			return false
		}
	}
	return j.state[state]
}

func load(jobs *bolt.Bucket, id string) (Job, error) {
	raw := jobs.Get([]byte(id))
	if raw == nil {
		return Job{}, fmt.Errorf("%w: %q", ErrNotFound, id)
	}
	return decodeJob([]byte(id), raw)
}

func decodeJob(key, raw []byte) (Job, error) {
	var job Job
	if err := decode(raw, &job); err != nil {
		return Job{}, fmt.Errorf("%w: job %q: %w", ErrCorrupt, key, err)
	}
	if job.ID != string(key) {
		return Job{}, fmt.Errorf("%w: job %q is stored under %q", ErrCorrupt, job.ID, key)
	}
	return job, nil
}

// decode is strict: what this build did not write is corruption, not a curiosity.
func decode(raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	return nil
}

// settled hides a half-made job when the transaction failed, perhaps at commit.
func settled(job Job, err error) (Job, error) {
	if err != nil {
		return Job{}, err
	}
	return job, nil
}
