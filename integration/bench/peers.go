// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"sluice/integration/lab"
	"sluice/internal/strictyaml"
)

// peer is another one-way program, as it is sent with the settings that served it best where it was measured.
type peer struct {
	name     string
	programs []string // all must be on the PATH
	send     func(b *bench, ctx context.Context, in, out string) (peerResult, error)
}

type peerResult struct {
	settings string
	elapsed  time.Duration
	cpu      time.Duration // both ends
}

func peerTable() []peer {
	return []peer{
		{"udpcast", []string{"udp-sender", "udp-receiver"}, (*bench).udpcast},
		{"lidi", []string{"diode-send", "diode-receive", "diode-send-file", "diode-receive-file"}, nil},
		{"pydiode", []string{"pydiode"}, nil},
		{"godiode", []string{"godiode"}, nil},
	}
}

// peers sends one file of the size that is compared with every peer that is installed.
func (b *bench) peers(ctx context.Context) error {
	var found []peer
	for _, p := range peerTable() {
		switch {
		case !installed(p.programs):
			fmt.Printf("%-52s not on the PATH: not measured\n", p.name)
		case p.send == nil:
			fmt.Printf("%-52s installed, and this program does not know how to drive it: not measured\n", p.name)
		case b.place.diode == nil:
			fmt.Printf("%-52s needs network namespaces (root): not measured\n", p.name)
		default:
			found = append(found, p)
		}
	}
	if len(found) == 0 {
		return nil
	}
	s := setup{size: b.opt.size, files: 1}
	dir, _, err := b.release(ctx, s)
	if err != nil {
		return err
	}
	for _, p := range found {
		if err := b.peer(ctx, p, s.size, filepath.Join(dir, "payload", "data.safetensors")); err != nil {
			return err
		}
	}
	return nil
}

func installed(programs []string) bool {
	for _, p := range programs {
		if _, err := exec.LookPath(p); err != nil {
			return false
		}
	}
	return true
}

// peer measures one. That its file did not arrive is a result, and no failure of the benchmark.
func (b *bench) peer(ctx context.Context, p peer, size strictyaml.Bytes, in string) error {
	out := b.Path("peer.out")
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	r, err := p.send(b, ctx, in, out)
	same := false
	if err == nil {
		same, err = sameBytes(in, out)
	}
	if rm := os.Remove(out); err == nil && !errors.Is(rm, os.ErrNotExist) {
		err = rm
	}
	label := p.name + " " + r.settings
	if err != nil || !same {
		fmt.Printf("%-52s LOST: %v\n", label, err)
		return nil
	}
	gib := float64(size) / (1 << 30)
	rate, cpu := float64(size)*8/1e9/r.elapsed.Seconds(), r.cpu.Seconds()/gib
	fmt.Printf("%-52s %5.2f Gbit/s   CPU-s/GiB, both ends: %.2f\n", label, rate, cpu)
	params := map[string]any{"bytes": int64(size), "peer": p.name, "settings": r.settings, "link": b.place.name}
	b.results = append(b.results,
		result{"peer/goodput", rate, "Gbit/s", params, []beside{}},
		result{"peer/CPU, both ends", cpu, "s/GiB", params, []beside{}})
	return nil
}

func sameBytes(a, b string) (bool, error) {
	one, err1 := digest(a)
	two, err2 := digest(b)
	return bytes.Equal(one, two), errors.Join(err1, err2)
}

func digest(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return h.Sum(nil), err
}

// udpcast needs broadcast, with addresses and a resolution that the diode does without; it takes no rate from the link, and overruns
// the receiver above some 900 Mbit/s.
func (b *bench) udpcast(ctx context.Context, in, out string) (r peerResult, err error) {
	r.settings = "--async --max-bitrate 900m --fec 8x8/128"
	for _, end := range [][3]string{{b.place.low(), "10.98.0.1", "low0"}, {b.place.high(), "10.98.0.2", "high0"}} {
		for _, line := range []string{"link set DEV arp on", "addr add ADDR/24 brd + dev DEV label DEV:p"} {
			words := append([]string{"-n", end[0]}, strings.Fields(strings.NewReplacer("ADDR", end[1], "DEV", end[2]).Replace(line))...)
			if msg, err := exec.CommandContext(ctx, "ip", words...).CombinedOutput(); err != nil {
				return r, fmt.Errorf("ip: %w: %s", err, msg)
			}
		}
	}
	binary, args := command(b.place.high(), "udp-receiver", "--nokbd", "--file", out, "--interface", "high0:p", "--portbase", "9100", "--start-timeout", "20")
	high := exec.CommandContext(ctx, binary, args...)
	var said bytes.Buffer
	high.Stderr = &said
	if err := high.Start(); err != nil {
		return r, err
	}
	<-time.After(time.Second) // it has nothing that says when it listens
	began := time.Now()
	line := append([]string{"udp-sender", "--nokbd", "--file", in, "--interface", "low0:p", "--portbase", "9100", "--autostart", "1"}, strings.Fields(r.settings)...)
	binary, args = command(b.place.low(), line...)
	low := exec.CommandContext(ctx, binary, args...)
	err = low.Run()
	if herr := high.Wait(); herr != nil {
		err = errors.Join(err, fmt.Errorf("receiver: %w: %s", herr, lab.LastLines(strings.ReplaceAll(said.String(), "\r", "\n"), 2)))
	}
	r.elapsed = time.Since(began)
	for _, state := range []*os.ProcessState{low.ProcessState, high.ProcessState} {
		r.cpu += state.UserTime() + state.SystemTime()
	}
	return r, err
}
