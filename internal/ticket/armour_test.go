// SPDX-License-Identifier: Apache-2.0

package ticket_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"sluice/internal/ticket"
)

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

// TestEveryTypo: any one wrong character, and any two neighbours that changed places, are found, in their line.
func TestEveryTypo(t *testing.T) {
	lines := strings.Split(strings.ReplaceAll(signed(t, sample()).Text(), " ", ""), "\n")
	tries := 0
	for n, line := range lines {
		for at := range len(line) {
			for _, c := range alphabet {
				tries += wantTypo(t, lines, n, line[:at]+string(c)+line[at+1:])
			}
			if at+1 < len(line) {
				tries += wantTypo(t, lines, n, line[:at]+line[at+1:at+2]+line[at:at+1]+line[at+2:])
			}
			tries += wantTypo(t, lines, n, line[:at]+line[at+1:])
		}
	}
	if tries < 9000 {
		t.Errorf("only %d mistakes were tried", tries)
	}
}

// wantTypo puts another line in the place of line n, and wants it to be named.
func wantTypo(t *testing.T, lines []string, n int, with string) int {
	t.Helper()
	if with == lines[n] {
		return 0
	}
	wrong := append([]string(nil), lines...)
	wrong[n] = with
	_, err := ticket.ReadText([]byte(strings.Join(wrong, "\n")))
	if !errors.Is(err, ticket.ErrTyping) || !strings.Contains(err.Error(), "line "+itoa(n+1)+" of the text") {
		t.Fatalf("line %d as %s: %v", n+1, with, err)
	}
	return 1
}

func TestTextLimits(t *testing.T) {
	text := signed(t, sample()).Text()
	for name, c := range map[string]struct {
		text, want string
	}{
		"as much as may be": {strings.Repeat(text, ticket.MaxTickets), ""},
		"the longest":       {strings.Repeat(signed(t, longest()).Text(), ticket.MaxTickets), ""},
		"one too many":      {strings.Repeat(text, ticket.MaxTickets+1), "more than 64 tickets"},
		"too long":          {strings.Repeat("#\n", ticket.MaxText), "a text of 1048576 bytes"},
		"nothing":           {"", "no ticket"},
	} {
		list, err := ticket.ReadText([]byte(c.text))
		if (err == nil) != (c.want == "") || err != nil && (!errors.Is(err, ticket.ErrFormat) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && len(list) != ticket.MaxTickets {
			t.Errorf("%s: %d tickets", name, len(list))
		}
	}
}

// TestQRFits: the longest ticket is a QR code of level M, version 40, in alphanumeric mode (ISO/IEC 18004: 3391 characters).
func TestQRFits(t *testing.T) {
	if n := len(signed(t, longest()).QR()); n > 3391 {
		t.Errorf("%d characters", n)
	}
}

func FuzzReadText(f *testing.F) {
	for _, text := range goodVectors(f) {
		f.Add([]byte(text))
	}
	for _, v := range badVectors(f) {
		f.Add([]byte(v.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := ticket.ReadText(text)
		if (err == nil) != (len(list) > 0) {
			t.Fatalf("%d tickets and %v", len(list), err)
		}
		for _, s := range list {
			again, err := ticket.ReadText([]byte(s.Text()))
			if err != nil || len(again) != 1 || !bytes.Equal(again[0].Bytes(), s.Bytes()) {
				t.Fatalf("read %x, and of its own text %v, %v", s.Bytes(), again, err)
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, text := range goodVectors(f) {
		list, err := ticket.ReadText([]byte(text))
		if err != nil {
			f.Fatal(err)
		}
		for _, s := range list {
			f.Add(s.Bytes())
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ticket.Parse(b)
		if err != nil {
			if !errors.Is(err, ticket.ErrFormat) {
				t.Fatalf("%v is no ErrFormat", err)
			}
			return
		}
		again, err := ticket.Sign(s.Ticket, testKey("site-a"))
		if err != nil || !bytes.Equal(again.Bytes()[:len(b)-64], b[:len(b)-64]) {
			t.Fatalf("written again it is %x, %v", again, err)
		}
		g, err := s.Geometry()
		if err != nil {
			t.Fatal(err)
		}
		only, err := s.Selection(ticket.Spare)
		if err != nil {
			t.Fatal(err)
		}
		if err := only.Check(g); err != nil {
			t.Fatalf("what is to be sent does not exist: %v", err)
		}
	})
}
