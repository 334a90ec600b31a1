// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"

	"sluice/pkg/mofn"
)

// partFile is one of the files that a signature becomes.
type partFile struct {
	ending string
	data   []byte
}

// partFiles gives them all.
func partFiles(one signed, parts mofn.Halves) ([]partFile, error) {
	classical, err := publicPEM(parts.Classical)
	if err != nil {
		return nil, err
	}
	mldsa, err := publicPEM(parts.MLDSA)
	if err != nil {
		return nil, err
	}
	files := []partFile{
		{".signed", one.message},
		{".msg", parts.Message},
		{".classical.pem", classical},
		{".classical.sig", parts.Classical.Signature},
		{".mldsa.pem", mldsa},
		{".mldsa.sig", parts.MLDSA.Signature},
	}
	if parts.Classical.Algorithm == "Ed25519" {
		number := one.key.HalfIDs()[1]
		files = append(files,
			partFile{".signify.pub", signify("Ed25519 half of key "+one.key.ID().String()[:16], number, parts.Classical.Public)},
			partFile{".signify.sig", signify("Ed25519 half of a signature by key "+one.key.ID().String()[:16], number, parts.Classical.Signature)})
	}
	return files, nil
}

// publicPEM is the SubjectPublicKeyInfo of one half: RFC 8410, RFC 5480, RFC 9881.
func publicPEM(h mofn.Half) ([]byte, error) {
	var der []byte
	var err error
	switch h.Algorithm {
	case "Ed25519":
		der, err = x509.MarshalPKIXPublicKey(ed25519.PublicKey(h.Public))
	case "ECDSA-P384":
		var key *ecdsa.PublicKey
		if key, err = ecdsa.ParseUncompressedPublicKey(elliptic.P384(), h.Public); err == nil {
			der, err = x509.MarshalPKIXPublicKey(key)
		}
	case "ML-DSA-65", "ML-DSA-87":
		der, err = asn1.Marshal(struct {
			Algorithm pkix.AlgorithmIdentifier
			Key       asn1.BitString
		}{pkix.AlgorithmIdentifier{Algorithm: mldsaOID(h.Algorithm)}, asn1.BitString{Bytes: h.Public, BitLength: 8 * len(h.Public)}})
	default:
		err = fmt.Errorf("internal error: no public key form for %s", h.Algorithm)
	}
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// mldsaOID is id-ml-dsa-65 or id-ml-dsa-87 (RFC 9881 section 2).
func mldsaOID(algorithm string) asn1.ObjectIdentifier {
	const set65, set87 = 18, 19
	last := set65
	if algorithm == "ML-DSA-87" {
		last = set87
	}
	return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 3, last}
}

// signify is a file of OpenBSD's signify(1): a comment, and in base64 "Ed", the number that joins key and signature, and the raw bytes.
// It signs the message itself, so a half of ours needs nothing that only the private key could add. (minisign does: the second
// signature, over its trusted comment.)
func signify(comment string, number mofn.KeyID, raw []byte) []byte {
	const numberSize = 8
	b := append([]byte("Ed"), number[:numberSize]...)
	return fmt.Appendf(nil, "untrusted comment: %s\n%s\n", comment, base64.StdEncoding.EncodeToString(append(b, raw...)))
}

// commands are the lines that check one signature.
func commands(base string, parts mofn.Halves) string {
	var b strings.Builder
	fmt.Fprintf(&b, "sha512sum %[1]s.signed && tail -c 64 %[1]s.msg | od -An -v -tx1 | tr -d ' \\n'; echo   # the same digest twice\n", base)
	if parts.Classical.Algorithm == "Ed25519" {
		fmt.Fprintf(&b, "openssl pkeyutl -verify -rawin -pubin -inkey %[1]s.classical.pem -sigfile %[1]s.classical.sig -in %[1]s.msg\n", base)
		fmt.Fprintf(&b, "signify -V -p %[1]s.signify.pub -x %[1]s.signify.sig -m %[1]s.msg\n", base)
	} else {
		fmt.Fprintf(&b, "openssl dgst -sha384 -verify %[1]s.classical.pem -signature %[1]s.classical.sig %[1]s.msg\n", base)
	}
	fmt.Fprintf(&b, "openssl pkeyutl -verify -rawin -pubin -inkey %[1]s.mldsa.pem -sigfile %[1]s.mldsa.sig -pkeyopt context-string:%[2]s -in %[1]s.msg   # OpenSSL 3.5 or newer\n",
		base, parts.Context)
	return b.String()
}
