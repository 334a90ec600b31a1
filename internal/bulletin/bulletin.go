// SPDX-License-Identifier: Apache-2.0

// Package bulletin reads and writes bulletins: what the bastion says again and again because a receiver cannot ask
// (docs/spec/bulletin.md).
//
//	snapshot ─┐
//	trust  1..N ┤                                        ┌─► trust objects, verified one after the other
//	orders   ─┼─► Write ─► stream (link, or a file) ─► Read ─► orders, each by its officer's key
//	proofs   ─┘                                          └─► snapshot, by a heartbeat key
//
// It knows the form and no key: who may say what is for internal/site, which has the trust objects. A stream is read under caps, and
// nothing of it is believed because of its place.
package bulletin

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// The caps of section 1, in bytes and in sections.
const (
	MaxStream    = 64 << 20
	MaxTrust     = 256
	MaxOrders    = mofn.MaxOrders
	MaxProofs    = 64
	maxSnapshot  = 4 << 20
	maxTrustBody = 8 << 20
	maxOrderBody = 64 << 10
	maxProof     = 256 << 10
)

const (
	magic  = "SLUICE\x02\n"
	header = 12 // bytes of a section before its name
)

// section types of section 1.
const (
	typeEnd byte = iota
	typeSnapshot
	typeTrust
	typeOrder
	typeProof
)

// ErrFormat says that a stream is no bulletin, or not a whole one.
var ErrFormat = errors.New("bulletin: malformed")

// Bulletin is the parts of one. All are DSSE envelopes as they were signed, but the proofs, which are texts of docs/spec/audit.md section 5.
type Bulletin struct {
	Snapshot []byte
	Trust    [][]byte // version 1, 2, 3, ...
	Orders   []Order  // strictly increasing by ID
	Proofs   []Proof  // strictly increasing by Old
}

// Proof is the text of docs/spec/audit.md section 5 that begins at the size Old. It was not looked at.
type Proof struct {
	Old  int64
	Text []byte
}

// Order is an order as it travels. Its signature was not looked at.
type Order struct {
	ID   string
	Data []byte
}

// IsBulletin reports whether a stream begins as a bulletin does; eight bytes are enough to tell.
func IsBulletin(start []byte) bool { return bytes.HasPrefix(start, []byte(magic)) }

// NewOrder names an order by its payload.
func NewOrder(data []byte) (Order, error) {
	d, err := envelope.ParseDSSE(data, maxOrderBody)
	if err != nil {
		return Order{}, fmt.Errorf("%w: order: %w", ErrFormat, err)
	}
	if d.PayloadType != mofn.OrderPayloadType {
		return Order{}, fmt.Errorf("%w: payload type %q is not %q: this is no order", ErrFormat, d.PayloadType, mofn.OrderPayloadType)
	}
	return Order{ID: mofn.OrderID(d.Payload), Data: data}, nil
}

// Bytes gives the stream. It refuses (ErrFormat) what Read would refuse.
func (b *Bulletin) Bytes() ([]byte, error) {
	out := []byte(magic)
	put := func(typ byte, name string, body []byte) {
		out = append(out, typ, 0)
		out = binary.BigEndian.AppendUint16(out, uint16(len(name)))
		out = binary.BigEndian.AppendUint64(out, uint64(len(body)))
		out = append(append(out, name...), body...)
	}
	put(typeSnapshot, "", b.Snapshot)
	for i, t := range b.Trust {
		put(typeTrust, versionName(i), t)
	}
	for _, o := range b.Orders {
		put(typeOrder, o.ID, o.Data)
	}
	for _, p := range b.Proofs {
		put(typeProof, proofName(p.Old), p.Text)
	}
	out = append(out, typeEnd, 0, 0, 0)
	out = binary.BigEndian.AppendUint64(out, sha256.Size)
	sum := sha256.Sum256(out)
	out = append(out, sum[:]...)
	if _, err := Read(bytes.NewReader(out)); err != nil {
		return nil, err
	}
	return out, nil
}

// versionName is the name of the section of version i+1.
func versionName(i int) string { return fmt.Sprintf("%06d", i+1) }

// proofName is the name of the section of the proof that begins at a size.
func proofName(old int64) string { return fmt.Sprintf("%012d", old) }

