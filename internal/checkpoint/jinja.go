// SPDX-License-Identifier: Apache-2.0

package checkpoint

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxTemplate is the longest chat template, in bytes: real ones reach 30 KB.
const maxTemplate = 256 << 10

var errTemplate = errors.New("checkpoint: chat template refused")

// CheckTemplate tells whether a chat template keeps to a subset of Jinja in which no template known to be used in the
// field is lost and no known way out of the sandbox can be written: a closed list of statements, filters, tests, functions and
// methods; no name or text with two underscores; no subscript by a text that the template itself may have built. The error
// wraps an unexported sentinel and says where.
//
// It is a second line: loaders sandbox templates as well (CVE-2024-34359 and CVE-2026-5760 are loaders that did not).
func CheckTemplate(text string) error {
	if len(text) > maxTemplate {
		return fmt.Errorf("%w: %d bytes: want at most %d", errTemplate, len(text), maxTemplate)
	}
	if !utf8.ValidString(text) {
		return fmt.Errorf("%w: not UTF-8", errTemplate)
	}
	tags, err := lexTemplate(text)
	if err != nil {
		return err
	}
	c := &templateCheck{macros: map[string][]string{}, tainted: map[string]bool{}}
	if err := c.statements(tags); err != nil {
		return err
	}
	c.taint(tags)
	for _, t := range tags {
		if err := c.tag(t); err != nil {
			return err
		}
	}
	return nil
}

type tokenKind int

const (
	tokName tokenKind = iota
	tokText
	tokNumber
	tokOp
)

type token struct {
	kind tokenKind
	text string // of a tokText: its value
	line int
}

func (t token) is(op string) bool { return t.kind == tokOp && t.text == op }

func (t token) bad(format string, args ...any) error {
	return fmt.Errorf("%w: line %d: %s", errTemplate, t.line, fmt.Sprintf(format, args...))
}

// tag is one {{ expression }} or {% statement %}.
type tag struct {
	block  bool
	tokens []token
	line   int
}

// lexTemplate cuts a template into its tags as Jinja's own lexer does with the default delimiters; text and comments are
// dropped.
func lexTemplate(s string) ([]tag, error) {
	var tags []tag
	line := 1
	for {
		i := strings.Index(s, "{")
		for i >= 0 && i+1 < len(s) && !strings.ContainsRune("{%#", rune(s[i+1])) {
			next := strings.Index(s[i+1:], "{")
			if next < 0 {
				i = -1
				break
			}
			i += 1 + next
		}
		if i < 0 || i+1 >= len(s) {
			return tags, nil
		}
		line += strings.Count(s[:i], "\n")
		open := s[i+1]
		s = s[i+2:]
		if open == '#' {
			end := strings.Index(s, "#}")
			if end < 0 {
				return nil, fmt.Errorf("%w: line %d: comment without end", errTemplate, line)
			}
			line += strings.Count(s[:end], "\n")
			s = s[end+2:]
			continue
		}
		l := lexer{s: s, line: line, block: open == '%'}
		if err := l.run(); err != nil {
			return nil, err
		}
		tags = append(tags, tag{block: l.block, tokens: l.tokens, line: line})
		s, line = l.s, l.line
	}
}

// lexer reads the inside of one tag.
type lexer struct {
	s      string
	line   int
	block  bool
	stack  []byte // open brackets: Jinja looks for the tag's end only outside of them
	tokens []token
}

func (l *lexer) bad(format string, args ...any) error {
	return token{line: l.line}.bad(format, args...)
}

func (l *lexer) run() error {
	if l.s != "" && (l.s[0] == '-' || l.s[0] == '+') {
		l.s = l.s[1:]
	}
	for {
		trimmed := strings.TrimLeft(l.s, " \t\r\n")
		l.line += strings.Count(l.s[:len(l.s)-len(trimmed)], "\n")
		l.s = trimmed
		if l.s == "" {
			return l.bad("tag without end")
		}
		if l.ended() {
			return nil
		}
		if err := l.token(); err != nil {
			return err
		}
	}
}

