// SPDX-License-Identifier: Apache-2.0

// Command certify certifies, row by row, that a transfer survives what the link does to it: loss, bursts, blackouts, disorder,
// damage, forgery, replay, and the deaths of either side. Each row is a promise and a number of trials that each either keep it or
// do not; what it writes is the evidence.
//
//	in process   the real Sender, Receiver and spool over linktest's seeded link, in virtual time: a seed repeats a trial
//	on sockets   the real binaries between two network namespaces, with nftables as the fault; needs root, else SKIPPED
//
// Beside what its row is about, every trial holds the ledger against an independent count of every datagram: row I4.
//
//	row.go      what a row is; the table of rows    loss.go outage.go order.go hostile.go peers.go   the trials in process
//	run.go      trials, seeds, verdicts             world.go shelf.go                                what they play in
//	crash.go    the other table: what a crash leaves
//	report.go   Markdown and JSON                   field.go diode.go bursts.go overload.go          the trials on sockets
//
// It writes docs/certification/link.md and link.json, or crash.md and crash.json, and ends with 1 when a row failed.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

// options are the command line.
type options struct {
	table    string        // link or crash; empty: link
	at       string        // the point of every trial of S4 and S5, as SYSCALL:KILL:N or SYSCALL:ERROR:N; empty: by the seed
	rows     string        // names, separated by commas; empty: all
	seed     uint64        // of the first trial of each row
	trials   int           // of each row; 0: what the row says
	scale    float64       // factor of the trials of each row
	soak     time.Duration // of row N7cr
	markdown string        // file; empty: none; perTable: docs/certification/TABLE.md
	json     string        // the same
	bin      string        // directory of the two binaries; empty: the rows on sockets are skipped
	victim   string        // the program that is the victim; empty: this one
	commit   string
}

// perTable stands for the table's own file.
const perTable = "-"

// book is the name of the table.
func (o options) book() string {
	if o.table == "" {
		return "link"
	}
	return o.table
}

// file is the name of a report.
func (o options) file(name, ext string) string {
	if name == perTable {
		return "docs/certification/" + o.book() + ext
	}
	return name
}

func main() {
	if order, isVictim := os.LookupEnv(victimEnv); isVictim {
		os.Exit(victim(order))
	}
	var o options
	flag.StringVar(&o.table, "table", "link", "what is certified: link or crash")
	flag.StringVar(&o.at, "at", "", "the point of the trials of S4 and S5, such as fsync:KILL:12 or openat:EIO:90; by the seed when empty")
	flag.StringVar(&o.rows, "row", "", "rows to certify, such as N1,S3; all when empty")
	flag.Uint64Var(&o.seed, "seed", 1, "seed of the first trial of each row; the next has the next")
	flag.IntVar(&o.trials, "trials", 0, "trials of each row; 0: what the row says")
	flag.Float64Var(&o.scale, "scale", 1, "factor of the trials of each row")
	flag.DurationVar(&o.soak, "soak", 10*time.Minute, "how long row N7cr is on the air; -scale shortens it, to 20s at least")
	flag.StringVar(&o.markdown, "markdown", perTable, "file of the report for people; -: docs/certification/TABLE.md; empty: none")
	flag.StringVar(&o.json, "json", perTable, "file of the report for programs; -: docs/certification/TABLE.json; empty: none")
	flag.StringVar(&o.bin, "bin", "bin", "directory of the two binaries; empty: the rows on sockets are skipped")
	flag.StringVar(&o.commit, "commit", "unknown", "what is certified, for the report")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	// Virtual time (testing/synctest) is given to tests alone. So this program is one: testing.Main runs it, and never returns.
	all := func(string, string) (bool, error) { return true, nil }
	testing.Main(all, []testing.InternalTest{{Name: "certify", F: func(t *testing.T) {
		if err := certify(ctx, t, o, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "certify:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}}}, nil, nil)
}
