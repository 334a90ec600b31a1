// SPDX-License-Identifier: Apache-2.0

package linktest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"

	"github.com/cloudflare/circl/kem/xwing"

	"sluice/internal/link"
)

// Keys are those of one bastion and one receiver.
type Keys struct {
	Link     ed25519.PrivateKey // signs announcements
	Private  []byte             // the receiver's X-Wing seed
	Receiver []byte             // its public key
}

// NewKeys derives keys from a seed.
func NewKeys(seed byte) Keys {
	linkSeed := sha256.Sum256([]byte{seed, 1})
	private := sha256.Sum256([]byte{seed, 2})
	_, public := xwing.DeriveKeyPairPacked(private[:])
	return Keys{Link: ed25519.NewKeyFromSeed(linkSeed[:]), Private: private[:], Receiver: public}
}

// Public returns the public half of the link key.
func (k Keys) Public() ed25519.PublicKey { return k.Link.Public().(ed25519.PublicKey) }

// Cargo is one release to send.
type Cargo struct {
	Release           [32]byte
	Envelope, Payload []byte
}

// NewCargo makes a release of bytes that depend on the seed and do not compress.
func NewCargo(seed uint64, envelope, payload int) Cargo {
	id := binary.LittleEndian.AppendUint64(nil, seed)
	return Cargo{
		Release:  sha256.Sum256(append(id, 9)),
		Envelope: Pseudo(seed, envelope), Payload: Pseudo(seed+1000, payload),
	}
}

// Transfer returns pass 1 of the cargo, with the sender's number of repair rows.
func (c Cargo) Transfer() link.Transfer {
	return link.Transfer{
		Release: c.Release, Envelope: bytes.NewReader(c.Envelope), EnvelopeSize: int64(len(c.Envelope)),
		Payload: bytes.NewReader(c.Payload), PayloadSize: int64(len(c.Payload)), Pass: 1, Source: true,
	}
}

// Pseudo returns n bytes that depend on the seed.
func Pseudo(seed uint64, n int) []byte {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(b) // never fails
	return b
}
