// SPDX-License-Identifier: Apache-2.0

//go:build pkcs11 && cgo

package token

import (
	"bytes"
	"crypto/sha512"
	"encoding/asn1"
	"fmt"
	"math/big"

	"github.com/miekg/pkcs11"

	"sluice/pkg/mofn"
)

// keys are the handles of the three objects of one key.
type keys struct{ private, public, wrap pkcs11.ObjectHandle }

// curve is what the classical half of a suite is to PKCS#11.
type curve struct {
	kind      uint
	name      string
	generate  uint
	sign      uint
	oid       []byte // CKA_EC_PARAMS as an OID, in DER
	printable []byte // CKA_EC_PARAMS as a PrintableString, in DER
	public    int    // bytes
}

func curveOf(suite mofn.Suite) curve {
	if suite == mofn.SuiteH2 {
		return curve{
			pkcs11.CKK_EC, "P-384", pkcs11.CKM_EC_KEY_PAIR_GEN, pkcs11.CKM_ECDSA,
			[]byte{0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22},
			[]byte("\x13\x09secp384r1"), 97,
		}
	}
	return curve{ckkECEdwards, "Ed25519", ckmECEdwardsKeyPairGen, ckmEdDSA, []byte{0x06, 0x03, 0x2b, 0x65, 0x70}, []byte("\x13\x0cedwards25519"), 32}
}

// objects finds the three objects of a key, and refuses those that the token would give away.
func (s *session) objects(id []byte, c curve) (k keys, err error) {
	for _, o := range []struct {
		class, kind uint
		what        string
		to          *pkcs11.ObjectHandle
		secret      bool
	}{
		{pkcs11.CKO_PRIVATE_KEY, c.kind, "private key (" + c.name + ")", &k.private, true},
		{pkcs11.CKO_PUBLIC_KEY, c.kind, "public key (" + c.name + ")", &k.public, false},
		{pkcs11.CKO_SECRET_KEY, pkcs11.CKK_AES, "AES key, which unwraps the ML-DSA seed,", &k.wrap, true},
	} {
		if *o.to, err = s.object(id, o.class, o.kind, o.what); err != nil {
			return keys{}, err
		}
		if !o.secret {
			continue
		}
		if err := s.kept(*o.to, o.what); err != nil {
			return keys{}, err
		}
	}
	return k, nil
}

// object finds one object. Two with one id are refused: which one signed would be chance.
func (s *session) object(id []byte, class, kind uint, what string) (pkcs11.ObjectHandle, error) {
	err := s.m.FindObjectsInit(s.handle, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, class), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, kind), pkcs11.NewAttribute(pkcs11.CKA_ID, id),
	})
	if err != nil {
		return 0, s.failed("look for the "+what, err)
	}
	found, _, err := s.m.FindObjects(s.handle, 2)
	if done := s.m.FindObjectsFinal(s.handle); err == nil {
		err = done
	}
	switch {
	case err != nil:
		return 0, s.failed("look for the "+what, err)
	case len(found) == 0:
		return 0, fmt.Errorf("%w: %s has no %s with id %X; is it the right token, and was the key deleted there?", ErrNoObject, s.title, what, id)
	case len(found) > 1:
		return 0, fmt.Errorf("%w: %s has more than one %s with id %X; delete the wrong one with the tool of its maker", ErrNoObject, s.title, what, id)
	}
	return found[0], nil
}

// kept refuses a key that the token does not keep to itself (docs/spec/trust.md section 2).
func (s *session) kept(o pkcs11.ObjectHandle, what string) error {
	got, err := s.m.GetAttributeValue(s.handle, o, []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, nil), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, nil),
	})
	if err != nil {
		return s.failed("say whether it keeps the "+what, err)
	}
	if len(got) != 2 || !bytes.Equal(got[0].Value, []byte{1}) || !bytes.Equal(got[1].Value, []byte{0}) {
		return fmt.Errorf("%w: the %s in %s is not sensitive, or extractable; make a new key there", ErrReadable, what, s.title)
	}
	return nil
}

