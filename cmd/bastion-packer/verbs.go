// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sluice/internal/admin"
	"sluice/internal/cli"
	"sluice/internal/packer"
	"sluice/internal/trust"
)

func checkCommand(s cli.Streams) *cobra.Command {
	var config string
	c := &cobra.Command{
		Use: "check", Short: "Check the configuration and everything it names, and change nothing", Args: cli.Args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := packer.LoadConfig(config)
			if err != nil {
				return cli.Usage(err)
			}
			if err := packer.Check(cfg); err != nil {
				return cli.Usage(err)
			}
			_, err = fmt.Fprintf(s.Out, "%s: ok\n", config)
			return err
		},
	}
	configFlag(c, &config)
	return c
}

func statusCommand(s cli.Streams) *cobra.Command {
	var config string
	var asJSON bool
	c := &cobra.Command{
		Use: "status", Short: "Ask the running daemon what it does", Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := packer.LoadConfig(config)
			if err != nil {
				return cli.Usage(err)
			}
			var st packer.Status
			if err := admin.Fetch(cmd.Context(), cfg.Admin.Listen, "/status", &st); err != nil {
				return err
			}
			if asJSON {
				return cli.PrintJSON(s.Out, st)
			}
			return printStatus(s, st)
		},
	}
	configFlag(c, &config)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printStatus(s cli.Streams, st packer.Status) error {
	rows := [][]string{{"STATE", "STREAM", "SEQ", "NAME", "COMMIT", "RELEASE", "WAITING FOR / ERROR"}}
	for _, j := range st.Jobs {
		why := j.Waiting
		if j.Error != "" {
			why = strings.TrimSpace(why + " " + firstLine(j.Error))
		}
		rows = append(rows, []string{j.State, j.Stream, fmt.Sprint(j.Seq), j.Name, short(j.Commit), short(j.Release), why})
	}
	if err := cli.PrintTable(s.Out, rows); err != nil {
		return err
	}
	for _, line := range slices.Concat(st.Site.Words, st.Link.Words) {
		if _, err := fmt.Fprintln(s.Out, line); err != nil {
			return err
		}
	}
	return nil
}

func short(id string) string { return id[:min(12, len(id))] }

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}

func verifyCommand(s cli.Streams) *cobra.Command {
	var object, fingerprint string
	c := &cobra.Command{
		Use: "verify DIR", Short: "Verify a sealed release: signatures, approvals, every byte", Args: cli.Args(cobra.ExactArgs(1)),
		Long: "Verify a sealed release against a trust object, without any network.",
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := trust.Load(object, fingerprint)
			if err != nil {
				return cli.Usage(err)
			}
			env, err := packer.ReadEnvelope(args[0])
			if err != nil {
				return verdict(err)
			}
			a, err := st.Check(env, trust.Rules{})
			if err != nil {
				return verdict(err)
			}
			if err := packer.VerifySealed(cmd.Context(), args[0], env, nil); err != nil {
				return verdict(err)
			}
			_, err = fmt.Fprintf(s.Out, "ok  release %s\n    approved by %s\n    %d files, every byte\n", env.ID, strings.Join(a.Officers(), ", "), len(env.Statement.Subjects))
			return err
		},
	}
	trustFlags(c, &object, &fingerprint)
	return cli.Require(c, "trust", "fingerprint")
}

// verdict tells a negative verdict from a failure: what could not be verified is not refused.
func verdict(err error) error {
	if packer.Refused(err) {
		return cli.Refused(err)
	}
	return err
}

func trustFlags(c *cobra.Command, object, fingerprint *string) {
	c.Flags().StringVar(object, "trust", "", "file of the trust object (required)")
	c.Flags().StringVar(fingerprint, "fingerprint", "", "its fingerprint, from the paper record (required)")
}