func (l *lexer) ended() bool {
	if len(l.stack) > 0 {
		return false
	}
	end := "}}"
	if l.block {
		end = "%}"
	}
	for _, mark := range []string{"", "-", "+"} {
		if rest, ok := strings.CutPrefix(l.s, mark+end); ok && !(mark == "+" && !l.block) {
			l.s = rest
			return true
		}
	}
	return false
}

func (l *lexer) add(kind tokenKind, text string, n int) {
	l.tokens = append(l.tokens, token{kind, text, l.line})
	l.line += strings.Count(l.s[:n], "\n")
	l.s = l.s[n:]
}

func (l *lexer) token() error {
	switch c := l.s[0]; {
	case c == '"' || c == '\'':
		return l.quoted(c)
	case c == '_' || c < utf8.RuneSelf && unicode.IsLetter(rune(c)):
		n := span(l.s, func(r byte) bool { return r == '_' || wordByte(r) })
		l.add(tokName, l.s[:n], n)
		return nil
	case c >= '0' && c <= '9':
		n := span(l.s, func(r byte) bool { return r == '_' || r == '.' || wordByte(r) })
		l.add(tokNumber, l.s[:n], n)
		return nil
	}
	return l.operator()
}

func wordByte(r byte) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

func span(s string, in func(byte) bool) int {
	n := 0
	for n < len(s) && in(s[n]) {
		n++
	}
	return n
}

// quoted reads a text. Escapes are those that a template needs; the numeric ones could spell an underscore.
func (l *lexer) quoted(quote byte) error {
	var b strings.Builder
	for i := 1; i < len(l.s); i++ {
		switch c := l.s[i]; c {
		case quote:
			l.add(tokText, b.String(), i+1)
			return nil
		case '\\':
			i++
			if i >= len(l.s) {
				return l.bad("text without end")
			}
			decoded, ok := map[byte]byte{'n': '\n', 't': '\t', 'r': '\r', '\\': '\\', '\'': '\'', '"': '"'}[l.s[i]]
			if !ok {
				return l.bad(`escape \%c in a text`, l.s[i])
			}
			b.WriteByte(decoded)
		default:
			b.WriteByte(c)
		}
	}
	return l.bad("text without end")
}

func (l *lexer) operator() error {
	two := []string{"==", "!=", "<=", ">=", "//"}
	for _, op := range two {
		if strings.HasPrefix(l.s, op) {
			l.add(tokOp, op, 2)
			return nil
		}
	}
	c := l.s[0]
	switch {
	case strings.HasPrefix(l.s, "**") || strings.IndexByte("+-*/%~<>=.:|,()[]{}", c) < 0:
		return l.bad("unexpected %.10q", l.s)
	case c == '(' || c == '[' || c == '{':
		l.stack = append(l.stack, c)
	case c == ')' || c == ']' || c == '}':
		want := map[byte]byte{')': '(', ']': '[', '}': '{'}[c]
		if len(l.stack) == 0 || l.stack[len(l.stack)-1] != want {
			return l.bad("unexpected %q", string(c))
		}
		l.stack = l.stack[:len(l.stack)-1]
	}
	l.add(tokOp, l.s[:1], 1)
	return nil
}

// The closed lists. What is missing here is refused.
func allowedStatements() []string {
	return []string{"if", "elif", "else", "endif", "for", "endfor", "set", "endset", "macro", "endmacro", "break", "continue", "generation", "endgeneration"}
}

func allowedFilters() []string {
	return []string{
		"trim", "tojson", "length", "count", "upper", "lower", "string", "int", "float", "default", "d", "join", "first", "last", "list", "replace",
		"capitalize", "title", "items", "dictsort", "indent", "safe", "selectattr", "rejectattr", "select", "reject", "reverse", "sort", "unique", "abs", "round", "min", "max", "sum",
	}
}

func allowedTests() []string {
	return []string{
		"defined", "undefined", "none", "None", "null", "true", "false", "string", "mapping", "iterable", "sequence", "number", "integer", "float", "boolean",
		"eq", "equalto", "ne", "lt", "le", "gt", "ge", "in", "odd", "even", "divisibleby", "sameas",
	}
}

