// SPDX-License-Identifier: Apache-2.0

package mofn

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

const (
	trustType = "sluice-trust-v1"

	// maxTrust holds maxKeys H2 keys and maxReceivers X-Wing keys in base64, about 2.7 MiB, with the rest.
	maxTrust = 4 << 20
	// maxLinks: a site has a handful of bastions, two keys each during a change.
	maxLinks = 64
	// maxReceivers is the number of enclaves that one bastion feeds.
	maxReceivers = 512
	// maxEpochs is the number of streams with a floor.
	maxEpochs = 4096
	// maxHeartbeats: one a bastion, two during a change.
	maxHeartbeats = 16
	// maxLogs: one a bastion and one a receiver.
	maxLogs = 1024
)

// Trust is the trust object of trust.md section 4: everything that both sides must agree on. The lists belong to the caller; a
// nil list is written as an empty one.
type Trust struct {
	Version   int64  // 1 for the first, then one more each time
	Prev      string // SHA-256 of the payload of the previous version, hexadecimal; "" for the first
	Root      string // the group whose quorum signs the next version
	Policy    string // text for ParsePolicy
	Keys      []TrustKey
	Links     []LinkKey
	Receivers []Receiver

	Heartbeats []TrustKey // keys that sign snapshots (bulletin.md section 2); none: left out
	Logs       []LogKey   // keys that sign checkpoints (audit.md section 3); none: left out

	Epochs  []Epoch
	Created string // RFC 3339
}

// LogKey is the key of suite H1 or H2 under which one audit log signs its checkpoints.
type LogKey struct {
	Origin  string `json:"origin"` // sluice/<side>/<id>
	ID      KeyID  `json:"id"`
	Suite   Suite  `json:"suite"`
	Public  []byte `json:"public"`
	Comment string `json:"comment"`
}

// TrustKey is an enrolled key of suite H1 or H2; one trust object may have both.
type TrustKey struct {
	ID      KeyID  `json:"id"`
	Suite   Suite  `json:"suite"`
	Public  []byte `json:"public"`
	Comment string `json:"comment"`
}

// LinkKey is an Ed25519 key (suite ED25519-LINK, 32 bytes) that may announce sessions on the link.
type LinkKey struct {
	ID      KeyID  `json:"id"`
	Public  []byte `json:"public"`
	Comment string `json:"comment"`
}

// Receiver is an enclave: its id, its X-Wing public key (suite XWING, 1216 bytes) and, if it may ask for what is missing, its
// ticket key (suite ED25519-TICKET, 32 bytes).
type Receiver struct {
	Name    string `json:"name"`
	HPKE    []byte `json:"hpke"`
	Ticket  []byte `json:"ticket,omitempty"` // none: left out, as before there were tickets
	Comment string `json:"comment"`
}

// Epoch is the floor of a stream: releases below (MinEpoch, MinSeq) are refused, whatever anybody signed.
type Epoch struct {
	Stream   string `json:"stream"`
	MinEpoch int64  `json:"min_epoch"`
	MinSeq   int64  `json:"min_seq"`
}

// trustWire fixes the order of the fields.
type trustWire struct {
	Type      string     `json:"type"`
	Version   int64      `json:"version"`
	Prev      string     `json:"prev"`
	Root      string     `json:"root"`
	Policy    string     `json:"policy"`
	Keys      []TrustKey `json:"keys"`
	Links     []LinkKey  `json:"links"`
	Receivers []Receiver `json:"receivers"`

	Heartbeats []TrustKey `json:"heartbeats,omitempty"`
	Logs       []LogKey   `json:"logs,omitempty"`

	Epochs  []Epoch `json:"epochs"`
	Created string  `json:"created"`
}

// Marshal gives the payload in strict canonical JSON. It refuses (ErrTrust) whatever ParseTrust would refuse.
func (t *Trust) Marshal() ([]byte, error) {
	payload, err := t.encode()
	if err != nil {
		return nil, err
	}
	if _, err := ParseTrust(payload); err != nil {
		return nil, err
	}
	return payload, nil
}

func (t *Trust) encode() ([]byte, error) {
	payload, err := encodeCanonical(trustWire{
		Type: trustType, Version: t.Version, Prev: t.Prev, Root: t.Root, Policy: t.Policy,
		Keys: orEmpty(t.Keys), Links: orEmpty(t.Links), Receivers: orEmpty(t.Receivers),
		Heartbeats: t.Heartbeats, Logs: t.Logs, Epochs: orEmpty(t.Epochs), Created: t.Created,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrust, err)
	}
	return payload, nil
}

