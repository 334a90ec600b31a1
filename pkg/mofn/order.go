// SPDX-License-Identifier: Apache-2.0

package mofn

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// OrderPayloadType is the DSSE payload type of an order (bulletin.md section 3).
const OrderPayloadType = "application/vnd.sluice.order.v1+json"

// What an order does.
const (
	ActionStop   = "stop"
	ActionResume = "resume"
	ActionRevoke = "revoke"
)

// What an order is about.
const (
	KindEverything = "everything"
	KindStream     = "stream"
	KindRelease    = "release"
	KindKey        = "key"
	KindHalf       = "half"
	KindOfficer    = "officer"
)

const (
	orderType = "sluice-order-v1"

	// maxOrder is the cap on the payload of an order, in bytes: 64 ids and a reason.
	maxOrder = 16 << 10
	// maxLifts is how many stops one resume may lift.
	maxLifts = 64
	// maxOrderReason is the cap on the words of an order, in bytes.
	maxOrderReason = 1024
)

// ErrOrder says that an order is malformed, or that its officer may not give it.
var ErrOrder = errors.New("mofn: order refused")

// Order is one officer's word about what goes on (bulletin.md section 3). A nil Lifts is written as an empty list.
type Order struct {
	Root    string // fingerprint of the first trust object, hexadecimal
	Action  string
	Kind    string
	Target  string
	Lifts   []string
	Officer string
	Role    string // the officer's group
	At      string // RFC 3339, UTC, whole seconds
	Reason  string
}

// orderWire fixes the order of the fields.
type orderWire struct {
	Type    string   `json:"type"`
	Root    string   `json:"root"`
	Action  string   `json:"action"`
	Kind    string   `json:"kind"`
	Target  string   `json:"target"`
	Lifts   []string `json:"lifts"`
	Officer string   `json:"officer"`
	Role    string   `json:"role"`
	At      string   `json:"at"`
	Reason  string   `json:"reason"`
}

// Marshal gives the payload in strict canonical JSON. It refuses (ErrOrder) whatever ParseOrder would refuse.
func (o *Order) Marshal() ([]byte, error) {
	payload, err := encodeCanonical(o.wire())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOrder, err)
	}
	if _, err := ParseOrder(payload); err != nil {
		return nil, err
	}
	return payload, nil
}

func (o *Order) wire() orderWire {
	return orderWire{
		Type: orderType, Root: o.Root, Action: o.Action, Kind: o.Kind, Target: o.Target, Lifts: orEmpty(o.Lifts),
		Officer: o.Officer, Role: o.Role, At: o.At, Reason: o.Reason,
	}
}

// OrderID is the id of an order: the SHA-256 of its payload, in hexadecimal.
func OrderID(payload []byte) string {
	sum := sha256.Sum256(payload)
	return hex.EncodeToString(sum[:])
}

// ParseOrder reads a payload: strict canonical JSON and every rule of bulletin.md section 3 that needs no policy. Errors match ErrOrder.
func ParseOrder(payload []byte) (*Order, error) {
	if len(payload) > maxOrder {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrOrder, len(payload), maxOrder)
	}
	var w orderWire
	if err := decodeCanonical(payload, &w); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOrder, err)
	}
	if w.Type != orderType {
		return nil, fmt.Errorf("%w: type is %q, not %q", ErrOrder, shorten(w.Type), orderType)
	}
	if w.Lifts == nil {
		return nil, fmt.Errorf("%w: lifts is null; write [] for an empty list", ErrOrder)
	}
	o := &Order{
		Root: w.Root, Action: w.Action, Kind: w.Kind, Target: w.Target, Lifts: w.Lifts,
		Officer: w.Officer, Role: w.Role, At: w.At, Reason: w.Reason,
	}
	for _, check := range []func() error{o.checkHead, o.checkTarget} {
		if err := check(); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrOrder, err)
		}
	}
	return o, nil
}

func (o *Order) checkHead() error {
	if !isDigest(o.Root) {
		return fmt.Errorf("root %q is not a SHA-256 in lower-case hexadecimal", shorten(o.Root))
	}
	if !validName(o.Officer) || !validName(o.Role) {
		return fmt.Errorf("officer %q in the role %q: not names", shorten(o.Officer), shorten(o.Role))
	}
	if o.Reason == "" {
		return errors.New("no reason is given")
	}
	if err := checkText(o.Reason, "\n\t", maxOrderReason); err != nil {
		return fmt.Errorf("reason: %w", err)
	}
	return checkTime("at", o.At)
}

