// SPDX-License-Identifier: Apache-2.0

package officer

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"

	"sluice/internal/console"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
	"sluice/pkg/quality"
)

// riskKey stands in front of each line of risk.
const riskKey = "!!"

// Page is the one page about a release, as text: what an officer is shown, and the hash of which goes into the approval.
type Page struct {
	text string
}

// Text is the page. Lines end in a newline.
func (p Page) Text() string { return p.text }

// Hash is the SHA-256 of the text: the `shown` of an approval.
func (p Page) Hash() envelope.Digest { return sha256.Sum256([]byte(p.text)) }

// Page makes the page (docs/spec/drop-box.md section 2). What came from outside is cleaned of control characters and direction marks, and
// stands behind a key or an indent: a release must not be able to draw its own page.
func (v *View) Page() Page {
	var w pageWriter
	c := v.changes()
	p := v.Env.Statement.Predicate
	w.line("RELEASE", "%s   epoch %d seq %d   %s %s %s   %s", p.Stream, p.Epoch, p.Seq, p.Kind, p.Name, p.Version, v.passed())
	w.line("FROM", "%s %s %s   licence: %s", p.Source.Type, p.Source.Repo, p.Source.Commit, v.licence(c))
	for _, r := range v.risks(c) {
		w.line(riskKey, "%s", r)
	}
	v.writeChange(&w, c)
	v.writeEvidence(&w)
	w.line("BYTES", "%s", v.Bytes.words(p.TotalSize))
	v.writePolicy(&w)
	w.line("HOLD", "%s", v.hold())
	w.line("AUDIENCE", "%s   classification %s", strings.Join(p.Audience, ", "), p.Classification)
	w.line("EXPIRES", "%s   (sealed %s)", p.Expires, p.Created)
	w.line("RELEASE ID", "%s", v.Env.ID)
	w.line("WORDS", "%s", strings.Join(mofn.Words(v.Env.ID[:]), " "))
	w.line("YOU", "%s", v.you())
	return Page{w.String()}
}

// pageWriter writes lines of a page: a key, and text that is cleaned.
type pageWriter struct {
	strings.Builder
}

func (w *pageWriter) line(key, format string, args ...any) {
	fmt.Fprintf(w, "%-11s %s\n", key, console.Clean(fmt.Sprintf(format, args...)))
}

// more is a line that goes on below a key.
func (w *pageWriter) more(format string, args ...any) {
	w.line("", format, args...)
}

func (v *View) changes() change {
	if v.Prev == nil {
		return changes(v.Env.Statement, nil)
	}
	return changes(v.Env.Statement, v.Prev.Statement)
}

// licence says only what the statement and its files say: that terms are in a file, and whether that changed.
func (v *View) licence(c change) string {
	var files []string
	for _, s := range v.Env.Statement.Subjects {
		if isLicence(s.Name) {
			files = append(files, s.Name)
		}
	}
	if len(files) == 0 {
		return "no licence file"
	}
	state := "unchanged"
	if v.Prev == nil {
		state = "new"
	}
	for _, f := range c.Files {
		if v.Prev != nil && isLicence(f.Name) {
			state = "CHANGED"
		}
	}
	return strings.Join(files[:min(len(files), 4)], ", ") + " (" + state + ")"
}

// mostFiles is how many files are listed; those that are a risk stand above, all of them.
const mostFiles = 40

func (v *View) writeChange(w *pageWriter, c change) {
	total := humanize.IBytes(uint64(c.Size))
	switch {
	case v.Prev != nil:
		q := v.Prev.Statement.Predicate
		w.line("CHANGE", "against seq %d (release %.8s, sealed %s): +%d files  ~%d  -%d   %d unchanged, %d of them weights   total %s (%s)",
			q.Seq, v.Prev.ID, q.Created, c.Added, c.Changed, c.Removed, c.Unchanged, c.Weights, total, signed(c.Size-c.OldSize))
	case v.Env.Statement.Predicate.Prev == "":
		w.line("CHANGE", "none before it in this stream: %s, all new   total %s", console.Count(c.Added, "file"), total)
	default:
		w.line("CHANGE", "unknown: the predecessor is not here; %s, all listed as new   total %s", console.Count(c.Added, "file"), total)
	}
	for i, f := range c.Files {
		if i == mostFiles {
			w.more("and %d more; the statement lists them", len(c.Files)-mostFiles)
			break
		}
		w.more("%c %s   %s", f.Mark, f.Name, sizes(f))
	}
	for _, t := range v.Texts {
		t.write(w)
	}
}

func sizes(f fileChange) string {
	switch f.Mark {
	case '+':
		return humanize.IBytes(uint64(f.New))
	case '-':
		return "was " + humanize.IBytes(uint64(f.Old))
	}
	return humanize.IBytes(uint64(f.Old)) + " -> " + humanize.IBytes(uint64(f.New))
}

