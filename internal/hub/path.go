// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Limits on paths: docs/spec/envelope.md, section 1. A path that could not be released is refused before it is fetched.
const (
	maxPath       = 1024
	maxComponent  = 255
	maxComponents = 32
)

// partSuffix marks an unfinished download beside its final name.
const partSuffix = ".part"

// checkPath applies the path rules of docs/spec/envelope.md, section 4, so that the mirror refuses a tree that the sealer
// would refuse after hours of download.
func checkPath(p string) error {
	bad := func(why string) error { return fmt.Errorf("%w: %q: %s", ErrPath, p, why) }
	switch {
	case p == "" || len(p) > maxPath:
		return bad(fmt.Sprintf("want 1..%d bytes", maxPath))
	case !utf8.ValidString(p):
		return bad("not UTF-8")
	case !norm.NFC.IsNormalString(p):
		return bad("not in Unicode Normalization Form C")
	case strings.ContainsAny(p, "\\:"):
		return bad("backslash or colon")
	case strings.ContainsFunc(p, unicode.IsControl):
		return bad("control character")
	}
	parts := strings.Split(p, "/")
	if len(parts) > maxComponents {
		return bad(fmt.Sprintf("more than %d components", maxComponents))
	}
	for _, c := range parts {
		if why := badComponent(c); why != "" {
			return bad(why)
		}
	}
	return nil
}

func badComponent(c string) string {
	switch lower := strings.ToLower(c); {
	case c == "":
		return "empty component"
	case len(c) > maxComponent:
		return fmt.Sprintf("component longer than %d bytes", maxComponent)
	case c == "." || c == "..":
		return "dot component"
	case strings.HasSuffix(c, " ") || strings.HasSuffix(c, "."):
		return "component ends in a space or a dot"
	case strings.HasPrefix(lower, ".git") && c != ".gitattributes" && c != ".gitignore":
		return "git metadata"
	case deviceName(lower):
		return "Windows device name"
	}
	return ""
}

func deviceName(lower string) bool {
	stem, _, _ := strings.Cut(lower, ".")
	switch stem {
	case "con", "prn", "aux", "nul":
		return true
	}
	port := strings.HasPrefix(stem, "com") || strings.HasPrefix(stem, "lpt")
	return port && len(stem) == 4 && stem[3] >= '0' && stem[3] <= '9'
}

// checkDisjoint refuses two entries that would meet on some file system: equal after case folding, one a directory of the
// other, or one the .part file of the other.
func checkDisjoint(entries []Entry) error {
	fold := cases.Fold()
	files := make(map[string]string, len(entries))
	for _, e := range entries {
		key := fold.String(e.Path)
		if other, ok := files[key]; ok {
			return fmt.Errorf("%w: %q and %q are one file where case is ignored", ErrPath, other, e.Path)
		}
		files[key] = e.Path
	}
	for key, p := range files {
		if other, ok := files[key+partSuffix]; ok {
			return fmt.Errorf("%w: %q has the name of the unfinished %q", ErrPath, other, p)
		}
		for i := range len(key) {
			if key[i] != '/' {
				continue
			}
			if other, ok := files[key[:i]]; ok {
				return fmt.Errorf("%w: %q is a file and a directory of %q", ErrPath, other, p)
			}
		}
	}
	return nil
}
