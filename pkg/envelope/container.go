// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
)

// SectionType is the first byte of a section (section 1).
type SectionType uint8

// The section types.
const (
	SectionEnd      SectionType = 0
	SectionRelease  SectionType = 1
	SectionIndex    SectionType = 2
	SectionEvidence SectionType = 3
	SectionApproval SectionType = 4
)

// String names the type for messages.
func (t SectionType) String() string {
	switch t {
	case SectionEnd:
		return "end"
	case SectionRelease:
		return "release"
	case SectionIndex:
		return "index"
	case SectionEvidence:
		return "evidence"
	case SectionApproval:
		return "approval"
	}
	return fmt.Sprintf("unknown (%d)", uint8(t))
}

// Section is the header of one section: Size is the length of its body in bytes.
type Section struct {
	Type SectionType
	Name string // of evidence and approvals only
	Size int64
}

func (s Section) String() string {
	if s.Name == "" {
		return fmt.Sprintf("%s section", s.Type)
	}
	return fmt.Sprintf("%s section %q", s.Type, s.Name)
}

const (
	magicName     = "SLUICE" // bytes 0 to 5 of the magic
	magic         = magicName + "\x01\n"
	sectionHeader = 12 // bytes of a section before its name
)

// sequence admits sections one after another under the order and the caps of section 1, for reader and writer alike.
type sequence struct {
	last     Section
	started  bool
	count    int   // sections of the type of last
	evidence int64 // bytes
	total    int64 // bytes of the stream so far, the admitted section included
}

// admit takes the size unsigned, as it is on the wire: 2^63 is too large, not negative.
func (q *sequence) admit(typ SectionType, name string, size uint64) error {
	s := Section{Type: typ, Name: name}
	if err := q.checkOrder(s); err != nil {
		return err
	}
	if limit := sizeCap(typ); size > uint64(limit) {
		return fmt.Errorf("%w: %s of %d bytes: at most %d (section 1)", ErrFormat, s, size, limit)
	}
	s.Size = int64(size)
	if typ != q.last.Type || !q.started {
		q.count = 0
	}
	q.last, q.started = s, true
	q.count++
	return q.checkSums(s)
}

func (q *sequence) checkOrder(s Section) error {
	if !q.mayFollow(s.Type) {
		return fmt.Errorf("%w: %s after %s: want release, index, evidence, approvals, end (section 1)", ErrFormat, s, q.where())
	}
	named := s.Type == SectionEvidence || s.Type == SectionApproval
	if named && !isName(s.Name, MaxSectionName) {
		return fmt.Errorf("%w: %s section named %+q: want [a-z0-9][a-z0-9._-]{0,127} (section 1)", ErrFormat, s.Type, s.Name)
	}
	if !named && s.Name != "" {
		return fmt.Errorf("%w: %s section with a name (section 1)", ErrFormat, s.Type)
	}
	if named && s.Type == q.last.Type && q.last.Name >= s.Name {
		return fmt.Errorf("%w: %s does not come after %q: names are strictly increasing (section 1)", ErrFormat, s, q.last.Name)
	}
	return nil
}

func (q *sequence) where() string {
	if !q.started {
		return "the magic"
	}
	return "the " + q.last.String()
}

func (q *sequence) mayFollow(typ SectionType) bool {
	if !q.started {
		return typ == SectionRelease
	}
	switch q.last.Type {
	case SectionRelease:
		return typ == SectionIndex
	case SectionIndex, SectionEvidence:
		return typ == SectionEvidence || typ == SectionApproval || typ == SectionEnd
	case SectionApproval:
		return typ == SectionApproval || typ == SectionEnd
	default: // nothing comes after the end
		return false
	}
}

func (q *sequence) checkSums(s Section) error {
	if limit := countCap(s.Type); q.count > limit {
		return fmt.Errorf("%w: more than %d %s sections (section 1)", ErrFormat, limit, s.Type)
	}
	if s.Type == SectionEnd && s.Size != sha256Size {
		return fmt.Errorf("%w: end section of %d bytes: want %d (section 1)", ErrFormat, s.Size, sha256Size)
	}
	if s.Type == SectionEvidence {
		q.evidence += s.Size
	}
	if q.evidence > MaxEvidenceTotal {
		return fmt.Errorf("%w: evidence of more than %d bytes together (section 1)", ErrFormat, MaxEvidenceTotal)
	}
	q.total += sectionHeader + int64(len(s.Name)) + s.Size
	if int64(len(magic))+q.total > MaxStream {
		return fmt.Errorf("%w: stream of more than %d bytes (section 1)", ErrFormat, MaxStream)
	}
	return nil
}

