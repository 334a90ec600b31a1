// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"strings"

	bolt "go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"
	"golang.org/x/text/unicode/norm"

	"sluice/internal/merkle"
)

const (
	// StateDeleted is what an event says a job came to that was removed from the journal. It is no state of Options.States.
	StateDeleted = "DELETED"
	// ActionLogBegins is the action of the event with which the tree of an older journal begins: the events before it were written
	// without a tree, and without From and To.
	ActionLogBegins = "log begins"
	// maxSafeInt is the largest integer of the formats (docs/spec/envelope.md section 3): beyond it another reader may round.
	maxSafeInt = 1<<53 - 1
	// maxWitness caps what is kept of another log: a checkpoint with its signatures (docs/spec/audit.md section 3).
	maxWitness = 64 << 10
)

// Encode gives the bytes of an event as they are stored, hashed and exported: strict canonical JSON (docs/spec/audit.md section 1). Text that
// is no UTF-8 in Normalization Form C is made so, for it would not survive a second encoding. [ErrInvalid] when that is over the cap.
func (e Event) Encode() ([]byte, error) {
	e.Time = e.Time.UTC().Round(0)
	for _, s := range []*string{&e.Actor, &e.Action, &e.Job, &e.Release, &e.From, &e.To, &e.Stream, &e.Officer, &e.Key, &e.Digest, &e.Detail, &e.Prev} {
		*s = norm.NFC.String(strings.ToValidUTF8(*s, "\uFFFD"))
	}
	if e.Seq > maxSafeInt || min(e.Epoch, e.Number) < 0 || max(e.Epoch, e.Number) > maxSafeInt {
		return nil, fmt.Errorf("%w: event %d has a number that is not from 0 to 2^53-1", ErrInvalid, e.Seq)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return nil, fmt.Errorf("%w: encode event: %w", ErrInvalid, err)
	}
	raw := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	if len(raw) > maxEvent {
		return nil, fmt.Errorf("%w: the event takes %d bytes, at most %d: keep bodies in files", ErrInvalid, len(raw), maxEvent)
	}
	return raw, nil
}

// ParseEvent reads an event as it is stored and exported. It wants the canonical form, and all fields known: two texts never mean one
// event. legacy takes the form of journals without a tree, whose text was escaped in other ways too. The error is [ErrCorrupt].
func ParseEvent(raw []byte, legacy bool) (Event, error) {
	var e Event
	if len(raw) > maxEvent {
		return e, fmt.Errorf("%w: an event of %d bytes, at most %d", ErrCorrupt, len(raw), maxEvent)
	}
	// Whatever decodes loosely and encodes to the same bytes is strict; the strict decoder, which is slower, says what is wrong otherwise.
	if json.Unmarshal(raw, &e) == nil {
		if again, err := e.Encode(); err == nil && bytes.Equal(raw, again) {
			return e, nil
		}
	}
	e = Event{}
	if err := decode(raw, &e); err != nil {
		return e, fmt.Errorf("%w: event: %w", ErrCorrupt, err)
	}
	if !legacy {
		return e, fmt.Errorf("%w: event %d is not in the canonical form: it would be encoded in other bytes", ErrCorrupt, e.Seq)
	}
	return e, nil
}

// MaxEvent is the cap on the bytes of one event.
const MaxEvent = maxEvent

// growTree stores the hashes that the event of a number completes.
func growTree(tx *bolt.Tx, seq uint64, raw []byte) error {
	n := int64(seq) - 1
	tree := tx.Bucket([]byte(bucketTree))
	first := tlog.StoredHashCount(n)
	if k, _ := tree.Cursor().Last(); first > 0 && (len(k) != 8 || binary.BigEndian.Uint64(k) != uint64(first)-1) {
		return fmt.Errorf("%w: the tree does not end where event %d ends: nothing can be appended", ErrTampered, n)
	}
	hashes, err := tlog.StoredHashes(n, raw, treeReader(tx))
	if err != nil {
		return fmt.Errorf("append event %d to the tree: %w", seq, err)
	}
	return putHashes(tree, first, hashes)
}

func putHashes(tree *bolt.Bucket, at int64, hashes []tlog.Hash) error {
	for i, h := range hashes {
		if err := tree.Put(eventKey(uint64(at+int64(i))), h[:]); err != nil {
			return fmt.Errorf("tree: %w", err)
		}
	}
	return nil
}

// treeReader reads stored hashes. One that is missing, or has another length, is [ErrTampered].
func treeReader(tx *bolt.Tx) tlog.HashReader {
	tree := tx.Bucket([]byte(bucketTree))
	return tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(at))
		for i, index := range at {
			raw := tree.Get(eventKey(uint64(index)))
			if len(raw) != tlog.HashSize {
				return nil, fmt.Errorf("%w: hash %d of the tree has %d bytes", ErrTampered, index, len(raw))
			}
			out[i] = tlog.Hash(raw)
		}
		return out, nil
	})
}

// plantTree is the migration: it proves the chain of a journal of before, hashes every event once, and says in the trail where the
// tree begins.
func (j *Journal) plantTree(tx *bolt.Tx) error {
	for _, name := range []string{bucketTree, bucketWitness} {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return fmt.Errorf("create bucket %s: %w", name, err)
		}
	}
	var f merkle.Frontier
	tree := tx.Bucket([]byte(bucketTree))
	err := walkChain(tx, func(_ uint64, raw []byte) error {
		at := tlog.StoredHashCount(f.Size())
		return putHashes(tree, at, f.Append(tlog.RecordHash(raw)))
	}, func() error { return nil })
	if err != nil || f.Size() == 0 {
		return err
	}
	said := fmt.Sprintf("%d events of before; their chain was checked", f.Size())
	return j.appendEvent(tx, Event{Actor: "journal", Action: ActionLogBegins, Detail: said})
}

