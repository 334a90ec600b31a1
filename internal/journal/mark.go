// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"cmp"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// Mark is the newest release of a stream that was ever accepted. Epoch and Seq are compared lexicographically
// (docs/spec/envelope.md) and lie in [0, 2^53).
type Mark struct {
	Epoch   int64  `json:"epoch"`
	Seq     int64  `json:"seq"`
	Release string `json:"release"` // release id, for people and for prev
}

// Compare orders marks by (Epoch, Seq): -1, 0 or +1.
func (m Mark) Compare(o Mark) int {
	return cmp.Or(cmp.Compare(m.Epoch, o.Epoch), cmp.Compare(m.Seq, o.Seq))
}

// HighWater returns the mark of a stream, and whether there is one.
func (j *Journal) HighWater(stream string) (m Mark, ok bool, err error) {
	err = j.db.View(func(tx *bolt.Tx) error {
		m, ok, err = loadMark(tx, stream)
		return err
	})
	return m, ok, err
}

// Marks returns the mark of every stream.
func (j *Journal) Marks() (map[string]Mark, error) {
	marks := map[string]Mark{}
	err := j.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(bucketStreams)).ForEach(func(k, v []byte) error {
			m, err := decodeMark(string(k), v)
			marks[string(k)] = m
			return err
		})
	})
	return marks, err
}

// AdvanceMark raises the mark of a stream. The same (epoch, seq) again, or less, is [ErrRollback]: a release is accepted
// once. To move a job together with its mark use [Journal.AdvanceWithMark]. No event is appended: an audit sees the marks that jobs raised.
func (j *Journal) AdvanceMark(stream string, m Mark) error {
	return j.update(func(tx *bolt.Tx) error { return raiseMark(tx, stream, m) })
}

func raiseMark(tx *bolt.Tx, stream string, m Mark) error {
	if stream == "" || len(stream) > maxID {
		return fmt.Errorf("%w: stream name of %d bytes, want 1 to %d", ErrInvalid, len(stream), maxID)
	}
	if !inRange(m.Epoch) || !inRange(m.Seq) {
		return fmt.Errorf("%w: stream %q: epoch %d, seq %d: want 0 to 2^53-1", ErrInvalid, stream, m.Epoch, m.Seq)
	}
	old, ok, err := loadMark(tx, stream)
	if err != nil {
		return err
	}
	if ok && m.Compare(old) <= 0 {
		return fmt.Errorf("%w: stream %q stands at epoch %d, seq %d (%s); offered epoch %d, seq %d (%s)",
			ErrRollback, stream, old.Epoch, old.Seq, old.Release, m.Epoch, m.Seq, m.Release)
	}
	_, err = put(tx.Bucket([]byte(bucketStreams)), []byte(stream), m, maxEvent)
	return err
}

func loadMark(tx *bolt.Tx, stream string) (Mark, bool, error) {
	raw := tx.Bucket([]byte(bucketStreams)).Get([]byte(stream))
	if raw == nil {
		return Mark{}, false, nil
	}
	m, err := decodeMark(stream, raw)
	return m, err == nil, err
}

func decodeMark(stream string, raw []byte) (Mark, error) {
	var m Mark
	if err := decode(raw, &m); err != nil {
		return Mark{}, fmt.Errorf("%w: mark of stream %q: %w", ErrCorrupt, stream, err)
	}
	if !inRange(m.Epoch) || !inRange(m.Seq) {
		return Mark{}, fmt.Errorf("%w: mark of stream %q: epoch %d, seq %d", ErrCorrupt, stream, m.Epoch, m.Seq)
	}
	return m, nil
}

func inRange(n int64) bool { return n >= 0 && n < maxNumber }
