// SPDX-License-Identifier: Apache-2.0

package officer

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"sluice/pkg/envelope"
)

// risks are what an officer must see before anything else, each on a line of its own, however many there are: what is stopped, then what was
// not checked, then what is new about the release, then its files.
func (v *View) risks(c change) []string {
	var out []string
	out = append(out, v.Orders...)
	if v.Rule != "" {
		out = append(out, "the policy does not let this release pass: "+v.Rule)
	}
	for _, who := range v.Policy.Rejected {
		out = append(out, who+" REJECTED this release: it is held")
	}
	for _, text := range v.Problems {
		out = append(out, "not counted: "+text)
	}
	out = append(out, v.uncheckedRisks()...)
	out = append(out, v.successionRisks()...)
	if v.Prev != nil {
		out = append(out, predicateRisks(v.Env.Statement.Predicate, v.Prev.Statement.Predicate)...)
		out = append(out, v.upstreamRisks()...)
		for _, ext := range newKinds(v.Env.Statement, v.Prev.Statement) {
			out = append(out, fmt.Sprintf("a new kind of file: %q; the predecessor had none", ext))
		}
	}
	for _, text := range v.Trust.News {
		out = append(out, fmt.Sprintf("the policy or its keys changed with version %d of the trust object: %s", v.Trust.Version, text))
	}
	return append(out, fileRisks(c, v.Prev == nil)...)
}

// uncheckedRisks are what nobody, or no machine, vouches for.
func (v *View) uncheckedRisks() (out []string) {
	p, e := v.Env.Statement.Predicate, v.Evidence
	switch {
	case p.Gate.Verdict == envelope.VerdictException:
		out = append(out, "the quality gate was NOT run, by declared exception: "+p.Gate.Reason)
	case p.Gate.Verdict == envelope.VerdictFail:
		out = append(out, "the quality gate FAILED")
	case e.GateErr != "":
		out = append(out, "the gate's report does not hold: "+e.GateErr)
	case p.Kind == envelope.KindModelWeights && p.Gate.Verdict != envelope.VerdictPass:
		out = append(out, "no quality gate: the statement says "+p.Gate.Verdict)
	}
	switch {
	case p.Inspection.Verdict == envelope.VerdictFail:
		out = append(out, "the inspection FAILED")
	case e.InspectErr != "":
		out = append(out, "the inspection's report does not hold: "+e.InspectErr)
	case p.Inspection.Verdict != envelope.VerdictPass:
		out = append(out, fmt.Sprintf("the files were NOT inspected: the statement says %s", p.Inspection.Verdict))
	}
	if e.Inspection != nil {
		for _, f := range e.Inspection.Findings {
			if f.Excepted {
				out = append(out, fmt.Sprintf("inspection: accepted by declared policy: %s %s: %s", f.Rule, f.File, f.Detail))
			}
		}
	}
	if e.MirrorErr != "" {
		out = append(out, "what was fetched from upstream is not what is released: "+e.MirrorErr)
	}
	if e.Mirror == nil && e.MirrorErr == "" && p.Source.Type == envelope.SourceHuggingFace {
		out = append(out, "no record of how the files were fetched and verified upstream")
	}
	return out
}

// successionRisks are about what the release says of its predecessor.
func (v *View) successionRisks() (out []string) {
	p := v.Env.Statement.Predicate
	switch {
	case p.Prev == "" && p.Seq > 1:
		return []string{fmt.Sprintf("seq %d names no predecessor: what changed cannot be shown", p.Seq)}
	case p.Prev == "":
		return nil
	case v.Prev == nil:
		return []string{fmt.Sprintf("the predecessor %.8s is not here: %s: what changed cannot be shown", p.Prev, v.Lack)}
	}
	q := v.Prev.Statement.Predicate
	switch {
	case q.Stream != p.Stream:
		out = append(out, fmt.Sprintf("it names a release of another stream, %s, as its predecessor", q.Stream))
	case q.Epoch != p.Epoch:
		out = append(out, fmt.Sprintf("the epoch changed from %d to %d", q.Epoch, p.Epoch))
	case q.Seq+1 != p.Seq:
		out = append(out, fmt.Sprintf("seq %d does not follow its predecessor's %d: it skips", p.Seq, q.Seq))
	}
	return out
}

// predicateRisks are what the statement says otherwise than that of the predecessor.
func predicateRisks(p, q envelope.Predicate) (out []string) {
	differs := func(what, from, to string) {
		if from != to {
			out = append(out, fmt.Sprintf("%s changed from %s to %s", what, orNone(from), orNone(to)))
		}
	}
	differs("the kind", string(q.Kind), string(p.Kind))
	differs("the name", q.Name, p.Name)
	differs("the upstream", q.Source.Type+" "+q.Source.Repo, p.Source.Type+" "+p.Source.Repo)
	differs("the base model", baseOf(q), baseOf(p))
	differs("the quantization", quantOf(q), quantOf(p))
	differs("the classification", q.Classification, p.Classification)
	differs("the gate's verdict", q.Gate.Verdict, p.Gate.Verdict)
	differs("the inspection's verdict", q.Inspection.Verdict, p.Inspection.Verdict)
	for _, name := range p.Audience {
		if !slices.Contains(q.Audience, name) {
			out = append(out, "a new receiver: "+name)
		}
	}
	return out
}

// upstreamRisks compare the records of two mirrorings.
func (v *View) upstreamRisks() (out []string) {
	now, was := v.Evidence.Mirror, v.Evidence.PrevMirror
	if now == nil || was == nil {
		return nil
	}
	if now.Endpoint != was.Endpoint {
		out = append(out, fmt.Sprintf("fetched from another server: %s, before from %s", now.Endpoint, was.Endpoint))
	}
	return out
}

// fileRisks are the files that are new or changed and can do harm, or hold terms. Where every file is new, that terms are is no news.
func fileRisks(c change, first bool) (out []string) {
	for _, f := range c.Files {
		size := humanize.IBytes(uint64(max(f.New, f.Old)))
		if isLicence(f.Name) && !first {
			out = append(out, fmt.Sprintf("%c %s   the licence file %s", f.Mark, f.Name, map[byte]string{'+': "is new", '~': "changed", '-': "is gone"}[f.Mark]))
		}
		if why := danger(f.Name); why != "" && f.Mark != '-' {
			out = append(out, fmt.Sprintf("%c %s   %s   %s", f.Mark, f.Name, size, why))
		}
	}
	return out
}

func baseOf(p envelope.Predicate) string {
	if p.Base == nil {
		return ""
	}
	return p.Base.Repo
}

func quantOf(p envelope.Predicate) string {
	if p.Quantization == nil {
		return ""
	}
	q := p.Quantization
	return fmt.Sprintf("%s, %d bit, groups of %d, %s", q.Method, q.Bits, q.GroupSize, q.Version)
}

func orNone(s string) string {
	if strings.TrimSpace(s) == "" {
		return "none"
	}
	return s
}
