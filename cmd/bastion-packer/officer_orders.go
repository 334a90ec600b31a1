// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/internal/cli"
	"sluice/internal/console"
	"sluice/internal/officer"
	"sluice/pkg/mofn"
)

// orderFlags are those of stop, resume and revoke.
type orderFlags struct {
	officerFlags
	reason, confirm string
}

func (f *orderFlags) add(c *cobra.Command) *cobra.Command {
	f.officerFlags.add(c)
	c.Flags().StringVar(&f.reason, "reason", "", "why, for everybody who reads the order later (required)")
	c.Flags().StringVar(&f.confirm, "confirm", "", "what would be typed on a terminal, for scripts")
	return cli.Require(c, "reason")
}

const targetHelp = `  everything          nothing moves any more (stop only)
  stream PATTERN      one stream, or models/* for all below (stop only)
  release ID          one release, by its 64 digits
  key ID              what this key signed counts nothing any more
  half ID             the same, for every key with this half
  officer NAME        the same, for every key of this officer`

// officerStop is `stop` and `revoke`: the same targets, another power.
func officerStop(s cli.Streams, action string) *cobra.Command {
	var f orderFlags
	c := &cobra.Command{
		Use: action + " everything|stream PATTERN|release ID|key ID|half ID|officer NAME", Short: "Stop something at once: you alone can", Args: cli.Args(cobra.RangeArgs(1, 2)),
		Long: "Stop something. One officer who may stop is enough; to go on takes the quorum. What will happen is shown, and the word \"stop\" asked for.\n\n" + targetHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := f.open(s, true)
			if err != nil {
				return err
			}
			o := mofn.Order{Action: action, Kind: args[0], Target: strings.Join(args[1:], ""), Reason: f.reason}
			return d.order(cmd.Context(), &f, o)
		},
	}
	if action == mofn.ActionRevoke {
		c.Use = "revoke release ID|key ID|half ID|officer NAME"
		c.Short = "Revoke something for good, with the quorum"
		c.Long = "Revoke something for good. It takes the quorum; until that is there, it is a stop. What will happen is shown, and the word \"revoke\" asked for.\n\n" + targetHelp
	}
	return f.add(c)
}

func officerResume(s cli.Streams) *cobra.Command {
	var f orderFlags
	c := &cobra.Command{
		Use: "resume ORDER-ID...", Short: "Lift stops, with the quorum", Args: cli.Args(cobra.MinimumNArgs(1)),
		Long: "Lift stops that stand. Each officer of the quorum gives such an order; officer orders says who is missing. An id may be cut to its first 8 digits.",
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := f.open(s, true)
			if err != nil {
				return err
			}
			all, err := officer.ReadOrders(d.box, d.anchor)
			if err != nil {
				return officerError(err)
			}
			lifts, err := all.FindOrders(args)
			if err != nil {
				return officerError(err)
			}
			return d.order(cmd.Context(), &f, mofn.Order{Action: mofn.ActionResume, Lifts: lifts, Reason: f.reason})
		},
	}
	return f.add(c)
}

// order shows what an order does, asks for its word, signs and writes it.
func (d *desk) order(ctx context.Context, f *orderFlags, o mofn.Order) error {
	o, words, err := officer.NewOrder(d.anchor, d.you, o, time.Now())
	if err != nil {
		return officerError(err)
	}
	fmt.Fprintf(d.s.Out, "ORDER   %s %s\nREASON  %s\nYOU     %s, role %s, key %.16s…\n", strings.ToUpper(o.Action), console.Clean(strings.TrimSpace(o.Kind+" "+o.Target)),
		console.Clean(o.Reason), d.you.Officer, d.you.Role, d.you.Key)
	for _, line := range words {
		fmt.Fprintf(d.s.Out, "THEN    %s\n", console.Clean(line))
	}
	typed, err := d.s.Typed(ctx, f.confirm, fmt.Sprintf("\nTo order this, type the word %s, and Enter. Anything else leaves without signing.\n> ", o.Action))
	if err != nil {
		return err
	}
	if err := officer.CheckTyped(typed, o.Action); err != nil {
		return officerError(err)
	}
	var id string
	err = d.sign(ctx, func(signer mofn.Signer) (err error) {
		if signer.KeyID() != d.you.Key {
			return fmt.Errorf("%w: %s", officer.ErrKeyID, d.f.key)
		}
		id, err = officer.SignOrder(d.box, d.anchor, o, signer)
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(d.s.Out, "\n%s: order %s\n  written, read back and verified: orders/%s.json\n", o.Action, id, id)
	return d.standing()
}

// standing prints what the orders of the drop-box come to now.
func (d *desk) standing() error {
	all, err := officer.ReadOrders(d.box, d.anchor)
	if err != nil {
		return officerError(err)
	}
	var errs []error
	for _, line := range all.Lines() {
		_, err := fmt.Fprintln(d.s.Out, console.Clean(line))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func officerOrders(s cli.Streams) *cobra.Command {
	var f officerFlags
	c := &cobra.Command{
		Use: "orders", Short: "Show what is stopped and revoked, what waits for whom", Args: cli.Args(cobra.NoArgs),
		Long: `Show what the orders in the drop-box come to, by the newest version of the trust object. The bastion judges each by the version in effect
when it came, so its status.txt is the last word.`,
		RunE: func(*cobra.Command, []string) error {
			d, err := f.open(s, false)
			if err != nil {
				return err
			}
			return d.standing()
		},
	}
	f.add(c)
	return c
}
