// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"fmt"
	"sync"
	"time"

	"sluice/internal/console"
	"sluice/internal/journal"
	"sluice/internal/link"
)

// PassRecord is one pass that was sent, as the job keeps it. Counts are of datagrams.
type PassRecord struct {
	Release  string    `json:"release"`
	Pass     int       `json:"pass"`
	Session  string    `json:"session"`
	Ended    time.Time `json:"ended"`
	Seconds  float64   `json:"seconds"`
	Sealed   uint64    `json:"sealed"`
	Source   uint64    `json:"source"`
	Repair   uint64    `json:"repair"`
	Failed   uint64    `json:"failed"` // this host's kernel did not take them
	Bytes    int64     `json:"bytes"`
	RateBits int64     `json:"rate_bits"` // of all lanes at that time

	Lanes []LaneRecord `json:"lanes,omitempty"` // of several
}

// LaneRecord is what one lane of a pass carried.
type LaneRecord struct {
	Address string `json:"address"`
	Session string `json:"session"`
	Sealed  uint64 `json:"sealed"`
	Failed  uint64 `json:"failed"`
	Error   string `json:"error,omitempty"` // why it was given up, while the others went on
}

// laneRecords are those of several lanes; of one the pass says it all.
func laneRecords(lanes []link.LaneReport) (records []LaneRecord) {
	if len(lanes) < 2 {
		return nil
	}
	for _, l := range lanes {
		r := LaneRecord{Address: l.Name, Session: fmt.Sprintf("%x", l.Session), Sealed: l.Sealed, Failed: l.SendErrors}
		if l.Err != nil {
			r.Error = l.Err.Error()
		}
		records = append(records, r)
	}
	return records
}

// words says what became of a lane.
func (l LaneRecord) words() string {
	text := fmt.Sprintf("lane %s: session %s, %d datagrams sealed, %d failed at this host", l.Address, l.Session, l.Sealed, l.Failed)
	if l.Error != "" {
		text += ", given up: " + l.Error
	}
	return text
}

// LaneState says what this host does with one of several lanes.
type LaneState struct {
	Lane     int     `json:"lane"` // from 1, in the order of link.lanes
	Address  string  `json:"address"`
	RateBits int64   `json:"rate_bits"`
	Silence  float64 `json:"silence_seconds"` // since a datagram was handed to the kernel, or since the start
	Quiet    bool    `json:"quiet"`           // for longer than a heartbeat may be late
	Sealed   uint64  `json:"sealed"`          // datagrams of this session
	Failed   uint64  `json:"failed"`
	Error    string  `json:"error,omitempty"` // why it was given up in this pass
}

// LinkStatus says what this host does with the link. Nothing comes back, so what arrives is not in it: that is what
// diode-receiver's status says.
type LinkStatus struct {
	State    string      `json:"state"` // idle, lead-in, sending, end of pass; "quiet": nothing is being sent
	Busy     bool        `json:"busy"`  // a release is on the link
	Job      string      `json:"job,omitempty"`
	Release  string      `json:"release,omitempty"`
	Pass     int         `json:"pass,omitempty"`
	Since    time.Time   `json:"since,omitzero"`
	Silence  float64     `json:"silence_seconds"` // since a datagram was handed to the kernel, or since the start
	RateBits int64       `json:"rate_bits"`       // of all lanes
	Sealed   uint64      `json:"sealed"`          // datagrams of this session
	Failed   uint64      `json:"failed"`          // of them not taken by this host's kernel
	Error    string      `json:"error,omitempty"` // why heartbeats stopped last
	LastPass *PassRecord `json:"last_pass,omitempty"`
	Lanes    []LaneState `json:"lanes,omitempty"` // of several
	Words    []string    `json:"words"`
}

// quietAfter is how long nothing may be told of the link before it is called quiet: progress is told four times a second, and the
// receiver calls the link down after the same time.
const quietAfter = link.SilentAfter

// onAir is what is on the link now. Spans are by the monotonic clock.
type onAir struct {
	mu       sync.Mutex
	job      journal.Job // zero: heartbeats
	since    time.Time
	progress link.SendProgress
	handed   time.Time // when a datagram was last taken by the kernel
	bytes    int64     // of the progress, then
	failed   uint64    // of sessions that ended
	lanes    []laneAir // of several
	err      error
}

// laneAir is when a lane last handed something to the kernel.
type laneAir struct {
	handed time.Time
	bytes  int64
}

// begin notes what goes on the link. The zero job stands for heartbeats.
func (a *onAir) begin(job journal.Job, pass int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed += a.progress.SendErrors
	a.job, a.since, a.progress, a.bytes = job, time.Now(), link.SendProgress{Pass: pass}, 0
	for i := range a.lanes {
		a.lanes[i].bytes = 0
	}
}

// tell takes in how far it is.
func (a *onAir) tell(p link.SendProgress) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.Bytes > a.bytes {
		a.handed, a.bytes, a.err = time.Now(), p.Bytes, nil
	}
	a.progress = p
	if len(p.Lanes) > 1 && len(a.lanes) != len(p.Lanes) {
		a.lanes = make([]laneAir, len(p.Lanes))
	}
	for i := range a.lanes {
		if b := p.Lanes[i].Bytes; b > a.lanes[i].bytes {
			a.lanes[i] = laneAir{time.Now(), b}
		}
	}
}

