// SPDX-License-Identifier: Apache-2.0

// Command diode-receiver is the high side of Sluice: it receives releases from a one-way link or from media, verifies everything,
// holds, and publishes.
//
// `run` is the daemon; every other verb does one of its stages once, on the same code.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"sluice/internal/cli"
)

// version is stamped at link time.
var version string

func main() { os.Exit(cli.Main(root)) }

func root(s cli.Streams) *cobra.Command {
	return cli.Group("diode-receiver", "The high side of Sluice: receive, verify, hold, publish",
		runCommand(s), checkCommand(s), doctorCommand(s), calibrateCommand(s), statusCommand(s), verifyCommand(s), cli.VersionCommand(s, cli.Version(version)),
		importCommand(s), confirmCommand(s), recvCommand(s), ticketCommand(s), listCommand(s), fsckCommand(s), cli.AuditCommand(s, defaultConfig, openAudit), cli.KeysCommand(s, nil), trustCommand(s), cli.HalvesCommand(s))
}
