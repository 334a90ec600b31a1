// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"

	"sluice/internal/audit"
	"sluice/internal/console"
	"sluice/internal/journal"
	"sluice/internal/officer"
	"sluice/internal/site"
	"sluice/internal/trust"
	"sluice/pkg/envelope"
	"sluice/pkg/mofn"
)

// collect looks for approvals of a sealed release, keeps status.txt current, and moves on when the policy is met.
func (p *Packer) collect(_ context.Context, job journal.Job, _ jobData) (result, error) {
	dir := p.workDir(job)
	env, err := ReadEnvelope(dir)
	if err != nil {
		return result{}, err
	}
	found, problems, err := p.lookIntoBox(env)
	if err != nil {
		return result{wait: "the drop-box", note: err.Error()}, nil //nolint:nilerr // a stick that is away is looked for again soon, and no failure
	}
	found, unfit := p.sift(env, found)
	problems = append(problems, unfit...)
	if err := env.Merge(found); err != nil {
		return result{}, err
	}
	prog, err := p.store().Progress(env)
	if err != nil {
		return result{}, err
	}
	if err := p.recordDecisions(job, env); err != nil {
		return result{}, err
	}
	if len(prog.Rejected) > 0 {
		return result{}, fmt.Errorf("%w: by %s", mofn.ErrRejected, strings.Join(prog.Rejected, ", "))
	}
	if !prog.Met {
		return result{wait: strings.Join(prog.Missing, "; "), note: strings.Join(problems, "; ")}, nil
	}
	approval, err := p.checkSealed(env)
	if err != nil {
		return result{}, err
	}
	if err := writeEnvelope(dir, env); err != nil {
		return result{}, err
	}
	sum, err := envelopeDigest(env)
	if err != nil {
		return result{}, err
	}
	return result{to: stateApproved, detail: "by " + strings.Join(approval.Officers(), ", "), digest: sum, key: approval.Packer().String()}, nil
}

// lookIntoBox reads the approvals of a release, and puts the request up again where it is missing: on a stick that was not in when
// it was sealed, or on another one.
func (p *Packer) lookIntoBox(env *envelope.Envelope) (found []envelope.Named, problems []string, err error) {
	there, err := p.box.HasRequest(env)
	if err == nil && !there {
		err = p.request(env)
	}
	if err != nil {
		return nil, nil, err
	}
	return p.box.Approvals(env.ID)
}

// recordDecisions puts those words of officers into the log that it does not have yet.
func (p *Packer) recordDecisions(job journal.Job, env *envelope.Envelope) error {
	d, err := dataOf(job)
	if err != nil {
		return err
	}
	events, err := audit.Decisions(p.store(), env, d.Decisions)
	if err != nil || len(events) == 0 {
		return err
	}
	for i := range events {
		events[i].Actor = actor
	}
	_, err = p.journal.Touch(job.ID, func(j *journal.Job) error {
		return setData(j, func(d *jobData) {
			for _, e := range events {
				d.Decisions = append(d.Decisions, e.Digest)
			}
			d.Decisions = d.Decisions[max(0, len(d.Decisions)-maxDecisions):]
		})
	}, events...)
	return err
}

// maxDecisions is how many words of officers a job remembers: twice what an envelope holds.
const maxDecisions = 64

// sift keeps the approvals that the policy takes, each by itself, and says what is wrong with the others. Whoever can write into the
// drop-box can put anything there; it must neither hold up nor refuse a release, nor ride along to the receiver.
func (p *Packer) sift(env *envelope.Envelope, found []envelope.Named) (good []envelope.Named, problems []string) {
	for _, n := range found {
		err := officer.CheckApproval(p.store(), env, n)
		if err == nil {
			err = p.barred(n)
		}
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s is not counted: %v", n.Name, err))
			continue
		}
		good = append(good, n)
	}
	return good, problems
}

// trustLines are what officers are told of trust: all but the age of the snapshot, which would change the file every second.
func trustLines(s site.Status) []string {
	lines := slices.Clone(s.Words)
	lines[0] = fmt.Sprintf("trust object %d in effect", s.Version)
	if len(s.Freshness.Words) > 0 {
		lines[0] += "; freshness words: " + strings.Join(s.Freshness.Words, " ")
	}
	return lines
}

// barred says why an approval counts nothing although it verifies: its key or its officer was stopped or revoked.
func (p *Packer) barred(n envelope.Named) error {
	v, err := trust.Vote(n)
	if err != nil {
		return err
	}
	for _, g := range v.Signatures {
		if why, barred := p.store().Barred(g.KeyID, p.site.Standing()); barred {
			return errors.New(why)
		}
	}
	return nil
}

// status writes the drop-box's status.txt: every release that waits for people, and the last that did not.
func (p *Packer) status() error {
	jobs, err := p.journal.List(func(j journal.Job) bool { return j.Release != "" })
	if err != nil {
		return err
	}
	var b strings.Builder
	b.WriteString("sluice: releases and their approvals\n\n")
	for _, line := range trustLines(p.site.Describe(p.now())) {
		fmt.Fprintln(&b, line)
	}
	p.mu.Lock()
	for _, line := range p.said {
		fmt.Fprintln(&b, console.Clean(line))
	}
	p.mu.Unlock()
	b.WriteString("\n")
	for _, j := range jobs {
		d, err := dataOf(j)
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%-9s %s seq %d  release %.12s  %s\n", j.State, j.Stream, j.Seq, j.Release, j.Name)
		if j.State == stateSealed && d.Waiting != "" {
			fmt.Fprintf(&b, "          missing: %s\n", d.Waiting)
		}
		if j.State == stateApproved && d.Waiting != "" {
			fmt.Fprintf(&b, "          waiting for %s\n", d.Waiting)
		}
		if j.LastError != "" {
			fmt.Fprintf(&b, "          %s\n", j.LastError)
		}
	}
	return p.box.WriteStatus(b.String())
}

// watchBox wakes the loop when something appears below approvals/. A share or stick that comes and goes, or a file system without
// notifications, costs only the delay of the ordinary poll.
func (p *Packer) watchBox(ctx context.Context) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		p.log.Warn("drop-box is polled, not watched", zap.Error(err))
		<-ctx.Done()
		return nil
	}
	defer w.Close()
	for ctx.Err() == nil {
		p.addWatches(w)
		select {
		case <-ctx.Done():
		case <-w.Events:
			p.wake()
		case err := <-w.Errors:
			p.log.Warn("drop-box", zap.Error(err))
		case <-p.rewatch:
		}
	}
	return nil
}

// addWatches adds the directories that officers write into and that exist now; adding one twice is harmless.
func (p *Packer) addWatches(w *fsnotify.Watcher) {
	dirs := []string{p.box.Dir, filepath.Join(p.box.Dir, "orders")}
	for _, base := range []string{filepath.Join(p.box.Dir, "approvals"), filepath.Join(p.box.Dir, "trust", "proposals")} {
		dirs = append(dirs, base)
		entries, _ := os.ReadDir(base) // it may be away: the poll finds it
		for _, e := range entries {
			if e.IsDir() {
				dirs = append(dirs, filepath.Join(base, e.Name()))
			}
		}
	}
	for _, d := range dirs {
		if err := w.Add(d); err != nil && !errors.Is(err, os.ErrNotExist) {
			p.log.Debug("drop-box watch", zap.String("dir", d), zap.Error(err))
		}
	}
}
