// SPDX-License-Identifier: Apache-2.0

package envelope_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/pkg/envelope"
)

// TestCheckPathHostile: E1, section 4 "Paths".
func TestCheckPathHostile(t *testing.T) {
	tests := map[string]string{
		"empty": "", "dot": ".", "dot dot": "..", "traversal": "../a", "traversal inside": "a/../b", "traversal at the end": "a/..",
		"dot inside": "a/./b", "absolute": "/a", "trailing slash": "a/", "double slash": "a//b", "only slash": "/",
		"backslash": `a\b`, "backslash traversal": `..\a`, "UNC": `\\host\share`, "drive": `C:a`, "drive slash": `C:/a`,
		"stream": "a:$DATA", "colon": "a:b", "NUL byte": "a\x00b", "NUL at the end": "a\x00", "newline": "a\nb", "escape": "a\x1b[2Jb",
		"DEL": "a\x7fb", "C1 control": "a\u0085b", "C1 end": "a\u009fb", "unit separator": "a\x1fb",
		"ends in a dot": "a.", "component ends in a dot": "a./b", "ends in a space": "a ", "component ends in a space": "a /b", "three dots": "...",
		"only a space": " ", "device": "CON", "device small": "con", "device mixed": "nUl", "device extension": "NUL.txt", "device two extensions": "aux.tar.gz",
		"device inside": "a/prn/b", "COM0": "com0", "COM9": "COM9.x", "LPT0": "lpt0", "LPT9": "Lpt9", "device with blanks": "NUL .txt",
		"git": ".git", "git inside": "a/.git/config", "GIT": ".GIT", "gitmodules": ".gitmodules", "github": "a/.GitHub/x",
		"gitignore in other case": ".GITIGNORE", "git tail": ".git~1",
		"invalid UTF-8": "a\xff", "overlong": "a\xc0\xaf", "surrogate": "a\xed\xa0\x80", "cut rune": "a\xe2\x82",
		"not NFC": "e\u0301", "not NFC Hangul": "\u1100\u1161", "not NFC singleton": "\u212b", "1025 bytes": strings.Repeat("abc/", 256) + "a",
		"256-byte component": strings.Repeat("a", 256), "256-byte component of runes": strings.Repeat("é", 128),
		"33 components": strings.Repeat("a/", 32) + "a", "64 KiB": strings.Repeat("a", 64<<10),
	}
	for name, p := range tests {
		t.Run("section 4/paths/"+name, func(t *testing.T) {
			err := envelope.CheckPath(p)
			refused(t, err, envelope.ErrFormat)
			if len(err.Error()) > 1000 || strings.ContainsAny(err.Error(), "\x00\x1b\n") {
				t.Fatalf("hostile message: %q", err)
			}
			refused(t, envelope.CheckPaths([]string{p}), envelope.ErrFormat)
		})
	}
}

func TestCheckPathGood(t *testing.T) {
	tests := []string{
		"a", "a/b", "A", "..a", "a..b", ".a", ".gitattributes", "a/.gitignore", "git", "a.git", ".gi", ".g it",
		"CONSOLE", "COM", "COM10", "LPTA", "com1a", "null", "a CON", "CON-1", " a", "a b", "é", "日本語", "\U0001f512", "a<b>|?*\"'", "%2e%2e",
		"~", "-rf", "a\u00a0b", "a\u00a0", strings.Repeat("a", 255), strings.Repeat("a/", 31) + "a",
		strings.Repeat(strings.Repeat("a", 127)+"/", 7) + strings.Repeat("a", 128),
	}
	for _, p := range tests {
		if err := envelope.CheckPath(p); err != nil {
			t.Errorf("%q: %v", p, err)
		}
	}
}

// TestCheckPathsTogether: the rules of section 4 between two paths.
func TestCheckPathsTogether(t *testing.T) {
	tests := []struct {
		name  string
		paths []string
		good  bool
	}{
		{"none", nil, true},
		{"neighbours", []string{"a", "a-b", "a.b", "b/a", "b/b", "c"}, true},
		{"directories that differ in case", []string{"A/x", "a/y"}, true},
		{"not sorted", []string{"b", "a"}, false},
		{"twice", []string{"a", "a"}, false},
		{"case", []string{"README", "readme"}, false},
		{"case of a directory", []string{"A/x", "a/x"}, false},
		{"sharp s", []string{"STRASSE", "straße"}, false},
		{"long s", []string{"s", "ſ"}, false},
		{"Kelvin is not NFC", []string{"k", "\u212a"}, false},
		{"Greek final sigma", []string{"σ", "ς"}, false},
		{"Greek capitals", []string{"Σ", "σ"}, false},
		{"ligature", []string{"ffi", "ﬃ"}, false},
		{"Cherokee", []string{"\u13a0", "\uab70"}, false},
		{"Cherokee, the other block", []string{"\u13f0", "\u13f8"}, false},
		{"Cherokee, two letters", []string{"\u13a0", "\uab71"}, true},
		{"dotless i is another letter", []string{"I", "ı"}, true},
		{"file and directory", []string{"a", "a/b"}, false},
		{"file and directory, apart", []string{"a", "a-b", "a/b"}, false},
		{"file and directory, deep", []string{"a/b", "a/b-c", "a/b/c/d"}, false},
		{"file and directory in other case", []string{"A", "a/b"}, false},
		{"directory in other case and file", []string{"A/b", "a"}, false},
		{"file and directory, sharp s", []string{"ss/a", "ß"}, false},
	}
	for _, tt := range tests {
		t.Run("section 4/paths/"+tt.name, func(t *testing.T) {
			err := envelope.CheckPaths(tt.paths)
			if tt.good && err != nil {
				t.Fatal(err)
			}
			if !tt.good {
				refused(t, err, envelope.ErrFormat)
			}
		})
	}
}

// TestCheckPathsMany: the largest release that is allowed, the deepest paths included, stays quick.
func TestCheckPathsMany(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: left out with -short")
	}
	var paths []string
	for i := range envelope.MaxFiles {
		paths = append(paths, fmt.Sprintf("%s%06d", strings.Repeat("d/", 31), i))
	}
	if err := envelope.CheckPaths(paths); err != nil {
		t.Fatal(err)
	}
	last := len(paths) - 1
	refused(t, envelope.CheckPaths(slices.Concat(paths[:last], []string{paths[last-1] + "/x"})), envelope.ErrFormat)
}
