// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"errors"
	"fmt"

	"sluice/internal/journal"
	"sluice/internal/trust"
	"sluice/pkg/mofn"
)

// ErrNoKey says that the site has no log key, so that its log can be shown but not signed.
var ErrNoKey = errors.New("audit: this site has no log key: make one with keys generate --use sign, and name it in keys.log")

// LogKey is the private half that signs checkpoints, opened.
type LogKey struct {
	Public *Key
	signer mofn.Signer
}

// OpenKey opens the file that keys.log names. An empty name is [ErrNoKey].
func OpenKey(path string, passphrase []byte) (*LogKey, error) {
	if path == "" {
		return nil, ErrNoKey
	}
	secret, err := trust.OpenKey(path, passphrase)
	if err != nil {
		return nil, fmt.Errorf("keys.log: %w", err)
	}
	return NewLogKey(secret)
}

// NewLogKey takes a key that signs statements.
func NewLogKey(secret *mofn.SecretKey) (*LogKey, error) {
	key, err := secret.SigningKey()
	if err != nil {
		return nil, fmt.Errorf("keys.log: %w", err)
	}
	file, err := secret.MarshalPublic()
	if err != nil {
		return nil, fmt.Errorf("keys.log: %w", err)
	}
	public, err := ParseKey(file)
	if err != nil {
		return nil, err
	}
	return &LogKey{public, key}, nil
}

// Sign makes the signed note of a checkpoint.
func (k *LogKey) Sign(c Checkpoint) ([]byte, error) { return SignCheckpoint(c, k.Public, k.signer) }

// Log is a journal with the name and the key under which its events are shown to others.
type Log struct {
	Origin string
	Key    *LogKey // nil: nothing is signed
	j      *journal.Journal
}

// NewLog names the log of a journal.
func NewLog(j *journal.Journal, side, id string, key *LogKey) *Log {
	return &Log{Origin: Origin(side, id), Key: key, j: j}
}

// Head is the answer of a log to who asks how far it is.
type Head struct {
	Origin     string `json:"origin"`
	Size       int64  `json:"size"`
	Checkpoint string `json:"checkpoint,omitempty"` // the signed note; "" without a log key
	Key        string `json:"key,omitempty"`        // the public file of the log key
}

// Head signs how far the log is now. Without a key the note is missing.
func (l *Log) Head(context.Context) (Head, error) {
	size, root, err := l.j.Tree()
	h := Head{Origin: l.Origin, Size: size}
	if err != nil || l.Key == nil || size == 0 {
		return h, err
	}
	note, err := l.Key.Sign(Checkpoint{l.Origin, size, root})
	h.Checkpoint, h.Key = string(note), string(l.Key.Public.File)
	return h, err
}

// Events calls fn with the bytes of each event from and to, both included.
func (l *Log) Events(_ context.Context, from, to int64, fn func(raw []byte) error) error {
	return l.j.RawEvents(uint64(max(from, 1)), uint64(max(to, 0)), fn)
}

// Prove gives the text that proves the first size events to continue the first old ones, with a checkpoint of that size that was signed
// before: many proofs for one signature. old 0 is a beginning without proof.
func (l *Log) Prove(old, size int64, checkpoint []byte) (text []byte, err error) {
	c := &Consistency{Old: old, Note: checkpoint}
	if old > 0 {
		if c.hashes, err = l.j.ProveConsistency(old, size); err != nil {
			return nil, err
		}
	}
	return c.Format(), nil
}

// Continue signs how far the log is, with the proof that it continues its first old events: what a heartbeat carries. old 0 is a beginning
// without proof.
func (l *Log) Continue(ctx context.Context, old int64) (*Consistency, error) {
	if l.Key == nil {
		return nil, ErrNoKey
	}
	head, err := l.Head(ctx)
	if err != nil {
		return nil, err
	}
	c := &Consistency{Old: old, Note: []byte(head.Checkpoint)}
	if old > 0 {
		c.hashes, err = l.j.ProveConsistency(old, head.Size)
	}
	return c, err
}
