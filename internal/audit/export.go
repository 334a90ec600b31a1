// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/mod/sumdb/tlog"

	"sluice/internal/journal"
	"sluice/internal/merkle"
)

// The names in an export (docs/spec/audit.md section 6).
const (
	fileCheckpoint = "checkpoint"
	fileKey        = "log.pub"
	fileEvents     = "events.jsonl"
	fileTrust      = "trust.json"
	dirProofs      = "proofs"
	proofSuffix    = ".tlog-proof"
)

// Source gives a log's events and its signed head: a [Log], or a daemon that was asked for it.
type Source interface {
	Head(ctx context.Context) (Head, error)
	Events(ctx context.Context, from, to int64, fn func(raw []byte) error) error
}

// Exported says what an export holds.
type Exported struct {
	Checkpoint Checkpoint
	Key        *Key
	Releases   int
	Later      int // versions and orders that came after the checkpoint, and were left out
}

// Files say where a side keeps what an export has beside its events.
type Files struct {
	First string // the first trust object
	State string // the directory of internal/site; "" or one that is not there: nothing is said of trust over time
}

// Export writes a log into a new directory: events, checkpoint, public key, the first trust object, those after it and the orders of officers,
// and the proof of each release's last step. The checkpoint is written last, so that a directory without one is half an export. What the
// source gives is hashed and held against its checkpoint on the way: [ErrTampered] when they differ. A daemon may run meanwhile.
func Export(ctx context.Context, src Source, files Files, dir string) (*Exported, error) {
	head, err := signedHead(ctx, src)
	if err != nil {
		return nil, err
	}
	key, err := ParseKey([]byte(head.Key))
	if err != nil {
		return nil, err
	}
	c, err := OpenCheckpoint([]byte(head.Checkpoint), key)
	if err != nil {
		return nil, err
	}
	root, err := makeDir(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	t, err := writeEvents(ctx, src, root, c)
	if err != nil {
		return nil, err
	}
	if err := t.writeProofs(root, []byte(head.Checkpoint)); err != nil {
		return nil, err
	}
	object, err := os.ReadFile(files.First)
	if err != nil {
		return nil, fmt.Errorf("trust object: %w", err)
	}
	err = errors.Join(writeNew(root, fileTrust, object), writeNew(root, fileKey, key.File))
	if err != nil {
		return nil, err
	}
	later := 0
	if files.State != "" {
		if later, err = copyTrust(root, files.State, object, t.telling); err != nil {
			return nil, err
		}
	}
	return &Exported{c, key, len(t.last), later}, writeNew(root, fileCheckpoint, []byte(head.Checkpoint))
}

// signedHead wants a log that has something to show, and a key to vouch for it.
func signedHead(ctx context.Context, src Source) (Head, error) {
	head, err := src.Head(ctx)
	switch {
	case err != nil:
		return head, err
	case head.Size == 0:
		return head, fmt.Errorf("%w: it has no event yet: run the daemon", ErrNotFound)
	case head.Checkpoint == "":
		return head, ErrNoKey
	}
	return head, nil
}

// makeDir makes a directory that is not there, or takes an empty one. The log names people and releases: nobody else reads it.
func makeDir(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	if len(entries) > 0 {
		return nil, fmt.Errorf("export: %s is not empty: name a new directory", dir)
	}
	return os.OpenRoot(dir)
}

func writeNew(root *os.Root, name string, data []byte) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// exporting is a log on its way into a directory: every hash of its tree, and where the last step of each release stands.
type exporting struct {
	size   int64
	hashes []tlog.Hash
	last   map[string]int64 // release id -> index
	raw    map[string][]byte

	*telling
}

func newExporting() *exporting {
	return &exporting{last: map[string]int64{}, raw: map[string][]byte{}, telling: newTelling()}
}

func writeEvents(ctx context.Context, src Source, root *os.Root, c Checkpoint) (t *exporting, err error) {
	f, err := root.OpenFile(fileEvents, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 1<<20)
	t = newExporting()
	var edge merkle.Frontier
	err = src.Events(ctx, 1, c.Size, func(raw []byte) error {
		t.hashes = append(t.hashes, edge.Append(tlog.RecordHash(raw))...)
		if err := t.remember(raw); err != nil {
			return err
		}
		t.size++
		_, err := w.Write(append(raw, '\n'))
		return errors.Join(err, ctx.Err())
	})
	if err != nil {
		return nil, err
	}
	if t.size != c.Size || edge.Root() != c.Root {
		return nil, fmt.Errorf("%w: the journal's %d events are not those of the tree that it signed with %d: run fsck", ErrTampered, t.size, c.Size)
	}
	return t, errors.Join(w.Flush(), f.Sync())
}

// remember keeps the last step of each release.
func (t *exporting) remember(raw []byte) error {
	e, err := journal.ParseEvent(raw, true)
	if err != nil {
		return fmt.Errorf("%w: event %d: %w", ErrTampered, t.size+1, err)
	}
	t.note(e.Action, e.Digest)
	if !isRelease(e.Release) || e.To == "" {
		return nil
	}
	t.last[e.Release], t.raw[e.Release] = t.size, bytes.Clone(raw)
	return nil
}

// isRelease tells a release id, which is a file name then, from whatever else stands in an event of before.
func isRelease(s string) bool {
	return len(s) == 64 && !slices.ContainsFunc([]byte(s), func(c byte) bool { return (c < '0' || c > '9') && (c < 'a' || c > 'f') })
}

func (t *exporting) writeProofs(root *os.Root, checkpoint []byte) error {
	if err := root.Mkdir(dirProofs, 0o700); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	for release, index := range t.last {
		hashes, err := tlog.ProveRecord(t.size, index, t)
		if err != nil {
			return fmt.Errorf("export: proof of event %d: %w", index+1, err)
		}
		text := FormatProof(t.raw[release], index, hashes, checkpoint)
		if err := writeNew(root, filepath.Join(dirProofs, release+proofSuffix), text); err != nil {
			return err
		}
	}
	return nil
}

// ReadHashes implements tlog.HashReader.
func (t *exporting) ReadHashes(at []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(at))
	for i, index := range at {
		out[i] = t.hashes[index]
	}
	return out, nil
}

