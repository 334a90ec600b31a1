// SPDX-License-Identifier: Apache-2.0

package mofn

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const (
	// maxPolicyText: a policy is read by people; 64 KiB are about 400 officers.
	maxPolicyText = 64 << 10
	// maxKeys bounds the work of loading: each key costs a curve check and up to 70 KiB once expanded.
	maxKeys = 512
	// maxGroups, maxRules and maxDepth bound what a policy costs to explain, and to read: each rule is shown with its groups.
	maxGroups = 512
	maxRules  = 256
	maxDepth  = 8
	// maxMistakes ends the list of a text that is no policy at all.
	maxMistakes = 64
	// maxHold: a longer hold is a slip of the pen, and could overflow when it is added to a time.
	maxHold = 366 * 24 * time.Hour
	// maxSafeInt is the largest integer of the formats, 2^53 - 1 (envelope.md section 3).
	maxSafeInt = 1<<53 - 1
)

// checkedWords are what an officer can say to have checked (envelope.md section 7), sorted.
func checkedWords() []string { return []string{"bytes", "gate", "inspection", "manifest"} }

// otherRoles are those of signatures that are no approvals (trust.md section 1), which no group of officers may have as its name.
func otherRoles() []string { return []string{RolePacker, RoleRoot, RoleHeartbeat, "log"} }

// statement is one line of the policy, without its comment.
type statement struct {
	line  int
	text  string
	words []string
}

// parser collects every mistake instead of stopping at the first: officers wait while a policy is corrected.
type parser struct {
	policy   *Policy
	enrolled map[KeyID]*PublicKey
	usedAt   map[KeyID]int // line that gives a key to an officer or packer
	unfit    []unfit
	stopAt   int // line of the stop line, 0 before there was one
	errs     []error
}

// ParsePolicy reads the text of trust.md section 3 against the keys of the trust object. Every mistake is reported, as one
// *PolicyError each, joined (errors.Join); all match ErrPolicy. The text and the keys stay the caller's.
func ParsePolicy(text string, keys []TrustKey) (*Policy, error) {
	p := &parser{
		policy: &Policy{
			officers: map[string]*officer{}, groups: map[string]*group{},
			keys: map[KeyID]*PublicKey{}, owner: map[KeyID]*officer{},
		},
		enrolled: map[KeyID]*PublicKey{},
		usedAt:   map[KeyID]int{},
	}
	if p.text(text); len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	if len(keys) > maxKeys {
		return nil, &PolicyError{Reason: fmt.Sprintf("%d keys, at most %d", len(keys), maxKeys), Fix: "remove keys that nobody uses"}
	}
	p.enrol(keys)
	p.read(statements(text))
	p.reportUnfit()
	p.checkHalves(keys)
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return p.policy, nil
}

// text refuses what people and parsers could see differently, line by line. Nothing is read of a text that has any of it.
func (p *parser) text(text string) {
	const fix = "write plain UTF-8 lines, words separated by spaces or tabs, that end in a newline only"
	if len(text) > maxPolicyText {
		p.fail(statement{text: text}, "say it shorter", "text of %d bytes, at most %d are allowed", len(text), maxPolicyText)
		return
	}
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		err := checkText(line, "\t", maxPolicyText)
		if err == nil {
			err = checkVisible(line)
		}
		if err != nil {
			p.fail(statement{line: number, text: line}, fix, "%v", err)
		}
	}
}

// checkVisible refuses characters that show as nothing, or move what stands beside them (U+202E turns a line around): the
// people who sign a policy read it on a screen. Blanks other than the space look like it and are not.
func checkVisible(line string) error {
	for i, r := range line {
		if unicode.Is(unicode.Cf, r) || r != ' ' && unicode.Is(unicode.Z, r) {
			return fmt.Errorf("text has the invisible character %U at byte %d", r, i)
		}
	}
	return nil
}

