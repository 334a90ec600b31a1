// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/internal/cli"
	"sluice/internal/console"
	"sluice/internal/officer"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// reviewFlags are those of review, approve and reject.
type reviewFlags struct {
	officerFlags
	payload, previous, html, cache string
	confirm, note                  string
}

func (f *reviewFlags) add(c *cobra.Command) {
	f.officerFlags.add(c)
	c.Flags().StringVar(&f.payload, "payload", "", "directory of the release's files, mounted read-only: every byte is read and hashed here")
	c.Flags().StringVar(&f.previous, "previous-payload", "", "directory of the predecessor's files, for the differences of small texts")
	c.Flags().StringVar(&f.html, "html", "", "write the page as one self-contained HTML file, too")
	c.Flags().StringVar(&f.cache, "cache", "", "directory of what this machine read before; it belongs to you alone")
}

const requestHelp = `REQUEST is the name of a directory below requests/, or the beginning of a release id; it may be left out when there is one request.

The page is made on this machine, from the envelope, the envelope of the predecessor and what this machine saw itself. With --payload every
byte is read and hashed; what this machine hashed before is not read again. Without it the page says "bytes NOT seen", and the approval
does not claim them. A byte that differs is refused, exit 3.`

func officerReview(s cli.Streams) *cobra.Command {
	var f reviewFlags
	c := &cobra.Command{
		Use: "review [REQUEST]", Short: "Show the one page about a request, and sign nothing", Args: cli.Args(cobra.MaximumNArgs(1)),
		Long: "Show the one page about a request, and sign nothing.\n\n" + requestHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := f.open(s, false)
			if err != nil {
				return err
			}
			_, _, err = d.show(cmd.Context(), &f, strings.Join(args, ""))
			return err
		},
	}
	f.add(c)
	return c
}

func officerDecide(s cli.Streams, decision string) *cobra.Command {
	var f reviewFlags
	c := &cobra.Command{
		Use: decision + " [REQUEST]", Short: "Show the page, and sign that the release may pass", Args: cli.Args(cobra.MaximumNArgs(1)),
		Long: "Show the page, then ask for the first two words of the release, typed. They are signed for together with the hash of exactly that page.\n\n" + requestHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := f.open(s, true)
			if err != nil {
				return err
			}
			return d.decide(cmd.Context(), &f, strings.Join(args, ""), decision)
		},
	}
	if decision == envelope.DecisionReject {
		c.Short = "Show the page, and sign that the release is held"
		c.Long = "Show the page, then ask for the word \"reject\", typed. A rejection by one officer of the quorum holds the release.\n\n" + requestHelp
	}
	f.add(c)
	c.Flags().StringVar(&f.confirm, "confirm", "", "what would be typed on a terminal, for scripts")
	c.Flags().StringVar(&f.note, "note", "", "a remark that goes into the decision")
	return c
}

// show reads a request, looks at it, and prints the page.
func (d *desk) show(ctx context.Context, f *reviewFlags, request string) (v *officer.View, page officer.Page, err error) {
	req, err := d.box.ReadRequest(request)
	if err != nil {
		return nil, page, officerError(err)
	}
	opt := officer.LookOptions{You: d.you}
	if f.payload != "" {
		payload, done, err := d.payload(f)
		if err != nil {
			return nil, page, err
		}
		defer func() { err = errors.Join(err, done()) }()
		opt.Payload = payload
	}
	v, err = officer.Look(ctx, d.box, d.anchor, req, opt)
	if err != nil {
		return nil, page, officerError(err)
	}
	page = v.Page()
	if f.html != "" {
		b, err := page.HTML()
		if err != nil {
			return nil, page, err
		}
		if err := os.WriteFile(f.html, b, 0o600); err != nil {
			return nil, page, err
		}
	}
	_, err = fmt.Fprint(d.s.Out, page.Text())
	return v, page, err
}

