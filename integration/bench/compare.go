// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// mostSteal is how much of a measurement the machine under this one may take of each processor, in ticks of 10 ms, before it says little.
const mostSteal = 10

// compare measures one row with several sets of binaries in turn, and prints the medians: two runs at two times say nothing of each other
// on a shared machine. It writes no results.
func (b *bench) compare(ctx context.Context) (err error) {
	s := setup{size: b.opt.size, files: 1, rates: b.opt.rate, turns: b.opt.times}
	if _, err := fmt.Sscanf(b.opt.row, "%d,%d,%s", &s.mtu, &s.repair, &s.gso); err != nil {
		return fmt.Errorf("row %q: want MTU, percent of repair and GSO, as 1500,10,auto: %w", b.opt.row, err)
	}
	undo, err := b.place.lay(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, undo()) }()
	raw, err := b.rawBlasts(s)
	if err != nil {
		return err
	}
	fmt.Printf("raw blast of %s: %.2f Gbit/s\n", s.label(), raw.goodput/1e9)
	bins := strings.Split(b.opt.compare, ",")
	found, quiet := make([][]measured, len(bins)), make([][]measured, len(bins))
	for range b.opt.times {
		for i, bin := range bins {
			b.Bin = bin
			before, err := steal()
			if err != nil {
				return err
			}
			m, err := b.transfer(ctx, s, s.rates)
			if err != nil {
				fmt.Printf("%-24s %v\n", bin, err)
				continue
			}
			after, err := steal()
			if err != nil {
				return err
			}
			fmt.Printf("%-24s %s: %s, steal %d0 ms\n", bin, s.label(), m.words(s), after-before)
			found[i] = append(found[i], m)
			if after-before <= mostSteal {
				quiet[i] = append(quiet[i], m)
			}
		}
	}
	for i, bin := range bins {
		list, which := quiet[i], "turns that lost little to the machine under this one"
		if len(list) == 0 {
			list, which = found[i], "turns, none of them quiet"
		}
		if len(list) == 0 {
			fmt.Printf("no turn arrived: %s %s\n", bin, s.label())
			continue
		}
		fmt.Printf("medians of %d %s: %-24s %s: %s\n", len(list), which, bin, s.label(), medians(list).words(s))
	}
	return nil
}

// words are the figures of a comparison.
func (m measured) words(s setup) string {
	return fmt.Sprintf("%.2f Gbit/s at %s, CPU-s/GiB: send %.2f + receive %.2f, verify and publish %.2f, RSS %d and %d MiB, sealing %.2f GB/s (%.2f CPU-s/GiB at %.1f)", m.goodput/1e9, s.rates,
		m.sender.Seconds()/s.gib(), m.receiver.Seconds()/s.gib(), m.publish.Seconds()/s.gib(), m.senderRSS/mib, m.receiverRSS/mib, m.seal, m.scaled().Seconds()/s.gib(), barSeal)
}

// medians takes the median of each figure.
func medians(list []measured) (m measured) {
	if len(list) == 0 {
		return m
	}
	return measured{
		goodput: median(list, func(m measured) float64 { return m.goodput }), sender: median(list, func(m measured) time.Duration { return m.sender }),
		receiver: median(list, func(m measured) time.Duration { return m.receiver }), publish: median(list, func(m measured) time.Duration { return m.publish }),
		senderRSS: median(list, func(m measured) int64 { return m.senderRSS }), receiverRSS: median(list, func(m measured) int64 { return m.receiverRSS }),
		seal: median(list, func(m measured) float64 { return m.seal }),
	}
}

func median[M any, T cmp.Ordered](list []M, of func(M) T) T {
	values := make([]T, len(list))
	for i, m := range list {
		values[i] = of(m)
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// steal is what the machine under this one took so far, in ticks (proc(5), /proc/stat).
func steal() (int, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b))
	if len(f) < 9 {
		return 0, fmt.Errorf("/proc/stat begins with %d fields", len(f))
	}
	return strconv.Atoi(f[8])
}
