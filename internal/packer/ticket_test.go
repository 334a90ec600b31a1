// SPDX-License-Identifier: Apache-2.0

package packer_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"sluice/internal/link"
	"sluice/internal/packer"
	"sluice/internal/ticket"
	"sluice/internal/trust"
	"sluice/internal/trust/trusttest"
	"sluice/pkg/fec"
	"sluice/pkg/mofn"
)

func ticketKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// ticketPass is a pass to rx-1; standby shares its key, other has one of its own, mute has no ticket key.
func ticketPass(t *testing.T) (packer.TicketPass, ticket.Ticket) {
	t.Helper()
	site, err := trusttest.New()
	if err != nil {
		t.Fatal(err)
	}
	env, err := site.Seal(t.Context(), fstest.MapFS{"a": {Data: make([]byte, 5000)}}, trusttest.Predicate("models/x", 1, 1), nil)
	if err != nil {
		t.Fatal(err)
	}
	receiver := func(name, hpke string) mofn.Receiver {
		return mofn.Receiver{Name: name, HPKE: []byte(hpke), Ticket: ticketKey(name).Public().(ed25519.PublicKey)}
	}
	mute := receiver("mute", "one")
	mute.Ticket = nil
	st := &trust.Store{Object: &mofn.Trust{Receivers: []mofn.Receiver{mute, receiver("other", "two"), receiver("rx-1", "one"), receiver("standby", "one")}}}
	cfg := packer.DefaultConfig().Link
	g, err := cfg.Cut(5000)
	if err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	if _, err := env.WriteTo(&stream); err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_800_000_000, 0)
	return packer.TicketPass{Trust: st, Receiver: "rx-1", Env: env, Geometry: g, Now: now}, ticket.Ticket{
		Receiver: "rx-1", Release: [32]byte(env.ID), Envelope: sha256.Sum256(stream.Bytes()), Profile: 1, Groups: 992, Payload: 5000, Created: now,
		Need: fec.Selection{{Spans: 1, Source: []fec.Extent{{Count: 1}}}},
	}
}

func TestTicketPass(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*ticket.Ticket)
		want    error
		words   string
		warning string
	}{
		"good":                        {},
		"of the standby":              {change: func(t *ticket.Ticket) { t.Receiver = "standby" }},
		"of a receiver elsewhere":     {change: func(t *ticket.Ticket) { t.Receiver = "other" }, want: ticket.ErrReceiver, words: "could not open a pass for rx-1: send it with --receiver other"},
		"of one without a ticket key": {change: func(t *ticket.Ticket) { t.Receiver = "mute" }, want: ticket.ErrReceiver, words: "has no ticket key for mute: make one there"},
		"of nobody":                   {change: func(t *ticket.Ticket) { t.Receiver = "nobody" }, want: ticket.ErrReceiver, words: `knows no receiver "nobody"`},
		"of another release":          {change: func(t *ticket.Ticket) { t.Release[5]++ }, want: ticket.ErrOther, words: "the directory holds release"},
		"of another payload":          {change: func(t *ticket.Ticket) { t.Payload++ }, want: ticket.ErrOther, words: "the release has 5000"},
		"of another profile":          {change: func(t *ticket.Ticket) { t.Profile = 2 }, want: ticket.ErrOther, words: "--mtu"},
		"of another cut":              {change: func(t *ticket.Ticket) { t.Groups = 991 }, want: ticket.ErrOther, words: "this sender cuts in 992"},
		"of another envelope":         {change: func(t *ticket.Ticket) { t.Envelope[0]++ }, warning: "approvals were added"},
		"a little early":              {change: func(tk *ticket.Ticket) { tk.Created = tk.Created.Add(ticket.FutureBound) }},
		"from the future":             {change: func(tk *ticket.Ticket) { tk.Created = tk.Created.Add(ticket.FutureBound + time.Second) }, warning: "10 min 1 s in the future"},
		"old":                         {change: func(tk *ticket.Ticket) { tk.Created = tk.Created.Add(-1000 * time.Hour) }},
	} {
		t.Run(name, func(t *testing.T) {
			pass, tk := ticketPass(t)
			if c.change != nil {
				c.change(&tk)
			}
			signed, err := ticket.Sign(tk, ticketKey(tk.Receiver))
			if err != nil {
				t.Fatal(err)
			}
			warnings, err := pass.Check([]*ticket.Signed{signed})
			if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.words) {
				t.Errorf("%v; want %v, %q", err, c.want, c.words)
			}
			if got := strings.Join(warnings, "\n"); (got == "") != (c.warning == "") || !strings.Contains(got, c.warning) {
				t.Errorf("warnings %q, want %q", got, c.warning)
			}
		})
	}
	pass, tk := ticketPass(t)
	forged, err := ticket.Sign(tk, ticketKey("other"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pass.Check([]*ticket.Signed{forged}); !errors.Is(err, ticket.ErrSignature) {
		t.Errorf("forged: %v", err)
	}
}

// TestMergeTickets: of one release and one cut, each once, and no more than can be read again.
func TestMergeTickets(t *testing.T) {
	_, tk := ticketPass(t)
	sign := func(change func(*ticket.Ticket)) *ticket.Signed {
		other := tk
		change(&other)
		s, err := ticket.Sign(other, ticketKey(other.Receiver))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first, standby := sign(func(*ticket.Ticket) {}), sign(func(t *ticket.Ticket) { t.Receiver = "standby" })
	if got, err := packer.MergeTickets([]*ticket.Signed{first, standby, first}); err != nil || len(got) != 2 || got[0] != first || got[1] != standby {
		t.Errorf("%v, %v", got, err)
	}
	for name, change := range map[string]func(*ticket.Ticket){
		"release": func(t *ticket.Ticket) { t.Release[0]++ },
		"groups":  func(t *ticket.Ticket) { t.Groups = 7 },
		"symbols": func(t *ticket.Ticket) { t.Profile = 2 },
		"payload": func(t *ticket.Ticket) { t.Payload++ },
	} {
		if _, err := packer.MergeTickets([]*ticket.Signed{first, sign(change)}); !errors.Is(err, ticket.ErrOther) || !strings.Contains(err.Error(), name) {
			t.Errorf("another %s: %v", name, err)
		}
	}
	var many []*ticket.Signed
	for i := range ticket.MaxTickets + 1 {
		many = append(many, sign(func(t *ticket.Ticket) { t.Created = t.Created.Add(time.Duration(i) * time.Second) }))
	}
	if _, err := packer.MergeTickets(many); !errors.Is(err, ticket.ErrFormat) {
		t.Errorf("too many: %v", err)
	}
	if got, err := packer.MergeTickets(many[1:]); err != nil || len(got) != ticket.MaxTickets {
		t.Errorf("as many as may be: %v", err)
	}
}

// TestTicketGeometry: the ticket's package and the link's mean the same by a profile.
func TestTicketGeometry(t *testing.T) {
	for _, p := range []link.Profile{link.Profile1500, link.Profile9000} {
		g, err := (&ticket.Ticket{Profile: int(p), Groups: 1, Payload: 1}).Geometry()
		if err != nil || g.SymbolSize != p.SymbolSize() {
			t.Errorf("profile %d: %d, %v", p, g.SymbolSize, err)
		}
	}
}
