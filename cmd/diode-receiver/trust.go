// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"sluice/internal/admin"
	"sluice/internal/cli"
	"sluice/internal/receiver"
)

// trustCommand is `trust` with what only a receiver has: a quarantine that a person may end, and a second place.
func trustCommand(s cli.Streams) *cobra.Command {
	c := cli.TrustCommand(s, nil)
	c.AddCommand(trustConfirm(s), trustAcceptRestored(s))
	return c
}

func trustConfirm(s cli.Streams) *cobra.Command {
	var config string
	c := &cobra.Command{
		Use: "confirm FINGERPRINT", Short: "Put the next trust object into effect now, without waiting out its quarantine", Args: cli.Args(cobra.ExactArgs(1)),
		Long: `Put the next trust object into effect now. It verified already; the quarantine is there so that a stop can overtake it. Compare the
fingerprint with the paper record of its ceremony, with a second person. The daemon must not be running.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withReceiver(cmd.Context(), s, config, func(_ context.Context, r *receiver.Receiver) error {
				if err := r.ConfirmTrust(args[0]); err != nil {
					return verdict(err)
				}
				return printSite(s, r.Site())
			})
		},
	}
	configFlag(c, &config)
	return c
}

func trustAcceptRestored(s cli.Streams) *cobra.Command {
	var config string
	c := &cobra.Command{
		Use: "accept-restored", Short: "Accept a state that is older than the second place remembers, after a backup was restored", Args: cli.Args(cobra.NoArgs),
		Long: `Accept the state as it is. It has forgotten what came after the backup: releases may be taken a second time, and orders that stopped or
revoked something are gone until the next bulletin brings them. Do it only when you know why. The log says that it was done.`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			cfg, err := receiver.LoadConfig(config)
			if err != nil {
				return cli.Usage(err)
			}
			log, err := admin.NewLogger("error", s.Err, false)
			if err != nil {
				return cli.Usage(err)
			}
			r, err := receiver.Open(cmd.Context(), cfg, receiver.Options{Logger: log, AcceptRestored: true})
			if err != nil {
				return err
			}
			defer cli.CloseInto(&err, r)
			_, err = fmt.Fprintf(s.Out, "%s: the second place follows this state now\n", cfg.Trust.SecondPlace)
			return err
		},
	}
	configFlag(c, &config)
	return c
}
