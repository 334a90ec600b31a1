// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"sluice/internal/cli"
	"sluice/internal/console"
	"sluice/internal/link"
	"sluice/internal/packer"
	"sluice/internal/strictyaml"
)

const (
	// calibrateFrom and calibrateUntil are the ramp unless flags say otherwise: what an old and a fast link take.
	calibrateFrom  = 100_000_000
	calibrateUntil = 10_000_000_000
	// calibrateSeconds is how long a step takes: longer than any stall of a healthy host.
	calibrateSeconds = 2
)

// calibrateFlags are those of send, and the ramp.
type calibrateFlags struct {
	sendFlags
	from, until strictyaml.BitRate
	seconds     float64
}

func calibrateCommand(s cli.Streams) *cobra.Command {
	f := calibrateFlags{sendFlags: sendFlags{cfg: packer.DefaultConfig().Link, repair: 10}, from: calibrateFrom, until: calibrateUntil, seconds: calibrateSeconds}
	c := &cobra.Command{
		Use: "calibrate", Short: "Fill the link at rising rates, so that the receiver can tell where it begins to drop", Args: cli.Args(cobra.NoArgs),
		Long: `Send authenticated heartbeats at one rate after another, each a quarter faster than the one before, and no release. What arrives,
diode-receiver calibrate shows on the other side: start it first. It ends with the rate to write into link.rate.

The link is full meanwhile: do not calibrate while a release is on it. The ramp ends early when this host cannot send any faster.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.calibrate(cmd.Context(), s) },
	}
	trustFlags(c, &f.object, &f.fingerprint)
	c.Flags().StringVar(&f.key, "link-key", "", "the link key file (required)")
	c.Flags().StringVar(&f.pass, "passphrase-file", "", "file whose first line is its passphrase (required)")
	c.Flags().StringVar(&f.cfg.Receiver, "receiver", "", "receiver id of the trust object (required)")
	c.Flags().StringVar(&f.cfg.Address, "to", "", "address and port of the diode's input (required)")
	c.Flags().IntVar(&f.cfg.MTU, "mtu", f.cfg.MTU, "1500 or 9000")
	c.Flags().StringVar(&f.cfg.GSO, "gso", f.cfg.GSO, "auto, on or off")
	c.Flags().Var(&f.from, "from", "rate of the first step")
	c.Flags().Var(&f.until, "until", "rate of the last step")
	c.Flags().Float64Var(&f.seconds, "step-seconds", f.seconds, "how long each rate is held, 0.2 to 60")
	return cli.Require(c, "trust", "fingerprint", "link-key", "passphrase-file", "receiver", "to")
}

func (f *calibrateFlags) calibrate(ctx context.Context, s cli.Streams) (err error) {
	ramp := link.Calibration{From: int64(f.from), Until: int64(f.until), Step: time.Duration(f.seconds * float64(time.Second))}
	rates, err := ramp.Rates()
	if err != nil {
		return cli.Usage(fmt.Errorf("--from, --until, --step-seconds: %w", err))
	}
	f.rate = f.until.String()
	st, key, err := f.load()
	if err != nil {
		return err
	}
	conns, err := packer.Dial(ctx, f.cfg, zap.NewNop())
	if err != nil {
		return err
	}
	defer cli.CloseInto(&err, conns)
	sender, err := packer.NewSender(f.cfg, st, conns, key, packer.SenderOptions{Logger: zap.NewNop()})
	if err != nil {
		return cli.Usage(err)
	}
	fmt.Fprintf(s.Out, "%d steps of %v, %s to %s, at MTU %d; diode-receiver calibrate shows what arrives\n", len(rates), ramp.Step,
		console.BitRate(float64(f.from)), console.BitRate(float64(f.until)), f.cfg.MTU)
	err = sender.Calibrate(ctx, ramp, func(step link.SentStep) { fmt.Fprint(s.Out, sentLine(step)) })
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("stopped before the last step: %w", err)
	}
	return err
}

// sentLine is a step as this side sees it.
func sentLine(s link.SentStep) string {
	line := fmt.Sprintf("step %2d  %12s  sent %12s  %9d datagrams", s.Number, console.BitRate(float64(s.Rate)), console.BitRate(s.Reached), s.Sent)
	if s.Failed > 0 {
		line += fmt.Sprintf("  %d not taken by this host's kernel", s.Failed)
	}
	if s.Short {
		line += "  this host cannot send faster: the ramp ends here"
	}
	return line + "\n"
}
