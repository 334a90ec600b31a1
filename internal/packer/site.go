// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"sluice/internal/audit"
	"sluice/internal/bulletin"
	"sluice/internal/journal"
	"sluice/internal/link"
	"sluice/internal/officer"
	"sluice/internal/site"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// lastFile is the last bulletin, below the state directory: what a person copies onto a medium.
const lastFile = "latest.bulletin"

// sitePlace says where this bastion keeps what it knows of trust.
func (c Config) sitePlace() site.Place {
	return site.Place{Dir: c.State, Object: c.Trust.Object, Fingerprint: c.Trust.Fingerprint, Quarantine: time.Duration(c.Trust.Quarantine)}
}

// CurrentTrust gives the trust object in effect at this bastion, for verbs that work without the daemon. It changes nothing.
func CurrentTrust(cfg Config) (*trust.Store, error) {
	been, err := cfg.sitePlace().Effective(time.Now())
	if err != nil {
		return nil, err
	}
	return been[0], nil
}

// heartbeatKey opens the key that signs snapshots; nil when none is configured.
func heartbeatKey(cfg Config, pass []byte) (mofn.Signer, error) {
	if cfg.Keys.Heartbeat == "" {
		return nil, nil
	}
	key, err := trust.OpenKey(cfg.Keys.Heartbeat, pass)
	if err != nil {
		return nil, err
	}
	signer, err := key.SigningKey()
	if err != nil {
		return nil, fmt.Errorf("keys.heartbeat %s: %w", cfg.Keys.Heartbeat, err)
	}
	return signer, nil
}

// store is the trust object in effect.
func (p *Packer) store() *trust.Store { return p.site.Trust() }

// announce has a bulletin made now.
func (p *Packer) announce() {
	select {
	case p.news <- struct{}{}:
	default:
	}
}

// heed takes orders and trust objects out of the drop-box, puts into effect what is due, and shows officers the chain. A drop-box that is
// away (a stick) costs nothing: what it brings is taken up when it is back.
func (p *Packer) heed() error {
	taken, err := p.site.Tick(p.now())
	if err != nil {
		return err
	}
	if err := p.tell(); err != nil {
		return err
	}
	before := p.site.Numbers()
	var said []string
	for _, take := range []func() ([]string, error){p.takeOrders, p.takeProposals, p.showChain} {
		problems, err := take()
		said = append(said, problems...)
		if err == nil {
			continue
		}
		if errors.Is(err, journal.ErrSync) || errors.Is(err, site.ErrState) {
			return err
		}
		said = append(said, err.Error())
	}
	p.mu.Lock()
	p.said = said
	p.mu.Unlock()
	if now := p.site.Numbers(); now.Orders != before.Orders || now.Trust != before.Trust || len(taken) > 0 {
		p.ground()
		p.announce()
		p.wake()
	}
	return nil
}

// tell has the log say what it has not said of trust yet.
func (p *Packer) tell() error {
	events, err := p.teller.Tell(audit.Known(p.site.Account()), "")
	for _, e := range events {
		p.log.Warn(e.Action, zap.String("detail", e.Detail), zap.String("officer", e.Officer))
	}
	return err
}

// takeOrders takes the orders that officers left.
func (p *Packer) takeOrders() (problems []string, err error) {
	found, problems, err := p.box.Orders()
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		_, news, err := p.site.AddOrder(f.Data)
		if err != nil && (errors.Is(err, mofn.ErrOrder) || errors.Is(err, bulletin.ErrFormat) || errors.Is(err, site.ErrFull)) {
			problems = append(problems, fmt.Sprintf("orders/%s does not count: %v", f.Name, err))
			continue
		}
		if err != nil {
			return problems, err
		}
		if !news {
			continue
		}
		if err := p.tell(); err != nil {
			return problems, err
		}
	}
	return problems, nil
}

