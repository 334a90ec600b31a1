// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// result is one row of results.json: an array of {"name","value","unit","params","beside":[{"name","value","unit"}]}, which every
// later benchmark extends.
type result struct {
	Name   string         `json:"name"`
	Value  float64        `json:"value"`
	Unit   string         `json:"unit"`
	Params map[string]any `json:"params"`
	Beside []beside       `json:"beside"`
}

type beside struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
	Unit  string  `json:"unit"`
}

const mib = 1 << 20

// report prints the medians of a row and keeps them as its results, and the best turn beside.
func (b *bench) report(s setup, found []measured, raw blastResult) error {
	perGiB := func(d time.Duration) float64 { return d.Seconds() / s.gib() }
	m, fastest, least := medians(found), found[0].goodput, found[0].both()
	for _, other := range found {
		fastest, least = max(fastest, other.goodput), min(least, other.both())
	}
	m.rate = found[0].rate
	scaled := median(found, measured.scaled)
	fmt.Printf("%-52s %5.2f Gbit/s at %-8s raw %5.1f Gbit/s   CPU-s/GiB: send %.2f + receive %.2f = %.2f (raw, both: %.2f), verify and publish %.2f   RSS %d and %d MiB",
		s.label(), m.goodput/1e9, m.rate, raw.goodput/1e9, perGiB(m.sender), perGiB(m.receiver), perGiB(m.both()), perGiB(raw.cpu), perGiB(m.publish), m.senderRSS/mib, m.receiverRSS/mib)
	if s.turns > 1 {
		fmt.Printf("   %d of %d turns arrived; the best: %.2f Gbit/s, %.2f CPU-s/GiB", len(found), s.turns, fastest/1e9, perGiB(least))
		fmt.Printf("   a core sealed %.2f GB/s: %.2f CPU-s/GiB at %.1f", m.seal, perGiB(scaled), barSeal)
	}
	fmt.Println()
	const blast = "raw UDP blast, same sockets, no code, no seal, no disk"
	params := s.params(b.place.name, m.rate)
	params["turns"], params["arrived"] = s.turns, len(found)
	add := func(name string, value float64, unit string, besides ...beside) {
		b.results = append(b.results, result{name, value, unit, params, append([]beside{}, besides...)})
	}
	add("transfer/goodput", m.goodput/1e9, "Gbit/s", beside{blast, raw.goodput / 1e9, "Gbit/s"}, beside{"the best turn", fastest / 1e9, "Gbit/s"})
	add("transfer/CPU, both ends", perGiB(m.both()), "s/GiB", beside{blast + ", both ends", perGiB(raw.cpu), "s/GiB"}, beside{"the best turn", perGiB(least), "s/GiB"},
		beside{fmt.Sprintf("where a core seals %.1f GB/s, if all else is in proportion", barSeal), perGiB(scaled), "s/GiB"})
	add("transfer/sealing of a core, just before and after", m.seal, "GB/s", beside{"where the bars were set", barSeal, "GB/s"})
	add("transfer/sender CPU", perGiB(m.sender), "s/GiB")
	add("transfer/receiver CPU", perGiB(m.receiver), "s/GiB")
	add("transfer/verify and publish CPU", perGiB(m.publish), "s/GiB")
	add("transfer/sender RSS", float64(m.senderRSS)/mib, "MiB")
	add("transfer/receiver RSS", float64(m.receiverRSS)/mib, "MiB", beside{"bar", 256, "MiB"})
	return nil
}

func write(name string, results []result) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	j, err := json.MarshalIndent(results, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(j, '\n'), 0o644)
}
