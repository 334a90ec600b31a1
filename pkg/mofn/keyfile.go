// SPDX-License-Identifier: Apache-2.0

package mofn

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/cloudflare/circl/kem/xwing"
	"golang.org/x/crypto/scrypt"

	"sluice/pkg/mofn/internal/composite"
)

// The forms and caps of trust.md section 2.
const (
	publicFileType = "sluice-public-key-v1"
	secretFileType = "sluice-private-key-v1"
	kdfName        = "scrypt"

	// maxKeyFile: the largest file is an H2 public key, 3.6 KiB of base64, with its comment.
	maxKeyFile = 16 << 10
	// maxComment is enough for a person, a role and a date.
	maxComment = 256

	saltSize  = 16
	nonceSize = 12
	linkSize  = 32 // secret of the link suites and of a ticket key

	// Memory is 128*n*r bytes: 64 MiB with the default, 2 GiB at the caps. A file that asks for more is an attack.
	maxScryptN = 1 << 20
	maxScryptR = 16
	maxScryptP = 4
)

// ScryptParams are the cost of guessing a passphrase (RFC 7914): N a power of two, memory is 128*N*R bytes. The zero value
// means DefaultScrypt.
type ScryptParams struct{ N, R, P int }

// DefaultScrypt is n=65536, r=8, p=1: 64 MiB and about a quarter of a second a guess.
func DefaultScrypt() ScryptParams { return ScryptParams{N: 1 << 16, R: 8, P: 1} }

func maxScrypt() ScryptParams { return ScryptParams{N: maxScryptN, R: maxScryptR, P: maxScryptP} }

// check is done before scrypt runs, because running it is the attack.
func (p ScryptParams) check(limit ScryptParams) error {
	switch {
	case p.N < 2 || bits.OnesCount(uint(p.N)) != 1 || p.N > limit.N:
		return fmt.Errorf("%w: scrypt n is %d, allowed are powers of two up to %d", ErrKeyFile, p.N, limit.N)
	case p.R < 1 || p.R > limit.R:
		return fmt.Errorf("%w: scrypt r is %d, allowed is 1 to %d", ErrKeyFile, p.R, limit.R)
	case p.P < 1 || p.P > limit.P:
		return fmt.Errorf("%w: scrypt p is %d, allowed is 1 to %d", ErrKeyFile, p.P, limit.P)
	}
	return nil
}

// SecretKey is a key of any suite as it is generated and kept. Secret is in the clear in memory: 64 bytes for H1 (two seeds,
// ML-DSA first), 96 for H2 (a seed and an ECPrivateKey), 32 for the others. The fields belong to the caller. It prints without
// its secret.
type SecretKey struct {
	Suite   Suite
	Secret  []byte
	Public  []byte
	Comment string // whose key it is; not protected by the seal
}

// GenerateSecret makes a key of a suite; random nil means crypto/rand.
func GenerateSecret(random io.Reader, suite Suite, comment string) (*SecretKey, error) {
	secret, err := drawSecret(random, suite)
	if err != nil {
		return nil, err
	}
	public, err := derivePublic(suite, secret)
	if err != nil {
		return nil, err
	}
	s := &SecretKey{Suite: suite, Secret: secret, Public: public, Comment: comment}
	return s, s.check()
}

// ID is the key id of the public half (trust.md section 1).
func (s *SecretKey) ID() KeyID { return NewKeyID(s.Suite, s.Public) }

// String names the key and not its secret; so do %v and %#v.
func (s SecretKey) String() string { return fmt.Sprintf("%s key %v", s.Suite, s.ID()) }

// GoString is String.
func (s SecretKey) GoString() string { return s.String() }

// MarshalJSON refuses: a secret in the clear has no file form. Use Seal.
func (s SecretKey) MarshalJSON() ([]byte, error) {
	return nil, errors.New("mofn: a secret key is not written in the clear, use Seal")
}

// SigningKey gives the key that signs statements; ErrKey for suites other than H1 and H2.
func (s *SecretKey) SigningKey() (*PrivateKey, error) {
	if _, err := s.Suite.algorithm(); err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	return newPrivateKey(s.Suite, s.Secret)
}

// check makes sure that the halves belong together and that the comment can be written.
func (s *SecretKey) check() error {
	public, err := derivePublic(s.Suite, s.Secret)
	if err != nil {
		return err
	}
	if !bytes.Equal(public, s.Public) {
		return fmt.Errorf("%w: public key does not belong to the secret key", ErrKey)
	}
	if err := checkText(s.Comment, "", maxComment); err != nil {
		return fmt.Errorf("%w: comment: %w", ErrKeyFile, err)
	}
	return nil
}

// drawSecret makes the secret of a new key.
func drawSecret(random io.Reader, suite Suite) ([]byte, error) {
	size, err := secretSize(suite)
	if err != nil {
		return nil, err
	}
	form := bytes.Clone
	if algorithm, err := suite.algorithm(); err == nil {
		size, form = algorithm.RandomSize(), algorithm.Secret
	}
	drawn := make([]byte, size)
	if _, err := io.ReadFull(randomOr(random), drawn); err != nil {
		return nil, fmt.Errorf("mofn: random bytes for a key: %w", err)
	}
	return form(drawn), nil
}

