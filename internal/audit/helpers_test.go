// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sluice/internal/audit"
	"sluice/internal/journal"
	"sluice/internal/merkle"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// logKey is a key that follows from its name, so that vectors can be read again.
func logKey(tb testing.TB, name string) *audit.LogKey {
	tb.Helper()
	seed := sha512.Sum512([]byte("sluice test key " + name))
	secret, err := mofn.GenerateSecret(bytes.NewReader(seed[:]), mofn.SuiteH1, "test key "+name+", public")
	must(tb, err)
	k, err := audit.NewLogKey(secret)
	must(tb, err)
	return k
}

// trustFile writes the trust object of the vectors as it is carried.
func trustFile(tb testing.TB) string {
	tb.Helper()
	payload, err := os.ReadFile(filepath.Join("..", "..", "testdata", "vectors", "trust", "trust-1.json"))
	must(tb, err)
	d := envelope.DSSE{Payload: bytes.TrimSuffix(payload, []byte("\n")), PayloadType: trust.PayloadType, Signatures: []envelope.Signature{}}
	b, err := d.Marshal()
	must(tb, err)
	name := filepath.Join(tb.TempDir(), "trust.json")
	must(tb, os.WriteFile(name, b, 0o600))
	return name
}

// states lets a journal make any move, also those that no release may make: the replay has to find them.
func states() map[string][]string {
	out := map[string][]string{}
	var all []string
	for _, side := range []string{audit.Low, audit.High} {
		for from, to := range audit.Moves(side) {
			all = append(all, to...)
			if from != "" {
				all = append(all, from)
			}
		}
	}
	for _, s := range all {
		out[s] = all
	}
	return out
}

// site is a journal with a log.
type site struct {
	testing.TB
	j   *journal.Journal
	log *audit.Log
}

func newSite(tb testing.TB, side string) site {
	tb.Helper()
	return siteAt(tb, side, filepath.Join(tb.TempDir(), "journal.db"))
}

func siteAt(tb testing.TB, side, path string) site {
	tb.Helper()
	var n atomic.Int64
	now := func() time.Time {
		return time.Date(2026, 3, 4, 5, 0, 0, 0, time.UTC).Add(time.Duration(n.Add(1)) * time.Second)
	}
	j, err := journal.Open(path, journal.Options{States: states(), Now: now})
	must(tb, err)
	tb.Cleanup(func() { _ = j.Close() })
	return site{tb, j, audit.NewLog(j, side, "site-a", logKey(tb, side))}
}

func release(n int) string { return strings.Repeat(fmt.Sprintf("%02x", n), 32) }

func (s site) note(e journal.Event) { s.Helper(); e.Actor = "test"; must(s, s.j.Append(e)) }

func (s site) vote(n int, action, officer string) {
	s.Helper()
	s.note(journal.Event{Action: action, Job: release(n), Release: release(n), Officer: officer, Key: release(200), Digest: release(201)})
}

func (s site) create(n int, state string) {
	s.Helper()
	must(s, s.j.Create(journal.Job{ID: release(n), State: state, Stream: "models/a", Release: release(n), Epoch: 1, Seq: int64(n)}, journal.Event{Actor: "test", Action: "accepted"}))
}

func (s site) move(n int, from, to string, e journal.Event) {
	s.Helper()
	e.Actor = "test"
	advance := s.j.Advance
	if to == "PUBLISHED" || to == "SEALED" {
		advance = s.j.AdvanceWithMark
	}
	_, err := advance(release(n), from, to, nil, e)
	must(s, err)
}

// publish takes a release the whole way on the high side.
func (s site) publish(n int) {
	s.Helper()
	s.create(n, "RECEIVING")
	s.vote(n, audit.ActionApprove, "o.tanaka")
	s.vote(n, audit.ActionApprove, "m.lee")
	s.move(n, "RECEIVING", "RECEIVED", journal.Event{})
	s.move(n, "RECEIVED", "VERIFIED", journal.Event{Detail: "3 files, every byte <é>"})
	s.move(n, "VERIFIED", "INSPECTED", journal.Event{})
	s.move(n, "INSPECTED", "HELD", journal.Event{})
	s.move(n, "HELD", "PUBLISHED", journal.Event{Digest: release(202)})
	s.note(journal.Event{Action: audit.ActionReadBack, Job: release(n), Release: release(n)})
}

// story is a small log of the high side: 2 releases published, 1 refused.
func (s site) story() {
	s.Helper()
	s.note(journal.Event{Action: audit.ActionStart, Detail: "version 1"})
	s.publish(1)
	s.create(2, "RECEIVING")
	s.move(2, "RECEIVING", "REJECTED", journal.Event{Detail: "signature"})
	s.publish(3)
	s.note(journal.Event{Action: audit.ActionFsck, Detail: "clean"})
	s.note(journal.Event{Action: audit.ActionStop})
}

func (s site) export() string {
	s.Helper()
	dir := filepath.Join(s.TempDir(), "export")
	_, err := audit.Export(context.Background(), s.log, audit.Files{First: trustFile(s)}, dir)
	must(s, err)
	return dir
}

func (s site) checkpoint() []byte {
	s.Helper()
	h, err := s.log.Head(context.Background())
	must(s, err)
	return []byte(h.Checkpoint)
}

// lines are the events of an export.
func lines(tb testing.TB, dir string) []string {
	tb.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "events.jsonl"))
	must(tb, err)
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

func writeLines(tb testing.TB, dir string, l []string) {
	tb.Helper()
	must(tb, os.WriteFile(filepath.Join(dir, "events.jsonl"), []byte(strings.Join(l, "\n")+"\n"), 0o600))
}

// time is some minutes after the site's clock.
func (s site) time(minutes int) time.Time {
	return time.Date(2026, 3, 4, 5, minutes, 0, 0, time.UTC)
}

// forge appends an event with a move that the journal did not make.
func (s site) forge(e journal.Event) {
	s.Helper()
	e.Actor = "test"
	must(s, s.j.Append(e))
}

// memory is a log without a journal.
type memory struct {
	key    *audit.LogKey
	events [][]byte
	edge   merkle.Frontier
}

func (m *memory) add(tb testing.TB, e journal.Event) {
	tb.Helper()
	e.Seq, e.Time = uint64(len(m.events)+1), time.Date(2026, 3, 4, 5, 0, len(m.events), 0, time.UTC)
	if len(m.events) > 0 {
		e.Prev = fmt.Sprintf("%x", sha256.Sum256(m.events[len(m.events)-1]))
	}
	raw, err := e.Encode()
	must(tb, err)
	m.events = append(m.events, raw)
	m.edge.Append(tlog.RecordHash(raw))
}

// Head implements audit.Source.
func (m *memory) Head(context.Context) (audit.Head, error) {
	c := audit.Checkpoint{Origin: audit.Origin(audit.High, "site-a"), Size: m.edge.Size(), Root: m.edge.Root()}
	note, err := m.key.Sign(c)
	return audit.Head{Origin: c.Origin, Size: c.Size, Checkpoint: string(note), Key: string(m.key.Public.File)}, err
}

// Events implements audit.Source.
func (m *memory) Events(_ context.Context, from, to int64, fn func([]byte) error) error {
	for _, raw := range m.events[from-1 : to] {
		if err := fn(raw); err != nil {
			return err
		}
	}
	return nil
}
