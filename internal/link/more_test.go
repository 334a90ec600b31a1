// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/internal/link"
	"sluice/internal/link/linktest"
)

func TestSenderConfigRefused(t *testing.T) {
	k := newKeys(40)
	w, _ := linktest.Pair(linktest.Options{})
	for _, tt := range []struct {
		name   string
		change func(*link.SenderConfig)
		want   error
	}{
		{"no connection", func(c *link.SenderConfig) { c.Lanes[0].Conn = nil }, link.ErrConfig},
		{"profile", func(c *link.SenderConfig) { c.Profile = 3 }, link.ErrConfig},
		{"negative rate", func(c *link.SenderConfig) { c.Lanes[0].Rate = -1 }, link.ErrConfig},
		{"negative settle", func(c *link.SenderConfig) { c.Settle = -1 }, link.ErrConfig},
		{"groups", func(c *link.SenderConfig) { c.Groups = 4097 }, link.ErrConfig},
		{"repair", func(c *link.SenderConfig) { c.Repair = 65 }, link.ErrConfig},
		{"link key", func(c *link.SenderConfig) { c.LinkKey = nil }, link.ErrKey},
		{"receiver key", func(c *link.SenderConfig) { c.ReceiverKey = make([]byte, 1215) }, link.ErrKey},
	} {
		c := link.SenderConfig{Lanes: []link.Lane{{Conn: w}}, Profile: link.Profile9000, Repair: 10, LinkKey: k.link, ReceiverKey: k.receiver}
		tt.change(&c)
		if _, err := link.NewSender(c); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestTransferRefused(t *testing.T) {
	k, c := newKeys(41), newCargo(1, 100, 100)
	w, _ := linktest.Pair(linktest.Options{})
	for _, tt := range []struct {
		name   string
		change func(*link.Transfer)
		want   error
	}{
		{"release", func(tr *link.Transfer) { tr.Release = [32]byte{} }, link.ErrConfig},
		{"envelope", func(tr *link.Transfer) { tr.EnvelopeSize = 0 }, link.ErrConfig},
		{"envelope too large", func(tr *link.Transfer) { tr.EnvelopeSize = link.MaxEnvelopeSize + 1 }, link.ErrParameters},
		{"payload", func(tr *link.Transfer) { tr.Payload = nil }, link.ErrConfig},
		{"negative payload", func(tr *link.Transfer) { tr.PayloadSize = -1 }, link.ErrParameters},
		{"pass", func(tr *link.Transfer) { tr.Pass = 0 }, link.ErrParameters},
		{"rows", func(tr *link.Transfer) { tr.FirstRow, tr.Rows = 60, 5 }, link.ErrConfig},
		{"first row", func(tr *link.Transfer) { tr.FirstRow = -1 }, link.ErrConfig},
		{"nothing to send", func(tr *link.Transfer) { tr.Source, tr.Rows = false, -1 }, link.ErrConfig},
	} {
		tr := c.transfer()
		tt.change(&tr)
		if _, err := newSender(t, k, w, nil).Send(t.Context(), tr); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestSizes sends payloads at the edges of symbols and spans, in both profiles,
// and an empty one.
func TestSizes(t *testing.T) {
	for _, p := range []link.Profile{link.Profile1500, link.Profile9000} {
		size := p.SymbolSize()
		for _, n := range []int{0, 1, size - 1, size, size + 1, 192 * size, 192*size + 1, 384 * size, 384*size + 1} {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				k, c, s := newKeys(42), newCargo(uint64(n), 1, n), newSink()
				l := linktest.New(linktest.Options{Seed: uint64(n), Drop: 0.01})
				h := receive(t, k, l.Reader(), s, dir, nil)
				var progress int
				send(t, k, l.Writer(), c.transfer(), func(c *link.SenderConfig) {
					c.Profile = p
					c.Progress = func(link.SendProgress) { progress++ }
				})
				wait(time.Second)
				h.stop(t)
				wantArrived(t, s, c)
				if progress == 0 {
					t.Error("no progress was told")
				}
			})
		}
	}
}

// TestKeptAnnouncements: what is found in the directory is authenticated like
// what comes over the link; the rest is removed.
func TestKeptAnnouncements(t *testing.T) {
	k, stranger := newKeys(43), newKeys(44)
	genuine, _ := sealed(t, k, announcement(1))
	forged, _ := sealed(t, keys{link: stranger.link, receiver: k.receiver}, announcement(2))
	mac := append([]byte(nil), genuine...)
	mac[100] ^= 1
	name := func(n byte) string {
		id := announcement(n).Session
		return "session-" + hex.EncodeToString(id[:])
	}
	for _, tt := range []struct {
		name     string
		file     string
		content  []byte
		link     ed25519.PublicKey
		sessions int
	}{
		{"genuine", name(1), genuine, k.public(), 1},
		{"link key withdrawn", name(1), genuine, stranger.public(), 0},
		{"not by a link key", name(2), forged, k.public(), 0},
		{"damaged", name(1), mac, k.public(), 0},
		{"under another name", name(9), genuine, k.public(), 0},
		{"cut short", name(1), genuine[:100], k.public(), 0},
		{"empty", name(1), nil, k.public(), 0},
		{"huge", name(1), make([]byte, 1<<20), k.public(), 0},
		{"unfinished", name(1) + ".tmp", genuine, k.public(), 0},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, tt.file), tt.content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(filepath.Join(dir, "envelope-of-nobody"), 0o700); err != nil {
			t.Fatal(err)
		}
		_, conn := linktest.Pair(linktest.Options{})
		h := receive(t, k, conn, newSink(), dir, func(c *link.ReceiverConfig) { c.Opener = linktest.Opener(k.private, tt.link) })
		st := h.stop(t)
		equal(t, tt.name, len(st.Sessions), tt.sessions)
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if tt.sessions == 0 || e.Name() == "envelope-of-nobody" || strings.HasSuffix(e.Name(), ".tmp") {
				t.Errorf("%s: %s was left", tt.name, e.Name())
			}
		}
	}
}

