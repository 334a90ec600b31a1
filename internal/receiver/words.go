// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"sluice/internal/console"
	"sluice/internal/link"
)

// pointFormat writes a point in time for a person: to the second, and with its zone.
const pointFormat = "2006-01-02 15:04:05 MST"

// shortRelease is how much of a release id a person is shown: as much as the table of releases shows.
const shortRelease = 12

func point(t time.Time) string { return t.UTC().Format(pointFormat) }

func span(s float64) string { return console.Duration(time.Duration(s * float64(time.Second))) }

func brief(release string) string { return release[:min(shortRelease, len(release))] }

func number(n uint64) string { return humanize.Comma(int64(min(n, 1<<62))) }

func datagrams(n uint64) string { return plural(n, "datagram") }

func plural(n uint64, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return number(n) + " " + noun
}

// words says all of the report, a line each.
func (r *LinkReport) words(h Heard) []string {
	lines := []string{"link: " + r.linkWords(h)}
	add := func(name, text string) {
		if text != "" {
			lines = append(lines, name+": "+text)
		}
	}
	add("sender", r.senderWords())
	add("outages", r.outageWords())
	add("clock", r.clockWords())
	for _, l := range r.Lanes {
		add(fmt.Sprintf("lane %d", l.Lane), l.Words)
	}
	for _, s := range r.Sessions {
		add("session "+s.Session, s.line())
	}
	for _, a := range r.Awaited {
		add("awaited "+brief(a.Release), a.Words+", announced "+point(a.Since)+" ("+span(a.SinceSeconds)+" ago). "+a.Next)
	}
	return lines
}

// linkWords is the line that a person reads first; /readyz gives it as its reason when the link is not up.
func (r *LinkReport) linkWords(h Heard) string {
	const due = "a heartbeat is due every second"
	switch r.State {
	case LinkUp:
		return fmt.Sprintf("up since %s (%s), last heard %s ago", point(r.Since), span(r.SinceSeconds), span(r.SilenceSeconds))
	case LinkDown:
		return fmt.Sprintf("DOWN since %s: nothing authentic heard for %s, %s. Look whether bastion-packer runs, then at its interface, the diode and this host's (doctor on both hosts)",
			point(r.Since), span(r.SilenceSeconds), due)
	case LinkSilent:
		return r.silentWords(due, h.Link.Rejected)
	case LinkNone:
	}
	return "this process does not listen"
}

// silentWords is for a process that has heard nothing yet. It knows nothing of before.
func (r *LinkReport) silentWords(due string, rejected map[string]uint64) string {
	if r.SilenceSeconds <= link.SilentAfter.Seconds() {
		return fmt.Sprintf("nothing heard yet, %s after this process began to listen; %s", span(r.SilenceSeconds), due)
	}
	text := fmt.Sprintf("DOWN: nothing authentic heard for %s, since this process began to listen at %s; %s", span(r.SilenceSeconds), point(r.Since), due)
	if r.Rejected == 0 {
		return text + ". Look whether bastion-packer runs, then at its interface, the diode and this host's (doctor on both hosts)"
	}
	return text + fmt.Sprintf(". %s came and none was authentic, most for the reason %q: see docs/errors.md, On the link", datagrams(r.Rejected), most(rejected))
}

// most is the reason with the highest count.
func most(rejected map[string]uint64) (reason string) {
	for name, n := range rejected {
		if m := rejected[reason]; n > m || n == m && name < reason {
			reason = name
		}
	}
	return reason
}

// laneWords says of one of several sockets what it hears. That nothing is heard over any is said of the link.
func laneWords(l LaneReport, h Heard) string {
	text := l.Address
	switch {
	case l.Silent && l.LastHeard.IsZero():
		text += fmt.Sprintf(" is SILENT since this process began to listen at %s, while others are heard", point(h.Link.Started))
	case l.Silent:
		text += fmt.Sprintf(" is SILENT since %s, while others are heard", point(l.LastHeard))
	case l.LastHeard.IsZero():
		text += ", nothing heard yet"
	default:
		text += ", last heard " + span(seconds(h.Now.Sub(h.Link.Lanes[l.Lane-1].LastHeard))) + " ago"
	}
	text += ", " + datagrams(l.Authentic)
	if l.KernelDrops > 0 {
		text += fmt.Sprintf(", %s dropped at its socket", plural(l.KernelDrops, "message"))
	}
	if l.Silent {
		text += ". What is sent over it comes with the next pass, over another lane. Look at its interface and its diode on both hosts (doctor), and at the lanes of bastion-packer status"
	}
	return text
}

func (r *LinkReport) senderWords() string {
	if r.SenderState == "" {
		return ""
	}
	text := r.SenderState
	if r.SenderRelease != "" {
		text = fmt.Sprintf("%s, pass %d of release %s", r.SenderState, r.SenderPass, brief(r.SenderRelease))
	}
	rate := "set to no rate"
	if r.ConfiguredRate > 0 {
		rate = "set to " + console.BitRate(float64(r.ConfiguredRate))
	}
	if r.State != LinkUp {
		return "when last heard: " + text + "; " + rate
	}
	return text + "; " + rate + ", arriving " + console.BitRate(r.ArrivalRate)
}

