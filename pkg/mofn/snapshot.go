// SPDX-License-Identifier: Apache-2.0

package mofn

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"
)

// SnapshotPayloadType is the DSSE payload type of a snapshot (bulletin.md section 2).
const SnapshotPayloadType = "application/vnd.sluice.snapshot.v1+json"

// RoleHeartbeat is the role of snapshots (bulletin.md section 2).
const RoleHeartbeat = "heartbeat"

const (
	snapshotType = "sluice-snapshot-v1"

	// MaxSnapshot is the cap on the payload of a snapshot, in bytes: 8,192 releases of at most 280 bytes and 1,024 orders, less than 4 MiB
	// in base64.
	MaxSnapshot = 5 << 19
	// MaxOrders is the number of orders in a bulletin.
	MaxOrders = 1024
	// MaxCurrent is the number of releases in a snapshot.
	MaxCurrent = 8192
	// maxInterval is the longest pause between two bulletins, in seconds.
	maxInterval = 86400
)

// ErrSnapshot says that a snapshot is malformed, or not signed by a heartbeat key.
var ErrSnapshot = errors.New("mofn: snapshot refused")

// Snapshot says what is current (bulletin.md section 2). A nil list is written as an empty one.
type Snapshot struct {
	Site     string
	Root     string // fingerprint of the first trust object, hexadecimal
	Counter  int64
	Interval int64 // seconds
	At       string
	Trust    TrustRef
	Orders   []string // order ids, strictly increasing
	Releases []Current
	Log      LogRef
}

// TrustRef names a trust object.
type TrustRef struct {
	Version     int64  `json:"version"`
	Fingerprint string `json:"fingerprint"`
}

// Current names a release that is current.
type Current struct {
	Stream  string `json:"stream"`
	Epoch   int64  `json:"epoch"`
	Seq     int64  `json:"seq"`
	Release string `json:"release"`
}

// LogRef names how far an audit log has come; the zero value: there is none.
type LogRef struct {
	Origin string `json:"origin"`
	Size   int64  `json:"size"`
	Root   string `json:"root"` // base64, as in a checkpoint
}

// snapshotWire fixes the order of the fields.
type snapshotWire struct {
	Type     string    `json:"type"`
	Site     string    `json:"site"`
	Root     string    `json:"root"`
	Counter  int64     `json:"counter"`
	Interval int64     `json:"interval"`
	At       string    `json:"at"`
	Trust    TrustRef  `json:"trust"`
	Orders   []string  `json:"orders"`
	Releases []Current `json:"releases"`
	Log      LogRef    `json:"log"`
}

// Marshal gives the payload in strict canonical JSON. It refuses (ErrSnapshot) whatever ParseSnapshot would refuse.
func (s *Snapshot) Marshal() ([]byte, error) {
	payload, err := encodeCanonical(s.wire())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	if _, err := ParseSnapshot(payload); err != nil {
		return nil, err
	}
	return payload, nil
}

func (s *Snapshot) wire() snapshotWire {
	return snapshotWire{
		Type: snapshotType, Site: s.Site, Root: s.Root, Counter: s.Counter, Interval: s.Interval, At: s.At, Trust: s.Trust,
		Orders: orEmpty(s.Orders), Releases: orEmpty(s.Releases), Log: s.Log,
	}
}

// ParseSnapshot reads a payload: strict canonical JSON and every rule of bulletin.md section 2 that needs nothing else. It does
// not look at signatures: VerifySnapshot does. Errors match ErrSnapshot.
func ParseSnapshot(payload []byte) (*Snapshot, error) {
	if len(payload) > MaxSnapshot {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrSnapshot, len(payload), MaxSnapshot)
	}
	var w snapshotWire
	if err := decodeCanonical(payload, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	if w.Type != snapshotType {
		return nil, fmt.Errorf("%w: type is %q, not %q", ErrSnapshot, shorten(w.Type), snapshotType)
	}
	if w.Orders == nil || w.Releases == nil {
		return nil, fmt.Errorf("%w: a list is null; write [] for an empty one", ErrSnapshot)
	}
	s := &Snapshot{
		Site: w.Site, Root: w.Root, Counter: w.Counter, Interval: w.Interval, At: w.At, Trust: w.Trust,
		Orders: w.Orders, Releases: w.Releases, Log: w.Log,
	}
	for _, check := range []func() error{s.checkHead, s.checkOrders, s.checkReleases, s.checkLog} {
		if err := check(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
		}
	}
	return s, nil
}

func (s *Snapshot) checkHead() error {
	switch {
	case !validName(s.Site):
		return fmt.Errorf("site %q is not a name", shorten(s.Site))
	case !isDigest(s.Root):
		return fmt.Errorf("root %q is not a SHA-256 in lower-case hexadecimal", shorten(s.Root))
	case s.Counter < 1 || s.Counter > maxSafeInt:
		return fmt.Errorf("counter %d is not from 1 to 2^53-1", s.Counter)
	case s.Interval < 1 || s.Interval > maxInterval:
		return fmt.Errorf("interval %d is not from 1 to %d seconds", s.Interval, maxInterval)
	case s.Trust.Version < 1 || s.Trust.Version > maxSafeInt:
		return fmt.Errorf("trust version %d is not from 1 to 2^53-1", s.Trust.Version)
	case !isDigest(s.Trust.Fingerprint):
		return fmt.Errorf("trust fingerprint %q is not a SHA-256 in lower-case hexadecimal", shorten(s.Trust.Fingerprint))
	}
	return checkTime("at", s.At)
}

