// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Strict canonical JSON (section 3). The layout of each object is written once, as a function over a codec; the
// parser runs it with a decoder and the writer with an encoder, so the two cannot drift apart:
//
//	parse:  bytes -> layout(decoder) -> struct -> layout(encoder) -> compare with the bytes -> rules of the section
//	write:  struct -> rules -> layout(encoder) -> bytes
//
// A general JSON parser is not used: encoding/json takes duplicate keys, other cases, null and bad UTF-8, and allocates
// for as many list elements as the bytes name.
type codec interface {
	lit(s string)                      // these very bytes
	str(s *string)                     // a JSON string
	path(s *string)                    // a JSON string that is a path: at most maxWrittenPath bytes as it is written
	num(n *int64)                      // an integer, 0 to 2^53 - 1
	digest(d *Digest)                  // a string of 64 hexadecimal digits
	b64(b *[]byte)                     // a string of standard, padded base64
	next(i, n, max int) bool           // is there an element i of a list (of n when written, of at most max)?
	opt(key string, present bool) bool // an optional field: writes or takes its key; says whether its value follows
}

// list lays out a JSON list. The decoder grows it only as elements are really found, up to max.
func list[T any](c codec, items *[]T, max int, layout func(codec, *T)) {
	c.lit("[")
	for i := 0; c.next(i, len(*items), max); i++ {
		if i == len(*items) {
			*items = append(*items, *new(T))
		}
		layout(c, &(*items)[i])
	}
	c.lit("]")
}

func layoutString(c codec, s *string) { c.str(s) }

// decoder is the codec that reads. The first error sticks; every later call does nothing.
type decoder struct {
	src   []byte
	pos   int
	err   error
	short bool // err may be for want of what follows src
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: byte %d: "+format, append([]any{ErrFormat, d.pos}, args...)...)
	}
}

func (d *decoder) lit(s string) {
	if d.err != nil {
		return
	}
	if rest := d.src[d.pos:]; !bytes.HasPrefix(rest, []byte(s)) {
		d.short = strings.HasPrefix(s, string(rest[:min(len(rest), len(s))]))
		d.fail("want %s, found %s (section 3: fixed keys in a fixed order, no white space)", s, excerpt(d.src[d.pos:]))
		return
	}
	d.pos += len(s)
}

// maxWrittenPath: a path has at most 1,024 bytes (section 1), each of which is six at most in an escape.
const maxWrittenPath = 6 << 10

func (d *decoder) path(s *string) { d.text(s, maxWrittenPath) }

func (d *decoder) str(s *string) { d.text(s, math.MaxInt) }

func (d *decoder) text(s *string, limit int) {
	start := d.pos
	raw := d.quoted(limit)
	if d.err != nil {
		return
	}
	if bytes.IndexByte(raw, '\\') < 0 {
		*s = string(raw)
		return
	}
	// The decoder of escapes need not be strict: the comparison after the parse is.
	if err := json.Unmarshal(d.src[start:d.pos], s); err != nil {
		d.fail("the string before here: %v", err)
	}
}

// quoted takes a string of at most limit bytes with its quotes and returns what is between them, escapes untouched.
func (d *decoder) quoted(limit int) []byte {
	d.lit(`"`)
	if d.err != nil {
		return nil
	}
	rest := d.src[d.pos:]
	whole := len(rest) <= limit
	if !whole {
		rest = rest[:limit+1]
	}
	n := bytes.IndexByte(rest, '"')
	if n >= 0 && bytes.IndexByte(rest[:n], '\\') >= 0 {
		n = escapedEnd(rest)
	}
	if n < 0 && !whole {
		d.fail("a string of more than %d bytes", limit)
		return nil
	}
	if n < 0 {
		d.short = true
		d.fail("a string has no end")
		return nil
	}
	d.pos += n + 1
	return rest[:n]
}

// escapedEnd finds the closing quote of a string that holds escapes, or -1.
func escapedEnd(rest []byte) int {
	for i := 0; i < len(rest); i++ {
		switch rest[i] {
		case '"':
			return i
		case '\\':
			i++
		}
	}
	return -1
}

// maxDigits is the number of decimal digits of 2^53 - 1.
const maxDigits = 16

func (d *decoder) num(n *int64) {
	if d.err != nil {
		return
	}
	end := d.pos
	for end < len(d.src) && end-d.pos <= maxDigits && '0' <= d.src[end] && d.src[end] <= '9' {
		end++
	}
	v, err := strconv.ParseInt(string(d.src[d.pos:end]), 10, 64)
	if err != nil || v >= maxInt {
		d.fail("want an integer of 0 to 2^53-1 in plain decimal, found %s", excerpt(d.src[d.pos:]))
		return
	}
	*n, d.pos = v, end
}

func (d *decoder) digest(v *Digest) {
	raw := d.quoted(math.MaxInt)
	if d.err != nil {
		return
	}
	if len(raw) != hex.EncodedLen(len(v)) {
		d.fail("the digest before here has %d characters: want 64", len(raw))
		return
	}
	if _, err := hex.Decode(v[:], raw); err != nil {
		d.fail("the digest before here: %v", err)
	}
}

func (d *decoder) b64(b *[]byte) {
	raw := d.quoted(math.MaxInt)
	if d.err != nil {
		return
	}
	out := make([]byte, base64.StdEncoding.DecodedLen(len(raw)))
	n, err := base64.StdEncoding.Strict().Decode(out, raw)
	if err != nil {
		d.fail("the base64 before here: %v", err)
		return
	}
	*b = out[:n]
}