func secretSize(suite Suite) (int, error) {
	switch suite {
	case SuiteH1, SuiteH2:
		algorithm, err := suite.algorithm()
		if err != nil {
			return 0, err
		}
		return algorithm.SecretSize(), nil
	case SuiteLink, SuiteTicket, SuiteXWing:
		return linkSize, nil
	}
	return 0, fmt.Errorf("%w: unknown suite %q; known are H1, H2, ED25519-LINK, ED25519-TICKET and XWING", ErrKey, shorten(string(suite)))
}

func derivePublic(suite Suite, secret []byte) ([]byte, error) {
	size, err := secretSize(suite)
	if err != nil {
		return nil, err
	}
	if len(secret) != size {
		return nil, fmt.Errorf("%w: secret of suite %s has %d bytes, not %d", ErrKey, suite, len(secret), size)
	}
	switch suite {
	case SuiteH1, SuiteH2:
	case SuiteLink, SuiteTicket:
		return ed25519.NewKeyFromSeed(secret)[ed25519.SeedSize:], nil
	case SuiteXWing:
		_, public := xwing.DeriveKeyPairPacked(secret)
		return public, nil
	}
	k, err := newPrivateKey(suite, secret)
	if err != nil {
		return nil, err
	}
	return k.pub.Bytes(), nil
}

// checkPublic refuses a public key that the suite cannot use.
func checkPublic(suite Suite, public []byte) error {
	switch suite {
	case SuiteH1, SuiteH2:
		_, err := ParsePublicKey(suite, public)
		return err
	case SuiteLink, SuiteTicket:
		return checkPoint(public)
	case SuiteXWing:
		if len(public) != xwing.PublicKeySize {
			return fmt.Errorf("%w: XWING public key has %d bytes, not %d", ErrKey, len(public), xwing.PublicKeySize)
		}
		if err := new(xwing.PublicKey).Unpack(public); err != nil {
			return fmt.Errorf("%w: XWING public key: %w", ErrKey, err)
		}
		return nil
	}
	_, err := secretSize(suite)
	return err
}

// checkPoint refuses an Ed25519 key under which anybody can sign, or which has a second form (trust.md section 1).
func checkPoint(public []byte) error {
	if err := composite.CheckEd25519(public); err != nil {
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	return nil
}

type publicFile struct {
	Type    string `json:"type"`
	Suite   Suite  `json:"suite"`
	ID      KeyID  `json:"id"`
	Public  []byte `json:"public"`
	Comment string `json:"comment"`
}

type secretFile struct {
	Type    string `json:"type"`
	Suite   Suite  `json:"suite"`
	ID      KeyID  `json:"id"`
	KDF     string `json:"kdf"`
	N       int    `json:"n"`
	R       int    `json:"r"`
	P       int    `json:"p"`
	Salt    []byte `json:"salt"`
	Nonce   []byte `json:"nonce"`
	Sealed  []byte `json:"sealed"`
	Comment string `json:"comment"`
}

// MarshalPublic gives the contents of the .pub file: one line of JSON and a newline.
func (s *SecretKey) MarshalPublic() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return MarshalPublicFile(s.Suite, s.Public, s.Comment)
}

// MarshalPublicFile gives the .pub file of a public key that stands elsewhere, as in a trust object. ParsePublicFile checks it.
func MarshalPublicFile(suite Suite, public []byte, comment string) ([]byte, error) {
	f := publicFile{Type: publicFileType, Suite: suite, ID: NewKeyID(suite, public), Public: public, Comment: comment}
	line, err := encodeCanonical(f)
	return append(line, '\n'), err
}

