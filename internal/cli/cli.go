// SPDX-License-Identifier: Apache-2.0

// Package cli is what the two command lines share: how a program ends, the version, and the verbs that both sides need
// (keys, trust, audit).
//
//	main --> cli.Main --> run(ctx, args, stdin, stdout, stderr) error --> exit code
//
// Nothing else in the module decides how a process ends. stdout carries results, stderr carries logs, progress and errors.
// The first SIGINT or SIGTERM drains, the second kills.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes, as a supervisor reads them (docs/operations.md).
const (
	ExitOK      = 0
	ExitFailed  = 1 // a restart may help
	ExitUsage   = 2 // usage or configuration: do not restart
	ExitRefused = 3 // the verdict is no; evidence was written
)

// exitStatus is the paragraph that every help text ends with; Run puts it there.
const exitStatus = `
EXIT STATUS
  0  done
  1  failed; trying again may help
  2  wrong usage or configuration; trying again will not help
  3  refused: the verdict is no`

// UsageError marks an error of usage or configuration.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap gives the error itself.
func (e *UsageError) Unwrap() error { return e.Err }

// Usage marks err, unless it is nil.
func Usage(err error) error {
	if err == nil {
		return nil
	}
	return &UsageError{err}
}

// RefusedError marks a negative verdict.
type RefusedError struct{ Err error }

func (e *RefusedError) Error() string { return e.Err.Error() }

// Unwrap gives the reason.
func (e *RefusedError) Unwrap() error { return e.Err }

// Refused marks err, unless it is nil.
func Refused(err error) error {
	if err == nil {
		return nil
	}
	return &RefusedError{err}
}

// ExitCode decides how the process ends.
func ExitCode(err error) int {
	var usage *UsageError
	var refused *RefusedError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &refused):
		return ExitRefused
	case errors.As(err, &usage):
		return ExitUsage
	default:
		return ExitFailed
	}
}

// Streams are the process's standard streams.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// Main runs a command line as a process and returns its exit code.
func Main(root func(Streams) *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // from the first signal on, the second one kills
	return Run(ctx, root, os.Args[1:], Streams{os.Stdin, os.Stdout, os.Stderr})
}

// Run runs a command line in the process that calls it, prints its error, and returns the exit code.
func Run(ctx context.Context, root func(Streams) *cobra.Command, args []string, s Streams) int {
	cmd := root(s)
	cmd.SetArgs(args)
	cmd.SetIn(s.In)
	cmd.SetOut(s.Out)
	cmd.SetErr(s.Err)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return Usage(fmt.Errorf("%w; see %s --help", err, c.CommandPath()))
	})
	explainExit(cmd)
	err := cmd.ExecuteContext(ctx)
	if err != nil {
		fmt.Fprintf(s.Err, "%s: %v\n", cmd.Name(), err)
	}
	return ExitCode(err)
}

// explainExit ends the help text of every verb with the exit codes.
func explainExit(c *cobra.Command) {
	if c.Long == "" {
		c.Long = c.Short + "."
	}
	c.Long = strings.TrimRight(c.Long, "\n") + "\n" + exitStatus
	for _, sub := range c.Commands() {
		explainExit(sub)
	}
}

// Args wraps a cobra argument rule so that breaking it is an error of usage.
func Args(rule cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := rule(cmd, args); err != nil {
			return Usage(fmt.Errorf("%w; see %s --help", err, cmd.CommandPath()))
		}
		return nil
	}
}

// Group makes a verb that only has verbs below it. Called without one, or with a word it does not know, it is an error of usage.
func Group(use, short string, sub ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: Args(cobra.NoArgs), RunE: func(cmd *cobra.Command, _ []string) error {
		return Usage(fmt.Errorf("a verb is required; see %s --help", cmd.CommandPath()))
	}}
	c.AddCommand(sub...)
	return c
}

// Version is the version of the build: the link-time one, else the module's.
func Version(stamped string) string {
	if stamped != "" {
		return stamped
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

// VersionCommand prints the version.
func VersionCommand(s Streams, version string) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: Args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(s.Out, version)
			return err
		},
	}
}
