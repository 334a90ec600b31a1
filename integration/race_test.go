// SPDX-License-Identifier: Apache-2.0

package integration_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSingle: what `make test` runs without the race detector starts no goroutine. Its tests may run beside one another.
func TestSingle(t *testing.T) {
	makefile, err := os.ReadFile("../Makefile")
	must(t, err)
	m := regexp.MustCompile(`(?m)^SINGLE +:= (.+)$`).FindSubmatch(makefile)
	if m == nil {
		t.Fatal("the Makefile has no SINGLE")
	}
	files := 0
	for pattern := range strings.FieldsSeq(string(m[1])) {
		dir, deep := strings.CutSuffix(pattern, "/...")
		must(t, filepath.WalkDir(filepath.Join("..", dir), func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() && !deep && path != filepath.Join("..", dir) {
				return err
			}
			if d.IsDir() || !strings.HasSuffix(path, ".go") {
				return nil
			}
			files++
			return noGoroutine(t, path)
		}))
	}
	if files < 50 {
		t.Errorf("%d files only", files)
	}
}

// noGoroutine looks for go statements, and for methods that make them by their usual names.
func noGoroutine(t *testing.T, path string) error {
	t.Helper()
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			t.Errorf("%s starts a goroutine", set.Position(n.Pos()))
		case *ast.SelectorExpr:
			if n.Sel.Name == "Go" || n.Sel.Name == "RunParallel" {
				t.Errorf("%s calls %s", set.Position(n.Pos()), n.Sel.Name)
			}
		}
		return true
	})
	return nil
}