// ParsePublicFile reads a .pub file of any suite. The id is recomputed and the key is checked; errors are ErrKeyFile or ErrKey.
// The comment is whatever somebody wrote there: show it, never decide by it.
func ParsePublicFile(b []byte) (suite Suite, id KeyID, public []byte, comment string, err error) {
	var f publicFile
	if err := decodeFile(b, publicFileType, &f, &f.Type); err != nil {
		return "", KeyID{}, nil, "", err
	}
	if err := checkPublic(f.Suite, f.Public); err != nil {
		return "", KeyID{}, nil, "", fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	if id := NewKeyID(f.Suite, f.Public); id != f.ID {
		return "", KeyID{}, nil, "", fmt.Errorf("%w: key id is %v, the file says %v", ErrKeyFile, id, f.ID)
	}
	if err := checkText(f.Comment, "", maxComment); err != nil {
		return "", KeyID{}, nil, "", fmt.Errorf("%w: comment: %w", ErrKeyFile, err)
	}
	return f.Suite, f.ID, f.Public, f.Comment, nil
}

// decodeFile reads one line of canonical JSON, with or without its newline, into f; got points to the type field in f.
func decodeFile(b []byte, want string, f any, got *string) error {
	if len(b) > maxKeyFile {
		return fmt.Errorf("%w: %d bytes, a key file has at most %d", ErrKeyFile, len(b), maxKeyFile)
	}
	if err := decodeCanonical(bytes.TrimSuffix(b, []byte("\n")), f); err != nil {
		return fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	if *got != want {
		return fmt.Errorf("%w: type is %q, not %q", ErrKeyFile, shorten(*got), want)
	}
	return nil
}

// Seal gives the contents of the private key file: the secret under AES-256-GCM with a key stretched from the passphrase
// (trust.md section 2), one line of JSON and a newline. random nil means crypto/rand; the zero params mean DefaultScrypt.
// An empty passphrase is refused: it would look like protection.
func (s *SecretKey) Seal(random io.Reader, passphrase []byte, params ScryptParams) ([]byte, error) {
	if params == (ScryptParams{}) {
		params = DefaultScrypt()
	}
	if err := errors.Join(params.check(maxScrypt()), s.check()); err != nil {
		return nil, err
	}
	if len(passphrase) == 0 {
		return nil, fmt.Errorf("%w: it is empty; choose one", ErrPassphrase)
	}
	fresh := make([]byte, saltSize+nonceSize)
	if _, err := io.ReadFull(randomOr(random), fresh); err != nil {
		return nil, fmt.Errorf("mofn: random bytes for a salt: %w", err)
	}
	f := secretFile{
		Type: secretFileType, Suite: s.Suite, ID: s.ID(), KDF: kdfName, N: params.N, R: params.R, P: params.P,
		Salt: fresh[:saltSize], Nonce: fresh[saltSize:], Comment: s.Comment,
	}
	aead, err := f.aead(passphrase)
	if err != nil {
		return nil, err
	}
	f.Sealed = aead.Seal(nil, f.Nonce, s.Secret, f.additional())
	line, err := encodeCanonical(f)
	return append(line, '\n'), err
}

// OpenSecret reads a private key file. The caps on n, r and p are checked before scrypt runs. ErrPassphrase when the seal does
// not open, ErrKeyFile when the file is malformed. The key is in the clear in memory afterwards; file and passphrase stay
// the caller's.
func OpenSecret(file, passphrase []byte) (*SecretKey, error) {
	return openSecret(file, passphrase, maxScrypt())
}

func openSecret(file, passphrase []byte, limit ScryptParams) (*SecretKey, error) {
	var f secretFile
	if err := decodeFile(file, secretFileType, &f, &f.Type); err != nil {
		return nil, err
	}
	if err := f.check(limit); err != nil {
		return nil, err
	}
	aead, err := f.aead(passphrase)
	if err != nil {
		return nil, err
	}
	secret, err := aead.Open(nil, f.Nonce, f.Sealed, f.additional())
	if err != nil {
		return nil, fmt.Errorf("%w: it is the wrong passphrase, or the file was changed; key %v (%s)", ErrPassphrase, f.ID, f.Comment)
	}
	return f.unsealed(secret)
}

// unsealed rebuilds the key and checks that it is the one that the file names.
func (f *secretFile) unsealed(secret []byte) (*SecretKey, error) {
	public, err := derivePublic(f.Suite, secret)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	s := &SecretKey{Suite: f.Suite, Secret: secret, Public: public, Comment: f.Comment}
	if s.ID() != f.ID {
		return nil, fmt.Errorf("%w: sealed key is %v, the file says %v", ErrKeyFile, s.ID(), f.ID)
	}
	return s, nil
}

// check looks at everything that can be looked at without the passphrase.
func (f *secretFile) check(limit ScryptParams) error {
	size, err := secretSize(f.Suite)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKeyFile, err)
	}
	const tag = 16 // of AES-GCM
	switch {
	case f.KDF != kdfName:
		return fmt.Errorf("%w: kdf is %q, not scrypt", ErrKeyFile, shorten(f.KDF))
	case len(f.Salt) != saltSize:
		return fmt.Errorf("%w: salt of %d bytes, not %d", ErrKeyFile, len(f.Salt), saltSize)
	case len(f.Nonce) != nonceSize:
		return fmt.Errorf("%w: nonce of %d bytes, not %d", ErrKeyFile, len(f.Nonce), nonceSize)
	case len(f.Sealed) != size+tag:
		return fmt.Errorf("%w: sealed key of %d bytes, not %d", ErrKeyFile, len(f.Sealed), size+tag)
	}
	if err := checkText(f.Comment, "", maxComment); err != nil {
		return fmt.Errorf("%w: comment: %w", ErrKeyFile, err)
	}
	return ScryptParams{N: f.N, R: f.R, P: f.P}.check(limit)
}

// additional binds type, suite and id to the sealed key, so that a sealed key cannot be passed off as another.
func (f *secretFile) additional() []byte {
	return []byte(secretFileType + "\x00" + string(f.Suite) + "\x00" + f.ID.String())
}

func (f *secretFile) aead(passphrase []byte) (cipher.AEAD, error) {
	key, err := scrypt.Key(passphrase, f.Salt, f.N, f.R, f.P, 32)
	if err != nil {
		return nil, fmt.Errorf("mofn: stretch passphrase: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("mofn: AES-256: %w", err)
	}
	return cipher.NewGCM(block)
}
