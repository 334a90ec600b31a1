// SPDX-License-Identifier: Apache-2.0

package strictyaml_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"sluice/internal/strictyaml"
)

// config has every shape that a daemon's configuration has.
type config struct {
	Listen string                      `yaml:"listen"`
	Link   link                        `yaml:"link"`
	Rules  []rule                      `yaml:"rules"`
	Labels map[string]string           `yaml:"labels"`
	Peers  map[string]link             `yaml:"peers"`
	Spare  *link                       `yaml:"spare"`
	Spool  strictyaml.Bytes            `yaml:"spool"`
	Root   strictyaml.FilePath         `yaml:"root"`
	Holds  []strictyaml.Duration       `yaml:"holds"`
	Budget map[string]strictyaml.Bytes `yaml:"budget"`
	Common `yaml:",inline"`
	hidden string
	Never  string `yaml:"-"`
	Plain  bool
}

// Common is inline: its keys stand at the top.
type Common struct {
	LogLevel string `yaml:"log_level"`
}

type link struct {
	Rate   strictyaml.BitRate  `yaml:"rate"`
	Repair strictyaml.Percent  `yaml:"repair"`
	Idle   strictyaml.Duration `yaml:"idle"`
	Lanes  int                 `yaml:"lanes"`
}

type rule struct {
	Stream             string `yaml:"stream"`
	RequiredSignatures int    `yaml:"required_signatures"`
}

func defaults() config {
	return config{
		Listen: "127.0.0.1:4000",
		Link:   link{Rate: 900e6, Repair: 5.2, Lanes: 1},
		Common: Common{LogLevel: "info"},
		hidden: "x",
	}
}

// TestGood: each testdata/*.good.yml loads, and what it became over the defaults is in the file of the same name ending in
// .want.
func TestGood(t *testing.T) {
	for _, path := range glob(t, "testdata/*.good.yml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			c := defaults()
			if err := strictyaml.Load(path, read(t, path), &c); err != nil {
				t.Fatal(err)
			}
			got, err := yaml.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(read(t, strings.TrimSuffix(path, ".yml")+".want")), string(got)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

// TestBad: each testdata/*.bad.yml is refused with all the words of its "# expect:" lines, and with no other problem.
func TestBad(t *testing.T) {
	for _, path := range glob(t, "testdata/*.bad.yml") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			data := read(t, path)
			c := defaults()
			err := strictyaml.Load("f.yml", data, &c)
			if !errors.Is(err, strictyaml.ErrConfig) {
				t.Fatalf("error is %v, want ErrConfig", err)
			}
			var expected int
			for line := range strings.Lines(string(data)) {
				words, ok := strings.CutPrefix(line, "# expect: ")
				if !ok {
					continue
				}
				expected++
				if !strings.Contains(err.Error(), strings.TrimSpace(words)) {
					t.Errorf("%v\ndoes not say %q", err, strings.TrimSpace(words))
				}
			}
			if expected == 0 {
				t.Error("the file has no expect line")
			}
			if got := len(strings.Split(err.Error(), "\n")); got != expected {
				t.Errorf("%d problems, %d expected:\n%v", got, expected, err)
			}
		})
	}
}

func glob(t *testing.T, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("glob %s: %d files, %v", pattern, len(paths), err)
	}
	return paths
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestBadBytes has the cases that no text file shows well.
func TestBadBytes(t *testing.T) {
	for _, c := range []struct{ name, data, says string }{
		{"empty", "", "empty"},
		{"comments only", "# nothing\n\n", "empty"},
		{"too large", "listen: " + strings.Repeat("x", 1<<20), "at most 1048576"},
		{"not UTF-8", "listen: \xff\xfe", "not UTF-8"},
		{"UTF-16", "\xff\xfel\x00:\x00", "not UTF-8"},
		{"NUL", "listen: \x00", "control characters"},
		{"deep", "labels: " + strings.Repeat("[", 40) + strings.Repeat("]", 40), "nested more than 32 deep"},
		{"very deep", strings.Repeat("[", 1<<19), "exceeded max depth"},
		{"bomb", bomb(), "anchors and aliases are not allowed"},
		{"a list", "- a\n", "cannot unmarshal"},
		{"a word", "hello", "cannot unmarshal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := defaults()
			began := time.Now()
			err := strictyaml.Load("f.yml", []byte(c.data), &cfg)
			if !errors.Is(err, strictyaml.ErrConfig) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error is %.300v, want %q", err, c.says)
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("refusing took %v", took)
			}
		})
	}
}

// bomb is "billion laughs": ten levels of ten aliases.
func bomb() string {
	var b strings.Builder
	b.WriteString("labels:\n  a0: &a0 [x]\n")
	for i := range 10 {
		fmt.Fprintf(&b, "  a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	return b.String()
}

func TestManyProblemsAreCut(t *testing.T) {
	var c config
	err := strictyaml.Load("f.yml", []byte(strings.Repeat("zzzzzzzzzz: 1\n", 100)), &c)
	if err == nil || !strings.HasSuffix(err.Error(), "... and 80 more") {
		t.Errorf("error: %v", err)
	}
}

func TestLoadPanicsOnProgrammerErrors(t *testing.T) {
	for _, into := range []any{nil, config{}, new(int), (*config)(nil)} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Load into %T did not panic", into)
				}
			}()
			_ = strictyaml.Load("f.yml", []byte("a: 1"), into)
		}()
	}
}

// FuzzLoad: never a panic, every refusal is ErrConfig, and what was accepted comes back the same after being written out.
func FuzzLoad(f *testing.F) {
	for _, pattern := range []string{"testdata/*.good.yml", "testdata/*.bad.yml"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			data, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var c config
		err := strictyaml.Load("f.yml", data, &c)
		if err != nil {
			if !errors.Is(err, strictyaml.ErrConfig) {
				t.Fatalf("refusal is not ErrConfig: %v", err)
			}
			return
		}
		again, err := yaml.Marshal(c.Link)
		if err != nil {
			t.Fatal(err)
		}
		var back link
		if err := strictyaml.Load("again.yml", again, &back); err != nil {
			t.Fatalf("written out as %q: %v", again, err)
		}
		if back != c.Link {
			t.Fatalf("%+v came back as %+v", c.Link, back)
		}
	})
}