// laneStates judges the lanes as of now. The caller holds mu.
func (a *onAir) laneStates(now, start time.Time) (states []LaneState) {
	if len(a.progress.Lanes) < 2 {
		return nil
	}
	for i, l := range a.progress.Lanes {
		handed := a.lanes[i].handed
		if handed.IsZero() {
			handed = start
		}
		s := LaneState{Lane: i + 1, Address: l.Name, RateBits: l.Rate, Silence: max(now.Sub(handed), 0).Seconds(), Sealed: l.Sealed, Failed: l.SendErrors}
		s.Quiet = now.Sub(handed) > quietAfter
		if l.Err != nil {
			s.Error = l.Err.Error()
		}
		states = append(states, s)
	}
	return states
}

// words says it for a person.
func (s LaneState) words() string {
	text := fmt.Sprintf("lane %d, %s at %s: ", s.Lane, s.Address, console.BitRate(float64(s.RateBits)))
	if s.Quiet {
		text += fmt.Sprintf("QUIET: nothing was handed to the kernel for %s", console.Duration(time.Duration(s.Silence*float64(time.Second))))
	} else {
		text += fmt.Sprintf("%s of this session", console.Count(int(s.Sealed), "datagram"))
	}
	if s.Failed > 0 {
		text += fmt.Sprintf(", %d not taken by this host's kernel", s.Failed)
	}
	if s.Error != "" {
		text += ": " + console.Clean(s.Error)
	}
	return text
}

// broke notes why what was on the link ended.
func (a *onAir) broke(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.err = err
}

// failures counts the datagrams that the kernel did not take since the start.
func (a *onAir) failures() uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failed + a.progress.SendErrors
}

// status judges what is on the link as of now, for a process that began at start.
func (a *onAir) status(now, start time.Time, rate int64, last *PassRecord) LinkStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	heard := a.handed
	if heard.IsZero() {
		heard = start
	}
	s := LinkStatus{
		State: "quiet", Silence: max(now.Sub(heard), 0).Seconds(), RateBits: rate, Sealed: a.progress.Sealed, Failed: a.progress.SendErrors, LastPass: last,
	}
	if a.err != nil {
		s.Error = a.err.Error()
	}
	if !a.handed.IsZero() && now.Sub(a.handed) <= quietAfter {
		s.State, s.Since = a.progress.State.String(), a.since.UTC()
		s.Busy, s.Job, s.Release = a.job.ID != "", a.job.ID, a.job.Release
	}
	if s.Busy {
		s.Pass = a.progress.Pass
	}
	s.Lanes = a.laneStates(now, start)
	s.Words = s.words()
	return s
}

// pointFormat writes a point in time for a person: to the second, and with its zone.
const pointFormat = "2006-01-02 15:04:05 MST"

// words says it for a person, a line each.
func (s LinkStatus) words() []string {
	lines := []string{"link: " + s.now()}
	if s.Failed > 0 {
		lines = append(lines, fmt.Sprintf("loss here: %s of %d datagrams of this session were not taken by this host's kernel; lower link.rate, and see doctor", console.Count(int(s.Failed), "datagram"), s.Sealed))
	}
	for _, l := range s.Lanes {
		lines = append(lines, l.words())
	}
	if s.LastPass != nil {
		lines = append(lines, "last pass: "+s.LastPass.words())
	}
	return lines
}

func (s LinkStatus) now() string {
	switch {
	case s.Busy:
		return fmt.Sprintf("busy: %s, pass %d of release %s at %s, since %s", s.State, s.Pass, short(s.Release), console.BitRate(float64(s.RateBits)), s.Since.Format(pointFormat))
	case s.State != "quiet":
		return fmt.Sprintf("idle: heartbeats since %s; what arrives of them, diode-receiver status says", s.Since.Format(pointFormat))
	}
	text := fmt.Sprintf("QUIET: nothing was handed to the kernel for %s, and a heartbeat is due every second; the receiver calls the link down", console.Duration(time.Duration(s.Silence*float64(time.Second))))
	if s.Error != "" {
		text += ": " + console.Clean(s.Error)
	}
	return text
}

// words says what was sent, when, and what of it never left.
func (p PassRecord) words() string {
	text := fmt.Sprintf("pass %d of release %s ended %s: %s in %s at %s", p.Pass, short(p.Release), p.Ended.Format(pointFormat),
		console.Count(int(p.Sealed), "datagram"), console.Duration(time.Duration(p.Seconds*float64(time.Second))), console.BitRate(float64(p.RateBits)))
	for _, l := range p.Lanes {
		if l.Error != "" {
			text += fmt.Sprintf("; lane %s was given up: %s", l.Address, console.Clean(l.Error))
		}
	}
	if p.Failed == 0 {
		return text + ", all taken by this host's kernel"
	}
	return text + fmt.Sprintf("; %d of them (%.2f %%) were not taken by this host's kernel", p.Failed, 100*float64(p.Failed)/float64(max(p.Sealed, 1)))
}

// short cuts a release id to what tells two of them apart.
func short(id string) string { return id[:min(shortID, len(id))] }

// shortID is as much as the table of jobs shows.
const shortID = 12
