// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
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

// TokenRequest asks for a key in a PKCS#11 token.
type TokenRequest struct {
	URI, PassphraseFile string
	Suite               mofn.Suite
	Comment             string
	// Keep stores the file of the key. When it fails, the key is taken out of the token again.
	Keep func(*mofn.TokenKey) error
	// Note takes what the person at the command line should know.
	Note func(string)
}

// TokenMaker makes a key in a token.
type TokenMaker func(context.Context, TokenRequest) error

// KeysCommand is `keys`: making and showing key files (docs/spec/trust.md section 2). tokens is nil on the side that has none; more are verbs
// of one side alone.
func KeysCommand(s Streams, tokens TokenMaker, more ...*cobra.Command) *cobra.Command {
	return Group("keys", "Make and show key files", append([]*cobra.Command{keysGenerate(s, tokens), keysShow(s)}, more...)...)
}

type generateFlags struct{ out, pass, use, suite, comment, token string }

func keysGenerate(s Streams, tokens TokenMaker) *cobra.Command {
	var f generateFlags
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
		RunE: func(c *cobra.Command, _ []string) error { return f.run(c.Context(), s, tokens) },
	}
	c.Flags().StringVar(&f.out, "out", "", "file of the private key (required)")
	c.Flags().StringVar(&f.pass, "passphrase-file", "", "file whose first line is the passphrase (required, but for --use model-signing)")
	c.Flags().StringVar(&f.use, "use", "sign", "sign, link, hpke, ticket or model-signing")
	c.Flags().StringVar(&f.suite, "suite", "", "H1 or H2, for --use sign (default H1)")
	c.Flags().StringVar(&f.comment, "comment", "", "whose key it is")
	c.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if f.token != "" || f.use == useModelSigning {
			return missing(cmd, "out")
		}
		return missing(cmd, "out", "passphrase-file")
	}
	if tokens != nil {
		c.Flags().StringVar(&f.token, "token", "", "PKCS#11 URI of a token that the key is made in and stays in; the PIN is asked for, or read from --passphrase-file")
		c.Flags().Lookup("passphrase-file").Usage = "file whose first line is the passphrase (required without --token, but for --use model-signing)"
		c.Long += tokenHelp
	}
	return c
}

const tokenHelp = `

  keys generate --token 'pkcs11:token=officer-1?module-path=/usr/lib/softhsm/libsofthsm2.so' --out s.ito --comment 'S. Ito'

With --token the key is made in a PKCS#11 token, and OUT is a small file that says where, and is worth nothing without the token; it takes the place of
the private key everywhere. Keep a copy of it beside the token's: without it the key is lost.`

func (f *generateFlags) run(ctx context.Context, s Streams, tokens TokenMaker) error {
	if f.use == useModelSigning {
		return modelKeyFiles(s, f.out, f.pass+f.suite+f.comment+f.token)
	}
	suite, err := suiteOf(f.use, f.suite)
	if err != nil {
		return Usage(err)
	}
	var id mofn.KeyID
	switch {
	case f.token != "" && !suite.Signs():
		return Usage(fmt.Errorf("--token goes with --use sign only: a key for %q is kept in a file", f.use))
	case f.token != "":
		id, err = f.inToken(ctx, s, suite, tokens)
	default:
		pass, perr := trust.ReadPassphrase(f.pass)
		if perr != nil {
			return Usage(perr)
		}
		id, err = WriteKey(f.out, suite, f.comment, pass)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.Out, "%s  %s  %s\n", id, f.out+".pub", f.comment)
	return err
}

// inToken makes a key in a token and writes its two files.
func (f *generateFlags) inToken(ctx context.Context, s Streams, suite mofn.Suite, tokens TokenMaker) (id mofn.KeyID, err error) {
	if err := noneThere(f.out); err != nil {
		return id, err
	}
	keep := func(k *mofn.TokenKey) error {
		file, err := k.Marshal()
		if err != nil {
			return err
		}
		public, err := k.MarshalPublic()
		if err != nil {
			return err
		}
		id = k.ID()
		if err := writeNew(f.out, file, 0o600); err != nil {
			return err
		}
		if err := writeNew(f.out+".pub", public, 0o644); err != nil {
			return errors.Join(err, os.Remove(f.out)) // its key is taken out of the token again
		}
		return nil
	}
	note := func(text string) { fmt.Fprintln(s.Err, text) }
	err = tokens(ctx, TokenRequest{URI: f.token, PassphraseFile: f.pass, Suite: suite, Comment: f.comment, Keep: keep, Note: note})
	return id, Usage(err)
}

// noneThere looks for both files before one of them is written.
func noneThere(out string) error {
	for _, name := range []string{out, out + ".pub"} {
		if _, err := os.Lstat(name); err == nil {
			return errExists(name)
		}
	}
	return nil
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
		return Usage(errors.New("--passphrase-file, --suite, --comment and --token do not go with --use model-signing: its files are PEM, unencrypted, P-384, and have no room for a name"))
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
	if err := noneThere(out); err != nil {
		return err
	}
	if err := writeNew(out, private, 0o600); err != nil {
		return err
	}
	return writeNew(out+".pub", public, 0o644)
}

// WriteKey makes a key pair and writes both files. It never overwrites one.
func WriteKey(out string, suite mofn.Suite, comment string, passphrase []byte) (mofn.KeyID, error) {
	if err := noneThere(out); err != nil {
		return mofn.KeyID{}, err
	}
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
		Use: "show FILE.pub...", Short: "Show id, suite and owner of public keys, and of keys in tokens", Args: Args(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			for _, name := range args {
				b, err := os.ReadFile(name)
				if err != nil {
					return err
				}
				line, err := showKey(b)
				if err != nil {
					return Refused(fmt.Errorf("%s: %w", name, err))
				}
				if _, err := fmt.Fprintln(s.Out, line); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// showKey says what a public file, or the file of a key in a token, is of.
func showKey(b []byte) (string, error) {
	if mofn.IsTokenKey(b) {
		k, err := mofn.ParseTokenKey(b)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s  %s  %s  in a token: %s", k.ID(), k.Suite, k.Comment, k.Token), nil
	}
	suite, id, _, comment, err := mofn.ParsePublicFile(b)
	return fmt.Sprintf("%s  %s  %s", id, suite, comment), err
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
