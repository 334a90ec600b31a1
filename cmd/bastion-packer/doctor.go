// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"net/netip"

	"github.com/spf13/cobra"

	"sluice/internal/cli"
	"sluice/internal/doctor"
	"sluice/internal/link"
	"sluice/internal/packer"
)

func doctorCommand(s cli.Streams) *cobra.Command {
	var config string
	var asJSON bool
	c := &cobra.Command{
		Use: "doctor", Short: "Check this host's tuning for the link, and say what mends it", Args: cli.Args(cobra.NoArgs),
		Long: `Check disk, socket, offload, route, interface and clock of this host against the configuration. What is not ok stands with the
command that mends it. Nothing is changed; a file of 64 MiB at most is written below the state directory to measure the disk,
and is gone afterwards.

Exit status 1 means that a check failed; warnings and what could not be checked leave it 0.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := packer.LoadConfig(config)
			if err != nil {
				return cli.Usage(err)
			}
			want, err := wanted(cfg)
			if err != nil {
				return cli.Usage(err)
			}
			return doctor.Report(s.Out, doctor.SenderLanes(cmd.Context(), want), asJSON)
		},
	}
	configFlag(c, &config)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// wanted is what a configuration asks of its host, for each lane.
func wanted(cfg packer.Config) (lanes []doctor.Want, err error) {
	gso, err := link.ParseOffload(cfg.Link.GSO)
	if err != nil {
		return nil, fmt.Errorf("link.gso: %w", err)
	}
	for _, lane := range cfg.Link.EachLane() {
		address, err := netip.ParseAddrPort(lane.Address)
		if err != nil {
			return nil, fmt.Errorf("link.address: %w", err)
		}
		lanes = append(lanes, doctor.Want{
			Address: address, Buffer: int64(cmp.Or(cfg.Link.SendBuffer, packer.DefaultConfig().Link.SendBuffer)),
			Rate: int64(lane.Rate), Total: cfg.Link.TotalRate(), MTU: cfg.Link.MTU, GSO: gso, State: cfg.State,
		})
	}
	return lanes, nil
}