func sizeCap(t SectionType) int64 {
	switch t {
	case SectionRelease:
		return MaxRelease
	case SectionIndex:
		return MaxIndex
	case SectionEvidence:
		return MaxEvidenceSize
	case SectionApproval:
		return MaxApproval
	default:
		return sha256Size
	}
}

func countCap(t SectionType) int {
	switch t {
	case SectionEvidence:
		return MaxEvidence
	case SectionApproval:
		return MaxApprovals
	default:
		return 1
	}
}

// Writer writes an envelope stream section by section, as archive/tar does: Section, then exactly its Size bytes by
// Write, and Close at the end. It keeps the order and the caps of section 1, and knows nothing of the bodies. The
// first error sticks.
type Writer struct {
	w    io.Writer
	sum  hash.Hash
	seq  sequence
	left int64 // bytes of the current body that are missing
	err  error
}

// NewWriter returns a Writer to w. Nothing is written before the first Section.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w, sum: sha256.New()} }

// Section begins a section. Name is "" but for evidence and approvals. ErrFormat when the body before it is not
// complete, and when section 1 refuses it.
func (w *Writer) Section(typ SectionType, name string, size int64) error {
	if w.err == nil {
		w.err = w.begin(typ, name, size)
	}
	return w.err
}

func (w *Writer) begin(typ SectionType, name string, size int64) error {
	if typ == SectionEnd {
		return fmt.Errorf("%w: the end section is written by Close", ErrFormat)
	}
	return w.header(typ, name, size)
}

func (w *Writer) header(typ SectionType, name string, size int64) error {
	if w.left > 0 {
		return fmt.Errorf("%w: %s is %d bytes short", ErrFormat, w.seq.last, w.left)
	}
	first := !w.seq.started
	if err := w.seq.admit(typ, name, uint64(size)); err != nil {
		return err
	}
	var head []byte
	if first {
		head = append(head, magic...)
	}
	head = append(head, byte(typ), 0)
	head = binary.BigEndian.AppendUint16(head, uint16(len(name)))
	head = binary.BigEndian.AppendUint64(head, uint64(size))
	w.left = size
	return w.emit(append(head, name...))
}

func (w *Writer) emit(p []byte) error {
	w.sum.Write(p) // a hash never fails
	if n, err := w.w.Write(p); err != nil {
		return fmt.Errorf("write envelope: %w", err)
	} else if n < len(p) {
		return fmt.Errorf("write envelope: %w", io.ErrShortWrite)
	}
	return nil
}

// Write writes body bytes of the current section; more than its Size is ErrFormat.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err == nil && int64(len(p)) > w.left {
		w.err = fmt.Errorf("%w: %d bytes too many for %s", ErrFormat, int64(len(p))-w.left, w.seq.where())
	}
	if w.err == nil {
		w.err = w.emit(p)
	}
	if w.err != nil {
		return 0, w.err
	}
	w.left -= int64(len(p))
	return len(p), nil
}

// errClosed is what a Writer says after Close.
var errClosed = errors.New("envelope: writer is closed")

// Close writes the end section. It does not close the underlying writer.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	if w.err = w.header(SectionEnd, "", sha256Size); w.err != nil {
		return w.err
	}
	if w.err = w.emit(w.sum.Sum(nil)); w.err != nil {
		return w.err
	}
	w.err = errClosed
	return nil
}

// Reader reads an envelope stream section by section, as archive/tar does. It keeps the order and the caps of
// section 1 before it hands out a header, and checks the digest of the end section; it knows nothing of the bodies.
// Memory is constant. The first error sticks.
type Reader struct {
	r    io.Reader
	sum  hash.Hash
	seq  sequence
	left int64 // bytes of the current body that were not read yet
	pos  int64
	err  error
}

// NewReader returns a Reader of r. It reads no byte beyond the end section but one, which must not exist.
func NewReader(r io.Reader) *Reader { return &Reader{r: r, sum: sha256.New()} }

// Next passes over what is left of the current body and returns the next header. After the end section, when its
// digest was right and nothing follows, it returns io.EOF. Errors: ErrFormat (also for a truncated stream), ErrDigest,
// ErrVersion, and whatever the underlying reader gave.
func (r *Reader) Next() (Section, error) {
	if r.err != nil {
		return Section{}, r.err
	}
	s, err := r.next()
	if err != nil && err != io.EOF { //nolint:errorlint // a wrapped io.EOF came from below, and is a failure
		err = fmt.Errorf("read envelope: byte %d: %w", r.pos, err)
	}
	r.err = err
	return s, err
}

