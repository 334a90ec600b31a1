// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"go.uber.org/zap"

	"sluice/internal/admin"
	"sluice/internal/journal"
	"sluice/internal/link"
	"sluice/internal/spool"
	"sluice/internal/ticket"
	"sluice/internal/trust"
	"sluice/pkg/fec"
	"sluice/pkg/mofn"
)

const (
	// minPrefix is the shortest beginning of a release id that names a release: a slip of the finger should not name one.
	minPrefix = 4
	// lively is how lately a session must have been heard to be under way: two heartbeats.
	lively = 2 * time.Second
)

// errNoTicketKey says that the site has not set tickets up.
var errNoTicketKey = errors.New("receiver: this site has no ticket key")

// Ticket is what /ticket and `ticket --json` show.
type Ticket struct {
	Receiver  string    `json:"receiver"`
	Release   string    `json:"release"`
	Name      string    `json:"name"`
	Stream    string    `json:"stream"`
	Seq       int64     `json:"seq"`
	Created   time.Time `json:"created"`
	Text      string    `json:"text"`  // lines to type or to mail
	QR        string    `json:"qr"`    // the same for a QR code
	Size      int       `json:"bytes"` // of the ticket
	FreshRow  int       `json:"first_fresh_row"`
	Lost      int64     `json:"lost_symbols"`
	Source    int64     `json:"source_symbols"` // asked for
	Repair    int64     `json:"repair_symbols"`
	LostBytes int64     `json:"lost_bytes"`
	Sends     int64     `json:"sends_bytes"` // with the spare, in datagrams
	Damaged   int       `json:"spans_incomplete"`
	Spans     int       `json:"spans"`
	UnderWay  bool      `json:"pass_under_way"` // what it still brings counts as missing
}

// Ticket makes the shortfall ticket of a release that is being received, named by its id or the beginning of it (docs/spec/ticket.md). It
// changes nothing, beyond repairing what can be repaired now. Refusals are *[admin.Refusal].
func (r *Receiver) Ticket(ctx context.Context, release string) (any, error) {
	r.ticketing.Lock() // opening the key takes 64 MiB: one at a time
	defer r.ticketing.Unlock()
	job, c, err := r.incomplete(release)
	if err != nil {
		return nil, err
	}
	key, err := loadTicketKey(r.cfg, r.store())
	if errors.Is(err, errNoTicketKey) {
		return nil, &admin.Refusal{Code: http.StatusNotImplemented, Err: err}
	}
	if err != nil {
		return nil, err
	}
	t, err := r.makeTicket(ctx, job, c, key)
	if errors.Is(err, spool.ErrClosed) {
		return nil, conflict("release %s has just become complete, or was refused: ask `status`", job.Release)
	}
	return t, err
}

func conflict(format string, args ...any) error {
	return &admin.Refusal{Code: http.StatusConflict, Err: fmt.Errorf(format, args...)}
}

