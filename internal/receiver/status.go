// SPDX-License-Identifier: Apache-2.0

package receiver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"sluice/internal/audit"
	"sluice/internal/journal"
	"sluice/internal/link"
	"sluice/internal/site"
	"sluice/pkg/registry"
)

// Status is what /status and `status --json` show.
type Status struct {
	Receiver    string               `json:"receiver"`
	Time        time.Time            `json:"time"`
	Trust       string               `json:"trust"` // fingerprint of the trust object in effect
	Site        site.Status          `json:"site"`  // trust objects, orders, freshness
	Link        LinkReport           `json:"link"`  // what the rest says of the link, judged and in words
	Releases    []ReleaseStatus      `json:"releases"`
	Sessions    []link.SessionStatus `json:"sessions"`
	KernelDrops uint64               `json:"kernel_drops"`
	LastHeard   time.Time            `json:"last_heard"`
	Events      []journal.Event      `json:"events"` // the newest of the audit trail, oldest first
}

// ReleaseStatus is one job in words.
type ReleaseStatus struct {
	Release   string    `json:"release"`
	Name      string    `json:"name"`
	Stream    string    `json:"stream"`
	Epoch     int64     `json:"epoch"`
	Seq       int64     `json:"seq"`
	Kind      string    `json:"kind"`
	State     string    `json:"state"`
	Bytes     int64     `json:"bytes"`
	Have      int64     `json:"have_symbols,omitempty"`
	Symbols   int64     `json:"symbols,omitempty"`
	Recovered int64     `json:"recovered_symbols,omitempty"`
	Updated   time.Time `json:"updated"`
	NotBefore time.Time `json:"not_before,omitzero"`
	Attempts  int       `json:"attempts,omitempty"`
	Error     string    `json:"error,omitempty"`
}

// Status reports the jobs and the link.
func (r *Receiver) Status(context.Context) (any, error) {
	jobs, err := r.journal.List(func(journal.Job) bool { return true })
	if err != nil {
		return nil, err
	}
	s := Status{Receiver: r.cfg.Receiver, Time: r.now().UTC(), Trust: fmt.Sprintf("%x", r.store().Fingerprint)}
	s.Site = r.site.Describe(r.wall())
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, j := range jobs {
		s.Releases = append(s.Releases, r.releaseStatus(j))
	}
	heard := r.heard(jobs)
	if heard.Link != nil {
		s.Sessions, s.KernelDrops, s.LastHeard = heard.Link.Sessions, heard.Link.KernelDrops, heard.Link.LastHeard
	}
	s.Link = Report(heard)
	s.Events, err = r.lastEvents()
	return s, err
}

// Site says what this site knows of trust.
func (r *Receiver) Site() site.Status { return r.site.Describe(r.wall()) }

// heard gathers what the report of the link is made from. The caller holds mu.
func (r *Receiver) heard(jobs []journal.Job) Heard {
	known := make(map[string]bool, len(jobs))
	h := Heard{Now: time.Now(), Wall: r.now(), Known: func(release string) bool { return known[release] }}
	for _, j := range jobs {
		known[j.ID] = true
		if j.State == stateReceiving {
			h.Receptions = append(h.Receptions, r.receptionOf(j))
		}
	}
	if r.front != nil {
		st := r.front.Status()
		h.Link = &st
	}
	return h
}

// receptionOf says how far a release in RECEIVING is. The caller holds mu.
func (r *Receiver) receptionOf(j journal.Job) Reception {
	d, _ := dataOf(j) // a job without readable data still is awaited
	c, open := r.open[mustDigest(j.ID)]
	if !open {
		return Reception{Job: j, Bytes: d.Bytes}
	}
	p := c.asm.Progress()
	return Reception{Job: j, Open: true, Have: p.Have, Symbols: p.Symbols, SymbolSize: int64(c.cut.SymbolSize), Bytes: d.Bytes}
}

