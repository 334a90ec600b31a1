// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/internal/admin"
	"sluice/internal/audit"
	"sluice/internal/console"
	"sluice/internal/journal"
)

// AuditSite is the log of a configuration, wherever it is read from.
type AuditSite struct {
	Source audit.Source
	Close  io.Closer
	Files  audit.Files
}

// AuditOf finds a log in the running daemon, which holds the journal, or in the journal when no daemon runs; open opens that.
func AuditOf(addr string, files audit.Files, open func() (*audit.Log, *journal.Journal, error)) (AuditSite, error) {
	log, j, err := open()
	switch {
	case errors.Is(err, journal.ErrLocked):
		return AuditSite{Source: AuditDaemon{Addr: addr}, Close: io.NopCloser(nil), Files: files}, nil
	case errors.Is(err, audit.ErrNoKey):
		return AuditSite{}, Usage(err)
	case err != nil:
		return AuditSite{}, err
	}
	return AuditSite{Source: log, Close: j, Files: files}, nil
}

// AuditDaemon asks a running daemon for its log. It implements [audit.Source].
type AuditDaemon struct{ Addr string }

// Head implements [audit.Source].
func (d AuditDaemon) Head(ctx context.Context) (h audit.Head, err error) {
	err = admin.Fetch(ctx, d.Addr, "/audit", &h)
	return h, err
}

// Events implements [audit.Source], page by page.
func (d AuditDaemon) Events(ctx context.Context, from, to int64, fn func(raw []byte) error) error {
	for from <= to {
		var page []byte
		if err := admin.Fetch(ctx, d.Addr, fmt.Sprintf("/audit/events?from=%d", from), &page); err != nil {
			return err
		}
		began := from
		for raw := range bytes.SplitSeq(bytes.TrimSpace(page), []byte("\n")) {
			if len(raw) == 0 || from > to {
				break
			}
			if err := fn(raw); err != nil {
				return err
			}
			from++
		}
		if from == began {
			return fmt.Errorf("the daemon gave no event %d, and said that there are %d", from, to)
		}
	}
	return nil
}

// AuditPage shows a daemon's log on its admin socket.
type AuditPage struct{ Log *audit.Log }

// Head is the page /audit.
func (p AuditPage) Head(ctx context.Context) (any, error) { return p.Log.Head(ctx) }

// Events is the page /audit/events.
func (p AuditPage) Events(ctx context.Context, from int64, fn func(raw []byte) error) error {
	return p.Log.Events(ctx, from, audit.MaxEvents, fn)
}

// OpenAudit finds the log that a configuration file names.
type OpenAudit func(ctx context.Context, config string) (AuditSite, error)

// AuditCommand is `audit`: to show, export, prove and judge the log (docs/spec/audit.md). config is where the configuration is when none is named.
func AuditCommand(s Streams, config string, open OpenAudit) *cobra.Command {
	c := Group("audit", "Show, export and judge the audit log", auditVerify(s), auditVerifyProof(s))
	for _, verb := range []func(Streams, *string, OpenAudit) *cobra.Command{auditShow, auditExport, auditProve} {
		from := config
		sub := verb(s, &from, open)
		sub.Flags().StringVar(&from, "config", config, "configuration file")
		c.AddCommand(sub)
	}
	return c
}

// withSite opens the log of a configuration for one verb.
func withSite(ctx context.Context, open OpenAudit, config string, fn func(AuditSite) error) (err error) {
	site, err := open(ctx, config)
	if err != nil {
		return err
	}
	defer CloseInto(&err, site.Close)
	err = fn(site)
	switch {
	case errors.Is(err, audit.ErrNoKey), errors.Is(err, audit.ErrNotFound):
		return Usage(err)
	case audit.Verdict(err):
		return Refused(err)
	}
	return err
}

