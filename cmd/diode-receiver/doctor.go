// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"sluice/internal/cli"
	"sluice/internal/doctor"
	"sluice/internal/receiver"
	"sluice/internal/strictyaml"
)

func doctorCommand(s cli.Streams) *cobra.Command {
	var config string
	var asJSON bool
	var ask doctorFlags
	c := &cobra.Command{
		Use: "doctor", Short: "Check this host's tuning for the link, and say what mends it", Args: cli.Args(cobra.NoArgs),
		Long: `Check interface, socket, disk and clock of this host against the configuration. What is not ok stands with the command that mends it.
Nothing is changed; a file of 64 MiB at most is written below the state directory to measure the disk, and is gone afterwards.

What the sender does is not in a receiver's configuration: --rate and --mtu tell it. Exit status 1 means that a check failed;
warnings and what could not be checked leave it 0.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := receiver.LoadConfig(config)
			if err != nil {
				return cli.Usage(err)
			}
			want, err := ask.want(cfg)
			if err != nil {
				return cli.Usage(err)
			}
			return doctor.Report(s.Out, doctor.Receiver(doctor.ReadReceiver(cmd.Context(), want), want), asJSON)
		},
	}
	configFlag(c, &config)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&ask.device, "interface", "", "the diode's interface (default: the one that has the address of link.listen)")
	c.Flags().Var(&ask.rate, "rate", "the sender's link.rate, such as 900Mbit")
	c.Flags().IntVar(&ask.mtu, "mtu", 0, "the sender's link.mtu: 1500 or 9000")
	return c
}

// doctorFlags is what a receiver's configuration does not say about the link.
type doctorFlags struct {
	device string
	rate   strictyaml.BitRate
	mtu    int
}

// want joins flags and configuration.
func (d doctorFlags) want(cfg receiver.Config) (doctor.Want, error) {
	if d.mtu != 0 && d.mtu != 1500 && d.mtu != 9000 {
		return doctor.Want{}, fmt.Errorf("--mtu: %d is neither 1500 nor 9000", d.mtu)
	}
	listen, err := netip.ParseAddrPort(cfg.Link.Listen)
	if err != nil {
		return doctor.Want{}, fmt.Errorf("link.listen: %w", err)
	}
	return doctor.Want{
		Address: listen, Interface: d.device, Buffer: int64(cmp.Or(cfg.Link.ReceiveBuffer, receiver.DefaultConfig().Link.ReceiveBuffer)),
		Rate: int64(d.rate), MTU: d.mtu, State: cfg.State,
	}, nil
}
