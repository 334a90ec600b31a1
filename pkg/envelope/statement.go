// SPDX-License-Identifier: Apache-2.0

package envelope

import "fmt"

// Types of the in-toto statements (sections 4 and 7).
const (
	StatementType         = "https://in-toto.io/Statement/v1"
	PredicateTypeRelease  = "urn:sluice:release:v1"
	PredicateTypeApproval = "urn:sluice:approval:v1"
)

// Kind says what a release carries.
type Kind string

// The kinds of section 4.
const (
	KindModelWeights        Kind = "model-weights"
	KindSoftwarePackage     Kind = "software-package"
	KindContainerImages     Kind = "container-images"
	KindDataset             Kind = "dataset"
	KindPolicyUpdate        Kind = "policy-update"
	KindCertificateRotation Kind = "certificate-rotation"
	KindLicense             Kind = "license"
	KindTrustUpdate         Kind = "trust-update"
	KindRevocation          Kind = "revocation"
)

// Sources of a release.
const (
	SourceHuggingFace = "huggingface"
	SourceDirectory   = "directory"
)

// Verdicts of the gate and of the inspection; an inspection has no exception.
const (
	VerdictPass          = "pass"
	VerdictFail          = "fail"
	VerdictException     = "exception"
	VerdictNotApplicable = "not-applicable"
)

// Statement is the release statement: an in-toto Statement v1 whose subjects are the files of the release, sorted
// strictly increasing bytewise by name. The JSON tags give the same bytes as Marshal, but check nothing.
type Statement struct {
	Type          string    `json:"_type"`
	Subjects      []Subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     Predicate `json:"predicate"`
}

// Subject is one file.
type Subject struct {
	Name        string      `json:"name"` // the path, CheckPath
	Digest      DigestSet   `json:"digest"`
	Annotations Annotations `json:"annotations"`
}

// DigestSet is in-toto's map of digests, with its one member.
type DigestSet struct {
	SHA256 Digest `json:"sha256"`
}

// Annotations carries the size of the file in bytes.
type Annotations struct {
	Size int64 `json:"size"`
}

// Predicate is the predicate of a release statement: section 4, in this order. Sizes are bytes; times are RFC 3339 in
// UTC with whole seconds and Z (FormatTime).
type Predicate struct {
	Stream          string          `json:"stream"`
	Epoch           int64           `json:"epoch"`
	Seq             int64           `json:"seq"`
	Prev            string          `json:"prev"` // release id of the predecessor, "" for the first
	Kind            Kind            `json:"kind"`
	Name            string          `json:"name"`
	Version         string          `json:"version"`
	Source          Source          `json:"source"`
	Base            *Base           `json:"base,omitempty"`
	Quantization    *Quantization   `json:"quantization,omitempty"`
	Gate            Gate            `json:"gate"`
	Inspection      Inspection      `json:"inspection"`
	Evidence        []EvidenceRef   `json:"evidence"`
	Created         string          `json:"created"`
	Expires         string          `json:"expires"`
	Audience        []string        `json:"audience"`
	Classification  string          `json:"classification"`
	TotalSize       int64           `json:"total_size"`
	ContentIndex    ContentIndexRef `json:"content_index"`
	DirectoryDigest Digest          `json:"directory_digest"`
}

// Source says where the files came from.
type Source struct {
	Type     string `json:"type"`
	Repo     string `json:"repo"`
	Revision string `json:"revision"`
	Commit   string `json:"commit"`
}

// Base is the model that this one was quantized from.
type Base struct {
	Repo   string `json:"repo"`
	Commit string `json:"commit"`
}

// Quantization says how.
type Quantization struct {
	Method    string `json:"method"`
	Bits      int64  `json:"bits"`
	GroupSize int64  `json:"group_size"`
	Version   string `json:"version"`
}

// Gate is the verdict of the quality gate. Reason is required with an exception.
type Gate struct {
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
}

// Inspection is the verdict of the content inspection.
type Inspection struct {
	Verdict string `json:"verdict"`
}

// EvidenceRef binds one evidence section.
type EvidenceRef struct {
	Name   string `json:"name"`
	SHA256 Digest `json:"sha256"`
	Size   int64  `json:"size"`
}

// ContentIndexRef binds the content index: Size is its length in bytes, Blocks the number of digests in it.
type ContentIndexRef struct {
	SHA256    Digest `json:"sha256"`
	Size      int64  `json:"size"`
	BlockSize int64  `json:"block_size"`
	Blocks    int64  `json:"blocks"`
}

// Marshal checks every rule of section 4 and returns the canonical bytes, the caller's to keep. It does not change s.
// Errors: ErrFormat, ErrDigest (total size, directory digest), ErrVersion.
func (s *Statement) Marshal() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("write release statement: %w", err)
	}
	b, err := encode(s.layout)
	if err != nil {
		return nil, fmt.Errorf("write release statement: %w", err)
	}
	if len(b) > MaxStatement {
		return nil, fmt.Errorf("write release statement: %w: %d bytes, at most %d (section 1): release fewer files or shorter paths",
			ErrFormat, len(b), MaxStatement)
	}
	return b, nil
}

