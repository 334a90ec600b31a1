// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"sluice/internal/admin"
	"sluice/internal/cli"
	"sluice/internal/console"
	"sluice/internal/packer"
)

func runCommand(s cli.Streams) *cobra.Command {
	var config string
	var progress bool
	c := &cobra.Command{
		Use: "run", Short: "Run the daemon", Args: cli.Args(cobra.NoArgs), Long: "Run the daemon until SIGTERM.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := packer.LoadConfig(config)
			if err != nil {
				return cli.Usage(err)
			}
			if err := packer.Check(cfg); err != nil { // a wrong configuration must not come back every few seconds
				return cli.Usage(err)
			}
			return runDaemon(cmd.Context(), s, cfg, progress)
		},
	}
	configFlag(c, &config)
	c.Flags().BoolVar(&progress, "progress", false, "draw a progress bar on stderr (for a terminal, not for a service)")
	return cli.Require(c, "config")
}

// defaultConfig is where the packages of this module put the configuration.
const defaultConfig = "/etc/sluice/bastion-packer.yaml"

func configFlag(c *cobra.Command, config *string) {
	c.Flags().StringVar(config, "config", defaultConfig, "configuration file")
}

// runDaemon builds everything by hand, runs it, and closes it in the opposite order.
func runDaemon(ctx context.Context, s cli.Streams, cfg packer.Config, progress bool) (err error) {
	log, err := admin.NewLogger(cfg.Log.Level, s.Err, cfg.Log.Format == "json")
	if err != nil {
		return cli.Usage(err)
	}
	reg := admin.NewRegistry(cli.Version(version))
	opt := packer.Options{Logger: log.Named("packer"), Registerer: reg, Version: cli.Version(version)}
	stages := cli.NewStages(s.Err, console.Low)
	if progress {
		opt.Progress = stages.Update
		defer stages.Close()
	}
	p, err := packer.Open(ctx, cfg, opt)
	if err != nil {
		return err
	}
	defer cli.CloseInto(&err, p)
	page := cli.AuditPage{Log: p.Audit()}
	srv, err := admin.Listen(ctx, admin.Options{Addr: cfg.Admin.Listen, Registry: reg, Status: p.Status, Ready: p.Ready, Audit: page.Head, AuditEvents: page.Events, Logger: log.Named("admin")})
	if err != nil {
		return err
	}
	g, work := errgroup.WithContext(ctx)
	g.Go(func() error { return srv.Serve(work) })
	g.Go(func() error { return p.Run(work) })
	g.Go(func() error { return admin.Watchdog(work, p.Healthy) })
	if err := admin.NotifyReady("packing"); err != nil {
		log.Warn("sd_notify", zap.Error(err))
	}
	<-work.Done()
	if err := admin.NotifyStopping(); err != nil {
		log.Warn("sd_notify", zap.Error(err))
	}
	if err := g.Wait(); err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	return nil
}