// takeProposals joins the signatures of a proposed trust object, and takes it when both quorums are there (docs/spec/drop-box.md). Each
// signature is verified by itself first: whoever can write into the drop-box must not hold a rotation up with a bad one.
func (p *Packer) takeProposals() (problems []string, err error) {
	found, problems, err := p.box.Proposals()
	if err != nil {
		return nil, err
	}
	for _, f := range found {
		if f.Version != p.site.Newest().Object.Version+1 {
			continue
		}
		proposal, err := officer.OpenProposal(p.site.Newest(), f)
		if err != nil {
			problems = append(problems, fmt.Sprintf("trust object %.16s: %v", f.Fingerprint, err))
			continue
		}
		problems = append(problems, proposal.Problems...)
		if missing := proposal.Missing(); len(missing) > 0 {
			problems = append(problems, fmt.Sprintf("trust object %.16s waits: %s", f.Fingerprint, strings.Join(missing, "; ")))
			continue
		}
		unfit, err := p.takeProposal(proposal)
		problems = append(problems, unfit...)
		if err != nil {
			return problems, err
		}
	}
	return problems, nil
}

func (p *Packer) takeProposal(proposal *officer.Proposal) (problems []string, err error) {
	joined, err := proposal.Join()
	if err != nil {
		return []string{fmt.Sprintf("trust object %.16s: %v", proposal.Fingerprint, err)}, nil
	}
	news, err := p.site.AddTrust(joined, p.now())
	switch {
	case errors.Is(err, site.ErrChain) || errors.Is(err, site.ErrGap) || errors.Is(err, site.ErrFork) || errors.Is(err, site.ErrFull):
		return []string{fmt.Sprintf("trust object %.16s: %v", proposal.Fingerprint, err)}, nil
	case err != nil || !news:
		return nil, err
	}
	return nil, p.tell()
}

// showChain keeps trust/chain of the drop-box complete, so that officers' tools have it.
func (p *Packer) showChain() (problems []string, err error) {
	return nil, p.box.PutChain(p.site.Chain())
}

// stopped says why a job does not move: a stop of everything, of its stream, or of its release.
func (p *Packer) stopped(job journal.Job) error {
	var id envelope.Digest
	if job.Release != "" {
		var err error
		if id, err = envelope.ParseDigest(job.Release); err != nil {
			return err
		}
	}
	err := trust.CheckOrders(job.Stream, id, p.site.Standing())
	if errors.Is(err, trust.ErrRevoked) {
		return nil // a verdict: the stage finds it, and the job is refused
	}
	return err
}

// flight is the release that is on the air, and what takes it off.
type flight struct {
	stream string
	id     envelope.Digest
	cancel context.CancelFunc
}

// takeOff notes what is on the air, so that an order can take it off.
func (p *Packer) takeOff(ctx context.Context, job journal.Job, id envelope.Digest) (flying context.Context, land func()) {
	flying, cancel := context.WithCancel(ctx)
	p.mu.Lock()
	p.flight = flight{job.Stream, id, cancel}
	p.mu.Unlock()
	return flying, func() {
		cancel()
		p.mu.Lock()
		p.flight = flight{}
		p.mu.Unlock()
	}
}

// ground takes a release off the air that must not be there any more.
func (p *Packer) ground() {
	p.mu.Lock()
	f := p.flight
	p.mu.Unlock()
	if f.cancel != nil && trust.CheckOrders(f.stream, f.id, p.site.Standing()) != nil {
		f.cancel()
	}
}

// grounded says whether an order ended a pass.
func (p *Packer) grounded(env *envelope.Envelope, ended error) error {
	if ended == nil {
		return nil
	}
	return trust.CheckOrders(env.Statement.Predicate.Stream, env.ID, p.site.Standing())
}

// bulletins says again and again what receivers must not miss, beside whatever else is on the link, until ctx ends.
func (p *Packer) bulletins(ctx context.Context) error {
	if p.beats == nil {
		p.log.Warn("keys.heartbeat is not configured: no bulletins are made, so trust objects and orders reach receivers on media only, and nobody there can tell whether news is held back")
		<-ctx.Done()
		return nil
	}
	every := time.Duration(p.cfg.Bulletin.Every)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-p.news:
		}
		if err := p.sendBulletin(ctx); err != nil && ctx.Err() == nil {
			if errors.Is(err, journal.ErrSync) || errors.Is(err, site.ErrState) {
				return err
			}
			p.log.Warn("bulletin", zap.Error(err))
		}
		timer.Reset(every)
	}
}

