// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"sluice/internal/journal"
	"sluice/internal/link"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/fec"
	"sluice/pkg/mofn"
)

// checkSealed asks the policy the question that the receiver will ask, before the air time is spent.
func (p *Packer) checkSealed(env *envelope.Envelope) (mofn.Approval, error) {
	return p.store().Check(env, trust.Rules{Receiver: p.cfg.Link.Receiver, Now: p.site.Clock(p.now()), Standing: p.site.Standing()})
}

// SendRequest is one pass of one sealed release.
type SendRequest struct {
	Dir      string
	Env      *envelope.Envelope
	Plan     PassPlan
	Only     fec.Selection // not nil: this and nothing else of the payload, whatever the plan says; see TicketPass
	Progress Progress
}

// Send sends one pass. That the payload still is what was sealed is for VerifySealed to say, before.
func Send(ctx context.Context, s *link.Sender, req SendRequest) (link.SendReport, error) {
	files, err := openPayload(filepath.Join(req.Dir, payloadDir), req.Env.Statement)
	if err != nil {
		return link.SendReport{}, err
	}
	defer files.Close()
	var stream bytes.Buffer
	if _, err := req.Env.WriteTo(&stream); err != nil {
		return link.SendReport{}, err
	}
	t := link.Transfer{
		Release: [32]byte(req.Env.ID), Envelope: bytes.NewReader(stream.Bytes()), EnvelopeSize: int64(stream.Len()),
		Payload: files, PayloadSize: req.Env.Statement.Predicate.TotalSize,
		Files: len(req.Env.Statement.Subjects), Pass: req.Plan.Pass, Round: req.Plan.Round,
	}
	if t.Only = req.Only; t.Only == nil {
		t.Source, t.FirstRow, t.Rows = req.Plan.Source, req.Plan.FirstRow, req.Plan.Rows
	}
	return s.Send(ctx, t)
}

// VerifySealed reads every byte of a sealed directory against its envelope: what is sent is what was sealed.
func VerifySealed(ctx context.Context, dir string, env *envelope.Envelope, progress Progress) error {
	root, err := os.OpenRoot(filepath.Join(dir, payloadDir))
	if err != nil {
		return err
	}
	defer root.Close()
	return envelope.VerifyPayload(ctx, root.FS(), env, progress)
}

// send sends the passes that are due, one after the other. Before a pause the job goes back, to be due again: other releases have the link
// meanwhile, and a process that starts anew finds in the journal which pass ended last, and when.
func (p *Packer) send(ctx context.Context, job journal.Job, d jobData) (result, error) {
	if n := p.cfg.Link.next(job.State, d); n != nil && p.now().Before(n.At) {
		return pause(n), nil
	}
	dir := p.workDir(job)
	env, err := ReadEnvelope(dir)
	if err != nil {
		return result{}, err
	}
	_, err = p.checkSealed(env)
	if errors.Is(err, trust.ErrExpired) && d.Passes > 0 {
		return cutShort(d, err), nil
	}
	if err != nil {
		return result{}, err
	}
	if err := VerifySealed(ctx, dir, env, p.progress("verify", job)); err != nil {
		return result{}, err
	}
	defer p.takeAir()()
	for d.Passes < len(p.cfg.Link.Passes) {
		if n := p.cfg.Link.next(job.State, d); p.now().Before(n.At) {
			return pause(n), nil
		}
		if d, err = p.sendPass(ctx, job, SendRequest{Dir: dir, Env: env, Plan: p.cfg.Link.Plan(d.Passes + 1)}); err != nil {
			return result{}, err
		}
	}
	return result{to: stateSent, detail: fmt.Sprintf("%d passes of %d repair rows at %s/s", d.Passes, RepairRows(float64(p.cfg.Link.Repair)), bits(p.cfg.Link.TotalRate()))}, nil
}

// pause lets a job rest until its next pass.
func pause(n *NextPass) result { return result{wait: n.words(), until: n.At} }

