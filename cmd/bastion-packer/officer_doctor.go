// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"sluice/internal/cli"
	"sluice/internal/doctor"
	"sluice/internal/dropbox"
	"sluice/internal/officer"
	"sluice/pkg/envelope"
)

func officerDoctor(s cli.Streams) *cobra.Command {
	var f officerFlags
	var ask, asJSON bool
	c := &cobra.Command{
		Use: "doctor", Short: "Check everything that a ceremony needs, and say what mends it", Args: cli.Args(cobra.NoArgs),
		Long: `Check the trust object, the drop-box, the chain, the key, the requests, the clock and the space, each with what mends it. One small file is
written into the drop-box and removed. With --passphrase-file, or --ask on a terminal, the key is opened too.

Exit status 1 means that a check failed; warnings and what could not be checked leave it 0.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.fill(); err != nil {
				return err
			}
			req := officer.CheckupRequest{Box: dropbox.Box{Dir: f.box}, Trust: f.object, Fingerprint: f.fingerprint, Key: f.key, Now: time.Now()}
			if ask || f.pass != "" {
				req.Open = func() (officer.Signer, error) { return openSigner(cmd.Context(), f.key, f.pass) }
			}
			return reportCheckup(s, officer.Checkup(req), asJSON)
		},
	}
	f.add(c)
	c.Flags().BoolVar(&ask, "ask", false, "ask for the passphrase on the terminal, and try it")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

var errNotReady = errors.New("not ready for a ceremony")

// reportCheckup prints findings in the table that the other doctors have.
func reportCheckup(s cli.Streams, found []officer.Finding, asJSON bool) error {
	var out []doctor.Finding
	for _, f := range found {
		out = append(out, doctor.Finding{ID: f.ID, Status: doctor.Status(f.Status), Seen: f.Seen, Wanted: f.Wanted, Why: f.Why, Fix: f.Fix, Reason: f.Note})
	}
	err := doctor.Report(s.Out, out, asJSON)
	if errors.Is(err, doctor.ErrFailed) {
		return fmt.Errorf("%w: %s; each one's fix stands below it", errNotReady, doctor.Count(out))
	}
	return err
}

func officerRehearse(s cli.Streams) *cobra.Command {
	var yes, keep bool
	c := &cobra.Command{
		Use: "rehearse", Short: "Go through the whole ceremony with throw-away keys; nothing of it counts", Args: cli.Args(cobra.NoArgs),
		Long: `Make keys, a trust object, a small release and a request in a temporary directory, and let you approve it exactly as you would. A second
officer approves beside you, and the release is verified as a receiver would. Nothing of it counts anywhere: no receiver knows its trust object.`,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			dir, err := os.MkdirTemp("", "sluice-rehearsal-")
			if err != nil {
				return err
			}
			if !keep {
				defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
			}
			return rehearse(cmd.Context(), s, dir, yes)
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "type for the person: a check that the tool works here")
	c.Flags().BoolVar(&keep, "keep", false, "keep the directory")
	return c
}

// rehearse is the same code as approve, over a site of its own.
func rehearse(ctx context.Context, s cli.Streams, dir string, yes bool) error {
	fmt.Fprintf(s.Out, "REHEARSAL in %s: keys, a trust object, two small releases and a request are made.\n", dir)
	r, err := officer.NewRehearsal(ctx, dir, time.Now())
	if err != nil {
		return err
	}
	f := &reviewFlags{
		officerFlags: officerFlags{config: filepath.Join(dir, "officer.yaml"), box: r.Box.Dir, object: r.Trust, fingerprint: r.Fingerprint, key: r.KeyFile(officer.RehearsalYou)},
		payload:      r.Payload, previous: r.Previous, cache: filepath.Join(dir, "cache"), note: "a rehearsal",
	}
	d, err := f.open(s, true)
	if err != nil {
		return err
	}
	req, err := r.Box.ReadRequest(r.Request)
	if err != nil {
		return err
	}
	if yes {
		f.confirm, f.pass = officer.Words(req.Envelope), filepath.Join(dir, "passphrase")
		if err := os.WriteFile(f.pass, []byte(officer.RehearsalPassphrase+"\n"), 0o600); err != nil {
			return err
		}
	}
	fmt.Fprintf(s.Out, "The passphrase of your throw-away key is: %s\nA second officer approves first.\n\n", officer.RehearsalPassphrase)
	if err := r.Friend(ctx, d.anchor, time.Now()); err != nil {
		return err
	}
	if err := d.decide(ctx, f, r.Request, envelope.DecisionApprove); err != nil {
		return err
	}
	officers, err := r.Judge(d.anchor, time.Now())
	if err != nil {
		return officerError(err)
	}
	_, err = fmt.Fprintf(s.Out, `
REHEARSAL OVER. What you did:
  you read one page, whose risk lines stood first, and this machine read every byte of the release
  you typed the first two words of the release, and the passphrase of your key
  one new file was written into the drop-box, read back and verified
  the release was verified with the approvals of %s and %s, as a receiver would
Nothing of it counts: no bastion and no receiver knows these keys.
`, officers[0], officers[1])
	return err
}
