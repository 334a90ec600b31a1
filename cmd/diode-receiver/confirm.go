// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/internal/admin"
	"sluice/internal/cli"
	"sluice/internal/receiver"
	"sluice/pkg/envelope"
)

func confirmCommand(s cli.Streams) *cobra.Command {
	var config string
	c := &cobra.Command{
		Use: "confirm RELEASE", Short: "Let a release be published here, where the site wants a person to confirm each", Args: cli.Args(cobra.ExactArgs(1)),
		Long: `Let a release be published at a site with "confirm: true". RELEASE is its id, or at least 8 digits of it while the daemon runs and
knows it. The release is published when its hold time is over and nothing else holds it. The audit log says which account confirmed it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := receiver.LoadConfig(config)
			if err != nil {
				return cli.Usage(err)
			}
			id, err := fullID(cmd.Context(), cfg, args[0])
			if err != nil {
				return err
			}
			if err := receiver.Confirm(cfg, id, time.Now()); err != nil {
				return err
			}
			note := ""
			if !cfg.Confirm {
				note = " (the configuration does not ask for it: confirm: false)"
			}
			_, err = fmt.Fprintf(s.Out, "confirmed: release %s%s\n", id, note)
			return err
		},
	}
	configFlag(c, &config)
	return c
}

// fullID finds a release by the beginning of its id.
func fullID(ctx context.Context, cfg receiver.Config, arg string) (envelope.Digest, error) {
	if id, err := envelope.ParseDigest(arg); err == nil {
		return id, nil
	}
	const least = 8
	if len(arg) < least {
		return envelope.Digest{}, cli.Usage(fmt.Errorf("%q: give the release id, or at least %d digits of it", arg, least))
	}
	var st receiver.Status
	if err := admin.Fetch(ctx, cfg.Admin.Listen, "/status", &st); err != nil {
		return envelope.Digest{}, fmt.Errorf("%q is no whole release id, and the daemon does not answer who it is: %w", arg, err)
	}
	var found []string
	for _, r := range st.Releases {
		if strings.HasPrefix(r.Release, arg) {
			found = append(found, r.Release)
		}
	}
	if len(found) != 1 {
		return envelope.Digest{}, cli.Usage(fmt.Errorf("%d releases begin with %q; see diode-receiver status", len(found), arg))
	}
	return envelope.ParseDigest(found[0])
}