func allowedFunctions() []string {
	return []string{"range", "namespace", "raise_exception", "strftime_now", "dict"}
}

func allowedMethods() []string {
	return []string{
		"strip", "lstrip", "rstrip", "split", "rsplit", "startswith", "endswith", "lower", "upper", "title", "capitalize", "replace", "items", "keys", "values", "get",
		"append", "find", "index", "count", "splitlines", "removeprefix", "removesuffix", "isdigit", "strftime", "copy",
	}
}

// refusedNames are Jinja's own objects that lead to its inside.
func refusedNames() []string {
	return []string{"self", "super", "caller", "varargs", "kwargs", "cycler", "joiner", "lipsum", "context", "environment"}
}

func keywords() []string {
	return []string{"and", "or", "not", "in", "is", "if", "else", "elif", "recursive"}
}

// templateCheck holds what is known of the whole template.
type templateCheck struct {
	macros  map[string][]string // name -> parameters
	tainted map[string]bool     // variables that may hold a text built by the template: "x" or "ns.x"
}

// statements checks the keyword of each block and collects the macros.
func (c *templateCheck) statements(tags []tag) error {
	for _, t := range tags {
		if !t.block {
			continue
		}
		if len(t.tokens) == 0 || t.tokens[0].kind != tokName || !slices.Contains(allowedStatements(), t.tokens[0].text) {
			word := ""
			if len(t.tokens) > 0 {
				word = t.tokens[0].text
			}
			return token{line: t.line}.bad("statement %.40q", word)
		}
		if t.tokens[0].text == "macro" {
			if len(t.tokens) < 4 || t.tokens[1].kind != tokName || !t.tokens[2].is("(") {
				return t.tokens[0].bad("malformed macro")
			}
			c.macros[t.tokens[1].text] = parameters(t.tokens[3:])
		}
	}
	return nil
}

func parameters(tokens []token) []string {
	var names []string
	for _, arg := range arguments(tokens) {
		if len(arg) > 0 && arg[0].kind == tokName {
			names = append(names, arg[0].text)
		}
	}
	return names
}

// arguments splits what follows an opening parenthesis at the commas of its own level, up to its end.
func arguments(tokens []token) [][]token {
	var args [][]token
	depth, from := 0, 0
	for i, t := range tokens {
		switch {
		case t.is("(") || t.is("[") || t.is("{"):
			depth++
		case depth == 0 && (t.is(")") || t.is("]") || t.is("}")):
			return append(args, tokens[from:i])
		case t.is(")") || t.is("]") || t.is("}"):
			depth--
		case depth == 0 && t.is(","):
			args = append(args, tokens[from:i])
			from = i + 1
		}
	}
	return append(args, tokens[from:])
}

// taint finds, to a fixed point, the variables into which a text of the template's own may flow.
func (c *templateCheck) taint(tags []tag) {
	for {
		before := len(c.tainted)
		inSet := ""
		for _, t := range tags {
			inSet = c.flow(t, inSet)
		}
		if len(c.tainted) == before {
			return
		}
	}
}

// flow carries taint through one tag; it returns the variable of an open {% set x %} block.
func (c *templateCheck) flow(t tag, inSet string) string {
	c.flowCalls(t.tokens)
	if !t.block {
		return inSet
	}
	rest := t.tokens[1:]
	switch t.tokens[0].text {
	case "set":
		i := slices.IndexFunc(rest, func(t token) bool { return t.is("=") })
		if i < 0 {
			name := ""
			if len(rest) > 0 {
				name = rest[0].text
			}
			c.tainted[name] = true // the block's content is text
			return name
		}
		c.flowSet(rest[:i], rest[i+1:])
	case "for":
		i := slices.IndexFunc(rest, func(t token) bool { return t.kind == tokName && t.text == "in" })
		if i >= 0 && c.built(rest[i+1:]) {
			c.spread(rest[:i])
		}
	}
	return inSet
}