// treeWalk holds the stored hashes against the events, one after the other: every stored hash is looked at once.
type treeWalk struct {
	frontier merkle.Frontier
	cursor   *bolt.Cursor
	k, v     []byte
	at       int64 // the index that should come next
}

func walkTree(tx *bolt.Tx) *treeWalk {
	w := &treeWalk{cursor: tx.Bucket([]byte(bucketTree)).Cursor()}
	w.k, w.v = w.cursor.First()
	return w
}

func (w *treeWalk) leaf(seq uint64, raw []byte) error {
	for _, h := range w.frontier.Append(tlog.RecordHash(raw)) {
		if !bytes.Equal(w.k, eventKey(uint64(w.at))) || !bytes.Equal(w.v, h[:]) {
			return fmt.Errorf("%w: event %d is not what hash %d of the tree was computed from", ErrTampered, seq, w.at)
		}
		w.at++
		w.k, w.v = w.cursor.Next()
	}
	return nil
}

func (w *treeWalk) end() error {
	if w.k != nil {
		return fmt.Errorf("%w: the tree has hashes beyond event %d", ErrTampered, w.frontier.Size())
	}
	return nil
}

// Tree gives the number of events and the root hash of the tree over them (RFC 6962).
func (j *Journal) Tree() (size int64, root tlog.Hash, err error) {
	err = j.db.View(func(tx *bolt.Tx) error {
		head, err := loadHead(tx)
		if err != nil {
			return err
		}
		size = int64(head.Seq)
		root, err = tlog.TreeHash(size, treeReader(tx))
		return err
	})
	return size, root, err
}

// ProveEvent proves that the event of a number is in the tree of the first size events (RFC 6962 section 2.1.1), and gives its bytes.
// [ErrNotFound] when there is no such event in that tree.
func (j *Journal) ProveEvent(size int64, seq uint64) (raw []byte, proof tlog.RecordProof, err error) {
	err = j.db.View(func(tx *bolt.Tx) error {
		raw = bytes.Clone(tx.Bucket([]byte(bucketEvents)).Get(eventKey(seq)))
		if raw == nil || seq == 0 || seq > uint64(max(size, 0)) {
			return fmt.Errorf("%w: event %d in a tree of %d", ErrNotFound, seq, size)
		}
		proof, err = tlog.ProveRecord(size, int64(seq)-1, treeReader(tx))
		return err
	})
	return raw, proof, err
}

// ProveConsistency proves that the tree of the first size events continues that of the first old (RFC 6962 section 2.1.2). old must be 1 to
// size, else [ErrInvalid]: everything is consistent with an empty tree, which proves nothing.
func (j *Journal) ProveConsistency(old, size int64) (proof tlog.TreeProof, err error) {
	err = j.db.View(func(tx *bolt.Tx) error {
		head, err := loadHead(tx)
		if err != nil {
			return err
		}
		if old < 1 || old > size || uint64(size) > head.Seq {
			return fmt.Errorf("%w: consistency of %d with %d events; the log has %d", ErrInvalid, size, old, head.Seq)
		}
		proof, err = tlog.ProveTree(size, old, treeReader(tx))
		return err
	})
	return proof, err
}

// RawEvents calls fn with the bytes of the events from to to, both included, as they were hashed, until fn returns an error. They are fn's to
// keep; it runs outside of any transaction.
func (j *Journal) RawEvents(from, to uint64, fn func(raw []byte) error) error {
	for from = max(from, 1); from <= to; {
		batch, err := j.readRaw(from, to)
		if err != nil || len(batch) == 0 {
			return err
		}
		for _, raw := range batch {
			if err := fn(raw); err != nil {
				return err
			}
		}
		from += uint64(len(batch))
	}
	return nil
}

func (j *Journal) readRaw(from, to uint64) (batch [][]byte, err error) {
	err = j.db.View(func(tx *bolt.Tx) error {
		c := tx.Bucket([]byte(bucketEvents)).Cursor()
		want := from
		for k, v := c.Seek(eventKey(from)); k != nil && want <= to && len(batch) < eventBatch; k, v = c.Next() {
			if !bytes.Equal(k, eventKey(want)) {
				return fmt.Errorf("%w: event %d is missing", ErrTampered, want)
			}
			batch, want = append(batch, bytes.Clone(v)), want+1
		}
		return nil
	})
	return batch, err
}

// Witness gives what was kept of another log by [Journal.SetWitness]; nil when nothing was.
func (j *Journal) Witness(origin string) (note []byte, err error) {
	err = j.db.View(func(tx *bolt.Tx) error {
		note = bytes.Clone(tx.Bucket([]byte(bucketWitness)).Get([]byte(origin)))
		return nil
	})
	return note, err
}

// SetWitness keeps the last checkpoint that was seen of another log. Whether it may follow the one before is for internal/audit to judge.
// No event is appended unless it has an action: a heartbeat a minute would drown the trail.
func (j *Journal) SetWitness(origin string, note []byte, event Event) error {
	if origin == "" || len(origin) > maxID || len(note) > maxWitness {
		return fmt.Errorf("%w: witness of an origin of %d bytes with a note of %d", ErrInvalid, len(origin), len(note))
	}
	return j.update(func(tx *bolt.Tx) error {
		if err := tx.Bucket([]byte(bucketWitness)).Put([]byte(origin), note); err != nil || event.Action == "" {
			return err
		}
		return j.appendEvent(tx, event)
	})
}