func TestReceiverConfigRefused(t *testing.T) {
	k := newKeys(45)
	_, conn := linktest.Pair(linktest.Options{})
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	good := link.ReceiverConfig{Conns: []link.BatchReader{conn}, Opener: linktest.Opener(k.private, k.public()), Sink: newSink(), Dir: root}
	for _, tt := range []struct {
		name   string
		change func(*link.ReceiverConfig)
		want   error
	}{
		{"connection", func(c *link.ReceiverConfig) { c.Conns = nil }, link.ErrConfig},
		{"sink", func(c *link.ReceiverConfig) { c.Sink = nil }, link.ErrConfig},
		{"directory", func(c *link.ReceiverConfig) { c.Dir = nil }, link.ErrConfig},
		{"opener", func(c *link.ReceiverConfig) { c.Opener = nil }, link.ErrConfig},
	} {
		c := good
		tt.change(&c)
		if _, err := link.NewReceiver(c); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestOpenerRefused(t *testing.T) {
	k := newKeys(45)
	if _, err := link.NewAnnouncementOpener(k.private[:31], []ed25519.PublicKey{k.public()}); !errors.Is(err, link.ErrKey) {
		t.Errorf("short private key: %v", err)
	}
	if _, err := link.NewAnnouncementOpener(k.private, nil); !errors.Is(err, link.ErrKey) {
		t.Errorf("no link key: %v", err)
	}
}

var errDevice = errors.New("device is gone")

type failingReader struct{ link.BatchReader }

func (failingReader) ReadBatch([]link.Buffer) (int, error) { return 0, errDevice }

// TestBrokenConnectionEndsRun: an error of the socket is the error of Run.
func TestBrokenConnectionEndsRun(t *testing.T) {
	_, conn := linktest.Pair(linktest.Options{})
	h := receive(t, newKeys(46), failingReader{conn}, newSink(), t.TempDir(), nil)
	if err := <-h.done; !errors.Is(err, errDevice) {
		t.Errorf("Run: %v", err)
	}
	h.cancel()
}

// TestLateSymbolIsFlushedSoon: a symbol that comes after the end of a pass waits
// 200 ms for its Flush, not the two seconds of a link that fell silent.
func TestLateSymbolIsFlushedSoon(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k, c, s := newKeys(47), newCargo(1, 10_000, 500_000), newSink()
		var late []byte
		payload := 0
		l := linktest.New(linktest.Options{})
		w := dropper{l.Writer(), func(d []byte) bool {
			if d[1] != byte(link.TypePayload) {
				return false
			}
			if payload++; payload == 100 {
				late = append([]byte(nil), d...)
			}
			return payload == 100
		}}
		h := receive(t, k, l.Reader(), s, dir, nil)
		tr := c.transfer()
		tr.Rows = -1
		send(t, k, w, tr, nil)
		wait(100 * time.Millisecond)
		m := s.payload(c.release)
		equal(t, "missing after the pass", m.Missing(), int64(1))
		before := m.Flushes()
		l.Inject(late)
		wait(400 * time.Millisecond)
		equal(t, "flushes", m.Flushes(), before+1)
		h.stop(t)
		wantArrived(t, s, c)
	})
}

// dropper drops the datagrams that f chooses.
type dropper struct {
	link.BatchWriter
	f func(d []byte) bool
}

func (w dropper) WriteBatch(b []byte, segment int) error {
	for ; len(b) > 0; b = b[segment:] {
		if w.f(b[:segment]) {
			continue
		}
		if err := w.BatchWriter.WriteBatch(b[:segment], segment); err != nil {
			return err
		}
	}
	return nil
}
