// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"sluice/internal/journal"
	"sluice/internal/link"
)

// clockBound is how far the two clocks may be apart before it is said: what a full socket and a step of NTP make is below it, what
// makes a release expire early or late is above it.
const clockBound = 5 * time.Second

// groupedDatagrams is how many datagrams one drop of the kernel may stand for: it counts a GRO aggregate once.
const groupedDatagrams = link.MaxSegments

// LinkState is the link in one word.
type LinkState string

// The states of the link.
const (
	LinkUp     LinkState = "up"     // something authentic was heard within link.SilentAfter
	LinkDown   LinkState = "down"   // it was heard, and is not any more
	LinkSilent LinkState = "silent" // nothing was heard since this process began
	LinkNone   LinkState = "none"   // this process does not listen
)

// LinkReport is what the heartbeats and the counters say of the link. Spans are by the monotonic clock, points in time by the wall clock.
type LinkReport struct {
	State            LinkState       `json:"state"`
	Since            time.Time       `json:"since,omitzero"` // up or down since; silent: listening since
	SinceSeconds     float64         `json:"since_seconds"`
	SilenceSeconds   float64         `json:"silence_seconds"`
	Outages          uint64          `json:"outages"`              // pauses that ended, since this process began
	OutageFrom       time.Time       `json:"outage_from,omitzero"` // of the last of them
	OutageTo         time.Time       `json:"outage_to,omitzero"`
	SenderState      string          `json:"sender_state,omitempty"` // of the last heartbeat
	SenderRelease    string          `json:"sender_release,omitempty"`
	SenderPass       int             `json:"sender_pass,omitempty"`
	ConfiguredRate   uint64          `json:"configured_rate_bits"` // by the last heartbeat; 0: unlimited, or none heard
	ArrivalRate      float64         `json:"arrival_rate_bits"`
	ClockDifference  float64         `json:"clock_difference_seconds"` // the sender's clock is so far ahead
	ClockBeyondBound bool            `json:"clock_beyond_bound"`
	KernelDrops      uint64          `json:"kernel_drops"` // messages dropped at this host's socket since this process began
	Rejected         uint64          `json:"rejected"`     // datagrams that were not authentic, since this process began
	Sessions         []SessionReport `json:"sessions"`
	Lanes            []LaneReport    `json:"lanes,omitempty"` // of several sockets
	Awaited          []Awaited       `json:"awaited"`         // announced and not arrived
	Words            []string        `json:"words"`           // all of it for a person, a line each
}

// SessionReport is one session in words and numbers.
type SessionReport struct {
	Session    string    `json:"session"`
	Release    string    `json:"release,omitempty"` // empty: an idle session
	Pass       int       `json:"pass"`
	State      string    `json:"state"`
	Active     bool      `json:"active"`        // heard within link.SilentAfter
	Unfinished bool      `json:"unfinished"`    // fell silent without having said that it ends
	Heard      float64   `json:"heard_seconds"` // ago; -1: not since this process began
	Since      time.Time `json:"since"`         // since when this process knows it, and counts
	Loss       Loss      `json:"loss"`
	SendRate   float64   `json:"send_rate_bits"`
	Arrival    float64   `json:"arrival_rate_bits"`
	Words      string    `json:"words"` // of the loss
}

// LaneReport is what one of several sockets hears.
type LaneReport struct {
	Lane        int       `json:"lane"` // from 1, in the order of link.listen
	Address     string    `json:"address"`
	Silent      bool      `json:"silent"`              // nothing was heard over it for link.SilentAfter, while others were heard
	LastHeard   time.Time `json:"last_heard,omitzero"` // zero: not since this process began
	Authentic   uint64    `json:"authentic"`           // datagrams
	KernelDrops uint64    `json:"kernel_drops"`
	Words       string    `json:"words"`
}

// Loss says what was lost, in datagrams, and where as far as the counters can tell.
type Loss struct {
	Sent           uint64  `json:"sent"`             // while this process listened
	Lost           uint64  `json:"lost"`             // sent and not authentic
	Percent        float64 `json:"percent"`          // of Sent
	Before         uint64  `json:"before"`           // sent before this process listened; no loss
	FailedAtSender uint64  `json:"failed_at_sender"` // the sender's own kernel did not take them
	Damaged        uint64  `json:"damaged"`          // arrived under the session's name with a wrong tag: damaged, or forged
	HostDrops      uint64  `json:"host_drops"`       // messages that this host's kernel dropped meanwhile; each is 1 to 64 datagrams
	HostAtLeast    uint64  `json:"host_at_least"`
	HostAtMost     uint64  `json:"host_at_most"`
	BeforeHost     uint64  `json:"before_host_at_least"` // lost on the line, in the network card, or at the sender
}

