// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/internal/journal"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// OverTime is what a log and the files beside it say of trust over time.
type OverTime struct {
	Root      string         `json:"root"`       // fingerprint of version 1
	RootGiven bool           `json:"root_given"` // the auditor brought it; else it is believed
	LogBound  bool           `json:"log_bound"`  // the version in effect at the end names this log's key
	Versions  []Version      `json:"versions"`
	Orders    map[string]int `json:"orders"`   // accepted: action -> how many
	Officers  map[string]int `json:"officers"` // who gave how many
	Strangers int            `json:"strangers,omitempty"`
	Standing  []string       `json:"standing"` // at the end, in words
	Pending   []string       `json:"pending"`  // what waits for more officers
	Withdrawn int            `json:"withdrawn"`
	GivenBack int            `json:"given_back"`
}

// Version is one of the trust object. Without times it is the first, or is in quarantine still.
type Version struct {
	Version     int64     `json:"version"`
	Fingerprint string    `json:"fingerprint"`
	Arrived     time.Time `json:"arrived,omitzero"`
	Effect      time.Time `json:"effect,omitzero"`
}

// overtime holds each event against what was known of trust at its time (docs/spec/audit.md section 8). A nil *overtime is that of an
// export of before.
type overtime struct {
	*known

	report   *Report
	out      *OverTime
	root     string
	moment                           // now
	arrived  int                     // versions that came
	accepted []mofn.SignedOrder      // orders, as they came
	told     map[string]bool         // order ids that an event named
	stood    map[string]bool         // releases of which a stop or revocation stood since they were published
	seen     bool                    // an event was of this chain
	foreign  bool                    // the log is of another chain still
	problem  error                   // the first; nothing is judged after it
	begun    map[string]*publication // job -> the publication that began
}

// moment is what counted at an event.
type moment struct {
	effect   int // the version in effect
	standing *mofn.Standing
}

// publication is what counted when a publication began.
type publication struct {
	moment

	approved []word
}

func newOvertime(r *Report, k *known) *overtime {
	if k == nil {
		return nil
	}
	o := &overtime{known: k, report: r, root: hex.EncodeToString(k.chain[0].Fingerprint[:])}
	r.OverTime = &OverTime{Root: o.root, RootGiven: r.TrustGiven}
	o.out = r.OverTime
	o.reset()
	return o
}

// reset goes back to the beginning of the chain.
func (o *overtime) reset() {
	o.moment, o.arrived, o.accepted, o.told, o.begun, o.problem = moment{effect: 1}, 1, nil, map[string]bool{}, map[string]*publication{}, nil
	o.stood = map[string]bool{}
	o.out.Versions, o.out.Orders, o.out.Officers = nil, map[string]int{}, map[string]int{}
	for _, st := range o.chain {
		o.out.Versions = append(o.out.Versions, Version{Version: st.Object.Version, Fingerprint: hex.EncodeToString(st.Fingerprint[:])})
	}
}

// wrong notes the first thing that does not fit. It is no verdict yet: a log that begins anew, or a person who accepted a restored state,
// leaves it behind.
func (o *overtime) wrong(n int64, format string, args ...any) {
	if o.problem == nil {
		o.problem = fmt.Errorf("%w: event %d: %w", ErrTampered, n, fmt.Errorf(format, args...))
	}
}

func (o *overtime) asleep() bool { return o == nil || o.foreign || o.problem != nil }

func (o *overtime) version() *trust.Store { return o.chain[o.effect-1] }

// find is the version with a fingerprint; 0: none.
func (o *overtime) find(fingerprint string) int {
	return 1 + slices.IndexFunc(o.out.Versions, func(v Version) bool { return v.Fingerprint == fingerprint })
}