func (r *LinkReport) outageWords() string {
	if r.Outages == 0 {
		return ""
	}
	return fmt.Sprintf("%d since this process began, the last from %s to %s (%s)", r.Outages, point(r.OutageFrom), point(r.OutageTo),
		console.Duration(r.OutageTo.Sub(r.OutageFrom)))
}

func (r *LinkReport) clockWords() string {
	if !r.ClockBeyondBound {
		return ""
	}
	side, by := "ahead of", r.ClockDifference
	if by < 0 {
		side, by = "behind", -by
	}
	return fmt.Sprintf("the sender's is %s %s this host's. This host's clock decides what has expired: set both. If both are right, somebody replays an old session", span(by), side)
}

// line is a session on one line.
func (s SessionReport) line() string {
	text := s.State
	if s.Release != "" {
		text = fmt.Sprintf("pass %d of release %s, %s", s.Pass, brief(s.Release), s.State)
	}
	switch {
	case s.Heard < 0:
		return text + "; announced before this process began, not heard since"
	case s.Unfinished:
		text += " when last heard " + span(s.Heard) + " ago: it ended without saying so"
	default:
		text += ", heard " + span(s.Heard) + " ago"
	}
	return text + "; since " + point(s.Since) + " " + s.Words
}

// words says how much was lost, and where as far as the counters can tell.
func (l Loss) words() string {
	if l.Sent == 0 {
		return "none of its datagrams came yet"
	}
	text := fmt.Sprintf("nothing lost of %s", datagrams(l.Sent))
	if l.Lost > 0 {
		text = fmt.Sprintf("lost %s of %s (%.2f %%): %s", number(l.Lost), datagrams(l.Sent), l.Percent, strings.Join(l.where(), "; "))
	}
	if l.Before > 0 {
		text += fmt.Sprintf("; %s were sent before this process listened", number(l.Before))
	}
	return text
}

// where lists the places of the loss.
func (l Loss) where() (places []string) {
	add := func(format string, args ...any) { places = append(places, fmt.Sprintf(format, args...)) }
	if l.FailedAtSender > 0 {
		add("%s the sender's own kernel did not take (doctor on the bastion)", number(l.FailedAtSender))
	}
	const before = "before this host's socket (line, network card, the sender's queues)"
	switch {
	case l.Lost == l.FailedAtSender:
	case l.HostDrops == 0:
		add("%s %s", number(l.Lost-l.FailedAtSender), before)
	case l.HostAtLeast == l.HostAtMost:
		add("%s dropped by this host's socket (doctor here: receive_buffer, rmem_max)", number(l.HostAtMost))
	default:
		add("%s to %s dropped by this host's socket, which counted %s of up to %d datagrams (doctor here: receive_buffer, rmem_max)",
			number(l.HostAtLeast), number(l.HostAtMost), plural(l.HostDrops, "drop"), groupedDatagrams)
	}
	if l.HostDrops > 0 && l.BeforeHost > 0 {
		add("at least %s %s", number(l.BeforeHost), before)
	}
	if l.Damaged > 0 {
		add("%s came damaged or forged", number(l.Damaged))
	}
	return places
}

func announcedWords(a link.AnnouncedRelease, stage string) string {
	size := console.Bytes(a.PayloadSize)
	switch {
	case stage == "place":
		return fmt.Sprintf("all of %s is missing: its envelope came and was not taken: %s", size, console.Clean(a.Reason))
	case stage == "verdict":
		return fmt.Sprintf("all of %s is missing: its envelope is being verified", size)
	case !a.Held:
		return fmt.Sprintf("all of %s is missing, and its envelope: its session gave way to later ones", size)
	}
	return fmt.Sprintf("all of %s is missing, and %d of %d symbols of its envelope", size, a.EnvelopeSymbols-min(a.EnvelopeHave, a.EnvelopeSymbols), a.EnvelopeSymbols)
}

func receptionWords(c Reception, w Awaited) string {
	head := fmt.Sprintf("%s, stream %s seq %d: ", console.Clean(w.Name), console.Clean(w.Stream), w.Seq)
	if !c.Open {
		return head + "how much of " + console.Bytes(c.Bytes) + " is missing is not known: its reception is not open, the log says why"
	}
	missing := c.Symbols - c.Have
	return head + fmt.Sprintf("%s of %s missing (%.2f %%, %s)", console.Bytes(w.MissingBytes), console.Bytes(c.Bytes),
		100*float64(missing)/float64(max(c.Symbols, 1)), plural(uint64(max(missing, 0)), "symbol"))
}

// next says what to do about a release that is awaited.
func (r *LinkReport) next(a Awaited) string {
	for _, s := range r.Sessions {
		if s.Release == a.Release && s.Active && (s.State == link.StateLeadIn.String() || s.State == link.StateSending.String()) {
			return fmt.Sprintf("It is on the air: wait for the end of pass %d", s.Pass)
		}
	}
	switch {
	case r.State != LinkUp:
		return "Nothing arrives while the link is down: see there first"
	case a.Stage == "verdict":
		return "Wait"
	case a.Stage == "place":
		return "It is looked at again when it is announced again: wait for the next pass"
	}
	return fmt.Sprintf("Wait for the next pass; when the bastion is done with its passes, send one more there: bastion-packer send --pass %d DIR, DIR is the job below its <state>/work", a.Pass+1)
}
