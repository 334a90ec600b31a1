// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Named is one report, or one approval: the name and the body of its section.
type Named struct {
	Name string
	Data []byte
}

// Envelope is a whole envelope in memory: at most MaxStream bytes, and what was decoded of them. Release, Index,
// Evidence and Approvals are the bodies of the sections as they came; DSSE, Statement and ID are what Release says.
// An Envelope made by New or Read is consistent; it may be read by several goroutines.
type Envelope struct {
	Release   []byte // the DSSE envelope of the release statement
	DSSE      *DSSE
	Statement *Statement
	ID        Digest
	Index     []byte
	Evidence  []Named // sorted strictly by name
	Approvals []Named // sorted strictly by name; Data is a DSSE envelope with one signature
}

// New makes an envelope without approvals out of its parts: release is the signed DSSE envelope of a statement that
// Build made. All that Read checks is checked. The slices are kept, not copied.
func New(release, index []byte, evidence []Named) (*Envelope, error) {
	e := &Envelope{}
	if err := e.setRelease(release); err != nil {
		return nil, err
	}
	if err := checkIndex(index, e.Statement); err != nil {
		return nil, err
	}
	e.Index = index
	for _, n := range evidence {
		if err := e.addEvidence(n); err != nil {
			return nil, err
		}
	}
	return e, e.checkComplete()
}

// Read takes an envelope stream, strictly: sections 1 to 7 but for signatures, which are the caller's to verify over
// DSSE.Payload and over the payload of each approval. The index and the evidence match the statement by size and
// SHA-256, and each approval has one signature and names this release. Errors: ErrFormat, ErrDigest, ErrVersion, and
// whatever r gave.
func Read(r io.Reader) (*Envelope, error) {
	in := NewReader(r)
	e := &Envelope{}
	for {
		s, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := e.take(in, s); err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
	}
	if err := e.checkComplete(); err != nil {
		return nil, err
	}
	return e, nil
}

// take reads one section. A size that the statement does not announce is refused before the body is read.
func (e *Envelope) take(in *Reader, s Section) error {
	if s.Type == SectionIndex && s.Size != e.Statement.Predicate.ContentIndex.Size {
		return fmt.Errorf("%w: %d bytes, the statement has %d", ErrFormat, s.Size, e.Statement.Predicate.ContentIndex.Size)
	}
	if s.Type == SectionEvidence {
		if _, err := e.expect(s.Name, s.Size); err != nil {
			return err
		}
	}
	var early func([]byte) error
	if s.Type == SectionRelease {
		early = checkStart
	}
	data, err := readBody(in, s.Size, early)
	if err != nil {
		return err
	}
	switch s.Type {
	case SectionRelease:
		return e.setRelease(data)
	case SectionIndex:
		e.Index = data
		return checkIndex(data, e.Statement)
	case SectionEvidence:
		return e.addEvidence(Named{s.Name, data})
	default: // an approval: the Reader admits no other type here
		if err := e.checkApproval(Named{s.Name, data}); err != nil {
			return err
		}
		e.Approvals = append(e.Approvals, Named{s.Name, data})
		return nil
	}
}

// checkStart refuses a release section by how it begins, so that 44 MiB of rubbish cost no more than 64 KiB of it. What is wrong with it
// only because it is cut off there is no mistake.
func checkStart(start []byte) error {
	const opening = `{"payload":"`
	body, ok := bytes.CutPrefix(start, []byte(opening))
	if !ok {
		return fmt.Errorf("%w: it begins with %s and not as a DSSE envelope (section 2)", ErrFormat, excerpt(start))
	}
	if bytes.IndexByte(body, '"') >= 0 {
		return nil // a short statement, and much behind it: the parser judges
	}
	src := make([]byte, base64.StdEncoding.DecodedLen(len(body)/4*4))
	n, err := base64.StdEncoding.Strict().Decode(src, body[:len(body)/4*4])
	if err != nil {
		return nil //nolint:nilerr // the parser says where, and stops there too
	}
	d := &decoder{src: src[:n]}
	(&Statement{}).layout(d)
	const longestToken = 64 // the longest key that is looked for, or a number
	if d.err == nil || d.short || n-d.pos < longestToken {
		return nil
	}
	return fmt.Errorf("release statement: %w", d.err)
}

func (e *Envelope) setRelease(b []byte) error {
	d, err := ParseDSSE(b, MaxRelease)
	if err != nil {
		return err
	}
	if d.PayloadType != PayloadTypeInToto || len(d.Signatures) == 0 {
		return fmt.Errorf("%w: payload type %q and %d signatures: want %q and at least one (section 2)",
			ErrFormat, d.PayloadType, len(d.Signatures), PayloadTypeInToto)
	}
	s, err := ParseStatement(d.Payload)
	if err != nil {
		return err
	}
	e.Release, e.DSSE, e.Statement, e.ID = b, d, s, ID(d.Payload)
	return nil
}