// checkTime is the rule for points in time: RFC 3339, UTC, whole seconds.
func checkTime(field, s string) error {
	at, err := time.Parse(time.RFC3339, s)
	if err != nil || at.UTC().Format(time.RFC3339) != s || !strings.HasSuffix(s, "Z") {
		return fmt.Errorf("%s %q is not a time in RFC 3339, in UTC and whole seconds", field, shorten(s))
	}
	return nil
}

func (s *Snapshot) checkOrders() error { return checkIDs("orders", s.Orders, MaxOrders) }

// checkIDs checks a list of digests: strictly increasing, and not too many.
func checkIDs(field string, ids []string, most int) error {
	if len(ids) > most {
		return fmt.Errorf("%d %s, at most %d", len(ids), field, most)
	}
	last := ""
	for _, id := range ids {
		if !isDigest(id) {
			return fmt.Errorf("%s: %q is not a SHA-256 in lower-case hexadecimal", field, shorten(id))
		}
		if id <= last {
			return fmt.Errorf("%s: %q does not stand in strict order after %q", field, id, last)
		}
		last = id
	}
	return nil
}

func (s *Snapshot) checkReleases() error {
	if len(s.Releases) > MaxCurrent {
		return fmt.Errorf("%d releases, at most %d", len(s.Releases), MaxCurrent)
	}
	for i, r := range s.Releases {
		if !validStream(r.Stream) || !isDigest(r.Release) {
			return fmt.Errorf("release %d: %q of stream %q is not a release id of a stream", i, shorten(r.Release), shorten(r.Stream))
		}
		if r.Epoch < 0 || r.Seq < 1 || max(r.Epoch, r.Seq) > maxSafeInt {
			return fmt.Errorf("release %d: epoch %d seq %d", i, r.Epoch, r.Seq)
		}
		if i > 0 && !s.Releases[i-1].before(r) {
			return fmt.Errorf("release %d does not stand in strict order of stream, epoch and seq", i)
		}
	}
	return nil
}

func (c Current) before(d Current) bool {
	switch {
	case c.Stream != d.Stream:
		return c.Stream < d.Stream
	case c.Epoch != d.Epoch:
		return c.Epoch < d.Epoch
	}
	return c.Seq < d.Seq
}

func (s *Snapshot) checkLog() error {
	if s.Log == (LogRef{}) {
		return nil
	}
	root, err := base64.StdEncoding.Strict().DecodeString(s.Log.Root)
	if err != nil || len(root) != sha256.Size || !validOrigin(s.Log.Origin) || s.Log.Size < 1 || s.Log.Size > maxSafeInt {
		return fmt.Errorf("log %q size %d: neither a checkpoint nor none", shorten(s.Log.Origin), s.Log.Size)
	}
	return nil
}

// Head is the digest of what the snapshot says apart from counter and clock (bulletin.md section 2).
func (s *Snapshot) Head() ([sha256.Size]byte, error) {
	b, err := encodeCanonical(struct {
		Trust    TrustRef  `json:"trust"`
		Orders   []string  `json:"orders"`
		Releases []Current `json:"releases"`
	}{s.Trust, orEmpty(s.Orders), orEmpty(s.Releases)})
	if err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	return sha256.Sum256(append([]byte("sluice-head-v1\x00"), b...)), nil
}

// freshnessWords is how many words two people compare: 66 bits.
const freshnessWords = 6

// Words are the freshness words of the head, for reading aloud.
func (s *Snapshot) Words() ([]string, error) {
	head, err := s.Head()
	if err != nil {
		return nil, err
	}
	return Words(head[:])[:freshnessWords], nil
}

// Names reports whether the snapshot names exactly this release.
func (s *Snapshot) Names(c Current) bool {
	for _, r := range s.Releases {
		if r == c {
			return true
		}
	}
	return false
}

// VerifySnapshot accepts a snapshot that a heartbeat key of one of the trust objects signed, in the role heartbeat. message is the
// pre-authentication encoding of payload, which is looked at only after the signature verified. Errors match ErrSnapshot and,
// where it applies, ErrSignature.
func VerifySnapshot(keys []*Trust, payload []byte, sigs []Signature, message []byte) (*Snapshot, error) {
	if string(message) != string(pae(SnapshotPayloadType, payload)) {
		return nil, fmt.Errorf("%w: %w: the signed message is not this payload of type %s", ErrSnapshot, ErrSignature, SnapshotPayloadType)
	}
	if len(sigs) != 1 {
		return nil, fmt.Errorf("%w: %w: %d signatures, exactly one is wanted", ErrSnapshot, ErrSignature, len(sigs))
	}
	id, err := ParseKeyID(sigs[0].KeyID)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
	}
	for _, t := range keys {
		key, ok := t.Heartbeat(id)
		if !ok {
			continue
		}
		if err := key.Verify(RoleHeartbeat, message, sigs[0].Sig); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSnapshot, err)
		}
		return ParseSnapshot(payload)
	}
	return nil, fmt.Errorf("%w: %w: %v is no heartbeat key of the trust object", ErrSnapshot, ErrSignature, id)
}
