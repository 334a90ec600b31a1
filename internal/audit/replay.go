// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"slices"
	"time"

	"sluice/internal/console"
	"sluice/internal/journal"
)

// Actions that mean something to an audit, beside the moves of releases. What an action is called is part of the format.
const (
	ActionStart    = "start"     // a daemon, or a verb that holds the journal: version, configuration, trust object
	ActionStop     = "stop"      // it ended as it should
	ActionApprove  = "approve"   // an officer's approval was seen and holds
	ActionReject   = "reject"    // an officer's rejection was seen and holds
	ActionReadBack = "read back" // published bytes were read again, and are right
	ActionFsck     = "fsck"      // a check of journal, spool and registry ended

	ActionTrustArrived    = "trust object arrived" // it verified, and is in quarantine
	ActionTrustEffect     = "trust object in effect"
	ActionOrder           = "order"                       // followed by stop, resume or revoke: an officer's order was accepted
	ActionRefusedBulletin = "refused bulletin"            // a part of one
	ActionAnchor          = "log taken up from an anchor" // of the other side
	ActionFork            = "fork"                        // the other side's log contradicts what was seen of it
	ActionRestored        = "restored state accepted"     // a person took a state that is older than it was
	ActionPublishing      = "publishing"                  // a publication begins: what counts then permits it
	ActionConfirmed       = "confirmed"                   // a person at the high side let a release be published
)

const (
	// maxBackwards is how far the clock may go back before a report calls it odd: more than a correction by NTP.
	maxBackwards = 5 * time.Minute
	// maxOdd is how many odd things a page names.
	maxOdd = 12
)

// Moves are the legal moves of a release on one side: from -> to. "" is before a job was made. The two pipelines are tested to have
// no others (docs/spec/audit.md section 7).
func Moves(side string) map[string][]string {
	if side == Low {
		return map[string][]string{
			"":          {"NEW"},
			"NEW":       {"MIRRORED", "REFUSED"},
			"MIRRORED":  {"INSPECTED", "REFUSED"},
			"INSPECTED": {"GATED", "REFUSED"},
			"GATED":     {"SEALED", "REFUSED"},
			"SEALED":    {"APPROVED", "REFUSED"},
			"APPROVED":  {"SENT", "REFUSED"},
			"SENT":      {journal.StateDeleted},
			"REFUSED":   {journal.StateDeleted},
		}
	}
	return map[string][]string{
		"":          {"RECEIVING", "REJECTED"},
		"RECEIVING": {"RECEIVED", "REJECTED"},
		"RECEIVED":  {"VERIFIED", "RECEIVING", "REJECTED"},
		"VERIFIED":  {"INSPECTED", "REJECTED"},
		"INSPECTED": {"HELD", "REJECTED"},
		"HELD":      {"PUBLISHED", "RECEIVING", "REJECTED"},
		"PUBLISHED": {"WITHDRAWN", journal.StateDeleted},
		"WITHDRAWN": {"PUBLISHED", journal.StateDeleted},
		"REJECTED":  {"RECEIVING"},
	}
}

// replay holds each event against those before it.
type replay struct {
	*Report

	over     *overtime // nil: the export says nothing of trust over time
	moves    map[string][]string
	jobs     map[string]*jobState
	votes    map[string]*votes
	marks    map[string]mark
	last     time.Time
	begun    bool  // the event with which an older journal's tree begins was seen
	legacyAt int64 // first event that is only legal before it; 0: none
	running  bool
}

type jobState struct {
	state, release string
	stream         string // known once its mark rose
	before         bool   // its beginning is in the part of before, and it has not moved since
	old            bool   // its beginning is in the part of before: officers may have decided there
	readBack       bool
}

type votes struct{ approved, rejected []word }

// word is an officer's, and the key that gave it.
type word struct{ officer, key string }

type mark struct{ epoch, number int64 }

func newReplay(r *Report, side string, k *known) *replay {
	r.States, r.Actions = map[string]int{}, map[string]int{}
	return &replay{Report: r, over: newOvertime(r, k), moves: Moves(side), jobs: map[string]*jobState{}, votes: map[string]*votes{}, marks: map[string]mark{}}
}

