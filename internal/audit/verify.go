// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"sluice/internal/console"
	"sluice/internal/journal"
	"sluice/internal/merkle"
	"sluice/internal/trust"
)

const (
	// maxKey and maxTrust cap the other files of an export.
	maxKey   = 16 << 10
	maxTrust = 8 << 20
	// maxProofs caps how many releases an export has proofs of.
	maxProofs = 100_000
)

// VerifyOptions are what an auditor brings.
type VerifyOptions struct {
	Key   *Key   // nil: the key in the export is believed, and the report says so
	Since []byte // the signed checkpoint of an earlier visit; nil: none
	Root  string // fingerprint of the first trust object, in hexadecimal; "": the one in the export is believed, and the report says so
}

// Verify judges an export: every event is hashed, parsed and replayed, and held against the signed checkpoint and the one of an earlier visit.
// It reads DIR and nothing else. The report is given as far as it came, with any error. Errors: [ErrFormat], [ErrSignature], [ErrTampered], [ErrFork]
// are verdicts and name the first place that is wrong; any other says that something could not be read.
func Verify(dir string, opt VerifyOptions) (*Report, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("audit verify: %w", err)
	}
	defer root.Close()
	r := &Report{Directory: dir}
	c, key, err := r.openExport(root, opt)
	if err != nil {
		return r, err
	}
	older, err := r.openSince(opt.Since, key, c)
	if err != nil {
		return r, err
	}
	if err := r.readTrust(root, opt.Root); err != nil {
		return r, err
	}
	k, err := readKnown(root, r.Trust)
	if err != nil {
		return r, err
	}
	w := newReplay(r, sideOf(c.Origin), k)
	if err := w.walk(root, c, older); err != nil {
		return r, w.first(err)
	}
	if err := w.over.end(c, key); err != nil {
		return r, err
	}
	w.look()
	return r, r.checkProofs(root, c, key)
}

// first is the problem with trust over time when there is one: nothing was judged after it, so it stands before any other.
func (w *replay) first(err error) error {
	if w.over != nil && w.over.problem != nil {
		return w.over.problem
	}
	return err
}

// Verdict tells whether an error of [Verify] and its kin says no, or that something could not be looked at.
func Verdict(err error) bool {
	for _, v := range []error{ErrFormat, ErrSignature, ErrTampered, ErrFork, journal.ErrTampered} {
		if errors.Is(err, v) {
			return true
		}
	}
	return false
}

func (r *Report) openExport(root *os.Root, opt VerifyOptions) (c Checkpoint, key *Key, err error) {
	file, err := readFile(root, fileKey, maxKey)
	if err != nil {
		return c, nil, err
	}
	if key, err = ParseKey(file); err != nil {
		return c, nil, fmt.Errorf("%s: %w", fileKey, err)
	}
	if opt.Key != nil && opt.Key.ID != key.ID {
		return c, nil, fmt.Errorf("%w: the export is of log key %s, and not of %s, which was given", ErrSignature, key.ID, opt.Key.ID)
	}
	r.KeyID, r.KeyGiven = key.ID.String(), opt.Key != nil
	text, err := readFile(root, fileCheckpoint, maxNote)
	if errors.Is(err, os.ErrNotExist) {
		return c, nil, fmt.Errorf("%w: an export without one was not finished", err)
	}
	if err != nil {
		return c, nil, err
	}
	if c, err = OpenCheckpoint(text, key); err != nil {
		return c, nil, fmt.Errorf("%s: %w", fileCheckpoint, err)
	}
	r.Origin, r.Events, r.Root = c.Origin, c.Size, c.Root.String()
	return c, key, nil
}

// openSince reads the checkpoint of an earlier visit.
func (r *Report) openSince(text []byte, key *Key, now Checkpoint) (older Checkpoint, err error) {
	if text == nil {
		return older, nil
	}
	if older, err = OpenCheckpoint(text, key); err != nil {
		return older, fmt.Errorf("--since: %w", err)
	}
	switch {
	case older.Origin != now.Origin:
		return older, fmt.Errorf("%w: --since is a checkpoint of %s, the export is of %s", ErrTampered, older.Origin, now.Origin)
	case older.Size > now.Size:
		return older, fmt.Errorf("%w: --since has %d events, the export only %d: the end was cut off, or an old log was put in its place", ErrFork, older.Size, now.Size)
	}
	r.Since = older.Size
	return older, nil
}

