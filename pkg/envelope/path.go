// SPDX-License-Identifier: Apache-2.0

package envelope

import (
	"fmt"
	"path"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// CheckPath applies the rules of section 4 "Paths" to one path; nil, or ErrFormat with the rule that failed.
func CheckPath(p string) error {
	if len(p) == 0 || len(p) > MaxPath {
		return badPath(p, "has %d bytes: want 1 to %d", len(p), MaxPath)
	}
	if !utf8.ValidString(p) {
		return badPath(p, "is not valid UTF-8")
	}
	if !norm.NFC.IsNormalString(p) {
		return badPath(p, "is not in Unicode Normalization Form C")
	}
	if i := strings.IndexFunc(p, isForbidden); i >= 0 {
		return badPath(p, "holds a backslash, a colon or a control character at byte %d", i)
	}
	if n := strings.Count(p, "/") + 1; n > MaxComponents {
		return badPath(p, "has %d components: at most %d", n, MaxComponents)
	}
	for c := range strings.SplitSeq(p, "/") {
		if why := checkComponent(c); why != "" {
			return badPath(p, "%s", why)
		}
	}
	return nil
}

func badPath(p, format string, args ...any) error {
	return fmt.Errorf("%w: path %s "+format+" (section 4, paths): rename the file at its source",
		append([]any{ErrFormat, quote(p)}, args...)...)
}

// quote shows hostile text in a message: escaped to ASCII, and cut.
func quote(s string) string {
	const shown = 80
	if len(s) > shown {
		return fmt.Sprintf("%+q... (%d bytes)", s[:shown], len(s))
	}
	return fmt.Sprintf("%+q", s)
}

func isForbidden(r rune) bool {
	return r == '\\' || r == ':' || r <= 0x1f || 0x7f <= r && r <= 0x9f
}

// checkComponent returns what is wrong with one component, or "". "." and ".." end in a dot.
func checkComponent(c string) string {
	switch {
	case c == "":
		return "has an empty component, or begins or ends with a slash"
	case len(c) > MaxComponent:
		return fmt.Sprintf("has a component of %d bytes: at most %d", len(c), MaxComponent)
	case strings.HasSuffix(c, ".") || strings.HasSuffix(c, " "):
		return "has a component that ends in a dot or a space"
	case isDevice(c):
		return "has a component that Windows takes for a device"
	case isGit(c):
		return "has a component that Git takes for its own"
	}
	return ""
}

// isDevice says whether Windows opens a device instead of a file of this name: with any extension, in any case, and
// with blanks before the extension.
func isDevice(component string) bool {
	base, _, _ := strings.Cut(component, ".")
	base = strings.TrimRight(base, " ")
	if len(base) != len("CON") && len(base) != len("COM0") {
		return false
	}
	base = strings.ToUpper(base)
	switch base {
	case "CON", "PRN", "AUX", "NUL":
		return true
	}
	return len(base) == 4 && (base[:3] == "COM" || base[:3] == "LPT") && '0' <= base[3] && base[3] <= '9'
}

func isGit(component string) bool {
	const git = ".git"
	if len(component) < len(git) || !strings.EqualFold(component[:len(git)], git) {
		return false
	}
	return component != ".gitattributes" && component != ".gitignore"
}

// CheckPaths applies CheckPath to every path, and the rules between them: strictly increasing bytewise, no two equal
// after full Unicode case folding, none a directory of another. nil, or ErrFormat.
func CheckPaths(sorted []string) error {
	files, err := foldAll(sorted)
	if err != nil {
		return err
	}
	last := ""
	for i, f := range files.folded {
		dir := path.Dir(f)
		if dir == last {
			continue // the directories of the previous path, already looked up
		}
		last = dir
		for ; dir != "."; dir = path.Dir(dir) {
			if j, found := files.index[dir]; found {
				return badPath(sorted[j], "is also a directory of %s", quote(sorted[i]))
			}
		}
	}
	return nil
}

// folding holds every path after case folding, in order and by value.
type folding struct {
	folded []string
	index  map[string]int
}

func foldAll(sorted []string) (folding, error) {
	f := folding{make([]string, len(sorted)), make(map[string]int, len(sorted))}
	fold := cases.Fold()
	for i, p := range sorted {
		if err := CheckPath(p); err != nil {
			return f, err
		}
		if i > 0 && sorted[i-1] >= p {
			return f, badPath(p, "does not come after %s: paths are sorted strictly increasing bytewise", quote(sorted[i-1]))
		}
		f.folded[i] = foldCase(fold, p)
		if j, found := f.index[f.folded[i]]; found {
			return f, badPath(p, "equals %s but for the case of its letters", quote(sorted[j]))
		}
		f.index[f.folded[i]] = i
	}
	return f, nil
}

// foldCase is full Unicode case folding, with a short way for ASCII: a release has up to 100,000 paths.
func foldCase(fold cases.Caser, p string) string {
	if onlyBytes(p, func(c byte) bool { return c < utf8.RuneSelf }) {
		return strings.ToLower(p)
	}
	return fold.String(strings.Map(upperCherokee, p))
}

// upperCherokee evens out Cherokee before cases.Fold, which as of x/text 0.43 exchanges its small and capital letters
// (U+AB70 becomes U+13A0 and U+13A0 becomes U+AB70) where Unicode's CaseFolding.txt folds small to capital only.
func upperCherokee(r rune) rune {
	switch {
	case 0xab70 <= r && r <= 0xabbf:
		return r - 0xab70 + 0x13a0
	case 0x13f8 <= r && r <= 0x13fd:
		return r - 0x13f8 + 0x13f0
	}
	return r
}
