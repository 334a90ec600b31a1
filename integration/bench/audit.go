// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"sluice/internal/audit"
	"sluice/internal/journal"
	"sluice/internal/merkle"
	"sluice/pkg/mofn"
)

// auditName begins the names of the results of audits.
const auditName = "audit/"

// auditEvents is how many events the judged log has, and auditBar how long it may take.
const (
	auditEvents = 100_000
	auditBar    = 5
)

// audit measures how long `audit verify` takes, from the start of the process to its page.
func (b *bench) audit(ctx context.Context) error {
	secret, err := mofn.GenerateSecret(rand.Reader, mofn.SuiteH1, "bench")
	if err != nil {
		return err
	}
	key, err := audit.NewLogKey(secret)
	if err != nil {
		return err
	}
	src := &longLog{key: key}
	for range auditEvents {
		if err := src.add(); err != nil {
			return err
		}
	}
	if _, err := audit.Export(ctx, src, audit.Files{First: b.Path("trust.json")}, b.Path("audit")); err != nil {
		return err
	}
	began := time.Now()
	_, used, err := b.Measure(ctx, "diode-receiver", "audit", "verify", b.Path("audit"))
	if err != nil {
		return err
	}
	took := time.Since(began).Seconds()
	fmt.Printf("audit verify of %d events: %.2f s, CPU %.2f s, RSS %d MiB\n", auditEvents, took, used.CPU.Seconds(), used.RSS/mib)
	params := map[string]any{"events": auditEvents, "cpus": runtime.NumCPU()}
	b.results = append(b.results,
		result{auditName + "verify", took, "s", params, []beside{{"bar", auditBar, "s"}}},
		result{auditName + "verify CPU", used.CPU.Seconds(), "s", params, []beside{}},
		result{auditName + "verify RSS", float64(used.RSS) / mib, "MiB", params, []beside{}})
	return nil
}

// longLog is a log in memory: a journal would sync each event to the disk. It implements [audit.Source].
type longLog struct {
	key    *audit.LogKey
	events [][]byte
	edge   merkle.Frontier
}

func (l *longLog) add() error {
	n := len(l.events)
	e := journal.Event{
		Seq: uint64(n) + 1, Time: time.Unix(1_770_000_000+int64(n), 0), Actor: "diode-receiver rx-1", Action: "ticket", Job: fmt.Sprintf("%064x", n%500),
		Release: fmt.Sprintf("%064x", n%500), Detail: fmt.Sprintf("%d bytes: 12 source and 40 repair symbols asked for", n),
	}
	if n > 0 {
		e.Prev = fmt.Sprintf("%x", sha256.Sum256(l.events[n-1]))
	}
	raw, err := e.Encode()
	if err != nil {
		return err
	}
	l.events = append(l.events, raw)
	l.edge.Append(tlog.RecordHash(raw))
	return nil
}

// Head implements [audit.Source].
func (l *longLog) Head(context.Context) (audit.Head, error) {
	c := audit.Checkpoint{Origin: audit.Origin(audit.High, "rx-1"), Size: l.edge.Size(), Root: l.edge.Root()}
	note, err := l.key.Sign(c)
	return audit.Head{Origin: c.Origin, Size: c.Size, Checkpoint: string(note), Key: string(l.key.Public.File)}, err
}

// Events implements [audit.Source].
func (l *longLog) Events(_ context.Context, from, to int64, fn func([]byte) error) error {
	for _, raw := range l.events[from-1 : to] {
		if err := fn(raw); err != nil {
			return err
		}
	}
	return nil
}
