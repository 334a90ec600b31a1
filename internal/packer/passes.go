// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"fmt"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"sluice/internal/strictyaml"
	"sluice/pkg/fec"
)

// What a pass sends of the payload, in the words of the configuration.
const (
	SendAll    = "all"    // the source, and fresh repair rows: a full carousel
	SendRepair = "repair" // fresh repair rows
)

// maxPasses is how many passes a release may have.
const maxPasses = 100

// PassStep is one pass of a schedule.
type PassStep struct {
	Send  string              `yaml:"send"`  // SendAll or SendRepair; empty: the default of its number
	After strictyaml.Duration `yaml:"after"` // pause after the end of the pass before
}

// Passes is the schedule of a release, a step a pass. In a configuration it is a number of passes, of which each does what is the default, or a
// list of steps.
type Passes []PassStep

// CountedPasses is the schedule that a number means.
func CountedPasses(n int) Passes { return make(Passes, max(0, min(n, maxPasses+1))) }

// UnmarshalYAML implements yaml's interface. Every problem is reported, with its line.
func (s *Passes) UnmarshalYAML(n *yaml.Node) error {
	var wrong yaml.TypeError
	bad := func(n *yaml.Node, format string, args ...any) {
		wrong.Errors = append(wrong.Errors, fmt.Sprintf("line %d: ", n.Line)+fmt.Sprintf(format, args...))
	}
	switch n.Kind {
	case yaml.ScalarNode:
		count, err := strconv.Atoi(n.Value)
		if err != nil {
			bad(n, "passes: %q is neither a number of passes nor a list of them", n.Value)
		}
		*s = CountedPasses(count)
	case yaml.SequenceNode:
		*s = make(Passes, len(n.Content))
		for i, item := range n.Content {
			(*s)[i].read(item, bad)
		}
	default:
		bad(n, "passes: write a number of passes, or a list such as [{send: all}, {send: repair, after: 10m}]")
	}
	if wrong.Errors != nil {
		return &wrong
	}
	return nil
}

// read reads one step of a list.
func (s *PassStep) read(n *yaml.Node, bad func(*yaml.Node, string, ...any)) {
	if n.Kind != yaml.MappingNode {
		bad(n, "passes: a pass is written {send: all} or {send: repair, after: 10m}")
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch key.Value {
		case "send":
			s.Send = value.Value
			if s.Send == "" {
				bad(value, "passes: send: write %s or %s", SendAll, SendRepair)
			}
		case "after":
			if err := s.After.Set(value.Value); err != nil {
				bad(value, "passes: after: %v", err)
			}
		default:
			bad(key, "unknown key %q: a pass has send and after", key.Value)
		}
	}
}

// validate reports what makes no sense.
func (s Passes) validate(p *problems) {
	p.check(len(s) >= 1 && len(s) <= maxPasses, "link.passes: must be 1 to %d", maxPasses)
	for i, step := range s {
		switch step.Send {
		case "", SendAll:
		case SendRepair:
			p.check(i > 0, "link.passes[0]: a release begins with send: %s: repair symbols alone are not all of it", SendAll)
		default:
			p.check(false, "link.passes[%d].send: %q is neither %s nor %s", i, step.Send, SendAll, SendRepair)
		}
		p.check(step.Send != "" || step.After == 0, "link.passes[%d].send: %s or %s is required", i, SendAll, SendRepair)
		p.check(step.After >= 0, "link.passes[%d].after: must not be negative", i)
		p.check(i > 0 || step.After == 0, "link.passes[0].after: there is no pass before the first")
	}
}

// PassPlan is what one pass sends.
type PassPlan struct {
	Pass     int
	Source   bool
	FirstRow int // of the repair rows
	Rows     int
	Round    int // how many passes before it sent the source: what its lanes are rotated by
}

// Plan says what pass 1, 2, ... of a schedule sends with so many repair rows a pass over so many lanes (docs/spec/datagram.md section 5): the
// rows are ever fresh ones, and when the 64 are used up, they begin again and the source with them. By default the source goes with the first pass; with
// several lanes with the second too, in which each lane carries what another did in the first, so that no dead lane costs a release.
func (s Passes) Plan(pass, rows, lanes int) PassPlan {
	p := PassPlan{Rows: rows}
	for {
		p.Pass++
		usedUp := p.FirstRow+rows > fec.MaxRows
		if usedUp {
			p.FirstRow = 0
		}
		p.Source = usedUp || s.sendsSource(p.Pass, lanes)
		if p.Pass >= pass {
			return p
		}
		p.FirstRow += rows
		if p.Source {
			p.Round++
		}
	}
}

// sendsSource reports whether a pass is to send the source. Beyond the schedule it is as by default.
func (s Passes) sendsSource(pass, lanes int) bool {
	if pass <= len(s) && s[pass-1].Send != "" {
		return s[pass-1].Send == SendAll
	}
	return pass == 1 || pass == 2 && lanes > 1
}

// after is the pause before a pass.
func (s Passes) after(pass int) time.Duration { return time.Duration(s[pass-1].After) }

// words says what a pass sends.
func (p PassPlan) words() string {
	if p.Source {
		return SendAll
	}
	return SendRepair
}

// NextPass is the pass of a release that is to be sent next.
type NextPass struct {
	Pass int       `json:"pass"`
	Of   int       `json:"of"`
	Send string    `json:"send"` // all, repair
	At   time.Time `json:"at"`   // not before; in the past: as soon as the link is free
}

// next says which pass of a job comes next; nil: all were sent, or none may be yet.
func (l *Link) next(state string, d jobData) *NextPass {
	if state != stateApproved || d.Passes >= len(l.Passes) {
		return nil
	}
	n := &NextPass{Pass: d.Passes + 1, Of: len(l.Passes)}
	n.Send = l.Plan(n.Pass).words()
	if d.LastPass != nil {
		n.At = d.LastPass.Ended.Add(l.Passes.after(n.Pass))
	}
	return n
}

// words says it for a person.
func (n *NextPass) words() string {
	return fmt.Sprintf("pass %d of %d (%s) at %s", n.Pass, n.Of, n.Send, n.At.Format(pointFormat))
}

// Plan says what a pass sends by this configuration.
func (l *Link) Plan(pass int) PassPlan {
	return l.Passes.Plan(pass, RepairRows(float64(l.Repair)), len(l.EachLane()))
}