func auditExport(s Streams, config *string, open OpenAudit) *cobra.Command {
	var to string
	c := &cobra.Command{
		Use: "export", Short: "Write the whole log into a directory that an auditor can verify anywhere", Args: Args(cobra.NoArgs),
		Long: `Write the log into a new directory: every event, the signed checkpoint, the public log key, every version of the trust object, the orders
of officers, and a proof for each release. A running daemon is asked for it; without one the journal is read. Nothing is changed. The site needs a log key (keys.log).`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return withSite(cmd.Context(), open, *config, func(site AuditSite) error {
				x, err := audit.Export(cmd.Context(), site.Source, site.Files, to)
				if err != nil {
					return err
				}
				if x.Later > 0 {
					fmt.Fprintf(s.Err, "%s of trust came after the checkpoint, and will be in the next export\n", console.Count(x.Later, "file"))
				}
				_, err = fmt.Fprintf(s.Out, "%s: %d events of %s, %d releases\nlog key %s\nnext: audit verify %s, on any machine\n",
					to, x.Checkpoint.Size, x.Checkpoint.Origin, x.Releases, x.Key.ID, to)
				return err
			})
		},
	}
	c.Flags().StringVar(&to, "to", "", "directory, new or empty (required)")
	return Require(c, "to")
}

func auditVerify(s Streams) *cobra.Command {
	var key, since, fingerprint string
	var asJSON bool
	c := &cobra.Command{
		Use: "verify DIR", Short: "Judge an exported log: nothing changed, dropped, exchanged or out of order", Args: Args(cobra.ExactArgs(1)),
		Long: `Judge what audit export wrote, with nothing but that directory: no network, no configuration, no state. Every event is hashed and replayed, and held
against the signed checkpoint. One page is printed.

  audit verify DIR --fingerprint HEX --key log.pub --since CHECKPOINT

--fingerprint is that of the first trust object, from the paper record: every later one, every order of an officer and every approval is held
against that chain as it was at its time. --key is the log key that the auditor has from elsewhere; without it the one in DIR is believed, unless
the trust object binds it, and its id has to be compared. --since is the file checkpoint of an earlier export: the log must continue it. Exit status 1 says that something could not be read, 3 that the log is not accepted.`,
		RunE: func(_ *cobra.Command, args []string) error {
			opt, err := verifyOptions(key, since, fingerprint)
			if err != nil {
				return err
			}
			report, err := audit.Verify(args[0], opt)
			if err != nil && (report == nil || !audit.Verdict(err)) {
				return err
			}
			if err != nil {
				report.Fail(err)
			}
			return errors.Join(printReport(s, report, asJSON), Refused(err))
		},
	}
	c.Flags().StringVar(&key, "key", "", "public key file of the log")
	c.Flags().StringVar(&fingerprint, "fingerprint", "", "fingerprint of the first trust object, 64 digits")
	c.Flags().StringVar(&since, "since", "", "signed checkpoint of an earlier visit")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printReport(s Streams, r *audit.Report, asJSON bool) error {
	if asJSON {
		return PrintJSON(s.Out, r)
	}
	_, err := fmt.Fprint(s.Out, r.Page())
	return err
}

// verifyOptions reads what the auditor brings.
func verifyOptions(key, since, fingerprint string) (opt audit.VerifyOptions, err error) {
	if d, err := hex.DecodeString(fingerprint); err != nil || len(d) != sha256.Size && fingerprint != "" {
		return opt, Usage(fmt.Errorf("--fingerprint is 64 hexadecimal digits, not %.80q", fingerprint))
	}
	opt.Root = strings.ToLower(fingerprint)
	if key != "" {
		if opt.Key, err = readLogKey(key); err != nil {
			return opt, err
		}
	}
	if since != "" {
		if opt.Since, err = readCapped(since, maxAuditFile); err != nil {
			return opt, fmt.Errorf("--since: %w", err)
		}
	}
	return opt, nil
}

// maxAuditFile caps the small files that an auditor names.
const maxAuditFile = 256 << 10

func readCapped(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = Refused(fmt.Errorf("%s is longer than %d bytes", name, limit))
	}
	return b, err
}

func readLogKey(name string) (*audit.Key, error) {
	b, err := readCapped(name, maxAuditFile)
	if err != nil {
		return nil, err
	}
	k, err := audit.ParseKey(b)
	if err != nil {
		return nil, Refused(fmt.Errorf("%s: %w", name, err))
	}
	return k, nil
}

