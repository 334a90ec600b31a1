// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/internal/journal"
)

// Status is what /status and `status --json` show.
type Status struct {
	Time  time.Time   `json:"time"`
	Trust string      `json:"trust"`
	Jobs  []JobStatus `json:"jobs"`
}

// JobStatus is one job in words.
type JobStatus struct {
	Job      string    `json:"job"`
	Stream   string    `json:"stream"`
	Name     string    `json:"name"`
	Commit   string    `json:"commit"`
	State    string    `json:"state"`
	Release  string    `json:"release,omitempty"`
	Epoch    int64     `json:"epoch,omitempty"`
	Seq      int64     `json:"seq,omitempty"`
	Bytes    int64     `json:"bytes,omitempty"`
	Waiting  string    `json:"waiting,omitempty"`
	Passes   int       `json:"passes,omitempty"`
	Running  Running   `json:"running,omitzero"`
	Updated  time.Time `json:"updated"`
	Attempts int       `json:"attempts,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// Running says how far the stage that runs, or the one that ran last, has come: in bytes, while sending in datagrams.
type Running struct {
	Stage string `json:"stage"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"`
}

// Status reports the jobs.
func (p *Packer) Status(context.Context) (any, error) {
	jobs, err := p.journal.List(func(journal.Job) bool { return true })
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := Status{Time: p.now().UTC(), Trust: fmt.Sprintf("%x", p.trust.Fingerprint)}
	for _, j := range jobs {
		d, err := dataOf(j)
		if err != nil {
			return nil, err
		}
		s.Jobs = append(s.Jobs, JobStatus{
			Job: j.ID, Stream: j.Stream, Name: j.Name, Commit: d.Commit, State: j.State, Release: j.Release,
			Epoch: j.Epoch, Seq: j.Seq, Bytes: d.Bytes, Waiting: d.Waiting, Passes: d.Passes, Running: p.running[j.ID], Updated: j.Updated, Attempts: j.Attempts, Error: j.LastError,
		})
	}
	return s, nil
}

type metrics struct {
	transitions *prometheus.CounterVec
	refused     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		transitions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "sluice", Subsystem: "packer", Name: "transitions_total",
			Help: "State changes of jobs, by the state reached.",
		}, []string{"state"}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: "sluice", Subsystem: "packer", Name: "refused_total",
			Help: "Jobs refused by a stage or by an officer.",
		}),
	}
	if reg == nil {
		return m, nil
	}
	return m, errors.Join(reg.Register(m.transitions), reg.Register(m.refused))
}
