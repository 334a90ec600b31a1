// SPDX-License-Identifier: Apache-2.0

package token

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxURI is that of docs/spec/trust.md section 2.
const maxURI = 1024

// URI is a PKCS#11 URI (RFC 7512). An attribute that is not in it is empty; an empty one is refused. Texts are decoded and are
// whatever somebody wrote there: quote them when they are shown.
type URI struct {
	Token, Manufacturer, Serial, Model                      string
	LibraryManufacturer, LibraryDescription, LibraryVersion string
	SlotManufacturer, SlotDescription, SlotID               string
	Object, Type                                            string
	ID                                                      []byte // CKA_ID

	ModulePath, ModuleName string
	PINSource              string   // file, an absolute path
	Ignored                []string // names of query attributes that nobody knows, which the RFC has ignored
}

// path gives the path attributes by name, in the order in which they are written.
func (u *URI) path() []attribute {
	return []attribute{
		{"token", &u.Token},
		{"manufacturer", &u.Manufacturer},
		{"serial", &u.Serial},
		{"model", &u.Model},
		{"library-manufacturer", &u.LibraryManufacturer},
		{"library-description", &u.LibraryDescription},
		{"library-version", &u.LibraryVersion},
		{"slot-manufacturer", &u.SlotManufacturer},
		{"slot-description", &u.SlotDescription},
		{"slot-id", &u.SlotID},
		{"object", &u.Object},
		{"type", &u.Type},
	}
}

func (u *URI) query() []attribute {
	return []attribute{{"module-path", &u.ModulePath}, {"module-name", &u.ModuleName}, {"pin-source", &u.PINSource}}
}

type attribute struct {
	name string
	to   *string
}

// ParseURI reads a PKCS#11 URI (RFC 7512, with the rules of docs/spec/trust.md section 2). Errors are [ErrURI] and name the attribute.
func ParseURI(text string) (URI, error) {
	var u URI
	if len(text) > maxURI {
		return URI{}, fmt.Errorf("%w: %d characters, at most %d", ErrURI, len(text), maxURI)
	}
	rest, ok := strings.CutPrefix(text, "pkcs11:")
	if !ok {
		return URI{}, fmt.Errorf("%w: it does not begin with the scheme pkcs11", ErrURI)
	}
	path, query, asked := strings.Cut(rest, "?")
	if err := u.read(path, ";", "&", u.pathAttribute); err != nil {
		return URI{}, err
	}
	if asked && query == "" {
		return URI{}, fmt.Errorf("%w: nothing follows the question mark", ErrURI)
	}
	if err := u.read(query, "&", "/?|", u.queryAttribute); err != nil {
		return URI{}, err
	}
	return u, u.check()
}

// read takes one part apart. also are the characters that this part may hold beside those of both (RFC 7512 section 2.3).
func (u *URI) read(part, separator, also string, set func(name, value string) error) error {
	if part == "" {
		return nil
	}
	seen := map[string]bool{}
	for piece := range strings.SplitSeq(part, separator) {
		name, raw, ok := strings.Cut(piece, "=")
		if !ok || !validName(name) {
			return fmt.Errorf("%w: %.40q is no attribute (name=value)", ErrURI, piece)
		}
		if seen[name] {
			return fmt.Errorf("%w: %s stands twice", ErrURI, name)
		}
		seen[name] = true
		if name == "pin-value" { // before anything of the value could be shown
			return fmt.Errorf("%w: pin-value is not taken: a PIN in a file or on a command line is read by whoever sees either; use pin-source, or type it", ErrURI)
		}
		value, err := decodePercent(raw, also)
		if err != nil {
			return fmt.Errorf("%w: %s: %w", ErrURI, name, err)
		}
		if value == "" {
			return fmt.Errorf("%w: %s is empty; leave it out", ErrURI, name)
		}
		if err := set(name, value); err != nil {
			return fmt.Errorf("%w: %w", ErrURI, err)
		}
	}
	return nil
}

func validName(name string) bool {
	return name != "" && !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}

// pathAttribute refuses what it does not know: RFC 7512 section 2.5 has such a URI match nothing.
func (u *URI) pathAttribute(name, value string) error {
	if name == "id" {
		u.ID = []byte(value)
		return nil
	}
	for _, a := range u.path() {
		if a.name == name {
			return a.set(value)
		}
	}
	return fmt.Errorf("path attribute %q is not known, so that nothing can match it; an attribute of the query stands after a question mark", name)
}

func (u *URI) queryAttribute(name, value string) error {
	for _, a := range u.query() {
		if a.name == name {
			return a.set(value)
		}
	}
	u.Ignored = append(u.Ignored, name)
	return nil
}