func (o *Order) checkTarget() error {
	switch o.Action {
	case ActionResume:
		if o.Kind != "" || o.Target != "" || len(o.Lifts) == 0 {
			return errors.New("a resume names the stops that it lifts, and nothing else")
		}
		return checkIDs("lifts", o.Lifts, maxLifts)
	case ActionStop:
	case ActionRevoke:
		if o.Kind == KindEverything || o.Kind == KindStream {
			return fmt.Errorf("a %s cannot be revoked; stop it", o.Kind)
		}
	default:
		return fmt.Errorf("action %q is not stop, resume or revoke", shorten(o.Action))
	}
	if len(o.Lifts) > 0 {
		return fmt.Errorf("a %s lifts nothing", o.Action)
	}
	return checkOrderTarget(o.Kind, o.Target)
}

func checkOrderTarget(kind, target string) error {
	var ok bool
	switch kind {
	case KindEverything:
		ok = target == ""
	case KindStream:
		ok = validPattern(target)
	case KindRelease, KindKey, KindHalf:
		ok = isDigest(target)
	case KindOfficer:
		ok = validName(target)
	default:
		return fmt.Errorf("kind %q is not everything, stream, release, key, half or officer", shorten(kind))
	}
	if !ok {
		return fmt.Errorf("target %q is not what a %s is named by", shorten(target), kind)
	}
	return nil
}

// validPattern is the rule for a stream or "prefix/*" (trust.md section 3).
func validPattern(s string) bool {
	return validStream(strings.TrimSuffix(s, "/*"))
}

// SignedOrder is an order whose signature verified, and the key that made it.
type SignedOrder struct {
	Order

	ID  string
	Key KeyID
	// Under is the version of the trust object that was in effect when the order was accepted: its key is enrolled there, and may not be any more.
	Under int64
}

// Time is when the officer says that the order was given.
func (o SignedOrder) Time() time.Time {
	at, err := time.Parse(time.RFC3339, o.At)
	if err != nil { // ParseOrder looked
		return time.Time{}
	}
	return at
}

// VerifyOrder checks one order: its only signature verifies under a key of the officer that it names, in the role of that officer's
// group. The caller sets Under of the result. root is the fingerprint of the first trust object. message is the pre-authentication encoding of payload, which is looked at only after
// the signature verified. ErrUnknownSigner when the key is not enrolled: the order may count under a later trust object. Other
// errors match ErrOrder.
func (p *Policy) VerifyOrder(root string, payload []byte, sigs []Signature, message []byte) (SignedOrder, error) {
	fail := func(err error) (SignedOrder, error) { return SignedOrder{}, fmt.Errorf("%w: %w", ErrOrder, err) }
	if string(message) != string(pae(OrderPayloadType, payload)) {
		return fail(fmt.Errorf("%w: the signed message is not this payload of type %s", ErrSignature, OrderPayloadType))
	}
	if len(sigs) != 1 {
		return fail(fmt.Errorf("%w: %d signatures, exactly one is wanted", ErrSignature, len(sigs)))
	}
	id, err := ParseKeyID(sigs[0].KeyID)
	if err != nil {
		return fail(err)
	}
	who, group, ok := p.OfficerOf(id)
	if !ok {
		return SignedOrder{}, fmt.Errorf("%w: %w: %v", ErrOrder, ErrUnknownSigner, id)
	}
	if group == "" {
		return fail(fmt.Errorf("officer %s is in no group of the policy and has no role", who))
	}
	if err := p.keys[id].Verify(group, message, sigs[0].Sig); err != nil {
		return fail(err)
	}
	o, err := ParseOrder(payload)
	if err != nil {
		return SignedOrder{}, err
	}
	switch {
	case o.Officer != who || o.Role != group:
		return fail(fmt.Errorf("%w: it speaks for %s of %s, the key is that of %s of %s", ErrClaim, o.Officer, o.Role, who, group))
	case o.Root != root:
		return fail(fmt.Errorf("%w: it is an order for another site (root %s)", ErrClaim, o.Root))
	}
	return SignedOrder{Order: *o, ID: OrderID(payload), Key: id}, nil
}

// ErrUnknownSigner says that the key of an order is not enrolled now.
var ErrUnknownSigner = errors.New("mofn: no enrolled officer's key signed it")

// Standing is what a set of orders comes to (bulletin.md section 3). It is made anew whenever an order or a trust object comes; it
// never changes. A nil *Standing is that of no orders.
type Standing struct {
	Stops       []SignedOrder // that stand, in order of their ids; a lone revoke may be one of them
	Lifted      []SignedOrder // stops that do not stand any more
	Revocations []Revocation  // that stand
	Pending     []string      // in words: what waits for more officers
	Void        []SignedOrder // that count nothing: the officer may not give them, or was revoked

	policies map[int64]*Policy // of the versions under which orders were accepted
}

