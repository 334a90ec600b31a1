// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"sluice/internal/console"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
	"sluice/pkg/quality"
)

// ReviewPage is the one page that an officer is shown. The hash of exactly this text goes into the approval. Risks come first.
// What came from outside is cleaned of control characters and direction marks: a release must not be able to draw its own page.
func ReviewPage(env *envelope.Envelope) string {
	p := env.Statement.Predicate
	var b strings.Builder
	line := func(key, format string, args ...any) {
		fmt.Fprintf(&b, "%-11s %s\n", key, console.Clean(fmt.Sprintf(format, args...)))
	}
	line("RELEASE", "%s   epoch %d seq %d   %s %s", p.Stream, p.Epoch, p.Seq, p.Kind, p.Name)
	line("FROM", "%s %s", p.Source.Repo, p.Source.Commit)
	if p.Base != nil {
		line("BASE", "%s %s", p.Base.Repo, p.Base.Commit)
	}
	if q := p.Quantization; q != nil {
		line("QUANTIZED", "%s, %d bit, groups of %d, %s", q.Method, q.Bits, q.GroupSize, q.Version)
	}
	for _, r := range risks(p) {
		line("!! RISK", "%s", r)
	}
	line("SIZE", "%d files, %s", len(env.Statement.Subjects), humanize.IBytes(uint64(p.TotalSize)))
	line("PREVIOUS", "%s", orNone(p.Prev))
	line("INSPECTION", "%s", p.Inspection.Verdict)
	line("GATE", "%s", gateLine(env))
	line("AUDIENCE", "%s   classification %s", strings.Join(p.Audience, ", "), p.Classification)
	line("EXPIRES", "%s   (sealed %s)", p.Expires, p.Created)
	line("RELEASE ID", "%s", env.ID)
	line("WORDS", "%s", strings.Join(mofn.Words(env.ID[:]), " "))
	b.WriteString("\n")
	writeFiles(&b, env.Statement)
	return b.String()
}

// risks are what an officer must see before anything else.
func risks(p envelope.Predicate) []string {
	var out []string
	if p.Gate.Verdict == envelope.VerdictException {
		out = append(out, "the quality gate was NOT run, by declared exception: "+p.Gate.Reason)
	}
	if p.Kind == envelope.KindModelWeights && p.Inspection.Verdict != "pass" {
		out = append(out, "the checkpoint was NOT inspected")
	}
	return out
}

func gateLine(env *envelope.Envelope) string {
	for _, e := range env.Evidence {
		if e.Name != evidenceGate {
			continue
		}
		rep, err := quality.ParseReport(e.Data)
		if err != nil {
			return "!! the report does not read: " + err.Error()
		}
		return gateSummary(rep)
	}
	return env.Statement.Predicate.Gate.Verdict
}

// gateSummary is the verdict and its numbers in one line: the difference of each benchmark, its lower bound and the margin.
func gateSummary(rep *quality.Report) string {
	text := rep.Verdict
	for _, b := range rep.Benchmarks {
		text += fmt.Sprintf("   %s %.1f%% -> %.1f%% (bound %+.2f pp, margin %.2f pp)", b.Benchmark, 100*b.BaseAccuracy, 100*b.QuantizedAccuracy, 100*b.LowerBound, 100*b.Margin.Absolute)
	}
	return text
}

// writeFiles lists the largest files by name; the whole list is in the statement.
func writeFiles(b *strings.Builder, st *envelope.Statement) {
	const most = 40
	for i, s := range st.Subjects {
		if i == most {
			fmt.Fprintf(b, "  and %d more in the statement\n", len(st.Subjects)-most)
			return
		}
		fmt.Fprintf(b, "  %10s  %.16s…  %s\n", humanize.IBytes(uint64(s.Annotations.Size)), s.Digest.SHA256, console.Clean(s.Name))
	}
}

func orNone(s string) string {
	if s == "" {
		return "none: the first of its stream"
	}
	return s
}