// reader counts what it reads.
type reader struct {
	r     io.Reader
	total int64
}

// Read reads a whole stream, to its end. It allocates no more than the caps allow and the stream really has. Errors match ErrFormat,
// or are those of r.
func Read(r io.Reader) (*Bulletin, error) {
	digest := sha256.New()
	in := &reader{r: io.TeeReader(r, digest)}
	start, err := in.take(int64(len(magic)))
	if err != nil {
		return nil, err
	}
	if string(start) != magic {
		return nil, fmt.Errorf("%w: begins with %x and not with the magic of a bulletin (section 1)", ErrFormat, start)
	}
	b, last := &Bulletin{}, byte(0)
	for {
		typ, name, size, err := in.header()
		if err != nil {
			return nil, err
		}
		if typ == typeEnd && name == "" {
			if err := in.end(b, size, digest.Sum(nil)); err != nil { // the header of the end is under the digest
				return nil, err
			}
			return b, nil
		}
		if typ < last || typ == typeEnd || typ > typeProof {
			return nil, fmt.Errorf("%w: a section of type %d after one of type %d: want snapshot, trust objects, orders, proofs, end (section 1)", ErrFormat, typ, last)
		}
		last = typ
		if err := in.section(b, typ, name, size); err != nil {
			return nil, err
		}
	}
}

// take reads exactly n bytes; memory grows as they come.
func (in *reader) take(n int64) ([]byte, error) {
	if in.total += n; in.total > MaxStream {
		return nil, fmt.Errorf("%w: more than %d bytes (section 1)", ErrFormat, MaxStream)
	}
	var buf bytes.Buffer
	got, err := io.CopyN(&buf, in.r, n)
	if errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: cut off after %d bytes", ErrFormat, in.total-n+got)
	}
	return buf.Bytes(), err
}

func (in *reader) header() (typ byte, name string, size int64, err error) {
	h, err := in.take(header)
	if err != nil {
		return 0, "", 0, err
	}
	if h[1] != 0 {
		return 0, "", 0, fmt.Errorf("%w: reserved byte of a section is %d (section 1)", ErrFormat, h[1])
	}
	length, wide := binary.BigEndian.Uint16(h[2:]), binary.BigEndian.Uint64(h[4:])
	if length > 64 || wide > MaxStream {
		return 0, "", 0, fmt.Errorf("%w: a section of type %d with a name of %d bytes and a body of %d (section 1)", ErrFormat, h[0], length, wide)
	}
	n, err := in.take(int64(length))
	return h[0], string(n), int64(wide), err
}

// section takes one section in.
func (in *reader) section(b *Bulletin, typ byte, name string, size int64) error {
	limit := map[byte]int64{typeSnapshot: maxSnapshot, typeTrust: maxTrustBody, typeOrder: maxOrderBody, typeProof: maxProof}[typ]
	if size > limit || size == 0 {
		return fmt.Errorf("%w: a section of type %d of %d bytes: 1 to %d (section 1)", ErrFormat, typ, size, limit)
	}
	if err := b.room(typ, name); err != nil {
		return fmt.Errorf("%w: %w (section 1)", ErrFormat, err)
	}
	body, err := in.take(size)
	if err != nil {
		return err
	}
	switch typ {
	case typeSnapshot:
		b.Snapshot = body
	case typeTrust:
		b.Trust = append(b.Trust, body)
	case typeProof:
		old, err := strconv.ParseInt(name, 10, 64)
		if err != nil || proofName(old) != name || old < 0 || len(name) != len(proofName(0)) {
			return fmt.Errorf("%w: a proof named %+q: its old size as 12 digits is wanted (section 1)", ErrFormat, name)
		}
		b.Proofs = append(b.Proofs, Proof{old, body})
	case typeOrder:
		o, err := NewOrder(body)
		if err != nil {
			return err
		}
		if o.ID != name {
			return fmt.Errorf("%w: the order in section %q is %s", ErrFormat, name, o.ID)
		}
		b.Orders = append(b.Orders, o)
	}
	return nil
}

