// SPDX-License-Identifier: Apache-2.0

// Command bench measures a transfer with the real binaries over loopback: goodput, CPU seconds per GiB and the receiver's peak
// memory, beside a raw UDP blast with the same batched sockets in the same run. Figures of another machine, or of another run, are
// not comparable: read the ratio.
//
// It writes bench/results.json: an array of {"name","value","unit","params","beside":[{"name","value","unit"}]}, which every later
// benchmark extends.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"sluice/integration/lab"
	"sluice/internal/console"
	"sluice/internal/strictyaml"
)

// result is one row of results.json.
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

type options struct {
	bin, out, rates string
	size, memory    strictyaml.Bytes
}

func main() {
	o := options{size: 1 << 30, memory: 2 << 30}
	flag.StringVar(&o.bin, "bin", "bin", "directory of the two binaries")
	flag.StringVar(&o.out, "out", "bench/results.json", "file of the results")
	flag.StringVar(&o.rates, "rates", "5Gbit,4Gbit,3Gbit,2Gbit,1Gbit", "rates to try, fastest first, until one pass is enough")
	flag.Var(&o.size, "size", "size of the transfer that is timed")
	flag.Var(&o.memory, "memory", "size of the transfer whose memory is watched")
	flag.Parse()
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{Site: lab.Site{Bin: o.bin, Dir: dir, Hold: 0}, opt: o}
	fmt.Printf("%d CPUs, %s, payload %s and %s on %s\n\n", runtime.NumCPU(), kernel(), o.size, o.memory, dir)
	if err := b.Setup(ctx); err != nil {
		return err
	}
	blast, err := rawBlast(int64(o.size))
	if err != nil {
		return fmt.Errorf("raw blast: %w", err)
	}
	timed, err := b.timed(ctx, blast)
	if err != nil {
		return err
	}
	watched, err := b.watched(ctx)
	if err != nil {
		return err
	}
	results := append(timed, watched)
	for _, r := range results {
		line := fmt.Sprintf("%-34s %10.3f %s", r.Name, r.Value, r.Unit)
		for _, s := range r.Beside {
			line += fmt.Sprintf("   (%s: %.3f %s)", s.Name, s.Value, s.Unit)
		}
		fmt.Println(line)
	}
	return write(o.out, results)
}

func kernel() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown kernel"
	}
	return "Linux " + strings.TrimSpace(string(b))
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

// timed finds the highest rate at which one pass is enough, and reports that transfer.
func (b *bench) timed(ctx context.Context, blast blastResult) ([]result, error) {
	var lastErr error
	for i, rate := range strings.Split(b.opt.rates, ",") {
		m, err := b.transfer(ctx, i+1, int64(b.opt.size), rate)
		if err != nil {
			lastErr = err
			fmt.Printf("%s: %v\n", rate, err)
			continue
		}
		gib := float64(b.opt.size) / (1 << 30)
		params := map[string]any{"bytes": int64(b.opt.size), "mtu": 1500, "rate": rate, "repair_percent": 10, "link": "loopback", "cpus": runtime.NumCPU()}
		return []result{
			{"transfer/goodput", m.goodput / 1e9, "Gbit/s", params, []beside{{"raw UDP blast, same sockets, no code, no seal", blast.goodput / 1e9, "Gbit/s"}}},
			{"transfer/sender CPU", m.sender.CPU.Seconds() / gib, "s/GiB", params, []beside{{"raw UDP blast, both ends", blast.cpu.Seconds() / gib, "s/GiB"}}},
			{"transfer/receiver CPU", m.receiverCPU.Seconds() / gib, "s/GiB", params, []beside{}},
			{"transfer/sender RSS", float64(m.sender.RSS) / (1 << 20), "MiB", params, []beside{}},
			{"transfer/receiver RSS", float64(m.receiverRSS) / (1 << 20), "MiB", params, []beside{{"bar", 256, "MiB"}}},
		}, nil
	}
	return nil, fmt.Errorf("no rate of %s was low enough: %w", b.opt.rates, lastErr)
}

// watched reports the receiver's memory while it takes more.
func (b *bench) watched(ctx context.Context) (result, error) {
	const rate = "1Gbit"
	m, err := b.transfer(ctx, 100, int64(b.opt.memory), rate)
	if err != nil {
		return result{}, err
	}
	params := map[string]any{"bytes": int64(b.opt.memory), "mtu": 1500, "rate": rate, "repair_percent": 10, "link": "loopback"}
	fmt.Printf("receiver peak RSS with %s: %s\n\n", b.opt.memory, console.Bytes(m.receiverRSS))
	return result{"transfer/receiver RSS, larger payload", float64(m.receiverRSS) / (1 << 20), "MiB", params, []beside{{"bar", 256, "MiB"}}}, nil
}

// settleTime is what a sender waits between envelope and payload; it is no part of the goodput.
const settleTime = 300 * time.Millisecond