func (c *templateCheck) flowSet(targets, value []token) {
	if len(value) > 2 && value[0].text == "namespace" && value[1].is("(") && len(targets) == 1 {
		for _, arg := range arguments(value[2:]) {
			if len(arg) > 2 && arg[1].is("=") && c.built(arg[2:]) {
				c.tainted[targets[0].text+"."+arg[0].text] = true
			}
		}
		return
	}
	if c.built(value) {
		c.spread(targets)
	}
}

// spread taints the names of an assignment: a, (a, b), ns.x.
func (c *templateCheck) spread(targets []token) {
	for i, t := range targets {
		if t.kind != tokName {
			continue
		}
		if i+2 < len(targets) && targets[i+1].is(".") {
			c.tainted[t.text+"."+targets[i+2].text] = true
		} else if i == 0 || !targets[i-1].is(".") {
			c.tainted[t.text] = true
		}
	}
}

// flowCalls carries taint from the arguments of macro calls into the macros' parameters, and from what is appended into the
// list.
func (c *templateCheck) flowCalls(tokens []token) {
	for i := 0; i+1 < len(tokens); i++ {
		if i > 1 && tokens[i].text == "append" && tokens[i-1].is(".") && c.built(tokens[i+1:]) {
			c.spread(tokens[i-2 : i-1])
		}
		params, ok := c.macros[tokens[i].text]
		if !ok || tokens[i].kind != tokName || !tokens[i+1].is("(") {
			continue
		}
		for k, arg := range arguments(tokens[i+2:]) {
			switch {
			case !c.built(arg):
			case len(arg) > 2 && arg[1].is("="):
				c.tainted[arg[0].text] = true
			case k < len(params):
				c.tainted[params[k]] = true
			}
		}
	}
}

// built tells whether an expression may give a text that the template made: it holds a text (other than a plain subscript
// ['key'] or the text of a comparison), a macro call, or a tainted variable.
func (c *templateCheck) built(tokens []token) bool {
	for i, t := range tokens {
		switch t.kind {
		case tokText:
			subscript := i > 0 && i+1 < len(tokens) && tokens[i-1].is("[") && tokens[i+1].is("]") && i > 1 && endsOperand(tokens[i-2])
			if !subscript {
				return true
			}
		case tokName:
			dotted := i > 0 && tokens[i-1].is(".")
			if !dotted && (c.tainted[t.text] || c.isMacro(t.text)) {
				return true
			}
			if i+2 < len(tokens) && tokens[i+1].is(".") && c.tainted[t.text+"."+tokens[i+2].text] {
				return true
			}
		case tokNumber, tokOp:
		}
	}
	return false
}

// endsOperand tells whether a bracket behind the token is a subscript or a call.
func endsOperand(t token) bool {
	switch t.kind {
	case tokName:
		return !slices.Contains(keywords(), t.text)
	case tokText, tokNumber:
		return true
	case tokOp:
	}
	return t.is(")") || t.is("]") || t.is("}")
}