// Revocation is a target that a quorum revoked.
type Revocation struct {
	Kind, Target string
	Orders       []string // their ids, sorted
	Officers     []string // sorted
	Reason       string   // of the first of them
}

// Ruler is a version of the trust object as far as orders need it.
type Ruler struct {
	Version int64
	Policy  *Policy
	Root    string // the trust object's root group
}

// resume is the group whose quorum lifts and revokes.
func (r Ruler) resume() (string, error) {
	group := r.Root
	if g := r.Policy.ResumeGroup(); g != "" {
		group = g
	}
	if _, ok := r.Policy.groups[group]; !ok {
		return "", fmt.Errorf("%w: the resume quorum %q is not a group of the policy", ErrOrder, shorten(group))
	}
	return group, nil
}

// Judge computes what stands. now is the version in effect; earlier are those before it, at least all under which an order was
// accepted. A retired key gives no new orders, for orders are accepted under the version in effect; what was ordered once goes on
// counting after its officer got another key, so a quorum is counted now, and as of each version under which one of its orders came.
func Judge(now Ruler, earlier []Ruler, orders []SignedOrder) (*Standing, error) {
	j := judge{now: now, rulers: map[int64]Ruler{}}
	s := &Standing{policies: map[int64]*Policy{}}
	for _, r := range append(slices.Clone(earlier), now) {
		if _, err := r.resume(); err != nil {
			return nil, err
		}
		j.rulers[r.Version], s.policies[r.Version] = r, r.Policy
	}
	sorted := slices.Clone(orders)
	slices.SortFunc(sorted, func(a, b SignedOrder) int { return strings.Compare(a.ID, b.ID) })
	for _, o := range sorted {
		if _, ok := j.rulers[o.Under]; !ok {
			return nil, fmt.Errorf("%w: %s was accepted under version %d of the trust object, which is not there", ErrOrder, o.ID, o.Under)
		}
	}
	// A revocation can void the orders of those it names, its own signers' too: nobody un-signs a revocation by being revoked, so those
	// that stand are found first, all at once, and void other orders only.
	s.Revocations = j.revocations(sorted, s)
	for _, o := range sorted {
		switch {
		case s.voids(o):
			s.Void = append(s.Void, o)
		case o.Action == ActionResume || o.Action == ActionRevoke && s.revoked(o.Kind, o.Target):
		case !s.policies[o.Under].MayStop(o.Officer):
			s.Void = append(s.Void, o)
		case j.lifted(sorted, o, s):
			s.Lifted = append(s.Lifted, o)
		default:
			s.Stops = append(s.Stops, o)
		}
	}
	return s, nil
}

type judge struct {
	now    Ruler
	rulers map[int64]Ruler
}

// revocations finds the targets that a quorum revoked.
func (j judge) revocations(orders []SignedOrder, s *Standing) (out []Revocation) {
	type target struct{ kind, name string }
	by := map[target][]SignedOrder{}
	var list []target
	for _, o := range orders {
		if o.Action != ActionRevoke {
			continue
		}
		t := target{o.Kind, o.Target}
		if by[t] == nil {
			list = append(list, t)
		}
		by[t] = append(by[t], o)
	}
	for _, t := range list {
		if err := j.meets(by[t]); err != nil {
			s.Pending = append(s.Pending, fmt.Sprintf("revocation of %s %s: %v", t.kind, t.name, err))
			continue
		}
		r := Revocation{Kind: t.kind, Target: t.name, Reason: by[t][0].Reason}
		for _, o := range by[t] {
			r.Orders = append(r.Orders, o.ID)
			r.Officers = append(r.Officers, o.Officer)
		}
		slices.Sort(r.Officers)
		r.Officers = slices.Compact(r.Officers)
		out = append(out, r)
	}
	return out
}

// lifted reports whether the resume quorum lifted a stop. A lone revoke is lifted like a stop.
func (j judge) lifted(orders []SignedOrder, stop SignedOrder, s *Standing) bool {
	var resumes []SignedOrder
	for _, o := range orders {
		if o.Action == ActionResume && slices.Contains(o.Lifts, stop.ID) && !s.voids(o) {
			resumes = append(resumes, o)
		}
	}
	if len(resumes) == 0 {
		return false
	}
	err := j.meets(resumes)
	if err != nil {
		s.Pending = append(s.Pending, fmt.Sprintf("lifting of the stop %.12s: %v", stop.ID, err))
	}
	return err == nil
}

// meets counts the officers of orders that say the same. The error is that of the version in effect.
func (j judge) meets(orders []SignedOrder) error {
	first := j.meetsUnder(j.now, orders)
	if first == nil {
		return nil
	}
	for _, o := range orders {
		if j.meetsUnder(j.rulers[o.Under], orders) == nil {
			return nil
		}
	}
	return first
}