// statements splits the text; "#" begins a comment, blanks separate words.
func statements(text string) []statement {
	var all []statement
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		code, _, _ := strings.Cut(line, "#")
		if words := strings.Fields(code); len(words) > 0 {
			all = append(all, statement{line: number, text: strings.TrimSpace(line), words: words})
		}
	}
	return all
}

// fail records a mistake.
func (p *parser) fail(s statement, fix, reason string, args ...any) {
	if len(p.errs) < maxMistakes {
		p.errs = append(p.errs, &PolicyError{Line: s.line, Text: s.text, Reason: fmt.Sprintf(reason, args...), Fix: fix})
	}
}

// unfit is a key of the trust object that cannot be enrolled.
type unfit struct {
	id          KeyID
	fix, reason string
}

// enrol checks the keys of the trust object and recomputes their ids.
func (p *parser) enrol(keys []TrustKey) {
	refuse := func(k TrustKey, fix, reason string, args ...any) {
		p.unfit = append(p.unfit, unfit{k.ID, fix, fmt.Sprintf(reason, args...)})
	}
	for _, k := range keys {
		key, err := ParsePublicKey(k.Suite, k.Public)
		switch {
		case err != nil:
			refuse(k, "replace this key", "key cannot be enrolled: %v", err)
		case key.ID() != k.ID:
			refuse(k, "take id and key from one public key file", "key is filed under an id that is not its own (its own is %v)", key.ID())
		case p.enrolled[k.ID] != nil:
			refuse(k, "list each key once", "key is listed twice")
		default:
			p.enrolled[k.ID] = key
		}
	}
}

// reportUnfit comes after the text was read: it names the line that uses the key, if any does.
func (p *parser) reportUnfit() {
	for _, u := range p.unfit {
		p.fail(statement{line: p.usedAt[u.id], text: u.id.String()}, u.fix, "%s", u.reason)
	}
}

// read goes over the text once for each kind of line, so that officers may stand anywhere.
func (p *parser) read(all []statement) {
	var rules int
	pass := func(word string, line func(statement)) (n int) {
		for _, s := range all {
			if s.words[0] == word {
				n++
				line(s)
			}
		}
		return n
	}
	for _, s := range all {
		if !slices.Contains([]string{"officer", "group", "rule", "packer", "stop"}, s.words[0]) {
			p.fail(s, "begin the line with officer, group, rule, packer or stop", "unknown word %q", shorten(s.words[0]))
		}
	}
	pass("officer", p.officer)
	packers := pass("packer", p.packer)
	pass("group", p.group)
	rules = pass("rule", p.rule)
	pass("stop", p.stop)
	if rules == 0 {
		p.fail(statement{}, `add a line "rule stream <pattern> quorum <group>"`, "the policy has no rule")
	}
	if packers == 0 {
		p.fail(statement{}, `add a line "packer <key id>"`, "the policy has no packer")
	}
}

// officer <name> key <key id> [key <key id> ...].
func (p *parser) officer(s statement) {
	if len(s.words) < 4 || len(s.words)%2 != 0 {
		p.fail(s, `write "officer <name> key <key id> [key <key id> ...]"`, "an officer has a name and at least one key")
		return
	}
	o := &officer{name: s.words[1]}
	if !p.newName(s, o.name, "officer") {
		return
	}
	p.policy.officers[o.name] = o
	for i := 2; i < len(s.words); i += 2 {
		if s.words[i] != "key" {
			p.fail(s, `write "key" before each key id`, "unknown word %q", shorten(s.words[i]))
			continue
		}
		if id, ok := p.useKey(s, s.words[i+1]); ok {
			o.keys = append(o.keys, id)
			p.policy.owner[id] = o
		}
	}
}

// packer <key id>.
func (p *parser) packer(s statement) {
	if len(s.words) != 2 {
		p.fail(s, `write "packer <key id>"`, "a packer line has exactly one key id")
		return
	}
	if id, ok := p.useKey(s, s.words[1]); ok {
		p.policy.packers = append(p.policy.packers, id)
	}
}