func (d *decoder) next(i, _, max int) bool {
	if d.err != nil {
		return false
	}
	if d.pos < len(d.src) && d.src[d.pos] == ']' {
		return false
	}
	if i > 0 {
		d.lit(",")
	}
	if i == max {
		d.fail("a list of more than %d elements (section 1, caps)", max)
	}
	return d.err == nil
}

func (d *decoder) opt(key string, _ bool) bool {
	found := d.err == nil && bytes.HasPrefix(d.src[d.pos:], []byte(key))
	if found {
		d.pos += len(key)
	}
	return found
}

// encoder is the codec that writes: into buf when w is nil, else through buf into w. It reads the struct and never
// changes it, so one struct may be written by several goroutines.
type encoder struct {
	w   io.Writer
	buf []byte
	err error
}

// flushSize keeps the comparison of a 32 MiB statement within a buffer that stays in the cache.
const flushSize = 32 << 10

func (e *encoder) lit(s string) {
	e.buf = append(e.buf, s...)
	if len(e.buf) >= flushSize {
		e.flush()
	}
}

func (e *encoder) flush() {
	if e.w == nil {
		return
	}
	if e.err == nil {
		_, e.err = e.w.Write(e.buf)
	}
	e.buf = e.buf[:0]
}

func (e *encoder) path(s *string) { e.str(s) }

func (e *encoder) str(s *string) {
	e.lit(`"`)
	for rest := *s; rest != ""; {
		n := plainRun(rest)
		e.lit(rest[:n])
		if rest = rest[n:]; rest != "" {
			r, size := utf8.DecodeRuneInString(rest)
			e.lit(escape(r, rest[:size]))
			rest = rest[size:]
		}
	}
	e.lit(`"`)
}

// plainRun is the length of the head of s that stands for itself, up to flushSize.
func plainRun(s string) int {
	n := 0
	for n < len(s) && n < flushSize && isPlain(s[n]) {
		n++
	}
	return n
}

// isPlain says whether a byte stands for itself in a JSON string.
func isPlain(c byte) bool { return 0x20 <= c && c < utf8.RuneSelf && c != '"' && c != '\\' }

// escape writes one character as section 3 wants it, which is as encoding/json does with SetEscapeHTML(false): the
// short form where there is one, four lower-case hexadecimal digits for other controls and for U+2028 and U+2029, and
// the character itself otherwise. A byte that is no UTF-8 becomes U+FFFD, so the comparison refuses it.
func escape(r rune, raw string) string {
	switch r {
	case '"':
		return `\"`
	case '\\':
		return `\\`
	case '\b':
		return `\b`
	case '\f':
		return `\f`
	case '\n':
		return `\n`
	case '\r':
		return `\r`
	case '\t':
		return `\t`
	case utf8.RuneError:
		if len(raw) == 1 {
			return `\ufffd`
		}
	}
	if r < 0x20 || r == '\u2028' || r == '\u2029' {
		return fmt.Sprintf(`\u%04x`, r)
	}
	return raw
}

func (e *encoder) num(n *int64) { e.buf = strconv.AppendInt(e.buf, *n, 10) }

func (e *encoder) digest(d *Digest) {
	e.buf = append(hex.AppendEncode(append(e.buf, '"'), d[:]), '"')
}

// base64Step is encoded at a time; a multiple of 3, so that only the last piece is padded.
const base64Step = 24 << 10

func (e *encoder) b64(b *[]byte) {
	e.lit(`"`)
	for rest := *b; len(rest) > 0; {
		n := min(len(rest), base64Step)
		e.buf = base64.StdEncoding.AppendEncode(e.buf, rest[:n])
		rest = rest[n:]
		e.lit("")
	}
	e.lit(`"`)
}

func (e *encoder) next(i, n, _ int) bool {
	if i > 0 && i < n {
		e.lit(",")
	}
	return i < n
}

func (e *encoder) opt(key string, present bool) bool {
	if present {
		e.lit(key)
	}
	return present
}

// encode writes a layout into memory.
func encode(layout func(codec)) ([]byte, error) {
	var e encoder
	layout(&e)
	return e.buf, e.err
}

// decode is the one rule of section 3: read the layout, write it again, and compare with what came.
func decode(src []byte, layout func(codec)) error {
	d := &decoder{src: src}
	layout(d)
	if d.err != nil {
		return d.err
	}
	if d.pos != len(src) {
		return fmt.Errorf("%w: byte %d: %d bytes after the end of the object (section 3)", ErrFormat, d.pos, len(src)-d.pos)
	}
	same := &comparer{want: src}
	e := &encoder{w: same}
	layout(e)
	e.flush()
	if e.err == nil && same.pos != len(src) {
		return fmt.Errorf("%w: byte %d: not canonical: the canonical form ends here (section 3)", ErrFormat, same.pos)
	}
	return e.err
}

// comparer is a writer that accepts only the bytes of want, so that a 32 MiB statement is compared without a copy.
type comparer struct {
	want []byte
	pos  int
}

func (c *comparer) Write(p []byte) (int, error) {
	rest := c.want[c.pos:]
	if bytes.HasPrefix(rest, p) {
		c.pos += len(p)
		return len(p), nil
	}
	n := 0
	for n < len(p) && n < len(rest) && p[n] == rest[n] {
		n++
	}
	return n, fmt.Errorf("%w: byte %d: not canonical: found %s, the canonical form is %s (section 3)",
		ErrFormat, c.pos+n, excerpt(rest[n:]), excerpt(p[n:]))
}

// excerptSize keeps hostile text out of logs but for a glimpse.
const excerptSize = 24

func excerpt(b []byte) string {
	if len(b) == 0 {
		return "the end"
	}
	return strconv.QuoteToASCII(string(b[:min(len(b), excerptSize)]))
}
