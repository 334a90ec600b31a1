// SPDX-License-Identifier: Apache-2.0

// Command bastion-packer is the low side of Sluice: it mirrors models, inspects and gates them, seals them into envelopes, collects
// the approvals of officers, and sends them over a one-way link.
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
	return cli.Group("bastion-packer", "The low side of Sluice: mirror, inspect, gate, seal, approve, send",
		runCommand(s), checkCommand(s), doctorCommand(s), calibrateCommand(s), statusCommand(s), verifyCommand(s), cli.VersionCommand(s, cli.Version(version)),
		mirrorCommand(s), inspectCommand(s), gateCommand(s), sealCommand(s), officerCommand(s), sendCommand(s), ticketCommand(s),
		cli.AuditCommand(s, defaultConfig, openAudit), cli.KeysCommand(s, tokenKey, tokenCommand(s)), cli.TrustCommand(s, openSigner), cli.HalvesCommand(s))
}