// newName checks the name of an officer or group. They share one space of names, because a member is known by its name only.
func (p *parser) newName(s statement, name, kind string) bool {
	_, isOfficer := p.policy.officers[name]
	_, isGroup := p.policy.groups[name]
	switch {
	case !validName(name):
		p.fail(s, "use a-z, 0-9, dot, dash and underscore, at most 64, beginning with a letter or digit", "%q is not a name", shorten(name))
	case isOfficer:
		p.fail(s, "give each a name of its own", "duplicate name: there is an officer %q already", name)
	case isGroup:
		p.fail(s, "give each a name of its own", "duplicate name: there is a group %q already", name)
	default:
		return true
	}
	return false
}

// useKey gives a key to one officer or packer: a second use of it, in any place, is refused.
func (p *parser) useKey(s statement, word string) (KeyID, bool) {
	id, err := ParseKeyID(word)
	if err != nil {
		p.fail(s, "copy the key id from the public key file", "%q is not a key id of 64 lower-case hexadecimal digits", shorten(word))
		return id, false
	}
	if first, used := p.usedAt[id]; used {
		p.fail(s, "give each person and packer keys of their own", "key %v is used on line %d already", id, first)
		return id, false
	}
	p.usedAt[id] = s.line
	key, ok := p.enrolled[id]
	switch {
	case !ok && slices.ContainsFunc(p.unfit, func(u unfit) bool { return u.id == id }):
		return id, false // reportUnfit says why, on this line
	case !ok:
		p.fail(s, "add the public key to the keys of the trust object", "no key in the trust object has the id %v", id)
		return id, false
	}
	p.policy.keys[id] = key
	return id, true
}

// checkHalves refuses two keys with a half in common: one person could answer for both with it.
func (p *parser) checkHalves(keys []TrustKey) {
	first := map[KeyID]KeyID{}
	for _, k := range keys {
		key, ok := p.enrolled[k.ID]
		if !ok {
			continue
		}
		for _, half := range key.HalfIDs() {
			other, seen := first[half]
			if seen && other != k.ID {
				where := statement{line: max(p.usedAt[k.ID], p.usedAt[other]), text: k.ID.String()}
				p.fail(where, "make a new key; halves are never reused", "keys %v and %v share one half", other, k.ID)
			}
			first[half] = k.ID
		}
	}
}

// group <name> <k>|any|all <member> [<member> ...].
func (p *parser) group(s statement) {
	if len(s.words) < 4 {
		p.fail(s, `write "group <name> <k>|any|all <member> [<member> ...]"`, "a group has a name, a threshold and at least one member")
		return
	}
	g := &group{name: s.words[1]}
	if !p.newName(s, g.name, "group") {
		return
	}
	if len(p.policy.groups) == maxGroups {
		p.fail(s, "use fewer groups", "more than %d groups", maxGroups)
		return
	}
	for _, name := range s.words[3:] {
		p.member(s, g, name)
	}
	if len(g.officers) > 0 && len(g.groups) > 0 {
		p.fail(s, "put the officers into a group of their own", "group %q mixes officers and groups", g.name)
	}
	p.threshold(s, g, s.words[2], len(s.words)-3)
	if g.depth++; g.depth > maxDepth {
		p.fail(s, "put the members of a lower group into a higher one", "group %q stands on %d levels of groups, at most %d are allowed", g.name, g.depth-1, maxDepth-1)
	}
	p.policy.groups[g.name] = g
}

// member adds one member to a group and makes the group its only parent.
func (p *parser) member(s statement, g *group, name string) {
	const once = "a name belongs to one group; use one person for one role"
	if o, ok := p.policy.officers[name]; ok {
		if o.group != nil {
			p.fail(s, once, "officer %q is a member of two groups, or twice of one (already of %q)", name, o.group.name)
			return
		}
		o.group = g
		g.officers = append(g.officers, o)
		return
	}
	sub, ok := p.policy.groups[name]
	switch {
	case !ok:
		p.fail(s, "define it; a group must stand above the line that uses it", "member %q is neither an officer nor a group defined above", shorten(name))
	case sub.parent != nil:
		p.fail(s, once, "group %q is a member of two groups, or twice of one (already of %q)", name, sub.parent.name)
	default:
		sub.parent = g
		g.depth = max(g.depth, sub.depth)
		g.groups = append(g.groups, sub)
	}
}

