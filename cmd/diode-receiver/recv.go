// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"sluice/internal/admin"
	"sluice/internal/cli"
	"sluice/internal/receiver"
	"sluice/internal/recv"
)

// recvVerb makes this program the process that faces the link.
const recvVerb = "recv"

// frontArguments are the arguments with which the daemon starts it: it reads no configuration.
func frontArguments(cfg receiver.Config) []string {
	return []string{recvVerb, "--log-level", cfg.Log.Level, "--log-format", cfg.Log.Format}
}

// roomForReaders has Go run one goroutine more at a time for each reader, unless GOMAXPROCS is set. A reader comes back from the kernel
// with half a MiB of the link, and has to go on at once: with as many as there are processors it waits until one of the others (the one
// that authenticates, those that write) pauses, up to 10 ms, and its socket overflows meanwhile. Whom to run is the kernel's to say then,
// which knows who waits for what.
func roomForReaders(readers int) {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + readers)
	}
}

func recvCommand(s cli.Streams) *cobra.Command {
	var level, format string
	var count int
	c := &cobra.Command{
		Use: recvVerb, Hidden: true, Short: "Be the process that faces the link", Args: cli.Args(cobra.NoArgs),
		Long: `Be the process that faces the link. The daemon starts it, hands it the sockets, and tells it what to do; it takes no configuration and
holds no key. There is nothing to start by hand.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// It ends when the daemon closes the connection, and not by a signal that a terminal sends to both.
			signal.Ignore(syscall.SIGINT, syscall.SIGTERM)
			limitMemory(frontMemory)
			roomForReaders(count)
			log, err := admin.NewLogger(level, s.Err, format == "json")
			if err != nil {
				return cli.Usage(err)
			}
			control, sockets, err := recv.Inherited(count)
			if err != nil {
				return cli.Usage(err)
			}
			return recv.ServeFront(cmd.Context(), control, sockets, log.Named(recvVerb))
		},
	}
	c.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	c.Flags().IntVar(&count, recv.SocketsFlag, 1, "how many sockets were inherited")
	c.Flags().StringVar(&format, "log-format", "json", "json or text")
	return c
}
