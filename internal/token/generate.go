// SPDX-License-Identifier: Apache-2.0

//go:build pkcs11 && cgo

package token

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/pkcs11"

	"sluice/pkg/mofn"
)

// idSize is the size of CKA_ID in bytes: random, so that no two keys share one.
const idSize = 16

// maxLabel is what every token takes.
const maxLabel = 32

// Generate makes a key in a token: the classical pair and the AES key in the token, the ML-DSA seed here, wrapped at once. It signs once with
// what it made before it calls Keep. After any failure nothing of it is left in the token.
func Generate(r Request) error { return generate(load, r) }

func generate(ld loader, r Request) (err error) {
	if !r.Suite.Signs() {
		return fmt.Errorf("%w: suite %q does not sign", mofn.ErrKey, r.Suite)
	}
	if len(r.URI.ID) > 0 || r.URI.Type != "" {
		return fmt.Errorf("%w: id and type are chosen when a key is made; leave them out", ErrURI)
	}
	s, err := open(ld, r.URI, r.Suite, pkcs11.CKF_RW_SESSION, r.Secret)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if r.Note != nil && softHSM(s.info) {
		r.Note(fmt.Sprintf("note: %s is a software token. Its PIN protects little: whoever copies its directory tries thousands of PINs a second on one core, without a limit. "+
			"Give it a PIN of at least 16 random characters, and keep the directory on an encrypted disk.", s.title))
	}
	file, made, err := s.make(r)
	if err == nil {
		err = r.Keep(file)
	}
	if err != nil {
		return errors.Join(err, s.destroy(made))
	}
	return nil
}

func softHSM(t pkcs11.TokenInfo) bool {
	return strings.Contains(strings.ToLower(t.ManufacturerID+t.Model), "softhsm")
}

// make makes the objects and the file. made are the objects that are in the token, whatever happened.
func (s *session) make(r Request) (file *mofn.TokenKey, made []pkcs11.ObjectHandle, err error) {
	fresh := make([]byte, idSize+nonceSize+mofn.SeedSize)
	if _, err := rand.Read(fresh); err != nil {
		return nil, nil, fmt.Errorf("token: random bytes: %w", err)
	}
	id, nonce, seed := fresh[:idSize], fresh[idSize:idSize+nonceSize], fresh[idSize+nonceSize:]
	defer wipe(seed)
	label := fmt.Sprintf("%.*s", maxLabel, cmp.Or(r.URI.Object, "sluice "+string(r.Suite)))
	c := curveOf(r.Suite)
	public, private, err := s.pair(c, id, label, c.oid, c.printable)
	if err != nil {
		return nil, nil, err
	}
	made = append(made, public, private)
	wrap, err := s.m.GenerateKey(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, wrapTemplate(id, label))
	if err != nil {
		return nil, made, s.failed("make an AES key", err)
	}
	made = append(made, wrap)
	found, err := s.objects(id, c) // as a reader will find them, and with what the token made of the attributes
	if err != nil {
		return nil, made, err
	}
	point, err := s.point(found.public, c)
	if err != nil {
		return nil, made, err
	}
	h := half{s, found.private, c, point}
	joined, err := mofn.NewPrivateKey(r.Suite, seed, h)
	if err != nil {
		return nil, made, err
	}
	file = &mofn.TokenKey{Suite: r.Suite, Public: joined.Public().Bytes(), Comment: r.Comment, Token: s.uriOf(r.URI, id, label)}
	if file.Nonce, file.Wrapped, err = s.wrapSeed(found.wrap, nonce, seed, file.AdditionalData()); err != nil {
		return nil, made, err
	}
	return file, made, s.rehearse(file, found, h)
}

// nonceSize is that of the file.
const nonceSize = 12

// rehearse reads the file as it will be read, and signs with it: a key that cannot sign is found now and not at the first approval.
func (s *session) rehearse(file *mofn.TokenKey, found keys, h half) error {
	text, err := file.Marshal()
	if err != nil {
		return err
	}
	again, err := mofn.ParseTokenKey(text)
	if err != nil {
		return err
	}
	if _, err := ParseURI(again.Token); err != nil {
		return err
	}
	k := &key{file: again, s: s, keys: found, half: h}
	joined, err := k.join()
	if err != nil {
		return err
	}
	_, err = joined.Sign(mofn.RolePacker, []byte("rehearsal"))
	return err
}

// pair makes the classical pair. Tokens differ in how they want the curve named: the first spelling that is taken is used.
func (s *session) pair(c curve, id []byte, label string, spellings ...[]byte) (public, private pkcs11.ObjectHandle, err error) {
	for _, params := range spellings {
		pub := []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PUBLIC_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, c.kind),
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_VERIFY, true), pkcs11.NewAttribute(pkcs11.CKA_EC_PARAMS, params),
			pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		}
		priv := []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_PRIVATE_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, c.kind),
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true),
			pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false), pkcs11.NewAttribute(pkcs11.CKA_SIGN, true),
			pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
		}
		public, private, err = s.m.GenerateKeyPair(s.handle, []*pkcs11.Mechanism{pkcs11.NewMechanism(c.generate, nil)}, pub, priv)
		if err == nil {
			return public, private, nil
		}
	}
	return 0, 0, s.failed("make a key pair of "+c.name, err)
}

func wrapTemplate(id []byte, label string) []*pkcs11.Attribute {
	return []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_CLASS, pkcs11.CKO_SECRET_KEY), pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, pkcs11.CKK_AES),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32), pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
		pkcs11.NewAttribute(pkcs11.CKA_WRAP, false), pkcs11.NewAttribute(pkcs11.CKA_UNWRAP, false),
		pkcs11.NewAttribute(pkcs11.CKA_ID, id), pkcs11.NewAttribute(pkcs11.CKA_LABEL, label),
	}
}

// uriOf names the key: this token by its serial number, and the module and the file of the PIN as they were asked for.
func (s *session) uriOf(asked URI, id []byte, label string) string {
	u := URI{
		Token: s.info.Label, Manufacturer: s.info.ManufacturerID, Serial: s.info.SerialNumber, Model: s.info.Model,
		Object: label, Type: "private", ID: bytes.Clone(id),
		ModulePath: asked.ModulePath, ModuleName: asked.ModuleName, PINSource: asked.PINSource,
	}
	return u.String()
}

// destroy removes what was made.
func (s *session) destroy(made []pkcs11.ObjectHandle) error {
	var errs []error
	for _, o := range made {
		if err := s.m.DestroyObject(s.handle, o); err != nil {
			errs = append(errs, fmt.Errorf("what was made of the key is still there: %w", s.failed("delete it", err)))
		}
	}
	return errors.Join(errs...)
}
