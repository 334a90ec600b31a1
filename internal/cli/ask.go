// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// errNoTerminal says that nobody can be asked.
var errNoTerminal = errors.New("no terminal to ask on, and no --passphrase-file")

// AskSecret asks for a PIN or a passphrase on the terminal of the process, without echo, whatever standard input is. When ctx ends the terminal is
// put back as it was. The bytes belong to the caller, who wipes them.
func AskSecret(ctx context.Context) func(prompt string) ([]byte, error) {
	return func(prompt string) ([]byte, error) {
		tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
		if err != nil {
			return nil, fmt.Errorf("%w (%w)", errNoTerminal, err)
		}
		defer tty.Close()
		return ask(ctx, tty, prompt)
	}
}

// ask turns the echo off before it prompts: what is typed at once must not be seen either. It does so itself, and at once: a reader that did it in
// its own goroutine (term.ReadPassword) could do it after an interruption had turned the echo on again.
func ask(ctx context.Context, tty *os.File, prompt string) (_ []byte, err error) {
	fd := int(tty.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("%w (%w)", errNoTerminal, err)
	}
	quiet := *before
	quiet.Lflag = quiet.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG // line by line: the terminal sees to erasing
	quiet.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &quiet); err != nil {
		return nil, fmt.Errorf("%w (%w)", errNoTerminal, err)
	}
	defer func() { err = errors.Join(err, unix.IoctlSetTermios(fd, unix.TCSETS, before)) }()
	if _, err := fmt.Fprint(tty, prompt); err != nil {
		return nil, err
	}
	type answer struct {
		secret []byte
		err    error
	}
	read := make(chan answer, 1)
	go func() {
		secret, err := line(tty)
		read <- answer{secret, err}
	}()
	select {
	case <-ctx.Done(): // the reader ends with the process
		return nil, ctx.Err()
	case a := <-read:
		fmt.Fprintln(tty)
		if a.err == nil && len(a.secret) == 0 {
			a.err = errors.New("nothing was typed")
		}
		return a.secret, a.err
	}
}

// line reads to the end of a line. A terminal gives at most 4096 bytes of one (termios(3), canonical mode).
func line(tty io.Reader) (typed []byte, err error) {
	for b := make([]byte, 1); len(typed) < 4096; {
		n, err := tty.Read(b)
		switch {
		case n == 1 && b[0] == '\n':
			return typed, nil
		case n == 1:
			typed = append(typed, b[0])
		case errors.Is(err, io.EOF) && len(typed) > 0:
			return typed, nil
		case err != nil:
			return nil, err
		}
	}
	return nil, errors.New("a line of more than 4096 bytes was typed")
}