// Prove writes the proof of one event, or with event 0 of the last step of a release. The source is read and hashed as a whole: it proves nothing
// that it does not hold together.
func Prove(ctx context.Context, src Source, release string, event int64) ([]byte, error) {
	head, err := signedHead(ctx, src)
	if err != nil {
		return nil, err
	}
	t := newExporting()
	var edge merkle.Frontier
	var wanted []byte
	index := event - 1
	err = src.Events(ctx, 1, head.Size, func(raw []byte) error {
		t.hashes = append(t.hashes, edge.Append(tlog.RecordHash(raw))...)
		if t.size == index {
			wanted = bytes.Clone(raw)
		}
		err := t.remember(raw)
		t.size++
		return err
	})
	if err != nil {
		return nil, err
	}
	if event == 0 {
		id, err := t.find(release)
		if err != nil {
			return nil, err
		}
		index, wanted = t.last[id], t.raw[id]
	}
	if wanted == nil {
		return nil, fmt.Errorf("%w: no event %d: the log has %d", ErrNotFound, event, head.Size)
	}
	hashes, err := tlog.ProveRecord(t.size, index, t)
	if err != nil {
		return nil, err
	}
	text := FormatProof(wanted, index, hashes, []byte(head.Checkpoint))
	key, err := ParseKey([]byte(head.Key))
	if err != nil {
		return nil, err
	}
	_, err = VerifyProof(text, key) // nothing is given away that would not be accepted
	return text, err
}

// ErrNotFound says that the log has no such event or release.
var ErrNotFound = errors.New("audit: not in the log")

// find names a release by its id or its beginning.
func (t *exporting) find(release string) (string, error) {
	var found []string
	for id := range t.last {
		if len(release) >= 4 && len(id) >= len(release) && id[:len(release)] == release {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 0:
		return "", fmt.Errorf("%w: no release whose id begins with %.64q (at least 4 digits); audit show lists the events", ErrNotFound, release)
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("%w: %d releases begin with %.64s: give more of the id", ErrNotFound, len(found), release)
}
