// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"sluice/integration/lab"
	"sluice/internal/admin"
	"sluice/internal/console"
	"sluice/internal/packer"
)

func (d *demo) startDaemons(ctx context.Context) (err error) {
	if d.high, err = d.StartBinary("diode-receiver", "high.yaml"); err != nil {
		return err
	}
	if d.low, err = d.StartBinary("bastion-packer", "low.yaml"); err != nil {
		return err
	}
	if err := errors.Join(d.WaitUp(ctx, d.high, "high.sock"), d.WaitUp(ctx, d.low, "low.sock")); err != nil {
		return err
	}
	d.tl.Stage("both", "running", "bastion-packer, diode-receiver", -1, fmt.Sprintf("the link loses %.3g %% of the datagrams", d.opt.loss*100))
	return nil
}

// firstRelease follows one release from the Hub to the registry.
func (d *demo) firstRelease(ctx context.Context) error {
	if err := d.followLow(ctx, 1, "SEALED"); err != nil {
		return err
	}
	if err := d.review(ctx); err != nil {
		return err
	}
	for _, o := range []string{lab.Security()[2], lab.Security()[0], lab.Quality()[1]} {
		if err := d.approve(ctx, o); err != nil {
			return err
		}
	}
	if err := d.followTransfer(ctx); err != nil {
		return err
	}
	c := d.relay.Counters()
	d.tl.Stage("link", "carried", "one way", -1, fmt.Sprintf("%d datagrams in, %d lost on the link (%.2f %%), none back", c.Written, c.Dropped, 100*float64(c.Dropped)/float64(max(1, c.Written))))
	return nil
}

// job asks the packer for the job that made the n-th release of the stream.
func (d *demo) job(ctx context.Context, n int) (packer.JobStatus, error) {
	var st packer.Status
	if err := admin.Fetch(ctx, "unix:"+d.Path("low.sock"), "/status", &st); err != nil {
		return packer.JobStatus{}, err
	}
	if len(st.Jobs) < n {
		return packer.JobStatus{}, nil
	}
	return st.Jobs[n-1], nil
}

// followLow prints each state that the packer's n-th job reaches, until the last one asked for.
func (d *demo) followLow(ctx context.Context, n int, until string) error {
	words := map[string]string{"MIRRORED": "mirrored", "INSPECTED": "inspected", "GATED": "gated", "SEALED": "sealed"}
	order := []string{"MIRRORED", "INSPECTED", "GATED", "SEALED"}
	shown := 0
	return lab.WaitFor(ctx, 2*time.Minute, "the packer", func() (bool, error) {
		j, err := d.job(ctx, n)
		if err != nil {
			return false, firstOf(d.low.Died(), err)
		}
		if j.State == "REFUSED" || j.Attempts > 3 {
			return false, fmt.Errorf("the packer: %s: %s", j.State, j.Error)
		}
		for reached := indexOf(order, j.State); shown <= reached; shown++ {
			d.tl.Stage(console.Low, words[order[shown]], d.input.repo+"@"+j.Commit[:12], j.Bytes, d.lowDetail(order[shown], j))
		}
		if j.State == until {
			d.releases = append(d.releases, j.Release)
			return true, nil
		}
		return false, nil
	})
}

func (d *demo) lowDetail(state string, j packer.JobStatus) string {
	switch state {
	case "MIRRORED":
		return "every file verified against the tree's own hash"
	case "INSPECTED":
		return "kinds, completeness, tensors, templates"
	case "GATED":
		if d.input.exception != "" {
			return "DECLARED EXCEPTION: " + d.input.exception
		}
		return "non-inferior on MMLU and HumanEval"
	default:
		return fmt.Sprintf("release %.12s, seq %d", j.Release, j.Seq)
	}
}

func indexOf(list []string, s string) int {
	for i, v := range list {
		if v == s {
			return i
		}
	}
	return -1
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// review shows what an officer is shown.
func (d *demo) review(ctx context.Context) error {
	staging, err := d.staging()
	if err != nil {
		return err
	}
	out, err := d.Show(ctx, d.releases[len(d.releases)-1], staging...)
	if err != nil {
		return err
	}
	d.note("")
	d.note("what an officer is shown:")
	for line := range strings.Lines(indent(out)) {
		d.note("%s", strings.TrimRight(line, "\n"))
	}
	d.note("")
	return nil
}

// approve lets one officer sign the newest request.
func (d *demo) approve(ctx context.Context, officer string) error {
	staging, err := d.staging()
	if err != nil {
		return err
	}
	out, err := d.Approve(ctx, officer, d.releases[len(d.releases)-1], staging...)
	if err != nil {
		return err
	}
	d.tl.Stage(console.Low, "approved", officer, -1, decision(out))
	return nil
}

// staging lets an officer's machine read every byte. All of the demonstration share one machine, so the second one reads only what changed.
func (d *demo) staging() ([]string, error) {
	job, err := d.jobDir(d.releases[len(d.releases)-1])
	return []string{"--payload", filepath.Join(job, "payload"), "--cache", d.Path("cache")}, err
}

// decision is what stands below the page: the line that says what was signed, and what was checked.
func decision(out string) string {
	_, below, _ := strings.Cut(out, "\napprove: ")
	lines := strings.Split(strings.TrimSpace(below), "\n")
	for _, line := range lines {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "checked: "); ok {
			return lines[0] + "; checked: " + text
		}
	}
	return lines[0]
}

