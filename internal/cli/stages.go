// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io"
	"os"
	"sync"

	"sluice/internal/console"
)

// Stages draws the progress of whatever stage runs as a bar on a terminal; off one it is silent, for a log is no place for it. A new
// stage ends the display of the one before.
type Stages struct {
	w     io.Writer
	side  string
	style console.Style

	mu    sync.Mutex
	label string
	bar   *console.Progress
}

// NewStages begins a display on w.
func NewStages(w io.Writer, side string) *Stages {
	style := console.Detect(w, os.Getenv) //nolint:forbidigo // NO_COLOR and TERM belong to the terminal, not to the configuration
	return &Stages{w: w, side: side, style: style}
}

// Update says how far a stage of a job has come, in bytes.
func (s *Stages) Update(stage, job string, done, total int64) {
	if !s.style.Terminal {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	label := s.side + "  " + stage + "  " + job[:min(24, len(job))]
	if label != s.label {
		s.end()
		s.label = label
		s.bar = console.NewProgress(s.w, s.style, label, total, nil)
	}
	if s.bar != nil {
		s.bar.Set(done)
		if done >= total {
			s.end()
		}
	}
}

// Stage is Update for one stage of a verb.
func (s *Stages) Stage(stage string) func(done, total int64) {
	return func(done, total int64) { s.Update(stage, "", done, total) }
}

// Close ends the display.
func (s *Stages) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
}

func (s *Stages) end() {
	if s.bar != nil {
		s.bar.Finish()
		s.bar = nil
	}
}
