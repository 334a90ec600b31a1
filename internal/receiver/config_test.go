// SPDX-License-Identifier: Apache-2.0

package receiver_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sluice/internal/receiver"
)

// expects are the words of the first lines "# expect: words", one line a mistake.
func expects(t *testing.T, path string) (words []string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		w, ok := strings.CutPrefix(line, "# expect: ")
		if !ok {
			return words
		}
		words = append(words, strings.TrimSpace(w))
	}
	return words
}

func glob(t *testing.T, pattern string, atLeast int) []string {
	t.Helper()
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) < atLeast {
		t.Fatalf("%s: %d files, at least %d are wanted (%v)", pattern, len(found), atLeast, err)
	}
	return found
}

func TestConfigGood(t *testing.T) {
	for _, path := range glob(t, "testdata/config/*.good.yml", 3) {
		if _, err := receiver.LoadConfig(path); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestConfigBad: each file has the mistakes that it names in its first lines, all are reported at once, and no other.
func TestConfigBad(t *testing.T) {
	for _, path := range glob(t, "testdata/config/*.bad.yml", 15) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			want := expects(t, path)
			if len(want) == 0 {
				t.Fatal("no line # expect: words")
			}
			_, err := receiver.LoadConfig(path)
			if err == nil {
				t.Fatalf("accepted; %q was expected", want)
			}
			for _, w := range want {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in: %v", w, err)
				}
			}
			if n := problems(err); n != len(want) {
				t.Errorf("%d problems, %d were expected: %v", n, len(want), err)
			}
		})
	}
}

// problems counts the lines that are not the heading.
func problems(err error) int {
	n := 0
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasSuffix(line, ".yml:") {
			n++
		}
	}
	return n
}

func TestConfigDefaults(t *testing.T) {
	c, err := receiver.LoadConfig("testdata/config/minimal.good.yml")
	if err != nil {
		t.Fatal(err)
	}
	if d := receiver.DefaultConfig(); c.State != d.State || !reflect.DeepEqual(c.Link, d.Link) || c.Limits != d.Limits || c.Retain != d.Retain || c.Log != d.Log || c.Admin != d.Admin {
		t.Errorf("defaults were lost: %+v", c)
	}
}

func TestConfigAbsent(t *testing.T) {
	if _, err := receiver.LoadConfig(filepath.Join(t.TempDir(), "absent.yaml")); err == nil || !strings.Contains(err.Error(), "configuration") {
		t.Errorf("%v", err)
	}
}
