// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"sluice/internal/admin"
	"sluice/internal/cli"
	"sluice/internal/console"
	"sluice/internal/link"
	"sluice/internal/receiver"
)

// calibrateWait is how long a calibration may be waited for: a person starts it on the other side of a wall.
const calibrateWait = 30 * time.Minute

func calibrateCommand(s cli.Streams) *cobra.Command {
	var config string
	var asJSON bool
	o := receiver.WatchOptions{}
	c := &cobra.Command{
		Use: "calibrate", Short: "Show what arrives of bastion-packer calibrate, and at which rate this side begins to drop", Args: cli.Args(cobra.NoArgs),
		Long: `Follow a calibration that bastion-packer calibrate sends: a line a step, and at its end the rate at which datagrams began to be
dropped and what to write into the bastion's link.rate. Start this side first.

While the daemon runs, its counters are read through its admin address, and it goes on receiving. When none runs, this process
listens on link.listen itself, takes no release, and leaves nothing behind.

Exit status 1 means that no calibration was heard.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := receiver.LoadConfig(config)
			if err != nil {
				return cli.Usage(err)
			}
			return calibrate(cmd.Context(), s, cfg, o, asJSON)
		},
	}
	configFlag(c, &config)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON at the end, and nothing before")
	c.Flags().BoolVar(&o.Last, "last", false, "show a calibration that is over already, as long as the daemon remembers it")
	c.Flags().DurationVar(&o.Wait, "wait", calibrateWait, "how long to wait for the first step")
	return c
}

// calibrate asks the daemon, or listens itself when there is none.
func calibrate(ctx context.Context, s cli.Streams, cfg receiver.Config, o receiver.WatchOptions, asJSON bool) error {
	err := follow(ctx, s, o, asJSON, "the daemon's counters", func(ctx context.Context) ([]link.SessionStatus, error) {
		var st receiver.Status
		err := admin.Fetch(ctx, cfg.Admin.Listen, "/status", &st)
		return st.Sessions, err
	})
	if !errors.Is(err, admin.ErrUnreachable) {
		return err
	}
	return measure(ctx, cfg, func(ctx context.Context, m *receiver.Meter) error {
		return follow(ctx, s, o, asJSON, "no daemon answers; listening on "+cfg.Link.Listen.String(), func(context.Context) ([]link.SessionStatus, error) { return m.Status().Sessions, nil })
	})
}

// measure runs fn beside a receiving end of its own, which keeps nothing.
func measure(ctx context.Context, cfg receiver.Config, fn func(context.Context, *receiver.Meter) error) (err error) {
	log := zap.NewNop()
	sockets, err := listen(ctx, cfg, log)
	if err != nil {
		return fmt.Errorf("%w; when systemd holds the socket, start the daemon: systemctl start diode-receiver", err)
	}
	defer func() { err = errors.Join(err, closeAll(sockets)) }()
	name, err := os.MkdirTemp("", "sluice-calibrate-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(name)) }()
	m, err := receiver.NewMeter(ctx, cfg, sockets, frontArguments(cfg), name, log)
	if err != nil {
		return cli.Usage(err)
	}
	defer cli.CloseInto(&err, m)
	return beside(ctx, m, fn)
}

// beside runs the receiving end until fn is done, and cuts fn short when it breaks.
func beside(ctx context.Context, m *receiver.Meter, fn func(context.Context, *receiver.Meter) error) error {
	work, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() {
		defer stop()
		ended <- m.Run(work)
	}()
	err := fn(work, m)
	stop()
	return errors.Join(err, <-ended)
}

// follow prints a calibration as it comes, and its verdict.
func follow(ctx context.Context, s cli.Streams, o receiver.WatchOptions, asJSON bool, source string, sessions func(context.Context) ([]link.SessionStatus, error)) error {
	out := s.Out
	if asJSON {
		out = io.Discard
	}
	lines := 0
	o.Step = func(step receiver.CalibrationStep) {
		if lines++; lines == 1 {
			fmt.Fprintf(out, calibrateRow, "STEP", "SAID", "SENT", "ARRIVED", "DATAGRAMS", "LOST", "SENDER", "BEFORE HOST", "HOST'S SOCKET")
		}
		fmt.Fprint(out, calibrateLine(step))
	}
	o.Waiting = func() { fmt.Fprintf(s.Err, "waiting for bastion-packer calibrate (%s)\n", source) }
	c, err := receiver.Watch(ctx, sessions, o)
	if err != nil {
		return err
	}
	if asJSON {
		return cli.PrintJSON(s.Out, c)
	}
	if !c.Whole {
		fmt.Fprintln(s.Out, "The sender did not say that it is over: what follows is of the steps above.")
	}
	for _, line := range c.Words {
		if _, err := fmt.Fprintln(s.Out, line); err != nil {
			return err
		}
	}
	return nil
}

// calibrateRow are the columns: live, so that their widths are fixed.
const calibrateRow = "%-4s  %12s  %12s  %12s  %12s  %18s  %8s  %18s  %18s\n"

func calibrateLine(c receiver.CalibrationStep) string {
	l := c.Loss
	between := func(low, high uint64) string {
		if low == high {
			return fmt.Sprint(low)
		}
		return fmt.Sprintf("%d to %d", low, high)
	}
	lost := fmt.Sprintf("%d (%.2f %%)", l.Lost, l.Percent)
	arrived := console.BitRate(c.Arrived)
	if c.Behind {
		arrived += " *"
	}
	return fmt.Sprintf(calibrateRow, fmt.Sprint(c.Number), console.BitRate(c.Said), console.BitRate(c.Sent), arrived, fmt.Sprint(l.Sent), lost,
		fmt.Sprint(l.FailedAtSender), between(l.BeforeHost, l.Lost-l.FailedAtSender-l.HostAtLeast), between(l.HostAtLeast, l.HostAtMost))
}
