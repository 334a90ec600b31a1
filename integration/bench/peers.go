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

	"sluice/internal/strictyaml"
)

// peer is another one-way program.
type peer struct {
	name     string
	programs []string // all must be on the PATH
	settings []string // to try, the fastest first, until one brings the file: what served it best where it was measured
	send     func(f *flow, settings []string) error
}

func peerTable() []peer {
	return []peer{
		{"lidi", []string{"diode-send", "diode-receive", "diode-send-file", "diode-receive-file"}, []string{
			"mtu 9000 batch 64", "mtu 9000 batch 64 tbf 3gbit", "mtu 9000 batch 64 tbf 2gbit",
		}, (*flow).lidi},
		{"lidi", []string{"diode-send", "diode-receive", "diode-send-file", "diode-receive-file"}, []string{
			"mtu 1500 batch 64", "mtu 1500", "mtu 1500 batch 64 tbf 1500mbit", "mtu 1500 batch 64 tbf 1gbit",
		}, (*flow).lidi},
		{"udpcast", []string{"udp-sender", "udp-receiver"}, []string{
			"--max-bitrate 2000m --fec 8x8/128", "--max-bitrate 900m --fec 8x8/128", "--max-bitrate 600m --fec 8x8/128", "--max-bitrate 300m --fec 8x8/128",
		}, (*flow).udpcast},
		{"godiode", []string{"godiode"}, []string{"-packetsize 8972 -bw 2000", "-packetsize 8972 -bw 1500", "-packetsize 8972 -bw 1000", "-packetsize 8972 -bw 600"}, (*flow).godiode},
		{"godiode", []string{"godiode"}, []string{"-packetsize 1472 -bw 800", "-packetsize 1472 -bw 650", "-packetsize 1472 -bw 500", "-packetsize 1472 -bw 300"}, (*flow).godiode},
		{"pydiode", []string{"pydiode"}, []string{
			"--max-bitrate 1000000000 --redundancy 1", "--max-bitrate 750000000 --redundancy 1", "--max-bitrate 1000000000 --redundancy 2",
		}, (*flow).pydiode},
	}
}

// peers sends one file of the size that is compared with every peer that is installed.
func (b *bench) peers(ctx context.Context) error {
	var found []peer
	for _, p := range peerTable() {
		switch {
		case !b.opt.wants("peers") && !b.opt.wants(p.name):
		case !installed(p.programs):
			fmt.Printf("%-62s absent: not on the PATH\n", p.name)
		case b.place.diode == nil:
			fmt.Printf("%-62s needs network namespaces (root): not measured\n", p.name)
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
	restore, err := roomForPeers()
	if err != nil {
		return err
	}
	defer restore()
	for _, p := range found {
		for _, settings := range p.settings {
			arrived, err := b.peer(ctx, p, settings, s.size, filepath.Join(dir, "payload", "data.safetensors"))
			if err != nil {
				return err
			}
			if arrived {
				break
			}
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

// roomForPeers gives every socket the receive buffer that lidi's manual wants, which is three times ours: most of the others ask for
// none. The settings are the machine's, so they are put back.
func roomForPeers() (restore func(), err error) {
	const room = "97536000"
	var undo []func()
	restore = func() {
		for _, f := range undo {
			f()
		}
	}
	for _, name := range []string{"rmem_max", "rmem_default", "wmem_max"} {
		file := "/proc/sys/net/core/" + name
		before, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(file, []byte(room), 0)
		}
		if err != nil {
			restore()
			return nil, err
		}
		undo = append(undo, func() { _ = os.WriteFile(file, before, 0) })
	}
	return restore, nil
}

// peer measures one with one of its settings. That its file did not arrive is a result, and no failure of the benchmark.
func (b *bench) peer(ctx context.Context, p peer, settings string, size strictyaml.Bytes, in string) (arrived bool, err error) {
	dir := b.Path("peer")
	// Each changes addresses and routes as it needs them: the next one gets a new link.
	if err := errors.Join(os.MkdirAll(dir, 0o700), b.place.close(ctx)); err != nil {
		return false, err
	}
	if b.place, err = newPlace(ctx); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	f := &flow{bench: b, ctx: ctx, in: in, dir: dir, out: filepath.Join(dir, filepath.Base(in))}
	sendErr := p.send(f, strings.Fields(settings))
	if sendErr == nil {
		sendErr = f.elapsedErr()
	}
	cpu := f.end()
	same := false
	if sendErr == nil {
		same, sendErr = sameBytes(in, f.out)
	}
	if err := os.RemoveAll(dir); err != nil {
		return false, err
	}
	label := p.name + " " + settings
	params := map[string]any{"bytes": int64(size), "peer": p.name, "settings": settings, "link": b.place.name, "arrived": same}
	if !same {
		if sendErr == nil {
			sendErr = errors.New("other bytes than were sent")
		}
		fmt.Printf("%-62s LOST: %s\n", label, strings.ReplaceAll(sendErr.Error(), "\n", " "))
		b.results = append(b.results, result{"peer/goodput", 0, "Gbit/s", params, []beside{}})
		return false, nil
	}
	gib := float64(size) / (1 << 30)
	rate, perGiB := float64(size)*8/1e9/f.elapsed.Seconds(), cpu.Seconds()/gib
	fmt.Printf("%-62s %5.2f Gbit/s   CPU-s/GiB, both ends: %.2f   SHA-256 right\n", label, rate, perGiB)
	b.results = append(b.results,
		result{"peer/goodput", rate, "Gbit/s", params, []beside{}},
		result{"peer/CPU, both ends", perGiB, "s/GiB", params, []beside{}})
	return true, nil
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