// event takes event n, whose predecessor has the digest prev.
func (w *replay) event(n int64, prev string, raw []byte) error {
	e, err := journal.ParseEvent(raw, false)
	if err == nil {
		return w.take(n, prev, e)
	}
	old, lerr := journal.ParseEvent(raw, true)
	if lerr != nil || w.begun || moved(old) {
		return fmt.Errorf("%w: event %d: %w", ErrTampered, n, err)
	}
	if w.legacyAt == 0 {
		w.legacyAt = n
	}
	return w.take(n, prev, old)
}

func moved(e journal.Event) bool { return e.From != "" || e.To != "" || e.Stream != "" }

func (w *replay) take(n int64, prev string, e journal.Event) error {
	if e.Seq != uint64(n) {
		return fmt.Errorf("%w: event %d says that it is event %d: events were dropped, doubled or exchanged", ErrTampered, n, e.Seq)
	}
	if e.Prev != prev {
		return fmt.Errorf("%w: event %d is not what event %d was chained to: one of them was changed", ErrTampered, n-1, n)
	}
	w.clock(n, e)
	w.Actions[e.Action]++
	if e.To == "" {
		w.over.note(n, e)
	}
	switch {
	case e.Action == journal.ActionLogBegins:
		return w.begin(n)
	case e.To != "":
		return w.move(n, e)
	}
	w.note(n, e)
	return nil
}

// begin ends the part that was written before there was a tree: its jobs may stand in any state.
func (w *replay) begin(n int64) error {
	if w.begun || w.moving() {
		return fmt.Errorf("%w: event %d begins the log, which had begun before it", ErrTampered, n)
	}
	w.begun, w.legacyAt, w.Before = true, 0, n-1
	return nil
}

// moving tells whether a job moved already.
func (w *replay) moving() bool {
	for _, j := range w.jobs {
		if !j.before {
			return true
		}
	}
	return false
}

func (w *replay) clock(n int64, e journal.Event) {
	if w.First.IsZero() {
		w.First = e.Time
	}
	if e.Time.Before(w.last.Add(-maxBackwards)) {
		w.odd("event %d: the clock went back by %s", n, w.last.Sub(e.Time).Round(time.Second))
	}
	w.last, w.Last = e.Time, e.Time
}

// move checks a move of a release.
func (w *replay) move(n int64, e journal.Event) error {
	j := w.jobs[e.Job]
	switch {
	case j == nil:
		j = &jobState{}
		w.jobs[e.Job] = j
	case j.before && !w.begun:
		j.before, j.old = false, false // it never was: this log has no part of before
	}
	if known := !j.before; known && j.state != e.From {
		return fmt.Errorf("%w: event %d moves %s from %q, where it is not: it is in %q", ErrTampered, n, shorten(e.Job), e.From, j.state)
	}
	if !slices.Contains(w.moves[e.From], e.To) {
		return fmt.Errorf("%w: event %d moves %s from %q to %q, which no release may do", ErrTampered, n, shorten(e.Job), e.From, e.To)
	}
	if j.release != "" && e.Release != "" && j.release != e.Release {
		return fmt.Errorf("%w: event %d calls %s release %s, which was %s", ErrTampered, n, shorten(e.Job), shorten(e.Release), shorten(j.release))
	}
	if err := w.approved(n, e, j); err != nil {
		return err
	}
	if !j.before {
		w.leave(j.state)
	}
	j.state, j.before = e.To, false
	if e.Release != "" {
		j.release = e.Release
	}
	w.enter(e.To)
	if e.Stream != "" {
		j.stream = e.Stream
	}
	if !j.old {
		w.over.move(n, e, j.stream, w.votes[e.Release])
	}
	return w.raise(n, e)
}

func (w *replay) enter(state string) {
	if state != journal.StateDeleted {
		w.States[state]++
	}
}

func (w *replay) leave(state string) {
	if state == "" {
		return
	}
	if w.States[state]--; w.States[state] == 0 {
		delete(w.States, state)
	}
}