// Awaited is a release that was announced and is not whole.
type Awaited struct {
	Release      string    `json:"release"`
	Name         string    `json:"name,omitempty"` // once its envelope is here
	Stream       string    `json:"stream,omitempty"`
	Seq          int64     `json:"seq,omitempty"`
	Stage        string    `json:"stage"`          // what is missing: "envelope", "verdict", "payload", or "place"
	Pass         int       `json:"pass,omitempty"` // the last announced
	Since        time.Time `json:"since"`
	SinceSeconds float64   `json:"since_seconds"`
	MissingBytes int64     `json:"missing_bytes"` // -1: not known
	TotalBytes   int64     `json:"total_bytes"`
	Words        string    `json:"words"`
	Next         string    `json:"next"` // what to do
}

// Reception is a release in RECEIVING, and how far it is.
type Reception struct {
	Job           journal.Job
	Open          bool // it is being assembled; else nothing is known of how far it is
	Have, Symbols int64
	SymbolSize    int64
	Bytes         int64
}

// Heard is what the report is made from.
type Heard struct {
	Now        time.Time    // with a reading of the monotonic clock
	Wall       time.Time    // by the clock of the journal
	Link       *link.Status // nil: this process does not listen
	Receptions []Reception
	Known      func(release string) bool // a job, in whatever state, stands for the release
}

// Report judges what was heard. It is a pure function.
func Report(h Heard) LinkReport {
	r := LinkReport{State: LinkNone, Sessions: []SessionReport{}, Awaited: []Awaited{}}
	if h.Link != nil {
		r.judgeLink(h)
		r.judgeSender(*h.Link)
		for _, s := range h.Link.Sessions {
			r.Sessions = append(r.Sessions, judgeSession(s, h.Now))
		}
		r.judgeLanes(h)
	}
	r.await(h)
	r.Words = r.words(h)
	return r
}

// Unready gives the words for a link that is down.
func (r *LinkReport) Unready() []string {
	late := r.SilenceSeconds > link.SilentAfter.Seconds()
	if r.State == LinkDown || r.State == LinkSilent && late {
		return r.Words[:1]
	}
	return nil
}

// judgeLink tells up from down, and since when.
func (r *LinkReport) judgeLink(h Heard) {
	s := h.Link
	since := s.UpSince
	switch {
	case s.LastHeard.IsZero():
		r.State, since = LinkSilent, s.Started
	case s.Up(h.Now):
		r.State = LinkUp
	default:
		r.State, since = LinkDown, s.LastHeard
	}
	r.Since, r.SinceSeconds = since.UTC(), seconds(h.Now.Sub(since))
	r.SilenceSeconds = seconds(s.Silence(h.Now))
	r.Outages, r.OutageFrom, r.OutageTo = s.Outages, s.OutageFrom.UTC(), s.OutageTo.UTC()
	r.KernelDrops = s.KernelDrops - min(s.KernelDrops, s.DropsAtStart)
	for _, n := range s.Rejected {
		r.Rejected += n
	}
}

// judgeLanes says what each of several sockets hears, and which is silent while others are not.
func (r *LinkReport) judgeLanes(h Heard) {
	if len(h.Link.Lanes) < 2 {
		return
	}
	silent := h.Link.SilentLanes(h.Now)
	for i, l := range h.Link.Lanes {
		lane := LaneReport{Lane: i + 1, Address: l.Address, Silent: slices.Contains(silent, i+1), Authentic: l.Authentic, KernelDrops: l.KernelDrops}
		if !l.LastHeard.IsZero() {
			lane.LastHeard = l.LastHeard.UTC()
		}
		lane.Words = laneWords(lane, h)
		r.Lanes = append(r.Lanes, lane)
	}
}

// seconds is a span for a program; what a clock that was set back makes of it is 0.
func seconds(d time.Duration) float64 { return max(d, 0).Seconds() }

// judgeSender says what the sender said last.
func (r *LinkReport) judgeSender(s link.Status) {
	one := s.Speaker()
	if one.LastHeartbeat.IsZero() {
		return
	}
	r.SenderState, r.SenderRelease, r.SenderPass = stateWord(one), releaseName(one.Announcement), int(one.Heartbeat.Pass)
	r.ConfiguredRate = one.Heartbeat.Rate
	if r.State == LinkUp {
		r.ArrivalRate = one.ArrivalRate
	}
	d, _ := one.ClockDifference()
	r.ClockDifference, r.ClockBeyondBound = d.Seconds(), d.Abs() > clockBound
}

