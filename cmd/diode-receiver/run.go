// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"sluice/internal/admin"
	"sluice/internal/cli"
	"sluice/internal/receiver"
)

func runCommand(s cli.Streams) *cobra.Command {
	var config string
	var progress bool
	c := &cobra.Command{
		Use: "run", Short: "Run the daemon", Args: cli.Args(cobra.NoArgs), Long: "Run the daemon until SIGTERM.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := receiver.LoadConfig(config)
			if err != nil {
				return cli.Usage(err)
			}
			if err := receiver.Check(cfg); err != nil { // a wrong configuration must not come back every few seconds
				return cli.Usage(err)
			}
			return runDaemon(cmd.Context(), s, cfg, progress)
		},
	}
	configFlag(c, &config)
	c.Flags().BoolVar(&progress, "progress", false, "draw a progress bar on stderr (for a terminal, not for a service)")
	return c
}

// defaultConfig is where the packages of this module put the configuration.
const defaultConfig = "/etc/sluice/diode-receiver.yaml"

func configFlag(c *cobra.Command, config *string) {
	c.Flags().StringVar(config, "config", defaultConfig, "configuration file")
}

// runDaemon builds everything by hand, runs it, and closes it in the opposite order. The sockets come first, so that what the
// link brings while the rest starts waits in the kernel.
func runDaemon(ctx context.Context, s cli.Streams, cfg receiver.Config, progress bool) (err error) {
	limitMemory(daemonMemory)
	log, err := admin.NewLogger(cfg.Log.Level, s.Err, cfg.Log.Format == "json")
	if err != nil {
		return cli.Usage(err)
	}
	sockets, err := listen(ctx, cfg, log.Named("link"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeAll(sockets)) }()
	reg := admin.NewRegistry(cli.Version(version))
	stages := cli.NewStages(s.Err, "high")
	opt := receiver.Options{Logger: log.Named("receiver"), Registerer: reg, Version: cli.Version(version)}
	if progress {
		opt.Progress = stages.Update
		defer stages.Close()
	}
	r, err := receiver.Open(ctx, cfg, opt)
	if err != nil {
		return err
	}
	defer cli.CloseInto(&err, r)
	if err := r.StartFront(ctx, sockets, frontArguments(cfg), reg); err != nil {
		return err
	}
	if err := r.Resume(ctx); err != nil {
		return err
	}
	return serve(ctx, cfg, log, reg, r)
}

// The soft limits of the two processes: the collector works more often before they grow beyond. The daemon's largest is the envelope
// of a release of 100,000 files, of which it holds 110 MiB at a time; the front's are the buffers of its sockets, 2 MiB of
// which are touched where datagrams come in aggregates, and 8 at most.
const (
	daemonMemory = 144 << 20
	frontMemory  = 80 << 20
)

// limitMemory sets a soft limit, unless GOMEMLIMIT does.
func limitMemory(bytes int64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(bytes)
	}
}

func serve(ctx context.Context, cfg receiver.Config, log *zap.Logger, reg *prometheus.Registry, r *receiver.Receiver) error {
	page := cli.AuditPage{Log: r.Audit()}
	srv, err := admin.Listen(ctx, admin.Options{Addr: cfg.Admin.Listen, Registry: reg, Status: r.Status, Ticket: r.Ticket, Ready: r.Ready, Audit: page.Head, AuditEvents: page.Events, Logger: log.Named("admin")})
	if err != nil {
		return err
	}
	g, work := errgroup.WithContext(ctx)
	g.Go(func() error { return srv.Serve(work) })
	g.Go(func() error { return r.Run(work) })
	g.Go(func() error { return admin.Watchdog(work, r.Healthy) })
	if err := admin.NotifyReady("receiving on " + cfg.Link.Listen.String()); err != nil {
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
