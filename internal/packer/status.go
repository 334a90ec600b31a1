// SPDX-License-Identifier: Apache-2.0

package packer

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sluice/internal/journal"
	"sluice/internal/site"
)

// Status is what /status and `status --json` show.
type Status struct {
	Time  time.Time   `json:"time"`
	Trust string      `json:"trust"` // fingerprint of the trust object in effect
	Site  site.Status `json:"site"`  // trust objects, orders, what is current
	Link  LinkStatus  `json:"link"`
	Jobs  []JobStatus `json:"jobs"`
}

// JobStatus is one job in words.
type JobStatus struct {
	Job      string      `json:"job"`
	Stream   string      `json:"stream"`
	Name     string      `json:"name"`
	Commit   string      `json:"commit"`
	State    string      `json:"state"`
	Release  string      `json:"release,omitempty"`
	Epoch    int64       `json:"epoch,omitempty"`
	Seq      int64       `json:"seq,omitempty"`
	Bytes    int64       `json:"bytes,omitempty"`
	Waiting  string      `json:"waiting,omitempty"`
	Passes   int         `json:"passes,omitempty"`
	NextPass *NextPass   `json:"next_pass,omitempty"`
	Running  Running     `json:"running,omitzero"`
	LastPass *PassRecord `json:"last_pass,omitempty"`
	Updated  time.Time   `json:"updated"`
	Attempts int         `json:"attempts,omitempty"`
	Error    string      `json:"error,omitempty"`
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
	s := Status{Time: p.now().UTC(), Trust: fmt.Sprintf("%x", p.store().Fingerprint), Site: p.site.Describe(p.now())}
	for _, j := range jobs {
		d, err := dataOf(j)
		if err != nil {
			return nil, err
		}
		s.Jobs = append(s.Jobs, JobStatus{
			Job: j.ID, Stream: j.Stream, Name: j.Name, Commit: d.Commit, State: j.State, Release: j.Release,
			Epoch: j.Epoch, Seq: j.Seq, Bytes: d.Bytes, Waiting: d.Waiting, Passes: d.Passes, LastPass: d.LastPass, NextPass: p.cfg.Link.next(j.State, d),
			Running: p.running[j.ID], Updated: j.Updated, Attempts: j.Attempts, Error: j.LastError,
		})
	}
	s.Link = p.onAir.status(time.Now(), p.started, p.cfg.Link.TotalRate(), lastPass(s.Jobs))
	return s, nil
}

// lastPass is the pass that ended last, of whatever job.
func lastPass(jobs []JobStatus) (last *PassRecord) {
	for _, j := range jobs {
		if j.LastPass != nil && (last == nil || j.LastPass.Ended.After(last.Ended)) {
			last = j.LastPass
		}
	}
	return last
}

type metrics struct {
	transitions *prometheus.CounterVec
	refused     prometheus.Counter
}

// registerLink shows what this host does with the link, as of the scrape.
func registerLink(reg prometheus.Registerer, status func() LinkStatus, failures func() uint64) error {
	if reg == nil {
		return nil
	}
	opts := func(name, help string) prometheus.Opts {
		return prometheus.Opts{Namespace: "sluice", Subsystem: "packer", Name: name, Help: help}
	}
	busy := func() float64 {
		if status().Busy {
			return 1
		}
		return 0
	}
	return errors.Join(
		reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("link_busy", "1 while a release is on the link, 0 while heartbeats are.")), busy)),
		reg.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts(opts("link_silence_seconds",
			"Time since a datagram was handed to the kernel. A heartbeat is due every second.")), func() float64 { return status().Silence })),
		reg.Register(prometheus.NewCounterFunc(prometheus.CounterOpts(opts("send_failures_total",
			"Datagrams that this host's kernel did not take.")), func() float64 { return float64(failures()) })),
	)
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