// stateWord is a session's state in a word or two. An idle session that fills the link is a calibration.
func stateWord(s link.SessionStatus) string {
	if !s.Idle() || s.State == link.StateIdle || s.LastHeartbeat.IsZero() {
		return s.State.String()
	}
	if s.State == link.StateEndOfSession {
		return "calibration over"
	}
	return fmt.Sprintf("calibrating, step %d", s.Heartbeat.Pass)
}

// releaseName is the id of the release that a session carries; empty: none.
func releaseName(a link.Announcement) string {
	if a.Idle() {
		return ""
	}
	return hex.EncodeToString(a.Release[:])
}

func judgeSession(s link.SessionStatus, now time.Time) SessionReport {
	r := SessionReport{
		Session: hex.EncodeToString(s.Session[:]), Release: releaseName(s.Announcement), Pass: cmp.Or(int(s.Heartbeat.Pass), s.Pass),
		State: stateWord(s), Active: isActive(s, now), Since: s.Joined.UTC(), Loss: judgeLoss(s), Heard: -1,
	}
	if !s.LastHeard.IsZero() {
		r.Heard = seconds(now.Sub(s.LastHeard))
	}
	if r.Active {
		r.SendRate, r.Arrival = s.SendRate, s.ArrivalRate
	}
	r.Unfinished = !r.Active && (s.State == link.StateLeadIn || s.State == link.StateSending)
	r.Words = r.Loss.words()
	return r
}

// isActive reports whether a session was heard a moment ago.
func isActive(s link.SessionStatus, now time.Time) bool {
	return !s.LastHeard.IsZero() && now.Sub(s.LastHeard) <= link.SilentAfter
}

// judgeLoss tells apart what was lost here, before here, and at the sender. The kernel counts messages of up to 64 datagrams, of
// whatever session, so what it dropped is known between two bounds.
func judgeLoss(s link.SessionStatus) Loss {
	l := splitLoss(s.HeardSent(), s.Lost(), s.Heartbeat.Failed, s.KernelDrops)
	l.Before, l.Damaged = s.Missing-s.Lost(), s.Rejected["tag"]
	return l
}

func splitLoss(sent, lost, failed, drops uint64) Loss {
	l := Loss{Sent: sent, Lost: lost, HostDrops: drops}
	if sent > 0 {
		l.Percent = 100 * float64(lost) / float64(sent)
	}
	l.FailedAtSender = min(failed, lost)
	onTheWay := l.Lost - l.FailedAtSender
	l.HostAtLeast = min(l.HostDrops, onTheWay)
	l.HostAtMost = min(l.HostDrops*groupedDatagrams, onTheWay)
	l.BeforeHost = onTheWay - l.HostAtMost
	return l
}

// await lists what was announced and is not here: releases that are being received, and those of which not even the envelope is.
func (r *LinkReport) await(h Heard) {
	var announced []link.AnnouncedRelease
	if h.Link != nil {
		announced = h.Link.Releases
	}
	passes := map[string]int{}
	for _, a := range announced {
		id := hex.EncodeToString(a.Release[:])
		passes[id] = a.Pass
		if !h.Known(id) && a.State != link.ReleaseAccepted {
			r.Awaited = append(r.Awaited, awaitAnnounced(a, id, h))
		}
	}
	for _, c := range h.Receptions {
		r.Awaited = append(r.Awaited, awaitReception(c, passes[c.Job.ID], h))
	}
	for i := range r.Awaited {
		r.Awaited[i].Next = r.next(r.Awaited[i])
	}
}

func awaitAnnounced(a link.AnnouncedRelease, id string, h Heard) Awaited {
	w := Awaited{
		Release: id, Pass: a.Pass, Since: a.First.UTC(), SinceSeconds: seconds(h.Now.Sub(a.First)),
		MissingBytes: a.PayloadSize, TotalBytes: a.PayloadSize, Stage: "envelope",
	}
	switch a.State {
	case link.ReleaseVerifying:
		w.Stage = "verdict"
	case link.ReleaseRefused:
		w.Stage = "place"
	case link.ReleaseAssembling, link.ReleaseAccepted: // the latter is not awaited here: a job stands for it
	}
	w.Words = announcedWords(a, w.Stage)
	return w
}

func awaitReception(c Reception, pass int, h Heard) Awaited {
	j := c.Job
	w := Awaited{
		Release: j.Release, Name: j.Name, Stream: j.Stream, Seq: j.Seq, Stage: "payload", Pass: pass,
		Since: j.Created.UTC(), SinceSeconds: seconds(h.Wall.Sub(j.Created)), MissingBytes: -1, TotalBytes: c.Bytes,
	}
	if c.Open {
		w.MissingBytes = min((c.Symbols-c.Have)*c.SymbolSize, c.Bytes)
	}
	w.Words = receptionWords(c, w)
	return w
}