// room says whether a section may come now under its name.
func (b *Bulletin) room(typ byte, name string) error {
	switch {
	case typ == typeSnapshot && (b.Snapshot != nil || name != ""):
		return fmt.Errorf("a section of type %d named %+q, or a second one", typ, name)
	case typ != typeSnapshot && b.Snapshot == nil:
		return errors.New("the snapshot does not come first")
	case typ == typeTrust && len(b.Trust) == MaxTrust, typ == typeOrder && len(b.Orders) == MaxOrders, typ == typeProof && len(b.Proofs) == MaxProofs:
		return fmt.Errorf("too many sections of type %d", typ)
	case typ == typeTrust && name != versionName(len(b.Trust)):
		return fmt.Errorf("trust object %+q where %q is due", name, versionName(len(b.Trust)))
	case typ == typeOrder && len(b.Orders) > 0 && b.Orders[len(b.Orders)-1].ID >= name:
		return fmt.Errorf("order %+q does not come after %q", name, b.Orders[len(b.Orders)-1].ID)
	case typ == typeProof && len(b.Proofs) > 0 && proofName(b.Proofs[len(b.Proofs)-1].Old) >= name:
		return fmt.Errorf("proof %+q does not come after %q", name, proofName(b.Proofs[len(b.Proofs)-1].Old))
	}
	return nil
}

func (in *reader) end(b *Bulletin, size int64, want []byte) error {
	if size != sha256.Size {
		return fmt.Errorf("%w: an end section of %d bytes (section 1)", ErrFormat, size)
	}
	sum, err := in.take(size)
	if err != nil {
		return err
	}
	if !bytes.Equal(sum, want) {
		return fmt.Errorf("%w: its bytes have the SHA-256 %x, its end says %x: damaged", ErrFormat, want, sum)
	}
	if n, err := io.ReadFull(in.r, make([]byte, 1)); n > 0 {
		return fmt.Errorf("%w: bytes after the end (section 1)", ErrFormat)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	if b.Snapshot == nil || len(b.Trust) == 0 {
		return fmt.Errorf("%w: no snapshot, or no trust object (section 1)", ErrFormat)
	}
	return nil
}

// Matches checks that the stream holds exactly what its snapshot names: these orders, this log, and a chain that ends with this trust
// object. Whether the chain verifies is for who has the first one.
func (b *Bulletin) Matches(s *mofn.Snapshot) error {
	if len(b.Trust) == 0 {
		return fmt.Errorf("%w: no trust object", ErrFormat)
	}
	last, err := envelope.ParseDSSE(b.Trust[len(b.Trust)-1], maxTrustBody)
	if err != nil {
		return fmt.Errorf("%w: trust object %d: %w", ErrFormat, len(b.Trust), err)
	}
	ids := make([]string, len(b.Orders))
	for i, o := range b.Orders {
		ids[i] = o.ID
	}
	switch {
	case !slices.Equal(ids, s.Orders):
		return fmt.Errorf("%w: the snapshot names the orders %s, here are %s: somebody left one out, or put one in", ErrFormat, few(s.Orders), few(ids))
	case int64(len(b.Trust)) != s.Trust.Version:
		return fmt.Errorf("%w: the snapshot names version %d of the trust object, here are %d", ErrFormat, s.Trust.Version, len(b.Trust))
	case fmt.Sprintf("%x", mofn.Fingerprint(last.Payload)) != s.Trust.Fingerprint:
		return fmt.Errorf("%w: the snapshot names the trust object %s, the chain ends with %x", ErrFormat, s.Trust.Fingerprint, mofn.Fingerprint(last.Payload))
	case len(b.Proofs) > 0 && s.Log == mofn.LogRef{}:
		return fmt.Errorf("%w: there are proofs of a log, and the snapshot names none", ErrFormat)
	}
	return nil
}

func few(ids []string) string {
	short := make([]string, 0, 4)
	for _, id := range ids[:min(3, len(ids))] {
		short = append(short, id[:12])
	}
	if len(ids) > 3 {
		short = append(short, fmt.Sprintf("and %d more", len(ids)-3))
	}
	return "[" + strings.Join(short, " ") + "]"
}

// ID is what a bulletin is announced as: the SHA-256 of its stream.
func ID(stream []byte) [sha256.Size]byte { return sha256.Sum256(stream) }