// expect returns the reference of the next report, which must have this name and size.
func (e *Envelope) expect(name string, size int64) (EvidenceRef, error) {
	refs := e.Statement.Predicate.Evidence
	if len(e.Evidence) >= len(refs) {
		return EvidenceRef{}, fmt.Errorf("evidence %+q: %w: the statement does not list it (section 4)", name, ErrFormat)
	}
	r := refs[len(e.Evidence)]
	if r.Name != name || r.Size != size {
		return EvidenceRef{}, fmt.Errorf("evidence %+q of %d bytes: %w: the statement has %q of %d bytes next (section 4)",
			name, size, ErrFormat, r.Name, r.Size)
	}
	return r, nil
}

func (e *Envelope) addEvidence(n Named) error {
	r, err := e.expect(n.Name, int64(len(n.Data)))
	if err != nil {
		return err
	}
	if got := Digest(sha256.Sum256(n.Data)); got != r.SHA256 {
		return fmt.Errorf("evidence %q: %w: SHA-256 is %s, the statement has %s (section 4)", n.Name, ErrDigest, got, r.SHA256)
	}
	e.Evidence = append(e.Evidence, n)
	return nil
}

func (e *Envelope) checkComplete() error {
	refs := e.Statement.Predicate.Evidence
	if len(e.Evidence) < len(refs) {
		return fmt.Errorf("%w: evidence %q is missing (section 4)", ErrFormat, refs[len(e.Evidence)].Name)
	}
	return nil
}

// checkApproval applies section 7 to one approval: its form, its name, and that it is about this release.
func (e *Envelope) checkApproval(n Named) error {
	d, err := ParseDSSE(n.Data, MaxApproval)
	if err != nil {
		return fmt.Errorf("approval %q: %w", n.Name, err)
	}
	if d.PayloadType != PayloadTypeInToto || len(d.Signatures) != 1 {
		return fmt.Errorf("approval %q: %w: payload type %q and %d signatures: want %q and exactly one (section 7)",
			n.Name, ErrFormat, d.PayloadType, len(d.Signatures), PayloadTypeInToto)
	}
	a, err := ParseApproval(d.Payload)
	if err != nil {
		return fmt.Errorf("approval %q: %w", n.Name, err)
	}
	if a.SectionName() != n.Name || !isName(n.Name, MaxSectionName) {
		return fmt.Errorf("approval %+q: %w: it is %s's, for %s: want the section name %q, of at most %d bytes (section 1)",
			n.Name, ErrFormat, a.Officer, a.Role, a.SectionName(), MaxSectionName)
	}
	if err := a.belongs(e.ID, &e.Statement.Predicate); err != nil {
		return fmt.Errorf("approval %q: %w", n.Name, err)
	}
	return nil
}

// Merge adds approvals: the union by name (section 7). The same bytes under the same name are no news. On an error e
// is unchanged: ErrConflict when one name has different bytes, ErrFormat, ErrDigest or ErrVersion when one is bad or
// about another release, ErrFormat when they are more than MaxApprovals. The slices are kept, not copied.
func (e *Envelope) Merge(approvals []Named) error {
	merged := slices.Clone(e.Approvals)
	for _, n := range approvals {
		at, found := slices.BinarySearchFunc(merged, n, byName)
		if found && !bytes.Equal(merged[at].Data, n.Data) {
			return fmt.Errorf("merge approval %+q: %w: two approvals of this name with different bytes (section 7): ask the officer which one stands", n.Name, ErrConflict)
		}
		if found {
			continue
		}
		if err := e.checkApproval(n); err != nil {
			return fmt.Errorf("merge %w", err)
		}
		merged = slices.Insert(merged, at, n)
	}
	if len(merged) > MaxApprovals {
		return fmt.Errorf("merge approvals: %w: %d of them, at most %d (section 1)", ErrFormat, len(merged), MaxApprovals)
	}
	e.Approvals = merged
	return nil
}

func byName(a, b Named) int { return strings.Compare(a.Name, b.Name) }

// errStale says that the decoded fields of an Envelope do not belong to its bytes.
var errStale = errors.New("envelope: ID is not that of Release")

// WriteTo writes the envelope stream. Release, Index, Evidence and Approvals are checked first as Read would, so that
// nothing is written that a reader refuses; ID must be that of Release, or zero. It implements io.WriterTo.
func (e *Envelope) WriteTo(w io.Writer) (int64, error) {
	checked, err := New(e.Release, e.Index, e.Evidence)
	if err == nil {
		err = checked.Merge(e.Approvals)
	}
	if err == nil && e.ID != (Digest{}) && e.ID != checked.ID {
		err = errStale
	}
	if err != nil {
		return 0, fmt.Errorf("write envelope: %w", err)
	}
	count := &countingWriter{w: w}
	err = checked.emit(NewWriter(count))
	return count.n, err
}

func (e *Envelope) emit(w *Writer) error {
	err := errors.Join(put(w, SectionRelease, "", e.Release), put(w, SectionIndex, "", e.Index))
	for _, n := range e.Evidence {
		err = errors.Join(err, put(w, SectionEvidence, n.Name, n.Data))
	}
	for _, n := range e.Approvals {
		err = errors.Join(err, put(w, SectionApproval, n.Name, n.Data))
	}
	if err != nil {
		return err
	}
	return w.Close()
}

func put(w *Writer, typ SectionType, name string, data []byte) error {
	if err := w.Section(typ, name, int64(len(data))); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// countingWriter counts what went through, for io.WriterTo.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