// orEmpty writes [] and not null.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// ParseTrust reads a payload: strict canonical JSON, every rule of trust.md section 4, and a policy that loads. It does not look at
// signatures: VerifyTrust does, and the first object is confirmed by its fingerprint. Errors match ErrTrust, and
// ErrPolicy when the policy is at fault.
func ParseTrust(payload []byte) (*Trust, error) {
	if len(payload) > maxTrust {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTrust, len(payload), maxTrust)
	}
	var w trustWire
	if err := decodeCanonical(payload, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrust, err)
	}
	if w.Type != trustType {
		return nil, fmt.Errorf("%w: type is %q, not %q", ErrTrust, shorten(w.Type), trustType)
	}
	if w.Keys == nil || w.Links == nil || w.Receivers == nil || w.Epochs == nil {
		return nil, fmt.Errorf("%w: a list is null; write [] for an empty one", ErrTrust)
	}
	t := &Trust{
		Version: w.Version, Prev: w.Prev, Root: w.Root, Policy: w.Policy,
		Keys: w.Keys, Links: w.Links, Receivers: w.Receivers, Heartbeats: w.Heartbeats, Logs: w.Logs, Epochs: w.Epochs, Created: w.Created,
	}
	for _, check := range []func() error{t.checkHead, t.checkSizes, t.checkKeys, t.checkLinks, t.checkReceivers, t.checkOnline, t.checkEpochs, t.checkPolicy} {
		if err := check(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrTrust, err)
		}
	}
	return t, nil
}

// LoadPolicy parses the policy against the keys. The result is the caller's to keep.
func (t *Trust) LoadPolicy() (*Policy, error) { return ParsePolicy(t.Policy, t.Keys) }

func (t *Trust) checkPolicy() error {
	policy, err := t.LoadPolicy()
	if err != nil {
		return err
	}
	if _, ok := policy.groups[t.Root]; !ok {
		return fmt.Errorf("root %q is not a group of the policy", shorten(t.Root))
	}
	return nil
}

func (t *Trust) checkHead() error {
	if t.Version < 1 || t.Version > maxSafeInt {
		return fmt.Errorf("version %d is not from 1 to 2^53-1", t.Version)
	}
	if t.Version == 1 && t.Prev != "" {
		return fmt.Errorf("version 1 has no predecessor, prev is %q", shorten(t.Prev))
	}
	if t.Version > 1 && !isDigest(t.Prev) {
		return fmt.Errorf("prev %q is not a SHA-256 in lower-case hexadecimal", shorten(t.Prev))
	}
	if _, err := time.Parse(time.RFC3339, t.Created); err != nil {
		return fmt.Errorf("created %q is not a time in RFC 3339", shorten(t.Created))
	}
	return nil
}

func isDigest(s string) bool {
	raw, err := hex.DecodeString(s)
	return err == nil && len(raw) == sha256.Size && hex.EncodeToString(raw) == s
}

func (t *Trust) checkSizes() error {
	for _, list := range []struct {
		name      string
		have, cap int
	}{
		{"keys", len(t.Keys), maxKeys},
		{"links", len(t.Links), maxLinks},
		{"receivers", len(t.Receivers), maxReceivers},
		{"heartbeats", len(t.Heartbeats), maxHeartbeats},
		{"logs", len(t.Logs), maxLogs},
		{"epochs", len(t.Epochs), maxEpochs},
	} {
		if list.have > list.cap {
			return fmt.Errorf("%d %s, at most %d", list.have, list.name, list.cap)
		}
	}
	return nil
}

// checkKeys checks order and comments; ParsePolicy checks the keys themselves.
func (t *Trust) checkKeys() error {
	last := ""
	for _, k := range t.Keys {
		if err := following(&last, k.ID.String(), k.Comment); err != nil {
			return fmt.Errorf("keys: %w", err)
		}
	}
	return nil
}

// checkLinks also refuses a link key that is the Ed25519 half of an enrolled key: a half verifies alone, so its signatures
// on the link could be taken for the half of a statement's.
func (t *Trust) checkLinks() error {
	halves := t.halves()
	last := ""
	for _, k := range t.Links {
		if err := following(&last, k.ID.String(), k.Comment); err != nil {
			return fmt.Errorf("links: %w", err)
		}
		if err := checkPublic(SuiteLink, k.Public); err != nil {
			return fmt.Errorf("link key %v: %w", k.ID, err)
		}
		if id := NewKeyID(SuiteLink, k.Public); id != k.ID {
			return fmt.Errorf("link key %v is filed under an id that is not its own (its own is %v)", k.ID, id)
		}
		if other, ok := halves[halfID("Ed25519", k.Public)]; ok {
			return fmt.Errorf("link key %v is half of the key %v; make a new one", k.ID, other)
		}
	}
	return nil
}

