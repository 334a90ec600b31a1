// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"sluice/internal/checkpoint"
	"sluice/internal/cli"
	"sluice/internal/console"
	"sluice/internal/link"
	"sluice/internal/officer"
	"sluice/internal/packer"
	"sluice/internal/strictyaml"
	"sluice/internal/token"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
	"sluice/pkg/quality"
)

func mirrorCommand(s cli.Streams) *cobra.Command {
	cfg := packer.DefaultConfig().Hub
	req := packer.MirrorRequest{Sub: "payload", Evidence: "mirror.json"}
	var asBase bool
	c := &cobra.Command{
		Use: "mirror ORG/NAME[@REVISION]", Short: "Fetch a snapshot at a pinned commit, every file verified", Args: cli.Args(cobra.ExactArgs(1)),
		Long: "Fetch a snapshot into DIR/payload (with --base into DIR/base) and record it in DIR/evidence. It resumes.",
		RunE: func(cmd *cobra.Command, args []string) error {
			var found bool
			if req.Repo, req.Revision, found = strings.Cut(args[0], "@"); !found {
				req.Revision = "main"
			}
			if asBase {
				req.Sub, req.Evidence = "base", "mirror-base.json"
			}
			client, err := packer.NewHub(cfg, zap.NewNop())
			if err != nil {
				return cli.Usage(err)
			}
			bar := cli.NewStages(s.Err, console.Low)
			req.Progress = bar.Stage("mirror")
			rec, err := packer.Mirror(cmd.Context(), client, req)
			bar.Close()
			if err != nil {
				return verdict(err)
			}
			for _, f := range rec.Files {
				if _, err := fmt.Fprintf(s.Out, "%s  %12d  %-8s  %s\n", f.SHA256, f.Size, f.Method, f.Path); err != nil {
					return err
				}
			}
			_, err = fmt.Fprintf(s.Out, "commit %s, %d files\n", rec.Commit, len(rec.Files))
			return err
		},
	}
	c.Flags().StringVar(&req.Dir, "dir", "", "job directory (required)")
	c.Flags().StringVar(&cfg.Endpoint, "endpoint", cfg.Endpoint, "the Hub")
	c.Flags().StringVar(&cfg.TokenFile, "token-file", "", "file of the access token")
	c.Flags().IntVar(&cfg.Workers, "workers", cfg.Workers, "files at once")
	c.Flags().StringSliceVar(&req.Allow, "allow", nil, "patterns to fetch")
	c.Flags().StringSliceVar(&req.Ignore, "ignore", nil, "patterns to leave behind")
	c.Flags().BoolVar(&asBase, "base", false, "fetch as the base model of the job")
	return cli.Require(c, "dir")
}

func inspectCommand(s cli.Streams) *cobra.Command {
	opt := checkpoint.Options{}
	c := &cobra.Command{
		Use: "inspect DIR", Short: "Inspect DIR/payload (against DIR/base when it is there)", Args: cli.Args(cobra.ExactArgs(1)), Long: "Inspect a job directory.",
		RunE: func(cmd *cobra.Command, args []string) error {
			rep, err := packer.Inspect(cmd.Context(), args[0], opt)
			if rep == nil {
				return err
			}
			for _, f := range rep.Findings {
				if _, err := fmt.Fprintf(s.Out, "%s: %s: %s\n", f.File, f.Rule, f.Detail); err != nil {
					return err
				}
			}
			if err != nil {
				return verdict(err)
			}
			_, err = fmt.Fprintf(s.Out, "pass, %d files\n", len(rep.Files))
			return err
		},
	}
	c.Flags().StringVar(&opt.Kind, "kind", string(envelope.KindModelWeights), "kind of the release")
	c.Flags().StringSliceVar(&opt.Exceptions, "accept", nil, "rules whose findings are accepted by declared policy")
	return c
}

func gateCommand(s cli.Streams) *cobra.Command {
	m := quality.DefaultMargins()
	req := packer.GateRequest{}
	mmlu, humaneval := m.MMLU.Absolute*100, m.HumanEval.Absolute*100
	c := &cobra.Command{
		Use: "gate", Short: "Compare the evaluations of a quantized model with its base's", Args: cli.Args(cobra.NoArgs),
		Long: "Compare lm-eval samples of both models, item by item, and write DIR/evidence/gate.json.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			m.MMLU.Absolute, m.HumanEval.Absolute = mmlu/100, humaneval/100
			req.Margins = m
			rep, err := packer.RunGate(cmd.Context(), req)
			if err != nil {
				return verdict(err)
			}
			_, err = fmt.Fprint(s.Out, rep.Text())
			return err
		},
	}
	c.Flags().StringVar(&req.Dir, "dir", "", "job directory (required)")
	c.Flags().StringVar(&req.Base, "base", "", "directory of the base's samples (required)")
	c.Flags().StringVar(&req.Quantized, "quantized", "", "directory of the quantized model's samples (required)")
	c.Flags().Float64Var(&mmlu, "mmlu-margin", mmlu, "margin in percentage points")
	c.Flags().Float64Var(&humaneval, "humaneval-margin", humaneval, "margin in percentage points")
	return cli.Require(c, "dir", "base", "quantized")
}

