// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/internal/console"
	"sluice/internal/dropbox"
	"sluice/internal/officer"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// chainFlags say which chain a verb goes by.
type chainFlags struct {
	box, object, fingerprint string
}

func (f *chainFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.box, "drop-box", "", "the drop-box folder (required)")
	c.Flags().StringVar(&f.object, "trust", "", "file of the first trust object (required)")
	c.Flags().StringVar(&f.fingerprint, "fingerprint", "", "its fingerprint, from the paper record (required)")
}

func (f *chainFlags) open() (dropbox.Box, *officer.Anchor, error) {
	box := dropbox.Box{Dir: f.box}
	anchor, err := officer.OpenAnchor(box, f.object, f.fingerprint)
	return box, anchor, trustError(err)
}

// OpenSigner opens a key that signs, from its file and the file of its passphrase or PIN; "": the terminal asks.
type OpenSigner func(ctx context.Context, key, passphraseFile string) (officer.Signer, error)

// trustError tells wrong usage from a verdict, and both from a stick that went away.
func trustError(err error) error {
	for _, wrong := range []error{trust.ErrFingerprint, officer.ErrNoOfficer, officer.ErrSigned, officer.ErrConfirm, dropbox.ErrExists, mofn.ErrPassphrase, mofn.ErrKeyFile} {
		if errors.Is(err, wrong) {
			return Usage(err)
		}
	}
	for _, verdict := range []error{officer.ErrChain, officer.ErrProposal, officer.ErrKeyID, dropbox.ErrHostile, mofn.ErrTrust, mofn.ErrPolicy, mofn.ErrSignature} {
		if errors.Is(err, verdict) {
			return Refused(err)
		}
	}
	return err
}

func trustPropose(s Streams) *cobra.Command {
	var chain chainFlags
	var in members
	var out leavers
	var policy, root string
	c := &cobra.Command{
		Use: "propose", Short: "Propose the next version of the trust object to the officers", Args: Args(cobra.NoArgs),
		Long: `Make the version after the newest one of the drop-box's chain, with what the flags change, and write it into the drop-box, unsigned. It counts
when the quorum of the newest version and its own have signed it (trust approve).`,
		RunE: func(*cobra.Command, []string) error {
			box, anchor, err := chain.open()
			if err != nil {
				return err
			}
			next := copyTrust(anchor.Newest().Object)
			next.Created = envelope.FormatTime(time.Now())
			if policy != "" {
				text, err := os.ReadFile(policy)
				if err != nil {
					return err
				}
				next.Policy = string(text)
			}
			if root != "" {
				next.Root = root
			}
			if err := errors.Join(out.from(next), in.into(next)); err != nil {
				return Usage(err)
			}
			p, err := officer.Propose(box, anchor, next)
			if errors.Is(err, mofn.ErrTrust) || errors.Is(err, mofn.ErrPolicy) || errors.Is(err, officer.ErrProposal) {
				return Usage(err) // what the flags came to
			}
			if err != nil {
				return trustError(err)
			}
			return printProposal(s, p)
		},
	}
	chain.add(c)
	in.add(c, "add-key")
	out.add(c)
	c.Flags().StringVar(&policy, "policy", "", "file of the new policy text; without it the policy stays")
	c.Flags().StringVar(&root, "root", "", "group whose quorum signs the version after this one; without it the group stays")
	return Require(c, "drop-box", "trust", "fingerprint")
}

// copyTrust has lists of its own: the newest version must stay as it was signed.
func copyTrust(t *mofn.Trust) *mofn.Trust {
	c := *t
	c.Keys, c.Links, c.Receivers = slices.Clone(t.Keys), slices.Clone(t.Links), slices.Clone(t.Receivers)
	c.Heartbeats, c.Logs, c.Epochs = slices.Clone(t.Heartbeats), slices.Clone(t.Logs), slices.Clone(t.Epochs)
	return &c
}

