// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"time"

	"sluice/internal/console"
	"sluice/internal/link"
	"sluice/internal/ticket"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/fec"
)

// ReadTickets reads a text of tickets, and no more of it than a text may have. Nothing of them is believed yet.
func ReadTickets(r io.Reader) ([]*ticket.Signed, error) {
	text, err := io.ReadAll(io.LimitReader(r, ticket.MaxText+1))
	if err != nil {
		return nil, fmt.Errorf("ticket: %w", err)
	}
	return ticket.ReadText(text)
}

// VerifyTicket asks whether the receiver that a ticket names is one that may ask, and signed it (docs/spec/ticket.md section 4).
func VerifyTicket(t *ticket.Signed, st *trust.Store) error {
	r, ok := st.Receiver(t.Receiver)
	switch {
	case !ok:
		return fmt.Errorf("%w: the trust object knows no receiver %q", ticket.ErrReceiver, t.Receiver)
	case r.Ticket == nil:
		return fmt.Errorf("%w: the trust object has no ticket key for %s: make one there (keys generate --use ticket) and a trust object that binds it (trust init --ticket %s=FILE.pub); until then send another pass (--pass 2)",
			ticket.ErrReceiver, t.Receiver, t.Receiver)
	}
	return t.Verify(r.Ticket)
}

// TicketPass is what a ticket pass is checked against: to whom it goes, and which release in which cut.
type TicketPass struct {
	Trust    *trust.Store
	Receiver string
	Env      *envelope.Envelope
	Geometry fec.Geometry
	Now      time.Time
}

// Check refuses tickets that must not be applied, before anything is sent (docs/spec/ticket.md sections 1 and 4). What it only warns of,
// it returns in words.
func (p *TicketPass) Check(tickets []*ticket.Signed) (warnings []string, err error) {
	var stream bytes.Buffer
	if _, err := p.Env.WriteTo(&stream); err != nil {
		return nil, err
	}
	digest := sha256.Sum256(stream.Bytes())
	for _, t := range tickets {
		if err := p.check(t); err != nil {
			return nil, err
		}
		if early := t.Created.Sub(p.Now); early > ticket.FutureBound {
			warnings = append(warnings, fmt.Sprintf("the ticket of %s was made %s in the future: one of both clocks is wrong", t.Receiver, console.Duration(early)))
		}
		if t.Envelope != digest {
			warnings = append(warnings, fmt.Sprintf("%s asks with another envelope of the release than is sent now, so approvals were added; the payload is the same", t.Receiver))
		}
	}
	return warnings, nil
}

// check looks at one ticket.
func (p *TicketPass) check(t *ticket.Signed) error {
	if err := VerifyTicket(t, p.Trust); err != nil {
		return err
	}
	to, ok := p.Trust.Receiver(p.Receiver)
	if asks, _ := p.Trust.Receiver(t.Receiver); !ok || !bytes.Equal(asks.HPKE, to.HPKE) {
		return fmt.Errorf("%w: it is of %s, which could not open a pass for %s: send it with --receiver %s", ticket.ErrReceiver, t.Receiver, p.Receiver, t.Receiver)
	}
	if t.Release != [32]byte(p.Env.ID) {
		return fmt.Errorf("%w: it is for release %x, the directory holds release %s", ticket.ErrOther, t.Release, p.Env.ID)
	}
	g, err := t.Geometry()
	if err != nil {
		return err
	}
	return sameCut(g, p.Geometry)
}

// sameCut compares how the ticket and the sender cut the payload.
func sameCut(ticketed, sent fec.Geometry) error {
	switch {
	case ticketed.ObjectSize != sent.ObjectSize:
		return fmt.Errorf("%w: it is for a payload of %d bytes, the release has %d", ticket.ErrOther, ticketed.ObjectSize, sent.ObjectSize)
	case ticketed.SymbolSize != sent.SymbolSize:
		return fmt.Errorf("%w: it is for symbols of %d bytes, this sender makes them of %d: send with the --mtu of the pass that is to be completed", ticket.ErrOther, ticketed.SymbolSize, sent.SymbolSize)
	case ticketed.Groups != sent.Groups:
		return fmt.Errorf("%w: it is for spans of %d groups, this sender cuts in %d: send with the version that sent the pass, or send a whole pass", ticket.ErrOther, ticketed.Groups, sent.Groups)
	}
	return nil
}

// MergeTickets wants tickets of one release in one cut, and drops those that are there twice.
func MergeTickets(tickets []*ticket.Signed) (out []*ticket.Signed, err error) {
	seen := map[string]bool{}
	for _, t := range tickets {
		first := tickets[0]
		if t.Release != first.Release {
			return nil, fmt.Errorf("%w: one ticket is for release %x, another for %x: they cannot be merged", ticket.ErrOther, first.Release, t.Release)
		}
		a, err := first.Geometry()
		if err != nil {
			return nil, err
		}
		b, err := t.Geometry()
		if err != nil {
			return nil, err
		}
		if err := sameCut(b, a); err != nil {
			return nil, err
		}
		if !seen[string(t.Bytes())] {
			seen[string(t.Bytes())] = true
			out = append(out, t)
		}
	}
	if len(out) > ticket.MaxTickets {
		return nil, fmt.Errorf("%w: %d tickets, one text holds at most %d: send some of them first", ticket.ErrFormat, len(out), ticket.MaxTickets)
	}
	return out, nil
}

// Cut is how a sender of this configuration cuts a payload.
func (l *Link) Cut(payload int64) (fec.Geometry, error) {
	p := l.profile()
	return fec.New(payload, p.SymbolSize(), link.DefaultGroups(p))
}

// profile is the profile of the MTU.
func (l *Link) profile() link.Profile {
	if l.MTU == 9000 {
		return link.Profile9000
	}
	return link.Profile1500
}

// DescribeTicket says in words what a ticket asks for.
func DescribeTicket(t *ticket.Signed, now time.Time) (string, error) {
	g, err := t.Geometry()
	if err != nil {
		return "", err
	}
	mtu := map[int]int{1: 1500, 2: 9000}[t.Profile]
	when := console.Duration(now.Sub(t.Created)) + " ago"
	if now.Before(t.Created) {
		when = console.Duration(t.Created.Sub(now)) + " in the future"
	}
	words := strings.ReplaceAll(strings.TrimSuffix(ticket.Words(t.Need), "\n"), "\n", "\n  ")
	return fmt.Sprintf("ticket of %s for release %x, made %s, %s\ncut: MTU %d, %d groups; payload %s in %s; fresh rows from %d\nasks for\n  %s\n",
		t.Receiver, t.Release, t.Created.Format(time.RFC3339), when, mtu, t.Groups, console.Bytes(t.Payload), console.Count(g.Spans(), "span"), t.Fresh, words), nil
}

// DescribeCost says in words what sending tickets costs, with so many percent of spare, at a rate in bits a second.
func DescribeCost(tickets []*ticket.Signed, percent float64, rate int64) (string, error) {
	only, err := ticket.Merge(tickets, percent)
	if err != nil {
		return "", err
	}
	g, err := tickets[0].Geometry()
	if err != nil {
		return "", err
	}
	c := ticket.CostOf(only, g)
	seconds := float64(c.Wire) / float64(rate)
	return fmt.Sprintf("to send: %d source and %d repair symbols with %g %% spare, %s, %s at %s, and the envelope\n",
		c.Source, c.Repair, percent, console.Bytes(c.Bytes), console.Duration(time.Duration(seconds*float64(time.Second))), console.BitRate(float64(rate))), nil
}
