// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/integration/lab"
	"sluice/internal/cli"
	"sluice/internal/link/linktest"
	"sluice/internal/receiver"
	"sluice/internal/ticket"
	"sluice/pkg/envelope"
)

// passLine is what send prints: datagrams, source and repair symbols.
var passLine = regexp.MustCompile(`: (\d+) datagrams, (\d+) source and (\d+) repair symbols`)

func passSent(t *testing.T, out string) (sealed, source, repair uint64) {
	t.Helper()
	m := passLine.FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("send printed %q", out)
	}
	var n [3]uint64
	for i := range n {
		var err error
		n[i], err = strconv.ParseUint(m[i+1], 10, 64)
		must(t, err)
	}
	return n[0], n[1], n[2]
}

// endOfPass waits for the end of a pass, and tells how far the release has come.
func endOfPass(t *testing.T, s *lab.Site, d *lab.Daemon, env *envelope.Envelope) receiver.ReleaseStatus {
	t.Helper()
	settled(t, s, d, env)
	return received(t, s, env)
}

// TestTicket: a pass loses a whole stretch; the receiver's ticket, typed in small letters, brings just that, and the release is published. The
// datagrams are counted at the relay.
func TestTicket(t *testing.T) {
	s := newSite(t)
	const lost = 8000 // datagrams: a third of the release, 11 MB; the 10 % of the pass mend 2500 symbols
	w := newWire(t, listening(t, s), linktest.Options{Outage: []linktest.Outage{{From: 3000, Count: lost}}})
	d := receive(t, s)
	dir, env := sealed(t, s, 1, 32*mib, 2)
	call(t, s, "bastion-packer", s.SendArgs(dir, w.to, "300Mbit", 1)...)
	if st := endOfPass(t, s, d, env); st.State != "RECEIVING" {
		t.Fatalf("the release is %s: the outage cost nothing", st.State)
	}
	first := w.relay.Counters()
	if first.Dropped != lost {
		t.Fatalf("the relay: %+v", first)
	}

	text := call(t, s, "diode-receiver", "ticket", "--config", s.Path("high.yaml"), env.ID.String()[:10])
	list, err := ticket.ReadText([]byte(text))
	must(t, err)
	if size := len(list[0].Bytes()); size >= 500 {
		t.Errorf("a ticket of %d bytes", size)
	}
	name := s.Path("ticket.txt")
	must(t, os.WriteFile(name, []byte(strings.ToLower(text)), 0o600))
	t.Logf("%s%s", text, call(t, s, "bastion-packer", "ticket", "show", "--trust", s.Path("trust.json"), "--fingerprint", s.Fingerprint, name))

	out := call(t, s, "bastion-packer", append(s.SendArgs(dir, w.to, "300Mbit", 2), "--ticket", name)...)
	published(t, s, d, env)
	samePublished(t, s, dir, env)
	sealed, source, repair := passSent(t, out)
	written := w.close(t).Written - first.Written
	t.Logf("%d datagrams were lost; %s: %d source and %d repair symbols, %d datagrams at the relay", lost, strings.TrimSpace(out), source, repair, written)
	if source+repair >= 2*lost || written < sealed || written > sealed+200 {
		t.Errorf("%d symbols sent for %d that were lost; %d datagrams at the relay, %d sealed", source+repair, lost, written, sealed)
	}
	_, err = s.Call(t.Context(), "diode-receiver", "ticket", "--config", s.Path("high.yaml"), env.ID.String())
	wantExit(t, err, cli.ExitRefused, "is complete")
	stop(t, d)
	clean(t, s)
}

// TestStaleTicket: a ticket that a heal pass has overtaken costs bandwidth, and completes what is still missing.
func TestStaleTicket(t *testing.T) {
	s := newSite(t)
	w := newWire(t, listening(t, s), linktest.Options{Outage: []linktest.Outage{{From: 3000, Count: 8000}}})
	d := receive(t, s)
	dir, env := sealed(t, s, 1, 32*mib, 2)
	call(t, s, "bastion-packer", s.SendArgs(dir, w.to, "300Mbit", 1)...)
	before := endOfPass(t, s, d, env)
	name := s.Path("ticket.txt")
	must(t, os.WriteFile(name, []byte(call(t, s, "diode-receiver", "ticket", "--config", s.Path("high.yaml"), env.ID.String())), 0o600))
	call(t, s, "bastion-packer", s.SendArgs(dir, w.to, "300Mbit", 2)...) // 20 rows more, of the 64 that are missing
	if after := endOfPass(t, s, d, env); after.State != "RECEIVING" || after.Have != before.Have {
		t.Fatalf("after the heal pass: %+v", after)
	}
	call(t, s, "bastion-packer", append(s.SendArgs(dir, w.to, "300Mbit", 3), "--ticket", name)...)
	published(t, s, d, env)
	samePublished(t, s, dir, env)
	call(t, s, "bastion-packer", append(s.SendArgs(dir, w.to, "300Mbit", 4), "--ticket", name)...) // and once more, for nothing
	stop(t, d)
	clean(t, s)
}

// TestTicketUnderWay: a ticket asked for while a pass is under way says so, and does not get in its way.
func TestTicketUnderWay(t *testing.T) {
	s := newSite(t)
	addr := listening(t, s)
	d := receive(t, s)
	dir, env := sealed(t, s, 1, 8*mib, 2)
	p := startPass(t, s, s.SendArgs(dir, addr, "10Mbit", 1)...) // seven seconds, of which the question takes a quarter of one
	p.until(env, 0.3)
	began := time.Now()
	text := call(t, s, "diode-receiver", "ticket", "--config", s.Path("high.yaml"), env.ID.String())
	t.Logf("asked for %v\n%s", time.Since(began), text)
	if !strings.Contains(text, "# A pass is under way") {
		t.Error("the ticket does not say that a pass is under way")
	}
	p.finish()
	published(t, s, d, env)
	samePublished(t, s, dir, env)
	st, err := s.HighStatus(t.Context())
	must(t, err)
	if got := st.Sessions[0]; got.Malformed > 0 || got.Refused > 0 {
		t.Errorf("%+v", got)
	}
	stop(t, d)
	clean(t, s)
}
