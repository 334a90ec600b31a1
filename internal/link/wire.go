// SPDX-License-Identifier: Apache-2.0

package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Sizes of the datagram (docs/spec/datagram.md section 1).
const (
	HeaderSize = 28 // bytes before the body
	TagSize    = 16 // bytes after the body: AES-GCM tag, or mac1

	symbolSize1500 = 1408 // T of profile 1: 22 x 64, fits IPv6 in MTU 1500
	symbolSize9000 = 8896 // T of profile 2: 139 x 64, fits IPv6 in MTU 9000

	// MaxDatagram is the largest datagram of any profile, in bytes.
	MaxDatagram = HeaderSize + symbolSize9000 + TagSize
)

// Caps on what an announcement may declare (sections 1 and 2). They are checked
// before anything is allocated.
const (
	MaxEnvelopeSize = 160 << 20 // the cap of the envelope stream, envelope.md section 1
	MaxPayloadSize  = 1 << 50   // 1 PiB: keeps every offset far from overflow
	MaxGroups       = 4096      // bounds a span: 1.1 GB at T = 1408
	MaxPass         = 1<<16 - 1 // the field is two bytes
	MaxSealed       = 1 << 32   // sealed datagrams in one session: one AES-GCM key
)

const (
	magic = 0xD1

	parametersSize = 128
	heartbeatSize  = 43 // the rest of the body is zero
)

// Errors of the parsers of this file. Each names the field that is wrong.
var (
	ErrLength     = errors.New("link: wrong datagram length")
	ErrMagic      = errors.New("link: wrong magic byte")
	ErrType       = errors.New("link: unknown datagram type")
	ErrProfile    = errors.New("link: unknown or other profile")
	ErrReserved   = errors.New("link: reserved byte is not zero")
	ErrParameters = errors.New("link: session parameters out of range")
	ErrHeartbeat  = errors.New("link: malformed heartbeat")
)

// Profile fixes the symbol size, and so the size of every datagram of a session.
type Profile uint8

// The profiles of section 1.
const (
	Profile1500 Profile = 1
	Profile9000 Profile = 2
)

// SymbolSize returns T, the bytes of one encoding symbol; 0 for an unknown profile.
func (p Profile) SymbolSize() int {
	switch p {
	case Profile1500:
		return symbolSize1500
	case Profile9000:
		return symbolSize9000
	}
	return 0
}

// DatagramSize returns the bytes of every datagram of the profile (the UDP
// payload); 0 for an unknown profile.
func (p Profile) DatagramSize() int {
	if p.SymbolSize() == 0 {
		return 0
	}
	return HeaderSize + p.SymbolSize() + TagSize
}

// String returns the MTU that the profile is for.
func (p Profile) String() string {
	switch p {
	case Profile1500:
		return "1500"
	case Profile9000:
		return "9000"
	}
	return fmt.Sprintf("profile(%d)", uint8(p))
}

// Type says what the body of a datagram is.
type Type uint8

// The types of section 1.
const (
	TypeAnnouncement Type = 1
	TypeEnvelope     Type = 2 // an encoding symbol of the envelope object
	TypePayload      Type = 3 // an encoding symbol of the payload object
	TypeHeartbeat    Type = 4
)

// Header is the first 28 bytes of a datagram, as sent and not yet authenticated.
type Header struct {
	Type    Type
	Profile Profile
	Session [8]byte
	Counter uint64 // send counter; 0 in an announcement
	SBN     uint32
	ESI     uint32
}

// AppendHeader appends the 28 bytes of h to b.
func AppendHeader(b []byte, h Header) []byte {
	b = append(b, magic, byte(h.Type), byte(h.Profile), 0)
	b = append(b, h.Session[:]...)
	b = binary.BigEndian.AppendUint64(b, h.Counter)
	b = binary.BigEndian.AppendUint32(b, h.SBN)
	return binary.BigEndian.AppendUint32(b, h.ESI)
}

