// SPDX-License-Identifier: Apache-2.0

package link_test

import (
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

// TestLimits: the table of docs/spec/datagram.md section 7 says of every limit what the constant in that file says, and no limit of this
// package is left out of it.
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
	for key := range packages["internal/link"] {
		file, name, _ := strings.Cut(key, " ")
		if limits.MatchString(name) && !listed[key] && !senders[name] {
			t.Errorf("%s: %s is not in the table", file, name)
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
	pkg, err := build.ImportDir(dir, 0)
	if err != nil {
		return nil, err
	}
	set := token.NewFileSet()
	var files []*ast.File
	for _, name := range pkg.GoFiles {
		f, err := parser.ParseFile(set, filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	info := &types.Info{Defs: make(map[*ast.Ident]types.Object)}
	// What other packages define is not needed for a limit, and not looked for: nothing is imported, and the errors of that do not matter.
	config := types.Config{IgnoreFuncBodies: true, Error: func(error) {}}
	_, _ = config.Check(dir, set, files, info)
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