// ParseStatement takes a release statement in its one canonical form and checks every rule of sections 1, 3, 4 and 6.
// Nothing of b is kept. Errors: ErrFormat with the byte or the field, ErrDigest, ErrVersion.
func ParseStatement(b []byte) (*Statement, error) {
	if len(b) > MaxStatement {
		return nil, fmt.Errorf("release statement: %w: %d bytes, at most %d (section 1)", ErrFormat, len(b), MaxStatement)
	}
	s := &Statement{}
	if err := decode(b, s.layout); err != nil {
		return nil, fmt.Errorf("release statement: %w", err)
	}
	if s.Predicate.Evidence == nil {
		s.Predicate.Evidence = []EvidenceRef{}
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("release statement: %w", err)
	}
	return s, nil
}

func (s *Statement) layout(c codec) {
	c.lit(`{"_type":`)
	c.str(&s.Type)
	c.lit(`,"subject":`)
	list(c, &s.Subjects, MaxFiles, layoutSubject)
	c.lit(`,"predicateType":`)
	c.str(&s.PredicateType)
	c.lit(`,"predicate":`)
	s.Predicate.layout(c)
	c.lit(`}`)
}

func layoutSubject(c codec, s *Subject) {
	c.lit(`{"name":`)
	c.path(&s.Name)
	c.lit(`,"digest":{"sha256":`)
	c.digest(&s.Digest.SHA256)
	c.lit(`},"annotations":{"size":`)
	c.num(&s.Annotations.Size)
	c.lit(`}}`)
}

func (p *Predicate) layout(c codec) {
	c.lit(`{"stream":`)
	c.str(&p.Stream)
	c.lit(`,"epoch":`)
	c.num(&p.Epoch)
	c.lit(`,"seq":`)
	c.num(&p.Seq)
	c.lit(`,"prev":`)
	c.str(&p.Prev)
	c.lit(`,"kind":`)
	c.str((*string)(&p.Kind))
	c.lit(`,"name":`)
	c.str(&p.Name)
	c.lit(`,"version":`)
	c.str(&p.Version)
	p.layoutOrigin(c)
	c.lit(`,"evidence":`)
	list(c, &p.Evidence, MaxEvidence, layoutEvidence)
	c.lit(`,"created":`)
	c.str(&p.Created)
	c.lit(`,"expires":`)
	c.str(&p.Expires)
	c.lit(`,"audience":`)
	list(c, &p.Audience, MaxAudience, layoutString)
	c.lit(`,"classification":`)
	c.str(&p.Classification)
	c.lit(`,"total_size":`)
	c.num(&p.TotalSize)
	p.ContentIndex.layout(c)
	c.lit(`,"directory_digest":`)
	c.digest(&p.DirectoryDigest)
	c.lit(`}`)
}

// layoutOrigin: where the files came from, and what was said of them.
func (p *Predicate) layoutOrigin(c codec) {
	c.lit(`,"source":{"type":`)
	c.str(&p.Source.Type)
	c.lit(`,"repo":`)
	c.str(&p.Source.Repo)
	c.lit(`,"revision":`)
	c.str(&p.Source.Revision)
	c.lit(`,"commit":`)
	c.str(&p.Source.Commit)
	c.lit(`}`)
	if c.opt(`,"base":`, p.Base != nil) {
		layoutBase(c, ensure(&p.Base))
	}
	if c.opt(`,"quantization":`, p.Quantization != nil) {
		layoutQuantization(c, ensure(&p.Quantization))
	}
	c.lit(`,"gate":{"verdict":`)
	c.str(&p.Gate.Verdict)
	c.lit(`,"reason":`)
	c.str(&p.Gate.Reason)
	c.lit(`},"inspection":{"verdict":`)
	c.str(&p.Inspection.Verdict)
	c.lit(`}`)
}

// ensure returns the value of an optional field, made when it is not there yet (only ever when decoding).
func ensure[T any](p **T) *T {
	if *p == nil {
		*p = new(T)
	}
	return *p
}

func layoutBase(c codec, b *Base) {
	c.lit(`{"repo":`)
	c.str(&b.Repo)
	c.lit(`,"commit":`)
	c.str(&b.Commit)
	c.lit(`}`)
}

func layoutQuantization(c codec, q *Quantization) {
	c.lit(`{"method":`)
	c.str(&q.Method)
	c.lit(`,"bits":`)
	c.num(&q.Bits)
	c.lit(`,"group_size":`)
	c.num(&q.GroupSize)
	c.lit(`,"version":`)
	c.str(&q.Version)
	c.lit(`}`)
}

func layoutEvidence(c codec, r *EvidenceRef) {
	c.lit(`{"name":`)
	c.str(&r.Name)
	c.lit(`,"sha256":`)
	c.digest(&r.SHA256)
	c.lit(`,"size":`)
	c.num(&r.Size)
	c.lit(`}`)
}

func (r *ContentIndexRef) layout(c codec) {
	c.lit(`,"content_index":{"sha256":`)
	c.digest(&r.SHA256)
	c.lit(`,"size":`)
	c.num(&r.Size)
	c.lit(`,"block_size":`)
	c.num(&r.BlockSize)
	c.lit(`,"blocks":`)
	c.num(&r.Blocks)
	c.lit(`}`)
}