func auditProve(s Streams, config *string, open OpenAudit) *cobra.Command {
	var event int64
	c := &cobra.Command{
		Use: "prove RELEASE | --event N", Short: "Write the proof that a release's last step, or event N, is in the log", Args: Args(cobra.MaximumNArgs(1)),
		Long: `Write a C2SP tlog-proof to standard output: the event, the hashes and the signed checkpoint in one text of a few kilobytes, which audit verify-proof
checks anywhere.

  audit prove RELEASE > release.tlog-proof`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (event != 0) || event < 0 {
				return Usage(errors.New("name a RELEASE, or an event above 0 with --event"))
			}
			return withSite(cmd.Context(), open, *config, func(site AuditSite) error {
				text, err := audit.Prove(cmd.Context(), site.Source, strings.Join(args, ""), event)
				if err != nil {
					return err
				}
				_, err = s.Out.Write(text)
				return err
			})
		},
	}
	c.Flags().Int64Var(&event, "event", 0, "number of an event")
	return c
}

func auditVerifyProof(s Streams) *cobra.Command {
	var key, release string
	c := &cobra.Command{
		Use: "verify-proof FILE", Short: "Check a proof, and show the event that it proves", Args: Args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			k, err := readLogKey(key)
			if err != nil {
				return err
			}
			text, err := readCapped(args[0], maxAuditFile)
			if err != nil {
				return err
			}
			p, err := audit.VerifyProof(text, k)
			if err != nil {
				return Refused(fmt.Errorf("%s: %w", args[0], err))
			}
			if release != "" && p.Event.Release != release {
				return Refused(fmt.Errorf("%s: it proves an event of release %s, not of %s", args[0], console.Clean(p.Event.Release), release))
			}
			_, err = fmt.Fprintf(s.Out, "ok  event %d of %s, in the signed tree of %d events\n%s\n", p.Event.Seq, p.Checkpoint.Origin, p.Checkpoint.Size, eventLine(p.Event))
			return err
		},
	}
	c.Flags().StringVar(&key, "key", "", "public key file of the log (required)")
	c.Flags().StringVar(&release, "release", "", "the release id that the proof must be of")
	return Require(c, "key")
}

func auditShow(s Streams, config *string, open OpenAudit) *cobra.Command {
	var release string
	var last int
	var asJSON bool
	c := &cobra.Command{
		Use: "show", Short: "Show the last events, or those of a release", Args: Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if last < 1 {
				return Usage(errors.New("--last is 1 or more"))
			}
			return withSite(cmd.Context(), open, *config, func(site AuditSite) error {
				events, err := lastEvents(cmd.Context(), site.Source, release, last)
				if err != nil {
					return err
				}
				return printEvents(s, events, asJSON)
			})
		},
	}
	c.Flags().IntVar(&last, "last", 20, "how many events")
	c.Flags().StringVar(&release, "release", "", "only those of the release whose id begins so")
	c.Flags().BoolVar(&asJSON, "json", false, "print the events as they were hashed, one a line")
	return c
}

// lastEvents reads no more of the log than it has to.
func lastEvents(ctx context.Context, src audit.Source, release string, last int) (out [][]byte, err error) {
	head, err := src.Head(ctx)
	if err != nil {
		return nil, err
	}
	from := int64(1)
	if release == "" {
		from = max(1, head.Size-int64(last)+1)
	}
	err = src.Events(ctx, from, head.Size, func(raw []byte) error {
		e, err := journal.ParseEvent(raw, true)
		if err != nil {
			return err
		}
		if strings.HasPrefix(e.Release, release) {
			out = append(out, slices.Clone(raw))
			out = out[max(0, len(out)-last):]
		}
		return nil
	})
	return out, err
}

func printEvents(s Streams, events [][]byte, asJSON bool) error {
	for _, raw := range events {
		line := string(raw)
		if !asJSON {
			e, err := journal.ParseEvent(raw, true)
			if err != nil {
				return err
			}
			line = eventLine(e)
		}
		if _, err := fmt.Fprintln(s.Out, line); err != nil {
			return err
		}
	}
	return nil
}

// eventLine is an event for a person.
func eventLine(e journal.Event) string {
	move := ""
	if e.To != "" {
		move = "  " + e.From + " -> " + e.To
	}
	who := e.Actor
	if e.Officer != "" {
		who += ", officer " + e.Officer
	}
	return console.Clean(fmt.Sprintf("%d  %s  %s  %s%s  %s  %s", e.Seq, e.Time.UTC().Format(time.RFC3339), who, e.Action, move, console.Short(e.Release), e.Detail))
}
