// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"sluice/internal/cli"
	"sluice/internal/packer"
	"sluice/internal/strictyaml"
	"sluice/internal/ticket"
	"sluice/internal/trust"
)

func ticketCommand(s cli.Streams) *cobra.Command {
	return cli.Group("ticket", "Look at the tickets of receivers, and put them together", ticketShow(s), ticketMerge(s))
}

type ticketFlags struct {
	object, fingerprint, rate string
	repair                    float64
}

func (f *ticketFlags) add(c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&f.object, "trust", "", "file of the trust object, to check the signatures")
	c.Flags().StringVar(&f.fingerprint, "fingerprint", "", "its fingerprint, from the paper record")
	c.Flags().StringVar(&f.rate, "rate", "900Mbit", "rate in bits a second, for the time that sending takes")
	c.Flags().Float64Var(&f.repair, "repair", ticket.Spare, "spare in percent")
	return c
}

func ticketShow(s cli.Streams) *cobra.Command {
	var f ticketFlags
	return f.add(&cobra.Command{
		Use: "show FILE|-", Short: "Say in words what a ticket asks for, and what sending it costs", Args: cli.Args(cobra.ExactArgs(1)),
		Long: "Say in words what the tickets of a text ask for. With --trust and --fingerprint their signatures are checked; send checks them always.",
		RunE: func(_ *cobra.Command, args []string) error {
			tickets, st, err := f.read(s, args)
			if err != nil {
				return err
			}
			for _, t := range tickets {
				words, err := packer.DescribeTicket(t, time.Now())
				if err != nil {
					return err
				}
				if _, err := fmt.Fprintf(s.Out, "%ssignature: %s\n", words, signatureOf(st)); err != nil {
					return err
				}
			}
			if tickets, err = packer.MergeTickets(tickets); err != nil {
				return verdict(err)
			}
			return f.printCost(s, "", tickets)
		},
	})
}

// signatureOf says what is known of signatures: read has refused those that are wrong.
func signatureOf(st *trust.Store) string {
	if st == nil {
		return "NOT CHECKED (give --trust and --fingerprint)"
	}
	return "good"
}

func ticketMerge(s cli.Streams) *cobra.Command {
	var f ticketFlags
	return f.add(&cobra.Command{
		Use: "merge FILE...", Short: "Put several tickets of one release together, to be sent in one pass", Args: cli.Args(cobra.MinimumNArgs(1)),
		Long: `Put the tickets of several receivers that share a key, or several of one, into one text. Each stays as its receiver signed it; send takes the
maximum of what they ask for.

  bastion-packer ticket merge a.txt b.txt > both.txt
  bastion-packer send --ticket both.txt ... DIR`,
		RunE: func(_ *cobra.Command, args []string) error {
			tickets, _, err := f.read(s, args)
			if err != nil {
				return err
			}
			if tickets, err = packer.MergeTickets(tickets); err != nil {
				return verdict(err)
			}
			if err := f.printCost(s, "# ", tickets); err != nil {
				return err
			}
			for _, t := range tickets {
				if _, err := fmt.Fprintf(s.Out, "# of %s, %s\n%s", t.Receiver, t.Created.Format(time.RFC3339), t.Text()); err != nil {
					return err
				}
			}
			return nil
		},
	})
}

// read reads the tickets of all files, and checks their signatures when there is a trust object; else the store is nil.
func (f *ticketFlags) read(s cli.Streams, names []string) (all []*ticket.Signed, st *trust.Store, err error) {
	if (f.object == "") != (f.fingerprint == "") {
		return nil, nil, cli.Usage(errors.New("--trust and --fingerprint belong together"))
	}
	if f.object != "" {
		if st, err = trust.Load(f.object, f.fingerprint); err != nil {
			return nil, nil, cli.Usage(err)
		}
	}
	for _, name := range names {
		tickets, err := readTickets(s, name)
		if err != nil {
			return nil, nil, err
		}
		all = append(all, tickets...)
	}
	for _, t := range all {
		if st == nil {
			break
		}
		if err := packer.VerifyTicket(t, st); err != nil {
			return nil, nil, verdict(err)
		}
	}
	return all, st, nil
}

// readTickets reads a file, or standard input for "-".
func readTickets(s cli.Streams, name string) (_ []*ticket.Signed, err error) {
	in := s.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	tickets, err := packer.ReadTickets(in)
	if err != nil {
		return nil, verdict(fmt.Errorf("%s: %w", sourceName(name), err))
	}
	return tickets, nil
}

func sourceName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

// printCost prints what sending the tickets together costs.
func (f *ticketFlags) printCost(s cli.Streams, before string, tickets []*ticket.Signed) error {
	rate, err := strictyaml.ParseBitRate(f.rate)
	if err != nil {
		return cli.Usage(fmt.Errorf("--rate: %w", err))
	}
	if rate < 1 {
		return cli.Usage(errors.New("--rate: must be above 0"))
	}
	if !(f.repair >= 0 && f.repair <= 100) { // nor NaN
		return cli.Usage(fmt.Errorf("--repair %g is not 0 to 100 percent", f.repair))
	}
	words, err := packer.DescribeCost(tickets, f.repair, int64(rate))
	if err != nil {
		return err
	}
	_, err = fmt.Fprint(s.Out, before+words)
	return err
}

// selectTickets turns the tickets of a file into what to send of a release, and says on stderr what is odd about them.
func (f *sendFlags) selectTickets(s cli.Streams, pass packer.TicketPass) (req packer.SendRequest, err error) {
	tickets, err := readTickets(s, f.ticket)
	if err != nil {
		return req, err
	}
	if pass.Geometry, err = f.cfg.Cut(pass.Env.Statement.Predicate.TotalSize); err != nil {
		return req, err
	}
	warnings, err := pass.Check(tickets)
	if err != nil {
		return req, verdict(fmt.Errorf("%s: %w", sourceName(f.ticket), err))
	}
	for _, w := range warnings {
		if _, err := fmt.Fprintln(s.Err, "warning:", w); err != nil {
			return req, err
		}
	}
	req.Only, err = ticket.Merge(tickets, f.repair)
	return req, err
}