// meetsUnder counts, as of a version, the officers whose orders had come by then.
func (j judge) meetsUnder(r Ruler, orders []SignedOrder) error {
	group, err := r.resume()
	if err != nil {
		return err
	}
	set := map[string]bool{}
	for _, o := range orders {
		if o.Under <= r.Version {
			set[o.Officer] = true
		}
	}
	return r.Policy.MeetsGroup(group, set)
}

func (s *Standing) revoked(kind, target string) bool {
	return slices.ContainsFunc(s.Revocations, func(r Revocation) bool { return r.Kind == kind && r.Target == target })
}

// voids reports whether a standing revocation names the officer or the key of an order. What makes a revocation stand is not void by it.
func (s *Standing) voids(o SignedOrder) bool {
	if o.Action == ActionRevoke && s.revoked(o.Kind, o.Target) {
		return false
	}
	if s.revoked(KindOfficer, o.Officer) || s.revoked(KindKey, o.Key.String()) {
		return true
	}
	key, ok := s.policies[o.Under].PublicKey(o.Key)
	return ok && slices.ContainsFunc(halfNames(key), func(half string) bool { return s.revoked(KindHalf, half) })
}

func halfNames(key *PublicKey) []string {
	ids := key.HalfIDs()
	return []string{ids[0].String(), ids[1].String()}
}

// stopped finds a stop of a kind whose target the function takes.
func (s *Standing) stopped(kind string, covers func(target string) bool) (SignedOrder, bool) {
	for _, o := range s.Stops {
		if o.Kind == kind && covers(o.Target) {
			return o, true
		}
	}
	return SignedOrder{}, false
}

// StopOf gives the stop that holds a release of a stream back, if one does: of everything, of its stream or of itself.
func (s *Standing) StopOf(stream string, release [sha256.Size]byte) (SignedOrder, bool) {
	if s == nil {
		return SignedOrder{}, false
	}
	if o, ok := s.Everything(); ok {
		return o, true
	}
	if o, ok := s.stopped(KindStream, func(t string) bool { return covers(t, stream) }); ok {
		return o, true
	}
	return s.StopOfRelease(release)
}

// Everything gives the stop of everything, if one stands.
func (s *Standing) Everything() (SignedOrder, bool) {
	if s == nil {
		return SignedOrder{}, false
	}
	return s.stopped(KindEverything, func(string) bool { return true })
}

// StopOfRelease gives the stop of this very release, if one stands.
func (s *Standing) StopOfRelease(release [sha256.Size]byte) (SignedOrder, bool) {
	if s == nil {
		return SignedOrder{}, false
	}
	id := hex.EncodeToString(release[:])
	return s.stopped(KindRelease, func(t string) bool { return t == id })
}

// RevocationOf gives the revocation of a release, if one stands.
func (s *Standing) RevocationOf(release [sha256.Size]byte) (Revocation, bool) {
	if s == nil {
		return Revocation{}, false
	}
	id := hex.EncodeToString(release[:])
	for _, r := range s.Revocations {
		if r.Kind == KindRelease && r.Target == id {
			return r, true
		}
	}
	return Revocation{}, false
}

// Barred reports whether what a key signed counts nothing: the key, a half of it, or its officer is stopped or revoked. why says so
// in words.
func (s *Standing) Barred(p *Policy, id KeyID) (why string, barred bool) {
	if s == nil {
		return "", false
	}
	names := map[string][]string{KindKey: {id.String()}}
	if key, ok := p.PublicKey(id); ok {
		names[KindHalf] = halfNames(key)
	}
	if who, _, ok := p.OfficerOf(id); ok {
		names[KindOfficer] = []string{who}
	}
	return s.named(names)
}

// BarredKey is Barred for a key that no person holds, as a heartbeat key.
func (s *Standing) BarredKey(key *PublicKey) (why string, barred bool) {
	if s == nil {
		return "", false
	}
	return s.named(map[string][]string{KindKey: {key.ID().String()}, KindHalf: halfNames(key)})
}

// named finds a stop or a revocation of one of the names.
func (s *Standing) named(names map[string][]string) (why string, is bool) {
	for _, kind := range []string{KindOfficer, KindKey, KindHalf} {
		for _, name := range names[kind] {
			if s.revoked(kind, name) {
				return fmt.Sprintf("%s %s is revoked", kind, name), true
			}
			if o, ok := s.stopped(kind, func(t string) bool { return t == name }); ok {
				return fmt.Sprintf("%s %s is stopped by %s: %s", kind, name, o.Officer, o.Reason), true
			}
		}
	}
	return "", false
}

// covers reports whether a pattern of trust.md section 3 covers a stream.
func covers(pattern, stream string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(stream, prefix)
	}
	return pattern == stream
}
