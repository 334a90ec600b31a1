// SPDX-License-Identifier: Apache-2.0

package cli_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"sluice/internal/cli"
)

func TestExitCode(t *testing.T) {
	plain := errors.New("x")
	for _, c := range []struct {
		name string
		err  error
		want int
	}{
		{"nothing", nil, cli.ExitOK},
		{"any error", plain, cli.ExitFailed},
		{"usage", cli.Usage(plain), cli.ExitUsage},
		{"refused", cli.Refused(plain), cli.ExitRefused},
		{"usage in context", fmt.Errorf("a: %w", cli.Usage(plain)), cli.ExitUsage},
		{"refused in context", fmt.Errorf("a: %w", cli.Refused(plain)), cli.ExitRefused},
		{"refused joined with a failure to close", errors.Join(cli.Refused(plain), plain), cli.ExitRefused},
		{"no usage", cli.Usage(nil), cli.ExitOK},
		{"no refusal", cli.Refused(nil), cli.ExitOK},
	} {
		if got := cli.ExitCode(c.err); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if !errors.Is(cli.Usage(plain), plain) || !errors.Is(cli.Refused(plain), plain) {
		t.Error("the mark hides the error")
	}
}

// run runs a command line of a small program: say needs a word, and --tone, --times and --list.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = cli.Run(t.Context(), func(s cli.Streams) *cobra.Command {
		say := &cobra.Command{Use: "say WORD", Short: "Say", Args: cli.Args(cobra.ExactArgs(1)), RunE: func(_ *cobra.Command, args []string) error {
			_, err := fmt.Fprintln(s.Out, args[0])
			return err
		}}
		say.Flags().String("tone", "", "")
		say.Flags().Int("times", 0, "")
		say.Flags().StringSlice("list", nil, "")
		return cli.Group("prog", "A program", cli.Group("deep", "Deeper", cli.Require(say, "tone", "times", "list")))
	}, args, cli.Streams{In: strings.NewReader(""), Out: &out, Err: &errs})
	return code, out.String(), errs.String()
}

func TestRun(t *testing.T) {
	all := []string{"deep", "say", "--tone", "loud", "--times", "2", "--list", "a,b"}
	for _, c := range []struct {
		name  string
		args  []string
		code  int
		words string // on stdout for code 0, else on stderr
	}{
		{"all there", append(all, "hello"), 0, "hello"},
		{"no verb", nil, 2, "a verb is required; see prog --help"},
		{"unknown verb", []string{"fly"}, 2, "fly"},
		{"no verb below", []string{"deep"}, 2, "a verb is required; see prog deep --help"},
		{"unknown verb below", []string{"deep", "fly"}, 2, "fly"},
		{"too many words", append(all, "hello", "you"), 2, "see prog deep say --help"},
		{"unknown flag", append(all, "--fly", "x"), 2, "unknown flag: --fly; see prog deep say --help"},
		{"missing flags, all of them", []string{"deep", "say", "hello"}, 2, "--tone, --times, --list missing; see prog deep say --help"},
		{"an empty flag is missing", []string{"deep", "say", "--tone=", "--times", "1", "--list", "a", "hello"}, 2, "--tone missing"},
		{"help of a verb", []string{"deep", "say", "--help"}, 0, "3  refused: the verdict is no"},
		{"help of the program", []string{"--help"}, 0, "EXIT STATUS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, stdout, stderr := run(t, c.args...)
			told, silent := stdout, stderr
			if c.code != 0 {
				told, silent = stderr, stdout
			}
			if code != c.code || !strings.Contains(told, c.words) || silent != "" {
				t.Errorf("exit %d, want %d with %q\nstdout: %s\nstderr: %s", code, c.code, c.words, stdout, stderr)
			}
		})
	}
}