type sealFlags struct {
	dir, key, pass, kind, exception, source string
	lifetime                                time.Duration
	predicate                               envelope.Predicate
}

func sealCommand(s cli.Streams) *cobra.Command {
	f := sealFlags{}
	p := &f.predicate
	c := &cobra.Command{
		Use: "seal DIR", Short: "Make the envelope of DIR/payload, bind DIR/evidence, sign it", Args: cli.Args(cobra.ExactArgs(1)),
		Long: "Make DIR/envelope.sluice. What the evidence says (mirror, inspection, gate) goes into the statement.",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			f.dir = args[0]
			signer, err := token.OpenSigner(f.key, secret(cmd.Context(), f.pass))
			if err != nil {
				return cli.Usage(err)
			}
			defer cli.CloseInto(&err, signer)
			req, err := f.request()
			if err != nil {
				return cli.Usage(err)
			}
			req.Signer = signer
			bar := cli.NewStages(s.Err, console.Low)
			req.Progress = bar.Stage("seal")
			env, err := packer.Seal(cmd.Context(), req)
			bar.Close()
			if err != nil {
				return verdict(err)
			}
			_, err = fmt.Fprintf(s.Out, "release %s\nwords   %s\n", env.ID, officer.Words(env))
			return err
		},
	}
	c.Flags().StringVar(&f.key, "key", "", "the packer's private key file, or that of its key in a token (required)")
	c.Flags().StringVar(&f.pass, "passphrase-file", "", "file whose first line is its passphrase or PIN; without one the terminal asks")
	c.Flags().StringVar(&p.Stream, "stream", "", "stream (required)")
	c.Flags().StringVar(&p.Name, "name", "", "name to publish under (required)")
	c.Flags().StringVar(&p.Version, "version", "", "version; default: the mirrored commit")
	c.Flags().Int64Var(&p.Epoch, "epoch", 1, "epoch")
	c.Flags().Int64Var(&p.Seq, "seq", 0, "number in the stream (required)")
	c.Flags().StringVar(&p.Prev, "prev", "", "release id of the predecessor")
	c.Flags().StringVar(&f.kind, "kind", string(envelope.KindModelWeights), "kind of the release")
	c.Flags().StringVar(&f.exception, "gate-exception", "", "reason why there is no gate; every officer is shown it")
	c.Flags().StringVar(&f.source, "source", "", "where the files come from, when they were not mirrored")
	c.Flags().StringSliceVar(&p.Audience, "audience", nil, "receiver ids (required)")
	c.Flags().StringVar(&p.Classification, "classification", "UNCLASSIFIED", "classification label")
	c.Flags().DurationVar(&f.lifetime, "lifetime", 90*24*time.Hour, "time until it expires")
	return cli.Require(c, "key", "stream", "name", "seq", "audience")
}

func (f *sealFlags) request() (packer.SealRequest, error) {
	p := f.predicate
	p.Kind = envelope.Kind(f.kind)
	now := time.Now().UTC().Truncate(time.Second)
	p.Created, p.Expires = now.Format(time.RFC3339), now.Add(f.lifetime).Format(time.RFC3339)
	slices.Sort(p.Audience)
	if err := packer.DescribeEvidence(f.dir, f.exception, f.source, &p); err != nil {
		return packer.SealRequest{}, err
	}
	return packer.SealRequest{Dir: f.dir, Predicate: p}, nil
}

type sendFlags struct {
	cfg                            packer.Link
	object, fingerprint, key, pass string
	rate, ticket                   string
	to                             []string
	number                         int
	repair                         float64
	settle                         time.Duration
}