// LinkReport judges the link now.
func (r *Receiver) LinkReport() (LinkReport, error) {
	jobs, err := r.journal.List(nil)
	if err != nil {
		return LinkReport{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return Report(r.heard(jobs)), nil
}

// shownEvents is how much of the audit trail status shows.
const shownEvents = 100

func (r *Receiver) lastEvents() ([]journal.Event, error) {
	head, err := r.journal.Head()
	if err != nil {
		return nil, err
	}
	from := uint64(1)
	if head.Seq > shownEvents {
		from = head.Seq - shownEvents + 1
	}
	var out []journal.Event
	err = r.journal.Events(from, func(e journal.Event) error { out = append(out, e); return nil })
	return out, err
}

func (r *Receiver) releaseStatus(j journal.Job) ReleaseStatus {
	d, _ := dataOf(j) // a job without readable data still has a state worth showing
	rs := ReleaseStatus{
		Release: j.Release, Name: j.Name, Stream: j.Stream, Epoch: j.Epoch, Seq: j.Seq, Kind: j.Kind, State: j.State,
		Bytes: d.Bytes, Updated: j.Updated, NotBefore: j.NotBefore, Attempts: j.Attempts, Error: j.LastError,
	}
	if c, ok := r.open[mustDigest(j.ID)]; ok {
		prog := c.asm.Progress()
		rs.Have, rs.Symbols, rs.Recovered = prog.Have, prog.Symbols, prog.Recovered
	}
	return rs
}

// Problem is one finding of Fsck.
type Problem struct {
	Where  string `json:"where"`
	What   string `json:"what"`
	Remedy string `json:"remedy"`
}

// Fsck judges journal, spool and registry together. deep re-hashes every published byte. It changes nothing, beyond the event of the log that says
// what it found; a journal that cannot take one has been reported.
func (r *Receiver) Fsck(ctx context.Context, deep bool, report func(Problem)) error {
	found := 0
	var first Problem
	err := r.fsck(ctx, deep, func(p Problem) {
		if found++; found == 1 {
			first = p
		}
		report(p)
	})
	if err != nil {
		return err
	}
	said := "clean"
	if found > 0 {
		said = fmt.Sprintf("%d problems, the first: %s: %s", found, first.Where, first.What)
	}
	err = r.journal.Append(journal.Event{Actor: r.actor(), Action: audit.ActionFsck, Detail: clip(said)})
	if found > 0 && errors.Is(err, journal.ErrTampered) {
		return nil
	}
	return err
}

func (r *Receiver) fsck(ctx context.Context, deep bool, report func(Problem)) error {
	if err := r.journal.Check(); err != nil {
		report(Problem{"journal", err.Error(), "restore the journal from its backup; do not edit it"})
	}
	if err := r.fsckSpool(report); err != nil {
		return err
	}
	if err := r.fsckPublished(ctx, deep, report); err != nil {
		return err
	}
	return r.registry.Fsck(ctx, deep, func(p registry.Problem) {
		report(Problem{"registry " + p.Key, string(p.Kind) + ": " + p.Detail, registryRemedy(p.Kind)})
	})
}

// fsckSpool holds the jobs against the spool's directories, both ways.
func (r *Receiver) fsckSpool(report func(Problem)) error {
	jobs, err := r.journal.List(func(journal.Job) bool { return true })
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, j := range jobs {
		d, err := dataOf(j)
		if err != nil {
			report(Problem{"job " + j.ID, err.Error(), "restore the journal from its backup"})
			continue
		}
		if !wantsSpool(j) {
			continue
		}
		wanted[j.ID] = true
		r.fsckJob(j, d, report)
	}
	entries, err := fs.ReadDir(r.spool.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !wanted[e.Name()] {
			report(Problem{"spool/" + e.Name(), "no job needs it", "the daemon removes it at its next start"})
		}
	}
	return nil
}

func (r *Receiver) fsckJob(j journal.Job, d jobData, report func(Problem)) {
	where := "spool/" + j.ID
	sh, err := findShelf(r.spool, mustDigest(j.ID))
	if err != nil {
		report(Problem{where, err.Error(), "send the release again"})
		return
	}
	defer sh.Close()
	env, err := sh.envelope()
	if err != nil {
		report(Problem{where, err.Error(), "send the release again"})
		return
	}
	for i, s := range env.Statement.Subjects {
		f, err := sh.open(i)
		if err != nil {
			report(Problem{where, fmt.Sprintf("%s: %v", s.Name, err), "send the release again"})
			continue
		}
		info, err := f.Stat()
		if err = errors.Join(err, f.Close()); err != nil || info.Size() != s.Annotations.Size {
			report(Problem{where, fmt.Sprintf("%s does not have %d bytes", s.Name, s.Annotations.Size), "send the release again"})
		}
	}
	if d.Files != len(env.Statement.Subjects) {
		report(Problem{where, fmt.Sprintf("the job says %d files, the envelope %d", d.Files, len(env.Statement.Subjects)), "send the release again"})
	}
}

// fsckPublished asks the registry for every release that the journal calls published. deep holds every byte against the statement whose
// digest the journal knows: a registry whose files, receipt and COMMIT were all rewritten to agree with one another is found out.
func (r *Receiver) fsckPublished(ctx context.Context, deep bool, report func(Problem)) error {
	jobs, err := r.journal.List(func(j journal.Job) bool { return j.State == statePublished })
	if err != nil {
		return err
	}
	for _, j := range jobs {
		_, err := r.registry.Get(ctx, j.Name, [32]byte(mustDigest(j.ID)))
		if errors.Is(err, registry.ErrWithdrawn) {
			continue // nobody reads it; the registry's own judgement holds its records and files together
		}
		if errors.Is(err, registry.ErrNotFound) || errors.Is(err, registry.ErrCorrupt) {
			report(Problem{"release " + j.ID, "the journal calls it published, the registry: " + err.Error(), "import the release again"})
			continue
		}
		if err != nil {
			return err
		}
		if !deep {
			continue
		}
		if err := r.fsckBytes(ctx, j); err != nil {
			report(Problem{"release " + j.ID, err.Error(), "somebody wrote into the registry: take it out of service and import the release again"})
		}
	}
	return nil
}

func (r *Receiver) fsckBytes(ctx context.Context, j journal.Job) error {
	env, err := publishedEnvelope(ctx, r.registry, j.Name, mustDigest(j.ID))
	if err != nil {
		return err
	}
	return r.verifyPublished(ctx, env)
}

// Releases lists what the registry shows to readers.
func (r *Receiver) Releases(ctx context.Context) ([]registry.Entry, error) {
	return r.registry.List(ctx)
}

// Journal gives the daemon's journal to readiness checks.
func (r *Receiver) Journal() *journal.Journal { return r.journal }

// registryRemedy says what to do about a finding of the registry.
func registryRemedy(k registry.ProblemKind) string {
	switch k {
	case registry.ProblemUncommitted, registry.ProblemLeftover, registry.ProblemUncatalogued:
		return "a crash left it; the daemon puts it right at its next start"
	case registry.ProblemExposed:
		return "a crash left it, or somebody put it back: the daemon takes it away at its next start; if it stays, its log says why (registry.ErrDenied, registry.ErrNoVersions)"
	case registry.ProblemWithdrawal:
		return "find out who changed it; readers take the release as withdrawn. Then withdraw it again"
	case registry.ProblemExtra:
		return "nobody published it through Sluice: find out who wrote it, and remove it"
	default:
		return "the registry is damaged: take it out of service and import the release again"
	}
}
