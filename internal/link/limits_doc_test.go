// SPDX-License-Identifier: Apache-2.0

package link_test

import (
	"errors"
	"fmt"
	"go/ast"
	"go/build"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sluice/internal/receiver"
)

// TestLimits: the table of docs/spec/datagram.md section 7 says of every limit what the constant in that file says, and no limit of the
// packages that face the link is left out of it.
func TestLimits(t *testing.T) {
	page, err := os.ReadFile("../../docs/spec/datagram.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(page), "\n## 7. Limits\n")
	section, _, ended := strings.Cut(section, "\n## ")
	if !found || !ended {
		t.Fatal("no section 7. Limits")
	}
	packages := make(map[string]constants)
	listed := make(map[string]bool)
	for line := range strings.Lines(section) {
		cell := strings.Split(line, "|")
		if len(cell) != 8 || !strings.Contains(cell[3], ".go") {
			continue
		}
		file, name := strings.TrimSpace(cell[3]), strings.TrimSpace(cell[4])
		listed[filepath.Base(file)+" "+name] = true
		said, err := quantity(strings.TrimSpace(cell[2]))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		dir := filepath.Dir(file)
		if packages[dir] == nil {
			if packages[dir], err = constantsOf("../../" + dir); err != nil {
				t.Fatal(err)
			}
		}
		if is := packages[dir][filepath.Base(file)+" "+name]; is != said.String() {
			t.Errorf("%s: the page says %s, %s says %q", name, said, file, is)
		}
	}
	if len(listed) < 30 {
		t.Fatalf("only %d rows were understood", len(listed))
	}
	for _, dir := range []string{"internal/link", "internal/recv"} {
		for key := range packages[dir] {
			file, name, _ := strings.Cut(key, " ")
			if limits.MatchString(name) && !listed[key] && !senders[name] {
				t.Errorf("%s/%s: %s is not in the table", dir, file, name)
			}
		}
	}
}

// limits are names of limits; senders are those that only a sender has.
var (
	limits  = regexp.MustCompile(`^[mM]ax[A-Z]|PerSecond$|^ring|Room$`)
	senders = map[string]bool{"MaxBatch": true, "MaxSegments": true, "maxStep": true, "settleBytesPerSecond": true}
)

// constants are the values of a package, by "file name"; those of the configuration among them.
type constants map[string]string

// constantsOf reads the constants of a package by the rules of the language.
func constantsOf(dir string) (constants, error) {
	set := token.NewFileSet()
	_, info, err := check(set, dir)
	if err != nil {
		return nil, err
	}
	all := make(constants)
	for id, object := range info.Defs {
		if c, ok := object.(*types.Const); ok {
			all[filepath.Base(set.Position(id.Pos()).Filename)+" "+c.Name()] = constant.ToInt(c.Val()).ExactString()
		}
	}
	if strings.HasSuffix(dir, "internal/receiver") {
		l := receiver.DefaultConfig().Limits
		all["config.go limits.max_release"], all["config.go limits.max_releases"] = fmt.Sprint(int64(l.MaxRelease)), fmt.Sprint(l.MaxReleases)
	}
	return all, nil
}

// check type-checks what a constant may depend on: no function, and no package of anybody else's. The errors of what is left out do
// not matter.
func check(set *token.FileSet, dir string) (*types.Package, *types.Info, error) {
	pkg, err := build.ImportDir(dir, 0)
	if err != nil {
		return nil, nil, err
	}
	var files []*ast.File
	for _, name := range pkg.GoFiles {
		f, err := parser.ParseFile(set, filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, nil, err
		}
		files = append(files, f)
	}
	info := &types.Info{Defs: make(map[*ast.Ident]types.Object)}
	config := types.Config{Importer: ours{set}, IgnoreFuncBodies: true, Error: func(error) {}}
	checked, _ := config.Check(dir, set, files, info)
	return checked, info, nil
}

// ours imports the packages of this module.
type ours struct{ set *token.FileSet }

// Import implements types.Importer.
func (o ours) Import(path string) (*types.Package, error) {
	dir, ok := strings.CutPrefix(path, "sluice/")
	if !ok {
		return nil, errors.New("not ours")
	}
	pkg, _, err := check(o.set, "../../"+dir)
	return pkg, err
}

var quantityRule = regexp.MustCompile(`^([0-9,]+)(?:\^([0-9]+))?(?: (KiB|MiB|GiB|TiB|bytes))?$`)

// quantity reads a number as the pages write it: 1,408 bytes, 64 KiB, 2^32.
func quantity(s string) (*big.Int, error) {
	m := quantityRule.FindStringSubmatch(s)
	if m == nil {
		return nil, fmt.Errorf("%q is no quantity", s)
	}
	n, ok := new(big.Int).SetString(strings.ReplaceAll(m[1], ",", ""), 10)
	if !ok {
		return nil, fmt.Errorf("%q is no quantity", s)
	}
	if m[2] != "" {
		power, _ := new(big.Int).SetString(m[2], 10)
		n.Exp(n, power, nil)
	}
	shift := map[string]uint{"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}[m[3]]
	return n.Lsh(n, shift), nil
}
