// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
)

const (
	keyHead = "events_head"
	// eventBatch is how many events one read transaction hands out: enough to be quick, few enough that a slow
	// consumer never pins old pages of the file.
	eventBatch = 256
)

// Event is one line of the audit trail, and one leaf of its tree: who did what to which job, and why (docs/spec/audit.md section 1).
// Seq, Prev, From, To, the mark (Stream, Epoch, Number) and a zero Time are the journal's to fill in.
type Event struct {
	Seq     uint64    `json:"seq"`               // 1, 2, 3, ... without a gap
	Time    time.Time `json:"time"`              // UTC
	Actor   string    `json:"actor"`             // a stage, an officer, a key id
	Action  string    `json:"action"`            // "mirrored -> gated", "stop", ...
	Job     string    `json:"job,omitempty"`     // job id
	Release string    `json:"release,omitempty"` // release id
	From    string    `json:"from,omitempty"`    // the state that the job left; "" with To: the job is new
	To      string    `json:"to,omitempty"`      // the state that it reached; "" : it did not move
	Stream  string    `json:"stream,omitempty"`  // the stream whose high-water mark rose to (Epoch, Number), else ""
	Epoch   int64     `json:"epoch,omitempty"`   //
	Number  int64     `json:"number,omitempty"`  // the release's seq in its stream
	Officer string    `json:"officer,omitempty"` // who decided
	Key     string    `json:"key,omitempty"`     // id of the key that signed what the event is about
	Digest  string    `json:"digest,omitempty"`  // hex SHA-256 of the object that the event is about
	Detail  string    `json:"detail,omitempty"`  // in words
	Prev    string    `json:"prev"`              // hex SHA-256 of the stored bytes of event Seq-1; "" for the first
}

// Head names the end of the audit trail: the number of events and the hex SHA-256 of the last one ("" when there
// is none). A head that was copied elsewhere proves every event up to it.
type Head struct {
	Seq    uint64 `json:"seq"`
	SHA256 string `json:"sha256"`
}

// Append adds one event to the audit trail. Seq and Prev are set here; Time is set if it is zero.
func (j *Journal) Append(event Event) error {
	return j.update(func(tx *bolt.Tx) error { return j.appendEvent(tx, event) })
}

// Head returns the end of the audit trail as the journal recorded it.
func (j *Journal) Head() (head Head, err error) {
	err = j.db.View(func(tx *bolt.Tx) error {
		head, err = loadHead(tx)
		return err
	})
	return head, err
}

// Events calls fn for each event with Seq >= from, in order, until fn returns an error. fn runs outside of any
// transaction and may use the journal; events appended meanwhile are seen too. The chain is not
// checked here: see [Journal.VerifyEvents].
func (j *Journal) Events(from uint64, fn func(Event) error) error {
	for {
		batch, err := j.readEvents(from)
		if err != nil || len(batch) == 0 {
			return err
		}
		for _, e := range batch {
			if err := fn(e); err != nil {
				return err
			}
		}
		from = batch[len(batch)-1].Seq + 1
	}
}

// VerifyEvents proves the audit trail: no event missing, none altered, none added, up to the recorded head. The
// error is [ErrTampered] and names the first event that is wrong.
func (j *Journal) VerifyEvents() error {
	return j.db.View(func(tx *bolt.Tx) error {
		stored := walkTree(tx)
		return walkChain(tx, stored.leaf, stored.end)
	})
}

// walkChain checks the chain of all events up to the recorded head, hands each to leaf, and calls end after the last.
func walkChain(tx *bolt.Tx, leaf func(seq uint64, raw []byte) error, end func() error) error {
	var last Head
	c := tx.Bucket([]byte(bucketEvents)).Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if err := verifyLink(k, v, last); err != nil {
			return err
		}
		last = headOf(last.Seq+1, v)
		if err := leaf(last.Seq, v); err != nil {
			return err
		}
	}
	head, err := loadHead(tx)
	if err != nil {
		return err
	}
	if head != last {
		return fmt.Errorf("%w: trail ends at event %d (%s), its head says event %d (%s)",
			ErrTampered, last.Seq, last.SHA256, head.Seq, head.SHA256)
	}
	return end()
}