// incomplete finds the reception of a release.
func (r *Receiver) incomplete(release string) (journal.Job, *reception, error) {
	jobs, err := r.journal.List(func(j journal.Job) bool { return len(release) >= minPrefix && strings.HasPrefix(j.Release, release) })
	switch {
	case err != nil:
		return journal.Job{}, nil, err
	case len(jobs) == 0:
		return journal.Job{}, nil, &admin.Refusal{Code: http.StatusNotFound, Err: fmt.Errorf(
			"no release here has an id that begins with %.64q (at least %d digits); `status` lists them. If it was sent, not even its envelope arrived: send the whole pass again", release, minPrefix)}
	case len(jobs) > 1:
		return journal.Job{}, nil, conflict("%d releases have an id that begins with %s: give more of it", len(jobs), release)
	}
	job := jobs[0]
	switch job.State {
	case stateReceiving:
	case stateRejected:
		return job, nil, conflict("release %s was refused, so nothing of it is missing: %s", job.Release, job.LastError)
	default:
		return job, nil, conflict("release %s is complete: it is %s", job.Release, job.State)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.open[mustDigest(job.ID)]
	if c == nil {
		return job, nil, conflict("release %s is not being assembled just now (the log says why); it goes on when it is announced again: send another pass", job.Release)
	}
	return job, c, nil
}

// makeTicket repairs what can be repaired, and writes down what is then still missing.
func (r *Receiver) makeTicket(ctx context.Context, job journal.Job, c *reception, key ed25519.PrivateKey) (*Ticket, error) {
	d, err := dataOf(job)
	if err != nil {
		return nil, err
	}
	out := &Ticket{Receiver: r.cfg.Receiver, Release: job.Release, Name: job.Name, Stream: job.Stream, Seq: job.Seq, Created: r.now().Truncate(time.Second)}
	t, err := r.shortfall(ctx, c, out)
	if err != nil {
		return nil, err
	}
	digest, err := hex.DecodeString(d.Envelope)
	if err != nil || len(digest) != len(t.Envelope) {
		return nil, fmt.Errorf("job %s: the digest of its envelope is %q", job.ID, d.Envelope)
	}
	t.Envelope, t.Created = [32]byte(digest), out.Created
	signed, err := ticket.Sign(t, key)
	if err != nil {
		return nil, err
	}
	out.Text, out.QR, out.Size, out.UnderWay = signed.Text(), signed.QR(), len(signed.Bytes()), r.underWay(t.Release)
	made := r.newEvent("ticket", job.ID, fmt.Sprintf("%d bytes: %d source and %d repair symbols asked for", out.Size, out.Source, out.Repair))
	made.Digest = fmt.Sprintf("%x", sha256.Sum256(signed.Bytes()))
	if err := r.journal.Append(made); err != nil {
		return nil, err
	}
	r.log.Info("ticket made", zap.String("release", job.Release), zap.Int("bytes", out.Size), zap.Int64("lost_symbols", out.Lost))
	return out, nil
}

// shortfall asks what assembles the payload what is missing, and fills in the figures of the answer.
func (r *Receiver) shortfall(ctx context.Context, c *reception, out *Ticket) (t ticket.Ticket, err error) {
	lack, err := c.asm.Shortfall(ctx, ticket.Room(r.cfg.Receiver))
	if err != nil {
		return t, err
	}
	t = ticket.Ticket{
		Receiver: r.cfg.Receiver, Release: [32]byte(c.id), Profile: int(profileOf(c.cut.SymbolSize)), Groups: c.cut.Groups,
		Payload: c.predicate.TotalSize, Fresh: lack.Fresh, Need: lack.Need,
	}
	g, err := t.Geometry()
	if err != nil {
		return t, err
	}
	out.Damaged = lack.Damaged
	if len(t.Need) == 0 {
		return t, conflict("release %s needs nothing from the bastion: what is missing is being repaired with what is here; look again in a minute", out.Release)
	}
	return t, out.count(t, g, lack.Lost)
}

// count fills in what the ticket asks for.
func (out *Ticket) count(t ticket.Ticket, g fec.Geometry, lost int64) error {
	only, err := t.Selection(ticket.Spare)
	if err != nil {
		return err
	}
	out.FreshRow, out.Lost, out.LostBytes, out.Spans = t.Fresh, lost, lost*int64(g.SymbolSize), g.Spans()
	out.Source, out.Repair = t.Need.Symbols()
	out.Sends = ticket.CostOf(only, g).Bytes
	return nil
}

// profileOf is the profile with symbols of a size; 0 if there is none.
func profileOf(symbolSize int) link.Profile {
	for _, p := range []link.Profile{link.Profile1500, link.Profile9000} {
		if p.SymbolSize() == symbolSize {
			return p
		}
	}
	return 0
}

// underWay tells whether a session of the release is being heard.
func (r *Receiver) underWay(release [32]byte) bool {
	r.mu.Lock()
	front := r.front
	r.mu.Unlock()
	if front == nil {
		return false
	}
	for _, s := range front.Status().Sessions {
		if s.Announcement.Release == release && r.now().Sub(s.LastHeard) < lively && s.State != link.StateEndOfSession {
			return true
		}
	}
	return false
}

// loadTicketKey opens the key that signs tickets and holds it against the trust object. [errNoTicketKey] says that there is none.
func loadTicketKey(cfg Config, st *trust.Store) (ed25519.PrivateKey, error) {
	if cfg.Keys.Ticket == "" {
		return nil, fmt.Errorf("%w: make one (keys generate --use ticket), have it bound in the trust object (trust init --ticket %s=FILE.pub), and name it as keys.ticket; until then let the bastion send another pass",
			errNoTicketKey, cfg.Receiver)
	}
	pass, err := readSecret(cfg.Keys.PassphraseFile)
	if err != nil {
		return nil, fmt.Errorf("keys.passphrase_file: %w", err)
	}
	key, err := trust.OpenKey(cfg.Keys.Ticket, []byte(pass))
	if err != nil {
		return nil, fmt.Errorf("keys.ticket: %w", err)
	}
	for _, r := range st.Object.Receivers {
		if r.Name == cfg.Receiver && key.Suite == mofn.SuiteTicket && bytes.Equal(r.Ticket, key.Public) {
			return ed25519.NewKeyFromSeed(key.Secret), nil
		}
	}
	return nil, fmt.Errorf("keys.ticket %s: is not the ticket key that the trust object names for receiver %q; the bastion would refuse every ticket", cfg.Keys.Ticket, cfg.Receiver)
}
