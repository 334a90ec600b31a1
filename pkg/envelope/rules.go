// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"bufio"
	"crypto/sha3"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// timeLayout is RFC 3339 in UTC with whole seconds (section 4).
const timeLayout = "2006-01-02T15:04:05Z"

// FormatTime writes a time as a statement wants it: RFC 3339, UTC, whole seconds, Z.
func FormatTime(t time.Time) string { return t.UTC().Format(timeLayout) }

// ParseTime takes exactly what FormatTime gives; otherwise ErrFormat.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(timeLayout, s)
	if err != nil || t.Format(timeLayout) != s {
		return time.Time{}, fmt.Errorf("%w: time %s: want RFC 3339 in UTC with whole seconds, as 2026-01-31T00:00:00Z (section 4)", ErrFormat, quote(s))
	}
	return t, nil
}

// badField says which field breaks which rule of section 4.
func badField(field, format string, args ...any) error {
	return fmt.Errorf("%w: "+field+": "+format, append([]any{ErrFormat}, args...)...)
}

// check applies every rule of sections 4 and 6 to a decoded statement.
func (s *Statement) check() error {
	if s.Type != StatementType {
		return fmt.Errorf("%w: _type %s: this reader knows %q (section 4)", ErrVersion, quote(s.Type), StatementType)
	}
	if s.PredicateType != PredicateTypeRelease {
		return fmt.Errorf("%w: predicateType %s: this reader knows %q (section 4)", ErrVersion, quote(s.PredicateType), PredicateTypeRelease)
	}
	steps := []func() error{
		s.checkSubjects, s.Predicate.checkLine, s.Predicate.checkOrigin, s.Predicate.checkEvidence,
		s.Predicate.checkValidity, s.checkSizes, s.checkDirectory,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (s *Statement) checkSubjects() error {
	if n := len(s.Subjects); n == 0 || n > MaxFiles {
		return badField("subject", "%d files: want 1 to %d (sections 1 and 4)", n, MaxFiles)
	}
	names := make([]string, len(s.Subjects))
	for i := range s.Subjects {
		names[i] = s.Subjects[i].Name
	}
	return CheckPaths(names)
}

// checkLine: the place of the release in its line of succession.
func (p *Predicate) checkLine() error {
	if err := checkStream(p.Stream); err != nil {
		return err
	}
	if err := checkPlace(p.Epoch, p.Seq); err != nil {
		return err
	}
	if p.Prev != "" {
		if _, err := ParseDigest(p.Prev); err != nil {
			return fmt.Errorf("prev: %w", err)
		}
	}
	if !isName(p.Name, maxReleaseName) {
		return badField("name", "%s: want [a-z0-9][a-z0-9._-]{0,127}", quote(p.Name))
	}
	if !isPrintable(p.Version, maxVersion) {
		return badField("version", "%s: want 1 to %d printable ASCII characters", quote(p.Version), maxVersion)
	}
	if !slices.Contains(kinds(), p.Kind) {
		return badField("kind", "%s is not one of %q", quote(string(p.Kind)), kinds())
	}
	return nil
}

// Lengths of section 4, in bytes.
const (
	maxStreamName     = 128
	maxReleaseName    = 128
	maxVersion        = 128
	maxClassification = 64
	maxWord           = 64 // receivers, groups and officers
)

func kinds() []Kind {
	return []Kind{
		KindModelWeights, KindSoftwarePackage, KindContainerImages, KindDataset, KindPolicyUpdate,
		KindCertificateRotation, KindLicense, KindTrustUpdate, KindRevocation,
	}
}

func checkStream(s string) error {
	bad := len(s) > maxStreamName
	for part := range strings.SplitSeq(s, "/") {
		bad = bad || !isName(part, maxStreamName) // so never ".." or ".": a stream is turned into a path easily
	}
	if bad {
		return badField("stream", "%s: want names [a-z0-9][a-z0-9._-]* joined by /, at most %d bytes", quote(s), maxStreamName)
	}
	return nil
}

func checkPlace(epoch, seq int64) error {
	if epoch < 0 || epoch >= maxInt {
		return badField("epoch", "%d: want 0 to 2^53-1", epoch)
	}
	if seq < 1 || seq >= maxInt {
		return badField("seq", "%d: want 1 to 2^53-1", seq)
	}
	return nil
}

// checkOrigin: where the files came from, and what was said of them.
func (p *Predicate) checkOrigin() error {
	if !slices.Contains([]string{SourceHuggingFace, SourceDirectory}, p.Source.Type) {
		return badField("source", "type %s: want huggingface or directory", quote(p.Source.Type))
	}
	if !slices.Contains([]string{VerdictPass, VerdictFail, VerdictException, VerdictNotApplicable}, p.Gate.Verdict) {
		return badField("gate", "verdict %s: want pass, fail, exception or not-applicable", quote(p.Gate.Verdict))
	}
	if p.Gate.Verdict == VerdictException && p.Gate.Reason == "" {
		return badField("gate", "an exception without a reason")
	}
	if !slices.Contains([]string{VerdictPass, VerdictFail, VerdictNotApplicable}, p.Inspection.Verdict) {
		return badField("inspection", "verdict %s: want pass, fail or not-applicable", quote(p.Inspection.Verdict))
	}
	texts := []string{p.Source.Repo, p.Source.Revision, p.Source.Commit, p.Gate.Reason}
	if b := p.Base; b != nil {
		texts = append(texts, b.Repo, b.Commit)
	}
	if q := p.Quantization; q != nil {
		texts = append(texts, q.Method, q.Version)
		if q.Bits < 0 || q.Bits >= maxInt || q.GroupSize < 0 || q.GroupSize >= maxInt {
			return badField("quantization", "bits %d, group_size %d: want 0 to 2^53-1", q.Bits, q.GroupSize)
		}
	}
	return checkTexts(texts...)
}

// checkTexts: all text is UTF-8 in Normalization Form C (the head of the specification).
func checkTexts(texts ...string) error {
	for _, t := range texts {
		if !utf8.ValidString(t) || !norm.NFC.IsNormalString(t) {
			return badField("text", "%s is not UTF-8 in Unicode Normalization Form C", quote(t))
		}
	}
	return nil
}

func (p *Predicate) checkEvidence() error {
	if len(p.Evidence) > MaxEvidence {
		return badField("evidence", "%d reports: at most %d (section 1)", len(p.Evidence), MaxEvidence)
	}
	var total int64
	for i, r := range p.Evidence {
		if !isName(r.Name, MaxSectionName) {
			return badField("evidence", "name %s: want [a-z0-9][a-z0-9._-]{0,127} (section 1)", quote(r.Name))
		}
		if i > 0 && p.Evidence[i-1].Name >= r.Name {
			return badField("evidence", "%q does not come after %q: names are sorted strictly", r.Name, p.Evidence[i-1].Name)
		}
		if r.Size < 0 || r.Size > MaxEvidenceSize {
			return badField("evidence", "%s: %d bytes: at most %d (section 1)", r.Name, r.Size, MaxEvidenceSize)
		}
		total += r.Size
	}
	if total > MaxEvidenceTotal {
		return badField("evidence", "%d bytes together: at most %d (section 1)", total, MaxEvidenceTotal)
	}
	return nil
}

// checkValidity: for how long, for whom, and under which label.
func (p *Predicate) checkValidity() error {
	created, err := ParseTime(p.Created)
	if err != nil {
		return fmt.Errorf("created: %w", err)
	}
	expires, err := ParseTime(p.Expires)
	if err != nil {
		return fmt.Errorf("expires: %w", err)
	}
	if !expires.After(created) {
		return badField("expires", "%s is not after created, %s", p.Expires, p.Created)
	}
	if n := len(p.Audience); n == 0 || n > MaxAudience {
		return badField("audience", "%d receivers: want 1 to %d", n, MaxAudience)
	}
	for i, a := range p.Audience {
		if !isName(a, maxWord) {
			return badField("audience", "%s: want [a-z0-9][a-z0-9._-]{0,63}", quote(a))
		}
		if i > 0 && p.Audience[i-1] >= a {
			return badField("audience", "%q does not come after %q: receivers are sorted strictly", a, p.Audience[i-1])
		}
	}
	if !isPrintable(p.Classification, maxClassification) {
		return badField("classification", "%s: want 1 to %d printable ASCII characters", quote(p.Classification), maxClassification)
	}
	return nil
}

// checkSizes: the sizes of the files, their sum, and what follows from them for the content index (section 5).
func (s *Statement) checkSizes() error {
	var total, blocks int64
	for i := range s.Subjects {
		size := s.Subjects[i].Annotations.Size
		if size < 0 || size >= maxInt || total+size >= maxInt {
			return badField("subject", "size of %s: %d: sizes and their sum are 0 to 2^53-1", quote(s.Subjects[i].Name), size)
		}
		total += size
		blocks += Blocks(size)
	}
	if s.Predicate.TotalSize != total {
		return fmt.Errorf("%w: total_size is %d, the files have %d bytes (section 4)", ErrDigest, s.Predicate.TotalSize, total)
	}
	r := s.Predicate.ContentIndex
	if r.BlockSize != BlockSize {
		return badField("content_index", "block_size %d: want %d (section 5)", r.BlockSize, BlockSize)
	}
	if r.Blocks != blocks || r.Size != indexHeader+sha256Size*blocks {
		return badField("content_index", "%d blocks in %d bytes: the files have %d blocks, which take %d bytes (section 5)",
			r.Blocks, r.Size, blocks, indexHeader+sha256Size*blocks)
	}
	if r.Size > MaxIndex {
		return badField("content_index", "%d bytes: at most %d (section 1): release less than 2 TiB at once", r.Size, MaxIndex)
	}
	return nil
}

func (s *Statement) checkDirectory() error {
	if got := DirectoryDigest(s.Subjects); got != s.Predicate.DirectoryDigest {
		return fmt.Errorf("%w: directory_digest is %s, the files give %s (section 6)", ErrDigest, s.Predicate.DirectoryDigest, got)
	}
	return nil
}

// directoryBuffer gathers the short lines of the directory digest; the hash takes 136 bytes at a time.
const directoryBuffer = 8 << 10

// DirectoryDigest names the whole tree by one value (section 6). The subjects are taken in the order given.
func DirectoryDigest(subjects []Subject) Digest {
	h := sha3.New256()
	w := bufio.NewWriterSize(h, directoryBuffer) // a hash never fails, so neither does the writer
	_, _ = w.WriteString("sluice-directory-v1\n")
	var line []byte
	for i := range subjects {
		s := &subjects[i]
		line = append(hex.AppendEncode(line[:0], s.Digest.SHA256[:]), ' ')
		line = append(strconv.AppendInt(line, s.Annotations.Size, 10), ' ')
		line = append(append(line, s.Name...), '\n')
		_, _ = w.Write(line)
	}
	_ = w.Flush()
	return Digest(h.Sum(nil))
}

// isName: [a-z0-9][a-z0-9._-]*, at most max bytes.
func isName(s string, max int) bool {
	return len(s) > 0 && len(s) <= max && isAlnum(s[0]) && onlyBytes(s, isNameByte)
}

func isAlnum(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

func isNameByte(c byte) bool { return isAlnum(c) || c == '.' || c == '_' || c == '-' }

// isPrintable: 1 to max printable ASCII characters, the space included.
func isPrintable(s string, max int) bool {
	return len(s) > 0 && len(s) <= max && onlyBytes(s, func(c byte) bool { return 0x20 <= c && c < 0x7f })
}