func sendCommand(s cli.Streams) *cobra.Command {
	f := sendFlags{cfg: packer.DefaultConfig().Link}
	c := &cobra.Command{
		Use: "send DIR", Short: "Send one pass of a sealed and approved release", Args: cli.Args(cobra.ExactArgs(1)),
		Long: `Send one pass. A further pass (--pass 2) sends fresh repair symbols and heals what the earlier ones lost; with --ticket only what a
receiver asked for is sent, and --repair percent of it more.`,
		RunE: func(cmd *cobra.Command, args []string) error { return f.send(cmd.Context(), s, args[0]) },
	}
	trustFlags(c, &f.object, &f.fingerprint)
	c.Flags().StringVar(&f.key, "link-key", "", "the link key file (required)")
	c.Flags().StringVar(&f.pass, "passphrase-file", "", "file whose first line is its passphrase (required)")
	c.Flags().StringVar(&f.cfg.Receiver, "receiver", "", "receiver id of the trust object (required)")
	c.Flags().StringSliceVar(&f.to, "to", nil, "address and port of the diode's input (required); several are lanes, which carry a pass together")
	c.Flags().IntVar(&f.cfg.MTU, "mtu", f.cfg.MTU, "1500 or 9000")
	c.Flags().StringVar(&f.rate, "rate", "900Mbit", "rate in bits a second, of each lane")
	c.Flags().Float64Var(&f.repair, "repair", 10, "repair symbols in percent")
	c.Flags().IntVar(&f.number, "pass", 1, "number of the pass")
	c.Flags().StringVar(&f.ticket, "ticket", "", "file of a receiver's ticket, or - for standard input: send what it asks for and nothing else")
	c.Flags().StringVar(&f.cfg.GSO, "gso", f.cfg.GSO, "auto, on or off")
	c.Flags().DurationVar(&f.settle, "settle", 0, "time between envelope and payload for the receiver to verify and reserve; 0: by size and files")
	return cli.Require(c, "trust", "fingerprint", "link-key", "passphrase-file", "receiver", "to")
}

func (f *sendFlags) send(ctx context.Context, s cli.Streams, dir string) (err error) {
	st, key, err := f.load()
	if err != nil {
		return err
	}
	env, err := packer.ReadEnvelope(dir)
	if err != nil {
		return verdict(err)
	}
	if _, err := st.Check(env, trust.Rules{Receiver: f.cfg.Receiver, Now: time.Now()}); err != nil {
		return verdict(err)
	}
	req := packer.SendRequest{}
	if f.ticket != "" {
		pass := packer.TicketPass{Trust: st, Receiver: f.cfg.Receiver, Env: env, Now: time.Now()}
		if req, err = f.selectTickets(s, pass); err != nil {
			return err
		}
	}
	req.Dir, req.Env, req.Plan = dir, env, f.cfg.Plan(f.number)
	if f.ticket != "" {
		req.Plan.Round = f.number // not what the lanes carried in the pass that lost it
	}
	if err := packer.VerifySealed(ctx, dir, env, nil); err != nil {
		return verdict(err)
	}
	conns, err := packer.Dial(ctx, f.cfg, zap.NewNop())
	if err != nil {
		return err
	}
	defer cli.CloseInto(&err, conns)
	bar := cli.NewStages(s.Err, console.Low)
	defer bar.Close()
	progress := bar.Stage("send")
	sender, err := packer.NewSender(f.cfg, st, conns, key, packer.SenderOptions{
		Logger:   zap.NewNop(),
		Progress: func(p link.SendProgress) { progress(int64(p.Source+p.Repair), int64(p.SourceTotal+p.RepairTotal)) },
	})
	if err != nil {
		return cli.Usage(err)
	}
	rep, err := packer.Send(ctx, sender, req)
	if err != nil {
		return err
	}
	kind := fmt.Sprintf("pass %d", f.number)
	if f.ticket != "" {
		kind = "ticket pass"
	}
	said := fmt.Sprintf("%s of release %s: %d datagrams, %d source and %d repair symbols, %s", kind, env.ID, rep.Sealed, rep.Source, rep.Repair, rep.Elapsed.Round(time.Millisecond))
	if rep.SendErrors > 0 { // a pass has no other witness on this side
		said += fmt.Sprintf("; %d datagrams were not taken by this host's kernel: lower --rate", rep.SendErrors)
	}
	_, err = fmt.Fprintln(s.Out, said)
	return err
}

// load reads what the flags name.
func (f *sendFlags) load() (*trust.Store, *mofn.SecretKey, error) {
	st, err := trust.Load(f.object, f.fingerprint)
	if err != nil {
		return nil, nil, cli.Usage(err)
	}
	switch {
	case len(f.to) == 1:
		f.cfg.Address = f.to[0]
	default:
		for _, to := range f.to {
			f.cfg.Lanes = append(f.cfg.Lanes, packer.Lane{Address: to})
		}
	}
	if err := f.cfg.SetRate(f.rate, f.repair); err != nil {
		return nil, nil, cli.Usage(err)
	}
	f.cfg.Settle = strictyaml.Duration(f.settle)
	pass, err := trust.ReadPassphrase(f.pass)
	if err != nil {
		return nil, nil, cli.Usage(err)
	}
	key, err := trust.OpenKey(f.key, pass)
	return st, key, cli.Usage(err)
}
