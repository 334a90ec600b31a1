// SPDX-License-Identifier: Apache-2.0

package conformance_test

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"os"
	"testing"

	"sluice/pkg/mofn"
	"sluice/pkg/mofn/internal/composite"
)

type lampsFile struct {
	M, Ctx []byte
	Tests  []lampsVector
}

type lampsVector struct {
	TcID            string
	PK, X5C, SK     []byte
	SKPKCS8         []byte `json:"sk_pkcs8"`
	S, SWithContext []byte
}

func readLAMPS(t *testing.T) (f lampsFile) {
	t.Helper()
	b, err := os.ReadFile("testdata/lamps.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestDraft: keys, signatures with and without a context, and the self-signed certificate of the draft.
func TestDraft(t *testing.T) {
	f := readLAMPS(t)
	n := 0
	for _, v := range f.Tests {
		suite := map[string]mofn.Suite{"id-MLDSA65-Ed25519-SHA512": mofn.SuiteH1, "id-MLDSA87-ECDSA-P384-SHA512": mofn.SuiteH2}[v.TcID]
		if suite == "" {
			continue
		}
		n++
		t.Run(v.TcID, func(t *testing.T) { testDraft(t, f, v, suite) })
	}
	count(t, "composites of the draft", n, 2)
}

func testDraft(t *testing.T, f lampsFile, v lampsVector, suite mofn.Suite) {
	algorithm := map[mofn.Suite]*composite.Algorithm{mofn.SuiteH1: composite.MLDSA65Ed25519(), mofn.SuiteH2: composite.MLDSA87P384()}[suite]
	public, err := algorithm.ParsePublic(v.PK)
	if err != nil {
		t.Fatal(err)
	}
	if !public.Verify(nil, f.M, v.S) || !public.Verify(f.Ctx, f.M, v.SWithContext) {
		t.Error("a signature of the draft does not verify")
	}
	flipped := func(at int) []byte {
		b := bytes.Clone(v.S)
		b[at] ^= 1
		return b
	}
	for what, ok := range map[string]bool{
		"a bit of the ML-DSA half": public.Verify(nil, f.M, flipped(100)), "a bit of the classical half": public.Verify(nil, f.M, flipped(len(v.S)-1)),
		"context added": public.Verify(f.Ctx, f.M, v.S), "context dropped": public.Verify(nil, f.M, v.SWithContext),
		"another message": public.Verify(nil, f.M[1:], v.S), "cut": public.Verify(nil, f.M, v.S[:len(v.S)-1]),
	} {
		if ok {
			t.Errorf("%s: it verifies", what)
		}
	}
	key := mofn.SecretKey{Suite: suite, Secret: v.SK, Public: v.PK} // the form of our key files is the draft's
	if _, err := key.SigningKey(); err != nil {
		t.Errorf("private key: %v", err)
	}
	private, err := algorithm.ParseSecret(v.SK)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(private.Public(), v.PK) {
		t.Error("the private key has another public key")
	}
	own, err := private.Sign(f.Ctx, f.M)
	if err != nil || !public.Verify(f.Ctx, f.M, own) {
		t.Errorf("own signature: %v", err)
	}
	if !bytes.HasSuffix(v.SKPKCS8, v.SK) {
		t.Error("PKCS #8 does not end in the private key")
	}
	testCertificate(t, v, public)
}

// certificate is as much of RFC 5280 as is needed to take one apart.
type certificate struct {
	TBS       tbs
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

type tbs struct {
	Raw        asn1.RawContent
	Version    asn1.RawValue `asn1:"explicit,tag:0"`
	Serial     asn1.RawValue
	Algorithm  pkix.AlgorithmIdentifier
	Issuer     asn1.RawValue
	Validity   asn1.RawValue
	Subject    asn1.RawValue
	PublicKey  publicKeyInfo
	Extensions asn1.RawValue `asn1:"optional,explicit,tag:3"`
}

type publicKeyInfo struct {
	Algorithm pkix.AlgorithmIdentifier
	Key       asn1.BitString
}

// testCertificate verifies a signature that somebody else made over something longer than a sentence.
func testCertificate(t *testing.T, v lampsVector, public *composite.PublicKey) {
	var c certificate
	if rest, err := asn1.Unmarshal(v.X5C, &c); err != nil || len(rest) > 0 {
		t.Fatalf("certificate: %v", err)
	}
	if !bytes.Equal(c.TBS.PublicKey.Key.Bytes, v.PK) {
		t.Error("the certificate has another key")
	}
	if !public.Verify(nil, c.TBS.Raw, c.Signature.Bytes) {
		t.Error("the signature of the certificate does not verify")
	}
	c.TBS.Raw[len(c.TBS.Raw)-1] ^= 1
	if public.Verify(nil, c.TBS.Raw, c.Signature.Bytes) {
		t.Error("control: it verifies whatever the certificate says")
	}
}

// TestDraftHalves: ML-DSA alone, with and without a context.
func TestDraftHalves(t *testing.T) {
	f := readLAMPS(t)
	n := 0
	forEachSet(t, func(t *testing.T, p parameterSet) {
		for _, v := range f.Tests {
			if v.TcID != "id-ML-DSA-"+p.name {
				continue
			}
			n++
			if !verifies(p.half(""), v.PK, f.M, v.S) || !verifies(p.half(string(f.Ctx)), v.PK, f.M, v.SWithContext) {
				t.Error("does not verify")
			}
			if verifies(p.half(string(f.Ctx)), v.PK, f.M, v.S) || verifies(p.half(""), v.PK, f.M, v.SWithContext) {
				t.Error("verifies in another context")
			}
			private, err := p.half("").Signer(v.SK)
			if err != nil || !bytes.Equal(private.Public(), v.PK) {
				t.Errorf("the seed has another public key: %v", err)
			}
		}
	})
	count(t, "ML-DSA of the draft", n, 2)
}
