// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"path/filepath"

	"sluice/internal/audit"
	"sluice/internal/cli"
	"sluice/internal/journal"
	"sluice/internal/packer"
)

// openAudit finds the log of a configuration.
func openAudit(_ context.Context, config string) (site cli.AuditSite, err error) {
	cfg, err := packer.LoadConfig(config)
	if err != nil {
		return site, cli.Usage(err)
	}
	files := audit.Files{First: cfg.Trust.Object, State: filepath.Join(cfg.State, "trust")}
	return cli.AuditOf(cfg.Admin.Listen, files, func() (*audit.Log, *journal.Journal, error) { return packer.OpenAudit(cfg) })
}
