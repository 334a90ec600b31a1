// SPDX-License-Identifier: Apache-2.0

// Package integration_test holds what no single package can test: the two binaries together over a lossy one-way link,
// and the rules that keep the module's packages apart.
//
//	cmd ──► internal/{packer,receiver} ──► internal/* ──► pkg/* ──► nothing of ours
//
// layers_test.go has the table of allowed arrows, doc_test.go the rules of style that a machine can judge, systemd_test.go
// the hardening of the units.
package integration_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "sluice/"

// arrows says which packages of this module each package may import in production code. A new arrow is a change of this
// table, which somebody reviews. "x/*" allows all of x. A test helper (foo/footest) needs no row: see helperOf.
func arrows() map[string][]string {
	return map[string][]string{
		// The two commands compose; no rule of the domain lives there.
		"cmd/bastion-packer": {"internal/*", "pkg/*"},
		"cmd/diode-receiver": {"internal/*", "pkg/*"},

		// The two pipelines. They never import one another.
		"internal/packer": {
			"internal/admin", "internal/audit", "internal/checkpoint", "internal/console", "internal/dropbox", "internal/durable", "internal/hub",
			"internal/journal", "internal/link", "internal/officer", "internal/site", "internal/bulletin", "internal/spool", "internal/strictyaml", "internal/ticket", "internal/token", "internal/trust",
			"pkg/envelope", "pkg/fec", "pkg/mofn", "pkg/quality",
		},
		"internal/receiver": {
			"internal/admin", "internal/audit", "internal/checkpoint", "internal/console", "internal/durable",
			"internal/journal", "internal/link", "internal/oms", "internal/recv", "internal/site", "internal/bulletin", "internal/spool", "internal/strictyaml", "internal/ticket", "internal/trust",
			"pkg/envelope", "pkg/fec", "pkg/mofn", "pkg/registry",
		},

		// What both commands share, and what joins two packages of pkg/ that must not know one another.
		"internal/cli":   {"internal/admin", "internal/audit", "internal/console", "internal/dropbox", "internal/journal", "internal/officer", "internal/oms", "internal/trust", "pkg/envelope", "pkg/mofn"},
		"internal/trust": {"pkg/envelope", "pkg/mofn"},

		// Keys that sign, in files and in tokens. The low side's alone: the receiver signs nothing that people are counted for (ADR 0014).
		"internal/token": {"internal/trust", "pkg/mofn"},

		// An officer's machine, from the drop-box alone: no daemon, no journal, no network.
		"internal/officer": {"internal/checkpoint", "internal/console", "internal/dropbox", "internal/strictyaml", "internal/trust", "pkg/envelope", "pkg/mofn", "pkg/quality"},
		"internal/dropbox": {"pkg/envelope"},

		// What a side knows of trust over time, and the form in which it travels.
		"internal/site":     {"internal/bulletin", "internal/console", "internal/durable", "internal/trust", "pkg/envelope", "pkg/mofn"},
		"internal/bulletin": {"pkg/envelope", "pkg/mofn"},

		// It judges what a journal holds and what a directory says of one; keys and trust objects come from their own packages.
		"internal/audit": {"internal/console", "internal/journal", "internal/merkle", "internal/trust", "pkg/envelope", "pkg/mofn"},

		// It asks the host as the link does, with the link's own probes, and prints for a person.
		"internal/doctor": {"internal/console", "internal/link"},

		// The process that faces the link: it joins the link to the spool, and says what is missing.
		"internal/recv": {"internal/durable", "internal/link", "internal/spool", "internal/ticket", "pkg/fec"},

		// Effects: each knows one.
		"internal/link":       {"internal/largepage", "internal/spool", "pkg/fec"},
		"internal/spool":      {"internal/durable", "internal/largepage", "pkg/fec"},
		"internal/ticket":     {"pkg/fec"}, // a format, and who may ask: keys come as arguments
		"internal/admin":      nil,
		"internal/checkpoint": nil,
		"internal/console":    nil,
		"internal/durable":    nil,
		"internal/hub":        nil,
		"internal/journal":    {"internal/merkle"}, // the tree over its events
		"internal/largepage":  nil,
		"internal/merkle":     nil,
		"internal/oms":        nil, // a format of others: names and digests come as arguments
		"internal/qr":         nil,
		"internal/strictyaml": nil,

		// Nouns: formats, mathematics, policy. None knows another; mofn keeps the signatures that it is made of apart (ADR 0012).
		"pkg/envelope":                nil,
		"pkg/fec":                     nil,
		"pkg/mofn":                    {"pkg/mofn/internal/composite"},
		"pkg/mofn/internal/composite": nil,
		"pkg/quality":                 nil,
		"pkg/registry":                nil,
	}
}

// impure is what the pure packages may not import directly: they take readers, clocks and signers from their caller.
func impure() []string {
	return []string{"net", "net/*", "os", "os/*", "syscall", "golang.org/x/sys/*", "go.uber.org/zap", "go.uber.org/zap/*", "github.com/prometheus/*"}
}

func pure() []string {
	return []string{"internal/oms", "pkg/envelope", "pkg/fec", "pkg/mofn", "pkg/mofn/internal/composite"}
}

