// SPDX-License-Identifier: Apache-2.0

package receiver_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/internal/admin"
	"sluice/internal/link"
	"sluice/internal/receiver"
	"sluice/internal/ticket"
	"sluice/internal/trust/trusttest"
	"sluice/pkg/fec"
	"sluice/pkg/mofn"
)

// giveKey writes a key as the receiver's ticket key; the files' scrypt is cheap.
func (b *bench) giveKey(key *mofn.SecretKey) {
	b.Helper()
	dir := b.TempDir()
	b.cfg.Keys.Ticket, b.cfg.Keys.PassphraseFile = filepath.Join(dir, "ticket"), filepath.Join(dir, "passphrase")
	file, err := key.Seal(nil, []byte("secret"), mofn.ScryptParams{N: 16, R: 8, P: 1})
	must(b.T, err)
	must(b.T, os.WriteFile(b.cfg.Keys.Ticket, file, 0o600))
	must(b.T, os.WriteFile(b.cfg.Keys.PassphraseFile, []byte("secret\n"), 0o600))
	b.restart()
}

// askingBench has a ticket key, and a release of which a contiguous piece and the repair rows are missing.
func askingBench(t *testing.T) (*bench, release, link.Payload) {
	b := newBench(t)
	b.giveKey(b.site.Ticket)
	r := b.approved("models/llm", 1)
	p, err := b.announce(r)
	must(t, err)
	source, _ := r.symbols(t, groups, 0)
	put(t, p, source[:100])
	put(t, p, source[400:])
	return b, r, p
}

func (b *bench) ticket(release string) *receiver.Ticket {
	b.Helper()
	v, err := b.r.Ticket(b.Context(), release)
	must(b.T, err)
	return v.(*receiver.Ticket)
}

// TestTicket: what is missing, and nothing else, is asked for; it is signed with the receiver's key, and what it asks for completes the
// release.
func TestTicket(t *testing.T) {
	b, r, p := askingBench(t)
	answer := b.ticket(r.id()[:8])
	list, err := ticket.ReadText([]byte(answer.Text))
	must(t, err)
	got := list[0]
	must(t, got.Verify(b.site.Store.Object.Receivers[0].Ticket))
	if got.Receiver != trusttest.Receiver || got.Release != [32]byte(r.env.ID) || got.Envelope != sha256.Sum256(r.stream(t)) || got.Groups != groups ||
		got.Profile != int(link.Profile1500) || got.Payload != int64(len(r.payload)) || got.Fresh != 0 || !got.Created.Equal(b.clock.Now()) {
		t.Errorf("%+v", got.Ticket)
	}
	if answer.Lost != 300 || answer.LostBytes != 300*1408 || answer.Source != 300 || answer.Repair != 0 || answer.Damaged != 1 || answer.Spans != 2 || answer.UnderWay ||
		answer.Size != len(got.Bytes()) || answer.QR != got.QR() || answer.Release != r.id() || answer.Sends < 300*1452 || answer.Sends > 345*1452 {
		t.Errorf("%+v", answer)
	}
	if _, err := json.Marshal(answer); err != nil {
		t.Error(err)
	}
	put(t, p, pick(t, r, got.Need))
	must(t, p.Flush(t.Context()))
	b.await(r, "RECEIVED")
}

// pick returns the symbols of a selection.
func pick(t *testing.T, r release, s fec.Selection) (list []symbol) {
	source, repair := r.symbols(t, groups, fec.MaxRows)
	at := map[[2]uint32]symbol{}
	for _, s := range append(source, repair...) {
		at[[2]uint32{s.sbn, s.esi}] = s
	}
	g, err := fec.New(int64(len(r.payload)), 1408, groups)
	must(t, err)
	for _, p := range s {
		for _, e := range p.Source {
			for i := range e.Count {
				list = append(list, at[[2]uint32{uint32(p.SBN), uint32(e.First + i)}])
			}
		}
		for _, run := range p.Repair {
			for i := range run.Groups * run.Rows {
				list = append(list, at[[2]uint32{uint32(p.SBN), g.Span(p.SBN).RepairESI(run.Row+i%run.Rows, run.Group+i/run.Rows)}])
			}
		}
	}
	return list
}

// TestTicketRows: a deficit is asked for in rows, from the first that was not used up.
func TestTicketRows(t *testing.T) {
	b, r, p := askingBench(t)
	source, repair := r.symbols(t, groups, 20)
	put(t, p, source[250:400]) // of 150 that are missing the 20 rows do not repair one
	for _, s := range repair {
		if s.sbn == 0 {
			put(t, p, []symbol{s})
		}
	}
	answer := b.ticket(r.id())
	if answer.FreshRow != 20 || answer.Source+answer.Repair != 150-20*groups || answer.Lost != 150 {
		t.Errorf("%+v", answer)
	}
	list, err := ticket.ReadText([]byte(answer.Text))
	must(t, err)
	put(t, p, pick(t, r, list[0].Need))
	must(t, p.Flush(t.Context()))
	b.await(r, "RECEIVED")
}

