// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sluice/internal/cli"
	"sluice/internal/officer"
	"sluice/internal/token"
)

// secret is where a key's passphrase or PIN comes from on a command line: a file, else the person at the terminal.
func secret(ctx context.Context, file string) token.Secret {
	return token.Secret{File: file, Ask: cli.AskSecret(ctx)}
}

// openSigner opens a key that signs: a sealed file, or the file of a key in a token.
func openSigner(ctx context.Context, key, passphraseFile string) (officer.Signer, error) {
	return token.OpenSigner(key, secret(ctx, passphraseFile))
}

// tokenKey makes a key in a token, for `keys generate --token`.
func tokenKey(ctx context.Context, r cli.TokenRequest) error {
	u, err := token.ParseURI(r.URI)
	if err != nil {
		return fmt.Errorf("--token: %w", err)
	}
	for _, name := range u.Ignored {
		r.Note(fmt.Sprintf("note: --token: attribute %q is not known, and was ignored", name))
	}
	return token.Generate(token.Request{URI: u, Suite: r.Suite, Comment: r.Comment, Secret: secret(ctx, r.PassphraseFile), Keep: r.Keep, Note: r.Note})
}

func tokenCommand(s cli.Streams) *cobra.Command {
	return cli.Group("token", "Look at PKCS#11 tokens", tokenList(s))
}

func tokenList(s cli.Streams) *cobra.Command {
	var module string
	c := &cobra.Command{
		Use: "list", Short: "Show the tokens of a PKCS#11 module, and which suites each can hold a key of", Args: cli.Args(cobra.NoArgs),
		Long: `Show the tokens that a PKCS#11 module sees: slot, names, what is odd, and what each lacks for a key of suite H1 or H2. No PIN is asked for.
The last line of a token is its URI, for keys generate --token.`,
		RunE: func(*cobra.Command, []string) error {
			u := token.URI{ModuleName: module}
			if filepath.IsAbs(module) {
				u = token.URI{ModulePath: filepath.Clean(module)}
			} else if strings.ContainsRune(module, '/') {
				return cli.Usage(errors.New("--module is an absolute path, or the name of a library as in softhsm2"))
			}
			tokens, err := token.List(u)
			if err != nil {
				return cli.Usage(err)
			}
			for _, t := range tokens {
				if err := printToken(s, t); err != nil {
					return err
				}
			}
			if len(tokens) == 0 {
				_, err = fmt.Fprintln(s.Out, "no token: is it plugged in?")
			}
			return err
		},
	}
	c.Flags().StringVar(&module, "module", "", "path of the PKCS#11 module, or its name without lib and .so (required)")
	return cli.Require(c, "module")
}

func printToken(s cli.Streams, t token.Info) error {
	state := "ready"
	if len(t.State) > 0 {
		state = strings.Join(t.State, ", ")
	}
	if _, err := fmt.Fprintf(s.Out, "slot %d: %q, %q %q, serial %q: %s\n", t.Slot, t.Label, t.Manufacturer, t.Model, t.Serial, state); err != nil {
		return err
	}
	if t.URI == "" {
		return nil // an empty place holds nothing yet
	}
	for _, suite := range []string{"H1", "H2"} {
		says := "can hold a key"
		if lack := t.Lacks[suite]; lack != "" {
			says = "lacks " + lack
		}
		if _, err := fmt.Fprintf(s.Out, "  suite %s: %s\n", suite, says); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(s.Out, "  %s\n", t.URI)
	return err
}