// note takes an event that moves no release.
func (o *overtime) note(n int64, e journal.Event) {
	switch {
	case o == nil:
	case e.Action == journal.ActionLogBegins:
		o.reset()
		o.seen, o.foreign = false, false
	case e.Action == ActionRestored:
		what := ""
		if o.problem != nil {
			what = "; before it: " + o.problem.Error()
		}
		o.report.odd("event %d: a person accepted a restored state, and trust is told anew from there%s", n, clip(what, 200))
		o.reset()
	case e.Action == ActionStart:
		o.start(n, e)
	case o.asleep():
	case e.Action == ActionTrustArrived:
		o.arrive(n, e)
	case e.Action == ActionTrustEffect:
		o.enter(n, e)
	case strings.HasPrefix(e.Action, ActionOrder+" "):
		o.order(n, e)
	case e.Action == ActionApprove, e.Action == ActionReject:
		o.decision(n, e)
	}
}

// start wants the version that is in effect. Until the first one of this chain, a log may be of another chain, which was given up.
func (o *overtime) start(n int64, e journal.Event) {
	v := o.find(e.Digest)
	switch {
	case v == 0 && !o.seen:
		o.foreign = true
		return
	case v == 0:
		o.wrong(n, "it starts under the trust object %.64q, which is no version of the chain", e.Digest)
		return
	case o.foreign:
		o.foreign = false
		o.report.odd("event %d: the first start under this chain of trust objects; what came before was not held against trust", n)
		o.reset()
	}
	o.seen = true
	if v != o.effect {
		o.wrong(n, "it starts under version %d of the trust object, and version %d is in effect", v, o.effect)
	}
}

func (o *overtime) arrive(n int64, e journal.Event) {
	switch v := o.find(e.Digest); {
	case v == 0:
		o.wrong(n, "the trust object %.64q arrives, which is no version of the chain", e.Digest)
	case v != o.arrived+1:
		o.wrong(n, "version %d of the trust object arrives, and version %d was the last before it", v, o.arrived)
	default:
		o.arrived, o.seen = v, true
		o.out.Versions[v-1].Arrived = e.Time
	}
}

func (o *overtime) enter(n int64, e journal.Event) {
	v := o.find(e.Digest)
	stop, stopped := o.standing.Everything()
	switch {
	case v == 0:
		o.wrong(n, "the trust object %.64q takes effect, which is no version of the chain", e.Digest)
	case v != o.effect+1:
		o.wrong(n, "version %d of the trust object takes effect, and version %d is in effect", v, o.effect)
	case v > o.arrived:
		o.wrong(n, "version %d of the trust object takes effect, and has not arrived", v)
	case stopped:
		o.wrong(n, "version %d of the trust object takes effect, and %s has stopped everything (order %.12s)", v, stop.Officer, stop.ID)
	default:
		o.effect, o.seen = v, true
		o.out.Versions[v-1].Effect = e.Time
		o.judge(n)
	}
}

// judge computes what stands.
func (o *overtime) judge(n int64) {
	rulers := make([]mofn.Ruler, o.effect)
	for i := range rulers {
		st := o.chain[i]
		rulers[i] = mofn.Ruler{Version: st.Object.Version, Policy: st.Policy, Root: st.Object.Root}
	}
	standing, err := mofn.Judge(rulers[o.effect-1], rulers[:o.effect-1], o.accepted)
	if err != nil {
		o.wrong(n, "what the orders come to: %w", err)
		return
	}
	o.standing = standing
	for _, s := range standing.Stops {
		o.stood[releaseOf(s.Order)] = true
	}
	for _, r := range standing.Revocations {
		if r.Kind == mofn.KindRelease {
			o.stood[r.Target] = true
		}
	}
}

