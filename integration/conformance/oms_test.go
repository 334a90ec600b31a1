// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	bundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"sluice/internal/oms"
)

// omsStatement is what OMS 1.0 puts into DSSE (sections 5 and 6), read with nothing of ours.
type omsStatement struct {
	Type    string `json:"_type"`
	Subject []struct {
		Name   string            `json:"name"`
		Digest map[string]string `json:"digest"`
	} `json:"subject"`
	PredicateType string `json:"predicateType"`
	Predicate     *struct {
		Resources []struct {
			Name, Digest, Algorithm string
		} `json:"resources"`
		Serialization struct {
			Method        string   `json:"method"`
			HashType      string   `json:"hash_type"`
			AllowSymlinks *bool    `json:"allow_symlinks"`
			IgnorePaths   []string `json:"ignore_paths"`
		} `json:"serialization"`
	} `json:"predicate"`
}

// omsRead is an independent reader: Sigstore's own types for the bundle, then the texts of OMS 1.0. public is PEM; nil leaves the signature
// out, as a check of the form alone does.
func omsRead(text, public []byte) (*omsStatement, error) {
	var b bundle.Bundle
	// Bundles of before 1.1 have fields that Sigstore's type has not (section 11.1).
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, &b); err != nil {
		return nil, err
	}
	env, material := b.GetDsseEnvelope(), b.GetVerificationMaterial()
	switch {
	case !strings.HasPrefix(b.GetMediaType(), "application/vnd.dev.sigstore.bundle"):
		return nil, fmt.Errorf("media type %q", b.GetMediaType())
	case env == nil || len(env.GetSignatures()) != 1 || env.GetPayloadType() != "application/vnd.in-toto+json":
		return nil, errors.New("not one signature over an in-toto statement")
	case material.GetContent() == nil:
		return nil, errors.New("no verification material")
	case material.GetCertificate() != nil && len(material.GetTlogEntries()) == 0:
		return nil, errors.New("keyless, without an entry of a log")
	}
	if public != nil {
		if err := omsVerify(&b, public); err != nil {
			return nil, err
		}
	}
	var s omsStatement
	if err := json.Unmarshal(env.GetPayload(), &s); err != nil {
		return nil, err
	}
	return &s, s.check()
}

func omsVerify(b *bundle.Bundle, public []byte) error {
	block, _ := pem.Decode(public)
	parsed, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return err
	}
	key := parsed.(*ecdsa.PublicKey)
	var digest []byte
	message := dsse.PAE(b.GetDsseEnvelope().GetPayloadType(), b.GetDsseEnvelope().GetPayload())
	switch key.Curve.Params().BitSize {
	case 256:
		sum := sha256.Sum256(message)
		digest = sum[:]
	case 384:
		sum := sha512.Sum384(message)
		digest = sum[:]
	default:
		sum := sha512.Sum512(message)
		digest = sum[:]
	}
	der, err := x509.MarshalPKIXPublicKey(key) // the file may have text around it
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})); b.GetVerificationMaterial().GetPublicKey().GetHint() != "" && b.GetVerificationMaterial().GetPublicKey().GetHint() != hex.EncodeToString(sum[:]) {
		return errors.New("the hint is of another key")
	}
	if !ecdsa.VerifyASN1(key, digest, b.GetDsseEnvelope().GetSignatures()[0].GetSig()) {
		return errors.New("bad signature")
	}
	return nil
}

// check is sections 5.2, 6.4 and 6.5.
func (s *omsStatement) check() error {
	if s.Type != "https://in-toto.io/Statement/v1" || s.PredicateType != "https://model_signing/signature/v1.0" || s.Predicate == nil || len(s.Subject) != 1 || s.Subject[0].Name == "" {
		return errors.New("not an OMS 1.0 statement about one model")
	}
	ser := s.Predicate.Serialization
	if ser.Method != "files" || ser.HashType != "sha256" || ser.AllowSymlinks == nil {
		return fmt.Errorf("serialization %+v", ser)
	}
	root, last := sha256.New(), ""
	for i, r := range s.Predicate.Resources {
		sum, err := hex.DecodeString(r.Digest)
		if err != nil || r.Algorithm != "sha256" || i > 0 && r.Name <= last {
			return fmt.Errorf("resource %d %+v: %w", i, r, err)
		}
		last = r.Name
		root.Write(sum)
	}
	if got := hex.EncodeToString(root.Sum(nil)); len(s.Predicate.Resources) == 0 || s.Subject[0].Digest["sha256"] != got {
		return fmt.Errorf("root digest %v, resources give %s", s.Subject[0].Digest, got)
	}
	return nil
}

