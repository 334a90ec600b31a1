// SPDX-License-Identifier: Apache-2.0

// Package oms makes and reads the model signature of docs/spec/model-signature.md: a bundle of OpenSSF Model Signing 1.0, for tools
// that know OMS and not Sluice.
//
//	names and digests --Statement--> in-toto Statement --Key.Sign--> bundle --Parse--> Bundle --Verify--> nil
//
// Pure: the caller reads key files and knows the release. No byte of a file is hashed here; the digests are those of the release
// statement, which were verified.
package oms

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

var (
	// ErrKey says that it is not an ECDSA P-384 key in the one form of model-signature.md section 3.
	ErrKey = errors.New("oms: unusable model signing key")
	// ErrFormat says that it is not a bundle or statement in the form of model-signature.md.
	ErrFormat = errors.New("oms: malformed model signature")
	// ErrSignature says that the signature is not the key's over this statement.
	ErrSignature = errors.New("oms: bad model signature")
)

const (
	mediaType     = "application/vnd.dev.sigstore.bundle.v0.3+json"
	payloadType   = "application/vnd.in-toto+json"
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://model_signing/signature/v1.0"

	// MaxBundle is the longest bundle in bytes: a release statement of 32 MiB lists the same paths and digests, and base64 adds a third.
	MaxBundle = 64 << 20
)

// File is one file of a model: its path, as in the release statement, and the digest of its bytes.
type File struct {
	Path   string
	SHA256 [sha256.Size]byte
}

// bundle is the Sigstore bundle of section 1.
type bundle struct {
	MediaType string   `json:"mediaType"`
	Material  material `json:"verificationMaterial"`
	Envelope  dsse     `json:"dsseEnvelope"`
}

type material struct {
	PublicKey publicKey `json:"publicKey"`
	// TlogEntries is always empty, and there: older readers want the list.
	TlogEntries []struct{} `json:"tlogEntries"`
}

type publicKey struct {
	Hint string `json:"hint"`
}

type dsse struct {
	Payload     []byte      `json:"payload"`
	PayloadType string      `json:"payloadType"`
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	Sig   []byte `json:"sig"`
	KeyID string `json:"keyid"` // always "": OMS names the key by the hint
}

// statement is the in-toto statement of section 2.
type statement struct {
	Type          string    `json:"_type"`
	Subject       []subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     predicate `json:"predicate"`
}

type subject struct {
	Name   string    `json:"name"`
	Digest digestSet `json:"digest"`
}

type digestSet struct {
	SHA256 string `json:"sha256"`
}

type predicate struct {
	Resources     []resource    `json:"resources"`
	Serialization serialization `json:"serialization"`
}

type resource struct {
	Name      string `json:"name"`
	Digest    string `json:"digest"`
	Algorithm string `json:"algorithm"`
}

type serialization struct {
	Method        string   `json:"method"`
	HashType      string   `json:"hash_type"`
	AllowSymlinks bool     `json:"allow_symlinks"`
	IgnorePaths   []string `json:"ignore_paths"`
}

// Statement gives the bytes that are signed for a model of that name (section 2), the caller's to keep. The files are sorted strictly by
// path, bytewise, and at least one; otherwise ErrFormat. The rules for paths are the release statement's, whose reader has checked them.
func Statement(name string, files []File) ([]byte, error) {
	if name == "" || len(files) == 0 {
		return nil, fmt.Errorf("%w: a model needs a name and a file", ErrFormat)
	}
	root, resources := sha256.New(), make([]resource, len(files))
	for i, f := range files {
		if i > 0 && files[i-1].Path >= f.Path {
			return nil, fmt.Errorf("%w: file %q is not after %q", ErrFormat, f.Path, files[i-1].Path)
		}
		root.Write(f.SHA256[:])
		resources[i] = resource{Name: f.Path, Digest: hex.EncodeToString(f.SHA256[:]), Algorithm: "sha256"}
	}
	return encode(statement{
		Type: statementType, Subject: []subject{{name, digestSet{hex.EncodeToString(root.Sum(nil))}}}, PredicateType: predicateType,
		// Nothing is ignored: what a signature leaves out rides along unsigned.
		Predicate: predicate{resources, serialization{Method: "files", HashType: "sha256", IgnorePaths: []string{}}},
	})
}

// Bundle is a model signature that was read, and not yet verified.
type Bundle struct {
	Hint      string // names the key; see Key.Hint
	Statement []byte // the signed bytes, as they came
	signature []byte
}

// Parse reads a bundle in the one form of section 1. It does not look into the statement: who has the release compares it with what
// Statement gives. Error: ErrFormat.
func Parse(b []byte) (*Bundle, error) {
	if len(b) > MaxBundle {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrFormat, len(b), MaxBundle)
	}
	var v bundle
	if err := json.Unmarshal(b, &v); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	again, err := encode(v)
	if err != nil || !bytes.Equal(again, b) {
		return nil, fmt.Errorf("%w: not in the one form of docs/spec/model-signature.md", ErrFormat)
	}
	hint, err := hex.DecodeString(v.Material.PublicKey.Hint)
	switch {
	case v.MediaType != mediaType || v.Envelope.PayloadType != payloadType:
		return nil, fmt.Errorf("%w: types %q and %q", ErrFormat, v.MediaType, v.Envelope.PayloadType)
	case err != nil || len(hint) != sha256.Size:
		return nil, fmt.Errorf("%w: the hint of the key is no SHA-256", ErrFormat)
	case v.Material.TlogEntries == nil || len(v.Material.TlogEntries) > 0:
		return nil, fmt.Errorf("%w: log entries, which a signature by a key has not", ErrFormat)
	case len(v.Envelope.Signatures) != 1 || v.Envelope.Signatures[0].KeyID != "":
		return nil, fmt.Errorf("%w: not exactly one signature without key id", ErrFormat)
	}
	return &Bundle{v.Material.PublicKey.Hint, v.Envelope.Payload, v.Envelope.Signatures[0].Sig}, nil
}

// pae is the pre-authentication encoding of DSSE 1.0.2.
func pae(payload []byte) []byte {
	return append(fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload)), payload...)
}

// encode gives the one JSON form (envelope.md section 3).
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
