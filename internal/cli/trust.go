// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// TrustCommand is `trust`: making the first trust object, and what both sides compare.
//
// open opens the key of an officer, from a file or a token; nil is the high side, where trust objects are not made.
func TrustCommand(s Streams, open OpenSigner) *cobra.Command {
	c := Group("trust", "Make, change and show trust objects", trustFingerprint(s), trustExplain(s), trustShow(s))
	if open != nil {
		c.AddCommand(trustInit(s), trustPropose(s), trustApprove(s, open), trustJoin(s))
	}
	return c
}

type trustInitFlags struct {
	policy, root, out string
	members
}

func trustInit(s Streams) *cobra.Command {
	var f trustInitFlags
	c := &cobra.Command{
		Use: "init", Short: "Make the first trust object from a policy and public keys", Args: Args(cobra.NoArgs),
		Long: `Make version 1 of the trust object. It is carried to the receiver by hand, and a person on each side confirms its
fingerprint: nothing that comes over the link can replace that step.`,
		RunE: func(*cobra.Command, []string) error {
			t, err := f.build()
			if err != nil {
				return Usage(err)
			}
			payload, err := t.Marshal()
			if err != nil {
				return Usage(err)
			}
			d := envelope.DSSE{Payload: payload, PayloadType: trust.PayloadType, Signatures: []envelope.Signature{}}
			b, err := d.Marshal()
			if err != nil {
				return err
			}
			if _, err := trust.Parse(b); err != nil {
				return Usage(err)
			}
			if err := writeNew(f.out, b, 0o644); err != nil {
				return err
			}
			return printFingerprint(s, payload)
		},
	}
	c.Flags().StringVar(&f.policy, "policy", "", "file of the policy text (required)")
	c.Flags().StringVar(&f.root, "root", "", "group whose quorum signs the next trust object (required)")
	c.Flags().StringVar(&f.out, "out", "", "file of the trust object (required)")
	f.add(c, "key")
	return Require(c, "policy", "root", "out")
}

func (f *trustInitFlags) build() (*mofn.Trust, error) {
	text, err := os.ReadFile(f.policy)
	if err != nil {
		return nil, err
	}
	t := &mofn.Trust{
		Version: 1, Root: f.root, Policy: string(text), Created: envelope.FormatTime(time.Now()),
		Keys: []mofn.TrustKey{}, Links: []mofn.LinkKey{}, Receivers: []mofn.Receiver{}, Epochs: []mofn.Epoch{},
	}
	return t, f.members.into(t)
}

// readNamed reads the key of an argument NAME=FILE.
func readNamed(flag, arg string, suites ...mofn.Suite) (string, publicKey, error) {
	name, file, ok := strings.Cut(arg, "=")
	if !ok {
		return "", publicKey{}, fmt.Errorf("%s %q is not NAME=FILE", flag, arg)
	}
	k, err := readPublic(file, suites...)
	return name, k, err
}

type publicKey struct {
	suite   mofn.Suite
	id      mofn.KeyID
	public  []byte
	comment string
}

func readPublic(name string, want ...mofn.Suite) (publicKey, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return publicKey{}, err
	}
	suite, id, public, comment, err := mofn.ParsePublicFile(b)
	if err != nil {
		return publicKey{}, fmt.Errorf("%s: %w", name, err)
	}
	if !slices.Contains(want, suite) {
		return publicKey{}, fmt.Errorf("%s: is a key of suite %s, one of %s is wanted here", name, suite, joinSuites(want))
	}
	return publicKey{suite, id, public, comment}, nil
}

func joinSuites(suites []mofn.Suite) string {
	names := make([]string, len(suites))
	for i, s := range suites {
		names[i] = string(s)
	}
	return strings.Join(names, " or ")
}

func printFingerprint(s Streams, payload []byte) error {
	fp := mofn.Fingerprint(payload)
	_, err := fmt.Fprintf(s.Out, "fingerprint  %x\nwords        %s\n", fp, strings.Join(mofn.Words(fp[:]), " "))
	return err
}

func trustFingerprint(s Streams) *cobra.Command {
	return &cobra.Command{
		Use: "fingerprint FILE", Short: "Show the fingerprint of a trust object, to compare with the paper record", Args: Args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			st, err := trust.Parse(b)
			if err != nil {
				return Refused(fmt.Errorf("%s: %w", args[0], err))
			}
			_, err = fmt.Fprintf(s.Out, "fingerprint  %x\nwords        %s\n", st.Fingerprint, strings.Join(mofn.Words(st.Fingerprint[:]), " "))
			return err
		},
	}
}

func trustExplain(s Streams) *cobra.Command {
	return &cobra.Command{
		Use: "explain FILE", Short: "Say in words who can release what", Args: Args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			b, err := os.ReadFile(args[0])
			if err != nil {
				return err
			}
			st, err := trust.Parse(b)
			if err != nil {
				return Refused(fmt.Errorf("%s: %w", args[0], err))
			}
			_, err = fmt.Fprint(s.Out, st.Policy.Explain(), explainReceivers(st.Object.Receivers))
			return err
		},
	}
}

// explainReceivers says of each receiver whether it can ask for what it is missing.
func explainReceivers(receivers []mofn.Receiver) string {
	var b strings.Builder
	for _, r := range receivers {
		if r.Ticket == nil {
			fmt.Fprintf(&b, "receiver %s: no ticket key, so it cannot ask for what is missing\n", r.Name)
			continue
		}
		fmt.Fprintf(&b, "receiver %s: ticket key %v signs what it is missing\n", r.Name, mofn.NewKeyID(mofn.SuiteTicket, r.Ticket))
	}
	return b.String()
}