// goPackage is the part of `go list -json` that the rules need.
type goPackage struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

// list asks the go command, which knows build tags better than a parser of ours would.
func list(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = root(t)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []goPackage
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < 15 {
		t.Fatalf("go list found %d packages only", len(all))
	}
	return all
}

func root(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestLayers(t *testing.T) {
	table := arrows()
	for _, p := range list(t) {
		for _, problem := range judge(p, table) {
			t.Error(problem)
		}
	}
}

// judge names every import of p that the rules forbid.
func judge(p goPackage, table map[string][]string) (problems []string) {
	name := strings.TrimPrefix(p.ImportPath, module)
	allowed, known := table[name]
	switch {
	case under("integration", name):
		return nil // it may know everything
	case helperOf(name) != "":
		allowed = []string{"internal/*", "pkg/*"}
	case !known:
		return []string{name + " has no row in arrows(): say what it may import"}
	}
	for _, imported := range ours(p.Imports) {
		switch {
		case helperOf(imported) != "" && helperOf(name) == "":
			problems = append(problems, name+" must not import the test helper "+imported+" in production code")
		case helperOf(imported) == "" && !matches(allowed, imported):
			problems = append(problems, name+" must not import "+imported)
		}
	}
	if slices.Contains(pure(), name) {
		for _, imported := range p.Imports {
			if matches(impure(), imported) {
				problems = append(problems, name+" is pure: it must not import "+imported)
			}
		}
	}
	return append(problems, judgeTests(name, p)...)
}

// judgeTests: tests may import more, but nothing above commands, and those of pkg/ nothing that could not leave with the package.
func judgeTests(name string, p goPackage) (problems []string) {
	for _, imported := range ours(slices.Concat(p.TestImports, p.XTestImports)) {
		if under("cmd", imported) || under("pkg", name) && !under("pkg", imported) {
			problems = append(problems, "tests of "+name+" must not import "+imported)
		}
	}
	return problems
}

// ours keeps the imports of this module, without its name.
func ours(imports []string) (own []string) {
	for _, imported := range imports {
		if rest, ok := strings.CutPrefix(imported, module); ok {
			own = append(own, rest)
		}
	}
	return own
}

// helperOf returns the package that a test helper serves: internal/link for internal/link/linktest.
func helperOf(name string) string {
	parent := path.Dir(name)
	if path.Base(name) == path.Base(parent)+"test" {
		return parent
	}
	return ""
}

func under(dir, name string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if dir, ok := strings.CutSuffix(pattern, "/*"); ok {
			return strings.HasPrefix(name, dir+"/")
		}
		return name == pattern
	})
}

// TestLayersJudge plants each kind of forbidden import, so that the rules are known to bite.
func TestLayersJudge(t *testing.T) {
	for _, c := range []struct {
		name string
		p    goPackage
		want string
	}{
		{"pkg to pkg", goPackage{ImportPath: "sluice/pkg/fec", Imports: []string{"sluice/pkg/mofn"}}, "pkg/fec must not import pkg/mofn"},
		{"pkg to internal", goPackage{ImportPath: "sluice/pkg/registry", Imports: []string{"sluice/internal/durable"}}, "must not import internal/durable"},
		{"side to side", goPackage{ImportPath: "sluice/internal/receiver", Imports: []string{"sluice/internal/packer"}}, "must not import internal/packer"},
		{"upwards", goPackage{ImportPath: "sluice/internal/journal", Imports: []string{"sluice/internal/receiver"}}, "must not import internal/receiver"},
		{"network in pure", goPackage{ImportPath: "sluice/pkg/envelope", Imports: []string{"net/http"}}, "pure"},
		{"os in pure", goPackage{ImportPath: "sluice/pkg/mofn", Imports: []string{"os"}}, "pure"},
		{"zap in pure", goPackage{ImportPath: "sluice/pkg/fec", Imports: []string{"go.uber.org/zap/zapcore"}}, "pure"},
		{"unknown package", goPackage{ImportPath: "sluice/internal/util"}, "no row"},
		{"helper in production", goPackage{ImportPath: "sluice/internal/packer", Imports: []string{"sluice/internal/link/linktest"}}, "test helper"},
		{"pkg test to internal", goPackage{ImportPath: "sluice/pkg/fec", XTestImports: []string{"sluice/internal/link"}}, "tests of pkg/fec"},
		{"test to cmd", goPackage{ImportPath: "sluice/internal/cli", TestImports: []string{"sluice/cmd/diode-receiver"}}, "tests of internal/cli"},
		{"os in a pure test", goPackage{ImportPath: "sluice/pkg/fec", TestImports: []string{"os"}}, ""},
		{"helper in a test", goPackage{ImportPath: "sluice/internal/packer", TestImports: []string{"sluice/internal/link/linktest"}}, ""},
		{"helper to helper", goPackage{ImportPath: "sluice/internal/hub/hubtest", Imports: []string{"sluice/internal/link/linktest"}}, ""},
		{"command", goPackage{ImportPath: "sluice/cmd/bastion-packer", Imports: []string{"sluice/internal/packer", "sluice/pkg/fec"}}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(judge(c.p, arrows()), "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
