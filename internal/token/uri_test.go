// SPDX-License-Identifier: Apache-2.0

package token

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseURI(t *testing.T) {
	for text, want := range map[string]URI{
		"pkcs11:":                {},
		"pkcs11:token=officer-1": {Token: "officer-1"},
		"pkcs11:object=my%20key;type=private;id=%01%fF?pin-source=file:/etc/pin": {Object: "my key", Type: "private", ID: []byte{1, 0xff}, PINSource: "/etc/pin"},
		"pkcs11:?pin-source=file:///etc/pin":                                     {PINSource: "/etc/pin"},
		"pkcs11:?pin-source=/etc/pin&module-name=softhsm2":                       {PINSource: "/etc/pin", ModuleName: "softhsm2"},
		"pkcs11:token=a%3Bb%3Fc%2Fd=e&f":                                         {Token: "a;b?c/d=e&f"},
		"pkcs11:token=%C3%A9;manufacturer=x;serial=1;model=y;slot-id=0":          {Token: "é", Manufacturer: "x", Serial: "1", Model: "y", SlotID: "0"},
		"pkcs11:id=abc": {ID: []byte("abc")},
		"pkcs11:library-manufacturer=m;library-description=d;library-version=2.6;slot-manufacturer=s;slot-description=t": {
			LibraryManufacturer: "m", LibraryDescription: "d", LibraryVersion: "2.6", SlotManufacturer: "s", SlotDescription: "t",
		},
		"pkcs11:token=a?module-path=/usr/lib/x.so&x-vendor=1&colour=red": {Token: "a", ModulePath: "/usr/lib/x.so", Ignored: []string{"x-vendor", "colour"}},
	} {
		got, err := ParseURI(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", text, d)
		}
	}
}

func TestParseURIRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                                            "does not begin with the scheme pkcs11",
		"PKCS11:token=a":                              "does not begin with the scheme pkcs11",
		"https://example.org":                         "does not begin with the scheme pkcs11",
		"pkcs11:token":                                "is no attribute",
		"pkcs11:=a":                                   "is no attribute",
		"pkcs11:token=a;":                             "is no attribute",
		"pkcs11:tok en=a":                             "is no attribute",
		"pkcs11:token=":                               "token is empty",
		"pkcs11:token=a;token=a":                      "token stands twice",
		"pkcs11:?module-name=a&module-name=b":         "module-name stands twice",
		"pkcs11:?x=1&x=1":                             "x stands twice",
		"pkcs11:label=a":                              `"label" is not known`,
		"pkcs11:module-name=a":                        "stands after a question mark",
		"pkcs11:x-vendor=a":                           "nothing can match it",
		"pkcs11:token=a?":                             "nothing follows",
		"pkcs11:token=a b":                            "must be percent-encoded, as %20",
		"pkcs11:token=a/b":                            "must be percent-encoded, as %2F",
		"pkcs11:token=a#b":                            "must be percent-encoded",
		"pkcs11:token=é":                              "must be percent-encoded",
		"pkcs11:token=%":                              "two hex digits",
		"pkcs11:token=%4":                             "two hex digits",
		"pkcs11:token=%+1":                            "two hex digits",
		"pkcs11:token=%zz":                            "two hex digits",
		"pkcs11:token=%ff":                            "not a text of UTF-8",
		"pkcs11:token=a%00b":                          "control characters",
		"pkcs11:token=%1b%5b2J":                       "control characters",
		"pkcs11:type=key":                             "type is public, private",
		"pkcs11:slot-id=-1":                           "decimal",
		"pkcs11:slot-id=01":                           "decimal",
		"pkcs11:slot-id=99999999999999999999":         "decimal",
		"pkcs11:?pin-value=1234":                      "a PIN in a file or on a command line",
		"pkcs11:pin-value=1234":                       "a PIN in a file or on a command line",
		"pkcs11:?pin-source=%7C/usr/bin/ask":          "commands are not run",
		"pkcs11:?pin-source=pin":                      "absolute path",
		"pkcs11:?pin-source=file:pin":                 "absolute path",
		"pkcs11:?pin-source=file://host/pin":          "absolute path",
		"pkcs11:?module-path=x.so":                    "absolute path",
		"pkcs11:?module-path=/usr/lib/../../tmp/x.so": "without . and ..",
		"pkcs11:?module-path=/a&module-name=b":        "exclude one another",
		"pkcs11:?module-name=../x":                    "without directory",
		"pkcs11:token=" + strings.Repeat("a", 1024):   "at most 1024",
	} {
		_, err := ParseURI(text)
		if !errors.Is(err, ErrURI) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "1234") {
			t.Errorf("%s: the message shows the PIN: %v", text, err)
		}
	}
}

// FuzzParseURI: what is accepted is written in a form that means the same, and nothing that is shown could move a terminal's cursor.
func FuzzParseURI(f *testing.F) {
	for _, seed := range []string{
		"pkcs11:", "pkcs11:token=officer-1;serial=1;id=%01%ff;type=private?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/pin",
		"pkcs11:token=a%3Bb%3Fc%2Fd=e&f?module-name=x&y=z", "pkcs11:slot-id=12;object=%C3%A9", "pkcs11:?pin-value=1", "pkcs11:token=%",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseURI(text)
		if err != nil {
			if !errors.Is(err, ErrURI) {
				t.Fatal(err)
			}
			return
		}
		u.Ignored = nil
		written := u.String()
		if len(written) <= maxURI {
			again, err := ParseURI(written)
			if err != nil {
				t.Fatalf("%q is written as %q: %v", text, written, err)
			}
			if d := cmp.Diff(u, again); d != "" {
				t.Fatalf("%q is written as %q: %s", text, written, d)
			}
		}
		if strings.ContainsFunc(u.what(), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("shown as %q", u.what())
		}
	})
}