// payload opens the staging and the record of what this machine read before.
func (d *desk) payload(f *reviewFlags) (p *officer.Payload, done func() error, err error) {
	p = &officer.Payload{}
	var closers []func() error
	done = func() error {
		var errs []error
		for _, c := range closers {
			errs = append(errs, c())
		}
		return errors.Join(errs...)
	}
	if p.Root, err = os.OpenRoot(f.payload); err != nil {
		return nil, nil, cli.Usage(fmt.Errorf("--payload: %w", err))
	}
	closers = append(closers, p.Root.Close)
	if f.previous != "" {
		if p.Previous, err = os.OpenRoot(f.previous); err != nil {
			return nil, nil, errors.Join(cli.Usage(fmt.Errorf("--previous-payload: %w", err)), done())
		}
		closers = append(closers, p.Previous.Close)
	}
	if dir := d.cacheDir(f); dir != "" {
		if p.Seen, err = officer.OpenSeen(dir); err != nil {
			return nil, nil, errors.Join(officerError(err), done())
		}
		closers = append(closers, p.Seen.Close)
	} else {
		fmt.Fprintln(d.s.Err, "no cache directory: everything is read, and nothing is remembered (--cache DIR)")
	}
	bar := cli.NewStages(d.s.Err, "here")
	p.Progress = bar.Stage("reading")
	closers = append(closers, func() error { bar.Close(); return nil })
	return p, done, nil
}

func (d *desk) cacheDir(f *reviewFlags) string {
	switch {
	case f.cache != "":
		return f.cache
	case d.f.cfg.Cache != "":
		return string(d.f.cfg.Cache)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "sluice", "index")
}

// decide is the ceremony: the page, the typed words, the passphrase, one new file.
func (d *desk) decide(ctx context.Context, f *reviewFlags, request, decision string) error {
	v, page, err := d.show(ctx, f, request)
	if err != nil {
		return err
	}
	if err := officer.CheckUndecided(d.box, v); err != nil {
		return officerError(err)
	}
	prompt := "\nTo APPROVE, type the first two words of the release, and Enter. Anything else leaves without signing.\n> "
	if decision == envelope.DecisionReject {
		prompt = "\nTo REJECT, type the word reject, and Enter. Anything else leaves without signing.\n> "
	}
	typed, err := d.s.Typed(ctx, f.confirm, prompt)
	if err != nil {
		return err
	}
	if err := officer.CheckTyped(typed, officer.Confirmation(v.Env, decision)); err != nil {
		return officerError(err)
	}
	var name string
	err = d.sign(ctx, func(signer mofn.Signer) (err error) {
		name, err = officer.Decide(d.box, d.anchor, officer.Decision{
			View: v, Page: page, Decision: decision, Typed: typed, Note: f.note, Tool: tool(), Now: time.Now(), Signer: signer,
		})
		return err
	})
	if err != nil {
		return err
	}
	return d.signedWords(ctx, v, page, decision, name)
}

// signedWords say what was written, and what is missing now.
func (d *desk) signedWords(ctx context.Context, v *officer.View, page officer.Page, decision, name string) error {
	fmt.Fprintf(d.s.Out, "\n%s: signed as %s\n", decision, name)
	fmt.Fprintf(d.s.Out, "  written, read back and verified: approvals/%s/%s\n  checked: %s\n", v.Env.ID, name, strings.Join(v.Checked(), ", "))
	if dir := d.pagesDir(); dir != "" {
		kept, err := officer.KeepPage(dir, page)
		if err != nil {
			fmt.Fprintf(d.s.Err, "the page was not kept: %v\n", err)
		} else {
			fmt.Fprintf(d.s.Out, "  the page that you signed: %s\n", kept)
		}
	}
	req, err := d.box.ReadRequest(v.Env.ID.String())
	if err != nil {
		return officerError(err)
	}
	now, err := officer.Look(ctx, d.box, d.anchor, req, officer.LookOptions{})
	if err != nil {
		return officerError(err)
	}
	missing := "still missing: nothing; the policy is met"
	switch {
	case len(now.Policy.Rejected) > 0:
		missing = "the release is held; a corrected one needs a new seq"
	case len(now.Policy.Missing) > 0:
		missing = "still missing: " + strings.Join(now.Policy.Missing, "; ")
	}
	_, err = fmt.Fprintf(d.s.Out, "  %s\n", console.Clean(missing))
	return err
}

func (d *desk) pagesDir() string {
	switch {
	case d.f.cfg.Pages != "":
		return string(d.f.cfg.Pages)
	case d.f.config == "":
		return ""
	}
	return filepath.Join(filepath.Dir(d.f.config), "pages")
}

func fingerprintWords(st *trust.Store) string {
	return strings.Join(mofn.Words(st.Fingerprint[:]), " ")
}