// followTransfer shows a progress a side until the release is published.
func (d *demo) followTransfer(ctx context.Context) error {
	id := d.releases[len(d.releases)-1]
	m := newMeters(d)
	seen, told := map[string]bool{}, map[uint64]bool{}
	err := lab.WaitFor(ctx, 3*time.Minute, "the receiver", func() (bool, error) {
		j, err := d.job(ctx, len(d.releases))
		if err != nil {
			return false, firstOf(d.low.Died(), err)
		}
		switch {
		case j.Running.Stage == "send, pass 1":
			m.set(&m.low, j.Running.Done*symbol, j.Running.Total*symbol)
		case strings.HasPrefix(j.Running.Stage, "send"):
			m.finish(&m.low)
		}
		r, err := d.Release(ctx, id)
		if err != nil || r == nil {
			return false, firstOf(d.high.Died(), err)
		}
		if r.Symbols > 0 {
			m.set(&m.high, r.Have*symbol, r.Symbols*symbol)
		}
		if r.State != "RECEIVING" {
			m.finish(&m.high)
		}
		if err := d.timeline(ctx, id, told, m.clear); err != nil {
			return false, err
		}
		if r.State == "REJECTED" {
			return false, fmt.Errorf("the receiver refused the release: %s", r.Error)
		}
		if j.State == "SENT" && !seen["SENT"] {
			m.finish(&m.low)
			seen["SENT"] = true
		}
		return r.State == "PUBLISHED" && j.State == "SENT", nil
	})
	m.clear()
	return err
}

// symbol is the size of an encoding symbol at MTU 1500.
const symbol = 1408

// timeline prints what is new in the receiver's audit trail of the release.
func (d *demo) timeline(ctx context.Context, id string, told map[uint64]bool, clear func()) error {
	st, err := d.HighStatus(ctx)
	if err != nil {
		return err
	}
	for _, e := range st.Events {
		if e.Release == id && !told[e.Seq] {
			told[e.Seq] = true
			clear()
			d.tl.Stage(console.High, e.Action, "release "+id[:12], -1, e.Detail)
		}
	}
	return nil
}

// meters show how far both sides have come: on a terminal one line with a bar a side, elsewhere a line a side every ten per cent.
type meters struct {
	d         *demo
	low, high meter
	drawn     bool
}

// meter is one side's progress, in bytes.
type meter struct {
	label       string
	done, total int64
	lines       *console.Progress
	over        bool
}

func newMeters(d *demo) *meters {
	return &meters{d: d, low: meter{label: "low  sending"}, high: meter{label: "high receiving"}}
}

func (m *meters) set(side *meter, done, total int64) {
	if side.over || total == 0 || done == 0 {
		return
	}
	side.done, side.total = done, total
	if m.d.style.Terminal {
		if !m.high.over { // from then on the timeline speaks
			m.draw()
		}
		return
	}
	if side.lines == nil {
		side.lines = console.NewProgress(m.d.out, m.d.style, side.label, total, nil)
	}
	side.lines.Set(done)
}

// finish ends one side's display.
func (m *meters) finish(side *meter) {
	if side.lines != nil && !side.over {
		side.lines.Finish()
	}
	if !side.over && side.total > 0 {
		side.done = side.total
	}
	side.over = true
}

// clear ends the line of bars, so that the timeline goes on below it.
func (m *meters) clear() {
	if m.drawn {
		m.draw()
		fmt.Fprintln(m.d.out)
		m.drawn = false
	}
}

func (m *meters) draw() {
	fmt.Fprintf(m.d.out, "\r%s   %s ", m.low.bar(), m.high.bar())
	m.drawn = true
}

// bar draws 20 cells.
func (s *meter) bar() string {
	const cells = 20
	share := float64(s.done) / float64(max(1, s.total))
	full := int(share * cells)
	return fmt.Sprintf("%s [%s%s] %3.0f %% of %s", s.label, strings.Repeat("=", full), strings.Repeat(" ", cells-full), 100*share, console.Bytes(s.total))
}
