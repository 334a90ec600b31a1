// SPDX-License-Identifier: Apache-2.0

package strictyaml

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

const (
	// maxFile caps a configuration file. The longest real one is a few kilobytes.
	maxFile = 1 << 20
	// maxDepth caps nesting, and with it the recursion of every walk over the tree.
	maxDepth = 32
	// maxProblems is how many problems one Load reports: a wrong file has thousands, a person mends ten.
	maxProblems = 20
)

// ErrConfig marks every refusal of Load. It is wrong usage: restarting does not help.
var ErrConfig = errors.New("configuration")

// Load decodes the YAML document data over the struct that into points to, which holds the defaults. name stands in front
// of each problem, as in "/etc/sluice/receiver.yaml:12: ...".
//
// The error wraps [ErrConfig] and lists every problem, one a line. After an error *into is undefined.
func Load(name string, data []byte, into any) error {
	t := reflect.TypeOf(into)
	if t == nil || t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct || reflect.ValueOf(into).IsNil() {
		panic(fmt.Sprintf("strictyaml: internal error: Load into %T, want a pointer to a struct", into))
	}
	root, err := parse(name, data)
	if err != nil {
		return err
	}
	r := &reader{name: name}
	r.walk(root, t.Elem(), "", 0)
	if err := r.err(); err != nil {
		return err
	}
	return decode(name, data, into)
}

// parse makes the tree of the only document. Aliases are not followed in a tree, so a bomb is still small here.
func parse(name string, data []byte) (*yaml.Node, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("%w: %s: %d bytes, at most %d", ErrConfig, name, len(data), maxFile)
	}
	if !utf8.Valid(data) {
		return nil, fmt.Errorf("%w: %s: not UTF-8 text", ErrConfig, name)
	}
	d := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	if err := d.Decode(&document); errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %s: empty: write at least one key", ErrConfig, name)
	} else if err != nil {
		return nil, located(name, err)
	}
	switch err := d.Decode(&second); {
	case errors.Is(err, io.EOF):
		return document.Content[0], nil
	case err != nil:
		return nil, located(name, err)
	}
	return nil, fmt.Errorf("%w: %s:%d: a second document: a configuration is one", ErrConfig, name, second.Line)
}

// decode is yaml's own strict pass. It also catches what walk cannot see, such as a word where a number belongs.
func decode(name string, data []byte, into any) error {
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		return located(name, err)
	}
	return nil
}

// yamlLine takes the line number out of yaml's own messages.
var yamlLine = regexp.MustCompile(`^(?:yaml: )?line (\d+): `)

// located rewrites "yaml: line 3: ..." as "name:3: ...".
func located(name string, err error) error {
	var typed *yaml.TypeError
	if !errors.As(err, &typed) {
		return fmt.Errorf("%w: %s", ErrConfig, at(name, err.Error()))
	}
	r := &reader{name: name}
	for _, problem := range typed.Errors {
		r.problems = append(r.problems, at(name, problem))
	}
	return r.err()
}

func at(name, problem string) string {
	if m := yamlLine.FindStringSubmatchIndex(problem); m != nil {
		return name + ":" + problem[m[2]:m[3]] + ": " + problem[m[1]:]
	}
	return name + ": " + strings.TrimPrefix(problem, "yaml: ")
}