// ParseHeader reads the header of a whole datagram. It refuses a wrong magic,
// type, profile or reserved byte, and a length that is not the profile's
// (section 1). It authenticates nothing, and it allocates nothing.
func ParseHeader(datagram []byte) (Header, error) {
	if len(datagram) < HeaderSize {
		return Header{}, ErrLength
	}
	h := Header{
		Type:    Type(datagram[1]),
		Profile: Profile(datagram[2]),
		Session: [8]byte(datagram[4:12]),
		Counter: binary.BigEndian.Uint64(datagram[12:20]),
		SBN:     binary.BigEndian.Uint32(datagram[20:24]),
		ESI:     binary.BigEndian.Uint32(datagram[24:28]),
	}
	switch {
	case datagram[0] != magic:
		return Header{}, ErrMagic
	case h.Type < TypeAnnouncement || h.Type > TypeHeartbeat:
		return Header{}, ErrType
	case h.Profile.SymbolSize() == 0:
		return Header{}, ErrProfile
	case datagram[3] != 0:
		return Header{}, ErrReserved
	case len(datagram) != h.Profile.DatagramSize():
		return Header{}, ErrLength
	}
	return h, nil
}

// Announcement is what a session says of itself (the session parameters of
// section 2, and the profile of its header).
type Announcement struct {
	Session        [8]byte
	Profile        Profile
	Release        [32]byte // the release id R; zero: an idle session
	EnvelopeSHA256 [32]byte
	EnvelopeSize   int64 // bytes of the envelope stream
	PayloadSize    int64 // bytes of the payload object
	Groups         int   // G, groups in a full span
	Pass           int   // 1..
	Start          time.Time
}

// Idle reports whether the session carries heartbeats only.
func (a Announcement) Idle() bool { return a.Release == [32]byte{} }

// Validate applies the rules of the table of section 2.
func (a Announcement) Validate() error {
	switch {
	case a.Profile.SymbolSize() == 0:
		return ErrProfile
	case a.EnvelopeSize < 0 || a.EnvelopeSize > MaxEnvelopeSize:
		return fmt.Errorf("%w: envelope of %d bytes, at most %d", ErrParameters, a.EnvelopeSize, int64(MaxEnvelopeSize))
	case a.PayloadSize < 0 || a.PayloadSize > MaxPayloadSize:
		return fmt.Errorf("%w: payload of %d bytes, at most %d", ErrParameters, a.PayloadSize, int64(MaxPayloadSize))
	case a.Groups < 1 || a.Groups > MaxGroups:
		return fmt.Errorf("%w: %d groups, not in 1..%d", ErrParameters, a.Groups, MaxGroups)
	case a.Pass < 1 || a.Pass > MaxPass:
		return fmt.Errorf("%w: pass %d, not in 1..%d", ErrParameters, a.Pass, MaxPass)
	case a.Start.Unix() < 0:
		return fmt.Errorf("%w: start before 1970", ErrParameters)
	}
	return nil
}

