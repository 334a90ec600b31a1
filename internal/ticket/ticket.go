// SPDX-License-Identifier: Apache-2.0

package ticket

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"time"

	"sluice/pkg/fec"
)

// The form and the limits of docs/spec/ticket.md section 1.
const (
	// MaxSize is the longest ticket: 95 lines of text, which one QR code of level M holds.
	MaxSize = 1900

	magic     = "\x92\xe8\x81\x12\x6a"
	version   = 1
	fixedSize = 93      // in front of the name
	maxTime   = 1 << 38 // seconds: the year 10680; a time.Time beyond it has no RFC 3339 form

	// domain separates the signature from every other Ed25519 signature of the system (section 4).
	domain = "sluice-ticket-v1\x00"
)

// FutureBound is how far a ticket's clock may be ahead before a reader warns (section 4).
const FutureBound = 10 * time.Minute

var (
	// ErrFormat says that the bytes are no ticket of this version, or ask for what does not exist.
	ErrFormat = errors.New("ticket: not well formed")
	// ErrTyping says that the text is not as it was printed; the message names the line.
	ErrTyping = errors.New("ticket: mistyped")
	// ErrSignature says that the named receiver did not sign the ticket.
	ErrSignature = errors.New("ticket: wrong signature")
	// ErrReceiver says that tickets of this receiver are not taken: it is unknown, has no ticket key, or cannot read what is sent.
	ErrReceiver = errors.New("ticket: not from a receiver that may ask")
	// ErrOther says that the ticket is of another release, or of one that was cut in another way.
	ErrOther = errors.New("ticket: for another release or another cut")
)