// TestTicketRepairsFirst: what can be repaired with what is here is not asked for.
func TestTicketRepairsFirst(t *testing.T) {
	b := newBench(t)
	b.giveKey(b.site.Ticket)
	r := b.approved("models/llm", 1)
	p, err := b.announce(r)
	must(t, err)
	source, repair := r.symbols(t, groups, 10)
	put(t, p, source[8:len(source)-60]) // 2 rows of span 0, and the end of span 1, which 10 rows of its groups do not repair
	put(t, p, repair)
	answer := b.ticket(r.id())
	if answer.Lost >= 68 || answer.Damaged != 1 {
		t.Errorf("%+v", answer)
	}
}

func wantTicketRefused(t *testing.T, b *bench, release string, code int, words string) {
	t.Helper()
	_, err := b.r.Ticket(t.Context(), release)
	var refusal *admin.Refusal
	if !errors.As(err, &refusal) || refusal.Code != code || !strings.Contains(err.Error(), words) {
		t.Errorf("%v; want %d, %q", err, code, words)
	}
}

func TestTicketRefused(t *testing.T) {
	b, r, _ := askingBench(t)
	wantTicketRefused(t, b, "", http.StatusNotFound, "at least 4 digits")
	wantTicketRefused(t, b, r.id()[:3], http.StatusNotFound, "at least 4 digits")
	wantTicketRefused(t, b, strings.Repeat("0", 64), http.StatusNotFound, "not even its envelope arrived")
	key := b.cfg.Keys.Ticket
	b.cfg.Keys.Ticket = ""
	b.restart()
	wantTicketRefused(t, b, r.id(), http.StatusNotImplemented, "keys generate --use ticket")
	b.cfg.Keys.Ticket = key
	must(t, os.Rename(b.path("spool", r.id(), "payload"), b.path("spool", r.id(), "elsewhere")))
	b.restart()
	must(t, os.RemoveAll(b.path("spool", r.id(), "payload")))
	must(t, os.Rename(b.path("spool", r.id(), "elsewhere"), b.path("spool", r.id(), "payload")))
	b.restart()
	p, err := b.announce(r)
	must(t, err)
	b.fill(r, p)
	wantTicketRefused(t, b, r.id(), http.StatusConflict, "is complete: it is RECEIVED")
	refused := b.seal("models/other", 1, "s.ito")
	if _, err := b.announce(refused); err == nil {
		t.Fatal("accepted with one approval")
	}
	wantTicketRefused(t, b, refused.id(), http.StatusConflict, "was refused, so nothing of it is missing")
}

// TestTicketWithoutReception: a job in RECEIVING whose assembler could not be opened.
func TestTicketWithoutReception(t *testing.T) {
	b, r, _ := askingBench(t)
	must(t, b.r.Close())
	must(t, os.Remove(b.path("spool", r.id(), "envelope.sluice")))
	b.open()
	must(t, b.r.Resume(b.Context()))
	wantTicketRefused(t, b, r.id(), http.StatusConflict, "is not being assembled just now")
}

// TestTicketKey: a key that the bastion would not believe is a mistake of the configuration, found at the start and before a ticket is made.
func TestTicketKey(t *testing.T) {
	other, err := mofn.GenerateSecret(nil, mofn.SuiteTicket, "other")
	must(t, err)
	b := newBench(t)
	b.giveKey(other)
	r := b.approved("models/llm", 1)
	_, err = b.announce(r)
	must(t, err)
	const words = "is not the ticket key that the trust object names"
	if _, err := b.r.Ticket(t.Context(), r.id()); err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("Ticket: %v", err)
	}
	if err := receiver.Check(b.cfg); err == nil || !strings.Contains(err.Error(), words) {
		t.Errorf("Check: %v", err)
	}
	b.giveKey(b.site.Ticket)
	if err := receiver.Check(b.cfg); err == nil || strings.Contains(err.Error(), "keys.ticket") {
		t.Errorf("Check of the right key: %v", err) // the bench has no hpke key
	}
	b.cfg.Keys.Ticket = "absent"
	if err := receiver.Check(b.cfg); err == nil || !strings.Contains(err.Error(), "keys.ticket") {
		t.Errorf("Check of an absent key: %v", err)
	}
}