// point reads the classical public key. Both spellings of the curve are taken, and the point with or without its OCTET STRING.
func (s *session) point(o pkcs11.ObjectHandle, c curve) ([]byte, error) {
	got, err := s.m.GetAttributeValue(s.handle, o, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, nil), pkcs11.NewAttribute(pkcs11.CKA_EC_POINT, nil)})
	if err != nil || len(got) != 2 {
		return nil, s.failed("give its public key", err)
	}
	if p := got[0].Value; !bytes.Equal(p, c.oid) && !bytes.Equal(p, c.printable) {
		return nil, fmt.Errorf("%w: its public key in %s is of another curve than %s (CKA_EC_PARAMS %.32X)", ErrOtherKey, s.title, c.name, p)
	}
	point := got[1].Value
	var inner []byte
	if rest, err := asn1.Unmarshal(point, &inner); err == nil && len(rest) == 0 && len(inner) == c.public {
		return inner, nil
	}
	if len(point) == c.public {
		return point, nil
	}
	return nil, fmt.Errorf("%w: its public key in %s has %d bytes (CKA_EC_POINT), which is no point of %s", ErrOtherKey, s.title, len(point), c.name)
}

// half is the classical half that signs in the token. It implements [mofn.ClassicalHalf].
type half struct {
	s      *session
	key    pkcs11.ObjectHandle
	curve  curve
	public []byte
}

func (h half) Public() []byte { return bytes.Clone(h.public) }

// Sign signs all of the message: EdDSA as it is, ECDSA over its SHA-384, since tokens have the raw one (docs/spec/trust.md section 2).
func (h half) Sign(message []byte) ([]byte, error) {
	if h.curve.sign == pkcs11.CKM_ECDSA {
		sum := sha512.Sum384(message)
		message = sum[:]
	}
	if err := h.s.m.SignInit(h.s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(h.curve.sign, nil)}, h.key); err != nil {
		return nil, h.s.failed("sign", err)
	}
	sig, err := h.s.m.Sign(h.s.handle, message)
	if err != nil {
		return nil, h.s.failed("sign", err)
	}
	if h.curve.sign != pkcs11.CKM_ECDSA {
		return sig, nil
	}
	return derOf(sig)
}

// derOf writes r || s as an Ecdsa-Sig-Value (RFC 3279 section 2.2.3).
func derOf(sig []byte) ([]byte, error) {
	if len(sig)%2 != 0 || len(sig) == 0 {
		return nil, fmt.Errorf("%w: an ECDSA signature of %d bytes, which is not r and s of one size", ErrToken, len(sig))
	}
	r, s := new(big.Int).SetBytes(sig[:len(sig)/2]), new(big.Int).SetBytes(sig[len(sig)/2:])
	return asn1.Marshal(struct{ R, S *big.Int }{r, s})
}

// gcmTag is the size of the tag in bits.
const gcmTag = 128

// wrapSeed encrypts the seed, and gives the nonce that was used: some tokens choose their own.
func (s *session) wrapSeed(key pkcs11.ObjectHandle, nonce, seed, additional []byte) (used, wrapped []byte, err error) {
	params := pkcs11.NewGCMParams(nonce, additional, gcmTag)
	defer params.Free()
	if err := s.m.EncryptInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, key); err != nil {
		return nil, nil, s.failed("wrap the seed", err)
	}
	if wrapped, err = s.m.Encrypt(s.handle, seed); err != nil {
		return nil, nil, s.failed("wrap the seed", err)
	}
	return params.IV(), wrapped, nil
}

// unwrapSeed gives the seed in the clear. The caller wipes it.
func (s *session) unwrapSeed(key pkcs11.ObjectHandle, f *mofn.TokenKey) ([]byte, error) {
	params := pkcs11.NewGCMParams(f.Nonce, f.AdditionalData(), gcmTag)
	defer params.Free()
	if err := s.m.DecryptInit(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_GCM, params)}, key); err != nil {
		return nil, s.failed("unwrap the seed", err)
	}
	seed, err := s.m.Decrypt(s.handle, f.Wrapped)
	if err != nil && (gone(err) || !s.present()) {
		return nil, s.failed("unwrap the seed", err)
	}
	if err != nil || len(seed) != mofn.SeedSize { // tokens disagree on the return value for a wrong tag
		wipe(seed)
		return nil, fmt.Errorf("%w: the file was changed, or the AES key in %s is not the one that wrapped it; take the file's backup, or make a new key%s", ErrWrapped, s.title, ckr(err))
	}
	return seed, nil
}
