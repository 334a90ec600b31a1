// SPDX-License-Identifier: Apache-2.0

package ticket_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudflare/circl/kem/xwing"

	"sluice/internal/link"
	"sluice/internal/link/linktest"
	"sluice/internal/spool"
	"sluice/internal/ticket"
	"sluice/pkg/fec"
)

// The real parameters, scaled down by 124: G 992 -> 8, 5 Gbit/s -> 40 Mbit/s, a span of 256 MiB -> 2.2 MB. 200 ms are again 43 % of a span.
const (
	scaledGroups = 8
	scaledRate   = 40_000_000
	scaledRows   = 20
	outageCount  = scaledRate / 5 / ((1452 + 66) * 8) // datagrams in 200 ms
)

// scene is a sender, a lossy link, a receiver and its spool, in virtual time.
type scene struct {
	*testing.T
	payload  []byte
	envelope []byte
	release  [32]byte
	object   *spool.Object
	root     *os.Root
	link     *linktest.Link
	linkKey  ed25519.PrivateKey
	public   []byte
	receiver *link.Receiver
}

// Envelope implements link.Sink: everything is accepted, into the one object.
func (s *scene) Envelope(context.Context, link.Announcement, io.ReaderAt, int64) (link.Payload, error) {
	return spooled{s.object}, nil
}

// spooled is a spool as the link's payload.
type spooled struct{ *spool.Object }

func (p spooled) Put(sbn, esi uint32, symbol []byte) (bool, error) {
	out, err := p.Object.Put(sbn, esi, symbol)
	return out == spool.Stored, err
}

// Refused implements link.Payload: no release is refused here once it was accepted.
func (spooled) Refused() bool { return false }

// inScene runs a test in virtual time; faults begin with the first datagram.
func inScene(t *testing.T, faults linktest.Options, run func(s *scene)) {
	dir, spoolDir := t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := &scene{T: t, payload: make([]byte, 3*192*scaledGroups*1408-5000), envelope: make([]byte, 20_000), release: sha256.Sum256([]byte("scene")), link: linktest.New(faults)}
		rand.NewChaCha8(s.release).Read(s.payload)
		seed := sha256.Sum256([]byte("keys of the scene"))
		_, s.public = xwing.DeriveKeyPairPacked(seed[:])
		s.linkKey = ed25519.NewKeyFromSeed(seed[:])
		s.open(spoolDir)
		root, err := os.OpenRoot(dir)
		s.must(err)
		s.receiver, err = link.NewReceiver(link.ReceiverConfig{
			Conns: []link.BatchReader{s.link.Reader()}, Opener: linktest.Opener(seed[:], s.linkKey.Public().(ed25519.PublicKey)), Sink: s, Dir: root,
		})
		s.must(err)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- s.receiver.Run(ctx) }()
		run(s)
		cancel()
		s.must(errors.Join(<-done, s.object.Close(), root.Close(), s.root.Close()))
	})
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *scene) open(dir string) {
	g, err := fec.New(int64(len(s.payload)), 1408, scaledGroups)
	s.must(err)
	s.root, err = os.OpenRoot(dir)
	s.must(err)
	s.object, err = spool.Open(s.root, []spool.File{{Name: "payload", Size: int64(len(s.payload))}}, g, spool.Options{SyncSpans: true})
	s.must(err)
}

// send sends one pass and waits until the link has been quiet for long.
func (s *scene) send(change func(*link.Transfer)) link.SendReport {
	s.Helper()
	sender, err := link.NewSender(link.SenderConfig{
		Lanes: []link.Lane{{Conn: s.link.Writer(), Rate: scaledRate}}, Profile: link.Profile1500, Groups: scaledGroups, Repair: scaledRows, LinkKey: s.linkKey, ReceiverKey: s.public,
	})
	s.must(err)
	t := link.Transfer{
		Release: s.release, Envelope: bytes.NewReader(s.envelope), EnvelopeSize: int64(len(s.envelope)),
		Payload: bytes.NewReader(s.payload), PayloadSize: int64(len(s.payload)), Pass: 1,
	}
	change(&t)
	report, err := sender.Send(context.Background(), t)
	s.must(err)
	<-time.After(3 * time.Second)
	return report
}

// ask makes the ticket as the receiver does, and carries it as text.
func (s *scene) ask() *ticket.Signed {
	s.Helper()
	s.must(s.object.Flush(context.Background()))
	g, err := fec.New(int64(len(s.payload)), 1408, scaledGroups)
	s.must(err)
	fresh, err := s.object.FreshRow()
	s.must(err)
	b := ticket.NewBuilder(g, fresh, ticket.Room("rx-1"))
	s.must(s.object.Lacking(func(l spool.Lack) error { b.Add(l.Span, l.Deficit, l.Missing); return nil }))
	made, err := ticket.Sign(ticket.Ticket{
		Receiver: "rx-1", Release: s.release, Envelope: sha256.Sum256(s.envelope), Profile: 1, Groups: scaledGroups, Payload: int64(len(s.payload)),
		Fresh: fresh, Created: time.Now(), Need: b.Need(),
	}, testKey("rx-1"))
	s.must(err)
	list, err := ticket.ReadText([]byte(made.Text()))
	s.must(err)
	s.must(list[0].Verify(public("rx-1")))
	return list[0]
}

