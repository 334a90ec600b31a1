// SPDX-License-Identifier: Apache-2.0

package link

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/cloudflare/circl/hpke"
	"github.com/cloudflare/circl/kem"
)

// Offsets in the body of an announcement (section 2).
const (
	encapsulatedSize = 1120                               // X-Wing ciphertext
	sealedSize       = parametersSize + TagSize           // HPKE ciphertext of the parameters
	signedSize       = encapsulatedSize + sealedSize      // body[0:1264] is signed
	announcementSize = signedSize + ed25519.SignatureSize // the rest of the body is zero
	hpkeAADSize      = 12                                 // magic .. session id
	sessionKeySize   = 32                                 // AES-256
	infoHPKE         = "sluice-link-v1"
	exporterContext  = "sluice-session-key-v1"
	signatureContext = "sluice-announce-v1\x00"
	mac1Context      = "sluice-mac1-v1"
)

// Errors of an announcement, in the order in which a receiver checks.
var (
	ErrMAC1       = errors.New("link: announcement with a wrong mac1")
	ErrSignature  = errors.New("link: announcement not signed by a link key of the trust object")
	ErrUnreadable = errors.New("link: announcement not sealed to this receiver's key")
	ErrKey        = errors.New("link: malformed key")
)

// hpkeSuite is the suite of section 2: X-Wing, HKDF-SHA256, AES-256-GCM.
func hpkeSuite() hpke.Suite {
	return hpke.NewSuite(hpke.KEM_XWING, hpke.KDF_HKDF_SHA256, hpke.AEAD_AES256GCM)
}

// SealAnnouncement builds the announcement datagram of a session to the receiver
// whose X-Wing public key (1216 bytes) is given, signs it with the link key, and
// returns it with the session key. random feeds the encapsulation: crypto/rand's
// Reader, or fixed bytes for a test vector.
func SealAnnouncement(random io.Reader, a Announcement, linkKey ed25519.PrivateKey, receiverKey []byte) ([]byte, [32]byte, error) {
	var key [32]byte
	if err := a.Validate(); err != nil {
		return nil, key, err
	}
	if len(linkKey) != ed25519.PrivateKeySize {
		return nil, key, fmt.Errorf("%w: link key of %d bytes, want %d", ErrKey, len(linkKey), ed25519.PrivateKeySize)
	}
	d := make([]byte, 0, a.Profile.DatagramSize())
	d = AppendHeader(d, Header{Type: TypeAnnouncement, Profile: a.Profile, Session: a.Session})
	d, err := appendSealed(d, random, a, receiverKey, &key)
	if err != nil {
		return nil, key, err
	}
	d = append(d, ed25519.Sign(linkKey, signedMessage(d))...)
	d = d[:HeaderSize+a.Profile.SymbolSize()] // fresh memory: the padding is zero
	return NewMAC1(receiverKey).append(d, d), key, nil
}

// appendSealed appends the encapsulated key and the sealed parameters to d, and
// exports the session key.
func appendSealed(d []byte, random io.Reader, a Announcement, receiverKey []byte, key *[32]byte) ([]byte, error) {
	public, err := hpke.KEM_XWING.Scheme().UnmarshalBinaryPublicKey(receiverKey)
	if err != nil {
		return nil, fmt.Errorf("%w: receiver's X-Wing public key of %d bytes: %w", ErrKey, len(receiverKey), err)
	}
	sender, err := hpkeSuite().NewSender(public, []byte(infoHPKE))
	if err != nil {
		return nil, fmt.Errorf("set up HPKE sender: %w", err)
	}
	encapsulated, sealer, err := sender.Setup(random)
	if err != nil {
		return nil, fmt.Errorf("encapsulate session key: %w", err)
	}
	sealed, err := sealer.Seal(AppendParameters(nil, a), d[:hpkeAADSize])
	if err != nil {
		return nil, fmt.Errorf("seal session parameters: %w", err)
	}
	copy(key[:], sealer.Export([]byte(exporterContext), sessionKeySize))
	return append(append(d, encapsulated...), sealed...), nil
}

// signedMessage returns what the link key signs: the context, the header and
// body[0:1264] of datagram d.
func signedMessage(d []byte) []byte {
	return append([]byte(signatureContext), d[:HeaderSize+signedSize]...)
}

// MAC1 is the keyed hash of announcements to one receiver (section 2). It allocates
// nothing a message, since a flood of forged announcements costs one each. It is
// not safe for concurrent use.
type MAC1 struct {
	h   hash.Hash
	sum [sha256.Size]byte
}

