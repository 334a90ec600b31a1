// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"sluice/internal/journal"
)

const (
	proofHeader = "c2sp.org/tlog-proof@v1"
	// maxHashes is the height of the highest tree that C2SP knows.
	maxHashes = 63
	// maxProof caps a proof text: an event in base64, hashes, checkpoint.
	maxProof = 256 << 10
)

// Proof says that an event is in the tree of a checkpoint (C2SP tlog-proof).
type Proof struct {
	Raw        []byte // the event as it was hashed; it stands in the extra line
	Event      journal.Event
	Checkpoint Checkpoint

	index  int64
	hashes tlog.RecordProof
	note   []byte
}

// FormatProof writes the text. The extra line carries the event, so that the proof can be checked without the log.
func FormatProof(raw []byte, index int64, hashes tlog.RecordProof, checkpoint []byte) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\nextra %s\nindex %d\n", proofHeader, base64.StdEncoding.EncodeToString(raw), index)
	writeHashes(&b, hashes)
	b.WriteByte('\n')
	b.Write(checkpoint)
	return b.Bytes()
}

func writeHashes(b *bytes.Buffer, hashes []tlog.Hash) {
	for _, h := range hashes {
		b.WriteString(h.String() + "\n")
	}
}

// ParseProof reads a proof and checks nothing of it but its form. The error is [ErrFormat].
func ParseProof(text []byte) (*Proof, error) {
	if len(text) > maxProof {
		return nil, fmt.Errorf("%w: a proof of %d bytes, at most %d", ErrFormat, len(text), maxProof)
	}
	head, checkpoint, ok := strings.Cut(string(text), "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || len(lines) < 3 || lines[0] != proofHeader {
		return nil, fmt.Errorf("%w: not a proof: it begins with the line %s, and has an empty line before its checkpoint", ErrFormat, proofHeader)
	}
	p := &Proof{note: []byte(checkpoint)}
	extra, ok := strings.CutPrefix(lines[1], "extra ")
	raw, err := base64.StdEncoding.Strict().DecodeString(extra)
	if !ok || err != nil || base64.StdEncoding.EncodeToString(raw) != extra || len(raw) > journal.MaxEvent {
		return nil, fmt.Errorf("%w: line 2 of a proof is extra and the event in base64", ErrFormat)
	}
	p.Raw = raw
	index, ok := strings.CutPrefix(lines[2], "index ")
	if p.index, err = strconv.ParseInt(index, 10, 64); !ok || err != nil || p.index < 0 || strconv.FormatInt(p.index, 10) != index {
		return nil, fmt.Errorf("%w: line 3 of a proof is index and a plain decimal number", ErrFormat)
	}
	p.hashes, err = parseHashes(lines[3:])
	return p, err
}

func parseHashes(lines []string) (out []tlog.Hash, err error) {
	if len(lines) > maxHashes {
		return nil, fmt.Errorf("%w: %d hashes in a proof, at most %d", ErrFormat, len(lines), maxHashes)
	}
	for i, line := range lines {
		h, err := parseHash(line)
		if err != nil {
			return nil, fmt.Errorf("%w: hash %d of a proof: %w", ErrFormat, i+1, err)
		}
		out = append(out, h)
	}
	return out, nil
}

// VerifyProof reads a proof, checks the signature of its checkpoint, and that the event it brings is the leaf at its index. Errors: [ErrFormat],
// [ErrSignature], [ErrTampered]. What the event says (of which release it is) is for the caller to hold against what it wanted proved.
func VerifyProof(text []byte, key *Key) (*Proof, error) {
	p, err := ParseProof(text)
	if err != nil {
		return nil, err
	}
	if p.Checkpoint, err = OpenCheckpoint(p.note, key); err != nil {
		return nil, err
	}
	if err := tlog.CheckRecord(p.hashes, p.Checkpoint.Size, p.Checkpoint.Root, p.index, tlog.RecordHash(p.Raw)); err != nil {
		return nil, fmt.Errorf("%w: the event of the proof is not event %d of %s with %d events: the event, the hashes or the index were changed",
			ErrTampered, p.index+1, p.Checkpoint.Origin, p.Checkpoint.Size)
	}
	// The signed tree vouches for these bytes, be they of a journal of before.
	if p.Event, err = journal.ParseEvent(p.Raw, true); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTampered, err)
	}
	if p.Event.Seq != uint64(p.index)+1 {
		return nil, fmt.Errorf("%w: the proof is for index %d, its event says it is event %d", ErrTampered, p.index, p.Event.Seq)
	}
	return p, nil
}

// Consistency is a checkpoint with the proof that it continues the log of an older size: the body of C2SP tlog-witness add-checkpoint, and what a
// heartbeat carries. Old is 0, without hashes, where no older size is known.
type Consistency struct {
	Old  int64
	Note []byte

	hashes tlog.TreeProof
}

// Format writes the text.
func (c *Consistency) Format() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "old %d\n", c.Old)
	writeHashes(&b, c.hashes)
	b.WriteByte('\n')
	b.Write(c.Note)
	return b.Bytes()
}

