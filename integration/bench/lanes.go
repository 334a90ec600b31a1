// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// laneRates are those of each lane, to try: what two of them make together is to be within what this machine can do.
const laneRates = "1Gbit,500Mbit,250Mbit"

// lanesName begins the names of the results of lanes.
const lanesName = "lanes/"

// lanes measures the same release over one lane and over two, each paced at the same rate.
func (b *bench) lanes(ctx context.Context) error {
	var lastErr error
	for rate := range strings.SplitSeq(laneRates, ",") {
		if lastErr = b.lanesAt(ctx, rate); lastErr == nil {
			return nil
		}
		fmt.Printf("  lanes at %s: %v\n", rate, lastErr)
	}
	return fmt.Errorf("lanes: no rate of %s was low enough: %w", laneRates, lastErr)
}

func (b *bench) lanesAt(ctx context.Context, rate string) error {
	var found [mostLanes]measured
	for i := range found {
		m, err := b.transfer(ctx, laneSetup(b.opt, i+1), rate)
		if err != nil {
			return err
		}
		found[i] = m
	}
	one, two := found[0], found[1]
	for i, m := range found {
		s := laneSetup(b.opt, i+1)
		fmt.Printf("%-52s %5.2f Gbit/s at %-8s %.2f times one lane   CPU-s/GiB: send %.2f + receive %.2f   RSS %d and %d MiB\n",
			s.label(), m.goodput/1e9, rate, m.goodput/one.goodput, m.sender.Seconds()/s.gib(), m.receiver.Seconds()/s.gib(), m.senderRSS/mib, m.receiverRSS/mib)
	}
	s := laneSetup(b.opt, mostLanes)
	params := s.params(b.place.name, rate)
	add := func(name string, value, beside1 float64, unit string) {
		b.results = append(b.results, result{lanesName + name, value, unit, params, []beside{{"one lane at the same rate", beside1, unit}}})
	}
	add("goodput, two lanes", two.goodput/1e9, one.goodput/1e9, "Gbit/s")
	add("CPU, both ends", (two.sender+two.receiver).Seconds()/s.gib(), (one.sender+one.receiver).Seconds()/s.gib(), "s/GiB")
	add("sender RSS", float64(two.senderRSS)/mib, float64(one.senderRSS)/mib, "MiB")
	add("receiver RSS", float64(two.receiverRSS)/mib, float64(one.receiverRSS)/mib, "MiB")
	return nil
}

// laneSetup is the release of the comparison over so many lanes.
func laneSetup(o options, lanes int) setup {
	return setup{size: o.size, files: 1, mtu: 1500, repair: 10, gso: "auto", rates: laneRates, lanes: lanes}
}

// only measures some rows and puts their results, whose names begin so, in the place of the earlier ones.
func (b *bench) only(ctx context.Context, names string, rows func(context.Context) error) error {
	old, err := os.ReadFile(b.opt.out)
	if err != nil {
		return err
	}
	var kept []result
	if err := json.Unmarshal(old, &kept); err != nil {
		return fmt.Errorf("%s: %w", b.opt.out, err)
	}
	for _, r := range kept {
		if !strings.HasPrefix(r.Name, names) {
			b.results = append(b.results, r)
		}
	}
	if err := rows(ctx); err != nil {
		return err
	}
	return write(b.opt.out, b.results)
}
