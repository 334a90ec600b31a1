// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sluice/internal/admin"
	"sluice/internal/cli"
	"sluice/internal/console"
	"sluice/internal/qr"
	"sluice/internal/receiver"
)

type ticketFlags struct {
	config, png  string
	asJSON, draw bool
}

func ticketCommand(s cli.Streams) *cobra.Command {
	f := ticketFlags{}
	c := &cobra.Command{
		Use: "ticket RELEASE", Short: "Write down what a release lacks, for a person to carry to the bastion", Args: cli.Args(cobra.ExactArgs(1)),
		Long: `Ask the running daemon what a release still lacks, and print it as a signed text of a few lines, to be typed, mailed or scanned. On a
terminal the same is drawn as a QR code.

  diode-receiver ticket RELEASE > ticket.txt
  bastion-packer send --ticket ticket.txt ... DIR          sends just that, and 10 % more

RELEASE is the release id or its beginning, as status shows it. Nothing is changed; ask again as often as you like, best after a pass has ended.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := receiver.LoadConfig(f.config)
			if err != nil {
				return cli.Usage(err)
			}
			var t receiver.Ticket
			if err := admin.Fetch(cmd.Context(), cfg.Admin.Listen, "/ticket?release="+url.QueryEscape(args[0]), &t); err != nil {
				return ticketError(err)
			}
			return f.show(s, &t)
		},
	}
	configFlag(c, &f.config)
	c.Flags().StringVar(&f.png, "png", "", "also write the QR code to a file, as a PNG picture")
	c.Flags().BoolVar(&f.draw, "qr", false, "draw the QR code even when the output is no terminal")
	c.Flags().BoolVar(&f.asJSON, "json", false, "print JSON")
	return c
}

// ticketError tells the daemon's no from a failure: what is not there was asked for by mistake, a site without a key is a matter of its
// configuration, and the rest is a verdict.
func ticketError(err error) error {
	var answer *admin.StatusError
	if !errors.As(err, &answer) {
		return err
	}
	said := errors.New(answer.Body)
	switch answer.Code {
	case http.StatusNotFound, http.StatusNotImplemented:
		return cli.Usage(said)
	case http.StatusConflict:
		return cli.Refused(said)
	}
	return err
}

func (f *ticketFlags) show(s cli.Streams, t *receiver.Ticket) error {
	code, err := qr.Encode(t.QR)
	if err != nil {
		return err
	}
	if f.png != "" {
		var picture bytes.Buffer
		if err := code.PNG(&picture); err != nil {
			return err
		}
		if err := os.WriteFile(f.png, picture.Bytes(), 0o600); err != nil {
			return fmt.Errorf("--png: %w", err)
		}
	}
	if f.asJSON {
		return cli.PrintJSON(s.Out, t)
	}
	_, err = fmt.Fprint(s.Out, summary(t), t.Text, f.drawing(s, code))
	return err
}

// summary says for people what the lines below it are; a reader of tickets skips it.
func summary(t *receiver.Ticket) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s lacks %s of release %s, %s seq %d, in %d of %s.\n", t.Receiver, console.Bytes(t.LostBytes), console.Short(t.Release),
		console.Clean(t.Stream), t.Seq, t.Damaged, console.Count(t.Spans, "span"))
	fmt.Fprintf(&b, "# Carry these lines to the bastion: bastion-packer send --ticket FILE ... DIR sends %s.\n", console.Bytes(t.Sends))
	if t.UnderWay {
		b.WriteString("# A pass is under way: what it still brings is counted as missing here. Better ask again when it has ended.\n")
	}
	return b.String()
}

// drawing is the QR code for a terminal, or with --qr for whatever there is; then a reader of tickets skips it.
func (f *ticketFlags) drawing(s cli.Streams, code *qr.Code) string {
	style := console.Detect(s.Out, os.Getenv)
	if !style.Terminal && !f.draw {
		return ""
	}
	if !style.Terminal {
		return "# " + strings.ReplaceAll(strings.TrimSuffix(code.Text(false), "\n"), "\n", "\n# ") + "\n"
	}
	if width := columns(s); width > 0 && width < code.Width() {
		return fmt.Sprintf("# The QR code has %d columns, this terminal %d: make it wider, or use --png FILE.\n", code.Width(), width)
	}
	return code.Text(style.Color)
}

// columns is the width of the terminal; 0 when nobody knows.
func columns(s cli.Streams) int {
	f, ok := s.Out.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}
