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
	RateBits int64     `json:"rate_bits"` // link.rate at that time
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
	RateBits int64       `json:"rate_bits"`       // link.rate
	Sealed   uint64      `json:"sealed"`          // datagrams of this session
	Failed   uint64      `json:"failed"`          // of them not taken by this host's kernel
	Error    string      `json:"error,omitempty"` // why heartbeats stopped last
	LastPass *PassRecord `json:"last_pass,omitempty"`
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
	err      error
}

// begin notes what goes on the link. The zero job stands for heartbeats.
func (a *onAir) begin(job journal.Job, pass int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failed += a.progress.SendErrors
	a.job, a.since, a.progress, a.bytes = job, time.Now(), link.SendProgress{Pass: pass}, 0
}

// tell takes in how far it is.
func (a *onAir) tell(p link.SendProgress) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.Bytes > a.bytes {
		a.handed, a.bytes, a.err = time.Now(), p.Bytes, nil
	}
	a.progress = p
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
	if p.Failed == 0 {
		return text + ", all taken by this host's kernel"
	}
	return text + fmt.Sprintf("; %d of them (%.2f %%) were not taken by this host's kernel", p.Failed, 100*float64(p.Failed)/float64(max(p.Sealed, 1)))
}

// short cuts a release id to what tells two of them apart.
func short(id string) string { return id[:min(shortID, len(id))] }

// shortID is as much as the table of jobs shows.
const shortID = 12
