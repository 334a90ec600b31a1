// SPDX-License-Identifier: Apache-2.0

package ticket

import (
	"bytes"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"strings"
)

// The text of docs/spec/ticket.md section 3.
const (
	// MaxText is the longest text that is read: MaxTickets of the longest tickets, and as much that people wrote beside them.
	MaxText = 512 << 10
	// MaxTickets in one text: more than the receivers that share a key.
	MaxTickets = 64

	lineBytes  = 20
	lineData   = lineBytes * 8 / 5
	checkChars = 3
	lineChars  = lineData + checkChars
	groupChars = 5

	crcBits = 15
	crcPoly = 0x4599
)

// base32Text has no padding: the length says what is missing.
func base32Text() *base32.Encoding { return base32.StdEncoding.WithPadding(base32.NoPadding) }

// check is the CRC-15 of a line: of its number and its bytes.
func check(number int, data []byte) uint16 {
	crc := uint16(0)
	for _, b := range append([]byte{byte(number)}, data...) {
		for bit := 7; bit >= 0; bit-- {
			feedback := crc>>(crcBits-1)&1 ^ uint16(b>>bit&1)
			crc = crc << 1 & (1<<crcBits - 1)
			if feedback != 0 {
				crc ^= crcPoly
			}
		}
	}
	return crc
}

// checkText is the check in base32: 15 bits are three characters.
func checkText(number int, data []byte) string {
	bits := binary.BigEndian.AppendUint16(nil, check(number, data)<<1)
	return base32Text().EncodeToString(bits)[:checkChars]
}

// lines returns the lines of the text, without blanks.
func (s *Signed) lines() (lines []string) {
	for rest := s.bytes; len(rest) > 0; {
		data := rest[:min(lineBytes, len(rest))]
		rest = rest[len(data):]
		lines = append(lines, base32Text().EncodeToString(data)+checkText(len(lines)+1, data))
	}
	return lines
}

// Text returns the ticket as a person types or mails it: lines of groups of five characters.
func (s *Signed) Text() string {
	var b strings.Builder
	for _, line := range s.lines() {
		for len(line) > groupChars {
			b.WriteString(line[:groupChars] + " ")
			line = line[groupChars:]
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

// QR returns the same characters without blanks and line ends: what a QR code holds in alphanumeric mode.
func (s *Signed) QR() string { return strings.Join(s.lines(), "") }

// ReadText reads the tickets of a text, one at least. Errors are [ErrTyping], with the line, and [ErrFormat].
func ReadText(text []byte) ([]*Signed, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("%w: a text of %d bytes, at most %d", ErrFormat, len(text), MaxText)
	}
	r := &textReader{}
	for line := range bytes.SplitSeq(text, []byte("\n")) {
		r.line++
		if err := r.take(line); err != nil {
			return nil, err
		}
	}
	if r.number > 0 {
		return nil, fmt.Errorf("%w: truncated: the text ends after line %d of the ticket, which has %d", ErrTyping, r.number, r.total())
	}
	if len(r.tickets) == 0 {
		return nil, fmt.Errorf("%w: there is no ticket in it", ErrFormat)
	}
	return r.tickets, nil
}

// textReader reads a text line by line.
type textReader struct {
	tickets []*Signed
	line    int    // of the text, from 1
	number  int    // lines of the ticket in hand that were read
	raw     []byte // of the ticket in hand
}

// size is the length of the ticket in hand, which its first line says.
func (r *textReader) size() int { return int(binary.BigEndian.Uint16(r.raw[6:])) }

// total is the number of lines of the ticket in hand.
func (r *textReader) total() int { return (r.size() + lineBytes - 1) / lineBytes }

// want is the number of characters of the next line.
func (r *textReader) want() int {
	if r.number == 0 {
		return lineChars // every ticket is longer than a line
	}
	return base32Text().EncodedLen(min(lineBytes, r.size()-len(r.raw))) + checkChars
}

// take reads a line of the text.
func (r *textReader) take(line []byte) error {
	if trimmed := bytes.TrimLeft(line, " \t\r"); len(trimmed) > 0 && trimmed[0] == '#' {
		return nil
	}
	chars, err := r.clean(line)
	if err != nil {
		return err
	}
	for begin := true; len(chars) > 0; begin = false {
		if r.number == 0 && !begin {
			return r.typo("has characters behind the end of the ticket")
		}
		want := r.want()
		if err := r.checkLength(len(chars), want); err != nil {
			return err
		}
		if err := r.ticketLine(chars[:want]); err != nil {
			return err
		}
		chars = chars[want:]
	}
	return nil
}

// checkLength wants a line of the ticket, perhaps with more behind it: in a line that is a character too long everything behind that
// character is in the wrong place, and only the length tells what happened.
func (r *textReader) checkLength(n, want int) error {
	const shortest = 2 + checkChars // a line of one byte
	if n < want || n > want && n < want+shortest {
		return r.typo("has %d characters, %d are wanted: compare it with the ticket", n, want)
	}
	return nil
}

// typo is an error that says where.
func (r *textReader) typo(format string, args ...any) error {
	return fmt.Errorf("%w: line %d of the text, line %d of the ticket, "+format, append([]any{ErrTyping, r.line, r.number + 1}, args...)...)
}

// clean drops blanks, makes letters large, and refuses what is not in the alphabet.
func (r *textReader) clean(line []byte) (string, error) {
	out := make([]byte, 0, len(line))
	for _, c := range line {
		switch {
		case c == ' ' || c == '\t' || c == '\r':
			continue
		case c >= 'a' && c <= 'z':
			c -= 'a' - 'A'
		case c >= 'A' && c <= 'Z' || c >= '2' && c <= '7':
		default:
			return "", r.typo("has %q as character %d: only letters and the digits 2 to 7 occur%s", rune(c), len(out)+1, lookalike(c))
		}
		out = append(out, c)
	}
	return string(out), nil
}

// lookalike helps with what people type.
func lookalike(c byte) string {
	switch c {
	case '0':
		return "; is it the letter O?"
	case '1':
		return "; is it the letter I or L?"
	case '8':
		return "; is it the letter B?"
	}
	return ""
}

// ticketLine checks a line of the ticket, and ends the ticket with its last.
func (r *textReader) ticketLine(chars string) error {
	split := len(chars) - checkChars
	data, err := base32Text().DecodeString(chars[:split])
	if err != nil || base32Text().EncodeToString(data) != chars[:split] {
		return r.typo("ends in a character that cannot be: compare it with the ticket")
	}
	if number := r.number + 1; checkText(number, data) != chars[split:] {
		for _, other := range []int{number - 1, number + 1} {
			if checkText(other, data) == chars[split:] {
				return r.typo("looks like line %d: is a line left out, or there twice?", other)
			}
		}
		return r.typo("does not check: a character in it is wrong, or two have changed places; compare it with the ticket")
	}
	return r.append(data)
}

func (r *textReader) append(data []byte) error {
	r.raw = append(r.raw, data...)
	r.number++
	if r.number == 1 {
		if err := checkHead(r.raw); err != nil {
			return fmt.Errorf("line %d of the text: %w", r.line, err)
		}
	}
	if len(r.raw) < r.size() {
		return nil
	}
	s, err := Parse(r.raw)
	if err != nil {
		return fmt.Errorf("ticket that ends in line %d of the text: %w", r.line, err)
	}
	if r.tickets = append(r.tickets, s); len(r.tickets) > MaxTickets {
		return fmt.Errorf("%w: more than %d tickets in one text", ErrFormat, MaxTickets)
	}
	r.raw, r.number = nil, 0
	return nil
}