// tag checks every token of a tag in its context.
func (c *templateCheck) tag(t tag) error {
	tokens := t.tokens
	if t.block {
		tokens = tokens[1:]
	}
	for i, tok := range tokens {
		var err error
		switch tok.kind {
		case tokName:
			err = c.name(tokens, i)
		case tokText:
			err = checkText(tok)
		case tokOp:
			err = c.op(tokens, i)
		case tokNumber:
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func checkText(t token) error {
	if strings.Contains(t.text, "__") || strings.HasPrefix(t.text, "_") || strings.HasSuffix(t.text, "_") {
		return t.bad("text %.40q: underscores at its edge, or two together", t.text)
	}
	return nil
}

func (c *templateCheck) name(tokens []token, i int) error {
	t := tokens[i]
	if strings.HasPrefix(t.text, "_") || strings.Contains(t.text, "__") {
		return t.bad("name %.40q", t.text)
	}
	called := i+1 < len(tokens) && tokens[i+1].is("(")
	prev := token{kind: tokOp}
	if i > 0 {
		prev = tokens[i-1]
	}
	switch {
	case prev.is("."):
		return c.attribute(t, called)
	case prev.is("|"):
		return c.filter(tokens, i)
	case testName(tokens, i):
		if !slices.Contains(allowedTests(), t.text) {
			return t.bad("test %.40q", t.text)
		}
		return nil
	case slices.Contains(refusedNames(), t.text):
		return t.bad("name %.40q", t.text)
	case called && !slices.Contains(keywords(), t.text) && !slices.Contains(allowedFunctions(), t.text) && !c.isMacro(t.text):
		return t.bad("call of %.40q", t.text)
	}
	return nil
}

func (c *templateCheck) isMacro(name string) bool {
	_, ok := c.macros[name]
	return ok
}

// testName: the name behind `is` or `is not`.
func testName(tokens []token, i int) bool {
	is := func(k int, word string) bool { return k >= 0 && tokens[k].kind == tokName && tokens[k].text == word }
	if tokens[i].text == "not" {
		return false
	}
	return is(i-1, "is") || is(i-1, "not") && is(i-2, "is")
}

// attribute refuses the attributes of frames, generators and functions, which lead out without an underscore in front.
func (c *templateCheck) attribute(t token, called bool) error {
	for _, p := range []string{"gi_", "f_", "func_", "im_", "tb_", "ag_", "cr_", "co_"} {
		if strings.HasPrefix(t.text, p) {
			return t.bad("attribute %.40q", t.text)
		}
	}
	if t.text == "mro" || called && !slices.Contains(allowedMethods(), t.text) {
		return t.bad("method %.40q", t.text)
	}
	return nil
}

func (c *templateCheck) filter(tokens []token, i int) error {
	t := tokens[i]
	if !slices.Contains(allowedFilters(), t.text) {
		return t.bad("filter %.40q", t.text)
	}
	called := i+1 < len(tokens) && tokens[i+1].is("(")
	if !called || !slices.Contains([]string{"selectattr", "rejectattr", "select", "reject", "sort", "unique", "sum", "min", "max", "dictsort"}, t.text) {
		return nil
	}
	for _, arg := range arguments(tokens[i+2:]) {
		if err := plainArgument(arg, t); err != nil {
			return err
		}
	}
	return nil
}

// plainArgument is for filters that take the names of attributes and tests: literals only, and no path of attributes.
func plainArgument(arg []token, filter token) error {
	if len(arg) == 3 && arg[1].is("=") {
		arg = arg[2:]
	}
	if len(arg) == 0 {
		return nil
	}
	word := func(r rune) bool { return !(r == '_' || r < utf8.RuneSelf && wordByte(byte(r))) }
	if len(arg) != 1 || arg[0].is(".") || arg[0].kind == tokText && strings.ContainsFunc(arg[0].text, word) {
		return filter.bad("argument of %s is not a plain word", filter.text)
	}
	if arg[0].kind == tokName && !slices.Contains([]string{"true", "false", "True", "False", "none", "None"}, arg[0].text) {
		return filter.bad("argument of %s is a variable", filter.text)
	}
	return nil
}

func (c *templateCheck) op(tokens []token, i int) error {
	t := tokens[i]
	if i == 0 || !endsOperand(tokens[i-1]) {
		return nil
	}
	prev := tokens[i-1]
	switch {
	case t.is("(") && prev.kind != tokName:
		return t.bad("call of a computed value")
	case t.is("%") && prev.kind == tokText:
		return t.bad("formatting of a text")
	case t.is("["):
		if prev.kind == tokText || prev.is("}") {
			return t.bad("subscript of a literal")
		}
		return c.subscript(tokens[i+1:], t)
	}
	return nil
}

// subscript allows x['key'], and indices that cannot be a text of the template's own making.
func (c *templateCheck) subscript(rest []token, t token) error {
	inner := rest
	depth := 0
	for i, tok := range rest {
		if tok.is("[") || tok.is("(") || tok.is("{") {
			depth++
		}
		if tok.is("]") || tok.is(")") || tok.is("}") {
			if depth == 0 {
				inner = rest[:i]
				break
			}
			depth--
		}
	}
	if len(inner) == 1 && inner[0].kind == tokText {
		return nil
	}
	if len(inner) == 0 || c.built(inner) {
		return t.bad("subscript by a text that the template may have built")
	}
	return nil
}
