// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sluice/internal/admin"
	"sluice/internal/cli"
	"sluice/internal/console"
	"sluice/internal/journal"
	"sluice/internal/receiver"
	"sluice/internal/site"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
	"sluice/pkg/registry"
)

func checkCommand(s cli.Streams) *cobra.Command {
	var config string
	c := &cobra.Command{
		Use: "check", Short: "Check the configuration and everything it names, and change nothing", Args: cli.Args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := receiver.LoadConfig(config)
			if err != nil {
				return cli.Usage(err)
			}
			if err := receiver.Check(cfg); err != nil {
				return cli.Usage(err)
			}
			models, err := receiver.ModelSigning(cfg)
			if err != nil {
				return cli.Usage(err)
			}
			_, err = fmt.Fprintf(s.Out, "%s: ok\n%s\n", config, models)
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
			cfg, err := receiver.LoadConfig(config)
			if err != nil {
				return cli.Usage(err)
			}
			var st receiver.Status
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

func printStatus(s cli.Streams, st receiver.Status) error {
	var rows [][]string
	for _, r := range st.Releases {
		arrived := ""
		if r.Symbols > 0 {
			arrived = fmt.Sprintf("%.1f %%", 100*float64(r.Have)/float64(r.Symbols))
		}
		line, _, _ := strings.Cut(r.Error, "\n")
		rows = append(rows, []string{r.State, r.Stream, fmt.Sprint(r.Seq), r.Name, r.Release[:12], console.Bytes(r.Bytes), arrived, line})
	}
	if err := console.Table(s.Out, []string{"STATE", "STREAM", "SEQ", "NAME", "RELEASE", "SIZE", "ARRIVED", "ERROR"}, rows); err != nil {
		return err
	}
	if err := printSite(s, st.Site); err != nil {
		return err
	}
	for _, line := range st.Link.Words {
		if _, err := fmt.Fprintln(s.Out, line); err != nil {
			return err
		}
	}
	return nil
}

// printSite prints what is known of trust.
func printSite(s cli.Streams, st site.Status) error {
	for _, line := range st.Words {
		if _, err := fmt.Fprintln(s.Out, line); err != nil {
			return err
		}
	}
	return nil
}

func importCommand(s cli.Streams) *cobra.Command {
	var config string
	var wait bool
	c := &cobra.Command{
		Use: "import DIR | FILE.bulletin", Short: "Take in a sealed release, or a bulletin, from a medium, on the same path as the link", Args: cli.Args(cobra.ExactArgs(1)),
		Long: `Take in DIR/envelope.sluice and DIR/payload, and DIR/bulletin.sluice before them if it is there: verified, held and published by the
same rules. A file FILE.bulletin brings trust objects, orders and what is current. The daemon must not be running.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return withReceiver(cmd.Context(), s, config, func(ctx context.Context, r *receiver.Receiver) error {
				if strings.HasSuffix(args[0], ".bulletin") {
					if err := r.ImportBulletin(ctx, args[0]); err != nil {
						return verdict(err)
					}
					return printSite(s, r.Site())
				}
				job, err := r.Import(ctx, args[0], wait)
				if err != nil {
					return verdict(err)
				}
				_, err = fmt.Fprintf(s.Out, "%s  %s  %s seq %d  release %s\n", job.State, job.Name, job.Stream, job.Seq, job.Release)
				return err
			})
		},
	}
	configFlag(c, &config)
	c.Flags().BoolVar(&wait, "wait", false, "wait out the hold time of the policy, and publish")
	return c
}

// verdict tells a negative verdict from a failure.
func verdict(err error) error {
	var usage *cli.UsageError
	if errors.As(err, &usage) {
		return err
	}
	var refused *receiver.RefusedError
	if errors.As(err, &refused) || receiver.Classify(err) == receiver.Refused {
		return cli.Refused(err)
	}
	return err
}

// verifyVerdict is verdict for published bytes too: that they are not what was released is an answer, not a failure to look.
func verifyVerdict(err error) error {
	if errors.Is(err, registry.ErrCorrupt) || receiver.Classify(err) == receiver.Broken {
		return cli.Refused(err)
	}
	return verdict(err)
}

// withReceiver opens the receiver's state for one verb.
func withReceiver(ctx context.Context, s cli.Streams, config string, fn func(context.Context, *receiver.Receiver) error) (err error) {
	cfg, err := receiver.LoadConfig(config)
	if err != nil {
		return cli.Usage(err)
	}
	log, err := admin.NewLogger("error", s.Err, false)
	if err != nil {
		return cli.Usage(err)
	}
	stages := cli.NewStages(s.Err, console.High)
	defer stages.Close()
	r, err := receiver.Open(ctx, cfg, receiver.Options{Logger: log, Progress: stages.Update})
	if errors.Is(err, journal.ErrLocked) {
		return fmt.Errorf("%w; stop the daemon first: systemctl stop diode-receiver (its socket keeps what the link brings meanwhile)", err)
	}
	if err != nil {
		return err
	}
	defer cli.CloseInto(&err, r)
	return fn(ctx, r)
}

func listCommand(s cli.Streams) *cobra.Command {
	var config string
	var asJSON, withdrawn bool
	c := &cobra.Command{
		Use: "list", Short: "List what is published, or with --withdrawn what was and why it is no more", Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			cfg, err := receiver.LoadConfig(config)
			if err != nil {
				return cli.Usage(err)
			}
			reg, err := receiver.OpenRegistry(cfg)
			if err != nil {
				return err
			}
			defer cli.CloseInto(&err, reg)
			if withdrawn {
				return listWithdrawn(cmd.Context(), s, reg, asJSON)
			}
			entries, err := reg.List(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return cli.PrintJSON(s.Out, entries)
			}
			return printEntries(s, entries)
		},
	}
	configFlag(c, &config)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVar(&withdrawn, "withdrawn", false, "list what was published and is withdrawn, with the reasons")
	return c
}

func listWithdrawn(ctx context.Context, s cli.Streams, reg registry.Publisher, asJSON bool) error {
	entries, err := reg.ListWithdrawn(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		return cli.PrintJSON(s.Out, entries)
	}
	var rows [][]string
	for _, e := range entries {
		what := "suspended"
		if e.Withdrawal.Final {
			what = "revoked"
		}
		rows = append(rows, []string{
			e.Entry.Name, e.Entry.Stream, fmt.Sprint(e.Entry.Epoch), fmt.Sprint(e.Entry.Seq), e.Entry.Release, what, e.Withdrawal.At, console.Clean(e.Withdrawal.Reason),
		})
	}
	return console.Table(s.Out, []string{"NAME", "STREAM", "EPOCH", "SEQ", "RELEASE", "WITHDRAWN", "SINCE", "REASON"}, rows)
}

func printEntries(s cli.Streams, entries []registry.Entry) error {
	var rows [][]string
	for _, e := range entries {
		rows = append(rows, []string{e.Name, e.Stream, fmt.Sprint(e.Epoch), fmt.Sprint(e.Seq), e.Kind, console.Short(e.Version), e.Release, e.Published})
	}
	return console.Table(s.Out, []string{"NAME", "STREAM", "EPOCH", "SEQ", "KIND", "VERSION", "RELEASE", "PUBLISHED"}, rows)
}

func fsckCommand(s cli.Streams) *cobra.Command {
	var config string
	var deep bool
	c := &cobra.Command{
		Use: "fsck", Short: "Judge journal, spool and registry; change nothing", Args: cli.Args(cobra.NoArgs),
		Long: "Judge journal, spool and registry together. The daemon must not be running. Exit status 3 when something is wrong.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withReceiver(cmd.Context(), s, config, func(ctx context.Context, r *receiver.Receiver) error {
				n := 0
				err := r.Fsck(ctx, deep, func(p receiver.Problem) {
					n++
					fmt.Fprintf(s.Out, "%s: %s; %s\n", p.Where, p.What, p.Remedy)
				})
				if err != nil {
					return err
				}
				if n > 0 {
					return cli.Refused(fmt.Errorf("%d problems", n))
				}
				_, err = fmt.Fprintln(s.Out, "clean")
				return err
			})
		},
	}
	configFlag(c, &config)
	c.Flags().BoolVar(&deep, "deep", false, "also hash every published byte")
	return c
}

func verifyCommand(s cli.Streams) *cobra.Command {
	var config, name string
	c := &cobra.Command{
		Use: "verify DIR | --name NAME RELEASE", Short: "Verify a sealed release in a directory, or a published one: signatures, approvals, every byte", Args: cli.Args(cobra.ExactArgs(1)),
		Long: `Verify without journal and without network: a directory with envelope.sluice and payload/, or with --name a release of the
registry, by its release id.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := receiver.LoadConfig(config)
			if err != nil {
				return cli.Usage(err)
			}
			been, err := receiver.CurrentTrust(cfg)
			if err != nil {
				return cli.Usage(err)
			}
			env, a, err := verifyWhere(cmd.Context(), cfg, been, name, args[0])
			if err != nil {
				return verifyVerdict(err)
			}
			_, err = fmt.Fprintf(s.Out, "ok  release %s\n    %s %s, stream %s epoch %d seq %d\n    approved by %s\n    %d files, every byte\n", env.ID, env.Statement.Predicate.Name,
				env.Statement.Predicate.Version, env.Statement.Predicate.Stream, env.Statement.Predicate.Epoch, env.Statement.Predicate.Seq,
				strings.Join(a.Officers(), ", "), len(env.Statement.Subjects))
			return err
		},
	}
	configFlag(c, &config)
	c.Flags().StringVar(&name, "name", "", "name of a published release")
	return c
}

func verifyWhere(ctx context.Context, cfg receiver.Config, been []*trust.Store, name, arg string) (env *envelope.Envelope, a mofn.Approval, err error) {
	if name == "" {
		return receiver.Verify(ctx, been, cfg.Receiver, arg, nil)
	}
	id, err := envelope.ParseDigest(arg)
	if err != nil {
		return nil, a, cli.Usage(fmt.Errorf("release id: %w", err))
	}
	reg, err := receiver.OpenRegistry(cfg)
	if err != nil {
		return nil, a, err
	}
	defer cli.CloseInto(&err, reg)
	return receiver.VerifyPublished(ctx, been, cfg, reg, name, id)
}