// verifyLink checks one stored event against the one before it.
func verifyLink(key, value []byte, last Head) error {
	e, err := decodeEvent(key, value)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTampered, err)
	}
	if e.Seq != last.Seq+1 {
		return fmt.Errorf("%w: event %d is followed by event %d", ErrTampered, last.Seq, e.Seq)
	}
	if e.Prev != last.SHA256 {
		return fmt.Errorf("%w: event %d is not what event %d was chained to", ErrTampered, last.Seq, e.Seq)
	}
	return nil
}

// appendEvent chains an event to the last one. It looks at the last one itself, so that nothing is ever chained to
// a tail that was altered.
func (j *Journal) appendEvent(tx *bolt.Tx, e Event) error {
	events := tx.Bucket([]byte(bucketEvents))
	head, err := loadHead(tx)
	if err != nil {
		return err
	}
	if k, v := events.Cursor().Last(); k != nil || head.Seq != 0 {
		if len(k) != 8 || headOf(binary.BigEndian.Uint64(k), v) != head {
			return fmt.Errorf("%w: its last event is not event %d of its head: nothing can be appended", ErrTampered, head.Seq)
		}
	}
	e.Seq, e.Prev = head.Seq+1, head.SHA256
	if e.Time.IsZero() {
		e.Time = j.clock()
	}
	raw, err := e.Encode()
	if err != nil {
		return fmt.Errorf("append event %d: %w", e.Seq, err)
	}
	if err := events.Put(eventKey(e.Seq), raw); err != nil {
		return fmt.Errorf("append event %d: %w", e.Seq, err)
	}
	if err := growTree(tx, e.Seq, raw); err != nil {
		return err
	}
	_, err = put(tx.Bucket([]byte(bucketMeta)), []byte(keyHead), headOf(e.Seq, raw), maxEvent)
	return err
}

func (j *Journal) readEvents(from uint64) (batch []Event, err error) {
	err = j.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket([]byte(bucketEvents)).Cursor()
		for k, v := c.Seek(eventKey(from)); k != nil && len(batch) < eventBatch; k, v = c.Next() {
			e, err := decodeEvent(k, v)
			if err != nil {
				return err
			}
			batch = append(batch, e)
		}
		return nil
	})
	return batch, err
}

func decodeEvent(key, value []byte) (Event, error) {
	var e Event
	if len(key) != 8 {
		return Event{}, fmt.Errorf("%w: event key of %d bytes, want 8", ErrCorrupt, len(key))
	}
	seq := binary.BigEndian.Uint64(key)
	if err := decode(value, &e); err != nil {
		return Event{}, fmt.Errorf("%w: event %d: %w", ErrCorrupt, seq, err)
	}
	if e.Seq != seq {
		return Event{}, fmt.Errorf("%w: event %d is stored as %d", ErrCorrupt, e.Seq, seq)
	}
	return e, nil
}

func loadHead(tx *bolt.Tx) (head Head, err error) {
	raw := tx.Bucket([]byte(bucketMeta)).Get([]byte(keyHead))
	if raw == nil {
		return Head{}, nil
	}
	if err := decode(raw, &head); err != nil {
		return Head{}, fmt.Errorf("%w: head of the audit trail: %w", ErrTampered, err)
	}
	return head, nil
}

func headOf(seq uint64, raw []byte) Head {
	sum := sha256.Sum256(raw)
	return Head{Seq: seq, SHA256: hex.EncodeToString(sum[:])}
}

func eventKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(nil, seq) }

// describe fills in what the caller of a transition left out, and what is not the caller's to say.
func describe(e Event, job Job, from string) Event {
	e.Job = cmp.Or(e.Job, job.ID)
	e.Release = cmp.Or(e.Release, job.Release)
	e.Action = cmp.Or(e.Action, from+" -> "+job.State)
	e.From, e.To = from, job.State
	return e
}
