// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sluice/internal/oms"
	"sluice/internal/trust"
	"sluice/pkg/mofn"
)

// KeysCommand is `keys`: making and showing key files (docs/spec/trust.md section 2).
func KeysCommand(s Streams) *cobra.Command {
	return Group("keys", "Make and show key files", keysGenerate(s), keysShow(s))
}

func keysGenerate(s Streams) *cobra.Command {
	var out, passphraseFile, use, suiteName, comment string
	c := &cobra.Command{
		Use: "generate", Short: "Make a key pair: OUT (private, encrypted) and OUT.pub", Args: Args(cobra.NoArgs),
		Long: `Make a key pair. The private key goes to OUT, mode 0600, encrypted under the passphrase; the public one to OUT.pub.

  --use sign    officers, the packer, the trust root: ML-DSA-65 + Ed25519 (--suite H1), or
                ML-DSA-87 + ECDSA P-384 (--suite H2) where the rules or the tokens of a site want it
  --use link    Ed25519: the bastion announces sessions with it
  --use hpke    X-Wing: the receiver's, which session keys are encrypted to
  --use ticket  Ed25519: the receiver's, which signs what it asks to have sent again
  --use model-signing  ECDSA P-384: the receiver's, which signs published models for tools that know OMS and not Sluice.
                PEM files (PKCS #8, SubjectPublicKeyInfo), as those tools and openssl read them. The private one is not
                encrypted, and takes no passphrase: mode 0600 is all that keeps it`,
		RunE: func(*cobra.Command, []string) error {
			if use == useModelSigning {
				return modelKeyFiles(s, out, passphraseFile+suiteName+comment)
			}
			suite, err := suiteOf(use, suiteName)
			if err != nil {
				return Usage(err)
			}
			pass, err := trust.ReadPassphrase(passphraseFile)
			if err != nil {
				return Usage(err)
			}
			id, err := WriteKey(out, suite, comment, pass)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(s.Out, "%s  %s  %s\n", id, out+".pub", comment)
			return err
		},
	}
	c.Flags().StringVar(&out, "out", "", "file of the private key (required)")
	c.Flags().StringVar(&passphraseFile, "passphrase-file", "", "file whose first line is the passphrase (required, but for --use model-signing)")
	c.Flags().StringVar(&use, "use", "sign", "sign, link, hpke, ticket or model-signing")
	c.Flags().StringVar(&suiteName, "suite", "", "H1 or H2, for --use sign (default H1)")
	c.Flags().StringVar(&comment, "comment", "", "whose key it is")
	c.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if use == useModelSigning {
			return missing(cmd, "out")
		}
		return missing(cmd, "out", "passphrase-file")
	}
	return c
}

// suiteOf says which key a use has; only signatures leave a choice.
func suiteOf(use, suite string) (mofn.Suite, error) {
	if suite != "" && use != "sign" {
		return "", fmt.Errorf("--suite %s goes with --use sign only: a key for %q has one suite", suite, use)
	}
	switch use {
	case "sign":
		if chosen := mofn.Suite(cmp.Or(suite, string(mofn.SuiteH1))); chosen.Signs() {
			return chosen, nil
		}
		return "", fmt.Errorf("--suite %q is not H1 or H2", suite)
	case "link":
		return mofn.SuiteLink, nil
	case "hpke":
		return mofn.SuiteXWing, nil
	case "ticket":
		return mofn.SuiteTicket, nil
	}
	return "", fmt.Errorf("--use %q is not sign, link, hpke, ticket or model-signing", use)
}

// useModelSigning is the use of the one key that is no key of ours: tools of others read its files.
const useModelSigning = "model-signing"

// modelKeyFiles makes the key that signs models (docs/spec/model-signature.md section 3).
func modelKeyFiles(s Streams, out, meaningless string) error {
	if meaningless != "" {
		return Usage(errors.New("--passphrase-file, --suite and --comment do not go with --use model-signing: its files are PEM, unencrypted, P-384, and have no room for a name"))
	}
	private, public, err := oms.GenerateKey()
	if err != nil {
		return err
	}
	key, err := oms.ParsePublicKey(public)
	if err != nil {
		return err
	}
	if err := writePair(out, private, public); err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.Out, "%s  %s\n", key.Hint(), out+".pub")
	return err
}

// writePair writes both files of a key, or, if one exists, none.
func writePair(out string, private, public []byte) error {
	for _, name := range []string{out, out + ".pub"} {
		if _, err := os.Lstat(name); err == nil {
			return errExists(name)
		}
	}
	if err := writeNew(out, private, 0o600); err != nil {
		return err
	}
	return writeNew(out+".pub", public, 0o644)
}

// WriteKey makes a key pair and writes both files. It never overwrites one.
func WriteKey(out string, suite mofn.Suite, comment string, passphrase []byte) (mofn.KeyID, error) {
	key, err := mofn.GenerateSecret(rand.Reader, suite, comment)
	if err != nil {
		return mofn.KeyID{}, err
	}
	private, err := key.Seal(rand.Reader, passphrase, mofn.DefaultScrypt())
	if err != nil {
		return mofn.KeyID{}, err
	}
	public, err := key.MarshalPublic()
	if err != nil {
		return mofn.KeyID{}, err
	}
	return key.ID(), writePair(out, private, public)
}

func errExists(name string) error {
	return Usage(fmt.Errorf("%s exists; keys and trust objects are never overwritten", name))
}

func writeNew(name string, data []byte, perm os.FileMode) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if errors.Is(err, os.ErrExist) {
		return errExists(name)
	}
	if err != nil {
		return err
	}
	_, werr := f.Write(data)
	return errors.Join(werr, f.Sync(), f.Close())
}

func keysShow(s Streams) *cobra.Command {
	return &cobra.Command{
		Use: "show FILE.pub...", Short: "Show id, suite and owner of public keys", Args: Args(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			for _, name := range args {
				b, err := os.ReadFile(name)
				if err != nil {
					return err
				}
				suite, id, _, comment, err := mofn.ParsePublicFile(b)
				if err != nil {
					return Refused(fmt.Errorf("%s: %w", name, err))
				}
				if _, err := fmt.Fprintf(s.Out, "%s  %s  %s\n", id, suite, comment); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// requireFlags refuses a command line without them, as an error of usage.
func requireFlags(c *cobra.Command, names ...string) {
	c.PreRunE = func(cmd *cobra.Command, _ []string) error { return missing(cmd, names...) }
}

// missing names the flags that are not given.
func missing(cmd *cobra.Command, names ...string) error {
	var absent []string
	for _, n := range names {
		if f := cmd.Flags().Lookup(n); f == nil || slices.Contains([]string{"", "[]", "0"}, f.Value.String()) {
			absent = append(absent, "--"+n)
		}
	}
	if len(absent) > 0 {
		return Usage(fmt.Errorf("%s missing; see %s --help", strings.Join(absent, ", "), cmd.CommandPath()))
	}
	return nil
}

// Require is requireFlags for the commands of other packages.
func Require(c *cobra.Command, names ...string) *cobra.Command {
	requireFlags(c, names...)
	return c
}