// approved wants an officer's word in the log before a release is sent or published, and a receipt with the publication.
func (w *replay) approved(n int64, e journal.Event, j *jobState) error {
	if e.To != "APPROVED" && e.To != "PUBLISHED" || j.old {
		return nil
	}
	if e.From == "WITHDRAWN" && w.Actions[ActionOrder+" resume"] == 0 {
		return fmt.Errorf("%w: event %d: release %s is given back, and no officer's resume stands before it", ErrTampered, n, shorten(e.Release))
	}
	v := w.votes[e.Release]
	if v == nil || len(v.approved) == 0 {
		return fmt.Errorf("%w: event %d: release %s becomes %s, and no officer's approval stands before it", ErrTampered, n, shorten(e.Release), e.To)
	}
	if len(v.rejected) > 0 {
		w.odd("event %d: release %s becomes %s, and %s had rejected it before", n, shorten(e.Release), e.To, v.rejected[0].officer)
	}
	if e.To == "PUBLISHED" && e.From != "WITHDRAWN" && !isRelease(e.Digest) {
		return fmt.Errorf("%w: event %d: release %s is published without the digest of a receipt", ErrTampered, n, shorten(e.Release))
	}
	return nil
}

// raise checks that the mark of a stream grows.
func (w *replay) raise(n int64, e journal.Event) error {
	if e.Stream == "" {
		return nil
	}
	now, old := mark{e.Epoch, e.Number}, w.marks[e.Stream]
	if _, known := w.marks[e.Stream]; known && (now.epoch < old.epoch || now.epoch == old.epoch && now.number <= old.number) {
		return fmt.Errorf("%w: event %d: stream %s goes from epoch %d seq %d back to epoch %d seq %d", ErrTampered, n, e.Stream, old.epoch, old.number, now.epoch, now.number)
	}
	w.marks[e.Stream] = now
	return nil
}

// note takes what moves no release.
func (w *replay) note(n int64, e journal.Event) {
	if e.Job != "" && w.jobs[e.Job] == nil && !w.begun {
		w.jobs[e.Job] = &jobState{before: true, old: true}
	}
	switch e.Action {
	case ActionStart:
		if w.running {
			w.Crashes++
		}
		w.running, w.trustUsed = true, e.Digest
	case ActionStop:
		w.running = false
	case ActionApprove, ActionReject:
		w.vote(e)
	case ActionPublishing:
		w.over.publishing(e, w.votes[e.Release])
	case ActionReadBack:
		if j := w.jobs[e.Job]; j != nil {
			j.readBack = true
		}
	case ActionFsck:
		if e.Detail != "clean" {
			w.odd("event %d: fsck found: %s", n, clip(e.Detail, 120))
		}
	case "published again", "spool lost", "refused replay":
		w.odd("event %d: %s, release %s: %s", n, e.Action, shorten(e.Release), clip(e.Detail, 120))
	}
}

func clip(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "..."
	}
	return s
}

// vote keeps the last word of an officer. Approvals by two keys of one officer are kept both: which of them is enrolled may change.
func (w *replay) vote(e journal.Event) {
	v := w.votes[e.Release]
	if v == nil {
		v = &votes{}
		w.votes[e.Release] = v
	}
	now := word{e.Officer, e.Key}
	theirs := func(w word) bool { return w.officer == e.Officer }
	if e.Action == ActionApprove {
		v.rejected = slices.DeleteFunc(v.rejected, theirs)
		v.approved = append(slices.DeleteFunc(v.approved, func(w word) bool { return w == now }), now)
	} else {
		v.approved = slices.DeleteFunc(v.approved, theirs)
		v.rejected = append(slices.DeleteFunc(v.rejected, theirs), now)
	}
}

// end judges what only the whole log shows.
func (w *replay) end() error {
	if w.legacyAt != 0 {
		return fmt.Errorf("%w: event %d is not in the canonical form, and no event says that the log begins after it", ErrTampered, w.legacyAt)
	}
	waiting := 0
	for _, j := range w.jobs {
		if j.state != "" {
			w.Releases++
		}
		if j.state == "PUBLISHED" && !j.readBack {
			waiting++
		}
	}
	if waiting > 0 {
		w.odd("%d published and not read back yet", waiting)
	}
	if w.Crashes > 0 {
		w.odd("%s without a stop before: crashes, kills or power cuts", console.Count(w.Crashes, "start"))
	}
	return nil
}
