// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"fmt"
	"strconv"
	"strings"
)

// PayloadTypeInToto is the payload type of release statements and approvals (section 2).
const PayloadTypeInToto = "application/vnd.in-toto+json"

// maxPayloadType bounds a payload type in bytes; a media type has two parts of at most 127 (RFC 6838, 4.2).
const maxPayloadType = 255

// Signature is one signature of a DSSE envelope: KeyID is 64 lower-case hexadecimal digits, Sig raw bytes.
type Signature struct {
	KeyID string
	Sig   []byte
}

// DSSE is a DSSE 1.0.2 envelope in the exact form of section 2. Payload is the signed bytes as they came.
type DSSE struct {
	Payload     []byte
	PayloadType string
	Signatures  []Signature
}

// PAE is the pre-authentication encoding of DSSE: the bytes that are signed.
func PAE(payloadType string, payload []byte) []byte {
	head := "DSSEv1 " + strconv.Itoa(len(payloadType)) + " " + payloadType + " " + strconv.Itoa(len(payload)) + " "
	out := make([]byte, 0, len(head)+len(payload))
	return append(append(out, head...), payload...)
}

// Marshal checks the rules of section 2 and returns the one form, the caller's to keep. Error: ErrFormat.
func (d *DSSE) Marshal() ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("write DSSE envelope: %w", err)
	}
	b, err := encode(d.layout)
	if err != nil {
		return nil, fmt.Errorf("write DSSE envelope: %w", err)
	}
	return b, nil
}

// ParseDSSE takes a DSSE envelope of at most max bytes in its one form. It takes any payload type and any number of
// signatures up to MaxSignatures, none included: the caller compares PayloadType and counts. It verifies no
// signature. Nothing of b is kept. Error: ErrFormat with the byte.
func ParseDSSE(b []byte, max int) (*DSSE, error) {
	if len(b) > max {
		return nil, fmt.Errorf("DSSE envelope: %w: %d bytes, at most %d (section 1)", ErrFormat, len(b), max)
	}
	d := &DSSE{}
	if err := decode(b, d.layout); err != nil {
		return nil, fmt.Errorf("DSSE envelope: %w", err)
	}
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("DSSE envelope: %w", err)
	}
	return d, nil
}

func (d *DSSE) layout(c codec) {
	c.lit(`{"payload":`)
	c.b64(&d.Payload)
	c.lit(`,"payloadType":`)
	c.str(&d.PayloadType)
	c.lit(`,"signatures":`)
	list(c, &d.Signatures, MaxSignatures, layoutSignature)
	c.lit(`}`)
}

func layoutSignature(c codec, s *Signature) {
	c.lit(`{"keyid":`)
	c.str(&s.KeyID)
	c.lit(`,"sig":`)
	c.b64(&s.Sig)
	c.lit(`}`)
}

// check: section 2, "MUST refuse two signatures with one keyid".
func (d *DSSE) check() error {
	if !isPrintable(d.PayloadType, maxPayloadType) || strings.ContainsAny(d.PayloadType, ` "\`) {
		return badField("payloadType", "%s: want a media type", quote(d.PayloadType))
	}
	if len(d.Signatures) > MaxSignatures {
		return badField("signatures", "%d of them: at most %d (section 1)", len(d.Signatures), MaxSignatures)
	}
	seen := make(map[string]bool, len(d.Signatures))
	for _, s := range d.Signatures {
		if _, err := ParseDigest(s.KeyID); err != nil {
			return fmt.Errorf("keyid: %w", err)
		}
		if seen[s.KeyID] {
			return badField("signatures", "two with key id %s (section 2)", s.KeyID)
		}
		if len(s.Sig) == 0 {
			return badField("signatures", "an empty one, of key id %s", s.KeyID)
		}
		seen[s.KeyID] = true
	}
	return nil
}
