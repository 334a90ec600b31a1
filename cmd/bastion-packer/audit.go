// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"

	"sluice/internal/audit"
	"sluice/internal/cli"
	"sluice/internal/journal"
	"sluice/internal/packer"
)

// openAudit finds the log of a configuration: in the running daemon, which holds the journal, or in the journal when no daemon runs.
func openAudit(_ context.Context, config string) (site cli.AuditSite, err error) {
	cfg, err := packer.LoadConfig(config)
	if err != nil {
		return site, cli.Usage(err)
	}
	site.Trust = cfg.Trust.Object
	log, j, err := packer.OpenAudit(cfg)
	if errors.Is(err, journal.ErrLocked) {
		site.Source, site.Close = cli.AuditDaemon{Addr: cfg.Admin.Listen}, io.NopCloser(nil)
		return site, nil
	}
	if errors.Is(err, audit.ErrNoKey) {
		return site, cli.Usage(err)
	}
	site.Source, site.Close = log, j
	return site, err
}