func (o *overtime) order(n int64, e journal.Event) {
	f, ok := o.orders[e.Digest]
	if !ok {
		o.wrong(n, "the order %.64q is accepted, and %s does not have it", e.Digest, dirOrders)
		return
	}
	signed, err := f.verify(o.root, o.version())
	if err != nil {
		o.wrong(n, "%s/%s.json, under version %d of the trust object: %w", dirOrders, e.Digest, o.effect, err)
		return
	}
	said := []string{strings.TrimPrefix(e.Action, ActionOrder+" "), e.Officer, e.Key, e.Release}
	is := []string{signed.Action, signed.Officer, signed.Key.String(), releaseOf(signed.Order)}
	if i := slices.IndexFunc([]int{0, 1, 2, 3}, func(i int) bool { return said[i] != is[i] }); i >= 0 {
		o.wrong(n, "it gives the order %.12s the %s %.64q, and that is %q", e.Digest, []string{"action", "officer", "key", "release"}[i], said[i], is[i])
		return
	}
	if o.told[e.Digest] {
		o.wrong(n, "the order %.12s is accepted for the second time", e.Digest)
		return
	}
	o.told[e.Digest], o.seen = true, true
	o.accepted = append(o.accepted, signed)
	o.out.Orders[signed.Action]++
	o.out.Officers[signed.Officer]++
	o.judge(n)
}

// decision wants the key of an approval or a rejection to be one of its officer, in the version in effect.
func (o *overtime) decision(n int64, e journal.Event) {
	if who, ok := officerOf(o.version(), e.Key); !ok || who != e.Officer {
		o.wrong(n, "%s of %.64q by the key %.64q, which is not theirs in version %d of the trust object", e.Action, e.Officer, e.Key, o.effect)
	}
}

// officerOf is who may decide with a key: an officer without a group has no role, and no word counts that was said in none.
func officerOf(st *trust.Store, key string) (string, bool) {
	id, err := mofn.ParseKeyID(key)
	if err != nil {
		return "", false
	}
	who, group, ok := st.Policy.OfficerOf(id)
	return who, ok && group != ""
}

// begin is what counts now. A publication may take hours, so what counts when it begins is kept.
func (o *overtime) begin(v *votes) *publication {
	p := &publication{moment: o.moment}
	if v != nil {
		p.approved = slices.Clone(v.approved)
	}
	return p
}

func (o *overtime) publishing(e journal.Event, v *votes) {
	if !o.asleep() {
		o.begun[e.Job] = o.begin(v)
	}
}

// move holds the move of a release against what stands.
func (o *overtime) move(n int64, e journal.Event, stream string, v *votes) {
	if o.asleep() {
		return
	}
	began := o.begun[e.Job]
	delete(o.begun, e.Job)
	if began == nil {
		began = o.begin(v)
	}
	id, err := envelope.ParseDigest(e.Release)
	switch {
	case e.To == "WITHDRAWN":
		o.withdraw(n, e)
	case e.From == "WITHDRAWN" && e.To == "PUBLISHED":
		o.giveBack(n, e, id, err, began)
	case (e.To == "PUBLISHED" || e.To == "APPROVED") && err != nil:
		o.wrong(n, "release %.64q becomes %s: %w", e.Release, e.To, err)
	case e.To == "PUBLISHED" || e.To == "APPROVED":
		o.permitted(n, e, stream, id, began)
	}
}

// permitted holds a publication, or the approval of the bastion, against the stops and the quorum of its moment.
func (o *overtime) permitted(n int64, e journal.Event, stream string, id envelope.Digest, at *publication) {
	if err := trust.CheckOrders(stream, id, at.standing); err != nil {
		o.wrong(n, "release %s becomes %s: %w", shorten(e.Release), e.To, err)
		return
	}
	if err := trust.CheckOrders(stream, id, o.standing); err != nil {
		o.report.odd("event %d: release %s became %s when an order came too late for it: %s", n, shorten(e.Release), e.To, clip(err.Error(), 120))
	}
	if stream == "" {
		return // the beginning of its job is in the part of before
	}
	st := o.chain[at.effect-1]
	rule, err := st.Policy.Rule(stream)
	if err != nil {
		o.wrong(n, "release %s becomes %s: %w", shorten(e.Release), e.To, err)
		return
	}
	officers := map[string]bool{}
	for _, w := range at.approved {
		who, ok := officerOf(st, w.key)
		if _, barred := st.Barred(w.key, at.standing); ok && who == w.officer && !barred {
			officers[who] = true
		}
	}
	if err := st.Policy.MeetsGroup(rule.Quorum, officers); err != nil {
		o.wrong(n, "release %s becomes %s without the quorum of version %d of the trust object: %w", shorten(e.Release), e.To, at.effect, err)
	}
	if takenBack(id, o.standing) == nil {
		delete(o.stood, e.Release)
	}
}

