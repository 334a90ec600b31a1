// SPDX-License-Identifier: Apache-2.0

package link

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
)

// nonceSize is that of AES-GCM: four zero bytes and the send counter.
const nonceSize = 12

// sessionCipher seals or opens the datagrams of one session. It allocates
// nothing a datagram and is not safe for concurrent use.
type sessionCipher struct {
	aead  cipher.AEAD
	nonce [nonceSize]byte
}

// newSessionCipher prepares AES-256-GCM under the session key.
func newSessionCipher(key [32]byte) (*sessionCipher, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("set up session cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("set up session cipher: %w", err)
	}
	return &sessionCipher{aead: aead}, nil
}

// seal writes one whole datagram into d (DatagramSize bytes): the header, the
// sealed body, the tag. body holds T bytes and does not overlap d. The caller
// never uses a counter twice.
func (c *sessionCipher) seal(d []byte, h Header, body []byte) {
	AppendHeader(d[:0], h)
	binary.BigEndian.PutUint64(c.nonce[4:], h.Counter)
	c.aead.Seal(d[HeaderSize:HeaderSize], c.nonce[:], body, d[:HeaderSize])
}

// open authenticates a datagram that ParseHeader accepted and writes its body
// into scratch (capacity of T bytes or more). Nothing of a body is seen before
// its tag was right.
func (c *sessionCipher) open(scratch, datagram []byte, counter uint64) ([]byte, error) {
	binary.BigEndian.PutUint64(c.nonce[4:], counter)
	return c.aead.Open(scratch[:0], c.nonce[:], datagram[HeaderSize:], datagram[:HeaderSize])
}