func (r *Reader) next() (Section, error) {
	if _, err := io.Copy(io.Discard, (*body)(r)); err != nil {
		return Section{}, err
	}
	if !r.seq.started {
		if err := r.readMagic(); err != nil {
			return Section{}, err
		}
	}
	s, err := r.readHeader()
	if err != nil {
		return Section{}, err
	}
	if s.Type == SectionEnd {
		return Section{}, r.finish()
	}
	r.left = s.Size
	return s, nil
}

func (r *Reader) readMagic() error {
	var b [len(magic)]byte
	if err := r.full(b[:]); err != nil {
		return err
	}
	if string(b[:]) == magic {
		return nil
	}
	if string(b[:len(magicName)]) == magicName && b[7] == '\n' {
		return fmt.Errorf("%w %d: this reader knows 1 (section 1)", ErrVersion, b[6])
	}
	return fmt.Errorf("%w: it begins with %s: not an envelope (section 1)", ErrFormat, excerpt(b[:]))
}

func (r *Reader) readHeader() (Section, error) {
	var h [sectionHeader]byte
	if err := r.full(h[:]); err != nil {
		return Section{}, err
	}
	n := binary.BigEndian.Uint16(h[2:])
	if h[1] != 0 || n > MaxSectionName {
		return Section{}, fmt.Errorf("%w: section header with reserved byte %d and a name of %d bytes: want 0, and at most %d (section 1)",
			ErrFormat, h[1], n, MaxSectionName)
	}
	name := make([]byte, n)
	if err := r.full(name); err != nil {
		return Section{}, err
	}
	if err := r.seq.admit(SectionType(h[0]), string(name), binary.BigEndian.Uint64(h[4:])); err != nil {
		return Section{}, err
	}
	return r.seq.last, nil
}

// finish checks the end section's body, and that nothing follows.
func (r *Reader) finish() error {
	want := Digest(r.sum.Sum(nil))
	var got Digest
	if err := r.full(got[:]); err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%w: the end section has %s, the stream gives %s (section 1): damaged on its way, take a fresh copy", ErrDigest, got, want)
	}
	var more [1]byte
	switch n, err := io.ReadFull(r.r, more[:]); {
	case n > 0:
		return fmt.Errorf("%w: bytes after the end section (section 1)", ErrFormat)
	case err != io.EOF:
		return err
	}
	return io.EOF
}

// Read reads the body of the current section; io.EOF at its end.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	n, err := (*body)(r).Read(p)
	if err != nil && err != io.EOF {
		r.err = fmt.Errorf("read envelope: byte %d: %w", r.pos, err)
		err = r.err
	}
	return n, err
}

// body reads what is left of the current section's body.
type body Reader

func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.sum.Write(p[:n])
	b.left -= int64(n)
	b.pos += int64(n)
	if err == io.EOF && b.left > 0 {
		return n, truncated(b.left)
	}
	if err == io.EOF {
		err = nil
	}
	return n, err
}

func (r *Reader) full(p []byte) error {
	n, err := io.ReadFull(r.r, p)
	r.sum.Write(p[:n])
	r.pos += int64(n)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return truncated(int64(len(p) - n))
	}
	return err
}

func truncated(missing int64) error {
	return fmt.Errorf("%w: the stream ends here, at least %d bytes are missing: take a fresh copy: %w", ErrFormat, missing, io.ErrUnexpectedEOF)
}

// firstRead is allocated for a body before any of it came; beyond it memory follows the bytes that came.
const firstRead = 64 << 10

// readBody reads exactly size bytes of the current section. The slice grows by doubling, never past size. early, if it is not nil, looks at
// the first 64 KiB of a longer body before more of it is read.
func readBody(r io.Reader, size int64, early func(start []byte) error) ([]byte, error) {
	buf := make([]byte, 0, min(size, firstRead))
	for int64(len(buf)) < size {
		if len(buf) == firstRead && early != nil {
			if err := early(buf); err != nil {
				return nil, err
			}
		}
		if len(buf) == cap(buf) {
			grown := make([]byte, len(buf), min(size, 2*int64(cap(buf))))
			copy(grown, buf)
			buf = grown
		}
		n, err := io.ReadFull(r, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			return nil, err
		}
	}
	return buf, nil
}