// ParseConsistency reads the text and checks nothing of it but its form. The error is [ErrFormat].
func ParseConsistency(text []byte) (*Consistency, error) {
	if len(text) > maxProof {
		return nil, fmt.Errorf("%w: a consistency proof of %d bytes, at most %d", ErrFormat, len(text), maxProof)
	}
	head, checkpoint, ok := strings.Cut(string(text), "\n\n")
	lines := strings.Split(head, "\n")
	old, isOld := strings.CutPrefix(lines[0], "old ")
	if !ok || !isOld {
		return nil, fmt.Errorf("%w: not a consistency proof: it begins with the line old SIZE, and has an empty line before its checkpoint", ErrFormat)
	}
	c := &Consistency{Note: []byte(checkpoint)}
	if old != "0" {
		n, err := parseSize(old)
		if err != nil {
			return nil, fmt.Errorf("%w: old size: %w", ErrFormat, err)
		}
		c.Old = n
	}
	var err error
	if c.hashes, err = parseHashes(lines[1:]); err == nil && c.Old == 0 && len(c.hashes) > 0 {
		err = fmt.Errorf("%w: a proof from size 0 has no hashes", ErrFormat)
	}
	return c, err
}

// Check verifies that the checkpoint of size and root continues the older one. Size 0 is refused: it proves nothing.
func (c *Consistency) check(older, newer Checkpoint) error {
	if c.Old < 1 || c.Old != older.Size {
		return fmt.Errorf("%w: the proof is from size %d, not from %d", ErrGap, c.Old, older.Size)
	}
	if err := tlog.CheckTree(c.hashes, newer.Size, newer.Root, older.Size, older.Root); err != nil {
		return fmt.Errorf("%w: %s with %d events does not continue the log of %d events that was seen before: it was rewritten, or forked",
			ErrFork, newer.Origin, newer.Size, older.Size)
	}
	return nil
}

var (
	// ErrFork says that two checkpoints signed by one log cannot both be true. Keep both texts, and call a person: one log was rewritten, or
	// shows different things to different people.
	ErrFork = errors.New("audit: the log forked")
	// ErrBehind says that a checkpoint is older than the last one: late, or played back. By itself it is no fork.
	ErrBehind = errors.New("audit: the checkpoint is older than the last one seen")
	// ErrGap says that a proof does not begin where the witness stands, so that nothing can be said. A later one may.
	ErrGap = errors.New("audit: the consistency proof begins elsewhere")
)

// Witness remembers the last checkpoint of another log, and takes a newer one only with a proof that it continues it. It is not safe for
// concurrent use.
type Witness struct {
	origin string
	key    *Key
	last   Checkpoint // Size 0: none
	note   []byte
}

// NewWitness takes up the state that [Witness.Note] gave; nil is none. A state that does not verify is an error: it was changed.
func NewWitness(origin string, key *Key, state []byte) (*Witness, error) {
	w := &Witness{origin: origin, key: key}
	if state == nil {
		return w, nil
	}
	c, err := OpenCheckpoint(state, key)
	if err != nil {
		return nil, fmt.Errorf("state of the witness of %s: %w", origin, err)
	}
	if c.Origin != origin {
		return nil, fmt.Errorf("%w: the state of the witness of %s is a checkpoint of %s", ErrTampered, origin, c.Origin)
	}
	w.last, w.note = c, state
	return w, nil
}

// Last is the last checkpoint; its Size is 0 when none was seen.
func (w *Witness) Last() Checkpoint { return w.last }

// Note is the signed text of the last checkpoint, to be kept as the witness's state; nil when none was seen.
func (w *Witness) Note() []byte { return w.note }

// Update judges the text of a [Consistency]. news says that the witness moved on, so that its Note is to be kept. The first checkpoint is believed:
// there is nothing to hold it against. Errors: [ErrFormat], [ErrSignature], [ErrFork], [ErrBehind], [ErrGap]; the witness stays where it was.
func (w *Witness) Update(text []byte) (news bool, err error) {
	c, err := ParseConsistency(text)
	if err != nil {
		return false, err
	}
	now, err := OpenCheckpoint(c.Note, w.key)
	if err != nil {
		return false, err
	}
	switch {
	case now.Origin != w.origin:
		return false, fmt.Errorf("%w: a checkpoint of %s came where one of %s was due", ErrSignature, now.Origin, w.origin)
	case w.last.Size == 0:
	case now.Size == w.last.Size && now.Root != w.last.Root:
		return false, fmt.Errorf("%w: %s signed two trees of %d events", ErrFork, now.Origin, now.Size)
	case now.Size == w.last.Size:
		return false, nil
	case now.Size < w.last.Size:
		return false, fmt.Errorf("%w: %d events, %d were seen of %s", ErrBehind, now.Size, w.last.Size, now.Origin)
	default:
		if err := c.check(w.last, now); err != nil {
			return false, err
		}
	}
	w.last, w.note = now, c.Note
	return true, nil
}