// threshold reads k, any or all. Members that were refused still count here, so that one mistake gives one message.
func (p *parser) threshold(s statement, g *group, word string, members int) {
	switch word {
	case "any":
		g.need = 1
		return
	case "all":
		g.need = members
		return
	}
	k, err := strconv.Atoi(word)
	switch {
	case err != nil || strconv.Itoa(k) != word:
		p.fail(s, "write a plain number, any or all", "threshold %q is not a number", shorten(word))
	case k < 1:
		p.fail(s, "ask for at least 1", "threshold %d is below 1", k)
	case k > members:
		p.fail(s, "lower the threshold or add members", "threshold %d is above the number of members, %d", k, members)
	}
	g.need = k
}

// stop <group> resume <group>: any one of the first may stop, lifting a stop and revoking needs the quorum of the second.
func (p *parser) stop(s statement) {
	w := s.words
	if len(w) != 4 || w[2] != "resume" {
		p.fail(s, `write "stop <group> resume <group>"`, "the stop line is not complete or has an unknown word")
		return
	}
	if p.stopAt > 0 {
		p.fail(s, "keep one of the two", "there is a stop line already, line %d", p.stopAt)
		return
	}
	p.stopAt = s.line
	p.policy.stop, p.policy.resume = p.answering(s, "stop group", w[1]), p.answering(s, "resume group", w[3])
}

// rule stream <pattern> quorum <group> [hold <duration>] [max-size <bytes>] [succession chain|latest] [require checked=<word>:<n>]...
func (p *parser) rule(s statement) {
	w := s.words
	if len(w) < 5 || w[1] != "stream" || w[3] != "quorum" || len(w)%2 == 0 {
		p.fail(s, `write "rule stream <pattern> quorum <group>" and then pairs of an option and its value`, "the rule is not complete or has an unknown word")
		return
	}
	if len(p.policy.rules) == maxRules {
		p.fail(s, "cover several streams by one pattern", "more than %d rules", maxRules)
		return
	}
	r := Rule{Pattern: w[2], Quorum: w[4], Require: map[string]int{}}
	p.pattern(s, r.Pattern)
	seen := map[string]bool{}
	for i := 5; i < len(w); i += 2 {
		if w[i] != "require" && seen[w[i]] {
			p.fail(s, "say it once", "%s is given twice", shorten(w[i]))
		}
		seen[w[i]] = true
		p.option(s, &r, w[i], w[i+1])
	}
	p.quorum(s, &r)
	p.policy.rules = append(p.policy.rules, r)
}

// pattern refuses what could never match, and a second rule for the same pattern.
func (p *parser) pattern(s statement, pattern string) {
	if !validStream(strings.TrimSuffix(pattern, "/*")) {
		p.fail(s, `name a stream, as models/llm, or everything below a prefix, as models/*`, "%q is not a pattern", shorten(pattern))
	}
	for _, r := range p.policy.rules {
		if r.Pattern == pattern {
			p.fail(s, "keep one of the two", "there are two rules for the pattern %q", shorten(pattern))
			return
		}
	}
}

func (p *parser) option(s statement, r *Rule, word, value string) {
	var err error
	switch word {
	case "hold":
		r.Hold, err = parseHold(value)
	case "max-size":
		r.MaxSize, err = parseSize(value)
	case "succession":
		r.Chain, err = parseSuccession(value)
	case "require":
		err = parseRequire(r.Require, value)
	default:
		err = fmt.Errorf("unknown word %q", shorten(word))
	}
	if err != nil {
		p.fail(s, `options are "hold 24h", "max-size 2TiB", "succession chain", "require checked=bytes:1"`, "%v", err)
	}
}