var (
	// ErrConfirm says that the officer did not type the release's words.
	ErrConfirm = errors.New("packer: not signed: the words are not those of the release")
	// ErrNoOfficer says that the signing key belongs to nobody who may decide.
	ErrNoOfficer = errors.New("packer: not signed: the key belongs to no officer of the policy")
)

// ApproveRequest is one officer's decision about one request.
type ApproveRequest struct {
	Box      DropBox
	Trust    *trust.Store
	Request  string // a request's name, or the release id
	Signer   mofn.Signer
	Decision string // approve or reject
	Checked  []string
	Confirm  string // the words that the officer typed
	Note     string
	Tool     string
	Now      time.Time
}

// Approve checks the packer's signature, that the key belongs to an officer of the policy and that the officer typed the release's
// words, signs the decision with the hash of the page that was shown, reads its own approval back through the policy, and writes one new file.
func Approve(req ApproveRequest) (name string, err error) {
	env, err := req.Box.ReadRequest(req.Request)
	if err != nil {
		return "", err
	}
	if err := req.Trust.CheckPacker(env); err != nil {
		return "", err
	}
	if strings.TrimSpace(req.Confirm) != Words(env) {
		return "", fmt.Errorf("%w: type the first two words of the release id that the page shows; %q was given", ErrConfirm, req.Confirm)
	}
	officer, group, ok := req.Trust.Policy.OfficerOf(req.Signer.KeyID())
	if !ok {
		return "", fmt.Errorf("%w: key %s", ErrNoOfficer, req.Signer.KeyID())
	}
	data, err := signApproval(req, env, officer, group)
	if err != nil {
		return "", err
	}
	name = group + "." + officer + ".json"
	if err := checkOwn(req.Trust, env, envelope.Named{Name: name, Data: data}); err != nil {
		return "", fmt.Errorf("packer: internal error: the approval just written is not accepted: %w", err)
	}
	return name, req.Box.AddApproval(env.ID, name, data)
}

func signApproval(req ApproveRequest, env *envelope.Envelope, officer, group string) ([]byte, error) {
	p := env.Statement.Predicate
	checked := slices.Compact(slices.Sorted(slices.Values(req.Checked)))
	shown := sha256.Sum256([]byte(ReviewPage(env)))
	a := envelope.Approval{
		ReleaseID: env.ID, Stream: p.Stream, Epoch: p.Epoch, Seq: p.Seq, Role: group, Officer: officer, Decision: req.Decision,
		Checked: checked, Shown: envelope.Digest(shown), Tool: req.Tool, At: req.Now.UTC().Format(time.RFC3339), Note: req.Note,
	}
	payload, err := a.Marshal()
	if err != nil {
		return nil, err
	}
	d, err := signDSSE(req.Signer, group, envelope.PayloadTypeInToto, payload)
	if err != nil {
		return nil, err
	}
	return d.Marshal()
}

// checkOwn holds one approval, alone, against the policy: signature, release, role and the name it is filed under. The officer's tool
// asks it of what it has just written, the packer of what it finds.
func checkOwn(st *trust.Store, env *envelope.Envelope, n envelope.Named) error {
	alone := *env
	alone.Approvals = nil
	if err := alone.Merge([]envelope.Named{n}); err != nil {
		return err
	}
	prog, err := st.Progress(&alone)
	if err != nil {
		return err
	}
	if len(prog.Approved)+len(prog.Rejected)+len(prog.Outside) != 1 {
		return errors.New("its key belongs to no officer of the policy")
	}
	vote, err := trust.Vote(n)
	if err != nil {
		return err
	}
	claim, err := trust.Open(vote.Payload)
	if err != nil {
		return err
	}
	if want := claim.Role + "." + claim.Officer + ".json"; n.Name != want {
		return fmt.Errorf("%w: it belongs into %s", trust.ErrVoteName, want)
	}
	return nil
}
