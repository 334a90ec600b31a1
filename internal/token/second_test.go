// SPDX-License-Identifier: Apache-2.0

//go:build pkcs11 && cgo

package token

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"sluice/internal/token/tokentest"
	"sluice/pkg/mofn"
)

// representative is M' of docs/spec/trust.md section 1, written anew from that page.
func representative(suite mofn.Suite, role, message string) []byte {
	label := map[mofn.Suite]string{mofn.SuiteH1: "COMPSIG-MLDSA65-Ed25519-SHA512", mofn.SuiteH2: "COMPSIG-MLDSA87-ECDSA-P384-SHA512"}[suite]
	ctx := "sluice/v1/" + role
	sum := sha512.Sum512([]byte(message))
	return slices.Concat([]byte("CompositeAlgorithmSignatures2025"), []byte(label), []byte{byte(len(ctx))}, []byte(ctx), sum[:])
}

// spki is the classical half as others read it.
func spki(t *testing.T, suite mofn.Suite, half []byte) string {
	t.Helper()
	var public any = ed25519.PublicKey(half)
	if suite == mofn.SuiteH2 {
		p, err := ecdsa.ParseUncompressedPublicKey(elliptic.P384(), half)
		if err != nil {
			t.Fatal(err)
		}
		public = p
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func need(t *testing.T, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		t.Skipf("%s is not here: the second implementation was NOT asked", tool)
	}
}

// TestOpenSSL: the classical half of a signature that was made in the token verifies in a program that knows nothing of us.
func TestOpenSSL(t *testing.T) {
	need(t, "openssl")
	mldsa := map[mofn.Suite]int{mofn.SuiteH1: 3309, mofn.SuiteH2: 4627}
	for _, suite := range suites() {
		t.Run(string(suite), func(t *testing.T) {
			h := newHSM(t)
			h.Token(t, "officer-1")
			path, file := h.generate(t, "officer-1", suite)
			signer, err := OpenSigner(path, h.secret())
			if err != nil {
				t.Fatal(err)
			}
			sig, err := signer.Sign("security", []byte("a release"))
			if err != nil {
				t.Fatal(err)
			}
			if err := signer.Close(); err != nil {
				t.Fatal(err)
			}
			public, err := file.PublicKey()
			if err != nil {
				t.Fatal(err)
			}
			pub := h.Write(t, "half.pem", spki(t, suite, public.Classical()))
			half := h.Write(t, "half.sig", string(sig[mldsa[suite]:]))
			verify := func(message string) ([]byte, error) {
				m := h.Write(t, "m", string(representative(suite, "security", message)))
				args := []string{"pkeyutl", "-verify", "-pubin", "-inkey", pub, "-rawin", "-in", m, "-sigfile", half}
				if suite == mofn.SuiteH2 {
					args = []string{"dgst", "-sha384", "-verify", pub, "-signature", half, m}
				}
				return exec.CommandContext(t.Context(), "openssl", args...).CombinedOutput()
			}
			if out, err := verify("a release"); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			if _, err := verify("another"); err == nil {
				t.Error("openssl verified another message")
			}
		})
	}
}

// TestPKCS11Tool: another program finds the keys by their id, signs with them, and what it signs verifies under the half of the file.
func TestPKCS11Tool(t *testing.T) {
	need(t, "pkcs11-tool")
	for _, suite := range suites() {
		h := newHSM(t)
		h.Token(t, "officer-1")
		_, file := h.generate(t, "officer-1", suite)
		u, err := ParseURI(file.Token)
		if err != nil {
			t.Fatal(err)
		}
		public, err := file.PublicKey()
		if err != nil {
			t.Fatal(err)
		}
		message := []byte("by another program")
		mechanism, sum := "EDDSA", sha512.Sum384(message)
		if suite == mofn.SuiteH2 {
			mechanism, message = "ECDSA", sum[:]
		}
		in := h.Write(t, "in", string(message))
		tokentest.Run(t, "pkcs11-tool", "--module", h.Module, "--token-label", "officer-1", "--login", "--pin", tokentest.PIN, "--sign", "--mechanism", mechanism,
			"--signature-format", "openssl", "--id", fmt.Sprintf("%X", u.ID), "-i", in, "-o", h.Path("out"))
		sig, err := os.ReadFile(h.Path("out"))
		if err != nil {
			t.Fatal(err)
		}
		ok := suite == mofn.SuiteH1 && ed25519.Verify(public.Classical(), message, sig)
		if suite == mofn.SuiteH2 {
			p, err := ecdsa.ParseUncompressedPublicKey(elliptic.P384(), public.Classical())
			if err != nil {
				t.Fatal(err)
			}
			ok = ecdsa.VerifyASN1(p, message, sig)
		}
		if !ok {
			t.Errorf("%s: does not verify", suite)
		}
		objects := tokentest.Run(t, "pkcs11-tool", "--module", h.Module, "--token-label", "officer-1", "--login", "--pin", tokentest.PIN, "--list-objects")
		for _, word := range []string{"Private Key Object", "Public Key Object", "Secret Key Object; AES length 32", "sensitive, always sensitive, never extractable"} {
			if !strings.Contains(objects, word) {
				t.Errorf("%s: no %q in\n%s", suite, word, objects)
			}
		}
	}
}