// TestOMSOurs: the independent reader takes our vector, and a bundle made now; and no change of it.
func TestOMSOurs(t *testing.T) {
	good, err := os.ReadFile(vectors + "oms/good.sig")
	must(t, err)
	key, err := os.ReadFile(vectors + "oms/key.pub")
	must(t, err)
	must(t, protojson.Unmarshal(good, new(bundle.Bundle))) // strictly: it has no field that Sigstore does not know
	s, err := omsRead(good, key)
	must(t, err)
	var want struct{ Files map[string]string }
	text, err := os.ReadFile(vectors + "oms/good.json")
	must(t, err)
	must(t, json.Unmarshal(text, &want))
	for _, r := range s.Predicate.Resources {
		if want.Files[r.Name] != r.Digest {
			t.Errorf("%s has %s", r.Name, r.Digest)
		}
	}
	if len(s.Predicate.Resources) != len(want.Files) || len(s.Predicate.Serialization.IgnorePaths) != 0 {
		t.Errorf("%d files of %d, ignored: %v", len(s.Predicate.Resources), len(want.Files), s.Predicate.Serialization.IgnorePaths)
	}
	bad, err := filepath.Glob(vectors + "oms/bad-*.sig")
	must(t, err)
	forms := []string{"bad-keyid.sig", "bad-no-list.sig", "bad-white-space.sig", "bad-media-type.sig", "bad-log-entry.sig", "bad-unknown.sig"} // OMS takes more forms than we write
	for _, name := range bad {
		text, err := os.ReadFile(name)
		must(t, err)
		if _, err := omsRead(text, key); (err == nil) != slices.Contains(forms, filepath.Base(name)) {
			t.Errorf("%s: %v", filepath.Base(name), err)
		}
	}
	private, public, err := oms.GenerateKey()
	must(t, err)
	signer, err := oms.ParseKey(private)
	must(t, err)
	statement, err := oms.Statement("m", []oms.File{{Path: "a"}, {Path: "b/c", SHA256: [32]byte{1}}})
	must(t, err)
	made, err := signer.Sign(statement)
	must(t, err)
	if _, err := omsRead(made, public); err != nil {
		t.Error(err)
	}
	if _, err := omsRead(made, key); err == nil {
		t.Error("verifies under another key")
	}
}

// elsewhere gives a folder of vectors that no Go module carries: it is named by a variable, or the test says aloud that it did not run.
func elsewhere(t *testing.T, variable, what string) string {
	t.Helper()
	dir := os.Getenv(variable)
	if dir == "" {
		t.Skipf("%s is not set: %s did NOT run (no Go module carries them; README.md says where they are)", variable, what)
	}
	return dir
}

// TestOMSSpecVectors: the eight bundles of the specification, which are about the form, and of which three are good.
func TestOMSSpecVectors(t *testing.T) {
	dir := elsewhere(t, "OMS_SPEC_VECTORS", "the bundles of ossf/model-signing-spec")
	files, err := filepath.Glob(filepath.Join(dir, "*", "*.bundle.json"))
	must(t, err)
	count(t, "bundles of the specification", len(files), 8)
	for _, name := range files {
		text, err := os.ReadFile(name)
		must(t, err)
		good := filepath.Base(filepath.Dir(name)) == "valid"
		if _, err := omsRead(text, nil); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOMSPublicSignatures: bundles that four releases of the public tool made, under the key of its tests: our reading of OMS is theirs.
func TestOMSPublicSignatures(t *testing.T) {
	dir := elsewhere(t, "OMS_TOOL_VECTORS", "the signed models of sigstore/model-transparency")
	key, err := os.ReadFile(filepath.Join(dir, "keys", "certificate", "signing-key-pub.pem"))
	must(t, err)
	files, err := filepath.Glob(filepath.Join(dir, "v*-elliptic-key", "model.sig"))
	must(t, err)
	count(t, "bundles under an elliptic key", len(files), 4)
	for _, name := range files {
		text, err := os.ReadFile(name)
		must(t, err)
		s, err := omsRead(text, key)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		t.Log(filepath.Base(filepath.Dir(name)), len(s.Predicate.Resources), "files")
	}
}

// TestOMSHint: PEM text as the public tool writes it, which the hint is the digest of.
func TestOMSHint(t *testing.T) {
	key, err := os.ReadFile(vectors + "oms/key.pub")
	must(t, err)
	if !regexp.MustCompile(`^-----BEGIN PUBLIC KEY-----\n([A-Za-z0-9+/]{64}\n)*[A-Za-z0-9+/=]{1,64}\n-----END PUBLIC KEY-----\n$`).Match(key) {
		t.Errorf("%q", key)
	}
	p, err := oms.ParsePublicKey(key)
	must(t, err)
	if sum := sha256.Sum256(key); p.Hint() != hex.EncodeToString(sum[:]) {
		t.Error("the hint is not the digest of the file")
	}
}
