// SPDX-License-Identifier: Apache-2.0

package hub

import (
	"slices"
	"strings"
)

// selected tells whether a path passes the filters, as huggingface_hub's filter_repo_objects does: it matches one of allow
// (or allow is empty) and none of ignore. A pattern that ends in "/" means everything below that directory.
func selected(path string, allow, ignore []string) bool {
	match := func(pattern string) bool {
		if strings.HasSuffix(pattern, "/") {
			pattern += "*"
		}
		return fnmatch(pattern, path)
	}
	if len(allow) > 0 && !slices.ContainsFunc(allow, match) {
		return false
	}
	return !slices.ContainsFunc(ignore, match)
}

// fnmatch is Python's fnmatch.fnmatchcase: '*' crosses '/', '?' is one character, "[seq]" and "[!seq]" are sets, an
// unclosed '[' is itself, and there is no escape. It backtracks only to the last star, so its time is O(len·len).
func fnmatch(pattern, name string) bool {
	p, s := []rune(pattern), []rune(name)
	pi, si := 0, 0
	star, mark := -1, 0
	for si < len(s) {
		if pi < len(p) && p[pi] == '*' {
			star, mark = pi, si
			pi++
			continue
		}
		if width, ok := matchOne(p[min(pi, len(p)):], s[si]); ok {
			pi += width
			si++
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		pi, si = star+1, mark
	}
	for pi < len(p) && p[pi] == '*' {
		pi++
	}
	return pi == len(p)
}

// matchOne matches one character against the pattern's first element and returns the element's width.
func matchOne(p []rune, c rune) (width int, ok bool) {
	if len(p) == 0 {
		return 0, false
	}
	switch p[0] {
	case '?':
		return 1, true
	case '[':
		if end := setEnd(p); end > 0 {
			return end + 1, inSet(p[1:end], c)
		}
	}
	return 1, p[0] == c
}

// setEnd returns the index of the bracket that closes the set which p begins with, or 0. A bracket in first place is a
// member.
func setEnd(p []rune) int {
	j := 1
	if j < len(p) && p[j] == '!' {
		j++
	}
	if j < len(p) && p[j] == ']' {
		j++
	}
	for j < len(p) && p[j] != ']' {
		j++
	}
	if j >= len(p) {
		return 0
	}
	return j
}

func inSet(set []rune, c rune) bool {
	negate := set[0] == '!'
	if negate {
		set = set[1:]
	}
	found := false
	for i := 0; i < len(set); {
		if i+2 < len(set) && set[i+1] == '-' {
			found = found || set[i] <= c && c <= set[i+2] // an empty range matches nothing
			i += 3
			continue
		}
		found = found || set[i] == c
		i++
	}
	return found != negate
}
