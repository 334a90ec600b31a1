// SPDX-License-Identifier: Apache-2.0

// Command bench measures transfers with the real binaries, both ends on this machine: goodput in one pass, CPU seconds per GiB of each
// end and the peaks of memory, for both packet sizes, with and without the kernel's offload, beside a raw UDP blast over the same link
// in the same run, and beside the one-way peers that are installed. Figures of another machine, or of another run, are not comparable:
// read the ratio.
//
//	place.go     a one-way veth pair between two namespaces, or loopback
//	setup.go     the rows
//	release.go   payloads, sealed once
//	transfer.go  one transfer, measured
//	machine.go   how fast one core is today
//	lanes.go     one lane beside two
//	blast.go     what the sockets alone carry
//	peers.go     the others
//	drive.go     how each of them is driven
//	compare.go   sets of binaries, in turn
//	results.go   the table, and bench/results.json
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"sluice/integration/lab"
	"sluice/internal/strictyaml"
)

type options struct {
	bin, out, growth string
	size, large      strictyaml.Bytes
	files            int
	rows             string
	only             string
	compare, row     string
	rate             string
	times            int
}

// bench is one run.
type bench struct {
	lab.Site
	place   place
	opt     options
	sealer  sealer
	sealed  map[string]sealed
	seq     int
	results []result
}

func main() {
	o := options{size: 1 << 30, large: 8 << 30}
	flag.StringVar(&o.bin, "bin", "bin", "directory of the two binaries")
	flag.StringVar(&o.out, "out", "bench/results.json", "file of the results")
	flag.Var(&o.size, "size", "size of the transfers that are compared")
	flag.Var(&o.large, "large", "size of the transfer whose memory is watched; 0: none")
	flag.StringVar(&o.growth, "growth", "", "sizes of a table of growth, as 1GiB,4GiB,16GiB,64GiB; sparse at the low side")
	flag.IntVar(&o.files, "files", 0, "number of small files of one more transfer")
	flag.StringVar(&o.rows, "rows", "", "measure only this and keep the other results: lanes or audit")
	flag.StringVar(&o.only, "only", "", "write nothing but transfers, growth, lanes, audit, peers, or the peer of a name; empty: all")
	flag.StringVar(&o.compare, "compare", "", "measure one row with the binaries of these directories in turn, as bin,/tmp/old, and nothing else")
	flag.StringVar(&o.row, "row", "1500,10,auto", "MTU, percent of repair and GSO of a comparison")
	flag.StringVar(&o.rate, "rate", "7Gbit", "rate of a comparison")
	flag.IntVar(&o.times, "times", 5, "turns of a comparison")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM) // so that nothing is left behind
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

func run(ctx context.Context, o options) (err error) {
	sizes, err := parseSizes(o.growth)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{Site: lab.Site{Bin: o.bin, Dir: dir, Hold: 0}, opt: o, sealed: map[string]sealed{}}
	if b.sealer, err = newSealer(); err != nil {
		return err
	}
	if b.place, err = newPlace(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.place.close(context.WithoutCancel(ctx))) }()
	fmt.Printf("%d CPUs, %s, %s, files on %s\n\n", runtime.NumCPU(), kernel(), b.place.name, dir)
	if err := b.Setup(ctx); err != nil {
		return err
	}
	b.machine()
	if o.compare != "" {
		return b.compare(ctx)
	}
	switch o.rows {
	case "lanes":
		return b.only(ctx, lanesName, b.lanes)
	case "audit":
		return b.only(ctx, auditName, b.audit)
	}
	var rows []setup
	if o.wants("transfers") {
		rows = setups(o.size, o.large)
	}
	if o.wants("growth") {
		rows = append(rows, growth(sizes, o.files)...)
	}
	for _, s := range rows {
		if err := b.row(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s.label(), err)
		}
	}
	if o.wants("lanes") {
		if err := b.lanes(ctx); err != nil {
			return err
		}
	}
	if o.wants("audit") {
		if err := b.audit(ctx); err != nil {
			return err
		}
	}
	if err := b.peers(ctx); err != nil {
		return err
	}
	return write(o.out, b.results)
}

func (o options) wants(what string) bool { return o.only == "" || o.only == what }

func parseSizes(list string) (sizes []strictyaml.Bytes, err error) {
	for word := range strings.SplitSeq(list, ",") {
		if word == "" {
			continue
		}
		var size strictyaml.Bytes
		if err := size.Set(word); err != nil {
			return nil, fmt.Errorf("growth: %w", err)
		}
		sizes = append(sizes, size)
	}
	return sizes, nil
}

func kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown kernel"
	}
	return "Linux " + strings.TrimSpace(string(b))
}

// row measures one setup at the best rate at which one pass is enough, as often as it says, and reports the medians.
func (b *bench) row(ctx context.Context, s setup) (err error) {
	if lack, err := b.lacking(s); err != nil || lack != "" {
		fmt.Printf("%-52s does not fit here: %s\n", s.label(), lack)
		return err
	}
	undo, err := b.place.lay(ctx, s)
	if errors.Is(err, errNoWire) {
		fmt.Printf("%-52s is not measured: %v\n", s.label(), err)
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, undo()) }()
	blast, err := b.rawBlasts(s)
	if err != nil {
		return err
	}
	found, err := b.turns(ctx, s)
	if err != nil {
		return err
	}
	return b.report(s, found, blast)
}

// turns measures a setup at the best rate at which most of its turns arrive.
func (b *bench) turns(ctx context.Context, s setup) ([]measured, error) {
	var found []measured
	for rates := strings.Split(s.rates, ","); ; {
		first, err := b.bestRate(ctx, s, rates)
		if err != nil && len(found) > 0 {
			return found, nil // few turns of a higher rate are more than none of a lower one
		}
		if err != nil {
			return nil, err
		}
		found = []measured{first}
		for range s.turns - 1 {
			m, err := b.transfer(ctx, s, first.rate)
			if err != nil {
				fmt.Printf("  %s at %s: %v\n", s.label(), first.rate, err)
				continue
			}
			found = append(found, m)
		}
		rates = rates[slices.Index(rates, first.rate)+1:]
		if 2*len(found) > s.turns || len(rates) == 0 {
			return found, nil
		}
		fmt.Printf("  %s at %s: %d of %d turns arrived, on to less\n", s.label(), first.rate, len(found), s.turns)
	}
}

// bestRate goes down the rates to the first at which one pass is enough, and on while less brings more: a rate that is more than the
// machine can do arrives by its repair symbols, if at all.
func (b *bench) bestRate(ctx context.Context, s setup, rates []string) (best measured, err error) {
	var lastErr error
	for _, rate := range rates {
		m, err := b.transfer(ctx, s, rate)
		switch {
		case err != nil:
			lastErr = err
			fmt.Printf("  %s at %s: %v\n", s.label(), rate, err)
		case m.goodput <= best.goodput || s.turns == 1:
			return cmp.Or(best, m), nil
		default:
			best = m
		}
	}
	if best.rate == "" {
		return best, fmt.Errorf("no rate of %s was low enough: %w", strings.Join(rates, ", "), lastErr)
	}
	return best, nil
}