// halves maps the half ids of the enrolled keys to their keys; keys that do not parse are left to ParsePolicy.
func (t *Trust) halves() map[KeyID]KeyID {
	all := map[KeyID]KeyID{}
	for _, k := range t.Keys {
		if key, err := ParsePublicKey(k.Suite, k.Public); err == nil {
			for _, half := range key.HalfIDs() {
				all[half] = k.ID
			}
		}
	}
	return all
}

func (t *Trust) checkReceivers() error {
	last := ""
	for _, r := range t.Receivers {
		if err := following(&last, r.Name, r.Comment); err != nil {
			return fmt.Errorf("receivers: %w", err)
		}
		if !validName(r.Name) {
			return fmt.Errorf("receiver %q is not a name", shorten(r.Name))
		}
		if err := checkPublic(SuiteXWing, r.HPKE); err != nil {
			return fmt.Errorf("receiver %s: %w", r.Name, err)
		}
	}
	return t.checkTicketKeys()
}

// checkTicketKeys: a key that verifies in two places lets a signature of one be taken for one of the other, so a ticket key is
// neither half of an enrolled key, nor a link key, nor another receiver's.
func (t *Trust) checkTicketKeys() error {
	halves, owner := t.halves(), map[string]string{}
	for _, k := range t.Links {
		owner[string(k.Public)] = "link key " + k.ID.String()
	}
	for _, r := range t.Receivers {
		if r.Ticket == nil {
			continue
		}
		if err := checkPublic(SuiteTicket, r.Ticket); err != nil {
			return fmt.Errorf("ticket key of receiver %s: %w", r.Name, err)
		}
		if other, ok := halves[halfID("Ed25519", r.Ticket)]; ok {
			return fmt.Errorf("ticket key of receiver %s is half of the key %v; make a new one", r.Name, other)
		}
		if other, ok := owner[string(r.Ticket)]; ok {
			return fmt.Errorf("ticket key of receiver %s is the %s too; make a new one", r.Name, other)
		}
		owner[string(r.Ticket)] = "ticket key of receiver " + r.Name
	}
	return nil
}

// checkOnline checks the keys that no person holds: those of heartbeats and of audit logs. Each is used for one thing only, so
// no half of one may stand anywhere else.
func (t *Trust) checkOnline() error {
	owner := map[KeyID]string{}
	for half, key := range t.halves() {
		owner[half] = "the enrolled key " + key.String()
	}
	for _, k := range t.Links {
		owner[halfID("Ed25519", k.Public)] = "the link key " + k.ID.String()
	}
	for _, r := range t.Receivers {
		if r.Ticket != nil {
			owner[halfID("Ed25519", r.Ticket)] = "the ticket key of receiver " + r.Name
		}
	}
	last := ""
	for _, k := range t.Heartbeats {
		if err := following(&last, k.ID.String(), k.Comment); err != nil {
			return fmt.Errorf("heartbeats: %w", err)
		}
		if err := takeOnline(owner, "heartbeat key", k); err != nil {
			return err
		}
	}
	last = ""
	for _, l := range t.Logs {
		if err := following(&last, l.Origin, l.Comment); err != nil {
			return fmt.Errorf("logs: %w", err)
		}
		if !validOrigin(l.Origin) {
			return fmt.Errorf("logs: %q is not sluice/low/<id> or sluice/high/<id>", shorten(l.Origin))
		}
		if err := takeOnline(owner, "log key of "+l.Origin, l.key()); err != nil {
			return err
		}
	}
	return nil
}

func (l LogKey) key() TrustKey {
	return TrustKey{ID: l.ID, Suite: l.Suite, Public: l.Public, Comment: l.Comment}
}

// takeOnline checks one key and enters its halves into owner.
func takeOnline(owner map[KeyID]string, what string, k TrustKey) error {
	key, err := ParsePublicKey(k.Suite, k.Public)
	if err != nil {
		return fmt.Errorf("%s %v: %w", what, k.ID, err)
	}
	if key.ID() != k.ID {
		return fmt.Errorf("%s %v is filed under an id that is not its own (its own is %v)", what, k.ID, key.ID())
	}
	for _, half := range key.HalfIDs() {
		if other, ok := owner[half]; ok {
			return fmt.Errorf("%s %v shares a half with %s; make a new one", what, k.ID, other)
		}
		owner[half] = "the " + what + " " + k.ID.String()
	}
	return nil
}

