// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal: person is the side of who types and looks.
func terminal(t *testing.T) (person, tty *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here, so that asking for a PIN was NOT tested: %v", err)
	}
	t.Cleanup(func() { _ = person.Close() })
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	return person, tty
}

func echoes(t *testing.T, tty *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// until reads what the person sees up to a text.
func until(t *testing.T, person *os.File, text string) string {
	t.Helper()
	var seen []byte
	for b := make([]byte, 256); !bytes.Contains(seen, []byte(text)); {
		n, err := person.Read(b)
		if err != nil {
			t.Fatalf("%q, %v", seen, err)
		}
		seen = append(seen, b[:n]...)
	}
	return string(seen)
}

// TestAsk: the prompt is seen, what is typed is not, and the terminal is afterwards as it was.
func TestAsk(t *testing.T) {
	person, tty := terminal(t)
	for typed, want := range map[string]string{"correct horse\n": "correct horse", "\n": ""} {
		got := make(chan string, 1)
		go func() {
			secret, err := ask(t.Context(), tty, "PIN of x: ")
			if (err == nil) != (want != "") {
				t.Errorf("%q: %v", typed, err)
			}
			got <- string(secret)
		}()
		until(t, person, "PIN of x: ")
		if echoes(t, tty) {
			t.Error("the prompt stood there before the echo was off")
		}
		if _, err := person.WriteString(typed); err != nil {
			t.Fatal(err)
		}
		if secret := <-got; secret != want {
			t.Errorf("read %q, want %q", secret, want)
		}
		if seen := until(t, person, "\n"); seen != "\r\n" {
			t.Errorf("the person saw %q", seen)
		}
		if !echoes(t, tty) {
			t.Error("the echo is still off")
		}
	}
}

// TestAskInterrupted: a signal while the PIN is awaited leaves a terminal that echoes.
func TestAskInterrupted(t *testing.T) {
	person, tty := terminal(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := ask(ctx, tty, "PIN: ")
		done <- err
	}()
	until(t, person, "PIN: ")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if !echoes(t, tty) {
		t.Error("the echo is still off")
	}
	if _, err := person.WriteString("\n"); err != nil { // lets the reader go
		t.Fatal(err)
	}
}

// TestAskNobody: a file is no terminal.
func TestAskNobody(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/x")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := ask(t.Context(), f, "PIN: "); !errors.Is(err, errNoTerminal) {
		t.Error(err)
	}
}