// walk hashes and replays all events.
func (w *replay) walk(root *os.Root, c, older Checkpoint) (err error) {
	f, err := openFile(root, fileEvents)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewReaderSize(f, journal.MaxEvent+2)
	var edge merkle.Frontier
	var prev string
	for edge.Size() < c.Size {
		n := edge.Size() + 1
		raw, err := readLine(lines, n, c.Size)
		if err != nil {
			return err
		}
		if err := w.event(n, prev, raw); err != nil {
			return err
		}
		edge.Append(tlog.RecordHash(raw))
		prev = sum(raw)
		if n == older.Size && edge.Root() != older.Root {
			return fmt.Errorf("%w: the first %d events are not those of the checkpoint of the earlier visit: the log was rewritten since", ErrFork, n)
		}
	}
	if _, err := lines.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %s goes on after event %d, where its checkpoint ends: something was appended", ErrTampered, fileEvents, c.Size)
	}
	if edge.Root() != c.Root {
		return fmt.Errorf("%w: the %d events hold together, and are not those of the checkpoint: event %d was changed, or all were written anew", ErrTampered, c.Size, c.Size)
	}
	return w.end()
}

func sum(raw []byte) string {
	h := sha256.Sum256(raw)
	return hex.EncodeToString(h[:])
}

// readLine reads the event of a number, which the checkpoint says is there.
func readLine(lines *bufio.Reader, n, size int64) ([]byte, error) {
	raw, err := lines.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, fmt.Errorf("%w: event %d is longer than %d bytes", ErrFormat, n, journal.MaxEvent)
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%w: %s ends before event %d is whole; the checkpoint has %d: it was cut off", ErrTampered, fileEvents, n, size)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", fileEvents, err)
	}
	return raw[:len(raw)-1], nil
}

// checkProofs verifies each proof that is there, and that it belongs to this log as it stands in the export.
func (r *Report) checkProofs(root *os.Root, c Checkpoint, key *Key) error {
	dir, err := root.Open(dirProofs)
	if errors.Is(err, os.ErrNotExist) && len(r.States) == 0 {
		return nil // no release moved, so there is nothing to prove; what copies files may leave empty directories behind
	}
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: the directory %s is missing", ErrTampered, dirProofs)
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxProofs + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", dirProofs, err)
	}
	if len(names) > maxProofs {
		return fmt.Errorf("%w: more than %d proofs", ErrFormat, maxProofs)
	}
	for _, name := range names {
		where := filepath.Join(dirProofs, name)
		text, err := readFile(root, where, maxProof)
		if err != nil {
			return err
		}
		p, err := VerifyProof(text, key)
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		if p.Checkpoint != c {
			return fmt.Errorf("%w: %s is of a checkpoint of %s with %d events, the export's has %d", ErrTampered, where, p.Checkpoint.Origin, p.Checkpoint.Size, c.Size)
		}
		if p.Event.Release+proofSuffix != name {
			return fmt.Errorf("%w: %s proves an event of release %.64q", ErrTampered, where, p.Event.Release)
		}
	}
	r.Proofs = len(names)
	return nil
}

// readTrust looks at the first trust object, which came with the export.
func (r *Report) readTrust(root *os.Root, given string) error {
	b, err := readFile(root, fileTrust, maxTrust)
	if err != nil {
		return err
	}
	st, err := trust.Parse(b)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrFormat, fileTrust, err)
	}
	r.Trust = hex.EncodeToString(st.Fingerprint[:])
	if given != "" && given != r.Trust {
		return fmt.Errorf("%w: the export is of a chain that begins with the trust object %s, and not with %.64q, which was given", ErrSignature, r.Trust, given)
	}
	r.TrustGiven = given != ""
	return nil
}

// look names what is odd about an export that says nothing of trust over time.
func (w *replay) look() {
	if w.over != nil {
		return
	}
	if w.trustUsed != "" && w.trustUsed != w.Trust {
		w.odd("the trust object in the export (%.16s...) is not the one that was last in use (%.16s...)", w.Trust, w.trustUsed)
	}
	spoke := w.Actions[ActionTrustArrived]
	for action, n := range w.Actions {
		if strings.HasPrefix(action, ActionOrder+" ") {
			spoke += n
		}
	}
	if spoke > 0 {
		w.odd("%s of trust objects and orders, and the export has none of them: have it made anew", console.Count(spoke, "event"))
	}
}

// openFile opens a regular file of the export: a link or a device would lead somewhere else.
func openFile(root *os.Root, name string) (*os.File, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return nil, fmt.Errorf("audit verify: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: %s is no regular file", ErrFormat, name)
	}
	return root.Open(name)
}

func readFile(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := openFile(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: %s is longer than %d bytes", ErrFormat, name, limit)
	}
	return b, nil
}

// shorten keeps an id readable.
func shorten(id string) string {
	if len(id) > 16 {
		return id[:16] + "..."
	}
	return strings.ToValidUTF8(id, "?")
}