// validOrigin is the rule of audit.md section 3.
func validOrigin(s string) bool {
	side, id, ok := strings.Cut(strings.TrimPrefix(s, "sluice/"), "/")
	return ok && strings.HasPrefix(s, "sluice/") && (side == "low" || side == "high") && validName(id)
}

// Heartbeat gives a key that may sign snapshots; ok is false for any other.
func (t *Trust) Heartbeat(id KeyID) (key *PublicKey, ok bool) {
	for _, k := range t.Heartbeats {
		if k.ID == id {
			key, err := ParsePublicKey(k.Suite, k.Public)
			return key, err == nil
		}
	}
	return nil, false
}

func (t *Trust) checkEpochs() error {
	last := ""
	for _, e := range t.Epochs {
		if err := following(&last, e.Stream, ""); err != nil {
			return fmt.Errorf("epochs: %w", err)
		}
		if !validStream(e.Stream) {
			return fmt.Errorf("epochs: %q is not the name of a stream", shorten(e.Stream))
		}
		if min(e.MinEpoch, e.MinSeq) < 0 || max(e.MinEpoch, e.MinSeq) > maxSafeInt {
			return fmt.Errorf("epochs: floor of %s is not from 0 to 2^53-1", e.Stream)
		}
	}
	return nil
}

// following checks one entry of a list: strictly after the last, with a comment that can be shown.
func following(last *string, name, comment string) error {
	if name <= *last {
		return fmt.Errorf("%q does not stand in strict order after %q", shorten(name), shorten(*last))
	}
	*last = name
	if err := checkText(comment, "", maxComment); err != nil {
		return fmt.Errorf("comment of %q: %w", shorten(name), err)
	}
	return nil
}

// VerifyTrust accepts the successor of current (trust.md section 4): version exactly one more, prev the fingerprint of current, the
// quorum of current's root and the quorum of the new object's own root, in the role root. message is the pre-authentication
// encoding of payload. The payload is looked at only after the quorum of current's root verified. The caller persists the
// result only after nil (CVE-2020-15163). Errors match ErrTrust and, where it applies, ErrSignature, ErrDuplicate or
// ErrThreshold.
func VerifyTrust(current *Trust, payload []byte, sigs []Signature, message []byte) (*Trust, error) {
	if current == nil {
		return nil, fmt.Errorf("%w: there is no current one; the first is carried by hand and confirmed by its fingerprint", ErrTrust)
	}
	if string(message) != string(pae(TrustPayloadType, payload)) {
		return nil, fmt.Errorf("%w: %w: the signed message is not this payload of type %s", ErrTrust, ErrSignature, TrustPayloadType)
	}
	before, err := current.Marshal()
	if err != nil {
		return nil, fmt.Errorf("current trust object: %w", err)
	}
	if err := current.rootSigned(message, sigs); err != nil {
		return nil, fmt.Errorf("%w: quorum of the current version %d: %w", ErrTrust, current.Version, err)
	}
	next, err := ParseTrust(payload)
	if err != nil {
		return nil, err
	}
	if err := next.follows(current.Version, before); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrust, err)
	}
	if err := next.rootSigned(message, sigs); err != nil {
		return nil, fmt.Errorf("%w: quorum of the new version %d itself: %w", ErrTrust, next.Version, err)
	}
	return next, nil
}

// follows: exactly the next version (CVE-2025-2885 was a skipped one), of exactly this predecessor.
func (t *Trust) follows(version int64, payload []byte) error {
	if t.Version != version+1 {
		return fmt.Errorf("version %d does not follow version %d; versions are never skipped or repeated", t.Version, version)
	}
	if digest := Fingerprint(payload); t.Prev != hex.EncodeToString(digest[:]) {
		return fmt.Errorf("prev is %s, the current trust object is %x", t.Prev, digest)
	}
	return nil
}

// rootSigned counts the people of the root group who signed message in the role root. Every signature by an enrolled key must
// verify. One officer may sign with two keys, the old and the new, and counts once.
func (t *Trust) rootSigned(message []byte, sigs []Signature) error {
	policy, err := t.LoadPolicy()
	if err != nil {
		return err
	}
	known, unknown, err := policy.sort(sigs)
	if err != nil {
		return err
	}
	signed := map[*officer]bool{}
	for _, s := range known {
		if err := policy.keys[s.id].Verify(RoleRoot, message, s.sig); err != nil {
			return err
		}
		if who, ok := policy.owner[s.id]; ok {
			signed[who] = true
		}
	}
	root, ok := policy.groups[t.Root]
	if !ok {
		return fmt.Errorf("root %q is not a group of the policy", shorten(t.Root))
	}
	return root.shortfall(func(o *officer) bool { return signed[o] }, unknown)
}
