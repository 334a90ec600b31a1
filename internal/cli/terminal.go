// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// Terminal is a person who can be asked for a line; [AskSecret] asks for what is not shown.
type Terminal struct {
	in  *os.File
	out io.Writer
}

// ErrLeft says that somebody left at a question.
var ErrLeft = errors.New("left without signing")

// Terminal is that of the standard streams; ok is false when standard input is none.
func (s Streams) Terminal() (t Terminal, ok bool) {
	f, ok := s.In.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return Terminal{}, false
	}
	return Terminal{f, s.Err}, true
}

// Line asks for a line. The first signal ends the question.
func (t Terminal) Line(ctx context.Context, prompt string) (string, error) {
	fmt.Fprint(t.out, prompt)
	b, err := t.interruptible(ctx, func() ([]byte, error) { return readLine(t.in) })
	return string(b), err
}

// interruptible reads until it is done, or until the first signal: then the terminal is as it was. The reading goroutine ends with the process.
func (t Terminal) interruptible(ctx context.Context, read func() ([]byte, error)) ([]byte, error) {
	before, err := term.GetState(int(t.in.Fd()))
	if err != nil {
		return nil, err
	}
	type answer struct {
		b   []byte
		err error
	}
	got := make(chan answer, 1)
	go func() {
		b, err := read()
		got <- answer{b, err}
	}()
	select {
	case a := <-got:
		return a.b, a.err
	case <-ctx.Done():
		return nil, errors.Join(Usage(ErrLeft), term.Restore(int(t.in.Fd()), before))
	}
}

// readLine reads one line and not a byte more: a passphrase may come after it.
func readLine(r io.Reader) ([]byte, error) {
	const most = 1024
	var line []byte
	for len(line) < most {
		var b [1]byte
		n, err := r.Read(b[:])
		switch {
		case n == 1 && b[0] == '\n':
			return line, nil
		case n == 1:
			line = append(line, b[0])
		case errors.Is(err, io.EOF):
			return line, nil
		case err != nil:
			return nil, err
		}
	}
	return nil, errors.New("the line is too long")
}

// Typed gives what confirms: the flag, for scripts, or a line of the terminal. Nothing is yes by default.
func (s Streams) Typed(ctx context.Context, flag, prompt string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	t, ok := s.Terminal()
	if !ok {
		return "", Usage(errors.New("nothing signed: this is no terminal, which could ask; read what stands above, and give what it asks for with --confirm"))
	}
	return t.Line(ctx, prompt)
}
