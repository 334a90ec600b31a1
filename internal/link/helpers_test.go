// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/internal/link"
	"sluice/internal/link/linktest"
	"sluice/pkg/fec"
)

// keys are those of one bastion and one receiver, from fixed seeds.
type keys struct {
	link     ed25519.PrivateKey
	private  []byte
	receiver []byte
}

func newKeys(seed byte) keys {
	k := linktest.NewKeys(seed)
	return keys{link: k.Link, private: k.Private, receiver: k.Receiver}
}

func (k keys) public() ed25519.PublicKey { return k.link.Public().(ed25519.PublicKey) }

// pseudo returns n bytes that depend on the seed.
func pseudo(seed uint64, n int) []byte { return linktest.Pseudo(seed, n) }

// cargo is one release to send.
type cargo struct {
	release           [32]byte
	envelope, payload []byte
}

func newCargo(seed uint64, envelope, payload int) cargo {
	c := linktest.NewCargo(seed, envelope, payload)
	return cargo{release: c.Release, envelope: c.Envelope, payload: c.Payload}
}

// transfer returns pass 1 of the cargo.
func (c cargo) transfer() link.Transfer {
	return linktest.Cargo{Release: c.release, Envelope: c.envelope, Payload: c.payload}.Transfer()
}

// sink keeps what it accepts in memory.
type sink struct {
	mu       sync.Mutex
	payloads map[[32]byte]*linktest.Memory
	asked    int
	verify   func(a link.Announcement, envelope []byte) error
	wrap     func(link.Payload) link.Payload
}

func newSink() *sink { return &sink{payloads: make(map[[32]byte]*linktest.Memory)} }

func (s *sink) Envelope(_ context.Context, a link.Announcement, envelope io.ReaderAt, size int64) (link.Payload, error) {
	b := make([]byte, size)
	if _, err := envelope.ReadAt(b, 0); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.verify != nil {
		if err := s.verify(a, b); err != nil {
			return nil, err
		}
	}
	m := s.payloads[a.Release]
	if m == nil {
		g, err := fec.New(a.PayloadSize, a.Profile.SymbolSize(), a.Groups)
		if err != nil {
			return nil, err
		}
		m = linktest.NewMemory(g)
		s.payloads[a.Release] = m
	}
	if s.wrap != nil {
		return s.wrap(m), nil
	}
	return m, nil
}

func (s *sink) payload(release [32]byte) *linktest.Memory {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.payloads[release]
}

func (s *sink) timesAsked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked
}

// high is a running receiver.
type high struct {
	*link.Receiver
	cancel context.CancelFunc
	done   chan error
}

// receive starts a receiver over conn.
func receive(t testing.TB, k keys, conn link.BatchReader, s link.Sink, dir string, change func(*link.ReceiverConfig)) *high {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	config := link.ReceiverConfig{Conns: []link.BatchReader{conn}, Opener: linktest.Opener(k.private, k.public()), Sink: s, Dir: root}
	if change != nil {
		change(&config)
	}
	r, err := link.NewReceiver(config)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h := &high{Receiver: r, cancel: cancel, done: make(chan error, 1)}
	go func() {
		err := r.Run(ctx)
		root.Close()
		h.done <- err
	}()
	return h
}

// stop ends the receiver and returns its final ledger.
func (h *high) stop(t *testing.T) link.Status {
	t.Helper()
	h.cancel()
	if err := <-h.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	st := h.Status()
	if err := linktest.CheckLedger(st); err != nil {
		t.Error(err)
	}
	return st
}

// send sends a transfer and returns its report.
func send(t *testing.T, k keys, conn link.BatchWriter, tr link.Transfer, change func(*link.SenderConfig)) link.SendReport {
	t.Helper()
	report, err := newSender(t, k, conn, change).Send(context.Background(), tr)
	if err != nil {
		t.Fatalf("Send: %v", err)
	}
	return report
}

// testGroups keeps spans small (540 KB), so that a test has several.
const testGroups = 2

func newSender(t *testing.T, k keys, conn link.BatchWriter, change func(*link.SenderConfig)) *link.Sender {
	t.Helper()
	config := link.SenderConfig{
		Lanes: []link.Lane{{Conn: conn, Rate: 200e6}}, Profile: link.Profile1500, Groups: testGroups, Repair: 20,
		LinkKey: k.link, ReceiverKey: k.receiver,
	}
	if change != nil {
		change(&config)
	}
	s, err := link.NewSender(config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// session finds a session's status.
func session(t *testing.T, st link.Status, id [8]byte) link.SessionStatus {
	t.Helper()
	for _, s := range st.Sessions {
		if s.Session == id {
			return s
		}
	}
	t.Fatalf("session %x is not in the ledger of %d sessions", id, len(st.Sessions))
	return link.SessionStatus{}
}

// wantArrived checks that the sink holds the payload, byte for byte.
func wantArrived(t *testing.T, s *sink, c cargo) {
	t.Helper()
	m := s.payload(c.release)
	if m == nil {
		t.Fatal("the release was never accepted")
	}
	if !m.Complete() {
		t.Fatalf("%d of %d source symbols are missing", m.Missing(), (len(c.payload)+1407)/1408)
	}
	if !bytes.Equal(m.Bytes(), c.payload) {
		t.Fatal("the payload was altered")
	}
}

// wait lets virtual time pass.
func wait(d time.Duration) { <-time.After(d) }

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}
