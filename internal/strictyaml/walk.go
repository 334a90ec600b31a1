// SPDX-License-Identifier: Apache-2.0

package strictyaml

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// reader collects the problems of one file while it walks the tree beside the Go type.
type reader struct {
	name     string
	problems []string
}

func (r *reader) add(n *yaml.Node, format string, args ...any) {
	r.problems = append(r.problems, fmt.Sprintf("%s:%d: ", r.name, n.Line)+fmt.Sprintf(format, args...))
}

func (r *reader) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	shown := r.problems
	if more := len(shown) - maxProblems; more > 0 {
		shown = append(slices.Clone(shown[:maxProblems]), fmt.Sprintf("... and %d more", more))
	}
	return fmt.Errorf("%w: %s", ErrConfig, strings.Join(shown, "\n"))
}

// octal is a number that YAML 1.1 would read in base eight: a trap for ports and counts.
var octal = regexp.MustCompile(`^[-+]?0[0-9_]+$`)

// walk refuses what yaml would accept in silence. t may be nil: then nothing is known about the keys below.
func (r *reader) walk(n *yaml.Node, t reflect.Type, path string, depth int) {
	switch {
	case depth > maxDepth:
		r.add(n, "nested more than %d deep", maxDepth)
		return
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		r.add(n, "anchors and aliases are not allowed: write the value out")
		return
	case n.Style&yaml.TaggedStyle != 0:
		r.add(n, "the tag %s is not allowed: write the plain value", n.Tag)
		return
	}
	t, opaque := strip(t)
	if opaque {
		t = nil
	}
	switch n.Kind { //nolint:exhaustive // aliases are refused above, documents do not nest
	case yaml.MappingNode:
		r.mapping(n, t, path, depth)
	case yaml.SequenceNode:
		for i, item := range n.Content {
			r.walk(item, elem(t), fmt.Sprintf("%s[%d]", path, i), depth+1)
		}
	case yaml.ScalarNode:
		r.scalar(n, path)
	}
}

func (r *reader) mapping(n *yaml.Node, t reflect.Type, path string, depth int) {
	known := map[string]reflect.Type(nil)
	if t != nil && t.Kind() == reflect.Struct {
		known = fields(t)
	}
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if !r.key(key, known, seen) {
			continue
		}
		below := elem(t)
		if known != nil {
			below = known[key.Value]
		}
		r.walk(value, below, join(path, key.Value), depth+1)
	}
}

// key judges one key of a mapping; known == nil means that any key will do.
func (r *reader) key(key *yaml.Node, known map[string]reflect.Type, seen map[string]int) bool {
	_, isKnown := known[key.Value]
	switch {
	case key.Kind == yaml.AliasNode || key.Anchor != "":
		r.add(key, "anchors and aliases are not allowed: write the value out")
	case key.Kind != yaml.ScalarNode:
		r.add(key, "a key must be a plain word")
	case key.Tag == "!!merge":
		r.add(key, "merge keys (<<) are not allowed: write the values out")
	case key.Style&yaml.TaggedStyle != 0:
		r.add(key, "the tag %s is not allowed: write the plain key", key.Tag)
	case seen[key.Value] != 0:
		r.add(key, "key %q again: it stands already in line %d", key.Value, seen[key.Value])
	case known != nil && !isKnown:
		r.add(key, "unknown key %q%s", key.Value, suggest(key.Value, known))
	default:
		seen[key.Value] = key.Line
		return true
	}
	return false
}

func (r *reader) scalar(n *yaml.Node, path string) {
	switch {
	case n.Tag == "!!null":
		r.add(n, "key %q has no value: give it one, or remove the key", path)
	case n.Tag == "!!int" && octal.MatchString(n.Value):
		r.add(n, "key %q: %s would be read as octal: remove the leading zero", path, n.Value)
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// unmarshaler is yaml's own interface: such a type decides for itself what its node means.
type unmarshaler interface{ UnmarshalYAML(*yaml.Node) error }

// strip follows pointers. opaque means that the type reads its own node, or that there is no type.
func strip(t reflect.Type) (_ reflect.Type, opaque bool) {
	for t != nil {
		if reflect.PointerTo(t).Implements(reflect.TypeFor[unmarshaler]()) {
			return t, true
		}
		if t.Kind() != reflect.Pointer {
			return t, false
		}
		t = t.Elem()
	}
	return nil, true
}

// elem is the type of what a list or a map holds, or nil.
func elem(t reflect.Type) reflect.Type {
	if t == nil {
		return nil
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Array, reflect.Map:
		return t.Elem()
	default:
		return nil
	}
}

// fields lists the keys of a struct as yaml names them: the tag, or the field's name in lower case; inline structs are
// part of the outer one.
func fields(t reflect.Type) map[string]reflect.Type {
	known := map[string]reflect.Type{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case !f.IsExported() || name == "-":
		case slices.Contains(strings.Split(options, ","), "inline"):
			inner, _ := strip(f.Type)
			if inner.Kind() == reflect.Struct {
				for k, v := range fields(inner) {
					known[k] = v
				}
			}
		case name != "":
			known[name] = f.Type
		default:
			known[strings.ToLower(f.Name)] = f.Type
		}
	}
	return known
}

// suggest names the known key that is nearest to a wrong one, if any is near, or else lists what is known.
func suggest(wrong string, known map[string]reflect.Type) string {
	best, bestDistance := "", len(wrong)/3+2
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if d := distance(wrong, name, bestDistance); d < bestDistance {
			best, bestDistance = name, d
		}
	}
	if best != "" {
		return fmt.Sprintf(": did you mean %q?", best)
	}
	return ": known here: " + strings.Join(names, ", ")
}

// distance is the Levenshtein distance of a and b in bytes, or cut if their lengths alone put it at cut or more.
func distance(a, b string, cut int) int {
	if len(a)-len(b) >= cut || len(b)-len(a) >= cut {
		return cut
	}
	row := make([]int, len(b)+1)
	for k := range row {
		row[k] = k
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for k := range len(b) {
			substitute := diagonal
			if a[i] != b[k] {
				substitute++
			}
			diagonal = row[k+1]
			row[k+1] = min(row[k]+1, row[k+1]+1, substitute)
		}
	}
	return row[len(b)]
}
