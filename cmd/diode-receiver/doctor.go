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
			return doctor.Report(s.Out, doctor.ReceiverLanes(cmd.Context(), want), asJSON)
		},
	}
	configFlag(c, &config)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().StringVar(&ask.device, "interface", "", "the diode's interface (default: the one that has the address of link.listen)")
	c.Flags().Var(&ask.rate, "rate", "the sender's link.rate, such as 900Mbit; that of each lane")
	c.Flags().IntVar(&ask.mtu, "mtu", 0, "the sender's link.mtu: 1500 or 9000")
	return c
}

// doctorFlags is what a receiver's configuration does not say about the link.
type doctorFlags struct {
	device string
	rate   strictyaml.BitRate
	mtu    int
}

// want joins flags and configuration, for each lane.
func (d doctorFlags) want(cfg receiver.Config) (lanes []doctor.Want, err error) {
	if d.mtu != 0 && d.mtu != 1500 && d.mtu != 9000 {
		return nil, fmt.Errorf("--mtu: %d is neither 1500 nor 9000", d.mtu)
	}
	if d.device != "" && len(cfg.Link.Listen) > 1 {
		return nil, fmt.Errorf("--interface: link.listen has %d addresses, each of an interface of its own: leave the flag out", len(cfg.Link.Listen))
	}
	for _, text := range cfg.Link.Listen {
		listen, err := netip.ParseAddrPort(text)
		if err != nil {
			return nil, fmt.Errorf("link.listen: %w", err)
		}
		lanes = append(lanes, doctor.Want{
			Address: listen, Interface: d.device, Buffer: int64(cmp.Or(cfg.Link.ReceiveBuffer, receiver.DefaultConfig().Link.ReceiveBuffer)),
			Rate: int64(d.rate), Total: int64(d.rate) * int64(len(cfg.Link.Listen)), MTU: d.mtu, State: cfg.State,
		})
	}
	return lanes, nil
}