// quorum checks that the rule can be met.
func (p *parser) quorum(s statement, r *Rule) {
	g := p.answering(s, "quorum", r.Quorum)
	if g == nil {
		return
	}
	people := len(g.people())
	for _, word := range slices.Sorted(maps.Keys(r.Require)) {
		if n := r.Require[word]; people > 0 && n > people {
			p.fail(s, "lower the number or add officers", "%d officers must have checked %s, the quorum has %d", n, word, people)
		} else if n > maxVotes {
			p.fail(s, "lower the number", "%d officers must have checked %s, an envelope holds at most %d approvals", n, word, maxVotes)
		}
	}
}

// answering finds a group that a rule or a stop line names: it has officers, and what they sign in the role of their group cannot
// be taken for another kind of signature. nil when there is no such group.
func (p *parser) answering(s statement, what, name string) *group {
	g, ok := p.policy.groups[name]
	if !ok {
		p.fail(s, "define a group of that name", "%s %q is not a group", what, shorten(name))
		return nil
	}
	if len(g.people()) == 0 {
		p.fail(s, "put officers into the group", "%s %q has no officer", what, g.name)
	}
	if n := g.fewest(); n > maxVotes {
		p.fail(s, "lower the thresholds", "%s %q needs %d people, an envelope holds at most %d approvals", what, g.name, n, maxVotes)
	}
	g.each(func(sub *group) {
		if len(sub.officers) > 0 && slices.Contains(otherRoles(), sub.name) {
			p.fail(s, "give the group another name", "officers of group %q would approve in the role %q, which is for other signatures", sub.name, sub.name)
		}
	})
	return g
}

// parseHold reads a Go duration from 0 to maxHold.
func parseHold(value string) (time.Duration, error) {
	hold, err := time.ParseDuration(value)
	if err != nil || hold < 0 || hold > maxHold {
		return 0, fmt.Errorf("hold %q is not a duration from 0s to %v", shorten(value), maxHold)
	}
	return hold, nil
}

// parseSuccession reads chain or latest.
func parseSuccession(value string) (chain bool, err error) {
	if value != "chain" && value != "latest" {
		return false, fmt.Errorf("unknown word %q: the succession is chain or latest", shorten(value))
	}
	return value == "chain", nil
}

// parseSize reads bytes, with or without a binary unit, from 1 to 2^53-1.
func parseSize(value string) (int64, error) {
	digits, unit := value, int64(1)
	for i, suffix := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if cut, ok := strings.CutSuffix(value, suffix); ok {
			digits, unit = cut, 1<<(10*(i+1))
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 1 || n > math.MaxInt64/unit || n*unit > maxSafeInt || strconv.FormatInt(n, 10) != digits {
		return 0, fmt.Errorf("max-size %q is not a number of bytes of at least 1, with or without KiB, MiB, GiB or TiB", shorten(value))
	}
	return n * unit, nil
}

// parseRequire reads checked=<word>:<n>.
func parseRequire(into map[string]int, value string) error {
	rest, ok := strings.CutPrefix(value, "checked=")
	word, count, colon := strings.Cut(rest, ":")
	n, err := strconv.Atoi(count)
	switch {
	case !ok || !colon:
		return fmt.Errorf("require %q is not checked=<word>:<n>", shorten(value))
	case !slices.Contains(checkedWords(), word):
		return fmt.Errorf("unknown word %q: an officer can have checked %s", shorten(word), strings.Join(checkedWords(), ", "))
	case err != nil || strconv.Itoa(n) != count:
		return fmt.Errorf("require %q: %q is not a number", shorten(value), shorten(count))
	case n < 1:
		return fmt.Errorf("require %q: %d is below 1", shorten(value), n)
	case into[word] != 0:
		return fmt.Errorf("checked=%s is required twice", word)
	}
	into[word] = n
	return nil
}