// AppendParameters appends the 128 bytes of the session parameters of a to b.
func AppendParameters(b []byte, a Announcement) []byte {
	b = append(b, a.Session[:]...)
	b = append(b, a.Release[:]...)
	b = append(b, a.EnvelopeSHA256[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(a.EnvelopeSize))
	b = binary.BigEndian.AppendUint64(b, uint64(a.PayloadSize))
	b = binary.BigEndian.AppendUint32(b, uint32(a.Groups))
	b = binary.BigEndian.AppendUint16(b, uint16(a.Pass))
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint64(b, uint64(a.Start.Unix()))
	return append(b, make([]byte, 24)...)
}

// ParseParameters reads the 128 bytes of the session parameters and checks them
// against the header that they came under.
func ParseParameters(b []byte, h Header) (Announcement, error) {
	if len(b) != parametersSize {
		return Announcement{}, fmt.Errorf("%w: %d bytes, want %d", ErrParameters, len(b), parametersSize)
	}
	envelope, payload := binary.BigEndian.Uint64(b[72:]), binary.BigEndian.Uint64(b[80:])
	start := binary.BigEndian.Uint64(b[96:])
	if envelope > MaxEnvelopeSize || payload > MaxPayloadSize || start > maxUnixSeconds {
		return Announcement{}, fmt.Errorf("%w: envelope %d, payload %d, start %d", ErrParameters, envelope, payload, start)
	}
	if !allZero(b[94:96]) || !allZero(b[104:]) {
		return Announcement{}, fmt.Errorf("%w: reserved bytes are not zero", ErrParameters)
	}
	a := Announcement{
		Session:        [8]byte(b[0:8]),
		Profile:        h.Profile,
		Release:        [32]byte(b[8:40]),
		EnvelopeSHA256: [32]byte(b[40:72]),
		EnvelopeSize:   int64(envelope),
		PayloadSize:    int64(payload),
		Groups:         int(binary.BigEndian.Uint32(b[88:])),
		Pass:           int(binary.BigEndian.Uint16(b[92:])),
		Start:          time.Unix(int64(start), 0).UTC(),
	}
	if a.Session != h.Session {
		return Announcement{}, fmt.Errorf("%w: session %x inside, %x in the header", ErrParameters, a.Session, h.Session)
	}
	return a, a.Validate()
}

// maxUnixSeconds is the end of the year 9999, the last that RFC 3339 can write.
const maxUnixSeconds = 253402300799

// State is what the sender says that it is doing.
type State uint8

// The states of section 3.
const (
	StateLeadIn       State = 1
	StateSending      State = 2
	StateEndOfPass    State = 3
	StateEndOfSession State = 4
	StateIdle         State = 5
)

// String returns the state in the words of section 3.
func (s State) String() string {
	switch s {
	case 0:
		return "announced"
	case StateLeadIn:
		return "lead-in"
	case StateSending:
		return "sending"
	case StateEndOfPass:
		return "end of pass"
	case StateEndOfSession:
		return "end of session"
	case StateIdle:
		return "idle"
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Heartbeat is the body of a heartbeat (section 3).
type Heartbeat struct {
	Source uint64 // payload source symbols sent in this session
	Repair uint64 // payload repair symbols sent in this session
	Rate   uint64 // configured rate, bits a second; 0: unlimited
	Clock  uint64 // the sender's clock, Unix nanoseconds
	Failed uint64 // datagrams that the sender failed to hand to its kernel
	Pass   uint16
	State  State
}

// AppendHeartbeat appends the T bytes of the body to b, zeros included.
func AppendHeartbeat(b []byte, h Heartbeat, p Profile) []byte {
	start := len(b)
	b = appendHeartbeatFields(b, h)
	for len(b)-start < p.SymbolSize() {
		b = append(b, 0)
	}
	return b
}

// appendHeartbeatFields appends the 43 bytes before the zeros.
func appendHeartbeatFields(b []byte, h Heartbeat) []byte {
	b = binary.BigEndian.AppendUint64(b, h.Source)
	b = binary.BigEndian.AppendUint64(b, h.Repair)
	b = binary.BigEndian.AppendUint64(b, h.Rate)
	b = binary.BigEndian.AppendUint64(b, h.Clock)
	b = binary.BigEndian.AppendUint64(b, h.Failed)
	b = binary.BigEndian.AppendUint16(b, h.Pass)
	return append(b, byte(h.State))
}

// ParseHeartbeat reads the body of an authenticated heartbeat.
func ParseHeartbeat(body []byte) (Heartbeat, error) {
	if len(body) < heartbeatSize {
		return Heartbeat{}, fmt.Errorf("%w: %d bytes", ErrHeartbeat, len(body))
	}
	h := Heartbeat{
		Source: binary.BigEndian.Uint64(body[0:]),
		Repair: binary.BigEndian.Uint64(body[8:]),
		Rate:   binary.BigEndian.Uint64(body[16:]),
		Clock:  binary.BigEndian.Uint64(body[24:]),
		Failed: binary.BigEndian.Uint64(body[32:]),
		Pass:   binary.BigEndian.Uint16(body[40:]),
		State:  State(body[42]),
	}
	if h.State < StateLeadIn || h.State > StateIdle || h.Pass == 0 {
		return Heartbeat{}, fmt.Errorf("%w: state %d, pass %d", ErrHeartbeat, h.State, h.Pass)
	}
	if !allZero(body[heartbeatSize:]) {
		return Heartbeat{}, fmt.Errorf("%w: padding is not zero", ErrHeartbeat)
	}
	return h, nil
}

// allZero reports whether every byte of b is zero, a word at a time: the receiver
// of a calibration looks at a whole link of them.
func allZero(b []byte) bool {
	for ; len(b) >= 8; b = b[8:] {
		if binary.NativeEndian.Uint64(b) != 0 {
			return false
		}
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