// cutShort ends a release some of whose passes were sent, when no receiver would take the others any more.
func cutShort(d jobData, why error) result {
	return result{to: stateSent, detail: fmt.Sprintf("%d passes; no more, which would be refused: %v", d.Passes, why)}
}

// sendPass sends one pass and records it. It returns the job's data as they are then.
func (p *Packer) sendPass(ctx context.Context, job journal.Job, req SendRequest) (jobData, error) {
	s, err := p.sender(p.progress(fmt.Sprintf("send, pass %d", req.Plan.Pass), job))
	if err != nil {
		return jobData{}, err
	}
	p.onAir.begin(job, req.Plan.Pass)
	flying, land := p.takeOff(ctx, job, req.Env.ID)
	defer land()
	rep, err := Send(flying, s, req)
	if err = errors.Join(err, p.grounded(req.Env, err)); err != nil {
		p.onAir.broke(err)
		return jobData{}, err
	}
	p.onAir.tell(link.SendProgress{SendReport: rep, State: link.StateEndOfSession, Pass: req.Plan.Pass})
	return p.passSent(job, req.Plan.Pass, rep)
}

func (p *Packer) passSent(job journal.Job, pass int, rep link.SendReport) (jobData, error) {
	record := &PassRecord{
		Release: job.Release, Pass: pass, Session: fmt.Sprintf("%x", rep.Session), Ended: p.now().UTC(), Seconds: rep.Elapsed.Seconds(),
		Sealed: rep.Sealed, Source: rep.Source, Repair: rep.Repair, Failed: rep.SendErrors, Bytes: rep.Bytes, RateBits: p.cfg.Link.TotalRate(),
		Lanes: laneRecords(rep.Lanes),
	}
	detail := fmt.Sprintf("pass %d: session %x, %d datagrams sealed, %d of them source, %d repair, %d failed at this host, %s",
		pass, rep.Session, rep.Sealed, rep.Source, rep.Repair, rep.SendErrors, rep.Elapsed)
	for _, l := range record.Lanes {
		detail += "; " + l.words()
	}
	touched, err := p.journal.Touch(job.ID, func(j *journal.Job) error {
		j.Attempts, j.LastError = 0, ""
		return setData(j, func(d *jobData) { d.Passes, d.LastPass = pass, record })
	}, p.newEvent("pass sent", job, detail))
	if err != nil {
		return jobData{}, err
	}
	return dataOf(touched)
}

// RepairRows turns a percentage into rows of a code word of 192.
func RepairRows(percent float64) int {
	return min(fec.MaxRows, max(1, int(math.Ceil(percent/100*fec.K))))
}

func bits(n int64) string {
	switch {
	case n >= 1_000_000_000:
		return fmt.Sprintf("%.3gGbit", float64(n)/1e9)
	default:
		return fmt.Sprintf("%.3gMbit", float64(n)/1e6)
	}
}

// NewSender makes the sender of a session from the configuration and the trust object.
func NewSender(cfg Link, st *trust.Store, conns Conns, key *mofn.SecretKey, opt SenderOptions) (*link.Sender, error) {
	pub, err := receiverKey(st, cfg.Receiver)
	if err != nil {
		return nil, err
	}
	if key.Suite != mofn.SuiteLink {
		return nil, fmt.Errorf("link key: is of suite %s, one of %s is wanted", key.Suite, mofn.SuiteLink)
	}
	return link.NewSender(link.SenderConfig{
		Lanes: conns, Profile: cfg.profile(), Repair: RepairRows(float64(cfg.Repair)),
		Settle: cfg.settle(), LinkKey: ed25519.NewKeyFromSeed(key.Secret), ReceiverKey: pub, Logger: opt.Logger, Progress: opt.Progress,
	})
}

func receiverKey(st *trust.Store, name string) ([]byte, error) {
	r, ok := st.Receiver(name)
	if !ok {
		return nil, fmt.Errorf("link.receiver: the trust object knows no receiver %q", name)
	}
	return r.HPKE, nil
}