func (s *scene) apply(t *ticket.Signed) link.SendReport {
	s.Helper()
	only, err := t.Selection(ticket.Spare)
	s.must(err)
	return s.send(func(t *link.Transfer) { t.Only = only })
}

// arrived wants the payload whole and unaltered.
func (s *scene) arrived() {
	s.Helper()
	if !s.object.Complete() {
		s.Fatalf("not complete: %+v", s.object.Missing())
	}
	<-s.object.Done()
	got, err := fs.ReadFile(s.root.FS(), "payload")
	s.must(err)
	if !bytes.Equal(got, s.payload) {
		s.Fatal("the payload was altered")
	}
}

func pass1(t *link.Transfer) { t.Source = true }

// TestOutage: 200 ms of the link at three places, within a span and across two; the ticket has less than 500 bytes, and sending what it asks for
// completes the release with less than twice the lost bytes.
func TestOutage(t *testing.T) {
	for _, from := range []uint64{500, 1300, 3900} {
		inScene(t, linktest.Options{Outage: []linktest.Outage{{From: from, Count: outageCount}}}, func(s *scene) {
			s.send(pass1)
			if s.object.Complete() {
				s.Fatal("the outage cost nothing: this test proved nothing")
			}
			tk := s.ask()
			report := s.apply(tk)
			s.arrived()
			sum := report.Source + report.Repair
			s.Logf("outage of %d datagrams from %d: ticket of %d bytes, %d source and %d repair symbols sent", outageCount, from, len(tk.Bytes()), report.Source, report.Repair)
			if len(tk.Bytes()) >= 500 || sum >= 2*outageCount {
				s.Errorf("%d bytes, %d symbols", len(tk.Bytes()), sum)
			}
		})
	}
}

// TestOutageAndLoss: the ticket pass loses 1 % like every pass; its spare is there for that.
func TestOutageAndLoss(t *testing.T) {
	for seed := range uint64(4) {
		inScene(t, linktest.Options{Seed: seed, Drop: 0.01, Outage: []linktest.Outage{{From: 2000, Count: outageCount}}}, func(s *scene) {
			s.send(pass1)
			s.apply(s.ask())
			s.arrived()
		})
	}
}

// TestStaleTicket: more has arrived since the ticket was made. It asks for too much, which costs bandwidth, and nothing else.
func TestStaleTicket(t *testing.T) {
	inScene(t, linktest.Options{Outage: []linktest.Outage{{From: 2000, Count: outageCount}}}, func(s *scene) {
		s.send(pass1)
		stale := s.ask()
		s.send(func(t *link.Transfer) { t.FirstRow, t.Rows, t.Pass = 20, 15, 2 }) // a heal pass, which is not enough
		if s.object.Complete() {
			s.Fatal("the heal pass healed all: nothing is stale")
		}
		fresher := s.ask()
		if fresher.Fresh <= stale.Fresh {
			s.Errorf("first fresh row %d, before %d", fresher.Fresh, stale.Fresh)
		}
		report := s.apply(stale)
		s.arrived()
		before := s.object.Progress()
		again := s.apply(stale)
		if after := s.object.Progress(); after != before {
			s.Errorf("a ticket of what is complete changed something: %+v, before %+v", after, before)
		}
		for _, st := range s.receiver.Sessions() {
			if st.Session == report.Session && (st.Held == 0 || st.Malformed > 0) || st.Session == again.Session && st.Stored > 0 {
				s.Errorf("session %x: %d held, %d stored, %d malformed", st.Session, st.Held, st.Stored, st.Malformed)
			}
		}
	})
}

// TestSecondTicket: a second ticket after a ticket pass that was lost in part; and one when no fresh row is left.
func TestSecondTicket(t *testing.T) {
	inScene(t, linktest.Options{Outage: []linktest.Outage{{From: 2000, Count: outageCount}, {From: 5500, Count: 400}}}, func(s *scene) {
		s.send(pass1)
		first := s.ask()
		s.apply(first)
		if s.object.Complete() {
			s.Fatal("the second outage cost nothing: this test proved nothing")
		}
		s.send(func(t *link.Transfer) { t.FirstRow, t.Rows = 63, 1 })
		second := s.ask()
		if second.Fresh != fec.MaxRows {
			s.Errorf("first fresh row %d, and row 63 was received", second.Fresh)
		}
		s.apply(second)
		s.arrived()
	})
}
