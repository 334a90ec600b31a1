// SPDX-License-Identifier: Apache-2.0

package console

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// The sides of the diode, as they stand in a timeline.
const (
	Low  = "low"
	High = "high"
)

// Timeline prints what has happened to releases, one line a stage, with the time since it began. Several goroutines may
// use one.
type Timeline struct {
	mu    sync.Mutex
	w     io.Writer
	style Style
	now   func() time.Time
	start time.Time
	err   error
}

// NewTimeline begins a timeline now. now may be nil for time.Now.
func NewTimeline(w io.Writer, style Style, now func() time.Time) *Timeline {
	if now == nil {
		now = time.Now
	}
	return &Timeline{w: w, style: style, now: now, start: now()}
}

// Stage prints one stage that is done: side is Low or High, stage a participle ("mirrored"), subject the release, size
// its bytes (negative to leave it out), detail what a person wants to know.
func (t *Timeline) Stage(side, stage, subject string, size int64, detail string) {
	t.line(side, "", stage, subject, size, detail)
}

// Fail prints a stage that was refused or has failed, with the reason.
func (t *Timeline) Fail(side, stage, subject, reason string) {
	t.line(side, colorFail, stage, subject, -1, reason)
}

// Note prints a line without a stage, such as a heading; an empty one separates.
func (t *Timeline) Note(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.print(Clean(text))
}

// Elapsed is the time since the timeline began.
func (t *Timeline) Elapsed() time.Duration { return t.now().Sub(t.start) }

// Err is the first error of the writer. After one, nothing more is printed.
func (t *Timeline) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

func (t *Timeline) line(side, color, stage, subject string, size int64, detail string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	parts := []string{
		fmt.Sprintf("%10s", Duration(t.Elapsed())),
		t.style.paint(sideColor(side), fmt.Sprintf("%-4s", Clean(side))),
		t.style.paint(color, fmt.Sprintf("%-10s", Clean(stage))),
	}
	if subject != "" {
		parts = append(parts, Clean(subject))
	}
	if size >= 0 {
		parts = append(parts, Bytes(size))
	}
	if detail != "" {
		parts = append(parts, Clean(detail))
	}
	t.print(strings.Join(parts, "  "))
}

func (t *Timeline) print(line string) {
	if t.err == nil {
		_, t.err = fmt.Fprintln(t.w, strings.TrimRight(line, " "))
	}
}