// withdraw wants an order that takes the release back. It may have been lifted meanwhile: the release is given back then.
func (o *overtime) withdraw(n int64, e journal.Event) {
	if !o.stood[e.Release] {
		o.wrong(n, "release %s is withdrawn, and no stop or revocation of it stands", shorten(e.Release))
		return
	}
	o.out.Withdrawn++
}

func (o *overtime) giveBack(n int64, e journal.Event, id envelope.Digest, err error, at *publication) {
	if err == nil {
		err = takenBack(id, at.standing)
	}
	if err != nil {
		o.wrong(n, "release %s is given back: %w", shorten(e.Release), err)
		return
	}
	if late := takenBack(id, o.standing); late == nil {
		delete(o.stood, e.Release)
	}
	o.out.GivenBack++
}

// takenBack says what stands of a release itself.
func takenBack(id envelope.Digest, s *mofn.Standing) error {
	if stop, stopped := s.StopOfRelease([32]byte(id)); stopped {
		return fmt.Errorf("the stop of it by %s stands (order %.12s)", stop.Officer, stop.ID)
	}
	if rev, revoked := s.RevocationOf([32]byte(id)); revoked {
		return fmt.Errorf("its revocation by %s stands", strings.Join(rev.Officers, ", "))
	}
	return nil
}

// end looks for files that no event speaks of, and puts into words what stands.
func (o *overtime) end(c Checkpoint, key *Key) error {
	switch {
	case o == nil:
		return nil
	case o.problem != nil:
		return o.problem
	case o.foreign:
		return fmt.Errorf("%w: no start of the log is under a version of %s: the chain is another's", ErrTampered, dirChain)
	case o.arrived < len(o.chain):
		return fmt.Errorf("%w: %s/%s is there, and no event says that it arrived", ErrTampered, dirChain, versionFile(o.arrived+1))
	}
	for _, id := range slices.Sorted(maps.Keys(o.orders)) {
		if o.told[id] {
			continue
		}
		if signed, err := o.orders[id].verify(o.root, o.version()); err == nil {
			return fmt.Errorf("%w: %s/%s.json is an order of %s, and no event says that it was accepted", ErrTampered, dirOrders, id, signed.Officer)
		}
		o.out.Strangers++
	}
	o.describe()
	for _, l := range o.version().Object.Logs {
		if l.Origin != c.Origin {
			continue
		}
		if l.ID != key.ID {
			return fmt.Errorf("%w: the log is signed by %s, and version %d of the trust object gives %s the log key %s", ErrSignature, key.ID, o.effect, c.Origin, l.ID)
		}
		o.out.LogBound = true
	}
	return nil
}

func (o *overtime) describe() {
	o.out.Standing, o.out.Pending = []string{}, []string{}
	if o.standing == nil {
		return
	}
	for _, s := range o.standing.Stops {
		o.out.Standing = append(o.out.Standing, fmt.Sprintf("stop of %s by %s (order %.12s)", strings.TrimSpace(s.Kind+" "+s.Target), s.Officer, s.ID))
	}
	for _, r := range o.standing.Revocations {
		o.out.Standing = append(o.out.Standing, fmt.Sprintf("revocation of %s %s by %s", r.Kind, r.Target, strings.Join(r.Officers, ", ")))
	}
	o.out.Pending = append(o.out.Pending, o.standing.Pending...)
}
