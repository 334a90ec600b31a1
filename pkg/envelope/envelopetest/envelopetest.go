// SPDX-License-Identifier: Apache-2.0

// Package envelopetest makes hostile variants of strict canonical JSON (docs/spec/envelope.md section 3), for the tests of every
// parser that promises to take one form only.
package envelopetest

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Trick is one variant of a good object that no parser may take.
type Trick struct {
	Name string
	JSON []byte
}

// Tricks gives the variants of a good object: as a whole, of its keys, and of each of its values. Every one differs from the object.
func Tricks(good []byte) []Trick {
	all := slices.Concat(wholes(good), keys(good), values(good), truncations(good))
	return slices.DeleteFunc(all, func(t Trick) bool { return bytes.Equal(t.JSON, good) })
}

func wholes(good []byte) (out []Trick) {
	add := func(name string, parts ...string) { out = append(out, Trick{name, []byte(strings.Join(parts, ""))}) }
	s := string(good)
	body, newline := strings.TrimSuffix(s, "\n"), strings.Repeat("\n", strings.Count(s, "\n"))
	for _, tail := range []string{" ", "\n", "\r\n", "\t", "\x00", "{}", "null", ",", "}", "]", "x", "//", "/**/", body} {
		add(fmt.Sprintf("followed by %.8q", tail), body, tail, newline)
	}
	for _, head := range []string{" ", "\n", "\ufeff", "\xef\xbb", "\x00", ")]}'\n", "[", "/**/", body} {
		add(fmt.Sprintf("after %.8q", head), head, s)
	}
	add("in a list", "[", body, "]", newline)
	add("in an object", `{"a":`, body, "}", newline)
	add("as a string", fmt.Sprintf("%q", body), newline)
	for _, other := range []string{"", "null", "true", "0", `""`, "[]", "{}", "[null]", `{"":null}`} {
		add("instead: "+other, other, newline)
	}
	const deep = 100_000
	add("lists without end", strings.Repeat("[", deep))
	add("lists without end, closed", strings.Repeat("[", deep), strings.Repeat("]", deep))
	add("objects without end", strings.Repeat(`{"a":`, deep))
	add("a deep value of an unknown key", `{"a":`, strings.Repeat("[", deep), strings.Repeat("]", deep), ",", body[1:], newline)
	for _, from := range []string{":", ",", "{", "}", "[", "]"} {
		add("a blank behind "+from, strings.Replace(s, from, from+" ", 1))
	}
	add("single quotes", strings.ReplaceAll(s, `"`, "'"))
	add("a comma at the end", body[:len(body)-1], ",}", newline)
	add("UTF-16", strings.Join(strings.Split(s, ""), "\x00"))
	return out
}

// member is a key with a scalar value.
func member() *regexp.Regexp {
	return regexp.MustCompile(`"([a-zA-Z0-9_]+)":("(?:[^"\\]|\\.)*"|[0-9]+)`)
}

// keys changes each key that has a scalar value, and adds others beside it.
func keys(good []byte) (out []Trick) {
	for _, at := range member().FindAllSubmatchIndex(good, -1) {
		key, value, whole := string(good[at[2]:at[3]]), string(good[at[4]:at[5]]), string(good[at[0]:at[1]])
		put := func(name, text string) {
			out = append(out, Trick{key + ": " + name, slices.Concat(good[:at[0]], []byte(text), good[at[1]:])})
		}
		put("twice", whole+","+whole)
		put("twice, with another value first", `"`+key+`":null,`+whole)
		put("twice, with another value last", whole+`,"`+key+`":null`)
		put("beside it in capitals", whole+`,"`+strings.ToUpper(key)+`":`+value)
		put("in capitals", `"`+strings.ToUpper(key)+`":`+value)
		put("with a capital", `"`+strings.ToUpper(key[:1])+key[1:]+`":`+value)
		put("with a long s", `"`+strings.Replace(key, "s", "\u017f", 1)+`":`+value)
		put("escaped", fmt.Sprintf(`"\u%04x%s":%s`, key[0], key[1:], value))
		put("misspelt", `"`+key+`_":`+value)
		put("with a blank", `"`+key+` ":`+value)
		put("left out", `"":`+value)
		put("and an unknown one", whole+`,"unknown":0`)
		put("after an unknown one", `"unknown":"",`+whole)
		put("and required_signatures", whole+`,"required_signatures":1`)
	}
	return out
}

