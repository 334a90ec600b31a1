// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sluice/internal/link"
	"sluice/internal/link/linktest"
)

const (
	// floodFactor is how many forged datagrams go with each genuine one.
	floodFactor = 10

	// strangers is how many announcements row S2 makes, each with an id of its own.
	strangers = 100_000

	// noisePool is how many random bytes forged datagrams are cut out of.
	noisePool = 1 << 16

	// keptBar is the share of its rate that a transfer keeps under a flood, in percent.
	keptBar = 90
)

func hostileRows() []row {
	return []row{
		{
			name: "S1", trials: 20, play: forgedFlood,
			promise: "forged datagrams at 10 times the genuine rate: no session made, each counted, the genuine transfer complete in one pass with at least 90 % of its datagrams",
			report:  []column{{"forged", "forged datagrams", total}, {"sessions", "sessions made by them", total}, {"kept", "% of the genuine datagrams received (least)", least}},
		},
		{
			name: "S2", trials: 1, play: announcedFlood,
			promise: "100,000 announcements of different sessions by somebody who knows the receiver's public key and has no link key: nothing is kept of them, the genuine transfer is unharmed",
			report: []column{
				{"forged", "announcements", total},
				{"sessions", "sessions made by them", total},
				{"checked", "signatures checked of them", total},
				{"kept", "% of the genuine datagrams received", least},
			},
		},
		{
			name: "S3", trials: 50, play: replayed,
			promise: "a recorded session played again, twice at once, after a restart of the receiver, and after a newer release: counted, nothing written, nothing changed",
			report:  []column{{"replayed", "datagrams replayed", total}, {"stored", "symbols written by them", total}},
		},
	}
}

// flood is a writer that injects forged datagrams after each genuine one.
type flood struct {
	link.BatchWriter
	on    *linktest.Link
	each  int
	forge func(genuine []byte) []byte
	count uint64
}

// WriteBatch implements link.BatchWriter.
func (f *flood) WriteBatch(b []byte, segment int) error {
	for ; len(b) > 0; b = b[segment:] {
		d := bytes.Clone(b[:segment])
		if err := f.BatchWriter.WriteBatch(d, segment); err != nil {
			return err
		}
		for range f.each {
			f.on.Inject(f.forge(d))
			f.count++
		}
	}
	return nil
}

// forger makes what somebody without a key can make.
type forger struct {
	random *mathrand.Rand
	mac    []byte // the key of mac1, which everybody knows who knows the receiver's public key
	next   uint64 // session ids
	pool   []byte // noise
}

func newForger(seed uint64, receiverKey []byte) *forger {
	mac := sha256.Sum256(append([]byte("sluice-mac1-v1"), receiverKey...))
	return &forger{random: newRandom(seed), mac: mac[:], pool: linktest.Pseudo(seed, noisePool)}
}

// noise is a datagram of profile 1 with a right header and a random rest.
func (f *forger) noise(h link.Header) []byte {
	n := h.Profile.DatagramSize() - link.HeaderSize
	at := f.random.IntN(len(f.pool) - n)
	return append(link.AppendHeader(nil, h), f.pool[at:at+n]...)
}

// stranger is an announcement of a new session with a right mac1 and a signature of nobody.
func (f *forger) stranger() []byte {
	f.next++
	var id [8]byte
	for i := range id {
		id[i] = byte(f.next >> (8 * i))
	}
	d := f.noise(link.Header{Type: link.TypeAnnouncement, Profile: link.Profile1500, Session: id})
	h := hmac.New(sha256.New, f.mac)
	h.Write(d[:len(d)-link.TagSize])
	copy(d[len(d)-link.TagSize:], h.Sum(nil))
	return d
}

// forge makes one datagram of one of ten kinds, most of them close to a genuine one.
func (f *forger) forge(genuine []byte) []byte {
	session := [8]byte(genuine[4:12])
	switch f.random.IntN(10) {
	case 0: // noise of any length
		return f.noise(link.Header{Profile: link.Profile1500})[:f.random.IntN(len(genuine))]
	case 1:
		return f.noise(link.Header{Type: link.TypeAnnouncement, Profile: link.Profile1500, Session: session})
	case 2:
		return f.stranger()
	case 3: // of no session
		return f.noise(link.Header{Type: link.TypePayload, Profile: link.Profile1500, Session: [8]byte{1}, Counter: 1})
	case 4:
		return f.noise(link.Header{Type: link.TypePayload, Profile: link.Profile1500, Session: session, Counter: f.random.Uint64N(10_000)})
	case 5: // would push the window of counters ahead
		return f.noise(link.Header{Type: link.TypeHeartbeat, Profile: link.Profile1500, Session: session, Counter: link.MaxSealed - 1})
	case 6:
		return f.noise(link.Header{Type: link.TypePayload, Profile: link.Profile1500, Session: session, Counter: link.MaxSealed})
	case 7:
		return f.noise(link.Header{Type: link.TypePayload, Profile: link.Profile9000, Session: session})
	case 8: // one bit of a genuine one
		d := bytes.Clone(genuine)
		d[f.random.IntN(len(d))] ^= 1 << f.random.IntN(8)
		return d
	}
	return bytes.Clone(genuine[:f.random.IntN(len(genuine))]) // cut short
}