// printProposal is the page about a proposal: what changes, by people and by fingerprint, and who is missing.
func printProposal(s Streams, p *officer.Proposal) error {
	var b strings.Builder
	line := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "%-11s %s\n", key, console.Clean(fmt.Sprintf(format, args...)))
	}
	line("PROPOSAL", "version %d of the trust object, after version %d; made %s", p.Version, p.Current.Version, p.Next.Created)
	for _, text := range officer.Compare(p.Current, p.Next) {
		line("!!", "%s", text)
	}
	line("ROOT", "the group %s signs the version after it", p.Next.Root)
	signed := "nobody yet"
	if who := p.Signed(); len(who) > 0 {
		signed = strings.Join(who, ", ")
	}
	line("SIGNED", "%s", signed)
	for _, text := range p.Problems {
		line("IGNORED", "%s", text)
	}
	for _, text := range p.Missing() {
		line("MISSING", "%s", text)
	}
	line("FINGERPRINT", "%s", p.Fingerprint)
	line("WORDS", "%s", p.Words())
	_, err := fmt.Fprint(s.Out, b.String())
	return err
}

type trustApproveFlags struct {
	chainFlags
	key, pass, confirm string
}

func trustApprove(s Streams, open OpenSigner) *cobra.Command {
	var f trustApproveFlags
	c := &cobra.Command{
		Use: "approve [PROPOSAL]", Short: "Show what a proposed trust object changes, and sign it, as an officer", Args: Args(cobra.MaximumNArgs(1)),
		Long: `Show what a proposal changes: officers, keys by their fingerprints, rules, floors, receivers. Then ask for the first two words of its
fingerprint, typed, sign it in the role root, and write one new file. Officers of the quorum of the newest version sign, and those of the
proposal's own. PROPOSAL is the beginning of its fingerprint; it may be left out when there is one.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			box, anchor, err := f.open()
			if err != nil {
				return err
			}
			p, err := officer.FindProposal(box, anchor, strings.Join(args, ""))
			if err != nil {
				return trustError(err)
			}
			return f.approve(cmd.Context(), s, box, p, open)
		},
	}
	f.add(c)
	c.Flags().StringVar(&f.key, "key", "", "the officer's private key file (required)")
	c.Flags().StringVar(&f.pass, "passphrase-file", "", "file whose first line is its passphrase; without it the terminal asks")
	c.Flags().StringVar(&f.confirm, "confirm", "", "the first two words of the fingerprint, for scripts")
	return Require(c, "drop-box", "trust", "fingerprint", "key")
}

func (f *trustApproveFlags) approve(ctx context.Context, s Streams, box dropbox.Box, p *officer.Proposal, open OpenSigner) (err error) {
	id, err := officer.KeyIDOf(f.key)
	if err != nil {
		return Usage(err)
	}
	who, err := p.RootPerson(id)
	if err != nil {
		return trustError(err)
	}
	if err := printProposal(s, p); err != nil {
		return err
	}
	fmt.Fprintf(s.Out, "%-11s you sign as %s, role root, with the key %.16s…\n", "YOU", who, id)
	typed, err := s.Typed(ctx, f.confirm, "\nTo sign this version, type the first two words of its fingerprint, and Enter. Anything else leaves without signing.\n> ")
	if err != nil {
		return err
	}
	if err := officer.CheckTyped(typed, p.Typed()); err != nil {
		return trustError(err)
	}
	signer, err := open(ctx, f.key, f.pass)
	if err != nil {
		return Usage(err)
	}
	defer CloseInto(&err, signer)
	if signer.KeyID() != id {
		return trustError(fmt.Errorf("%w: %s", officer.ErrKeyID, f.key))
	}
	name, missing, err := officer.SignProposal(box, p, signer)
	if err != nil {
		return trustError(err)
	}
	fmt.Fprintf(s.Out, "\nsigned: trust/proposals/%06d/%s\n  written, read back and verified\n", p.Version, name)
	if len(missing) == 0 {
		_, err = fmt.Fprintln(s.Out, "  both quorums are there: the bastion takes it up, and it takes effect after its quarantine")
		return err
	}
	for _, text := range missing {
		fmt.Fprintf(s.Out, "  still missing: %s\n", console.Clean(text))
	}
	return nil
}

func trustJoin(s Streams) *cobra.Command {
	var f chainFlags
	var out string
	c := &cobra.Command{
		Use: "join [PROPOSAL]", Short: "Put the signatures of a proposal together, where no daemon does it", Args: Args(cobra.MaximumNArgs(1)),
		Long: "Put the signatures of a proposal together to one trust object, if both quorums are there, for sites without the bastion's daemon.",
		RunE: func(_ *cobra.Command, args []string) error {
			box, anchor, err := f.open()
			if err != nil {
				return err
			}
			p, err := officer.FindProposal(box, anchor, strings.Join(args, ""))
			if err != nil {
				return trustError(err)
			}
			joined, err := p.Join()
			if err != nil {
				return trustError(err)
			}
			if err := writeNew(out, joined, 0o644); err != nil {
				return err
			}
			return printFingerprint(s, p.Payload)
		},
	}
	f.add(c)
	c.Flags().StringVar(&out, "out", "", "file of the trust object (required)")
	return Require(c, "drop-box", "trust", "fingerprint", "out")
}

func trustShow(s Streams) *cobra.Command {
	return &cobra.Command{
		Use: "show FILE|DIR", Short: "Show a trust object, or a whole chain with each link verified", Args: Args(cobra.ExactArgs(1)),
		Long: `Show a trust object. Of a directory with 000001.json, 000002.json, … (trust/chain of a drop-box) all are shown, each verified against the one
before, with what it changed. The first is believed as it stands: compare its words with the paper record.`,
		RunE: func(_ *cobra.Command, args []string) error {
			info, err := os.Stat(args[0])
			if err != nil {
				return err
			}
			chain := []*trust.Store{}
			if info.IsDir() {
				chain, err = officer.LoadChain(args[0])
			} else {
				var st *trust.Store
				st, err = loadTrust(args[0])
				chain = append(chain, st)
			}
			if err != nil {
				return Refused(err)
			}
			return showChain(s, chain)
		},
	}
}

func loadTrust(name string) (*trust.Store, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	st, err := trust.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return st, nil
}

func showChain(s Streams, chain []*trust.Store) error {
	var b strings.Builder
	for i, st := range chain {
		fmt.Fprintf(&b, "version %d   %s\n", st.Object.Version, st.Object.Created)
		fmt.Fprintf(&b, "fingerprint  %x\nwords        %s\n", st.Fingerprint, strings.Join(mofn.Words(st.Fingerprint[:]), " "))
		if i > 0 {
			for _, text := range officer.Compare(chain[i-1].Object, st.Object) {
				fmt.Fprintf(&b, "changed      %s\n", console.Clean(text))
			}
			fmt.Fprintf(&b, "verified     signed by the quorum of version %d and its own\n", i)
		}
		b.WriteString("\n")
	}
	last := chain[len(chain)-1]
	fmt.Fprintf(&b, "%s%sthe group %s signs the next version\n", last.Policy.Explain(), explainReceivers(last.Object.Receivers), last.Object.Root)
	for _, k := range last.Object.Heartbeats {
		fmt.Fprintf(&b, "heartbeat key %v (%s) signs snapshots\n", k.ID, console.Clean(k.Comment))
	}
	for _, l := range last.Object.Logs {
		fmt.Fprintf(&b, "log %s: key %v signs its checkpoints\n", l.Origin, l.ID)
	}
	for _, e := range last.Object.Epochs {
		fmt.Fprintf(&b, "floor of %s: nothing below epoch %d seq %d\n", e.Stream, e.MinEpoch, e.MinSeq)
	}
	_, err := fmt.Fprint(s.Out, b.String())
	return err
}