func (p *Packer) sendBulletin(ctx context.Context) error {
	b, err := p.makeBulletin(ctx)
	if err != nil {
		return err
	}
	stream, err := b.Bytes()
	if err != nil {
		return err
	}
	if err := writeFile(p.cfg.State, lastFile, stream); err != nil {
		return err
	}
	s, err := p.bulletinSender()
	if err != nil {
		return err
	}
	_, err = s.Send(ctx, link.Transfer{
		Release: bulletin.ID(stream), Envelope: bytes.NewReader(stream), EnvelopeSize: int64(len(stream)), Pass: 1, Source: true, Rows: -1,
	})
	return err
}

// bulletinShare is the part of a lane's rate that a bulletin takes, beside a release that may have all of it.
const bulletinShare = 20

func (p *Packer) bulletinSender() (*link.Sender, error) {
	lanes := slices.Clone(p.conns)
	for i := range lanes {
		if lanes[i].Rate > 0 {
			lanes[i].Rate = max(lanes[i].Rate/bulletinShare, minRate/bulletinShare)
		}
	}
	cfg := p.cfg.Link
	cfg.Settle = 0
	return NewSender(cfg, p.store(), lanes, p.linkKey, SenderOptions{Logger: zap.NewNop()})
}

// makeBulletin makes the next one, with all that is true now.
func (p *Packer) makeBulletin(ctx context.Context) (*bulletin.Bulletin, error) {
	current, err := p.current()
	if err != nil {
		return nil, err
	}
	next := site.Next{Site: p.cfg.Audit.ID, Interval: time.Duration(p.cfg.Bulletin.Every), Now: p.now(), Releases: current, Sign: p.signSnapshot}
	if err := p.addLog(ctx, &next); err != nil {
		return nil, err
	}
	b, _, err := p.site.Make(next)
	return b, err
}

func (p *Packer) signSnapshot(payload []byte) ([]byte, error) {
	d, err := trust.Sign(p.beats, mofn.RoleHeartbeat, mofn.SnapshotPayloadType, payload)
	if err != nil {
		return nil, err
	}
	return d.Marshal()
}

// addLog puts the checkpoint of the audit log into a bulletin. All proofs are of one checkpoint: the log grows meanwhile.
func (p *Packer) addLog(ctx context.Context, next *site.Next) error {
	if p.audit == nil || p.audit.Key == nil {
		return nil
	}
	c, err := p.audit.Continue(ctx, 0)
	if err != nil {
		return err
	}
	head, err := audit.OpenCheckpoint(c.Note, p.audit.Key.Public)
	if err != nil {
		return err
	}
	next.Log = mofn.LogRef{Origin: head.Origin, Size: head.Size, Root: head.Root.String()}
	next.Prove = func(old int64) ([]byte, error) { return p.audit.Prove(old, head.Size, c.Note) }
	return nil
}

// current lists what is current: of each stream the newest release that was sent, and every one that waits for approvals or is being sent.
func (p *Packer) current() ([]mofn.Current, error) {
	jobs, err := p.journal.List(func(j journal.Job) bool {
		return j.State == stateSealed || j.State == stateApproved || j.State == stateSent
	})
	if err != nil {
		return nil, err
	}
	newest := map[string]mofn.Current{}
	set := map[mofn.Current]bool{}
	for _, j := range jobs {
		c := mofn.Current{Stream: j.Stream, Epoch: j.Epoch, Seq: j.Seq, Release: j.Release}
		if j.State != stateSent {
			set[c] = true
			continue
		}
		if n, ok := newest[j.Stream]; !ok || n.Epoch < c.Epoch || n.Epoch == c.Epoch && n.Seq < c.Seq {
			newest[j.Stream] = c
		}
	}
	for _, c := range newest {
		set[c] = true
	}
	out := make([]mofn.Current, 0, len(set))
	for c := range set {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b mofn.Current) int {
		return cmp.Or(strings.Compare(a.Stream, b.Stream), cmp.Compare(a.Epoch, b.Epoch), cmp.Compare(a.Seq, b.Seq))
	})
	return out, nil
}
