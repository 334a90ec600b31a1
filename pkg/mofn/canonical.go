// SPDX-License-Identifier: Apache-2.0

package mofn

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

var errNotCanonical = errors.New("not in canonical form")

// encodeCanonical writes strict canonical JSON (envelope.md section 3): field order of the structure, no white space, no
// HTML escaping, no final newline.
func encodeCanonical(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// decodeCanonical reads b into v and refuses it unless encoding v again gives b. Duplicate and unknown keys, other cases, other
// escapes, white space and trailing data all fall by this one rule. The caller still refuses nil slices (JSON null).
func decodeCanonical(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("decode JSON: %w", err)
	}
	again, err := encodeCanonical(v)
	if err != nil {
		return fmt.Errorf("encode again: %w", err)
	}
	if !bytes.Equal(again, b) {
		return fmt.Errorf("%w: differs at byte %d", errNotCanonical, firstDifference(again, b))
	}
	return nil
}

func firstDifference(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// checkText refuses text that two readers could see or encode differently: no UTF-8, not NFC, control characters (except
// those in allowed), and the line separators that JSON encoders disagree on.
func checkText(s, allowed string, longest int) error {
	if len(s) > longest {
		return fmt.Errorf("text of %d bytes, at most %d are allowed", len(s), longest)
	}
	if !utf8.ValidString(s) {
		return errors.New("text is not valid UTF-8")
	}
	if !norm.NFC.IsNormalString(s) {
		return errors.New("text is not in Unicode Normalization Form C")
	}
	for i, r := range s {
		if (unicode.IsControl(r) || r == '\u2028' || r == '\u2029') && !strings.ContainsRune(allowed, r) {
			return fmt.Errorf("text has the control character %U at byte %d", r, i)
		}
	}
	return nil
}

// validName is the rule for officers, groups and so for roles: [a-z0-9][a-z0-9._-]{0,63} (trust.md section 3).
func validName(s string) bool {
	const longest = 64
	return len(s) <= longest && startsWell(s) && only(s, "._-")
}

// validStream is the rule of envelope.md section 4: names [a-z0-9][a-z0-9._-]* joined by "/", at most 128 bytes.
func validStream(s string) bool {
	const longest = 128
	for part := range strings.SplitSeq(s, "/") {
		if !startsWell(part) || !only(part, "._-") {
			return false
		}
	}
	return len(s) <= longest
}

func startsWell(s string) bool { return s != "" && only(s[:1], "") }

// only reports whether s consists of lower-case letters, digits and the extra characters.
func only(s, extra string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte(extra, c) < 0 {
			return false
		}
	}
	return true
}
