// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	// maxFunction is the longest function body in lines (style guide): what one screen shows.
	maxFunction = 70
	// maxTestFunction is wider, because a table of cases is data and not control flow.
	maxTestFunction = 140
	// minDoc is how many lines a package comment has at least: one is a name, not an explanation.
	minDoc = 2

	license = "// SPDX-License-Identifier: Apache-2.0\n\n"
)

// source is one parsed Go file of the module.
type source struct {
	path string // relative to the root, with slashes
	text string
	file *ast.File
	set  *token.FileSet
}

func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// sources parses every Go file of the module; testdata and hidden folders are not part of it.
func sources(t *testing.T) (all []source) {
	t.Helper()
	top := root(t)
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != top && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if d.IsDir() || filepath.Ext(path) != ".go" {
			return nil
		}
		rel, err := filepath.Rel(top, path)
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		s, err := parse(filepath.ToSlash(rel), string(text))
		all = append(all, s)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func parse(path, text string) (source, error) {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, text, parser.ParseComments|parser.SkipObjectResolution)
	return source{path, text, file, set}, err
}

func TestStyle(t *testing.T) {
	for _, s := range sources(t) {
		for _, problem := range s.judge() {
			t.Error(problem)
		}
	}
}

// judge names every rule that one file breaks.
func (s source) judge() (problems []string) {
	if !strings.HasPrefix(s.text, license) {
		problems = append(problems, s.path+": the first line must be the SPDX line, the second empty")
	}
	for _, decl := range s.file.Decls {
		if f, ok := decl.(*ast.FuncDecl); ok {
			problems = append(problems, s.judgeFunction(f)...)
		}
	}
	return problems
}

func (s source) judgeFunction(f *ast.FuncDecl) (problems []string) {
	where := fmt.Sprintf("%s:%d: %s", s.path, s.line(f.Pos()), f.Name.Name)
	limit := maxFunction
	if s.isTest() {
		limit = maxTestFunction
	}
	if lines := s.line(f.End()) - s.line(f.Pos()) - 1; lines > limit {
		problems = append(problems, fmt.Sprintf("%s has %d lines, at most %d", where, lines, limit))
	}
	if f.Recv == nil && f.Name.Name == "init" {
		problems = append(problems, where+": construct explicitly, in order, where a reader can see it")
	}
	if s.mayExit(f) {
		return problems
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Exit" {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == "os" {
				problems = append(problems, where+" calls os.Exit: return an error, main decides how the program ends")
			}
		}
		return true
	})
	return problems
}

// mayExit: commands and TestMain decide how a program ends.
func (s source) mayExit(f *ast.FuncDecl) bool {
	isMain := s.file.Name.Name == "main" && f.Name.Name == "main"
	return isMain || under("cmd", s.path) || s.isTest() && f.Name.Name == "TestMain"
}

func (s source) line(p token.Pos) int { return s.set.Position(p).Line }

// TestPackageComments: every package says what it is, in more than its name.
func TestPackageComments(t *testing.T) {
	longest := map[string]int{}
	for _, s := range sources(t) {
		key := filepath.Dir(s.path)
		if s.isTest() && key != "integration" {
			continue // a package of tests only speaks through its tests
		}
		longest[key] = max(longest[key], docLines(s.file))
	}
	for dir, lines := range longest {
		if lines < minDoc {
			t.Errorf("%s: its package comment has %d lines, at least %d", dir, lines, minDoc)
		}
	}
}

func docLines(f *ast.File) int {
	return len(strings.FieldsFunc(f.Doc.Text(), func(r rune) bool { return r == '\n' }))
}

// TestStyleJudge plants each breach, so that the rules are known to bite.
func TestStyleJudge(t *testing.T) {
	long := "package x\n\nfunc f() {\n" + strings.Repeat("\tg()\n", maxFunction+1) + "}\n"
	exit := "package x\n\nimport \"os\"\n\nfunc f() { func() { os.Exit(1) }() }\n"
	for _, c := range []struct{ name, path, text, want string }{
		{"clean", "internal/x/a.go", license + "package x\n\nfunc f() {}\n", ""},
		{"no licence", "internal/x/a.go", "package x\n", "SPDX"},
		{"licence not first", "internal/x/a.go", "\n" + license + "package x\n", "SPDX"},
		{"init", "internal/x/a.go", license + "package x\n\nfunc init() {}\n", "init: construct"},
		{"method named init", "internal/x/a.go", license + "package x\n\nfunc (t T) init() {}\n", ""},
		{"long", "internal/x/a.go", license + long, "has 71 lines"},
		{"long, but a test", "internal/x/a_test.go", license + long, ""},
		{"exit", "internal/x/a.go", license + exit, "calls os.Exit"},
		{"exit in a command", "cmd/x/main.go", license + exit, ""},
		{"exit in a program's main", "integration/x/a.go", license + strings.NewReplacer("package x", "package main", "f()", "main()").Replace(exit), ""},
		{"exit in a program's helper", "integration/x/a.go", license + strings.Replace(exit, "package x", "package main", 1), "calls os.Exit"},
		{"exit in a test", "internal/x/a_test.go", license + exit, "calls os.Exit"},
		{"exit in TestMain", "internal/x/a_test.go", license + strings.Replace(exit, "f()", "TestMain()", 1), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := parse(c.path, c.text)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(s.judge(), "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	for text, want := range map[string]int{"package x": 0, "// Package x is x.\npackage x": 1, "// Package x is x.\n//\n// And y.\npackage x": 2} {
		if s, err := parse("a.go", text); err != nil || docLines(s.file) != want {
			t.Errorf("%q has %d lines of comment, %v; want %d", text, docLines(s.file), err, want)
		}
	}
}