// NewMAC1 derives the key from the receiver's X-Wing public key.
func NewMAC1(receiverKey []byte) *MAC1 {
	key := sha256.Sum256(append([]byte(mac1Context), receiverKey...))
	return &MAC1{h: hmac.New(sha256.New, key[:])}
}

// append appends the tag of message (header and body) to b.
func (m *MAC1) append(b, message []byte) []byte {
	m.h.Reset()
	m.h.Write(message)
	return append(b, m.h.Sum(m.sum[:0])[:TagSize]...)
}

// Valid reports whether the last 16 bytes of the datagram are its mac1. datagram
// is one that ParseHeader accepted as an announcement.
func (m *MAC1) Valid(datagram []byte) bool {
	body := datagram[:len(datagram)-TagSize]
	m.h.Reset()
	m.h.Write(body)
	return hmac.Equal(m.h.Sum(m.sum[:0])[:TagSize], datagram[len(body):])
}

// AnnouncementOpener opens announcements addressed to one receiver. It is not
// safe for concurrent use.
type AnnouncementOpener struct {
	private kem.PrivateKey
	public  []byte
	links   []ed25519.PublicKey
	mac     *MAC1
}

// NewAnnouncementOpener takes the receiver's X-Wing private key in its seed form
// (32 bytes, trust.md section 2) and the link keys that may announce.
func NewAnnouncementOpener(privateKey []byte, links []ed25519.PublicKey) (*AnnouncementOpener, error) {
	private, err := hpke.KEM_XWING.Scheme().UnmarshalBinaryPrivateKey(privateKey)
	if err != nil {
		return nil, fmt.Errorf("%w: receiver's X-Wing seed of %d bytes: %w", ErrKey, len(privateKey), err)
	}
	if len(links) == 0 {
		return nil, fmt.Errorf("%w: no link key: nothing could ever be announced", ErrKey)
	}
	for i, k := range links {
		if len(k) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("%w: link key %d of %d bytes, want %d", ErrKey, i, len(k), ed25519.PublicKeySize)
		}
	}
	public, err := private.Public().MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("derive receiver's public key: %w", err)
	}
	return &AnnouncementOpener{private: private, public: public, links: links, mac: NewMAC1(public)}, nil
}

// PublicKey returns the receiver's X-Wing public key, from which mac1 is made.
func (o *AnnouncementOpener) PublicKey() []byte { return o.public }

// CheckMAC1 is the first and cheapest check: one hash, no allocation. datagram
// is one that ParseHeader accepted as an announcement.
func (o *AnnouncementOpener) CheckMAC1(datagram []byte) bool { return o.mac.Valid(datagram) }

// Open verifies the signature, opens the parameters and returns them with the
// session key. datagram is one that CheckMAC1 accepted; Open costs a signature
// check a link key and one decapsulation, so its caller limits the rate.
func (o *AnnouncementOpener) Open(datagram []byte) (Announcement, [32]byte, error) {
	var key [32]byte
	h, err := ParseHeader(datagram)
	if err != nil {
		return Announcement{}, key, err
	}
	if h.Type != TypeAnnouncement || h.Counter != 0 || h.SBN != 0 || h.ESI != 0 {
		return Announcement{}, key, fmt.Errorf("%w: counter, SBN or ESI is not zero", ErrParameters)
	}
	body := datagram[HeaderSize : len(datagram)-TagSize]
	if !o.signed(datagram, body) {
		return Announcement{}, key, ErrSignature
	}
	if !allZero(body[announcementSize:]) { // not under the signature
		return Announcement{}, key, fmt.Errorf("%w: padding is not zero", ErrParameters)
	}
	parameters, err := o.unseal(datagram[:hpkeAADSize], body, &key)
	if err != nil {
		return Announcement{}, key, err
	}
	a, err := ParseParameters(parameters, h)
	return a, key, err
}

// signed reports whether one of the link keys signed the datagram.
func (o *AnnouncementOpener) signed(datagram, body []byte) bool {
	message, signature := signedMessage(datagram), body[signedSize:announcementSize]
	for _, k := range o.links {
		if ed25519.Verify(k, message, signature) {
			return true
		}
	}
	return false
}

// unseal opens the parameters and exports the session key.
func (o *AnnouncementOpener) unseal(aad, body []byte, key *[32]byte) ([]byte, error) {
	receiver, err := hpkeSuite().NewReceiver(o.private, []byte(infoHPKE))
	if err != nil {
		return nil, fmt.Errorf("set up HPKE receiver: %w", err)
	}
	opener, err := receiver.Setup(body[:encapsulatedSize])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	parameters, err := opener.Open(body[encapsulatedSize:signedSize], aad)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	copy(key[:], opener.Export([]byte(exporterContext), sessionKeySize))
	return parameters, nil
}