// values changes each scalar value.
func values(good []byte) (out []Trick) {
	for _, at := range member().FindAllSubmatchIndex(good, -1) {
		key, value := string(good[at[2]:at[3]]), string(good[at[4]:at[5]])
		texts := []string{"null", "true", "[]", "{}", "[" + value + "]", "NaN", "Infinity", "undefined", ""}
		if strings.HasPrefix(value, `"`) {
			texts = append(texts, strings4(strings.Trim(value, `"`))...)
		} else {
			for _, form := range []string{"%s.0", "%se0", "%sE0", "%se-0", "%s.", "-%s", "+%s", "0%s", "%s0e-1", `"%s"`, "0x%s", "%s_0", "%sn"} {
				texts = append(texts, fmt.Sprintf(form, value))
			}
			texts = append(texts, "-0", "1e3", "1e400", "1.5", "9007199254740992", "9007199254740993", "9223372036854775808", "18446744073709551616", strings.Repeat("9", 400))
		}
		for _, text := range texts {
			out = append(out, Trick{fmt.Sprintf("%s: %.40q for %.20q", key, text, value), slices.Concat(good[:at[4]], []byte(text), good[at[5]:])})
		}
	}
	return append(out, lists(good)...)
}

// strings4 are bad spellings of a string, and bad strings.
func strings4(s string) (out []string) {
	if s != "" && s[0] != '\\' && s[0] < 0x80 {
		out = append(out, fmt.Sprintf(`"\u%04x%s"`, s[0], s[1:]), fmt.Sprintf(`"\U%04x%s"`, s[0], s[1:]), fmt.Sprintf(`"\x%02x%s"`, s[0], s[1:]))
	}
	if strings.Contains(s, "/") {
		out = append(out, `"`+strings.Replace(s, "/", `\/`, 1)+`"`)
	}
	for _, tail := range []string{
		"\xff", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", `\ud800`, `\udc00`, `\ud800\ud800`, `\ufffd`, // no UTF-8, and what decoders make of it
		"e\u0301", `e\u0301`, "\u2126", // not in Normalization Form C
		"\x00", "\x1f", "\n", `\u000a`, `\u000A`, `\u0008`, `\a`, `\0`, `\'`, `\u2028x\u00e9`, "\u2028", "\u2029", `\u003c`, // controls and escapes
	} {
		out = append(out, `"`+s+tail+`"`)
	}
	return append(out, s, `"`+s, s+`"`, `'`+s+`'`)
}

// lists puts null for a list, into it, and a comma too many.
func lists(good []byte) (out []Trick) {
	for _, at := range regexp.MustCompile(`"[a-zA-Z0-9_]+":(\[\]|\[|\{)`).FindAllSubmatchIndex(good, -1) {
		open := string(good[at[2]:at[3]])
		for _, text := range map[string][]string{"[]": {"null", "[null]", "{}", `""`, "[,]", "[ ]"}, "[": {"[null,", "[,", "[[", "{"}, "{": {`{"":0,`, `{"unknown":0,`, "{,", "[", "null{"}}[open] {
			out = append(out, Trick{fmt.Sprintf("%s for %s at byte %d", text, open, at[2]), slices.Concat(good[:at[2]], []byte(text), good[at[3]:])})
		}
	}
	return out
}

func truncations(good []byte) (out []Trick) {
	const most = 2000 // of a long object every so many bytes: its ends are values of one kind
	for n := 0; n < len(good); n += 1 + len(good)/most {
		if n == len(good)-1 && good[n] == '\n' {
			continue // whether the newline belongs to the form is the format's affair
		}
		out = append(out, Trick{fmt.Sprintf("cut to %d bytes", n), good[:n]})
	}
	return out
}