func forgedFlood(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	return play(c, seed, small(percent10), linktest.Options{}, func(w *world) (figures, error) {
		f := newForger(seed, w.keys.Receiver)
		f.next = seed << 32 // no id twice, in no trial
		return w.underFlood(ctx, floodFactor, f.forge)
	})
}

func announcedFlood(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	return play(c, seed, small(percent10), linktest.Options{}, func(w *world) (figures, error) {
		const fewest = 3000 // datagrams of a pass of this plan
		f := newForger(seed, w.keys.Receiver)
		each := (c.count(strangers) + fewest - 1) / fewest
		sealed, err := w.strangersSealed()
		if err != nil {
			return nil, err
		}
		return w.underFlood(ctx, each, func([]byte) []byte {
			if len(sealed) > 0 && f.random.IntN(100) == 0 {
				return slices.Clone(sealed[f.random.IntN(len(sealed))])
			}
			return f.stranger()
		})
	})
}

// strangersSealed are announcements that are right in everything, except that the link key is nobody's.
func (w *world) strangersSealed() (list [][]byte, err error) {
	stranger := linktest.NewKeys(2)
	for i := range byte(16) {
		a := link.Announcement{
			Session: [8]byte{0xAA, i}, Profile: link.Profile1500, Release: [32]byte{1, i}, EnvelopeSHA256: [32]byte{2, i},
			EnvelopeSize: 1000, PayloadSize: 1 << 20, Groups: 4, Pass: 1, Start: time.Unix(1_800_000_000, 0),
		}
		d, _, err := link.SealAnnouncement(rand.Reader, a, stranger.Link, w.keys.Receiver)
		if err != nil {
			return nil, err
		}
		list = append(list, d)
	}
	return list, nil
}

// underFlood sends one pass with forged datagrams between, and wants nothing to be made of them and nothing to be missing.
func (w *world) underFlood(ctx context.Context, each int, forge func(genuine []byte) []byte) (figures, error) {
	cargo := w.cargo(0)
	conn := &flood{BatchWriter: w.link.Writer(), on: w.link, each: each, forge: forge}
	report, err := w.sendOver(ctx, conn, cargo, 1)
	if err != nil {
		return nil, err
	}
	st, err := w.stop() // the spy wants each of them rejected
	s, err2 := session(st, report.Session)
	if err = errors.Join(err, err2); err != nil {
		return nil, err
	}
	kept := 100 * float64(s.Authentic) / float64(report.Sealed)
	f := figures{"forged": float64(conn.count), "sessions": float64(len(st.Sessions) - 1), "kept": kept, "checked": float64(st.Rejected["signature"])}
	if kept < keptBar {
		err = fmt.Errorf("%.1f %% of the genuine datagrams were received, at least %d are wanted", kept, keptBar)
	}
	entries, err3 := os.ReadDir(filepath.Join(w.dir, "link"))
	const genuine = 2 // the announcement, and the envelope object
	return f, errors.Join(err, err3, w.whole(cargo), want("sessions", len(st.Sessions), 1), want("files kept", len(entries), genuine))
}

// replayed records a session and plays it again and again.
func replayed(ctx context.Context, c *certifier, seed uint64) (figures, error) {
	var tape [][]byte
	recording := true
	tap := func(d []byte) {
		if recording {
			tape = append(tape, bytes.Clone(d))
		}
	}
	return play(c, seed, small(percent10), linktest.Options{Drop: 0.01, Tap: tap}, func(w *world) (figures, error) {
		old, newer := w.cargo(0), w.cargo(1)
		report, err := w.send(ctx, old, 1)
		if err != nil {
			return nil, err
		}
		recording = false
		before, err := session(w.receiver.Status(), report.Session)
		if err != nil {
			return nil, err
		}
		w.replay(tape)
		w.replay(tape)
		after, err := session(w.receiver.Status(), report.Session)
		if err = errors.Join(err, w.restart()); err != nil {
			return nil, err
		}
		w.replay(tape)
		if _, err := w.send(ctx, newer, 1); err != nil {
			return nil, err
		}
		w.replay(tape)
		st, err := w.stop()
		again, err2 := session(st, report.Session)
		f := figures{"replayed": float64(4 * len(tape)), "stored": float64(after.Stored - before.Stored + again.Stored)}
		return f, errors.Join(err, err2, w.whole(old), w.whole(newer), want("symbols written by a replay", f["stored"], 0), want("sessions", len(st.Sessions), 2))
	})
}

// replay puts recorded datagrams onto the link, past its faults.
func (w *world) replay(tape [][]byte) {
	for _, d := range tape {
		w.link.Inject(d)
	}
	wait(settleTime)
}
