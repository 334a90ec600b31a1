// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/internal/admin"
	"sluice/internal/cli"
	"sluice/internal/packer"
	"sluice/internal/token"
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

func approveCommand(s cli.Streams) *cobra.Command {
	var object, fingerprint, box, key, pass, confirm, note string
	var show, reject bool
	var checked []string
	c := &cobra.Command{
		Use: "approve [REQUEST]", Short: "Review a request in the drop-box and approve or reject it, as an officer", Args: cli.Args(cobra.MaximumNArgs(1)),
		Long: `Show the one page about a request, and sign a decision about it.

  approve --show REQUEST                     shows the page and signs nothing
  approve --confirm "WORD WORD" REQUEST      signs; the words are the first two of the release id on that page
  approve --reject --confirm "WORD WORD"     signs a rejection, which holds the release

REQUEST is the name of a directory below requests/, or the beginning of a release id; it may be left out when there is one request.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			request := strings.Join(args, "")
			st, err := trust.Load(object, fingerprint)
			if err != nil {
				return cli.Usage(err)
			}
			if show || confirm == "" {
				return showRequest(s, st, packer.DropBox{Dir: box}, request, show)
			}
			req := packer.ApproveRequest{
				Box: packer.DropBox{Dir: box}, Trust: st, Request: request, Decision: "approve",
				Checked: checked, Confirm: confirm, Note: note, Tool: "bastion-packer " + cli.Version(version), Now: time.Now(),
			}
			if reject {
				req.Decision = "reject"
			}
			return decide(cmd.Context(), s, req, key, pass)
		},
	}
	trustFlags(c, &object, &fingerprint)
	c.Flags().StringVar(&box, "drop-box", "", "the drop-box folder (required)")
	c.Flags().StringVar(&key, "key", "", "the officer's private key file, or that of their key in a token")
	c.Flags().StringVar(&pass, "passphrase-file", "", "file whose first line is the key's passphrase or PIN; without one the terminal asks")
	c.Flags().StringVar(&confirm, "confirm", "", "the first two words of the release id, typed by the officer")
	c.Flags().StringVar(&note, "note", "", "a remark that goes into the decision")
	c.Flags().StringSliceVar(&checked, "checked", []string{"manifest"}, "what was checked: bytes, gate, inspection, manifest")
	c.Flags().BoolVar(&show, "show", false, "show the page and sign nothing")
	c.Flags().BoolVar(&reject, "reject", false, "reject instead of approve")
	return cli.Require(c, "trust", "fingerprint", "drop-box")
}

func showRequest(s cli.Streams, st *trust.Store, box packer.DropBox, request string, asked bool) error {
	env, err := box.ReadRequest(request)
	if err != nil {
		return approveError(err)
	}
	if err := st.CheckPacker(env); err != nil {
		return verdict(err)
	}
	if _, err := fmt.Fprint(s.Out, packer.ReviewPage(env)); err != nil || asked {
		return err
	}
	return cli.Usage(errors.New("nothing signed: read the page above, and give its first two WORDS with --confirm"))
}

// approveError tells what the officer did wrong from what is wrong with the request.
func approveError(err error) error {
	for _, wrong := range []error{packer.ErrConfirm, packer.ErrNoOfficer, packer.ErrDecided, packer.ErrRequest} {
		if errors.Is(err, wrong) {
			return cli.Usage(err)
		}
	}
	return verdict(err)
}

func decide(ctx context.Context, s cli.Streams, req packer.ApproveRequest, keyFile, passFile string) (err error) {
	if keyFile == "" {
		return cli.Usage(errors.New("--key is required to sign"))
	}
	signer, err := token.OpenSigner(keyFile, secret(ctx, passFile))
	if err != nil {
		return cli.Usage(err)
	}
	defer cli.CloseInto(&err, signer)
	req.Signer = signer
	name, err := packer.Approve(req)
	if err != nil {
		return approveError(err)
	}
	_, err = fmt.Fprintf(s.Out, "%s: signed as %s\n", req.Decision, name)
	return err
}