func (a attribute) set(value string) error {
	if !utf8.ValidString(value) || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("%s is not a text of UTF-8 without control characters", a.name)
	}
	*a.to = value
	return nil
}

// check looks at the values that have a form.
func (u *URI) check() error {
	if _, err := strconv.ParseUint(u.SlotID, 10, 63); u.SlotID != "" && (err != nil || u.SlotID != "0" && u.SlotID[0] == '0') {
		return fmt.Errorf("%w: slot-id is a decimal number", ErrURI)
	}
	if !slices.Contains([]string{"", "public", "private", "cert", "secret-key", "data"}, u.Type) {
		return fmt.Errorf("%w: type is public, private, cert, secret-key or data", ErrURI)
	}
	if u.ModulePath != "" && u.ModuleName != "" {
		return fmt.Errorf("%w: module-path and module-name exclude one another", ErrURI)
	}
	if u.ModulePath != "" && (!filepath.IsAbs(u.ModulePath) || filepath.Clean(u.ModulePath) != u.ModulePath) {
		return fmt.Errorf("%w: module-path is an absolute path without . and .. in it", ErrURI)
	}
	if strings.ContainsRune(u.ModuleName, '/') {
		return fmt.Errorf("%w: module-name is the name of a library without directory, as in softhsm2", ErrURI)
	}
	return u.checkSource()
}

// checkSource takes a file: RFC 7512 has a command there too, which a key file must not be able to start.
func (u *URI) checkSource() error {
	if u.PINSource == "" {
		return nil
	}
	file := strings.TrimPrefix(strings.TrimPrefix(u.PINSource, "file:"), "//") // file:///path is one without a host
	if !filepath.IsAbs(file) {
		return fmt.Errorf("%w: pin-source is a file, as an absolute path or as file:/path; commands are not run", ErrURI)
	}
	u.PINSource = file
	return nil
}

// Module says whether the URI names a module.
func (u *URI) Module() bool { return u.ModulePath != "" || u.ModuleName != "" }

// String writes the URI in one form: attributes in order, everything encoded that is not a letter, a digit or one of "-._~", and
// slashes in paths of files as they are. ParseURI reads it back.
func (u *URI) String() string {
	var path, query []string
	for _, a := range u.path() {
		if *a.to != "" {
			path = append(path, a.name+"="+encodePercent(*a.to, ""))
		}
	}
	if len(u.ID) > 0 {
		var id strings.Builder
		for _, b := range u.ID {
			fmt.Fprintf(&id, "%%%02X", b)
		}
		path = append(path, "id="+id.String())
	}
	for _, a := range u.query() {
		if *a.to != "" {
			query = append(query, a.name+"="+encodePercent(*a.to, "/"))
		}
	}
	text := "pkcs11:" + strings.Join(path, ";")
	if len(query) > 0 {
		text += "?" + strings.Join(query, "&")
	}
	return text
}

// unreserved of RFC 3986, and pk11-res-avail of RFC 7512.
const (
	unreserved = "-._~"
	available  = ":[]@!$'()*+,="
)

func decodePercent(raw, also string) (string, error) {
	var out strings.Builder
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		switch {
		case c == '%':
			if i+2 >= len(raw) {
				return "", fmt.Errorf("a per cent sign is followed by two hex digits")
			}
			b, err := strconv.ParseUint(raw[i+1:i+3], 16, 8)
			if err != nil || strings.ContainsAny(raw[i+1:i+3], "+-_") {
				return "", fmt.Errorf("a per cent sign is followed by two hex digits")
			}
			out.WriteByte(byte(b))
			i += 2
		case plain(c) || strings.IndexByte(available, c) >= 0 || strings.IndexByte(also, c) >= 0:
			out.WriteByte(c)
		default:
			return "", fmt.Errorf("character %q must be percent-encoded, as %%%02X", c, c)
		}
	}
	return out.String(), nil
}

func encodePercent(text, also string) string {
	var out strings.Builder
	for i := range len(text) {
		if c := text[i]; plain(c) || strings.IndexByte(also, c) >= 0 {
			out.WriteByte(c)
		} else {
			fmt.Fprintf(&out, "%%%02X", c)
		}
	}
	return out.String()
}

func plain(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(unreserved, c) >= 0
}

// what names the token that a URI asks for, for a person. It is ASCII without control characters, whatever the URI holds.
func (u *URI) what() string {
	t := *u
	t.Object, t.Type, t.ID, t.ModulePath, t.ModuleName, t.PINSource = "", "", nil, "", "", ""
	return cmp.Or(strings.TrimPrefix(t.String(), "pkcs11:"), "any token")
}
