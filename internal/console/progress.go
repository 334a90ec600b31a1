// SPDX-License-Identifier: Apache-2.0

package console

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

const (
	// redraw is how often a bar is drawn anew: smooth to the eye, nothing to the machine.
	redraw = 100 * time.Millisecond
	// barWidth leaves room for the figures on a terminal of 80 columns.
	barWidth = 30
	// tenth: off a terminal a line is printed at every tenth.
	tenth = 10
)

// Progress shows how far a number of bytes has come: a bar on a terminal, elsewhere a line at every ten per cent. It is an io.Writer
// that counts, and several goroutines may use one.
type Progress struct {
	mu    sync.Mutex
	bar   *progressbar.ProgressBar // nil off a terminal
	w     io.Writer
	label string
	total int64
	done  int64
	shown int64 // tenths printed
	now   func() time.Time
	start time.Time
}

// NewProgress begins a progress of total bytes (0 or less: unknown). label says what moves, such as [Low]. now may be nil for time.Now.
func NewProgress(w io.Writer, style Style, label string, total int64, now func() time.Time) *Progress {
	if now == nil {
		now = time.Now
	}
	p := &Progress{w: w, label: Clean(label), total: total, now: now, start: now()}
	if style.Terminal {
		p.bar = newBar(w, style, p.label, total)
	}
	return p
}

func newBar(w io.Writer, style Style, label string, total int64) *progressbar.ProgressBar {
	if total <= 0 {
		total = -1 // progressbar's word for unknown: a spinner
	}
	theme := progressbar.ThemeASCII
	if style.Color {
		theme = progressbar.ThemeUnicode
	}
	return progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(fmt.Sprintf("%-4s", label)),
		progressbar.OptionShowBytes(true),
		progressbar.OptionShowTotalBytes(true),
		progressbar.OptionSetWidth(barWidth),
		progressbar.OptionThrottle(redraw),
		progressbar.OptionSetTheme(theme),
		progressbar.OptionOnCompletion(func() { _, _ = fmt.Fprintln(w) }),
	)
}

// Add counts n more bytes. A progress never goes back, and never beyond its total.
func (p *Progress) Add(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set(p.done + max(n, 0))
}

// Set says how many bytes are done in all.
func (p *Progress) Set(done int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set(max(done, p.done))
}

// Write counts len(b) bytes, so that io.Copy through an io.MultiWriter can drive a progress.
func (p *Progress) Write(b []byte) (int, error) {
	p.Add(int64(len(b)))
	return len(b), nil
}

// Finish ends the display where it stands, and leaves the cursor on a line of its own. It may be called twice.
func (p *Progress) Finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil && !p.bar.IsFinished() {
		_ = p.bar.Exit() // it only writes
		_, _ = fmt.Fprintln(p.w)
	}
	p.bar = nil
	p.shown = tenth
}

func (p *Progress) set(done int64) {
	if p.total > 0 {
		done = min(done, p.total)
	}
	p.done = done
	if p.bar != nil {
		_ = p.bar.Set64(done) // it only writes
		return
	}
	p.plain()
}

// plain prints a line when a new tenth is reached; an unknown total has no tenths.
func (p *Progress) plain() {
	if p.total <= 0 {
		return
	}
	reached := int64(float64(p.done) / float64(p.total) * tenth)
	if p.done < p.total {
		reached = min(reached, tenth-1) // 100 % is said when it is true
	}
	if reached <= p.shown {
		return
	}
	p.shown = reached
	_, _ = fmt.Fprintf(p.w, "%-4s  %3d %%  %s of %s  %s\n",
		p.label, reached*tenth, Bytes(p.done), Bytes(p.total), p.rate())
}

func (p *Progress) rate() string {
	elapsed := p.now().Sub(p.start).Seconds()
	if elapsed <= 0 {
		return Rate(-1)
	}
	return Rate(float64(p.done) / elapsed)
}