func signed(n int64) string {
	if n < 0 {
		return "-" + humanize.IBytes(uint64(-n))
	}
	return "+" + humanize.IBytes(uint64(n))
}

func (v *View) writeEvidence(w *pageWriter) {
	p, e := v.Env.Statement.Predicate, v.Evidence
	gate := p.Gate.Verdict
	if e.Gate != nil {
		gate = GateSummary(e.Gate)
	}
	w.line("EVIDENCE", "gate: %s", gate)
	inspection := p.Inspection.Verdict
	if e.InspectErr != "" {
		inspection = "the statement says pass, and the report does not hold"
	}
	if e.Inspection != nil {
		inspection = fmt.Sprintf("%s, %s", e.Inspection.Verdict, console.Count(len(e.Inspection.Files), "file"))
		for _, f := range e.Inspection.Findings {
			inspection += fmt.Sprintf("; %s %s", f.Rule, f.File)
		}
	}
	w.more("inspection: %s", inspection)
	if e.Mirror != nil {
		w.more("upstream: %s, each held against the tree's own hash (%s), from %s", console.Count(len(e.Mirror.Files), "file"), methods(e.Mirror), e.Mirror.Endpoint)
		if n := len(e.Mirror.Skipped); n > 0 {
			w.more("upstream: %s of the commit left behind by the filters", console.Count(n, "file"))
		}
	} else {
		w.more("upstream: no record")
	}
	if p.Base != nil {
		w.more("base: %s %s", p.Base.Repo, p.Base.Commit)
	}
	if q := quantOf(p); q != "" {
		w.more("quantized: %s", q)
	}
}

func methods(m *mirrorRecord) string {
	n := map[string]int{}
	for _, f := range m.Files {
		n[f.Method]++
	}
	var out []string
	for _, name := range sortedKeys(n) {
		out = append(out, fmt.Sprintf("%s: %d", name, n[name]))
	}
	return strings.Join(out, ", ")
}

// GateSummary is the gate's verdict and its numbers in one line: the difference of each benchmark, its lower bound and the margin.
func GateSummary(rep *quality.Report) string {
	text := rep.Verdict
	for _, b := range rep.Benchmarks {
		text += fmt.Sprintf("   %s %.1f%% -> %.1f%% (bound %+.2f pp, margin %.2f pp)", b.Benchmark, 100*b.BaseAccuracy, 100*b.QuantizedAccuracy, 100*b.LowerBound, 100*b.Margin.Absolute)
	}
	return text
}

func (v *View) writePolicy(w *pageWriter) {
	w.line("POLICY", "version %d of the trust object, %.16s", v.Trust.Version, v.Trust.Fingerprint)
	if v.Rule != "" {
		w.more("no rule lets this release pass")
		return
	}
	for _, g := range v.Policy.Groups {
		w.more("%s %d of %d   signed: %s   not yet: %s", g.Name, g.Have, g.Need, orNone(strings.Join(g.Approved, ", ")), orNone(strings.Join(g.Waiting, ", ")))
	}
	for _, r := range v.Policy.Requires {
		w.more("%d of %d approving officers who checked=%s%s", r.Have, r.Need, r.Word, v.hint(r))
	}
	if len(v.Policy.Rejected) > 0 {
		w.more("rejected by: %s", strings.Join(v.Policy.Rejected, ", "))
	}
	missing := "nothing"
	if len(v.Policy.Missing) > 0 {
		missing = strings.Join(v.Policy.Missing, "; ")
	}
	w.more("missing: %s", missing)
}

// hint says whether the approval that would be given here helps a requirement.
func (v *View) hint(r mofn.RequireProgress) string {
	if r.Have >= r.Need {
		return ""
	}
	for _, word := range v.Checked() {
		if word == r.Word {
			return "; yours would be one"
		}
	}
	if r.Word == envelope.CheckedBytes {
		return "; yours would NOT be one: the bytes were not read here (--payload)"
	}
	return "; yours would NOT be one: the report is not there or does not hold"
}

func (v *View) hold() string {
	if hold := v.Policy.Rule.Hold; hold > 0 {
		return fmt.Sprintf("published no earlier than %s after it arrives", console.Duration(hold))
	}
	return "none: published when it arrived and was verified"
}

func (v *View) you() string {
	if v.You.Officer == "" {
		return "nobody: this page is for reading"
	}
	return fmt.Sprintf("you sign as %s, role %s, with the key %.16s… from %s", v.You.Officer, v.You.Role, v.You.Key, v.You.File)
}

// Words are what an officer types to approve: the first two words of the release's id.
func Words(env *envelope.Envelope) string {
	return strings.Join(mofn.Words(env.ID[:])[:2], " ")
}