// nameRule is the form of a receiver's name.
var nameRule = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,63}$`)

// Ticket is what a receiver says it lacks. The fields belong to the caller.
type Ticket struct {
	Receiver string
	Release  [32]byte
	Envelope [32]byte // SHA-256 of the envelope stream that the receiver accepted
	Profile  int      // of docs/spec/datagram.md section 1
	Groups   int      // G
	Payload  int64    // bytes
	Fresh    int      // first fresh repair row
	Created  time.Time
	Need     fec.Selection // its repair runs begin at Fresh
}

// Geometry returns the cut of the payload.
func (t *Ticket) Geometry() (fec.Geometry, error) {
	size := map[int]int{1: 1408, 2: 8896}[t.Profile]
	if size == 0 {
		return fec.Geometry{}, fmt.Errorf("%w: profile %d is unknown (section 1); update this side", ErrFormat, t.Profile)
	}
	g, err := fec.New(t.Payload, size, t.Groups)
	if err != nil {
		return fec.Geometry{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return g, nil
}

// check applies the rules of sections 1 and 2.
func (t *Ticket) check() error {
	switch {
	case t.Payload < 1:
		return fmt.Errorf("%w: a payload of %d bytes lacks nothing", ErrFormat, t.Payload)
	case t.Fresh < 0 || t.Fresh > fec.MaxRows:
		return fmt.Errorf("%w: first fresh row %d, not in 0..%d", ErrFormat, t.Fresh, fec.MaxRows)
	case t.Created.Unix() < 1 || t.Created.Unix() > maxTime:
		return fmt.Errorf("%w: time %d is out of range", ErrFormat, t.Created.Unix())
	case t.Release == [32]byte{}:
		return fmt.Errorf("%w: release id is zero", ErrFormat)
	case !nameRule.MatchString(t.Receiver):
		return fmt.Errorf("%w: %.64q is no receiver's name", ErrFormat, t.Receiver)
	case len(t.Need) == 0:
		return fmt.Errorf("%w: it asks for nothing", ErrFormat)
	}
	g, err := t.Geometry()
	if err != nil {
		return err
	}
	if err := t.Need.Check(g); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return nil
}

// Room returns how many bytes the entries of a receiver's ticket may take.
func Room(receiver string) int { return MaxSize - fixedSize - len(receiver) - ed25519.SignatureSize }

// Signed is a ticket with its signature, which is not believed before Verify.
type Signed struct {
	Ticket

	bytes []byte
}

// Bytes returns the ticket as it is signed and carried.
func (s *Signed) Bytes() []byte { return s.bytes }

// Verify tells whether the ticket was signed with the private half of key. The error is [ErrSignature].
func (s *Signed) Verify(key ed25519.PublicKey) error {
	body := len(s.bytes) - ed25519.SignatureSize
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, message(s.bytes[:body]), s.bytes[body:]) {
		return fmt.Errorf("%w: not made with the ticket key that the trust object has for %s; ask the receiver for a new ticket", ErrSignature, s.Receiver)
	}
	return nil
}

func message(body []byte) []byte { return append([]byte(domain), body...) }

// Sign writes and signs a ticket. It refuses, with [ErrFormat], what Parse would refuse.
func Sign(t Ticket, key ed25519.PrivateKey) (*Signed, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	entries := appendEntries(nil, t.Need)
	size := fixedSize + len(t.Receiver) + len(entries) + ed25519.SignatureSize
	b := append([]byte(magic), version)
	b = binary.BigEndian.AppendUint16(b, uint16(size))
	b = append(b, byte(t.Profile))
	b = binary.BigEndian.AppendUint16(b, uint16(t.Groups))
	b = append(b, byte(t.Fresh))
	b = binary.BigEndian.AppendUint64(b, uint64(t.Payload))
	b = binary.BigEndian.AppendUint64(b, uint64(t.Created.Unix()))
	b = append(append(b, t.Release[:]...), t.Envelope[:]...)
	b = append(append(b, byte(len(t.Receiver))), t.Receiver...)
	b = append(b, entries...)
	return Parse(append(b, ed25519.Sign(key, message(b))...))
}

// Parse reads a ticket and checks every rule of sections 1 and 2; the signature is left to Verify. It keeps b. The error is
// [ErrFormat].
func Parse(b []byte) (*Signed, error) {
	if err := checkFrame(b); err != nil {
		return nil, err
	}
	name := int(b[92])
	entries := fixedSize + name
	if end := len(b) - ed25519.SignatureSize; entries > end {
		return nil, fmt.Errorf("%w: a name of %d bytes leaves no room for entries", ErrFormat, name)
	}
	s := &Signed{bytes: b, Ticket: Ticket{
		Receiver: string(b[fixedSize:entries]), Release: [32]byte(b[28:]), Envelope: [32]byte(b[60:]),
		Profile: int(b[8]), Groups: int(binary.BigEndian.Uint16(b[9:])), Payload: int64(binary.BigEndian.Uint64(b[12:])), Fresh: int(b[11]),
		Created: time.Unix(int64(binary.BigEndian.Uint64(b[20:])), 0).UTC(),
	}}
	var err error
	if s.Need, err = readEntries(b[entries:len(b)-ed25519.SignatureSize], s.Fresh); err != nil {
		return nil, err
	}
	return s, s.check()
}

// checkFrame looks at what stands in front of everything else, so that nothing is read out of bytes that are no ticket.
func checkFrame(b []byte) error {
	if len(b) > MaxSize {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrFormat, len(b), MaxSize)
	}
	if len(b) < fixedSize+ed25519.SignatureSize {
		return fmt.Errorf("%w: truncated: %d bytes, the shortest has %d", ErrFormat, len(b), fixedSize+ed25519.SignatureSize)
	}
	if err := checkHead(b); err != nil {
		return err
	}
	if size := int(binary.BigEndian.Uint16(b[6:])); size != len(b) {
		return fmt.Errorf("%w: %d bytes, it says %d: something is missing or was added", ErrFormat, len(b), size)
	}
	return nil
}

// checkHead checks magic, version and the range of the length.
func checkHead(b []byte) error {
	if string(b[:len(magic)]) != magic {
		return fmt.Errorf("%w: it does not begin with SLUICETK", ErrFormat)
	}
	if b[5] != version {
		return fmt.Errorf("%w: version %d, this side reads version %d; update it", ErrFormat, b[5], version)
	}
	if size := int(binary.BigEndian.Uint16(b[6:])); size > MaxSize || size < fixedSize+ed25519.SignatureSize {
		return fmt.Errorf("%w: it says %d bytes, not in %d..%d", ErrFormat, size, fixedSize+ed25519.SignatureSize, MaxSize)
	}
	return nil
}
